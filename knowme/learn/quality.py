"""What an example is about, whether it says anything, and which mix is trained.

Promises: labels from the house's own words, no model; a platitude is what is dropped and nothing
else: an answer made of what is said to everybody (``data/platitudes.jsonl``, our own words in four
languages), however long; balancing never leaves an example out that is the only one of its kind.
Refuses to know: near-duplicates, secrets, sides.

The background is generic advice, not a language: a rare word is as rare to any developer. Counted
is the share of an answer's content words that generic advice does not hold, half where the question
has them; what no platitude has (numbers, names, code, quotations) counts as such words. Words are
compared by their first letters, which does for four languages what a stemmer does for one
(McNamee, Mayfield, *Character n-gram tokenization for European language text retrieval*, 2004).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import exp
from typing import TYPE_CHECKING, Any

from knowme import questions
from knowme.claims.languages import language_of
from knowme.db import rows
from knowme.learn import pairs as pairs_module
from knowme.types import ChatMessage, Pair
from knowme.words import content_words

if TYPE_CHECKING:
    from knowme.home import Home

Nll = Callable[[Sequence[ChatMessage], str], Sequence[float]]
"""What a base model thinks of an answer to these messages: nats of each of its tokens."""

LABELS = (
    "code", "preference", "decision", "personal", "routine", "memory", "small-talk", "technical",
    "knowledge",
)  # fmt: skip
_DECIDES = re.compile(
    r"\b(?:i|we)(?:'ve|'ll|\s+have|\s+will)?\s+(?:\w+ly\s+|just\s+)?(?:decided?|chose|chosen|picked"
    r"|settled|went\s+with|go(?:ing)?\s+with|opted|rejected|declined|refused?)\b"
    r"|\b(?:decidi|decidimos|escolhi|escolhemos|optei|recusei|vou\s+ficar\s+com)\b"
    r"|\b(?:decid[ií]|eleg[ií]|elegimos|opt[eé]|rechac[eé]|me\s+quedo\s+con)\b"
    r"|\b(?:ich\s+habe|wir\s+haben|habe\s+ich)\b.{0,60}\b(?:entschieden|gewählt|abgelehnt)\b"
    r"|\bich\s+nehme\b",
    re.IGNORECASE,
)
_TECHNICAL = re.compile(
    r"\b(?:servers?|deploy\w*|databases?|\w*sql\w*|postgres|redis|api|docker|kubernetes|linux|git|python|rust|javascript"
    r"|typescript|backend|frontend|config\w*|latency|caches?|queue|schema|migrations?|log(?:s|ging)"
    r"|cpu|gpu|ram|network|dns|http\w*|algorithm\w*|compil\w+|benchmarks?|regex|yaml|json|debug\w*"
    r"|servidor\w*|base\s+de\s+datos|base\s+de\s+dados|datenbank\w*|netzwerk\w*|rede)\b",
    re.IGNORECASE,
)


def labels(pair: Pair) -> tuple[str, ...]:
    """Return what an example is about, by words alone: some of LABELS, in their order.

    Weak: made to count what a set holds and to draw a sample of all of it, not to judge a pair.
    """
    said, answer = pair.question, pair.answer
    own = answer if pair.purpose == "sound-like-me" else said
    either = f"{said}\n{answer}"
    small = questions.is_small_talk(own)
    code = questions.is_code(said) or questions.is_code(answer)
    technical = code or _TECHNICAL.search(either) is not None
    personal = questions.about_the_person(own) and not small
    true = {
        "code": code,
        "preference": questions.tells_preference(own),
        "decision": pair.kind == "decision" or _DECIDES.search(own) is not None,
        "personal": personal,
        "routine": questions.speaks_of_routine(own),
        "memory": questions.speaks_of_memory(said) and questions.asks(said),
        "small-talk": small,
        "technical": technical,
        "knowledge": not (personal or small or technical) and questions.asks(said),
    }
    return tuple(name for name in LABELS if true[name])


# --- platitudes ---------------------------------------------------------------------------------

PLATITUDE = 0.5
"""An answer with less than this share of words of its own is a platitude ..."""
LEAST_GENERIC = 4
"""... where so many of its words are those of generic advice: "No." is none."""
_LETTERS = 6
_SIGNS = re.compile(
    r"\d+|`[^`\n]+`|[\"“«„][^\"”»“\n]{2,60}[\"”»“]|\b\w+[_/]\w+|\b\w+\.\w{2,4}\b"
    r"|(?<=[a-z,;] )[A-ZÀ-Þ]\w+"
)
"""Numbers, code, quotations, files, and names within a sentence: no platitude has them."""
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FILTERED = frozenset(("exchange", "teacher", "paraphrase"))
"""Kinds that may hold a platitude of somebody else's; the others are the person's own words."""
LIKED = 4


@dataclass(frozen=True, slots=True)
class Background:
    """What is said to everybody: how many of the generic texts hold a word, and the texts."""

    words: Mapping[str, int]
    texts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> Background:
        """Return the background of these (language, text)."""
        every = tuple(texts)
        return cls(Counter(word for _, text in every for word in _words(text)), every)


@cache
def background() -> Background:
    """Return the background that the house ships (``data/platitudes.jsonl``)."""
    lines = (files("knowme") / "data" / "platitudes.jsonl").read_text("utf-8").splitlines()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
    return Background.of((each["language"], each["text"]) for each in told)


def _words(text: str) -> set[str]:
    return {word[:_LETTERS] for word in content_words(text) if len(word) > 1}


def specificity(
    pairs: Sequence[Pair], generic: Background | None = None, nll: Nll | None = None
) -> list[float]:
    """Return for each pair how much of its answer is its own, in [0, 1]; 0: anybody's.

    With ``nll`` (the base model's) an answer that reads like a platitude is asked about: what the
    model expects more than it expects generic advice under the same question is anybody's indeed,
    what it expects less is this person's. The two scores are averaged; words that are plainly
    somebody's own are not asked about, for a model must not make a platitude of them.
    """
    generic = generic or background()
    scores = []
    for pair in pairs:
        score = _own_share(pair, generic)
        if nll is not None and score < PLATITUDE:
            score = (score + _unexpected(pair, generic, nll)) / 2
        scores.append(score)
    return scores


def _own_share(pair: Pair, generic: Background) -> float:
    answer = _THOUGHT.sub("", pair.answer)
    said, known = _words(answer), _words(pair.question)
    common = {word for word in said if word in generic.words}
    if len(common) < LEAST_GENERIC:
        return 1.0
    signs = _SIGNS.findall(answer)
    if language_of(answer, 0, len(answer)) == "de":  # every noun has a capital there
        signs = [sign for sign in signs if not sign[:1].isupper()]
    rest = said - common
    own = len(rest - known) + len(rest & known) / 2 + len(signs)
    return own / (own + len(common))


def _unexpected(pair: Pair, generic: Background, nll: Nll) -> float:
    """Return how surprising an answer is beside generic advice of its language, in [0, 1]."""
    answer = _THOUGHT.sub("", pair.answer)
    language = pair.language or language_of(answer, 0, len(answer))
    wanted = _words(answer)
    texts = [text for name, text in generic.texts if name == language] or ["It depends."]
    nearest = max(texts, key=lambda text: len(_words(text) & wanted))
    ours, theirs = (_mean(nll(pair.messages[:-1], text)) for text in (answer, nearest))
    return 1 / (1 + exp(theirs - ours))


def _mean(nats: Sequence[float]) -> float:
    return sum(nats) / len(nats) if nats else 0.0


def specific(
    pairs: Iterable[Pair], generic: Background | None = None, nll: Nll | None = None
) -> tuple[list[Pair], list[Pair]]:
    """Return (kept, dropped): platitudes are dropped, and nothing else.

    The person's own words are never dropped, nor is an answer that they liked (rated LIKED or
    better): somebody may want to be told to drink water.
    """
    every = list(pairs)
    kept: list[Pair] = []
    dropped: list[Pair] = []
    for pair, score in zip(every, specificity(every, generic, nll), strict=True):
        asked = pair.kind in _FILTERED and pair.purpose == "assistant-for-me"
        liked = pair.rating is not None and pair.rating >= LIKED
        (dropped if asked and not liked and score < PLATITUDE else kept).append(pair)
    return kept, dropped


# --- balance ------------------------------------------------------------------------------------

SLACK = 0.1
"""How far a language's share may lie over the person's own."""
LEFT = 0.5
"""The least share of a language's examples that is kept, whatever the balance."""


