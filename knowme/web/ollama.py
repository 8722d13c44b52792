"""Ollama's API, at the root and, whole, under /ollama: chat, generate, embed, tags, show, ps.

Promises: a client of Ollama works with OLLAMA_HOST set to this service. /api/chat at the root is
also ours: a body with ``messages`` is Ollama's (``chat.py`` asks ``answer_chat``). Streams are
lines of JSON and are the default, as with Ollama; durations are nanoseconds. The model `knowme`
answers with memory and routing, any other goes straight through. What changes a server's models
(pull, create, delete ...) is not here.
Refuses to know: how an answer comes about (``relay.py``); keep_alive and num_ctx are settings.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse

import knowme
from knowme.home import Home
from knowme.types import Chunk, ModelState, Usage
from knowme.web.client_shapes import (
    OllamaEmbedBody,
    OllamaEmbeddingsBody,
    OllamaGenerateBody,
    OllamaShowBody,
    Wanted,
    ollama_chat,
    ollama_generate,
    texts_of,
)
from knowme.web.forms import ollama_late, ollama_problem
from knowme.web.lines import ByteStream
from knowme.web.openai import Gathered, embed, gather, names
from knowme.web.problems import Json, to_json
from knowme.web.relay import NAME, Told, find_role, is_knowme, relay
from knowme.web.routes import OTHERS, service_of, takes
from knowme.web.shapes import checked, read_object
from knowme.web.stream import while_here
from knowme.web.work import Service
from knowme.wire import estimate_tokens

router = APIRouter()
under_prefix = APIRouter(include_in_schema=False)

LEVEL = "0.12.6"
"""The version of Ollama whose API this is; clients look at it before they use what is newer."""
MEDIA_TYPE = "application/x-ndjson"
LONG = timedelta(days=36_500)


# --- answers ------------------------------------------------------------------------------------


@under_prefix.post("/api/chat")
async def chat(request: Request) -> Response:
    """Answer as Ollama's /api/chat does."""
    return await answer_chat(request, await read_object(request))


async def answer_chat(request: Request, body: Mapping[str, Any]) -> Response:
    """Answer a body of Ollama's /api/chat, errors in Ollama's form (whatever path it came by)."""
    try:
        return await _answer(request, ollama_chat(body))
    except Exception as error:
        return ollama_problem(error)


@router.post(
    "/api/generate",
    responses=OTHERS,
    openapi_extra=takes(
        OllamaGenerateBody, {"model": "knowme", "prompt": "What did I decide?", "stream": False}
    ),
    summary="Ollama: answer a prompt",
)
async def generate(request: Request) -> Response:
    """Answer as Ollama's /api/generate does: lines of JSON, or one object with stream: false.

    An empty prompt only loads the model. Raw prompts and suffixes are refused.
    """
    return await _answer(request, ollama_generate(await read_object(request)))


async def _answer(request: Request, wanted: Wanted) -> Response:
    service, told = service_of(request), Told(wanted.model)
    if not wanted.messages:
        return await _load(service, wanted)
    began = time.perf_counter_ns()
    chunks = relay(service, wanted, told)
    if wanted.stream:
        return ByteStream(
            _lines(chunks, wanted, told, began),
            service.stopping,
            media_type=MEDIA_TYPE,
            late=ollama_late,
            headers=told.headers,
        )
    work = _whole(chunks, wanted, told, began)
    whole = await while_here(work, request.receive, service.stopping)
    return Json(whole, headers=told.headers())


async def _load(service: Service, wanted: Wanted) -> Response:
    """Load a model, which is what Ollama does when there is nothing to answer."""
    models = service.home.models
    role = models.primary if is_knowme(wanted.model) else find_role(service.home, wanted.model)
    async with models.use(role):
        pass
    return Json({**_head(wanted), **_said(wanted, ""), "done": True, "done_reason": "load"})


def _head(wanted: Wanted) -> dict[str, Any]:
    return {"model": wanted.model, "created_at": _stamp()}


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _said(wanted: Wanted, text: str, **more: Any) -> dict[str, Any]:
    if wanted.kind == "generate":
        return {"response": text, **more}
    return {"message": {"role": "assistant", "content": text, **more}}


