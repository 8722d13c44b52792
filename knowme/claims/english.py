"""What an English sentence claims about its writer, and about those they call theirs.

Promises: pure; every draft lies inside its sentence and its value is a stretch of it; a value
stands alone (no "it", no "that", nobody's "she"). Nothing is read from a question, a condition, a
wish or what somebody else said. Time linear in the words of the sentence.
Refuses to know: dates, other languages, what is believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from knowme.attributes import RELATIONS
from knowme.claims.clauses import Clause, Line, name_at
from knowme.claims.lexicon import STATE, Draft, Word, first_names, table, words, wordy
from knowme.claims.predicates import infinitive, read
from knowme.types import ME
from knowme.verbs import BASE, ING, PARTICIPLE, PAST, form

_ADVERBS = words("adverbs")
_POINTING = words("pointing")
_PREPOSITIONS = words("prepositions")
_SUBJECTS = frozenset(table("subjects"))
_LEADS = words("leads")
_ASKING = words("asking")
_CONJUNCTIONS = words("conjunctions")
_FACTIVE = words("factive")
_IFS, _LABELS, _MACHINES = words("ifs"), words("labels"), words("machines")
_IMPERATIVES = words("imperatives")
_KINDS_OF = words("kinds_of")
_REPORTS = words("reports")
_SUBJECTLESS = words("subjectless")
_OBJECTS = words("objects")
_SAYING, _INVERTED = words("saying"), words("inverted")
_NAMES = first_names()
_WISH = words("wish")
_POSSESSIONS, _BELONGINGS = table("possessions"), table("belongings")
_SINGULAR = {"kids": "kid", "siblings": "sibling", "children": "child"}
_LEADS_TIME = words("leads") | words("before_time") | words("adverbs") | {","}
WORDS = re.compile(
    r"[$€£]?\d+(?:[.,]\d+)+%?|[$€£]\d+|\w+(?:['’&./@:+#-]\w+)*[+#%]*|[^\w\s]", re.UNICODE
)
_OPENING = frozenset("after before during last next".split())
_FINITE = words("finite")
_NO_OBJECT = frozenset("by it , . ! as you me us him her them sure".split())
_ONLY_FIRST = words("only_first")
_INTO = frozenset("into interested passionate obsessed allergic vegan vegetarian".split())
_PASTIMES = frozenset("hobby hobbies passion passions pastime".split())
_BY = frozenset("by in of from as for with on".split())
_MOVES = frozenset("move walk work live volunteer stay run swim travel drive".split())
_GOING = frozenset("going moving switching leaving applying".split())
_TELL = frozenset("tell telling told know".split())
LONGEST = 120
"""Words of a sentence: a longer one is no prose."""


def read_sentence(text: str, start: int, end: int, *, others: bool = False) -> list[Draft]:
    """Return what one sentence of a text (characters start to end) claims about its writer.

    ``others``: what went before speaks of somebody else, whom a verb without a subject may mean.
    """
    words = [
        Word(match.start(), match.end(), match[0].lower().replace("’", "'"), match[0])
        for match in WORDS.finditer(text, start, end)
    ]
    if not words or len(words) > LONGEST:
        return []
    return list(Sentence(text, words, others=others).drafts())


class Sentence:
    """One sentence while it is read."""

    def __init__(self, text: str, words: Sequence[Word], *, others: bool = False) -> None:
        self.text = text
        self.others = others
        self.words = words
        self.low = [word.low for word in words]
        self.asked = self._question()
        self.line = Line(words, self.low, min(self.asked, len(words)))

    def _question(self) -> int:
        """Return the word that a question begins at; as many as there are where none does."""
        if "?" not in self.low:
            return len(self.low)
        mark = self.low.index("?")
        for at in range(mark - 1, -1, -1):
            begins = at == 0 or self.low[at - 1] in _CONJUNCTIONS or self.low[at - 1] in ",;.—-:!"
            if begins and self.low[at] in _ASKING:
                return max(at - 1, 0)
        return 0

    def drafts(self) -> Iterator[Draft]:
        if self.low[0] in _IMPERATIVES or not _WISH.isdisjoint(self.low[:3]):
            return
        blocked = next((n for n, low in enumerate(self.low) if low in _IFS), len(self.low))
        at = 0
        while at < min(self.asked, blocked):
            found: list[Draft] = []
            if self.low[at] in _SUBJECTS and self._may_begin(at):
                found = read(self._clause(at, at))
                if at and self.low[at - 1] in _REPORTS:
                    found = [draft._replace(certain=False) for draft in found]
            elif self.low[at] in ("my", "our"):
                found = list(self._of_mine(at))
            elif at < 6 and not self.others and self._dropped(at):
                found = read(self._clause(at - 1, at))
            elif self.low[at] in _NAMES and self._somebody(at):
                clause = self._clause(at, at, of="friend", name=self.words[at].raw)
                found = read(clause)
            yield from found
            at += 1

    def _clause(self, at: int, first: int, of: str = "", name: str = "") -> Clause:
        """Return the clause of a subject, with what stands before it and says when."""
        begun = max(first, 0)
        while begun and (self.low[begun - 1] in _LEADS_TIME or self.low[begun - 1].isdigit()):
            begun -= 1
        ends = not begun or not wordy(self.low[begun - 1]) or self.low[begun - 1] in _CONJUNCTIONS
        return Clause(self.line, at, first, of, name, begun if ends else max(first, 0))

    def _may_begin(self, at: int) -> bool:
        """Tell whether a clause of its own begins at this subject."""
        if at == 0:
            return True
        before, earlier = self.low[at - 1], self.low[at - 2] if at > 1 else ""
        if before in _HELD:
            return _HELD[before](self, at, earlier)
        if before in _ONLY_FIRST and wordy(earlier or "."):
            return False
        if before in ("and", "or"):
            return earlier not in _POINTING | {"you"}
        if before in _CONJUNCTIONS | _LEADS | _FACTIVE | _ADVERBS:
            return True
        if before.isdigit() or not before[0].isalnum():
            return before not in "\"“'*" and not self._reported(at - 1)
        if self.low[0] in ("last", "next") and any(map(_is_past, self.low[1:at])):
            return False  # "last week, someone read a post I made"
        return self.low[0] in _OPENING and not {"i", "we", "you"} & set(self.low[:at])

    def _since(self, at: int, _: str) -> bool:
        now = self.low[at] in ("i'm", "we're", "im") or self._low_is(at + 1, "am")
        return (now and self.low[at - 1] == "since") or self._past_follows(at)

    def _that(self, _: int, earlier: str) -> bool:
        return earlier in _FACTIVE

    def _why(self, _: int, earlier: str) -> bool:
        return earlier in ("that's", "is", "which", "reason")

    def _supposed(self, at: int, earlier: str) -> bool:
        return at <= 3 and earlier in _SUBJECTS

    def _never(self, _: int, __: str) -> bool:
        return False

    def _told(self, at: int, _: str) -> bool:
        """Tell whether the writer says so themselves: "I wanted to tell you I joined ..."."""
        return (
            at < 14
            and bool(_TELL & set(self.low[:at]))
            and self.low[0] in _SUBJECTS | {"just", "hey"}
        )

    def _let_know(self, at: int, earlier: str) -> bool:
        """Tell "I wanted to let you know I joined ..."."""
        return earlier == "you" and "let" in self.low[max(0, at - 5) : at]

    def _reported(self, at: int) -> bool:
        """Tell whether the words before a comma report what somebody said or might."""
        return at > 0 and self.low[at - 1] in _REPORTS

    def _low_is(self, at: int, low: str) -> bool:
        return at < len(self.low) and self.low[at] == low

    def _past_follows(self, at: int) -> bool:
        for low in self.low[at + 1 : at + 4]:
            found = form(low)
            if low not in _ADVERBS:
                return found is not None and PAST in found.kinds and BASE not in found.kinds
        return False

    def _dropped(self, at: int) -> bool:
        """Tell whether a sentence begins with a verb whose subject, the writer, is left out."""
        if self.low[at] not in _SUBJECTLESS and not self._plain_past(at):
            return False
        labelled = self.low.index(":") + 1 if ":" in self.low[: min(at, 4)] else 0
        before = self.low[labelled:at]  # "update: moved to Porto"
        if not _LABELS.issuperset(self.low[: max(labelled - 1, 0)]):
            return False
        if len(before) > 2 or self._a_subject(at):
            return False  # "Working with children makes me happy", "lost in thought is ..."
        if not all(low in _LEADS or low in _ADVERBS or low == "," for low in before):
            return False
        follows = self.low[at + 1] if at + 1 < len(self.low) else "."
        if self.low[at] == "been" and follows in ("a", "an", "the"):
            return False  # "been a busy week"
        if self.low[at] == "going" and follows != "with":
            return False
        if self.low[at] in _GOING and follows not in _PREPOSITIONS | _OBJECTS:
            return False  # "moving date"
        return follows not in _NO_OBJECT and "you" not in self.low

    def _somebody(self, at: int) -> bool:
        """Tell whether a person is the subject here, by their first name alone."""
        follows = self.low[at + 1] if at + 1 < len(self.low) else "."
        if not wordy(follows) or follows in ("and", "or", "from"):
            return False
        return at == 0 or (self._clause_begins(at) and self.low[at - 1] not in _HELD)

    def _a_subject(self, at: int) -> bool:
        """Tell whether the words from here are the subject of a verb behind them, or a passive."""
        low, follows = self.low[at], self.low[at + 1] if at + 1 < len(self.low) else "."
        found = form(low)
        done = found is not None and PARTICIPLE in found.kinds and BASE not in found.kinds
        if low.endswith("ing") and not {"me", "us"}.isdisjoint(self.low[at:]):
            return True  # "learning about whales fascinates me"
        if done and follows in _BY and found is not None and found.lemma not in _MOVES:
            return True  # "made in Portugal"
        for look in self.low[at + 1 :]:
            if not wordy(look) or look in _CONJUNCTIONS | {"and", "that", "who", "which"}:
                return low.endswith("ing") and not _FINITE.isdisjoint(self.low[at:])
            if look in _FINITE:
                return True
        return False

    def _plain_past(self, at: int) -> bool:
        """Tell "called the plumber" from "inspired by", "used bikes": a verb and its object."""
        low = self.low[at]
        follows = self.low[at + 1] if at + 1 < len(self.low) else "."
        found = form(low)
        if low == "been":
            then = form(follows)
            return follows in _INTO or (then is not None and ING in then.kinds)
        if found is None or PAST not in found.kinds or found.kinds & {BASE, ING}:
            return False
        counted = follows.isdigit() and found.lemma not in _MACHINES  # "added 3 packages"
        return found.lemma not in _SAYING | _INVERTED and (follows in _OBJECTS or counted)

    # --- "my sister Ana ...", "my favourite food is ..." ---

    def _of_mine(self, at: int) -> Iterator[Draft]:
        if at and self.low[at - 1] in _PREPOSITIONS | {"than", "like"} and not self._named(at):
            return
        noun = at + 1
        while noun < len(self.low) and self.low[noun] in _KINDS_OF:
            noun += 1
        if noun >= len(self.low):
            return
        if self.low[noun] in ("favorite", "favourite"):
            yield from self._favourite(at, noun)
        elif self.low[noun] in _PASTIMES and self.low[at - 1] in ("is", "are"):
            yield from self._said_before(at, noun, "hobby")
        elif self.low[noun] in RELATIONS:
            yield from self._relation(at, noun)
        elif self.low[noun].endswith("'s") and self.low[noun + 1 : noun + 3] == ["name", "is"]:
            yield from self._called(at, noun)
        else:
            yield from self._possession(at, noun)

    def _named(self, at: int) -> bool:
        return at + 2 < len(self.low) and self.low[at + 1] in RELATIONS

    def _favourite(self, at: int, noun: int) -> Iterator[Draft]:
        last = noun + 1
        while last < len(self.low) and last < noun + 4 and self._plain(last):
            last += 1
        what = " ".join(self.low[noun + 1 : last])
        if not what:
            yield from self._said_before(at, noun, "likes")
            return
        if at > 1 and self.low[at - 1] in ("is", "are"):
            yield from self._favourite_before(at, last, what)
        elif last < len(self.low) and self.low[last] in ("is", "are") and not self._one_of(at):
            yield from self._value_after(f"favourite {what}", at, last + 1)

    def _said_before(self, at: int, noun: int, attribute: str) -> Iterator[Draft]:
        """Read "painting landscapes is my favourite", said at the very beginning."""
        after = self.low[noun + 1] if noun + 1 < len(self.low) else "."
        if at < 2 or self.low[at - 1] not in ("is", "are") or wordy(after) or at > 8:
            return
        first = 0
        while first < at - 2 and (self.low[first] in _LEADS or not wordy(self.low[first])):
            first += 1
        inside = range(first, at - 1)
        if all(self.low[look] not in _POINTING and wordy(self.low[look]) for look in inside):
            begin, end = self.words[first].start, self.words[at - 2].end
            yield Draft(attribute, begin, end, begin, self.words[noun].end, outright=True)

    def _plain(self, at: int) -> bool:
        low = self.low[at]
        odd = _POINTING | _PREPOSITIONS | _CONJUNCTIONS | {"is", "are", "was", "because", "for"}
        return low not in odd and low[0].isalpha()

    def _favourite_before(self, at: int, last: int, what: str) -> Iterator[Draft]:
        """Read "Harry Potter is my favourite book", said of a name at the very beginning."""
        first = 0
        while first < at - 2 and (self.low[first] in _LEADS or not wordy(self.low[first])):
            first += 1
        named = all(word.raw[0].isupper() for word in self.words[first : at - 1])
        if named and all(self._plain(look) for look in range(first, at - 1)):
            begin, end = self.words[first].start, self.words[at - 2].end
            start, quote_end = begin, self.words[last - 1].end
            yield Draft(f"favourite {what}", begin, end, start, quote_end, outright=True)

    def _one_of(self, at: int) -> bool:
        return "of" in self.low[max(0, at - 2) : at]

    def _value_after(
        self, attribute: str, at: int, begin: int, subject: str = ME, most: int = 8
    ) -> Iterator[Draft]:
        clause = self._clause(at, at)
        stop = clause.end_of(begin)
        span = clause.value(begin, stop)
        if span is not None and span[1] - span[0] <= most:
            yield clause.draft(attribute, span, STATE, outright=True, subject=subject)

    def _relation(self, at: int, noun: int) -> Iterator[Draft]:
        who = _SINGULAR.get(self.low[noun], self.low[noun])
        after = noun + 1
        if after < len(self.low) and self.low[after] == "," and name_at(self.words, after + 1):
            after += 1
        size = name_at(self.words, after)
        if size and self._ends_name(after, size):
            first, last = self.words[after].start, self.words[after + size - 1].end
            yield Draft(who, first, last, self.words[at].start, last, outright=True)
            after += size
            if after < len(self.low) and self.low[after] == ",":
                after += 1
        yield from self._relation_does(at, noun, after, self.low[noun])

    def _ends_name(self, at: int, size: int) -> bool:
        """Tell a name from the owner of what follows: "my daughter Sara's birthday"."""
        names = self.words[at : at + size]
        return not any(word.low.endswith("'s") or len(word.raw) == 1 for word in names)

    def _relation_does(self, at: int, noun: int, verb: int, who: str) -> Iterator[Draft]:
        if verb >= len(self.low) or self.low[noun].endswith("'s"):
            return
        name = ""
        if verb > noun + 1:
            named = [w.raw for w in self.words[noun + 1 : verb] if w.low != ","]
            name = " ".join(named)
        if not self._clause_begins(at):
            return
        clause = self._clause(verb - 1, at, of=who, name=name)
        yield from read(clause)

    def _clause_begins(self, at: int) -> bool:
        if at == 0:
            return True
        before = self.low[at - 1]
        return before in _CONJUNCTIONS | _LEADS or before in ",;:—-.!"

    def _called(self, at: int, noun: int) -> Iterator[Draft]:
        """Read "my sister's name is Ana"."""
        who, size = self.low[noun][:-2], name_at(self.words, noun + 3)
        if who in RELATIONS and size:
            first, last = self.words[noun + 3].start, self.words[noun + 2 + size].end
            yield Draft(who, first, last, self.words[at].start, last, outright=True)

    def _what_it_is(self, at: int) -> bool:
        """Tell "my car is a Golf" from "my car is broken"."""
        if at >= len(self.low):
            return False
        named = self.words[at].raw[0].isupper() or self.low[at] in ("a", "an", "called")
        return named or self.low[at][0].isdigit() or self.low[at + 1 : at + 2] == [":"]

    def _possession(self, at: int, noun: int) -> Iterator[Draft]:
        for size in (2, 1):
            what = " ".join(self.low[noun : noun + size])
            verb = noun + size
            if what in _BELONGINGS and verb < len(self.low) and self.low[verb] == "is":
                if self._clause_begins(at) and self._what_it_is(verb + 1):
                    yield from self._value_after(_BELONGINGS[what], at, verb + 1, most=6)
                return
            if what in _POSSESSIONS and verb < len(self.low) and self.low[verb] in ("is", "are"):
                if not self._clause_begins(at):
                    return
                if self.low[verb + 1 : verb + 2] == ["to"]:
                    clause = self._clause(verb - 1, at)
                    for draft in infinitive(clause, "goal", verb + 1, clause.end_of(verb + 2)):
                        name, to = _POSSESSIONS[what], self.words[verb + 1]
                        yield draft._replace(attribute=name, first=to.start, kind=STATE)
                else:
                    yield from self._value_after(_POSSESSIONS[what], at, verb + 1, most=6)
                return


def _is_past(low: str) -> bool:
    found = form(low)
    return found is not None and PAST in found.kinds and BASE not in found.kinds


_HELD: Mapping[str, Callable[[Sentence, int, str], bool]] = {
    "when": Sentence._since,
    "since": Sentence._since,
    "after": Sentence._since,
    "before": Sentence._since,
    "where": Sentence._never,
    "as": Sentence._never,
    "that": Sentence._that,
    "why": Sentence._why,
    **dict.fromkeys(("think", "believe", "guess", "suppose"), Sentence._supposed),
    "know": Sentence._let_know,
    **dict.fromkeys(("you", "ya", "u"), Sentence._told),
}
"""Words after which a subject begins a claim only if something else holds."""

__all__ = ["LONGEST", "read_sentence"]
