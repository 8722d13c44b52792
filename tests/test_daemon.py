"""The daemon: one a home, its handlers, and a clean end whatever its jobs do."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request

import pytest

from knowme import backup, daemon, jobs, lock
from knowme.db import rows
from knowme.errors import HomeError, JobError
from knowme.home import Home
from knowme.jobs import Runner
from knowme.settings import JobSettings, LearnSettings, Settings

HEAD = """
    import os, sys, threading, time
    from pathlib import Path
    from knowme import daemon, jobs
    from knowme.home import Home

    class Nothing:
        def start(self): pass
        def alive(self): return True
        def stop(self, seconds): print("service stopped", flush=True)

    def say(text): print(text, flush=True)

    def quick(home, payload, progress):
        say("quick done")

    def polite(home, payload, progress):
        say("started")
        while True:
            progress.update(1, 2)
            time.sleep(0.01)

    def deaf(home, payload, progress):
        say("started")
        time.sleep(600)

    daemon.GRACE_SECONDS = 2.0
    handlers = {"quick": quick, "polite": polite, "deaf": deaf}
    with Home.open(Path(sys.argv[1]), {"embedder.kind": "hashing", "engine.kind": "echo"}) as home:
        daemon.run(home, service=lambda *_: Nothing(), handlers=handlers,
                   on_ready=lambda: say("ready"))
    say("closed")
"""


@pytest.fixture
def start(tmp_path):
    """Give a function that starts a daemon process on a home; each is killed at the end."""
    Home.create(tmp_path / "home")
    started = []

    def run(wait="ready"):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HEAD), tmp_path / "home"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        if wait:  # what was queued before may begin before it is said to be ready
            said = {process.stdout.readline().strip() for _ in wait.split()}
            assert said == set(wait.split())
        return process

    run.path = tmp_path / "home"
    yield run
    for process in started:
        process.kill()
        process.communicate()


def queue(path, kind):
    with Home.open(path) as home:
        return home.db.write(lambda conn: jobs.enqueue(conn, kind, {}))


def job(path, ident):
    with Home.open(path) as home, home.db.read() as conn:
        return jobs.show(conn, ident)


def end(process, number=signal.SIGTERM, seconds=15):
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=seconds)
    return out, err, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_jobs_of_other_processes_and_ends_cleanly_on_a_signal(start, number):
    process = start()
    ident = queue(start.path, "quick")
    assert process.stdout.readline() == "quick done\n"
    out, err, took = end(process, number)
    assert process.returncode == 0 and out.split("\n")[:2] == ["service stopped", "closed"], err
    assert took < 5
    assert job(start.path, ident).state == "done"


def test_a_running_job_reaches_its_safe_point_and_waits_uncounted(start):
    ident = queue(start.path, "polite")
    process = start("ready started")
    _, err, took = end(process)
    assert process.returncode == 0 and took < 5, err
    found = job(start.path, ident)
    assert (found.state, found.attempts) == ("queued", 0)


def test_a_job_that_does_not_listen_is_left_to_its_lease_and_the_end_is_bounded(start):
    ident = queue(start.path, "deaf")
    process = start("ready started")
    _, err, took = end(process)
    assert process.returncode == 0 and 1.5 < took < 10, err
    assert "left to its lease" in err
    found = job(start.path, ident)
    assert (found.state, found.attempts) == ("running", 1)
    with Home.open(start.path) as home:
        later = found.started_ms + 2 * jobs.LEASE_MS
        assert home.db.write(
            lambda conn: jobs.claim(conn, ["deaf"], "next", now_ms=later)
        ).id == ident  # fmt: skip


def test_a_second_signal_ends_it_at_once(start):
    queue(start.path, "deaf")
    process = start("ready started")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    _, _, took = end(process)
    assert process.returncode == 1 and took < 1


def test_a_second_daemon_of_one_home_is_refused_with_the_pid_of_the_first(start):
    first = start()
    with Home.open(start.path) as home, pytest.raises(HomeError, match=f"pid {first.pid}"):
        daemon.run(home, service=lambda *_: pytest.fail("must not start"))
    assert lock.holder(start.path / daemon.LOCK) == first.pid
    with pytest.raises(HomeError, match=f"kill {first.pid}"):
        backup.restore(start.path)


def test_the_lock_of_a_killed_daemon_is_no_obstacle(start):
    first = start()
    first.kill()
    first.wait()
    assert lock.holder(start.path / daemon.LOCK) is None
    second = start()
    assert end(second)[0].endswith("closed\n")


def test_the_lock_of_a_killed_daemon_is_free_though_a_child_of_it_lives(tmp_path):
    """A model worker that was forked holds a copy of every descriptor."""
    code = textwrap.dedent("""
        import os, sys, time
        from pathlib import Path
        from knowme.lock import Lock
        held = Lock(Path(sys.argv[1]))
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        time.sleep(0.2)
        print(child, flush=True)
        os.kill(os.getpid(), 9)
    """)
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    process.wait()
    try:
        os.kill(child, 0)
        lock.Lock(path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_locks_exclude_as_they_should_and_name_only_a_living_holder(tmp_path):
    path = tmp_path / "lock"
    with lock.Lock(path, shared=True), lock.Lock(path, shared=True):
        with pytest.raises(HomeError) as error:
            lock.Lock(path)
        assert "pid" not in error.value.message
        assert lock.holder(path) is None
    with lock.Lock(path):
        assert lock.holder(path) == os.getpid()
        with pytest.raises(HomeError, match=str(os.getpid())):
            lock.Lock(path, shared=True)
    assert lock.holder(path) is None and lock.holder(tmp_path / "none") is None
    held = lock.Lock(path)
    held.release()
    held.release()
    with pytest.raises(HomeError, match="No such file"):
        lock.Lock(tmp_path / "no" / "lock")


def test_the_daily_jobs_are_made_once_moved_and_ended_as_the_settings_say(home):
    def schedules(**given):
        def both(conn):
            daemon.ensure_schedules(conn, Settings(jobs=JobSettings(**given)))
            return rows(conn, "SELECT kind, every FROM jobs WHERE state='queued' ORDER BY kind")

        return home.db.write(both)

    adapter = ("adapter", "every 6h")
    usual = [adapter, ("backup", "daily 04:00"), ("sync", "daily 03:30")]
    assert schedules() == schedules() == usual
    assert schedules(sync_at="22:15") == [*usual[:2], ("sync", "daily 22:15")]
    assert schedules(sync_at="", backup_at="") == [adapter]
    never = Settings(jobs=JobSettings(sync_at="", backup_at=""), learn=LearnSettings(every="never"))
    home.db.write(lambda conn: daemon.ensure_schedules(conn, never))
    with home.db.read() as conn:
        assert rows(conn, "SELECT kind FROM jobs WHERE state='queued'") == []
    assert schedules() == usual
    with pytest.raises(JobError, match="25:00"):
        schedules(sync_at="25:00")
    assert schedules() == usual


def test_a_service_that_ends_by_itself_ends_the_daemon_and_gives_the_home_back(home):
    class Dying:
        def start(self):
            self.until = time.monotonic() + 0.3

        def alive(self):
            return time.monotonic() < self.until

        def stop(self, seconds):
            pass

    daemon.run(home, service=lambda *_: Dying(), handlers={})
    lock.Lock(home.path / daemon.LOCK).release()


def test_a_service_that_cannot_start_leaves_no_lock_and_no_runner(home):
    def refuse(*_):
        raise HomeError("The port is taken.")

    with pytest.raises(HomeError, match="port is taken"):
        daemon.run(home, service=refuse)
    lock.Lock(home.path / daemon.LOCK).release()
    assert not [t for t in threading.enumerate() if t.name.startswith("knowme-jobs")]


# --- the handlers --------------------------------------------------------------------------------


def run_job(home, kind, payload=None):
    ident = home.db.write(lambda conn: jobs.enqueue(conn, kind, payload or {}))
    Runner(home, daemon.HANDLERS).run_due()
    with home.db.read() as conn:
        return jobs.show(conn, ident)


def test_the_backup_job_makes_one_and_rotates(home):
    found = run_job(home, "backup")
    assert found.state == "done" and found.progress["note"] == backup.backups(home.path)[0].name


def test_the_sync_job_of_a_home_without_sources_has_nothing_to_do(home):
    assert run_job(home, "sync").state == "done"


@pytest.fixture
def notes(tmp_path):
    """Give a home that reads a folder of two notes, and one source that is not there."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("# Heating\n\nThe heat pump comes in May.\n")
    (folder / "b.md").write_text("# Garden\n\nThe apple tree stays.\n")
    Home.create(tmp_path / "home")
    config = {"embedder": {"kind": "hashing"}, "engine": {"kind": "echo"}}
    config["sources"] = [{"kind": "markdown", "path": str(folder)}]
    (tmp_path / "home" / "config.yaml").write_text(json.dumps(config))
    return tmp_path / "home"


