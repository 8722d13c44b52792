"""Forgetting: what is chosen goes from everywhere, and the receipt says how that was proven.

    planned   what goes is written down (numbers, no words), and buried against coming back
    erased    files beside memory.db, then every table, have lost it
    wiped     indexes, caches, free pages and the write-ahead log have lost it
    done      it was asked for by search, in every table and among the bytes of every file

Promises: nothing goes that ``plan`` did not show; everything else stays as it was. A step that was
cut is taken up again by ``resume``, to the same end. While it works no other process may open the
home; where one has it open, nothing is begun. The receipt names what cannot be reached, and holds
no word of what was erased. Where a probe finds something, it is not done and says so.
Refuses to know: what is chosen (``scope.py``), how tables are cleaned (``erasure.py``) and files
(``traces.py``), how bytes are looked through (``probes.py``).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from knowme import jobs, memory, portrait, tombstones
from knowme.db import rows, value
from knowme.errors import InputError, StoreError
from knowme.forget import erasure, traces
from knowme.forget.probes import Needles, in_file, in_rows, in_tables
from knowme.forget.scope import SAMPLES, Plan, receipts_of, texts
from knowme.times import now_ms
from knowme.types import Query

if TYPE_CHECKING:
    from knowme.home import Home

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done)."""

BATCH = 500
OURS = ("memory.db", "memory.db-wal", "memory.db-shm", "index", "runs", "USER_PROFILE.md")
"""What must hold nothing any more. What else in the home holds it is named, not touched."""
HISTORY = "chat_history"
_NAMES = {
    "conversations": "title, meta",
    "messages": "plain(text), raw, meta, speaker",
    "marks": "source",
}
"""Tables that hold names of files and conversations, which are a source's own and stay with what is
kept; their columns that hold something else."""
_TEXT = (".md", ".json", ".jsonl", ".txt", ".yaml", "")
"""Ends of files that are looked through word by word, too."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was forgotten, without the words. ``probed`` is how it was looked for, and found."""

    id: int
    at_ms: int
    what: str
    state: str
    counts: Mapping[str, int]
    unreachable: tuple[str, ...]
    probed: Mapping[str, Any]
    done_ms: int | None


# --- erasing ------------------------------------------------------------------------------------


def erase(home: Home, plan: Plan, progress: Tell | None = None) -> Receipt:
    """Erase what the plan showed, prove it, and return the receipt.

    Raises HomeError, with their pids, while other processes have the home open: nothing is begun.
    Raises InputError where there is nothing to forget, StoreError where a step failed or something
    was found: ``resume`` goes on from there.
    """
    if not plan.messages or plan.needles is None:
        raise InputError("There is nothing to forget.", "See: knowme forget --help")
    with home.db.alone():
        _page(home)  # what the person changed in it by hand comes first
        number = home.db.write(lambda conn: _begin(conn, plan))
        _reached("planned")
        return _carry_on(home, number, progress, _texts_of(home, plan))


def resume(home: Home, progress: Tell | None = None) -> list[Receipt]:
    """Bring every erasure that was cut to its end. Raises as ``erase`` does."""
    with home.db.read() as conn:
        left = rows(conn, "SELECT id FROM erasures WHERE state <> 'done' ORDER BY id")
    if not left:
        return []
    with home.db.alone():
        return [_carry_on(home, number, progress) for (number,) in left]


def receipts(conn: apsw.Connection, limit: int = 100) -> list[Receipt]:
    """Return the receipts, the newest first."""
    return [
        _receipt(row)
        for row in rows(conn, f"SELECT {_COLUMNS} FROM erasures ORDER BY id DESC LIMIT ?", (limit,))
    ]


_COLUMNS = "id, at_ms, what, state, counts, unreachable, probed, done_ms"


def _receipt(row: Sequence[Any]) -> Receipt:
    number, at_ms, what, state, counts, unreachable, probed, done_ms = row
    return Receipt(
        number, at_ms, what, state, json.loads(counts), tuple(json.loads(unreachable)),
        json.loads(probed), done_ms,
    )  # fmt: skip


