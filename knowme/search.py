"""Search: words and vectors, fused, with the neighbours and the reason for each hit.

The query's way: content words -> FTS5 (own words, neighbours' words) and vector -> nearest items;
the union with its neighbours is scored by ``fuse`` (pure); the best become hits. A fact is one more
key to the message it was read from, never a hit: what is shown are the words that were said.

Promises: no model call but the query's embedding; every hit says why it was found; without vectors
the words alone are searched, and each hit says so.
Refuses to know: prompts, surfaces, how an index or an embedder works.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme import memory
from knowme.dates import days_of
from knowme.db import rows
from knowme.egress import labelled
from knowme.errors import InputError, ModelError
from knowme.fuse import Candidates, Scores, Weights, fuse
from knowme.layout import ROLES, Layout
from knowme.lexical import FOUND, Lexical
from knowme.privacy import leave
from knowme.redact import secrets_in
from knowme.times import known_time, now_ms
from knowme.types import EmbedKind, Hit, Neighbour, Query
from knowme.words import WORD

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.memory import Space
    from knowme.seams import Vectors

DATE_FADE_DAYS = 7.0
MEAN_SAMPLE = 2048

WEIGHTS = Weights()

THRESHOLDS = {"onnx": 0.38, "local": 0.36, "static": 0.32, "hashing": 0.28, "none": 0.47}
"""Best score under which nothing counts as known, by embedder (bench/threshold.py): keeps 95% of
what is known. Embedders that were not measured take that of the static one."""


class Searcher:
    """Searches one home. Thread-safe; keeps the counts of words, the layout and the mean vector."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._layout = Layout()
        self._lexical = Lexical()
        self._mean: tuple[int, int, Vectors, Vectors] | None = None
        self._last: tuple[str, EmbedKind, int, Vectors] | None = None
        self._leave = leave(home.settings.privacy)

    def search(self, query: Query) -> list[Hit]:
        """Return the hits, best first: ``top_k`` of them, or what fits ``budget_tokens``.

        Raises InputError for an empty query or a bad filter.
        """
        _check(query)
        if not WORD.search(query.text):
            return []
        vector, space = self.embed(query.text)
        index = None if space is None else self.home.index(space)
        with self.home.db.read() as conn:
            layout = self._layout.caught_up(conn)
            allowed = _allowed(conn, query)
            if not layout.total or (allowed is not None and not allowed.size):
                return []
            words = self._lexical.find(conn, query.text, layout.total, allowed)
            dense: dict[int, float] = {}
            if index is not None and vector is not None:
                dense = dict(index.search(vector, max(FOUND, 2 * query.top_k), allowed))
            table, keys = _table(layout, words, dense, query)
            if not table.ids.size:
                return []
            mean = mean_key = 0.0
            if index is not None and vector is not None and space is not None:
                cosines = index.scores(vector, [*table.ids.tolist(), *keys.tolist()])
                table.cosine, table.key_cosine = np.split(cosines, [table.ids.size])
                means = self._mean_vectors(conn, space, layout.total)
                mean, mean_key = (float(each @ vector) for each in means)
            scores = fuse(table, WEIGHTS, mean, vector is not None, mean_key)
            order = np.argsort(-scores.total, kind="stable")
            if allowed is not None:
                order = order[np.isin(table.ids[order], allowed)]
            hits = _hits(conn, query, table, scores, order.tolist())
            return _with_facts(
                conn, hits, dict(zip(table.ids.tolist(), scores.key, strict=True)), keys
            )

    def threshold(self) -> float:
        """Return the score of the best hit under which nothing counts as known (see LOG.md)."""
        space = self.home.space()
        kind = "none" if space is None else str(space.spec.get("kind", ""))
        return THRESHOLDS.get(kind, THRESHOLDS["static"])

    def embed(self, text: str, kind: EmbedKind = "query") -> tuple[Vectors | None, Space | None]:
        """Return the vector (dims,) of what is asked or told now, and its space.

        None where words alone must do: the embedder is down, or is elsewhere and the text may not
        leave. The last one is kept: recall, routing and quotations ask for the same.
        """
        try:
            space, embedder = self.home.serving()
            if space is None or embedder is None or self._stays(text):
                return None, None
            last = self._last
            if last is None or last[:3] != (text, kind, space.id):
                with labelled("embedding", classes={"question": self._leave.policy("question")}):
                    last = self._last = (text, kind, space.id, embedder.embed([text], kind)[0])
            return last[3], space
        except ModelError:
            return None, None

    def _stays(self, text: str) -> bool:
        """Tell whether a query may not be embedded where the embedder is: elsewhere."""
        if not self.home.embeds_away():
            return False
        return not self._leave.may("question") or bool(secrets_in(text))

    def _mean_vectors(
        self, conn: apsw.Connection, space: Space, total: int
    ) -> tuple[Vectors, Vectors]:
        """Return the average vectors (dims,) of what was said and of facts, of even samples.

        Kept until memory grows by 5%.
        """
        if self._mean is not None:
            of_space, of_total, *means = self._mean
            if of_space == space.id and abs(total - of_total) <= 0.05 * of_total:
                return means[0], means[1]
        said = memory.mean_vector(conn, space, MEAN_SAMPLE)
        facts = memory.mean_vector(conn, space, MEAN_SAMPLE, of_facts=True)
        self._mean = (space.id, total, said, facts)
        return said, facts


