"""The archive: every message that ever came in, verbatim, hashed, append-only.

Promises: a message is never changed; another text under the same name is a new version beside the
old one. What left its source is retired, and stays.
Refuses to know: how messages are searched, where they came from, what they mean.

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apsw

from knowme.types import Message, Record

Outcome = Literal["new", "changed", "moved", "unchanged"]
"""``moved``: the same words at another place of their conversation."""


@dataclass(frozen=True, slots=True)
class Current:
    """The current version of a message, as far as one must know it to tell what is new."""

    id: int
    hash: bytes
    text: str
    raw_chars: int
    meta: str
    seq: int


def message_hash(record: Record) -> bytes:
    """Return the sha256 (32 bytes) over what was said, by whom and when."""
    fields = [record.role, record.speaker, record.text, record.raw or "", record.at_ms]
    whole = json.dumps(fields, ensure_ascii=False)
    return hashlib.sha256(whole.encode("utf-8", "replace")).digest()


def put_conversation(conn: apsw.Connection, source: str, record: Record, now_ms: int) -> int:
    """Return the id of the record's conversation; create it, or note a title that came later."""
    row = conn.execute(
        "SELECT id, title FROM conversations WHERE source = ? AND external_id = ?",
        (source, record.conversation),
    ).fetchone()
    if row is not None:
        if record.title and row[1] != record.title:
            conn.execute("UPDATE conversations SET title = ? WHERE id = ?", (record.title, row[0]))
        return int(row[0])
    told = "document" if record.kind == "section" else "chat"
    kind = record.meta.get("_kind") or ("subagent" if record.meta.get("subagent") else told)
    conn.execute(
        "INSERT INTO conversations(source, external_id, kind, title, created_ms) VALUES(?,?,?,?,?)",
        (source, record.conversation, kind, record.title, now_ms),
    )
    return conn.last_insert_rowid()


def find_conversation(conn: apsw.Connection, source: str, external_id: str) -> int | None:
    """Return the id of a conversation, or None."""
    row = conn.execute(
        "SELECT id FROM conversations WHERE source = ? AND external_id = ?", (source, external_id)
    ).fetchone()
    return None if row is None else int(row[0])


def current(conn: apsw.Connection, conversation_id: int, external_id: str) -> Current | None:
    """Return the version of a message that counts now, or None."""
    row = conn.execute(
        "SELECT id, hash, text, coalesce(length(raw), 0), meta, seq FROM messages"
        " WHERE conversation_id = ? AND external_id = ? AND retired_ms IS NULL",
        (conversation_id, external_id),
    ).fetchone()
    return None if row is None else Current(*row)


def compare(
    conn: apsw.Connection, conversation_id: int, record: Record, now: Current | None
) -> Outcome:
    """Tell what storing ``record`` would be.

    The same message may stand in a live file, in a backup and in a migrated store, with other
    packaging. The same text with no more raw than we have is unchanged; a text that an earlier
    version already had is a stale copy. A caller who replaces by name (``_upsert``) means what it
    says: any difference is a change.
    """
    if now is None:
        return "new"
    if record.meta.get("_upsert"):
        same = now.hash == message_hash(record) and now.meta == _meta(record)
        return "unchanged" if same else "changed"
    if now.text == record.text and len(record.raw or "") <= now.raw_chars:
        return "unchanged"
    return "unchanged" if _was_version(conn, conversation_id, record) else "changed"


def _meta(record: Record) -> str:
    kept = {key: value for key, value in record.meta.items() if not key.startswith("_")}
    return json.dumps(kept, ensure_ascii=False)


def _was_version(conn: apsw.Connection, conversation_id: int, record: Record) -> bool:
    return (
        conn.execute(
            "SELECT 1 FROM messages WHERE conversation_id = ? AND external_id = ? AND text = ?"
            " AND coalesce(length(raw), 0) >= ? AND retired_ms IS NOT NULL LIMIT 1",
            (conversation_id, record.external_id, record.text, len(record.raw or "")),
        ).fetchone()
        is not None
    )


