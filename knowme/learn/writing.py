"""The person's own writing as pairs: journals, notes, and the messages that open a talk.

Promises: an answer is what they wrote, as they wrote it; it begins and ends where sentences do, and
is asked for by the day and by notes of what it is about: its names and rarest words. The sections
that a source cut an entry into are put together again. Memory does not grow with the archive, but
for the counts of its words.
Refuses to know: which pairs are good (``quality``), what may be trained (``scrub``), which side a
pair is on (``split``).
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from knowme import fingerprints, spans
from knowme.claims.languages import language_of
from knowme.db import rows
from knowme.errors import InputError
from knowme.extract import voice
from knowme.learn import pairs
from knowme.learn.exchanges import Turn, own_words, says_something, turns
from knowme.times import day, zone
from knowme.types import ME, PURPOSES, ChatMessage, Pair
from knowme.words import STOP_WORDS, WORD, stem, words

if TYPE_CHECKING:
    from knowme.home import Home

MOST_WORDS = 200
"""A pair of style is at most about so long; what is longer is cut where a sentence ends."""
LEAST_WORDS = 12
ENTRY_CHARS = 20_000
"""What is read of one entry at a time; a longer one goes on as another."""
_PAGE = 200


def is_voice(purpose: str) -> bool:
    """Tell whether the purpose is sound-like-me. Raises InputError."""
    if purpose not in PURPOSES:
        raise InputError(f"There is no purpose {purpose!r}.", f"Use {' or '.join(PURPOSES)}.")
    return purpose == "sound-like-me"


@cache
def wordings() -> Mapping[str, Any]:
    """Return how things are asked for, by language: data/learn-wordings.json."""
    path = Path(__file__).parent.parent / "data" / "learn-wordings.json"
    told: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    return told


def pick(options: Sequence[str], text: str) -> str:
    """Choose by the text itself: the same text is always asked for alike."""
    lot = blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
    return options[int.from_bytes(lot, "big") % len(options)]


# --- style --------------------------------------------------------------------------------------


class Written(NamedTuple):
    """One entry of a journal, a note, or a message. ``parts``: (start, end, message)."""

    kind: str  # journal, note, message
    place: str
    title: str
    text: str
    parts: tuple[tuple[int, int, int], ...]
    at_ms: int | None
    recorded_ms: int

    @classmethod
    def of_turn(cls, turn: Turn) -> Written:
        """Return what a turn of the person's says."""
        parts = tuple((0, len(turn.text), number) for number in turn.ids)
        return cls("message", turn.place, "", turn.text, parts, turn.at_ms, turn.recorded_ms)


def style(
    home: Home,
    *,
    purpose: str,
    system_prompt: str = "",
    since_ms: int | None = None,
    most_words: int = MOST_WORDS,
) -> Iterator[Pair]:
    """Yield the person's own writing, asked for by notes of it; nothing for assistant-for-me.

    An instruction names the day, where it is known, and the names and rare words of the text in
    their order. Long texts are cut into several pairs of at most about ``most_words`` words.
    Raises InputError, StoreError.
    """
    if not is_voice(purpose):
        return
    rare = rarity(home)
    told = wordings()["style"]
    tz = zone(home.settings.memory.timezone)
    for one in written(home):
        if since_ms is not None and (one.at_ms or one.recorded_ms) < since_ms:
            continue
        for number, (start, end) in enumerate(chunks(one.text, most_words)):
            text = one.text[start:end]
            if not _is_prose(text):
                continue
            asked = _instruction(told, one, text, number, rare, day(one.at_ms, tz))
            system = (ChatMessage("system", system_prompt),) if system_prompt.strip() else ()
            yield pairs.made(
                purpose,
                "style",
                (*system, ChatMessage("user", asked), ChatMessage("assistant", text)),
                messages_of(one, start, end),
                one.place,
                at_ms=one.at_ms,
                language=language_of(text, 0, len(text)),
                labels=(one.kind,),
            )


def messages_of(one: Written, start: int, end: int) -> list[int]:
    """Return the messages that a stretch of an entry lies in."""
    return [number for first, last, number in one.parts if first < end and start < last]


