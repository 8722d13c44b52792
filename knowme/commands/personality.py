"""personality: what a tuned model says of you, checked against your own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, command
from knowme.commands.learn import telling
from knowme.console import bold, dim, good, note, say, warn
from knowme.types import PURPOSES

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.learn.distil import Distilled, Status
    from knowme.learn.runs import Run

LISTS = ("believed", "hearsay", "unknown")
SHOWN = 40

_purpose = click.option(
    "--purpose", type=click.Choice(PURPOSES), help="What it is for; else learn.purpose."
)
_samples = click.option(
    "--samples", type=click.IntRange(2, 20), default=3, show_default=True,
    help="Answers to each question; two must agree.",
)  # fmt: skip
_questions = click.option(
    "--questions", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of your own questions, in the form of knowme/data/interview.yaml.",
)  # fmt: skip


@chapter("personality", first="status")
def personality() -> None:
    r"""Ask a tuned model who you are, and check what it says.

    Only what your own words bear out is believed.

    \b
    knowme personality run       data set, training, interview, extraction
    knowme personality show      what came of it: believed, hearsay, unknown
    knowme personality undo      take it back
    """


@command(personality, "build-dataset", json=True)
@_purpose
def build_dataset(state: State, purpose: str | None, as_json: bool) -> None:
    """Make a data set, as knowme learn dataset does."""
    from knowme.learn import dataset, pipeline

    with state.open() as home, telling() as tell:
        wanted = pipeline.wanted(home, purpose or home.settings.learn.purpose)
        run = dataset.build(home, wanted, tell)
        told = {"run": run.id, "purpose": run.purpose, **run.needs("data")}
    if as_json:
        console.say_json(told)
        return
    say(f"{good('made')} {bold(run.id)}")
    note("Next: knowme personality train")


@command(personality, "train", json=True)
@click.argument("run", default="")
@click.option("--preset", default="", help="What is trained and how; else learn.preset.")
def train(state: State, run: str, preset: str, as_json: bool) -> None:
    """Train a run's adapter and write it as GGUF. RUN: its name; else the newest."""
    from knowme.learn import runs

    with state.open() as home, telling() as tell:
        found = runs.find(home.path, run)
        told = _train(home, found, preset, tell)
    if as_json:
        console.say_json({"run": found.id, **told})
        return
    say(f"{good('trained')} {bold(found.id)}")
    note("Next: knowme personality extract")


def _train(home: Home, run: Run, preset: str, tell: Any) -> Mapping[str, Any]:
    """Do the stages that an interview needs and that are not done."""
    from knowme.errors import InputError
    from knowme.learn import pipeline

    if run.stale:
        raise InputError(f"Run {run.id} is stale: {run.stale}.", "Run: knowme personality run")
    over = {"preset": preset} if preset else {}
    if run.stage("train") is None or preset:
        tell(0, 0, "training")
        pipeline.train(home, run, None, **over)
    if run.stage("export") is None:
        pipeline.export(home, run, tell)
    return {"train": run.needs("train"), "export": run.needs("export")}


@command(personality, "extract", json=True)
@click.argument("run", default="")
@_samples
@_questions
def extract(state: State, run: str, samples: int, questions: Path | None, as_json: bool) -> None:
    """Interview a run's model, and check what it says.

    Answers that are there already are not asked for again: doing it once more only checks them
    anew, against what was said since. RUN: its name; else the newest.
    """
    from knowme.learn import runs

    with state.open() as home:
        found = runs.find(home.path, run)
        made = _extract(home, found, samples, questions)
    _print_made(found.id, made, as_json)


def _extract(home: Home, run: Run, samples: int, questions: Path | None) -> Distilled:
    from knowme.learn import distil, interview

    asked = interview.questions(questions)
    name = interview.model_id(run)
    with telling() as tell:
        if interview.missing(run, asked, samples, name):
            tell(0, 0, "loading the model")
            with interview.served(home, run) as model:
                interview.ask(
                    run, model, asked, samples=samples, model_id=name,
                    system_prompt=home.settings.learn.system_prompt, progress=tell,
                )  # fmt: skip
        return distil.extract(home, run, progress=tell)


def _print_made(run: str, made: Distilled, as_json: bool) -> None:
    if as_json:
        console.say_json({"run": run, **made._asdict()})
        return
    say(f"{bold(run)}: {console.many(made.claimed, 'claim')} in {made.answers} answers")
    for told in _counted(made._asdict()):
        say(f"  {told}")
    note("What they are: knowme personality show, knowme personality show hearsay")


def _counted(told: Mapping[str, Any]) -> list[str]:
    """Say what came of an interview, a line for each kind."""
    listed = [
        f"{console.many(told['believed'], 'new fact')} believed, each with your words",
        f"{told['confirmed']} known already",
        f"{console.many(told['patterns'], 'pattern')} you said time and again",
        f"{told['outdated']} once so, and no longer" if told["outdated"] else "",
        f"{told['doubtful']} for you to settle: knowme inbox" if told["doubtful"] else "",
        f"{told['hearsay']} hearsay: nothing you said bears it out",
        f"{told['unknown']} of {told['known']} facts that the model does not know",
    ]
    return [each for each in listed if each]


