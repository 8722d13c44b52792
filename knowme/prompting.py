"""What one model is sent for one question: composed for its window and for what it may know.

Promises: for a model that is remote, a class of memory that may not leave stands in no prompt,
names stand as placeholders where that is asked, and a text that holds a secret is not sent at all.
Refuses to know: how the model was chosen, what it answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from knowme import details, egress, sessions
from knowme.context import Budgets, compose, fence, rests_on
from knowme.context import Turn as Said
from knowme.errors import InputError, ModelError
from knowme.home import Home
from knowme.privacy import Leave, leave, needed_names
from knowme.questions import is_question, is_small_talk
from knowme.quotes import choose_quotes, leads_with_quotes
from knowme.redact import NOTE, Placeholders, secrets_in
from knowme.reduce import Reduced, reduce
from knowme.steering import prompt_text, spending
from knowme.times import now_ms, zone
from knowme.turn import Asked, Turn
from knowme.types import ChatMessage, Context, Dropped, Hit, Options
from knowme.wire import estimate_tokens

if TYPE_CHECKING:
    from knowme.seams import Engine

SMALL_RECALLED_TOKENS = 400
"""What a very small model reads: more only slows it down, the quotations stand above it anyway."""
SMALL_ANSWER_TOKENS = 96
FILES_STAY = "may not leave this machine (privacy.files: deny)"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is sent.

    ``classes`` maps each class of memory in it to the policy that lets it leave (empty for a model
    of this machine); ``names`` puts the names back into the answer.
    """

    messages: Sequence[ChatMessage]
    options: Options
    classes: Mapping[str, str] = field(default_factory=dict)
    names: Placeholders | None = None


# --- what kind of question it is ----------------------------------------------------------------


def remembered(asked: Asked, question: str) -> bool:
    """Tell whether a message is to be recalled later: what is told in a chat, not what is asked."""
    chat = asked.surface in ("chat", "api")
    if not chat or not asked.remember or asked.again:
        return False
    return not (is_question(question) or is_small_talk(question))


def is_agent(turn: Turn) -> bool:
    """Tell whether a program drives the model, with tools or a form to fill in."""
    asked, options = turn.asked, turn.asked.options
    # Tools that the model cannot use are taken away: then it is a chat like any other.
    usable = not turn.role or turn.states[turn.role].tools
    return bool(
        (options.tools and usable)
        or options.json_schema
        or options.json_object
        or any(message.role == "tool" for message in asked.turns or ())
    )


def is_small(home: Home, turn: Turn, engine: Engine) -> bool:
    """Tell whether the answer is to lead with quotations."""
    return not is_agent(turn) and leads_with_quotes(home.settings.ask.quote_first, engine)


# --- composing ----------------------------------------------------------------------------------


def compose_for(home: Home, turn: Turn, engine: Engine, *, loaded: bool = True) -> Prompt:
    """Compose the question for this model; sets the turn's context, anchor and quotes.

    Raises ModelError, before anything is sent, for a text that must not leave.
    """
    count = engine.count_tokens if loaded or not engine.local else estimate_tokens
    policy = None if engine.local else leave(home.settings.privacy)
    shown = _shown(turn)
    turn.context = _compose(home, turn, engine, shown, lru_cache(maxsize=4096)(count), policy)
    if turn.small and turn.known and not turn.noted:
        turn.quotes = _quote(home, shown, turn.question)
    options = _options(home, turn, turn.states[turn.role].tools)
    if policy is None:
        return Prompt(turn.context.messages, options)
    return _for_elsewhere(home, turn, turn.context, policy, options)


def _shown(turn: Turn) -> Sequence[Hit]:
    """Return what is recalled for this model.

    Turns of this conversation need no threshold; a very small model, which is shown no turns, is
    not shown these either: its answers are quotations of the person.
    """
    if turn.noted:
        return []
    if turn.small:
        return [hit for hit in turn.hits if details.was_recalled(hit)] if turn.known else []
    return [hit for hit in turn.hits if turn.known or details.is_detail(hit)]


def compose_unasked(home: Home, turn: Turn, engine: Engine) -> None:
    """Compose what the receipt shows where no model is asked."""
    turn.context = _compose(home, turn, engine, [], estimate_tokens, None)


