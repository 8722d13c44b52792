"""The echo engine: no model at all. It repeats the quoted notes of the prompt, and says so.

Promises: deterministic, local, instant; every answer begins by naming itself, so that nobody takes
it for a model. With it everything works on a machine that has no model, and in tests.
Refuses to know: what the notes and pictures mean. With ``json_schema`` it gives the smallest value
that fits; it calls a tool only where ``tool_choice`` says that it must, with the least arguments.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from knowme.engines import toolform
from knowme.types import ChatMessage, Chunk, Options, ToolDelta, Usage
from knowme.wire import estimate_tokens

LABEL = "This is the echo engine, without a model."
_NOTES = re.compile(r"<recalled>\n?(.*?)\n?</recalled>", re.DOTALL)


class EchoEngine:
    """Answers with what it was given."""

    name = "echo"
    local = True
    model = "echo"

    def __init__(self, *, context_tokens: int = 4096, **_: Any) -> None:
        self.context_tokens = context_tokens

    async def stream(
        self, messages: Sequence[ChatMessage], options: Options
    ) -> AsyncIterator[Chunk]:
        """Yield the answer word by word, or a tool call, then its usage. Never fails."""
        started = time.perf_counter()
        call = _call(messages, options)
        answer = "" if call else _formed(messages, options)
        pieces = re.findall(r"\s*\S+", answer)
        room = len(pieces) if options.max_tokens is None else options.max_tokens
        kept, finish = _until_stop("".join(pieces[:room]), options.stop)
        if finish != "stop" and room < len(pieces):
            finish = "length"
        first_ms = (time.perf_counter() - started) * 1000
        if call:
            finish = "tool_calls"
            yield Chunk(tool_calls=(call,))
        for piece in re.findall(r"\s*\S+|\s+$", kept):
            yield Chunk(text=piece)
        yield Chunk(
            usage=Usage(
                model=self.model,
                prompt_tokens=sum(self.count_tokens(message.content) for message in messages),
                answer_tokens=self.count_tokens(call.arguments if call else kept),
                first_token_ms=first_ms,
                total_ms=(time.perf_counter() - started) * 1000,
                finish=finish or "stop",
            )
        )

    def count_tokens(self, text: str) -> int:
        """Estimate, as for any model without a tokenizer at hand."""
        return estimate_tokens(text)

    async def health(self) -> str:
        """It can always answer."""
        return ""

    async def aclose(self) -> None:
        """Nothing to free."""


def _call(messages: Sequence[ChatMessage], options: Options) -> ToolDelta | None:
    """Return the call that must be made: of the first tool, until its result is there."""
    functions = toolform.wanted(options) if toolform.forced(options) else ()
    if not functions or (messages and messages[-1].role == "tool"):
        return None
    arguments = json.dumps(_smallest(functions[0].get("parameters") or {}), ensure_ascii=False)
    return ToolDelta(0, id="call_echo", name=str(functions[0].get("name")), arguments=arguments)


def _formed(messages: Sequence[ChatMessage], options: Options) -> str:
    if options.json_schema is not None:
        return json.dumps(_smallest(options.json_schema), ensure_ascii=False)
    answer = _answer(messages)
    return json.dumps({"answer": answer}, ensure_ascii=False) if options.json_object else answer


def _answer(messages: Sequence[ChatMessage]) -> str:
    if messages and messages[-1].role == "tool":
        return f"{LABEL} The tool said: {messages[-1].content.strip()}"
    said = next((m.content for m in reversed(messages) if m.role == "user"), "")
    notes = _NOTES.search(said) or _NOTES.search("\n".join(m.content for m in messages))
    if notes and notes.group(1).strip():
        return f"{LABEL} These are the words that it was given:\n{notes.group(1).strip()}"
    question = said.strip()
    pictures = sum(len(m.images) for m in messages)
    if pictures:
        question += f" (and {pictures} picture{'s' * (pictures > 1)})"
    return f"{LABEL} It was given no notes, only: {question}" if question else LABEL


def _until_stop(text: str, stop: Sequence[str]) -> tuple[str, str]:
    """Return the text before the first stop word, and "stop" if there was one."""
    ends = [at for word in stop if word and (at := text.find(word)) >= 0]
    return (text[: min(ends)], "stop") if ends else (text, "")


def _smallest(schema: Mapping[str, Any]) -> Any:
    """Return the smallest value of a plain JSON schema."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice):
            return _smallest(schema[choice][0])
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: _smallest(fields.get(name, {})) for name in schema.get("required", fields)}
    if kind == "array":
        return [_smallest(schema.get("items", {}))] * int(schema.get("minItems", 0))
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}.get(kind, "" if kind == "string" else None)
