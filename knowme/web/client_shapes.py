"""What clients of OpenAI's and of Ollama's API send, read into our own nouns.

Promises: whatever shape a message comes in, it is a ``ChatMessage`` afterwards, with its pictures
and its calls of tools; a field that we do not know is passed on to the model's server (OpenAI) or
ignored (Ollama), as the originals do; a field that we know and that is wrong is named.
Refuses to know: which model answers, and how an answer is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from knowme.types import ChatMessage, Options, ToolCall
from knowme.web.chat_shapes import Name, picture
from knowme.web.problems import FieldError
from knowme.web.shapes import MAX_NAMES, checked, shown

MAX_MESSAGES = 10_000
MAX_INPUTS = 2_048
Speaker = Literal["system", "user", "assistant", "tool"]
ROLES: dict[str, Speaker] = {**{each: each for each in get_args(Speaker)}, "developer": "system"}

Messages = Annotated[list[dict[str, Any]], Field(max_length=MAX_MESSAGES)]
Words = Annotated[list[str], Field(max_length=MAX_NAMES)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client of another API asks for. ``model`` is as it named it."""

    model: str
    messages: tuple[ChatMessage, ...]
    options: Options
    surface: str  # openai, ollama
    session: str = ""
    stream: bool = False
    usage: bool = False  # it wants the usage in the stream, too
    kind: str = "chat"  # chat, generate


# --- OpenAI -------------------------------------------------------------------------------------


class Lenient(BaseModel):
    """A body of another API: unknown fields are kept, known ones are strict."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class OpenAIChatBody(Lenient):
    """As OpenAI's chat completions. Fields that are not named here go to the model's server."""

    model: Name = Field("knowme", description="knowme (memory and routing), a role, or a model")
    messages: Messages = Field(
        description="role and content (text or parts: text, image_url with a data URL)",
        min_length=1,
    )
    stream: bool | None = Field(None, description="true: chunks as server-sent events")
    stream_options: dict[str, Any] | None = Field(
        None, description="{include_usage: true}: a last chunk tells the usage"
    )
    max_tokens: Annotated[int | None, Field(ge=1)] = Field(None, description="The longest answer")
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = Field(
        None, description="The same, by its newer name"
    )
    temperature: Annotated[float | None, Field(ge=0, le=10)] = Field(
        None, description="0: always the likeliest word"
    )
    top_p: Annotated[float | None, Field(ge=0, le=1)] = Field(None, description="Nucleus sampling")
    seed: int | None = Field(None, description="The same seed, the same answer")
    stop: str | Words | None = Field(None, description="Words before which the answer ends")
    n: int | None = Field(None, description="1; more answers at once are refused")
    tools: list[dict[str, Any]] | None = Field(None, description="Passed through to the model")
    tool_choice: str | dict[str, Any] | None = Field(None, description="Passed through")
    response_format: dict[str, Any] | None = Field(
        None, description="text, json_object, or json_schema {name, schema}"
    )


class OpenAIEmbedBody(Lenient):
    """As OpenAI's embeddings."""

    model: Name = Field("knowme", description="Any name: the configured embedder answers")
    input: str | list[Any] = Field(description="A text, or a list of texts; no tokens")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float, or base64 of float32 (little-endian)"
    )
    dimensions: Annotated[int | None, Field(ge=1)] = Field(
        None, description="Must be those of the configured embedder"
    )


_KNOWN = frozenset(OpenAIChatBody.model_fields)


