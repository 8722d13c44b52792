"""Vectors in Chroma: a persistent client in the folder, with the vectors we give it. Approximate.

Promises: offline, telemetry off, no embedding function of its own (its default one would fetch a
model and pad every text to 256 tokens); a damaged folder, or one of other vectors, is discarded
and the index starts empty.
Refuses to know: items, memory.db. The folder may be deleted at any time.

Chroma is a graph (HNSW): a good neighbour may be missed now and then, more so under a filter.
One process at a time may have the folder open.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import chromadb
import numpy as np
from chromadb.config import Settings
from numpy.typing import NDArray

from knowme.errors import StoreError
from knowme.indexes import Ids, best, direction, distinct, rows
from knowme.seams import Vectors

T = TypeVar("T")
NAME = "items"
SPACE = {"hnsw": {"space": "cosine", "ef_search": 200, "ef_construction": 200, "max_neighbors": 32}}


class ChromaIndex:
    """Nearest neighbours with Chroma. Thread-safe."""

    def __init__(self, *, folder: Path, dims: int, fingerprint: str, **_: Any) -> None:
        self._dims = dims
        self._fingerprint = fingerprint
        self._folder = folder / "chroma"
        self._note = folder / "chroma.json"
        self._lock = threading.RLock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._client: Any = None
        try:
            if self._read_note().get("about") != [dims, fingerprint]:
                self._discard()
            self._open()
        except BaseException as error:  # its Rust core panics with a BaseException on damage
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._discard()
            self._guarded(self._open)

    def _open(self) -> None:
        self._client = chromadb.PersistentClient(
            path=str(self._folder),
            settings=Settings(anonymized_telemetry=False, allow_reset=False),
        )
        self._items = self._client.get_or_create_collection(
            NAME, embedding_function=None, configuration=SPACE
        )
        self._batch = int(self._client.get_max_batch_size())
        count = int(self._items.count())
        if count:  # touch the graph and the rows: damage shows here and not in a search
            sample = self._items.peek(1)["embeddings"]
            self._items.query(query_embeddings=np.asarray(sample)[:1], n_results=1)
        if not self._note.exists():
            self._write_note(0)

    def _release(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close()

    def _discard(self) -> None:
        self._release()
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._note.unlink(missing_ok=True)

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write_note(self, position: int) -> None:
        about = {"about": [self._dims, self._fingerprint], "position": position}
        partial = self._note.with_suffix(".partial")
        partial.write_text(json.dumps(about), encoding="utf-8")
        partial.replace(self._note)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Run ``work`` alone; turn what Chroma throws into our error."""
        with self._lock:
            try:
                return work()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit | StoreError):
                    raise
                raise StoreError(
                    f"The vector index refused: {error} ({self._folder})",
                    "It can be deleted; it is built again from memory.db.",
                ) from error

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Insert or replace the unit vectors (n, dims) of these item ids; forget zero ones."""
        keys, found, empty = rows(ids, vectors, self._dims)

        def work() -> None:
            for start in range(0, len(keys), self._batch):
                part = slice(start, start + self._batch)
                self._items.upsert(
                    ids=[str(key) for key in keys[part].tolist()], embeddings=found[part]
                )

        self._guarded(work)
        if len(empty):
            self.delete(empty.tolist())

    def delete(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are fine."""
        names = list(dict.fromkeys(str(int(key)) for key in ids))

        def work() -> None:
            for start in range(0, len(names), self._batch):
                self._items.delete(ids=names[start : start + self._batch])

        self._guarded(work)

    def search(
        self, vector: Vectors, k: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[int, float]]:
        """Return up to k (item id, cosine) pairs, best first; only ids in ``allowed`` if given."""
        question = direction(vector, self._dims)
        held = self.count()
        if question is None or k < 1 or not held:
            return []
        if allowed is None:
            return best(*self._near(question, min(k, held)), k)
        wanted = distinct(allowed)
        if len(wanted) > self._batch:
            keys, scores = self._near(question, min(10 * k + 100, held))
            known = np.isin(keys, wanted)
            if known.sum() >= k:
                return best(keys[known], scores[known], k)
        # Exact among what is allowed: the graph loses its way under a narrow filter.
        scores = self.scores(question, wanted.tolist())
        known = ~np.isnan(scores)
        return best(wanted[known], scores[known], k)

    def _near(self, question: Vectors, count: int) -> tuple[Ids, NDArray[np.float32]]:
        found = self._guarded(
            lambda: self._items.query(
                query_embeddings=question[None], n_results=count, include=["distances"]
            )
        )
        keys = np.array([int(name) for name in found["ids"][0]], dtype=np.int64)
        return keys, 1 - np.asarray(found["distances"][0], dtype=np.float32)

    def scores(self, vector: Vectors, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the cosine of each id's vector to ``vector`` (n,); NaN where it has none."""
        question = direction(vector, self._dims)
        names = [str(int(key)) for key in ids]
        score: dict[str, float] = {}

        if question is None or not names:
            return np.full(len(names), np.nan, np.float32)

        def work() -> None:
            for start in range(0, len(names), self._batch):
                part = list(dict.fromkeys(names[start : start + self._batch]))
                got = self._items.get(ids=part, include=["embeddings"])
                if len(got["ids"]):
                    cosines = np.asarray(got["embeddings"], dtype=np.float32) @ question
                    score.update(zip(got["ids"], cosines.tolist(), strict=True))

        self._guarded(work)
        return np.array([score.get(name, np.nan) for name in names], np.float32)

    def count(self) -> int:
        """Return how many vectors it holds."""
        return int(self._guarded(lambda: self._items.count()))

    def clear(self) -> None:
        """Forget everything."""

        def work() -> None:
            self._client.delete_collection(NAME)
            self._write_note(0)
            self._items = self._client.create_collection(
                NAME, embedding_function=None, configuration=SPACE
            )

        self._guarded(work)

    def position(self) -> int:
        """Return the place that ``flush`` noted last; 0 for a new or cleared index."""
        return int(self._read_note().get("position", 0))

    def flush(self, position: int) -> None:
        """Note the caller's place in its change log."""
        self._guarded(lambda: self._write_note(position))

    def close(self) -> None:
        """Free the client."""
        with self._lock:
            self._release()
