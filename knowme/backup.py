"""Backups of memory.db, and the way back.

Promises: a file called ``memory-YYYYMMDD-HHMMSS.db`` (UTC) was whole when it got its name.
``restore`` puts only a whole database in place, keeps what was there, refuses while anybody uses
it, and leaves either the old or the new one in place whenever it is killed.
Refuses to know: tables, schedules. Media in ``archive/`` and secrets in ``.env`` are not copied.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from knowme import db
from knowme.errors import HomeError, NotFoundError, StoreError
from knowme.lock import Lock

if TYPE_CHECKING:
    from knowme.home import Home

_NAME = re.compile(r"memory-(\d{8}-\d{6})\.db")
_STAMP = "%Y%m%d-%H%M%S"


def backup(home: Home, progress: Callable[[int, int], None] | None = None) -> Path:
    """Copy the live memory.db into ``backups/``, verified, with config.yaml beside it.

    Readers and writers go on meanwhile. ``progress(done_pages, total_pages)``; what it raises
    ends the copy and leaves nothing. Returns the new file. Raises StoreError, or HomeError while
    another backup runs.
    """
    folder = home.path / "backups"
    with _disk(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    with Lock(folder / "lock"), _disk(folder):
        for left in folder.glob("*.partial*"):  # of a killed one
            left.unlink(missing_ok=True)
        at = datetime.now(UTC).replace(microsecond=0)
        while (target := folder / f"memory-{at.strftime(_STAMP)}.db").exists():
            at += timedelta(seconds=1)
        home.db.backup(target, progress)
        settings = home.path / "config.yaml"
        if settings.exists():
            copy = _settings_beside(target)
            partial = copy.with_name(f"{copy.name}.partial")
            shutil.copyfile(settings, partial)
            partial.chmod(0o600)
            partial.replace(copy)
    return target


def backups(home_path: Path) -> list[Path]:
    """Return the backups of a home, newest first."""
    folder = home_path / "backups"
    found = folder.iterdir() if folder.is_dir() else iter(())
    return sorted((path for path in found if _NAME.fullmatch(path.name)), reverse=True)


def made_at(path: Path) -> datetime | None:
    """Return when a backup was made (UTC), by its name; None for a name that is not ours."""
    match = _NAME.fullmatch(path.name)
    return datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC) if match else None


def check(path: Path) -> None:
    """Raise StoreError, naming the file, unless it is a whole memory.db that we can read."""
    if not path.is_file():
        raise StoreError(f"There is no backup {path}.", "See them: knowme restore --list")
    try:
        with closing(db.connect(path, readonly=True)) as conn:
            db.verify(conn)
            if int(conn.pragma("user_version")) == 0:
                raise StoreError("It holds no tables.", "Use another backup.")
    except apsw.Error as error:
        raise StoreError(f"{path} is damaged: {error}.", "Use another backup.") from error
    except StoreError as error:
        raise StoreError(f"{path} cannot be used. {error.message}", error.hint) from error


def rotate(home: Home, keep: int) -> list[Path]:
    """Keep the newest backup of each of the newest ``keep`` days; return what was deleted.

    Before anything is deleted, one that stays must prove whole; if none does, the newest whole
    one stays as well.
    """
    return rotate_in(home.path, keep)


def rotate_in(home_path: Path, keep: int) -> list[Path]:
    """Do what ``rotate`` does, for a home that is not open."""
    newest: dict[str, Path] = {}
    for path in backups(home_path):
        newest.setdefault(path.name[:15], path)  # memory-YYYYMMDD
    stay = list(newest.values())[: max(keep, 1)]
    go = [path for path in backups(home_path) if path not in stay]
    if go and _first_whole(stay) is None and (whole := _first_whole(go)) is not None:
        go.remove(whole)
    with _disk(home_path / "backups"):
        for path in go:
            _settings_beside(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    return go


def restore(home_path: Path, backup: Path | None = None) -> Path:
    """Put a backup (the newest by default) in the place of memory.db; return the backup used.

    What was there stays as ``memory.db.before-restore-<time>``. Raises StoreError for a damaged
    or newer backup, which it names, HomeError while a process uses the home, NotFoundError when
    there is no backup. After any error the old database is in place.
    """
    live = home_path / "memory.db"
    with Lock(home_path / "daemon.lock"), Lock(home_path / "memory.db.lock"), _disk(home_path):
        backup = _chosen(home_path, backup)
        made = home_path / "memory.db.restoring"
        try:
            db.copy(backup, made)
            _reached("copied")
            aside = _keep_aside(live)
            _page_aside(home_path)
            _forget_index(home_path)
            made.replace(live)
        finally:
            made.unlink(missing_ok=True)
        _reached("swapped")
        db.sync(home_path)
        try:
            check(live)
        except StoreError:
            if aside is not None:
                os.replace(aside, live)
                db.sync(home_path)
            raise
    return backup


def _chosen(home_path: Path, backup: Path | None) -> Path:
    """Return the backup to use, checked. A damaged one is refused, and a whole one named."""
    if backup is None:
        if not (known := backups(home_path)):
            raise NotFoundError(
                f"There is no backup in {home_path / 'backups'}.", "Make one: knowme backup"
            )
        backup = known[0]
    try:
        check(backup)
        return backup
    except StoreError as error:
        other = _first_whole(path for path in backups(home_path) if path != backup)
        hint = f"Run: knowme restore {other}" if other else error.hint
        raise StoreError(error.message, hint) from error


def _keep_aside(live: Path) -> Path | None:
    """Give the present database a second name, whole, without a moment in which it has none."""
    if not live.exists():
        return None
    _fold_in(live)
    for left in live.parent.glob(f"{live.name}.before-restore-*"):
        if left.samefile(live):  # of a restore killed before the swap: another name of this file
            left.unlink()
    at = datetime.now(UTC)
    while (aside := live.with_name(f"{live.name}.before-restore-{at.strftime(_STAMP)}")).exists():
        at += timedelta(seconds=1)
    # Only a damaged database still has these beside it. They must not be there when the new one
    # takes its place, or SQLite would replay the old one's log into it.
    sides = [s for s in ("-wal", "-shm", "-journal") if live.with_name(live.name + s).exists()]
    for suffix in ("", *sides):
        _second_name(live.with_name(live.name + suffix), aside.with_name(aside.name + suffix))
    db.sync(live.parent)
    _reached("kept")
    for suffix in sides:
        live.with_name(live.name + suffix).unlink()
    _reached("cleared")
    return aside


def _fold_in(live: Path) -> None:
    """Bring the write-ahead log into the file itself, which also proves that nobody has it open.

    In WAL mode each connection holds a shared lock on the file while it lives, and leaving WAL
    mode needs that lock alone. A damaged file is left as it is.
    """
    conn = apsw.Connection(str(live))
    try:
        conn.set_busy_timeout(2000)
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute("PRAGMA journal_mode=DELETE")
        _reached("folded")
    except (apsw.BusyError, apsw.LockedError) as error:
        raise HomeError(
            f"{live} is in use by another program.", "Stop what uses it, then restore again."
        ) from error
    except (apsw.CorruptError, apsw.NotADBError):
        pass
    except apsw.Error as error:
        raise db.wrap(error, live) from error
    finally:
        with suppress(apsw.Error):
            conn.close()


def _second_name(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, other)
        other.chmod(0o600)
        db.sync(other)


def _page_aside(home_path: Path) -> None:
    """Put the profile's page away: it was made from the other database, which knows its lines.

    Beside this one they would look as if the person had written them. It is built anew.
    """
    page = home_path / "USER_PROFILE.md"
    if page.exists():
        at = datetime.now(UTC).strftime(_STAMP)
        page.rename(page.with_name(f"{page.name}.before-restore-{at}"))


def _forget_index(home_path: Path) -> None:
    # Derived, and it follows memory.db by a counter that a restored one may reach again.
    for path in (home_path / "index").glob("*"):
        shutil.rmtree(path, ignore_errors=True)


def _first_whole(paths: Iterable[Path]) -> Path | None:
    for path in paths:
        with suppress(StoreError):
            check(path)
            return path
    return None


def _settings_beside(path: Path) -> Path:
    return path.with_name(path.name.replace("memory-", "config-").replace(".db", ".yaml"))


class _disk:
    """Turns what the file system refuses into our error, naming the file."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(
                f"{error.filename or self._where}: {error.strerror}.",
                "Check the permissions of the home and the space on its disk.",
            ) from error


def _reached(step: str) -> None:
    """Do nothing. The tests kill the process here: after each step that changes the disk."""