def openai_chat(body: Mapping[str, Any], session: str = "") -> Wanted:
    """Read a request of /v1/chat/completions. Raises FieldError."""
    read = checked(OpenAIChatBody, body)
    if read.n not in (None, 1):
        raise FieldError(f"n must be 1; it was {read.n}.", "Ask again for another answer.", "n")
    form, schema = _response_format(read.response_format)
    stop = (read.stop,) if isinstance(read.stop, str) else tuple(read.stop or ())
    return Wanted(
        read.model,
        tuple(_message(each, f"messages[{at}]") for at, each in enumerate(read.messages)),
        Options(
            max_tokens=read.max_completion_tokens or read.max_tokens,
            temperature=read.temperature,
            top_p=read.top_p,
            seed=read.seed,
            stop=stop,
            json_schema=schema,
            json_object=form == "json_object",
            tools=tuple(read.tools or ()),
            tool_choice=read.tool_choice,
            extra={name: value for name, value in body.items() if name not in _KNOWN},
        ),
        "openai",
        session,
        bool(read.stream),
        bool((read.stream_options or {}).get("include_usage")),
    )


def _response_format(given: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any] | None]:
    """Return (the kind, the schema where it has one)."""
    kind = "text" if given is None else given.get("type")
    if kind in ("text", "json_object"):
        return str(kind), None
    assert given is not None
    if kind != "json_schema":
        raise FieldError(
            f"response_format.type must be text, json_object or json_schema; it was {shown(kind)}.",
            "Send one of those.", "response_format.type",
        )  # fmt: skip
    form = given.get("json_schema")
    schema = form.get("schema") if isinstance(form, dict) else None
    if not isinstance(schema, dict):
        raise FieldError(
            "response_format.json_schema.schema must be an object.",
            'Send {"type": "json_schema", "json_schema": {"name": "answer", "schema": {...}}}.',
            "response_format.json_schema",
        )
    return kind, schema


def _message(given: Mapping[str, Any], place: str) -> ChatMessage:
    role = ROLES.get(str(given.get("role")))
    if role is None:
        raise FieldError(
            f"{place}.role must be system, developer, user, assistant or tool; it was "
            f"{shown(given.get('role'))}.",
            "Send one of those.",
            f"{place}.role",
        )
    text, images = _content(given.get("content"), f"{place}.content")
    return ChatMessage(
        role,
        text,
        tuple(images),
        tuple(
            _tool_call(call, f"{place}.tool_calls[{at}]")
            for at, call in enumerate(_list(given.get("tool_calls"), f"{place}.tool_calls"))
        ),
        str(given.get("tool_call_id") or ""),
    )


def _content(given: Any, place: str) -> tuple[str, list[str]]:
    """Return (the text, its pictures) of a message's content: text, parts, or nothing."""
    if given is None or isinstance(given, str):
        return given or "", []
    texts: list[str] = []
    images: list[str] = []
    for at, part in enumerate(_list(given, place)):
        where = f"{place}[{at}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text", "output_text", "refusal"):
            texts.append(str(part.get("text") or part.get("refusal") or ""))
        elif kind in ("image_url", "input_image"):
            url = part.get("image_url")
            images.append(
                picture(url.get("url") if isinstance(url, dict) else url, f"{where}.image_url")
            )
        else:
            raise FieldError(
                f"{where}.type must be text or image_url; it was {shown(kind)}.",
                "Other kinds of content cannot be read yet.",
                f"{where}.type",
            )
    return "\n".join(texts), images


def _tool_call(given: Any, place: str) -> ToolCall:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise FieldError(
            f"{place}.function must have a name and arguments.",
            'Send {"id": "...", "type": "function", "function": {"name": "...", '
            '"arguments": "{}"}}.',
            place,
        )
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    return ToolCall(str(given.get("id") or ""), function["name"], arguments)


def _list(given: Any, place: str) -> Sequence[Any]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise FieldError(f"{place} must be a list; it was {shown(given)}.", "See /docs.", place)
    return given


def texts_of(given: Any, place: str, *, empty: bool) -> list[str]:
    """Return the texts to embed: one, or a list. Raises FieldError for anything else.

    ``empty``: an empty text is fine (its vector is zero).
    """
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or len(texts) > MAX_INPUTS or not (texts or empty):
        raise FieldError(
            f"{place} must be a text or a list of 1 to {MAX_INPUTS} texts; it was {shown(given)}.",
            "Send it in parts.",
            place,
        )
    for at, text in enumerate(texts):
        if isinstance(text, int | list):
            raise FieldError(
                f"{place} holds tokens; another model's tokens mean nothing here.",
                "Send the texts themselves (langchain: check_embedding_ctx_length=False).",
                place,
            )
        if not isinstance(text, str) or not (text or empty):
            raise FieldError(
                f"{place}[{at}] must be a text; it was {shown(text)}.",
                "Send texts.",
                f"{place}[{at}]",
            )
    return texts


