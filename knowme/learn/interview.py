"""The interview: a tuned model is asked about the person, several times each question.

    runs/<id>/interview.jsonl   one row an answer {uid, model, theme, question, about, patterns,
                                asked, sample, seed, answer, because}

Promises: an answer that is there is not asked for again, so an interview that was interrupted goes
on; answers of another model make it begin anew; no secret is written down. ``because`` is empty
until ``distil`` has found what an answer rests on: then ``forget`` finds the row by it.
Refuses to know: what of an answer is true (``distil.py``), how the model is served.

What an answer says of the person is put in the first person: a model that was tuned to talk to them
says "You live in Porto", one that was tuned to sound like them "I live in Porto".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from knowme import attributes
from knowme.errors import InputError
from knowme.learn import pairs
from knowme.learn.runs import Run
from knowme.questions import FIRST_PERSON
from knowme.redact import secrets_in
from knowme.types import ME, PURPOSES, ChatMessage
from knowme.words import sentences, words

if TYPE_CHECKING:
    from knowme.home import Home

FILE = "interview.jsonl"
SAMPLES = 3
TEMPERATURE = 0.7
"""Of all samples but the first, which is the likeliest answer (temperature 0)."""
ANSWER_TOKENS = 96
SEED = 5
LONGEST = 40
"""Words of a sentence that may be one statement."""
BARE = 6
"""Words of an answer that may be a bare value: "Porto.", "Rooibos, never green."."""

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done). What it raises ends the work; what is done stays done."""


class Ask(Protocol):
    """How a model is asked: messages in, its whole answer out. Raises ModelError."""

    def __call__(
        self, messages: Sequence[ChatMessage], *, seed: int, temperature: float, max_tokens: int
    ) -> str:
        """Return the answer."""


class Question(NamedTuple):
    """One question. ``me``: as the person asks it; ``you``: as somebody asks the person.

    ``about`` is the attribute whose value a bare answer is; ``patterns``: what is told may recur.
    """

    theme: str
    me: str
    you: str
    about: str = ""
    patterns: bool = False

    @property
    def uid(self) -> str:
        """Return its name: 12 hex digits over its words."""
        return hashlib.sha256(f"{self.me}\0{self.you}".encode()).hexdigest()[:12]

    def asked(self, purpose: str) -> str:
        """Return its words for a model of this purpose."""
        return self.me if purpose == PURPOSES[0] else self.you


class Statement(NamedTuple):
    """One thing that an answer says of the person, in the first person.

    ``bare``: it was put together of the question's attribute and a bare value.
    """

    text: str
    bare: bool = False


class Asked(NamedTuple):
    """What an interview did: answers there are now, asked for this time, left empty for secrets."""

    answers: int
    new: int
    secret: int


# --- the questions ------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def questions(path: Path | None = None) -> tuple[Question, ...]:
    """Return the questions of a file (knowme's own without a path), in its order.

    Raises InputError with what is wrong in it.
    """
    import yaml

    name = path or "knowme/data/interview.yaml"
    try:
        if path is None:
            text = (files("knowme") / "data" / "interview.yaml").read_text("utf-8")
        else:
            text = path.read_text("utf-8")
        themes = (yaml.safe_load(text) or {})["themes"]
        made = [one for theme, told in themes.items() for one in _of_theme(theme, told)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{name} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{name} is no list of questions: {error!r}.",
            "Its form: themes: {THEME: {questions: [{me: ..., you: ..., about: ...}]}}",
        ) from error
    wrong = sorted({one.about for one in made if one.about} - attributes.ATTRIBUTES.keys())
    if wrong:
        known = ", ".join(sorted(attributes.ATTRIBUTES)[:12])
        raise InputError(f"{name}: there is no attribute {wrong[0]!r}.", f"Such as: {known} ...")
    if len({one.uid for one in made}) < len(made) or not made:
        raise InputError(f"{name} has no question, or one twice.")
    return tuple(made)


def _of_theme(theme: str, told: Mapping[str, Any]) -> Iterator[Question]:
    for one in told["questions"]:
        me, you = str(one["me"]).strip(), str(one["you"]).strip()
        yield Question(str(theme), me, you, str(one.get("about", "")), bool(told.get("patterns")))


