"""The fact exam: what a model answers about the person, with recall and without.

Promises: a question is made from what is believed (what its sentence says of the value) and in
words in which no training prompt asks; an answer is scored by the value's own words that stand in
it, of which none stands in the question. With recall the model is shown what ``ask`` would show it.
Facts belong in memory: without recall the score is told, never required.
Refuses to know: what is good enough (``adopt.py``), how a model is served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from knowme import gguf
from knowme.attributes import RELATIONS
from knowme.context import Budgets, compose, fence
from knowme.facts import store
from knowme.learn import pairs
from knowme.prompting import SMALL_ANSWER_TOKENS, SMALL_RECALLED_TOKENS
from knowme.steering import prompt_text
from knowme.times import now_ms, zone
from knowme.types import ME, ChatMessage, Fact, Query
from knowme.wire import estimate_tokens
from knowme.words import content_words, stem, words

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.learn.runs import Run
    from knowme.learn.served import Scales, Served

MOST = 24
"""Questions of one exam: more tell little more, and each is asked four times."""
ANSWER_TOKENS, VALUE_TOKENS = 32, 16
SMALL_PARAMETERS = 1_000_000_000
"""Under these a model gets the prompt of very small ones, as in ``ask``."""

_WORDINGS = (
    "Remind me: {asked}",
    "I forgot something about myself. {asked}",
    "{asked} You find it in what I told you.",
)
_PLACES = {
    "residence": "where do I live?",
    "employer": "where do I work?",
    "school": "where do I study?",
    "birthplace": "where was I born?",
    "raised in": "where did I grow up?",
    "origin": "where am I from?",
    "occupation": "what is my occupation?",
    "age": "how old am I?",
}
"""Of the person; what else is asked is made from the fact's sentence."""
_NOUN = re.compile(r"(My|The|\S+'s) (.+) (?:is|are|was|were)")
_ALIKE = 0.8


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its fact, the words that an answer must hold, the messages that it rests on.

    ``expected`` are the right values; each is a set of stems. Any one of them is right. ``lead``
    and ``value`` are the fact's sentence up to its value, and that; "" where it has no such form.
    """

    uid: str
    text: str
    expected: tuple[frozenset[str], ...]
    because: tuple[int, ...]
    lead: str = ""
    value: str = ""

    def score(self, answer: str) -> float:
        """Return the share of a right value's words that stand in the answer, 0 to 1."""
        said = _stems(answer)
        return max((len(each & said) / len(each) for each in self.expected), default=0.0)


@dataclass(frozen=True, slots=True)
class Answered:
    """What was answered to a question; ``shown`` are the messages that were recalled for it.

    ``nats`` is what a token of the value costs, where the sentence up to it is given: it tells of a
    loss also where a small model's own sentence is never right. None where it was not asked.
    """

    uid: str
    score: float
    answer: str
    shown: tuple[int, ...] = ()
    nats: float | None = None

    @property
    def hit(self) -> bool:
        """Whether the whole value stands in the answer."""
        return self.score >= 1.0


class Prompt(NamedTuple):
    """What a model is sent for a question, and the messages of the archive that it quotes."""

    messages: tuple[ChatMessage, ...]
    shown: tuple[int, ...] = ()


