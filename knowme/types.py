"""The nouns of the house: frozen values that every part shares.

Promises: standard library only, no behaviour beyond what a value can say of itself.
Refuses to know: where a value is stored, who made it, which model will read it.

Times are integers, milliseconds since the Unix epoch, UTC; ``None`` means that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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


ME = "me"
"""The subject of a claim that is about the person."""


@dataclass(frozen=True, slots=True)
class When:
    """When something was so, as ISO days (2026-03-01); "" where it is open or nobody knows.

    It began between ``from_first`` and ``from_last``, and ended between ``to_first`` and
    ``to_last``, all included; equal ones are known to the day. What happened on one day has all
    four alike. "since March": from 03-01 to 03-31, no end.
    """

    from_first: str = ""
    from_last: str = ""
    to_first: str = ""
    to_last: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One atomic statement that somebody made in one message.

    ``subject`` is ME where the writer of the message speaks of themselves (whoever stores it puts
    the name of another speaker in its place), else a name as it was said. ``attribute`` is a
    canonical one (``attributes.py``), or a verb phrase in lower case. ``start`` and ``end`` are the
    characters of the message's text that it rests on: its quote. ``certain`` is False where the
    writer hedges; ``outright`` True where they say it of themselves in plain words. ``read_by`` is
    "rules", or "model:NAME".
    """

    subject: str
    attribute: str
    value: str
    sentence: str
    start: int
    end: int
    when: When = field(default_factory=When)
    certain: bool = True
    outright: bool = False
    read_by: str = "rules"


@dataclass(frozen=True, slots=True)
class Fact:
    """A claim as it is kept, with what is believed of it. Times in ms, days as in When.

    ``state``: believed; repeated (it says what ``other`` says); superseded (by ``other``);
    doubtful (it waits for the person, ``other`` is what it contradicts); quarantined (``reason``
    says why it is not believed); retired. ``sensitive`` are kinds (health, politics), "" if none.
    """

    uid: str
    subject: str
    attribute: str
    value: str
    sentence: str
    message_id: int
    start: int
    end: int
    quote: str
    said_ms: int | None
    when: When
    read_by: str
    certain: bool
    outright: bool
    sensitive: tuple[str, ...]
    state: str
    reason: str
    other: str
    pinned: bool
    recorded_ms: int
    retired_ms: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The words that something rests on: a span of a message."""

    message_id: int
    start: int
    end: int
    quote: str
    fact_uid: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the profile. ``state``: current, thin, struck, replaced, gone."""

    uid: str
    section: str
    text: str
    confidence: float
    state: str
    written_by: str
    sensitive: tuple[str, ...]
    place: float
    pinned: bool
    recorded_ms: int
    retired_ms: int | None
    evidence: tuple[Evidence, ...] = ()


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
class ToolCall:
    """A call that a model asks for; ``arguments`` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message for a model.

    ``images`` are data URLs (``data:image/png;base64,...``). An assistant's message may carry
    ``tool_calls``; a message of the role ``tool`` answers the call ``tool_call_id``.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a model should answer. ``None`` leaves the engine's own default.

    ``json_object`` asks for any JSON, ``json_schema`` for one of this shape. ``tools`` and
    ``tool_choice`` are as OpenAI writes them. ``extra`` are further fields of OpenAI's form
    (top_k, presence_penalty ...): sent as they are where the server speaks it, else translated
    where there is a counterpart and ignored where there is none.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    json_object: bool = False
    think: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer cost; the last chunk of every stream carries one."""

    model: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    first_token_ms: float = 0.0
    total_ms: float = 0.0
    finish: str = "stop"  # stop, length, tool_calls, error


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of a tool call as it is streamed: pieces of one ``index`` belong together."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer: text, a piece of a tool call, or the usage at the very end.

    ``reasoning`` is what a thinking model thinks aloud: never part of the answer.
    """

    text: str = ""
    usage: Usage | None = None
    tool_calls: tuple[ToolDelta, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model as the router sees it. Prices are for a million tokens.

    ``down`` says why it cannot answer now ("" when it can); ``load_ms`` is what loading it is
    expected to take (0: it is loaded, or needs none); ``parameters`` is 0 where nobody knows.
    """

    role: str
    model: str
    engine: str
    local: bool
    context_tokens: int = 4096
    max_tokens: int = 512
    price_in: float = 0.0
    price_out: float = 0.0
    images: bool = False
    tools: bool = True
    loaded: bool = True
    load_ms: float = 0.0
    down: str = ""
    parameters: int = 0

    @property
    def priced(self) -> bool:
        """Tell whether asking it costs money."""
        return bool(self.price_in or self.price_out)

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return what so many tokens cost, in the money of its prices."""
        return (prompt_tokens * self.price_in + answer_tokens * self.price_out) / 1_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """Which model answers, and why.

    ``model`` is a role; ``alternatives`` are the roles to try when it fails, in order.
    ``stage`` is what decided: gate, rule, heuristic, learned, default. ``confidence`` in [0, 1].
    ``message`` is the person's message without a directive (@model, /local, /cloud).
    ``category`` is PERSONAL or COMPLEX. ``refused`` maps a role to why it may not answer.
    ``check``: the answer of ``model`` shall be looked at before it counts (else: alternatives).
    ``gain``, ``gain_sd``, ``cost`` and ``price`` (what the gain must exceed) are None where the
    learned model was not asked. ``propensity`` is the probability with which ``model`` was chosen.
    """

    model: str
    reason: str
    confidence: float
    alternatives: tuple[str, ...] = ()
    stage: str = "default"
    message: str = ""
    category: str = "COMPLEX"
    refused: Mapping[str, str] = field(default_factory=dict)
    check: bool = False
    gain: float | None = None
    gain_sd: float | None = None
    cost: float | None = None
    price: float | None = None
    propensity: float = 1.0


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
    ``classes`` are the classes of memory that stand in it: question, history, files, memory,
    summary, and ``recalled:SOURCE`` for each source that is quoted.
    """

    messages: tuple[ChatMessage, ...]
    used: tuple[Hit, ...]
    dropped: tuple[Dropped, ...]
    tokens: Mapping[str, int]
    classes: tuple[str, ...] = ()


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


