"""Which models are in this machine's memory: who comes, who goes, who waits.

Promises: a model with a request in flight, or one that is always there, is never unloaded; nobody
waits without end; one model comes or goes at a time, in a thread of its own, so that a request
that is given up, or whose event loop ends, leaves nothing half-done. Safe from any thread and any
event loop. Whoever has waited `OVERDUE_SECONDS` for room goes before those who came later.
Refuses to know: settings by role (``models.py``), how a model is loaded (the engines).

What another program holds (other models of the same Ollama) is neither unloaded nor counted: what
is free on the machine tells of it, and Ollama makes room by itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from knowme.errors import KnowmeError, ModelError
from knowme.llama import NoRoomError
from knowme.seams import Engine, Resident
from knowme.settings import ResidencySettings
from knowme.times import now_ms

T = TypeVar("T")

OVERDUE_SECONDS = 5.0
"""After so long nobody new is let to a model that stands in the way of one who waits."""


class Local(Engine, Resident, Protocol):
    """An engine whose model takes this machine's memory.

    It may have ``own_process`` (False: the memory belongs to a server that outlives us; then it is
    left to that server at the end), and ``prefix_tokens`` (of the last load or unload).
    """


@dataclass(eq=False, slots=True)
class Place:
    """One model in memory, or not; several roles may share it. ``given_bytes``: as set, or 0."""

    engine: Local
    role: str
    pinned: bool = False
    idle_seconds: float = 0.0
    given_bytes: int = 0
    state: Literal["empty", "loading", "loaded", "unloading"] = "empty"
    in_flight: int = 0
    used: int = 0
    idle_since: float = 0.0
    bytes: int = 0
    load_ms: list[float] = field(default_factory=list)
    no_room: NoRoomError | None = None

    @property
    def free_to_go(self) -> bool:
        """Tell whether it may be unloaded."""
        return self.state == "loaded" and not self.pinned and not self.in_flight

    @property
    def own_process(self) -> bool:
        """Tell whether its memory ends with ours."""
        return bool(getattr(self.engine, "own_process", True))


@dataclass(frozen=True, slots=True)
class Swap:
    """A model that came into memory ("load") or left it ("unload"), and why."""

    at_ms: int
    place: Place
    kind: Literal["load", "unload"]
    reason: str
    took_ms: float
    memory_bytes: int
    prefix_tokens: int


class _Waiter:
    """Somebody in some event loop who wants to hear of every change."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        with suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._changed.set)

    async def wait(self, seconds: float | None) -> bool:
        """Wait for a change; False when the time is up."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class _Ticket(_Waiter):
    """One request on its way in."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__()
        self.place = place
        self.reason = reason
        self.counts = reason == "asked"
        self.since = time.monotonic()
        self.granted = False
        self.error: BaseException | None = None

    def waited_seconds(self) -> float:
        return time.monotonic() - self.since


