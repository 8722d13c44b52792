"""Lines of the profile from facts and findings, and what the person said of them. Pure.

Promises: the order of what is given does not matter; a line needs two independent places (another
conversation, or another day) unless the person said it outright; what happened on one day is no
line; the person's word wins over anything derived.
Refuses to know: tables, files, prompts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import NamedTuple

from knowme import whens
from knowme.attributes import RELATIONS, attribute, sentence, value_key
from knowme.psyche import MIND, Finding
from knowme.sensitive import sensitive as kinds_of
from knowme.types import ME, Evidence, Fact, Line
from knowme.verbs import BASE, form, third

SECTIONS: Mapping[str, str] = {
    "identity": "Identity",
    "people": "People",
    "preferences": "Preferences",
    "work": "Working style",
    "context": "Current context",
    "communication": "Communication",
    "health": "Health",
    "personality": "Personality",
    "values": "Values",
    "habits": "Habits",
}
"""Sections and their headings, in the order of the page. A person may add their own."""
ACTIONS = ("write", "edit", "strike", "pin", "unpin")
LAST = 90.0
"""The place of a line that the person adds: at the end of its section."""
PRIVATE = "[private]"
TITLE = "title"
"""The section of the page's first heading, where the person changed it."""
COMMENT = "<!-- knowme writes this page. Change, add or delete lines: your word stays. -->"
LONGEST = 300
"""Characters of a line that the person writes by command."""

