"""The gate: which claims may be believed, by the words that they rest on.

Promises: pure; a claim passes only if every name, number and date of its value and of its sentence
stands in its quote, and the quote is what the writer says themselves and means: no question, no
"if", no joke, no dream, no quotation, no order to a machine. What fails is kept, with one plain
sentence why. Where it is in doubt, it refuses.
Refuses to know: how a claim was read, what else is believed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache

from knowme.spans import Span, foreign
from knowme.types import Claim, When
from knowme.whens import Found, find
from knowme.words import NO_SPACES, STOP_WORDS, WORD, stem, words

_foreign = lru_cache(maxsize=4)(foreign)  # the claims of one message are judged one by one


# --- names, numbers, dates ----------------------------------------------------------------------

_STARTERS = frozenset(
    """user person someone speaker writer they he she it there here now today also only still
    currently previously formerly once since until after before every each most many some all
    both another new name names married single born usually always never often sometimes""".split()
)
"""What a sentence may begin with in capitals without being a name."""

_UNITS_OF = """
    zero=0 one=1 two=2 three=3 four=4 five=5 six=6 seven=7 eight=8 nine=9 ten=10 eleven=11 twelve=12
    thirteen=13 fourteen=14 fifteen=15 sixteen=16 seventeen=17 eighteen=18 nineteen=19 twenty=20
    thirty=30 forty=40 fifty=50 sixty=60 seventy=70 eighty=80 ninety=90 hundred=100 thousand=1000
    million=1000000 dozen=12 twice=2 couple=2 once=1
    um=1 uma=1 dois=2 duas=2 três=3 quatro=4 cinco=5 seis=6 sete=7 oito=8 nove=9 dez=10 onze=11
    doze=12 treze=13 catorze=14 quatorze=14 quinze=15 dezesseis=16 dezasseis=16 dezessete=17
    dezassete=17 dezoito=18 dezenove=19 dezanove=19 vinte=20 trinta=30 quarenta=40 cinquenta=50
    sessenta=60 setenta=70 oitenta=80 noventa=90 cem=100 cento=100 mil=1000
    un=1 una=1 uno=1 dos=2 tres=3 cuatro=4 siete=7 ocho=8 nueve=9 diez=10 doce=12 trece=13
    dieciséis=16 diecisiete=17 dieciocho=18 diecinueve=19 veinte=20 treinta=30 cuarenta=40
    cincuenta=50 sesenta=60 ochenta=80 cien=100 ciento=100
    ein=1 eine=1 einen=1 einem=1 einer=1 eins=1 zwei=2 drei=3 vier=4 fünf=5 sechs=6 sieben=7 acht=8
    neun=9 zehn=10 elf=11 zwölf=12 dreizehn=13 vierzehn=14 fünfzehn=15 sechzehn=16 siebzehn=17
    achtzehn=18 neunzehn=19 zwanzig=20 dreißig=30 vierzig=40 fünfzig=50 sechzig=60 siebzig=70
    achtzig=80 neunzig=90 hundert=100 tausend=1000 a=1 an=1
"""
_NUMBERS = {word: int(value) for word, _, value in (w.partition("=") for w in _UNITS_OF.split())}
_LOOSE = frozenset("a an um uma un una uno ein eine einen einem einer eins one once dos".split())
"""Number words that are mostly something else: they cover a number, and ask for no cover."""
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)*")
_PIECE = re.compile(rf"\d+(?:[.,:]\d+)+|{WORD.pattern}")


def uncovered(
    statement: str, quote: str, said: date | None, allowed: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the names, numbers and dates of a statement that its quote does not hold.

    A name is a word with a capital letter (of a script without capitals: any word); a number may
    be in figures or in words; a date counts as held if words of the quote, said on the day
    ``said``, name it or a part of it. ``allowed`` needs no cover: the subject's and the speaker's
    own names.
    """
    free = {_fold(word) for text in allowed for word in _parts(text)}
    dates = find(statement, said)
    held = find(quote, said)
    missing = [
        statement[one.start : one.end]
        for one in dates
        if not _dated(one, statement[one.start : one.end], quote, said, held)
    ]
    has = _Held(quote, held, free)
    for match in _PIECE.finditer(statement):
        if any(one.start <= match.start() < one.end for one in dates):
            continue
        if not has.word(match[0], statement, match.start()):
            missing.append(match[0])
    return tuple(dict.fromkeys(missing))


