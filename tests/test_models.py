"""Models by role: which a name means, who is in memory, who goes, and what is told of it."""

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import held_engine
import pytest
from contracts import servers
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme import db as database
from knowme import modelstore
from knowme.breaker import RestingError
from knowme.engines import prefix
from knowme.engines.llamacpp import LlamaCppEngine
from knowme.engines.ollama import OllamaEngine
from knowme.errors import (
    ModelDownError,
    ModelError,
    ModelMissingError,
    NotFoundError,
)
from knowme.models import Models, parameters_of
from knowme.settings import EngineSettings, ModelSettings, ResidencySettings, Settings
from knowme.types import ChatMessage, Options

HELLO = [ChatMessage("user", "Hello?")]
STORY = [ChatMessage("user", "Tell me a very long story about a fox. Do not stop.")]
STEADY = Options(max_tokens=4, temperature=0.0)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Give the machine that the `held` engines load into; the engine is an installed plugin."""
    about = tmp_path / "plugin" / "held_engine-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: held-engine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[knowme.engines]\nheld = held_engine:HeldEngine\n")
    monkeypatch.syspath_prepend(str(about.parent))
    monkeypatch.setattr(held_engine, "memory", held_engine.Memory())
    yield held_engine.memory
    assert held_engine.memory.wrong == []


def held(role: str, size: int = 100, **more) -> ModelSettings:
    return ModelSettings(role=role, engine="held", model=f"{role}-{size}", **more)


@pytest.fixture
def build(tmp_path):
    """Give a function that makes Models; they and their memory.db are closed at the end."""
    made = []

    def make(*models: ModelSettings, engine=None, offline=False, **more) -> Models:
        given = {name: more.pop(name) for name in ("clock", "patience_seconds") if name in more}
        told = Settings(
            models=models,
            engine=engine or EngineSettings(threads=1),
            residency=ResidencySettings(**more),
            offline=offline,
        )
        store = database.Database(tmp_path / f"{len(made)}.db")
        found = Models(
            told, store, folder=tmp_path / "prefix", detect=lambda wanted: "echo", **given
        )
        made.append((found, store))
        return found

    yield make
    for found, store in made:
        asyncio.run(found.aclose())
        store.close()


def swaps(models: Models) -> list[tuple]:
    """Return the rows of the table: (kind, role, reason). They are written a little later."""
    for thread in models._residency._threads:
        thread.join(10)
    with models._db.read() as conn:
        return list(conn.execute("SELECT kind, role, reason FROM swaps ORDER BY id"))


async def ask(models, role, messages=HELLO, options=STEADY):
    """Return (text, usage) of an answer, as any surface asks."""
    async with models.use(role) as engine:
        text, usage = "", None
        async for chunk in engine.stream(messages, options):
            text += chunk.text
            usage = chunk.usage or usage
    return text, usage


@asynccontextmanager
async def inside(models, memory, role):
    """Hold a model as a request does; the machine is told, and refuses to unload it."""
    async with models.use(role) as engine:
        memory.inside.append(engine.model)
        try:
            yield engine
        finally:
            memory.inside.remove(engine.model)


async def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(0.002)


def loaded(models) -> set[str]:
    return {state.role for state in models.states() if state.loaded}


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


# --- who is in memory -----------------------------------------------------------------------------


class TestResidency:
    def test_the_least_recently_used_goes(self, build, memory):
        models = build(held("a"), held("b"), held("c"), max_models=2)

        async def work():
            for role in "abacbc":
                await ask(models, role)

        asyncio.run(work())
        assert memory.events == [
            ("load", "a-100"), ("load", "b-100"), ("unload", "b-100"), ("load", "c-100"),
            ("unload", "a-100"), ("load", "b-100"),
        ]  # fmt: skip
        assert loaded(models) == {"b", "c"}
        assert memory.most == 2

    def test_without_a_limit_all_stay(self, build, memory):
        models = build(*(held(role) for role in "abcd"), max_models=0)

        async def work():
            for role in "abcd":
                await ask(models, role)

        asyncio.run(work())
        assert loaded(models) == set("abcd")

    def test_statistics_are_those_of_the_table(self, build, memory):
        models = build(held("a"), held("b"), held("c"), max_models=2)

        async def work():
            for role in "abcaab":
                await ask(models, role)
            await models.aclose()

        asyncio.run(work())
        told = models.statistics()
        rows = swaps(models)
        assert rows == [
            ("load", "a", "asked"), ("load", "b", "asked"), ("unload", "a", "models"),
            ("load", "c", "asked"), ("unload", "b", "models"), ("load", "a", "asked"),
            ("unload", "c", "models"), ("load", "b", "asked"),
            ("unload", "a", "closed"), ("unload", "b", "closed"),
        ]  # fmt: skip
        assert told["loads"] == sum(kind == "load" for kind, *_ in rows) == 5
        assert told["unloads"] == sum(kind == "unload" for kind, *_ in rows) == 5
        assert (told["uses"], told["hits"], told["hit_rate"]) == (6, 1, round(1 / 6, 4))
        with models._db.read() as conn:
            took = [row[0] for row in conn.execute("SELECT took_ms FROM swaps WHERE kind='load'")]
            held_bytes = database.rows(conn, "SELECT DISTINCT memory_bytes FROM swaps")
        assert told["mean_ms"] == pytest.approx(sum(took) / len(took), abs=0.001)
        assert told["p95_ms"] == pytest.approx(max(took), abs=0.001)
        assert held_bytes == [(100 << 20,)]

    def test_one_with_a_request_in_flight_stays_and_who_needs_its_place_waits(self, build, memory):
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            async with inside(models, memory, "a"):
                second = asyncio.create_task(ask(models, "b"))
                await asyncio.sleep(0.1)
                assert not second.done() and loaded(models) == {"a"}
            await second
            assert loaded(models) == {"b"}

        asyncio.run(work())

    def test_two_roles_at_once_in_one_place_take_turns(self, build, memory):
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            await asyncio.gather(*(ask(models, role) for role in "abab" * 5))

        asyncio.run(work())
        assert memory.most == 1
        assert models.statistics()["uses"] == 20

    def test_many_at_once_load_a_model_once(self, build, memory):
        memory.slow["a-100"] = 0.05
        models = build(held("a"))

        async def work():
            await asyncio.gather(*(ask(models, "a") for _ in range(10)))

        asyncio.run(work())
        assert memory.events == [("load", "a-100")]
        assert models.statistics()["hits"] == 0, "none of them found it loaded"

    def test_threads_with_event_loops_of_their_own_share_the_models(self, build, memory):
        models = build(held("a"), held("b"), held("c"), max_models=2)
        failed = []

        def work(turn):
            async def some():
                for step in range(6):
                    async with inside(models, memory, "abc"[(turn * step + turn) % 3]):
                        await asyncio.sleep(0.001)

            try:
                asyncio.run(some())
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failed and not any(thread.is_alive() for thread in threads)
        assert models.statistics()["uses"] == 48
        assert memory.most <= 2

    def test_a_request_that_is_given_up_while_it_loads_leaves_the_others_their_model(
        self, build, memory
    ):
        memory.slow["a-100"] = 0.2
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            first = asyncio.create_task(ask(models, "a"))
            await asyncio.sleep(0.05)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await ask(models, "b")
            await ask(models, "a")

        asyncio.run(work())
        assert memory.happened("load") == ["a-100", "b-100", "a-100"]

    def test_a_loop_that_ends_while_it_loads_leaves_the_next_one_its_model(self, build, memory):
        memory.slow["a-100"] = 0.2
        models = build(held("a"))

        async def leave():
            task = asyncio.create_task(ask(models, "a"))
            await asyncio.sleep(0.05)
            del task

        asyncio.run(leave())
        asyncio.run(ask(models, "a"))
        assert memory.happened("load") == ["a-100"]

    def test_who_waits_long_is_told_what_is_in_the_way(self, build, memory):
        models = build(held("a"), held("b"), max_models=1, patience_seconds=0.1)

        async def work():
            async with inside(models, memory, "a"):
                await ask(models, "b")

        with pytest.raises(ModelError, match=r"waited 0.1 s.*a \(a-100, answering 1\)") as caught:
            asyncio.run(work())
        assert "residency.max_models" in caught.value.hint
        asyncio.run(ask(models, "b"))

    def test_who_has_waited_long_goes_before_who_came_later(self, build, memory, monkeypatch):
        from knowme import residency

        monkeypatch.setattr(residency, "OVERDUE_SECONDS", 0.02)
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            done = []

            async def one(role):
                await ask(models, role)
                done.append(role)

            async with inside(models, memory, "a"):
                waiting = asyncio.create_task(one("b"))
                await asyncio.sleep(0.05)
                later = asyncio.create_task(one("a"))
                await asyncio.sleep(0.05)
                assert not later.done(), "else b could wait for ever"
            await asyncio.gather(waiting, later)
            return done

        assert asyncio.run(work()) == ["b", "a"]

    def test_a_load_that_fails_is_told_to_all_and_tried_again_by_the_next(self, build, memory):
        memory.slow["a-100"] = 0.05
        memory.broken["a-100"] = ModelDownError("It broke.", "Mend it.")
        models = build(held("a"))

        async def work():
            told = await asyncio.gather(
                *(ask(models, "a") for _ in range(3)), return_exceptions=True
            )
            assert [str(error) for error in told] == ["It broke. Mend it."] * 3
            memory.broken["a-100"] = RuntimeError("bug")
            with pytest.raises(ModelError, match=r"a-100 could not be loaded: RuntimeError\('bug'"):
                await ask(models, "a")
            memory.broken.clear()
            await ask(models, "a")

        asyncio.run(work())
        assert models.statistics()["loads"] == 1

    def test_a_model_that_went_by_itself_is_loaded_again(self, build, memory):
        models = build(held("a"))
        asyncio.run(ask(models, "a"))
        memory.loaded.clear()
        asyncio.run(ask(models, "a"))
        assert memory.happened("load") == ["a-100", "a-100"]

    def test_two_roles_of_one_model_take_one_place(self, build, memory):
        models = build(
            ModelSettings(role="one", engine="held", model="same-100"),
            ModelSettings(role="two", engine="held", model="same-100", think=True),
            held("other"),
            max_models=2,
        )

        async def work():
            for role in ("one", "two", "other", "one", "two"):
                await ask(models, role)

        asyncio.run(work())
        assert memory.events == [("load", "same-100"), ("load", "other-100")]
        assert loaded(models) == {"one", "two", "other"}

    def test_an_engine_that_takes_no_memory_is_handed_out_and_never_counted(self, build, memory):
        models = build(held("a"), ModelSettings(role="echo", engine="echo"), max_models=1)

        async def work():
            async with models.use("a"), models.use("echo") as engine:
                assert engine.name == "echo"

        asyncio.run(work())
        assert models.statistics()["uses"] == 1


class TestMemory:
    def test_models_go_until_the_new_one_fits_into_the_bytes(self, build, memory):
        models = build(held("a", 300), held("b", 200), held("c", 400), max_models=0, memory_mb=650)

        async def work():
            for role in "abc":
                await ask(models, role)

        asyncio.run(work())
        assert memory.happened("unload") == ["a-300"]
        assert swaps(models)[2] == ("unload", "a", "memory")

    def test_what_the_settings_say_of_its_memory_counts(self, build, memory):
        models = build(held("a", 10, memory_mb=500), held("b", 10), max_models=0, memory_mb=505)

        async def work():
            for role in "ab":
                await ask(models, role)

        asyncio.run(work())
        assert memory.happened("unload") == ["a-10"]

    def test_a_model_that_can_never_fit_is_refused_at_once_and_nobody_goes_for_it(
        self, build, memory
    ):
        models = build(held("small", 100), held("huge", 900), memory_mb=500)
        asyncio.run(ask(models, "small"))
        with pytest.raises(ModelError, match=r"huge \(huge-900\) needs about 943,718,400 bytes.*"
                           r"allows 524,288,000.*residency\.memory_mb 901"):  # fmt: skip
            asyncio.run(ask(models, "huge"))
        assert loaded(models) == {"small"}

    def test_what_is_always_there_counts_against_what_can_fit(self, build, memory):
        models = build(held("fixed", 300, residency="always"), held("b", 300), memory_mb=500)
        asyncio.run(models.warm_up())
        with pytest.raises(ModelError, match=r"of which fixed \(always loaded\) take 314,572,800"):
            asyncio.run(ask(models, "b"))

    def test_where_the_machine_has_no_room_models_go_one_by_one(self, build, memory):
        memory.free_bytes = 250 << 20
        models = build(held("a"), held("b"), held("c", 150), held("d", 200), max_models=0)

        async def work():
            await ask(models, "a")
            await ask(models, "b")
            await ask(models, "c")
            assert sorted(memory.loaded) == ["b-100", "c-150"]
            async with inside(models, memory, "b"):
                waiting = asyncio.create_task(ask(models, "d"))
                await until(lambda: "c-150" not in memory.loaded)
                await asyncio.sleep(0.05)
                assert not waiting.done(), "b goes when it is idle"
            await waiting
            assert sorted(memory.loaded) == ["d-200"]

        asyncio.run(work())

    def test_where_nobody_can_go_the_machines_own_error_is_told(self, build, memory):
        memory.free_bytes = 50 << 20
        models = build(held("a"))
        with pytest.raises(ModelError, match="larger than what is free"):
            asyncio.run(ask(models, "a"))


class TestAlways:
    def test_it_is_loaded_at_the_start_and_never_goes(self, build, memory):
        clock = Clock()
        models = build(
            held("a", residency="always"), held("b"), held("c"), max_models=2, clock=clock
        )

        async def work():
            await models.warm_up()
            assert loaded(models) == {"a"}
            for role in "bcb":
                await ask(models, role)
            clock.now += 10**6
            await models.tick()

        asyncio.run(work())
        assert loaded(models) == {"a"}
        assert swaps(models)[0] == ("load", "a", "warm-up")
        assert "a-100" not in memory.happened("unload")

    def test_the_setting_keeps_it_from_being_loaded_at_the_start(self, build, memory):
        models = build(held("a", residency="always"), warm_up=False)
        asyncio.run(models.warm_up())
        assert loaded(models) == set()

    def test_all_of_them_come_even_beyond_the_limit_and_another_one_is_told_why_not(
        self, build, memory
    ):
        models = build(
            held("a", residency="always"), held("b", residency="always"), held("c"), max_models=1
        )
        asyncio.run(models.warm_up())
        assert loaded(models) == {"a", "b"}
        with pytest.raises(ModelError, match=r"max_models is 1, and a and b must always.*models 3"):
            asyncio.run(ask(models, "c"))

    def test_one_that_fails_keeps_the_others_from_nothing(self, build, memory):
        memory.broken["a-100"] = ModelMissingError("It is not there.", "Get it.")
        models = build(held("a", residency="always"), held("b", residency="always"))
        asyncio.run(models.warm_up())
        assert loaded(models) == {"b"}
        assert models.states()[0].down == "It is not there. Get it."


class TestIdle:
    @pytest.mark.parametrize(
        ("cache", "more", "seconds"),
        [
            ("ram", {}, 1800),
            ("ssd", {}, 120),
            ("ssd", {"residency": "unload_after", "unload_after": "1h"}, 3600),
            ("ram", {"residency": "unload_after", "unload_after": "30s"}, 30),
        ],
    )
    def test_an_idle_model_goes_when_its_time_is_over(self, build, memory, cache, more, seconds):
        clock = Clock()
        models = build(held("a", **more), cache=cache, clock=clock)

        async def work():
            await ask(models, "a")
            clock.now += seconds - 1
            await models.tick()
            assert loaded(models) == {"a"}
            await ask(models, "a")
            clock.now += seconds - 1
            await models.tick()
            assert loaded(models) == {"a"}, "its time began again"
            clock.now += 1
            await models.tick()
            assert loaded(models) == set()

        asyncio.run(work())
        assert swaps(models)[-1] == ("unload", "a", "idle")

    def test_none_lets_it_go_at_once_but_not_under_another_request(self, build, memory):
        models = build(held("a"), cache="none")

        async def work():
            async with inside(models, memory, "a"):
                await ask(models, "a")
                await asyncio.sleep(0.05)
                assert loaded(models) == {"a"}
            await until(lambda: not memory.loaded)

        asyncio.run(work())

    def test_one_with_a_request_in_flight_is_not_idle(self, build, memory):
        clock = Clock()
        models = build(held("a"), clock=clock)

        async def work():
            async with inside(models, memory, "a"):
                clock.now += 10**6
                await models.tick()
                assert loaded(models) == {"a"}

        asyncio.run(work())

    def test_what_was_loaded_beside_us_is_noticed_and_goes_too(self, build, memory):
        clock = Clock()
        models = build(held("a"), clock=clock)
        memory.loaded[models.engine("a").model] = 1

        async def work():
            await models.tick()
            assert loaded(models) == {"a"}
            clock.now += 1800
            await models.tick()

        asyncio.run(work())
        assert not memory.loaded

    def test_closing_unloads_all_and_tells_who_waits(self, build, memory):
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            async with models.use("a"):
                waiting = asyncio.create_task(ask(models, "b"))
                await asyncio.sleep(0.02)
                await models.aclose()
                with pytest.raises(ModelError, match="closing"):
                    await waiting
            assert not memory.loaded
            await models.aclose()
            await ask(models, "b")  # `knowme chat` closes before its home does

        asyncio.run(work())


# --- whatever the order ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """Give a function that makes Models of held engines; installed once for all examples."""
    folder = tmp_path_factory.mktemp("plugin")
    about = folder / "held_engine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: held-engine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[knowme.engines]\nheld = held_engine:HeldEngine\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        count = iter(range(10**6))

        def make(most, cache, clock):
            roles = [held(role) for role in "abcd"] + [held("p", residency="always")]
            told = Settings(
                models=tuple(roles),
                residency=ResidencySettings(max_models=most, cache=cache),
            )
            store = database.Database(folder / f"{next(count)}.db", durability="normal")
            return Models(
                told, store, folder=folder, detect=lambda e: "echo", clock=clock,
                patience_seconds=30.0,
            )  # fmt: skip

        yield make


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from("abcdp")),
        st.tuples(st.just("close"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([1, 100, 2000])),
    ),
    max_size=14,
)


class TestAnyOrder:
    @settings(max_examples=40)
    @given(steps=STEPS, most=st.integers(1, 3), cache=st.sampled_from(["ram", "none"]))
    def test_never_too_many_and_never_one_in_flight(self, plugin, steps, most, cache):
        # At most `most`, but for p, which is always there; an unload in flight is seen by Memory.
        memory = held_engine.memory = held_engine.Memory()
        clock = Clock()
        models = plugin(most, cache, clock)
        tasks: list[tuple[asyncio.Task, asyncio.Event]] = []

        async def one(role, end):
            async with inside(models, memory, role):
                await end.wait()

        async def work():
            for kind, what in steps:
                if kind == "open":
                    end = asyncio.Event()
                    tasks.append((asyncio.create_task(one(what, end)), end))
                elif kind == "wait":
                    clock.now += what
                    await models.tick()
                elif tasks:
                    task, end = tasks[what % len(tasks)]
                    end.set() if kind == "close" else task.cancel()
                await asyncio.sleep(0.001)
                free = [name for name in list(memory.loaded) if name != "p-100"]
                assert len(free) <= most, steps
            for _, end in tasks:
                end.set()
            ended = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
            wrong = [e for e in ended if e and not isinstance(e, asyncio.CancelledError)]
            # Where p has the only place, the others are told so.
            assert all("must always be loaded" in str(error) for error in wrong), wrong
            await models.aclose()

        asyncio.run(work())
        assert memory.wrong == [] and not memory.loaded
        told = models.statistics()
        assert told["loads"] == told["unloads"] == len(memory.happened("load"))
        kinds = [kind for kind, *_ in swaps(models)]
        assert (kinds.count("load"), kinds.count("unload")) == (told["loads"], told["unloads"])
        models._db.close()


# --- every engine that takes memory ---------------------------------------------------------------


class ResidentContract:
    """Subclass it with a fixture ``engine``: what holds for every engine whose model is here."""

    @pytest.fixture
    def engine(self):
        raise NotImplementedError

    def test_it_is_loaded_and_unloaded_from_any_loop_any_number_of_times(self, engine):
        assert not asyncio.run(engine.loaded())
        for _ in range(2):
            asyncio.run(engine.load())
            assert asyncio.run(engine.loaded())
        for _ in range(2):
            asyncio.run(engine.unload())
            assert not asyncio.run(engine.loaded())
        asyncio.run(engine.load())
        assert asyncio.run(engine.loaded())

    def test_it_knows_what_it_takes_before_and_while_it_is_loaded(self, engine):
        assert asyncio.run(engine.memory_bytes()) > 0
        asyncio.run(engine.load())
        assert asyncio.run(engine.memory_bytes()) > 0


class TestHeldEngine(ResidentContract):
    @pytest.fixture
    def engine(self, memory, build):
        memory.wrong = []
        yield build(held("a")).engine("a")
        memory.wrong.clear()  # Models loads no model twice; the contract asks an engine to bear it


@pytest.mark.model
class TestLlamaCppEngine(ResidentContract):
    @pytest.fixture
    def engine(self, models, tmp_path):
        found = LlamaCppEngine(
            model_path=models["chat"], context_tokens=512, threads=1, keep_alive="-1",
            prefix_folder=tmp_path / "prefix",
        )  # fmt: skip
        yield found
        asyncio.run(found.aclose())

    def test_its_memory_is_that_of_its_process(self, engine):
        estimate = asyncio.run(engine.memory_bytes())
        asyncio.run(engine.load())
        measured = asyncio.run(engine.memory_bytes())
        rss = Path(f"/proc/{engine.worker.pid}/status")
        if rss.exists():
            line = next(x for x in rss.read_text().splitlines() if x.startswith("VmRSS"))
            assert measured == pytest.approx(int(line.split()[1]) << 10, rel=0.1)
        assert measured / 3 < estimate < measured * 3


class TestOllamaEngine(ResidentContract):
    @pytest.fixture
    def server(self):
        fixture = servers.OllamaFixture({f"{name}:latest": ("chat", "") for name in "abc"})
        with servers.serving(fixture) as running:
            fixture.url = running.url
            yield fixture

    @pytest.fixture
    def engine(self, server):
        return OllamaEngine(model="a", url=server.url, context_tokens=2048, keep_alive="30m")

    def test_loading_sends_the_window_and_unloading_a_zero(self, engine, server):
        asyncio.run(engine.load())
        asyncio.run(engine.unload())
        sent = [body for path, body in server.asked if path == "/api/generate"]
        assert sent == [
            {"model": "a", "stream": False, "keep_alive": "30m", "options": {"num_ctx": 2048}},
            {"model": "a", "stream": False, "keep_alive": 0},
        ]

    def test_without_a_name_it_loads_the_newest(self, server):
        engine = OllamaEngine(url=server.url)
        asyncio.run(engine.load())
        assert engine.model == "a:latest" and list(server.held) == ["a:latest"]

    def test_a_model_that_ollama_has_not_is_missing_with_the_command(self, server):
        engine = OllamaEngine(model="nope", url=server.url)
        assert not asyncio.run(engine.loaded())
        assert asyncio.run(engine.memory_bytes()) == 0
        with pytest.raises(ModelMissingError, match="ollama pull nope"):
            asyncio.run(engine.load())

    def test_a_server_that_is_gone_is_an_error_with_the_mend(self):
        engine = OllamaEngine(model="a", url="http://127.0.0.1:9")
        for call in (engine.load, engine.loaded, engine.memory_bytes):
            with pytest.raises(ModelDownError, match="ollama serve"):
                asyncio.run(call())

    @pytest.mark.parametrize("body", ["[]", "{}", '{"models": [1]}', '{"models": 3}', "nonsense"])
    def test_a_list_that_is_none_is_an_error(self, body):
        with servers.serving(lambda call: call.reply(200, body)) as running:
            engine = OllamaEngine(model="a", url=running.url)
            with pytest.raises(ModelDownError, match="unexpected"):
                asyncio.run(engine.loaded())

    @staticmethod
    def role(name, server, **more):
        return ModelSettings(role=name, engine="ollama", model=name, url=server.url, **more)

    def test_the_policy_is_ours_and_the_window_never_changes(self, server, build):
        clock = Clock()
        models = build(*(self.role(n, server) for n in "abc"), max_models=2, clock=clock)

        async def work():
            for name in "abca":
                async with models.use(name):
                    assert f"{name}:latest" in server.held
            assert set(server.held) == {"c:latest", "a:latest"}
            clock.now += 1800
            await models.tick()
            assert not server.held

        asyncio.run(work())
        assert [name[0] for name, _ in server.loads] == ["a", "b", "c", "a"]
        assert {window for _, window in server.loads} == {4096}
        assert models.statistics()["hits"] == 0

    def test_its_keep_alive_follows_the_policy(self, server, build):
        more = [{}, {"residency": "always"}, {"residency": "unload_after", "unload_after": "7m"}]
        models = build(*(self.role(n, server, **m) for n, m in zip("abc", more, strict=True)),
                       max_models=0, cache="ssd")  # fmt: skip

        async def work():
            for name in "abc":
                async with models.use(name):
                    pass

        asyncio.run(work())
        sent = [body["keep_alive"] for path, body in server.asked if path == "/api/generate"]
        assert sent == ["120s", -1, "420s"]

    def test_none_loads_for_the_question_and_lets_it_go_after_it(self, server, build):
        models = build(self.role("a", server), cache="none")

        async def work():
            async with models.use("a"):
                assert server.held
            await until(lambda: not server.held)

        asyncio.run(work())

    def test_what_ollama_already_has_is_a_hit_and_stays_when_we_end(self, server, build):
        models = build(self.role("a", server))
        asyncio.run(OllamaEngine(model="a", url=server.url).load())

        async def work():
            async with models.use("a"):
                pass
            await models.aclose()

        asyncio.run(work())
        assert models.statistics()["hits"] == 1 and models.statistics()["loads"] == 0
        assert list(server.held) == ["a:latest"], "Ollama keeps it for its keep_alive"

    def test_another_programs_models_are_left_alone(self, server, build):
        models = build(self.role("a", server), self.role("b", server), max_models=1, memory_mb=1)
        asyncio.run(OllamaEngine(model="c", url=server.url).load())

        async def work():
            for name in "ab":
                async with models.use(name):
                    pass

        asyncio.run(work())
        assert set(server.held) == {"c:latest", "b:latest"}

    def test_where_ollama_has_no_room_our_own_idle_model_goes(self, server, build):
        server.memory_bytes = 2000  # one of 1,500
        models = build(self.role("a", server), self.role("b", server), max_models=0)

        async def work():
            for name in "ab":
                async with models.use(name):
                    pass

        asyncio.run(work())
        assert set(server.held) == {"b:latest"}

    def test_a_server_of_another_machine_is_not_our_memory(self, build):
        lan = ModelSettings(
            role="lan", engine="ollama", model="m", url="http://192.0.2.7:11434", local="true"
        )
        models = build(lan)

        async def work():
            async with models.use("lan") as engine:
                assert engine.local

        asyncio.run(work())
        assert models.statistics()["uses"] == 0

    @pytest.mark.model
    def test_questions_keep_it_loaded_with_one_window(self, models, build):
        url = servers.llama(models["chat"], "chat")
        fixture = servers.OllamaFixture({"a:latest": ("chat", url)})
        with servers.serving(fixture) as running:
            fixture.url = running.url
            found = build(self.role("a", fixture))

            async def work():
                return [(await ask(found, "a"))[0] for _ in range(2)]

            first, second = asyncio.run(work())
        assert first == second != ""
        assert fixture.loads == [("a:latest", 4096)]
        assert found.statistics()["hits"] == 1


# --- real models ----------------------------------------------------------------------------------


@pytest.fixture
def three(models, tmp_path):
    """Give the settings of three real models: one file under three names, three processes."""
    folder = tmp_path / "models"
    folder.mkdir()
    made = []
    for role in ("primary", "code", "fast"):
        file = folder / f"{role}.gguf"
        file.symlink_to(models["chat"])
        made.append(
            ModelSettings(role=role, engine="llamacpp", model=str(file), context_tokens=1024)
        )
    return made


SYSTEM = ChatMessage("system", "You are kind and helpful, and you know the fox. " * 20)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.model
@pytest.mark.slow
class TestRealModels:
    def test_three_models_in_two_places(self, build, three, tmp_path):
        models = build(*three, max_models=2)

        async def work():
            first = await ask(models, "primary", [SYSTEM, *HELLO])
            await ask(models, "code", [SYSTEM, *HELLO])
            assert loaded(models) == {"primary", "code"}
            async with models.use("primary") as engine:
                stream = engine.stream(STORY, Options(max_tokens=200, temperature=0.0))
                await anext(stream)
                pid = engine.worker.pid
                await ask(models, "fast", [SYSTEM, *HELLO])  # code goes: primary is answering
                assert loaded(models) == {"primary", "fast"}
                more = [chunk async for chunk in stream]
                assert engine.worker.pid == pid and more[-1].usage.answer_tokens > 20
            await ask(models, "code", [SYSTEM, *HELLO])  # fast is the older one
            assert loaded(models) == {"primary", "code"}
            again = await ask(models, "primary", [SYSTEM, *HELLO])
            assert again[0] == first[0]
            pids = [models.engine(role).worker.pid for role in ("primary", "code")]
            await models.aclose()
            assert not any(alive(pid) for pid in pids)

        asyncio.run(work())
        rows = swaps(models)
        assert [(kind, role) for kind, role, _ in rows] == [
            ("load", "primary"), ("load", "code"), ("unload", "code"), ("load", "fast"),
            ("unload", "fast"), ("load", "code"), ("unload", "primary"), ("unload", "code"),
        ]  # fmt: skip
        told = models.statistics()
        assert (told["uses"], told["hits"], told["loads"], told["unloads"]) == (6, 2, 4, 4)
        with models._db.read() as conn:
            sql = "SELECT kind, took_ms, memory_bytes, prefix_tokens FROM swaps"
            table = database.rows(conn, sql)
        assert all(held > 50 << 20 for _, _, held, _ in table)
        restored = [tokens for kind, _, _, tokens in table if kind == "load" and tokens]
        assert len(restored) == 1 and told["prefix_tokens"] == restored[0]
        took = [ms for kind, ms, _, _ in table if kind == "load"]
        assert told["mean_ms"] == pytest.approx(sum(took) / 4, abs=0.01)

    def test_what_a_model_has_read_survives_its_unloading(self, build, three, tmp_path):
        models = build(*three[:2], max_models=1)

        async def work():
            await ask(models, "primary", [SYSTEM, ChatMessage("user", "Who are you?")])
            await ask(models, "code")
            _, usage = await ask(models, "primary", [SYSTEM, ChatMessage("user", "And the fox?")])
            return usage

        usage = asyncio.run(work())
        assert usage.cached_tokens > 0.9 * usage.prompt_tokens
        folder = tmp_path / "prefix"
        assert folder.stat().st_mode & 0o777 == 0o700
        files = list(folder.iterdir())
        assert len(files) == 2 and {file.stat().st_mode & 0o777 for file in files} == {0o600}

    def test_it_survives_the_whole_program_too(self, build, three):
        asyncio.run(ask(first := build(three[0]), "primary", [SYSTEM, *HELLO]))
        asyncio.run(first.aclose())
        _, usage = asyncio.run(ask(build(three[0]), "primary", [SYSTEM, *STORY]))
        assert usage.cached_tokens > 0.8 * usage.prompt_tokens

    def test_nothing_is_kept_where_the_setting_says_so(self, build, three, tmp_path):
        models = build(three[0], keep_prefix=False, cache="none")

        async def work():
            await ask(models, "primary")
            await until(lambda: not loaded(models))
            _, usage = await ask(models, "primary")
            return usage

        assert asyncio.run(work()).cached_tokens == 0
        assert not (tmp_path / "prefix").exists()

    def test_a_damaged_or_stale_prefix_costs_nothing_but_time(self, build, three, tmp_path):
        folder = tmp_path / "prefix"
        model = Path(three[0].model)

        async def work(models):
            _, usage = await ask(models, "primary", [SYSTEM, *HELLO])
            await models.aclose()
            return usage

        models = build(three[0])
        asyncio.run(work(models))
        (saved,) = folder.iterdir()
        saved.write_bytes(saved.read_bytes()[:5000])
        assert asyncio.run(work(models)).cached_tokens == 0
        assert asyncio.run(work(models)).cached_tokens > 0, "a whole one was saved again"
        data = model.resolve().read_bytes()
        model.unlink()
        model.write_bytes(data)  # another file: what the old one read is not its own
        assert asyncio.run(work(models)).cached_tokens == 0
        (kept,) = folder.iterdir()
        assert kept.name != saved.name

    def test_a_killed_process_is_loaded_again(self, build, three):
        models = build(three[0])

        async def work():
            await ask(models, "primary")
            pid = models.engine("primary").worker.pid
            os.kill(pid, 9)
            await until(lambda: models.engine("primary").worker.pid is None)
            text, _ = await ask(models, "primary")
            return text

        assert asyncio.run(work())
        assert models.statistics()["loads"] == 2

    def test_counting_tokens_before_a_question_is_noticed(self, build, three):
        models = build(three[0])
        assert models.engine("primary").count_tokens("hello world") == 2
        assert loaded(models) == set()
        asyncio.run(models.tick())
        assert loaded(models) == {"primary"}

    def test_a_window_beyond_the_budget_is_refused_before_it_is_loaded(self, build, three):
        models = build(three[0], memory_mb=100)
        with pytest.raises(ModelError, match=r"needs about [\d,]+ bytes.*104,857,600"):
            asyncio.run(ask(models, "primary"))
        assert models.engine("primary").worker.pid is None

    def test_two_roles_of_one_file_share_a_process(self, build, three):
        other = ModelSettings(role="twin", engine="llamacpp", model=three[0].model)
        models = build(three[0], other, max_models=1)

        async def work():
            async with models.use("primary") as one, models.use("twin") as two:
                assert one.worker.pid == two.worker.pid is not None

        asyncio.run(work())
        assert models.statistics() | {"mean_ms": 0, "p95_ms": 0} == {
            "uses": 2, "hits": 1, "hit_rate": 0.5, "loads": 1, "unloads": 0, "mean_ms": 0,
            "p95_ms": 0, "prefix_tokens": 0,
        }  # fmt: skip


@pytest.mark.model
@pytest.mark.slow
def test_a_sliding_window_keeps_its_prefix_across_a_swap(tmp_path):
    # Without being cut back to what the next prompt begins with, 0 tokens were of use.
    name = "gemma-3-270m"
    try:
        file = modelstore.path(name)
    except ModelMissingError:
        pytest.skip(f"needs the packaged model {name}: knowme models pull {name}")
    engine = LlamaCppEngine(
        model_path=file, context_tokens=2048, threads=1, keep_alive="-1", prefix_folder=tmp_path
    )

    async def one(question):
        usage = None
        async for chunk in engine.stream([SYSTEM, ChatMessage("user", question)], STEADY):
            usage = chunk.usage or usage
        return usage

    async def work():
        await engine.load()
        await one("The cat sat on a mat and purred. " * 80)
        await engine.unload()
        saved = engine.prefix_tokens
        await engine.load()
        usage = await one("A dog ran over the wide green hill. " * 80)
        await engine.aclose()
        return saved, usage

    saved, usage = asyncio.run(work())
    assert 200 < saved < 300, "the system's words alone"
    assert usage.cached_tokens >= saved - 2


@pytest.mark.model
def test_a_template_is_cut_back_to_what_the_next_prompt_begins_with(models, tmp_path, monkeypatch):
    # The packaged model with a sliding window has no template: this one has, and plays the part.
    from knowme import llama

    monkeypatch.setattr(llama, "slides", lambda spec: True)
    engine = LlamaCppEngine(
        model_path=models["chat"], context_tokens=1024, threads=1, prefix_folder=tmp_path
    )

    async def work():
        async for _ in engine.stream([SYSTEM, ChatMessage("user", "Cat. " * 50)], STEADY):
            pass
        await engine.unload()
        saved = engine.prefix_tokens
        await engine.load()
        usage = None
        async for chunk in engine.stream([SYSTEM, ChatMessage("user", "Dog. " * 50)], STEADY):
            usage = chunk.usage or usage
        alone = [ChatMessage("user", "Alone.")]
        async for _ in engine.stream(alone, STEADY):
            pass
        await engine.unload()
        nothing = engine.prefix_tokens
        await engine.aclose()
        return saved, usage, nothing

    saved, usage, nothing = asyncio.run(work())
    assert usage.cached_tokens == saved < usage.prompt_tokens - 50
    assert nothing == 0, "one message alone begins nothing"


def test_prefixes_are_bounded_and_half_written_ones_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(prefix, "MOST_BYTES", 250)
    for age, name in enumerate(["aa-new.prefix", "bb-mid.prefix", "cc-old.prefix"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "dd-1.prefix.77.partial").write_bytes(b"x")
    os.utime(tmp_path / "dd-1.prefix.77.partial", (1e9, 1e9))
    (tmp_path / "ee-1.prefix.78.partial").write_bytes(b"x")
    prefix._tidy(tmp_path, tmp_path / "aa-new.prefix")
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["aa-new.prefix", "bb-mid.prefix", "ee-1.prefix.78.partial"]


@pytest.fixture(scope="module", autouse=True)
def _stop_servers():
    yield
    servers.stop_all()
