r"""Names that go out as placeholders and come back as names; secrets that should not go at all.

Promises: ``restore(redact(text)) == text``, to the character, for any text and any names; no listed
name stands in what ``redact`` returns, in any case, in any Unicode normal form, with any white
space between its words, also where it is escaped as in JSON; a stream is restored as the whole text
would be, however it is cut.
Refuses to know: which text may leave (``privacy.py``), models, the ledger.

A person is [PERSON_1]; another way in which the same name is written ("anna", "ANNA MEIER") is
[PERSON_1_2], so that the model sees one person and every letter can be put back. E-mail
addresses, phone numbers and long numbers become [EMAIL_1], [PHONE_1], [NUMBER_1]. Where a text
holds such a placeholder already, the number is not used, or the words become [TEXT_1] themselves.

What it cannot see: nicknames, misspellings, a name that a language inflects other than by an s, one
that is written in the signs of another code (%C3%AA, &ecirc;, base64; those of JSON are read), and
a person whom the sentence describes instead of naming.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

NOTE = (
    "Names and numbers are replaced by placeholders such as [PERSON_1]; [PERSON_1_2] is the same "
    "person, written in another way. Write placeholders exactly as they stand."
)
"""What a model should be told where a prompt holds placeholders."""

KINDS = ("PERSON", "EMAIL", "PHONE", "NUMBER", "TEXT")

# Models drop the brackets, bend the case, escape for markdown. The quantifiers are possessive: what
# is not followed as it should be is no shorter placeholder either.
_OPEN = r"(?P<escaped>\\)?(?P<open>\[)"
_INSIDE = (
    rf"(?P<kind>{'|'.join(KINDS)})(?P<between>\\?[_ -])?+"
    r"(?P<number>\d{1,6}+)(?:\\?_(?P<form>\d{1,6}+))?+"
)
_CLOSE = r"(?(escaped)\\)\]"
_FLAGS = re.IGNORECASE | re.ASCII
_SHAPE = re.compile(f"(?:{_OPEN})?{_INSIDE}(?(open){_CLOSE})", _FLAGS)
"""Whatever might be read as a placeholder, wherever it stands; ``_PLACEHOLDER`` finds fewer."""
_PLACEHOLDER = re.compile(
    rf"(?:{_OPEN}|(?<![A-Za-z0-9])){_INSIDE}(?(open){_CLOSE}|(?!\d|(?!s\b)[A-Za-z]))", _FLAGS
)


def _unfinished() -> re.Pattern[str]:
    """Return what finds the end of a text that the next piece may turn into a placeholder."""

    def some(part: str) -> str:
        return rf"(?:{part}|\Z)"

    kinds = "|".join("".join(some(letter) for letter in kind) for kind in KINDS)
    number = r"(?:\\?(?:[_ -]|\Z))?(?:\d+|\Z)"
    rest = rf"{number}(?:\\?(?:_|\Z)(?:\d+|\Z))?(?:\\|s)?\Z"
    return re.compile(rf"(?:\\?\[|(?<![A-Za-z0-9])|\\\Z)(?:{kinds}){rest}", _FLAGS)


_UNFINISHED = _unfinished()

# No pattern may look at a long run of letters from each of them anew.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@\w[\w-]*(?:\.\w[\w-]*)+")
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}|\(?0\d|\(\d{3}\)|\d{3}[ .-]\d{3}[ .-]\d{4}\b)[\d ()/.-]*\d(?![\w])"
)
_DIGITS = re.compile(r"(?<![\w.])(?:\d{9,}|\d{3,4}(?:[ -]\d{3,4}){2,})(?!\w)")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d[.]\d\d[.]\d{4}")


# --- text as names are compared -------------------------------------------------------------------

# Their words stand side by side without spaces, or carry particles before and after.
_JOINED = re.compile(
    "[\u0590-\u08ff\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufeff\uff66-\uffdc\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff]"
)
_STRIPPED = re.compile("[A-Za-z\u0370-\u03ff\u0400-\u052f\u1f00-\u1fff]")
_SPELT = {
    ord(char): plain
    for char, plain in zip(
        "ıłøđæœþð’‘ʼ´`‐‑‒–−",
        ["i", "l", "o", "d", "ae", "oe", "th", "d", *"'''''-----"],
        strict=True,
    )
}
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})


MOST_MARKS = 64
"""Of one letter: a text of nothing but accents is no name, and takes long to compare."""
_HANGUL = re.compile("[\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff]")


def _goes_on(before: str, char: str) -> bool:
    """Tell whether a character belongs to the one before: marks, joiners, the rest of a Hangul."""
    if char < "\u0300":
        return char == "\u00ad"
    if unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf"):
        return True
    vowel_or_final = "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff"
    return vowel_or_final and _HANGUL.match(before) is not None


def _silent(char: str) -> bool:
    return char == "\u00ad" or (char > "\u0300" and unicodedata.category(char) == "Cf")


def fold(text: str) -> str:
    """Return text as names are compared: case, accents of Latin, Greek and Cyrillic, forms gone."""
    return _Folded.of(text).text


# JSON within a text: what a tool returned, perhaps JSON that stood in JSON.
_ESCAPE = re.compile(r"(?<!\\)\\+(?:u(?P<code>[0-9A-Fa-f]{4})|[bfnrt])")


def _character(text: str, at: int) -> tuple[str, int]:
    r"""Return the character that stands at ``at`` (\u00ea is one), and where the next begins."""
    if text[at] == "\\" and (match := _ESCAPE.match(text, at)) and match["code"]:
        return chr(int(match["code"], 16)), match.end()
    return text[at], at + 1


def _unescaped(text: str) -> str:
    r"""Return the text with spaces for JSON's \n and its like, so that they are no letters."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: match[0] if match["code"] else " " * len(match[0]), text)


