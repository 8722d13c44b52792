"""What is taken out of examples before training: secrets, contacts, other people's names.

Promises: whatever ``redact`` would keep from leaving this machine stands in no pair that ``clean``
returns, in none of its messages and not in its rejected answer; a pair of which that is not certain
is dropped. The same text is cleaned into the same text, on any day and in any data set, so that the
verdicts of a review hold (a pair keeps its uid).
Refuses to know: what is sensitive (``sensitive.py``: own facts stay home anyway), what is good.

Another person becomes an initial ("T. came for the cat"), as in a court's report: it stands in any
sentence of any language and needs no sex and no article, which "a friend" would. Two people of one
initial are one to the model; it shall not know them. The person's own first name stays, the rest
of it goes. Pets stay. Contacts and numbers become what they are: [e-mail], [phone], [address].

Who is a person: everyone who ever said something, whom facts speak of, whom a sentence calls
somebody's sister or doctor, and every capital word that is a common first name in eight languages.
What it cannot see: nicknames, a rare name that nobody is introduced by, one written small that is
not known from elsewhere, a person whom the sentence describes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from knowme import facts, redact
from knowme.attributes import PETS, RELATIONS
from knowme.claims.languages import language_of
from knowme.types import ME, ChatMessage, Pair
from knowme.words import STOP_WORDS, WORD

if TYPE_CHECKING:
    from knowme.home import Home

_STAND_INS = {"EMAIL": "[e-mail]", "PHONE": "[phone]", "NUMBER": "[number]"}
_KINDS = {"EMAIL": "e-mail", "PHONE": "phone", "NUMBER": "number", "PERSON": "name"}
_OURS = re.compile(r"\[(PERSON|EMAIL|PHONE|NUMBER|TEXT)_\d+(?:_\d+)?\]")
_TRIES = 3
"""What is left when a mask goes in may look like something else; after so many rounds it is given
up, and with it the pair."""
_RENEWED = 200
"""Texts after which the placeholders begin anew: they remember every word that they replaced."""

# --- addresses and numbers of papers ------------------------------------------------------------

_NAME = r"[^\W\d_][\w'’.-]*"
_TAIL = (
    r"(?:,?\s+(?:\d{4}-\d{3}|\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2})"
    r"(?:\s+[A-ZÀ-Þ][\w'’-]+)?)?"
)
_ADDRESSES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    ("address", re.compile(pattern))
    for pattern in (
        # 12 Baker Street
        r"\b\d{1,5}[A-Za-z]?,?\s+(?:[A-Z][\w'’.-]*\s+){1,4}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln"
        r"|Drive|Boulevard|Blvd|Court|Square|Terrace|Close|Way|Crescent|Parkway|Gardens)\b\.?"
        + _TAIL,
        # Rua de Santa Catarina 112, 3.º esq; calle Mayor, n.º 5; 12 rue Daguerre
        rf"\b(?i:rua|avenida|av\.|travessa|praceta|praça|alameda|calçada|calle|avda\.|paseo|plaza"
        rf"|c/)\s+(?:{_NAME}\s+){{0,5}}{_NAME}(?:,\s*|\s+)(?i:n\.?\s?[º°o]?\.?\s*)?\d{{1,5}}\b"
        r"(?:,?\s*\d{1,2}\.?[ºª°]\s*(?i:esq|dto|dt|frente|izq|dcha)?\b\.?)?" + _TAIL,
        rf"\b\d{{1,4}}(?:\s?bis)?,?\s+(?:rue|avenue|boulevard|chemin|impasse|quai)\s+"
        rf"(?:{_NAME}\s+){{0,4}}[A-ZÀ-Þ][\w'’.-]*" + _TAIL,
        # Lindenstraße 5a; Am Ring 5 is too much like prose
        r"\b[^\W\d_][\w-]*(?i:straße|strasse|gasse|allee)\s+\d{1,4}\s?[a-h]?\b" + _TAIL,
        r"\b[A-ZÄÖÜ][\wäöüß-]*(?:str\.|weg|platz|ufer|damm)\s+\d{1,4}[a-h]?\b" + _TAIL,
        # postcodes with their towns, and those that look like nothing else
        r"\b\d{4}-\d{3}\s+[A-ZÀ-Þ][\w'’-]+",
        r"\b[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}\b",
        r"\b[A-Z][a-z]+,\s+[A-Z]{2}\s+\d{5}(?:-\d{4})?\b",
        # where a telephone or a photograph says that one is, to about ten metres
        r"(?<![\w.])-?\d{1,2}\.\d{4,},\s*-?\d{1,3}\.\d{4,}(?![\w.])",
    )
)
_PAPERS = (
    ("number", re.compile(r"(?<![\w.-])(?:\d{3}-\d{2}-\d{4}|\d{3}\.\d{3}\.\d{3}-\d{2})(?![\w-])")),
)
"""A number of social security, a CPF: too short for ``redact``, that looks for longer ones."""

# --- names --------------------------------------------------------------------------------------

_PROPER = r"[A-ZÀ-ÖØ-ÞŁŚŽŠČ][^\W\d_]+(?:[-'’][A-ZÀ-Þ][^\W\d_]+)*"
_FULL = rf"{_PROPER}(?:\s+(?:(?:de|da|do|dos|das|von|van|del|di)\s+)?{_PROPER})?"
_RELATED = frozenset(RELATIONS - PETS) | frozenset(
    """mãe pai irmã irmão filha filho avó avô tia tio prima primo mulher marido namorada namorado
    amiga amigo chefe colega vizinha vizinho sogra sogro cunhada cunhado madrinha padrinho
    madre padre hermana hermano hija hijo abuela abuelo tía tío prima primo esposa esposo novia
    novio amiga amigo jefe jefa vecina vecino suegra suegro cuñada cuñado
    mutter vater schwester bruder tochter sohn oma opa großmutter großvater tante onkel cousine
    cousin frau mann freundin freund chef chefin kollegin kollege nachbarin nachbar
    schwiegermutter schwiegervater""".split()
)
_MINE = (
    r"(?i:my|his|her|our|their|meu|minha|seu|sua|nosso|nossa|mi|su|nuestr[oa]|mein(?:e[nrm]?)?"
    r"|ihre?|seine?|unsere?)"
)
_RELATION = "|".join(sorted(map(re.escape, _RELATED), key=len, reverse=True))
_INTRODUCED = (
    re.compile(rf"\b{_MINE}\s+(?:[a-zà-ÿ]+\s+)?(?i:{_RELATION}),?\s+({_FULL})"),
    re.compile(rf"\b({_FULL}),\s+(?:(?i:a|o)\s+)?{_MINE}\s+(?i:{_RELATION})\b"),
    re.compile(
        r"\b(?:Dr|Dra|Drª|Mr|Mrs|Ms|Mx|Prof|Sir|Lady|Herr|Frau|Sr|Sra|Srta|Dom|Dona|D|Tia|Tio|Tía|Tío"
        rf"|Aunt|Uncle|Avó|Avô|Tante|Onkel|Oma|Opa|Capt|Col|Rev)\.?\s+({_FULL})"
    ),
)
_SMALL = re.compile(
    rf"\b(?:{_MINE}\s+(?:{_RELATION})|dr|dra|mr|mrs|ms|prof|herr|frau|sr|sra|dona|tia|tio|tía|tío|aunt"
    r"|uncle|avó|avô|tante|onkel|oma|opa),?\.?\s+([^\W\d_]{3,})\b"
)
_WRITTEN = re.compile(
    rf"(?<![\w@/.])(?P<name>{_PROPER})(?P<rest>\s+(?:(?:de|da|do|dos|von|van|del)\s+)?{_PROPER})?"
    r"(?![\w@])"
)
_NO_SURNAME = frozenset(
    """monday tuesday wednesday thursday friday saturday sunday january february march april may
    june july august september october november december i i'm i'll i've god english german
    portuguese spanish french segunda terça quarta quinta sexta sábado domingo lunes
    martes""".split()
)
_NOBODY = frozenset(
    """ai claude alexa siri julia ruby jasmine jenkins django florence austin paris sofia vienna
    carolina victoria georgia virginia adelaide alexandria the assistant user bot king queen
    street saint santa são""".split()
)
"""Common first names that are as often something else; they count where somebody bears them."""
_ROLES = frozenset("assistant user system tool you me i document knowme bot".split())
_ALSO_WORDS = STOP_WORDS | frozenset(
    """will may mark rose grace hope joy art bill rob sue pat dean frank grant jack drew chase
    april june august summer autumn dawn faith ivy lily daisy violet olive ruby pearl amber crystal
    gene guy jay max miles nick norm pierce ray reed rich rusty sandy skip ward dick bob angel
    charity mercy star sky rain sol luz mar era an al ernst klaus heide rosa clara blanca
    anders elif mia ina alma bela ada nina
    marina alba bianca linda benedict rocco christian concha penny robin carol holly dolly iris
    jasper kit melody misty sally tony victor wolf friend mother father boss doctor""".split()
)
"""Written small, or first in a sentence, they are words."""
_ALWAYS_WORDS = STOP_WORDS | frozenset("may april june august summer autumn sol an al era".split())
_AUXILIARY = re.compile(r"\s+(?i:i|you|he|she|it|we|they|this|that|the|there|my|your|not|be)\b")
"""What follows a name that is a word where it is the word: "Will it rain", "Mark the page"."""
_WITHIN = re.compile(r"[^\W\d_][,;:]?[ \t]\Z")
"""What stands before a capital that does not begin a sentence."""


@cache
def _first_names() -> frozenset[str]:
    """Return the common first names that the house ships (``claims-names.json``), folded small."""
    told = json.loads((files("knowme") / "data" / "claims-names.json").read_text("utf-8"))
    return frozenset(" ".join(told["names"]).split()) - _ALWAYS_WORDS - _NOBODY


def _is_german(text: str) -> bool:
    """Tell whether a text is in the language in which every noun has a capital."""
    return language_of(text, 0, len(text)) == "de"


def _is_first_name(text: str, match: re.Match[str], german: bool) -> bool:
    """Tell whether a word with a capital is a common first name there, and no word."""
    bare = re.sub(r"['’]s$", "", match["name"]).casefold()
    if bare not in _first_names():
        return False
    return bare not in _ALSO_WORDS or (
        not german and _WITHIN.search(text, 0, match.start()) is not None
    )


class People(NamedTuple):
    """Names that may stand in texts: the person's own in all forms, the first one, others'."""

    own: tuple[str, ...] = ()
    first: str = ""
    others: tuple[str, ...] = ()


class Found(NamedTuple):
    """Something that is taken out: what it is (name, e-mail, password ...), and its words."""

    kind: str
    words: str


def people(home: Home) -> People:
    """Return who is known in this home: by settings, speakers, and facts."""
    with home.db.read() as conn:
        mine = facts.believed(conn, subject=ME, states=("believed", "superseded"))
    called = [f.value for f in mine if f.attribute in ("name", "full name", "nickname")]
    own = [name for name in (home.settings.name, *called) if name.strip()]
    first = _as_written(own[0].split()[0]) if own else ""
    pets = {f.value.casefold() for f in mine if f.attribute in PETS}
    owned = {word.casefold() for name in own for word in name.split()}
    others: list[str] = []
    for name in (*home.speakers(), *home.settings.privacy.names):
        said = name.strip()
        if len(said) < 2 or said.casefold() in pets | _ROLES:
            continue
        (own if all(w.casefold() in owned for w in said.split()) else others).append(said)
    return People(tuple(dict.fromkeys(own)), first, tuple(dict.fromkeys(others)))


def _as_written(name: str) -> str:
    """Return a name with its capital: facts keep it small."""
    return name if name[:1].isupper() else name[:1].upper() + name[1:]


def introduced(texts: Iterable[str]) -> set[str]:
    """Return whom texts introduce: "my sister Ana", "Ana, my boss", "Dr Pinto".

    A common first name that is written as a name once, or small behind "my sister", is somebody's
    wherever it stands: people who write all small write names small.
    """
    heard: set[str] = set()
    for text in texts:
        german = _is_german(text)
        heard |= {m["name"] for m in _WRITTEN.finditer(text) if _is_first_name(text, m, german)}
        small = (m[1] for m in _SMALL.finditer(text))
        heard |= {name for name in small if name in _first_names() - _ALSO_WORDS}
        for pattern in _INTRODUCED:
            for match in pattern.finditer(text):
                words = [w for w in match[1].split() if w.casefold() not in _NO_SURNAME]
                name = " ".join(words)
                if words and words[0].casefold() not in _ALSO_WORDS | _NOBODY and len(name) > 2:
                    heard.add(name)
    return heard


class Scrubber:
    """Cleans texts of one home. Not thread-safe.

    ``texts``: where people are introduced, besides what ``known`` holds.
    """

    def __init__(self, known: People, texts: Iterable[str] = ()) -> None:
        self.known = known
        own = {redact.fold(word) for name in known.own for word in name.split()}
        fresh = {name for name in introduced(texts) if redact.fold(name.split()[0]) not in own}
        self._others = sorted({*known.others, *fresh})
        self._first = redact.fold(known.first)
        self._own = own
        self._used = 0
        self._placeholders = self._new()

    def _new(self) -> redact.Placeholders:
        full = [name for name in self.known.own if len(name.split()) > 1]
        return redact.Placeholders([*full, *self._others])

    def clean(self, text: str) -> tuple[str, list[Found]]:
        """Return the text without what must not be trained, and what was taken out."""
        gone: list[Found] = []
        for _ in range(_TRIES):
            text, some = self._once(text)
            gone += some
            if not some:
                break
        return text, gone

    def found(self, text: str) -> list[Found]:
        """Return what would be taken out of a text, each time that it stands there."""
        return self._once(text)[1]

    def _once(self, text: str) -> tuple[str, list[Found]]:
        gone: list[Found] = []
        text = self._without(text, _secrets(text), gone)
        for kind, pattern in (*_ADDRESSES, *_PAPERS):
            spans = [(kind, *match.span()) for match in pattern.finditer(text)]
            text = self._without(text, spans, gone)
        text = self._placed(text, gone)
        return self._named(text, gone), gone

    def _without(self, text: str, spans: Iterable[tuple[str, int, int]], gone: list[Found]) -> str:
        out, at = [], 0
        for kind, start, end in sorted(spans, key=lambda span: (span[1], -span[2])):
            if start >= at:
                gone.append(Found(kind, text[start:end]))
                out += [text[at:start], f"[{kind}]"]
            at = max(at, end)
        return "".join([*out, text[at:]])

    def _placed(self, text: str, gone: list[Found]) -> str:
        """Replace what ``redact`` finds: contacts, long numbers, and the people who are known."""
        self._used += 1
        if self._used % _RENEWED == 0:
            self._placeholders = self._new()
        sent = self._placeholders.redact(text)
        if sent == text:
            return text
        behind = self._placeholders.used

        def stand_in(match: re.Match[str]) -> str:
            words = behind.get(match[0])
            if words is None or match[1] == "TEXT":
                return match[0] if words is None else words
            if match[1] != "PERSON":
                gone.append(Found(_KINDS[match[1]], words))
                return _STAND_INS[match[1]]
            if words.casefold() in _ALSO_WORDS and _AUXILIARY.match(sent, match.end()):
                return words
            return self._of_person(words, gone)

        return _dotted(_OURS.sub(stand_in, sent))

    def _of_person(self, words: str, gone: list[Found]) -> str:
        parts = [part for part in re.split(r"[\s_.·-]+", redact.fold(words)) if part]
        if self._first and self._first in parts:
            if len(parts) > 1:
                gone.append(Found("own name", words))
            return self.known.first if len(parts) > 1 else words
        if len(parts) == 1 and words.islower() and words in _ALSO_WORDS:
            return words
        gone.append(Found("own name" if set(parts) <= self._own else "name", words))
        return _initial(words)

    def _named(self, text: str, gone: list[Found]) -> str:
        """Replace common first names that are written as names, and the surname after one."""
        german = _is_german(text)

        def stand_in(match: re.Match[str]) -> str:
            name, rest = match["name"], match["rest"] or ""
            own = redact.fold(name) == self._first
            if own or not _is_first_name(match.string, match, german):
                return name + _WRITTEN.sub(stand_in, rest)
            surname = rest.split()[-1].casefold() if rest else ""
            takes = rest and not german and surname not in _NO_SURNAME | STOP_WORDS
            gone.append(Found("name", name + rest if takes else name))
            return _initial(name) + ("" if takes else _WRITTEN.sub(stand_in, rest))

        return _dotted(_WRITTEN.sub(stand_in, text))


_MARK = "\ue000"
"""Stands for the full stop of an initial until it is known whether the sentence ends there."""


def _initial(words: str) -> str:
    letter = next((char for char in words if char.isalpha()), "N")
    return f"{letter.upper()}{_MARK}"


def _dotted(text: str) -> str:
    """Return the text with the stops of its initials: one stop where a sentence ends on one."""
    return text.replace(f"{_MARK}.", ".").replace(_MARK, ".") if _MARK in text else text


_TOLD = re.compile(
    r"(?<!\w)(?:pass(?:word|phrase|code|wort)|kennwort|contraseña|senha|palavra-passe|clave|pin|code|"
    r"código)(?!\w)[^.!?\n]{0,60}?(?:\b(?:is|was|to|ist|war|auf|é|era|para|es)\s|[:=])\s*"
    r"[\"'“‘`]?(?P<secret>(?=[^\s]*\d[^\s]*\d)(?=[^\s]*[^\W\d_])[\w!#$%&*+@?-]{5,64})",
    re.IGNORECASE,
)


def _secrets(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, start, end). Wider than ``redact``, which must not stop prompts for nothing.

    "The password of my strongbox is Kq7-vexor42": there word and value must stand side by side.
    """
    for secret in redact.find_secrets(text):
        yield secret.kind, secret.start, secret.end
    for match in _TOLD.finditer(text):
        yield "password", *match.span("secret")