def test_the_sync_job_reads_the_sources_and_says_what_came(notes):
    with Home.open(notes) as home:
        found = run_job(home, "sync")
        assert found.state == "done", found.error
        assert "2 new" in found.progress["note"]


def test_the_reindex_job_brings_the_missing_vectors(notes):
    with Home.open(notes) as home:
        run_job(home, "sync")
        home.db.write(lambda conn: conn.execute("DELETE FROM vectors").fetchall())
        found = run_job(home, "reindex")
        assert (found.state, found.progress["note"]) == ("done", "2 embedded")


def test_a_source_that_fails_fails_the_job_after_the_others_are_read(notes):
    config = json.loads((notes / "config.yaml").read_text())
    config["sources"].append({"kind": "markdown", "path": str(notes / "gone"), "name": "gone"})
    (notes / "config.yaml").write_text(json.dumps(config))
    with Home.open(notes) as home:
        found = run_job(home, "sync")
        assert found.state == "queued" and "gone" in found.error
        with home.db.read() as conn:
            assert rows(conn, "SELECT count(*) FROM messages") == [(2,)]


@pytest.mark.slow
def test_knowme_daemon_serves_and_ends_cleanly_as_a_command(notes, knowme_process):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "knowme", "--home", notes, "daemon", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
                    assert json.load(reply)["status"] in ("ok", "degraded")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.1)
        second = knowme_process("--home", notes, "daemon", "--port", "0")
        assert second.returncode != 0 and str(process.pid) in second.stderr
        _, err, took = end(process)
        assert process.returncode == 0 and took < 10, err
    finally:
        process.kill()
        process.communicate()
