"""steer(): gathers what the router must know of one message, and lets it choose.

The message's way: its directive -> its conversation -> recall -> its vector and what it is about ->
what the stronger model would gain and cost -> ``route.choose``, which is pure.

Promises: no model is asked (but for the embedding, and for ``routing.classifier: model``); a
message that can only go to one model costs no more than recall.
Refuses to know: how the router weighs, what a prompt looks like.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from knowme import details, egress, feedback, sessions, summaries
from knowme.db import rows
from knowme.errors import InputError, ModelError, NotFoundError
from knowme.gain import features
from knowme.home import Home
from knowme.intents import Intent, classify
from knowme.privacy import leave
from knowme.questions import follows_on, is_small_talk
from knowme.redact import secrets_in
from knowme.route import FAST, Budget, Learned, Message, Recall, choose, directive
from knowme.times import now_ms, zone
from knowme.turn import Asked, Call, Turn
from knowme.types import ChatMessage, Hit, Options, Query, Route, Usage
from knowme.wire import estimate_tokens
from knowme.words import content_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from knowme.sessions import Session

UNTRUSTED = "untrusted"
"""What a source marks as neither the person's nor their assistant's: searched, never prompted."""
KIND_SECONDS = 10.0
"""The longest that a model is given to say what kind of message it is; loading it counts."""
KIND_READS = 2_000
"""Characters of a message that it reads for that."""
ALONE = 3
"""Content words with which a question that follows on is enough to find earlier turns by."""
USUAL_ANSWER_TOKENS = 256
"""What an answer is expected to take, where its price is weighed before it is there."""


def steer(home: Home, asked: Asked, conversation: str) -> Turn:
    """Return the turn with everything that is known of it before a model is asked."""
    settings = home.settings
    states = {state.role: state for state in home.models.states()}
    names = {role: state.model for role, state in states.items()}
    asked, replaces = _again(home, asked, conversation, names)
    question, target = directive(asked.question, names)
    if not question.strip() and not asked.images and target:  # "/cloud" alone: the last one again
        raise InputError(f"{asked.question.strip()} alone asks nothing.", "Add your question.")
    session = _session(home, asked, conversation)
    hits = _recall(home, replace(asked, question=question), session)
    threshold = settings.ask.threshold
    if threshold < 0:
        threshold = home.threshold()
    found = [hit.score for hit in hits if details.was_recalled(hit)]
    relevance = max(found, default=0.0)
    known = relevance >= threshold
    vector = home.embed(question)[0] if question.strip() else None
    intent = classify(
        question, vector if home.reads_minilm() else None,
        relevance=relevance, threshold=threshold, known=known,
    )  # fmt: skip
    turn = Turn(
        asked, question, conversation, now_ms(), session, hits, known, relevance, threshold,
        intent, Route("", "", 0.0), states, vector=vector, replaces=replaces,
    )  # fmt: skip
    if settings.routing.classifier == "model" and question.strip() and not asked.model:
        turn.intent = _second_opinion(home, turn)
    turn.route = _route(home, turn)
    return turn


def _again(
    home: Home, asked: Asked, conversation: str, names: Mapping[str, str]
) -> tuple[Asked, int | None]:
    """Return what is asked again and the receipt that it replaces, where nothing new is asked."""
    if not asked.again:
        return asked, None
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT a.id, plain(q.text), json_extract(q.meta, '$.images') FROM answers a"
            " JOIN messages q ON q.id = a.question_id"
            " JOIN conversations c ON c.id = a.conversation_id"
            " WHERE c.source = ? AND c.external_id = ? AND q.retired_ms IS NULL"
            " ORDER BY a.id DESC LIMIT 1",
            (sessions.SOURCE, conversation),
        )
    if not found:
        raise NotFoundError("There is no question to ask again.", "Ask one first.")
    receipt_id, text, images = found[0]
    if images:
        raise InputError("The last question held a picture, which is not kept.", "Ask it anew.")
    if asked.again == "retry_cloud" and not asked.model:
        text = f"/cloud {directive(text, names)[0]}"
    return replace(asked, question=text), int(receipt_id)


def _session(home: Home, asked: Asked, conversation: str) -> Session:
    with home.db.read() as conn:
        most = max(sessions.MOST_OPEN, 2 * home.settings.context.recent_turns)
        session = sessions.load(conn, conversation, most)
    if asked.again and session.turns:  # the turn that is replaced is no longer in view
        turns = list(session.turns)
        while turns and turns[-1].role == "assistant":
            turns.pop()
        if turns and turns[-1].role == "user":
            turns.pop()
        session = replace(session, turns=tuple(turns))
    return session


def _recall(home: Home, asked: Asked, session: Session) -> list[Hit]:
    if "recall" not in home.settings.context.strategies:
        return []
    if not asked.question.strip() or is_small_talk(asked.question):  # nothing to look for
        return []
    before = [turn.text for turn in session.turns if turn.role == "user"]
    leans = before and follows_on(asked.question)
    text = f"{before[-1]} {asked.question}" if leans else asked.question
    hits = home.search(
        Query(
            text,
            top_k=asked.top_k or home.settings.search.top_k,
            now_ms=asked.now_ms,
            since_ms=asked.since_ms,
            until_ms=asked.until_ms,
            sources=asked.sources,
            speakers=asked.speakers,
            conversations=asked.conversations,
        )
    )
    hits = [hit for hit in hits if hit.metadata.get("trust") != UNTRUSTED]
    with home.db.read() as conn:
        hits = summaries.resting(conn, hits)
    if asked.sources or asked.speakers or asked.conversations or asked.since_ms or asked.until_ms:
        return hits  # only what was asked for
    if leans and len(content_words(asked.question)) >= ALONE:
        text = asked.question  # earlier turns that answer it have its own words
    vector, space = home.embed(text)
    meaning = None if vector is None or space is None else (vector, space)
    budget, least = home.settings.ask.history_tokens, details.BEARS * home.threshold()
    with home.db.read() as conn:
        earlier = details.detail(conn, session, text, budget, meaning, asked.now_ms, least)
        return details.merged(hits, earlier)


def _route(home: Home, turn: Turn) -> Route:
    asked, settings = turn.asked, home.settings
    text = turn.asked.question
    if asked.model:
        text = f"@{home.models.find(asked.model)} {turn.question}"
    message = Message(
        text,
        images=bool(asked.images),
        tools=bool(asked.options.tools),
        prompt_tokens=_prompt_tokens(home, turn),
        answer_tokens=asked.max_tokens or USUAL_ANSWER_TOKENS,
        secrets=secrets_in(turn.question),
    )
    recall = Recall(
        turn.relevance, turn.threshold, turn.known,
        tuple(sorted({hit.source for hit in turn.hits if details.was_recalled(hit)})),
    )  # fmt: skip
    paid = any(not state.local for state in turn.states.values())
    budget = spending(home) if paid else None  # else nothing is weighed against it
    return choose(
        message,
        recall,
        tuple(turn.states.values()),
        settings,
        rules=home.rules,
        intent=turn.intent,
        learned=_learned(home, turn, message, budget),
        budget=budget,
        leave=leave(settings.privacy),
        current=turn.session.model,
        seed=seed(turn),
    )


def seed(turn: Turn) -> str:
    """Return what a lot is drawn from: the same message at the same place draws the same one."""
    place = f"{turn.conversation}\0{len(turn.session.turns)}\0{turn.asked.question}"
    return hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()


def _second_opinion(home: Home, turn: Turn) -> Intent:
    """Let a model of this machine say what the message is: the fast one, else the primary one.

    Where none can, or none says a clear word in time, what the words say counts.
    """
    near = [state for state in turn.states.values() if state.local and not state.down]
    near.sort(key=lambda state: (state.role != FAST, state.role != home.models.primary))
    if not near or near[0].engine == "echo":
        return turn.intent
    state, words = near[0], turn.intent
    call = Call("classify", state.role, state.model, state.engine, True, now_ms(), "classifier")
    turn.calls.append(call)
    try:
        said = asyncio.run(asyncio.wait_for(_asked_kind(home, turn.question, call), KIND_SECONDS))
        found = json.loads(said)["category"]
    except (ModelError, TimeoutError) as error:
        call.state, call.error = "failed", str(error) or "It took too long."
        if isinstance(error, ModelError):
            home.models.failed(state.role, error)
        return words
    except (ValueError, LookupError, TypeError):
        return words
    if found not in ("PERSONAL", "COMPLEX"):
        return words
    reason = f"{state.role} says so"
    if found == words.category:
        return replace(words, reason=reason)
    return Intent(found, 0.5, "low", reason)


async def _asked_kind(home: Home, question: str, call: Call) -> str:
    messages = (
        ChatMessage("system", prompt_text("classify")),
        ChatMessage("user", question[:KIND_READS]),
    )
    schema = {
        "type": "object", "properties": {"category": {"enum": ["PERSONAL", "COMPLEX"]}},
        "required": ["category"], "additionalProperties": False,
    }  # fmt: skip
    options = Options(max_tokens=16, temperature=0.0, json_schema=schema)
    said = ""
    async with home.models.use(call.role) as engine:
        if not engine.local:  # what is known before it is built may be wrong
            return ""
        call.model, call.engine = engine.model, engine.name
        async with aclosing(engine.stream(messages, options)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                said += chunk.text
                call.usage = chunk.usage or call.usage
    call.state = "done"
    return said


@lru_cache(maxsize=8)
def prompt_text(name: str) -> str:
    """Return one of the prompts."""
    return (files("knowme") / "prompts" / f"{name}.md").read_text("utf-8").strip()


def _prompt_tokens(home: Home, turn: Turn) -> int:
    """Estimate what a prompt of this message will take, before it is composed."""
    asked, settings = turn.asked, home.settings
    earlier = _earlier_tokens(turn, settings.ask.history_tokens)
    notes = min(sum(estimate_tokens(hit.text) for hit in turn.hits), settings.ask.recalled_tokens)
    system = max(settings.ask.system_tokens, estimate_tokens(asked.system_prompt))
    return earlier + notes + system + estimate_tokens(turn.question)


def _earlier_tokens(turn: Turn, budget: int) -> int:
    """Estimate the earlier turns as they will be cut; of a client, what its tools said just now."""
    given = turn.asked.turns
    if given is None:
        said, after = [each.text for each in turn.session.turns], 0
    else:
        asks = max((at for at, each in enumerate(given) if each.role == "user"), default=-1)
        now = asks if not turn.question.strip() and given and given[-1].role == "tool" else None
        said = [each.content for each in given[:now]]
        after = 0 if now is None else sum(estimate_tokens(each.content) for each in given[now:])
    tokens = 0
    for text in reversed(said):
        if tokens >= budget:
            return budget + after
        tokens += estimate_tokens(text)
    return min(tokens, budget) + after


def spending(home: Home) -> Budget:
    """Return what remote models have cost this month, and what they may."""
    monthly = home.settings.routing.monthly_budget
    tz = zone(home.settings.memory.timezone)
    at_ms = now_ms()
    with home.db.read() as conn:
        spent = egress.spent(conn, egress.month_start_ms(at_ms, tz))
    return Budget(spent, monthly, egress.month_elapsed(at_ms, tz))


def _learned(home: Home, turn: Turn, message: Message, budget: Budget | None) -> Learned | None:
    """Ask the learned model, where a remote one could be chosen at all."""
    away = [state for state in turn.states.values() if not state.local and not state.down]
    if not away or budget is None or not home.settings.routing.learned:
        return None
    gain, turn.policy_id, turn.fingerprint = home.gain()
    turn.features = features(turn.question)
    mean, sd = gain.predict(turn.vector, turn.features)
    if turn.policy_id is None:
        weak, _ = gain.usual(turn.vector, turn.features)
        mean = min(1.0, mean + weak * (1.0 - _strength(turn)))
    price = feedback.lambda_of(
        budget.spent, budget.monthly, budget.elapsed, home.settings.routing.worth
    )
    return Learned(mean, sd, price)


def _strength(turn: Turn) -> float:
    """Return in [0, 1] how much of the labels' weaker model the best local one is worth.

    That model was a mixture of eight 7B ones of 2023; later models of 4B do as well, one of 100M
    answers hardly anything. Between them by the logarithm of the size: a judgement, not fitted,
    and only where nothing was learned of this person yet. 1 where nobody knows the size.
    """
    sizes = [each.parameters for each in turn.states.values() if each.local and not each.down]
    if not sizes or not all(sizes):
        return 1.0
    return min(1.0, max(0.0, math.log(max(sizes) / 1e8) / math.log(4e9 / 1e8)))


def estimated(
    model: str, messages: Sequence[ChatMessage], said: str, took_ms: float = 0.0
) -> Usage:
    """Return what a call took that ended before it could tell: what may have been paid counts."""
    prompt = sum(estimate_tokens(message.content) for message in messages)
    return Usage(model, prompt, answer_tokens=estimate_tokens(said), total_ms=took_ms)


def observation(turn: Turn) -> NDArray[Any] | None:
    """Return what the learned router saw of the message: its vector, then its features."""
    import numpy as np

    if turn.features is None:
        return None
    parts = [turn.features] if turn.vector is None else [turn.vector, turn.features]
    return np.concatenate(parts).astype(np.float32)
