"""The screenplay: reads ``life/*.md``, the one source of everything that the fictional person said.

Promises: pure values in file order; the same text gives the same values and the same ids, and an
id depends on the number of an exchange, not on its wording, so a typo can be mended without
touching a label. A line that cannot be understood is an error with its file and line.
Refuses to know: how OpenClaw writes any of it to disk. That is ``transcripts`` and ``database``.

The form, one marker at the start of a line, the text running on until the next marker::

    === NAME gen=1|2|3 channel=... form=...   a session
    --- 017 2026-01-19 20:50 tz=EST           an exchange: number, Porto time, marks of oddity
    *** heartbeat | system ... | compaction ...   something in between that nobody said
    me: | ai: | think: | tool: name {json} | result: | by: | reply: who | text | quote: who | text
    forward: who | ISO | | media: file (mime) | context: who: text
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Literal

from knowme.errors import InputError

OWNER = "Leonor Brandt"

# Porto keeps GMT until the clocks go forward; the standard library's zone files are not
# everywhere, and the fiction has only this one change.
SUMMER_TIME = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)

StepKind = Literal["say", "think", "tool", "result"]
_STEPS: Mapping[str, StepKind] = {
    "ai": "say",
    "think": "think",
    "tool": "tool",
    "result": "result",
}
_MARKER = re.compile(
    r"(me|ai|think|tool|result|by|reply|quote|forward|media|context): ?(.*)", re.DOTALL
)
_EXCHANGE = re.compile(r"--- (\d{3}) (\d{4}-\d\d-\d\d) (\d\d:\d\d)((?: \w+=\S+)*)$")
_SESSION = re.compile(r"=== ([\w-]+)((?: \w+=\S+)+)$")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the assistant did in answering: it said, thought, called, or was told."""

    kind: StepKind
    text: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message and its answer.

    ``at`` is UTC. ``author`` is ``OWNER`` unless the words are another person's (a group member,
    a forwarded message). ``abandoned`` exchanges lie on a branch that was edited away.
    """

    number: int
    at: datetime
    words: str
    steps: tuple[Step, ...]
    language: str = "en"
    author: str = OWNER
    abandoned: bool = False
    reply: tuple[str, str] | None = None
    quote: tuple[str, str] | None = None
    forward: tuple[str, str] | None = None
    media: str = ""
    context: tuple[tuple[str, str], ...] = ()
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> tuple[str, ...]:
        """What the assistant said, one text for each of its messages."""
        return tuple(step.text for step in self.steps if step.kind == "say")


@dataclass(frozen=True, slots=True)
class Aside:
    """Something in a session that is neither her words nor an answer to them."""

    kind: str
    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Session:
    """One OpenClaw session: ``generation`` 1 to 3, its channel, the form of its file."""

    name: str
    id: str
    generation: int
    channel: str
    form: str
    marks: Mapping[str, str]
    entries: tuple[Exchange | Aside, ...]

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges alone, in order."""
        return tuple(entry for entry in self.entries if isinstance(entry, Exchange))


