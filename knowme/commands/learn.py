"""learn: data sets and adapters from what you said, each measured before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, chapter, command
from knowme.commands.recall import when
from knowme.console import bold, dim, good, note, say, warn
from knowme.types import PURPOSES

if TYPE_CHECKING:
    from knowme.learn.runs import Run

Tell = Callable[[int, int, str], None]

_purpose = click.option(
    "--purpose", type=click.Choice(PURPOSES), help="What it is for; else learn.purpose."
)


@chapter("learn", first="status")
def learn() -> None:
    r"""An adapter from what you said: data set, training, gate.

    Each step is measured, and an adapter is used only if it is better than what is in use.

    \b
    knowme learn run        all of it, one stage after the other
    knowme learn status     what answers now, what there is, what is missing
    knowme learn rollback   as it was before
    """


@contextmanager
def telling() -> Iterator[Tell]:
    """Give a progress function for long work."""
    with console.Progress() as line:

        def tell(done: int, total: int, what: str) -> None:
            line.done(what, done, total) if total else line.tell(f"{done} {what}" if done else what)

        yield tell


# --- the data set -------------------------------------------------------------------------------


@command(learn, "dataset", json=True)
@_purpose
@click.option("--kind", "kinds", multiple=True, help="Only pairs of this kind; repeatable.")
@click.option("--since", metavar="WHEN", help="Only what was said since: a date, 7d, 3w, 6m.")
@click.option(
    "--filter-preferences", is_flag=True, help="Of exchanges, only those that say what you like."
)
@click.option("--include-memory", is_flag=True, help="Put what memory held then into prompts.")
@click.option("--min-answer-length", type=click.IntRange(1),
              help="Leave out exchanges with a shorter answer, in characters.")  # fmt: skip
@click.option("--system-prompt", help="Instructions before each example; else the setting.")
@click.option("--stats-only", is_flag=True, help="Count, and write nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write plain files there.")
@click.option("--form", type=click.Choice(("messages", "sharegpt")), default="messages",
              help="Of these files: OpenAI's messages, or ShareGPT's conversations.")  # fmt: skip
def dataset(
    state: State,
    purpose: str | None,
    kinds: tuple[str, ...],
    since: str | None,
    filter_preferences: bool,
    include_memory: bool,
    min_answer_length: int | None,
    system_prompt: str | None,
    stats_only: bool,
    out: Path | None,
    form: str,
    as_json: bool,
) -> None:
    """Make a data set of what you said, in a new run. Nothing leaves this machine."""
    from knowme.errors import InputError
    from knowme.learn import dataset as sets
    from knowme.times import zone

    if out is not None and out.exists() and not stats_only:
        raise InputError(f"{out} is there already.", "Name a new folder.")
    with state.open() as home, telling() as tell:
        settings = home.settings.learn
        wanted = sets.Wanted(
            purpose or settings.purpose,
            kinds,
            when(since, zone(home.settings.memory.timezone)),
            filter_preferences,
            include_memory,
            min_answer_length or settings.min_answer_chars,
            settings.system_prompt if system_prompt is None else system_prompt,
        )
        if stats_only:
            told = sets.statistics(home, wanted, tell)
            console.say_json(told) if as_json else _print_statistics(told)
            return
        run = sets.build(home, wanted, tell)
        made = sets.exported(run, out, form) if out is not None else None
    _print_set(run, made, out, as_json)


def _print_set(run: Run, made: Mapping[str, int] | None, out: Path | None, as_json: bool) -> None:
    import json

    told = json.loads((run.path / "data" / "card.json").read_text("utf-8"))
    if as_json:
        console.say_json({"run": run.id, "folder": str(run.path), **told, "written": made})
        return
    parts = {name: many for name, many in told["parts"].items() if many or name != "rejected"}
    say(f"{good('made')} {bold(run.id)}: {_counts(parts)}")
    print_card(told)
    if told["pairs"] < told["enough"]:
        say(warn(f"  {told['pairs']} of the {told['enough']} examples that are recommended"))
    say(dim(f"The card: {run.path / 'data' / 'card.md'}"))
    if made is not None:
        say(f"Written to {out}: {_counts(made)}")
    note("Look at some of it: knowme learn review. Then: knowme learn train")


def print_card(told: Mapping[str, Any]) -> None:
    """Print what a data set holds."""
    say(f"  kinds       {_counts(told['kinds'])}")
    say(f"  languages   {_counts(told['languages'])}")
    if told["dropped"]:
        say(f"  left out    {_counts(told['dropped'])}")
    if told["masked"]:
        say(f"  masked      {_counts(told['masked'])}")
    words = told["words"]
    say(f"  answers     {words['median']} words by median, nine in ten up to {words['p90']}")
    reasoning = told["reasoning"]
    if many := reasoning["think"] + reasoning["plain"]:
        say(f"  decisions   {reasoning['think']} of {many} with their reasoning")


def _print_statistics(told: Mapping[str, Any]) -> None:
    ready = told["ready"]
    say(f"You have {bold(str(ready['pairs']))} of the {ready['enough']} recommended examples.")
    if ready["pairs"] >= ready["enough"]:
        say(good("That is enough: knowme learn run"))
    elif ready["a_week"] and (ready["enough"] - ready["pairs"]) / ready["a_week"] > 104:
        say(f"At this rate ({ready['a_week']:g} a week) that takes years. Answer some questions: "
            "knowme learn collect")  # fmt: skip
    elif ready["on"]:
        say(f"At this rate ({ready['a_week']:g} a week) ready on {ready['on']}.")
    else:
        say("Nothing is newer than eight weeks. Answer some questions: knowme learn collect")
    if told["new_since_last"] is not None:
        say(f"New since the last data set: {told['new_since_last']}")
    if ready["pairs"]:
        print_card(told)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {many:,}" for name, many in counts.items()) or "none"


# --- what there is ------------------------------------------------------------------------------


@command(learn, "status", json=True)
def status(state: State, as_json: bool) -> None:
    """Show which adapter answers, and what comes next."""
    from knowme.learn import pipeline

    with state.open() as home:
        told = pipeline.status(home)
    if as_json:
        console.say_json(told)
        return
    if not told["in_use"]:
        say("No adapter is in use: the model answers as it came.")
    for used in told["in_use"]:
        forced = warn(" (forced: the gate had refused it)") if used["forced"] else ""
        say(f"{good('in use')} {bold(used['run'])}: {used['purpose']}, since {used['at']}{forced}")
        if used["stale"]:
            say(warn(f"  stale: {used['stale']}. Make a new one (knowme learn run), or take it "
                     "out: knowme learn rollback"))  # fmt: skip
    for run in told["runs"][:5]:
        _print_run(run)
    if len(told["runs"]) > 5:
        older = console.many(len(told["runs"]) - 5, "older run")
        say(dim(f"and {older}: knowme learn runs"))
    if told["missing"]:
        note(told["missing"])
    if told["next"]:
        note(told["next"])


@command(learn, "runs", json=True)
def runs(state: State, as_json: bool) -> None:
    """List every run with its stages."""
    from knowme.learn import pipeline

    with state.open() as home:
        told = pipeline.status(home)["runs"]
    if as_json:
        console.say_json({"runs": told})
        return
    for run in told:
        _print_run(run)
    if not told:
        say("There is no run yet: knowme learn dataset")


def _print_run(run: Mapping[str, Any]) -> None:
    stages = ", ".join(run["stages"]) or "empty"
    told = f"{bold(run['id'])}  {run['purpose']}  {run['examples']} examples  {dim(stages)}"
    if run["verdict"]:
        told += f"  {run['verdict']}"
    say(told + (warn(f"  stale: {run['stale']}") if run["stale"] else ""))


# --- one stage after the other ------------------------------------------------------------------


@command(learn, "train", json=True)
@click.argument("run", required=False, default="")
@click.option("--preset", type=click.Choice(("tiny", "qwen3-1.7b", "qwen3-4b", "llama-3.1-8b")),
              help="What is trained and how; else learn.preset.")  # fmt: skip
@click.option("--base", help="Another base: a folder of Hugging Face files, a .gguf, a hub's name.")
@click.option("--method", type=click.Choice(("sft", "dpo")), default="sft",
              help="sft: learn the answers; dpo: also away from those disliked.")  # fmt: skip
@click.option("--epochs", type=click.FloatRange(0.01, 100), help="How often each example is seen.")
@click.option("--learning-rate", type=click.FloatRange(1e-7, 0.1), help="Else the preset's.")
@click.option("--max-tokens", type=click.IntRange(32), help="Of an example; longer ones are cut.")
@click.option("--four-bit/--no-four-bit", default=None, help="Load the base in 4 bits (CUDA).")
@click.option("--seed", type=int, help="The same seed gives the same adapter.")
@click.option("--trainer", help="peft or unsloth; else learn.trainer.")
@click.option("--estimate", is_flag=True, help="Say what it would take, and train nothing.")
def train(state: State, run: str, estimate: bool, as_json: bool, **given: Any) -> None:
    """Train an adapter on a run's data set (the newest). Ctrl-C saves; the same again goes on."""
    from knowme.learn import pipeline
    from knowme.learn import runs as all_runs

    with state.open() as home:
        found = all_runs.find(home.path, run)
        over = {name: told for name, told in given.items() if told is not None}
        guess = pipeline.estimate(home, found, **over)
        if estimate:
            console.say_json(guess) if as_json else _print_estimate(guess)
            if guess["refused"] and not as_json:
                say(warn(f"It would be refused here: {guess['refused']}"))
            return
        if not as_json:
            _print_estimate(guess)
        told = pipeline.train(home, found, training(as_json), **over)
    if as_json:
        console.say_json({"run": found.id, **told})
        return
    say(f"{good('trained')} {bold(found.id)}: {told['steps']} steps, validation loss "
        f"{told['best']:.3f}, {told['seconds'] / 60:.1f} minutes")  # fmt: skip
    note("Next: knowme learn export, knowme learn measure")