class Residency:
    """The models of one home that take memory. ``note`` is told of each swap, from its thread.

    ``clock`` gives the seconds by which models are idle; ``patience_seconds`` is the longest wait
    for room.
    """

    def __init__(
        self,
        limits: ResidencySettings,
        note: Callable[[Swap], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = 120.0,
    ) -> None:
        self._limits = limits
        self._budget = limits.memory_mb << 20
        self._note = note
        self._clock = clock
        self._patience = patience_seconds
        self._lock = threading.Lock()
        self._places: list[Place] = []
        self._tickets: list[_Ticket] = []
        self._watchers: list[_Waiter] = []
        self._unnoted: deque[Swap] = deque()
        self._noting = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._busy = False
        self._closing = False
        self._turn = 0
        self.uses = self.hits = self.loads = self.unloads = 0
        self.prefix_tokens = 0
        self.load_ms: list[float] = []

    def add(self, place: Place) -> None:
        """Govern one more model."""
        with self._lock:
            self._places.append(place)

    # --- requests --------------------------------------------------------------------------------

    async def enter(self, place: Place, reason: str = "asked") -> None:
        """Wait until the model is loaded; it stays until `leave`.

        Raises what loading it raises, and ModelError when it can never fit, or when what stands in
        its way does not become idle in time.
        """
        await self._look(place)
        ticket = _Ticket(place, reason)
        with self._lock:
            self._tickets.append(ticket)
        try:
            while not self._step(ticket):
                left = self._patience - ticket.waited_seconds()
                # A load ends by itself; waiting for others to be idle may not.
                loading = place.state == "loading"
                if not await ticket.wait(None if loading else max(0.0, left)):
                    raise self._late(place)
        except BaseException:
            self._withdraw(ticket)
            raise

    def leave(self, place: Place) -> None:
        """Note that a request is over."""
        with self._lock:
            place.in_flight -= 1
            self._touch(place)
            self._settle()

    def _step(self, ticket: _Ticket) -> bool:
        """Let the request in, or begin what it waits for. Raises why it cannot get in."""
        place = ticket.place
        with self._lock:
            if ticket.granted:
                return True
            if ticket.error is not None:
                raise ticket.error
            if self._closing:
                raise ModelError("knowme is closing, so no model is loaded.", "Start it again.")
            if self._is_behind(ticket):
                return False
            if place.state == "loaded":
                self._grant(ticket, hit=True)
                return True
            if place.state == "empty" and not self._busy:
                leaving = self._room(place)
                if leaving is not None:
                    self._begin(leaving, place, ticket.reason)
            return False

    def _is_behind(self, ticket: _Ticket) -> bool:
        for other in self._tickets:
            if other is ticket or ticket.place.pinned:
                return False
            if other.place is not ticket.place and other.waited_seconds() > OVERDUE_SECONDS:
                return True
        return False

    def _grant(self, ticket: _Ticket, hit: bool) -> None:
        ticket.granted = True
        ticket.place.in_flight += 1
        self.uses += ticket.counts
        self.hits += ticket.counts and hit
        self._touch(ticket.place)
        self._tickets.remove(ticket)

    def _withdraw(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.granted:
                ticket.place.in_flight -= 1
                self._touch(ticket.place)
            elif ticket in self._tickets:
                self._tickets.remove(ticket)
            if not any(other.place is ticket.place for other in self._tickets):
                ticket.place.no_room = None
            self._settle()

    def _touch(self, place: Place) -> None:
        self._turn += 1
        place.used = self._turn
        place.idle_since = self._clock()

    def _wake(self) -> None:
        for waiter in [*self._tickets, *self._watchers]:
            waiter.wake()

    def _settle(self) -> None:
        """Something has changed: wake who waits, and let go what is not to be kept at all."""
        at_once = [p for p in self._places if p.free_to_go and not p.idle_seconds]
        if at_once and not self._busy and not self._closing:
            self._begin([(place, "idle") for place in at_once if not self._wanted(place)])
        self._wake()

    def _wanted(self, place: Place) -> bool:
        return any(ticket.place is place for ticket in self._tickets)

    # --- room ------------------------------------------------------------------------------------

    def _room(self, place: Place) -> list[tuple[Place, str]] | None:
        """Return who must go for it and why, or None while that cannot be. Raises ModelError."""
        others = [p for p in self._places if p.state == "loaded" and p is not place]
        fixed = [p for p in others if p.pinned]
        if why := self._over(place, fixed):
            if why == "memory" or not place.pinned:
                raise self._never(place, fixed, why)
        idle = sorted((p for p in others if p.free_to_go), key=lambda p: p.used)
        leaving: list[tuple[Place, str]] = []
        stay = others
        while why := self._over(place, stay) or (
            "memory" if place.no_room is not None and not leaving else ""
        ):
            if not idle:
                return self._stuck(place, why, len(stay) > len(fixed), leaving)
            leaving.append((idle[0], why))
            stay = [p for p in stay if p is not idle[0]]
            del idle[0]
        return leaving

    def _stuck(
        self, place: Place, why: str, may_go: bool, leaving: list[tuple[Place, str]]
    ) -> list[tuple[Place, str]] | None:
        """Nobody more can go now: wait for one who may later, else give up."""
        if place.pinned and why == "models" and (leaving or place.no_room is None):
            return leaving  # what is always there may be more than max_models
        if may_go:
            return None
        assert place.no_room is not None
        raise place.no_room

    def _over(self, place: Place, stay: Sequence[Place]) -> Literal["", "models", "memory"]:
        if self._budget and place.bytes + sum(p.bytes for p in stay) > self._budget:
            return "memory"
        if self._limits.max_models and len(stay) >= self._limits.max_models:
            return "models"
        return ""

    def _never(self, place: Place, fixed: Sequence[Place], why: str) -> ModelError:
        name = f"{place.role} ({place.engine.model})"
        pinned = " and ".join(p.role for p in fixed)
        if why == "models":
            return ModelError(
                f"There is no room for {name}: residency.max_models is {self._limits.max_models}, "
                f"and {pinned} must always be loaded.",
                f"Raise it: knowme config set residency.max_models {len(fixed) + 1}",
            )
        taken = sum(p.bytes for p in fixed)
        beside = f", of which {pinned} (always loaded) take {taken:,}" if taken else ""
        wanted = (place.bytes + taken >> 20) + 1
        return ModelError(
            f"The model {name} needs about {place.bytes:,} bytes, and residency.memory_mb allows "
            f"{self._budget:,}{beside}.",
            f"Raise it: knowme config set residency.memory_mb {wanted}, lower its context_tokens, "
            "or take a smaller model.",
        )

    def _late(self, place: Place) -> ModelError:
        with self._lock:
            there = [p for p in self._places if p is not place and p.state != "empty"]
        told = ", ".join(f"{p.role} ({p.engine.model}, {_doing(p)})" for p in there)
        return ModelError(
            f"The model {place.role} ({place.engine.model}) waited {self._patience:g} s for room. "
            f"In its way: {told or 'nothing any more'}.",
            "Ask again when they are done, or raise residency.max_models or residency.memory_mb.",
        )

    # --- swaps -----------------------------------------------------------------------------------

    def _begin(
        self, leaving: list[tuple[Place, str]], coming: Place | None = None, reason: str = ""
    ) -> None:
        """Start one swap. The lock is held and nothing is under way."""
        if not leaving and coming is None:
            return
        self._busy = True
        for place, _ in leaving:
            place.state = "unloading"
        if coming is not None:
            coming.state = "loading"
        # A daemon: a load that hangs must not keep the program from ending.
        thread = threading.Thread(
            target=self._swap, args=(leaving, coming, reason), name="knowme-swap", daemon=True
        )
        self._threads = [*(t for t in self._threads if t.is_alive()), thread]
        thread.start()

    def _swap(self, leaving: list[tuple[Place, str]], coming: Place | None, reason: str) -> None:
        swaps = []
        try:
            for place, why in leaving:
                swaps.append(self._unload(place, why))
            if coming is not None and (loaded := self._load(coming, reason)):
                swaps.append(loaded)
        finally:
            with self._lock:
                self._unnoted.extend(swaps)
                self._busy = False
                self._settle()
        with self._noting:  # a disk may be slow, and nobody waits for this
            while self._unnoted:
                self._note(self._unnoted.popleft())

    def _unload(self, place: Place, why: str) -> Swap:
        began = time.perf_counter()
        held, error = _run(place.engine.memory_bytes())
        _, error = _run(place.engine.unload())
        took_ms = (time.perf_counter() - began) * 1000
        with self._lock:
            place.state = "empty"
            self.unloads += 1
            self._wake()
        saved = 0 if error else _prefix_tokens(place)
        return Swap(now_ms(), place, "unload", why, took_ms, held or place.bytes, saved)

    def _load(self, place: Place, reason: str) -> Swap | None:
        found, error = _run(place.engine.loaded())
        began = time.perf_counter()
        if not found:
            _, error = _run(place.engine.load())
        took_ms = (time.perf_counter() - began) * 1000
        if error is not None and not found:
            self._failed(place, error)
            return None
        held, _ = _run(place.engine.memory_bytes())
        restored = 0 if found else _prefix_tokens(place)
        with self._lock:
            place.state, place.no_room = "loaded", None
            # What was not touched yet is not counted by the system, and will be.
            place.bytes = place.given_bytes or max(place.bytes, held or 0)
            self._touch(place)
            waiting = [ticket for ticket in self._tickets if ticket.place is place]
            for ticket in waiting:  # at once: else others could unload it before they come in
                self._grant(ticket, hit=bool(found))
                ticket.wake()
            if found:
                return None
            self.loads += 1
            self.prefix_tokens += restored
            place.load_ms.append(took_ms)
            self.load_ms.append(took_ms)
        return Swap(now_ms(), place, "load", reason, took_ms, held or place.bytes, restored)

    def _failed(self, place: Place, error: BaseException) -> None:
        with self._lock:
            place.state = "empty"
            if isinstance(error, NoRoomError) and self._wanted(place):
                place.no_room = error  # its requests look again who could go
                return
            if not isinstance(error, KnowmeError):
                told = f"The model {place.engine.model} could not be loaded: {error!r}"
                error = ModelError(told, "Run: knowme doctor")
            for ticket in self._tickets:
                if ticket.place is place:
                    ticket.error = error

    # --- what is there ---------------------------------------------------------------------------

    async def _look(self, place: Place) -> None:
        """See whether the model is where we think: a process may die, a server has its own mind."""
        if place.state == "loaded" and not place.in_flight:
            there = await _asked(place.engine.loaded(), False)
            with self._lock:
                if not there and place.state == "loaded" and not place.in_flight:
                    place.state = "empty"
        if place.state == "empty":
            place.bytes = place.given_bytes or await _asked(place.engine.memory_bytes(), 0)
            if self._budget:
                for other in self._places:
                    if other.state == "loaded" and not other.given_bytes:
                        held = await _asked(other.engine.memory_bytes(), 0)
                        other.bytes = max(other.bytes, held)

    async def tick(self) -> None:
        """Unload what has been idle for its time, and what came to be there beside us."""
        await self._quiet(self._patience)
        await self._find()
        with self._lock:
            due = [] if self._busy or self._closing else self._due()
            self._begin(due)
        if due:
            await self._quiet(self._patience)

    async def _find(self) -> None:
        """Notice models that came or went without us: counting tokens starts a process."""
        for place in list(self._places):
            if not place.own_process or place.state not in ("empty", "loaded"):
                continue
            there = await _asked(place.engine.loaded(), False)
            with self._lock:
                if self._busy or place.in_flight:
                    continue
                if there and place.state == "empty":
                    place.state = "loaded"
                    self._touch(place)
                elif not there and place.state == "loaded":
                    place.state = "empty"

    def _due(self) -> list[tuple[Place, str]]:
        now = self._clock()
        idle = [p for p in self._places if p.free_to_go and not self._wanted(p)]
        due = [(p, "idle") for p in idle if now - p.idle_since >= p.idle_seconds]
        gone = {id(p) for p, _ in due}
        stay = [p for p in self._places if p.state == "loaded" and id(p) not in gone]
        for place in sorted((p for p in idle if id(p) not in gone), key=lambda p: p.used):
            others = [p for p in stay if p is not place]
            if why := self._over(place, others):
                due.append((place, why))
                stay = others
        return due

    async def _quiet(self, seconds: float) -> None:
        """Wait until no model comes or goes, for so long at most."""
        waiter = _Waiter()
        until = time.monotonic() + seconds
        with self._lock:
            self._watchers.append(waiter)
        try:
            while self._busy and await waiter.wait(max(0.0, until - time.monotonic())):
                pass
        finally:
            with self._lock:
                self._watchers.remove(waiter)

    async def close(self, seconds: float) -> None:
        """Unload what ends with us, within so long; who waits is told. It may be used again."""
        until = time.monotonic() + seconds
        with self._lock:
            self._closing = True
            self._wake()
        await self._quiet(seconds)
        with self._lock:
            if not self._busy:
                here = [p for p in self._places if p.state == "loaded" and p.own_process]
                self._begin([(place, "closed") for place in here])
        await self._quiet(until - time.monotonic())
        for thread in self._threads:
            await asyncio.to_thread(thread.join, max(0.0, until - time.monotonic()))
        with self._lock:
            self._places = []
            self._closing = False


def _doing(place: Place) -> str:
    if place.state != "loaded":
        return place.state
    if place.in_flight:
        return f"answering {place.in_flight}"
    return "always loaded" if place.pinned else "idle"


def _prefix_tokens(place: Place) -> int:
    return int(getattr(place.engine, "prefix_tokens", 0))


def _run(work: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    """Run it in an event loop of this thread; whatever it raises is for whoever waits."""
    try:
        return asyncio.run(work), None
    except Exception as error:
        return None, error


async def _asked(work: Coroutine[Any, Any, T], otherwise: T) -> T:
    try:
        return await work
    except KnowmeError:
        return otherwise
