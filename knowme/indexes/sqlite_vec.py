"""Vectors in sqlite-vec: one table of float32 in a derived SQLite file of its own. Exact.

Promises: the extension is loaded through apsw (a Python built without loadable extensions works);
a damaged file, or one of other vectors, is discarded and the index starts empty.
Refuses to know: items, memory.db. The file may be deleted at any time.

Measured at 100,000 x 384 it takes ten times as long a search as the default index: see LOG.md.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import sqlite_vec
from numpy.typing import NDArray

from knowme.errors import StoreError
from knowme.indexes import direction, rows
from knowme.seams import Vectors

MAX_K = 4_096
"""The most neighbours the extension's own search gives; beyond, the table is read whole."""
CHECKED = 64 << 20
"""Bytes up to which the whole file is checked when it is opened (0.1 s)."""


class SqliteVecIndex:
    """Nearest neighbours with sqlite-vec. Thread-safe; many processes may have the file open."""

    def __init__(self, *, folder: Path, dims: int, fingerprint: str, **_: Any) -> None:
        self._dims = dims
        self._fingerprint = fingerprint
        self._path = folder / "vectors.sqlite"
        self._lock = threading.RLock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._conn = self._open()
        except (apsw.Error, ValueError):
            self._discard()
            with self._wrapped():
                self._conn = self._open()

    def _open(self) -> apsw.Connection:
        """Open the file. Raises ValueError when it holds other vectors, apsw.Error when damaged."""
        conn = apsw.Connection(str(self._path))
        try:
            conn.set_busy_timeout(15_000)
            conn.enable_load_extension(True)
            conn.load_extension(sqlite_vec.loadable_path())
            conn.enable_load_extension(False)
            conn.execute("PRAGMA journal_mode=WAL")
            conn.execute("PRAGMA synchronous=NORMAL")  # derived: a power cut may cost the end
            if self._path.stat().st_size < CHECKED and conn.pragma("quick_check") != "ok":
                raise ValueError("damaged")
            with conn:
                conn.execute("CREATE TABLE IF NOT EXISTS about(key TEXT PRIMARY KEY, value)")
                conn.execute(
                    "INSERT OR IGNORE INTO about VALUES('vectors', ?), ('position', 0)",
                    (self._about(),),
                )
                conn.execute(
                    "CREATE VIRTUAL TABLE IF NOT EXISTS near USING vec0("
                    f"id INTEGER PRIMARY KEY, vector FLOAT[{self._dims}] distance_metric=cosine)"
                )
            found = conn.execute("SELECT value FROM about WHERE key='vectors'").get
            if found != self._about():
                raise ValueError("vectors of another embedder")
            conn.execute("SELECT count(*) FROM near").fetchall()
        except BaseException:
            conn.close()
            raise
        return conn

    def _about(self) -> str:
        return json.dumps([self._dims, self._fingerprint])

    def _discard(self) -> None:
        for end in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError):
                Path(f"{self._path}{end}").unlink(missing_ok=True)

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """Hold the connection alone; turn what SQLite says into our error."""
        with self._lock:
            try:
                yield
            except apsw.Error as error:
                raise StoreError(
                    f"The vector index refused: {error} ({self._path})",
                    "It can be deleted; it is built again from memory.db.",
                ) from error

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Insert or replace the unit vectors (n, dims) of these item ids; forget zero ones."""
        keys, found, empty = rows(ids, vectors, self._dims)
        every = [*keys.tolist(), *empty.tolist()]
        with self._wrapped(), self._conn:
            # vec0 knows no INSERT OR REPLACE
            self._conn.executemany("DELETE FROM near WHERE id=?", ((key,) for key in every))
            self._conn.executemany(
                "INSERT INTO near(id, vector) VALUES(?, ?)",
                ((key, row.tobytes()) for key, row in zip(keys.tolist(), found, strict=True)),
            )

    def delete(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are fine."""
        with self._wrapped(), self._conn:
            self._conn.executemany("DELETE FROM near WHERE id=?", ((int(key),) for key in ids))

    def search(
        self, vector: Vectors, k: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[int, float]]:
        """Return up to k (item id, cosine) pairs, best first; only ids in ``allowed`` if given."""
        question = direction(vector, self._dims)
        if question is None or k < 1:
            return []
        asked: list[Any] = [question.tobytes(), k]
        only = ""
        if allowed is not None:
            only = " id IN (SELECT value FROM json_each(?))"
            asked.insert(1, json.dumps(np.asarray(allowed).tolist()))
        if k <= MAX_K:
            sql = f"SELECT id, distance FROM near WHERE vector MATCH ?{only and ' AND' + only}"
            sql += " AND k = ?"
        else:
            sql = "SELECT id, vec_distance_cosine(vector, ?) AS distance FROM near"
            sql += f"{only and ' WHERE' + only} ORDER BY distance LIMIT ?"
        with self._wrapped():
            found: list[Any] = self._conn.execute(sql, asked).fetchall()
        return sorted(
            ((int(key), 1.0 - float(far)) for key, far in found),
            key=lambda pair: (-pair[1], pair[0]),
        )

    def scores(self, vector: Vectors, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the cosine of each id's vector to ``vector`` (n,); NaN where it has none."""
        question = direction(vector, self._dims)
        wanted = [int(key) for key in ids]
        if question is None:
            return np.full(len(wanted), np.nan, np.float32)
        out = np.full(len(wanted), np.nan, np.float32)
        with self._wrapped(), self._conn:  # one transaction; point look-ups: a join reads it all
            for at, key in enumerate(wanted):
                row = self._conn.execute("SELECT vector FROM near WHERE id=?", (key,)).get
                if row is not None:
                    out[at] = np.frombuffer(row, np.float32) @ question
        return out

    def count(self) -> int:
        """Return how many vectors it holds."""
        with self._wrapped():
            return int(self._conn.execute("SELECT count(*) FROM near").get)

    def clear(self) -> None:
        """Forget everything."""
        with self._wrapped():
            self._conn.close()
            self._discard()
            self._conn = self._open()

    def position(self) -> int:
        """Return the place that ``flush`` noted last; 0 for a new or cleared index."""
        with self._wrapped():
            return int(self._conn.execute("SELECT value FROM about WHERE key='position'").get)

    def flush(self, position: int) -> None:
        """Note the caller's place in its change log."""
        with self._wrapped():
            self._conn.execute("UPDATE about SET value=? WHERE key='position'", (position,))

    def close(self) -> None:
        """Free the file."""
        with self._wrapped():
            self._conn.close()
