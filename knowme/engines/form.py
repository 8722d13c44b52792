"""OpenAI's form of a chat: what is sent, and the pieces that come back. llama.cpp speaks it too.

Promises: each piece of a stream is looked at once; what a model thinks aloud is never part of its
answer, whether the server tells it apart or leaves it in <think> tags.
Refuses to know: addresses, connections, errors.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from knowme.errors import ModelError
from knowme.types import ChatMessage, Chunk, Options, ToolDelta, Usage
from knowme.wire import estimate_tokens

RESERVED = frozenset({"model", "messages", "prompt", "stream", "stream_options", "n"})
"""Fields that ``Options.extra`` may not set."""

BLIND = re.compile(
    r"(image|vision|multimodal).{0,60}(not support|unsupported)|not support.{0,40}(image|vision)"
    r"|missing data required for image",
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that a model has no eyes."""

_OPEN, _CLOSE = "<think>", "</think>"
_GIVEN = {"max_tokens", "temperature", "top_p", "seed"}


def message(said: ChatMessage) -> dict[str, Any]:
    """Return one message as OpenAI writes it; its content is in parts only where it has images."""
    found: dict[str, Any] = {"role": said.role, "content": said.content}
    if said.images:
        text = [{"type": "text", "text": said.content}] if said.content else []
        images = [{"type": "image_url", "image_url": {"url": url}} for url in said.images]
        found["content"] = [*text, *images]
    if said.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in said.tool_calls
        ]
        found["content"] = found["content"] or None
    if said.role == "tool":
        found["tool_call_id"] = said.tool_call_id
    return found


