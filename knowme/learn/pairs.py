"""Pairs as rows of files: names, JSON in and out.

Promises: the same texts have the same uid; what was written reads back equal; a row that is cut or
foreign is named with its line. Words stand in ``runs/`` in these rows only, each with the messages
that it rests on (``because``), so that ``forget`` finds them.
Refuses to know: where a pair comes from, what is good.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowme.errors import InputError
from knowme.types import ChatMessage, Pair


def made(
    purpose: str,
    kind: str,
    messages: Sequence[ChatMessage],
    because: Iterable[int],
    place: str,
    **more: Any,
) -> Pair:
    """Return a pair with its uid: 16 hex digits over the purpose and the texts."""
    said = tuple(messages)
    if not said or said[-1].role != "assistant":
        raise InputError("A pair has no answer at its end.")
    told = json.dumps([purpose, *([each.role, each.content] for each in said)], ensure_ascii=False)
    uid = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]
    return Pair(uid, purpose, kind, said, tuple(sorted(set(because))), place, **more)


def with_messages(pair: Pair, messages: Sequence[ChatMessage]) -> Pair:
    """Return the pair with other messages, and so another uid."""
    other = made(pair.purpose, pair.kind, messages, pair.because, pair.place)
    return replace(pair, uid=other.uid, messages=other.messages)


def row(pair: Pair) -> dict[str, Any]:
    """Return a pair as JSON, in OpenAI's ``messages`` form with our columns beside it."""
    told: dict[str, Any] = {
        "uid": pair.uid,
        "purpose": pair.purpose,
        "kind": pair.kind,
        "messages": [{"role": each.role, "content": each.content} for each in pair.messages],
        "because": list(pair.because),
        "place": pair.place,
        "at_ms": pair.at_ms,
        "language": pair.language,
    }
    if pair.rating is not None:
        told["rating"] = pair.rating
    if pair.rejected:
        told["rejected"] = pair.rejected
    if pair.labels:
        told["labels"] = list(pair.labels)
    return told


def from_row(told: Mapping[str, Any]) -> Pair:
    """Return the pair that ``row`` wrote. Raises InputError."""
    try:
        messages = [ChatMessage(each["role"], each["content"]) for each in told["messages"]]
        pair = made(
            told["purpose"],
            told["kind"],
            messages,
            (int(each) for each in told["because"]),
            told["place"],
            at_ms=told.get("at_ms"),
            language=told.get("language", ""),
            rating=told.get("rating"),
            rejected=told.get("rejected", ""),
            labels=tuple(told.get("labels", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"It is no pair of knowme: {error!r}.") from error
    return replace(pair, uid=str(told.get("uid") or pair.uid))


def sharegpt(pair: Pair) -> dict[str, Any]:
    """Return a pair in ShareGPT's form: ``conversations`` of {from, value}."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    said = [{"from": names[each.role], "value": each.content} for each in pair.messages]
    return {"id": pair.uid, "conversations": said}


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as a JSONL file, whole or not at all; returns how many. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    many = 0
    try:
        partial.touch(mode=0o600)
        with partial.open("w", encoding="utf-8", errors="replace", newline="") as file:
            for told in rows:
                file.write(json.dumps(told, ensure_ascii=False) + "\n")
                many += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return many


def read(path: Path) -> list[Pair]:
    """Return the pairs of a file; none where it is not there. Raises InputError with the line."""
    found = []
    for number, told in _lines(path):
        try:
            found.append(from_row(json.loads(told)))
        except (ValueError, InputError) as error:
            raise InputError(f"{path}:{number}: {error}", "Make the data set again.") from error
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
