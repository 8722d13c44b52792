"""Attributes: what a claim can be about, and how it is said in a sentence.

Promises: pure; an attribute that is not in the list is a verb phrase of an event, or somebody's
("sister: residence"), and still makes a sentence; ``value_key`` is the same for two wordings of one
value that differ in case, articles, spaces or punctuation only.
Refuses to know: where claims come from, what is believed.

A verb phrase stands as it is said of an event ("went to", "training for") or as the verb's base
form for what lasts ("play"); "is proud of" is a state. "sister: residence" is the residence of the
subject's sister.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from knowme.types import ME, When
from knowme.verbs import BASE, ING, PARTICIPLE, PAST, form, third

SECTIONS = (
    "identity",
    "people",
    "preferences",
    "work",
    "context",
    "communication",
    "health",
    "events",
)


class Attribute(NamedTuple):
    """What a claim is about.

    ``single``: one value at a time, a newer one ends the older. ``sensitive``: kinds (health ...),
    whatever the value is. ``verb``: how a sentence says it ("live in"); "" says "My name is ...".
    """

    name: str
    section: str
    single: bool = False
    sensitive: tuple[str, ...] = ()
    verb: str = ""


def _many(section: str, *names: str, sensitive: tuple[str, ...] = ()) -> list[Attribute]:
    found = []
    for entry in names:
        name, _, verb = entry.partition("=")
        found.append(Attribute(name, section, False, sensitive, verb))
    return found


def _one(section: str, *names: str, sensitive: tuple[str, ...] = ()) -> list[Attribute]:
    return [one._replace(single=True) for one in _many(section, *names, sensitive=sensitive)]


RELATIONS = frozenset(
    """
    wife husband spouse partner girlfriend boyfriend fiance fiancee fiancé fiancée mother mom
    mum father dad parents parent sister brother sibling siblings son daughter child children
    kids kid baby twin grandmother grandma grandfather grandpa grandparents aunt uncle cousin
    niece nephew grandson granddaughter stepmother stepfather stepson stepdaughter godmother
    godfather goddaughter godson friend boss manager colleague coworker teacher coach mentor
    roommate flatmate neighbour neighbor landlord doctor dentist therapist cat dog pet puppy
    kitten horse rabbit bird parrot hamster guinea-pig turtle tortoise fish ex ex-wife
    ex-husband mother-in-law father-in-law sister-in-law brother-in-law son-in-law
    daughter-in-law in-laws family team
    """.split()
)
"""People and animals that somebody may call theirs: each is an attribute, its value a name."""
PETS = frozenset(
    """
    cat dog pet puppy kitten horse rabbit bird parrot hamster guinea-pig turtle tortoise fish
    """.split()
)
SEVERAL = frozenset("parents kids children siblings grandparents in-laws".split())
"""Those of them that are more than one."""
_SINGLE_RELATIONS = frozenset(
    "wife husband spouse girlfriend boyfriend fiance fiancee fiancé fiancée boss landlord".split()
)

_LISTED = (
    *_one("identity", "name", "age", "birthday", "birthplace=be born in", "residence=live in"),
    *_one("identity", "nickname=go by", "pronouns", "marital status=be", "full name"),
    *_one("identity", "height", "zodiac sign"),
    *_many("identity", "origin=be from", "raised in=grow up in", "nationality=be"),
    *_many("identity", "speaks=speak", "native language", "is=be"),
    *_many("identity", "religion=be", sensitive=("religion",)),
    *_many("people", "has family=have"),
    *_many("preferences", "likes=like", "dislikes=dislike", "prefers=prefer"),
    *_many("preferences", "is interested in=be interested in", "does not eat=not eat"),
    *_many(
        "preferences",
        "does not drink=not drink",
        "diet=be",
        "eats=eat",
        "drinks=drink",
        "reads=read",
    ),
    *_many("preferences", "avoids=avoid", "hobby", "collects=collect"),
    *_one("work", "employer=work at", "salary", "major", "school=study at"),
    *_many("work", "occupation=be", "works in=work in", "works on=work on", "uses=use"),
    *_many(
        "work",
        "studies=study",
        "degree",
        "skill=be good at",
        "project",
        "thesis",
        "university",
        "works with=work with",
    ),
    *_many("work", "does not use=not use", "business", "runs=run", "teaches=teach"),
    *_many("context", "owns=own", "has=have", "plans to=plan to", "plans=plan"),
    *_many(
        "context",
        "wants to=want to",
        "needs to=need to",
        "hopes to=hope to",
        "decided",
        "goal",
        "dream",
    ),
    *_many(
        "context", "decision", "wants=want", "is learning=be learning", "habit", "looks forward to"
    ),
    *_many("context", "car", "bike", "laptop", "phone", "address", "instrument"),
    *_one("context", "time zone", "shoe size"),
    *_many("health", "diagnosis", sensitive=("health",)),
    *_one("context", "bank", "budget", "deadline", "rent", "weight goal"),
    *_one("communication", "answer language", "answer length", "call me", "units", "tone"),
    *_many("communication", "answers", "avoid in answers", "rule"),
    *_many("health", "allergy=be allergic to", sensitive=("health",)),
    *_many("health", "condition=have", "medication=take", sensitive=("health",)),
    *_one("health", "blood type", "weight", sensitive=("health",)),
    *_many("events", "event"),
)

ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType(
    {one.name: one for one in _LISTED}
    | {name: Attribute(name, "people", name in _SINGLE_RELATIONS) for name in sorted(RELATIONS)}
)
"""The canonical attributes by name."""

_SHARED = frozenset(
    """standup stand-up golive go-live launch release kickoff kick-off wedding moving due start end
    move-in deadline with com con mit casamento mudança boda mudanza hochzeit umzug""".split()
)
"""What there is one of, so that a newer date moves it: "the launch", "the one-on-one with Ana"."""
_ARTICLE = re.compile(
    r"^(?:(?:the|an?|some|my|our|o|os|as|uma?|uns|umas|el|la|los|las|un[oa]?s?|der|die|das|den|dem"
    r"|eine[nmrs]?|ein|meine?[nmr]?|meus?|minhas?|mis?)\s+)+(?=\S)"
)
_SPACES = re.compile(r"\s+")
_EDGES = " \t\n.,;:!?\"'“”‘’«»()[]…-–—*_~"
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
        fifteen sixteen seventeen eighteen nineteen twenty""".split()
    )
}
_MINE = {
    "my": "their",
    "our": "their",
    "me": "them",
    "us": "them",
    "mine": "theirs",
    "ours": "theirs",
    "myself": "themselves",
    "ourselves": "themselves",
    "i": "they",
    "we": "they",
    "i'm": "they're",
    "i've": "they've",
}
_FIRST_PERSON = re.compile(r"\b(?:my|our|me|us|mine|ours|myself|ourselves|i'm|i've|i|we)\b", re.I)


