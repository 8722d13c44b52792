"""context: what stands in a model's window, with its tokens; and what has left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, command
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.turn import Turn

SECTIONS = {
    "system": "instructions", "files": "workspace files", "memory": "what is known of you",
    "summary": "summary of earlier turns", "history": "turns", "recalled": "recalled",
    "question": "question", "after": "what followed it", "answer": "left for the answer",
}  # fmt: skip


@chapter("context", first="show")
def context() -> None:
    """What a model is told with a question: show, compress."""


@command(context, "show", json=True)
@click.argument("question", nargs=-1)
@click.option(
    "--conversation", default="", metavar="ID", help="Of this one; else the one used last."
)
@click.option(
    "--model", default="", help="For this role, or model; else the one that would answer."
)
def show(
    state: State, question: Sequence[str], conversation: str, model: str, as_json: bool
) -> None:
    """Print the window that a question would be put in.

    Each part comes with its tokens, then every message word for word, then what found no room or
    may not stand in it, and why. No model is asked.
    """
    with state.open() as home:
        conversation = _held(home, conversation) if conversation else _last(home)
        turn, window = _composed(home, " ".join(question), conversation, model)
    told = _as_json(turn, window, conversation)
    if as_json:
        console.say_json(told)
        return
    where = f", conversation {console.clean(conversation)}" if conversation else ""
    say(bold(f"{told['role']} ({told['model']}), a window of {window:,} tokens{where}"))
    if turn.small:
        say(dim("  A very small model: it reads what is recalled, and no earlier turns."))
    _print_tokens(told["tokens"])
    for message in told["messages"]:
        say()
        say(bold(f"[{message['role']}]"))
        say(console.clean(message["content"]))
    _print_dropped(told["dropped"])


def _held(home: Home, conversation: str) -> str:
    from knowme import sessions
    from knowme.errors import NotFoundError

    with home.db.read() as conn:
        if not sessions.load(conn, conversation).id:
            told = f"There is no conversation {conversation!r}."
            raise NotFoundError(told, "Those that there are: knowme chat, then /list")
    return conversation


def _last(home: Home) -> str:
    from knowme import sessions

    with home.db.read() as conn:
        listed = sessions.listed(conn, 1)
    return str(listed[0]["id"]) if listed else ""


def _composed(home: Home, question: str, conversation: str, model: str) -> tuple[Turn, int]:
    """Compose as `ask` does; returns the turn and the tokens of the model's window."""
    from knowme import prompting, steering
    from knowme.turn import Asked

    role = home.models.find(model) if model else ""
    turn = steering.steer(home, Asked(question, conversation, model=role), conversation or "new")
    role = role or turn.route.model
    engine = home.models.engine(role)
    turn.role, turn.model, turn.engine, turn.local = role, engine.model, engine.name, engine.local
    turn.small = prompting.is_small(home, turn, engine)
    prompting.compose_for(home, turn, engine, loaded=False)
    return turn, engine.context_tokens


def _as_json(turn: Turn, window: int, conversation: str) -> dict[str, Any]:
    from dataclasses import asdict

    assert turn.context is not None
    made = turn.context
    return {
        "role": turn.role, "model": turn.model or turn.engine, "local": turn.local,
        "window": window, "conversation": conversation,
        "tokens": {name: made.tokens[name] for name in SECTIONS if name in made.tokens},
        "classes": list(made.classes),
        "messages": [{"role": each.role, "content": each.content} for each in made.messages],
        "recalled": [console.hit_json(hit) for hit in made.used],
        "dropped": [asdict(each) for each in made.dropped],
    }  # fmt: skip


def _print_tokens(tokens: dict[str, int]) -> None:
    for name, words in SECTIONS.items():
        if tokens.get(name):
            say(f"  {words:<26} {tokens[name]:>7,}")


def _print_dropped(dropped: Sequence[dict[str, Any]]) -> None:
    if not dropped:
        return
    say()
    say(bold("Not in it"))
    for why in dict.fromkeys(each["reason"] for each in dropped):
        held = [each["tokens"] for each in dropped if each["reason"] == why]
        said = f"{console.many(len(held), 'piece')}, {sum(held):,} tokens: {console.clean(why)}"
        say(dim(console.wrap(said, "  ", "    ")))


@command(context, "compress", json=True)
@click.argument("conversation", default="")
def compress(state: State, conversation: str, as_json: bool) -> None:
    """Summarise all but the last turns of a conversation now.

    Without an ID it is the one used last. Nothing is deleted: the turns leave the window, and come
    back when a question needs them.
    """
    from dataclasses import asdict

    from knowme.errors import NotFoundError
    from knowme.summaries import compress_now

    with state.open() as home:
        if not (conversation or _last(home)):
            raise NotFoundError("No conversation was held here yet.", "Hold one: knowme chat")
        done = compress_now(home, conversation)
    if as_json:
        console.say_json(asdict(done))
        return
    say(bold(f"Conversation {console.clean(done.conversation)}"))
    say(f"  before: {console.many(done.turns_before, 'turn')}, {done.tokens_before:,} tokens")
    say(f"  after:  {console.many(done.turns_after, 'turn')}, {done.tokens_after:,} tokens")
    if done.turns_before == done.turns_after:
        say(dim("  Nothing to compress: the last turns stay as they are."))
    if done.summary:
        say()
        say(console.clean(done.summary))
