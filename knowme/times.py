"""Times: parsing what callers send, and showing what we keep.

Promises: milliseconds since the epoch, UTC, inside; the person's own zone outside. A time without
a zone is taken as UTC.
Refuses to know: phrases such as "last Friday".
"""

from __future__ import annotations

import re
import time
from calendar import monthrange
from datetime import UTC, date, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from knowme.errors import ConfigError, InputError
from knowme.types import When


def now_ms() -> int:
    """Return the time, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


EARLIEST_MS, LATEST_MS = -62_100_000_000_000, 253_300_000_000_000
"""The years 2 to 9996: what a calendar has in every time zone."""


def known_time(at_ms: int) -> bool:
    """Tell whether a calendar has this time."""
    return EARLIEST_MS <= at_ms <= LATEST_MS


def parse_time(value: Any, where: str) -> int | None:
    """Return milliseconds from ISO 8601, or from epoch seconds or milliseconds; None from empty.

    Raises InputError naming ``where``.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InputError(f"{where} is {value!r}, not a time.", "Use ISO 8601: 2026-01-31T18:00:00Z")
    try:
        if isinstance(value, str):
            when = datetime.fromisoformat(value)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            at_ms = int(when.timestamp() * 1000)
        else:
            at_ms = int(value if abs(value) >= 1e11 else value * 1000)
        if not known_time(at_ms):
            raise ValueError("no calendar has it")
        return at_ms
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{where} is {value!r}, not a time.", "Use ISO 8601: 2026-01-31T18:00:00Z"
        ) from error


def zone(name: str) -> tzinfo | None:
    """Return the zone of this name; None (this machine's own) for an empty one."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(
            f"memory.timezone is {name!r}, not a time zone.", "Use a name such as Europe/Lisbon."
        ) from error


def iso(at_ms: int | None) -> str | None:
    """Return ISO 8601 in UTC, to the second; None for an unknown time."""
    when = _at(at_ms, UTC)
    return None if when is None else when.isoformat(timespec="seconds")


def day(at_ms: int | None, tz: tzinfo | None) -> str:
    """Return the date as a person reads it, such as 2026-03-04; "undated" when unknown."""
    when = _at(at_ms, tz)
    return "undated" if when is None else f"{when:%Y-%m-%d}"


def minute(at_ms: int | None, tz: tzinfo | None) -> str:
    """Return date and time as a person reads them, such as 2026-03-04 18:05; "" when unknown."""
    when = _at(at_ms, tz)
    return "" if when is None else f"{when:%Y-%m-%d %H:%M}"


def _at(at_ms: int | None, tz: tzinfo | None) -> datetime | None:
    if at_ms is None or not known_time(at_ms):
        return None
    return datetime.fromtimestamp(at_ms / 1000, tz)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


def parse_duration(text: str) -> float:
    """Return seconds from 30s, 5m, 1h, 1h30m, or from a bare number of seconds.

    Raises ValueError: for people, ``config`` says it in words of its own.
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    elif re.fullmatch(rf"(?:{_PART.pattern})+", text):
        seconds = sum(float(many) * _UNITS[unit] for many, unit in _PART.findall(text))
    else:
        raise ValueError(f"{text!r} is not a length of time")
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"{text!r} is longer than a thousand years")
    return seconds


LONGEST_SECONDS = 3.2e10


def period(time: When) -> str:
    """Return when something was so, as a person reads it: "since March 2026", "on 2026-03-14"."""
    began = (time.from_first, time.from_last)
    ended = (time.to_first, time.to_last)
    if began == ended:
        at = _moment(*began)
        named = not at.startswith(("by ", "after ", "between "))
        return f"{'on' if began[0] == began[1] else 'in'} {at}" if at and named else at
    first, last = _moment(*began), _moment(*ended)
    if not last:
        if first.startswith("between "):
            return f"since some day {first}"
        return first if first.startswith(("by ", "after ")) else f"since {first}"
    if not first:
        return f"over {last}" if last.startswith("by ") else f"until {last}"
    plain = not any(each.startswith(("by ", "after ", "between ")) for each in (first, last))
    return f"{first} to {last}" if plain else f"{first}, until {last}"


def _moment(first: str, last: str) -> str:
    """Return an interval in which something began or ended, as sharp as it is known.

    A day, "March 2026", "2019", "between .. and ..", "by .." or "after .." where one side is open.
    """
    if first == last:
        return first
    if not first:
        return f"by {last}"
    if not last:
        return f"after {first}"
    if first.endswith("-01-01") and last.endswith("-12-31"):
        return first[:4] if first[:4] == last[:4] else f"{first[:4]} to {last[:4]}"
    start = date.fromisoformat(first)
    days = monthrange(start.year, start.month)[1]
    if first.endswith("-01") and last == f"{first[:8]}{days}":
        return f"{start:%B %Y}"
    return f"between {first} and {last}"
