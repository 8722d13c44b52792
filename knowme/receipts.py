"""Receipts: what is kept of an answer, read back by `knowme why`.

Promises: a turn, its calls, what it sent and its choice are one write; an answer that replaces
another retires that one from view, never from the archive.
Refuses to know: how an answer comes about.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import apsw

from knowme import archive, egress, feedback, jobs, memory, sessions, summaries
from knowme.context import who
from knowme.db import rows
from knowme.errors import InputError, NotFoundError
from knowme.home import Home
from knowme.prompting import is_agent, remembered
from knowme.sessions import SOURCE
from knowme.steering import observation, seed
from knowme.times import iso, now_ms
from knowme.turn import Call, Turn
from knowme.types import Record, Usage


def keep(home: Home, turn: Turn, took_ms: float) -> int:
    """Store a turn that was answered; where it replaces another the router learns from that."""
    number = home.db.write(lambda conn: store(conn, home, turn, "done", took_ms))
    if turn.replaces is not None:
        _learn(home)
    return number


def store(conn: apsw.Connection, home: Home, turn: Turn, state: str, took_ms: float) -> int:
    """Write the turn, its usage and its receipt. Returns the receipt's number."""
    stamp = now_ms()
    conversation, question_id, answer_id = _put_messages(conn, turn, state, stamp)
    usage = turn.usage or Usage(model=turn.model, total_ms=took_ms)
    conn.execute(
        "INSERT INTO answers(conversation_id, question_id, answer_id, surface, state, model, usage,"
        " receipt, asked_ms, took_ms) VALUES(?,?,?,?,?,?,?,?,?,?)",
        (
            conversation, question_id, answer_id, turn.asked.surface, state, turn.model,
            json.dumps(asdict(usage)), json.dumps(_receipt(turn), ensure_ascii=False),
            turn.started_ms, took_ms,
        ),
    )  # fmt: skip
    receipt_id = conn.last_insert_rowid()
    for call in turn.calls:
        put_call(conn, call, receipt_id)
    _put_choice(conn, turn, receipt_id)
    if state == "done" and _shadowed(home, turn):
        jobs.enqueue(conn, "shadow", {"answer_id": receipt_id})
    if turn.replaces is not None:
        with suppress(NotFoundError):  # an answer of before models had roles
            feedback.rate(conn, turn.replaces, turn.asked.again)
    if state == "done":
        _summarise_ahead(conn, home, turn, conversation)
    sessions.moved(
        conn, conversation, anchor_seq=turn.anchor, summary=turn.summary,
        model="" if state == "failed" else turn.role, surface=turn.asked.surface, at_ms=stamp,
    )  # fmt: skip
    return receipt_id


def _summarise_ahead(conn: apsw.Connection, home: Home, turn: Turn, conversation_id: int) -> None:
    """Queue the summary of what will leave the window next, where there may be enough of it."""
    window = turn.states[home.models.primary].context_tokens
    if summaries.due(conn, conversation_id, summaries.sizes(home.settings, window)):
        name = turn.conversation
        key = f"summarise {name}"
        jobs.enqueue(conn, "summarise", {"conversation": name}, unique_key=key)


