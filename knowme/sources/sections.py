"""Notes cut into sections: at headings, and long sections again, with overlap.

Promises: no text is lost: the pieces of a file without their overlaps, one behind the other, are
the file. A file is streamed, whatever its size and the length of its lines. The name of a section
is made of what it says, so an edit elsewhere in the file does not touch it.
Refuses to know: folders, OpenClaw.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from knowme.sources.files import Found, decode, reason_of
from knowme.types import Mark, Record

TARGET_CHARS = 900
OVERLAP_CHARS = 120
CHUNK_BYTES = 65_536
FRAGMENT_CHARS = 8_192
MAX_FRONT_LINES = 200

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_DATE = re.compile(
    r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)"
    r"(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?[ ]?(Z|[+-]\d{2}:?\d{2})?)?"
)
_FRONT_DATE = re.compile(r"^(?:date|created|created_at|date_created):[ \t]*(.*)$", re.I | re.M)
_FRONT_TITLE = re.compile(r"^title:[ \t]*[\"']?(.*?)[\"']?[ \t]*$", re.I | re.M)
_PARAGRAPH = re.compile(r"\n[ \t]*\r?\n+")
_SENTENCE = re.compile(r"[.!?…][\"'”»)\]]*\s+|[。！？]|\n")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """One cut piece. ``text[overlap:]`` is new, the rest repeats the end of the piece before.

    ``lines`` are the first and the last line of the new part, counted from 1.
    """

    text: str
    overlap: int
    headings: tuple[str, ...]
    lines: tuple[int, int]
    front: bool = False


def cut(
    lines: Iterable[str], target: int = TARGET_CHARS, overlap: int = OVERLAP_CHARS
) -> Iterator[Piece]:
    """Cut text, given as lines with their ends, into pieces of about ``target`` characters.

    A piece ends before a heading (of the ATX kind, outside code), else at the paragraph, sentence
    or word border nearest to ``target``. Front matter is a piece of its own. A heading with nothing
    below it stays with what follows.
    """
    cutter = _Cutter(target, overlap)
    for fragment, begins in _fragments(lines):
        yield from cutter.add(fragment, begins)
    yield from cutter.flush()


def _fragments(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield (text, whether a line begins with it): very long lines come in parts."""
    begins = True
    for line in lines:
        for start in range(0, len(line), FRAGMENT_CHARS):
            part = line[start : start + FRAGMENT_CHARS]
            yield part, begins
            begins = part.endswith("\n")


