"""One session of OpenClaw, whatever transcripts hold it: read once, in order, resumable.

Promises: what is on the current branch becomes records, what left it becomes ``removed``; a message
that several transcripts hold is taken from the one that counts most (store, live file, cold,
archive, ``.old``, backup) and once; what was merely appended is read from where we stopped; a
second read yields nothing; a stop at any point costs at most a replay.
Refuses to know: where transcripts are found.

What OpenClaw deletes stays remembered: only a message that is still there, on an abandoned branch,
or that was rewritten out of a transcript that is still there, is removed from recall.

State of a unit: ``stamps`` of the transcripts by name, ``ids`` of the records given so far (while
``part`` is there: of those planned too), and ``tail``, from where an appended transcript goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apsw

from knowme.sources.files import fingerprint, reason_of, sound
from knowme.sources.openclaw_transcripts import (
    ARCHIVE,
    LIVE,
    STORE,
    JsonlFile,
    Line,
    Transcript,
)
from knowme.sources.openclaw_tree import Node, Tree, text_id
from knowme.sources.openclaw_turns import Grouper, Info, Turns, event_time
from knowme.types import Mark, Record

Step = tuple[Record | None, Mark | None]
HOLD_BYTES = 4 * 2**20  # transcripts up to this size are parsed once and held between the passes
FIRST_MARK = 64


@dataclass(slots=True)
class _Scan:
    """The first pass over one transcript."""

    transcript: Transcript
    tree: Tree
    path: list[Node] = field(default_factory=list)
    held: dict[int, Line] | None = None
    problems: list[tuple[Record, str]] = field(default_factory=list)
    end: int = 0
    number: int = 0
    header: str = ""
    parent: str = ""
    broken: bool = False


@dataclass(slots=True)
class _Grown:
    """What stands behind the tail of a transcript that was appended to."""

    leaf: str | None
    end: int
    number: int
    entries: list[tuple[Node, Line]] = field(default_factory=list)
    problems: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """A session to be read. ``unit`` names its mark, ``identity`` its id in names and rows."""

    unit: str
    identity: str
    transcripts: list[Transcript] = field(default_factory=list)
    info: Callable[[], Info] = Info
    is_owner: Callable[[str, str], bool | None] = lambda name, identity: None

    def read(self, state: Any) -> Iterator[Step]:
        """Yield what changed since ``state``."""
        self.transcripts.sort(key=_authority)
        known = state if isinstance(state, dict) else {}
        stamps = {one.name: one.stamp for one in self.transcripts}
        if known.get("stamps") == stamps and "part" not in known:
            return
        if self._appended(known, stamps):
            steps = list(self._read_on(known, stamps))
            if steps:
                yield from steps
                return
        yield from self._read_whole(known, stamps)

    # ---- what was appended -------------------------------------------------------------------

    def _appended(self, known: dict[str, Any], stamps: dict[str, list[Any]]) -> bool:
        """Tell whether the first transcript may have grown, and nothing else has changed."""
        tail, before = known.get("tail"), known.get("stamps")
        if not isinstance(tail, dict) or not isinstance(before, dict) or "part" in known:
            return False
        first = self.transcripts[0]
        if tail.get("of") != first.name or set(before) != set(stamps):
            return False
        if any(stamps[name] != before[name] for name in stamps if name != first.name):
            return False
        if first.rank == STORE:
            rewritten = before[first.name][3] != first.stamp[3]
            return not rewritten and first.stamp[0] >= tail["end"] - 1
        if not isinstance(first, JsonlFile) or first.rank != LIVE or first.compressed:
            return False
        try:
            grown = first.stamp[0] >= tail["end"]
            return grown and fingerprint(first.path, tail["end"]) == tail.get("print")
        except OSError:
            return False

    def _read_on(self, known: dict[str, Any], stamps: dict[str, list[Any]]) -> Iterator[Step]:
        """Yield what follows the tail; nothing at all when the conversation does not go on there.

        What is appended between two syncs is held in memory up to ``HOLD_BYTES``; beyond, the
        session is read whole, as a stream.
        """
        tail = known["tail"]
        first = self.transcripts[0]
        grown = self._grown(first, tail)
        if grown is None:
            return
        turns = self._turns(tail["conversation"], tail)
        ids: list[str] = list(known["ids"])
        given = set(ids)
        plan = _Tail(tail)
        records: list[Record] = []
        for node, line in grown.entries:
            plan.note(node, line)
            records += turns.feed(node, line, first.origin(line))
        records += turns.flush()
        yield from ((problem, None) for problem in grown.problems)
        for record in records:
            if not plan.unchanged(record):
                yield record, None
        ids += [one.external_id for one in records if one.external_id not in given]
        where = (grown.leaf, grown.end, grown.number, tail["conversation"])
        new_tail = plan.state(first, turns, *where)
        yield None, Mark(self.unit, {"stamps": stamps, "ids": ids, "tail": new_tail})

    def _grown(self, first: Transcript, tail: dict[str, Any]) -> _Grown | None:
        grown = _Grown(tail["leaf"], tail["end"], tail["number"])
        tree = Tree.after(tail["leaf"])
        size = 0
        try:
            for line in first.read(tail["place"], tail["line"]):
                size += len(line.raw)
                grown.end, grown.number = max(grown.end, line.end), line.number
                if line.problem and line.end > tail["end"]:
                    grown.problems.append(self._skipped(first, line))
                if line.event is not None:
                    tree.add(line.event, line.place, _time(line.event))
                    node = tree.nodes.get(tree.leaf or "")
                    if node is not None and node.place == line.place:
                        grown.entries.append((node, line))
                if not tree.linear or size > HOLD_BYTES:
                    return None
        except (OSError, apsw.Error):
            return None
        grown.leaf = tree.leaf
        return grown if first.leaf in (None, tree.leaf) else None

    # ---- the whole session -------------------------------------------------------------------

    def _read_whole(self, known: dict[str, Any], stamps: dict[str, list[Any]]) -> Iterator[Step]:
        scans = [_scan(one, self._skipped) for one in self.transcripts]
        _choose(scans)
        told: set[tuple[str, str]] = set()
        for scan in scans:
            for problem, raw in scan.problems:
                # A copy repeats the bad lines of its original.
                if (problem.text, raw) not in told or not raw:
                    yield problem, None
                told.add((problem.text, raw))
            if scan.broken:
                stamps = {**stamps, scan.transcript.name: None}  # type: ignore[dict-item]
        conversation = self._conversation(scans)
        order = list(reversed(scans))
        planned = [node.id for scan in order for node in _starts(scan.path)]
        old = [one for one in known.get("ids") or () if isinstance(one, str)]
        gone, kept = self._gone(known, old, planned, scans)
        skip = known.get("part", 0) if known.get("stamps") == stamps else 0
        both = list(dict.fromkeys([*old, *planned]))
        state = {"stamps": stamps, "ids": both}
        if planned or gone:
            yield None, Mark(self.unit, {**state, "part": skip})
        for one in gone:
            yield Record(kind="removed", conversation=conversation, external_id=one), None
        turns = self._turns(conversation, {}, scans)
        plan = _Tail({})
        done, next_mark = 0, max(FIRST_MARK, 2 * skip)
        for record in self._records(order, turns, plan):
            done += 1
            if done <= skip:
                continue
            mark = None
            if done == next_mark:
                mark, next_mark = Mark(self.unit, {**state, "part": done}), 2 * next_mark
            yield record, mark
        first = scans[0]
        tail = plan.state(
            first.transcript, turns, first.tree.leaf, first.end, first.number, conversation
        )
        yield None, Mark(self.unit, {"stamps": stamps, "ids": [*planned, *kept], "tail": tail})

    def _records(self, order: list[_Scan], turns: Turns, plan: _Tail) -> Iterator[Record]:
        for scan in order:
            plan.begin()
            for node, line in _entries(scan):
                plan.note(node, line)
                yield from turns.feed(node, line, scan.transcript.origin(line))
            yield from turns.flush()
            turns.grouper = Grouper()

    def _gone(
        self,
        known: dict[str, Any],
        old: list[str],
        planned: list[str],
        scans: list[_Scan],
    ) -> tuple[list[str], list[str]]:
        """Return which ids left the conversation, and which merely left the disk."""
        now = set(planned)
        left = [one for one in old if one not in now]
        if not left:
            return [], []
        there = {identity for scan in scans for identity in scan.tree.nodes}
        before = known.get("stamps") if isinstance(known.get("stamps"), dict) else {}
        shrunk = bool(set(before or ()) - {scan.transcript.name for scan in scans})
        shrunk = shrunk or any(scan.broken for scan in scans)
        gone = [one for one in left if one in there or not shrunk]
        return gone, [one for one in left if one not in there and shrunk]

    def _conversation(self, scans: list[_Scan]) -> str:
        if any(scan.transcript.rank != LIVE and scan.transcript.lineage == "*" for scan in scans):
            return sound(self.identity)
        return next((sound(scan.header) for scan in scans if scan.header), sound(self.identity))

    def _turns(
        self, conversation: str, tail: dict[str, Any], scans: list[_Scan] | None = None
    ) -> Turns:
        info = self.info()
        parent = next((scan.parent for scan in scans or () if scan.parent), tail.get("parent", ""))
        if parent:
            info.subagent = True
            info.parent = info.parent or parent
        if info.subagent and not info.title.startswith("Sub-agent"):
            info.title = f"Sub-agent: {info.title}" if info.title else "Sub-agent session"
        turns = Turns(conversation, info, self.is_owner)
        turns.seq = tail.get("seq", -1)
        turns.prompted = tail.get("prompted", "said")
        return turns

    def _skipped(self, transcript: Transcript, line: Line) -> Record:
        origin = transcript.origin(line) if line.number or line.place else transcript.name
        meta = {"taken": True} if line.problem.startswith("not UTF-8") else {}
        return Record(kind="skipped", text=line.problem, origin=origin, meta=meta)


class _Tail:
    """Follows where the last answer begins, for it may go on when more is appended."""

    def __init__(self, before: dict[str, Any]) -> None:
        self.before = before
        self.grouper = Grouper()
        self.open: dict[str, Any] | None = None
        self.count = 0
        self.last: str | None = before.get("leaf")

    def begin(self) -> None:
        """Start another transcript."""
        self.grouper, self.open, self.count, self.last = Grouper(), None, 0, None

    def note(self, node: Node, line: Line) -> None:
        """Take the next entry of the conversation."""
        if node.kind:
            begins = self.grouper.starts(node)
            if begins and node.kind == "assistant":
                self.open = {"id": node.id, "place": node.place, "line": line.number - 1}
                self.open["leaf"] = self.last
                self.count = 0
            elif begins:
                self.open = None
            self.count += 1
        self.last = node.id

    def unchanged(self, record: Record | None) -> bool:
        """Tell whether a record is the answer that was given before, no longer than then."""
        if record is None or record.external_id != self.before.get("id"):
            return False
        return record.raw is not None and record.raw.count("\n") + 1 == self.before.get("count")

    def state(
        self,
        transcript: Transcript,
        turns: Turns,
        leaf: str | None,
        end: int,
        number: int,
        conversation: str,
    ) -> dict[str, Any]:
        """Return what is needed to go on from here."""
        state: dict[str, Any] = {
            "of": transcript.name,
            "conversation": conversation,
            "end": end,
            "number": number,
            "place": end,
            "line": number,
            "leaf": leaf,
            "seq": turns.seq,
            "prompted": turns.prompted,
            "parent": turns.info.parent if turns.info.subagent else "",
        }
        if self.open is not None and self.last == leaf:
            state.update(self.open, count=self.count, seq=turns.seq_before)
        if isinstance(transcript, JsonlFile) and transcript.rank == LIVE:
            try:
                state["print"] = fingerprint(transcript.path, end)
            except OSError:
                state["print"] = ""
        return state


def _authority(transcript: Transcript) -> tuple[int, str]:
    # Of several archives the newest, which sorts last by its name, counts most.
    name = transcript.name
    newest_first = "".join(chr(0x10FFFF - ord(char)) for char in name)
    return transcript.rank, newest_first if transcript.rank >= ARCHIVE else name


def _scan(transcript: Transcript, skipped: Callable[[Transcript, Line], Record]) -> _Scan:
    """Read a transcript once: its tree, its problems, and its lines where they are few."""
    scan = _Scan(transcript, Tree())
    if transcript.size <= HOLD_BYTES:
        scan.held = {}
    try:
        for line in transcript.read():
            scan.end, scan.number = max(scan.end, line.end), line.number
            if line.problem:
                scan.problems.append((skipped(transcript, line), line.raw[:1000]))
            if line.event is not None:
                _take(scan, line, line.event)
    except (OSError, apsw.Error) as error:
        scan.broken = True
        note = Line(0, 0, 0, "", None, reason_of(error))
        scan.problems.append((skipped(transcript, note), ""))
    scan.path = scan.tree.path(transcript.leaf)
    if transcript.leaf in scan.tree.nodes:
        scan.tree.leaf = transcript.leaf
    return scan


def _take(scan: _Scan, line: Line, event: dict[str, Any]) -> None:
    if event.get("type") == "session":
        scan.header = scan.header or (text_id(event.get("id")) or "")
        scan.parent = scan.parent or (text_id(event.get("parentSession")) or "")
        return
    scan.tree.add(event, line.place, _time(event))
    if scan.held is not None:
        scan.held[line.place] = line


def _time(event: dict[str, Any]) -> int | None:
    return event_time(event) if event.get("type") == "message" else None


def _choose(scans: list[_Scan]) -> None:
    """Leave each entry to the transcript that counts most.

    A copy of a message that a better transcript has on an abandoned branch is abandoned too.
    """
    if len(scans) < 2:
        return
    taken: dict[str, str] = {}
    active: set[str] = set()
    for scan in scans:
        lineage = scan.transcript.lineage
        scan.path = [
            node
            for node in scan.path
            if node.id not in active
            and not ("*" in (lineage, taken.get(node.id)) and node.id in taken)
            and taken.get(node.id) != lineage
        ]
        for identity in scan.tree.nodes:
            taken.setdefault(identity, lineage)
        active.update(node.id for node in scan.path)


def _starts(path: list[Node]) -> Iterator[Node]:
    grouper = Grouper()
    return (node for node in path if node.kind and grouper.starts(node))


def _entries(scan: _Scan) -> Iterator[tuple[Node, Line]]:
    """Yield the current entries with their lines, in order: the second pass.

    An entry stands behind its parent in the file, so the order of the path is that of the file.
    """
    if scan.held is not None:
        for node in scan.path:
            if node.place in scan.held:
                yield node, scan.held[node.place]
        return
    ahead = iter(sorted(scan.path, key=lambda node: node.place))
    wanted = next(ahead, None)
    try:
        for line in scan.transcript.read() if wanted else ():
            while wanted is not None and wanted.place < line.place:
                wanted = next(ahead, None)
            if wanted is None:
                return
            if wanted.place == line.place and line.event is not None:
                yield wanted, line
    except (OSError, apsw.Error):
        return  # it went away between the passes: the next sync finds it changed
