"""A model that Ollama serves: /api/chat, streamed.

Promises: ``num_ctx`` is always the same, since another value makes Ollama load the model again;
thinking is off unless asked for, and never part of the answer; the model stays loaded for
``keep_alive``; a missing model names the command that gets it. What OpenAI's form calls otherwise
is translated; what has no counterpart (``tool_choice: required``) is left out.
Refuses to know: what is asked. Without a model's name it takes the newest chat model there is.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from knowme import wire
from knowme.engines import form, toolform
from knowme.errors import KnowmeError, ModelDownError, ModelError, ModelMissingError
from knowme.llama import NoRoomError
from knowme.types import ChatMessage, Chunk, Options, ToolCall, ToolDelta, Usage

if TYPE_CHECKING:
    import httpx

    from knowme.seams import Gate

URL = "http://127.0.0.1:11434"
MEND = "Start it: ollama serve"
LOAD_SECONDS = 300.0
"""How long Ollama may take to load a model; it gives up by itself after five minutes."""

# Not num_ctx, num_gpu and their like: another value makes Ollama load the model again.
_WHOLE = {"top_k": "top_k", "repeat_last_n": "repeat_last_n", "mirostat": "mirostat"}
_WHOLE |= {"num_keep": "num_keep", "n_keep": "num_keep", "max_completion_tokens": "num_predict"}
_NUMBERS = {
    name: name
    for name in (
        "min_p",
        "typical_p",
        "presence_penalty",
        "frequency_penalty",
        "repeat_penalty",
        "mirostat_tau",
        "mirostat_eta",
    )
} | {"repetition_penalty": "repeat_penalty"}


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
    own_process = False  # Ollama keeps the model, also after us

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
        local: str = "auto",
        gate: Gate | None = None,
        **_: Any,
    ) -> None:
        where = wire.address(url, "engine.url", URL)
        self.model = model
        server = wire.Server("Ollama", where, MEND, api_key, timeout_seconds, gate, local)
        self.local = server.is_local
        self.context_tokens = context_tokens
        self._keep_alive = keep_alive
        self._think = think
        self._knows_think = True
        self._server = server
        self._clients = wire.Clients(server)

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield the answer's pieces, then one chunk with usage. Raises ModelError.

        Closing the iterator early closes the connection, at which Ollama stops generating.
        """
        import httpx

        answer = form.Answer(self.model)
        try:
            await self._choose()
            reply = await self._send(messages, options)
            try:
                lines = wire.lines(reply)
                async for line in lines:
                    if not line.strip():
                        continue
                    piece, chunk = self._read(line, answer)
                    if chunk is not None:
                        yield chunk
                    if piece.get("done"):
                        if rest := answer.rest():
                            yield rest
                        usage = self._usage(piece, answer, messages)
                        await wire.drain(lines)
                        yield Chunk(usage=usage)
                        return
            finally:
                await reply.aclose()
            raise self._server.cut()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise answer.reached(self._server.down(error)) from error
        except ValueError as error:
            raise answer.reached(self._server.nonsense(str(error))) from error
        except ModelError as error:
            raise answer.reached(error) from error.__cause__

    async def _send(self, messages: Sequence[ChatMessage], options: Options) -> httpx.Response:
        """Start the answer. A model that cannot think is asked again without that field."""
        client = self._clients.get()
        while True:
            body = self._body(messages, options)
            where = f"{self._server.url}/api/chat"
            request = client.build_request("POST", where, **wire.sendable(body))
            reply = await client.send(request, stream=True)
            if reply.status_code == 200:
                return reply
            try:
                said = (await reply.aread()).decode(errors="replace")
            finally:
                await reply.aclose()
            if reply.status_code == 400 and "think" in said and self._knows_think:
                self._knows_think = False
                continue
            raise self._error(reply.status_code, said, reply.headers.get("retry-after", ""))

    def _body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        given = {
            **translated(options.extra),
            "num_ctx": self.context_tokens,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "stop": list(options.stop) or None,
        }
        if options.max_tokens is not None:
            given["num_predict"] = options.max_tokens
        body: dict[str, Any] = {
            "model": self.model,
            "messages": _messages(messages),
            "stream": True,
            "keep_alive": duration(self._keep_alive),
            "options": {name: value for name, value in given.items() if value is not None},
        }
        if self._knows_think:
            body["think"] = self._think or options.think
        if options.json_schema is not None:
            body["format"] = dict(options.json_schema)
        elif options.json_object:
            body["format"] = "json"
        if functions := toolform.wanted(options):
            body["tools"] = [{"type": "function", "function": dict(f)} for f in functions]
        return body

    def _read(self, line: str, answer: form.Answer) -> tuple[Mapping[str, Any], Chunk | None]:
        try:
            piece = json.loads(line)
            if "error" not in piece:
                said = piece.get("message") or {}
                calls = said.get("tool_calls")
                return piece, answer.add(
                    str(said.get("content") or ""),
                    str(said.get("thinking") or ""),
                    _called(calls, answer) if calls else (),
                )
        except (ValueError, AttributeError, LookupError, TypeError) as error:
            raise self._server.nonsense(line) from error
        raise ModelDownError(
            f"Ollama gave up: {self._server.hidden(wire.said_in(line))}",
            "Ask again; `ollama ps` shows what is loaded.",
            reached="maybe",
        )

    def _usage(
        self, piece: Mapping[str, Any], answer: form.Answer, messages: Sequence[ChatMessage]
    ) -> Usage:
        answer.finish = str(piece.get("done_reason") or "stop")
        known = {
            "prompt_tokens": int(piece.get("prompt_eval_count") or 0),
            "answer_tokens": int(piece.get("eval_count") or 0),
        }
        return answer.usage(messages, str(piece.get("model") or self.model), **known)

    def _error(self, status: int, body: str, retry_after: str = "") -> ModelError:
        if status == 404 and "model" in wire.said_in(body).lower():
            return missing(self.model)
        if status == 404:
            return ModelDownError(
                f"What answers at {self._server.url} is not Ollama (404).", "Mend engine.url."
            )
        if "requires more system memory" in body:
            return NoRoomError(
                f"The model {self.model} does not fit: {self._server.hidden(wire.said_in(body))}",
                "Close something, lower its context_tokens, or take a smaller model.",
            )
        if form.BLIND.search(body):
            return form.blind(self.model, self._server.hidden(wire.said_in(body)))
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
        return [str(entry["name"]) for entry in await self._listed("/api/tags")]

    async def _listed(self, path: str) -> list[Mapping[str, Any]]:
        told = await self._ask(path)
        try:
            found = list(told["models"] or ())
            if all(isinstance(entry["name"], str) for entry in found):
                return found
        except (KeyError, TypeError):
            pass
        raise self._server.nonsense(json.dumps(told))

    async def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """GET, or POST a body, over a connection of its own: loading has a loop of its own."""
        import httpx

        url = self._server.url + path
        try:
            async with httpx.AsyncClient(**self._server.settings()) as client:
                if body is None:
                    reply = await client.get(url)
                else:
                    reply = await client.post(url, json=body, timeout=LOAD_SECONDS)
            if reply.status_code != 200:
                raise self._error(reply.status_code, reply.text)
            return reply.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._server.down(error) from error
        except ValueError as error:
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
        except KnowmeError as error:  # offline, or a ledger that cannot be written, too
            return str(error)
        return "" if {self.model, f"{self.model}:latest"} & set(names) else str(missing(self.model))

    async def load(self) -> None:
        """Have Ollama load the model, with the window that it is always asked with.

        Raises ModelMissingError, NoRoomError where Ollama says that it does not fit, ModelError.
        """
        kept = duration(self._keep_alive)
        if not str(kept).strip("0nuµmsh."):
            kept = "1m"  # with nothing at all this would unload it; the answer's own zero will
        await self._generate({"keep_alive": kept, "options": {"num_ctx": self.context_tokens}})

    async def unload(self) -> None:
        """Have Ollama free the model's memory. It is loaded again by the next question."""
        await self._generate({"keep_alive": 0})

    async def loaded(self) -> bool:
        """Tell whether Ollama has it in memory now, whoever asked for it."""
        return await self._entry("/api/ps") is not None

    async def memory_bytes(self) -> int:
        """Return what Ollama says that it holds; while it is not loaded, the size of its file."""
        entry = await self._entry("/api/ps") or await self._entry("/api/tags") or {}
        size = entry.get("size")
        return size if isinstance(size, int) else 0

    async def _generate(self, fields: Mapping[str, Any]) -> None:
        """Send what Ollama takes for a wish to load or to unload: a request without a prompt."""
        await self._choose()
        await self._ask("/api/generate", {"model": self.model, "stream": False, **fields})

    async def _entry(self, path: str) -> Mapping[str, Any] | None:
        """Return what a list of Ollama's says of our model, or None."""
        await self._choose()
        ours = {self.model, f"{self.model}:latest"}
        return next((entry for entry in await self._listed(path) if entry["name"] in ours), None)

    async def aclose(self) -> None:
        """Close the connections. The model stays loaded for ``keep_alive``."""
        await self._clients.aclose()


