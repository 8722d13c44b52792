"""The calendar: months, weeks, seasons, feasts as spans of days.

Promises: pure; what no calendar has raises ValueError or OverflowError.
Refuses to know: words.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import MAXYEAR, date

Span = tuple[int, int]
"""First and last day, both included, as ordinals (``date.toordinal``)."""

LAST_DAY = date(MAXYEAR, 12, 31).toordinal()


def day_of(year: int, month: int, day: int) -> int | None:
    """Return a day as an ordinal; None if there is none such."""
    try:
        return date(year, month, day).toordinal()
    except ValueError:
        return None


def month_of(year: int, month: int) -> Span:
    """Return the days of a month; 13 is January of the next year, 0 December of the last."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    year = min(max(year, 1), MAXYEAR - 1)
    after = date(year + month // 12, month % 12 + 1, 1).toordinal()
    return date(year, month, 1).toordinal(), after - 1


def year_of(year: int) -> Span:
    """Return the days of a year."""
    return month_of(year, 1)[0], month_of(year, 12)[1]


def week_of(day: int) -> Span:
    """Return the week of a day, from Monday to Sunday."""
    monday = day - (day - 1) % 7
    return monday, monday + 6


def weekday_of(day: int) -> int:
    """Return 0 for a Monday, 6 for a Sunday."""
    return (day - 1) % 7


def hull(*spans: Span) -> Span:
    """Return the shortest span that holds these."""
    return min(span[0] for span in spans), max(span[1] for span in spans)


UNIT_DAYS = {"h": 0.05, "d": 1.0, "w": 7.0, "m": 30.44, "y": 365.25, "D": 3652.5}


def moved(today: date, amount: float, unit: str) -> Span:
    """Return the days that "``amount`` units from today" may mean (negative: ago).

    What is counted in weeks, months or years is so as people round: half a unit either way, and
    the calendar's own week, month or year.
    """
    at = today.toordinal()
    if unit == "h":
        return (at - 1, at) if amount < 0 else (at, at + 1)
    middle = at + round(amount * UNIT_DAYS[unit])
    many = abs(amount)
    if not 366 * 2 < middle < LAST_DAY - 366 * 2:
        raise OverflowError("no calendar has it")
    if unit == "d":
        slack = 0 if many < 15 else int(many / 10)
        return middle - slack, middle + slack
    slack = {"w": 3, "m": 15, "y": 183, "D": 1826}[unit] * (1 if many < 7 else 2)
    around = (middle - slack, middle + slack)
    if unit == "w":
        return hull(around, week_of(middle))
    if unit == "m":
        return hull(around, month_of(today.year, today.month + round(amount)))
    years = amount * (10 if unit == "D" else 1)
    return hull(around, year_of(today.year + round(years)))


_SEASONS = ((3, 1, 6, 21), (6, 1, 9, 23), (9, 1, 12, 21), (12, 1, 3, 21))


def season_of(year: int, season: int) -> Span:
    """Return the season that begins in this year, as wide as people and calendars draw it."""
    month, day, end_month, end_day = _SEASONS[season]
    first = date(year, month, day).toordinal()
    return first, date(year + (end_month < month), end_month, end_day).toordinal()


def _easter(year: int) -> int:
    """Return Easter Sunday (Gregorian), by the anonymous rule of Nature, 1876 (Meeus 1991)."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    shift = (32 + 2 * e + 2 * i - h - k) % 7
    m = (a + 11 * h + 22 * shift) // 451
    month, day = divmod(h + shift - 7 * m + 114, 31)
    return date(year, month, day + 1).toordinal()


FEASTS: dict[str, Callable[[int], Span]] = {
    "christmas": lambda year: (month_of(year, 12)[0] + 23, month_of(year, 12)[0] + 25),
    "christmas eve": lambda year: (month_of(year, 12)[0] + 23,) * 2,
    "new year": lambda year: (month_of(year, 12)[1], month_of(year, 12)[1] + 1),
    "epiphany": lambda year: (month_of(year, 1)[0] + 4, month_of(year, 1)[0] + 5),
    "halloween": lambda year: (month_of(year, 10)[1],) * 2,
    "valentine": lambda year: (month_of(year, 2)[0] + 13,) * 2,
    # Canada's in October, that of the United States in November.
    "thanksgiving": lambda year: (month_of(year, 10)[0] + 7, month_of(year, 11)[0] + 29),
    "easter": lambda year: (_easter(year) - 2, _easter(year) + 1),
    "easter monday": lambda year: (_easter(year) + 1,) * 2,
    "good friday": lambda year: (_easter(year) - 2,) * 2,
    "holy week": lambda year: (_easter(year) - 7, _easter(year)),
    "pentecost": lambda year: (_easter(year) + 49, _easter(year) + 50),
    "carnival": lambda year: (_easter(year) - 52, _easter(year) - 46),
}
