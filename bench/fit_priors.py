"""Make knowme/data/*.npz: what ships as a belief before the person said anything.

    python bench/fit_priors.py [--shared ../shared] [--cache FOLDER] [--out knowme/data]

Reads ../shared/data/routing (labels-dev.jsonl, intents-dev.jsonl) and bench/intents.json, embeds
the texts with the packaged MiniLM, fits, and writes gain-minilm.npz, gain-looks.npz and
intents.npz. The same data give the same files. Prints one JSON line with the figures that
knowme/data/README.md quotes. personal-or-complex-dev.jsonl is read for one thing: none of its texts
may be fitted on, and some are exam prompts that the labels hold too.
"""

import argparse
import hashlib
import io
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from knowme.gain import FEATURES, Gain, Shape, features
from knowme.intents import SIGNS, signs

SUBJECTS, BASIS = 56, 64
PLAIN, PLAIN_COUNTS = 1000, 0.2**0.5
"""Everyday messages that enter the fit of the gain as 0; each counts a fifth of a label."""
PLAIN_RIGHT = 0.85
"""How often the weaker model is taken to do well on them."""
OWN, EXAMS = 5.0, 900
"""How much a sentence of our own counts beside one of CLINC; how many exam prompts are COMPLEX."""
WITHIN = 0.1
"""How far the scatter within a subject is drawn towards a sphere (the discriminant's shrinkage)."""
ROUNDS = 30
PERSON = {"bias": 0.02, "looks": 0.004, "vector": 0.02}
"""How far one person's weights may lie from the public ones (standard deviations): the share of
the prior that feedback moves. Chosen in bench/online.py, on other drawings than it reports."""


@dataclass
class Labels:
    """Prompts with a vector each, their looks, and how much better the strong model did."""

    prompts: list[str]
    bench: np.ndarray
    task: np.ndarray
    weak: np.ndarray
    strong: np.ndarray
    vectors: np.ndarray
    seen: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        return self.strong - self.weak


def embed(texts: list[str], cache: Path | None) -> np.ndarray:
    """Return (n, 384) vectors of the packaged MiniLM; kept in ``cache`` by what the texts are."""
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    kept = cache / f"minilm-{key}.npy" if cache else None
    if kept and kept.exists():
        return np.load(kept)
    from knowme.embedders.onnx import OnnxEmbedder

    print(f"embedding {len(texts)} texts", file=sys.stderr)
    vectors = OnnxEmbedder(threads=1).embed(texts, "query")
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, vectors)
    return vectors


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def labels(path: Path, cache: Path | None) -> Labels:
    rows = read_jsonl(path)
    prompts = [row["prompt"] for row in rows]
    return Labels(
        prompts,
        np.array([row["bench"] for row in rows]),
        np.array([row["task"] for row in rows]),
        np.array([row["weak_correct"] for row in rows], float),
        np.array([row["strong_correct"] for row in rows], float),
        embed(prompts, cache),
        np.array([features(prompt) for prompt in prompts]),
    )


# --- the gain ------------------------------------------------------------------------------------


def make_shape(data: Labels, pool: np.ndarray, with_vectors: bool = True) -> Shape:
    """Return the projections of the prompts ``pool``: looks at no label of right or wrong.

    ``subjects``: Fisher's discriminant of the subjects (tasks); ``basis``: principal components.
    """
    seen = data.seen[pool].astype(float)
    middle, spread = seen.mean(0), np.maximum(seen.std(0), 0.1)
    middle[-1], spread[-1] = 0.5, 1.0  # options: the two kinds of message have weights of their own
    if not with_vectors:
        none = np.zeros((0, 0))
        return Shape(middle, spread, np.zeros(0), none, none)
    vectors = data.vectors[pool].astype(float)
    centre = vectors.mean(0)
    off = vectors - centre
    _, which, count = np.unique(data.task[pool], return_inverse=True, return_counts=True)
    means = np.array([np.bincount(which, off[:, d]) / count for d in range(off.shape[1])]).T
    within = off - means[which]
    scatter = within.T @ within / len(within)
    sphere = np.eye(len(scatter)) * np.trace(scatter) / len(scatter)
    size, axes = np.linalg.eigh((1 - WITHIN) * scatter + WITHIN * sphere)
    whiten = axes / np.sqrt(size)
    between = (means * np.sqrt(count / len(within))[:, None]) @ whiten
    subjects = whiten @ np.linalg.svd(between, full_matrices=False)[2][:SUBJECTS].T
    subjects /= np.sqrt(((off @ subjects) ** 2).sum(1).mean())
    basis = np.linalg.svd(off, full_matrices=False)[2][:BASIS].T
    return Shape(middle, spread, centre, subjects, basis)


