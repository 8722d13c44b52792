"""What goes over the wire in a chat of ours: the bodies and answers of /api/chat and its kin.

Promises: as ``shapes.py``: strict fields, one sentence for what is wrong. A picture is a data URL
of a kind that models read, or its base64 alone; a picture's address is refused, because nothing is
fetched from elsewhere.
Refuses to know: what is done with them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool

from knowme.turn import Started, Switched
from knowme.types import Route
from knowme.web.problems import FieldError
from knowme.web.shapes import (
    MAX_ID_CHARS,
    MAX_QUERY_CHARS,
    Body,
    HitShape,
    Names,
    Question,
    UsageShape,
    shown,
)

MAX_IMAGES = 16
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)

Name = Annotated[str, Field(max_length=MAX_ID_CHARS)]


def picture(value: object, place: str) -> str:
    """Return a picture as a data URL. Raises FieldError for an address, or what is no picture."""
    if not isinstance(value, str) or not value.strip():
        raise FieldError(f"{place} must be a picture as text; it was {shown(value)}.", _HOW, place)
    head, comma, data = value.partition(",")
    if head.lower().startswith(("http:", "https:", "file:")):
        raise FieldError(f"{place} is an address; nothing is fetched from there.", _HOW, place)
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise FieldError(f"{place} is no picture in base64: {shown(head)}.", _HOW, place)
    try:
        raw = base64.b64decode((data if comma else value).strip(), validate=True)
    except (binascii.Error, ValueError):
        raise FieldError(f"{place} is not base64.", _HOW, place) from None
    kind = next((name for magic, name in _KINDS if raw.startswith(magic)), "")
    if not kind:
        raise FieldError(f"{place} is no PNG, JPEG, GIF, WebP or BMP picture.", _HOW, place)
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


_HOW = "Send data:image/png;base64,... (or the base64 alone)."

# --- requests -----------------------------------------------------------------------------------


class ChatBody(Body):
    """A message of a conversation."""

    message: Question = Field(
        description="What the person says. @role, /local or /cloud at its start choose the model"
    )
    session_id: Name | None = Field(
        None, description="The conversation; absent: a new one, whose name the answer tells"
    )
    model: Name | None = Field(
        None, description='A role or a model\'s name; absent or "knowme": the router decides'
    )
    stream: StrictBool | None = Field(
        None, description="true: server-sent events start, delta, switched, done, error"
    )
    images: Names = Field([], description="Pictures: data URLs, or base64")
    temperature: Annotated[float | None, Field(ge=0, le=10)] = Field(
        None, description="0: always the likeliest word"
    )
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = Field(
        None, description="The longest answer"
    )
    system_prompt: Annotated[str | None, Field(max_length=MAX_QUERY_CHARS)] = Field(
        None, description="Instructions in place of our own"
    )


class AgainBody(Body):
    """Ask the last question of a conversation once more."""

    session_id: Name = Field(description="The conversation")
    how: Literal["regenerate", "retry_cloud"] = Field(
        "regenerate", description="regenerate: another answer; retry_cloud: by the stronger model"
    )
    stream: StrictBool | None = Field(None, description="As for /api/chat")


class CancelBody(Body):
    """Which answer to stop."""

    session_id: Name = Field(description="The conversation whose answer is running")


class RateBody(Body):
    """What the person thinks of an answer."""

    receipt_id: Annotated[int | None, Field(ge=1)] = Field(
        None, description="The answer; absent: the last one of session_id"
    )
    session_id: Name | None = Field(None, description="The conversation whose last answer it is")
    rating: Annotated[int | str | None, Field()] = Field(
        None, description="1 to 5, or up, or down; absent: better alone"
    )
    better: Name | None = Field(
        None, description="Which would have been better, or was: local, cloud or same"
    )

    def check(self) -> None:
        """Raise FieldError for a rating that is none, or for an answer that is not named."""
        if self.rating is None and self.better is None:
            raise FieldError("rating is missing.", "Send 1 to 5, up or down.", "rating")
        if self.rating not in (None, 1, 2, 3, 4, 5, "1", "2", "3", "4", "5", "up", "down"):
            raise FieldError(
                f"rating must be 1 to 5, up or down; it was {shown(self.rating)}.",
                "Send one of those.", "rating",
            )  # fmt: skip
        if self.better not in (None, "local", "cloud", "same"):
            raise FieldError(
                f"better must be local, cloud or same; it was {shown(self.better)}.",
                "Send one of those, or leave it out.", "better",
            )  # fmt: skip
        if (self.receipt_id is None) == (self.session_id is None):
            raise FieldError(
                "Name the answer by receipt_id, or by session_id for its last one.",
                "Send one of the two.", "receipt_id",
            )  # fmt: skip


class MessageBody(Body):
    """One message."""

    message: Question = Field(description="What the person says")


# --- responses ----------------------------------------------------------------------------------


class RouteShape(BaseModel):
    """Which model answers, and why."""

    model: str = Field(description="The role")
    reason: str
    confidence: float = Field(description="0 to 1")
    alternatives: list[str] = Field(description="Roles to try when it fails, in order")
    stage: str = Field(description="What decided: gate, rule, heuristic, learned, default")
    category: str = Field(description="PERSONAL or COMPLEX")
    refused: dict[str, str] = Field(description="Role -> why it may not answer")
    gain: float | None = Field(description="Expected gain of the stronger model; null: not asked")
    gain_sd: float | None
    cost: float | None
    price: float | None = Field(description="What the gain must exceed")


class ChatShape(BaseModel):
    """An answer in a conversation."""

    session_id: str = Field(description="Send it with the next message")
    answer: str
    model: str = Field(description="The model that answered")
    role: str
    engine: str
    known: bool = Field(description="false: nothing relevant was found in memory")
    note: str = Field(description='Why another model than the chosen one answers; "": it does not')
    route: RouteShape
    usage: UsageShape | None = Field(description="null: the answer was cancelled")
    cost: float = Field(description="In the money of the model's prices")
    sources: list[HitShape] = Field(description="What the model was given, best first")
    receipt_id: int | None = Field(description="For GET /why/{id}")
    cancelled: bool = Field(description="true: it was stopped; the answer is what was said so far")
    tool_calls: list[dict[str, Any]] = Field(description="Calls of tools, as OpenAI writes them")


class CancelShape(BaseModel):
    """Whether there was something to stop."""

    session_id: str
    cancelled: bool = Field(description="false: no answer of this conversation was running")


class ClassifyShape(BaseModel):
    """What kind of message it is."""

    category: str = Field(description="PERSONAL or COMPLEX")
    confidence: str = Field(description="high or low")
    probability: float = Field(description="That the category is right")
    reason: str
    took_ms: float


class RateShape(BaseModel):
    """Which answer was rated."""

    receipt_id: int
    rating: int | str | None
    better: str | None


def route_json(route: Route) -> dict[str, Any]:
    """Return a route as RouteShape."""
    told = {each.name: getattr(route, each.name) for each in fields(route)}
    told = {name: told[name] for name in RouteShape.model_fields}
    return {**told, "alternatives": list(route.alternatives), "refused": dict(route.refused)}


def started_json(event: Started, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is known before the first word."""
    return {
        "session_id": event.conversation,
        "model": event.model,
        "role": event.role,
        "engine": event.engine,
        "known": event.known,
        "note": event.note,
        "route": route_json(event.route),
        "sources": sources,
    }


def switched_json(event: Switched) -> dict[str, Any]:
    """Return which model took over."""
    return {
        "role": event.role,
        "model": event.model,
        "engine": event.engine,
        "reason": event.reason,
        "restart": event.restart,
    }
