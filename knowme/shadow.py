"""Shadow answers: the same question put to the stronger model too, to be compared later.

Promises: only where the route does not refuse that model (privacy, budget, health); never in the
way of an answer: it is a job of its own. The answer stands in the receipt; which was better only
the person says (`knowme rate N --better cloud`).
Refuses to know: when a shadow is drawn (``receipts.store`` does, by the share in the settings).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import apsw

from knowme import ask, prompting, receipts
from knowme.db import rows
from knowme.errors import ModelError, NotFoundError
from knowme.home import Home
from knowme.turn import Asked, Turn


def answer(home: Home, receipt_id: int) -> str:
    """Answer the question of a receipt with the first remote model that may; returns its role.

    "" where none may, where the question is gone, or where what became of the send is unknown.
    Raises ModelError when nothing was taken on, and it may be tried later.
    """
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT plain(q.text), c.external_id, q.id FROM answers a JOIN messages q"
            " ON q.id = a.question_id"
            " JOIN conversations c ON c.id = a.conversation_id WHERE a.id = ?",
            (receipt_id,),
        )
    if not found:
        return ""
    question, conversation, number = found[0]
    turn = ask.prepare(home, Asked(question, surface="shadow", remember=False), conversation)
    if turn.route.stage == "gate":  # who named a model is not taken elsewhere
        return ""
    before = tuple(said for said in turn.session.turns if said.message_id < number)
    turn.session = replace(turn.session, turns=before)
    away = [
        role
        for role, state in turn.states.items()
        if not state.local and not state.down and role not in turn.route.refused
    ]
    if not away:
        return ""
    turn.role, turn.stage, turn.note = away[0], "shadow", "a shadow of a local answer"
    try:
        text = asyncio.run(_stream(home, turn))
    except ModelError as error:
        home.models.failed(turn.role, error)
        home.db.write(lambda conn: _put_calls(conn, receipt_id, turn))
        if error.reached == "no":
            raise  # the job asks again
        return ""  # what may have been paid for is not asked for twice
    home.models.worked(turn.role)
    home.db.write(lambda conn: _keep(conn, receipt_id, turn, text))
    return turn.role


async def _stream(home: Home, turn: Turn) -> str:
    async with home.models.use(turn.role) as engine:
        turn.engine, turn.local = engine.name, engine.local
        prompt = await asyncio.to_thread(prompting.compose_for, home, turn, engine)
        said = ""
        async with aclosing(ask.called(home, turn, engine, prompt, "shadow")) as chunks:
            async for chunk in chunks:
                said += chunk.text
    return said if prompt.names is None else prompt.names.restore(said)


def _put_calls(conn: apsw.Connection, receipt_id: int, turn: Turn) -> None:
    for call in turn.calls:
        receipts.put_call(conn, call, receipt_id)


def _keep(conn: apsw.Connection, receipt_id: int, turn: Turn, text: str) -> None:
    _put_calls(conn, receipt_id, turn)
    call = turn.calls[-1]
    row = next(iter(conn.execute("SELECT receipt FROM answers WHERE id = ?", (receipt_id,))), None)
    if row is None:
        raise NotFoundError(f"There is no answer {receipt_id}.", "See: knowme why last")
    receipt: dict[str, Any] = json.loads(row[0])
    receipt["shadow"] = {"role": call.role, "model": call.model, "answer": text, "cost": call.cost}
    conn.execute(
        "UPDATE answers SET receipt = ? WHERE id = ?",
        (json.dumps(receipt, ensure_ascii=False), receipt_id),
    )
