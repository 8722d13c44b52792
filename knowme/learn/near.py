"""Near-duplicates: texts that share most of their words in the same order.

MinHash over runs of three words (Broder, *On the resemblance and containment of documents*, 1997)
finds the candidates, in bands (Leskovec, Rajaraman, Ullman, *Mining of Massive Datasets*, 3.4);
the exact Jaccard similarity decides. In numpy: a data set must be made where nothing of the extra
[train] is installed, and the library of this trade brings scipy along.

Promises: the clusters depend on the texts alone, not on their order or the process; two texts in
one cluster are joined by a chain of pairs that are at least ``threshold`` alike; a pair that is so
is missed with a probability below MISSED.
Refuses to know: what the texts are for, which side of a split they are on (``split.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowme.types import Pair
from knowme.words import NO_SPACES, WORD

Hashes = NDArray[np.uint64]

SHINGLE_WORDS = 3
HASHES = 128
"""Minima that stand for a text. Their agreement estimates the similarity to about .04 at .8."""
MISSED = 1e-4
"""The probability with which a pair at the threshold may fall into no common band."""
_AT_ONCE = 4096
"""Shingles that are permuted in one go: 4 MB, however long a text is."""


def words(text: str) -> list[str]:
    """Return the words of a text as they are compared: case and kind of apostrophe gone.

    Signs of scripts that are written without spaces count as a word each.
    """
    found: list[str] = []
    for word in WORD.findall(text):
        plain = word.replace("’", "'").casefold()
        if NO_SPACES.search(plain):
            found.extend(plain)
        else:
            found.append(plain)
    return found


def grams(said: Sequence[str], size: int) -> Hashes:
    """Return (len(said) - size + 1,) uint64: a hash of each run of so many words, in order.

    Fewer words than ``size`` are one run; no words, none.
    """
    if not said:
        return np.zeros(0, np.uint64)
    each = np.fromiter((_hash(word) for word in said), np.uint64, len(said))
    size = min(size, len(said))
    mixed = np.zeros(len(said) - size + 1, np.uint64)
    for at in range(size):
        mixed = _mix(mixed + each[at : len(said) - size + 1 + at])
    return mixed


@lru_cache(100_000)
def _hash(word: str) -> int:
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mix(values: Hashes) -> Hashes:
    """Return each number well mixed (the finaliser of SplitMix64; Steele, Lea, Flood 2014)."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def shingles(text: str) -> Hashes:
    """Return the distinct hashes of a text's runs of three words, sorted.

    A text without a word ("?!") is one shingle, itself; white space is none.
    """
    said = words(text)
    if not said:
        bare = text.strip()
        return np.array([_hash(f"\0{bare}")] if bare else [], np.uint64)
    return np.unique(grams(said, SHINGLE_WORDS))


def jaccard(one: Hashes, other: Hashes) -> float:
    """Return the share of shingles that two sorted sets have in common; 1 for two empty ones."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both) if both or len(one) or len(other) else 1.0


@cache
def _permutations() -> tuple[Hashes, Hashes]:
    drawn: NDArray[Any] = np.random.default_rng(1997).integers(
        0, 2**64, (2, HASHES), dtype=np.uint64
    )
    return drawn[0] | np.uint64(1), drawn[1]


def signature(found: Hashes) -> Hashes:
    """Return (HASHES,) uint64: the least of a set's shingles under each of HASHES permutations."""
    factors, shifts = _permutations()
    least = np.full(HASHES, np.iinfo(np.uint64).max, np.uint64)
    for at in range(0, len(found), _AT_ONCE):
        some = found[at : at + _AT_ONCE]
        # A product of odd numbers alone leaves the low bits as they were: mixed, they count too.
        least = np.minimum(least, _mix(some[:, None] * factors + shifts).min(axis=0))
    return least


def rows_of_a_band(threshold: float) -> int:
    """Return the most rows of a band with which a pair at the threshold is as good as found.

    It is missed by all b = HASHES // r bands with probability (1 - threshold^r)^b.
    """
    fits = [
        rows for rows in range(1, HASHES + 1) if (1 - threshold**rows) ** (HASHES // rows) <= MISSED
    ]
    return max(fits, default=1)


def clusters(texts: Sequence[str], threshold: float = 0.8) -> list[int]:
    """Return for each text the place of the first text of its cluster (its own where alone).

    Clusters are what is joined by pairs whose Jaccard similarity is at least ``threshold``, in
    (0, 1]. Raises ValueError for another threshold.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold is in (0, 1], not {threshold}")
    sets = [shingles(text) for text in texts]
    joined = _Joined(len(texts))
    alike: dict[bytes, int] = {}
    for at, found in enumerate(sets):  # the commonest duplicates are exact: no need to compare
        joined.join(alike.setdefault(found.tobytes(), at), at)
    first = sorted(alike.values())
    for one, other in _candidates([(at, sets[at]) for at in first if len(sets[at])], threshold):
        if joined.root(one) != joined.root(other) and _is_near(sets[one], sets[other], threshold):
            joined.join(one, other)
    return [joined.root(at) for at in range(len(texts))]


def _is_near(one: Hashes, other: Hashes, threshold: float) -> bool:
    small, large = sorted((len(one), len(other)))
    return small >= threshold * large and jaccard(one, other) >= threshold


def _candidates(sets: Sequence[tuple[int, Hashes]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield pairs that agree in a whole band, perhaps more than once."""
    if len(sets) < 2:
        return
    signatures = np.stack([signature(found) for _, found in sets])
    rows = rows_of_a_band(threshold)
    for start in range(0, HASHES - rows + 1, rows):
        buckets = defaultdict(list)
        for (at, _), minima in zip(sets, signatures[:, start : start + rows], strict=True):
            buckets[minima.tobytes()].append(at)
        for bucket in buckets.values():
            yield from combinations(bucket, 2)


class _Joined:
    """Disjoint sets; the root is the least of a set."""

    def __init__(self, many: int) -> None:
        self._over = list(range(many))

    def root(self, at: int) -> int:
        while self._over[at] != at:
            self._over[at] = self._over[self._over[at]]
            at = self._over[at]
        return at

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._over[high] = low


# --- pairs --------------------------------------------------------------------------------------


def told(pair: Pair) -> str:
    """Return what of a pair is compared: the question and its answer."""
    return f"{pair.question}\n{pair.answer}"


def unique(pairs: Iterable[Pair], threshold: float = 0.8) -> tuple[list[Pair], list[Pair]]:
    """Return (kept, dropped): of each cluster the best rated stays, then the newest.

    Both in the order in which they came. An answer with its reasoning and the same answer without
    it are two examples, not one; an unrated answer stands between a liked and a disliked one.
    """
    every = list(pairs)
    kept: set[int] = set()
    for thinks in (False, True):
        places = [at for at, pair in enumerate(every) if ("think" in pair.labels) is thinks]
        roots = clusters([told(every[at]) for at in places], threshold)
        best: dict[int, int] = {}
        for at, root in zip(places, roots, strict=True):
            if root not in best or _worth(every[at]) > _worth(every[best[root]]):
                best[root] = at
        kept |= set(best.values())
    return (
        [pair for at, pair in enumerate(every) if at in kept],
        [pair for at, pair in enumerate(every) if at not in kept],
    )


def _worth(pair: Pair) -> tuple[int, bool, int, str]:
    """Return what a pair is preferred by. A worse answer kept beside it is worth something."""
    rating = 3 if pair.rating is None else pair.rating
    return rating, bool(pair.rejected), -1 if pair.at_ms is None else pair.at_ms, pair.uid
