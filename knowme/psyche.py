"""Personality, attachment, values and habits, as far as a person's own sentences carry them.

Promises: pure; only what the person says of themselves in the present counts (no questions, no
suppositions, no quoted words); every finding names the spans that it rests on and how sure it is,
and where there is too little there is no finding. The order of what is given does not matter.
Refuses to know: where the sentences are kept, whether the person wants to see any of this.

Methods. A trait is a standard score: 0 is everybody's mean, 1 a standard deviation. Before anything
is said it is N(0, 1); each remark is one noisy reading of +1 or -1 (the conjugate normal model),
and what was said before counts less with each time. Remarks are self-descriptions by the markers of
Goldberg (1992) and Saucier (1994), and habits after the items of the International Personality Item
Pool (Goldberg 1999). Attachment has the two dimensions of Brennan, Clark and Shaver (1998), named
after Bartholomew and Horowitz (1991). Values are ordered by comparisons ("X over Y") with the model
of Bradley and Terry (1952), fitted by Hunter's (2004) iteration. How noisy a remark is (SD 1.5) is
our judgement, not a measurement: these are readings, not a test.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from knowme.types import Evidence
from knowme.words import sentences

NOISE_SD = 1.5
"""Of one remark about a trait, in standard deviations of the trait among people."""
SURE_ENOUGH = 0.8
"""The probability that a trait is on the side that a finding names."""
LEAST_REMARKS, LEAST_PLACES = 3, 2
MOST_HABITS = 12
MOST_DEAR = 6
LONGEST = 160
"""Characters of a sentence that may be quoted as a habit."""
MIND = "mind"
"""The kind of the findings that stay on this machine, whatever words they use."""


class Said(NamedTuple):
    """One message of the person. ``place`` tells conversation and day: others are independent."""

    message_id: int
    place: str
    text: str


class Mark(NamedTuple):
    """A sentence that bears on the person: text[start:end]; ``sign`` is the end of a trait."""

    kind: str  # trait, self, attachment, order, value, ifthen, trigger, coping
    key: str
    sign: int
    start: int
    end: int


class Finding(NamedTuple):
    """What is found. ``about`` is what it is about (the same after every rebuild)."""

    about: tuple[str, ...]
    section: str  # personality, values, habits
    text: str
    confidence: float  # 0 to 1
    evidence: tuple[Evidence, ...]
    places: int  # independent ones
    outright: bool  # the person said just this of themselves
    kinds: tuple[str, ...] = ()
    place: float = 0.0  # within its section


# --- reading one message --------------------------------------------------------------------------

_NOT = re.compile(r"\b(?:not|never|hardly|não|nicht|keine?|no)\b", re.I)
_BEFORE = re.compile(
    r"\b(?:when|if|unless|while|whenever|quando|se|si|cuando|wenn|falls)\s+$", re.I
)
_OTHERS = re.compile(r"^\W*[\"“„«'‘>]")


@lru_cache(maxsize=1)
def _lexicon() -> Mapping[str, Any]:
    found = resources.files("knowme") / "data" / "psyche.json"
    return json.loads(found.read_text("utf-8"))  # type: ignore[no-any-return]


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("".join(_lexicon()["patterns"][name]), re.IGNORECASE)


@lru_cache(maxsize=1)
def _self_described() -> list[tuple[str, int, str, re.Pattern[str]]]:
    lexicon, begin = _lexicon(), "".join(_lexicon()["patterns"]["self"])
    return [
        (trait, pole, group, re.compile(rf"{begin}(?P<word>{words})\b", re.I))
        for group in ("nouns", "adjectives", "states")
        for trait, pole, words in lexicon[group]
    ]


@lru_cache(maxsize=1)
def _habitual() -> list[tuple[str, str, int, str, re.Pattern[str]]]:
    lexicon = _lexicon()
    return [
        (kind, name, pole, item, re.compile(pattern, re.I))
        for kind, group in (("trait", "habits"), ("attachment", "attachment"))
        for name, pole, item, pattern in lexicon[group]
    ]


def read(text: str, foreign: Sequence[tuple[int, int, str]] = ()) -> list[Mark]:
    """Return what the sentences of one message, by the person, say of them.

    ``foreign`` are spans that are not the person's own words (``spans.foreign``). No mark from a
    question, a supposition or a quotation.
    """
    marks: list[Mark] = []
    for start, end in _own_sentences(text, foreign):
        sentence = text[start:end].replace("’", "'")
        for kind, key, sign in dict.fromkeys(_of_sentence(sentence)):
            marks.append(Mark(kind, key, sign, start, end))
    return marks


def _own_sentences(text: str, foreign: Sequence[tuple[int, int, str]]) -> Iterator[tuple[int, int]]:
    """Yield the spans of the sentences that may say something of their writer."""
    at = 0
    for piece in sentences(text):
        start, at = at, at + len(piece)
        inner = piece.strip()
        start += len(piece) - len(piece.lstrip())
        end = start + len(inner)
        if "?" in inner or _OTHERS.match(inner) or _pattern("supposed").search(inner):
            continue
        if len(inner) > 4 and not any(a < end and start < b for a, b, _ in foreign):
            yield start, end


def _of_sentence(sentence: str) -> Iterator[tuple[str, str, int]]:
    yield from _described(sentence)
    for kind, name, pole, item, pattern in _habitual():
        if pattern.search(sentence):
            yield kind, f"{name}:{item}", pole
    if _pattern("weighs").search(sentence):
        for more, less in _compared(sentence):
            yield "order", f"{more}>{less}", 1
        for name in _held_dear(sentence):
            yield "value", name, 1
    if len(sentence) <= LONGEST and (kind := _habit_kind(sentence)):
        yield kind, "", 1


def _habit_kind(sentence: str) -> str:
    if _if_then(sentence) is not None:
        return "ifthen"
    if _pattern("once").search(sentence):
        return ""
    return next((kind for kind in ("coping", "trigger") if _pattern(kind).search(sentence)), "")


def _described(sentence: str) -> Iterator[tuple[str, str, int]]:
    if _pattern("self").search(sentence) is None:
        return
    for trait, pole, group, pattern in _self_described():
        for match in pattern.finditer(sentence):
            if (sign := _said_of_self(sentence, match, group, pole)) is not None:
                yield "self", trait, sign


def _said_of_self(sentence: str, match: re.Match[str], group: str, pole: int) -> int | None:
    """Return the end of the trait that "I am (not) ..." names; None for what passes."""
    after = sentence[match.end() :]
    if _BEFORE.search(sentence[: match.start()]):
        return None
    if group == "states" and not _pattern("lasting").search(match["mid"] + after[:24]):
        return None
    if (
        group != "nouns"
        and _pattern("passing").match(after)
        and not _pattern("lasting").search(match["mid"])
    ):
        return None
    return -pole if _NOT.search(match["mid"]) else pole


# --- values ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _value_words() -> tuple[re.Pattern[str], tuple[str, ...]]:
    values = _lexicon()["values"]
    named = [f"(?P<v{number}>{words})" for number, words in enumerate(values.values())]
    return re.compile(rf"\b(?:{'|'.join(named)})\b", re.I), tuple(values)


def _named_values(sentence: str) -> list[tuple[int, int, str]]:
    pattern, names = _value_words()
    return [
        (found.start(), found.end(), names[int((found.lastgroup or "v0")[1:])])
        for found in pattern.finditer(sentence)
    ]


def _compared(sentence: str) -> Iterator[tuple[str, str]]:
    """Yield (more, less) of what the writer puts above what: "accuracy over speed"."""
    named = _named_values(sentence)
    if len(named) < 2 or _pattern("denied").search(sentence):
        return
    before = sentence[: named[0][0]]
    chain = len(named) > 2 and ">" in sentence
    if not _pattern("prelude").match(before) or not (
        chain or ">" in sentence or _pattern("first").search(sentence)
    ):
        return
    for (_, end, more), (start, _, less) in zip(named, named[1:], strict=False):
        between = sentence[end:start]
        above = _pattern("over").fullmatch(between)
        if not above and _pattern("than").fullmatch(between) and _pattern("more").search(before):
            above = _pattern("than").fullmatch(between)
        if not above:
            return
        if more != less:
            yield more, less


def _held_dear(sentence: str) -> Iterator[str]:
    """Yield what the writer says matters to them: a value we know by name, or in their words."""
    if _pattern("denied").search(sentence):
        return
    named = _named_values(sentence)
    for start, _, name in named:
        if _pattern("care").search(sentence[:start]):
            yield name
    for said in _pattern("dear").finditer(sentence):
        subject = _pattern("subject").search(sentence[: said.start()])
        if subject is None:
            continue
        known = [n for a, b, n in named if (a, b) == subject.span("what")]
        yield known[0] if known else subject["what"].casefold()


# --- habits ---------------------------------------------------------------------------------------

_BARE = re.compile(
    r"^\W*(?:if|when|whenever)\s+(?P<cond>(?:(?:i'm|i am|i feel|i get)\s+)?(?P<felt>\w+(?: \w+)?))"
    r",?\s+i\s+(?P<main>.{4,90}?)[.!…]*$", re.I,
)  # fmt: skip
_NOT_MY_WORD = re.compile(r"^i\s+(?:\w+ly\s+)?(?:don'?t|can'?t|cannot|never|always|just|also)?\b")


class Habit(NamedTuple):
    """An if-then: "When stressed, defaults to precision"."""

    when: str
    then: str
    stressed: bool


@lru_cache(maxsize=1)
def _feeling() -> re.Pattern[str]:
    return re.compile(rf"\b(?:{_lexicon()['feelings']}|can'?t sleep|panic)\b", re.I)


def _if_then(sentence: str) -> Habit | None:
    """Return the habit that a sentence tells; None for a plan, a request or what happened once."""
    match = _pattern("front").match(sentence) or _pattern("back").match(sentence)
    bare = None if match else _BARE.match(sentence)
    if bare and _feeling().fullmatch(bare["felt"].strip()):
        match = bare
    if match is None or _pattern("once").search(sentence):
        return None
    cond, main = match["cond"].strip(), match["main"].strip()
    word = "" if match is bare else match["when"]
    if (
        _pattern("wont").search(sentence)
        or _pattern("past").match(main)
        or re.match(r"i\s+(?:want|need)\b", main, re.I)
    ):
        return None
    stressed = bool(_feeling().search(cond))
    each = bool(_pattern("each").fullmatch(word)) or bool(_pattern("always").search(main))
    if not (stressed or each) or not _stands_alone(cond, main, stressed):
        return None
    return Habit(cond, main, stressed)


def _stands_alone(cond: str, main: str, stressed: bool) -> bool:
    """Tell whether a reader understands it without the sentence before: no bare "it", no "that"."""
    empty = re.compile(r"\b(?:it|that|this|there|those|these|isso|isto|eso|esto|das|es)\b", re.I)
    return not empty.search(main) and (stressed or not empty.search(cond))


_THIRD = {
    "am": "is", "have": "has", "do": "does", "go": "goes", "don't": "doesn't", "can't": "can't",
    "can": "can", "cannot": "cannot", "must": "must",
}  # fmt: skip
_ADVERB = re.compile(
    r"^(?:always|usually|often|never|automatically|normally|immediately|just|also|then|still|even"
    r"|mostly|sometimes|generally|typically|\w+ly)$", re.I,
)  # fmt: skip
_SWAP = {"my": "their", "me": "them", "myself": "themselves", "mine": "theirs", "i": "they",
         "i'm": "they're", "i've": "they've"}  # fmt: skip


def in_third(main: str) -> str:
    """Return an English "I ..." as what is said of somebody: "I make lists" -> "makes lists"."""
    words = re.sub(r"^i(?:'m)?\b", lambda found: "am" if "'" in found[0] else "", main, flags=re.I)
    parts = words.split()
    for number, word in enumerate(parts):
        if not _ADVERB.match(word):
            parts[number] = _conjugated(word)
            parts[number + 1 :] = [_swapped(each) for each in parts[number + 1 :]]
            break
    return " ".join(parts)


def _conjugated(verb: str) -> str:
    low = verb.lower()
    if low in _THIRD:
        return _THIRD[low]
    if re.search(r"(?:s|x|z|ch|sh|o)$", low):
        return low + "es"
    return low[:-1] + "ies" if re.search(r"[^aeiou]y$", low) else low + "s"


def _swapped(word: str) -> str:
    bare = word.lower().strip(".,;:!\"'()")
    return word.lower().replace(bare, _SWAP[bare]) if bare in _SWAP else word


def told(quote: str) -> str:
    """Return a habit as a line of the profile: in English retold, otherwise in its own words."""
    clean = " ".join(quote.replace("’", "'").split())
    habit = _if_then(clean)
    if habit is None or not re.match(r"i(?:'m)?\b", habit.then, re.I) and not _BARE.match(clean):
        return f"“{clean.rstrip('.!… ')}”"
    cond = re.sub(r"^(?:i'?m|i am|i(?: \w+ly)? (?:get|feel)|when)\s+", "", habit.when, flags=re.I)
    cond = re.sub(r"^i\s+", "", cond, flags=re.I) if cond == habit.when else cond
    cond = " ".join(_swapped(word) for word in cond.split())
    return f"When {cond}, {in_third(habit.then)}"


# --- from all that was said -----------------------------------------------------------------------


class _Remark(NamedTuple):
    mark: Mark
    place: str
    evidence: Evidence


def findings(said: Iterable[tuple[Said, Sequence[Mark]]]) -> list[Finding]:
    """Return what the marked sentences of all messages carry, surest first within a section."""
    remarks = sorted(
        (
            _Remark(mark, message.place, _evidence(message, mark))
            for message, marks in said
            for mark in marks
        ),
        key=lambda remark: (remark.place, remark.evidence.message_id, remark.mark),
    )
    found = [*_traits(remarks), *_attached(remarks), *_values(remarks), *_habits(remarks)]
    return sorted(found, key=lambda one: (one.section, one.place, -one.confidence, one.about))


def _evidence(message: Said, mark: Mark) -> Evidence:
    quote = message.text[mark.start : mark.end]
    return Evidence(message.message_id, mark.start, mark.end, quote)


def posterior(readings: Iterable[float], weights: Iterable[float]) -> tuple[float, float]:
    """Return mean and SD of a standard score after noisy readings of it.

    Prior N(0, 1); each reading has the SD ``NOISE_SD`` and counts with its weight (0 to 1).
    """
    precision, total = 1.0, 0.0
    for reading, weight in zip(readings, weights, strict=True):
        precision += weight / NOISE_SD**2
        total += weight * reading / NOISE_SD**2
    return total / precision, precision**-0.5


class _Score(NamedTuple):
    mean: float
    sd: float
    remarks: list[_Remark]
    places: int

    @property
    def sure(self) -> float:
        """Return the probability that the trait lies on the side of the mean."""
        return 0.5 * (1 + math.erf(abs(self.mean) / (self.sd * math.sqrt(2))))

    @property
    def enough(self) -> bool:
        """Tell whether there is enough to say anything."""
        many = len(self.remarks) >= LEAST_REMARKS and self.places >= LEAST_PLACES
        return many and self.sure >= SURE_ENOUGH


def _score(remarks: Sequence[_Remark]) -> _Score:
    """Score one trait. A sentence counts once, and so does what is said twice in one place."""
    once: dict[tuple[str, str], _Remark] = {}
    for remark in remarks:
        once.setdefault((remark.place, _kind_of(remark)), remark)
    spans = {(one.evidence.message_id, one.evidence.start): one for one in once.values()}
    kept = list(spans.values())
    before: Counter[str] = Counter()
    weights = []
    for remark in kept:
        weights.append(1 / (1 + before[_kind_of(remark)] / 2))
        before[_kind_of(remark)] += 1
    mean, sd = posterior([remark.mark.sign for remark in kept], weights)
    return _Score(mean, sd, kept, len({remark.place for remark in kept}))


def _kind_of(remark: _Remark) -> str:
    mark = remark.mark
    return mark.key if ":" in mark.key else f"{mark.key}:{remark.evidence.quote.casefold()}"


def how_sure(probability: float) -> str:
    """Return a probability in words: fairly sure (from .8), sure (.9), very sure (.97)."""
    for least, word in ((0.97, "very sure"), (0.9, "sure"), (0.8, "fairly sure")):
        if probability >= least:
            return word
    return "a guess"


def _such_as(remarks: Sequence[_Remark], sign: int | None = None) -> str:
    """Name what it rests on: how many remarks, and the shortest that says so."""
    fitting = [remark for remark in remarks if sign is None or remark.mark.sign == sign]
    quotes = sorted((remark.evidence.quote for remark in fitting), key=lambda q: (len(q), q))
    count = f"{len(remarks)} remark{'' if len(remarks) == 1 else 's'}"
    short = " ".join(quotes[0].split()).rstrip(".!… ")
    return f"{count}, such as “{short}”" if len(short) <= 80 else count


def _traits(remarks: Sequence[_Remark]) -> Iterator[Finding]:
    for number, (trait, ends) in enumerate(_lexicon()["traits"].items()):
        mine = [
            remark
            for remark in remarks
            if remark.mark.kind in ("trait", "self") and remark.mark.key.split(":")[0] == trait
        ]
        if not mine:
            continue
        score = _score(mine)
        if score.enough:
            sign = 1 if score.mean > 0 else -1
            side = "above" if sign > 0 else "below"
            text = (
                f"{ends['high' if sign > 0 else 'low']}: {trait} {side} average, "
                f"{score.mean:+.1f} ± {score.sd:.1f} SD, {how_sure(score.sure)} "
                f"({_such_as(score.remarks, sign)})"
            )
            evidence = tuple(remark.evidence for remark in score.remarks)
            yield Finding(("trait", trait), "personality", text, score.sure, evidence,
                          score.places, False, (MIND,), number)  # fmt: skip
        else:
            yield from _own_words(mine, trait, number)


def _own_words(remarks: Sequence[_Remark], trait: str, number: int) -> Iterator[Finding]:
    """Where a trait cannot be told, what the person calls themselves still can, in their words."""
    said = [remark for remark in remarks if remark.mark.kind == "self"]
    by_sign = {remark.mark.sign for remark in said}
    if len(by_sign) != 1:  # nothing, or one thing and its opposite
        return
    said = [remark for remark in said if len(remark.evidence.quote) <= LONGEST]
    if said:
        best = min(said, key=lambda remark: (len(remark.evidence.quote), remark.evidence.quote))
        quote = " ".join(best.evidence.quote.split()).rstrip(".!… ")
        places = len({remark.place for remark in said})
        evidence = tuple(remark.evidence for remark in said)
        yield Finding(("self", trait), "personality", f"Says: “{quote}”", 0.9, evidence, places,
                      True, (MIND,), 10 + number)  # fmt: skip


_STYLES: Mapping[tuple[int, ...], str] = {
    (-1, -1): "secure (neither afraid to be left nor wary of closeness)",
    (1, -1): "anxious (afraid to be left, at ease with closeness)",
    (-1, 1): "avoidant (wary of closeness, not afraid to be left)",
    (1, 1): "fearful (afraid to be left and wary of closeness)",
    (1, 0): "leans anxious (afraid to be left)",
    (0, 1): "leans avoidant (wary of closeness)",
    (0, -1): "leans secure (at ease with closeness)",
    (-1, 0): "leans secure (not afraid to be left)",
}


def _attached(remarks: Sequence[_Remark]) -> Iterator[Finding]:
    scores = {}
    for name in ("anxiety", "avoidance"):
        mine = [r for r in remarks if r.mark.kind == "attachment" and r.mark.key.startswith(name)]
        scores[name] = _score(mine) if mine else None
    told = {name: score for name, score in scores.items() if score is not None and score.enough}
    if not told:
        return
    sides: tuple[int, ...] = tuple(
        (1 if told[name].mean > 0 else -1) if name in told else 0
        for name in ("anxiety", "avoidance")
    )
    sure = min(score.sure for score in told.values())
    used = [remark for score in told.values() for remark in score.remarks]
    figures = ", ".join(f"{n} {s.mean:+.1f} ± {s.sd:.1f} SD" for n, s in told.items())
    text = f"Attachment: {_STYLES[sides]}; {figures}, {how_sure(sure)} ({_such_as(used)})"
    places = len({remark.place for remark in used})
    yield Finding(("attachment",), "personality", text, sure, tuple(r.evidence for r in used),
                  places, False, (MIND,), 9)  # fmt: skip


def bradley_terry(wins: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return each one's strength from (winner, loser) -> how often.

    Hunter's (2004) iteration of the model of Bradley and Terry (1952). Each also draws once with
    an imagined one of strength 1, so that whoever never lost stays finite.
    """
    names = sorted({name for pair in wins for name in pair})
    strength = dict.fromkeys(names, 1.0)
    for _ in range(200):
        new = {}
        for name in names:
            won = 0.5 + sum(many for (winner, _), many in wins.items() if winner == name)
            met = 1 / (strength[name] + 1)
            for (winner, loser), many in wins.items():
                if name in (winner, loser):
                    met += many / (strength[winner] + strength[loser])
            new[name] = won / met
        moved = max(abs(math.log(new[name] / strength[name])) for name in names)
        strength = new
        if moved < 1e-9:
            break
    return strength


