"""The lines as they are kept, the person's decisions on them, and what became of each.

Promises: every change is an event; a decision holds through every rebuild; a page that was edited
by hand is absorbed line by line; what is forgotten leaves no word here.
Refuses to know: how a line comes about, where the page is a file.

All functions take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import apsw

from knowme import beliefs, states
from knowme.db import rows, value
from knowme.errors import InputError, NotFoundError
from knowme.profile.derive import (
    ACTIONS,
    PRIVATE,
    TITLE,
    Decision,
    apply,
    in_order,
    line_uid,
    normal,
    untagged,
)
from knowme.profile.page import Page, Read, read_page
from knowme.psyche import MIND
from knowme.types import Evidence, Line

_COLUMNS = ("uid", "section", "text", "confidence", "state", "written_by", "sensitive", "place",
            "pinned", "recorded_ms", "retired_ms")  # fmt: skip


class Change(NamedTuple):
    """A line that is not what it was; None where there was, or is, none."""

    uid: str
    before: Line | None
    after: Line | None


def line_of(row: Mapping[str, Any], evidence: tuple[Evidence, ...] = ()) -> Line:
    """Return the line that a row (column -> value) is."""
    known = {name: row[name] for name in _COLUMNS}
    known["sensitive"] = tuple(kind for kind in str(row["sensitive"]).split(",") if kind)
    known["pinned"] = bool(row["pinned"])
    return Line(**known, evidence=evidence)


def row_of(line: Line) -> dict[str, Any]:
    """Return a line as its row: column -> value."""
    row = {name: getattr(line, name) for name in _COLUMNS}
    return row | {"sensitive": ",".join(line.sensitive), "pinned": int(line.pinned)}


def _event_row(conn: apsw.Connection, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as events hold it: with the messages it rests on, to be forgotten with."""
    found = rows(
        conn,
        "SELECT DISTINCT message_id FROM line_evidence WHERE line_uid = ? ORDER BY message_id",
        (row["uid"],),
    )
    return row | {"because": [message_id for (message_id,) in found]}


# --- storing --------------------------------------------------------------------------------------

_STATE = "profile"
WHOLE = 4
"""Lines of a page that do not all go at once by an edit."""


def decisions(conn: apsw.Connection) -> list[Decision]:
    """Return what the person said of lines and did not take back, oldest first."""
    found = rows(
        conn,
        "SELECT id, at_ms, uid, action, key, text FROM decisions"
        " WHERE target = 'line' AND undone_ms IS NULL ORDER BY id",
    )
    return [Decision(*row) for row in found]


def lines(conn: apsw.Connection) -> list[Line]:
    """Return every line with its evidence, in the order of the page."""
    quotes: dict[str, list[Evidence]] = {}
    for uid, *rest in rows(
        conn,
        "SELECT line_uid, message_id, start, end, quote, fact_uid FROM line_evidence"
        " ORDER BY line_uid, message_id, start",
    ):
        quotes.setdefault(uid, []).append(Evidence(*rest))
    return in_order(
        line_of(row, tuple(quotes.get(str(row["uid"]), ()))) for row in _rows(conn).values()
    )


def _rows(conn: apsw.Connection, uid: str = "") -> dict[str, dict[str, Any]]:
    chosen, values = (" WHERE uid = ?", (uid,)) if uid else ("", ())
    found = rows(conn, f"SELECT {', '.join(_COLUMNS)} FROM lines{chosen}", values)
    return {row[0]: dict(zip(_COLUMNS, row, strict=True)) for row in found}


def store(conn: apsw.Connection, lines: Iterable[Line], at_ms: int) -> int:
    """Make the table hold exactly these lines; each difference is an event. Returns how many.

    A line that was there keeps the time when it was first learned.
    """
    before, changed = _rows(conn), 0
    wanted = {line.uid: line for line in lines}
    for uid in sorted(set(before) - set(wanted)):
        gone = _event_row(conn, before[uid])
        conn.execute("DELETE FROM lines WHERE uid = ?", (uid,))
        beliefs.note(conn, "line", uid, "unlearned", "rules", gone, None, at_ms)
        changed += 1
    for uid, line in sorted(wanted.items()):
        was = before.get(uid)
        recorded = at_ms if was is None else int(was["recorded_ms"])
        changed += _put(conn, was, replace(line, recorded_ms=recorded), at_ms)
    return changed


