"""forget: erase something from everywhere, and prove it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, cli, command
from knowme.commands.recall import read_words, when
from knowme.console import bold, dim, good, note, say, warn

if TYPE_CHECKING:
    from datetime import tzinfo

    from knowme.forget import Plan, Receipt, Tell, What
    from knowme.home import Home
    from knowme.types import Hit


@command(cli, "forget", json=True)
@click.argument("text", nargs=-1)
@click.option(
    "--message", "messages", metavar="ID", multiple=True, help="This message; repeatable."
)
@click.option("--conversation", metavar="ID", help="This conversation, all of it.")
@click.option("--before", metavar="DATE", help="What was said before: a date, 90d, 6m, 2y.")
@click.option("--person", metavar="NAME", help="What this person said, and where they are named.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--list", "only_list", is_flag=True, help="List the receipts.")
@click.option("--resume", is_flag=True, help="Bring an erasure that was cut to its end.")
def forget(
    state: State,
    text: tuple[str, ...],
    messages: tuple[str, ...],
    conversation: str | None,
    before: str | None,
    person: str | None,
    yes: bool,
    only_list: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Show what would go, ask, and erase it from everywhere.

    Then it is looked for by every route. TEXT is the exact words, in any case; "-" reads them from
    stdin. Where no message holds them, what a search finds is shown, to choose from. Whole messages
    go, with our answers that used them. The receipt holds no word of it. Nothing that was forgotten
    is synced again.
    """
    from knowme import forget as forgetting

    with state.open() as home, console.Progress() as line:

        def tell(done: int, total: int, what: str) -> None:
            line.done(what, done, total) if total else line.tell(what)

        if only_list or resume:
            receipts = _done(home, tell) if resume else _listed(home)
            _print_receipts(home, receipts, as_json, resumed=resume)
            return
        what = _what(home, text, messages, conversation, before, person)
        plan = forgetting.plan(home, what)
        if not plan.messages and what.kind == "text":
            plan = _suggested(home, what, as_json or yes)
        if as_json and not (yes and plan.messages):
            console.say_json(_plan_json(plan))
            return
        if not as_json:
            _print_plan(home, plan)
        if not plan.messages:
            return
        if not yes:
            _ask(plan)
        _print_receipt(forgetting.erase(home, plan, tell), as_json)


def _listed(home: Home) -> list[Receipt]:
    from knowme import forget as forgetting

    with home.db.read() as conn:
        return forgetting.receipts(conn)


def _done(home: Home, tell: Tell) -> list[Receipt]:
    from knowme import forget as forgetting

    ended = forgetting.resume(home, tell)
    if not ended:
        note("Nothing was cut: there is nothing to resume.")
    return ended


def _what(
    home: Home,
    text: Sequence[str],
    messages: tuple[str, ...],
    conversation: str | None,
    before: str | None,
    person: str | None,
) -> What:
    from knowme.errors import InputError
    from knowme.forget import What
    from knowme.times import zone

    given = [bool(text), bool(messages), bool(conversation), bool(before), bool(person)]
    if sum(given) != 1:
        told = "Nothing is named" if not any(given) else "More than one thing is named"
        raise InputError(
            f"{told} to be forgotten.",
            "Name one: TEXT, --message ID, --conversation ID, --before DATE or --person NAME.",
        )
    if text:
        return What("text", text=read_words(text))
    if messages:
        return What("message", messages=messages)
    if conversation:
        return What("conversation", conversation=conversation)
    if person:
        return What("person", text=person)
    return What("before", before_ms=when(before, zone(home.settings.memory.timezone)))


def _suggested(home: Home, what: What, silent: bool) -> Plan:
    """Show what a search finds for words that stand nowhere, and let the person choose."""
    from knowme import forget as forgetting
    from knowme.errors import InputError, NotFoundError
    from knowme.times import zone

    hits = forgetting.suggest(home, what.text)
    if not hits:
        raise NotFoundError("No message holds these words, and a search finds nothing.")
    told = "No message holds exactly these words."
    tz = zone(home.settings.memory.timezone)
    if silent or not sys.stdin.isatty():
        note(f"{told} What comes nearest:")
        for hit in hits:
            _print_hit(", ".join(map(str, hit.message_ids)), hit, tz, note)
        raise InputError(
            "Nothing was forgotten: it is not for me to choose.",
            "Name what is meant, by its number above: knowme forget --message ID",
        )
    say(f"{told} What comes nearest:")
    for number, hit in enumerate(hits, 1):
        _print_hit(str(number), hit, tz, say)
    chosen = click.prompt("Which of these? Numbers, or nothing", default="", err=True)
    wanted = {int(each) for each in chosen.replace(",", " ").split() if each.isdigit()}
    ids = [i for n, hit in enumerate(hits, 1) if n in wanted for i in hit.message_ids]
    if not ids:
        raise click.Abort
    return forgetting.plan(
        home, forgetting.What("message", messages=tuple(str(each) for each in ids))
    )


