"""What is known of the person, over HTTP: facts, what is doubtful, the profile.

Promises: everything carries the words it rests on, their day and their conversation; what the
person decides is kept as theirs, and can be undone.
Refuses to know: how facts and lines come about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, Literal

import apsw
from fastapi import APIRouter, Request, Response
from pydantic import Field

from knowme import beliefs, facts, inbox, portrait, profile
from knowme.db import rows
from knowme.errors import InputError
from knowme.facts.listing import corrected, known_on, place
from knowme.home import Home
from knowme.times import iso, now_ms, period
from knowme.types import ME, Evidence, Fact, Line, When
from knowme.web.problems import FieldError, Json
from knowme.web.routes import ASKING, ERRORS, service_of, takes
from knowme.web.shapes import Body, ErrorShape, parse_when, read
from knowme.wire import estimate_tokens
from knowme.workspace import PROFILE

router = APIRouter()

NONE: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    404: {"model": ErrorShape, "description": "There is no such fact or line"},
}
LISTING = {
    **ASKING,
    422: {"model": ErrorShape, "description": "A parameter is of the wrong kind"},
}
STATES = ("believed", "superseded", "repeated", "doubtful", "quarantined", "retired", "all")
MOST = 2_000


class FactBody(Body):
    """What the person decides about a fact."""

    action: Literal["accept", "reject", "both", "retire", "edit", "pin", "unpin", "undo"] = Field(
        description="What to do with it"
    )
    text: str = Field("", description="The new value, for edit")


class ChoiceBody(Body):
    """Which of two statements holds."""

    choice: Literal["new", "old", "both", "neither"] = Field(description="Which is so")


class LineBody(Body):
    """What the person decides about a line of the profile."""

    action: Literal["edit", "strike", "pin", "unpin", "undo"] = Field(
        description="What to do with it"
    )
    text: str = Field("", description="The new wording, for edit")


class NewLineBody(Body):
    """A line in the person's own words."""

    section: str = Field(description="One of all_sections of /api/profile")
    text: str = Field(description="The line, in the person's own words")


# --- facts --------------------------------------------------------------------------------------


@router.get("/api/facts", responses=LISTING, summary="What is believed")
async def list_facts(
    request: Request,
    about: str = "",
    state: str = "believed",
    on: str = "",
    as_of: str = "",
    limit: str = "500",
) -> Response:
    """Return {facts, count, total}; total: all that there are of this state.

    about: words that stand in them. state: believed, superseded, repeated, doubtful, quarantined,
    retired, all. on: a day (2026-03-01) on which they held, or may have: those have perhaps: true.
    as_of: what was believed at this time.
    """
    if state not in STATES:
        known = ", ".join(STATES)
        raise FieldError(f"There is no state {state[:20]!r}.", f"Use: {known}.", "state")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= MOST):
        raise FieldError(f"limit is {limit[:20]!r}.", f"Use 1 to {MOST}.", "limit")
    _check_day(on)
    at_ms = parse_when(as_of, "as_of")
    service = service_of(request)

    def listed() -> dict[str, Any]:
        with service.home.db.read() as conn:
            found = _chosen(conn, about, state, on, at_ms)
            found.sort(key=lambda fact: (not known_on(fact, on), *place(fact)))
            shown = found[: int(limit)]
            told = _facts_json(service.home, conn, shown)
            if on:
                told = [
                    {**each, "perhaps": not known_on(fact, on)}
                    for each, fact in zip(told, shown, strict=True)
                ]
            total = len(_chosen(conn, "", state, "", at_ms)) if about or on else len(found)
            return {"facts": told, "count": len(found), "total": max(total, len(found))}

    return Json(await service.reads.run(listed))


def _check_day(text: str) -> None:
    try:
        _ = text and date.fromisoformat(text)
    except ValueError as error:
        told = f"on is {text[:20]!r}, which is no day."
        raise FieldError(told, "Use 2026-03-01.", "on") from error


def _chosen(
    conn: apsw.Connection, about: str, state: str, on: str, at_ms: int | None
) -> list[Fact]:
    states = STATES[:-1] if state == "all" else (state,)
    return facts.believed(conn, about=about, on=on, states=states, as_of=at_ms, limit=2**31)


