"""The inbox: what only the person can settle, best question first, and one question a day.

Promises: a doubt is shown with both quotes and their days; what was asked is not asked again for
ASK_AGAIN_DAYS; an answer is a decision like any other: it holds, and can be undone as one.
Refuses to know: why something is doubtful (``resolution.py`` says so), where the question is shown.

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Literal, NamedTuple

import apsw

from knowme import facts, states
from knowme.attributes import attribute
from knowme.errors import InputError
from knowme.facts.resolution import BOTH_CANNOT_BE
from knowme.times import day as day_of
from knowme.types import ME, Fact

Choice = Literal["new", "old", "both", "neither"]
CHOICES = ("new", "old", "both", "neither")
ASK_AGAIN_DAYS = 30
_STATE = "inbox"
_WEIGHT = {
    "identity": 5, "communication": 4, "preferences": 3, "people": 3, "health": 3, "work": 2,
    "context": 2,
}  # fmt: skip
"""What an answer is worth, by the section of the attribute: how much of an answer rests on it."""


class Doubt(NamedTuple):
    """A fact that waits for the person, what it contradicts (if anything), and why it is asked."""

    fact: Fact
    against: Fact | None
    why: str

    @property
    def question(self) -> str:
        """Say it in a few plain lines: both quotes, with the days on which they were said."""
        lines = [f"new: {self.fact.sentence} {_quoted(self.fact)}"]
        if self.against is not None:
            lines.insert(0, f"old: {self.against.sentence} {_quoted(self.against)}")
            lines.append("Which is so: new, old, both, or neither?")
        else:
            lines.append("Is it so: new (yes), or neither (no)?")
        return "\n".join([self.why, *lines])


def _quoted(fact: Fact) -> str:
    quote = " ".join(fact.quote.split())
    quote = quote if len(quote) <= 160 else quote[:159].rstrip() + "…"
    return f"“{quote}” ({day_of(fact.said_ms, None)})"


def doubts(conn: apsw.Connection) -> list[Doubt]:
    """Return all that waits for the person, the best question first.

    Best is what concerns the person, what much rests on, what contradicts their own word, what was
    said last.
    """
    waiting = facts.believed(conn, states=("doubtful",), limit=1_000_000)
    others = facts.get(conn, {fact.other for fact in waiting if fact.other})
    found = [Doubt(fact, others.get(fact.other), fact.reason) for fact in waiting]
    return sorted(found, key=_rank)


def _rank(doubt: Doubt) -> tuple[Any, ...]:
    fact, against = doubt.fact, doubt.against
    known = attribute(fact.attribute)
    worth = _WEIGHT.get(known.section, 1) + 2 * known.single
    worth += 4 * bool(against and against.pinned) + fact.certain
    return (fact.subject != ME, -worth, -(fact.said_ms or 0), fact.uid)


def question_of_the_day(conn: apsw.Connection, at_ms: int, *, day: str) -> Doubt | None:
    """Return the best doubt that was not asked lately, and note that it is asked; else None.

    ``day`` is today as an ISO day, in the person's zone: there is one question on each.
    """
    told = states.read(conn, _STATE)
    asked: dict[str, str] = told["asked"] if told else {}
    if day in asked.values():
        return None
    asked = {uid: on for uid, on in asked.items() if 0 <= _days(on, day) < ASK_AGAIN_DAYS}
    best = next((doubt for doubt in doubts(conn) if doubt.fact.uid not in asked), None)
    if best is None:
        return None
    asked[best.fact.uid] = day
    states.keep(conn, _STATE, {"asked": asked}, at_ms)
    return best


def _days(since: str, until: str) -> int:
    return (date.fromisoformat(until) - date.fromisoformat(since)).days


def answer(conn: apsw.Connection, uid: str, choice: str, at_ms: int) -> Fact:
    """Settle a doubt and return the fact as it is then.

    ``new``: it is so. ``old``: what it contradicts is so, and it is not. ``both``; ``neither``.
    Raises NotFoundError, InputError.
    """
    fact = facts.find(conn, uid)
    if choice not in CHOICES:
        raise InputError(f"{choice!r} is no answer.", f"One of: {', '.join(CHOICES)}")
    if fact.state != "doubtful":
        raise InputError(
            f"{fact.uid} is {fact.state}, not in doubt.", "What waits for you: knowme inbox"
        )
    said = [({"new": "accept", "both": "both"}.get(choice, "reject"), fact.uid, "")]
    wrong = choice == "neither" or (choice == "new" and fact.reason == BOTH_CANNOT_BE)
    if fact.other and wrong:
        said.append(("reject", fact.other, ""))
    return facts.decide_all(conn, said, at_ms)[0]
