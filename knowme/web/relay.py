"""A model for a client of another API: `knowme`, with memory and routing, or one straight through.

Promises: straight through means that the client's messages reach that model as they are, and each
piece of its answer goes back as it comes; only the call is noted (after the answer, by a thread of
its own), and in the ledger what left the machine. Under `knowme` the last message is the question,
the earlier ones are its turns; whatever tools and schemas the client has go along.
Refuses to know: how a request was read and how an answer is written.

What `knowme` makes of a client that keeps the conversation itself (all of them do):

* its system prompt is cut to what the window bears; what was left out stands in the receipt;
* its conversation is found again by what was said before (``sessions.thread_of``), or named by the
  header x-knowme-session;
* OpenClaw's messages come in with `knowme sync` too, so they are kept and not recalled from here;
* when the last message is the result of a tool there is no new question: nothing is recalled, and
  the whole conversation goes to the model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from knowme import egress, sessions
from knowme.ask import Asked, Delta, Done, Started, Switched
from knowme.errors import InputError, ModelDownError, ModelError, NotFoundError
from knowme.home import Home
from knowme.prompting import keep_from_leaving
from knowme.receipts import put_call
from knowme.reduce import OPENCLAW, is_task, split
from knowme.steering import estimated
from knowme.times import now_ms
from knowme.turn import Call
from knowme.types import ChatMessage, Chunk, Usage
from knowme.web.client_shapes import Wanted
from knowme.web.forms import UnknownModelError

if TYPE_CHECKING:
    from knowme.seams import Engine
    from knowme.web.work import Service

NAME = "knowme"
AGAIN_SECONDS = 10.0
CLIENT = {"client": "allow"}
"""What leaves in a pass-through, for the ledger: what the client itself sent to that model."""


@dataclass(slots=True)
class Told:
    """What is known of an answer, filled in while it comes. ``name``: what the client asked for."""

    name: str
    model: str = ""
    role: str = ""
    engine: str = ""
    reason: str = ""
    session: str = ""
    receipt_id: int | None = None
    answer: str | None = None  # the whole, where what was streamed holds more
    usage: Usage = field(default_factory=lambda: Usage(""))

    def headers(self) -> dict[str, str]:
        """Return the headers that tell who answers."""
        told = {
            "x-knowme-model": self.model,
            "x-knowme-route": self.role,
            "x-knowme-session": self.session,
        }
        return {name: _for_header(value) for name, value in told.items() if value}

    def about(self) -> dict[str, Any]:
        """Return what an answer under the name `knowme` tells beside the answer."""
        return {
            "model": self.model,
            "role": self.role,
            "reason": self.reason,
            "receipt_id": self.receipt_id,
            "session_id": self.session,
        }


def _for_header(value: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in value)[:200]


def is_knowme(name: str) -> bool:
    """Tell whether a client means memory and routing, not one model."""
    return name.removesuffix(":latest") == NAME


def find_role(home: Home, name: str) -> str:
    """Return the role of a role or a model's name. Raises UnknownModelError."""
    try:
        return home.models.find(name)
    except NotFoundError as error:
        if name.endswith(":latest"):
            try:
                return home.models.find(name.removesuffix(":latest"))
            except NotFoundError:
                pass
        raise UnknownModelError(name, error) from None


def relay(service: Service, wanted: Wanted, told: Told) -> AsyncGenerator[Chunk, None]:
    """Return the pieces of the answer; ``told`` is filled in while they come.

    Raises UnknownModelError at once, ModelError, InputError and BusyError with the first piece.
    """
    if is_knowme(wanted.model):
        return _remembering(service, wanted, told)
    told.role = find_role(service.home, wanted.model)
    return _straight(service, wanted, told)


# --- straight through ---------------------------------------------------------------------------


async def _straight(service: Service, wanted: Wanted, told: Told) -> AsyncGenerator[Chunk, None]:
    models, role = service.home.models, told.role
    async with service.passing(), models.use(role) as engine:
        told.model, told.engine = engine.model, engine.name
        if not engine.local:
            await asyncio.to_thread(
                keep_from_leaving, service.home, role, wanted.messages, wanted.options
            )
        call = Call("passthrough", role, engine.model, engine.name, engine.local, now_ms())
        stream: AsyncIterator[Chunk] | None = None
        said: list[str] = []
        fate, began = "yes", time.perf_counter()
        try:
            stream, chunk = await _first(engine, wanted, call)
            told.model = call.model = engine.model or engine.name
            while chunk is not None:
                if chunk.usage is not None:
                    told.usage = call.usage = chunk.usage
                said.append(chunk.text + chunk.reasoning)
                yield chunk
                chunk = await anext(stream, None)
            call.state = "done"
            models.worked(role)
        except ModelError as error:
            call.state, call.error, fate = "failed", str(error), error.reached
            models.failed(role, error)
            service.health.poke()
            raise
        finally:
            if call.usage is None and fate != "no" and (call.local or call.sent):
                took = (time.perf_counter() - began) * 1000
                call.usage = estimated(engine.model, wanted.messages, "".join(said), took)
            _note(service, call)
            if stream is not None:
                await stream.aclose()  # type: ignore[attr-defined]


