"""Taking messages out of every table, with all that was made of them.

Promises: what rests on an erased message goes with it: items, words, vectors, facts, lines of the
profile, summaries, answers; what rests on others too is made anew from those. Logs keep
their numbers and lose the words. Running a step again changes nothing.
Refuses to know: what is chosen and why, files, how one proves that words are gone.

Functions take ``conn`` and run in the caller's transaction, but for ``purge``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from knowme import facts, fingerprints, memory, profile
from knowme.db import rows, value
from knowme.forget.probes import Needles, in_rows

GONE = "[forgotten]"
"""What stands in a log in place of words that were erased."""
_IN = "IN (SELECT value FROM json_each(?1))"
_ENDED = ("done", "cancelled", "parked")


# --- messages and what was made of them ---------------------------------------------------------


def messages(
    conn: apsw.Connection, ids: Sequence[int], answers: Sequence[int], at_ms: int
) -> Counter[str]:
    """Erase messages (every row of ``ids``) and the receipts ``answers``; returns how much went."""
    listed = json.dumps(list(ids))
    counts: Counter[str] = Counter()
    counts.update(_derived(conn, list(ids), at_ms))
    _delete_receipts(conn, answers, counts)
    counts["summaries"] += _summaries(conn, listed)
    _delete(conn, counts, "because", f"message_id {_IN}", listed)
    held = rows(conn, f"SELECT DISTINCT conversation_id FROM messages WHERE id {_IN}", (listed,))
    _delete(conn, counts, "messages", f"id {_IN}", listed)
    for (conversation,) in held:
        if value(conn, "SELECT 1 FROM messages WHERE conversation_id = ?", (conversation,)) is None:
            conversation_row(conn, conversation, counts)
    return counts


def _derived(conn: apsw.Connection, ids: list[int], at_ms: int) -> Counter[str]:
    """Erase facts, lines, fingerprints and items, each by the module that keeps them."""
    listed = json.dumps(ids)
    counts: Counter[str] = Counter()
    theirs = f"i.message_id {_IN} OR i.id IN (SELECT item_id FROM because WHERE message_id {_IN})"
    for name, sql in (  # before the facts go, which take their keys with them
        ("items", f"SELECT count(*) FROM items i WHERE {theirs}"),
        ("vectors", f"SELECT count(*) FROM vectors v JOIN items i ON i.id = v.item_id"
                    f" WHERE {theirs}"),
    ):  # fmt: skip
        counts[name] += int(value(conn, sql, (listed,)))
    erased = facts.erase(conn, ids, at_ms)
    counts.update(facts=erased.facts, events=erased.events, decisions=erased.decisions)
    counts["lines"] += len(profile.erase(conn, ids, erased.uids, at_ms))
    texts = [
        text
        for (text,) in rows(conn, f"SELECT plain(text) FROM messages WHERE id {_IN}", (listed,))
    ]
    counts["fingerprints"] += fingerprints.drop(conn, ids) + fingerprints.drop_prompts(conn, texts)
    memory.drop_derived(conn, ids)
    memory.drop_items(conn, ids)
    return counts


def _json(numbers: Iterable[int]) -> str:
    return json.dumps(sorted(numbers))


def _many(conn: apsw.Connection, table: str) -> int:
    return int(value(conn, f'SELECT count(*) FROM "{table}"'))


def _delete(
    conn: apsw.Connection, counts: Counter[str], table: str, where: str, listed: str
) -> None:
    conn.execute(f'DELETE FROM "{table}" WHERE {where}', (listed,))
    counts[table] += conn.changes()


def _delete_receipts(conn: apsw.Connection, answers: Sequence[int], counts: Counter[str]) -> None:
    """Delete receipts, the choices that led to them and what left for them; sums stay."""
    listed = json.dumps(list(answers))
    counts["bodies"] += int(
        value(
            conn,
            f"SELECT count(*) FROM egress WHERE body IS NOT NULL AND answer_id {_IN}",
            (listed,),
        )
    )
    conn.execute(f"UPDATE egress SET body = NULL WHERE answer_id {_IN}", (listed,))
    conn.execute(f"UPDATE calls SET error = '', reason = '' WHERE answer_id {_IN}", (listed,))
    conn.execute(
        f"DELETE FROM jobs WHERE kind = 'shadow' AND json_extract(payload, '$.answer_id') {_IN}",
        (listed,),
    )
    _delete(conn, counts, "answers", f"id {_IN}", listed)


def conversation_row(
    conn: apsw.Connection, conversation: int, counts: Counter[str] | None = None
) -> None:
    """Delete a conversation that has no message any more, with all that hangs on it."""
    found = rows(conn, "SELECT id FROM items WHERE conversation_id = ?", (conversation,))
    _drop_items(conn, [item for (item,) in found])
    left = rows(conn, "SELECT id FROM answers WHERE conversation_id = ?", (conversation,))
    counts = Counter() if counts is None else counts
    _delete_receipts(conn, [number for (number,) in left], counts)
    conn.execute("DELETE FROM conversations WHERE id = ?", (conversation,))
    counts["conversations"] += 1


def untitled(conn: apsw.Connection, conversations: Sequence[int]) -> int:
    """Take the titles and notes of these conversations away; returns how many had one."""
    conn.execute(
        f"UPDATE conversations SET title = '', meta = '{{}}' WHERE id {_IN}"
        " AND (title <> '' OR meta <> '{}')",
        (json.dumps(list(conversations)),),
    )
    return conn.changes()


def _summaries(conn: apsw.Connection, listed: str) -> int:
    """Drop the summaries from these messages on: each builds on those before it.

    A client that keeps its conversation itself is known by the hash of all that was said.
    """
    many = 0
    for conversation, first, recorded in rows(
        conn,
        "SELECT conversation_id, min(seq), min(recorded_ms) FROM messages"
        f" WHERE id {_IN} GROUP BY conversation_id",
        (listed,),
    ):
        many += _drop_summaries(conn, conversation, first)
        conn.execute(
            "DELETE FROM threads WHERE conversation_id = ? AND at_ms >= ?", (conversation, recorded)
        )
    return many


def _drop_summaries(conn: apsw.Connection, conversation: int, from_seq: int) -> int:
    """Drop the summaries of a conversation that reach to this place; they are made again."""
    conn.execute(
        "DELETE FROM summaries WHERE conversation_id = ? AND upto_seq >= ?",
        (conversation, from_seq),
    )
    many = conn.changes()
    conn.execute(
        "UPDATE sessions SET summary = '', summary_because = '[]' WHERE conversation_id = ?"
        " AND anchor_seq >= ? AND summary <> ''",
        (conversation, from_seq),
    )
    many += conn.changes()
    found = rows(
        conn,
        "SELECT id FROM items WHERE kind = 'summary' AND conversation_id = ? AND seq >= ?",
        (conversation, from_seq),
    )
    _drop_items(conn, [item for (item,) in found])
    return many


def _drop_items(conn: apsw.Connection, items: Iterable[int]) -> None:
    """Delete items that are nobody's neighbours, with their words and vectors."""
    for item in items:
        for table in ("item_fts", "item_tri"):
            conn.execute(f"DELETE FROM {table} WHERE rowid = ?", (item,))
        conn.execute("DELETE FROM items WHERE id = ?", (item,))
        conn.execute("INSERT INTO changes(item_id) VALUES(?)", (item,))


