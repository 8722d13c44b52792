"""What goes over the wire: the bodies of requests and responses, and their validation.

Promises: a body is strict JSON (UTF-8, no NaN, finite numbers, no half surrogate pairs, not nested
without end); a field that is unknown, missing or of the wrong kind is named in one sentence.
Times are ISO 8601 (without a zone: UTC), or seconds or milliseconds since the epoch.
Refuses to know: what is done with them.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from starlette.requests import Request

from knowme.errors import InputError
from knowme.times import iso, parse_time
from knowme.types import Counts, Hit, Neighbour, Usage
from knowme.web.problems import BodyError, FieldError, MediaTypeError

MAX_QUERY_CHARS = 20_000
MAX_DOCUMENTS = 20_000
MAX_DOCUMENT_CHARS = 8_000_000
MAX_ID_CHARS = 1_000
MAX_NAMES = 1_000
MAX_TOP_K = 1_000

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}")
DAY_MS = 86_400_000
NOW_MS = -2_208_988_800_000, 32_503_679_999_999  # 1900 to 2999: the days about it exist too
M = TypeVar("M", bound=BaseModel)

# --- requests -----------------------------------------------------------------------------------


def to_ms(value: Any, *, end: bool = False) -> int | None:
    """Return a time of the wire in ms since the epoch; ``None`` and "" mean no time.

    A date without a time is its first millisecond in UTC, or its last with ``end``.
    Raises PydanticCustomError.
    """
    if isinstance(value, str):
        value = value.strip()
    try:
        at_ms = parse_time(value, "")
    except InputError:
        if isinstance(value, int | float):  # the only thing that can be wrong with a number
            _refuse("must be a time in the years 1 to 9999")
        _refuse("must be a time: ISO 8601 such as 2026-03-01T09:30:00Z, or milliseconds since 1970")
    whole_day = end and isinstance(value, str) and _DATE.fullmatch(value)
    return at_ms if at_ms is None or not whole_day else at_ms + DAY_MS - 1


def to_now(value: Any) -> int | None:
    """Return the time of asking in ms; it must be one that a person may live in."""
    at_ms = to_ms(value)
    if at_ms is not None and not NOW_MS[0] <= at_ms <= NOW_MS[1]:
        _refuse("must be a time in the years 1900 to 2999")
    return at_ms


def _refuse(what: str) -> NoReturn:
    raise PydanticCustomError("knowme", "{what}", {"what": what})


def _filled(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        _refuse("must not be empty")
    return value


def _many(value: Any) -> Any:
    """Take one name as a list of one; null as none."""
    return [] if value is None else [value] if isinstance(value, str) else value


Question = Annotated[str, Field(max_length=MAX_QUERY_CHARS), BeforeValidator(_filled)]
Document = Annotated[str, Field(max_length=MAX_DOCUMENT_CHARS), BeforeValidator(_filled)]
Id = Annotated[str, Field(max_length=MAX_ID_CHARS), BeforeValidator(_filled)]
Names = Annotated[
    list[Annotated[str, Field(max_length=MAX_ID_CHARS)]],
    Field(max_length=MAX_NAMES),
    BeforeValidator(_many, json_schema_input_type=str | list[str] | None),
]
Instant = Annotated[int | None, BeforeValidator(to_ms, json_schema_input_type=str | float | None)]
Now = Annotated[int | None, BeforeValidator(to_now, json_schema_input_type=str | float | None)]
LastInstant = Annotated[
    int | None,
    BeforeValidator(
        lambda value: to_ms(value, end=True), json_schema_input_type=str | float | None
    ),
]
TopK = Annotated[int | None, Field(ge=1, le=MAX_TOP_K)]


class Body(BaseModel):
    """A request body: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Filters(Body):
    """Which memories count. Empty means all."""

    now: Now = Field(
        None, description="The time of asking (ISO 8601, or ms since 1970); the clock's when absent"
    )
    since: Instant = Field(None, description="Not before this time (inclusive)")
    until: LastInstant = Field(None, description="Not after this time (inclusive; a date: its end)")
    sources: Names = Field([], description="Names of sources, as in /stats")
    speakers: Names = Field([], description="Who said it")
    conversations: Names = Field([], description="Names of conversations (the caller's session)")

    def check(self) -> None:
        """Raise InputError for a time range that nothing can lie in."""
        if self.since is not None and self.until is not None and self.since > self.until:
            raise InputError(
                "since is later than until, so nothing can match.", "Swap the two times."
            )


