"""The teacher: a model reads what the person said and writes questions and answers of it.

    conversations -> transcripts (pieces that fit the teacher) -> estimate, confirmed -> the model
                  -> the evidence check -> runs/teacher/pairs.jsonl

Promises: nothing is sent before what it costs and shows was confirmed; to a model elsewhere goes
only what ``privacy`` lets leave, with placeholders where it says so, and every byte stands in the
ledger. A pair is kept only with a quote of the person's that bears it out (``evidence.py``); what
is not is counted. What was read is not read again; what was or may have been paid for is not asked
twice. Other people's words are shown to nobody and teach nothing.
Refuses to know: whether a pair is worth training (``quality.py``), how batches travel
(``batches.py``, ``submitted.py``), its files (``lessons.py``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from knowme import archive, egress, extract, fingerprints, net, receipts, sessions, steering
from knowme.claims.languages import language_of
from knowme.context import rests_on
from knowme.db import rows
from knowme.errors import InputError, ModelError, OfflineError
from knowme.learn import batches, evidence, pairs
from knowme.learn.lessons import BATCHES, PAIRS, done_of, folder, keep, note
from knowme.learn.lessons import taught as taught
from knowme.lock import Lock
from knowme.privacy import Leave, leave, needed_names
from knowme.redact import NOTE, Placeholders, secrets_in
from knowme.sensitive import sensitive
from knowme.steering import prompt_text
from knowme.times import now_ms
from knowme.turn import Call
from knowme.types import ME, PURPOSES, ChatMessage, Options, Pair
from knowme.wire import estimate_tokens
from knowme.words import sentences, words

if TYPE_CHECKING:
    from knowme.home import Home

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done). What it raises ends the work; what is done stays done."""

THEMES = {
    "technical": "tools, languages and technical choices that the person prefers, and why",
    "style": "how the person works: habits, order, what they insist on",
    "project": "what the person works on, what it is for and where it stands",
    "decision": "how the person decides: what they weigh, what they chose or refused, and why",
    "communication": "how the person wants to be answered and how they speak",
}
"""What pairs are made of: name -> what a teacher is told of it."""
ANTHROPIC = "anthropic"
MANY = (15, 30)
"""Pairs that are wanted of a long transcript."""
LEAST_WORDS = 12
"""Words of the person's in a transcript, at least: what is shorter waits for more."""
SMALL = 1_000_000_000
"""Parameters under which a model does not teach unless it is named."""
LINE_CHARS, ASIDE_CHARS = 4_000, 300
"""Of a message of the person's, and of one of an assistant's."""
WINDOW_TOKENS, ANSWER_TOKENS = 12_000, 4_000
"""Of one transcript and one answer, at most; a small window takes less."""
PAIR_TOKENS = 90
COUNT_MARGIN = 1.35
"""Our estimate of tokens times this is more than tokenizers were seen to count."""
SEED = 5
FORGOTTEN, CUT, NO_ANSWER, REPEATED = "forgotten meanwhile", "cut", "no answer", "repeated"


