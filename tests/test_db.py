"""memory.db: transactions, snapshots, what goes wrong on a disk, and that no apsw error escapes."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import apsw
import pytest

from knowme import db, schema
from knowme.db import Database, rows, value
from knowme.errors import HomeError, KnowmeError, StoreError
from knowme.lock import Lock


@pytest.fixture
def store(tmp_path):
    opened = Database(tmp_path / "memory.db")
    yield opened
    opened.close()


def put(conn, name, size=1):
    conn.execute("INSERT INTO marks VALUES('s', ?, ?, 1)", (str(name), "x" * size))


def units(store):
    with store.read() as conn:
        return [row[0] for row in rows(conn, "SELECT unit FROM marks ORDER BY unit")]


# --- writing and reading -------------------------------------------------------------------------


def test_a_write_returns_its_result_once_another_connection_can_see_it(store):
    assert store.write(lambda conn: put(conn, "a") or 42) == 42
    other = apsw.Connection(str(store.path))
    assert rows(other, "SELECT unit FROM marks") == [("a",)]


def test_what_a_write_raises_comes_out_and_nothing_of_it_happened(store):
    def fails(conn):
        put(conn, "a")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.write(fails)
    with pytest.raises(StoreError, match="UNIQUE"):
        store.write(lambda conn: (put(conn, "b"), put(conn, "b")))
    store.write(lambda conn: put(conn, "c"))
    assert units(store) == ["c"]


def test_a_write_that_is_interrupted_is_rolled_back(store):
    class Stop(BaseException):
        pass

    def fails(conn):
        put(conn, "a")
        raise Stop

    with pytest.raises(Stop):
        store.write(fails)
    assert units(store) == []


def test_a_write_inside_a_write_is_refused_instead_of_waiting_for_itself(store):
    with pytest.raises(StoreError, match="inside a write"):
        store.write(lambda conn: store.write(lambda inner: None))
    store.write(lambda conn: put(conn, "a"))


def test_a_statement_that_a_write_gave_back_is_finished(store):
    """Else its cursor dies in this thread, where its connection is busy, and no VACUUM goes."""
    given = store.maintain(lambda conn: conn.execute("PRAGMA secure_delete=ON"))
    assert given is None
    store.maintain(lambda conn: conn.execute("VACUUM"))


def test_writes_of_many_threads_run_one_after_the_other(store):
    def add(conn):
        seen = value(conn, "SELECT count(*) FROM marks")
        time.sleep(0.001)
        put(conn, seen)

    threads = [
        threading.Thread(target=lambda: [store.write(add) for _ in range(10)]) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, units(store))) == list(range(50))


def test_a_reader_sees_one_moment_whatever_is_written_meanwhile(store):
    store.write(lambda conn: put(conn, "a"))
    with store.read() as conn:
        assert value(conn, "SELECT count(*) FROM marks") == 1
        store.write(lambda conn: put(conn, "b"))
        assert value(conn, "SELECT count(*) FROM marks") == 1
        with store.read() as second:
            assert value(second, "SELECT count(*) FROM marks") == 2
    assert units(store) == ["a", "b"]


def test_a_reader_cannot_write(store):
    with pytest.raises(StoreError), store.read() as conn:
        put(conn, "a")
    assert units(store) == []


def test_data_version_tells_of_writes_by_anybody(store):
    before = store.data_version()
    assert store.data_version() == before
    store.write(lambda conn: put(conn, "a"))
    after = store.data_version()
    other = Database(store.path)
    other.write(lambda conn: put(conn, "b"))
    other.close()
    assert len({before, after, store.data_version()}) == 3


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from knowme.db import Database, value

    store = Database(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        def add(conn):
            seen = value(conn, "SELECT count(*) FROM marks")
            conn.execute("INSERT INTO marks VALUES(?, ?, '', 1)", (sys.argv[2], str(seen)))
        store.write(add)
    store.close()
""")


def test_two_processes_write_at_once_and_neither_loses_or_sees_a_half(store):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, store.path, name],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    assert sorted(map(int, units(store))) == list(range(200))


# --- closing -------------------------------------------------------------------------------------


def test_close_finishes_what_is_queued_and_can_be_called_again(store):
    slow = threading.Thread(
        target=lambda: store.write(lambda conn: time.sleep(0.2) or put(conn, "a"))
    )
    slow.start()
    time.sleep(0.05)
    store.close()
    store.close()
    slow.join()
    again = Database(store.path)
    assert units(again) == ["a"]
    again.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.write(lambda conn: None),
        lambda store: store.read().__enter__(),
        lambda store: store.data_version(),
    ],
)
def test_a_closed_database_says_so(store, use):
    store.data_version()
    with store.read():
        pass
    store.close()
    with pytest.raises(StoreError, match="already closed"):
        use(store)


def test_closing_while_a_reader_reads_does_not_pull_the_file_from_under_it(store):
    store.write(lambda conn: [put(conn, n) for n in range(1000)])
    with store.read() as conn:
        found = conn.execute("SELECT unit FROM marks")
        next(found)
        store.close()
        assert len(list(found)) == 999


def test_closing_leaves_one_file_without_a_log(store):
    store.write(lambda conn: put(conn, "a"))
    with store.read():
        pass
    store.close()
    left = {path.name for path in store.path.parent.iterdir()}
    assert left == {"memory.db", "memory.db.lock"}


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_database_that_may_not_grow_says_the_disk_is_full_and_keeps_what_it_had(store):
    store.write(lambda conn: put(conn, "kept"))
    store.write(
        lambda conn: conn.execute(f"PRAGMA max_page_count={conn.pragma('page_count') + 5}") and None
    )
    with pytest.raises(StoreError, match="disk is full") as error:
        store.write(lambda conn: [put(conn, n, 3000) for n in range(100)])
    assert "Free some space" in error.value.hint
    assert units(store) == ["kept"]
    store.write(lambda conn: conn.execute("PRAGMA max_page_count=1000000") and None)
    store.write(lambda conn: put(conn, "later"))
    assert units(store) == ["kept", "later"]


