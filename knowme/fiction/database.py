"""The SQLite files of the fictional home: the agent's database and the old memory index.

Promises: table and column names, ``user_version`` and the short CHECKs of OpenClaw 2026.9.6
(schema 23), so that a reader written against the real file reads this one. Events of 1 KiB or
more lie in ``event_zstd`` with their navigation summary, as they do there.
Refuses to know: which sessions exist or what is said in them. It stores the events it is given.

Left out on purpose: tables that no reader of conversations needs (boards, auth, goals), full-text
tables, and the one CHECK that asks for SQLite 3.43.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowme.fiction.screenplay import Session, digest, uuid_of
from knowme.fiction.transcripts import Event

ZSTD_FROM_BYTES = 1024

AGENT_SCHEMA = """
CREATE TABLE schema_meta (
  meta_key TEXT NOT NULL PRIMARY KEY, role TEXT NOT NULL, schema_version INTEGER NOT NULL,
  agent_id TEXT, app_version TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE session_nodes (
  session_key TEXT NOT NULL PRIMARY KEY,
  current_session_id TEXT NOT NULL,
  entry_json TEXT NOT NULL,
  entry_valid INTEGER NOT NULL DEFAULT 0 CHECK (entry_valid IN (-1, 0, 1)),
  updated_at INTEGER NOT NULL,
  status TEXT CHECK (status IS NULL OR status IN
    ('running', 'done', 'failed', 'killed', 'timeout')),
  created_at INTEGER,
  parent_session_key TEXT, spawned_by TEXT, label TEXT, display_name TEXT,
  archived_at INTEGER, last_interaction_at INTEGER, last_activity_at INTEGER
) STRICT;
CREATE TABLE session_windows (
  session_id TEXT NOT NULL PRIMARY KEY,
  session_key TEXT NOT NULL,
  previous_session_id TEXT,
  reason TEXT CHECK (reason IS NULL OR reason IN ('initial', 'reset', 'rollover', 'fork',
    'rewind', 'switch', 'recovery', 'compaction')),
  session_scope TEXT NOT NULL DEFAULT 'conversation'
    CHECK (session_scope IN ('conversation', 'shared-main', 'group', 'channel')),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  transcript_updated_at INTEGER DEFAULT NULL,
  transcript_observed_at INTEGER DEFAULT NULL,
  started_at INTEGER, ended_at INTEGER,
  chat_type TEXT CHECK (chat_type IS NULL OR chat_type IN ('direct', 'group', 'channel')),
  channel TEXT, account_id TEXT, model_provider TEXT, model TEXT, agent_harness_id TEXT,
  parent_session_key TEXT, spawned_by TEXT, display_name TEXT,
  FOREIGN KEY (session_key) REFERENCES session_nodes(session_key) ON DELETE CASCADE
) STRICT;
CREATE TABLE transcript_events (
  session_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  event_json TEXT,
  created_at INTEGER NOT NULL,
  event_zstd BLOB,
  event_utf8_bytes INTEGER CHECK (event_utf8_bytes IS NULL OR event_utf8_bytes >= 0),
  navigation_json TEXT,
  PRIMARY KEY (session_id, seq),
  FOREIGN KEY (session_id) REFERENCES session_windows(session_id) ON DELETE CASCADE,
  CHECK (
    (event_json IS NOT NULL AND event_zstd IS NULL)
    OR (event_json IS NULL AND event_zstd IS NOT NULL AND event_utf8_bytes IS NOT NULL
        AND event_utf8_bytes BETWEEN 1 AND 4194304
        AND length(event_zstd) BETWEEN 1 AND 4194304 AND navigation_json IS NOT NULL)
  )
) STRICT;
CREATE TABLE transcript_event_identities (
  session_id TEXT NOT NULL,
  event_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  event_type TEXT,
  parent_id TEXT,
  message_idempotency_key TEXT,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (session_id, event_id),
  FOREIGN KEY (session_id, seq) REFERENCES transcript_events(session_id, seq) ON DELETE CASCADE
) STRICT;
CREATE TABLE session_transcript_index_state (
  session_id TEXT NOT NULL PRIMARY KEY,
  indexed_seq INTEGER NOT NULL,
  leaf_event_id TEXT,
  needs_rebuild INTEGER NOT NULL DEFAULT 0,
  active_event_count INTEGER NOT NULL DEFAULT 0,
  active_message_count INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL,
  FOREIGN KEY (session_id) REFERENCES session_windows(session_id) ON DELETE CASCADE
) STRICT;
CREATE TABLE session_transcript_active_events (
  session_id TEXT NOT NULL,
  active_position INTEGER NOT NULL CHECK (active_position >= 0),
  event_seq INTEGER NOT NULL,
  message_position INTEGER CHECK (message_position IS NULL OR message_position >= 0),
  context_eligible INTEGER,
  PRIMARY KEY (session_id, active_position),
  FOREIGN KEY (session_id, event_seq) REFERENCES transcript_events(session_id, seq)
    ON DELETE CASCADE
) STRICT;
CREATE TABLE session_transcript_archives (
  session_id TEXT NOT NULL,
  generation TEXT NOT NULL,
  session_key TEXT NOT NULL,
  reason TEXT NOT NULL CHECK (reason IN ('deleted', 'reset')),
  encoding TEXT NOT NULL CHECK (encoding IN ('identity', 'zstd')),
  archive_blob BLOB NOT NULL,
  archive_sha256 TEXT NOT NULL CHECK (length(archive_sha256) = 64),
  archive_name TEXT NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  published_at INTEGER,
  publish_attempts INTEGER NOT NULL DEFAULT 0 CHECK (publish_attempts >= 0),
  last_publish_attempt_at INTEGER,
  last_publish_error TEXT,
  PRIMARY KEY (session_id, generation),
  CHECK (archive_name NOT LIKE '%/%' AND archive_name NOT LIKE '%\\%')
) STRICT;
CREATE TABLE session_transcript_cold_archives (
  session_id TEXT NOT NULL PRIMARY KEY,
  generation TEXT NOT NULL,
  archive_name TEXT NOT NULL UNIQUE,
  archive_sha256 TEXT NOT NULL CHECK (length(archive_sha256) = 64),
  event_count INTEGER NOT NULL CHECK (event_count >= 1),
  raw_bytes INTEGER NOT NULL CHECK (raw_bytes >= 0),
  archive_bytes INTEGER NOT NULL CHECK (archive_bytes >= 0),
  last_seq INTEGER NOT NULL,
  archived_at INTEGER NOT NULL,
  storage TEXT NOT NULL CHECK (storage IN ('file', 'sqlite')),
  archive_blob BLOB,
  FOREIGN KEY (session_id) REFERENCES session_windows(session_id) ON DELETE CASCADE,
  CHECK ((storage = 'file' AND archive_blob IS NULL)
    OR (storage = 'sqlite' AND archive_blob IS NOT NULL))
) STRICT;
CREATE TABLE memory_index_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE memory_index_state (
  id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL) STRICT;
CREATE TABLE memory_index_sources (
  id INTEGER PRIMARY KEY, path TEXT NOT NULL, source TEXT NOT NULL DEFAULT 'memory',
  hash TEXT NOT NULL, mtime REAL NOT NULL, size INTEGER NOT NULL, UNIQUE (path, source)) STRICT;
CREATE TABLE memory_index_chunks (
  chunk_rowid INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  path TEXT NOT NULL,
  source TEXT NOT NULL DEFAULT 'memory',
  start_line INTEGER NOT NULL,
  end_line INTEGER NOT NULL,
  hash TEXT NOT NULL,
  model TEXT NOT NULL,
  text TEXT NOT NULL,
  embedding BLOB NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE memory_index_chunk_provenance (
  chunk_id TEXT PRIMARY KEY,
  origin_class TEXT NOT NULL CHECK (origin_class IN ('owner', 'agent', 'untrusted', 'system')),
  session_kind TEXT NOT NULL
    CHECK (session_kind IN ('interactive', 'cron', 'heartbeat', 'subagent', 'unknown')),
  observed_at INTEGER NOT NULL,
  supersedes_key TEXT,
  FOREIGN KEY (chunk_id) REFERENCES memory_index_chunks(id) ON DELETE CASCADE
) STRICT;
"""

OLD_MEMORY_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
  path TEXT PRIMARY KEY, source TEXT NOT NULL DEFAULT 'memory', hash TEXT NOT NULL,
  mtime INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE TABLE chunks (
  id TEXT PRIMARY KEY, path TEXT NOT NULL, source TEXT NOT NULL DEFAULT 'memory',
  start_line INTEGER NOT NULL, end_line INTEGER NOT NULL, hash TEXT NOT NULL, model TEXT NOT NULL,
  text TEXT NOT NULL, embedding TEXT NOT NULL, updated_at INTEGER NOT NULL);
CREATE TABLE embedding_cache (
  provider TEXT NOT NULL, model TEXT NOT NULL, provider_key TEXT NOT NULL, hash TEXT NOT NULL,
  embedding TEXT NOT NULL, dims INTEGER, updated_at INTEGER NOT NULL,
  PRIMARY KEY (provider, model, provider_key, hash));
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a memory file, with its lines (1-based, inclusive) and who it comes from."""

    path: str
    start_line: int
    end_line: int
    text: str
    origin: str = "owner"
    session_kind: str = "interactive"
    at_ms: int = 0

    @property
    def id(self) -> str:
        """64 hex digits from place and text."""
        return digest("chunk", self.path, self.start_line, self.text)

    @property
    def vector(self) -> list[float]:
        """Eight numbers in -1..1 that stand in for an embedding; they mean nothing."""
        h = digest("vector", self.text)
        return [int(h[i : i + 2], 16) / 127.5 - 1 for i in range(0, 16, 2)]


def line(event: Event) -> str:
    """The JSON of an event as OpenClaw writes it: no spaces, no escapes."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


class AgentDatabase:
    """``openclaw-agent.sqlite`` while it is being written; ``close`` when done."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.conn = sqlite3.connect(path)
        self.conn.executescript(AGENT_SCHEMA)
        self.conn.execute("PRAGMA user_version=23")

    def _put(self, table: str, **row: Any) -> None:
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        self.conn.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))

    def open_session(self, session: Session, created: int, updated: int) -> None:
        """The node and the window of a session, which its events refer to."""
        key = session.marks["key"]
        entry = {"sessionId": session.id, "updatedAt": updated, "sessionStartedAt": created}
        self._put(
            "session_nodes",
            session_key=key,
            current_session_id=session.id,
            entry_json=json.dumps(entry, separators=(",", ":")),
            updated_at=updated,
            last_interaction_at=updated,
            last_activity_at=updated,
        )
        self._put(
            "session_windows",
            session_id=session.id,
            session_key=key,
            created_at=created,
            updated_at=updated,
            transcript_updated_at=updated,
            transcript_observed_at=updated,
            chat_type="direct",
            channel=session.channel,
            model_provider="anthropic",
            model="claude-sonnet-4",
            agent_harness_id="openclaw",
        )

    def add_events(self, session: Session, events: Sequence[Event], times: Sequence[int]) -> None:
        """Every event of a session, the long ones compressed, and the active path."""
        for seq, (event, at) in enumerate(zip(events, times, strict=True)):
            self._add_event(session.id, seq, event, at)
        leaf = str(events[-1]["id"])
        active = _path(events, leaf)
        messages = 0
        for position, seq in enumerate(active):
            is_message = events[seq]["type"] == "message"
            self._put(
                "session_transcript_active_events",
                session_id=session.id,
                active_position=position,
                event_seq=seq,
                message_position=messages if is_message else None,
                context_eligible=1,
            )
            messages += is_message
        self._put(
            "session_transcript_index_state",
            session_id=session.id,
            indexed_seq=len(events) - 1,
            leaf_event_id=leaf,
            active_event_count=len(active),
            active_message_count=messages,
            updated_at=times[-1],
        )

    def _add_event(self, session_id: str, seq: int, event: Event, at: int) -> None:
        import zstandard

        text = line(event)
        raw = text.encode()
        packed = len(raw) >= ZSTD_FROM_BYTES
        blob = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(raw)
        self._put(
            "transcript_events",
            session_id=session_id,
            seq=seq,
            event_json=None if packed else text,
            created_at=at,
            event_zstd=blob if packed else None,
            event_utf8_bytes=len(raw),
            navigation_json=_navigation(event, len(raw)) if packed else None,
        )
        self._put(
            "transcript_event_identities",
            session_id=session_id,
            event_id=event["id"],
            seq=seq,
            event_type=event["type"],
            parent_id=event.get("parentId"),
            message_idempotency_key=event.get("message", {}).get("idempotencyKey"),
            created_at=at,
        )

    def add_archive(self, session: Session, blob: bytes, sha256: str, name: str, at: int) -> None:
        """A session that was reset: only its compressed transcript is left, in this row."""
        self._put(
            "session_transcript_archives",
            session_id=session.id,
            generation=digest("generation", session.name)[:32],
            session_key=session.marks["key"],
            reason="reset",
            encoding="zstd",
            archive_blob=blob,
            archive_sha256=sha256,
            archive_name=name,
            created_at=at,
        )

    def add_cold(self, session: Session, name: str, events: int, raw: int, size: int) -> None:
        """A session whose events were moved to ``sessions/cold``."""
        self._put(
            "session_transcript_cold_archives",
            session_id=session.id,
            generation=digest("generation", session.name)[:32],
            archive_name=name,
            archive_sha256=name.split(".")[0],
            event_count=events,
            raw_bytes=raw,
            archive_bytes=size,
            last_seq=events - 1,
            archived_at=1_775_600_000_000,
            storage="file",
        )

    def add_memory(self, chunks: Iterable[Chunk]) -> None:
        """The memory index with its provenance."""
        for chunk in chunks:
            self._put(
                "memory_index_chunks",
                id=chunk.id,
                path=chunk.path,
                start_line=chunk.start_line,
                end_line=chunk.end_line,
                hash=digest(chunk.text),
                model="text-embedding-3-small",
                text=chunk.text,
                embedding=struct.pack("<8d", *chunk.vector),
                updated_at=chunk.at_ms,
            )
            self._put(
                "memory_index_chunk_provenance",
                chunk_id=chunk.id,
                origin_class=chunk.origin,
                session_kind=chunk.session_kind,
                observed_at=chunk.at_ms,
            )
        self._put("memory_index_state", id=1, revision=1)

    def close(self, at: int) -> None:
        """Write the version row, commit and let go of the file."""
        self._put(
            "schema_meta",
            meta_key="primary",
            role="agent",
            schema_version=23,
            agent_id="main",
            app_version="2026.9.6",
            created_at=at,
            updated_at=at,
        )
        self.conn.commit()
        self.conn.close()


