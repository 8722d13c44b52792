"""Exchanges: what was asked and what was answered, as it stands in the archive.

``assistant-for-me``: an assistant's answer, with the turns before it. ``sound-like-me``: the
person's own message, with what was said to them before it.

Promises: the archive's order, conversation by conversation; memory does not grow with it, and no
transaction is open between two pairs. An answer is trained only where somebody gave it: nothing
that a program wrote, a sub-agent was told, the echo engine or knowme itself said, that was pasted,
that only greets. Each pair names every message that its words rest on, also those that an answer
of ours repeats from memory.
Refuses to know: which pairs are good (``quality``), what may be trained (``scrub``), which side a
pair is on (``split``).
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from knowme import fingerprints, spans
from knowme.claims.languages import language_of
from knowme.db import rows
from knowme.errors import InputError
from knowme.extract import voice
from knowme.learn import pairs
from knowme.questions import is_greeting, is_small_talk, tells_preference
from knowme.types import ME, PURPOSES, ChatMessage, Pair
from knowme.words import content_words, stems, words

if TYPE_CHECKING:
    from knowme.home import Home

GAP_MS = 12 * 3_600_000
"""After so long a silence a message opens something new, and answers nothing before it."""
SOON_MS = 3_600_000
"""Later than this, a message answers only what asked something, or speaks of the same."""
PROMPT_CHARS = 6_000
"""What stands before an answer, at most; the oldest turns go first. The last one stays whole."""
LONGEST = 24_000
"""Characters of a message; a longer one is neither a question nor an answer to learn from."""
ASSISTANT = "assistant"
OURS = "knowme"
APART = ("collect", "pairs")
"""Conversations of ours that hold examples (``collect``): they are read as such, not here."""
_PAGE = 500


def read(
    home: Home,
    *,
    purpose: str,
    system_prompt: str = "",
    since_ms: int | None = None,
    filter_preferences: bool = False,
    min_answer_chars: int = 20,
    max_turns: int = 6,
) -> Iterator[Pair]:
    """Yield every exchange for a purpose, in the archive's order. Raises InputError, StoreError.

    ``since_ms``: only what was answered since. ``filter_preferences``: only where the person says
    how they want something, or corrects. ``max_turns``: messages before the answer, at least 1. A
    rating is 1 to 5 (a thumb is 5 or 1); what the person asked anew is ``rejected`` of what
    replaced it, and so is what they rated two or more below another answer to the same question.
    """
    if purpose not in PURPOSES:
        raise InputError(f"There is no purpose {purpose!r}.", f"Use {' or '.join(PURPOSES)}.")
    mine = purpose == "sound-like-me"
    system = (ChatMessage("system", system_prompt),) if system_prompt.strip() else ()
    seen: Ratings = Ratings() if mine else ratings(home)
    for turn, before in turns(home, max_turns=max(1, max_turns), own=mine):
        if since_ms is not None and (turn.at_ms or turn.recorded_ms) < since_ms:
            continue
        if not _answers(turn, before, mine) or len(turn.text) < min_answer_chars:
            continue
        asks = turn.text if mine else before[-1].text
        if filter_preferences and not states_preference(asks):
            continue
        told = _prompt(before, mine)
        if told:
            yield from _pairs(purpose, (*system, *told.messages), told.ids, turn, seen)


def states_preference(text: str) -> bool:
    """Tell whether a message says how the person wants something, or corrects what was said."""
    return (
        tells_preference(text)
        or _DIRECTS.search(text[:1_000]) is not None
        or _CORRECTS.match(text) is not None
    )


_DIRECTS = re.compile(
    r"\b(?:always|never) (?:answer|use|write|say|open|begin|start|end|give|call|reply|put|ask)\b"
    r"|\b(?:answer|reply|respond|write|speak)(?: to)?(?: me)? (?:always |only )?in \w+"
    r"|(?:^|[.!;,] )(?:please )?(?:no|stop|don'?t|do not|avoid|never|always|prefer|keep it|make it"
    r"|less|shorter|longer|simpler|fewer|rather|skip) \w+"
    r"|\b(?:short|brief|long|plain|terse) answers\b|\bfrom (?:now|today) on\b|\b(?:ground )?rules?:"
    r"|\bi(?:'d| would) (?:rather|prefer|like)\b|\b(?:rule|regra|regla|regel)s? (?:changed|mudou)\b"
    r"|\b(?:responde|escreve|fala|escribe|habla|antworte|schreib)\w*(?:-me)? (?:sempre |siempre "
    r"|immer )?(?:em|na|en|auf|in)\b|\b(?:nunca|sempre|siempre|niemals|immer) \w+"
    r"|\b(?:mudei|cambié|cambie) de (?:ideias?|opinião|idea)\b|\bprefer\w+ que\b"
    r"|\b(?:a partir de|de) (?:agora|hoje|hoy|ahora)\b|\bab (?:jetzt|heute)\b"
    r"|\b(?:kein|keine|bitte nicht|lieber)\b",
    re.IGNORECASE,
)
_CORRECTS = re.compile(
    r"\W*(?:no[,. ]|nope\b|wrong\b|not (?:quite|that|what|so|like)\b|actually\b|correction\b"
    r"|i (?:meant|said|asked|mean)\b|that(?:'s| is) (?:wrong|not|false|too)\b"
    r"|too (?:long|short|much)\b|again,? but\b|não[,. ]|nao[,. ]|errado\b|afinal\b|quis dizer\b"
    r"|eu disse\b|não era\b|quise decir\b|incorrecto\b|no era\b|nein\b|falsch\b|nicht so\b"
    r"|ich meinte\b|doch nicht\b)",
    re.IGNORECASE,
)


# --- turns --------------------------------------------------------------------------------------


class Turn(NamedTuple):
    """What one side said until the other did: one message or several of them.

    ``who``: ME, ASSISTANT, or another speaker's name ("somebody" where it is not known). ``own``:
    of the person, whether these are their own words. ``made``: of an assistant, whether a model
    gave the answer. ``rests``: messages that it repeats from memory. ``shown``: meta of the source
    that matters (tools). ``opens``: nothing was said before it, or long before.
    """

    place: str
    who: str
    text: str
    ids: tuple[int, ...]
    at_ms: int | None
    recorded_ms: int
    own: bool = True
    made: bool = True
    rests: tuple[int, ...] = ()
    tools: bool = False
    opens: bool = False


def turns(
    home: Home, *, max_turns: int = 6, own: bool = False
) -> Iterator[tuple[Turn, tuple[Turn, ...]]]:
    """Yield each turn of every chat with at most ``max_turns`` turns that it follows on.

    ``own``: look whose words the person's messages are (slower): what is quoted or pasted in whole
    lines is taken out of their text, and a message that is mostly so is not their own.
    """
    window: deque[Turn] = deque(maxlen=max_turns)
    place = ""
    for turn in _merged(_messages(home, own)):
        if turn.place != place:
            window.clear()
        place = turn.place
        if window and (_apart(window[-1], turn) or _new_topic(window[-1], turn)):
            window.clear()
        turn = turn._replace(opens=not window)
        yield turn, tuple(window)
        window.append(turn)


def _apart(before: Turn, after: Turn) -> bool:
    if before.at_ms is None or after.at_ms is None:
        return False
    return after.at_ms - before.at_ms > GAP_MS


def _new_topic(before: Turn, after: Turn) -> bool:
    """Tell whether a message that comes a while later has nothing to do with what was said."""
    if after.who != ME or before.who == ME or before.at_ms is None or after.at_ms is None:
        return False
    if after.at_ms - before.at_ms <= SOON_MS or "?" in before.text[-200:]:
        return False
    return stems(before.text).isdisjoint(stems(after.text))


def _merged(said: Iterable[Turn]) -> Iterator[Turn]:
    held: Turn | None = None
    for turn in said:
        if held is None:
            held = turn
            continue
        same = held.place == turn.place and held.who == turn.who and not _apart(held, turn)
        if same and len(held.text) + len(turn.text) <= LONGEST:
            held = _joined(held, turn)
        else:
            yield held
            held = turn
    if held is not None:
        yield held


def _joined(first: Turn, then: Turn) -> Turn:
    """Return two messages as one turn; in a turn of the person only their own words stay."""
    if first.who == ME and first.own != then.own:
        kept = first if first.own else then
        return kept._replace(at_ms=then.at_ms or first.at_ms)
    mark = "\n\n" if first.who == ASSISTANT else "\n"
    return Turn(
        first.place,
        first.who,
        f"{first.text}{mark}{then.text}",
        (*first.ids, *then.ids),
        then.at_ms or first.at_ms,
        then.recorded_ms,
        first.own and then.own,
        first.made and then.made,
        (*first.rests, *then.rests),
        first.tools or then.tools,
    )


_SQL = (
    "SELECT m.conversation_id, m.seq, m.id, m.role, m.speaker,"
    f" substr(plain(m.text), 1, {LONGEST + 1}), m.at_ms, m.recorded_ms, m.meta, m.recall,"
    " c.source, c.external_id"
    " FROM messages m CROSS JOIN conversations c ON c.id = m.conversation_id"
    " WHERE (m.conversation_id, m.seq, m.id) > (?, ?, ?) AND m.retired_ms IS NULL"
    " AND m.role IN ('user', 'assistant', 'system') AND c.kind = 'chat'"
    f" AND NOT (c.source = '{OURS}' AND c.external_id IN {APART})"
    " ORDER BY m.conversation_id, m.seq, m.id LIMIT ?"
)


def _messages(home: Home, own: bool) -> Iterator[Turn]:
    """Yield every message that somebody said, page by page: no reader is held between two."""
    after = (-1, -(2**62), 0)
    orphan = ""
    while True:
        with home.db.read() as conn:
            page = rows(conn, _SQL, (*after, _PAGE))
            if not page:
                return
            said = [_said(home, row) for row in page]
            ours = {one.ids[0]: one for one in said if one and _is_our_answer(one)}
            receipts = _receipts(conn, ours) if ours else {}
            foreign = _foreign(conn, said) if own else {}
        after = page[-1][:3]
        for row, turn in zip(page, said, strict=True):
            place = f"{row[10]}/{row[11]}"
            if turn is None:
                # What answers it must not be taken for an answer to what was said before.
                orphan = place if row[3] != ASSISTANT else orphan
                continue
            if turn.who == ASSISTANT and orphan == place:
                continue
            orphan = ""
            number = turn.ids[0]
            if number in receipts:
                turn = turn._replace(**receipts[number])
            if own and turn.who == ME:
                kept = own_words(turn.text, foreign.get(number, ()))
                turn = turn._replace(text=kept or turn.text, own=bool(kept))
            yield turn


def _said(home: Home, row: Sequence[Any]) -> Turn | None:
    """Return a message as a turn; None where nobody said it, or it is out of recall."""
    _, _, number, role, speaker, text, at_ms, recorded_ms, told, recall, source, name = row
    meta: dict[str, Any] = json.loads(told)
    if role == "system" or not text.strip() or meta.get("automated") or meta.get("subagent"):
        return None
    if not recall and source != OURS:
        return None
    who = _who(home, source, name, role, speaker, meta)
    if not who or meta.get("pair") or len(text) > LONGEST:
        return None
    # A question of ours may begin with "/cloud": the model was told it without.
    said = str(meta.get("said") or text) if source == OURS and role == "user" else text
    made = role != ASSISTANT or meta.get("model") != "echo"
    return Turn(
        f"{source}/{name}", who, said.strip(), (number,), at_ms, recorded_ms,
        made=made, tools=bool(meta.get("tools")),
    )  # fmt: skip


def _who(
    home: Home, source: str, name: str, role: str, speaker: str, meta: Mapping[str, Any]
) -> str:
    if role == ASSISTANT:
        return ASSISTANT
    if meta.get("forwarded_from") or meta.get("other"):
        given = " ".join((speaker if meta.get("other") else "").split())[:80]
        return given or "somebody"
    return voice(home.settings, source, name, role, speaker, meta)


# --- answers of ours ----------------------------------------------------------------------------


def _is_our_answer(turn: Turn) -> bool:
    return turn.who == ASSISTANT and turn.place.startswith(f"{OURS}/")


def _receipts(conn: apsw.Connection, answers: Mapping[int, Turn]) -> dict[int, dict[str, Any]]:
    """Return what receipts say of answers: whether a model made them, what they repeat."""
    found = rows(
        conn,
        "SELECT answer_id, json_extract(receipt, '$.calls'), json_extract(receipt, '$.quotes'),"
        " json_extract(receipt, '$.used'), plain(q.text) FROM answers a"
        " JOIN messages q ON q.id = a.question_id"
        " WHERE answer_id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(answers)),),
    )
    uids: dict[int, list[str]] = {}
    made: dict[int, dict[str, Any]] = {}
    for number, calls, quotes, used, question in found:
        # Without a call it is a sentence of the house; with quotations the notes are the answer.
        by_model = answers[number].made and calls != "[]" and quotes in (None, "", "[]", 0)
        repeated = _repeated(answers[number].text, question, json.loads(used or "[]"))
        uids[number] = repeated
        made[number] = {"made": by_model}
    rests = _messages_of(conn, {uid for each in uids.values() for uid in each})
    for number, told in made.items():
        told["rests"] = tuple(sorted({m for uid in uids[number] for m in rests.get(uid, ())}))
    return made


def _repeated(answer: str, question: str, used: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the items that an answer shares words with which the question does not hold."""
    said = set(content_words(answer)) - set(content_words(question))
    found = []
    for hit in used:
        shared = said.intersection(content_words(str(hit.get("text") or "")))
        if len(shared) > 1:
            found.append(str(hit.get("uid") or ""))
    return found