class Line(NamedTuple):
    """A message as a teacher is shown it, by PERSON or ASSISTANT, and what classes it is of."""

    id: int
    who: str
    text: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """A piece of a conversation that fits the teacher. ``left_out``: why -> how many messages."""

    place: str
    lines: tuple[Line, ...]
    at_ms: int | None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def ids(self) -> list[int]:
        """The messages that it shows, ascending."""
        return sorted({line.id for line in self.lines})

    @property
    def many(self) -> int:
        """How many pairs are wanted of it: one for each sentence of the person's, 30 at most."""
        said = sum(len(sentences(line.text)) for line in self.lines if line.who == "PERSON")
        return max(3, min(MANY[1], said))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the person confirms. ``classes``: class -> policy; ``cost`` is the most it can be.

    ``where`` is "this machine" or the address; ``left_out`` what stays here, and why.
    """

    transcripts: int
    prompt_tokens: int
    answer_tokens: int
    cost: float
    where: str
    model: str
    local: bool
    classes: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Taught:
    """What was done. ``waiting``: batches that are on their way; ``dropped``: why -> pairs."""

    transcripts: int = 0
    pairs: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    cost: float = 0.0
    confirmed: bool | None = None
    """None: there was nothing to ask."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """Who teaches: a model by its role, or Anthropic (role "anthropic")."""

    role: str
    model: str
    local: bool
    where: str
    window: int
    answer: int
    price_in: float = 0.0
    price_out: float = 0.0

    @property
    def priced(self) -> bool:
        """Whether asking costs money."""
        return bool(self.price_in or self.price_out)

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.price_in + answer_tokens * self.price_out) / 1_000_000


def chosen(home: Home, role: str = "") -> Teacher:
    """Return who teaches by the settings. Raises InputError, NotFoundError, OfflineError."""
    settings = home.settings.learn
    named = role or settings.teacher
    if named == ANTHROPIC:
        net.check(settings.teacher_url)
        return Teacher(
            ANTHROPIC, settings.teacher_model, False, egress.bare(settings.teacher_url),
            WINDOW_TOKENS, ANSWER_TOKENS, settings.teacher_price_in, settings.teacher_price_out,
        )  # fmt: skip
    role = home.models.find(named) if named else home.models.primary
    with suppress(ModelError):
        home.models.engine(role)  # only then an "auto" is known; nothing is loaded
    state = home.models.state(role)
    mend = "Name one: knowme config set learn.teacher ROLE (or anthropic)"
    if state.engine == "echo":
        raise InputError("No model here can teach.", mend)
    unknown = not state.local and not state.parameters
    if not named and state.parameters < SMALL and not unknown:
        raise InputError(
            f"{state.model or role} is too small to teach: it has {state.parameters / 1e6:.0f} "
            "million parameters, and a thousand million are the least.",
            mend,
        )
    if not state.local and home.settings.offline:
        raise OfflineError(f"The model {role} lies beyond this machine, and offline is set.",
                           net.MEND)  # fmt: skip
    room = state.context_tokens
    answer = min(ANSWER_TOKENS, room // 3)
    window = min(WINDOW_TOKENS, room - answer - 700)
    where = "this machine" if state.local else f"the model {role}"
    return Teacher(role, state.model, state.local, where, max(200, window), answer,
                   state.price_in, state.price_out)  # fmt: skip


# --- transcripts --------------------------------------------------------------------------------


def transcripts(
    home: Home,
    since_ms: int | None = None,
    *,
    purpose: str = PURPOSES[0],
    window_tokens: int = WINDOW_TOKENS,
    away: bool = False,
    again: bool = False,
) -> list[Transcript]:
    """Return what was not taught from yet, in pieces of at most ``window_tokens``.

    ``away``: only what may leave this machine. ``again``: also what was asked without an answer
    that was kept (it may be paid twice). Messages stand in the order of their conversation.
    """
    done = done_of(home.path, purpose, again)
    made: list[Transcript] = []
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT c.id, c.source, c.external_id FROM conversations c WHERE c.kind <> 'subagent'"
            " AND NOT (c.source = 'knowme' AND c.external_id IN ('pairs', 'collect'))"
            " ORDER BY c.id",
        )
        for number, source, name in found:
            lines, left_out, at_ms = _lines(home, conn, (number, source), done, since_ms, away)
            made += _pieces(f"{source}/{name}", lines, left_out, at_ms, window_tokens)
    return made


def _lines(
    home: Home,
    conn: apsw.Connection,
    conversation: tuple[int, str],
    done: set[int],
    since_ms: int | None,
    away: bool,
) -> tuple[list[Line], Counter[str], dict[int, int | None]]:
    number, source = conversation
    ids = [
        each
        for (each,) in rows(
            conn,
            "SELECT id FROM messages WHERE conversation_id = ? AND retired_ms IS NULL"
            " AND coalesce(at_ms, recorded_ms) >= ? AND (recall OR role = 'assistant')"
            " ORDER BY seq, id",
            (number, -(1 << 62) if since_ms is None else since_ms),
        )
        if each not in done
    ]
    if not ids:
        return [], Counter(), {}
    messages = archive.messages(conn, ids)
    own = {one.id: one for one in extract.spoken(conn, ids, home.settings) if one.subject == ME}
    policy, keys = leave(home.settings.privacy), keys_of(home)
    turns = _turns(conn, [messages[each] for each in ids if each in messages], source)
    made, left_out = [], Counter[str]()
    for each in ids:
        mine = each in own
        if not mine and (messages[each].role != "assistant" or messages[each].meta.get("subagent")):
            continue
        text = " ".join((own[each].text if mine else messages[each].text).split())
        why = _kept_here(text, turns[each], policy if away else None, keys)
        if why:
            left_out[why] += 1
        elif text:
            cut = text[: LINE_CHARS if mine else ASIDE_CHARS]
            left_out[CUT] += mine and len(cut) < len(text)
            made.append(Line(each, "PERSON" if mine else "ASSISTANT", cut, turns[each]))
    return made, +left_out, {each: messages[each].at_ms for each in ids}


def _turns(
    conn: apsw.Connection, messages: Sequence[Any], source: str
) -> dict[int, tuple[str, ...]]:
    """Return the classes of each message: its own, and those of memory that it may repeat."""
    if source != sessions.SOURCE:
        return {each.id: (f"recalled:{source}",) for each in messages}
    said = [each for each in messages if each.role in ("user", "assistant")]
    found: dict[int, tuple[str, ...]] = {each.id: ("history",) for each in messages}
    for turn in sessions.classed(conn, said):
        # What rests on recalled memory is, besides, a turn that was answered here.
        own = "sent" if turn.cls in ("", "sent") else "history"
        found[turn.message_id] = (own, *rests_on(turn))
    return found


def _kept_here(text: str, classes: Iterable[str], policy: Leave | None, keys: Sequence[str]) -> str:
    """Return why a message is not shown, "" where it is. ``policy`` None: it goes nowhere."""
    if secrets_in(text) or any(key in text for key in keys):
        return evidence.SECRET  # no model is taught from it, not even here
    if policy is None:
        return ""
    if sensitive(text):
        return evidence.SENSITIVE
    return next((f"{cls}: deny" for cls in classes if not policy.may(cls)), "")


def keys_of(home: Home) -> tuple[str, ...]:
    """Return the keys that are configured here, the teacher's too."""
    own = home.settings.learn.teacher_api_key
    more = (own,) if len(own) >= egress.SHORTEST_KEY else ()
    return (*egress.keys_of(home.settings), *more)