def _path(events: Sequence[Event], leaf: str) -> list[int]:
    """The sequence numbers from the root to ``leaf``; the header is on no path."""
    by_id = {event["id"]: seq for seq, event in enumerate(events) if event["type"] != "session"}
    path: list[int] = []
    at: str | None = leaf
    while at is not None:
        path.append(by_id[at])
        at = events[by_id[at]].get("parentId")
    return path[::-1]


def _navigation(event: Event, size: int) -> str:
    """What OpenClaw keeps beside a compressed event so that it can walk the tree unpacked."""
    keys = ("type", "id", "parentId", "timestamp")
    short = {key: event.get(key) for key in keys}
    entry = {key: event.get(key) for key in ("id", "parentId", "timestamp", "type")}
    message = event.get("message", {})
    model = {"role": message.get("role"), "timestamp": message.get("timestamp"), "content": []}
    value = {
        "version": 1,
        "report": {"kind": "canonical", "hasParentId": True, "entry": entry},
        "navigation": {**short, "message": {"role": message.get("role"), "__openclaw": {}}},
        "reset": {**short, "message": {"role": message.get("role")}},
        "model": {**short, "message": model},
        "modelBytes": size,
        "modelWithoutCheckpointBytes": size,
        "withoutCustomDataBytes": size,
    }
    return json.dumps(value, separators=(",", ":"))


def write_old_memory(path: Path, chunks: Sequence[Chunk]) -> None:
    """The memory index of 2026.2, ``memory/main.sqlite``: embeddings as JSON text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = sqlite3.connect(path)
    conn.executescript(OLD_MEMORY_SCHEMA)
    meta = {"model": "text-embedding-3-small", "provider": "openai", "chunkTokens": 400}
    conn.execute("INSERT INTO meta VALUES ('memory_index_meta_v1', ?)", (json.dumps(meta),))
    for name in sorted({chunk.path for chunk in chunks}):
        row = (name, "memory", digest("file", name), chunks[0].at_ms, 2048)
        conn.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?)", row)
    for chunk in chunks:
        conn.execute(
            "INSERT INTO chunks VALUES (?, ?, 'memory', ?, ?, ?, ?, ?, ?, ?)",
            (
                uuid_of("old-chunk", chunk.id),
                chunk.path,
                chunk.start_line,
                chunk.end_line,
                digest(chunk.text),
                "text-embedding-3-small",
                chunk.text,
                json.dumps([round(number, 6) for number in chunk.vector]),
                chunk.at_ms,
            ),
        )
    conn.commit()
    conn.close()
