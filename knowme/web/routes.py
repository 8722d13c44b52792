"""What every file of routes needs: the errors it tells of, its body as OpenAPI shows it, the home.

Promises: nothing runs here.
Refuses to know: any route.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel

from knowme.web.shapes import ErrorShape
from knowme.web.work import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorShape, "description": "The body is not JSON"},
    401: {"model": ErrorShape, "description": "The token is missing or wrong"},
    403: {"model": ErrorShape, "description": "Another site's page asks"},
    413: {"model": ErrorShape, "description": "The body is larger than service.max_body_mb"},
    415: {"model": ErrorShape, "description": "The body is not declared as JSON"},
    421: {"model": ErrorShape, "description": "The Host header is not in service.allowed_hosts"},
    422: {"model": ErrorShape, "description": "A field is missing, unknown or of the wrong kind"},
    503: {
        "model": ErrorShape,
        "description": "A model or memory.db cannot work now, or too much is asked at once; "
        "Retry-After says when to try again",
    },
    507: {"model": ErrorShape, "description": "The disk is full; nothing was half-written"},
}
ASKING: dict[int | str, dict[str, Any]] = {
    status: ERRORS[status] for status in (401, 403, 421, 503)
}
OTHERS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not JSON, or a field is not right"},
    401: {"description": "The token is missing or wrong"},
    403: {"description": "Another site's page asks"},
    404: {"description": "There is no such model"},
    413: {"description": "The body is larger than service.max_body_mb"},
    421: {"description": "The Host header is not in service.allowed_hosts"},
    503: {
        "description": "A model or memory.db cannot work now; Retry-After says when to ask again"
    },
}
"""Those of OpenAI's and Ollama's API, each in its own form."""
NEVER: dict[str, Any] = {"description": "Never: a path is any text"}


def takes(
    shape: type[BaseModel], example: dict[str, Any], *, needed: bool = True
) -> dict[str, Any]:
    """Describe a request body for OpenAPI; we read it ourselves, to be strict about its JSON."""
    schema = shape.model_json_schema()
    needs = schema.get("required", [])
    schema["properties"] = {
        **{name: schema["properties"][name] for name in needs},  # for a reader: these first
        **schema["properties"],
    }
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": needed, "content": content}}


def service_of(request: Request) -> Service:
    """Return the service that the app of this request serves."""
    service: Service = request.app.state.service
    return service