def _print_estimate(guess: Mapping[str, Any]) -> None:
    say(f"{bold(guess['base'])} ({guess['preset']}): {guess['examples']} examples, about "
        f"{console.size(guess['ram_mb'] * 1e6)} of memory"
        + (f", {console.size(guess['vram_mb'] * 1e6)} of the card's" if guess["vram_mb"] else "")
        + (f", {guess['seconds'] / 60:.0f} minutes" if guess["seconds"] else ""))  # fmt: skip


def training(quiet: bool) -> Callable[[Mapping[str, Any]], None]:
    """Return what prints the events of a training."""
    import time

    begun = shown = time.monotonic()

    def pause() -> float:
        """Seconds between two lines: few lines, too, where it goes on for hours."""
        return min(60.0, max(5.0, (time.monotonic() - begun) / 20))

    def report(event: Mapping[str, Any]) -> None:
        nonlocal shown
        kind = event.get("event")
        if quiet:
            return
        if kind == "start":
            note(dim(f"on {event['device']} in {event['dtype']}: {event['trainable']:,} of "
                     f"{event['parameters']:,} weights, {event['steps']} steps"))  # fmt: skip
        elif kind == "mask":
            note(dim(f"loss on {event['trained']} of {event['tokens']} tokens of the first "
                     "example, the answer only:"))  # fmt: skip
            _print_mask(event.get("shown", ()))
        elif kind == "validation":
            best = good(" best") if event.get("best") else ""
            note(f"step {event['step']}: validation loss {event['loss']:.4f}{best}")
        elif kind == "stopped":
            note(str(event["why"]))
        elif kind == "step" and time.monotonic() - shown > pause():
            shown = time.monotonic()
            vram = f", {event['vram_mb']:.0f} MB of the card's" if event.get("vram_mb") else ""
            left = f"{event['seconds_left'] / 60:.1f} minutes left, {event['rss_mb']:.0f} MB{vram}"
            note(dim(f"step {event['step']} of {event['steps']}: loss {event['loss']:.3f}, {left}"))

    return report


