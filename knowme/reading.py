"""A model reads for facts: what the rules pass over, quoted word for word.

Promises: it reads after the rules and passes the same gate; its quotes must stand in the message,
its value in the quote, and a sentence that denies something is left to the person. The same model,
seed and settings read the same. A remote one is shown only what the settings let leave, and every
byte of it stands in the ledger. Each batch is one transaction.
Refuses to know: what contradicts what (``facts.py``), who speaks (``extract.py``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from knowme import (
    attributes,
    egress,
    extract,
    fingerprints,
    receipts,
    spans,
    states,
    steering,
    whens,
)
from knowme.db import rows, value
from knowme.errors import ModelError
from knowme.extract import (
    DENIED,
    MODEL,
    NOT_IN_QUOTE,
    NOT_VERBATIM,
    Judged,
    Learned,
    Spoken,
    Tell,
)
from knowme.privacy import leave, needed_names
from knowme.questions import FIRST_PERSON
from knowme.redact import Placeholders, secrets_in
from knowme.steering import prompt_text
from knowme.times import now_ms
from knowme.turn import Call
from knowme.types import ME, ChatMessage, Claim, Options
from knowme.words import sentences, words

if TYPE_CHECKING:
    from knowme.facts import Reading
    from knowme.home import Home

SEED = 4
LINES, LINE_CHARS, CALL_CHARS = 8, 400, 1_600
"""Sentences a call, characters of one that is still read, and characters of all of them."""
ANSWER_TOKENS = 480
CALL_MESSAGES = 24
"""Messages that are read and stored together."""
_DENIES = re.compile(
    r"n['’]t\b|\b(?:not|never|no|none|nobody|neither|nor|without|não|nunca|jamais|nem|sem|nunca|"
    r"tampoco|sin|nicht|nie|niemals|kein\w*|ohne)\b",
    re.IGNORECASE,
)


EXAMPLE = (
    ChatMessage(
        "user", "[1] I live by the harbour in Ghent.\n[2] We had a good time, me and them."
    ),
    ChatMessage(
        "assistant",
        '{"facts": [{"n": 1, "quote": "I live by the harbour in Ghent", "attribute": "residence",'
        ' "value": "Ghent"}]}',
    ),
)
"""One exchange that a model is shown before it reads: small ones copy forms, not descriptions."""


class Line(NamedTuple):
    """A sentence that a model is shown: where it stands in which message."""

    one: Spoken
    start: int
    end: int

    @property
    def text(self) -> str:
        """Return its words."""
        return " ".join(self.one.text[self.start : self.end].split())


def read(home: Home, role: str, messages: Sequence[Spoken]) -> list[Reading]:
    """Let a model read these messages; one Reading each, empty where it found nothing.

    A remote model is shown what ``privacy`` lets leave: no source that may not, nothing sensitive,
    no secret, names as placeholders where that is set. Its quotes must stand in the message word
    for word, the value in the quote. Raises NotFoundError, ModelError.
    """
    from knowme.facts import Reading

    engine = home.models.engine(role)
    by = f"model:{engine.model}"
    found: dict[int, list[Judged]] = {}
    for lines in _calls(home, messages, engine.local):
        for claim, wrong, number in _ask(home, role, lines, by):
            found.setdefault(number, []).append((claim, wrong))
    made = []
    with home.db.read() as conn:
        for one in messages:
            told = extract.judged(conn, one, home.settings, found.get(one.id, ()))
            made.append(Reading(one.id, by, tuple(dict.fromkeys(told))))
    return made


def _calls(home: Home, messages: Sequence[Spoken], local: bool) -> list[list[Line]]:
    """Return the sentences of each call: those that speak of the writer, of one source each."""
    made: list[list[Line]] = []
    for one in messages:
        for line in _lines(home, one, local):
            last = made[-1] if made else []
            room = CALL_CHARS - sum(len(each.text) for each in last)
            fits = last and len(last) < LINES and len(line.text) <= room
            if fits and last[0].one.source == one.source:
                last.append(line)
            else:
                made.append([line])
    return made


def _lines(home: Home, one: Spoken, local: bool) -> list[Line]:
    if not local and not _may_leave(home, one):
        return []
    made, at = [], 0
    foreign = spans.foreign(one.text)
    for sentence in sentences(one.text):
        start, at = at, at + len(sentence)
        said = set(words(sentence))
        if not said & FIRST_PERSON or len(said) < 3 or len(sentence) > LINE_CHARS:
            continue
        if "?" in sentence or fingerprints.overlaps(foreign, start, at):
            continue
        made.append(Line(one, start, at))
    return made


def _may_leave(home: Home, one: Spoken) -> bool:
    """Tell whether a message may be shown to a remote model at all."""
    from knowme.sensitive import sensitive

    policy = leave(home.settings.privacy)
    keys = egress.keys_of(home.settings)
    return (
        policy.may(f"recalled:{one.source}")
        and not sensitive(one.text)
        and not secrets_in(one.text)
        and not any(key in one.text for key in keys)
    )


def _ask(home: Home, role: str, lines: Sequence[Line], by: str) -> list[tuple[Claim, str, int]]:
    state, policy = home.models.state(role), leave(home.settings.privacy)
    told = "\n".join(f"[{number}] {line.text}" for number, line in enumerate(lines, 1))
    names, classes = None, {}
    if not state.local:
        budget = steering.spending(home)
        if state.priced and budget.spent >= budget.monthly:
            raise ModelError(
                f"The month's budget is spent: {role} reads no further for facts.",
                "Raise routing.monthly_budget, or name a model of your own: facts.role",
            )
        cls = f"recalled:{lines[0].one.source}"
        classes = {cls: policy.policy(cls)}
        if policy.hides_names(classes):
            names = Placeholders(needed_names(home.settings, home.speakers()))
            told = names.redact(told)
    prompt = prompt_text("facts").format(attributes=", ".join(sorted(attributes.ATTRIBUTES)))
    messages = (ChatMessage("system", prompt), *EXAMPLE, ChatMessage("user", told))
    answer = asyncio.run(_stream(home, role, messages, classes, len(lines)))
    return _claims(home, _parsed(answer), lines, by, names)


async def _stream(
    home: Home,
    role: str,
    messages: Sequence[ChatMessage],
    classes: Mapping[str, str],
    lines: int,
) -> str:
    options = Options(
        max_tokens=ANSWER_TOKENS, temperature=0.0, seed=SEED, json_schema=schema(lines)
    )
    said = ""
    async with home.models.use(role) as engine:
        call = Call("facts", role, engine.model, engine.name, engine.local, now_ms())
        try:
            with egress.labelled("facts", model=engine.model, classes=classes) as label:
                async with aclosing(engine.stream(messages, options)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        call.usage = chunk.usage or call.usage
                        said += chunk.text
            call.state = "done"
        except ModelError as error:
            call.state, call.error = "failed", str(error)
            home.models.failed(role, error)
            raise
        finally:
            call.sent += label.rows
            if call.usage is not None:
                call.cost = home.models.state(role).cost(
                    call.usage.prompt_tokens, call.usage.answer_tokens
                )
            await asyncio.to_thread(home.db.write, lambda conn: receipts.put_call(conn, call, None))
    home.models.worked(role)
    return said


def schema(lines: int) -> dict[str, Any]:
    """Return the JSON schema of a model's answer about so many sentences."""
    text = {"type": "string", "minLength": 1}
    fact = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "enum": list(range(1, lines + 1))},
            "quote": {**text, "maxLength": LINE_CHARS},  # first: the rest is then read off it
            "attribute": {"type": "string", "enum": sorted(attributes.ATTRIBUTES)},
            "value": {**text, "maxLength": 80},
        },
        "required": ["n", "quote", "attribute", "value"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"facts": {"type": "array", "maxItems": lines, "items": fact}},
        "required": ["facts"],
        "additionalProperties": False,
    }


