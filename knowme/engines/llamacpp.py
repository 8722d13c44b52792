"""The embedded engine: a GGUF chat model in a llama.cpp process of ours.

Promises: nothing is loaded before the first question; closing a stream stops the generation; a
worker that was killed is started again by the next question; llama.cpp's own errors do not escape.
Refuses to know: how the process lives (``llama.py``), where models come from (``modelstore.py``).
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowme import llama, modelstore
from knowme.errors import ModelError
from knowme.types import ChatMessage, Chunk, Options, Usage

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class LlamaCppEngine:
    """A chat model on this machine. ``parameters`` is how many weights it has.

    ``model`` is a packaged model's name or the path of a GGUF, "" the default; ``model_path``
    overrides it. ``keep_alive`` ("30m", "0" or "-1" for always) is how long an idle model keeps
    its memory. A base model, one without a chat template, is given a plain dialogue to continue.

    Raises ModelMissingError when the model is not there, ModelError when the file is no GGUF.
    """

    name = "llamacpp"
    local = True

    def __init__(
        self,
        *,
        model: str = "",
        context_tokens: int = 4096,
        threads: int = 0,
        memory_mb: int = 0,
        keep_alive: str = "30m",
        think: bool = False,
        timeout_seconds: float = 120.0,
        model_path: Path | None = None,
        **_: Any,
    ) -> None:
        path = model_path or modelstore.find(model, "chat")
        header = llama.read_header(path)
        if header.pooling:
            raise ModelError(
                f"{path.name} is an embedding model and cannot answer.",
                f"Set engine.model to a chat model, such as {modelstore.DEFAULT_CHAT}.",
            )
        self.model = str(modelstore.manifest(path).get("name") or path.stem)
        self.parameters = header.parameters
        trained = header.number("context_length")
        self.context_tokens = min(context_tokens, trained) if trained else context_tokens
        self._think = think
        self._timeout_seconds = timeout_seconds
        self._plain = not header.chat_template
        self._spec = llama.Spec(
            path=path,
            context_tokens=self.context_tokens,
            threads=threads,
            memory_mb=memory_mb,
            idle_seconds=_seconds(keep_alive),
        )
        self._held: llama.Worker | None = None
        self._counts = lru_cache(maxsize=4096)(self._count)

    @property
    def worker(self) -> llama.Worker:
        """The process that does the work; it starts with the first request."""
        if self._held is None:
            self._held = llama.acquire(self._spec)
        return self._held

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield text deltas, then one chunk with the usage. Closing it stops the generation.

        Raises ModelDownError when the process dies or falls silent, ModelError when the prompt is
        longer than the window or the JSON schema is not one.
        """
        began = time.monotonic()
        path = "/completion" if self._plain else "/v1/chat/completions"
        body = self._plain_body(messages, options) if self._plain else self._body(messages, options)
        first_ms = 0.0
        read = _read_plain if self._plain else _read_chat
        usage: dict[str, Any] = {"finish": "stop"}
        events = llama.stream(self.worker, path, body, self._timeout_seconds)
        try:
            async for event in events:
                text = read(event, usage)
                if text:
                    first_ms = first_ms or (time.monotonic() - began) * 1000
                    yield Chunk(text=text)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        total_ms = (time.monotonic() - began) * 1000
        yield Chunk(
            usage=Usage(model=self.model, first_token_ms=first_ms, total_ms=total_ms, **usage)
        )

    def count_tokens(self, text: str) -> int:
        """Count with the model's own tokenizer; the first call starts the process (a second).

        An estimate, never too low by much, while the model is down.
        """
        return self._counts(text) if text else 0

    def _count(self, text: str) -> int:
        try:
            answer = self.worker.call("/tokenize", {"content": text, "add_special": False})
        except ModelError:
            return max(1, len(text.encode("utf-8", "replace")) // 3)
        return len(answer["tokens"])

    async def health(self) -> str:
        """Return "" when it can answer, else one sentence with the mend. Starts nothing."""
        from importlib.util import find_spec

        if find_spec("xllamacpp") is None:
            return "The embedded model needs xllamacpp. Run: pip install 'knowme[local]'"
        try:
            if self.worker.pid is None:
                llama.check_memory(self._spec)
        except ModelError as error:
            return str(error)
        return ""

    async def aclose(self) -> None:
        """Free the model and its process."""
        held, self._held = self._held, None
        if held is not None:
            llama.release(held)

    # --- the wire --------------------------------------------------------------------------------

    def _body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        body = _sampling(options)
        body["messages"] = [{"role": m.role, "content": _clean(m.content)} for m in messages]
        body["stream_options"] = {"include_usage": True}
        body["chat_template_kwargs"] = {"enable_thinking": self._think or options.think}
        if options.max_tokens is not None:
            body["max_tokens"] = options.max_tokens
        if options.json_schema is not None:
            schema = {"name": "answer", "schema": dict(options.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _plain_body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        body = _sampling(options)
        body["prompt"] = plain_prompt(messages)
        body["stop"] = [*body.get("stop", ()), "\nQuestion:"]
        if options.max_tokens is not None:
            body["n_predict"] = options.max_tokens
        if options.json_schema is not None:
            body["json_schema"] = dict(options.json_schema)
        return body


def plain_prompt(messages: Sequence[ChatMessage]) -> str:
    """Return a dialogue for a model that only continues text."""
    said = {"system": "", "user": "Question: ", "assistant": "Answer: "}
    lines = [said[m.role] + _clean(m.content).strip() for m in messages]
    return "\n\n".join([*lines, "Answer:"])


def _sampling(options: Options) -> dict[str, Any]:
    body: dict[str, Any] = {"stream": True, "cache_prompt": True}
    for key in ("temperature", "top_p", "seed"):
        value = getattr(options, key)
        if value is not None:
            body[key] = value
    if options.stop:
        body["stop"] = list(options.stop)
    return body


def _read_chat(event: Mapping[str, Any], usage: dict[str, Any]) -> str:
    if event.get("usage"):
        told = event["usage"]
        usage["prompt_tokens"] = told["prompt_tokens"]
        usage["answer_tokens"] = told["completion_tokens"]
        details = told.get("prompt_tokens_details") or {}
        usage["cached_tokens"] = details.get("cached_tokens", 0)
    for choice in event.get("choices", ()):
        if choice.get("finish_reason"):
            usage["finish"] = "length" if choice["finish_reason"] == "length" else "stop"
        return str(choice["delta"].get("content") or "")
    return ""


def _read_plain(event: Mapping[str, Any], usage: dict[str, Any]) -> str:
    if event.get("stop"):
        usage["prompt_tokens"] = event.get("tokens_evaluated", 0)
        usage["answer_tokens"] = event.get("tokens_predicted", 0)
        usage["cached_tokens"] = event.get("timings", {}).get("cache_n", 0)
        usage["finish"] = "length" if event.get("stop_type") == "limit" else "stop"
    return str(event.get("content") or "")


def _clean(text: str) -> str:
    """Replace what UTF-8 cannot say (half a surrogate pair): llama.cpp refuses it as JSON."""
    return text.encode("utf-8", "replace").decode()


def _seconds(keep_alive: str) -> int:
    match = re.fullmatch(r"(\d+)([smh]?)", keep_alive.strip())
    return int(match[1]) * _UNITS[match[2]] if match else 0
