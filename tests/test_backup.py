"""Backups: whole or absent, and a way back that is either taken or not."""

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest

from knowme import backup, db, schema
from knowme.db import Database, value
from knowme.errors import HomeError, NotFoundError, StoreError
from knowme.home import Home

STEPS = ("copied", "folded", "kept", "cleared", "swapped")


def put(database, name, size=10):
    database.write(
        lambda conn: conn.execute(
            "INSERT INTO marks VALUES('s', ?, ?, 1)", (name, "x" * size)
        ).fetchall()
    )


def marks(path):
    """Read a database file as it stands, beside its log."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as conn:
        db.verify(conn)
        return {row[0] for row in conn.execute("SELECT unit FROM marks")}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def named(folder, at):
    return folder / f"memory-{at:%Y%m%d-%H%M%S}.db"


def damage(path, at=0.5):
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * at) // 4096 * 4096)
        file.write(os.urandom(4096))


@pytest.fixture
def closed(tmp_path):
    """Give the folder of a home with one row "old" and one backup, that has "saved" alone."""
    path = tmp_path / "h"
    Home.create(path)
    with Home.open(path) as home:
        put(home.db, "saved")
        backup.backup(home)
        home.db.write(lambda conn: conn.execute("UPDATE marks SET unit='old'").fetchall())
    return path


# --- making them ---------------------------------------------------------------------------------


def test_a_backup_holds_everything_is_private_and_has_the_settings_beside_it(home):
    put(home.db, "one")
    path = backup.backup(home)
    assert marks(path) == {"one"}
    assert path.parent == home.path / "backups" and mode(path) == 0o600
    assert backup.made_at(path) is not None
    copy = path.with_name(path.name.replace("memory", "config").replace(".db", ".yaml"))
    assert copy.read_bytes() == (home.path / "config.yaml").read_bytes() and mode(copy) == 0o600
    assert backup.backups(home.path) == [path]
    assert not list(path.parent.glob("*.partial*"))


def test_two_backups_of_one_second_have_two_names(home):
    paths = [backup.backup(home) for _ in range(3)]
    assert len(set(paths)) == 3 and backup.backups(home.path) == sorted(paths, reverse=True)


def test_a_backup_is_one_moment_of_a_database_that_goes_on_being_written(home):
    """Two rows are always written together; a copy with one of them would be torn."""
    over, count = threading.Event(), [0]

    def pair(conn):
        count[0] += 1
        for side in "ab":
            conn.execute("INSERT INTO marks VALUES(?, ?, ?, 1)", (side, str(count[0]), "x" * 9000))

    def write():
        while not over.is_set():
            home.db.write(pair)

    for _ in range(200):
        home.db.write(pair)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        paths = [backup.backup(home, lambda done, total: time.sleep(0.01)) for _ in range(3)]
    finally:
        over.set()
        thread.join()
    for path in paths:
        with closing(db.connect(path, readonly=True)) as conn:
            sides = list(conn.execute("SELECT source, count(*) FROM marks GROUP BY 1"))
        assert sides[0][1] == sides[1][1] >= 200


def test_what_the_progress_raises_ends_the_copy_and_leaves_nothing(home):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup.backup(home, stop)
    assert not [path for path in (home.path / "backups").iterdir() if path.name != "lock"]
    assert backup.backup(home).exists()


def test_a_backup_of_a_damaged_database_is_refused_and_leaves_nothing(tmp_path):
    Home.create(tmp_path / "h")
    with Home.open(tmp_path / "h") as home:
        for number in range(300):
            put(home.db, str(number), 3000)
    damage(tmp_path / "h" / "memory.db")
    with Home.open(tmp_path / "h") as home, pytest.raises(StoreError):
        backup.backup(home)
    assert backup.backups(tmp_path / "h") == []


def test_a_full_disk_during_a_backup_says_so_and_leaves_nothing(home, small_disk):
    for number in range(300):
        put(home.db, str(number), 10_000)
    shutil.rmtree(home.path / "backups")
    (home.path / "backups").symlink_to(small_disk)
    with pytest.raises(StoreError, match=r"full|space"):
        backup.backup(home)
    assert not [path for path in small_disk.iterdir() if path.name != "lock"]


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of one megabyte; skip where this process may not mount one."""
    where = tmp_path / "small"
    where.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where], capture_output=True
    ) if shutil.which("mount") else None  # fmt: skip
    if made is None or made.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def test_two_backups_at_once_do_not_disturb_each_other(home):
    put(home.db, "one")
    seen = []

    def second(done, total):
        if not seen:
            with pytest.raises(HomeError, match="in use"):
                backup.backup(home)
            seen.append(True)

    assert backup.backup(home, second).exists() and seen


# --- rotation ------------------------------------------------------------------------------------


def make_days(home, *hours_ago):
    made = backup.backup(home)
    now = datetime(2026, 6, 15, 23, tzinfo=UTC)
    paths = []
    for hours in hours_ago:
        path = named(made.parent, now - timedelta(hours=hours))
        shutil.copy(made, path)
        path.with_name(path.name.replace("memory-", "config-").replace(".db", ".yaml")).touch()
        paths.append(path)
    for path in made.parent.glob(f"*{made.stem[7:]}*"):
        path.unlink()
    return paths


