"""Models by role: which a name means, what is told of each, and who is left alone for a while."""

import asyncio
from pathlib import Path

import pytest

from knowme.breaker import RestingError
from knowme.errors import (
    ModelDownError,
    ModelError,
    ModelMissingError,
    NotFoundError,
)
from knowme.models import Models, parameters_of
from knowme.settings import EngineSettings, ModelSettings

from .work import Clock, ask, held, loaded, swaps, until

# --- which there are ------------------------------------------------------------------------------


class TestRoles:
    def test_without_models_the_engine_is_the_primary_one(self, build):
        models = build(engine=EngineSettings(kind="echo", model="", max_tokens=77))
        assert (models.roles, models.primary) == (("primary",), "primary")
        assert models.engine("primary").name == "echo"
        assert models.states()[0].max_tokens == 77

    def test_primary_is_the_default_else_the_first(self, build):
        assert build(held("code"), held("primary")).primary == "primary"
        assert build(held("code"), held("fast")).primary == "code"

    def test_a_model_is_found_by_its_role_and_by_its_name(self, build):
        one = ModelSettings(role="primary", engine="ollama", model="qwen3:4b")
        two = ModelSettings(role="code", engine="ollama", model="coder:latest")
        gguf = ModelSettings(role="file", engine="llamacpp", model="/models/Fox-1b.gguf")
        models = build(one, two, gguf, ModelSettings(role="own", engine="llamacpp"))
        names = "primary qwen3:4b qwen3:4b:latest coder coder:latest Fox-1b smollm2-135m".split()
        found = [models.find(name) for name in names]
        assert found == ["primary"] * 3 + ["code"] * 2 + ["file", "own"]
        for call in (models.find, models.setting, models.engine):
            with pytest.raises(NotFoundError, match=r"'gpt'.*primary \(qwen3:4b\), code \(coder"):
                call("gpt")

    def test_an_engine_has_the_engines_settings_with_its_own_over_them(self, build, memory):
        base = EngineSettings(
            kind="held", url="http://127.0.0.1:1", api_key="ours", context_tokens=2048,
            max_tokens=300, timeout_seconds=9.0, keep_alive="1h",
        )  # fmt: skip
        models = build(
            held("primary", max_tokens=50),
            held("wide", context_tokens=8192, think=True, url="http://127.0.0.1:2", local="true"),
            held("own", api_key="theirs", residency="always"),
            held("short", residency="unload_after", unload_after="90s"),
            engine=base,
            cache="ssd",
        )
        primary, wide, own, short = (models.engine(role).given for role in models.roles)
        assert (primary["url"], primary["api_key"]) == ("http://127.0.0.1:1", "ours")
        assert (primary["max_tokens"], primary["timeout_seconds"]) == (50, 9.0)
        assert (wide["url"], wide["api_key"], wide["local"]) == ("http://127.0.0.1:2", "", "true")
        assert wide["think"] and not primary["think"]
        assert own["api_key"] == "theirs"
        kept = [each["keep_alive"] for each in (primary, wide, own, short)]
        assert kept == ["120s", "120s", "-1", "90s"]
        assert [models.engine(role).context_tokens for role in models.roles[:2]] == [2048, 8192]

    def test_a_key_goes_to_no_other_kind_of_server(self, build, memory):
        base = EngineSettings(kind="openai", url="https://cloud.example/v1", api_key="secret")
        models = build(held("primary"), engine=base)
        assert models.engine("primary").given["api_key"] == ""
        assert models.engine("primary").given["url"] == ""

    def test_the_engines_own_keep_alive_holds_where_no_models_are_configured(self, build, memory):
        def kept(text):
            models = build(engine=EngineSettings(kind="held", model="a-1", keep_alive=text))
            return models.engine("primary").given["keep_alive"]

        assert [kept(text) for text in ("30m", "2h", "-1", "0", "600")] == [
            "1800s", "7200s", "-1", "0s", "600s",
        ]  # fmt: skip

    def test_a_model_has_one_window_whatever_role_asks(self, build, memory):
        twins = [
            ModelSettings(role="small", engine="held", model="a-1", context_tokens=1024),
            ModelSettings(role="large", engine="held", model="a-1", context_tokens=4096),
        ]
        models = build(*twins)
        assert [state.context_tokens for state in models.states()] == [4096, 4096]
        assert models.engine("small").context_tokens == 4096

    def test_an_auto_role_whose_model_is_nowhere_is_missing_and_no_echo(self, build):
        models = build(held("primary"), ModelSettings(role="code", model="coder:7b"))
        with pytest.raises(ModelMissingError, match=r"'coder:7b' of the role code.*ollama pull"):
            models.engine("code")

    def test_wrong_settings_are_an_error_that_another_model_can_stand_in_for(self, build):
        models = build(ModelSettings(role="cloud", engine="openai"))
        with pytest.raises(ModelError, match=r"engine\.url is empty"):
            models.engine("cloud")
        assert "engine.url is empty" in models.states()[0].down


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen3:4b", 4e9),
        ("smollm2-135m", 135e6),
        ("Fox-1.5B-Instruct-Q4_K_M", 1.5e9),
        ("mixtral:8x7b", 56e9),
        ("qwen3-30b-a3b", 30e9),
        ("gemma3n:e4b", 4e9),
        ("phi3:3.8b-mini-128k", 3.8e9),
        ("gpt-4.1-mini", 0),
        ("claude", 0),
        ("q4_k_m", 0),
        ("", 0),
    ],
)
def test_a_name_tells_how_many_parameters_a_model_has(name, parameters):
    assert parameters_of(name) == parameters


