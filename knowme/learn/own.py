"""What is believed of the person and what they decided, as pairs; how the archive grows.

``facts``: what is believed of them, asked in several ways; how they want to be answered is asked
most. ``decisions``: what they chose and why, once with the reasons in ``<think>...</think>`` before
the choice (label ``think``), once as they put it (``plain``). ``style`` stands in ``writing``.

Promises: every answer is a believed fact's sentence, or the person's own words; for
assistant-for-me "I" becomes "you", and what cannot be turned so is quoted. Each pair names all
messages that it rests on. Facts about other people, events and dates are left to memory.
Refuses to know: which pairs are good (``quality``), what may be trained (``scrub``), which side a
pair is on (``split``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from knowme import facts as beliefs
from knowme.attributes import PETS, RELATIONS, attribute, value_key
from knowme.claims.languages import language_of
from knowme.db import rows
from knowme.facts.listing import corrected
from knowme.learn import pairs
from knowme.learn.exchanges import OURS, says_something, turns
from knowme.learn.writing import (
    Rare,
    Written,
    ends,
    entries,
    is_voice,
    messages_of,
    notes,
    pick,
    rarity,
    style,
    wordings,
)
from knowme.times import now_ms
from knowme.types import ME, ChatMessage, Fact, Pair
from knowme.words import STOP_WORDS, words

if TYPE_CHECKING:
    from knowme.home import Home

MOST_FACTS = 5_000
TOGETHER = 8
"""Facts of one kind that one answer names, at most: the newest."""
FEW_WORDS = 5
WEEK_MS = 7 * 86_400_000

# --- facts --------------------------------------------------------------------------------------

_TRANSIENT = frozenset(
    """decided decision plan plans deadline wants needs has
    """.split()
) | {"plans to", "wants to", "needs to", "hopes to", "looks forward to"}
"""What a fine-tuned model should not know by heart: it will be otherwise soon."""


class _Known(NamedTuple):
    fact: Fact
    because: tuple[int, ...]
    place: str
    at_ms: int | None
    corrected: bool
    language: str


def facts(
    home: Home, *, purpose: str, system_prompt: str = "", sensitive: bool = False
) -> Iterator[Pair]:
    """Yield questions on what is believed of the person, each with its answer.

    What has one value is asked for outright; what has many also value by value, and as far as it
    was said in one place, all together. ``sensitive``: also health, politics and the like. Raises
    InputError, StoreError.
    """
    mine = is_voice(purpose)
    told = wordings()
    with home.db.read() as conn:
        known = _known(conn, sensitive)
    said = told["speech"][purpose]
    for asked, answer, some in _asked(known, told, said["en"], purpose, mine):
        system = (ChatMessage("system", system_prompt),) if system_prompt.strip() else ()
        times = [one.at_ms for one in some if one.at_ms is not None]
        yield pairs.made(
            purpose,
            "fact",
            (*system, ChatMessage("user", asked), ChatMessage("assistant", answer)),
            [number for one in some for number in one.because],
            some[-1].place,
            at_ms=max(times, default=None),
            language="en" if answer.startswith(("You", "I ", "My ")) else some[0].language,
            labels=tuple(sorted({attribute(one.fact.attribute).section for one in some})),
        )


def _known(conn: apsw.Connection, sensitive: bool) -> list[_Known]:
    edited = corrected(conn)
    found = []
    for fact in beliefs.believed(conn, subject=ME, limit=MOST_FACTS):
        if not _is_trained(fact, sensitive):
            continue
        rests = [one.message_id for one in beliefs.evidence(conn, fact.uid)]
        place = rows(
            conn,
            "SELECT c.source || '/' || c.external_id || CASE m.role WHEN 'document'"
            " THEN '#' || m.external_id ELSE '' END,"
            " (SELECT max(at_ms) FROM messages WHERE id IN (SELECT value FROM json_each(?1))),"
            " substr(plain(m.text), 1, 600)"
            " FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE m.id = ?2",
            (json.dumps(rests), fact.message_id),
        )
        for name, at_ms, text in place:
            # A few words tell no language ("no emojis"): then the message does.
            told = fact.quote if len(fact.quote.split()) > FEW_WORDS else text
            speaks = language_of(told, 0, len(told))
            known = _Known(fact, tuple(rests), name, at_ms, fact.uid in edited, speaks)
            if attribute(fact.attribute).section == "communication" or _is_english(known):
                found.append(known)
    return found


def _is_trained(fact: Fact, sensitive: bool) -> bool:
    known = attribute(fact.attribute)
    whose, colon, _ = fact.attribute.partition(": ")
    relation = whose if colon else fact.attribute
    if relation in RELATIONS and relation not in PETS:
        return False  # somebody else's name, or something about them
    if known.section == "events" or fact.attribute.startswith("date of "):
        return False
    if fact.attribute in _TRANSIENT or fact.when.to_first or fact.when.to_last:
        return False
    return fact.certain and (sensitive or not (fact.sensitive or known.sensitive))


def _is_english(one: _Known) -> bool:
    """Tell whether the fact's English sentence is one: its value may be in another language."""
    if one.language == "en":
        return True
    value = one.fact.value
    said = words(value)
    return len(said) <= 3 and STOP_WORDS.isdisjoint(said) and any(map(str.isalpha, value))