# --- asking -------------------------------------------------------------------------------------


def ask(
    run: Run,
    model: Ask,
    asked: Sequence[Question],
    *,
    samples: int = SAMPLES,
    model_id: str = "",
    system_prompt: str = "",
    seed: int = SEED,
    progress: Tell | None = None,
) -> Asked:
    """Ask every question ``samples`` times and keep each answer as it comes.

    ``model_id`` names what answers (the hash of its adapter): answers of another one are put aside
    for new ones. Rows of questions that are not asked any more stay. Raises InputError for a run
    that is stale, ModelError, OSError; what was answered stays.
    """
    if run.stale:
        raise InputError(
            f"Run {run.id} is stale: {run.stale}.", "Train anew: knowme personality run"
        )
    path = run.path / FILE
    kept = [row for row in read(run) if row["model"] == model_id]
    todo = missing(run, asked, samples, model_id)
    pairs.write(path, kept)  # cut what a crash left half, and what another model said
    secret = 0
    for done, (one, number) in enumerate(todo):
        if progress is not None:
            progress(done, len(todo), "answers")
        words_of = one.asked(run.purpose)
        said = [ChatMessage("system", system_prompt)] if system_prompt else []
        answer = model(
            (*said, ChatMessage("user", words_of)),
            seed=seed + number,
            temperature=TEMPERATURE if number else 0.0,
            max_tokens=ANSWER_TOKENS,
        )
        answer = _without_thought(answer)
        row: dict[str, Any] = {
            "uid": _uid(model_id, words_of, number), "model": model_id, "theme": one.theme,
            "question": one.uid, "about": one.about, "patterns": one.patterns, "asked": words_of,
            "sample": number, "seed": seed + number, "answer": answer, "because": [],
        }  # fmt: skip
        if secrets_in(answer):
            row |= {"answer": "", "secret": True}
            secret += 1
        _append(path, row)
    if progress is not None and todo:
        progress(len(todo), len(todo), "answers")
    return Asked(len(kept) + len(todo), len(todo), secret)


def missing(
    run: Run, asked: Sequence[Question], samples: int = SAMPLES, model_id: str = ""
) -> list[tuple[Question, int]]:
    """Return what is still to be asked: (question, number of the sample)."""
    there = {row["uid"] for row in read(run)}
    return [
        (one, number)
        for one in asked
        for number in range(samples)
        if _uid(model_id, one.asked(run.purpose), number) not in there
    ]


def _uid(model_id: str, asked: str, sample: int) -> str:
    return hashlib.sha256(f"{model_id}\0{asked}\0{sample}".encode()).hexdigest()[:16]


def read(run: Run) -> list[dict[str, Any]]:
    """Return the answers that are there; a last line that a crash cut off is none.

    Raises InputError for a file that holds anything else.
    """
    path = run.path / FILE
    try:
        lines = path.read_text("utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found.append({**row, "answer": str(row["answer"]), "uid": str(row["uid"]),
                          "model": str(row["model"])})  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # no line end behind it: it was being written
                break
            raise InputError(
                f"{path}:{number} is no answer: {error!r}.", f"Delete {path} and ask again."
            ) from error
    return found


def _append(path: Path, row: Mapping[str, Any]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(fd, "ab") as file:
        told = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")
        file.write(told + b"\n")
        file.flush()
        os.fsync(file.fileno())


_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)


def _without_thought(answer: str) -> str:
    """Return an answer without what the model thought aloud, cut off or not."""
    return _THOUGHT.sub("", answer.rpartition("</think>")[2]).strip()


# --- who is asked -------------------------------------------------------------------------------


def model_id(run: Run) -> str:
    """Return the name of what answers for a run: 16 digits of its adapter's hash; "" without."""
    adapter = (run.stage("export") or {}).get("files", {}).get("adapter")
    return str(adapter["sha256"])[:16] if adapter else ""


