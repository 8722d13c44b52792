"""OpenAI's API: /v1/chat/completions, /v1/embeddings, /v1/models.

Promises: the official client works with base_url=.../v1 and the token as its api_key. The model
`knowme` answers with memory, routing and all, and tells beside the answer which model it was
(``knowme`` in the body, x-knowme-* in the headers); any other model's name, or role, goes straight
through. Each piece of a stream is one line of JSON, made once.
Refuses to know: how an answer comes about (``relay.py``).
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from knowme.errors import ModelMissingError
from knowme.home import Home
from knowme.types import Chunk, ToolDelta, Usage
from knowme.web.client_shapes import (
    OpenAIChatBody,
    OpenAIEmbedBody,
    Wanted,
    openai_chat,
    texts_of,
)
from knowme.web.forms import openai_late
from knowme.web.lines import ByteStream
from knowme.web.problems import FieldError, Json, to_json
from knowme.web.relay import NAME, Told, find_role, is_knowme, relay
from knowme.web.routes import NEVER, OTHERS, service_of, takes
from knowme.web.shapes import checked, read_object
from knowme.web.stream import MEDIA_TYPE, while_here
from knowme.web.work import Service
from knowme.wire import estimate_tokens

router = APIRouter(prefix="/v1")

V1_ERRORS: dict[int | str, dict[str, Any]] = {
    **OTHERS,
    429: {"description": "Too much is asked at once, of us or of the model's server"},
}
SESSION_HEADER = "x-knowme-session"
DONE = b"data: [DONE]\n\n"
BEAT = b": still here\n\n"


@router.post(
    "/chat/completions",
    responses=V1_ERRORS,
    openapi_extra=takes(
        OpenAIChatBody,
        {"model": "knowme", "messages": [{"role": "user", "content": "What did I decide?"}]},
    ),
    summary="OpenAI: answer a chat",
)
async def chat_completions(request: Request) -> Response:
    """Answer as OpenAI's chat completions do.

    The model `knowme` searches memory for the last message and is routed; its answer carries
    knowme: {model, role, reason, receipt_id, session_id}. The name of a role or of a model goes
    straight to that model, without memory. The header x-knowme-session names the conversation,
    where the client has a name for it. Errors are in OpenAI's form: {"error": {"message", "type",
    "param", "code"}}.
    """
    service = service_of(request)
    wanted = openai_chat(await read_object(request), request.headers.get(SESSION_HEADER, "")[:1000])
    told = Told(wanted.model)
    chunks = relay(service, wanted, told)
    if wanted.stream:
        return ByteStream(
            _lines(chunks, wanted, told),
            service.stopping,
            media_type=MEDIA_TYPE,
            late=openai_late,
            headers=told.headers,
            beat=BEAT,
        )
    whole = await while_here(_whole(chunks, wanted, told), request.receive, service.stopping)
    return Json(whole, headers=told.headers())


def _head(kind: str, wanted: Wanted) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": wanted.model,
    }


async def _lines(
    chunks: AsyncGenerator[Chunk, None], wanted: Wanted, told: Told
) -> AsyncGenerator[bytes, None]:
    """Yield the events of a stream; the role and the first piece go out together."""
    head = to_json(_head("chat.completion.chunk", wanted))[:-1]
    before = f'data: {head},"choices":[{{"index":0,"delta":'.encode()
    after = b',"finish_reason":null}]}\n\n'
    opening = before + b'{"role":"assistant","content":""}' + after
    quoted = json.dumps
    async with aclosing(chunks):
        async for chunk in chunks:
            text = chunk.text
            if text and not chunk.tool_calls:
                # No surrogate can stand in ASCII, and it is the fastest that json has.
                yield opening + before + b'{"content":' + quoted(text).encode() + b"}" + after
            elif chunk.usage is None:
                delta = to_json(_delta(chunk)).encode("utf-8", "replace")
                yield opening + before + delta + after
            else:
                continue
            opening = b""
    yield opening + _ending(head, wanted, told)


def _ending(head: str, wanted: Wanted, told: Told) -> bytes:
    """Return the last chunk, the one with the usage where it is wanted, and the end."""
    last: dict[str, Any] = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": told.usage.finish}]
    }
    if is_knowme(wanted.model):
        last["knowme"] = told.about()
    told_last = f"data: {head},{to_json(last)[1:]}\n\n"
    if wanted.usage:
        usage = to_json({"choices": [], "usage": usage_json(told.usage)})
        told_last += f"data: {head},{usage[1:]}\n\n"
    return told_last.encode("utf-8", "replace") + DONE


def _delta(chunk: Chunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.text:
        delta["content"] = chunk.text
    if chunk.reasoning:
        delta["reasoning_content"] = chunk.reasoning
    if chunk.tool_calls:
        delta["tool_calls"] = [_tool_delta(each) for each in chunk.tool_calls]
    return delta


def _tool_delta(piece: ToolDelta) -> dict[str, Any]:
    """Return a piece of a call; its id and type go with its first piece only, as OpenAI's do."""
    function = {"name": piece.name} if piece.name else {}
    told: dict[str, Any] = {
        "index": piece.index,
        "function": {**function, "arguments": piece.arguments},
    }
    return {**told, "id": piece.id, "type": "function"} if piece.id else told


