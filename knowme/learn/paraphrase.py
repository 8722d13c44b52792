"""Paraphrases: a model says the question of a pair in other words; the answer stays as it is.

Promises: only the question is reworded, and only where names, numbers, dates and every "not" are
those of the question; what is the same, an answer, or of other words altogether is dropped and
counted. It is confirmed and sent by the rules of the teacher, kept beside its pairs, and rests on
the same messages.
Refuses to know: which pairs are worth it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from knowme import gate, steering
from knowme.db import rows
from knowme.errors import ModelError
from knowme.learn import lessons, pairs, teacher
from knowme.privacy import leave, needed_names
from knowme.redact import NOTE, Placeholders, secrets_in
from knowme.sensitive import sensitive
from knowme.types import ChatMessage, Options, Pair
from knowme.wire import estimate_tokens
from knowme.words import stem, stems, words

if TYPE_CHECKING:
    from knowme.home import Home

SAME, OTHER, CHANGED, NOT_ONE = "the same", "says something else", "a name or a not", "no question"
_NOT = re.compile(
    r"n['’]t\b|\b(?:not|no|never|none|nothing|without|nor|não|nunca|nem|sem|jamais|nada|sin|tampoco"
    r"|nicht|nie|niemals|kein\w*|ohne)\b",
    re.IGNORECASE,
)
_KEPT = 0.34
"""Share of the question's content words that must come back."""


async def paraphrase(
    home: Home,
    *,
    purpose: str,
    of: Iterable[Pair],
    confirm: Callable[[teacher.Estimate], bool],
    progress: teacher.Tell | None = None,
    each: int = 2,
) -> teacher.Taught:
    """Write up to ``each`` versions of the question of pairs that have none yet.

    The teacher does it where it is a model by role; with Anthropic, whose batches take a day, the
    primary model. Raises InputError, ModelError; what was done stays done.
    """
    done, tell = teacher.Taught(), progress or (lambda done, total, what: None)
    with teacher.alone(home):
        by = _by(home)
        states = {
            str(told.get("uid")): told.get("state")
            for told in lessons.rows_of(lessons.folder(home.path) / lessons.TAUGHT)
        }
        tried = {uid for uid, state in states.items() if state != "free"}
        todo = [
            pair
            for pair in of
            if pair.purpose == purpose and pair.kind != "paraphrase" and pair.uid not in tried
        ]
        asked: list[tuple[Pair, teacher.Question]] = []
        for pair in todo:
            question, why = _question(home, by, pair, each)
            if question is None:
                done.failed[why] += 1
            else:
                asked.append((pair, question))
        if not asked:
            return done
        told = _estimate(by, [question for _, question in asked], each)
        teacher.afford(home, by, told)
        done.confirmed = confirm(told)
        if not done.confirmed:
            return done
        for number, (pair, question) in enumerate(asked):
            tell(number, len(asked), f"reworded by {by.model or by.role}")
            await _one(home, by, pair, question, each, done)
        tell(len(asked), len(asked), "reworded")
    return done


def _by(home: Home) -> teacher.Teacher:
    named = home.settings.learn.teacher
    return teacher.chosen(home, home.models.primary if named == teacher.ANTHROPIC else "")


def _question(
    home: Home, by: teacher.Teacher, pair: Pair, each: int
) -> tuple[teacher.Question | None, str]:
    system, told = steering.prompt_text("paraphrase").format(many=each), pair.question
    classes: dict[str, str] = {}
    names: Placeholders | None = None
    if secrets_in(told) or any(key in told for key in teacher.keys_of(home)):
        return None, "a secret"
    if not by.local:
        policy = leave(home.settings.privacy)
        found = _classes(home, pair)
        denied = next((cls for cls in found if not policy.may(cls)), "")
        if denied or sensitive(told):
            return None, f"{denied}: deny" if denied else "sensitive"
        classes = {cls: policy.policy(cls) for cls in found}
        if policy.hides_names(classes):
            names = Placeholders(needed_names(home.settings, home.speakers()))
            told, system = names.redact(told), f"{system}\n\n{NOTE}"
    messages = (ChatMessage("system", system), ChatMessage("user", told))
    tokens = sum(estimate_tokens(one.content) + 8 for one in messages)
    return teacher.Question(messages, classes, names, tokens), ""


