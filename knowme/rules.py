"""The person's own rules of routing: a pattern that is found in a message names who answers.

Promises: every pattern is compiled before the first message, and a bad one is refused with its
place; a pattern of plain words means whole words; no pattern, however written, holds a message up
for longer than PATIENCE_SECONDS: then it does not match, and ``Rules.slow`` says so.
Refuses to know: whether the model that a rule names may answer this message (``route.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from knowme.errors import ConfigError
from knowme.settings import RuleSettings
from knowme.words import NO_SPACES

PATIENCE_SECONDS = 0.02
READS = 20_000
"""Characters of a message that patterns are looked for in."""
LONGEST = 2_000
"""Characters of a pattern: beyond, compiling it may take longer than anyone waits."""
MOST = 10_000
"""Times that counts such as {9} may repeat something, multiplied where they are nested: the package
writes every repetition out, takes gigabytes for ((a{999}){999}){999}, and may crash."""
DEEPEST = 100
"""Groups within groups: the package compiles them by recursion."""

_PIECE = re.compile(
    r"(?P<other>\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|[^\\\[(){}])"
    r"|(?P<open>\()|(?P<close>\))|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)[^}]*\}",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^\W_][\w |]*")


class Rules:
    """Compiled rules, in order. ``slow`` maps a rule's number (from 1) to what was wrong with it.

    Only that note ever changes; it may be read and written by any thread.
    """

    def __init__(self, compiled: Sequence[tuple[RuleSettings, Any]] = ()) -> None:
        self._compiled = tuple(compiled)
        self.slow: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._compiled)

    def match(self, text: str) -> RuleSettings | None:
        """Return the first rule whose pattern is found in a message, or None."""
        found = self.found(text)
        return None if found is None else found[1]

    def found(self, text: str) -> tuple[int, RuleSettings] | None:
        """Return the first rule that matches, after its number (from 1), or None."""
        seen = text[:READS]
        for number, (rule, pattern) in enumerate(self._compiled, 1):
            try:
                if pattern.search(seen, timeout=PATIENCE_SECONDS) is not None:
                    return number, rule
            except TimeoutError:
                self._note(number, rule)
        return None

    def _note(self, number: int, rule: RuleSettings) -> None:
        if number not in self.slow:
            self.slow[number] = (
                f"Rule {number} ({rule.pattern!r}) took longer than "
                f"{PATIENCE_SECONDS * 1000:.0f} ms on a message and was passed over. Patterns with "
                "a repetition inside a repetition, such as (a+)+, do that."
            )


def compile_rules(rules: Sequence[RuleSettings], models: Mapping[str, str] | None = None) -> Rules:
    """Compile rules of routing; ``models`` (role -> the model's name) are those they may name.

    Case does not matter, unless a pattern says (?-i:...). Raises ConfigError for a pattern that is
    empty, too long or malformed, and for a model that is not there.
    """
    compiled = []
    for number, rule in enumerate(rules, 1):
        pattern = _compiled(number, rule.pattern)
        if models is not None:
            _check_model(number, rule.model, models)
        compiled.append((rule, pattern))
    return Rules(compiled)


def _check_model(number: int, model: str, models: Mapping[str, str]) -> None:
    if model not in models and model not in models.values():
        told = ", ".join(f"{role} ({name})" if name else role for role, name in models.items())
        raise ConfigError(
            f"Rule {number} of routing.rules sends messages to {model!r}, which is no model here.",
            f"Use one of: {told or 'none is configured'}.",
        )


def _compiled(number: int, pattern: str) -> Any:
    import regex

    name = f"The pattern of rule {number} of routing.rules"
    if not pattern.strip():
        raise ConfigError(
            f"{name} is empty.", "Write words or a regular expression: pattern: 'python|sql'"
        )
    if len(pattern) > LONGEST:
        raise ConfigError(
            f"{name} has {len(pattern):,} characters.",
            f"Write several rules of at most {LONGEST:,} characters each.",
        )
    _check_size(name, pattern)
    if plain := _whole_words(pattern):
        return regex.compile(plain, regex.IGNORECASE)
    try:
        return regex.compile(pattern, regex.IGNORECASE | regex.VERSION0)
    except regex.error as error:
        raise ConfigError(*_told(name, pattern, error)) from error
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as e:
        # What the package lets through for some malformed patterns, as things stand.
        raise ConfigError(
            f"{name} cannot be compiled: {e or type(e).__name__}.\n  {_line(pattern)}",
            "Write it in a simpler way.",
        ) from e


def _check_size(name: str, pattern: str) -> None:
    """Refuse what would be too large once compiled, by a rough count from above."""
    open_groups: list[int] = []
    so_far, last = 0, 1  # the size of this group, and of the piece that a count would repeat
    for piece in _PIECE.finditer(pattern):
        if piece["open"]:
            open_groups.append(so_far)
            so_far, last = 0, 1
        elif piece["close"]:
            last = max(so_far, 1)
            so_far = (open_groups.pop() if open_groups else 0) + last
        elif piece["other"]:
            so_far, last = so_far + 1, 1
        else:
            times = max(int(piece["least"] or 1), int(piece["most"] or 1), 1)
            so_far, last = so_far + last * (times - 1), last * times
        if len(open_groups) > DEEPEST or so_far > MOST:
            wrong = (
                "nests its groups too deeply" if so_far <= MOST else "repeats too much by counts"
            )
            raise ConfigError(
                f"{name} {wrong}, at position {piece.end()}.\n  {_line(pattern)}",
                "Write * or + for a large count, and nest nothing that is counted.",
            )


def _told(name: str, pattern: str, error: Any) -> tuple[str, str]:
    """Return what is wrong with a pattern, pointing at the place, and what mends it."""
    at = error.pos if error.pos is not None else len(pattern)
    where = f"{name} is no regular expression: {error.msg} at position {at + 1}."
    start = max(0, at - 40)
    shown = _line(pattern[start : at + 40])
    return f"{where}\n  {shown}\n  {' ' * (at - start)}^", _mend(error.msg, pattern, at)


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:80])


def _mend(reason: str, pattern: str, at: int) -> str:
    if "parenthes" in reason or "missing )" in reason:
        return r"Close every ( with a ). To find the sign itself write \( or \)."
    if "missing ]" in reason or "unterminated character set" in reason or "bad set" in reason:
        return r"Close every [ with a ]. To find the sign itself write \[."
    if "repeat count" in reason or "min repeat" in reason:
        return "Write a count as {3} or {2,5}, the smaller number first."
    if "repeat" in reason:
        sign = pattern[at : at + 1] or pattern[-1:]
        return rf"A repetition ({sign}) needs something before it. To find the sign itself: \{sign}"
    if "escape" in reason:
        return r"A backslash must be followed by what it escapes. To find a backslash write \\."
    return r"Mend it there; a sign that is meant as itself is written with a \ before it."


def _whole_words(pattern: str) -> str:
    """Return the expression for a pattern of plain words ("code|unit test"), "" for any other.

    Scripts without spaces have no ends of words to look for.
    """
    if not _PLAIN.fullmatch(pattern.strip()):
        return ""
    pieces = []
    for words in (part.split() for part in pattern.split("|")):
        if not words:
            continue  # "a||b", a slip: an empty alternative would match every message
        piece = r"\s+".join(map(re.escape, words))
        pieces.append(piece if NO_SPACES.search(piece) else rf"\b{piece}\b")
    return "|".join(pieces)


__all__ = ["LONGEST", "PATIENCE_SECONDS", "READS", "Rules", "compile_rules"]
