"""What must not come back: hashes of what was forgotten, under a key of this home.

Promises: no words are kept, and without the key no guess can be checked against a hash. A forgotten
message is known by its name, by its words, and by its words at its time in another file; a piece of
a document by its words and by any run of eight of them that the rest of the document does not have,
so that a renamed heading or a mended comma does not bring it back. What somebody says anew, at
another time, is not buried; what was forgotten by a phrase of four words or more is, wherever it
stands.
Refuses to know: what is forgotten and why (``forget.py``).

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import apsw

from knowme import states
from knowme.db import value
from knowme.times import now_ms
from knowme.types import Record

STATE = "tombstones"
LEAST_WORDS = 4
"""Words from which a text is itself: a shorter one is said by many, often."""
RUN_WORDS = 8
"""Words that a piece of a document shares with one that was forgotten, to be known by them."""
_WORD = re.compile(r"\w+")


class Dead(NamedTuple):
    """A message that is to be buried. ``whole``: no version of it stays, so its name goes too."""

    source: str
    conversation: str
    external_id: str
    role: str
    text: str
    at_ms: int | None
    whole: int


def words(text: str) -> list[str]:
    """Return the words of a text as they are compared: without case, signs and spaces."""
    return _WORD.findall(text.casefold())


def bury(
    conn: apsw.Connection,
    erasure_id: int,
    at_ms: int,
    dead: Iterable[Dead],
    *,
    kept: Iterable[tuple[str, str, str]] = (),
    titles: Iterable[tuple[str, str, str]] = (),
    phrase: str = "",
) -> int:
    """Keep these from coming back; returns how many hashes were written.

    ``kept`` are (source, conversation, text) of what stays in the documents that lose a piece: runs
    of words that both have say nothing. ``titles`` are (source, conversation, title).
    """
    key, lengths = _state(conn)
    if key is None:
        key = secrets.token_bytes(32)
    found: set[bytes] = set()
    runs: set[bytes] = set()
    for each in dead:
        name = (each.source, each.conversation, each.external_id)
        said = words(each.text)
        found.add(_hash(key, "said", *name, *said))
        if each.role == "document":
            runs |= _runs(key, each.source, each.conversation, said)
        elif each.whole:
            found.add(_hash(key, "name", *name))
        if len(said) >= LEAST_WORDS:
            found.add(_hash(key, "text", _when(each.role, each.at_ms), *said))
    if runs:
        for source, conversation, text in kept:
            runs -= _runs(key, source, conversation, words(text))
    found |= runs | {_hash(key, "title", *title) for title in titles}
    if len(told := words(phrase)) >= LEAST_WORDS:
        found.add(_hash(key, "phrase", *told))
        lengths = sorted({*lengths, len(told)})
    conn.executemany(
        "INSERT OR IGNORE INTO tombstones(hash, erasure_id, at_ms) VALUES(?, ?, ?)",
        [(each, erasure_id, at_ms) for each in sorted(found)],
    )
    states.keep(conn, STATE, {"key": key.hex(), "phrases": lengths}, now_ms())
    return len(found)


def buried(conn: apsw.Connection, source: str, record: Record) -> bool:
    """Tell whether this record was forgotten, here or where it was read before."""
    key, lengths = _state(conn)
    if key is None or record.kind == "removed":
        return False
    name = (source, record.conversation, record.external_id)
    said = words(record.text)
    asked = {_hash(key, "said", *name, *said)}
    if record.role == "document":
        asked |= _runs(key, source, record.conversation, said)
    else:
        asked.add(_hash(key, "name", *name))
    if len(said) >= LEAST_WORDS:
        asked.add(_hash(key, "text", _when(record.role, record.at_ms), *said))
    for length in lengths:
        asked |= {_hash(key, "phrase", *run) for run in _windows(said, length)}
    return _any(conn, asked)


def without_title(conn: apsw.Connection, source: str, record: Record) -> Record:
    """Return the record without a title that was forgotten."""
    key, _ = _state(conn) if record.title else (None, [])
    if key is None:
        return record
    gone = _any(conn, {_hash(key, "title", source, record.conversation, record.title)})
    return replace(record, title="") if gone else record


def _state(conn: apsw.Connection) -> tuple[bytes | None, list[int]]:
    found = states.read(conn, STATE)
    if found is None:
        return None, []
    return bytes.fromhex(found["key"]), list(found["phrases"])


def _when(role: str, at_ms: int | None) -> Any:
    """Return what tells one saying of the same words from another; a document has no moment."""
    return "" if role == "document" or at_ms is None else at_ms


def _hash(key: bytes, *parts: Any) -> bytes:
    told = "\0".join(map(str, parts)).encode("utf-8", "replace")
    return hashlib.blake2b(told, key=key, digest_size=16).digest()


def _windows(said: Sequence[str], length: int) -> Iterable[Sequence[str]]:
    return (said[at : at + length] for at in range(len(said) - length + 1))


def _runs(key: bytes, source: str, conversation: str, said: Sequence[str]) -> set[bytes]:
    """Return the hashes of the runs of words of one document's piece."""
    return {_hash(key, "run", source, conversation, *run) for run in _windows(said, RUN_WORDS)}


def _any(conn: apsw.Connection, hashes: Iterable[bytes]) -> bool:
    asked = list(hashes)
    for start in range(0, len(asked), 500):
        part = asked[start : start + 500]
        marks = ",".join("?" * len(part))
        if value(conn, f"SELECT 1 FROM tombstones WHERE hash IN ({marks}) LIMIT 1", part):
            return True
    return False
