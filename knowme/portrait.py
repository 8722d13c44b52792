"""The portrait of the person: from facts and their own sentences to USER_PROFILE.md.

Promises: no model is needed; the page is the same whether it was built bit by bit or at once; what
the person changed in the file is absorbed first and never overwritten; the file appears whole, for
its owner's eyes alone, within ``context.memory_tokens``.
Refuses to know: how a fact is read, what a line looks like, which prompt shows it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import apsw

from knowme import extract, facts, fingerprints, profile, psyche, spans, states
from knowme.db import rows
from knowme.errors import HomeError
from knowme.times import now_ms, zone
from knowme.types import ME, Fact, Line
from knowme.wire import estimate_tokens
from knowme.workspace import MAX_BYTES, PROFILE

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.settings import Settings

STATE = "portrait"
VERSION = 1
"""Of the reading of sentences: another one reads all of them again."""
BATCH = 2000
TRIES = 5
_LOCK = threading.Lock()


class Built(NamedTuple):
    """What a build did. ``written`` is the page, None where there is none to write.

    ``changes`` counts lines that changed, ``absorbed`` those that the person had changed in the
    file, ``left_out`` those the page has no room for.
    """

    changes: int
    written: Path | None
    absorbed: int = 0
    left_out: int = 0


def build(home: Home, at_ms: int | None = None) -> Built:
    """Bring the profile up to date and write the page. Raises HomeError, StoreError.

    What the person changed in the file since comes first. Where somebody writes meanwhile (the
    file, or a decision), it begins again.
    """
    stamp = now_ms() if at_ms is None else at_ms
    path = home.path / PROFILE
    with _alone(home.path):
        absorbed = 0
        for _ in range(TRIES):
            text = read_file(path)
            absorbed += _absorb(home, text, stamp)
            look(home, stamp)
            with home.db.read() as conn:
                told = profile.decisions(conn)
                lines = derive(conn, home.settings, stamp)
            page = _rendered(home, lines)
            changes = home.db.write(lambda conn: _store(conn, told, lines, page, stamp))  # noqa: B023
            if changes is None or read_file(path) != text:
                continue
            written = _write(path, page, text)
            home.db.write(lambda conn: profile.confirm_page(conn, page, stamp))  # noqa: B023
            return Built(changes + absorbed, written, absorbed, len(page.left_out))
    raise HomeError(
        f"{path} keeps changing while it is written.", "Close what writes it: knowme profile build"
    )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let one build go at a time: of the threads of this process, and of other processes."""
    with _LOCK:
        fd = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _store(
    conn: apsw.Connection,
    told: Sequence[profile.Decision],
    lines: Sequence[Line],
    page: profile.Page,
    at_ms: int,
) -> int | None:
    """Store what was derived, unless the person said something meanwhile."""
    if profile.decisions(conn) != list(told):
        return None
    changes = profile.store(conn, lines, at_ms)
    profile.note_page(conn, page, at_ms)
    return changes


def _rendered(home: Home, lines: Iterable[Line]) -> profile.Page:
    budget = home.settings.context.memory_tokens
    return profile.render(lines, budget, estimate_tokens, home.settings.name)


def settle(home: Home, at_ms: int | None = None) -> int:
    """Absorb what the person changed in the file, and nothing else. Returns how many lines changed.

    For what must come before anything else touches the profile: forgetting, restoring.
    """
    with _alone(home.path):
        return _absorb(home, read_file(home.path / PROFILE), now_ms() if at_ms is None else at_ms)


def _absorb(home: Home, text: str, at_ms: int) -> int:
    return len(home.db.write(lambda conn: profile.absorb(conn, text, at_ms))) if text else 0


def left_out(home: Home) -> tuple[Line, ...]:
    """Return the current lines that the page has no room for."""
    with home.db.read() as conn:
        return _rendered(home, profile.lines(conn)).left_out


# --- deriving -------------------------------------------------------------------------------------


def derive(conn: apsw.Connection, settings: Settings, at_ms: int) -> list[Line]:
    """Return the lines of the profile, from the facts, the sentences and the decisions there are.

    Stores nothing. Sentences count as far as ``look`` has read them.
    """
    tz = zone(settings.memory.timezone)
    known = believed(conn)
    found, places = [], _places(conn, {fact.message_id for fact in known}, settings)
    if settings.profile.psychology:
        found = psyche.findings(_marked(conn, settings))
    return profile.lines_from(
        known,
        found,
        profile.decisions(conn),
        today=datetime.fromtimestamp(at_ms / 1000, tz).date().isoformat(),
        places=places,
        keep_sensitive=settings.privacy.sensitive != "off",
    )


