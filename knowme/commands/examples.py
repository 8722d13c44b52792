"""learn collect, add, review, teach, paraphrase: examples that are asked for, written, judged."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from knowme import console
from knowme.commands import State, command
from knowme.commands.learn import learn, telling
from knowme.commands.recall import when
from knowme.console import bold, dim, good, note, say, warn
from knowme.types import PURPOSES

if TYPE_CHECKING:
    from knowme.learn.teacher import Estimate, Taught

_purpose = click.option(
    "--purpose", type=click.Choice(PURPOSES), help="What it is for; else learn.purpose."
)


_HOW = {
    "assistant-for-me": "Write the answer that you would like to get from an assistant.",
    "sound-like-me": "Answer as you would to somebody you know.",
}


def _line(prompt: str) -> str:
    """Read a line; where there is none, what is said next begins a line of its own."""
    try:
        return input(prompt)
    except (EOFError, KeyboardInterrupt):
        say()
        raise


def _line_beside(prompt: str) -> str:
    """Read a line; the prompt goes to stderr, since stdout holds a document."""
    click.echo(prompt, err=True, nl=False)
    return input()


def _told(text: str) -> None:
    say(console.clean(text))


def _shown(text: str) -> None:
    """Print a line of an example that is looked at."""
    if re.fullmatch(r"\[\d+/\d+\]", text):
        say()
        say(bold(text))
    else:
        say(console.wrap(text, "", "  "))


def _shown_beside(text: str) -> None:
    note(console.clean(text))


# --- from the person ----------------------------------------------------------------------------


@command(learn, "collect", json=True)
@_purpose
@click.option("--most", type=click.IntRange(1), help="So many questions at most.")
def collect(state: State, purpose: str | None, most: int | None, as_json: bool) -> None:
    """Be interviewed about what is missing. Your answers are kept like all that you say."""
    from knowme.learn import collect as collecting

    with state.open() as home:
        meant = purpose or home.settings.learn.purpose
        if as_json or not sys.stdin.isatty():
            left = collecting.questions(home, meant)
            if as_json:
                told = [{"id": each.id, "theme": each.theme, "text": each.text} for each in left]
                console.say_json({"missing": dict(collecting.missing(home, meant)), "left": told})
                return
        else:
            note(dim(_HOW[meant]))
            note(dim("An empty line or /skip leaves a question out, /quit ends. Go on any time."))
        many = collecting.ask(home, meant, read=_line, say=_told, most=most)
    say(f"{good('kept')} {console.many(many, 'answer')}")


@command(learn, "add")
@_purpose
@click.argument("prompt")
@click.argument("answer")
def add(state: State, purpose: str | None, prompt: str, answer: str) -> None:
    """Write an example yourself: what is said, what is answered."""
    from knowme.learn import collect as collecting

    with state.open() as home:
        collecting.add(home, prompt, answer, purpose or home.settings.learn.purpose)
    say(good("kept"))


@command(learn, "review", json=True)
@click.argument("run", required=False, default="")
@click.option("--share", type=click.FloatRange(0.01, 1.0), default=0.15, show_default=True,
              help="Of the examples.")  # fmt: skip
def review(state: State, run: str, share: float, as_json: bool) -> None:
    """Look at some examples of a run and say which to keep. It holds for later data sets, too."""
    from knowme.learn import dataset, runs
    from knowme.learn import review as reviewing

    with state.open() as home:
        found = runs.find(home.path, run)
        every = [each for name in ("train", "validation") for each in dataset.read(found, name)]
        counts = reviewing.ask(
            home, every, read=_line_beside if as_json else _line,
            say=_shown_beside if as_json else _shown, share=share,
        )  # fmt: skip
    if as_json:
        console.say_json({"run": found.id, **counts})
        return
    if not (counts["shown"] or counts["left"]):
        note("This share was looked at before. More: knowme learn review --share 1")
        return
    say(f"{counts['keep']} kept, {counts['drop']} dropped, {counts['left']} left to look at")
    if counts["drop"]:
        note("They are left out of the next data set: knowme learn dataset")


# --- from a model -------------------------------------------------------------------------------


@command(learn, "teach", json=True)
@_purpose
@click.option("--kind", "kinds", multiple=True, help="Only on this theme; repeatable.")
@click.option("--since", metavar="WHEN", help="Only of what was said since: a date, 7d, 3w, 6m.")
@click.option("--again", is_flag=True, help="Also of what was taught from before.")
@click.option("--no-wait", is_flag=True, help="Do not wait for a batch; fetch it the next time.")
@click.option("--yes", is_flag=True, help="Do not ask, whatever it costs.")
def teach(
    state: State,
    purpose: str | None,
    kinds: tuple[str, ...],
    since: str | None,
    again: bool,
    no_wait: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Let a model write questions about you, with answers.

    The model is that of learn.teacher; it reads transcripts of what you said.
    What it would cost and what would leave is shown first. Only what your own words bear out is
    kept.
    """
    import asyncio

    from knowme.learn import teacher
    from knowme.learn.teacher import THEMES
    from knowme.times import zone

    with state.open() as home, telling() as tell:
        since_ms = when(since, zone(home.settings.memory.timezone))

        async def work() -> Taught:
            try:
                return await teacher.teach(
                    home,
                    purpose=purpose or home.settings.learn.purpose,
                    confirm=_confirm(yes, as_json),
                    progress=tell,
                    since_ms=since_ms,
                    wait=not no_wait,
                    again=again,
                    kinds=kinds or tuple(THEMES),
                )
            finally:
                await home.models.aclose()

        done = asyncio.run(work())
    _print_taught(done, as_json, "Nothing was read: there is nothing new (again: --again), or the "
                  "privacy settings (privacy.recalled) keep it from this model.")  # fmt: skip