def _check(query: Query) -> None:
    if not query.text.strip():
        raise InputError("The query is empty.", "Say what to search for.")
    if query.top_k < 1:
        raise InputError(f"top_k is {query.top_k}.", "Use a whole number from 1.")
    for name in ("now_ms", "since_ms", "until_ms"):
        at = getattr(query, name)
        if at is not None and not known_time(at):
            raise InputError(f"{name} is {at}, which no calendar has.", "Use ms since 1970.")


def _allowed(conn: apsw.Connection, query: Query) -> NDArray[np.int64] | None:
    """Return the items that the query's filters let through; None when there is no filter."""
    where: list[str] = []
    values: list[Any] = []
    for column, wanted in (
        ("i.kind", query.kinds), ("i.source", query.sources), ("m.speaker", query.speakers),
        ("c.external_id", query.conversations),
    ):  # fmt: skip
        if wanted:
            inside = f"{column} IN (SELECT value FROM json_each(?))"
            # A fact is never a hit: whatever kind it leads to is looked at in the end.
            where.append(f"({inside} OR i.kind = 'fact')" if column == "i.kind" else inside)
            values.append(json.dumps(list(wanted)))
    for sign, limit in ((">=", query.since_ms), ("<=", query.until_ms)):
        if limit is not None:
            where.append(f"i.at_ms {sign} ?")
            values.append(limit)
    if not where:
        return None
    found = rows(
        conn,
        "SELECT i.id FROM items i JOIN conversations c ON c.id = i.conversation_id"
        " LEFT JOIN messages m ON m.id = i.message_id WHERE " + " AND ".join(where),
        values,
    )
    return np.fromiter((row[0] for row in found), np.int64, len(found))


