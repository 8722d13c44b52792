"""What a message claims about its writer and those they name, by rules.

Promises: pure; never raises, whatever the text; ``text[start:end]`` of a claim holds every name,
number and date of it; nothing is read from questions, conditions, wishes, quotations or code; time
linear in the length of the text.
Refuses to know: what is believed, who the writer is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date

from knowme import spans, whens
from knowme.attributes import RELATIONS, sentence, value_key
from knowme.claims.directives import heads_rules, read_directives, read_rules
from knowme.claims.english import read_sentence
from knowme.claims.languages import language_of, read_other
from knowme.claims.lexicon import EVENT, PLAN, Draft, first_names, words
from knowme.claims.notes import read_notes
from knowme.types import ME, Claim, When

READS = 40_000
"""Characters of a message that are read."""
HALF_A_YEAR = 183
"""Days: what is now, or is planned, and is dated further ahead is taken as not dated."""
_FIRST_WORDS = re.compile(r"\W*([^\W\d_]+)['’\w]*(?: ([^\W\d_]+))?")
_THEY = frozenset("he she they ela ele elas eles él ella ellos ellas er sie".split())
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|\n+")
_TOWARDS = re.compile(
    r"(?:is |are )?(?:preparing|getting ready|trying|aiming|thinking|looking|working|organi[sz]ing"
    r"|practi[sc]ing|training|studying|hoping)\b"
)
"""What is done now towards something: a day to come is that thing's."""
_AND_MORE = re.compile(r",? and (?:i |we )?(?:want|need|hope|would like|am|plan|try)\b.*$", re.I)
_OPEN_END = re.compile(
    r"\b(?:right|to|to get|and|or|when|where|if|because|that|who|which|but)$", re.I
)
_CONJUNCTION = re.compile(r"\b(?:when|because|if|while|until)\W*$", re.I)
_ALWAYS = re.compile(r"\b(?:i|we)(?:'ve|’ve| have) always\b", re.I)
_BARE = re.compile(
    r"\b(?:people|person|someone|somebody|something|folks?|guys?|book|style|things?|images?|place"
    r"|way|man|woman|friends?|job|app|tool|group)$",
    re.I,
)
_WHICH = re.compile(r"\s+(?:who|that|that's|which|whose|where)\b", re.I)
_LEANS = re.compile(r"\b(?:out|closer|back|over|up|away|asking|talking|listening|looking)$", re.I)
_TO_WHOM = re.compile(r"\s+(?:to|for|with|from|about|of) (?:him|her|them|it|me|us|you)\b", re.I)
_DOUBT = (
    r"maybe|perhaps|possibly|probably|presumably|apparently|supposedly|i think|i guess|i believe"
    r"|i suppose|not sure|if i remember(?: \w+)?|talvez|se calhar|provavelmente|acho(?: eu| que)?"
    r"|quizás?|tal vez|probablemente|creo(?: que)?|vielleicht|wahrscheinlich|glaube? ich|denke? ich"
)
_DOUBT_FIRST = re.compile(rf"\W*(?:\w+,? )?(?:{_DOUBT})\W*", re.IGNORECASE)
_DOUBTED = re.compile(
    r"(?:maybe|perhaps|possibly|probably|talvez|quizás?|vielleicht)\b", re.IGNORECASE
)
_DOUBT_LAST = re.compile(rf"\W+(?:{_DOUBT})\W*", re.IGNORECASE)
_SHORT = re.compile(r"\b(?:[A-Z]|[DJSM]r|Mrs|St|vs|e\.g|i\.e|etc|approx|no)$")
"""What ends in a point and ends no sentence."""
_ORDINAL = re.compile(
    r"\D?\d{1,2}\. (?:Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)", re.IGNORECASE
)
_MINE = re.compile(r"\b(?:i|we|my|our|im|ive)\b", re.IGNORECASE)
_TASK = re.compile(
    r"\b(?:write|rewrite|translate|proofread|correct|improve|edit|summari[sz]e|paraphrase|rephrase"
    r"|make|polish|fix|review|here(?:'s| is| are)|example|for instance|e\.g\.|says?|said|wrote"
    r"|resum\w*|tradu[zc]\w*|corrig\w*|escrev\w*|escrib\w*|texto|carta|frase|übersetz\w*|korrigier\w*"
    r"|schreib\w*|satz|story|email|mail|letter|essay|post|quote|caption|bio|script|poem|text|draft|prompt|message)\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-z][a-z0-9-]{0,20}(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
_HANDED = re.compile(
    r"\b(?:summari[sz]e|translate|proofread|rewrite|rephrase|correct|improve|edit|explain|shorten"
    r"|polish|review|reply|answer|resum\w+|tradu[zc]\w*|corrig\w+|melhora\w*|mejora\w*|fass|fasse"
    r"|übersetz\w*|korrigier\w*)\b[^\n]{0,60}?\b(?:this|these|following|below|text|e?mail|letter"
    r"|page|article|post|isto|est[aeo]|texto|página|artículo|das|dies\w*)\b[^\n]{0,40}\n",
    re.IGNORECASE,
)
"""An order to work on what follows below it."""
_TIME = re.compile(
    r"\d|\b(?:yesterday|today|tonight|tomorrow|week|month|year|decade|day|night|weekend|morning"
    r"|afternoon|evening|mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|june?|july?|aug|sep|oct"
    r"|nov|dec|summer|winter|spring|autumn|fall|ago|since|until|till|christmas|easter|when|now|last"
    r"|next|ontem|hoje|amanhã|semana|mês|ano|dia|desde|até|há|ayer|hoy|mañana|mes|año|hace|hasta"
    r"|gestern|heute|morgen|woche|monat|jahr|tag|seit|bis|vor|letzte|nächste|en|em|im)",
    re.IGNORECASE,
)
_RELATIVE = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|ago|(?:last|next|this|past|coming|other) (?:week|month"
    r"|year|day|night|weekend|morning|evening|summer|winter|spring|fall|autumn|mon|tue|wed|thu|fri"
    r"|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w*|ontem|hoje|amanhã|ayer|hoy"
    r"|gestern|heute)\b",
    re.IGNORECASE,
)
_MODIFIES = re.compile(r"\b(?:from|of|de|del|da|do|von|vom|about|for the|the)\s*$", re.IGNORECASE)
_RELATIVE_CLAUSE = re.compile(r"\b(?:that|who|which|called|during|about)\b")
_VERSION = re.compile(r"v?\d{1,2}\.\d{1,2}\.\d\b(?!\d)")
_MODIFYING = re.compile(r"(?:of|from|de|da|do|del|von|vom|the|my|our)\s", re.IGNORECASE)
_NEXT = re.compile(r"\s*([^\W_]+)")
_JOINS = (
    words("prepositions")
    | words("adverbs")
    | {"and", "or", "but", "while", "when", "that", "who", "which", "because", "so", "where", "com"}
)
_BY_DAY = re.compile(r"(?:to )?[a-z]+ by [A-Z]\S*(?: \d+)?")
_UNTIL = re.compile(r"(?:until|till|'til|til|up to|bis|até|hasta)\b", re.IGNORECASE)
_INSIDE = frozenset("that which who where as to for set due named called starting when".split())
_OPENS = words("prepositions") - {"about", "around", "over"}
_WEEKDAYS = re.compile(
    r"\b(?:(?:mon|tue|wed|thu|fri|sat|sun)|segunda|terça|quarta|quinta|sexta|sábado|domingo|lunes"
    r"|martes|miércoles|jueves|viernes|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag)",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(r"\d")
_AGAIN = frozenset(
    "standup stand-up one-on-one 1:1 1-on-1 rehearsal retro book club with com con mit".split()
)
_DANGLING = words("dangling")
_LAST_WORD = re.compile(r"[\s,;:–-]*\b([^\W_]+)[\s,;:–-]*$")


def read(text: str, *, said: date | None, role: str = "user") -> list[Claim]:
    """Return the claims of a message, in its order; the subject ME is its writer.

    ``said`` is the day on which it was written: relative dates need it. A message of the role
    assistant, system or tool claims nothing.
    """
    if role not in ("user", "document") or not text:
        return []
    text = text[:READS]
    drafts = list(_drafts(text))
    if not drafts:
        return []
    foreign = [*spans.foreign(text), *_given(text)]
    claims: dict[tuple[str, str, str], Claim] = {}
    for draft in drafts:
        if any(draft.start < end and start < draft.end for start, end, _ in foreign):
            continue
        claim = _claim(draft, text, said)
        if claim is not None:
            key = claim.subject, claim.attribute, value_key(claim.attribute, claim.value)
            claims.setdefault(key, claim)
    return list(claims.values())


def _drafts(text: str) -> Iterator[Draft]:
    others = False
    for start, end in _sentences(text):
        others = _of_others(text, start, end, others)
        if _MINE.search(text, start, end) is not None:  # no word of another language here
            yield from read_sentence(text, start, end, others=others)
        else:
            language = language_of(text, start, end)
            if language != "en":
                yield from read_other(text, start, end, language)
            else:  # the writer is left out, or somebody is named
                yield from read_sentence(text, start, end, others=others)
        yield from read_notes(text, start, end)
        yield from read_directives(text, start, end)
    yield from read_rules(text)


def _of_others(text: str, start: int, end: int, before: bool) -> bool:
    """Tell whether a sentence speaks of somebody else, or goes on to after one that does."""
    first = _FIRST_WORDS.match(text, start, end)
    if first is None:
        return before
    word, second = first[1].lower(), (first[2] or "").lower()
    if word in _THEY or (word in first_names() and second):
        return True
    if word in ("my", "our") and second in RELATIONS:
        return True
    return before and _MINE.search(text, start, end) is None


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for match in _END.finditer(text):
        if match[0] == "." and _SHORT.search(text, max(0, match.start() - 6), match.start()):
            continue
        if match[0] == "." and _ORDINAL.match(text, max(0, match.start() - 2)) is not None:
            continue  # "am 12. Mai"
        yield at, match.end()
        at = match.end()
    if at < len(text):
        yield at, len(text)


def _given(text: str) -> Iterator[tuple[int, int, str]]:
    """Find what was handed over to be worked on: all that follows "rewrite this:"."""
    tags = list(_TAG.finditer(text))
    if tags:
        yield tags[0].start(), tags[-1].end(), "html"
    handed = _HANDED.search(text)
    if handed is not None:
        yield handed.end(), len(text), "a text to work on"
    for start, end in _sentences(text):
        head = text[start:end]
        colon = head.rfind(":")
        work = colon >= 0 and _TASK.search(head, 0, colon) is not None
        if work and not heads_rules(head[: colon + 1]):
            at = start + colon + 1
            rest = text.find("\n\n", at + len(text[at:]) - len(text[at:].lstrip()))
            yield at, rest if rest > 0 else len(text), "a text to work on"


# --- dates ----------------------------------------------------------------------------------------


def _claim(draft: Draft, text: str, said: date | None) -> Claim | None:
    value = draft.value or text[draft.first : draft.last]
    quote = text[draft.start : draft.end]
    when = _default(draft, said)
    if _TIME.search(quote) is not None:
        found = _own(draft, quote, whens.find(quote, said), said)
        if _tells_time(draft.attribute):
            found, value = [], _day_named(draft.attribute, value, said)
        if found and _of_its_object(draft, found, said):
            found = []  # "preparing for the interview on June 5": it is the interview's day
        if found:
            value = _without_times(draft, value, found)
            if value.split(" ")[0].lower() in _OPENS and draft.kind != PLAN:
                return None  # "went with | to save time": what it was is gone
            when = _dated(draft, found, said, when)
    value = _AND_MORE.sub("", draft.prefix * bool(value) + " ".join(value.split()))
    if text[max(0, draft.first - 5) : draft.first].lower() == "this ":  # "this amazing woman"
        value = f"{'an' if value[:1].lower() in 'aeiou' else 'a'} {value}"
    if _says_nothing(value) or _is_cut(draft, value, quote, text):
        return None
    if (draft.attribute.endswith(" by") and whens.find(value, said)) or _BY_DAY.fullmatch(value):
        return None  # "added by May 31", "decide by May 31": what is not said
    subject = _as_a_name(draft.subject)
    told = sentence(subject, draft.attribute, value, when, ended=draft.ended)
    return Claim(
        subject=subject,
        attribute=draft.attribute,
        value=value,
        sentence=told,
        start=draft.start,
        end=draft.end,
        when=when,
        certain=draft.certain and not _hedged(text, draft),
        outright=draft.outright or (subject == ME and draft.attribute in RELATIONS),
    )


def _of_its_object(draft: Draft, found: Sequence[whens.Found], said: date | None) -> bool:
    """Tell whether what is done now is dated by a day to come: that day is its object's."""
    ahead = said is not None and any(each.when.from_first > said.isoformat() for each in found)
    return ahead and _TOWARDS.match(draft.attribute) is not None


def _says_nothing(value: str) -> bool:
    pointing = value.lower() in ("myself", "ourselves")
    return not value or pointing or _RELATIVE.search(value) is not None


def _is_cut(draft: Draft, value: str, quote: str, text: str) -> bool:
    """Tell whether a statement ends before what would make it one."""
    if _OPEN_END.search(value) or _CONJUNCTION.search(quote) or _ALWAYS.search(quote):
        return True
    rest = text[draft.last : draft.last + 24]
    bare = _BARE.search(value) is not None and _WHICH.match(rest) is not None
    return bare or (_LEANS.search(value) is not None and _TO_WHOM.match(rest) is not None)


def _hedged(text: str, draft: Draft) -> bool:
    """Tell whether the sentence begins or ends with a doubt: "Maybe I ...", "..., I think"."""
    before = _END.split(text[max(0, draft.start - 40) : draft.start])[-1]
    after = _END.split(text[draft.end : draft.end + 40], maxsplit=1)[0]
    first = _DOUBT_FIRST.fullmatch(before) or _DOUBTED.match(text, draft.start, draft.end)
    return bool(first or _DOUBT_LAST.fullmatch(after))


def _as_a_name(subject: str) -> str:
    """Return "henrik" as "Henrik": who is named so in one chat and so in another is one."""
    return subject.capitalize() if subject in first_names() else subject


def _default(draft: Draft, said: date | None) -> When:
    """Return when a claim without a date is so: it was by the day it was said."""
    day = said.isoformat() if said else ""
    if draft.ended or draft.kind == EVENT:
        return When("", day, "", day)
    return When("", day)


def _without_times(draft: Draft, value: str, found: Sequence[whens.Found]) -> str:
    """Return a value without the time phrases that stand in it; the claim's dates hold them."""
    if draft.value or _tells_time(draft.attribute):
        return value
    offset = draft.start - draft.first
    for one in reversed(found):
        start, end = one.start + offset, one.end + offset
        if start <= 0 and end >= len(value):
            return ""  # "playing for | four months"
        if 0 <= start < len(value) < end:
            value = _trimmed(value[:start])  # "on September 9 |, 2024"
            continue
        if start < 0 or end > len(value) or value[end : end + 2] in ("'s", "’s", "s "):
            continue
        if not value[:start].strip() and not value[end:].strip():
            return ""
        bare = value[start:end].strip().isdigit()
        last = not value[end:].strip(" ,.")
        if bare and not last:
            continue
        value = _trimmed(value[:start]) if last else value[:start] + value[end:].lstrip(" ,")
    return value


def _day_named(attribute: str, value: str, said: date | None) -> str:
    """Return "Thursday" as the day that it was for its writer; "" if that is not known.

    What is held again and again ("the stand-up is Mondays") keeps its days of the week.
    """
    if not attribute.startswith("date of ") or not _AGAIN.isdisjoint(attribute.split()):
        return value
    if _WEEKDAYS.search(value) is None and _RELATIVE.search(value) is None:
        return value
    if any(_MONTH_DAY.search(value[one.start : one.end]) for one in whens.find(value, said)):
        return value
    if _RELATIVE.search(value) is None:
        return value
    days = [one for one in whens.find(value, said) if one.when.from_first == one.when.to_last]
    if len(days) != 1 or not days[0].when.from_first:
        return ""
    return value[: days[0].start] + days[0].when.from_first + value[days[0].end :]


def _tells_time(attribute: str) -> bool:
    """Tell whether a time is the value itself."""
    return attribute.endswith(("birthday", "age", "deadline")) or attribute.startswith("date of ")


def _trimmed(value: str) -> str:
    while (match := _LAST_WORD.search(value)) and match[1].lower() in _DANGLING:
        value = value[: match.start()]
    return value.rstrip(" ,;:–-")


def _own(
    draft: Draft, quote: str, found: Sequence[whens.Found], said: date | None
) -> list[whens.Found]:
    """Return the time phrases that date the claim, not something within its value."""
    first, last = draft.first - draft.start, draft.last - draft.start
    own = [
        one
        for one in found
        if _VERSION.match(quote, one.start) is None
        and not _modifies(quote, one, first, last)
        and _dates(draft, one, said)
        and (one.kind != "until" or _UNTIL.match(quote, one.start) is not None)
        and _beside(quote, one, last)
    ]
    if len({one.when for one in own}) > 1:
        return [one for one in own if one.start >= first][:1] or own[:1]
    return own


def _dates(draft: Draft, one: whens.Found, said: date | None) -> bool:
    """Tell whether a phrase of this kind may date a claim of this kind."""
    if draft.kind != EVENT:
        return True
    return one.kind in ("at", "span") and not (draft.perfect and _over(one, said))


def _beside(quote: str, one: whens.Found, last: int) -> bool:
    """Tell whether a phrase behind the value still belongs to its verb."""
    between = quote[last : one.start].split() if one.start >= last else []
    return len(between) <= 3 and _INSIDE.isdisjoint(word.lower() for word in between)


def _over(one: whens.Found, said: date | None) -> bool:
    day = said.isoformat() if said else ""
    return one.kind == "at" and bool(one.when.to_last) and (not day or one.when.to_last < day)


def _modifies(quote: str, one: whens.Found, first: int, last: int) -> bool:
    """Tell "photos from last summer", whose date is not that of the claim."""
    if quote[one.end : one.end + 2] in ("'s", "’s"):
        return True
    if not first <= one.start < last:
        return False
    if one.kind == "at" and _MODIFYING.match(quote, one.start) is not None:
        return True
    after = _NEXT.match(quote, one.end, last)
    if after is not None and after[1].lower() not in _JOINS and not after[1].endswith("ing"):
        return True
    before = quote[first : one.start]
    return _MODIFIES.search(before) is not None or _RELATIVE_CLAUSE.search(before) is not None


def _dated(draft: Draft, found: Sequence[whens.Found], said: date | None, default: When) -> When:
    """Return when a claim is so, by its time phrase."""
    one, day = found[0].when, said.isoformat() if said else ""
    if draft.ended:
        ends = one.to_first or one.from_first, one.to_last or one.from_last
        return When("", "", *ends) if found[0].kind in ("at", "until", "since") else default
    if draft.kind == EVENT:
        if found[0].kind not in ("at", "span") or (day and one.from_first > day):
            return default
        return _no_later(one, day)
    if said and one.from_first and not _soon(one.from_first, said):
        return default  # "on May 22", told on June 1: the year is a guess
    if found[0].kind == "for" and draft.kind != PLAN:
        return When(one.from_first, one.from_last)
    if found[0].kind == "at" and (one.to_last < day or one.from_first <= day < one.to_last):
        return default  # so now, and a day that is over: of another year, or of something else
    return one


def _soon(day: str, said: date) -> bool:
    return (date.fromisoformat(day) - said).days < HALF_A_YEAR


def _no_later(when: When, day: str) -> When:
    """Return when something was that is told on ``day``: by then."""
    if not day:
        return when
    last = min(when.to_last or day, day)
    return When(when.from_first, min(when.from_last or day, day), when.to_first, last)


__all__ = ["READS", "read"]
