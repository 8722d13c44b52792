"""Facts: what was stated, what of it is believed, and what the person decided about it.

Promises: every row is one claim of one message, with its quote. What is believed is a pure function
of the claims and the person's decisions (``resolution.py``): the order in which messages came in
does not matter, and learning the same again changes nothing. The person's word wins, and stays
through every relearning. Every change is an event (``beliefs.py``).
Refuses to know: how a claim is read, whether its quote covers it (it comes with the gate's
verdict), what a profile makes of it.

All functions on SQLite take ``conn`` and run inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import apsw

from knowme import beliefs, memory
from knowme.archive import whole
from knowme.attributes import attribute, value_key
from knowme.db import rows, value
from knowme.errors import InputError, NotFoundError
from knowme.facts import resolution, settling
from knowme.facts.resolution import ACTIONS, STATES, Decision, Place
from knowme.facts.settling import Change, Row
from knowme.sensitive import sensitive as kinds_of
from knowme.types import ME, Claim, Evidence, Fact
from knowme.words import stem, stems


class Reading(NamedTuple):
    """What one reader found in one message: each claim with the gate's verdict ("": it passes)."""

    message_id: int
    read_by: str
    claims: Sequence[tuple[Claim, str]]


class Learned(NamedTuple):
    """What learning did: rows that came, changed, went; and how many more are now in each state."""

    messages: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0
    believed: int = 0
    superseded: int = 0
    doubtful: int = 0
    quarantined: int = 0


class Erased(NamedTuple):
    """What forgetting took: the uids that are gone, and how many rows of each table."""

    uids: tuple[str, ...]
    facts: int
    events: int
    decisions: int


class Undone(NamedTuple):
    """What was undone: the fact as it is now, and the action that does not hold any more."""

    fact: Fact
    action: str
    decision_id: int


def fact_uid(place: Place, start: int, claim: Claim) -> str:
    """Return the name of a claim: 16 hex digits, the same for the same archive.

    What a model reads has a name of its own: it stays when a rule reads the same, and goes alone.
    """
    named = [place.source, place.conversation, place.message, start]
    named += [claim.subject, claim.attribute, claim.value]
    if claim.read_by != "rules":
        named.append(claim.read_by)
    told = json.dumps(named, ensure_ascii=False)
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]


# --- learning -------------------------------------------------------------------------------------


def learn(
    conn: apsw.Connection, readings: Sequence[Reading], at_ms: int, *, name: str = ""
) -> Learned:
    """Store what was read; it replaces what the same reader read in the same messages before.

    Every claim is kept. The groups that it touches are resolved anew, each change is an event, and
    what is believed leads searches to its message. ``name`` is the person's own: claims about
    somebody of that name are about them. A message that is retired holds nothing.
    """
    told = _messages(conn, (r.message_id for r in readings), name)
    fresh: dict[str, Row] = {}
    for reading in sorted(readings, key=lambda r: (r.message_id, r.read_by)):
        if reading.message_id not in told:
            continue
        message = told[reading.message_id]
        for claim, gate in reading.claims:
            one = _theirs(replace(claim, read_by=reading.read_by), message.place.told, name)
            row = _stored(message, reading.message_id, one, whole(gate), at_ms)
            if row["uid"] not in fresh or _better(row, fresh[row["uid"]]):
                fresh[row["uid"]] = row
    asked = {(r.message_id, r.read_by) for r in readings}
    held = settling.read(
        conn,
        "WHERE f.message_id IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted({r.message_id for r in readings})),),
    )
    gone = [row for row in held if (row["message_id"], row["read_by"]) in asked]
    by = {r.read_by for r in readings}
    changes = settling.settle(
        conn, [*fresh.values(), *gone], at_ms, by.pop() if len(by) == 1 else "rules",
        fresh=fresh, gone={row["uid"] for row in gone} - fresh.keys(),
    )  # fmt: skip
    return _counted(changes)._replace(messages=len(told))


def _better(row: Row, than: Row) -> bool:
    """Choose between two readings of one claim in one message: the plainer one, whatever order."""

    def rank(one: Row) -> tuple[Any, ...]:
        return (one["state"] == "quarantined", -one["certain"], -one["outright"], one["claim"],
                one["end"])  # fmt: skip

    return rank(row) < rank(than)


def unlearn(conn: apsw.Connection, message_ids: Iterable[int], at_ms: int, reason: str) -> int:
    """Take the claims of these messages out: a new version came, or they left recall.

    What they ended holds again. Returns how many claims went. ``reason`` stands in the history, in
    the row as it was before.
    """
    gone = settling.of_messages(conn, message_ids)
    uids = {row["uid"] for row in gone}
    settling.settle(conn, gone, at_ms, "archive", gone=uids, why=reason)
    return len(gone)


