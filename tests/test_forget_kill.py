"""SIGKILL in the middle of a forgetting: the next run brings it to the same end.

The process kills itself at each place where something has changed on the disk, and once more while
it resumes; then another one resumes, and everything is looked at from outside.
"""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from lived import copied, everything, index_words, lived, stands

from knowme import forget
from knowme.db import connect, rows, value
from knowme.forget import What, whole
from knowme.home import Home

pytestmark = [pytest.mark.kill, pytest.mark.slow]

STEPS = ("planned", "files", "batch", "erased", "wiped", "done")
MESSAGES = 40

KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from knowme import forget
    from knowme.forget import whole
    from knowme.home import Home

    path, wanted, number, *ids = sys.argv[1:]
    whole.BATCH = 8
    left = int(number)
    def reached(step):
        global left
        if step == wanted:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
    whole._reached = reached
    with Home.open(Path(path)) as home:
        print("go", flush=True)
        if ids:
            forget.erase(home, forget.plan(home, forget.What("message", messages=tuple(ids))))
        else:
            forget.resume(home)
    print("end", flush=True)
""")


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Path:
    return lived(tmp_path_factory.mktemp("life"))


def run(path, step, ids=(), number=1):
    given = [sys.executable, "-c", KILLED, path, step, number, *ids]
    return subprocess.run(
        [str(each) for each in given], capture_output=True, text=True, timeout=120
    )


def chosen(path):
    conn = connect(path / "memory.db", readonly=True)
    found = rows(
        conn,
        "SELECT id, text FROM messages WHERE recall AND role = 'user' AND length(text) > 40"
        " AND id NOT IN (SELECT question_id FROM answers)",
    )
    conn.close()
    return random.Random(4).sample(found, MESSAGES)


def state(path):
    conn = connect(path / "memory.db", readonly=True)
    found = value(conn, "SELECT state FROM erasures ORDER BY id DESC LIMIT 1")
    conn.close()
    return found


def checked(path, before, gone):
    """Assert that all of these words are gone, all other messages there, and the receipt whole."""
    whole = everything(path)
    conn = connect(path / "memory.db", readonly=True)
    left = dict(rows(conn, "SELECT id, text FROM messages"))
    assert value(conn, "SELECT state || plan FROM erasures") == "done{}"
    assert value(conn, "SELECT count(*) FROM pragma_foreign_key_check") == 0
    kept = "SELECT text || char(10) || coalesce(raw, '') || char(10) || meta FROM messages"
    said = "\0".join(text for (text,) in rows(conn, kept)).encode()
    assert gone and not set(gone) & left.keys()
    for text in gone.values():
        assert stands(said, text) or not stands(whole, text), text
    conn.close()
    plan_took = {number for number in before if number not in left}
    assert all(before[number] == text for number, text in left.items())
    now, made = index_words(path)
    assert now == made
    return plan_took


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_after_each_step_is_resumed_to_the_same_end(life, tmp_path, step) -> None:
    path = copied(life, tmp_path / "home")
    gone = dict(chosen(path))
    conn = connect(path / "memory.db", readonly=True)
    before = dict(rows(conn, "SELECT id, text FROM messages"))
    conn.close()
    killed = run(path, step, gone, number=2 if step == "batch" else 1)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if step not in ("done",):
        assert state(path) in ("planned", "erased", "wiped")
    again = run(path, {"planned": "erased", "files": "batch"}.get(step, "wiped"))
    assert again.returncode in (0, -signal.SIGKILL), again.stderr
    with Home.open(path) as home:
        forget.resume(home)
        assert forget.resume(home) == []
    took = checked(path, before, gone)
    whole = copied(life, tmp_path / "whole")
    with Home.open(whole) as home:
        found = forget.plan(home, What("message", messages=tuple(map(str, gone))))
        forget.erase(home, found)
    assert took == set(found.messages)  # what one erases that is not killed


def test_what_is_killed_between_is_not_read_again_by_a_sync(life, tmp_path) -> None:
    from knowme import sync

    path = copied(life, tmp_path / "home")
    gone = dict(chosen(path))
    assert run(path, "batch", gone).returncode == -signal.SIGKILL
    with Home.open(path) as home:
        home.db.write(lambda conn: conn.execute("DELETE FROM marks"))
        counts = sync.sync(home)["openclaw"]
        assert counts.new == 0 and counts.skipped["forgotten"] >= MESSAGES
        forget.resume(home)
    assert state(path) == "done"


def test_kills_at_random_moments_end_like_one_that_was_left_alone(life, tmp_path) -> None:
    chance = random.Random(77)
    path = copied(life, tmp_path / "home")
    gone = dict(chosen(path))
    conn = connect(path / "memory.db", readonly=True)
    before = dict(rows(conn, "SELECT id, text FROM messages"))
    conn.close()
    kills = 0
    for attempt in range(8):
        given = [sys.executable, "-c", KILLED, path, "never", 1, *([] if attempt else gone)]
        process = subprocess.Popen([str(each) for each in given], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "go\n"
        time.sleep(chance.uniform(0.0, 0.2))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait(30)
        process.stdout.close()
        conn = connect(path / "memory.db", readonly=True)
        begun = value(conn, "SELECT count(*) FROM erasures")
        conn.close()
        if not begun:  # it was killed while it planned: nothing of it happened
            with Home.open(path) as home:
                found = forget.plan(home, What("message", messages=tuple(map(str, gone))))
                home.db.write(lambda conn, found=found: whole._begin(conn, found))
    with Home.open(path) as home:
        forget.resume(home)
    assert kills
    checked(path, before, gone)