@router.get("/api/facts/{uid}", responses=NONE, summary="Why a fact is believed")
async def one_fact(request: Request, uid: str) -> Response:
    """Return {fact, evidence, history}: its words, and everything that became of it."""
    service = service_of(request)

    def told() -> dict[str, Any]:
        with service.home.db.read() as conn:
            fact = facts.find(conn, uid)
            evidence = facts.evidence(conn, fact.uid)
            return {
                "fact": _facts_json(service.home, conn, [fact])[0],
                "evidence": _evidence_json(conn, evidence),
                "history": [
                    {"at": iso(event.at_ms), "action": event.action, "actor": event.actor}
                    for event in beliefs.history(conn, "fact", fact.uid)
                ],
            }

    return Json(await service.reads.run(told))


@router.post(
    "/api/facts/{uid}",
    responses=NONE,
    openapi_extra=takes(FactBody, {"action": "edit", "text": "Porto"}),
    summary="Correct a fact",
)
async def decide_fact(request: Request, uid: str) -> Response:
    """Accept, reject, retire, edit, pin or unpin a fact, or undo its last change."""
    body, service = await read(request, FactBody), service_of(request)

    def decided(conn: apsw.Connection) -> Fact:
        fact = facts.find(conn, uid)
        if body.action == "undo":
            facts.undo(conn, now_ms(), fact.uid)
        else:
            facts.decide(conn, body.action, fact.uid, now_ms(), body.text)
        return facts.find(conn, fact.uid)

    return Json(await service.writes.run(_changed, service.home, decided))


def _changed(home: Home, decide: Callable[[apsw.Connection], Fact]) -> dict[str, Any]:
    fact = home.db.write(decide)
    if home.settings.profile.build:
        portrait.build(home)
    with home.db.read() as conn:
        return _facts_json(home, conn, [fact])[0]


# --- what is doubtful ---------------------------------------------------------------------------


@router.get("/api/inbox", responses=ASKING, summary="What waits for the person's word")
async def list_doubts(request: Request) -> Response:
    """Return {doubts: [{fact, against, why}]}: the best question first, each with both quotes."""
    service = service_of(request)

    def listed() -> list[dict[str, Any]]:
        with service.home.db.read() as conn:
            return [
                {
                    "fact": _facts_json(service.home, conn, [doubt.fact])[0],
                    "against": None
                    if doubt.against is None
                    else _facts_json(service.home, conn, [doubt.against])[0],
                    "why": doubt.why,
                }
                for doubt in inbox.doubts(conn)
            ]

    return Json({"doubts": await service.reads.run(listed)})


@router.post(
    "/api/inbox/{uid}",
    responses=NONE,
    openapi_extra=takes(ChoiceBody, {"choice": "new"}),
    summary="Settle a doubt",
)
async def settle(request: Request, uid: str) -> Response:
    """Say which of the two holds: new (the doubtful one), old, both or neither."""
    body, service = await read(request, ChoiceBody), service_of(request)

    def decided(conn: apsw.Connection) -> Fact:
        return inbox.answer(conn, facts.find(conn, uid).uid, body.choice, now_ms())

    return Json(await service.writes.run(_changed, service.home, decided))


# --- the profile --------------------------------------------------------------------------------


@router.get("/api/profile", responses=ASKING, summary="Who the person is")
async def show_profile(request: Request) -> Response:
    """Return {sections: [{name, title, lines}], all_sections, tokens, budget}.

    Each line has its evidence. Sections of the person's own come after those of all_sections.
    """
    service = service_of(request)

    def told() -> dict[str, Any]:
        home = service.home
        left_out = {line.uid for line in portrait.left_out(home)}
        text = portrait.read_file(home.path / PROFILE)
        with home.db.read() as conn:
            lines = [line for line in profile.lines(conn) if line.state == "current"]
            return {
                "sections": [
                    {
                        "name": name,
                        "title": profile.SECTIONS.get(name, name),
                        "lines": [
                            _line_json(conn, line, line.uid not in left_out)
                            for line in lines
                            if line.section == name
                        ],
                    }
                    for name in dict.fromkeys([*profile.SECTIONS, *(one.section for one in lines)])
                    if name != profile.TITLE and any(line.section == name for line in lines)
                ],
                "all_sections": list(profile.SECTIONS),
                "tokens": estimate_tokens(text),
                "budget": home.settings.context.memory_tokens,
            }

    return Json(await service.reads.run(told))


