"""What was chosen, what the person thought of it, and what the router may learn from that.

A choice is logged with what the router saw, what it might have chosen, and with which probability;
an outcome belongs to a choice. Every belief can be made again from these two tables.

Promises: a new belief is promoted only where replaying the log says that it is better; else it
stays in ``policies`` with its figures, or waits for more outcomes. Functions take ``conn``.
Refuses to know: how a message is routed (``route.py``), how a belief is weighed (``gain.py``).

What an outcome says of the gain (``observed``). Only one of the two models was seen. The shipped
prior expects a gain of this message, and how often each model is right on such messages; an answer
that is better or worse than that moves the expected gain by SLOPE times the surprise. Of 7,661 exam
questions: where the weaker model was wrong instead of right the gain was higher by .65 (.57 against
-.09), where the stronger was right instead of wrong by .52 (.22 against -.30), with a scatter of
SCATTER. A thumb is not a key of answers: NOISE is added, and LAPSE of them are taken to point the
wrong way. Three traps, each seen to spoil what is learned: to take every bad answer for the same
gain draws the belief to the average; to measure the surprise against the average answer forgets
that hard messages are hard for both; to trust good answers more than bad ones, as their scatter
suggests, learns that every answer is good. One choice gives one observation:

    better (both were seen)   cloud 1, local -1, same 0    scatter PAIRED: taste only
    up, rating 5              as a right answer
    down, rating 1            as a wrong answer; ratings between them lie between the two
    retry_cloud               as a wrong answer of the local model
    regenerate                as a wrong answer, with twice the scatter: often only curiosity
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme.db import rows
from knowme.errors import InputError, NotFoundError
from knowme.gain import Gain, Observation, split
from knowme.times import now_ms
from knowme.types import Route

Floats = NDArray[Any]

KINDS: Mapping[str, tuple[str, ...]] = {
    "better": ("cloud", "local", "same"),
    "rating": ("1", "2", "3", "4", "5"),
    "up": ("",),
    "down": ("",),
    "retry_cloud": ("",),
    "regenerate": ("",),
}
"""What a person may say of an answer, and its legal values; the most telling kinds first."""

NOISE = 0.25
LAPSE = 0.1
"""How many of a person's thumbs are taken to point the wrong way."""
PAIRED = 0.4
SLOPE = {True: -0.65, False: 0.52}
SCATTER = {True: 0.36, False: 0.43}
"""By whether a local model's answer was seen."""

LEAST_OUTCOMES = 30
LEAST_CHANGES = 5
"""With fewer rated answers, or fewer of them that it would route otherwise, nothing is promoted."""
FOLDS = 5
DRAWS = 1000
LEVEL = 0.05
"""The difference must be above 0 at the lower bound of this one-sided level."""
LEAST_PROPENSITY = 0.05
NEAR_TIE = 0.5
"""As ``route.BAND``: so many deviations must the gain exceed its price, else it stays home."""


# --- the log -------------------------------------------------------------------------------------


def put_choice(
    conn: apsw.Connection,
    *,
    answer_id: int | None,
    route: Route,
    local: bool,
    candidates: Sequence[str] = (),
    answered_by: str = "",
    policy_id: int | None = None,
    fingerprint: str = "",
    features: Floats | None = None,
    at_ms: int | None = None,
) -> int:
    """Write one choice and return its number.

    ``local`` is said of the chosen role; ``features`` is the one row that ``gain.split`` reads.
    """
    conn.execute(
        "INSERT INTO choices(answer_id, at_ms, chosen, local, candidates, stage, category,"
        " propensity, gain, gain_sd, cost, price, policy_id, fingerprint, features, answered_by)"
        " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            answer_id, now_ms() if at_ms is None else at_ms, route.model, int(local),
            json.dumps(list(candidates)), route.stage, route.category, float(route.propensity),
            _number(route.gain), _number(route.gain_sd), _number(route.cost), _number(route.price),
            policy_id, fingerprint,
            None if features is None else np.asarray(features, "<f4").tobytes(),
            answered_by or route.model,
        ),
    )  # fmt: skip
    return int(conn.last_insert_rowid())


def _number(value: float | None) -> float | None:
    """Return what SQLite can hold: an endless price becomes a very high one."""
    if value is None or math.isnan(value):
        return None
    return max(-1e9, min(1e9, float(value)))


