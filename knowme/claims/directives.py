"""What a message orders for all answers to come, and what it says of itself in a few words.

Promises: pure; only what is plainly meant to last: "always", "never", "call me", "from now on".
Refuses to know: sentences about the writer's life.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from knowme.claims.lexicon import STATE, Draft

_CUE = re.compile(
    r"call|always|never|answer|repl|respon|nenn|cham|llam|emoji|antwort|immer|nunca|sempre|siempre"
    r"|keep|no |sem |sin |keine|please|only|from now on|resp[ou]|don|stop|nada de|i want ",
    re.IGNORECASE,
)
_NAME = r"(?P<value>[^\W\d_][^\W\d_'’-]*(?: [A-ZÀ-Ý][^\W\d_]+)?)"
_TONGUE_EN = r"(?:english|portuguese|spanish|german|french|italian|dutch|polish|danish|swedish)"
_TONGUE = (
    r"(?:português|inglês|espanhol|alemão|francês|italiano|portugués|inglés|español|alemán|francés"
    r"|deutsch|englisch|spanisch|portugiesisch|französisch|italienisch)"
)
_OUTPUTS = (
    r"(?:answers|replies|responses|recipes|dates|times|prices|units|measurements|temperatures|lists"
    r"|code|comments|keywords|commit messages|headings|examples|summaries|numbers|names)"
)
_AVOIDED = (
    r"(?:emojis?|bullet points|bullets|jargon|exclamation marks|tables|headings|filler|small talk"
    r"|hashtags|em dashes|disclaimers|apologies|compliments|anglicismos|diminutivos)"
)
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
            r"(?i:^\W*(?:and |but |please |ok,? )*(?:always |only |just )?(?:answer|reply"
            r"|respond|write)"
            r"(?: to)?(?: me)?(?: only| always)? in (?P<value>(?:the |whatever )?(?:same"
            r" )?language "
            r"(?:that |which )?i (?:write|use|ask|speak|am writing)(?: you)?(?: in)?)\W*$)",
        ),
        (
            "answer language",
            r"(?i:^\W*(?:please )?(?:(?:only |just )(?:answer|reply|respond)(?: to)?(?: me)? in "
            rf"|(?:answer|reply|respond)(?: to)?(?: me)? (?:only )?in (?={_TONGUE_EN}"
            rf"(?:,? (?:from now on|always|only|every time))))(?P<value>{_TONGUE_EN})\b)",
        ),
        (
            "answer language",
            r"(?i:^\W*(?:por favor,? )?respond[ae](?:-me|me)?,? (?:sempre |siempre )?(?:na|no|en"
            r" el|en la) "
            r"(?P<value>(?:mesma |mismo |misma )?(?:língua|idioma|lengua)(?: em| en)? que "
            r"(?:eu |yo )?(?:te )?(?:escrevo|falo|pergunto|uso|escribo|hablo|pregunto))\W*$)",
        ),
        (
            "answer language",
            rf"(?i:\b(?:responde(?:-me)?|responda(?:-me)?|respóndeme|respondeme) "
            rf"(?:(?:só|apenas|solo|sólo|siempre|sempre) (?:em|en) (?P<value>{_TONGUE})"
            rf"|(?:em|en) (?P<again>{_TONGUE})(?=,? (?:sempre|siempre|a partir d[ae]|de ahora))))",
        ),
        (
            "answer language",
            r"(?i:^\W*(?:bitte )?antworte(?: mir)?(?: bitte)?(?: immer| nur)? in (?P<value>der "
            r"(?:gleichen )?Sprache,? in der ich (?:dir )?schreibe)\W*$)",
        ),
        (
            "answer language",
            rf"(?i:\bantworte(?: mir)?(?: bitte)? (?:nur|ab jetzt|ab sofort) auf "
            rf"(?P<value>{_TONGUE})\b)",
        ),
        (
            "answer language",
            r"(?i:^\W*(?:i want )?(?:(?:your|all|the) )?(?:answers|replies|responses) in "
            rf"(?P<value>{_TONGUE_EN}),? (?:please|always|only|from now on)\b)",
        ),
        (
            "answer length",
            r"(?i:^\W*(?:i (?:want|prefer|like) |please )?(?:keep )(?:your|the|all) "
            r"(?:answers|replies|responses) (?P<value>(?:very )?(?:short|brief|concise|long"
            r"|detailed"
            r"|thorough)(?: and [a-z ]{3,20})?)(?: please| always)?\W*$)",
        ),
        (
            "answer length",
            r"(?i:^\W*(?:(?:quero|prefiro|quiero|ich (?:möchte|will|mag)|dá-me|dame|gib mir) )?(?:"
            r"(?:(?:as )?respostas|(?:las )?respuestas) (?:sempre |siempre )?"
            r"(?P<value>(?:mais |más |muito |muy )?(?:curtas|breves|longas|largas|cortas|detalhadas"
            r"|detalladas|concisas|diretas|directas))"
            r"|(?P<again>kurze|knappe|ausführliche|lange|kürzere) antworten)"
            r"(?:,? (?:por favor|bitte|sempre|siempre|immer))?\W*$)",
        ),
        (
            "answer length",
            r"(?i:^\W*(?:(?:responde|respóndeme|responda)(?:-me)? (?:sempre|siempre) (?:de forma"
            r" |com |"
            r"con )?|antworte (?:mir )?(?:bitte )?immer )(?P<value>(?:muito |muy |sehr )?"
            r"(?:curt[oa]"
            r"|breve|cort[oa]|conciso|concisa|kurz|knapp|ausführlich)(?: (?:e|y|und) [^\W\d_]+)?)"
            r"(?: por favor| bitte)?\W*$)",
        ),
        (
            "units",
            r"(?i:^\W*(?:please )?(?:always |only )?(?:use )?(?:the )?(?P<value>metric|imperial)"
            r"(?: units?| system)?,? (?:please|always|only|from now on)\W*$)",
        ),
        (
            "units",
            r"(?i:^\W*(?:please )?always use (?:the )?(?P<value>metric|imperial)(?: units?|"
            r" system)?)",
        ),
        (
            "answers",
            r"(?i:^\W*(?:and |[a-z ]{0,20}: )?i want (?:my |your |all )?(?P<value>(?:answers"
            r"|replies|recipes"
            r"|dates|times|prices|units|measurements|temperatures|distances|code|examples|comments"
            r"|explanations|summaries) (?:in|as) (?!my|the|your|a|an)[a-z-]+(?: [a-z-]+)?)"
            r"(?:,? (?:please|always))?\W*$)",
        ),
        (
            "answers",
            rf"(?i:^\W*(?:please )?(?P<value>(?!(?:answers|replies|responses) in {_TONGUE_EN})"
            rf"(?:[a-z]+ )?{_OUTPUTS} (?:always )?(?:in|with|without|as"
            r"|at most|under|up to|of at most|of no more than) [^.!?,;\n]{2,40}?),?"
            r" (?:please|always|from now on)\b)",
        ),
        (
            "avoid in answers",
            rf"(?i:^\W*(?:please )?(?:stop using|don['’]?t (?:ever )?use|avoid|nada de|não uses"
            rf"|no uses|benutze keine) (?P<value>{_AVOIDED})(?: (?:in (?:your |the )?(?:answers"
            rf"|replies)"
            r"|again|anymore|any more|ever|from now on|nunca|nas respostas|en las respuestas"
            r"|mehr))\W*$)",
        ),
        (
            "avoid in answers",
            rf"(?i:^\W*(?:stop using|nada de|não uses|no uses) (?P<value>{_AVOIDED})"
            r"(?:,? (?:please|por favor))?\W*$)",
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
    r"|source|recipe|dates?\b|keyword|comment|price|measure|temperature|numbers|heading|open"
    r" with|start with|begin with|end with|format|explain|ask me|cite",
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
        if match is None or not _meant(name, match["value"] or match["again"]):
            continue
        group = "value" if match["value"] else "again"  # the other order of the same words
        first, last = start + match.start(group), start + match.end(group)
        begin = start + len(piece) - len(piece.lstrip())
        yield Draft(name, first, last, begin, start + len(piece.rstrip()), STATE, outright=True)
        return


def _meant(name: str, value: str) -> bool:
    if name == "call me":
        return value.split(" ")[0].lower() not in _NOBODY
    if name == "answers":
        return _POINTING.search(value) is None and _ABOUT_ANSWERS.search(value) is not None
    return True


_RULES = re.compile(
    r"(?:^|\n|(?<=[.!?] ))(?:and |my |some |here are (?:my |some |the )?|the )*"
    r"(?:(?:ground|coding|code|style|writing|formatting|answer(?:ing)?|reply|commit|naming"
    r"|standing)"
    r" (?:rules?|conventions?|guidelines|preferences)(?: changed| update)?"
    r"|rules (?=for (?:you|your answers|anything you)))"
    r"(?: (?:before|for) [^.:\n]{2,60})?(?:: ?|\.\s+|\n)",
    re.IGNORECASE,
)
"""What says that rules for all answers follow."""
_PIECE = re.compile(r"[^.;,\n]+(?:\.(?=\d)[^.;,\n]+)*")
_PROSE = re.compile(
    r"\b(?:i|i'm|we|you|it|he|she|they|this|if|when|because|is|are|was|uses|thanks?|hello"
    r"|hi)\b|[?:]",
    re.IGNORECASE,
)
_MOST_WORDS = 8
"""Words of a rule in a list; a longer stretch tells a story."""
_MOST_RULES = 12
_OF_FORM: Mapping[str, str] = {"metric": "units", "imperial": "units"}


def heads_rules(head: str) -> bool:
    """Tell whether these words announce rules for all answers."""
    return _RULES.search(head) is not None


def read_rules(text: str) -> Iterator[Draft]:
    """Yield the rules that are listed after a heading such as "ground rules:", one by one."""
    heading = _RULES.search(text)
    if heading is None:
        return
    stop = text.find("\n\n", heading.end())
    last = stop if stop > 0 else min(len(text), heading.end() + 600)
    for count, match in enumerate(_PIECE.finditer(text, heading.end(), last)):
        piece = match[0].strip(" -*•–—")
        if count == _MOST_RULES or not piece:
            return
        if (
            piece.lower().startswith("the ")
            or len(piece.split()) > _MOST_WORDS
            or _PROSE.search(piece)
        ):
            continue
        if next(read_directives(text, match.start(), match.end()), None) is None:
            first = match.start() + match[0].index(piece)
            last_of = first + len(piece)
            name = _OF_FORM.get(piece.lower(), "rule")
            yield Draft(name, first, last_of, first, last_of, STATE, outright=True)


__all__ = ["LONGEST", "heads_rules", "read_directives", "read_rules"]
