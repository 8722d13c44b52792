"""What Portuguese, Spanish and German sentences claim about their writer.

Promises: pure; patterns in a table (``data/claims-languages.json``), each with its attribute; a
value stands alone; nothing is read from a question or a condition. Time linear in the sentence.
Refuses to know: English, dates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from knowme.claims.lexicon import Draft

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_LEFT_OUT = r"(?:wohne|arbeite (?:bei|als)|bin|habe|heiße|mag|spreche|komme aus)\b"
"""German verbs that can stand without their "ich" and are then no order."""
_ONLY_WHEN = re.compile(r",? (?:wenn|falls|se|si|quando|cuando)\b", re.IGNORECASE)
_WITH = re.compile(r"\s(?:com|con|mit|perto|cerca)\s", re.IGNORECASE)
LOOKED_AT = 60
"""Words of a sentence that tell its language."""
LONGEST = 600
"""Characters of a sentence; a longer one is no prose."""


class _Form(NamedTuple):
    attribute: str
    kind: str
    pattern: re.Pattern[str]
    ended: bool
    names: bool
    relation: bool
    proper: bool


class _Language(NamedTuple):
    spoken: frozenset[str]
    cue: re.Pattern[str]
    stop: re.Pattern[str]
    pointing: frozenset[str]
    condition: re.Pattern[str]
    hedge: re.Pattern[str]
    dangling: frozenset[str]
    relations: Mapping[str, str]
    forms: tuple[_Form, ...]


@cache
def _languages() -> Mapping[str, _Language]:
    path = Path(__file__).parent.parent / "data" / "claims-languages.json"
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return {name: _language(block) for name, block in loaded["languages"].items()}


@cache
def _english() -> frozenset[str]:
    path = Path(__file__).parent.parent / "data" / "claims-languages.json"
    return frozenset(" ".join(json.loads(path.read_text("utf-8"))["english"]).split())


def _set(lines: list[str]) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


def _language(block: dict[str, Any]) -> _Language:
    relations = {
        word.lower(): name
        for name, words in block["relations"].items()
        for word in words.split("|")
    }
    whose = "|".join(sorted(relations, key=len, reverse=True))
    subject = block["subject"]
    forms = []
    for row in block["forms"]:
        pattern = row["pattern"].replace("{relation}", f"(?P<relation>(?i:{whose}))")
        if pattern.startswith("ich "):
            dropped = rf"(?:(?<!\w)(?={_LEFT_OUT}))"
            pattern = rf"(?:ich |(?<=\bund )|{dropped}){pattern[4:]}"
        before = "" if row.get("free") else subject
        forms.append(
            _Form(
                row["attribute"],
                row.get("kind", "state"),
                re.compile(f"{before}{pattern}", re.IGNORECASE),
                bool(row.get("ended")),
                bool(row.get("names")),
                "{relation}" in row["pattern"],
                bool(row.get("case")),
            )
        )
    return _Language(
        _set(block["spoken"]),
        re.compile(rf"\b(?:{'|'.join(_set(block['cues']))})", re.IGNORECASE),
        re.compile(block["stop"], re.IGNORECASE),
        _set(block["pointing"]),
        re.compile(block["condition"], re.IGNORECASE),
        re.compile(block["hedge"], re.IGNORECASE),
        _set(block["dangling"]),
        relations,
        tuple(forms),
    )


def language_of(text: str, start: int, end: int) -> str:
    """Return the language that a sentence is likely in: en, pt, es, de; "en" if nothing tells."""
    counts = {"en": 0}
    languages = _languages()
    for number, match in enumerate(_WORD.finditer(text, start, end)):
        word = match[0].lower()
        if number == LOOKED_AT:
            break
        counts["en"] += word in _english()
        for name, language in languages.items():
            if word in language.spoken:
                counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda name: (counts[name], name == "en"))


def read_other(text: str, start: int, end: int, language: str) -> Iterator[Draft]:
    """Yield what a sentence in Portuguese, Spanish or German claims about its writer."""
    yield from _read(text, start, end, _languages()[language])
    if language in ("pt", "es"):  # a short sentence may be either: "Vivo en ..."
        other = "es" if language == "pt" else "pt"
        yield from _read(text, start, end, _languages()[other])


def _read(text: str, start: int, end: int, known: _Language) -> Iterator[Draft]:
    piece = text[start:end]
    if end - start > LONGEST or "?" in piece or known.cue.search(piece) is None:
        return
    if known.condition.search(piece) is not None:
        return
    certain = known.hedge.search(piece) is None
    for form in known.forms:
        for match in form.pattern.finditer(piece):
            draft = _draft(known, form, match, piece, start)
            if draft is not None:
                yield draft._replace(certain=certain)


def _draft(
    known: _Language, form: _Form, match: re.Match[str], piece: str, start: int
) -> Draft | None:
    first = match.start("value")
    last = _end(known, piece, first) if not form.names else match.end("value")
    if form.attribute.endswith("residence") and (beside := _WITH.search(piece, first, last)):
        last = beside.start()
    if form.kind == "state" and _ONLY_WHEN.match(piece, last) is not None:
        return None
    value = piece[first:last].strip()
    words = [word.lower() for word in _WORD.findall(value)]
    if not value or len(words) > 12 or not known.pointing.isdisjoint(words):
        return None
    if not words and not any(char.isdigit() for char in value):
        return None
    if form.proper and not any(word[0].isupper() for word in _WORD.findall(value)[:3]):
        return None
    attribute = form.attribute
    if form.relation:
        attribute = attribute.replace("*", known.relations[match["relation"].lower()])
    begin = match.start()
    begin += len(piece[begin:]) - len(piece[begin:].lstrip(" ,;:.!-–—\n\t"))
    stop = known.stop.search(piece, last)
    return Draft(
        attribute=attribute,
        first=start + first,
        last=start + first + len(piece[first:last].rstrip()),
        start=start + min(begin, match.start("whole") if "whole" in match.groupdict() else begin),
        end=start + max(last, stop.start() if stop and stop.start() - last < 40 else last),
        kind=form.kind,
        outright=not form.relation,
        ended=form.ended,
    )


def _end(known: _Language, piece: str, first: int) -> int:
    """Return where a value ends: at a sign, a conjunction, a new verb; without what dangles."""
    stop = known.stop.search(piece, first)
    last = stop.start() if stop else len(piece)
    while True:
        words = list(_WORD.finditer(piece, first, last))
        tail = piece[words[-1].end() : last] if words else ""
        if not words or words[-1][0].lower() not in known.dangling or any(map(str.isdigit, tail)):
            break
        last = words[-1].start()
    while last > first and not piece[last - 1].isalnum() and piece[last - 1] not in ")%€$":
        last -= 1
    return last


__all__ = ["LONGEST", "LOOKED_AT", "language_of", "read_other"]
