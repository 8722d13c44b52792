"""What a clause says: which verb with which object is which attribute.

Promises: pure; every draft's value stands in the clause.
Refuses to know: where a clause begins or ends, dates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from knowme.attributes import ATTRIBUTES, PETS, RELATIONS, SEVERAL
from knowme.claims.clauses import Clause, is_name, name_at
from knowme.claims.lexicon import EVENT, HABIT, PLAN, STATE, Draft, lemma_of, table, words, wordy
from knowme.verbs import BASE, ING, PARTICIPLE, PAST, THIRD, form, ing, past

Rule = Callable[[Clause, int, int], Iterator[Draft]]

_ADVERBS, _PREPOSITIONS = words("adverbs"), words("prepositions")
_HABITS, _LASTING = words("habits"), words("lasting")
_SAYING, _NO_PLANS, _NO_LIKING = words("saying"), words("no_plans"), words("no_liking")
_NOT_GOING_ON, _GOING_ON = words("not_going_on"), table("going_on")
_TO_VERB, _TO_PURPOSE = words("to_verb"), words("to_purpose")
_ALONE, _DONE_TO, _PASSIVE = words("alone"), words("done_to"), table("passive")
_PASSIVE_VERBS, _PASSIVE_PARTICLES = words("passive_verbs"), words("passive_particles")
_LIGHT, _LIGHT_NOUNS, _LIGHT_VERBS = words("light"), words("light_nouns"), words("light_verbs")
_UNNAMED, _POINTING, _LEADS = words("unnamed"), words("pointing"), words("leads")
_NOT_HAD, _CONDITIONS = words("not_had"), words("conditions")
_SINGLE_WORDS, _ADJECTIVES = table("single_words"), table("adjectives")
_AFTER_ADJECTIVE, _SOMEHOW = words("after_adjective"), words("somehow")
_WORK_NOUNS, _NOT_WORK, _NO_HEADS = words("work_nouns"), words("not_work"), words("no_heads")
_CANONICAL = table("canonical")
_WORK_ENDINGS = ("ist", "eer", "ician", "wright", "smith", "ographer", "ologist")
_MADE_SO = words("made_so")
"""Verbs whose object says what the subject became: "got", "stayed"."""
_EAGER = frozenset("determined excited eager keen motivated committed".split())
_BY_THE_WAY = frozenset("stop come go drop swing stand pass live travel sit walk".split())
_LIKE_WHAT = re.compile(r".{3,}(?:ful|ous|ive|ing|able|ible|less|ic|ed)$|hard$|easy$|dull$|fun$")
_ONLY = frozenset("only exclusively solely".split())
_MINE = frozenset("me my our us mine ours myself".split())
_SPELLS = frozenset("years year months month weeks week decades decade ages".split())
_FARING = words("faring")
_TIMED = words("timed")
_READ = frozenset("yesterday ago last just recently this that finally already".split())
_SAME_PAST = frozenset("quit put set hit cut hurt split".split())
_ARTICLES = frozenset("a an my our the this these some two three four five several many".split())


def read(clause: Clause) -> list[Draft]:
    """Return the drafts of a clause and of the verbs that share its subject."""
    found: list[Draft] = []
    begin, aux = clause.at + 1, clause.of_subject()
    for _ in range(3):
        verb, aux, weak = clause.auxiliaries(begin, aux)
        if verb >= clause.last or "modal" in aux or weak == "not":
            break
        stop = clause.end_of(verb + 1)
        alone = not _ONLY.isdisjoint(clause.low[begin:verb])
        found += [
            _limited(draft, alone)._replace(
                certain=draft.certain and not weak, perfect="have" in aux
            )
            for draft in _predicate(clause, verb, stop, aux)
        ]
        joined = clause.joined(verb, stop, aux)
        if not joined:
            break
        begin, aux = joined, [one for one in aux if one == "have"]
    return [clause.of_whom(draft) for draft in found if balanced(clause, draft)]


def _limited(draft: Draft, alone: bool) -> Draft:
    """Return "I only use X" with its "only", without which it says something else."""
    kept = alone and draft.kind in (STATE, HABIT) and not draft.ended and draft.attribute != "age"
    return draft._replace(prefix="only ") if kept else draft


def balanced(clause: Clause, draft: Draft) -> bool:
    """Tell whether a value holds both ends of its code, and points at its own subject only."""
    inside = [w.low for w in clause.words if draft.first <= w.start < draft.last]
    if clause.name and not _MINE.isdisjoint(inside):
        return False  # whoever "me" is in what Rob did, it is not Rob
    return inside.count("`") % 2 == 0 and not ("each" in inside and "other's" in inside)


def _predicate(clause: Clause, verb: int, stop: int, aux: list[str]) -> Iterator[Draft]:
    found = form(clause.low[verb])
    negated = "not" in aux
    if not {"am", "was", "been"}.isdisjoint(aux):
        if not negated:
            yield from _being(clause, verb, stop, aux)
    elif found is None:
        return
    elif negated:
        yield from _denied(clause, verb, stop, found.lemma, aux)
    elif "will" in aux or "going" in aux:
        yield from _future(clause, verb, stop, found.lemma, "going" in aux)
    elif "can" in aux:
        if found.lemma == "speak":
            yield from clause.simple("speaks", verb + 1, stop)
    elif _is_past(clause, verb, aux):
        yield from _did(clause, verb, stop, found.lemma, aux)
    elif (THIRD if clause.of and clause.of not in SEVERAL else BASE) in found.kinds:
        yield from _does(clause, verb, stop, found.lemma)


def _is_past(clause: Clause, verb: int, aux: Sequence[str]) -> bool:
    low = clause.low[verb]
    kinds = form(low).kinds  # type: ignore[union-attr]
    if not {"used", "have", "had", "did"}.isdisjoint(aux):
        return True
    if low == "read" and not clause.of:
        return not _READ.isdisjoint(clause.low[clause.begun : clause.last])
    return PAST in kinds and (BASE not in kinds or low in _SAME_PAST)


def _does(clause: Clause, verb: int, stop: int, lemma: str) -> Iterator[Draft]:
    """Read the present: what somebody is, likes, does again and again."""
    rule = _PRESENT.get(lemma)
    if rule is not None:
        yield from rule(clause, verb, stop)
    elif lemma in _HABITS:
        particle, begin = clause.particle(verb, stop)
        if particle.endswith("to") and clause.is_verb(begin):
            return
        span = clause.value(begin, stop)
        if span is not None and not says_nothing(clause.low[span[0] : span[1]], lemma):
            base = f"{lemma} {particle}".strip()
            name = _called(base)
            yield clause.draft(name, span, HABIT, outright=not clause.of)


def _did(clause: Clause, verb: int, stop: int, lemma: str, aux: Sequence[str]) -> Iterator[Draft]:
    """Read the past: what somebody did, or used to do."""
    if "used" in aux:
        yield from _used_to(clause, verb, stop, lemma)
        return
    if "have" in aux and clause.low[verb] == "got":
        yield from _has(clause, verb, stop)
        return
    if "have" in aux and lemma in _HABITS and _till_now(clause, verb):
        yield from _does(clause, verb, stop, lemma)
        return
    if lemma in _SAYING or lemma in _LASTING - {"work", "live"}:
        yield from _always_did(clause, verb, stop, lemma)
        return
    special = _PAST_RULES.get(lemma)
    if special is not None and (drafts := list(special(clause, verb, stop))):
        yield from drafts
        return
    particle, begin = clause.particle(verb, stop)
    if lemma == "pass" and particle == "away" and clause.of:
        yield clause.draft("event", (verb, verb + 2), EVENT)
        return
    if lemma in _ALONE and not particle and stop - verb <= 6:
        yield clause.draft("event", (verb, verb + 1), EVENT, outright=not clause.of)
    elif lemma != "be":
        yield from _event(clause, f"{past(lemma)} {particle}".strip(), lemma, begin, stop)


def _till_now(clause: Clause, verb: int) -> bool:
    """Tell "I have lived here since 2019" from "I have lived in Rome": it is so now."""
    for at in range(verb, clause.last):
        if clause.low[at] == "since":
            return True
        if clause.low[at] == "for" and not _SPELLS.isdisjoint(clause.low[at + 1 : at + 5]):
            return True
    return False


def _called(base: str) -> str:
    """Return the attribute of "live in", "mentor": never the name of another ("my mentor")."""
    name = _CANONICAL.get(base, base)
    if name == base and name in ATTRIBUTES:
        head, space, rest = base.partition(" ")
        return f"{ing(head)}{space}{rest}"
    return name


def _used_to(clause: Clause, verb: int, stop: int, lemma: str) -> Iterator[Draft]:
    particle, begin = clause.particle(verb, stop)
    base = f"{lemma} {particle}".strip()
    span = clause.value(begin, stop)
    kept = _HABITS | _LASTING | {"have"}
    if span is not None and lemma in kept and clause.low[begin] not in _UNNAMED:
        name = _called(base)
        yield clause.draft(name, span, STATE, ended=True)


def _event(clause: Clause, name: str, lemma: str, begin: int, stop: int) -> Iterator[Draft]:
    if name.endswith(" by") and lemma not in _BY_THE_WAY and not clause.word(begin)[:1].isdigit():
        return  # "then called up by Ana": nobody's deed
    if name.split(" ")[-1] == "to" and clause.is_verb(begin) and lemma not in _TO_VERB:
        if lemma not in _TO_PURPOSE:
            return
        name, begin = name.removesuffix(" to"), begin - 1
    if lemma in _MADE_SO and " " not in name and not _names(clause, begin, lemma):
        return
    become = name.endswith(" to") and lemma_of(clause.word(begin)) in _MADE_SO
    if become and clause.word(begin + 1) not in _ARTICLES | _PREPOSITIONS:
        return  # "tried to stay calm"
    span = _object(clause, begin, stop, name)
    if span is not None and not says_nothing(clause.low[span[0] : span[1]], lemma):
        yield clause.draft(name, span, EVENT, outright=not clause.of)


def _names(clause: Clause, begin: int, lemma: str) -> bool:
    """Tell "went hiking", "got a dog" from "got tired"."""
    low = clause.word(begin)
    found = form(low)
    return low in _ARTICLES or (lemma == "go" and found is not None and ING in found.kinds)


def _object(clause: Clause, begin: int, stop: int, name: str) -> tuple[int, int] | None:
    if clause.word(begin) == "to" and not name.endswith("to"):
        return None
    return clause.value(begin, stop)


def _always_did(clause: Clause, verb: int, stop: int, lemma: str) -> Iterator[Draft]:
    """Read "I've always loved X" as a liking that lasts."""
    if lemma in ("love", "enjoy") and clause.word(verb - 1) != "always":
        if clause.word(verb + 1) not in _UNNAMED:
            yield from _event(clause, past(lemma), "see", verb + 1, stop)
    elif clause.word(verb - 1) == "always" and _CANONICAL.get(lemma) in ("likes", "dislikes"):
        yield from _likes(clause, verb, stop)


def _denied(clause: Clause, verb: int, stop: int, lemma: str, aux: list[str]) -> Iterator[Draft]:
    over = clause.anymore(stop) or "over" in aux
    if lemma == "wait" and "can" in aux:
        if clause.word(verb + 1) == "to":
            yield from infinitive(clause, "looks forward to", verb + 1, stop)
    elif lemma in ("stand", "bear") and "can" in aux:
        yield from clause.simple("dislikes", verb + 1, stop)
    elif "do" in aux and over:
        yield from _no_longer(clause, verb, stop, lemma)
    elif lemma in ("eat", "drink", "use") and {"did", "have", "had", "will"}.isdisjoint(aux):
        name = f"does not {lemma}"
        yield from clause.simple(name, verb + 1, stop)
    elif "do" in aux and lemma in ("like", "enjoy"):
        yield from clause.simple("dislikes", verb + 1, stop)


def _no_longer(clause: Clause, verb: int, stop: int, lemma: str) -> Iterator[Draft]:
    """Read "I don't eat meat any more": what it ends."""
    if lemma not in _HABITS and lemma not in ("like", "love", "enjoy", "work", "live"):
        return
    particle, begin = clause.particle(verb, stop)
    span = clause.value(begin, stop)
    if span is not None and clause.low[begin] not in _UNNAMED:
        base = f"{lemma} {particle}".strip()
        yield clause.draft(_called(base), span, STATE, ended=True, outright=True)


def _future(clause: Clause, verb: int, stop: int, lemma: str, meant: bool) -> Iterator[Draft]:
    """Read "I'm going to"; "I'll" is a plan only where a time is set, else an answer."""
    timed = not _TIMED.isdisjoint(clause.low[verb:stop])
    if lemma not in _NO_PLANS and (meant or timed):
        yield from infinitive(clause, "plans to", verb, stop)


def infinitive(clause: Clause, name: str, verb: int, stop: int) -> Iterator[Draft]:
    """Yield "to VERB object" as a value that begins with the verb."""
    verb += clause.word(verb) == "to"
    while clause.word(verb) in _ADVERBS:
        verb += 1
    found = form(clause.word(verb))
    if found is None or BASE not in found.kinds or found.lemma in _NO_PLANS:
        return
    span = clause.value(verb + 1, stop)
    if span is None or says_nothing(clause.low[span[0] : span[1]], found.lemma):
        return
    if found.lemma == "make" and clause.low[verb + 1] == "sure":
        return
    if clause.low[verb + 1] in ("this", "these"):
        return  # it is pointed at; here the value holds the word
    if span[0] == verb + 2 and clause.word(verb + 1) == "to" and clause.is_verb(span[0]):
        return
    if found.lemma in _MADE_SO and clause.word(span[0]) not in _ARTICLES | _PREPOSITIONS:
        return
    yield clause.draft(name, (verb, span[1]), PLAN, outright=not clause.of)


# --- "I am ..." -----------------------------------------------------------------------------------


def _being(clause: Clause, verb: int, stop: int, aux: list[str]) -> Iterator[Draft]:
    low = clause.low[verb]
    found = form(low)
    if found is not None and ING in found.kinds and low != "being":
        if "was" not in aux:
            yield from _progressive(clause, verb, stop, found.lemma)
    elif "was" in aux or "been" in aux:
        done = list(_passive(clause, verb, stop, low))
        if done or "have" not in aux:
            yield from done
        elif _till_now(clause, verb):
            yield from _copula(clause, verb, stop)
        else:
            yield from _adjective(clause, verb, stop)
    else:
        yield from _copula(clause, verb, stop)


def _progressive(clause: Clause, verb: int, stop: int, lemma: str) -> Iterator[Draft]:
    if lemma in ("love", "enjoy"):
        yield from _likes(clause, verb, stop)
    if lemma in _NOT_GOING_ON:
        return
    follows = clause.word(verb + 1)
    if lemma == "look" and follows == "forward":
        yield from _forward(clause, verb, stop)
    elif lemma == "go" and follows == "to":
        yield from _goes(clause, verb, stop)
    elif follows == "to" and lemma in _GOING_ON:
        yield from infinitive(clause, _GOING_ON[lemma], verb + 1, stop)
    elif lemma != "hope" and not (follows == "to" and clause.is_verb(verb + 2)):
        yield from _going_on(clause, verb, stop, lemma)


def _going_on(clause: Clause, verb: int, stop: int, lemma: str) -> Iterator[Draft]:
    particle, begin = clause.particle(verb, stop)
    if particle.endswith("to") and clause.is_verb(begin):
        return
    if lemma in _MADE_SO and clause.word(begin) not in _ARTICLES and not particle:
        return
    full = f"{clause.low[verb]} {particle}".strip()
    span = _object(clause, begin, stop, full)
    if span is None or says_nothing(clause.low[span[0] : span[1]], lemma):
        return
    if lemma == "do" and clause.low[span[0]] in _FARING:
        return
    yield clause.draft(_CANONICAL.get(full, full), span, STATE, outright=not clause.of)


def _goes(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    span = clause.value(verb + 2, stop)
    if span is not None:
        yield clause.draft("going to", span, PLAN, outright=not clause.of)


def _forward(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    if clause.word(verb + 2) == "to" and clause.word(verb + 3) not in _UNNAMED - {"the"}:
        span = clause.value(verb + 3, stop)
        if span is not None and not says_nothing(clause.low[span[0] : span[1]], "have"):
            yield clause.draft("looks forward to", span, PLAN, outright=not clause.of)


def _passive(clause: Clause, verb: int, stop: int, low: str) -> Iterator[Draft]:
    if low == "able" and clause.word(verb + 1) == "to":
        for draft in infinitive(clause, "was able to", verb + 1, stop):
            yield draft._replace(kind=EVENT)
        return
    particle, begin = clause.particle(verb, stop)
    name = _PASSIVE.get(f"{low} {particle}".strip())
    if name:
        span = clause.value(begin, stop)
        if span is not None and not says_nothing(clause.low[span[0] : span[1]], "have"):
            yield clause.draft(name, span, EVENT, outright=not clause.of)
    elif low in _PASSIVE_VERBS and particle in _PASSIVE_PARTICLES:
        infinite = particle == "to" and clause.is_verb(begin)
        span = clause.value(begin, stop)
        if span is not None and (infinite or low != "asked"):
            yield clause.draft(f"was {low} {particle}", span, EVENT, outright=not clause.of)
    elif low in _DONE_TO:
        yield clause.draft("event", (verb - 1, verb + 1), EVENT, value=f"was {low}")


def _copula(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    low = clause.low[verb]
    if low in ("a", "an"):
        yield from _noun(clause, verb, stop)
        return
    if low.isdigit() and low.isascii():
        yield from _age(clause, verb)
        return
    for size in (2, 1):
        name = _SINGLE_WORDS.get(" ".join(clause.low[verb : verb + size]))
        follows = clause.word(verb + size)
        ends = (
            follows in _AFTER_ADJECTIVE
            or follows.startswith("i'")
            or follows == "i"
            or not follows
            or not follows[0].isalnum()
        )
        if name and ends:
            yield clause.draft(name, (verb, verb + size), STATE, outright=not clause.of)
            return
    yield from _adjective(clause, verb, stop)


def _adjective(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    if clause.word(verb + 1) == "to" and clause.low[verb] in _EAGER:
        yield from infinitive(clause, f"is {clause.low[verb]} to", verb + 1, stop)
        return
    for size in (3, 2, 1):
        name = _ADJECTIVES.get(" ".join(clause.low[verb : verb + size]))
        if name is None:
            continue
        begin = verb + size
        if clause.word(begin) in _UNNAMED - {"the", "all"}:
            return
        if name == "going to" and clause.is_verb(begin):
            return  # "off to bake a cake"
        span = clause.value(begin, stop)
        if span is not None and not says_nothing(clause.low[span[0] : span[1]], "have"):
            yield clause.draft(name, span, STATE, outright=not clause.of)
        return
    if is_name(clause.words[verb]) and not clause.of:
        yield from _introduced(clause, verb)


def _introduced(clause: Clause, verb: int) -> Iterator[Draft]:
    """Read "I'm Ana" at the very beginning, or after a greeting."""
    size = name_at(clause.words, verb)
    after = clause.word(verb + size)
    greeted = all(low in _LEADS or not wordy(low) for low in clause.low[: clause.at])
    if size <= 2 and greeted and (not after or after in ",.!-" or after in ("and", "from")):
        yield clause.draft("name", (verb, verb + size), STATE, outright=True)


def _age(clause: Clause, verb: int) -> Iterator[Draft]:
    follows = clause.word(verb + 1)
    if len(clause.low[verb]) > 3 or not 0 < int(clause.low[verb]) < 120:
        return
    old = follows in ("years", "yrs", "yo", "y/o") and clause.word(verb + 2) not in ("into", "in")
    if old and clause.word(verb + 2) not in ("", "old", "of", ".", ",", "and", "!"):
        return
    ends = not follows or follows in ("and", "now", "but", ".", ",", "!", ";", ")")
    if old or ends:
        yield clause.draft("age", (verb, verb + 1), STATE, outright=not clause.of)


def _noun(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    span = clause.value(verb + 1, stop)
    if span is None:
        return
    nouns = clause.low[span[0] : span[1]]
    head, outright = _head(clause, span), not clause.of
    if nouns[0] in _SOMEHOW or nouns[-1] in _SOMEHOW or head in _NO_HEADS:
        return
    if head in ("fan", "believer", "member", "resident"):
        yield from _belongs(clause, span, head, stop)
    elif head in _WORK_NOUNS or (head.endswith(_WORK_ENDINGS) and head not in _NOT_WORK):
        yield clause.draft("occupation", (verb, span[1]), STATE, outright=outright)
    elif nouns[0] in _SINGLE_WORDS and len(nouns) == 1:
        yield clause.draft(_SINGLE_WORDS[nouns[0]], (verb, span[1]), STATE, outright=outright)
    elif not clause.name:
        yield clause.draft("is", (verb, span[1]), STATE, outright=outright)


def _head(clause: Clause, span: tuple[int, int]) -> str:
    for at in range(span[0], span[1]):
        low = clause.low[at]
        if low in _PREPOSITIONS | {"and", "or", ",", "working", "who", "that", "living", "trying"}:
            return clause.low[at - 1] if at > span[0] else ""
    return clause.low[span[1] - 1]


def _belongs(clause: Clause, span: tuple[int, int], head: str, stop: int) -> Iterator[Draft]:
    at = clause.low.index(head, span[0])
    if clause.word(at + 1) not in ("of", "in") or clause.word(at + 2) in _UNNAMED - {"the"}:
        return
    inner = clause.value(at + 2, stop)
    preposition = clause.word(at + 1)
    names = {"fan": "likes", "resident": "residence"}
    name = names.get(head, f"is a {head} {preposition}")
    if inner is not None:
        yield clause.draft(name, inner, STATE, outright=not clause.of)


def says_nothing(value: Sequence[str], lemma: str) -> bool:
    """Tell whether verb and value together say nothing: "had a blast", "made a difference"."""
    content = [low for low in value if low not in _LIGHT and wordy(low)]
    if not any(low[0].isalpha() for low in content):
        return True
    return lemma in _LIGHT_VERBS and set(content) <= _LIGHT_NOUNS


# --- verbs with a rule of their own ---------------------------------------------------------------


def _likes(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    name = "dislikes" if clause.low[verb].startswith(("hat", "dislik", "detest")) else "likes"
    follows = clause.word(verb + 1)
    if follows == "to":
        span = clause.value(verb + 2, stop)
        found = form(clause.word(verb + 2))
        if span is not None and found is not None and found.lemma not in _NO_LIKING:
            yield clause.draft(name, (verb + 1, span[1]), STATE, outright=not clause.of)
    elif follows not in _UNNAMED and lemma_of(follows) not in _NO_LIKING:
        yield from clause.simple(name, verb + 1, stop)


def _prefers(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    begin = verb + 1 + (clause.word(verb + 1) == "to")
    if clause.word(begin) in _POINTING:
        return
    stop = clause.end_of_comparison(begin, stop)
    span = clause.value(begin, stop)
    if span is not None:
        yield clause.draft("prefers", (verb + 1, span[1]), STATE, outright=not clause.of)


def _lives(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    particle, begin = clause.particle(verb, stop)
    span = clause.value(begin, stop)
    if span is None or particle not in ("in", "at", "near", "with"):
        return
    span = _with_country(clause, span)
    vague = clause.low[span[0]] in ("a", "an", "my", "the", "fear")
    name = "residence" if particle == "in" and not vague else f"live {particle}"
    yield clause.draft(name, span, STATE, outright=not clause.of)


def _with_country(clause: Clause, span: tuple[int, int]) -> tuple[int, int]:
    """Widen "Austin" to "Austin, Texas"."""
    last = span[1]
    if clause.word(last) == "," and is_name(clause.words[last - 1]):
        size = name_at(clause.words, last + 1)
        return (span[0], last + 1 + size) if size else span
    return span


def _works(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    particle, begin = clause.particle(verb, stop)
    name = _CANONICAL.get(f"work {particle}", "work from" if particle == "from" else "")
    span = clause.value(begin, stop)
    if not name or span is None:
        return
    inside = clause.low[span[0] : span[1]]
    if name == "employer" and (inside[0][0].isdigit() or not {"hours", "hour"}.isdisjoint(inside)):
        return
    yield clause.draft(name, span, STATE, outright=not clause.of)


def _has(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    span = _had_what(clause, verb, stop)
    if span is None:
        return
    inside = clause.low[span[0] : span[1]]
    if _bare(clause, verb + 1, inside):
        return
    name = "has"
    if not {"allergy", "allergies"}.isdisjoint(inside) or not _CONDITIONS.isdisjoint(inside):
        name = "condition"
    elif inside[0] not in ("my", "our") and _head_of(inside) in RELATIONS - PETS:
        name = "has family"
    yield clause.draft(name, span, STATE, outright=not clause.of)
    yield from _named_pet(clause, span)


def _bare(clause: Clause, begin: int, inside: Sequence[str]) -> bool:
    """Tell "peas", "45500" from "a car", "two flats": what is at hand, not what one owns."""
    if not any(low[0].isalpha() for low in inside):
        return True
    counted = clause.low[begin] in _ARTICLES or clause.low[begin].isdigit()
    known = RELATIONS | _CONDITIONS | {"allergy", "allergies"}
    return not counted and len(inside) == 1 and known.isdisjoint(inside)


def _head_of(inside: Sequence[str]) -> str:
    before = next((n for n, low in enumerate(inside) if low in _PREPOSITIONS), len(inside))
    return inside[max(before - 1, 0)]


def _had(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    if clause.word(verb + 1) == "to":
        return
    span = _had_what(clause, verb, stop)
    if span is not None:
        yield clause.draft("had", span, EVENT, outright=not clause.of)


def _had_what(clause: Clause, verb: int, stop: int) -> tuple[int, int] | None:
    begin = verb + 1
    if clause.word(begin) in _UNNAMED | {"to", "no", "never", "had", "been"}:
        return None
    span = clause.value(begin, stop)
    if span is None:
        return None
    inside = clause.low[span[0] : span[1]]
    found = form(inside[0])
    done = found is not None and PARTICIPLE in found.kinds and inside[0] not in ("left", "set")
    if done or says_nothing(inside, "have") or not _NOT_HAD.isdisjoint(inside):
        return None
    return span


def _named_pet(clause: Clause, span: tuple[int, int]) -> Iterator[Draft]:
    for at in range(span[0], min(span[1], len(clause.low) - 2)):
        if clause.low[at] in RELATIONS and clause.low[at + 1] in ("named", "called"):
            size = name_at(clause.words, at + 2)
            if size:
                yield clause.draft(clause.low[at], (at + 2, at + 2 + size), STATE, outright=True)
            return


def _got(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    """Read "got married", "got promoted"."""
    if clause.word(verb + 1) in _DONE_TO:
        more = clause.value(verb + 2, stop) if clause.word(verb + 2) in _PREPOSITIONS else None
        yield clause.draft(
            "event", (verb, more[1] if more else verb + 2), EVENT, outright=not clause.of
        )


def _decided(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    if clause.word(verb + 1) != "to" or not clause.is_verb(verb + 2):
        return
    span = clause.value(verb + 2, stop)
    if span is not None and lemma_of(clause.low[span[0]]) not in _NO_PLANS:
        yield clause.draft("decided", (verb + 1, span[1]), EVENT, outright=not clause.of)


def _stopped(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    """Read "stopped smoking cigarettes", "quit drinking coffee": a habit that ended."""
    found = form(clause.word(verb + 1))
    if found is None or ING not in found.kinds or found.lemma not in _HABITS:
        return
    particle, begin = clause.particle(verb + 1, stop)
    span = clause.value(begin, stop)
    base = f"{found.lemma} {particle}".strip()
    if span is not None:
        name = _called(base)
        yield clause.draft(name, span, STATE, ended=True, outright=not clause.of)


def _turned(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    low, follows = clause.word(verb + 1), clause.word(verb + 2)
    ends = not follows[:1].isalnum() or follows in _LEADS or follows == "years"
    if low.isdigit() and low.isascii() and len(low) < 4 and ends:
        yield clause.draft("age", (verb + 1, verb + 2), STATE, outright=not clause.of)


def _looks(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    if clause.word(verb + 1) == "forward":
        yield from _forward(clause, verb, stop)


def _to(name: str) -> Rule:
    def rule(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
        if clause.word(verb + 1) == "to":
            yield from infinitive(clause, name, verb + 1, stop)

    return rule


def _simply(name: str) -> Rule:
    def rule(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
        yield from clause.simple(name, verb + 1, stop)

    return rule


def _with(particle: str, name: str) -> Rule:
    def rule(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
        found, begin = clause.particle(verb, stop)
        if found == particle:
            yield from clause.simple(name, begin, stop)

    return rule


def _finds(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    """Read "I find flashcards ineffective": a thing and what it is like."""
    span = None if clause.word(verb + 1) in _UNNAMED | _MINE else clause.value(verb + 1, stop)
    if span is None or not 2 <= span[1] - span[0] <= 6:
        return
    inside = clause.low[span[0] : span[1]]
    if _LIKE_WHAT.match(inside[-1]) and _PREPOSITIONS.isdisjoint(inside) and "to" not in inside:
        yield clause.draft("find", span, STATE, outright=not clause.of)


def _does_for(clause: Clause, verb: int, stop: int) -> Iterator[Draft]:
    """Read "Ana does the accounts", said of somebody by name."""
    if clause.name and clause.word(verb + 1) in ("the", "all", "our"):
        span = clause.value(verb + 1 + (clause.word(verb + 1) == "our"), stop)
        if span is not None and not says_nothing(clause.low[span[0] : span[1]], "do"):
            yield clause.draft("do", span, STATE)


_PRESENT: Mapping[str, Rule] = {
    "like": _likes, "love": _likes, "enjoy": _likes, "adore": _likes, "hate": _likes,
    "dislike": _likes, "prefer": _prefers, "live": _lives, "work": _works, "have": _has,
    "own": _simply("owns"), "speak": _simply("speaks"), "want": _to("wants to"),
    "need": _to("needs to"), "try": _to("try to"), "refuse": _to("refuse to"),
    "hope": _to("hopes to"), "plan": _to("plans to"), "aim": _to("wants to"),
    "intend": _to("plans to"), "come": _with("from", "origin"), "use": _simply("uses"),
    "do": _does_for, "find": _finds, "go": _with("with", "going with"),
    "suffer": _with("from", "condition"), "avoid": _simply("avoids"),
    "collect": _simply("collects"), "look": _looks,
    "believe": _with("in", "believe in"), "value": _simply("value"),
    "care": _with("about", "care about"), "struggle": _with("with", "struggle with"),
}  # fmt: skip
_PAST_RULES: Mapping[str, Rule] = {
    "get": _got, "decide": _decided, "stop": _stopped, "quit": _stopped, "turn": _turned,
    "have": _had,
}  # fmt: skip

__all__ = ["infinitive", "read", "says_nothing"]
