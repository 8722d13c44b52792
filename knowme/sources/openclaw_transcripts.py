"""Where OpenClaw keeps a session's lines: live files, archives, backups, compressed ones.

Promises: a transcript is read as a stream, from any place where a line begins; a bad line is
reported and passed over; the half-written last line of a live file is left for the next time; a
compressed file cannot inflate without bound. Trajectory and checkpoint files have no name here.
Refuses to know: trees, messages, the database.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from knowme.sources.files import Found, decode, lines

# Ratios of real transcripts are near 10; repeated prompts reach hundreds. Beyond this it is a bomb.
MAX_RATIO = 2000
MIN_INFLATED_BYTES = 256 * 2**20
MAX_WINDOW_BYTES = 2**27

NEVER = re.compile(
    r"\.trajectory\.jsonl|\.trajectory-path\.json|\.checkpoint\.[0-9a-f-]{8,}\.jsonl", re.IGNORECASE
)
NAME = re.compile(
    r"(?P<id>[^.].*?)(?:-topic-(?P<topic>\d+))?\.jsonl"
    r"(?P<kind>\.old|\.bak.*?|\.(?:reset|deleted)\..+?)?(?P<zst>\.zst)?",
    re.DOTALL,
)
# Which copy of a message counts when several transcripts of one session hold it: lowest first.
STORE, LIVE, COLD, ARCHIVE, OLD, BACKUP = range(6)


class Line(NamedTuple):
    """One line: where it begins and ends, its number, its text, and the event in it.

    ``event`` is None where nothing could be taken and ``problem`` says why; a line with both was
    taken, and the problem is worth a note.
    """

    place: int
    end: int
    number: int
    raw: str
    event: dict[str, Any] | None
    problem: str = ""


class Transcript(Protocol):
    """One copy of a session's lines."""

    rank: int
    lineage: str
    stamp: list[Any]
    leaf: str | None  # where the copy itself says which entry is current

    @property
    def name(self) -> str:
        """Where it stands, from the root."""
        ...

    @property
    def size(self) -> int:
        """Bytes, to tell what is cheap to hold."""
        ...

    def read(self, place: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield the lines from a place on; ``number`` is that of the line before it."""
        ...

    def origin(self, line: Line) -> str:
        """Return where a line stands, for a person."""
        ...


def parse(data: bytes | str) -> tuple[str, dict[str, Any] | None, str]:
    """Return (text, event or None, problem) of one line."""
    text, other = decode(data) if isinstance(data, bytes) else (data, "")
    text = text.removeprefix("\ufeff").rstrip("\r\n")
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        return text, None, f"not JSON: {_short(error)}"
    if not isinstance(event, dict):
        return text, None, f"not a JSON object but {type(event).__name__}"
    return text, event, f"not UTF-8: read as {other}" if other else ""


def _short(error: Exception) -> str:
    return getattr(error, "msg", "") or ("nested too deep" if not str(error) else str(error)[:80])


def read_stream(handle: BinaryIO, place: int, number: int, live: bool) -> Iterator[Line]:
    """Yield the lines of an open file. ``live``: its last line may still be being written."""
    for size, data in lines(handle):
        number += 1
        here, place = place, place + size
        if data is None:
            yield Line(here, place, number, "", None, "longer than 64 MiB")
            continue
        if not data.strip():
            continue
        text, event, problem = parse(data)
        if event is None and live and not data.endswith(b"\n"):
            return
        yield Line(here, place, number, text, event, problem)


@dataclass(slots=True)
class JsonlFile:
    """A transcript in a file, plain or compressed."""

    path: Path
    name: str
    rank: int
    lineage: str
    stamp: list[Any]
    size: int
    compressed: bool
    leaf: str | None = None

    def read(self, place: int = 0, number: int = 0) -> Iterator[Line]:
        """Yield the lines from a place on."""
        with self.path.open("rb") as raw:
            if not self.compressed:
                raw.seek(place)
                yield from read_stream(raw, place, number, self.rank == LIVE)
                return
            yield from read_inflated(raw, self.size, place)

    def origin(self, line: Line) -> str:
        """``agents/main/sessions/x.jsonl:12``."""
        return f"{self.name}:{line.number}"


class _Inflated(io.RawIOBase):
    """A zstd stream, inflated up to ``budget`` bytes; where it is damaged it ends."""

    def __init__(self, inner: Any, budget: int) -> None:
        super().__init__()
        self.inner = inner
        self.budget = budget
        self.given = 0
        self.problem = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard

        try:
            # ``read`` would lose what precedes the damage in the same call.
            data = self.inner.read1(len(buffer))
        except zstandard.ZstdError as error:
            self.problem = f"damaged zstd: {error}"
            return 0
        self.given += len(data)
        if self.given > self.budget:
            self.problem = f"inflates to more than {self.budget} bytes: not read on"
            return 0
        buffer[: len(data)] = data
        return len(data)


def read_inflated(raw: BinaryIO, size: int, place: int = 0) -> Iterator[Line]:
    """Yield the lines of a zstd stream of ``size`` bytes; damage or endlessness ends in a note."""
    import zstandard

    budget = max(MIN_INFLATED_BYTES, size * MAX_RATIO)
    engine = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    end = number = 0
    with engine.stream_reader(raw, read_across_frames=True, closefd=False) as reader:
        inflated = _Inflated(reader, budget)
        for line in read_stream(io.BufferedReader(inflated, 2**17), 0, 0, live=False):
            end, number = line.end, line.number
            if line.place >= place:
                yield line
        if inflated.problem:
            yield Line(end, end, number + 1, "", None, inflated.problem)


def file_of(found: Found) -> tuple[str, JsonlFile] | None:
    """Return (session id in the name, transcript) of a session file; None for any other."""
    match = NAME.fullmatch(found.path.name)
    if match is None or NEVER.search(found.path.name):
        return None
    kind = match["kind"] or ""
    rank = LIVE
    if kind.startswith(".old"):
        rank = OLD
    elif kind.startswith(".bak"):
        rank = BACKUP
    elif kind or match["zst"]:
        rank = ARCHIVE
    lineage = match["topic"] or ""
    compressed = bool(match["zst"])
    size = found.stamp[0]
    return match["id"], JsonlFile(
        found.path, found.name, rank, lineage, list(found.stamp), size, compressed
    )
