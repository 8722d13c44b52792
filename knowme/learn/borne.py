"""Borne out: whether a text says a statement itself, in its own words.

Promises: pure; where it is in doubt it says no. All words of the statement but articles stand in
one sentence of the text, in their order, beginning where a clause begins and ending where a phrase
ends; between them stand only words that change nothing. No "if", no "or", nobody else's saying, no
hedge, no "used to" stands in that sentence, unless the statement has it too.
Refuses to know: who wrote the text, whether they meant it (``gate.py`` asks that of the quote).

Shared words are not enough: "I am allergic to rooibos" and "I drink rooibos, and am allergic to
cats" share most of them. Nor is the meaning: what a model calls near may be the opposite.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from knowme.questions import FIRST_PERSON
from knowme.types import ME
from knowme.words import sentences

_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_SHORT = {
    "i'm": "i am", "i've": "i have", "i'll": "i will", "i'd": "i 'd", "we're": "we are",
    "we've": "we have", "don't": "do not", "doesn't": "does not", "didn't": "did not",
    "isn't": "is not", "aren't": "are not", "wasn't": "was not", "can't": "can not",
    "cannot": "can not", "won't": "will not", "wouldn't": "would not", "couldn't": "could not",
    "haven't": "have not", "hasn't": "has not", "it's": "it is", "im": "i am", "ive": "i have",
    "dont": "do not",
}  # fmt: skip
_ARTICLES = frozenset(
    "a an the some o os as um uma el la los las un una der die das den dem ein eine einen einem"
    .split()
)  # fmt: skip
_PLAIN = frozenset(
    """really very just still always also usually mostly often generally normally now currently
    actually honestly simply definitely certainly quite pretty too only already again
    realmente sempre ainda também geralmente normalmente agora só já mesmo
    realmente siempre todavía también normalmente ahora sólo ya
    wirklich immer noch auch meistens gewöhnlich jetzt nur schon eigentlich""".split()
)
"""What may stand between the words of a statement and changes nothing of it."""
_OPENS = _PLAIN | frozenset(
    """well yes yeah so and but because since ok okay hey hi hello oh hm anyway sorry besides
    nowadays today these days lately at home by way e mas porque pois olha bem sim y
    pero pues bueno sí und aber weil also ja naja heute""".split()
)
"""What may stand before a statement in its clause."""
_ENDS = frozenset('.!?…;,)”"»–—')
_STARTS = frozenset(".!?…;,(–—")
_GOES_ON = frozenset(
    """but because since so every each at in on with for by from near as now these nowadays
    today always too also again though e mas porque com em no na para por y pero con en und aber
    weil mit in im am für""".split()
)
"""What may follow: the statement is whole without it."""
_AND = frozenset("and e y und".split())
_DENIES = frozenset(
    "not no never nor longer without não nunca nem sem nicht nie kein keine ohne tampoco".split()
)
"""What may follow and take it back."""
_DOUBTS = frozenset(
    """if unless whether or until till when whenever while once except instead than
    say says said saying tell tells told think thinks thought believe believes believed claim claims
    claimed doubt doubts hear hears heard suppose supposed supposedly allegedly pretend pretends
    pretended imagine imagined dreamt dreamed wish wished hope hoped would could might should
    may maybe perhaps probably possibly apparently seems seem according wrote write writes asked
    asks replied answered insists insisted swears used formerly previously anymore almost nearly
    hardly barely rarely seldom ever joke joking kidding lie lied lies lying wrong false untrue
    nonsense dream dreams fantasy fiction theory paper game games movie novel story supposing
    assume assumed guess guessed quote quoted
    se caso talvez ou quando disse diz acho penso pensava quase raramente antes
    si quizás quizá cuando dice dijo creo pienso casi rara
    wenn falls oder vielleicht sagt sagte glaube denke fast selten früher""".split()
)
"""What makes a sentence say less than, or other than, what a part of it says."""


def out(statement: str, text: str, subject: str = ME) -> tuple[int, int] | None:
    """Return the sentence (start, end) of a text that bears a statement out, or None.

    The statement begins with who says it of themselves ("I", "My"), or with the name ``subject``.
    One that names nobody is never borne out: "allergic to slides", "left the studio after 9 years"
    may be said of anybody, whatever stands before it.
    """
    wanted = [word for word in _words(statement) if _is_word(word)]
    asked = [word for word in wanted if word not in _ARTICLES]
    if len(asked) < 2 or not speaks(statement, subject):
        return None
    free = frozenset(wanted)
    at = 0
    for sentence in sentences(text):
        start, at = at, at + len(sentence)
        for line in sentence.splitlines(keepends=True):
            begin, start = start, start + len(line)
            if _says(_words(line), asked, free):
                bare = line.strip()
                first = begin + line.index(bare)
                return first, first + len(bare)
    return None


def _words(text: str) -> list[str]:
    """Return words and signs, lower case, contractions written out."""
    found: list[str] = []
    for token in _TOKEN.findall(text):
        plain = unicodedata.normalize("NFC", token.replace("’", "'")).lower()
        found.extend(_SHORT.get(plain, plain).split())
    return found


def _is_word(token: str) -> bool:
    return token[0].isalnum() or token[0] == "'"


def speaks(statement: str, subject: str = ME) -> bool:
    """Tell whether a statement begins with its writer, or with the name of its subject."""
    first = next((word for word in _words(statement) if _is_word(word)), "")
    if subject == ME:
        return first in FIRST_PERSON
    return bool(subject.split()) and first == subject.split()[0].lower()


def _says(told: Sequence[str], asked: Sequence[str], free: frozenset[str]) -> bool:
    if "?" in told or any(word in _DOUBTS and word not in free for word in told):
        return False
    return any(
        word == asked[0] and _opens(told, place) and _follows(told, place, asked)
        for place, word in enumerate(told)
    )


def _opens(told: Sequence[str], place: int) -> bool:
    """Tell whether a clause begins here."""
    for token in reversed(told[:place]):
        if token in _STARTS:
            return True
        if token not in _OPENS and token not in _ARTICLES:
            # A bullet or a sign before the sentence begins is no word of it.
            return False
    return True


def _follows(told: Sequence[str], place: int, asked: Sequence[str]) -> bool:
    """Tell whether the words stand from here on, in order, and the phrase ends behind them."""
    at = place
    for word in asked[1:]:
        at += 1
        while at < len(told) and told[at] != word:
            if told[at] not in _PLAIN and told[at] not in _ARTICLES:
                return False
            at += 1
        if at == len(told):
            return False
    rest = told[at + 1 :]
    if not rest:
        return True
    if not _DENIES.isdisjoint(rest):
        return False
    more = len(rest) > 1 and rest[0] in _AND and rest[1] in FIRST_PERSON  # no "Johnson and Johnson"
    return more or rest[0] in _ENDS or rest[0] in _GOES_ON
