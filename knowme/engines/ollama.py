"""A model that Ollama serves: /api/chat, streamed.

Promises: ``num_ctx`` is always the same, since another value makes Ollama load the model again;
thinking is off unless asked for, and never part of the answer; the model stays loaded for
``keep_alive``; a missing model names the command that gets it.
Refuses to know: what is asked. Without a model's name it takes the newest chat model there is.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from knowme import wire
from knowme.errors import ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Chunk, Options, Usage

if TYPE_CHECKING:
    import httpx

URL = "http://127.0.0.1:11434"
MEND = "Start it: ollama serve"


def is_embedding(name: str) -> bool:
    """Tell by its name whether a model only embeds."""
    plain = name.lower()
    return "embed" in plain or plain.startswith(("all-minilm", "bge-", "paraphrase-"))


def duration(text: str) -> str | int:
    """Return keep_alive as Ollama reads it: "30m" as it is, a bare number as seconds."""
    return int(text) if text.strip().lstrip("-").isdigit() else text.strip()


class OllamaEngine:
    """One chat model of one Ollama."""

    name = "ollama"

    def __init__(
        self,
        *,
        model: str = "",
        url: str = "",
        api_key: str = "",
        context_tokens: int = 4096,
        keep_alive: str = "30m",
        think: bool = False,
        timeout_seconds: float = 120.0,
        **_: Any,
    ) -> None:
        where = wire.address(url, "engine.url", URL)
        self.model = model
        self.local = wire.is_loopback(where)
        self.context_tokens = context_tokens
        self._keep_alive = keep_alive
        self._think = think
        self._knows_think = True
        self._server = wire.Server("Ollama", where, MEND, api_key, timeout_seconds)
        self._clients = wire.Clients(self._server)

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield text deltas, then one chunk with usage. Raises ModelMissingError, ModelDownError.

        Closing the iterator early closes the connection, at which Ollama stops generating.
        """
        import httpx

        started = time.perf_counter()
        first_ms = 0.0
        try:
            await self._choose()
            reply = await self._send(messages, options)
            try:
                async for line in wire.lines(reply):
                    if not line.strip():
                        continue
                    piece, text = self._read(line)
                    if text:
                        first_ms = first_ms or (time.perf_counter() - started) * 1000
                        yield Chunk(text=text)
                    if piece.get("done"):
                        yield Chunk(usage=self._usage(piece, started, first_ms))
                        return
            finally:
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._server.down(error) from error
        except ValueError as error:
            raise self._server.nonsense(str(error)) from error
        raise self._server.cut()

    async def _send(self, messages: Sequence[ChatMessage], options: Options) -> httpx.Response:
        """Start the answer. A model that cannot think is asked again without that field."""
        client = self._clients.get()
        while True:
            body = self._body(messages, options)
            request = client.build_request("POST", f"{self._server.url}/api/chat", json=body)
            reply = await client.send(request, stream=True)
            if reply.status_code == 200:
                return reply
            said = (await reply.aread()).decode(errors="replace")
            await reply.aclose()
            if reply.status_code == 400 and "think" in said and self._knows_think:
                self._knows_think = False
                continue
            raise self._error(reply.status_code, said, reply.headers.get("retry-after", ""))

    def _body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        given = {
            "num_ctx": self.context_tokens,
            "num_predict": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "stop": list(options.stop) or None,
        }
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "keep_alive": duration(self._keep_alive),
            "options": {name: value for name, value in given.items() if value is not None},
        }
        if self._knows_think:
            body["think"] = self._think or options.think
        if options.json_schema is not None:
            body["format"] = dict(options.json_schema)
        return body

    def _read(self, line: str) -> tuple[Mapping[str, Any], str]:
        try:
            piece = json.loads(line)
            if "error" not in piece:
                return piece, str((piece.get("message") or {}).get("content") or "")
        except (ValueError, AttributeError, TypeError) as error:
            raise self._server.nonsense(line) from error
        raise ModelDownError(
            f"Ollama gave up: {self._server.hidden(wire.said_in(line))}",
            "Ask again; `ollama ps` shows what is loaded.",
        )

    def _usage(self, piece: Mapping[str, Any], started: float, first_ms: float) -> Usage:
        total_ms = (time.perf_counter() - started) * 1000
        return Usage(
            model=str(piece.get("model") or self.model),
            prompt_tokens=int(piece.get("prompt_eval_count") or 0),
            answer_tokens=int(piece.get("eval_count") or 0),
            first_token_ms=first_ms or total_ms,
            total_ms=total_ms,
            finish="length" if piece.get("done_reason") == "length" else "stop",
        )

    def _error(self, status: int, body: str, retry_after: str = "") -> ModelError:
        if status == 404 and "model" in wire.said_in(body).lower():
            return missing(self.model)
        if status == 404:
            return ModelDownError(
                f"What answers at {self._server.url} is not Ollama (404).", "Mend engine.url."
            )
        return self._server.refused(status, body, retry_after)

    async def _choose(self) -> None:
        """Take the newest chat model, where the settings name none."""
        if self.model:
            return
        names = [name for name in await self._names() if not is_embedding(name)]
        if not names:
            raise ModelMissingError(
                f"Ollama at {self._server.url} has no chat model.", "Get one: ollama pull qwen3:4b"
            )
        self.model = names[0]

    async def _names(self) -> list[str]:
        """Return the models it has, the newest first."""
        reply = await self._clients.get().get(f"{self._server.url}/api/tags")
        if reply.status_code != 200:
            raise self._error(reply.status_code, reply.text)
        try:
            return [str(entry["name"]) for entry in reply.json()["models"]]
        except (ValueError, KeyError, TypeError) as error:
            raise self._server.nonsense(reply.text) from error

    def count_tokens(self, text: str) -> int:
        """Estimate: Ollama has no tokenizer to ask."""
        return wire.estimate_tokens(text)

    async def health(self) -> str:
        """Return "" when it can answer, else one sentence with the mend."""
        import httpx

        try:
            reply = await self._clients.get().get(f"{self._server.url}/api/version")
            if reply.status_code != 200:
                return str(self._error(reply.status_code, reply.text))
            await self._choose()
            names = await self._names()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(self._server.down(error))
        except ModelError as error:
            return str(error)
        return "" if {self.model, f"{self.model}:latest"} & set(names) else str(missing(self.model))

    async def aclose(self) -> None:
        """Close the connections. The model stays loaded for ``keep_alive``."""
        await self._clients.aclose()


def missing(model: str) -> ModelMissingError:
    """Say that Ollama does not have the model."""
    return ModelMissingError(f"Ollama has no model {model!r}.", f"Get it: ollama pull {model}")