def test_rotation_keeps_the_newest_of_each_of_the_newest_days(home):
    paths = make_days(home, 0, 5, 24, 30, 48, 72, 96)
    gone = backup.rotate(home, 3)
    assert backup.backups(home.path) == [paths[0], paths[2], paths[4]]
    assert set(gone) == {paths[1], paths[3], paths[5], paths[6]}
    assert len(list((home.path / "backups").glob("config-*"))) == 3
    assert backup.rotate(home, 3) == []


def test_rotation_never_deletes_the_last_whole_backup(home):
    for number in range(50):
        put(home.db, str(number), 3000)
    paths = make_days(home, 0, 24, 48, 72)
    damage(paths[0], 0)
    damage(paths[1], 0.5)
    backup.rotate(home, 2)
    assert backup.backups(home.path) == paths[:3]


def test_rotation_keeps_one_even_when_told_to_keep_none(home):
    make_days(home, 0, 24)
    backup.rotate(home, 0)
    assert len(backup.backups(home.path)) == 1


# --- the way back --------------------------------------------------------------------------------


def asides(path):
    return sorted(
        p for p in path.glob("memory.db.before-restore-*") if p.name[-4:] not in ("-wal", "-shm")
    )


def test_restore_takes_the_newest_backup_and_keeps_what_was_there(closed):
    (closed / "index" / "numpy-1").mkdir(parents=True)
    used = backup.restore(closed)
    assert used == backup.backups(closed)[0]
    assert marks(closed / "memory.db") == {"saved"} and mode(closed / "memory.db") == 0o600
    (aside,) = asides(closed)
    assert marks(aside) == {"old"} and mode(aside) == 0o600
    assert not list((closed / "index").iterdir())
    with Home.open(closed) as home:
        put(home.db, "new")
    assert marks(closed / "memory.db") == {"saved", "new"}


def test_restore_takes_a_named_backup_and_one_into_a_home_that_lost_its_database(closed):
    elsewhere = closed.parent / "elsewhere.db"
    shutil.copy(backup.backups(closed)[0], elsewhere)
    (closed / "memory.db").unlink()
    assert backup.restore(closed, elsewhere) == elsewhere
    assert marks(closed / "memory.db") == {"saved"} and not asides(closed)


def test_what_only_stood_in_the_log_of_a_killed_process_is_kept_aside_too(closed):
    """The log is folded into the file, and never replayed into the restored one."""
    code = "import sys, os, apsw; c = apsw.Connection(sys.argv[1]); "
    code += "c.execute(\"INSERT INTO marks VALUES('s','logged','{}',1)\"); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, closed / "memory.db"])
    assert (closed / "memory.db-wal").stat().st_size > 0
    backup.restore(closed)
    assert marks(closed / "memory.db") == {"saved"}
    assert marks(asides(closed)[0]) == {"old", "logged"}


@pytest.mark.parametrize("where", [0, 0.5, "cut short"])
def test_a_damaged_database_is_replaced_with_its_log_out_of_the_way(closed, where):
    live = closed / "memory.db"
    conn = apsw.Connection(str(live))
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("INSERT INTO marks VALUES('s','logged','{}',1)")
    shutil.copy(closed / "memory.db-wal", closed / "kept-wal")
    conn.close()
    shutil.copy(closed / "kept-wal", closed / "memory.db-wal")
    if where == "cut short":
        os.truncate(live, live.stat().st_size // 8192 * 4096)
    else:
        damage(live, where)
    backup.restore(closed)
    assert marks(live) == {"saved"}
    assert len(asides(closed)) == 1


def test_a_damaged_backup_is_refused_by_name_and_a_whole_one_offered(closed):
    whole = backup.backups(closed)[0]
    worse = whole.with_name("memory-29990101-000000.db")
    shutil.copy(whole, worse)
    damage(worse, 0)
    with pytest.raises(StoreError) as error:
        backup.restore(closed)
    assert str(worse) in error.value.message and str(whole) in error.value.hint
    assert marks(closed / "memory.db") == {"old"} and not asides(closed)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (f"PRAGMA user_version={len(schema.MIGRATIONS) + 1}", "has schema"),
        ("PRAGMA application_id=7", "another program"),
        ("PRAGMA foreign_keys=OFF; INSERT INTO vectors VALUES(77, 77, x'00')", "point to nothing"),
    ],
)
def test_a_backup_of_a_newer_foreign_or_inconsistent_kind_is_refused_by_name(closed, sql, says):
    path = backup.backups(closed)[0]
    with closing(apsw.Connection(str(path))) as conn:
        conn.execute(sql)
    with pytest.raises(StoreError, match=says) as error:
        backup.restore(closed)
    assert str(path) in error.value.message
    assert marks(closed / "memory.db") == {"old"}


