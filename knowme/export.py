"""export(): everything that is kept, as plain files that a person and ``knowme sync`` can read.

Promises: every version of every message, retired ones too, byte for byte as it was stored; what is
believed and what the person decided about it, with its history; the export appears whole or not at
all. Source kind ``knowme`` reads the messages back, ``take_decisions`` the person's word.
Refuses to know: items and vectors, which are made again from the messages, as facts are.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import apsw

from knowme import __version__, archive, facts
from knowme.db import rows, value
from knowme.errors import HomeError, InputError
from knowme.home import Home
from knowme.times import iso, minute, now_ms, zone
from knowme.workspace import PROFILE

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
    beliefs = {
        name.removesuffix(".jsonl"): _dump(folder / name, _table(conn, sql))
        for name, sql in _BELIEFS.items()
    }
    if (page := home.path / PROFILE).is_file():
        shutil.copyfile(page, folder / PROFILE)
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
        **beliefs,
    }
    _dump(folder / "manifest.json", [manifest])
    counts = {"conversations": len(conversations), "messages": done, "answers": answers}
    return counts | {name: beliefs[name] for name in ("facts", "decisions")}


_BELIEFS = {
    "facts.jsonl": "SELECT f.uid, f.subject, f.attribute, f.value, f.sentence, f.quote, f.said_ms,"
    " f.from_first, f.from_last, f.to_first, f.to_last, f.read_by, f.certain, f.outright,"
    " f.sensitive, f.state, f.reason, f.other, f.pinned, f.recorded_ms, f.retired_ms, c.source,"
    " c.external_id AS conversation, m.external_id AS message, f.start, f.end FROM facts f"
    " JOIN messages m ON m.id = f.message_id JOIN conversations c ON c.id = m.conversation_id"
    " ORDER BY f.id",
    "profile.jsonl": "SELECT uid, section, text, confidence, state, written_by, sensitive, pinned,"
    " recorded_ms, retired_ms, (SELECT json_group_array(quote) FROM line_evidence"
    "  WHERE line_uid = uid) AS quotes FROM lines ORDER BY id",
    "decisions.jsonl": "SELECT at_ms, target, uid, action, key, text, undone_ms FROM decisions"
    " ORDER BY id",
    "history.jsonl": "SELECT at_ms, target, uid, action, actor, before, after FROM events"
    " ORDER BY id",
}  # fmt: skip
"""What is believed and decided, by file."""


def _table(conn: apsw.Connection, sql: str) -> Iterator[dict[str, Any]]:
    found = conn.execute(sql)
    for row in found:
        yield {name: value for (name, *_), value in zip(found.description, row, strict=True)}


def take_decisions(home: Home, folder: Path) -> int:
    """Take over what the person had decided, from an export; returns how many were new.

    Before anything is learned from its messages: then facts and lines are settled by them. Raises
    InputError for a file that is none of ours.
    """
    path = folder / "decisions.jsonl"
    if not path.is_file():
        return 0
    try:
        told = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        given = [tuple(each[name] for name in _DECISION) for each in told]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path} is no list of decisions ({type(error).__name__}: {error}).",
            "Export again, or delete this file: then the messages alone are read.",
        ) from error
    return home.db.write(lambda conn: _take(conn, given))


_DECISION = ("at_ms", "target", "uid", "action", "key", "text", "undone_ms")


def _take(conn: apsw.Connection, given: list[tuple[Any, ...]]) -> int:
    new = 0
    for row in given:
        same = "at_ms = ? AND target = ? AND uid = ? AND action = ? AND key = ? AND text = ?"
        if rows(conn, f"SELECT 1 FROM decisions WHERE {same}", row[:-1]):
            continue
        conn.execute(f"INSERT INTO decisions({', '.join(_DECISION)}) VALUES(?,?,?,?,?,?,?)", row)
        new += 1
    known = rows(
        conn,
        "SELECT DISTINCT message_id FROM facts WHERE uid IN (SELECT value FROM json_each(?))",
        (json.dumps([row[2] for row in given if row[1] == "fact"]),),
    )
    facts.settle(conn, [number for (number,) in known], now_ms())
    return new


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
