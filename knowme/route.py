"""choose(): which model answers a message, and why.

The stages, in this order: gates (what the person asked for by name; pictures, length, health,
budget, privacy) -> the person's own rules -> heuristics (code, personal, short) -> what the
stronger model would gain against what it costs -> the primary model.

Promises: pure (no clock, no chance but the given seed; only a pattern that runs out of its time is
the machine's mood) and total: some model is named whenever there is one. A model that a gate
refuses is chosen only where every model is refused; then the confidence is 0 and the model stands
in ``refused``. Nothing that may not leave is a reason to ask a remote model, and nothing is asked
of one that the budget does not bear.
Refuses to know: how a model is asked, what was learned of whom, what is stored.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

from knowme import questions
from knowme.errors import InputError
from knowme.net import is_loopback
from knowme.privacy import DENY, Leave, describe
from knowme.rules import Rules
from knowme.settings import Settings
from knowme.types import ModelState, Route

if TYPE_CHECKING:
    from knowme.intents import Intent

PRIMARY, CODE, FAST, VISION, CLOUD, LOCAL = "primary", "code", "fast", "vision", "cloud", "local"
SPECIAL = frozenset({CODE, FAST, VISION})
"""Roles that answer by default only what they are for."""
BAND = 0.5
"""Standard deviations: nearer to its price than this, a gain is a near tie."""
QUICK_LOAD_MS = 1_500.0
"""A model that is loaded within this time is as good as loaded."""
PASTED = 300
"""A message of more characters, or of several lines, may hold a text that somebody else wrote."""
NEAR = 0.75
"""How alike a name must be to one that is there to be taken for a slip."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the router sees it.

    ``prompt_tokens`` estimates all that is sent for it, ``answer_tokens`` the answer; ``secrets``
    are the kinds of secrets that it holds (``redact.secrets_in``).
    """

    text: str
    images: bool = False
    tools: bool = False
    prompt_tokens: int = 0
    answer_tokens: int = 256
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recall:
    """What memory has on it: how relevant, against what threshold, and from which sources."""

    relevance: float = 0.0
    threshold: float = 0.0
    known: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """What remote models have cost this month, what they may cost, and how much of it is over."""

    spent: float = 0.0
    monthly: float = 0.0
    elapsed: float = 0.5


@dataclass(frozen=True, slots=True)
class Learned:
    """What the learned model expects the stronger model to gain on this message, in [-1, 1].

    ``sd`` is how unsure that expectation is; ``rate`` is the gain that one unit of money must bring
    (lambda: it rises as the budget runs out), so a cost times ``rate`` is the price of an answer.
    """

    gain: float
    sd: float
    rate: float = 0.0


# --- directives ---------------------------------------------------------------------------------

_SLASH = r"/(?P<slash>local|cloud)(?![\w/-]|\.\w)"
_AT = r"@(?P<at>[^\s@]+)(?!\S)"
_FIRST = re.compile(rf"\s*(?:{_SLASH}|{_AT})", re.IGNORECASE)
_WITHIN = re.compile(rf"(?<=\s)(?:{_SLASH}|{_AT})", re.IGNORECASE)
_FENCE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_ENDS = ",:;.!?)"


def directive(text: str, roles: Mapping[str, str]) -> tuple[str, str]:
    """Return a message without the model that it asks for, and which that is.

    ``roles`` maps each role to its model's name. The second part is "", a role (from @role or
    @model-name), "local" or "cloud" (from /local, /cloud, or @ where no role is called so), or
    "?name" where the message begins with an @name that is nearly one: then the message is whole.
    A directive stands at the beginning, at the end, or in a short line as a word by itself, not in
    code; the first one counts. It is taken out with one space; all else stays as it was written.
    """
    names = _names(roles)
    if found := _FIRST.match(text):
        if target := _target(text, found, names):
            start = found.start("slash" if found["slash"] else "at") - 1
            return _without(text, start, *target)
    if "@" not in text and "/local" not in (plain := text.lower()) and "/cloud" not in plain:
        return text, ""
    code = [block.span() for block in _FENCE.finditer(text)] if "`" in text else []
    pasted = "\n" in text.strip() or len(text) > PASTED
    for other in _WITHIN.finditer(text):
        if pasted and text[other.end() :].strip(_ENDS + " \n"):
            continue  # a word in what was pasted is nobody's order
        if any(a <= other.start() < b for a, b in code):
            continue
        target = _target(text, other, names)
        if target and not _alone_in_line(text, other.start(), target[0]):
            return _without(text, other.start(), *target)
    if found and found["at"] and text[found.end() : found.end() + 1] != "\n":
        name = found["at"].rstrip(_ENDS)
        if "." not in name.strip(".") and get_close_matches(name.lower(), names, 1, NEAR):
            return text, f"?{name}"
    return text, ""


def _names(roles: Mapping[str, str]) -> dict[str, str]:
    """Return what may stand after an @, in small letters -> the role, "local" or "cloud"."""
    names: dict[str, str] = {}
    for role in roles:
        names.setdefault(role.lower(), role)
    for role, model in roles.items():
        plain = model.lower().replace("\\", "/").rpartition("/")[2]
        short = plain.removesuffix(".gguf").partition(":")[0]
        for name in (model.lower(), plain, plain.removesuffix(".gguf"), short):
            if name:
                names.setdefault(name, role)
    names.setdefault(LOCAL, LOCAL)
    names.setdefault(CLOUD, CLOUD)
    return names


def _target(text: str, found: re.Match[str], names: Mapping[str, str]) -> tuple[int, str] | None:
    """Return (where the directive ends, what it names), or None."""
    if found["slash"]:
        end = found.end()
        goes_on = end < len(text) and not (text[end].isspace() or text[end] in _ENDS)
        return None if goes_on else (end, found["slash"].lower())
    start, name = found.start("at"), found["at"]
    while name:
        if role := names.get(name.lower()):
            # "@Primary" above a line of Java is no word to us: what stands in a line alone must
            # be written as the role is.
            line_ends = text[start + len(name) :].lstrip(_ENDS).startswith("\n")
            return None if line_ends and name.lower() != name else (start + len(name), role)
        if name[-1] not in _ENDS:
            return None
        name = name[:-1]
    return None


def _alone_in_line(text: str, start: int, end: int) -> bool:
    """Tell whether a word has a line in the middle of a text for itself: that is a decorator."""
    before = text[:start].rpartition("\n")[2]
    return "\n" in text[:start] and not before.strip() and text[end : end + 1] == "\n"


def _without(text: str, start: int, end: int, role: str) -> tuple[str, str]:
    if text[end : end + 1] in (",", ":"):
        end += 1
    before, after = text[:start], text[end:]
    if after[:1].isspace():
        after = after[1:]
    elif before[-1:].isspace():
        before = before[:-1]
    return before + after, role


# --- one case -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """Everything that one choice rests on."""

    message: Message
    text: str
    target: str
    recall: Recall
    models: Sequence[ModelState]
    settings: Settings
    rules: Rules
    intent: Intent | None
    learned: Learned | None
    budget: Budget
    leave: Leave
    current: str
    seed: str
    refused: dict[str, str] = field(default_factory=dict)  # for good, whoever asks
    kept_home: dict[str, str] = field(default_factory=dict)  # unless the person asks for it
    notes: list[str] = field(default_factory=list)  # what was wanted and could not be

    @cached_property
    def by_role(self) -> dict[str, ModelState]:
        return {state.role: state for state in self.models}

    @cached_property
    def free(self) -> list[ModelState]:
        """Those that may be chosen without being asked for, the best tools first."""
        may = [s for s in self.models if s.role not in self.refused | self.kept_home]
        handy = [s for s in may if s.tools] if self.message.tools else []
        return handy if any(s.local for s in handy) else may

    @cached_property
    def home(self) -> list[ModelState]:
        """Local ones among them, the primary one first."""
        local = [state for state in self.free if state.local]
        return sorted(local, key=lambda state: state.role != self.first)

    @cached_property
    def away(self) -> list[ModelState]:
        """Remote ones among them, the one called cloud first."""
        remote = [state for state in self.free if not state.local]
        return sorted(remote, key=lambda state: state.role != CLOUD)

    @cached_property
    def first(self) -> str:
        """The role that answers by default."""
        if PRIMARY in self.by_role:
            return PRIMARY
        plain = [state.role for state in self.models if state.role not in SPECIAL]
        local = [role for role in plain if self.by_role[role].local]
        return (local or plain or [self.models[0].role])[0]

    @cached_property
    def code(self) -> bool:
        return questions.is_code(self.text)

    @cached_property
    def of_memory(self) -> bool:
        return self.recall.known or questions.speaks_of_memory(self.text)

    @cached_property
    def personal(self) -> str:
        """Why the message is personal; "" where it is not."""
        if self.intent is not None:
            personal = self.intent.category == "PERSONAL"
            return f"it is personal: {self.intent.reason or 'by its words'}" if personal else ""
        for test, told in _PERSONAL:
            if test(self.text):
                return told
        if self.recall.known and questions.about_the_person(self.text):
            return "you ask about yourself, and it is remembered"
        return ""

    @cached_property
    def category(self) -> str:
        return "PERSONAL" if self.personal and not self.code else "COMPLEX"

    def allowed(self, role: str) -> ModelState | None:
        """Return the model of a role, if it may be chosen without being asked for."""
        return next((state for state in self.free if state.role == role), None)


_PERSONAL: tuple[tuple[Callable[[str], bool], str], ...] = (
    (questions.is_small_talk, "it is small talk"),
    (questions.tells_preference, "it tells what you like"),
    (questions.speaks_of_routine, "it is about your days"),
    (questions.speaks_of_memory, "it asks what was before"),
)


def choose(
    message: Message,
    recall: Recall,
    models: Sequence[ModelState],
    settings: Settings,
    *,
    rules: Rules,
    intent: Intent | None = None,
    learned: Learned | None = None,
    budget: Budget | None = None,
    leave: Leave,
    current: str = "",
    seed: str = "",
) -> Route:
    """Return the route of a message: total, and the same for the same arguments.

    ``current`` is the role that answered last in this conversation, ``seed`` what a lot is drawn
    from. Without ``budget`` nothing was spent, and what the settings say may be. Where every model
    is refused the least bad one is named, the first local one that is not down: then ``confidence``
    is 0 and ``refused`` holds it; whoever asks a remote model all the same breaks a promise.
    Raises InputError where there are no models.
    """
    if not models:
        raise InputError("There is no model.", "Name one: knowme config set engine.kind auto")
    text, target = directive(message.text, {state.role: state.model for state in models})
    case = _Case(
        message, text, target, recall, tuple(models), settings, rules, intent, learned,
        budget or Budget(0.0, settings.routing.monthly_budget), leave, current, seed,
    )  # fmt: skip
    _refuse(case)
    for stage in (_asked_for, _least_bad, _by_rule, _by_sight, _by_words, _by_gain):
        route = stage(case)
        if route is not None:
            return route
    return _by_default(case)


def _route(
    case: _Case,
    chosen: ModelState,
    stage: str,
    reason: str,
    confidence: float,
    alternatives: Iterable[str] | None = None,
) -> Route:
    if alternatives is None:
        alternatives = _alternatives(case, chosen)
    told = [*case.notes, reason]
    return Route(
        chosen.role,
        " ".join(sentence[:1].upper() + sentence[1:] for sentence in told),
        round(min(1.0, max(0.0, confidence)), 4),
        tuple(alternatives),
        stage,
        case.text,
        case.category,
        {**case.kept_home, **case.refused},
    )


def _alternatives(case: _Case, chosen: ModelState) -> list[str]:
    """Return who may be asked when the chosen model fails, in order.

    Those of routing.fallback that pass the gates; where none does, the other local ones. Who asked
    for a model of their own machine is not taken beyond it.
    """
    at_home = case.target == LOCAL or (chosen.local and case.target == chosen.role)
    listed = [_find(case, name) for name in case.settings.routing.fallback]
    order = [state for state in listed if state is not None and state in case.free]
    if not [state for state in order if state.role != chosen.role]:
        order = sorted(case.home, key=lambda state: state.role == VISION)
    kept = [s.role for s in order if s.role != chosen.role and (s.local or not at_home)]
    return list(dict.fromkeys(kept))


def _find(case: _Case, name: str) -> ModelState | None:
    """Return the model of a role, or of this name."""
    role = _names({state.role: state.model for state in case.models}).get(name.lower(), "")
    return case.by_role.get(role)


def cost_of(state: ModelState, message: Message) -> float:
    """Return what an answer is expected to cost, in the money of the model's prices."""
    return state.cost(message.prompt_tokens, message.answer_tokens)


