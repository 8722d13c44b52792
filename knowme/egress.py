"""The ledger of what leaves this machine: a row before each send, and what it says afterwards.

Promises: the row is committed before the first byte goes, and where it cannot be written nothing
goes; no header, so no key, is ever kept, and secrets inside a body are masked in what is kept; an
unlabelled send is a row like any other. Rows are never changed but to say how a send ended and
what it cost.
Refuses to know: what may leave (``privacy.py``), how it is sent (``wire.py``).

Who sends says what it is with ``labelled``; the row finds it in a context variable, which tasks and
``asyncio.to_thread`` inherit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import apsw

from knowme import net
from knowme.db import rows as rows_of
from knowme.db import value
from knowme.errors import NotFoundError, StoreError
from knowme.redact import masked
from knowme.times import day, iso, now_ms

if TYPE_CHECKING:
    from knowme.db import Database
    from knowme.settings import Settings

MODEL_LIST = "model list"
SHORTEST_KEY = 8
"""Characters under which a configured key is a word like any other."""
UNKNOWN = {"unknown": "unlabelled"}
"""The classes of a send that nobody labelled: anything may have been in it."""

_LONGEST_NAMED = 1 << 20  # a body beyond this is not parsed for its model's name before it goes


@dataclass(slots=True)
class Label:
    """What is about to be sent: class -> the policy that lets it go. ``rows`` are its rows."""

    purpose: str
    model: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)


_label: ContextVar[Label | None] = ContextVar("knowme_egress_label", default=None)


@contextmanager
def labelled(
    purpose: str, *, model: str = "", classes: Mapping[str, str] | None = None
) -> Iterator[Label]:
    """Say what is sent within: answer, check, shadow, passthrough, embedding, model list.

    An inner label stands in place of an outer one. In an asynchronous generator the label is seen
    by whoever consumes it too, between two yields: there, open it around the first step alone.
    """
    label = Label(purpose, model, dict(classes or {}))
    before = _label.get()
    token = _label.set(label)
    try:
        yield label
    finally:
        try:
            _label.reset(token)
        except ValueError:  # a generator that another task closes is in another context
            _label.set(before)


class Ledger:
    """The gate that every connection to a model's server passes (seams.Gate). Thread-safe."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._keep = settings.privacy.keep_bodies
        self._keys = keys_of(settings)

    def leaving(self, url: str, body: bytes) -> int:
        """Note that a body is about to be sent; returns its row. Blocks until that is on disk.

        Raises OfflineError when nothing may leave, StoreError when it cannot be noted.
        """
        net.check(url)
        path = _by_path(url)
        label = _label.get() or path
        # Within a labelled answer a server may be asked which models it has: that tells nothing.
        said = path if not body and path.purpose == MODEL_LIST else label
        found = (
            now_ms(),
            bare(url),
            said.purpose,
            label.model or _model_in(body),
            json.dumps(dict(said.classes), ensure_ascii=False),
            len(body),
            _packed(_without_keys(body, self._keys)) if self._keep else None,
        )
        row = self._db.write(lambda conn: _insert(conn, found))
        label.rows.append(row)
        return row

    def left(self, row: int, outcome: str, received_bytes: int) -> None:
        """Note how it ended: "200", "429", "refused", "cut" ... Raises StoreError."""
        self._db.write(
            lambda conn: conn.execute(
                "UPDATE egress SET outcome = ?1, received_bytes = ?2,"
                " sent_bytes = iif(?1 = 'refused', 0, sent_bytes) WHERE id = ?3",
                (outcome, received_bytes, row),
            )
        )


def _insert(conn: apsw.Connection, found: tuple[Any, ...]) -> int:
    conn.execute(
        "INSERT INTO egress(at_ms, url, purpose, model, classes, sent_bytes, body)"
        " VALUES(?, ?, ?, ?, ?, ?, ?)",
        found,
    )
    return conn.last_insert_rowid()


def keys_of(settings: Settings) -> tuple[str, ...]:
    """Return the keys and the token that are configured here: they belong into no text."""
    models = (model.api_key for model in settings.models)
    given = (
        *(settings.engine.api_key, settings.embedder.api_key, settings.service.token),
        *(settings.learn.teacher_api_key, *models),
    )
    return tuple({key for key in given if len(key) >= SHORTEST_KEY})


