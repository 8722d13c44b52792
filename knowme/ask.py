"""ask(): the one path of every question, from every surface.

Promises: recall, route, compose, stream, then one write of the turn, its calls and its receipt,
also when the asker leaves in the middle. When a model fails the next of the route takes over, and
the asker is told; what may have been paid once is not paid twice. What does not have the right to
leave stands in no prompt for a remote model. When nothing relevant is known and the question is
about the person, it says so and no model is asked. A very small model leads with the quoted words
and their date, and only those of its sentences are shown that the notes bear out.
Refuses to know: how the answer is shown, how an engine works, how recall ranks.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from knowme import archive, egress, memory, prompting, receipts, steering
from knowme.errors import InputError, ModelDownError, ModelError
from knowme.home import Home
from knowme.questions import about_the_person, asks, is_small_talk
from knowme.quotes import quote_lead, supported
from knowme.receipts import rate, why
from knowme.times import now_ms
from knowme.turn import Asked, Call, Delta, Done, Event, Started, Switched, Turn
from knowme.types import (
    ChatMessage,
    Chunk,
    Dropped,
    Options,
    Route,
    ToolCall,
    ToolDelta,
    Usage,
)
from knowme.words import content_words, sentences

if TYPE_CHECKING:
    from knowme.redact import Placeholders
    from knowme.seams import Engine, Vectors

UNKNOWN = "I don't know that about you: nothing that you told me bears on it."
UNKNOWN_SMALL = "I don't know that: nothing that you told me bears on it, and I am a small model."
NOTED = "Noted, word for word."
SMALL_TRIES = 3
AGAIN_SECONDS = 10.0
"""A model of this machine that failed sooner than this is asked once more: it was started anew."""
PATIENCE_SECONDS = 5.0
"""How long a Retry-After may be where nobody else can answer."""


async def ask(home: Home, asked: Asked) -> AsyncIterator[Event]:
    """Answer one question: yields Started, then Delta after Delta, then Done.

    Questions of one conversation are answered one after the other. Closing the iterator early
    stores what was said so far as a turn that was cut. Raises InputError for an empty question,
    NotFoundError for an unknown model, ModelError when no model can answer (the failed turn is
    stored too).
    """
    asked = _checked(asked)
    conversation = asked.conversation or f"{asked.surface}-{uuid.uuid4().hex[:12]}"
    async with home.locks.of(conversation):
        began = time.perf_counter()
        turn = await asyncio.to_thread(prepare, home, asked, conversation)
        state = "cut"
        try:
            async with aclosing(_answered(home, turn)) as events:
                async for event in events:
                    yield event
            state = "done"
        except Exception as error:
            state, turn.error = "failed", str(error)
            raise
        finally:
            took = (time.perf_counter() - began) * 1000
            if state != "done":  # the asker is gone: nobody waits, an await could be cancelled
                home.db.write(lambda conn: receipts.store(conn, home, turn, state, took))
        receipt_id = await asyncio.to_thread(receipts.keep, home, turn, took)
        usage = turn.usage or Usage(model=turn.model, total_ms=took)
        yield Done(
            turn.answer, usage, receipt_id, turn.known, turn.role, turn.model, turn.cost,
            tuple(turn.tool_calls), () if turn.context is None else tuple(turn.context.used),
        )  # fmt: skip


def _checked(asked: Asked) -> Asked:
    if not asked.question.strip() and not asked.images and not asked.again and not asked.turns:
        raise InputError("The question is empty.", "Ask something.")
    return replace(
        asked,
        question=archive.whole(asked.question),
        conversation=archive.whole(asked.conversation),
        system_prompt=archive.whole(asked.system_prompt),
        client_system=archive.whole(asked.client_system),
    )


def prepare(home: Home, asked: Asked, conversation: str) -> Turn:
    """Recall, and choose the model: everything before the first model is asked."""
    turn = steering.steer(home, asked, conversation)
    if prompting.remembered(turn.asked, turn.question):
        turn.told = _embed(home, turn.question)
    return turn


def _embed(home: Home, text: str) -> tuple[memory.Space, Vectors] | None:
    """Embed what the person tells, before the write; None when the embedder cannot."""
    vector, space = home.embed(memory.passage("user", "", text), "document")
    return None if vector is None or space is None else (space, vector[None])


# --- one model after the other ------------------------------------------------------------------


async def _answered(home: Home, turn: Turn) -> AsyncGenerator[Event, None]:
    """Let the chosen model answer; when it fails, the next."""
    waiting = [turn.route.model, *turn.route.alternatives]
    again: set[str] = set()
    if (told := turn.route.refused.get(waiting[0])) and not turn.states[waiting[0]].local:
        raise ModelError(
            f"No model may answer this. {waiting[0]}: {told}",
            "Add a model of this machine, or change what may leave: knowme config show",
        )
    if turn.asked.images and not turn.states[waiting[0]].images:
        raise InputError(
            "No model here can look at pictures.",
            "Name one that can: knowme config set models.vision.model NAME, and images: true",
        )
    while True:
        role, began = waiting.pop(0), time.monotonic()
        try:
            async with aclosing(_attempt(home, turn, role)) as events:
                async for event in events:
                    yield event
            return
        except ModelError as error:
            quick = time.monotonic() - began < AGAIN_SECONDS
            waiting, pause = _after(turn, role, error, waiting, quick and role not in again)
            again.add(role)
            if not waiting:
                raise
            reason = f"{_who(turn, role)} failed: {error.message}"
        await asyncio.sleep(pause)
        shown = bool(turn.answer or turn.tool_calls)
        turn.forget_attempt()
        if waiting[0] != role:
            turn.stage, turn.note = "fallback", reason
        if turn.begun and (shown or waiting[0] != role):
            follower = turn.states[waiting[0]]
            yield Switched(follower.role, follower.model, follower.engine, reason, shown)


def _after(
    turn: Turn, role: str, error: ModelError, waiting: Sequence[str], once_more: bool
) -> tuple[list[str], float]:
    """Return who may be asked after this failure, and how long to wait before.

    An answer that was begun, or may have been, may have been paid: then nobody is asked who costs
    money, this model least of all.
    """
    states = turn.states
    left = [name for name in waiting if name != role]
    if isinstance(error, NotGoodEnoughError):
        return [*left, role], 0.0  # where the stronger one cannot, a doubtful answer is one
    if error.reached != "no" and not states[role].local:
        left = [name for name in left if states[name].local or not states[name].priced]
    if once_more and states[role].local and type(error) is ModelDownError:
        return [role, *left], 0.0
    wait = error.retry_after
    if not left and once_more and error.reached == "no" and wait is not None:
        return ([role], wait) if wait <= PATIENCE_SECONDS else ([], 0.0)
    return left, 0.0


def _who(turn: Turn, role: str) -> str:
    model = turn.states[role].model
    return f"{role} ({model})" if model and model != role else role


async def _attempt(home: Home, turn: Turn, role: str) -> AsyncGenerator[Event, None]:
    """Answer with one model. Raises ModelError when it cannot."""
    engine = await asyncio.to_thread(home.models.engine, role)
    turn.role, turn.engine, turn.local = role, engine.name, engine.local
    turn.model = engine.model
    turn.stage = turn.stage or turn.route.stage
    said = await asyncio.to_thread(_without_a_model, home, turn, engine)
    if said:
        if not turn.begun:
            yield _started(turn, engine)
        turn.answer = said
        yield Delta(said)
        return
    try:
        async with home.models.use(role) as used:
            prompt = await asyncio.to_thread(prompting.compose_for, home, turn, used)
            if not turn.begun:
                yield _started(turn, used)
            async with aclosing(_pieces(home, turn, used, prompt)) as pieces:
                async for piece in pieces:
                    turn.answer += piece.text
                    yield piece
    except NotGoodEnoughError:
        raise
    except ModelError as error:
        home.models.failed(role, error)
        raise
    home.models.worked(role)


def _started(turn: Turn, engine: Engine) -> Started:
    turn.begun, turn.model = True, engine.model
    assert turn.context is not None
    return Started(
        engine.model, engine.name, turn.conversation, turn.context.used, turn.known, turn.role,
        turn.route, turn.note,
    )  # fmt: skip


def _without_a_model(home: Home, turn: Turn, engine: Engine) -> str:
    """Return what is to be said without asking any model; "" where one must be asked."""
    turn.small = prompting.is_small(home, turn, engine)
    asked = turn.asked
    turn.noted = (
        turn.small and prompting.remembered(asked, turn.question) and not asks(turn.question)
    )
    if turn.noted:
        said = NOTED  # more would be invented
    elif turn.known or asked.images or asked.again or prompting.is_agent(turn):
        return ""
    elif turn.small and not is_small_talk(turn.question):
        said = UNKNOWN if about_the_person(turn.question) else UNKNOWN_SMALL
    elif about_the_person(turn.question) and asks(turn.question) and _asks_memory(turn):
        said = UNKNOWN
    else:
        return ""
    prompting.compose_unasked(home, turn, engine)
    return said


def _asks_memory(turn: Turn) -> bool:
    """Tell whether only memory could answer: no earlier turn may help, and no knowledge."""
    alone = not turn.session.turns and not turn.asked.turns
    return alone and turn.intent.category == "PERSONAL" and turn.route.stage != "gate"


# --- the answer ---------------------------------------------------------------------------------


async def _pieces(
    home: Home, turn: Turn, engine: Engine, prompt: prompting.Prompt
) -> AsyncGenerator[Delta, None]:
    if turn.quotes:
        yield Delta(quote_lead(turn.quotes))
    if engine.name == "echo" and turn.quotes:
        # The quotations are the answer; given nothing more, the echo only says what it is.
        yield Delta("\n\n")
        pieces = _stream(home, turn, engine, replace(prompt, messages=()))
    elif turn.small and turn.known:
        pieces = _supported(home, turn, engine, prompt)
    elif _is_doubtful(turn):
        pieces = _looked_at(home, turn, engine, prompt)
    else:
        pieces = _stream(home, turn, engine, prompt)
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


def _is_doubtful(turn: Turn) -> bool:
    """Tell whether the model shall look at its answer; what a program drives has its own form."""
    return turn.route.check and turn.stage != "fallback" and not prompting.is_agent(turn)


async def _stream(
    home: Home, turn: Turn, engine: Engine, prompt: prompting.Prompt
) -> AsyncGenerator[Delta, None]:
    """Stream one answer, with its names put back. Raises ModelError, also for an empty answer."""
    some = False
    chunks = called(home, turn, engine, prompt, "answer")
    pieces = chunks if prompt.names is None else _named(chunks, prompt.names)
    async with aclosing(chunks), aclosing(pieces):
        async for chunk in pieces:
            if chunk.tool_calls:
                _gather(turn, chunk.tool_calls)
            if chunk.text or chunk.tool_calls:
                some = True
                yield Delta(chunk.text, chunk.tool_calls)
    if not some and not turn.quotes:
        turn.calls[-1].state = "empty"
        raise ModelDownError(
            f"{engine.model or engine.name} gave an empty answer.",
            "Ask again, or ask another model: @ROLE before the question.",
            reached="yes",
        )


async def called(
    home: Home, turn: Turn, engine: Engine, prompt: prompting.Prompt, purpose: str
) -> AsyncGenerator[Chunk, None]:
    """Call the model: every piece, with the call noted whatever becomes of it."""
    call = Call(
        purpose, turn.role, engine.model, engine.name, engine.local, now_ms(), turn.stage,
        turn.note or turn.route.reason,
    )  # fmt: skip
    turn.calls.append(call)
    said: list[str] = []
    fate, began = "yes", time.perf_counter()
    stream = engine.stream(prompt.messages, prompt.options)
    try:
        # The request goes out with the first piece, and is labelled for the ledger just then: a
        # label that is set across a yield would be taken off in another context.
        with egress.labelled(purpose, model=engine.model, classes=prompt.classes) as label:
            try:
                chunk = await anext(stream, None)
            finally:
                call.sent += label.rows
        while chunk is not None:
            call.usage = chunk.usage or call.usage
            said.append(chunk.text + chunk.reasoning)
            yield chunk
            chunk = await anext(stream, None)
        call.state = "done"
        call.model = turn.model = engine.model
    except ModelError as error:
        call.state, call.error, fate = "failed", str(error), error.reached
        raise
    finally:
        if call.usage is None and fate != "no" and (call.local or call.sent):
            took = (time.perf_counter() - began) * 1000
            call.usage = steering.estimated(engine.model, prompt.messages, "".join(said), took)
        if call.usage is not None:
            call.cost = turn.states[turn.role].cost(
                call.usage.prompt_tokens, call.usage.answer_tokens
            )
        await stream.aclose()  # type: ignore[attr-defined]


async def _named(
    chunks: AsyncGenerator[Chunk, None], names: Placeholders
) -> AsyncGenerator[Chunk, None]:
    """Put the names back into an answer: its text, and the arguments of each tool call.

    Arguments are JSON: they are held back until they are whole.
    """
    said = names.restorer()
    held: dict[int, ToolDelta] = {}
    async for chunk in chunks:
        for delta in chunk.tool_calls:
            so_far = held.get(delta.index, ToolDelta(delta.index))
            held[delta.index] = ToolDelta(
                delta.index, so_far.id or delta.id, so_far.name or delta.name,
                so_far.arguments + delta.arguments,
            )  # fmt: skip
        yield replace(chunk, text=said.feed(chunk.text), tool_calls=())
    calls = (replace(call, arguments=_restored(call.arguments, names)) for call in held.values())
    yield Chunk(said.end(), tool_calls=tuple(calls))


def _restored(arguments: str, names: Placeholders) -> str:
    """Return JSON text with the names back in each of its texts."""

    def back(value: Any) -> Any:
        if isinstance(value, str):
            return names.restore(value)
        if isinstance(value, list):
            return [back(each) for each in value]
        if isinstance(value, dict):
            return {names.restore(key): back(each) for key, each in value.items()}
        return value

    try:
        return json.dumps(back(json.loads(arguments)), ensure_ascii=False)
    except ValueError:
        return names.restore(arguments)


def _gather(turn: Turn, deltas: Sequence[ToolDelta]) -> None:
    """Put the pieces of tool calls together."""
    for delta in deltas:
        while len(turn.tool_calls) <= delta.index:
            turn.tool_calls.append(ToolCall("", "", ""))
        so_far = turn.tool_calls[delta.index]
        turn.tool_calls[delta.index] = ToolCall(
            delta.id or so_far.id, so_far.name or delta.name, so_far.arguments + delta.arguments
        )


async def _supported(
    home: Home, turn: Turn, engine: Engine, prompt: prompting.Prompt
) -> AsyncGenerator[Delta, None]:
    """Pass on the first sentence of a small model whose names and numbers stand in the notes.

    It is asked for one; what such a model adds to it is repetition. So the stream ends there.
    """
    assert turn.context is not None
    notes = [hit.text for hit in turn.context.used]
    asked = content_words(turn.question)
    held = ""
    stream = _stream(home, turn, engine, prompt)
    try:
        async for piece in stream:
            held += piece.text
            *whole, held = sentences(held) or [""]
            if not turn.calls[-1].error and whole:
                turn.calls[-1].state = "done"  # it is we who stop it
            for sentence in whole:
                if supported(sentence, notes) and not set(content_words(sentence)) <= set(asked):
                    yield Delta(("\n\n" if turn.quotes else "") + sentence.strip())
                    return
                if sentence.strip():
                    turn.withheld.append(sentence)
            if len(turn.withheld) >= SMALL_TRIES:
                return
        if held.strip():
            turn.withheld.append(held)
    finally:
        await stream.aclose()


async def _looked_at(
    home: Home, turn: Turn, engine: Engine, prompt: prompting.Prompt
) -> AsyncGenerator[Delta, None]:
    """Let the model answer, let it look at its answer, and pass it on only if it is good.

    Raises ModelDownError when it is not: then the stronger model is asked.
    """
    whole = [piece async for piece in _stream(home, turn, engine, prompt)]
    answer = "".join(piece.text for piece in whole)
    looks = prompting.check_prompt(turn, answer, prompt)
    verdict = ""
    async with aclosing(called(home, turn, engine, looks, "check")) as chunks:
        async for chunk in chunks:
            verdict += chunk.text
    if not prompting.is_good(verdict):
        turn.withheld.append(answer)
        raise NotGoodEnoughError("it was not sure of its own answer")
    for piece in whole:
        yield piece


class NotGoodEnoughError(ModelError):
    """A model looked at its answer again and did not stand by it: another one is asked."""


# --- what would be ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen to a message: who would answer, and what that model would be sent.

    ``role`` is whom it is composed for: the chosen one, or the first remote one with ``remote``.
    ``url`` is where it would go, "" for a model of this machine; ``withheld`` is what may not.
    """

    route: Route
    role: str
    url: str
    messages: tuple[ChatMessage, ...]
    classes: dict[str, str]
    withheld: tuple[Dropped, ...]
    bytes: int
    tokens: int
    cost: float
    states: tuple[str, ...] = ()