def _compose(
    home: Home,
    turn: Turn,
    engine: Engine,
    hits: Sequence[Hit],
    count: Callable[[str], int],
    policy: Leave | None,
) -> Context:
    asked, settings = turn.asked, home.settings
    budgets = _budgets(home, turn, engine)
    system, client = _system(home, turn, count, budgets, policy)
    remark, left_out = asked.remark, [] if client is None else [*client.left_out]
    if remark and policy is not None and not policy.may("files"):
        left_out.append(Dropped("the client's remark", count(remark), FILES_STAY))
        remark = ""
    composed = compose(
        system,
        [] if turn.small else home.workspace.parts(),
        # A very small model is not shown the earlier turns: they are recalled like any others.
        [] if turn.small else _said(home, turn),
        hits,
        turn.question,
        budgets,
        count,
        zone(settings.memory.timezone),
        images=asked.images,
        remark=remark,
        anchor=None if asked.turns is not None else turn.session.anchor_seq,
        earlier=turn.session.earlier if asked.turns is None else None,
        ready=turn.session.ready,
        recent=settings.context.recent_turns,
        may=None if policy is None else policy.may,
        sees=turn.states[turn.role].images,
    )
    open_turns = len(turn.session.turns)
    squeezed = composed.history < budgets.history and turn.role != home.models.primary
    if squeezed and open_turns < sessions.MOST_OPEN // 2:
        # A small window that answers now and then does not cut the thread for the others.
        turn.anchor, turn.summary = turn.session.anchor_seq, None
    else:
        turn.anchor, turn.summary = composed.anchor, composed.summary
    context = composed.context
    more = {"files"} if remark or (client is not None and client.text) else set()
    if policy is not None and _name(home, policy) and not asked.system_prompt:
        more.add("memory")  # what is known of the person begins with their name
    return replace(
        context,
        dropped=(*context.dropped, *left_out),
        classes=(*context.classes, *sorted(more.difference(context.classes))),
    )


def _budgets(home: Home, turn: Turn, engine: Engine) -> Budgets:
    ask, context, small = home.settings.ask, home.settings.context, turn.small
    usual = home.models.setting(turn.role).max_tokens or home.settings.engine.max_tokens
    theirs = engine.context_tokens // 4 if turn.asked.client_system else 0
    budgets = Budgets(
        window=engine.context_tokens,
        system=max(ask.system_tokens, theirs),
        files=0 if small else context.files_tokens,
        memory=0 if small else context.memory_tokens,
        summary=0 if small or "summary" not in context.strategies else context.summary_tokens,
        recalled=min(ask.recalled_tokens, SMALL_RECALLED_TOKENS) if small else ask.recalled_tokens,
        question=ask.question_tokens,
        history=0 if small or "recent" not in context.strategies else ask.history_tokens,
        answer=turn.asked.max_tokens or (SMALL_ANSWER_TOKENS if small else usual),
    )
    # What no other section may claim is the question's: somebody may paste a long text.
    return replace(budgets, question=budgets.question + max(0, budgets.spare()))


def _said(home: Home, turn: Turn) -> Sequence[Said]:
    """Return the earlier turns: the client's own, or those of the archive."""
    if turn.asked.turns is None:
        return turn.session.turns
    with home.db.read() as conn:
        return sessions.told(conn, turn.conversation, turn.asked.turns)


def _system(
    home: Home,
    turn: Turn,
    count: Callable[[str], int],
    budgets: Budgets,
    policy: Leave | None,
) -> tuple[str, Reduced | None]:
    """Return the instructions, and what became of a client's own."""
    asked, settings = turn.asked, home.settings
    if asked.system_prompt:
        return asked.system_prompt, None
    if turn.small and not turn.known and is_small_talk(turn.question):
        return prompt_text("small_talk"), None
    name = _name(home, policy)
    ours = _instructions(turn.small, name, asked.now_ms, zone(settings.memory.timezone))
    if not asked.client_system:
        return ours, None
    if turn.small:
        reason = "a very small model reads the recalled notes and nothing else"
        gone = Dropped("the client's instructions", count(asked.client_system), reason)
        return ours, Reduced("", (gone,))
    if policy is not None and not policy.may("files"):
        gone = Dropped("the client's instructions", count(asked.client_system), FILES_STAY)
        return ours, Reduced("", (gone,))
    tools = bool(asked.options.tools) and turn.states[turn.role].tools
    reduced = reduce(asked.client_system, budgets.system - count(ours), count, tools=tools)
    return f"{ours}\n\n{reduced.text}", reduced


