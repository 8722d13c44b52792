"""ask, chat, search, why: the commands that answer."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from knowme import console
from knowme.commands import State, cli, command
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from datetime import tzinfo

    from knowme.ask import Asked, Done, Started
    from knowme.home import Home
    from knowme.types import Hit, Neighbour, Query

F = TypeVar("F", bound=Callable[..., Any])
KINDS = ("message", "section", "summary", "pattern")
_AGO = re.compile(r"(\d{1,4})\s*([dwmy])")
_DAYS = {"d": 1, "w": 7, "m": 30, "y": 365}


def _filters(function: F) -> F:
    """Add the options that narrow what is recalled."""
    for option in (
        click.option("--until", metavar="WHEN", help="Nothing said later: a date, or 7d, 3w, 6m."),
        click.option("--since", metavar="WHEN", help="Nothing said earlier: a date, 7d, 3w, 6m."),
        click.option("--conversation", "conversations", multiple=True, help="Only this one."),
        click.option("--speaker", "speakers", multiple=True, help="Only what they said."),
        click.option("--source", "sources", multiple=True, help="Only from this source."),
        click.option(
            "-k",
            "--top-k",
            "--limit",
            "top_k",
            type=click.IntRange(1, 1000),
            help="How many at most.",
        ),
    ):
        function = option(function)
    return function


def when(text: str | None, zone: tzinfo | None, *, end: bool = False) -> int | None:
    """Return milliseconds from a date, a time, or "7d" (days, weeks, months, years ago).

    A date without a time means its first moment in ``zone``, with ``end`` its last.
    Raises InputError.
    """
    from datetime import datetime, timedelta

    from knowme.errors import InputError

    if not text:
        return None
    now = datetime.now(zone)
    if match := _AGO.fullmatch(text.strip().lower()):
        return int((now - timedelta(days=int(match[1]) * _DAYS[match[2]])).timestamp() * 1000)
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(
            f"{text!r} is not a date.", "Use 2026-03-01, 2026-03-01T18:00, or 7d, 3w, 6m, 1y."
        ) from error
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
    if end and len(text.strip()) <= 10:
        at += timedelta(days=1) - timedelta(milliseconds=1)
    return int(at.timestamp() * 1000)


def _narrowed(home: Home, given: Mapping[str, Any]) -> dict[str, Any]:
    from knowme.db import rows
    from knowme.errors import InputError
    from knowme.times import zone

    tz = zone(home.settings.memory.timezone)
    if given["sources"]:
        with home.db.read() as conn:
            known = [name for (name,) in rows(conn, "SELECT DISTINCT source FROM conversations")]
        known += [source.name for source in home.settings.sources]
        for name in given["sources"]:
            if name not in known:
                raise InputError(
                    f"There is no source called {name!r}.",
                    f"Use one of: {', '.join(sorted(set(known)))}."
                    if known
                    else "Run: knowme sync",
                )
    return {
        "sources": tuple(given["sources"]),
        "speakers": tuple(given["speakers"]),
        "conversations": tuple(given["conversations"]),
        "since_ms": when(given["since"], tz),
        "until_ms": when(given["until"], tz, end=True),
    }


def read_words(words: Sequence[str]) -> str:
    """Return the words of a command line as one text; a single "-" reads stdin."""
    return sys.stdin.read() if tuple(words) == ("-",) else " ".join(words)


# --- search ---------------------------------------------------------------------------------------


@command(cli, "search", json=True)
@click.argument("query", nargs=-1, required=True)
@_filters
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only this kind.")
@click.option("--neighbours", type=click.IntRange(0, 20), help="Messages shown on each side.")
def search(state: State, query: Sequence[str], as_json: bool, **given: Any) -> None:
    """Find what was said, with its date and why it was found."""
    from knowme.times import zone
    from knowme.types import Query

    with state.open() as home:
        settings = home.settings.search
        neighbours = settings.neighbours if given["neighbours"] is None else given["neighbours"]
        wanted = Query(
            read_words(query),
            top_k=given["top_k"] or settings.top_k,
            kinds=tuple(given["kinds"]),
            neighbours=neighbours,
            **_narrowed(home, given),
        )
        hits = home.search(wanted)
        if as_json:
            found = [console.hit_json(hit) for hit in hits]
            console.say_json({"query": wanted.text, "results": found, "count": len(found)})
            return
        print_hits(hits, zone(home.settings.memory.timezone))
        if not hits:
            console.note(_nothing(home, wanted))


def _nothing(home: Home, wanted: Query) -> str:
    from knowme.sync import totals

    if not totals(home)["items"]:
        return "Nothing is remembered yet. Read your sources first: knowme sync"
    narrowed = wanted.sources or wanted.speakers or wanted.conversations or wanted.kinds
    if narrowed or wanted.since_ms is not None or wanted.until_ms is not None:
        return "Nothing was found within these filters."
    return "Nothing was found."


def print_hits(hits: Sequence[Hit], zone: tzinfo | None) -> None:
    """Print hits: date and speaker, the words, their neighbours, and why each was found."""
    for number, hit in enumerate(hits, 1):
        if number > 1:
            say()
        say(f"{number:>2}  {bold(console.whence(hit, zone))}")
        for beside in hit.neighbours:
            if beside.offset < 0:
                say(dim(f"    {_beside(beside)}"))
        say(console.wrap(hit.text, "    "))
        for beside in hit.neighbours:
            if beside.offset > 0:
                say(dim(f"    {_beside(beside)}"))
        say(dim(f"    why: {console.reason(hit.why)}"))


def _beside(near: Neighbour) -> str:
    who = console.named(near.role, near.speaker)
    return console.short(f"{who}: {near.text}" if who else near.text, console.width() - 4)


# --- ask ------------------------------------------------------------------------------------------


@command(cli, "ask", json=True)
@click.argument("question", nargs=-1, required=True)
@_filters
@click.option(
    "--continue", "conversation_id", default="", metavar="ID", help="Go on with this conversation."
)
@click.option("--temperature", type=click.FloatRange(0.0, 5.0), help="0: the likeliest words.")
@click.option("--max-tokens", type=click.IntRange(1), help="The longest answer.")
@click.option("--system-prompt", default="", help="Instructions in place of our own.")
@click.option("--model", help="A role, or a model's name, for this question.")
@click.option("--engine", help="Another engine, for this question.")
def ask(state: State, question: Sequence[str], as_json: bool, **given: Any) -> None:
    """Ask, and see the words that the answer rests on.

    A single "-" reads the question from stdin.
    """
    import asyncio

    from knowme.ask import Asked

    with open_with(state, given["engine"], given["model"]) as (home, model):
        asked = Asked(
            read_words(question),
            conversation=given["conversation_id"],
            model=model,
            top_k=given["top_k"],
            temperature=given["temperature"],
            max_tokens=given["max_tokens"],
            system_prompt=given["system_prompt"],
            **_narrowed(home, given),
        )
        began = time.perf_counter()
        started, done = asyncio.run(answer(home, asked, quiet=as_json))
        if as_json:
            console.say_json(_answer_json(asked, started, done))
        else:
            print_sources(started, home)
            print_cost(started, done, home, time.perf_counter() - began)
            _nothing_to_know(home, done)


@contextmanager
def open_with(state: State, engine: str | None, model: str | None) -> Iterator[tuple[Home, str]]:
    """Open the home for another engine or model; yields it and the role to ask ("": routed).

    Where models are configured, ``model`` is one of them, or its role; ``engine`` takes them all
    away for once. Raises NotFoundError.
    """
    alone: dict[str, Any] = {"models": {}} if engine else {}
    with state.open(engine__kind=engine, engine__model=model if engine else None, **alone) as home:
        if not model or engine:
            yield home, ""
            return
        if home.settings.models:
            yield home, home.models.find(model)
            return
    with state.open(engine__model=model) as home:
        yield home, ""


async def answer(
    home: Home,
    asked: Asked,
    *,
    quiet: bool = False,
    on_start: Callable[[Started], None] = lambda started: None,
) -> tuple[Started, Done]:
    """Stream an answer to the terminal; ``on_start`` hears who answers, before the first word.

    Being cancelled stores what was said so far.
    """
    from contextlib import aclosing
    from dataclasses import replace

    from knowme import ask as path

    started: Started | None = None
    done: Done | None = None
    flow = console.Flow()
    try:
        async with aclosing(path.ask(home, asked)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, path.Started):
                    started = event
                    on_start(started)
                elif isinstance(event, path.Done):
                    done = event
                elif isinstance(event, path.Switched):
                    flow.end()
                    assert started is not None
                    started = replace(
                        started, role=event.role, model=event.model, engine=event.engine,
                        note=event.reason,
                    )  # fmt: skip
                    who = answerer(event.model, event.engine)
                    console.note(dim(console.wrap(f"{event.reason} Now {who} answers.")))
                    flow = console.Flow()
                elif not quiet:
                    flow.tell(event.text)
    finally:
        if started is not None and not quiet:
            flow.end()
    if started is None or done is None:
        raise RuntimeError("ask() ended without an answer")
    return replace(started, sources=done.sources), done


def _answer_json(asked: Asked, started: Started, done: Done) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "question": asked.question,
        "answer": done.answer,
        "known": done.known,
        "sources": [console.hit_json(hit) for hit in started.sources],
        "model": done.model,
        "role": done.role,
        "engine": started.engine,
        "reason": started.note or started.route.reason,
        "cost": done.cost,
        "conversation": started.conversation,
        "usage": asdict(done.usage),
        "receipt_id": done.receipt_id,
    }


def print_sources(started: Started, home: Home, limit: int = 5) -> None:
    """Print what an answer rests on: quoted, dated, the best first."""
    from knowme.times import zone

    if not started.sources:
        return
    tz = zone(home.settings.memory.timezone)
    say()
    say(dim("From:"))
    for number, hit in enumerate(started.sources[:limit], 1):
        say(dim(f"  [{number}] {console.whence(hit, tz)}"))
        quote = f"“{console.short(hit.text, 3 * console.width() - 30)}”"
        say(dim(console.wrap(quote, "      ")))
    if (more := len(started.sources) - limit) > 0:
        say(dim(f"  and {more} more: knowme why last"))


def answerer(model: str, engine: str) -> str:
    """Return who answers, in words: "smollm2-135m (llamacpp)"."""
    return model if model == engine else f"{model} ({engine})" if model else engine


def told_why(started: Started, home: Home) -> str:
    """Return why this model answered, "" where there is only one and nothing failed."""
    return started.note or (started.route.reason if len(home.models.roles) > 1 else "")


def print_cost(started: Started, done: Done, home: Home, seconds: float) -> None:
    """Print who answered and how long it took; where no model did, what would bring one."""
    who = answerer(done.model or started.model, started.engine)
    if len(home.models.roles) > 1:
        who = f"{done.role}: {who}"
    paid = f", {console.money(done.cost)} spent" if done.cost else ""
    say()
    if told := told_why(started, home):
        say(dim(console.wrap(told)))
    say(dim(console.wrap(f"{who}, {seconds:.1f} s{paid}. Why this answer: knowme why last")))
    wanted = home.settings.engine
    if started.engine != "echo" or wanted.kind == "echo":
        return
    told = "No model answered: these are your words alone."
    if wanted.model:
        told = f"There is no model {wanted.model!r} here. {told} See why: knowme doctor"
    else:
        told = f"{told} Get one: knowme models pull"
    console.note(dim(console.wrap(told)))


def _nothing_to_know(home: Home, done: Done) -> None:
    from knowme.sync import totals

    if not done.known and not totals(home)["items"]:
        console.note("Nothing is remembered yet. Read your sources first: knowme sync")


@command(cli, "chat")
@click.option(
    "--continue", "conversation_id", default="", metavar="ID", help="Go on with this conversation."
)
@click.option("--model", help="A role, or a model's name, for all questions.")
@click.option("--engine", help="Another engine.")
def chat(state: State, conversation_id: str, model: str | None, engine: str | None) -> None:
    """Talk in the terminal. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves."""
    from knowme import chat as talk

    with open_with(state, engine, model) as (home, role):
        talk.run(home, conversation_id, role)


# --- why ------------------------------------------------------------------------------------------


@command(cli, "why", json=True)
@click.argument("which", default="last")
@click.option("--prompt", is_flag=True, help="Also print every word that the model was given.")
def why(state: State, which: str, prompt: bool, as_json: bool) -> None:
    """Show what went into an answer, what was dropped, and why.

    WHICH is the number of an answer, or "last".
    """
    from knowme.ask import why as receipt_of

    with state.open() as home:
        receipt = receipt_of(home, which)
    if as_json:
        console.say_json(receipt)
    else:
        print_receipt(receipt, prompt=prompt)


def print_receipt(receipt: Mapping[str, Any], *, prompt: bool = False) -> None:
    """Print a receipt for a person."""
    say(bold(f"Answer {receipt['receipt_id']}: {console.short(receipt['question'])}"))
    took = f"{receipt['took_ms'] / 1000:.1f} s"
    say(f"  {receipt['asked']}  {answerer(receipt['model'], receipt['engine'])}  {took}")
    known = "something" if receipt["known"] else "nothing"
    say(
        f"  {known} relevant was known: relevance {receipt['relevance']}, "
        f"needed {receipt['threshold']}"
    )
    if receipt["state"] != "done":
        say(console.warn(f"  the answer was {receipt['state']} {console.clean(receipt['error'])}"))
    say(f"  tokens: {_tokens(receipt)}")
    _print_route(receipt)
    say()
    say(bold(f"Went in ({len(receipt['used'])}):"))
    for number, each in enumerate(receipt["used"], 1):
        say(f"  [{number}] {(each['at'] or 'undated')[:10]}  {console.clean(each['who'])}")
        say(console.wrap(each["text"], "      "))
        say(dim(f"      why: {console.reason(each['why'])}"))
        say(dim(f"      {console.clean(each['origin'])}"))
    _print_more(receipt)
    if prompt:
        for message in receipt["prompt"]:
            say()
            say(bold(f"{message['role']}:"))
            say(console.wrap(message["content"], "  "))


def _tokens(receipt: Mapping[str, Any]) -> str:
    """Return the tokens of each section; of the answer those that came, of those it might have."""
    sections = dict(receipt["tokens"])
    most = sections.pop("answer", 0)
    told = [f"{name} {many}" for name, many in sections.items() if many]
    if most:
        told.append(f"answer {(receipt['usage'] or {}).get('answer_tokens', 0)} of at most {most}")
    return ", ".join(told)


def _print_route(receipt: Mapping[str, Any]) -> None:
    route = receipt.get("route")
    if not route:  # a receipt of before models had roles
        return
    say(console.wrap(f"route: {route['model']} ({route['stage']}): {route['reason']}", "  "))
    for role, told in route["refused"].items():
        say(console.wrap(f"not {role}: {told}", "  "))
    for call in receipt["calls"]:
        if call["state"] not in ("done", "cut"):
            told = f"{call['role']} {call['state']}"
            told = f"{told}: {call['error']}" if call["error"] else told
            say(console.warn(console.wrap(told, "  ")))
    if receipt["cost"]:
        say(f"  cost: {console.money(receipt['cost'])}")


def _print_more(receipt: Mapping[str, Any]) -> None:
    if receipt["dropped"]:
        say()
        say(bold(f"Dropped ({len(receipt['dropped'])}):"))
        for each in receipt["dropped"]:
            say(f"  {console.clean(each['uid'])}: {each['reason']} ({each['tokens']} tokens)")
    if shadow := receipt.get("shadow"):
        say()
        say(bold(f"What {shadow['role']} ({shadow['model']}) answered, for comparison:"))
        say(console.wrap(shadow["answer"], "  "))
        say(dim(f"  Which is better? knowme rate {receipt['receipt_id']} --better cloud"))
    if receipt.get("withheld"):
        say()
        say(bold("Said by the model and not shown, because the notes do not bear it out:"))
        for each in receipt["withheld"]:
            say(console.wrap(each, "  "))
