"""Memory: the retrievable items made from the archive, their words and their vectors.

Promises: every item names its message and the span of it; dropping all items and calling
``index`` again over the archive gives the same ones (same uid). An item's own words and its
neighbours' words are indexed in separate columns; the raw text is never altered.
Beside them stand derived items, DERIVED: a ``fact`` is one more key to its message, a ``summary``
or ``pattern`` rests on many (``because``). They are nobody's neighbours, and block nothing.
Refuses to know: how results are ranked, which model made a vector, where messages come from.

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme import states
from knowme.db import rows, value
from knowme.seams import Vectors
from knowme.types import Fact
from knowme.words import NO_SPACES

PASSAGE_CHARS = 1200
OVERLAP_CHARS = 120
CONTEXT_ITEMS = 4
CONTEXT_WORDS = 64
"""The context column of an item: the first words of the nearest earlier items, at most so many."""

PASSAGE_WORDS = {"user": 64, "assistant": 48, "document": 200}
"""How many words of an item are embedded. More of a turn costs time and brings nothing (LOG.md)."""

DERIVED = ("fact", "summary", "pattern")
"""Kinds of items whose words are not a span of a message."""
KEYED = ("believed",)
"""States of a fact that make it a key to its message."""
_SPOKEN = "kind NOT IN ('fact', 'summary', 'pattern')"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a message that is retrieved as one."""

    start: int
    end: int


def spans(text: str, role: str = "user") -> list[Span]:
    """Cut a message into the pieces that become items. Together they cover all of the text.

    What a person or a model said is one item. A long document is cut at paragraphs, else sentences,
    else words, into pieces of at most PASSAGE_CHARS, each beginning OVERLAP_CHARS early.
    """
    if not text.strip():
        return []
    if role != "document" or len(text) <= PASSAGE_CHARS:
        return [Span(0, len(text))]
    found, start = [], 0
    while start < len(text):
        end = _border(text, start, start + PASSAGE_CHARS)
        found.append(Span(max(0, start - OVERLAP_CHARS), end))
        start = end
    return found


def _border(text: str, start: int, limit: int) -> int:
    """Return the best place to cut in (start, limit]: always forward."""
    if limit >= len(text):
        return len(text)
    half = start + (limit - start) // 2
    for mark in ("\n\n", "\n", ". ", "。", " "):
        at = text.rfind(mark, half, limit)
        if at > start:
            return at + len(mark)
    return limit


def uid(source: str, conversation: str, external_id: str, start: int) -> str:
    """Return the stable name of an item (16 hex digits)."""
    name = "\0".join((source, conversation, external_id, str(start)))
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


def passage(role: str, speaker: str, text: str) -> str:
    """Return the one text that is embedded for an item: its beginning, with a named speaker."""
    words = text.split(None, PASSAGE_WORDS[role])
    cut = " ".join(words[: PASSAGE_WORDS[role]])
    return f"{speaker}: {cut}" if speaker else cut


def add_items(conn: apsw.Connection, message_ids: Sequence[int]) -> dict[int, str]:
    """Make the items of these current, recallable messages; returns item id -> text to embed.

    Messages that have items already keep them. The words of the new items, and the context of
    those that follow them, are in the index on return. What is believed from these messages leads
    to them again; those keys are not returned (the job ``reindex`` embeds them).
    """
    made: dict[int, str] = {}
    for row in rows(
        conn,
        "SELECT m.id, m.external_id, m.seq, m.role, m.speaker, plain(m.text), m.at_ms, m.meta,"
        " c.id, c.source, c.external_id"
        " FROM messages m JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.id IN (SELECT value FROM json_each(?)) AND m.recall AND m.retired_ms IS NULL"
        " AND m.role IN ('user', 'assistant', 'document')"
        " AND NOT EXISTS (SELECT 1 FROM items i WHERE i.message_id = m.id"
        f" AND i.{_SPOKEN}) ORDER BY m.id",
        (json.dumps(list(message_ids)),),
    ):
        (mid, ext, seq, role, name, text, at_ms, meta, cid, source, conversation) = row
        speaker = named(source, role, name, json.loads(meta))
        kind = "section" if role == "document" else "message"
        for span in spans(text, role):
            piece = text[span.start : span.end]
            conn.execute(
                "INSERT INTO items(uid, kind, message_id, start, end, conversation_id, seq, source,"
                " role, speaker, at_ms, words) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    uid(source, conversation, ext, span.start), kind, mid, span.start, span.end,
                    cid, seq, source, role, speaker, at_ms, len(piece.split()),
                ),
            )  # fmt: skip
            made[conn.last_insert_rowid()] = passage(role, speaker, piece)
    beside = _link(conn, made) - set(made)
    _link(conn, beside)
    write_words(conn, _followed_by(conn, made))
    _note_changes(conn, {*made, *beside})
    if made:
        _put_keys(conn, _keys_of(conn, message_ids))
    return made


