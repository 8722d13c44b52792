"""OpenClaw's own memory: the workspace's Markdown, and the index it made of it, old and new.

Promises: ``MEMORY.md``, ``USER.md`` and everything in ``memory/`` are cut into sections; of an
index only text and provenance are taken, and only what no readable file and no session here holds
anyway; another model's vectors are left alone.
Refuses to know: sessions.

``AGENTS.md``, ``SOUL.md``, ``TOOLS.md`` and ``DREAMS.md`` are not read: they tell the agent how to
be, or are its own inventions, and none of it is what the person said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from knowme.seams import Cursor
from knowme.sources.files import Found, Refused, entries, entry, sound
from knowme.sources.markdown import pass_over
from knowme.sources.openclaw_sqlite import Store
from knowme.sources.openclaw_turns import parse_time
from knowme.sources.sections import date_ms, follow, is_binary
from knowme.types import Mark, Record

Step = tuple[Record | None, Mark | None]
FILES = ("MEMORY.md", "memory.md", "USER.md")
_AUTOMATIC = frozenset({"cron", "heartbeat"})


def workspaces(root: Path) -> Iterator[Path]:
    """Yield the workspace folders: ``workspace`` and ``workspace-<agent>``."""
    for one in entries(root, root):
        if isinstance(one, Path) and (one.name == "workspace" or one.name.startswith("workspace-")):
            yield one


def notes(root: Path) -> Iterator[Found | Refused]:
    """Yield the memory files of every workspace."""
    for workspace in workspaces(root):
        names: set[str] = set()
        for name in FILES:
            one = entry(root, workspace / name)
            # On a file system that ignores case MEMORY.md and memory.md are one file.
            if isinstance(one, Found) and str(one.stamp) not in names:
                names.add(str(one.stamp))
                yield one
            elif isinstance(one, Refused):
                yield one
        yield from _below(root, workspace / "memory")


def _below(root: Path, folder: Path) -> Iterator[Found | Refused]:
    for one in entries(root, folder):
        if isinstance(one, Path):
            if not one.name.startswith(".") and not one.is_symlink():
                yield from _below(root, one)
        elif isinstance(one, Refused):
            yield one
        elif one.path.suffix.lower() == ".md" and not one.path.name.startswith("."):
            yield one


def read_workspaces(root: Path, cursor: Cursor, seen: set[str]) -> Iterator[Step]:
    """Yield what changed in the memory files. ``seen`` receives the units that still exist."""
    for one in notes(root):
        if isinstance(one, Refused):
            yield from pass_over(cursor, one, seen)
            continue
        unit = f"note:{one.name}"
        seen.add(unit)
        try:
            binary = is_binary(one.path)
        except OSError:
            binary = False  # ``follow`` says what is wrong
        if binary:
            yield from pass_over(cursor, Refused(one.name, "not text"), seen)
        else:
            yield from follow(one, cursor.get(unit), _conversation(one.name), unit)


def _conversation(name: str) -> str:
    return name if name.startswith("workspace") else f"workspace/{name}"


def gone_notes(cursor: Cursor, seen: set[str]) -> Iterator[Step]:
    """Yield the removal of memory files that are no more."""
    for unit in sorted(cursor):
        if unit.startswith("note:") and unit not in seen:
            name = unit.removeprefix("note:")
            yield Record(kind="removed", conversation=_conversation(name)), Mark(unit, None)


# ---- the index ------------------------------------------------------------------------------


@dataclass(slots=True)
class Held:
    """What is read elsewhere: paths of notes below a workspace, and ids of sessions."""

    notes: frozenset[str]
    sessions: frozenset[str]

    def covers(self, path: str, source: str) -> bool:
        """Tell whether a chunk of the index would only repeat what is read anyway."""
        if source == "sessions":
            name = Path(path).name.partition(".jsonl")[0]
            return name in self.sessions or name.partition("-topic-")[0] in self.sessions
        return path.removeprefix("./") in self.notes

    def digest(self) -> str:
        """Return a hash of all that is held."""
        whole = "\0".join([*sorted(self.notes), "\0", *sorted(self.sessions)])
        return hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:16]


def held(root: Path, sessions: frozenset[str]) -> Held:
    """Return what is read elsewhere."""
    found = (one for one in notes(root) if isinstance(one, Found))
    return Held(frozenset(one.name.partition("/")[2] for one in found), sessions)


def read_index(store: Store, cursor: Cursor, known: Held) -> Iterator[Step]:
    """Yield what the index of one database adds, and what has left it since."""
    unit = f"index:{store.name}"
    state = cursor.get(unit)
    old = state if isinstance(state, dict) else {}
    had = old.get("ids") if isinstance(old.get("ids"), dict) else {}
    stamp = [*store.stamp(), known.digest()]
    if old.get("stamp") == stamp:
        return
    now: dict[str, str] = {}
    try:
        for record in _chunks(store, known):
            mark = hashlib.sha256(repr((record.text, record.meta)).encode()).hexdigest()[:16]
            now[record.external_id] = f"{mark} {record.conversation}"
            if (had or {}).get(record.external_id) != now[record.external_id]:
                yield record, None
    except apsw.Error as error:
        note = f"the memory index is damaged: {error}"
        yield Record(kind="skipped", text=note, origin=store.name), None
        return
    for identity in sorted(set(had or ()).difference(now)):
        conversation = str((had or {})[identity]).partition(" ")[2]
        yield Record(kind="removed", conversation=conversation, external_id=identity), None
    if now or had:
        yield None, Mark(unit, {"stamp": stamp, "ids": now})


def _chunks(store: Store, known: Held) -> Iterator[Record]:
    told = {
        str(row.get("chunk_id")): row
        for row in store.rows(
            "memory_index_chunk_provenance",
            "chunk_id", "origin_class", "session_kind", "observed_at",
        )
    }  # fmt: skip
    wanted = ("id", "path", "source", "start_line", "end_line", "model", "text", "updated_at")
    for table in ("memory_index_chunks", "chunks"):
        if not store.has(table, "id", "path", "text"):
            continue
        for seq, row in enumerate(store.rows(table, *wanted, where="ORDER BY path, start_line")):
            path, source = str(row["path"]), str(row.get("source") or "memory")
            if isinstance(row["text"], str) and not known.covers(path, source):
                yield _chunk(store, row, told.get(str(row["id"]), {}), seq)


def _chunk(store: Store, row: Mapping[str, Any], told: Mapping[str, Any], seq: int) -> Record:
    path = sound(str(row["path"]))
    trust = str(told.get("origin_class") or "")
    meta: dict[str, Any] = {"path": path, "lines": [row.get("start_line"), row.get("end_line")]}
    if row.get("model"):
        meta["indexed_by"] = str(row["model"])
    if trust:
        meta["trust"] = trust
    if kind := told.get("session_kind"):
        meta["session_kind"] = str(kind)
    when = parse_time(told.get("observed_at")) or date_ms(Path(path).name)
    automatic = meta.get("session_kind") in _AUTOMATIC
    return Record(
        kind="section",
        conversation=f"memory-index/{path}",
        external_id=str(row["id"]),
        role="document",
        text=sound(str(row["text"])).strip(),
        at_ms=when or parse_time(row.get("updated_at")),
        seq=seq,
        origin=f"{store.name}#{path}:{row.get('start_line')}",
        title=path,
        recall=trust != "system" and not automatic,
        meta=meta,
    )
