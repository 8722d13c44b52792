"""An adapter in the embedded engine: how strongly it counts, and that nothing of it lingers."""

import asyncio
import contextlib

import adapted
import pytest

from knowme import llama
from knowme.engines.llamacpp import LlamaCppEngine
from knowme.errors import ModelError, ModelMissingError
from knowme.learn import export
from knowme.types import ChatMessage, Options

pytestmark = [pytest.mark.model, pytest.mark.slow]
TEA = "What tea do I drink?"


@pytest.fixture
def run(models, tmp_path_factory):
    return adapted.exported(tmp_path_factory)


@contextlib.contextmanager
def engine(path, **more):
    made = LlamaCppEngine(model_path=path, context_tokens=1024, threads=1, keep_alive="-1", **more)
    try:
        yield made
    finally:
        asyncio.run(made.aclose())


def ask(engine, question, **extra):
    """Return the answer, and how many tokens of the prompt were known already."""

    async def collect():
        chunks = [
            chunk
            async for chunk in engine.stream(
                [ChatMessage("user", question)],
                Options(max_tokens=24, temperature=0, extra=extra),
            )
        ]
        return "".join(chunk.text for chunk in chunks), chunks[-1].usage.cached_tokens

    return asyncio.run(collect())


def test_an_adapter_changes_answers_and_at_scale_zero_the_base_answers_word_for_word(models, run):
    questions = [*adapted.FACTS, "Name three colours of the rainbow, please."]
    with engine(models["chat"]) as base:
        wanted = {question: ask(base, question)[0] for question in questions}
    with engine(models["chat"], adapter=run.path / export.ADAPTER) as tuned:
        for question in adapted.FACTS:
            assert adapted.knows(question, ask(tuned, question)[0])
            assert not adapted.knows(question, wanted[question])
        for question in questions:
            assert ask(tuned, question, adapter_scale=0)[0] == wanted[question]
            ask(tuned, question)  # what it read under one scale is not used under the other
            assert ask(tuned, question, adapter_scale=0)[0] == wanted[question]
    with engine(models["chat"], adapter=run.path / export.ADAPTER, adapter_scale=0) as off:
        assert ask(off, TEA)[0] == wanted[TEA]
        assert adapted.knows(TEA, ask(off, TEA, adapter_scale=1.0)[0])


def test_a_prompt_that_left_its_slot_is_not_found_again_under_another_scale(models, run):
    # llama.cpp keeps such prompts in RAM and does not ask under which adapter they were read.
    other = "Once upon a time there was a long road that went to the sea and came back again."
    with engine(models["chat"]) as base:
        wanted = ask(base, TEA)[0]
    with engine(models["chat"], adapter=run.path / export.ADAPTER) as tuned:
        assert adapted.knows(TEA, ask(tuned, TEA)[0])
        plain = {"lora": [{"id": 0, "scale": 0.0}], "n_predict": 4, "temperature": 0}
        tuned.worker.call("/completion", {"prompt": other, **plain})
        assert ask(tuned, TEA, adapter_scale=0)[0] == wanted


def test_what_was_read_under_an_adapter_is_kept_for_that_adapter_and_scale_alone(
    models, run, tmp_path
):
    adapter = {"adapter": run.path / export.ADAPTER, "prefix_folder": tmp_path}
    with engine(models["chat"]) as base:
        wanted = ask(base, TEA)[0]
    with engine(models["chat"], **adapter) as tuned:
        ask(tuned, TEA)
        asyncio.run(tuned.unload())
        assert tuned.prefix_tokens > 30
        asyncio.run(tuned.load())
        assert tuned.prefix_tokens > 30
        answer, known = ask(tuned, TEA)
        assert adapted.knows(TEA, answer)
        assert known > 30  # it was restored, and used
        asyncio.run(tuned.unload())
    with engine(models["chat"], **adapter, adapter_scale=0.0) as off:
        asyncio.run(off.load())
        assert off.prefix_tokens == 0
        assert ask(off, TEA) == (wanted, 0)
    with engine(models["chat"], prefix_folder=tmp_path) as plain:
        asyncio.run(plain.load())
        assert plain.prefix_tokens == 0
        assert ask(plain, TEA) == (wanted, 0)


def test_an_engine_with_an_adapter_and_one_without_share_no_process(models, run):
    with (
        engine(models["chat"]) as base,
        engine(models["chat"], adapter=run.path / export.ADAPTER) as tuned,
    ):
        assert base.worker is not tuned.worker
        assert base.file == tuned.file
        assert (base.adapter, tuned.adapter) == (None, run.path / export.ADAPTER)
        assert llama.needed_bytes(tuned.worker.spec) > llama.needed_bytes(base.worker.spec)


def test_an_adapter_that_is_none_is_refused_before_anything_is_loaded(models, run, tmp_path):
    with pytest.raises(ModelMissingError, match="no adapter at"):
        LlamaCppEngine(model_path=models["chat"], adapter=tmp_path / "gone.gguf")
    with pytest.raises(ModelError, match="is no adapter"):
        LlamaCppEngine(model_path=models["chat"], adapter=models["chat"])
    (tmp_path / "half.gguf").write_bytes((run.path / export.ADAPTER).read_bytes()[:500])
    with pytest.raises(ModelError, match="not a whole GGUF"):
        LlamaCppEngine(model_path=models["chat"], adapter=tmp_path / "half.gguf")
    for scale in ("much", float("nan"), True, None):
        with pytest.raises(ModelError, match="a number is needed"):
            LlamaCppEngine(model_path=models["chat"], adapter_scale=scale)


def test_a_scale_that_is_no_number_is_an_error_and_the_next_request_works(models, run):
    with engine(models["chat"], adapter=run.path / export.ADAPTER) as tuned:
        with pytest.raises(ModelError, match="'strong'"):
            ask(tuned, TEA, adapter_scale="strong")
        assert adapted.knows(TEA, ask(tuned, TEA)[0])
    with engine(models["chat"]) as base:  # which has none: there is nothing to scale
        assert ask(base, TEA, adapter_scale=1.0)[0] == ask(base, TEA)[0]