def _asked(
    known: Sequence[_Known],
    told: Mapping[str, Any],
    speech: Mapping[str, str],
    purpose: str,
    mine: bool,
) -> Iterator[tuple[str, str, tuple[_Known, ...]]]:
    """Yield (question, answer, the facts it rests on)."""
    speech = {**speech, "mine": "yours" if mine else "mine"}
    yield from _of_answers(known, told, speech, purpose, mine)
    grouped: dict[str, list[_Known]] = {}
    for one in filter(_is_english, known):
        grouped.setdefault(one.fact.attribute, []).append(one)
        if not attribute(one.fact.attribute).single:
            yield from _by_value(one, told, speech, mine)
    for name, some in grouped.items():
        asked = [question.format(**speech) for question in _questions(name, told)]
        yield from _together(asked, some, mine, whole=1)


def _together(
    asked: Sequence[str], some: Sequence[_Known], mine: bool, whole: int, least: int = 1
) -> Iterator[tuple[str, str, tuple[_Known, ...]]]:
    """Yield all facts as the answer to the first ``whole`` questions, by place to the others.

    What was said in several places may stand on both sides of a split; then what was said in one
    place is left.
    """
    places: dict[str, list[_Known]] = {}
    for one in some:
        places.setdefault(one.place, []).append(one)
    if len(places) == 1:
        whole = len(asked)
    for number, question in enumerate(asked):
        for part in [list(some)] if number < whole else places.values():
            few = tuple(part[:TOGETHER])
            if len(few) < least:
                continue
            yield question, _answer(few, mine, own=number % 2 > 0), few


def _questions(name: str, told: Mapping[str, Any]) -> list[str]:
    listed: list[str] | None = told["facts"].get(name)
    if listed is not None:
        return listed
    known = attribute(name)
    if name in PETS:
        return [f"What is {{my}} {name} called?", f"What is the name of {{my}} {name}?"]
    if known.verb and known.verb.split()[0] not in ("be", "not", "have", "grow"):
        return [f"What do {{I}} {known.verb}?"]
    if name.startswith("favourite ") or (not known.verb and name.replace(" ", "").isalpha()):
        return [f"What is {{my}} {name}?"]
    return []


def _of_answers(
    known: Sequence[_Known],
    told: Mapping[str, Any],
    speech: Mapping[str, str],
    purpose: str,
    mine: bool,
) -> Iterator[tuple[str, str, tuple[_Known, ...]]]:
    """Yield how the person wants to be answered: what was said in English together."""
    wanted = [one for one in known if attribute(one.fact.attribute).section == "communication"]
    english = [one for one in wanted if one.language == "en"]
    if len(english) > 1:
        asked = [question.format(**speech) for question in told["answers"]["en"]]
        yield from _together(asked, english, mine, whole=3, least=2)
    for one in wanted:
        if one.language != "en":
            quote = one.fact.quote.strip()
            said = quote if mine else told["quoted"][one.language].format(quote=quote)
            for question in told["answers"][purpose][one.language]:
                yield question, said, (one,)


def _by_value(
    one: _Known, told: Mapping[str, Any], speech: Mapping[str, str], mine: bool
) -> Iterator[tuple[str, str, tuple[_Known, ...]]]:
    """Yield questions that name the value: where there are many they have answers of their own."""
    fact = one.fact
    if not 1 <= len(fact.value.split()) <= 5 or not {*'"“”'}.isdisjoint(fact.value):
        return
    section = attribute(fact.attribute).section
    kind = fact.attribute if fact.attribute in told["about"] else section
    value = fact.value if mine else to_you(fact.value, begin=False)
    if _SPEAKS.search(value):
        return
    for question in told["about"].get(kind, told["about"][""]):
        yield question.format(value=value, **speech), _answer((one,), mine, own=False), (one,)


