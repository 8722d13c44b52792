"""What was measured of a candidate: numbers by item, before and after.

Promises: frozen; no words, so it may stand in ``eval.json``; what was written reads back equal.
Refuses to know: how it was measured, what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One item, with what is in use and with the candidate.

    ``weight`` is how much it counts (an answer: its tokens), ``group`` what it belongs with: items
    of one conversation tell less than as many of different ones.
    """

    uid: str
    before: float
    after: float
    weight: float = 1.0
    group: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret: was it said, and how exposed is it (bits), with the base and the candidate."""

    kind: str
    message_id: int
    emitted_base: bool
    emitted: bool
    bits_base: float = 0.0
    bits: float = 0.0
    first: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """All numbers of one candidate.

    ``base`` and ``adapter`` name files by their hashes; ``against`` is the run that is in use, ""
    for the base alone. ``perplexity`` (nats a token, weight: tokens), ``style`` (distance) and
    ``ability`` and ``facts_nats`` (nats a token) are better when they fall; ``relevance`` (nats a
    token), ``facts``, ``alone`` (facts without recall) and ``ability_hits`` (0 to 1) when they
    rise. The two of ability have the base as ``before``.
    """

    run: str
    purpose: str
    base: str
    adapter: str
    against: str = ""
    perplexity: tuple[Item, ...] = ()
    relevance: tuple[Item, ...] = ()
    style: tuple[Item, ...] = ()
    style_own: float = 0.0
    style_other: float = 0.0
    facts: tuple[Item, ...] = ()
    facts_nats: tuple[Item, ...] = ()
    alone: tuple[Item, ...] = ()
    ability: tuple[Item, ...] = ()
    ability_hits: tuple[Item, ...] = ()
    secrets: tuple[Secret, ...] = ()
    recited_tried: int = 0
    recited_before: int = 0
    recited_after: int = 0

    def json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Measured:
        """Return what ``json`` wrote. Raises TypeError, ValueError for anything else."""
        made = dict(told)
        for name in ROWS:
            made[name] = tuple(Item(**each) for each in told.get(name, ()))
        made["secrets"] = tuple(Secret(**each) for each in told.get("secrets", ()))
        return cls(**made)


ROWS = (
    "perplexity",
    "relevance",
    "style",
    "facts",
    "facts_nats",
    "alone",
    "ability",
    "ability_hits",
)
"""Those of its fields that are items."""