class SearchBody(Filters):
    """What to look for."""

    query: Question = Field(description="The words or the question")
    top_k: TopK = Field(None, description="Results; search.top_k of the settings when absent")
    kinds: Names = Field([], description="message, section, summary, pattern")
    neighbours: Annotated[int | None, Field(ge=0, le=50)] = Field(
        None, description="Messages shown on each side; search.neighbours when absent"
    )
    budget_tokens: Annotated[int | None, Field(ge=1, le=10_000_000)] = Field(
        None, description="Stop when the results' texts reach about this many tokens"
    )


class QueryBody(Filters):
    """What to ask."""

    query: Question = Field(description="The question")
    top_k: TopK = Field(None, description="Memories offered to the model")
    temperature: Annotated[float | None, Field(ge=0, le=10)] = Field(
        None, description="0: always the likeliest word"
    )
    system_prompt: Annotated[str | None, Field(max_length=MAX_QUERY_CHARS)] = Field(
        None, description="Instructions in place of our own"
    )
    max_tokens: Annotated[int | None, Field(ge=1, le=1_000_000)] = Field(
        None, description="The longest answer"
    )
    conversation: Annotated[str | None, Field(max_length=MAX_ID_CHARS)] = Field(
        None, description="A name of your choice: its earlier turns are part of the question"
    )
    stream: StrictBool | None = Field(
        None, description="true: server-sent events start, delta, switched, done, error"
    )


class IngestBody(Body):
    """What to remember."""

    documents: list[Document] = Field(
        description="Texts, each remembered as one", min_length=1, max_length=MAX_DOCUMENTS
    )
    metadatas: list[dict[str, Any] | None] | None = Field(
        None,
        description="One object a document, returned with it. session (or conversation), timestamp "
        "and speaker make it a message of that conversation",
    )
    ids: list[Id] | None = Field(
        None, description="One name a document; the same name again replaces it"
    )

    def check(self) -> None:
        """Raise InputError unless the lists are of one length."""
        for name, found in (("metadatas", self.metadatas), ("ids", self.ids)):
            if found is not None and len(found) != len(self.documents):
                raise InputError(
                    f"There are {len(self.documents)} documents but {len(found)} {name}.",
                    f"Send one entry of {name} for each document, or leave {name} out.",
                )
        for at, meta in enumerate(self.metadatas or ()):
            ours = next((key for key in meta or () if key.startswith("_")), None)
            if ours is not None:
                raise InputError(
                    f"metadatas[{at}] has the key {shown(ours)}; names with a leading _ are ours.",
                    "Rename it.",
                )
            value = (meta or {}).get("timestamp")
            try:
                to_ms(value)
            except PydanticCustomError as error:
                raise InputError(
                    f"metadatas[{at}].timestamp {error.message()}; it was {shown(value)}.",
                    "Send one of those, or leave timestamp out.",
                ) from None


class SyncBody(Body):
    """What to read."""

    only: Names = Field([], description="Names of sources; all when empty")
    stream: StrictBool | None = Field(None, description="true: server-sent events")


# --- reading ------------------------------------------------------------------------------------


def _no_constant(name: str) -> NoReturn:
    raise BodyError(f"The body holds {name}, which is not JSON.", "Send null instead.")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise BodyError(
            f"The body holds a number too large to be kept: {digits[:40]}.", "Send it as text."
        )
    return value


def parse(raw: bytes) -> Any:
    """Return the JSON value of a body. Raises BodyError."""
    if not raw.strip():
        raise BodyError("The body is empty.", "Send a JSON object; see /docs.")
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise BodyError(
            f"The body is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x}).",
            "Encode it as UTF-8.",
        ) from None
    except UnicodeEncodeError:
        raise BodyError(
            "The body holds half of a surrogate pair (such as \\ud83d alone), which is not text.",
            "Send whole characters.",
        ) from None
    except RecursionError:
        raise BodyError("The body is nested too deeply.", "Send it flatter.") from None
    except json.JSONDecodeError as error:
        raise BodyError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            "Send a JSON object; each route's is shown at /docs.",
        ) from None
    except ValueError:  # an integer of more digits than Python reads
        raise BodyError("The body holds a number of too many digits.", "Send it as text.") from None
    if not isinstance(value, dict):
        raise BodyError(
            f"The body must be a JSON object; it was {_kind(value)}.",
            "Send a JSON object; each route's is shown at /docs.",
        )
    return value


async def read(request: Request, shape: type[M], *, optional: bool = False) -> M:
    """Read and validate a request's body. Raises BodyError, MediaTypeError, FieldError."""
    return checked(shape, await read_object(request, optional=optional))


