"""A base with adapters as llama.cpp serves it: the numbers are right, and whose they are."""

import math

import numpy as np
import pytest
from adapters import random_adapter, write_adapter

from knowme.errors import InputError, ModelMissingError, TrainError
from knowme.learn import served as module
from knowme.learn.served import Served
from knowme.types import ChatMessage

pytestmark = pytest.mark.model

QUESTION = (ChatMessage("user", "What is the capital of France?"),)
BASE, ZERO, LOUD = (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("adapters")
    zero = random_adapter(folder / "zero.gguf", 0.0)
    return [zero, random_adapter(folder / "loud.gguf", 2.0)]


@pytest.fixture
def serving(models, adapters):
    with Served(models["chat"], adapters, threads=1, context_tokens=512) as served:
        yield served


def test_an_adapter_of_zeros_is_the_base_and_another_is_not(serving):
    answer = "The capital of France is Paris."
    base, zero, loud = (serving.nll(QUESTION, answer, each) for each in (BASE, ZERO, LOUD))
    assert zero == pytest.approx(base, abs=0.02)
    assert max(abs(a - b) for a, b in zip(base, loud, strict=True)) > 0.5
    assert serving.nll(QUESTION, answer, BASE) == pytest.approx(base, abs=0.02)


def test_half_of_an_adapter_is_the_adapter_of_half_its_size(serving, models, tmp_path):
    answer = "The capital of France is Paris."
    half = serving.nll(QUESTION, answer, (0.0, 0.5))
    small = random_adapter(tmp_path / "half.gguf", 1.0)
    with Served(models["chat"], [small], threads=1, context_tokens=512) as other:
        assert other.nll(QUESTION, answer, (1.0,)) == pytest.approx(half, abs=0.05)
        assert other.nll(QUESTION, answer, (0.0,)) != pytest.approx(half, abs=0.05)


def test_a_rare_token_has_the_same_probability_by_both_roads(serving, monkeypatch):
    answer = "Paris is old; zebras hum quietly."
    straight = serving.nll(QUESTION, answer, BASE)
    monkeypatch.setattr(module, "_MOST", 1)  # all but the likeliest go by the bias
    assert serving.nll(QUESTION, answer, BASE) == pytest.approx(straight, abs=0.05)


def test_what_the_model_says_greedily_is_likely_and_its_top_tokens_are_its_own(serving):
    said = serving.generate(QUESTION, BASE, 12)
    tokens = serving.tokens(said)
    top = serving.top(QUESTION, said, BASE)
    assert sum(a == b for a, b in zip(top, tokens, strict=True)) >= len(tokens) - 1
    likely = serving.nll(QUESTION, said, BASE)
    odd = serving.nll(QUESTION, "Purple engines negotiate Tuesday.", BASE)
    assert np.mean(likely) < np.mean(odd)
    assert all(math.isfinite(each) and each >= 0 for each in (*likely, *odd))


def test_after_the_end_anything_can_still_be_weighed(serving):
    said = serving.generate(QUESTION, BASE, 40)
    nats = serving.nll(QUESTION, said + " Moreover", BASE)
    assert all(0 <= each < 60 for each in nats)


def test_the_lead_is_given_and_not_counted(serving):
    lead = "The capital of France is"
    nats = serving.nll(QUESTION, " Paris.", BASE, lead=lead)
    assert len(nats) == len(serving.tokens(" Paris."))
    whole = serving.nll(QUESTION, lead + " Paris.", BASE)
    assert nats == pytest.approx(whole[-len(nats) :], abs=0.05)
    assert serving.nll(QUESTION, lead + " Paris.", BASE, most=2) == pytest.approx(
        whole[:2], abs=0.05
    )


def test_the_same_seed_draws_the_same_words(serving):
    one, two = (serving.generate(QUESTION, BASE, 24, 1.5, seed=7) for _ in range(2))
    assert one == two
    assert len({serving.generate(QUESTION, BASE, 24, 1.5, seed=each) for each in range(4)}) > 1


def test_the_number_of_scales_must_be_that_of_the_adapters(serving):
    with pytest.raises(InputError, match="1 scales for 2 adapters"):
        serving.nll(QUESTION, "Paris.", (1.0,))


def test_an_adapter_of_another_base_is_refused_by_name(models, tmp_path):
    pytest.importorskip("gguf")
    wrong = write_adapter(
        tmp_path / "wrong.gguf", {"blk.0.attn_output": (np.ones((2, 64)), np.ones((64, 2)))}
    )
    with pytest.raises(TrainError, match="wrong.gguf"), Served(models["chat"], [wrong], threads=1):
        pass


def test_a_file_that_is_not_there_is_named(models, tmp_path):
    with pytest.raises(ModelMissingError, match="nothing.gguf"):
        Served(models["chat"], [tmp_path / "nothing.gguf"])