# --- gates --------------------------------------------------------------------------------------


def _refuse(case: _Case) -> None:
    """Write down who may not answer, each with the first reason that holds."""
    for state in case.models:
        if told := _cannot(case, state) or ("" if state.local else _may_not(case, state)):
            case.refused[state.role] = told
        elif not state.local and (told := _stays(case)):
            case.kept_home[state.role] = told


def _cannot(case: _Case, state: ModelState) -> str:
    message = case.message
    if state.down:
        return f"it cannot answer now: {state.down.rstrip('.')}."
    if state.local and case.settings.offline and _is_elsewhere(case, state):
        return "it is on another machine, and offline is set."
    if message.images and not state.images:
        return "it cannot look at pictures."
    needed = message.prompt_tokens + min(message.answer_tokens, state.max_tokens)
    if needed > state.context_tokens:
        return (
            f"the message and its answer need {needed:,} tokens, and its window has "
            f"{state.context_tokens:,}."
        )
    return ""


def _is_elsewhere(case: _Case, state: ModelState) -> bool:
    """Tell whether a model that counts as local has an address beyond this machine."""
    settings = case.settings
    urls = [each.url for each in settings.models if each.role == state.role]
    url = urls[0] if urls else settings.engine.url
    return bool(url) and not is_loopback(url)


