"""The server: a socket, a uvicorn on it, and how it starts and stops.

Promises: it listens, or says why not, before anything else starts; beyond loopback only with a
token. Told to stop, it accepts nothing more, lets open answers go on for a few seconds, then cuts
them.
Refuses to know: the routes.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from knowme.errors import ConfigError, HomeError
from knowme.web.guard import is_loopback

log = logging.getLogger("knowme.service")

GRACE_SECONDS = 3.0  # how long open answers may go on once the service is told to stop


def check_exposure(host: str, token: str) -> None:
    """Raise ConfigError when ``host`` lies beyond loopback and there is no token."""
    if is_loopback(host):
        return
    if not token.strip():
        raise ConfigError(
            f"Listening on {host or '*'} lets other machines in, and there is no token.",
            "Set one in the home's .env: KNOWME_SERVICE_TOKEN="
            "$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))')"
            "; or listen on 127.0.0.1.",
        )
    if len(token.strip()) < 16:
        log.warning("The token is short; whoever reaches %s can guess it.", host)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises ConfigError when the address cannot be had."""
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0])  # IPv4 first
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
        except OSError:
            sock.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot listen on {host or '*'}:{port}: {reason}.",
            f"Stop what uses it, or take another port: knowme serve --port {port % 65535 + 1}",
        ) from error
    return sock


class Listener(uvicorn.Server):
    """A uvicorn server on a socket that listens already. It leaves the signals alone.

    Set ``should_exit`` to stop it: open answers may go on for a few seconds, then they are cut
    (and stored so).
    """

    def __init__(self, app: FastAPI, sock: socket.socket, stopping: asyncio.Event) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="on",
                timeout_keep_alive=15,
                timeout_graceful_shutdown=int(GRACE_SECONDS) + 2,
            )
        )
        self._stopping, self._sock = stopping, sock
        self.grace_seconds = GRACE_SECONDS

    @property
    def url(self) -> str:
        """Where it can be reached from this machine."""
        host, port = self._sock.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not: whoever runs us decides what a signal means."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until ``should_exit``."""
        await super().serve(sockets or [self._sock])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more; cut the open answers after the grace."""
        cut = asyncio.get_running_loop().call_later(self.grace_seconds, self._stopping.set)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()


class Background:
    """A server in a thread of its own, for whoever has other things to do (the daemon, tests)."""

    def __init__(self, make: Callable[[], Listener]) -> None:
        """Remember how to listen; nothing happens before ``start``."""
        self._make = make
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it can be reached; only after ``start``."""
        assert self._listener is not None
        return self._listener.url

    def start(self) -> None:
        """Listen. Returns when requests are answered. Raises ConfigError, HomeError."""
        self._listener = self._make()
        self._thread = threading.Thread(
            target=self._listener.run, name="knowme-service", daemon=True
        )
        self._thread.start()
        while not self._listener.started:
            if not self._thread.is_alive():
                raise HomeError("The service ended while it started.", "Look in its log.")
            time.sleep(0.005)

    def alive(self) -> bool:
        """Tell whether it serves still."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, seconds: float) -> None:
        """Accept nothing more, end what is open within ``seconds``. Idempotent."""
        if self._listener is None or self._thread is None:
            return
        self._listener.grace_seconds = min(GRACE_SECONDS, seconds / 2)
        self._listener.config.timeout_graceful_shutdown = max(1, int(seconds))
        self._listener.should_exit = True
        self._thread.join(seconds + 1)


def tell(server: Listener, on_ready: Callable[[str], None]) -> None:
    """Call ``on_ready(url)`` once the server answers; not at all if it never does."""
    while not server.started and not server.should_exit:
        time.sleep(0.01)
    if server.started:
        on_ready(server.url)


@contextmanager
def signals(server: Listener) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the server, a second one at once (in the main thread only)."""

    def handle(number: int, _: object) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