def _fold(word: str) -> str:
    """Return a word without case, accents and possessive."""
    bare = word.replace("’", "'").partition("'")[0].casefold()
    return "".join(c for c in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(c))


def _parts(text: str) -> list[str]:
    return [piece for word in WORD.findall(text) for piece in re.split("_", word) if piece]


class _Held:
    """What a quote holds: its words, stems and numbers."""

    def __init__(self, quote: str, dates: Sequence[Found], free: set[str]) -> None:
        found = words(quote)
        self.words = {_fold(word) for word in found} | free
        self.stems = {stem(word) for word in self.words}
        self.numbers = _numbers(quote)
        self.years = {
            float(one.when.from_first[:4])
            for one in dates
            if one.when.from_first and one.when.from_first[:4] == one.when.from_last[:4]
        }
        self.unspaced = "".join(NO_SPACES.findall(quote))

    def word(self, word: str, statement: str, at: int) -> bool:
        """Tell whether a word of a statement is covered, or needs no cover."""
        folded = _fold(word)
        if folded in self.words:
            return True
        if any(sign.isdigit() for sign in word):
            return self._number(_DIGITS.findall(word))
        lower = word.lower()
        if lower in _NUMBERS and lower not in _LOOSE:
            return float(_NUMBERS[lower]) in self.numbers
        if NO_SPACES.fullmatch(word):
            return word in self.unspaced
        if word.lower() == word and word.upper() != word:
            return True  # a plain word
        return self._name(folded, _opens(statement, at))

    def _number(self, figures: Sequence[str]) -> bool:
        forms = [_values(figure) for figure in figures]
        return all(bool(form & (self.numbers | self.years)) for form in forms)

    def _name(self, folded: str, opens: bool) -> bool:
        near = {folded.removesuffix("s"), folded + "s"}
        if near & self.words:
            return True
        if not opens:
            return folded == "i"
        return folded in STOP_WORDS or folded in _STARTERS or stem(folded) in self.stems


def _opens(statement: str, at: int) -> bool:
    before = statement[max(0, at - 4) : at].rstrip(" \"'“„«(")
    return not before or before[-1] in ".!?:\n"


def _values(figure: str) -> set[float]:
    """Return what a number in figures may mean: 1.500 is 1500 or 1.5; 17:30 is itself."""
    if ":" in figure:
        hours, _, rest = figure.partition(":")
        return {float(hours) + float(rest.replace(",", ".").partition(":")[0] or 0) / 6000 + 1e7}
    plain = re.sub(r"[.,]", "", figure)
    values = set()
    if re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+", figure) or plain == figure:
        values.add(float(plain))
    parts = re.split(r"[.,]", figure)
    if len(parts) > 1:
        values.add(float(f"{''.join(parts[:-1])}.{parts[-1]}"))
    return values


def _numbers(text: str) -> set[float]:
    """Return every value that the numbers of a text may stand for."""
    values: set[float] = set()
    for match in _DIGITS.finditer(text):
        found = _values(match[0])
        values |= found
        if text[match.end() : match.end() + 1].lower() == "k":
            values |= {value * 1000 for value in found}
    last = 0.0
    for word in words(text.replace("-", " ")):
        value = float(_NUMBERS.get(word, 0)) if not word.isdigit() else float(word[:15])
        if value:
            values.add(value)
            if last:
                values.add(last * value if value >= 100 else last + value)
        last = value
    return values


def _dated(one: Found, phrase: str, quote: str, said: date | None, held: Sequence[Found]) -> bool:
    """Tell whether a date of a statement is one that the quote names, and not a narrower one."""
    if _squeezed(phrase) in _squeezed(quote):
        return True
    for other in held:
        if other.when == one.when:
            return True
        years = {day[:4] for day in (other.when.from_first, other.when.to_last) if day}
        named = [find(phrase, None), *(find(f"{phrase} {year}", None) for year in sorted(years))]
        if any(_holds(full[0].when, other.when) for full in named if full):
            return True
    return False


