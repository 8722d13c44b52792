"""A circuit breaker: a remote model that keeps failing is left alone for a while.

Promises: three failures in a row open it, or one that says how long to wait; after that time one
request may try again while the others are still refused; each failed try doubles the wait, up to
ten minutes; one success closes it. Thread-safe.
Refuses to know: which models there are. Those of this machine have none: loading is not failing.

M. Nygard, "Release It!" (2007), the pattern of that name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from knowme.errors import ModelDownError, ModelError

FAILURES = 3
"""How many in a row open it."""
FIRST_SECONDS = 30.0
LONGEST_SECONDS = 600.0


class RestingError(ModelDownError):
    """The model failed just now and is left alone for ``retry_after`` seconds; nothing was sent."""


class Breaker:
    """The breaker of one model. ``clock`` gives seconds that never run backwards."""

    def __init__(self, role: str, clock: Callable[[], float]) -> None:
        self._role = role
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = FIRST_SECONDS
        self._until: float | None = None  # None: closed
        self._probing = False
        self._why = ""

    def down(self) -> str:
        """Return why it may not be asked now, or ""."""
        with self._lock:
            return self._refusal()[0]

    def enter(self) -> bool:
        """Ask to send a request; True when it is the one that tries again. Raises RestingError."""
        with self._lock:
            refusal, seconds = self._refusal()
            if refusal:
                raise RestingError(refusal, "Ask another model meanwhile.", retry_after=seconds)
            if self._until is None:
                return False
            self._probing = True
            return True

    def leave(self, probe: bool) -> None:
        """Note that the request is over, however it ended."""
        if probe:
            with self._lock:
                self._probing = False

    def failed(self, error: ModelError) -> None:
        """Note that a request failed. What the server refused for its content does not count."""
        if isinstance(error, RestingError) or not isinstance(error, ModelDownError):
            return
        with self._lock:
            now = self._clock()
            self._failures += 1
            self._why = error.message
            asked = error.retry_after or 0.0
            if self._until is not None and now < self._until:  # it was under way when we opened
                self._until = max(self._until, now + asked)
            elif asked > 0:
                self._until = now + asked
            elif self._failures >= FAILURES or self._until is not None:
                self._until = now + self._pause
                self._pause = min(self._pause * 2, LONGEST_SECONDS)

    def worked(self) -> None:
        """Note that a request was answered."""
        with self._lock:
            self._failures, self._pause, self._until, self._why = 0, FIRST_SECONDS, None, ""

    def _refusal(self) -> tuple[str, float]:
        if self._until is None:
            return "", 0.0
        left = self._until - self._clock()
        if left > 0:
            return f"{self._why} It is asked again in {max(1, round(left))} s.", left
        if self._probing:
            return f"{self._why} It is being tried again.", 1.0
        return "", 0.0
