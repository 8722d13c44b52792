"""The embedded engine: a GGUF chat model in a llama.cpp process of ours.

Promises: nothing is loaded before the first question; closing a stream stops the generation; a
worker that was killed is started again by the next question; llama.cpp's own errors do not escape;
a model whose template knows no tools calls them by a grammar (``toolform.py``), never silently not.
Refuses to know: how the process lives (``llama.py``), where models come from (``modelstore.py``).
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowme import llama, modelstore
from knowme.engines import form, prefix, toolform
from knowme.errors import ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Chunk, Options

_TOOLS = re.compile(r"\btools\b")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class LlamaCppEngine:
    """A chat model on this machine. ``parameters`` is how many weights it has.

    ``model`` is a packaged model's name or the path of a GGUF, "" the default; ``model_path``
    overrides it. ``keep_alive`` ("30m", "0" or "-1" for always) is how long an idle model keeps
    its memory. With a ``prefix_folder`` what it has read of a prompt is saved there by ``unload``
    and restored by ``load``; ``prefix_tokens`` is how many tokens the last of them did. A base
    model, one without a chat template, is given a plain dialogue to continue.

    ``adapter`` is a LoRA in GGUF that was trained on this model; each request applies it with
    ``adapter_scale`` (0: the model as it was, 1: as trained), or with what its options say:
    ``Options(extra={"adapter_scale": 0.5})``.

    Raises ModelMissingError when the model or the adapter is not there, ModelError when a file is
    no GGUF, or the adapter is of another kind of model.
    """

    name = "llamacpp"
    local = True
    own_process = True  # its memory is ours to free, and ends with us

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
        prefix_folder: Path | None = None,
        adapter: Path | None = None,
        adapter_scale: float = 1.0,
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
        self.adapter = None if adapter is None else _checked(adapter, path, header)
        self._scale = _scale(adapter_scale)
        trained = header.number("context_length")
        self.context_tokens = min(context_tokens, trained) if trained else context_tokens
        self._think = think
        self._timeout_seconds = timeout_seconds
        self._plain = not header.chat_template
        self._knows_tools = bool(_TOOLS.search(header.chat_template))
        self._spec = llama.Spec(
            path=path,
            context_tokens=self.context_tokens,
            threads=threads,
            memory_mb=memory_mb,
            idle_seconds=_seconds(keep_alive),
            prefix_folder=prefix_folder,
            adapters=() if adapter is None else (adapter,),
        )
        self.prefix_tokens = 0
        self._latest: Mapping[str, Any] = {}
        self._loaded_at = 0.0
        self._held: llama.Worker | None = None
        self._holding = threading.Lock()  # held twice, it would outlive us
        self._counts = lru_cache(maxsize=4096)(self._count)

    @property
    def worker(self) -> llama.Worker:
        """The process that does the work; it starts with the first request."""
        with self._holding:
            if self._held is None:
                self._held = llama.acquire(self._spec)
            return self._held

    def wear(self, adapter: Path | None) -> None:
        """Answer with this adapter from the next stream on; None: as the model came.

        What streams now is finished by the process that began it. Raises ModelMissingError,
        ModelError for a file that is no adapter of this model.
        """
        if adapter is not None:
            _checked(adapter, self._spec.path, llama.read_header(self._spec.path))
        with self._holding:
            self.adapter = adapter
            self._spec = replace(self._spec, adapters=() if adapter is None else (adapter,))
            held, self._held = self._held, None
            self._latest = {}
        if held is not None:
            llama.release(held)

    def _enter(self, body: dict[str, Any]) -> llama.Worker:
        """Return the process for one stream, which gives it back: `wear` does not end it before."""
        with self._holding:
            if self._held is None:
                self._held = llama.acquire(self._spec)
            if self.adapter is None:  # taken off since the body was made
                body.pop("lora", None)
            return llama.acquire(self._held.spec)

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield the answer's pieces, then one chunk with the usage. Closing it stops it.

        Raises ModelDownError when the process dies or falls silent, ModelError when the prompt is
        longer than the window, the JSON schema is not one, or a message holds a picture.
        """
        if any(said.images for said in messages):
            raise form.blind(self.model)
        reply = None
        # Where a tool must be called, llama.cpp's own form was seen not to see to it.
        if self._plain or not self._knows_tools or toolform.forced(options):
            if toolform.wanted(options):
                reply = toolform.Reply()
            messages, options = toolform.rewritten(messages, options)
        answer = form.Answer(self.model)
        path = "/completion" if self._plain else "/v1/chat/completions"
        body = self._plain_body(messages, options) if self._plain else self._body(messages, options)
        self._latest = body
        worker = self._enter(body)
        events = llama.stream(worker, path, body, self._timeout_seconds)
        try:
            async for event in events:
                chunk = self._take(event, answer)
                if chunk is not None and reply is not None:
                    chunk = replace(chunk, text=reply.feed(chunk.text))
                if chunk is not None and (chunk.text or chunk.tool_calls or chunk.reasoning):
                    yield chunk
        except ModelError as error:
            raise answer.reached(error) from error.__cause__
        finally:
            await events.aclose()  # type: ignore[attr-defined]
            llama.release(worker)
        for chunk in _rest(answer, reply):
            yield chunk
        yield Chunk(usage=answer.usage(messages, self.model))

    def _take(self, event: Mapping[str, Any], answer: form.Answer) -> Chunk | None:
        try:
            return answer.take(_as_chat(event) if self._plain else event)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ModelDownError(
                f"llama.cpp sent something unexpected: {str(event)[:200]}", reached="maybe"
            ) from error

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

    async def load(self) -> None:
        """Start the process, where none runs, and wait until it answers. Raises ModelError."""
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        self.prefix_tokens = 0
        if self.worker.pid is None:
            self._loaded_at = time.time()
            self.worker.address()
            lora = _lora(self._scale) if self.adapter else None
            self.prefix_tokens = prefix.restore(self.worker, lora)

    async def unload(self) -> None:
        """End the process. What it has read of the last prompt is saved before."""
        await asyncio.to_thread(self._unload)

    def _unload(self) -> None:
        forgotten = prefix.forgotten_since(self.worker, self._loaded_at)
        self.prefix_tokens = 0 if forgotten else prefix.save(self.worker, self._latest)
        self.worker.close()

    async def loaded(self) -> bool:
        """Tell whether its process runs."""
        return self.worker.pid is not None

    async def memory_bytes(self) -> int:
        """Return what its process holds; before there is one, the file and its window."""
        return self.worker.memory_bytes() or llama.needed_bytes(self._spec)

    @property
    def file(self) -> Path:
        """The model's file: two engines of one file, window and adapter share a process."""
        return self._spec.path

    async def aclose(self) -> None:
        """Free the model and its process."""
        with self._holding:
            held, self._held = self._held, None
        if held is not None:
            llama.release(held)

    # --- the wire --------------------------------------------------------------------------------

    def _body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        body = {"cache_prompt": True, "reasoning_format": "auto", **self._fields(options)}
        body["messages"] = [form.message(_cleaned(said)) for said in messages]
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        body["chat_template_kwargs"] = form.kwargs(body, self._think or options.think)
        return body

    def _fields(self, options: Options) -> dict[str, Any]:
        body = form.fields(options)
        scale = body.pop("adapter_scale", self._scale)
        if self.adapter is not None:
            # Always, also at 0: without it llama.cpp goes on from what it read under another scale.
            body["lora"] = _lora(_scale(scale))
        return body

    def _plain_body(self, messages: Sequence[ChatMessage], options: Options) -> dict[str, Any]:
        body = {"cache_prompt": True, **self._fields(options)}
        body["stream"] = True
        body["prompt"] = plain_prompt(messages)
        body["stop"] = [*body.get("stop", ()), "\nQuestion:"]
        body.pop("response_format", None)
        if "max_tokens" in body:
            body["n_predict"] = body.pop("max_tokens")
        if options.json_schema is not None:
            body["json_schema"] = dict(options.json_schema)
        elif options.json_object:
            body["json_schema"] = {"type": "object"}
        return body


