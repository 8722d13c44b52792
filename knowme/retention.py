"""Giving up what is old, as the settings say: vectors, space, and in the end the words.

Promises: off unless set; what is compressed reads as before; what is forgotten is erased as by hand
(``forget.py``), with a receipt. It may be stopped at any point and goes on the next time.
Refuses to know: when it runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import apsw

from knowme import forget, memory
from knowme.db import packed, rows
from knowme.errors import ConfigError
from knowme.times import now_ms

if TYPE_CHECKING:
    from knowme.home import Home

Tell = Callable[[int, int, str], None]
BATCH = 1000
KINDS = ("message", "section")
LEAST_CHARS = 200
"""A shorter text is not made smaller by compressing it."""
DAY_MS = 86_400_000
_DAYS = {"d": 1, "w": 7, "m": 30.4375, "y": 365.25}
_AGE = re.compile(r"([1-9]\d{0,4})([dwmy])")


def run(home: Home, progress: Tell | None = None, at_ms: int | None = None) -> Mapping[str, int]:
    """Do what ``retention`` says; returns how much was forgotten, compressed, left without vector.

    Raises HomeError while another process has the home open and something is to be forgotten.
    """
    tell = progress or (lambda done, total, note: None)
    kept, now = home.settings.retention, now_ms() if at_ms is None else at_ms
    kinds = kept.kinds or KINDS
    forgotten = _forget(home, kept.forget_after, now, tell)
    bare = _bare(home, kept.vectors_days, kinds, now, tell)
    made = 0
    if kept.compress_days:
        made = _compress(home, now - kept.compress_days * DAY_MS, kinds, tell)
    return {"forgotten": forgotten, "without vectors": bare, "compressed": made}


def age_ms(text: str) -> int:
    """Return an age ("30d", "6w", "3m", "2y") in milliseconds. Raises ConfigError."""
    match = _AGE.fullmatch(text)
    if match is None:
        told = f"retention.forget_after holds {text!r}, which is no age."
        raise ConfigError(told, "Use 30d, 6w, 3m or 2y.")
    return int(int(match[1]) * _DAYS[match[2]] * DAY_MS)


def _forget(home: Home, after: Mapping[str, str], now: int, tell: Tell) -> int:
    """Erase what is older than its source's age; first what was cut the last time."""
    many = sum(each.counts.get("messages", 0) for each in forget.resume(home, tell))
    for source, age in after.items():
        what = forget.What("retention", source=source, before_ms=now - age_ms(age))
        found = forget.plan(home, what)
        if found.messages:
            many += forget.erase(home, found, tell).counts.get("messages", 0)
    return many


def _bare(home: Home, days: int, kinds: Iterable[str], now: int, tell: Tell) -> int:
    """Drop the vectors of what is older than so many days; nothing embeds it again meanwhile."""
    if not days:
        home.db.write(lambda conn: memory.leave_bare(conn, None, (), now))
        return 0
    before = now - days * DAY_MS
    home.db.write(lambda conn: memory.leave_bare(conn, before, kinds, now))
    done = 0
    while step := home.db.write(lambda conn: memory.drop_bare(conn, BATCH)):
        done += step
        tell(done, 0, "without vectors")
    return done


def _compress(home: Home, before: int, kinds: Iterable[str], tell: Tell) -> int:
    """Compress the texts said before then, in batches; those that it makes smaller."""
    roles = {"message": ("user", "assistant", "tool", "system"), "section": ("document",)}
    listed = json.dumps([role for kind in kinds for role in roles[kind]])
    last = done = 0
    while True:
        with home.db.read() as conn:
            found = rows(
                conn,
                "SELECT id, text FROM messages WHERE id > ? AND at_ms < ? AND typeof(text) = 'text'"
                " AND length(text) >= ? AND role IN (SELECT value FROM json_each(?))"
                " ORDER BY id LIMIT ?",
                (last, before, LEAST_CHARS, listed, BATCH),
            )
        if not found:
            return done
        last = found[-1][0]
        made = [(packed(text), number, text) for number, text in found]
        smaller = [one for one in made if len(one[0]) < len(one[2].encode())]
        home.db.write(lambda conn, smaller=smaller: _put(conn, smaller))  # type: ignore[misc]
        done += len(smaller)
        tell(done, 0, "compressed")


def _put(conn: apsw.Connection, made: Iterable[tuple[bytes, int, str]]) -> None:
    # The text too: somebody may have forgotten or changed the row since it was read.
    conn.executemany("UPDATE messages SET text = ? WHERE id = ? AND text = ?", made)
