import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.intents import HIGH, SIGNS, classify, signs

PERSONAL = [
    "hi", "hello there", "olá, bom dia", "¡hola!", "guten Morgen", "bonjour", "ciao", "thank you!",
    "what did I say about my mother last week?", "I prefer short answers",
    "when is my sister's birthday?", "o que é que eu te disse ontem?",
    "was habe ich gestern gekauft?",
    "which book did you recommend to me?", "I usually go to bed at ten",
]  # fmt: skip
COMPLEX = [
    "Explain the difference between TCP and UDP.", "Prove that there are infinitely many primes.",
    "Write a Python function that reverses a list.", "why do stars twinkle?",
    "Explica a diferença entre mitose e meiose.", "Erkläre, warum der Himmel blau ist.",
    "Compare the causes of the two world wars and say which of them historians dispute.",
    "Solve 3x^2 + 7x - 22 = 0 and show every step.",
    "Traduis ce texte en anglais et résume les arguments.",
]  # fmt: skip


def personal(text: str, **more) -> float:
    found = classify(text, **more)
    return found.probability if found.category == "PERSONAL" else 1 - found.probability


@pytest.mark.parametrize("text", PERSONAL)
def test_what_is_the_persons_own_is_personal(text) -> None:
    assert classify(text).category == "PERSONAL"


@pytest.mark.parametrize("text", COMPLEX)
def test_what_wants_knowledge_is_complex(text) -> None:
    assert classify(text).category == "COMPLEX"


vectors = st.none() | st.integers(0, 9).map(
    lambda seed: np.random.RandomState(seed).standard_normal(384) / 20
)
strengths = st.floats(allow_nan=True, allow_infinity=True)


@given(st.text(max_size=200), vectors, strengths, strengths, st.booleans())
def test_every_message_is_one_of_the_two_and_always_the_same(
    text, vector, relevance, threshold, known
) -> None:
    ask = {"relevance": relevance, "threshold": threshold, "known": known}
    found = classify(text, vector, **ask)
    assert found.category in ("PERSONAL", "COMPLEX")
    assert 0.5 <= found.probability <= 1
    assert found.confidence == ("high" if found.probability >= HIGH else "low")
    assert found.reason
    assert classify(text, vector, **ask) == found


@given(st.sampled_from(PERSONAL + COMPLEX), st.floats(0, 2), st.floats(0, 2), vectors)
def test_stronger_recall_never_makes_a_message_less_personal(text, low, high, vector) -> None:
    low, high = sorted((low, high))
    weak = personal(text, vector=vector, relevance=low, threshold=0.3, known=low >= 0.3)
    strong = personal(text, vector=vector, relevance=high, threshold=0.3, known=high >= 0.3)
    assert strong >= weak - 1e-9


def test_recall_turns_what_leans_and_not_what_is_clear() -> None:
    recalled = {"relevance": 0.9, "threshold": 0.3, "known": True}
    assert personal("the garage in Porto", **recalled) > personal("the garage in Porto") + 0.05
    assert classify("Prove that the square root of 2 is irrational.", **recalled).category == (
        "COMPLEX"
    )
    found = classify("what did I pay at the garage?", **recalled)
    assert found.category == "PERSONAL" and "notes" in found.reason


def test_recall_that_is_not_known_changes_nothing() -> None:
    assert classify("the garage", relevance=0.9, threshold=0.3) == classify("the garage")


def test_a_vector_of_another_embedder_is_not_used() -> None:
    text = "the garage in Porto"
    assert classify(text, np.ones(768)) == classify(text) == classify(text, np.zeros(384))
    assert classify(text, np.full(384, 0.05)) != classify(text)


def test_the_reason_names_what_was_seen() -> None:
    assert "greeting" in classify("hello").reason
    assert "knowledge" in classify("explain the theory of the firm").reason


def test_signs_are_seen_in_five_languages() -> None:
    place = SIGNS.index("own")
    for text in ("what did I say?", "o que é que eu disse?", "¿qué dije yo?",
                 "was habe ich gesagt?", "qu'ai-je dit ?"):  # fmt: skip
        assert signs(text)[place] == 1, text
    assert signs("what did Napoleon say?")[place] == 0


def test_every_intent_is_reviewed_once_with_a_reason(shared) -> None:
    told = json.loads((Path(__file__).parents[1] / "bench" / "intents.json").read_text("utf-8"))
    groups = [group for kind in ("PERSONAL", "COMPLEX", "left_out") for group in told[kind]]
    reviewed = [intent for group in groups for intent in group["intents"]]
    path = shared / "data" / "routing" / "intents-dev.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    assert sorted(reviewed) == sorted({row["intent"] for row in rows})
    assert all(group["reason"] for group in groups)
    held = (shared / "data" / "routing" / "personal-or-complex-dev.jsonl").read_text("utf-8")
    texts = {json.loads(line)["text"].lower() for line in held.split("\n") if line}
    own = [t for kinds in told["own"].values() for ts in kinds.values() for t in ts]
    assert texts.isdisjoint(text.lower() for text in own)


def test_without_a_vector_the_dev_set_is_told_apart_better_than_by_length(shared) -> None:
    path = shared / "data" / "routing" / "personal-or-complex-dev.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    rows = [row for row in rows if row["label"] in ("personal", "complex")]
    found = [classify(row["text"]) for row in rows]
    right = np.array([f.category.lower() == r["label"] for f, r in zip(found, rows, strict=True)])
    short = np.array([(len(row["text"]) < 100) == (row["label"] == "personal") for row in rows])
    sure = np.array([f.confidence == "high" for f in found])
    assert right.mean() > max(0.8, short.mean())
    assert right[sure].mean() > HIGH