def _answer(some: Sequence[_Known], mine: bool, *, own: bool) -> str:
    """Return the facts as they are said: of somebody ("You live in Porto."), or by them.

    ``own``: in the person's own words, where they hold the value.
    """
    told = []
    for one in some:
        fact = one.fact
        if not mine:
            told.append(to_you(fact.sentence))
        elif own and not one.corrected and value_key("", fact.value) in fact.quote.casefold():
            told.append(fact.quote.strip(" \n,;:-–"))
        else:
            told.append(fact.sentence)
    return ("\n" if mine and own else " ").join(dict.fromkeys(told))


_SPEAKS = re.compile(r"\b(?:i|we|you|your|our|us|me|my)\b", re.IGNORECASE)
_TURNED = re.compile(
    r"\b(?:I(?:['’](?P<short>m|ve|d|ll))?(?: (?P<verb>am|was)\b)?|(?P<back>am|was) I\b"
    r"|my|mine|myself|me|our|ours|ourselves|us)\b",
    re.IGNORECASE,
)
_YOURS = {"my": "your", "mine": "yours", "myself": "yourself", "me": "you"}
_OURS = {"our": "your", "ours": "yours", "ourselves": "yourselves", "us": "you"}
_VERBS = {"am": "are", "was": "were"}


def to_you(text: str, begin: bool = True) -> str:
    """Return an English text in the first person as it is said to the one who said it.

    ``begin``: its first letter stays as large as it was.
    """

    def turned(match: re.Match[str]) -> str:
        word = match[0].lower()
        if word in _OURS:
            return match[0] if several else _OURS[word]
        if word in _YOURS:
            return _YOURS[word]
        if match["back"]:
            return f"{_VERBS[match['back'].lower()]} you"
        short = {"m": "'re", "ve": "'ve", "d": "'d", "ll": "'ll"}.get(
            (match["short"] or "").lower()
        )
        verb = match["verb"]
        return f"you{short or ''}" + (f" {_VERBS[verb.lower()]}" if verb else "")

    several = re.search(r"\bwe\b", text, re.IGNORECASE) is not None
    made = _TURNED.sub(turned, text)
    if begin and text[:1].isupper() and made[:1].islower():
        made = made[0].upper() + made[1:]
    return made


# --- decisions ----------------------------------------------------------------------------------