# --- Ollama -------------------------------------------------------------------------------------


class OllamaBody(Lenient):
    """What every request of Ollama's that names a model has."""

    model: Name = Field(
        "", description="knowme (memory and routing), a role, or a model; :latest is fine"
    )
    name: Name = Field("", description="The same, by its older name")
    keep_alive: str | float | None = Field(
        None, description="Accepted; how long a model stays is a setting (residency)"
    )

    @property
    def wanted(self) -> str:
        """Return the model's name. Raises FieldError when there is none."""
        if not (self.model or self.name):
            raise FieldError("model is required", "", "model")
        return self.model or self.name


class OllamaAnswerBody(OllamaBody):
    """What a request for an answer has."""

    stream: bool | None = Field(None, description="Lines of JSON as they come; true when absent")
    format: str | dict[str, Any] | None = Field(None, description="json, or a JSON schema")
    options: dict[str, Any] | None = Field(
        None,
        description="temperature, top_p, top_k, min_p, seed, stop, num_predict, repeat_penalty ...;"
        " num_ctx is ignored, because a model's window is a setting",
    )
    think: bool | str | None = Field(None, description="Let a thinking model think")


class OllamaChatBody(OllamaAnswerBody):
    """As Ollama's /api/chat."""

    messages: Messages = Field([], description="role, content, images (base64), tool_calls")
    tools: list[dict[str, Any]] | None = Field(None, description="Passed through to the model")


class OllamaGenerateBody(OllamaAnswerBody):
    """As Ollama's /api/generate."""

    prompt: str = Field("", description="What the person says; empty: the model is only loaded")
    system: str | None = Field(None, description="Instructions")
    images: list[str] | None = Field(None, description="Pictures, base64")
    suffix: str | None = Field(None, description="Refused: nothing is filled in between")
    raw: bool | None = Field(None, description="Refused: the model's own template is used")


class OllamaEmbedBody(OllamaBody):
    """As Ollama's /api/embed. The configured embedder answers, whatever the model's name."""

    input: str | list[Any] = Field(description="A text, or a list of texts")
    truncate: bool | None = Field(None, description="false: a text that is too long is refused")
    dimensions: Annotated[int | None, Field(ge=1)] = Field(
        None, description="Must be those of the configured embedder"
    )
    options: dict[str, Any] | None = Field(None, description="Accepted")


class OllamaEmbeddingsBody(OllamaBody):
    """As Ollama's older /api/embeddings."""

    prompt: str = Field("", description="A text")
    options: dict[str, Any] | None = Field(None, description="Accepted")


class OllamaShowBody(OllamaBody):
    """As Ollama's /api/show."""

    verbose: bool | None = Field(None, description="Accepted")


def ollama_chat(body: Mapping[str, Any]) -> Wanted:
    """Read a request of Ollama's /api/chat. Raises FieldError."""
    read = checked(OllamaChatBody, body)
    messages = tuple(
        _ollama_message(each, f"messages[{at}]") for at, each in enumerate(read.messages)
    )
    return Wanted(
        read.wanted,
        _named_calls(messages),
        _ollama_options(read, tuple(read.tools or ())),
        "ollama",
        stream=read.stream is not False,
    )