def _messages_of(conn: apsw.Connection, uids: Iterable[str]) -> dict[str, list[int]]:
    made: dict[str, list[int]] = {}
    for uid, number in rows(
        conn,
        "SELECT i.uid, coalesce(b.message_id, i.message_id) FROM items i"
        " LEFT JOIN because b ON b.item_id = i.id"
        " WHERE i.uid IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(uids)),),
    ):
        if number is not None:
            made.setdefault(uid, []).append(number)
    return made


class Ratings(NamedTuple):
    """What the person thought of answers, by the message's number.

    ``stars``: 1 to 5. ``instead``: the answer that it replaced, or was found better than, with the
    messages that this rests on. ``better``: the stronger model's answer, where it was preferred.
    ``worst``: the worst rated answer to a question (its words): stars, answer, messages.
    """

    stars: Mapping[int, int] = {}
    instead: Mapping[int, tuple[str, tuple[int, ...]]] = {}
    better: Mapping[int, str] = {}
    worst: Mapping[str, tuple[int, str, tuple[int, ...]]] = {}


class _Answer(NamedTuple):
    id: int
    conversation: int
    question_id: int
    answer_id: int
    question: str
    answer: str
    current: bool
    shadow: str
    outcomes: tuple[tuple[str, str], ...]


def ratings(home: Home) -> Ratings:
    """Return what the person said of the answers that knowme gave them. Raises StoreError."""
    with home.db.read() as conn:
        every = _rated(conn)
    stars: dict[int, int] = {}
    instead: dict[int, tuple[str, tuple[int, ...]]] = {}
    better: dict[int, str] = {}
    worst: dict[str, tuple[int, str, tuple[int, ...]]] = {}
    waiting: dict[tuple[int, str], tuple[str, tuple[int, ...]]] = {}
    for one in every:
        given = [_stars(kind, value) for kind, value in one.outcomes]
        star = next((each for each in reversed(given) if each), None)
        place, both = (one.conversation, _key(one.question)), (one.question_id, one.answer_id)
        again = any(kind in ("regenerate", "retry_cloud") for kind, _ in one.outcomes)
        if not one.current:
            if again and one.answer:
                waiting[place] = (one.answer, both)
        elif place in waiting:
            instead[one.answer_id] = waiting.pop(place)
        if star:
            stars[one.answer_id] = star
            if star <= 2 and star < worst.get(place[1], (6,))[0]:
                worst[place[1]] = (star, one.answer, both)
        preferred = next((v for kind, v in reversed(one.outcomes) if kind == "better"), "")
        if one.shadow and preferred == "cloud":
            better[one.answer_id] = one.shadow
        elif one.shadow and preferred == "local":
            instead.setdefault(one.answer_id, (one.shadow, both))
    return Ratings(stars, instead, better, worst)