_BULLET = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)])\s+")
HEADING = re.compile(r"^\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_TAGGED = re.compile(r"\s*\[private\]\s*$", re.IGNORECASE)


class Decision(NamedTuple):
    """What the person said of a line. ``key`` is a section, for write and edit."""

    id: int
    at_ms: int
    uid: str
    action: str
    key: str
    text: str


# --- lines from facts -----------------------------------------------------------------------------


def lines_from(
    facts: Iterable[Fact],
    findings: Iterable[Finding],
    decisions: Iterable[Decision],
    *,
    today: str,
    places: Mapping[int, str],
    keep_sensitive: bool = True,
) -> list[Line]:
    """Return every line there is to say, with its state, in the order of the page.

    ``facts`` are those believed and those that repeat them (others are passed over); ``today`` an
    ISO day: what is over by then is left out; ``places`` maps a message's id to where and when it
    was said (any text, such as "conversation day"): as many different ones, as many independent
    places. ``keep_sensitive`` False: nothing derived that is about health, politics and the like.
    Times of the lines are 0: the store knows them. Pure; the order of facts and findings does not
    matter.
    """
    known = [fact for fact in facts if fact.state in ("believed", "repeated")]
    known = [fact for fact in known if not _over(fact, today)]
    left = _left(known)
    known = [fact for fact in known if fact.uid not in left]
    made = [*_own(known, places, today), *_people(known, places)]
    made += [_of_finding(finding) for finding in findings]
    derived: dict[str, Line] = {}
    if not keep_sensitive:
        made = [plain for line in made if (plain := _without_sensitive(line)) is not None]
    for line in sorted(made, key=lambda line: (line.uid, -line.confidence, line.text)):
        derived.setdefault(line.uid, line)
    decisions = list(decisions)
    return in_order(_once(_told(derived, decisions), decisions))


def _without_sensitive(line: Line) -> Line | None:
    """Return a line without its sensitive quotes; None if it is so itself, or rests on no other."""
    if not set(line.sensitive) <= {MIND}:
        return None
    quotes = tuple(each for each in line.evidence if not kinds_of(each.quote))
    return replace(line, evidence=quotes) if quotes or not line.evidence else None


def line_uid(*about: str) -> str:
    """Return the uid of the line about this: 16 hex digits."""
    return hashlib.sha256("\0".join(("line", *about)).encode()).hexdigest()[:16]


def normal(text: str) -> str:
    """Return a line as two of them are compared: no case, no bullet, no outer marks."""
    return " ".join(_BULLET.sub("", text).split()).casefold().rstrip(".!… ")


_FIRST = tuple(
    """name|full name|nickname|pronouns|age|birthday|residence|occupation|employer|origin|birthplace
    |raised in|nationality|speaks|native language|marital status|school|allergy|condition
    |medication|diet|does not eat|call me|answer language|answer length|tone|units|answers|prefers
    |likes|dislikes""".replace("\n    ", "").split("|")
)
"""What a reader wants to know first, within its section."""
_WHOLE = frozenset({"employer", "occupation", "school", "business"})
"""Of one's work, but who one is rather than how one works."""
_SOON_OLD = frozenset(
    "plans to|plans|wants to|wants|hopes to|decided|goal|is learning|looks forward to|deadline"
    "|budget|works on".split("|")
)
_LOOSE = frozenset("has|is|wants|wants to|has family|works with|eats|avoids|plans".split("|"))
"""Said of peas in the kitchen as well as of a house: what is said once of these is no trait."""
_LONG = 6
"""Words of a value from which on it is half a story, and no line unless it was told twice."""
_NAMED = frozenset(
    "name|full name|nickname|residence|birthplace|origin|raised in|employer|school|nationality"
    "|speaks|native language|call me|answer language".split("|")
)
"""What is written with a capital, also by those who write none."""
_PARTICLES = frozenset("of the a an de da do das dos del la van von der and e y und".split())
_VAGUE = re.compile(
    r"\b(?:something|someone|somebody|anything|everything|stuff|loads|a lot|things|each other)\b"
    r"|^(?:an? )?(?:new |big )?(?:project|game|book)s?$|^(?:it|that|this|them|having|doing)$", re.I,
)  # fmt: skip
_ELSEWHERE = frozenset({"value", "care about"})
"""What the order of values tells better."""
_LASTING = re.compile(
    r"is (?:part of|passionate about|a member of|responsible for|in charge of|afraid of|fluent in"
    r"|married to|engaged to|named after|known (?:as|for)|used to|able to|new to|fond of|into)\b"
)
_OLD_DAYS = 120
"""After so many days an undated plan is no plan any more, unless it is spoken of again."""


def _section(name: str) -> str:
    found = attribute(name).section
    if found == "events" and _is_habit(name) and not name.startswith("is "):
        return "preferences"
    return {"events": "context"}.get(found, "identity" if name in _WHOLE else found)


def _over(fact: Fact, today: str) -> bool:
    """Tell whether it is over by now, or was a matter of one day."""
    when = fact.when
    if (when.to_last and when.to_last < today) or _passed(fact, today):
        return True
    one_day = bool(when.from_first) and when.from_first == when.to_last
    return one_day and attribute(fact.attribute).section != "context"


_AT = re.compile(r"\b(?:at|for|with|na|no|em|en|bei)\s+(?P<firm>[^,;]+)$", re.IGNORECASE)


def _left(facts: Sequence[Fact]) -> set[str]:
    """Return the uids of what the person was at a place that they work at no more.

    "I am an analyst at Sonae", and later "I work at Feedzai": both are kept as facts, and only the
    later one is who they are now.
    """
    own = [fact for fact in facts if fact.subject == ME]
    firms = [fact for fact in own if fact.attribute == "employer"]
    now = {value_key("employer", fact.value) for fact in firms}
    latest = max((fact.said_ms or 0 for fact in firms), default=0)
    gone = set()
    for fact in own:
        place = _AT.search(fact.value) if fact.attribute == "occupation" else None
        later = place is not None and not fact.pinned and (fact.said_ms or 0) < latest
        if later and place and value_key("employer", place["firm"]) not in now:
            gone.add(fact.uid)
    return gone


def _passed(fact: Fact, today: str) -> bool:
    """Tell whether a date that is the value itself has come and gone: a meeting of last March.

    A date that may be of several years counts as passed when the last of them is.
    """
    if not fact.attribute.startswith("date of ") or fact.said_ms is None:
        return False
    told = [found.when.to_last for found in whens.find(fact.value, _day(fact.said_ms))]
    return bool(told) and all(last and last < today for last in told)


def _own(facts: Sequence[Fact], places: Mapping[int, str], today: str) -> list[Line]:
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        if fact.subject == ME and attribute(fact.attribute).section != "people":
            about = (fact.attribute, value_key(fact.attribute, fact.value))
            groups.setdefault(about, []).append(fact)
    made = []
    for about, group in groups.items():
        group.sort(key=_age)
        if not _too_old(group, today) and not _of_the_moment(group):
            made.append(_own_line(about, group, places, today))
    return made


def _age(fact: Fact) -> tuple[int, str]:
    return (fact.said_ms or 0, fact.uid)


def _too_old(group: Sequence[Fact], today: str) -> bool:
    last = max((fact.said_ms for fact in group if fact.said_ms is not None), default=None)
    fact = group[-1]
    if last is None or fact.attribute not in _SOON_OLD or fact.when.to_last or fact.pinned:
        return False
    return (date.fromisoformat(today) - _day(last)).days > _OLD_DAYS


def _of_the_moment(group: Sequence[Fact]) -> bool:
    """Tell whether it says nothing that lasts: "something special", "went to the fair"."""
    if _VAGUE.search(group[-1].value) and not any(fact.pinned for fact in group):
        return True
    if attribute(group[0].attribute).section != "events":
        return False
    if group[0].attribute in _ELSEWHERE:
        return True
    return not any(not fact.when.to_last for fact in group)


def _day(at_ms: int) -> date:
    return date(1970, 1, 1) + timedelta(days=at_ms // 86_400_000)


def _own_line(
    about: tuple[str, str], group: Sequence[Fact], places: Mapping[int, str], today: str
) -> Line:
    name, known_as = about
    newest = group[-1]
    text = _said_plainly(name, _cased(name, newest.value)) + _since(newest) + _then(newest, today)
    heard = {places.get(fact.message_id, str(fact.message_id)) for fact in group}
    outright = any(fact.outright and fact.certain or fact.pinned for fact in group)
    if _is_loose(name, newest.value):
        outright = any(fact.pinned for fact in group)
    sure = _confidence(group, len(heard), outright)
    kinds = {kind for fact in group for kind in fact.sensitive}
    return Line(
        uid=line_uid("fact", name, known_as),
        section=_section(name),
        text=text,
        confidence=sure,
        state="current" if outright or len(heard) > 1 else "thin",
        written_by=newest.read_by,
        sensitive=tuple(sorted(kinds.union(attribute(name).sensitive, kinds_of(text)))),
        place=round(_rank(name) + (1 - sure) / 2, 4),
        pinned=False,
        recorded_ms=0,
        retired_ms=None,
        evidence=_quotes(group),
    )


def _is_loose(name: str, what: str) -> bool:
    """Tell whether it takes two places to believe that this is of the person, not of a moment."""
    section = attribute(name).section
    told_twice = len(what.split()) >= _LONG and section not in ("communication", "health")
    passing = section == "events" and not _is_habit(name)
    return passing or name in _LOOSE or told_twice


def _is_habit(name: str) -> bool:
    """Tell whether a verb phrase says what somebody does as a rule: "read", "is part of"."""
    head = name.partition(" ")[0]
    found = form(head)
    return bool(_LASTING.match(name)) or (found is not None and BASE in found.kinds)


def _cased(name: str, what: str) -> str:
    """Return a name with its capitals where the writer uses none: "porto" -> "Porto"."""
    words = what.split()
    named = name in _NAMED or attribute(name).section == "people"
    if not named or what != what.lower() or not words or len(words) > 4 or words[0] in _PARTICLES:
        return what
    return " ".join(word if word in _PARTICLES else word[:1].upper() + word[1:] for word in words)


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _confidence(group: Sequence[Fact], heard: int, outright: bool) -> float:
    """Return how sure a line is: .9 said outright, .6 read from one place; each place adds."""
    if any(fact.pinned or fact.read_by == "person" for fact in group):
        return 1.0
    one = 0.9 if outright else 0.6 if any(fact.certain for fact in group) else 0.4
    return round(min(0.99, 1 - (1 - one) * 0.5 ** (heard - 1)), 2)


def _quotes(group: Iterable[Fact]) -> tuple[Evidence, ...]:
    found = {
        (fact.message_id, fact.start): Evidence(
            fact.message_id, fact.start, fact.end, fact.quote, fact.uid
        )
        for fact in sorted(group, key=_age, reverse=True)
    }
    return tuple(found[each] for each in sorted(found))


_NOBODY = "\x01"


def _said_plainly(name: str, what: str) -> str:
    """Return a fact without its subject: "Lives in Porto", "Favourite tea: oolong"."""
    if name == "rule":  # as it was laid down: "Rule: never mock our own classes"
        return f"Rule: {what}"
    told = " ".join(sentence(_NOBODY, name, what).split()).rstrip(". ")
    if attribute(name).section == "events" and _is_habit(name) and not name.startswith("is "):
        head = name.partition(" ")[0]  # "read" is a past to `sentence`, and a habit here
        told = re.sub(rf"^{_NOBODY} {head}\b", f"{_NOBODY} {third(head)}", told)
    if told.startswith(f"{_NOBODY}'s "):
        label = name.partition(": ")[2] or name
        told = f"{label}: {told.partition(' is ')[2] or what}"
    else:
        told = told.removeprefix(_NOBODY).strip()
    return (told[:1].upper() + told[1:]).replace(_NOBODY, "they")


def _then(fact: Fact, today: str) -> str:
    """Return when an age was told, where that is long ago: " (in 2024)"."""
    if fact.attribute != "age" or fact.said_ms is None:
        return ""
    said = _day(fact.said_ms)
    return f" (in {said.year})" if (date.fromisoformat(today) - said).days > 300 else ""


def _since(fact: Fact) -> str:
    """Return since when, or when, where the person told a time; "" where it is open."""
    when = fact.when
    if when.from_first and when.from_first == when.to_last:
        return f" (on {when.from_first})"
    parts = []
    said = None if fact.said_ms is None else _day(fact.said_ms)
    began = _period(when.from_first, when.from_last)
    if began and (said is None or abs((date.fromisoformat(when.from_last) - said).days) > 2):
        parts.append(f"since {began}" if when.from_last <= str(said or "9999") else f"from {began}")
    if ended := _period(when.to_first, when.to_last):
        parts.append(f"until {ended}")
    return f" ({', '.join(parts)})" if parts else ""


def _period(first: str, last: str) -> str:
    """Return an interval as its day, its month or its year; "" for a wider one."""
    if not first or not last or first[:4] != last[:4]:
        return ""
    return first if first == last else first[:7] if first[:7] == last[:7] else first[:4]


# --- people ---------------------------------------------------------------------------------------

_PHRASES_EACH = 3


def _people(facts: Sequence[Fact], places: Mapping[int, str]) -> list[Line]:
    """Return one line for each person or animal that the person calls theirs, or often speaks of.

    What is said of somebody else's life is told after their name: "Ana (sister): lives in Berlin".
    """
    relations: dict[str, list[Fact]] = {}
    more: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.subject != ME:
            more.setdefault(_known_as(fact.subject), []).append(fact)
        elif attribute(fact.attribute).section == "people":
            whose, colon, _ = fact.attribute.partition(": ")
            if not colon and not (fact.attribute in RELATIONS and _is_name(fact.value)):
                continue
            name = whose if colon else _known_as(fact.value)
            (more if colon else relations).setdefault(name, []).append(fact)
    made = []
    for name in sorted(relations):
        ties = sorted(relations[name], key=_age)
        kin = {tie.attribute for tie in ties}
        told = more.get(name, []) + [each for k in kin if k != name for each in more.get(k, [])]
        made.append(_person(name, ties, sorted(told, key=_age), places))
    for name in sorted(set(more) - set(relations)):
        if not any(name in {tie.attribute for tie in ties} for ties in relations.values()):
            made.append(_person(name, [], sorted(more[name], key=_age), places))
    return [line for line in made if line is not None]


def _is_name(what: str) -> bool:
    """Tell whether this can be what somebody is called: not "a teen just like me"."""
    words = what.split()
    return 0 < len(words) <= 4 and words[0].casefold() not in _PARTICLES and not _VAGUE.search(what)


_OWNED = re.compile(r"^(?:my|our|their)\s+")


def _said_again(fact: Fact) -> str:
    """Return the tie that "Tomás is their manager", read of the same words, names; else ""."""
    return "" if fact.subject == ME else _OWNED.sub("", fact.value.casefold())


def _known_as(name: str) -> str:
    return " ".join(name.casefold().split()).strip(".,;:!? ")


def _person(
    name: str, ties: Sequence[Fact], told: Sequence[Fact], places: Mapping[int, str]
) -> Line | None:
    tied = {tie.attribute for tie in ties}  # "Tomás is their manager" says the tie once more
    lasting = [
        fact
        for fact in told
        if attribute(_inner(fact)).section not in ("events", "context")
        and _said_again(fact) not in tied
        and not _is_loose(_inner(fact), fact.value)
        and not _VAGUE.search(fact.value)
    ]
    group = [*ties, *lasting]
    if not group:
        return None
    heard = {places.get(fact.message_id, str(fact.message_id)) for fact in group}
    outright = any(fact.outright and fact.certain or fact.pinned for fact in ties)
    phrases: dict[str, None] = {}
    for fact in sorted(lasting, key=lambda f: (_rank(_inner(f)), -(f.said_ms or 0), f.uid)):
        text = _said_plainly(_inner(fact), _cased(_inner(fact), fact.value)) + _since(fact)
        phrases.setdefault(text[:1].lower() + text[1:])
    kin = ", ".join(dict.fromkeys(tie.attribute for tie in ties))
    whose = name if told and told[-1].subject == ME else told[-1].subject if told else name
    called = _cased(ties[-1].attribute, ties[-1].value.strip()) if ties else whose
    text = called[:1].upper() + called[1:]
    if kin and _known_as(called) != kin:
        text += f" ({kin})"
    if phrases:
        text += ": " + "; ".join(list(phrases)[:_PHRASES_EACH])
    elif not kin:
        return None
    sure = _confidence(group, len(heard), outright)
    kinds = {kind for fact in group for kind in fact.sensitive}.union(kinds_of(text))
    return Line(
        line_uid("person", name), "people", text, sure,
        "current" if outright or len(heard) > 1 else "thin", group[-1].read_by,
        tuple(sorted(kinds)), round((0 if kin else 2) + (1 - sure), 4), False, 0, None,
        _quotes(group),
    )  # fmt: skip


def _inner(fact: Fact) -> str:
    return fact.attribute.partition(": ")[2] or fact.attribute


def _of_finding(finding: Finding) -> Line:
    enough = finding.outright or finding.places > 1
    return Line(
        line_uid(*finding.about), finding.section, finding.text, round(finding.confidence, 2),
        "current" if enough else "thin", "rules",
        tuple(sorted({*finding.kinds, *kinds_of(finding.text)})), float(finding.place),
        False, 0, None, _distinct(finding.evidence),
    )  # fmt: skip


def _distinct(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    found = {(one.message_id, one.start): one for one in evidence}
    return tuple(found[each] for each in sorted(found))


# --- the person's word ----------------------------------------------------------------------------


def _told(derived: Mapping[str, Line], decisions: Iterable[Decision]) -> list[Line]:
    """Apply what the person said, in its order."""
    lines = dict(derived)
    ordered = sorted(decisions)
    unpinned = {one.uid: one.id for one in ordered if one.action == "unpin"}
    for decision in ordered:
        if decision.action == "pin" and decision.id < unpinned.get(decision.uid, 0):
            continue  # as if it never was: a thin line is thin again
        line = apply(lines.get(decision.uid), decision)
        if line is not None:
            lines[decision.uid] = line
    return list(lines.values())


def apply(line: Line | None, decision: Decision) -> Line | None:
    """Return the line after one decision; None where there is none to change."""
    if decision.action in ("write", "edit"):
        text, private = untagged(decision.text)
        kept = set() if line is None else {kind for kind in line.sensitive if kind != "private"}
        kinds = kept.union(kinds_of(text), {"private"} if private else ())
        own = line or Line(decision.uid, "", "", 1.0, "", "", (), LAST, False, 0, None)
        return replace(
            own, section=decision.key or own.section, text=text, confidence=1.0, state="current",
            written_by="person", sensitive=tuple(sorted(kinds)),
        )  # fmt: skip
    if line is None:
        return None
    if decision.action == "strike":
        return replace(line, state="struck")
    return replace(line, pinned=decision.action == "pin", state=_back(line, decision))


def _back(line: Line, decision: Decision) -> str:
    """A line that is pinned stands, however thin it is."""
    pinned = decision.action == "pin"
    return "current" if pinned and line.state in ("thin", "replaced") else line.state


def untagged(text: str) -> tuple[str, bool]:
    """Return a line without its bullet and its " [private]", and whether it had that."""
    bare = " ".join(_BULLET.sub("", text).split())
    return _TAGGED.sub("", bare).strip(), bool(_TAGGED.search(bare))


def _once(lines: Sequence[Line], decisions: Iterable[Decision]) -> list[Line]:
    """Let each wording stand once; one that was struck does not come back under another name."""
    struck = {normal(line.text) for line in lines if line.state == "struck"}
    struck |= {normal(one.text) for one in decisions if one.action == "strike" and one.text}
    seen: set[str] = set()
    kept = []
    for line in sorted(lines, key=lambda one: (one.written_by != "person", one.state, one.uid)):
        text, state = normal(line.text), line.state
        if state == "current" and line.written_by != "person" and text in struck:
            state = "struck"
        elif state == "current" and text in seen:
            state = "replaced"
        if state == "current":
            seen.add(text)
        kept.append(replace(line, state=state))
    return kept


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Return lines in the order of the page: by section, then by what a reader wants first."""
    known = list(SECTIONS)

    def key(line: Line) -> tuple[int, str, bool, float, float, str, str]:
        number = known.index(line.section) if line.section in SECTIONS else len(known)
        return (number, line.section, not line.pinned, line.place, -line.confidence, line.text,
                line.uid)  # fmt: skip

    return sorted(lines, key=key)