@lru_cache(4096)
def _plain(cluster: str) -> str:
    """Fold one character with all that belongs to it."""
    kept = "".join(char for char in cluster if not _silent(char)).translate(_SPELT)
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", kept).casefold())
    symbol = unicodedata.category(kept[0])[0] not in "LM" if kept else False  # "¸" holds a mark
    plain = "".join(
        char
        for at, char in enumerate(plain)
        if not unicodedata.combining(char) or not (symbol or _STRIPPED.match(_bearer(plain, at)))
    )
    return unicodedata.normalize("NFKC", plain.translate(_SPELT))


def _bearer(text: str, at: int) -> str:
    """Return the character that carries the mark at ``at``."""
    while at and unicodedata.combining(text[at]):
        at -= 1
    return text[at]


@dataclass(slots=True)
class _Folded:
    r"""A folded text, and where each of its characters stands in the original.

    ``begins`` and ``ends`` are the borders of the original's character; a match must begin and end
    on such borders, or it would take a letter and leave its accent. ``loose`` are the places in
    the original where something that is no letter parts two letters: a mark that nobody sees, the
    \n of JSON.
    """

    text: str
    begins: list[int]
    ends: list[int]
    loose: frozenset[int] = frozenset()

    @classmethod
    def of(cls, text: str) -> _Folded:
        if text.isascii() and "\\" not in text:
            spots = list(range(len(text) + 1))
            return cls(text.lower().replace("`", "'"), spots[:-1], spots[1:])
        parts, begins, ends = [], [], []
        loose = {match.end() for match in _ESCAPE.finditer(text) if not match["code"]}
        at = 0
        while at < len(text):
            cluster, end = _character(text, at)
            while end < len(text) and len(cluster) < MOST_MARKS:
                char, after = _character(text, end)
                if not _goes_on(cluster[-1], char):
                    break
                cluster, end = cluster + char, after
            made = _plain(cluster)
            parts.append(made)
            begins += [at] * len(made)
            ends += [end] * len(made)
            if any(_silent(char) for char in cluster):
                loose |= {at, end}
            at = end
        return cls("".join(parts), begins, ends, frozenset(loose))

    def whole(self, start: int, end: int) -> bool:
        """Tell whether a match takes whole characters, and whole words."""
        if start and self.begins[start] == self.begins[start - 1]:
            return False
        if end < len(self.text) and self.begins[end] == self.begins[end - 1]:
            return False
        if not self.parts(start):
            return False
        if self.parts(end):
            return True
        genitive = end - start > 2 and self.text[end] == "s"  # Annas Hund, and Anna's is apart
        return genitive and self.parts(end + 1)

    def parts(self, at: int) -> bool:
        """Tell whether two words meet between the characters before and at ``at``."""
        if at <= 0 or at >= len(self.text):
            return True
        if self.begins[at] in self.loose or self.ends[at - 1] in self.loose:
            return True
        before, after = _class(self.text[at - 1]), _class(self.text[at])
        return before != after or before in ("", "joined")


