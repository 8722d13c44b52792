"""Anthropic's Message Batches API, and what was submitted to it: paid once, whatever happens.

    POST /v1/messages/batches -> GET .../{id} until it has ended -> GET .../{id}/results (JSONL)

Promises: what is about to be submitted stands on the disk before the first byte goes, and its id
as soon as the answer is read. Between the two nobody knows the fate of a request that was cut: HTTP
has no word for it, and this API takes no key of idempotence. Then nothing is submitted again; the
list of the batches that came after is asked, and ours is known by the names of its requests, which
its results repeat. Only when the list does not have it, SETTLE_MS later, was it never taken on.
The key stands in a header alone: in no error, no log, no file; it goes to no other host.
Refuses to know: what is asked, and what becomes of the answers (``teacher.py``).

The file (runs/teacher/batches.json) holds numbers and names of ours, no words.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import egress, wire
from knowme.errors import InputError, KnowmeError, ModelDownError, ModelError
from knowme.learn import runs

if TYPE_CHECKING:
    import httpx

    from knowme.seams import Gate

VERSION = "2023-06-01"
PATH = "/v1/messages/batches"
MOST_REQUESTS, MOST_BYTES = 100_000, 200_000_000
"""Of one batch; the API takes 256 MB."""
KEPT_DAYS = 29
"""How long results can be fetched."""
SETTLE_MS = 600_000
"""After so long a request that was cut has arrived or never will."""
STATUSES = ("in_progress", "canceling", "ended")
OUTCOMES = ("succeeded", "errored", "canceled", "expired")
PURPOSE = "teacher"
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PAGE = 100
_MEND = "Nothing is lost: run it again later, and it goes on from here."
_KEY_MEND = "Put the right one into .env: KNOWME_LEARN_TEACHER_API_KEY"


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as the server tells it. ``counts``: processing and OUTCOMES -> how many."""

    id: str
    status: str
    counts: Mapping[str, int]
    results_url: str = ""

    @property
    def ended(self) -> bool:
        """Whether its results can be read."""
        return self.status == "ended"

    @property
    def total(self) -> int:
        """How many requests it has."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request: ``outcome`` is one of OUTCOMES; the rest where it succeeded.

    ``given`` is the input of the tool that was called, None where none was; ``text`` what was said.
    """

    custom_id: str
    outcome: str
    text: str = ""
    given: Mapping[str, Any] | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    finish: str = ""
    error: str = ""


