"""Threads for each kind of work, so that none waits behind another.

Promises: a queue has an end: what comes beyond it is refused at once, with the time to come back.
Refuses to know: the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from knowme.web.problems import RETRY_SECONDS, BusyError

T = TypeVar("T")


class Lane:
    """Threads for one kind of work, and a queue with an end."""

    def __init__(self, name: str, at_once: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix=f"knowme-{name}")
        self._lock = threading.Lock()
        self._name, self._most, self._busy = name, at_once + waiting, 0

    def submit(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Start or queue ``work``. Raises BusyError when the queue is full."""
        with self._lock:
            if self._busy >= self._most:
                raise BusyError(
                    f"{self._busy} {self._name} are waiting already.",
                    f"Ask again in {RETRY_SECONDS} seconds.",
                )
            self._busy += 1
        future = self._pool.submit(work, *args)
        future.add_done_callback(self._left)
        return future

    def _left(self, _: Future[Any]) -> None:
        with self._lock:
            self._busy -= 1

    async def run(self, work: Callable[..., T], *args: Any) -> T:
        """Run ``work`` in a thread. It goes on when we are cancelled, if it has begun."""
        return await asyncio.wrap_future(self.submit(work, *args))

    def close(self) -> None:
        """Start nothing more. What runs goes on until it meets a closed home."""
        self._pool.shutdown(wait=False, cancel_futures=True)
