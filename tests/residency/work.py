"""What the tests of models do with them: settings, questions, and how they hold a model."""

import asyncio
import time
from contextlib import asynccontextmanager

from knowme.models import Models
from knowme.settings import ModelSettings
from knowme.types import ChatMessage, Options

HELLO = [ChatMessage("user", "Hello?")]
STORY = [ChatMessage("user", "Tell me a very long story about a fox. Do not stop.")]
STEADY = Options(max_tokens=4, temperature=0.0)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def held(role: str, size: int = 100, **more) -> ModelSettings:
    return ModelSettings(role=role, engine="held", model=f"{role}-{size}", **more)


def swaps(models: Models) -> list[tuple]:
    """Return the rows of the table: (kind, role, reason). They are written a little later."""
    for thread in models._residency._threads:
        thread.join(10)
    with models._db.read() as conn:
        return list(conn.execute("SELECT kind, role, reason FROM swaps ORDER BY id"))


async def ask(models, role, messages=HELLO, options=STEADY):
    """Return (text, usage) of an answer, as any surface asks."""
    async with models.use(role) as engine:
        text, usage = "", None
        async for chunk in engine.stream(messages, options):
            text += chunk.text
            usage = chunk.usage or usage
    return text, usage


@asynccontextmanager
async def inside(models, memory, role):
    """Hold a model as a request does; the machine is told, and refuses to unload it."""
    async with models.use(role) as engine:
        memory.inside.append(engine.model)
        try:
            yield engine
        finally:
            memory.inside.remove(engine.model)


async def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(0.002)


def loaded(models) -> set[str]:
    return {state.role for state in models.states() if state.loaded}