def rate(
    conn: apsw.Connection,
    answer: int | str,
    kind: str,
    value: str | int = "",
    *,
    at_ms: int | None = None,
) -> int:
    """Keep what the person thought of an answer; returns the number of the choice it belongs to.

    ``answer``: the number of its receipt, or a conversation, whose last answer is meant. Raises
    InputError for a kind or a value that is not in KINDS, NotFoundError for no such answer.
    """
    told = str(value).strip()
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no kind of feedback.", f"Known: {', '.join(KINDS)}.")
    if told not in KINDS[kind]:
        legal = ", ".join(KINDS[kind]) if KINDS[kind] != ("",) else "none"
        raise InputError(f"{kind} was given the value {told!r}.", f"Legal: {legal}.")
    choice = _choice_of(conn, answer)
    conn.execute(
        "INSERT INTO outcomes(choice_id, at_ms, kind, value) VALUES(?,?,?,?)",
        (choice, now_ms() if at_ms is None else at_ms, kind, told),
    )
    return choice


def _choice_of(conn: apsw.Connection, answer: int | str) -> int:
    if isinstance(answer, str):
        found = rows(
            conn,
            "SELECT h.id FROM choices h JOIN answers a ON a.id = h.answer_id"
            " JOIN conversations c ON c.id = a.conversation_id"
            " WHERE c.external_id = ? ORDER BY a.id DESC, h.id DESC LIMIT 1",
            (answer,),
        )
    else:
        found = rows(
            conn,
            "SELECT id FROM choices WHERE answer_id = ? ORDER BY id DESC LIMIT 1",
            (answer,),
        )
    if not found:
        what = f"conversation {answer!r} has" if isinstance(answer, str) else f"{answer} is"
        raise NotFoundError(f"{what} no answer that was routed.", "See: knowme why last")
    return int(found[0][0])


def observed(
    kind: str, value: str, local: bool, expected: float, usual: float
) -> tuple[float, float]:
    """Return (gain in [-1, 1], its scatter) that one outcome says; see the module.

    ``local``: of a local model's answer; ``expected``: the gain that the shipped prior expects of
    the message, ``usual``: how often the model that answered is right on such messages.
    """
    if kind == "better":
        return {"cloud": 1.0, "local": -1.0, "same": 0.0}[value], PAIRED
    good = _quality(kind, value)
    scatter = SCATTER[local] * (2 if kind == "regenerate" else 1)
    told = expected + SLOPE[local] * (good - _seen(usual))
    return max(-1.0, min(1.0, told)), math.hypot(scatter, NOISE)


def _seen(usual: float) -> float:
    """Return how often an answer is praised that is right so often: some thumbs slip."""
    return LAPSE + (1 - 2 * LAPSE) * usual


def _quality(kind: str, value: str) -> float:
    """Return in [0, 1] how good an answer was."""
    if kind == "rating":
        return (int(value) - 1) / 4
    return 1.0 if kind == "up" else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Logged:
    """One choice with the outcome that counts."""

    number: int
    local: bool
    propensity: float
    price: float | None
    kind: str
    value: str
    usual: float
    observation: Observation


def _logged(
    conn: apsw.Connection, fingerprint: str, prior: Gain, until_ms: int | None = None
) -> list[_Logged]:
    """Return every choice of this embedder that has an outcome: the most telling, then the newest.

    ``local`` is said of the model that did answer: after a fallback that is not the chosen one.
    """
    found = rows(
        conn,
        "SELECT h.id, h.local, h.chosen, h.answered_by, h.propensity, h.price, h.features,"
        " o.kind, o.value FROM choices h JOIN outcomes o ON o.choice_id = h.id"
        " WHERE h.fingerprint = ? AND h.features IS NOT NULL AND (? IS NULL OR o.at_ms <= ?)"
        " ORDER BY h.id, o.at_ms, o.id",
        (fingerprint, until_ms, until_ms),
    )
    rank = {kind: place for place, kind in enumerate(KINDS)}
    rank["up"] = rank["down"] = rank["rating"]  # of thumbs and stars the newest counts
    best: dict[int, tuple[Any, ...]] = {}
    for row in found:
        kind = row[7]
        if kind not in rank or row[8] not in KINDS[kind]:
            continue  # of a newer version: it says nothing to this one
        if row[0] not in best or rank[kind] <= rank[best[row[0]][7]]:
            best[row[0]] = row
    out = []
    for number, local, chosen, by, propensity, price, blob, kind, value in best.values():
        fell_back = by not in ("", chosen)
        if fell_back and kind != "better":
            continue  # whether the one that stepped in was local is not in the log
        try:
            vector, seen = split(np.frombuffer(blob, "<f4").astype(np.float64))
        except (InputError, ValueError):
            continue
        usual = prior.usual(vector, seen)[0 if local else 1]
        expected = prior.predict(vector, seen)[0]
        told = observed(kind, value, bool(local), expected, usual)
        one = Observation(vector, seen, *told)
        out.append(_Logged(number, bool(local), propensity, price, kind, value, usual, one))
    return out


