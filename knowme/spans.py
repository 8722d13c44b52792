"""Whose words a stretch of text is: what the writer only quotes, pastes or shows.

Promises: pure; spans lie inside the text, in order, none over another; time linear in its length.
A name or a title in quotation marks is the writer's own; a sentence in them is not. In doubt a
stretch is foreign: what is lost is one fact, what is let in is a false one.
Refuses to know: what was said elsewhere (``fingerprints.py`` does, by the shingles made here).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise

from knowme.shown import FENCE_NEXT, SENTENCE_END, Span, shown
from knowme.words import NO_SPACES, WORD


def foreign(text: str) -> list[Span]:
    """Return (start, end, why) of what are not the writer's own words, in order.

    Code, block quotes, quoted and reported speech, pasted articles, mails, logs and chats, and what
    our own prompts fence.
    """
    return _merged(span for look in _LOOKS for span in look(text))


def _merged(found: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end, why in sorted(found):
        if merged and start < merged[-1][1]:
            first, last, reason = merged[-1]
            merged[-1] = (first, max(last, end), reason)
        elif start < end:
            merged.append((start, end, why))
    return merged


# --- fences -------------------------------------------------------------------------------------

_CODE = re.compile(r"^[ \t>]*(```+|~~~+).*$", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]{1,300})`(?!`)")
_OURS = re.compile(
    r"<(/?)(recalled|memory|memories|profile|summary|context|system|tool_result|tool_call|tool"
    r"|function_results?|document|documents|search_results?|web_page|page|file|files|assistant"
    r"|instructions?|quote|blockquote|untrusted)\b[^<>\n]{0,200}>",
    re.IGNORECASE,
)
_MARKER = re.compile(
    r"<\|(?:im_start|start_header_id|system|assistant|tool)\|?>?[^\n]{0,40}|<start_of_turn>model"
    r"|\[/?INST\]|^#{1,3} ?(?:System|Assistant|Instruction|Response|Tool output):?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)


def _code(text: str) -> Iterator[Span]:
    """Yield fenced code; one that is never closed goes on to the end."""
    opened: tuple[int, str] | None = None
    for match in _CODE.finditer(text):
        if opened is None:
            opened = (match.start(), match[1][0])
        elif match[1][0] == opened[1]:
            yield opened[0], match.end(), "code"
            opened = None
    if opened is not None:
        yield opened[0], len(text), "code"
    for match in _INLINE.finditer(text):
        if len(match[1].split()) > 3 or re.search(r"[=(){};]", match[1]):
            yield match.start(), match.end(), "code"


def _fenced(text: str) -> Iterator[Span]:
    """Yield what stands in a fence of ours or of a prompt; unclosed, it goes on to the end."""
    opened: dict[str, int] = {}
    for match in _OURS.finditer(text):
        name = match[2].lower()
        if not match[1]:
            opened.setdefault(name, match.start())
        elif name in opened:
            yield opened.pop(name), match.end(), "text from a prompt or a tool"
        else:
            yield match.start(), match.end(), "text from a prompt or a tool"
    for start in opened.values():
        yield start, len(text), "text from a prompt or a tool"
    marker = _MARKER.search(text)
    if marker:
        yield marker.start(), len(text), "text from a prompt or a tool"


# --- quoting ------------------------------------------------------------------------------------

_BLOCK = re.compile(r"^[ \t]{0,3}>[^\n]*", re.MULTILINE)
_PAIRS = (
    (re.compile(r"[“”„]([^“”„\n]{1,1200})[“”]"), 3),
    (re.compile(r"«([^«»\n]{1,1200})»|»([^«»\n]{1,1200})«"), 3),
    (re.compile(r"[「『]([^「」『』\n]{1,1200})[」』]"), 0),
    (re.compile(r"(?<!\w)‘([^‘\n]{1,600}?)’(?!\w)"), 3),
    (re.compile(r"(?<![\w'])'([^'\n]{1,20}[^\n]{0,580}?)'(?![\w'])"), 4),
)
"""Quotation marks, and how many words between them are still a name or a title."""
TITLE_WORDS = 9
_TITLED = re.compile(
    r"\b(?:called|titled|named|book|film|movie|song|novel|album|show|series|podcast|game|chamad[oa]"
    r"|livro|filme|música|libro|película|canción|llamad[oa]|buch|lied|roman|heißt|namens)\W{1,3}$",
    re.IGNORECASE,
)
_STRAIGHT = re.compile(r'(?<!\d)"')
_SAYS = (
    r"(?:sa(?:y|ys|id|ying)|tells?|told|asks?|asked|writes?|wrote|replie[sd]|answer(?:s|ed)"
    r"|claim(?:s|ed)|insist(?:s|ed)|shout(?:s|ed)|texted|mention(?:s|ed)|explain(?:s|ed)|quote[sd]?"
    r"|diz(?:em)?|disse(?:ram)?|dizia|fala|falou|falaram|contou|contaram|perguntou|respondeu"
    r"|escreveu|afirmou|comentou|dice[n]?|dijo|dijeron|decía|cuenta|contó|preguntó|respondió"
    r"|escribió|afirmó|comentó|sagt|sagte|sagten|meint|meinte|fragte|antwortete|schrieb|schreibt"
    r"|erzählte|erzählt|behauptet|behauptete)"
)
_SPEAKS_BEFORE = re.compile(rf"\b{_SAYS}\b[^.!?\n]{{0,40}}$", re.IGNORECASE)
_SPEAKS_BEHIND = re.compile(rf"^[,.!?]?\s*(?:\w+\s){{0,2}}{_SAYS}\b", re.IGNORECASE)


def _block_quotes(text: str) -> Iterator[Span]:
    for match in _BLOCK.finditer(text):
        yield match.start(), match.end(), "a block quote"


def _quotations(text: str) -> Iterator[Span]:
    for pattern, short in _PAIRS:
        for match in pattern.finditer(text):
            if _is_speech(text, match.start(), match.end(), short):
                yield match.start(), match.end(), "a quotation"
    at = 0
    for line in text.split("\n"):
        marks = [at + match.start() for match in _STRAIGHT.finditer(line)]
        for start, end in zip(marks[::2], marks[1::2], strict=False):
            if _is_speech(text, start, end + 1, 3):
                yield start, end + 1, "a quotation"
        if len(marks) % 2 and re.match(
            r"\S+ \S+ \S+ \S", text[marks[-1] + 1 : at + len(line)][:200]
        ):
            # A quotation of several lines: it ends with the next lone mark, or with its paragraph.
            yield marks[-1], at + len(line), "a quotation"
        at += len(line) + 1


def _is_speech(text: str, start: int, end: int, short: int) -> bool:
    inside = text[start + 1 : end - 1].split()
    before, behind = text[max(0, start - 60) : start], text[end : end + 60]
    if len(inside) > short:
        telling = [word for word in inside[1:] if len(word) > 3]
        capitals = sum(word[0].isupper() for word in telling)
        titled = bool(telling) and capitals * 3 >= len(telling) * 2
        titled = titled or bool(_TITLED.search(before))
        return not (titled and len(inside) <= TITLE_WORDS)
    return bool(_SPEAKS_BEFORE.search(before) or _SPEAKS_BEHIND.search(behind))


# --- reported speech ----------------------------------------------------------------------------

# Names keep their capital; all else is read in any case.
_NAME = r"(?!I['’])[A-ZÀ-Þ][\w'’-]{1,30}(?: [A-ZÀ-Þ][\w'’-]{1,30})?"
_WHO = (
    r"(?:(?i:you|he|she|they|it|someone|somebody|everyone|people|who|the (?:\w{1,20} )?\w{1,20}"
    rf"|(?:my|his|her|our|their|your) (?:\w{{1,20}} ){{0,2}}\w{{1,20}})|{_NAME})"
)
_WHO_ROMANCE = (
    r"(?:(?i:você|vocês|tu|ele|ela|eles|elas|alguém|usted|ustedes|él|ella|ellos|ellas|alguien"
    r"|(?:o|a|os|as|el|la|los|las|meu|minha|mi|un|una|um|uma|sua|seu|su|o meu|a minha) [\w-]{1,20}"
    rf"(?: [\w-]{{1,20}})?)|{_NAME})"
)
_WHO_GERMAN = (
    r"(?:(?i:du|er|sie|ihr|man|jemand|(?:der|die|das|mein|meine|sein|seine|ihr|ihre|unser|unsere"
    rf"|ein|eine) [\w-]{{1,20}}(?: [\w-]{{1,20}})?)|{_NAME})"
)
_TO = r"(?: (?:me|us|him|her|them|you|to me|myself))?"
_CLAUSE = (
    r"(?=[,:]| (?:that|if|whether|how|why|i|i'm|i’m|i've|i'd|i'll|you|you're|he|he's|she|she's|they"
    r"|they're|it|it's|we|we're|the|my|our|his|her|there|this|we've|everyone|nobody|[\"“])(?!\w))"
)
_REPORTED = (
    # you said: ..., she told me that ..., I was told that ..., according to X, ...
    re.compile(
        rf"\b{_WHO}(?<! and)(?<! or) "
        r"(?i:(?:(?:once|also|just|always|have|has|had|then|keeps?) ){0,2}(?:says?|said|saying"
        r"|tells?|told|claim(?:s|ed)?|insist(?:s|ed)?|thinks|thought|believes|believed"
        rf"|wrote|writes|texted|replied|answered|mentioned|reckons|suggested|asked){_TO}{_CLAUSE})"
    ),
    re.compile(r"\bI(?: was|'ve been| have been| am|'m) (?:told|informed|asked)\b", re.IGNORECASE),
    re.compile(
        r"\b(?:according to|quote:|quoting|de acordo com|segundo (?:o|a|os|as)\b|según|laut|gemäß"
        r"|citando|zitat:)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b{_WHO_ROMANCE} (?i:(?:já |me |te |nos |lhe |também |sempre |le |les |ya )?(?:diz|disse"
        r"|disseste|disseram|dizem|dizia|falou|contou|acha|achava|respondeu|escreveu|afirmou"
        r"|dice|dicen|dijo|dijiste|dijeron|decía|contó|cree|piensa|respondió|escribió|afirmó)"
        r"(?:-me|-te|-nos|-lhe)?(?= (?:que|me que)\b|:))"
    ),
    re.compile(
        r"\b(?:me (?:dijeron|dijiste|disseram)|disseram-me|disseste(?:-me)?|dijiste)(?= que\b|:)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b{_WHO_GERMAN} (?i:(?:hat |hast |haben )?(?:mir |uns |ihm |ihr |auch |immer |ja )?"
        r"(?:sagt|sagte|sagten|sagst|gesagt|meint|meinte|erzählt|erzählte|behauptet|behauptete"
        r"|schrieb|schreibt|geschrieben|glaubt|denkt)(?: mir| uns)?(?=[,:]))"
    ),
)
_ATTRIBUTED = re.compile(
    rf"[,\"”»]\s*(?:(?:he|she|they|you|it|[A-ZÀ-Þ]\w+) {_SAYS}|{_SAYS} (?:he|she|they|[A-ZÀ-Þ]\w+"
    r"|ele|ela|él|ella|er|sie))\b"
)
_SENTENCE_CHARS = 600


def _reported(text: str) -> Iterator[Span]:
    for pattern in _REPORTED:
        for match in pattern.finditer(text):
            yield match.start(), _end(text, match.end()), "what somebody else said"
    for match in _ATTRIBUTED.finditer(text):
        before = text[max(0, match.start() - _SENTENCE_CHARS) : match.start()]
        cuts = [cut.end() for cut in SENTENCE_END.finditer(before) if cut.end() < len(before)]
        start = match.start() - len(before) + (cuts[-1] if cuts else 0)
        yield start, match.end(), "what somebody else said"


def _end(text: str, at: int) -> int:
    """Return where the sentence ends that goes on at ``at``: within _SENTENCE_CHARS."""
    match = SENTENCE_END.search(text, at, at + _SENTENCE_CHARS)
    return match.end() if match else min(len(text), at + _SENTENCE_CHARS)


# --- pastes -------------------------------------------------------------------------------------

_THIS = (
    r" (?:this|these|the following|the (?:text|sentence|article|email|message|paragraph|code)"
    r"|my (?:text|essay|e-?mail|cv|resume|cover letter|bio|paragraph|sentence|message|letter|code)"
    r"|(?:in)?to \w{1,20}|it (?:in)?to \w{1,20})\b[^.?!\n:]{0,60}:"
)
_PASTED = re.compile(
    r"(?:\b(?:here(?:'s| is| are)|this is|below is|the following(?: is)?|see|read|check)"
    r" (?:\w{1,20} ){0,4}(?:article|text|email|e-mail|mail|letter|message|post|transcript|story"
    r"|passage|paragraph|code|logs?|output|essay|excerpt|quote|document|report|conversation|chat"
    r"|notes|script|prompt|review|tweet|thread|bio|page)\b[^.\n:]{0,60}:"
    r"|\b(?:translate|proofread|rewrite|rephrase|paraphrase|summari[sz]e|correct|edit|fix|improve"
    rf"|analy[sz]e|explain|grade|review|polish|shorten|continue){_THIS}"
    r"|\b(?:translate|summari[sz]e|proofread|rephrase|paraphrase):"
    r"|\b(?:write|draft|compose|generate) (?:me )?(?:an?|the|this|my)\b[^.?!\n:]{0,80}:"
    r"|\b(?:traduz|traduza|traduzir|traduce|traduzca|corrige|corrija|resume|resuma|reescreve"
    r"|reescreva|reescribe|revê|revisa|analisa|analise|analiza|melhora|mejora)\b[^.?!\n:]{0,60}:"
    r"|\b(?:aqui est[áã]o?|eis|segue|aquí (?:está|tienes|va)|este es)\b[^.\n:]{0,60}"
    r"(?:artigo|texto|e-?mail|carta|mensagem|artículo|correo|mensaje|código|notícia|noticia)"
    r"[^.\n:]{0,40}:"
    r"|\b(?:übersetze?|korrigiere?|fasse?|überarbeite?|verbessere?|schreibe?)\b[^.?!\n:]{0,60}:"
    r"|\b(?:hier ist|folgender|folgende|folgendes)\b[^.\n:]{0,60}(?:artikel|text|e-?mail|brief"
    r"|nachricht|code)[^.\n:]{0,40}:"
    r"|^(?:text|article|email|input|context|passage|source|transcript|texto|artigo|artículo|artikel)"
    r":)",
    re.IGNORECASE | re.MULTILINE,
)
_MAIL = re.compile(
    r"^(?:-{2,} ?(?:Original Message|Forwarded message|Mensagem original|Mensaje original"
    r"|Ursprüngliche Nachricht|Weitergeleitete Nachricht)|On .{4,120} wrote:|Em .{4,120} escreveu:"
    r"|El .{4,120} escribió:|Am .{4,120} schrieb .{1,80}:|Begin forwarded message:)",
    re.IGNORECASE | re.MULTILINE,
)
_MAIL_HEAD = re.compile(
    r"^(?:From|To|Cc|Date|Sent|Subject|Reply-To|De|Para|Assunto|Asunto|Von|An|Betreff|Gesendet)"
    r": [^\n]{1,200}\n",
    re.MULTILINE,
)
_ROLE = re.compile(
    r"^[ \t]*(?:#{1,4} ?)?(?:\*\*)?(?:user|assistant|human|ai|bot|system|chatgpt|gpt|claude|gemini"
    r"|copilot|tool|model|interviewer|usuário|usuario|assistente|asistente|nutzer|assistent)"
    r"(?:\*\*)?[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_CHAT = re.compile(
    r"^[ \t]*(?:\[?\d{1,4}[./:-]\d{1,2}[^\n\]]{0,24}\]?[ ,–-]{1,3})([^\n:]{1,40}): ", re.MULTILINE
)
_NAMED_LINE = re.compile(
    r"^[ \t]{0,8}([A-ZÀ-Þ][\w'’-]{1,20}(?: [A-ZÀ-Þ]\w{1,20})?): \S", re.MULTILINE
)
_HTML = re.compile(
    r"</?(?:a|b|i|p|br|div|span|li|ul|ol|td|tr|table|h[1-6]|html|body|head|script|style|img|meta"
    r"|link|title|article|section)\b[^<>\n]{0,400}>",
    re.IGNORECASE,
)
_MACHINE_LINE = re.compile(
    r"^(?:Traceback \(most recent|\s*at [\w.$<>]{1,100}\(|\s*File \"|\s*[{}\[\]],?\s*$"
    r"|\s*\"[\w-]{1,60}\":|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d"
    r"|\[?(?:INFO|DEBUG|WARN|WARNING|ERROR|FATAL)\b|\$ \w|>>> |\s*\|.*\|\s*$"
    r"|\s*(?:def|class|import|from|const|let|var|function|return|public|private|SELECT|INSERT"
    r"|CREATE|UPDATE)\s[^\n]{0,200}[({;:=*]\s*$|#include|[+-]{3} |@@ )",
)
_URL = re.compile(r"\b(?:https?://|www\.)\S{1,300}")
_LONG_LINE = 400


def _pasted(text: str) -> Iterator[Span]:
    """Yield what follows "translate this:" or a mail's head, to the end of the text."""
    for match in _PASTED.finditer(text):
        if FENCE_NEXT.match(text, match.end()):
            continue  # code ends where its fence does
        rest = text[match.end() :].strip()
        if len(rest) > 20 or "\n" in rest:
            yield match.end(), len(text), "a text that is shown, not said"
            break
    mail = _MAIL.search(text)
    if mail:
        yield mail.start(), len(text), "a mail"
    heads = [match.span() for match in _MAIL_HEAD.finditer(text)]
    for (start, end), (then, _) in pairwise(heads):
        if end == then:
            yield start, len(text), "a mail"
            break