def _values(remarks: Sequence[_Remark]) -> Iterator[Finding]:
    orders = [remark for remark in remarks if remark.mark.kind == "order"]
    if orders:
        said = {(remark.place, remark.mark.key) for remark in orders}  # once in a place
        wins: Counter[tuple[str, str]] = Counter()
        for _, key in sorted(said):
            more, _, less = key.partition(">")
            wins[more, less] += 1
        strength = bradley_terry(wins)
        chains = [_chain(group, strength) for group in _together(wins)]
        places = len({place for place, _ in said})
        sure = _surest(wins, strength)
        count = f"{len(said)} comparison{'' if len(said) == 1 else 's'}"
        text = f"In order: {'; '.join(sorted(chains))} ({how_sure(sure)}, {count})"
        yield Finding(("values", "order"), "values", text, round(sure, 4),
                      tuple(remark.evidence for remark in orders), places, True)  # fmt: skip
    ranked = {name for remark in orders for name in remark.mark.key.split(">")}
    dear = [r for r in remarks if r.mark.kind == "value" and r.mark.key not in ranked]
    if dear:
        heard = Counter(key for _, key in {(r.place, r.mark.key) for r in dear})
        names = sorted(sorted(heard), key=lambda name: -heard[name])[:MOST_DEAR]
        evidence = tuple(remark.evidence for remark in dear)
        yield Finding(("values", "dear"), "values", f"Matters to them: {', '.join(names)}", 0.9,
                      evidence, len({r.place for r in dear}), True, (), 1)  # fmt: skip