def _put_messages(
    conn: apsw.Connection, turn: Turn, state: str, stamp: int
) -> tuple[int, int, int | None]:
    key, asked = uuid.uuid4().hex[:16], turn.asked
    recall = remembered(asked, turn.question)
    away = any(not call.local for call in turn.calls)
    meta: dict[str, Any] = {"surface": asked.surface, "sent": away}
    if asked.images:
        meta["images"] = len(asked.images)
    if turn.question != asked.question:
        meta["said"] = turn.question  # what the model was told: without "/cloud" and the like
    question = Record("message", turn.conversation, f"{key}:q", "user", text=asked.question,
                      at_ms=turn.started_ms, seq=-1, recall=recall, meta=meta)  # fmt: skip
    answer = Record("message", turn.conversation, f"{key}:a", "assistant", text=turn.answer,
                    at_ms=stamp, seq=-1, recall=False,
                    meta={"surface": asked.surface, "model": turn.model, "role": turn.role,
                          "local": turn.local, "rests_on": list(turn.rests_on)})  # fmt: skip
    conversation = archive.put_conversation(conn, SOURCE, question, stamp)
    # Asked again in vain, the answer that there was stays, and what came of it is out of view.
    vain = turn.replaces is not None and state != "done" and not (state == "cut" and turn.answer)
    if turn.replaces is not None and not vain:
        _retire(conn, conversation, turn.replaces, stamp)
    question_id, _, _ = archive.put(conn, conversation, question, stamp)
    answer_id: int | None = None
    if turn.answer:
        answer_id, _, _ = archive.put(conn, conversation, answer, stamp)
    if vain:
        for each in (question, answer):
            archive.retire(conn, conversation, each.external_id, stamp)
    made = list(memory.add_items(conn, [question_id])) if recall else []
    if recall and not vain:
        jobs.learn_soon(conn)
    stored = turn.told is not None and memory.put_vectors(conn, turn.told[0], made, turn.told[1])
    if made and not stored:
        jobs.enqueue(conn, "reindex", {}, unique_key="reindex")
    return conversation, question_id, answer_id


def _retire(conn: apsw.Connection, conversation: int, receipt_id: int, stamp: int) -> None:
    """Take a question that is asked again, and its answer, out of the conversation's view."""
    found = rows(
        conn,
        "SELECT m.external_id FROM answers a JOIN messages m"
        " ON m.id IN (a.question_id, a.answer_id) WHERE a.id = ?",
        (receipt_id,),
    )
    for (external_id,) in found:
        archive.retire(conn, conversation, external_id, stamp)


def put_call(conn: apsw.Connection, call: Call, answer_id: int | None) -> None:
    """Write one call of a model."""
    usage = call.usage or Usage(call.model)
    conn.execute(
        "INSERT INTO calls(answer_id, at_ms, purpose, role, model, engine, local, stage, reason,"
        " state, error, prompt_tokens, cached_tokens, answer_tokens, cost, first_token_ms,"
        " total_ms) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            answer_id, call.at_ms, call.purpose, call.role, call.model, call.engine, call.local,
            call.stage, call.reason, call.state, call.error, usage.prompt_tokens,
            usage.cached_tokens, usage.answer_tokens, call.cost, usage.first_token_ms,
            usage.total_ms,
        ),
    )  # fmt: skip
    if call.sent:
        egress.settle(
            conn, call.sent, answer_id=answer_id, prompt_tokens=usage.prompt_tokens,
            answer_tokens=usage.answer_tokens, cost=call.cost,
        )  # fmt: skip


def _put_choice(conn: apsw.Connection, turn: Turn, receipt_id: int) -> None:
    route = turn.route
    asked = any(call.purpose == "answer" for call in turn.calls)  # else no model is to be judged
    feedback.put_choice(
        conn, answer_id=receipt_id, route=route, local=turn.states[route.model].local,
        candidates=tuple(turn.states), answered_by=turn.role, policy_id=turn.policy_id,
        fingerprint=turn.fingerprint, features=observation(turn) if asked else None,
        at_ms=turn.started_ms,
    )  # fmt: skip


def _shadowed(home: Home, turn: Turn) -> bool:
    """Draw whether the cloud shall answer too: the same message at the same place draws alike.

    Who named the model is not taken elsewhere; what else a client sent along is not at hand later.
    """
    share, asked = home.settings.routing.shadow, turn.asked
    if not share or not turn.local or not turn.calls or turn.route.stage == "gate":
        return False
    if asked.turns is not None or asked.images or asked.system_prompt or is_agent(turn):
        return False
    away = any(
        not state.local and role not in turn.route.refused for role, state in turn.states.items()
    )
    lot = int(hashlib.sha256(f"shadow {seed(turn)}".encode()).hexdigest()[:8], 16) / 2**32
    return away and lot < share


