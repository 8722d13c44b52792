"""What left the window, summarised ahead of need.

A conversation is cut into blocks of whole exchanges. A block is summarised as soon as so much was
said after it that it will leave the window next, so that its summary is there when it does. The
lines of all blocks together, the most telling of them, are the rolling summary of a prompt.

Promises: blocks depend on the turns and the settings alone, so made one by one or all at once they
are the same. A line rests on messages that are named, and its names, numbers and dates stand in
them; what a model words otherwise is left out, and where nothing is left, sentences stand as they
were said. Only a model of this machine words anything. No message is changed.
Refuses to know: how a prompt is composed, when a job runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw
import numpy as np
from numpy.typing import NDArray

from knowme import archive, memory, sessions
from knowme.compress import WHO, Summary, shorten, summarise
from knowme.context import (
    PER_MESSAGE,
    Budgets,
    Turn,
    exchanges,
    rolled,
    sources_of,
    summary_room,
)
from knowme.db import rows, value
from knowme.errors import ModelError, NotFoundError
from knowme.gate import uncovered
from knowme.sessions import SOURCE
from knowme.times import now_ms
from knowme.types import ChatMessage, Hit, Options
from knowme.wire import estimate_tokens
from knowme.words import stem, stems, words

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.seams import Vectors
    from knowme.settings import Settings

Tell = Callable[[int, int, str], None]
EXTRACTIVE = "extractive"
LARGE = 1_000_000_000
"""Parameters from which on a model words summaries by itself (context.summaries: auto)."""
SHARE = 3
"""A block is shortened to a third of its tokens, at most."""
LONGEST_TURN = 400
"""Tokens of one turn that a model reads; of a longer one it reads the beginning."""
LONGEST_LINE = 60
COVERED = 0.5
"""The least share of a line's words (stems) that its turns must have."""
MOST_LINES = 6
ANSWER_TOKENS = 400
EVERY = 1 << 40


class Sizes(NamedTuple):
    """Tokens: of a block, of what must have been said after it, of the rolling summary's text."""

    block: int
    after: int
    rolling: int


class Block(NamedTuple):
    """Whole exchanges that are summarised together: the messages with from_seq < seq <= upto."""

    from_seq: int
    turns: tuple[Turn, ...]

    @property
    def upto(self) -> int:
        """Return the seq of its last message."""
        return self.turns[-1].seq


@dataclass(frozen=True, slots=True)
class Made:
    """The summary of a block, the rolling one up to it, and who worded it."""

    block: Block
    summary: Summary
    rolling: Summary
    model: str
    embedder: str = ""
    vectors: bytes | None = None


