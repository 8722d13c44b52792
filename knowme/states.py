"""States: how far each derivation is, and what else must be known from one time to the next.

Promises: one JSON value under each name, written in the caller's transaction.
Refuses to know: what a value means; whoever names it does.
"""

from __future__ import annotations

import json
from typing import Any

import apsw

from knowme.db import value


def read(conn: apsw.Connection, name: str) -> Any:
    """Return what is kept under a name; None where nothing is."""
    found = value(conn, "SELECT value FROM states WHERE name = ?", (name,))
    return None if found is None else json.loads(found)


def keep(conn: apsw.Connection, name: str, told: Any, at_ms: int) -> None:
    """Keep a JSON-able value under a name, in place of what was there."""
    conn.execute(
        "INSERT INTO states(name, value, updated_ms) VALUES(?, ?, ?) ON CONFLICT(name)"
        " DO UPDATE SET value = excluded.value, updated_ms = excluded.updated_ms",
        (name, json.dumps(told), at_ms),
    )


def drop(conn: apsw.Connection, *names: str) -> None:
    """Forget what is kept under these names."""
    conn.executemany("DELETE FROM states WHERE name = ?", [(name,) for name in names])
