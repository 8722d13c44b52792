"""Keeps a vector index in step with memory.db.

Promises: after ``caught_up`` the index holds exactly the vectors that memory.db holds, whoever
wrote them (this process or another). A missing, damaged or foreign index is refilled.
Refuses to know: how the index searches.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from knowme import memory, plugins

if TYPE_CHECKING:
    from knowme.db import Database
    from knowme.seams import VectorIndex

BATCH = 4096


class Follower:
    """One index that follows one space of one database. Thread-safe."""

    def __init__(self, db: Database, folder: Path, kind: str, space: memory.Space) -> None:
        self.space = space
        self._db = db
        self._lock = threading.Lock()
        where = folder / f"{kind}-{memory.uid(space.fingerprint, '', '', 0)}"
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index: VectorIndex = plugins.find("indexes", kind)(
            folder=where, dims=space.dims, fingerprint=space.fingerprint
        )
        self._at = self._index.position()
        self._version = -1

    def caught_up(self) -> VectorIndex:
        """Return the index, in step with every commit made before this call."""
        with self._lock:
            version = self._db.data_version()
            if version != self._version:
                self._follow()
                self._version = version
            return self._index

    def _follow(self) -> None:
        with self._db.read() as conn:
            newest, oldest = memory.last_change(conn), memory.first_change(conn)
            if newest == self._at and self._at:
                return
            named = self.space.fingerprint
            space = next((one for one in memory.spaces(conn) if one.fingerprint == named), None)
            if space is None:  # another embedder has taken over; the caller will ask for its index
                return
            self.space = space  # the same embedder may be back under another number
            if self._at == 0 or self._at > newest or oldest > self._at + 1:
                self._index.clear()
                for ids, vectors in memory.read_vectors(conn, self.space, BATCH):
                    self._index.upsert(ids.tolist(), vectors)
            else:
                changed = memory.changed_since(conn, self._at)
                for start in range(0, len(changed), BATCH):
                    part = changed[start : start + BATCH]
                    have, vectors = memory.vectors_of(conn, self.space, part)
                    self._index.delete(sorted(set(part) - set(have)))
                    if have:
                        self._index.upsert(have, vectors)
            self._at = newest
        self._index.flush(newest)

    def close(self) -> None:
        """Close the index; it notes where it stands."""
        with self._lock:
            self._index.close()
