"""Distillation: what a tuned model says of the person, against the evidence, and what is believed.

    runs/<id>/ interview.jsonl (interview.py) -> believed.jsonl hearsay.jsonl unknown.jsonl
               personality.json (numbers)

A statement is believed only if two answers agree on it, a message of the person's own bears it out
word for word (``borne_out``), and the gate of the facts lets it pass with those words as its quote.
What two answers agree on and three messages of two places bear out, and was asked for as something
that recurs, becomes an item of the kind ``pattern``, with the messages that it rests on.

Promises: no word of a model is evidence of anything; what is believed carries spans of messages
like every other fact (``read_by`` "personality:RUN", tags personality, auto-extracted), goes with
them, and is judged anew when facts are read anew; extracting again changes nothing, and asks no
model. What the weights claim and the store cannot bear out is hearsay, and stays in the run; what
the store knows and no answer told is unknown.
Refuses to know: how the model is asked (``interview.py``), how facts are settled.

``knowme rebuild facts`` keeps these facts and judges them anew by the gate; patterns stay as long
as every message that they rest on is in recall. What went all the same (its message was away for a
while) comes back by ``knowme personality extract``, from the answers that are there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from knowme import memory
from knowme.db import rows, value
from knowme.errors import InputError, ModelError
from knowme.learn import borne, interview, pairs, runs
from knowme.learn.runs import Run
from knowme.times import iso, now_ms
from knowme.types import ME, Claim, Fact, Query
from knowme.words import content_words, stems

if TYPE_CHECKING:
    from knowme.extract import Spoken
    from knowme.facts import Reading
    from knowme.home import Home

BY = "personality:"
TAGS = ("personality", "auto-extracted")
BELIEVED, HEARSAY, UNKNOWN = "believed.jsonl", "hearsay.jsonl", "unknown.jsonl"
NUMBERS = "personality.json"
AGREE = 2
"""Answers that must say it."""
KINDS = ("message", "section")
NEAR = 40
"""Messages that are looked at for evidence of one statement."""
MESSAGES, PLACES = 3, 2
"""What a pattern rests on at least: messages, and conversations or days."""
MOST = 12
"""Messages that one statement is learned from, the newest."""

Tell = Callable[[int, int, str], None]
Key = tuple[str, ...]

ONE_ANSWER = "Only one answer says it."
NO_WORDS = "Nothing that you said bears it out."
WAS_SO = "It was so once, and is no longer."
TAKEN_BACK = "You took it back."
WAITS = "It contradicts what is believed, and waits for you: knowme inbox"
NOT_SECRET = "It holds a secret, or what privacy.sensitive keeps out."
TOO_SELDOM = "You said it, but too seldom for a pattern, and it is no fact by itself."


@dataclass(slots=True)
class Told:
    """One thing that answers claim. ``claim`` is None where it is no fact by its form."""

    key: Key
    text: str
    wordings: dict[str, None] = field(default_factory=dict)
    claim: Claim | None = None
    answers: set[str] = field(default_factory=set)
    patterns: bool = False
    near: set[int] = field(default_factory=set)
    found: dict[int, Claim] = field(default_factory=dict)
    known: list[Fact] = field(default_factory=list)
    outcome: str = "hearsay"
    why: str = ""

    @property
    def because(self) -> list[int]:
        """Messages that bear it out, whoever read them."""
        return sorted({*self.found, *(fact.message_id for fact in self.known)})


class Distilled(NamedTuple):
    """What came of an interview.

    ``claimed`` things were said in ``answers``: ``believed`` are new facts, ``confirmed`` are known
    already, ``outdated`` were so once, ``doubtful`` wait for the person, ``hearsay`` is what
    nothing bears out. ``patterns`` are items. Of ``known`` believed facts no answer told
    ``unknown``. ``lines``: changes of the profile.
    """

    answers: int = 0
    claimed: int = 0
    believed: int = 0
    confirmed: int = 0
    patterns: int = 0
    outdated: int = 0
    doubtful: int = 0
    hearsay: int = 0
    known: int = 0
    unknown: int = 0
    lines: int = 0


class Withdrawn(NamedTuple):
    """What withdrawing took: facts and patterns."""

    facts: int
    patterns: int


def reader(run: Run) -> str:
    """Return under which name a run's facts are kept."""
    return f"{BY}{run.id}"