def _rated(conn: apsw.Connection) -> list[_Answer]:
    """Return the answers that something was said of and, where asked anew, those after them."""
    found = rows(
        conn,
        "WITH told AS (SELECT DISTINCT h.answer_id AS id FROM outcomes o JOIN choices h"
        " ON h.id = o.choice_id WHERE h.answer_id IS NOT NULL),"
        " again AS (SELECT DISTINCT a.conversation_id AS id FROM outcomes o JOIN choices h"
        " ON h.id = o.choice_id JOIN answers a ON a.id = h.answer_id"
        " WHERE o.kind IN ('regenerate', 'retry_cloud'))"
        " SELECT a.id, a.conversation_id, a.question_id, a.answer_id, plain(q.text), q.meta,"
        " plain(m.text), m.retired_ms IS NULL, json_extract(a.receipt, '$.shadow.answer')"
        " FROM answers a JOIN messages q ON q.id = a.question_id"
        " JOIN messages m ON m.id = a.answer_id"
        " WHERE a.id IN (SELECT id FROM told) OR a.conversation_id IN (SELECT id FROM again)"
        " ORDER BY a.id",
    )
    said: dict[int, list[tuple[str, str]]] = {}
    for number, kind, value in rows(
        conn,
        "SELECT h.answer_id, o.kind, o.value FROM outcomes o JOIN choices h ON h.id = o.choice_id"
        " WHERE h.answer_id IS NOT NULL ORDER BY o.at_ms, o.id",
    ):
        said.setdefault(number, []).append((kind, value))
    return [
        _Answer(
            row[0], row[1], row[2], row[3],
            str(json.loads(row[5]).get("said") or row[4]), row[6], bool(row[7]), row[8] or "",
            tuple(said.get(row[0], ())),
        )
        for row in found
    ]  # fmt: skip


