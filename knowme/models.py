"""The models by role: which there are, which one a name means, how each of them is.

Promises: an engine is built when it is first asked for, from the engine's settings with its own
laid over them, and loads nothing; ``use`` hands it out loaded and keeps it loaded meanwhile;
``states`` answers at once, from what is known. The context length of a model never varies: two
roles with one model have one window, the larger, and share what is loaded. A remote model that
keeps failing is left alone for a while; one of this machine that merely loads never is.
Refuses to know: which model a message wants (``route.py``), who leaves memory (``residency.py``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import modelstore, net, plugins
from knowme.breaker import Breaker
from knowme.db import Database, rows
from knowme.errors import (
    ConfigError,
    KnowmeError,
    ModelDownError,
    ModelError,
    ModelMissingError,
    NotFoundError,
)
from knowme.residency import Place, Residency, Swap
from knowme.seams import Adaptable, Engine, Gate, Resident
from knowme.settings import EngineSettings, ModelSettings, Settings
from knowme.times import parse_duration
from knowme.types import ModelState

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("knowme.models")

IDLE_SECONDS = {"ram": 1800.0, "ssd": 120.0, "none": 0.0}
"""How long a model stays loaded without a question, by residency.cache."""
CLOSE_SECONDS = 6.0
"""The longest that closing waits for prefixes to be saved."""
RECHECK_SECONDS = 30.0
"""After so long a model that was missing or down is looked at again."""
SMALL = 1_000_000_000
"""Below so many parameters a model is not expected to call tools."""
_PATIENCE_SECONDS = 10.0
_NEW_LOAD_MS = 300.0  # and then this many bytes a second, where it was never loaded yet
_LOAD_BYTES = 400e6
_SIZE = re.compile(r"(?:^|[^a-z0-9.])(?:(\d+)x|e)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")


class Models:
    """The models of one home. Thread-safe, for any number of event loops.

    ``folder`` is where prefixes are saved, ``detect`` says which engine an "auto" means (it may
    ask a server on this machine), ``clock`` gives the seconds of idle times and breakers,
    ``patience_seconds`` is the longest wait for room (None: engine.timeout_seconds),
    ``adapter_of`` says which adapter is in use with a model's file.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        *,
        gate: Gate | None = None,
        folder: Path,
        detect: Callable[[EngineSettings], str],
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float | None = None,
        adapter_of: Callable[[Path], Path | None] | None = None,
    ) -> None:
        self._settings = settings
        self._adapter_of = adapter_of
        self._db = db
        self._gate = gate
        self._folder = folder
        self._detect = detect
        self._clock = clock
        self._models = {model.role: model for model in settings.models or (_only(settings),)}
        self.roles = tuple(self._models)
        self.primary = "primary" if "primary" in self._models else self.roles[0]
        self._building = threading.RLock()
        self._engines: dict[str, Engine] = {}
        self._places: dict[str, Place] = {}
        self._breakers: dict[str, Breaker] = {}
        self._down: dict[str, tuple[str, float]] = {}
        self._suspects: set[str] = set()
        if not settings.residency.keep_prefix and folder.is_dir():
            for file in folder.glob("*.prefix*"):  # switched off: what was kept goes, too
                with suppress(OSError):
                    file.unlink()
        self._residency = Residency(
            settings.residency,
            self._note,
            clock=clock,
            patience_seconds=patience_seconds or settings.engine.timeout_seconds,
        )

    # --- which there are -------------------------------------------------------------------------

    def setting(self, role: str) -> ModelSettings:
        """Return the settings of a role as they were given. Raises NotFoundError."""
        try:
            return self._models[role]
        except KeyError:
            raise self._unknown(role) from None

    def find(self, name: str) -> str:
        """Return the role that a name means: a role, or a model's name with or without :latest.

        Raises NotFoundError, which says what there is.
        """
        if name in self._models:
            return name
        plain = name.removesuffix(":latest")
        for role in self.roles:
            if plain and plain == self._name(role).removesuffix(":latest"):
                return role
        raise self._unknown(name)

    def _unknown(self, name: str) -> NotFoundError:
        there = (f"{role} ({self._name(role)})" for role in self.roles)
        return NotFoundError(
            f"There is no model called {name!r}.", f"Use one of: {', '.join(there)}."
        )

    def _name(self, role: str) -> str:
        """Return the model's name as far as it is known without building its engine."""
        engine = self._engines.get(role)
        if engine is not None and engine.model:
            return engine.model
        wanted = self._wanted(role)
        if wanted.kind == "llamacpp" and not wanted.model:
            return modelstore.DEFAULT_CHAT
        if wanted.model.lower().endswith(".gguf"):
            return Path(wanted.model).stem
        return wanted.model

    # --- engines ---------------------------------------------------------------------------------

    def engine(self, role: str) -> Engine:
        """Return the engine of a role; built when it is first asked for, nothing is loaded.

        Raises NotFoundError for an unknown role, ModelMissingError, ModelError when its settings
        do not make one. May take a moment the first time: call it in a thread.
        """
        self.setting(role)
        with self._building:
            engine = self._engines.get(role)
            if engine is None:
                try:
                    engine = self._build(role)
                except KnowmeError as error:
                    self._down[role] = (str(error), self._clock())
                    raise
                self._engines[role] = engine
                self._down.pop(role, None)
            return engine

    def _build(self, role: str) -> Engine:
        wanted = self._wanted(role)
        try:
            kind = self._detect(wanted) if wanted.kind == "auto" else wanted.kind
            nowhere = wanted.kind == "auto" and kind == "echo" and wanted.model
            if nowhere and role != self.primary:
                raise ModelMissingError(
                    f"The model {wanted.model!r} of the role {role} is nowhere on this machine.",
                    f"Get it: ollama pull {wanted.model}, or see: knowme models list",
                )
            engine: Engine = plugins.find("engines", kind)(**self._keywords(role, kind, wanted))
        except NotFoundError as error:
            raise ModelMissingError(error.message, error.hint) from error
        except ConfigError as error:  # another model may answer meanwhile
            raise ModelError(error.message, error.hint) from error
        if isinstance(engine, Resident) and _here(wanted.url):
            self._places[role] = self._place(role, engine)
        if not engine.local:
            self._breakers[role] = Breaker(role, self._clock)
        return engine

    def _wanted(self, role: str) -> EngineSettings:
        """Return the engine's settings with those of the role laid over them."""
        base, own = self._settings.engine, self._models[role]
        kind = base.kind if own.engine == "auto" else own.engine
        same = kind == base.kind
        url = own.url or (base.url if same else "")
        return replace(
            base,
            kind=kind,
            model=own.model or (base.model if same else ""),
            url=url,
            api_key=own.api_key or (base.api_key if same and url == base.url else ""),
            context_tokens=own.context_tokens or base.context_tokens,
            max_tokens=own.max_tokens or base.max_tokens,
            think=own.think,
            keep_alive=_keep_alive(self._kept_seconds(own)),
        )

    def _window(self, role: str) -> int:
        """Return the window of the role's model: the largest that any role wants of it."""
        mine = self._wanted(role)
        twins = (self._wanted(other) for other in self.roles)
        same = (t for t in twins if (t.kind, t.url, t.model) == (mine.kind, mine.url, mine.model))
        return max(twin.context_tokens for twin in same)

    def _keywords(self, role: str, kind: str, wanted: EngineSettings) -> dict[str, Any]:
        # Not asdict of ModelSettings: memory_mb there is what it takes, here what is allowed.
        given = {each.name: getattr(wanted, each.name) for each in fields(wanted)}
        given |= {"kind": kind, "context_tokens": self._window(role), "gate": self._gate}
        given["local"] = self._models[role].local
        if kind == "llamacpp":
            given["keep_alive"] = "-1"  # we unload it ourselves
            if self._settings.residency.keep_prefix:
                given["prefix_folder"] = self._folder
        return given

    def _kept_seconds(self, model: ModelSettings) -> float:
        """Return how long the model stays loaded without a question; infinity: for ever."""
        if model.residency == "always":
            return math.inf
        if model.residency == "unload_after":
            return parse_duration(model.unload_after)
        own = self._settings.engine.keep_alive
        if not self._settings.models and own != EngineSettings().keep_alive:  # the older setting
            return _seconds(own)
        return IDLE_SECONDS[self._settings.residency.cache]

    def _place(self, role: str, engine: Any) -> Place:
        """Return what the role's model takes in memory, shared with the roles of the same model."""
        own = self._models[role]
        key = _identity(engine, self._wanted(role))
        shared = {
            _identity(self._engines[other], self._wanted(other)): place
            for other, place in self._places.items()
        }.get(key)
        place = shared or Place(engine, role)
        place.pinned = place.pinned or own.residency == "always"
        place.idle_seconds = max(place.idle_seconds, self._kept_seconds(own))
        place.given_bytes = max(place.given_bytes, own.memory_mb << 20)
        if shared is None:
            place.load_ms = self._past_loads(role, engine.model)
            self._residency.add(place)
        return place

    def _past_loads(self, role: str, model: str) -> list[float]:
        with suppress(KnowmeError), self._db.read() as conn:
            sql = (
                "SELECT took_ms FROM swaps WHERE kind = 'load' AND role = ? AND model = ?"
                " ORDER BY id DESC LIMIT 20"
            )
            return [took for (took,) in rows(conn, sql, (role, model))]
        return []

    # --- use -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, role: str) -> AsyncIterator[Engine]:
        """Hand out the engine, loaded: it is not unloaded before this ends.

        Raises NotFoundError for an unknown role, ModelError when it cannot be loaded, when there
        is no room for it in time, or while it is left alone after failures (RestingError).
        """
        engine = self._engines.get(role)
        if engine is None:
            engine = await asyncio.to_thread(self.engine, role)
        place, breaker = self._places.get(role), self._breakers.get(role)
        probe = breaker.enter() if breaker is not None else False
        try:
            if place is None:
                yield engine
                return
            try:
                await self._residency.enter(place)
            except ModelMissingError as error:
                self.failed(role, error)
                raise
            try:
                await self._dress(engine)
                yield engine
            finally:
                self._residency.leave(place)
        finally:
            if breaker is not None:
                breaker.leave(probe)

    async def _dress(self, engine: Engine) -> None:
        """Let the model answer with the adapter that is in use, whoever adopted it since."""
        if self._adapter_of is not None and isinstance(engine, Adaptable):
            path = await asyncio.to_thread(self._adapter_of, engine.file)
            if path != engine.adapter:
                await asyncio.to_thread(engine.wear, path)

    def failed(self, role: str, error: ModelError) -> None:
        """Note that a request to this model failed."""
        if isinstance(error, ModelMissingError):
            self._down[role] = (str(error), self._clock())
        elif breaker := self._breakers.get(role):
            breaker.failed(error)
        elif isinstance(error, ModelDownError):
            self._suspects.add(role)  # looked at with the next tick

    def worked(self, role: str) -> None:
        """Note that this model answered."""
        self._down.pop(role, None)
        self._suspects.discard(role)
        if breaker := self._breakers.get(role):
            breaker.worked()

    # --- how they are ----------------------------------------------------------------------------

    def states(self) -> tuple[ModelState, ...]:
        """Return every role's model as it is known to be; nothing is asked and nothing waits."""
        return tuple(self.state(role) for role in self.roles)

    def state(self, role: str) -> ModelState:
        """Return one of ``states``."""
        own, wanted = self._models[role], self._wanted(role)
        engine, place = self._engines.get(role), self._places.get(role)
        name = self._name(role)
        parameters = int(getattr(engine, "parameters", 0)) or parameters_of(name)
        may_wait = place is not None or (engine is None and _may_load(wanted))
        loaded = not may_wait or (place is not None and place.state == "loaded")
        return ModelState(
            role=role,
            model=name,
            engine=wanted.kind if engine is None else engine.name,
            local=_is_local(own, wanted) if engine is None else engine.local,
            context_tokens=self._window(role) if engine is None else engine.context_tokens,
            max_tokens=wanted.max_tokens,
            price_in=own.price_in,
            price_out=own.price_out,
            images=own.images,
            tools=not 0 < parameters < SMALL if own.tools == "auto" else own.tools == "true",
            loaded=loaded,
            load_ms=0.0 if loaded else _expected_ms(place, parameters),
            down=self._why_down(role, wanted),
            parameters=parameters,
        )

    def _why_down(self, role: str, wanted: EngineSettings) -> str:
        if self._settings.offline and not _here(wanted.url):
            return "It lies beyond this machine, and offline is set."
        why, since = self._down.get(role, ("", 0.0))
        # Twice the time: where somebody ticks, it has been looked at before this runs out.
        if why and self._clock() - since < 2 * RECHECK_SECONDS:
            return why
        breaker = self._breakers.get(role)
        return breaker.down() if breaker is not None else ""

    def statistics(self) -> dict[str, Any]:
        """Return what came and went since this home was opened.

        ``hits`` are the uses that found their model loaded, ``hit_rate`` their share (None: no
        use yet); ``mean_ms`` and ``p95_ms`` are of loads (nearest rank; None: no load yet);
        ``prefix_tokens`` are those restored.
        """
        held = self._residency
        took = sorted(held.load_ms)
        return {
            "uses": held.uses,
            "hits": held.hits,
            "hit_rate": round(held.hits / held.uses, 4) if held.uses else None,
            "loads": held.loads,
            "unloads": held.unloads,
            "mean_ms": round(sum(took) / len(took), 3) if took else None,
            "p95_ms": round(took[-(-len(took) * 95 // 100) - 1], 3) if took else None,
            "prefix_tokens": held.prefix_tokens,
        }

    def _note(self, swap: Swap) -> None:
        values = (
            swap.at_ms, swap.place.role, swap.place.engine.model, swap.kind, swap.reason,
            swap.took_ms, swap.memory_bytes, swap.prefix_tokens,
        )  # fmt: skip

        def insert(conn: apsw.Connection) -> None:
            conn.execute(
                "INSERT INTO swaps(at_ms, role, model, kind, reason, took_ms, memory_bytes,"
                " prefix_tokens) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )

        try:
            self._db.write(insert)
        except KnowmeError as error:  # a full disk costs a statistic, not an answer
            log.warning("a swap of %s could not be noted: %s", swap.place.role, error)

    # --- looking after them ----------------------------------------------------------------------

    async def warm_up(self) -> None:
        """Build the engines, load the models that are always there, see how the local ones are.

        What fails is logged and told by ``states``; the others are not kept from it.
        """
        for role in self.roles:
            try:
                await asyncio.to_thread(self.engine, role)
                place = self._places.get(role)
                if place is not None and place.pinned and self._settings.residency.warm_up:
                    await self._residency.enter(place, "warm-up")
                    self._residency.leave(place)
                await self._check(role)
            except KnowmeError as error:
                log.warning("the model %s is not ready: %s", role, error)
                if isinstance(error, ModelError):
                    self.failed(role, error)

    async def tick(self) -> None:
        """Unload what has been idle for its time; look again at what was missing or down."""
        await self._residency.tick()
        due = self._clock() - RECHECK_SECONDS
        down = {role for role, (_, since) in list(self._down.items()) if since <= due}
        for role in sorted(down | self._suspects):
            with suppress(KnowmeError):  # then `engine` has noted why
                await asyncio.to_thread(self.engine, role)
                await self._check(role)

    async def _check(self, role: str) -> None:
        """Ask a local engine how it is; a remote one would be a request that leaves."""
        self._suspects.discard(role)
        engine = self._engines.get(role)
        if engine is None or not engine.local or not _here(self._wanted(role).url):
            return
        try:
            told = await asyncio.wait_for(engine.health(), _PATIENCE_SECONDS)
        except TimeoutError:
            return  # busy with loading, perhaps
        if told:
            self._down[role] = (told, self._clock())
        else:
            self._down.pop(role, None)

    async def aclose(self) -> None:
        """Save prefixes, unload what ends with us and close every engine, within seconds.

        Idempotent; what is used afterwards is built anew.
        """
        await self._residency.close(CLOSE_SECONDS)
        with self._building:
            engines, self._engines = list(self._engines.values()), {}
            self._places, self._breakers = {}, {}
        for engine in engines:
            with suppress(KnowmeError, OSError):
                await engine.aclose()


def parameters_of(name: str) -> int:
    """Read how many parameters a model has from its name, such as qwen3:4b; 0: it does not say."""
    match = _SIZE.search(name.lower())
    if match is None:
        return 0
    many = int(match[1] or 1) * float(match[2])
    return round(many * (1e9 if match[3] == "b" else 1e6))


def _only(settings: Settings) -> ModelSettings:
    """Return the one model that there is where none is configured by role."""
    engine = settings.engine
    return ModelSettings(
        role="primary", engine=engine.kind, model=engine.model, url=engine.url,
        api_key=engine.api_key, think=engine.think,
    )  # fmt: skip


def _seconds(keep_alive: str) -> float:
    """Read Ollama's keep_alive: 30m, a bare number of seconds; below zero: for ever."""
    if keep_alive.strip().startswith("-"):
        return math.inf
    try:
        return parse_duration(keep_alive)
    except ValueError:
        return IDLE_SECONDS["ram"]


def _keep_alive(seconds: float) -> str:
    """Return it as Ollama reads it."""
    return "-1" if math.isinf(seconds) else f"{round(seconds)}s"


def _identity(engine: Engine, wanted: EngineSettings) -> tuple[str, str, str, int]:
    """Return what two engines have in common that share one model in memory."""
    model = str(getattr(engine, "file", "") or engine.model)
    return engine.name, wanted.url, model, engine.context_tokens


def _here(url: str) -> bool:
    """Tell whether the model's memory is this machine's."""
    return not url or net.is_loopback(url)


def _may_load(wanted: EngineSettings) -> bool:
    return wanted.kind in ("auto", "llamacpp", "ollama") and _here(wanted.url)


def _is_local(own: ModelSettings, wanted: EngineSettings) -> bool:
    return _here(wanted.url) if own.local == "auto" else own.local == "true"


def _expected_ms(place: Place | None, parameters: int) -> float:
    """Return what loading is expected to take: as before, else by size (4 or 5 bits a weight)."""
    past = place.load_ms if place is not None else []
    if past:
        return sum(past) / len(past)
    size = (place.bytes if place is not None else 0) or parameters * 0.6
    return _NEW_LOAD_MS + size / _LOAD_BYTES * 1000