def translated(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of OpenAI-like servers under Ollama's names; others are left out."""
    found: dict[str, Any] = {}
    for name, value in extra.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name in _NUMBERS:
            found[_NUMBERS[name]] = value
        elif name in _WHOLE:
            found[_WHOLE[name]] = int(value)
    return found


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as Ollama writes them."""
    names: dict[str, str] = {}
    found = []
    for said in messages:
        body: dict[str, Any] = {"role": said.role, "content": said.content}
        if said.images:
            body["images"] = [_base64(url) for url in said.images]
        if said.tool_calls:
            names |= {call.id: call.name for call in said.tool_calls}
            body["tool_calls"] = [
                {"id": call.id, "function": {"name": call.name, "arguments": _object(call)}}
                for call in said.tool_calls
            ]
        if said.role == "tool":
            body["tool_call_id"] = said.tool_call_id
            body["tool_name"] = names.get(said.tool_call_id, "")
        found.append(body)
    return found


def _base64(url: str) -> str:
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise ModelError(
            f"Ollama takes pictures as data, and this is {url[:60]!r}.",
            "Send it as data:image/png;base64,...",
        )
    return data


def _object(call: ToolCall) -> dict[str, Any]:
    """Return a call's arguments as the object that Ollama wants."""
    try:
        found = json.loads(call.arguments or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ModelError(
            f"The arguments of the tool call {call.name!r} are no JSON object: "
            f"{call.arguments[:60]!r}."
        )
    return found


def _called(calls: Sequence[Mapping[str, Any]], answer: form.Answer) -> tuple[ToolDelta, ...]:
    """Return the calls of one piece, each whole; Ollama may number and name them, or not."""
    found = []
    for delta in form.tool_deltas(calls):
        answer.calls += 1
        identity = delta.id or f"call_{secrets.token_hex(8)}"
        arguments = delta.arguments or "{}"
        found.append(replace(delta, index=answer.calls - 1, id=identity, arguments=arguments))
    return tuple(found)


def missing(model: str) -> ModelMissingError:
    """Say that Ollama does not have the model."""
    return ModelMissingError(f"Ollama has no model {model!r}.", f"Get it: ollama pull {model}")