def named(source: str, role: str, speaker: str, meta: Mapping[str, Any]) -> str:
    """Return the speaker's name where it is somebody other than the person or the assistant."""
    other = source == "ingest" or bool(meta.get("other"))
    return speaker if other and role == "user" else ""


def drop_items(conn: apsw.Connection, message_ids: Iterable[int]) -> int:
    """Take these messages out of recall; their neighbours are joined. Returns how many items went.

    Items are derived, so they are deleted, not marked: words, vectors and rows. What facts made of
    them goes too; a summary that rests on them stays.
    """
    found = rows(
        conn,
        "SELECT id FROM items WHERE message_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(message_ids)),),
    )
    ids = [row[0] for row in found]
    if not ids:
        return 0
    beside = _linked(conn, ids) - set(ids)
    follow = _followed_by(conn, ids) - set(ids)
    _delete(conn, ids)
    _link(conn, beside)
    write_words(conn, follow)
    _note_changes(conn, {*ids, *beside})
    return len(ids)


def _delete(conn: apsw.Connection, item_ids: Iterable[int]) -> None:
    """Delete items with their words and vectors."""
    for item_id in item_ids:
        conn.execute("DELETE FROM item_fts WHERE rowid = ?", (item_id,))
        conn.execute("DELETE FROM item_tri WHERE rowid = ?", (item_id,))
        conn.execute("DELETE FROM vectors WHERE item_id = ?", (item_id,))
        conn.execute("DELETE FROM items WHERE id = ?", (item_id,))


def move_items(conn: apsw.Connection, message_ids: Sequence[int]) -> None:
    """Follow messages that moved within their conversation, or left recall: order, neighbours."""
    listed = json.dumps(list(message_ids))
    quiet = "SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(?)) AND NOT recall"
    drop_items(conn, [row[0] for row in rows(conn, quiet, (listed,))])
    chosen = "message_id IN (SELECT value FROM json_each(?))"
    ids = [row[0] for row in rows(conn, f"SELECT id FROM items WHERE {chosen}", (listed,))]
    around = _linked(conn, ids)
    conn.execute(
        "UPDATE items SET seq = (SELECT seq FROM messages m WHERE m.id = message_id)"
        f" WHERE {chosen}",
        (listed,),
    )
    around |= _link(conn, ids)
    _link(conn, around)
    touched = {*ids, *around}
    write_words(conn, _followed_by(conn, touched))
    _note_changes(conn, touched)


_BESIDE = """coalesce(
  (SELECT i.id FROM items i WHERE i.conversation_id = me.conversation_id AND i.seq = me.seq
   AND i.{spoken} AND (i.start, i.id) {sign} (me.start, me.id)
   ORDER BY i.start {order}, i.id {order} LIMIT 1),
  (SELECT i.id FROM items i WHERE i.conversation_id = me.conversation_id AND i.seq {sign} me.seq
   AND i.{spoken} ORDER BY i.seq {order}, i.start {order}, i.id {order} LIMIT 1))"""
"""The item directly beside ``me``: in two steps, because thousands may share one seq."""

_LINK = (
    "UPDATE items AS me SET before_id = " + _BESIDE.format(sign="<", order="DESC", spoken=_SPOKEN)
    + ", after_id = " + _BESIDE.format(sign=">", order="ASC", spoken=_SPOKEN)
    + f" WHERE {_SPOKEN} AND id IN (SELECT value FROM json_each(?))"
)  # fmt: skip


