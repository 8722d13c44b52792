"""The one place where requests leave: what is noted, what is not sent, and how each end is told."""

import asyncio
import json
import threading
import time

import faults
import pytest
from contracts import servers

from knowme import net, plugins
from knowme.errors import ModelDownError, OfflineError, StoreError
from knowme.types import ChatMessage, Options

QUESTION = (ChatMessage("user", "Where is the key?"),)
PIECE = 'data: {"choices":[{"delta":{"content":"Here "}}]}\n\n'
END = 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Notes:
    """A gate that keeps what it hears; ``full`` makes it a ledger that cannot be written to."""

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.rows: list[list] = []

    def leaving(self, url: str, body: bytes) -> int:
        if self.full:
            raise StoreError("The disk is full.")
        self.rows.append([url, body, None, None])
        return len(self.rows) - 1

    def left(self, row: int, outcome: str, received_bytes: int) -> None:
        assert self.rows[row][2] is None, "an end is noted once"
        self.rows[row][2:] = [outcome, received_bytes]

    @property
    def ends(self) -> list[str]:
        return [row[2] for row in self.rows]


def answer(call) -> None:
    call.start_stream("text/event-stream")
    for piece in (PIECE, PIECE, END):
        call.piece(piece)
    call.end_stream()


def engine(url: str, gate, **more):
    """Give an engine for which this machine's own address counts as elsewhere."""
    settings = {"local": "false", "timeout_seconds": 2.0, **more}
    return plugins.find("engines", "openai")(model="m", url=url, gate=gate, **settings)


async def ask(one) -> str:
    text = ""
    try:
        async for chunk in one.stream(QUESTION, Options()):
            text += chunk.text
    finally:
        await one.aclose()
    return text


def test_what_leaves_is_noted_before_it_is_sent_with_the_very_bytes():
    notes, known = Notes(), []

    def serve(call):
        known.append(len(notes.rows))
        got.append(call.json)
        answer(call)

    got: list = []
    with servers.serving(serve) as server:
        assert asyncio.run(ask(engine(server.url, notes))) == "Here Here "
    assert known == [1]
    (url, body, outcome, received) = notes.rows[0]
    assert url == f"{server.url}/chat/completions" and b"Where is the key?" in body
    assert json.loads(body) == got[0]
    assert outcome == "200" and received >= len(PIECE * 2 + END)


def test_nothing_is_sent_when_it_cannot_be_noted():
    asked: list = []
    with servers.serving(lambda call: asked.append(call.path)) as server:
        with pytest.raises(StoreError):
            asyncio.run(ask(engine(server.url, Notes(full=True))))
    assert asked == []


def test_what_stays_at_home_is_not_noted():
    notes = Notes()
    with servers.serving(answer) as server:
        for local in ("auto", "true"):
            asyncio.run(ask(engine(server.url, notes, local=local)))
    assert notes.rows == []


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (faults.status(429), "429"),
        (faults.status(500, "out of memory"), "500"),
        (faults.close(), "cut"),
        (faults.garbage(), "cut"),
        (faults.cut(events=1), "cut"),
        (faults.hang(events=1), "timeout"),
        (faults.delay(60), "timeout"),
        (faults.nonsense("data: {no json}\n\n", events=1), "closed"),
        (faults.empty(), "200"),
    ],
)
def test_every_end_is_noted_once(fault, outcome):
    notes = Notes()
    with servers.serving(answer) as server, faults.Proxy(server.url) as proxy:
        proxy.script(fault)
        try:
            asyncio.run(ask(engine(proxy.url, notes, timeout_seconds=0.5)))
        except ModelDownError:
            pass
    assert notes.ends == [outcome]


def test_a_refused_connection_is_noted():
    notes = Notes()
    with faults.Proxy("http://127.0.0.1:1") as other:
        gone = other.url
    with pytest.raises(ModelDownError):
        asyncio.run(ask(engine(gone, notes)))
    assert notes.ends == ["refused"] and notes.rows[0][3] == 0


def test_who_leaves_early_closed_it_and_who_is_cancelled_too():
    notes = Notes()

    async def leave(url):
        one = engine(url, notes)
        stream = one.stream(QUESTION, Options())
        await anext(stream)
        await stream.aclose()
        assert notes.ends == ["closed"]  # as soon as it is closed, not some time later
        first = asyncio.Event()

        async def read():
            async for _ in one.stream(QUESTION, Options()):
                first.set()

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await one.aclose()

    with servers.serving(answer) as server, faults.Proxy(server.url) as proxy:
        proxy.script(faults.hang(events=2), faults.hang(events=2))
        asyncio.run(leave(proxy.url))
    assert notes.ends == ["closed", "cancelled"]
    assert all(row[3] > 0 for row in notes.rows)


