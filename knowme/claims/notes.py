"""What a few words claim, as one writes in a chat: a label, a date, who somebody is.

"decision: the red one", "go-live is 16 March", "Ana is our intern", "no meat since 2019", "down to
two coffees a day". Patterns of four languages over one sentence.

Promises: pure; a value is a stretch of the sentence and stands alone; nothing is read from a
question or a condition. Time linear in the sentence.
Refuses to know: clauses and verbs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from knowme.attributes import PETS, RELATIONS, SEVERAL
from knowme.claims.lexicon import EVENT, STATE, Draft, first_names, words
from knowme.types import ME

LONGEST = 300
"""Characters of a sentence; a longer one is no note."""
_WORDS_OF_A_DECISION = 14
_IFS = re.compile(
    r"\b(?:if|unless|whether|would|could|should|might|may|wish|imagine|suppose|assuming|se|si|wenn"
    r"|falls|würde|wäre|seria|sería|example|says?|said|not|no longer|isn't|não|nicht|kein\w*)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(r"\b(?:maybe|probably|perhaps|i think|likely|talvez|acho|quizás?|vielleicht"
                    r"|wahrscheinlich)\b", re.IGNORECASE)  # fmt: skip
_POINTING = words("pointing") | words("nominative") | words("possessive")
_BEGINS = r"(?:^|(?<=[,;:(–—-] )|(?<=[,;(])|(?<=\band )|(?<=\bund )|(?<=\be )|(?<=\by ))\W{0,3}"

# --- dates ---

_WEEKDAY = (
    r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?s?"
    r"|segundas?(?:-feiras?)?|terças?(?:-feiras?)?|quartas?(?:-feiras?)?|quintas?(?:-feiras?)?"
    r"|sextas?(?:-feiras?)?|sábados?|domingos?|lunes|martes|miércoles|jueves|viernes"
    r"|(?:mon|diens|donners|frei|sams|sonn)tags?|mittwochs?)\b"
)
_MONTH = (
    r"(?:jan(?:uary|eiro|uar)?|feb(?:ruary|ruar|rero)?|fev(?:ereiro)?|mar(?:ch|ço|zo)|mar|märz"
    r"|apr(?:il)?|abr(?:il)?|may|maio|mayo|mai|june?|jun(?:ho|io|i)|july?|jul(?:ho|io|i)"
    r"|aug(?:ust)?|ago(?:sto)?|sep(?:t|tember|tiembre)?|set(?:embro)?|oct(?:ober|ubre)?|out"
    r"(?:ubro)?"
    r"|okt(?:ober)?|nov(?:ember|embro|iembre)?|dec(?:ember)?|dez(?:embro|ember)?|dic(?:iembre)?)\b"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th|º|\.(?= [^\W\d_]))?(?![\w:.,%-]*\d)"
_CLOCK = r"(?:\d{1,2}(?::|h)\d{2}(?: ?[ap]m)?|\d{1,2} ?(?:[ap]m|h|uhr)\b)"
_DATE = (
    rf"(?:\d{{4}}-\d\d-\d\d|{_DAY}(?: of| de|\.)? {_MONTH}|{_MONTH} {_DAY})(?:,? (?:de )?20\d\d)?"
)
_FILLS = r"(?:[ ,]|\b(?:on|at|and|the|every|às|as|a las|las|e|y|und|um|am|o|el|dia|día|ab)\b)*"
_SET = rf"(?:(?:(?:next|this|coming) )?{_WEEKDAY}|tomorrow|amanhã|mañana|morgen|{_DATE}|{_CLOCK})"
_WHEN = rf"(?P<value>{_SET}(?:{_FILLS}{_SET}){{0,5}})(?!\w|[:/-]\d)"
_MEETS = (
    r"stand-?up|go-?live|launch|release|kick-?off|retro|one-on-one|1:1|1-on-1|meeting|appointment"
    r"|interview|exam|flight|wedding|surgery|operation|rehearsal|book club|deadline|conference"
    r"|workshop|thesis defen[cs]e|check-?up|installation|install|moving date|due date|start date"
    r"|end date|move-in|release date|launch date|reunião|consulta|exame|voo|casamento|mudança"
    r"|operação|cirurgia|entrevista|prazo|lançamento|reunión|cita|examen|vuelo|boda|mudanza"
    r"|operación|cirugía|plazo|lanzamiento|termin|besprechung|flug|hochzeit|prüfung|umzug"
    r"|vorstellungsgespräch|abgabe"
)
_SETS = (
    r"(?:is now|is set for|is scheduled for|is planned for|is|are|(?:was |has |got |has been"
    r" )?moved"
    r"|moves|slips|slipped|shifts|changed|é|fica(?: marcad[ao])?|(?:está )?marcad[ao]|mudou|passou"
    r"|passa|es|será|se movió|pasa|ist|findet|verschoben|wurde verschoben)"
)
_TO = (
    r"(?: from [^,.;:!?]{1,24}?)?(?: to| on| at| for| para| a| al| em| no| na| el| am| um| auf"
    r"| den)?(?: o| a| the| dia| el| día| den)?"
)
_DATED = re.compile(
    rf"{_BEGINS}(?:the |our |my |a |o |minha |meu |la |el |mi |der |die |das |mein |meine )*"
    rf"(?P<what>(?:[^\W\d_]+[ -]){{0,2}}?(?:{_MEETS})(?: (?:with|com|con|mit|de|da|do) [^\W\d_]+)?)"
    rf"(?:(?:,|:)? {_SETS}:?{_TO}{_FILLS}{_WHEN}(?! (?:was|were|is|are|foi|era|war)\b)"
    rf"|[:,]? {_FILLS}{_WHEN.replace('<value>', '<bare>')}(?=\s*(?:$|[.,;()\n])))",
    re.IGNORECASE,
)
_BIRTHDAY = re.compile(
    rf"\bmy (?P<relation>[a-z-]+)['’]s (?P<nth>\d{{1,3}}(?:st|nd|rd|th))?(?: ?birthday)?"
    rf"(?: is(?: on)?|,)? (?P<value>{_DATE})",
    re.IGNORECASE,
)
_NOT_WHAT = frozenset(
    "this that each every any another your his her their no some which what when first last next "
    "old previous a an and or to for of on at in is was new more other said about before after "
    "during since until bill mr mrs".split()
)

# --- people ---

_ROLES = (
    r"(?:ceo|cto|cfo|coo|cpo|founder|co-?founder|owner|director|manager|team lead|tech lead|lead"
    r"|head of [a-z]+|engineer|developer|designer|intern|trainee|apprentice|accountant|lawyer"
    r"|secretary|assistant|landlord|landlady|dentist|vet|doctor|gp|cardiologist|allergist|surgeon"
    r"|therapist|plumber|electrician|architect|recruiter|client|customer|nurse|midwife|tutor"
    r"|supervisor|professor|product owner|project manager|scrum master|sysadmin|editor|publisher"
    r"|director[ae]?|diretora?|gerente|estagiári[oa]|programadora?|contabilista|médic[oa]"
    r"|advogad[oa]|arquitec?t[oa]|dentista|veterinári[oa]|professora?|enfermeir[oa]|senhori[oa]"
    r"|becari[oa]|abogad[oa]|profesora?|casero|casera|chef|chefin|praktikant(?:in)?|ärztin|arzt"
    r"|zahnärztin|zahnarzt|anwältin|anwalt|geschäftsführer(?:in)?|vermieter(?:in)?"
    r"|entwickler(?:in)?)"
)
_IS = r"(?:is|é|es|ist)"
_THEIR = r"(?:the|our|my|o|a|nosso|nossa|meu|minha|el|la|mi|nuestr[oa]|der|die|mein|meine|unsere?)"
_NAME = r"(?P<name>[^\W\d_]{2,}(?: [A-ZÀ-Ý][^\W\d_]+)?)"
_ENDS = r"(?!\w)(?=\s*(?:$|[.,;!()\n]|(?:and|but|at|of|for|in|who|e|y|und|em|en|bei)\b))"
_ROLE_OF = re.compile(
    rf"{_BEGINS}(?:o |a |el |la )?{_NAME}(?: {_IS}|['’]s) (?P<value>{_THEIR} "
    rf"(?P<role>(?:(?:new|backend|frontend|senior|junior|head|chief|data|product|summer|former"
    rf"|family|legal|novo|nova|neuer?) ){{0,2}}{_ROLES})"
    rf"(?: (?:of|at|da|do|de|bei) [A-ZÀ-Ý][\w&-]+(?: [A-ZÀ-Ý][\w&-]+)?)?){_ENDS}",
    re.IGNORECASE,
)
_OF_ME = re.compile(
    rf"{_BEGINS}{_NAME} is my (?:[a-z]+(?:er|est) |best |close |old |new |little |big )?"
    rf"(?P<relation>[a-z-]+){_ENDS}",
    re.IGNORECASE,
)
_MINE_IS = re.compile(
    rf"{_BEGINS}my (?:[a-z]+(?:er|est) |best |new |little |big )?(?P<relation>[a-z-]+)"
    rf"(?: is (?:called |named )?|['’]s called | called | named ){_NAME}{_ENDS}",
    re.IGNORECASE,
)
_ROLE_IS = re.compile(
    rf"{_BEGINS}(?:(?:our|my) (?P<role>{_ROLES})|(?P<value>the {_ROLES})) is (?:called |named )?"
    rf"{_NAME}{_ENDS}",
    re.IGNORECASE,
)
_NOBODY = frozenset(
    "this that he she it who here there what which everyone someone nobody one mine yours today "
    "tomorrow yesterday music art love life work patience nature dance time experience writing "
    "reading running painting god jesus google chatgpt claude siri alexa money cash code data "
    "now not also still just only done gone very really too the my our your his her their a an "
    "i we you they its it's and but so yes no ok okay me him them us home back away happy sad dead "
    "great good bad fine sick ill tired old young ready in on at from like about".split()
)

# --- decisions, food, drink ---

_LABELLED = re.compile(
    r"(?:^|(?<=[,;] ))\W{0,3}(?:final )?(?:decision|decided|decisão|decidido|decidid[oa]s?|decisión"
    r"|entscheidung|entschieden)(?: made)?\s?[:–—]\s?(?P<value>[^:;.!?\n()]{3,120})",
    re.IGNORECASE,
)
_UNDECIDED = frozenset("pending open none tbd unknown to yes no guilty postponed still".split())
_FOOD = (
    r"meat|pork|beef|fish|seafood|shellfish|dairy|milk|cheese|eggs?|gluten|wheat|bread|sugar"
    r"|nuts?|peanuts?|hazelnuts?|soy|coriander|cilantro|garlic|onions?|mushrooms?|olives?|chicken"
)
_DRINK = r"coffee|espresso|caffeine|alcohol|wine|beer|soda|tea|energy drinks"
_NEVER = re.compile(
    rf"{_BEGINS}no (?P<value>(?:(?:red|raw|processed|fresh) )?(?P<kind>{_FOOD}|{_DRINK})"
    rf"(?: or (?:{_FOOD}|{_DRINK}))?),? (?:ever\b(?=\W*$|[.,;!)]| again\W*$)|since \d{{4}}|since"
    rf" i was \w+"
    rf"|since {_MONTH})",
    re.IGNORECASE,
)
_DOWN_TO = re.compile(
    rf"{_BEGINS}(?:so |now |and )*(?:(?:i['’]m|i am|we['’]re) )?(?:now )?"
    r"(?:(?:down|up|back) to|(?:i )?cut (?:back|down) to) (?P<value>(?:\d{1,2}|an?|one|two|three"
    r"|four|five|six"
    r"|half a) (?P<kind>coffees?|espressos?|cups? of (?:coffee|tea)|teas?|beers?|glass(?:es)? of "
    r"wine|cigarettes?|sodas?)(?: (?:a|per|every) (?:day|week))?)(?!\w)",
    re.IGNORECASE,
)
_ALLERGY = re.compile(
    rf"{_BEGINS}(?:my )?(?P<value>[^\W\d_]+(?: (?:pollen|mite|dust|milk|nut))?) allergy(?: is|"
    rf" was)? "
    r"confirmed\b",
    re.IGNORECASE,
)


_AGED = re.compile(
    rf"(?:\bi['’]m {_NAME}, (?P<mine>\d{{2}})(?=[,.;)]|$| (?:years|and|from|living)\b)"
    rf"|{_BEGINS}(?:[oa] )?(?P<who>[^\W\d_]{{2,}}), (?P<value>\d{{1,3}}) (?:anos|years old|años"
    r"|jahre alt)\b)",
    re.IGNORECASE,
)
_RELATED = re.compile(
    rf"{_BEGINS}(?:o |a )?{_NAME} {_IS} (?:o meu|a minha|meu|minha|mi|my|mein|meine) "
    rf"(?P<relation>[^\W\d_]+)(?:, (?P<value>\d{{1,3}}))?(?:, (?:an? )?(?P<role>{_ROLES}"
    rf"(?: (?:in|em|en|at) [^\W\d_]+)?))?(?=\s*(?:$|[.,;)\n]))",
    re.IGNORECASE,
)
_THIRD = (
    ("residence", r"(?:mora|vive|wohnt|lebt)(?: agora| ahora| jetzt)? (?:em|no|na|en|in)"),
    ("employer", r"(?:trabalha|trabaja|arbeitet) (?:na|no|para a|para o|para|bei|beim|für)"),
    ("moved to", r"(?:mudou-se|se mudou|se mudó|se ha mudado) (?:para o|para a|para|a)"),
    ("age", r"(?:tem|tiene|faz|cumple) (?=\d{1,3} (?:anos|años))"),
)
_DOES = tuple(
    (
        attribute,
        re.compile(
            rf"{_BEGINS}(?:o |a )?(?P<name>[^\W\d_]{{2,}}) {verb} ?(?P<value>"
            + (r"\d{1,3})" if attribute == "age" else r"[^\W\d_]+(?: d[aeo]s? [^\W\d_]+)?)")
            + r"(?!\w)(?=\s*(?:$|[.,;)!\n]| (?:anos|años|com|con|mit|e|y|und|desde|seit|há)\b))",
            re.IGNORECASE,
        ),
    )
    for attribute, verb in _THIRD
)
"""What others do, in languages in which the verb tells who: of a first name that is known."""


class _Kind(NamedTuple):
    pattern: re.Pattern[str]
    draft: Callable[[re.Match[str]], tuple[str, str, str] | None]


def _dated(match: re.Match[str]) -> tuple[str, str, str] | None:
    what = " ".join(match["what"].lower().split())
    if not _NOT_WHAT.isdisjoint(what.split()) or not _POINTING.isdisjoint(what.split()):
        return None
    return f"date of {what}", "value" if match["value"] else "bare", ""


def _birthday(match: re.Match[str]) -> tuple[str, str, str] | None:
    whose = match["relation"].lower()
    return (f"{whose}: birthday", "value", "") if whose in RELATIONS else None


_SHARED = ("the ", "o ", "a ", "el ", "la ", "der ", "die ")


def _named(match: re.Match[str], *, known: bool = False) -> bool:
    """Tell whether a name stands here: a first name, or a capital that is no plain word."""
    name = match["name"]
    if name.split(" ")[0].lower() in first_names():
        return True
    return not known and name[0].isupper() and name.lower() not in _NOBODY


def _role(match: re.Match[str]) -> tuple[str, str, str] | None:
    role = match["role"].lower()
    if match["value"].lower().startswith(("my ", "mi ", "meu ", "minha ")) and role in RELATIONS:
        return None  # of me
    shared = match["value"].lower().startswith(_SHARED)
    group = "value" if shared else "role"  # "our intern": of whom, the claim cannot say
    return ("occupation", group, match["name"]) if _named(match) else None


def _of_me(match: re.Match[str]) -> tuple[str, str, str] | None:
    whose = match["relation"].lower()
    doubtful = whose in ("teacher", "coach", "therapist", "friend", "family", "baby", "child")
    good = whose in RELATIONS - SEVERAL - {"team"} and _named(match, known=doubtful)
    return (whose, "name", "") if good else None


def _mine_is(match: re.Match[str]) -> tuple[str, str, str] | None:
    whose = match["relation"].lower()
    if whose not in RELATIONS - SEVERAL - {"family", "team"}:
        return None
    called = "call" in match[0].lower() or "named" in match[0].lower()
    known = not (called or whose in PETS)  # "my brother is Republican"
    return (whose, "name", "") if _named(match, known=known) else None


def _role_is(match: re.Match[str]) -> tuple[str, str, str] | None:
    good = _named(match) and match["name"].lower() not in _NOT_PEOPLE
    group = "value" if match["value"] else "role"
    return ("occupation", group, match["name"]) if good else None


_NOT_PEOPLE = frozenset(
    "italian french german spanish portuguese english irish scottish american indian chinese "
    "japanese korean mexican brazilian dutch danish polish russian catholic christian jewish"
    " muslim "
    "vegan autistic gay catholic buddhist hindu turkish greek swedish norwegian canadian".split()
)


def _decision(match: re.Match[str]) -> tuple[str, str, str] | None:
    said = match["value"].lower().split()
    if said[0] in _UNDECIDED or len(said) > _WORDS_OF_A_DECISION or not _POINTING.isdisjoint(said):
        return None
    return "decision", "value", ""


def _never(match: re.Match[str]) -> tuple[str, str, str] | None:
    drunk = re.fullmatch(_DRINK, match["kind"].lower()) is not None
    return ("does not drink" if drunk else "does not eat"), "value", ""


def _down_to(match: re.Match[str]) -> tuple[str, str, str] | None:
    return ("smoke" if match["kind"].startswith("cig") else "drinks"), "value", ""


def _allergy(match: re.Match[str]) -> tuple[str, str, str] | None:
    first = match["value"].lower().split()[0]
    plain = first in _NOBODY | _POINTING | words("adverbs") | words("determiners")
    return None if plain else ("allergy", "value", "")


def _aged(match: re.Match[str]) -> tuple[str, str, str] | None:
    if match["mine"]:
        return "age", "mine", ""
    who = match["who"]
    return ("age", "value", who) if who.lower() in first_names() else None


def _their(group: str, attribute: str) -> Callable[[re.Match[str]], tuple[str, str, str] | None]:
    def draft(match: re.Match[str]) -> tuple[str, str, str] | None:
        known = bool(match[group]) and match["name"].lower() in first_names()
        return (attribute, group, match["name"]) if known else None

    return draft


_KINDS = (
    _Kind(_AGED, _aged),
    _Kind(_RELATED, _their("value", "age")),
    _Kind(_RELATED, _their("role", "occupation")),
    *(_Kind(pattern, _their("value", attribute)) for attribute, pattern in _DOES),
    _Kind(_DATED, _dated),
    _Kind(_BIRTHDAY, _birthday),
    _Kind(_ROLE_OF, _role),
    _Kind(_OF_ME, _of_me),
    _Kind(_MINE_IS, _mine_is),
    _Kind(_ROLE_IS, _role_is),
    _Kind(_LABELLED, _decision),
    _Kind(_NEVER, _never),
    _Kind(_DOWN_TO, _down_to),
    _Kind(_ALLERGY, _allergy),
)
_KIND_OF: Mapping[str, str] = {"decision": EVENT}


def read_notes(text: str, start: int, end: int) -> Iterator[Draft]:
    """Yield what a sentence (characters start to end) claims in a few words."""
    if end - start > LONGEST:
        return
    piece = text[start:end]
    if "?" in piece:
        return
    for pattern, draft_of in _KINDS:
        for match in pattern.finditer(piece):
            found = draft_of(match)
            if found is None or _IFS.search(piece, 0, match.end()) is not None:
                continue
            attribute, group, subject = found
            first, last = match.span(group)
            begin = match.start() + len(match[0]) - len(match[0].lstrip(" \n\t,;:(–—-"))
            yield Draft(
                attribute,
                start + first,
                start + first + len(piece[first:last].rstrip(" ,-–—")),
                start + begin,
                start + max(match.end(), last),
                _KIND_OF.get(attribute, STATE),
                subject or ME,
                certain=_HEDGE.search(piece) is None,
                outright=not subject,
            )


__all__ = ["LONGEST", "read_notes"]
