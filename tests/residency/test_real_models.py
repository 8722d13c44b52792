"""Real models that come and go, and what they have read of a prompt meanwhile."""

import asyncio
import os
from pathlib import Path

import pytest

from knowme import db as database
from knowme import modelstore
from knowme.engines import prefix
from knowme.engines.llamacpp import LlamaCppEngine
from knowme.errors import (
    ModelError,
    ModelMissingError,
)
from knowme.settings import ModelSettings
from knowme.types import ChatMessage, Options

from .work import HELLO, STEADY, STORY, ask, loaded, swaps, until

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