def _stars(kind: str, value: str) -> int:
    if kind == "rating":
        return int(value) if value in ("1", "2", "3", "4", "5") else 0
    return {"up": 5, "down": 1}.get(kind, 0)


def _key(question: str) -> str:
    return " ".join(words(question))


# --- pairs --------------------------------------------------------------------------------------


class _Told(NamedTuple):
    messages: tuple[ChatMessage, ...]
    ids: tuple[int, ...]


def _answers(turn: Turn, before: Sequence[Turn], mine: bool) -> bool:
    """Tell whether a turn is an answer of the kind that is looked for."""
    if not before or len(turn.text) > LONGEST or len(before[-1].text) > LONGEST:
        return False
    if not mine:
        return turn.who == ASSISTANT and turn.made and before[-1].who == ME
    return (
        turn.who == ME
        and turn.own
        and before[-1].who != ME
        and before[-1].made
        and says_something(turn.text)
    )


def says_something(text: str) -> bool:
    """Tell whether a message of the person's is more than a greeting, thanks, or a command."""
    return not (_COMMAND.match(text) or is_greeting(text) or is_small_talk(text))


_COMMAND = re.compile(r"\s*(?:[/!][A-Za-z]\w*(?:\s|$)|@\w+\s*$)")


def _prompt(before: Sequence[Turn], mine: bool) -> _Told | None:
    """Return what stands before an answer: the sides in turn, whoever asks first.

    Where others speak beside the assistant, their words stand under their names.
    """
    kept: list[Turn] = []
    room = PROMPT_CHARS
    for turn in reversed(before):
        room -= len(turn.text)
        if kept and room < 0:
            break
        kept.append(turn)
    kept.reverse()
    answers = ME if mine else ASSISTANT
    while kept and kept[0].who == answers:
        kept.pop(0)
    made: list[ChatMessage] = []
    for turn in kept:
        named = turn.who not in (ME, ASSISTANT, "somebody")
        text = f"{turn.who}: {turn.text}" if named else turn.text
        role: Any = "assistant" if turn.who == answers else "user"
        if made and made[-1].role == role:
            made[-1] = ChatMessage(role, f"{made[-1].content}\n{text}")
        else:
            made.append(ChatMessage(role, text))
    if not made:
        return None
    ids = {number for turn in kept for number in (*turn.ids, *turn.rests)}
    return _Told(tuple(made), tuple(sorted(ids)))


