"""The turns of a conversation that have left its window, where a question needs them back.

Promises: what comes back was said so, word for word, with its class: what may not leave does not
leave as a quotation either. Nothing while all of it is in the window.
Refuses to know: what else is recalled, how much of it a prompt bears.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme import archive, memory, sessions
from knowme.context import PER_MESSAGE, sources_of
from knowme.dates import days_of
from knowme.db import rows
from knowme.fuse import Candidates, Weights, fuse
from knowme.layout import DAY_MS
from knowme.search import DATE_FADE_DAYS
from knowme.sessions import SOURCE, Session
from knowme.summaries import vectors_of
from knowme.times import now_ms
from knowme.types import Hit
from knowme.wire import estimate_tokens
from knowme.words import content_words, stem, stems, unspaced_pieces

if TYPE_CHECKING:
    from knowme.seams import Vectors

DETAILS = 64
"""Turns that are offered, at most: the budget of what is recalled decides how many are shown."""
K1, B = 1.2, 0.75
WEIGHTS = Weights(answer_penalty=0.0)
"""As for what is recalled, but here an answer counts for what it says, as any turn does."""
BEARS = 0.5
"""The least score of the best turn, as a share of recall's threshold (LOG.md): on LoCoMo it keeps
99.5% of the questions that the conversation answers, and lets 71% of others through."""
LETTERS_A_WORD = 6


class _Said(NamedTuple):
    id: int
    seq: int
    role: str
    at_ms: int | None
    text: str


def detail(
    conn: apsw.Connection,
    session: Session,
    question: str,
    budget: int,
    meaning: tuple[Vectors, memory.Space] | None = None,
    at_ms: int | None = None,
    least: float = 0.0,
    limit: int = DETAILS,
) -> list[Hit]:
    """Return the turns of this conversation that have left the window and bear on the question.

    The assistant's, too, which ordinary recall does not hold. Best first, ranked as recall ranks
    (``fuse``): their words by Okapi BM25 (Robertson et al. 1994) over this conversation, their day,
    and their meaning where their block has been embedded. ``meaning`` is the question's vector
    (dims,) with its space, None: words alone; ``at_ms`` is when it is asked ("last week"). Where
    the best scores under ``least``, nothing bears on it.
    ``budget`` are the tokens that turns have in the window: what is in it is left out, but for
    turns that may fall with this very question. ``metadata`` of a hit: ``turn``, its class, and
    ``rests_on``, the sources of memory that it may repeat (see ``sessions.classed``).
    """
    upto = _gone(session, budget)
    asked = _terms(question)
    if upto < 0 or not asked:
        return []
    said = _left(conn, session.id, upto)
    if not said:
        return []
    table, mean = _table(conn, session.id, said, asked, meaning)
    table.dated = _dated(said, question, now_ms() if at_ms is None else at_ms)
    scores = fuse(table, WEIGHTS, mean, vectors=not bool(np.isnan(table.cosine).all()))
    if scores.total.max() < least:
        return []
    own = set(asked)
    best: list[tuple[float, _Said]] = []
    for at in np.argsort(-scores.total, kind="stable").tolist():
        if len(best) == limit or scores.total[at] <= 0:
            break
        again = said[at].text.rstrip().endswith(("?", "？")) and stems(said[at].text) <= own
        if not again:  # the same question, asked before, tells nothing
            best.append((float(scores.total[at]), said[at]))
    return _as_hits(conn, session, best)


def _gone(session: Session, budget: int) -> int:
    """Return the seq up to which turns have left the window or may now; -1: none has."""
    full = half = 0
    for turn in reversed(session.turns):
        full += estimate_tokens(turn.text) + PER_MESSAGE
    if full > budget:  # what falls now leaves half of it, or less
        for turn in reversed(session.turns):
            half += estimate_tokens(turn.text) + PER_MESSAGE
            if half > budget // 2:
                return max(session.anchor_seq, turn.seq)
    return session.anchor_seq


def _terms(question: str) -> list[str]:
    stemmed = [stem(word) for word in content_words(question)]
    return list(dict.fromkeys((*stemmed, *unspaced_pieces(question))))


def _left(conn: apsw.Connection, number: int, upto: int) -> list[_Said]:
    found = rows(
        conn,
        "SELECT id, seq, role, at_ms, plain(text) FROM messages WHERE conversation_id = ?"
        " AND seq <= ? AND retired_ms IS NULL AND role IN ('user', 'assistant') ORDER BY seq, id",
        (number, upto),
    )
    return [_Said(*row) for row in found if row[4].strip()]


def _table(
    conn: apsw.Connection,
    number: int,
    said: Sequence[_Said],
    asked: Sequence[str],
    meaning: tuple[Vectors, memory.Space] | None,
) -> tuple[Candidates, float]:
    """Lay out all turns for ``fuse``; returns them with the question's mean cosine to them."""
    many = len(said)
    cosine, mean = np.full(many, np.nan, np.float32), 0.0
    if meaning is not None:
        ids, vectors = vectors_of(conn, number, meaning[1])
        place = {each.id: at for at, each in enumerate(said)}
        near = vectors @ meaning[0]
        for message, value_ in zip(ids.tolist(), near.tolist(), strict=True):
            if message in place:
                cosine[place[message]] = value_
        mean = float(near.mean()) if near.size else 0.0
    length = np.array([len(each.text) / LETTERS_A_WORD for each in said], np.float32)
    around, between = [], []
    for step in (-1, 1):
        passed = np.zeros(many, np.float32)
        for reach in range(1, WEIGHTS.reach + 1):
            at = np.arange(many) + step * reach
            outside = (at < 0) | (at >= many)
            around.append(np.where(outside, -1, at))
            between.append(passed)
            passed = passed + np.where(outside, 0.0, length[np.clip(at, 0, many - 1)])
    table = Candidates(
        ids=np.array([each.id for each in said], np.int64),
        bm25=_bm25(said, asked, length),
        cosine=cosine,
        dated=np.zeros(many, np.float32),
        answers=np.zeros(many, np.bool_),
        around=np.stack(around).astype(np.int64),
        between=np.stack(between).astype(np.float32),
    )
    return table, mean


