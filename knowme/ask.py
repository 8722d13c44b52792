"""ask(): the one path of every question, from every surface.

Promises: search, compose, stream, then one write of the turn, its usage and its receipt, also when
the asker leaves in the middle. When nothing relevant is known and the question is about the
person, it says so and no model is asked. A very small model leads with the quoted words and their
date, and only those of its sentences are shown whose names and numbers stand in the notes.
Refuses to know: how the answer is shown, which engine runs, how recall ranks.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, tzinfo
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import apsw

from knowme import archive, jobs, memory
from knowme.context import Budgets, compose, who
from knowme.db import rows
from knowme.errors import InputError, ModelError, NotFoundError
from knowme.home import Home
from knowme.quotes import choose_quotes, quote_lead
from knowme.times import iso, now_ms, zone
from knowme.types import ChatMessage, Context, Hit, Message, Options, Query, Record, Usage
from knowme.words import content_words, sentences, stem, words

if TYPE_CHECKING:
    from knowme.seams import Engine, Vectors

SOURCE = "knowme"
UNKNOWN = "I don't know that about you: nothing that you told me bears on it."
UNKNOWN_SMALL = "I don't know that: nothing that you told me bears on it, and I am a small model."
UNTRUSTED = "untrusted"
"""What a source marks as neither the person's nor their assistant's: searched, never prompted."""
HISTORY_TURNS = 40
SMALL_TRIES = 3
NEAR_WORDS = 4
SMALL_RECALLED_TOKENS = 400
"""What a very small model reads: more only slows it down, the quotations stand above it anyway."""
SMALL_MODEL = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([mb])(?![a-z])", re.IGNORECASE)
REQUEST = re.compile(
    r"\b(?:tell|give|show|help|let|remind|teach|write|send|ask|explain to)\s+(?:me|us)\b"
    r"|\b(?:diz|conta|dá|mostra|lembra|explica)-me\b|\b(?:sag|erzähl|zeig|gib)e?\s+mir\b"
    r"|\b(?:dime|dame|muéstrame|recuérdame)\b",
    re.IGNORECASE,
)
ASKING = frozenset(
    "what when where who whom whose which why how is are was were do does did can could will would"
    " should have has had am list find search name explain describe summarise summarize compare"
    " o que qual quais quem quando onde como porque quanto quantos qué cuál quién cuándo dónde cómo"
    " was wann wo wer wie warum welche welcher welches".split()
)
FIRST_PERSON = frozenset(
    "i i'm i've i'd i'll me my mine myself we our ours us eu meu minha meus minhas mim comigo nosso"
    " nossa ich mir mich mein meine meinen meiner unser wir yo mi mis mío mía conmigo nosotros je"
    " moi mon ma mes notre nous".split()
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and how it may be answered."""

    question: str
    conversation: str = ""
    surface: str = "cli"
    top_k: int | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    system_prompt: str = ""
    now_ms: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    sources: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Started:
    """What is known before the first word: who answers, and from what."""

    model: str
    engine: str
    conversation: str
    sources: tuple[Hit, ...]
    known: bool


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The whole answer, what it cost, and the number of its receipt."""

    answer: str
    usage: Usage
    receipt_id: int
    known: bool


Event = Started | Delta | Done


@dataclass(slots=True)
class _Turn:
    """One question while it is being answered."""

    asked: Asked
    conversation: str
    started_ms: int
    context: Context
    known: bool
    relevance: float
    threshold: float
    small: bool
    alone: bool  # no earlier turn that it may speak of
    told: bool  # a very small model only notes it
    vector: tuple[memory.Space, Vectors] | None = None  # of what the person tells in a chat
    quotes: list[dict[str, Any]] = field(default_factory=list)
    answer: str = ""
    withheld: list[str] = field(default_factory=list)
    usage: Usage | None = None
    error: str = ""


async def ask(home: Home, asked: Asked) -> AsyncIterator[Event]:
    """Answer one question: yields Started, then Delta after Delta, then Done.

    Closing the iterator early stores what was said so far as a turn that was cut. Raises InputError
    for an empty question, ModelError when the model cannot answer (the failed turn is stored too).
    """
    if not asked.question.strip():
        raise InputError("The question is empty.", "Ask something.")
    asked = replace(
        asked,
        question=archive.whole(asked.question),
        conversation=archive.whole(asked.conversation),
        system_prompt=archive.whole(asked.system_prompt),
    )
    engine = await asyncio.to_thread(lambda: home.engine)
    began = time.perf_counter()
    turn = await asyncio.to_thread(_prepare, home, asked, engine)
    state = "cut"
    try:
        yield Started(engine.model, engine.name, turn.conversation, turn.context.used, turn.known)
        async with aclosing(_answer(home, turn, engine)) as answer:
            async for piece in answer:
                turn.answer += piece
                yield Delta(piece)
        state = "done"
    except Exception as error:
        state, turn.error = "failed", str(error)
        raise
    finally:
        took = (time.perf_counter() - began) * 1000
        if state != "done":  # the asker is gone: nobody waits, and an await could be cancelled
            home.db.write(lambda conn: _store(conn, turn, engine, state, took))
    receipt_id = await asyncio.to_thread(
        home.db.write, lambda conn: _store(conn, turn, engine, state, took)
    )
    usage = turn.usage or Usage(model=engine.model, total_ms=took)
    yield Done(turn.answer, usage, receipt_id, turn.known)


# --- before -------------------------------------------------------------------------------------


def _prepare(home: Home, asked: Asked, engine: Engine) -> _Turn:
    settings = home.settings
    conversation = asked.conversation or f"{asked.surface}-{uuid.uuid4().hex[:12]}"
    history = _history(home, conversation)
    hits = home.search(
        Query(
            asked.question,
            top_k=asked.top_k or settings.search.top_k,
            now_ms=asked.now_ms,
            since_ms=asked.since_ms,
            until_ms=asked.until_ms,
            sources=asked.sources,
            speakers=asked.speakers,
            conversations=asked.conversations,
        )
    )
    small = _leads_with_quotes(settings.ask.quote_first, engine)
    # A very small model is not shown the earlier turns: then they are recalled like any others.
    said_here = set() if small else {message.id for message in history}
    hits = [
        hit
        for hit in hits
        if not said_here.intersection(hit.message_ids) and hit.metadata.get("trust") != UNTRUSTED
    ]
    threshold = settings.ask.threshold
    if threshold < 0:
        threshold = home.threshold()
    relevance = max((hit.score for hit in hits), default=0.0)
    known = relevance >= threshold
    tz = zone(settings.memory.timezone)
    budgets = Budgets(
        window=engine.context_tokens,
        system=settings.ask.system_tokens,
        recalled=min(settings.ask.recalled_tokens, SMALL_RECALLED_TOKENS)
        if small
        else settings.ask.recalled_tokens,
        question=settings.ask.question_tokens,
        history=0 if small else settings.ask.history_tokens,
        answer=asked.max_tokens or (96 if small else settings.engine.max_tokens),
    )
    system = asked.system_prompt or _system_prompt(small, settings.name, asked.now_ms, tz)
    count = lru_cache(maxsize=4096)(engine.count_tokens)
    told = small and asked.surface == "chat" and not asks(asked.question)
    shown = hits if known and not told else []  # what is only told is noted, not answered
    context = compose(system, shown, history, asked.question, budgets, count, tz)
    turn = _Turn(
        asked,
        conversation,
        now_ms(),
        context,
        known,
        relevance,
        threshold,
        small,
        not history,
        told,
    )
    if remembered(asked):
        turn.vector = _embed(home, asked.question)
    if small and known and not told:
        turn.quotes = _quote(home, shown, asked.question)
    return turn


def _quote(home: Home, hits: Sequence[Hit], question: str) -> list[dict[str, Any]]:
    """Choose the quotations; when the embedder is down, by the words alone."""
    _, embedder = home.serving()
    tz = zone(home.settings.memory.timezone)
    try:
        return choose_quotes(embedder, hits, question, tz)
    except ModelError:
        return choose_quotes(None, hits, question, tz)


def remembered(asked: Asked) -> bool:
    """Tell whether a message is to be recalled later: what is told in a chat, not what is asked."""
    return asked.surface == "chat" and not is_question(asked.question)


def _embed(home: Home, text: str) -> tuple[memory.Space, Vectors] | None:
    """Embed what the person tells, before the write; None when the embedder cannot."""
    space, embedder = home.serving()
    if space is None or embedder is None:
        return None
    try:
        return space, embedder.embed([memory.passage("user", "", text)], "document")
    except ModelError:
        return None


def _history(home: Home, conversation: str) -> list[Message]:
    with home.db.read() as conn:
        found = archive.find_conversation(conn, SOURCE, conversation)
        return [] if found is None else archive.last_messages(conn, found, HISTORY_TURNS)


def _system_prompt(small: bool, name: str, at_ms: int | None, tz: tzinfo | None) -> str:
    text = (files("knowme") / "prompts" / f"answer{'_small' if small else ''}.md").read_text(
        "utf-8"
    )
    today = datetime.fromtimestamp((at_ms if at_ms is not None else now_ms()) / 1000, tz)
    return text.format(name=name or "the person", today=f"{today:%A, %d %B %Y}").strip()


def _leads_with_quotes(setting: str, engine: Engine) -> bool:
    """Tell whether the answer leads with quotations: a model under a billion parameters does."""
    if setting != "auto":
        return setting == "always"
    if engine.name == "echo":
        return True
    size = SMALL_MODEL.search(engine.model)
    return size is not None and (size[2].lower() == "m" or float(size[1]) < 1)


# --- the answer ---------------------------------------------------------------------------------


async def _answer(home: Home, turn: _Turn, engine: Engine) -> AsyncGenerator[str, None]:
    if turn.told:
        yield "Noted, word for word."  # more would be invented
        return
    if not turn.known and (turn.small or (turn.alone and about_the_person(turn.asked.question))):
        yield UNKNOWN if about_the_person(turn.asked.question) else UNKNOWN_SMALL
        return
    if turn.quotes:
        yield quote_lead(turn.quotes)
    settings = home.settings.engine
    temperature = turn.asked.temperature
    options = Options(
        max_tokens=turn.context.tokens["answer"],
        temperature=settings.temperature if temperature is None else temperature,
        think=settings.think,
    )
    if engine.name == "echo" and turn.quotes:
        # The quotations are the answer; given nothing more, the echo only says what it is.
        yield "\n\n"
        pieces = _stream(turn, engine, (), options)
    elif turn.small and turn.known:
        pieces = _supported(turn, engine, options)
    else:
        pieces = _stream(turn, engine, turn.context.messages, options)
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece


async def _stream(
    turn: _Turn, engine: Engine, messages: Sequence[ChatMessage], options: Options
) -> AsyncGenerator[str, None]:
    stream = engine.stream(messages, options)
    try:
        async for chunk in stream:
            if chunk.usage is not None:
                turn.usage = chunk.usage
            if chunk.text:
                yield chunk.text
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


async def _supported(turn: _Turn, engine: Engine, options: Options) -> AsyncGenerator[str, None]:
    """Pass on the first sentence of a small model whose names and numbers stand in the notes.

    It is asked for one; what such a model adds to it is repetition. So the stream ends there.
    """
    notes = [hit.text for hit in turn.context.used]
    asked = content_words(turn.asked.question)
    held = ""
    stream = _stream(turn, engine, turn.context.messages, options)
    try:
        async for piece in stream:
            held += piece
            *whole, held = sentences(held) or [""]
            for sentence in whole:
                if supported(sentence, notes) and not set(content_words(sentence)) <= set(asked):
                    yield ("\n\n" if turn.quotes else "") + sentence.strip()
                    return
                if sentence.strip():
                    turn.withheld.append(sentence)
            if len(turn.withheld) >= SMALL_TRIES:
                return
        if held.strip():
            turn.withheld.append(held)
    finally:
        await stream.aclose()


def supported(sentence: str, notes: Sequence[str]) -> bool:
    """Tell whether one of the notes says this: its names, its numbers, its words side by side.

    Shared words alone do not do: "a pump instead of a boiler" and "a boiler instead of a pump"
    share them all. So half of the neighbouring pairs of content words must stand near each other,
    in that order, in one and the same note.
    """
    if not sentence.strip():
        return True
    return any(_says(note, sentence) for note in notes)


def _says(note: str, sentence: str) -> bool:
    have = [stem(word) for word in content_words(note, once=False)]
    told = [stem(word) for word in content_words(sentence, once=False)]
    for place, token in enumerate(re.findall(r"\w+", sentence)):
        named = token[0].isupper() and place > 0
        if (named or token[0].isdigit()) and stem(token.lower()) not in have:
            return False
    near = {
        pair for gap in range(1, NEAR_WORDS + 1) for pair in zip(have, have[gap:], strict=False)
    }
    pairs = list(pairwise(told))
    return bool(pairs) and sum(pair in near for pair in pairs) >= len(pairs) / 2


def about_the_person(question: str) -> bool:
    """Tell whether a question speaks of the person who asks ("tell me" alone does not)."""
    return not FIRST_PERSON.isdisjoint(words(REQUEST.sub(" ", question)))


def asks(text: str) -> bool:
    """Tell whether a message wants an answer: a question, or a request."""
    first = next(iter(words(text)), "")
    return "?" in text or "？" in text or first in ASKING or REQUEST.search(text) is not None


def is_question(text: str) -> bool:
    """Tell whether a message only asks: such a message is kept, and not recalled later."""
    pieces = [piece.strip() for piece in sentences(text) if piece.strip()]
    return bool(pieces) and all(piece.rstrip("\"'”)").endswith(("?", "？")) for piece in pieces)


# --- after --------------------------------------------------------------------------------------


def _store(conn: apsw.Connection, turn: _Turn, engine: Engine, state: str, took_ms: float) -> int:
    """Write the turn, its usage and its receipt. Returns the receipt's number."""
    key, stamp = uuid.uuid4().hex[:16], now_ms()
    recall = remembered(turn.asked)
    asked = Record("message", turn.conversation, f"{key}:q", "user", text=turn.asked.question,
                   at_ms=turn.started_ms, seq=-1, recall=recall,
                   meta={"surface": turn.asked.surface})  # fmt: skip
    answered = Record("message", turn.conversation, f"{key}:a", "assistant", text=turn.answer,
                      at_ms=stamp, seq=-1, recall=False,
                      meta={"surface": turn.asked.surface, "model": engine.model})  # fmt: skip
    conversation = archive.put_conversation(conn, SOURCE, asked, stamp)
    question_id, _, _ = archive.put(conn, conversation, asked, stamp)
    answer_id: int | None = None
    if turn.answer:
        answer_id, _, _ = archive.put(conn, conversation, answered, stamp)
    made = list(memory.add_items(conn, [question_id])) if recall else []
    stored = turn.vector is not None and memory.put_vectors(
        conn, turn.vector[0], made, turn.vector[1]
    )
    if made and not stored:
        jobs.enqueue(conn, "reindex", {}, unique_key="reindex")
    usage = turn.usage or Usage(model=engine.model, total_ms=took_ms)
    conn.execute(
        "INSERT INTO answers(conversation_id, question_id, answer_id, surface, state, model, usage,"
        " receipt, asked_ms, took_ms) VALUES(?,?,?,?,?,?,?,?,?,?)",
        (
            conversation, question_id, answer_id, turn.asked.surface, state, engine.model,
            json.dumps(asdict(usage)), json.dumps(_receipt(turn, engine), ensure_ascii=False),
            turn.started_ms, took_ms,
        ),
    )  # fmt: skip
    return conn.last_insert_rowid()


