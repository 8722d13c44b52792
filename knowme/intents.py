"""PERSONAL or COMPLEX: may a small model with the person's memory answer, or is more wanted?

PERSONAL: greetings, preferences, routines, and what the person's own memory answers. COMPLEX:
everything that wants knowledge or reasoning. A logistic model on the words of a message and, where
there is one, its vector; its weights ship in ``data/intents.npz``. They were fitted on CLINC150
(Larson et al. 2019, "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction",
CC BY 3.0; which intents are personal: ``bench/intents.json``), on prompts of the RouteLLM labels
(Apache-2.0) and on sentences of our own in five languages. ``bench/fit_priors.py`` makes them.

Promises: total and deterministic; no model is called; far under 5 ms beyond the embedding;
"high" confidence only where the calibrated probability is at least HIGH.
Refuses to know: what is recalled (it is told how strongly), who answers (``route.py``).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from knowme.gain import FEATURES, READS, features
from knowme.words import WORD

Floats = NDArray[Any]
Category = Literal["PERSONAL", "COMPLEX"]

HIGH = 0.8
RECALL = 1.2
"""Log-odds that recall of the greatest strength adds to PERSONAL: enough to turn a message that
leaned to COMPLEX by three to one, too little to turn a clear one."""
SURE = 0.99
"""No message is more certain than this: the labels themselves are not."""

_GREETING = frozenset(
    "hi hello hey heya hiya howdy greetings morning evening afternoon goodbye bye goodnight cheers"
    " welcome yo sup olá oi bom boa dia tarde noite tchau adeus hola buenos buenas días tardes"
    " noches adiós hallo guten tag abend morgen servus moin tschüss grüezi bonjour bonsoir salut"
    " coucou revoir ciao buongiorno buonasera hej hei namaste salaam shalom merhaba aloha privet"
    " привет здравствуйте 你好 こんにちは مرحبا नमस्ते".split()
)
_THANKS = frozenset(
    "thanks thank thx ty please sorry ok okay yes no sure great nice cool obrigado obrigada valeu"
    " gracias perdón danke bitte entschuldigung merci pardon désolé sim sí ja nein oui non"
    " grazie".split()
)
_FIRST = frozenset(
    "i i'm i've i'd i'll im ive my mine me myself we our ours us eu meu minha meus minhas mim"
    " comigo nosso nossa ich mir mich mein meine meinen meiner meinem unser yo mi mis mío mía"
    " conmigo nosotros je j'ai moi mon ma mes notre nos nous".split()
)
_SECOND = frozenset(
    "you your you're yours tu teu tua te ti você tú du dir dich dein deine vous votre toi ton"
    " ta".split()
)
_MEMORY = frozenset(
    "remember remind told mentioned said last ago yesterday previous previously earlier"
    " conversation discussed talked ever since before again did was were had lembra disse"
    " ontem última último passado falámos recuérdame recuerda dije ayer pasada hablamos erinnere"
    " erzählt gestern zuletzt letzte gesprochen rappelle dit hier dernière dernier parlé".split()
)
_TASTE = frozenset(
    "prefer prefers like likes love loves hate hates enjoy favourite favorite favourites favorites"
    " recommend recommends suggest suggestion suggestions recommendation recommendations taste"
    " allergic prefiro gosto adoro odeio recomendas recomenda sugere preferido preferida prefiero"
    " gusta gustan odio recomiendas favorito favorita lieber mag liebe hasse empfiehlst empfehle"
    " lieblings préfère aime adore déteste recommandes préféré préférée".split()
)
_DAILY = frozenset(
    "today tonight tomorrow usually always every daily routine list lists todo calendar agenda"
    " alarm reminder meeting appointment schedule birthday week weekend monday tuesday wednesday"
    " thursday friday saturday sunday breakfast lunch dinner sleep gym walk home family friend"
    " friends mother father mum mom dad sister brother son daughter wife husband hoje amanhã"
    " costumo lista hoy mañana suelo heute morgens meistens liste aujourd'hui demain d'habitude"
    " irmã irmão mãe pai hermana hermano madre padre schwester bruder mutter vater sœur frère mère"
    " père".split()
)
_KNOWLEDGE = frozenset(
    "explain why define definition prove derive compare contrast analyse analyze summarise"
    " summarize translate calculate compute solve evaluate estimate write draft rewrite generate"
    " design implement debug code function program algorithm difference between meaning mean means"
    " cause causes theory formula equation example examples essay poem article which following"
    " according statement therefore history capital convert spell describe discuss outline argument"
    " arguments python sql javascript explica explique porque porquê compara escreve escreva"
    " resolve resume traduz diferença significa efeitos qué cuál cuáles quién escribe resuelve"
    " traduce diferencia efectos significado erkläre warum vergleiche schreibe löse fasse übersetze"
    " unterschied nebenwirkungen bedeutet wer expliquez pourquoi écris résous résume traduis"
    " différence effets signifie".split()
)
_OWN = re.compile(
    r"\b(?:did|have|had|do|am|was|were|will|would|should|could|can|when|what|where|who|that|which)"
    r" (?:i|we|my)\b|\b(?:my|our) (?:\w+ ){0,2}(?:is|was|are|were|has|had)\b"
    r"|\b(?:i|we)(?:'ve|'d|'m)? (?:\w+ed|went|had|was|were|bought|told|got|made|took|saw|said"
    r"|gave)\b"
    r"|\b(?:habe|hatte|bin|war|soll|kann|stehe|mag|trinke) ich\b|\bich (?:habe|hatte|bin|war|mag)\b"
    r"|\b(?:ai|suis|avais|dois) je\b|\bj'ai\b|\bje (?:me|suis|n'aime|préfère)\b"
    r"|\b(?:fui|comi|li|gastei|disse|deixei|decidi|costumo|prefiro|tenho|gasté|dije|dejé|decidí|he"
    r" \w+[io]do|suelo|tengo)\b"
)
"""The person asks of, or tells, what they themselves did, have or are."""
_TOLD = re.compile(
    r"\b(?:you|we)(?:'ve| have| had)? (?:\w+ly )?(?:recommended|recommend|suggested|suggest"
    r"|mentioned|mention|told|tell me|gave|said|provided|listed|shared|discussed|talked|spoke"
    r"|were)\b"
    r"|\b(?:our|the|my) (?:last|previous|earlier|past) (?:chat|chats|conversation|conversations"
    r"|discussion|talk|message)\b|\bremind me\b|\blembra me\b|\brecuérdame\b|\berinnere mich\b"
    r"|\brappelle moi\b|\bfalámos\b|\bhablamos\b|\bhast du\b|\bgesprochen\b|\bas tu\b"
)
"""Something that was said between the two of them before."""
_ADVICE = re.compile(
    r"\b(?:recommend|suggest|suggestions?|recommendations?|ideas?|advice|tips?|options?)\b.{0,60}"
    r"\b(?:me|my|i|i'm|us|our)\b"
    r"|\b(?:what|which|where|who)\b.{0,40}\b(?:should|could|can|would) i\b"
    r"|\b(?:i'm|i am|i'd|i need|i want)\b.{0,120}\b(?:recommend|suggest|suggestions?"
    r"|recommendations?|ideas|advice|tips|options)\b"
    r"|\b(?:recomendas|recomiendas|empfiehlst|recommandes)\b"
)
"""Advice that ought to fit the person."""
NEAR = 300
"""Words of a message that are looked at for what it asks."""
FAR = 250
"""Characters from which on a message is long."""
_LISTS = (_GREETING, _THANKS, _FIRST, _SECOND, _MEMORY, _TASTE, _DAILY, _KNOWLEDGE)
_LOOKS = ("question", "numbers", "formula", "code", "options")
_PLACES = tuple(FEATURES.index(name) for name in _LOOKS)
SIGNS = (
    "greeting", "thanks", "first", "second", "memory", "taste", "daily", "knowledge",
    "begins_greeting", "begins_knowledge", "share_first", "own", "told", "advice", "long", *_LOOKS,
)  # fmt: skip
_SAID = {
    "greeting": "a greeting", "thanks": "a courtesy", "first": "speaks of the person",
    "second": "speaks to the assistant", "memory": "asks what was", "taste": "a preference",
    "daily": "a routine", "knowledge": "wants knowledge", "begins_greeting": "a greeting",
    "begins_knowledge": "wants knowledge", "share_first": "speaks of the person",
    "own": "asks about the person", "told": "speaks of what was said before",
    "advice": "wants advice that fits the person", "long": "its length",
    "question": "a question", "numbers": "numbers", "formula": "mathematics", "code": "code",
    "options": "answers to choose from",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Intent:
    """What a message is: ``probability`` in [0.5, 1] is that of its ``category``, calibrated.

    ``confidence`` is "high" from HIGH on. ``reason`` is a few words for people.
    """

    category: Category
    probability: float
    confidence: Literal["high", "low"]
    reason: str


def signs(text: str) -> Floats:
    """Return (len(SIGNS),) float64: what the words of a message say, in several languages."""
    words = [word.lower().replace("’", "'") for word in WORD.findall(text[:READS])]
    held = [len(kinds.intersection(words)) for kinds in _LISTS]
    looks = features(text)
    first = words[0] if words else ""
    own = sum(word in _FIRST for word in words)
    plain = " ".join(words[:NEAR])
    return np.array(
        [
            *(min(count, 2) for count in held),
            first in _GREETING,
            first in _KNOWLEDGE,
            own / max(4, len(words)),
            bool(_OWN.search(plain)),
            bool(_TOLD.search(plain)),
            bool(_ADVICE.search(plain)),
            max(0.0, math.log(max(1, len(text)) / FAR)),
            *(looks[place] for place in _PLACES),
        ],
        np.float64,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Log-odds of PERSONAL: bias + words . (signs - middle)/spread + vector . (v - centre)."""

    middle: Floats
    spread: Floats
    words: Floats
    bias: float
    centre: Floats
    vector: Floats

    def parts(self, seen: Floats, vector: Floats | None) -> tuple[float, Floats]:
        """Return (log-odds, what each sign adds to them) of one message."""
        each = self.words * np.clip((seen - self.middle) / self.spread, -3.0, 3.0)
        odds = self.bias + float(each.sum())
        if vector is not None:
            odds += float((vector - self.centre) @ self.vector)
        return odds, each


