"""Whether a question and answer that a model wrote are borne out by what the person said.

Promises: pure; in doubt it refuses. An answer passes only if each of its sentences is a run of
words of one sentence of the person's, with nothing changed but the person (I -> you) and the verb
that goes with it; the sentence is meant, is the person's own, and denies what the answer denies
(``gate.judge``). A question may add two plain words ("Which *editor* do I use?"), no name, no
number. What a model made up, turned round or left out a "not" of does not pass.
Refuses to know: who wrote it, where it is kept.

That an answer may not be reworded costs answers, not truth: the prompt asks for just that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from knowme import gate
from knowme.claims.languages import language_of
from knowme.redact import secrets_in
from knowme.sensitive import sensitive
from knowme.spans import Span
from knowme.types import ME, Claim, Evidence
from knowme.verbs import form
from knowme.words import STOP_WORDS, sentences, stem, words

EMPTY = "incomplete"
NOT_FOUND = "the quote was not said"
NOT_MEANT = "the quote is not meant, or not the person's own"
NOT_COVERED = "the quote does not say it"
BEYOND = "the question asks beyond the quote"
SECRET = "a secret"
SENSITIVE = "sensitive"
_OPENERS = (
    "você vocês usted ustedes welchen welchem welcher wofür womit wieso was qué cuáles quais",
)
"""What a sentence begins with in capitals without naming anybody, beside what the gate knows."""
LEAST_WORDS, LONGEST = 3, 600
"""Words of a quote, at least, and characters of one, at most."""


class Said(NamedTuple):
    """A message of the person's: ``foreign`` are stretches that are not their own words."""

    id: int
    text: str
    day: date | None = None
    foreign: tuple[Span, ...] = ()


def find(quote: str, said: Iterable[Said]) -> tuple[Said, Evidence] | None:
    """Return where a quote stands, word for word, widened to whole sentences; None: nowhere.

    Case, white space and the form of quotation marks do not matter. A condition or a denial is
    part of what is said, so the sentence is the evidence and not the piece of it.
    """
    bare = quote.strip().strip("\"'“”„«»….").strip()
    if len(bare) > LONGEST or len(words(bare)) < LEAST_WORDS:
        return None
    parts = (re.escape(part) for part in bare.split())
    loose = r"\s+".join(re.sub(r"['’‘]", "['’‘]", re.sub(r'["“”]', '["“”]', p)) for p in parts)
    pattern = re.compile(rf"(?<!\w){loose}(?!\w)", re.IGNORECASE)
    for one in said:
        if match := pattern.search(one.text):
            start, end = _widened(one.text, *match.span())
            return one, Evidence(one.id, start, end, one.text[start:end])
    return None


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    at, first, last = 0, start, end
    for piece in sentences(text):
        after = at + len(piece)
        if at <= start < after:
            first = at + len(piece) - len(piece.lstrip())
        if at < end <= after:
            last = at + len(piece.rstrip())
        at = after
    return min(first, start), max(last, end)


def wrong(
    question: str,
    answer: str,
    one: Said,
    proof: Evidence,
    *,
    mine: bool,
    allowed: Iterable[str] = (),
    read_by: str = "model:teacher",
) -> str:
    """Return "" if the evidence bears the pair out, else why not (one of the constants above).

    ``mine``: the answer speaks as the person ("I ..."); else to them ("You ..."). ``allowed`` are
    names that need no cover: the person's own.
    """
    if len(words(question)) < 2 or len(words(answer)) < 2:
        return EMPTY
    if secrets_in(proof.quote) or secrets_in(f"{question}\n{answer}"):
        return SECRET
    if sensitive(proof.quote) or sensitive(f"{question}\n{answer}"):
        return SENSITIVE
    claim = Claim(
        ME, "said", answer, f"{question}\n{answer}", proof.start, proof.end, read_by=read_by
    )
    told = gate.judge(claim, one.text, one.day, one.foreign, (*_OPENERS, *allowed))
    if told:
        covers = told.startswith(("Its quote does not hold", "The quote"))
        return NOT_COVERED if covers else NOT_MEANT
    if not all(_stands(each, proof.quote, mine) for each in sentences(answer) if each.strip()):
        return NOT_COVERED
    return BEYOND if _asks_beyond(question, proof.quote) else ""


def borne_out(
    quote: str,
    question: str,
    answer: str,
    said: Sequence[Said],
    *,
    mine: bool,
    allowed: Iterable[str] = (),
    read_by: str = "model:teacher",
) -> tuple[Evidence | None, str]:
    """Find the quote and judge the pair: (its evidence, "") or (None, why not)."""
    found = find(quote, said)
    if found is None:
        return None, NOT_FOUND
    one, proof = found
    told = wrong(question, answer, one, proof, mine=mine, allowed=allowed, read_by=read_by)
    return (None, told) if told else (proof, "")


# --- an answer stands in the person's words -----------------------------------------------------

