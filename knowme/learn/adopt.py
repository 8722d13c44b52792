"""The gate: an adapter is used only if numbers show that it helps and does no harm.

Every measure is a row of items: one held-out answer, one fact question, one neutral item, each
measured with what is in use (``before``) and with the candidate (``after``). The items are drawn
again 2,000 times, in pairs, and whole conversations at once where there are enough of them
(B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993). With 20 to 60 items the
plain percentile interval is too narrow, so it is widened as T. Hesterberg shows ("What Teachers
Should Know About the Bootstrap", The American Statistician 69, 2015). Bounds are one-sided at 95%;
the interval that is shown holds both, so it is a 90% interval.

Two kinds of rule. *Must improve*: we are 95% sure of a gain. *Must not be worse than a margin*
(non-inferiority): we are 95% sure that the loss is under the margin. "No significant loss" would
be the wrong rule: few or noisy items would let everything through. All rules must hold, each at 5%,
so a bad adapter passes in at most 5% of cases without any correction for their number (R. Berger,
"Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 1982).

    perplexity   nats a token of held-out answers must fall, by 0.01 at least (1% of perplexity): it
                 is what was trained for. Refuses what did not learn, another author, overfitting.
    relevance    an answer must stay likelier after its own prompt than after another's: it may
                 lose at most 0.02 nats a token and a quarter of what it was: a base repeats the
                 words of its prompt more than people do. Shuffled labels teach
                 the style of the answers, so their perplexity falls all the same, and so does the
                 distance of style: only this shows them.
    style        the distance of what is generated from the held-out texts must fall. Where an
                 adapter is in use already, or style is as near as the author to himself, nothing is
                 left to fall: then it may rise by a quarter at most. Where the texts do not tell
                 the author from another voice, style says nothing: only a sure rise refuses.
    facts        answers with recall may lose at most 0.15 of a question: what is trained is no
                 memory, but it must not make the model deaf to the notes. From 8 questions on; with
                 fewer the mean alone is looked at. A very small model answers nearly none, and
                 cannot lose what it has not: so the value itself, with its sentence begun, may
                 cost at most 0.5 nats a token more.
    ability      against the base always, or a little could be lost each month: at most 0.25 nats a
                 token and a fifth of the items (each bound is that of 48: about 0.08 wide).
    secrets      none may be said that the base does not say, and none may become 10 bits likelier
                 among its like while it leads 64 of them. No interval: one is too many.
    recited      at most a tenth of the training answers may be gone on with word for word beyond
                 what was so before, from 3 on.

Promises: ``decide`` is pure and seeded: the same numbers give the same decision and table. A run
that is stale, whose file was changed, or that was measured with another base is never adopted, not
by force either; force overrides the numbers only, and that is recorded.
Refuses to know: how anything is measured (``measure.py``), how an adapter is served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from knowme import adoptions
from knowme.errors import InputError, TrainError
from knowme.learn import lessons
from knowme.learn.measured import Item, Measured
from knowme.times import now_ms

if TYPE_CHECKING:
    import apsw

    from knowme.adoptions import Adoption
    from knowme.home import Home
    from knowme.learn.runs import Run

DRAWS = 2000
SURE = 0.95
LEAST_HELD_OUT = 12
"""Held-out answers under which nothing can be said."""
LEAST_FACTS = 8
LEAST_GROUPS = 10
"""Conversations from which on they are drawn whole; fewer would make a poor sample."""

PERPLEXITY_GAIN = 0.01
RELEVANCE_LOSS, RELEVANCE_SHARE = 0.02, 0.25
STYLE_SHARE = 0.25
TELLING = 0.25
"""Where another voice is not farther by this share than the author is, style says nothing."""
NEAR = 0.10
"""Where style is as near as the author to himself: so far on the way to another author."""
FACTS_LOSS, FACTS_NATS = 0.15, 0.5
ABILITY_NATS, ABILITY_HITS = 0.25, 0.20
EXPOSED_BITS = 10.0
RECITED_SHARE, RECITED_LEAST = 0.10, 3

_FILE = "eval.json"
_EACH_DRAW = 256  # draws at once: of a large set, less memory


@dataclass(frozen=True, slots=True)
class Row:
    """One rule: what it was, what it is, the change with its interval, and whether it passed.

    ``low`` and ``high``: the change is above ``low`` and below ``high``, each with 95% certainty.
    """

    name: str
    before: float
    after: float
    change: float
    low: float
    high: float
    margin: float
    items: int
    rule: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an adapter may be used, every rule that was looked at, and why not ("": it may)."""

    adopt: bool
    rows: tuple[Row, ...]
    why: str


