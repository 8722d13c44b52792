"""Which way a sentence looks: ahead, back, or on and on; by its verbs.

Promises: pure, linear in the length of the text; where no verb says it, nobody knows.
Refuses to know: dates.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cache

from knowme.whens.calendar import Span

_SENTENCE = re.compile(r"(?<!\d)[.!?]+\s|[;\n]")
_FUTURE = {
    "en": r"will|won't|\w+'ll|shall|going to|gonna|about to|plan(?:s|ned|ning)? (?:to|on|for)"
    r"|hop(?:e|ing) to|wants? to|decided to|looking forward|booked|scheduled|appointment|deadline"
    r"|due|need to|have to|(?:\w+'m|\w+'re|am|are|is) \w+ing",
    "pt": r"vou|vais|vai|vamos|vão|irei|pretendo|quero|queremos|marcad[oa]s?|marquei|preciso|será"
    r"|serão|viajo|faremos|[a-z]{2,20}(?:rei|remos)|tenho que|tenho de",
    "es": r"voy|vas|va|van|iré|será|quiero|queremos|pienso|tengo que|haré|viajo|reservado"
    r"|[a-z]{2,20}(?:aré|eré|iré|remos)",
    "de": r"werde|wirst|wird|werden|will|wollen|möchte|möchten|geplant|plane|planen|muss|müssen"
    r"|fliege|fahre|ziehe|fliegen|fahren|gebucht|termin|frist",
}
_PAST = {
    "en": r"was|were|did|didn't|had|went|got|took|came|saw|met|made|began|started|bought|left|ran"
    r"|wrote|felt|found|gave|became|told|said|spent|lost|won|taught|brought|held|led|read|quit"
    r"|sold|drove|flew|grew|knew|broke|chose|ate|drank|sang|swam|fell|built|sent|put|used to|woke"
    r"|wore|threw|spoke|stood|slept|shot|rode|rang|paid|meant|kept|heard|hit|hurt|forgot|fought"
    r"|caught|cut|drew|born"
    r"|(?!(?:need|feed|speed|indeed|hundred|bed|red|seed|weed|shed|exceed|excited|interested|tired"
    r"|wed)\b)[a-z]{2,20}ed",
    "pt": r"fui|foi|era|eram|fomos|foram|tive|teve|fiz|fez|estive|vim|veio|vi|deu|dei|pude|quis"
    r"|(?!(?:vou|sou|estou|dou|sei|meu|seu|teu|ateu|museu|europeu|até)\b)[a-zçãáéíóú]{2,20}"
    r"(?:[aeiouçc]?ei|ou|eu|iu|aram|eram|iram|ava|avam)|[a-zçãáéíóú]{2,20}(?:ei|ou|eu|iu|i)-\w{1,5}"
    r"|vendi|vivi|parti|saí|caí|perdi|decidi|recebi|escrevi|li|comi|bebi|corri|abri|dormi|senti"
    r"|[a-z]{2,20}(?:eci|idi|endi|ebi)",
    "es": r"fui|fue|fuimos|fueron|tuve|tuvo|hice|hizo|estuve|estuvo|vine|vino|dije|pude|puse|había"
    r"|era|eran|(?!(?:café|qué|bebé|sé|está|porqué|olé|té|até)\b)[a-zñáéíóú]{2,20}"
    r"(?:é|ó|aron|ieron|aba|aban)|[a-zñ]{2,20}(?:cí|lí|ví|dí|mí|bí)|nací|viví|vendimos|[a-zñ]{2,20}"
    r"(?:imos)",
    "de": r"war|waren|hatte|hatten|wurde|wurden|ging|kam|zog|fing|begann|starb|traf|bekam|lebte"
    r"|arbeitete|wohnte|(?!(?:gern|genug|gegen|geben|gehen|gelten|gestern|gesund|gesamt|gewinnen"
    r"|genau|getrennt|geplant|gebucht)\b)ge[a-zäöü]{2,20}(?:t|en)"
    r"|(?:um|an|aus|auf|ein|ab|zu|weg|kennen|zurück)ge[a-zäöü]{2,20}(?:t|en)|verkauft|begonnen"
    r"|beendet|verlassen|bekommen|besucht|erhalten|verloren|verbracht|umgezogen",
}
_LASTING = {
    "en": r"(?:have|has|'ve|'s|haven't|hasn't|\w+'ve|\w+'s) (?:\w+ )?(?:been|\w+ed|had|known|worn"
    r"|lived|kept|owned|run|led|taught|played)",
    "pt": r"moro|vivo|trabalho|estou|tenho|sou|uso|conheço|estudo|toco|jogo|namoro|faço|não|moramos"
    r"|vivemos|trabalha|mora|vive|está|tem|somos|estamos|temos|sofro|corro|danço|treino|aprendo",
    "es": r"vivo|trabajo|estoy|tengo|soy|conozco|llevo|toco|juego|estudio|hago|vengo|somos|estamos"
    r"|vivimos|tenemos|uso|vive|trabaja|está|tiene|corro|bailo|aprendo|sufro",
    "de": r"bin|wohne|lebe|arbeite|habe|spiele|lerne|sind|leben|wohnen",
}


_BIRTH = re.compile(
    r"\b(?:born|birthdays?|anniversary|nasci|nasceu|nascemos|aniversário|faço anos|fazemos anos"
    r"|nací|nació|cumpleaños|cumplo años|geboren|geburtstag|hochzeitstag|jahrestag)\b",
    re.IGNORECASE,
)


@cache
def _patterns(languages: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    def either(cues: dict[str, str]) -> str:
        return "|".join(cues[language] for language in sorted(languages))

    cue = rf"\b(?:(?P<future>{either(_FUTURE)})|(?P<past>{either(_PAST)}))\b"
    lasting = rf"\b(?:{either(_LASTING)})\b"
    return re.compile(cue, re.IGNORECASE), re.compile(lasting, re.IGNORECASE)


class Tenses:
    """Which way each sentence of a text looks: 1 ahead, -1 back, 0 nobody knows."""

    def __init__(self, text: str, languages: frozenset[str]) -> None:
        cue, lasting = _patterns(languages)
        self._cuts = [match.end() for match in _SENTENCE.finditer(text)]
        self._cues = [(match.start(), 1 if match["future"] else -1) for match in cue.finditer(text)]
        self._lasting = [match.start() for match in lasting.finditer(text)]

        self._births = [match.start() for match in _BIRTH.finditer(text)]

    def _sentence(self, at: int) -> Span:
        place = bisect_left(self._cuts, at + 1)
        first = self._cuts[place - 1] if place else 0
        return first, self._cuts[place] if place < len(self._cuts) else 1 << 60

    def at(self, place: int) -> int:
        """Return the tense of the verb that goes with a phrase: the nearest before, else after."""
        first, last = self._sentence(place)
        index = bisect_left(self._cues, (place, -2))
        if index and self._cues[index - 1][0] >= first:
            return self._cues[index - 1][1]
        if index < len(self._cues) and self._cues[index][0] < last:
            return self._cues[index][1]
        return 0

    def lasting(self, place: int) -> bool:
        """Tell whether the sentence says that something goes on."""
        return self._any(self._lasting, place)

    def birth(self, place: int) -> bool:
        """Tell whether the sentence is of a birthday: a day of every year."""
        return self._any(self._births, place)

    def _any(self, cues: list[int], place: int) -> bool:
        first, last = self._sentence(place)
        index = bisect_left(cues, first)
        return index < len(cues) and cues[index] < last
