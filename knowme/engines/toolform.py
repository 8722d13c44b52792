"""A form of tool calls for a model whose chat template knows none: JSON, kept by a grammar.

The tools stand in the system message, the answer is {"tool_call": {"name", "arguments"}} or
{"response": text}, and a JSON schema lets the model write nothing else (llama.cpp's former
"generic" tool format did the same). Earlier calls and their results become plain messages.

Promises: text is passed on as it comes, without its JSON; a call is passed on whole or not at all.
Refuses to know: the model, the wire.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from knowme.types import ChatMessage, Options, ToolDelta

_RESPONSE = re.compile(r'\s*\{\s*"response"\s*:\s*"')
_CALL = re.compile(r'\s*\{\s*"tool_call"')
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/", "\\": "\\", '"': '"'}
_MAY = (
    'You may call a tool. Answer with JSON only: {"tool_call": {"name": NAME, "arguments": '
    '{...}}} to call one, or {"response": TEXT} to answer the user.'
)
_MUST = 'Call a tool. Answer with JSON only: {"tool_call": {"name": NAME, "arguments": {...}}}.'


def wanted(options: Options) -> tuple[Mapping[str, Any], ...]:
    """Return the functions that may be called: none, all, or the one that ``tool_choice`` names."""
    functions = tuple(
        tool["function"] for tool in options.tools if isinstance(tool.get("function"), Mapping)
    )
    choice = options.tool_choice
    if choice == "none":
        return ()
    if isinstance(choice, Mapping):
        name = (choice.get("function") or {}).get("name")
        return tuple(function for function in functions if function.get("name") == name)
    return functions


def forced(options: Options) -> bool:
    """Tell whether some tool must be called."""
    return options.tool_choice == "required" or isinstance(options.tool_choice, Mapping)


def rewritten(
    messages: Sequence[ChatMessage], options: Options
) -> tuple[list[ChatMessage], Options]:
    """Return messages without tool calls, and options that make the model keep to the form."""
    functions = wanted(options)
    must = forced(options)
    found = _plain(messages)
    if not functions:
        return found, replace(options, tools=(), tool_choice=None)
    lines = [_MUST if must else _MAY, "The tools, with their arguments as a JSON schema:"]
    lines += [json.dumps(_shown(function), ensure_ascii=False) for function in functions]
    text = "\n".join(lines)
    if found and found[0].role == "system":
        found[0] = replace(found[0], content=f"{found[0].content}\n\n{text}")
    else:
        found.insert(0, ChatMessage("system", text))
    schema = _schema(functions, None if must else _answer(options))
    options = replace(options, tools=(), tool_choice=None, json_schema=schema, json_object=False)
    return found, options


def _shown(function: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: function[name] for name in ("name", "description") if function.get(name)}
    return {**shown, "arguments": function.get("parameters") or {"type": "object"}}


def _answer(options: Options) -> Mapping[str, Any]:
    if options.json_schema is not None:
        return options.json_schema
    return {"type": "object" if options.json_object else "string"}


def _schema(
    functions: Sequence[Mapping[str, Any]], answer: Mapping[str, Any] | None
) -> dict[str, Any]:
    calls = [
        _object(
            tool_call=_object(
                name={"const": function.get("name")},
                arguments=function.get("parameters") or {"type": "object"},
            )
        )
        for function in functions
    ]
    return {"anyOf": calls if answer is None else [*calls, _object(response=answer)]}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _plain(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return earlier calls and results as what an assistant and a user say."""
    names: dict[str, str] = {}
    found: list[ChatMessage] = []
    for said in messages:
        if said.tool_calls:
            names |= {call.id: call.name for call in said.tool_calls}
            calls = "\n".join(
                f'{{"tool_call": {{"name": {json.dumps(call.name)}, "arguments": '
                f"{call.arguments or '{}'}}}}}"
                for call in said.tool_calls
            )
            found.append(ChatMessage("assistant", f"{said.content}\n{calls}".strip()))
        elif said.role == "tool":
            tool = names.get(said.tool_call_id, "the tool")
            result = f"Result of {tool}:\n{said.content}"
            if found and found[-1].role == "user" and found[-1].content.startswith("Result of "):
                found[-1] = ChatMessage("user", f"{found[-1].content}\n\n{result}")
            else:
                found.append(ChatMessage("user", result))
        else:
            found.append(said)
    return found


class Reply:
    """Reads an answer in this form while it comes."""

    def __init__(self) -> None:
        self._held = ""
        self._kind = ""  # text, rest (of the text: nothing), whole; "" as long as it is not known

    def feed(self, piece: str) -> str:
        """Return the text that one more piece brings; "" while it is a call or not yet known."""
        self._held += piece
        if not self._kind:
            if start := _RESPONSE.match(self._held):
                self._kind, self._held = "text", self._held[start.end() :]
            elif _CALL.match(self._held) or len(self._held) > 40:
                self._kind = "whole"
        return self._text() if self._kind == "text" else ""

    def end(self) -> tuple[str, tuple[ToolDelta, ...]]:
        """Return the rest of the text, and the call when it was one and came to its end."""
        if self._kind in ("text", "rest"):
            return "", ()
        try:
            found = json.loads(self._held)
            call = found.get("tool_call")
        except (ValueError, AttributeError):
            return ("" if self._held.lstrip().startswith("{") else self._held), ()
        if call is None:
            said = found.get("response", found)
            return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False), ()
        arguments = json.dumps(call.get("arguments") or {}, ensure_ascii=False)
        identity = f"call_{secrets.token_hex(8)}"
        return "", (ToolDelta(0, id=identity, name=str(call.get("name")), arguments=arguments),)

    def _text(self) -> str:
        """Take what is whole of a JSON string off what is held, and return it decoded."""
        found: list[str] = []
        held, at = self._held, 0
        while at < len(held):
            char = held[at]
            if char == '"':
                self._kind, at = "rest", len(held)
            elif char != "\\":
                found.append(char)
                at += 1
            else:
                text, used = _escape(held, at)
                if not used:
                    break
                found.append(text)
                at += used
        self._held = held[at:]
        return "".join(found)


def _escape(held: str, at: int) -> tuple[str, int]:
    """Return (character, length) of the escape that begins there; length 0: it is not whole."""
    mark = held[at + 1 : at + 2]
    if mark != "u":
        return _ESCAPES.get(mark, mark), 2 if mark else 0
    if len(held) < at + 6:
        return "", 0
    code = int(held[at + 2 : at + 6], 16)
    if not 0xD800 <= code < 0xDC00:
        return ("\ufffd" if 0xDC00 <= code < 0xE000 else chr(code)), 6
    after = held[at + 6 : at + 12]
    if len(after) < 6 and "\\u".startswith(after[:2]):
        return "", 0
    if after.startswith("\\u") and 0xDC00 <= (low := int(after[2:], 16)) < 0xE000:
        return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), 12
    return "\ufffd", 6