def _table(
    layout: Layout, words: Mapping[int, float], dense: Mapping[int, float], query: Query
) -> tuple[Candidates, NDArray[np.int64]]:
    """Lay out the candidates: what was found, and what stands directly beside it.

    Returns them, and the items of their keys: a fact that was found brings what it leads to.
    """
    pool = np.array(list({**words, **dense}), np.int64)
    pool = pool[pool < layout.roles.size]
    pool = pool[layout.roles[pool] > 0]
    keys = pool[layout.leads[pool] > 0]
    pool = np.concatenate((pool[layout.leads[pool] == 0], layout.leads[keys]))
    ids = np.unique(np.concatenate((pool, layout.before[pool], layout.after[pool])))
    ids = ids[layout.roles[ids] > 0]
    place = np.full(layout.roles.size, -1, np.int64)
    place[ids] = np.arange(ids.size)
    around, between = [], []
    for side in (layout.before, layout.after):
        at, passed = ids, np.zeros(ids.size, np.float32)
        for _ in range(WEIGHTS.reach):
            at = side[at]
            around.append(place[at])
            between.append(passed)
            passed = passed + layout.words[at]
    table = Candidates(
        ids=ids,
        bm25=np.array([words.get(item, 0.0) for item in ids.tolist()], np.float32),
        cosine=np.full(ids.size, np.nan, np.float32),
        dated=_dated(layout, ids, query),
        answers=layout.roles[ids] == ROLES["assistant"],
        around=np.stack(around),
        between=np.stack(between),
        keys=place[layout.leads[keys]],
        key_bm25=np.array([words.get(item, 0.0) for item in keys.tolist()], np.float32),
        key_cosine=np.full(keys.size, np.nan, np.float32),
    )
    return table, keys


def _dated(layout: Layout, ids: NDArray[np.int64], query: Query) -> NDArray[np.float32]:
    """Return how near each item's day is to the days that the query names: 1 on them, 0 far off."""
    now = now_ms() if query.now_ms is None else query.now_ms
    today = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now)).date()
    near = np.zeros(ids.size, np.float32)
    days = layout.days[ids].astype(np.float64)
    known = layout.days[ids] != layout.NO_DAY
    for first, last in days_of(query.text, today):
        off = np.maximum(np.maximum(first - days, days - last), 0.0)
        near = np.maximum(near, np.exp(-off / DATE_FADE_DAYS).astype(np.float32))
    return np.where(known, near, np.float32(0.0))


# --- hits ---------------------------------------------------------------------------------------

TOKEN_CHARS = 4
"""Characters a token, roughly: a budget of hits needs no tokenizer."""

_HIT = """SELECT i.id, i.uid, i.kind, i.source, c.external_id, c.title, i.role, i.speaker,
  coalesce(i.text, substr(plain(m.text), i.start + 1, i.end - i.start)), i.at_ms, i.message_id,
  m.external_id, m.origin, m.meta
FROM items i JOIN conversations c ON c.id = i.conversation_id
LEFT JOIN messages m ON m.id = i.message_id
WHERE i.id IN (SELECT value FROM json_each(?))"""


_BECAUSE = """SELECT m.id, m.external_id, c.source FROM because b
JOIN messages m ON m.id = b.message_id JOIN conversations c ON c.id = m.conversation_id
WHERE b.item_id = ? ORDER BY m.seq, m.id"""
_RESTING = ("summary", "pattern")
"""Kinds of items that rest on many messages: they have no neighbours."""
_TAGS = ("personality", "auto-extracted")
"""How a pattern came about (``learn/distil.py``)."""


def _hits(
    conn: apsw.Connection,
    query: Query,
    table: Candidates,
    scores: Scores,
    order: Sequence[int],
) -> list[Hit]:
    """Make the hits, best first, one a message, until top_k or the token budget is full."""
    hits: list[Hit] = []
    seen: set[int] = set()
    left = query.budget_tokens
    for start in range(0, len(order), 2 * query.top_k):
        part = order[start : start + 2 * query.top_k]
        details = {row[0]: row for row in rows(conn, _HIT, (json.dumps(table.ids[part].tolist()),))}
        for at in part:
            row = details[int(table.ids[at])]
            if row[10] in seen:
                continue
            if row[10] is not None:
                seen.add(row[10])
            hit = _hit(row, table, scores, at)
            if left is not None:
                left -= len(hit.text) // TOKEN_CHARS + 1
                if left < 0 and hits:
                    return _with_neighbours(conn, hits, query.neighbours)
            hits.append(hit)
            if len(hits) == query.top_k:
                return _with_neighbours(conn, hits, query.neighbours)
    return _with_neighbours(conn, hits, query.neighbours)


