"""A served home for the tests of the HTTP APIs, and a model server with a script."""

import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import yaml
from contracts import servers

from knowme import service
from knowme.home import Home

ECHO = "This is the echo engine, without a model."


@contextmanager
def home_of(path: Path, **settings):
    """Open a new home with these settings, as they stand in config.yaml; hashing and echo else."""
    Home.create(path)
    given = {"embedder": {"kind": "hashing"}, "engine": {"kind": "echo"}, **settings}
    (path / "config.yaml").write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    with Home.open(path) as home:
        yield home


@contextmanager
def served(home):
    """Serve a home on a free port; gives the server (``url``)."""
    running = service.Server(home, "127.0.0.1", 0)
    running.start()
    try:
        yield running
    finally:
        running.stop(5)
        assert not running.alive()


def until(what, seconds=20):
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return got


class Model:
    """An OpenAI-compatible server whose answers a test scripts; it keeps what it was asked.

    ``script`` is a list of steps for each answer in turn (the last one for ever): text, a delta (a
    dict), ("wait", event), ("status", number, headers) or "cut".
    """

    def __init__(self, *scripts, model="big") -> None:
        self.scripts, self.model = list(scripts) or [["Hello", " there."]], model
        self.asked: list[dict] = []
        self.keys: list[str] = []
        self.gone = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, call: servers.Handler) -> None:
        if call.path.endswith("/models"):
            return call.reply(200, {"object": "list", "data": [{"id": self.model}]})
        if not call.path.endswith("/chat/completions"):
            return call.reply(404, {"error": {"message": "no such path"}})
        with self._lock:
            self.asked.append(call.json)
            self.keys.append(call.headers.get("authorization", ""))
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(script[0], tuple) and script[0][0] == "status":
            _, status, headers = script[0]
            return call.reply(status, {"error": {"message": f"scripted {status}"}}, headers)
        call.start_stream("text/event-stream")
        finish = "stop"
        try:
            for step in script:
                if step == "cut":
                    return call.cut()
                if isinstance(step, tuple):
                    assert step[1].wait(30)
                    continue
                delta = {"content": step} if isinstance(step, str) else step
                finish = "tool_calls" if "tool_calls" in delta else finish
                self._event(call, delta, None)
            self._event(call, {}, finish)
            usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
                     "prompt_tokens_details": {"cached_tokens": 5}}  # fmt: skip
            call.piece(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n")
            call.piece("data: [DONE]\n\n")
            call.end_stream()
        except OSError:
            self.gone.set()
            raise

    def _event(self, call: servers.Handler, delta: dict, finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        told = {"id": "x", "object": "chat.completion.chunk", "model": self.model}
        call.piece(f"data: {json.dumps({**told, 'choices': [choice]})}\n\n")


@contextmanager
def model_server(*scripts, model="big"):
    """Serve a scripted model on loopback; gives it, with its base URL as ``url``."""
    scripted = Model(*scripts, model=model)
    with servers.serving(scripted) as server:
        scripted.url = f"{server.url}/v1"
        yield scripted
