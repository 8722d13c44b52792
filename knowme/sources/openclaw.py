"""OpenClaw: its sessions of all three generations, its workspace memory and its memory index.

Promises: sessions in JSON lines (live, ``.old``, ``.reset.*``, ``.deleted.*``, ``.zst``, backups
counted once), in the SQLite store (compressed rows, cold files, archived rows) and memory files are
found wherever a version of OpenClaw put them; trajectory and checkpoint files are never opened;
nothing outside the folder is followed, nothing in it is written; what has not changed since the
last time costs a stat or one look into an index.
Refuses to know: how one session is read (``openclaw_session``), what a note says (``sections``).

The layout: ``agents/<agent>/sessions/*.jsonl*``, ``agents/<agent>/sessions/cold/*.zst``,
``agents/<agent>/agent/*.sqlite``, ``memory/*.sqlite``, ``workspace*/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import apsw

from knowme.errors import SourceError
from knowme.seams import Cursor
from knowme.sources.files import Found, Refused, entries, entry, readable_root, reason_of, shown
from knowme.sources.markdown import pass_over
from knowme.sources.openclaw_memory import gone_notes, held, read_index, read_workspaces
from knowme.sources.openclaw_session import Session, Step
from knowme.sources.openclaw_sqlite import COLD_NAME, KNOWN_SCHEMA, ColdFile, Store
from knowme.sources.openclaw_text import strip
from knowme.sources.openclaw_transcripts import LIVE, JsonlFile, file_of
from knowme.sources.openclaw_turns import Info, texts_of
from knowme.types import Mark, Record

MAX_BOOK_BYTES = 64 * 2**20
OWNER_HEAD_BYTES = 65_536
_HINT = (
    "Set the path of this source to OpenClaw's folder (usually ~/.openclaw): "
    "knowme config set sources.0.path PATH"
)
_ALLOW = re.compile(r"(?:ownerA|a)llowFrom[\"']?\s*:\s*\[([^\]]*)\]")


class OpenClawSource:
    """The folder ``path`` of an OpenClaw installation."""

    def __init__(self, path: Path = Path("~/.openclaw"), name: str = "openclaw", **_: Any) -> None:
        self.name = name or "openclaw"
        self.path = Path(path)

    def read(self, cursor: Cursor) -> Iterator[Step]:
        """Yield what changed since the cursor. Raises SourceError when there is no such folder."""
        root = readable_root(self.path, "OpenClaw's folder", _HINT)
        if not root.is_dir():
            raise SourceError(f"{shown(str(root))} is not a folder.", _HINT)
        with ExitStack() as stack:
            reading = _Reading(root, cursor, stack)
            yield from reading.steps()


@dataclass(slots=True)
class _Agent:
    """One agent: its folder, its sessions by id, the sizes of its books."""

    folder: Path
    name: str
    sessions: dict[str, Session] = field(default_factory=dict)
    books: dict[str, Info] | None = None
    stores: list[Store] = field(default_factory=list)


class _Reading:
    """One sync: what is found, then what has changed."""

    def __init__(self, root: Path, cursor: Cursor, stack: ExitStack) -> None:
        self.root = root
        self.cursor = cursor
        self.stack = stack
        self.seen: set[str] = set()
        self.agents: list[_Agent] = []

    def steps(self) -> Iterator[Step]:
        yield from self._find_agents()
        for agent in self.agents:
            yield from self._find_files(agent)
            yield from self._find_stores(agent)
        for agent in self.agents:
            for _, session in sorted(agent.sessions.items()):
                yield from session.read(self.cursor.get(session.unit))
        yield from read_workspaces(self.root, self.cursor, self.seen)
        yield from gone_notes(self.cursor, self.seen)
        yield from self._indexes()

    # ---- finding -----------------------------------------------------------------------------

    def _find_agents(self) -> Iterator[Step]:
        for one in entries(self.root, self.root / "agents"):
            if isinstance(one, Refused):
                yield from pass_over(self.cursor, one, self.seen)
            elif isinstance(one, Path) and not one.name.startswith("."):
                self.agents.append(_Agent(one, shown(one.name)))
        if (self.root / "sessions").is_dir():
            self.agents.append(_Agent(self.root, ""))

    def _find_files(self, agent: _Agent) -> Iterator[Step]:
        folder = agent.folder / "sessions"
        for one in entries(self.root, folder):
            if isinstance(one, Refused):
                yield from pass_over(self.cursor, one, self.seen)
            elif isinstance(one, Found) and (known := file_of(one)) is not None:
                identity, transcript = known
                self._session(agent, identity).transcripts.append(transcript)

    def _find_stores(self, agent: _Agent) -> Iterator[Step]:
        cold: dict[str, str] = {}
        for one in entries(self.root, agent.folder / "agent"):
            if isinstance(one, Refused) and ".sqlite" in one.name:
                yield from pass_over(self.cursor, one, self.seen)
            if not isinstance(one, Found) or one.path.suffix != ".sqlite":
                continue
            store = yield from self._open(one)
            if store is None:
                continue
            agent.stores.append(store)
            try:
                for identity, rows in store.sessions():
                    self._session(agent, identity).transcripts.append(rows)
                for identity, archive in store.archived():
                    self._session(agent, identity).transcripts.append(archive)
                cold.update(store.cold_names())
            except apsw.Error as error:
                note = f"the store is damaged: {error}"
                yield Record(kind="skipped", text=note, origin=store.name), None
        yield from self._find_cold(agent, cold)

    def _open(self, found: Found) -> Generator[Step, None, Store | None]:
        try:
            store = Store(found)
        except (apsw.Error, OSError) as error:
            yield Record(kind="skipped", text=reason_of(error), origin=found.name), None
            return None
        self.stack.callback(store.close)
        notes = [store.note] if store.note else []
        if store.schema > KNOWN_SCHEMA:
            notes.append(
                f"schema {store.schema} is newer than {KNOWN_SCHEMA}: reading what can be read"
            )
        if notes:
            yield from pass_over(self.cursor, Refused(found.name, "; ".join(notes)), self.seen)
        return store

    def _find_cold(self, agent: _Agent, named: Mapping[str, str]) -> Iterator[Step]:
        for folder in (agent.folder / "sessions/cold", agent.folder / "agent/cold"):
            for one in entries(self.root, folder):
                if isinstance(one, Refused):
                    yield from pass_over(self.cursor, one, self.seen)
                if not isinstance(one, Found) or not COLD_NAME.fullmatch(one.path.name):
                    continue
                cold = ColdFile(one.path, one.name, list(one.stamp))
                identity = named.get(one.path.name) or (yield from self._cold_session(cold))
                if identity:
                    self._session(agent, identity).transcripts.append(cold)

    def _cold_session(self, cold: ColdFile) -> Generator[Step, None, str]:
        """Return the session of a cold file that no store names."""
        unit = f"cold:{cold.name}"
        state = self.cursor.get(unit)
        if isinstance(state, str):
            return state
        try:
            identity = cold.session()
        except OSError as error:
            yield Record(kind="skipped", text=reason_of(error), origin=cold.name), None
            return ""
        if not identity:
            note = Refused(cold.name, "a cold transcript that names no session")
            yield from pass_over(self.cursor, note, self.seen)
            return ""
        yield None, Mark(unit, identity)
        return identity

    def _session(self, agent: _Agent, identity: str) -> Session:
        session = agent.sessions.get(identity)
        if session is None:
            session = Session(f"session:{agent.name}/{shown(identity)}", identity)
            session.info = lambda: self._info(agent, identity)
            session.is_owner = self._is_owner
            agent.sessions[identity] = session
        return session

    # ---- what OpenClaw's books say -----------------------------------------------------------

    def _info(self, agent: _Agent, identity: str) -> Info:
        if agent.books is None:
            agent.books = {}
            self._read_book(agent, agent.books)
            for store in agent.stores:
                for session, key, row in store.books():
                    info = agent.books.setdefault(session, Info())
                    info.learn_key(key)
                    info.learn(row)
        known = agent.books.get(identity, Info())
        return Info(
            known.key, known.title, known.channel, known.group, known.subagent, known.parent
        )

    def _read_book(self, agent: _Agent, books: dict[str, Info]) -> None:
        found = entry(self.root, agent.folder / "sessions" / "sessions.json")
        if not isinstance(found, Found) or found.stamp[0] > MAX_BOOK_BYTES:
            return
        try:
            book = json.loads(found.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return  # only titles are lost; it is rewritten by OpenClaw all the time
        for key, row in book.items() if isinstance(book, dict) else ():
            if isinstance(row, dict) and isinstance(row.get("sessionId"), str):
                info = books.setdefault(row["sessionId"], Info())
                info.learn_key(key)
                info.learn(row)

    # ---- who the owner is ----------------------------------------------------------------------

    def _is_owner(self, name: str, identity: str) -> bool | None:
        """Tell whether a group's sender is the owner; None when nothing tells who the owner is.

        The owner is whoever OpenClaw is told to listen to, and whoever writes in direct chats. A
        group often shows a shorter name: ``Ana`` is ``Ana Silva``.
        """
        names, identities = self._owners
        if identity and identity in identities:
            return True
        if not (names or identities) or not name:
            return None
        words = set(name.casefold().split())
        if any(words <= set(one.split()) or set(one.split()) <= words for one in names):
            return True
        return False if names else None

    @cached_property
    def _owners(self) -> tuple[set[str], set[str]]:
        names: set[str] = set()
        identities: set[str] = set()
        config = entry(self.root, self.root / "openclaw.json")
        if isinstance(config, Found) and config.stamp[0] < MAX_BOOK_BYTES:
            try:
                text = config.path.read_text("utf-8", "replace")
            except OSError:
                text = ""
            for inside in _ALLOW.findall(text):
                identities.update(re.findall(r"[+\w@.-]{3,}", inside))
        for agent in self.agents:
            for session in agent.sessions.values():
                for one in session.transcripts:
                    if isinstance(one, JsonlFile) and one.rank == LIVE:
                        _learn_owner(one, names, identities)
        return names, identities

    # ---- the memory index ----------------------------------------------------------------------

    def _indexes(self) -> Iterator[Step]:
        sessions = frozenset(identity for agent in self.agents for identity in agent.sessions)
        stores = [store for agent in self.agents for store in agent.stores]
        for one in entries(self.root, self.root / "memory"):
            if isinstance(one, Found) and one.path.suffix == ".sqlite":
                store = yield from self._open(one)
                if store is not None:
                    stores.append(store)
        known = held(self.root, sessions)
        for store in stores:
            if store.has("chunks") or store.has("memory_index_chunks"):
                yield from read_index(store, self.cursor, known)


def _learn_owner(transcript: JsonlFile, names: set[str], identities: set[str]) -> None:
    """Take the sender of the direct messages at the beginning of a transcript."""
    try:
        for line in transcript.read():
            message = (line.event or {}).get("message")
            if isinstance(message, dict) and message.get("role") == "user":
                said = strip("\n".join(texts_of(message.get("content"))))
                if said.group is False and not said.meta.get("forwarded_from"):
                    names.update({said.speaker.casefold()} - {""})
                    identities.update({str(said.meta.get("sender_id", ""))} - {""})
            if line.end > OWNER_HEAD_BYTES:
                return
    except OSError:
        return
