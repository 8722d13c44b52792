"""The HTTP service: /query /search /ingest /sync /stats /health /why, the pages, OpenAPI.

Chats, sessions, routing and ratings stand in ``web/chat.py``, OpenAI's API (/v1) in
``web/openai.py``, Ollama's (/api, and whole under /ollama) in ``web/ollama.py``.

Promises: what holds for every request stands in ``web/guard.py``, what goes over the wire in
``web/shapes.py``. /health answers at once, from the first moment. No search waits behind an ingest
or a sync: each kind of work has threads of its own and a queue that says 503 when it is full. A
client that leaves stops the answer it asked for; a sync it asked for goes on.
Refuses to know: how recall, answers or storage work.

Imported only by what serves: fastapi and uvicorn cost a quarter of a second.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

import knowme
from knowme.ask import Asked, why
from knowme.errors import NotFoundError
from knowme.home import Home
from knowme.stats import stats as count
from knowme.sync import ingest
from knowme.types import Query
from knowme.web import chat, ollama, openai, page, person
from knowme.web.forms import (
    OLLAMA,
    UnroutedError,
    is_ollama,
    is_openai,
    openai_error,
    problem_at,
)
from knowme.web.guard import Guard
from knowme.web.problems import Json
from knowme.web.routes import ASKING, ERRORS, service_of, takes
from knowme.web.server import Background, Listener, bind, check_exposure, signals, tell
from knowme.web.shapes import (
    AnswerShape,
    ErrorShape,
    HealthShape,
    IngestBody,
    IngestShape,
    QueryBody,
    SearchBody,
    SearchShape,
    StatsShape,
    SyncBody,
    SyncShape,
    hit_json,
    plain,
    read,
)
from knowme.web.stream import EventStream, while_here
from knowme.web.work import Service, since

ABOUT = """A private AI that learns one person, on that person's own machine.

Bodies are JSON (content-type: application/json). Every error is {"error": what happened, "hint": \
what mends it}; under /v1 it has OpenAI's form, on Ollama's paths Ollama's. Times are ISO 8601 (a \
time without a zone is taken as UTC; a date alone is its first moment, or its last where it ends a \
range) or milliseconds since 1970. Where a token is set (KNOWME_SERVICE_TOKEN), send the header \
"Authorization: Bearer TOKEN" with all but /health; it is also the api_key of OpenAI's clients.\
"""


# --- routes -------------------------------------------------------------------------------------

router = APIRouter()


@router.post(
    "/query",
    response_model=AnswerShape,
    responses=ERRORS,
    openapi_extra=takes(QueryBody, {"query": "What did I decide about the heating?"}),
    summary="Ask a question",
)
async def query(request: Request) -> Response:
    """Search, then let the model answer from what was found.

    With stream: true the answer comes as server-sent events: start {model, engine, role,
    conversation, known, sources}, delta {text} again and again, switched {model, reason, restart}
    when another model takes over (restart: what came before counts for nothing), done {answer,
    usage, receipt_id, ...}, or error {error, hint, status}. Leaving in the middle stops the model;
    what was said is kept.
    """
    service, body = service_of(request), await read(request, QueryBody)
    body.check()
    asked = Asked(
        body.query,
        conversation=body.conversation or "",
        surface="http",
        top_k=body.top_k,
        temperature=body.temperature,
        max_tokens=body.max_tokens,
        system_prompt=body.system_prompt or "",
        now_ms=body.now,
        since_ms=body.since,
        until_ms=body.until,
        sources=tuple(body.sources),
        speakers=tuple(body.speakers),
        conversations=tuple(body.conversations),
    )
    if body.stream:
        return EventStream(service.answer(asked), service.stopping)
    whole = service.answer_whole(asked)
    return Json(await while_here(whole, request.receive, service.stopping))


@router.post(
    "/search",
    response_model=SearchShape,
    responses=ERRORS,
    openapi_extra=takes(SearchBody, {"query": "heating", "top_k": 5, "since": "2026-01-01"}),
    summary="Recall, best first",
)
async def search(request: Request) -> Response:
    """Search words and meaning; no model is asked but for the query's embedding."""
    service, body = service_of(request), await read(request, SearchBody)
    body.check()
    settings = service.home.settings.search
    began = time.perf_counter()
    hits = await service.search(
        Query(
            body.query,
            top_k=body.top_k or settings.top_k,
            now_ms=body.now,
            since_ms=body.since,
            until_ms=body.until,
            kinds=tuple(body.kinds),
            sources=tuple(body.sources),
            speakers=tuple(body.speakers),
            conversations=tuple(body.conversations),
            budget_tokens=body.budget_tokens,
            neighbours=settings.neighbours if body.neighbours is None else body.neighbours,
        )
    )
    found = [hit_json(hit) for hit in hits]
    return Json({"results": found, "count": len(found), "took_ms": since(began)})