# --- the whole ----------------------------------------------------------------------------------


def extract(home: Home, run: Run, *, progress: Tell | None = None) -> Distilled:
    """Check the answers of a run's interview, and believe what the person's own words bear out.

    Facts go through ``facts.learn``, patterns become items, the profile is built anew; the rest is
    listed in the run. Doing it again replaces what the same run brought before. Raises InputError
    for a run that is stale or has no interview, StoreError, OSError.
    """
    if run.stale:
        raise InputError(
            f"Run {run.id} is stale: {run.stale}.", "Train anew: knowme personality run"
        )
    answers = interview.read(run)
    if not answers:
        raise InputError(f"Run {run.id} was not interviewed yet.", "Run: knowme personality run")
    told = claimed(answers, run.purpose)
    held = _held(home, run)
    for done, one in enumerate(told):
        if progress is not None:
            progress(done, len(told), "claims")
        _weigh(home, one, held, reader(run))
    pairs.write(run.path / interview.FILE, _with_because(answers, told))
    learned = home.db.write(lambda conn: _keep(conn, home, run, told))
    _embed(home)
    unknown = _unknown(home, run, answers, told)
    counts = Counter(one.outcome for one in told)
    made = Distilled(
        len(answers), len(told), counts["believed"], counts["confirmed"], len(learned),
        counts["outdated"], counts["doubtful"], counts["hearsay"], unknown[0], len(unknown[1]),
        _page(home),
    )  # fmt: skip
    _list(home, run, told, learned, unknown[1], made, answers)
    return made


def claimed(answers: Sequence[Mapping[str, Any]], purpose: str) -> list[Told]:
    """Return what answers claim of the person, each thing once, what most say first. Pure.

    Two wordings of one fact are one thing; what is no fact by its form goes by its content words.
    """
    from knowme import claims

    found: dict[Key, Told] = {}
    for row in answers:
        for said in interview.statements(row["answer"], purpose, str(row.get("about", ""))):
            read = [
                each
                for each in claims.read(said.text, said=None, role="user")
                if said.text[each.start : each.end].strip()
            ]
            for claim in read:
                one = found.setdefault(key_of(claim), Told(key_of(claim), claim.sentence))
                one.claim = one.claim or claim
                for wording in (said.text[claim.start : claim.end], claim.sentence):
                    one.wordings[wording] = None
                _note(one, row)
            key = ("said", *content_words(said.text, once=False))
            if not read and len(key) > 2 and borne.speaks(said.text):
                one = found.setdefault(key, Told(key, said.text, {said.text: None}))
                _note(one, row)
    return sorted(found.values(), key=lambda one: (-len(one.answers), one.key))


def _note(one: Told, row: Mapping[str, Any]) -> None:
    one.answers.add(str(row["uid"]))
    one.patterns |= bool(row.get("patterns"))


def key_of(about: Claim | Fact) -> Key:
    """Return what two claims of one fact have in common."""
    from knowme.attributes import value_key

    what = value_key(about.attribute, about.value)
    return ("fact", about.subject.casefold(), about.attribute, what)


# --- evidence -----------------------------------------------------------------------------------

_STANDS = ("believed", "repeated")


def _held(home: Home, run: Run) -> dict[Key, list[Fact]]:
    """Return what is known by other ways than this run, by what it says."""
    from knowme import facts

    with home.db.read() as conn:
        found = facts.believed(conn, states=facts.STATES, limit=2**31)
    held: dict[Key, list[Fact]] = {}
    for fact in found:
        if fact.read_by != reader(run):
            held.setdefault(key_of(fact), []).append(fact)
    return held


