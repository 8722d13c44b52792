"""Collecting: the person is asked what is missing, and writes examples of their own.

Promises: a question and its answer stand in the archive like anything else that was said, so what
is forgotten is forgotten here too, and what the person tells is learned as facts. What was answered
or skipped is not asked again; it can be stopped after any question. Examples written by hand are
kept out of recall.
Refuses to know: where it is asked. The terminal does (``ask``); a channel calls ``next_question``
and ``answer``.

For *sound-like-me* the person answers in their own words. For *assistant-for-me* they are given
what one asks an assistant, and write the answer that they would have liked.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from knowme import archive, jobs, sync
from knowme.claims.languages import language_of
from knowme.db import rows
from knowme.errors import InputError, NotFoundError
from knowme.learn import pairs as of_pairs
from knowme.learn import teacher
from knowme.sessions import SOURCE
from knowme.times import now_ms
from knowme.types import PURPOSES, ChatMessage, Message, Pair, Record, Role

if TYPE_CHECKING:
    from knowme.home import Home

COLLECT, PAIRS = "collect", "pairs"
"""The conversations of what was asked, and of what was written by hand."""
ENOUGH = 12
"""Pairs of a theme from which it counts as known."""
SKIP, STOP = "/skip", "/quit"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of data/collect.jsonl."""

    id: str
    purpose: str
    theme: str
    text: str


@cache
def listed() -> tuple[Question, ...]:
    """Return all questions that there are, in the order of the file."""
    text = (files("knowme") / "data" / "collect.jsonl").read_text("utf-8")
    return tuple(Question(**json.loads(line)) for line in text.splitlines() if line.strip())


def questions(home: Home, purpose: str) -> list[Question]:
    """Return what was not asked yet, first what there is least of: themes with few pairs.

    One of each theme in turn, so that whoever stops early was asked about all. Raises InputError.
    """
    _checked(purpose)
    asked = {str(each.meta.get("question")) for each in _said(home, COLLECT)}
    open_ones = [one for one in listed() if one.purpose == purpose and one.id not in asked]
    have = missing(home, purpose)
    place: Counter[str] = Counter()
    ranked = []
    for number, one in enumerate(open_ones):
        ranked.append((have[one.theme] + place[one.theme], number, one))
        place[one.theme] += 1
    return [one for _, _, one in sorted(ranked, key=lambda each: each[:2])]


def missing(home: Home, purpose: str) -> Counter[str]:
    """Return how many pairs of each theme there are: collected and taught."""
    found = Counter({theme: 0 for theme in teacher.THEMES})
    for pair in (*pairs(home, purpose), *teacher.taught(home, purpose)):
        found.update(label for label in pair.labels if label in teacher.THEMES)
    return found


def next_question(home: Home, purpose: str) -> Question | None:
    """Return what is asked next; None: everything was asked."""
    return next(iter(questions(home, purpose)), None)


def answer(home: Home, question_id: str, text: str) -> None:
    """Keep the answer to a question; an empty one or SKIP: it is not asked again.

    Raises NotFoundError, StoreError.
    """
    one = next((each for each in listed() if each.id == question_id), None)
    if one is None:
        raise NotFoundError(f"There is no question {question_id!r}.", "See: knowme learn collect")
    said = archive.whole(text).strip()
    skipped = not said or said == SKIP
    meta = {"surface": COLLECT, "question": one.id, "pair": one.purpose, "theme": one.theme}
    key, at_ms = uuid.uuid4().hex[:16], now_ms()
    asked = Record("message", COLLECT, f"{key}:q", "assistant", text=one.text, at_ms=at_ms, seq=-1,
                   recall=False, meta={**meta, "skipped": skipped, "local": True})  # fmt: skip
    kept = [asked]
    if not skipped:
        # What is told of oneself may be recalled; a draft for an assistant is not about anybody.
        mine = one.purpose == "sound-like-me"
        kept.append(Record("message", COLLECT, f"{key}:a", "user", text=said, at_ms=at_ms + 1,
                           seq=-1, recall=mine, meta={**meta, "sent": False}))  # fmt: skip
    _store(home, kept)


