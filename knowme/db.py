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

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import apsw

from knowme import schema
from knowme.errors import HomeError, StoreError
from knowme.lock import Lock

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
    conn.create_scalar_function("plain", lambda *kept: unpacked(kept[0]), 1, deterministic=True)
    return conn


def packed(text: str) -> bytes:
    """Return a text as it is kept where ``retention.compress_days`` has made it smaller."""
    import zstandard

    return zstandard.ZstdCompressor(level=19).compress(text.encode())


def unpacked(kept: Any) -> Any:
    """Return what ``packed`` was given; anything else as it is. ``plain(...)`` in SQL.

    Raises StoreError for bytes that are damaged.
    """
    if not isinstance(kept, bytes):
        return kept
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(kept).decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        told = f"A compressed text is damaged: {error}."
        raise StoreError(told, "Run: knowme restore") from error


class Database:
    """One memory.db, opened and migrated. Thread-safe. Close it when done."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        """Open ``path``, create or migrate it.

        Raises StoreError, or HomeError while it is being restored.
        """
        self.path = path
        self._durability = durability
        self._jobs: queue.SimpleQueue[tuple[Callable[..., Any], Future[Any], bool] | None] = (
            queue.SimpleQueue()
        )
        self._readers: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._hold = _hold(path)
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._writer, args=(opened,), name="knowme-writer", daemon=True
        )
        self._thread.start()
        try:
            opened.result()
        except BaseException:
            self._let_go()
            raise

    def _writer(self, opened: Future[None]) -> None:
        try:
            conn = self._open()
        except apsw.Error as error:
            opened.set_exception(wrap(error, self.path))
            return
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        while (job := self._jobs.get()) is not None:
            fn, done, apart = job
            if not done.set_running_or_notify_cancel():
                continue
            try:
                result = fn(conn) if apart else self._transact(conn, fn)
                if isinstance(result, apsw.Cursor):  # let go of by another thread, its statement
                    result.close()  # would stay in progress for ever, and no VACUUM would go
                    result = None
            except apsw.Error as error:
                done.set_exception(wrap(error, self.path))
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)
        with suppress(apsw.Error):
            conn.execute("PRAGMA optimize")
        conn.close()

    def _open(self) -> apsw.Connection:
        """Connect and migrate.

        SQLite does not wait where two processes turn a file to WAL, or one recovers what another
        left while it closes: it says busy at once. So we wait.
        """
        until = time.monotonic() + BUSY_MS / 1000
        while True:
            conn: apsw.Connection | None = None
            try:
                conn = connect(self.path, durability=self._durability)
                schema.migrate(conn)
                return conn
            except (apsw.BusyError, apsw.LockedError):
                if conn is not None:
                    conn.close()
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)
            except BaseException:
                if conn is not None:
                    conn.close()
                raise

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
        return self._queued(fn, apart=False)

    def maintain(self, fn: Callable[[apsw.Connection], T]) -> T:
        """Run ``fn(conn)`` on the writer thread outside of any transaction, and return its result.

        For what SQLite does only there: VACUUM, a checkpoint. Other writes wait meanwhile.
        """
        return self._queued(fn, apart=True)

    def _queued(self, fn: Callable[[apsw.Connection], T], *, apart: bool) -> T:
        if threading.current_thread() is self._thread:
            raise StoreError("A write was asked for inside a write; pass its conn on instead.")
        done: Future[T] = Future()
        with self._lock:
            self._refuse_if_closed()
            self._jobs.put((fn, done, apart))
        return done.result()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process from opening the file meanwhile.

        Raises HomeError, with their pids, while others have it open.
        """
        self._refuse_if_closed()
        if self._hold is None:
            raise HomeError(f"{self.path.parent} cannot be written.", "Check its permissions.")
        self._hold.exclude()
        try:
            yield
        finally:
            self._hold.share()

    @contextmanager
    def read(self) -> Iterator[apsw.Connection]:
        """Give a read-only connection that sees one snapshot. Raises StoreError."""
        try:
            conn = self._readers.get_nowait()
        except queue.Empty:
            conn = self._new_reader()
        try:
            self._refuse_if_closed()
            conn.execute("BEGIN")
            yield conn
        except apsw.Error as error:
            raise wrap(error, self.path) from error
        finally:
            self._give_back(conn)

    def _new_reader(self) -> apsw.Connection:
        with self._lock:
            self._refuse_if_closed()
        try:
            conn = connect(self.path, durability=self._durability)
            conn.execute("PRAGMA query_only=ON")
        except apsw.Error as error:
            raise wrap(error, self.path) from error
        return conn

    def _give_back(self, conn: apsw.Connection) -> None:
        with self._lock:
            if not self._closed:
                with suppress(apsw.Error):
                    if conn.in_transaction:
                        conn.execute("ROLLBACK")
                    self._readers.put(conn)
                    return
        with suppress(apsw.Error):
            conn.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError(f"memory.db is already closed ({self.path}).")

    def backup(self, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy one snapshot of the live database into ``target`` and verify it. See ``copy``."""
        copy(self.path, target, progress)

    def data_version(self) -> int:
        """Return a number that changes when any other connection commits to the file."""
        with self._lock:
            self._refuse_if_closed()
            try:
                if not hasattr(self, "_watch"):
                    self._watch = connect(self.path, readonly=True)
                return int(self._watch.pragma("data_version"))
            except apsw.Error as error:
                raise wrap(error, self.path) from error

    def close(self) -> None:
        """Finish what is queued, then close. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        with suppress(queue.Empty):
            while True:  # a reader in use is closed by its thread, when it is given back
                self._readers.get_nowait().close()
        if hasattr(self, "_watch"):
            self._watch.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()


def _hold(path: Path) -> Lock | None:
    """Tell ``restore`` that this process uses the file: SQLite itself would follow a swapped one.

    Raises HomeError while it is being restored.
    """
    try:
        return Lock(path.with_name(path.name + ".lock"), shared=True)
    except HomeError as error:
        if error.__cause__ is None:
            raise
        return None  # the folder cannot be written: opening the file says so better


def copy(source: Path, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Copy one snapshot of a database into the new file ``target``, and verify the copy.

    Writers go on meanwhile. The copy appears under its name only when it is whole (pages, keys,
    schema, as many rows as the snapshot), on the disk, and readable by its owner alone.
    ``progress(done_pages, total_pages)``. Raises StoreError; a failed copy leaves nothing.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        _discard(partial)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            closing(connect(source, readonly=True)) as live,
            closing(apsw.Connection(str(partial))) as made,
        ):
            _copy_pages(live, made, progress)
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    except apsw.Error as error:
        raise wrap(error, f"{source} to {target}") from error
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error.strerror}.", "Check its folder and the disk."
        ) from error
    finally:
        with suppress(OSError):
            _discard(partial)


