"""The daemon: the service and the job runner in one process, one a home.

Promises: a second one for the same home is refused with the pid of the first. SIGTERM and SIGINT
stop it within a bounded time: no new request, no new job; a running job stops at its next safe
point and is queued again; one that does not listen is left to its lease.
Refuses to know: routes, how a job does its work.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import apsw

from knowme import jobs, structure
from knowme.errors import HomeError, JobError
from knowme.jobs import Cancelled, Handler, Progress, Runner
from knowme.lock import Lock
from knowme.settings import Settings
from knowme.times import now_ms
from knowme.types import Counts

if TYPE_CHECKING:
    from knowme.home import Home

log = logging.getLogger("knowme.daemon")

GRACE_SECONDS = 10.0
LOOK_SECONDS = 60.0
"""How often a training looks whether the machine is still on mains power."""
LOCK = "daemon.lock"


class Service(Protocol):
    """What the daemon needs of an HTTP server."""

    def start(self) -> None:
        """Listen, or raise KnowmeError."""
        ...

    def alive(self) -> bool:
        """Tell whether it serves still."""
        ...

    def stop(self, seconds: float) -> None:
        """Accept nothing more, end what is open within ``seconds``."""
        ...


# --- the first handlers --------------------------------------------------------------------------


def sync_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Read the configured sources; payload: {"only": [names]}. Stops between two batches."""
    from knowme.sync import sync

    if not home.settings.sources:
        return
    read: dict[str, int] = {}

    def tell(name: str, counts: Counts) -> None:
        read[name] = counts.read
        progress.update(sum(read.values()), 0, name)

    done = sync(home, payload.get("only", ()), tell)
    note = "; ".join(
        f"{name}: {counts.new} new, {counts.changed} changed, {counts.removed} removed"
        for name, counts in done.items()
    )
    progress.note(sum(counts.read for counts in done.values()), note)
    home.db.write(jobs.learn_soon)
    failed = {name: counts for name, counts in done.items() if "source" in counts.skipped}
    if failed:  # the others are in; reading those again costs little
        raise JobError(" ".join(p for counts in failed.values() for p in counts.problems))


def reindex_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Embed what has no vector yet. Stops after any batch; what is done stays done."""
    from knowme.sync import reindex

    asked: list[Cancelled] = []

    def tell(done: int, total: int) -> bool:
        try:
            progress.update(done, total)
        except Cancelled as cancelled:
            asked.append(cancelled)
        return bool(asked)

    done = reindex(home, tell)
    if asked:
        raise asked[0]
    progress.note(done, f"{done} embedded")


def backup_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Copy memory.db, then delete old copies. A stop throws the unfinished copy away."""
    from knowme import backup

    made = backup.backup(home, lambda done, total: progress.update(done, total, "pages"))
    gone = backup.rotate(home, home.settings.jobs.backup_keep)
    progress.note(1, f"{made.name}{f', {len(gone)} old ones deleted' if gone else ''}")


def shadow_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Let the stronger model answer a question too; payload: {"answer_id": N}."""
    from knowme import shadow

    role = shadow.answer(home, int(payload["answer_id"]))
    progress.note(1, f"answered by {role}" if role else "no model may answer it")


def learn_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Learn by rules from what came in, and build the profile."""
    counts = structure.catch_up(home, progress.update)
    progress.note(counts["messages"], _counted(counts))


def read_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Let a model read for facts. Stops after any message; what is done stays done."""
    counts = structure.read(home, progress.update)
    progress.note(counts["messages"], _counted(counts))


def summarise_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Summarise what will leave a window next; payload: {"conversation": its name}."""
    from knowme import summaries, sync

    made = summaries.ahead(home, str(payload["conversation"]))
    if made and sync.pending(home) <= made:  # else the embedder is down, or another one is filled
        structure.embed(home)
    progress.note(1, f"{made} summarised" if made else "nothing to do")


