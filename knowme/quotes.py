"""Quotations: the words that answer a question, chosen from what was recalled.

Promises: what is quoted was said, on that day, by whom it says; a short message is quoted whole, of
a long one the sentences that answer best. Of what a very small model says, only that counts which
a note bears out. One embedding for each candidate, at most CANDIDATES.
Refuses to know: how recall ranked, what a model makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from knowme.context import who
from knowme.times import day
from knowme.types import Hit
from knowme.words import content_words, sentences, stem, stems, words

if TYPE_CHECKING:
    from knowme.seams import Embedder, Engine, Vectors

_WRAPPED = re.compile(r"(?<=[^\n])\n(?=[^\s\-*#>|\d])")
"""A line end inside a paragraph: a sentence of a note goes on behind it."""
_HEADING = re.compile(r"^#{1,6}\s+(.*?)[:#\s]*$", re.MULTILINE)
HITS = 8
CANDIDATES = 12
SHORT_WORDS = 45
"""A message of so many words is quoted whole; a longer one in pieces of at least PIECE_WORDS."""
PIECE_WORDS = 12
NEAR_WORDS = 4
SMALL_MODEL = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([mb])(?![a-z])", re.IGNORECASE)
ASKS_EARLIER = re.compile(
    r"\b(?:first|earliest|originally|initially|before|ago|used to|primeir[oa]|antes|zuerst)\b"
    r"|\b(?:19|20)\d\d\b",
    re.IGNORECASE,
)


def choose_quotes(
    meaning: tuple[Embedder, Vectors] | None,
    hits: Sequence[Hit],
    question: str,
    tz: tzinfo | None,
    limit: int = 3,
) -> list[dict[str, Any]]:
    """Choose what answers best from the best hits: words in common, and meaning.

    ``meaning`` is the embedder with the question's vector (dims,); None: by the words alone.

    Returns mappings {text, day, who, uid, score}, newest first, or oldest first where the question
    asks for what was before. Raises ModelError.
    """
    hits = hits[:HITS]
    asked = stems(question)
    candidates = [
        (hit, piece.strip(), at) for hit in hits for at, piece in enumerate(_pieces(hit.text))
    ]
    # Each costs an embedding: those that share no word with the question only if few share one.
    candidates.sort(key=lambda pair: not asked & {stem(word) for word in words(pair[1])})
    candidates = candidates[:CANDIDATES]
    scores = _scores(meaning, [text for _, text, _ in candidates], question)
    ranked = sorted(
        (
            (score + _voice(hit, hits, question), hit, text, at)
            for (hit, text, at), score in zip(candidates, scores, strict=True)
        ),
        key=lambda entry: -entry[0],
    )
    chosen: list[tuple[tuple[int, str, int], dict[str, Any]]] = []
    for score, hit, text, at in ranked:
        if len(chosen) == limit or score < 0.6 * ranked[0][0]:
            break
        if any(text in quote["text"] or quote["text"] in text for _, quote in chosen):
            continue
        quote = {"text": text, "day": day(hit.at_ms, tz), "who": who(hit), "uid": hit.uid,
                 "score": round(score, 4)}  # fmt: skip
        chosen.append(((hit.at_ms or 0, hit.uid, at), quote))
    chosen.sort(key=lambda pair: pair[0][2])  # in one note, in its order
    chosen.sort(key=lambda pair: pair[0][:2], reverse=not ASKS_EARLIER.search(question))
    return [quote for _, quote in chosen]


def _pieces(text: str) -> list[str]:
    """Return a short text whole, a long one in runs of sentences that say something."""
    if len(text.split()) <= SHORT_WORDS:
        return [text] if text.strip() else []
    found: list[str] = []
    carry = ""
    for sentence in sentences(_WRAPPED.sub(" ", text)):
        carry += sentence
        if len(carry.split()) >= PIECE_WORDS:
            found.append(carry)
            carry = ""
    if carry.strip():
        found.append(carry)
    return [piece for piece in found if piece.strip(" -*#[]…\n")]


def _voice(hit: Hit, hits: Sequence[Hit], question: str) -> float:
    """Prefer the person's own words, what recall ranked high, and, of what changed, the newest."""
    own = {"user": 0.06, "document": 0.03}.get(hit.role, 0.0)
    own += 0.08 * (1 - hits.index(hit) / len(hits))
    if not ASKS_EARLIER.search(question):
        older = sum((other.at_ms or 0) < (hit.at_ms or 0) for other in hits)
        own += 0.08 * older / max(len(hits) - 1, 1)
    return own


def _scores(
    meaning: tuple[Embedder, Vectors] | None, texts: Sequence[str], question: str
) -> list[float]:
    asked = stems(question)
    shared = [
        len(asked & {stem(word) for word in words(text)}) / max(len(asked), 1) for text in texts
    ]
    if meaning is None or not texts:
        return shared
    embedder, query = meaning
    near = embedder.embed([text[:400] for text in texts], "document") @ query
    return [0.4 * s + 0.6 * float(n) for s, n in zip(shared, near, strict=True)]


def quote_lead(quotes: Sequence[Mapping[str, Any]]) -> str:
    """Say what was said, with its date: the part of an answer that is true by construction."""
    lines = []
    for quote in quotes:
        said = "you said" if quote["who"] == "the person" else quote["who"]
        when = "" if quote["day"] == "undated" else f"{quote['day']}, "
        text = " ".join(_HEADING.sub(r"\1:", quote["text"]).split())
        lines.append(f"{when}{said}: “{text}”")
    return "\n".join(lines)


# --- what a very small model may say ------------------------------------------------------------


def leads_with_quotes(setting: str, engine: Engine) -> bool:
    """Tell whether an answer leads with quotations: that of a model under a billion parameters."""
    if setting != "auto":
        return setting == "always"
    if engine.name == "echo":
        return True
    size = SMALL_MODEL.search(engine.model)
    return size is not None and (size[2].lower() == "m" or float(size[1]) < 1)


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
