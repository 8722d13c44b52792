"""Dates in a query: which days it speaks of.

Promises: pure; a phrase that is not surely a date is not one. English phrases; ISO dates and the
months' names also in Portuguese, Spanish and German.
Refuses to know: what happened on those days.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta

Span = tuple[int, int]
"""First and last day, both included, in days since 1970-01-01."""

_MONTHS = {
    name: number + 1
    for language in (
        "january february march april may june july august september october november december",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "januar februar märz april mai juni juli august september oktober november dezember",
    )
    for number, name in enumerate(language.split())
}
_VERBS = {"may", "march", "mayo"}
_DAYS = {
    name: number
    for number, name in enumerate(
        "monday tuesday wednesday thursday friday saturday sunday".split()
    )
}
_NUMBERS = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()
    )
} | {"a": 1, "an": 1, "couple of": 2, "few": 3}
_UNITS = {"day": (1.0, 0), "week": (7.0, 3), "month": (30.4, 10), "year": (365.25, 60)}
"""Length of a unit, and how far off "N units ago" may be, in days."""

_ISO = re.compile(r"\b((?:19|20)\d\d)-(\d\d)-(\d\d)\b")
_NAMED = re.compile(
    r"(?:\b(\d{1,2})(?:st|nd|rd|th|\.)?\s+(?:of\s+|de\s+)?)?\b(" + "|".join(_MONTHS) + r")\b"
    r"(?:\s+(\d{1,2})(?:st|nd|rd|th)?\b(?!\d))?(?:,?\s*(?:de\s+|of\s+)?((?:19|20)\d\d))?"
)
_IN_MONTH = r"\b(?:in|of|since|during|by|until|last|early|late|mid|em|de|en|im)[\s-]+"
_AGO = re.compile(
    r"\b(\d{1,3}|a couple of|a few|an?|"
    + "|".join(word for word in _NUMBERS if len(word) > 2 and " " not in word)
    + r")\s+(day|week|month|year)s?\s+ago\b"
)
_LAST = re.compile(r"\b(last|past|this)\s+(week|month|year|" + "|".join(_DAYS) + r")\b")
_NOW = re.compile(
    r"\b(?:now|nowadays|currently|these days|at the moment|agora|atualmente|hoje em dia|ahora"
    r"|actualmente|jetzt|derzeit|zurzeit)\b"
)
NOW_DAYS = 30
_EPOCH = date(1970, 1, 1).toordinal()


def days_of(query: str, today: date | None = None) -> list[Span]:
    """Return the spans of days that a query names; ``today`` resolves "last week" and the like."""
    text = query.lower()
    found = [*_iso(text), *_named(text, today)]
    if today is not None:
        found += [*_relative(text, today)]
    return [(first - _EPOCH, last - _EPOCH) for first, last in found]


def _iso(text: str) -> Iterator[Span]:
    for year, month, day in _ISO.findall(text):
        try:
            at = date(int(year), int(month), int(day)).toordinal()
        except ValueError:
            continue
        yield at, at


def _named(text: str, today: date | None) -> Iterator[Span]:
    for match in _NAMED.finditer(text):
        day, name, year = match[1] or match[3], match[2], match[4]
        bare = name in _VERBS and not day and not year
        if bare and not re.search(_IN_MONTH + name, text):
            continue  # the verb, not the month
        years = [int(year)] if year else []
        if not year and today is not None:
            years = list(range(today.year - 3, today.year + 1))
        for one in years:
            span = _month_or_day(one, _MONTHS[name], day)
            if span is not None:
                yield span


def _month_or_day(year: int, month: int, day: str | None) -> Span | None:
    try:
        if day:
            at = date(year, month, int(day)).toordinal()
            return at, at
        after = date(year + month // 12, month % 12 + 1, 1) - timedelta(1)
        return date(year, month, 1).toordinal(), after.toordinal()
    except ValueError:
        return None


def _relative(text: str, today: date) -> Iterator[Span]:
    at = today.toordinal()
    if re.search(r"\b(?:yesterday|ontem|ayer|gestern)\b", text):
        yield at - 1, at - 1
    if _NOW.search(text):
        yield at - NOW_DAYS, at
    for amount, unit in _AGO.findall(text):
        word = amount.removeprefix("a ") if amount.startswith("a ") else amount
        number = int(word) if word.isdigit() else _NUMBERS.get(word, 1)
        length, slack = _UNITS[unit]
        yield int(at - number * length - slack), int(at - number * length + slack)
    for which, unit in _LAST.findall(text):
        yield _last(which, unit, today)


def _last(which: str, unit: str, today: date) -> Span:
    at = today.toordinal()
    if unit in _DAYS:
        back = (today.weekday() - _DAYS[unit]) % 7 or 7
        return at - back, at - back
    if which == "this":
        since = {"week": today.weekday(), "month": today.day - 1}
        return at - since.get(unit, today.timetuple().tm_yday - 1), at
    if which == "last":
        return at - {"week": 13, "month": 61, "year": 730}[unit], at - 1
    return at - {"week": 7, "month": 31, "year": 366}[unit], at