def _link(conn: apsw.Connection, item_ids: Iterable[int]) -> set[int]:
    """Write down who stands beside these items; returns those who do."""
    ids = list(item_ids)
    conn.execute(_LINK, (json.dumps(ids),))
    return _linked(conn, ids)


def _linked(conn: apsw.Connection, item_ids: Iterable[int]) -> set[int]:
    """Return who stands beside these items, as written down."""
    return {n for pair in _links(conn, item_ids).values() for n in pair if n is not None}


def _links(
    conn: apsw.Connection, item_ids: Iterable[int]
) -> dict[int, tuple[int | None, int | None]]:
    """Return item -> (the one before, the one after), as written down."""
    found = rows(
        conn,
        "SELECT id, before_id, after_id FROM items WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(item_ids)),),
    )
    return {item_id: (before, after) for item_id, before, after in found}


def _followed_by(conn: apsw.Connection, item_ids: Iterable[int]) -> set[int]:
    """Return these items and those whose context they stand in."""
    every = set(item_ids)
    newest = set(every)
    for _ in range(CONTEXT_ITEMS):
        newest = {after for _, after in _links(conn, newest).values() if after is not None} - every
        every |= newest
    return every


# --- derived items ------------------------------------------------------------------------------


def put_fact_items(conn: apsw.Connection, facts: Iterable[Fact]) -> dict[int, str]:
    """Let these facts lead to the messages they came from; returns item id -> text to embed.

    The item is called as the fact is, and its words are the sentence. One that exists keeps its
    vector while its sentence stays. Facts in no state of KEYED, and those of a message that has no
    items (it is out of recall), lose theirs. Vectors come by the job ``reindex``.
    """
    given = {fact.uid: fact for fact in facts}
    made, kept = _put_keys(
        conn,
        [
            (fact.uid, fact.sentence, fact.message_id, fact.start, fact.end)
            for fact in given.values()
            if fact.state in KEYED
        ],
    )
    drop_fact_items(conn, given.keys() - kept)
    return made


def drop_fact_items(conn: apsw.Connection, uids: Iterable[str]) -> int:
    """Let these facts lead nowhere any more; unknown ones are fine. Returns how many items went."""
    found = rows(
        conn,
        "SELECT id FROM items WHERE kind = 'fact' AND uid IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(uids)),),
    )
    return _drop(conn, [row[0] for row in found])


def put_summary_item(
    conn: apsw.Connection,
    uid: str,
    text: str,
    message_ids: Iterable[int],
    conversation_id: int,
    seq: int,
    at_ms: int | None,
    source: str,
    kind: str = "summary",
) -> int:
    """Make a summary (or a ``pattern``) searchable, or renew it; returns its item's id.

    ``message_ids`` are what it rests on, ``seq`` the place in the conversation that it reaches to.
    Its vector comes by the job ``reindex``.
    """
    row = conn.execute("SELECT id, text FROM items WHERE uid = ?", (uid,)).fetchone()
    if row is None:
        conn.execute(
            "INSERT INTO items(uid, kind, conversation_id, seq, source, role)"
            " VALUES(?, ?, ?, ?, ?, 'document')",
            (uid, kind, conversation_id, seq, source),
        )
    item = conn.last_insert_rowid() if row is None else int(row[0])
    conn.execute(
        "UPDATE items SET text = ?, words = ?, conversation_id = ?, seq = ?, at_ms = ?, source = ?"
        " WHERE id = ?",
        (text, len(text.split()), conversation_id, seq, at_ms, source, item),
    )
    conn.execute("DELETE FROM because WHERE item_id = ?", (item,))
    conn.executemany(
        "INSERT OR IGNORE INTO because(item_id, message_id) VALUES(?, ?)",
        [(item, message) for message in message_ids],
    )
    if row is None or row[1] != text:
        _renew_words(conn, [item])
    _note_changes(conn, [item])
    return item


def drop_summary_items(conn: apsw.Connection, item_ids: Sequence[int]) -> int:
    """Take summaries and patterns out of recall; what they rest on stays. Returns how many."""
    found = rows(
        conn,
        "SELECT id FROM items WHERE kind IN ('summary', 'pattern')"
        " AND id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(item_ids)),),
    )
    return _drop(conn, [row[0] for row in found])


