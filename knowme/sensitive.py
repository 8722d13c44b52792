"""What a text touches that the law and good manners keep apart: health, faith, politics ...

Promises: pure; by words and phrases in English, Portuguese, Spanish and German (the kinds of
Article 9 and 10 of the GDPR); time linear in the length. Precise before complete: a headache of a
bug, a political map and a race condition are none.
Refuses to know: whose it is, what may leave.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from knowme.words import WORD

KINDS = (
    "health", "sexuality", "politics", "religion", "ethnicity", "union", "biometrics", "crime"
)  # fmt: skip
_NONE = "not"


def sensitive(text: str) -> tuple[str, ...]:
    """Return the kinds, in the order of KINDS, that a text speaks of; () if none."""
    words = [_fold(match[0]) for match in WORD.finditer(text)]
    if not words:
        return ()
    matches = list(_matches(words))
    masked = [(start, end) for kind, start, end in matches if kind == _NONE]
    covered = bytearray(len(words))
    for start, end in masked:
        covered[start:end] = b"\1" * (end - start)
    found = {kind for kind, start, end in matches if kind != _NONE and not any(covered[start:end])}
    return tuple(kind for kind in KINDS if kind in found)


def _fold(word: str) -> str:
    """Return a word in lower case, without accents; "doctor's" as "doctor's"."""
    plain = unicodedata.normalize("NFKD", word.replace("’", "'").casefold())
    return "".join(sign for sign in plain if not unicodedata.combining(sign))


_Phrase = tuple[str, tuple[str, ...]]


@cache
def _lexicon() -> tuple[dict[str, list[_Phrase]], dict[str, list[_Phrase]], int]:
    """Return the phrases by their first word, and by its beginning where that is a stem."""
    path = Path(__file__).parent / "data" / "sensitive.json"
    exact: dict[str, list[_Phrase]] = {}
    stems: dict[str, list[_Phrase]] = {}
    for kind, lists in json.loads(path.read_text("utf-8")).items():
        for phrase in "|".join(lists).split("|") if kind != "about" else ():
            parts = tuple(_fold(part) for part in phrase.replace("-", " ").split())
            into, key = (stems, parts[0][:-1]) if parts[0].endswith("*") else (exact, parts[0])
            into.setdefault(key, []).append((kind, parts))
    return exact, stems, max(map(len, stems))


def _matches(words: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    exact, stems, longest = _lexicon()
    for at, word in enumerate(words):
        phrases = list(exact.get(word, ()))
        if word.endswith("'s"):
            phrases += exact.get(word[:-2], ())
        for size in range(3, min(len(word), longest) + 1):
            phrases += stems.get(word[:size], ())
        for kind, parts in phrases:
            rest = words[at + 1 : at + len(parts)]
            if len(rest) == len(parts) - 1 and all(map(_fits, rest, parts[1:])):
                yield kind, at, at + len(parts)


def _fits(word: str, part: str) -> bool:
    return word.startswith(part[:-1]) if part.endswith("*") else word == part
