"""Words and sentences: what a query asks for, and where a text may be cut.

Promises: pure functions over text, for several languages; nothing is lost by ``sentences``.
Refuses to know: indexes, scores, models.
"""

from __future__ import annotations

import re
from itertools import pairwise

WORD = re.compile(r"\w+(?:['’]\w+)?", re.UNICODE)

STOP_WORDS = frozenset(
    # English
    """a an and are as at be been being but by did do does doing for from had has have having he
    her hers him his how i if in into is it its me my of on or our ours she so some such than that
    the their them then there these they this those to us was we were what when where which while
    who whom why will with would you your yours am can could should about any just not no s t d ll
    ve re m
    don didn doesn isn aren wasn weren won couldn wouldn shouldn hasn haven hadn
    """
    # Portuguese
    """o os um uma uns umas e ou mas de da dos das em na nos nas ao aos à às por pelo pela
    pelos pelas para pra com sem que qual quais quem quando onde como porque porquê quanto quanta
    quantos quantas eu tu ele ela nós vocês eles elas meu minha meus minhas teu tua teus tuas seu
    sua seus suas mim ti lhe lhes isso isto aquilo este esta estes estas esse essa esses
    essas foi fui é são era eram ser está estão estou estava não sim já também mais
    """
    # Spanish
    """el la los las un una unos unas y del al con sin qué cuál cuáles quién cuándo dónde cómo
    por qué cuánto yo él ella nosotros ellos mi mis tu su sus lo le les esto eso fue soy eres
    está están no sí ya también más
    """
    # German
    """der das den dem des ein eine einen einem einer eines und oder aber zu zum zur im
    mit ohne für auf wie wo wann wer wen wem warum welche welcher welches ich du er
    sie wir ihr mich mir dich dir sich uns euch mein meine meinen meinem meiner dein deine sein
    seine ihre unser ist sind war waren bin bist hat habe haben hatte nicht auch noch schon
    """
    # French
    """le les des du et où au aux dans sur avec sans je il elle nous vous ils elles mon ma
    ton ta son sa ses ce cette ces quel quelle quels quelles quoi est sont était suis ne pas plus
    """.split()
)
"""Dropped from queries, never from what is indexed."""

NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
"""Runs of scripts written without spaces: Thai, Lao, Burmese, Khmer, Kana, Han."""

_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n+")


def words(text: str) -> list[str]:
    """Return the words of a text, lower case, in order."""
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def content_words(text: str, once: bool = True) -> list[str]:
    """Return the words that a query is about, each ``once``; all of them if none is left."""
    every = [word.partition("'")[0] for word in words(text)]
    if once:
        every = list(dict.fromkeys(every))
    kept = [word for word in every if word not in STOP_WORDS]
    return kept or every


def stem(word: str) -> str:
    """Cut the commonest English endings, so that "decided" meets "decide"; short words stay."""
    for ending in ("ings", "ing", "edly", "ed", "ies", "ic", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def stems(text: str) -> set[str]:
    """Return the stems of the content words of a text."""
    return {stem(word) for word in content_words(text)}


def sentences(text: str) -> list[str]:
    """Cut a text after sentences and lines; the pieces joined give the text back."""
    cuts = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if a < b]


def unspaced_pieces(text: str) -> list[str]:
    """Return the trigrams of every run without spaces; a run of one or two signs is one piece."""
    pieces: dict[str, None] = {}
    for run in NO_SPACES.findall(text):
        for start in range(max(1, len(run) - 2)):
            pieces[run[start : start + 3]] = None
    return list(pieces)
