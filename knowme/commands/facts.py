"""facts, inbox, rebuild: what is believed and since when, the doubts, and deriving it all again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, cli, command
from knowme.commands.recall import when
from knowme.console import bold, dim, say

if TYPE_CHECKING:
    from datetime import tzinfo

    import apsw

    from knowme.beliefs import Event
    from knowme.home import Home
    from knowme.inbox import Doubt
    from knowme.rebuild import Belief, Difference
    from knowme.types import Evidence, Fact

STATES = ("believed", "repeated", "superseded", "doubtful", "quarantined", "retired")
CHOICES = ("new", "old", "both", "neither")
LAYERS = ("items", "index", "facts", "summaries", "profile", "all")
SHOWN = 100
FEW = 64
"""So many new vectors are made at once, where the person waits; more are a job."""


@chapter("facts", first="list")
def facts() -> None:
    """What is believed: list, why, edit, pin, retire, undo.

    Alone it lists: knowme facts --about WORDS, --on DATE (what was true on that day), --as-of DATE
    (what was believed on that day). UID is the name beside a fact, or its beginning.
    """


@command(facts, "list", json=True)
@click.option("--about", default="", metavar="WORDS", help="Only what these words are in.")
@click.option("--on", metavar="DATE", help="What was true on that day.")
@click.option("--as-of", metavar="DATE", help="What was believed on that day.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only these.")
@click.option("--all", "every", is_flag=True, help="Also what is not, or no longer, believed.")
@click.option(
    "--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="How many at most."
)
def facts_list(
    state: State,
    about: str,
    on: str | None,
    as_of: str | None,
    states: Sequence[str],
    every: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List facts, since when, the words behind them.

    The name beside each is what the other commands take.
    """
    from knowme import facts
    from knowme.db import value
    from knowme.facts.listing import corrected, known_on, place
    from knowme.times import zone

    wanted = STATES if every else tuple(states) or ("believed",)
    with state.open() as home:
        tz = zone(home.settings.memory.timezone)
        day, at_ms = _day(on, tz), when(as_of, tz, end=True)
        with home.db.read() as conn:
            first_ms = value(conn, "SELECT min(at_ms) FROM events WHERE target = 'fact'")
            found = facts.believed(
                conn, about=about, on=day, states=wanted, as_of=at_ms, limit=2**31
            )
            edited = corrected(conn)
            chars = _name_chars(conn)
            waiting = _waiting(conn)
    found.sort(key=lambda fact: (not known_on(fact, day), *place(fact)))
    shown = found[:limit]
    if as_json:
        told = [fact_json(fact) for fact in shown]
        if day:
            told = [
                {**each, "perhaps": not known_on(fact, day)}
                for each, fact in zip(told, shown, strict=True)
            ]
        console.say_json({"facts": told, "count": len(told), "of": len(found)})
        return
    if at_ms is not None and (first_ms is None or at_ms < first_ms):
        console.note(_too_early(str(as_of), first_ms, tz))
        return
    sure = [fact for fact in shown if known_on(fact, day)]
    print_facts(sure, tz, chars, plain=bool(day), edited=edited)
    if perhaps := shown[len(sure) :]:
        say(("\n" if sure else "") + dim(f"Told later, or not to the day: perhaps so on {day}"))
        print_facts(perhaps, tz, chars, plain=True, edited=edited)
    if len(found) > len(shown):
        say(dim(f"… and {len(found) - len(shown):,} more: --limit, or --about WORDS"))
    if not found:
        console.note(_none(about, day, at_ms))
    elif waiting and not every and not as_of:
        say()
        say(dim(f"{console.many(waiting, 'doubt')} for you to settle: knowme inbox"))


def _day(text: str | None, tz: tzinfo | None) -> str:
    """Return a day of the command line as ISO. Raises InputError."""
    from knowme.times import day

    at_ms = when(text, tz)
    return "" if at_ms is None else day(at_ms, tz)


def _name_chars(conn: apsw.Connection) -> int:
    """Return how many characters of their names tell all facts apart; at least 6."""
    from knowme.db import value

    for chars in (6, 8, 10, 12):
        sql = "SELECT count(*) = count(DISTINCT substr(uid, 1, ?)) FROM facts"
        if value(conn, sql, (chars,)):
            return chars
    return 16