@dataclass
class Plain:
    """Everyday requests: that a stronger model gains nothing there is our assumption, no label."""

    vectors: np.ndarray
    seen: np.ndarray


def plain(folder: Path, cache: Path | None) -> Plain:
    """Return PLAIN messages of CLINC150, drawn by lot."""
    texts = [row["text"] for row in read_jsonl(folder / "intents-dev.jsonl")]
    vectors = embed(texts, cache)
    drawn = np.random.default_rng(0).permutation(len(texts))[:PLAIN]
    return Plain(vectors[drawn], np.array([features(texts[at]) for at in drawn]))


def evidence(rows, told, part, count) -> tuple[np.ndarray, np.ndarray]:
    """Return (precision, mean) of the weights.

    The variance of the weights of each part of the row, and that of the noise, are those that make
    the labels most likely (evidence maximisation, MacKay 1992); nothing is tuned on held-out data.
    """
    alpha = np.full(part.max() + 1, 50.0)
    alpha[0], beta = 1.0, 1.0 / max(told.var(), 0.01)
    square, cross, total = rows.T @ rows, rows.T @ told, told @ told
    for _ in range(ROUNDS):
        precision = beta * square + np.diag(alpha[part])
        covariance = np.linalg.inv(precision)
        mean = beta * covariance @ cross
        settled = 1.0 - alpha[part] * np.diag(covariance)
        for group in range(1, len(alpha)):
            of = part == group
            if of.any():
                found = max(settled[of].sum(), 1e-6) / max((mean[of] ** 2).sum(), 1e-12)
                alpha[group] = min(max(found, 1e-3), 1e6)
        beta = (count - settled.sum()) / (total - 2 * mean @ cross + mean @ square @ mean)
    return beta * square + np.diag(alpha[part]), mean


def fit(
    shape: Shape,
    vectors: np.ndarray | None,
    seen: np.ndarray,
    gain: np.ndarray,
    calm: Plain,
    weak: np.ndarray | None = None,
) -> Gain:
    """Return the belief that these labels give; ``calm`` keeps it sane on everyday messages.

    Exam questions alone say that a short message has a gain of -.5: no such message is in them.
    ``weak``: where the weaker model was right, for ``Gain.usual``.
    """
    here, there = (None, None) if vectors is None else (vectors, calm.vectors)
    rows = np.concatenate([shape.rows(here, seen), PLAIN_COUNTS * shape.rows(there, calm.seen)])
    count = len(seen) + PLAIN_COUNTS**2 * len(calm.seen)
    part = np.repeat(np.arange(len(shape.groups)), shape.groups) + 1
    part[0] = 0  # the mean of all: no prior to speak of
    calmly = np.zeros(len(calm.seen))
    precision, mean = evidence(rows, np.concatenate([gain, calmly]), part, count)
    usual = np.zeros(len(mean))
    if weak is not None:
        told = np.concatenate([weak, calmly + PLAIN_COUNTS * PLAIN_RIGHT])
        _, usual = evidence(rows, told, part, count)
    return Gain("fit", shape, precision, precision @ mean, usual)


def for_a_person(public: Gain) -> Gain:
    """Return the belief about one person: the public weights, and how far theirs may lie off."""
    looks = public.shape.groups[0]
    away = np.full(len(public.shift), PERSON["vector"])
    away[: 3 * looks] = PERSON["looks"]
    away[[0, looks, 2 * looks]] = PERSON["bias"]
    precision = np.linalg.inv(np.linalg.inv(public.precision) + np.diag(away**2))
    return replace(public, precision=precision, shift=precision @ public.weights)


def cross_validated(data: Labels, calm: Plain, with_vectors: bool, folds: int = 5) -> np.ndarray:
    """Return (n,) predictions of prompts that were not in the fit; whole fits, shape and all."""
    order = np.random.default_rng(0).permutation(len(data.gain))
    out = np.zeros(len(order))
    for fold in range(folds):
        held, kept = order[fold::folds], np.setdiff1d(order, order[fold::folds])
        shape = make_shape(data, kept, with_vectors)
        vectors = data.vectors if with_vectors else None
        of = fit(shape, None if vectors is None else vectors[kept], data.seen[kept],
                 data.gain[kept], calm)  # fmt: skip
        out[held] = of.means(None if vectors is None else vectors[held], data.seen[held])
    return out


def tempered(public: Gain, data: Labels, predicted: np.ndarray) -> tuple[Gain, float]:
    """Return the belief with its weights drawn in by the held-out slope of gain on prediction."""
    slope = float(np.polyfit(predicted, data.gain, 1)[0])
    used = min(1.0, max(0.5, slope))
    weights = public.weights * used
    weights[0] += (1 - used) * data.gain.mean()
    return replace(public, shift=public.precision @ weights), slope