def drop_derived(conn: apsw.Connection, message_ids: Iterable[int]) -> int:
    """Drop the facts' items of these messages, and every summary, every pattern resting on one."""
    found = rows(
        conn,
        "SELECT id FROM items WHERE kind = 'fact'"
        " AND message_id IN (SELECT value FROM json_each(?1))"
        " UNION SELECT b.item_id FROM because b JOIN items i ON i.id = b.item_id"
        " WHERE i.kind IN ('summary', 'pattern')"
        " AND b.message_id IN (SELECT value FROM json_each(?1))",
        (json.dumps(list(message_ids)),),
    )
    return _drop(conn, [row[0] for row in found])


def _drop(conn: apsw.Connection, item_ids: Sequence[int]) -> int:
    _delete(conn, item_ids)
    _note_changes(conn, item_ids)
    return len(item_ids)


_Key = tuple[str, str, int, int, int]
"""A fact as a key: its uid, its sentence, its message, the span of its quote."""


def _keys_of(conn: apsw.Connection, message_ids: Iterable[int]) -> list[_Key]:
    """Return what is believed from these messages."""
    found: list[Any] = rows(
        conn,
        "SELECT uid, sentence, message_id, start, end FROM facts"
        " WHERE message_id IN (SELECT value FROM json_each(?))"
        " AND state IN (SELECT value FROM json_each(?)) ORDER BY id",
        (json.dumps(list(message_ids)), json.dumps(KEYED)),
    )
    return found


def _put_keys(conn: apsw.Connection, keys: Sequence[_Key]) -> tuple[dict[int, str], set[str]]:
    """Write the items of these keys; returns (item id -> text of the new or changed, uids kept)."""
    known = dict(
        (name, (item, text))
        for name, item, text in rows(
            conn,
            "SELECT uid, id, text FROM items WHERE uid IN (SELECT value FROM json_each(?))",
            (json.dumps([key[0] for key in keys]),),
        )
    )
    places = {
        row[0]: row[1:]
        for row in rows(
            conn,
            "SELECT m.id, c.id, m.seq, c.source, m.role, m.at_ms FROM messages m"
            " JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.id IN (SELECT value FROM json_each(?)) AND EXISTS"
            f" (SELECT 1 FROM items i WHERE i.message_id = m.id AND i.{_SPOKEN})",
            (json.dumps([key[2] for key in keys]),),
        )
    }
    made: dict[int, str] = {}
    kept: set[str] = set()
    for name, sentence, message, start, end in keys:
        if message not in places:
            continue
        kept.add(name)
        item, text = known.get(name, (0, None))
        if text == sentence:
            continue
        if not item:
            conn.execute(
                "INSERT INTO items(uid, kind, message_id, start, end, text, words, conversation_id,"
                " seq, source, role, at_ms) VALUES(?, 'fact', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (name, message, start, end, sentence, len(sentence.split()), *places[message]),
            )
            item = conn.last_insert_rowid()
        else:
            conn.execute(
                "UPDATE items SET text = ?, words = ? WHERE id = ?",
                (sentence, len(sentence.split()), item),
            )
        made[item] = passage(places[message][3], "", sentence)
    _renew_words(conn, made)
    _note_changes(conn, made)
    return made, kept


def _renew_words(conn: apsw.Connection, item_ids: Iterable[int]) -> None:
    """Write the words of derived items; a vector of other words is no longer theirs."""
    ids = list(item_ids)
    conn.executemany("DELETE FROM item_tri WHERE rowid = ?", [(item,) for item in ids])
    conn.executemany("DELETE FROM vectors WHERE item_id = ?", [(item,) for item in ids])
    write_words(conn, ids)


def text_of(conn: apsw.Connection, item_ids: Iterable[int]) -> dict[int, str]:
    """Return the words of items, by id."""
    found = rows(
        conn,
        "SELECT id, text, message_id, start, end FROM items"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(item_ids)),),
    )
    whole: dict[int, str] = dict(  # each once: a long document has thousands of items
        rows(
            conn,
            "SELECT id, plain(text) FROM messages WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted({row[2] for row in found if row[2] is not None})),),
        )
    )
    return {
        item: whole.get(message, "")[start:end] if text is None else text
        for item, text, message, start, end in found
    }


