"""stats(): how much a home holds, from where, since when.

Promises: one snapshot; only counts and dates, never a word of what was said. `knowme stats` and
GET /stats tell the same.
Refuses to know: how it is shown.
"""

from __future__ import annotations

from typing import Any

import knowme
from knowme import memory
from knowme.db import rows, value
from knowme.home import Home
from knowme.times import iso


def stats(home: Home) -> dict[str, Any]:
    """Return counts, the serving embedder, bytes on disk, jobs by state, and every source by name.

    Each source has its first and last date: ISO 8601, None where nothing is dated.
    """
    with home.db.read() as conn:
        spaces = memory.spaces(conn)
        serving = memory.serving(conn)
        sources = rows(
            conn,
            "SELECT c.source, count(DISTINCT c.id), count(m.id), min(m.at_ms), max(m.at_ms)"
            " FROM conversations c LEFT JOIN messages m ON m.conversation_id = c.id"
            " AND m.retired_ms IS NULL GROUP BY c.source ORDER BY count(m.id) DESC",
        )
        vectors = 0
        if serving is not None:
            sql = "SELECT count(*) FROM vectors WHERE embedder_id = ?"
            vectors = int(value(conn, sql, (serving.id,)))
        return {
            "version": knowme.__version__,
            "home": str(home.path),
            "bytes": int(value(conn, "PRAGMA page_count")) * int(value(conn, "PRAGMA page_size")),
            "conversations": int(value(conn, "SELECT count(*) FROM conversations")),
            "messages": int(value(conn, "SELECT count(*) FROM messages WHERE retired_ms IS NULL")),
            "items": memory.count(conn),
            "vectors": vectors,
            "pending": max((memory.count_missing(conn, each.id) for each in spaces), default=0),
            "answers": int(value(conn, "SELECT count(*) FROM answers")),
            "embedder": "" if serving is None else serving.fingerprint,
            "jobs": dict(rows(conn, "SELECT state, count(*) FROM jobs GROUP BY state")),
            "sources": {
                name: {
                    "conversations": conversations,
                    "messages": messages,
                    "first": iso(first),
                    "last": iso(last),
                }
                for name, conversations, messages, first, last in sources
            },
        }