def settle(conn: apsw.Connection, message_ids: Iterable[int], at_ms: int) -> int:
    """Resolve the groups of these messages anew: they moved in their conversation.

    Returns how many facts changed.
    """
    return len(settling.settle(conn, settling.of_messages(conn, message_ids), at_ms, "rules"))


class _Message(NamedTuple):
    place: Place
    text: str
    at_ms: int | None


def _messages(conn: apsw.Connection, ids: Iterable[int], own: str) -> dict[int, _Message]:
    """Return those of these messages that are current and recalled; who tells them is in place."""
    found = rows(
        conn,
        "SELECT m.id, m.at_ms, plain(m.text), c.source, c.external_id, m.seq, m.external_id,"
        " m.role, m.speaker, m.meta FROM messages m JOIN conversations c"
        " ON c.id = m.conversation_id WHERE m.id IN (SELECT value FROM json_each(?))"
        " AND m.retired_ms IS NULL AND m.recall",
        (json.dumps(sorted(set(ids))),),
    )
    made = {}
    for number, at_ms, text, source, conversation, seq, external, role, speaker, meta in found:
        told = " ".join(memory.named(source, role, speaker, json.loads(meta)).split())
        told = "" if told.casefold() == own.strip().casefold() else told
        made[number] = _Message(Place(source, conversation, seq, external, told), text, at_ms)
    return made


def _stored(message: _Message, number: int, claim: Claim, gate: str, at_ms: int) -> Row:
    """Return the row of a claim as it is before its group is resolved."""
    place, text, said_ms = message
    start = max(0, min(claim.start, len(text)))
    end = max(start, min(claim.end, len(text)))
    quote, when = text[start:end], claim.when
    kinds = dict.fromkeys((*attribute(claim.attribute).sensitive, *kinds_of(claim.sentence)))
    kinds |= dict.fromkeys(kinds_of(quote))
    told = {
        "value": claim.value, "sentence": claim.sentence, "gate": gate, "told": place.told,
        "when": [when.from_first, when.from_last, when.to_first, when.to_last],
    }  # fmt: skip
    return {
        "uid": fact_uid(place, claim.start, claim), "subject": claim.subject,
        "attribute": claim.attribute, "value": claim.value, "sentence": claim.sentence,
        "message_id": number, "start": start, "end": end, "quote": quote,
        "said_ms": said_ms, "from_first": when.from_first, "from_last": when.from_last,
        "to_first": when.to_first, "to_last": when.to_last, "read_by": claim.read_by,
        "certain": int(claim.certain), "outright": int(claim.outright),
        "sensitive": ",".join(kinds), "state": "quarantined" if gate else "believed",
        "reason": gate, "other": "", "value_key": value_key(claim.attribute, claim.value),
        "claim": json.dumps(told, ensure_ascii=False, sort_keys=True), "pinned": 0,
        "recorded_ms": at_ms, "retired_ms": None,
    }  # fmt: skip


def _theirs(claim: Claim, told: str, own: str) -> Claim:
    """Return the claim with its subject's name: "me" is whoever speaks, a name may be the person's.

    All of it as SQLite holds it without loss.
    """
    subject = " ".join(whole(claim.subject).split())
    if subject == ME and told:
        subject = told
    elif own.strip() and subject.casefold() == own.strip().casefold():
        subject = ME
    said, text, name = whole(claim.sentence), whole(claim.value), whole(claim.attribute)
    if subject != claim.subject:
        said = resolution.reworded(replace(claim, sentence=said), subject, text)
    return replace(claim, subject=subject, attribute=name, value=text, sentence=said)


def _counted(changes: Sequence[Change]) -> Learned:
    """Return what changed; of each state, how many more rows are in it than were before."""
    states: Counter[str] = Counter()
    new = changed = gone = 0
    for before, after in changes:
        new, changed, gone = (
            new + (before is None), changed + bool(before and after), gone + (after is None)
        )  # fmt: skip
        states[after["state"] if after else ""] += 1
        states[before["state"] if before else ""] -= 1
    return Learned(
        0, new, changed, gone, states["believed"], states["superseded"], states["doubtful"],
        states["quarantined"],
    )  # fmt: skip


# --- looking ------------------------------------------------------------------------------------


def find(conn: apsw.Connection, ref: str) -> Fact:
    """Return the fact of this uid, or of the only one that begins so. Raises NotFoundError."""
    return settling.fact_of(_find(conn, ref))


