"""What the command line looks like: colour, progress, times, and text made safe to print.

Promises: results go to stdout, all else to stderr; colour only on a terminal and when NO_COLOR is
unset; progress rewrites one line on a terminal and is a plain line now and then elsewhere; text
that came from outside cannot move the cursor or set the terminal's title.
Refuses to know: any command.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from unicodedata import east_asian_width

import click

if TYPE_CHECKING:
    from datetime import tzinfo

    from knowme.types import Counts, Hit

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_PROSE = re.compile(r"\w")
_PIECES = re.compile(r"\n|[^\S\n]+|\S+")
PLAIN_SECONDS = 10.0


def clean(text: str) -> str:
    """Return text without control characters, escape sequences and marks that reorder a line."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def _colour() -> bool | None:
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def say(text: str = "", *, newline: bool = True) -> None:
    """Print a result."""
    click.echo(text, nl=newline, color=_colour())


def note(text: str = "") -> None:
    """Print what is not a result: to stderr."""
    click.echo(text, err=True, color=_colour())


def error(message: str, hint: str = "") -> None:
    """Print what went wrong, and the command that mends it."""
    note(f"{bad('error:')} {' '.join(clean(message).split())}")
    if hint:
        note(f"  mend: {clean(hint.removeprefix('Run: '))}")


def say_json(value: Any) -> None:
    """Print one JSON document."""
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def bold(text: str) -> str:
    """Return text in bold."""
    return click.style(text, bold=True)


def dim(text: str) -> str:
    """Return text in grey."""
    return click.style(text, dim=True)


def good(text: str) -> str:
    """Return text in green."""
    return click.style(text, fg="green")


def warn(text: str) -> str:
    """Return text in yellow."""
    return click.style(text, fg="yellow")


def bad(text: str) -> str:
    """Return text in red."""
    return click.style(text, fg="red")


def width() -> int:
    """Return how many columns a line may have."""
    return min(100, max(40, shutil.get_terminal_size((100, 24)).columns))


def money(cost: float) -> str:
    """Return a cost with as many digits as it takes to see it."""
    return f"{cost:.2f}" if cost >= 1 else f"{cost:.{max(2, 1 - math.floor(math.log10(cost)))}f}"


def wrap(text: str, indent: str = "", hanging: str | None = None) -> str:
    """Return text wrapped to the terminal, its own lines kept.

    What is left of a line that had to be broken goes on with the next one, where that is prose
    too: a text that was wrapped before does not turn into long and short lines. ``hanging`` is the
    indent of all lines but the first.
    """
    rest = indent if hanging is None else hanging
    lines: list[str] = []
    left = ""
    given = clean(text).split("\n")
    for line, following in zip(given, [*given[1:], ""], strict=True):
        whole = f"{left} {line.strip()}" if left else line
        first = rest if lines else indent
        made = textwrap.wrap(whole, width(), initial_indent=first, subsequent_indent=rest)
        broken = len(made) > 1 or bool(left)
        left = made.pop().strip() if made and broken and _PROSE.match(following) else ""
        lines += made or ([] if left else [""])
    return "\n".join(lines).rstrip()


