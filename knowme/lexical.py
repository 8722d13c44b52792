"""The words' side of search: FTS5 over own words and context, and signs for unspaced scripts.

Promises: no query is taken for a command; a query of common words costs no more than POSTINGS
matches. Refuses to know: vectors, ranks, what a hit is.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme.db import rows, value
from knowme.words import content_words, unspaced_pieces

FOUND = 200
"""How many items the words bring."""
POSTINGS = 6000
"""At most so many matches are scored by one query, rarest words first: the rest says little and
costs much."""
CONTEXT_WEIGHT = 0.35
"""bm25 weight of the context column beside 1 for an item's own words."""
COMMON = 500
"""A word in so many items is not counted anew for each query."""
FEW = 64
"""Under so many items bm25's idf says nothing: the share of the query that is covered stands in."""

Allowed = NDArray[np.int64] | None


class Lexical:
    """Finds items by words; keeps how many items have a common word until memory grows by 2%.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._kept: tuple[int, dict[str, int]] = (-1, {})

    def find(
        self, conn: apsw.Connection, text: str, total: int, allowed: Allowed = None
    ) -> dict[int, float]:
        """Return item -> score: bm25 divided by the total idf of the query, or the share covered.

        ``total`` is how many items there are. About 0 to 2; 1 when an item has every word once.
        Words that most items have find them all the same: nothing but them may have been asked for.
        """
        terms = content_words(text)
        inside = None if allowed is None else set(allowed.tolist())
        if total < FEW:
            found = _covered(conn, terms, total)
        else:
            found = self._bm25(conn, terms, total, filtered=inside is not None)
        found.update(_unspaced(conn, text))
        if inside is not None:
            found = {item: score for item, score in found.items() if item in inside}
        return dict(sorted(found.items(), key=lambda pair: -pair[1])[:FOUND])

    def _bm25(
        self, conn: apsw.Connection, terms: Sequence[str], total: int, filtered: bool
    ) -> dict[int, float]:
        counted = sorted((self._count(conn, term, total), term) for term in terms)
        possible = sum(max(0.0, math.log((total - df + 0.5) / (df + 0.5))) for df, _ in counted)
        chosen: list[str] = []
        cost = 0
        for df, term in counted:
            if df and (cost + df <= POSTINGS or (not chosen and df <= 2 * POSTINGS)):
                chosen.append(term)
                cost += df
        if not chosen:
            return {}
        if possible <= 0:  # every word stands in more than half of memory: bm25 tells none apart
            return _covered(conn, chosen, total)
        found = rows(
            conn,
            "SELECT rowid, -bm25(item_fts, 1.0, ?) FROM item_fts WHERE item_fts MATCH ?"
            " ORDER BY 2 DESC LIMIT ?",
            (CONTEXT_WEIGHT, _any(chosen), 3 * POSTINGS if filtered else FOUND),
        )
        return {item: score / possible for item, score in found}

    def _count(self, conn: apsw.Connection, term: str, total: int) -> int:
        counted_at, counts = self._kept
        if abs(total - counted_at) > 0.02 * total:
            counts = {}
            self._kept = (total, counts)
        count = counts.get(term)
        if count is None:
            count = int(
                value(conn, "SELECT count(*) FROM item_fts WHERE item_fts MATCH ?", (_any([term]),))
            )
            if count >= COMMON:  # a rare word is counted in no time, and its next item must count
                counts[term] = count
        return min(count, total)  # memory may have shrunk since


def _any(terms: Sequence[str]) -> str:
    """Write terms as an FTS5 expression; they are words, so nothing in them can end the quotes."""
    return " OR ".join(f'"{term}"' for term in terms)


def _covered(conn: apsw.Connection, terms: Sequence[str], total: int) -> dict[int, float]:
    found: defaultdict[int, float] = defaultdict(float)
    whole = 0.0
    for term in terms:
        match = rows(
            conn, "SELECT rowid FROM item_fts WHERE item_fts MATCH ?", (f'self: "{term}"',)
        )
        weight = math.log1p((max(0, total - len(match)) + 0.5) / (len(match) + 0.5))
        whole += weight
        for (item,) in match:
            found[item] += weight
    return {item: weight / whole for item, weight in found.items()}


def _unspaced(conn: apsw.Connection, text: str) -> dict[int, float]:
    """Return item -> share of the query's trigrams (or shorter runs) that it has.

    Only for scripts without spaces, whose words FTS5's tokenizer cannot tell apart.
    """
    pieces = unspaced_pieces(text)
    hits: Counter[int] = Counter()
    for piece in pieces:
        if len(piece) >= 3:
            sql, given = "SELECT rowid FROM item_tri WHERE item_tri MATCH ?", f'"{piece}"'
        else:
            sql, given = (
                "SELECT i.id FROM item_tri t JOIN items i ON i.id = t.rowid"
                " JOIN messages m ON m.id = i.message_id WHERE instr(plain(m.text), ?)",
                piece,
            )
        hits.update(row[0] for row in rows(conn, f"{sql} LIMIT {POSTINGS}", (given,)))
    return {item: number / len(pieces) for item, number in hits.items()}