def sizes(settings: Settings, window: int) -> Sizes | None:
    """Return the sizes for a window of so many tokens; None where no summaries are wanted."""
    ask, context = settings.ask, settings.context
    if not {"recent", "summary"} <= set(context.strategies):
        return None
    fit = Budgets(
        window,
        system=ask.system_tokens,
        memory=context.memory_tokens if "memory" in context.strategies else 0,
        recalled=ask.recalled_tokens,
        question=ask.question_tokens,
        history=ask.history_tokens,
        summary=context.summary_tokens,
        answer=settings.engine.max_tokens,
    ).fitted()
    room = summary_room(fit.rolling, estimate_tokens)
    turns = fit.history - fit.rolling
    return Sizes(max(1, turns // 4), turns // 2, room) if room > 0 else None


def due(conn: apsw.Connection, conversation_id: int, found: Sizes | None) -> bool:
    """Tell, at the cost of one look, whether a block of this conversation may wait for a summary.

    ``found`` are the ``sizes`` of the primary model's window. The job finds out exactly.
    """
    if found is None:
        return False
    upto = value(
        conn,
        "SELECT coalesce(max(upto_seq), -1) FROM summaries WHERE conversation_id = ?",
        (conversation_id,),
    )
    letters, many = rows(
        conn,
        "SELECT coalesce(sum(length(plain(text))), 0), count(*) FROM messages"
        " WHERE conversation_id = ? AND seq > ? AND retired_ms IS NULL",
        (conversation_id, upto),
    )[0]
    return bool(letters * 10 // 36 + many * PER_MESSAGE >= found.block + found.after)


def blocks(turns: Sequence[Turn], found: Sizes, from_seq: int, anchor_seq: int) -> list[Block]:
    """Return the blocks of these turns that have left the window, or will next.

    ``turns`` are those after ``from_seq``, which ends a block or is -1. Each block ends with the
    exchange that fills it.
    """
    every = exchanges(turns)
    cost = [sum(estimate_tokens(turn.text) + PER_MESSAGE for turn in each) for each in every]
    left = sum(cost)
    made: list[Block] = []
    taken: list[Turn] = []
    size = 0
    for exchange, tokens in zip(every, cost, strict=True):
        taken += exchange
        size += tokens
        left -= tokens
        if left < found.after and exchange[-1].seq > anchor_seq:
            break
        if size >= found.block:
            made.append(Block(from_seq, tuple(taken)))
            from_seq, taken, size = taken[-1].seq, [], 0
    return made


# --- made ahead ---------------------------------------------------------------------------------


def ahead(home: Home, conversation: str) -> int:
    """Summarise the blocks of a conversation that will leave the window next, or have left it.

    Returns how many. Raises ModelError where a model words them and cannot now: the job tries
    again, and what leaves meanwhile is summarised as it was said.
    """
    return sum(1 for _ in _catching_up(home, conversation))


def _catching_up(home: Home, conversation: str, anchor_seq: int | None = None) -> Iterator[Made]:
    """Make what is due and store each, in an own transaction; what is done stays done."""
    found = sizes(home.settings, _window(home))
    with home.db.read() as conn:
        number = archive.find_conversation(conn, SOURCE, conversation)
        if found is None or number is None:
            return
        upto, before = _last(conn, number)
        anchor = _anchor(conn, number) if anchor_seq is None else anchor_seq
        due_now = blocks(_turns(conn, number, upto), found, upto, anchor)
    for made in _derive(home, due_now, before, found):
        if not home.db.write(lambda conn, made=made: _put(conn, number, conversation, made)):  # type: ignore[misc]
            return  # somebody else did it, or some of it is gone: the next job begins from there
        yield made
    _embed_again(home, number)


def _window(home: Home) -> int:
    return home.models.state(home.models.primary).context_tokens


def _last(conn: apsw.Connection, number: int) -> tuple[int, Summary]:
    """Return how far the summaries of a conversation reach, and the rolling one up to there."""
    found = rows(
        conn,
        "SELECT upto_seq, rolling, because FROM summaries WHERE conversation_id = ?"
        " ORDER BY upto_seq DESC LIMIT 1",
        (number,),
    )
    if not found:
        return -1, Summary()
    return int(found[0][0]), sessions.kept_summary(conn, found[0][1], found[0][2])


def _anchor(conn: apsw.Connection, number: int) -> int:
    found = value(conn, "SELECT max(anchor_seq) FROM sessions WHERE conversation_id = ?", (number,))
    return -1 if found is None else int(found)


def _turns(conn: apsw.Connection, number: int, after_seq: int) -> list[Turn]:
    said = archive.last_messages(conn, number, EVERY, after_seq)
    return sessions.classed(conn, [each for each in said if each.text.strip()])


def _derive(home: Home, due_now: Sequence[Block], before: Summary, found: Sizes) -> Iterator[Made]:
    """Yield the summary of each block and the rolling one, one after the other."""
    writer = _writer(home)
    for block in due_now:
        summary, model = None, EXTRACTIVE
        if writer:
            with home.db.read() as conn:
                days = _days(conn, block)
            summary, model = _worded(home, writer, block, days)
        if summary is None:
            summary = summarise(_spoken(block), found.block // SHARE, estimate_tokens)
            model = EXTRACTIVE
        both = Summary(
            "\n".join(filter(None, (before.text, summary.text))), before.because + summary.because
        )
        before = summarise((), found.rolling, estimate_tokens, both)
        yield Made(block, summary, before, model, *_embedded(home, block))


def _embedded(home: Home, block: Block) -> tuple[str, bytes | None]:
    """Return whose vectors of the block's turns, and these; none where no embedder is here.

    The turns may not leave this machine for that.
    """
    if home.embeds_away():
        return "", None
    try:
        space, embedder = home.serving()
        if space is None or embedder is None:
            return "", None
        turns = _spoken(block)
        texts = [memory.passage(turn.role, "", turn.text) for turn in turns]
        made = np.zeros(len(turns), _packed(space.dims))
        made["id"] = [turn.message_id for turn in turns]
        made["vector"] = embedder.embed(texts, "document")
        return space.fingerprint, made.tobytes()
    except ModelError:  # words alone must do
        return "", None


def _embed_again(home: Home, number: int, most: int = 64) -> None:
    """Embed the turns of blocks that have another embedder's vectors, or none; the newest first."""
    space, _ = home.serving()
    if space is None:
        return
    with home.db.read() as conn:
        old = rows(
            conn,
            "SELECT id, from_seq, upto_seq FROM summaries WHERE conversation_id = ?"
            " AND embedder <> ? ORDER BY upto_seq DESC LIMIT ?",
            (number, space.fingerprint, most),
        )
        since = min((row[1] for row in old), default=0)
        said = _turns(conn, number, since) if old else []
    for row, after, upto in old:
        turns = tuple(turn for turn in said if after < turn.seq <= upto)
        given = (*_embedded(home, Block(after, turns)), row)
        home.db.write(
            lambda conn, given=given: conn.execute(  # type: ignore[misc]
                "UPDATE summaries SET embedder = ?, vectors = ? WHERE id = ?", given
            )
        )


def _spoken(block: Block) -> list[Turn]:
    return [turn for turn in block.turns if turn.role in WHO]


def _put(conn: apsw.Connection, number: int, conversation: str, made: Made) -> bool:
    """Store a block's summary, searchable.

    False where somebody else has done it meanwhile, or where a message of it was forgotten.
    """
    block = made.block
    if not _all_there(conn, block):
        return False
    conn.execute(
        "INSERT OR IGNORE INTO summaries(conversation_id, from_seq, upto_seq, text, rolling,"
        " because, model, made_ms, embedder, vectors) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number, block.from_seq, block.upto, made.summary.text, made.rolling.text,
            json.dumps(made.rolling.because), made.model, now_ms(), made.embedder, made.vectors,
        ),
    )  # fmt: skip
    if not conn.changes():
        return False
    ids = made.summary.messages
    if made.summary.text and ids:
        last = archive.messages(conn, [block.turns[-1].message_id])[block.turns[-1].message_id]
        name = uid(conversation, last.external_id)
        text = made.summary.text
        memory.put_summary_item(conn, name, text, ids, number, block.upto, last.at_ms, SOURCE)
    return True


def _all_there(conn: apsw.Connection, block: Block) -> bool:
    ids = json.dumps([turn.message_id for turn in block.turns])
    there = value(
        conn,
        "SELECT count(*) FROM messages WHERE retired_ms IS NULL"
        " AND id IN (SELECT value FROM json_each(?))",
        (ids,),
    )
    return bool(there == len(block.turns))


def uid(conversation: str, external_id: str) -> str:
    """Return the stable name of a block's summary, by the message that ends the block."""
    name = "\0".join(("summary", SOURCE, conversation, external_id))
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]


def rebuild(home: Home, tell: Tell | None = None) -> dict[str, int]:
    """Make all summaries again from the archive; returns counts: conversations, blocks.

    Each conversation is exchanged in one transaction: stopped in the middle, it has its old ones.
    """
    found = sizes(home.settings, _window(home))
    with home.db.read() as conn:
        named = rows(conn, "SELECT id, external_id FROM conversations WHERE source = ?", (SOURCE,))
    counts = {"conversations": 0, "blocks": 0}
    for done, (number, conversation) in enumerate(named):
        made: list[Made] = []
        if found is not None:
            with home.db.read() as conn:
                anchor = _anchor(conn, number)
                due_now = blocks(_turns(conn, number, -1), found, -1, anchor)
            made = list(_derive(home, due_now, Summary(), found))
        home.db.write(lambda conn, n=number, c=conversation, m=made: _exchange(conn, n, c, m))  # type: ignore[misc]
        counts["conversations"] += bool(made)
        counts["blocks"] += len(made)
        if tell is not None:
            tell(done + 1, len(named), "summaries")
    return counts


def _exchange(conn: apsw.Connection, number: int, conversation: str, made: Sequence[Made]) -> None:
    """Put new summaries in the place of the old; items that stay keep their vectors."""
    if not all(_all_there(conn, each.block) for each in made):
        return  # something was forgotten meanwhile, and what rests on it with it
    conn.execute("DELETE FROM summaries WHERE conversation_id = ?", (number,))
    for each in made:
        _put(conn, number, conversation, each)
    _drop_items(conn, number)


def _drop_items(conn: apsw.Connection, number: int) -> None:
    """Drop the items of summaries that are no more."""
    gone = rows(
        conn,
        "SELECT id FROM items i WHERE kind = 'summary' AND conversation_id = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM summaries s WHERE s.conversation_id = ?1 AND s.upto_seq = i.seq)",
        (number,),
    )
    memory.drop_summary_items(conn, [row[0] for row in gone])


# --- now ----------------------------------------------------------------------------------------

KEPT = 2
"""Exchanges that stay as they are when a person has a conversation compressed."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """What compressing did: turns that stand in the window, and tokens with the summary."""

    conversation: str
    turns_before: int
    turns_after: int
    tokens_before: int
    tokens_after: int
    blocks: int
    summary: str


def compress_now(home: Home, conversation: str = "") -> Compressed:
    """Let all turns but the last few leave the window now; "" is the conversation used last.

    Raises NotFoundError, ModelError.
    """
    found = sizes(home.settings, _window(home))
    with home.db.read() as conn:
        listed = [] if conversation else sessions.listed(conn, 1)
        conversation = conversation or (str(listed[0]["id"]) if listed else "")
        session = sessions.load(conn, conversation, EVERY)
    if not session.id:
        told = f"There is no conversation {conversation!r}." if conversation else "Nothing is said."
        raise NotFoundError(told, "Those that there are: knowme chat, then /list")
    every = exchanges(session.turns)
    before = _weight(session.earlier, session.turns)
    many = len(session.turns)
    fallen = [turn for each in every[:-KEPT] for turn in each]
    if found is None or not fallen:
        return Compressed(conversation, many, many, before, before, 0, session.summary)
    anchor = fallen[-1].seq
    made = sum(1 for _ in _catching_up(home, conversation, anchor))
    with home.db.read() as conn:
        session = sessions.load(conn, conversation, EVERY)
    summary = rolled(session.earlier, fallen, session.ready, found.rolling, estimate_tokens)
    left = [turn for turn in session.turns if turn.seq > anchor]
    home.db.write(
        lambda conn: sessions.moved(
            conn, session.id, anchor_seq=anchor, summary=summary, at_ms=now_ms()
        )
    )
    return Compressed(
        conversation, many, len(left), before, _weight(summary, left), made, summary.text
    )


def _weight(summary: Summary, turns: Sequence[Turn]) -> int:
    return estimate_tokens(summary.text) + sum(
        estimate_tokens(turn.text) + PER_MESSAGE for turn in turns
    )


# --- a model words it ---------------------------------------------------------------------------


def _writer(home: Home) -> str:
    """Return the role of the model of this machine that words summaries; "" where none does."""
    how = home.settings.context.summaries
    if how == EXTRACTIVE:
        return ""
    near = [
        state for state in home.models.states()
        if state.local and state.engine != "echo" and (how == "model" or state.parameters >= LARGE)
    ]  # fmt: skip
    near.sort(key=lambda state: (state.role != home.models.primary, -state.parameters))
    return near[0].role if near else ""


def _days(conn: apsw.Connection, block: Block) -> dict[int, date | None]:
    """Return the day on which each message of a block was said."""
    said = archive.messages(conn, [turn.message_id for turn in block.turns])
    return {
        number: None
        if each.at_ms is None
        else datetime.fromtimestamp(each.at_ms / 1000, UTC).date()
        for number, each in said.items()
    }


def _worded(
    home: Home, role: str, block: Block, days: Mapping[int, date | None]
) -> tuple[Summary | None, str]:
    """Let a model word a block; None where nothing of it can be borne out by the turns."""
    turns = _spoken(block)
    told = "\n".join(
        f"[{n}] {WHO[turn.role]}: {_cut(turn.text)}" for n, turn in enumerate(turns, 1)
    )
    messages = (ChatMessage("system", _prompt()), ChatMessage("user", told))
    schema = {
        "type": "object", "required": ["lines"], "additionalProperties": False,
        "properties": {"lines": {"type": "array", "maxItems": MOST_LINES, "items": {
            "type": "object", "required": ["turns", "text"], "additionalProperties": False,
            "properties": {
                "turns": {"type": "array", "minItems": 1, "maxItems": 3,
                          "items": {"type": "integer", "minimum": 1, "maximum": len(turns)}},
                "text": {"type": "string", "maxLength": 240},
            },
        }}},
    }  # fmt: skip
    options = Options(max_tokens=ANSWER_TOKENS, temperature=0.0, seed=0, json_schema=schema)
    said, model = asyncio.run(_said(home, role, messages, options))
    kept = borne_out(said, turns, days, (home.settings.name,))
    return (kept if kept.text else None), model


def _cut(text: str) -> str:
    return shorten(" ".join(text.split()), LONGEST_TURN, estimate_tokens)


async def _said(
    home: Home, role: str, messages: Sequence[ChatMessage], options: Options
) -> tuple[str, str]:
    said = ""
    async with home.models.use(role) as engine:
        if not engine.local:  # what is known before it is built may be wrong
            return "", ""
        async with aclosing(engine.stream(messages, options)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                said += chunk.text
        return said, engine.model


def borne_out(
    said: str, turns: Sequence[Turn], days: Mapping[int, date | None], allowed: Sequence[str] = ()
) -> Summary:
    """Return what a model said of these turns, as far as they bear it out.

    A line stays when the turns that it names have its names, numbers and dates, and at least half
    of its words; ``allowed`` names may stand in it anyway. What is no JSON of the right form is
    nothing.
    """
    lines: list[str] = []
    because: list[tuple[int, ...]] = []
    for numbers, text in _lines_of(said, len(turns)):
        mine = [turns[n - 1] for n in numbers]
        quote = "\n".join(turn.text for turn in mine)
        own = stems(text) - _OF_TURNS
        covered = len(own & {stem(word) for word in words(quote)}) >= COVERED * len(own)
        day = days.get(mine[0].message_id)
        if not own or not covered or uncovered(text, quote, day, (*allowed, *WHO.values())):
            continue
        line = f"- {WHO[mine[0].role]}: {shorten(text, LONGEST_LINE, estimate_tokens)}"
        if line not in lines:
            lines.append(line)
            because.append(tuple(turn.message_id for turn in mine))
    return Summary("\n".join(lines), tuple(because))


_OF_TURNS = frozenset(stem(word) for each in WHO.values() for word in words(each))


def _lines_of(said: str, many: int) -> list[tuple[list[int], str]]:
    """Read (numbers of turns, text) from a model's JSON; what is not of that form is left out."""
    try:
        told: Any = json.loads(said)["lines"]
        return [
            (numbers, text)
            for line in told
            if (text := " ".join(str(line["text"]).split()).strip("-*• "))
            and (numbers := list(dict.fromkeys(int(n) for n in line["turns"])))
            and all(1 <= n <= many for n in numbers)
        ]
    except (ValueError, LookupError, TypeError):
        return []


@lru_cache(maxsize=1)
def _prompt() -> str:
    return (files("knowme") / "prompts" / "summary.md").read_text("utf-8").strip()


# --- what they rest on ---------------------------------------------------------------------------


def vectors_of(
    conn: apsw.Connection, number: int, space: memory.Space
) -> tuple[NDArray[np.int64], Vectors]:
    """Return (ids (n,), vectors (n, dims)) of the turns of a conversation that were embedded."""
    found = rows(
        conn,
        "SELECT vectors FROM summaries WHERE conversation_id = ? AND embedder = ?"
        " AND vectors IS NOT NULL ORDER BY upto_seq",
        (number, space.fingerprint),
    )
    kept = np.frombuffer(b"".join(row[0] for row in found), _packed(space.dims))
    return kept["id"].astype(np.int64), kept["vector"].astype(np.float32)


def _packed(dims: int) -> np.dtype[Any]:
    return np.dtype([("id", "<i8"), ("vector", "<f2", (dims,))])


def resting(conn: apsw.Connection, hits: Sequence[Hit]) -> list[Hit]:
    """Say of the summaries among the hits which classes of memory their answers rest on."""
    made: list[Hit] = []
    for hit in hits:
        if hit.kind == "summary":
            said = archive.messages(conn, hit.message_ids).values()
            answers = sorted((m for m in said if m.role == "assistant"), key=lambda m: m.seq)
            sources = {s for turn in sessions.classed(conn, answers) for s in sources_of(turn)}
            hit = replace(hit, metadata={**hit.metadata, "rests_on": sorted(sources)})
        made.append(hit)
    return made