def _put(
    conn: apsw.Connection,
    was: dict[str, Any] | None,
    line: Line,
    at_ms: int,
    action: str = "",
    decision_id: int | None = None,
) -> bool:
    """Write one line and its event; nothing where it is as it was."""
    row = row_of(line)
    if row == was:
        _put_evidence(conn, line)
        return False
    before = None if was is None else _event_row(conn, was)
    columns = ", ".join(_COLUMNS)
    conn.execute(
        f"INSERT INTO lines({columns}) VALUES({', '.join('?' * len(_COLUMNS))})"
        " ON CONFLICT(uid) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:]),
        tuple(row.values()),
    )
    _put_evidence(conn, line)
    told = action or ("learned" if was is None else "changed")
    actor = "person" if decision_id is not None else line.written_by
    after = _event_row(conn, row)
    beliefs.note(conn, "line", line.uid, told, actor, before, after, at_ms, decision_id)
    return True


def _put_evidence(conn: apsw.Connection, line: Line) -> None:
    if not line.evidence and line.written_by == "person":
        return  # what it rested on when it was derived still answers `why`
    wanted = {(line.uid, e.message_id, e.start, e.end, e.quote, e.fact_uid) for e in line.evidence}
    columns = "line_uid, message_id, start, end, quote, fact_uid"
    known = set(rows(conn, f"SELECT {columns} FROM line_evidence WHERE line_uid = ?", (line.uid,)))
    if known != wanted:
        conn.execute("DELETE FROM line_evidence WHERE line_uid = ?", (line.uid,))
        conn.executemany(
            f"INSERT INTO line_evidence({columns}) VALUES(?, ?, ?, ?, ?, ?)", sorted(wanted)
        )


def find(conn: apsw.Connection, ref: str) -> Line:
    """Return the line of this uid, of the only uid that begins so, or of this wording.

    Raises NotFoundError.
    """
    known = lines(conn)
    wanted = ref.strip()
    found = [line for line in known if line.uid == wanted]
    if not found and len(wanted) >= 3:
        found = [line for line in known if line.uid.startswith(wanted.lower())]
    if not found and wanted:
        found = [line for line in known if normal(line.text) == normal(wanted)]
        found = [line for line in found if line.state == "current"][:1] or found
    if not found and len(wanted) >= 3:
        inside = [line for line in known if normal(wanted) in normal(line.text)]
        found = [line for line in inside if line.state == "current"] or inside
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(f"{line.uid[:6]} ({line.text[:40]})" for line in found[:4])
        raise NotFoundError(f"{len(found)} lines match {ref!r}: {shown}", "Name one by its id.")
    raise NotFoundError(
        f"No line of the profile is {ref!r}.", "See them: knowme profile show --all"
    )


def decide(
    conn: apsw.Connection, action: str, ref: str, at_ms: int, text: str = "", section: str = ""
) -> Line:
    """Take the person's word on a line: write, edit, strike, pin or unpin it.

    ``write`` makes a new one, in ``section``, and needs no ``ref``.

    Returns the line as it is now. Raises NotFoundError, InputError.
    """
    if action not in ACTIONS:
        raise InputError(
            f"{action!r} is nothing to do to a line.", f"One of: {', '.join(ACTIONS)}."
        )
    told = " ".join(text.split())
    if action in ("write", "edit") and not untagged(told)[0]:
        raise InputError("A line needs words.", 'knowme profile write preferences "Tea, no coffee"')
    if action == "write":
        uid = _written_uid(section, told)
        line = None
    else:
        line = find(conn, ref)
        uid = line.uid
    return _decide(conn, action, uid, line, at_ms, told, section)


def _decide(
    conn: apsw.Connection,
    action: str,
    uid: str,
    line: Line | None,
    at_ms: int,
    text: str,
    section: str,
) -> Line:
    if action == "write":
        section = section or "notes"
        line = _there(conn, uid)
    elif action == "edit":
        section = section or (line.section if line else "")
    else:
        section, text = "", line.text if line and action == "strike" else ""
    conn.execute(
        "INSERT INTO decisions(at_ms, target, uid, action, key, text)"
        " VALUES(?, 'line', ?, ?, ?, ?)",
        (at_ms, uid, action, section, text),
    )
    decision = Decision(conn.last_insert_rowid(), at_ms, uid, action, section, text)
    after = apply(line, decision)
    assert after is not None
    was = _rows(conn, uid).get(uid)
    recorded = int(was["recorded_ms"]) if was else at_ms
    after = replace(after, recorded_ms=recorded, evidence=_evidence(conn, uid))
    _put(conn, was, after, at_ms, action, decision.id)
    return after