# --- learning ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What learning came to.

    ``state``: in_use (promoted), rejected, or waiting (too little to say). ``better`` is the
    estimated difference a rated answer to the belief in use, in units of gain after its price;
    ``low`` its lower bound. ``changed``: rated answers that it would route otherwise.
    """

    state: str
    outcomes: int
    changed: int = 0
    better: float | None = None
    low: float | None = None
    policy_id: int | None = None
    reason: str = ""


def posterior(
    conn: apsw.Connection,
    fingerprint: str,
    until_ms: int | None = None,
    *,
    shipped: Gain | None = None,
) -> Gain:
    """Return the belief that the log gives: the shipped prior and every outcome until then."""
    prior = shipped or Gain.shipped(fingerprint)
    each = _logged(conn, fingerprint, prior, until_ms)
    return prior.updated(one.observation for one in each)


def promoted(conn: apsw.Connection, fingerprint: str) -> int | None:
    """Return the version of the belief that routes; None: as shipped."""
    found = rows(
        conn,
        "SELECT max(id) FROM policies WHERE fingerprint = ? AND state = 'in_use'",
        (fingerprint,),
    )
    return None if found[0][0] is None else int(found[0][0])


def in_use(
    conn: apsw.Connection, fingerprint: str, *, shipped: Gain | None = None
) -> tuple[Gain, int | None]:
    """Return the belief that routes, and its version; (as shipped, None) before any promotion.

    A version that began with the prior of another release is made again from the log.
    """
    prior = shipped or Gain.shipped(fingerprint)
    found = rows(
        conn,
        "SELECT id, model, created_ms FROM policies WHERE fingerprint = ? AND state = 'in_use'"
        " ORDER BY id DESC LIMIT 1",
        (fingerprint,),
    )
    if not found:
        return prior, None
    number, model, created = found[0]
    try:
        return Gain.loads(model, prior), int(number)
    except InputError:
        return posterior(conn, fingerprint, created, shipped=prior), int(number)


def learn(
    conn: apsw.Connection,
    fingerprint: str,
    *,
    shipped: Gain | None = None,
    at_ms: int | None = None,
) -> Report:
    """Learn from every outcome so far, and promote the new belief if the replay says so.

    ``shipped`` is the prior to begin with; None: the one that ships for this embedder.

    Writes one row of ``policies`` (none while there is too little data, or nothing new). Takes a
    fraction of a second for thousands of outcomes.
    """
    prior = shipped or Gain.shipped(fingerprint)
    log = _logged(conn, fingerprint, prior)
    if len(log) < LEAST_OUTCOMES:
        return Report(
            "waiting", len(log),
            reason=f"{len(log)} rated answers; the replay needs {LEAST_OUTCOMES}.",
        )  # fmt: skip
    current, _ = in_use(conn, fingerprint, shipped=prior)
    report = replay(log, current, prior)
    if report.state == "waiting" or _known(conn, fingerprint, len(log), report):
        return report
    stamp = now_ms() if at_ms is None else at_ms
    if report.state == "in_use":
        _retire(conn, fingerprint)
    conn.execute(
        "INSERT INTO policies(fingerprint, state, model, outcomes, replay, created_ms)"
        " VALUES(?,?,?,?,?,?)",
        (
            fingerprint, report.state,
            prior.updated(one.observation for one in log).dumps(),
            len(log), json.dumps(asdict(report)), stamp,
        ),
    )  # fmt: skip
    return Report(**{**asdict(report), "policy_id": int(conn.last_insert_rowid())})


def _known(conn: apsw.Connection, fingerprint: str, outcomes: int, report: Report) -> bool:
    """Tell whether these very outcomes were judged already, with the same end."""
    found = rows(
        conn,
        "SELECT outcomes, replay FROM policies WHERE fingerprint = ? ORDER BY id DESC LIMIT 1",
        (fingerprint,),
    )
    if not found or found[0][0] != outcomes:
        return False
    last = json.loads(found[0][1])
    return bool(last.get("better") == report.better and last.get("state") == report.state)


def roll_back(conn: apsw.Connection, fingerprint: str) -> None:
    """Route as shipped again; what was learned stays in the log and in ``policies``."""
    _retire(conn, fingerprint)


def _retire(conn: apsw.Connection, fingerprint: str) -> None:
    conn.execute(
        "UPDATE policies SET state = 'retired' WHERE fingerprint = ? AND state = 'in_use'",
        (fingerprint,),
    )


def replay(log: Sequence[_Logged], current: Gain, shipped: Gain) -> Report:
    """Estimate from the log how much better a belief learned from it routes than ``current``.

    Each fold is judged by a belief that did not see it. What an answer says of the gain is the
    doubly robust estimate (Dudík, Langford, Li 2011): what the shipped prior expects, moved by how
    far the answer fell from what is usual on such messages, over its propensity. A belief earns
    gain - price where it would ask the stronger model. The bound is a bootstrap over answers,
    drawn alike each time.
    """
    priced = [one for one in log if one.price is not None]
    if len(priced) < LEAST_OUTCOMES:
        return Report(
            "waiting", len(log),
            reason=f"{len(priced)} rated answers had a choice of models; {LEAST_OUTCOMES} needed.",
        )  # fmt: skip
    price = np.array([one.price for one in priced], float)
    away_now = _away(_expected(current, priced), price)
    away_then = _away(_held_out(log, priced, shipped), price)
    told = _told(priced, _expected(shipped, priced)[:, 0])
    each = (away_then.astype(float) - away_now) * (told - np.clip(price, -1.0, 1.0))
    changed = int((away_then != away_now).sum())
    if changed < LEAST_CHANGES:
        return Report(
            "waiting", len(log), changed, float(each.mean()),
            reason=f"It would route {changed} rated answers otherwise; {LEAST_CHANGES} needed.",
        )  # fmt: skip
    drawn = np.random.default_rng(0).integers(0, len(each), (DRAWS, len(each)))
    better, low = float(each.mean()), float(np.quantile(each[drawn].mean(1), LEVEL))
    if low > 0:
        return Report(
            "in_use", len(log), changed, better, low,
            reason=f"The replay says {better:+.3f} an answer, at least {low:+.3f}.",
        )  # fmt: skip
    return Report(
        "rejected", len(log), changed, better, low,
        reason=f"The replay says {better:+.3f} an answer, but it may be {low:+.3f}.",
    )  # fmt: skip


def _away(expected: Floats, price: Floats) -> Floats:
    """Return (n,) whether the router would ask the stronger model: (n, 2) mean and deviation."""
    band = np.where(price < 1.0, NEAR_TIE * expected[:, 1], 0.0)
    out: Floats = expected[:, 0] - price > band
    return out


def _held_out(log: Sequence[_Logged], priced: Iterable[_Logged], shipped: Gain) -> Floats:
    """Return (n, 2) expected gains of ``priced``, each by a belief its fold did not shape."""
    fold = {one.number: place % FOLDS for place, one in enumerate(log)}
    beliefs = [
        shipped.updated(one.observation for one in log if fold[one.number] != number)
        for number in range(FOLDS)
    ]
    return np.concatenate([_expected(beliefs[fold[one.number]], [one]) for one in priced])


def _expected(belief: Gain, log: Iterable[_Logged]) -> Floats:
    """Return (n, 2): the mean and the deviation of each expected gain."""
    return np.array(
        [belief.predict(one.observation.vector, one.observation.features) for one in log]
    )


def _told(log: Sequence[_Logged], prior: Floats) -> Floats:
    """Return (n,) doubly robust estimates of the gain."""
    out = prior.copy()
    for place, one in enumerate(log):
        if one.kind == "better":
            out[place] = one.observation.gain
            continue
        off = _quality(one.kind, one.value) - _seen(one.usual)
        if one.kind == "regenerate":
            off /= 2
        weight = 1.0 / max(one.propensity, LEAST_PROPENSITY)
        out[place] += -off * weight if one.local else off * weight
    return out


# --- money ---------------------------------------------------------------------------------------


def lambda_of(spent: float, budget: float, elapsed: float, worth: float) -> float:
    """Return the price of money in units of gain: ask away only if gain > cost * this.

    ``worth``: what an answer that is right instead of wrong is worth, in money; so the price is
    1 / worth while money lasts. Let ``left`` be (1 - spent/budget) / (1 - elapsed): the money left
    for each day that is left of the month, over what was meant for a day. Where it is below 1 the
    price is 1 / (worth * left): half the daily money, twice the price. Without money, or without
    worth, it is endless. It never falls as spending grows, and never below 1 / worth: a full purse
    makes no answer worth more.
    """
    if budget <= 0.0 or worth <= 0.0 or spent >= budget or math.isnan(spent + budget + worth):
        return math.inf
    days_left = 1.0 - min(1.0, max(0.0, elapsed))
    money_left = 1.0 - max(0.0, spent) / budget
    left = 1.0 if money_left >= days_left else money_left / days_left
    return 1.0 / (worth * left) if worth * left > 0.0 else math.inf
