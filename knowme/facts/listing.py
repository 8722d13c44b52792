"""How facts stand in a list: in which order, what is sure of a day, which were corrected.

Promises: pure, but for ``corrected``; the same order on the command line and on the page.
Refuses to know: how anything is printed.
"""

from __future__ import annotations

from typing import Any

import apsw

from knowme.attributes import SECTIONS, attribute
from knowme.facts.store import decisions
from knowme.types import ME, Fact

_FIRST = {"name": 0, "age": 1, "birthday": 2}


def place(fact: Fact) -> tuple[Any, ...]:
    """Return a sort key: the person first, who they are before what happened, the newest first."""
    section = SECTIONS.index(attribute(fact.attribute).section)
    first, said = _FIRST.get(fact.attribute, len(_FIRST)), -(fact.said_ms or 0)
    return (fact.subject != ME, fact.subject, section, first, fact.attribute, said, fact.uid)


def known_on(fact: Fact, on: str) -> bool:
    """Tell whether what is known says that it was so on an ISO day; "": any day will do.

    Else it only may have been: it was first told later, or its beginning or end is not known to
    the day. "I work at Galp", said in June, tells nothing of March.
    """
    time = fact.when
    began = bool(time.from_last) and time.from_last <= on
    return not on or (began and not (time.to_first and time.to_first < on))


def tags(fact: Fact) -> tuple[str, ...]:
    """Return how a fact came about, where no message was read for it but a tuned model asked."""
    return ("personality", "auto-extracted") if fact.read_by.startswith("personality:") else ()


def corrected(conn: apsw.Connection) -> dict[str, int]:
    """Return the facts whose value the person corrected: {uid: when, in ms}.

    Their quote does not hold what they say: whoever shows it must say so.
    """
    held = [one for one in decisions(conn) if one.undone_ms is None]
    return {one.uid: one.at_ms for one in held if one.action == "edit"}
