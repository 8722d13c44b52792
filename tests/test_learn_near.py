"""Near-duplicates: MinHash finds what a comparison of all with all finds, and nothing else."""

import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme.learn import near, pairs
from knowme.types import ChatMessage

VOCABULARY = [f"word{n}" for n in range(400)]


def pair(question, answer, **more):
    said = [ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made("assistant-for-me", "exchange", said, [1], "chat/a", **more)


def runs_of_three(text):
    said = text.casefold().split()
    if len(said) < 3:
        return {tuple(said)} if said else set()
    return {tuple(said[at : at + 3]) for at in range(len(said) - 2)}


def alike(one, other):
    """The similarity by its definition; nothing of the house has a part in it."""
    a, b = runs_of_three(one), runs_of_three(other)
    return len(a & b) / len(a | b) if a | b else 1.0


def by_force(texts, threshold):
    over = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if alike(texts[i], texts[j]) >= threshold:
                low, high = sorted((over[i], over[j]))
                over = [low if each == high else each for each in over]
    return over


def changed(rng, text, many):
    said = text.split()
    for _ in range(many):
        said[rng.randrange(len(said))] = rng.choice(VOCABULARY)
    return " ".join(said)


def drawn(seed, families=60, copies=4):
    rng = random.Random(seed)
    texts = []
    for _ in range(families):
        first = " ".join(rng.choices(VOCABULARY, k=rng.randrange(8, 80)))
        texts.append(first)
        for _ in range(rng.randrange(copies)):
            texts.append(changed(rng, first, rng.randrange(6)))
    rng.shuffle(texts)
    return texts


def joined(roots):
    return {(i, j) for i in range(len(roots)) for j in range(i) if roots[i] == roots[j]}


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_it_finds_what_comparing_all_with_all_finds(threshold):
    wanted = found = both = 0
    for seed in range(6):
        texts = drawn(seed)
        true, ours = joined(by_force(texts, threshold)), joined(near.clusters(texts, threshold))
        wanted, found, both = wanted + len(true), found + len(ours), both + len(true & ours)
    assert wanted > 50, "the drawing has near-duplicates to find"
    assert both == found, "whatever is joined is near, for the exact similarity decides"
    assert both == wanted


def test_texts_just_under_the_threshold_are_not_joined():
    said = " ".join(VOCABULARY[:42])  # 40 runs; one word in the middle changed: 37 of 43 shared
    other = said.replace("word20", "else")
    assert alike(said, other) == 37 / 43
    assert near.clusters([said, other], 37 / 43) == [0, 0]
    assert near.clusters([said, other], 37 / 43 + 1e-9) == [0, 1]


@given(
    st.lists(st.sampled_from(["a b c d", "a b c d e", "x y", "x y!", "", "?!", "z"]), max_size=9)
)
def test_the_clusters_do_not_depend_on_the_order(texts):
    def parts(texts):
        together = {}
        for text, root in zip(texts, near.clusters(texts, 0.6), strict=True):
            together.setdefault(root, []).append(text)
        return sorted(sorted(each) for each in together.values())

    assert parts(texts) == parts(texts[::-1])


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 30))
def test_the_minima_agree_about_as_often_as_the_sets_do(seed, changes):
    rng = random.Random(seed)
    one = " ".join(rng.choices(VOCABULARY, k=120))
    other = changed(rng, one, changes)
    a, b = near.shingles(one), near.shingles(other)
    true = near.jaccard(a, b)
    assert true == pytest.approx(alike(one, other))
    agree = float(np.mean(near.signature(a) == near.signature(b)))
    assert abs(agree - true) < 6 * (0.25 / near.HASHES) ** 0.5


def test_a_longer_text_than_is_permuted_at_once_has_one_signature():
    said = " ".join(random.Random(1).choices(VOCABULARY, k=3 * near._AT_ONCE))
    every = near.shingles(said)
    assert len(every) > 2 * near._AT_ONCE
    parts = [near.signature(every[at : at + 1000]) for at in range(0, len(every), 1000)]
    assert (near.signature(every) == np.min(parts, axis=0)).all()


def test_another_process_makes_the_same_hashes():
    told = (
        "from knowme.learn import near; print(near.signature(near.shingles('o gato dorme aqui')))"
    )
    other = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout == f"{near.signature(near.shingles('o gato dorme aqui'))}\n", other.stderr


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_the_bands_miss_less_than_is_promised(threshold):
    rows = near.rows_of_a_band(threshold)
    assert (1 - threshold**rows) ** (near.HASHES // rows) <= near.MISSED
    assert threshold < 0.5 or rows > 1, "and do not make everything a candidate"


def test_case_marks_and_apostrophes_make_no_difference():
    texts = ["Don't tell my mother about it!", "don’t tell MY mother, about it"]
    assert near.clusters(texts) == [0, 0]


def test_scripts_without_spaces_are_compared_by_their_signs():
    texts = [
        "我昨天在公园里看见了一只猫和一只狗",
        "我昨天在公园里看见了一只猫和一只鸟",
        "今天天气很好我们去吃饭",
    ]
    assert near.clusters(texts, 0.7) == [0, 0, 2]


def test_a_threshold_that_is_none_is_refused():
    with pytest.raises(ValueError, match="threshold"):
        near.clusters(["a"], 0)


# --- pairs ----------------------------------------------------------------------------------------

LONG = (
    "you decided to keep the gas boiler until the subsidy comes through in the spring of this year"
)


def test_of_near_duplicates_the_best_rated_stays_and_then_the_newest():
    old = pair("And the heating?", LONG, at_ms=1)
    new = pair("And the heating?", LONG + "!", at_ms=2)
    other = pair("Where do I live?", "In Porto, third floor left.", at_ms=1)
    assert near.unique([old, other, new]) == ([other, new], [old])
    liked = pair("and the heating", LONG + ".", at_ms=0, rating=5)
    assert near.unique([old, liked, new]) == ([liked], [old, new])
    disliked = pair("and the heating?", LONG, at_ms=9, rating=1)
    assert near.unique([disliked, old]) == ([old], [disliked])


def test_one_answer_to_different_questions_is_kept_where_the_questions_are_most_of_it():
    one, other = pair("What is my cat called?", "Pixel."), pair("Name of the cat, please", "Pixel.")
    assert near.unique([one, other]) == ([one, other], [])


def test_an_answer_with_and_without_its_reasoning_are_two_examples():
    plain = pair("And the heating?", LONG, labels=("plain",))
    think = pair("And the heating?", f"<think>ok</think> {LONG}", labels=("think",))
    assert near.unique([plain, think]) == ([plain, think], [])
