"""What kind of utterance a text is, by its words alone: a question, a greeting, a habit, code.

Promises: pure, for several languages, accents or none; of a long text the beginning is looked at
(EARLY, READS); a word inside another word is never taken for it.
Refuses to know: what was recalled, which model answers, how sure anyone is of it.
"""

from __future__ import annotations

import re
from unicodedata import combining, normalize

from knowme.words import sentences, words

READS = 4_000
"""Characters of a text that are looked at for code."""
EARLY = 1_000
"""Characters that are looked at for all else: what a message is shows early."""

# --- what is asked ------------------------------------------------------------------------------

REQUEST = re.compile(
    r"\b(?:tell|give|show|help|let|remind|teach|write|send|ask|explain to)\s+(?:me|us)\b"
    r"|\b(?:diz|conta|dá|mostra|lembra|explica)-me\b|\b(?:sag|erzähl|zeig|gib)e?\s+mir\b"
    r"|\b(?:dime|dame|muéstrame|recuérdame)\b",
    re.IGNORECASE,
)
ASKING = frozenset(
    "what when where who whom whose which why how is are was were do does did can could will would"
    " should have has had am list find search name explain describe summarise summarize compare"
    " o que qual quais quem quando onde como porque quanto quantos qué cuál quién cuándo dónde cómo"
    " was wann wo wer wie warum welche welcher welches".split()
)
COMMANDS = frozenset(
    "explain describe summarise summarize compare translate define calculate compute solve prove"
    " list explica descreve compara traduz calcula resolve explícame describe traduce erkläre"
    " beschreibe vergleiche übersetze berechne explique décris compare traduis calcule".split()
)
FIRST_PERSON = frozenset(
    "i i'm i've i'd i'll me my mine myself we our ours us eu meu minha meus minhas mim comigo nosso"
    " nossa ich mir mich mein meine meinen meiner unser wir yo mi mis mío mía conmigo nosotros je"
    " moi mon ma mes notre nous".split()
)


def about_the_person(question: str) -> bool:
    """Tell whether a question speaks of the person who asks ("tell me" alone does not)."""
    return not FIRST_PERSON.isdisjoint(words(REQUEST.sub(" ", question)))


def asks(text: str) -> bool:
    """Tell whether a message wants an answer: a question, or a request."""
    first = next(iter(words(text)), "")
    return "?" in text or "？" in text or first in ASKING or REQUEST.search(text) is not None


def is_question(text: str) -> bool:
    """Tell whether a message only asks: such a message is kept, and not recalled later.

    "Explain knots." only asks, too; where it speaks of the person, or says more, it tells as well.
    """
    pieces = [piece.strip() for piece in sentences(text) if piece.strip()]
    first = next(iter(words(text)), "")
    if len(pieces) == 1 and first in COMMANDS and ":" not in text and not about_the_person(text):
        return True
    return bool(pieces) and all(piece.rstrip("\"'”)").endswith(("?", "？")) for piece in pieces)


# --- greetings and small talk -------------------------------------------------------------------


def _plain(text: str) -> str:
    """Return text in small letters without accents: "Olá" -> "ola", so that both are understood."""
    return "".join(c for c in normalize("NFKD", text.casefold()) if not combining(c))


def _phrases(listed: str) -> frozenset[str]:
    every = (" ".join(words(_plain(phrase))) for line in listed.split("\n")
             for phrase in line.split(","))  # fmt: skip
    return frozenset(phrase for phrase in every if phrase)


