"""What a long conversation costs and what it keeps, inside a small window. On public dialogues.

    python bench/compress.py [--shared ../shared] [--sets locomo,beam] [--embedder auto]
                             [--windows 2048,4096,8192] [--answers 0] [--verbose]

Each dialogue is one conversation of ours: LoCoMo's first speaker is the person, the second takes
the assistant's part, whose words ordinary recall does not hold; questions name them "I" and "you",
as the person would. What was said is summarised block
by block, and each question is asked at its end as `knowme ask` asks it, with every part of the
window at its default (8,192: at twice its default).

A question is *exact* when every content word of its answer stands in its evidence: those the full
history supports beyond doubt. It keeps its evidence when the words that the prompt shows of that
evidence (turns, what is recalled, lines of the summary that rest on it) still have them all. For
all questions: the share whose evidence turns are all shown, and with at least one shown.
``without_*``: the same with that part left out of what counts ("recalled": what ordinary recall
found; "details": what only the search in this conversation did). Tokens are the packaged model's.

--answers N: N exact questions of each LoCoMo dialogue, about its beginning as far as it fits a full
window of 8,192, put to the packaged model with the full history and with composed windows. An
answer is right when it has every content word of the one in the set; ``words_right`` is the share.

Prints one JSON line.
"""

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from knowme import archive, ask, details, memory, modelstore, prompting, sessions, summaries
from knowme.context import Budgets, compose
from knowme.home import Home
from knowme.questions import is_question, is_small_talk
from knowme.sync import reindex
from knowme.times import parse_time
from knowme.turn import Asked, Turn
from knowme.types import ChatMessage, Options, Record
from knowme.wire import estimate_tokens
from knowme.words import content_words, stem, words

NAME = "long"


class Question(NamedTuple):
    id: str
    text: str
    category: str
    gold: tuple[int, ...]
    exact: frozenset[str]  # the stems of its answer, where its evidence has them all
    now_ms: int | None


class Dialogue(NamedTuple):
    id: str
    turns: list[dict[str, str]]
    questions: list[dict[str, Any]]
    answers: dict[str, str]


def stems(text: str) -> set[str]:
    return {stem(word) for word in content_words(text)}


def every_stem(text: str) -> set[str]:
    return {stem(word.partition("'")[0]) for word in words(text)}


def dialogues(shared: Path, name: str) -> Iterator[Dialogue]:
    os.environ["BENCH_DATA"] = str(shared / "data")
    sys.path.insert(0, str(shared / "bench"))
    import datasets

    if name == "locomo":
        told = json.loads((shared / "data/locomo/locomo10.json").read_text("utf-8"))
        by = {
            f"{each['sample_id']}/{n}": str(qa.get("answer", ""))
            for each in told
            for n, qa in enumerate(each["qa"])
        }
        for case in datasets.locomo():
            asked = [q for q in case.questions if q["category"] != "adversarial"]
            yield Dialogue(case.id, case.turns, asked, by)
        return
    for case in datasets.beam():
        number = case.id.rpartition("-")[2]
        told = json.loads(
            (shared / f"data/beam/100K/{number}/probing_questions.json").read_text("utf-8")
        )
        by = {
            f"{case.id}/{cat}/{n}": str(q.get("answer", ""))
            for cat, qs in told.items()
            for n, q in enumerate(qs)
        }
        asked = [q for q in case.questions if q["category"] != "abstention"]
        yield Dialogue(case.id, case.turns, asked, by)


def put(home: Home, dialogue: Dialogue) -> dict[str, int]:
    """Store a dialogue as `ask` would have; returns its turns -> ids of messages."""
    person = dialogue.turns[0]["speaker"]
    ids: dict[str, int] = {}

    def write(conn: Any) -> None:
        told: list[int] = []
        for turn in dialogue.turns:
            mine = turn["speaker"] in (person, "user")
            at = parse_time(turn["time"], "time")
            kept = mine and not (is_question(turn["text"]) or is_small_talk(turn["text"]))
            meta = {"sent": False} if mine else {"local": True, "rests_on": []}
            record = Record(
                "message", NAME, turn["id"], "user" if mine else "assistant", text=turn["text"],
                at_ms=at, seq=-1, recall=kept, meta=meta,
            )  # fmt: skip
            number = archive.put_conversation(conn, "knowme", record, at or 0)
            message, _, _ = archive.put(conn, number, record, at or 0)
            ids[turn["id"]] = message
            if kept:
                told.append(message)
        memory.add_items(conn, told)

    home.db.write(write)
    return ids


