"""The words that the rules for claims know, and what a rule makes.

Promises: read once, from ``data/claims-english.json``; frozen.
Refuses to know: grammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from knowme.types import ME
from knowme.verbs import form

STATE, EVENT, PLAN, HABIT = "state", "event", "plan", "habit"


class Word(NamedTuple):
    """A word or sign: its characters in the text, in lower case, and as it stands."""

    start: int
    end: int
    low: str
    raw: str


class Draft(NamedTuple):
    """A claim before its dates: ``first`` to ``last`` are the characters of its value.

    ``value``, where not empty, stands in place of them. ``kind``: state (so now), event (was),
    plan (shall be), habit (again and again). ``start`` to ``end`` are the quote. ``perfect``: "have
    done", with which no day in the past can go. ``prefix`` stands before the value: "only ".
    """

    attribute: str
    first: int
    last: int
    start: int
    end: int
    kind: str = STATE
    subject: str = ME
    value: str = ""
    certain: bool = True
    outright: bool = False
    ended: bool = False
    perfect: bool = False
    prefix: str = ""


@cache
def _lexicon() -> Mapping[str, Any]:
    path = Path(__file__).parent.parent / "data" / "claims-english.json"
    loaded: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def words(name: str) -> frozenset[str]:
    """Return a set of words of the lexicon."""
    return frozenset(" ".join(_lexicon()[name]).split())


def table(name: str) -> Mapping[str, str]:
    """Return a table of the lexicon: phrase -> what it means."""
    return {
        phrase: meaning
        for meaning, phrases in _lexicon()[name].items()
        for phrase in phrases.split("|")
    }


@cache
def first_names() -> frozenset[str]:
    """Return first names, in lower case, that are no other word in the four languages."""
    path = Path(__file__).parent.parent / "data" / "claims-names.json"
    return frozenset(" ".join(json.loads(path.read_text("utf-8"))["names"]).split())


def lemma_of(low: str) -> str:
    """Return the lemma of a word in lower case, or the word."""
    found = form(low)
    return found.lemma if found else low


def wordy(low: str) -> bool:
    """Tell a word or a number from a sign."""
    return low[0].isalnum() or low[0] in "$€£"


__all__ = [
    "EVENT", "HABIT", "PLAN", "STATE", "Draft", "Word", "first_names", "lemma_of", "table", "words",
    "wordy",
]  # fmt: skip
