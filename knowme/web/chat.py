"""Our own chat: /api/chat and its sessions, what routes and rates an answer, what left the machine.

Promises: one answer at a time in a conversation, the others wait; leaving, or /api/chat/cancel,
stops the model, and what was said is kept. POST /api/chat takes Ollama's body too (it has
``messages``) and answers it in Ollama's form.
Refuses to know: how an answer comes about, how a router weighs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from knowme import egress, sessions
from knowme.ask import Asked, Delta, Done, Started, Switched, preview
from knowme.errors import NotFoundError
from knowme.home import Home
from knowme.receipts import rate
from knowme.route import explain
from knowme.stats import last_receipt, last_used, llm_stats
from knowme.steering import steer
from knowme.web.chat_shapes import (
    AgainBody,
    CancelBody,
    CancelShape,
    ChatBody,
    ChatShape,
    ClassifyShape,
    MessageBody,
    RateBody,
    RateShape,
    picture,
    route_json,
    started_json,
    switched_json,
)
from knowme.web.ollama import answer_chat
from knowme.web.problems import FieldError, Json
from knowme.web.relay import is_knowme
from knowme.web.routes import ASKING, ERRORS, service_of, takes
from knowme.web.shapes import (
    ErrorShape,
    checked,
    hit_json,
    parse_when,
    plain,
    read,
    read_object,
    usage_json,
)
from knowme.web.stream import EventStream, Piece, while_here
from knowme.web.work import Service, Stopped, since

router = APIRouter()

NO_MODEL: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    404: {"model": ErrorShape, "description": "There is no such model or conversation"},
}
LISTING = {
    **ASKING,
    422: {"model": ErrorShape, "description": "A parameter is of the wrong kind"},
}
MOST = 500


# --- answers ------------------------------------------------------------------------------------


@router.post(
    "/api/chat",
    response_model=ChatShape,
    responses=NO_MODEL,
    openapi_extra=takes(
        ChatBody, {"message": "The heat pump comes in October.", "session_id": "kitchen"}
    ),
    summary="Say something in a conversation",
)
async def chat(request: Request) -> Response:
    """Recall, choose a model, answer.

    With stream: true the answer comes as server-sent events: start {session_id, model, role,
    engine, route, known, sources}, delta {text} again and again, switched {role, model, reason,
    restart} when another model takes over (restart: what came before counts for nothing), done
    (the whole), or error {error, hint, status}. Leaving in the middle stops the model; what was
    said is kept. In a conversation answers come one after the other. A body with `messages` is
    Ollama's, and is answered in Ollama's form.
    """
    given = await read_object(request)
    if "messages" in given and "message" not in given:
        return await answer_chat(request, given)
    body = checked(ChatBody, given)
    asked = Asked(
        body.message,
        conversation=body.session_id or "",
        surface="api",
        model="" if body.model is None or is_knowme(body.model) else body.model,
        images=tuple(picture(each, f"images[{at}]") for at, each in enumerate(body.images)),
        temperature=body.temperature,
        max_tokens=body.max_tokens,
        system_prompt=body.system_prompt or "",
    )
    return await _answer(request, asked, bool(body.stream))


@router.post(
    "/api/chat/again",
    response_model=ChatShape,
    responses=NO_MODEL,
    openapi_extra=takes(AgainBody, {"session_id": "kitchen", "how": "regenerate"}),
    summary="Ask the last question once more",
)
async def again(request: Request) -> Response:
    """Replace the last answer of a conversation by another one, or by the stronger model's.

    The router learns from it: the last answer was not good enough.
    """
    body = await read(request, AgainBody)
    asked = Asked("", conversation=body.session_id, surface="api", again=body.how)
    return await _answer(request, asked, bool(body.stream))


async def _answer(request: Request, asked: Asked, stream: bool) -> Response:
    service = service_of(request)
    if stream:
        return EventStream(_pieces(service, asked), service.stopping)
    whole = _whole(service, asked)
    return Json(await while_here(whole, request.receive, service.stopping))


async def _pieces(service: Service, asked: Asked) -> AsyncGenerator[Piece, None]:
    """Yield start, delta ..., switched ..., done."""
    began: dict[str, Any] = {}
    async with aclosing(service.ask(asked)) as events:
        async for event in events:
            if isinstance(event, Started):
                began = started_json(event, [hit_json(hit) for hit in event.sources])
                yield "start", began
            elif isinstance(event, Delta):
                yield "delta", {"text": event.text, **_calls(event)}
            elif isinstance(event, Switched):
                took_over = switched_json(event)
                began.update({name: took_over[name] for name in ("role", "model", "engine")})
                began["note"] = event.reason
                yield "switched", took_over
            else:
                if isinstance(event, Done) and began["note"]:  # those of another model
                    began["sources"] = [hit_json(hit) for hit in event.sources]
                yield "done", {**began, **(_stopped(event) if isinstance(event, Stopped) else
                                           _done(event))}  # fmt: skip


def _calls(event: Delta) -> dict[str, Any]:
    return {"tool_calls": [asdict(each) for each in event.tool_calls]} if event.tool_calls else {}


def _done(event: Done) -> dict[str, Any]:
    return {
        "answer": event.answer,
        "model": event.model,
        "role": event.role,
        "known": event.known,
        "usage": usage_json(event.usage),
        "cost": event.cost,
        "receipt_id": event.receipt_id,
        "cancelled": False,
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in event.tool_calls
        ],
    }


def _stopped(event: Stopped) -> dict[str, Any]:
    return {
        "session_id": event.conversation,
        "answer": event.answer,
        "usage": None,
        "cost": 0.0,
        "receipt_id": event.receipt_id,
        "cancelled": True,
        "tool_calls": [],
    }


async def _whole(service: Service, asked: Asked) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    async with aclosing(_pieces(service, asked)) as pieces:
        async for name, data in pieces:
            if name in ("start", "done"):
                whole.update(data)
    return whole


@router.post(
    "/api/chat/cancel",
    response_model=CancelShape,
    responses=ERRORS,
    openapi_extra=takes(CancelBody, {"session_id": "kitchen"}),
    summary="Stop a running answer",
)
async def cancel(request: Request) -> Response:
    """Stop the running answer of a conversation; whoever reads it gets done with cancelled."""
    body = await read(request, CancelBody)
    stopped = service_of(request).cancel(body.session_id)
    return Json({"session_id": body.session_id, "cancelled": stopped})


# --- sessions -----------------------------------------------------------------------------------


@router.get("/api/sessions", responses=LISTING, summary="List the conversations")
async def list_sessions(request: Request, limit: str = "50", before: str = "") -> Response:
    """Return the conversations held here, the last used first: {sessions: [...], next}.

    limit: at most so many (500). before: only those last used before this one (a session's id), or
    before this time (ISO 8601, or ms since 1970). next: what to send as before for more, or null.
    """
    service, many = service_of(request), _limit(limit)

    def listed() -> list[Any]:
        with service.home.db.read() as conn:
            at_ms = last_used(conn, before) if before else None
            if at_ms is None:
                at_ms = parse_when(before, "before")
            return sessions.listed(conn, many, at_ms)

    found = await service.reads.run(listed)
    more = found[-1]["id"] if len(found) == many else None
    return Json({"sessions": plain(found), "next": more})


@router.get(
    "/api/sessions/{session_id:path}",
    responses={**LISTING, 404: {"model": ErrorShape, "description": "No such conversation"}},
    summary="One conversation",
)
async def one_session(request: Request, session_id: str) -> Response:
    """Return a conversation with its messages, and who answered them."""
    service = service_of(request)

    def detail() -> Any:
        with service.home.db.read() as conn:
            return sessions.detail(conn, session_id)

    return Json(plain(await service.reads.run(detail)))


def _limit(value: str, name: str = "limit") -> int:
    if not (value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= MOST):
        raise FieldError(
            f"{name} must be a whole number from 1 to {MOST}; it was {value[:20]!r}.",
            "Send one, or leave it out.", name,
        )  # fmt: skip
    return int(value)


# --- routing ------------------------------------------------------------------------------------


@router.get("/route", responses=LISTING, summary="Explain which model would answer")
async def explain_get(request: Request, message: str = "") -> Response:
    """Return the decision for a message without asking any model; see POST /route."""
    body = checked(MessageBody, {"message": message})
    service = service_of(request)
    return Json(await service.reads.run(_explained, service.home, body.message))


@router.post(
    "/route",
    responses=ERRORS,
    openapi_extra=takes(MessageBody, {"message": "Write a function that sorts a list."}),
    summary="Explain which model would answer",
)
async def explain_post(request: Request) -> Response:
    """Return the decision for a message without asking any model.

    {route, explained: lines for a person, role, classes: what memory would stand in the prompt,
    tokens, bytes, cost, took_ms}.
    """
    service, body = service_of(request), await read(request, MessageBody)
    return Json(await service.reads.run(_explained, service.home, body.message))


def _explained(home: Home, message: str) -> dict[str, Any]:
    began = time.perf_counter()
    seen = preview(home, Asked(message))
    return {
        "route": route_json(seen.route),
        "explained": explain(seen.route),
        "role": seen.role,
        "url": seen.url,
        "classes": dict(seen.classes),
        "withheld": [asdict(each) for each in seen.withheld],
        "tokens": seen.tokens,
        "bytes": seen.bytes,
        "cost": seen.cost,
        "took_ms": since(began),
    }


@router.post(
    "/classify",
    response_model=ClassifyShape,
    responses=ERRORS,
    openapi_extra=takes(MessageBody, {"message": "I prefer tea in the morning."}),
    summary="Tell personal from complex",
)
async def classify(request: Request) -> Response:
    """Tell what kind of message it is, by the same code that routes it; no model call by default.

    took_ms is everything: recall, the embedding, and the decision.
    """
    service, body = service_of(request), await read(request, MessageBody)
    return Json(await service.reads.run(_classified, service.home, body.message))


def _classified(home: Home, message: str) -> dict[str, Any]:
    began = time.perf_counter()
    intent = steer(home, Asked(message), "").intent
    return {
        "category": intent.category,
        "confidence": intent.confidence,
        "probability": intent.probability,
        "reason": intent.reason,
        "took_ms": since(began),
    }


@router.post(
    "/rate",
    response_model=RateShape,
    responses={**ERRORS, 404: {"model": ErrorShape, "description": "No such answer"}},
    openapi_extra=takes(RateBody, {"session_id": "kitchen", "rating": "up"}),
    summary="Say what you think of an answer",
)
async def rate_answer(request: Request) -> Response:
    """Keep a rating of an answer; the router learns from it."""
    service, body = service_of(request), await read(request, RateBody)
    body.check()
    return Json(await service.writes.run(_rated, service.home, body))


def _rated(home: Home, body: RateBody) -> dict[str, Any]:
    number = body.receipt_id
    if number is None:
        with home.db.read() as conn:
            number = last_receipt(conn, body.session_id or "")
    if number is None:
        raise NotFoundError(
            f"The conversation {body.session_id!r} has no answer.", "See: GET /api/sessions"
        )
    if body.better is not None:  # first: it is refused where there is nothing to compare with
        rate(home, str(number), "better", body.better)
    if body.rating is not None:
        rating = str(body.rating)
        kept = (rating, "") if rating in ("up", "down") else ("rating", rating)
        rate(home, str(number), *kept)
    return {"receipt_id": number, "rating": body.rating, "better": body.better}


# --- what it cost, what left --------------------------------------------------------------------


@router.get("/api/llm/stats", responses=LISTING, summary="What the models did and cost")
async def model_stats(request: Request, days: str = "30") -> Response:
    """Return calls, tokens and cost by model and by what chose it, and the cloud's share by day.

    Also: the share of prompt tokens that came from a cache, prefix tokens restored with a model,
    mean and p95 time of loading one. days: how far back (at most 500).
    """
    service, many = service_of(request), _limit(days, "days")
    await service.noted()
    return Json(await service.reads.run(llm_stats, service.home, many))


@router.get("/egress", responses=LISTING, summary="What left this machine")
async def list_egress(request: Request, limit: str = "50", since: str = "") -> Response:
    """Return what was sent beyond this machine, the newest first: {egress: [...]}.

    limit: at most so many (500); since: not before this time.
    """
    service, many, at_ms = service_of(request), _limit(limit), parse_when(since, "since")

    def listed() -> list[Any]:
        with service.home.db.read() as conn:
            return egress.listed(conn, many, at_ms)

    return Json({"egress": plain(await service.reads.run(listed))})


@router.get(
    "/egress/{row:int}",
    responses={**LISTING, 404: {"model": ErrorShape, "description": "No such row"}},
    summary="What was sent, word for word",
)
async def one_egress(request: Request, row: int) -> Response:
    """Return one row of what left, with its body (secrets masked; null where it was not kept)."""
    service = service_of(request)

    def shown() -> dict[str, Any]:
        with service.home.db.read() as conn:
            told = egress.detail(conn, row)
            return {**told, "body": egress.body(conn, row) if told["kept"] else None}

    return Json(plain(await service.reads.run(shown)))