class TestStates:
    def test_they_tell_what_is_known_before_anything_is_built(self, build):
        cloud = ModelSettings(
            role="cloud", engine="openai", model="gpt-9", url="https://cloud.example/v1",
            price_in=2.5, price_out=10.0, images=True,
        )  # fmt: skip
        lan = ModelSettings(
            role="lan", engine="ollama", model="big:70b", url="http://10.0.0.7:11434", local="true"
        )
        models = build(
            ModelSettings(role="primary", engine="llamacpp"), cloud, lan,
            ModelSettings(role="tiny", engine="ollama", model="tiny:500m", tools="true"),
        )  # fmt: skip
        primary, far, near, tiny = models.states()
        assert (primary.local, primary.model, primary.loaded) == (True, "smollm2-135m", False)
        assert (primary.parameters, primary.tools) == (135_000_000, False)
        assert primary.load_ms > 0
        assert (far.local, far.loaded, far.load_ms, far.images) == (False, True, 0.0, True)
        assert (far.price_in, far.price_out, far.tools, far.parameters) == (2.5, 10.0, True, 0)
        assert (near.local, near.loaded) == (True, True), "its memory is another machine's"
        assert tiny.tools and tiny.parameters == 500_000_000

    def test_what_lies_beyond_this_machine_is_down_while_offline_is_set(self, build):
        cloud = ModelSettings(role="cloud", engine="openai", model="m", url="https://c.example/v1")
        home, away = build(
            ModelSettings(role="primary", engine="llamacpp"), cloud, offline=True
        ).states()
        assert home.down == "" and "offline is set" in away.down

    def test_loading_is_expected_to_take_what_it_took(self, build, memory):
        memory.slow["a-100"] = 0.05
        models = build(held("a"), cache="none")
        models.engine("a")
        assert 0 < models.states()[0].load_ms < 1000

        async def once():
            await ask(models, "a")
            await until(lambda: not loaded(models))

        asyncio.run(once())
        took = models.states()[0].load_ms
        assert took >= 50 and took == pytest.approx(models.statistics()["mean_ms"], abs=0.001)
        assert len(swaps(models)) == 2
        later = Models(
            models._settings, models._db, folder=Path("nowhere"), detect=lambda wanted: "echo"
        )
        later.engine("a")
        assert later.states()[0].load_ms == pytest.approx(took), "it is remembered"

    def test_a_model_that_is_missing_is_down_until_it_is_there(self, build, models, tmp_path):
        clock, file = Clock(), tmp_path / "late.gguf"
        found = build(ModelSettings(role="late", engine="llamacpp", model=str(file)), clock=clock)
        with pytest.raises(ModelMissingError, match=r"late\.gguf"):
            asyncio.run(ask(found, "late"))
        assert "late.gguf" in found.states()[0].down
        file.symlink_to(models["chat"])
        asyncio.run(found.tick())
        assert "late.gguf" in found.states()[0].down, "it is looked at after a while"
        clock.now += 31
        asyncio.run(found.tick())
        assert found.states()[0].down == ""

    def test_what_is_missing_is_tried_again_where_nobody_ticks(self, build, memory):
        clock = Clock()
        models = build(held("a"), clock=clock)
        models.failed("a", ModelMissingError("Ollama has no model 'a'.", "Get it: ollama pull a"))
        assert models.states()[0].down == "Ollama has no model 'a'. Get it: ollama pull a"
        clock.now += 61
        assert models.states()[0].down == ""

    def test_a_local_model_that_failed_is_looked_at_and_never_left_alone(self, build, memory):
        models = build(held("a"))
        asyncio.run(ask(models, "a"))
        for _ in range(5):
            models.failed("a", ModelDownError("It took too long."))
        assert models.states()[0].down == ""
        asyncio.run(ask(models, "a"))
        memory.broken["a-100"] = ModelDownError("Its server is gone.", "Start it.")
        models.failed("a", ModelDownError("refused"))
        asyncio.run(models.tick())
        assert models.states()[0].down == "Its server is gone. Start it."
        del memory.broken["a-100"]
        models.worked("a")
        assert models.states()[0].down == ""