class Service:
    """The API at one address. What goes there counts as leaving, wherever it is.

    Use it in one event loop; close it. Raises ConfigError for a bad address or a missing key.
    """

    def __init__(
        self, url: str, key: str, *, gate: Gate | None, model: str = "", seconds: float = 120.0
    ) -> None:
        if not key:
            raise InputError("There is no key for Anthropic.", _KEY_MEND)
        where = wire.address(url, "learn.teacher_url")
        self._server = wire.Server("Anthropic", where, _MEND, key, seconds, gate, "false")
        self._model = model
        self._client: httpx.AsyncClient | None = None

    def _get(self) -> httpx.AsyncClient:
        import httpx

        if self._client is None:
            told = self._server.settings()
            told["headers"] = {"x-api-key": self._server.key, "anthropic-version": VERSION}
            self._client = httpx.AsyncClient(**told)
        return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # --- what can be asked ------------------------------------------------------------------------

    async def create(self, requests: Sequence[Mapping[str, Any]]) -> Batch:
        """Submit a batch: {"custom_id", "params"} each. Never sent twice by this function.

        Raises ModelError; its ``reached`` is "no" only where the server said that it took nothing.
        """
        names = [str(each.get("custom_id")) for each in requests]
        if not names or len(names) > MOST_REQUESTS:
            raise InputError(f"A batch of {len(names)} requests: it has 1 to {MOST_REQUESTS}.")
        if bad := [name for name in names if not _NAME.fullmatch(name)]:
            raise InputError(f"{bad[0]!r} is no name of a request.")
        if len(set(names)) < len(names):
            raise InputError("Two requests of a batch have the same name.")
        async with self._asked("POST", PATH, {"requests": list(requests)}) as reply:
            return self._batch(await self._json(reply))

    async def get(self, batch_id: str) -> Batch:
        """Return how a batch is. Raises ModelError."""
        async with self._asked("GET", self._path(batch_id)) as reply:
            return self._batch(await self._json(reply))

    async def newest(self) -> str:
        """Return the id of the batch that was made last, "" where there is none. Raises ModelError.

        It also proves that the server is there and takes the key, before anything is sent.
        """
        async with self._asked("GET", f"{PATH}?limit=1") as reply:
            found = self._page(await self._json(reply))[0]
        return found[0].id if found else ""

    async def since(self, before: str) -> list[Batch]:
        """Return the batches that were made after one ("": all), the newest first."""
        made: list[Batch] = []
        after = ""
        while True:
            cursor = f"&after_id={after}" if after else ""
            async with self._asked("GET", f"{PATH}?limit={_PAGE}{cursor}") as reply:
                found, more = self._page(await self._json(reply))
            for batch in found:
                if batch.id == before:
                    return made
                made.append(batch)
            if not more or not found:
                return made
            after = found[-1].id

    async def results(self, batch: Batch) -> AsyncIterator[Result]:
        """Yield what became of each request, in any order. Raises ModelError.

        They are read from this address alone: a ``results_url`` elsewhere would be sent the key.
        """
        async with self._asked("GET", f"{self._path(batch.id)}/results") as reply:
            try:
                async for line in wire.lines(reply):
                    if line.strip():
                        yield self._result(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise self._server.nonsense(str(error)) from error

    # --- the wire -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: Any = None
    ) -> AsyncIterator[httpx.Response]:
        import httpx

        sent = wire.sendable(body) if body is not None else {}
        try:
            async with self._get().stream(method, f"{self._server.url}{path}", **sent) as reply:
                if reply.status_code != 200:
                    text = (await reply.aread()).decode("utf-8", "replace")
                    raise self._refused(reply.status_code, text, reply.headers)
                yield reply
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._server.down(error) from error

    def _refused(self, status: int, text: str, headers: Mapping[str, str]) -> ModelError:
        error = self._server.refused(status, text, headers.get("retry-after", ""))
        if status in (401, 403):
            return ModelDownError(error.message, _KEY_MEND)
        if status == 404:
            return ModelError(error.message, "Check learn.teacher_url; a batch may be deleted.")
        if status == 413:
            return ModelError(
                error.message, "It is more than the server takes: --since a later day."
            )
        return error

    async def _json(self, reply: httpx.Response) -> Any:
        try:
            return json.loads(await reply.aread())
        except (ValueError, RecursionError) as error:
            raise self._server.nonsense(str(error)) from error

    def _path(self, batch_id: str) -> str:
        if not _ID.fullmatch(batch_id):
            raise self._server.nonsense(f"the id {batch_id!r}")
        return f"{PATH}/{batch_id}"

    def _page(self, told: Any) -> tuple[list[Batch], bool]:
        if not isinstance(told, dict) or not isinstance(told.get("data"), list):
            raise self._server.nonsense(str(told)[:200])
        return [self._batch(each) for each in told["data"]], bool(told.get("has_more"))

    def _batch(self, told: Any) -> Batch:
        try:
            counts = {name: int(told["request_counts"][name]) for name in ("processing", *OUTCOMES)}
            batch = Batch(
                str(told["id"]), told["processing_status"], counts, told.get("results_url") or ""
            )
            if told["type"] != "message_batch" or batch.status not in STATUSES:
                raise ValueError(told["type"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._server.nonsense(str(told)[:200]) from error
        self._path(batch.id)
        return batch

    def _result(self, told: Any) -> Result:
        try:
            name, found = str(told["custom_id"]), told["result"]
            outcome = found["type"]
            if outcome not in OUTCOMES:
                raise ValueError(outcome)
            if outcome != "succeeded":
                error = found.get("error") or {}
                said = error.get("error", error)  # {"type": "error", "error": {type, message}}
                why = f"{said.get('type', '')}: {said.get('message', '')}" if said else ""
                return Result(name, outcome, error=self._server.hidden(why))
            message = found["message"]
            blocks, usage = message["content"], message.get("usage") or {}
            text = "".join(each["text"] for each in blocks if each["type"] == "text")
            called = next((each["input"] for each in blocks if each["type"] == "tool_use"), None)
            cached = sum(
                int(usage.get(each) or 0)
                for each in ("cache_creation_input_tokens", "cache_read_input_tokens")
            )
            return Result(
                name, outcome, text, called if isinstance(called, dict) else None,
                int(usage.get("input_tokens") or 0) + cached, int(usage.get("output_tokens") or 0),
                str(message.get("stop_reason") or ""),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._server.nonsense(f"a result: {error!r}") from error


# --- what was submitted ---------------------------------------------------------------------------


@dataclass(slots=True)
class Entry:
    """One submission. ``state``: sending (its fate is unknown), sent (``id``), read, refused, lost.

    ``requests`` maps the name of a request to the numbers of the messages that it shows; ``before``
    is the newest batch that there was; ``rows`` its rows of egress; ``cost`` what was confirmed.
    """

    nonce: str
    purpose: str
    model: str
    url: str
    at_ms: int
    before: str
    requests: dict[str, list[int]]
    state: str = "sending"
    id: str = ""
    rows: list[int] = field(default_factory=list)
    cost: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether something may still come, and is or may be paid for."""
        return self.state in ("sending", "sent")


def entries(path: Path) -> list[Entry]:
    """Return what was submitted, the oldest first. Raises InputError where the file is damaged.

    A damaged one is no reason to pay again: it is never taken for an empty one.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
        return [Entry(**each) for each in told["batches"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.",
            "It says what was paid for. Mend it, or delete it where nothing is on its way.",
        ) from error


def put(path: Path, entry: Entry) -> None:
    """Write one entry, in place of its older form, whole and synced. Raises OSError."""
    from knowme.db import sync

    held = [each for each in entries(path) if each.nonce != entry.nonce]
    held.append(entry)
    held.sort(key=lambda each: (each.at_ms, each.nonce))
    runs.put(path, {"batches": [asdict(each) for each in held]})
    sync(path.parent)


def cut(requests: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Cut requests into batches that the API takes."""
    made: list[list[Mapping[str, Any]]] = []
    size = 0
    for each in requests:
        one = len(json.dumps(each, ensure_ascii=False).encode("utf-8", "replace")) + 1
        if not made or len(made[-1]) == MOST_REQUESTS or size + one > MOST_BYTES:
            made.append([])
            size = 0
        made[-1].append(each)
        size += one
    return made


async def submit(
    service: Service, path: Path, entry: Entry, requests: Sequence[Mapping[str, Any]],
    classes: Mapping[str, str],
) -> None:  # fmt: skip
    """Submit a batch; its entry is on disk before and after. Raises ModelError, OSError.

    Where the server took nothing on the entry is closed ("refused"). Where nobody knows, it stays
    "sending": ``settle`` finds out.
    """
    with egress.labelled(PURPOSE, model=entry.model):
        entry.before = await service.newest()
    put(path, entry)
    try:
        with egress.labelled(PURPOSE, model=entry.model, classes=classes) as label:
            batch = await service.create(requests)
    except KnowmeError as error:  # what is no ModelError came before the first byte: the ledger
        entry.rows = label.rows
        reached = getattr(error, "reached", "no")
        entry.state = "refused" if reached == "no" else "sending"
        put(path, entry)
        if reached == "no":
            raise
        raise ModelDownError(
            f"{error.message} Whether the batch was taken on is not known.",
            "Run it again in some minutes: it is looked for, and nothing is paid twice.",
            reached="maybe",
        ) from error
    entry.rows, entry.id, entry.state = label.rows, batch.id, "sent"
    put(path, entry)


async def settle(service: Service, path: Path, entry: Entry, now_ms: int) -> None:
    """Find out what became of a submission whose answer was never read. Raises ModelError.

    It becomes "sent" where a batch repeats the names of its requests, "lost" where none is there
    that could be it and it is SETTLE_MS old; else it stays "sending": ask again later.
    """
    if now_ms - entry.at_ms > KEPT_DAYS * 86_400_000:
        entry.state = "lost"  # whatever came of it cannot be fetched any more
        put(path, entry)
        return
    held = {each.id for each in entries(path) if each.id}
    waiting = now_ms - entry.at_ms < SETTLE_MS
    with egress.labelled(PURPOSE, model=entry.model):
        for batch in await service.since(entry.before):
            if batch.id in held or batch.total != len(entry.requests):
                continue
            if not batch.ended:
                waiting = True  # its requests have no names before its end
            elif await _is(service, batch, entry):
                entry.id, entry.state = batch.id, "sent"
                put(path, entry)
                return
    if not waiting:
        entry.state = "lost"
        put(path, entry)


async def _is(service: Service, batch: Batch, entry: Entry) -> bool:
    from contextlib import aclosing

    async with aclosing(service.results(batch)) as found:  # type: ignore[type-var]
        async for result in found:
            return result.custom_id in entry.requests
    return False