# --- logs ---------------------------------------------------------------------------------------


def scrub(conn: apsw.Connection, found: Needles) -> Counter[str]:
    """Take erased words out of what merely tells of them; returns how many rows lost some.

    Pieces that stand in beliefs which are left must be out of ``found`` (``standing``).
    """
    counts: Counter[str] = Counter()
    _clean_json(conn, found, counts, "answers", "id", ("usage", "receipt"))
    for number, _ in list(in_rows(found, conn.execute("SELECT id, body FROM egress"))):
        conn.execute("UPDATE egress SET body = NULL WHERE id = ?", (number,))
        counts["bodies"] += 1
    listed = conn.execute("SELECT id, reason, error FROM calls")
    for number, _ in list(in_rows(found, listed)):
        conn.execute("UPDATE calls SET reason = '', error = '' WHERE id = ?", (number,))
        counts["calls"] += 1
    _jobs(conn, found, counts)
    listed = conn.execute("SELECT json_array(source, unit), state FROM marks")
    for name, _ in list(in_rows(found, listed)):  # its unit is read again; tombstones stand guard
        conn.execute("DELETE FROM marks WHERE source = ? AND unit = ?", json.loads(name))
        counts["marks"] += 1
    _clean_json(conn, found, counts, "states", "name", ("value",))
    for table, columns in (("sessions", "summary"), ("summaries", "text, rolling")):
        listed = conn.execute(f"SELECT conversation_id, {columns} FROM {table}")
        for number, _ in list(in_rows(found, listed)):
            counts["summaries"] += _drop_summaries(conn, number, -1)
    _items(conn, found, counts)
    _beliefs(conn, found.only_phrases(), counts)
    return counts


def _clean_json(
    conn: apsw.Connection,
    found: Needles,
    counts: Counter[str],
    table: str,
    key: str,
    columns: Sequence[str],
) -> None:
    names = ", ".join(columns)
    for name, _ in list(in_rows(found, conn.execute(f"SELECT {key}, {names} FROM {table}"))):
        row = conn.execute(f"SELECT {names} FROM {table} WHERE {key} = ?", (name,)).fetchone()
        assert row is not None
        clean = [
            json.dumps(cleaned(json.loads(str(each)), found), ensure_ascii=False) for each in row
        ]
        sets = ", ".join(f"{column} = ?" for column in columns)
        conn.execute(f"UPDATE {table} SET {sets} WHERE {key} = ?", (*clean, name))
        counts[table if table != "answers" else "receipts"] += 1