def _written_uid(section: str, text: str) -> str:
    if section == TITLE:
        return line_uid(TITLE)
    return line_uid("write", section or "notes", normal(untagged(text)[0]))


def _evidence(conn: apsw.Connection, uid: str) -> tuple[Evidence, ...]:
    found = rows(
        conn,
        "SELECT message_id, start, end, quote, fact_uid FROM line_evidence WHERE line_uid = ?"
        " ORDER BY message_id, start",
        (uid,),
    )
    return tuple(Evidence(*row) for row in found)


def _there(conn: apsw.Connection, uid: str) -> Line | None:
    row = _rows(conn, uid).get(uid)
    return None if row is None else line_of(row, _evidence(conn, uid))


def undo(conn: apsw.Connection, at_ms: int, ref: str = "") -> Change:
    """Take back the last change of this line, or of any; called again, the one before.

    A decision of the person is marked undone. Where there is none, what was derived last is
    answered by a decision that keeps the line as it was before. Raises NotFoundError where nothing
    is left to undo.
    """
    uid = _uid_of(conn, ref) if ref else ""
    decided = rows(
        conn,
        "SELECT id, uid FROM decisions WHERE target = 'line' AND undone_ms IS NULL"
        " AND (?1 = '' OR uid = ?1) ORDER BY id DESC LIMIT 1",
        (uid,),
    )
    if decided:
        return _take_back(conn, int(decided[0][0]), str(decided[0][1]), at_ms)
    last = _last_derived(conn, uid)
    before = None if last is None or last.before is None else line_of(last.before)
    now = None if last is None else _there(conn, last.uid)
    if last is None or (before is None and now is None):
        raise NotFoundError("There is nothing to undo.", "See what changed: knowme profile history")
    if before is None:
        return Change(last.uid, now, _decide(conn, "strike", last.uid, now, at_ms, "", ""))
    text = before.text + (f" {PRIVATE}" if "private" in before.sensitive else "")
    after = _decide(conn, "edit", last.uid, now or before, at_ms, text, before.section)
    return Change(last.uid, now, after)


def _last_derived(conn: apsw.Connection, uid: str) -> beliefs.Event | None:
    """Return the last change that was nobody's decision."""
    found = rows(
        conn,
        "SELECT id, uid FROM events WHERE target = 'line' AND actor <> 'person'"
        " AND (?1 = '' OR uid = ?1) ORDER BY id DESC LIMIT 1",
        (uid,),
    )
    events = beliefs.history(conn, "line", found[0][1]) if found else []
    return next((event for event in events if event.id == found[0][0]), None)


def _take_back(conn: apsw.Connection, decision_id: int, uid: str, at_ms: int) -> Change:
    """Mark a decision undone; the line is what it was before it, until it is derived anew."""
    conn.execute("UPDATE decisions SET undone_ms = ? WHERE id = ?", (at_ms, decision_id))
    now = _there(conn, uid)
    found = value(
        conn,
        "SELECT before FROM events WHERE target = 'line' AND decision_id = ? AND action <> 'undo'",
        (decision_id,),
    )
    if found is not None:
        before = replace(line_of(json.loads(found)), evidence=_evidence(conn, uid))
        _put(conn, None if now is None else row_of(now), before, at_ms, "undo", decision_id)
        return Change(uid, now, before)
    if now is not None:
        gone = _event_row(conn, row_of(now))
        conn.execute("DELETE FROM lines WHERE uid = ?", (uid,))
        beliefs.note(conn, "line", uid, "undo", "person", gone, None, at_ms, decision_id)
    return Change(uid, now, None)


