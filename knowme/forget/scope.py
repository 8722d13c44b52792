"""What would go when something is forgotten: the messages, and what cannot go without them.

Promises: it only reads. With what is chosen go our own answers that quoted or repeat it, and no
word of anybody else; what stays and holds the same words is named.
Refuses to know: how anything is erased (``erasure.py``), in which order (``forget.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import apsw

from knowme import backup
from knowme.db import rows, value
from knowme.errors import InputError, NotFoundError
from knowme.forget.probes import Needles, forms, in_rows
from knowme.times import now_ms
from knowme.types import Hit, Query

if TYPE_CHECKING:
    from knowme.home import Home

Kind = Literal["text", "message", "conversation", "before", "person", "retention"]

SAMPLES = 5
ALSO = 20
"""Messages that stay and hold the same words, which the plan names at most."""


@dataclass(frozen=True, slots=True)
class What:
    """What is asked for. ``text``: exact words, or a person's name; the rest is for its kind."""

    kind: Kind
    text: str = ""
    messages: tuple[str, ...] = ()
    conversation: str = ""
    before_ms: int | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message that would go, to be shown."""

    message_id: int
    source: str
    role: str
    speaker: str
    at_ms: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go. ``messages`` are rows of the archive, each version one.

    ``follow`` are those of them that go because they repeat the others: answers of ours.
    ``answers`` are receipts. ``also`` are messages that stay and hold the words of one that goes.
    """

    what: What
    messages: tuple[int, ...] = ()
    follow: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    titles: tuple[int, ...] = ()
    also: tuple[int, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    unreachable: tuple[str, ...] = ()
    needles: Needles | None = None


def plan(home: Home, what: What) -> Plan:
    """Return what would go; reads only. Raises InputError, NotFoundError for no such thing."""
    with home.db.read() as conn:
        return _plan(home, conn, what)


def _plan(home: Home, conn: apsw.Connection, what: What) -> Plan:
    pattern = _pattern(what.text) if what.text else None
    chosen = _chosen(conn, what, pattern)
    if not chosen:
        return Plan(what)
    needles = Needles()
    needles.add(texts(conn, chosen))
    if pattern is not None:
        needles.add_phrase(what.text)
    also = _without_kept(conn, needles, chosen, ours=False, of=texts(conn, chosen, SAMPLES * 4))
    used = _resting(conn, chosen)
    follow = _answers_of(conn, used) | _repeating(conn, needles, chosen)
    answers = used | receipts_of(conn, chosen | follow)
    every = chosen | follow
    more = Needles(needles.seed)
    more.add(texts(conn, follow))
    needles.merge(more)
    titles = _titles(conn, needles, every, pattern)
    _without_kept(conn, needles, every, titles=titles)
    needles.merge(_vectors(conn, needles.seed, every))
    return Plan(
        what,
        tuple(sorted(every)),
        tuple(sorted(follow)),
        tuple(sorted(answers)),
        tuple(titles),
        tuple(also[:ALSO]),
        _counted(conn, every, answers),
        _samples(conn, chosen),
        _unreachable(home, conn, every),
        needles,
    )


def suggest(home: Home, text: str, limit: int = 10) -> list[Hit]:
    """Return what a query finds, for a text that no message holds word for word."""
    return home.search(Query(text, top_k=limit, now_ms=now_ms(), neighbours=0))


def _pattern(text: str) -> re.Pattern[str]:
    """Return what finds these words as whole words: in any case, over any space, and in JSON."""
    found = text.split()
    if not any(re.search(r"\w", word) for word in found):
        raise InputError(f"{text!r} holds no word.", "Name the words that shall be forgotten.")
    words = [f"(?:{re.escape(w)}|{re.escape(json.dumps(w)[1:-1])})" for w in found]
    joined = r"(?:\s|\\[nrt])+".join(words)
    begin = r"(?<!\w)" if re.match(r"\w", found[0]) else ""
    end = r"(?!\w)" if re.search(r"\w$", found[-1]) else ""
    # "\nAna" within JSON: the letter before the name is no letter.
    return re.compile(rf"(?:{begin}|(?<=\\[nrt])){joined}{end}", re.IGNORECASE)


def _chosen(conn: apsw.Connection, what: What, pattern: re.Pattern[str] | None) -> set[int]:
    if what.kind == "message":
        return {each for ref in what.messages for each in _versions(conn, _named(conn, ref))}
    if what.kind == "conversation":
        return _of_conversation(conn, what.conversation)
    if what.kind in ("before", "retention"):
        found = rows(
            conn,
            "SELECT m.id FROM messages m JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.at_ms < ?1 AND (?2 = '' OR c.source = ?2)",
            (what.before_ms, what.source),
        )
        return {number for (number,) in found}
    assert pattern is not None, "a text or a name is asked for"
    listed = conn.execute("SELECT id, plain(text), raw, meta, speaker FROM messages")
    return {
        int(str(number))
        for number, *told in listed
        if any(each and pattern.search(str(each)) for each in told)
    }


def _named(conn: apsw.Connection, ref: str) -> set[int]:
    """Return the messages that a number, an item's uid or a source's own name means."""
    found: set[int] = set()
    if ref.isascii() and ref.isdigit() and len(ref) < 18:
        found = {n for (n,) in rows(conn, "SELECT id FROM messages WHERE id = ?", (int(ref),))}
    if not found:
        found = {
            number
            for (number,) in rows(
                conn,
                "SELECT message_id FROM items WHERE uid = ?1 AND message_id IS NOT NULL UNION"
                " SELECT b.message_id FROM because b JOIN items i ON i.id = b.item_id"
                " WHERE i.uid = ?1 UNION SELECT id FROM messages WHERE external_id = ?1",
                (ref,),
            )
        }
    if not found:
        raise NotFoundError(f"There is no message {ref!r}.", "Find it: knowme search ... --json")
    return found


def _versions(conn: apsw.Connection, ids: Iterable[int]) -> set[int]:
    """Return every version of these messages."""
    found = rows(
        conn,
        "SELECT o.id FROM messages m JOIN messages o ON o.conversation_id = m.conversation_id"
        " AND o.external_id = m.external_id WHERE m.id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(ids)),),
    )
    return {number for (number,) in found}


def _of_conversation(conn: apsw.Connection, ref: str) -> set[int]:
    found = rows(
        conn,
        "SELECT id, source FROM conversations WHERE external_id = ?1"
        " OR source || ':' || external_id = ?1",
        (ref,),
    )
    if not found:
        raise NotFoundError(f"There is no conversation {ref!r}.", "See: knowme search ... --json")
    if len(found) > 1:
        named = ", ".join(f"{source}:{ref}" for _, source in found)
        raise InputError(f"{len(found)} conversations are called {ref!r}.", f"Say which: {named}.")
    return {
        number
        for (number,) in rows(
            conn, "SELECT id FROM messages WHERE conversation_id = ?", (found[0][0],)
        )
    }


def texts(conn: apsw.Connection, ids: Iterable[int], limit: int = -1) -> list[str]:
    """Return the words of these messages, of ``limit`` of them at most."""
    found = rows(
        conn,
        "SELECT plain(text) FROM messages WHERE id IN (SELECT value FROM json_each(?)) LIMIT ?",
        (json.dumps(sorted(ids)), limit),
    )
    return [text for (text,) in found]


_OURS = "m.role = 'assistant' AND c.source = 'knowme'"


def _without_kept(
    conn: apsw.Connection,
    needles: Needles,
    gone: set[int],
    *,
    ours: bool = True,
    titles: Sequence[int] = (),
    of: Sequence[str] = (),
) -> list[int]:
    """Leave out the pieces that stand in what is kept; returns who holds all of one of ``of``.

    ``ours=False`` leaves out our own answers: they may repeat what goes, and then go with it.
    """
    also: list[int] = []
    whole = {_plain(form.decode()) for text in of if len(text.split()) >= 4 for form in forms(text)}
    marked = set(gone)
    listed = (
        row
        for row in conn.execute(
            "SELECT m.id, plain(m.text), m.raw, m.meta, m.origin, m.external_id, m.speaker"
            " FROM messages m JOIN conversations c ON c.id = m.conversation_id"
            + ("" if ours else f" WHERE NOT ({_OURS})")
        )
        if row[0] not in marked
    )
    found: set[int] = set()
    for number, pieces in in_rows(needles, listed):
        found |= pieces
        if whole and len(also) < ALSO:
            told = "plain(text) || char(10) || coalesce(raw, '') || char(10) || meta"
            text = _plain(value(conn, f"SELECT {told} FROM messages WHERE id = ?", (number,)))
            if any(each in text for each in whole):
                also.append(number)
    named = "SELECT id, external_id, source, iif(id IN (SELECT value FROM json_each(?)), '', title)"
    for sql, values in (
        (
            f"{named} FROM conversations c WHERE EXISTS (SELECT 1 FROM messages m WHERE"
            " m.conversation_id = c.id AND m.id NOT IN (SELECT value FROM json_each(?)))",
            (json.dumps(list(titles)), json.dumps(sorted(gone))),
        ),
        ("SELECT 0, sql FROM sqlite_schema", ()),
        ("SELECT 0, source, unit FROM marks", ()),
    ):
        for _, pieces in in_rows(needles, conn.execute(sql, values)):
            found |= pieces
    needles.without(found)
    return also


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _resting(conn: apsw.Connection, ids: set[int]) -> set[int]:
    """Return the receipts of answers to these, and of those whose prompt quoted one of them."""
    found = rows(
        conn,
        "WITH dead AS (SELECT value AS id FROM json_each(?)), uids AS ("
        "  SELECT uid FROM items WHERE message_id IN (SELECT id FROM dead) UNION"
        "  SELECT i.uid FROM items i JOIN because b ON b.item_id = i.id"
        "   WHERE b.message_id IN (SELECT id FROM dead))"
        " SELECT id FROM answers WHERE question_id IN (SELECT id FROM dead)"
        " OR answer_id IN (SELECT id FROM dead) OR EXISTS (SELECT 1 FROM"
        "  json_each(receipt, '$.used') u WHERE json_extract(u.value, '$.uid') IN uids)",
        (json.dumps(sorted(ids)),),
    )
    return {number for (number,) in found}


def _answers_of(conn: apsw.Connection, receipts: set[int]) -> set[int]:
    found = rows(
        conn,
        "SELECT answer_id FROM answers WHERE answer_id IS NOT NULL AND id IN"
        " (SELECT value FROM json_each(?))",
        (json.dumps(sorted(receipts)),),
    )
    return _versions(conn, [number for (number,) in found])


def receipts_of(conn: apsw.Connection, ids: set[int]) -> set[int]:
    """Return the receipts whose question or answer is one of these messages."""
    found = rows(
        conn,
        "SELECT id FROM answers WHERE question_id IN (SELECT value FROM json_each(?1))"
        " OR answer_id IN (SELECT value FROM json_each(?1))",
        (json.dumps(sorted(ids)),),
    )
    return {number for (number,) in found}


def _repeating(conn: apsw.Connection, needles: Needles, gone: set[int]) -> set[int]:
    """Return our own answers that repeat words of these and of nothing that is kept."""
    listed = conn.execute(
        "SELECT m.id, plain(m.text) FROM messages m JOIN conversations c"
        f" ON c.id = m.conversation_id WHERE {_OURS}"
    )
    return {number for number, _ in in_rows(needles, listed)} - gone


def _titles(
    conn: apsw.Connection, needles: Needles, gone: set[int], pattern: re.Pattern[str] | None
) -> list[int]:
    """Return the conversations whose titles were made of what goes."""
    texts: dict[int, str] = {}
    for number, text in rows(
        conn,
        "SELECT conversation_id, plain(text) FROM messages"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(gone)),),
    ):
        texts[number] = f"{texts.get(number, '')}\n{_plain(text)}"
    found = []
    for number, title, meta in rows(
        conn, "SELECT id, title, meta FROM conversations WHERE title <> '' OR meta <> '{}'"
    ):
        plain = _plain(title).rstrip(" …")
        named = pattern is not None and (pattern.search(title) or pattern.search(meta))
        made = len(plain.split()) > 1 and plain in texts.get(number, "")
        if named or made or (number in texts and needles.stands(title, meta)):
            found.append(number)
    return found


