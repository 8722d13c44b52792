"""Words of time as letters: a number, a unit, a month, "last", "ago", one letter each.

Promises: one pass over the text for each language, linear in its length. The words are in
``data/whens.json``: another language is one more block there.
Refuses to know: what the letters together mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from knowme.whens.calendar import Span, day_of, month_of


class Token(NamedTuple):
    """A word, or a phrase, as one letter; ``value`` is the number or weekday it stands for."""

    start: int
    end: int
    code: str
    value: Any = None


_WORD = re.compile(
    r"\d+(?:[.,:/-]\d+)*(?:st|nd|rd|th|[ºª°]|ern?\b|s\b)?|[^\W\d_]+(?:['’][^\W\d_]+)?(?:-feira)?"
    r"|['’]\d\d(?!\w)|['’](?=\d0s)|[^\w\s]|\n"
)
_LONGEST_PHRASE = 5
_ACCENTS = str.maketrans("áàâãäéêèíîóôõöúüñ", "aaaaaeeeiiooooouun"[:17] + "")


def _plain(word: str) -> str:
    return word.translate(_ACCENTS)


class _Lexicon(NamedTuple):
    words: dict[tuple[str, ...], tuple[str, Any]]
    openers: frozenset[str]
    """The first words of phrases of several words."""


@cache
def _lexica() -> dict[str, _Lexicon]:
    path = Path(__file__).parent.parent / "data" / "whens.json"
    return {
        language: _lexicon(block)
        for language, block in json.loads(path.read_text("utf-8")).items()
        if len(language) == 2
    }


def _value(written: Any) -> Any:
    try:
        return json.loads(written) if isinstance(written, str) else written
    except json.JSONDecodeError:
        return written


def _lexicon(block: dict[str, Any]) -> _Lexicon:
    words: dict[tuple[str, ...], tuple[str, Any]] = {}
    for code, listed in block.items():
        if isinstance(listed, str):
            listed = {"0": listed}
        entries = enumerate(listed) if isinstance(listed, list) else listed.items()
        for value, forms in entries:
            number = _value(value)
            for form in forms.split("|"):
                key = tuple(form.split())
                words.setdefault(key, (code, number))
                bare = tuple(_plain(part) for part in key)
                # "Marco" is a name, and "a" is not "à".
                if "marco" not in bare and len(form) > 1:
                    words.setdefault(bare, (code, number))
    return _Lexicon(words, frozenset(key[0] for key in words if len(key) > 1))


_FUNCTION_WORDS = {
    "en": "the and of to is was it my with for that this i we you have at on are not but in she he",
    "pt": "o e de que não um uma com para os meu minha eu foi mais em na no da do estou é às há",
    "es": "el y de que no un una con para los mi yo fue más en la del estoy es muy me hace",
    "de": "der die und das ich ist nicht ein eine mit für zu den auf war im wir habe bin am seit",
}
_SPOKEN = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
_LOOKED_AT = 400


@cache
def _own_words() -> dict[str, frozenset[str]]:
    """Return the words by which a language is known: function words, and its own time words."""
    single = {
        name: {key[0] for key in lexicon.words if len(key) == 1}
        for name, lexicon in _lexica().items()
    }
    return {
        name: known
        | (single[name].difference(*(single[other] for other in single if other != name)))
        for name, known in _SPOKEN.items()
    }


def _languages(words: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the languages that a text is likely in, and those that some of it may be in.

    By its function words; where there are hardly any, it may be in every language.
    """
    looked = [word for word in words if word.isalpha()][:_LOOKED_AT]
    counts = {name: sum(word in known for word in looked) for name, known in _own_words().items()}
    best = max(counts.values())
    likely = frozenset(name for name, count in counts.items() if count * 10 >= best * 7)
    return likely, frozenset(n for n, count in counts.items() if best < 3 or count * 4 >= best)


def read(text: str) -> tuple[dict[str, list[Token]], frozenset[str]]:
    """Read a text once for each language that it may be in; also say which are likely.

    "j", "v", "c" (months and weekdays in short) are known in a likely language only.
    """
    pieces = [(match.start(), match.end(), match[0]) for match in _WORD.finditer(text)]
    words = [piece.lower().replace("’", "'") for _, _, piece in pieces]
    likely, possible = _languages(words)
    readings = {
        name: list(_read(_lexica()[name], name, pieces, words, name in likely, likely))
        for name in _SPOKEN
        if name in possible
    }
    return readings, likely