def _waiting(conn: apsw.Connection) -> int:
    from knowme.db import value

    return int(value(conn, "SELECT count(*) FROM facts WHERE state = 'doubtful'"))


def _too_early(asked: str, first_ms: int | None, tz: tzinfo | None) -> str:
    """Say that nothing was known yet, and what the person may have meant."""
    from knowme.times import day

    if first_ms is None:
        return "No facts are known yet. They come with what you say: knowme sync"
    told = f"Nothing had been learned by {asked}: knowme has known facts since {day(first_ms, tz)}."
    return f"{told}\nWhat was true on that day: knowme facts --on {asked}"


def _none(about: str, on: str, at_ms: int | None) -> str:
    if about:
        return f"Nothing is believed about {console.clean(about)!r}."
    if on:
        return f"Nothing is known to have been true on {on}."
    if at_ms is not None:
        return "Nothing was believed on that day."
    return "There are no such facts. They come with what you say: knowme sync"


# --- how a fact reads -----------------------------------------------------------------------------


def print_facts(
    found: Sequence[Fact],
    tz: tzinfo | None,
    chars: int,
    *,
    plain: bool = False,
    edited: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Print facts by subject: a name to act on, the statement, since when, the words behind it.

    ``plain`` leaves out what became of them since. ``edited``: see ``corrected``.
    """
    from knowme.types import ME

    subject = None
    for fact in found:
        if fact.subject != subject:
            if subject is not None:
                say()
            subject = fact.subject
            say(bold("you" if subject == ME else console.clean(subject)))
        _print_fact(fact, tz, chars, plain=plain, edited=edited)


def _print_fact(
    fact: Fact,
    tz: tzinfo | None,
    chars: int,
    *,
    plain: bool = False,
    quote: bool = True,
    edited: Mapping[str, int] = MappingProxyType({}),
) -> None:
    edge = " " * (chars + 4)
    unsure = "" if fact.certain or fact.uid in edited else "unsure"
    marks = [_since(fact, tz), unsure, "pinned" if fact.pinned else "", ", ".join(fact.sensitive)]
    told = " · ".join(mark for mark in marks if mark)
    line = f"{console.clean(fact.sentence)}{f'  ({told})' if told else ''}"
    becoming = fact.state != "believed" and not plain
    if becoming:
        line = f"{fact.state}: {line}"
    wrapped = console.wrap(line, edge).lstrip()
    say(f"  {bold(fact.uid[:chars])}  {wrapped}")
    if fact.reason and becoming:
        say(console.warn(console.wrap(fact.reason, edge)))
    if quote:
        say(dim(console.wrap(_behind(fact, tz, edited), edge)))


def _behind(fact: Fact, tz: tzinfo | None, edited: Mapping[str, int]) -> str:
    """Return the words that a fact rests on, and that it was corrected where it was."""
    from knowme.times import day

    quoted = _quoted(fact.quote, fact.said_ms, tz)
    at_ms = edited.get(fact.uid)
    return quoted if at_ms is None else f"corrected by you {day(at_ms, tz)}; was read in: {quoted}"


def _quoted(quote: str, said_ms: int | None, tz: tzinfo | None) -> str:
    from knowme.times import day

    return f"“{console.short(quote, 200)}”  {day(said_ms, tz)}"


def _since(fact: Fact, tz: tzinfo | None) -> str:
    """Return when it was so; "" where all that is known is that it was said, which stands below."""
    from knowme.times import day, period

    time = fact.when
    said = day(fact.said_ms, tz)
    open_end = not (time.from_first or time.to_first or time.to_last)
    return "" if open_end and time.from_last == said else period(time)


def fact_json(fact: Fact) -> dict[str, Any]:
    """Return a fact as JSON; times also as ISO."""
    from dataclasses import asdict

    from knowme.facts.listing import tags
    from knowme.times import iso

    told = {**asdict(fact), "tags": list(tags(fact))}
    told["said"], told["recorded"] = iso(fact.said_ms), iso(fact.recorded_ms)
    told["retired"] = iso(fact.retired_ms)
    return told


# --- one fact -------------------------------------------------------------------------------------


@command(facts, "why", json=True)
@click.argument("uid")
def facts_why(state: State, uid: str, as_json: bool) -> None:
    """Show the words that a fact rests on.

    Also why it is believed or is not, and what it contradicts, repeats or gave way to.
    """
    from knowme import facts
    from knowme.facts.listing import corrected
    from knowme.times import zone

    with state.open() as home, home.db.read() as conn:
        tz = zone(home.settings.memory.timezone)
        fact = facts.find(conn, uid)
        told = [
            {**_evidence_json(each), **_where(conn, each)}
            for each in facts.evidence(conn, fact.uid)
        ]
        other = facts.get(conn, [fact.other]).get(fact.other)
        decided = [d for d in facts.decisions(conn, fact.uid) if d.undone_ms is None]
        edited = corrected(conn)
        chars = _name_chars(conn)
    if as_json:
        more = None if other is None else fact_json(other)
        listed = [one._asdict() for one in decided]
        console.say_json(
            {**fact_json(fact), "evidence": told, "other_fact": more, "decisions": listed}
        )
        return
    _print_fact(fact, tz, chars, quote=False)
    edge = " " * (chars + 4)
    say(f"{edge}{_manner(fact, fact.uid in edited)}")
    for one in decided:
        say(f"{edge}{_minute(one.at_ms, tz)}  you: {one.action} {console.clean(one.text)}".rstrip())
    for each in told:
        say()
        say(console.wrap(f"“{each['quote']}”", edge))
        say(dim(console.wrap(f"{_minute(each['at_ms'], tz)}  {each['where']}", edge)))
    if other is not None:
        say()
        say(f"{edge}{_RELATIONS.get(fact.state, 'beside')}:")
        _print_fact(other, tz, chars, edited=edited)


_RELATIONS = {
    "repeated": "It says what this one says", "superseded": "Superseded by",
    "doubtful": "It contradicts",
}  # fmt: skip


def _manner(fact: Fact, edited: bool) -> str:
    """Return how it came to be known, in one line."""
    if edited:
        return f"{fact.state}, read by {fact.read_by}, corrected by you"
    from knowme.facts.listing import tags

    by = "by your own word" if fact.read_by == "person" else f"read by {fact.read_by}"
    by += f" ({', '.join(found)})" if (found := tags(fact)) else ""
    sure = "" if fact.certain else ", not for certain"
    return f"{fact.state}, {by}{', said outright' if fact.outright else ''}{sure}"


def _evidence_json(each: Evidence) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(each)


def _where(conn: apsw.Connection, each: Evidence) -> dict[str, Any]:
    from knowme.db import rows
    from knowme.times import iso

    found = rows(
        conn,
        "SELECT m.at_ms, c.source, c.title, m.origin FROM messages m"
        " JOIN conversations c ON c.id = m.conversation_id WHERE m.id = ?",
        (each.message_id,),
    )
    if not found:
        return {"at": None, "at_ms": None, "where": "", "origin": ""}
    at_ms, source, title, origin = found[0]
    return {
        "at": iso(at_ms),
        "at_ms": at_ms,
        "where": " · ".join(part for part in (source, title, origin) if part),
        "origin": origin,
    }


def _decide(state: State, uid: str, action: str, text: str, as_json: bool) -> None:
    from knowme import facts
    from knowme.times import now_ms, zone

    with state.open() as home:

        def write(conn: apsw.Connection) -> tuple[Fact, bool]:
            fact = facts.find(conn, uid)
            if _is_so(conn, fact, action, text):
                return fact, False
            return facts.decide(conn, action, fact.uid, now_ms(), text), True

        fact, changed = home.db.write(write)
        if changed:
            _after(home)
        else:
            console.note("It is so already: nothing was changed.")
        _tell_fact(home, fact, zone(home.settings.memory.timezone), as_json, changed)


def _is_so(conn: apsw.Connection, fact: Fact, action: str, text: str) -> bool:
    """Tell whether a decision would say what holds: undo would have to take it back twice."""
    from knowme import facts

    if action in ("pin", "unpin"):
        return fact.pinned == (action == "pin")
    held = [one for one in facts.decisions(conn, fact.uid) if one.undone_ms is None]
    return bool(held) and (held[-1].action, held[-1].text) == (action, text)


def _tell_fact(
    home: Home, fact: Fact, tz: tzinfo | None, as_json: bool, changed: bool = True
) -> None:
    from knowme.facts.listing import corrected

    if as_json:
        console.say_json(fact_json(fact))
        return
    with home.db.read() as conn:
        chars, edited = _name_chars(conn), corrected(conn)
    _print_fact(fact, tz, chars, edited=edited)
    if changed:
        say(dim(f"  Taken back by: knowme facts undo {fact.uid[:chars]}"))


def _after(home: Home) -> None:
    """Let the profile and search follow. The decision is kept already, so a failure only waits."""
    from knowme import jobs, portrait, sync
    from knowme.errors import KnowmeError

    try:
        if home.settings.profile.build:
            portrait.build(home)
    except KnowmeError as error:
        home.db.write(jobs.learn_soon)
        console.note(f"The profile follows later: {error}")
    try:
        few = sync.pending(home) <= FEW
        if few:
            sync.reindex(home)
    except KnowmeError:
        few = False
    if not few:  # the embedder is down, or has much to do: found by its words until then
        home.db.write(lambda conn: jobs.enqueue(conn, "reindex", {}, unique_key="reindex"))


@command(facts, "edit", json=True)
@click.argument("uid")
@click.argument("value", nargs=-1, required=True)
def facts_edit(state: State, uid: str, value: Sequence[str], as_json: bool) -> None:
    """Correct a value that was wrong from the beginning.

    VALUE alone, not the sentence: knowme facts edit 3fa2c1 Lisbon. Your word counts, until you say
    otherwise. What was right and has changed since (a move, another job) is better said anew, in a
    note or a chat: then both are kept, each with its time.
    """
    _decide(state, uid, "edit", " ".join(value), as_json)


@command(facts, "pin", json=True)
@click.argument("uid")
def facts_pin(state: State, uid: str, as_json: bool) -> None:
    """Hold on to a fact: nothing supersedes it."""
    _decide(state, uid, "pin", "", as_json)


@command(facts, "unpin", json=True)
@click.argument("uid")
def facts_unpin(state: State, uid: str, as_json: bool) -> None:
    """Let what is said anew supersede it again."""
    _decide(state, uid, "unpin", "", as_json)


@command(facts, "retire", json=True)
@click.argument("uid")
def facts_retire(state: State, uid: str, as_json: bool) -> None:
    """Believe it no more. The words it was read from stay (see: knowme forget)."""
    _decide(state, uid, "retire", "", as_json)


@command(facts, "undo", json=True)
@click.argument("uid", default="")
def facts_undo(state: State, uid: str, as_json: bool) -> None:
    """Take back the last change, of UID or of all.

    Called once more, it holds again.
    """
    from knowme import facts
    from knowme.times import now_ms, zone

    with state.open() as home:

        def write(conn: apsw.Connection) -> tuple[Fact, str]:
            done = facts.undo(conn, now_ms(), facts.find(conn, uid).uid if uid else "")
            return done.fact, done.action

        fact, action = home.db.write(write)
        _after(home)
        if not as_json:
            say("It holds again." if action == "undo" else f"Taken back: {action}.")
        _tell_fact(home, fact, zone(home.settings.memory.timezone), as_json)


@command(facts, "history", json=True)
@click.argument("uid")
def facts_history(state: State, uid: str, as_json: bool) -> None:
    """Show every change: when, by whom, from what."""
    home_events = _events(state, uid)
    if as_json:
        console.say_json([event._asdict() for event in home_events[1]])
        return
    tz, events = home_events
    for event in events:
        say(f"{_minute(event.at_ms, tz)}  {bold(event.action)} by {console.clean(event.actor)}")
        for name, was, now in changes(event.before, event.after):
            told = f"{name}: {now}" if was in (None, "") else f"{name}: {was} → {now}"
            say(dim(console.wrap(told, "    ", "      ")))


@command(facts, "blame", json=True)
@click.argument("uid")
def facts_blame(state: State, uid: str, as_json: bool) -> None:
    """Show who made each part what it is, and when."""
    tz, events = _events(state, uid)
    parts: dict[str, dict[str, Any]] = {}
    for event in events:
        for name, _, now in changes(event.before, event.after):
            parts[name] = {
                "is": now,
                "by": event.actor,
                "action": event.action,
                "at_ms": event.at_ms,
            }
    if as_json:
        console.say_json(parts)
        return
    for name, part in parts.items():
        who = f"{_minute(part['at_ms'], tz)}  {part['action']} by {part['by']}"
        say(f"{bold(f'{name:<10}')} {console.short(str(part['is']), console.width() - 12)}")
        say(dim(f"{'':<10} {console.clean(who)}"))


def _events(state: State, uid: str) -> tuple[tzinfo | None, list[Event]]:
    from knowme import beliefs, facts
    from knowme.times import zone

    with state.open() as home, home.db.read() as conn:
        tz = zone(home.settings.memory.timezone)
        return tz, beliefs.history(conn, "fact", facts.find(conn, uid).uid)


def _minute(at_ms: int | None, tz: tzinfo | None) -> str:
    from knowme.times import minute

    return minute(at_ms, tz)


_PARTS = ("state", "reason", "sentence", "value", "held", "pinned", "sensitive", "quote", "read_by",
          "other")  # fmt: skip
_WHEN = ("from_first", "from_last", "to_first", "to_last")


def changes(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[tuple[str, Any, Any]]:
    """Return (part, what it was, what it is) of a row's change; a row that went is "gone"."""
    was, now = _told(before), _told(after)
    if after is None:
        return [("state", was.get("state"), "gone")]
    return [
        (name, was.get(name), now[name])
        for name in _PARTS
        if now[name] != was.get(name) and (was or now[name])
    ]


def _told(row: Mapping[str, Any] | None) -> dict[str, Any]:
    from knowme.times import period
    from knowme.types import When

    if row is None:
        return {}
    time = period(When(*(str(row[name]) for name in _WHEN)))
    told = {**row, "held": time, "pinned": "yes" if row["pinned"] else ""}
    return {name: told.get(name, "") for name in _PARTS}


@command(facts, "read")
@click.option("--model", "role", metavar="ROLE", help="Let this model read, after the rules.")
def facts_read(state: State, role: str | None) -> None:
    """Read now what was not read yet.

    The rules read; with --model that model reads after them.
    """
    from knowme import structure

    more = {"facts__role": role, "facts__read": "model"} if role else {}
    with state.open(**more) as home, console.Progress() as line:

        def tell(done: int, total: int, what: str = "") -> None:
            line.done(what or "read", done, total)

        counts = structure.catch_up(home, tell)
        if role:
            read = structure.read(home, tell)
            counts = {**counts, **{name: counts.get(name, 0) + read[name] for name in read}}
    told = ", ".join(f"{name}: {many:,}" for name, many in counts.items() if many)
    say(told or "There was nothing new to read.")


# --- inbox ----------------------------------------------------------------------------------------


@chapter("inbox", first="list")
def inbox() -> None:
    """What only you can settle: list, answer.

    Alone it lists.
    """


@command(inbox, "list", json=True)
def inbox_list(state: State, as_json: bool) -> None:
    """List the doubts, with both quotes.

    The most valuable question comes first.
    """
    from knowme import inbox as box
    from knowme.facts.listing import corrected
    from knowme.times import zone

    with state.open() as home, home.db.read() as conn:
        tz = zone(home.settings.memory.timezone)
        doubts = box.doubts(conn)
        chars, edited = _name_chars(conn), corrected(conn)
    if as_json:
        console.say_json({"doubts": [_doubt_json(doubt) for doubt in doubts], "count": len(doubts)})
        return
    for number, doubt in enumerate(doubts):
        if number:
            say()
        print_doubt(doubt, tz, chars, edited)
    if not doubts:
        console.note("Nothing waits for your word.")


def print_doubt(doubt: Doubt, tz: tzinfo | None, chars: int, edited: Mapping[str, int]) -> None:
    """Print one doubt: what is new, what it contradicts, both quotes, and how to answer."""
    name, edge = doubt.fact.uid[:chars], " " * (chars + 4)
    say(f"  {bold(name)}  {console.clean(doubt.why)}")
    said = [("new", doubt.fact)]
    if doubt.against is not None:
        said.append(("old", doubt.against))
    for which, fact in said:
        told = _since(fact, tz)
        line = f"{which}: {console.clean(fact.sentence)}{f'  ({told})' if told else ''}"
        say(console.wrap(line, edge, edge + "     "))
        say(dim(console.wrap(_behind(fact, tz, edited), edge + "     ")))
    choices = "|".join(CHOICES if doubt.against is not None else ("new", "neither"))
    say(dim(f"{edge}knowme inbox answer {name} {choices}"))


def _doubt_json(doubt: Doubt) -> dict[str, Any]:
    against = None if doubt.against is None else fact_json(doubt.against)
    return {"fact": fact_json(doubt.fact), "against": against, "why": doubt.why}


@command(inbox, "answer", json=True)
@click.argument("uid")
@click.argument("choice", type=click.Choice(CHOICES))
def inbox_answer(state: State, uid: str, choice: str, as_json: bool) -> None:
    """Say which is so: new, old, both, neither."""
    from knowme import facts
    from knowme import inbox as box
    from knowme.times import now_ms, zone

    with state.open() as home:

        def write(conn: apsw.Connection) -> Fact:
            return box.answer(conn, facts.find(conn, uid).uid, choice, now_ms())

        fact = home.db.write(write)
        _after(home)
        _tell_fact(home, fact, zone(home.settings.memory.timezone), as_json)


# --- rebuild --------------------------------------------------------------------------------------


@command(cli, "rebuild", json=True)
@click.argument("what", type=click.Choice(LAYERS), metavar="WHAT")
@click.option("--diff", is_flag=True, help="Show what would be learned or lost; change nothing.")
@click.option("--model", "role", metavar="ROLE", help="Let this model read for facts once more.")
def rebuild(state: State, what: str, diff: bool, role: str | None, as_json: bool) -> None:
    """Derive again from what was said: facts, profile, index.

    WHAT is items, index, facts, summaries, profile, or all. What was said, and what you decided,
    stays. --diff is for facts and profile.
    """
    from knowme import rebuild as derive
    from knowme.times import zone

    more = {"facts__role": role, "facts__read": "model"} if role else {}
    with state.open(**more) as home:
        if role:
            home.models.find(role)  # an unknown one is told now
        with console.Progress(quiet=as_json) as line:

            def tell(done: int, total: int, what: str = "") -> None:
                line.done(what, done, total)

            if diff:
                found = derive.difference(home, what, tell, model=bool(role))
            else:
                made = derive.rebuild(home, what, tell, model=bool(role))
        tz = zone(home.settings.memory.timezone)
    if diff:
        _tell_difference(found, tz, as_json)
    elif as_json:
        console.say_json(made)
    else:
        for layer, counts in made.items():
            told = ", ".join(f"{name} {many:,}" for name, many in counts.items() if many)
            say(f"{bold(layer)}: {told or 'nothing to make'}")


def _tell_difference(found: Difference, tz: tzinfo | None, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        console.say_json(asdict(found))
        return
    for title, beliefs, paint in (
        ("Would be learned", found.learned, console.good),
        ("Would be lost", found.lost, console.bad),
        ("Would change", [now for _, now in found.changed], console.warn),
    ):
        if not beliefs:
            continue
        say(bold(f"{title} ({len(beliefs):,}):"))
        for one in beliefs[:SHOWN]:
            _print_belief(one, tz, paint)
        if len(beliefs) > SHOWN:
            say(dim(f"  … and {len(beliefs) - SHOWN:,} more: --json"))
    if not (found.learned or found.lost or found.changed):
        say("Nothing would change.")
    else:
        say(dim("Nothing was changed. Without --diff it is done."))


def _print_belief(one: Belief, tz: tzinfo | None, paint: Any) -> None:
    say(f"  {paint(one.uid[:8])}  {console.short(one.text, console.width() - 12)}")
    if not one.counts:
        say(dim(console.wrap(f"{one.state}. {one.reason}".rstrip(), "            ")))
    if one.quote:
        say(dim(console.wrap(_quoted(one.quote, one.said_ms, tz), "            ")))
