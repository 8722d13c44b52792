"""Files that other programs wrote: walking, stating, reading and decoding them with care.

Promises: nothing is written; nothing outside the root is opened, whatever a link says; only plain
files are opened (a pipe would block); a line longer than ``MAX_LINE_BYTES`` is passed over, never
held; a byte that is not UTF-8 never loses the text around it.
Refuses to know: what is in the files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from knowme.errors import SourceError

MAX_LINE_BYTES = 64 * 2**20
Stamp = list[int]
"""What a stat says of a file: [size in bytes, mtime in ns]."""


def shown(name: str) -> str:
    """Return a name that is safe to print and to store: control characters are escaped."""
    clean = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in clean
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A plain file below the root. ``name`` is its path from the root, safe to show."""

    path: Path
    name: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Refused:
    """A path that is not read, and why."""

    name: str
    reason: str


def readable_root(path: Path, what: str, hint: str) -> Path:
    """Return the resolved root. Raises SourceError when it is missing or cannot be entered."""
    root = path.expanduser()
    try:
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            os.scandir(root).close()
        return root.resolve()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceError(f"{what} {shown(str(root))} cannot be read: {reason}.", hint) from error


def entries(root: Path, folder: Path) -> Iterator[Found | Refused | Path]:
    """Yield what one folder holds, by name: files, refusals, and folders (as Path).

    A missing folder holds nothing. A folder that cannot be listed is a refusal, and so is a link
    that leads out of the root.
    """
    try:
        if not folder.resolve().is_relative_to(root):
            yield Refused(_name(root, folder), "a link that leads outside the folder")
            return
        with os.scandir(folder) as listing:
            names = sorted(entry.name for entry in listing)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Refused(_name(root, folder), f"cannot be listed: {error.strerror}")
        return
    for name in names:
        if (one := entry(root, folder / name)) is not None:
            yield one


def entry(root: Path, path: Path) -> Found | Refused | Path | None:
    """Return what stands at this path; None when nothing does (any more)."""
    name = _name(root, path)
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return Refused(name, "a link that leads outside the folder")
        status = path.stat()
    except FileNotFoundError:
        return Refused(name, "a link that leads nowhere") if path.is_symlink() else None
    except (OSError, RuntimeError) as error:
        return Refused(name, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if stat.S_ISDIR(status.st_mode):
        return path
    if not stat.S_ISREG(status.st_mode):
        return Refused(name, "not a plain file")
    return Found(path, name, [status.st_size, status.st_mtime_ns])


def _name(root: Path, path: Path) -> str:
    return shown(path.relative_to(root).as_posix() if path != root else path.name)


def reason_of(error: Exception) -> str:
    """One short sentence for a file that could not be read."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {strerror or error or type(error).__name__}"


def decode(data: bytes) -> tuple[str, str]:
    """Return the text of bytes and, when they are not UTF-8, the encoding that they were read as.

    Windows-1252 has holes; where one is hit, Latin-1, which has none, is taken.
    """
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "Latin-1"


def sound(text: str) -> str:
    """Return text that can be stored: halves of surrogate pairs joined, or replaced."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def lines(handle: BinaryIO, limit: int = MAX_LINE_BYTES) -> Iterator[tuple[int, bytes | None]]:
    """Yield (bytes consumed, line with its newline), in order; None stands for one too long."""
    while data := handle.readline(limit + 1):
        if len(data) <= limit or data.endswith(b"\n"):
            yield len(data), data
            continue
        size = len(data)
        while data and not data.endswith(b"\n"):
            data = handle.readline(limit)
            size += len(data)
        yield size, None


def fingerprint(path: Path, at: int, span: int = 512) -> str:
    """Return a hash of the file's head and of the bytes just before ``at``.

    A file that was only appended to keeps it.
    """
    with path.open("rb") as handle:
        head = handle.read(min(span, at))
        handle.seek(max(0, at - span))
        tail = handle.read(min(span, at))
    return hashlib.sha256(head + b"\0" + tail).hexdigest()[:24]