def _parsed(answer: str) -> list[dict[str, Any]]:
    """Return the facts of an answer; of one that was cut off, those that are whole."""
    try:
        found = json.loads(answer).get("facts")
    except (ValueError, AttributeError, RecursionError):
        found = []
        for match in re.finditer(r"\{[^{}]*\}", answer):
            with suppress(ValueError):
                found.append(json.loads(match[0]))
    texts = ("attribute", "value", "quote")
    return [
        one
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
        and isinstance(one.get("n"), int)
        and all(isinstance(one.get(name), str) and one[name].strip() for name in texts)
    ]


def _claims(
    home: Home,
    found: Sequence[Mapping[str, Any]],
    lines: Sequence[Line],
    by: str,
    names: Placeholders | None,
) -> list[tuple[Claim, str, int]]:
    """Return what a model found as claims, with what is wrong with each, and its message."""
    restore = names.restore if names is not None else str
    plain = [_plain(line.text) for line in lines]
    made = []
    for one in found:
        if not 1 <= one["n"] <= len(lines) or one["attribute"] not in attributes.ATTRIBUTES:
            continue
        what, quote = " ".join(restore(one["value"]).split()), _plain(restore(one["quote"]))
        # The words say which line is meant; small models miscount.
        at = next((i for i in (one["n"] - 1, *range(len(lines))) if quote in plain[i]), None)
        wrong = NOT_VERBATIM if at is None else ""
        line, whole = lines[one["n"] - 1 if at is None else at], plain[at or 0]
        if not wrong and _plain(what) not in quote:
            wrong = NOT_IN_QUOTE
        elif not wrong and _DENIES.search(whole):
            wrong = DENIED
        # What it rests on is the whole sentence: a condition or a denial is part of the quote.
        start, end = _trimmed(line.one.text, line.start, line.end)
        when = whens.when_of(
            line.one.text[start:end], extract.day_of(line.one.at_ms, home.settings)
        )
        sentence = attributes.sentence(ME, one["attribute"], what, when)
        claim = Claim(ME, one["attribute"], what, sentence, start, end, when, read_by=by)
        made.append((claim, wrong, line.one.id))
    return made


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


