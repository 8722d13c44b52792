"""How far one set of texts is from another in style: function words and character n-grams.

    distance = sqrt(Delta * N)

Delta is Burrows' (J. Burrows, "'Delta': a measure of stylistic difference", LLC 17, 2002): the mean
absolute difference of z-scores, here of the most frequent function words of five languages, whose
spread is taken over segments of about 100 words. N is the cosine distance of relative frequencies
of the most frequent character trigrams (E. Stamatatos, "A survey of modern authorship attribution
methods", JASIST 60, 2009): spelling, punctuation, endings. The geometric mean lets a fall by a
tenth in either count the same, whatever their units. A distance says little alone: read it beside
the author's own halves (self) and another author (other), see ``scale``.

Promises: pure; a distance is 0 for equal sets, symmetric, and does not depend on the texts' order.
Few words are noisy: under a few hundred words on a side even one author is far from himself.
Refuses to know: models, whose texts they are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knowme.words import STOP_WORDS, words

Array = NDArray[np.float64]

FUNCTION_WORDS = 100
TRIGRAMS = 400
SEGMENT_WORDS = 100
_LEAST_SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class Scale:
    """What distances mean for one author: ``own`` (halves of their texts), ``other`` (somebody)."""

    own: float
    other: float

    def place(self, distance: float) -> float:
        """Return where a distance lies: 0 as near as the author's own halves, 1 as the other."""
        wide = self.other - self.own
        return (distance - self.own) / wide if wide > 0 else 0.0


class Ruler:
    """What is counted, chosen once from all the texts that are to be compared.

    Fit it on both sides (and on before and after), so that no side chooses the features.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        spoken = [words(text) for text in texts]
        often = Counter(word for said in spoken for word in said if word in STOP_WORDS)
        self._words = _places(often, FUNCTION_WORDS)
        grams = Counter(gram for text in texts for gram in _trigrams(text))
        self._grams = _places(grams, TRIGRAMS)
        self._spread = self._spreads(spoken)

    def _spreads(self, spoken: Sequence[Sequence[str]]) -> Array:
        """Return the standard deviation of each function word's share, over segments."""
        every = [word for said in spoken for word in said]
        many = max(1, round(len(every) / SEGMENT_WORDS))
        shares = []
        for at in range(many):
            part = every[at * len(every) // many : (at + 1) * len(every) // many]
            shares.append(self._word_counts(part) / max(1, len(part)))
        # What a word's share would vary by chance alone: the least that a spread can be.
        whole = self._word_counts(every) / max(1, len(every))
        chance = np.sqrt(np.maximum(whole, 1e-6) / SEGMENT_WORDS)
        if many < _LEAST_SEGMENTS:
            return chance
        seen: Array = np.std(np.stack(shares), axis=0, ddof=1)
        return np.maximum(seen, chance)

    def _word_counts(self, said: Sequence[str]) -> Array:
        made = np.zeros(len(self._words))
        for word in said:
            at = self._words.get(word)
            if at is not None:
                made[at] += 1
        return made

    def counts(self, texts: Sequence[str]) -> Array:
        """Return an array (len(texts), features): counts, then the words and trigrams in all."""
        made = np.zeros((len(texts), len(self._words) + len(self._grams) + 2))
        for row, text in zip(made, texts, strict=True):
            said, grams = words(text), _trigrams(text)
            row[: len(self._words)] = self._word_counts(said)
            for gram in grams:
                at = self._grams.get(gram)
                if at is not None:
                    row[len(self._words) + at] += 1
            row[-2:] = len(said), len(grams)
        return made

    def between(self, a: Array, b: Array) -> float:
        """Return the distance of two rows of summed counts (features,); nothing is far: 2."""
        if not (a[-2] and b[-2] and a[-1] and b[-1]):
            return 0.0 if a[-2] == b[-2] and a[-1] == b[-1] else 2.0
        cut = len(self._words)
        delta = 0.0
        if cut:
            shares = np.abs(a[:cut] / a[-2] - b[:cut] / b[-2])
            delta = float(np.mean(shares / self._spread))
        left, right = a[cut:-2] / a[-1], b[cut:-2] / b[-1]
        long = float(np.linalg.norm(left) * np.linalg.norm(right))
        cosine = 1.0 - float(left @ right) / long if long else 1.0
        return float(np.sqrt(max(0.0, delta) * max(0.0, cosine)))

    def distance(self, texts_a: Sequence[str], texts_b: Sequence[str]) -> float:
        """Return how far two sets of texts are apart, 0 and up."""
        return self.between(self.counts(texts_a).sum(axis=0), self.counts(texts_b).sum(axis=0))

    def pseudo(self, texts: Sequence[str], reference: Sequence[str]) -> list[float]:
        """Return what each text adds to the distance of the set from ``reference``.

        Tukey's jackknife pseudo-values, n D - (n-1) D without it: their mean is the distance (with
        its bias taken off), and they can be compared pair by pair as if each text had a distance of
        its own. Single texts are too short to have one.
        """
        each = self.counts(texts)
        whole, far = each.sum(axis=0), self.counts(reference).sum(axis=0)
        if len(texts) < 2:
            return [self.between(whole, far)] * len(texts)
        all_in, many = self.between(whole, far), len(texts)
        return [many * all_in - (many - 1) * self.between(whole - one, far) for one in each]


def distance(texts_a: Sequence[str], texts_b: Sequence[str]) -> float:
    """Return how far two sets of texts are apart in style: 0 the same, about 1 other authors."""
    return Ruler([*texts_a, *texts_b]).distance(texts_a, texts_b)


def scale(own: Sequence[str], others: Sequence[str], *, draws: int = 20, seed: int = 1) -> Scale:
    """Return what to read distances against: halves of one author's texts, and another author's.

    ``own`` is the mean over random halves; ``other`` compares such halves to as many words of the
    others, so that both have the same noise.
    """
    drawn, ruler = random.Random(seed), Ruler([*own, *others])
    selves, far = [], []
    for _ in range(draws if len(own) > 1 else 0):
        mixed = drawn.sample(list(own), len(own))
        half = len(mixed) // 2
        selves.append(ruler.distance(mixed[:half], mixed[half:]))
        room = sum(len(words(text)) for text in mixed[half:])
        theirs = _worth(drawn.sample(list(others), len(others)), room)
        far.append(ruler.distance(mixed[:half], theirs))
    return Scale(_mean(selves), _mean(far))


def _worth(texts: Sequence[str], room: int) -> list[str]:
    taken: list[str] = []
    for text in texts:
        if room <= 0:
            break
        taken.append(text)
        room -= len(words(text))
    return taken


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _places(counted: Counter[str], most: int) -> dict[str, int]:
    best = sorted(counted, key=lambda each: (-counted[each], each))[:most]
    return {each: at for at, each in enumerate(best)}


def _trigrams(text: str) -> list[str]:
    flat = " ".join(text.lower().split())
    return [flat[at : at + 3] for at in range(len(flat) - 2)]