def attribute(name: str) -> Attribute:
    """Return what is known of an attribute; an unknown one has many values, section "events"."""
    known = ATTRIBUTES.get(name)
    if known is not None:
        return known
    whose, colon, what = name.partition(": ")
    if colon and whose in RELATIONS:
        inner = attribute(what)
        section = inner.section if inner.section == "events" else "people"
        return Attribute(name, section, inner.single, inner.sensitive, inner.verb)
    if name.startswith("date of "):
        return Attribute(name, "context", not _SHARED.isdisjoint(name.split()))
    if name.startswith("favourite "):
        return Attribute(name, "preferences", True)
    return Attribute(name, "events")


def value_key(attribute: str, value: str) -> str:
    """Return a value as two wordings of it are compared: no case, articles, outer punctuation.

    Number words up to twenty are digits where the value is an age or begins with a number.
    """
    text = unicodedata.normalize("NFKC", value).casefold().replace("’", "'")
    text = _SPACES.sub(" ", text).strip(_EDGES)
    bare = _ARTICLE.sub("", text).strip(_EDGES) or text
    if attribute == "age":
        digits = re.search(r"\d+", bare)
        return digits[0] if digits else _NUMBER_WORDS.get(bare.split(" ")[0], bare)
    head, space, rest = bare.partition(" ")
    return _NUMBER_WORDS.get(head, head) + space + rest