def _print_hit(name: str, hit: Hit, tz: tzinfo | None, tell: Callable[[str], None]) -> None:
    tell(f"{bold(name.rjust(5))}  {console.whence(hit, tz)}")
    tell(dim(f"       {console.short(hit.text, console.width() - 7)}"))


# --- what is shown ------------------------------------------------------------------------------


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(console.many(n, name.removesuffix("s")) for name, n in counts.items() if n)


def _print_plan(home: Home, plan: Plan) -> None:
    from knowme.times import zone

    if not plan.messages:
        say("There is nothing to forget: nothing that is remembered is meant by it.")
        return
    tz = zone(home.settings.memory.timezone)
    say(f"{bold('Would go:')} {_counts(plan.counts)}")
    for sample in plan.samples:
        say(f"  {_head(sample.at_ms, sample.speaker or sample.role, sample.source, tz)}")
        say(dim(f"    {console.short(sample.text, console.width() - 4)}"))
    if (more := len(plan.messages) - len(plan.follow) - len(plan.samples)) > 0:
        say(dim(f"  … and {console.many(more, 'more')[:-1] if more > 1 else '1 more'}"))
    if plan.follow:
        say(f"  with {console.many(len(plan.follow), 'answer')} of mine that used or repeat it")
    if plan.also:
        ids = ", ".join(map(str, plan.also))
        say(console.wrap(warn(f"The same words stand in messages that stay: {ids}"), "  "))
    _print_unreachable(plan.unreachable)


def _head(at_ms: int | None, who: str, source: str, tz: tzinfo | None) -> str:
    from knowme.times import day

    return console.clean(f"{day(at_ms, tz)}  {who} · {source}")


def _print_unreachable(unreachable: Sequence[str]) -> None:
    if not unreachable:
        return
    say(f"  {warn('Out of reach')}; delete or change it yourself:")
    for each in unreachable:
        say(f"    {console.clean(each)}")


def _ask(plan: Plan) -> None:
    from knowme.errors import InputError

    if not sys.stdin.isatty():
        raise InputError(
            "Nothing was forgotten: there is nobody to ask.", "Run it with: knowme forget ... --yes"
        )
    many = console.many(len(plan.messages), "message")
    click.confirm(f"Erase {many} for good? It cannot be undone.", abort=True, err=True)


def _print_receipts(
    home: Home, receipts: Sequence[Receipt], as_json: bool, *, resumed: bool
) -> None:
    from knowme.times import minute, zone

    if as_json:
        console.say_json({"receipts": [_receipt_json(each) for each in receipts]})
        return
    if not receipts and not resumed:
        note("Nothing was forgotten yet.")
    tz = zone(home.settings.memory.timezone)
    for each in receipts:
        told = each.state if each.state == "done" else warn(f"{each.state}: knowme forget --resume")
        say(f"{bold(str(each.id).rjust(4))}  {minute(each.at_ms, tz)}  {each.what}  {told}")
        say(dim(console.wrap(_counts(each.counts), "      ")))


def _print_receipt(receipt: Receipt, as_json: bool) -> None:
    if as_json:
        console.say_json(_receipt_json(receipt))
        return
    probed = receipt.probed
    say(f"{good('Forgotten.')} Receipt {receipt.id}: {_counts(receipt.counts)}")
    looked = f"Looked for {probed['pieces']:,} pieces of it in every table and every file"
    if not probed["pieces"]:
        looked = "It is too short, or too common, to be told from what stays"
    asked = ", and by search" if probed["search"]["asked"] else ""
    say(dim(console.wrap(f"{looked}{asked}: nothing is left.", "  ")))
    _print_unreachable(receipt.unreachable)
    say(dim("  Copies outside this home, such as exports, are out of reach, too."))


def _plan_json(plan: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "what": plan.what.kind,
        "messages": list(plan.messages),
        "follow": list(plan.follow),
        "counts": dict(plan.counts),
        "also": list(plan.also),
        "samples": [asdict(each) for each in plan.samples],
        "unreachable": list(plan.unreachable),
    }


def _receipt_json(receipt: Receipt) -> dict[str, Any]:
    from dataclasses import asdict

    from knowme.times import iso

    return {**asdict(receipt), "at": iso(receipt.at_ms), "done": iso(receipt.done_ms)}