def _weigh(home: Home, one: Told, held: Mapping[Key, Sequence[Fact]], by: str) -> None:
    """Find what bears it out, and say what becomes of it."""
    same = held.get(one.key, ())
    one.known = [fact for fact in same if fact.state in _STANDS]
    over = [fact for fact in same if fact.state in ("superseded", "retired")]
    wrong = _search(home, one, by)
    if one.known:
        one.outcome = "confirmed"
    elif over:
        once = any(fact.state == "superseded" for fact in over)
        one.outcome, one.why = ("outdated", WAS_SO) if once else ("hearsay", TAKEN_BACK)
        one.found = {}
    elif not one.found:
        one.why = wrong or NO_WORDS
    elif len(one.answers) < AGREE:
        one.why = ONE_ANSWER
    else:
        one.outcome, one.why = ("believed", "") if one.claim else ("hearsay", TOO_SELDOM)


def _search(home: Home, one: Told, by: str) -> str:
    """Look for the person's own words that bear it out; returns what was wrong with the best."""
    from knowme import extract

    query = Query(" / ".join(list(one.wordings)[:3]), top_k=NEAR, kinds=KINDS, neighbours=0)
    ids = {number for hit in home.search(query) for number in hit.message_ids}
    asked, wrong = stems(one.text), ""
    with home.db.read() as conn:
        said = rows(
            conn,
            "SELECT id, plain(text) FROM messages WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(ids)),),
        )
        one.near = {number for number, text in said if len(asked & stems(text)) >= 2}
        spoken = extract.spoken(conn, ids, home.settings)
        for each in sorted(spoken, key=lambda each: (each.at_ms or 0, each.id), reverse=True):
            if each.subject != ME or len(one.found) >= MOST:
                continue
            verdict = _judged(conn, home, one, each, by)
            if isinstance(verdict, Claim):
                one.found[each.id] = verdict
            wrong = wrong or (verdict if isinstance(verdict, str) else "")
    return wrong


def _judged(
    conn: apsw.Connection, home: Home, one: Told, said: Spoken, by: str
) -> Claim | str | None:
    """Return the claim as a message bears it out, why the gate refuses it, or None: it does not."""
    from knowme import extract, whens
    from knowme.quotes import supported

    subject = ME if one.claim is None else one.claim.subject
    for wording in one.wordings:
        span = borne.out(wording, said.text, subject)
        if span is None:
            continue
        start, end = span
        quote = said.text[start:end]
        plain = wording.replace(" I ", " i ")  # no name
        if len(content_words(plain, once=False)) > 1 and not supported(plain, [quote]):
            continue
        when = whens.when_of(quote, extract.day_of(said.at_ms, home.settings))
        claim = one.claim or Claim(ME, "pattern", wording.rstrip(" ."), wording, 0, 0)
        claim = replace(
            claim, start=start, end=end, when=when, certain=True, outright=False, read_by=by
        )
        judged = extract.judged(conn, said, home.settings, [(claim, "")])
        if not judged:
            return NOT_SECRET
        told, verdict = judged[0]
        if not verdict:
            return told
        return verdict
    return None


# --- what is believed ---------------------------------------------------------------------------


class Pattern(NamedTuple):
    """What recurs: its name, its words, and the messages that it rests on."""

    uid: str
    text: str
    because: tuple[int, ...]


def _keep(conn: apsw.Connection, home: Home, run: Run, told: Sequence[Told]) -> list[Pattern]:
    """Store what is believed; what this run brought before and brings no more goes."""
    from knowme import extract
    from knowme.facts import Reading

    by = reader(run)
    claims: dict[int, list[tuple[Claim, str]]] = {number: [] for number in _read_by(conn, by)}
    for one in told:
        if one.outcome == "believed":
            for number, claim in one.found.items():
                claims.setdefault(number, []).append((claim, ""))
    readings: list[Reading] = [Reading(n, by, tuple(each)) for n, each in sorted(claims.items())]
    extract.store(conn, readings, home.settings)
    _settled(conn, told, by)
    made = [pattern for one in told if (pattern := _pattern(conn, home, one)) is not None]
    before = {str(row["uid"]) for row in _rows(run, BELIEVED) if row.get("kind") == "pattern"}
    drop_patterns(conn, before - {pattern.uid for pattern in made})
    for pattern in made:
        put_pattern(conn, pattern)
    return made


