"""Errors as a client sees them: JSON ``{"error": sentence, "hint": mend}`` with the right status.

Promises: every KnowmeError keeps its words; anything else becomes one sentence with a number that
is also in the log, and nothing of its inside. A NaN never reaches a client (it is not JSON).
Refuses to know: the routes.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from knowme.errors import (
    ConfigError,
    InputError,
    KnowmeError,
    ModelError,
    ModelMissingError,
    StoreError,
)

log = logging.getLogger("knowme.service")

RETRY_SECONDS = 5
"""What Retry-After says when waiting may help: a server that is down, a queue that is full."""


class BodyError(KnowmeError):
    """What was sent is not the JSON that a route can take."""

    status = 400


class BodyTooLargeError(KnowmeError):
    """The body is larger than service.max_body_mb."""

    status = 413


class MediaTypeError(KnowmeError):
    """The body is not declared as JSON."""

    status = 415


class FieldError(InputError):
    """A field of a body is not right; ``field`` is its place: messages[3].content."""

    def __init__(self, message: str, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint)
        self.field = field


class BusyError(KnowmeError):
    """Too much is being done at once; waiting helps."""

    status = 503


class StoppingError(BusyError):
    """The service is about to end."""


class Json(Response):
    """A JSON response: UTF-8, compact, never NaN, never half a surrogate pair."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes of ``content``."""
        return to_json(content).encode("utf-8", "replace")


def to_json(content: Any) -> str:
    """Return ``content`` as strict JSON; what is not a finite number becomes null."""
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"))


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [_finite(value) for value in content]
    return content


def status_of(error: KnowmeError) -> int:
    """Return the HTTP status of an error.

    A full disk is 507, the other failures of memory.db (locked, damaged) are 503: the request was
    right, and may be again. So are settings that do not work: the caller cannot mend them.
    """
    if isinstance(error, StoreError):
        return 507 if "disk is full" in error.message else 503
    if isinstance(error, ConfigError):
        return 503
    return error.status


def describe(error: BaseException) -> dict[str, Any]:
    """Return ``{"error", "hint", "status"}`` for an error, and log what is not ours."""
    if isinstance(error, KnowmeError):
        return {"error": error.message, "hint": error.hint, "status": status_of(error)}
    number = secrets.token_hex(4)
    log.error("error %s", number, exc_info=error)
    return {
        "error": f"knowme stumbled over itself ({type(error).__name__}, number {number}).",
        "hint": f"Look for {number} in the log of the service; the request changed nothing"
        " that was not reported.",
        "status": 500,
    }


def problem(error: BaseException, headers: Mapping[str, str] | None = None) -> Json:
    """Return the response for an error."""
    told = describe(error)
    status = told.pop("status")
    return Json(told, status_code=status, headers=with_patience(error, status, headers))


def with_patience(
    error: BaseException, status: int, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the headers with Retry-After, where waiting may help: what the server asked, or ours.

    Where a model is missing or a setting is wrong, no waiting helps.
    """
    more = dict(headers or {})
    if status in (429, 503) and not isinstance(error, ModelMissingError | ConfigError):
        asked = error.retry_after if isinstance(error, ModelError) else None
        more.setdefault("retry-after", str(RETRY_SECONDS if asked is None else math.ceil(asked)))
    return more
