"""Learning from sparse feedback, turn by turn: what the shipped prior is worth (bench/routing.py).

3,000 turns of held-out prompts; only the chosen model's answer is seen, every fifth is rated (a
thumb, one in ten of them wrong), and an answer of the stronger model costs COST. The log, the
replay and the promotion are those of knowme.feedback on a real (in-memory) database. Two streams:
"usual" prompts are drawn like those that the prior was fitted on; "new subjects" are of whole
subjects that it never saw.
"""

import sys

import apsw
import fit_priors as priors
import numpy as np

from knowme import feedback, schema
from knowme.gain import Observation
from knowme.types import Route

TURNS, COST, RATED, WRONG_THUMBS, EVERY = 3000, 0.1, 0.2, 0.1, 250
EXPLORE = 0.1
FINGERPRINT = "sim"


def streams(data, rng):
    order = rng.permutation(len(data.gain))
    yield "usual", order[:TURNS], order[TURNS:]
    tasks = rng.permutation(np.unique(data.task[data.bench == "mmlu"]))
    taken = np.zeros(len(order), bool)
    for task in tasks:
        if taken.sum() >= TURNS:
            break
        taken |= data.task == task
    yield "new subjects", rng.permutation(np.flatnonzero(taken))[:TURNS], np.flatnonzero(~taken)


def decide(belief, vector, seen) -> tuple[bool, bool, float, float]:
    """Return (ask away, a near tie, mean, deviation), as the router does."""
    mean, sd = belief.predict(vector, seen)
    over = mean - COST
    near = abs(over) < feedback.NEAR_TIE * sd
    return over > 0 and not near, near, mean, sd


def play(data, stream, prior, rng, *, learns: str, explore: float = 0.0):
    """Return (reward, accuracy, share away, promotions). ``learns``: no, always, promoted."""
    conn = apsw.Connection(":memory:")
    schema.migrate(conn)
    belief, right, away_count, promoted = prior, 0.0, 0, 0
    for turn, at in enumerate(stream):
        vector, seen = data.vectors[at], data.seen[at]
        away, near, mean, sd = decide(belief, vector, seen)
        chance = 1.0
        if near and explore:
            away = rng.random() < explore / 2
            chance = explore / 2 if away else 1 - explore / 2
        good = data.strong[at] if away else data.weak[at]
        right += good
        away_count += away
        if rng.random() < RATED:
            thumb = bool(good) != (rng.random() < WRONG_THUMBS)
            kind = "up" if thumb else "down"
            if learns == "always":
                expected, usual = prior.predict(vector, seen)[0], prior.usual(vector, seen)
                told = feedback.observed(kind, "", not away, expected, usual[int(away)])
                belief = belief.updated([Observation(vector, seen, *told)])
            elif learns == "promoted":
                role = "cloud" if away else "primary"
                number = feedback.put_choice(
                    conn, answer_id=None, local=not away, fingerprint=FINGERPRINT, at_ms=turn,
                    features=np.concatenate([vector, seen]),
                    route=Route(role, "", 0.5, propensity=chance, gain=mean, gain_sd=sd,
                                cost=COST, price=COST),
                )  # fmt: skip
                conn.execute(
                    "INSERT INTO outcomes(choice_id, at_ms, kind) VALUES(?,?,?)",
                    (number, turn, kind),
                )
        if learns == "promoted" and turn % EVERY == EVERY - 1:
            report = feedback.learn(conn, FINGERPRINT, shipped=prior, at_ms=turn)
            if report.state == "in_use" and report.policy_id is not None:
                promoted += 1
                belief, _ = feedback.in_use(conn, FINGERPRINT, shipped=prior)
    conn.close()
    count = len(stream)
    return right / count - COST * away_count / count, right / count, away_count / count, promoted


def cold(shape):
    """Return a belief that knows nothing: its weights may move the gain by a few tenths."""
    size = sum(shape.groups)
    even = np.zeros(size)
    even[0] = 0.75
    parts = np.repeat([0.1, 0.1, 0.1, 0.2, 0.2, 0.2], shape.groups)
    return priors.Gain("cold", shape, np.diag(1 / parts**2), np.zeros(size), even)


def simulate(data, calm, seeds: int, first: int = 100) -> dict:
    out: dict = {}
    for seed in range(seeds):
        rng = np.random.default_rng(first + seed)
        for name, stream, free in list(streams(data, rng)):
            shape = priors.make_shape(data, free)
            fitted = priors.fit(
                shape, data.vectors[free], data.seen[free], data.gain[free], calm, data.weak[free]
            )
            prior = priors.for_a_person(fitted)

            def run(begin, learns, explore=0.0, seed=seed, stream=stream):
                chance = np.random.default_rng([first, seed])  # the same turns are rated by all
                return play(data, stream, begin, chance, learns=learns, explore=explore)

            away = np.clip(data.gain[stream], 0, 1) > COST
            best = np.where(away, data.strong[stream], data.weak[stream])
            runs = {
                "always local": (data.weak[stream].mean(),) * 2 + (0.0, 0),
                "always strong": (data.strong[stream].mean() - COST, data.strong[stream].mean(),
                                  1.0, 0),
                "oracle": (best.mean() - COST * away.mean(), best.mean(), away.mean(), 0),
                "shipped prior, fixed": run(prior, "no"),
                "shipped prior + promotion": run(prior, "promoted"),
                "shipped prior + promotion, a tenth of ties by lot": run(
                    prior, "promoted", EXPLORE),
                "shipped prior + every outcome at once": run(prior, "always"),
                "cold start + every outcome at once": run(cold(shape), "always"),
                "cold start + promotion, a tenth of ties by lot": run(
                    cold(shape), "promoted", EXPLORE),
            }  # fmt: skip
            for system, figures in runs.items():
                out.setdefault(name, {}).setdefault(system, []).append(figures)
        print(f"online seed {seed}", file=sys.stderr)
    return {
        name: {system: _summed(np.array(rows, float)) for system, rows in systems.items()}
        for name, systems in out.items()
    }


def _summed(rows: np.ndarray) -> dict:
    mean = rows.mean(0)
    return {
        "reward": round(float(mean[0]), 4), "sd": round(float(rows[:, 0].std()), 4),
        "accuracy": round(float(mean[1]), 3), "away": round(float(mean[2]), 3),
        "promotions": round(float(mean[3]), 1),
    }  # fmt: skip
