"""Errors in the form of the API that was asked: OpenAI's, Ollama's, or ours.

Promises: a client of OpenAI's API finds {"error": {message, type, param, code}} and the statuses
it knows (400, 401, 404, 413, 429, 503, 500), one of Ollama's {"error": text}; the words are always
the error's own, with what mends it. So also where no route was reached: no token, no such path.
Refuses to know: the routes, but under which paths which API lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from knowme.errors import (
    InputError,
    KnowmeError,
    ModelError,
    ModelMissingError,
    NotFoundError,
    TooLongError,
)
from knowme.web.problems import (
    BodyError,
    BusyError,
    FieldError,
    Json,
    StoppingError,
    describe,
    problem,
    status_of,
    to_json,
    with_patience,
)

OLLAMA = "/ollama"
OLLAMA_PATHS = frozenset(
    f"/api/{name}"
    for name in (
        *("tags", "generate", "embed", "embeddings", "show", "ps", "version"),
        *("pull", "push", "create", "copy", "delete"),  # not here, and that is said in its form
    )
)
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 413: "request_too_large", 503: "unavailable"}


class UnknownModelError(NotFoundError):
    """No model of ours has the name that a client gave."""

    def __init__(self, name: str, error: NotFoundError) -> None:
        super().__init__(error.message, error.hint)
        self.name = name


class UnroutedError(KnowmeError):
    """No route takes this path, or none this method."""

    def __init__(self, message: str, hint: str, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


def is_openai(path: str) -> bool:
    """Tell whether a path belongs to OpenAI's API."""
    return path == "/v1" or path.startswith("/v1/")


def is_ollama(path: str) -> bool:
    """Tell whether a path belongs to Ollama's API (/api/chat at the root: its body tells)."""
    return path in OLLAMA_PATHS or path == OLLAMA or path.startswith(f"{OLLAMA}/")


def problem_at(
    path: str, error: BaseException, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response for an error of a request to ``path``."""
    if is_openai(path):
        return openai_problem(error, headers)
    return ollama_problem(error, headers) if is_ollama(path) else problem(error, headers)


# --- OpenAI -------------------------------------------------------------------------------------


def openai_status(error: BaseException) -> int:
    """Return the status by which a client of OpenAI's API knows what to do."""
    if isinstance(error, BusyError):
        return 503 if isinstance(error, StoppingError) else 429
    if isinstance(error, ModelMissingError):
        return 404
    if isinstance(error, ModelError) and error.retry_after is not None:
        return 429
    if isinstance(error, InputError) and not isinstance(error, NotFoundError):
        return 400
    if not isinstance(error, KnowmeError):
        return 500
    status = status_of(error)
    return 400 if status in (415, 422) else 503 if status == 507 else status


def openai_error(error: BaseException) -> dict[str, Any]:
    """Return {"error": {message, type, param, code}}."""
    status, told = openai_status(error), describe(error)
    missing = isinstance(error, UnknownModelError | ModelMissingError)
    invalid = status < 500 and status not in _KINDS
    return {
        "error": {
            "message": f"{told['error']} {told['hint']}".strip(),
            "type": "invalid_request_error" if invalid else _KINDS.get(status, "server_error"),
            "param": "model" if missing else getattr(error, "field", "") or None,
            "code": _code(error, status, missing),
        }
    }


def _code(error: BaseException, status: int, missing: bool) -> str | None:
    if missing:
        return "model_not_found"
    if isinstance(error, BodyError):
        return "invalid_json"
    if isinstance(error, TooLongError):
        return "context_length_exceeded"
    if status == 429:
        return "rate_limit_exceeded"
    return _CODES.get(status)


def openai_problem(error: BaseException, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for an error of /v1."""
    status = openai_status(error)
    return Json(
        openai_error(error), status_code=status, headers=with_patience(error, status, headers)
    )


def openai_late(error: BaseException) -> bytes:
    """Return what a stream of /v1 says where it breaks off."""
    return f"data: {to_json(openai_error(error))}\n\n".encode("utf-8", "replace")


# --- Ollama -------------------------------------------------------------------------------------


def ollama_status(error: BaseException) -> int:
    """Return the status of an error of Ollama's API."""
    if isinstance(error, ModelMissingError):
        return 404
    status = openai_status(error)
    return 503 if status == 429 and isinstance(error, BusyError) else status


def ollama_error(error: BaseException) -> dict[str, str]:
    """Return {"error": text}; that of a missing model begins as Ollama's own does."""
    if isinstance(error, UnknownModelError):
        return {"error": f"model '{error.name}' not found. {error.hint}".strip()}
    told = describe(error)
    if isinstance(error, FieldError) and not told["hint"]:
        return {"error": told["error"]}
    return {"error": f"{told['error']} {told['hint']}".strip()}


def ollama_problem(error: BaseException, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for an error of Ollama's API."""
    status = ollama_status(error)
    return Json(
        ollama_error(error), status_code=status, headers=with_patience(error, status, headers)
    )


def ollama_late(error: BaseException) -> bytes:
    """Return what a stream of Ollama's API says where it breaks off."""
    return f"{to_json(ollama_error(error))}\n".encode("utf-8", "replace")