def _settled(conn: apsw.Connection, told: Sequence[Told], by: str) -> None:
    """Say of what was learned how it stands among all that is known."""
    from knowme import facts

    found = facts.believed(conn, states=facts.STATES, limit=2**31)
    states: dict[Key, list[Fact]] = {}
    for fact in found:
        if fact.read_by == by:
            states.setdefault(key_of(fact), []).append(fact)
    for one in told:
        kept = states.get(one.key, [])
        if one.outcome != "believed" or any(fact.state in _STANDS for fact in kept):
            continue
        if any(fact.state == "superseded" for fact in kept):
            one.outcome, one.why = "outdated", WAS_SO
        else:
            waits = any(fact.state == "doubtful" for fact in kept)
            one.outcome, one.why = ("doubtful", WAITS) if waits else ("hearsay", TAKEN_BACK)


def _read_by(conn: apsw.Connection, by: str) -> list[int]:
    found = rows(conn, "SELECT DISTINCT message_id FROM facts WHERE read_by = ?", (by,))
    return [number for (number,) in found]


def _pattern(conn: apsw.Connection, home: Home, one: Told) -> Pattern | None:
    """Return the pattern that something told is, or None."""
    from knowme import extract

    if not one.patterns or len(one.answers) < AGREE or one.outcome in ("outdated", "doubtful"):
        return None
    if one.outcome == "hearsay" and one.why != TOO_SELDOM:
        return None
    spoken = extract.spoken(conn, one.because, home.settings)
    own = [each for each in spoken if each.subject == ME]
    wheres = dict(
        rows(
            conn,
            "SELECT id, conversation_id FROM messages WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([each.id for each in own]),),
        )
    )
    places = {(wheres[each.id], extract.day_of(each.at_ms, home.settings)) for each in own}
    if len(own) < MESSAGES or len(places) < PLACES:
        return None
    text = one.known[0].sentence if one.known else one.text
    name = "\0".join(("pattern", *one.key))
    uid = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
    if one.outcome == "hearsay":
        one.outcome, one.why = "pattern", ""
    return Pattern(uid, text, tuple(sorted(each.id for each in own)))


def put_pattern(conn: apsw.Connection, pattern: Pattern) -> int:
    """Make a pattern searchable, or renew it; returns its item's id.

    It stands where the newest of its messages stands. Its vector comes by the job ``reindex``.
    """
    number, seq, at_ms, source = rows(
        conn,
        "SELECT m.conversation_id, m.seq, m.at_ms, c.source FROM messages m"
        " JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.id IN (SELECT value FROM json_each(?)) ORDER BY m.at_ms DESC, m.id DESC LIMIT 1",
        (json.dumps(pattern.because),),
    )[0]
    told = (pattern.uid, pattern.text, pattern.because)
    return memory.put_summary_item(conn, *told, number, seq, at_ms, source, "pattern")


def drop_patterns(conn: apsw.Connection, uids: Iterable[str]) -> int:
    """Take these patterns out of recall; unknown ones are fine. Returns how many went."""
    found = rows(
        conn,
        "SELECT id FROM items WHERE kind = 'pattern' AND uid IN (SELECT value FROM json_each(?))",
        (json.dumps(sorted(uids)),),
    )
    return memory.drop_summary_items(conn, [item for (item,) in found])


def sweep_patterns(conn: apsw.Connection) -> int:
    """Drop the patterns that rest on a message which left recall. Returns how many went."""
    found = rows(
        conn,
        "SELECT DISTINCT i.id FROM items i JOIN because b ON b.item_id = i.id"
        " JOIN messages m ON m.id = b.message_id"
        " WHERE i.kind = 'pattern' AND (m.retired_ms IS NOT NULL OR NOT m.recall)",
    )
    return memory.drop_summary_items(conn, [item for (item,) in found])


