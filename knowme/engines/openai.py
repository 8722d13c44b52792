"""A model behind any OpenAI-compatible server: {url}/chat/completions, streamed (SSE).

Promises: works with llama.cpp, vLLM, LM Studio and OpenAI itself; a parameter that the server does
not know is renamed or left out, once, and remembered; the API key stands in no error; ``local`` is
True only for an address of this machine.
Refuses to know: what is asked, and what it costs.

Tokens are counted by llama.cpp's /tokenize where a server on this machine has it, else estimated.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from knowme import wire
from knowme.errors import ConfigError, ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Chunk, Options, Usage

if TYPE_CHECKING:
    import httpx

MEND = "Start it, or mend engine.url: knowme config set engine.url URL"
RENAMED = {"max_tokens": "max_completion_tokens"}
OPTIONAL = ("stream_options", "temperature", "top_p", "seed", "stop", "max_tokens")


class OpenAIEngine:
    """One chat model behind one base URL."""

    name = "openai"

    def __init__(
        self,
        *,
        model: str = "",
        url: str = "",
        api_key: str = "",
        context_tokens: int = 4096,
        timeout_seconds: float = 120.0,
        **_: Any,
    ) -> None:
        where = wire.address(url, "engine.url")
        self.local = wire.is_loopback(where)
        if not model and not self.local:
            raise ConfigError(
                "engine.model is empty, and a server elsewhere offers many.",
                "Name one: knowme config set engine.model NAME",
            )
        self.model = model
        self.context_tokens = context_tokens
        self._server = wire.Server("The model server", where, MEND, api_key, timeout_seconds)
        self._clients = wire.Clients(self._server)
        self._without: dict[str, str] = {}
        self._tokenizes = self.local
        self._count = lru_cache(maxsize=4096)(self._ask_count)

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield text deltas, then one chunk with usage. Raises ModelMissingError, ModelDownError.

        Closing the iterator early closes the connection, at which the server stops generating.
        """
        import httpx

        answer = _Answer(self.model)
        try:
            await self._choose()
            reply = await self._send(messages, options)
            try:
                async for line in wire.lines(reply):
                    if not (event := self._event(line)):
                        continue
                    if event == "[DONE]":
                        break
                    if text := self._read(event, answer):
                        yield Chunk(text=text)
            finally:
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._server.down(error) from error
        except ValueError as error:
            raise self._server.nonsense(str(error)) from error
        if not answer.finish:
            raise self._server.cut()
        yield Chunk(usage=answer.usage(self.model, messages))

    async def _send(self, messages: Sequence[ChatMessage], options: Options) -> httpx.Response:
        """Start the answer; adapt to a server that does not know a parameter."""
        client = self._clients.get()
        while True:
            body = self._body(messages, options)
            where = f"{self._server.url}/chat/completions"
            reply = await client.send(client.build_request("POST", where, json=body), stream=True)
            if reply.status_code == 200:
                return reply
            said = (await reply.aread()).decode(errors="replace")
            await reply.aclose()
            if reply.status_code in (400, 422) and self._adapted(body, wire.said_in(said)):
                continue
            raise await self._error(reply.status_code, said, reply.headers.get("retry-after", ""))

    def _body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "stop": list(options.stop) or None,
        }
        if options.json_schema is not None:
            form = {"name": "answer", "schema": dict(options.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        for name, instead in self._without.items():
            value = body.pop(name, None)
            if instead:
                body[instead] = value
        return {name: value for name, value in body.items() if value is not None}

    def _adapted(self, body: Mapping[str, Any], said: str) -> bool:
        """Note which parameter the server complains of. False when there is nothing to change."""
        for name in OPTIONAL:
            if name in body and name in said and name not in self._without:
                instead = RENAMED.get(name, "")
                self._without[name] = instead if instead in said else ""
                return True
        return False

    @staticmethod
    def _event(line: str) -> str:
        """Return what one line of a server-sent event carries; "" for comments and the like."""
        field, _, value = line.partition(":")
        return value.strip() if field in ("data", "error") else ""

    def _read(self, event: str, answer: _Answer) -> str:
        try:
            piece = json.loads(event)
            if not (piece.get("error") or ("message" in piece and "choices" not in piece)):
                return answer.take(piece)
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            raise self._server.nonsense(event) from error
        raise ModelDownError(
            f"The model server gave up: {self._server.hidden(wire.said_in(event))}", "Ask again."
        )

    async def _error(self, status: int, body: str, retry_after: str) -> ModelError:
        said = self._server.hidden(wire.said_in(body))
        if status == 404:
            names = await self._names()
            offers = f" It offers: {', '.join(names[:12])}." if names else ""
            return ModelMissingError(
                f"The model server at {self._server.url} has no {self.model!r} (404: {said})."
                f"{offers}",
                "Set the right one: knowme config set engine.model NAME (or engine.url URL)",
            )
        if status in (400, 413) and "context" in said.lower():
            return ModelError(
                f"The prompt is longer than the model's window ({said}).",
                "Set the window that the server has: knowme config set engine.context_tokens N",
            )
        return self._server.refused(status, body, retry_after)

    async def _names(self) -> list[str]:
        """Return the models that the server offers; [] when it does not say."""
        import httpx

        try:
            reply = await self._clients.get().get(f"{self._server.url}/models")
            return [str(entry["id"]) for entry in reply.json()["data"]]
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return []

    async def _choose(self) -> None:
        """Take the first model of a server on this machine, where the settings name none."""
        if not self.model:
            self.model = _plain(next(iter(await self._names()), "")) or "default"

    def count_tokens(self, text: str) -> int:
        """Count with the server's tokenizer (llama.cpp's /tokenize), else estimate."""
        if not text:
            return 0
        found = self._count(text) if self._tokenizes else None
        return wire.estimate_tokens(text) if found is None else found

    def _ask_count(self, text: str) -> int | None:
        import httpx

        where = self._server.url.removesuffix("/v1") + "/tokenize"
        settings = {**self._server.settings(), "timeout": httpx.Timeout(2.0)}
        try:
            with httpx.Client(**settings) as client:
                reply = client.post(where, json={"content": text})
            return len(reply.json()["tokens"])
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            self._tokenizes = False
            return None

    async def health(self) -> str:
        """Return "" when it can answer, else one sentence with the mend."""
        import httpx

        try:
            reply = await self._clients.get().get(f"{self._server.url}/models")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(self._server.down(error))
        if reply.status_code in (404, 405):  # a server without a list: nothing more to know
            return ""
        if reply.status_code != 200:
            return str(self._server.refused(reply.status_code, reply.text))
        return ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()


def _plain(model: str) -> str:
    """Return the file's name where llama.cpp calls a model by its path (it ignores the name)."""
    return model.replace("\\", "/").rsplit("/", 1)[-1] if model.endswith(".gguf") else model


class _Answer:
    """What is known of one answer while it comes."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.finish = ""
        self.text: list[str] = []
        self.first_ms = 0.0
        self.counted: Mapping[str, Any] = {}
        self.cached = 0
        self.started = time.perf_counter()

    def take(self, piece: Mapping[str, Any]) -> str:
        """Note one piece of the stream and return its text."""
        self.model = str(piece.get("model") or self.model)
        if isinstance(usage := piece.get("usage"), dict):
            self.counted = usage
            self.cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        choices = piece.get("choices") or [{}]
        self.finish = str(choices[0].get("finish_reason") or self.finish)
        text = str((choices[0].get("delta") or {}).get("content") or "")
        if text:
            self.first_ms = self.first_ms or (time.perf_counter() - self.started) * 1000
            self.text.append(text)
        return text

    def usage(self, model: str, messages: Sequence[ChatMessage]) -> Usage:
        """Return what it cost; estimated where the server does not say."""
        count = wire.estimate_tokens
        total_ms = (time.perf_counter() - self.started) * 1000
        prompt, spent = self.counted.get("prompt_tokens"), self.counted.get("completion_tokens")
        return Usage(
            model=_plain(self.model) or model,
            prompt_tokens=int(prompt) if prompt else sum(count(m.content) for m in messages),
            cached_tokens=self.cached,
            answer_tokens=count("".join(self.text)) if spent is None else int(spent),
            first_token_ms=self.first_ms or total_ms,
            total_ms=total_ms,
            finish="length" if self.finish == "length" else "stop",
        )
