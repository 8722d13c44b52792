"""What lies beside memory.db and may hold erased words: typed lines, data sets, media.

Promises: a file is rewritten whole or not at all, and only where it holds something; a run that was
trained on an erased row is marked stale, by name. Doing it again changes nothing.
Refuses to know: what is erased from tables; what is not ours (configuration, workspace files,
backups): that is named in the receipt. The page of the profile (``portrait.py`` writes it).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme.adoptions import STALE
from knowme.db import rows, sync
from knowme.errors import StoreError
from knowme.forget.probes import Needles
from knowme.times import iso, now_ms

if TYPE_CHECKING:
    from knowme.home import Home

HISTORY = "chat_history"
TEACHER = "teacher"
"""The folder in runs/ of what a teacher wrote: it is no run, and nothing was trained in it."""
SAID = ("answers.jsonl", "hearsay.jsonl", "interview.jsonl")
"""What a run's model said. Any answer may tell what the model was trained on, in other words: with
one row of the data all of them go."""
LEFT = ("notebook.json", "exported.json")
"""Beside a run whose data was written out, beyond the home."""
_REFERS = frozenset({"message_id", "message_ids", "because", "evidence"})


def clean(home: Home, number: int, needles: Needles, ids: list[int]) -> None:
    """Take what is erased out of the files beside memory.db; the tables still hold it.

    Raises StoreError where a file cannot be written.
    """
    gone = set(ids)
    try:
        _rewritten(home.path / HISTORY, lambda text: _kept_entries(text, needles))
        for half in sorted((home.path / "runs").rglob(".*.jsonl.*.partial")):
            half.unlink(missing_ok=True)  # a process was killed as it wrote rows
        for data in sorted((home.path / "runs").rglob("*.jsonl")):
            if _rewritten(data, lambda text: _kept_rows(text, needles, gone)):
                _mark_stale(home.path, data, number)
        for mark in sorted((home.path / "runs").glob(f"*/{STALE}")):
            for name in SAID:
                _rewritten(mark.with_name(name), lambda text: "")
        _media(home, ids)
    except OSError as error:
        raise StoreError(
            f"{error.filename or home.path}: {error.strerror}.",
            "Check its permissions and the space on its disk, then: knowme forget --resume",
        ) from error


def stale(path: Path, number: int) -> list[str]:
    """Return the runs that this erasure has marked stale."""
    found = []
    for mark in sorted((path / "runs").glob(f"*/{STALE}")):
        try:
            told = json.loads(mark.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if number in told.get("erasures", ()):
            found.append(mark.parent.name)
    return found


def beyond(path: Path, number: int) -> list[str]:
    """Return what this erasure does not reach of the runs that it has marked: weights, copies."""
    named = []
    for run in stale(path, number):
        named.append(f"runs/{run} (trained on it; marked stale)")
        folder = path / "runs" / run
        if any((folder / name).exists() for name in LEFT):
            named.append(f"the copies of its examples that were exported of runs/{run}")
        try:
            told = json.loads((folder / "manifest.json").read_text("utf-8"))
            served = str(told["stages"]["export"]["served_as"])
        except (OSError, ValueError, KeyError, TypeError):
            served = ""
        if served:
            named.append(f"{served} in Ollama, made of runs/{run}")
    return named


_ENTRY = re.compile(r"(?m)^(?=# )")


def _kept_entries(text: str, needles: Needles) -> str:
    """Return the typed lines without those that hold something: an entry begins with its time."""
    return "".join(
        entry for entry in _ENTRY.split(text) if not needles.stands(re.sub(r"(?m)^\+", "", entry))
    )


def _kept_rows(text: str, needles: Needles, gone: set[int]) -> str:
    kept = []
    for line in re.split(r"(?<=\n)", text):  # splitlines() would cut a row at U+2028 in its words
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not (needles.stands(line) or gone & set(_referred(told))):
            kept.append(line)
    return "".join(kept)


def _referred(told: Any, named: bool = False) -> Iterator[int]:
    """Yield the numbers of messages that a row of a data set refers to."""
    if isinstance(told, dict):
        for name, each in told.items():
            yield from _referred(each, name in _REFERS)
    elif isinstance(told, list):
        for each in told:
            yield from _referred(each, named)
    elif named and isinstance(told, int):
        yield told


def _rewritten(path: Path, keep: Callable[[str], str]) -> bool:
    """Write a file anew without what goes; tell whether something went."""
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return False
    kept = keep(text)
    if kept == text:
        return False
    _put(path, kept)
    return True


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch(mode=0o600)
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)


def _mark_stale(home_path: Path, data: Path, number: int) -> None:
    """Say beside a run that what it learned from is erased: its adapter still knows it."""
    run = home_path / "runs" / data.relative_to(home_path / "runs").parts[0]
    if not run.is_dir() or run.name == TEACHER:
        return
    mark = run / STALE
    try:
        before = json.loads(mark.read_text("utf-8"))["erasures"]
    except (OSError, ValueError, KeyError):
        before = []
    told = {
        "why": "rows of its data set were forgotten",
        "erasures": sorted({*before, number}),
        "at": iso(now_ms()),
    }
    _put(mark, json.dumps(told) + "\n")


def _media(home: Home, ids: list[int]) -> None:
    """Delete the files in archive/ that only erased messages name."""
    folder = home.path / "archive"
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    if not files:
        return
    asked = "SELECT coalesce(raw, '') || char(10) || meta || char(10) || origin FROM messages"
    listed = (json.dumps(ids),)
    with home.db.read() as conn:
        inside = "(SELECT value FROM json_each(?))"
        mine = "\n".join(t for (t,) in rows(conn, f"{asked} WHERE id IN {inside}", listed))
        named = [path for path in files if path.name in mine]
        if named:
            for (told,) in conn.execute(f"{asked} WHERE id NOT IN {inside}", listed):
                named = [path for path in named if path.name not in str(told)]
    for path in named:
        path.unlink(missing_ok=True)
