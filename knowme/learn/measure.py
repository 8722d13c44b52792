"""Measure a candidate on what it never saw, beside what is in use: served as it will be served.

    held-out   nats a token of held-out answers, after their own prompt and after another's
    style      what is generated for held-out prompts, its distance from the held-out answers
    facts      questions about what is believed, with recall and without
    ability    the small fixed set, against the base
    secrets    canaries and recited training answers

Promises: each part is kept as soon as it is done, so an interrupted measurement goes on; numbers
stand in ``eval.json``, every word in ``answers.jsonl`` with the messages that it rests on. What is
in use but stale or changed is not compared with: then the base is. Needs no torch.
Refuses to know: what is good enough (``adopt.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import knowme
from knowme import adoptions
from knowme.db import rows as db_rows
from knowme.errors import InputError, TooLongError
from knowme.learn import ability, adopt, canaries, exam, lessons, pairs, runs, style
from knowme.learn.measured import Item, Measured, Secret
from knowme.learn.served import Scales, Served
from knowme.types import ChatMessage, Pair

if TYPE_CHECKING:
    import apsw

    from knowme.home import Home
    from knowme.learn.runs import Run

Tell = Callable[[int, int, str], None]
"""Is told (done, of, what)."""

MOST = 60
"""Held-out answers that are measured, spread over all of them."""
ANSWER_TOKENS = 64
OTHER_TOKENS = 32
OTHERS = 2
"""Other prompts with which an answer is compared."""
STYLE_TEXTS, STYLE_TOKENS = 40, 64
RECITED = 16
CONTEXT_TOKENS = 4096

ADAPTER, NUMBERS, PARTIAL, ANSWERS = (
    "adapter.gguf", "eval.json", "eval.partial.json", "answers.jsonl",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Held:
    """A held-out pair as it fits the window: its prompt may have lost its first turns."""

    pair: Pair
    prompt: tuple[ChatMessage, ...]
    group: str


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every part needs: the model, its scales, the items."""

    home: Home
    run: Run
    served: Served
    base: Scales
    before: Scales
    after: Scales
    held: tuple[_Held, ...]
    questions: tuple[exam.Question, ...]
    neutral: tuple[ability.Item, ...]
    tell: Tell

    def both(self) -> tuple[tuple[str, Scales], tuple[str, Scales]]:
        return ("before", self.before), ("after", self.after)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a part found: fields of ``Measured``, and rows with words."""

    numbers: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]] = ()


def run(
    home: Home,
    run: Run,
    *,
    base: Path,
    questions: Sequence[exam.Question] | None = None,
    neutral: Sequence[ability.Item] | None = None,
    most: int = MOST,
    threads: int = 0,
    tell: Tell | None = None,
) -> Measured:
    """Measure the adapter of a run; ``base`` is the GGUF that it is served with.

    ``questions``: other ones than those of the believed facts; ``neutral``: other items of general
    ability than the shipped ones. Notes the stage "measure", returns the numbers. Raises TrainError
    where the adapter does not fit the base, InputError where a file is missing or damaged,
    ModelError.
    """
    adapter = run.path / ADAPTER
    if not adapter.is_file():
        raise InputError(f"Run {run.id} has no adapter as GGUF.", "Run: knowme learn export")
    name = adoptions.base_of(base)
    used = _in_use(home, run.purpose, name, adapter)
    loaded = ([home.path / used.adapter] if used is not None else []) + [adapter]
    asked = tuple(exam.questions(home, run) if questions is None else questions)
    told = Measured(
        run.id, run.purpose, name, adoptions.file_sha256(adapter),
        "" if used is None else used.run,
    )  # fmt: skip
    items = tuple(ability.items() if neutral is None else neutral)
    named = [*(each.uid for each in asked), *(each.uid for each in items)]
    kept = _Kept(home, run, _key(told, used, run, named, most))
    none = tuple(0.0 for _ in loaded)
    after = (*none[:-1], 1.0)
    before = none if used is None else (1.0, 0.0)
    with Served(
        base, loaded, threads=threads or home.settings.learn.threads, context_tokens=CONTEXT_TOKENS
    ) as served:
        held = tuple(_held(served, pairs.read(run.path / "data" / "test.jsonl"), most))
        bench = _Bench(
            home, run, served, none, before, after, held, asked, items, tell or (lambda *_: None)
        )
        for part, measure in _PARTS.items():
            if part not in kept.parts:
                kept.add(part, measure(bench))
    measured = Measured.from_json({**told.json(), **kept.numbers()})
    return _done(run, measured)


def _done(run: Run, measured: Measured) -> Measured:
    decided = adopt.decide(measured)
    runs.put(run.path / NUMBERS, measured.json())
    (run.path / PARTIAL).unlink(missing_ok=True)
    changes = {row.name: {"before": row.before, "after": row.after} for row in decided.rows}
    run.done(
        "measure", adopt=decided.adopt, base=measured.base, sha256=measured.adapter,
        against=measured.against, numbers=changes,
    )  # fmt: skip
    return measured


def _in_use(home: Home, purpose: str, base: str, candidate: Path) -> adoptions.Adoption | None:
    """Return the adapter to compare with; None for the base alone."""
    with home.db.read() as conn:
        used = adoptions.in_use(conn, purpose, base)
    if used is None:
        return None
    path = home.path / used.adapter
    stale = runs.Run(used.run, home.path / runs.FOLDER / used.run).stale
    if stale or path == candidate or adoptions.file_sha256(path) != used.sha256:
        return None
    return used


# --- what was done already ------------------------------------------------------------------------


def _key(
    told: Measured,
    used: adoptions.Adoption | None,
    run: Run,
    named: Sequence[str],
    most: int,
) -> str:
    """Return what names this very measurement: another file or item is another one."""
    data = [
        adoptions.file_sha256(run.path / "data" / f"{side}.jsonl") for side in ("train", "test")
    ]
    every = [
        knowme.__version__, told.base, told.adapter, "" if used is None else used.sha256, data,
        *named, most,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(every).encode()).hexdigest()


class _Kept:
    """The parts that are done, on disk after each."""

    def __init__(self, home: Home, run: Run, key: str) -> None:
        self._home, self._run, self._key = home, run, key
        self.parts: dict[str, Mapping[str, Any]] = {}
        self._rows: list[Mapping[str, Any]] = []
        with suppress(OSError, ValueError, AttributeError):
            told = json.loads((run.path / PARTIAL).read_text("utf-8"))
            if told.get("key") == key:
                self.parts = dict(told["parts"])
                self._rows = [each for each in _read(run) if each.get("part") in self.parts]

    def add(self, part: str, found: _Part) -> None:
        # Through JSON, so that what is resumed and what is not are the same.
        self.parts[part] = json.loads(json.dumps(found.numbers))
        self._rows += [{"part": part, **row} for row in found.rows]
        self._home.db.write(self._write)

    def _write(self, conn: apsw.Connection) -> None:
        """Write what there is, but for what was forgotten meanwhile: the file has lost it.

        Within a write of memory.db: an erasure is before it or behind it. Raises StoreError,
        InputError.
        """
        lessons.none_forgets(conn)
        if self._run.stale:
            raise InputError(
                f"Run {self._run.id} is stale: {self._run.stale}.", "Run: knowme learn dataset"
            )
        gone = lessons.fallen(conn, (i for row in self._rows for i in row.get("because", ())))
        self._rows = [row for row in self._rows if gone.isdisjoint(row.get("because", ()))]
        pairs.write(self._run.path / ANSWERS, self._rows)
        runs.put(self._run.path / PARTIAL, {"key": self._key, "parts": self.parts})

    def numbers(self) -> dict[str, Any]:
        return {name: each for part in self.parts.values() for name, each in part.items()}


def _read(run: Run) -> Iterator[dict[str, Any]]:
    for line in (run.path / ANSWERS).read_text("utf-8").split("\n"):
        if line.strip():
            yield json.loads(line)


# --- the held-out pairs ---------------------------------------------------------------------------


def _held(served: Served, found: Sequence[Pair], most: int) -> Iterator[_Held]:
    """Yield up to ``most`` pairs, spread over all, each cut to the window."""
    usable = [pair for pair in found if pair.answer.strip() and len(pair.messages) > 1]
    many = min(most, len(usable))
    for at in range(many):
        pair = usable[at * len(usable) // many]
        prompt = _fitting(served, pair.messages[:-1])
        if prompt:
            group = hashlib.sha256(pair.place.encode()).hexdigest()[:8]  # a place may hold words
            yield _Held(pair, prompt, group)


def _fitting(served: Served, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """Return the messages without the first turns that the window does not hold."""
    room = served.context_tokens - 2 * ANSWER_TOKENS
    head = tuple(each for each in messages[:1] if each.role == "system")
    rest = messages[len(head) :]
    while rest and len(served.prompt((*head, *rest))) > room:
        rest = rest[1:]
        while rest and rest[0].role != "user":
            rest = rest[1:]
    return (*head, *rest) if rest else ()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _items(
    uids: Sequence[str], before: Sequence[float], after: Sequence[float],
    weights: Sequence[float] | None = None, groups: Sequence[str] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    made = [
        Item(uid, round(b, 6), round(a, 6), w, g)
        for uid, b, a, w, g in zip(
            uids, before, after, weights or [1.0] * len(uids), groups or [""] * len(uids),
            strict=True,
        )
    ]  # fmt: skip
    return [asdict(each) for each in made]


# --- the parts ------------------------------------------------------------------------------------


def _answers(bench: _Bench) -> _Part:
    """Nats a token of each held-out answer, after its own prompt and after others'.

    The others are those of pairs far away in the set, of another conversation where there is one.
    """
    own: dict[str, list[float]] = {"before": [], "after": []}
    fit: dict[str, list[float]] = {"before": [], "after": []}
    weights: list[float] = []
    for side, scales in bench.both():
        for at, held in enumerate(bench.held):
            bench.tell(at, len(bench.held), f"held-out answers, {side}")
            answer = held.pair.answer
            nats = bench.served.nll(held.prompt, answer, scales, most=ANSWER_TOKENS)
            own[side].append(_mean(nats))
            if side == "before":
                weights.append(float(len(nats)))
            others = [
                _mean(bench.served.nll(each.prompt, answer, scales, most=OTHER_TOKENS))
                for each in _others(bench.held, at)
            ]
            fit[side].append(_mean(others) - _mean(nats[:OTHER_TOKENS]) if others else 0.0)
    uids = [held.pair.uid for held in bench.held]
    groups = [held.group for held in bench.held]
    return _Part({
        "perplexity": _items(uids, own["before"], own["after"], weights, groups),
        "relevance": _items(uids, fit["before"], fit["after"], None, groups),
    })  # fmt: skip


def _others(held: Sequence[_Held], at: int) -> list[_Held]:
    """Return other pairs whose prompts are not this one's, the same for before and after."""
    mine = held[at]
    ordered = [held[(at + step) % len(held)] for step in range(1, len(held))]
    far = [each for each in ordered if each.prompt != mine.prompt]
    elsewhere = [each for each in far if each.group != mine.group] or far
    if not elsewhere:
        return []
    steps = [len(elsewhere) * (number + 1) // (OTHERS + 1) for number in range(OTHERS)]
    return [elsewhere[step % len(elsewhere)] for step in dict.fromkeys(steps)]


def _style(bench: _Bench) -> _Part:
    """What is generated for held-out prompts, beside the held-out answers as long as that."""
    served = bench.served
    chosen = bench.held[:: max(1, -(-len(bench.held) // STYLE_TEXTS))]
    said: dict[str, list[str]] = {"before": [], "after": []}
    for side, scales in bench.both():
        for at, held in enumerate(chosen):
            bench.tell(at, len(chosen), f"style, {side}")
            said[side].append(served.generate(held.prompt, scales, STYLE_TOKENS))
    texts = [served.text(served.tokens(h.pair.answer)[:STYLE_TOKENS]) for h in bench.held]
    others = _other_voice(bench)
    ruler = style.Ruler([*texts, *said["before"], *said["after"]])
    scale = style.scale(texts, others)
    found = _items(
        [held.pair.uid for held in chosen], ruler.pseudo(said["before"], texts),
        ruler.pseudo(said["after"], texts), None, [held.group for held in chosen],
    )  # fmt: skip
    rows = [
        {
            "uid": held.pair.uid, "because": list(held.pair.because),
            "question": held.pair.question, "wanted": held.pair.answer,
            "before": before, "after": after,
        }
        for held, before, after in zip(chosen, said["before"], said["after"], strict=True)
    ]  # fmt: skip
    return _Part({"style": found, "style_own": scale.own, "style_other": scale.other}, rows)


def _other_voice(bench: _Bench) -> list[str]:
    """Return texts of the other side of the talk: the floor of style distances."""
    role = "assistant" if bench.run.purpose == "sound-like-me" else "user"
    with bench.home.db.read() as conn:
        found = db_rows(
            conn,
            "SELECT substr(plain(text), 1, 600) FROM messages WHERE role = ? AND retired_ms IS NULL"
            " AND length(plain(text)) > 40 ORDER BY id DESC LIMIT 200",
            (role,),
        )
    return [text for (text,) in found]


def _facts(bench: _Bench) -> _Part:
    """The fact exam, with what recall finds and without."""
    scores: dict[str, list[float]] = {}
    said: list[dict[str, Any]] = [
        {"uid": each.uid, "because": set(each.because), "question": each.text}
        for each in bench.questions
    ]
    ways = {
        "recalled": exam.prompts(bench.served, bench.questions, bench.home),
        "alone": exam.prompts(bench.served, bench.questions),
    }
    nats: dict[str, list[float | None]] = {"before": [], "after": []}
    for side, scales in bench.both():
        for way, prompts in ways.items():
            name, scores[f"{way}_{side}"] = f"{way}_{side}", []
            for at, (question, prompt) in enumerate(zip(bench.questions, prompts, strict=True)):
                bench.tell(at, len(prompts), f"facts {way}, {side}")
                answered = exam.answer(bench.served, question, prompt, scales)
                said[at][name] = answered.answer
                said[at]["because"] |= set(answered.shown)
                scores[name].append(answered.score)
                if way == "recalled":
                    nats[side].append(answered.nats)
    uids = [each.uid for each in bench.questions]
    return _Part(
        {
            "facts": _items(uids, scores["recalled_before"], scores["recalled_after"]),
            "facts_nats": [
                asdict(Item(uid, round(before, 6), round(after, 6)))
                for uid, before, after in zip(uids, nats["before"], nats["after"], strict=True)
                if before is not None and after is not None
            ],
            "alone": _items(uids, scores["alone_before"], scores["alone_after"]),
        },
        [{**each, "because": sorted(each["because"])} for each in said],
    )


def _ability(bench: _Bench) -> _Part:
    """The fixed set, against the base whatever is in use."""
    bench.tell(0, 2, "ability, base")
    before = ability.ask(bench.served, bench.base, bench.neutral)
    bench.tell(1, 2, "ability, after")
    after = ability.ask(bench.served, bench.after, bench.neutral)
    uids = [each.uid for each in before]
    return _Part({
        "ability": _items(uids, [e.nll for e in before], [e.nll for e in after]),
        "ability_hits": _items(
            uids, [float(e.hit) for e in before], [float(e.hit) for e in after]
        ),
    })  # fmt: skip


def _secrets(bench: _Bench) -> _Part:
    """Canaries. The base is asked only where the candidate shows something."""
    found = canaries.find(bench.home, bench.run)
    made = []
    tried = canaries.tried(
        bench.served, bench.after, found, tell=lambda at: bench.tell(at, len(found), "secrets")
    )
    for canary, one in zip(found, tried, strict=True):
        secret = Secret(one.kind, one.message_id, False, one.emitted, 0.0, one.bits or 0.0,
                        one.first)  # fmt: skip
        if one.emitted:
            told = canaries.emitted(bench.served, bench.base, canary)
            secret = replace(secret, emitted_base=told)
        if one.first and secret.bits >= adopt.EXPOSED_BITS:
            bits, _ = canaries.exposure(bench.served, bench.base, canary)
            secret = replace(secret, bits_base=bits)
        made.append(asdict(secret))
    return _Part({"secrets": made})


def _recited(bench: _Bench) -> _Part:
    """Training answers from their beginning: does the candidate say the rest word for word?"""
    trained = pairs.read(bench.run.path / "data" / "train.jsonl")
    long = [pair for pair in trained if len(pair.answer.split()) >= canaries.BEGIN_TOKENS]
    many = min(RECITED, len(long))
    counts = {"before": 0, "after": 0}
    tried = 0
    for side, scales in bench.both():
        tried = 0
        for at in range(many):
            bench.tell(at, many, f"recited, {side}")
            try:
                told = canaries.recited(bench.served, scales, long[at * len(long) // many])
            except TooLongError:
                continue
            tried += told is not None
            counts[side] += told is True
    return _Part({
        "recited_tried": tried, "recited_before": counts["before"],
        "recited_after": counts["after"],
    })  # fmt: skip


_PARTS: dict[str, Callable[[_Bench], _Part]] = {
    "held-out": _answers, "style": _style, "facts": _facts, "ability": _ability,
    "secrets": _secrets, "recited": _recited,
}  # fmt: skip
"""In the order in which they are measured; each gives some fields of ``Measured``."""