def classify(
    text: str,
    vector: Floats | None = None,
    *,
    relevance: float = 0.0,
    threshold: float = 0.0,
    known: bool = False,
) -> Intent:
    """Tell PERSONAL from COMPLEX.

    ``vector`` (384,) of the packaged MiniLM, or None; one of another embedder is not used.
    ``relevance`` is the best recall's, ``threshold`` what it must reach, ``known`` whether it did.
    """
    both, alone = _models()
    seen = signs(text)
    usable = vector is not None and vector.shape == both.centre.shape and bool(np.any(vector))
    odds, each = (both if usable else alone).parts(seen, vector if usable else None)
    recalled = RECALL * _strength(relevance, threshold) if known else 0.0
    odds += recalled
    personal = min(SURE, max(1 - SURE, 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, odds))))))
    category: Category = "PERSONAL" if personal >= 0.5 else "COMPLEX"
    probability = max(personal, 1.0 - personal)
    return Intent(
        category,
        probability,
        "high" if probability >= HIGH else "low",
        _reason(category, seen, each, recalled),
    )


def _strength(relevance: float, threshold: float) -> float:
    """Return in [0, 1] how far recall lies over its threshold: 1 where it is twice that."""
    if not (math.isfinite(relevance) and math.isfinite(threshold)):
        return 0.0
    return max(0.0, min(1.0, (relevance - threshold) / max(abs(threshold), 1e-3)))