def _find(conn: apsw.Connection, ref: str) -> Row:
    ref = ref.strip().lower()
    found = []
    if ref:
        found = settling.read(
            conn, "WHERE f.uid >= ? AND f.uid < ? ORDER BY f.uid LIMIT 6", (ref, ref + "g")
        )
    exact = [row for row in found if row["uid"] == ref]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if not found:
        raise NotFoundError(f"There is no fact {ref!r}.", "They are listed by: knowme facts")
    names = ", ".join(row["uid"] for row in found[:5]) + (" ..." if len(found) > 5 else "")
    raise NotFoundError(f"{ref!r} may be any of {names}.", "Give more of its name.")


def get(conn: apsw.Connection, uids: Iterable[str]) -> dict[str, Fact]:
    """Return the facts of these uids, by uid. Unknown ones are left out."""
    return {row["uid"]: settling.fact_of(row) for row in settling.named(conn, uids)}


def believed(
    conn: apsw.Connection,
    *,
    about: str = "",
    on: str = "",
    subject: str = "",
    states: Sequence[str] = ("believed",),
    as_of: int | None = None,
    limit: int = 1000,
) -> list[Fact]:
    """Return what is believed, the person first, then by subject, attribute, newest first.

    ``on``: what was so on that ISO day, also where it has ended since. ``about``: with all of these
    words. ``subject``: of this one only (ME or a name). ``as_of``: what was believed at that time,
    in ms. ``states`` chooses others.
    """
    wanted = {*states, "superseded"} if on and "believed" in states else set(states)
    if as_of is None:
        listed = json.dumps(sorted(wanted))
        found = settling.read(conn, "WHERE f.state IN (SELECT value FROM json_each(?))", (listed,))
    else:
        found = [row for row in beliefs.as_of(conn, "fact", as_of) if row["state"] in wanted]
    asked = {stem(word) for word in stems(about)} if about.strip() else set()
    facts = [
        fact for fact in map(settling.fact_of, found)
        if (not subject or fact.subject.casefold() == subject.casefold())
        and (not on or held(fact, on))
        and (not asked or asked <= _words(fact))
    ]  # fmt: skip
    facts.sort(key=lambda f: (f.subject != ME, f.subject, f.attribute, -(f.said_ms or 0), f.uid))
    return facts[:limit]


def _words(fact: Fact) -> set[str]:
    told = f"{fact.subject} {fact.attribute} {fact.value} {fact.sentence}"
    return {stem(word) for word in stems(told)}


def held(fact: Fact, on: str) -> bool:
    """Tell whether it may have been so on an ISO day; what ended at an unknown time was not."""
    when = fact.when
    if when.from_first and on < when.from_first:
        return False
    last = when.to_last or when.to_first
    return on <= last if last else fact.state != "superseded"


def evidence(conn: apsw.Connection, uid: str) -> list[Evidence]:
    """Return the words that a fact rests on: its own and those that repeat it, oldest first.

    Raises NotFoundError.
    """
    row = _find(conn, uid)
    found = settling.read(
        conn,
        "WHERE f.subject = ? AND f.attribute = ? AND f.state = 'repeated' AND f.other = ?",
        (row["subject"], row["attribute"], row["uid"]),
    )
    found.sort(key=lambda each: (each["said_ms"] or 0, each["uid"]))
    return [
        Evidence(each["message_id"], each["start"], each["end"], each["quote"], each["uid"])
        for each in (row, *found)
    ]


def counts(conn: apsw.Connection) -> dict[str, int]:
    """Return how many facts are in each state."""
    found = dict(rows(conn, "SELECT state, count(*) FROM facts GROUP BY state"))
    return {state: int(found.get(state, 0)) for state in STATES}


# --- the person's word ----------------------------------------------------------------------------


def decide(conn: apsw.Connection, action: str, uid: str, at_ms: int, text: str = "") -> Fact:
    """Keep what the person says of a fact, and return the fact as it is then.

    ``action`` is one of ACTIONS; for ``edit``, ``text`` is the new value. It holds for all that was
    said of the same value until now, however often it is read anew. Raises NotFoundError,
    InputError.
    """
    return decide_all(conn, [(action, uid, text)], at_ms)[0]