def _uid_of(conn: apsw.Connection, ref: str) -> str:
    """Return the uid of a line that is there, or was."""
    try:
        return find(conn, ref).uid
    except NotFoundError:
        found = rows(
            conn,
            "SELECT DISTINCT uid FROM (SELECT uid FROM events WHERE target = 'line' UNION"
            " SELECT uid FROM decisions WHERE target = 'line') WHERE substr(uid, 1, ?) = ?",
            (len(ref), ref.lower()),
        )
        if len(found) == 1 and len(ref) >= 3:
            return str(found[0][0])
        raise


def why(conn: apsw.Connection, ref: str) -> tuple[Line, list[tuple[Evidence, int | None]]]:
    """Return a line and what it rests on, each with when it was said. Raises NotFoundError."""
    line = find(conn, ref)
    said = dict(
        rows(
            conn,
            "SELECT m.id, m.at_ms FROM messages m JOIN line_evidence e ON e.message_id = m.id"
            " WHERE e.line_uid = ?",
            (line.uid,),
        )
    )
    return line, [(one, said.get(one.message_id)) for one in line.evidence]


def history(conn: apsw.Connection, ref: str = "", limit: int = 100) -> list[beliefs.Event]:
    """Return the changes of one line, oldest first; without ``ref`` the newest of all lines."""
    if ref:
        return beliefs.history(conn, "line", _uid_of(conn, ref))[-limit:]
    return beliefs.since(conn, "line", 0, limit)[::-1]


def as_of(conn: apsw.Connection, at_ms: int) -> list[Line]:
    """Return the lines as they stood at a time."""
    return in_order(line_of(row) for row in beliefs.as_of(conn, "line", at_ms))


def diff(conn: apsw.Connection, since_ms: int) -> list[Change]:
    """Return what a reader of the page would find changed since a time, in its order."""
    before = {line.uid: line for line in as_of(conn, since_ms) if line.state == "current"}
    after = {line.uid: line for line in lines(conn) if line.state == "current"}
    changed = [
        Change(uid, before.get(uid), after.get(uid))
        for uid in before.keys() | after.keys()
        if _shown(before.get(uid)) != _shown(after.get(uid))
    ]
    place = {line.uid: n for n, line in enumerate(in_order([*after.values(), *before.values()]))}
    return sorted(changed, key=lambda change: place[change.uid])


def _shown(line: Line | None) -> tuple[str, str] | None:
    return None if line is None else (line.section, line.text)


def erase(
    conn: apsw.Connection,
    message_ids: Iterable[int],
    fact_uids: Iterable[str] = (),
    at_ms: int = 0,
    texts: Iterable[str] = (),
) -> list[str]:
    """Forget every line that rests on these messages or facts, or holds one of these texts.

    Their rows, quotes and changes go, and what the person wrote of them; that they struck or pinned
    one stays, without its words. What still rests on something else comes back with the next
    build, which also writes the page. A page that was edited by hand is absorbed before this
    (``portrait.settle``), not after. ``at_ms`` is not needed: nothing is noted of it. Returns the
    uids of the lines, those that had been gone already included.
    """
    listed, facts = json.dumps(list(message_ids)), json.dumps(list(fact_uids))
    among = "IN (SELECT value FROM json_each(?))"
    touched = (
        f"SELECT line_uid FROM line_evidence WHERE message_id {among}"
        f" OR (fact_uid <> '' AND fact_uid {among})"
    )
    gone = {row[0] for row in rows(conn, touched, (listed, facts))}
    for side in ("before", "after"):
        rested = (
            "SELECT uid FROM events e WHERE target = 'line' AND EXISTS(SELECT 1 FROM"
            f" json_each(json_extract(e.{side}, '$.because')) b WHERE b.value {among})"
        )
        gone |= {row[0] for row in rows(conn, rested, (listed,))}
    for text in texts:
        gone |= _holding(conn, text)
    uids = sorted(gone)
    them = json.dumps(uids)
    conn.execute(f"DELETE FROM lines WHERE uid {among}", (them,))
    beliefs.erase(conn, "line", uids)
    about = f"target = 'line' AND uid {among}"
    conn.execute(f"DELETE FROM decisions WHERE {about} AND action IN ('write', 'edit')", (them,))
    conn.execute(f"UPDATE decisions SET text = '' WHERE {about}", (them,))
    return uids


