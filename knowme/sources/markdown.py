"""A folder of notes (Markdown or plain text), or a single one, as sections.

Promises: changed and removed files are followed, section by section; what an edit did not touch is
not read into the archive again; hidden folders, ``node_modules``, binary files and links that leave
the folder are passed over, once each, by name. Nothing is written.
Refuses to know: how a note is cut (``sections``), what it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knowme.seams import Cursor
from knowme.sources.files import Found, Refused, entries, entry, readable_root, reason_of
from knowme.sources.sections import follow, is_binary
from knowme.types import Mark, Record

SUFFIXES = frozenset({".md", ".markdown", ".txt"})
PASSED_OVER = "skip:"
_NOT_NOTES = frozenset({"node_modules", "__pycache__"})


class MarkdownSource:
    """Notes below ``path``. The conversation of a note is its path from there."""

    def __init__(self, path: Path, name: str = "markdown", **_: Any) -> None:
        self.name = name or "markdown"
        self.path = Path(path)

    def read(self, cursor: Cursor) -> Iterator[tuple[Record | None, Mark | None]]:
        """Yield what changed since the cursor. Raises SourceError for a missing folder."""
        root = readable_root(
            self.path, "The notes in", "Set its path in config.yaml, or check that it is mounted."
        )
        if root.is_file():
            whole = entry(root.parent, root)
            found: Iterator[Found | Refused] = iter([whole] if isinstance(whole, Found) else [])
        else:
            found = _walk(root, root)
        seen: set[str] = set()
        closed: list[str] = []  # folders that could not be listed: what they hold is not gone
        for one in found:
            if isinstance(one, Refused):
                if one.reason.startswith("cannot be"):
                    closed.append(one.name)
                yield from pass_over(cursor, one, seen)
            else:
                yield from self._note(cursor, one, seen)
        yield from _gone(cursor, seen, closed)

    def _note(
        self, cursor: Cursor, found: Found, seen: set[str]
    ) -> Iterator[tuple[Record | None, Mark | None]]:
        state = cursor.get(found.name)
        known = state.get("stamp") if isinstance(state, dict) else None
        seen.add(found.name)
        if known == found.stamp and not (isinstance(state, dict) and state.get("open")):
            return
        try:
            binary = is_binary(found.path)
        except OSError as error:
            yield Record(kind="skipped", text=reason_of(error), origin=found.name), None
            return
        if binary:
            seen.discard(found.name)
            yield from pass_over(cursor, Refused(found.name, "not text"), seen)
            return
        yield from follow(found, state, found.name, found.name)


def _walk(root: Path, folder: Path) -> Iterator[Found | Refused]:
    for one in entries(root, folder):
        if isinstance(one, Refused):
            yield one
        elif isinstance(one, Found):
            if one.path.suffix.lower() in SUFFIXES and not one.path.name.startswith("."):
                yield one
        elif one.name.startswith(".") or one.name in _NOT_NOTES:
            yield Refused(one.relative_to(root).as_posix(), "a folder that holds no notes")
        elif one.is_symlink():
            # It leads to another place below the root, which is read there; or round in a circle.
            yield Refused(
                one.relative_to(root).as_posix(), "a link to a folder that is read itself"
            )
        else:
            yield from _walk(root, one)


def pass_over(
    cursor: Cursor, one: Refused, seen: set[str]
) -> Iterator[tuple[Record | None, Mark | None]]:
    """Yield a note on what is not read, the first time that it is met."""
    unit = PASSED_OVER + one.name
    seen.add(unit)
    if cursor.get(unit) != one.reason:
        note = Record(kind="skipped", text=one.reason, origin=one.name)
        yield note, Mark(unit, one.reason)


def _gone(
    cursor: Cursor, seen: set[str], closed: list[str]
) -> Iterator[tuple[Record | None, Mark | None]]:
    for unit in sorted(cursor):
        if unit in seen:
            continue
        name = unit.removeprefix(PASSED_OVER)
        if any(name == one or name.startswith(f"{one}/") for one in closed):
            continue
        if unit.startswith(PASSED_OVER):
            yield None, Mark(unit, None)
        else:
            yield Record(kind="removed", conversation=unit), Mark(unit, None)
