"""A clause of an English sentence: where its verb is, and which words may be a value.

Promises: pure; a value is a stretch of the sentence that stands alone: nothing in it points out of
it. Time linear in the words of the clause, but for lists (bounded).
Refuses to know: what a verb says of anyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from knowme.attributes import RELATIONS
from knowme.claims.lexicon import (
    STATE,
    Draft,
    Word,
    first_names,
    lemma_of,
    table,
    words,
    wordy,
)
from knowme.types import ME
from knowme.verbs import BASE, ING, PARTICIPLE, PAST, THIRD, form

_ADVERBS = words("adverbs")
_DANGLING = words("dangling")
_HEDGES = words("hedges")
_LIGHT = words("light")
_NOMINATIVE = words("nominative")
_POINTING = words("pointing")
_POSSESSIVE = words("possessive")
_PREPOSITIONS = words("prepositions")
_STOPS = words("stops")
_AUX = table("aux")
_SUBJECTS = table("subjects")
_PARTICLES = words("particles")
_UNNAMED = words("unnamed")
_SO = words("left_out_am")
_NOT_NAMES = words("not_names")
_FIRST_NAMES = first_names()
_BREAKS = frozenset('.!?;:—–()[]{}<>|*"“”…/=\\')
_OPENERS = _ADVERBS - words("quantities")
_REPORTING = words("reporting")
_DETERMINERS = frozenset("the a an my our your his her their this that these those some".split())
_ADJECTIVE = re.compile(r".{3,}(?:ful|ous|ive|al|ic|able|ible|less|ed|ing|ary|ish|ant|ent|weight)$")
_SURELY_ADJECTIVE = re.compile(r".{3,}(?:ful|ous|[cst]ive|able|ible|less)$")
_YEAR = re.compile(r"(?:19|20)\d\d")
_ALSO_NOUNS = frozenset("love like use drink work need hate try feel".split())
_VIA = _PREPOSITIONS | {"via"}
_EVENTS_OF = frozenset("time trouble fun luck day experience".split())
_HOLLOW = frozenset("spending having getting being doing making taking using escaping".split())
_FACTS = frozenset("fact idea feeling thing way point".split())
_ADJECTIVES = words("plain_adjectives")
_GOES_ON = words("goes_on")
_SECOND = words("second_verbs")
_WITH_VERB = frozenset("up out down off back away".split())
_QUOTES = frozenset('"“”')
_TITLED = frozenset(
    "called named titled entitled book movie film song show series novel game".split()
)
_NEEDS_MORE = words("needs_more")
_TIMES, _TOLD_OF = words("times"), words("told_of")
_ASKED = frozenset("how what where why whether if which who".split())
_FINITE = frozenset("is are was were has have had can will helps help go went".split())
_VAGUE = frozenset("together sure something anything everything nothing stuff things".split())
_MOST_WORDS = 22
"""Words of a value: a longer one holds more than one statement."""
_VERB_NOUNS: Mapping[str, tuple[str, ...]] = {
    "take": ("part", "care", "advantage"), "give": ("birth",), "make": ("friends",),
    "get": ("involved", "ready", "rid", "inspired", "accepted", "engaged", "married"),
    "keep": ("track",), "lose": ("touch",),
}  # fmt: skip


class Line(NamedTuple):
    """The words of a sentence, the same in lower case, and how many of them are no question."""

    words: Sequence[Word]
    low: Sequence[str]
    last: int


class Clause:
    """One clause: the words from ``begun`` on.

    ``first`` to ``at`` is its subject (``at`` before ``first``: it is left out); what stands before
    says when. ``of``: the subject is the writer's sister; ``name``: called so.
    """

    def __init__(
        self, line: Line, at: int, first: int, of: str = "", name: str = "", begun: int = -1
    ) -> None:
        self.words, self.low, self.last = line
        self.at = at
        self.first = max(first, 0)
        self.begun = self.first if begun < 0 else begun
        while self.begun < self.first and not wordy(self.low[self.begun]):
            self.begun += 1
        self.of = of
        self.name = name

    def of_subject(self) -> list[str]:
        """Return the auxiliaries that the subject carries: "am" of "I'm"."""
        if self.at < self.first:
            follows = self.word(self.at + 1)
            if follows == "been":
                return ["have"]
            found = form(follows)
            going = found is not None and ING in found.kinds
            return ["am"] if going or follows in _SO else []
        if self.of:
            return []
        aux = _SUBJECTS.get(self.low[self.at], "")
        return ["modal"] if aux == "would" else [aux] if aux else []

    def auxiliaries(self, begin: int, aux: list[str]) -> tuple[int, list[str], str]:
        """Return where the verb is, the auxiliaries before it, and whether it is hedged."""
        aux, weak, at = list(aux), "", begin
        while at < self.last:
            low = self.low[at]
            if low in _HEDGES:
                weak = "hedged"
            elif self.of and low in ("isn't", "doesn't", "hasn't"):
                weak = "not"
            elif not self._auxiliary(at, aux):
                if low not in _ADVERBS or (low in ("so", "pretty", "all", "both") and not aux):
                    break
            elif aux[-1:] in (["going"], ["over"]) and low != "gonna":
                at += 1  # two words: "going to", "no longer"
            at += 1
        return at, aux, weak

    def _auxiliary(self, at: int, aux: list[str]) -> bool:
        """Take the word here as an auxiliary, if it is one."""
        low, follows = self.low[at], self.word(at + 1)
        if low == "no" and follows == "longer":
            aux += ["do", "not", "over"]
        elif low == "gonna" or (low == "going" and follows == "to" and self._goes_to_do(at, aux)):
            aux[:] = [*(one for one in aux if one != "am"), "going"]
        elif self.of and low in ("is", "has"):
            aux.append("am" if low == "is" else "have")
        elif low in _AUX and not self._main(at, aux):
            aux += _AUX[low].split()
        else:
            return low == "to" and aux[-1:] == ["used"]
        return True

    def _goes_to_do(self, at: int, aux: Sequence[str]) -> bool:
        return "am" in aux and self.is_verb(at + 2)

    def word(self, at: int) -> str:
        """Return a word in lower case, "" beyond the clause."""
        return self.low[at] if at < self.last else ""

    def is_verb(self, at: int) -> bool:
        """Tell whether a verb's base form stands here, or after an adverb."""
        at += self.word(at) in _ADVERBS
        found = form(self.word(at))
        return found is not None and BASE in found.kinds

    def _main(self, at: int, aux: list[str]) -> bool:
        """Tell whether have, do, used stand as verbs of their own here."""
        low = self.low[at]
        if low in ("have", "had", "do", "did"):
            follows = at + 1
            while self.word(follows) in _ADVERBS or self.word(follows) in ("not", "never"):
                follows += 1
            after = form(self.word(follows))
            if low in ("have", "had"):
                good = (
                    after is not None
                    and bool(after.kinds & {PARTICIPLE})
                    and (self.word(follows) not in ("read", "set", "cut", "put", "hit"))
                )
                return not good or "will" in aux
            return after is None or BASE not in after.kinds
        return low == "used" and self.word(at + 1) != "to"

    def joined(self, verb: int, stop: int, aux: list[str]) -> int:
        """Return where a second verb of the same subject begins ("and bought"), or 0."""
        found = form(self.low[verb])
        if found is None or self.word(stop) not in ("and", ",", "then", "but"):
            return 0
        at = stop + 1
        while self.word(at) in _ADVERBS | {"and", "then"}:
            at += 1
        second = form(self.word(at))
        if at == stop + 1 and self.low[stop] == "," and self.word(at + 1) in _VIA:
            return 0  # ", tracked via a form": how it was done
        second_said = self.word(at) in _SECOND and self.low[at - 1] != ","
        second_said = second_said and not self._noun(at)
        if BASE in found.kinds and second_said and self._plain(verb):
            return at
        if second is None or not second.kinds & {PAST} or BASE in second.kinds:
            return 0
        return at if PAST in found.kinds and "am" not in aux else 0

    def _plain(self, verb: int) -> bool:
        """Tell whether the verb follows its subject, with nothing but adverbs between."""
        return all(low in _ADVERBS for low in self.low[self.at + 1 : verb])

    def of_whom(self, draft: Draft) -> Draft:
        """Return a draft as one of the clause's subject."""
        if not self.of:
            return draft
        if self.name:
            return draft._replace(subject=self.name, outright=False)
        return draft._replace(attribute=f"{self.of}: {draft.attribute}", outright=False)

    # --- where a value ends ---

    def end_of(self, begin: int) -> int:
        """Return the word before which the object that begins here ends."""
        at = begin
        while at < self.last:
            low = self.low[at]
            if low in _QUOTES and (closed := self._title(at, begin)):
                at = closed
                continue
            if low == "'" and self.word(at + 1) in ("cause", "cuz"):
                break
            if (low in _BREAKS and not self._abbreviates(at)) or low in _NOMINATIVE:
                break
            if low in _STOPS and at > begin and not self._relative(at) and not self._what_as(at):
                break
            if (
                not low[0].isalnum()
                and low not in _QUOTES
                and low not in ",'&-$#%+@"
                and ord(low[0]) > 127
            ):
                break
            if low == "," and not self._list_goes_on(at):
                break
            if low == "-" and self._spaced(at):
                break
            if low == "and" and self._new_clause(at):
                break
            at += 1
        return at

    def _what_as(self, at: int) -> bool:
        """Tell "reptiles as pets", "SQLite as my database" from "as my kids grow up"."""
        if self.low[at] != "as":
            return False
        article = self.word(at + 1) in ("a", "an", "my", "our")
        if not article:
            one, then = self.word(at + 1), self.word(at + 2)
            ends = not then or not wordy(then)
            return ends and one.isalpha() and one.endswith("s") and form(one) is None
        for low in self.low[at + 2 : min(at + 7, self.last)]:
            if not wordy(low) or low in _PREPOSITIONS | _STOPS:
                return True
            found = form(low)
            if low in _NOMINATIVE or low in _FINITE or (found and found.kinds & {PAST, BASE}):
                return False
        return True

    def _relative(self, at: int) -> bool:
        """Tell "people who have lost a home" from "who are you"."""
        if self.low[at] in ("who've", "who's", "who're") and at and wordy(self.low[at - 1]):
            return self.low[at - 1] not in _PREPOSITIONS | _ADVERBS
        if self.low[at] not in ("who", "that") or not at or not wordy(self.low[at - 1]):
            return False
        before, after = self.low[at - 1], self.word(at + 1)
        if before in _PREPOSITIONS | _ADVERBS | _REPORTING or before in ("and", "or", "so"):
            return False
        if after in _FINITE:
            return True
        found = form(after)
        kinds = found.kinds if found is not None else frozenset()
        plural = before[-1] == "s" or before in ("people", "anything", "everything", "everyone")
        if plural and after and after not in _DETERMINERS | _NOMINATIVE:
            return wordy(after)
        return bool(kinds & {PAST, THIRD})

    def _title(self, at: int, begin: int) -> int:
        """Return the word after a title in quotation marks; 0 where none may stand here."""
        before = form(self.low[at - 1])
        reading = before is not None and ING in before.kinds
        if at != begin and self.low[at - 1] not in _TITLED and not reading:
            return 0
        for look in range(at + 2, min(at + 10, self.last)):
            if self.low[look] in _QUOTES:
                return look + 1
        return 0

    def _abbreviates(self, at: int) -> bool:
        """Tell the point of "Queen St. West" from the end of a sentence."""
        before, follows = self.words[at - 1].raw, self.word(at + 1)
        initial = len(before) == 1 and before.isupper() and before != "I"
        short = initial or before.lower() in ("st", "dr", "mr", "mrs", "ms", "vs", "no")
        return self.low[at] == "." and short and bool(follows) and wordy(follows)

    def _spaced(self, at: int) -> bool:
        return at + 1 < len(self.words) and self.words[at].end < self.words[at + 1].start

    def _list_goes_on(self, at: int) -> bool:
        """Tell a comma within "hiking, reading, and swimming" from one that ends the object."""
        before, after = self.low[at - 1], self.word(at + 1)
        if before in _ADJECTIVES or _ADJECTIVE.match(before) and not before.endswith("ings"):
            if wordy(after or ",") and self._noun_phrase(at + 1):
                return True
        size = 0
        for look in range(at + 1, min(at + 14, self.last)):
            low = self.low[look]
            if low in ("and", "or", "&"):
                return size <= 4 and not self._new_clause(look) and look + 1 < self.last
            if low == ",":
                if size == 0 or size > 4:
                    return False
                size = 0
                continue
            if low in _NOMINATIVE or low in _STOPS or low in _POINTING or low in _BREAKS:
                return False
            size += 1
            if size > 4:
                return False
        return False

    def _noun_phrase(self, at: int) -> bool:
        """Tell whether "harsh winters" stands here: two plain words and an end."""
        low = self.word(at)
        after = self.word(at + 1)
        plain = (
            low not in _STOPS | _NOMINATIVE | _POINTING | _PREPOSITIONS | _DETERMINERS | _ADVERBS
        )
        return plain and low != "and" and wordy(after or ",") and after not in _DANGLING

    def _new_clause(self, at: int) -> bool:
        """Tell whether something else is said after this "and"."""
        follows = at + 1
        while self.word(follows) in _ADVERBS | {"then", ","}:
            follows += 1
        low = self.word(follows)
        if low in _NOMINATIVE | _POINTING or not low:
            return True
        found = form(low)
        if low in _GOES_ON:
            return not self._noun(follows)
        if low in ("my", "our", "the", "a", "an"):
            long = follows + 5 <= self.last and all(
                wordy(low) for low in self.low[follows + 1 : follows + 5]
            )
            return long or self._finite_follows(follows + 1)
        if found is None:
            # A verb that is not in the table, but not "excited and scared".
            return len(low) > 4 and low.endswith("ed") and not self.low[at - 1].endswith("ed")
        return PAST in found.kinds and BASE not in found.kinds

    def _noun(self, at: int) -> bool:
        """Tell the noun of "the love theme" from the verb of "I love themes"."""
        after = self.word(at + 1)
        if self.low[at] not in _ALSO_NOUNS or not wordy(after or ","):
            return False
        free = after not in _DETERMINERS | _PREPOSITIONS | _ADVERBS | {"to", "it", "all", "both"}
        return free and not after.endswith(("s", "ing")) and not after.isdigit()

    def _finite_follows(self, at: int) -> bool:
        """Tell whether the noun phrase here has a verb of its own."""
        for look in range(at, min(at + 5, self.last)):
            low = self.low[look]
            found = form(low)
            if low in ("is", "are", "was", "were", "has", "have", "had", "will", "can"):
                return True
            if found is not None and THIRD not in found.kinds and PAST in found.kinds:
                return True
            if not low[0].isalnum():
                return False
        return False

    def value(self, begin: int, stop: int) -> tuple[int, int] | None:
        """Return the words of a value that stands alone, between these; None if there is none."""
        if self.word(begin) in ("this", "these") and self._told_of(begin + 1, stop):
            begin += 1  # "this cute pup", "this apple pie": told of, not pointed at
        last = self._without_gap(begin, self._before_pointing(begin, stop))
        while last > begin and self._dangles(begin, last - 1):
            last -= 1
        last = self._uncounted(begin, last)
        last -= 2 * (list(self.low[begin:last][-2:]) == ["a", "lot"] and last - begin > 2)
        while begin < last and (
            (not wordy(self.low[begin]) and self.low[begin] not in _QUOTES)
            or self.low[begin] in _OPENERS
        ):
            begin += 1
        if self.word(stop) in _ASKED and self._asks(begin, last):
            return None
        if self.word(last) in _PREPOSITIONS and self.word(last + 1) in _ASKED - {"which"}:
            return None  # "dive deeper | into how ..."
        if self._cut_short(begin, last, stop):
            return None
        inside = self.low[begin:last]
        if not inside or len(inside) > _MOST_WORDS or all(low in _LIGHT for low in inside):
            return None
        return None if self._unnamed(inside, last) else (begin, last)

    def _told_of(self, begin: int, stop: int) -> bool:
        """Tell "this dairy-free cake" from "this photo": what it is is said."""
        if self.word(begin) in _TOLD_OF:
            return True
        odd = _PREPOSITIONS | _STOPS | _POINTING | _TIMES | _DANGLING | {"last", "myself"}
        two = self.words[begin : min(begin + 2, stop)]
        return len(two) == 2 and all(word.raw.islower() and word.low not in odd for word in two)

    def _cut_short(self, begin: int, last: int, stop: int) -> bool:
        """Tell whether a value goes on as what is no prose: "P | (A)", "sides 5 | , 12, 13"."""
        follows, end = self.word(stop), self.low[last - 1] if last else ""
        if follows in ("`", "°", "=", "/") or (follows == "(" and len(end) == 1):
            return True
        if "`" in self.low[last : stop + 1] or (self.word(last) in _QUOTES and last == stop):
            return True  # 'regular | "me-time" walks'
        if follows != "," or last != stop:
            return False
        more = self.word(stop + 1)
        listed = end[:1].isdigit() and more[:1].isdigit() and _YEAR.fullmatch(more) is None
        return listed or self._half(begin, last)

    def _half(self, begin: int, last: int) -> bool:
        """Tell "a safe | , inclusive space", "interactive | , hands-on": no noun yet."""
        bare = last - begin == 1 or (last - begin == 2 and self.low[begin] in _DETERMINERS)
        end = self.low[last - 1]
        return bare and (end in _ADJECTIVES or _SURELY_ADJECTIVE.match(end) is not None)

    def _uncounted(self, begin: int, last: int) -> int:
        """Return where a value ends without its measure: "my essay | 5 days before ..."."""
        if self.word(last) not in ("before", "after") or last - begin <= 3:
            return last
        return last - 2 * (self.low[last - 2].isdigit() or self.low[last - 2] in ("a", "few"))

    def _unnamed(self, inside: Sequence[str], last: int) -> bool:
        """Tell a value that names nothing: "something", "some of ...", "the ones | I saw"."""
        if (
            inside[0] in _VAGUE
            or inside[0] in _STOPS
            or inside[0] in ("to", "and", "or", "not", "no")
        ):
            return True
        if len(inside) > 1 and inside[1] == "something":
            return True
        if inside[0] == "some" and len(inside) > 1 and inside[1] in _PREPOSITIONS:
            return True
        if inside[0] in _HOLLOW and all(low in _LIGHT | _HOLLOW for low in inside):
            return True
        if inside[-1] == "sure":
            return True
        if inside[-1] in _FACTS and self.word(last) == "that":
            return True
        return inside[0] == "the" and self.word(last) in _NOMINATIVE

    def _asks(self, begin: int, last: int) -> bool:
        """Tell whether a value ends in a verb that a question hangs on: "figuring | how"."""
        last -= last > begin and self.low[last - 1] in _WITH_VERB
        found = form(self.low[last - 1]) if last > begin else None
        return found is not None and bool(found.kinds & {ING, BASE})

    def _dangles(self, begin: int, at: int) -> bool:
        low = self.low[at]
        if low in _QUOTES:
            return not any(one in _QUOTES for one in self.low[begin:at])
        if not wordy(low):
            return low not in ("%", "+", "#", "°")
        if low in _PREPOSITIONS and at - 2 >= begin and self.low[at - 2] == "to":
            return not self.is_verb(at - 1)  # "books to choose from"
        if low in _WITH_VERB:
            return False
        return low in _DANGLING

    def _without_gap(self, begin: int, stop: int) -> int:
        """Return where a value ends whose last noun goes on: "for countries | I want to visit"."""
        if self._shares_subject(stop) and stop - begin > 2:
            return stop - 1
        if self.word(stop) not in _NOMINATIVE or stop - begin < 2:
            return stop
        last = stop - (self.low[stop - 1] in ("that", "who", "which"))
        if not wordy(self.low[last - 1]) or self.low[last - 1] in _ADVERBS | {"and", "but", "so"}:
            return stop
        if last - 2 > begin and self.low[last - 2] in ("and", "or"):
            return last - 2
        for at in range(last - 1, max(begin, last - 5), -1):
            if self.low[at] in _PREPOSITIONS:
                return at
        return stop

    def _goes_on(self, at: int) -> bool:
        """Tell "another cat" from "another", of which nobody knows what."""
        follows = self.word(at + 1)
        return wordy(follows or ".") and follows not in _PREPOSITIONS | _DANGLING

    def _shares_subject(self, stop: int) -> bool:
        """Tell whether the last word is the next subject: "the tone | Carla and I chose"."""
        if self.word(stop) != "and" or self.word(stop + 1) not in _NOMINATIVE:
            return False
        before = self.low[stop - 2]
        free = before not in _PREPOSITIONS | _DETERMINERS | {"and", "or", ","}
        return is_name(self.words[stop - 1]) and free and not is_name(self.words[stop - 2])

    def _before_pointing(self, begin: int, stop: int) -> int:
        """Return where a value must end so that it points at nothing outside of it."""
        owners, relative = False, 0
        for at in range(begin, stop):
            low = self.low[at]
            owners = owners or low in RELATIONS or is_name(self.words[at])
            if at > begin and self._relative(at):
                relative = at
            elif at > begin + 1 and low in ("my", "our") and self._noun_before(at):
                return relative or at
            elif at > begin and self._gap(at, stop):
                return relative or at
            elif self._points(at, begin) or (low in _POSSESSIVE and not owners):
                return relative or self._cut(begin, at)
        return stop

    def _noun_before(self, at: int) -> bool:
        """Tell "the house | my father lived in" from "painting my house"."""
        before = self.low[at - 1]
        return self.low[at - 2] in ("the", "a", "an") and wordy(before) and form(before) is None

    def _gap(self, at: int, stop: int) -> bool:
        """Tell "places that | she likes"."""
        follows = at + 1 >= stop or self.low[at + 1] in _NOMINATIVE
        return self.low[at] in ("that", "who") and follows and wordy(self.low[at - 1])

    def _points(self, at: int, begin: int) -> bool:
        """Tell whether a word points out of the value, or begins another clause."""
        low = self.low[at]
        if low in ("another", "other"):
            same = at > begin and self.low[at - 1] == "the" and self.word(at + 1) not in _TIMES
            return same or not self._goes_on(at)
        if low in _POINTING:
            return self.word(at + 1) not in _TIMES  # "this month"
        if low == "as" and self._what_as(at):
            return False
        return low in _STOPS and at > begin and low not in ("than", "instead", "rather")

    def _cut(self, begin: int, at: int) -> int:
        """Return where a value ends that goes on with a word that points out of it."""
        low = self.low[at]
        if low in _ASKED:
            return begin if self._asks(begin, at) else at
        if low in _STOPS and low not in _POINTING:
            return at
        back = at
        while back > begin and not (
            self.low[back - 1] in _PREPOSITIONS or self.low[back - 1] in ("and", "or", ",")
        ):
            back -= 1
        return self._whole(begin, back - 1)

    def end_of_comparison(self, begin: int, stop: int) -> int:
        """Return where "tea over coffee", "reading rather than going out" ends."""
        than = self.word(stop) in ("instead", "than") or self.word(stop - 1) == "rather"
        if not than:
            return stop
        skip = stop + 1 + (self.word(stop + 1) in ("of", "than"))
        return self.end_of(skip)

    def _whole(self, begin: int, last: int) -> int:
        """Return where a value ends that was cut; nothing is left of "go | through it"."""
        while last > begin and lemma_of(self.low[last - 1]) in _NEEDS_MORE:
            joined = [at for at in range(begin, last) if self.low[at] in ("and", "or")]
            last = joined[-1] if joined else begin
        if last - 1 > begin and self.low[last - 2] in _EVENTS_OF:
            found = form(self.low[last - 1])
            last -= found is not None and ING in found.kinds  # "a great time meeting | them"
        return last

    def draft(
        self,
        attribute: str,
        span: tuple[int, int],
        kind: str,
        *,
        outright: bool = False,
        ended: bool = False,
        subject: str = ME,
        value: str = "",
    ) -> Draft:
        """Return the draft of these words as the value."""
        first, last = self.words[span[0]].start, self.words[span[1] - 1].end
        start, end = self.words[self.begun].start, max(last, self.words[max(self.at, 0)].end)
        stop = self.end_of(span[1])
        if stop > span[1]:
            end = max(end, self.words[stop - 1].end)
        if self.word(stop) == "," and re.fullmatch(r"(?:19|20)\d\d", self.word(stop + 1)):
            end = max(end, self.words[stop + 1].end)  # "on July 20, 2024"
        return Draft(
            attribute, first, last, start, end, kind, subject, value, True, outright, ended
        )

    def particle(self, verb: int, stop: int) -> tuple[str, int]:
        """Return "up for" of "signed up for", and the word after it."""
        at, words = verb + 1, []
        if self.word(at) in _VERB_NOUNS.get(lemma_of(self.low[verb]), ()):
            words.append(self.low[at])
            at += 1
        while at < stop and self.low[at] in _PARTICLES and len(words) < 3:
            words.append(self.low[at])
            at += 1
        return " ".join(words), at

    def anymore(self, stop: int) -> bool:
        """Tell whether the clause that ends here says that it is over."""
        tail = self.low[max(0, stop - 3) : stop]
        return "anymore" in tail or tail[-2:] == ["any", "more"] or tail[-2:] == ["any", "longer"]

    def simple(self, name: str, begin: int, stop: int) -> Iterator[Draft]:
        """Yield the object that begins here as a state, if it names anything."""
        if self.word(begin) in _UNNAMED:
            return
        span = self.value(begin, stop)
        if span is not None:
            yield self.draft(name, span, STATE, outright=True)


def name_at(words: Sequence[Word], at: int) -> int:
    """Return how many words of a name stand here, at most three."""
    size = 0
    while at + size < len(words) and size < 3 and is_name(words[at + size]):
        size += 1
    return size


def is_name(word: Word) -> bool:
    """Tell whether a word may be (part of) a name, by its capital or as a known first name."""
    if word.low in _FIRST_NAMES:
        return True
    return (
        word.raw[0].isupper()
        and word.low not in _NOMINATIVE
        and word.low not in _NOT_NAMES
        and word.raw[0].isalpha()
    )
