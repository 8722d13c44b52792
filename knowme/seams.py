"""Every seam: the protocols behind which a backend can be exchanged.

Promises: protocols only; each has one contract test class in ``tests/contracts``.
Refuses to know: any backend. ``plugins.py`` finds them by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from knowme.types import ChatMessage, Chunk, EmbedKind, Mark, Options, Record, TrainSpec

Vectors = NDArray[np.float32]
Cursor = Mapping[str, Any]
"""The marks of one source: unit -> state."""


class Engine(Protocol):
    """A chat model. Constructed from its settings; nothing is loaded before the first stream."""

    name: str
    local: bool
    model: str
    context_tokens: int

    def stream(self, messages: Sequence[ChatMessage], options: Options) -> AsyncIterator[Chunk]:
        """Yield text deltas, then exactly one chunk with ``usage``.

        Raises ModelMissingError or ModelDownError, before or in the middle of the stream.
        Closing the iterator early stops the generation.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Count tokens with the model's own tokenizer where there is one, else estimate."""
        ...

    async def health(self) -> str:
        """Return "" when the engine can answer, else one sentence with the mend."""
        ...

    async def aclose(self) -> None:
        """Free the model and its process."""
        ...


@runtime_checkable
class Resident(Protocol):
    """What an engine offers, beside Engine, whose model takes this machine's memory.

    An engine without these methods (a remote one) is always there and costs no memory.
    """

    async def load(self) -> None:
        """Bring the model into memory, where it is not. Raises ModelError."""
        ...

    async def unload(self) -> None:
        """Free its memory. Idempotent; the next stream loads it again."""
        ...

    async def loaded(self) -> bool:
        """Tell whether it is in memory now."""
        ...

    async def memory_bytes(self) -> int:
        """Return what it takes when it is loaded, or will take; 0 where nobody knows."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """What an engine offers, beside Engine, whose model can answer with an adapter."""

    file: Path
    adapter: Path | None

    def wear(self, adapter: Path | None) -> None:
        """Answer with this adapter from the next stream on; None: as the model came.

        What is answered just now is finished as it began. Raises ModelError for one that does not
        fit.
        """
        ...


class Gate(Protocol):
    """What every connection to a model's server passes; given to backends as ``gate=``.

    Backends make their clients with ``wire.Server``, which asks it. See egress.Ledger.
    """

    def leaving(self, url: str, body: bytes) -> int:
        """Note that a body is about to be sent beyond this machine; returns the row's number.

        Raises OfflineError when nothing may leave, StoreError when it cannot be noted: then
        nothing is sent.
        """
        ...

    def left(self, row: int, outcome: str, received_bytes: int) -> None:
        """Note how it ended: "200", "429", "refused", "cut" ..."""
        ...


class Embedder(Protocol):
    """Text to vectors. Thread-safe."""

    fingerprint: str
    dims: int

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """Return an array (len(texts), dims), float32, unit norm (a zero row for empty text).

        Raises ModelMissingError or ModelDownError.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class VectorIndex(Protocol):
    """Nearest neighbours over item ids. Derived: it can be deleted and refilled at any time."""

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Insert or replace the unit vectors (n, dims) of these item ids; forget zero ones.

        Raises InputError for a wrong shape or a number that is not finite.
        """
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are fine."""
        ...

    def search(
        self, vector: Vectors, k: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[int, float]]:
        """Return up to k (item id, cosine) pairs, best first; only ids in ``allowed`` if given."""
        ...

    def scores(self, vector: Vectors, ids: Sequence[int]) -> Vectors:
        """Return the cosines (len(ids),) of these items, float32; NaN for an id it has not."""
        ...

    def count(self) -> int:
        """Return how many vectors it holds."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def position(self) -> int:
        """Return the caller's place in its change log that is on disk; 0: new or cleared.

        Everything up to there is in the index on disk, perhaps more: replay what came after.
        """
        ...

    def flush(self, position: int) -> None:
        """Note the caller's place in its change log. May write later, then position() lags."""
        ...

    def close(self) -> None:
        """Flush and free."""
        ...


class Source(Protocol):
    """Something that holds what the person said. Reading changes nothing in it."""

    name: str

    def read(self, cursor: Cursor) -> Iterator[tuple[Record | None, Mark | None]]:
        """Yield records in order, each with the mark that is true once it is stored.

        A mark may be ``None`` (not a place to resume from) and a record may be ``None`` (only the
        mark moves on). Nothing is held in memory beyond one message and one conversation's ids.
        Raises SourceError only when nothing at all can be read; else yields ``skipped`` records.
        """
        ...


Report = Callable[[Mapping[str, Any]], None]
"""Is told each event of a training: {"event": "step", "step": 12, "steps": 90, "loss": 1.9, ...}.
What it raises ends the training; a checkpoint is kept and the next call goes on from there."""


class Trainer(Protocol):
    """Makes an adapter from a data set. Works in a process of its own."""

    name: str

    def missing(self, spec: TrainSpec) -> str:
        """Return "" when it can train this here, else one sentence with the mend."""
        ...

    def train(self, spec: TrainSpec, report: Report) -> Path:
        """Train, or go on where it was stopped; returns the folder of the adapter (peft's form).

        Events: start (device, dtype, parameters, trainable, tokens, steps), mask (tokens, trained),
        step (step, steps, loss, seconds_left, rss_mb, vram_mb), validation (step, loss, best),
        stopped (why), done (steps, best, seconds). The same spec, data and machine give the same
        adapter. Raises TrainError with the trainer's own words.
        """
        ...