async def _lines(
    chunks: AsyncGenerator[Chunk, None], wanted: Wanted, told: Told, began: int
) -> AsyncGenerator[bytes, None]:
    """Yield one line a piece; calls of tools stand whole in a line of their own, as with Ollama."""
    gathered = Gathered()
    model = json.dumps(wanted.model)
    before, after = ('"response":', "") if wanted.kind == "generate" else (
        '"message":{"role":"assistant","content":', "}")  # fmt: skip
    head, tail = f'{{"model":{model},"created_at":"', f'{after},"done":false}}\n'
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.text:
                said = json.dumps(chunk.text)
                yield f'{head}{_stamp()}",{before}{said}{tail}'.encode()
            if chunk.reasoning:
                line = {**_head(wanted), **_said(wanted, "", thinking=chunk.reasoning)}
                yield _line({**line, "done": False})
            if chunk.tool_calls:
                gathered.take(chunk)
    if gathered.tool_calls:
        calls = _said(wanted, "", tool_calls=_calls(gathered))
        yield _line({**_head(wanted), **calls, "done": False})
    yield _line({**_head(wanted), **_said(wanted, ""), **_ending(wanted, told, began)})


def _line(told: Mapping[str, Any]) -> bytes:
    return f"{to_json(told)}\n".encode("utf-8", "replace")


async def _whole(
    chunks: AsyncGenerator[Chunk, None], wanted: Wanted, told: Told, began: int
) -> dict[str, Any]:
    gathered = await gather(chunks)
    text = gathered.text if told.answer is None else told.answer
    more: dict[str, Any] = {}
    if gathered.reasoning:
        more["thinking"] = gathered.reasoning
    if gathered.tool_calls:
        more["tool_calls"] = _calls(gathered)
    return {**_head(wanted), **_said(wanted, text, **more), **_ending(wanted, told, began)}


def _calls(gathered: Gathered) -> list[dict[str, Any]]:
    """Return calls of tools as Ollama writes them: the arguments are an object."""
    return [
        {"function": {"name": call["function"]["name"], "arguments": _arguments(call)}}
        for call in gathered.tool_calls
    ]


def _arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(call["function"]["arguments"] or "{}")
    except ValueError:  # the model wrote no JSON; what it wrote is not lost
        return {"arguments": call["function"]["arguments"]}
    return found if isinstance(found, dict) else {"arguments": found}


def _ending(wanted: Wanted, told: Told, began: int) -> dict[str, Any]:
    usage: Usage = told.usage
    total = time.perf_counter_ns() - began
    first, answered = int(usage.first_token_ms * 1e6), int(usage.total_ms * 1e6)
    ending = {
        "done": True,
        "done_reason": "length" if usage.finish == "length" else "stop",
        "total_duration": total,
        "load_duration": max(0, total - answered),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": first,
        "eval_count": usage.answer_tokens,
        "eval_duration": max(0, answered - first),
    }
    return {**ending, "knowme": told.about()} if is_knowme(wanted.model) else ending


# --- embeddings ---------------------------------------------------------------------------------


@router.post(
    "/api/embed",
    responses=OTHERS,
    openapi_extra=takes(OllamaEmbedBody, {"model": "knowme", "input": ["The heat pump"]}),
    summary="Ollama: embed texts",
)
async def embed_texts(request: Request) -> Response:
    """Return the vector of each text, made by the configured embedder whatever the model's name."""
    began = time.perf_counter_ns()
    body = checked(OllamaEmbedBody, await read_object(request))
    texts = texts_of(body.input, "input", empty=True)
    vectors = await embed(service_of(request), texts, body.dimensions)
    return Json(
        {
            "model": body.wanted,
            "embeddings": vectors.tolist(),
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": 0,
            "prompt_eval_count": sum(estimate_tokens(text) for text in texts),
        }
    )


@router.post(
    "/api/embeddings",
    responses=OTHERS,
    openapi_extra=takes(OllamaEmbeddingsBody, {"model": "knowme", "prompt": "The heat pump"}),
    summary="Ollama: embed one text, the older way",
)
async def embed_one(request: Request) -> Response:
    """Return the vector of one text."""
    body = checked(OllamaEmbeddingsBody, await read_object(request))
    assert body.wanted
    vectors = await embed(service_of(request), [body.prompt], None)
    return Json({"embedding": vectors[0].tolist()})