def _may_not(case: _Case, state: ModelState) -> str:
    """Return why a remote model may not be asked, whoever wants it; "" where it may."""
    settings, message, budget = case.settings, case.message, case.budget
    if settings.offline:
        return "it is not on this machine, and offline is set."
    if message.secrets:
        return f"the message holds what looks like a secret ({', '.join(message.secrets)})."
    if case.leave.policy("question") == DENY:
        return "your questions may not leave this machine (privacy.question: deny)."
    cost = cost_of(state, message)
    if state.priced and not budget.spent + cost <= budget.monthly:
        return (
            f"the month's budget is {budget.monthly:.2f}, {budget.spent:.2f} of it is spent, and "
            f"this would cost about {cost:.4f} (routing.monthly_budget)."
        )
    return ""


def _stays(case: _Case) -> str:
    """Return why the message is not sent away unless the person asks for it; "" where it may be."""
    recall, leave = case.recall, case.leave
    if recall.known:
        classes = [f"recalled:{source}" for source in recall.sources] or ["recalled"]
        denied = [name.partition(":")[2] for name in classes if leave.policy(name) == DENY]
        if denied:
            where = f" from {', '.join(denied)}" if any(denied) else ""
            return f"memory bears on it, and what is recalled{where} may not leave this machine."
    last = case.by_role.get(case.current)
    leans = last is not None and last.local and questions.follows_on(case.text)
    if leans and leave.policy("history") == DENY:
        return "it leans on what was said before, and those turns may not leave this machine."
    if case.target.startswith("?") and _meant(case) == LOCAL:
        return f"@{case.target[1:]} may have meant a model of this machine."
    return ""


