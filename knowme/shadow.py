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
from typing import Any

import apsw

from knowme import ask, prompting, receipts
from knowme.db import rows
from knowme.errors import NotFoundError
from knowme.home import Home
from knowme.turn import Asked, Call


def answer(home: Home, receipt_id: int) -> str:
    """Answer the question of a receipt with the first remote model that may; returns its role.

    "" where none may, or where the question is gone. Raises ModelError when it fails.
    """
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT q.text, c.external_id FROM answers a JOIN messages q ON q.id = a.question_id"
            " JOIN conversations c ON c.id = a.conversation_id WHERE a.id = ?",
            (receipt_id,),
        )
    if not found:
        return ""
    question, conversation = found[0]
    turn = ask.prepare(home, Asked(question, surface="shadow", remember=False), conversation)
    away = [
        role
        for role, state in turn.states.items()
        if not state.local and not state.down and role not in turn.route.refused
    ]
    if not away:
        return ""
    turn.role, turn.stage, turn.note = away[0], "shadow", "a shadow of a local answer"
    text = asyncio.run(_stream(home, turn))
    call = turn.calls[-1]
    home.db.write(lambda conn: _keep(conn, receipt_id, call, text))
    return turn.role


async def _stream(home: Home, turn: ask.Turn) -> str:
    async with home.models.use(turn.role) as engine:
        turn.engine, turn.local = engine.name, engine.local
        prompt = await asyncio.to_thread(prompting.compose_for, home, turn, engine)
        said = ""
        async with aclosing(ask.called(home, turn, engine, prompt, "shadow")) as chunks:
            async for chunk in chunks:
                said += chunk.text
    return said if prompt.names is None else prompt.names.restore(said)


def _keep(conn: apsw.Connection, receipt_id: int, call: Call, text: str) -> None:
    receipts.put_call(conn, call, receipt_id)
    row = next(iter(conn.execute("SELECT receipt FROM answers WHERE id = ?", (receipt_id,))), None)
    if row is None:
        raise NotFoundError(f"There is no answer {receipt_id}.", "See: knowme why last")
    receipt: dict[str, Any] = json.loads(row[0])
    receipt["shadow"] = {"role": call.role, "model": call.model, "answer": text, "cost": call.cost}
    conn.execute(
        "UPDATE answers SET receipt = ? WHERE id = ?",
        (json.dumps(receipt, ensure_ascii=False), receipt_id),
    )