def _chats(text: str) -> Iterator[Span]:
    """Yield the lines of a chat that was copied: by roles, by times, by two names in turn."""
    roles = [match.start() for match in _ROLE.finditer(text)]
    if roles:
        yield roles[0], len(text), "a conversation that was copied"
    for pattern in (_CHAT, _NAMED_LINE):
        lines = [(match.start(), match[1]) for match in pattern.finditer(text)]
        often = Counter(name for _, name in lines)
        if sum(count > 1 for count in often.values()) > (pattern is _NAMED_LINE):
            yield lines[0][0], _line_end(text, lines[-1][0]), "a conversation that was copied"


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _machine(text: str) -> Iterator[Span]:
    """Yield what programs write: markup, logs, traces, tables, long lines with addresses."""
    tags = [match.span() for match in _HTML.finditer(text)]
    if len(tags) > 2:
        yield tags[0][0], tags[-1][1], "a web page"
    at = 0
    for line in text.split("\n"):
        if _MACHINE_LINE.match(line):
            yield at, at + len(line), "the output of a program"
        elif len(line) > _LONG_LINE and _URL.search(line):
            yield at, at + len(line), "a long line with an address"
        at += len(line) + 1


def _set_up(text: str) -> Iterator[Span]:
    """Yield what is shown, played or written in another's place (``shown.py``)."""
    plain = text
    for start, end, _ in _code(text):
        plain = plain[:start] + re.sub(r"[^\n]", " ", plain[start:end]) + plain[end:]
    return shown(text, plain)


