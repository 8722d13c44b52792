"""fuse(): one score from words, vectors, dates and what was said around, for a table of candidates.

Promises: pure; monotone: a candidate whose words, vector or date match better never scores lower,
and never lowers another.
Refuses to know: where candidates come from, what they say.

The lexical score is bm25 divided by what the query could have scored, so that words are loud only
when they have something to say (equal-weight rank fusion loses to either side, see LOG.md). The
cosine counts as an excess over the average item. A turn may have further keys, facts that were
read from it: it scores what the best of its words and keys does, never the sum. A turn also stands
for what is said near it: the best turn beside it, and the best within REACH, damped by the words
between.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(slots=True)
class Candidates:
    """The candidates of one query, one row each; all arrays have the same length n.

    ``bm25`` is divided by what the query could have scored; ``cosine`` is NaN where there is no
    vector; ``dated`` in [0, 1] says how near its day is to those that the query names; ``answers``
    marks what an assistant said. ``around`` (2 * reach, n) are the rows of the items before (1 to
    reach steps away) and after, -1 where one is not a candidate; ``between`` (2 * reach, n) counts
    the words that stand between. ``keys`` (m,) are the rows that m facts lead to, with a bm25 and a
    cosine of their own.
    """

    ids: Rows
    bm25: Floats
    cosine: Floats
    dated: Floats
    answers: NDArray[np.bool_]
    around: Rows
    between: Floats
    keys: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    key_bm25: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    key_cosine: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Weights:
    """The constants of the score, measured on four public sets (LOG.md)."""

    lexical: float = 0.4
    near: float = 0.5  # the better of the two turns beside
    far: float = 0.5  # the best turn up to ``reach`` away, damped by the words between
    reach: int = 4
    fade_words: float = 100.0
    date: float = 0.1
    key: float = 0.9  # what a fact scores, beside the same score of the words themselves
    answer_penalty: float = 0.08


@dataclass(frozen=True, slots=True)
class Scores:
    """What each candidate scored, and of what: all (n,).

    ``key`` is the place in ``Candidates.keys`` of the fact that outdid the candidate's own words,
    -1 where none did.
    """

    total: Floats
    lexical: Floats
    semantic: Floats
    dated: Floats
    beside: Floats
    key: Rows


def fuse(
    table: Candidates,
    weights: Weights,
    mean_cosine: float = 0.0,
    vectors: bool = True,
    mean_key_cosine: float = 0.0,
) -> Scores:
    """Score every candidate.

    ``mean_cosine`` is the query's cosine to the average item, ``mean_key_cosine`` that to the
    average fact: short sentences are nearer to everything. Without ``vectors`` the words alone
    count, in full.
    """
    lexical = table.bm25 * (weights.lexical if vectors else 1.0)
    semantic = np.zeros_like(lexical)
    if vectors:
        excess = np.nan_to_num(table.cosine, nan=mean_cosine) - np.float32(mean_cosine)
        semantic = (1 - weights.lexical) * excess
    dated = weights.date * table.dated
    own, key = _with_keys(table, weights, lexical + semantic + dated, mean_key_cosine, vectors)
    beside = _around(table, weights, own)
    total = own + beside - weights.answer_penalty * table.answers
    return Scores(total, lexical, semantic, dated, beside, key)


def _with_keys(
    table: Candidates, weights: Weights, own: Floats, mean_cosine: float, vectors: bool
) -> tuple[Floats, Rows]:
    """Return (the better of each candidate's own score and its best fact's, which fact that is)."""
    best = np.full(own.size, -1, np.int64)
    if not table.keys.size:
        return own, best
    score = table.key_bm25 * (weights.lexical if vectors else 1.0)
    if vectors:
        excess = np.nan_to_num(table.key_cosine, nan=mean_cosine) - np.float32(mean_cosine)
        score = score + (1 - weights.lexical) * excess
    score = weights.key * (score + weights.date * table.dated[table.keys])
    order = np.argsort(score, kind="stable")
    best[table.keys[order]] = order  # the last one written is the best
    with_key = np.where(best >= 0, score[best], -np.inf)
    outdone = with_key > own
    return np.where(outdone, with_key, own).astype(np.float32), np.where(outdone, best, -1)


def _around(table: Candidates, weights: Weights, own: Floats) -> Floats:
    """Return what the turns around each candidate add: never less than nothing."""
    padded = np.append(own, np.float32(0.0))  # row -1: nobody stands there
    lent = np.maximum(padded[table.around], 0.0) * np.exp(-table.between / weights.fade_words)
    beside = np.arange(len(lent)) % weights.reach == 0
    near, far = lent[beside].max(axis=0), lent[~beside].max(axis=0)
    return np.asarray(weights.near * near + weights.far * far, np.float32)
