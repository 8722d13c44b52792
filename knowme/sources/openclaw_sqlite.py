"""OpenClaw's SQLite store, read and never touched: rows, compressed rows, cold and archived ones.

Promises: no byte of the store changes, nor of the files beside it; a store in use is read with what
its log holds; columns and tables that are missing are done without, unknown ones are ignored; a
schema newer than ``KNOWN_SCHEMA`` is named by the caller and read all the same.
Refuses to know: trees, messages.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw

from knowme.sources.files import Found, reason_of
from knowme.sources.openclaw_transcripts import (
    ARCHIVE,
    COLD,
    STORE,
    Line,
    parse,
    read_inflated,
    read_stream,
)

KNOWN_SCHEMA = 23
MAX_ROW_BYTES = 64 * 2**20  # OpenClaw itself allows 4 MiB
COLD_NAME = re.compile(r"[a-f0-9]{64}\.jsonl\.zst")


class Store:
    """One agent database, opened read-only. Close it when done."""

    def __init__(self, found: Found) -> None:
        self.path = found.path
        self.name = found.name
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.note = ""
        self.conn = self._open()
        self.columns = {
            table: self._columns(table)
            for (table,) in self.conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }

    def _open(self) -> apsw.Connection:
        logs = [self.path.with_name(self.path.name + end) for end in ("-wal", "-journal")]
        used = [log for log in logs if log.exists() and log.stat().st_size]
        if not used:
            # Nobody has written since the last checkpoint. Without ``immutable`` even a reader
            # creates the -wal and -shm files, which is a write into somebody else's folder.
            return _connect(self.path, "mode=ro&immutable=1")
        if used[0] == logs[0] and self.path.with_name(self.path.name + "-shm").exists():
            try:
                return _connect(self.path, "mode=ro&readonly_shm=1")
            except apsw.Error:
                pass
        return self._open_copy(used)

    def _open_copy(self, logs: list[Path]) -> apsw.Connection:
        """Open a private copy: a log that nobody holds cannot be read in place without writing."""
        try:
            self._copy = tempfile.TemporaryDirectory(prefix="knowme-")
            target = Path(self._copy.name) / self.path.name
            for part in (self.path, *logs):
                shutil.copyfile(part, target.with_name(part.name))
            return _connect(target, "mode=rw")
        except (OSError, apsw.Error) as error:
            self.note = f"its log could not be read ({reason_of(error)}): the newest may be missing"
            return _connect(self.path, "mode=ro&immutable=1")

    def close(self) -> None:
        """Close the database and forget the copy, if one was made."""
        self.conn.close()
        if self._copy is not None:
            self._copy.cleanup()

    def stamp(self) -> list[int]:
        """Return what a stat says of the database and its log: sizes and times."""
        out: list[int] = []
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                status = path.stat()
                out += [status.st_size, status.st_mtime_ns]
            except OSError:
                out += [0, 0]
        return out

    def _columns(self, table: str) -> set[str]:
        return {
            row[0] for row in self.conn.execute("SELECT name FROM pragma_table_info(?)", (table,))
        }

    @property
    def schema(self) -> int:
        """The store's schema version."""
        return int(self.conn.pragma("user_version") or 0)

    def has(self, table: str, *columns: str) -> bool:
        """Tell whether a table is there with these columns."""
        return table in self.columns and self.columns[table].issuperset(columns)

    def rows(
        self, table: str, *wanted: str, where: str = "", given: Any = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table with those of the wanted columns that it has."""
        names = [name for name in wanted if name in self.columns.get(table, ())]
        if not names:
            return
        query = f"SELECT {', '.join(names)} FROM {table} {where}"
        for row in self.conn.execute(query, given):
            yield dict(zip(names, row, strict=True))

    # ---- sessions ----------------------------------------------------------------------------

    def sessions(self) -> Iterator[tuple[str, StoredRows]]:
        """Yield (session id, transcript) of every session with rows."""
        if not self.has("transcript_events", "session_id", "seq"):
            return
        state = {
            str(row["session_id"]): row
            for row in self.rows(
                "session_transcript_index_state",
                "session_id", "indexed_seq", "leaf_event_id", "needs_rebuild", "updated_at",
            )
            if "session_id" in row
        }  # fmt: skip
        written = {
            str(row.get("session_id")): row.get("generation")
            for row in self.rows("transcript_rewrite_watermarks", "session_id", "generation")
        }
        for identity in self._session_ids():
            last = self.conn.execute(
                "SELECT max(seq) FROM transcript_events WHERE session_id = ?", (identity,)
            ).fetchone()
            if last is None or last[0] is None:
                continue
            index = state.get(identity, {})
            whole = (index.get("indexed_seq") or 0) >= last[0] and not index.get("needs_rebuild")
            leaf = index.get("leaf_event_id") if whole else None
            stamp = [last[0], leaf, index.get("updated_at"), written.get(identity)]
            yield identity, StoredRows(self, identity, stamp, leaf)

    def _session_ids(self) -> list[str]:
        # Session after session through the primary key: the rows themselves are not read.
        found: list[str] = []
        query = "SELECT min(session_id) FROM transcript_events WHERE session_id > ?"
        last = ""
        while (row := self.conn.execute(query, (last,)).fetchone()) and row[0] is not None:
            last = row[0]
            found.append(last)
        return found

    def books(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield (session id, session key, what is known of it)."""
        about = (
            "session_id", "session_key", "current_session_id", "display_name", "label", "channel",
            "chat_type", "spawned_by", "created_via",
        )  # fmt: skip
        nodes: dict[str, dict[str, Any]] = {}
        for row in self.rows("session_nodes", *about):
            nodes[str(row.get("session_key"))] = row
            if row.get("current_session_id"):
                yield str(row["current_session_id"]), str(row.get("session_key") or ""), row
        for row in self.rows("session_windows", *about):
            key = str(row.get("session_key") or "")
            node = {name: value for name, value in nodes.get(key, {}).items() if value is not None}
            known = {name: value for name, value in row.items() if value is not None}
            yield str(row.get("session_id")), key, {**node, **known}

    def archived(self) -> Iterator[tuple[str, StoredArchive]]:
        """Yield (session id, transcript) of the archives inside the store."""
        needed = ("session_id", "generation", "archive_blob")
        if self.has("session_transcript_archives", *needed):
            wanted = ("session_id", "generation", "encoding", "archive_sha256", "archive_name")
            for row in self.rows("session_transcript_archives", *wanted, "created_at"):
                yield str(row["session_id"]), StoredArchive(self, ARCHIVE, row)
        if self.has("session_transcript_cold_archives", *needed, "storage"):
            wanted = ("session_id", "generation", "storage", "archive_sha256", "archive_name")
            where = "WHERE storage = 'sqlite'"
            for row in self.rows("session_transcript_cold_archives", *wanted, where=where):
                yield str(row["session_id"]), StoredArchive(self, COLD, row)

    def cold_names(self) -> dict[str, str]:
        """Return cold file name -> session id."""
        wanted = ("archive_name", "session_id")
        return {
            str(row.get("archive_name")): str(row.get("session_id"))
            for row in self.rows("session_transcript_cold_archives", *wanted)
        }


def _connect(path: Path, options: str) -> apsw.Connection:
    write = apsw.SQLITE_OPEN_READWRITE if options == "mode=rw" else apsw.SQLITE_OPEN_READONLY
    uri = f"file:{quote(str(path))}?{options}"
    conn = apsw.Connection(uri, flags=write | apsw.SQLITE_OPEN_URI)
    try:
        conn.set_busy_timeout(5000)
        conn.execute("PRAGMA query_only = 1; PRAGMA trusted_schema = 0")
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except apsw.Error:
        conn.close()
        raise
    return conn


@dataclass(slots=True)
class StoredRows:
    """The live rows of one session; a line's place is its ``seq``."""

    store: Store
    session: str
    stamp: list[Any]
    leaf: str | None
    rank: int = STORE
    lineage: str = "*"

    @property
    def name(self) -> str:
        """Where it stands."""
        return f"{self.store.name}#{self.session}"

    @property
    def size(self) -> int:
        """A guess: a row is about a kilobyte."""
        return int(self.stamp[0] or 0) * 1024

    def read(self, place: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield the rows from ``seq`` on."""
        wanted = ("seq", "event_json", "event_zstd")
        where = "WHERE session_id = ? AND seq >= ? ORDER BY seq"
        try:
            for row in self.store.rows(
                "transcript_events", *wanted, where=where, given=(self.session, place)
            ):
                yield _row_line(row)
        except apsw.Error as error:
            yield Line(0, 0, 0, "", None, f"the store is damaged: {error}")

    def origin(self, line: Line) -> str:
        """``agents/main/agent/openclaw-agent.sqlite#<session>:12``."""
        return f"{self.name}:{line.place}"


def _row_line(row: Mapping[str, Any]) -> Line:
    seq = int(row["seq"])
    data: Any = row.get("event_json")
    if data is None and row.get("event_zstd") is not None:
        try:
            data = inflate(row["event_zstd"])
        except ValueError as error:
            return Line(seq, seq + 1, seq, "", None, str(error))
    if data is None:
        return Line(seq, seq + 1, seq, "", None, "a row with no event in a column known here")
    return Line(seq, seq + 1, seq, *parse(data))


def inflate(data: bytes) -> bytes:
    """Return the content of one zstd frame, at most ``MAX_ROW_BYTES``. Raises ValueError."""
    import zstandard

    engine = zstandard.ZstdDecompressor(max_window_size=2**27)
    try:
        with engine.stream_reader(data) as reader:
            out = reader.read(MAX_ROW_BYTES + 1)
    except zstandard.ZstdError as error:
        raise ValueError(f"damaged zstd: {error}") from error
    if len(out) > MAX_ROW_BYTES:
        raise ValueError(f"inflates {len(data)} bytes to more than {MAX_ROW_BYTES}")
    return bytes(out)


class StoredArchive:
    """An archived transcript inside the store: JSON lines, or cold records that hold them."""

    def __init__(self, store: Store, rank: int, row: Mapping[str, Any]) -> None:
        self.store = store
        self.rank = rank
        self.lineage = "*"
        self.session = str(row["session_id"])
        self.generation = row.get("generation")
        self.stamp: list[Any] = [self.generation, row.get("archive_sha256")]
        self.packed = rank == COLD or row.get("encoding") == "zstd"
        self.name = f"{store.name}#{row.get('archive_name') or self.session}"
        self.leaf: str | None = None
        self.size = 2**40  # never held: what it inflates to is not known

    def read(self, place: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield the lines."""
        table = "session_transcript_archives" if self.rank == ARCHIVE else ""
        table = table or "session_transcript_cold_archives"
        row = self.store.conn.execute(
            f"SELECT archive_blob FROM {table} WHERE session_id = ? AND generation = ?",
            (self.session, self.generation),
        ).fetchone()
        blob = bytes(row[0]) if row and isinstance(row[0], bytes) else b""
        if not self.packed:
            yield from read_stream(io.BytesIO(blob), 0, 0, live=False)
            return
        for line in read_inflated(io.BytesIO(blob), len(blob)):
            yield from unpacked(self, line)

    def origin(self, line: Line) -> str:
        """``...sqlite#<archive name>:12``."""
        return f"{self.name}:{line.number}"


@dataclass(slots=True)
class ColdFile:
    """A cold transcript in a file of its own."""

    path: Path
    name: str
    stamp: list[Any]
    rank: int = COLD
    lineage: str = "*"
    leaf: str | None = None
    size: int = 2**40

    def read(self, place: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield the lines."""
        with self.path.open("rb") as raw:
            for line in read_inflated(raw, self.stamp[0]):
                yield from unpacked(self, line)

    def origin(self, line: Line) -> str:
        """``agents/main/sessions/cold/<sha256>.jsonl.zst:12``."""
        return f"{self.name}:{line.number}"

    def session(self) -> str:
        """Return the id of the session inside; "" when it does not say."""
        with self.path.open("rb") as raw:
            for line in read_inflated(raw, self.stamp[0]):
                event = line.event or {}
                identity = event.get("sessionId") if event.get("kind") == "header" else None
                identity = event.get("id") if event.get("type") == "session" else identity
                return identity if isinstance(identity, str) else ""
        return ""


def unpacked(owner: StoredArchive | ColdFile, line: Line) -> Iterator[Line]:
    """Yield what a line of an archive holds: an event, or a record around one."""
    event = line.event
    if event is None or "kind" not in event or "type" in event:
        yield line
        return
    row = event.get("row")
    if not isinstance(row, dict):
        return
    if event["kind"] == "index" and not row.get("needs_rebuild"):
        leaf = row.get("leaf_event_id")
        owner.leaf = leaf if isinstance(leaf, str) else None
    if event["kind"] == "event" and isinstance(row.get("event_json"), str):
        yield Line(line.place, line.end, line.number, *parse(row["event_json"]))
