"""Deriving again: items, indexes, facts, summaries and the profile, from the archive alone.

Promises: what is made again is what was there (same uid, state and text; same model, same seed), as
long as the rules, the settings and the person's decisions are the same. Items keep the vectors of
the texts that are still theirs. The work goes in steps, each one transaction that leaves memory
whole: stopped anywhere, every step is either as before or as it will be, and nothing is half there.
``difference`` shows what would come and go, tried on a copy, and changes nothing.
Refuses to know: how anything is derived.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from knowme import jobs, memory, states
from knowme.db import rows
from knowme.errors import InputError, ModelError
from knowme.home import Home
from knowme.lock import Lock

if TYPE_CHECKING:
    from knowme.seams import Vectors

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done). What it raises ends the work; what is done stays done."""
LAYERS = ("items", "index", "facts", "summaries", "profile")
"""What can be derived again, in the order in which one rests on another."""
DIFFER = ("facts", "profile")
STEP = 500
"""Messages, or items, in one transaction; a longer conversation is one all the same."""
COPY = "rebuild"
"""The folder of the copy that a difference is tried on, in the home's ``index``."""


@dataclass(frozen=True, slots=True)
class Belief:
    """A fact or a line of the profile, as a difference shows it. ``target``: fact, line."""

    target: str
    uid: str
    text: str
    state: str
    reason: str
    quote: str
    said_ms: int | None
    read_by: str

    @property
    def counts(self) -> bool:
        """Tell whether it is believed, or stands on the page."""
        return self.state in ("believed", "current")


@dataclass(frozen=True, slots=True)
class Difference:
    """What deriving again would change: what comes to count, what no longer would, and the rest.

    ``changed`` are those whose state or words change in any other way: (now, then).
    """

    learned: tuple[Belief, ...]
    lost: tuple[Belief, ...]
    changed: tuple[tuple[Belief, Belief], ...]


def rebuild(
    home: Home, what: str = "all", tell: Tell | None = None, *, model: bool = False
) -> dict[str, dict[str, int]]:
    """Derive again; returns layer -> counts of what was made.

    ``what`` is one of LAYERS, or all. With ``model`` the model of ``facts.role`` reads for facts
    once more; else what a model read stays, and the rules alone read again. Raises InputError,
    ModelError.
    """
    made: dict[str, dict[str, int]] = {}
    for layer in _layers(what, LAYERS):
        if layer == "facts":
            made[layer] = _facts(home, tell, model)
        else:
            made[layer] = _MAKERS[layer](home, tell)
    return made


def _layers(what: str, known: Sequence[str]) -> Sequence[str]:
    if what == "all":
        return known
    if what not in known:
        told = f"{what!r} cannot be rebuilt." if known is LAYERS else f"{what!r} has no difference."
        raise InputError(told, f"Use one of: {', '.join(known)}, all.")
    return (what,)


def _tell(tell: Tell | None, done: int, total: int, what: str) -> None:
    if tell is not None:
        tell(done, total, what)


# --- items and indexes --------------------------------------------------------------------------


def _items(home: Home, tell: Tell | None) -> dict[str, int]:
    """Make all items again, conversation by conversation, and embed what no vector is kept for."""
    with home.db.read() as conn:
        sizes = rows(
            conn,
            "SELECT c.id, (SELECT count(*) FROM messages m WHERE m.conversation_id = c.id)"
            " FROM conversations c ORDER BY c.id",
        )
    total, done, made = sum(size for _, size in sizes), 0, 0
    for part in _parts(sizes):
        ids = [conversation for conversation, _ in part]
        made += home.db.write(lambda conn, ids=ids: items_of(conn, ids))  # type: ignore[misc]
        done += sum(size for _, size in part)
        _tell(tell, done, total, "items")
    swept, embedded = home.db.write(memory.sweep), _embed(home, tell)
    home.db.write(memory.start_changes_anew)  # whoever follows may hold what was wrong
    return {"items": made, "swept": swept, "embedded": embedded}