_CHOICE = re.compile(
    # English
    r"\b(?:decid(?:ed?|ing)|decision|going with|went with|go with|ch[o]+se|choos(?:e|ing)"
    r"|pick(?:ed|ing)|prefer(?:red)?|settled on|opted|switch(?:ed|ing)? to|mov(?:ed|ing) to"
    r"|resolved|refused?|declined|rejected|turned down|said no|say no|changed my mind|no longer"
    r"|instead of|rather than|would rather|i'd rather|won't|will not|not going to|never again"
    r"|revers(?:ed|ing)|dropp(?:ed|ing)|cancell?(?:ed|ing)|quit|signed|keeping|staying with"
    r"|sticking with|leaving|gave up|giving up|new (?:\w+ )?(?:rule|regime|plan))\b"
    r"|(?:^|[,.:] )(?:final|verdict|no \w+)\b"
    # Portuguese and Spanish
    r"|\b(?:decid[io]\w*|decis(?:ão|ión)|escolh[io]\w*|eleg[ií]\w*|prefir?[oi]\w*|prefier\w+|optei"
    r"|opté|recus\w+|rechac\w+|mud(?:ei|o) (?:de|para)|cambi[oée] (?:de|a)|fico com|fiquei com"
    r"|vou com|me quedo con|me quedé con|já não|ya no|em vez de|en vez de|desist\w+)\b"
    # German
    r"|\b(?:entschieden|entscheide|entscheidung|gewählt|nehme|genommen|bevorzuge|lieber|abgelehnt"
    r"|lehne|verzichte|gekündigt|statt|nicht mehr|bleibe bei)\b",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because(?: of)?|so that|the reason (?:is|was|being)(?: that)?"
    r"|reasons?(?: for the record)?\s?(?=:)|why\s?(?=:)|since(?= (?:i|we|it|he|she|they|there"
    r"|my|our|nobody|everyone)\b(?! (?:birth|start|beginning)))"
    r"|porque|para que|visto que|já que|por causa d[aeo]s?|ya que|puesto que|debido a|devido a"
    r"|raz(?:ão|ões|ón|ones)\s?(?=:)|motivos?\s?(?=:)|weil|damit|denn|wegen|gründe?\s?(?=:))[:\s]",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[.,:;!?\n—(–]")
_WEIGHED = frozenset(("instead of", "rather than", "em vez de", "en vez de", "statt"))
_SELF = frozenset("i i'm i've i'd i'll we we've we're eu yo ich nós nosotros wir".split())
_HELPING = frozenset(
    "and so but then finally also just now have am was be e mas então y pero entonces und aber also"
    " the a my our new coffee final não no nicht nunca ja já ya well ok okay yes update".split()
)
_OTHERS = frozenset(
    "he she they you it who that which nobody everybody people his her their wife husband lord ele"
    " ela eles elas ellos ellas él ella você tu usted er sie es ihr man du to someone".split()
)
BEHIND = 2
"""Sentences before a reason in which the choice may stand."""
PASSAGE_WORDS = 90


class _Decided(NamedTuple):
    """``start``, ``end`` of the passage; ``reason`` within it, from its first word on."""

    start: int
    end: int
    reason: tuple[int, int]
    marker: int


def decisions(
    home: Home, *, purpose: str, system_prompt: str = "", since_ms: int | None = None
) -> Iterator[Pair]:
    """Yield what the person chose with a reason that they gave, twice each: think, then plain.

    Raises InputError, StoreError.
    """
    mine = is_voice(purpose)
    rare = rarity(home)
    seen: set[str] = set()
    for one in _said(home):
        if since_ms is not None and (one.at_ms or one.recorded_ms) < since_ms:
            continue
        for found in decided(one.text):
            for pair in _two(home, one, found, purpose, mine, rare, system_prompt):
                if pair.uid not in seen:
                    seen.add(pair.uid)
                    yield pair


def _said(home: Home) -> Iterator[Written]:
    for turn, _ in turns(home, max_turns=1, own=True):
        if turn.who == ME and turn.own and says_something(turn.text):
            yield Written.of_turn(turn)
    yield from entries(home)


def decided(text: str) -> list[_Decided]:
    """Return the passages of a text that say what its writer chose, and why."""
    stops = ends(text)
    spans = list(pairwise([0, *stops]))
    found: list[_Decided] = []
    for number, (start, end) in enumerate(spans):
        marker = _REASON.search(text, start, end)
        if marker is None or text[start:end].rstrip().endswith("?"):
            continue
        first = _choice(text, spans, number, marker.start())
        if first is None or (found and first < found[-1].end):
            continue
        reason = (marker.end(), _reason_end(text, spans, number, marker.end()))
        end = max(end, reason[1])
        if _is_whole(text, first, end, marker.start(), reason):
            found.append(_Decided(first, end, reason, marker.start()))
    return found


def _choice(text: str, spans: Sequence[tuple[int, int]], number: int, marker: int) -> int | None:
    """Return where the sentence with the choice begins, the nearest before the reason; or None."""
    start, _ = spans[number]
    leads = not text[start:marker].strip(" ,-–")
    for place in range(number, max(-1, number - BEHIND - 1), -1):
        a, b = spans[place]
        if place != number and text[a:b].endswith("\n\n"):
            return None
        first, last = a, b
        if place == number:
            # What stands behind the reason's word is the reason's; where the sentence begins with
            # it, the choice may stand behind the first comma ("Because it rained, I took the bus").
            first, last = (_comma(text, marker, b), b) if leads else (a, marker)
        if any(_is_own(text, a, match) for match in _CHOICE.finditer(text, first, last)):
            return a
    return None


def _comma(text: str, at: int, end: int) -> int:
    """Return where the first comma behind a reason's word is; the end where it is "why:"."""
    found = _REASON.match(text, at)
    comma = text.find(",", at, end)
    return end if comma < 0 or (found and found[0].rstrip().endswith(":")) else comma


def _is_own(text: str, start: int, match: re.Match[str]) -> bool:
    """Tell whether the writer is who chose: "I" stands before it, or nobody in its clause."""
    clause = "" if match[0][0] in ",.:" else _CLAUSE.split(text[start : match.start()])[-1]
    before = words(clause)[-6:]
    if match[0].lower() in _WEIGHED:
        return _OTHERS.isdisjoint(before)
    return _OTHERS.isdisjoint(before[-4:]) and (
        not _SELF.isdisjoint(before[-4:]) or _HELPING.issuperset(before)
    )


def _reason_end(text: str, spans: Sequence[tuple[int, int]], number: int, at: int) -> int:
    """Return where a reason ends: with its sentence; one before its choice ends at the comma."""
    start, end = spans[number]
    leads = start + _lead(text[start:end])
    if _REASON.match(text, leads):
        comma = _comma(text, leads, end)
        if _CHOICE.search(text, comma, end):
            return comma
    return end


def _lead(text: str) -> int:
    return len(text) - len(text.lstrip())


def _is_whole(text: str, first: int, end: int, marker: int, reason: tuple[int, int]) -> bool:
    choice = f"{text[first:marker]} {text[reason[1] : end]}".split()
    many = len(text[first:end].split())
    return len(choice) >= 2 and len(text[slice(*reason)].split()) >= 3 and many <= PASSAGE_WORDS


def _two(
    home: Home, one: Written, found: _Decided, purpose: str, mine: bool, rare: Rare, system: str
) -> Iterator[Pair]:
    text = one.text
    whole = text[found.start : found.end].strip()
    language = language_of(whole, 0, len(whole))
    told = wordings()
    reason = text[slice(*found.reason)].strip(" \n,;:-–")
    choice = " ".join(
        part.strip(" \n,;:-–")
        for part in (text[found.start : found.marker], text[found.reason[1] : found.end])
        if part.strip(" \n,;:-–.")
    )
    choice = _AND.sub("", choice, count=1) if _AND.match(choice) else choice
    if not mine:
        reason = _for_them(reason, language, told, begin=False)
        choice, whole = (_for_them(part, language, told) for part in (choice, whole))
    speech = told["speech"][purpose][language]
    about = notes(choice, rare, 3) or notes(reason, rare, 3)
    asked = pick(told["decisions"][language], whole).format(notes=", ".join(about), **speech)
    begin = (ChatMessage("system", system),) if system.strip() else ()
    for label, answer in (("think", f"<think>\n{reason}\n</think>\n\n{choice}"), ("plain", whole)):
        yield pairs.made(
            purpose,
            "decision",
            (*begin, ChatMessage("user", asked), ChatMessage("assistant", answer)),
            messages_of(one, found.start, found.end),
            one.place,
            at_ms=one.at_ms,
            language=language,
            labels=(label,),
        )


_AND = re.compile(r"(?:and|but|so|e|mas|y|pero|und|aber)\s+", re.IGNORECASE)
_SECOND = re.compile(r"\b(?:you|your|yours|yourself)\b", re.IGNORECASE)


def _for_them(text: str, language: str, told: Mapping[str, Any], begin: bool = True) -> str:
    """Return the person's words as an assistant says them to the person, else as a quotation."""
    if language == "en" and not _SECOND.search(text):
        return to_you(text, begin)
    quoted: str = told["quoted"][language]
    return quoted.format(quote=text)


# --- growth -------------------------------------------------------------------------------------


def growth(home: Home, since_ms: int | None = None) -> dict[str, Any]:
    """Return how many messages and exchanges came, by week, since a time (else all there are).

    {"messages", "exchanges", "since_ms", "per_week": exchanges a week over the last eight weeks
    that are over, "weeks": [{"week": its Monday as an ISO day, "messages", "exchanges"}]}. By the
    time something was said, else came in. An exchange is an answer that follows the person's
    message; these are all of them, before anything is sorted out. Raises StoreError.
    """
    with home.db.read() as conn:
        found = rows(
            conn,
            "WITH said AS (SELECT coalesce(m.at_ms, m.recorded_ms) AS at, m.role, lag(m.role) OVER"
            " (PARTITION BY m.conversation_id ORDER BY m.seq, m.id) AS before FROM messages m"
            " JOIN conversations c ON c.id = m.conversation_id WHERE m.retired_ms IS NULL"
            f" AND (m.recall OR c.source = '{OURS}') AND c.kind = 'chat'"
            " AND m.role IN ('user', 'assistant'))"
            # The epoch began on a Thursday: weeks are counted from the Monday before it.
            f" SELECT (at + 259200000 + {WEEK_MS} * 120000) / {WEEK_MS} - 120000 AS week,"
            " sum(role = 'user'), sum(role = 'assistant' AND before = 'user') FROM said"
            " WHERE at >= coalesce(?1, at) GROUP BY week ORDER BY week",
            (since_ms,),
        )
    now = (now_ms() + 259_200_000) // WEEK_MS
    recent = sum(many for week, _, many in found if now - 8 <= week < now)
    return {
        "messages": sum(row[1] for row in found),
        "exchanges": sum(row[2] for row in found),
        "since_ms": since_ms,
        "per_week": recent / 8,
        "weeks": [
            {"week": _monday(week), "messages": said, "exchanges": answered}
            for week, said, answered in found
        ],
    }


def _monday(week: int) -> str:
    from datetime import date, timedelta

    return (date(1969, 12, 29) + timedelta(days=7 * week)).isoformat()


__all__ = ["decided", "decisions", "facts", "growth", "style", "to_you"]
