"""The teacher's files: what was taught, and what was read for it.

    runs/teacher/ pairs.jsonl paraphrases.jsonl   rows with words, each with because
                  requests.jsonl                  what a batch that is on its way shows, and names
                  taught.jsonl batches.json       numbers only: what was read, what was submitted

Promises: a row is on disk when it is said to be kept; a line that a kill has cut is no row; nothing
is written of a message that is being forgotten.
Refuses to know: who teaches, what a pair is worth.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from knowme.db import rows, sync
from knowme.errors import StoreError
from knowme.learn import batches, pairs, runs
from knowme.times import now_ms
from knowme.types import Pair

if TYPE_CHECKING:
    from knowme.home import Home

FOLDER = "teacher"
PAIRS, PARAPHRASES, REQUESTS = "pairs.jsonl", "paraphrases.jsonl", "requests.jsonl"
TAUGHT, BATCHES = "taught.jsonl", "batches.json"


def folder(path: Path) -> Path:
    """Return the teacher's folder in a home, made where it lacks."""
    found = path / runs.FOLDER / FOLDER
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found


def taught(home: Home, purpose: str) -> Iterator[Pair]:
    """Yield what was taught for a purpose: kinds teacher and paraphrase, each text once.

    What rests on a message that was retired since is not among it.
    """
    read = [
        pair
        for name in (PAIRS, PARAPHRASES)
        for pair in pairs.read(home.path / runs.FOLDER / FOLDER / name)
        if pair.purpose == purpose
    ]
    rest = sorted({number for pair in read for number in pair.because})
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT id FROM messages WHERE retired_ms IS NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            (json.dumps(rest),),
        )
    stands = {number for (number,) in found}
    seen: set[str] = set()
    for pair in read:
        if pair.uid not in seen and stands.issuperset(pair.because):
            seen.add(pair.uid)
            yield pair


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; a last one that a kill has cut is none."""
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    yield told


def append(path: Path, told: Sequence[Mapping[str, Any]]) -> None:
    """Append rows, synced; a line that a kill has cut is cut off first."""
    data = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
            file.seek(0)
            end = file.read().rfind(b"\n") + 1
            file.truncate(end)
        file.seek(end)
        file.write(data.encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def done_of(path: Path, purpose: str, again: bool) -> set[int]:
    """Return the messages that were read for a purpose, or are on their way."""
    here = folder(path)
    asked: set[int] = set()
    done: set[int] = set()
    for told in rows_of(here / TAUGHT):
        ids = set(_spread(told.get("ids", ())))
        if told.get("purpose") != purpose or not ids:
            continue
        asked = asked - ids if told.get("state") == "free" else asked | ids
        done |= ids if told.get("state") == "done" else set()
    busy = {
        number
        for entry in batches.entries(here / BATCHES)
        if entry.open and entry.purpose == purpose
        for ids in entry.requests.values()
        for number in ids
    }
    return done | busy | (set() if again else asked)


def _ranges(ids: Iterable[int]) -> list[list[int]]:
    made: list[list[int]] = []
    for each in sorted(set(ids)):
        if made and made[-1][1] == each - 1:
            made[-1][1] = each
        else:
            made.append([each, each])
    return made


def _spread(ranges: Any) -> Iterator[int]:
    with suppress(TypeError, ValueError):
        for first, last in ranges:
            yield from range(int(first), int(last) + 1)


def note(home: Home, purpose: str, state: str, ids: Iterable[int], **more: Any) -> None:
    """Note in taught.jsonl, in numbers alone: begun, done, or free (nothing was taken on)."""
    row = {"purpose": purpose, "state": state, "ids": _ranges(ids), "at_ms": now_ms(), **more}
    append(folder(home.path) / TAUGHT, [row])


def none_forgets(conn: apsw.Connection) -> None:
    """Raise StoreError while an erasure rewrites files: what is written now could outlive it."""
    if next(iter(conn.execute("SELECT 1 FROM erasures WHERE state = 'planned' LIMIT 1")), None):
        raise StoreError("Something is being forgotten right now.", "knowme forget --resume")


def fallen(conn: apsw.Connection, ids: Iterable[int]) -> set[int]:
    """Return those of these messages that are not in the archive any more."""
    found = rows(
        conn,
        "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM messages)",
        (json.dumps(sorted(set(ids))),),
    )
    return {number for (number,) in found}


def keep(home: Home, name: str, made: Sequence[Pair]) -> int:
    """Append pairs that rest on messages that still stand; returns how many are new.

    It happens within a write of memory.db, so that it is either before an erasure's plan, and
    then the erasure finds the rows, or behind it, and then they are not written. Raises StoreError.
    """
    path = folder(home.path) / name

    def write(conn: apsw.Connection) -> int:
        none_forgets(conn)
        known = {str(told.get("uid")) for told in rows_of(path)}
        rest = {number for pair in made for number in pair.because}
        stands = {
            each
            for (each,) in rows(
                conn,
                "SELECT id FROM messages WHERE retired_ms IS NULL"
                " AND id IN (SELECT value FROM json_each(?))",
                (json.dumps(sorted(rest)),),
            )
        }
        fresh = {
            pair.uid: pair
            for pair in made
            if pair.uid not in known and stands.issuperset(pair.because)
        }
        if fresh:
            append(path, [pairs.row(pair) for pair in fresh.values()])
        return len(fresh)

    return home.db.write(write)