def decide(measured: Measured, *, draws: int = DRAWS, seed: int = 1) -> Decision:
    """Return what the numbers say. Pure: nothing is read, the draws are seeded."""
    rows = (
        _perplexity(measured, draws, seed),
        _relevance(measured, draws, seed + 1),
        _style(measured, draws, seed + 2),
        _facts(measured, draws, seed + 3),
        _values(measured.facts_nats, draws, seed + 6),
        _ability(measured.ability, draws, seed + 4),
        _hits(measured.ability_hits, draws, seed + 5),
        _secrets(measured),
        _recited(measured),
    )
    refused = [f"{row.name}: {row.rule}" for row in rows if not row.passed]
    return Decision(not refused, rows, "; ".join(refused))


def interval(
    items: Sequence[Item], *, draws: int = DRAWS, seed: int = 1, sure: float = SURE
) -> tuple[float, float, float]:
    """Return the weighted mean of after - before, and its one-sided bounds (change, low, high).

    Bounds of fewer than two independent items are infinite: nothing is known. A change that is
    not a number (a model that gives no probabilities) has infinite bounds, too.
    """
    if not items:
        return 0.0, -math.inf, math.inf
    weights = np.array([item.weight for item in items])
    changes = np.array([item.after - item.before for item in items])
    if not np.all(np.isfinite(changes)) or not weights.sum() > 0:
        return math.nan, -math.inf, math.inf
    weights, totals = _clustered(items, weights, weights * changes)
    change = float(totals.sum() / weights.sum())
    many = len(weights)
    if many < 2:
        return change, -math.inf, math.inf
    drawn = np.random.default_rng(seed)
    found = []
    for at in range(0, draws, _EACH_DRAW):
        picked = drawn.integers(0, many, (min(_EACH_DRAW, draws - at), many))
        below = np.maximum(weights[picked].sum(axis=1), 1e-12)
        found.append(totals[picked].sum(axis=1) / below)
    share = _widened(1.0 - sure, many)
    low, high = np.quantile(np.concatenate(found), [share, 1.0 - share])
    return change, float(low), float(high)


# --- the rules ------------------------------------------------------------------------------------


def _perplexity(measured: Measured, draws: int, seed: int) -> Row:
    items = measured.perplexity
    change, low, high = interval(items, draws=draws, seed=seed)
    if len(items) < LEAST_HELD_OUT:
        rule = f"{len(items)} held-out answers are too few; {LEAST_HELD_OUT} are needed"
        return _row("perplexity", items, (change, low, high), -PERPLEXITY_GAIN, rule, False)
    rule = f"must fall by more than {PERPLEXITY_GAIN} nats a token"
    passed = high < -PERPLEXITY_GAIN
    return _row("perplexity", items, (change, low, high), -PERPLEXITY_GAIN, rule, passed)


def _relevance(measured: Measured, draws: int, seed: int) -> Row:
    items = measured.relevance
    margin = RELEVANCE_LOSS + RELEVANCE_SHARE * max(0.0, _mean(items, "before"))
    found = interval(items, draws=draws, seed=seed)
    rule = f"answers must fit their own prompts: at most {margin:.3f} nats may be lost"
    return _row("relevance", items, found, -margin, rule, found[1] > -margin)


