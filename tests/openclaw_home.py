"""An OpenClaw home written by hand, for the tests that read one."""

import json
from pathlib import Path

import zstandard
from contracts.test_sources import drain

from knowme.sources.openclaw import OpenClawSource

SESSION = "11111111-2222-4333-8444-555555555555"


def header(session: str = SESSION, **more) -> dict:
    return {
        "type": "session",
        "version": 3,
        "id": session,
        "timestamp": "2026-03-01T10:00:00Z",
        **more,
    }


def said(role: str, name: str, parent: str | None, text, at: int = 0, **more) -> dict:
    message = {"role": role, "content": text, **more}
    if at:
        message["timestamp"] = 1_772_359_200_000 + at * 1000
    stamp = "2026-03-01T10:00:00.000Z"
    return {
        "type": "message",
        "id": name,
        "parentId": parent,
        "timestamp": stamp,
        "message": message,
    }


def user(name, parent, text, at=0, **more) -> dict:
    return said("user", name, parent, text, at, **more)


def answer(name, parent, text, at=0, **more) -> dict:
    return said("assistant", name, parent, [{"type": "text", "text": text}], at, **more)


def jsonl(*events) -> bytes:
    return b"".join(
        event if isinstance(event, bytes) else (json.dumps(event) + "\n").encode()
        for event in events
    )


def sessions(root: Path, agent: str = "main") -> Path:
    folder = root / "agents" / agent / "sessions"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def put(root: Path, name: str, *events) -> Path:
    path = sessions(root) / name
    data = jsonl(*events)
    path.write_bytes(zstandard.compress(data) if name.endswith(".zst") else data)
    return path


def add(path: Path, *events) -> None:
    with path.open("ab") as handle:
        handle.write(jsonl(*events))


def read(root: Path, cursor: dict | None = None):
    return drain(OpenClawSource(root), {} if cursor is None else cursor)


def words(records, role: str | None = "user") -> list[str]:
    return [one.text for one in records if one.kind == "message" and role in (None, one.role)]


def skips(records) -> list[tuple[str, str]]:
    return [(one.origin, one.text) for one in records if one.kind == "skipped"]


TALK = (
    header(),
    user("u1", None, "one", 1),
    answer("a1", "u1", "first", 2),
    user("u2", "a1", "two", 3),
    answer("a2", "u2", "second", 4),
)