def _class(char: str) -> str:
    if _JOINED.match(char):
        return "joined"
    if char.isalpha() or unicodedata.category(char)[0] == "M":
        return "letter"
    return "digit" if char.isalnum() else ""


# --- names ----------------------------------------------------------------------------------------

# First names that are words as well: alone they count only with a capital letter.
_ALSO_WORDS = frozenset(
    """will may mark rose grace hope joy art bill rob sue pat dean frank grant jack drew chase april
    june august summer autumn dawn faith ivy lily daisy violet olive ruby pearl amber crystal gene
    guy jay jean josh ken lance max miles nick norm pierce ray reed rich rusty sandy skip victor
    wade ward don dick bob angel christian charity mercy star sky rain bea sol luz mar sam tim toni
    ernst klaus wolf bernd heide rosa viola clara blanca mal era ana an al""".split()
)
_PARTICLES = frozenset(
    "von van der den de del della di da dos das du la le el al bin ibn ben zu zur vom af av y e i "
    "mr mrs ms dr prof herr frau sir dame don dona the and und et of".split()
)


@dataclass(frozen=True, slots=True)
class _Name:
    """One thing to look for: words, folded. ``person`` is whose name it is."""

    words: tuple[str, ...]
    person: int
    capital: bool = False  # part of a listed name, that counts only as a name is written

    @property
    def size(self) -> int:
        return sum(map(len, self.words))

    def found(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where its words stand one after the other; overlapping places too."""
        at = text.find(self.words[0])
        while at >= 0:
            if (end := self._end(text, at + len(self.words[0]))) >= 0:
                yield at, end
            at = text.find(self.words[0], at + 1)

    def _end(self, text: str, at: int) -> int:
        for word in self.words[1:]:
            gap = _BETWEEN.match(text, at)
            if gap and text.startswith(word, gap.end()):
                at = gap.end() + len(word)
            elif self.size >= 6 and text.startswith(word, at):  # annameier
                at += len(word)
            else:
                return -1
        return at


_BETWEEN = re.compile(r"\s+|[-_.·]|(?:\\+[nrt])+")


def _names(listed: Sequence[str]) -> list[_Name]:
    """Return what to look for, for these names and the parts of those of several words."""
    people: dict[tuple[str, ...], int] = {}
    found: dict[tuple[str, ...], _Name] = {}
    for name in listed:
        words = tuple(fold(name).split())
        if any(char.isalnum() for word in words for char in word):
            person = people.setdefault(words, len(people))
            found.setdefault(words, _Name(words, person))
    for name in listed:
        composed = unicodedata.normalize("NFC", name).lower()
        spelt = tuple(fold(composed.translate(_UMLAUTS)).split())
        if (whose := people.get(tuple(fold(name).split()))) is not None:
            found.setdefault(spelt, _Name(spelt, whose))
    for part in _alone(list(found.values()), len(people)):
        found.setdefault(part.words, part)
    return sorted(found.values(), key=lambda name: -name.size)


def _alone(whole: Sequence[_Name], free: int) -> Iterator[_Name]:
    """Yield the parts of full names that are looked for alone; ``free``: the next free number."""
    holders: dict[str, set[int]] = {}
    for one in whole:
        for word, _ in _parts(one.words):
            holders.setdefault(word, set()).add(one.person)
    numbers = {word: free + at for at, word in enumerate(holders)}
    for one in whole:
        for word, first in _parts(one.words):
            # Two Annas: nobody knows which one is meant, so she is a third person.
            person = one.person if len(holders[word]) == 1 else numbers[word]
            yield _Name((word,), person, not first or word in _ALSO_WORDS)


def _parts(words: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield the words of a full name that stand for it alone, and whether it is the first one."""
    if len(words) < 2:
        return
    first = True
    for word in words:
        bare = word.strip(".,'\"()")
        if len(bare) > 1 and bare not in _PARTICLES:
            yield bare, first
            first = False


@dataclass(slots=True)
class _Span:
    start: int
    end: int
    kind: str
    owner: int = -1  # whose name it is; -1: nobody's, so that each surface has a number


class Placeholders:
    """Names replaced and put back. One object for all messages of a prompt, and for its answer.

    Not thread-safe. ``contacts``: also replace e-mail addresses, phone and other long numbers.
    """

    def __init__(self, names: Iterable[str] = (), *, contacts: bool = True) -> None:
        self._names = _names(list(names))
        self._s_is_name = any(name.words == ("s",) for name in self._names)
        self._contacts = contacts
        self._surfaces: dict[tuple[str, int, int], str] = {}  # (kind, number, form) -> the words
        self._given: dict[tuple[str, int, str], str] = {}  # (kind, owner, words) -> placeholder
        self._numbers: dict[tuple[str, int, str], int] = {}  # (kind, owner, words if nobody's)
        self._taken: set[tuple[str, int]] = set()  # numbers that stand in a text already
        self._owned: set[tuple[str, int]] = set()  # numbers of ours

    @property
    def used(self) -> Mapping[str, str]:
        """What was replaced so far: placeholder -> the words that it stands for."""
        return {given: words for (_, _, words), given in self._given.items()}

    def redact(self, text: str) -> str:
        """Return the text with a placeholder for each name."""
        spans = self._spans(text)
        edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(text)]
        gaps = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2)]
        for gap in gaps:
            for match in _SHAPE.finditer(gap):
                number = (match["kind"].upper(), int(match["number"]))
                if number not in self._owned:
                    self._taken.add(number)
        out = []
        for gap, span in zip(gaps, [*spans, None], strict=True):
            out.append(gap)
            if span is not None:
                out.append(self._place(span.kind, span.owner, text[span.start : span.end]))
        # Only now are all numbers of this text given: what looked like one of them is hidden.
        out[::2] = [_SHAPE.sub(self._hide, gap) for gap in out[::2]]
        return "".join(out)

    def _hide(self, match: re.Match[str]) -> str:
        if _meant(match) and (match["kind"].upper(), int(match["number"])) in self._owned:
            return self._place("TEXT", -1, match[0])
        return match[0]

    def restore(self, text: str) -> str:
        """Return the text with the names back; a placeholder that nobody gave stays as it is."""
        return _PLACEHOLDER.sub(self._back, text)

    def restorer(self) -> StreamRestorer:
        """Return what restores an answer that comes in pieces."""
        return StreamRestorer(self)

    def _back(self, match: re.Match[str]) -> str:
        if not _meant(match):
            return match[0]
        form = int(match["form"] or 1)
        key = (match["kind"].upper(), int(match["number"]), form)
        return self._surfaces.get(key, match[0])

    def _place(self, kind: str, owner: int, words: str) -> str:
        """Return the placeholder of these words: the same one each time."""
        known = self._given.get((kind, owner, words))
        if known is not None:
            return known
        whose = (kind, owner, words if owner < 0 else "")
        number = self._numbers.get(whose)
        if number is None:
            number = 1 + max((n for k, n in self._owned if k == kind), default=0)
            while (kind, number) in self._taken:
                number += 1
            self._numbers[whose] = number
            self._owned.add((kind, number))
        form = 1
        while (kind, number, form) in self._surfaces:
            form += 1
        self._surfaces[kind, number, form] = words
        made = f"[{kind}_{number}]" if form == 1 else f"[{kind}_{number}_{form}]"
        self._given[kind, owner, words] = made
        return made

    def _spans(self, text: str) -> list[_Span]:
        """Return what is to be replaced, in order, without overlaps."""
        spans = list(self._named(text))
        if self._contacts:
            spans += _contacts(_unescaped(text))
        # A name inside an address goes with it; of two names the longer one is meant.
        spans.sort(key=lambda span: (span.kind == "PERSON", span.start - span.end))
        kept: list[_Span] = []
        covered = bytearray(len(text))
        for span in spans:
            if covered.find(1, span.start, span.end) < 0:
                kept.append(span)
            elif covered.find(0, span.start, span.end) >= 0:
                kept = _merged(kept, span)  # what is left of it must not stay
            covered[span.start : span.end] = b"\1" * (span.end - span.start)
        return sorted(kept, key=lambda span: span.start)

    def _named(self, text: str) -> Iterator[_Span]:
        if not self._names:
            return
        folded = _Folded.of(text)
        for name in self._names:
            for start, end in name.found(folded.text):
                if not folded.whole(start, end):
                    continue
                if self._s_is_name and not folded.parts(end):  # then no s may be left of "Annas"
                    end += 1
                span = _Span(folded.begins[start], folded.ends[end - 1], "PERSON", name.person)
                if not (name.capital and text[span.start].islower()):
                    yield span


