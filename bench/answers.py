"""Do the quotations that an answer leads with hold the answer? On the fictional person's questions.

    python bench/answers.py [--embedder local] [--verbose]

Prints one JSON line: the share of answerable questions whose quotations hold every string that a
correct answer must contain, the same for all that is recalled, and the share of the unanswerable
ones that are refused. The engine is the echo: what a model adds is not measured here.
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from knowme.ask import Asked, Done, Started, ask
from knowme.configfile import add_source
from knowme.fiction.build import build, questions
from knowme.home import Home
from knowme.settings import SourceSettings
from knowme.sync import sync

AT_MS = 1_776_070_800_000  # the day after the last word of the story


async def answer(home: Home, question: str) -> tuple[Started, str]:
    started, text = None, ""
    async for event in ask(home, Asked(question, surface="bench", now_ms=AT_MS)):
        if isinstance(event, Started):
            started = event
        if isinstance(event, Done):
            text = event.answer
    assert started is not None
    return started, text


def holds(text: str, wanted: tuple[str, ...]) -> bool:
    return all(word.lower() in text.lower() for word in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--embedder", default="auto")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    quoted = recalled = known = refused = unknown = 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "openclaw")
        Home.create(Path(folder) / "home")
        add_source(
            Path(folder) / "home", SourceSettings("openclaw", str(Path(folder) / "openclaw"))
        )
        settings = {"embedder.kind": options.embedder, "engine.kind": "echo"}
        with Home.open(Path(folder) / "home", settings) as home:
            sync(home)
            for question in questions():
                started, text = asyncio.run(answer(home, question.question))
                if question.kind == "unknown":
                    unknown += 1
                    refused += not started.known
                    continue
                known += 1
                wanted = tuple(question.must_contain)
                quoted += holds(text, wanted)
                recalled += holds("\n".join(hit.text for hit in started.sources), wanted)
                if options.verbose:
                    mark = "  " if holds(text, wanted) else "NO"
                    print(f"{mark} {question.id} {question.question} {wanted}\n{text}\n")
    print(json.dumps({
        "bench": "answers", "embedder": options.embedder,
        "quotations_hold_the_answer": round(quoted / known, 3),
        "recalled_holds_the_answer": round(recalled / known, 3),
        "unknown_refused": round(refused / unknown, 3), "questions": known + unknown,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