def _read(
    lexicon: _Lexicon,
    name: str,
    pieces: Sequence[tuple[int, int, str]],
    words: Sequence[str],
    likely: bool,
    languages: frozenset[str],
) -> Iterator[Token]:
    at = 0
    while at < len(pieces):
        start, end, verbatim = pieces[at]
        word = words[at]
        size = 1
        if word[0].isdigit():
            code, value = _number(word, languages)
        elif len(word) == 3 and word[0] == "'":
            code, value = "y", _century(int(word[1:]))
        elif not word[0].isalpha():
            code, value = _sign(word), None
        else:
            key, size = _longest(lexicon, words, at)
            code, value = lexicon.words.get(key, ("x", None))
            if (code in "jvc" and not likely) or _is_noun(name, key, verbatim, pieces, at):
                code, value = ("p" if key == ("morgen",) else "x"), None
        yield Token(start, pieces[at + size - 1][1], code, value)
        at += size


def _longest(lexicon: _Lexicon, words: Sequence[str], at: int) -> tuple[tuple[str, ...], int]:
    if words[at] in lexicon.openers:
        for size in range(min(_LONGEST_PHRASE, len(words) - at), 1, -1):
            key = tuple(words[at : at + size])
            if key in lexicon.words:
                return key, size
    key = (words[at],)
    if key not in lexicon.words and words[at].endswith("'s"):
        key = (words[at][:-2],)
    return key, 1


def _is_noun(
    name: str, key: tuple[str, ...], verbatim: str, pieces: Sequence[tuple[int, int, str]], at: int
) -> bool:
    """Tell "der Morgen" from "morgen", and "Mo", "Di" from "do", "so", "am" in German."""
    if name != "de" or len(key) > 1:
        return False
    if key[0] == "morgen":
        return verbatim[0].isupper() and at > 0 and pieces[at - 1][2] not in ".!?\n:"
    return (
        len(key[0]) == 2
        and key[0] in ("mo", "di", "do", "sa", "so", "fr")
        and not (verbatim[0].isupper() and at + 1 < len(pieces) and pieces[at + 1][2] in (",", "."))
    )


def _sign(sign: str) -> str:
    return _SIGNS.get(sign, "!")


_SIGNS = {".": ".", ",": ",", "(": "(", "'": "'", "’": "'"} | dict.fromkeys("-–—/", "-")
_DATE = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})")
_YEAR_FIRST, _YEAR_LAST = 1000, 2099


def _number(word: str, languages: frozenset[str]) -> tuple[str, Any]:
    match = _DATE.fullmatch(word)
    if match:
        spans = _numeric(int(match[1]), int(match[3]), int(match[4]), match[4], languages)
        return ("z", spans) if spans else ("x", None)
    month = re.fullmatch(r"(0?[1-9]|1[0-2])/((?:19|20)\d\d)", word)
    if month:
        return "z", [month_of(int(month[2]), int(month[1]))]
    digits = re.match(r"\d+", word)
    value = int(digits[0]) if digits and len(digits[0]) < 5 else -1
    rest = word[len(str(value)) :] if value >= 0 else word
    if re.fullmatch(r"\d{4}-\d{2}(\d\d)?", word):
        return _years(word)
    if rest == "" and len(word) == 4 and _YEAR_FIRST <= value <= _YEAR_LAST:
        return "y", value
    if rest == "" and 0 <= value < 1000:
        return "n", value
    if rest in ("s", "er", "ern") and value % 10 == 0 and len(word) - len(rest) in (2, 4):
        return "k", value if value >= 100 else value + (2000 if value < 30 else 1900)
    if rest in ("st", "nd", "rd", "th", "º", "ª", "°") and 0 < value < 32:
        return "o", value
    between = re.fullmatch(r"(\d{1,3})-(\d{1,3})", word)
    if between and int(between[1]) < int(between[2]):
        return "n", [int(between[1]), int(between[2])]
    half = re.fullmatch(r"(\d{1,2})[.,]5", word)
    return ("n", [int(half[1]), int(half[1]) + 1]) if half else ("x", None)


def _century(year: int) -> int:
    return year + (2000 if year < 60 else 1900)


def _years(word: str) -> tuple[str, Any]:
    """Read 2015-2019 and 2015-19; 2015-03 is a month."""
    year, second = int(word[:4]), int(word[5:])
    if len(word) == 7 and 1 <= second <= 12:
        return "z", [month_of(year, second)]
    last = second if second > 99 else year // 100 * 100 + second
    if not _YEAR_FIRST <= year < last <= _YEAR_LAST:
        return "x", None
    return "Y", (year, last)


def _numeric(a: int, b: int, c: int, last: str, languages: frozenset[str]) -> list[Span]:
    """Read 2026-03-04, 04.03.2026, 3/4/26; both orders where the language leaves it open."""
    if a > 31:
        readings = [(a, b, c)]
    else:
        year = c if len(last) == 4 else _century(c)
        readings = [(year, b, a)]
        if "en" in languages:
            readings.append((year, a, b))
    days = sorted({day for reading in readings if (day := day_of(*reading)) is not None})
    return [(days[0], days[-1])] if days else []
