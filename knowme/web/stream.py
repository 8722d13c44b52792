"""Answers that come piece by piece (server-sent events), and clients that leave.

Promises: when the client leaves, or the service stops, the source of the pieces is closed at once,
in a task of its own that nobody cancels twice, so that it can store what there is. While nothing
comes, a comment every few seconds keeps proxies from closing the connection.
Refuses to know: what the pieces mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from knowme.web.problems import StoppingError, describe, to_json

T = TypeVar("T")
Piece = tuple[str, Mapping[str, Any]]
"""The name of an event and its data."""

STALLED_SECONDS = 60.0
MEDIA_TYPE = "text/event-stream; charset=utf-8"
BEAT_SECONDS = 15.0
BEAT: Piece = ("beat", {})
STOPPING = StoppingError("The service is stopping.", "Ask again in a moment.")


def sse(event: str, data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event. JSON has no raw line break, so one data line holds it."""
    return f"event: {event}\ndata: {to_json(data)}\n\n".encode("utf-8", "replace")


async def gone(receive: Receive) -> None:
    """Return when the client has left. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)


async def settle(task: asyncio.Task[Any]) -> None:
    """Cancel a task once and wait until it has ended, however often we are cancelled ourselves."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # looked at: asyncio does not complain of it later


async def while_here(work: Coroutine[Any, Any, T], receive: Receive, stop: asyncio.Event) -> T:
    """Return what ``work`` returns; cancel it when the client leaves or the service stops.

    Raises ClientDisconnect, or BusyError when the service stops.
    """
    task = asyncio.create_task(work)
    left, stopping = asyncio.create_task(gone(receive)), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, left, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise STOPPING if stopping.done() else ClientDisconnect()
    finally:
        for other in (left, stopping, task):
            if not other.done():
                await settle(other)


class EventStream(Response):
    """An ASGI response that sends pieces as events until they end, fail, or nobody listens."""

    def __init__(self, pieces: AsyncGenerator[Piece, None], stop: asyncio.Event) -> None:
        """Take the pieces; the headers go out with the first of them.

        An exception before the first piece is raised (it becomes a plain error response); a later
        one becomes the event ``error``.
        """
        super().__init__(headers={"x-accel-buffering": "no"}, media_type=MEDIA_TYPE)
        self._pieces = pieces
        self._stop = stop
        self._ready: asyncio.Queue[Piece | Exception | None] = asyncio.Queue(maxsize=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        left, stop = asyncio.create_task(gone(receive)), asyncio.create_task(self._stop.wait())
        pump = asyncio.create_task(self._pump())
        started = False
        try:
            while (piece := await self._take(left, stop, started)) is not None:
                if not started:
                    started = True
                    await self._start(send)
                if piece is BEAT:
                    await _send(send, b": still here\n\n")
                    continue
                await _send(send, sse(*piece))
                if piece[0] == "error":
                    break
            if not left.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            for task in (pump, left, stop):
                if not task.done():
                    await settle(task)

    async def _start(self, send: Send) -> None:
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _pump(self) -> None:
        # One task from the first piece to the close: what a generator opened in one task (a
        # timeout, a connection) may not be closed in another.
        try:
            async for piece in self._pieces:
                await self._ready.put(piece)
            await self._ready.put(None)
        except Exception as error:
            await self._ready.put(error)
        finally:
            await self._close()

    async def _close(self) -> None:
        try:
            await self._pieces.aclose()
        except Exception as error:
            describe(error)  # logged; there is nobody left to tell

    async def _take(
        self, left: asyncio.Task[None], stop: asyncio.Task[Any], started: bool
    ) -> Piece | None:
        """Return the next piece, BEAT when none comes for a while, None at the end."""
        ready = asyncio.create_task(self._ready.get())
        wait = BEAT_SECONDS if started else None
        try:
            await asyncio.wait(
                {ready, left, stop}, timeout=wait, return_when=asyncio.FIRST_COMPLETED
            )
            if left.done():
                return None
            if not ready.done() and not stop.done():
                return BEAT
            found = ready.result() if ready.done() else STOPPING
        finally:
            if not ready.done():
                await settle(ready)
        if not isinstance(found, Exception):
            return found
        if not started:
            raise found
        return "error", describe(found)


async def _send(send: Send, body: bytes) -> None:
    # Who takes nothing for a minute has left without saying so; it may not hold a place for ever.
    message = {"type": "http.response.body", "body": body, "more_body": True}
    try:
        await asyncio.wait_for(send(message), STALLED_SECONDS)
    except TimeoutError:
        raise ClientDisconnect from None