def _meant(match: re.Match[str]) -> bool:
    """Tell a bent placeholder from "the number 1 reason" and "person 1 said"."""
    if match["open"] or (match["between"] or "").lstrip("\\") in ("_", "-"):
        return True
    return match["kind"].startswith("P") and match["kind"].upper() == "PERSON"


def _merged(kept: list[_Span], span: _Span) -> list[_Span]:
    """Add a span that overlaps others in part: they become one, of the kind that was there."""
    touched = [one for one in kept if one.start < span.end and span.start < one.end]
    start = min(span.start, *(one.start for one in touched))
    end = max(span.end, *(one.end for one in touched))
    owner = -1 if len(touched) > 1 else touched[0].owner
    rest = [one for one in kept if one not in touched]
    return [*rest, _Span(start, end, touched[0].kind, owner)]


def _contacts(text: str) -> Iterator[_Span]:
    for match in _EMAIL.finditer(text):
        yield _Span(*match.span(), "EMAIL")
    for match in _IBAN.finditer(text):
        if is_iban(match[0]):
            yield _Span(*match.span(), "NUMBER")
    for match in _PHONE.finditer(text):
        if 7 <= sum(map(str.isdigit, match[0])) <= 15 and not _DATE.search(match[0]):
            yield _Span(*match.span(), "PHONE")
    for match in _DIGITS.finditer(text):
        if not _DATE.search(match[0]):
            yield _Span(*match.span(), "NUMBER")