def _without_keys(body: bytes, keys: Iterable[str]) -> bytes:
    for key in keys:
        body = body.replace(key.encode("utf-8", "replace"), b"[api key]")
    return body


def bare(url: str) -> str:
    """Return a URL without its user, query and fragment, where keys are put by some."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _by_path(url: str) -> Label:
    """Say what an unlabelled send is, where the path of its URL says it."""
    path = urlsplit(url).path.rstrip("/")
    if path.endswith(("/embeddings", "/embed")):
        # The person configured an embedder that is not of this machine.
        return Label("embedding", classes={"documents": "allow"})
    if path.endswith(("/models", "/tags", "/version", "/health", "/show", "/ps", "/props")):
        return Label(MODEL_LIST)
    return Label("unlabelled", classes=UNKNOWN)


def _model_in(body: bytes) -> str:
    if not 1 < len(body) <= _LONGEST_NAMED:
        return ""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    name = found.get("model") if isinstance(found, dict) else None
    return name if isinstance(name, str) else ""


def _packed(body: bytes) -> bytes | None:
    """Compress a body for keeping, its secrets masked."""
    if not body:
        return None
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(_without_secrets(body))


def _without_secrets(body: bytes) -> bytes:
    """Return the body as it is, or, where a text in it holds secrets, written anew without them."""
    try:
        given = json.loads(body)
        clean = _clean("", given)
        return body if clean == given else json.dumps(clean, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return masked(body.decode("utf-8", "backslashreplace")).encode()


def _clean(name: str, given: Any) -> Any:
    """Return a JSON value without secrets; ``name`` is the key that it stands under."""
    if isinstance(given, dict):
        return {key: _clean(key, inner) for key, inner in given.items()}
    if isinstance(given, list):
        return [_clean(name, inner) for inner in given]
    if not isinstance(given, str) or given.startswith("data:"):  # a picture, megabytes of letters
        return given
    found = masked(given)
    if found == given and name and len(given) <= 200:
        led = masked(f"{name}: {given}")  # {"api_key": "..."}
        return led[len(name) + 2 :] if led.startswith(f"{name}: ") else given
    return found


# --- after the answer -----------------------------------------------------------------------------


def settle(
    conn: apsw.Connection,
    rows: Sequence[int],
    *,
    answer_id: int | None,
    prompt_tokens: int,
    answer_tokens: int,
    cost: float,
) -> None:
    """Say of the rows of one call which answer they were for, and what it cost.

    Of several rows (a request that was refused and sent again) the last one bears the tokens and
    the money, so that sums stay true.
    """
    for row in rows:
        conn.execute("UPDATE egress SET answer_id = ? WHERE id = ?", (answer_id, row))
    if rows:
        conn.execute(
            "UPDATE egress SET prompt_tokens = ?, answer_tokens = ?, cost = ? WHERE id = ?",
            (prompt_tokens, answer_tokens, cost, rows[-1]),
        )


def spent(conn: apsw.Connection, since_ms: int) -> float:
    """Return what remote models cost since then, in the money of their prices."""
    found = value(conn, "SELECT sum(cost) FROM calls WHERE at_ms >= ? AND NOT local", (since_ms,))
    return float(found or 0.0)


def month_start_ms(at_ms: int, tz: tzinfo | None) -> int:
    """Return the first moment of the month that ``at_ms`` lies in, in the person's zone."""
    return _ms(_month(at_ms, tz))


def month_elapsed(at_ms: int, tz: tzinfo | None) -> float:
    """Return which part of its month is over, in [0, 1)."""
    begin = _month(at_ms, tz)
    after = (begin.replace(tzinfo=None) + timedelta(days=32)).replace(day=1)
    end = _ms(after.astimezone() if tz is None else after.replace(tzinfo=tz))
    return (at_ms - _ms(begin)) / (end - _ms(begin))


