"""Servers that the contract tests talk to: real llama.cpp ones, and strict ones of our own.

``llama`` starts a real llama.cpp server. ``OllamaFixture`` speaks Ollama's wire format in front of
them, so that real tokens flow, and refuses what Ollama does not know. ``Scripted`` does what a test
tells it, mostly wrong things.
"""

import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

_RUNNING: dict[tuple[Path, str], tuple[subprocess.Popen, str]] = {}


def llama(model: Path, kind: str) -> str:
    """Return the address of a llama.cpp server with this model; started once."""
    if (model, kind) not in _RUNNING:
        program = Path(__file__).with_name("llama_server.py")
        process = subprocess.Popen(
            [sys.executable, str(program), str(model), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            process.kill()
            raise RuntimeError(f"llama.cpp did not start with {model}: {url!r}")
        _RUNNING[model, kind] = process, url
    return _RUNNING[model, kind][1]


def stop_all() -> None:
    for process, _ in _RUNNING.values():
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    _RUNNING.clear()


class Handler(BaseHTTPRequestHandler):
    """One request: ``self.json`` is its body."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        self.json = json.loads(body) if body else None
        try:
            self.server.serve(self)
        except (BrokenPipeError, ConnectionResetError):
            self.server.left.append(self.path)
            self.close_connection = True

    do_GET = do_POST = _serve

    def reply(self, status: int, body, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(body, str) else "application/json; charset=utf-8"
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def start_stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, data: bytes | str) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many may come at once

    def __init__(self, serve: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.serve = serve
        self.left: list[str] = []  # paths whose client went away
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_) -> None:
        pass


@contextmanager
def serving(serve: Callable[[Handler], None]):
    """Serve on loopback while the block runs; gives the server (``url``, ``left``)."""
    server = _Server(serve)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text


_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$")
_CHAT = {
    "model": str,
    "messages": list,
    "stream": bool,
    "keep_alive": (str, int, float),
    "options": dict,
    "format": (str, dict),
    "think": (bool, str),
    "tools": list,
}
_GENERATE = {
    "model": str,
    "prompt": str,
    "stream": bool,
    "keep_alive": (str, int, float),
    "options": dict,
}
_EMBED = {
    "model": str,
    "input": (str, list),
    "truncate": bool,
    "keep_alive": (str, int, float),
    "options": dict,
    "dimensions": int,
}
_EMBEDDINGS = {"model": str, "prompt": str, "keep_alive": (str, int, float), "options": dict}
_MESSAGE = {
    "role": str,
    "content": str,
    "images": list,
    "tool_calls": list,
    "tool_name": str,
    "tool_call_id": str,
}
_OPTIONS = {
    "num_ctx": int,
    "num_predict": int,
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": int,
    "min_p": (int, float),
    "seed": int,
    "stop": list,
    "num_keep": int,
    "repeat_penalty": (int, float),
    "repeat_last_n": int,
    "presence_penalty": (int, float),
    "frequency_penalty": (int, float),
    "typical_p": (int, float),
    "mirostat": int,
    "mirostat_tau": (int, float),
    "mirostat_eta": (int, float),
}


class OllamaFixture:
    """Ollama's wire format in front of real llama.cpp servers, stricter than the original.

    ``models`` maps a name to (kind, address); a name in ``thinkers`` can think, none can see. A
    model that is given tools calls the first one. ``old`` is a server from before /api/embed.
    Every change of ``num_ctx`` is kept in ``windows``: Ollama would load the model again.

    A model is in memory until its ``keep_alive`` is over, by ``clock``; ``loads`` are the (name,
    num_ctx) of each load. What does not fit into ``memory_bytes`` is refused.
    """

    clock = staticmethod(time.monotonic)
    memory_bytes = 1 << 40

    def __init__(self, models: dict[str, tuple[str, str]], *, old: bool = False) -> None:
        self.models = models
        self.old = old
        self.thinkers: set[str] = set()
        self.windows: list[int] = []
        self.asked: list[tuple[str, dict]] = []
        self.loads: list[tuple[str, int]] = []
        self._held: dict[str, tuple[int, float]] = {}  # name -> its window, until when
        self._lock = threading.Lock()

    @property
    def held(self) -> dict[str, tuple[int, float]]:
        """What is in memory now: name -> (num_ctx, until when)."""
        with self._lock:
            now = self.clock()
            self._held = {n: held for n, held in self._held.items() if held[1] > now}
            return dict(self._held)

    def __call__(self, call: Handler) -> None:
        routes = {
            "/api/version": lambda: call.reply(200, {"version": "0.12.6"}),
            "/api/tags": lambda: call.reply(200, {"models": [self._tag(n) for n in self.models]}),
            "/api/ps": lambda: call.reply(200, {"models": self._ps()}),
            "/api/generate": lambda: self._generate(call),
            "/api/chat": lambda: self._chat(call),
            "/api/embeddings": lambda: self._embeddings(call),
        }
        if not self.old:
            routes["/api/embed"] = lambda: self._embed(call)
        if call.path not in routes:
            return call.reply(404, "404 page not found")
        if (call.command == "GET") != (call.path in ("/api/version", "/api/tags", "/api/ps")):
            return call.reply(405, {"error": "method not allowed"})
        if call.json is not None:
            self.asked.append((call.path, call.json))
        try:
            routes[call.path]()
        except Refused as refused:
            call.reply(refused.status, {"error": refused.text})

    def _tag(self, name: str) -> dict:
        return {
            "name": name,
            "model": name,
            "modified_at": "2026-10-01T10:00:00.000000000Z",
            "size": 1000,
            "digest": f"{abs(hash_of(name)):064x}",
            "details": {"format": "gguf", "family": "llama", "quantization_level": "Q4_1"},
        }

    def _ps(self) -> list[dict]:
        expires = "2026-10-01T10:00:00.000000000Z"
        return [
            {**self._tag(name), "size": 1500, "size_vram": 0, "expires_at": expires,
             "context_length": window}
            for name, (window, _) in self.held.items()
        ]  # fmt: skip

    def _generate(self, call: Handler) -> None:
        """Load or unload a model: what a request without a prompt is."""
        body = call.json
        kind, _ = self._checked(body, _GENERATE)
        if kind != "chat":
            raise Refused(400, f'"{body["model"]}" does not support generate')
        if body.get("prompt"):
            raise Refused(501, "only loading and unloading is played here")
        reason = "load"
        if body.get("keep_alive") in (0, "0s"):
            self._held.pop(self._full(body), None)
            reason = "unload"
        else:
            self._use(body)
        told = {"model": body["model"], "created_at": "2026-10-01T10:00:00Z", "response": ""}
        call.reply(200, {**told, "done": True, "done_reason": reason})

    def _full(self, body) -> str:
        name = body["model"]
        return name if name in self.models else f"{name}:latest"

    def _use(self, body) -> None:
        """Have the model in memory with this window: another one means loading it again."""
        name, window = self._full(body), body.get("options", {}).get("num_ctx", 4096)
        held = self.held
        if name not in held or held[name][0] != window:
            if 1500 * len(held.keys() | {name}) > self.memory_bytes:
                raise Refused(
                    500, "model requires more system memory (1.5 KiB) than is available (1.0 KiB)"
                )
            self.loads.append((name, window))
        seconds = _seconds(body.get("keep_alive", "5m"))
        self._held[name] = (window, self.clock() + (seconds if seconds >= 0 else 1e12))

    def _checked(self, body, fields) -> tuple[str, str]:
        if not isinstance(body, dict):
            raise Refused(400, "invalid request body")
        self._check_types(body, fields)
        name = body.get("model", "")
        if not name:
            raise Refused(400, "model is required")
        for known in (name, f"{name}:latest"):
            if known in self.models:
                return self.models[known]
        raise Refused(404, f'model "{name}" not found, try pulling it first')

    @staticmethod
    def _check_types(body, fields) -> None:
        for name, value in body.items():
            if name not in fields:
                raise Refused(400, f"unknown field {name!r}")
            wrong = isinstance(value, bool) and fields[name] not in (bool, (bool, str))
            if wrong or not isinstance(value, fields[name]):
                raise Refused(400, f"json: cannot unmarshal field {name}")
        for name, value in body.get("options", {}).items():
            if name not in _OPTIONS or not isinstance(value, _OPTIONS[name]):
                raise Refused(400, f"option {name!r} must be of another type, or is not known")
        keep = body.get("keep_alive")
        if isinstance(keep, str) and not _DURATION.match(keep):
            raise Refused(400, f'time: missing unit in duration "{keep}"')

    def _chat(self, call: Handler) -> None:
        body = call.json
        kind, url = self._checked(body, _CHAT)
        if kind != "chat":
            raise Refused(400, f'"{body["model"]}" does not support chat')
        for message in body["messages"]:
            self._check_message(message)
        thinks = body["model"] in self.thinkers
        if body.get("think") and not thinks:
            raise Refused(400, f'"{body["model"]}" does not support thinking')
        options = body.get("options", {})
        if options.get("num_ctx", 4096) not in self.windows[-1:]:
            self.windows.append(options.get("num_ctx", 4096))
        self._use(body)
        asked = {
            "messages": body["messages"],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": options.get("num_predict", -1),
        }
        asked |= {
            name: options[name]
            for name in ("temperature", "top_p", "seed", "stop")
            if name in options
        }
        if isinstance(form := body.get("format"), dict):
            asked["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": form},
            }
        elif form == "json":
            asked["response_format"] = {"type": "json_object"}
        if body.get("tools") and body["messages"][-1]["role"] != "tool":
            return self._call_tool(call, url, asked)
        asked["messages"] = [
            {"role": "user" if m["role"] == "tool" else m["role"], "content": m["content"]}
            for m in body["messages"]
        ]
        self._relay(call, url, asked, thinking=3 if thinks and body.get("think") else 0)

    @staticmethod
    def _check_message(message) -> None:
        for name, value in message.items():
            if name not in _MESSAGE or not isinstance(value, _MESSAGE[name]):
                raise Refused(400, f"json: cannot unmarshal field messages.{name}")
        if message["role"] not in ("system", "user", "assistant", "tool"):
            raise Refused(400, "invalid message")
        for called in message.get("tool_calls", ()):
            if not isinstance(called["function"]["arguments"], dict):
                raise Refused(400, "json: cannot unmarshal string into arguments")
        for image in message.get("images", ()):
            base64.b64decode(image, validate=True)
            raise Refused(500, "this model is missing data required for image input")

    def _call_tool(self, call: Handler, url: str, asked: dict) -> None:
        """Answer with a call whose arguments the real model makes up, in Ollama's two lines."""
        function = call.json["tools"][0]["function"]
        schema = {"name": "answer", "schema": function["parameters"]}
        asked |= {
            "stream": False,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        asked.pop("stream_options")
        reply = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60, trust_env=False)
        found = reply.raise_for_status().json()
        arguments = json.loads(found["choices"][0]["message"]["content"])
        called = {"function": {"name": function["name"], "arguments": arguments}}
        call.start_stream("application/x-ndjson")
        name, usage = call.json["model"], found["usage"]
        message = {"role": "assistant", "content": "", "tool_calls": [called]}
        call.piece(json.dumps({"model": name, "message": message, "done": False}) + "\n")
        message = {"role": "assistant", "content": ""}
        end = {"model": name, "message": message, "done": True, "done_reason": "stop"}
        end |= {"prompt_eval_count": usage["prompt_tokens"]}
        end |= {"eval_count": usage["completion_tokens"]}
        call.piece(json.dumps(end) + "\n")
        call.end_stream()

    def _relay(self, call: Handler, url: str, asked: dict, thinking: int) -> None:
        name = call.json["model"]

        def send(message: dict, **more) -> None:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())
            line = {"model": name, "created_at": stamp, "message": message, "done": False, **more}
            call.piece(json.dumps(line, ensure_ascii=False) + "\n")

        call.start_stream("application/x-ndjson")
        usage, reason = {}, "stop"
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=asked, timeout=60, trust_env=False
        ) as reply:
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    reason = choice["finish_reason"] or reason
                    text = choice["delta"].get("content")
                    if text and thinking:
                        thinking -= 1
                        send({"role": "assistant", "content": "", "thinking": text})
                    elif text:
                        send({"role": "assistant", "content": text})
        send(
            {"role": "assistant", "content": ""},
            done=True,
            done_reason=reason,
            total_duration=1,
            load_duration=1,
            prompt_eval_count=usage["prompt_tokens"],
            prompt_eval_duration=1,
            eval_count=usage["completion_tokens"],
            eval_duration=1,
        )
        call.end_stream()

    def _vectors(self, url: str, texts: list[str]) -> list[list[float]]:
        reply = httpx.post(f"{url}/v1/embeddings", json={"input": texts}, trust_env=False)
        reply.raise_for_status()
        rows = sorted(reply.json()["data"], key=lambda row: row["index"])
        return [row["embedding"] for row in rows]

    def _embed(self, call: Handler) -> None:
        kind, url = self._checked(call.json, _EMBED)
        if kind != "embedding":
            raise Refused(501, "this model does not support embeddings")
        texts = call.json["input"]
        texts = [texts] if isinstance(texts, str) else texts
        found = self._vectors(url, texts) if texts else []
        call.reply(200, {"model": call.json["model"], "embeddings": found, "total_duration": 1})

    def _embeddings(self, call: Handler) -> None:
        kind, url = self._checked(call.json, _EMBEDDINGS)
        if kind != "embedding":
            raise Refused(501, "this model does not support embeddings")
        call.reply(200, {"embedding": self._vectors(url, [call.json["prompt"]])[0]})


def _seconds(keep_alive: str | int | float) -> float:
    """Return a keep_alive in seconds; below zero: for ever."""
    if not isinstance(keep_alive, str):
        return keep_alive
    units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", keep_alive)
    found = sum(float(many) * units[unit] for many, unit in parts)
    return -found if keep_alive.startswith("-") else found


def hash_of(name: str) -> int:
    import hashlib

    return int(hashlib.sha256(name.encode()).hexdigest(), 16)
