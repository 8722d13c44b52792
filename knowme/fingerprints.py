"""Which stretches of a text were somebody else's words before: by hashes of their runs of words.

What an assistant answered, a tool returned, a stranger's document said or a prompt of ours quoted
is remembered here as winnowed hashes (``spans.shingles``: Schleimer, Wilkerson, Aiken 2003,
"Winnowing: Local Algorithms for Document Fingerprinting"). When the person pastes eight words of
it into a message, they are not learned as the person's.

Promises: no words are kept. Only what was said earlier counts, so an assistant that repeats the
person takes nothing from what the person said before; which message came in first does not matter
where both say when they were said. Whoever's reading a late text changes is noted in ``again``.
Refuses to know: what a message means, who may be believed (``extract.py``).

All functions take ``conn`` and run inside the caller's transaction. A message's own words that
were read are kept beside the others' under the negative of its number: to find whom a text that
comes in late, but was said earlier, concerns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import apsw

from knowme import states
from knowme.db import rows
from knowme.spans import shingles
from knowme.times import now_ms

AGAIN = "facts.again"
"""The state that holds the numbers of messages to be read once more."""
REACH = 2
"""Words beside a known run that are taken as part of it: winnowing may pass over its edges."""

_PLACE = "coalesce(m.at_ms, m.recorded_ms)"
_WHY = {
    "assistant": "words of an assistant's answer",
    "tool": "words of a tool's output",
    "document": "words of a document that is not the person's",
    "system": "words of a program",
    "user": "words of somebody else, or of a prompt of ours",
}
_OURS = "words of a prompt of ours"
_STEP = re.compile(r"\S+")
_STOP = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*\s|\n")


def add(conn: apsw.Connection, message_id: int, text: str) -> int:
    """Note a text that is not the person's; ``message_id`` 0: of no message, and before them all.

    What a prompt of ours showed goes under the number of its question. Returns how many hashes are
    new. Messages of the person that were read already and are concerned stand in ``again``.
    """
    return add_all(conn, message_id, {found[0] for found in shingles(text)})


def add_all(conn: apsw.Connection, message_id: int, hashes: Iterable[int]) -> int:
    """Note the hashes of a text (``spans.shingles``), as ``add`` does."""
    listed = list(hashes)
    before = conn.total_changes()
    conn.executemany(
        "INSERT INTO fingerprints(hash, message_id) VALUES(?, ?) ON CONFLICT DO NOTHING",
        [(each, message_id) for each in listed],
    )
    new = conn.total_changes() - before
    if new:
        note_again(conn, _concerned(conn, message_id, listed))
    return new


def own(conn: apsw.Connection, message_id: int, hashes: Iterable[int]) -> None:
    """Keep the hashes of a message that was read and holds claims."""
    conn.executemany(
        "INSERT INTO fingerprints(hash, message_id) VALUES(?, ?) ON CONFLICT DO NOTHING",
        [(each, -message_id) for each in hashes],
    )


def of(conn: apsw.Connection, hashes: Iterable[int]) -> set[int]:
    """Return those of the hashes that stand in a text that is not the person's."""
    found = rows(
        conn,
        "SELECT DISTINCT hash FROM fingerprints WHERE message_id >= 0"
        " AND hash IN (SELECT value FROM json_each(?))",
        (json.dumps(list(hashes)),),
    )
    return {each for (each,) in found}


def spans(
    conn: apsw.Connection, text: str, *, before_message: int | None = None
) -> list[tuple[int, int, str]]:
    """Return the stretches (start, end, whose words) that stand in texts that are not the person's.

    With ``before_message`` only what was said before that message counts: by the time it was said,
    else by the time it came in. In order, without overlap.
    """
    found = shingles(text)
    why = _known(conn, {each[0] for each in found}, before_message)
    marks = [(start, end, why[each]) for each, start, end in found if each in why]
    return _joined(text, marks)


def _known(conn: apsw.Connection, hashes: set[int], before: int | None) -> dict[int, str]:
    """Return hash -> whose words they were."""
    if not hashes:
        return {}
    earlier = (
        " AND (f.message_id = 0 OR"
        f" ({_PLACE}, m.id) < (coalesce(me.at_ms, me.recorded_ms), me.id)"
        # Somebody else who repeats themselves is still the one who speaks.
        " AND NOT (m.speaker <> '' AND m.speaker = me.speaker"
        " AND m.conversation_id = me.conversation_id"
        " AND (json_extract(me.meta, '$.other') OR 'ingest' = (SELECT source FROM conversations"
        " WHERE id = me.conversation_id))))"
    )
    found = rows(
        conn,
        "SELECT f.hash, coalesce(m.role, '') FROM fingerprints f"
        " LEFT JOIN messages m ON m.id = f.message_id"
        + (" JOIN messages me ON me.id = ?2" if before is not None else "")
        + " WHERE f.message_id >= 0 AND f.hash IN (SELECT value FROM json_each(?1))"
        + (earlier if before is not None else "")
        + " ORDER BY f.hash, 2 DESC",
        (json.dumps(sorted(hashes)), *(() if before is None else (before,))),
    )
    return {each: _WHY.get(role, _OURS) for each, role in found}