def _dated(said: Sequence[_Said], question: str, at_ms: int) -> NDArray[np.float32]:
    """Return how near each turn's day is to the days that the question names, as recall does."""
    near = np.zeros(len(said), np.float32)
    days = np.array([np.nan if s.at_ms is None else s.at_ms // DAY_MS for s in said], np.float64)
    for first, last in days_of(question, datetime.fromtimestamp(at_ms / 1000, UTC).date()):
        off = np.maximum(np.maximum(first - days, days - last), 0.0)
        near = np.maximum(near, np.nan_to_num(np.exp(-off / DATE_FADE_DAYS)).astype(np.float32))
    return near


def _bm25(
    said: Sequence[_Said], asked: Sequence[str], length: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the bm25 of each turn, divided by the weight of all that is asked: about 0 to 2."""
    many, usual = len(said), max(1.0, float(length.mean()))
    counted: list[tuple[int, Counter[str]]] = []
    unspaced = [term for term in asked if unspaced_pieces(term)]
    # A word begins with its stem: only those that begin with one that is asked are looked at.
    possible = re.compile(rf"\b(?:{'|'.join(map(re.escape, asked))})\w*")
    stem_of = lru_cache(maxsize=None)(stem)  # for as long as this question is looked at
    for at, each in enumerate(said):
        low = each.text.lower()
        have = Counter(map(stem_of, possible.findall(low)))
        have.update({term: low.count(term) for term in unspaced if term in low})
        if have:
            counted.append((at, have))
    scores = np.zeros(many, np.float32)
    whole = 0.0
    for term in asked:
        df = sum(1 for _, have in counted if have[term])
        weight = math.log(1 + (many - df + 0.5) / (df + 0.5))
        whole += weight
        for at, have in counted:
            if tf := have[term]:
                norm = K1 * (1 - B + B * float(length[at]) / usual)
                scores[at] += weight * tf * (K1 + 1) / (tf + norm)
    return scores / max(whole, 1e-9)


def _as_hits(
    conn: apsw.Connection, session: Session, best: Sequence[tuple[float, _Said]]
) -> list[Hit]:
    said = archive.messages(conn, [each.id for _, each in best])
    ordered = sorted(said.values(), key=lambda message: (message.seq, message.id))
    turns = {turn.message_id: turn for turn in sessions.classed(conn, ordered)}
    return [
        Hit(
            item_id=0,
            uid=memory.uid(SOURCE, session.external_id, said[each.id].external_id, 0),
            kind="message", source=SOURCE, conversation=session.external_id, title="",
            role=each.role, speaker="", text=turns[each.id].text, at_ms=each.at_ms, score=score,
            distance=None, why={"note": "said earlier in this conversation"},
            message_ids=(each.id,), external_ids=(said[each.id].external_id,),
            metadata={"turn": turns[each.id].cls, "rests_on": list(sources_of(turns[each.id]))},
        )
        for score, each in best
    ]  # fmt: skip


def is_detail(hit: Hit) -> bool:
    """Tell whether a hit is a turn of this very conversation (from ``detail``)."""
    return "turn" in hit.metadata


def was_recalled(hit: Hit) -> bool:
    """Tell whether recall found it, be it a turn of this conversation or not."""
    return not is_detail(hit) or bool(hit.metadata.get("recalled"))


def merged(hits: Sequence[Hit], details: Sequence[Hit]) -> list[Hit]:
    """Return what recall found and the turns that came back, best first, each message once.

    By reciprocal rank (Cormack, Clarke, Buettcher 2009): the two scores are not alike. What both
    found is a turn of this conversation, with the score that recall gave it.
    """
    here = {hit.message_ids: hit.metadata for hit in details}
    ranks: dict[tuple[int, ...], float] = {}
    by: dict[tuple[int, ...], Hit] = {}
    for ranked in (hits, details):
        for rank, hit in enumerate(ranked):
            ranks[hit.message_ids] = ranks.get(hit.message_ids, 0.0) + 1.0 / (60 + rank)
            if hit.message_ids in here and hit.message_ids not in by and not is_detail(hit):
                more = {**hit.metadata, **here[hit.message_ids], "recalled": True}
                hit = replace(hit, metadata=more)
            by.setdefault(hit.message_ids, hit)
    return [by[ids] for ids in sorted(by, key=lambda ids: -ranks[ids])]
