"""Answers as bytes, the shortest way to the socket: streams of OpenAI's and Ollama's API.

Promises: each piece goes out as it comes, from one task that opened the source and closes it;
nothing is made a task or queued for it. When the client leaves, takes nothing for a minute, or the
service stops, that task is cancelled once, and the source can store what there is. An error before
the first piece is raised (a plain error response); a later one is written into the stream.
Refuses to know: what the bytes mean. ``stream.py`` serves our own events.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from knowme.web import stream
from knowme.web.problems import describe
from knowme.web.stream import STOPPING, gone, settle


class ByteStream(Response):
    """An ASGI response of bytes that come piece by piece.

    ``headers`` are read as the first piece goes out. ``late(error)`` says in the stream's own form
    why it breaks off. ``beat`` is sent while nothing comes, b"" for none.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        stop: asyncio.Event,
        *,
        media_type: str,
        late: Callable[[BaseException], bytes],
        headers: Callable[[], Mapping[str, str]] = dict,
        beat: bytes = b"",
    ) -> None:
        super().__init__(media_type=media_type)
        self._pieces, self._stop, self._late, self._beat = pieces, stop, late, beat
        self._more = headers
        self._started = False
        self._sending_since = 0.0  # 0: nothing is being sent
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        pump = asyncio.create_task(self._pump(send))
        left = asyncio.create_task(gone(receive))
        stop = asyncio.create_task(self._stop.wait())
        watch = asyncio.create_task(self._watch(send))
        try:
            await asyncio.wait({pump, left, stop, watch}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
                return
            await settle(pump)
            if left.done() or watch.done():  # it left, or takes nothing
                raise ClientDisconnect
            if not self._started:
                raise STOPPING
            await self._send(send, self._late(STOPPING), more=False)
        finally:
            for task in (pump, left, stop, watch):
                if not task.done():
                    await settle(task)

    async def _pump(self, send: Send) -> None:
        try:
            async for piece in self._pieces:
                if not self._started:
                    await self._start(send)
                await self._send(send, piece)
        except Exception as error:
            if not self._started:
                raise
            await self._send(send, self._late(error))
        finally:
            await self._close()
        if not self._started:
            await self._start(send)
        await self._send(send, b"", more=False)

    async def _start(self, send: Send) -> None:
        self._started = True
        self.headers.update({"x-accel-buffering": "no", **self._more()})
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, send: Send, body: bytes, more: bool = True) -> None:
        self._sending_since = time.monotonic()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self._sent_at, self._sending_since = self._sending_since, 0.0

    async def _close(self) -> None:
        try:
            await self._pieces.aclose()
        except Exception as error:
            describe(error)  # logged; there is nobody left to tell

    async def _watch(self, send: Send) -> None:
        """Return when the client takes nothing for too long; send a beat when nothing comes."""
        while True:
            await asyncio.sleep(min(stream.BEAT_SECONDS, stream.STALLED_SECONDS) / 3)
            now = time.monotonic()
            if self._sending_since:
                if now - self._sending_since > stream.STALLED_SECONDS:
                    return
            elif self._beat and self._started and now - self._sent_at > stream.BEAT_SECONDS:
                await self._send(send, self._beat)