async def _whole(chunks: AsyncGenerator[Chunk, None], wanted: Wanted, told: Told) -> dict[str, Any]:
    """Return the whole answer as one chat.completion."""
    gathered = await gather(chunks)
    message: dict[str, Any] = {"role": "assistant", "content": gathered.text}
    if told.answer is not None:
        message["content"] = told.answer
    if gathered.reasoning:
        message["reasoning_content"] = gathered.reasoning
    if gathered.tool_calls:
        message["tool_calls"] = gathered.tool_calls
        message["content"] = message["content"] or None
    whole = {
        **_head("chat.completion", wanted),
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": told.usage.finish,
            }
        ],
        "usage": usage_json(told.usage),
    }
    return {**whole, "knowme": told.about()} if is_knowme(wanted.model) else whole


class Gathered:
    """A whole answer, put together from its pieces."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.tool_calls: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        """What was thought aloud."""
        return "".join(self.thoughts)

    def take(self, chunk: Chunk) -> None:
        """Add a piece."""
        self.texts.append(chunk.text)
        self.thoughts.append(chunk.reasoning)
        for piece in chunk.tool_calls:
            while len(self.tool_calls) <= piece.index:
                function = {"name": "", "arguments": ""}
                self.tool_calls.append({"id": "", "type": "function", "function": function})
            call = self.tool_calls[piece.index]
            call["id"] = call["id"] or piece.id
            call["function"]["name"] += piece.name
            call["function"]["arguments"] += piece.arguments


async def gather(chunks: AsyncGenerator[Chunk, None]) -> Gathered:
    """Return all the pieces of an answer together."""
    gathered = Gathered()
    async with aclosing(chunks):
        async for chunk in chunks:
            gathered.take(chunk)
    return gathered


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return a usage as OpenAI tells it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.answer_tokens,
        "total_tokens": usage.prompt_tokens + usage.answer_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


# --- embeddings ---------------------------------------------------------------------------------


@router.post(
    "/embeddings",
    responses=V1_ERRORS,
    openapi_extra=takes(OpenAIEmbedBody, {"model": "knowme", "input": ["The heat pump"]}),
    summary="OpenAI: embed texts",
)
async def embeddings(request: Request) -> Response:
    """Return the vector of each text, made by the configured embedder whatever the model's name.

    They have unit norm. Tokens instead of texts are refused, and so are other dimensions than the
    embedder's.
    """
    service, body = service_of(request), checked(OpenAIEmbedBody, await read_object(request))
    texts = texts_of(body.input, "input", empty=False)
    vectors = await embed(service, texts, body.dimensions)
    data = [
        {
            "object": "embedding",
            "index": at,
            "embedding": _floats(row, body.encoding_format),
        }
        for at, row in enumerate(vectors)
    ]
    count = sum(estimate_tokens(text) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return Json({"object": "list", "data": data, "model": body.model, "usage": usage})


async def embed(service: Service, texts: Sequence[str], dimensions: int | None) -> Any:
    """Return an array (len(texts), dims), float32. Raises ModelMissingError, FieldError."""
    vectors = await service.reads.run(_embed, service.home, texts, dimensions)
    return vectors


def _embed(home: Home, texts: Sequence[str], dimensions: int | None) -> Any:
    embedder = home.embedder
    if embedder is None:
        raise ModelMissingError(
            "There is no embedder (embedder.kind: none).", "knowme config set embedder.kind auto"
        )
    if dimensions not in (None, embedder.dims):
        raise FieldError(
            f"dimensions must be {embedder.dims}, those of {embedder.fingerprint}; it was "
            f"{dimensions}.",
            "Leave it out.",
            "dimensions",
        )
    return embedder.embed(texts, "document")


def _floats(row: Any, form: str | None) -> Any:
    if form == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return row.tolist()


# --- models -------------------------------------------------------------------------------------


@router.get("/models", responses=V1_ERRORS, summary="OpenAI: list the models")
async def list_models(request: Request) -> Response:
    """Return `knowme` and every configured model, by its name (or its role, where it has none)."""
    home = service_of(request).home
    return Json({"object": "list", "data": [_model(home, name) for name in names(home)]})


@router.get(
    "/models/{name:path}",
    responses={**V1_ERRORS, 422: NEVER},
    summary="OpenAI: one model",
)
async def one_model(request: Request, name: str) -> Response:
    """Return a model by its name or its role."""
    home = service_of(request).home
    if not is_knowme(name):
        find_role(home, name)
    return Json(_model(home, name))


def names(home: Home) -> list[str]:
    """Return what a client may call: knowme, then each model by its name, else by its role."""
    states = home.models.states()
    models = [state.model for state in states]
    named = [
        state.model if state.model and models.count(state.model) == 1 else state.role
        for state in states
    ]
    return [NAME, *(name for name in dict.fromkeys(named) if name != NAME)]


def _model(home: Home, name: str) -> Mapping[str, Any]:
    told: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "knowme"}
    if is_knowme(name):
        return told
    role = find_role(home, name)
    state = home.models.state(role)
    return {**told, "owned_by": state.engine, "knowme": asdict(state)}