def put(
    conn: apsw.Connection, conversation_id: int, record: Record, now_ms: int
) -> tuple[int, Outcome, int | None]:
    """Store one message. Returns (its id, what happened, the id of the version it replaces).

    A negative ``seq`` means: behind the last one, or where the version before stood.
    """
    now = current(conn, conversation_id, record.external_id)
    outcome = compare(conn, conversation_id, record, now)
    seq = record.seq
    if seq < 0:
        seq = now.seq if now is not None else next_seq(conn, conversation_id)
    if outcome == "unchanged":
        assert now is not None
        if seq != now.seq:
            conn.execute("UPDATE messages SET seq = ? WHERE id = ?", (seq, now.id))
            return now.id, "moved", None
        return now.id, outcome, None
    if now is not None:
        conn.execute("UPDATE messages SET retired_ms = ? WHERE id = ?", (now_ms, now.id))
    conn.execute(
        "INSERT INTO messages(conversation_id, external_id, version, seq, role, speaker, text, raw,"
        " at_ms, hash, origin, meta, recall, recorded_ms) VALUES(?, ?, (SELECT"
        " coalesce(max(version), 0) + 1 FROM messages WHERE conversation_id = ?"
        " AND external_id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            conversation_id, record.external_id, conversation_id, record.external_id,
            seq, record.role, record.speaker, record.text, record.raw, record.at_ms,
            message_hash(record), record.origin, _meta(record),
            int(record.recall), now_ms,
        ),
    )  # fmt: skip
    return conn.last_insert_rowid(), outcome, None if now is None else now.id


def retire(conn: apsw.Connection, conversation_id: int, external_id: str, now_ms: int) -> list[int]:
    """Retire one message, or all of the conversation when ``external_id`` is empty.

    Returns the ids of the messages that were current until now.
    """
    rows = conn.execute(
        "SELECT id FROM messages WHERE conversation_id = ? AND retired_ms IS NULL"
        " AND (? = '' OR external_id = ?)",
        (conversation_id, external_id, external_id),
    )
    ids = [row[0] for row in rows]
    conn.executemany("UPDATE messages SET retired_ms = ? WHERE id = ?", [(now_ms, i) for i in ids])
    return ids


_COLUMNS = "id, conversation_id, external_id, seq, role, speaker, text, at_ms, origin, meta"


def _message(row: Sequence[Any]) -> Message:
    fields: list[Any] = [*row[:-1], json.loads(row[-1])]
    return Message(*fields)


def messages(conn: apsw.Connection, ids: Iterable[int]) -> dict[int, Message]:
    """Return the messages of these ids, by id. Unknown ids are left out."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM messages WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    return {row[0]: _message(row) for row in rows}


def last_messages(conn: apsw.Connection, conversation_id: int, limit: int) -> list[Message]:
    """Return the newest ``limit`` current messages of a conversation, oldest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM messages WHERE conversation_id = ? AND retired_ms IS NULL"
        " ORDER BY seq DESC, id DESC LIMIT ?",
        (conversation_id, limit),
    )
    return [_message(row) for row in rows][::-1]


def next_seq(conn: apsw.Connection, conversation_id: int) -> int:
    """Return the place after the last message of a conversation."""
    row = conn.execute(
        "SELECT coalesce(max(seq), -1) + 1 FROM messages WHERE conversation_id = ?",
        (conversation_id,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def read_marks(conn: apsw.Connection, source: str) -> dict[str, Any]:
    """Return the marks of one source: unit -> state."""
    rows = conn.execute("SELECT unit, state FROM marks WHERE source = ?", (source,))
    return {unit: json.loads(state) for unit, state in rows}


def put_marks(conn: apsw.Connection, source: str, marks: Mapping[str, Any], now_ms: int) -> None:
    """Store marks; a state of ``None`` forgets the unit."""
    for unit, state in marks.items():
        if state is None:
            conn.execute("DELETE FROM marks WHERE source = ? AND unit = ?", (source, unit))
        else:
            conn.execute(
                "INSERT INTO marks(source, unit, state, updated_ms) VALUES(?,?,?,?)"
                " ON CONFLICT(source, unit) DO UPDATE SET state = excluded.state,"
                " updated_ms = excluded.updated_ms",
                (source, unit, json.dumps(state), now_ms),
            )


def conversations(conn: apsw.Connection) -> Iterator[dict[str, Any]]:
    """Yield every conversation as a plain mapping."""
    for row in conn.execute(
        "SELECT id, source, external_id, kind, title, meta, created_ms FROM conversations"
        " ORDER BY id"
    ):
        keys = ("id", "source", "external_id", "kind", "title", "meta", "created_ms")
        yield dict(zip(keys, (*row[:5], json.loads(row[5]), row[6]), strict=True))