_LOOKS: tuple[Callable[[str], Iterator[Span]], ...] = (
    _code, _fenced, _block_quotes, _quotations, _reported, _pasted, _chats, _machine, _set_up,
)  # fmt: skip


# --- shingles -----------------------------------------------------------------------------------

SHINGLE_WORDS = 7
WINDOW = 2
"""Any run of SHINGLE_WORDS + WINDOW - 1 = 8 words that two texts share gives both one shingle."""


def shingles(text: str) -> list[tuple[int, int, int]]:
    """Return (hash, start, end) of the winnowed word n-grams of a text, in order.

    The hash is a signed 64-bit integer of SHINGLE_WORDS words without regard to case and marks;
    start and end are characters. Of every WINDOW neighbours the smallest is kept (Schleimer,
    Wilkerson, Aiken: Winnowing, SIGMOD 2003), so that any shared run of 8 words is noticed. Signs
    of scripts without spaces count as a word each.
    """
    words = list(_words(text))
    grams = [
        (_hash(word for word, _, _ in words[at : at + SHINGLE_WORDS]), at)
        for at in range(len(words) - SHINGLE_WORDS + 1)
    ]
    kept: list[int] = []
    for at in range(max(0, len(grams) - WINDOW + 1)):
        # The rightmost of equals, as in the paper: fewer shingles, the same promise.
        best = min(range(at, at + WINDOW), key=lambda place: (grams[place][0], -place))
        if not kept or kept[-1] != best:
            kept.append(best)
    if len(grams) == 1:
        kept = [0]
    return [(grams[at][0], words[at][1], words[at + SHINGLE_WORDS - 1][2]) for at in kept]


def _words(text: str) -> Iterator[tuple[str, int, int]]:
    for match in WORD.finditer(text):
        word = match[0].replace("’", "'").casefold()
        if NO_SPACES.search(word) and len(word) == len(match[0]):
            for at, sign in enumerate(word):
                yield sign, match.start() + at, match.start() + at + 1
        else:
            yield word, match.start(), match.end()


def _hash(words: Iterator[str]) -> int:
    digest = blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


__all__ = ["SHINGLE_WORDS", "WINDOW", "Span", "foreign", "shingles"]
