import math
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme.errors import InputError
from knowme.gain import (
    FEATURES,
    SKETCH,
    Gain,
    Observation,
    above,
    features,
    is_minilm,
    split,
)

ONNX = "onnx:minilm-int8@53aa51172d14:384:none:256"
GGUF = "gguf:minilm@0123456789ab:384:none:256"
OTHER = "ollama:nomic-embed-text@0a109f422b47:768:nomic"

SHORT = "What is the capital of France?"
LONG = (
    "A company had net income of $4.5 million in 1998, and not all of it was paid out. Each of its "
    "3 owners takes a third of what is left after taxes of 20 percent, except the eldest, who takes"
    " twice as much. How much does the eldest take, and why would the others not agree to it? "
    "Show every step, and say what would change if the tax were 30 percent. "
)


def looks(text: str) -> dict[str, float]:
    return dict(zip(FEATURES, features(text).tolist(), strict=True))


def unit(seed: int, dims: int = 384):
    drawn = np.random.RandomState(seed).standard_normal(dims)
    return drawn / np.linalg.norm(drawn)


TEXTS = ("hi", SHORT, LONG, "def f(x):\n    return x", "a\nA. one\nB. two\nAnswer:")
observations = st.lists(
    st.builds(
        lambda seed, text, gain, sd, vector: Observation(
            unit(seed) if vector else None, features(text), gain, sd
        ),
        st.integers(0, 50),
        st.sampled_from(TEXTS),
        st.floats(-1, 1),
        st.floats(0.2, 2),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(st.text(max_size=300))
def test_every_text_has_finite_features(text) -> None:
    seen = features(text)
    assert seen.shape == (len(FEATURES),) and seen.dtype == np.float32
    assert np.isfinite(seen).all()
    mean, sd = Gain.shipped(ONNX).predict(None, seen)
    assert -1 <= mean <= 1 and sd > 0


def test_features_say_what_stands_in_a_message() -> None:
    long, code = looks(LONG), looks("```\nfor x in y: print(x)\n```")
    assert long["question"] and long["negation"] and long["number"] and long["decimals"]
    assert long["year"] and not long["options"] and not long["code"]
    assert code["code"] and not code["question"]
    assert looks("x = 3^2 + y")["formula"] and not looks("three and two")["formula"]
    assert not looks("it costs 15000 or 1999.5")["year"]


@pytest.mark.parametrize(
    "text", ["Which?\nA. this\nB. that\nAnswer:", "Which?\n(a) this\n(b) that",
             "Which one? A) this B) that C) neither"],
)  # fmt: skip
def test_answers_to_choose_from_are_seen(text) -> None:
    assert looks(text)["options"] == 1


@pytest.mark.parametrize(
    "text", ["plan B.", "A. Smith wrote it.", "I got a B. and then an A. in it"]
)
def test_letters_alone_are_no_choice(text) -> None:
    assert looks(text)["options"] == 0


def test_a_very_long_message_is_read_in_part_and_measured_whole() -> None:
    text = "word " * 20_000
    assert looks(text)["length"] == pytest.approx(math.log1p(len(text)), abs=1e-3)


def test_the_shipped_prior_ranks_the_labels_better_than_chance_and_length(shared) -> None:
    """On what it was fitted on, so far above what held-out prompts give: a check of the file."""
    import json

    path = shared / "data" / "routing" / "labels-dev.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line][::7]
    gain = np.array([row["strong_correct"] - row["weak_correct"] for row in rows])
    seen = np.array([features(row["prompt"]) for row in rows])
    length = np.argsort([-len(row["prompt"]) for row in rows])
    found = np.argsort(-Gain.shipped(OTHER).means(None, seen), kind="stable")
    third = len(rows) // 3
    assert gain[found[:third]].mean() > gain[length[:third]].mean() > gain.mean() - 0.05
    assert gain[found[:third]].mean() > gain.mean() + 0.05


def test_every_form_of_minilm_gets_the_prior_that_was_fitted_with_it() -> None:
    for fingerprint in (ONNX, GGUF, "ollama:all-minilm@1b226e2802db:384:none",
                        "ollama:all-minilm:latest@1b226e2802db:384:none",
                        "openai:sentence-transformers/all-MiniLM-L6-v2@x:384:none"):  # fmt: skip
        assert is_minilm(fingerprint), fingerprint
        assert Gain.shipped(fingerprint).name == Gain.shipped(ONNX).name


def test_another_space_never_gets_weights_that_were_fitted_with_minilm() -> None:
    for fingerprint in (OTHER, "", "hashing:words@1:384:none", "static:wordllama@x:256:none",
                        "onnx:paraphrase-multilingual-minilm-l12-v2@x:384:none:256",
                        "onnx:all-MiniLM-L12-v2@x:384:none:256",
                        "onnx:minilm-int8@x:256:none:256"):  # fmt: skip
        assert not is_minilm(fingerprint), fingerprint
        assert Gain.shipped(fingerprint).name.startswith("looks@")
    first = Gain.shipped(OTHER)
    assert first.predict(unit(1, 768), features(LONG))[0] == pytest.approx(
        first.predict(None, features(LONG))[0]
    )  # it knows nothing of these vectors yet


def test_a_sketch_of_another_embedders_vectors_can_be_learned_from() -> None:
    prior = Gain.shipped(OTHER)
    seen = features(SHORT)
    told = [Observation(unit(1, 768), seen, 1.0, 0.3)] * 20
    told += [Observation(unit(2, 768), seen, -1.0, 0.3)] * 20
    after = prior.updated(told)
    assert after.predict(unit(1, 768), seen)[0] > after.predict(unit(2, 768), seen)[0] + 0.05
    assert len(after.shift) == len(Gain.shipped("").shift) + 2 * SKETCH


def test_a_vector_of_another_size_counts_as_none_and_a_missing_one_makes_less_sure() -> None:
    gain, seen = Gain.shipped(ONNX), features(LONG)
    assert gain.predict(np.ones(3), seen) == gain.predict(None, seen)
    assert gain.predict(np.zeros(384), seen) == gain.predict(None, seen)
    centre = gain.shape.centre
    assert gain.predict(centre, seen)[1] < gain.predict(None, seen)[1]


def test_everyday_messages_do_not_look_like_exam_questions() -> None:
    gain = Gain.shipped(ONNX)
    for text in ("hi", "thanks", "what did I eat yesterday?", "I prefer tea to coffee"):
        assert abs(gain.predict(None, features(text))[0]) < 0.15, text


def test_how_often_each_model_is_right_differs_by_the_gain() -> None:
    for fingerprint in (ONNX, OTHER, ""):
        gain = Gain.shipped(fingerprint)
        weak, strong = gain.usual(None, features(LONG))
        assert 0.02 <= weak < strong <= 0.98
        assert strong - weak == pytest.approx(gain.predict(None, features(LONG))[0], abs=1e-9)
        assert gain.usual(None, features("hi"))[0] > weak  # long questions are harder


@given(observations, st.randoms())
@settings(max_examples=25)
def test_the_order_of_observations_does_not_matter(told, chance) -> None:
    prior = Gain.shipped(ONNX)
    other = list(told)
    chance.shuffle(other)
    at_once = prior.updated(told)
    one_by_one = prior
    for each in other:
        one_by_one = one_by_one.updated([each])
    assert at_once.seen == one_by_one.seen == len(told)
    for text in TEXTS:
        a, b = (g.predict(unit(3), features(text)) for g in (at_once, one_by_one))
        assert a == pytest.approx(b, abs=1e-6)


@given(observations, st.integers(0, 50), st.sampled_from(TEXTS))
@settings(max_examples=25)
def test_an_observation_never_makes_less_sure(told, seed, text) -> None:
    prior = Gain.shipped(ONNX)
    after = prior.updated(told)
    for vector in (unit(seed), None):
        before_sd = prior.predict(vector, features(text))[1]
        assert after.predict(vector, features(text))[1] <= before_sd + 1e-9


@given(observations)
@settings(max_examples=15)
def test_the_belief_is_the_exact_solution_of_the_normal_equations(told) -> None:
    prior = Gain.shipped("")
    after = prior.updated(told)
    rows = np.concatenate([prior.shape.rows(None, np.asarray(o.features)[None]) for o in told])
    noise = np.array([o.sd for o in told]) ** -2.0
    gains = np.array([o.gain for o in told])
    covariance = np.linalg.inv(prior.precision)
    wide = covariance @ rows.T @ np.linalg.inv(rows @ covariance @ rows.T + np.diag(1 / noise))
    expected = prior.weights + wide @ (gains - rows @ prior.weights)  # the other form: Kalman's
    assert np.allclose(after.weights, expected, atol=1e-6)


def test_what_is_told_again_and_again_is_believed() -> None:
    gain, seen, vector = Gain.shipped(ONNX), features(LONG), unit(5)
    before = gain.predict(vector, seen)
    after = gain.updated([Observation(vector, seen, -1.0, 0.3)] * 300).predict(vector, seen)
    assert after[0] < before[0] - 0.2 and after[1] < before[1]


def test_a_belief_survives_being_written_and_read() -> None:
    prior = Gain.shipped(ONNX)
    told = [Observation(unit(n), features(LONG), 0.5, 0.4) for n in range(5)]
    after = prior.updated(told)
    again = Gain.loads(after.dumps(), prior)
    assert again.seen == 5
    assert again.predict(unit(2), features(SHORT)) == pytest.approx(
        after.predict(unit(2), features(SHORT)), abs=1e-9
    )
    further = again.updated(told)
    assert Gain.loads(further.dumps(), prior).seen == 10


def test_a_belief_on_another_prior_or_damaged_bytes_are_refused() -> None:
    raw = Gain.shipped(ONNX).dumps()
    with pytest.raises(InputError, match="began with"):
        Gain.loads(raw, Gain.shipped(OTHER))
    for bad in (b"", b"nothing", raw[: len(raw) // 2]):
        with pytest.raises(InputError, match="damaged"):
            Gain.loads(bad, Gain.shipped(ONNX))


@pytest.mark.parametrize(("gain", "sd"), [(1.5, 0.5), (math.nan, 0.5), (0.5, 0.0), (0.5, math.inf)])
def test_impossible_observations_are_refused(gain, sd) -> None:
    with pytest.raises(InputError, match="An observation says"):
        Gain.shipped(ONNX).updated([Observation(None, features("x"), gain, sd)])


def test_the_wrong_number_of_features_is_refused() -> None:
    with pytest.raises(InputError, match="features were given"):
        Gain.shipped(ONNX).predict(None, np.zeros(3))


def test_the_row_of_the_log_is_split_into_vector_and_features() -> None:
    seen, vector = features(LONG), unit(1).astype(np.float32)
    found, rest = split(np.concatenate([vector, seen]))
    assert (found == vector).all() and (rest == seen).all()
    none, rest = split(seen)
    assert none is None and (rest == seen).all()
    with pytest.raises(InputError):
        split(seen[1:])


def test_the_probability_of_a_gain_above_its_price_falls_with_the_price() -> None:
    assert above(0.3, 0.1, 0.3) == pytest.approx(0.5)
    falling = [above(0.3, 0.1, price) for price in (0.0, 0.2, 0.3, 0.5, math.inf)]
    assert falling == sorted(falling, reverse=True) and falling[0] > 0.99 and falling[-1] == 0
    assert above(0.3, 0.0, 0.2) == 1.0


def test_what_ships_is_small_and_holds_no_pickles() -> None:
    folder = files("knowme") / "data"
    shipped = [each for each in folder.iterdir() if each.name.endswith(".npz")]
    assert sum(len(each.read_bytes()) for each in shipped) < 300_000
    for each in shipped:
        with each.open("rb") as file, np.load(file, allow_pickle=False) as data:
            for name in data.files:
                assert data[name].dtype.kind in "fU"


@pytest.mark.model
@pytest.mark.slow
def test_both_forms_of_the_packaged_minilm_are_weighed_alike(onnx_model, models) -> None:
    from knowme.embedders.local import LocalEmbedder
    from knowme.embedders.onnx import OnnxEmbedder

    onnx, gguf = OnnxEmbedder(threads=1), LocalEmbedder(threads=1)
    try:
        for text in (SHORT, LONG):
            (one,), (other,) = onnx.embed([text], "query"), gguf.embed([text], "query")
            a = Gain.shipped(onnx.fingerprint).predict(one, features(text))
            b = Gain.shipped(gguf.fingerprint).predict(other, features(text))
            assert a == pytest.approx(b, abs=0.05)
    finally:
        onnx.close()
        gguf.close()
