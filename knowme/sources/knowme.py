"""An export of knowme, read back.

Promises: everything that ``knowme export`` wrote as JSON lines comes back under its own source,
with versions and retired messages; an export is read once, and again only when it has changed.
Refuses to know: the Markdown beside it, which is for people.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from knowme.errors import SourceError
from knowme.seams import Cursor
from knowme.sources.files import Found, entry, lines, readable_root, reason_of, shown, sound
from knowme.sources.openclaw_transcripts import parse
from knowme.types import Mark, Record, Role

FORMAT, VERSION = "knowme-export", 1
_HINT = "Name a folder that `knowme export FOLDER` wrote."
_DOCUMENT = "document"


class KnowmeSource:
    """The export in the folder ``path``."""

    def __init__(self, path: Path, name: str = "knowme", **_: Any) -> None:
        self.name = name or "knowme"
        self.path = Path(path)

    def read(self, cursor: Cursor) -> Iterator[tuple[Record | None, Mark | None]]:
        """Yield the export's messages, in its order. Raises SourceError for no such export."""
        root = readable_root(self.path, "The export", _HINT)
        self._check(root)
        found = [entry(root, root / name) for name in ("conversations.jsonl", "messages.jsonl")]
        if not all(isinstance(one, Found) for one in found):
            raise SourceError(f"The export {shown(str(root))} is not complete.", _HINT)
        books, messages = found
        assert isinstance(books, Found) and isinstance(messages, Found)
        stamp = [books.stamp, messages.stamp]
        state = cursor.get(messages.name)
        start, number = 0, 0
        if isinstance(state, dict) and state.get("stamp") == stamp:
            start, number = int(state["place"]), int(state["line"])
            if start >= messages.stamp[0]:
                return
        else:
            yield None, Mark(messages.name, {"stamp": stamp, "place": 0, "line": 0})
        try:
            yield from _messages(messages, stamp, _conversations(books), start, number)
        except OSError as error:
            raise SourceError(
                f"The export {shown(str(root))} {reason_of(error)}.", _HINT
            ) from error

    def _check(self, root: Path) -> None:
        try:
            manifest = json.loads((root / "manifest.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{shown(str(root))} holds no export: manifest.json {reason_of(error)}.", _HINT
            ) from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise SourceError(f"{shown(str(root))} is not an export of knowme.", _HINT)
        if manifest.get("version") != VERSION:
            raise SourceError(
                f"The export {shown(str(root))} has version {manifest.get('version')!r}; this "
                f"knowme reads {VERSION}.",
                "Upgrade knowme.",
            )


_Key = tuple[str, str]
_Books = dict[_Key, Mapping[str, Any]]


def _rows(found: Found, place: int = 0, number: int = 0) -> Iterator[tuple[int, int, Any, str]]:
    """Yield (place behind the line, line number, object or None, problem)."""
    with found.path.open("rb") as handle:
        handle.seek(place)
        for size, data in lines(handle):
            place, number = place + size, number + 1
            if data is None:
                yield place, number, None, "longer than 64 MiB"
            elif data.strip():
                _, row, problem = parse(data)
                yield place, number, row, problem


def _conversations(found: Found) -> _Books:
    """Return what the export says of each conversation; a bad line only costs its title."""
    return {
        (_text(row, "source"), _text(row, "external_id")): row
        for _, _, row, _ in _rows(found)
        if row is not None
    }


def _retired(found: Found) -> dict[tuple[str, str, str], int]:
    """Return the messages that are retired in their last version, with that version."""
    last: dict[tuple[str, str, str], int] = {}
    for _, _, row, _ in _rows(found):
        if row is None:
            continue
        if row.get("retired"):
            last[_name(row)] = _number(row, "version") or 1
        else:
            last.pop(_name(row), None)
    return last


def _messages(
    found: Found, stamp: Any, books: _Books, start: int, number: int
) -> Iterator[tuple[Record | None, Mark | None]]:
    retired = _retired(found)
    for place, line, row, problem in _rows(found, start, number):
        mark = Mark(found.name, {"stamp": stamp, "place": place, "line": line})
        origin = f"{found.name}:{line}"
        if row is None or not (_text(row, "conversation") and _text(row, "external_id")):
            reason = problem or "not a message of an export"
            yield Record(kind="skipped", text=reason, origin=origin), mark
            continue
        record = _record(row, books, origin)
        if retired.get(_name(row)) != (_number(row, "version") or 1):
            yield record, mark
            continue
        yield record, None
        gone = {"_source": record.meta["_source"]}
        yield (
            Record(
                kind="removed",
                conversation=record.conversation,
                external_id=record.external_id,
                meta=gone,
            ),
            mark,
        )
    yield None, Mark(found.name, {"stamp": stamp, "place": stamp[1][0], "line": 0})


def _record(row: Mapping[str, Any], books: _Books, origin: str) -> Record:
    source, conversation = _text(row, "source"), _text(row, "conversation")
    book = books.get((source, conversation), {})
    kind = _text(book, "kind")
    role = _text(row, "role")
    meta = row.get("meta")
    about = dict(meta) if isinstance(meta, dict) else {}
    about |= {"_source": source, "_version": _number(row, "version") or 1}
    if kind:
        about["_kind"] = kind
    return Record(
        kind="section" if kind == _DOCUMENT else "message",
        conversation=conversation,
        external_id=_text(row, "external_id"),
        role=role if role in get_args(Role) else "user",  # type: ignore[arg-type]
        speaker=_text(row, "speaker"),
        text=_text(row, "text"),
        raw=_text(row, "raw") if isinstance(row.get("raw"), str) else None,
        at_ms=_number(row, "at_ms"),
        seq=_number(row, "seq") or 0,
        origin=_text(row, "origin"),
        title=_text(book, "title"),
        recall=row.get("recall") is not False,
        meta=about,
    )


def _name(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return _text(row, "source"), _text(row, "conversation"), _text(row, "external_id")


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return sound(value) if isinstance(value, str) else ""


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