def retention_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Give up what is older than the settings say."""
    from knowme import retention

    progress.note(1, _counted(retention.run(home, progress.update)))


def adapter_job(home: Home, payload: Mapping[str, Any], progress: Progress) -> None:
    """Make an adapter where one is due and the machine is idle; use it if the gate lets it through.

    A stop, or a machine that is taken off mains power, saves what is trained; the next time goes
    on from there.
    """
    from knowme.learn import idle, pipeline

    looked = time.monotonic()

    asked = pipeline.last_question_ms(home)
    if why := idle.waiting(asked, now_ms()) or pipeline.due(home):
        progress.note(0, f"not now: {why}")
        return

    def tell(done: int, total: int, what: str) -> None:
        nonlocal looked
        progress.update(done, total, what)
        if time.monotonic() - looked >= LOOK_SECONDS:
            looked = time.monotonic()
            if idle.on_battery():
                raise _UnpluggedError

    def report(event: Mapping[str, Any]) -> None:
        tell(int(event.get("step", 0)), int(event.get("steps", 0)), "training")

    try:
        told = pipeline.run(
            home,
            home.settings.learn.purpose,
            tell,
            report,
            resume=pipeline.unfinished(home, home.settings.learn.purpose) is not None,
        )
    except _UnpluggedError:
        progress.note(0, "stopped: this machine runs on its battery; it goes on later")
        return
    if told["adopt"]:
        pipeline.use(home, told["run"])
    progress.note(1, f"{told['run']}: {'in use' if told['adopt'] else 'refused: ' + told['why']}")


class _UnpluggedError(Exception):
    """Ends a training of its own accord."""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {many}" for name, many in counts.items() if many) or "nothing to do"


ADAPTER = "adapter"
HANDLERS: Mapping[str, Handler] = {
    ADAPTER: adapter_job,
    "backup": backup_job,
    structure.LEARN: learn_job,
    structure.READ: read_job,
    "reindex": reindex_job,
    "retention": retention_job,
    "shadow": shadow_job,
    structure.SUMMARISE: summarise_job,
    "sync": sync_job,
}
SLOW = (ADAPTER, "reindex", structure.READ, structure.SUMMARISE)
"""Kinds that may take hours: they have a runner of their own, so that the daily ones keep time."""


def ensure_schedules(conn: apsw.Connection, settings: Settings) -> None:
    """Make the daily jobs recur as the settings say. Raises JobError for a wrong time."""
    kept = settings.retention
    some = kept.vectors_days or kept.compress_days or kept.forget_after
    for kind, at in (
        ("sync", settings.jobs.sync_at),
        ("backup", settings.jobs.backup_at),
        ("retention", settings.jobs.retention_at if some else ""),
    ):
        if at:
            jobs.schedule(conn, kind, f"daily {at}")
        else:
            jobs.unschedule(conn, kind)
    if settings.learn.every == "never":
        jobs.unschedule(conn, ADAPTER)
    else:  # whether one is due is looked at then; mostly it is not
        jobs.schedule(conn, ADAPTER, "every 6h")


# --- the process ---------------------------------------------------------------------------------


def run(
    home: Home,
    host: str | None = None,
    port: int | None = None,
    *,
    service: Callable[[Home, str, int], Service] | None = None,
    handlers: Mapping[str, Handler] = HANDLERS,
    stop: threading.Event | None = None,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Run service and jobs until SIGTERM or SIGINT (or ``stop``, for a caller in a thread).

    ``host`` and ``port`` default to the settings; ``on_ready()`` is called once requests are
    answered and jobs run. The caller closes the home. Raises HomeError
    when another daemon has the home (it names the pid), JobError for a wrong schedule, and what
    the service raises when it cannot listen.
    """
    settings = home.settings.service
    with Lock(home.path / LOCK), _signals() as signals:
        _finish_forgetting(home)
        home.db.write(lambda conn: ensure_schedules(conn, home.settings))
        host = settings.host if host is None else host
        port = settings.port if port is None else port
        server = (service or _http)(home, host, port)
        server.start()
        runners = _start_runners(home, handlers)
        try:
            if on_ready:
                on_ready()
            while not (signals or (stop is not None and stop.is_set())):
                if not server.alive():
                    log.error("The service ended by itself; the daemon stops.")
                    break
                time.sleep(0.1)
        finally:
            if signals:
                _bound(2 * GRACE_SECONDS)
            _stop(server, runners)


def _finish_forgetting(home: Home) -> None:
    """Take up an erasure that was cut, before anything is read or answered."""
    from knowme import forget
    from knowme.db import value

    with home.db.read() as conn:
        if not value(conn, "SELECT 1 FROM erasures WHERE state <> 'done' LIMIT 1"):
            return
    try:
        forget.resume(home)
    except HomeError as error:  # another process has the home open; doctor names it, too
        log.warning("An erasure is not finished: %s %s", error.message, error.hint)


@contextmanager
def beside(home: Home) -> Iterator[None]:
    """Do the small work of a conversation in the background: learn from it, summarise ahead.

    For a chat or a service without a daemon; where there is one, either takes what is due.
    """
    mine = {kind: HANDLERS[kind] for kind in (structure.LEARN, structure.SUMMARISE)}
    runner = Runner(home, mine)
    thread = threading.Thread(target=runner.run_forever, name="knowme-beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        runner.stop()
        thread.join(GRACE_SECONDS / 2)


def _start_runners(
    home: Home, handlers: Mapping[str, Handler]
) -> list[tuple[Runner, threading.Thread]]:
    slow = {kind: handler for kind, handler in handlers.items() if kind in SLOW}
    rest = {kind: handler for kind, handler in handlers.items() if kind not in SLOW}
    started = []
    for name, part in (("knowme-jobs", rest), ("knowme-slow-jobs", slow)):
        if part:
            runner = Runner(home, part)
            thread = threading.Thread(target=runner.run_forever, name=name, daemon=True)
            thread.start()
            started.append((runner, thread))
    return started


def _stop(server: Service, runners: list[tuple[Runner, threading.Thread]]) -> None:
    until = time.monotonic() + GRACE_SECONDS
    for runner, _ in runners:
        runner.stop()
    server.stop(GRACE_SECONDS / 2)
    for _, thread in runners:
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            log.warning("%s does not stop; its job is left to its lease.", thread.name)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list; the second one ends the process at once.

    A list, not an Event: a handler that runs while its own thread holds the Event's lock would
    wait for itself. Outside the main thread nothing is installed.
    """
    seen: list[int] = []

    def handle(number: int, _: object) -> None:
        if seen:
            os._exit(1)  # all is on the disk; what runs is left to its lease
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _bound(seconds: float) -> None:
    """End the process after ``seconds`` at the latest, whatever hangs: all is on the disk."""

    def end() -> None:
        log.warning("Something did not stop in %.0f s; ending without it.", seconds)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _http(home: Home, host: str, port: int) -> Service:
    from knowme import service

    return service.Server(home, host, port)