def ship(gain: Gain, blind: float, name: str) -> bytes:
    """Return the file of a prior; its name says what is in it."""
    lower = gain.precision[np.tril_indices(len(gain.shift))].astype(np.float32)
    shape = gain.shape
    part = {
        "mean": gain.weights.astype(np.float32),
        "precision": lower,
        "weak": gain.weak.astype(np.float32),
        "middle": shape.middle.astype(np.float32),
        "spread": shape.spread.astype(np.float32),
        "centre": shape.centre.astype(np.float16),
        "subjects": shape.subjects.astype(np.float16),
        "basis": shape.basis.astype(np.float16),
        "blind": np.float32(blind),
    }
    digest = hashlib.sha256()
    for each in part.values():
        digest.update(np.ascontiguousarray(each).tobytes())
    return packed({"name": np.array(f"{name}@{digest.hexdigest()[:12]}"), **part})


def packed(part: dict) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **part)
    return out.getvalue()


def gain_priors(data: Labels, calm: Plain) -> tuple[dict[str, bytes], dict]:
    every = np.arange(len(data.gain))
    files, figures = {}, {}
    for name, with_vectors in (("minilm", True), ("looks", False)):
        predicted = cross_validated(data, calm, with_vectors)
        vectors = data.vectors if with_vectors else None
        public = fit(make_shape(data, every, with_vectors), vectors, data.seen, data.gain, calm,
                     data.weak)  # fmt: skip
        public, slope = tempered(public, data, predicted)
        blind = 0.0
        if with_vectors:
            blind = float(np.var(public.means(vectors, data.seen) - public.means(None, data.seen)))
        person = for_a_person(public)
        files[f"gain-{name}.npz"] = ship(person, blind, name)
        figures[name] = {
            "labels": len(every),
            "weights": len(public.shift),
            "held_out_slope": round(slope, 3),
            "noise_sd": round(float(np.std(data.gain - predicted)), 3),
            "held_out_correlation": round(float(np.corrcoef(predicted, data.gain)[0, 1]), 3),
        }
    return files, figures


# --- personal or complex -------------------------------------------------------------------------


@dataclass
class Said:
    """Messages, whether each is personal, what group it is of, how much it counts, its vector."""

    texts: list[str]
    personal: np.ndarray
    group: np.ndarray
    weight: np.ndarray
    vectors: np.ndarray
    signs: np.ndarray

    def only(self, keep: np.ndarray) -> "Said":
        return Said(
            [self.texts[i] for i in np.flatnonzero(keep)], self.personal[keep], self.group[keep],
            self.weight[keep], self.vectors[keep], self.signs[keep],
        )  # fmt: skip


def reviewed(path: Path) -> tuple[dict[str, bool], dict]:
    """Return (intent -> is it personal, our own sentences) from bench/intents.json."""
    told = json.loads(path.read_text("utf-8"))
    kinds = {
        intent: kind == "PERSONAL"
        for kind in ("PERSONAL", "COMPLEX")
        for group in told[kind]
        for intent in group["intents"]
    }
    return kinds, told["own"]


def said(folder: Path, intents: Path, cache: Path | None, held_out: set[str]) -> Said:
    """Return what the classifier is fitted on; no text of ``held_out`` (spaces apart) is in it."""
    kinds, own = reviewed(intents)
    rows = [
        (row["text"], kinds[row["intent"]], row["intent"], 1.0)
        for row in read_jsonl(folder / "intents-dev.jsonl")
        if row["intent"] in kinds
    ]
    rows += [
        (text, kind == "PERSONAL", f"own {kind} {language}", OWN)
        for kind, languages in own.items()
        for language, texts in languages.items()
        for text in texts
    ]
    prompts = read_jsonl(folder / "labels-dev.jsonl")
    for at in np.random.default_rng(0).permutation(len(prompts))[:EXAMS]:
        prompt = prompts[at]["prompt"]
        if " ".join(prompt.split()) not in held_out:
            rows.append((prompt, False, prompts[at]["task"], 1.0))
    texts = [row[0] for row in rows]
    return Said(
        texts,
        np.array([row[1] for row in rows], float),
        np.array([row[2] for row in rows]),
        np.array([row[3] for row in rows]),
        embed(texts, cache),
        np.array([signs(text) for text in texts]),
    )