def believed(conn: apsw.Connection) -> list[Fact]:
    """Return the facts that are believed, and those that say them again."""
    found = facts.believed(conn, states=("believed", "repeated"), limit=2**31)
    known = {fact.uid for fact in found if fact.state == "believed"}
    return [fact for fact in found if fact.state == "believed" or fact.other in known]


def _places(conn: apsw.Connection, ids: Iterable[int], settings: Settings) -> dict[int, str]:
    """Return where and when each message was said: another conversation or day is another place."""
    found = rows(
        conn,
        "SELECT id, conversation_id, at_ms FROM messages WHERE id IN"
        " (SELECT value FROM json_each(?))",
        (json.dumps(sorted(ids)),),
    )
    return {
        number: f"{where} {extract.day_of(at_ms, settings) or ''}" for number, where, at_ms in found
    }


# --- the person's own sentences -------------------------------------------------------------------


class _Looked(NamedTuple):
    """How far sentences were read: ids of messages only, no word of them."""

    version: str
    upto: int
    ids: tuple[int, ...]


def look(home: Home, at_ms: int | None = None) -> int:
    """Read the sentences of what is new for what they say of the person. Returns how many messages.

    In batches, each of them kept: it may be interrupted.
    """
    if not home.settings.profile.psychology:
        return 0
    stamp, many = now_ms() if at_ms is None else at_ms, 0
    while True:
        with home.db.read() as conn:
            before = _looked(conn)
            new = rows(
                conn,
                "SELECT id, plain(text) FROM messages WHERE id > ? AND role IN ('user', 'document')"
                " ORDER BY id LIMIT ?",
                (before.upto, BATCH),
            )
        if not new:
            return many
        marked = (number for number, text in new if psyche.read(text))
        now = _Looked(before.version, new[-1][0], (*before.ids, *marked))
        home.db.write(lambda conn: _put_looked(conn, now, stamp))  # noqa: B023
        many += len(new)


def _version() -> str:
    data = (resources.files("knowme") / "data" / "psyche.json").read_bytes()
    return f"{VERSION} {hashlib.sha256(data).hexdigest()[:12]}"


def _looked(conn: apsw.Connection) -> _Looked:
    told = states.read(conn, STATE)
    version = _version()
    if told is None or told["version"] != version:
        return _Looked(version, 0, ())
    return _Looked(version, told["upto"], tuple(told["ids"]))


def _put_looked(conn: apsw.Connection, now: _Looked, at_ms: int) -> None:
    if _looked(conn).upto > now.upto:  # another process was there first
        return
    states.keep(conn, STATE, now._asdict(), at_ms)


def _marked(
    conn: apsw.Connection, settings: Settings
) -> list[tuple[psyche.Said, list[psyche.Mark]]]:
    """Return the person's own messages that say something of them, each with its marks."""
    spoken = extract.spoken(conn, _looked(conn).ids, settings)
    own = [one for one in spoken if one.subject == ME]
    places = _places(conn, (one.id for one in own), settings)
    found = []
    for one in own:
        foreign = [*spans.foreign(one.text)]
        foreign += fingerprints.spans(conn, one.text, before_message=one.id)
        if marks := psyche.read(one.text, foreign):
            found.append((psyche.Said(one.id, places[one.id], one.text), marks))
    return found


def texts(conn: apsw.Connection, settings: Settings) -> list[str]:
    """Return all that the person said themselves, for the baseline of keywords."""
    found = rows(conn, "SELECT id FROM messages WHERE role IN ('user', 'document') ORDER BY id")
    spoken = extract.spoken(conn, [row[0] for row in found], settings)
    return [one.text for one in spoken if one.subject == ME]


# --- the file -------------------------------------------------------------------------------------


def read_file(path: Path) -> str:
    """Return the page as it lies there; "" where there is none.

    Raises HomeError where it cannot be read, or is no page of ours to write: a folder, a link out
    of the home, a file that is far too long.
    """
    try:
        if path.is_symlink() and path.parent.resolve() not in path.resolve().parents:
            raise HomeError(f"{path} leads out of the home.", "Put a file in its place.")
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BYTES:
            raise HomeError(
                f"{path} is no page of a profile.", "Move it away, then: knowme profile"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise HomeError(
            f"{path} cannot be read: {error.strerror}.", "Check the permissions of the home."
        ) from error
    try:
        return data.decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace").replace("\0", "")


def _write(path: Path, page: profile.Page, text: str) -> Path | None:
    """Write the page where it differs. Where nothing is known and nothing was there: no file."""
    if not page.shown and not text:
        return None
    try:
        target = path.resolve()
        if not page.text:
            target.unlink(missing_ok=True)
            return None
        if not target.exists() or target.read_bytes() != page.text.encode():
            _replace(target, page.text)
    except OSError as error:
        raise HomeError(
            f"{path} cannot be written: {error.strerror}.", "Check the disk and the permissions."
        ) from error
    return path


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)
        fd = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