def _vectors(conn: apsw.Connection, seed: int, gone: set[int]) -> Needles:
    """Return the pieces of the vectors of what goes that no other vector has."""
    mine = "item_id IN (SELECT id FROM items WHERE message_id IN (SELECT value FROM json_each(?)))"
    listed = (json.dumps(sorted(gone)),)
    needles = Needles(seed)
    found = rows(conn, f"SELECT vector FROM vectors WHERE {mine}", listed)
    needles.add_bytes(blob for (blob,) in found)
    if len(needles):
        kept = conn.execute(f"SELECT 0, vector FROM vectors WHERE NOT {mine}", listed)
        needles.without({piece for _, pieces in in_rows(needles, kept) for piece in pieces})
    return needles


_COUNTED = {
    "messages": "SELECT count(*) FROM messages WHERE id IN dead",
    "conversations": "SELECT count(*) FROM conversations c WHERE EXISTS (SELECT 1 FROM messages m"
    " WHERE m.conversation_id = c.id) AND NOT EXISTS (SELECT 1 FROM messages m"
    " WHERE m.conversation_id = c.id AND m.id NOT IN dead)",
    "items": "SELECT count(*) FROM items WHERE message_id IN dead",
    "vectors": "SELECT count(*) FROM vectors v JOIN items i ON i.id = v.item_id"
    " WHERE i.message_id IN dead",
    "facts": "SELECT count(*) FROM facts WHERE message_id IN dead",
    "profile lines": "SELECT count(DISTINCT line_uid) FROM line_evidence WHERE message_id IN dead",
}


