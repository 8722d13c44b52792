"""What a message orders for all answers to come, and what it says of itself in a few words.

Promises: pure; only what is plainly meant to last: "always", "never", "call me", "from now on".
Refuses to know: sentences about the writer's life.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from knowme.claims.lexicon import STATE, Draft

_CUE = re.compile(
    r"call|always|never|answer|repl|respon|nenn|cham|llam|emoji|antwort|immer|nunca|sempre|siempre"
    r"|keep|no |sem |sin |keine",
    re.IGNORECASE,
)
_NAME = r"(?P<value>[^\W\d_][^\W\d_'’-]*(?: [A-ZÀ-Ý][^\W\d_]+)?)"
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        (
            "call me",
            r"^\W*(?i:please |just |but |you can |everyone |people |friends |they "
            r"|most people |and )*"
            rf"(?i:call me) {_NAME}(?=[ .,!;)]*$|, | (?i:instead|please|from now on|btw)\b)",
        ),
        (
            "call me",
            rf"(?i:^\W*(?:me chama(?:m)? de|podes chamar-me|pode me chamar de|ll[aá]mame"
            rf"|puedes llamarme|nenn(?:t)? mich|du kannst mich)) {_NAME}(?=[ .,!;)]*$|, | nennen)",
        ),
        (
            "answer length",
            r"(?i:^\W*(?:i (?:want|prefer|like) |please (?:use|give me|always give) "
            r"|always (?:use |give me )|ground rules[:,. ]*)?"
            r"(?P<value>(?:very )?(?:short|brief|concise|long|detailed|thorough))"
            r"(?:,? (?:to the point|simple|clear))? (?:answers|replies|responses)"
            r"(?: please| only| always)?\W*$)",
        ),
        (
            "answer length",
            r"(?i:^\W*(?:always |please always |from now on,? |in general,? )(?:please )?keep "
            r"(?:your|the|all) (?:answers|replies|responses) (?P<value>[a-z ,]{3,40}?)\W*$)",
        ),
        (
            "answer language",
            r"(?i:\b(?:always|from now on,?(?: please)?)(?: please)? "
            r"(?:answer|reply|respond|write|speak)(?: to)?(?: me)? in (?P<value>[a-z]+)\b)",
        ),
        (
            "answer language",
            r"(?i:\b(?:responde(?:-me)?|respondeme|respóndeme)(?: sempre| siempre) (?:em|en) "
            r"(?P<value>[a-zêñé]+)\b)",
        ),
        (
            "answer language",
            r"(?i:\bantworte(?: mir)?(?: bitte)? immer auf (?P<value>[a-z]+)\b)",
        ),
        (
            "avoid in answers",
            r"(?i:^\W*(?:please )?(?:no|never use|don['’]t ever use|keine|sem|sin) "
            r"(?P<value>emojis?"
            r"|bullet points|bullets|jargon|exclamation marks|tables|headings|filler|small talk)"
            r"(?: please| ever| bitte| por favor)?\W*$)",
        ),
        (
            "answers",
            r"(?i:^\W*(?:please )?(?P<value>(?:always|never) (?:answer|reply|respond|address|start"
            r"|begin|open|end|close|format|use|include|explain|give me|show|cite|ask me|add|write)"
            r" [^.!?\n]{3,90}?)[.!\s]*$)",
        ),
    )
)
_POINTING = re.compile(
    r"\b(?:it|this|that|these|those|them|he|she|they|if|when it)\b", re.IGNORECASE
)
_ABOUT_ANSWERS = re.compile(
    r"answer|repl|respon|address me|question|emoji|bullet|language|sentence|example|code|unit"
    r"|source|open with|start with|begin with|end with|format|explain|ask me|cite",
    re.IGNORECASE,
)
_NOBODY = frozenset(
    "back when if asap later crazy a an the old tomorrow today now before at on in up out again "
    "paranoid whatever anytime please soon about and or to lazy biased picky weird".split()
)
LONGEST = 240
"""Characters of a sentence that may be an order; a longer one is a story."""


def read_directives(text: str, start: int, end: int) -> Iterator[Draft]:
    """Yield what a sentence (characters start to end) orders for all answers to come."""
    if end - start > LONGEST or _CUE.search(text, start, end) is None:
        return
    piece = text[start:end]
    if "?" in piece:
        return
    for name, pattern in _FORMS:
        match = pattern.search(piece)
        if match is None or not _meant(name, match["value"]):
            continue
        first, last = start + match.start("value"), start + match.end("value")
        begin = start + len(piece) - len(piece.lstrip())
        yield Draft(name, first, last, begin, start + len(piece.rstrip()), STATE, outright=True)
        return


def _meant(name: str, value: str) -> bool:
    if name == "call me":
        return value.split(" ")[0].lower() not in _NOBODY
    if name == "answers":
        return _POINTING.search(value) is None and _ABOUT_ANSWERS.search(value) is not None
    return True


__all__ = ["LONGEST", "read_directives"]
