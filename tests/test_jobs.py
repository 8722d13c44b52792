"""Jobs: the schedule's arithmetic, the state machine, leases across processes, the runner."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from knowme import jobs, schema
from knowme.db import Database, rows, value
from knowme.errors import ConfigError, JobError, ModelDownError, NotFoundError
from knowme.jobs import Cancelled, Runner
from knowme.schedule import next_run, parse

HOUR = 3_600_000
DAY = 24 * HOUR
ZONES = ["UTC", "Europe/Lisbon", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo",
         "Asia/Beirut", "Pacific/Apia", "Asia/Kolkata", "Africa/Casablanca"]  # fmt: skip
moments = st.integers(0, 4_000_000_000).map(lambda s: s * 1000)


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    at = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(at.timestamp() * 1000)


def shown(at_ms: int, zone: str) -> str:
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %Z")


# --- schedules -----------------------------------------------------------------------------------


@st.composite
def crons(draw):
    def field(low, high):
        span = st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda p: f"{min(p)}-{max(p)}"
        )
        one = st.one_of(
            st.just("*"),
            st.integers(low, high).map(str),
            span,
            st.tuples(st.just("*"), st.integers(1, high)).map(lambda p: f"{p[0]}/{p[1]}"),
        )
        return ",".join(draw(st.lists(one, min_size=1, max_size=2)))

    return " ".join([field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)])


schedules = st.one_of(
    st.tuples(st.integers(1, 9999), st.sampled_from("smhdw")).map(lambda p: f"every {p[0]}{p[1]}"),
    st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda p: f"daily {p[0]}:{p[1]:02}"),
    crons(),
)


@settings(max_examples=150, deadline=None)
@given(schedules, moments, st.sampled_from(ZONES))
def test_the_next_run_is_always_strictly_later(every, after, zone):
    first = next_run(every, after, zone=ZoneInfo(zone))
    assert first > after
    assert next_run(every, first, zone=ZoneInfo(zone)) > first


@settings(max_examples=100, deadline=None)
@given(schedules, moments, st.integers(0, 10_000_000), st.sampled_from(ZONES))
def test_no_run_is_left_out_whenever_one_asks(every, after, wait, zone):
    """Asking again before the next run gives that same run (an interval counts from its due)."""
    tz = ZoneInfo(zone)
    due = None if not every.startswith("every") else after
    first = next_run(every, after, due_ms=due, zone=tz)
    asked = min(after + wait, first - 1)
    assert next_run(every, asked, due_ms=due, zone=tz) == first


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 23), st.integers(0, 59), moments, st.sampled_from(ZONES))
def test_daily_runs_once_each_local_day_through_every_clock_change(hour, minute, after, zone):
    tz = ZoneInfo(zone)
    at = after
    for _ in range(4):
        following = next_run(f"daily {hour}:{minute:02}", at, zone=tz)
        local = datetime.fromtimestamp(following / 1000, tz)
        wanted = timedelta(hours=hour, minutes=minute)
        told = timedelta(hours=local.hour, minutes=local.minute)
        skipped = (told - wanted) % timedelta(days=1)
        assert skipped <= timedelta(hours=1) and (told == wanted or not _exists(local, wanted, tz))
        if at != after:
            assert DAY - HOUR <= following - at <= DAY + HOUR or _dateline(zone, following)
        at = following


def _exists(local, wanted, tz):
    day = (local - timedelta(hours=1)).date()
    wall = datetime(day.year, day.month, day.day) + wanted
    there = wall.replace(tzinfo=tz).astimezone(UTC).astimezone(tz).replace(tzinfo=None)
    return there == wall


def _dateline(zone, at_ms):
    year = datetime.fromtimestamp(at_ms / 1000, UTC).year
    return zone == "Pacific/Apia" and year in (2011, 2012)


@pytest.mark.parametrize(
    ("every", "after", "zone", "expected"),
    [
        ("daily 03:30", "2026-03-28T12:00", "Europe/Lisbon", ["2026-03-29 03:30 WEST"]),
        # Skipped: 01:30 does not exist on the 29th; it runs as much later as the clock jumps.
        ("daily 01:30", "2026-03-28T12:00", "Europe/Lisbon",
         ["2026-03-29 02:30 WEST", "2026-03-30 01:30 WEST"]),
        # Shown twice: only the first 01:30 of October 25.
        ("daily 01:30", "2026-10-24T12:00", "Europe/Lisbon",
         ["2026-10-25 01:30 WEST", "2026-10-26 01:30 WET"]),
        # Hours given as * follow the clock: through both 01:00s, and past the missing one.
        ("0 * * * *", "2026-10-24T23:30", "Europe/Lisbon",
         ["2026-10-25 00:00 WEST", "2026-10-25 01:00 WEST", "2026-10-25 01:00 WET",
          "2026-10-25 02:00 WET"]),
        ("0 * * * *", "2026-03-29T00:00", "Europe/Lisbon",
         ["2026-03-29 02:00 WEST", "2026-03-29 03:00 WEST"]),
        ("30 9 * * mon-fri", "2026-11-20T10:00", "UTC", ["2026-11-23 09:30 UTC"]),
        ("0 0 13 * fri", "2026-11-01T00:00", "UTC", ["2026-11-06 00:00 UTC",
         "2026-11-13 00:00 UTC", "2026-11-20 00:00 UTC"]),
        ("0 12 29 feb *", "2096-03-01T00:00", "UTC", ["2104-02-29 12:00 UTC"]),
        ("*/20 22 * * 7", "2026-11-22T22:25", "UTC",
         ["2026-11-22 22:40 UTC", "2026-11-29 22:00 UTC"]),
        # Midnight itself is skipped.
        ("daily 00:10", "2018-11-03T12:00", "America/Sao_Paulo",
         ["2018-11-04 01:10 -02", "2018-11-05 00:10 -02"]),
    ],
)  # fmt: skip
def test_schedules_follow_the_local_clock(every, after, zone, expected):
    at, found = ms(after, zone), []
    for _ in expected:
        at = next_run(every, at, zone=ZoneInfo(zone))
        found.append(shown(at, zone))
    assert found == expected


@pytest.mark.parametrize("zone", ZONES)
def test_this_machines_own_zone_gives_the_same_as_a_named_one(zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for start in ("2026-03-01", "2026-10-01", "2018-11-01", "2011-12-20"):
            for every in ("daily 00:10", "daily 01:30", "daily 02:30", "15 */2 * * *"):
                own = named = ms(f"{start}T00:00")
                for _ in range(45):
                    own = next_run(every, own)
                    named = next_run(every, named, zone=ZoneInfo(zone))
                    assert own == named
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_an_interval_keeps_its_beat_and_what_was_missed_runs_once():
    due = ms("2026-01-01T00:00")
    assert next_run("every 15m", due + 1, due_ms=due) == due + 15 * 60_000
    late = due + 10 * DAY + 1
    assert next_run("every 15m", late, due_ms=due) == due + 10 * DAY + 15 * 60_000


@pytest.mark.parametrize(
    "every",
    ["", "daily", "daily 24:00", "daily 3", "daily 03:60", "every", "every 0m", "every 5 m",
     "every 1.5h", "every -1h", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
     "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "*/ * * * *", ", * * * *",
     "0 0 30 2 *", "0 0 31 4,6,9,11 *", "² * * * *", "hourly"],
)  # fmt: skip
def test_a_schedule_that_cannot_be_read_or_never_runs_is_refused_with_the_legal_forms(every):
    with pytest.raises(JobError) as error:
        parse(every)
    assert repr(every) in error.value.message and "daily HH:MM" in error.value.hint


def test_a_zone_given_as_an_offset_works_too():
    tz = timezone(timedelta(hours=5, minutes=45))
    after = ms("2026-01-01T00:00")
    assert next_run("daily 05:45", after, zone=tz) == after + DAY  # it is 05:45 there: the next


# --- the state machine ---------------------------------------------------------------------------


def memory_db():
    conn = apsw.Connection(":memory:")
    schema.migrate(conn)
    return conn


class JobMachine(RuleBasedStateMachine):
    """Any order of events, against a plain model: nothing is lost, doubled or run twice."""

    ids = Bundle("ids")
    held = Bundle("held")

    def __init__(self):
        super().__init__()
        self.conn = memory_db()
        self.now = 1_700_000_000_000
        self.runners = 0
        self.recurring = set()

    @rule(target=ids, key=st.sampled_from([None, "a", "b"]), attempts=st.integers(1, 3))
    def enqueue(self, key, attempts):
        before = self.live(key)
        made = jobs.enqueue(self.conn, "k", {"n": 1}, unique_key=key, max_attempts=attempts,
                            now_ms=self.now)  # fmt: skip
        assert (made is None) == bool(key and before)
        return made

    @rule(target=ids, every=st.sampled_from(["every 10m", "daily 03:30", "0 */6 * * *"]))
    def schedule(self, every):
        self.recurring.add("s")
        return jobs.schedule(self.conn, "k", every, unique_key="s", now_ms=self.now)

    @precondition(lambda self: self.recurring)
    @rule()
    def unschedule(self):
        self.recurring.clear()
        assert jobs.unschedule(self.conn, "s", now_ms=self.now)
        assert not rows(self.conn, "SELECT 1 FROM jobs WHERE every IS NOT NULL AND state='queued'")

    @rule(target=held)
    def claim(self):
        self.runners += 1
        job = jobs.claim(self.conn, ["k"], f"r{self.runners}", lease_ms=60_000, now_ms=self.now)
        if job:
            assert job.run_at_ms <= self.now and job.attempts <= job.max_attempts
            assert job.owner == f"r{self.runners}" and not job.cancel
        return job

    @rule(job=held, state=st.sampled_from(["done", "failed", "stopped", "cancelled"]),
          hopeless=st.booleans())  # fmt: skip
    def finish(self, job, state, hopeless):
        if job is None:
            return
        mine = self.is_mine(job)
        found = jobs.finish(self.conn, job, state, "e", hopeless=hopeless, now_ms=self.now)
        assert (found == "lost") == (not mine)

    @rule(job=held)
    def renew(self, job):
        if job is not None:
            mine = self.is_mine(job)
            assert (jobs.renew(self.conn, job, now_ms=self.now) is None) == (not mine)

    @rule(seconds=st.sampled_from([1, 61, 600, 86_400 * 2, 86_400 * 40]))
    def time_passes(self, seconds):
        self.now += seconds * 1000

    @rule(ident=ids)
    def cancel(self, ident):
        state = self.state(ident)
        if state in ("queued", "running"):
            told = jobs.cancel(self.conn, ident, now_ms=self.now)
            assert told == ("cancelled" if state == "queued" else "cancelling")
        elif ident is not None and state is not None:
            with pytest.raises(JobError):
                jobs.cancel(self.conn, ident, now_ms=self.now)

    @rule(ident=ids)
    def retry(self, ident):
        if self.state(ident) is None:
            return
        try:
            will = jobs.retry(self.conn, ident, now_ms=self.now)
        except JobError:
            return
        job = jobs.show(self.conn, will)
        assert job.state == "queued" and job.run_at_ms <= self.now and job.attempts == 0

    @rule()
    def prune(self):
        waiting = rows(self.conn, "SELECT id FROM jobs WHERE state IN ('queued', 'running')")
        jobs.prune(self.conn, now_ms=self.now)
        assert waiting == rows(
            self.conn, "SELECT id FROM jobs WHERE state IN ('queued', 'running')"
        )

    def is_mine(self, job):
        return bool(rows(
            self.conn, "SELECT 1 FROM jobs WHERE id=? AND owner=? AND state='running'",
            (job.id, job.owner),
        ))  # fmt: skip

    def live(self, key):
        return rows(
            self.conn,
            "SELECT id FROM jobs WHERE unique_key=? AND state IN ('queued','running')", (key,),
        )  # fmt: skip

    def state(self, ident):
        return value(self.conn, "SELECT state FROM jobs WHERE id=?", (ident,))

    @invariant()
    def one_live_job_a_key(self):
        for key in ("a", "b", "s"):
            assert len(self.live(key)) <= 1

    @invariant()
    def a_schedule_never_dies_and_never_doubles(self):
        found = self.live("s")
        if self.recurring:
            assert len(found) == 1

    @invariant()
    def rows_make_sense(self):
        for row in rows(self.conn, "SELECT id FROM jobs"):
            job = jobs.show(self.conn, row[0])
            ended = job.state in ("done", "parked", "cancelled")
            assert ended == (job.finished_ms is not None)
            assert (job.state == "running") == bool(job.owner)
            assert 0 <= job.attempts <= job.max_attempts
            assert job.state != "parked" or job.error


TestJobMachine = JobMachine.TestCase
TestJobMachine.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# --- single promises -----------------------------------------------------------------------------


def test_a_job_exists_exactly_if_the_data_it_belongs_to_does(tmp_path):
    db = Database(tmp_path / "memory.db")

    def both(conn, fail):
        conn.execute("INSERT INTO marks VALUES('s','u','{}',1)")
        jobs.enqueue(conn, "k", {"about": "u"})
        if fail:
            raise RuntimeError("the caller changed its mind")

    with pytest.raises(RuntimeError):
        db.write(lambda conn: both(conn, True))
    with db.read() as conn:
        assert jobs.list_jobs(conn) == [] and value(conn, "SELECT count(*) FROM marks") == 0
    db.write(lambda conn: both(conn, False))
    with db.read() as conn:
        assert [job.payload for job in jobs.list_jobs(conn)] == [{"about": "u"}]
    db.close()


def test_a_failing_job_waits_longer_each_time_and_is_parked_with_its_error():
    conn, now = memory_db(), 0
    ident = jobs.enqueue(conn, "k", {}, max_attempts=4, now_ms=0)
    pauses = []
    while True:
        job = jobs.claim(conn, ["k"], "r", now_ms=now)
        state = jobs.finish(conn, job, "failed", f"error {job.attempts}", now_ms=now)
        if state == "parked":
            break
        pauses.append(jobs.show(conn, ident).run_at_ms - now)
        assert jobs.claim(conn, ["k"], "r", now_ms=now + pauses[-1] - 1) is None
        now += pauses[-1]
    assert [round(pause / 30_000) for pause in pauses] == pytest.approx([1, 4, 16], rel=0.25)
    parked = jobs.show(conn, ident)
    assert (parked.error, parked.attempts, parked.finished_ms) == ("error 4", 4, now)
    assert jobs.retry(conn, ident, now_ms=now) == ident
    assert jobs.claim(conn, ["k"], "r", now_ms=now).attempts == 1


@given(st.integers(1, 1000), st.floats(0, 1))
def test_the_back_off_is_bounded(attempt, chance):
    pause = jobs.backoff_ms(attempt, lambda: chance)
    assert 24_000 <= pause <= 1.2 * jobs.RETRY_MAX_MS


def test_a_job_whose_process_dies_each_time_is_parked_and_its_schedule_lives_on():
    conn, now = memory_db(), ms("2026-01-01T00:00")
    jobs.schedule(conn, "k", "every 1d", now_ms=now)
    now += DAY
    for attempt in range(1, 6):
        assert jobs.claim(conn, ["k"], f"r{attempt}", now_ms=now).attempts == attempt
        now += jobs.LEASE_MS
    assert jobs.claim(conn, ["k"], "r", now_ms=now) is None
    parked, waiting = sorted(jobs.list_jobs(conn), key=lambda job: job.id)
    assert parked.state == "parked" and "process ended" in parked.error
    assert waiting.state == "queued" and waiting.run_at_ms == ms("2026-01-03T00:00")


def test_a_job_that_was_to_be_cancelled_when_its_process_died_does_not_run_again():
    conn = memory_db()
    ident = jobs.enqueue(conn, "k", {}, now_ms=0)
    jobs.claim(conn, ["k"], "r", now_ms=0)
    jobs.cancel(conn, ident, now_ms=1)
    assert jobs.claim(conn, ["k"], "r2", now_ms=jobs.LEASE_MS) is None
    assert jobs.show(conn, ident).state == "cancelled"


def test_a_recurring_job_that_succeeds_at_its_second_attempt_recurs():
    conn, now = memory_db(), ms("2026-01-01T00:00")
    jobs.schedule(conn, "k", "daily 03:30", now_ms=now)
    now += 2 * DAY
    job = jobs.claim(conn, ["k"], "r", now_ms=now)
    assert jobs.finish(conn, job, "failed", "no", now_ms=now) == "queued"
    now += HOUR
    job = jobs.claim(conn, ["k"], "r", now_ms=now)
    assert jobs.finish(conn, job, "done", now_ms=now) == "done"
    assert jobs.list_jobs(conn, ["queued"])[0].run_at_ms > now


def test_runs_missed_while_the_machine_was_off_happen_once():
    conn, start = memory_db(), ms("2026-01-01T12:00")
    jobs.schedule(conn, "k", "daily 03:30", now_ms=start)
    back = start + 20 * DAY
    ran = 0
    while job := jobs.claim(conn, ["k"], "r", now_ms=back):
        jobs.finish(conn, job, "done", now_ms=back + 1000)
        ran += 1
    assert ran == 1
    assert jobs.list_jobs(conn, ["queued"])[0].run_at_ms > back


def test_a_changed_schedule_moves_the_job_that_waits_and_keeps_one_that_was_missed():
    conn, now = memory_db(), ms("2026-01-01T12:00")
    first = jobs.schedule(conn, "k", "every 3h", now_ms=now)
    assert jobs.schedule(conn, "k", "every 1h", now_ms=now) == first
    assert jobs.show(conn, first).run_at_ms == now + HOUR
    late = now + 5 * HOUR
    assert jobs.schedule(conn, "k", "every 2h", now_ms=late) == first
    assert jobs.show(conn, first).run_at_ms == now + HOUR  # overdue: it runs, once
    job = jobs.claim(conn, ["k"], "r", now_ms=late)
    jobs.schedule(conn, "k", "daily 04:00", now_ms=late)
    jobs.finish(conn, job, "done", now_ms=late)
    assert jobs.list_jobs(conn, ["queued"])[0].every == "daily 04:00"


def test_cancelling_one_run_of_a_recurring_job_queues_the_one_after_it():
    conn, now = memory_db(), ms("2026-01-01T12:00")
    ident = jobs.schedule(conn, "k", "every 1d", now_ms=now)
    assert jobs.cancel(conn, ident, now_ms=now) == "cancelled"
    (waiting,) = jobs.list_jobs(conn, ["queued"])
    assert waiting.run_at_ms == now + 2 * DAY


def test_retrying_a_parked_run_of_a_recurring_job_brings_the_next_one_forward():
    conn, now = memory_db(), ms("2026-01-01T12:00")
    ident = jobs.schedule(conn, "k", "every 1d", now_ms=now)
    now += DAY
    job = jobs.claim(conn, ["k"], "r", now_ms=now)
    jobs.finish(conn, job, "failed", "no", hopeless=True, now_ms=now)
    will = jobs.retry(conn, ident, now_ms=now + 5)
    assert will != ident and jobs.show(conn, will).run_at_ms == now + 5
    assert jobs.claim(conn, ["k"], "r", now_ms=now + 5).id == will


def test_work_asked_for_while_its_job_runs_is_done_once_more_afterwards():
    conn = memory_db()
    jobs.enqueue(conn, "k", {}, unique_key="k", now_ms=0)
    job = jobs.claim(conn, ["k"], "r", now_ms=0)
    for _ in range(3):
        assert jobs.enqueue(conn, "k", {}, unique_key="k", now_ms=1) is None
    jobs.finish(conn, job, "done", now_ms=2)
    job = jobs.claim(conn, ["k"], "r", now_ms=2)
    assert job is not None
    jobs.finish(conn, job, "done", now_ms=3)
    assert jobs.claim(conn, ["k"], "r", now_ms=3) is None


def test_what_ended_is_pruned_after_30_days_but_not_what_a_person_must_see():
    conn = memory_db()
    outcomes = {"done": "done", "parked": "failed", "cancelled": "cancelled"}
    for name, outcome in outcomes.items():
        jobs.enqueue(conn, name, {}, now_ms=0, max_attempts=1)
        job = jobs.claim(conn, [name], "r", now_ms=0)
        assert jobs.finish(conn, job, outcome, "why", now_ms=0) == name
    jobs.enqueue(conn, "waits", {}, now_ms=0)
    assert jobs.prune(conn, now_ms=jobs.KEEP_MS) == 0
    assert jobs.prune(conn, now_ms=jobs.KEEP_MS + 1) == 2
    assert {job.kind for job in jobs.list_jobs(conn)} == {"parked", "waits"}


def test_wrong_names_are_refused_with_the_legal_ones():
    conn = memory_db()
    with pytest.raises(NotFoundError, match="no job 7"):
        jobs.show(conn, 7)
    with pytest.raises(JobError, match="queued, running, done, parked, cancelled"):
        jobs.list_jobs(conn, ["finished"])
    with pytest.raises(JobError, match="not JSON"):
        jobs.enqueue(conn, "k", {"x": object()})
    with pytest.raises(JobError):
        jobs.enqueue(conn, "", {})


# --- the runner ----------------------------------------------------------------------------------


def states(home):
    with home.db.read() as conn:
        return {job.id: job for job in jobs.list_jobs(conn, limit=1000)}


def queue(home, kind, payload=None, **more):
    return home.db.write(lambda conn: jobs.enqueue(conn, kind, payload or {}, **more))


def test_the_runner_runs_what_is_due_and_stores_progress_and_outcome(home):
    seen = []

    def work(home, payload, progress):
        for done in range(3):
            progress.update(done, 3, "rows")
        seen.append(payload["n"])
        progress.note(3, "three rows")

    one, later = queue(home, "w", {"n": 1}), queue(home, "w", {"n": 2}, run_at_ms=2**52)
    other = queue(home, "nobody-knows")
    assert Runner(home, {"w": work}).run_due() == 1
    found = states(home)
    assert seen == [1] and found[one].state == "done"
    assert found[one].progress == {"done": 3, "total": 3, "note": "three rows"}
    assert found[later].state == found[other].state == "queued"


def test_an_error_is_stored_as_a_person_reads_it_and_a_hopeless_one_parks_at_once(home):
    def down(home, payload, progress):
        raise ModelDownError("Ollama does not answer.", "Start it: ollama serve")

    def wrong(home, payload, progress):
        raise ConfigError("engine.kind is 'gpt'.", "Use: echo.")

    def bug(home, payload, progress):
        raise ZeroDivisionError("division by zero")

    ids = [queue(home, kind) for kind in ("down", "wrong", "bug")]
    Runner(home, {"down": down, "wrong": wrong, "bug": bug}).run_due()
    found = states(home)
    assert [found[i].state for i in ids] == ["queued", "parked", "queued"]
    assert found[ids[0]].error == "Ollama does not answer. Start it: ollama serve"
    assert "ZeroDivisionError" in found[ids[2]].error and "test_jobs.py:" in found[ids[2]].error


def test_a_running_job_is_cancelled_at_its_next_step_even_through_a_catch_all(home):
    started = threading.Event()

    def work(home, payload, progress):
        started.set()
        while True:
            try:
                progress.update(0)
                time.sleep(0.01)
            except Exception:
                continue

    ident = queue(home, "w")
    runner = Runner(home, {"w": work}, lease_ms=600)
    thread = threading.Thread(target=runner.run_due)
    thread.start()
    assert started.wait(5)
    assert home.db.write(lambda conn: jobs.cancel(conn, ident)) == "cancelling"
    thread.join(5)
    assert not thread.is_alive() and states(home)[ident].state == "cancelled"


def test_a_stopped_runner_puts_its_job_back_without_counting_the_attempt(home):
    started = threading.Event()

    def work(home, payload, progress):
        started.set()
        while True:
            progress.check()
            time.sleep(0.01)

    ident = queue(home, "w")
    runner, stop = Runner(home, {"w": work}), threading.Event()
    thread = threading.Thread(target=runner.run_forever, args=(stop,))
    thread.start()
    assert started.wait(5)
    stop.set()
    thread.join(5)
    job = states(home)[ident]
    assert not thread.is_alive() and (job.state, job.attempts, job.owner) == ("queued", 0, "")


def test_a_long_job_keeps_its_lease_though_it_says_nothing(home):
    second = Runner(home, {"w": lambda *_: None})
    ran = []

    def work(home, payload, progress):
        for _ in range(8):
            time.sleep(0.1)
            ran.append(second.run_due())

    ident = queue(home, "w")
    Runner(home, {"w": work}, lease_ms=300).run_due()
    assert ran == [0] * 8 and states(home)[ident].state == "done"


def test_a_runner_that_lost_its_lease_is_told_to_end_and_changes_nothing(home):
    ended = []

    def slow(home, payload, progress):
        home.db.write(lambda conn: conn.execute("UPDATE jobs SET owner='thief', attempts=2"))
        try:
            for _ in range(100):
                progress.update(1)
                time.sleep(0.02)
        except Cancelled:
            ended.append(True)
            raise

    ident = queue(home, "w")
    Runner(home, {"w": slow}, lease_ms=150).run_due()
    job = states(home)[ident]
    assert ended and (job.state, job.owner) == ("running", "thief")


def test_the_queue_outlives_a_handler_that_cannot_even_be_called(home):
    runner = Runner(home, {"w": None}, poll_seconds=0.02)
    ident = queue(home, "w")
    thread = threading.Thread(target=runner.run_forever)
    thread.start()
    until = time.monotonic() + 5
    while states(home)[ident].error == "" and time.monotonic() < until:
        time.sleep(0.02)
    runner.stop()
    thread.join(5)
    assert "TypeError" in states(home)[ident].error and not thread.is_alive()


WORKER = """
    import sys, os, types
    from pathlib import Path
    from knowme.db import Database
    from knowme.jobs import Runner

    folder, name = Path(sys.argv[1]), sys.argv[2]
    home = types.SimpleNamespace(db=Database(folder / "memory.db", durability="normal"))
    out = os.open(folder / "ran.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def work(home, payload, progress):
        os.write(out, f"{payload['n']} {name}\\n".encode())

    print("ready", flush=True)
    sys.stdin.readline()
    Runner(home, {"w": work}, lease_ms=60_000).run_due()
    home.db.close()
"""


def test_no_two_processes_ever_run_one_job(tmp_path):
    db = Database(tmp_path / "memory.db", durability="normal")
    db.write(lambda conn: [jobs.enqueue(conn, "w", {"n": n}) for n in range(200)])
    code = textwrap.dedent(WORKER)
    workers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(n)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    lines = [line.split() for line in (tmp_path / "ran.log").read_text().splitlines()]
    assert Counter(int(n) for n, _ in lines) == Counter(range(200))
    assert len({name for _, name in lines}) > 1
    with db.read() as conn:
        assert value(conn, "SELECT count(*) FROM jobs WHERE state='done'") == 200
    db.close()


def test_a_job_of_a_killed_process_runs_again_once_its_lease_has_passed(home):
    code = textwrap.dedent("""
        import sys, time, types
        from pathlib import Path
        from knowme.db import Database
        from knowme.jobs import Runner

        def work(home, payload, progress):
            print("started", flush=True)
            time.sleep(60)

        home = types.SimpleNamespace(db=Database(Path(sys.argv[1])))
        Runner(home, {"w": work}, lease_ms=900).run_due()
    """)
    ident = queue(home, "w")
    worker = subprocess.Popen([sys.executable, "-c", code, home.db.path], stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"started\n"
    runner = Runner(home, {"w": lambda *_: None})
    time.sleep(1.2)
    assert runner.run_due() == 0  # it lives, so it keeps the job
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    until = time.monotonic() + 10
    while not runner.run_due() and time.monotonic() < until:
        time.sleep(0.05)
    job = states(home)[ident]
    assert (job.state, job.attempts) == ("done", 2)
