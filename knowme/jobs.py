"""Durable work and its schedule, in one table.

Promises: a job is queued in the caller's transaction, so it exists exactly if the data it belongs
to does. A claim is atomic and leased: no two runners work on one job, and a job whose runner was
killed is queued again once the lease has passed, that attempt counted. A job that keeps failing is
parked with its error. The next run of a recurring job is queued in the transaction that records
the outcome of this one: a schedule neither dies nor doubles, and what was missed runs once.
Refuses to know: what the handlers do.

    queued -> running -> done
      ^ ^        |-----> queued     failed, attempts left: after a back-off with jitter
      | |        |-----> queued     asked to stop by its runner: this attempt is not counted
      | |        |-----> parked     failed for good; retry() queues it again
      | +--------+-----> cancelled
      +-- lease passed
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import apsw

from knowme.errors import (
    ConfigError,
    InputError,
    JobError,
    KnowmeError,
    ModelMissingError,
    NotFoundError,
)
from knowme.schedule import next_run, parse

if TYPE_CHECKING:
    from knowme.home import Home

log = logging.getLogger("knowme.jobs")

LEASE_MS = 60_000
SOON_MS = 20_000
KEEP_MS = 30 * 86_400_000
RETRY_MS = 30_000  # 30 s, 2 min, 8 min, 32 min ... at most:
RETRY_MAX_MS = 6 * 3_600_000
STATES = ("queued", "running", "done", "parked", "cancelled")
_HOPELESS = (ConfigError, InputError, ModelMissingError)  # the same again, until a person acts
_COLUMNS = (
    "id, kind, payload, state, unique_key, run_at_ms, every, attempts, max_attempts, "
    "cancel, progress, error, created_ms, started_ms, finished_ms, owner"
)


class Cancelled(BaseException):
    """Raised by Progress.update in a job that shall end now; a handler lets it through.

    A BaseException, as in asyncio: an ``except Exception`` around one bad item of a long job must
    not swallow it.
    """


@dataclass(frozen=True, slots=True)
class Job:
    """One row. Times in ms since the epoch; ``progress`` is {done, total, note}."""

    id: int
    kind: str
    payload: Mapping[str, Any]
    state: str
    unique_key: str | None
    run_at_ms: int
    every: str | None
    attempts: int
    max_attempts: int
    cancel: bool
    progress: Mapping[str, Any]
    error: str
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    owner: str


def _now() -> int:
    return int(time.time() * 1000)


def _job(row: Sequence[Any]) -> Job:
    values = list(row)
    values[2], values[10] = json.loads(values[2]), json.loads(values[10])
    values[9] = bool(values[9])
    return Job(*values)


def _one(conn: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> Any:
    return next(iter(conn.execute(sql, values)), None)


# --- queueing: everything below takes the caller's transaction ------------------------------------


def enqueue(
    conn: apsw.Connection,
    kind: str,
    payload: Mapping[str, Any],
    *,
    run_at_ms: int | None = None,
    unique_key: str | None = None,
    every: str | None = None,
    max_attempts: int = 5,
    now_ms: int | None = None,
) -> int | None:
    """Queue a job in the caller's transaction; return its id.

    With ``unique_key`` (a recurring job has one always: by default its kind), None is returned and
    nothing queued while another job of that key waits; one that runs, and may have passed what
    this one is about, runs once more when it has ended. ``run_at_ms`` defaults to now, for a
    recurring job to its first due time. Raises JobError.
    """
    now = _now() if now_ms is None else now_ms
    if not kind or max_attempts < 1:
        raise JobError(f"A job needs a kind and an attempt (kind {kind!r}, {max_attempts}).")
    if every is not None:
        parse(every)
        unique_key = unique_key or kind
        run_at_ms = next_run(every, now) if run_at_ms is None else run_at_ms
    try:
        text = json.dumps(dict(payload), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise JobError(f"The payload of a {kind} job is not JSON: {error}.") from error
    row = _one(
        conn,
        "INSERT INTO jobs(kind, payload, unique_key, run_at_ms, every, max_attempts, created_ms) "
        "VALUES(?,?,?,?,?,?,?) ON CONFLICT DO NOTHING RETURNING id",
        (kind, text, unique_key, now if run_at_ms is None else run_at_ms, every, max_attempts, now),
    )
    if row is None and every is None:
        conn.execute(
            "UPDATE jobs SET again=1 WHERE unique_key=? AND state='running'", (unique_key,)
        )
    return int(row[0]) if row else None


def learn_soon(conn: apsw.Connection) -> None:
    """Queue the learning from what is stored in this transaction; several within 20 s are one."""
    enqueue(conn, "learn", {}, unique_key="learn", run_at_ms=_now() + SOON_MS)


def schedule(
    conn: apsw.Connection,
    kind: str,
    every: str,
    payload: Mapping[str, Any] | None = None,
    *,
    unique_key: str | None = None,
    now_ms: int | None = None,
) -> int:
    """Make sure that exactly one live job of this key recurs as ``every`` says; return its id.

    One that waits is moved to a changed schedule; one that runs takes it up afterwards. A due
    time that was missed is kept: it runs once. Raises JobError.
    """
    parse(every)
    now = _now() if now_ms is None else now_ms
    key = unique_key or kind
    text = json.dumps(dict(payload or {}), ensure_ascii=False)
    row = _one(
        conn,
        "SELECT id, state, every, payload, run_at_ms, attempts FROM jobs "
        "WHERE unique_key=? AND state IN ('queued', 'running')",
        (key,),
    )
    if row is None:
        made = enqueue(conn, kind, payload or {}, every=every, unique_key=key, now_ms=now)
        assert made is not None  # nothing live has the key, and the transaction is ours
        return made
    ident, state, had, had_payload, run_at, attempts = row
    if had != every or had_payload != text:
        keep = state == "running" or run_at <= now or attempts or had == every
        run_at = run_at if keep else next_run(every, now)
        conn.execute(
            "UPDATE jobs SET every=?, payload=?, run_at_ms=? WHERE id=?",
            (every, text, run_at, ident),
        )
    return int(ident)


def unschedule(conn: apsw.Connection, unique_key: str, *, now_ms: int | None = None) -> bool:
    """End a recurring job: one that waits is cancelled, one that runs is its last. False: none."""
    now = _now() if now_ms is None else now_ms
    row = _one(
        conn,
        "UPDATE jobs SET every=NULL, state=iif(state='queued', 'cancelled', state), "
        "finished_ms=iif(state='queued', ?, NULL) "
        "WHERE unique_key=? AND every IS NOT NULL AND state IN ('queued', 'running') RETURNING id",
        (now, unique_key),
    )
    return row is not None


def show(conn: apsw.Connection, job_id: int) -> Job:
    """Return one job. Raises NotFoundError."""
    row = _one(conn, f"SELECT {_COLUMNS} FROM jobs WHERE id=?", (job_id,))
    if row is None:
        raise NotFoundError(f"There is no job {job_id}.", "See them all: knowme jobs")
    return _job(row)


def list_jobs(conn: apsw.Connection, states: Iterable[str] = (), limit: int = 50) -> list[Job]:
    """Return jobs: first those that live, by due time, then the newest that ended."""
    wanted = tuple(states) or STATES
    if wrong := [state for state in wanted if state not in STATES]:
        raise JobError(f"There is no job state {wrong[0]!r}.", f"Use: {', '.join(STATES)}.")
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE state IN ({','.join('?' * len(wanted))}) "
        "ORDER BY finished_ms IS NOT NULL, state='queued', "
        "iif(finished_ms IS NULL, run_at_ms, -finished_ms), id LIMIT ?",
        (*wanted, limit),
    )
    return [_job(row) for row in rows]


def cancel(conn: apsw.Connection, job_id: int, *, now_ms: int | None = None) -> str:
    """Cancel a job; return "cancelled", or "cancelling" for one that runs (at its next step).

    Of a recurring job this run is skipped, and the next one queued (``unschedule`` ends it).
    Raises NotFoundError, or JobError for one that has ended.
    """
    now = _now() if now_ms is None else now_ms
    job = show(conn, job_id)
    if job.state == "running":
        conn.execute("UPDATE jobs SET cancel=1 WHERE id=?", (job_id,))
        return "cancelling"
    if job.state != "queued":
        raise JobError(f"Job {job_id} has ended already: it is {job.state}.")
    conn.execute("UPDATE jobs SET state='cancelled', finished_ms=? WHERE id=?", (now, job_id))
    _queue_next(conn, job, now)
    return "cancelled"


def retry(conn: apsw.Connection, job_id: int, *, now_ms: int | None = None) -> int:
    """Run a job now that has ended or waits; return the id of the one that will run.

    When another job of the same key waits already (a recurring job's next run), that one is
    brought forward instead. Raises NotFoundError, or JobError for one that runs.
    """
    now = _now() if now_ms is None else now_ms
    job = show(conn, job_id)
    live = job
    if job.state not in ("queued", "running") and job.unique_key is not None:
        row = _one(
            conn,
            f"SELECT {_COLUMNS} FROM jobs WHERE unique_key=? AND state IN ('queued', 'running')",
            (job.unique_key,),
        )
        live = _job(row) if row else job
    if live.state == "running":
        raise JobError(f"Job {live.id} runs already.", f"Stop it: knowme jobs cancel {live.id}")
    # One that ended gave its schedule on, or lost it by intent: it runs once.
    conn.execute(
        "UPDATE jobs SET every=iif(state='queued', every, NULL), state='queued', attempts=0, "
        "cancel=0, run_at_ms=min(run_at_ms, ?), finished_ms=NULL WHERE id=?",
        (now, live.id),
    )
    return live.id


def prune(conn: apsw.Connection, *, now_ms: int | None = None) -> int:
    """Delete what ended over 30 days ago; what is parked and does not recur stays for a person."""
    now = _now() if now_ms is None else now_ms
    conn.execute(
        "DELETE FROM jobs WHERE finished_ms < ? AND (state IN ('done', 'cancelled') "
        "OR (state='parked' AND every IS NOT NULL))",
        (now - KEEP_MS,),
    )
    return conn.changes()


# --- running: one short transaction each ---------------------------------------------------------


def due(conn: apsw.Connection, kinds: Sequence[str], *, now_ms: int | None = None) -> bool:
    """Tell whether claim would find something to do. Only reads."""
    now = _now() if now_ms is None else now_ms
    marks = ",".join("?" * len(kinds))
    sql = (
        f"SELECT 1 FROM jobs WHERE (state='queued' AND run_at_ms<=? AND kind IN ({marks})) "
        f"OR (state='running' AND lease_until_ms<=? AND kind IN ({marks})) LIMIT 1"
    )
    return _one(conn, sql, (now, *kinds, now, *kinds)) is not None


def claim(
    conn: apsw.Connection,
    kinds: Sequence[str],
    owner: str,
    *,
    lease_ms: int = LEASE_MS,
    now_ms: int | None = None,
) -> Job | None:
    """Take the job of these kinds that is due longest, for ``lease_ms``; count the attempt.

    First puts back what dead runners left. ``owner`` is unique for each runner.
    """
    now = _now() if now_ms is None else now_ms
    _recover(conn, now)
    row = _one(
        conn,
        "UPDATE jobs SET state='running', owner=?, lease_until_ms=?, attempts=attempts+1, "
        "started_ms=?, progress='{}', again=0 WHERE id=(SELECT id FROM jobs WHERE state='queued' "
        f"AND run_at_ms<=? AND kind IN ({','.join('?' * len(kinds))}) "
        f"ORDER BY run_at_ms, id LIMIT 1) RETURNING {_COLUMNS}",
        (owner, now + lease_ms, now, now, *kinds),
    )
    return _job(row) if row else None


def _recover(conn: apsw.Connection, now: int) -> None:
    gone = conn.execute(
        f"SELECT {_COLUMNS} FROM jobs WHERE state='running' AND lease_until_ms<=?", (now,)
    )
    for job in [_job(row) for row in gone]:
        error = f"Its process ended while it ran (attempt {job.attempts})."
        if job.cancel:
            _close(conn, job, "cancelled", error, now)
        elif job.attempts >= job.max_attempts:
            _close(conn, job, "parked", error, now)
        else:
            conn.execute(
                "UPDATE jobs SET state='queued', owner='', lease_until_ms=NULL, error=? WHERE id=?",
                (error, job.id),
            )


def renew(
    conn: apsw.Connection,
    job: Job,
    *,
    progress: Mapping[str, Any] | None = None,
    lease_ms: int = LEASE_MS,
    now_ms: int | None = None,
) -> bool | None:
    """Extend the lease, store the progress; return whether a cancel was asked, None: job lost."""
    now = _now() if now_ms is None else now_ms
    row = _one(
        conn,
        "UPDATE jobs SET lease_until_ms=?, progress=coalesce(?, progress) "
        "WHERE id=? AND owner=? AND attempts=? AND state='running' RETURNING cancel",
        (
            now + lease_ms,
            None if progress is None else json.dumps(progress, ensure_ascii=False),
            *(job.id, job.owner, job.attempts),
        ),
    )
    return bool(row[0]) if row else None


def finish(
    conn: apsw.Connection,
    job: Job,
    state: str,
    error: str = "",
    *,
    hopeless: bool = False,
    progress: Mapping[str, Any] | None = None,
    now_ms: int | None = None,
) -> str:
    """Record the outcome of a claimed job; return the state it is in now.

    ``state``: "done", "cancelled", "failed" (queued again, or parked when the attempts are used
    up or it is ``hopeless``), "stopped" (queued again, this attempt not counted). A runner that
    lost its lease changes nothing and is told "lost".
    """
    now = _now() if now_ms is None else now_ms
    row = _one(
        conn,
        f"SELECT {_COLUMNS} FROM jobs WHERE id=? AND owner=? AND attempts=? AND state='running'",
        (job.id, job.owner, job.attempts),
    )
    if row is None:
        return "lost"
    job = _job(row)  # the schedule may have changed since the claim
    if progress is not None:
        text = json.dumps(progress, ensure_ascii=False)
        conn.execute("UPDATE jobs SET progress=? WHERE id=?", (text, job.id))
    if state == "stopped" and job.cancel:
        state = "cancelled"
    if state == "failed" and (hopeless or job.attempts >= job.max_attempts):
        state = "parked"
    if state in ("done", "parked", "cancelled"):
        _close(conn, job, state, error, now)
        return state
    stopped = state == "stopped"
    conn.execute(
        "UPDATE jobs SET state='queued', owner='', lease_until_ms=NULL, error=?, "
        "attempts=?, run_at_ms=? WHERE id=?",
        (
            job.error if stopped else error,
            job.attempts - stopped,
            job.run_at_ms if stopped else now + backoff_ms(job.attempts),
            job.id,
        ),
    )
    return "queued"


def _close(conn: apsw.Connection, job: Job, state: str, error: str, now: int) -> None:
    conn.execute(
        "UPDATE jobs SET state=?, error=?, owner='', lease_until_ms=NULL, finished_ms=? WHERE id=?",
        (state, error, now, job.id),
    )
    _queue_next(conn, job, now)


def _queue_next(conn: apsw.Connection, job: Job, now: int) -> None:
    again = _one(conn, "SELECT again AND state <> 'cancelled' FROM jobs WHERE id=?", (job.id,))[0]
    if again:
        run_at = now
    elif job.every is None:
        return
    else:
        run_at = _next_due(job.every, job.run_at_ms, now)
    conn.execute(
        "INSERT INTO jobs(kind, payload, unique_key, run_at_ms, every, max_attempts, created_ms) "
        "SELECT kind, payload, unique_key, ?, every, max_attempts, ? FROM jobs WHERE id=? "
        "ON CONFLICT DO NOTHING",
        (run_at, now, job.id),
    )


def _next_due(every: str, was_due: int, now: int) -> int:
    after = max(now, was_due)
    try:
        return next_run(every, after, due_ms=was_due)
    except JobError:  # written by another version: a schedule that cannot be read goes on daily
        return after + 86_400_000


def backoff_ms(attempt: int, chance: Callable[[], float] = random.random) -> int:
    """Return the pause after the ``attempt``-th failure: 30 s times 4 each, +-20%, at most 6 h."""
    whole = min(RETRY_MAX_MS, RETRY_MS * 4 ** min(attempt - 1, 16))
    return int(whole * (0.8 + 0.4 * chance()))


# --- the runner ----------------------------------------------------------------------------------


class Progress:
    """What a handler tells about its work, and how it learns that it shall end."""

    def __init__(self, job: Job, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self.job = job
        self.latest: dict[str, Any] = {}
        self._tell = tell
        self._told = 0.0
        self._end = threading.Event()

    def update(self, done: int, total: int = 0, note: str = "") -> None:
        """Note the progress (stored at most once a second). Raises Cancelled when it shall end."""
        self.latest = {"done": done, "total": total, "note": note}
        self.check()
        if time.monotonic() - self._told >= 1.0:
            self._told = time.monotonic()
            self._tell(self.latest)
            self.check()

    def note(self, done: int, note: str) -> None:
        """Leave the last word on the work, stored with its outcome. Never raises."""
        self.latest = {"done": done, "total": done, "note": note}

    def check(self) -> None:
        """Raise Cancelled when the job shall end."""
        if self._end.is_set():
            raise Cancelled

    def end(self) -> None:
        """Ask the job to end at its next step."""
        self._end.set()


Handler: TypeAlias = "Callable[[Home, Mapping[str, Any], Progress], None]"


class Runner:
    """Runs due jobs of the kinds it has handlers for, one at a time, in the calling thread.

    ``stop()`` from any thread asks the running job to end: it is queued again, uncounted. If the
    job does not listen, its lease passes and another runner takes it up.
    """

    def __init__(
        self,
        home: Home,
        handlers: Mapping[str, Handler],
        *,
        lease_ms: int = LEASE_MS,
        poll_seconds: float = 1.0,
    ) -> None:
        self.home = home
        self.handlers = dict(handlers)
        self.owner = uuid.uuid4().hex
        self._lease_ms = lease_ms
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._current: Progress | None = None

    def stop(self) -> None:
        """End soon: no new job, and the running one stops at its next step."""
        self._stop.set()
        if (current := self._current) is not None:
            current.end()

    def run_due(self, limit: int | None = None) -> int:
        """Run what is due now, at most ``limit`` jobs; return how many. Raises StoreError."""
        ran = 0
        kinds = tuple(self.handlers)
        while not self._stop.is_set() and (limit is None or ran < limit):
            with self.home.db.read() as conn:
                if not due(conn, kinds):
                    break
            job = self.home.db.write(
                lambda conn: claim(conn, kinds, self.owner, lease_ms=self._lease_ms)
            )
            if job is None:
                break
            self._run(job)
            ran += 1
        return ran

    def run_forever(self, stop: threading.Event | None = None) -> None:
        """Run what falls due until ``stop`` is set or ``stop()`` is called."""
        if stop is not None:
            threading.Thread(
                target=self._stop_with, args=(stop,), name="knowme-stop", daemon=True
            ).start()
        pruned = -1e9
        while not self._stop.is_set():
            try:
                if time.monotonic() - pruned > 86_400:
                    self.home.db.write(prune)
                    pruned = time.monotonic()
                self.run_due()
            except KnowmeError as error:  # a full disk passes; the queue must outlive it
                if not self._stop.is_set():
                    log.warning("The job queue waits: %s", error)
                    self._stop.wait(5.0)
            except Exception:  # ours to mend; meanwhile the other jobs must run
                log.exception("The job runner failed")
                self._stop.wait(5.0)
            self._stop.wait(self._poll_seconds)

    def _stop_with(self, stop: threading.Event) -> None:
        stop.wait()
        self.stop()

    def _run(self, job: Job) -> None:
        progress = Progress(job, lambda latest: self._renew(progress, latest))
        self._current = progress
        if self._stop.is_set():
            progress.end()
        over = threading.Event()
        beat = threading.Thread(
            target=self._keep, args=(progress, over), name="knowme-lease", daemon=True
        )
        beat.start()
        outcome, error, hopeless = "done", "", False
        try:
            self.handlers[job.kind](self.home, job.payload, progress)
        except Cancelled:
            outcome = "stopped" if self._stop.is_set() else "cancelled"
        except Exception as raised:
            outcome, hopeless = "failed", isinstance(raised, _HOPELESS)
            error = _tell(raised)
            log.warning("Job %d (%s) failed: %s", job.id, job.kind, error)
        except BaseException:  # Ctrl-C in the thread that runs us
            outcome = "stopped"
            raise
        finally:
            over.set()
            beat.join()
            self._current = None
            self.home.db.write(
                lambda conn: finish(
                    conn, job, outcome, error, hopeless=hopeless, progress=progress.latest or None
                )
            )

    def _renew(self, progress: Progress, latest: Mapping[str, Any] | None) -> None:
        with suppress(KnowmeError):  # next time; until then the lease holds
            asked = self.home.db.write(
                lambda conn: renew(conn, progress.job, progress=latest, lease_ms=self._lease_ms)
            )
            if asked is not False:
                progress.end()

    def _keep(self, progress: Progress, over: threading.Event) -> None:
        """Renew the lease at each third of it; look for a cancel every second in between."""
        renewed = time.monotonic()
        pause = min(1.0, self._lease_ms / 3000)
        while not over.wait(pause):
            if time.monotonic() - renewed >= self._lease_ms / 3000:
                renewed = time.monotonic()
                self._renew(progress, None)
                continue
            with suppress(KnowmeError), self.home.db.read() as conn:
                if show(conn, progress.job.id).cancel:
                    progress.end()


def _tell(error: Exception) -> str:
    if isinstance(error, KnowmeError):
        return str(error)[:2000]
    where = traceback.extract_tb(error.__traceback__)[-1:]
    at = f" ({where[0].filename.rsplit('/', 1)[-1]}:{where[0].lineno})" if where else ""
    return f"{type(error).__name__}: {error}{at}"[:2000]
