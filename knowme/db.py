"""memory.db: one writer thread, pooled readers, migrations, online backup.

Promises: ``write(fn)`` runs ``fn(conn)`` alone, in one BEGIN IMMEDIATE transaction, and returns
once it is committed; if it raises, nothing of it happened. ``read()`` gives one snapshot. A killed
process loses nothing that ``write`` returned from. With ``durability: full`` a power cut does not
either; with ``normal`` a power cut may cost the last moments (never the integrity of the file).
Refuses to know: any table. ``schema.py`` does.

apsw instead of the standard library's sqlite3: it brings its own SQLite (FTS5, loadable
extensions, a known version), whatever Python was built with.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import apsw

from knowme import schema
from knowme.errors import StoreError

T = TypeVar("T")
Durability = Literal["full", "normal"]
BUSY_MS = 15_000

_WRAPPED: dict[type[apsw.Error], tuple[str, str]] = {
    apsw.FullError: ("The disk is full.", "Free some space; nothing was half-written."),
    apsw.BusyError: ("memory.db is locked by another program.", "Close it and try again."),
    apsw.LockedError: ("memory.db is locked by another program.", "Close it and try again."),
    apsw.CorruptError: ("memory.db is damaged.", "Run: knowme restore"),
    apsw.NotADBError: ("memory.db is not a database.", "Run: knowme restore"),
    apsw.ReadOnlyError: ("memory.db cannot be written.", "Check the permissions of the home."),
    apsw.CantOpenError: ("memory.db cannot be opened.", "Check the permissions of the home."),
    apsw.IOError: (
        "The disk failed while memory.db was used.",
        "Check the disk, then: knowme doctor",
    ),
}


def wrap(error: apsw.Error, path: Path | str) -> StoreError:
    """Turn an apsw error into ours, with the file's name and the mend."""
    for kind, (what, hint) in _WRAPPED.items():
        if isinstance(error, kind):
            return StoreError(f"{what} ({path}: {error})", hint)
    return StoreError(f"memory.db refused: {error} ({path})", "Run: knowme doctor")


def connect(
    path: Path, *, durability: Durability = "full", readonly: bool = False
) -> apsw.Connection:
    """Open one connection with the house's pragmas.

    Measured (1,600 one-row transactions): synchronous FULL 3.75 s, NORMAL 0.12 s; see LOG.md.
    """
    flags = (
        apsw.SQLITE_OPEN_READONLY
        if readonly
        else (apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    )
    conn = apsw.Connection(str(path), flags=flags)
    conn.set_busy_timeout(BUSY_MS)
    if not readonly:
        conn.execute("PRAGMA journal_mode=WAL")
        conn.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
        conn.execute("PRAGMA wal_autocheckpoint=2000")
        conn.execute("PRAGMA journal_size_limit=67108864")
    conn.execute("PRAGMA foreign_keys=ON")
    conn.execute("PRAGMA cache_size=-16384")
    conn.execute("PRAGMA mmap_size=1073741824")
    conn.execute("PRAGMA temp_store=MEMORY")
    return conn


class Database:
    """One memory.db, opened and migrated. Thread-safe. Close it when done."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        """Open ``path``, create or migrate it. Raises StoreError."""
        self.path = path
        self._durability = durability
        self._jobs: queue.SimpleQueue[tuple[Callable[..., Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._readers: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        self._all_readers: list[apsw.Connection] = []
        self._closed = False
        self._lock = threading.Lock()
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._writer, args=(opened,), name="knowme-writer", daemon=True
        )
        self._thread.start()
        opened.result()

    def _writer(self, opened: Future[None]) -> None:
        try:
            conn = connect(self.path, durability=self._durability)
            schema.migrate(conn)
        except apsw.Error as error:
            opened.set_exception(wrap(error, self.path))
            return
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (job := self._jobs.get()) is not None:
            fn, done = job
            if not done.set_running_or_notify_cancel():
                continue
            try:
                result = self._transact(conn, fn)
            except apsw.Error as error:
                done.set_exception(wrap(error, self.path))
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)
        with suppress(apsw.Error):
            conn.execute("PRAGMA optimize")
        conn.close()

    @staticmethod
    def _transact(conn: apsw.Connection, fn: Callable[[apsw.Connection], T]) -> T:
        conn.execute("BEGIN IMMEDIATE")
        try:
            result = fn(conn)
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
        return result

    def write(self, fn: Callable[[apsw.Connection], T]) -> T:
        """Run ``fn(conn)`` in one transaction on the writer thread and return its result.

        Returns only after the commit. Whatever ``fn`` raises comes out here, after a rollback.
        ``fn`` must be quick: no model, no network, no waiting inside.
        """
        done: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise StoreError(f"memory.db is already closed ({self.path}).")
            self._jobs.put((fn, done))
        return done.result()

    @contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Give a read-only connection that sees one snapshot. Raises StoreError."""
        try:
            conn = self._readers.get_nowait()
        except queue.Empty:
            try:
                conn = connect(self.path, durability=self._durability)
                conn.execute("PRAGMA query_only=ON")
            except apsw.Error as error:
                raise wrap(error, self.path) from error
            with self._lock:
                self._all_readers.append(conn)
        try:
            conn.execute("BEGIN")
            yield conn
        except apsw.Error as error:
            raise wrap(error, self.path) from error
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            self._readers.put(conn)

    def backup(self, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the live database into ``target`` (a new file), page by page, then verify it.

        ``progress(done_pages, total_pages)``. Raises StoreError; a failed copy leaves no target.
        """
        partial = target.with_name(target.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            source = connect(self.path, readonly=True)
            copy = apsw.Connection(str(partial))
            with copy.backup("main", source, "main") as step:
                while not step.done:
                    step.step(1024)
                    if progress:
                        progress(step.page_count - step.remaining, step.page_count)
            source.close()
            copy.execute("PRAGMA journal_mode=DELETE")
            verify(copy)
            copy.close()
            partial.replace(target)
        except apsw.Error as error:
            raise wrap(error, target) from error
        finally:
            partial.unlink(missing_ok=True)

    def data_version(self) -> int:
        """Return a number that changes when any other connection commits to the file."""
        with self._lock:
            if not hasattr(self, "_watch"):
                self._watch = connect(self.path, readonly=True)
            return int(self._watch.pragma("data_version"))

    def close(self) -> None:
        """Finish what is queued, then close. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        for conn in self._all_readers:
            conn.close()
        if hasattr(self, "_watch"):
            self._watch.close()


def verify(conn: apsw.Connection) -> None:
    """Raise StoreError unless the file is whole: pages, foreign keys, schema version."""
    result = conn.pragma("integrity_check")
    if result != "ok":
        raise StoreError(f"The integrity check failed: {result}", "Use another backup.")
    broken = list(conn.execute("PRAGMA foreign_key_check"))
    if broken:
        raise StoreError(
            f"{len(broken)} rows point to nothing: {broken[:3]}", "Use another backup."
        )
    schema.check_version(conn)