def _meant(case: _Case) -> str:
    """Return LOCAL where a misspelt name is nearest to that of a local model, else its role."""
    names = _names({state.role: state.model for state in case.models})
    near = get_close_matches(case.target[1:].lower(), names, 1, NEAR)
    role = names[near[0]] if near else ""
    state = case.by_role.get(role)
    return LOCAL if state is not None and state.local else role


# --- the stages ---------------------------------------------------------------------------------


def _asked_for(case: _Case) -> Route | None:
    """The model that the person named."""
    target = case.target
    if not target:
        return None
    if target.startswith("?"):
        names = ", ".join(f"@{state.role}" for state in case.models)
        case.notes.append(f"@{target[1:]} is no model here (there are {names}).")
        return None
    if target in case.by_role:
        wanted, called = [case.by_role[target]], target
    else:
        local = target == LOCAL
        wanted = [state for state in case.models if state.local == local]
        called = "a model of this machine" if local else "a remote model"
        best = case.first if local else CLOUD
        wanted.sort(key=lambda state: (state.role != best, state.role in SPECIAL))
    may = [state for state in wanted if state.role not in case.refused]
    if may:
        return _as_asked(case, may[0], called)
    if not wanted:
        case.notes.append(f"you asked for {called}, and there is none.")
    for state in wanted:
        case.notes.append(f"you asked for {called}, but {state.role} may not: "
                          f"{case.refused[state.role]}")  # fmt: skip
    if target == LOCAL or any(state.local for state in wanted):
        for state in case.models:  # who asked for this machine is not sent beyond it
            if not state.local:
                case.refused.setdefault(state.role, "you asked for a model of this machine.")
    return None