def languages(home: Home) -> dict[str, float]:
    """Return the share of each language in what the person said themself, by messages."""
    counts: Counter[str] = Counter()
    with home.db.read() as conn:
        for (text,) in rows(
            conn,
            "SELECT substr(plain(m.text), 1, 1000) FROM messages m"
            " JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.role = 'user' AND m.retired_ms IS NULL AND m.recall = 1"
            " AND c.kind != 'subagent' ORDER BY m.id",
        ):
            if text and text.strip():
                counts[language_of(text, 0, len(text))] += 1
    total = sum(counts.values())
    return {name: many / total for name, many in counts.most_common()}


def balance(
    pairs: Iterable[Pair],
    *,
    reasoning_share: float | None = None,
    languages: Mapping[str, float] | None = None,
) -> tuple[list[Pair], Counter[str]]:
    """Return the pairs in a better mix, in their order, and what was dropped, counted by reason.

    ``languages``: the shares that are wanted (``languages(home)``); of a language that lies more
    than SLACK over its share the worst rated and oldest examples go, but never more than half.
    ``reasoning_share``: of the decisions that are labelled think or plain, the wanted share of
    think. Where there is too much reasoning it is cut from answers; the answer stays, and goes only
    where it stands already. Where there is too little, plain twins of reasoned answers go. So the
    target is reached as far as there are twins; the card tells what it came to.
    """
    kept = list(pairs)
    dropped: Counter[str] = Counter()
    if languages:
        kept = _languages_balanced(kept, languages, dropped)
    if reasoning_share is not None:
        kept = _reasoning_balanced(kept, reasoning_share, dropped)
    return kept, dropped