def _holds(wide: When, narrow: When) -> bool:
    first, last = wide.from_first or wide.to_first, wide.to_last or wide.from_last
    inner_first = narrow.from_first or narrow.to_first
    inner_last = narrow.from_last or narrow.to_last
    return bool(inner_first and inner_last) and first <= inner_first and inner_last <= last


def _squeezed(text: str) -> str:
    return " " + " ".join(words(text)) + " "


# --- what is said and meant ---------------------------------------------------------------------

_NEAR = 400
"""How far a sentence is looked for, in characters, either way."""
_ENDS = re.compile(r"(?<!\d)[.!?…]+[\"'”’)\]]*(?=\s|$)|\n")
_ASKS = (
    r"(?:what|how|why|where|which|who|whose|when|can|could|should|would|will|shall|do|does|did|is"
    r"|are|am|was|were|have|has|any|o que|que|qual|quais|como|onde|quando|por que|porque|quem|posso"
    r"|devo|pode|você|tem|há|é|qué|cuál|cuáles|cómo|dónde|cuándo|por qué|quién|puedo|debo|puedes"
    r"|hay|es|was|wie|wo|wann|warum|wer|welche|welcher|welches|kann|soll|sollte|ist|sind|habe|hast"
    r"|kannst|darf|gibt)\b"
)
_OPENS_QUESTION = re.compile(
    rf"^\W*(?:(?:so|and|but|ok|well|e|y|und|also|hey|hi|hello)\W+)?{_ASKS}", re.IGNORECASE
)
_TAG = r"(?!(?:do|does|did|am|is|are|was|were|have|has|can|will|would|should|could) \w+\s*\?)"
"""A tag ("I like it, do I?") asks for the statement itself."""
_QUESTION_BEHIND = re.compile(
    rf"(?:[,;:–—-]\s*(?:(?:so|and|e|y|und|então|entonces|also)\s+)?|\b(?:so|and|but)\s+){_TAG}"
    rf"(?:{_ASKS}|(?:want to|wanna|care to|guess|interested|ready|you)\b)",
    re.IGNORECASE,
)
_GRANTED = re.compile(
    r"\b(?:since|because|given that|considering(?: that)?|seeing as|as|now that|já que|porque|dado"
    r" que|visto que|como|ya que|dado que|puesto que|weil|da|zumal)\s+$",
    re.IGNORECASE,
)
"""What stands before a reason inside a question is granted, not asked."""
_IF = re.compile(
    r"\b(?:if(?! (?:it helps|that helps|you must know|you want to know|i remember|i recall|you're"
    r" curious|that matters|relevant))|unless|imagine|suppose|supposing|pretend|let's say"
    r"|let us say|saying that|assume|assuming|hypothetically|i wish|if only|as if|as though"
    r"|what if|whether"
    r"|suponha|suponhamos|imagina|imaginemos|finge|finja|faz de conta|quem me dera|oxalá|tomara"
    r"|supongamos|imaginemos|ojalá|como si|ojala|quién pudiera"
    r"|wenn|falls|angenommen|stell dir vor|stellen wir uns|als ob|gesetzt den fall|ob)(?!\w)"
    r"|(?:^|[,;:–—]\s*|\s-\s|\b(?:mas|e|que|y|pero)\s)(?:se|caso|si)\s(?!chama|llama)",
    re.IGNORECASE,
)
_WOULD = re.compile(
    r"\b(?:would (?!like|love|prefer|rather|also like)|\w+'d (?:be|have|go|move|live|work|buy|get"
    r"|take)\b|might\b|(?:eu )?(?:seria|teria|moraria|viveria|compraria|iria)\b|sería\b|tendría\b"
    r"|viviría\b|compraría\b|iría\b|wäre\b|hätte\b|würde (?!gern|lieber))",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r"[,;:–—]|\b(?:but|and|so|mas|e|pero|y|aber|und)\s", re.IGNORECASE)