def _counted(conn: apsw.Connection, gone: set[int], answers: set[int]) -> dict[str, int]:
    listed = json.dumps(sorted(gone))
    dead = "WITH dead(id) AS MATERIALIZED (SELECT value FROM json_each(?)) "
    counts = {name: int(value(conn, dead + sql, (listed,))) for name, sql in _COUNTED.items()}
    return {**counts, "answers": len(answers)}


def _samples(conn: apsw.Connection, chosen: set[int]) -> tuple[Sample, ...]:
    found = rows(
        conn,
        "SELECT m.id, c.source, m.role, m.speaker, m.at_ms, plain(m.text) FROM messages m"
        " JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.id IN (SELECT value FROM json_each(?))"
        " ORDER BY m.retired_ms IS NOT NULL, m.at_ms DESC, m.id DESC LIMIT ?",
        (json.dumps(sorted(chosen)), SAMPLES),
    )
    return tuple(Sample(*row) for row in found)


def _unreachable(home: Home, conn: apsw.Connection, gone: set[int]) -> tuple[str, ...]:
    """Name what may hold it and is not ours to change: backups by name, the sources' own files."""
    listed = json.dumps(sorted(gone))
    since = value(
        conn,
        "SELECT min(recorded_ms) FROM messages WHERE id IN (SELECT value FROM json_each(?))",
        (listed,),
    )
    named = [
        f"backups/{path.name}"
        for path in backup.backups(home.path)
        if since is None or _made_ms(path) >= int(since) - 1000
    ]
    named += sorted(path.name for path in home.path.glob("*.before-restore-*"))
    sources = rows(
        conn,
        "SELECT DISTINCT c.source FROM messages m JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.id IN (SELECT value FROM json_each(?)) AND c.source NOT IN ('knowme', 'ingest')",
        (listed,),
    )
    return (*named, *sorted(f"the files that {source} is read from" for (source,) in sources))


def _made_ms(path: Path) -> int:
    made = backup.made_at(path)
    return 1 << 62 if made is None else int(made.timestamp() * 1000)
