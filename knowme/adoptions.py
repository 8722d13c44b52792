"""Adoptions: which adapter answers with which model, since when, and what was in use before.

Promises: at most one adapter is in use for a purpose and a base model; a file that is gone or was
changed is never used; rolling back is one row.
Refuses to know: whether an adapter is good (``learn/adopt.py``), how it is served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from knowme import modelstore
from knowme.db import rows
from knowme.errors import NotFoundError

STALE = "stale.json"
"""Beside a run whose data set lost words to ``forget``: its adapter answers no more."""
_COLUMNS = (
    "id, at_ms, run, purpose, base, adapter, sha256, served_as, forced, measured, retired_ms, why"
)


@dataclass(frozen=True, slots=True)
class Adoption:
    """One row: ``adapter`` is relative to the home, ``base`` as ``base_of`` says."""

    id: int
    at_ms: int
    run: str
    purpose: str
    base: str
    adapter: str
    sha256: str
    served_as: str
    forced: bool
    measured: Mapping[str, Any]
    retired_ms: int | None
    why: str


def base_of(gguf: Path) -> str:
    """Return what names a base model's file: its sha256 where it is known, else a digest."""
    return str(modelstore.manifest(gguf).get("sha256") or modelstore.digest(gguf))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, "" where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError:
        return ""
    return digest.hexdigest()


def in_use(conn: apsw.Connection, purpose: str, base: str) -> Adoption | None:
    """Return what answers for this purpose with this base model, or None: the base alone."""
    found = rows(
        conn,
        f"SELECT {_COLUMNS} FROM adoptions WHERE purpose = ? AND base = ? AND retired_ms IS NULL",
        (purpose, base),
    )
    return _adoption(found[0]) if found else None


def current(conn: apsw.Connection, purpose: str) -> dict[str, Adoption]:
    """Return what is in use for a purpose, by base model."""
    return {each.base: each for each in listed(conn, current=True) if each.purpose == purpose}


def listed(conn: apsw.Connection, *, current: bool = False) -> list[Adoption]:
    """Return every adoption, the newest first; with ``current`` those that are in use."""
    where = " WHERE retired_ms IS NULL" if current else ""
    found = rows(conn, f"SELECT {_COLUMNS} FROM adoptions{where} ORDER BY id DESC")
    return [_adoption(row) for row in found]


def _adoption(row: tuple[Any, ...]) -> Adoption:
    id_, at_ms, run, purpose, base, adapter, sha, served_as, forced, measured, retired, why = row
    return Adoption(
        id_, at_ms, run, purpose, base, adapter, sha, served_as,
        bool(forced), json.loads(measured), retired, why,
    )  # fmt: skip


def put(
    conn: apsw.Connection,
    *,
    run: str,
    purpose: str,
    base: str,
    adapter: str,
    sha256: str,
    at_ms: int,
    served_as: str = "",
    forced: bool = False,
    measured: Mapping[str, Any] | None = None,
) -> int:
    """Put an adapter into use in place of the one before; returns its row.

    A run that is in use is not what it falls back to itself: its row is renewed.
    """
    told = json.dumps(dict(measured or {}))
    now = in_use(conn, purpose, base)
    if now is not None and now.run == run:
        conn.execute(
            "UPDATE adoptions SET at_ms = ?, adapter = ?, sha256 = ?, served_as = ?, forced = ?,"
            " measured = ? WHERE id = ?",
            (at_ms, adapter, sha256, served_as, forced, told, now.id),
        )
        return now.id
    conn.execute(
        "UPDATE adoptions SET retired_ms = ?, why = ?"
        " WHERE purpose = ? AND base = ? AND retired_ms IS NULL",
        (at_ms, f"replaced by {run}", purpose, base),
    )
    conn.execute(
        "INSERT INTO adoptions(at_ms, run, purpose, base, adapter, sha256, served_as, forced,"
        " measured) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (at_ms, run, purpose, base, adapter, sha256, served_as, forced, told),
    )
    return conn.last_insert_rowid()


def roll_back(
    conn: apsw.Connection, purpose: str, at_ms: int, why: str = "rolled back"
) -> tuple[Adoption, Adoption | None]:
    """Take the newest adapter of a purpose out; the one that it replaced is in use again.

    Returns (what was in use, what is now). Raises NotFoundError where none is in use.
    """
    now = [each for each in listed(conn, current=True) if each.purpose == purpose]
    if not now:
        raise NotFoundError(
            f"No adapter for {purpose} is in use.", "See what there is: knowme learn status"
        )
    out = now[0]
    conn.execute("UPDATE adoptions SET retired_ms = ?, why = ? WHERE id = ?", (at_ms, why, out.id))
    before = rows(
        conn,
        f"SELECT {_COLUMNS} FROM adoptions WHERE purpose = ? AND base = ? AND id < ?"
        " AND why = ? ORDER BY id DESC LIMIT 1",
        (purpose, out.base, out.id, f"replaced by {out.run}"),
    )
    if not before:
        return out, None
    again = _adoption(before[0])
    conn.execute("UPDATE adoptions SET retired_ms = NULL, why = '' WHERE id = ?", (again.id,))
    return out, again
