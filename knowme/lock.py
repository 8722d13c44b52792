"""Advisory locks on a file: who holds a home, and who waits for it to be free.

Promises: a lock is this process's alone (a child does not inherit it) and ends with it, however
it ends; a file left behind by a killed process is no obstacle. The file is never deleted: deleting
a locked file would let two processes lock two files of one name.
Refuses to know: what is protected.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from knowme.errors import HomeError

_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """A lock on one file: exclusive (with our pid inside) or shared. Not re-entrant."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Take the lock or raise HomeError at once, naming the process that holds it."""
        self.path = path
        self._fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(
                f"{path} cannot be opened: {error.strerror}.", "Check the permissions of the home."
            ) from error
        if not _take(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            who = _exclusive(fd)
            os.close(fd)
            raise in_use(path, [who] if who else [])
        self._fd = fd
        if not shared:
            with suppress(OSError):  # a full disk: the lock counts, the pid is a courtesy
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        _held.add(self)

    def exclude(self) -> None:
        """Turn a shared lock into an exclusive one, with our pid inside.

        Raises HomeError, naming who shares it, and shares it still.
        """
        if not _take(self._fd, fcntl.LOCK_EX):
            # The kernel gives up the old lock before it tries for the new one.
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            raise in_use(self.path, sharers(self.path))
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def share(self) -> None:
        """Turn an exclusive lock back into a shared one."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def release(self) -> None:
        """Give it back. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def in_use(path: Path, pids: Sequence[int]) -> HomeError:
    """Return the error that says who uses the home of this lock, and how to stop them."""
    named = f" (pid {', '.join(map(str, pids))})" if pids else ""
    return HomeError(
        f"{path.parent} is in use by another knowme process{named}.",
        f"Stop it first: kill {' '.join(map(str, pids))}" if pids else "Stop it first.",
    )


def sharers(path: Path) -> list[int]:
    """Return the other processes that share a lock on ``path``, as far as the system tells.

    Linux lists them in /proc/locks; elsewhere nobody says, and the list is empty.
    """
    try:
        inode = os.stat(path).st_ino
        listed = Path("/proc/locks").read_text("ascii", "replace")
    except OSError:
        return []
    found: set[int] = set()
    for line in listed.splitlines():  # 1: FLOCK ADVISORY READ 4711 08:01:131 0 EOF
        parts = line.split()
        if len(parts) > 5 and parts[1] == "FLOCK" and parts[5].rpartition(":")[2] == str(inode):
            found.add(int(parts[4]))
    return sorted(pid for pid in found if pid > 0 and pid != os.getpid())


def holder(path: Path) -> int | None:
    """Return the pid that holds ``path`` exclusively (0: it did not say), or None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _exclusive(fd)
    finally:
        os.close(fd)


def _take(fd: int, how: int) -> bool:
    # Tried for a quarter of a second: holder() asks by taking a shared lock for a moment.
    for pause in (0.01, 0.04, 0.2, 0):
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(pause)
    return False


def _exclusive(fd: int) -> int | None:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    fcntl.flock(fd, fcntl.LOCK_UN)
    return None  # the pid inside, if any, is a dead one's: only shared holders, or nobody


def _forget_in_child() -> None:
    # A forked child shares the lock through its copy of the descriptor: a model worker that
    # outlives a killed daemon would keep the home locked.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)