def _print_mask(shown: Sequence[Sequence[Any]]) -> None:
    """Print an example as the trainer sees it: what is trained, and what only stands before it."""
    said = ["", ""]
    for text, trained in shown:
        said[bool(trained)] += str(text)
    before = console.short(console.clean(said[0].replace("\n", " ")), 200)
    note(f"  before it  {dim(before)}")
    note(f"  trained    {good(console.short(console.clean(said[1]), 200))}")


@command(learn, "export", json=True)
@click.argument("run", required=False, default="")
@click.option("--kind", "kinds", multiple=True,
              type=click.Choice(("adapter", "f16", "q8_0", "q4_k_m")), default=("adapter",),
              help="adapter (a GGUF LoRA), or the whole model with it; repeatable.")  # fmt: skip
@click.option("--ollama", metavar="NAME", help="Also make the model NAME in Ollama.")
@click.option("--check/--no-check", default=True, help="Compare it with the original.")
def export(
    state: State, run: str, kinds: Sequence[str], ollama: str | None, check: bool, as_json: bool
) -> None:
    """Write GGUF files of a run's adapter, with a Modelfile.

    Each is compared with the original. q4_k_m and the like hold the whole model with the adapter
    in it.
    """
    from knowme.learn import pipeline
    from knowme.learn import runs as all_runs

    with state.open() as home, telling() as tell:
        found = all_runs.find(home.path, run)
        told = pipeline.export(home, found, tell, kinds=kinds, ollama=ollama or "", check=check)
    if as_json:
        console.say_json({"run": found.id, **told})
        return
    for made in told["files"].values():
        say(f"{good('made')} {found.path / made['file']} {dim(console.size(made['bytes']))}")
        print_fidelity(made)
    if told.get("served_as"):
        say(f"In Ollama as {bold(told['served_as'])}")