GREETINGS = _phrases(
    # English, Portuguese, Spanish, German, French, Italian, Dutch, then others
    """hi, hello, hey, hiya, howdy, yo, greetings, good morning, good afternoon, good evening
    good day, good night, morning, evening, welcome back, bye, goodbye, good bye, see you, cheers
    see you later, see you tomorrow, take care
    olá, oi, oie, bom dia, boa tarde, boa noite, bons dias, boas, viva, tchau, adeus, até logo
    até amanhã, até já, até breve, alô
    hola, buenos días, buenas, buenas tardes, buenas noches, buen día, adiós, hasta luego
    hasta mañana, hasta pronto, chao
    hallo, guten morgen, guten tag, guten abend, gute nacht, moin, moin moin, servus, grüß gott
    grüß dich, grüezi, tschüss, tschüs, auf wiedersehen, bis bald, bis morgen, bis später, na
    bonjour, bonsoir, salut, coucou, bonne nuit, bonne journée, bonne soirée, au revoir, à bientôt
    à demain, allô
    ciao, buongiorno, buon giorno, buonasera, buona sera, buonanotte, buona notte, salve
    buon pomeriggio, buona giornata, arrivederci, a presto, a domani
    hoi, hé, goedemorgen, goedemiddag, goedenavond, goedendag, goeiemorgen, goeiemiddag, goeienavond
    goede morgen, goede middag, goede avond, dag, welterusten, doei, tot ziens, tot morgen, tot snel
    hej, hei, god morgon, god morgen, god kväll, cześć, dzień dobry, dobry wieczór, ahoj, dobrý den
    merhaba, günaydın, selam, szia, bună, bună ziua, привет, здравствуйте, доброе утро, добрый день
    добрый вечер, привіт, γεια, γεια σου, καλημέρα, שלום, مرحبا, السلام عليكم, नमस्ते, 你好, 您好
    早上好, 晚上好, 早, こんにちは, おはよう, おはようございます, こんばんは, 안녕, 안녕하세요"""
)
SMALL_TALK = _phrases(
    """good, how are you, how are you doing, how are things, how is it going, how's it going
    how do you do
    how have you been, how's your day, how is your day, how was your day, how's everything
    what's up
    whats up, wassup, sup, are you there, you there, who are you, what are you, what is your name
    what's your name, how old are you, nice to meet you, thanks, thank you, thx, many thanks
    thanks a lot, thank you very much, thank you so much, you're welcome, no problem, never mind
    nevermind, farewell, see ya, talk later, until next time, have a good day, goodnight
    have a nice day, i appreciate it, you are the best, how's life, how's it hanging, ok, okay
    great, cool, nice, perfect, awesome, wonderful, lovely, sure, yes, no, yep
    nope, got it, i see, sounds good, well done, good job, lol, haha, wow, sorry, please
    tell me a joke, i'm fine, i am fine, i'm good, i'm well, i'm bored, i am bored, i'm back
    i'm home, i love you, i missed you, did you sleep well, sleep well, sweet dreams
    happy birthday, merry christmas, happy new year, and you, what about you, today
    tudo bem, tudo bom, como estás, como está, como vai, como vais, como você está, que tal
    obrigado, obrigada, muito obrigado, muito obrigada, de nada, quem és tu, quem é você
    como te chamas, desculpa, está bem, e tu, e você, sim, não
    qué tal, cómo estás, cómo está, cómo te va, qué pasa, gracias, muchas gracias, quién eres
    cómo te llamas, perdón, vale, y tú, sí
    wie geht's, wie geht es dir, wie geht es ihnen, wie gehts, wie geht's dir, alles klar, alles gut
    was geht, danke, danke schön, vielen dank, bitte, wer bist du, wie heißt du, gut, und dir, ja
    nein, entschuldigung
    ça va, comment ça va, comment vas-tu, comment allez-vous, comment tu vas, quoi de neuf, merci
    merci beaucoup, de rien, qui es-tu, comment tu t'appelles, d'accord, pardon, et toi, oui, non
    come stai, come sta, come va, tutto bene, che si dice, grazie, grazie mille, prego, chi sei
    come ti chiami, scusa, va bene, e tu
    hoe gaat het, hoe gaat het met je, hoe is het, alles goed, bedankt, dank je, dank je wel
    dankjewel
    graag gedaan, wie ben je, hoe heet je, prima, en met jou, nee
    спасибо, как дела, 谢谢, 你好吗, ありがとう, 고마워, 감사합니다"""
)
_TO_WHOM = _phrases(
    """there, all, everyone, everybody, again, my, dear, friend, friends, mate, buddy, dude, guys
    pal
    you, knowme, assistant, bot, ai, world, sir, madam, team, folks, man, so, then, too, very, much
    for, your, help, the, that, this, was, is, really, oh, ah, and, well, to, from, me, now, for now
    meu, minha, amigo, amiga, a todos, para, ti, mi, a, mein, freund, meine, freundin, zusammen
    dir, an, alle, mon, ma, ami, amie, à, tous, toi, tutti, mio, amico, mia, te, mijn, vriend
    allemaal, daar, jou, o, e, y, und, et, en"""
)
_LONGEST_PHRASE = 5
_PARTING = re.compile(
    r"^(?:thanks?\b|thank you|many thanks|i appreciate|obrigad[oa]|(?:muchas )?gracias|danke|merci"
    r"|grazie|bedankt)[^?]*$"
    r"|^[^?]*\b(?:good ?bye|bye|see (?:you|ya)(?: later| around)?|farewell|tchau|tsch[uü]ss)\W*$",
    re.IGNORECASE,
)
_PARTING_CHARS = 60


