"""The learning demo: a small adapter from a fictional person's three months, and its gate.

    python -m knowme.demo_learn [FOLDER]

Promises: the same stages as a person's own `knowme learn run`, on the packaged model and one
machine; it prints what comes, the refusal too. Writes only inside FOLDER.
Refuses to know: what the gate will say.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import console
from knowme.console import bold, dim, good, say, warn
from knowme.demo import begin, command, read

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.learn.runs import Run

PURPOSE = "assistant-for-me"
SHOWN = 4
"""Answers that are printed, before and after."""
HELD_OUT, QUESTIONS = 30, 12


def run(folder: Path) -> None:
    """Make a data set of the fictional person, train, export, measure, decide, ask.

    Raises InputError when ``folder`` holds anything that no demo made, TrainError where the
    packages for training are missing.
    """
    from knowme import structure
    from knowme.home import Home

    began = time.monotonic()
    path = begin(folder)
    with Home.open(path) as home:
        read(home)
        structure.catch_up(home)
        found = _stages(home)
        _answers(found)
        decided = _decide(home, found)
        with asyncio.Runner() as runner:
            runner.run(_asked(home, decided))
            runner.run(home.models.aclose())
    say()
    say(good(f"The whole of it took {(time.monotonic() - began) / 60:.1f} minutes."))
    say(f"This throw-away home: {command()} --home {path} learn status")


def _stages(home: Home) -> Run:
    """Do every stage up to the measurement, and say how each went."""
    from knowme.commands import learn as shown
    from knowme.learn import dataset, exam, pipeline

    say()
    say(bold("$ knowme learn dataset"))
    with shown.telling() as tell:
        found = dataset.build(home, pipeline.wanted(home, PURPOSE), tell)
    told = json.loads((found.path / "data" / "card.json").read_text("utf-8"))
    say(f"{good('made')} {bold(found.id)}: {_counts(told['parts'])}")
    shown.print_card(told)
    say(dim(f"  {found.path / 'data' / 'card.md'}"))
    say()
    say(bold("$ knowme learn train"))
    trained = pipeline.train(home, found, shown.training(quiet=False))
    say(f"{good('trained')}: {trained['steps']} steps, validation loss {trained['best']:.3f}, "
        f"{trained['seconds']:.0f} s")  # fmt: skip
    say()
    say(bold("$ knowme learn export"))
    with shown.telling() as tell:
        made = pipeline.export(home, found, tell)["files"]["adapter"]
    say(f"{good('made')} {found.path / made['file']} {dim(console.size(made['bytes']))}")
    shown.print_fidelity(made)
    say()
    say(bold("$ knowme learn measure"))
    with shown.telling() as tell:
        asked = exam.questions(home, found, most=QUESTIONS)
        pipeline.measure(home, found, tell, most=HELD_OUT, questions=asked)
    return found


def _answers(found: Run) -> None:
    """Show held-out questions with the answers before and after."""
    rows = [
        told
        for line in (found.path / "answers.jsonl").read_text("utf-8").splitlines()
        if (told := json.loads(line)).get("part") == "style"
    ]
    say()
    many = min(HELD_OUT, len(rows))
    say(bold(f"{many} held-out questions, before and after") + dim(f"  ({SHOWN} of them)"))
    before, after = (
        [len(each[side].split()) for each in rows[:many]] for side in ("before", "after")
    )
    for told in sorted(rows[:many], key=_difference, reverse=True)[:SHOWN]:
        say()
        say(f"  {dim('asked  ')} {console.short(console.clean(told['question']), 150)}")
        say(f"  {dim('before ')} {console.short(console.clean(told['before']), 150)}")
        say(f"  {dim('after  ')} {console.short(console.clean(told['after']), 150)}")
        say(f"  {dim('liked  ')} {console.short(console.clean(told['wanted']), 150)}")
    say()
    liked = _median([len(each["wanted"].split()) for each in rows[:many]])
    say(f"  words in an answer, by median: {_median(before)} before, {_median(after)} after, "
        f"{liked} in those she liked")  # fmt: skip


def _difference(told: Mapping[str, Any]) -> int:
    wanted = len(told["wanted"].split())
    return abs(len(told["before"].split()) - wanted) - abs(len(told["after"].split()) - wanted)


def _median(lengths: Sequence[int]) -> int:
    return sorted(lengths)[len(lengths) // 2] if lengths else 0


def _decide(home: Home, found: Run) -> Mapping[str, Any]:
    from knowme.commands import learn as shown
    from knowme.learn import pipeline

    say()
    say(bold("$ knowme learn adopt"))
    told = pipeline.adopt(home, found)
    shown.print_table(told)
    if told["adopted"]:
        say(good("in use") + f": {found.id}")
    else:
        say(
            warn("It stays on the shelf, with its numbers. What answered before goes on answering.")
        )
    return told


async def _asked(home: Home, decided: Mapping[str, Any]) -> None:
    """Ask the embedded engine one question with the adapter and without, in the running product."""
    from knowme.types import ChatMessage, Options

    question = "Any tips for keeping a sourdough starter alive while I travel?"
    say()
    role = home.models.primary
    said = [ChatMessage("user", question)]
    if not decided["adopted"]:
        return
    say(
        bold("The running product, one question that nobody asked before")
        + dim("  (scale 0 and 1)")
    )
    say(f"  {dim('asked  ')} {question}")
    async with home.models.use(role) as engine:
        for scale, name in ((0.0, "before "), (1.0, "after  ")):
            options = Options(max_tokens=96, temperature=0.0, extra={"adapter_scale": scale})
            text = "".join([chunk.text async for chunk in engine.stream(said, options)])
            say(f"  {dim(name)} {console.short(console.clean(text), 200)}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {many}" for name, many in counts.items())


if __name__ == "__main__":
    from knowme.cli import run as cli_run

    sys.exit(cli_run(["learn-demo", *sys.argv[1:]]))
