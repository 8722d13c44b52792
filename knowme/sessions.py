"""Sessions: what a conversation needs beside its messages, and how a client's is found again.

Promises: each turn is told with its class (what it is to a model that is not at home); where nobody
knows, it counts as what is kept closest. The anchor never moves back. Two chats that merely begin
alike stay apart. One question at a time in a conversation.
Refuses to know: how a prompt is composed, which model answers, what a turn is stored with.

The class of a turn is in its message's ``meta``, which whoever stores the turn writes: of a
question ``sent`` (a remote model has seen it) and ``said`` (it without its directive); of an answer
``local`` and ``rests_on`` (the classes of memory that its prompt held: "recalled:openclaw"). Rows
from before that have their receipts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import unicodedata
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import apsw

from knowme import archive
from knowme.compress import Summary
from knowme.context import EARLIER, Ready, Turn
from knowme.db import rows, value
from knowme.errors import NotFoundError
from knowme.reduce import is_internal, spoken
from knowme.times import iso
from knowme.types import ChatMessage, Message, ToolCall
from knowme.workspace import Part

SOURCE = "knowme"
MOST_TURNS = 2_000
"""Messages of a conversation that are shown, or looked through for one that a client repeats."""
MOST_OPEN = 200
"""Messages since the anchor that are read for each question; there are more only where very small
models, which see none and so move no anchor, have answered a long conversation."""
TITLE_CHARS = 60
MOST_READY = 8
"""Summaries made ahead that a session is given: those beyond the anchor, the newest."""
ANYTHING = ("recalled", ("", ":files", ":memory", ":sensitive", ":summary"))
"""The class of an answer of which nobody knows what it rests on, and its sources."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation as the next prompt needs it: its turns since the anchor, oldest first.

    ``id`` is 0 where there is no such conversation yet. ``earlier`` is the summary of what was said
    before the anchor, ``ready`` are those that were made ahead, for when it moves.
    """

    external_id: str
    id: int = 0
    turns: tuple[Turn, ...] = ()
    anchor_seq: int = -1
    earlier: Summary = field(default_factory=Summary)
    model: str = ""
    surface: str = ""
    ready: tuple[Ready, ...] = ()

    @property
    def summary(self) -> str:
        """Return the summary's text."""
        return self.earlier.text

    def part(self) -> Part | None:
        """Return the summary as a section of a prompt, or None."""
        if not self.earlier.text:
            return None
        return Part("summary", EARLIER, self.earlier.text, self.earlier.sources)


def load(conn: apsw.Connection, external_id: str, most: int = MOST_OPEN) -> Session:
    """Return a conversation of ours; an empty one where there is none of this name.

    ``most``: messages since the anchor that are read, the newest; above the window's length.
    """
    found = archive.find_conversation(conn, SOURCE, external_id)
    if found is None:
        return Session(external_id)
    kept = conn.execute(
        "SELECT anchor_seq, summary, summary_because, model, surface FROM sessions"
        " WHERE conversation_id = ?",
        (found,),
    ).fetchone() or (-1, "", "[]", "", "")
    anchor, text, because, model, surface = kept
    # A tool's result asks nothing: the answer that follows it belongs to the question before.
    said = [
        each for each in archive.last_messages(conn, found, most, anchor)
        if each.text.strip()
    ]  # fmt: skip
    made = rows(
        conn,
        "SELECT upto_seq, rolling, because FROM summaries WHERE conversation_id = ?"
        " AND upto_seq > ? ORDER BY upto_seq DESC LIMIT ?",
        (found, anchor, MOST_READY),
    )
    earlier, *summaries = (
        kept_summary(conn, *each) for each in ((text, because), *(row[1:] for row in made))
    )
    ready = tuple(Ready(row[0], each) for row, each in zip(made, summaries, strict=True))
    turns = tuple(classed(conn, said))
    return Session(external_id, found, turns, anchor, earlier, model, surface, ready)


def kept_summary(conn: apsw.Connection, text: str, because: str) -> Summary:
    """Return a summary as it is kept, with the sources that its answers rest on.

    ``because`` is JSON: the ids of each line's messages, of rows from before a single id.
    """
    ids = tuple(
        tuple(map(int, line)) if isinstance(line, list) else (int(line),)
        for line in json.loads(because)
    )
    told = Summary(text, ids)
    before = archive.messages(conn, told.messages).values()
    answers = sorted((each for each in before if each.role == "assistant"), key=lambda m: m.seq)
    rested = {source for turn in classed(conn, answers) for source in turn.sources}
    return replace(told, sources=tuple(sorted(rested)))