def cleaned(told: Any, found: Needles) -> Any:
    """Return a JSON value in which GONE stands in place of every text that holds erased words."""
    if isinstance(told, dict):
        return {name: cleaned(each, found) for name, each in told.items()}
    if isinstance(told, list):
        return [cleaned(each, found) for each in told]
    if not isinstance(told, str):
        return told
    # As it stands in the row, too: the pieces of what JSON writes begin elsewhere.
    return GONE if found.stands(told, json.dumps(told, ensure_ascii=False)) else told


def _jobs(conn: apsw.Connection, found: Needles, counts: Counter[str]) -> None:
    for number, _ in list(
        in_rows(found, conn.execute("SELECT id, payload, progress, error FROM jobs"))
    ):
        ((state, payload, progress),) = rows(
            conn, "SELECT state, payload, progress FROM jobs WHERE id = ?", (number,)
        )
        if state in _ENDED:
            conn.execute("DELETE FROM jobs WHERE id = ?", (number,))
        else:
            told = [json.dumps(cleaned(json.loads(each), found)) for each in (payload, progress)]
            conn.execute(
                "UPDATE jobs SET payload = ?, progress = ?, error = '' WHERE id = ?",
                (*told, number),
            )
        counts["jobs"] += 1


def _items(conn: apsw.Connection, found: Needles, counts: Counter[str]) -> None:
    """Delete the items whose own words are not a span of a message: their vectors go, too."""
    listed = conn.execute("SELECT id, text FROM items WHERE text IS NOT NULL")
    holding = [number for number, _ in in_rows(found, listed)]
    _drop_items(conn, holding)
    counts["items"] += len(holding)


_TOLD = {"fact": ("facts", "value, sentence, quote, reason"), "line": ("lines", "text")}


def _beliefs(conn: apsw.Connection, found: Needles, counts: Counter[str]) -> None:
    """Delete facts and lines that hold an erased phrase, and what was ever said of them."""
    for target, (table, columns) in _TOLD.items():
        uids: set[str] = set()
        for sql in (
            f"SELECT uid, {columns} FROM {table}",
            f"SELECT uid, key, text FROM decisions WHERE target = '{target}'",
            f"SELECT uid, before, after FROM events WHERE target = '{target}'",
        ):
            uids |= {uid for uid, _ in in_rows(found, conn.execute(sql))}
        listed = json.dumps(sorted(uids))
        for name in ("decisions", "events"):
            _delete(conn, counts, name, f"target = '{target}' AND uid {_IN}", listed)
        _delete(conn, counts, table, f"uid {_IN}", listed)


def standing(conn: apsw.Connection, found: Needles) -> set[int]:
    """Return the pieces that stand in beliefs which are left: they rest on what is kept."""
    return {
        piece
        for sql in (
            "SELECT 0, text FROM items WHERE text IS NOT NULL AND kind = 'fact'",
            *(f"SELECT 0, {columns} FROM {table}" for table, columns in _TOLD.values()),
            "SELECT 0, key, text FROM decisions",
            "SELECT 0, before, after FROM events",
        )
        for _, pieces in in_rows(found, conn.execute(sql))
        for piece in pieces
    }


# --- what deleting leaves behind ----------------------------------------------------------------


def purge(conn: apsw.Connection) -> None:
    """Make the file hold nothing but its rows: words, statistics, free pages, the log.

    Outside a transaction. A word whose rows are deleted stays in an FTS5 index until its segments
    are merged; SQLite's samples of columns stay until the next ANALYZE; deleted rows stay in free
    pages and in the write-ahead log. Raises apsw.BusyError where a reader keeps the log open.
    """
    conn.execute("PRAGMA secure_delete=ON")
    for table in ("item_fts", "item_tri"):
        conn.execute(f"INSERT INTO {table}({table}) VALUES('optimize')")
    sampled = rows(conn, "SELECT name FROM sqlite_schema WHERE name GLOB 'sqlite_stat[0-9]'")
    for (name,) in sampled:
        conn.execute(f"DELETE FROM {name}")
    if sampled:
        conn.execute("PRAGMA analysis_limit=1000")
        conn.execute("ANALYZE")
    conn.execute("VACUUM")
    emptied(conn)


def emptied(conn: apsw.Connection) -> None:
    """Bring the write-ahead log into the file and cut it to nothing. Raises apsw.BusyError."""
    busy, _, _ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0]
    if busy:
        raise apsw.BusyError("a reader keeps the write-ahead log")