def _classes(home: Home, pair: Pair) -> list[str]:
    """Return the classes of what a pair rests on; what nobody knows is as what is kept closest."""
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT DISTINCT c.source FROM messages m JOIN conversations c"
            " ON c.id = m.conversation_id WHERE m.id IN (SELECT value FROM json_each(?))",
            (json.dumps(pair.because),),
        )
    named = {"history" if source == "knowme" else f"recalled:{source}" for (source,) in found}
    return sorted(named) or ["recalled"]


def _estimate(
    by: teacher.Teacher, asked: Sequence[teacher.Question], each: int
) -> teacher.Estimate:
    prompt = sum(int(one.tokens * teacher.COUNT_MARGIN) + 1 for one in asked)
    answers = len(asked) * _tokens(each)
    classes = {cls: policy for one in asked for cls, policy in one.classes.items()}
    return teacher.Estimate(
        len(asked), prompt, answers, by.cost(prompt, answers), by.where, by.model, by.local, classes
    )


def _tokens(each: int) -> int:
    return 40 + 100 * each


def _schema(each: int) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": 400}
    return {
        "type": "object",
        "properties": {"versions": {"type": "array", "maxItems": each, "items": text}},
        "required": ["versions"],
        "additionalProperties": False,
    }


async def _one(
    home: Home,
    by: teacher.Teacher,
    pair: Pair,
    question: teacher.Question,
    each: int,
    done: teacher.Taught,
) -> None:
    options = Options(
        max_tokens=_tokens(each), temperature=0.7, seed=teacher.SEED, json_schema=_schema(each)
    )
    if by.priced:
        lessons.note(home, pair.purpose, "begun", (), uid=pair.uid)
    try:
        said, call = await teacher.said_by(home, by, question, options)
    except ModelError as error:
        if by.priced and error.reached == "no":
            lessons.note(home, pair.purpose, "free", (), uid=pair.uid)
        raise
    restore = question.names.restore if question.names is not None else str
    made: list[Pair] = []
    dropped: Counter[str] = Counter()
    for text in _versions(said)[:each]:
        version = " ".join(restore(text).split())
        if why := wrong(pair.question, version, pair.answer):
            dropped[why] += 1
            continue
        messages = (*pair.messages[:-2], ChatMessage("user", version), pair.messages[-1])
        other = pairs.with_messages(pair, messages)
        made.append(replace(other, kind="paraphrase", rating=None, rejected=""))
    new = lessons.keep(home, lessons.PARAPHRASES, made)
    lessons.note(home, pair.purpose, "done", (), uid=pair.uid, pairs=new, dropped=dict(dropped))
    done.transcripts += 1
    done.pairs += new
    done.dropped.update(dropped)
    done.cost += call.cost


def _versions(said: str) -> list[str]:
    with suppress(ValueError, AttributeError, RecursionError):
        found = json.loads(said).get("versions")
        return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []
    return []


def wrong(question: str, version: str, answer: str) -> str:
    """Return "" if a version asks what the question asks, else why not. Pure."""
    first, second = words(question), words(version)
    if len(second) < 2 or sensitive(version) and not sensitive(question):
        return NOT_ONE
    if first == second:
        return SAME
    lost = gate.uncovered(question, version, None), gate.uncovered(version, question, None)
    if any(lost) or bool(_NOT.search(question)) != bool(_NOT.search(version)):
        return CHANGED
    asks = question.rstrip().endswith(("?", "？"))
    if asks != version.rstrip().endswith(("?", "？")) or len(second) > 3 * len(first) + 5:
        return NOT_ONE
    mine, theirs = stems(question), stems(version)
    told = {stem(word) for word in words(answer)} - mine
    if len(mine & theirs) < _KEPT * len(mine) or len(theirs & told) > len(theirs) // 2:
        return OTHER
    return ""