def decide_all(
    conn: apsw.Connection, said: Sequence[tuple[str, str, str]], at_ms: int
) -> list[Fact]:
    """Keep several decisions (action, uid, text) as one: they are undone together."""
    made: list[tuple[Row, str, int]] = []
    first = 0
    for action, ref, text in said:
        row = _find(conn, ref)
        text = _checked(action, text)
        todo = [(action, row, text)]
        if action == "edit" and row["state"] == "superseded" and row["other"]:
            # To put right what was so must not cast doubt on what came after it.
            todo += [("accept", after, "") for after in settling.named(conn, [row["other"]])]
        for each, about, words in todo:
            with_first = f"{_WITH}{first}" if first else ""
            number = _decision(conn, each, about, at_ms, words or with_first)
            first = first or number
            made.append((about, each, number))
    for row, action, _ in made:
        settling.settle(conn, [row], at_ms, "person", decision=(row["uid"], action, first))
    return [find(conn, ref) for _, ref, _ in said]


_WITH = "with "
"""What stands in the text of a decision that is part of another: "with 12"."""


def _checked(action: str, text: str) -> str:
    if action not in ACTIONS:
        raise InputError(
            f"{action!r} is nothing to do with a fact.", f"One of: {', '.join(ACTIONS)}"
        )
    text = " ".join(whole(text).split())
    if action == "edit" and not text:
        raise InputError("The new value is empty.", "To take it out: knowme facts retire UID")
    return text if action == "edit" else ""


def _decision(conn: apsw.Connection, action: str, row: Row, at_ms: int, text: str) -> int:
    """Write one decision; it reaches at least as far as what it is about."""
    until = max(at_ms, row["said_ms"] or at_ms)
    conn.execute(
        "INSERT INTO decisions(at_ms, target, uid, action, key, text) VALUES(?,'fact',?,?,?,?)",
        (until, row["uid"], action, settling.key_of(row), text),
    )
    return conn.last_insert_rowid()


def undo(conn: apsw.Connection, at_ms: int, uid: str = "") -> Undone:
    """Undo the last change of a fact, or the person's last decision on any; again: do it anew.

    A decision holds no more (or again). What came about by itself is answered by a decision that
    brings back what was believed before. Raises NotFoundError, InputError where nothing can.
    """
    if not uid:
        number = value(
            conn,
            "SELECT decision_id FROM events WHERE target = 'fact' AND decision_id IS NOT NULL"
            " ORDER BY id DESC LIMIT 1",
        )
        if number is None:
            raise InputError("You have decided nothing yet.", "Name a fact: knowme facts undo UID")
        return _turn(conn, int(number), at_ms)
    row = _find(conn, uid)
    for event in reversed(beliefs.history(conn, "fact", row["uid"])):
        if event.decision_id is not None:
            return _turn(conn, event.decision_id, at_ms, row["uid"])
        answer = _answer(event)
        if answer is not None:
            action, about = answer
            decided = decide(conn, action, about or row["uid"], at_ms)
            number = int(value(conn, "SELECT max(id) FROM decisions WHERE target = 'fact'"))
            fact = decided if decided.uid == row["uid"] else find(conn, row["uid"])
            return Undone(fact, event.action, number)
    raise InputError(
        f"Nothing that was believed of {row['uid']} has changed.",
        "To correct it: knowme facts edit",
    )


def _answer(event: beliefs.Event) -> tuple[str, str] | None:
    """Return the decision (action, uid or "") that takes an automatic change back, if one does."""
    after = event.after or {}
    was = event.before["state"] if event.before else ""
    now = after.get("state", "")
    if was == now or now in ("", "repeated"):
        return None
    if now == "superseded":
        return "reject", after["other"]
    if now in ("doubtful", "quarantined") and was == "believed":
        return "accept", ""
    if now == "doubtful" and was == "":
        return "reject", ""
    if now == "believed":
        return ("retire" if was == "superseded" else "reject"), ""
    return None


def _turn(conn: apsw.Connection, number: int, at_ms: int, uid: str = "") -> Undone:
    """Let a decision, with those that are part of it, hold no more; or again, if it did not."""
    found = rows(
        conn,
        "SELECT id, uid, action, undone_ms, key FROM decisions WHERE target = 'fact'"
        " AND (id = ? OR text = ?) ORDER BY id",
        (number, f"{_WITH}{number}"),
    )
    if not found:
        raise InputError(
            "What was decided last has been forgotten.", "To correct a fact: knowme facts edit"
        )
    undone = found[0][3] is None
    conn.executemany(
        "UPDATE decisions SET undone_ms = ? WHERE id = ?",
        [(at_ms if undone else None, each[0]) for each in found],
    )
    for _, about, _, _, key in found:
        # Its own row may be gone, read anew; what it says holds for all of its key.
        if touched := settling.named(conn, [about]) or settling.of_key(conn, key):
            which = (about, "undo" if undone else "redo", number)
            settling.settle(conn, touched, at_ms, "person", decision=which)
    return Undone(find(conn, uid or found[0][1]), found[0][2] if undone else "undo", number)