def _rest(text: str, known: tuple[frozenset[str], ...]) -> tuple[int, list[str]]:
    """Return how many of a text's phrases are known, and the words of it that are not."""
    left: list[str] = []
    every, at, found = words(_plain(text[:EARLY])), 0, 0
    while at < len(every):
        for size in range(_LONGEST_PHRASE, 0, -1):
            phrase = " ".join(every[at : at + size])
            if any(phrase in listed for listed in known):
                found, at = found + 1, at + size
                break
        else:
            if every[at] not in _TO_WHOM:
                left.append(every[at])
            at += 1
    return found, left


def is_greeting(text: str) -> bool:
    """Tell whether a text greets and does nothing else ("Olá, tudo bem?", "Good morning, Ana!").

    One word that is nobody's may be left: it is taken for a name, unless it asks.
    """
    if len(text) > 120 or not any(greeted(text)):
        return False
    _, left = _rest(text, (GREETINGS, SMALL_TALK))
    return len(left) <= 1 and ASKING.isdisjoint(left) and not any(map(str.isdigit, text))


def greeted(text: str) -> tuple[str, ...]:
    """Return the greeting that a text begins with, in its words; () where there is none."""
    first = words(_plain(text[:80]))[:_LONGEST_PHRASE]
    for size in range(len(first), 0, -1):
        if " ".join(first[:size]) in GREETINGS:
            return tuple(first[:size])
    return ()


def is_small_talk(text: str) -> bool:
    """Tell whether a text only greets, thanks, agrees or asks how one is."""
    if len(text) > 160:
        return False
    found, left = _rest(text, (GREETINGS, SMALL_TALK))
    parting = len(text) <= _PARTING_CHARS and _PARTING.match(text.strip()) is not None
    return parting or bool(found) and not left or is_greeting(text)


# --- what is personal ---------------------------------------------------------------------------

