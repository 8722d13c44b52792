"""The work behind the routes: asks, searches, ingests and syncs of one home, each in its lane.

Promises: every limit of how much is done at once stands here. Closing an answer closes the ask
behind it, and so does ``cancel``, from wherever; a sync outlives whoever asked for it, and only one
runs. While the service runs, models are loaded and unloaded as their settings say.
Refuses to know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import apsw

from knowme.ask import Asked, Delta, Done, Event, Started, Switched, ask
from knowme.db import value
from knowme.errors import JobError, KnowmeError, ModelError, NotFoundError
from knowme.home import Home
from knowme.receipts import why
from knowme.sessions import Locks
from knowme.stats import last_receipt
from knowme.sync import source_names, sync, totals
from knowme.times import now_ms
from knowme.types import Counts, Hit, Query
from knowme.web.health import Health
from knowme.web.lanes import Lane
from knowme.web.problems import RETRY_SECONDS, BusyError
from knowme.web.shapes import counts_json, hit_json, usage_json
from knowme.web.stream import Piece, settle

log = logging.getLogger("knowme.service")

ASKS_AT_ONCE, ASKS_WAITING = 4, 16
PASSING_AT_ONCE, PASSING_WAITING = 32, 256
"""Straight through to a model there is nothing to compose; its server has a queue of its own."""
AHEAD = 8
"""How many pieces an answer may be ahead of whoever reads it."""
TICK_SECONDS = 5.0
READS_AT_ONCE, READS_WAITING = 4, 256
WRITES_AT_ONCE, WRITES_WAITING = 2, 32


class _Stopped(BaseException):
    """Raised in a sync that shall end now. No error of one source, which another would follow."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The end of an answer that was cancelled; what was said so far is kept under the receipt.

    ``receipt_id`` is None where nothing had begun.
    """

    conversation: str
    answer: str
    receipt_id: int | None


class Answering:
    """One ask that runs in a task of its own, so that it can be stopped from outside."""

    def __init__(self, home: Home, asked: Asked) -> None:
        self.began_ms = now_ms()
        self.cancelled = False
        self._events: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(AHEAD)
        self._task = asyncio.create_task(self._run(home, asked))

    async def _run(self, home: Home, asked: Asked) -> None:
        try:
            async with aclosing(ask(home, asked)) as events:  # type: ignore[type-var]
                async for event in events:
                    await self._room.acquire()
                    self._events.put_nowait(event)
        except Exception as error:
            self._events.put_nowait(error)
        finally:
            self._events.put_nowait(None)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield what comes. Raises what the ask raises."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            self._room.release()
            yield event

    def cancel(self) -> None:
        """Stop it; what was said is stored as a turn that was cut."""
        self.cancelled = True
        self._task.cancel()

    async def close(self) -> None:
        """Stop it, where it still runs, and wait for that."""
        if not self._task.done():
            await settle(self._task)


class Service:
    """What the routes share: the home, its health, and who may do how much at once."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.health = Health(home)
        self.stopping = asyncio.Event()
        self.reads = Lane("searches", READS_AT_ONCE, READS_WAITING)
        self.writes = Lane("writes", WRITES_AT_ONCE, WRITES_WAITING)
        self._asks = Places("questions", ASKS_AT_ONCE, lambda: ASKS_WAITING)
        self._passing = Places("requests", PASSING_AT_ONCE, lambda: PASSING_WAITING)
        self._answering: dict[str, Answering] = {}
        self._turns, self._queued = Locks(), Counter[str]()
        self._notes = ThreadPoolExecutor(1, thread_name_prefix="knowme-notes")
        self._syncing = threading.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Warm up and watch the parts, until the end."""
        tasks = [asyncio.create_task(self.health.run()), asyncio.create_task(self._residency())]
        try:
            yield
        finally:
            self.stopping.set()
            for task in tasks:
                task.cancel()
            for lane in (self.reads, self.writes, self.health.lane):
                lane.close()
            await asyncio.to_thread(self._notes.shutdown)

    async def _residency(self) -> None:
        """Load what shall be there from the start; unload what is idle, now and then."""
        step = self.home.models.warm_up
        while True:
            try:
                await step()
            except KnowmeError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("the models could not be looked after")
            step = self.home.models.tick
            await asyncio.sleep(TICK_SECONDS)

    # --- answers ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Hold a place for a request that goes straight to a model. Raises BusyError."""
        async with self._passing.one():
            yield

    async def ask(self, asked: Asked) -> AsyncGenerator[Event | Stopped, None]:
        """Yield the events of an ask; Stopped is the last one when it was cancelled.

        Closing it closes the ask, which stores a cut turn.
        """
        if not asked.conversation:
            asked = replace(asked, conversation=f"{asked.surface}-{uuid.uuid4().hex[:12]}")
        name = asked.conversation
        # Whoever waits for an earlier answer of the conversation holds no place meanwhile.
        async with self._turn_of(name), self._asks.one():
            answering = Answering(self.home, asked)
            self._answering[name] = answering
            try:
                async for event in answering.events():
                    yield event
                if answering.cancelled:
                    yield await self.reads.run(self._stopped, name, answering.began_ms)
            except ModelError:
                self.health.poke()
                raise
            finally:
                del self._answering[name]
                await answering.close()

    @asynccontextmanager
    async def _turn_of(self, conversation: str) -> AsyncIterator[None]:
        """Hold a conversation's turn. Raises BusyError when too many wait for it already."""
        if self._queued[conversation] > ASKS_WAITING:
            raise BusyError(
                f"{ASKS_WAITING} questions are waiting already in {conversation[:40]!r}.",
                f"Ask again in {RETRY_SECONDS} seconds.",
            )
        self._queued[conversation] += 1
        try:
            async with self._turns.of(conversation):
                yield
        finally:
            self._queued[conversation] -= 1
            if not self._queued[conversation]:
                del self._queued[conversation]

    def _stopped(self, conversation: str, since_ms: int) -> Stopped:
        with self.home.db.read() as conn:
            number = last_receipt(conn, conversation, since_ms)
        if number is None:
            return Stopped(conversation, "", None)
        return Stopped(conversation, str(why(self.home, str(number))["answer"]), number)

    def cancel(self, conversation: str) -> bool:
        """Stop the running answer of a conversation. False: none was running."""
        answering = self._answering.get(conversation)
        if answering is not None:
            answering.cancel()
        return answering is not None

    async def answer(self, asked: Asked) -> AsyncGenerator[Piece, None]:
        """Yield start, delta ..., done. Closing it closes the ask, which stores a cut turn."""
        began: dict[str, Any] = {}
        switched = False
        async with aclosing(self.ask(asked)) as events:
            async for event in events:
                if isinstance(event, Started):
                    began = {
                        "model": event.model,
                        "engine": event.engine,
                        "role": event.role,
                        "conversation": event.conversation,
                    }
                    found = [hit_json(hit) for hit in event.sources]
                    yield "start", {**began, "known": event.known, "sources": found}
                elif isinstance(event, Delta):
                    yield "delta", {"text": event.text}
                elif isinstance(event, Switched):
                    took_over = {"model": event.model, "engine": event.engine, "role": event.role}
                    began.update(took_over)
                    switched = True
                    yield (
                        "switched",
                        {**took_over, "reason": event.reason, "restart": event.restart},
                    )
                elif isinstance(event, Done):
                    rests = {"sources": [hit_json(hit) for hit in event.sources]}
                    yield "done", {**began, **_done(event), **(rests if switched else {})}
                else:
                    number = event.receipt_id
                    raise JobError(
                        "The answer was stopped; what was said is kept.",
                        "Ask again." if number is None else f"See it: GET /why/{number}",
                    )

    async def answer_whole(self, asked: Asked) -> dict[str, Any]:
        """Return AnswerShape."""
        whole: dict[str, Any] = {}
        async with aclosing(self.answer(asked)) as pieces:
            async for name, data in pieces:
                if name in ("start", "done"):
                    whole.update(data)
        return whole

    # --- what is noted after an answer -----------------------------------------------------------

    def note(self, write: Callable[[apsw.Connection], object]) -> None:
        """Write something that nobody waits for; notes are written in their order."""
        try:
            self._notes.submit(self.home.db.write, write).add_done_callback(_complain)
        except RuntimeError:  # the service has ended: now or never
            try:
                self.home.db.write(write)
            except KnowmeError as error:
                log.error("a note could not be written: %s", error)

    async def noted(self) -> None:
        """Return when every note so far is written."""
        await asyncio.wrap_future(self._notes.submit(lambda: None))

    # --- searches and syncs ----------------------------------------------------------------------

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


class Places:
    """So many at once; so many may wait; whoever comes then is told to come back."""

    def __init__(self, what: str, at_once: int, waiting: Callable[[], int]) -> None:
        self._what, self._most = what, waiting
        self._free = asyncio.Semaphore(at_once)
        self._waiting = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises BusyError when too many wait already."""
        if self._free.locked() and self._waiting >= self._most():
            raise BusyError(
                f"{self._waiting} {self._what} are waiting already.",
                f"Ask again in {RETRY_SECONDS} seconds.",
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


def _complain(future: Future[object]) -> None:
    error = future.exception()
    if error is not None:
        log.error("a note could not be written: %s", error)


def since(began: float) -> float:
    """Return the milliseconds since ``time.perf_counter()`` was ``began``."""
    return round((time.perf_counter() - began) * 1000, 3)


def _done(event: Done) -> dict[str, Any]:
    return {
        "answer": event.answer,
        "known": event.known,
        "role": event.role,
        "model": event.model,
        "cost": event.cost,
        "usage": usage_json(event.usage),
        "receipt_id": event.receipt_id,
    }