def _is_prose(text: str) -> bool:
    said = text.split()
    letters = sum(map(str.isalpha, text))
    return len(said) >= LEAST_WORDS and letters >= 0.6 * len("".join(said))


def written(home: Home) -> Iterator[Written]:
    """Yield the entries of the person's notes, then the messages that open a talk."""
    yield from entries(home)
    for turn, _ in turns(home, max_turns=1, own=True):
        if turn.who == ME and turn.own and turn.opens and says_something(turn.text):
            yield Written.of_turn(turn)


_SQL = (
    "SELECT m.conversation_id, m.seq, m.id, m.external_id, m.speaker,"
    f" substr(plain(m.text), 1, {ENTRY_CHARS}), m.at_ms, m.recorded_ms, m.meta, c.source,"
    " c.external_id"
    " FROM messages m CROSS JOIN conversations c ON c.id = m.conversation_id"
    " WHERE (m.conversation_id, m.seq, m.id) > (?, ?, ?) AND m.retired_ms IS NULL AND m.recall"
    " AND m.role = 'document' ORDER BY m.conversation_id, m.seq, m.id LIMIT ?"
)


def entries(home: Home) -> Iterator[Written]:
    """Yield the person's own notes, put together again from the sections that they were cut into.

    A section that repeats the end of the one before goes on with it (``sources.sections``).
    """
    held: Written | None = None
    for row in _sections(home):
        _, _, number, external, _, text, at_ms, recorded_ms, told, source, name = row
        document = f"{source}/{name}#"
        shared = 0
        if held is not None and held.place.startswith(document) and len(held.text) < ENTRY_CHARS:
            shared = _overlap(held.text, text)
        if held is not None and shared:
            whole = held.text + text[shared:]
            held = held._replace(
                text=whole,
                parts=(*held.parts, (len(held.text) - shared, len(whole), number)),
                at_ms=held.at_ms or at_ms,
            )
            continue
        if held is not None:
            yield from _own_entry(home, held)
        title = str(json.loads(told).get("heading") or "")
        dated = at_ms is not None and re.search(r"\d{4}-\d\d", f"{name} {title}") is not None
        kind = "journal" if dated else "note"
        held = Written(
            kind, f"{document}{external}", title, text, ((0, len(text), number),), at_ms,
            recorded_ms,
        )  # fmt: skip
    if held is not None:
        yield from _own_entry(home, held)


def _sections(home: Home) -> Iterator[tuple[Any, ...]]:
    after: tuple[Any, ...] = (-1, -(2**62), 0)
    while True:
        with home.db.read() as conn:
            page = rows(conn, _SQL, (*after, _PAGE))
        if not page:
            return
        after = page[-1][:3]
        for row in page:
            told = json.loads(row[8])
            if voice(home.settings, row[9], row[10], "document", row[4], told) == ME:
                yield row


def _overlap(before: str, text: str) -> int:
    """Return how many characters of a section repeat the end of the one before it; 0: none."""
    for size in range(min(len(before), len(text), 300), 9, -1):
        if before.endswith(text[:size]):
            return size
    return 0


_HEADINGS = re.compile(r"\A(?: {0,3}#{1,6}[^\n]*\n\s*)+")


def _own_entry(home: Home, one: Written) -> Iterator[Written]:
    """Yield the entry with the person's own words only, where that is most of it."""
    last = one.parts[-1][2]
    hashes = {each[0] for each in spans.shingles(one.text)}
    with home.db.read() as conn:
        others = (
            fingerprints.spans(conn, one.text, before_message=last)
            if fingerprints.of(conn, hashes)
            else []
        )
    left = own_words(one.text, others, note=True)
    head = _HEADINGS.match(left)
    bare = left[head.end() :] if head else left
    if not bare.strip():
        return
    cut = one.text.find(bare) if bare in one.text else -1
    if cut < 0:  # lines in the middle are gone: any part of it may stand anywhere
        parts = tuple((0, len(bare), number) for _, _, number in one.parts)
    else:
        parts = tuple((a - cut, b - cut, number) for a, b, number in one.parts if b > cut)
    yield one._replace(text=bare, parts=parts)


# --- cutting ------------------------------------------------------------------------------------