SECRETS = frozenset(("api key", "private key", "password", "bank card", "bank account"))
"""The kinds that nobody but the person may ever read."""


def of(home: Home, pairs: Sequence[Pair] = ()) -> Scrubber:
    """Return what cleans texts of this home; ``pairs`` introduce people as well."""
    texts = (each.content for pair in pairs for each in pair.messages)
    return Scrubber(people(home), texts)


def clean(home: Home, pairs: Iterable[Pair]) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs without secrets, contacts and others' names, and counts of what went.

    A pair whose answer told a secret is dropped ("pair: secret in the answer"): masked, it would
    still teach to answer so. So is one that is not clean after _TRIES ("pair: not clean").
    """
    every = list(pairs)
    scrubber, counts, kept = of(home, every), Counter[str](), []
    for pair in every:
        cleaned, why = cleaned_pair(scrubber, pair, counts)
        if cleaned is not None:
            kept.append(cleaned)
        else:
            counts[f"pair: {why}"] += 1
    return kept, counts


def cleaned_pair(scrubber: Scrubber, pair: Pair, counts: Counter[str]) -> tuple[Pair | None, str]:
    """Return one pair cleaned, or None and why; what was taken out is added to ``counts``."""
    said, gone = [], []
    for each in pair.messages:
        text, some = scrubber.clean(each.content)
        said.append(ChatMessage(each.role, text))
        gone.append(some)
    rejected, some = scrubber.clean(pair.rejected)
    counts.update(found.kind for part in (*gone, some) for found in part)
    if any(found.kind in SECRETS for found in gone[-1]):
        return None, "secret in the answer"
    if not WORD.search(re.sub(r"\[[a-z -]+\]", "", said[-1].content)):
        return None, "nothing left of the answer"
    if any(scrubber.found(text) for text in (*(each.content for each in said), rejected)):
        return None, "not clean"
    if not any(gone) and not some:
        return pair, ""
    return replace(pair, messages=tuple(said), rejected=rejected), ""