def _pieces(
    place: str,
    lines: Sequence[Line],
    left_out: Counter[str],
    at_ms: Mapping[int, int | None],
    window: int,
) -> list[Transcript]:
    made: list[list[Line]] = []
    size = 0
    for line in lines:
        line = line._replace(text=_fitting(line.text, window - 12))
        tokens = estimate_tokens(line.text) + 12
        if not made or size + tokens > window:
            made.append([])
            size = 0
        made[-1].append(line)
        size += tokens
    kept: list[Transcript] = []
    for piece in made:
        said = sum(len(words(line.text)) for line in piece if line.who == "PERSON")
        if said >= LEAST_WORDS:
            newest = max((at_ms[line.id] or 0 for line in piece), default=0) or None
            kept.append(Transcript(place, tuple(piece), newest, {} if kept else dict(left_out)))
    return kept


def _fitting(text: str, tokens: int) -> str:
    while text and estimate_tokens(text) > tokens:
        text = text[: len(text) * 4 // 5]
    return text


# --- what a teacher is asked ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent for one transcript; ``names`` puts back what placeholders stand for."""

    messages: tuple[ChatMessage, ...]
    classes: Mapping[str, str]
    names: Placeholders | None
    tokens: int
    listed: tuple[str, ...] = ()


def question(
    home: Home, teacher: Teacher, one: Transcript, purpose: str, kinds: Iterable[str]
) -> Question:
    """Compose what is asked about a transcript. Raises ModelError where a secret would leave."""
    mine = purpose == "sound-like-me"
    system = prompt_text("teacher").format(
        many=f"{MANY[0]} to {MANY[1]}" if one.many >= MANY[0] else f"up to {one.many}",
        themes="; ".join(f"{kind} ({THEMES[kind]})" for kind in kinds),
        asks="what somebody would ask the PERSON, with you for the person"
        if mine
        else "what the PERSON would ask their assistant about themselves, with I for the person",
        answers="what the PERSON says, as I" if mine else "what the assistant tells them, as you",
        change="leave I as it is" if mine else 'I -> you, my -> your, "I am" -> "you are"',
    )
    told = shown(one)
    names: Placeholders | None = None
    classes: dict[str, str] = {}
    listed: tuple[str, ...] = ()
    if not teacher.local:
        policy = leave(home.settings.privacy)
        classes = {cls: policy.policy(cls) for line in one.lines for cls in line.classes}
        if policy.hides_names(classes):
            listed = needed_names(home.settings, home.speakers())
            names = Placeholders(listed)
            told, system = names.redact(told), f"{system}\n\n{NOTE}"
        if secrets_in(told) or any(key in told for key in keys_of(home)):
            raise ModelError("A transcript holds what looks like a secret, and stays here.")
    messages = (ChatMessage("system", system), ChatMessage("user", told))
    tokens = sum(estimate_tokens(each.content) + 8 for each in messages)
    return Question(messages, classes, names, tokens, listed)


def shown(one: Transcript) -> str:
    """Return a transcript as a teacher reads it, names and all."""
    return "\n".join(f"[{n}] {line.who}: {line.text}" for n, line in enumerate(one.lines, 1))


def schema(kinds: Iterable[str], many: int) -> dict[str, Any]:
    """Return the JSON schema of an answer with at most so many pairs."""
    text = {"type": "string", "minLength": 1}
    pair = {
        "type": "object",
        "properties": {
            "theme": {"type": "string", "enum": list(kinds)},
            "quote": {**text, "maxLength": evidence.LONGEST},  # first: the rest is read off it
            "question": {**text, "maxLength": 300},
            "answer": {**text, "maxLength": evidence.LONGEST},
        },
        "required": ["theme", "quote", "question", "answer"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"pairs": {"type": "array", "maxItems": many, "items": pair}},
        "required": ["pairs"],
        "additionalProperties": False,
    }


def answer_tokens(teacher: Teacher, one: Transcript) -> int:
    """Return the longest answer about a transcript, in tokens."""
    return min(teacher.answer, 100 + PAIR_TOKENS * one.many)


def parsed(answer: str) -> list[dict[str, str]]:
    """Return the pairs of an answer; of one that was cut off, those that are whole."""
    try:
        told = json.loads(answer)
        found = told.get("pairs") if isinstance(told, dict) else told
    except (ValueError, RecursionError):
        found = []
        for match in re.finditer(r"\{[^{}]*\}", answer):
            with suppress(ValueError, RecursionError):
                found.append(json.loads(match[0]))
    names = ("theme", "quote", "question", "answer")
    return [
        {name: " ".join(each[name].split()) for name in names}
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, dict) and all(isinstance(each.get(name), str) for name in names)
    ]


