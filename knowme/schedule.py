"""When recurring work runs next: "every 15m", "daily 03:30", or five cron fields.

Promises: pure arithmetic; the next run is always strictly later than the moment asked about; a
schedule that would never run is refused when it is read. Clock changes follow Vixie cron: work at
fixed hours runs once each day (at the first of two equal times; as much later as the clock skips
when its time is skipped), work whose hours are ``*`` or ``*/n`` follows the clock as shown.
Refuses to know: what runs, and that a database exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from knowme.errors import JobError

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_HINT = "Use: every 15m (s, m, h, d, w), daily HH:MM, or five cron fields such as 30 3 * * 1-5."
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    "month": "jan feb mar apr may jun jul aug sep oct nov dec".split(),
    "weekday": "sun mon tue wed thu fri sat".split(),
}
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LOOK_AHEAD_DAYS = 8 * 366 + 60  # from February 29 of 2096 to that of 2104


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many milliseconds, counted from when it was last due."""

    ms: int


@dataclass(frozen=True, slots=True)
class Cron:
    """Five cron fields, as sets. Weekday 0 is Sunday."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    follows_clock: bool  # the hour field is * or */n
    any_day: bool
    any_weekday: bool

    def on(self, day: date) -> bool:
        """Tell whether it runs on this day. Two restricted day fields mean either of them."""
        if day.month not in self.months:
            return False
        by_day = day.day in self.days
        by_weekday = day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday


def next_run(
    every: str, after_ms: int, *, due_ms: int | None = None, zone: tzinfo | None = None
) -> int:
    """Return the first moment strictly after ``after_ms`` at which ``every`` is due.

    ``due_ms`` is when it was last due: intervals keep its beat, however many they missed.
    ``zone`` is where daily and cron times are meant; None: this machine's own zone.
    Raises JobError for a schedule that cannot be read or would never run.
    """
    schedule = parse(every)
    if isinstance(schedule, Interval):
        start = after_ms if due_ms is None else due_ms
        if start > after_ms:  # asked before it was due: the one after that which is due
            return start
        return start + ((after_ms - start) // schedule.ms + 1) * schedule.ms
    return _next_cron(schedule, after_ms, zone)


@lru_cache(maxsize=64)
def parse(every: str) -> Interval | Cron:
    """Read a schedule. Raises JobError that names what is wrong and what is legal."""
    words = every.strip().lower().split()
    if len(words) == 2 and words[0] == "every":
        return _interval(every, words[1])
    if len(words) == 2 and words[0] == "daily":
        match = re.fullmatch(r"(\d{1,2}):(\d{2})", words[1])
        if not match or int(match[1]) > 23 or int(match[2]) > 59:
            raise JobError(f"The schedule {every!r} has no time of day.", _HINT)
        words = [match[2], match[1], "*", "*", "*"]
    if len(words) != 5:
        raise JobError(f"The schedule {every!r} cannot be read.", _HINT)
    return _cron(every, words)


def _interval(every: str, word: str) -> Interval:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", word)
    if not match or int(match[1]) == 0:
        raise JobError(f"The schedule {every!r} has no length of time.", _HINT)
    return Interval(int(match[1]) * _UNIT_MS[match[2]])


def _cron(every: str, words: list[str]) -> Cron:
    sets = [_field(every, word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = sets
    cron = Cron(
        minutes,
        hours,
        days,
        months,
        frozenset(day % 7 for day in weekdays),
        words[1].startswith("*"),
        words[2].startswith("*"),
        words[4].startswith("*"),
    )
    by_weekday = not cron.any_weekday and not cron.any_day
    if not by_weekday and all(min(days) > _MONTH_DAYS[month - 1] for month in months):
        raise JobError(f"The schedule {every!r} would never run.", _HINT)
    return cron


def _field(every: str, word: str, name: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(every, start, name, low, high)
            last = _number(every, end, name, low, high) if dash else (high if step else first)
        if first > last or ("/" in part and not (step.isdigit() and int(step) > 0)):
            raise JobError(f"The schedule {every!r} has a wrong {name}: {part!r}.", _HINT)
        found.update(range(first, last + 1, int(step or 1)))
    return frozenset(found)


def _number(every: str, text: str, name: str, low: int, high: int) -> int:
    names = _NAMES.get(name, [])
    if text in names:
        return names.index(text) + (1 if name == "month" else 0)
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise JobError(
            f"The schedule {every!r} has a wrong {name}: {text!r}; it goes from {low} to {high}.",
            _HINT,
        )
    return int(text)


def _next_cron(cron: Cron, after_ms: int, zone: tzinfo | None) -> int:
    # From the day before: a skipped time lands on the next day where a zone skips midnight. And
    # two days beyond the first find: there, the earliest moment may belong to a later day.
    first = _wall(after_ms, zone).date() - timedelta(days=1)
    best: int | None = None
    until = _LOOK_AHEAD_DAYS
    offset = 0
    while offset < until:
        day = first + timedelta(days=offset)
        if cron.on(day):
            found = [moment for moment in _moments(cron, day, zone) if moment > after_ms]
            if found:
                best = min(found) if best is None else min(best, *found)
                until = min(until, offset + 3)
        offset += 1
    if best is None:
        raise JobError("A schedule found no next run.", _HINT)
    return best


def _moments(cron: Cron, day: date, zone: tzinfo | None) -> Iterator[int]:
    for hour in sorted(cron.hours):
        for minute in sorted(cron.minutes):
            wall = datetime(day.year, day.month, day.day, hour, minute)
            moment = _moment(wall, zone)
            if not cron.follows_clock:
                yield moment
            elif _wall(moment, zone).replace(fold=0) == wall:  # else the clock skips it
                yield moment
                yield _moment(wall.replace(fold=1), zone)


def _moment(wall: datetime, zone: tzinfo | None) -> int:
    return round((wall if zone is None else wall.replace(tzinfo=zone)).timestamp()) * 1000


def _wall(ms: int, zone: tzinfo | None) -> datetime:
    utc = datetime.fromtimestamp(ms // 1000, UTC)
    return utc.astimezone(zone).replace(tzinfo=None)