def moved(
    conn: apsw.Connection,
    conversation_id: int,
    *,
    anchor_seq: int = -1,
    summary: Summary | None = None,
    model: str = "",
    surface: str = "",
    at_ms: int,
) -> None:
    """Keep where the window begins, and who answered last ("" leaves what is there).

    The anchor only moves on; ``summary`` is kept when it does.
    """
    told = summary if summary is not None and anchor_seq >= 0 else Summary()
    conn.execute(
        "INSERT INTO sessions(conversation_id, anchor_seq, summary, summary_because, model,"
        " surface, updated_ms) VALUES(:id, :anchor, :summary, :because, :model, :surface, :at)"
        " ON CONFLICT(conversation_id) DO UPDATE SET"
        " summary = iif(:told AND :anchor > anchor_seq, :summary, summary),"
        " summary_because = iif(:told AND :anchor > anchor_seq, :because, summary_because),"
        " anchor_seq = max(anchor_seq, :anchor),"
        " model = iif(:model = '', model, :model), surface = iif(:surface = '', surface, :surface),"
        " updated_ms = max(updated_ms, :at)",
        {
            "id": conversation_id, "anchor": anchor_seq, "summary": told.text,
            "because": json.dumps(told.because), "model": model, "surface": surface, "at": at_ms,
            "told": summary is not None,
        },
    )  # fmt: skip


# --- the class of a turn ------------------------------------------------------------------------


def classed(conn: apsw.Connection, messages: Sequence[Message]) -> list[Turn]:
    """Return messages of the archive, oldest first, as turns with their classes."""
    old = [each.id for each in messages if "local" not in each.meta and "sent" not in each.meta]
    receipts = _receipts(conn, old)
    turns: list[Turn] = []
    rested: set[str] = set()  # an answer without a class of its own may repeat the ones before it
    for each in messages:
        if each.role == "assistant":
            cls, sources = _of_answer(each, receipts, rested)
            rested |= set(sources)
            turns.append(Turn(ChatMessage("assistant", each.text), cls, sources, each.seq, each.id))
        else:
            away = each.meta.get("sent") or receipts.get(each.id, (True,))[0] is False
            said = ChatMessage("user", str(each.meta.get("said", each.text)))
            turns.append(Turn(said, "sent" if away else "history", (), each.seq, each.id))
    return turns


def _of_answer(
    message: Message, receipts: Mapping[int, tuple[bool, tuple[str, ...]]], rested: Iterable[str]
) -> tuple[str, tuple[str, ...]]:
    meta = message.meta
    if "local" in meta:
        cls, sources = _of_classes(meta.get("rests_on", ()))
        return cls if meta["local"] else "sent", sources
    if message.id not in receipts:
        return ANYTHING
    at_home, own = receipts[message.id]
    if not at_home:
        return "sent", own
    sources = tuple(sorted({*own, *rested}))
    return ("recalled", sources) if sources else ("history", ())