def borne_out(
    home: Home,
    purpose: str,
    place: str,
    ids: Iterable[int],
    found: Sequence[Mapping[str, str]],
    by: str,
) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs that the person's words in these messages bear out, and why not the rest."""
    dropped: Counter[str] = Counter()
    said, times = _said(home, ids)
    mine = purpose == "sound-like-me"
    made: dict[str, Pair] = {}
    for each in found:
        if each["theme"] not in THEMES:
            dropped[evidence.EMPTY] += 1
            continue
        proof, why = evidence.borne_out(
            each["quote"], each["question"], each["answer"], said,
            mine=mine, allowed=[home.settings.name] if home.settings.name else (), read_by=by,
        )  # fmt: skip
        if proof is None:
            dropped[why] += 1
            continue
        pair = pairs.made(
            purpose, "teacher",
            (ChatMessage("user", each["question"]), ChatMessage("assistant", each["answer"])),
            [proof.message_id], place, at_ms=times[proof.message_id],
            language=language_of(proof.quote, 0, len(proof.quote)), labels=(each["theme"],),
        )  # fmt: skip
        dropped[REPEATED] += pair.uid in made
        made[pair.uid] = pair
    return list(made.values()), +dropped


def _said(home: Home, ids: Iterable[int]) -> tuple[list[evidence.Said], dict[int, int | None]]:
    """Return the person's own messages of these, as they stand in the archive now."""
    with home.db.read() as conn:
        found = [o for o in extract.spoken(conn, ids, home.settings) if o.subject == ME]
        made = [
            evidence.Said(
                one.id,
                one.text,
                extract.day_of(one.at_ms, home.settings),
                tuple(fingerprints.spans(conn, one.text, before_message=one.id)),
            )  # fmt: skip
            for one in found
        ]
    return made, {one.id: one.at_ms for one in found}