_WITHIN = re.compile(r"\b(?:what|how|where|which|that|who|que|como|dass|was|wie)\s", re.IGNORECASE)
"""Behind these a "would" is not the quote's own verb: "I know what it would cost"."""
_AHEAD = re.compile(r"\b(?:will|\w+'ll|would|\w+'d|going to|vou|voy a|werde)\b", re.IGNORECASE)
_IF_BEHIND = re.compile(r"\b(?:if|unless|provided|as long as|se|caso|si|wenn|falls)\b",
                        re.IGNORECASE)  # fmt: skip
_JOKE = re.compile(
    r"(?:^|\s)/s(?:\s|$)|\b(?:just kidding|kidding|jk|yeah,? right|sarcasm|sarcastic|as if"
    r"|i'm joking|just joking|lol no|totally not|(?:é|tô|estou a?) ?brinca(?:deira|ndo|r)|brinco"
    r"|só que não|sqn|zoeira|estou a gozar|es broma|es una broma|bromeo|estoy bromeando|es coña"
    r"|nur spaß|war nur spaß|scherz|war ein witz|kleiner witz|ironie|spaßeshalber)\b|🙃|😜|🤪",
    re.IGNORECASE,
)
_FICTION = re.compile(
    r"\b(?:in my dream|in a dream|i dream(?:t|ed)|dreamed that|dreamt that|my character"
    r"|the character|in my (?:story|novel|game|book)|in the (?:story|novel|game|movie|film|book)"
    r"|role[- ]?play"
    r"|pretending to be|act as|you are an?|speaking as|once upon a time|the protagonist"
    r"|the narrator"
    r"|(?:eu )?sonhei|no meu sonho|minha personagem|meu personagem|na (?:história|novela)"
    r"|soñé|en mi sueño|mi personaje|en la (?:historia|novela|película)|había una vez|era uma vez"
    r"|ich habe geträumt|im traum|träumte|meine figur|in der geschichte|im roman|im film"
    r"|es war einmal)\b",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"\b(?:the|this|your|that) users?\b(?:'s)?|\busers? (?:name|is|has|likes|lives|prefers)\b"
    r"|\b(?:o|do|da|seu) (?:usuário|utilizador)\b|\b(?:el|del|al|su) usuario\b"
    r"|\b(?:der|des|dem|den|ihr) (?:nutzer|benutzer|anwender)s?\b"
    r"|\b(?:ignore|disregard|forget) (?:all|any|the|your|previous|prior|everything)\b"
    r"|\bsystem (?:prompt|message|note)\b|\b(?:new|updated) instructions?\b|\bas an ai\b"
    r"|\b(?:save|store|write|add|record) (?:this|that|it|the following)?\s?(?:in|to|into)"
    r" (?:your )?(?:long-term )?memory\b"
    r"|\bignor[ae] (?:todas|as|las|tudo|todo|instruções|instrucciones)\b"
    r"|\bignoriere (?:alle|die|vorherige)\b",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|neither|nor|cannot|without|\w+n't|stopped|quit|avoid\w*"
    r"|dislike\w*|hate\w*|former\w*|ex|não|nunca|nem|jamais|sem|nada|ninguém|sin|nadie|tampoco|ni"
    r"|nicht|kein\w*|nie|niemals|ohne|nichts)\b",
    re.IGNORECASE,
)


def judge(
    claim: Claim,
    text: str,
    said: date | None,
    foreign: Sequence[Span] = (),
    allowed: Iterable[str] = (),
) -> str:
    """Return "" if the claim may be believed, else one plain sentence why it is not.

    ``text`` is the whole message and ``said`` the day of it; ``foreign`` are further stretches that
    are not the writer's (``fingerprints.spans``): those that ``spans.foreign`` sees are known here.
    ``allowed`` are names that need no cover: the subject's, the speaker's.
    """
    if not 0 <= claim.start < claim.end <= len(text) or not text[claim.start : claim.end].strip():
        return "Its quote is not a part of the message."
    if not (claim.subject.strip() and claim.attribute.strip() and claim.value.strip()):
        return "It does not say what of whom."
    return (
        _not_meant(claim, text)
        or _not_own(claim, text, foreign)
        or _not_covered(claim, text, said, allowed)
        or _not_as_read(claim, text)
    )


