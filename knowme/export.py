"""export(): everything that is kept, as plain files that a person and ``knowme sync`` can read.

Promises: every version of every message, retired ones too, byte for byte as it was stored; the
export appears whole or not at all. Source kind ``knowme`` reads it back.
Refuses to know: anything derived (items, vectors): they are made again from the messages.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import apsw

from knowme import __version__, archive
from knowme.db import rows, value
from knowme.errors import HomeError
from knowme.home import Home
from knowme.times import iso, minute, now_ms, zone

FORMAT = "knowme-export"
VERSION = 1
BATCH = 1000


def export(
    home: Home, target: Path, progress: Callable[[int, int], None] | None = None
) -> Mapping[str, int]:
    """Write the export into the new folder ``target``; returns how many of each were written.

    ``progress(messages done, all of them)``. Raises HomeError when ``target`` exists or cannot be
    written; an interrupted export leaves no ``target``.
    """
    if target.exists():
        raise HomeError(f"{target} exists already.", "Name a folder that does not.")
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        with home.db.read() as conn:
            counts = _write(home, conn, partial, progress)
        partial.replace(target)
        return counts
    except OSError as error:
        raise HomeError(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    home: Home,
    conn: apsw.Connection,
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    conversations = list(archive.conversations(conn))
    _dump(folder / "conversations.jsonl", conversations)
    total = int(value(conn, "SELECT count(*) FROM messages"))
    done = _dump(folder / "messages.jsonl", _messages(conn, total, progress))
    answers = _dump(folder / "answers.jsonl", _answers(conn))
    for conversation in conversations:
        _markdown(home, conn, folder / "markdown", conversation)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "knowme": __version__,
        "written": iso(now_ms()),
        "conversations": len(conversations),
        "messages": done,
        "answers": answers,
    }
    _dump(folder / "manifest.json", [manifest])
    return {"conversations": len(conversations), "messages": done, "answers": answers}


def _dump(path: Path, objects: Iterator[Mapping[str, Any]] | list[Any]) -> int:
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for thing in objects:
            file.write(json.dumps(thing, ensure_ascii=False) + "\n")
            written += 1
    return written


def _messages(
    conn: apsw.Connection, total: int, progress: Callable[[int, int], None] | None
) -> Iterator[dict[str, Any]]:
    names = ("source", "conversation", "external_id", "version", "seq", "role", "speaker", "text",
             "raw", "at_ms", "origin", "recall", "retired", "recorded_ms", "meta")  # fmt: skip
    last = done = 0
    while True:
        batch = rows(
            conn,
            "SELECT m.id, c.source, c.external_id, m.external_id, m.version, m.seq, m.role,"
            " m.speaker, plain(m.text), m.raw, m.at_ms, m.origin, m.recall, m.retired_ms,"
            " m.recorded_ms, m.meta FROM messages m"
            " JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.id > ? ORDER BY m.id LIMIT ?",
            (last, BATCH),
        )
        if not batch:
            return
        for number, *fields in batch:
            last = number
            thing = dict(zip(names, fields, strict=True))
            thing["recall"], thing["retired"] = bool(thing["recall"]), thing["retired"] is not None
            thing["meta"] = json.loads(thing["meta"])
            yield thing
        done += len(batch)
        if progress:
            progress(done, total)


def _answers(conn: apsw.Connection) -> Iterator[dict[str, Any]]:
    for row in conn.execute(
        "SELECT a.id, c.external_id, q.external_id, r.external_id, a.surface, a.state, a.model,"
        " a.usage, a.receipt, a.asked_ms, a.took_ms FROM answers a"
        " JOIN conversations c ON c.id = a.conversation_id JOIN messages q ON q.id = a.question_id"
        " LEFT JOIN messages r ON r.id = a.answer_id ORDER BY a.id"
    ):
        names = ("id", "conversation", "question", "answer", "surface", "state", "model", "usage",
                 "receipt", "asked_ms", "took_ms")  # fmt: skip
        thing: dict[str, Any] = dict(zip(names, row, strict=True))
        thing["usage"], thing["receipt"] = json.loads(thing["usage"]), json.loads(thing["receipt"])
        yield thing


def _markdown(
    home: Home, conn: apsw.Connection, folder: Path, conversation: Mapping[str, Any]
) -> None:
    """Write one conversation as a page for people."""
    name = _file_name(conversation["external_id"])
    path = folder / _file_name(conversation["source"]) / f"{conversation['id']}-{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as page:
        page.write(f"# {conversation['title'] or conversation['external_id']}\n\n")
        _turns(conn, page, conversation["id"], home.settings.memory.timezone)


def _file_name(name: str) -> str:
    """Return what every file system takes: no separators, no leading dot, at most 120 bytes."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    return plain.encode()[-120:].decode("utf-8", "ignore") or "-"


def _turns(conn: apsw.Connection, page: TextIO, conversation: int, timezone: str) -> None:
    tz = zone(timezone)
    for role, speaker, text, at_ms in conn.execute(
        "SELECT role, speaker, plain(text), at_ms FROM messages WHERE conversation_id = ?"
        " AND retired_ms IS NULL ORDER BY seq, id",
        (conversation,),
    ):
        if role == "document":
            page.write(f"{text}\n\n")
            continue
        when = minute(at_ms, tz)
        page.write(f"**{speaker or role}**{when and f' — {when}'}\n\n{text}\n\n")
