"""What the stronger model would gain: a Bayesian linear regression on a message's vector and looks.

Gain is how much better the stronger model does on a message: 1 where it is right and the weaker one
wrong, -1 the other way round, 0 where they agree. The belief is a Gaussian over the weights of a
row of numbers; what a person says moves it in closed form (Bishop 2006, section 3.3). The belief
that ships was fitted from public labels (``data/README.md``); ``bench/fit_priors.py`` makes it.

Promises: pure; the same observations in any order give the same belief; more of them never make it
less sure; a prediction is some matrix products of a few hundred numbers.
Refuses to know: tables, settings, what a model costs (``feedback.py``), who is asked
(``route.py``).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowme.errors import InputError
from knowme.words import STOP_WORDS, WORD

Floats = NDArray[Any]

FEATURES = (
    "length",  # log of 1 + characters
    "sentences",  # log of 1 + sentence ends
    "lines",  # log of 1 + line ends
    "word_length",  # mean letters of a word
    "small_words",  # share of function words
    "variety",  # share of words that are different
    "commas",  # log of 1 + commas
    "question",  # 1 with a question mark
    "negation",  # 1 with a word such as not, except, never
    "numbers",  # log of 1 + numbers
    "number",  # 1 with any number
    "digits",  # share of the characters that are digits
    "decimals",  # 1 with a number such as 3.5
    "year",  # 1 with a number that may be a year
    "formula",  # 1 with signs of mathematics
    "code",  # 1 with signs of code
    "options",  # 1 with answers to choose from: A. ... B. ...
)
READS = 8_000
"""Characters of a message whose words are counted; its length is that of all of it."""
REACH = 3.0
"""How many standard deviations a feature may lie off: beyond, nothing was ever seen."""
SKETCH = 32
"""Numbers that are kept of a vector of an embedder that no prior was fitted for."""

_NEGATION = frozenset(
    "not except false incorrect never least none neither cannot nor without isn't doesn't don't"
    " não nunca nenhum exceto falso nunca ningún excepto nicht nie kein keine keiner außer falsch"
    " pas jamais aucun aucune sauf faux".split()
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_YEAR = re.compile(r"(?<![\d.,])(?:1[5-9]|20)\d\d(?![\d.,]?\d)")
_SENTENCE = re.compile(r"[.!?](?=\s|$)")
_FORMULA = re.compile(r"[=^+*<>∑∫√≤≥≠]|\\[a-zA-Z]+|\$")
_CODE = re.compile(
    r"```|(?m:^[ \t]{0,40}(?:def|class|import|from|return|function|const|let|var|public|#include"
    r"|SELECT)\b)"
    r"|\w\(\w*\)\s*[;{:]|[;{}]$|=>|::|</\w+>|Traceback"
)
_OPTION = re.compile(r"(?m)^[ \t]{0,40}\(?([A-Ea-e])[.)]\s")
_OPTION_INLINE = re.compile(r"(?:^|\s)\(?([A-E])[.)]\s")


def features(text: str) -> NDArray[np.float32]:
    """Return (len(FEATURES),) float32: what can be seen of a message without understanding it."""
    seen = text[:READS]
    words = [word.lower() for word in WORD.findall(seen)]
    numbers = _NUMBER.findall(seen)
    count, chars = max(1, len(words)), max(1, len(seen))
    return np.array(
        [
            math.log1p(len(text)),
            math.log1p(len(_SENTENCE.findall(seen))),
            math.log1p(seen.count("\n")),
            sum(map(len, words)) / count,
            sum(word in STOP_WORDS for word in words) / count,
            len(set(words)) / count,
            math.log1p(seen.count(",")),
            "?" in seen or "？" in seen,
            not _NEGATION.isdisjoint(words),
            math.log1p(len(numbers)),
            bool(numbers),
            sum(map(str.isdigit, seen)) / chars,
            any("." in number for number in numbers),
            bool(_YEAR.search(seen)),
            bool(_FORMULA.search(seen)),
            bool(_CODE.search(seen)),
            _options(seen),
        ],
        np.float32,
    )


def _options(text: str) -> bool:
    """Tell whether a text offers answers A and B and perhaps more, in lines or within one."""
    for pattern in (_OPTION, _OPTION_INLINE):
        found = [letter.upper() for letter in pattern.findall(text)]
        if "A" in found and "B" in found[found.index("A") :]:
            return True
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one message told of the gain: ``gain`` in [-1, 1], known to within ``sd`` (above 0)."""

    vector: Floats | None
    features: Floats
    gain: float
    sd: float


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """How a message becomes the row of numbers that is weighed.

    The row: 1 and the features (standardised, cut at REACH) for every message; the same again for
    messages with options only, and for those without; the vector cut to ``subjects`` for every
    message and for those with options only; and cut to ``basis`` for those without.
    Shapes: ``middle``, ``spread`` (len(FEATURES),), ``centre`` (dims,), ``subjects`` (dims, k),
    ``basis`` (dims, p). A vector that is not there, or of another size, counts as the centre.
    """

    middle: Floats
    spread: Floats
    centre: Floats
    subjects: Floats
    basis: Floats

    @property
    def groups(self) -> tuple[int, ...]:
        """How many numbers of a row belong to each part, in order."""
        looks, k, p = 1 + len(self.middle), self.subjects.shape[1], self.basis.shape[1]
        return (looks, looks, looks, k, k, p)

    def rows(self, vectors: Floats | None, seen: Floats) -> Floats:
        """Return (n, sum(groups)) float64 from (n, dims) vectors and (n, len(FEATURES)) features.

        Raises InputError for another number of features.
        """
        seen = np.asarray(seen, np.float64)
        if seen.ndim != 2 or seen.shape[1] != len(self.middle):
            raise InputError(f"{seen.shape} features were given, not (n, {len(self.middle)}).")
        n = len(seen)
        looks = np.ones((n, 1 + seen.shape[1]))
        looks[:, 1:] = np.clip((seen - self.middle) / self.spread, -REACH, REACH)
        if vectors is None or vectors.shape[1] != len(self.centre):
            vectors = np.broadcast_to(self.centre, (n, len(self.centre)))
        off = np.asarray(vectors, np.float64) - self.centre
        subjects = off @ self.subjects
        options = seen[:, -1:] > 0.5
        return np.concatenate(
            [
                looks, looks * options, looks * ~options,
                subjects, subjects * options, (off @ self.basis) * ~options,
            ],
            axis=1,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Gain:
    """A belief about the gain: a Gaussian over the weights of a Shape's row.

    It is kept as precision (d, d) and shift = precision @ mean (d,), to which an observation only
    adds. ``name`` says which shipped prior it began with; ``weak`` (d,) are the weights of how
    often the weaker model is right; ``blind`` is the variance that a missing vector adds; ``seen``
    counts the observations since then.
    """

    name: str
    shape: Shape
    precision: Floats
    shift: Floats
    weak: Floats
    blind: float = 0.0
    seen: int = 0
    _since: tuple[Floats, Floats] | None = field(default=None, repr=False)

    @classmethod
    def shipped(cls, fingerprint: str) -> Gain:
        """Return the belief that ships with knowme, for the vectors of this embedder.

        For an embedder that it was not fitted with, only the looks of a message count at first; a
        sketch of the vector is there to be learned from.
        """
        return _shipped(fingerprint if is_minilm(fingerprint) else _width(fingerprint))

    @cached_property
    def _solved(self) -> tuple[Floats, Floats]:
        """The mean (d,) and the covariance (d, d)."""
        covariance = np.linalg.inv(self.precision)
        return covariance @ self.shift, covariance

    @property
    def weights(self) -> Floats:
        """The mean of the weights, (d,)."""
        return self._solved[0]

    def predict(self, vector: Floats | None, seen: Floats) -> tuple[float, float]:
        """Return (expected gain in [-1, 1], its standard deviation) of one message.

        ``vector`` (dims,) as the embedder gave it, or None; ``seen``: its ``features``. The
        deviation is how unsure the expectation is, not how much single outcomes scatter.
        """
        usable = self._usable(vector)
        row = self.shape.rows(None if usable is None else usable[None], np.asarray(seen)[None])[0]
        mean, covariance = self._solved
        variance = float(row @ covariance @ row) + (self.blind if usable is None else 0.0)
        return max(-1.0, min(1.0, float(row @ mean))), math.sqrt(max(variance, 0.0))

    def usual(self, vector: Floats | None, seen: Floats) -> tuple[float, float]:
        """Return how often (the weaker, the stronger) model is right on such a message, in [0, 1].

        As of the public labels: ``weak`` is not learned further.
        """
        usable = self._usable(vector)
        row = self.shape.rows(None if usable is None else usable[None], np.asarray(seen)[None])[0]
        local, away = float(row @ self.weak), float(row @ (self.weak + self.weights))
        return min(0.98, max(0.02, local)), min(0.98, max(0.02, away))

    def means(self, vectors: Floats | None, seen: Floats) -> Floats:
        """Return (n,) expected gains of many messages, cut to [-1, 1]."""
        out: Floats = np.clip(self.shape.rows(vectors, seen) @ self.weights, -1.0, 1.0)
        return out

    def updated(self, observations: Iterable[Observation]) -> Gain:
        """Return the belief after these observations: exact, whatever their order.

        Raises InputError for a gain outside [-1, 1] or a deviation that is not above 0.
        """
        each = list(observations)
        if not each:
            return self
        for one in each:
            if not (-1.0 <= one.gain <= 1.0 and 0.0 < one.sd < math.inf):
                raise InputError(
                    f"An observation says gain {one.gain}, deviation {one.sd}.",
                    "A gain lies in [-1, 1], its deviation above 0.",
                )
        rows = np.concatenate([self._row(one) for one in each]) / [[one.sd] for one in each]
        told = np.array([one.gain / one.sd for one in each])
        more = (rows.T @ rows, rows.T @ told)
        before = self._since or (np.zeros_like(self.precision), np.zeros_like(self.shift))
        return replace(
            self,
            precision=self.precision + more[0],
            shift=self.shift + more[1],
            seen=self.seen + len(each),
            _since=(before[0] + more[0], before[1] + more[1]),
        )

    def _row(self, one: Observation) -> Floats:
        usable = self._usable(one.vector)
        return self.shape.rows(
            None if usable is None else usable[None], np.asarray(one.features)[None]
        )

    def _usable(self, vector: Floats | None) -> Floats | None:
        """Return a vector that this belief can read; a zero row is what an empty text embeds to."""
        if vector is None or vector.shape != self.shape.centre.shape or not np.any(vector):
            return None
        return vector

    def dumps(self) -> bytes:
        """Return what was learned since the shipped prior, as an npz without pickles."""
        size = len(self.shift)
        precision, shift = self._since or (np.zeros((size, size)), np.zeros(size))
        out = io.BytesIO()
        np.savez_compressed(
            out,
            name=np.array(self.name),
            seen=np.array(self.seen),
            precision=precision[np.tril_indices(size)],
            shift=shift,
        )
        return out.getvalue()

    @classmethod
    def loads(cls, raw: bytes, prior: Gain) -> Gain:
        """Return the belief that ``dumps`` wrote, on the prior that it began with.

        Raises InputError where that was another prior (it is learned again from the log then), or
        where the bytes are damaged.
        """
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as data:
                name, seen = str(data["name"]), int(data["seen"])
                lower, shift = data["precision"], data["shift"]
        except Exception as error:  # zipfile, zlib and numpy raise types of their own
            raise InputError(f"A version of the learned router is damaged: {error}") from error
        if name != prior.name or shift.shape != prior.shift.shape:
            raise InputError(
                f"This version of the learned router began with {name}, not with {prior.name}.",
                "It is learned again from the log of answers.",
            )
        precision = _full(lower, len(shift))
        return replace(
            prior,
            precision=prior.precision + precision,
            shift=prior.shift + shift,
            seen=seen,
            _since=(precision, shift),
        )


def above(mean: float, sd: float, price: float) -> float:
    """Return the probability that the expected gain exceeds a price, under a Gaussian belief."""
    if sd <= 0.0 or not math.isfinite(price):
        return float(mean > price)
    return 0.5 * math.erfc((price - mean) / (sd * math.sqrt(2.0)))


_MINILM = re.compile(r"(?:^|[:/\s])(?:all-)?minilm(?:-l6)?(?:-v2)?(?:-(?:int8|q8[-_]0|f16|fp16))?@")


def is_minilm(fingerprint: str) -> bool:
    """Tell whether an embedder is all-MiniLM-L6-v2, in any of its forms, uncut (384 numbers).

    Its 8-bit ONNX form and its GGUF form agree to a cosine of .99; others of that family
    (L12, paraphrase, multilingual) are other spaces.
    """
    plain = fingerprint.lower().replace(":latest@", "@").replace(":33m", "").replace(":22m", "")
    return bool(_MINILM.search(plain)) and ":384:" in f"{plain}:"


def _width(fingerprint: str) -> int:
    """Return how many numbers an embedder's vectors have, by its fingerprint; 0: nobody knows."""
    for part in fingerprint.split("@", 1)[-1].split(":"):
        if part.isdigit() and 8 <= int(part) <= 8192:
            return int(part)
    return 0


@lru_cache(maxsize=4)
def _shipped(which: str | int) -> Gain:
    if isinstance(which, str):
        return read((files("knowme") / "data" / "gain-minilm.npz").read_bytes())
    return sketched(read((files("knowme") / "data" / "gain-looks.npz").read_bytes()), which)


def read(raw: bytes) -> Gain:
    """Return a prior from the bytes of its file in ``data/``."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as data:
        part = {name: np.asarray(data[name]) for name in data.files}
    shape = Shape(
        *(part[name].astype(np.float64) for name in ("middle", "spread", "centre")),
        *(part[name].astype(np.float64) for name in ("subjects", "basis")),
    )
    precision = _full(part["precision"], sum(shape.groups))
    shift = precision @ part["mean"].astype(np.float64)
    weak = part["weak"].astype(np.float64)
    return Gain(str(part["name"]), shape, precision, shift, weak, float(part["blind"]))


def sketched(looks: Gain, dims: int) -> Gain:
    """Return a prior that reads looks only, with room for a sketch of vectors of ``dims`` numbers.

    The sketch is a random projection (Johnson and Lindenstrauss 1984) that is the same everywhere;
    its weights begin at 0 and may grow until the vector moves the gain by about a tenth.
    """
    if not dims:
        return looks
    # RandomState: its stream of numbers is frozen for good; that of newer generators is not.
    drawn = np.random.RandomState(dims).standard_normal((dims, SKETCH)) / math.sqrt(SKETCH)
    shape = replace(looks.shape, centre=np.zeros(dims), subjects=drawn, basis=np.zeros((dims, 0)))
    head = 3 * (1 + len(looks.shape.middle))
    room = sum(shape.groups)
    precision = np.diag(np.full(room, 100.0))
    precision[:head, :head] = looks.precision
    shift, weak = np.zeros(room), np.zeros(room)
    shift[:head], weak[:head] = looks.shift, looks.weak
    return Gain(f"{looks.name}+{dims}", shape, precision, shift, weak, looks.blind)


def _full(lower: Floats, size: int) -> Floats:
    """Return the symmetric matrix whose lower triangle is given, row by row."""
    full = np.zeros((size, size))
    full[np.tril_indices(size)] = lower
    return full + np.tril(full, -1).T


def split(raw: Floats, known: Sequence[str] = FEATURES) -> tuple[Floats | None, Floats]:
    """Return (vector or None, features) from the one row that the log keeps of a message.

    Raises InputError for a row that is too short.
    """
    room = len(known)
    if len(raw) < room:
        raise InputError(f"A logged message has {len(raw)} numbers, not {room} or more.")
    return (raw[:-room] if len(raw) > room else None), raw[-room:]