def _not_own(claim: Claim, text: str, others: Sequence[Span]) -> str:
    for start, end, why in (*others, *_foreign(text)):
        if start < claim.end and claim.start < end:
            return f"Its quote is not the writer's own words: {why}."
    return ""


def _around(claim: Claim, text: str) -> tuple[str, str, str]:
    """Return what the sentence of a quote has before it, the quote, and what it has behind it."""
    before = text[max(0, claim.start - _NEAR) : claim.start]
    cuts = list(_ENDS.finditer(before))
    before = before[cuts[-1].end() :] if cuts else before
    quote = text[claim.start : claim.end]
    behind = text[claim.end : claim.end + _NEAR]
    # A quote may end with its own full stop; then nothing behind it is of its sentence.
    cut = None if re.search(r"[.!?…]\W*$", quote) else _ENDS.search(behind)
    if cut is None and re.search(r"[.!?…]\W*$", quote):
        return before, quote, ""
    return before, quote, behind[: cut.end()] if cut else behind


def _not_meant(claim: Claim, text: str) -> str:
    before, quote, behind = _around(claim, text)
    if _asked(before, quote, behind):
        return "It stands in a question."
    clause = _CLAUSES.split(before)[-1] + _WITHIN.split(quote)[0]
    if _IF.search(before) or _IF.search(quote) or _WOULD.search(clause):
        return "It is only supposed: an if, a wish or a would."
    if _AHEAD.search(quote) and _IF_BEHIND.search(behind):
        return "It holds only if something else does."
    sentence = before + quote + behind
    if _JOKE.search(sentence + text[claim.end + len(behind) :][:60]):
        return "It is a joke, or not meant so."
    if _FICTION.search(sentence):
        return "It is a dream, a story or a part that is played."
    if _ORDER.search(sentence):
        return "It speaks to a program about its user."
    return ""


def _asked(before: str, quote: str, behind: str) -> bool:
    whole = (quote + behind).rstrip(" \n\"'”’)]")
    if "¿" in before + quote and "?" not in before:
        return True
    if not whole.endswith("?") and "?" not in quote:
        return False
    if _GRANTED.search(before):
        return False
    if _OPENS_QUESTION.search(before + quote):
        return True
    return not _QUESTION_BEHIND.search(behind)


def _not_covered(claim: Claim, text: str, said: date | None, allowed: Iterable[str]) -> str:
    quote = text[claim.start : claim.end]
    free = tuple(allowed)
    missing = uncovered(f"{claim.value}\n{claim.sentence}", quote, said, free)
    if missing:
        return f"Its quote does not hold {', '.join(missing[:3])}."
    days = {day for day in _days(claim.when) if day}
    known = {said.isoformat()} if said else set()
    for one in find(quote, said):
        known.update(_days(one.when))
    strange = sorted(days - known)
    return f"Its quote does not hold the date {strange[0]}." if strange else ""


def _days(when: When) -> Iterator[str]:
    yield from (when.from_first, when.from_last, when.to_first, when.to_last)


def _not_as_read(claim: Claim, text: str) -> str:
    """Say what a model may do to a quote and rules do not: turn it round, or leave it."""
    if claim.read_by == "rules":
        return ""
    quote = text[claim.start : claim.end]
    if not (claim.when.to_last or claim.when.to_first) and bool(_NOT.search(quote)) != bool(
        _NOT.search(f"{claim.attribute} {claim.value} {claim.sentence}")
    ):
        return "The quote says it with a not, or the claim does."
    said = {stem(_fold(word)) for word in words(quote)}
    value = [stem(_fold(word)) for word in words(claim.value) if word not in STOP_WORDS]
    if value and sum(word in said for word in value) * 2 < len(value):
        return "The quote does not speak of its value."
    return ""
