"""profile: who you are, as knowme understands it; yours to change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, command
from knowme.commands.recall import when
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from datetime import tzinfo

    from knowme.beliefs import Event
    from knowme.home import Home
    from knowme.profile import Change
    from knowme.types import Line


@chapter("profile", first="show")
def profile() -> None:
    """Who you are: show, why, edit, write, strike, pin, undo.

    It is the file USER_PROFILE.md in the home: edit that, or use these. What you say of a line
    holds for ever, whatever is learned later. A line is named by its id or by its words.
    """


@command(profile, "show", json=True)
@click.option("--all", "everything", is_flag=True, help="Also what is thin, struck, left out.")
@click.option("--baseline", is_flag=True, help="What counting words alone would say.")
@click.option("--as-of", metavar="WHEN", help="As it was: a date, 7d, 3w, 6m.")
def show(state: State, everything: bool, baseline: bool, as_of: str | None, as_json: bool) -> None:
    """Show the profile, each line with its id and how sure it is."""
    from knowme import portrait
    from knowme import profile as profiles
    from knowme.db import value
    from knowme.times import zone

    with state.open() as home:
        tz = zone(home.settings.memory.timezone)
        at_ms = when(as_of, tz, end=True)
        if at_ms is None and not baseline:
            portrait.settle(home)
        with home.db.read() as conn:
            if baseline:
                lines = profiles.baseline(portrait.texts(conn, home.settings))
            else:
                lines = profiles.lines(conn) if at_ms is None else profiles.as_of(conn, at_ms)
            first_ms = value(conn, "SELECT min(at_ms) FROM events WHERE target = 'line'")
        left = () if baseline or at_ms is not None else portrait.left_out(home)
    if not everything:
        lines = [line for line in lines if line.state == "current"]
    if as_json:
        console.say_json({"lines": [_json(line) for line in lines], "left_out": len(left)})
        return
    _print(lines, {line.uid for line in left})
    if not lines:
        console.note(_no_lines(as_of, first_ms, tz))
    elif left:
        number = console.many(len(left), "line")
        console.note(dim(f"{number} marked * have no room on the page (context.memory_tokens)."))


def _no_lines(as_of: str | None, first_ms: int | None, tz: tzinfo | None) -> str:
    from knowme.times import day

    if as_of is None or first_ms is None:
        return "Nothing is known yet. Read your sources first: knowme sync"
    return f"There was no profile by {console.clean(as_of)}: the first is of {day(first_ms, tz)}."


def _print(lines: Iterable[Line], left: set[str]) -> None:
    from knowme.profile import SECTIONS, TITLE

    section = ""
    for line in lines:
        if line.section == TITLE:
            continue
        if line.section != section:
            section = line.section
            say(bold(console.clean(SECTIONS.get(section, section))))
        notes = [f"{line.confidence:.2f}"] if line.written_by != "person" else ["yours"]
        notes += [line.state] if line.state != "current" else []
        notes += ["pinned"] if line.pinned else []
        notes += ["private"] if line.sensitive else []
        mark = "*" if line.uid in left else " "
        tail = dim(f"  {', '.join(notes)}")
        say(f"{mark}{dim(line.uid[:6])}  {console.clean(line.text)}{tail}")


def _json(line: Line) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(line)


# --- why, and what became of it -------------------------------------------------------------------


@command(profile, "why", json=True)
@click.argument("line", nargs=-1, required=True)
def why(state: State, line: Sequence[str], as_json: bool) -> None:
    """Show the words that a line rests on, with their dates."""
    from knowme import profile as profiles
    from knowme.times import day, zone

    with state.open() as home:
        tz = zone(home.settings.memory.timezone)
        with home.db.read() as conn:
            found, quotes = profiles.why(conn, " ".join(line))
    if as_json:
        told = [{"quote": q.quote, "message_id": q.message_id, "at": day(at, tz),
                 "fact": q.fact_uid} for q, at in quotes]  # fmt: skip
        console.say_json({"line": _json(found), "evidence": told})
        return
    say(bold(console.clean(found.text)))
    who = {"person": "you wrote it", "rules": "read by rules"}.get(found.written_by)
    say(f"{found.state}, {found.confidence:.2f} sure, {who or f'read by {found.written_by}'}")
    for one, at_ms in quotes:
        say(f"  {dim(day(at_ms, tz))}  “{console.short(one.quote, 140)}”  {dim(one.fact_uid[:6])}")
    if not quotes:
        say(dim("  It rests on your own word."))


@command(profile, "diff", json=True)
@click.option(
    "--since", metavar="WHEN", default="7d", show_default=True, help="A date, 7d, 3w, 6m."
)
def diff(state: State, since: str, as_json: bool) -> None:
    """Show which lines came, went and changed."""
    from knowme import profile as profiles
    from knowme.times import zone

    with state.open() as home:
        since_ms = when(since, zone(home.settings.memory.timezone)) or 0
        with home.db.read() as conn:
            changes = profiles.diff(conn, since_ms)
    if as_json:
        console.say_json({"changes": [_change_json(change) for change in changes]})
        return
    for change in changes:
        _print_change(change)
    if not changes:
        say("Nothing changed since then.")


def _change_json(change: Change) -> dict[str, Any]:
    return {
        "uid": change.uid,
        "before": None if change.before is None else _json(change.before),
        "after": None if change.after is None else _json(change.after),
    }


def _print_change(change: Change) -> None:
    for sign, line, paint in (("-", change.before, console.bad), ("+", change.after, console.good)):
        if line is not None:
            marks = [line.state] if line.state != "current" else []
            marks += ["pinned"] if line.pinned else []
            marks += ["private"] if line.sensitive else []
            state = f"  ({', '.join(marks)})" if marks else ""
            say(f"{paint(sign)} {dim(change.uid[:6])}  {console.clean(line.text)}{dim(state)}")


@command(profile, "history", json=True)
@click.argument("line", nargs=-1)
@click.option("--limit", type=click.IntRange(1), default=30, show_default=True, help="How many.")
def history(state: State, line: Sequence[str], limit: int, as_json: bool) -> None:
    """Show what became of a line, or of all of them, oldest first."""
    from knowme import profile as profiles
    from knowme.times import zone

    with state.open() as home:
        tz = zone(home.settings.memory.timezone)
        with home.db.read() as conn:
            events = profiles.history(conn, " ".join(line), limit)
    if as_json:
        console.say_json({"events": [event._asdict() for event in events]})
        return
    for event in events:
        _print_event(event, tz)
    if not events:
        say("Nothing changed yet.")


def _print_event(event: Event, tz: tzinfo | None) -> None:
    from knowme.times import minute

    before = "" if event.before is None else str(event.before["text"])
    after = "" if event.after is None else str(event.after["text"])
    words = f"{before} → {after}" if before and after and before != after else after or before
    head = f"{minute(event.at_ms, tz)}  {event.uid[:6]}  {event.action} by {event.actor}"
    say(f"{dim(head)}  {console.clean(words)}")


# --- the person's word ----------------------------------------------------------------------------


@command(profile, "edit", json=True)
@click.argument("line", required=False)
@click.argument("text", nargs=-1)
def edit(state: State, line: str | None, text: Sequence[str], as_json: bool) -> None:
    """Change a line: its id, then its new words. Without them the page opens in $EDITOR."""
    if line is None:
        _in_editor(state)
        return
    if not text:
        raise click.UsageError(
            'Say what it shall read: knowme profile edit 3fa2c1 "Lives in Porto"'
        )
    _decide(state, "edit", line, as_json, " ".join(text))


@command(profile, "write", json=True)
@click.argument("section")
@click.argument("text", nargs=-1, required=True)
@click.option("--private", is_flag=True, help="Keep it out of every prompt that leaves.")
def write(state: State, section: str, text: Sequence[str], private: bool, as_json: bool) -> None:
    """Add a line of your own to a section.

    SECTION is identity, people, preferences, work, context, communication, health, or a new one.
    """
    words = " ".join(text) + (" [private]" if private else "")
    _decide(state, "write", "", as_json, words, _named(section))


@command(profile, "strike", json=True)
@click.argument("line", nargs=-1, required=True)
def strike(state: State, line: Sequence[str], as_json: bool) -> None:
    """Strike a line: it does not come back."""
    _decide(state, "strike", " ".join(line), as_json)


@command(profile, "pin", json=True)
@click.argument("line", nargs=-1, required=True)
def pin(state: State, line: Sequence[str], as_json: bool) -> None:
    """Keep a line on the page, before all others."""
    _decide(state, "pin", " ".join(line), as_json)


@command(profile, "unpin", json=True)
@click.argument("line", nargs=-1, required=True)
def unpin(state: State, line: Sequence[str], as_json: bool) -> None:
    """Let a line take its chance again."""
    _decide(state, "unpin", " ".join(line), as_json)


@command(profile, "undo", json=True)
@click.argument("line", nargs=-1)
def undo(state: State, line: Sequence[str], as_json: bool) -> None:
    """Take back the last change of a line, or of any."""
    from knowme import portrait
    from knowme import profile as profiles
    from knowme.times import now_ms

    with state.open() as home:
        portrait.settle(home)
        change = home.db.write(lambda conn: profiles.undo(conn, now_ms(), " ".join(line)))
        _build(home)
    if as_json:
        console.say_json(_change_json(change))
        return
    say("Taken back:")
    _print_change(change)


@command(profile, "build", json=True)
def build(state: State, as_json: bool) -> None:
    """Bring the page up to date with what was learned."""
    from knowme import portrait

    with state.open() as home:
        built = portrait.build(home)
    if as_json:
        console.say_json(built._asdict())
        return
    told = f"{console.many(built.changes, 'line')} changed."
    say(told if built.changes else "Nothing has changed.")
    if built.written is not None:
        say(dim(f"{built.written}"))


def _named(section: str) -> str:
    """Return the section of a heading or of its beginning; another name is a section of theirs."""
    from knowme.profile import SECTIONS

    wanted = " ".join(section.split()).casefold()
    for key, heading in SECTIONS.items():
        if wanted in (key, heading.casefold()):
            return key
    return " ".join(section.split()) or "notes"


def _decide(
    state: State, action: str, ref: str, as_json: bool, text: str = "", section: str = ""
) -> None:
    from knowme import portrait
    from knowme import profile as profiles
    from knowme.times import now_ms

    with state.open() as home:
        portrait.settle(home)
        line = home.db.write(
            lambda conn: profiles.decide(conn, action, ref, now_ms(), text, section)
        )
        _build(home)
        unseen = line.uid in {one.uid for one in portrait.left_out(home)}
    if as_json:
        console.say_json(_json(line))
        return
    done = {"write": "Written", "edit": "Changed", "strike": "Struck", "pin": "Pinned",
            "unpin": "Unpinned"}[action]  # fmt: skip
    say(f"{done}: {dim(line.uid[:6])}  {console.clean(line.text)}")
    if unseen:
        console.note("The page has no room for it: knowme config set context.memory_tokens 800")


def _build(home: Home) -> None:
    from knowme import portrait

    portrait.build(home)


def _in_editor(state: State) -> None:
    from knowme import portrait
    from knowme.errors import InputError
    from knowme.workspace import PROFILE

    with state.open() as home:
        portrait.build(home)
        path = home.path / PROFILE
        if not path.exists():
            console.note("There is no page yet. Read your sources first: knowme sync")
            return
        try:
            click.edit(filename=str(path))
        except click.ClickException as error:
            raise InputError(
                error.format_message(), f"EDITOR=nano knowme profile edit, or change {path} itself"
            ) from error
        built = portrait.build(home)
    say(f"{console.many(built.absorbed, 'line')} changed by you.")
