"""The command line: `knowme COMMAND`. Thin: it parses, calls the house, prints.

Promises: exit code 0, 1 (an error, told in two lines: what happened, and what mends it), 2 (a
wrong command line) or 130 (Ctrl-C); no traceback unless --verbose; `--help` imports click alone.
Refuses to know: how anything is done. The commands themselves are in ``knowme/commands``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from knowme import console
from knowme.commands import (
    State,
    begin,
    cli,
    context,
    egress,
    examples,
    facts,
    forget,
    keep,
    learn,
    personality,
    profile,
    recall,
    route,
    serve,
)
from knowme.errors import KnowmeError

CHAPTERS = (
    *(begin, recall, facts, profile, context, learn, examples, personality),
    *(route, egress, serve, keep, forget),
)
"""Imported for their commands, which add themselves to ``cli``."""


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    state = State()
    try:
        result = cli.main(
            args=None if args is None else list(args),
            prog_name="knowme",
            standalone_mode=False,
            obj=state,
        )
        return result if isinstance(result, int) else 0
    except KnowmeError as error:
        if state.verbose:
            import traceback

            traceback.print_exc()
        console.error(error.message, state.here(error.hint))
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        within = getattr(error, "ctx", None)
        asked = within.command_path if within is not None else "knowme"
        console.error(error.format_message(), f"{asked} --help")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.note("stopped")
        return 130
    except Exception as error:
        if state.verbose:
            raise
        console.error(*_unforeseen(error))
        return 1


def _unforeseen(error: Exception) -> tuple[str, str]:
    if isinstance(error, OSError) and error.filename:
        mend = "Check its permissions, and that its disk can be written and is not full."
        return f"{error.filename}: {error.strerror}.", mend
    return (
        f"{type(error).__name__}: {error}",
        "This is a bug in knowme: add --verbose to see where, and please report it.",
    )


def main() -> None:
    """Run `knowme` and exit."""
    sys.exit(run())