def short(text: str, limit: int = 160) -> str:
    """Return text as one line of at most ``limit`` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def size(count: float) -> str:
    """Return bytes as a person reads them: 98.4 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def many(count: int, noun: str) -> str:
    """Return a count with its noun: "1 message", "1,200 messages"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ago(at_ms: int | None) -> str:
    """Return how long ago that was: "3 hours ago", "never"."""
    if at_ms is None:
        return "never"
    seconds = max(0.0, time.time() - at_ms / 1000)
    for limit, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= limit:
            return f"{many(int(seconds // limit), unit)} ago"
    return "just now"


def counts_line(counts: Counts) -> str:
    """Return counts as one line: "read 120, 100 new, 20 unchanged"."""
    if counts == type(counts)():
        return "nothing new"
    if "source" in counts.skipped:
        return "could not be read"
    parts = [f"read {counts.read:,}", f"{counts.new:,} new"]
    for name in ("changed", "unchanged", "removed"):
        if many := getattr(counts, name):
            parts.append(f"{many:,} {name}")
    if skipped := sum(counts.skipped.values()):
        parts.append(f"{skipped:,} skipped")
    return ", ".join(parts)


def counts_json(counts: Counts) -> dict[str, Any]:
    """Return counts as JSON."""
    from dataclasses import asdict

    return {**asdict(counts), "skipped": dict(counts.skipped), "problems": list(counts.problems)}


def print_counts(name: str, counts: Counts, problems: int = 10) -> None:
    """Print what was read from one source, what was skipped and why, and the problems by name."""
    say(f"{bold(name)}: {counts_line(counts)}")
    shown = counts.problems[:problems]
    for reason, many in sorted(counts.skipped.items(), key=lambda pair: -pair[1]):
        listed = sum(problem.endswith(f": {reason}") for problem in shown)
        if reason != "source" and many > listed:
            say(f"  skipped {many:,}: {clean(reason)}")
    for problem in shown:
        say(f"  {warn(clean(problem))}")
    if (more := len(counts.problems) - problems) > 0:
        say(f"  … and {more:,} more")


def hit_json(hit: Hit) -> dict[str, Any]:
    """Return a hit as JSON, the same names as the service uses where it has them."""
    from dataclasses import asdict

    from knowme.times import iso

    return {**asdict(hit), "id": hit.uid, "at": iso(hit.at_ms), "why": dict(hit.why)}


def whence(hit: Hit, zone: tzinfo | None) -> str:
    """Return a hit's date, speaker, source and title in one line."""
    from knowme.times import day

    parts = (named(hit.role, hit.speaker), hit.source, short(hit.title, 40))
    return "  ".join([day(hit.at_ms, zone), " · ".join(clean(part) for part in parts if part)])


def reason(why: Mapping[str, float | str]) -> str:
    """Return why a hit was found: "words 0.61, meaning 0.43"."""
    said = []
    for name, value in why.items():
        if not isinstance(value, (int, float)):
            said.append(f"{name} “{value}”" if name == "fact" else f"{name} {value}")
        elif round(value, 2):  # what counted for nothing is no reason
            said.append(f"{name} {value:.2f}")
    return clean(", ".join(said))


def named(role: str, speaker: str = "") -> str:
    """Return who said it, as a person reads it; "" for a document."""
    return speaker or {"user": "you", "document": ""}.get(role, role)


class Flow:
    """A text that streams: on a terminal broken between words, elsewhere printed as it comes."""

    def __init__(self) -> None:
        moves = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._width = width() if moves else 0
        self._at = 0  # the column of the cursor
        self._space = self._word = ""  # what waits before the next word; the word that may go on

    def tell(self, text: str) -> None:
        """Print the next piece. A word that grows over the edge is taken to the next line."""
        if not self._width:
            say(clean(text), newline=False)
            return
        for piece in _PIECES.findall(clean(text)):
            if not piece.isspace():
                self._grow(piece)
            elif piece == "\n":
                self.end()
            else:
                self._space, self._word = piece, ""

    def end(self) -> None:
        """End the line."""
        say()
        self._at, self._space, self._word = 0, "", ""

    def _grow(self, piece: str) -> None:
        began = self._at - _columns(self._word) + len(self._space)
        over = began + _columns(self._word + piece) > self._width
        if over and self._at and began > 0 and _columns(self._word + piece) <= self._width:
            if self._word:  # not colour, so not for say(), which NO_COLOR makes strip it
                sys.stdout.write(f"\r\x1b[{began}C\x1b[K")
            say(f"\n{self._word}{piece}", newline=False)
            self._at = _columns(self._word + piece)
        else:
            say(f"{self._space}{piece}", newline=False)
            self._at += len(self._space) + _columns(piece)
        self._space, self._word = "", self._word + piece


def _columns(text: str) -> int:
    return sum(1 + (east_asian_width(char) in "WF") for char in text)


class Progress:
    """One line on stderr that tells how far it is. A context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._told = time.monotonic()
        self._shown = False

    def tell(self, text: str) -> None:
        """Show ``text``, at most ten times a second (on no terminal: every ten seconds)."""
        now = time.monotonic()
        if self._quiet or now - self._told < (0.1 if self._terminal else PLAIN_SECONDS):
            return
        self._told = now
        if self._terminal:
            click.echo(f"\r\x1b[2K{short(text, width() - 1)}", err=True, nl=False)
            self._shown = True
        else:
            click.echo(clean(text), err=True)

    def done(self, what: str, many: int, total: int) -> None:
        """Show ``what`` with a share of the total."""
        share = f" of {total:,} ({100 * many // total}%)" if total else ""
        self.tell(f"{what}: {many:,}{share}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            click.echo("\r\x1b[2K", err=True, nl=False)