_VERY = r"(?:(?:really|do|also|still|just|always|usually|never|absolutely|much|would)\s+)?"
PREFERENCE = re.compile(
    rf"\bi\s+{_VERY}(?:prefer|like|love|enjoy|hate|dislike|loathe|adore|can't\s+stand)\b"
    r"|\bi\s+(?:don't|do\s+not|can't|cannot|never|no\s+longer)\s+"
    r"(?:like|love|enjoy|eat|drink|want|use|wear|watch|care)\b"
    r"|\bi(?:'m|\s+am)\s+(?:allergic|vegan|vegetarian|a\s+fan|into|fond|used\s+to)\b"
    r"|\b(?:call|address)\s+me\b|\bmy\s+(?:\w+\s+){0,2}(?:favou?rites?|preferences?|preferred)\b"
    r"|\bmy\s+name\s+is\b|\bfrom\s+now\s+on\b"
    r"|\b(?:prefiro|gosto\s+(?:de|d[ao]s?|mais)|adoro|odeio|detesto|chama-me|me\s+chama)\b"
    r"|\b(?:o\s+meu|a\s+minha|meu|minha|mi|mis)\s+(?:\w+\s+){0,2}(?:favorit|preferid)[oa]s?\b"
    r"|\b(?:prefiero|me\s+(?:gustan?|encantan?)|odio|ll[aá]mame|soy\s+al[eé]rgic[oa])\b"
    r"|\bich\s+(?:mag|bevorzuge|liebe|hasse|esse\s+kein\w*|trinke\s+kein\w*)\b|\bnenn\s+mich\b"
    r"|\b(?:mein|meine|meinen|meiner|mijn)\s+lieb(?:lings|stes?|ste)\w*|\blievelings\w+"
    r"|\bj['’](?:aime|adore)\b|\bje\s+(?:pr[eé]f[eè]re|d[eé]teste|n['’]aime)\b|\bappelle-moi\b"
    r"|\b(?:mon|ma|mes)\s+(?:\w+\s+){0,2}(?:pr[eé]f[eé]r[eé]|favori)\w*"
    r"|\b(?:preferisco|mi\s+(?:piace|piacciono)|chiamami)\b"
    r"|\b(?:il\s+mio|la\s+mia)\s+(?:\w+\s+){0,2}preferit[oa]\b"
    r"|\bik\s+(?:hou\s+van|haat|vind\s+\w+\s+(?:lekker|leuk|mooi)|heb\s+liever)\b|\bnoem\s+me\b"
    r"|\bmijn\s+favoriete?\b",
    re.IGNORECASE,
)
_DAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_EACH_EN = rf"every\s+(?:single\s+)?(?:day|morning|evening|night|week|weekend|month|year|{_DAY})"
EACH = re.compile(
    rf"\b{_EACH_EN}s?\b|\b(?:daily|weekly|on\s+{_DAY}s|before\s+bed|after\s+work)\b"
    r"|\btod[oa]s\s+[oa]s\s+(?:dias?|manhãs?|noites?|semanas?)\b|\bcada\s+(?:dia|d[ií]a|manhã|noite"
    r"|ma[nñ]ana|noche|semana)\b|\btodos\s+los\s+d[ií]as\b|\btodas\s+las\s+(?:ma[nñ]anas|noches)\b"
    r"|\bjede[nsrm]?\s+(?:tag|morgen|abend|nacht|woche|montag|dienstag|mittwoch|donnerstag|freitag"
    r"|samstag|sonntag)\b|\b(?:tous\s+les|toutes\s+les)\s+(?:jours|matins|soirs|nuits|semaines)\b"
    r"|\bchaque\s+(?:jour|matin|soir|semaine)\b|\bogni\s+(?:giorno|mattina|sera|notte|settimana)\b"
    r"|\belke\s+(?:dag|ochtend|avond|nacht|week|maandag)\b",
    re.IGNORECASE,
)
ROUTINE = re.compile(
    r"\bremind\s+me\b|\bwake\s+me\b|\bset\s+(?:an?|my|the)\s+(?:alarm|timer|reminder)\b"
    r"|\b(?:my|our)\s+(?:\w+\s+){0,1}(?:routine|schedule|calendar|agenda|appointments?|alarms?"
    r"|reminders?|to-?do(?:\s+list)?|shopping\s+list|grocery\s+list|diary|meetings?|habits?|week)\b"
    r"|\b(?:note|write\s+down|make\s+a\s+note)\s+that\b|\b(?:add|put)\s+\S.{0,60}\bto\s+my\b"
    r"|\b(?:lembra-me|me\s+lembr[ae]|avisa-me|minha\s+(?:agenda|rotina|lista))\b"
    r"|\b(?:recu[eé]rdame|av[ií]same|desp[ií]ertame|mi\s+(?:agenda|rutina|lista))\b"
    r"|\berinner[ent]*\s+mich\b|\bweck\w*\s+mich\b|\bmein(?:e|en)?\s+(?:kalender|termine?|wecker)\b"
    r"|\brappelle[sz]?-moi\b|\br[eé]veille-moi\b|\bmon\s+(?:agenda|emploi\s+du\s+temps)\b"
    r"|\bricordami\b|\bsvegliami\b|\bla\s+mia\s+(?:agenda|routine)\b"
    r"|\bherinner\s+me\b|\bmijn\s+(?:agenda|afspraken|afspraak)\b",
    re.IGNORECASE,
)
_SAID = (
    r"(?:said|told|mentioned|asked|wrote|decided|agreed|discussed|planned|talked|chose|promised"
    r"|recommended|suggested)"
)
MEMORY = re.compile(
    r"\b(?:do|can|did|will)\s+you\s+(?:still\s+)?(?:remember|recall)\b|\bremember\b"
    r"|\bi\s+(?:forgot|forget|can't\s+recall)\b|\bremind\s+me\s+(?:of|what|who|when|where|how"
    r"|which)\b"
    r"|\b(?:did|have|had|was|were|am)\s+(?:i|we)\b|\bwhat\s+do\s+(?:i|you\s+know\s+about\s+me)\b"
    rf"|\b(?:i|we|you)(?:'ve|'d|\s+have|\s+had)?\s+(?:\w+ly\s+|already\s+)?{_SAID}\b"
    r"|\b(?:last|the\s+other)\s+(?:time|week|month|year|day|night|summer|winter|spring|autumn|fall"
    rf"|{_DAY})\b.{{0,60}}\b(?:i|we|my|our)\b|\b(?:i|we|my|our)\b.{{0,60}}\blast\s+time\b"
    r"|\b(?:our|my)\s+(?:\w+\s+)?(?:conversations?|chats?|discussions?|messages|notes|decision)\b"
    r"|\b(?:lembras-te|te\s+lembras|recordas|se\s+lembra|eu\s+disse|(?:que|o\s+que)\s+decid\w+"
    r"|decidimos|combin[aá]mos|fal[aá]mos|a\s+[uú]ltima\s+vez|da\s+[uú]ltima\s+vez)\b"
    r"|\b(?:te\s+acuerdas|recuerdas|acu[eé]rdate|te\s+dije|dije|hablamos|quedamos"
    r"|la\s+[uú]ltima\s+vez)\b"
    r"|\b(?:erinnerst|weißt\s+du\s+noch|habe?\s+ich|haben\s+wir|letztes\s+mal)\b"
    r"|\b(?:te\s+souviens|tu\s+te\s+rappelles|souviens-toi|ai-je|avons-nous|j['’]ai\s+dit"
    r"|on\s+a\s+d[eé]cid[eé]|la\s+derni[eè]re\s+fois)\b"
    r"|\b(?:ti\s+ricordi|ricordi|ho\s+detto|abbiamo\s+(?:deciso|detto|parlato)"
    r"|l['’]ultima\s+volta)\b"
    r"|\b(?:weet\s+je\s+nog|herinner\s+je|heb\s+ik|hebben\s+we|vorige\s+keer)\b",
    re.IGNORECASE,
)
FOLLOW_ON = re.compile(
    r"^\W*(?:and|but|so|also|then|or|why|really|what\s+about|how\s+about|go\s+on|continue|more"
    r"|again|shorter|longer|simpler|the\s+(?:first|second|third|last|other)\s+one|e|mas|ent[aã]o"
    r"|porqu[eê]|continua|y|pero|entonces|por\s+qu[eé]|und|aber|warum|also|weiter|et|mais|alors"
    r"|pourquoi|ma|perch[eé]|allora|en|maar|waarom|dus)\b"
    r"|\b(?:it|that|this|those|these|them|they|he|she|him|her|above|previous|isto|isso|esto|eso"
    r"|das|ça|cela|questo|quello|dat|dit)\b",
    re.IGNORECASE,
)
FOLLOW_ON_CHARS = 80