def print_fidelity(made: Mapping[str, Any]) -> None:
    """Print how well a converted file agrees with what was trained."""
    if told := made.get("fidelity"):
        say(dim(f"  the same next token at {told['same_top']:.1%} of {told['positions']} places, "
                f"perplexity {told['perplexity_ratio'] - 1:+.2%}"))  # fmt: skip


@command(learn, "measure", json=True)
@click.argument("run", required=False, default="")
def measure(state: State, run: str, as_json: bool) -> None:
    """Measure an adapter on what it never saw.

    It is compared with what is in use: perplexity of your answers, style, facts with and without
    recall, general ability, secrets.
    """
    from knowme.learn import pipeline
    from knowme.learn import runs as all_runs

    with state.open() as home, telling() as tell:
        found = all_runs.find(home.path, run)
        told = pipeline.measure(home, found, tell)
    console.say_json(told) if as_json else print_table(told)


def print_table(told: Mapping[str, Any]) -> None:
    """Print what the gate says, row by row."""
    import shutil

    columns = shutil.get_terminal_size((160, 24)).columns
    say(f"{'':24}{'before':>10}{'after':>10}   {'change, bounds (95% each)':26}")
    for row in told["rows"]:
        mark = good("ok") if row["passed"] else console.bad("no")
        span = f"{row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        line = f"{row['name']:24}{row['before']:>10.3f}{row['after']:>10.3f}   {span:26}{mark}"
        if len(click.unstyle(line)) + 2 + len(row["rule"]) <= columns:
            say(f"{line}  {dim(row['rule'])}")
        else:
            say(line)
            say(dim(console.wrap(row["rule"], "    ")))
    before, after = told["facts_alone"]
    say(dim(f"Facts without recall (no rule: they belong in memory): {before:.2f} before, "
            f"{after:.2f} after. Before is: {told['against']}"))  # fmt: skip
    say(good("adopt it") if told["adopt"] else warn(f"do not adopt it: {told['why']}"))


@command(learn, "adopt", json=True)
@click.argument("run", required=False, default="")
@click.option("--force", is_flag=True, help="Although the gate refuses it; this is recorded.")
def adopt(state: State, run: str, force: bool, as_json: bool) -> None:
    """Use a run's adapter from now on, if it is better."""
    from knowme.learn import pipeline
    from knowme.learn import runs as all_runs

    with state.open() as home, telling() as tell:
        found = all_runs.find(home.path, run)
        told = pipeline.adopt(home, found, tell, force=force)
    if as_json:
        console.say_json(told)
        return
    print_table(told)
    _print_adopted(found.id, told)


def _print_adopted(run: str, told: Mapping[str, Any]) -> None:
    if told["adopted"]:
        forced = warn(" by force") if told["forced"] else ""
        say(f"{good('in use')} {bold(run)}{forced}. As it was before: knowme learn rollback")
    else:
        say("What was in use stays in use.")