def withdraw(home: Home, run: Run) -> Withdrawn:
    """Take everything back that came of a run's interview; the lists in the run stay.

    The facts' history says so. Raises StoreError, HomeError.
    """
    from knowme import facts
    from knowme.facts import Reading

    by = reader(run)
    listed = [row for row in _rows(run, BELIEVED) if row.get("kind") == "pattern"]

    def gone(conn: apsw.Connection) -> Withdrawn:
        many = int(value(conn, "SELECT count(*) FROM facts WHERE read_by = ?", (by,)))
        facts.learn(conn, [Reading(n, by, ()) for n in _read_by(conn, by)], now_ms())
        return Withdrawn(many, drop_patterns(conn, {str(row["uid"]) for row in listed}))

    took = home.db.write(gone)
    runs.put(run.path / NUMBERS, {**numbers(run), "withdrawn": iso(now_ms())})
    _page(home)
    return took


def _embed(home: Home) -> None:
    """Give what is new its vectors; where the embedder cannot now, a job brings them."""
    from knowme import jobs, sync

    try:
        sync.reindex(home)
    except ModelError:
        home.db.write(lambda conn: jobs.enqueue(conn, "reindex", {}, unique_key="reindex"))


def _page(home: Home) -> int:
    from knowme import portrait

    return portrait.build(home).changes if home.settings.profile.build else 0


# --- the audit ----------------------------------------------------------------------------------


def _unknown(
    home: Home, run: Run, answers: Sequence[Mapping[str, Any]], told: Sequence[Told]
) -> tuple[int, list[dict[str, Any]]]:
    """Return (facts that are believed, rows of those that no answer told).

    Told is generous: all content words of the value in one answer that also names what it is about,
    or was asked for it.
    """
    from knowme import facts

    with home.db.read() as conn:
        held = facts.believed(conn, states=_STANDS, limit=2**31)
    said = [(str(row.get("about", "")), stems(row["answer"])) for row in answers]
    asked = {about for about, _ in said if about}
    confirmed = {one.key for one in told}
    again: dict[str, set[int]] = {}
    for fact in held:
        again.setdefault(fact.other or fact.uid, set()).add(fact.message_id)
    own = reader(run)
    believed = [fact for fact in held if fact.state == "believed" and fact.read_by != own]
    missing = [
        {
            "fact": fact.uid, "sentence": fact.sentence, "attribute": fact.attribute,
            "asked": fact.subject == ME and fact.attribute in asked,
            "because": sorted(again.get(fact.uid, {fact.message_id})),
        }
        for fact in believed
        if key_of(fact) not in confirmed and not any(_tells(*one, fact) for one in said)
    ]  # fmt: skip
    return len(believed), missing


def _tells(about: str, answer: set[str], fact: Fact) -> bool:
    what = stems(fact.value)
    if not what or not what <= answer:
        return False
    return about == fact.attribute or bool((stems(fact.sentence) - what) & answer)


def _with_because(
    answers: Sequence[Mapping[str, Any]], told: Sequence[Told]
) -> list[dict[str, Any]]:
    """Return the answers with the messages that they repeat, or may: to be forgotten with them."""
    resting: dict[str, set[int]] = {}
    for one in told:
        for uid in one.answers:
            resting.setdefault(uid, set()).update(one.because, one.near)
    return [{**row, "because": sorted(resting.get(row["uid"], ()))} for row in answers]