def sentence(
    subject: str, attribute: str, value: str, when: When | None = None, *, ended: bool = False
) -> str:
    """Return the claim as one English sentence that stands alone; the value is put in as it is.

    ME speaks in the first person. ``ended``: it was so and is no longer. ``when`` is not told: it
    has columns of its own.
    """
    me = subject == ME
    said = value if me else _FIRST_PERSON.sub(lambda m: _MINE[m[0].lower()], value)
    whose, colon, what = attribute.partition(": ")
    if colon and whose in RELATIONS:
        owner = f"My {whose}" if me else f"{subject}'s {whose}"
        person = _PLURAL if whose in SEVERAL else _THIRD
        told = _told(owner, f"{owner}'s", person, what, said, ended)
    elif me:
        told = _told("I", "My", _FIRST, attribute, said, ended)
    else:
        told = _told(subject, f"{subject}'s", _THIRD, attribute, said, ended)
    told = _SPACES.sub(" ", told).strip()
    return told if told.endswith((".", "!", "?")) else told + "."


_FIRST, _THIRD, _PLURAL = 0, 1, 2
_BE, _HAVE, _DO = ("am", "is", "are"), ("have", "has", "have"), ("do", "does", "do")
_PHRASES = {
    "decided": ("decided", "decided"),
    "looks forward to": ("look forward to", "looks forward to"),
    "answers": ("want answers:", "wants answers:"),
    "avoid in answers": ("do not want in answers:", "does not want in answers:"),
    "call me": ("want to be called", "wants to be called"),
    "rule": ("set the rule:", "sets the rule:"),
    "units": ("want units to be", "wants units to be"),
    "answer language": ("want answers in", "wants answers in"),
    "answer length": ("want answers to be", "wants answers to be"),
}
_PASTS_ALIKE = frozenset("quit put set hit cut hurt split read".split())


def _told(who: str, whose: str, person: int, name: str, value: str, ended: bool) -> str:
    if name == "event":
        return f"{who} {value}"
    if name.startswith("date of "):
        return f"The {name.removeprefix('date of ')} {'was' if ended else 'is'} {value}"
    if name == "age" and value.isdigit():
        return f"{who} {_be(person, ended)} {value} years old"
    known = attribute(name)
    if known.verb:
        return f"{who} {_conjugated(known.verb, person, ended)} {value}"
    if name in _PHRASES:
        return f"{who} {_PHRASES[name][person == _THIRD]} {value}"
    if name in ATTRIBUTES or name.startswith("favourite "):
        return f"{whose} {name} {'was' if ended else 'is'} {value}"
    return f"{who} {_verb_phrase(name, person, ended)} {value}"


def _be(person: int, ended: bool) -> str:
    if ended:
        return "were" if person == _PLURAL else "was"
    return _BE[person]


def _base(verb: str, person: int) -> str:
    return third(verb) if person == _THIRD else verb


def _conjugated(verb: str, person: int, ended: bool) -> str:
    """Return "live in" as "live in", "lives in" or "used to live in"."""
    head, _, rest = verb.partition(" ")
    if head == "be" and rest.startswith("born"):
        return f"{_be(person, True)} {rest}"
    if head == "grow":
        return f"grew {rest}"
    if ended:
        return f"used to {verb}"
    if head == "be":
        return f"{_BE[person]} {rest}".rstrip()
    if head == "not":
        return f"{_DO[person]} not {rest}"
    return f"{_base(head, person)} {rest}".rstrip()


def _verb_phrase(phrase: str, person: int, ended: bool) -> str:
    head, _, rest = phrase.partition(" ")
    if head == "was":
        return f"{_be(person, True)} {rest}"
    if head in ("is", "has"):
        if ended:
            return f"used to {'be' if head == 'is' else 'have'} {rest}"
        return f"{(_BE if head == 'is' else _HAVE)[person]} {rest}"
    found = form(head)
    past_only = found is not None and found.kinds & {PAST, PARTICIPLE} and BASE not in found.kinds
    if found is None or past_only or head in _PASTS_ALIKE:
        return phrase
    if ING in found.kinds:
        return f"{_be(person, ended)} {phrase}"
    return f"used to {phrase}" if ended else f"{_base(head, person)} {rest}".rstrip()


__all__ = [
    "ATTRIBUTES",
    "PETS",
    "RELATIONS",
    "SEVERAL",
    "SECTIONS",
    "Attribute",
    "attribute",
    "sentence",
    "value_key",
]
