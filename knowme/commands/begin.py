"""init, sync, import-file, models, doctor: the commands of the first minutes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, cli, command
from knowme.console import bold, dim, note, say

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.settings import SourceSettings
    from knowme.types import Counts

OPENCLAW = ("openclaw.json", "agents", "sessions", "workspace", "memory")
"""A home of OpenClaw, or a part of one, holds one of these."""
IMPORTS = ("auto", "markdown", "knowme", "openclaw")


# --- init -----------------------------------------------------------------------------------------


@command(cli, "init")
@click.option("--no-detect", is_flag=True, help="Do not look for what there is to read.")
@click.option("--name", help="Your name, as the answers should say it.")
def init(state: State, no_detect: bool, name: str | None) -> None:
    """Make a home, and find what there is to read."""
    from knowme import config, configfile
    from knowme.home import Home

    path = state.path
    new = not (path / "config.yaml").exists()
    Home.create(path)
    say(f"{console.good('home')}  {path}  {'(made)' if new else '(was there)'}")
    if name:
        config.set_value(path, "name", name)
    configured = config.load(path).settings.sources
    if not configured and not no_detect:
        for source in detect():
            configfile.add_source(path, source)
            say(f"{console.good('found')} {source.path}: written into config.yaml")
        configured = config.load(path).settings.sources
    for source in configured:
        say(f"{dim('reads')} {source.name}: {source.kind}, {source.path}")
    say()
    say("Next:")
    for step, why in _next_steps(path, bool(configured)):
        say(f"  {bold(step):<44} {dim(why)}" if sys.stdout.isatty() else f"  {step:<40} {why}")


def detect() -> list[SourceSettings]:
    """Return the sources found on this machine that knowme can read, ready to be configured."""
    from knowme.settings import SourceSettings

    folder = os.environ.get("OPENCLAW_STATE_DIR") or "~/.openclaw"
    return [SourceSettings("openclaw", folder)] if Path(folder).expanduser().is_dir() else []


def _next_steps(path: Path, sources: bool) -> list[tuple[str, str]]:
    from importlib.util import find_spec

    from knowme import modelstore

    home = "" if str(path) == str(Path("~/.knowme").expanduser()) else f" --home {path}"
    if os.environ.get("KNOWME_HOME"):
        home = ""
    steps = []
    if find_spec("xllamacpp") is None:
        steps.append(("pip install 'knowme[local]'", "what runs models (or use Ollama)"))
    wanted = [model for model in modelstore.catalogue() if model.default and not model.installed]
    if wanted:
        size = console.size(sum(model.size_bytes for model in wanted))
        steps.append(("knowme models pull", f"the embedded models, {size}"))
    if not sources:
        steps.append((f"knowme{home} config add markdown ~/notes", "name what it should read"))
    steps.append((f"knowme{home} sync", "read it"))
    steps.append((f'knowme{home} ask "..."', "ask"))
    return steps


# --- sync -----------------------------------------------------------------------------------------


@command(cli, "sync", json=True)
@click.argument("sources", nargs=-1)
def sync(state: State, sources: Sequence[str], as_json: bool) -> None:
    """Read what is new in your sources, or in those named. Safe to interrupt."""
    from knowme import config

    configured = config.load(state.path).settings.sources
    if not configured:
        _offer(state)
    from knowme import sync as reader

    with state.open() as home, console.Progress() as line:

        def tell(name: str, counts: Counts) -> None:
            line.tell(f"{name}: {console.counts_line(counts)}")

        done = reader.sync(home, sources, tell)
        learned = _learn(home, line)
        pending = reader.pending(home)
    if as_json:
        console.say_json(
            {
                "sources": {name: console.counts_json(counts) for name, counts in done.items()},
                "learned": learned,
                "pending": pending,
            }
        )
    else:
        for name, counts in done.items():
            console.print_counts(name, counts)
        print_learned(learned)
        if pending:
            note(f"{pending:,} items have no vector yet (their words are found): knowme reindex")
    if failed := [name for name, counts in done.items() if counts.skipped.get("source")]:
        note(console.bad(f"{', '.join(failed)} could not be read."))
        raise click.exceptions.Exit(1)


def _learn(home: Home, line: console.Progress) -> dict[str, int]:
    """Learn from what was read. What was read is safe already, so a failure is told and no more."""
    from knowme import structure
    from knowme.errors import KnowmeError

    def tell(done: int, total: int, what: str = "") -> None:
        line.done(f"learning, {what}" if what else "learning", done, total)

    try:
        return structure.catch_up(home, tell)
    except KnowmeError as error:
        note(f"Nothing was learned from it yet: {error}")
        return {}


def print_learned(counts: Mapping[str, int]) -> None:
    """Tell what was learned, where there is anything to tell."""
    if counts.get("believed"):
        told = f"learned: {console.many(counts['believed'], 'fact')} (knowme facts)"
        lines = counts.get("lines", 0)
        told += f", {console.many(lines, 'line')} of the profile changed (knowme profile show)"
        say(dim(told if lines else told.partition(", ")[0]))
    if counts.get("doubtful"):
        say(dim(f"{console.many(counts['doubtful'], 'doubt')} for you to settle: knowme inbox"))


def _offer(state: State) -> None:
    """With nothing configured, offer what was detected; else say how to name something."""
    from knowme import configfile
    from knowme.errors import ConfigError, HomeError

    if not (state.path / "config.yaml").exists():
        raise HomeError(f"There is no knowme home at {state.path}.", "Make one: knowme init")
    found = detect()
    if not found:
        raise ConfigError(
            "No source is configured, and there is no ~/.openclaw.",
            "Name one: knowme config add markdown ~/notes",
        )
    source = found[0]
    add = f"knowme config add {source.kind} {source.path}"
    note(f"No source is configured. {source.path} is there (OpenClaw).")
    if not sys.stdin.isatty() or not click.confirm("Read it, now and at each sync?", err=True):
        raise ConfigError("No source is configured.", f"Run: {add}")
    configfile.add_source(state.path, source)


@command(cli, "import-file", json=True)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--kind", type=click.Choice(IMPORTS), default="auto", help="What it holds.")
def import_file(state: State, path: Path, kind: str, as_json: bool) -> None:
    """Read one file or folder, once.

    Notes, an export of knowme, or a copy of a home of OpenClaw (session files: in a folder
    called sessions, of which PATH is the parent).
    """
    from knowme import sync as reader
    from knowme.errors import InputError

    kind = guess_kind(path) if kind == "auto" else kind
    if kind == "openclaw" and not any((path / name).exists() for name in OPENCLAW):
        raise InputError(
            f"{path} looks like OpenClaw's, and is not a home of OpenClaw.",
            "Put session files into a folder DIR/sessions, then: knowme import-file DIR",
        )
    with state.open() as home, console.Progress() as line:
        counts = reader.import_path(
            home, path, kind, lambda counts: line.tell(console.counts_line(counts))
        )
        if kind == "knowme":
            from knowme.export import take_decisions

            take_decisions(home, path)  # before anything is learned: the person's word counts
        learned = _learn(home, line)
    if as_json:
        told = {"path": str(path), "kind": kind, **console.counts_json(counts), "learned": learned}
        console.say_json(told)
    else:
        console.print_counts(f"{path} ({kind})", counts)
        print_learned(learned)


def guess_kind(path: Path) -> str:
    """Say what a path holds, by its layout: openclaw, knowme (an export) or markdown."""
    if path.is_dir():
        if any((path / name).exists() for name in ("agents", "openclaw.json", "sessions")):
            return "openclaw"
        if (path / "messages.jsonl").exists() or (path / "knowme.json").exists():
            return "knowme"
        if any(path.glob("*.jsonl")) and not any(path.glob("*.md")):
            return "openclaw"
    elif ".jsonl" in path.name or path.suffix == ".sqlite":
        return "openclaw"
    return "markdown"


# --- models ---------------------------------------------------------------------------------------


@chapter("models", first="list")
def models() -> None:
    """Models: those on this machine, and the roles that answer.

    Alone it lists.
    """


@command(models, "list", json=True)
def models_list(state: State, as_json: bool) -> None:
    """List the models that can be had, and those that are here."""
    from dataclasses import asdict

    from knowme import modelstore

    rows = modelstore.catalogue()
    if as_json:
        found = [asdict(row) for row in rows]
        console.say_json({"folder": str(modelstore.models_dir()), "models": found})
        return
    for row in rows:
        here = console.good("here") if row.installed else dim("   -")
        star = "*" if row.default else " "
        size = console.size(row.size_bytes)
        say(f"{here} {star} {bold(f'{row.name:<24}')} {row.kind:<10} {size:>9}")
        say(dim(console.wrap(f"{row.about} ({row.licence})", " " * 7)))
    say()
    say(dim(console.wrap("* comes with `knowme models pull`", "")))
    say(dim(f"in {modelstore.models_dir()}"))


@command(models, "roles", json=True)
@click.option("--days", type=click.IntRange(1, 3650), default=30, help="Of so many days.")
def models_roles(state: State, days: int, as_json: bool) -> None:
    """Show which models answer, and what they did and cost."""
    from dataclasses import asdict

    from knowme.stats import llm_stats

    with state.open() as home:
        told, roles = llm_stats(home, days), home.models.states()
        primary = home.models.primary
    if as_json:
        console.say_json({"roles": [asdict(role) for role in roles], **told})
        return
    for role in roles:
        where = "this machine" if role.local else "remote"
        price = f", {role.price_in:g} and {role.price_out:g} a million" if role.price_out else ""
        mark = "*" if role.role == primary else " "
        say(f"{mark} {bold(role.role)}: {role.model or '-'} ({role.engine}), {where}{price}")
        if role.down:
            say(console.warn(console.wrap(role.down, "    ")))
    say()
    say(f"In the last {days} days:")
    for each in told["by_model"]:
        paid = f", {console.money(each['cost'])} spent" if each["cost"] else ""
        failed = f", {each['failed']} failed" if each["failed"] else ""
        say(
            f"  {each['role']} ({each['model']}): {console.many(each['calls'], 'call')}, "
            f"{each['prompt_tokens']:,} + {each['answer_tokens']:,} tokens{paid}{failed}"
        )
    if not told["by_model"]:
        say("  no model was asked")
    swaps = told["swaps"]
    if swaps["loads"]:
        mean = f"{swaps['mean_ms'] / 1000:.1f}"
        say(dim(f"  loaded {console.many(swaps['loads'], 'time')}, {mean} s each on average"))
    if told["cache_hit_rate"] is not None:
        say(dim(f"  {told['cache_hit_rate']:.0%} of the prompt tokens came from a cache"))


@command(models, "pull")
@click.argument("name", required=False)
def models_pull(state: State, name: str | None) -> None:
    """Bring a model, or the default set for chat and embedding."""
    from knowme import config, modelstore, net

    offline = config.load(state.path).settings.offline
    with net.walled(offline), console.Progress() as line:

        def tell(model: str, done: int, total: int) -> None:
            line.tell(f"{model}: {console.size(done)} of {console.size(total)}")

        paths = modelstore.pull(name, tell)
    for path in paths:
        say(f"{console.good('here')}  {path}")


@command(models, "rm")
@click.argument("name")
def models_rm(state: State, name: str) -> None:
    """Delete a model from this machine."""
    from knowme import modelstore

    modelstore.remove(name)
    say(f"{name} is gone.")


# --- doctor ---------------------------------------------------------------------------------------


@command(cli, "doctor", json=True)
def doctor(state: State, as_json: bool) -> None:
    """Name what is missing or broken, and the command that mends it."""
    from dataclasses import asdict

    from knowme import doctor as surgery

    findings = surgery.examine(state.path)
    if as_json:
        healthy = not any(finding.state == "broken" for finding in findings)
        console.say_json({"healthy": healthy, "findings": [asdict(each) for each in findings]})
    else:
        marks: dict[str, Any] = {
            "ok": console.good("ok    "),
            "warn": console.warn("warn  "),
            "broken": console.bad("broken"),
        }
        for finding in findings:
            told = console.wrap(f"{finding.name:<9} {finding.found}", " " * 8, " " * 18)
            say(f"{marks[finding.state]}  {told[8:]}")
            if finding.mend:
                say(f"                  {dim('mend:')} {state.here(finding.mend)}")
    if any(finding.state == "broken" for finding in findings):
        raise click.exceptions.Exit(1)