def _language(pair: Pair) -> str:
    return pair.language or language_of(pair.answer, 0, len(pair.answer))


def _worth(pair: Pair) -> tuple[int, int, str]:
    return 3 if pair.rating is None else pair.rating, pair.at_ms or 0, pair.uid


def _languages_balanced(
    pairs: list[Pair], wanted: Mapping[str, float], dropped: Counter[str]
) -> list[Pair]:
    by_language: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_language.setdefault(_language(pair), []).append(pair)
    gone: set[str] = set()
    left = {name: len(part) for name, part in by_language.items()}
    over = sorted(left, key=lambda name: wanted.get(name, 0.0) - left[name] / len(pairs))
    for name in over:
        most = wanted.get(name, 0.0) + SLACK
        others = sum(many for other, many in left.items() if other != name)
        if not others or most >= len(by_language[name]) / len(pairs):
            continue
        least = max(int(others * most / (1 - most)), -(-len(by_language[name]) // int(1 / LEFT)))
        if left[name] > least:
            worst = sorted(by_language[name], key=_worth)[: left[name] - least]
            gone |= {pair.uid for pair in worst}
            dropped[f"too much {name}"] += len(worst)
            left[name] = least
    return [pair for pair in pairs if pair.uid not in gone]


def _twin(pair: Pair) -> tuple[tuple[str, ...], str]:
    prompt = tuple(message.content for message in pair.messages[:-1])
    return prompt, _THOUGHT.sub("", pair.answer).strip()


def _reasoning_balanced(pairs: list[Pair], wanted: float, dropped: Counter[str]) -> list[Pair]:
    think = [pair for pair in pairs if "think" in pair.labels]
    plain = [pair for pair in pairs if "plain" in pair.labels]
    changed: dict[str, Pair | None] = {}
    twins = {_twin(pair) for pair in plain}
    for pair in sorted(think, key=_worth):
        many = len(think) - len(changed)
        now = len(plain) + sum(each is not None for each in changed.values())
        if many <= wanted * (many + now):
            break
        has_twin = _twin(pair) in twins
        changed[pair.uid] = None if has_twin else _unreasoned(pair)
        dropped["reasoning, of two twins" if has_twin else "reasoning, cut from its answer"] += 1
    if not changed:
        reasoned = {_twin(pair) for pair in think}
        many = len(plain)
        for pair in sorted((p for p in plain if _twin(p) in reasoned), key=_worth):
            if len(think) >= wanted * (len(think) + many):
                break
            changed[pair.uid] = None
            many -= 1
            dropped["plain, of two twins"] += 1
    mixed = (changed.get(pair.uid, pair) for pair in pairs)
    return [pair for pair in mixed if pair is not None]


def _unreasoned(pair: Pair) -> Pair:
    said = [*pair.messages[:-1], ChatMessage("assistant", _twin(pair)[1])]
    labelled = tuple("plain" if label == "think" else label for label in pair.labels)
    return replace(pairs_module.with_messages(pair, said), labels=labelled)
