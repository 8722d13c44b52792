"""stats(): how much a home holds, from where, since when; llm_stats(): what its models did.

Promises: one snapshot; only counts and dates, never a word of what was said. `knowme stats` and
GET /stats tell the same.
Refuses to know: how it is shown.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any

import apsw

import knowme
from knowme import memory
from knowme.db import rows, value
from knowme.home import Home
from knowme.times import iso, now_ms, zone


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
            "facts": int(value(conn, "SELECT count(*) FROM facts WHERE state = 'believed'")),
            "doubtful": int(value(conn, "SELECT count(*) FROM facts WHERE state = 'doubtful'")),
            "lines": int(value(conn, "SELECT count(*) FROM lines WHERE state = 'current'")),
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


# --- models -------------------------------------------------------------------------------------

_CALLS = (
    "count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(cached_tokens), 0),"
    " coalesce(sum(answer_tokens), 0), coalesce(sum(cost), 0.0),"
    " coalesce(sum(state = 'failed'), 0)"
)
"""What is counted of calls, in the order of ``_counted``."""


def last_receipt(conn: apsw.Connection, conversation: str, since_ms: int = 0) -> int | None:
    """Return the number of a conversation's last answer (asked since then), or None."""
    found = value(
        conn,
        "SELECT max(a.id) FROM answers a JOIN conversations c ON c.id = a.conversation_id"
        " WHERE c.external_id = ? AND a.asked_ms >= ?",
        (conversation, since_ms),
    )
    return None if found is None else int(found)


def last_used(conn: apsw.Connection, conversation: str) -> int | None:
    """Return when a conversation was last answered in, in ms; None where it never was."""
    found = value(
        conn,
        "SELECT s.updated_ms FROM sessions s JOIN conversations c ON c.id = s.conversation_id"
        " WHERE c.external_id = ?",
        (conversation,),
    )
    return None if found is None else int(found)


def llm_stats(home: Home, days: int = 30) -> dict[str, Any]:
    """Return what the models did in the last ``days`` days, today included.

    ``cache_hit_rate`` is the share of prompt tokens that a server had in its cache (None: no
    prompt yet), ``prefix_tokens_reused`` how many those were, ``prefix_tokens_restored`` how many
    came back with a model. ``swaps`` are loads of models: how many, mean and p95 in ms (None where
    there were none). Calls are counted by model, by purpose and by what chose the model; by day
    those that were answered here and elsewhere.
    """
    tz = zone(home.settings.memory.timezone)
    today = datetime.fromtimestamp(now_ms() / 1000, tz).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    since_ms = int((today - timedelta(days=days - 1)).timestamp() * 1000)
    with home.db.read() as conn:
        total = _counted(rows(conn, f"SELECT {_CALLS} FROM calls WHERE at_ms >= ?", (since_ms,))[0])
        prompt, cached = total["prompt_tokens"], total["cached_tokens"]
        return {
            "since": iso(since_ms),
            "cache_hit_rate": round(cached / prompt, 4) if prompt else None,
            "prefix_tokens_reused": cached,
            "prefix_tokens_restored": int(
                value(
                    conn,
                    "SELECT coalesce(sum(prefix_tokens), 0) FROM swaps"
                    " WHERE kind = 'load' AND at_ms >= ?",
                    (since_ms,),
                )
            ),
            "swaps": _swaps(conn, since_ms),
            "calls": total,
            "by_model": _by(conn, "model, role, local", ("model", "role", "local"), since_ms),
            "by_stage": _by(conn, "stage", ("stage",), since_ms),
            "by_purpose": _by(conn, "purpose", ("purpose",), since_ms),
            "by_day": _by_day(conn, since_ms, tz),
            "egress": dict(
                zip(
                    ("requests", "sent_bytes", "cost"),
                    rows(
                        conn,
                        "SELECT count(*), coalesce(sum(sent_bytes), 0), coalesce(sum(cost), 0.0)"
                        " FROM egress WHERE at_ms >= ?",
                        (since_ms,),
                    )[0],
                    strict=True,
                )
            ),
        }


def _counted(row: tuple[Any, ...]) -> dict[str, Any]:
    names = ("calls", "prompt_tokens", "cached_tokens", "answer_tokens", "cost", "failed")
    return dict(zip(names, row, strict=True))


def _by(
    conn: apsw.Connection, columns: str, names: tuple[str, ...], since_ms: int
) -> list[dict[str, Any]]:
    found = rows(
        conn,
        f"SELECT {columns}, {_CALLS} FROM calls WHERE at_ms >= ?"
        f" GROUP BY {columns} ORDER BY count(*) DESC, {columns}",
        (since_ms,),
    )
    told = [{**dict(zip(names, row, strict=False)), **_counted(row[len(names) :])} for row in found]
    return [{**each, "local": bool(each["local"])} if "local" in each else each for each in told]


def _swaps(conn: apsw.Connection, since_ms: int) -> dict[str, Any]:
    loads = [
        took
        for (took,) in rows(
            conn,
            "SELECT took_ms FROM swaps WHERE kind = 'load' AND at_ms >= ? ORDER BY took_ms",
            (since_ms,),
        )
    ]
    unloads = value(
        conn, "SELECT count(*) FROM swaps WHERE kind = 'unload' AND at_ms >= ?", (since_ms,)
    )
    return {
        "loads": len(loads),
        "unloads": int(unloads),
        "mean_ms": round(sum(loads) / len(loads), 3) if loads else None,
        # Nearest rank: the smallest that 95 of 100 do not exceed.
        "p95_ms": round(loads[-(-len(loads) * 95 // 100) - 1], 3) if loads else None,
    }


def _by_day(conn: apsw.Connection, since_ms: int, tz: tzinfo | None) -> list[dict[str, Any]]:
    """Return a row for each day with calls: the person's days, which not every hour fits."""
    told: dict[str, dict[str, Any]] = {}
    found = rows(
        conn, "SELECT at_ms, local, cost FROM calls WHERE at_ms >= ? ORDER BY at_ms", (since_ms,)
    )
    for at_ms, local, cost in found:
        day = f"{datetime.fromtimestamp(at_ms / 1000, tz):%Y-%m-%d}"
        row = told.setdefault(day, {"day": day, "local": 0, "cloud": 0, "cost": 0.0})
        row["local" if local else "cloud"] += 1
        row["cost"] += cost
    return [
        {**row, "local_share": round(row["local"] / (row["local"] + row["cloud"]), 4)}
        for row in told.values()
    ]