@pytest.mark.parametrize(
    "content", [b"", b"not a database, but long enough to be read as one" * 99]
)
def test_a_file_that_is_no_database_is_refused_by_name(closed, content):
    path = closed.parent / "letter.db"
    path.write_bytes(content)
    with pytest.raises(StoreError) as error:
        backup.restore(closed, path)
    assert str(path) in error.value.message and marks(closed / "memory.db") == {"old"}


def test_no_backup_at_all_and_a_missing_one_are_named(closed):
    with pytest.raises(StoreError, match="no backup .*gone.db"):
        backup.restore(closed, closed / "gone.db")
    shutil.rmtree(closed / "backups")
    with pytest.raises(NotFoundError, match="knowme backup"):
        backup.restore(closed)


def test_restore_is_refused_while_a_process_of_ours_has_the_home_open(closed):
    with Home.open(closed), pytest.raises(HomeError, match="in use"):
        backup.restore(closed)
    assert marks(closed / "memory.db") == {"old"} and not list(closed.glob("*.restoring*"))


def test_restore_is_refused_while_another_program_has_the_database_open(closed):
    code = "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('SELECT * FROM marks')"
    code += "; print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code, closed / "memory.db"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert other.stdout.readline() == b"open\n"
    with pytest.raises(HomeError, match="another program"):
        backup.restore(closed)
    other.communicate(b"")
    assert marks(closed / "memory.db") == {"old"} and not list(closed.glob("*.restoring*"))
    backup.restore(closed)


def test_the_home_cannot_be_opened_while_it_is_being_restored(closed, monkeypatch):
    refused = []

    def reached(step):
        with pytest.raises(HomeError, match=str(os.getpid())):
            Database(closed / "memory.db")
        refused.append(step)

    monkeypatch.setattr(backup, "_reached", reached)
    backup.restore(closed)
    assert refused == list(STEPS)


def test_a_full_disk_during_restore_leaves_the_old_database(closed, small_disk):
    there = small_disk / "h"
    shutil.copytree(closed, there)
    filler = there / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(StoreError, match=r"full|space"):
        backup.restore(there)
    filler.unlink()
    assert marks(there / "memory.db") == {"old"} and not list(there.glob("*.restoring*"))


# --- killed on the way ---------------------------------------------------------------------------

KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from knowme import backup

    wanted = sys.argv[2]
    def reached(step):
        if step == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
    backup._reached = reached
    print("go", flush=True)
    backup.restore(Path(sys.argv[1]))
    print("end", flush=True)
""")


def old_or_new(path):
    """Assert that a whole database is in place and the old one somewhere; tell which."""
    found = marks(path / "memory.db")
    assert found in ({"old"}, {"saved"})
    if found == {"saved"}:
        assert any(marks(aside) == {"old"} for aside in asides(path))
    return found


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_each_step_leaves_the_old_or_the_new_database(closed, step):
    done = subprocess.run([sys.executable, "-c", KILLED, closed, step], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert old_or_new(closed) == ({"saved"} if step == "swapped" else {"old"})
    with Home.open(closed) as home:
        put(home.db, "later")
    backup.restore(closed)
    assert marks(closed / "memory.db") == {"saved"}
    assert not list(closed.glob("*.restoring*"))
    before = [marks(aside) for aside in asides(closed)]
    assert {"later", "saved" if step == "swapped" else "old"} in before


@pytest.mark.kill
@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_the_old_or_the_new_database(closed):
    chance, killed = random.Random(7), []
    clean = min(_restore(closed.parent / f"clean{n}", closed, None)[1] for n in range(3))
    for number in range(250):  # a run that ends before its kill counts for nothing
        path = closed.parent / f"run{number}"
        ended, _ = _restore(path, closed, chance.uniform(0, clean))
        (found,) = old_or_new(path)
        if not ended:
            killed.append(found)
        shutil.rmtree(path)
        if len(killed) == 50:
            break
    assert len(killed) == 50 and "old" in killed


def _restore(path, home, delay):
    """Restore in a process that is killed after ``delay`` seconds; (ended by itself, seconds)."""
    shutil.copytree(home, path)
    worker = subprocess.Popen([sys.executable, "-c", KILLED, path, "never"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert worker.stdout.readline() == b"go\n"
    began = time.perf_counter()
    if delay is not None:
        time.sleep(delay)
        worker.kill()
    out, err = worker.communicate()
    assert not err, err
    return b"end" in out, time.perf_counter() - began


def test_a_killed_backup_leaves_no_file_that_looks_like_one(home):
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from knowme import backup
        from knowme.home import Home

        backup.backup(Home.open(Path(sys.argv[1])), lambda *_: os.kill(os.getpid(), 9))
    """)
    put(home.db, "one")
    done = subprocess.run([sys.executable, "-c", code, home.path], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    left = list((home.path / "backups").glob("*.partial*"))
    assert left and backup.backups(home.path) == []
    backup.backup(home)
    assert not [path for path in left if path.exists()]
    assert value_of(backup.backups(home.path)[0]) == 1


def value_of(path: Path):
    with closing(db.connect(path, readonly=True)) as conn:
        return value(conn, "SELECT count(*) FROM marks")