def tells_preference(text: str) -> bool:
    """Tell whether a text says what the person likes, or how they want to be spoken to."""
    return PREFERENCE.search(text[:EARLY]) is not None


def speaks_of_routine(text: str) -> bool:
    """Tell whether a text is about what the person does again and again, or is to be reminded of.

    "Every day" alone is not: it must be somebody's.
    """
    seen = text[:EARLY]
    return ROUTINE.search(seen) is not None or (
        EACH.search(seen) is not None and about_the_person(seen)
    )


def speaks_of_memory(text: str) -> bool:
    """Tell whether a text asks for, or leans on, what was said or done before."""
    return MEMORY.search(text[:EARLY]) is not None


def follows_on(text: str) -> bool:
    """Tell whether a text means little without what was said just before it ("and why?")."""
    return len(text) <= FOLLOW_ON_CHARS and FOLLOW_ON.search(text) is not None


# --- code ---------------------------------------------------------------------------------------

# Patterns are many and messages are mostly prose, so each waits for a sign that it cannot do
# without: looking for a sign is a hundred times cheaper than looking for a pattern.
# Case counts here: "Let x = 5" begins a sentence of mathematics, "let x = 5" is JavaScript.
_SYNTAX: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (sign, re.compile(pattern, re.MULTILINE))
    for sign, pattern in (
        ("```", r"```"),
        ("~~~", r"^~~~"),
        ("Traceback", r"Traceback \(most recent call last\)"),
        ("File ", r"^[ \t]*File \"[^\"\n]+\", line \d+"),
        ("at ", r"^[ \t]+at \S+\(\S*:\d+\)"),
        ("Error", r"Error:\s|\berror\[E\d"),
        ("error[", r"\berror\[E\d+\]"),
        ("Exception", r"Exception:\s|\bNullPointerException\b|\bException in thread\b"),
        ("fault", r"[Ss]egmentation fault"),
        ("undefined ", r"\bundefined reference to\b|\bundefined is not\b"),
        ("panicked", r"\bpanicked at\b"),
        ("core dumped", r"core dumped"),
        ("def ", r"\bdef \w+\s?\("),
        ("class ", r"^[ \t]*class [A-Z]\w*[ \t]*[(:{]"),
        ("@", r"^[ \t]*@\w[\w.]*(?:\(.*\))?[ \t]*\n[ \t]*"
              r"(?:def|class|async|public|private|protected)\b"),
        ("function", r"\bfunction\s*\w*\s*\([^)\n]*\)\s*\{"),
        ("=>", r"\)\s*=>\s*[\w{(\[]|\b\w+\s*=>\s*[{(]"),
        ("=", r"\b(?:const|let|var)\s+(?:mut\s+)?[\w$]+(?:\s*:\s*[\w<>\[\]]+)?\s*=[^=]"),
        ("=", r"=(?:==|(?<=!==)|(?<=\+=)) ?[\w!(]"),
        ("&&", r"[\w)] ?&& ?[\w!(]"),
        ("||", r"[\w)] \|\| [\w!(]"),
        ("#", r"#include\s*[<\"]|^[ \t]*#(?:define|ifdef|ifndef|pragma)\b|^#!/"),
        ("import", r"^[ \t]*from [\w.]+ import [\w*(]|^[ \t]*import [\w.]+(?: as \w+|;|\n)"
                   r"|\bimport .{1,60} from ['\"]"),
        ("public ", r"\bpublic (?:(?:static|final|async|abstract) )*"
                    r"(?:class [A-Z]|interface [A-Z]|void\b|int\b|String\b|\w+ \w+\()"),
        ("private ", r"\b(?:private|protected) (?:(?:static|final|async) )*"
                     r"(?:class [A-Z]|void\b|int\b|String\b|\w+ \w+\()"),
        ("fn ", r"\bfn \w+\s*[(<]"),
        ("func ", r"\bfunc (?:\w+\s*\(|\(\w+ \*?\w+\))"),
        ("{", r"\bstruct \w+\s*\{|\bimpl\b.{0,40}\{|^[ \t]*[{\[]\s{0,20}\"[^\"\n]+\"\s*[:,]"),
        ("[", r"^[ \t]*\[\s{0,20}\"[^\"\n]+\"\s*,"),
        ("}", r"^[ \t]*\}\s*(?:else|catch|finally)\b"),
        ("(", r"\b(?:println!?|printf?|require|malloc|len|sizeof)\((?!\w*\))[\w'\"*&%\[]"
              r"|\b(?:print|len)\(\w+\)"),
        (".", r"\b(?:console\.log|System\.out)\b"),
        ("(", r"\.(?<=[A-Za-z_\d]\.)[a-z]\w+\([^)\n]{0,80}\)"),
        ("_", r"_(?<=[a-z]{2}_)[a-z]\w+\([^)\n]{0,80}\)"),
        ("::", r"::(?<=\w::)\w"),
        (");", r"\(\S{0,60}\);|\w\([^()\n]{0,60}\);"),
        ("SELECT", r"\bSELECT\b.{1,200}\bFROM\b"),
        ("elect * from", r"elect \* from"),
        ("INSERT INTO", r"INSERT INTO"),
        ("UPDATE ", r"\bUPDATE \w+ SET\b"),
        (" TABLE", r"\b(?:CREATE|ALTER|DROP) TABLE\b"),
        ("GROUP BY", r"GROUP BY"),
        (" JOIN", r"\b(?:INNER|LEFT|OUTER) JOIN\b"),
        ("</", r"</(?:div|span|html|body|head|p|a|ul|li|table|script|style|button|form|h[1-6])>"),
        ("<!DOCTYPE", r"<!DOCTYPE"),
        ("<?", r"<\?(?:php|xml)"),
        (">>> ", r"^[ \t]*>>> \w"),
        ("$ ", r"^[ \t]*\$ \w"),
        ("diff --git", r"^diff --git"),
        ("@@ -", r"^@@ -\d"),
        ("__name__", r"\bif __name__\b"),
    )
)  # fmt: skip
_AWAY = re.compile(r"\b(?:https?://|www\.)\S+|(?<!\S)\S+@\S+")
"""Addresses: the ends of their names are no file extensions."""

