"""The spot check: the person looks at some of a data set's pairs, and their verdicts are kept.

Promises: a pair is judged by its texts, so a verdict holds in every later data set; the same seed
draws the same pairs; what was judged is not shown again; it can be stopped after any pair.
Refuses to know: how pairs are made.

``sample`` and ``decide`` are pure or take ``conn``; ``ask`` is the terminal's loop.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import apsw

from knowme import archive
from knowme.db import rows
from knowme.errors import InputError
from knowme.times import day, now_ms, zone
from knowme.types import Pair

if TYPE_CHECKING:
    from knowme.home import Home

KEEP, DROP = "keep", "drop"
VERDICTS = (KEEP, DROP)
SHARE = 0.15
_ANSWERS = {"k": KEEP, KEEP: KEEP, "y": KEEP, "d": DROP, DROP: DROP, "n": DROP}
_STOP, _SKIP = ("q", "quit"), ("", "s", "skip")
_QUOTE_CHARS = 300


def sample(
    pairs: Sequence[Pair],
    verdicts: Mapping[str, str] | Collection[str],
    share: float = SHARE,
    seed: int = 1,
) -> list[Pair]:
    """Return pairs to look at: ``share`` of each kind, those that were judged already counted in.

    Each kind has one at least. What models wrote comes first, then the order of the draw. Raises
    InputError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"A share of {share:g} cannot be drawn.", "Between 0 and 1, such as 0.15.")
    kinds: dict[str, dict[str, Pair]] = defaultdict(dict)
    seen: set[str] = set()
    for pair in sorted(pairs, key=lambda each: _rank(each.kind)):
        if pair.uid not in seen:  # of two kinds with the same texts, the one that is shown first
            kinds[pair.kind][pair.uid] = pair
            seen.add(pair.uid)
    drawn: list[Pair] = []
    for held in kinds.values():
        judged = sum(uid in verdicts for uid in held)
        wanted = max(1, -(-round(len(held) * share * 1e6) // 1_000_000)) - judged
        left = sorted(uid for uid in held if uid not in verdicts)
        # Each uid draws its own number: a set that grows shows few others.
        left.sort(key=lambda uid: random.Random(f"{seed} {uid}").random())
        drawn += [held[uid] for uid in left[: max(0, wanted)]]
    return drawn


def _rank(kind: str) -> tuple[bool, str]:
    return kind not in ("teacher", "paraphrase"), kind


def verdicts(conn: apsw.Connection) -> dict[str, str]:
    """Return what was said of each pair: uid -> keep or drop."""
    return dict(rows(conn, "SELECT uid, verdict FROM verdicts"))


def decide(conn: apsw.Connection, uid: str, verdict: str, at_ms: int) -> None:
    """Keep a verdict; a later one takes its place. Raises InputError."""
    if verdict not in VERDICTS:
        raise InputError(f"{verdict!r} is no verdict.", f"One of: {', '.join(VERDICTS)}")
    conn.execute(
        "INSERT INTO verdicts(uid, verdict, at_ms) VALUES(?, ?, ?) ON CONFLICT(uid)"
        " DO UPDATE SET verdict = excluded.verdict, at_ms = excluded.at_ms",
        (uid, verdict, at_ms),
    )


def shown(home: Home, pair: Pair) -> list[str]:
    """Return the lines in which a pair is shown: its kind, its texts, and what it rests on."""
    with home.db.read() as conn:
        found = archive.messages(conn, pair.because)
    tz = zone(home.settings.memory.timezone)
    labels = f" ({', '.join(pair.labels)})" if pair.labels else ""
    lines = [f"{pair.kind}, {pair.purpose}{labels}"]
    lines += [f"{each.role}: {each.content}" for each in pair.messages]
    if pair.rejected:
        lines.append(f"and not: {pair.rejected}")
    said = {each.content for each in pair.messages}
    for number in pair.because:
        if (message := found.get(number)) is None:
            lines.append(f"rests on message {number}, which is gone")
        elif message.text not in said:
            quote = " ".join(message.text.split())
            quote = quote if len(quote) <= _QUOTE_CHARS else quote[: _QUOTE_CHARS - 1] + "…"
            lines.append(f"{day(message.at_ms, tz)}, {message.speaker or message.role}: “{quote}”")
    return lines


def ask(
    home: Home,
    pairs: Sequence[Pair],
    *,
    read: Callable[[str], str],
    say: Callable[[str], None],
    share: float = SHARE,
    seed: int = 1,
) -> dict[str, int]:
    """Show pairs and take verdicts; returns {"shown", "keep", "drop", "left"}.

    ``read`` shows a prompt and returns a line: k(eep), d(rop), s(kip), q(uit); EOFError and
    KeyboardInterrupt end it. Each verdict is kept at once.
    """
    with home.db.read() as conn:
        before = verdicts(conn)
    todo = sample(pairs, before, share, seed)
    counts = {"shown": 0, KEEP: 0, DROP: 0, "left": len(todo)}
    for number, pair in enumerate(todo, 1):
        say(f"[{number}/{len(todo)}]")
        for line in shown(home, pair):
            say(line)
        verdict = _verdict(read, say)
        if verdict is None:
            break
        counts["shown"] += 1
        counts["left"] -= 1
        if verdict:
            home.db.write(lambda conn, uid=pair.uid, v=verdict: decide(conn, uid, v, now_ms()))  # type: ignore[misc]
            counts[verdict] += 1
    return counts


def _verdict(read: Callable[[str], str], say: Callable[[str], None]) -> str | None:
    """Return keep, drop or "" (skipped); None: enough."""
    while True:
        try:
            said = read("keep, drop, skip or quit? ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            return None
        if said in _STOP:
            return None
        if said in _SKIP:
            return ""
        if said in _ANSWERS:
            return _ANSWERS[said]
        say(f"{said!r} is no answer: k, d, s or q.")