def _name(home: Home, policy: Leave | None) -> str:
    """Return the person's name; where nothing of memory may leave, not even that does."""
    name = " ".join(fence(home.settings.name).split())  # of one line, and no marker of ours
    return name if policy is None or policy.may("memory") else ""


def _instructions(small: bool, name: str, at_ms: int | None, tz: tzinfo | None) -> str:
    today = datetime.fromtimestamp((at_ms if at_ms is not None else now_ms()) / 1000, tz)
    text = prompt_text(f"answer{'_small' if small else ''}")
    return text.format(name=name or "the person", today=f"{today:%A, %d %B %Y}")


def _quote(home: Home, hits: Sequence[Hit], question: str) -> list[dict[str, Any]]:
    """Choose the quotations; when the embedder is down, by the words alone."""
    vector, tz = home.embed(question)[0], zone(home.settings.memory.timezone)
    _, embedder = home.serving()
    if vector is None or embedder is None:
        return choose_quotes(None, hits, question, tz)
    try:
        return choose_quotes((embedder, vector), hits, question, tz)
    except ModelError:
        return choose_quotes(None, hits, question, tz)


def _options(home: Home, turn: Turn, tools: bool) -> Options:
    assert turn.context is not None
    asked, settings = turn.asked, home.settings.engine
    temperature = asked.temperature
    if temperature is None:
        temperature = asked.options.temperature
    return replace(
        asked.options,
        max_tokens=turn.context.tokens["answer"],
        temperature=settings.temperature if temperature is None else temperature,
        think=asked.options.think or home.models.setting(turn.role).think,
        tools=asked.options.tools if tools else (),
        tool_choice=asked.options.tool_choice if tools else None,
    )


# --- for a model elsewhere ----------------------------------------------------------------------


def _for_elsewhere(
    home: Home, turn: Turn, context: Context, policy: Leave, options: Options
) -> Prompt:
    """Apply what may leave to what was composed (what may not is not in it any more)."""
    classes = {name: policy.policy(name) for name in context.classes}
    if found := _secrets(home, context.messages, options):
        raise ModelError(
            f"The prompt holds what looks like a secret ({', '.join(found)}), and {turn.role} is "
            "not on this machine.",
            "Take it out, or ask a model of your own: @primary before the question.",
        )
    names: Placeholders | None = None
    messages: Sequence[ChatMessage] = context.messages
    if policy.hides_names(context.classes):
        # One set of names for the whole prompt: whoever stands for a name does so everywhere.
        names = Placeholders(needed_names(home.settings, home.speakers()))
        head, *rest = messages
        messages = [
            replace(head, content=f"{names.redact(head.content)}\n\n{NOTE}"),
            *(_without_names(message, names) for message in rest),
        ]
        options = _nameless(options, names)
    return Prompt(messages, options, classes, names)


def _secrets(home: Home, messages: Sequence[ChatMessage], options: Options) -> tuple[str, ...]:
    """Return the kinds of secrets that stand anywhere in what would be sent."""
    calls = (call.arguments for message in messages for call in message.tool_calls)
    said = (message.content for message in messages)
    text = "\n".join([*said, *calls, *_texts(_wishes(options))])
    found = secrets_in(text)
    if any(key in text for key in egress.keys_of(home.settings)):
        found = tuple(dict.fromkeys((*found, "api key")))
    return found