async def read_object(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """Read a request's body: a JSON object; {} for an empty one where it is ``optional``.

    Raises BodyError, MediaTypeError.
    """
    raw = await request.body()
    if optional and not raw.strip():
        return {}
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise MediaTypeError(
            f"The body is declared as {shown(media)}, not as JSON."
            if media
            else "The body has no content type.",
            "Send the header: content-type: application/json",
        )
    found: dict[str, Any] = parse(raw)
    return found


def checked(shape: type[M], value: Mapping[str, Any]) -> M:
    """Return a body's value as ``shape``. Raises FieldError."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        told = sentence(details, sorted(shape.model_fields))
        raise FieldError(*told, field=_place(details[0]["loc"])) from None


def parse_when(value: str, name: str) -> int | None:
    """Return a time of a query string in ms since the epoch; None for "". Raises FieldError."""
    try:
        return to_ms(int(value) if value.isascii() and value.isdecimal() else value)
    except PydanticCustomError as error:
        raise FieldError(
            f"{name} {error.message()}; it was {shown(value)}.", "Leave it out for all.", name
        ) from None


def sentence(details: Sequence[ErrorDetails], known: Sequence[str]) -> tuple[str, str]:
    """Return (what is wrong with the first field, what to do), as sentences."""
    # The needed field whose name is misspelt is missing and unknown at once: tell of the slip.
    lacking = [_place(each["loc"]) for each in details if each["type"] == "missing"]
    first = next(
        (
            each
            for each in details
            if each["type"] == "extra_forbidden"
            and difflib.get_close_matches(_place(each["loc"]), lacking, 1)
        ),
        details[0],
    )
    details = [each for each in details if each is first or _place(each["loc"]) not in lacking]
    name = _place(first["loc"])
    more = f" ({len(details) - 1} more like it.)" if len(details) > 1 else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, known, 1)
        meant = f"Did you mean {near[0]}? " if near else ""
        return f"There is no field {shown(name)}.{more}", f"{meant}Known: {', '.join(known)}."
    if first["type"] == "missing":
        return f"The field {name} is missing.{more}", f"Known fields: {', '.join(known)}."
    return f"{name} {_demand(first)}; it was {shown(first['input'])}.{more}", "See /docs."


def _place(loc: Sequence[int | str]) -> str:
    """Return where a value stands: documents[3], metadatas[0]."""
    names = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(names).lstrip(".")[:200] or "The body"


_DEMANDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entry",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "knowme": "{what}",
}


def _demand(error: ErrorDetails) -> str:
    known = _DEMANDS.get(error["type"])
    if known is None:
        return f"is not right ({error['msg']})"
    return known.format(**error.get("ctx", {}))


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if value is None:
        return "null"
    return kinds.get(type(value), "a number")


def shown(value: Any) -> str:
    """Return a value for a sentence: short, on one line, with its kind where it is not plain."""
    if isinstance(value, dict | list):
        return f"{_kind(value)} of {len(value)}"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}... ({len(str(value))} characters)"


# --- responses ----------------------------------------------------------------------------------


class NeighbourShape(BaseModel):
    """A message beside a result."""

    id: str = Field(description="The caller's own, or the source's")
    offset: int = Field(description="-1: the one before, +1: the one after")
    speaker: str
    role: str = Field(description="user (the person, or who speaks), assistant or document")
    text: str
    time: str | None = Field(description="ISO 8601, UTC")


class HitShape(BaseModel):
    """One result."""

    id: str = Field(description="The caller's id where there is one, else our own")
    text: str = Field(description="The words as they were said")
    metadata: dict[str, Any] = Field(
        description="The caller's own; metadata.ids where several documents were merged"
    )
    distance: float | None = Field(description="Cosine distance, 0 to 2; null: no vector")
    score: float = Field(description="Higher is better; no fixed unit")
    kind: str = Field(description="message or section")
    source: str = Field(description='The name of the source; "ingest": it came over HTTP')
    conversation: str
    title: str = Field(description="The document's or the conversation's, where it has one")
    speaker: str = Field(description='"": the person, the assistant or nobody; see role')
    role: str = Field(description="user, assistant or document")
    time: str | None = Field(description="ISO 8601, UTC")
    origin: str = Field(description="Where it stands at the source: file:line or URI")
    why: dict[str, float | str] = Field(description="What each method made of it")
    neighbours: list[NeighbourShape] = Field(description="What was said before and after")


class SearchShape(BaseModel):
    """Results, best first."""

    results: list[HitShape] = Field(description="Best first")
    count: int = Field(description="How many results")
    took_ms: float


class UsageShape(BaseModel):
    """What an answer cost."""

    model: str
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    first_token_ms: float
    total_ms: float
    finish: str


class AnswerShape(BaseModel):
    """An answer and what it rests on."""

    answer: str
    sources: list[HitShape] = Field(description="What the model was given, best first")
    model: str
    role: str = Field(description="The role of the model that answered")
    cost: float = Field(description="In the money of the model's prices")
    engine: str = Field(description="llamacpp, ollama, openai or echo (no model: quotations)")
    conversation: str = Field(description="Send it with the next question to go on")
    known: bool = Field(description="false: nothing relevant was found")
    usage: UsageShape
    receipt_id: int = Field(description="For GET /why/{id}")


class IngestShape(BaseModel):
    """What became of the documents."""

    ingested: int = Field(description="Documents taken, all of them searchable now")
    total: int = Field(description="Items in memory")
    new: int
    changed: int
    unchanged: int


class CountsShape(BaseModel):
    """What was read from one source."""

    read: int
    new: int
    changed: int
    unchanged: int
    removed: int
    skipped: dict[str, int] = Field(description="Reason -> how many")
    problems: list[str] = Field(description="file:line and what was wrong there")


class SyncShape(BaseModel):
    """What a sync did."""

    synced: int = Field(description="Messages that are new or changed")
    total: int = Field(description="Items in memory")
    sources: dict[str, CountsShape]
    took_ms: float


class CheckShape(BaseModel):
    """The state of one part."""

    state: str = Field(description="ok, warming, down, absent")
    detail: str = Field(description="What it is, or what is wrong and what mends it")


class SourceShape(BaseModel):
    """What memory holds of one source."""

    conversations: int
    messages: int
    first: str | None = Field(description="The date of its oldest message; null: none is dated")
    last: str | None


class StatsShape(BaseModel):
    """What memory holds."""

    version: str
    home: str = Field(description="The folder on the service's machine")
    bytes: int = Field(description="The size of memory.db")
    conversations: int
    messages: int
    items: int = Field(description="What can be found: messages, sections, summaries, facts")
    vectors: int = Field(description="Items that the serving embedder has embedded")
    pending: int = Field(description="Items that wait for their vector; their words are found")
    answers: int
    facts: int = Field(description="Facts that are believed")
    doubtful: int = Field(description="Facts that wait for the person: /api/inbox")
    lines: int = Field(description="Lines of the profile")
    embedder: str = Field(description='Whose vectors serve; "": words alone are searched')
    jobs: dict[str, int] = Field(description="State -> how many")
    sources: dict[str, SourceShape]
    parts: dict[str, CheckShape] = Field(description="As in /health")


class HealthShape(BaseModel):
    """How the service is."""

    status: str = Field(description="ok or degraded")
    version: str
    warming: bool = Field(description="true while models and index load after the start")
    checks: dict[str, CheckShape]


class ErrorShape(BaseModel):
    """What went wrong, and what to do."""

    error: str
    hint: str


def hit_json(hit: Hit) -> dict[str, Any]:
    """Return a hit as HitShape."""
    metadata = dict(hit.metadata)
    ours = [name for name in hit.external_ids if name]
    if hit.source == INGEST and len(ours) > 1:
        metadata.setdefault("ids", ours)
    return {
        "id": ours[0] if hit.source == INGEST and ours else hit.uid,
        "text": hit.text,
        "metadata": metadata,
        "distance": hit.distance,
        "score": hit.score,
        "kind": hit.kind,
        "source": hit.source,
        "conversation": hit.conversation,
        "title": hit.title,
        "speaker": hit.speaker,
        "role": hit.role,
        "time": iso(hit.at_ms),
        "origin": hit.origin,
        "why": dict(hit.why),
        "neighbours": [neighbour_json(near) for near in hit.neighbours],
    }


INGEST = "ingest"
"""The name of the source of what came over HTTP: there the external ids are the caller's."""


def neighbour_json(near: Neighbour) -> dict[str, Any]:
    """Return a neighbour as NeighbourShape."""
    return {
        "id": near.external_id,
        "offset": near.offset,
        "speaker": near.speaker,
        "role": near.role,
        "text": near.text,
        "time": iso(near.at_ms),
    }


def counts_json(counts: Counts) -> dict[str, Any]:
    """Return counts as CountsShape."""
    return {
        "read": counts.read,
        "new": counts.new,
        "changed": counts.changed,
        "unchanged": counts.unchanged,
        "removed": counts.removed,
        "skipped": dict(counts.skipped),
        "problems": list(counts.problems),
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return a usage as UsageShape."""
    return {name: getattr(usage, name) for name in UsageShape.model_fields}


def plain(value: Any) -> Any:
    """Return mappings and tuples as what JSON knows; anything else unknown as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