@router.post(
    "/ingest",
    response_model=IngestShape,
    responses=ERRORS,
    openapi_extra=takes(
        IngestBody,
        {
            "documents": ["The plumber comes on Friday at nine."],
            "ids": ["note-1"],
            "metadatas": [
                {"session": "kitchen", "speaker": "Ana", "timestamp": "2026-03-01T09:30"}
            ],
        },
    ),
    summary="Remember documents",
)
async def ingest_documents(request: Request) -> Response:
    """Store documents; they are on the disk and searchable when this returns.

    A document whose metadata carry session (or conversation), timestamp and speaker is a message of
    that conversation, in the order given. The same id again replaces the old text.
    """
    service, body = service_of(request), await read(request, IngestBody)
    body.check()
    metadatas = None if body.metadatas is None else [meta or {} for meta in body.metadatas]
    counts, total = await service.writes.run(
        ingest, service.home, body.documents, metadatas, body.ids
    )
    return Json(
        {
            "ingested": len(body.documents),
            "total": total,
            "new": counts.new,
            "changed": counts.changed,
            "unchanged": counts.unchanged,
        }
    )


@router.post(
    "/sync",
    response_model=SyncShape,
    responses={
        **ERRORS,
        404: {"model": ErrorShape, "description": "No such source"},
        409: {"model": ErrorShape, "description": "A sync is already running, or no source is set"},
    },
    openapi_extra=takes(SyncBody, {"only": ["openclaw"]}, needed=False),
    summary="Read the configured sources",
)
async def sync_sources(request: Request) -> Response:
    """Read what is new in every configured source, or in those named; the body may be empty.

    With stream: true progress comes as server-sent events: start, progress {source, read, new,
    ...}, done. A sync goes on when the client leaves, and never loses what it has stored.
    """
    service, body = service_of(request), await read(request, SyncBody, optional=True)
    if body.stream:
        return EventStream(service.sync_pieces(body.only), service.stopping)
    work = service.start_sync(body.only, lambda name, counts: None)
    return Json(await asyncio.wrap_future(work))


@router.get("/stats", response_model=StatsShape, responses=ASKING, summary="What memory holds")
async def stats(request: Request) -> Response:
    """Return counts of conversations, messages, items and answers, by source, and the parts."""
    service = service_of(request)
    told = await service.reads.run(count, service.home)
    return Json({**told, "parts": service.health.snapshot()["checks"]})


@router.get(
    "/why/{which}",
    responses={**ASKING, 404: {"model": ErrorShape, "description": "No such answer"}},
    summary="What an answer rested on",
)
async def why_answer(request: Request, which: str) -> Response:
    """Return the receipt of an answer: last, or its receipt_id."""
    if which != "last" and not (which.isascii() and which.isdecimal() and len(which) < 19):
        raise NotFoundError(
            f"{which[:40]!r} is not the number of an answer.", "Use a receipt_id, or: /why/last"
        )
    service = service_of(request)
    return Json(plain(await service.reads.run(why, service.home, which)))


@router.api_route("/health", methods=["HEAD"], include_in_schema=False)
@router.get(
    "/health", response_model=HealthShape, responses={421: ERRORS[421]}, summary="How it is"
)
async def health(request: Request) -> Response:
    """Return at once what the last background check saw. Needs no token; says less without one."""
    details = bool(request.scope.get("knowme.known", True))
    return Json(service_of(request).health.snapshot(details=details))