async def _first(
    engine: Engine, wanted: Wanted, call: Call
) -> tuple[AsyncIterator[Chunk], Chunk | None]:
    """Send the request and return (the stream, its first piece).

    A model of this machine that fails at once is asked once more, which costs nothing twice: it
    was started anew, or it closed a kept connection just then.
    """
    began = time.monotonic()
    for last in (False, True):
        stream = engine.stream(wanted.messages, wanted.options)
        try:
            # As in ask: the label is for what goes out with the first piece, in this context.
            with egress.labelled("passthrough", model=engine.model, classes=CLIENT) as label:
                try:
                    return stream, await anext(stream, None)
                finally:
                    call.sent += label.rows
        except ModelError as error:
            await stream.aclose()  # type: ignore[attr-defined]
            quick = time.monotonic() - began < AGAIN_SECONDS
            if last or not (engine.local and quick and type(error) is ModelDownError):
                raise
        except BaseException:
            await stream.aclose()  # type: ignore[attr-defined]
            raise
    raise AssertionError("unreachable")


def _note(service: Service, call: Call) -> None:
    home = service.home
    if call.usage is not None and not call.local:
        state = home.models.state(call.role)
        call.cost = state.cost(call.usage.prompt_tokens, call.usage.answer_tokens)
    service.note(lambda conn: put_call(conn, call, None))


# --- with memory --------------------------------------------------------------------------------


def asked_by(home: Home, wanted: Wanted) -> Asked:
    """Return what a client asks of `knowme`. Raises InputError when it asks nothing."""
    if not wanted.messages or wanted.messages[-1].role not in ("user", "tool"):
        raise InputError(
            "The last message must be the user's, or a tool's result.", "Add what is asked."
        )
    parts = split(wanted.messages, tools=bool(wanted.options.tools))
    task = is_task(parts.question)
    return Asked(
        f"/local {parts.question}" if task else parts.question,
        conversation=wanted.session or _thread(home, wanted),
        surface="api",
        images=parts.images,
        turns=parts.turns,
        client_system=parts.system,
        remark=parts.remark,
        max_tokens=wanted.options.max_tokens,
        temperature=wanted.options.temperature,
        options=wanted.options,
        remember=parts.client != OPENCLAW and not task,
    )


def _thread(home: Home, wanted: Wanted) -> str:
    """Return the name of the conversation that a client goes on with; "" for a new one."""
    with home.db.read() as conn:
        return sessions.thread_of(conn, _said(wanted)) or ""


def _said(wanted: Wanted) -> list[ChatMessage]:
    return [message for message in wanted.messages if message.role != "system"]


async def _remembering(service: Service, wanted: Wanted, told: Told) -> AsyncGenerator[Chunk, None]:
    asked = await asyncio.to_thread(asked_by, service.home, wanted)
    said: list[str] = []
    async with aclosing(service.ask(asked)) as events:
        async for event in events:
            if isinstance(event, Delta):
                said.append(event.text)
                yield Chunk(event.text, tool_calls=event.tool_calls)
            elif isinstance(event, Started):
                told.model, told.role, told.engine = event.model, event.role, event.engine
                told.session, told.reason = event.conversation, event.note or event.route.reason
            elif isinstance(event, Switched):
                mark = broke_off(told.role, event.role) if event.restart and any(said) else ""
                told.model, told.role, told.engine = event.model, event.role, event.engine
                told.reason = event.reason
                if mark:
                    said.append(mark)
                    yield Chunk(mark)
            elif isinstance(event, Done):
                _finish(told, event)
                heard = "".join(said) if wanted.stream else event.answer
                await asyncio.to_thread(_remember, service.home, wanted, told, heard, event)
                yield Chunk(usage=told.usage)
            else:
                told.receipt_id, told.usage = event.receipt_id, Usage(told.model)
                yield Chunk(usage=told.usage)


def broke_off(before: str, after: str) -> str:
    """Return the mark between what one model began and another one says: text cannot be unsaid."""
    who = f"{before} broke off; {after} answers" if before != after else f"{before} begins again"
    return f"\n\n[{who}:]\n\n"


def _finish(told: Told, done: Done) -> None:
    told.model, told.role, told.receipt_id = done.model or told.model, done.role, done.receipt_id
    told.answer = done.answer
    told.usage = replace(done.usage, finish="tool_calls") if done.tool_calls else done.usage


def _remember(home: Home, wanted: Wanted, told: Told, heard: str, done: Done) -> None:
    """Note what the client will send as the conversation so far, so that it is found again."""
    said = [*_said(wanted), ChatMessage("assistant", heard, tool_calls=done.tool_calls)]
    home.db.write(lambda conn: sessions.remember_thread(conn, said, told.session, now_ms()))