def _pairs(
    purpose: str,
    told: Sequence[ChatMessage],
    ids: Iterable[int],
    turn: Turn,
    seen: Ratings,
) -> Iterator[Pair]:
    number = turn.ids[-1]
    because = {*ids, *turn.ids, *turn.rests}
    answer, rating = turn.text, seen.stars.get(number)
    rejected, rests = seen.instead.get(number, ("", ()))
    if number in seen.better:
        answer, rejected, rests = seen.better[number], turn.text, ()
    low = seen.worst.get(_key(told[-1].content)) if seen.worst and not rejected else None
    if low and rating is not None and rating - low[0] >= 2:
        rejected, rests = low[1], low[2]
    yield pairs.made(
        purpose,
        "exchange",
        (*told, ChatMessage("assistant", answer)),
        (*because, *rests),
        turn.place,
        at_ms=turn.at_ms,
        language=language_of(answer, 0, len(answer)),
        rating=rating,
        rejected="" if rejected == answer else rejected,
        labels=("tools",) if turn.tools else (),
    )


# --- whose words --------------------------------------------------------------------------------

_STILL_OWN = frozenset(
    ("what somebody else said", "a quotation", "a comment in code", "a text under a head",
     "a part that is played", "somebody who writes in another's place",
     "words that were found, not said")
)  # fmt: skip
"""What no fact is learned from, and is written in the person's own words all the same."""
_PASTED = frozenset(
    ("a text that is shown, not said", "a text in another language, which is asked about")
)
PASTED_WORDS = 60
"""A text that is shown counts as pasted from so many words on, or on lines of its own."""
SHARE = 0.3
"""More of a message than this in somebody else's words, and it is not the person's own."""
_PLAIN = re.compile(r"(?!(?:INFO|DEBUG|WARN\w*|ERROR|FATAL|Traceback)\b)\w[^\n`<>{}\[\]|;=~]*")
_PLAIN_CHARS = 300
_HAND = re.compile(
    r"[`<{}|]|~~~|https?:|www\.|^[ \t]*>|^-{2,}|^[+-]{3} |^@@ |^[ \t]*\$ "
    r"|\b(?:wrote|escreveu|escribió|schrieb|INFO|DEBUG|WARN\w*|ERROR|FATAL|Traceback|INST)\b"
    r"|^[ \t#*]*[\w .,/:\[\]-]{1,40}:",
    re.MULTILINE,
)
"""Without any of these a note holds nothing that bears the marks of another hand."""


