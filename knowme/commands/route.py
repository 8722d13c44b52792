"""route, rate: which model answers a message, and what the person thinks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, cli, command
from knowme.commands.recall import read_words
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from knowme.ask import Preview

RATINGS = ("1", "2", "3", "4", "5", "up", "down")
BETTER = ("local", "cloud", "same")


# --- route ----------------------------------------------------------------------------------------


@command(cli, "route", json=True)
@click.argument("message", nargs=-1, required=True)
@click.option(
    "--continue", "conversation_id", default="", metavar="ID", help="As part of this conversation."
)
@click.option("--model", default="", help="As if this role, or model, were asked for.")
def route(
    state: State, message: Sequence[str], conversation_id: str, model: str, as_json: bool
) -> None:
    """Tell which model would answer, why, and what would leave.

    No model answers. A single "-" reads the message from stdin.
    """
    from knowme.ask import Asked, preview
    from knowme.privacy import leave
    from knowme.route import explain

    with state.open() as home:
        asked = Asked(read_words(message), conversation=conversation_id, model=model)
        seen = preview(home, asked)
        lines = explain(seen.route)
        policy = leave(home.settings.privacy)
        slow = list(home.rules.slow.values())
        away = any(not each.local for each in home.models.states())
    if as_json:
        console.say_json(_as_json(seen, lines, slow))
        return
    say(bold(lines[0]))
    for line in lines[1:]:
        say(console.wrap(line, "  ", "    "))
    for line in slow:
        say(console.warn(console.wrap(line, "  ", "    ")))
    say()
    _print_leaving(seen)
    if away:
        from knowme.privacy import describe

        say(dim(console.wrap(describe(policy))))


def _print_leaving(seen: Preview) -> None:
    if not seen.url:
        say("Nothing would leave this machine.")
        return
    cost = f", at most {console.money(seen.cost)} in money" if seen.cost else ""
    size = f"{console.size(seen.bytes)}, {seen.tokens:,} tokens{cost}"
    say(console.wrap(f"Would leave for {seen.url} ({size}):"))
    for name, policy in seen.classes.items():
        say(f"  {console.clean(name)}{' (names replaced)' if policy == 'placeholders' else ''}")
    for why in dict.fromkeys(each.reason for each in seen.withheld):
        held = [each.tokens for each in seen.withheld if each.reason == why]
        said = f"{console.many(len(held), 'piece')}, {sum(held):,} tokens ({why})"
        say(dim(console.wrap(f"stays here: {said}", "  ", "    ")))
    say(dim("  Word for word: knowme egress --dry-run TEXT"))


def _as_json(seen: Preview, lines: list[str], slow: list[str]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(seen.route),
        "explained": lines,
        "slow_rules": slow,
        "leaves": {
            "to": seen.url, "classes": seen.classes, "bytes": seen.bytes if seen.url else 0,
            "tokens": seen.tokens, "cost": seen.cost,
            "withheld": [asdict(each) for each in seen.withheld],
        },
    }  # fmt: skip


# --- rate -----------------------------------------------------------------------------------------


@command(cli, "rate", json=True)
@click.argument("words", nargs=-1, metavar="[ANSWER] RATING")
@click.option(
    "--better", type=click.Choice(BETTER),
    help="Which of two answers was better, in place of a rating.",
)  # fmt: skip
def rate(state: State, words: Sequence[str], better: str | None, as_json: bool) -> None:
    """Say how good an answer was: 1 to 5, up or down. The router learns from it.

    ANSWER is its number, or "last", which is meant where it is left out.
    """
    from knowme.ask import rate as keep

    which, kind, value = meant(words, better)
    with state.open() as home:
        number = keep(home, which, kind, value)
    if as_json:
        console.say_json({"answer": number, "kind": kind, "value": value})
        return
    told = f"better: {value}" if kind == "better" else value or kind
    say(f"Answer {number}: {told}. Noted.")


def meant(words: Sequence[str], better: str | None) -> tuple[str, str, str]:
    """Return (which answer, the kind of outcome, its value). Raises InputError."""
    from knowme.errors import InputError

    most = 1 if better else 2
    if len(words) > most or (not words and not better):
        told = "One answer can be named beside --better" if better else "A rating is missing"
        if len(words) > most and not better:
            told = f"{' '.join(words)!r} is more than an answer and its rating"
        raise InputError(f"{told}.", "Such as: knowme rate 4, or: knowme rate 12 up")
    if better:
        return (words[0] if words else "last"), "better", better
    *which, rating = words
    rating = rating.lower()
    if rating not in RATINGS:
        raise InputError(
            f"{rating!r} is no rating." if rating else "A rating is missing.",
            f"Use one of: {', '.join(RATINGS)}.",
        )
    kind, value = (rating, "") if rating in ("up", "down") else ("rating", rating)
    return (which[0] if which else "last"), kind, value
