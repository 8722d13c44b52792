"""When something was so: the time phrases of a statement, against the day it was said.

Promises: pure; English, Portuguese, Spanish, German; time linear in the length of the text. A date
that two careful readers would read differently keeps both readings as one interval: what is given
is right or wide, never too sure. A phrase of which nothing is known ("when I was 12") is left out.
Refuses to know: queries (``dates.py``), what happened on those days.

Words become one letter each (``letters``), letters become days by a few rules that all languages
share (``periods``), and here days become phrases: since, until, from .. to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

from knowme.types import When
from knowme.whens.calendar import LAST_DAY, Span, hull, week_of, year_of
from knowme.whens.letters import read
from knowme.whens.periods import Period, Reader
from knowme.whens.tense import Tenses


class Found(NamedTuple):
    """A time phrase: characters ``start`` to ``end`` of the text, and when that is.

    ``kind``: "at" (on that day, or some time within), "since" (from then on, still so), "until",
    "span" (from one to the other), "for" (so long; still so, or over, by the tense around it).
    """

    start: int
    end: int
    when: When
    kind: str


# --- phrases: since, until, from .. to ----------------------------------------------------------

# X is a period, Z a year that stands for one only beside another.
_JOINED = re.compile(r"X(?:[,Iad.]{0,2}X)+")
_PHRASES = {
    "span": r"(?:[rd]a?)?[XZ][tU-]{1,2}a?[XZ]|da?[XZ]aa?[XZ]",
    "between": r"Ba?[XZ]&a?[XZ]",
    "onward": r"[dI]?a?X,?I?r",
    "since": r"S[~I]?a?(?:E[da-]?a?)?X",
    "until": r"U[~I]?a?(?:E[da-]?a?)?X",
    "not": r"(?:[QNV][oa]{0,2}X|W)(?:[,&]{1,2}[aI]?X){0,6}|XR|W",
    "at": r"(?:[I~f]{1,2}|d)?(?:a?ud)?a?(?:E[da-]?a?)?X",
}
_PHRASE = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in _PHRASES.items()))


def _joined(reader: Reader, periods: Sequence[Period]) -> list[Period]:
    """Make one of "Friday, 3 May" and "in March last year": the days that both name."""
    joined: list[Period] = []
    for period in periods:
        if joined and re.fullmatch(r"[,Iad.]{0,2}", reader.codes[joined[-1].last : period.first]):
            before = joined[-1]
            both = _both(before, period)
            if both and {before.kind, period.kind} <= {"at", "day"}:
                fixed = before.fixed or period.fixed or len(both) == 1
                pool = [hull(*both)] if fixed else both
                joined[-1] = Period(before.first, period.last, pool, fixed)
                continue
        joined.append(period)
    return joined


def _both(one: Period, other: Period) -> list[Span]:
    if len(one.pool) * len(other.pool) > 400:
        return []
    common = {(max(a[0], b[0]), min(a[1], b[1])) for a in one.pool for b in other.pool}
    return sorted(span for span in common if span[0] <= span[1])


def _phrases(reader: Reader) -> Iterator[Found]:
    """Yield the time phrases of one reading of the text."""
    periods = _joined(reader, list(reader.periods()))
    letters: list[str] = []
    places: list[tuple[int, int, Period | None]] = []
    at = 0
    for period in periods:
        letters += reader.codes[at : period.first]
        places += [(index, index + 1, None) for index in range(at, period.first)]
        letters.append({"weak": "Z"}.get(period.kind, "X"))
        places.append((period.first, period.last, period))
        at = period.last
    letters += reader.codes[at:]
    places += [(index, index + 1, None) for index in range(at, len(reader.codes))]
    for match in _PHRASE.finditer("".join(letters)):
        inside = places[match.start() : match.end()]
        found = _phrase(reader, str(match.lastgroup), inside)
        if found is not None:
            last = inside[-1][1] - 1
            last -= reader.codes[last] == "q"  # "hace dos años que": the "que" goes on
            yield Found(reader.tokens[inside[0][0]].start, reader.tokens[last].end, *found)


def _phrase(
    reader: Reader, kind: str, inside: Sequence[tuple[int, int, Period | None]]
) -> tuple[When, str] | None:
    periods = [period for _, _, period in inside if period is not None]
    if kind == "not" or not periods or _recurs(reader, kind, periods, inside[0][0]):
        return None
    tense = reader.tense(inside[0][0])
    if kind in ("since", "onward"):
        strength = reader.value(inside[0][0], inside[0][1], "S")
        tense = -1 if strength == 0 else tense
    elif kind == "until" and tense == 0:
        tense = 1
    if "E" in [reader.codes[first] for first, _, _ in inside]:
        phase = reader.value(inside[0][0], inside[-1][1], "E")
        pool = [_phase(span, phase) for span in periods[-1].pool]
        periods[-1] = periods[-1]._replace(pool=pool)
    spans = [_chosen(reader, period, tense) for period in periods]
    known = [span for span in spans if span is not None]
    if len(known) < len(spans):
        return None
    if kind == "at" and reader.value(inside[0][0], inside[-1][0], "u") == "w":
        known = [week_of(known[0][0])]
    return _when(reader, kind, periods[0], known)


def _recurs(reader: Reader, kind: str, periods: Sequence[Period], at: int) -> bool:
    """Tell what names no day: "Monday to Friday", and the day of a birth without its year."""
    if kind == "span" and all(period.kind == "day" for period in periods):
        return True
    return not all(one.fixed for one in periods) and reader.tenses.birth(reader.tokens[at].start)


def _chosen(reader: Reader, period: Period, tense: int) -> Span | None:
    if period.fixed:
        return period.pool[0]
    return reader.again(period.pool, tense, period.kind == "day")


def _phase(span: Span, phase: Sequence[float]) -> Span:
    """Return the early, middle or late part of a span."""
    length = span[1] - span[0]
    return span[0] + int(length * phase[0]), span[0] + int(length * phase[1] + 0.999)


def _when(
    reader: Reader, kind: str, period: Period, spans: Sequence[Span]
) -> tuple[When, str] | None:
    (a, b), (c, d) = spans[0], spans[-1]
    if kind == "between":
        return _made(min(a, c), max(b, d), min(a, c), max(b, d)), "at"
    if kind == "span":
        return (_made(a, b, c, d), "span") if a <= d else None
    if kind in ("since", "onward"):
        # What began "this week" and holds has begun by today.
        begun = reader.known and a <= reader.today
        return _made(a, min(b, reader.today) if begun else b), "since"
    if kind == "until":
        return _made(None, None, a, b), "until"
    return _of_period(reader, period, a, b)


def _of_period(reader: Reader, period: Period, a: int, b: int) -> tuple[When, str]:
    if period.kind == "since":
        return _made(a, b), "since"
    if period.kind == "ago":
        return _made(a, b, a), "since"
    if period.kind == "for":
        ended = reader.tense(period.first) < 0
        return (_made(None, b, None, reader.today) if ended else _made(None, b)), "for"
    if period.kind == "years":
        first, last = date.fromordinal(a).year, date.fromordinal(b).year
        return _made(*year_of(first), *year_of(last)), "span"
    if period.kind == "span":
        return _made(a, a, b, b), "span"
    return _made(a, b, a, b), "at"


def _made(
    from_first: int | None,
    from_last: int | None,
    to_first: int | None = None,
    to_last: int | None = None,
) -> When:
    return When(*(_iso(day) for day in (from_first, from_last, to_first, to_last)))


def _iso(day: int | None) -> str:
    return "" if day is None else date.fromordinal(min(max(day, 1), LAST_DAY)).isoformat()


# --- what others call ---------------------------------------------------------------------------


def find(text: str, said: date | None) -> list[Found]:
    """Return every time phrase of a text, in order, none over another.

    ``said`` is the day on which the text was written, in the writer's zone; without it only
    what names its own year is found. Dates of a phrase are never narrower than what it says.
    """
    candidates: list[tuple[int, int, Found]] = []
    readings, likely = read(text)
    tenses = Tenses(text, frozenset(readings))
    for language, tokens in readings.items():
        reader = Reader(tokens, tenses, said, language, language in likely)
        for found in _phrases(reader):
            candidates.append((found.start - found.end, language not in likely, found))
    kept: list[Found] = []
    taken = bytearray(len(text))
    for _, _, found in sorted(candidates, key=lambda entry: entry[:2]):
        if not any(taken[found.start : found.end]):
            taken[found.start : found.end] = b"\1" * (found.end - found.start)
            kept.append(found)
    return sorted(kept)


def when_of(text: str, said: date | None, *, tense: str = "") -> When:
    """Return when a statement holds: by its time phrases, else open: begun by ``said``.

    ``tense`` is what the caller knows of the statement: "past" (it is over), "present" (it holds
    on the day it was said), "begins" or "ends" (its date is that of the beginning, of the end), ""
    where the phrases alone decide. Without a phrase: When("", said, "", "").
    """
    today = said.isoformat() if said else ""
    found = find(text, said)
    when = _together(found) if found else When("", today)
    if tense == "begins" and when.from_first == when.to_first and when.from_last == when.to_last:
        return When(when.from_first, when.from_last)
    if tense == "ends" and when.to_first:
        return When("", "", when.to_first, when.to_last)
    if tense == "ends" and not found:
        return When("", today, "", today)
    if tense == "past" and not when.to_last:
        return When(when.from_first, when.from_last, when.to_first, today)
    if tense == "present" and any(one.kind == "for" for one in found):
        return When(when.from_first, when.from_last)
    return when


def _together(found: Sequence[Found]) -> When:
    """Join the phrases of one statement: beginnings with ends, several days to their hull."""
    spans = [one.when for one in found if one.kind == "span"]
    if spans:
        return spans[0]
    begins = [one.when for one in found if one.kind == "since"]
    ends = [one.when for one in found if one.kind == "until"]
    if begins or ends:
        begin, end = (begins or [When()])[0], (ends or begins)[0]
        return When(begin.from_first, begin.from_last, end.to_first, end.to_last)
    days = [one.when for one in found if one.kind == "at"]
    if not days:
        return found[0].when
    first = min(one.from_first for one in days)
    last = max(one.from_last for one in days)
    return When(first, last, first, last)
