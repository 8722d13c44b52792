"""Vector indexes: nearest neighbours over item ids, behind ``seams.VectorIndex``.

Promises: every backend takes its rows through ``rows`` and its question through ``direction``, so
that all of them agree on what a vector is.
Refuses to know: items, memory.db, embedders. An index is derived and may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from knowme.errors import InputError
from knowme.seams import Vectors

Ids = NDArray[np.int64]


def rows(ids: Sequence[int], vectors: Vectors, dims: int) -> tuple[Ids, Vectors, Ids]:
    """Check one batch and bring it into order.

    Returns (ids, unit vectors (n, dims) float32, ids to forget), each id once: where a batch names
    an id twice the later row counts. A zero vector (an empty text) is near to nothing: it is
    forgotten instead of kept. Raises InputError for a wrong shape or a number that is not finite.
    """
    keys = np.asarray(ids, dtype=np.int64).reshape(-1)
    found = np.asarray(vectors, dtype=np.float32)
    if found.shape != (len(keys), dims):
        raise InputError(
            f"The index holds vectors of {dims} numbers; it got an array of shape {found.shape} "
            f"for {len(keys)} ids.",
            "Run: knowme reindex",
        )
    norms = np.sqrt(np.einsum("ij,ij->i", found, found))
    if not np.isfinite(norms).all():
        bad = int(keys[~np.isfinite(norms)][0])
        raise InputError(f"The vector of item {bad} holds a number that is not finite.")
    _, last = np.unique(keys[::-1], return_index=True)
    keep = len(keys) - 1 - last  # sorted by id
    keys, found, norms = keys[keep], found[keep], norms[keep]
    empty = norms < 1e-6
    return (
        keys[~empty],
        np.ascontiguousarray(found[~empty] / norms[~empty, None], dtype=np.float32),
        keys[empty],
    )


def distinct(ids: Sequence[int] | Ids) -> Ids:
    """Return the ids sorted, each once.

    numpy 2.4's own ``unique`` hashes, which takes twenty times as long.
    """
    keys: Ids = np.asarray(ids, dtype=np.int64).reshape(-1)
    if bool((keys[1:] > keys[:-1]).all()):
        return keys
    keys = np.sort(keys)
    fresh: NDArray[np.bool_] = np.concatenate([[True], keys[1:] > keys[:-1]])
    return keys[fresh]


def direction(vector: Vectors, dims: int) -> Vectors | None:
    """Return the question as a unit vector (dims,), or None when it points nowhere.

    Raises InputError for a wrong shape.
    """
    found = np.asarray(vector, dtype=np.float32).reshape(-1)
    if found.shape != (dims,):
        raise InputError(
            f"The index holds vectors of {dims} numbers; the question has {found.size}.",
            "Run: knowme reindex",
        )
    norm = float(np.linalg.norm(found))
    return found / np.float32(norm) if np.isfinite(norm) and norm > 1e-6 else None


def best(ids: Ids, scores: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
    """Return the k best (id, score) pairs, best first; equal scores in the order of their ids."""
    if len(ids) > k:
        top = np.argpartition(-scores, k - 1)[:k]
        ids, scores = ids[top], scores[top]
    order = np.lexsort((ids, -scores))
    return [(int(ids[i]), float(scores[i])) for i in order]
