"""Making text shorter: cut at sentences, the excerpt that answers, the summary of earlier turns.

Promises: pure, deterministic, no model; nothing is worded anew: what is kept was said so, and a
summary names who said each line and the messages that it rests on. Nothing exceeds its budget.
Refuses to know: prompts, where messages are kept, how a model words a summary (``summaries.py``).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from knowme.words import STOP_WORDS, content_words, sentences, stem, stems, words

Count = Callable[[str], int]


# --- cutting ------------------------------------------------------------------------------------


def shorten(text: str, budget: int, count: Count) -> str:
    """Return the text, or as many whole sentences from its start as fit, with a mark."""
    if count(text) <= budget:
        return text
    kept = ""
    for sentence in sentences(text):
        if count(kept + sentence) > budget - 2:
            break
        kept += sentence
    return (kept or _chop(text, max(0, budget - 3), count)).rstrip() + " […]"


def excerpt(text: str, question: str, budget: int, count: Count) -> str:
    """Return the text, or the run of whole sentences around its best match that fits."""
    if count(text) <= budget:
        return text
    pieces = sentences(text)
    asked = stems(question)
    scores = [len(asked & {stem(word) for word in words(piece)}) for piece in pieces]
    best = max(range(len(pieces)), key=lambda i: (scores[i], -i))
    if count(pieces[best]) > budget - 8:
        return _chop(pieces[best], budget - 8, count) + " […]"
    first = last = best
    left = budget - 8 - count(pieces[best])
    grew = True
    while grew:
        grew = False
        for side in (last + 1, first - 1):
            if 0 <= side < len(pieces) and (cost := count(pieces[side])) <= left:
                first, last, left, grew = min(first, side), max(last, side), left - cost, True
    cut = "".join(pieces[first : last + 1]).strip()
    return ("[…] " if first else "") + cut + (" […]" if last + 1 < len(pieces) else "")


def _chop(text: str, budget: int, count: Count) -> str:
    """Cut a single over-long sentence at a word."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(text[:middle]) <= budget:
            low = middle
        else:
            high = middle - 1
    space = text.rfind(" ", low // 2, low)
    return text[: space if space > 0 else low]


def fair_shares(needs: Sequence[int], budget: int) -> list[int]:
    """Share a budget so that the small are whole and the large get the same: max-min fairness.

    Returns a share for each need; no share exceeds its need, their sum does not exceed the budget.
    """
    shares = [0] * len(needs)
    left = max(0, budget)
    for done, place in enumerate(sorted(range(len(needs)), key=lambda i: needs[i])):
        shares[place] = min(needs[place], left // (len(needs) - done))
        left -= shares[place]
    return shares


# --- a summary ----------------------------------------------------------------------------------


class Said(Protocol):
    """One message, as far as a summary must know it; ``message_id`` is 0 where it is not kept."""

    @property
    def role(self) -> str:
        """Return user or assistant."""

    @property
    def text(self) -> str:
        """Return what was said."""

    @property
    def message_id(self) -> int:
        """Return its number in the archive, or 0."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was said earlier: one line a sentence; line i rests on the messages ``because[i]``.

    ``sources`` are those of the recalled memory that some of it may repeat.
    """

    text: str = ""
    because: tuple[tuple[int, ...], ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[int, ...]:
        """Return the ids of all the messages that it rests on, each once, in the order of lines."""
        return tuple(dict.fromkeys(each for ids in self.because for each in ids if each))


@dataclass(frozen=True, slots=True)
class _Line:
    place: int  # in the order of time
    who: str
    text: str
    because: tuple[int, ...]
    stems: frozenset[str]
    score: float = 0.0

    @property
    def shown(self) -> str:
        return f"- {self.who}: {self.text}"


WHO = {"user": "the person", "assistant": "the assistant"}
_LINE = re.compile(r"^- (the person|the assistant): (.+)$")
_FIRST_PERSON = frozenset(
    "i i'm i've i'd i'll me my mine we our us eu meu minha meus minhas mim nosso nossa ich mir mich"
    " mein meine meinen wir unser yo mi mis mío mía nosotros je j'ai mon ma mes nous notre".split()
)
_DECIDED = re.compile(
    r"\b(?:decided?|choose|chose|chosen|agreed?|will|won't|going to|plan(?:ned|s)?|prefer\w*"
    r"|always|never|must|need|want|bought|booked|moved|started|stopped|quit|signed|remember"
    r"|love|hate|allergic|called|name is|decidi\w*|escolh\w*|prefir\w*|comprei|mudei|vou|nunca"
    r"|sempre|entschieden|gewählt|gekauft|werde|nie|immer|decid[ií]\w*|elegí|compré|nunca|siempre"
    r"|décidé|choisi|acheté|toujours|jamais)\b",
    re.IGNORECASE,
)
_DATED = re.compile(
    r"\d|\b(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|april"
    r"|june|july|august|september|october|november|december|tomorrow|yesterday)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<=[^.!?\s] )[A-ZÀ-Þ][\w'’-]+")
SAME = 0.6
"""Two sentences of one speaker that share so many stems (Jaccard) say the same: the newer stays."""
LONGEST = 40
"""Tokens that a line may take, or the budget's third where that is more."""
MOST_LINES = 1_000
"""Sentences that are weighed, the newest: of a conversation that is summarised at one go."""
LEAST = 6
"""Tokens that the shortest line takes, with its speaker."""


def summarise(
    messages: Sequence[Said], budget_tokens: int, count: Count, previous: Summary | str = ""
) -> Summary:
    """Summarise messages, oldest first, together with the summary of what was before them.

    Extractive: sentences are ranked by their likeness to the whole (tf-idf centroid, Radev et al.
    2004, "Centroid-based summarization of multiple documents") and by what makes a sentence of a
    conversation worth keeping: the person speaking of themselves, decisions, names, numbers, days.
    Questions and the assistant's words count for less; where two are equal, the newer wins. The
    lines of ``previous`` compete with the new ones. The lines stand in the order of time, and the
    text is never longer than ``budget_tokens``.
    """
    if isinstance(previous, str):
        previous = Summary(previous)
    kept: list[_Line] = []
    left = budget_tokens
    longest = max(budget_tokens // 3, min(LONGEST, budget_tokens))
    for line in _ranked(_lines(messages, previous)):
        line = _fitted(line, longest, count) if left >= LEAST else line
        again = next((each for each in kept if _same(each, line)), None)
        if again is not None and again.place > line.place:
            continue  # the newer wording stands already
        room = left + (0 if again is None else count(again.shown + "\n"))
        if not line.text or room < LEAST or (cost := count(line.shown + "\n")) > room:
            continue
        kept = [each for each in kept if each is not again] + [line]
        left = room - cost
    while kept and count(_text(kept)) > budget_tokens:  # tokens of parts do not always add up
        kept.pop()
    kept.sort(key=lambda line: line.place)
    return Summary(_text(kept), tuple(line.because for line in kept))


def _text(lines: Sequence[_Line]) -> str:
    return "\n".join(line.shown for line in sorted(lines, key=lambda line: line.place))


def _lines(messages: Sequence[Said], previous: Summary) -> list[_Line]:
    kept: list[tuple[str, str, tuple[int, ...]]] = []
    found: list[tuple[str, str, tuple[int, ...]]] = []
    ids = previous.because
    for place, line in enumerate(previous.text.splitlines()):
        if match := _LINE.match(line):
            kept.append((match[1], match[2], ids[place] if place < len(ids) else ()))
    for message in messages[-MOST_LINES:]:
        who = WHO.get(message.role)
        for piece in sentences(message.text) if who else ():
            text = " ".join(piece.split()).strip("-*• ")
            if who and _tells(text):
                found.append((who, text, (message.message_id,) if message.message_id else ()))
    return [
        _Line(place, who, text, because, frozenset(stems(text)))
        for place, (who, text, because) in enumerate([*kept, *found[-MOST_LINES:]])
    ]


def _tells(text: str) -> bool:
    """Tell whether a sentence says anything: "Thanks!" does not."""
    return len([word for word in words(text) if word not in STOP_WORDS]) >= 2


def _same(one: _Line, other: _Line) -> bool:
    if one.who != other.who:
        return False
    union = one.stems | other.stems
    return bool(union) and len(one.stems & other.stems) / len(union) >= SAME


def _ranked(lines: Sequence[_Line]) -> list[_Line]:
    """Return the lines, the most telling first; of equal ones the newest first."""
    many = len(lines)
    seen = Counter(each for line in lines for each in line.stems)
    weight = {each: math.log((1 + many) / (1 + n)) + 1 for each, n in seen.items()}
    centre = {each: weight[each] * n / max(1, many) for each, n in seen.items()}
    length = math.sqrt(sum(value * value for value in centre.values())) or 1.0

    def central(line: _Line) -> float:
        own = math.sqrt(sum(weight[each] ** 2 for each in line.stems)) or 1.0
        return sum(weight[each] * centre[each] for each in line.stems) / (own * length)

    ranked = [
        _Line(line.place, line.who, line.text, line.because, line.stems,
              round(_telling(line) * (0.5 + central(line)), 3))
        for line in lines
    ]  # fmt: skip
    return sorted(ranked, key=lambda line: (-line.score, -line.place))


def _telling(line: _Line) -> float:
    """Return how much a sentence of a conversation is worth, whatever it is about."""
    person = line.who == WHO["user"]
    worth = 1.0 + (person and not _FIRST_PERSON.isdisjoint(words(line.text))) * 1.0
    worth += 0.5 * bool(_DECIDED.search(line.text)) + 0.5 * bool(_DATED.search(line.text))
    worth += 0.4 * bool(_NAME.search(line.text))
    if line.text.endswith(("?", "？")):
        worth *= 0.25
    return worth if person else worth * 0.5


def _fitted(line: _Line, budget: int, count: Count) -> _Line:
    if count(line.shown) <= budget:
        return line
    room = max(0, budget - count(f"- {line.who}: ") - 3)
    cut = _chop(line.text, room, count).rstrip()
    text = f"{cut} […]" if len(content_words(cut)) > 1 else ""
    return _Line(line.place, line.who, text, line.because, line.stems, line.score)