@command(personality, "run", json=True)
@_purpose
@click.option("--resume", is_flag=True, help="Go on with the newest run where it stopped.")
@click.option("--preset", default="", help="What is trained and how; else learn.preset.")
@_samples
@_questions
def run_all(
    state: State,
    purpose: str | None,
    resume: bool,
    preset: str,
    samples: int,
    questions: Path | None,
    as_json: bool,
) -> None:
    """Make a data set, train, interview, extract. It adopts nothing: knowme learn adopt does."""
    from knowme.learn import dataset, pipeline, runs

    with state.open() as home:
        wanted = purpose or home.settings.learn.purpose
        with telling() as tell:
            usable = [
                each
                for each in runs.listed(home.path)
                if each.purpose == wanted and each.stage("data") and not each.stale
            ]
            found = usable[0] if resume and usable else None
            if found is None or found.stage("train") is None:
                pipeline.packages()
            if found is None:
                found = dataset.build(home, pipeline.wanted(home, wanted), tell)
            _train(home, found, preset if found.stage("train") is None else "", tell)
        made = _extract(home, found, samples, questions)
    _print_made(found.id, made, as_json)


# --- looking ------------------------------------------------------------------------------------


@command(personality, "status", json=True)
def status(state: State, as_json: bool) -> None:
    """Show what exists, how old it is, what is stale."""
    from knowme.learn import distil

    with state.open() as home:
        found = distil.status(home)
    if as_json:
        told = [{**each._asdict(), "numbers": dict(each.numbers)} for each in found]
        console.say_json({"runs": told})
        return
    for each in found:
        _print_status(each)
    if not found:
        note("There is no run yet. Begin: knowme personality run")


def _print_status(each: Status) -> None:
    from knowme.times import parse_time

    made = console.ago(parse_time(each.made, each.run)) if each.made else ""
    say(f"{bold(each.run)}  {each.purpose}  {dim(made)}")
    if not each.extracted:
        next_ = "extract" if "export" in each.stages else "train"
        next_ = f"knowme personality {'run' if each.stale else f'{next_} {each.run}'}"
        answered = f"{each.answers} answers, not extracted" if each.answers else "not interviewed"
        say(f"  {answered}; next: {next_}")
    else:
        when = console.ago(parse_time(each.extracted, each.run))
        say(f"  extracted {when} from {each.answers} answers; {each.since} messages came since")
        say(f"  holds now: {console.many(each.facts, 'fact')}, "
            f"{console.many(each.patterns, 'pattern')}")  # fmt: skip
        told = each.numbers
        say(
            f"  {told['hearsay']} hearsay, {told['unknown']} of {told['known']} facts unknown to it"
        )
    for why in each.stale:
        say(warn(f"  stale: {why}"))


@command(personality, "show", json=True)
@click.argument("which", type=click.Choice(LISTS), default="believed")
@click.option("--run", default="", help="The run; else the newest.")
@click.option("--limit", type=click.IntRange(1), default=SHOWN, show_default=True,
              help="Entries at most.")  # fmt: skip
def show(state: State, which: str, run: str, limit: int, as_json: bool) -> None:
    """Show what came of it: believed, hearsay or unknown.

    Hearsay is what the model alone claims; unknown is what you said and it does not know.
    """
    from knowme.errors import InputError
    from knowme.learn import distil, runs

    with state.open() as home:
        found = runs.find(home.path, run)
        if not distil.numbers(found):
            raise InputError(f"Nothing was extracted of {found.id} yet.",
                             f"Run: knowme personality extract {found.id}")  # fmt: skip
        rows = distil.listed(found)[which]
    if as_json:
        console.say_json({"run": found.id, which: rows, "count": len(rows)})
        return
    _print_rows(rows[:limit])
    if len(rows) > limit:
        say(dim(f"… and {len(rows) - limit:,} more: --limit"))
    if not rows:
        note(f"Nothing is {which} in {found.id}.")


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        text = console.clean(str(row.get("text") or row.get("sentence")))
        marks = [
            str(row.get("kind", "")), row.get("why", ""),
            f"{row['answers']} answers" if "answers" in row else "",
            f"rests on {console.many(len(row['because']), 'message')}" if row["because"] else "",
        ]  # fmt: skip
        say(console.wrap(text, "  "))
        say(dim(console.wrap(" · ".join(mark for mark in marks if mark), "    ")))


@command(personality, "undo", json=True)
@click.argument("run", default="")
def undo(state: State, run: str, as_json: bool) -> None:
    """Take everything back that came of a run's interview. RUN: its name; else the newest."""
    from knowme.learn import distil, runs

    with state.open() as home:
        found = runs.find(home.path, run)
        had = bool(distil.numbers(found))
        took = distil.withdraw(home, found)
    if as_json:
        console.say_json({"run": found.id, **took._asdict()})
        return
    if not had and not (took.facts or took.patterns):
        say(f"Nothing was extracted of {found.id}: there is nothing to take back.")
        return
    say(f"{good('taken back')} {console.many(took.facts, 'fact')}, "
        f"{console.many(took.patterns, 'pattern')} of {bold(found.id)}")  # fmt: skip
    note(f"Once more: knowme personality extract {found.id}")