def digest(*parts: object) -> str:
    """64 hex digits that depend on the parts alone: the fiction's only source of chance."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def uuid_of(*parts: object, head: str = "") -> str:
    """A version 4 shaped UUID from the parts; ``head`` replaces its first eight digits."""
    h = digest("uuid", *parts)
    return f"{head or h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:32]}"


def event_id(session: Session, number: int, index: int) -> str:
    """The id of message ``index`` (0 is hers) of an exchange: its number, readable, and a hash.

    Eight hex digits in JSONL; a UUID that begins with the same eight in SQLite.
    """
    head = f"{number:03d}{index:x}" + digest("event", session.name, number, index)[:4]
    if session.generation < 3:
        return head
    return uuid_of("event", session.name, number, index, head=head)


def read() -> tuple[Session, ...]:
    """Every session of the screenplay, in file order.

    Raises:
        InputError: a line that is not understood, an exchange without words, a number used twice.
    """
    folder = resources.files("knowme.fiction") / "life"
    sessions: list[Session] = []
    for path in sorted(folder.iterdir(), key=lambda item: item.name):
        if path.name.endswith(".md"):
            sessions.extend(_sessions(path.name, path.read_text("utf-8")))
    seen: set[int] = set()
    for session in sessions:
        for exchange in session.exchanges:
            if exchange.number in seen:
                raise InputError(f"The screenplay uses the number {exchange.number:03d} twice.")
            seen.add(exchange.number)
    return tuple(sessions)


def _sessions(name: str, text: str) -> Iterator[Session]:
    current: Session | None = None
    entries: list[Exchange | Aside] = []
    for line_number, block in _blocks(text):
        where = f"{name}:{line_number}"
        if block.startswith("==="):
            if current is not None:
                yield replace(current, entries=tuple(entries))
            current, entries = _session(block, where), []
        elif current is None:
            raise InputError(f"{where}: a session must come first, not {block[:40]!r}.")
        elif block.startswith("***"):
            kind, _, rest = block[4:].strip().partition(" ")
            entries.append(Aside(kind, rest, len(entries)))
        else:
            entries.append(_exchange(block, where))
    if current is not None:
        yield replace(current, entries=tuple(entries))


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    start, lines = 1, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("=== ", "--- ", "*** ")):
            if lines:
                yield start, "\n".join(lines).rstrip()
            start, lines = number, [line]
        elif lines:
            lines.append(line)
    if lines:
        yield start, "\n".join(lines).rstrip()


def _marks(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split())


def _session(block: str, where: str) -> Session:
    match = _SESSION.match(block.strip())
    if match is None:
        raise InputError(f"{where}: not a session: {block!r}.")
    name, marks = match[1], _marks(match[2])
    return Session(
        name=name,
        id=uuid_of("session", name),
        generation=int(marks.pop("gen")),
        channel=marks.pop("channel"),
        form=marks.pop("form"),
        marks=marks,
        entries=(),
    )


def _exchange(block: str, where: str) -> Exchange:
    head, _, body = block.partition("\n")
    match = _EXCHANGE.match(head.rstrip())
    if match is None:
        raise InputError(f"{where}: not an exchange: {head!r}.")
    marks = _marks(match[4])
    author = marks.pop("by", OWNER)
    fields: dict[str, list[str]] = {}
    steps: list[Step] = []
    for name, text in _fields(body, where):
        if name in _STEPS:
            steps.append(Step(_STEPS[name], text))
        else:
            fields.setdefault(name, []).append(text)
    if "me" not in fields or not any(step.kind == "say" for step in steps):
        raise InputError(f"{where}: exchange {match[1]} needs a me: and an ai:.")
    return Exchange(
        number=int(match[1]),
        at=porto(match[2], match[3]),
        words=fields["me"][0],
        steps=tuple(steps),
        language=marks.pop("lang", "en"),
        author=fields.get("by", [author])[0],
        abandoned=marks.pop("branch", "") == "abandoned",
        reply=_pair(fields.get("reply"), " | "),
        quote=_pair(fields.get("quote"), " | "),
        forward=_pair(fields.get("forward"), " | "),
        media=fields.get("media", [""])[0],
        context=tuple(pair for text in fields.get("context", []) if (pair := _split(text, ": "))),
        marks=marks,
    )


def _fields(body: str, where: str) -> Iterator[tuple[str, str]]:
    name, lines = "", list[str]()
    for line in body.splitlines():
        match = _MARKER.match(line)
        if match is None and not name:
            raise InputError(f"{where}: text before the first marker: {line!r}.")
        if match is None:
            lines.append(line)
            continue
        if name:
            yield name, "\n".join(lines).rstrip()
        name, lines = match[1], [match[2]]
    if name:
        yield name, "\n".join(lines).rstrip()


def _pair(texts: list[str] | None, separator: str) -> tuple[str, str] | None:
    return _split(texts[0], separator) if texts else None


def _split(text: str, separator: str) -> tuple[str, str]:
    left, _, right = text.partition(separator)
    return left, right


def porto(day: str, time: str) -> datetime:
    """The UTC instant of a wall clock in Porto, winter or summer."""
    wall = datetime.fromisoformat(f"{day}T{time}:00+00:00")
    return wall - timedelta(hours=1) if wall - timedelta(hours=1) >= SUMMER_TIME else wall
