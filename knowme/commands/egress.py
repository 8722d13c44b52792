"""egress: what left this machine, and what would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, command
from knowme.commands.recall import read_words, when
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from datetime import tzinfo

    from knowme.ask import Preview
    from knowme.home import Home
    from knowme.types import Dropped


@chapter("egress", first="list")
def egress() -> None:
    """What left this machine: list, show.

    Alone it lists. With --dry-run "..." it shows what would leave for that message, with --by-day
    the sums of each day: these are options of `list`.
    """


@command(egress, "list", json=True)
@click.option("--since", metavar="WHEN", help="Nothing earlier: a date, 7d, 3w, 6m.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--by-day", is_flag=True, help="Sums by day and destination.")
@click.option("--dry-run", metavar="TEXT", help='What would leave for this message; "-": stdin.')
@click.option(
    "--continue", "conversation", default="", metavar="ID", help="The conversation of --dry-run."
)
def egress_list(
    state: State,
    since: str | None,
    limit: int,
    by_day: bool,
    dry_run: str | None,
    conversation: str,
    as_json: bool,
) -> None:
    """List what left this machine, newest first, with sums."""
    from knowme import egress as ledger
    from knowme.times import zone

    if dry_run is not None:
        _dry_run(state, read_words((dry_run,)), conversation, as_json)
        return
    with state.open() as home:
        tz = zone(home.settings.memory.timezone)
        since_ms = when(since, tz)
        with home.db.read() as conn:
            rows = ledger.listed(conn, limit, since_ms)
            totals = ledger.totals(conn, since_ms)
            days = ledger.by_day(conn, since_ms, tz) if by_day else []
        offline = home.settings.offline
    if as_json:
        more = {"by_day": days} if by_day else {}
        console.say_json({"egress": rows, "totals": totals, **more, "offline": offline})
        return
    if not rows:
        say("Nothing left this machine since then." if since else "Nothing ever left this machine.")
    elif by_day:
        for one in days:
            say(f"{one['day']}  {_sum(one)}")
    else:
        _print_rows(rows, tz)
    if rows:
        say()
        for one in totals:
            say(f"{bold('total')}  {_sum(one)}")
        left_out = sum(one["calls"] for one in totals) - len(rows)
        if left_out > 0 and not by_day:
            console.note(dim(f"The newest {len(rows)} are shown; all: --limit {10**6}"))
    if offline:
        say("offline is set: nothing can leave it.")


def _print_rows(rows: Sequence[Mapping[str, Any]], tz: tzinfo | None) -> None:
    for row in rows:
        say(f"{bold(str(row['id']).rjust(4))}  {_head(row, tz)}")
        say(dim(console.wrap(_classes(row["classes"]), "      ")))
        say(dim(f"      {_size(row)}"))


def _head(row: Mapping[str, Any], tz: tzinfo | None) -> str:
    from knowme.times import minute

    outcome = str(row["outcome"])
    told = console.good(outcome) if outcome == "200" else console.warn(outcome)
    who = f"{row['model']} ({row['purpose']})" if row["model"] else str(row["purpose"])
    return f"{minute(row['at_ms'], tz)}  {console.clean(row['url'])}  {console.clean(who)}  {told}"


def _classes(classes: Mapping[str, str]) -> str:
    """Return which classes went, each with the policy that let it go."""
    if not classes:
        return "nothing of yours"
    return ", ".join(f"{cls} ({policy})" for cls, policy in classes.items())


def _size(row: Mapping[str, Any]) -> str:
    parts = [f"{console.size(row['sent_bytes'])} sent"]
    parts.append(f"{console.size(row['received_bytes'])} received")
    if row["prompt_tokens"] or row["answer_tokens"]:
        parts.append(f"{row['prompt_tokens']:,} + {row['answer_tokens']:,} tokens")
    if row["cost"]:
        parts.append(f"{console.money(row['cost'])} spent")
    return ", ".join(parts)


def _sum(one: Mapping[str, Any]) -> str:
    return f"{console.clean(one['to'])}: {console.many(one['calls'], 'send')}, {_size(one)}"


@command(egress, "show", json=True)
@click.argument("number", type=int)
@click.option("--raw", is_flag=True, help="The body alone, byte for byte as it was kept.")
def egress_show(state: State, number: int, raw: bool, as_json: bool) -> None:
    """Show what was sent, word for word.

    NUMBER stands before it in `knowme egress`. Secrets are masked; headers are never kept.
    """
    from knowme import egress as ledger
    from knowme.times import zone

    with state.open() as home:
        tz = zone(home.settings.memory.timezone)
        with home.db.read() as conn:
            row = ledger.detail(conn, number)
            body = ledger.body(conn, number) if row["kept"] or raw else None
    if as_json:
        console.say_json({**row, "body": _parsed(body)})
        return
    if raw:
        say(console.clean(body or ""))
        return
    say(f"{bold(str(number))}  {_head(row, tz)}")
    say(dim(console.wrap(_classes(row["classes"]), "  ")))
    say(dim(f"  {_size(row)}"))
    if row["answer_id"] is not None:
        say(dim(f"  for answer {row['answer_id']}: knowme why {row['answer_id']} --prompt"))
    if body is None:
        why = "It had no body." if not row["sent_bytes"] else "It was not kept."
        say(why)
    else:
        _print_body(_parsed(body))


def _parsed(body: str | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except ValueError:
        return body


def _print_body(body: Any) -> None:
    """Print a chat's messages as they read, and any other body as JSON."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        say()
        say(console.clean(_indented(body)))
        return
    rest = {key: value for key, value in body.items() if key != "messages"}
    say()
    say(dim(console.clean(json.dumps(rest, ensure_ascii=False))))
    for message in messages:
        more = {key: value for key, value in message.items() if key not in ("role", "content")}
        rest_of_it = _indented(more) if any(more.values()) else ""
        _print_message(str(message.get("role", "")), message.get("content"), rest_of_it)