@router.post(
    "/api/profile/lines",
    responses=ERRORS,
    openapi_extra=takes(NewLineBody, {"section": "preferences", "text": "Prefers short answers."}),
    summary="Write a line",
)
async def write_line(request: Request) -> Response:
    """Add a line in the person's own words: it stays until they strike it."""
    body, service = await read(request, NewLineBody), service_of(request)
    if body.section not in profile.SECTIONS:
        known = ", ".join(profile.SECTIONS)
        raise InputError(f"There is no section {body.section[:40]!r}.", f"Use: {known}.")

    def written() -> dict[str, Any]:
        home = service.home
        line = home.db.write(
            lambda conn: profile.decide(
                conn, "write", "", now_ms(), section=body.section, text=body.text
            )
        )
        portrait.build(home)
        with home.db.read() as conn:
            return _line_json(conn, line, True)

    return Json(await service.writes.run(written))


@router.post(
    "/api/profile/lines/{uid}",
    responses=NONE,
    openapi_extra=takes(LineBody, {"action": "strike"}),
    summary="Correct a line",
)
async def decide_line(request: Request, uid: str) -> Response:
    """Edit, pin, unpin or strike a line, or undo the last decision about it."""
    body, service = await read(request, LineBody), service_of(request)

    def decided() -> dict[str, Any]:
        home = service.home

        def change(conn: apsw.Connection) -> Line:
            line = profile.find(conn, uid)
            if body.action == "undo":
                return profile.undo(conn, now_ms(), line.uid).after or line
            return profile.decide(conn, body.action, line.uid, now_ms(), text=body.text)

        line = home.db.write(change)
        portrait.build(home)
        with home.db.read() as conn:
            return _line_json(conn, line, line.state == "current")

    return Json(await service.writes.run(decided))


# --- shapes -------------------------------------------------------------------------------------


def _facts_json(home: Home, conn: apsw.Connection, found: Iterable[Fact]) -> list[dict[str, Any]]:
    found = list(found)
    places = _places(conn, {fact.message_id for fact in found})
    edited = corrected(conn)
    name = home.settings.name or "you"
    return [
        {
            "uid": fact.uid,
            "subject": name if fact.subject == ME else fact.subject,
            "attribute": fact.attribute,
            "value": fact.value,
            "sentence": fact.sentence,
            "quote": fact.quote,
            "at": iso(fact.said_ms),
            **places.get(fact.message_id, {}),
            "period": period(fact.when),
            "when": _when(fact.when),
            "read_by": fact.read_by,
            "certain": fact.certain,
            "corrected": iso(edited.get(fact.uid)),
            "sensitive": list(fact.sensitive),
            "state": fact.state,
            "reason": fact.reason,
            "other": fact.other,
            "pinned": fact.pinned,
            "recorded": iso(fact.recorded_ms),
            "retired": iso(fact.retired_ms),
        }
        for fact in found
    ]


def _when(when: When) -> dict[str, str]:
    return {
        "from_first": when.from_first, "from_last": when.from_last,
        "to_first": when.to_first, "to_last": when.to_last,
    }  # fmt: skip


def _evidence_json(conn: apsw.Connection, found: Iterable[Evidence]) -> list[dict[str, Any]]:
    found = list(found)
    places = _places(conn, {each.message_id for each in found})
    return [{"quote": each.quote, **places.get(each.message_id, {})} for each in found]


def _places(conn: apsw.Connection, message_ids: Iterable[int]) -> Mapping[int, dict[str, Any]]:
    """Return where messages stand and when they were said."""
    return {
        number: {
            "message_id": number, "at": iso(at_ms), "source": source,
            "conversation": title or conversation,
        }
        for number, at_ms, source, conversation, title in rows(
            conn,
            "SELECT m.id, m.at_ms, c.source, c.external_id, c.title FROM messages m"
            " JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.id IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(message_ids)),),
        )
    }  # fmt: skip


def _line_json(conn: apsw.Connection, line: Line, in_prompt: bool) -> dict[str, Any]:
    return {
        "uid": line.uid,
        "section": line.section,
        "text": line.text,
        "confidence": line.confidence,
        "state": line.state,
        "written_by": line.written_by,
        "sensitive": list(line.sensitive),
        "pinned": line.pinned,
        "in_prompt": in_prompt,
        "evidence": _evidence_json(conn, line.evidence),
    }


__all__ = ["router"]