def fields(options: Options) -> dict[str, Any]:
    """Return what the options say, without messages; ``extra`` sets only what they leave open."""
    body = {name: value for name, value in options.extra.items() if name not in RESERVED}
    for name in _GIVEN:
        if (value := getattr(options, name)) is not None:
            body[name] = value
    if options.stop:
        body["stop"] = list(options.stop)
    if options.json_schema is not None:
        schema = {"name": "answer", "schema": dict(options.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif options.json_object:
        body["response_format"] = {"type": "json_object"}
    if options.tools:
        body["tools"] = [dict(tool) for tool in options.tools]
        if options.tool_choice is not None:
            body["tool_choice"] = options.tool_choice
    return body


def kwargs(body: Mapping[str, Any], think: bool) -> dict[str, Any]:
    """Return the variables of the chat template: thinking as wished, unless the caller says it."""
    given = body.get("chat_template_kwargs")
    return {"enable_thinking": think, **(given if isinstance(given, Mapping) else {})}


def estimate(messages: Iterable[ChatMessage]) -> int:
    """Estimate the tokens of a prompt, for a server that does not count."""
    return sum(estimate_tokens(said.content) + 4 for said in messages)


def blind(model: str, said: str = "") -> ModelError:
    """Return the error for a picture that is shown to a model without eyes."""
    said = f" ({said})" if said else ""
    return ModelError(
        f"The model {model or 'that answers'} cannot look at pictures{said}.",
        "Ask one that can, by its role (@vision), or set `images: true` only where it is so.",
    )


class Answer:
    """One answer while it comes: its pieces as chunks, then its usage."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.finish = ""
        self.began = False
        self._started = time.perf_counter()
        self._first_ms = 0.0
        self._thoughts = Thoughts()
        self.calls = 0
        self._said: list[str] = []  # for a server that does not count
        self._counted: Mapping[str, Any] = {}

    def take(self, piece: Mapping[str, Any]) -> Chunk | None:
        """Return what one event adds, or None.

        Raises AttributeError, LookupError, TypeError or ValueError for what is not of the form.
        """
        if usage := piece.get("usage"):
            usage.get("prompt_tokens")
            self._counted = usage
        choices = piece.get("choices")
        if not choices:
            return None
        choice = choices[0]
        if reason := choice.get("finish_reason"):
            self.finish = str(reason)
            self.model = str(piece.get("model") or self.model)
        delta = choice.get("delta")
        if not delta:
            return None
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        calls = delta.get("tool_calls")
        text = delta.get("content") or ""
        if not (isinstance(text, str) and isinstance(thought, str)):
            raise TypeError("content is no text")
        return self.add(text, thought, tuple(tool_deltas(calls)) if calls else ())

    def add(self, text: str, thought: str = "", calls: tuple[ToolDelta, ...] = ()) -> Chunk | None:
        """Return the chunk of these parts, or None where there is nothing in them."""
        if not self._thoughts.over:
            text, more = self._thoughts.feed(text)
            thought += more
        if not (text or calls or thought):
            return None
        if not self.began:
            self.began = True
            self._first_ms = (time.perf_counter() - self._started) * 1000
        self.calls = max(self.calls, len(calls))
        self._said.append(text or thought)
        return Chunk(text=text, tool_calls=calls, reasoning=thought)

    def rest(self) -> Chunk | None:
        """Return what was held back in the hope of a tag, at the end of the stream."""
        text, thought = self._thoughts.end()
        return Chunk(text=text, reasoning=thought) if text or thought else None

    def reached(self, error: ModelError) -> ModelError:
        """Return the error, knowing whether the answer had begun."""
        if self.began:
            error.reached = "yes"
        return error

    def usage(self, messages: Sequence[ChatMessage], model: str = "", **known: Any) -> Usage:
        """Return what it cost; estimated where the server does not say."""
        total_ms = (time.perf_counter() - self._started) * 1000
        told = self._counted
        prompt, spent = told.get("prompt_tokens"), told.get("completion_tokens")
        cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens")
        finish = "length" if self.finish == "length" else "stop"
        if self.calls and finish == "stop":
            finish = "tool_calls"
        found: dict[str, Any] = {
            "prompt_tokens": estimate(messages) if prompt is None else int(prompt),
            "cached_tokens": int(cached or 0),
            "answer_tokens": (
                estimate_tokens("".join(self._said)) if spent is None else int(spent)
            ),
            "first_token_ms": self._first_ms or total_ms,
            "total_ms": total_ms,
            "finish": finish,
        }
        return Usage(model=model or self.model, **{**found, **known})


def tool_deltas(calls: Sequence[Mapping[str, Any]]) -> Iterable[ToolDelta]:
    """Yield the pieces of tool calls that one event holds."""
    for place, call in enumerate(calls):
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):  # some servers send the object itself
            arguments = json.dumps(arguments, ensure_ascii=False)
        index = call.get("index")
        yield ToolDelta(
            index=place if index is None else int(index),
            id=str(call.get("id") or ""),
            name=str(function.get("name") or ""),
            arguments=arguments,
        )


class Thoughts:
    """Tells <think>...</think> at the very start of an answer from the answer.

    ``over`` is True as soon as nothing more can be thought: then nobody need ask.
    """

    def __init__(self) -> None:
        self.over = False
        self._inside = False
        self._thought_of = False
        self._held = ""

    def feed(self, piece: str) -> tuple[str, str]:
        """Return (text, thought) of one more piece; what may be half a tag is held back."""
        self._held += piece
        if self._inside:
            return self._thought()
        return self._after() if self._thought_of else self._begin()

    def end(self) -> tuple[str, str]:
        """Return what is still held, as (text, thought)."""
        held, self._held = self._held, ""
        return ("", held) if self._inside else (held, "")

    def _begin(self) -> tuple[str, str]:
        bare = self._held.lstrip()
        if bare.startswith(_OPEN):
            self._inside, self._held = True, bare[len(_OPEN) :]
            return self._thought()
        if not _OPEN.startswith(bare):
            self.over = True
            return self.end()
        # Nothing but white space says nothing yet, and is the answer's own if no tag follows.
        return "", ""

    def _after(self) -> tuple[str, str]:
        text, self._held = self._held.lstrip(), ""
        self.over = bool(text)
        return text, ""

    def _thought(self) -> tuple[str, str]:
        thought, found, text = self._held.partition(_CLOSE)
        if found:
            self._inside, self._thought_of, self._held = False, True, text
            return self._after()[0], thought
        kept = next((n for n in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:n])), 0)
        self._held = thought[len(thought) - kept :]
        return "", thought[: len(thought) - kept]