def preview(home: Home, asked: Asked, *, remote: bool = False) -> Preview:
    """Tell who would answer and what would be sent, without asking any model for an answer.

    Raises InputError, NotFoundError; ModelError where the message may not leave at all.
    """
    turn = prepare(home, _checked(asked), asked.conversation or "preview")
    away = [role for role, state in turn.states.items() if not state.local]
    role = turn.route.model
    if remote and turn.states[role].local:
        role = away[0] if away else ""
    if not role:
        return Preview(turn.route, "", "", (), {}, (), 0, 0, 0.0)
    try:
        engine = home.models.engine(role)
    except ModelError:  # it is not there: who would answer is known all the same
        return Preview(turn.route, role, "", (), {}, (), 0, 0, 0.0)
    turn.role, turn.engine, turn.local = role, engine.name, engine.local
    turn.small = prompting.is_small(home, turn, engine)
    prompt = prompting.compose_for(home, turn, engine, loaded=False)
    assert turn.context is not None
    tokens = sum(many for name, many in turn.context.tokens.items() if name != "answer")
    sent = sum(len(message.content.encode("utf-8", "replace")) for message in prompt.messages)
    withheld = [each for each in turn.context.dropped if "privacy." in each.reason]
    return Preview(
        turn.route, role, "" if engine.local else home.models.setting(role).url,
        tuple(prompt.messages),
        dict(prompt.classes), tuple(withheld), sent, tokens,
        turn.states[role].cost(tokens, turn.context.tokens["answer"]),
    )  # fmt: skip


__all__ = [
    "Asked", "Delta", "Done", "Event", "Options", "Preview", "Started", "Switched", "ask",
    "Turn", "called", "prepare", "preview", "rate", "why",
]  # fmt: skip
