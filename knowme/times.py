"""Times: parsing what callers send, and showing what we keep.

Promises: milliseconds since the epoch, UTC, inside; the person's own zone outside. A time without
a zone is taken as UTC.
Refuses to know: phrases such as "last Friday".
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from knowme.errors import ConfigError, InputError


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
            return int(when.timestamp() * 1000)
        return int(value if abs(value) >= 1e11 else value * 1000)
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
    if at_ms is None:
        return None
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def day(at_ms: int | None, tz: tzinfo | None) -> str:
    """Return the date as a person reads it, such as 2026-03-04; "undated" when unknown."""
    if at_ms is None:
        return "undated"
    try:
        return datetime.fromtimestamp(at_ms / 1000, tz).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return "undated"