# --- models -------------------------------------------------------------------------------------


@router.get("/api/version", responses=OTHERS, summary="Ollama: its version")
async def version() -> Response:
    """Return the version of Ollama whose API this is, and our own."""
    return Json({"version": LEVEL, "knowme": knowme.__version__})


@router.get("/api/tags", responses=OTHERS, summary="Ollama: list the models")
async def tags(request: Request) -> Response:
    """Return `knowme` and every configured model."""
    home = service_of(request).home
    return Json({"models": [_tag(home, name) for name in names(home)]})


@router.get("/api/ps", responses=OTHERS, summary="Ollama: the models in memory")
async def loaded(request: Request) -> Response:
    """Return the models of this machine that are in its memory now."""
    home = service_of(request).home
    expires = f"{datetime.now(UTC) + LONG:%Y-%m-%dT%H:%M:%SZ}"
    here = [
        (name, state)
        for name in names(home)[1:]
        if (state := _state(home, name)).local and state.loaded
    ]
    return Json(
        {
            "models": [
                {
                    **_tag(home, name),
                    "expires_at": expires,
                    "size_vram": 0,
                    "context_length": state.context_tokens,
                }
                for name, state in here
            ]
        }
    )


@router.post(
    "/api/show",
    responses=OTHERS,
    openapi_extra=takes(OllamaShowBody, {"model": "knowme"}),
    summary="Ollama: one model",
)
async def show(request: Request) -> Response:
    """Return what is known of a model."""
    home = service_of(request).home
    name = checked(OllamaShowBody, await read_object(request)).wanted
    state = _state(home, name)
    family = _family(state)
    capabilities = ["completion"]
    states = home.models.states() if is_knowme(name) else (state,)
    capabilities += ["tools"] if any(each.tools for each in states) else []
    capabilities += ["vision"] if any(each.images for each in states) else []
    return Json(
        {
            "license": "",
            "modelfile": f"# {name}, served by knowme\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _details(state),
            "model_info": {
                "general.architecture": family,
                "general.parameter_count": state.parameters,
                f"{family}.context_length": state.context_tokens,
            },
            "capabilities": capabilities,
            "modified_at": _since(home),
        }
    )


def _state(home: Home, name: str) -> ModelState:
    """Return the model; for `knowme` the one that answers by default. Raises UnknownModelError."""
    role = home.models.primary if is_knowme(name) else find_role(home, name)
    return home.models.state(role)


def _tag(home: Home, name: str) -> dict[str, Any]:
    state = _state(home, name)
    tagged = name if ":" in name else f"{name}:latest"
    digest = hashlib.sha256(f"{name}\0{state.engine}\0{state.model}".encode()).hexdigest()
    return {
        "name": tagged,
        "model": tagged,
        "modified_at": _since(home),
        "size": 0,
        "digest": digest,
        "details": _details(state),
    }


def _details(state: ModelState) -> dict[str, Any]:
    many = state.parameters
    size = f"{many / 1e9:.1f}B" if many >= 1e9 else f"{many / 1e6:.0f}M" if many else ""
    return {
        "parent_model": "",
        "format": "gguf" if state.engine in ("llamacpp", "ollama") else state.engine,
        "family": _family(state),
        "families": [_family(state)],
        "parameter_size": size,
        "quantization_level": "",
    }


def _family(state: ModelState) -> str:
    return state.engine or NAME


def _since(home: Home) -> str:
    """Return when the settings were last written: a model's settings are as new as that."""
    try:
        at = (home.path / "config.yaml").stat().st_mtime
    except OSError:
        at = 0.0
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


# --- under the prefix ---------------------------------------------------------------------------


@under_prefix.api_route("/", methods=["GET", "HEAD"])
@under_prefix.api_route("", methods=["GET", "HEAD"])
async def running() -> Response:
    """Say what Ollama says: some clients look whether it is there."""
    return PlainTextResponse("Ollama is running")
