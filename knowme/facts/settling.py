"""Rows of facts: read, resolved group by group, and written with the events of what changed.

Promises: whatever happens (learning, unlearning, a decision, forgetting), the state of a group is
what ``resolution.resolve`` says of all of its rows; each change is an event, and what is believed
leads searches to its message. Only the groups concerned are read.
Refuses to know: what is to be learned or decided (``facts.py`` does).

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import apsw

from knowme import beliefs, memory
from knowme.attributes import attribute, value_key
from knowme.beliefs import Note
from knowme.db import rows, value
from knowme.facts.resolution import Decision, Outcome, Place, fact_key, kin, resolve
from knowme.types import Fact, When

Row = dict[str, Any]
COLUMNS = (
    "uid", "subject", "attribute", "value", "sentence", "message_id", "start", "end", "quote",
    "said_ms", "from_first", "from_last", "to_first", "to_last", "read_by", "certain", "outright",
    "sensitive", "state", "reason", "other", "value_key", "claim", "pinned", "recorded_ms",
    "retired_ms",
)  # fmt: skip
_SELECT = "SELECT " + ", ".join(f"f.{name}" for name in COLUMNS) + " FROM facts f"
_UPSERT = (
    f"INSERT INTO facts({', '.join(COLUMNS)}) VALUES({', '.join('?' * len(COLUMNS))})"
    " ON CONFLICT(uid) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])
)


def read(conn: apsw.Connection, where: str, values: Sequence[Any] = ()) -> list[Row]:
    """Return the rows of ``facts f`` that a WHERE (or JOIN) chooses."""
    return [
        dict(zip(COLUMNS, row, strict=True)) for row in rows(conn, f"{_SELECT} {where}", values)
    ]


def fact_of(row: Mapping[str, Any]) -> Fact:
    """Return a row, or one of the history, as a Fact."""
    return Fact(
        row["uid"], row["subject"], row["attribute"], row["value"], row["sentence"],
        row["message_id"], row["start"], row["end"], row["quote"], row["said_ms"], _when(row),
        row["read_by"], bool(row["certain"]), bool(row["outright"]),
        tuple(filter(None, row["sensitive"].split(","))), row["state"], row["reason"],
        row["other"], bool(row["pinned"]), row["recorded_ms"], row["retired_ms"],
    )  # fmt: skip


def _when(row: Mapping[str, Any]) -> When:
    return When(row["from_first"], row["from_last"], row["to_first"], row["to_last"])


def as_read(row: Row) -> tuple[Fact, str]:
    """Return a row as it was read, before anything was believed of it, and who told it.

    Who told it is "" for the person, else the name of another speaker.
    """
    told = json.loads(row["claim"])
    fact = fact_of(row)
    if not told:
        return fact, ""
    gate = told["gate"]
    read = replace(
        fact, value=told["value"], sentence=told["sentence"], when=When(*told["when"]),
        state="quarantined" if gate else "believed", reason=gate, other="", pinned=False,
        retired_ms=None,
    )  # fmt: skip
    return read, told.get("told", "")


def _believing(row: Row, now: Outcome) -> Row:
    """Return the row with what is believed of it."""
    when = now.when
    return row | {
        "value": now.value, "sentence": now.sentence, "state": now.state, "reason": now.reason,
        "other": now.other, "from_first": when.from_first, "from_last": when.from_last,
        "to_first": when.to_first, "to_last": when.to_last, "pinned": int(now.pinned),
        "retired_ms": now.retired_ms,
    }  # fmt: skip


def places(conn: apsw.Connection, ids: Iterable[int]) -> dict[int, Place]:
    """Return where these messages stand in the archive."""
    found = rows(
        conn,
        "SELECT m.id, c.source, c.external_id, m.seq, m.external_id FROM messages m"
        " JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(set(ids))),),
    )
    return {row[0]: Place(*row[1:]) for row in found}


def of_messages(conn: apsw.Connection, message_ids: Iterable[int]) -> list[Row]:
    """Return the rows that rest on these messages."""
    listed = json.dumps(sorted(set(message_ids)))
    return read(conn, "WHERE f.message_id IN (SELECT value FROM json_each(?))", (listed,))


class Change(NamedTuple):
    """A row that changed, or that was decided on; None where there was, or is, none."""

    before: Row | None
    after: Row | None


def settle(
    conn: apsw.Connection,
    touched: Sequence[Row],
    at_ms: int,
    actor: str,
    *,
    fresh: Mapping[str, Row] | None = None,
    gone: set[str] | frozenset[str] = frozenset(),
    decision: tuple[str, str, int] | None = None,
    why: str = "",
) -> list[Change]:
    """Resolve the groups of the rows ``touched``, and write what changed, with its events.

    ``fresh`` rows come or are read anew, ``gone`` ones go; ``why`` is kept as the reason of what
    those were. ``decision``: the uid it was made on, its action and number. Nothing else writes the
    state of a fact.
    """
    fresh = fresh or {}
    decisions = decisions_on(conn, groups_of(touched))
    stored = {row["uid"]: row for row in group_rows(conn, touched, decisions)}
    stored |= {row["uid"]: row for row in named(conn, fresh.keys() - stored.keys())}
    known = beliefs.last(conn, "fact", fresh.keys() - stored.keys())
    now: dict[str, Row] = {uid: row for uid, row in stored.items() if uid not in gone}
    for uid, row in fresh.items():
        before = stored.get(uid) or known.get(uid)
        now[uid] = row if before is None else row | {"recorded_ms": before["recorded_ms"]}
    where = places(conn, (row["message_id"] for row in now.values()))
    claims = []
    for row in now.values():
        fact, teller = as_read(row)
        claims.append(fact)
        if teller:
            where[fact.message_id] = where[fact.message_id]._replace(told=teller)
    outcomes = resolve(claims, decisions, where)
    changes = []
    for uid in sorted(stored.keys() | now.keys()):
        after = _believing(now[uid], outcomes[uid]) if uid in now else None
        before = stored.get(uid)
        if before != after or (decision and decision[0] == uid):
            changes.append(Change(before, after))
    _write(conn, changes)
    told = [Change(old | {"reason": why}, new) if why and old and not new else Change(old, new)
            for old, new in changes]  # fmt: skip
    _note(conn, told, at_ms, actor, decision, known)
    return changes


def _write(conn: apsw.Connection, changes: Sequence[Change]) -> None:
    kept = [after for before, after in changes if after is not None and before != after]
    conn.executemany(_UPSERT, [tuple(row[name] for name in COLUMNS) for row in kept])
    lost = [before["uid"] for before, after in changes if before is not None and after is None]
    conn.executemany("DELETE FROM facts WHERE uid = ?", [(uid,) for uid in lost])
    keyed = [
        fact_of(after) for before, after in changes
        if after is not None and _as_key(before) != _as_key(after)
    ]  # fmt: skip
    if keyed:
        memory.put_fact_items(conn, keyed)
    if lost:
        memory.drop_fact_items(conn, lost)


def _as_key(row: Row | None) -> tuple[Any, ...] | None:
    """Return what of a row its item in memory depends on."""
    if row is None or row["state"] != "believed":
        return None
    return row["sentence"], row["message_id"], row["start"], row["end"]


def _note(
    conn: apsw.Connection, changes: Sequence[Change], at_ms: int, actor: str,
    decision: tuple[str, str, int] | None, known: Mapping[str, Row],
) -> None:  # fmt: skip
    """Write the events. A row that was lost beside its history, and is as it was, is no event."""
    notes = []
    for before, after in changes:
        row = after or before
        assert row is not None
        uid, action, by = row["uid"], "changed", actor
        if before is None:
            if known.get(uid) == after:
                continue
            before, action, by = known.get(uid), "learned", row["read_by"]
        elif after is None:
            action = "unlearned"
        if decision and decision[0] == uid:
            action = decision[1]
        notes.append(Note(uid, action, by, before, after, decision[2] if decision else None))
    beliefs.note_all(conn, "fact", notes, at_ms)


def group_rows(
    conn: apsw.Connection, touched: Sequence[Row], decisions: Sequence[Decision]
) -> list[Row]:
    """Return the rows of every group that these rows are in.

    All of the attribute where it has one value at a time, or where the person wrote another value
    (also where that is undone just now: it may have met others).
    """
    edited = {tuple(one.key.split("\0")[:2]) for one in decisions if one.action == "edit"}
    wide: set[tuple[str, str]] = set()
    narrow: set[tuple[str, str, str]] = set()
    for row in touched:
        names = kin(row["attribute"])
        written = value_key(row["attribute"], row["value"]) != row["value_key"]
        written = written or bool(edited & {(row["subject"], name) for name in names})
        if attribute(row["attribute"]).single or written:
            wide |= {(row["subject"], name) for name in names}
        else:
            narrow |= {(row["subject"], name, row["value_key"]) for name in names}
    found = []
    if wide:
        found += read(
            conn,
            "JOIN (SELECT DISTINCT value ->> 0 AS s, value ->> 1 AS a FROM json_each(?)) k"
            " ON f.subject = k.s AND f.attribute = k.a",
            (json.dumps(sorted(wide)),),
        )
    narrow = {each for each in narrow if each[:2] not in wide}
    if narrow:
        found += read(
            conn,
            "JOIN (SELECT value ->> 0 AS s, value ->> 1 AS a, value ->> 2 AS v FROM json_each(?)) k"
            " ON f.subject = k.s AND f.attribute = k.a AND f.value_key = k.v",
            (json.dumps(sorted(narrow)),),
        )
    return found


def named(conn: apsw.Connection, uids: Iterable[str]) -> list[Row]:
    """Return the rows of these uids."""
    listed = json.dumps(list(uids))
    return read(conn, "WHERE f.uid IN (SELECT value FROM json_each(?))", (listed,))


def of_key(conn: apsw.Connection, key: str) -> list[Row]:
    """Return the rows of the subject and attribute that a decision's key names."""
    return read(conn, "WHERE f.subject = ? AND f.attribute = ?", key.split("\0")[:2])


def decisions_on(conn: apsw.Connection, groups: Iterable[tuple[str, str]]) -> list[Decision]:
    """Return the person's decisions on these (subject, attribute), undone ones left out."""
    if value(conn, "SELECT 1 FROM decisions WHERE target = 'fact' LIMIT 1") is None:
        return []
    found: dict[int, Decision] = {}
    for subject, attribute_name in groups:
        for name in kin(attribute_name):
            for row in conn.execute(
                "SELECT id, at_ms, uid, action, key, text, undone_ms FROM decisions"
                " WHERE target = 'fact' AND key >= ? AND key < ? AND undone_ms IS NULL",
                (f"{subject}\0{name}\0", f"{subject}\0{name}\1"),
            ):
                found[row[0]] = Decision(*row)
    return list(found.values())


def key_of(row: Row) -> str:
    """Return the key that decisions on this row hold by."""
    return fact_key(as_read(row)[0])


def groups_of(found: Sequence[Row]) -> set[tuple[str, str]]:
    """Return the (subject, attribute) of rows."""
    return {(row["subject"], row["attribute"]) for row in found}
