"""Periods: which days "last Friday", "3 March", "há dois anos" may be.

Promises: where two careful readers would read different days, both are given, as one span or as a
pool among which the tense chooses.
Refuses to know: since, until, from .. to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import MAXYEAR, date
from typing import Any, NamedTuple

from knowme.whens.calendar import (
    FEASTS,
    UNIT_DAYS,
    Span,
    day_of,
    hull,
    month_of,
    moved,
    season_of,
    week_of,
    weekday_of,
    year_of,
)  # fmt: skip
from knowme.whens.letters import Token
from knowme.whens.tense import Tenses


class Period(NamedTuple):
    """Days that the tokens ``first`` to ``last`` name: ``pool`` is every reading, in order.

    ``fixed``: there is one. ``kind``: as in Found; "ago" is "at" or "since", by the tense.
    """

    first: int
    last: int
    pool: Sequence[Span]
    fixed: bool = True
    kind: str = "at"


# w weekday (W: its plural, c and v: short forms), m month (b "may", j "jan"), n number, o ordinal,
# i "a", u unit, e weekend, l a length, s season, h feast, k decade, y year, Y years, z a date in
# figures, D "yesterday", P last, F next, T this, < before last, > after next, A ago, V "vor",
# H "há", G from now, J "daqui a", p evening, a the, d of, S since, U until, I in, f for, g "lang",
# r onwards, t to, B between, & and, q que, E early or late, ~ about, + and a half, N before or my,
# Q every, R evenings.
_AMOUNT = r"~?(?:[ni]~?u\+?|[ni]\+u|l)"
_MONTH = r"(?:[mb]|j\.?)"
_DAY = r"[no]\.?"
_OF_YEAR = r"(?:[,d]{0,2}a?y)?"
_LONE = "(?![uewmbsh])"
"""After "Friday next": not "Friday next week"."""
_NAME = r"(?:[wcv]p?[,.]{0,2}I?a?)?"
_PATTERNS = {
    "amount_since": rf"SH?{_AMOUNT}A?",
    "window": r"(?:[If]a?|a)P~?(?:nu|l)|[If]aPu",
    "window_ahead": r"(?:I?a?)F~?(?:nu|l)",
    "ago": rf"V{_AMOUNT}|H{_AMOUNT}[Aq]?|{_AMOUNT}A",
    "ahead": rf"J{_AMOUNT}|I?{_AMOUNT}'?G|I{_AMOUNT}(?!A)",
    "amount_for": rf"f{_AMOUNT}|{_AMOUNT}g",
    "days_ago": r"n[Wwe]A",
    "figures": rf"{_NAME}z",
    "days": rf"{_DAY}[-tU&]a?{_DAY}d?a?{_MONTH}{_OF_YEAR}|{_MONTH}{_DAY}[-t]{_DAY}{_OF_YEAR}",
    "nth_week": rf"a?[oP][ue]dI?a?{_MONTH}{_OF_YEAR}",
    "month_day": rf"{_NAME}u?{_DAY}d?a?{_MONTH}{_OF_YEAR}|{_NAME}{_MONTH}a?(?:o|n(?!u)){_OF_YEAR}",
    "month": rf"[PFT][mb]|a?[mb][PF]{_LONE}|{_MONTH}[,d]{{0,2}}a?y|m|(?<=[ISUEdrBt&f-])b",
    "season": rf"[PFT]s|s[PF]{_LONE}|sI?[,d]{{0,2}}a?y|s",
    "feast": rf"[PFT]h|h[PF]{_LONE}|h[,d]{{0,2}}a?y|h",
    "unit": rf"[PFT][ue]|[ue][PF<>]{_LONE}|[<>][ue]|(?<=I)a?e",
    "weekday": rf"T?[PFT][wv]p?|[PF]c\.?p?|[wv]p?[PF<>]{_LONE}|[<>]w|wp?|(?<=I)v(?=[.,!p]|$)p?",
    "numbered": r"a?un(?!u)|a?ud?y|(?<=I)a?o(?=[.,!]|$)",
    "decade": r"k",
    "deictic": r"Dp?",
    "years": r"Y",
    "year": r"(?<=[ISUEdrBt&f(-])a?y(?!u)|(?<=[ISUEdrBt&f(-]a)y(?!u)|y(?=[tU-]a?y)"
    r"|(?:^|(?<=[.!]))y(?=x)|(?<=ya)y",
}
_GRAMMAR = re.compile("|".join(f"(?P<{name}>{rule})" for name, rule in _PATTERNS.items()))


class Reader:
    """Turns letters into days, for one text, one language, and the day on which it was said."""

    def __init__(
        self,
        tokens: Sequence[Token],
        tenses: Tenses,
        said: date | None,
        language: str,
        likely: bool,
    ) -> None:
        self.tokens = tokens
        self.language = language
        self.likely = likely
        self.codes = "".join(token.code for token in tokens)
        self.said = said or date(1, 1, 1)
        self.known = said is not None
        self.today = self.said.toordinal()
        self.tenses = tenses
        # Who writes so may have summer in January.
        self.south = language in ("pt", "es")

    def periods(self) -> Iterator[Period]:
        """Yield what the grammar finds, in order; what no calendar has is left out."""
        for match in _GRAMMAR.finditer(self.codes):
            first, last = match.span()
            name = str(match.lastgroup)
            rule = _RULES[name]
            if not self.known and name in _RELATIVE:
                continue
            try:
                period = rule(self, first, last)
            except (ValueError, OverflowError):
                continue
            if period is not None and period.pool:
                yield period

    def value(self, first: int, last: int, codes: str) -> Any:
        """Return the value of the first token with one of these letters; None without."""
        for token in self.tokens[first:last]:
            if token.code in codes:
                return token.value
        return None

    def tense(self, at: int) -> int:
        """Return the tense around a token."""
        return self.tenses.at(self.tokens[at].start)

    def years(self) -> range:
        """Return the years that a date without one may be in."""
        year = self.said.year
        return range(max(2, year - 2), min(MAXYEAR - 2, year + 3)) if self.known else range(0)

    def again(self, spans: Sequence[Span], tense: int, strict: bool = False) -> Span | None:
        """Choose among days that come again: the last or the next by tense, both if unknown."""
        past = [span for span in spans if span[0] + strict <= self.today]
        ahead = [span for span in spans if span[1] - strict >= self.today]
        chosen = [*(past[-1:] if tense <= 0 else []), *(ahead[:1] if tense >= 0 else [])]
        return hull(*chosen) if chosen else None

    def moved(self, spans: Sequence[Span], way: str, strength: int, within: int) -> list[Span]:
        """Choose "last X", "next X", "this X"; ``within`` is 7 for days of a week, else 365.

        The last is the latest that is over, or the one of last week (last year), where these
        differ: both.
        """
        unit = week_of if within == 7 else _year_around
        if way == "T":
            here = _those(spans, unit(self.today))
            tense_free = [span for span in spans if span[1] >= self.today][:1]
            return [hull(*here, *(tense_free if here and here[-1][1] < self.today else []))]
        if way == "P":
            chosen = [span for span in spans if span[1] < self.today][-1:]
            other = _those(spans, unit(unit(self.today)[0] - 1))
        else:
            chosen = [span for span in spans if span[0] > self.today][:1]
            other = _those(spans, unit(unit(self.today)[1] + 1))
        if strength not in (1, 2):
            chosen += other
        return [hull(*chosen)] if chosen else []


def _those(spans: Sequence[Span], within: Span) -> list[Span]:
    return [span for span in spans if within[0] <= span[0] <= within[1]]


def _year_around(day: int) -> Span:
    return year_of(date.fromordinal(day).year)


_Rule = Callable[[Reader, int, int], "Period | None"]
_RULES: dict[str, _Rule] = {}
_RELATIVE = set(
    """amount_since window window_ahead ago ahead amount_for days_ago unit weekday
                deictic""".split()
)


def _rule(rule: _Rule) -> _Rule:
    _RULES[rule.__name__.removeprefix("_read_")] = rule
    return rule


def _amount(reader: Reader, first: int, last: int) -> tuple[float, float, str]:
    """Return least, most and unit of "about two and a half years". Raises ValueError for none."""
    whole = reader.value(first, last, "l")
    if whole is not None:
        return float(whole[0]), float(whole[1]), str(whole[2])
    many = reader.value(first, last, "n")
    low, high = many if isinstance(many, list) else (many, many) if many is not None else (1, 1)
    unit = reader.value(first, last, "u")
    if not high or unit is None:
        raise ValueError("no amount")
    if "+" in reader.codes[first:last]:
        high += 1
    about = reader.value(first, last, "~")
    if about == 1:
        high *= 1.5
    elif about is not None:
        low, high = low * (0.85 if about == 0 else 0.5), high * (1.15 if about == 0 else 1)
    return float(low), float(high), str(unit)


def _back(reader: Reader, first: int, last: int) -> Span:
    low, high, unit = _amount(reader, first, last)
    return hull(moved(reader.said, -low, unit), moved(reader.said, -high, unit))


@_rule
def _read_amount_since(reader: Reader, first: int, last: int) -> Period:
    return Period(first, last, [_back(reader, first, last)], kind="since")


@_rule
def _read_window(reader: Reader, first: int, last: int) -> Period:
    begun = _back(reader, first, last)
    if reader.codes[first] == "f":
        return Period(first, last, [begun], kind="since")
    return Period(first, last, [(begun[0], reader.today)])


@_rule
def _read_window_ahead(reader: Reader, first: int, last: int) -> Period:
    _, high, unit = _amount(reader, first, last)
    return Period(first, last, [(reader.today, moved(reader.said, high, unit)[1])])


@_rule
def _read_ago(reader: Reader, first: int, last: int) -> Period:
    pool = [_back(reader, first, last)]
    if reader.codes[first] != "H" or reader.codes[last - 1] == "A" or reader.tense(first) < 0:
        return Period(first, last, pool)
    # "há dois anos", "hace dos años": for two years, with a verb of the present; else both.
    lasting = reader.tenses.lasting(reader.tokens[first].start)
    sure = lasting or reader.codes[last - 1] == "q"
    return Period(first, last, pool, kind="since" if sure else "ago")


@_rule
def _read_ahead(reader: Reader, first: int, last: int) -> Period | None:
    low, high, unit = _amount(reader, first, last)
    if reader.codes[first] == "I" and reader.codes[last - 1] != "G":
        tense = reader.tense(first)
        if unit == "h" or tense < 0 or (tense == 0 and "i" in reader.codes[first:last]):
            return None  # it took so long
    ends = hull(moved(reader.said, low, unit), moved(reader.said, high, unit))
    return Period(first, last, [ends])


@_rule
def _read_amount_for(reader: Reader, first: int, last: int) -> Period | None:
    if reader.value(first, last, "u") == "h":
        return None
    back = _back(reader, first, last)
    if reader.tenses.lasting(reader.tokens[first].start):
        return Period(first, last, [back], kind="since")
    return None if reader.tense(first) > 0 else Period(first, last, [back], kind="for")


@_rule
def _read_days_ago(reader: Reader, first: int, last: int) -> Period | None:
    many = reader.value(first, last, "n")
    low, high = many if isinstance(many, list) else (many, many)
    if not 0 < high < 1000:
        return None
    weekday, size = (reader.value(first, last, "wW"), 1)
    if weekday is None:
        weekday, size = 5, 2
    newest = reader.today - ((weekday_of(reader.today) - weekday) % 7 or 7)
    return Period(first, last, [(newest - 7 * (high - 1), newest - 7 * (low - 1) + size - 1)])


@_rule
def _read_figures(reader: Reader, first: int, last: int) -> Period:
    return Period(first, last, reader.value(first, last, "z"))


def _days_of_months(reader: Reader, first: int, last: int, low: int, high: int) -> list[Span]:
    month, year = reader.value(first, last, "mbj"), reader.value(first, last, "y")
    spans = []
    for one in reader.years() if year is None else (year,):
        begin, end = day_of(one, month, low), day_of(one, month, high)
        if begin is not None and end is not None and begin <= end:
            spans.append((begin, end))
    weekday = reader.value(first, last, "wcv")
    named = [span for span in spans if weekday_of(span[0]) == weekday]
    return named if named and year is None else spans


@_rule
def _read_days(reader: Reader, first: int, last: int) -> Period:
    numbers = [token.value for token in reader.tokens[first:last] if token.code in "no"]
    spans = _days_of_months(reader, first, last, numbers[0], numbers[1])
    return Period(first, last, spans, "y" in reader.codes[first:last], "span")


@_rule
def _read_month_day(reader: Reader, first: int, last: int) -> Period:
    number = reader.value(first, last, "no")
    low, high = number if isinstance(number, list) else (number, number)
    spans = _days_of_months(reader, first, last, low, high)
    kind = "at" if low == high else "span"
    return Period(first, last, spans, "y" in reader.codes[first:last] or len(spans) == 1, kind)


@_rule
def _read_nth_week(reader: Reader, first: int, last: int) -> Period:
    month, year = reader.value(first, last, "mbj"), reader.value(first, last, "y")
    spans = []
    for one in reader.years() if year is None else (year,):
        begin, end = month_of(one, month)
        nth = reader.value(first, last, "o")
        low = begin + 7 * (nth - 1) - 3 if nth else end - 9
        spans.append((max(begin, low), min(end, low + 12)))
    return Period(first, last, spans, year is not None)


@_rule
def _read_month(reader: Reader, first: int, last: int) -> Period:
    month, year = reader.value(first, last, "mbj"), reader.value(first, last, "y")
    if year is not None:
        return Period(first, last, [month_of(year, month)])
    spans = [month_of(one, month) for one in reader.years()]
    return _named(reader, first, last, spans)


def _named(reader: Reader, first: int, last: int, spans: list[Span]) -> Period:
    """Return what comes once a year, by "last", "next", "this"; else what the tense will say."""
    for way in "PFT":
        if way in reader.codes[first:last] and spans:
            strength = reader.value(first, last, way)
            return Period(first, last, reader.moved(spans, way, strength, 365))
    return Period(first, last, spans, False)


@_rule
def _read_season(reader: Reader, first: int, last: int) -> Period | None:
    season, year = reader.value(first, last, "s"), reader.value(first, last, "y")
    codes = reader.codes[first:last]
    if codes == "s" and not re.search(
        "[IS]a?$|E[da-]?a?$", reader.codes[max(0, first - 3) : first]
    ):
        return None
    chosen: list[Span] = []
    for half in (season, (season + 2) % 4) if reader.south else (season,):
        years = reader.years() if year is None else range(max(2, year - 1), year + 1)
        spans = [season_of(one, half) for one in years]
        if year is not None:
            chosen += [span for span in spans if span[1] >= year_of(year)[0]]
            continue
        period = _named(reader, first, last, spans)
        one = period.pool[0] if period.fixed else reader.again(period.pool, reader.tense(first))
        chosen += [one] if one else []
    return Period(first, last, [hull(*chosen)]) if chosen else None


@_rule
def _read_feast(reader: Reader, first: int, last: int) -> Period | None:
    name, year = reader.value(first, last, "h"), reader.value(first, last, "y")
    if reader.codes[first:last] == "h" and not re.search(
        "[ISUfdEBt&~]a?$", reader.codes[max(0, first - 2) : first]
    ):
        return None
    feast = FEASTS[name]
    if year is not None:
        years = (year - 1, year) if name == "new year" else (year,)
        return Period(first, last, [hull(*(feast(one) for one in years))])
    return _named(reader, first, last, [feast(one) for one in reader.years()])


@_rule
def _read_unit(reader: Reader, first: int, last: int) -> Period | None:
    unit = reader.value(first, last, "u")
    codes = reader.codes[first:last]
    steps = {"P": -1, "F": 1, "T": 0, "<": -2, ">": 2}
    way = next((code for code in codes if code in steps), "")
    if "e" in codes:
        return _weekend(reader, first, last, steps.get(way))
    if unit not in ("w", "m", "y", "D") or not way:
        return None
    span = _calendar(reader, unit, steps[way])
    strength = reader.value(first, last, "PF")
    rolling = (reader.today - round(UNIT_DAYS[unit]), reader.today)
    if way == "P" and strength in (1, 2):
        span = rolling
    elif way == "P" and strength == 3:
        span = hull(span, rolling)
    return Period(first, last, [span])


def _calendar(reader: Reader, unit: str, steps: int) -> Span:
    year = reader.said.year
    if unit == "y":
        return year_of(year + steps)
    if unit == "m":
        return month_of(year, reader.said.month + steps)
    if unit == "D":
        return hull(year_of((year // 10 + steps) * 10), year_of((year // 10 + steps) * 10 + 9))
    week = week_of(reader.today + 7 * steps)
    # On a Sunday some are in the week that ends, and some in the one that begins.
    return week if weekday_of(reader.today) != 6 else (week[0], week[1] + 6)


def _weekend(reader: Reader, first: int, last: int, steps: int | None) -> Period:
    saturday = week_of(reader.today)[0] + 5
    if steps is None or (steps == 0 and weekday_of(reader.today) < 2):
        around = [(saturday + 7 * week, saturday + 7 * week + 1) for week in range(-5, 6)]
        return Period(first, last, around, False)
    span = (saturday + 7 * steps, saturday + 7 * steps + 1)
    if steps == 1 and weekday_of(reader.today) < 5:
        span = hull(span, (saturday, saturday + 1))
    return Period(first, last, [span])


@_rule
def _read_weekday(reader: Reader, first: int, last: int) -> Period:
    weekday = reader.value(first, last, "wvc")
    begin = week_of(reader.today)[0] + weekday
    days = [(day, day) for day in range(begin - 42, begin + 49, 7) if day > 0]
    codes = reader.codes[first:last]
    for way in "PFT":
        if way in codes:
            strength = 1 if codes.startswith("TP") else reader.value(first, last, way)
            return Period(first, last, reader.moved(days, way, strength, 7))
    if "<" in codes or ">" in codes:
        way, step = ("P", -7) if "<" in codes else ("F", 7)
        nearest = reader.moved(days, way, 0, 7)[0]
        return Period(first, last, [(nearest[0] + step, nearest[1] + step)])
    return Period(first, last, days, False, "day")


@_rule
def _read_numbered(reader: Reader, first: int, last: int) -> Period | None:
    """Read "dia 15", "anos 90", "im Jahr 2019", "on the 15th"."""
    unit, number = reader.value(first, last, "u"), reader.value(first, last, "noy")
    if isinstance(number, list):
        return None
    if unit == "y" and number >= 1000:
        return Period(first, last, [year_of(number)])
    if unit == "y" and reader.language in ("pt", "es") and 20 <= number <= 90 and number % 10 == 0:
        return _decade(first, last, number + (1900 if number > 20 else 2000))
    if unit in ("d", None) and 1 <= number <= 31 and reader.known:
        months = [month_of(reader.said.year, reader.said.month + step) for step in range(-3, 4)]
        days = [(a + number - 1,) * 2 for a, b in months if a + number - 1 <= b]
        return Period(first, last, days, False)
    return None


def _decade(first: int, last: int, begin: int) -> Period:
    return Period(first, last, [(year_of(begin)[0], year_of(begin + 9)[1])])


@_rule
def _read_decade(reader: Reader, first: int, last: int) -> Period | None:
    before = reader.codes[max(0, first - 2) : first]
    if not re.search("[aIEd'SU-]$", before):
        return None  # "she is in her thirties", "80s"
    return _decade(first, last, reader.tokens[first].value)


@_rule
def _read_deictic(reader: Reader, first: int, last: int) -> Period:
    offset = reader.tokens[first].value
    low, high = offset if isinstance(offset, list) else (offset, offset)
    return Period(first, last, [(reader.today + low, reader.today + high)])


@_rule
def _read_years(reader: Reader, first: int, last: int) -> Period:
    begin, end = reader.tokens[first].value
    return Period(first, last, [(year_of(begin)[0], year_of(end)[1])], kind="years")


@_rule
def _read_year(reader: Reader, first: int, last: int) -> Period | None:
    year = reader.value(first, last, "y")
    before = reader.codes[max(0, first - 2) : first]
    opens = before[-1:] in ("", ".", "!")
    old = year < 1900 and reader.said.year > 1950
    if not reader.likely or (
        opens and reader.language != "de" and reader.codes[last : last + 1] == "x"
    ):
        return None
    if old and not re.match(r"[.,!tU&-]|$", reader.codes[last : last + 1]):
        return None  # "in 1500 words"
    weak = not opens and (before == "ya" or (before[-1] not in "ISUEdrBf(a" and before != "E-"))
    return Period(
        first,
        last,
        [year_of(year)],
        kind="weak" if weak or (opens and reader.language != "de") else "at",
    )
