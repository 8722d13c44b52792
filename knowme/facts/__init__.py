"""Facts: what was stated, what of it is believed, and what the person decided about it.

``store`` keeps claims and takes decisions; ``resolution`` says, purely, what of the claims of one
key is believed; ``settling`` writes that down, with its events and its keys for search.
"""

from knowme.facts.resolution import ACTIONS, STATES, Decision, Outcome, Place, resolve
from knowme.facts.store import (
    Erased,
    Learned,
    Reading,
    Undone,
    believed,
    counts,
    decide,
    decide_all,
    decisions,
    erase,
    erase_sensitive,
    evidence,
    fact_uid,
    find,
    get,
    held,
    learn,
    settle,
    undo,
    unlearn,
)

__all__ = [
    "ACTIONS", "STATES", "Decision", "Erased", "Learned", "Outcome", "Place", "Reading", "Undone",
    "believed", "counts", "decide", "decide_all", "decisions", "erase", "erase_sensitive",
    "evidence", "fact_uid", "find", "get", "held", "learn", "resolve", "settle", "undo", "unlearn",
]  # fmt: skip