_STOP = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*(?:\s+|$)|\n+")
_SHORT = frozenset(
    "mr mrs ms dr st sir prof rev capt col lt gen gov hon jr sr messrs esq no vs etc viz eg ie cf"
    " ca sra srta dra exma av d bzw usw ggf z u hr fr str nr abs inc ltd co cos jas wm thos chas"
    " geo robt edw dec nov oct sept sep aug jul jun apr mar feb jan vol pp p a.m p.m".split()
)
_PIECE = re.compile(r"[;:—]\s+|,\s+")


def ends(text: str) -> list[int]:
    """Return where the sentences of a text end, in characters; an abbreviation is no end.

    Where the writer begins sentences with a capital, a small letter begins none.
    """
    found = [match for match in _STOP.finditer(text)]
    small = sum(text[m.end() : m.end() + 1].islower() for m in found)
    capitals = small * 3 < len(found)
    places = []
    for match in found:
        before = text[max(0, match.start() - 12) : match.start()].split()
        last = before[-1].strip("(“\"'[").lower() if before else ""
        dot = match[0][0] == "." and "\n" not in match[0]
        initial = len(last) == 1 and last.isalpha() and last != "i"
        number = re.fullmatch(r"\d+(?:st|nd|rd|th)", last) or (last.isdigit() and len(before) == 1)
        if dot and (last in _SHORT or initial or number):
            continue
        if capitals and "\n" not in match[0] and text[match.end() : match.end() + 1].islower():
            continue
        places.append(match.end())
    if not places or places[-1] < len(text):
        places.append(len(text))
    return places


def chunks(text: str, most: int = MOST_WORDS) -> list[tuple[int, int]]:
    """Cut a text into stretches (start, end) of at most about ``most`` words, without edge spaces.

    They end where a sentence does, a paragraph if one ends in the second half; a sentence that is
    too long ends at a semicolon, colon or comma. A short rest stays with what is before it.
    """
    pieces = [each for pair in pairwise([0, *ends(text)]) for each in _fine(text, *pair, most)]
    cut: list[list[int]] = []
    count = 0
    closed = True
    for start, end in pieces:
        many = len(text[start:end].split())
        if closed or count + many > most:
            cut.append([start, end])
            count = 0
        cut[-1][1] = end
        count += many
        closed = count * 2 >= most and text[start:end].endswith("\n\n")
    if len(cut) > 1 and len(text[cut[-1][0] : cut[-1][1]].split()) < most * 0.15:
        cut[-2:] = [[cut[-2][0], cut[-1][1]]]
    return [_stripped(text, start, end) for start, end in cut if text[start:end].strip()]


def _fine(text: str, start: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    if len(text[start:end].split()) <= most:
        yield start, end
        return
    at = start
    places = [match.end() for match in _PIECE.finditer(text, start, end)]
    for place, after in pairwise([*places, end]):
        long = len(text[at:after].split()) > most
        if long or (text[place - 2] in ";:" and len(text[at:place].split()) * 2 > most):
            yield at, place
            at = place
    yield at, end


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


# --- what a text is about -----------------------------------------------------------------------

_NAME = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Sir|Lord|Lady|Captain|Capt|Colonel|Col|St|Sra?|Dra?|D|Herr|Frau|Dom|Dona)"
    r"\.?\s)?"
    r"\b[A-ZÀ-Þ][\w’'-]*(?:\s(?:(?:de|da|do|dos|of|von|van|der)\s)?[A-ZÀ-Þ][\w’'-]*)*"
)


Rare = Callable[[str], float]


def rarity(home: Home) -> Rare:
    """Return how rare a word is in what the person wrote: -log of its share of texts."""
    counts: Counter[str] = Counter()
    total = 0
    after = 0
    while True:
        with home.db.read() as conn:
            page = rows(
                conn,
                "SELECT id, substr(plain(text), 1, 4000) FROM messages WHERE id > ?"
                " AND role IN ('user', 'document') AND retired_ms IS NULL ORDER BY id LIMIT 1000",
                (after,),
            )
        if not page:
            break
        after = page[-1][0]
        for _, text in page:
            counts.update(set(words(text)))
        total += len(page)
        if len(counts) > 300_000:  # memory stays bounded; what stood once is rare anyway
            counts = Counter({word: many for word, many in counts.items() if many > 1})
    return lambda word: math.log((total + 1) / (counts[word] + 0.5))