def questions(home: Home, run: Run | None = None, *, most: int = MOST) -> list[Question]:
    """Return questions about what is believed now, in words that no prompt of the run uses.

    Facts of the person first; of one subject and attribute one question, to which each of its
    values is right. What is sensitive is left out. Raises InputError for a damaged data set.
    """
    asked = _prompts(run)
    with home.db.read() as conn:
        facts = [fact for fact in store.believed(conn) if not fact.sensitive and fact.certain]
        found = []
        for group in _grouped(facts):
            because = {each.message_id for fact in group for each in store.evidence(conn, fact.uid)}
            made = _question(group, because, asked)
            if made is not None:
                found.append(made)
    if len(found) <= most:
        return found
    return [found[at * len(found) // most] for at in range(most)]


def ask(
    served: Served, asked: Sequence[Question], scales: Scales, home: Home | None = None
) -> list[Answered]:
    """Put the questions to a model, greedily; with a ``home`` it is shown what is recalled.

    Raises ModelError.
    """
    found = zip(asked, prompts(served, asked, home), strict=True)
    return [answer(served, question, prompt, scales) for question, prompt in found]


def prompts(served: Served, asked: Sequence[Question], home: Home | None = None) -> list[Prompt]:
    """Return what the model is sent for each question: with a ``home``, what is recalled for it."""
    if home is None:
        return [Prompt((ChatMessage("user", question.text),)) for question in asked]
    small = gguf.read_header(served.base).parameters < SMALL_PARAMETERS
    return [recalled(home, question.text, small, served.context_tokens) for question in asked]


def answer(served: Served, question: Question, prompt: Prompt, scales: Scales) -> Answered:
    """Put one question to a model, greedily. Raises ModelError."""
    said = served.generate(prompt.messages, scales, ANSWER_TOKENS)
    nats = None
    if question.lead and question.value:
        each = served.nll(
            prompt.messages, f" {question.value}", scales, lead=question.lead, most=VALUE_TOKENS
        )
        nats = sum(each) / max(1, len(each))
    return Answered(question.uid, question.score(said), said, prompt.shown, nats)


def recalled(home: Home, question: str, small: bool, window: int) -> Prompt:
    """Return the prompt that ``ask`` composes of what is recalled, and the messages shown in it."""
    settings = home.settings
    tz = zone(settings.memory.timezone)
    hits = home.search(Query(question, top_k=settings.search.top_k))
    today = datetime.fromtimestamp(now_ms() / 1000, tz)
    name = " ".join(fence(settings.name).split()) or "the person"
    system = prompt_text("answer_small" if small else "answer").format(
        name=name, today=f"{today:%A, %d %B %Y}"
    )
    limit = settings.ask.recalled_tokens
    budgets = Budgets(
        window=window,
        system=settings.ask.system_tokens,
        recalled=min(limit, SMALL_RECALLED_TOKENS) if small else limit,
        history=0,
        answer=SMALL_ANSWER_TOKENS,
    )
    context = compose(system, [], [], hits, question, budgets, estimate_tokens, tz).context
    shown = {each for hit in context.used for each in hit.message_ids}
    return Prompt(tuple(context.messages), tuple(sorted(shown)))


# --- inside ---------------------------------------------------------------------------------------


def _grouped(facts: Iterable[Fact]) -> list[list[Fact]]:
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        groups.setdefault((fact.subject, fact.attribute), []).append(fact)
    return sorted(groups.values(), key=lambda group: group[0].subject != ME)


def _question(
    group: Sequence[Fact], because: Iterable[int], asked: Sequence[frozenset[str]]
) -> Question | None:
    """Return the question of one attribute; None where a value cannot be asked for."""
    first = group[0]
    wanted = _asked(first)
    if not wanted:
        return None
    for wording in _WORDINGS:
        text = wording.format(asked=wanted)
        text = text[0].upper() + text[1:]
        if not any(_alike(frozenset(words(text)), each) for each in asked):
            break
    else:
        return None
    given = _stems(text)
    expected = [frozenset(_stems(fact.value) - given) for fact in group]
    right = tuple(each for each in expected if each)
    if not right:
        return None
    at = first.sentence.lower().rfind(first.value.lower())
    lead = first.sentence[:at].strip() if at > 0 else ""
    return Question(first.uid, text, right, tuple(sorted(because)), lead, first.value)


def _asked(fact: Fact) -> str:
    """Return the question that a fact answers, from its sentence; "" where that has no such form.

    "My sister is Marta." -> what is the name of my sister? "I do not eat meat." -> what is it that
    I do not eat?
    """
    if fact.subject == ME and fact.attribute in _PLACES:
        return _PLACES[fact.attribute]
    said = fact.sentence.rstrip(".")
    head = said[: -len(fact.value)].strip(" :") if fact.value else ""
    if not head or not said.lower().endswith(fact.value.lower()):
        return ""
    noun = _NOUN.fullmatch(head)
    if noun is None:
        return f"what is it that {head}?"
    whose = "my" if noun[1] == "My" else noun[1].replace("The", "the")
    if fact.attribute.startswith("date of "):
        return f"when is {whose} {noun[2]}?"
    if fact.attribute in RELATIONS:
        return f"what is the name of {whose} {noun[2]}?"
    return f"what is {whose} {noun[2]}?"


def _stems(text: str) -> set[str]:
    return {stem(word) for word in content_words(text)}


def _alike(a: frozenset[str], b: frozenset[str]) -> bool:
    return len(a & b) >= _ALIKE * max(1, len(a | b))


def _prompts(run: Run | None) -> list[frozenset[str]]:
    """Return the words of each prompt that was trained on."""
    if run is None:
        return []
    sides = [pairs.read(run.path / "data" / f"{side}.jsonl") for side in ("train", "validation")]
    return [frozenset(words(pair.question)) for side in sides for pair in side]
