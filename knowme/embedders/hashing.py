"""Vectors without a model: hashed words and parts of words, signed, in a fixed number of places.

Promises: numpy alone; the same text gives the same vector on every machine, in every process and
version (crc32, not Python's hash); related word forms and typing errors stay near.
Refuses to know: meaning. Texts are near when they share words; for tests and very small machines.

Weinberger et al. 2009, Feature Hashing for Large Scale Multitask Learning: each feature falls into
one place with a sign, both from its hash, so that collisions cancel on average. Word counts are
damped (1 + log). Parts of words are the 3- to 5-grams of ``<word>`` (Bojanowski et al. 2017).
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowme.embedders.known import normalised
from knowme.errors import ConfigError
from knowme.seams import Vectors
from knowme.types import EmbedKind

VERSION = 1
"""Part of the fingerprint: another way of hashing is another space."""
DIMS = 256
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f])")


def _features(word: str) -> Iterator[tuple[str, float]]:
    """Yield the features of one word with their weights: measured on conversations, see LOG.md."""
    weight = 0.4 if len(word) < 4 else 1.0
    yield f"w{word}", weight
    padded = f"<{word}>"
    parts = [
        padded[at : at + size]
        for size in (3, 4, 5)
        for at in range(len(padded) - size + 1)
        if size < len(padded)
    ]
    for part in parts:
        yield f"c{part}", 1.2 * weight / math.sqrt(len(parts))


@lru_cache(maxsize=65_536)
def _places(word: str, dims: int) -> tuple[NDArray[np.int64], Vectors]:
    """Return where the features of a word fall, and with what signed weight."""
    features = list(_features(word))
    hashes = [
        zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 & (1 << 64) - 1 for name, _ in features
    ]
    at = np.array([(found >> 33) % dims for found in hashes], dtype=np.int64)
    signs = [1.0 if found >> 32 & 1 else -1.0 for found in hashes]
    weights = [sign * weight for sign, (_, weight) in zip(signs, features, strict=True)]
    return at, np.array(weights, np.float32)


class HashingEmbedder:
    """Feature hashing. Thread-safe; nothing to load, nothing to free."""

    def __init__(self, *, dims: int = 0, **_: Any) -> None:
        self.dims = dims or DIMS
        if self.dims < 16:
            raise ConfigError(
                f"embedder.dims is {dims}; hashing needs 16 at least.",
                "Run: knowme config set embedder.dims 256",
            )
        self.fingerprint = f"hashing:words@{VERSION}:{self.dims}:none"

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """Return (len(texts), dims) float32 rows of unit norm, a zero row for a text of no words.

        Queries and documents are treated alike. Never fails.
        """
        out = np.zeros((len(texts), self.dims), np.float32)
        for row, text in zip(out, texts, strict=True):
            plain = unicodedata.normalize("NFKC", text).casefold()
            counts = Counter(_WORD.findall(_UNSPACED.sub(r" \1 ", plain)))
            for word, count in counts.items():
                at, weights = _places(word[:64], self.dims)
                np.add.at(row, at, weights * (1 + math.log(count)))
        return normalised(out)

    def close(self) -> None:
        """Nothing to free."""