# --- teaching -------------------------------------------------------------------------------------


async def teach(
    home: Home,
    *,
    purpose: str,
    confirm: Callable[[Estimate], bool],
    kinds: Iterable[str] = tuple(THEMES),
    progress: Tell | None = None,
    since_ms: int | None = None,
    wait: bool = True,
    poll_seconds: float = 60.0,
    again: bool = False,
) -> Taught:
    """Let the teacher read what it has not read yet, once ``confirm`` says yes to the estimate.

    Batches that were submitted before are fetched first, for which nothing is asked. ``wait``:
    stay until batches have ended (up to a day; Ctrl-C loses nothing), else call it again later.
    Raises InputError, ModelError, StoreError; what was done stays done.
    """
    from knowme.learn import submitted

    if purpose not in PURPOSES:
        raise InputError(f"There is no purpose {purpose!r}.", f"Use {' or '.join(PURPOSES)}.")
    themes = tuple(kinds)
    if foreign := [kind for kind in themes if kind not in THEMES] or not themes:
        raise InputError(f"There is no theme {foreign!r}.", f"Use: {', '.join(THEMES)}.")
    done, tell = Taught(), progress or (lambda done, total, what: None)
    with alone(home):
        if submitted.waiting(home):
            await submitted.fetch(home, done, tell)
        teacher = chosen(home)
        todo = transcripts(
            home, since_ms, purpose=purpose, window_tokens=teacher.window,
            away=not teacher.local, again=again,
        )  # fmt: skip
        asked, bad = _questions(home, teacher, todo, purpose, themes)
        done.failed.update(bad)
        if asked:
            told = estimate(teacher, asked)
            afford(home, teacher, told)
            done.confirmed = confirm(told)
            if done.confirmed and teacher.role == ANTHROPIC:
                await submitted.submit(home, teacher, purpose, themes, asked)
            elif done.confirmed:
                await _one_by_one(home, teacher, purpose, themes, asked, done, tell)
        while True:
            done.waiting = submitted.waiting(home)
            if not (done.waiting and wait):
                break
            await asyncio.sleep(poll_seconds)
            await submitted.fetch(home, done, tell)
    return done


def alone(home: Home) -> Lock:
    """Take the teacher's lock: two at once would pay for the same. Raises HomeError."""
    return Lock(folder(home.path) / "lock")


Asked = list[tuple[Transcript, Question]]


def _questions(
    home: Home, teacher: Teacher, todo: Iterable[Transcript], purpose: str, kinds: Sequence[str]
) -> tuple[Asked, Counter[str]]:
    made: Asked = []
    bad: Counter[str] = Counter()
    for one in todo:
        try:
            made.append((one, question(home, teacher, one, purpose, kinds)))
        except ModelError:  # two lines that are a secret together
            bad[evidence.SECRET] += 1
    return made, bad


