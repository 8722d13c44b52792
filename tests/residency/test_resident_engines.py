"""Every engine whose model takes this machine's memory keeps to the same contract."""

import asyncio
from pathlib import Path

import pytest
from contracts import servers

from knowme.engines.llamacpp import LlamaCppEngine
from knowme.engines.ollama import OllamaEngine
from knowme.errors import (
    ModelDownError,
    ModelMissingError,
)
from knowme.settings import ModelSettings

from .work import Clock, ask, held, until

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