_FILE = re.compile(
    r"\.(?<=[\w-]{2}\.)(?:py|pyi|ipynb|js|jsx|mjs|ts|tsx|java|kt|c|h|cc|cpp|hpp|cxx|cs|go|rs|rb|php"
    r"|swift|scala|sh|bash|zsh|ps1|bat|sql|html|css|scss|sass|json|jsonl|ya?ml|toml|ini|xml|lua|hs"
    r"|vue|svelte|gradle|cmake|proto|tf|dll|jar|whl)(?![\w-])"
)
_TOOLS = frozenset(
    "git pip pip3 npm pnpm yarn cargo brew conda gem apt apt-get dnf docker docker-compose kubectl"
    " systemctl sudo chmod chown ssh scp curl wget grep find ls rm tar ps python python3 node go"
    " export dockerfile makefile cmakelists".split()
)
_SHELL = re.compile(
    r"\b(?:git (?:add|commit|push|pull|clone|rebase|checkout|merge|stash|diff|log|status|reset"
    r"|branch|bisect|cherry-pick)|(?:pip3?|npm|pnpm|yarn|cargo|brew|conda|gem|apt|apt-get|dnf)"
    r" (?:install|run|build|test|add|update|upgrade|remove)|docker(?:-compose| compose)?"
    r" (?:run|build|ps|exec|up|down|pull|logs)|kubectl \w+|systemctl \w+|sudo [a-z]\w+"
    r"|chmod [+\d][\w+]*|chown \w+|ssh \w+@|scp \S+|curl (?:-|http)|wget (?:-|http)|grep -\w"
    r"|find \S+ -\w|ls -\w|rm -\w|tar -?[xc]\w+|ps aux|python3? (?:-m\b|-c\b|\S+\.py)"
    r"|node \S+\.js|go (?:run|build|test) \S|export [A-Z_]+=|Dockerfile|Makefile|CMakeLists)"
)
_LANGUAGES = frozenset(
    "python javascript typescript java golang kotlin rust php ruby haskell scala perl bash"
    " powershell sql sqlite postgres postgresql mysql html css django fastapi numpy pandas pytorch"
    " node nodejs json yaml regex matlab lua elixir swiftui webpack dockerfile".split()
)
_SIGNED = re.compile(r"(?<!\w)[Cc](?:\+\+|#)(?![\w+#])")
"""The two languages whose names are no words."""

