"""Teaching by batches: what is submitted to Anthropic, fetched and believed, over days and kills.

Promises: a transcript is on its way in one batch at most; what a request shows is kept until its
answer is read, in rows that ``forget`` finds, and the answer to one that was forgotten meanwhile is
thrown away. An answer is read once, and what a batch cost is noted once.
Refuses to know: the wire (``batches.py``), what bears a pair out (``evidence.py``).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from knowme import egress, receipts
from knowme.db import value
from knowme.learn import batches, lessons, pairs, teacher
from knowme.redact import Placeholders
from knowme.times import now_ms
from knowme.turn import Call
from knowme.types import Usage

if TYPE_CHECKING:
    from knowme.home import Home

_TOOL = "write_pairs"


def waiting(home: Home) -> int:
    """Return how many batches are on their way. Raises InputError where the file is damaged."""
    return sum(entry.open for entry in batches.entries(_path(home)))


def _path(home: Home) -> Path:
    return lessons.folder(home.path) / lessons.BATCHES


def _service(home: Home, url: str, model: str) -> batches.Service:
    return batches.Service(url, home.settings.learn.teacher_api_key, gate=home.ledger, model=model)


async def submit(
    home: Home, by: teacher.Teacher, purpose: str, kinds: Sequence[str], asked: teacher.Asked
) -> None:
    """Submit what was confirmed, in as many batches as it takes. Raises ModelError, OSError."""
    settings = home.settings.learn
    service = _service(home, settings.teacher_url, by.model)
    nonce = f"k{secrets.token_hex(6)}"
    held = {f"{nonce}-{number:05d}": each for number, each in enumerate(asked)}
    requests = [
        {"custom_id": name, "params": _params(by, one, each, kinds)}
        for name, (one, each) in held.items()
    ]
    try:
        for number, part in enumerate(batches.cut(requests)):
            mine = {str(each["custom_id"]): held[str(each["custom_id"])] for each in part}
            told = teacher.estimate(by, list(mine.values()))
            entry = batches.Entry(
                f"{nonce}-{number}", purpose, by.model, settings.teacher_url, now_ms(), "",
                {name: one.ids for name, (one, _) in mine.items()}, cost=told.cost,
            )  # fmt: skip
            shown = [_shown(entry.nonce, name, *each) for name, each in mine.items()]
            _put_shown(home, shown)
            await batches.submit(service, _path(home), entry, part, told.classes)
    finally:
        await service.aclose()
        _put_shown(home)


def _params(
    by: teacher.Teacher, one: teacher.Transcript, each: teacher.Question, kinds: Sequence[str]
) -> dict[str, Any]:
    """Return a request of the Messages API: the answer is the input of a tool, so it has a form."""
    system, *said = each.messages
    tool = {
        "name": _TOOL,
        "description": "Take down the pairs.",
        "input_schema": teacher.schema(kinds, one.many),
    }
    return {
        "model": by.model,
        "max_tokens": teacher.answer_tokens(by, one),
        "temperature": 0.0,
        "system": system.content,
        "messages": [{"role": each.role, "content": each.content} for each in said],
        "tools": [tool],
        "tool_choice": {"type": "tool", "name": _TOOL},
    }


# --- what requests show, until they are answered ------------------------------------------------


def _shown(
    nonce: str, name: str, one: teacher.Transcript, each: teacher.Question
) -> dict[str, Any]:
    return {
        "batch": nonce,
        "custom_id": name,
        "because": one.ids,
        "place": one.place,
        "shown": teacher.shown(one),
        "names": None if each.names is None else list(each.listed),
    }


def _put_shown(home: Home, added: Sequence[Mapping[str, Any]] = ()) -> None:
    """Add rows to requests.jsonl, and drop those of no open batch.

    Within a write, so that no erasure rewrites the file meanwhile.
    """
    path = lessons.folder(home.path) / lessons.REQUESTS
    needed = {entry.nonce for entry in batches.entries(_path(home)) if entry.open}

    def write(conn: apsw.Connection) -> None:
        lessons.none_forgets(conn)
        kept = [each for each in lessons.rows_of(path) if each.get("batch") in needed]
        pairs.write(path, [*kept, *added])

    home.db.write(write)


# --- fetching -----------------------------------------------------------------------------------


async def fetch(home: Home, done: teacher.Taught, tell: teacher.Tell) -> None:
    """Look at every batch that is on its way, and take what has ended. Raises ModelError."""
    path = _path(home)
    for entry in [each for each in batches.entries(path) if each.open]:
        service = _service(home, entry.url, entry.model)
        try:
            if entry.state == "sending":
                await batches.settle(service, path, entry, now_ms())
            if entry.state == "sent":
                await _take(home, service, entry, done, tell)
        finally:
            await service.aclose()
    _put_shown(home)


async def _take(
    home: Home,
    service: batches.Service,
    entry: batches.Entry,
    done: teacher.Taught,
    tell: teacher.Tell,
) -> None:
    path = _path(home)
    if now_ms() - entry.at_ms > batches.KEPT_DAYS * 86_400_000:
        entry.state = "lost"
        batches.put(path, entry)
        return
    with egress.labelled(batches.PURPOSE, model=entry.model):
        batch = await service.get(entry.id)
    many = len(entry.requests)
    tell(many - batch.counts["processing"], many, f"batch {entry.id}: {batch.status}")
    if not batch.ended:
        return
    usage = await _read(home, service, batch, entry, done)
    entry.counts = {name: many for name, many in batch.counts.items() if many}
    done.cost += _note_cost(home, entry, usage)
    entry.state = "read"
    batches.put(path, entry)


async def _read(
    home: Home,
    service: batches.Service,
    batch: batches.Batch,
    entry: batches.Entry,
    done: teacher.Taught,
) -> Usage:
    here = lessons.folder(home.path)
    asked = {str(each.get("custom_id")): each for each in lessons.rows_of(here / lessons.REQUESTS)}
    prompt = answer = 0
    seen: set[str] = set()
    with egress.labelled(batches.PURPOSE, model=entry.model):
        async with aclosing(service.results(batch)) as found:  # type: ignore[type-var]
            async for result in found:
                if result.custom_id not in entry.requests or result.custom_id in seen:
                    continue
                seen.add(result.custom_id)
                prompt, answer = prompt + result.prompt_tokens, answer + result.answer_tokens
                _believe(home, entry, result, asked.get(result.custom_id), done)
    if missing := entry.requests.keys() - seen:
        done.failed["missing"] += len(missing)
    return Usage(entry.model, prompt_tokens=prompt, answer_tokens=answer)


def _believe(
    home: Home,
    entry: batches.Entry,
    result: batches.Result,
    asked: Mapping[str, Any] | None,
    done: teacher.Taught,
) -> None:
    """Keep what one answer is worth. One that was not given is not paid for: it is free again."""
    if result.outcome != "succeeded":
        done.failed[result.outcome] += 1
        return
    ids = entry.requests[result.custom_id]
    if asked is None:  # its row went with what was forgotten
        done.failed[teacher.FORGOTTEN] += 1
        lessons.note(home, entry.purpose, "done", ids, by=f"model:{entry.model}", pairs=0)
        return
    told = json.dumps(result.given, ensure_ascii=False) if result.given else result.text
    found = teacher.parsed(told)
    if asked.get("names") is not None:
        names = Placeholders(asked["names"])
        names.redact(str(asked["shown"]))  # as it was sent: the same words, the same placeholders
        found = [{key: names.restore(text) for key, text in each.items()} for each in found]
    by = f"model:{entry.model}"
    kept, dropped = teacher.borne_out(home, entry.purpose, asked["place"], ids, found, by)
    if not found:
        dropped[teacher.NO_ANSWER] += 1
    teacher.finished(home, entry.purpose, ids, kept, dropped, done, by)


def _note_cost(home: Home, entry: batches.Entry, usage: Usage) -> float:
    """Write the call and what it cost, once for each batch; returns what is new."""
    settings = home.settings.learn
    cost = (
        usage.prompt_tokens * settings.teacher_price_in
        + usage.answer_tokens * settings.teacher_price_out
    ) / 1_000_000
    reason = f"batch {entry.id}"
    call = Call(
        "teacher", teacher.ANTHROPIC, entry.model, teacher.ANTHROPIC, False, entry.at_ms,
        reason=reason, state="done", usage=usage, cost=cost, sent=list(entry.rows),
    )  # fmt: skip

    def write(conn: apsw.Connection) -> float:
        if value(conn, "SELECT 1 FROM calls WHERE reason = ? AND purpose = 'teacher'", (reason,)):
            return 0.0
        receipts.put_call(conn, call, None)
        return cost

    return home.db.write(write)