@command(learn, "rollback", json=True)
@_purpose
def rollback(state: State, purpose: str | None, as_json: bool) -> None:
    """Take the adapter out: what was before answers again."""
    from knowme.learn import pipeline

    with state.open() as home:
        told = pipeline.rollback(home, purpose or home.settings.learn.purpose)
    if as_json:
        console.say_json(told)
        return
    now = told["in_use"] or "the model as it came"
    say(f"{good('rolled back')} {told['out']}; now answers: {bold(now)}")
    if told["stale"]:
        say(warn(f"  stale: {told['stale']}. Make a new one (knowme learn run), or take this out, "
                 "too: knowme learn rollback"))  # fmt: skip


@command(learn, "delete", json=True)
@click.argument("run")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(state: State, run: str, yes: bool, as_json: bool) -> None:
    """Delete a run: examples, checkpoints, adapter.

    Where it is in use, what was used before answers again.
    """
    from knowme.learn import pipeline
    from knowme.learn import runs as all_runs

    with state.open() as home:
        found = all_runs.find(home.path, run)
        if not (yes or as_json):
            click.confirm(f"Delete {found.path}?", default=False, abort=True)
        told = pipeline.delete(home, found.id)
    if as_json:
        console.say_json(told)
        return
    say(f"{good('deleted')} {told['run']}" + (": it was in use" if told["was_in_use"] else ""))


@command(learn, "run", json=True)
@_purpose
@click.option("--resume", is_flag=True, help="Go on with the newest run where it stopped.")
@click.option("--yes", is_flag=True, help="Adopt without asking, if the gate lets it through.")
def run_all(state: State, purpose: str | None, resume: bool, yes: bool, as_json: bool) -> None:
    """Do it all, and use the adapter if it is better."""
    from knowme.learn import pipeline

    with state.open() as home:
        with telling() as tell:
            told = pipeline.run(
                home, purpose or home.settings.learn.purpose, tell, training(as_json),
                resume=resume,
            )  # fmt: skip
        if not as_json:
            print_table(told)
        if told["adopt"] and (yes or as_json or click.confirm("Use it?", default=True)):
            told = {**told, **pipeline.use(home, told["run"])}
    console.say_json(told) if as_json else _print_adopted(told["run"], {"adopted": False, **told})


# --- a machine with a card ----------------------------------------------------------------------


@command(learn, "export-notebook", json=True)
@click.argument("target", metavar="FOLDER", type=click.Path(file_okay=False, path_type=Path))
@click.option("--run", default="", help="The run; else the newest.")
@click.option("--form", type=click.Choice(("notebook", "script")), default="notebook",
              help="A notebook for Colab or Kaggle, or a script and its data.")  # fmt: skip
@click.option("--preset", type=click.Choice(("qwen3-1.7b", "qwen3-4b", "llama-3.1-8b", "tiny")),
              help="What is trained there; else learn.preset.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
def export_notebook(
    state: State, target: Path, run: str, form: str, preset: str | None, yes: bool, as_json: bool
) -> None:
    """Write a run as a notebook, to train it on a graphics card.

    It holds the examples, so it takes them to wherever you carry it.
    """
    from knowme.learn import pipeline
    from knowme.learn import runs as all_runs

    with state.open() as home:
        found = all_runs.find(home.path, run)
        counts = found.needs("data")["counts"]
        if not (yes or as_json):
            note(f"It holds {counts['train'] + counts['validation']} examples in your own words.")
            click.confirm("Write it?", default=True, abort=True)
        made = pipeline.export_notebook(home, found, target, form=form, preset=preset or "")
    if as_json:
        console.say_json({"run": found.id, "files": [str(each) for each in made]})
        return
    for each in made:
        say(f"{good('made')} {each}")
    note("Bring its result home: knowme learn import-run FILE")


@command(learn, "import-run", json=True)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_run(state: State, file: Path, as_json: bool) -> None:
    """Take over an adapter that was trained elsewhere.

    It is checked that it was trained on this run's own data, and as this run says.
    """
    from knowme.learn import notebook

    with state.open() as home:
        found = notebook.take(home.path, file)
    if as_json:
        console.say_json({"run": found.id})
        return
    say(f"{good('taken over')} {bold(found.id)}")
    note("Next: knowme learn export, knowme learn measure")
