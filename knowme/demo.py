"""The demo: a fictional person's life is read and asked about, in a throw-away home.

    python -m knowme.demo [FOLDER]

Promises: writes only inside FOLDER, and deletes there only what an earlier demo made; nothing
leaves the machine unless the environment names a server elsewhere. It takes the same path as a
person with their own data: init, sync, ask.
Refuses to know: the answers. It prints what comes.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from knowme import console
from knowme.console import bold, dim, good, say
from knowme.errors import InputError

if TYPE_CHECKING:
    from knowme.home import Home

MARKER = ".knowme-demo"
AT = datetime(2026, 4, 13, 9, tzinfo=UTC)
"""When the questions are asked: the day after the last word of the story."""

SHOWN = 4
"""Facts that are printed."""

OWN_DATA = """\
Now yourself:
  {knowme} init                 makes ~/.knowme and finds ~/.openclaw
  {knowme} config add markdown ~/notes
  {knowme} sync
  {knowme} chat
With Ollama running (ollama pull qwen3:4b), that answers instead of the tiny model packaged here.
This throw-away home goes on answering: {knowme} --home {home} chat"""


def run(folder: Path) -> None:
    """Make the home in ``folder``, read the fictional person into it, ask three questions.

    Raises InputError when ``folder`` holds anything that no demo made.
    """
    from knowme.fiction.build import questions
    from knowme.home import Home

    began = time.monotonic()
    path = begin(folder)
    with Home.open(path) as home:
        read(home)
        _learn(home)
        say()
        say(f"Three questions, asked as on {AT:%d %B %Y}:")
        with asyncio.Runner() as runner:
            for question in questions()[:3]:
                runner.run(_ask(home, question.question))
            runner.run(home.models.aclose())
    say()
    say(good(f"The whole of it took {time.monotonic() - began:.1f} s on this machine."))
    say()
    say(OWN_DATA.format(knowme=command(), home=path))


def begin(folder: Path) -> Path:
    """Write the fictional person's files into ``folder`` and make a home that reads them.

    Returns the home's folder. Raises InputError when ``folder`` holds anything that no demo made.
    """
    from knowme import configfile
    from knowme.config import set_value
    from knowme.fiction.build import build
    from knowme.home import Home
    from knowme.settings import SourceSettings

    folder = folder.absolute()
    _empty(folder)
    openclaw, path = folder / "openclaw", folder / "home"
    build(openclaw)
    Home.create(path)
    configfile.add_source(path, SourceSettings("openclaw", str(openclaw)))
    set_value(path, "name", "Leonor")
    say(bold("Leonor Brandt Vilaça does not exist. Three months of her OpenClaw do:"))
    say(dim(f"  {openclaw}"))
    return path


def read(home: Home) -> None:
    """Read the sources, and say what came."""
    from knowme import sync

    say()
    say(bold("$ knowme sync"))
    reading = time.monotonic()
    with console.Progress() as line:
        done = sync.sync(
            home, (), lambda name, counts: line.tell(f"{name}: {console.counts_line(counts)}")
        )
    for name, counts in done.items():
        console.print_counts(name, counts, problems=3)
    say(dim(f"  {time.monotonic() - reading:.1f} s"))


def _learn(home: Home) -> None:
    """Learn facts and the profile, and show some of it: by rules alone, no model is asked."""
    from knowme import facts, structure
    from knowme.commands.begin import print_learned
    from knowme.portrait import read_file
    from knowme.types import ME
    from knowme.workspace import PROFILE

    print_learned(structure.catch_up(home))
    with home.db.read() as conn:
        found = facts.believed(conn, subject=ME)
    say()
    say(bold("$ knowme facts") + dim(f"  (the first {SHOWN} of {len(found)})"))
    for fact in found[:SHOWN]:
        say(f"  {console.clean(fact.sentence)}  {dim(f'“{console.short(fact.quote, 60)}”')}")
    say()
    say(bold("$ knowme profile show"))
    for line in read_file(home.path / PROFILE).splitlines():
        if line.startswith(("- ", "## ")):
            say(f"  {console.clean(line)}")


async def _ask(home: Home, question: str) -> None:
    from knowme.ask import Asked
    from knowme.commands.recall import answer, print_sources

    say()
    say(bold(f'$ knowme ask "{question}"'))
    began = time.monotonic()
    asked = Asked(question, now_ms=int(AT.timestamp() * 1000))
    started, _ = await answer(home, asked)
    print_sources(started, home)
    say(dim(f"{started.model} ({started.engine}), {time.monotonic() - began:.1f} s"))


def _empty(folder: Path) -> None:
    """Delete what an earlier demo made here, and nothing else."""
    if folder.exists() and not (folder.is_dir() and _is_ours(folder)):
        raise InputError(
            f"{folder} holds something that no demo made.", "Name a folder that does not exist."
        )
    for name in ("openclaw", "home"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _is_ours(folder: Path) -> bool:
    return (folder / MARKER).exists() or not any(folder.iterdir())


def command() -> str:
    """Return how `knowme` is called from here: a path where it is not the one on PATH."""
    here = Path(sys.executable).parent / "knowme"
    if not here.exists() or shutil.which("knowme") == str(here):
        return "knowme"
    try:
        return str(here.relative_to(Path.cwd()))
    except ValueError:
        return str(here)


if __name__ == "__main__":
    from knowme.cli import run as cli_run

    sys.exit(cli_run(["demo", *sys.argv[1:]]))
