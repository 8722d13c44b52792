"""The work behind the routes: asks, searches, ingests and syncs of one home, each in its lane.

Promises: every limit of how much is done at once stands here. Closing an answer closes the ask
behind it; a sync outlives whoever asked for it, and only one runs.
Refuses to know: HTTP.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any

from knowme.ask import Asked, Delta, Done, Started, ask
from knowme.db import value
from knowme.errors import JobError, ModelError, NotFoundError
from knowme.home import Home
from knowme.sync import source_names, sync, totals
from knowme.types import Counts, Hit, Query
from knowme.web.health import Health
from knowme.web.lanes import Lane
from knowme.web.problems import RETRY_SECONDS, BusyError
from knowme.web.shapes import counts_json, hit_json, usage_json
from knowme.web.stream import Piece

ASKS_AT_ONCE, ASKS_WAITING = 4, 16
READS_AT_ONCE, READS_WAITING = 4, 256
WRITES_AT_ONCE, WRITES_WAITING = 2, 32


class _Stopped(BaseException):
    """Raised in a sync that shall end now. No error of one source, which another would follow."""


class Service:
    """What the routes share: the home, its health, and who may do how much at once."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.health = Health(home)
        self.stopping = asyncio.Event()
        self.reads = Lane("searches", READS_AT_ONCE, READS_WAITING)
        self.writes = Lane("writes", WRITES_AT_ONCE, WRITES_WAITING)
        self._asks = asyncio.Semaphore(ASKS_AT_ONCE)
        self._asks_waiting = 0
        self._syncing = threading.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Warm up and watch the parts, until the end."""
        watch = asyncio.create_task(self.health.run())
        try:
            yield
        finally:
            self.stopping.set()
            watch.cancel()
            for lane in (self.reads, self.writes, self.health.lane):
                lane.close()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._asks_waiting >= ASKS_WAITING:
            raise BusyError(
                f"{self._asks_waiting} questions are waiting already.",
                f"Ask again in {RETRY_SECONDS} seconds.",
            )
        self._asks_waiting += 1
        try:
            await self._asks.acquire()
        finally:
            self._asks_waiting -= 1
        try:
            yield
        finally:
            self._asks.release()

    async def answer(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """Yield start, delta ..., done. Closing it closes the ask, which stores a cut turn."""
        async with self._place():
            events = ask(self.home, asked)
            began: dict[str, Any] = {}
            try:
                async for event in events:
                    if isinstance(event, Started):
                        began = {
                            "model": event.model,
                            "engine": event.engine,
                            "conversation": event.conversation,
                        }
                        found = [hit_json(hit) for hit in event.sources]
                        yield "start", {**began, "known": event.known, "sources": found}
                    elif isinstance(event, Delta):
                        yield "delta", {"text": event.text}
                    else:
                        yield "done", {**_done(event), **began}
            except ModelError:
                self.health.poke()
                raise
            finally:
                await events.aclose()  # type: ignore[attr-defined]

    async def answer_whole(self, asked: Asked) -> dict[str, Any]:
        """Return AnswerShape."""
        whole: dict[str, Any] = {}
        pieces = self.answer(asked)
        try:
            async for name, data in pieces:
                if name != "delta":
                    whole.update(data)
        finally:
            await pieces.aclose()
        return whole

    async def search(self, query: Query) -> list[Hit]:
        """Search in a thread."""
        hits = await self.reads.run(self.home.search, query)
        if hits and all(hit.distance is None for hit in hits):
            self.health.poke()  # words alone were searched: is the embedder down?
        return hits

    def start_sync(
        self, only: Sequence[str], progress: Callable[[str, Counts], None]
    ) -> Future[dict[str, Any]]:
        """Start a sync in a thread; it outlives the request.

        Raises NotFoundError for an unknown source, JobError when a sync runs or there is no source.
        """
        configured = source_names(self.home.settings.sources)
        if unknown := sorted(set(only) - set(configured)):
            raise NotFoundError(
                f"There is no source called {unknown[0]!r}.",
                f"Configured: {', '.join(configured) or 'none'}.",
            )
        if not only and not any(source.enabled for source in configured.values()):
            raise JobError("No source is configured.", "Add one under sources in config.yaml.")
        if not self._syncing.acquire(blocking=False):
            raise JobError("A sync is already running.", "Wait for it, then ask again.")
        try:
            future = self.writes.submit(self._sync, only, progress)
        except BaseException:
            self._syncing.release()
            raise
        future.add_done_callback(lambda _: self._syncing.release())
        return future

    def _sync(self, only: Sequence[str], progress: Callable[[str, Counts], None]) -> dict[str, Any]:
        with self.home.db.read() as conn:
            if value(conn, "SELECT count(*) FROM jobs WHERE kind = 'sync' AND state = 'running'"):
                raise JobError("The daily sync is running.", "Look at it: knowme jobs")

        def tell(name: str, counts: Counts) -> None:
            if self.stopping.is_set():  # between two batches: what is stored stays
                raise _Stopped
            progress(name, counts)

        began = time.perf_counter()
        try:
            done = sync(self.home, only, tell)
        except _Stopped:
            raise BusyError(
                "The service is stopping.", "Sync again: it goes on from here."
            ) from None
        return {
            "synced": sum(counts.new + counts.changed for counts in done.values()),
            "total": totals(self.home)["items"],
            "sources": {name: counts_json(counts) for name, counts in done.items()},
            "took_ms": since(began),
        }

    async def sync_pieces(self, only: Sequence[str]) -> AsyncGenerator[Piece, None]:
        """Yield progress ..., done."""
        loop, news = asyncio.get_running_loop(), asyncio.Queue[Piece | None]()

        def post(piece: Piece | None) -> None:
            with suppress(RuntimeError):  # the loop has ended; the sync goes on without a listener
                loop.call_soon_threadsafe(news.put_nowait, piece)

        def tell(name: str, counts: Counts) -> None:
            post(("progress", {"source": name, **counts_json(counts)}))

        work = self.start_sync(only, tell)
        work.add_done_callback(lambda _: post(None))
        yield "start", {"sources": list(only) or list(source_names(self.home.settings.sources))}
        while (piece := await news.get()) is not None:
            yield piece
        yield "done", work.result()


def since(began: float) -> float:
    """Return the milliseconds since ``time.perf_counter()`` was ``began``."""
    return round((time.perf_counter() - began) * 1000, 3)


def _done(event: Done) -> dict[str, Any]:
    return {
        "answer": event.answer,
        "known": event.known,
        "usage": usage_json(event.usage),
        "receipt_id": event.receipt_id,
    }