def _parts(sizes: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Group conversations (id, messages) until there are STEP messages in a group."""
    part: list[tuple[int, int]] = []
    for each in sizes:
        part.append(each)
        if sum(size for _, size in part) >= STEP:
            yield part
            part = []
    if part:
        yield part


_OF = (
    "FROM items WHERE kind NOT IN ('summary', 'pattern')"
    " AND conversation_id IN (SELECT value FROM json_each(?))"
)


def items_of(conn: apsw.Connection, conversation_ids: Sequence[int]) -> int:
    """Make the items of these conversations again, with the keys of facts; returns how many.

    A vector stays with the words that it was made from.
    """
    listed = json.dumps(list(conversation_ids))
    spaces = memory.spaces(conn)
    kept = [(space, _vectors(conn, space, _ids(conn, listed))) for space in spaces]
    found = rows(
        conn,
        "SELECT id FROM messages WHERE conversation_id IN (SELECT value FROM json_each(?))"
        " UNION SELECT message_id " + _OF + " AND message_id NOTNULL",
        (listed, listed),
    )
    messages = [row[0] for row in found]
    memory.drop_items(conn, messages)
    memory.add_items(conn, messages)
    ids = _ids(conn, listed)
    texts = dict(zip(ids, memory.passages(conn, ids), strict=True))
    for space, vectors in kept:
        have = [item for item in ids if texts[item] in vectors]
        if have:
            memory.put_vectors(conn, space, have, _stack([vectors[texts[item]] for item in have]))
    return len(ids)


def _ids(conn: apsw.Connection, listed: str) -> list[int]:
    return [row[0] for row in rows(conn, f"SELECT id {_OF} ORDER BY id", (listed,))]


def _vectors(
    conn: apsw.Connection, space: memory.Space, item_ids: Sequence[int]
) -> dict[str, Vectors]:
    """Return text as embedded -> its vector."""
    have, vectors = memory.vectors_of(conn, space, item_ids)
    return dict(zip(memory.passages(conn, have), vectors, strict=True))


def _stack(vectors: Sequence[Vectors]) -> Vectors:
    import numpy as np

    return np.stack(vectors)


def _index(home: Home, tell: Tell | None) -> dict[str, int]:
    """Write all words again, fill the vector index anew, and embed what lacks a vector."""
    with home.db.read() as conn:
        ids = [row[0] for row in rows(conn, "SELECT id FROM items ORDER BY id")]
    for start in range(0, len(ids), STEP):
        part = ids[start : start + STEP]
        home.db.write(lambda conn, part=part: _words(conn, part))  # type: ignore[misc]
        _tell(tell, start + len(part), len(ids), "words")
    swept = home.db.write(memory.sweep)
    embedded = _embed(home, tell)
    home.db.write(memory.start_changes_anew)
    space = home.space()
    vectors = 0 if space is None else home.index(space).count()
    return {"words": len(ids), "swept": swept, "embedded": embedded, "vectors": vectors}


def _words(conn: apsw.Connection, item_ids: Sequence[int]) -> None:
    listed = json.dumps(list(item_ids))
    here = "SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?))"
    left = [row[0] for row in rows(conn, here, (listed,))]  # some may have gone meanwhile
    for table in ("item_fts", "item_tri"):
        conn.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(item,) for item in left])
    memory.write_words(conn, left)


def _embed(home: Home, tell: Tell | None) -> int:
    """Embed what lacks a vector; where the embedder cannot now, a job does it later."""
    from knowme import sync

    def told(done: int, total: int) -> None:
        _tell(tell, done, total, "vectors")

    try:
        return sync.reindex(home, told)
    except ModelError:
        home.db.write(lambda conn: jobs.enqueue(conn, "reindex", {}, unique_key="reindex"))
        return 0


# --- facts, summaries, profile ------------------------------------------------------------------


def _facts(home: Home, tell: Tell | None, model: bool) -> dict[str, int]:
    """Read everything again, and settle anew what is believed."""
    from knowme import extract, facts

    home.db.write(extract.start_over)
    learned = extract.catch_up(home, tell)
    if model:
        home.db.write(lambda conn: extract.start_over(conn, model=True))
        learned = learned.plus(extract.catch_up(home, tell, model=True))
    with home.db.read() as conn:
        states = facts.counts(conn)
    known = {name: states[name] for name in ("believed", "doubtful")}
    return {"messages": learned.messages, **known, "embedded": _embed(home, tell)}


def _summaries(home: Home, tell: Tell | None) -> dict[str, int]:
    """Make the summaries of all conversations again."""
    from knowme import summaries

    return {**summaries.rebuild(home, tell), "embedded": _embed(home, tell)}


def _profile(home: Home, tell: Tell | None) -> dict[str, int]:
    """Build the profile again from what is believed; what the person wrote stays."""
    from knowme import portrait

    # How far sentences were read: all of them are read again.
    home.db.write(lambda conn: states.drop(conn, portrait.STATE))
    return {"changes": portrait.build(home).changes}


_MAKERS: Mapping[str, Callable[[Home, Tell | None], dict[str, int]]] = {
    "items": _items,
    "index": _index,
    "summaries": _summaries,
    "profile": _profile,
}


# --- what would change --------------------------------------------------------------------------


def difference(
    home: Home, what: str = "all", tell: Tell | None = None, *, model: bool = False
) -> Difference:
    """Tell what deriving facts, the profile, or both again would change. Nothing is changed.

    Tried on a copy of memory.db within the home, which is deleted again. Raises InputError,
    ModelError, HomeError where another one is being tried.
    """
    layers = _layers(what, DIFFER)
    with _copied(home) as copy:
        before = beliefs(copy, layers)
        for layer in layers:
            rebuild(copy, layer, tell, model=model)
        after = beliefs(copy, layers)
    return compare(before, after)


def compare(before: Mapping[str, Belief], after: Mapping[str, Belief]) -> Difference:
    """Return how beliefs by name differ, in the order in which they were said. Pure."""
    learned, lost, changed = [], [], []
    both = {**before, **after}
    for name in sorted(both, key=lambda name: (both[name].said_ms or 0, name)):
        was, now = before.get(name), after.get(name)
        counted, counts = bool(was and was.counts), bool(now and now.counts)
        if counts and not counted and now:
            learned.append(now)
        elif counted and not counts and was:
            lost.append(now or was)
        elif was and now and (was.state, was.text) != (now.state, now.text):
            changed.append((was, now))
    return Difference(tuple(learned), tuple(lost), tuple(changed))


_BELIEFS = {
    "facts": "SELECT 'fact', uid, sentence, state, reason, quote, said_ms, read_by FROM facts"
    " WHERE retired_ms IS NULL",
    "profile": "SELECT 'line', uid, text, state, section, '', NULL, written_by FROM lines"
    " WHERE retired_ms IS NULL",
}


def beliefs(home: Home, layers: Sequence[str] = DIFFER) -> dict[str, Belief]:
    """Return all facts and lines that are not retired, by target and uid."""
    found: dict[str, Belief] = {}
    with home.db.read() as conn:
        for layer in layers:
            for row in rows(conn, _BELIEFS[layer]):
                one: Any = Belief(*row)
                found[f"{one.target} {one.uid}"] = one
    return found


@contextmanager
def _copied(home: Home) -> Iterator[Home]:
    """Give a home that is a copy of this one, with its models and its ledger; deleted afterwards.

    It lies within the home, where forgetting looks, and not where others could read it.
    """
    folder = home.path / "index" / COPY
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    with Lock(home.path / f"{COPY}.lock"):  # not in index: forgetting empties that
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir(mode=0o700)
        try:
            home.db.backup(folder / "memory.db")
            _take(home.path, folder, "USER_PROFILE.md")
            with Home(folder, home.config) as copy:
                # What a model is asked for the copy leaves (or not) as for the home itself.
                copy.__dict__["ledger"] = home.ledger
                copy.__dict__["models"] = home.models
                try:
                    yield copy
                finally:
                    del copy.__dict__["models"]  # closed by the home whose they are
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _take(home: Path, folder: Path, name: str) -> None:
    if (home / name).is_file():
        shutil.copyfile(home / name, folder / name)
