"""OpenClaw's SQLite store and its memory, read and never touched."""

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest
import zstandard
from contracts.test_sources import kept, photograph
from openclaw_home import (
    SESSION,
    TALK,
    header,
    jsonl,
    put,
    read,
    sessions,
    skips,
    user,
    words,
)


def store(root: Path, *, version: int = 23, extra: str = "") -> sqlite3.Connection:
    path = root / "agents/main/agent/openclaw-agent.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = sqlite3.connect(path)
    conn.executescript(f"""
        CREATE TABLE IF NOT EXISTS transcript_events(session_id TEXT, seq INTEGER, event_json TEXT,
          created_at INTEGER, event_zstd BLOB, event_utf8_bytes INTEGER, navigation_json TEXT,
          PRIMARY KEY(session_id, seq));
        CREATE TABLE IF NOT EXISTS session_nodes(session_key TEXT PRIMARY KEY,
          current_session_id TEXT, display_name TEXT, spawned_by TEXT, created_via TEXT);
        CREATE TABLE IF NOT EXISTS session_windows(session_id TEXT PRIMARY KEY, session_key TEXT,
          channel TEXT, chat_type TEXT);
        CREATE TABLE IF NOT EXISTS session_transcript_index_state(session_id TEXT PRIMARY KEY,
          indexed_seq INTEGER, leaf_event_id TEXT, needs_rebuild INTEGER, updated_at INTEGER);
        CREATE TABLE IF NOT EXISTS session_transcript_archives(session_id TEXT, generation TEXT,
          encoding TEXT, archive_blob BLOB, archive_sha256 TEXT, archive_name TEXT,
          created_at INTEGER);
        CREATE TABLE IF NOT EXISTS session_transcript_cold_archives(session_id TEXT,
          generation TEXT, archive_name TEXT, archive_sha256 TEXT, storage TEXT, archive_blob BLOB);
        PRAGMA user_version = {version};
        {extra}""")
    return conn


def rows(conn, *events, session: str = SESSION, start: int = 0) -> None:
    for seq, event in enumerate(events, start):
        text = json.dumps(event)
        packed = zstandard.compress(text.encode()) if len(text) > 1023 else None
        conn.execute(
            "INSERT INTO transcript_events(session_id, seq, event_json, event_zstd) VALUES(?,?,?,?)",  # noqa: E501
            (session, seq, None if packed else text, packed),
        )
    conn.commit()


LONG = "tomatoes and the neighbour " * 100


def test_long_rows_are_not_lost_to_compression(tmp_path):
    conn = store(tmp_path)
    rows(conn, *TALK, user("u3", "a2", LONG.strip(), 5))
    conn.close()
    assert words(read(tmp_path)) == ["one", "two", LONG.strip()]


def test_the_stores_leaf_counts_while_its_index_is_whole(tmp_path):
    conn = store(tmp_path)
    rows(conn, *TALK)
    conn.execute("INSERT INTO session_transcript_index_state VALUES(?, 4, 'a1', 0, 1)", (SESSION,))
    conn.commit()
    assert words(read(tmp_path)) == ["one"]
    conn.execute("UPDATE session_transcript_index_state SET needs_rebuild = 1")
    conn.commit()
    conn.close()
    assert words(read(tmp_path)) == ["one", "two"]


def test_rows_that_were_added_are_all_that_is_read(tmp_path):
    conn = store(tmp_path)
    rows(conn, *TALK)
    cursor: dict = {}
    before = read(tmp_path, cursor)
    assert read(tmp_path, cursor) == []
    rows(conn, user("u3", "a2", "three", 5), start=5)
    later = read(tmp_path, cursor)
    assert words(later, None) == ["three"]
    rows(conn, user("u4", "a1", "four", 6), start=6)
    last = read(tmp_path, cursor)
    assert {one.external_id for one in last if one.kind == "removed"} == {"u2", "a2", "u3"}
    assert kept(before + later + last) == kept(read(tmp_path))
    conn.close()


def test_a_migrated_session_is_the_same_conversation(tmp_path):
    put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    before = read(tmp_path, cursor)
    conn = store(tmp_path)
    rows(conn, *TALK, user("u3", "a2", "three", 5))
    conn.close()
    after = read(tmp_path, cursor)
    assert len(kept(before + after)) == 5
    assert not [one for one in after if one.kind == "removed"]


def test_archived_rows_are_read_compressed_or_not(tmp_path):
    conn = store(tmp_path)
    for session, encoding in (("aaa", "identity"), ("bbb", "zstd")):
        data = jsonl(header(session), user(session + "1", None, f"from {session}", 1))
        data = zstandard.compress(data) if encoding == "zstd" else data
        conn.execute(
            "INSERT INTO session_transcript_archives VALUES(?, 'g', ?, ?, ?, ?, 1)",
            (session, encoding, data, session, f"{session}.jsonl.reset.x"),
        )
    conn.commit()
    conn.close()
    found = {one.conversation: one.text for one in read(tmp_path)}
    assert found == {"aaa": "from aaa", "bbb": "from bbb"}


