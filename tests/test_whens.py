"""When something was so: time phrases in four languages, against the day they were said."""

import json
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.types import When
from knowme.whens import find, when_of

WEDNESDAY = date(2024, 5, 15)
DATES = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "dates.jsonl").read_text("utf-8").splitlines()
]


def ends(when: When) -> tuple[tuple[str, str], tuple[str, str]]:
    return (when.from_first, when.from_last), (when.to_first, when.to_last)


def judge_end(found: tuple[str, str], right: tuple[str, str]) -> str:
    """right (the same days), wide (these and more), too sure (only some), wrong (others)."""
    if found == right:
        return "right"
    if not any(right):
        return "too sure"
    if not any(found):
        return "wide"
    (a, b), (c, d) = (found[0], found[1] or "9999"), (right[0], right[1] or "9999")
    if a <= c and b >= d:
        return "wide"
    return "wrong" if b < c or a > d else "too sure"


def judge(entry: dict) -> str:
    said = date.fromisoformat(entry["said"])
    right = When(*(entry[name] for name in When.__slots__))
    if not find(entry["text"], said):
        return "right" if right == When() else "missed"
    pairs = zip(ends(when_of(entry["text"], said)), ends(right), strict=True)
    verdicts = {judge_end(found, wanted) for found, wanted in pairs}
    return next(v for v in ("wrong", "too sure", "wide", "right") if v in verdicts)


@pytest.mark.parametrize("language", ["en", "pt", "es", "de"])
def test_labelled_phrases_are_resolved_right_or_wide_and_never_too_sure(language: str) -> None:
    entries = [entry for entry in DATES if entry["lang"] == language]
    assert len(entries) >= 40
    verdicts = {entry["text"]: judge(entry) for entry in entries}
    off = {text: v for text, v in verdicts.items() if v not in ("right", "wide")}
    assert not off
    assert Counter(verdicts.values())["right"] >= 0.7 * len(entries)


def test_a_wide_interval_stays_within_what_the_words_can_mean() -> None:
    for entry in DATES:
        right = When(*(entry[name] for name in When.__slots__))
        found = when_of(entry["text"], date.fromisoformat(entry["said"]))
        for (a, b), (c, d) in zip(ends(found), ends(right), strict=True):
            if a and b and c and d:
                length = date.fromisoformat(b) - date.fromisoformat(a)
                most = 3 * (date.fromisoformat(d) - date.fromisoformat(c)).days + 400
                assert length.days <= most, entry["text"]


@pytest.mark.parametrize(
    ("text", "kind", "when"),
    [
        ("I've lived here since March", "since", When("2024-03-01", "2024-03-31")),
        ("until Friday", "until", When("", "", "2024-05-17", "2024-05-17")),
        ("from 2015 to 2016", "span", When("2015-01-01", "2015-12-31", "2016-01-01", "2016-12-31")),
        ("I stayed there for three weeks", "for", When("", "2024-04-28", "", "2024-05-15")),
        ("yesterday", "at", When("2024-05-14", "2024-05-14", "2024-05-14", "2024-05-14")),
    ],
)
def test_each_kind_of_phrase_says_how_it_bounds(text: str, kind: str, when: When) -> None:
    (found,) = find(text, WEDNESDAY)
    assert (found.kind, found.when) == (kind, when)


def test_a_phrase_has_the_characters_of_its_words() -> None:
    text = "Ok. On Friday, May 3rd, we met; I have been ill since Monday."
    assert [text[one.start : one.end] for one in find(text, WEDNESDAY)] == [
        "On Friday, May 3rd",
        "since Monday",
    ]


def test_the_tense_of_the_verb_chooses_the_year() -> None:
    past, ahead = "I ran it in October", "I will run it in October"
    assert find(past, WEDNESDAY)[0].when.from_first == "2023-10-01"
    assert find(ahead, WEDNESDAY)[0].when.from_first == "2024-10-01"


def test_where_no_verb_says_it_both_readings_stay() -> None:
    when = find("Dinner on Friday", WEDNESDAY)[0].when
    assert (when.from_first, when.from_last) == ("2024-05-10", "2024-05-17")


def test_ha_dois_anos_is_since_with_a_present_and_ago_with_a_past() -> None:
    assert find("Moro aqui há dois anos", WEDNESDAY)[0].kind == "since"
    assert find("Mudei de casa há dois anos", WEDNESDAY)[0].kind == "at"


def test_without_the_day_it_was_said_only_what_names_its_year_is_found() -> None:
    assert find("last week, in March, since Friday, há dois anos", None) == []
    (found,) = find("yesterday was 3 March 2024", None)
    assert found.when.from_first == "2024-03-03"


def test_a_statement_without_a_phrase_is_open_and_had_begun_when_it_was_said() -> None:
    assert when_of("I live in Porto", WEDNESDAY) == When("", "2024-05-15")
    assert when_of("I live in Porto", None) == When()


@pytest.mark.parametrize(
    ("tense", "when"),
    [
        ("", When("2019-06-01", "2019-06-30", "2019-06-01", "2019-06-30")),
        ("begins", When("2019-06-01", "2019-06-30")),
        ("ends", When("", "", "2019-06-01", "2019-06-30")),
    ],
)
def test_what_the_caller_knows_of_the_verb_decides_what_a_day_bounds(tense, when) -> None:
    assert when_of("in June 2019", WEDNESDAY, tense=tense) == when


def test_what_is_over_has_an_end_by_the_day_it_was_said() -> None:
    assert when_of("I lived in Porto", WEDNESDAY, tense="past").to_last == "2024-05-15"


@pytest.mark.parametrize(
    "text",
    [
        "31 February 2024",
        "2024-13-40",
        "99999999999 years ago",
        "in 99999 days",
        "9999-12-31",
        "1/2 a cup",
        "version 3.11.2",
        "0 years ago",
    ],
)
def test_what_no_calendar_has_is_left_out_or_harmless(text: str) -> None:
    for found in find(text, WEDNESDAY):
        assert found.when.from_first <= (found.when.from_last or "9999")


words = st.sampled_from(
    """last next this Friday week March may 3 3rd 2019 2015-2019 1.500 in on since until from to
    two years ago há dois anos hace días seit vor drei Jahren Morgen passado que vem early Christmas
    a the of for , . - ' ! 31 February 99 0 90s weekend first every before ontem ayer gestern e y
    und between entre zwischen and from now half a year é über 12/13/14 2024-02-30""".split()
)


@given(st.lists(words, max_size=40).map(" ".join) | st.text(max_size=200), st.none() | st.dates())
def test_any_text_gives_phrases_inside_it_in_order_with_intervals_the_right_way_round(
    text: str, said: date | None
) -> None:
    last = 0
    for found in find(text, said):
        assert last <= found.start < found.end <= len(text)
        last = found.end
        for first, end in ends(found.when):
            assert not (first and end) or first <= end
        assert found.when != When()
    when_of(text, said)


@pytest.mark.parametrize("piece", ["in March ", "two years ago ", "2019-", "last ", "a'", "3. "])
def test_a_long_hostile_text_is_read_to_its_end(piece: str) -> None:
    text = piece * 20_000  # quadratic work on it would take hours
    assert all(one.end <= len(text) for one in find(text, WEDNESDAY))
