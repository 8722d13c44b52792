"""Migrations: from the oldest file with rows in it to the newest, whole or not at all."""

import subprocess
import sys
import textwrap

import apsw
import pytest

from knowme import schema
from knowme.db import rows, verify
from knowme.errors import StoreError


def oldest(path):
    """Make a file of the first schema, with rows, as the first version left it."""
    conn = apsw.Connection(str(path))
    schema.m001_archive(conn)
    conn.pragma("application_id", schema.APPLICATION_ID)
    conn.pragma("user_version", 1)
    conn.execute("""
        INSERT INTO conversations(source, external_id, created_ms) VALUES('openclaw', 's1', 1);
        INSERT INTO messages(conversation_id, external_id, seq, role, text, hash, recorded_ms)
          VALUES(1, 'm1', 1, 'user', 'Olá, the heat pump comes in May.', x'00', 1);
        INSERT INTO marks VALUES('openclaw', 'file', '{"at": 7}', 1);
    """)
    return conn


def shape(conn):
    return rows(conn, "SELECT type, name, sql FROM sqlite_schema ORDER BY name")


def test_the_oldest_file_is_brought_to_the_newest_with_its_rows(tmp_path):
    conn = oldest(tmp_path / "old.db")
    assert schema.migrate(conn) == len(schema.MIGRATIONS) - 1
    assert schema.check_version(conn) == len(schema.MIGRATIONS)
    assert rows(conn, "SELECT text FROM messages") == [("Olá, the heat pump comes in May.",)]
    assert rows(conn, "SELECT state FROM marks") == [('{"at": 7}',)]
    verify(conn)
    new = apsw.Connection(":memory:")
    schema.migrate(new)
    assert shape(conn) == shape(new)


def test_each_step_leads_from_every_older_schema(tmp_path):
    for have in range(len(schema.MIGRATIONS)):
        conn = apsw.Connection(":memory:")
        for step in schema.MIGRATIONS[:have]:
            step(conn)
        conn.pragma("user_version", have)
        conn.pragma("application_id", schema.APPLICATION_ID if have else 0)
        assert schema.migrate(conn) == len(schema.MIGRATIONS) - have
        verify(conn)


def test_migrating_again_does_nothing():
    conn = apsw.Connection(":memory:")
    schema.migrate(conn)
    assert schema.migrate(conn) == 0


def test_migrations_are_numbered_in_order_without_gaps():
    numbers = [int(step.__name__[1:4]) for step in schema.MIGRATIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(step.__doc__ for step in schema.MIGRATIONS)


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path, monkeypatch):
    def m999_bad(conn):
        conn.execute("CREATE TABLE half(x)")
        raise RuntimeError("no")

    conn = oldest(tmp_path / "old.db")
    before = shape(conn)
    monkeypatch.setattr(schema, "MIGRATIONS", (schema.m001_archive, m999_bad))
    with pytest.raises(RuntimeError):
        schema.migrate(conn)
    assert schema.check_version(conn) == 1 and shape(conn) == before


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (f"PRAGMA user_version={len(schema.MIGRATIONS) + 3}", "Upgrade knowme"),
        ("PRAGMA application_id=1", "another program"),
    ],
)
def test_a_newer_or_foreign_file_is_refused_and_not_touched(tmp_path, sql, says):
    conn = oldest(tmp_path / "old.db")
    conn.execute(sql)
    before = shape(conn)
    with pytest.raises(StoreError, match=says):
        schema.migrate(conn)
    assert shape(conn) == before


def test_the_database_of_a_program_that_sets_no_marks_is_not_taken_over(tmp_path):
    conn = apsw.Connection(str(tmp_path / "x.db"))
    conn.execute("CREATE TABLE theirs(x)")
    with pytest.raises(StoreError, match="another program"):
        schema.migrate(conn)
    assert rows(conn, "SELECT name FROM sqlite_schema") == [("theirs",)]


@pytest.mark.parametrize("start", ["empty", "oldest"])
def test_processes_that_migrate_at_once_do_each_step_once(tmp_path, start):
    path = tmp_path / "memory.db"
    if start == "oldest":
        oldest(path).close()
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from knowme.db import Database
        print("ready", flush=True)
        sys.stdin.readline()
        Database(Path(sys.argv[1])).close()
    """)
    racers = [
        subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        _, err = racer.communicate(timeout=60)
        assert racer.returncode == 0, err
    conn = apsw.Connection(str(path))
    assert schema.check_version(conn) == len(schema.MIGRATIONS)
    assert rows(conn, "SELECT count(*) FROM messages") == [(1 if start == "oldest" else 0,)]
    verify(conn)