def keep_from_leaving(
    home: Home, role: str, messages: Sequence[ChatMessage], options: Options
) -> None:
    """Refuse what a client may not send straight to a remote model, whatever it names.

    Its own words are its own business; but not a secret, not where questions may not leave, not
    beyond the budget, and not an answer of ours that rests on what may not leave. Raises
    MayNotLeaveError.
    """
    policy = leave(home.settings.privacy)
    if not policy.may("question"):
        raise MayNotLeaveError("may not leave this machine (privacy.question: deny)", role)
    if found := _secrets(home, messages, options):
        raise MayNotLeaveError(f"holds what looks like a secret ({', '.join(found)})", role)
    budget = spending(home)
    if home.models.state(role).priced and budget.spent >= budget.monthly:
        raise MayNotLeaveError("would cost money, and the month's budget is spent", role)
    said = [message for message in messages if message.role != "system"]
    with home.db.read() as conn:
        turns = sessions.told(conn, sessions.thread_of(conn, said) or "", said)
    for turn in turns:
        denied = [name for name in rests_on(turn) if not policy.may(name)]
        if turn.message_id and denied:
            reason = f"repeats an answer that rests on what may not leave ({denied[0]}: deny)"
            raise MayNotLeaveError(reason, role)


class MayNotLeaveError(InputError):
    """A client's message for a remote model must stay on this machine."""

    status = 403

    def __init__(self, reason: str, role: str) -> None:
        super().__init__(
            f"The message {reason}, and {role} is not on this machine.",
            "Ask `knowme`, which sends what may leave, or a model of this machine.",
        )


def _without_names(message: ChatMessage, names: Placeholders) -> ChatMessage:
    calls = tuple(
        replace(call, arguments=_nameless_json(call.arguments, names))
        for call in message.tool_calls
    )
    # A picture cannot be redacted: where names may not leave, it does not either.
    hidden = "\n[a picture, not shown]" if message.images else ""
    content = names.redact(message.content) + hidden
    return replace(message, content=content, tool_calls=calls, images=())


def _wishes(options: Options) -> Sequence[Any]:
    """Return what a client wrote beside its messages: texts stand in all of it."""
    return options.tools, options.tool_choice, options.json_schema, options.stop, options.extra


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, the keys of its objects too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _nameless_json(text: str, names: Placeholders) -> str:
    """Take the names out of each text of what should be JSON."""
    try:
        return json.dumps(_clean(json.loads(text), names), ensure_ascii=False)
    except (ValueError, RecursionError):
        return names.redact(text)


def _clean(value: Any, names: Placeholders) -> Any:
    if isinstance(value, str):
        return names.redact(value)
    if isinstance(value, Mapping):
        return {names.redact(str(key)): _clean(inner, names) for key, inner in value.items()}
    return [_clean(inner, names) for inner in value] if isinstance(value, list | tuple) else value


def _nameless(options: Options, names: Placeholders) -> Options:
    """Take the names out of a client's wishes; a tool that is called by one is left out."""

    def plain(call: Any) -> bool:
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else call
        return not isinstance(name, str) or names.redact(name) == name

    tools = tuple(_clean(tool, names) for tool in options.tools if plain(tool))
    return replace(
        options,
        tools=tools,
        tool_choice=options.tool_choice if tools and plain(options.tool_choice) else None,
        json_schema=None if options.json_schema is None else _clean(options.json_schema, names),
        stop=tuple(_clean(options.stop, names)),
        extra=_clean(options.extra, names),
    )


# --- looking at an answer again -----------------------------------------------------------------


def check_prompt(turn: Turn, answer: str, prompt: Prompt) -> Prompt:
    """Return what a model is asked about its own answer."""
    *_, question = prompt.messages
    told = f"{question.content}\n\nThe answer:\n{answer}"
    schema = {
        "type": "object", "properties": {"good": {"type": "boolean"}}, "required": ["good"],
        "additionalProperties": False,
    }  # fmt: skip
    return replace(
        prompt,
        messages=(ChatMessage("system", prompt_text("check")), ChatMessage("user", told)),
        options=Options(max_tokens=24, temperature=0.0, json_schema=schema),
    )


def is_good(verdict: str) -> bool:
    """Read a verdict; what is no clear yes is a no."""
    try:
        return json.loads(verdict).get("good") is True
    except (ValueError, AttributeError):
        return re.fullmatch(r"\W*(?:yes|true)\b.*", verdict.strip().lower(), re.DOTALL) is not None