def _as_asked(case: _Case, state: ModelState, called: str) -> Route:
    if case.target == LOCAL:
        kept = [s for s in case.home if s.role not in SPECIAL]
        state = _sticky(case, kept) or state
    reason = f"you asked for {called}."
    if told := case.kept_home.get(state.role):
        reason += f" It goes without that, though: {told}"
        del case.kept_home[state.role]
    return _route(case, state, "gate", reason, 1.0)


def _least_bad(case: _Case) -> Route | None:
    """Where nobody may answer: the local one with the smallest fault, with every refusal told."""
    if case.free:
        return None
    told = {**case.kept_home, **case.refused}
    may = [state for state in case.models if state.role not in case.refused]
    if may and not any(state.local for state in case.models):
        # The person has no model of this machine: they asked for this one by having it.
        state = min(may, key=lambda s: s.role != case.first)
        without = case.kept_home.pop(state.role)
        reason = f"no model is of this machine. It goes without memory: {without}"
        return _route(case, state, "gate", reason, 0.6)
    order = sorted(case.models, key=lambda s: (not s.local, bool(s.down), s.role != case.first))
    every = " ".join(f"{state.role}: {told[state.role]}" for state in case.models)
    return _route(case, order[0], "gate", f"no model passes. {every}", 0.0, ())


def _by_sight(case: _Case) -> Route | None:
    """A picture: the model for pictures, a local one first."""
    if not case.message.images:
        return None
    able = sorted(case.home, key=lambda s: s.role != VISION) or case.away
    return _route(case, able[0], "gate", "it holds a picture.", 1.0)


def _by_rule(case: _Case) -> Route | None:
    """The person's own rules: the first that matches."""
    found = case.rules.found(case.text)
    if found is None:
        return None
    number, rule = found
    state = _find(case, rule.model)
    if state is None:
        case.notes.append(f"rule {number} names {rule.model!r}, which is no model here.")
        return None
    why = {**case.kept_home, **case.refused}.get(state.role)
    if why:
        case.notes.append(f"rule {number} sends this to {state.role}, but: {why}")
        return None
    return _route(case, state, "rule", f"rule {number} matches: {rule.pattern}", 1.0)