def moved(home: Home, window: int) -> None:
    """Let the window stand where it would after all these turns, with what was summarised."""

    def anew(conn: Any) -> None:
        conn.execute("DELETE FROM sessions")
        conn.execute("DELETE FROM summaries")

    home.db.write(anew)
    summaries.ahead(home, NAME)
    with home.db.read() as conn:
        session = sessions.load(conn, NAME, 1 << 40)
    told = home.settings
    budgets = Budgets(
        window, system=150, memory=told.context.memory_tokens, recalled=told.ask.recalled_tokens,
        question=told.ask.question_tokens, history=told.ask.history_tokens,
        summary=told.context.summary_tokens, answer=told.engine.max_tokens,
    )  # fmt: skip
    made = compose("", (), session.turns, (), "", budgets, estimate_tokens, ready=session.ready)
    home.db.write(
        lambda conn: sessions.moved(
            conn, session.id, anchor_seq=made.anchor, summary=made.summary, at_ms=1
        )
    )
    reindex(home)


def questions(dialogue: Dialogue, ids: dict[str, int]) -> list[Question]:
    texts = {turn["id"]: turn["text"] for turn in dialogue.turns}
    person, other = list(dict.fromkeys(turn["speaker"] for turn in dialogue.turns))[:2]
    found = []
    for each in dialogue.questions:
        told = every_stem(" ".join(texts[g] for g in each["gold"]))
        answer = frozenset(stems(dialogue.answers.get(each["id"], "")))
        now = parse_time(each["now"], "now")
        found.append(
            Question(
                each["id"], _spoken(each["query"], person, other), each["category"],
                tuple(ids[g] for g in each["gold"]), answer if answer <= told else frozenset(), now,
            )
        )  # fmt: skip
    return found


def _spoken(question: str, person: str, other: str) -> str:
    """Return a question as the person would put it: themselves "I", the other "you".

    A pronoun means who is named in it, where only one of the two is.
    """
    named = [(person, "my", "I"), (other, "your", "you")]
    named = [each for each in named if re.search(rf"\b{each[0]}\b", question)]
    for name, whose, who in named:
        question = re.sub(rf"\b{name}['’]s?(?=\W|$)", whose, question)
        question = re.sub(rf"\b{name}\b", who, question)
    if len(named) == 1:
        _, whose, who = named[0]
        question = re.sub(r"\b(?:his|her|their)\b", whose, question)
        question = re.sub(r"\b(?:he|she|they|him|them)\b", who, question)
    return question


def asked_of(home: Home, question: Question) -> Turn:
    """Compose the window of a question; no model is asked."""
    turn = ask.prepare(home, Asked(question.text, NAME, now_ms=question.now_ms), NAME)
    turn.role = home.models.primary
    engine = home.models.engine(turn.role)
    turn.small = prompting.is_small(home, turn, engine)
    prompting.compose_for(home, turn, engine)
    return turn


def shown(turn: Turn) -> dict[str, dict[int, str]]:
    """Return, for each part of the window, message -> what it shows of it."""
    assert turn.context is not None
    said = {message.content for message in turn.context.messages[1:-1]}
    before = turn.summary or turn.session.earlier
    parts: dict[str, dict[int, str]] = {"turns": {}, "recalled": {}, "details": {}, "summary": {}}
    for each in turn.session.turns:
        if each.text in said or any(text and each.text.startswith(text[:-4]) for text in said):
            parts["turns"][each.message_id] = each.text
    for hit in turn.context.used:
        own = "recalled" if details.was_recalled(hit) else "details"
        kind = "summary" if hit.kind == "summary" else own
        for message in hit.message_ids:
            parts[kind][message] = parts[kind].get(message, "") + "\n" + hit.text
    head = turn.context.messages[0].content
    for line, rests in zip(before.text.splitlines(), before.because, strict=True):
        if line[2:] in head:
            for message in rests:
                parts["summary"][message] = parts["summary"].get(message, "") + "\n" + line
    return parts


