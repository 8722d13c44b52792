"""An adopted adapter answers in the running product, from the next question on."""

import asyncio

import gguf
import numpy as np
import pytest

from knowme import adoptions
from knowme.home import Home
from knowme.llama import read_header
from knowme.modelstore import path as model_path
from knowme.types import ChatMessage, Options

pytestmark = pytest.mark.model
NAME = "smollm2-135m"
ASKED = [ChatMessage("user", "Name three colours.")]
GREEDY = Options(max_tokens=16, temperature=0.0)


def lora(path, strength):
    """Write a random LoRA of rank 4 on one layer: strong enough, it changes every answer."""
    draw = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for part, shape in (("lora_a", (4, 576)), ("lora_b", (576, 4))):
        told = (strength * draw.standard_normal(shape)).astype(np.float32)
        writer.add_tensor(f"blk.29.attn_output.weight.{part}", told)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def home(models, tmp_path):
    Home.create(tmp_path / "home")
    flags = {"embedder.kind": "none", "engine.kind": "llamacpp", "engine.threads": 1}
    with Home.open(tmp_path / "home", flags) as opened:
        yield opened


def adopt(home, name, strength=3.0):
    folder = home.path / "runs" / name
    folder.mkdir(parents=True)
    lora(folder / "adapter.gguf", strength)
    home.db.write(
        lambda conn: adoptions.put(
            conn, run=name, purpose="assistant-for-me", at_ms=1,
            base=adoptions.base_of(model_path(NAME)), adapter=f"runs/{name}/adapter.gguf",
            sha256=adoptions.file_sha256(folder / "adapter.gguf"),
        )
    )  # fmt: skip


async def said(home, **extra):
    options = Options(max_tokens=16, temperature=0.0, extra=extra)
    async with home.models.use(home.models.primary) as engine:
        return "".join([chunk.text async for chunk in engine.stream(ASKED, options)])


def test_it_answers_from_the_next_question_on_and_rolling_back_is_exact(home):
    async def story():
        plain = await said(home)
        adopt(home, "one")
        changed = await said(home)
        scaled = await said(home, adapter_scale=0.0)
        home.db.write(lambda conn: adoptions.roll_back(conn, "assistant-for-me", 2))
        again = await said(home)
        await home.models.aclose()
        return plain, changed, scaled, again

    plain, changed, scaled, again = asyncio.run(story())
    assert read_header(model_path(NAME)).number("embedding_length") == 576
    assert changed != plain and scaled == plain and again == plain


def test_an_answer_that_is_on_its_way_is_finished_by_what_began_it(home):
    async def story():
        plain = await said(home)
        async with home.models.use(home.models.primary) as engine:
            stream = engine.stream(ASKED, GREEDY)
            first = (await anext(stream)).text
            adopt(home, "one")
            changed = await said(home)
            rest = "".join([chunk.text async for chunk in stream])
        await home.models.aclose()
        return plain, first + rest, changed

    plain, finished, changed = asyncio.run(story())
    assert finished == plain != changed


def test_a_file_that_was_changed_since_is_not_used(home):
    async def story():
        plain = await said(home)
        adopt(home, "one")
        lora(home.path / "runs" / "one" / "adapter.gguf", 9.0)
        found = await said(home)
        await home.models.aclose()
        return plain, found

    plain, found = asyncio.run(story())
    assert found == plain


def test_an_adapter_for_another_purpose_does_not_answer(home):
    adopt(home, "one")
    home.db.write(lambda conn: conn.execute("UPDATE adoptions SET purpose = 'sound-like-me'"))
    assert home.adapter_of(model_path(NAME)) is None