_THING = re.compile(
    r"\b(?:functions?|scripts?|programs?|programm(?:e|ing)|code|class(?:es)?|methods?|loops?"
    r"|quer(?:y|ies)|librar(?:y|ies)|modules?|compil\w+|algorithms?|snippets?|decorators?"
    r"|unit tests?|variables?|arrays?|dict(?:ionary|ionaries)?|lists?|strings?|exceptions?|errors?"
    r"|bugs?|parser|api|async|threads?|pointers?|recursion|refactor\w*|debug\w*|syntax|schema"
    r"|tables?|joins?|funç\w+|funci\w+|funktion\w*|fonctions?|funzion\w+|functie|programa|skript"
    r"|código|codice)\b",
    re.IGNORECASE,
)
_NEAR_CHARS = 60
_CRAFT = frozenset(
    "debug refactor code function regex sql unit bug bugs algorithm program typescript javascript"
    " golang stack stacktrace trace expression expressions source pull merge segfault pointer"
    " off-by-one off notation binary".split()
)
_PROGRAMMING = re.compile(
    r"\b(?:debug|refactor)\s+(?:this|my|the|our|it)\b"
    r"|\b(?:fix|review|optimi[sz]e|rewrite|write|implement|explain|comment)\s+(?:me\s+)?"
    r"(?:an?|the|this|my|some|each\s+\w+\s+of\s+this)\s+(?:\w+\s+)?"
    r"(?:code(?!\s+of)|function|regex|sql|unit\s+tests?|bug|algorithm)\b"
    r"|\b(?:write|develop|implement)\s+(?:an?\s+)?program\b|\bin\s+(?:typescript|javascript|golang)\b"
    r"|\b(?:stack\s?trace|regular\s+expression|source\s+code|pull\s+request|merge\s+conflict"
    r"|segfault|null\s+pointer|off-by-one|big-?o\s+notation|binary\s+search\s+tree)s?\b",
    re.IGNORECASE,
)
_STOP = re.compile(r"[.!?\n]\s")