def _joined(text: str, marks: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Join runs that touch, and stretch each by a few words, never beyond a sentence."""
    made: list[tuple[int, int, str]] = []
    for start, end, why in sorted(marks):
        start, end = _stretched(text, start, end)
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end), made[-1][2])
        else:
            made.append((start, end, why))
    return made


def _stretched(text: str, start: int, end: int) -> tuple[int, int]:
    left = max([0, *(m.end() for m in _STOP.finditer(text, max(0, start - 200), start))])
    right = min([len(text), *(m.start() + 1 for m in _STOP.finditer(text, end - 1, end + 200))])
    before = [m.start() for m in _STEP.finditer(text, left, start)]
    after = [m.end() for m in _STEP.finditer(text, end, max(end, right))]
    return (before[-REACH:] or [start])[0], (after[:REACH] or [end])[-1]


def _concerned(conn: apsw.Connection, message_id: int, hashes: Sequence[int]) -> list[int]:
    """Return the messages read already that share words with a text and were said after it."""
    found = rows(
        conn,
        "SELECT DISTINCT me.id FROM fingerprints f JOIN messages me ON me.id = -f.message_id"
        " LEFT JOIN messages m ON m.id = ?2"
        " WHERE f.message_id < 0 AND f.hash IN (SELECT value FROM json_each(?1)) AND (?2 = 0 OR"
        f" ({_PLACE}, m.id) < (coalesce(me.at_ms, me.recorded_ms), me.id))",
        (json.dumps(list(hashes)), message_id),
    )
    return [each for (each,) in found]


def drop(conn: apsw.Connection, message_ids: Iterable[int]) -> int:
    """Forget the hashes of these messages; returns how many rows went. Looks at every row.

    The person's messages that shared words with them are to be read again: what they hold may be
    the person's own now.
    """
    ids = sorted(set(message_ids))
    listed = json.dumps(ids)
    touched = rows(
        conn,
        "SELECT DISTINCT -o.message_id FROM fingerprints f JOIN fingerprints o ON o.hash = f.hash"
        " WHERE f.message_id IN (SELECT value FROM json_each(?)) AND o.message_id < 0",
        (listed,),
    )
    before = conn.total_changes()
    conn.execute(
        "DELETE FROM fingerprints WHERE abs(message_id) IN (SELECT value FROM json_each(?))"
        " AND message_id <> 0",
        (listed,),
    )
    gone = conn.total_changes() - before
    still = [each for (each,) in touched if each not in set(ids)]
    kept = [each for each in again(conn) if each not in set(ids)]
    _put_again(conn, [*kept, *still])
    return gone


def drop_prompts(conn: apsw.Connection, texts: Iterable[str]) -> int:
    """Forget the hashes that prompts of ours share with these texts; returns how many rows went.

    What was recalled into a prompt stands under the number of that prompt's question.
    """
    hashes = {found[0] for text in texts for found in shingles(text)}
    before = conn.total_changes()
    conn.execute(
        "DELETE FROM fingerprints WHERE hash IN (SELECT value FROM json_each(?))"
        " AND (message_id = 0 OR message_id IN (SELECT m.id FROM messages m JOIN conversations c"
        " ON c.id = m.conversation_id WHERE m.role = 'user' AND c.source = 'knowme'))",
        (json.dumps(sorted(hashes)),),
    )
    return conn.total_changes() - before


def again(conn: apsw.Connection) -> list[int]:
    """Return the messages that are to be read once more, in order."""
    return sorted(set(states.read(conn, AGAIN) or ()))


def note_again(conn: apsw.Connection, message_ids: Iterable[int]) -> None:
    """Note that these messages are to be read once more."""
    new = list(message_ids)
    if new:
        _put_again(conn, [*again(conn), *new])


def read_again(conn: apsw.Connection, message_ids: Iterable[int]) -> None:
    """Note that these messages were read."""
    done = set(message_ids)
    left = [each for each in again(conn) if each not in done]
    _put_again(conn, left)


def _put_again(conn: apsw.Connection, message_ids: Iterable[int]) -> None:
    told = sorted(set(message_ids))
    if told:
        states.keep(conn, AGAIN, told, now_ms())
    else:
        states.drop(conn, AGAIN)


def overlaps(stretches: Sequence[tuple[int, int, str]], start: int, end: int) -> str:
    """Return whose words a span holds ("" if nobody else's)."""
    return next((why for a, b, why in stretches if a < end and start < b), "")


__all__ = [
    "AGAIN", "add", "add_all", "again", "drop", "note_again", "of", "overlaps", "own", "read_again",
    "spans",
]  # fmt: skip
