"""Belief history: every change of a fact or of a line of the profile, append-only.

Promises: ``before`` and ``after`` are the whole row, so that the state of a table at any time is
the last ``after`` of each uid; nothing is ever changed in it, and only forgetting (``erase``) takes
something out.
Refuses to know: what a row means, why it changed.

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from knowme.db import rows

Row = Mapping[str, Any]
"""A row of ``facts`` or ``lines`` as column -> value, without its number in the table."""


class Event(NamedTuple):
    """One change. ``before`` None: there was none; ``after`` None: there is none."""

    id: int
    at_ms: int
    target: str
    uid: str
    action: str
    actor: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    decision_id: int | None


class Note(NamedTuple):
    """A change to be written: what ``note`` takes, as one value for ``note_all``."""

    uid: str
    action: str
    actor: str
    before: Row | None
    after: Row | None
    decision_id: int | None = None


_COLUMNS = "id, at_ms, target, uid, action, actor, before, after, decision_id"


def note(
    conn: apsw.Connection,
    target: str,
    uid: str,
    action: str,
    actor: str,
    before: Row | None,
    after: Row | None,
    at_ms: int,
    decision_id: int | None = None,
) -> int:
    """Write one change down; returns its number.

    ``target`` is "fact" or "line"; ``actor`` is rules, model:NAME, person, forget, or archive (a
    message came or went).
    """
    note_all(conn, target, [Note(uid, action, actor, before, after, decision_id)], at_ms)
    return conn.last_insert_rowid()


def note_all(conn: apsw.Connection, target: str, notes: Sequence[Note], at_ms: int) -> None:
    """Write many changes down, in their order."""
    conn.executemany(
        "INSERT INTO events(at_ms, target, uid, action, actor, before, after, decision_id)"
        " VALUES(?,?,?,?,?,?,?,?)",
        [
            (
                at_ms,
                target,
                n.uid,
                n.action,
                n.actor,
                _json(n.before),
                _json(n.after),
                n.decision_id,
            )
            for n in notes
        ],
    )


def _json(row: Row | None) -> str | None:
    return None if row is None else json.dumps(dict(row), ensure_ascii=False, sort_keys=True)


def _row(text: str | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None if text is None else json.loads(text)
    return found


def _event(row: Sequence[Any]) -> Event:
    number, at_ms, target, uid, action, actor, before, after, decision = row
    return Event(number, at_ms, target, uid, action, actor, _row(before), _row(after), decision)


def history(conn: apsw.Connection, target: str, uid: str) -> list[Event]:
    """Return every change of one fact or line, oldest first."""
    found = rows(
        conn,
        f"SELECT {_COLUMNS} FROM events WHERE target = ? AND uid = ? ORDER BY id",
        (target, uid),
    )
    return [_event(row) for row in found]


def since(conn: apsw.Connection, target: str, at_ms: int, limit: int = 1000) -> list[Event]:
    """Return the changes at or after a time, newest first."""
    found = rows(
        conn,
        f"SELECT {_COLUMNS} FROM events WHERE target = ? AND at_ms >= ? ORDER BY id DESC LIMIT ?",
        (target, at_ms, limit),
    )
    return [_event(row) for row in found]


def as_of(conn: apsw.Connection, target: str, at_ms: int) -> list[dict[str, Any]]:
    """Return the rows as they stood at a time (changes of that very millisecond included), by uid.

    Where the clock was set back, the change written last counts.
    """
    found = rows(
        conn,
        "SELECT after FROM events WHERE id IN (SELECT max(id) FROM events WHERE target = ?"
        " AND at_ms <= ? GROUP BY uid) AND after IS NOT NULL ORDER BY uid",
        (target, at_ms),
    )
    return [json.loads(row[0]) for row in found]


def replay(conn: apsw.Connection, target: str) -> dict[str, dict[str, Any]]:
    """Return the rows that the changes, played from the first to the last, lead to: uid -> row."""
    state: dict[str, dict[str, Any]] = {}
    for uid, after in conn.execute(
        "SELECT uid, after FROM events WHERE target = ? ORDER BY id", (target,)
    ):
        if after is None:
            state.pop(uid, None)
        else:
            state[uid] = json.loads(after)
    return state


def last(conn: apsw.Connection, target: str, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the row that the newest change of each uid left; those that left none are missing."""
    found = rows(
        conn,
        "SELECT uid, after FROM events WHERE id IN (SELECT max(id) FROM events WHERE target = ?"
        " AND uid IN (SELECT value FROM json_each(?)) GROUP BY uid) AND after IS NOT NULL",
        (target, json.dumps(list(uids))),
    )
    return {uid: json.loads(after) for uid, after in found}


def erase(conn: apsw.Connection, target: str, uids: Iterable[str]) -> int:
    """Delete every change of these uids, for forgetting. Returns how many there were."""
    conn.execute(
        "DELETE FROM events WHERE target = ? AND uid IN (SELECT value FROM json_each(?))",
        (target, json.dumps(list(uids))),
    )
    return conn.changes()


def erase_messages(conn: apsw.Connection, message_ids: Iterable[int]) -> tuple[set[str], int]:
    """Take every row of a fact that rested on these messages out of the history.

    Also of facts that are gone since. Returns the uids concerned, and how many changes went. A
    change from or to a row that rests on another message (a later version of the same) keeps that
    side of it.
    """
    listed = json.dumps(list(message_ids))
    found: set[str] = set()
    for side in ("before", "after"):
        touches = (
            f"target = 'fact' AND json_extract({side}, '$.message_id')"
            " IN (SELECT value FROM json_each(?1))"
        )
        found |= {
            uid for (uid,) in rows(conn, f"SELECT uid FROM events WHERE {touches}", (listed,))
        }
        conn.execute(f"UPDATE events SET {side} = NULL WHERE {touches}", (listed,))
    conn.execute(
        "DELETE FROM events WHERE target = 'fact' AND before IS NULL AND after IS NULL"
        " AND uid IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(found)),),
    )
    return found, conn.changes()
