"""An engine that takes memory and can be watched: the echo engine behind a load and an unload.

It is installed as a plugin by `tests/test_models.py`. ``Memory`` is the machine that its models are
loaded into: it refuses what must never happen, and remembers what did.
"""

import asyncio
import threading
from collections.abc import Sequence

from knowme.engines.echo import EchoEngine
from knowme.errors import ModelError
from knowme.llama import NoRoomError
from knowme.types import ChatMessage, Options


class Memory:
    """``loaded`` maps a model to its bytes; ``inside`` are the models with a request in flight."""

    def __init__(self) -> None:
        self.loaded: dict[str, int] = {}
        self.inside: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.wrong: list[str] = []
        self.most = 0
        self.free_bytes = 1 << 40
        self.slow: dict[str, float] = {}
        self.broken: dict[str, Exception] = {}
        self.lock = threading.Lock()

    def happened(self, what: str) -> list[str]:
        return [model for kind, model in self.events if kind == what]


memory = Memory()


class HeldEngine(EchoEngine):
    """``model`` ends with its size in megabytes: big-300."""

    name = "held"

    def __init__(self, *, model: str = "", context_tokens: int = 4096, **given: object) -> None:
        super().__init__(context_tokens=context_tokens)
        self.model = model or "held-100"
        self.given = given
        self.size = int(self.model.rpartition("-")[2] or 100) << 20

    def stream(self, messages: Sequence[ChatMessage], options: Options):
        if self.model not in memory.loaded:
            memory.wrong.append(f"{self.model} was asked and is not loaded")
        return super().stream(messages, options)

    async def load(self) -> None:
        await asyncio.sleep(memory.slow.get(self.model, 0.0))
        if self.model in memory.broken:
            raise memory.broken[self.model]
        with memory.lock:
            if self.model in memory.loaded:
                memory.wrong.append(f"{self.model} was loaded twice")
            if sum(memory.loaded.values()) + self.size > memory.free_bytes:
                raise NoRoomError(f"{self.model} is larger than what is free.", "Close something.")
            memory.loaded[self.model] = self.size
            memory.most = max(memory.most, len(memory.loaded))
            memory.events.append(("load", self.model))

    async def unload(self) -> None:
        with memory.lock:
            if self.model in memory.inside:
                memory.wrong.append(f"{self.model} was unloaded with a request in flight")
            if memory.loaded.pop(self.model, None):
                memory.events.append(("unload", self.model))

    async def loaded(self) -> bool:
        return self.model in memory.loaded

    async def memory_bytes(self) -> int:
        return self.size

    async def health(self) -> str:
        error = memory.broken.get(self.model)
        return str(error) if isinstance(error, ModelError) else ""