def estimate(teacher: Teacher, asked: Asked) -> Estimate:
    """Return what asking all of it shows, and costs at most."""
    prompt = sum(-(-each.tokens * COUNT_MARGIN // 1) for _, each in asked)
    answers = sum(answer_tokens(teacher, one) for one, _ in asked)
    classes: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for one, each in asked:
        classes |= each.classes
        left_out.update(one.left_out)
    return Estimate(
        len(asked), int(prompt), answers, teacher.cost(int(prompt), answers), teacher.where,
        teacher.model, teacher.local, dict(sorted(classes.items())), dict(left_out),
    )  # fmt: skip


def afford(home: Home, teacher: Teacher, told: Estimate) -> None:
    """Raise ModelError where the month's budget does not hold it, with what is on its way."""
    if not teacher.priced:
        return
    budget = steering.spending(home)
    open_cost = sum(
        entry.cost for entry in batches.entries(folder(home.path) / BATCHES) if entry.open
    )
    if budget.spent + open_cost + told.cost > budget.monthly:
        raise ModelError(
            f"Teaching from {told.transcripts} transcripts costs up to {told.cost:.2f}; "
            f"{budget.spent + open_cost:.2f} of this month's {budget.monthly:.2f} is spent.",
            "Take fewer (a later --since), raise routing.monthly_budget, or name a model of your "
            "own: learn.teacher",
        )


async def _one_by_one(
    home: Home, teacher: Teacher, purpose: str, kinds: Sequence[str], asked: Asked, done: Taught,
    tell: Tell,
) -> None:  # fmt: skip
    for number, (one, each) in enumerate(asked):
        tell(number, len(asked), f"taught by {teacher.model or teacher.role}")
        if teacher.priced:
            note(home, purpose, "begun", one.ids)
        options = Options(
            max_tokens=answer_tokens(teacher, one), temperature=0.0, seed=SEED,
            json_schema=schema(kinds, one.many),
        )  # fmt: skip
        try:
            answer, call = await said_by(home, teacher, each, options)
        except ModelError as error:
            if teacher.priced and error.reached == "no":
                note(home, purpose, "free", one.ids)
            raise
        restore = each.names.restore if each.names is not None else str
        found = [{k: restore(v) for k, v in pair.items()} for pair in parsed(answer)]
        by = f"model:{teacher.model}"
        kept, dropped = borne_out(home, purpose, one.place, one.ids, found, by)
        finished(home, purpose, one.ids, kept, dropped, done, by)
        done.cost += call.cost
    tell(len(asked), len(asked), "taught")


def finished(
    home: Home, purpose: str, ids: Sequence[int], kept: Sequence[Pair], dropped: Counter[str],
    done: Taught, by: str,
) -> None:  # fmt: skip
    """Keep what came of one transcript, and that it is done; both are on disk when it returns."""
    new = keep(home, PAIRS, kept)
    note(home, purpose, "done", ids, by=by, pairs=new, dropped=dict(dropped))
    done.transcripts += 1
    done.pairs += new
    done.dropped.update(dropped)


async def said_by(
    home: Home, teacher: Teacher, each: Question, options: Options
) -> tuple[str, Call]:
    """Ask a model by role; its answer, with what the call was. Raises ModelError."""
    said = ""
    async with home.models.use(teacher.role) as engine:
        call = Call("teacher", teacher.role, engine.model, engine.name, engine.local, now_ms())
        try:
            with egress.labelled("teacher", model=engine.model, classes=each.classes) as label:
                async with aclosing(engine.stream(each.messages, options)) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        call.usage = chunk.usage or call.usage
                        said += chunk.text
            call.state = "done"
        except ModelError as error:
            call.state, call.error = "failed", str(error)
            home.models.failed(teacher.role, error)
            raise
        finally:
            call.sent += label.rows
            if call.usage is not None:
                call.cost = teacher.cost(call.usage.prompt_tokens, call.usage.answer_tokens)
            await asyncio.to_thread(home.db.write, lambda conn: receipts.put_call(conn, call, None))
    home.models.worked(teacher.role)
    return said, call