@dataclass(slots=True)
class _Cutter:
    target: int
    overlap: int
    text: str = ""
    tail: str = ""
    line: int = 1
    stack: list[tuple[int, str]] = field(default_factory=list)
    fence: str = ""
    body: bool = False
    front: list[str] | None = None
    begun: bool = False

    def add(self, fragment: str, begins: bool) -> Iterator[Piece]:
        """Take the next part of the text."""
        if not self.begun:
            self.begun = True
            if fragment.rstrip() == "---" and begins:
                self.front = [fragment]
                return
        if self.front is not None:
            yield from self._add_front(fragment)
            return
        yield from self._add_body(fragment, begins)

    def _add_front(self, fragment: str) -> Iterator[Piece]:
        assert self.front is not None
        self.front.append(fragment)
        closed = fragment.rstrip() in ("---", "...")
        if not closed and len(self.front) <= MAX_FRONT_LINES:
            return
        front, self.front = self.front, None
        if closed:
            whole = "".join(front)
            yield Piece(whole, 0, (), (1, len(front)), front=True)
            self.line = len(front) + 1
            return
        for part in front:
            yield from self._add_body(part, True)

    def _add_body(self, fragment: str, begins: bool) -> Iterator[Piece]:
        heading = self._heading(fragment) if begins else None
        if heading is not None:
            if self.body:
                yield from self._section()
            level, name = heading
            self.stack = [one for one in self.stack if one[0] < level]
            self.stack.append((level, name))
        elif fragment.strip():
            self.body = True
        self.text += fragment
        limit = self.target * 3 // 2
        while len(self.text) > limit:
            yield self._piece(self._border(limit))

    def _heading(self, line: str) -> tuple[int, str] | None:
        if match := _FENCE.match(line):
            mark = match[1]
            if not self.fence:
                self.fence = mark
            elif mark.startswith(self.fence) and not line.strip().strip(mark[0]):
                self.fence = ""
            return None
        if self.fence:
            return None
        found = _HEADING.match(line.rstrip("\r\n"))
        return (len(found[1]), (found[2] or "").strip()) if found else None

    def _border(self, limit: int) -> int:
        """Return the best place to cut: near the target, in the rank paragraph, sentence, word."""
        window = self.text[:limit]
        for pattern in (_PARAGRAPH, _SENTENCE, _SPACE):
            ends = [match.end() for match in pattern.finditer(window, self.target // 2)]
            ends = [end for end in ends if end < limit]
            if ends:
                return min(ends, key=lambda end: abs(end - self.target))
        return self.target

    def _piece(self, size: int) -> Piece:
        new, self.text = self.text[:size], self.text[size:]
        before, self.tail = self.tail, self._overlap(new)
        last = self.line + new.count("\n") - (1 if new.endswith("\n") else 0)
        piece = Piece(before + new, len(before), self._path(), (self.line, max(self.line, last)))
        self.line += new.count("\n")
        return piece

    def _overlap(self, text: str) -> str:
        tail = text[-self.overlap :] if self.overlap else ""
        for pattern in (_SENTENCE, _SPACE):
            for match in pattern.finditer(tail):
                if match.end() < len(tail):
                    return tail[match.end() :]
        return tail

    def _path(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.stack if name)

    def _section(self) -> Iterator[Piece]:
        if self.text:
            yield self._piece(len(self.text))
        self.tail = ""
        self.body = False

    def flush(self) -> Iterator[Piece]:
        """Yield what is left."""
        if self.front is not None:
            front, self.front = self.front, None
            for part in front:
                yield from self._add_body(part, True)
        yield from self._section()


# ---- reading -------------------------------------------------------------------------------


def text_lines(handle: BinaryIO, noted: list[str]) -> Iterator[str]:
    """Yield the text of an open file in lines (long ones in parts), whatever its encoding.

    ``noted`` receives the name of the encoding where it is not UTF-8.
    """
    mark = handle.read(4)
    handle.seek(0)
    if mark.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        noted.append("UTF-16")
        yield from codecs.getreader("utf-16")(handle, "replace")
        return
    if mark.startswith(codecs.BOM_UTF8):
        handle.seek(3)
    rest = b""
    while data := handle.readline(CHUNK_BYTES):
        data, rest = rest + data, b""
        if not data.endswith(b"\n"):
            data, rest = _whole_characters(data)
        text, other = decode(data)
        if other and other not in noted:
            noted.append(other)
        yield text
    if rest:
        yield decode(rest)[0]


def _whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """Split off the beginning of a UTF-8 character that is cut in two."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return (data[:-back], data[-back:]) if needed > back else (data, b"")
        if byte < 0x80:
            break
    return data, b""


def is_binary(path: Path) -> bool:
    """Tell whether a file holds anything but text: a zero byte in its first 8 KiB, UTF-16 aside."""
    with path.open("rb") as handle:
        head = handle.read(8192)
    return b"\0" in head and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def date_ms(text: str) -> int | None:
    """Return the first date (``2026-01-31``, with or without a time) in ms; None without one.

    A date without a time is noon UTC, which is that day almost everywhere; a time without a zone
    is UTC.
    """
    match = _DATE.search(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    try:
        when = datetime(
            int(year), int(month), int(day), int(hour or 12), int(minute or 0), int(second or 0),
            tzinfo=UTC,
        )  # fmt: skip
        if zone and zone != "Z":
            shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
            when = when + shift if zone[0] == "-" else when - shift
        return int(when.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def section_id(headings: tuple[str, ...], text: str, at_ms: int | None, ordinal: int) -> str:
    """Return the name of a section: 16 hex digits of what it says and of which such it is."""
    whole = "\0".join([*headings, text, str(at_ms), str(ordinal)])
    return hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:16]


def sections(
    lines: Iterable[str], conversation: str, name: str, meta: Mapping[str, Any] | None = None
) -> Iterator[Record]:
    """Yield one record for each section of a document. ``name`` is its path, for a person."""
    stem = Path(name).stem
    named = date_ms(Path(name).name)
    title, written = "", named
    seen: Counter[str] = Counter()
    for seq, piece in enumerate(cut(lines)):
        text = piece.text.strip()
        if piece.front:
            dates = _FRONT_DATE.search(text)
            written = (date_ms(dates[1]) if dates else None) or named
            titles = _FRONT_TITLE.search(text)
            title = titles[1] if titles else ""
        if not text:
            continue
        title = title or (piece.headings[0] if piece.headings else stem)
        dated = next((ms for one in piece.headings[::-1] if (ms := date_ms(one))), None)
        at_ms = dated or written
        key = section_id(piece.headings, text, at_ms, 0)
        ordinal = seen[key]
        seen[key] += 1
        about: dict[str, Any] = {"path": name, "lines": list(piece.lines)}
        if piece.headings:
            about["heading"] = " > ".join(piece.headings)
        if piece.front:
            about["front_matter"] = True
        yield Record(
            kind="section",
            conversation=conversation,
            external_id=section_id(piece.headings, text, at_ms, ordinal) if ordinal else key,
            role="document",
            text=text,
            at_ms=at_ms,
            seq=seq,
            origin=f"{name}:{piece.lines[0]}",
            title=title,
            recall=not piece.front,
            meta={**about, **(meta or {})},
        )


def follow(
    found: Found, state: Any, conversation: str, unit: str, meta: Mapping[str, Any] | None = None
) -> Iterator[tuple[Record | None, Mark | None]]:
    """Yield what changed in one document since ``state``: new sections, then those that are gone.

    A file of the same size and time is not opened.
    """
    known = state if isinstance(state, dict) else {}
    if known.get("stamp") == found.stamp and not known.get("open"):
        return
    old = known.get("ids") if isinstance(known.get("ids"), list) else []
    had: set[str] = set(old or ())
    if known.get("open") and known.get("stamp") != found.stamp:
        # It was being read when we were stopped, and is another file now: nobody knows which of
        # its sections were taken.
        yield Record(kind="removed", conversation=conversation), None
        had = set()
    yield None, Mark(unit, {"stamp": found.stamp, "ids": sorted(had), "open": True})
    now: list[str] = []
    noted: list[str] = []
    try:
        with found.path.open("rb") as handle:
            for record in sections(text_lines(handle, noted), conversation, found.name, meta):
                now.append(record.external_id)
                if record.external_id not in had:
                    yield record, None
    except OSError as error:
        yield Record(kind="skipped", text=reason_of(error), origin=found.name), None
        return
    if noted:
        note = f"not UTF-8: read as {', '.join(noted)}"
        yield Record(kind="skipped", text=note, origin=found.name, meta={"taken": True}), None
    for identity in sorted(had.difference(now)):
        yield Record(kind="removed", conversation=conversation, external_id=identity), None
    yield None, Mark(unit, {"stamp": found.stamp, "ids": now})
