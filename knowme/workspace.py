"""Workspace files: what a person wrote down for their assistant, in a folder of their own.

Promises: a file is read again when it has changed, and only then; at most so many bytes of it;
nothing outside the folder is read, whatever a link says; a missing file is fine, one that cannot be
read is a note, never a failure.
Refuses to know: what stands in the files, how much of it a prompt bears.
"""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from knowme import profile
from knowme.settings import ContextSettings

MAX_BYTES = 64 * 1024
"""Of one file: far more than a prompt bears, and little to count."""
PROFILE = "USER_PROFILE.md"
"""What is known of the person, in the home folder."""
KNOWN = "What is known of the person"
PRIVATE = "What is known of the person and stays on this machine"


@dataclass(frozen=True, slots=True)
class Part:
    """A section of the system message.

    ``cls`` is its class of memory: files, memory, sensitive (of the profile, for this machine
    alone), summary. ``sources`` are those that the text was drawn from, where it repeats recalled
    memory.
    """

    cls: str
    title: str
    text: str
    sources: tuple[str, ...] = ()


class Workspace:
    """The workspace files and the profile of one home. Thread-safe."""

    def __init__(self, home: Path, settings: ContextSettings) -> None:
        told = Path(settings.workspace).expanduser() if settings.workspace else Path("workspace")
        self.folder = home / told  # an absolute path stays what it is
        self._told = bool(settings.workspace)
        self._names = settings.files if "files" in settings.strategies else ()
        self._home = home if "memory" in settings.strategies else None
        self._read: dict[Path, tuple[tuple[int, int, int], str]] = {}
        self._lock = threading.Lock()
        self._notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the last reading could not take, and why."""
        return self._notes

    def parts(self) -> tuple[Part, ...]:
        """Return the files that are there and not empty, in their order, then the profile."""
        with self._lock:
            notes: list[str] = []
            if self._told and self._names and not self.folder.is_dir():
                notes.append(f"context.workspace is {self.folder}, which is no folder")
            found = [
                Part("files", name, text)
                for name in dict.fromkeys(self._names)
                if (text := self._text(self.folder, name, notes))
            ]
            if self._home is not None and (text := self._text(self._home, PROFILE, notes)):
                plain, private = profile.split(text)
                both = (Part("memory", KNOWN, plain), Part("sensitive", PRIVATE, private))
                found += [part for part in both if part.text]
            self._notes = tuple(notes)
            return tuple(found)

    def _text(self, folder: Path, name: str, notes: list[str]) -> str:
        try:
            root = folder.resolve()
            path = (root / name).resolve()
            if root not in path.parents:
                if (root / name).is_symlink() or path.exists():
                    notes.append(f"{name} leads out of {root} and was not read")
                return ""
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                notes.append(f"{name} is not a file")
                return ""
            key = (about.st_mtime_ns, about.st_size, about.st_ino)
            if (known := self._read.get(path)) and known[0] == key:
                text = known[1]
            else:
                text = _read(path)
                self._read[path] = (key, text)
            if about.st_size > MAX_BYTES:
                notes.append(f"{name} is longer than {MAX_BYTES // 1024} KiB; the rest was left")
            return text
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL in a name
            notes.append(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}")
            return ""


def _read(path: Path) -> str:
    # O_NOFOLLOW: the path is resolved; what has become a link since then is not followed.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        data = file.read(MAX_BYTES)
    return data.decode("utf-8-sig", "replace").replace("\0", "\ufffd").strip()
