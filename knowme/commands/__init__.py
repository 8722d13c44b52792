"""The commands of `knowme`, by chapter: what they share. Each module adds its own to ``cli``.

Promises: --home and --verbose are understood before and after a command; a home is opened only by
the command that needs one.
Refuses to know: how an error ends the process (``cli.py`` does).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from knowme import __version__

if TYPE_CHECKING:
    from knowme.home import Home

F = TypeVar("F", bound=Callable[..., Any])

CHAPTERS: dict[str, tuple[str, ...]] = {
    "Begin": ("init", "sync", "import-file", "doctor"),
    "Recall": ("ask", "chat", "search", "why"),
    "Know": ("facts", "inbox", "profile", "context"),
    "Learn": ("learn", "personality"),
    "Models": ("route", "rate", "egress", "models"),
    "Serve": ("serve", "daemon", "jobs"),
    "Keep": (
        "stats",
        "config",
        "reindex",
        "rebuild",
        "forget",
        "export",
        "backup",
        "restore",
        "version",
    ),
}


_NAMES = "|".join(name for names in CHAPTERS.values() for name in names)
_COMMAND = re.compile(rf"\bknowme (?=(?:{_NAMES})\b)")


@dataclass
class State:
    """What the options before and after a command say."""

    home: str | None = None
    verbose: bool = False

    @property
    def path(self) -> Path:
        """Return the folder of the home."""
        from knowme.home import home_path

        return home_path(self.home)

    def here(self, hint: str) -> str:
        """Return a hint whose commands work on the home that --home named."""
        if self.home is None:
            return hint
        from shlex import quote

        return _COMMAND.sub(lambda found: f"knowme --home {quote(str(self.home))} ", hint)

    @contextmanager
    def open(self, **overrides: Any) -> Iterator[Home]:
        """Open the home, with settings from flags: ``service__port=8301``.

        Raises HomeError where memory.db is gone and a backup of it is there: an empty one made in
        its place would look like a memory that was lost.
        """
        from knowme.home import Home

        if (self.path / "config.yaml").exists() and not (self.path / "memory.db").exists():
            from knowme import backup
            from knowme.errors import HomeError

            if known := backup.backups(self.path):
                told = f"{self.path / 'memory.db'} is gone. The newest backup is {known[0].name}."
                raise HomeError(told, "Run: knowme restore")
        flags = {key.replace("__", "."): value for key, value in overrides.items()}
        with Home.open(self.path, flags) as home:
            yield home


class Chapters(click.Group):
    """A group whose help shows its commands by what they are for, and that guesses a slip."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command; for a misspelt one fail with the nearest."""
        found = super().get_command(ctx, cmd_name)
        if found is None and not ctx.resilient_parsing:
            from difflib import get_close_matches

            shown = [name for names in CHAPTERS.values() for name in names]
            near = get_close_matches(cmd_name, shown, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {cmd_name!r}.{guess}")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the chapters."""
        for chapter, names in CHAPTERS.items():
            rows = [(f"{name:<11}", self.commands[name].get_short_help_str(62)) for name in names]
            with formatter.section(chapter):
                formatter.write_dl(rows)


class Chapter(click.Group):
    """A group that does its first, harmless thing when it is told nothing: `knowme jobs` lists."""

    def __init__(self, *args: Any, first: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self.first = first

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the first command where there is none."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [self.first, *args]
        return super().parse_args(ctx, args)


def chapter(name: str, first: str) -> Callable[[F], Chapter]:
    """Add a group of commands; ``first`` is the one meant where none is named."""

    def add(function: F) -> Chapter:
        # A docstring with a real \b in it would have to be no raw one, which the linter forbids.
        told = (function.__doc__ or "").replace("\\b\n", "\b\n")
        made = Chapter(name, callback=function, help=told, first=first)
        cli.add_command(made)
        return made

    return add


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(State), name, value)

    return callback


def _everywhere(hidden: bool) -> Callable[[F], F]:
    """Add --home and --verbose: shown on the group, understood after each command too."""

    def add(function: F) -> F:
        function = click.option(
            "--verbose", is_flag=True, hidden=hidden, expose_value=False,
            callback=_remember("verbose"), help="Show the traceback of an error.",
        )(function)  # fmt: skip
        return click.option(
            "--home", metavar="PATH", hidden=hidden, expose_value=False,
            callback=_remember("home"), help="The home; else KNOWME_HOME, else ~/.knowme.",
        )(function)  # fmt: skip

    return add


def command(
    group: click.Group, name: str, *, json: bool = False, hidden: bool = False
) -> Callable[[F], click.Command]:
    """Add a command that takes the State, and --json (as ``as_json``) where it makes sense."""

    def add(function: F) -> click.Command:
        wrapped: Any = _everywhere(hidden=True)(click.pass_obj(function))
        if json:
            wrapped = click.option(
                "--json", "as_json", is_flag=True, help="Print one JSON document."
            )(wrapped)
        return group.command(name, hidden=hidden)(wrapped)

    return add


INTRODUCTION = """A private AI that learns one person, on that person's own machine.

\b
knowme init      make a home, find what there is to read
knowme sync      read it
knowme ask "what did I decide about the heating?"
"""


@click.group(
    cls=Chapters, help=INTRODUCTION, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="knowme")
@_everywhere(hidden=False)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Hold what the options say, for the command that follows."""
    ctx.ensure_object(State)
