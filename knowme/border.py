"""The border: the one place where a request to a model's server leaves this machine.

Promises: every client that `wire.Server` makes sends through here, so no engine can forget it.
Nothing goes to an address that `net.check` refuses; what counts as leaving is noted by the gate
before a byte of it is sent, and not sent when it cannot be noted; how it ended is noted once,
whatever the end: an answer, an error, a reader who went away.
Refuses to know: what is sent and why (`egress.py` notes it).

Outcomes: the status ("200", "429") of an answer that was read to its end; "refused" (no
connection), "timeout", "cut" (it broke off), "closed" (we hung up before its end), "cancelled".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

import httpx

from knowme import net
from knowme.errors import KnowmeError

if TYPE_CHECKING:
    from knowme.seams import Gate

# llama.cpp says that it keeps a connection and closes it all the same, after the end of a stream or
# five seconds: a request on its way then is lost, and may not be sent twice. A new one without TLS
# costs a tenth of a millisecond, so only https keeps them, where it costs several round trips.
_KEPT = 20
_IDLE_SECONDS = 30.0

_own = lru_cache(maxsize=256)(net.is_loopback)


class Border(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for httpx, for blocking and asyncio clients alike.

    ``local`` is "true" (nothing counts as leaving), "false" (all does), or "auto": what goes
    beyond loopback does. Raises OfflineError and StoreError out of the request.
    """

    def __init__(self, url: str, *, gate: Gate | None = None, local: str = "auto") -> None:
        own = net.is_loopback(url)
        secure = url.lower().startswith("https")
        self._gate = gate
        self._local = local
        self._how: dict[str, Any] = {
            # Loading the certificate store takes 20 ms, which plain http has no use for.
            "verify": secure,
            "trust_env": not own,
            "limits": httpx.Limits(
                max_connections=256,
                max_keepalive_connections=_KEPT if secure else 0,
                keepalive_expiry=_IDLE_SECONDS,
            ),
            "proxy": None if own else _proxy(url),  # a proxy cannot reach this machine's loopback
        }
        self._blocking: httpx.HTTPTransport | None = None
        self._awaiting: httpx.AsyncHTTPTransport | None = None

    def _leaves(self, request: httpx.Request) -> Gate | None:
        """Return the gate that must hear of this request, or None. Raises OfflineError."""
        url = str(request.url)
        net.check(url)
        if self._gate is None or self._local == "true":
            return None
        return self._gate if self._local == "false" or not _own(request.url.host) else None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, noting that it leaves. Raises what httpx does, OfflineError, StoreError."""
        if self._blocking is None:
            self._blocking = httpx.HTTPTransport(**self._how)
        gate = self._leaves(request)
        if gate is None:
            return self._blocking.handle_request(request)
        row = gate.leaving(str(request.url), request.read())
        try:
            reply = self._blocking.handle_request(request)
        except BaseException as error:
            _note(gate, row, _outcome(error), 0)
            raise
        reply.stream = _Counted(reply, gate, row)
        return reply

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, noting that it leaves. Raises what httpx does, OfflineError, StoreError.

        The gate writes to a disk, so it works in a thread; a reader who is cancelled meanwhile
        leaves no row without an end.
        """
        if self._awaiting is None:
            self._awaiting = httpx.AsyncHTTPTransport(**self._how)
        gate = self._leaves(request)
        if gate is None:
            return await self._awaiting.handle_async_request(request)
        body = await request.aread()
        noting = asyncio.ensure_future(asyncio.to_thread(gate.leaving, str(request.url), body))
        try:
            row = await asyncio.shield(noting)
        except asyncio.CancelledError:
            noting.add_done_callback(lambda done: _note_cancelled(gate, done))
            raise
        try:
            reply = await self._awaiting.handle_async_request(request)
        except BaseException as error:
            await _noted(gate, row, _outcome(error), 0)
            raise
        reply.stream = _Counted(reply, gate, row)
        return reply

    def close(self) -> None:
        """Close the connections of a blocking client."""
        if self._blocking is not None:
            self._blocking.close()

    async def aclose(self) -> None:
        """Close the connections of an asyncio client."""
        if self._awaiting is not None:
            await self._awaiting.aclose()


class _Counted(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a reply on its way in: its bytes are counted, its end is noted once."""

    def __init__(self, reply: httpx.Response, gate: Gate, row: int) -> None:
        self._inner: Any = reply.stream
        self._status = str(reply.status_code)
        self._gate = gate
        self._row = row
        self._bytes = 0
        self._outcome = "closed"
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._inner:
                self._bytes += len(piece)
                yield piece
        except Exception as error:
            self._outcome = _outcome(error)
            raise
        self._outcome = self._status

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                self._bytes += len(piece)
                yield piece
        except (Exception, asyncio.CancelledError) as error:
            self._outcome = _outcome(error)
            raise
        self._outcome = self._status

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            if self._open:
                self._open = False
                _note(self._gate, self._row, self._outcome, self._bytes)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            if self._open:
                self._open = False
                await _noted(self._gate, self._row, self._outcome, self._bytes)


def _note(gate: Gate, row: int, outcome: str, received_bytes: int) -> None:
    # That it left is on record already; an answer is not lost because its end could not be noted.
    with suppress(KnowmeError):
        gate.left(row, outcome, received_bytes)


async def _noted(gate: Gate, row: int, outcome: str, received_bytes: int) -> None:
    await asyncio.shield(asyncio.to_thread(_note, gate, row, outcome, received_bytes))


def _note_cancelled(gate: Gate, done: asyncio.Future[int]) -> None:
    if not done.cancelled() and done.exception() is None:
        _note(gate, done.result(), "cancelled", 0)


def _outcome(error: BaseException) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return "refused"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    return "cut" if isinstance(error, Exception) else "cancelled"


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for this address."""
    found = httpx.URL(url)
    if proxy_bypass(found.host):
        return None
    named = getproxies()
    proxy = named.get(found.scheme) or named.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