# --- the breaker ----------------------------------------------------------------------------------


CLOUD = ModelSettings(role="cloud", engine="openai", model="m", url="https://cloud.example/v1")


class TestBreaker:
    @staticmethod
    async def refused(models) -> bool:
        try:
            async with models.use("cloud"):
                return False
        except RestingError:
            return True

    def test_three_failures_in_a_row_open_it_for_half_a_minute(self, build):
        clock = Clock()
        models = build(CLOUD, clock=clock)
        asyncio.run(self.refused(models))
        for _ in range(2):
            models.failed("cloud", ModelDownError("It failed (500)."))
        models.worked("cloud")
        for _ in range(2):
            models.failed("cloud", ModelDownError("It failed (500)."))
        assert models.states()[0].down == ""
        models.failed("cloud", ModelDownError("It failed (500)."))
        assert models.states()[0].down == "It failed (500). It is asked again in 30 s."
        assert asyncio.run(self.refused(models))
        clock.now += 30
        assert models.states()[0].down == ""

    def test_what_the_server_asks_for_is_waited_at_once(self, build):
        clock = Clock()
        models = build(CLOUD, clock=clock)
        models.engine("cloud")
        models.failed("cloud", ModelDownError("Too much to do (429).", retry_after=7.0))
        assert "again in 7 s" in models.states()[0].down
        with pytest.raises(RestingError) as caught:
            asyncio.run(ask(models, "cloud"))
        assert caught.value.retry_after == pytest.approx(7.0)
        models.failed("cloud", caught.value)
        clock.now += 7.1
        assert models.states()[0].down == "", "our own refusal is no failure"

    def test_one_tries_again_while_the_others_wait_and_the_wait_doubles_to_ten_minutes(self, build):
        clock = Clock()
        models = build(CLOUD, clock=clock)
        models.engine("cloud")
        for _ in range(3):
            models.failed("cloud", ModelDownError("no"))

        async def probe():
            async with models.use("cloud"):
                assert "tried again" in models.states()[0].down
                assert await self.refused(models), "only one at a time"
            models.failed("cloud", ModelDownError("no"))

        waits = []
        for _ in range(7):
            left = models._breakers["cloud"]._until - clock.now
            waits.append(round(left))
            clock.now += left
            asyncio.run(probe())
        assert waits == [30, 60, 120, 240, 480, 600, 600]
        clock.now += 600
        assert not asyncio.run(self.refused(models))
        models.worked("cloud")
        for _ in range(3):
            models.failed("cloud", ModelDownError("no"))
        assert "again in 30 s" in models.states()[0].down, "one success forgives all"

    def test_a_probe_that_is_given_up_lets_the_next_one_try(self, build):
        clock = Clock()
        models = build(CLOUD, clock=clock)
        models.engine("cloud")
        models.failed("cloud", ModelDownError("no", retry_after=5.0))
        clock.now += 5
        assert not asyncio.run(self.refused(models))
        assert not asyncio.run(self.refused(models))

    def test_what_is_refused_for_its_content_is_no_failure_of_the_server(self, build):
        models = build(CLOUD)
        models.engine("cloud")
        for _ in range(5):
            models.failed("cloud", ModelError("The prompt is too long (400)."))
        assert models.states()[0].down == ""