def _print_message(role: str, content: Any, more: str) -> None:
    say()
    say(bold(f"{console.clean(role)}:"))
    if content:
        said = content if isinstance(content, str) else _indented(content)
        say(console.wrap(said, "  "))
    if more:
        say(console.wrap(more, "  "))


def _indented(value: Any) -> str:
    found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return console.short(found, 20_000) if found.startswith("data:") else found


# --- what would leave -----------------------------------------------------------------------------


def _dry_run(state: State, text: str, conversation: str, as_json: bool) -> None:
    from knowme.ask import Asked, preview
    from knowme.privacy import describe, leave

    with state.open() as home:
        found = preview(home, Asked(text, conversation=conversation), remote=True)
        told = describe(leave(home.settings.privacy))
        if as_json:
            console.say_json(_preview_json(home, found, told))
        else:
            _print_preview(home, found, told)


def _preview_json(home: Home, found: Preview, told: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "route": asdict(found.route),
        "role": found.role,
        "to": found.url,
        "leaves": bool(found.role) and found.route.model == found.role,
        "offline": home.settings.offline,
        "messages": [
            {"role": message.role, "content": message.content} for message in found.messages
        ],
        "classes": dict(found.classes),
        "withheld": [asdict(each) for each in found.withheld],
        "bytes": found.bytes,
        "tokens": found.tokens,
        "cost": found.cost,
        "policy": told,
    }


def _print_preview(home: Home, found: Preview, told: str) -> None:
    route = found.route
    if not found.role:
        say("Nothing would leave: no model that is not of this machine is configured.")
        say(dim(console.wrap(f"{route.model} would answer: {route.reason}")))
        return
    leaves = route.model == found.role and not home.settings.offline
    to = f"{found.role} at {console.clean(found.url)}"
    if home.settings.offline:
        say("Nothing would leave: offline is set.")
    elif leaves:
        say(f"This message would go to {bold(to)}.")
    else:
        say(f"Nothing would leave: {bold(route.model)} would answer it here.")
    say(dim(console.wrap(console.clean(route.reason), "  ")))
    say()
    size = f"{console.size(found.bytes)}, about {found.tokens:,} tokens"
    cost = f", at most {console.money(found.cost)} in money" if found.cost else ""
    say(f"{'It' if leaves else f'To {to}, it'} would be: {size}{cost}")
    say(dim(console.wrap(_classes(found.classes), "  ")))
    for message in found.messages:
        pictures = f"({console.many(len(message.images), 'picture')})" if message.images else ""
        _print_message(message.role, message.content, pictures)
    if found.withheld:
        say()
        say(bold(f"Stays here ({len(found.withheld)}):"))
        _print_withheld(home, found.withheld)
    say()
    say(dim(console.wrap(told)))


def _print_withheld(home: Home, withheld: Sequence[Dropped]) -> None:
    """Print what stays by its reason, each piece with its day and its first words."""
    from knowme.db import rows
    from knowme.times import day, zone

    tz = zone(home.settings.memory.timezone)
    uids = json.dumps([each.uid for each in withheld])
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT i.uid, i.at_ms, coalesce(i.text,"
            " substr(plain(m.text), i.start + 1, i.end - i.start))"
            " FROM items i LEFT JOIN messages m ON m.id = i.message_id"
            " WHERE i.uid IN (SELECT value FROM json_each(?))",
            (uids,),
        )
    said = {uid: f"{day(at_ms, tz)}  “{console.short(text or '')}”" for uid, at_ms, text in found}
    for why in dict.fromkeys(each.reason for each in withheld):
        say(console.wrap(f"{why}:", "  ", "    "))
        for each in withheld:
            if each.reason == why:
                told = console.short(said.get(each.uid, each.uid), console.width() - 4)
                say(dim(f"    {told}"))