def _by_words(case: _Case) -> Route | None:
    """Code to the model for code; what is personal, and what is short, stays home."""
    if not case.settings.routing.heuristics or not case.home:
        return None
    code, fast = case.allowed(CODE), case.allowed(FAST)
    if case.code and code is not None and code.local:
        return _route(case, code, "heuristic", "it is about code.", 0.9)
    short = len(case.text.strip()) < case.settings.routing.short_chars
    quick = fast if fast is not None and fast.local and short and not case.of_memory else None
    if case.category == "PERSONAL":
        state, sure = _at_home(case), 0.9
        if case.intent is not None:
            sure = case.intent.probability
        if quick is not None and questions.is_small_talk(case.text):
            state = _less_loading(quick, state)
        return _route(case, state, "heuristic", f"{case.personal.rstrip('.')}.", sure)
    if quick is not None and not case.code:
        state = _less_loading(quick, _at_home(case))
        told = "it is short." if state is quick else f"it is short, and {state.role} is loaded."
        return _route(case, state, "heuristic", told, 0.7)
    return None


def _less_loading(quick: ModelState, usual: ModelState) -> ModelState:
    """Return the quick model, unless loading it takes longer than it saves."""
    return quick if quick.load_ms <= max(QUICK_LOAD_MS, usual.load_ms) else usual


def _at_home(case: _Case) -> ModelState:
    """Return the local model for what no other is for."""
    plain = [state for state in case.home if state.role not in SPECIAL]
    return _sticky(case, plain) or case.home[0]


def _sticky(case: _Case, among: Sequence[ModelState]) -> ModelState | None:
    """Return the primary one of these, or the one that answered last where that saves loading.

    A message that leans on the last answer stays with its model too: that has read the beginning.
    """
    usual = among[0] if among else None
    last = case.allowed(case.current)
    if last is None or not last.local or last.load_ms > 0 or last.role in (FAST, VISION):
        return usual
    if usual is None or usual.load_ms > 0 or questions.follows_on(case.text):
        return last
    return usual


def _by_gain(case: _Case) -> Route | None:
    """The best remote model, where what it would gain is worth more than it costs."""
    learned = case.learned
    if learned is None or not case.settings.routing.learned or not case.home or not case.away:
        return None
    home, away = _at_home(case), case.away[0]
    code = case.allowed(CODE)
    if case.code and code is not None:
        home, away = (code, away) if code.local else (home, code)
    cost = cost_of(away, case.message)
    price = cost * learned.rate if cost else 0.0
    over = learned.gain - price
    tie = abs(over) < BAND * learned.sd and price < 1.0
    # A price that no gain can reach is no near tie, however little is known of the gain.
    route = _near_tie(case, home, away, price) if tie else _clear(case, home, away, over)
    return replace(route, gain=learned.gain, gain_sd=learned.sd, cost=cost, price=price)


def _clear(case: _Case, home: ModelState, away: ModelState, over: float) -> Route:
    """One side clearly weighs more: ``over`` is the gain beyond its price."""
    assert case.learned is not None
    gain, price = case.learned.gain, case.learned.gain - over
    sure = _probability(over, case.learned.sd)
    if over > 0:
        told = f"{away.role} is expected to do better by {gain:.2f}, at a price of {price:.2f}."
        return _route(case, away, "learned", told, sure)
    told = f"{away.role} would do better by {gain:.2f}, at a price of {price:.2f}: not worth it."
    return _route(case, home, "learned", told, 1.0 - sure)