def _surest(wins: Mapping[tuple[str, str], float], strength: Mapping[str, float]) -> float:
    """Return how sure the order is: the least of its comparisons, more where it was said again.

    A comparison that was said once counts .8: people contradict themselves. Said against, less.
    """
    least = 1.0
    for (more, less), many in wins.items():
        if strength[more] >= strength[less]:
            against = wins.get((less, more), 0.0)
            least = min(least, (many + 0.6) / (many + against + 0.75))
    return max(0.5, min(least, 0.99))


def _together(wins: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the groups of values that comparisons connect."""
    groups: list[set[str]] = []
    for pair in wins:
        met = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in met]
        groups.append(set(pair).union(*met))
    return [sorted(group) for group in groups]


def _chain(names: Iterable[str], strength: Mapping[str, float]) -> str:
    ordered = sorted(names, key=lambda name: (-round(strength[name], 6), name))
    text = ordered[0]
    for one, following in zip(ordered, ordered[1:], strict=False):
        equal = math.isclose(strength[one], strength[following], rel_tol=1e-4)
        text += f" {'=' if equal else '>'} {following}"
    return text


_HABITS = {"ifthen": ("", 0), "trigger": ("Trigger: ", 1), "coping": ("Calms down: ", 2)}


def _habits(remarks: Sequence[_Remark]) -> list[Finding]:
    groups: dict[tuple[str, str], list[_Remark]] = {}
    for remark in remarks:
        if remark.mark.kind in _HABITS:
            kind, quote = remark.mark.kind, remark.evidence.quote
            words = _plain(told(quote) if kind == "ifthen" else quote)
            groups.setdefault((kind, words), []).append(remark)
    found = []
    for (kind, words), mine in groups.items():
        start, place = _HABITS[kind]
        quote = mine[0].evidence.quote
        text = start + (told(quote) if kind == "ifthen" else f"“{_trim(quote)}”")
        habit = _if_then(" ".join(quote.replace("’", "'").split())) if kind == "ifthen" else None
        places = len({remark.place for remark in mine})
        private = kind != "ifthen" or (habit is not None and habit.stressed)
        found.append(
            Finding((kind, words), "habits", text[0].upper() + text[1:], 1 - 0.15**places,
                    tuple(remark.evidence for remark in mine), places, True,
                    (MIND,) if private else (), place)
        )  # fmt: skip
    found.sort(key=lambda one: (-one.places, one.place, one.about))
    return found[:MOST_HABITS]


def _trim(quote: str) -> str:
    """Return the clause that says it: what follows after a comma is told by `why`."""
    head = re.split(r",\s|\s(?:so|because|and then|which)\s", " ".join(quote.split()))
    said = next((one for one in head if _habit_kind(one)), None)
    return (said or " ".join(quote.split())).strip(" \"“”'").rstrip(".!… ")


def _plain(quote: str) -> str:
    return " ".join(re.findall(r"\w+", quote.casefold()))