# As tokens: what the person calls themselves, and whom they speak to. Told to the person these
# change places.
_ME = {
    "subject": "i we eu nós yo nosotros nosotras ich wir",
    "object": "me us mim nos mich mir uns",
    "my": "my our meu minha meus minhas nosso nossa nossos nossas mi mis nuestro nuestra"
    " mein meine meinen meinem meiner meines unser unsere unseren unserem unserer",
    "mine": "mine ours",
    "self": "myself ourselves",
}
_YOU = {
    "any": "you tu você vocês ti te tú usted ustedes du dich dir",
    "my": "your teu tua teus tuas seu sua seus suas tus su sus dein deine deinen deinem deiner",
    "mine": "yours",
    "self": "yourself yourselves",
}
_FILLERS = frozenset(
    """really just actually basically honestly simply also too well please yes yeah ok okay
    mesmo mesma realmente pues bueno realmente wirklich eigentlich halt einfach ja""".split()
)
"""Words that an answer may leave out: nothing hangs on them."""
_SHORT = {"'m": "be", "'re": "be", "'ve": "have", "'ll": "will", "'d": "would", "n't": "not"}
_SAME = {"am": "be", "are": "be", "was": "were", "cannot": "can not"}
_STEMS = {"ca": "can", "wo": "will", "sha": "shall"}
_TOKEN = re.compile(r"\w+(?:['’]\w+)?", re.UNICODE)
_REPORTS = frozenset(
    """think believe say claim tell guess doubt suppose pretend dream hope wish fear imagine assume
    expect hear read bet swear insist deny acha pensa diz disse cree piensa dice dijo glaubt denkt
    sagt sagte meint""".split()
)


def _people(listed: dict[str, str], whose: str) -> dict[str, str]:
    return {word: f"<{whose}:{kind}>" for kind, told in listed.items() for word in told.split()}


_SPOKEN = _people(_YOU, "it") | _people(_ME, "me")
"""In the person's own words, and in an answer in their voice: I am the person."""
_TOLD = _people(_ME, "it") | _people(_YOU, "me")
"""In an answer to the person: you are the person."""


def _tokens(text: str, people: dict[str, str]) -> list[str]:
    made: list[str] = []
    for match in _TOKEN.finditer(text):
        word = match[0].lower().replace("’", "'")
        tail = next((end for end in _SHORT if word.endswith(end) and word != end), "")
        if tail:
            head = word.removesuffix(tail)
            parts = [_STEMS.get(head, head), _SHORT[tail]]
        else:
            parts = _SAME.get(word, word).split()
        made += [people.get(part, part) for part in parts if part not in _FILLERS]
    return made


def _stands(sentence: str, quote: str, mine: bool) -> bool:
    """Tell whether a sentence is a run of one of the quote's, with the person changed."""
    told = _tokens(sentence, _SPOKEN if mine else _TOLD)
    if not told:
        return True
    if not any(token.startswith("<") for token in told):
        return False  # "The editor is Neovim": whose?
    return any(_runs(told, piece) for piece in sentences(quote))


def _runs(told: Sequence[str], piece: str) -> bool:
    said = _tokens(piece, _SPOKEN)
    loose = language_of(piece, 0, len(piece)) != "en"
    for at in range(len(said) - len(told) + 1):
        run = said[at : at + len(told)]
        if all(_same(a, b, n == 0, loose) for n, (a, b) in enumerate(zip(told, run, strict=True))):
            return not any(_lemma(word) in _REPORTS for word in said[:at])
    # "Prefiro café", "Went to Ghent", "Answer briefly": who does it is not said, but is no other.
    if told[0] in ("<me:any>", "<me:subject>", "<it:any>", "<it:subject>"):
        rest = [word for word in told[1:] if word not in ("should", "will")]
        if 1 < len(rest) <= len(said):
            return all(_same(a, b, False, loose) for a, b in zip(rest, said, strict=False))
    return False


def _same(told: str, said: str, first: bool, loose: bool) -> bool:
    if told == said:
        return True
    if told.startswith("<") or said.startswith("<"):
        whose, _, kind = told.strip("<>").partition(":")
        other, _, theirs = said.strip("<>").partition(":")
        if whose != other or not (told.startswith("<") and said.startswith("<")):
            return False
        # "you" is I or me; at the beginning of a sentence it is who does it.
        kinds = {kind, theirs} - {"any"}
        may = {"subject"} if first else {"subject", "object"}
        return "any" in (kind, theirs) and kinds <= may
    if loose and min(len(told), len(said)) >= 4:  # prefiro, prefere; trinke, trinkst
        shared = next((n for n, (a, b) in enumerate(zip(told, said, strict=False)) if a != b), 99)
        shared = min(shared, len(told), len(said))
        return shared >= 3 and max(len(told), len(said)) - shared <= 3
    return False


def _lemma(word: str) -> str:
    known = form(word)
    return known.lemma if known is not None else word


# --- a question asks for it ---------------------------------------------------------------------

_ASKING = frozenset(
    """prefer like use favourite favorite kind sort type tell think reason choose choice usually
    want need way approach preference opinion feel habit describe explain typically generally know
    handle work rule consider decide decision because thing person user say mention
    prefere prefiero gosta usa quiere opina bevorzugst magst""".split()
)
"""Words of questions: they ask for something and claim nothing."""
_ADDED = 2
"""Plain words that a question may hold beside those of its evidence."""


def _asks_beyond(question: str, quote: str) -> bool:
    have = {stem(_lemma(word.partition("'")[0])) for word in words(quote)}
    asked = {
        stem(_lemma(bare))
        for word in words(question)
        if (bare := word.partition("'")[0]) not in STOP_WORDS
    }
    covered = asked & have
    added = asked - have - {stem(word) for word in _ASKING}
    return not covered or len(added) > min(_ADDED, len(covered) + 1)