def erase_sensitive(conn: apsw.Connection) -> list[str]:
    """Forget every derived line on health, politics and the like, with its quotes and its changes.

    For ``privacy.sensitive: off``. What the person wrote, or corrected, stays: it is their word.
    Returns the uids of the lines, those that had been gone already included.
    """
    kinds = f"NOT IN ('', 'private', '{MIND}')"
    told = rows(
        conn,
        f"SELECT uid FROM lines WHERE sensitive {kinds}"
        " UNION SELECT uid FROM events WHERE target = 'line'"
        f" AND (json_extract(before, '$.sensitive') {kinds}"
        f" OR json_extract(after, '$.sensitive') {kinds})",
    )
    own = rows(
        conn,
        "SELECT uid FROM decisions WHERE target = 'line' AND undone_ms IS NULL"
        " AND action IN ('write', 'edit') UNION SELECT uid FROM lines WHERE written_by = 'person'",
    )
    uids = sorted({uid for (uid,) in told} - {uid for (uid,) in own})
    conn.execute(
        "DELETE FROM lines WHERE uid IN (SELECT value FROM json_each(?))", (json.dumps(uids),)
    )
    beliefs.erase(conn, "line", uids)
    return uids


def _holding(conn: apsw.Connection, text: str) -> set[str]:
    """Return the lines, of now and of before, in whose wording a text stands."""
    wanted = " ".join(text.split()).casefold()
    if not wanted:
        return set()
    told = [
        *rows(conn, "SELECT uid, text FROM lines"),
        *rows(conn, "SELECT line_uid, quote FROM line_evidence"),
        *rows(conn, "SELECT uid, text FROM decisions WHERE target = 'line'"),
        *rows(conn, "SELECT uid, json_extract(before, '$.text') FROM events WHERE target = 'line'"),
        *rows(conn, "SELECT uid, json_extract(after, '$.text') FROM events WHERE target = 'line'"),
    ]
    return {uid for uid, words in told if words and wanted in " ".join(words.split()).casefold()}


# --- the page that was edited by hand -------------------------------------------------------------


class _Kept(NamedTuple):
    """What we wrote: whole page and title as hashes, and of each line (uid, hash, section)."""

    page: str
    title: str
    lines: tuple[tuple[str, str, str], ...]


def note_page(conn: apsw.Connection, page: Page, at_ms: int) -> None:
    """Remember, without its words, the page that is about to be written.

    Until ``confirm_page`` says that it lies there, the one before counts as well: the process may
    die in between.
    """
    title = next((one.text for one in read_page(page.text) if one.section == TITLE), "")
    listed = [
        (line.uid, _hash(normal(line.text)), line.section)
        for line in page.shown
        if line.section != TITLE
    ]
    new = _Kept(_hash(page.text), _hash(normal(title)), tuple(listed))
    known = _pages(conn)
    if new.page not in [one.page for one in known]:
        _put_pages(conn, [*known, new], at_ms)


def confirm_page(conn: apsw.Connection, page: Page, at_ms: int) -> None:
    """Note that this page lies there now: what differs from it is the person's doing."""
    known = _pages(conn)
    if len(known) > 1:
        _put_pages(conn, [one for one in known if one.page == _hash(page.text)][:1], at_ms)


def _put_pages(conn: apsw.Connection, pages: Iterable[_Kept], at_ms: int) -> None:
    states.keep(conn, _STATE, [[one.page, one.title, one.lines] for one in pages], at_ms)


