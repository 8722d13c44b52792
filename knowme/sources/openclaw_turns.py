"""From the entries of one conversation to records: who said what, joined, stripped, marked.

Promises: one record for each user message and one for each answer, however many assistant messages
and tool calls it took; the answer's external id is that of its first entry; ``raw`` holds every
JSON line verbatim, tool results and thinking included; ``text`` holds words only.
Refuses to know: files, rows, which entries are on the current branch.

Decisions. A tool result stands in the raw of the answer it belongs to; only one without an answer
is a record of its own (role ``tool``, never recalled). What no person wrote (``System:`` lines,
heartbeats, cron prompts) has the role ``system`` and is never recalled, nor is an answer that only
acknowledges it. Words of somebody else (a group member, a forward, the prompt of a sub-agent) keep
the role ``user`` with ``meta.other``, and the speaker's name where one is known. ``seq`` is the
time in ms, raised where needed so that it grows along the conversation: copies of a session agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from knowme.sources.files import sound
from knowme.sources.openclaw_text import Stripped, is_acknowledgement, strip
from knowme.sources.openclaw_transcripts import Line
from knowme.sources.openclaw_tree import Node, text_id
from knowme.types import Record

# An assistant message this long after the last one is not the rest of the same answer.
MAX_PAUSE_MS = 3_600_000
_MAX_MS = 253_402_300_799_999  # the end of the year 9999
_AUTOMATED_KEY = re.compile(r":(?:cron|heartbeat)(?::|$)")
_GROUP_KEY = re.compile(r":(?:group|channel|room):")


@dataclass(slots=True)
class Info:
    """What OpenClaw's own books say of a session."""

    key: str = ""
    title: str = ""
    channel: str = ""
    group: bool | None = None
    subagent: bool = False
    parent: str = ""

    def learn(self, row: Mapping[str, Any]) -> None:
        """Take what an entry of ``sessions.json`` or a row of the database says."""
        self.title = self.title or _name(row)
        self.channel = self.channel or _text(row, "channel", "lastChannel")
        chat = _text(row, "chat_type", "chatType")
        if chat:
            self.group = chat != "direct"
        if _text(row, "spawned_by", "spawnedBy") or row.get("created_via") == "spawn":
            self.subagent = True
            self.parent = self.parent or _text(row, "spawned_by", "spawnedBy")

    def learn_key(self, key: str) -> None:
        """Take what a session key says, ``agent:main:telegram:group:-100``."""
        self.key = self.key or key
        self.subagent = self.subagent or ":subagent:" in key
        if self.group is None and _GROUP_KEY.search(key):
            self.group = True

    @property
    def automated(self) -> bool:
        """Whether nobody but a clock speaks in this session."""
        return bool(_AUTOMATED_KEY.search(self.key))


