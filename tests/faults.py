"""A small HTTP proxy that goes wrong on purpose, between an engine and a real model server.

    with faults.Proxy(server_url) as proxy:
        engine = plugins.find("engines", "openai")(model="m", url=f"{proxy.url}/v1")
        proxy.script(faults.status(429, retry_after="7"), faults.cut(events=3))
        ...                  # the first POST gets 429, the second is cut, then all pass
        proxy.posts          # every POST: path, headers, json, fault, end (proxy.seen: GET too)
        proxy.wait_closed()  # until no request is under way; False if one still is

Only POST requests use the script up, one fault each, in order; then everything passes through.
``proxy.always(fault)`` does the same to every POST. GET requests (lists of models) always pass,
unless ``proxy.gone`` is set: then every connection is closed at once. Both may be changed while
it runs, from any thread.

The faults:

    PASS                               as the server answers
    delay(seconds)                     wait, then pass
    slow(seconds)                      wait before each event of the answer
    status(code, body, retry_after)    answer so; the server never hears of it
    cut(events=N) or cut(bytes=N)      pass N events (or bytes of the body), then reset
    hang(events=N)                     pass N events, then nothing more until the client leaves
    empty()                            a good answer without a single token
    close()                            close the connection without an answer
    garbage()                          an answer that is not HTTP
    nonsense(text, events=N)           pass N events, then this text as the next one, and the end
    page(html)                         200 with a page instead of a stream, as a captive portal does

``seen[i].end`` says how it ended: "done", "left" (the client went away first), or the fault's name.
When the client goes away, the connection to the server is closed at once.
"""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_WORDS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}
_OPENAI_END = (
    'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
)
_OLLAMA_END = (
    '{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",'
    '"prompt_eval_count":1,"eval_count":0}\n'
)


@dataclass(frozen=True)
class Fault:
    """What to do to one request; made by the functions below."""

    name: str
    seconds: float = 0.0
    code: int = 0
    body: str = ""
    retry_after: str = ""
    events: int = -1
    bytes: int = -1


PASS = Fault("pass")


def delay(seconds: float) -> Fault:
    return Fault("delay", seconds=seconds)


def slow(seconds: float) -> Fault:
    return Fault("slow", seconds=seconds)


def status(code: int, body: object = "", retry_after: str = "") -> Fault:
    said = body if isinstance(body, str) else json.dumps(body)
    return Fault("status", code=code, body=said, retry_after=retry_after)


def cut(*, events: int = -1, bytes: int = -1) -> Fault:
    return Fault("cut", events=events, bytes=bytes)


def hang(*, events: int = 0) -> Fault:
    return Fault("hang", events=events)


def empty() -> Fault:
    return Fault("empty")


def close() -> Fault:
    return Fault("close")


def garbage() -> Fault:
    return Fault("garbage")


def nonsense(text: str, *, events: int = 0) -> Fault:
    return Fault("nonsense", body=text, events=events)


def page(html: str = "<html><body>Please log in</body></html>") -> Fault:
    return Fault("page", body=html)