def test_a_disk_that_fills_up_costs_no_acknowledged_write(tmp_path):
    where = tmp_path / "small"
    where.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", where], capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        store, kept = Database(where / "memory.db"), []
        with pytest.raises(StoreError, match="disk is full|disk failed"):
            for number in range(2000):
                store.write(lambda conn, n=number: [put(conn, f"{n}-{i}", 2000) for i in range(5)])
                kept += [f"{number}-{i}" for i in range(5)]
        assert kept and units(store) == sorted(kept)
        store.close()
        again = Database(where / "memory.db")
        with again.read() as conn:
            db.verify(conn)
        assert units(again) == sorted(kept)
        again.close()
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_a_read_only_folder_is_named_with_the_mend():
    """In a process of its own: what root may write to, nobody may not."""
    where = Path(tempfile.mkdtemp())  # not below a folder that only its owner may enter
    Database(where / "memory.db").close()
    code = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from knowme.db import Database
        from knowme.errors import StoreError
        for name in ("memory.db", "new.db"):
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                store = Database(Path(sys.argv[1]) / name)
                store.write(lambda conn: conn.execute("CREATE TABLE x(y)"))
            except StoreError as error:
                print(error.message, "|", error.hint)
    """)
    for path in [*where.iterdir(), where]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = subprocess.run([sys.executable, "-c", code, where], capture_output=True, text=True)
    where.chmod(0o755)
    shutil.rmtree(where)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and not done.stderr, done.stderr
    for line, name in zip(lines, ("memory.db", "new.db"), strict=True):
        assert str(where / name) in line and "permissions" in line


@pytest.mark.parametrize("content", [b"Dear diary, " * 1000, os.urandom(9000)])
def test_a_file_that_is_no_database_is_named_with_the_mend(tmp_path, content):
    path = tmp_path / "memory.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a database") as error:
        Database(path)
    assert "knowme restore" in error.value.hint and str(path) in error.value.message
    assert path.read_bytes() == content


def test_a_damaged_database_is_named_with_the_mend(tmp_path):
    path = tmp_path / "memory.db"
    store = Database(path)
    store.write(lambda conn: [put(conn, n, 3000) for n in range(300)])
    store.close()
    with path.open("r+b") as file:
        file.seek(90 * 4096)  # beyond the tables of the schema
        file.write(os.urandom(200 * 4096))
    store = Database(path)
    with pytest.raises(StoreError, match="damaged"), store.read() as conn:
        rows(conn, "SELECT sum(length(state)) FROM marks")
    with pytest.raises(StoreError), store.read() as conn:
        db.verify(conn)
    store.close()


def test_a_missing_folder_a_newer_schema_and_a_restore_in_progress_are_refused(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        Database(tmp_path / "gone" / "memory.db")
    path = tmp_path / "memory.db"
    Database(path).close()
    conn = apsw.Connection(str(path))
    conn.pragma("user_version", len(schema.MIGRATIONS) + 1)
    conn.close()
    with pytest.raises(StoreError, match="Upgrade knowme"):
        Database(path)
    with Lock(path.with_name("memory.db.lock")), pytest.raises(HomeError, match="in use"):
        Database(path)


def test_a_failed_opening_holds_nothing_open(tmp_path):
    path = tmp_path / "memory.db"
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(StoreError):
        Database(path)
    Lock(path.with_name("memory.db.lock")).release()
    path.unlink()
    Database(path).close()


def test_a_database_that_another_program_keeps_locked_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(db, "BUSY_MS", 100)
    store = Database(tmp_path / "memory.db")
    other = apsw.Connection(str(store.path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"):
        store.write(lambda conn: put(conn, "a"))
    other.execute("ROLLBACK")
    store.write(lambda conn: put(conn, "a"))
    store.close()


APSW_ERRORS = [
    error
    for error in vars(apsw).values()
    if isinstance(error, type) and issubclass(error, apsw.Error)
]


@pytest.mark.parametrize("kind", APSW_ERRORS, ids=lambda kind: kind.__name__)
def test_no_apsw_error_leaves_a_write_a_read_or_a_copy(store, kind, tmp_path):
    def fails(*_):
        raise kind("as told")

    assert len(APSW_ERRORS) > 20
    with pytest.raises(KnowmeError) as error:
        store.write(fails)
    assert error.value.hint and "as told" in error.value.message
    with pytest.raises(KnowmeError), store.read():
        fails()
    with pytest.raises(KnowmeError):
        store.backup(tmp_path / "copy.db", fails)
    assert not list(tmp_path.glob("copy.db*"))


def test_durability_is_what_was_asked_for(tmp_path):
    for durability, level in (("full", 2), ("normal", 1)):
        store = Database(tmp_path / f"{durability}.db", durability=durability)
        asked = store.write(lambda conn: (conn.pragma("synchronous"), conn.pragma("journal_mode")))
        assert asked == (level, "wal")
        store.close()


def test_a_copy_of_nothing_or_to_nowhere_is_refused_with_the_name(store, tmp_path):
    with pytest.raises(StoreError, match=r"nothing\.db"):
        db.copy(tmp_path / "nothing.db", tmp_path / "copy.db")
    with pytest.raises(StoreError, match="no/copy.db"):
        store.backup(tmp_path / "no" / "copy.db")