def ask(
    home: Home,
    purpose: str,
    *,
    read: Callable[[str], str],
    say: Callable[[str], None],
    most: int | None = None,
) -> int:
    """Ask one question after the other; returns how many were answered.

    ``read`` shows a prompt and returns a line; EOFError, KeyboardInterrupt and STOP end it, an
    empty line or SKIP passes over a question for good. What was answered is kept at once.
    """
    done = seen = 0
    for one in questions(home, purpose):
        if most is not None and seen >= most:
            break
        say(one.text)
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            break
        if line == STOP:
            break
        answer(home, one.id, line)
        seen += 1
        done += bool(line) and line != SKIP
    return done


def pairs(home: Home, purpose: str) -> Iterator[Pair]:
    """Yield what was answered: question and answer, kind collected."""
    _checked(purpose)
    yield from _read(home, COLLECT, purpose, "collected")


# --- examples written by hand -------------------------------------------------------------------


def add(home: Home, prompt: str, reply: str, purpose: str) -> None:
    """Keep an example that the person wrote: what is said, and the answer that is wanted.

    Raises InputError where one of them is empty, or the purpose is none.
    """
    _checked(purpose)
    asked, said = archive.whole(prompt).strip(), archive.whole(reply).strip()
    if not asked or not said:
        raise InputError(f"The {'answer' if asked else 'prompt'} is empty.", "Write both.")
    meta = {"surface": PAIRS, "pair": purpose, "local": True, "sent": False}
    key, at_ms = uuid.uuid4().hex[:16], now_ms()
    # As an assistant's, the person's own words would be taken for somebody else's (fingerprints).
    mine = purpose == "sound-like-me"
    roles: tuple[Role, Role] = ("assistant", "user") if mine else ("user", "assistant")
    _store(home, [
        Record("message", PAIRS, f"{key}:q", roles[0], text=asked, at_ms=at_ms, seq=-1,
               recall=False, meta=meta),
        Record("message", PAIRS, f"{key}:a", roles[1], text=said, at_ms=at_ms + 1, seq=-1,
               recall=False, meta=meta),
    ])  # fmt: skip


def manual(home: Home, purpose: str) -> Iterator[Pair]:
    """Yield the examples that were written by hand, kind manual."""
    _checked(purpose)
    yield from _read(home, PAIRS, purpose, "manual")


# --- the archive --------------------------------------------------------------------------------


def _checked(purpose: str) -> None:
    if purpose not in PURPOSES:
        raise InputError(f"There is no purpose {purpose!r}.", f"Use {' or '.join(PURPOSES)}.")


def _store(home: Home, records: list[Record]) -> None:
    sync.store(home, SOURCE, [(record, None) for record in records])
    if any(record.recall for record in records):
        home.db.write(jobs.learn_soon)


def _said(home: Home, conversation: str) -> list[Message]:
    with home.db.read() as conn:
        number = archive.find_conversation(conn, SOURCE, conversation)
        if number is None:
            return []
        found: list[Any] = rows(
            conn,
            "SELECT id FROM messages WHERE conversation_id = ? AND retired_ms IS NULL"
            " ORDER BY seq, id",
            (number,),
        )
        held = archive.messages(conn, [each for (each,) in found])
    return [held[each] for (each,) in found if each in held]


def _read(home: Home, conversation: str, purpose: str, kind: str) -> Iterator[Pair]:
    """Yield pairs: two messages whose names differ in their end, whoever's roles they are."""
    asked: dict[str, Message] = {}
    for each in _said(home, conversation):
        key, _, part = each.external_id.rpartition(":")
        if each.meta.get("pair") != purpose:
            continue
        if part == "q":
            asked[key] = each
        elif (first := asked.pop(key, None)) is not None:
            theme = each.meta.get("theme")
            yield of_pairs.made(
                purpose, kind,
                (ChatMessage("user", first.text), ChatMessage("assistant", each.text)),
                [first.id, each.id],
                # Each is a place of its own: they were not said in one breath.
                f"{SOURCE}/{conversation}/{key}",
                at_ms=each.at_ms, language=language_of(each.text, 0, len(each.text)),
                labels=(str(theme),) if theme else (),
            )  # fmt: skip
