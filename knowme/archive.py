"""The archive: every message that ever came in, verbatim, hashed, append-only.

Promises: what was said is never changed; another text under the same name is a new version beside
the old one. What left its source is retired, and stays. Only a message's place in its conversation
and whether it is recalled follow the latest reading of its source.
Refuses to know: how messages are searched, where they came from, what they mean.

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import apsw

from knowme.times import known_time
from knowme.types import Message, Record

Outcome = Literal["new", "changed", "moved", "unchanged"]
"""``moved``: the same words, at another place of their conversation or in or out of recall."""

_TEXTS = ("conversation", "external_id", "speaker", "text", "raw", "origin", "title")


@dataclass(frozen=True, slots=True)
class Current:
    """The current version of a message, as far as one must know it to tell what is new."""

    id: int
    hash: bytes
    text: str
    raw_chars: int
    meta: str
    seq: int
    recall: bool
    speaker: str
    at_ms: int | None


def whole(text: str) -> str:
    """Return text that SQLite holds without loss: lone surrogates and NULs become U+FFFD.

    A NUL is legal in a SQLite text, but ``substr`` and ``length`` end at it.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd")


def storable(record: Record) -> Record:
    """Return the record as the archive can hold it: whole texts, a time that a calendar has."""
    changed: dict[str, Any] = {}
    for name in _TEXTS:
        text = getattr(record, name)
        if text and (kept := whole(text)) != text:
            changed[name] = kept
    if record.at_ms is not None and not known_time(record.at_ms):
        changed["at_ms"] = None
    if record.seq >= 2**63:
        changed["seq"] = 2**63 - 1
    return replace(record, **changed) if changed else record


def message_hash(record: Record) -> bytes:
    """Return the sha256 (32 bytes) over what was said, by whom and when."""
    fields = [record.role, record.speaker, record.text, record.raw or "", record.at_ms]
    whole = json.dumps(fields, ensure_ascii=False)
    return hashlib.sha256(whole.encode("utf-8", "replace")).digest()


def put_conversation(conn: apsw.Connection, source: str, record: Record, now_ms: int) -> int:
    """Return the id of the record's conversation; create it, or note a title that came later."""
    record = storable(record)
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
        "SELECT id, hash, plain(text), coalesce(length(raw), 0), meta, seq, recall, speaker, at_ms"
        " FROM messages WHERE conversation_id = ? AND external_id = ? AND retired_ms IS NULL",
        (conversation_id, external_id),
    ).fetchone()
    return None if row is None else Current(*row)


def compare(
    conn: apsw.Connection, conversation_id: int, record: Record, now: Current | None
) -> Outcome:
    """Tell what storing ``record`` would be.

    The same message may stand in a live file, in a backup and in a migrated store, with other
    packaging. The same text that tells no more than we have (raw, time, speaker) is unchanged; a
    text that an earlier version already had is a stale copy. A caller who replaces by name
    (``_upsert``) means what it says: any difference is a change. An export tells which version each
    record was (``_version``): it is unchanged where that version or a later one is the same.
    """
    if "_version" in record.meta and _has_version(conn, conversation_id, record):
        return "unchanged"
    if now is None:
        return "new"
    if record.meta.get("_upsert"):
        same = now.hash == message_hash(record)
        same = same and json.loads(now.meta) == json.loads(_meta(record))
        return "unchanged" if same else "changed"
    if "_version" in record.meta:
        return "changed"
    if now.text == record.text and not _tells_more(record, now):
        return "unchanged"
    return "unchanged" if _was_version(conn, conversation_id, record) else "changed"


def _tells_more(record: Record, now: Current) -> bool:
    timed = record.at_ms is not None and now.at_ms is None
    named = bool(record.speaker) and not now.speaker
    return timed or named or len(record.raw or "") > now.raw_chars


def _meta(record: Record) -> str:
    kept = {key: value for key, value in record.meta.items() if not key.startswith("_")}
    return whole(json.dumps(kept, ensure_ascii=False, default=str))