def _receipt(turn: Turn) -> dict[str, Any]:
    context, route = turn.context, turn.route
    return {
        "engine": turn.engine,
        "local": turn.local,
        "role": turn.role,
        "known": turn.known,
        "relevance": round(turn.relevance, 4),
        "threshold": round(turn.threshold, 4),
        "route": {**asdict(route), "refused": dict(route.refused)},
        "calls": [_call(call) for call in turn.calls],
        "cost": turn.cost,
        "classes": list(context.classes) if context else [],
        "tokens": dict(context.tokens) if context else {},
        "used": [
            {
                "uid": hit.uid, "text": hit.text, "at": iso(hit.at_ms), "who": who(hit),
                "conversation": hit.conversation, "origin": hit.origin,
                "score": round(hit.score, 4), "why": dict(hit.why),
            }
            for hit in (context.used if context else ())
        ],
        "dropped": [asdict(dropped) for dropped in (context.dropped if context else ())],
        "quotes": turn.quotes,
        "withheld": turn.withheld,
        "tool_calls": [asdict(call) for call in turn.tool_calls],
        "prompt": [
            {"role": message.role, "content": message.content}
            for message in (context.messages if context else ())
        ],
        "error": turn.error,
    }  # fmt: skip


def _call(call: Call) -> dict[str, Any]:
    return {
        "purpose": call.purpose, "role": call.role, "model": call.model, "state": call.state,
        "stage": call.stage, "error": call.error, "cost": call.cost,
    }  # fmt: skip


def why(home: Home, which: str = "last") -> dict[str, Any]:
    """Return the receipt of an answer by its number, or of the last one.

    Raises NotFoundError, InputError.
    """
    number = _number(which)
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT a.id, c.external_id, plain(q.text), coalesce(plain(r.text), ''),"
            " a.surface, a.state, a.model, a.usage, a.receipt, a.asked_ms, a.took_ms FROM answers a"
            " JOIN conversations c ON c.id = a.conversation_id"
            " JOIN messages q ON q.id = a.question_id"
            " LEFT JOIN messages r ON r.id = a.answer_id WHERE ? IS NULL OR a.id = ?"
            " ORDER BY a.id DESC LIMIT 1",
            (number, number),
        )
    if not found:
        mend = "Ask something first: knowme ask ..." if number is None else "See: knowme why last"
        raise NotFoundError(f"There is no answer {which}.", mend)
    (number, conversation, question, answer, surface, state, model, usage, receipt, at, took) = (
        found[0]
    )
    return {
        "receipt_id": number, "conversation": conversation, "question": question, "answer": answer,
        "surface": surface, "state": state, "model": model, "asked": iso(at), "took_ms": took,
        "usage": json.loads(usage), **json.loads(receipt),
    }  # fmt: skip


def _number(which: str) -> int | None:
    """Return the number of an answer, None for the last one."""
    if which == "last":
        return None
    if not (which.isascii() and which.isdigit() and len(which) < 18):
        raise InputError(f"{which!r} is not the number of an answer.", "Use a number, or: last")
    return int(which)


def rate(home: Home, which: str, kind: str, value: str = "") -> int:
    """Keep what the person thinks of an answer, and learn from it; returns its number.

    ``which`` is the number of an answer, or "last". Raises NotFoundError, InputError.
    """
    receipt = why(home, which)
    number = int(receipt["receipt_id"])
    if kind == "better" and "shadow" not in receipt:
        raise InputError(
            f"Answer {number} has no second answer to compare it with.",
            "Rate it 1 to 5, or up or down. Second answers: knowme config set routing.shadow 0.1",
        )
    home.db.write(lambda conn: feedback.rate(conn, number, kind, value))
    _learn(home)
    return number


def _learn(home: Home) -> None:
    """Learn from what the person thought of answers, where there is a choice to be made."""
    if any(not state.local for state in home.models.states()):
        _, _, fingerprint = home.gain()
        home.db.write(lambda conn: feedback.learn(conn, fingerprint))
        home.learned()