def _pages(conn: apsw.Connection) -> list[_Kept]:
    pages = states.read(conn, _STATE) or []
    return [_Kept(page, title, tuple(map(tuple, listed))) for page, title, listed in pages]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def absorb(conn: apsw.Connection, text: str, at_ms: int) -> list[Line]:
    """Take a page as the person left it: a changed line is an edit, a missing one is struck.

    A line that is new is theirs. Returns the lines that changed; none of a page as we wrote it. A
    page that is gone or empty strikes nothing: it is written anew. Nor does one of which nothing
    is left, where it had WHOLE lines or more: something else was written over it, or it was lost.
    """
    pages = _pages(conn)
    if not text.strip() or any(_hash(text) == page.page for page in pages):
        return []
    read = read_page(text)
    page = _closest(pages, {_hash(normal(one.text)) for one in read})
    done = _absorb_title(conn, read, page, at_ms)
    read = [one for one in read if one.section != TITLE]
    known = {line.uid: line for line in lines(conn)}
    left, missing = _unchanged(conn, read, page, known, at_ms, done)
    left = [one for one in left if not _stands(one, known.values(), pages)]
    there = {normal(one.text) for one in read}
    missing = [uid for uid in missing if uid in known and normal(known[uid].text) not in there]
    for one, line in _matched(left, [known[uid] for uid in missing]):
        done.append(_decide(conn, "edit", line.uid, line, at_ms, _words(one), one.section))
        left.remove(one)
        missing.remove(line.uid)
    for one in left:
        uid = _written_uid(one.section, one.text)
        done.append(_decide(conn, "write", uid, None, at_ms, _words(one), one.section))
    lost = len(page.lines) >= WHOLE and len(missing) == len(page.lines)
    for uid in missing:
        if known[uid].state == "current" and not lost:
            done.append(_decide(conn, "strike", uid, known[uid], at_ms, "", ""))
    return done


def _words(one: Read) -> str:
    return one.text + (f" {PRIVATE}" if one.private else "")


def _closest(pages: Sequence[_Kept], hashes: set[str]) -> _Kept:
    """Return the page that was edited: of those we wrote, the one of which most is left."""

    def fit(numbered: tuple[int, _Kept]) -> tuple[int, int, int]:
        number, page = numbered
        same = sum(known in hashes for _, known, _ in page.lines)
        return same, same - len(page.lines), number

    return max(enumerate(pages), key=fit, default=(0, _Kept("", "", ())))[1]


def _absorb_title(
    conn: apsw.Connection, read: Sequence[Read], page: _Kept, at_ms: int
) -> list[Line]:
    title = next((one.text for one in read if one.section == TITLE and one.text), "")
    if not title or _hash(normal(title)) == page.title:
        return []
    uid = line_uid(TITLE)
    return [_decide(conn, "write", uid, _there(conn, uid), at_ms, title, TITLE)]


def _unchanged(
    conn: apsw.Connection,
    read: Sequence[Read],
    page: _Kept,
    known: Mapping[str, Line],
    at_ms: int,
    done: list[Line],
) -> tuple[list[Read], list[str]]:
    """Pair the lines whose words are as we wrote them. Returns what is new, and what is missing.

    One that stands under another heading, or is private now, is an edit for that alone.
    """
    ours = list(page.lines)
    left: list[Read] = []
    for one in read:
        same = [each for each in ours if each[1] == _hash(normal(one.text))]
        found = next((each for each in same if each[2] == one.section), same[0] if same else None)
        if found is None:
            left.append(one)
            continue
        ours.remove(found)
        line = known.get(found[0])
        if line is not None and (found[2] != one.section or _marked(one, line)):
            done.append(_decide(conn, "edit", line.uid, line, at_ms, _words(one), one.section))
    return left, [uid for uid, _, _ in ours]


def _marked(one: Read, line: Line) -> bool:
    """Tell whether the person set or took away the mark of a private line.

    What is private by what it says stays so: only their own mark can be taken away.
    """
    return not line.sensitive if one.private else line.sensitive == ("private",)


def _stands(one: Read, known: Iterable[Line], pages: Iterable[_Kept]) -> bool:
    """Tell whether this very line was taken already, or came with a page that we never finished."""
    if any(_hash(normal(one.text)) == told for page in pages for _, told, _ in page.lines):
        return True
    return any(
        line.state == "current"
        and line.written_by == "person"
        and line.section == one.section
        and normal(line.text) == normal(one.text)
        for line in known
    )


def _matched(left: Sequence[Read], missing: Sequence[Line]) -> list[tuple[Read, Line]]:
    """Pair what is new with what is missing where one was made of the other, likest first."""
    near = []
    for number, one in enumerate(left):
        for line in missing:
            ratio = SequenceMatcher(None, one.text.casefold(), line.text.casefold()).ratio()
            if ratio >= (0.5 if one.section == line.section else 0.7):
                near.append((-ratio, number, line.uid, one, line))
    pairs: list[tuple[Read, Line]] = []
    for _, _, _, one, line in sorted(near, key=lambda each: each[:3]):
        if not any(one is first or line is second for first, second in pairs):
            pairs.append((one, line))
    return pairs