def decisions(conn: apsw.Connection, uid: str = "") -> list[Decision]:
    """Return what the person decided, on one fact (its uid) or on all, undone ones too."""
    found = rows(
        conn,
        "SELECT id, at_ms, uid, action, key, text, undone_ms FROM decisions WHERE target = 'fact'"
        " AND (uid = ?1 OR ?1 = '') ORDER BY id",
        (uid,),
    )
    return [Decision(*row) for row in found]


# --- forgetting -----------------------------------------------------------------------------------


def erase(conn: apsw.Connection, message_ids: Iterable[int], at_ms: int) -> Erased:
    """Forget what these messages held, as if they had never been: rows, history, decisions.

    What rests on other messages is resolved anew. A decision stays where the same was also said in
    a message that stays.
    """
    ids = sorted(set(message_ids))
    gone = settling.of_messages(conn, ids)
    events = beliefs.erase(conn, "fact", {row["uid"] for row in gone})
    past, more = beliefs.erase_messages(conn, ids)
    return _erase(conn, gone, past, events + more, at_ms)


def erase_sensitive(conn: apsw.Connection, at_ms: int) -> Erased:
    """Forget every fact on health, politics and the like, with its history and decisions.

    For ``privacy.sensitive: off``. What is read afterwards must leave them out.
    """
    gone = settling.read(conn, "WHERE f.sensitive <> ''")
    past = {
        uid for (uid,) in rows(
            conn,
            "SELECT DISTINCT uid FROM events WHERE target = 'fact' AND (json_extract(before,"
            " '$.sensitive') <> '' OR json_extract(after, '$.sensitive') <> '')",
        )
    }  # fmt: skip
    events = beliefs.erase(conn, "fact", past | {row["uid"] for row in gone})
    return _erase(conn, gone, past, events, at_ms)


def _erase(
    conn: apsw.Connection, gone: Sequence[Row], past: set[str], events: int, at_ms: int
) -> Erased:
    """Delete these rows, whose history is gone, and resolve anew what they bore on.

    ``past`` are uids of rows that were gone before.
    """
    uids = {row["uid"] for row in gone}
    conn.executemany("DELETE FROM facts WHERE uid = ?", [(uid,) for uid in sorted(uids)])
    memory.drop_fact_items(conn, uids)
    uids |= past - {row["uid"] for row in settling.named(conn, past)}
    forgotten = _erase_decisions(conn, gone, uids)
    settling.settle(conn, gone, at_ms, "forget")
    _scrub(conn, gone, uids)
    return Erased(tuple(sorted(uids)), len(gone), events, forgotten)


def _erase_decisions(conn: apsw.Connection, gone: Sequence[Row], uids: set[str]) -> int:
    """Delete the decisions on what nobody says any more; returns how many."""
    keys = {settling.key_of(row) for row in gone}
    lost = []
    for one in decisions(conn):
        if one.uid not in uids and one.key not in keys:
            continue
        where = "WHERE f.subject = ? AND f.attribute = ? AND f.value_key = ? ORDER BY f.uid"
        left = settling.read(conn, where, one.key.split("\0")[:3])
        same = [row["uid"] for row in left if settling.key_of(row) == one.key]
        if not same:
            lost.append((one.id,))
        elif one.uid in uids:
            conn.execute("UPDATE decisions SET uid = ? WHERE id = ?", (same[0], one.id))
    conn.executemany("UPDATE events SET decision_id = NULL WHERE decision_id = ?", lost)
    conn.executemany("DELETE FROM decisions WHERE id = ?", lost)
    return len(lost)


def _scrub(conn: apsw.Connection, gone: Sequence[Row], uids: set[str]) -> None:
    """Take what the history of others tells of these uids out: their names, and their dates."""
    decided = settling.decisions_on(conn, settling.groups_of(gone))
    beside = {row["uid"] for row in settling.group_rows(conn, gone, decided)}

    def clean(text: str | None) -> str | None:
        row = json.loads(text) if text else {}
        if row.get("other") not in uids:
            return text
        row |= {"other": "", "to_first": "", "to_last": ""}
        return json.dumps(row, ensure_ascii=False, sort_keys=True)

    for number, before, after in rows(
        conn,
        "SELECT id, before, after FROM events WHERE target = 'fact'"
        " AND uid IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(beside)),),
    ):
        if (now := (clean(before), clean(after))) != (before, after):
            conn.execute("UPDATE events SET before = ?, after = ? WHERE id = ?", (*now, number))
