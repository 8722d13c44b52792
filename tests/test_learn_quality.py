"""What is dropped says nothing to anybody in particular; the mix comes near what is wanted."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme.learn import pairs, quality
from knowme.types import ChatMessage

ROWS = Path(__file__).parent / "data" / "platitudes-labelled.jsonl"
LABELLED = [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]


def pair(question, answer, purpose="assistant-for-me", kind="exchange", **more):
    said = [ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made(purpose, kind, said, [1], "chat/a", **more)


# --- platitudes -----------------------------------------------------------------------------------


def test_platitudes_are_dropped_and_nothing_else():
    made = [pair(row["question"], row["answer"]) for row in LABELLED]
    generic = {p.uid for p, row in zip(made, LABELLED, strict=True) if row["generic"]}
    assert len(LABELLED) == 60 and len(generic) == 30
    kept, dropped = quality.specific(made)
    wrong = [each.answer for each in dropped if each.uid not in generic]
    assert wrong == []
    assert len(dropped) >= 27, [each.answer for each in kept if each.uid in generic]
    assert [*kept, *dropped] != made and Counter([*kept, *dropped]) == Counter(made)


def test_a_platitude_that_the_house_does_not_hold_is_one_by_its_words():
    every = quality.background().texts
    found = 0
    for at, (_, text) in enumerate(every):
        others = quality.Background.of([*every[:at], *every[at + 1 :]])
        found += quality.specificity([pair("and?", text)], others)[0] < quality.PLATITUDE
    assert found > len(every) // 4, "sixty texts are a small background; with all of them it is .97"


def test_no_answer_of_the_fictional_assistant_is_a_platitude():
    from knowme.fiction import build

    life = Path(build.__file__).parent / "life"
    answers = [
        line[4:]
        for file in sorted(life.glob("*.md"))
        for line in file.read_text("utf-8").splitlines()
        if line.startswith("ai: ")
    ]
    assert len(answers) > 100
    kept, dropped = quality.specific([pair("", answer) for answer in dict.fromkeys(answers)])
    assert [each.answer for each in dropped] == []


def test_what_the_person_said_or_liked_is_never_a_platitude():
    empty = LABELLED[1]["answer"]
    stays = [
        pair("", empty, kind="manual"), pair("", empty, kind="collected"),
        pair("", empty, kind="style", purpose="sound-like-me"),
        pair("", empty, purpose="sound-like-me"), pair("", empty, rating=5),
    ]  # fmt: skip
    assert quality.specific(stays) == (stays, [])
    goes = [pair("", empty, rating=3), pair("", empty, kind="teacher")]
    assert quality.specific(goes) == ([], goes)


def test_reasoning_does_not_make_a_platitude_of_an_answer_or_save_it():
    empty = LABELLED[1]["answer"]
    told = "<think>The gauge in Leixões sends 41 frames; Duarte reads them at 09:42.</think>\n"
    assert quality.specific([pair("?", told + empty)])[0] == []


def test_a_model_is_asked_only_about_what_reads_like_a_platitude():
    asked = []

    def nll(messages, answer):
        asked.append(answer)
        return [2.0]

    own, empty = LABELLED[31]["answer"], LABELLED[1]["answer"]
    scores = quality.specificity([pair("a", own), pair("b", empty)], nll=nll)
    assert own not in asked and asked[0] == empty and len(asked) == 2
    assert scores[1] == (quality.specificity([pair("b", empty)])[0] + 0.5) / 2


def test_what_a_model_did_not_expect_is_somebody_s_own():
    empty = pair("how do I get better", LABELLED[1]["answer"])
    surprised = quality.specific([empty], nll=lambda m, a: [6.0 if a == empty.answer else 2.0])
    expected = quality.specific([empty], nll=lambda m, a: [1.0 if a == empty.answer else 2.0])
    assert (surprised, expected) == (([empty], []), ([], [empty]))


@pytest.mark.slow
@pytest.mark.model
def test_the_packaged_model_agrees_that_platitudes_are_platitudes(models):
    from knowme.learn.served import Served

    made = [pair(r["question"], r["answer"], language="en") for r in LABELLED[:4]]
    with Served(models["chat"], [], threads=1) as served:
        kept, dropped = quality.specific(made, nll=lambda m, a: served.nll(m, a, ()))
    assert len(dropped) >= 3, [each.answer for each in kept]


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("hello, how are you?", "Fine.", ("small-talk",)),
        ("obrigado!", "De nada.", ("small-talk",)),
        ("I prefer short answers", "Noted.", ("preference", "personal")),
        ("write a function def f(x): return x", "```py\n```", ("code", "technical")),
        ("the server needs a new database", "Postgres.", ("technical",)),
        ("we decided to go with Postgres", "Good.", ("decision", "personal", "technical")),
        ("What is the capital of Peru?", "Lima.", ("knowledge",)),
        ("do you remember what I said about my mother?", "Yes.", ("personal", "memory")),
    ],
)
def test_labels_say_what_an_example_is_about(question, answer, expected):
    assert quality.labels(pair(question, answer)) == expected


def test_in_their_own_voice_the_answer_is_what_the_person_said():
    said = ("What would you like?", "I prefer tea")
    assert "preference" in quality.labels(pair(*said, purpose="sound-like-me"))
    assert "preference" not in quality.labels(pair(*said))


# --- balance --------------------------------------------------------------------------------------


def spoken(language, many, **more):
    return [pair(f"{language} {n}", "x", language=language, at_ms=n, **more) for n in range(many)]


def share(found, language):
    return sum(each.language == language for each in found) / len(found)


def test_a_language_that_is_over_the_person_s_share_loses_its_oldest_and_worst():
    made = [*spoken("en", 90), *spoken("pt", 40)]
    made[5] = pair("en liked", "x", language="en", at_ms=0, rating=5)
    kept, dropped = quality.balance(made, languages={"en": 0.5, "pt": 0.5})
    assert share(kept, "en") <= 0.5 + quality.SLACK and made[5] in kept
    assert dropped == Counter({"too much en": 30}) and len(kept) == 100
    gone = sorted(each.at_ms for each in made if each not in kept)
    assert gone[-1] < 40, "the newest stay"
    assert kept == [each for each in made if each in kept], "in their order"


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["en", "pt", "es", "de"]), st.integers(1, 60), min_size=1),
    st.dictionaries(st.sampled_from(["en", "pt", "es", "de"]), st.floats(0, 1)),
)
def test_balancing_brings_no_language_further_away_and_leaves_half_of_each(counts, wanted):
    made = [each for name, many in counts.items() for each in spoken(name, many)]
    kept, dropped = quality.balance(made, languages=wanted)
    assert len(kept) + sum(dropped.values()) == len(made)
    for name, many in counts.items():
        left = sum(each.language == name for each in kept)
        assert 2 * left >= many
        if left < many:
            assert many / len(made) > wanted.get(name, 0.0) + quality.SLACK


def test_the_person_s_languages_are_those_of_their_messages(home):
    from lived import put

    put(home, "the cat moved to the new flat with me", "it is late and I am tired")
    put(home, "hoje não dormi porque o prédio faz barulhos", session="two")
    assert quality.languages(home) == {"en": 2 / 3, "pt": 1 / 3}


def decided(number, reasoned, answer=None):
    answer = answer or f"Postgres {number}"
    told = f"<think>Because of {number}.</think>\n{answer}" if reasoned else answer
    label = "think" if reasoned else "plain"
    return pair(f"why {number}", told, kind="decision", labels=("decision", label), at_ms=number)


def reasoning(found):
    told = Counter(label for each in found for label in each.labels)
    return told["think"] / (told["think"] + told["plain"])


@pytest.mark.parametrize("wanted", [0.0, 0.25, 0.5, 0.75])
def test_too_much_reasoning_is_cut_from_answers_and_no_answer_is_lost(wanted):
    made = [decided(n, True) for n in range(40)]
    kept, dropped = quality.balance(made, reasoning_share=wanted)
    assert reasoning(kept) == wanted and len(kept) == 40
    cut = [each for each in kept if "plain" in each.labels]
    assert all("<think>" not in each.answer and each.answer.startswith("Post") for each in cut)
    assert all(each.uid not in {p.uid for p in made} for each in cut), "another text, another uid"
    assert dropped["reasoning, cut from its answer"] == 40 * (1 - wanted)


def test_of_twins_one_goes_until_the_share_is_met():
    both = [decided(n, reasoned) for n in range(40) for reasoned in (True, False)]
    kept, dropped = quality.balance(both, reasoning_share=0.8)
    assert reasoning(kept) == 0.8 and dropped == Counter({"plain, of two twins": 30})
    kept, dropped = quality.balance(both, reasoning_share=0.2)
    assert reasoning(kept) == 0.2 and dropped == Counter({"reasoning, of two twins": 30})
    assert {each.question for each in kept} == {each.question for each in both}


def test_a_decision_without_a_reason_is_kept_where_reasons_lack():
    made = [*(decided(n, False) for n in range(9)), decided(99, True)]
    assert quality.balance(made, reasoning_share=0.5) == (made, Counter())


def test_what_is_no_decision_has_no_part_in_the_share():
    made = [*spoken("en", 9), decided(1, True), decided(1, False)]
    assert quality.balance(made, reasoning_share=0.5) == (made, Counter())
