"""compose(): what goes into the model's window for one question, and a receipt of what did not.

Promises: pure; every section stays within its budget; recalled text is fenced, quoted with its
date and source, and cannot close its fence; over-long text is cut at sentences, around the words
that the question asks for.
Refuses to know: which model answers, how recall found what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from knowme.times import day
from knowme.types import ChatMessage, Context, Dropped, Hit, Message
from knowme.words import sentences, stem, stems, words

Count = Callable[[str], int]
FENCE = ("<recalled>", "</recalled>")
PER_MESSAGE = 8
"""Tokens that a chat template spends around each message, roughly."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Tokens for each section of a window of ``window`` tokens; the answer gets the rest."""

    window: int
    system: int = 200
    recalled: int = 1000
    question: int = 500
    history: int = 800
    answer: int = 512

    def fitted(self) -> Budgets:
        """Return budgets that fit the window: a quarter of it stays for the answer at least."""
        wanted = self.system + self.recalled + self.question + self.history
        room = self.window - max(self.window // 4, min(self.answer, self.window // 2))
        if wanted <= room:
            return self
        share = room / wanted
        cut = {name: int(getattr(self, name) * share) for name in
               ("system", "recalled", "question", "history")}  # fmt: skip
        return replace(self, **cut)


def compose(
    system: str,
    hits: Sequence[Hit],
    history: Sequence[Message],
    question: str,
    budgets: Budgets,
    count: Count,
    tz: tzinfo | None = None,
) -> Context:
    """Compose the prompt: instructions, earlier turns, then recalled notes with the question.

    What stays the same from turn to turn comes first, so that a model can reuse its prefix.
    ``hits`` are best first; the notes stand in the order of time, so that the newest is last.
    """
    fit = budgets.fitted()
    system = shorten(system, fit.system, count)
    asked = shorten(question, fit.question, count)
    turns, dropped_turns = _turns(history, fit.history, count)
    notes, used, dropped = _notes(hits, asked, fit.recalled, count, tz)
    said = f"{notes}\n\n{asked}" if notes else asked
    messages = (
        ChatMessage("system", system),
        *turns,
        ChatMessage("user", said),
    )
    tokens = {
        "system": count(system),
        "history": sum(count(turn.content) for turn in turns),
        "recalled": count(notes) if notes else 0,
        "question": count(asked),
        "question_cut": count(question) - count(asked),
    }
    spent = sum(tokens[name] for name in ("system", "history", "recalled", "question"))
    tokens["answer"] = max(32, min(fit.answer, fit.window - spent - PER_MESSAGE * len(messages)))
    return Context(messages, tuple(used), (*dropped, *dropped_turns), tokens)


def _turns(
    history: Sequence[Message], budget: int, count: Count
) -> tuple[list[ChatMessage], list[Dropped]]:
    """Take the newest turns that fit, oldest first; a window begins with the person's turn."""
    taken: list[ChatMessage] = []
    dropped: list[Dropped] = []
    left = budget
    for turn in reversed(history):
        cost = count(turn.text) + PER_MESSAGE
        if dropped or cost > left:
            dropped.append(Dropped(f"turn {turn.external_id}", cost, "older than the window"))
            continue
        left -= cost
        taken.append(ChatMessage("assistant" if turn.role == "assistant" else "user", turn.text))
    taken.reverse()
    while taken and taken[0].role == "assistant":
        taken.pop(0)
    return taken, dropped


def _notes(
    hits: Sequence[Hit], question: str, budget: int, count: Count, tz: tzinfo | None
) -> tuple[str, list[Hit], list[Dropped]]:
    left = budget - count("\n".join(FENCE))
    lines: list[tuple[int, str]] = []
    used: list[Hit] = []
    dropped: list[Dropped] = []
    for hit in hits:
        head = f"[{day(hit.at_ms, tz)}, {who(hit)}, {fence(hit.source)}] "
        cost = count(head + hit.text) + 1
        room = min(left, max(budget // 3, 60)) - count(head) - 1
        if room < 12:
            dropped.append(Dropped(hit.uid, cost, "no room left in the recalled budget"))
            continue
        text = " ".join(excerpt(hit.text, question, room, count).split())
        line = head + fence(text)
        left -= count(line) + 1
        lines.append((hit.at_ms or 0, line))
        used.append(replace(hit, text=text))
    if not lines:
        return "", [], dropped
    lines.sort(key=lambda pair: pair[0])
    return "\n".join((FENCE[0], *(line for _, line in lines), FENCE[1])), used, dropped


def who(hit: Hit) -> str:
    """Say who said it and where, in a few plain words."""
    if hit.role == "document":
        return fence(f"a note in {hit.title or hit.source}")
    if hit.role == "assistant":
        return "the assistant"
    return "the person" if by_the_person(hit) else fence(hit.speaker or "somebody else")


def by_the_person(hit: Hit) -> bool:
    """Tell whether these are the person's own words: a caller's named speaker is someone else."""
    named = hit.source == "ingest" and bool(hit.speaker)
    return hit.role == "user" and not named and not hit.metadata.get("other")


def fence(text: str) -> str:
    """Make text unable to open or close a fence, or to look like a chat template's marker."""
    return text.replace("<", "‹").replace(">", "›")


def shorten(text: str, budget: int, count: Count) -> str:
    """Return the text, or as many whole sentences from its start as fit, with a mark."""
    if count(text) <= budget:
        return text
    kept = ""
    for sentence in sentences(text):
        if count(kept + sentence) > budget - 2:
            break
        kept += sentence
    return (kept or _chop(text, budget, count)).rstrip() + " […]"


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