def _list(
    home: Home,
    run: Run,
    told: Sequence[Told],
    patterns: Sequence[Pattern],
    unknown: Sequence[Mapping[str, Any]],
    made: Distilled,
    answers: Sequence[Mapping[str, Any]],
) -> None:
    """Write the lists and the numbers of a run; words in .jsonl alone."""
    listed: list[dict[str, Any]] = [
        {"kind": "pattern", "uid": one.uid, "tags": TAGS, "text": one.text, "because": one.because}
        for one in patterns
    ]
    for one in told:
        row = {"text": one.text, "answers": len(one.answers), "because": one.because}
        if one.outcome in ("believed", "confirmed") and one.claim is not None:
            listed.append({"kind": one.outcome, "tags": TAGS, **row})
    pairs.write(run.path / BELIEVED, listed)
    doubted = [
        {
            "text": one.text, "answers": len(one.answers), "why": one.why,
            "because": sorted({*one.because, *one.near}),
        }
        for one in told
        if one.outcome in ("hearsay", "outdated", "doubtful") and one.why != NOT_SECRET
    ]  # fmt: skip
    pairs.write(run.path / HEARSAY, doubted)
    pairs.write(run.path / UNKNOWN, unknown)
    with home.db.read() as conn:
        upto = int(value(conn, "SELECT coalesce(max(id), 0) FROM messages"))
    model = str(answers[0]["model"])
    runs.put(
        run.path / NUMBERS, {**made._asdict(), "at": iso(now_ms()), "model": model, "upto": upto}
    )


def _rows(run: Run, name: str) -> list[dict[str, Any]]:
    """Return the rows of a list of a run; none where it was not made."""
    try:
        lines = (run.path / name).read_text("utf-8").split("\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.strip()]


def listed(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return the lists of a run: believed, hearsay, unknown."""
    return {name.partition(".")[0]: _rows(run, name) for name in (BELIEVED, HEARSAY, UNKNOWN)}


def numbers(run: Run) -> dict[str, Any]:
    """Return the numbers of a run's extraction; empty where there was none."""
    try:
        told = json.loads((run.path / NUMBERS).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run.path / NUMBERS} cannot be read: {error}",
            f"Make it again: knowme personality extract {run.id}",
        ) from error
    return dict(told)


# --- status -------------------------------------------------------------------------------------


class Status(NamedTuple):
    """What exists of a run: its stages, its answers, what holds of it now, and what is stale."""

    run: str
    purpose: str
    made: str
    stages: tuple[str, ...]
    answers: int
    extracted: str
    numbers: Mapping[str, Any]
    facts: int
    patterns: int
    since: int
    stale: tuple[str, ...]


def status(home: Home) -> list[Status]:
    """Return what there is of each run, the newest first. Raises InputError."""
    return [_status(home, run) for run in runs.listed(home.path)]


def _status(home: Home, run: Run) -> Status:
    told, answers, manifest = numbers(run), interview.read(run), run.manifest
    names = [str(row["uid"]) for row in _rows(run, BELIEVED) if row.get("kind") == "pattern"]
    with home.db.read() as conn:
        facts = int(
            value(
                conn,
                "SELECT count(*) FROM facts WHERE read_by = ?"
                " AND state IN ('believed', 'repeated')",
                (reader(run),),
            )
        )
        patterns = int(
            value(
                conn,
                "SELECT count(*) FROM items WHERE kind = 'pattern'"
                " AND uid IN (SELECT value FROM json_each(?))",
                (json.dumps(names),),
            )
        )
        since = 0
        if told:
            since = int(
                value(conn, "SELECT count(*) FROM messages WHERE id > ?", (told.get("upto", 0),))
            )
    return Status(
        run.id, run.purpose, str(manifest.get("made", "")), tuple(manifest["stages"]),
        len(answers), str(told.get("at", "")), told, facts, patterns, since,
        tuple(_stale(run, told, answers)),
    )  # fmt: skip


def _stale(
    run: Run, told: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    if run.stale:
        yield run.stale
    now = interview.model_id(run)
    if answers and now and answers[0]["model"] not in ("", now):
        yield "another adapter than this run's was interviewed"
    if told and answers and told.get("model") != answers[0]["model"]:
        yield "the model was asked again after the last extract"
    if told.get("withdrawn"):
        yield f"withdrawn on {str(told['withdrawn'])[:10]}"