def _near_tie(case: _Case, home: ModelState, away: ModelState, price: float) -> Route:
    """Gain and price are about equal: stay home, look again, or draw a lot, as the settings say."""
    assert case.learned is not None
    routing = case.settings.routing
    # Half of the lots fall on either side.
    share = min(1.0, max(0.0, routing.explore)) / 2
    gain = case.learned.gain
    about = f"what {away.role} would gain ({gain:.2f}) and its price ({price:.2f}) are about equal"
    if share and _lot(case.seed) < share:
        route = _route(case, away, "learned", f"{about}: the lot fell on {away.role}.", 0.5)
        return replace(route, propensity=share)
    if routing.uncertain == "check":
        others = [role for role in _alternatives(case, home) if role != away.role]
        told = f"{about}: {home.role} answers, and looks at its answer again."
        route = _route(case, home, "learned", told, 0.5, [away.role, *others])
    else:
        route = _route(case, home, "learned", f"{about}: it stays home.", 0.5)
    return replace(route, propensity=1.0 - share, check=routing.uncertain == "check")


def _lot(seed: str) -> float:
    """Return a number in [0, 1) that is the same for the same seed."""
    drawn = hashlib.sha256(f"explore {seed}".encode("utf-8", "replace")).digest()
    return int.from_bytes(drawn[:7], "big") / 2**56


def _probability(over: float, sd: float) -> float:
    """Return how probable it is that the gain exceeds its price, under a Gaussian belief."""
    if not sd > 0 or math.isinf(over):
        return 1.0 if over > 0 else 0.0
    return 0.5 * math.erfc(-over / (sd * math.sqrt(2.0)))


def _by_default(case: _Case) -> Route:
    """The primary model; a remote one only where it is that, or where no other is left."""
    usual = case.allowed(case.first)
    if usual is not None and not usual.local:
        return _route(case, usual, "default", f"{usual.role} answers by default.", 0.6)
    if case.home:
        state = _at_home(case)
        told = f"{state.role} answers by default." if state.role == case.first else (
            f"{state.role} answered last and is loaded." if state.role == case.current
            else f"{case.first} may not, and {state.role} is of this machine."
        )  # fmt: skip
        return _route(case, state, "default", told, 0.6)
    return _route(case, case.away[0], "gate", "no model of this machine can take it.", 0.6)


# --- telling ------------------------------------------------------------------------------------


def explain(route: Route, leave: Leave | None = None) -> list[str]:
    """Return the decision in lines for a person; with ``leave`` also what may leave at all."""
    sure = "" if not route.confidence else f", {route.confidence:.0%} sure"
    lines = [f"{route.model} answers ({_STAGES.get(route.stage, route.stage)}{sure})."]
    if not route.confidence:
        lines[0] = f"No model passes; {route.model} is the least bad."
    lines.append(f"Why: {route.reason}")
    lines.append(f"The message is {_CATEGORIES.get(route.category, route.category)}.")
    if route.gain is not None and route.price is not None:
        spread = "" if route.gain_sd is None else f" ± {route.gain_sd:.2f}"
        lines.append(
            f"A remote model would gain {route.gain:.2f}{spread}; its price is {route.price:.2f}"
            + ("." if route.cost is None else f" (about {route.cost:.5f} in money).")
        )
    if route.propensity < 1.0:
        lines.append(f"It was a near tie: chosen with a probability of {route.propensity:.0%}.")
    if route.check:
        lines.append("It looks at its answer again, and passes the question on if it is not good.")
    lines += [f"Not {role}: {told}" for role, told in route.refused.items()]
    if route.alternatives:
        lines.append(f"If it fails: {', then '.join(route.alternatives)}.")
    else:
        lines.append("If it fails, nobody else is asked.")
    return lines if leave is None else [*lines, describe(leave)]


_STAGES = {
    "gate": "by what you asked for, or what it needs",
    "rule": "by a rule of yours",
    "heuristic": "by what the message looks like",
    "learned": "by what was learned",
    "default": "by default",
}
_CATEGORIES = {"PERSONAL": "personal", "COMPLEX": "not about you"}