def cold(session: str, leaf: str | None = None) -> bytes:
    lines = [{"kind": "header", "version": 1, "sessionId": session, "generation": "g"}]
    for seq, event in enumerate((header(session), *TALK[1:])):
        row = {"seq": seq, "event_json": json.dumps(event), "created_at": 1}
        lines.append({"kind": "event", "row": row})
    if leaf:
        index = {"indexed_seq": 4, "leaf_event_id": leaf, "needs_rebuild": 0}
        lines.append({"kind": "index", "row": index})
    return zstandard.compress(jsonl(*lines))


@pytest.mark.parametrize("data", [cold(SESSION), zstandard.compress(jsonl(*TALK))])
def test_a_cold_file_is_read_even_when_no_store_names_it(tmp_path, data):
    folder = sessions(tmp_path) / "cold"
    folder.mkdir()
    (folder / f"{hashlib.sha256(data).hexdigest()}.jsonl.zst").write_bytes(data)
    cursor: dict = {}
    records = read(tmp_path, cursor)
    assert words(records) == ["one", "two"]
    assert {one.conversation for one in records} == {SESSION}
    assert read(tmp_path, cursor) == []


def test_a_cold_transcript_inside_the_store_is_read_to_its_own_leaf(tmp_path):
    conn = store(tmp_path)
    conn.execute(
        "INSERT INTO session_transcript_cold_archives VALUES(?, 'g', 'n', 's', 'sqlite', ?)",
        (SESSION, cold(SESSION, leaf="a1")),
    )
    conn.commit()
    conn.close()
    assert words(read(tmp_path)) == ["one"]


def test_a_newer_schema_is_named_once_and_read(tmp_path):
    conn = store(
        tmp_path, version=24, extra="ALTER TABLE transcript_events ADD COLUMN future TEXT;"
    )
    rows(conn, *TALK)
    conn.close()
    cursor: dict = {}
    records = read(tmp_path, cursor)
    assert skips(records) == [
        (
            "agents/main/agent/openclaw-agent.sqlite",
            "schema 24 is newer than 23: reading what can be read",
        )
    ]
    assert words(records) == ["one", "two"]
    assert read(tmp_path, cursor) == []


def test_a_schema_that_lost_columns_and_tables_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "agents/main/agent/openclaw-agent.sqlite"
    path.parent.mkdir(parents=True)
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE transcript_events(session_id TEXT, seq INTEGER, event_json TEXT)")
    rows_plain = [(SESSION, n, json.dumps(event)) for n, event in enumerate(TALK)]
    conn.executemany("INSERT INTO transcript_events VALUES(?, ?, ?)", rows_plain)
    conn.commit()
    conn.close()
    assert words(read(tmp_path)) == ["one", "two"]


def test_a_damaged_row_is_named_and_the_rest_is_taken(tmp_path):
    conn = store(tmp_path)
    rows(conn, *TALK)
    conn.execute("UPDATE transcript_events SET event_json = NULL, event_zstd = x'00' WHERE seq = 3")
    conn.commit()
    conn.close()
    records = read(tmp_path)
    assert skips(records)[0][0].endswith(f"openclaw-agent.sqlite#{SESSION}:3")
    assert words(records, None) == ["one", "first\n\nsecond"]


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "agents/main/agent/openclaw-agent.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database at all" * 100)
    put(tmp_path, f"{SESSION}.jsonl", *TALK)
    records = read(tmp_path)
    assert words(records) == ["one", "two"] and len(skips(records)) == 1


def test_a_spawned_session_of_the_store_is_marked(tmp_path):
    conn = store(tmp_path)
    rows(conn, *TALK)
    conn.execute(
        "INSERT INTO session_nodes VALUES('agent:main:x', ?, 'Modems', 'agent:main:main', NULL)",
        (SESSION,),
    )
    conn.commit()
    conn.close()
    one = read(tmp_path)[0]
    assert one.meta["subagent"] is True and one.title == "Sub-agent: Modems"


@pytest.mark.parametrize("live", [True, False])
def test_a_store_in_use_is_read_with_its_log_and_nothing_is_written(tmp_path, live):
    conn = store(tmp_path)
    conn.execute("PRAGMA journal_mode = WAL")
    rows(conn, *TALK[:3])
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows(conn, *TALK[3:], start=3)
    path = tmp_path / "agents/main/agent/openclaw-agent.sqlite"
    assert path.with_name(path.name + "-wal").stat().st_size
    if live:
        source = tmp_path
    else:  # a copy of a running store: the log without its index
        source = tmp_path / "copy"
        for end in ("", "-wal"):
            target = source / "agents/main/agent" / (path.name + end)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.with_name(path.name + end).read_bytes())
    before = photograph(source)
    assert words(read(source)) == ["one", "two"]
    assert photograph(source) == before
    rows(conn, user("u9", "a2", "the writer goes on", 9), start=9)
    conn.close()