def notes(text: str, rare: Rare, most: int = 12) -> list[str]:
    """Return what a text is about: its names and its rarest words, in their order."""
    size = len(text.split())
    wanted = min(most, max(3, size // 12, min(6, size // 6)))
    places = ends(text)
    found: dict[str, tuple[float, int, str]] = {}
    taken: list[tuple[int, int]] = []
    for match in _NAME.finditer(text):
        name = match[0].strip(" .,'’-")
        said = words(name)
        if not said or said[0].partition("'")[0] in STOP_WORDS or len(name) < 2:
            continue
        if len(said) == 1 and _begins(text, places, match.start()):
            continue  # its capital may be the sentence's
        _put(found, name, 2.0 * max(map(rare, said)), match.start())
        taken.append(match.span())
    for number, match in enumerate(WORD.finditer(text)):
        word = match[0].lower().replace("’", "'").partition("'")[0]
        if len(word) < 4 or word in STOP_WORDS or word in _COMMON or not word.isalpha():
            continue
        if not any(start <= match.start() < end for start, end in taken):
            # A long word says more, and so does one that a text opens with ("heating, final.").
            weight = (1 + 0.03 * min(len(word), 10)) * (1.3 if number < 3 else 1.0)
            _put(found, word, weight * rare(word), match.start())
    best = sorted(found.values(), key=lambda one: (-one[0], one[1]))[:wanted]
    return [name for _, _, name in sorted(best, key=lambda one: one[1])]


def _begins(text: str, places: Sequence[int], at: int) -> bool:
    """Tell whether a sentence begins at a place: nothing but signs stands before it."""
    before = places[bisect_right(places, at) - 1] if places[0] <= at else 0
    return not any(map(str.isalnum, text[before:at]))


def _put(found: dict[str, tuple[float, int, str]], name: str, score: float, at: int) -> None:
    key = stem(name.casefold())
    if key not in found or found[key][0] < score:
        found[key] = (score, found[key][1] if key in found else at, name)


_COMMON = frozenset(
    "none each last early late better enough ever else back done yeah okay hours days week weeks"
    " because since also very much many more most then than there here thing things going went came"
    " come made make take took said says tell told want wants need would could should really still"
    " well even like know known think thought about after before again always never today"
    " yesterday tomorrow being upon unto shall home same other others where which while what with"
    " from them they their decided decision reason reasons chose picked prefer instead reversing"
    " muito muita depois antes sempre nunca hoje ontem agora ainda também porque para como quando"
    " tudo nada isso isto aqui tenho fazer muy mucho después ahora siempre nunca porque también"
    " aber dann noch schon heute gestern immer nicht auch wieder sehr alles weil damit".split()
)


def _instruction(
    told: Mapping[str, Any],
    one: Written,
    text: str,
    number: int,
    rare: Rare,
    on: str,
) -> str:
    """Return what asks for a text: its day in words, its heading, notes of what it is about."""
    language = language_of(text, 0, len(text))
    speech = told[language]
    title = _title(one)
    if number:
        options = speech["more" if one.kind == "journal" else "more note"]
    else:
        options = speech["titled" if title and one.kind == "note" else one.kind]
    about = ", ".join(notes(text, rare))
    return pick(options, text).format(day=_day(on, speech), notes=about, title=title)


def _title(one: Written) -> str:
    """Return a note's heading where it says more than a day."""
    parts = [part.strip() for part in one.title.split(" > ")]
    said = [part for part in parts if part and not re.fullmatch(r"[\d\W]*", part)]
    return ": ".join(said[-2:])[:80]


def _day(on: str, speech: Mapping[str, Any]) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", on):
        return ""
    year, month, number = (int(part) for part in on.split("-"))
    named: str = speech["day"]
    return named.format(day=number, month=speech["months"].split()[month - 1], year=year)


__all__ = [
    "Rare", "Written", "chunks", "ends", "entries", "is_voice", "messages_of", "notes",
    "pick", "rarity", "style", "wordings", "written",
]  # fmt: skip
