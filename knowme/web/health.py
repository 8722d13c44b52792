"""How the parts are, known before anyone asks.

Promises: ``snapshot`` never waits: it is what the last background check saw, from the first moment
(then: warming). The first check also warms: it loads the embedder and the index, so that the first
search is as fast as the others. A model that is not needed yet is not loaded.
Refuses to know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import knowme
from knowme.db import value
from knowme.errors import KnowmeError
from knowme.home import Home
from knowme.types import Query
from knowme.web.lanes import Lane

log = logging.getLogger("knowme.service")

EVERY_SECONDS = 30.0
EMBED_EVERY_SECONDS = 600.0  # an embedding keeps a server's model in its memory: seldom
POKED_SECONDS = 10.0
PATIENCE_SECONDS = 10.0
PARTS = ("db", "embedder", "index", "engine", "jobs")

Check = tuple[str, str]
"""(ok, warming, down or absent; what it is, or what is wrong and what mends it)"""


class Health:
    """The state of every part of one home, kept fresh by ``run``."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._checks: dict[str, Check] = dict.fromkeys(PARTS, ("warming", ""))
        self.lane = Lane("checks", 3, 8)
        self._poked = asyncio.Event()
        self._embedded_at = 0.0
        self.warming = True

    def snapshot(self, *, details: bool = True) -> dict[str, Any]:
        """Return HealthShape; without ``details`` only the states, for whoever has no token."""
        down = any(state == "down" for state, _ in self._checks.values())
        return {
            "status": "degraded" if down else "ok",
            "version": knowme.__version__,
            "warming": self.warming,
            "checks": {
                name: {"state": state, "detail": detail if details else ""}
                for name, (state, detail) in self._checks.items()
            },
        }

    def poke(self) -> None:
        """Check again soon: something failed. Now and then is soon enough."""
        if time.monotonic() - self._embedded_at < POKED_SECONDS:
            return
        self._embedded_at = 0.0
        self._poked.set()

    async def run(self) -> None:
        """Check now and then until cancelled."""
        while True:
            await self.check()
            self.warming = False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), EVERY_SECONDS)
                await asyncio.sleep(1)  # many failures at once are one reason to look
            self._poked.clear()

    async def check(self) -> None:
        """Look at every part."""
        await self._look("db", self._db)
        await asyncio.gather(self._look("jobs", self._jobs), self._memory(), self._look_engine())

    async def _memory(self) -> None:
        due = time.monotonic() - self._embedded_at >= EMBED_EVERY_SECONDS
        if due or not self._embedded_at or self._checks["embedder"][0] == "down":
            await self._look("embedder", self._embedder)
            await self._look("index", self._search)
            self._embedded_at = time.monotonic()
        else:
            await self._look("index", self._index)

    async def _look(self, name: str, look: Callable[[], Check]) -> None:
        try:
            self._checks[name] = await self.lane.run(look)
        except KnowmeError as error:
            self._checks[name] = ("down", str(error))
        except Exception as error:
            log.exception("the check of %s failed", name)
            self._checks[name] = ("down", f"{type(error).__name__}; see the log.")

    async def _look_engine(self) -> None:
        await self._look("engine", self._built_engine)
        if self._checks["engine"][0] != "ok":
            return
        if not self._home.engine.local:  # asking it how it is would be a request that leaves
            models = self._home.models
            if down := models.state(models.primary).down:
                self._checks["engine"] = ("down", down)
        else:
            try:
                told = await asyncio.wait_for(self._home.engine.health(), PATIENCE_SECONDS)
            except TimeoutError:
                told = f"No sign of life within {PATIENCE_SECONDS:g} s."
            except Exception as error:
                told = str(error) if isinstance(error, KnowmeError) else type(error).__name__
            if told:
                self._checks["engine"] = ("down", told)

    def _built_engine(self) -> Check:
        engine = self._home.engine
        return "ok", f"{engine.name}, {engine.model}"

    def _db(self) -> Check:
        with self._home.db.read() as conn:
            return "ok", f"schema {value(conn, 'PRAGMA user_version')}"

    def _jobs(self) -> Check:
        with self._home.db.read() as conn:
            parked = int(value(conn, "SELECT count(*) FROM jobs WHERE state = 'parked'"))
        if parked:
            return "down", f"{parked} failed and wait for you. Look: knowme jobs"
        return "ok", ""

    def _embedder(self) -> Check:
        embedder = self._home.embedder
        if embedder is None:
            return "absent", "Only words are searched (embedder.kind: none)."
        if self._home.embeds_away():  # none is made just to see if it works
            return "ok", "on another machine, asked only when there is something to embed"
        embedder.embed(["Are you there?"], "query")
        return "ok", f"{embedder.fingerprint}, {embedder.dims} dimensions"

    def _search(self) -> Check:
        if self._home.embeds_away():
            return self._index()
        # A whole one: it loads the index, the pages of the word index, and what they need.
        self._home.search(Query("Are you there?", top_k=1))
        return self._index()

    def _index(self) -> Check:
        space = self._home.space()
        if space is None:
            return "absent", "No vectors yet."
        return "ok", f"{self._home.settings.index.kind}, {self._home.index(space).count()} vectors"
