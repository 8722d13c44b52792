"""fuse(): one score from words, vectors, dates and what was said around, for a table of candidates.

Promises: pure; monotone: a candidate whose words, vector or date match better never scores lower,
and never lowers another.
Refuses to know: where candidates come from, what they say.

The lexical score is bm25 divided by what the query could have scored, so that words are loud only
when they have something to say (equal-weight rank fusion loses to either side, see LOG.md). The
cosine counts as an excess over the average item. A turn also stands for what is said near it: the
best turn beside it, and the best within REACH, damped by the words between.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    the words that stand between.
    """

    ids: Rows
    bm25: Floats
    cosine: Floats
    dated: Floats
    answers: NDArray[np.bool_]
    around: Rows
    between: Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """The constants of the score, measured on four public sets (LOG.md)."""

    lexical: float = 0.4
    near: float = 0.5  # the better of the two turns beside
    far: float = 0.5  # the best turn up to ``reach`` away, damped by the words between
    reach: int = 4
    fade_words: float = 100.0
    date: float = 0.1
    answer_penalty: float = 0.08


@dataclass(frozen=True, slots=True)
class Scores:
    """What each candidate scored, and of what: all (n,)."""

    total: Floats
    lexical: Floats
    semantic: Floats
    dated: Floats
    beside: Floats


def fuse(
    table: Candidates, weights: Weights, mean_cosine: float = 0.0, vectors: bool = True
) -> Scores:
    """Score every candidate.

    ``mean_cosine`` is the query's cosine to the average item. Without ``vectors`` the words alone
    count, in full.
    """
    lexical = table.bm25 * (weights.lexical if vectors else 1.0)
    semantic = np.zeros_like(lexical)
    if vectors:
        excess = np.nan_to_num(table.cosine, nan=mean_cosine) - np.float32(mean_cosine)
        semantic = (1 - weights.lexical) * excess
    dated = weights.date * table.dated
    own = lexical + semantic + dated
    beside = _around(table, weights, own)
    total = own + beside - weights.answer_penalty * table.answers
    return Scores(total, lexical, semantic, dated, beside)


def _around(table: Candidates, weights: Weights, own: Floats) -> Floats:
    """Return what the turns around each candidate add: never less than nothing."""
    padded = np.append(own, np.float32(0.0))  # row -1: nobody stands there
    lent = np.maximum(padded[table.around], 0.0) * np.exp(-table.between / weights.fade_words)
    beside = np.arange(len(lent)) % weights.reach == 0
    near, far = lent[beside].max(axis=0), lent[~beside].max(axis=0)
    return np.asarray(weights.near * near + weights.far * far, np.float32)
