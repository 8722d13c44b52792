"""One question while it is answered: what was asked, what is told of it, what came of it.

Promises: values; the events are what every surface hears, in this order: Started, then Delta and
Switched as they come, then Done.
Refuses to know: how an answer comes about (``ask.py``), how it is kept (``receipts.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knowme.types import (
    ChatMessage,
    Context,
    Hit,
    ModelState,
    Options,
    Route,
    ToolCall,
    ToolDelta,
    Usage,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from knowme.compress import Summary
    from knowme.intents import Intent
    from knowme.memory import Space
    from knowme.seams import Vectors
    from knowme.sessions import Session


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and how it may be answered.

    ``model`` is a role or a model's name; "": the router decides. ``turns`` are the earlier turns
    where the client keeps them itself (None: the archive does), ``client_system`` its own system
    prompt, which is cut to what the window bears, ``remark`` what it adds to the question.
    ``options`` is what the client wants of the model (tools, a schema, a seed);
    ``remember=False``: it is kept and never recalled, because it comes in another way too.
    ``again`` asks the last question of the conversation once more: "regenerate", or "retry_cloud"
    for the stronger model.
    """

    question: str
    conversation: str = ""
    surface: str = "cli"
    model: str = ""
    top_k: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    system_prompt: str = ""
    now_ms: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    sources: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    turns: tuple[ChatMessage, ...] | None = None
    client_system: str = ""
    remark: str = ""
    options: Options = field(default_factory=Options)
    remember: bool = True
    again: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """What is known before the first word: who answers, why, and from what.

    ``note`` says why it is another model than the one that was chosen, where it is.
    """

    model: str
    engine: str
    conversation: str
    sources: tuple[Hit, ...]
    known: bool
    role: str
    route: Route
    note: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer: text, or pieces of tool calls."""

    text: str
    tool_calls: tuple[ToolDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class Switched:
    """Another model took over. With ``restart`` what was shown so far counts for nothing."""

    role: str
    model: str
    engine: str
    reason: str
    restart: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer, who gave it, what it cost, and the number of its receipt.

    ``sources`` are those of the model that answered: not those of Started where it was another.
    """

    answer: str
    usage: Usage
    receipt_id: int
    known: bool
    role: str
    model: str
    cost: float
    tool_calls: tuple[ToolCall, ...] = ()
    sources: tuple[Hit, ...] = ()


Event = Started | Delta | Switched | Done


@dataclass(slots=True)
class Call:
    """One call of a chat model: a row of ``calls``."""

    purpose: str  # answer, check, shadow, classify, passthrough
    role: str
    model: str
    engine: str
    local: bool
    at_ms: int
    stage: str = ""
    reason: str = ""
    state: str = "cut"  # done, cut (the asker left), failed, empty
    error: str = ""
    usage: Usage | None = None
    cost: float = 0.0
    sent: list[int] = field(default_factory=list)  # its rows of egress


@dataclass(slots=True)
class Turn:
    """One question on its way. What depends on the model is set anew for each that is tried."""

    asked: Asked
    question: str  # without its directive
    conversation: str
    started_ms: int
    session: Session
    hits: Sequence[Hit]
    known: bool
    relevance: float
    threshold: float
    intent: Intent
    route: Route
    states: Mapping[str, ModelState]
    vector: NDArray[Any] | None = None  # of the question
    policy_id: int | None = None  # of the learned router that was asked
    fingerprint: str = ""
    features: NDArray[Any] | None = None
    told: tuple[Space, Vectors] | None = None  # the vector under which it is remembered
    replaces: int | None = None  # the receipt of the answer that this one replaces
    calls: list[Call] = field(default_factory=list)
    begun: bool = False
    note: str = ""

    # --- of the model that answers ---
    role: str = ""
    model: str = ""
    engine: str = ""
    local: bool = True
    stage: str = ""
    context: Context | None = None
    anchor: int = -1
    summary: Summary | None = None  # of the turns before the anchor
    small: bool = False
    noted: bool = False  # a very small model only notes what it is told
    quotes: list[dict[str, Any]] = field(default_factory=list)
    answer: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def usage(self) -> Usage | None:
        """Return the usage of the call that answered, not of one that failed before."""
        for call in reversed(self.calls):
            if call.purpose == "answer":
                return (
                    call.usage if call.state in ("done", "cut") and self.role == call.role else None
                )
        return None

    @property
    def cost(self) -> float:
        """Return what all its calls cost."""
        return sum(call.cost for call in self.calls)

    @property
    def rests_on(self) -> tuple[str, ...]:
        """Return the classes of memory that the answer may repeat."""
        classes = () if self.context is None else self.context.classes
        quoted = {quote["uid"] for quote in self.quotes}
        said = {f"recalled:{hit.source}": None for hit in self.hits if hit.uid in quoted}
        kept = dict.fromkeys(n for n in classes if n not in ("question", "history", "sent"))
        return tuple({**kept, **said})

    def forget_attempt(self) -> None:
        """Begin anew with another model."""
        self.context, self.small, self.noted = None, False, False
        self.quotes, self.answer, self.tool_calls, self.withheld = [], "", [], []


__all__ = [
    "Asked", "Call", "Delta", "Done", "Event", "Started", "Switched", "Turn",
]  # fmt: skip
