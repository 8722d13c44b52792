"""serve, daemon, jobs: the commands that keep running, and the work they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, cli, command
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.jobs import Job

STATES = ("queued", "running", "done", "parked", "cancelled")


@command(cli, "serve")
@click.option("--host", help="Where to listen; beyond loopback a token is needed.")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one.")
def serve(state: State, host: str | None, port: int | None) -> None:
    """Answer over HTTP, on this machine only by default."""
    from knowme import daemon, service

    with state.open(service__host=host, service__port=port) as home:
        _ = home.rules  # a pattern that is none is refused now, not at the first question
        settings = home.settings.service
        with daemon.beside(home):
            service.serve(home, settings.host, settings.port, _listening)


def _listening(url: str) -> None:
    say(f"knowme listens on {url}  (Ctrl-C stops it; its documentation: {url}/docs)")


@command(cli, "daemon")
@click.option("--host", help="Where to listen; beyond loopback a token is needed.")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one.")
def daemon(state: State, host: str | None, port: int | None) -> None:
    """Serve, and sync and back up daily in the background."""
    from knowme import daemon as process
    from knowme import service

    with state.open(service__host=host, service__port=port) as home:
        _ = home.rules
        settings = home.settings.service
        servers: list[service.Server] = []

        def make(home: Home, host: str, port: int) -> service.Server:
            servers.append(service.Server(home, host, port))
            return servers[0]

        def ready() -> None:
            _listening(servers[0].url)

        process.run(home, settings.host, settings.port, service=make, on_ready=ready)


@chapter("jobs", first="list")
def jobs() -> None:
    """The work in the background: list, show, retry, cancel.

    Alone it lists.
    """


@command(jobs, "list", json=True)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only these.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most."
)
def jobs_list(state: State, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List jobs: first those that live, then those that ended."""
    from dataclasses import asdict

    from knowme import jobs as queue

    with state.open() as home, home.db.read() as conn:
        found = queue.list_jobs(conn, states, limit)
    if as_json:
        console.say_json({"jobs": [asdict(job) for job in found], "count": len(found)})
        return
    for job in found:
        say(f"{job.id:>5}  {_state(job.state):<9} {bold(f'{job.kind:<10}')} {_when(job)}")
        if job.error and job.state != "done":
            say(f"       {dim(console.short(job.error))}")
    if not found:
        console.note("There are no jobs. `knowme daemon` makes the daily ones.")


def _state(state: str) -> str:
    paint = {"done": console.good, "parked": console.bad, "running": console.bold}
    return paint.get(state, str)(f"{state:<9}")


def _when(job: Job) -> str:
    from datetime import datetime

    if job.finished_ms is not None:
        return console.ago(job.finished_ms)
    if job.state == "running":
        done, total = job.progress.get("done", 0), job.progress.get("total", 0)
        return f"{done:,} of {total:,} {job.progress.get('note', '')}" if total else f"{done:,}"
    due = datetime.fromtimestamp(job.run_at_ms / 1000)
    again = f", {job.every}" if job.every else ""
    return f"due {due:%Y-%m-%d %H:%M}{again}"


@command(jobs, "show", json=True)
@click.argument("number", type=int)
def jobs_show(state: State, number: int, as_json: bool) -> None:
    """Show one job, with its last error."""
    from dataclasses import asdict

    from knowme import jobs as queue
    from knowme.times import iso

    with state.open() as home, home.db.read() as conn:
        job = queue.show(conn, number)
    told: dict[str, Any] = asdict(job)
    if as_json:
        console.say_json(told)
        return
    for name, value in told.items():
        if value not in (None, "", {}):
            value = iso(value) if name.endswith("_ms") else value
            label = name.removesuffix("_ms")
            say(f"{dim(f'{label:<13}')} {console.clean(str(value))}")


@command(jobs, "retry")
@click.argument("number", type=int)
def jobs_retry(state: State, number: int) -> None:
    """Run a job again, now (a daemon does it)."""
    from knowme import jobs as queue

    with state.open() as home:
        live = home.db.write(lambda conn: queue.retry(conn, number))
    say(f"Job {live} is queued. A running `knowme daemon` takes it up.")


@command(jobs, "cancel")
@click.argument("number", type=int)
def jobs_cancel(state: State, number: int) -> None:
    """Cancel a job; one that runs stops at its next step."""
    from knowme import jobs as queue

    with state.open() as home:
        outcome = home.db.write(lambda conn: queue.cancel(conn, number))
    say(f"Job {number} is {outcome}.")