def _texts_of(home: Home, plan: Plan) -> list[str]:
    """Return some of the words, to search for them when they are gone."""
    with home.db.read() as conn:
        said = texts(conn, plan.messages[:: max(1, len(plan.messages) // SAMPLES)], SAMPLES)
    return [each for each in (plan.what.text, *said) if each]


def _begin(conn: apsw.Connection, plan: Plan) -> int:
    """Write down what goes and bury it, in one transaction: from here on nothing brings it back."""
    assert plan.needles is not None
    at_ms = now_ms()
    listed = json.dumps(plan.messages)
    told = {
        "messages": plan.messages,
        "answers": plan.answers,
        "titles": plan.titles,
        "needles": plan.needles.told(),
    }
    conn.execute(
        "INSERT INTO erasures(at_ms, what, state, plan, unreachable) VALUES(?, ?, 'planned', ?, ?)",
        (at_ms, plan.what.kind, json.dumps(told), json.dumps(plan.unreachable)),
    )
    number = conn.last_insert_rowid()
    tombstones.bury(
        conn,
        number,
        at_ms,
        _dead(conn, listed),
        kept=_beside(conn, listed),
        titles=_titled(conn, plan.titles),
        phrase=plan.what.text,
    )
    return number


def _dead(conn: apsw.Connection, listed: str) -> list[tombstones.Dead]:
    found = rows(
        conn,
        "SELECT c.source, c.external_id, m.external_id, m.role, plain(m.text), m.at_ms,"
        " NOT EXISTS (SELECT 1 FROM messages o WHERE o.conversation_id = m.conversation_id"
        "  AND o.external_id = m.external_id AND o.id NOT IN (SELECT value FROM json_each(?1)))"
        " FROM messages m JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.id IN (SELECT value FROM json_each(?1))",
        (listed,),
    )
    return [tombstones.Dead(*row) for row in found]


def _beside(conn: apsw.Connection, listed: str) -> list[tuple[str, str, str]]:
    """Return what stays of the documents that lose a piece."""
    found: list[Any] = rows(
        conn,
        "SELECT c.source, c.external_id, plain(m.text) FROM messages m"
        " JOIN conversations c ON c.id = m.conversation_id WHERE m.conversation_id IN"
        " (SELECT conversation_id FROM messages WHERE role = 'document'"
        "  AND id IN (SELECT value FROM json_each(?1)))"
        " AND m.id NOT IN (SELECT value FROM json_each(?1))",
        (listed,),
    )
    return found


def _titled(conn: apsw.Connection, conversations: Sequence[int]) -> list[tuple[str, str, str]]:
    found: list[Any] = rows(
        conn,
        "SELECT source, external_id, title FROM conversations"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(conversations),),
    )
    return found


def _carry_on(home: Home, number: int, progress: Tell | None, said: Sequence[str] = ()) -> Receipt:
    """Take an erasure from the state it is in to its end."""
    tell = progress or (lambda done, total, note: None)
    with home.db.read() as conn:
        state, text = rows(conn, "SELECT state, plan FROM erasures WHERE id = ?", (number,))[0]
    told = json.loads(text)
    needles = Needles.read(told["needles"])
    if state == "planned":
        traces.clean(home, number, needles, told["messages"])
        _reached("files")
        _rows(home, number, told, needles, tell)
        state = "erased"
    if state == "erased":
        tell(0, 0, "wiping free pages and caches")
        _page(home)
        _wipe(home)
        home.db.write(lambda conn: _note(conn, number, state="wiped"))
        _reached("wiped")
    tell(0, 0, "looking for it everywhere")
    with home.db.read() as conn:  # some pieces were found in beliefs that are kept
        needles = Needles.read(json.loads(_plan_text(conn, number))["needles"])
    return _prove(home, number, needles, said)


def _plan_text(conn: apsw.Connection, number: int) -> str:
    return str(value(conn, "SELECT plan FROM erasures WHERE id = ?", (number,)))


def _note(conn: apsw.Connection, number: int, **columns: Any) -> None:
    sets = ", ".join(f"{name} = ?" for name in columns)
    conn.execute(f"UPDATE erasures SET {sets} WHERE id = ?", (*columns.values(), number))


def _rows(home: Home, number: int, told: Mapping[str, Any], needles: Needles, tell: Tell) -> None:
    """Erase the rows, some hundred messages a transaction; then the logs, and say so."""
    with home.db.read() as conn:
        left = [
            each
            for (each,) in rows(
                conn,
                "SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
                (json.dumps(told["messages"]),),
            )
        ]
    total = len(left)
    home.db.maintain(lambda conn: conn.pragma("secure_delete", True))
    for start in range(0, total, BATCH):
        part = left[start : start + BATCH]
        home.db.write(lambda conn, part=part: _batch(conn, number, part, told["answers"]))  # type: ignore[misc]
        _reached("batch")
        tell(min(start + BATCH, total), total, "messages erased")
    home.db.write(lambda conn: _logs(conn, number, told, needles))
    _reached("erased")


def _batch(conn: apsw.Connection, number: int, ids: Sequence[int], answers: Sequence[int]) -> None:
    # The receipts that these messages belong to go with them; the rest at the end.
    touching = receipts_of(conn, set(ids)) & set(answers)
    _count(conn, number, erasure.messages(conn, ids, sorted(touching), now_ms()))


def _count(conn: apsw.Connection, number: int, more: Mapping[str, int]) -> None:
    counts = Counter(
        json.loads(str(value(conn, "SELECT counts FROM erasures WHERE id = ?", (number,))))
    )
    counts.update(more)
    _note(conn, number, counts=json.dumps({k: n for k, n in sorted(counts.items()) if n}))


def _logs(conn: apsw.Connection, number: int, told: Mapping[str, Any], needles: Needles) -> None:
    counts = erasure.messages(conn, (), told["answers"], now_ms())
    counts["titles"] += erasure.untitled(conn, told["titles"])
    needles.without(erasure.standing(conn, needles))
    counts.update(erasure.scrub(conn, needles))
    _count(conn, number, counts)
    if any(memory.missing(conn, space.id, 1) for space in memory.spaces(conn)):
        jobs.enqueue(conn, "reindex", {}, unique_key="reindex")  # of facts that hold again
    _note(conn, number, state="erased", plan=json.dumps({**told, "needles": needles.told()}))


def _page(home: Home) -> None:
    """Bring the profile and its page up to date; a page that nobody builds is the person's own."""
    if home.settings.profile.build:
        portrait.build(home)


def _wipe(home: Home) -> None:
    home.forget_caches()
    try:
        home.db.maintain(erasure.purge)
    except StoreError as error:
        raise StoreError(
            f"It is erased from every table, but free pages may still hold it. {error.message}",
            "Run: knowme forget --resume",
        ) from error


# --- proving it ---------------------------------------------------------------------------------


def _prove(home: Home, number: int, needles: Needles, said: Sequence[str]) -> Receipt:
    """Ask for it by every route, and write the receipt. Raises StoreError where it is found."""
    with home.db.read() as conn:
        tables = in_tables(conn, needles)
        called = 0
        for name in _NAMES.keys() & tables.keys():
            listed = conn.execute(f"SELECT 0, {_NAMES[name]} FROM {name}")
            if not any(in_rows(needles, listed)):
                called += tables.pop(name)
        unreachable = json.loads(
            str(value(conn, "SELECT unreachable FROM erasures WHERE id = ?", (number,)))
        )
    found, others = _in_files(home.path, needles)
    hits = _found_again(home, needles, said)
    probed = {
        "pieces": len(needles),
        "tables": tables,
        "files": found,
        "search": {"asked": len(said), "found": hits},
    }
    unreachable += [each for each in others if each not in unreachable]
    unreachable += traces.beyond(home.path, number)
    if called:
        unreachable.append(f"the names of conversations and files that stay ({called} rows)")
    clean = not (tables or found or hits)

    def write(conn: apsw.Connection) -> Receipt:
        _note(conn, number, probed=json.dumps(probed), unreachable=json.dumps(unreachable))
        if clean:
            _note(conn, number, state="done", plan="{}", done_ms=now_ms())
        else:  # the next time, from the step on that left it
            _note(conn, number, state="planned" if tables else "erased")
        row = conn.execute(f"SELECT {_COLUMNS} FROM erasures WHERE id = ?", (number,)).fetchone()
        assert row is not None
        return _receipt(row)

    receipt = home.db.write(write)
    home.db.maintain(erasure.emptied)
    _reached("done")
    if not clean:
        where = ", ".join([*(f"table {name}" for name in tables), *found])
        raise StoreError(
            f"Some of it still stands in {where or 'what search finds'}.",
            "Run: knowme forget --resume (and report this: it is a bug)",
        )
    return receipt


def _found_again(home: Home, needles: Needles, said: Sequence[str]) -> int:
    """Search for the words; returns how many hits hold some. Nothing leaves."""
    if not said or home.embeds_away():
        return 0
    return sum(
        needles.stands(hit.text, *(each.text for each in hit.neighbours))
        for text in said
        for hit in home.search(Query(text[:2000], now_ms=now_ms()))
    )


def _in_files(path: Path, needles: Needles) -> tuple[list[str], list[str]]:
    """Return the files of ours that hold pieces, and those that are not ours to change.

    Backups are named without a look: they are not ours to change either.
    """
    found: list[str] = []
    others: list[str] = []
    for folder, folders, files in os.walk(path):
        here = Path(folder).relative_to(path)
        if not here.parts:
            folders[:] = [each for each in folders if each != "backups"]
        for name in sorted(files):
            told = str(here / name)
            if ".before-restore-" in name:
                continue
            try:
                holds = bool(in_file(path / told, needles))
                if not holds and (here / name).suffix in _TEXT:
                    holds = needles.stands((path / told).read_bytes())
            except OSError:
                continue
            if holds:
                (found if (here / name).parts[0] in (*OURS, HISTORY) else others).append(told)
    return found, others


def _reached(step: str) -> None:
    """Do nothing. The tests kill the process here: after each step that changes the disk."""
