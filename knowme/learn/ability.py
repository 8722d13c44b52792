"""General ability: a small fixed set of neutral items, of our own writing.

Promises: the same items for every model and every run (``data/ability.jsonl``: knowledge, sums,
instructions, sense, and Portuguese, Spanish and German). The beginning of each answer is given and
only what decides is counted, so that another manner of speaking costs little and lost ability much.
Refuses to know: what loss is too much (``adopt.py``). It is a smoke alarm, no benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from knowme.types import ChatMessage
from knowme.words import words

if TYPE_CHECKING:
    from knowme.learn.served import Scales, Served

ANSWER_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Item:
    """One item: what is asked, how the answer begins, the right continuation, words of a hit."""

    uid: str
    kind: str
    language: str
    prompt: str
    lead: str
    right: str
    expected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """How one item went: nats a token of the right continuation, and whether it was said."""

    uid: str
    nll: float
    hit: bool


@cache
def items() -> tuple[Item, ...]:
    """Return the items, in the order of their file."""
    text = (files("knowme") / "data" / "ability.jsonl").read_text("utf-8")
    told = [json.loads(line) for line in text.splitlines() if line.strip()]
    return tuple(Item(**{**each, "expected": tuple(each["expected"])}) for each in told)


def ask(served: Served, scales: Scales, chosen: Sequence[Item] | None = None) -> list[Done]:
    """Put the items to a model. Raises ModelError."""
    found = []
    for item in items() if chosen is None else chosen:
        messages = (ChatMessage("user", item.prompt),)
        nats = served.nll(messages, item.right, scales, lead=item.lead)
        said = served.generate(messages, scales, ANSWER_TOKENS, lead=item.lead)
        spoken = set(words(said))
        hit = any(set(words(word)) <= spoken for word in item.expected)
        found.append(Done(item.uid, sum(nats) / max(1, len(nats)), hit))
    return found