def _page(name: str) -> Response:
    html, policy = page(name)
    return Response(
        html, media_type="text/html; charset=utf-8", headers={"content-security-policy": policy}
    )


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def start_page() -> Response:
    """Say what this is. HEAD too: so Ollama's own command looks whether it is there."""
    return _page("start")


@router.get("/you", include_in_schema=False)
async def you_page() -> Response:
    """Show what is known of the person, and let them correct it."""
    return _page("you")


@router.get("/docs", include_in_schema=False)
async def docs_page() -> Response:
    """Draw /openapi.json for a person."""
    return _page("docs")


# --- the app ------------------------------------------------------------------------------------


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer what no route takes: an unknown path or method."""
    assert isinstance(error, HTTPException)
    path = repr(request.url.path[:80])
    said, mend = {
        404: (f"There is no {path} here.", "See /docs for what there is."),
        405: (
            f"{path} does not take {request.method}.",
            f"Use {(error.headers or {}).get('Allow', 'another method')}.",
        ),
    }.get(error.status_code, (str(error.detail), "See /docs."))
    told: dict[str, Any] = {"error": said, "hint": mend}
    if is_openai(request.url.path):
        told = openai_error(UnroutedError(said, mend, error.status_code))
    elif is_ollama(request.url.path):
        told = {"error": f"{said} {mend}"}
    return Json(told, status_code=error.status_code, headers=error.headers)


def _bare_app(**more: Any) -> FastAPI:
    if "telemetry" in inspect.signature(FastAPI).parameters:
        # Newer ones can send traces away when the environment says so. Nothing leaves from here.
        off = ("tracing", "metrics", "logs", "operation_spans", "auto_configure")
        more["telemetry"] = dict.fromkeys(off, False)
    app = FastAPI(
        title="knowme",
        version=knowme.__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        **more,
    )
    app.include_router(router)
    app.include_router(chat.router)
    app.include_router(person.router)
    app.include_router(openai.router)
    app.include_router(ollama.router)
    app.include_router(ollama.router, prefix=OLLAMA, include_in_schema=False)
    app.include_router(ollama.under_prefix, prefix=OLLAMA)
    app.add_exception_handler(HTTPException, _unknown)
    return app


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document; needs no home."""
    return _bare_app().openapi()


def create_app(home: Home, host: str = "127.0.0.1") -> FastAPI:
    """Return the app that serves ``home`` to whoever reaches ``host``. The caller closes the home.

    The parts warm up in the background when the app starts; until then /health says so.
    """
    service, settings = Service(home), home.settings.service

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = _bare_app(lifespan=lifespan)
    app.state.service = service
    app.add_middleware(
        Guard,
        listens_on=host,
        token=settings.token,
        allowed_hosts=settings.allowed_hosts,
        allowed_origins=settings.allowed_origins,
        max_body_bytes=settings.max_body_mb * 2**20,
        problem=problem_at,
    )
    return app


# --- the server ---------------------------------------------------------------------------------


class Server(Background):
    """The service in a thread of its own: what the daemon runs."""

    def __init__(self, home: Home, host: str, port: int) -> None:
        """Remember where to listen; nothing happens before ``start``."""
        super().__init__(lambda: make_server(home, host, port))


def make_server(home: Home, host: str, port: int) -> Listener:
    """Return a server that listens already and serves once it is run: ``server.run()``.

    Raises ConfigError when the address is taken, or lies beyond loopback without a token.
    """
    check_exposure(host, home.settings.service.token)
    sock = bind(host, port)
    app = create_app(home, host)
    return Listener(app, sock, app.state.service.stopping)


def serve(home: Home, host: str, port: int, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve in the foreground until SIGINT or SIGTERM; ``on_ready(url)`` once it answers.

    The caller closes the home. Raises ConfigError as ``make_server`` does.
    """
    server = make_server(home, host, port)
    if on_ready is not None:
        waiter = threading.Thread(target=tell, args=(server, on_ready), daemon=True)
        waiter.start()
    with signals(server):
        server.run()