def _checked(adapter: Path, model: Path, header: llama.Header) -> Path:
    """Return the adapter's path. Raises ModelMissingError, ModelError."""
    if not adapter.is_file():
        raise ModelMissingError(
            f"There is no adapter at {adapter}.", "Use another, or none: knowme learn rollback"
        )
    found = llama.read_header(adapter)
    if found.values.get("general.type") != "adapter":
        raise ModelError(f"{adapter} is no adapter.", "Make one: knowme learn export")
    if found.architecture != header.architecture:
        raise ModelError(
            f"The adapter {adapter} is for a model of kind {found.architecture}, and {model.name} "
            f"is of kind {header.architecture}.",
            "Use it with the model that it was trained on.",
        )
    return adapter


def _scale(value: object) -> float:
    """Return how strongly an adapter is applied. Raises ModelError for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(
            f"adapter_scale is {value!r}, and a number is needed.",
            "Use 0 (the model as it was) to 1 (the adapter as it was trained).",
        )
    return float(value)


def _lora(scale: float) -> list[dict[str, float]]:
    return [{"id": 0, "scale": scale}]


def plain_prompt(messages: Sequence[ChatMessage]) -> str:
    """Return a dialogue for a model that only continues text."""
    said = {"system": "", "user": prefix.QUESTION, "assistant": "Answer: "}
    lines = [said[m.role] + _clean(m.content).strip() for m in messages]
    return "\n\n".join([*lines, "Answer:"])


def _as_chat(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of /completion in the form of a chat's."""
    choice: dict[str, Any] = {"delta": {"content": event.get("content")}}
    found: dict[str, Any] = {"choices": [choice]}
    if event.get("stop"):
        choice["finish_reason"] = "length" if event.get("stop_type") == "limit" else "stop"
        found["usage"] = {
            "prompt_tokens": event.get("tokens_evaluated", 0),
            "completion_tokens": event.get("tokens_predicted", 0),
            "prompt_tokens_details": {"cached_tokens": event.get("timings", {}).get("cache_n", 0)},
        }
    return found


def _rest(answer: form.Answer, reply: toolform.Reply | None) -> list[Chunk]:
    """Return what was held back until the end."""
    found = []
    held = answer.rest()
    if held is not None:
        text = held.text if reply is None else reply.feed(held.text)
        found.append(replace(held, text=text))
    if reply is not None:
        text, calls = reply.end()
        answer.calls += len(calls)
        found.append(Chunk(text=text, tool_calls=calls))
    return [chunk for chunk in found if chunk.text or chunk.tool_calls or chunk.reasoning]


def _cleaned(said: ChatMessage) -> ChatMessage:
    clean = _clean(said.content)
    return said if clean == said.content else replace(said, content=clean)


def _clean(text: str) -> str:
    """Replace what UTF-8 cannot say (half a surrogate pair): llama.cpp refuses it as JSON."""
    return text.encode("utf-8", "replace").decode()


def _seconds(keep_alive: str) -> int:
    match = re.fullmatch(r"(\d+)([smh]?)", keep_alive.strip())
    return int(match[1]) * _UNITS[match[2]] if match else 0