@command(learn, "paraphrase", json=True)
@_purpose
@click.option("--each", type=click.IntRange(1, 5), default=2, show_default=True,
              help="Versions of a question.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask, whatever it costs.")
def paraphrase(state: State, purpose: str | None, each: int, yes: bool, as_json: bool) -> None:
    """Let a model put your own questions in other words."""
    import asyncio

    from knowme.learn import collect as collecting
    from knowme.learn import paraphrase as rewording

    with state.open() as home, telling() as tell:
        meant = purpose or home.settings.learn.purpose
        of = [*collecting.manual(home, meant), *collecting.pairs(home, meant)]

        async def work() -> Taught:
            try:
                return await rewording.paraphrase(
                    home, purpose=meant, of=of, confirm=_confirm(yes, as_json), progress=tell,
                    each=each,
                )  # fmt: skip
            finally:
                await home.models.aclose()

        done = asyncio.run(work())
    _print_taught(done, as_json, "There is nothing to reword, or privacy keeps it here: first "
                  "write some examples (knowme learn add, knowme learn collect).")  # fmt: skip


def _confirm(yes: bool, quiet: bool) -> Callable[[Estimate], bool]:
    """Return what shows an estimate and asks."""

    def confirm(guess: Estimate) -> bool:
        if not quiet:
            _print_guess(guess)
        if yes:
            return True
        if guess.local and guess.cost == 0:
            return True
        return not quiet and click.confirm("Send it?", default=False)

    return confirm


def _print_guess(guess: Estimate) -> None:
    say(f"{console.many(guess.transcripts, 'transcript')} to {bold(guess.model)} at {guess.where}: "
        f"{guess.prompt_tokens:,} tokens there, {guess.answer_tokens:,} back at most"
        + (f", {console.money(guess.cost)} at most" if guess.cost else ""))  # fmt: skip
    if not guess.local:
        for name, policy in guess.classes.items():
            say(f"  {name}: {policy}")
    for name, many in guess.left_out.items():
        say(dim(f"  stays here: {many} {name}"))


def _print_taught(done: Taught, as_json: bool, nothing: str) -> None:
    from dataclasses import asdict

    if as_json:
        console.say_json(_plain(asdict(done)))
        return
    if done.confirmed is False:
        say("Nothing was sent.")
        return
    if not (done.transcripts or done.pairs or done.waiting or done.dropped or done.failed):
        say(console.wrap(nothing))
        return
    cost = f", {console.money(done.cost)}" if done.cost else ""
    say(f"{good('kept')} {console.many(done.pairs, 'example')} of "
        f"{console.many(done.transcripts, 'transcript')}{cost}")  # fmt: skip
    for name, many in (*done.dropped.items(), *done.failed.items()):
        say(dim(f"  left out: {many} ({name})"))
    if done.waiting:
        note(warn(f"{console.many(done.waiting, 'batch')} still at work: ask again later."))


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(each) if isinstance(each, dict) else each for name, each in told.items()}