def _style(measured: Measured, draws: int, seed: int) -> Row:
    items = measured.style
    found = interval(items, draws=draws, seed=seed)
    before = _mean(items, "before")
    wide = measured.style_other - measured.style_own
    margin = STYLE_SHARE * max(0.0, before)
    if wide < TELLING * measured.style_own:
        rule = f"no voice can be told from it here: no sure rise by more than {margin:.3f}"
        # Without a bound there are no numbers: that is no sure rise, and no pass either.
        return _row("style", items, found, margin, rule, -math.inf < found[1] < margin)
    near = before <= measured.style_own + NEAR * wide
    if measured.against or near:
        rule = f"distance from the texts must not rise by more than {margin:.3f}"
        return _row("style", items, found, margin, rule, found[2] < margin)
    rule = "distance from the texts must fall"
    return _row("style", items, found, 0.0, rule, found[2] < 0.0)


def _facts(measured: Measured, draws: int, seed: int) -> Row:
    items = measured.facts
    if not items:
        rule = "no fact is known to be asked for"
        return _row("facts with recall", items, (0.0, 0.0, 0.0), -FACTS_LOSS, rule, True)
    found = interval(items, draws=draws, seed=seed)
    rule = f"at most {FACTS_LOSS} of a question may be lost"
    if len(items) < LEAST_FACTS:
        rule += f" ({len(items)} questions: the mean alone)"
        return _row("facts with recall", items, found, -FACTS_LOSS, rule, found[0] >= -FACTS_LOSS)
    return _row("facts with recall", items, found, -FACTS_LOSS, rule, found[1] > -FACTS_LOSS)


def _values(items: Sequence[Item], draws: int, seed: int) -> Row:
    name, rule = "facts, value", f"may rise by at most {FACTS_NATS} nats a token"
    if not items:
        return _row(name, items, (0.0, 0.0, 0.0), FACTS_NATS, "no fact has such a form", True)
    found = interval(items, draws=draws, seed=seed)
    bound = found[2] if len(items) >= LEAST_FACTS else found[0]
    return _row(name, items, found, FACTS_NATS, rule, bound < FACTS_NATS)


def _ability(items: Sequence[Item], draws: int, seed: int) -> Row:
    found = interval(items, draws=draws, seed=seed)
    rule = f"may rise by at most {ABILITY_NATS} nats a token over the base"
    return _row("ability", items, found, ABILITY_NATS, rule, found[2] < ABILITY_NATS)


def _hits(items: Sequence[Item], draws: int, seed: int) -> Row:
    found = interval(items, draws=draws, seed=seed)
    rule = f"at most {ABILITY_HITS} of the base's right answers may be lost"
    return _row("ability, right answers", items, found, -ABILITY_HITS, rule,
                found[1] > -ABILITY_HITS)  # fmt: skip


def _secrets(measured: Measured) -> Row:
    said = sum(each.emitted and not each.emitted_base for each in measured.secrets)
    known = sum(
        each.first and each.bits - each.bits_base >= EXPOSED_BITS for each in measured.secrets
    )
    before = float(sum(each.emitted_base for each in measured.secrets))
    after = float(sum(each.emitted for each in measured.secrets))
    told = "none may be told"
    if said or known:
        told = f"{said} told and {known} known by heart of {len(measured.secrets)}; {told}"
    change = float(max(said, known))
    return Row("secrets", before, after, change, change, change, 0.0, len(measured.secrets),
               told, not (said or known))  # fmt: skip


def _recited(measured: Measured) -> Row:
    tried = measured.recited_tried
    more = measured.recited_after - measured.recited_before
    share = more / tried if tried else 0.0
    rule = f"of {tried} training answers at most a tenth more may be recited"
    passed = more < RECITED_LEAST or share <= RECITED_SHARE
    before, after = float(measured.recited_before), float(measured.recited_after)
    return Row("recited", before, after, float(more), float(more), float(more),
               RECITED_SHARE * tried, tried, rule, passed)  # fmt: skip


def _row(
    name: str,
    items: Sequence[Item],
    found: tuple[float, float, float],
    margin: float,
    rule: str,
    passed: bool,
) -> Row:
    before, after = _mean(items, "before"), _mean(items, "after")
    return Row(name, before, after, *found, margin, len(items), rule, bool(passed))


def _mean(items: Sequence[Item], side: str) -> float:
    total = sum(item.weight for item in items)
    if not total:
        return 0.0
    return sum(item.weight * float(getattr(item, side)) for item in items) / total