def _of_classes(named: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Return what an answer at home is whose prompt held these classes of memory."""
    sources = tuple(
        name.partition(":")[2] if name.startswith("recalled") else f":{name}"
        for name in map(str, named)
        if name not in ("question", "history", "sent")
    )
    return ("recalled", sources) if sources else ("history", ())


def _receipts(conn: apsw.Connection, ids: Sequence[int]) -> dict[int, tuple[bool, tuple[str, ...]]]:
    """Return, for questions and answers, whether they stayed at home and what they rest on."""
    found: dict[int, tuple[bool, tuple[str, ...]]] = {}
    if not ids:
        return found
    for question, answer, at_home, uids in rows(
        conn,
        "SELECT question_id, answer_id, json_extract(receipt, '$.local'),"
        " (SELECT json_group_array(json_extract(u.value, '$.uid'))"
        "  FROM json_each(receipt, '$.used') u)"
        " FROM answers WHERE question_id IN (SELECT value FROM json_each(?1))"
        " OR answer_id IN (SELECT value FROM json_each(?1))",
        (json.dumps(list(ids)),),
    ):
        local = at_home is None or bool(at_home)
        found[question] = (local, ())
        if answer is not None:
            found[answer] = (local, _sources(conn, json.loads(uids or "[]")))
    return found


def _sources(conn: apsw.Connection, uids: Sequence[str]) -> tuple[str, ...]:
    known = dict(
        rows(
            conn,
            "SELECT uid, source FROM items WHERE uid IN (SELECT value FROM json_each(?))",
            (json.dumps(list(uids)),),
        )
    )
    return tuple(sorted({known.get(uid, "") for uid in uids}))


def told(conn: apsw.Connection, external_id: str, messages: Sequence[ChatMessage]) -> list[Turn]:
    """Return the turns of a client that keeps its conversation itself, with their classes.

    They are known again by their words, calls of tools by their arguments. An answer that is none
    of this conversation's may rest on anything; what a person said is history, and so is what a
    tool returned, but to a remote model that called it.
    """
    found = archive.find_conversation(conn, SOURCE, external_id) if external_id else None
    known: dict[tuple[str, str], Turn] = {}
    pictures: dict[int, int] = {}
    calls: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    if found is not None:
        said = archive.last_messages(conn, found, MOST_TURNS)
        for each, turn in zip(said, classed(conn, said), strict=True):
            known[turn.role, _plain(turn.text)] = turn
            known[turn.role, _plain(each.text)] = turn  # as it was typed: with its "/cloud"
        pictures = {each.id: each.meta.get("images", 0) for each in said}
        if any(message.tool_calls for message in messages):
            calls = _calls(conn, found)
    turns: list[Turn] = []
    for message in messages:
        same = known.get((message.role, _plain(message.content)))
        if same is not None and len(message.images) > pictures[same.message_id]:
            same = None  # "What is this?" was asked before, and not of this picture
        turn = _told(message, same, calls, turns[-1] if turns else Turn(message))
        if same is not None:
            turn = replace(turn, seq=same.seq, message_id=same.message_id)
            if _plain(same.text) != _plain(message.content):
                turn = replace(turn, message=replace(message, content=same.text))
        turns.append(turn)
    return turns


def _told(
    message: ChatMessage,
    same: Turn | None,
    calls: Mapping[tuple[str, str], tuple[str, tuple[str, ...]]],
    last: Turn,
) -> Turn:
    """Return a client's message with its class; ``same`` is the one of ours that it repeats."""
    told = [calls.get(_call(each), ANYTHING) for each in message.tool_calls]
    if message.role == "assistant" and message.content.strip():
        told.append(ANYTHING if same is None else (same.cls, same.sources))
    if told:
        cls, sources = _carefully(told)
        return Turn(message, cls, sources)
    if same is not None:
        return Turn(message, same.cls, same.sources)
    away = message.role == "tool" and last.role != "user" and last.cls == "sent"
    return Turn(message, "sent" if away else "history")


def _carefully(
    told: Sequence[tuple[str, tuple[str, ...]]],
) -> tuple[str, tuple[str, ...]]:
    """Return the class of what has parts of several: the one that is kept closest."""
    classes = {cls for cls, _ in told}
    cls = next(each for each in ("recalled", "history", "sent") if each in classes)
    return cls, tuple(dict.fromkeys(source for _, sources in told for source in sources))


def _calls(
    conn: apsw.Connection, conversation_id: int
) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Return the class of each call of a tool that was made in a conversation, and its sources."""
    made: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for calls, at_home, classes in rows(
        conn,
        "SELECT json_extract(receipt, '$.tool_calls'), json_extract(receipt, '$.local'),"
        " json_extract(receipt, '$.classes') FROM answers"
        " WHERE conversation_id = ? ORDER BY id DESC LIMIT ?",
        (conversation_id, MOST_TURNS),
    ):
        for call in json.loads(calls or "[]"):
            key = _call(ToolCall(call["id"], call["name"], call["arguments"]))
            cls, sources = _of_classes(json.loads(classes or "[]"))
            own = (cls if at_home else "sent", sources)
            made[key] = own if key not in made else _carefully((made[key], own))
    return made


def _call(call: ToolCall) -> tuple[str, str]:
    return call.name, str(_arguments(call.arguments))


# --- lists --------------------------------------------------------------------------------------


def listed(
    conn: apsw.Connection, limit: int = 50, before_ms: int | None = None
) -> list[dict[str, Any]]:
    """Return the conversations held here, the last used first; times in ISO 8601, UTC."""
    found = rows(
        conn,
        # The last message by the index: one look for each conversation, whatever its length.
        "SELECT c.id, c.external_id, c.title, coalesce(s.model, ''), coalesce(s.updated_ms,"
        " (SELECT recorded_ms FROM messages WHERE conversation_id = c.id AND retired_ms IS NULL"
        "  ORDER BY seq DESC, id DESC LIMIT 1)) AS used"
        " FROM conversations c LEFT JOIN sessions s ON s.conversation_id = c.id"
        " WHERE c.source = ?1 AND used IS NOT NULL AND (?2 IS NULL OR used < ?2)"
        " ORDER BY used DESC, c.id DESC LIMIT ?3",
        (SOURCE, before_ms, limit),
    )
    return [_listed(conn, *each) for each in found]


def _listed(
    conn: apsw.Connection, number: int, name: str, title: str, role: str, used: int
) -> dict[str, Any]:
    ((many, first, last),) = rows(
        conn,
        "SELECT count(*), min(at_ms), max(at_ms) FROM messages"
        " WHERE conversation_id = ? AND retired_ms IS NULL",
        (number,),
    )
    return {
        "id": name, "title": title or _title(conn, number), "turns": many, "first": iso(first),
        "last": iso(last), "used": iso(used), "surfaces": _distinct(conn, number, "surface"),
        "models": _distinct(conn, number, "model"), "role": role,
    }  # fmt: skip


def _title(conn: apsw.Connection, conversation_id: int) -> str:
    text = value(
        conn,
        "SELECT substr(plain(text), 1, 400) FROM messages WHERE conversation_id = ?"
        " AND role = 'user' AND retired_ms IS NULL ORDER BY seq, id LIMIT 1",
        (conversation_id,),
    )
    title = " ".join((text or "").split())
    if len(title) <= TITLE_CHARS:
        return title
    cut = title.rfind(" ", TITLE_CHARS // 2, TITLE_CHARS)
    return title[: cut if cut > 0 else TITLE_CHARS] + " …"


def _distinct(conn: apsw.Connection, conversation_id: int, column: str) -> list[str]:
    found = rows(
        conn,
        f"SELECT {column} FROM answers WHERE conversation_id = ? AND {column} <> ''"
        f" GROUP BY {column} ORDER BY min(id)",
        (conversation_id,),
    )
    return [name for (name,) in found]


def detail(conn: apsw.Connection, external_id: str) -> dict[str, Any]:
    """Return a conversation with its messages, and who answered them and why.

    Raises NotFoundError.
    """
    found = archive.find_conversation(conn, SOURCE, external_id)
    if found is None:
        raise NotFoundError(f"There is no session {external_id!r}.", "See: GET /api/sessions")
    (row,) = rows(
        conn,
        "SELECT c.title, coalesce(s.summary, ''), coalesce(s.model, ''), coalesce(s.surface, '')"
        " FROM conversations c LEFT JOIN sessions s ON s.conversation_id = c.id WHERE c.id = ?",
        (found,),
    )
    answers = _answers(conn, found)
    return {
        "id": external_id, "title": row[0] or _title(conn, found), "summary": row[1],
        "role": row[2], "surface": row[3],
        "messages": [
            {
                "id": message.id, "role": message.role, "text": message.text,
                "at": iso(message.at_ms), **answers.get(message.id, {}),
            }
            for message in archive.last_messages(conn, found, MOST_TURNS)
        ],
    }  # fmt: skip


def _answers(conn: apsw.Connection, conversation_id: int) -> dict[int, dict[str, Any]]:
    """Return what is known of each answer of a conversation, by the number of its message."""
    found = rows(
        conn,
        "SELECT a.answer_id, a.id, a.state, a.model, a.surface, a.took_ms,"
        " coalesce(c.role, ''), c.local, coalesce(c.stage, ''), coalesce(c.reason, ''),"
        " (SELECT coalesce(sum(cost), 0) FROM calls WHERE answer_id = a.id),"
        " (SELECT o.kind FROM outcomes o JOIN choices h ON h.id = o.choice_id"
        "  WHERE h.answer_id = a.id ORDER BY o.id DESC LIMIT 1),"
        " (SELECT o.value FROM outcomes o JOIN choices h ON h.id = o.choice_id"
        "  WHERE h.answer_id = a.id ORDER BY o.id DESC LIMIT 1)"
        " FROM answers a LEFT JOIN calls c ON c.id = (SELECT id FROM calls"
        "  WHERE answer_id = a.id AND purpose = 'answer' ORDER BY id DESC LIMIT 1)"
        " WHERE a.conversation_id = ? AND a.answer_id IS NOT NULL ORDER BY a.id",
        (conversation_id,),
    )
    return {
        message: {
            "receipt_id": number, "state": state, "model": model, "surface": surface,
            "took_ms": took, "role_of_model": role, "local": None if local is None else bool(local),
            "stage": stage, "reason": reason, "cost": cost,
            "rating": None if kind is None else {"kind": kind, "value": told},
        }
        for message, number, state, model, surface, took, role, local, stage, reason, cost, kind,
        told in found
    }  # fmt: skip


# --- clients that keep the conversation themselves ----------------------------------------------


def thread_of(conn: apsw.Connection, messages: Sequence[ChatMessage]) -> str | None:
    """Return the name of the conversation that a client's messages go on with; None: a new one.

    Its last answer tells. A client that drops answers and asks again is known by what stands
    before; if it asks something else there, it is the same conversation only where more than one
    question is common, because two chats may well begin alike.
    """
    chain = _chain(messages)
    answered = [at for at, (role, _) in enumerate(chain) if role == "assistant"]
    if not answered:
        return None
    if chain[-1][0] == "user" and (again := _thread(conn, chain[-1][1])):
        return again[1]
    for at in reversed(answered):
        found = _thread(conn, chain[at][1])
        if found is None:
            continue
        number, name, at_ms = found
        if not _goes_on(conn, number, at_ms):
            return name
        if at + 1 < len(chain) and (later := _thread(conn, chain[at + 1][1])):
            return later[1]
        return name if sum(role == "user" for role, _ in chain[: at + 1]) > 1 else None
    return None


def remember_thread(
    conn: apsw.Connection, messages: Sequence[ChatMessage], conversation: str, at_ms: int
) -> None:
    """Keep by what a conversation is found again: its messages, our answer the last of them."""
    found = archive.find_conversation(conn, SOURCE, conversation)
    chain = _chain(messages)
    if found is None or not chain or chain[-1][0] != "assistant":
        return
    keep = [chain[-1][1]]
    if any(role == "assistant" for role, _ in chain[:-1]):
        keep.append(chain[-2][1])  # the question: asked once more, it is the same conversation
    conn.executemany(
        "INSERT INTO threads(hash, conversation_id, at_ms) VALUES(?, ?, ?) ON CONFLICT(hash)"
        " DO UPDATE SET conversation_id = excluded.conversation_id, at_ms = excluded.at_ms",
        [(each, found, at_ms) for each in keep],
    )


def _thread(conn: apsw.Connection, hashed: bytes) -> tuple[int, str, int] | None:
    row = conn.execute(
        "SELECT t.conversation_id, c.external_id, t.at_ms FROM threads t"
        " JOIN conversations c ON c.id = t.conversation_id WHERE t.hash = ?",
        (hashed,),
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]), int(row[2]))


def _goes_on(conn: apsw.Connection, conversation_id: int, at_ms: int) -> bool:
    """Tell whether a conversation was answered again after this time."""
    later = value(
        conn,
        "SELECT 1 FROM threads WHERE conversation_id = ? AND at_ms > ? LIMIT 1",
        (conversation_id, at_ms),
    )
    return later is not None


def _chain(messages: Sequence[ChatMessage]) -> list[tuple[str, bytes]]:
    """Return (role, hash of all up to here) of each message that a person or we said.

    A tool's results and what a client adds of its own are left out: they differ from time to time.
    """
    chain: list[tuple[str, bytes]] = []
    before = b""
    for message in messages:
        said = _said(message)
        if said:
            before = hashlib.sha256(before + said.encode("utf-8", "replace")).digest()
            chain.append((message.role, before))
    return chain


def _said(message: ChatMessage) -> str:
    if message.role not in ("user", "assistant") or is_internal(message):
        return ""
    text = spoken(message.content) if message.role == "user" else message.content
    calls = [[call.name, _arguments(call.arguments)] for call in message.tool_calls]
    if not (text.strip() or calls or message.images):
        return ""
    images = [hashlib.sha256(each.encode()).hexdigest() for each in message.images]
    return json.dumps([message.role, _plain(text), calls, images], ensure_ascii=False)


def _plain(text: str) -> str:
    """Return text as clients may hand it back: other spaces, another form of the same letters."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _arguments(text: str) -> Any:
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        return text


# --- one at a time ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Held:
    lock: asyncio.Lock
    users: int = 0


class Locks:
    """One lock a conversation in each event loop; it is there as long as somebody needs it."""

    def __init__(self) -> None:
        self._held: dict[tuple[asyncio.AbstractEventLoop, str], _Held] = {}
        self._guard = threading.Lock()

    def __len__(self) -> int:
        """Return how many conversations are locked or waited for."""
        return len(self._held)

    @asynccontextmanager
    async def of(self, conversation: str) -> AsyncIterator[None]:
        """Hold the lock of a conversation: its questions are answered one after the other."""
        key = (asyncio.get_running_loop(), conversation)
        with self._guard:
            held = self._held.setdefault(key, _Held(asyncio.Lock()))
            held.users += 1
        try:
            async with held.lock:
                yield
        finally:
            with self._guard:
                held.users -= 1
                if not held.users:
                    self._held.pop(key, None)
