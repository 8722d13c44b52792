"""A model behind any OpenAI-compatible server: {url}/chat/completions, streamed (SSE).

Promises: works with llama.cpp, vLLM, LM Studio and OpenAI itself; a parameter that the server does
not know is renamed or left out, once, and remembered; the API key stands in no error; ``local`` is
True only for an address of this machine, or for one that the settings call local; a server that is
still loading its model is waited for, where it is local.
Refuses to know: what is asked, and what it costs.

Tokens are counted by llama.cpp's /tokenize where a server on this machine has it, else estimated.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from knowme import wire
from knowme.engines import form
from knowme.errors import (
    ConfigError,
    KnowmeError,
    ModelDownError,
    ModelError,
    ModelMissingError,
    TooLongError,
)
from knowme.types import ChatMessage, Chunk, Options

if TYPE_CHECKING:
    import httpx

    from knowme.seams import Gate

MEND = "Start it, or mend engine.url: knowme config set engine.url URL"
RENAMED = {"max_tokens": "max_completion_tokens"}
OPTIONAL = (
    "chat_template_kwargs",
    "stream_options",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "max_tokens",
)
_LOADING = re.compile(r"loading model|model is loading", re.IGNORECASE)
_COMPLAINT = re.compile(
    r"param|support|recogni|unknown|unexpected|extra|permitted|allowed|invalid", re.IGNORECASE
)
_UNKNOWN = re.compile(
    r"\bmodel\b.{0,120}(not found|does not exist|not available)|(invalid|unknown) model",
    re.IGNORECASE | re.DOTALL,
)


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
        think: bool = False,
        local: str = "auto",
        gate: Gate | None = None,
        **_: Any,
    ) -> None:
        where = wire.address(url, "engine.url")
        server = wire.Server("The model server", where, MEND, api_key, timeout_seconds, gate, local)
        self.local = server.is_local
        if not model and not self.local:
            raise ConfigError(
                "engine.model is empty, and a server elsewhere offers many.",
                "Name one: knowme config set engine.model NAME",
            )
        self.model = model
        self.context_tokens = context_tokens
        self._think = think
        self._server = server
        self._clients = wire.Clients(server)
        self._without: dict[str, str] = {}
        self._tokenizes = self.local
        self._count = lru_cache(maxsize=4096)(self._ask_count)

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield the answer's pieces, then one chunk with usage. Raises ModelError.

        Closing the iterator early closes the connection, at which the server stops generating.
        """
        import httpx

        answer = form.Answer(self.model)
        try:
            await self._choose()
            reply = await self._send(messages, options)
            try:
                async for chunk in self._chunks(wire.lines(reply), answer):
                    yield chunk
            finally:
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise answer.reached(self._server.down(error)) from error
        except ValueError as error:
            raise answer.reached(self._server.nonsense(str(error))) from error
        except ModelError as error:
            raise answer.reached(error) from error.__cause__
        yield Chunk(usage=answer.usage(messages, _plain(answer.model) or self.model))

    async def _chunks(self, lines: AsyncIterator[str], answer: form.Answer) -> AsyncIterator[Chunk]:
        """Yield what the events of one stream bring. Raises ModelDownError for its bad ends."""
        strange = ""
        async for line in lines:
            field, _, event = line.partition(":")
            if field not in ("data", "error"):  # comments and the like
                strange = strange or (line if field not in ("", "event", "id", "retry") else "")
                continue
            event = event.strip()
            if event == "[DONE]":
                answer.finish = answer.finish or "stop"
                await wire.drain(lines)
                break
            if event and (chunk := self._read(event, answer)) is not None:
                yield chunk
        if not answer.finish:
            broken = strange and not answer.began
            raise self._server.nonsense(strange) if broken else self._server.cut()
        if rest := answer.rest():
            yield rest

    async def _send(self, messages: Sequence[ChatMessage], options: Options) -> httpx.Response:
        """Start the answer; adapt to a server that does not know a parameter.

        A local one that is still loading its model is waited for.
        """
        client = self._clients.get()
        where = f"{self._server.url}/chat/completions"
        until = time.monotonic() + self._server.timeout_seconds
        pause = 0.2
        while True:
            body = self._body(messages, options)
            request = client.build_request("POST", where, **wire.sendable(body))
            reply = await client.send(request, stream=True)
            if reply.status_code == 200:
                return reply
            try:
                said = (await reply.aread()).decode(errors="replace")
            finally:
                await reply.aclose()
            if reply.status_code in (400, 422) and self._adapted(body, wire.said_in(said)):
                continue
            loading = self.local and reply.status_code == 503 and _LOADING.search(said)
            if not loading:
                retry_after = reply.headers.get("retry-after", "")
                raise await self._error(reply.status_code, said, retry_after)
            if time.monotonic() + pause > until:
                raise ModelDownError(
                    f"{self._server.name} at {self._server.url} is still loading its model after "
                    f"{self._server.timeout_seconds:g} seconds.",
                    "Ask again, or raise timeout_seconds.",
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 2.0)

    def _body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        body = form.fields(options)
        if self.local:  # servers of one's own know it; others refuse what they do not know
            body["chat_template_kwargs"] = form.kwargs(body, self._think or options.think)
        body["model"] = self.model or "default"
        body["messages"] = [form.message(said) for said in messages]
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        for name, instead in self._without.items():
            value = body.pop(name, None)
            if instead and value is not None:
                body[instead] = value
        return body

    def _adapted(self, body: Mapping[str, Any], said: str) -> bool:
        """Note which parameter the server complains of. False when there is nothing to change."""
        if not _COMPLAINT.search(said):
            return False
        for name in OPTIONAL:
            if name in body and name in said and name not in self._without:
                instead = RENAMED.get(name, "")
                self._without[name] = instead if instead in said else ""
                return True
        return False

    def _read(self, event: str, answer: form.Answer) -> Chunk | None:
        try:
            piece = json.loads(event)
            if not (piece.get("error") or ("message" in piece and "choices" not in piece)):
                return answer.take(piece)
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            raise self._server.nonsense(event) from error
        raise ModelDownError(
            f"The model server gave up: {self._server.hidden(wire.said_in(event))}",
            "Ask again.",
            reached="maybe",
        )

    async def _error(self, status: int, body: str, retry_after: str) -> ModelError:
        said = self._server.hidden(wire.said_in(body))
        if status == 404 or (status == 400 and _UNKNOWN.search(said)):
            names = await self._names()
            offers = f" It offers: {', '.join(names[:12])}." if names else ""
            return ModelMissingError(
                f"The model server at {self._server.url} has no {self.model!r} ({status}: {said})."
                f"{offers}",
                "Set the right one: knowme config set engine.model NAME (or engine.url URL), or "
                "mend the model's entry under `models`",
            )
        if form.BLIND.search(said):
            return form.blind(self.model, said)
        if status in (400, 413) and "context" in said.lower():
            return TooLongError(
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
            self.model = _plain(next(iter(await self._names()), ""))

    def count_tokens(self, text: str) -> int:
        """Count with the server's tokenizer (llama.cpp's /tokenize), else estimate."""
        if not text:
            return 0
        found = self._count(text) if self._tokenizes else None
        return wire.estimate_tokens(text) if found is None else found

    def _ask_count(self, text: str) -> int | None:
        import httpx

        where = self._server.url.removesuffix("/v1") + "/tokenize"
        try:
            reply = self._clients.blocking().post(
                where, timeout=2.0, **wire.sendable({"content": text})
            )
            return len(reply.json()["tokens"])
        except (ModelError, httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            self._tokenizes = False
            return None

    async def health(self) -> str:
        """Return "" when it can answer, else one sentence with the mend."""
        import httpx

        try:
            reply = await self._clients.get().get(f"{self._server.url}/models")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(self._server.down(error))
        except KnowmeError as error:  # offline, or a ledger that cannot be written
            return str(error)
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
