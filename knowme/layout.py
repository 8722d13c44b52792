"""The layout of memory in RAM: who stands beside whom, how long, whose words, which day.

Promises: six small arrays indexed by item id, in step with memory.db whoever wrote it; about 33
bytes an item. Search scores a candidate by what was said around it, and needs this for thousands.
Refuses to know: words, vectors, scores.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterable
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme import memory
from knowme.db import rows, value

ROLES = {"user": 1, "assistant": 2, "document": 3}
DAY_MS = 86_400_000
_ROW = """SELECT id, before_id, after_id, words, role, at_ms,
  CASE WHEN kind = 'fact' THEN coalesce((SELECT o.id FROM items o
    WHERE o.message_id = me.message_id AND o.kind NOT IN ('fact', 'summary', 'pattern')
    AND o.start <= me.start ORDER BY o.start DESC LIMIT 1), -1) END
FROM items me"""


class Layout:
    """The arrays, each indexed by item id. Row 0 is nobody: it stands beside those who are alone.

    What ``caught_up`` returned stays as it is: a search never sees half of a change.
    ``before`` and ``after`` are item ids (0: none), ``words`` counts, ``roles`` as in ROLES (0: no
    such item), ``days`` since the epoch (NO_DAY: unknown); ``total`` counts the items. ``leads`` is
    the item that a fact is a key to (0: it is no fact); one whose message is out of recall is none.
    """

    NO_DAY = np.iinfo(np.int32).min

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = -1
        self.total = 0
        self._resize(1024)

    def _resize(self, size: int) -> None:
        """Make new arrays of at least ``size``, with what the old ones hold."""
        old = getattr(self, "before", np.zeros(0, np.int64)).size
        more = max(0, size - old)

        def grown(name: str, dtype: Any, fill: int = 0) -> NDArray[Any]:
            extra = np.full(more, fill, dtype)
            return np.concatenate([getattr(self, name), extra]) if old else extra

        self.before = grown("before", np.int64)
        self.after = grown("after", np.int64)
        self.words = grown("words", np.int32)
        self.roles = grown("roles", np.int8)
        self.days = grown("days", np.int32, self.NO_DAY)
        self.leads = grown("leads", np.int64)

    def caught_up(self, conn: apsw.Connection) -> Layout:
        """Return the arrays in step with the snapshot that ``conn`` reads, or with a later one."""
        with self._lock:
            newest = memory.last_change(conn)
            if newest > self._at:  # else another thread has seen as much, or more
                self._follow(conn)
                self._at = newest
                self.total = int(np.count_nonzero(self.roles))
            return copy.copy(self)

    def _follow(self, conn: apsw.Connection) -> None:
        highest = int(value(conn, "SELECT coalesce(max(id), 0) FROM items"))
        size = self.before.size
        self._resize(size if highest < size else max(highest + 1, size * 3 // 2))
        if self._at < 0 or memory.first_change(conn) > self._at + 1:
            self.roles[:] = 0
            self._put(conn.execute(_ROW))
            return
        changed = memory.changed_since(conn, self._at)
        listed = json.dumps(changed)
        self.roles[[item for item in changed if item < self.roles.size]] = 0
        self._put(rows(conn, f"{_ROW} WHERE id IN (SELECT value FROM json_each(?))", (listed,)))

    def _put(self, found: Iterable[tuple[Any, ...]]) -> None:
        for item, before, after, words, role, at_ms, leads in found:
            if leads == -1:
                continue
            self.before[item] = before or 0
            self.after[item] = after or 0
            self.words[item] = words
            self.roles[item] = ROLES.get(role, 3)
            self.days[item] = self.NO_DAY if at_ms is None else at_ms // DAY_MS
            self.leads[item] = leads or 0