def own_words(text: str, others: Sequence[tuple[int, int, str]] = (), note: bool = False) -> str:
    """Return what of a text the person worded, "" where that is little of it.

    ``others`` are stretches known to be somebody else's (``fingerprints.spans``). What fills whole
    lines is taken out; a phrase within a sentence stays, while it is no large part of the text. In
    a ``note`` nothing is handed over to be worked on: only what bears the marks of another hand
    counts (code, mails, chats, block quotes, pages).
    """
    marks = sorted((start, end) for start, end, _ in (*others, *_marks(text, note)))
    kept, inside, at = [], 0, 0
    for start, end in marks:
        start = max(start, at)
        if start >= end:
            continue
        if _whole_lines(text, start, end):
            kept.append(text[at:start])
            at = end
        else:
            inside += end - start
    kept.append(text[at:])
    left = re.sub(r"\n[ \t]*\n\s*", "\n\n", "".join(kept)).strip()
    taken = len(text.strip()) - len(left)
    return left if inside <= SHARE * len(left) and taken <= len(left) else ""


def _marks(text: str, note: bool) -> Iterator[tuple[int, int, str]]:
    # Most texts can hold no mark of what is looked for, and to look costs a millisecond each.
    if (note or not {*":\n"} & {*text}) and _HAND.search(text) is None:
        return
    if len(text) <= _PLAIN_CHARS and _PLAIN.fullmatch(text):
        return
    for start, end, why in spans.foreign(text):
        if why in _STILL_OWN or (note and why == "a letter"):
            continue
        if why in _PASTED:
            new_line = text[:start].rstrip(" \t").endswith("\n") or text[start : start + 1] == "\n"
            if note or not (new_line or len(text[start:end].split()) >= PASTED_WORDS):
                continue
        yield start, end, why


def _whole_lines(text: str, start: int, end: int) -> bool:
    before, after = text[:start].rstrip(" \t"), text[end:].lstrip(" \t")
    begins = not before or before.endswith("\n") or text[start : start + 1] == "\n"
    return begins and (not after or after.startswith("\n") or text[end - 1 : end] == "\n")


def _foreign(
    conn: apsw.Connection, said: Sequence[Turn | None]
) -> dict[int, list[tuple[int, int, str]]]:
    """Return the stretches of the person's messages that somebody else had said before."""
    mine = {one.ids[0]: one.text for one in said if one is not None and one.who == ME}
    hashes = {number: {each[0] for each in spans.shingles(text)} for number, text in mine.items()}
    known = fingerprints.of(conn, {each for found in hashes.values() for each in found})
    if not known:
        return {}
    return {
        number: fingerprints.spans(conn, mine[number], before_message=number)
        for number, found in hashes.items()
        if not known.isdisjoint(found)
    }


__all__ = [
    "GAP_MS", "LONGEST", "Ratings", "Turn", "own_words", "ratings", "read", "says_something",
    "states_preference", "turns",
]  # fmt: skip