def _copy_pages(
    live: apsw.Connection, made: apsw.Connection, progress: Callable[[int, int], None] | None
) -> None:
    # An open snapshot: without it each commit of a writer would start the copy from the beginning.
    live.execute("BEGIN")
    expected = _counts(live)
    made.execute("PRAGMA synchronous=OFF")  # a broken copy is thrown away; the whole one is synced
    with made.backup("main", live, "main") as step:
        while not step.done:
            step.step(1024)
            if progress:
                progress(step.page_count - step.remaining, step.page_count)
    made.execute("PRAGMA journal_mode=DELETE")
    verify(made)
    if (found := _counts(made)) != expected:
        raise StoreError(f"The copy has other rows: {found}, not {expected}.", "Try again.")


def _counts(conn: apsw.Connection) -> dict[str, int]:
    """Return how many rows each ordinary table has."""
    names = rows(conn, "SELECT name FROM pragma_table_list WHERE schema='main' AND type='table'")
    return {
        name: int(value(conn, f'SELECT count(*) FROM "{name}"'))
        for (name,) in names
        if not name.startswith("sqlite_")
    }


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _discard(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def rows(conn: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows of a statement."""
    return conn.execute(sql, tuple(values)).fetchall()


def value(conn: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> Any:
    """Return the first column of the first row, or None."""
    row = conn.execute(sql, tuple(values)).fetchone()
    return None if row is None else row[0]


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
