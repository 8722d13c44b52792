"""A profile by keywords alone: what the real one is compared with. Pure.

Promises: no facts, no findings, no model: it counts words. The same texts, in whatever order, give
the same lines.
Refuses to know: everything else about the person.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from knowme.profile.derive import in_order, line_uid
from knowme.types import Line
from knowme.words import STOP_WORDS, WORD

_NAME = re.compile(r"(?<=[a-zà-ÿ,;] )[A-ZÀ-Ý][a-zà-ÿ]{2,}\b")
_LIKING = re.compile(
    r"\b(i (?:really )?(?:like|love|prefer|hate|want)|my favou?rite|gosto de|prefiro|odeio|me gusta"
    r"|ich mag|ich liebe)\s+([^.,;:!?\n]{3,40})", re.I,
)  # fmt: skip
TOPICS, NAMES, LIKINGS = 15, 10, 8


def baseline(texts: Iterable[str]) -> list[Line]:
    """Return the lines that counting words gives: topics, names, what stands after "I like"."""
    topics: Counter[str] = Counter()
    names: Counter[str] = Counter()
    likings: Counter[str] = Counter()
    for text in texts:
        found = {word.casefold() for word in WORD.findall(text)}
        topics.update(w for w in found if len(w) > 3 and w not in STOP_WORDS and w.isalpha())
        names.update(set(_NAME.findall(text)))
        likings.update(
            {" ".join(f"{verb} {what}".casefold().split()) for verb, what in _LIKING.findall(text)}
        )
    for name in names:
        topics.pop(name.casefold(), None)
    made = []
    if topics:
        made.append(_line("context", "Topics: " + _listed(topics, TOPICS)))
    if names:
        made.append(_line("people", "Names: " + _listed(names, NAMES)))
    made += [_line("preferences", words) for words in _most(likings, LIKINGS)]
    return in_order(made)


def _most(counted: Counter[str], many: int) -> list[str]:
    return sorted(counted, key=lambda word: (-counted[word], word))[:many]


def _listed(counted: Counter[str], many: int) -> str:
    return ", ".join(f"{word} ({counted[word]})" for word in _most(counted, many))


def _line(section: str, text: str) -> Line:
    uid = line_uid("baseline", section, text)
    return Line(uid, section, text[:1].upper() + text[1:], 0.5, "current", "keywords", (), 0.0,
                False, 0, None)  # fmt: skip