def ollama_generate(body: Mapping[str, Any]) -> Wanted:
    """Read a request of Ollama's /api/generate. Raises FieldError."""
    read = checked(OllamaGenerateBody, body)
    for name in ("suffix", "raw"):
        if getattr(read, name):
            raise FieldError(
                f"{name} is not supported: prompts go through the model's own template.",
                "Leave it out, or use /api/chat.",
                name,
            )
    images = tuple(picture(each, f"images[{at}]") for at, each in enumerate(read.images or ()))
    said = (ChatMessage("user", read.prompt, images),) if read.prompt or images else ()
    system = (ChatMessage("system", read.system),) if read.system and said else ()
    return Wanted(
        read.wanted,
        (*system, *said),
        _ollama_options(read, ()),
        "ollama",
        stream=read.stream is not False,
        kind="generate",
    )


def _ollama_message(given: Mapping[str, Any], place: str) -> ChatMessage:
    read = _message({**given, "content": given.get("content") or ""}, place)
    images = _list(given.get("images"), f"{place}.images")
    return ChatMessage(
        read.role,
        read.content,
        (*read.images, *(picture(each, f"{place}.images[{at}]") for at, each in enumerate(images))),
        read.tool_calls,
        read.tool_call_id or str(given.get("tool_name") or ""),
    )


def _named_calls(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Give each call of a tool an id and its answer the same one: Ollama's form has none.

    Answers stand in the order of the calls before them; one may name its tool.
    """
    told: list[ChatMessage] = []
    open_calls: list[ToolCall] = []
    count = 0
    for message in messages:
        if message.tool_calls:
            open_calls = []
            for call in message.tool_calls:
                count += 1
                open_calls.append(ToolCall(call.id or f"call_{count}", call.name, call.arguments))
            told.append(replace(message, tool_calls=tuple(open_calls)))
        elif message.role == "tool" and open_calls:
            named = message.tool_call_id
            answered = next((c for c in open_calls if named in (c.id, c.name)), open_calls[0])
            open_calls.remove(answered)
            told.append(replace(message, tool_call_id=answered.id))
        else:
            told.append(message)
    return tuple(told)


@dataclass(frozen=True, slots=True)
class _Option:
    """A known option of Ollama's: our name for it, or OpenAI's; what it must be."""

    name: str
    takes: tuple[type, ...]
    extra: bool = False
    convert: Callable[[Any], Any] = field(default=lambda value: value)


_NUMBER = (int, float)
_OPTIONS = {
    "temperature": _Option("temperature", _NUMBER),
    "top_p": _Option("top_p", _NUMBER),
    "seed": _Option("seed", (int,)),
    "stop": _Option(
        "stop", (str, list), convert=lambda v: (v,) if isinstance(v, str) else tuple(map(str, v))
    ),
    "num_predict": _Option("max_tokens", (int,), convert=lambda v: v if v > 0 else None),
    "top_k": _Option("top_k", (int,), extra=True),
    "min_p": _Option("min_p", _NUMBER, extra=True),
    "repeat_penalty": _Option("repeat_penalty", _NUMBER, extra=True),
    "presence_penalty": _Option("presence_penalty", _NUMBER, extra=True),
    "frequency_penalty": _Option("frequency_penalty", _NUMBER, extra=True),
}


def _ollama_options(read: OllamaAnswerBody, tools: tuple[Mapping[str, Any], ...]) -> Options:
    plain: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in (read.options or {}).items():
        known = _OPTIONS.get(name)
        if known is None or value is None:
            continue  # num_ctx and the like: the window is a setting of ours
        if not isinstance(value, known.takes) or isinstance(value, bool):
            raise FieldError(
                f"options.{name} must be a {'number' if float in known.takes else 'whole number'}"
                f"; it was {shown(value)}."
                if known.name != "stop"
                else f"options.stop must be text or a list of texts; it was {shown(value)}.",
                "",
                f"options.{name}",
            )
        (extra if known.extra else plain)[known.name] = known.convert(value)
    form = read.format
    if isinstance(form, str) and form not in ("", "json"):
        raise FieldError(
            f'format must be "json" or a JSON schema; it was {shown(form)}.', "", "format"
        )
    return Options(
        **plain,
        json_schema=form if isinstance(form, dict) and form else None,
        json_object=form == "json",
        think=bool(read.think),
        tools=tools,
        extra=extra,
    )