def _receipt(turn: _Turn, engine: Engine) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "local": engine.local,
        "known": turn.known,
        "relevance": round(turn.relevance, 4),
        "threshold": round(turn.threshold, 4),
        "tokens": dict(turn.context.tokens),
        "used": [
            {
                "uid": hit.uid, "text": hit.text, "at": iso(hit.at_ms), "who": who(hit),
                "conversation": hit.conversation, "origin": hit.origin,
                "score": round(hit.score, 4), "why": dict(hit.why),
            }
            for hit in turn.context.used
        ],
        "dropped": [asdict(dropped) for dropped in turn.context.dropped],
        "quotes": turn.quotes,
        "withheld": turn.withheld,
        "prompt": [asdict(message) for message in turn.context.messages],
        "error": turn.error,
    }  # fmt: skip


def why(home: Home, which: str = "last") -> dict[str, Any]:
    """Return the receipt of an answer by its number, or of the last one.

    Raises NotFoundError.
    """
    numeric = which.isascii() and which.isdigit() and len(which) < 18
    if which != "last" and not numeric:
        raise InputError(f"{which!r} is not the number of an answer.", "Use a number, or: last")
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT a.id, c.external_id, q.text, coalesce(r.text, ''), a.surface, a.state, a.model,"
            " a.usage, a.receipt, a.asked_ms, a.took_ms FROM answers a"
            " JOIN conversations c ON c.id = a.conversation_id"
            " JOIN messages q ON q.id = a.question_id"
            " LEFT JOIN messages r ON r.id = a.answer_id WHERE ? = 'last' OR a.id = ?"
            " ORDER BY a.id DESC LIMIT 1",
            (which, int(which) if numeric else 0),
        )
    if not found:
        mend = "Ask something first: knowme ask ..." if which == "last" else "See: knowme why last"
        raise NotFoundError(f"There is no answer {which}.", mend)
    (number, conversation, question, answer, surface, state, model, usage, receipt, at, took) = (
        found[0]
    )
    return {
        "receipt_id": number, "conversation": conversation, "question": question, "answer": answer,
        "surface": surface, "state": state, "model": model, "asked": iso(at), "took_ms": took,
        "usage": json.loads(usage), **json.loads(receipt),
    }  # fmt: skip