def _has_version(conn: apsw.Connection, conversation_id: int, record: Record) -> bool:
    return (
        conn.execute(
            "SELECT 1 FROM messages WHERE conversation_id = ? AND external_id = ? AND version >= ?"
            " AND hash = ? AND meta = ? LIMIT 1",
            (
                conversation_id, record.external_id, min(int(record.meta["_version"]), 2**62),
                message_hash(record), _meta(record),
            ),
        ).fetchone()
        is not None
    )  # fmt: skip


def _was_version(conn: apsw.Connection, conversation_id: int, record: Record) -> bool:
    return (
        conn.execute(
            "SELECT 1 FROM messages WHERE conversation_id = ? AND external_id = ?"
            " AND plain(text) = ? AND coalesce(length(raw), 0) >= ?"
            " AND retired_ms IS NOT NULL LIMIT 1",
            (conversation_id, record.external_id, record.text, len(record.raw or "")),
        ).fetchone()
        is not None
    )


def put(
    conn: apsw.Connection, conversation_id: int, record: Record, now_ms: int
) -> tuple[int, Outcome, int | None]:
    """Store one message. Returns (its id, what happened, the id of the version it replaces).

    A negative ``seq`` means: behind the last one, or where the version before stood. The id is 0
    for the copy of a message that is retired.
    """
    record = storable(record)
    now = current(conn, conversation_id, record.external_id)
    outcome = compare(conn, conversation_id, record, now)
    seq = record.seq
    if seq < 0:
        seq = now.seq if now is not None else next_seq(conn, conversation_id)
    if outcome == "unchanged":
        return _follow(conn, record, seq, now)
    if now is not None:
        conn.execute("UPDATE messages SET retired_ms = ? WHERE id = ?", (now_ms, now.id))
        if now.text == record.text and not {"_upsert", "_version"} & record.meta.keys():
            # The same words, better told: what only the copy before knew is kept.
            at_ms = now.at_ms if record.at_ms is None else record.at_ms
            record = replace(record, at_ms=at_ms, speaker=record.speaker or now.speaker)
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


def _follow(
    conn: apsw.Connection, record: Record, seq: int, now: Current | None
) -> tuple[int, Outcome, int | None]:
    """Take over the place and the recall of what is otherwise known; a stale copy tells neither."""
    if now is None:
        return 0, "unchanged", None
    if record.text != now.text or (seq, record.recall) == (now.seq, bool(now.recall)):
        return now.id, "unchanged", None
    conn.execute(
        "UPDATE messages SET seq = ?, recall = ? WHERE id = ?", (seq, int(record.recall), now.id)
    )
    return now.id, "moved", None


def retire(conn: apsw.Connection, conversation_id: int, external_id: str, now_ms: int) -> list[int]:
    """Retire one message, or all of the conversation when ``external_id`` is empty.

    Returns the ids of the messages that were current until now.
    """
    rows = conn.execute(
        "SELECT id FROM messages WHERE conversation_id = ? AND retired_ms IS NULL"
        + (" AND external_id = ?" if external_id else ""),
        (conversation_id, external_id) if external_id else (conversation_id,),
    )
    ids = [row[0] for row in rows]
    conn.executemany("UPDATE messages SET retired_ms = ? WHERE id = ?", [(now_ms, i) for i in ids])
    return ids


_COLUMNS = "id, conversation_id, external_id, seq, role, speaker, plain(text), at_ms, origin, meta"


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


def last_messages(
    conn: apsw.Connection, conversation_id: int, limit: int, after_seq: int = -(1 << 62)
) -> list[Message]:
    """Return the newest ``limit`` current messages after a place, oldest first."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM messages WHERE conversation_id = ? AND retired_ms IS NULL"
        " AND seq > ? ORDER BY seq DESC, id DESC LIMIT ?",
        (conversation_id, after_seq, limit),
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
    for name, state in marks.items():
        unit = whole(name)
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