def catch_up(home: Home, role: str, progress: Tell | None, limit: int | None) -> Learned:
    """Let the model of a role read what it has not read yet.

    Another model than the last one begins anew and replaces, message by message, what that one
    read. Raises NotFoundError, ModelError; what was read before stays.
    """
    by = f"model:{home.models.engine(role).model}"
    learned, done = Learned(), 0
    with home.db.read() as conn:
        total = int(
            value(conn, "SELECT count(*) FROM messages WHERE id > ?", (_model_upto(conn, by),)) or 0
        )
    total = total if limit is None else min(total, limit)
    while done < total:
        extract.tell(progress, done, total, f"read by {role}")
        size = min(CALL_MESSAGES, total - done)
        with home.db.read() as conn:
            upto = _model_upto(conn, by)
            found = rows(
                conn, "SELECT id FROM messages WHERE id > ? ORDER BY id LIMIT ?", (upto, size)
            )
            ids = [each for (each,) in found]
            to_read = extract.spoken(conn, ids, home.settings)
        if not ids:
            break
        found_there = read(home, role, to_read)
        learned = learned.plus(
            home.db.write(partial(_keep, home=home, by=by, ids=ids, read=found_there))
        )
        done += len(ids)
    extract.tell(progress, done, total, f"read by {role}")
    return learned


def _keep(
    conn: apsw.Connection, home: Home, by: str, ids: Sequence[int], read: Sequence[Reading]
) -> Learned:
    """Store what a model read; what another model read in these messages before makes room."""
    from knowme.facts import Reading

    others = [
        Reading(number, reader, ())
        for number, reader in sorted(extract.holding(conn, ids))
        if reader.startswith("model:") and reader != by
    ]
    states.keep(conn, MODEL, {"model": by, "upto": ids[-1]}, now_ms())
    done = extract.store(conn, [*others, *read], home.settings)
    return done._replace(messages=len(ids))


def _model_upto(conn: apsw.Connection, by: str) -> int:
    """Return the last message that this model has read; never one that came in after it read."""
    told = states.read(conn, MODEL) or {}
    upto = int(told.get("upto", 0)) if told.get("model") == by else 0
    return min(upto, int(extract.state(conn)["upto"]))