def _text(row: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _name(row: Mapping[str, Any]) -> str:
    return _text(row, "display_name", "displayName", "label", "subject")


def parse_time(value: Any) -> int | None:
    """Return milliseconds from what OpenClaw writes: ms, seconds, or ISO 8601; None from nonsense.

    A number below 1e11 is taken as seconds.
    """
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
            whole = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000
        except (ValueError, OverflowError):
            return None
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        whole = value if value >= 1e11 else value * 1000
    else:
        return None
    return int(whole) if 0 < whole <= _MAX_MS else None


def event_time(event: Mapping[str, Any]) -> int | None:
    """Return when a message was said: its own time, else that of its line."""
    message = event.get("message")
    own = parse_time(message.get("timestamp")) if isinstance(message, dict) else None
    return own if own is not None else parse_time(event.get("timestamp"))


@dataclass(slots=True)
class Grouper:
    """Tells where a record begins along a conversation."""

    open: bool = False
    at_ms: int | None = None

    def starts(self, node: Node) -> bool:
        """Tell whether this entry begins a record (else it belongs to the one before)."""
        if node.kind == "user":
            self.open = False
            return True
        begins = not self.open or (node.kind == "assistant" and self._paused(node))
        self.open = self.open or node.kind == "assistant"
        self.at_ms = node.at_ms
        return begins

    def _paused(self, node: Node) -> bool:
        if self.at_ms is None or node.at_ms is None:
            return False
        return node.at_ms - self.at_ms > MAX_PAUSE_MS


@dataclass(slots=True)
class _Answer:
    node: Node
    origin: str
    raws: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    model: str = ""
    tools: list[str] = field(default_factory=list)


class Turns:
    """Fed with the entries of a conversation in order; gives its records."""

    def __init__(
        self, conversation: str, info: Info, is_owner: Callable[[str, str], bool | None]
    ) -> None:
        self.conversation = conversation
        self.info = info
        self.is_owner = is_owner
        self.seq = -1
        self.seq_before = -1  # the seq before the last record
        self.grouper = Grouper()
        self._answer: _Answer | None = None
        self.prompted = "said"  # what the last user message was

    def feed(self, node: Node, line: Line, origin: str) -> Iterator[Record]:
        """Take the next entry; yield what it completes."""
        assert line.event is not None
        message = line.event.get("message")
        if not node.kind or not isinstance(message, dict):
            return
        if self.grouper.starts(node):
            yield from self.flush()
            if node.kind == "user":
                yield self._user(node, line, message, origin)
                return
            if node.kind == "tool":
                yield self._record(node, origin, role="tool", raw=line.raw, recall=False)
                return
            self._answer = _Answer(node, origin)
        assert self._answer is not None
        self._answer.raws.append(line.raw)
        if node.kind == "assistant":
            self._add(self._answer, message)

    def flush(self) -> Iterator[Record]:
        """Yield the answer that is being joined, if there is one."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        text = sound("\n\n".join(answer.texts))
        idle = self.prompted != "said" and is_acknowledgement(text)
        quiet = not text or idle or is_acknowledgement(text) and len(text) < 20
        meta: dict[str, Any] = {"model": answer.model} if answer.model else {}
        if answer.tools:
            meta["tools"] = answer.tools
        yield self._record(
            answer.node,
            answer.origin,
            role="assistant",
            text=text,
            raw="\n".join(answer.raws),
            recall=not quiet,
            meta=meta,
        )

    def _add(self, answer: _Answer, message: Mapping[str, Any]) -> None:
        for text in texts_of(message.get("content")):
            # A delivered answer may be mirrored into the transcript once more.
            if text.strip() and text.strip() not in answer.texts:
                answer.texts.append(text.strip())
        answer.model = answer.model or (text_id(message.get("model")) or "")
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == "toolCall":
                name = str(block.get("name"))
                if name not in answer.tools:
                    answer.tools.append(name)

    def _user(self, node: Node, line: Line, message: Mapping[str, Any], origin: str) -> Record:
        whole = "\n".join(texts_of(message.get("content")))
        said = strip(whole, self.info.group)
        if self.info.automated and said.kind == "said":
            said.kind = "cron"
        self.prompted = said.kind
        meta = dict(said.meta)
        if images := _count_images(message.get("content")):
            meta["images"] = images
        own = _own(message)
        if said.kind == "said" and self._by_another(said, own):
            meta["other"] = True
        text = sound(said.text)
        return self._record(
            node,
            origin,
            role="user" if said.kind == "said" else "system",
            speaker=sound(said.speaker) if said.kind == "said" else "",
            text=text,
            raw=line.raw,
            recall=said.kind == "said" and bool(text.strip()),
            meta=meta if said.kind == "said" else {**meta, "automated": said.kind},
            at_ms=parse_time(message.get("timestamp")) or said.at_ms,
        )

    def _by_another(self, said: Stripped, own: bool | None) -> bool:
        if self.info.subagent or said.meta.get("forwarded_from"):
            return True
        if own is not None:
            return not own
        if not said.group:
            return False
        identity = str(said.meta.get("sender_id", ""))
        return self.is_owner(said.speaker, identity) is False

    def _record(
        self,
        node: Node,
        origin: str,
        *,
        role: Any,
        raw: str,
        text: str = "",
        speaker: str = "",
        recall: bool = True,
        meta: dict[str, Any] | None = None,
        at_ms: int | None = None,
    ) -> Record:
        at_ms = node.at_ms if at_ms is None else at_ms
        self.seq_before, self.seq = self.seq, max(at_ms or 0, self.seq + 1)
        meta = meta or {}
        if self.info.channel:
            meta.setdefault("channel", self.info.channel)
        if self.info.subagent:
            meta["subagent"] = True
        return Record(
            kind="message",
            conversation=self.conversation,
            external_id=node.id,
            role=role,
            speaker=speaker,
            text=text,
            raw=sound(raw),
            at_ms=at_ms,
            seq=self.seq,
            origin=origin,
            title=self.info.title,
            recall=recall,
            meta=meta,
        )


def texts_of(content: Any) -> list[str]:
    """Return the words of a message: its text blocks, or the text that it is."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    return [
        block["text"]
        for block in content
        if isinstance(block, dict)
        and block.get("type") in ("text", "input_text", "output_text")
        and isinstance(block.get("text"), str)
    ]


def _count_images(content: Any) -> int:
    if not isinstance(content, list):
        return 0
    return sum(isinstance(block, dict) and block.get("type") == "image" for block in content)


def _own(message: Mapping[str, Any]) -> bool | None:
    inner = message.get("__openclaw")
    own = inner.get("senderIsOwner") if isinstance(inner, dict) else None
    return own if isinstance(own, bool) else None