def logistic(
    rows: np.ndarray, y: np.ndarray, weight: np.ndarray, penalty: np.ndarray
) -> np.ndarray:
    """Return the weights of a logistic regression with a Gaussian prior, by Newton's method."""
    w = np.zeros(rows.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-rows @ w))
        slope = rows.T @ (weight * (p - y)) + penalty * w
        curve = (rows * (weight * p * (1 - p))[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    return w


def intent_rows(data: Said, like: Said, with_vectors: bool) -> tuple[np.ndarray, ...]:
    middle, spread = like.signs.mean(0), np.maximum(like.signs.std(0), 0.05)
    centre = like.vectors.astype(float).mean(0)
    seen = np.clip((data.signs - middle) / spread, -3, 3)
    parts = [np.ones((len(seen), 1)), seen]
    if with_vectors:
        parts.append(data.vectors - centre)
    return np.concatenate(parts, 1), middle, spread, centre


def intent_fit(data: Said, with_vectors: bool, strength: tuple[float, float]) -> np.ndarray:
    """Return weights: both classes count the same in all."""
    rows, *_ = intent_rows(data, data, with_vectors)
    weight = data.weight.copy()
    for kind in (0.0, 1.0):
        weight[data.personal == kind] *= len(weight) / 2 / weight[data.personal == kind].sum()
    penalty = np.full(rows.shape[1], strength[0])
    penalty[0], penalty[1 + len(SIGNS) :] = 1e-3, strength[1]
    return logistic(rows, data.personal, weight, penalty)


def by_groups(data: Said, with_vectors: bool, strength: tuple[float, float]) -> np.ndarray:
    """Return (n,) log-odds of messages whose whole group (intent, subject) was held out."""
    names = np.unique(data.group)
    fold = dict(zip(names, np.random.default_rng(1).permutation(len(names)) % 8, strict=True))
    of = np.array([fold[name] for name in data.group])
    odds = np.zeros(len(of))
    for number in range(8):
        kept = data.only(of != number)
        w = intent_fit(kept, with_vectors, strength)
        rows, *_ = intent_rows(data.only(of == number), kept, with_vectors)
        odds[of == number] = rows @ w
    return odds


def log_loss(odds: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    return float(np.average(np.logaddexp(0, -odds * (2 * y - 1)), weights=weight))


def intent_models(data: Said) -> tuple[bytes, dict]:
    """Return the file and its figures. Strength of the prior and calibration: by held-out groups.

    The calibration is Platt's (1999): one slope and one offset on the log-odds.
    """
    part, figures = {}, {}
    for name, with_vectors in (("", True), ("_alone", False)):
        grid = [(s, v) for s in (3.0, 30.0) for v in ((1.0, 3.0, 10.0) if with_vectors else (1.0,))]
        found = []
        for strength in grid:
            odds = by_groups(data, with_vectors, strength)
            platt = logistic(
                np.stack([np.ones(len(odds)), odds], 1), data.personal, data.weight,
                np.full(2, 1e-6),
            )  # fmt: skip
            loss = log_loss(platt[0] + platt[1] * odds, data.personal, data.weight)
            found.append((loss, strength, platt, odds))
        loss, strength, platt, odds = min(found, key=lambda each: each[0])
        w = intent_fit(data, with_vectors, strength) * platt[1]
        _, middle, spread, centre = intent_rows(data, data, with_vectors)
        part[f"bias{name}"] = np.float32(w[0] + platt[0])
        part[f"words{name}"] = w[1 : 1 + len(SIGNS)].astype(np.float32)
        if with_vectors:
            part["vector"] = w[1 + len(SIGNS) :].astype(np.float32)
            part["centre"], part["middle"], part["spread"] = (
                each.astype(np.float32) for each in (centre, middle, spread)
            )
        right = (odds * platt[1] + platt[0] > 0) == (data.personal > 0)
        figures["with_vector" if with_vectors else "words_alone"] = {
            "held_out_intents_accuracy": round(float(np.average(right, weights=data.weight)), 3),
            "held_out_intents_log_loss": round(loss, 3),
            "slope": round(float(platt[1]), 2),
            "penalty": strength,
        }
    return packed(part), {"messages": len(data.texts), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--shared", type=Path, default=Path(os.environ.get("KNOWME_SHARED", "../shared"))
    )
    parser.add_argument("--cache", type=Path, default=None)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here.parent / "knowme" / "data")
    options = parser.parse_args()
    folder = options.shared / "data" / "routing"
    files, figures = gain_priors(
        labels(folder / "labels-dev.jsonl", options.cache), plain(folder, options.cache)
    )
    held = {
        " ".join(row["text"].split())
        for row in read_jsonl(folder / "personal-or-complex-dev.jsonl")
    }
    data = said(folder, here / "intents.json", options.cache, held)
    files["intents.npz"], figures["intents"] = intent_models(data)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (options.out / name).write_bytes(raw)
        figures.setdefault("bytes", {})[name] = len(raw)
    print(json.dumps({"bench": "fit_priors", "features": len(FEATURES), **figures}))


if __name__ == "__main__":
    main()