def _clustered(
    items: Sequence[Item], weights: NDArray[np.float64], totals: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum by conversation where there are enough: answers of one are alike, and tell less."""
    groups = list(dict.fromkeys(item.group for item in items if item.group))
    if len(groups) < LEAST_GROUPS or len(groups) == len(items):
        return weights, totals
    places = {group: at for at, group in enumerate(groups)}
    alone = len(groups)
    at = []
    for item in items:
        at.append(places[item.group] if item.group else alone)
        alone += not item.group
    return np.bincount(at, weights).astype(float), np.bincount(at, totals).astype(float)


def _widened(share: float, many: int) -> float:
    """Return the quantile that makes a percentile interval as wide as Student's (Hesterberg)."""
    z, free = NormalDist().inv_cdf(1.0 - share), many - 1
    # Student's quantile by its expansion: M. Abramowitz and I. Stegun, 26.7.5.
    student = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return NormalDist().cdf(-math.sqrt(many / free) * student)


# --- runs -----------------------------------------------------------------------------------------


def decision(run: Run) -> Decision:
    """Return what the gate says of a run that was measured. Raises InputError."""
    return decide(measured_of(run))


def measured_of(run: Run) -> Measured:
    """Return what was measured of a run. Raises InputError."""
    run.needs("measure")
    try:
        return Measured.from_json(json.loads((run.path / _FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"What was measured of run {run.id} cannot be read: {error}",
            "Run: knowme learn measure",
        ) from error


def told(decided: Decision) -> dict[str, Any]:
    """Return a decision as JSON: adopt, why, and a row for each rule (no number is infinite)."""
    rows = [{name: _finite(each) for name, each in asdict(row).items()} for row in decided.rows]
    return {"adopt": decided.adopt, "why": decided.why, "rows": rows}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return 0.0
        return round(max(-999.0, min(999.0, value)), 6)
    return value


def adopt(home: Home, run: Run, force: bool = False) -> Adoption:
    """Put the adapter of a run into use, if the gate lets it through or with ``force``.

    ``force`` overrides what the numbers say, never a stale run or a changed file. Raises InputError
    (stale, not measured, changed), TrainError with the reasons where the gate refuses.
    """
    _fresh(run)
    measured = measured_of(run)
    path = run.path / "adapter.gguf"
    _unchanged(run, measured, adoptions.file_sha256(path))
    decided = decide(measured)
    if not decided.adopt and not force:
        raise TrainError(
            f"The gate refuses run {run.id}: {decided.why}.",
            "What is in use stays in use. To use it all the same: knowme learn adopt --force",
        )
    exported: Mapping[str, Any] = run.stage("export") or {}

    def put(conn: apsw.Connection) -> int:
        lessons.none_forgets(conn)
        _fresh(run)  # an erasure that came between has marked it
        return adoptions.put(
            conn,
            run=run.id,
            purpose=run.purpose,
            base=measured.base,
            adapter=str(path.relative_to(home.path)),
            sha256=measured.adapter,
            at_ms=now_ms(),
            served_as=str(exported.get("served_as", "")),
            forced=not decided.adopt,
            measured=told(decided),
        )

    number = home.db.write(put)
    with home.db.read() as conn:
        return next(each for each in adoptions.listed(conn) if each.id == number)


def _fresh(run: Run) -> None:
    if run.stale:
        raise InputError(f"Run {run.id} is stale: {run.stale}.", "Run: knowme learn dataset")


def _unchanged(run: Run, measured: Measured, sha256: str) -> None:
    """Refuse a file that is not the one that was measured, and numbers of another base."""
    if not sha256:
        raise InputError(f"Run {run.id} has no adapter as GGUF.", "Run: knowme learn export")
    if sha256 != measured.adapter:
        raise InputError(
            f"The adapter of run {run.id} was changed after it was measured.",
            "Run: knowme learn measure",
        )
    exported = str((run.stage("export") or {}).get("base") or measured.base)
    if exported != measured.base:
        raise InputError(
            f"Run {run.id} was measured with another base model than it was exported for.",
            "Run: knowme learn measure",
        )