def _hit(row: tuple[Any, ...], table: Candidates, scores: Scores, at: int) -> Hit:
    cosine = float(table.cosine[at])
    why: dict[str, float | str] = {
        "words": round(float(scores.lexical[at]), 4),
        "meaning": round(float(scores.semantic[at]), 4),
        "date": round(float(scores.dated[at]), 4),
        "beside": round(float(scores.beside[at]), 4),
    }
    if math.isnan(cosine):
        why["note"] = "found by its words alone: no vector"
    (item, uid, kind, source, conversation, title, role, speaker, text, at_ms, message, external,
     origin, meta) = row  # fmt: skip
    said = message is not None  # else it rests on many, see _resting
    return Hit(
        item_id=item, uid=uid, kind=kind, source=source, conversation=conversation, title=title,
        role=role, speaker=speaker, text=text, at_ms=at_ms, score=float(scores.total[at]),
        distance=None if math.isnan(cosine) else 1.0 - cosine, why=why,
        message_ids=(message,) if said else (), external_ids=(external,) if said else (),
        origin=origin or "", metadata=json.loads(meta or "{}"),
    )  # fmt: skip


def _resting(conn: apsw.Connection, hits: list[Hit]) -> list[Hit]:
    """Say of the summaries and patterns among the hits which messages they rest on.

    Of a pattern also from which sources: what may leave goes by them.
    """
    if all(hit.message_ids for hit in hits):
        return hits
    made: list[Hit] = []
    for hit in hits:
        if not hit.message_ids:
            found = rows(conn, _BECAUSE, (hit.item_id,))
            ids, external = ((row[0] for row in found), (row[1] for row in found))
            hit = replace(hit, message_ids=tuple(ids), external_ids=tuple(external))
            if hit.kind == "pattern":
                sources = sorted({row[2] for row in found})
                hit = replace(hit, metadata={"tags": list(_TAGS), "sources": sources})
        made.append(hit)
    return made


def _with_facts(
    conn: apsw.Connection, hits: list[Hit], best: Mapping[int, int], keys: NDArray[np.int64]
) -> list[Hit]:
    """Say of the hits that a fact brought up which one it was: why["fact"]."""
    by = {hit.item_id: int(keys[best[hit.item_id]]) for hit in hits if best[hit.item_id] >= 0}
    if not by:
        return hits
    told = memory.text_of(conn, by.values())
    return [
        replace(hit, why={**hit.why, "fact": told[by[hit.item_id]]}) if hit.item_id in by else hit
        for hit in hits
    ]


def _with_neighbours(conn: apsw.Connection, hits: list[Hit], reach: int) -> list[Hit]:
    hits = _resting(conn, hits)
    if reach < 1:
        return hits
    return [
        hit if hit.kind in _RESTING else replace(hit, neighbours=_neighbours(conn, hit, reach))
        for hit in hits
    ]


def _neighbours(conn: apsw.Connection, hit: Hit, reach: int) -> tuple[Neighbour, ...]:
    found: list[Neighbour] = []
    for order, sign, step in (("DESC", "<", -1), ("ASC", ">", 1)):
        near = rows(
            conn,
            "SELECT m.id, m.external_id, m.role, m.speaker, plain(m.text), m.at_ms, m.meta"
            " FROM messages m"
            " JOIN messages me ON me.id = ? WHERE m.conversation_id = me.conversation_id"
            f" AND (m.seq, m.id) {sign} (me.seq, me.id) AND m.retired_ms IS NULL AND m.recall"
            f" ORDER BY m.seq {order}, m.id {order} LIMIT ?",
            (hit.message_ids[0], reach),
        )
        for away, (message, external, role, name, text, at, meta) in enumerate(near, start=1):
            speaker = memory.named(hit.source, role, name, json.loads(meta))
            found.append(Neighbour(message, external, speaker, role, text, at, step * away))
    return tuple(sorted(found, key=lambda neighbour: neighbour.offset))