def _month(at_ms: int, tz: tzinfo | None) -> datetime:
    here = datetime.fromtimestamp(at_ms / 1000, tz)
    first = here.replace(day=1, hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return first.astimezone() if tz is None else first.replace(tzinfo=tz)


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


# --- what a person sees ---------------------------------------------------------------------------

_COLUMNS = (
    "id, at_ms, url, purpose, model, classes, sent_bytes, received_bytes, prompt_tokens,"
    " answer_tokens, cost, outcome, answer_id, body IS NOT NULL"
)


def listed(conn: apsw.Connection, limit: int, since_ms: int | None = None) -> list[dict[str, Any]]:
    """Return what left, the newest first: one mapping a row, ``classes`` as class -> policy."""
    since = -(1 << 62) if since_ms is None else since_ms
    found = rows_of(
        conn,
        f"SELECT {_COLUMNS} FROM egress WHERE at_ms >= ? ORDER BY id DESC LIMIT ?",
        (since, limit),
    )
    return [_told(row) for row in found]


def detail(conn: apsw.Connection, row: int) -> dict[str, Any]:
    """Return one row, as ``listed`` does. Raises NotFoundError."""
    found = rows_of(conn, f"SELECT {_COLUMNS} FROM egress WHERE id = ?", (row,))
    if not found:
        raise NotFoundError(f"Nothing that left has the number {row}.", "See: knowme egress")
    return _told(found[0])


def _told(row: tuple[Any, ...]) -> dict[str, Any]:
    names = ("id", "at_ms", "url", "purpose", "model", "classes", "sent_bytes", "received_bytes")
    more = ("prompt_tokens", "answer_tokens", "cost", "outcome", "answer_id", "kept")
    told = dict(zip((*names, *more), row, strict=True))
    told["classes"] = json.loads(told["classes"])
    told["kept"] = bool(told["kept"])
    told["at"] = iso(told["at_ms"])
    return told


def body(conn: apsw.Connection, row: int) -> str:
    """Return what was sent, its secrets masked. Raises NotFoundError where it was not kept."""
    import zstandard

    told = detail(conn, row)
    packed = value(conn, "SELECT body FROM egress WHERE id = ?", (row,))
    if packed is None:
        why = (
            "it was forgotten since, or privacy.keep_bodies was off"
            if told["sent_bytes"]
            else "there was no body"
        )
        raise NotFoundError(f"What left as number {row} was not kept: {why}.", "See: knowme egress")
    try:
        return zstandard.ZstdDecompressor().decompress(packed).decode("utf-8", "replace")
    except zstandard.ZstdError as error:
        raise StoreError(f"The body of number {row} is damaged: {error}.") from error


def totals(conn: apsw.Connection, since_ms: int | None = None) -> list[dict[str, Any]]:
    """Return calls, bytes, tokens and cost by destination, the most calls first."""
    return _summed(conn, since_ms, None)


def by_day(conn: apsw.Connection, since_ms: int | None, tz: tzinfo | None) -> list[dict[str, Any]]:
    """Return the same by day (in the person's zone) and destination, the newest day first."""
    found = _summed(conn, since_ms, tz, days=True)
    return sorted(found, key=lambda one: one["day"], reverse=True)


def _summed(
    conn: apsw.Connection, since_ms: int | None, tz: tzinfo | None, *, days: bool = False
) -> list[dict[str, Any]]:
    since = -(1 << 62) if since_ms is None else since_ms
    found = conn.execute(
        "SELECT at_ms, url, sent_bytes, received_bytes, prompt_tokens, answer_tokens, cost"
        " FROM egress WHERE at_ms >= ?",
        (since,),
    )
    names = ("calls", "sent_bytes", "received_bytes", "prompt_tokens", "answer_tokens", "cost")
    sums: dict[tuple[str, str], list[Any]] = {}
    for at_ms, url, *counts in found:
        key = (day(at_ms, tz) if days else "", urlsplit(url).netloc)
        held = sums.setdefault(key, [0, 0, 0, 0, 0, 0.0])
        for at, many in enumerate((1, *counts)):
            held[at] += many
    told = [
        {**({"day": when} if days else {}), "to": to, **dict(zip(names, held, strict=True))}
        for (when, to), held in sums.items()
    ]
    return sorted(told, key=lambda one: -one["calls"])