class StreamRestorer:
    """Restores an answer that comes in pieces, holding back what may become a placeholder.

    ``feed`` every piece, then ``end`` once; what they return makes up ``restore(whole)``.
    """

    def __init__(self, names: Placeholders) -> None:
        self._names = names
        self._held = ""
        self._at = 0  # up to here it is told already; kept because what stands before counts

    def feed(self, piece: str) -> str:
        """Return what is certain now."""
        self._held += piece
        return self._tell(last=False)

    def end(self) -> str:
        """Return the rest."""
        return self._tell(last=True)

    def _tell(self, *, last: bool) -> str:
        out = []
        text, at = self._held, self._at
        while at < len(text):
            found = _PLACEHOLDER.search(text, at)
            open_end = None if last else _UNFINISHED.search(text, at)
            if open_end and (found is None or open_end.start() <= found.start()):
                out.append(text[at : open_end.start()])
                at = open_end.start()
                break
            if found is None:
                out.append(text[at:])
                at = len(text)
                break
            out += [text[at : found.start()], self._names._back(found)]
            at = found.end()
        keep = max(0, at - 1)
        self._held, self._at = text[keep:], at - keep
        return "".join(out)


# --- secrets --------------------------------------------------------------------------------------

_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-(?:ant-|proj-|or-v1-|svcacct-)?[A-Za-z0-9_-]{20,}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,}"
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{12,}|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|gsk_[A-Za-z0-9]{40,}|dop_v1_[a-f0-9]{60,}"
    r"|SG\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{40,}|\d{8,10}:AA[A-Za-z0-9_-]{33}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{50,})"
)
_KEY_HINTS = tuple(
    """sk- sk_ rk_ pk_ whsec_ ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- xox aiza ya29. hf_ npm_
    gsk_ dop_v1_ sg. :aa eyj age-secret""".split()
)
_AWS = re.compile(
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|(?i:aws.{0,20}secret.{0,20}?[=:]\s*[\"']?)(?P<secret>[A-Za-z0-9/+=]{40})(?![A-Za-z0-9/+=])"
)
_PRIVATE = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?s:.*?)-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|(?s:.*))"
)
_BEARER = re.compile(r"(?i:\bbearer)\s+(?P<secret>[A-Za-z0-9._~+/-]{16,}=*)")
_LOGIN = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"']{1,80}:(?P<secret>[^\s:/@\"']{3,80})@")
_CALLED = (
    "password|passwort|passwd|pwd|passphrase|passcode|kennwort|mot de passe|contraseña|senha|"
    "palavra-passe|parola|wachtwoord|hasło|пароль|密码|パスワード|secret|client[_ -]?secret|"
    "api[_ -]?key|apikey|access[_ -]?key|access[_ -]?token|auth[_ -]?token|token|pin|puk|tan"
)
_PASSWORD = re.compile(
    rf"(?<![^\W_])(?:{_CALLED})[\"']?\s*(?P<means>[:：=]+|\b(?:is|was|ist|lautet|es|est|é)\b)\s*"
    r"(?P<quote>[\"'`“]?)(?P<secret>[^\s\"'`“”,;]{4,200})(?P<after>[^\n]?)",
    re.IGNORECASE,
)
_CALLED_HINTS = tuple(
    """passwor passwd pwd passphrase passcode kennwort passe contraseña senha parola wachtwoord
    hasło пароль 密码 パスワード secret api key token pin puk tan""".split()
)
_NO_PASSWORD = frozenset(
    """string text bytes none null true false undefined required optional secret password passwort
    token hidden redacted removed changeme change example placeholder unknown missing wrong invalid
    empty forgotten lost expired here there must should needed stored safe secure strong weak your
    yours mine same different long short""".split()
)
_CARD = re.compile(
    r"(?<![\w.+-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6(?:011|4[4-9]\d|5\d\d|2\d\d))"
    r"(?:([ -]?)\d{4}\1\d{4}\1\d{4})(?![\w-]|\.\d)"
    r"|(?<![\w.+-])3[47]\d\d([ -]?)\d{6}\2\d{5}(?![\w-]|\.\d)"
)
_IBAN_LENGTHS = dict(
    part.split(":")
    for part in """AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 CH:21 CR:22 CY:28
    CZ:24 DE:22 DK:18 DO:28 EE:20 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21
    HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LI:21 LT:20 LU:20 LV:21 MC:27 MD:24
    ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SE:24
    SI:19 SK:24 SM:27 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20""".split()
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret in a text: what kind, and where."""

    kind: str  # api key, private key, password, bank card, bank account
    start: int
    end: int


def secrets_in(text: str) -> tuple[str, ...]:
    """Return the kinds of secrets that a text holds, each once; empty for ordinary text.

    Keys of common services, private keys, bearer tokens, what stands after "password:", card
    numbers (Luhn, ISO/IEC 7812-1), bank accounts (IBAN, ISO 13616).
    """
    return tuple(dict.fromkeys(secret.kind for secret in find_secrets(text)))


def masked(text: str) -> str:
    """Return the text with its secrets replaced by what they are: ``[api key]``. For records."""
    out, at = [], 0
    for secret in sorted(find_secrets(text), key=lambda one: (one.start, -one.end)):
        if secret.start >= at:
            out += [text[at : secret.start], f"[{secret.kind}]"]
        at = max(at, secret.end)
    return "".join([*out, text[at:]])


def find_secrets(text: str) -> Iterator[Secret]:
    """Yield every secret in a text; some may overlap."""
    plain = _unescaped(text)
    if plain != text:  # in both: a key after a \n, and what holds one
        yield from _find_secrets(plain)
    yield from _find_secrets(text)


def _find_secrets(text: str) -> Iterator[Secret]:
    lower = text.lower()
    numbers = _LONG_NUMBER.search(text) is not None
    for kind, pattern, hints, real in _SECRETS:
        # Most text holds none of these words, and finding that out is twenty times cheaper.
        if not (any(hint in lower for hint in hints) if hints else numbers):
            continue
        for match in pattern.finditer(text):
            if real is None or real(match):
                named = "secret" in pattern.groupindex and match["secret"]
                yield Secret(kind, *match.span("secret" if named else 0))


_LONG_NUMBER = re.compile(r"\d{4}")


def _mixed(text: str) -> bool:
    """Tell whether a word looks drawn by lot: letters and digits, or odd signs among them."""
    return any(char.isdigit() for char in text) and any(char.isalpha() for char in text)


def _is_password(match: re.Match[str]) -> bool:
    """Tell what somebody's password is from code and prose about passwords."""
    found = match["secret"].rstrip(".!?)]}")
    if len(found) < 4 or found[0] in "<{$%*(…[" or set(found) <= set(".*xX•-_…"):
        return False
    if re.search(r"[(\[{<]", found) or re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", found):
        return False  # a call, a subscript, an attribute, a template
    if found.lower().strip("_-") in _NO_PASSWORD:
        return False
    if any(char.isdigit() for char in found) or re.search(r"[^\w-]", found):
        return True
    # A plain word: a password where nothing is said after it, and not in a sentence about one.
    ends = match["after"] in ("", "\n", "\r") or bool(match["quote"])
    return ends and match["means"][0] in ":：=" and len(found) >= 6 and "_" not in found


def luhn(number: str) -> bool:
    """Tell whether the last digit of a card's number checks the others (ISO/IEC 7812-1)."""
    digits = [int(char) for char in reversed(number) if char.isdigit()]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * d, 10)) for d in digits[1::2]) % 10


def is_iban(text: str) -> bool:
    """Tell whether a text is a bank account's number: country, length, check digits (mod 97)."""
    bare = text.replace(" ", "").upper()
    if _IBAN_LENGTHS.get(bare[:2]) != str(len(bare)):
        return False
    return int("".join(str(int(char, 36)) for char in bare[4:] + bare[:4])) % 97 == 1


_SECRETS: tuple[
    tuple[str, re.Pattern[str], tuple[str, ...], Callable[[re.Match[str]], bool] | None], ...
] = (
    ("private key", _PRIVATE, ("-----begin ",), None),
    ("api key", _KEYS, _KEY_HINTS, None),
    ("api key", _AWS, ("akia", "asia", "abia", "acca", "aws"), None),
    ("api key", _BEARER, ("bearer",), lambda match: _mixed(match["secret"])),
    ("password", _LOGIN, ("://",), None),
    ("password", _PASSWORD, _CALLED_HINTS, _is_password),
    ("bank card", _CARD, (), lambda match: luhn(match[0])),
    ("bank account", _IBAN, (), lambda match: is_iban(match[0])),
)
"""Kind, pattern, words of which one must be there (none: a number of four digits), the test."""