def _reason(category: Category, seen: Floats, each: Floats, recalled: float) -> str:
    side = 1.0 if category == "PERSONAL" else -1.0
    told = sorted(
        ((side * add, _SAID[name]) for name, add, value in zip(SIGNS, each, seen, strict=True)
         if side * add > 0.2 and value > 0),
        reverse=True,
    )  # fmt: skip
    said: Sequence[str] = list(dict.fromkeys(words for _, words in told))[:2]
    if category == "PERSONAL" and recalled > 0.3:
        said = ["your notes speak of it", *said[:1]]
    return ", ".join(said) or "its sense"


@lru_cache(maxsize=1)
def _models() -> tuple[Model, Model]:
    """Return the models with and without a vector."""
    return read((files("knowme") / "data" / "intents.npz").read_bytes())


def read(raw: bytes) -> tuple[Model, Model]:
    """Return (with a vector, by words alone) from the bytes of their file."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as data:
        part = {name: data[name].astype(np.float64) for name in data.files}
    middle, spread = part["middle"], part["spread"]
    both = Model(middle, spread, part["words"], float(part["bias"]), part["centre"], part["vector"])
    alone = Model(
        middle, spread, part["words_alone"], float(part["bias_alone"]),
        np.zeros(0), np.zeros(0),
    )  # fmt: skip
    return both, alone