def is_code(text: str) -> bool:
    """Tell whether a text holds program code, or is about writing some.

    Signs: a fenced block, a stack trace, keywords with their syntax, a file of code, a command of
    a shell, a language's name beside what is made of it. A keyword alone ("let me know", "for
    sure", "class at nine") is none.
    """
    seen = text[:READS]
    if any(sign in seen and pattern.search(seen) for sign, pattern in _SYNTAX):
        return True
    used = set(words(seen))
    if not _CRAFT.isdisjoint(used) and _PROGRAMMING.search(seen):
        return True
    if _names_language(seen, used):
        return True
    if "@" in seen or "://" in seen or "www." in seen:
        seen = _AWAY.sub(" ", seen)
    if not _TOOLS.isdisjoint(used) and _SHELL.search(seen):
        return True
    return _FILE.search(seen) is not None


def _names_language(text: str, used: set[str]) -> bool:
    """Tell whether a language's name stands near something that is made of it, in one sentence."""
    names = [re.escape(name) for name in _LANGUAGES & used]
    places = list(_SIGNED.finditer(text)) if "c++" in text or "C" in text or "c#" in text else []
    if names:
        places += re.finditer(rf"\b(?:{'|'.join(sorted(names))})\b", text, re.IGNORECASE)
    for place in places:
        before = _STOP.split(text[max(0, place.start() - _NEAR_CHARS) : place.start()])[-1]
        after = _STOP.split(text[place.end() : place.end() + _NEAR_CHARS])[0]
        if _THING.search(before) or _THING.search(after):
            return True
    return False