# --- learning -----------------------------------------------------------------------------------

PURPOSES = ("assistant-for-me", "sound-like-me")
"""What an adapter is trained for: answers as this person likes them, or the person's own words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One example: what is said to a model, and the answer that is wanted from it.

    ``messages`` ends with the answer, role assistant. ``because`` are the messages of the archive
    that it rests on, ``place`` where they were said ("source/conversation"; a document's section is
    a place of its own): splits go by it. ``rejected`` is an answer that the person did not like.
    ``kind``: exchange, style, fact, decision, teacher, manual, paraphrase, collected.
    """

    uid: str
    purpose: str
    kind: str
    messages: tuple[ChatMessage, ...]
    because: tuple[int, ...]
    place: str
    at_ms: int | None = None
    language: str = ""
    rating: int | None = None
    rejected: str = ""
    labels: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """What is trained."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """The last thing that was said before the answer; "" where nothing was."""
        return self.messages[-2].content if len(self.messages) > 1 else ""


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """What a trainer is told. ``folder`` holds data/train.jsonl and data/validation.jsonl.

    ``base`` is a folder of Hugging Face files, a GGUF, or a hub's name. ``targets``: all (every
    linear layer) or attention. ``max_tokens`` is the longest example; ``batch`` examples times
    ``accumulate`` make one step. ``patience``: stop after so many validations without a better
    loss; 0: never. ``dtype``: auto, float32, bfloat16, float16. ``method``: sft, dpo.
    """

    folder: Path
    base: str
    method: Literal["sft", "dpo"] = "sft"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: Literal["all", "attention"] = "all"
    learning_rate: float = 2e-4
    epochs: float = 3.0
    batch: int = 1
    accumulate: int = 8
    max_tokens: int = 1024
    four_bit: bool = False
    dtype: str = "auto"
    seed: int = 1
    patience: int = 3
    threads: int = 0