def passages(conn: apsw.Connection, item_ids: Sequence[int]) -> list[str]:
    """Return what is embedded for these items, in their order."""
    texts = text_of(conn, item_ids)
    found = rows(
        conn,
        "SELECT id, role, speaker FROM items WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(item_ids)),),
    )
    made = {item_id: passage(role, name, texts[item_id]) for item_id, role, name in found}
    return [made[item_id] for item_id in item_ids]


def write_words(conn: apsw.Connection, item_ids: Iterable[int]) -> None:
    """Write the words of these items: their own with the speaker, then what was said before them.

    The context is the beginnings of the nearest earlier items of the conversation, nearest first.
    """
    ids = sorted(item_ids)
    links = _links(conn, ids)
    chain = set(ids)
    for _ in range(CONTEXT_ITEMS):
        missing = {before for before, _ in links.values() if before is not None} - set(links)
        links |= _links(conn, missing)
        chain |= missing
    chain |= {before for before, _ in links.values() if before is not None}
    texts = text_of(conn, chain)
    names = dict(
        rows(
            conn,
            f"SELECT id, CASE WHEN NOT {_SPOKEN} THEN '' WHEN speaker <> '' THEN speaker || ': '"
            " ELSE role || ': ' END FROM items"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
    )
    for item_id in ids:
        conn.execute(
            "INSERT OR REPLACE INTO item_fts(rowid, self, ctx) VALUES(?, ?, ?)",
            (item_id, names[item_id] + texts[item_id], _context(item_id, links, texts)),
        )
        if NO_SPACES.search(texts[item_id]):
            conn.execute(
                "INSERT OR REPLACE INTO item_tri(rowid, self) VALUES(?, ?)",
                (item_id, texts[item_id]),
            )


def _context(
    item_id: int,
    links: Mapping[int, tuple[int | None, int | None]],
    texts: Mapping[int, str],
) -> str:
    left, found = CONTEXT_WORDS, []
    before = links[item_id][0]
    for _ in range(CONTEXT_ITEMS):
        if before is None or left <= 0:
            break
        taken = texts[before].split(None, left)[:left]
        found.extend(taken)
        left -= len(taken)
        before = links.get(before, (None, None))[0]
    return " ".join(found)


def _note_changes(conn: apsw.Connection, item_ids: Iterable[int]) -> None:
    conn.executemany("INSERT INTO changes(item_id) VALUES(?)", [(i,) for i in item_ids])


# --- vectors ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Space:
    """One embedder's vectors in this home."""

    id: int
    fingerprint: str
    dims: int
    spec: Mapping[str, Any]
    state: str


def spaces(conn: apsw.Connection) -> list[Space]:
    """Return every embedder that has vectors here, oldest first."""
    found = rows(conn, "SELECT id, fingerprint, dims, spec, state FROM embedders ORDER BY id")
    return [Space(i, fp, dims, json.loads(spec), state) for i, fp, dims, spec, state in found]


def serving(conn: apsw.Connection) -> Space | None:
    """Return the embedder whose vectors answer searches, or None."""
    return next((space for space in spaces(conn) if space.state == "serving"), None)


def put_space(
    conn: apsw.Connection,
    fingerprint: str,
    dims: int,
    spec: Mapping[str, Any],
    now_ms: int,
) -> Space:
    """Register an embedder. It serves at once if none does, or if the one that does is empty."""
    for space in spaces(conn):
        if space.fingerprint == fingerprint:
            return space
    old = serving(conn)
    if old is not None and not _has_vectors(conn, old.id):
        conn.execute("DELETE FROM embedders WHERE id = ?", (old.id,))
        old = None
    state = "serving" if old is None else "filling"
    conn.execute(
        "INSERT INTO embedders(fingerprint, dims, spec, state, created_ms) VALUES(?,?,?,?,?)",
        (fingerprint, dims, json.dumps(dict(spec)), state, now_ms),
    )
    return Space(conn.last_insert_rowid(), fingerprint, dims, spec, state)


def _has_vectors(conn: apsw.Connection, space_id: int) -> bool:
    return (
        conn.execute("SELECT 1 FROM vectors WHERE embedder_id = ? LIMIT 1", (space_id,)).fetchone()
        is not None
    )


def holds(conn: apsw.Connection, space: Space) -> bool:
    """Tell whether this embedder is still registered: another process may have let one take over.

    Its number alone says nothing, for numbers are used again.
    """
    registered = value(conn, "SELECT fingerprint FROM embedders WHERE id = ?", (space.id,))
    return bool(registered == space.fingerprint)


def promote(conn: apsw.Connection, space: Space) -> bool:
    """Let a filled embedder serve, and drop the others' vectors.

    False if items still lack a vector of it, or if it is no longer registered.
    """
    if not holds(conn, space) or missing(conn, space.id, 1):
        return False
    conn.execute("DELETE FROM vectors WHERE embedder_id <> ?", (space.id,))
    conn.execute("DELETE FROM embedders WHERE id <> ?", (space.id,))
    conn.execute("UPDATE embedders SET state = 'serving' WHERE id = ?", (space.id,))
    return True


def pack(vectors: Vectors) -> list[bytes]:
    """Turn unit vectors (n, dims) into n BLOBs of float16. Cosines move by less than 0.001."""
    return [row.tobytes() for row in np.asarray(vectors, dtype="<f2")]


def unpack(blobs: Sequence[bytes], dims: int) -> Vectors:
    """Turn BLOBs back into an array (n, dims) of float32."""
    flat = np.frombuffer(b"".join(blobs), dtype="<f2")
    return flat.reshape(len(blobs), dims).astype(np.float32)


def put_vectors(
    conn: apsw.Connection, space: Space, item_ids: Sequence[int], vectors: Vectors
) -> bool:
    """Store the vectors (n, dims) of these items. Items that are gone meanwhile are passed over.

    False, and nothing stored, where the embedder is no longer registered.
    """
    if not holds(conn, space):
        return False
    conn.executemany(
        "INSERT INTO vectors(item_id, embedder_id, vector) SELECT id, ?, ? FROM items WHERE id = ?"
        " ON CONFLICT(embedder_id, item_id) DO UPDATE SET vector = excluded.vector",
        [(space.id, blob, i) for i, blob in zip(item_ids, pack(vectors), strict=True)],
    )
    _note_changes(conn, item_ids)
    return True


def missing(conn: apsw.Connection, space_id: int, limit: int, below: int = 2**62) -> list[int]:
    """Return up to ``limit`` items with an id under ``below`` that lack a vector, newest first."""
    found = rows(
        conn,
        "SELECT i.id FROM items i WHERE i.id < ? AND NOT EXISTS (SELECT 1 FROM vectors v"
        f" WHERE v.embedder_id = ? AND v.item_id = i.id) AND NOT {_BARE}"
        " ORDER BY i.id DESC LIMIT ?",
        (below, space_id, limit),
    )
    return [row[0] for row in found]


def count_missing(conn: apsw.Connection, space_id: int) -> int:
    """Return how many items have no vector of this embedder."""
    have = int(value(conn, "SELECT count(*) FROM vectors WHERE embedder_id = ?", (space_id,)))
    if states.read(conn, "bare") is None:
        return count(conn) - have
    sql = (
        "SELECT count(*) FROM items i WHERE NOT EXISTS (SELECT 1 FROM vectors v"
        f" WHERE v.embedder_id = ? AND v.item_id = i.id) AND NOT {_BARE}"
    )
    return int(value(conn, sql, (space_id,)))


_BARE = """coalesce((SELECT i.at_ms < json_extract(s.value, '$.before_ms')
  AND instr(json_extract(s.value, '$.kinds'), i.kind) FROM states s WHERE s.name = 'bare'), 0)"""
"""What shall have no vector: it is older than ``retention.vectors_days``."""


def leave_bare(
    conn: apsw.Connection, before_ms: int | None, kinds: Iterable[str], now_ms: int
) -> None:
    """Say that items of these kinds, said before then, need no vector; None: that all do."""
    if before_ms is None:
        states.drop(conn, "bare")
        return
    states.keep(conn, "bare", {"before_ms": before_ms, "kinds": " ".join(kinds)}, now_ms)


def drop_bare(conn: apsw.Connection, limit: int) -> int:
    """Drop the vectors of up to ``limit`` items that need none; returns of how many."""
    found = rows(
        conn,
        "SELECT DISTINCT v.item_id FROM vectors v JOIN items i ON i.id = v.item_id"
        f" WHERE {_BARE} LIMIT ?",
        (limit,),
    )
    conn.executemany("DELETE FROM vectors WHERE item_id = ?", found)
    _note_changes(conn, [row[0] for row in found])
    return len(found)


def read_vectors(
    conn: apsw.Connection, space: Space, batch: int = 4096
) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
    """Yield all vectors of an embedder as (ids (n,), vectors (n, dims)), n <= batch."""
    last = 0
    while True:
        found = rows(
            conn,
            "SELECT item_id, vector FROM vectors WHERE embedder_id = ? AND item_id > ?"
            " ORDER BY item_id LIMIT ?",
            (space.id, last, batch),
        )
        if not found:
            return
        last = found[-1][0]
        ids = np.fromiter((row[0] for row in found), dtype=np.int64, count=len(found))
        yield ids, unpack([row[1] for row in found], space.dims)


def vectors_of(
    conn: apsw.Connection, space: Space, item_ids: Sequence[int]
) -> tuple[list[int], Vectors]:
    """Return (ids that have one, their vectors (n, dims))."""
    found = rows(
        conn,
        "SELECT item_id, vector FROM vectors WHERE embedder_id = ?"
        " AND item_id IN (SELECT value FROM json_each(?))",
        (space.id, json.dumps([int(i) for i in item_ids])),
    )
    if not found:
        return [], np.zeros((0, space.dims), np.float32)
    return [row[0] for row in found], unpack([row[1] for row in found], space.dims)


def mean_vector(
    conn: apsw.Connection, space: Space, sample: int, *, of_facts: bool = False
) -> Vectors:
    """Return the average (dims,) of about ``sample`` vectors, evenly chosen by item id.

    Of what was said, or of the sentences of facts; zeros where there are none.
    """
    chosen = "kind = 'fact'" if of_facts else _SPOKEN
    total = int(value(conn, f"SELECT count(*) FROM items WHERE {chosen}"))
    every = max(1, total // sample) | 1  # odd: turns alternate, an even step hears one side
    found = rows(
        conn,
        "SELECT v.vector FROM vectors v JOIN items i ON i.id = v.item_id"
        f" WHERE v.embedder_id = ? AND v.item_id % ? = 0 AND i.{chosen}",
        (space.id, every),
    )
    if not found:
        return np.zeros(space.dims, np.float32)
    mean: Vectors = unpack([row[0] for row in found], space.dims).mean(axis=0)
    return mean


def last_change(conn: apsw.Connection) -> int:
    """Return the number of the newest change."""
    return int(value(conn, "SELECT coalesce(max(id), 0) FROM changes"))


def first_change(conn: apsw.Connection) -> int:
    """Return the number of the oldest change still known."""
    return int(value(conn, "SELECT coalesce(min(id), 0) FROM changes"))


def changed_since(conn: apsw.Connection, change: int) -> list[int]:
    """Return the distinct items changed after a change number."""
    found = rows(conn, "SELECT DISTINCT item_id FROM changes WHERE id > ?", (change,))
    return [row[0] for row in found]


def start_changes_anew(conn: apsw.Connection) -> None:
    """Let every index and layout that follows the changes, of any process, fill itself anew."""
    _note_changes(conn, [0, 0])  # nobody's number; a follower of the last one now lacks one
    prune_changes(conn, keep=1)


def sweep(conn: apsw.Connection) -> int:
    """Delete words that belong to no item; returns how many items' there were."""
    gone = 0
    for table in ("item_fts", "item_tri"):
        lost = rows(conn, f"SELECT rowid FROM {table} EXCEPT SELECT id FROM items")
        conn.executemany(f"DELETE FROM {table} WHERE rowid = ?", lost)
        gone += len(lost)
    return gone


def prune_changes(conn: apsw.Connection, keep: int = 200_000) -> None:
    """Forget old changes; an index further behind is refilled whole."""
    conn.execute("DELETE FROM changes WHERE id <= ?", (last_change(conn) - keep,))


def count(conn: apsw.Connection) -> int:
    """Return how many items there are."""
    return int(value(conn, "SELECT count(*) FROM items"))