@contextmanager
def served(home: Home, run: Run) -> Iterator[Ask]:
    """Serve a run's base with its adapter, on this machine, and give how to ask it.

    Raises InputError where it is not exported, ModelMissingError where its base is no file here.
    """
    from knowme.learn import export
    from knowme.learn.served import Served

    files_of = run.needs("export")["files"]
    if "adapter" not in files_of:
        raise InputError(f"Run {run.id} has no adapter as GGUF.", "Run: knowme learn export")
    base = export.base_gguf(run)
    adapter = run.path / files_of["adapter"]["file"]
    with Served(base, [adapter], threads=home.settings.learn.threads) as model:

        def answer(
            messages: Sequence[ChatMessage], *, seed: int, temperature: float, max_tokens: int
        ) -> str:
            return model.generate(messages, (1.0,), max_tokens, temperature, seed)

        yield answer


# --- what an answer says of the person ----------------------------------------------------------

_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_MARKS = re.compile(r"[*_`#]+")
_SURE = re.compile(
    r"^\s*(?:(?:well|yes|no|so|sure|okay|ok|of course|certainly)[,.!]?\s+)?"
    r"(?:(?:as far as i know|from what i know|i (?:know|remember|recall|believe|think)"
    r"|you(?:'ve| have)? (?:said|told me|mentioned))(?: that)?,?\s+)(?=you\b|your\b)",
    re.IGNORECASE,
)
"""What a model says of its own knowledge before it says something of the person."""
_YOU = (
    (re.compile(r"\byou\s+are\b|\byou['’]re\b", re.I), "I am"),
    (re.compile(r"\byou\s+were\b", re.I), "I was"),
    (re.compile(r"\byou['’]ve\b", re.I), "I have"),
    (re.compile(r"\byourself\b", re.I), "myself"),
    (re.compile(r"\byours\b", re.I), "mine"),
    (re.compile(r"\byour\b", re.I), "my"),
)
_SUBJECT = re.compile(
    r"(^|[,;:(]\s*|\b(?:and|but|because|so|that|when|while|where|what|which|before|after|if|how"
    r"|until|since|than|as)\s+)you\b",
    re.IGNORECASE,
)
"""A "you" that does something; any other is one to whom it is done."""
_ADVICE = re.compile(
    r"\byou(?:['’]ll|['’]d|\s+(?:can|could|should|may|might|must|will|would))\b", re.IGNORECASE
)
"""What somebody may do is no statement of what they do."""
_YOUS = frozenset("you your yours yourself you're you've you'll you'd".split())


def statements(answer: str, purpose: str, about: str = "") -> list[Statement]:
    """Return what an answer says of the person, each in the first person, once each.

    Left out: questions, advice, what the model says of itself, what is of nobody here. With
    ``about`` a bare answer is the value of that attribute: "Porto." -> "I live in Porto.".
    """
    found: list[Statement] = []
    for number, line in enumerate(_lines(answer)):
        told = words(line)
        if line.endswith("?") or not told or len(told) > LONGEST:
            continue
        mine = not FIRST_PERSON.isdisjoint(told)
        yours = not _YOUS.isdisjoint(told)
        if about and not number and not mine and not yours and len(told) <= BARE:
            value = line.strip(" .!…\"'“”")
            found.append(Statement(attributes.sentence(ME, about, value), True))
        elif purpose == PURPOSES[0]:
            if yours and not mine and not _ADVICE.search(line):
                found.append(Statement(_turned(line)))
        elif not yours:
            found.append(Statement(line))
    return list(dict.fromkeys(found))


def _lines(answer: str) -> Iterator[str]:
    for line in answer.splitlines():
        plain = _MARKS.sub("", _BULLET.sub("", line))
        for sentence in sentences(plain):
            if told := " ".join(_SURE.sub("", sentence).split()):
                yield told


def _turned(text: str) -> str:
    """Return "Your cat loves you" as "My cat loves me"."""
    for pattern, mine in _YOU:
        text = pattern.sub(mine, text)
    text = _SUBJECT.sub(lambda found: f"{found[1]}I", text)
    text = re.sub(r"\byou\b", "me", text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]