def keeps(parts: list[dict[int, str]], question: Question) -> bool:
    words = " ".join(part.get(message, "") for part in parts for message in question.gold)
    return question.exact <= every_stem(words)


class Tally:
    """Shares, by name."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.many: dict[str, int] = {}

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.many[name] = self.many.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {
            name: round(total / self.many[name], 3 if total <= self.many[name] else 0)
            for name, total in self.sums.items()
        }


def settings(window: int, embedder: str, engine: str = "llamacpp", **more: Any) -> dict[str, Any]:
    scale = max(1, window // 4096)
    parts = {"ask.history_tokens": 1500, "ask.recalled_tokens": 1000,
             "ask.question_tokens": 500, "context.summary_tokens": 300}  # fmt: skip
    return {
        "engine.kind": engine, "engine.context_tokens": window, "embedder.kind": embedder,
        "ask.quote_first": "never", "ask.threshold": 0.0,
        **{name: many * scale for name, many in parts.items()}, **more,
    }  # fmt: skip


@contextmanager
def filled(folder: Path, dialogue: Dialogue, embedder: str) -> Iterator[dict[str, int]]:
    Home.create(folder / "home")
    with Home.open(folder / "home", settings(4096, embedder, "echo")) as home:
        ids = put(home, dialogue)
        reindex(home)
    yield ids


def measure(
    shared: Path, name: str, windows: list[int], embedder: str, verbose: bool, only: int
) -> dict[str, Any]:
    tallies = {window: Tally() for window in windows}
    full = Tally()
    for number, dialogue in enumerate(dialogues(shared, name)):
        if only and number >= only:
            break
        with (
            tempfile.TemporaryDirectory() as folder,
            filled(Path(folder), dialogue, embedder) as ids,
        ):
            asked = questions(dialogue, ids)
            full.add("turns", len(dialogue.turns))
            for window in windows:
                with Home.open(Path(folder) / "home", settings(window, embedder)) as home:
                    moved(home, window)
                    if window == windows[0]:
                        count = home.models.engine(home.models.primary).count_tokens
                        full.add("tokens", sum(count(turn["text"]) for turn in dialogue.turns))
                    began = time.perf_counter()
                    for question in asked:
                        tally(tallies[window], home, question, verbose and window == 4096)
                    took = (time.perf_counter() - began) / max(1, len(asked))
                    tallies[window].add("ms_a_question", 1000 * took)
    return {"full_history": full.means() | {"dialogues": full.many["turns"]}} | {
        str(window): tallies[window].means()
        | {name: tallies[window].many[key]
           for name, key in (("questions", "all_shown"), ("exact", "kept"))}
        for window in windows
    }  # fmt: skip


def tally(into: Tally, home: Home, question: Question, verbose: bool) -> None:
    turn = asked_of(home, question)
    assert turn.context is not None
    tokens = {k: v for k, v in turn.context.tokens.items() if k not in ("answer", "question_cut")}
    into.add("tokens", sum(tokens.values()))
    for part in ("history", "summary", "recalled"):
        into.add(f"tokens_{part}", tokens[part])
    parts = shown(turn)
    here = {message for part in parts.values() for message in part}
    into.add("all_shown", here >= set(question.gold))
    into.add("one_shown", bool(here & set(question.gold)))
    if not question.exact:
        return
    kept = keeps(list(parts.values()), question)
    into.add("kept", kept)
    for part in parts:
        rest = [each for name, each in parts.items() if name != part]
        into.add(f"without_{part}", keeps(rest, question))
    if verbose and not kept:
        with home.db.read() as conn:
            gold = archive.messages(conn, question.gold)
        ranks = {h.message_ids[0]: n for n, h in enumerate(turn.hits) if h.message_ids}
        print("-", question.category, question.text, sorted(question.exact))
        for each in gold.values():
            print(f"    {each.role} rank {ranks.get(each.id)}: {each.text[:300]!r}")


# --- answers ------------------------------------------------------------------------------------

FULL_WINDOW, FULL_TOKENS = 8192, 7000


def answers(shared: Path, each: int, windows: list[int], embedder: str) -> dict[str, Any]:
    """Let the packaged model answer from the full history and from composed windows."""
    tally_of = {name: Tally() for name in ("full", *map(str, windows))}
    for dialogue in dialogues(shared, "locomo"):
        cut = beginning(dialogue)
        with tempfile.TemporaryDirectory() as folder, filled(Path(folder), cut, embedder) as ids:
            asked = [question for question in questions(cut, ids) if question.exact]
            asked = random.Random(0).sample(asked, min(each, len(asked)))
            for name, into in tally_of.items():
                window = FULL_WINDOW if name == "full" else int(name)
                told = settings(window, embedder) | {"ask.history_tokens": 1500}
                with Home.open(Path(folder) / "home", told) as home:
                    if name != "full":
                        moved(home, window)
                    for question in asked:
                        context = asked_of(home, question).context
                        assert context is not None
                        prompt = everything(cut, question) if name == "full" else context.messages
                        said, tokens = asyncio.run(reply(home, prompt))
                        have = question.exact & every_stem(said)
                        into.add("right", have == question.exact)
                        into.add("words_right", len(have) / len(question.exact))
                        into.add("prompt_tokens", tokens)
    return {name: into.means() | {"questions": into.many["right"]}
            for name, into in tally_of.items()}  # fmt: skip


def beginning(dialogue: Dialogue) -> Dialogue:
    """Return as much of a dialogue as fits a full window, with the questions about that."""
    left, turns = FULL_TOKENS, []
    for turn in dialogue.turns:
        left -= estimate_tokens(turn["text"]) + 16
        if left < 0:
            break
        turns.append(turn)
    known = {turn["id"] for turn in turns}
    asked = [each for each in dialogue.questions if set(each["gold"]) <= known]
    return Dialogue(dialogue.id, turns, asked, dialogue.answers)


def everything(dialogue: Dialogue, question: Question) -> list[ChatMessage]:
    """Return the prompt that holds the whole history, each turn with its day, as notes are."""
    person = dialogue.turns[0]["speaker"]
    told = "\n".join(
        f"[{turn['time'][:10]}, the {'person' if turn['speaker'] == person else 'assistant'}] "
        f"{turn['text']}"
        for turn in dialogue.turns
    )
    system = prompting._instructions(False, "", question.now_ms, None)
    ask_it = f"<recalled>\n{told}\n</recalled>\n\n{question.text}"
    return [ChatMessage("system", system), ChatMessage("user", ask_it)]


async def reply(home: Home, prompt: Sequence[ChatMessage]) -> tuple[str, int]:
    said, tokens = "", 0
    async with home.models.use(home.models.primary) as engine:
        stream = engine.stream(prompt, Options(max_tokens=48, temperature=0.0, seed=0))
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                said += chunk.text
                tokens = chunk.usage.prompt_tokens if chunk.usage else tokens
    return said, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--sets", default="locomo,beam")
    parser.add_argument("--embedder", default="auto")
    parser.add_argument("--windows", default="2048,4096,8192")
    parser.add_argument("--answers", type=int, default=0, help="questions of each dialogue")
    parser.add_argument("--only", type=int, default=0, help="the first so many dialogues of a set")
    parser.add_argument("--verbose", action="store_true", help="show what lost its evidence at 4K")
    options = parser.parse_args()
    windows = [int(each) for each in options.windows.split(",")]
    made: dict[str, Any] = {
        name: measure(
            options.shared, name, windows, options.embedder, options.verbose, options.only
        )
        for name in options.sets.split(",") if name
    }  # fmt: skip
    if options.answers:
        small = [window for window in windows if window < FULL_WINDOW]
        told = answers(options.shared, options.answers, small, options.embedder)
        made["answers"] = {"model": modelstore.DEFAULT_CHAT, **told}
    print(json.dumps({"bench": "compress", "embedder": options.embedder, **made}))


if __name__ == "__main__":
    main()