def test_who_is_cancelled_while_it_is_noted_leaves_no_row_without_an_end():
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Notes):
        def leaving(self, url, body):
            inside.set()
            go_on.wait(10)
            return super().leaving(url, body)

    notes, asked = Slow(), []

    async def cancel(url):
        task = asyncio.create_task(ask(engine(url, notes)))
        await asyncio.to_thread(inside.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        until = time.monotonic() + 10
        while notes.ends != ["cancelled"] and time.monotonic() < until:
            await asyncio.sleep(0.01)

    with servers.serving(lambda call: asked.append(call.path)) as server:
        asyncio.run(cancel(server.url))
    assert notes.ends == ["cancelled"] and asked == []


def test_a_real_name_elsewhere_goes_by_the_proxy_of_the_environment_and_is_noted(monkeypatch):
    notes, asked = Notes(), []

    def serve(call):
        asked.append((call.command, call.path))
        answer(call)

    with servers.serving(serve) as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "here.example")
        one = engine("http://model.example/v1", notes, local="auto")
        assert one.local is False
        assert asyncio.run(ask(one)) == "Here Here "
        with pytest.raises(ModelDownError):
            asyncio.run(ask(engine("http://here.example/v1", notes, local="auto")))
    assert asked == [("POST", "http://model.example/v1/chat/completions")]
    assert notes.ends == ["200", "refused"]


def test_offline_nothing_goes_beyond_this_machine_and_nothing_is_noted():
    notes = Notes()
    net.forbid(True)
    try:
        for local in ("auto", "true", "false"):
            for kind, url in (("openai", "http://192.0.2.1:1/v1"), ("ollama", "http://192.0.2.1")):
                one = plugins.find("engines", kind)(model="m", url=url, gate=notes, local=local)
                with pytest.raises(OfflineError, match="offline"):
                    asyncio.run(ask(one))
                assert "offline" in asyncio.run(one.health())
            embedder = plugins.find("embedders", "openai")(
                model="m", url="http://192.0.2.1:1/v1", gate=notes, dims=3
            )
            with pytest.raises(OfflineError, match="offline"):
                embedder.embed(["private"], "document")
        with servers.serving(answer) as server:  # this machine is not beyond itself
            asyncio.run(ask(engine(server.url, None)))
    finally:
        net.forbid(False)
    assert notes.rows == []


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_what_an_embedder_sends_elsewhere_is_noted(kind, monkeypatch):
    notes = Notes()

    def serve(call):
        vectors = [[1.0, 0.0], [0.0, 1.0]]
        if call.path.endswith("/api/tags"):
            call.reply(200, {"models": [{"name": "m", "digest": "sha256:1"}]})
        elif kind == "ollama":
            call.reply(200, {"embeddings": vectors})
        else:
            data = [{"index": n, "embedding": row} for n, row in enumerate(vectors)]
            call.reply(200, {"data": data})

    with servers.serving(serve) as server:
        monkeypatch.setenv("http_proxy", server.url)
        for url, count in (("http://model.example", 1), (server.url, 0)):
            notes.rows.clear()
            embedder = plugins.find("embedders", kind)(model="m", url=url, gate=notes)
            assert embedder.embed(["one", "two"], "document").shape == (2, 2)
            embedder.close()
            rows = [row for row in notes.rows if row[1]]  # a question for a list has no body
            assert len(rows) == count and set(notes.ends) <= {"200"}
            assert all(b"one" in row[1] and row[3] > 0 for row in rows)


def test_rows_of_many_at_once_do_not_mix():
    notes = Notes()

    async def many(url):
        one = engine(url, notes)

        async def read(word):
            messages = (ChatMessage("user", word),)
            return "".join([c.text async for c in one.stream(messages, Options())])

        found = await asyncio.gather(*(read(f"word-{n}-") for n in range(20)))
        await one.aclose()
        return found

    def echo(call):
        call.start_stream("text/event-stream")
        call.piece(PIECE.replace("Here ", call.json["messages"][0]["content"]))
        call.piece(END)
        call.end_stream()

    with servers.serving(echo) as server:
        found = asyncio.run(many(server.url))
    assert found == [f"word-{n}-" for n in range(20)]
    assert notes.ends == ["200"] * 20
