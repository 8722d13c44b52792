"""The nouns of the house: frozen values that every part shares.

Promises: standard library only, no behaviour beyond what a value can say of itself.
Refuses to know: where a value is stored, who made it, which model will read it.

Times are integers, milliseconds since the Unix epoch, UTC; ``None`` means that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant", "system", "tool", "document"]
RecordKind = Literal["message", "section", "removed", "skipped"]
EmbedKind = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a source read, on its way into the archive.

    ``kind`` says what to do with it:

    * ``message``: one utterance of a conversation; ``text`` is what was said (no envelope),
      ``raw`` the verbatim original (JSON or text) when it holds more than ``text``;
    * ``section``: one section of a document (a note, a memory file), ``conversation`` names the
      document;
    * ``removed``: the message or section ``external_id`` of ``conversation`` (or, when
      ``external_id`` is empty, the whole conversation) is no longer current: an abandoned branch,
      a deleted file. It stays in the archive and leaves recall;
    * ``skipped``: nothing could be taken; ``text`` is the reason and ``origin`` is ``file:line``.
      With ``meta["taken"]`` it was taken all the same (a wrong encoding): a note, not a loss.

    ``recall`` is False for what is archived but never recalled (a heartbeat, a system line).
    ``seq`` orders the messages of one conversation; gaps are fine.
    """

    kind: RecordKind
    conversation: str = ""
    external_id: str = ""
    role: Role = "user"
    speaker: str = ""
    text: str = ""
    raw: str | None = None
    at_ms: int | None = None
    seq: int = 0
    origin: str = ""
    title: str = ""
    recall: bool = True
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a source may resume: the state of one of its units (a file, a session).

    ``state`` is JSON-able and belongs to the source alone. ``None`` forgets the unit.
    """

    unit: str
    state: Any


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the archive keeps it."""

    id: int
    conversation_id: int
    external_id: str
    seq: int
    role: Role
    speaker: str
    text: str
    at_ms: int | None
    origin: str
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A message that stands beside a hit in its conversation, to be shown with it."""

    message_id: int
    external_id: str
    speaker: str
    role: str
    text: str
    at_ms: int | None
    offset: int  # -1 is the message before the hit, +1 the one after


@dataclass(frozen=True, slots=True)
class Hit:
    """One recalled item, best first in a list, with the reason why it was found.

    ``score`` is the fused score (higher is better, no fixed unit); ``distance`` is the cosine
    distance in [0, 2] of the item's vector to the query's, ``None`` where either has none.
    """

    item_id: int
    uid: str
    kind: str
    source: str
    conversation: str
    title: str
    role: str
    speaker: str
    text: str
    at_ms: int | None
    score: float
    distance: float | None
    why: Mapping[str, float | str]
    message_ids: tuple[int, ...]
    external_ids: tuple[str, ...]
    origin: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for. Empty tuples mean no filter; times are inclusive, in ms."""

    text: str
    top_k: int = 10
    now_ms: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    kinds: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()
    budget_tokens: int | None = None
    neighbours: int = 1


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message for a model."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Options:
    """How a model should answer. ``None`` leaves the engine's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    think: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer cost; the last chunk of every stream carries one."""

    model: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    first_token_ms: float = 0.0
    total_ms: float = 0.0
    finish: str = "stop"  # stop, length, error


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer: text, or the usage at the very end."""

    text: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something that recall offered and the window could not hold, and why."""

    uid: str
    tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class Context:
    """What was composed for one question, with the receipt of what went in and what did not.

    ``used`` are the hits as they stand in the prompt (their text may be cut at a sentence);
    ``tokens`` counts each section (system, recalled, history, question, answer budget).
    """

    messages: tuple[ChatMessage, ...]
    used: tuple[Hit, ...]
    dropped: tuple[Dropped, ...]
    tokens: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a sync or an ingest did; ``skipped`` maps a reason to how many."""

    read: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