@dataclass
class Seen:
    """One request as it came, and how it ended."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    fault: Fault
    end: str = ""
    json: dict | None = field(init=False)

    def __post_init__(self) -> None:
        self.json = json.loads(self.body) if self.body else None


class Proxy:
    """The proxy, served by a thread of its own while the block runs."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._script: list[Fault] = []
        self._always = PASS
        self._open = 0
        self.gone = False
        self.seen: list[Seen] = []
        self.url = ""

    # --- what a test says and asks ---------------------------------------------------------------

    def script(self, *faults: Fault) -> None:
        """Let the next POST requests meet these, one each; then everything passes."""
        with self._lock:
            self._script = list(faults)
            self._always = PASS

    def always(self, fault: Fault) -> None:
        """Let every POST request meet this, once the script is used up."""
        with self._lock:
            self._always = fault

    @property
    def posts(self) -> list[Seen]:
        """The POST requests so far."""
        return [seen for seen in self.seen if seen.method == "POST"]

    @property
    def open(self) -> int:
        """How many requests are under way."""
        return self._open

    def wait_closed(self, seconds: float = 20.0) -> bool:
        """Wait until no request is under way; False if one still is after so long."""
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            time.sleep(0.01)
        return not self._open

    # --- its life --------------------------------------------------------------------------------

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one request -----------------------------------------------------------------------------

    async def _serve(self, reader, writer) -> None:
        if self.gone:
            writer.transport.abort()
            return
        try:
            seen = await self._request(reader)
            if seen is not None:
                await self._answer(seen, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(self, reader) -> Seen | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *rest = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        named = [line.partition(":") for line in rest]
        headers = {name.strip().lower(): value.strip() for name, _, value in named}
        body = await reader.readexactly(int(headers.get("content-length") or 0))
        with self._lock:
            fault = PASS
            if method == "POST":
                fault = self._script.pop(0) if self._script else self._always
            seen = Seen(method, path, headers, body, fault)
            self.seen.append(seen)
        return seen

    async def _answer(self, seen: Seen, reader, writer) -> None:
        self._open += 1
        left = asyncio.ensure_future(reader.read(1))  # ends when the client goes away
        work = asyncio.ensure_future(self._do(seen.fault, seen, writer))
        try:
            done, _ = await asyncio.wait({left, work}, return_when=asyncio.FIRST_COMPLETED)
            if work not in done:
                seen.end = seen.end or "left"
            elif (error := work.exception()) is not None:
                seen.end = seen.end or ("left" if isinstance(error, OSError) else repr(error))
            else:
                seen.end = work.result()
        finally:
            for task in (left, work):
                task.cancel()
            await asyncio.gather(left, work, return_exceptions=True)
            self._open -= 1

    async def _do(self, fault: Fault, seen: Seen, writer) -> str:
        if fault.name == "close":
            writer.transport.abort()
        elif fault.name == "garbage":
            writer.write(b"\x00\x01 this is no HTTP at all\r\n\r\n")
        elif fault.name == "status":
            more = f"Retry-After: {fault.retry_after}\r\n" if fault.retry_after else ""
            kind = "application/json" if fault.body.startswith("{") else "text/plain"
            writer.write(_whole(fault.code, kind, fault.body, more))
        elif fault.name == "page":
            writer.write(_whole(200, "text/html", fault.body))
        elif fault.name == "empty":
            end = _OLLAMA_END if seen.path.startswith("/api/") else _OPENAI_END
            writer.write(_whole(200, "text/event-stream", end))
        else:
            await asyncio.sleep(fault.seconds if fault.name == "delay" else 0)
            return await self._pass(fault, seen, writer)
        if not writer.transport.is_closing():
            await writer.drain()
        return fault.name

    async def _pass(self, fault: Fault, seen: Seen, writer) -> str:
        """Pass the request on, and the answer back as far as the fault lets it."""
        reader, upstream = await asyncio.open_connection(*self._upstream)
        try:
            skip = {"host", "connection", "content-length", "accept-encoding"}
            lines = [f"{seen.method} {seen.path} HTTP/1.1", f"host: 127.0.0.1:{self._upstream[1]}"]
            lines += [
                f"{name}: {value}" for name, value in seen.headers.items() if name not in skip
            ]
            lines += ["connection: close", f"content-length: {len(seen.body)}", "", ""]
            upstream.write("\r\n".join(lines).encode("latin-1") + seen.body)
            head = await reader.readuntil(b"\r\n\r\n")
            chunked = b"transfer-encoding: chunked" in head.lower()
            keep = [
                line
                for line in head.decode("latin-1").strip().split("\r\n")
                if not line.lower().startswith(("connection:", "keep-alive:"))
            ]
            writer.write("\r\n".join([*keep, "Connection: close", "", ""]).encode("latin-1"))
            if fault.name == "hang" and not fault.events:
                await writer.drain()
                await asyncio.Event().wait()
            end = b"\n" if b"ndjson" in head else b"\n\n"
            pieces = _pieces(reader, chunked, end)
            return await self._body(seen, pieces, chunked, writer)
        finally:
            upstream.transport.abort()

    async def _body(self, seen: Seen, pieces, chunked: bool, writer) -> str:
        fault = seen.fault
        events = sent = 0
        frame = _frame if chunked else bytes
        async for piece in pieces:
            if fault.events >= 0 and events == fault.events:
                return await self._break(fault, frame, writer)
            if 0 <= fault.bytes <= sent + len(piece):
                writer.write(frame(piece[: fault.bytes - sent]))
                return await self._break(fault, frame, writer)
            if fault.name == "slow":
                await asyncio.sleep(fault.seconds)
            writer.write(frame(piece))
            await writer.drain()
            events, sent = events + 1, sent + len(piece)
        seen.end = "done"  # before the last byte: the client may leave at once
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return "done"

    async def _break(self, fault: Fault, frame, writer) -> str:
        if fault.name == "nonsense":
            writer.write(frame(fault.body.encode()) + b"0\r\n\r\n")
        await writer.drain()
        if fault.name == "hang":
            await asyncio.Event().wait()
        if fault.name == "cut":
            await asyncio.sleep(0.05)  # what was sent arrives before the reset
            writer.transport.abort()
        return fault.name


def _whole(code: int, kind: str, body: str, more: str = "") -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {code} {_WORDS.get(code, 'Status')}\r\nContent-Type: {kind}\r\n{more}"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


async def _pieces(reader, chunked: bool, end: bytes):
    """Yield the body of an answer event by event; an event ends with ``end``."""
    held = b""
    async for data in _data(reader, chunked):
        held += data
        while (at := held.find(end)) >= 0:
            yield held[: at + len(end)]
            held = held[at + len(end) :]
    if held:
        yield held


async def _data(reader, chunked: bool):
    while chunked:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if not size:
            return
        yield data[:-2]
    while data := await reader.read(65536):
        yield data
