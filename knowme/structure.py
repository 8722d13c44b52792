"""What follows a sync: facts from what is new, and the profile from the facts.

Promises: nothing is lost by leaving it undone, or by stopping in the middle: the next time goes on
where this one ended. No model is needed; where one reads for facts, it reads afterwards.
Refuses to know: how a fact is read, how a line of the profile comes about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from knowme import jobs
from knowme.errors import ModelError
from knowme.times import now_ms

if TYPE_CHECKING:
    from knowme.home import Home

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done). What it raises ends the work; what is done stays done."""
LEARN, READ, SUMMARISE = "learn", "read", "summarise"


def catch_up(home: Home, tell: Tell | None = None) -> dict[str, int]:
    """Learn by rules from everything that was not read yet, then build the profile.

    Returns counts: messages, believed, doubtful, lines changed. Where a model shall read for facts,
    a job is queued for it.
    """
    from knowme import extract, facts, portrait, profile, sync

    counts = {"messages": 0, "believed": 0, "doubtful": 0, "lines": 0}
    waiting = sync.pending(home)
    if home.settings.privacy.sensitive == "off":  # what was learned before goes, with its history
        home.db.write(lambda conn: facts.erase_sensitive(conn, now_ms()))
        home.db.write(profile.erase_sensitive)
    if home.settings.facts.read != "off":
        learned = extract.catch_up(home, tell)
        counts |= {name: getattr(learned, name) for name in ("messages", "believed", "doubtful")}
        if extract.reader(home):
            home.db.write(lambda conn: jobs.enqueue(conn, READ, {}, unique_key=READ))
        if not waiting:  # else the embedder is down, or another one is being filled: a long work
            embed(home, tell)
    if home.settings.profile.build:
        counts["lines"] = portrait.build(home).changes
    return counts


def embed(home: Home, tell: Tell | None = None) -> None:
    """Give new facts and summaries their vectors; where the embedder cannot, a job brings them."""
    from knowme import sync

    def told(done: int, total: int) -> None:
        if tell:
            tell(done, total, "embedded")

    try:
        sync.reindex(home, told)
    except ModelError:
        home.db.write(lambda conn: jobs.enqueue(conn, "reindex", {}, unique_key="reindex"))


def read(home: Home, tell: Tell | None = None) -> dict[str, int]:
    """Let the model read for facts what it has not read yet, then build the profile anew."""
    from knowme import extract, portrait, sync

    waiting = sync.pending(home)
    learned = extract.catch_up(home, tell, model=True)
    if not waiting:
        embed(home, tell)
    if home.settings.profile.build:
        portrait.build(home)
    return {"messages": learned.messages, "believed": learned.believed}