# ---- memory -----------------------------------------------------------------------------------


def test_workspace_memory_is_cut_into_sections(tmp_path):
    (tmp_path / "workspace/memory").mkdir(parents=True)
    (tmp_path / "workspace/MEMORY.md").write_text("# Health\nhazelnuts\n\n# Flat\nBonfim\n")
    (tmp_path / "workspace/memory/2026-01-25-heating.md").write_text("# Heating\ngas\n")
    for name in ("AGENTS.md", "SOUL.md", "TOOLS.md", "DREAMS.md"):
        (tmp_path / "workspace" / name).write_text("# POISON\n")
    cursor: dict = {}
    records = read(tmp_path, cursor)
    assert [(one.kind, one.conversation, one.text) for one in records] == [
        ("section", "workspace/MEMORY.md", "# Health\nhazelnuts"),
        ("section", "workspace/MEMORY.md", "# Flat\nBonfim"),
        ("section", "workspace/memory/2026-01-25-heating.md", "# Heating\ngas"),
    ]
    assert records[2].at_ms == 1_769_342_400_000
    (tmp_path / "workspace/MEMORY.md").write_text("# Health\nhazelnuts\n\n# Flat\nCampanhã\n")
    (tmp_path / "workspace/memory/2026-01-25-heating.md").unlink()
    later = read(tmp_path, cursor)
    assert sorted((one.kind, one.conversation) for one in later) == [
        ("removed", "workspace/MEMORY.md"),
        ("removed", "workspace/memory/2026-01-25-heating.md"),
        ("section", "workspace/MEMORY.md"),
    ]
    assert read(tmp_path, cursor) == []


def memory(root: Path, *chunks: tuple) -> sqlite3.Connection:
    path = root / "memory/main.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = sqlite3.connect(path)
    conn.execute(
        "CREATE TABLE IF NOT EXISTS chunks(id TEXT PRIMARY KEY, path TEXT, source TEXT,"
        " start_line INTEGER, end_line INTEGER, hash TEXT, model TEXT, text TEXT, embedding TEXT,"
        " updated_at INTEGER)"
    )
    conn.executemany(
        "INSERT INTO chunks VALUES(?,?,?,1,2,'h','ada',?,'[0.1]',1769342400000)", chunks
    )
    conn.commit()
    return conn


def test_the_old_index_adds_only_what_no_file_and_no_session_holds(tmp_path):
    (tmp_path / "workspace/memory").mkdir(parents=True)
    (tmp_path / "workspace/memory/a.md").write_text("# A\nread from the file\n")
    put(tmp_path, f"{SESSION}.jsonl", *TALK)
    conn = memory(
        tmp_path,
        ("1", "memory/a.md", "memory", "repeated"),
        ("2", "memory/gone.md", "memory", "only here"),
        ("3", f"sessions/{SESSION}.jsonl", "sessions", "User: one"),
        ("4", "sessions/lost.jsonl", "sessions", "User: from a lost session"),
    )
    cursor: dict = {}
    records = [one for one in read(tmp_path, cursor) if one.conversation.startswith("memory-index")]
    assert sorted(one.text for one in records) == ["User: from a lost session", "only here"]
    assert records[0].meta["indexed_by"] == "ada"
    conn.execute("DELETE FROM chunks WHERE id = '2'")
    conn.commit()
    conn.close()
    later = read(tmp_path, cursor)
    assert [(one.kind, one.external_id) for one in later] == [("removed", "2")]
    assert read(tmp_path, cursor) == []


def test_the_new_index_says_who_a_chunk_comes_from(tmp_path):
    conn = store(
        tmp_path,
        extra="""
        CREATE TABLE memory_index_chunks(id TEXT, path TEXT, source TEXT, start_line INTEGER,
          end_line INTEGER, model TEXT, text TEXT, embedding BLOB, updated_at INTEGER);
        CREATE TABLE memory_index_chunk_provenance(chunk_id TEXT, origin_class TEXT,
          session_kind TEXT, observed_at INTEGER);""",
    )
    for number, trust in enumerate(("owner", "agent", "untrusted", "system")):
        conn.execute(
            "INSERT INTO memory_index_chunks VALUES(?, 'memory/x.md', 'memory', ?, 9, 'm', ?, x'00', 1)",  # noqa: E501
            (trust, number, f"by {trust}"),
        )
        conn.execute(
            "INSERT INTO memory_index_chunk_provenance VALUES(?, ?, 'interactive', 1769342400000)",
            (trust, trust),
        )
    conn.commit()
    conn.close()
    found = {one.meta["trust"]: one for one in read(tmp_path)}
    assert {trust: one.recall for trust, one in found.items()} == {
        "owner": True, "agent": True, "untrusted": True, "system": False,
    }  # fmt: skip
    assert found["owner"].at_ms == 1_769_342_400_000
