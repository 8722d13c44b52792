"""Reading for facts: who speaks in a message, what they state, and whether it may be believed.

Promises: a pure function of the archive, the settings and the rules: what was read bit by bit, in
whatever order it came in, is what one reading of everything gives. No model is needed; where one
reads, it reads after the rules, quotes verbatim, and passes the same gate. Nobody but the person
makes facts about the person: an assistant, a tool, another speaker, a page, a prompt of ours never
do. Interrupted work goes on where it ended.
Refuses to know: what a rule looks for (``claims.py``), what contradicts what (``facts.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from knowme import attributes, fingerprints, spans, states
from knowme.db import rows, value
from knowme.errors import ModelError
from knowme.settings import Settings
from knowme.times import known_time, now_ms, zone
from knowme.types import ME, Claim, When

if TYPE_CHECKING:
    from knowme.facts import Reading
    from knowme.home import Home

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done). What it raises ends the work; what is done stays done."""
Judged = tuple[Claim, str]
"""A claim with why it is not believed; "" where it is."""
VERSION = 1
RULES = "rules"
STATE, QUIET, MODEL = "facts", "facts.quiet", "facts.model"
BATCH = 200
SMALL = 1_000_000_000
"""Parameters under which a model does not read for facts unless it is told to."""
AGENTS = frozenset(
    "memory.md user.md agents.md soul.md tools.md dreams.md identity.md heartbeat.md bootstrap.md"
    " claude.md gemini.md user_profile.md".split()
)
"""Files that an agent writes or is told by; none of it is what the person said."""

NOT_VERBATIM = "The quote does not stand in the message."
NOT_IN_QUOTE = "The value does not stand in the quote."
DENIED = "Its sentence denies something; a model may have missed that."
ANOTHER = "Somebody of another name speaks in this message."
OF_MODELS = (NOT_VERBATIM, NOT_IN_QUOTE, DENIED)


class Learned(NamedTuple):
    """How many messages were read, and what came of it."""

    messages: int = 0
    new: int = 0
    changed: int = 0
    believed: int = 0
    doubtful: int = 0
    quarantined: int = 0
    unlearned: int = 0

    def plus(self, other: Any) -> Learned:
        """Return the sum with any tuple of counts that has some of these names."""
        return Learned(*(n + int(getattr(other, name, 0)) for name, n in self._asdict().items()))


class Spoken(NamedTuple):
    """One message to be read. ``subject`` is ME, another speaker's name, or "" for nobody's."""

    id: int
    source: str
    text: str
    role: str
    subject: str
    at_ms: int | None


# --- who speaks ---------------------------------------------------------------------------------


def kinds(settings: Settings) -> dict[str, str]:
    """Return the kind of each configured source, by its name."""
    from knowme.sync import source_names

    return {name: source.kind for name, source in source_names(settings.sources).items()}


def voice(
    settings: Settings,
    source: str,
    conversation: str,
    role: str,
    speaker: str,
    meta: Mapping[str, Any],
) -> str:
    """Return whose words a message is: ME, the name of another speaker, or "" (nobody to believe).

    The person's are messages of the role user that no other speaker is named for, and documents
    of their own notes. Not those that an agent wrote, a caller handed in, or a source distrusts.
    """
    if role == "document":
        mine = not speaker and _own_note(settings, source, conversation, meta)
        return ME if mine else ""
    if role != "user" or meta.get("automated"):
        return ""
    if meta.get("subagent") or meta.get("forwarded_from"):
        return ""
    name = " ".join(speaker.split())[:80]
    own = settings.name.strip().casefold()
    if source == "ingest" and name and not meta.get("other"):
        return ME if name.casefold() == own else _other(name, settings.name)
    if meta.get("other"):
        return _other(name, settings.name)
    return ME


def _other(name: str, own: str) -> str:
    """Return another speaker's name, "" where it could be taken for the person's."""
    said, mine = set(name.casefold().split()), set(own.casefold().split())
    if not said or name.casefold() in (ME, "i", "user", "the person", "the user"):
        return ""
    return "" if mine and (said <= mine or mine <= said) else name


def _own_note(settings: Settings, source: str, conversation: str, meta: Mapping[str, Any]) -> bool:
    if meta.get("trust", "user") not in ("user", "owner", "trusted") or source == "ingest":
        return False
    path = conversation.casefold().replace("\\", "/")
    if path.rpartition("/")[2] in AGENTS:
        return False
    kind = kinds(settings).get(source, "")
    if not kind:  # a folder read once, a source that is configured no more: by its paths
        kind = (
            "" if "://" in path or path.startswith(("workspace", "memory-index/")) else "markdown"
        )
    return kind == "markdown" and path.endswith((".md", ".markdown", ".txt"))


# --- the pure heart -----------------------------------------------------------------------------

_READABLE = "m.recall AND m.retired_ms IS NULL AND m.role IN ('user', 'document')"
_ROW = (
    "SELECT m.id, c.source, c.external_id, m.role, m.speaker, plain(m.text), m.at_ms, m.meta"
    " FROM messages m JOIN conversations c ON c.id = m.conversation_id"
)


def spoken(conn: apsw.Connection, message_ids: Iterable[int], settings: Settings) -> list[Spoken]:
    """Return those of the messages that may be read: current, recalled, somebody's own words."""
    found = rows(
        conn,
        f"{_ROW} WHERE m.id IN (SELECT value FROM json_each(?)) AND {_READABLE} ORDER BY m.id",
        (json.dumps(list(message_ids)),),
    )
    made = []
    for number, source, conversation, role, speaker, text, at_ms, meta in found:
        subject = voice(settings, source, conversation, role, speaker, json.loads(meta))
        if subject and text.strip():
            made.append(Spoken(number, source, text, role, subject, at_ms))
    return made


def derive(conn: apsw.Connection, message_ids: Iterable[int], settings: Settings) -> list[Reading]:
    """Return what the rules read in these messages: one Reading each, empty where there is nothing.

    Pure but for ``conn``, from which the messages and the fingerprints are read: put the
    fingerprints in first (``catch_up`` does). ``facts.learn`` stores the result. What may not be
    read (retired, an assistant's, a stranger's document) gives an empty Reading, too.
    """
    from knowme.facts import Reading

    ids = list(dict.fromkeys(message_ids))
    made = {one.id: judged(conn, one, settings) for one in spoken(conn, ids, settings)}
    return [Reading(each, RULES, tuple(made.get(each, ()))) for each in ids]


def judged(
    conn: apsw.Connection,
    one: Spoken,
    settings: Settings,
    given: Sequence[Judged] | None = None,
) -> list[Judged]:
    """Return the claims of a message, each with the gate's verdict ("": it passes).

    ``given`` are a model's, with what is wrong with them already; without them the rules read.
    What holds a password, a key or a card's number is no claim at all.
    With ``privacy.sensitive: off`` a claim on health, politics and the like is left out altogether.
    """
    from knowme import claims

    said = day_of(one.at_ms, settings)
    if given is None:
        read = claims.read(one.text, said=said, role=one.role)
        given = [(claim, "") for claim in read]
    if not given:
        return []
    foreign = fingerprints.spans(conn, one.text, before_message=one.id)
    told = (_judge(claim, wrong, one, said, foreign, settings) for claim, wrong in given)
    kept = [each for each in told if each is not None]
    if any(_is_another(claim, wrong, settings.name) for claim, wrong in kept):
        return [(claim, wrong or ANOTHER) for claim, wrong in kept]
    return kept


def _is_another(claim: Claim, wrong: str, own: str) -> bool:
    """Tell whether somebody says "my name is" with a name that is not at all the person's."""
    if wrong or claim.subject != ME or claim.attribute != "name" or not own.strip():
        return False
    said, mine = set(claim.value.casefold().split()), set(own.casefold().split())
    return not said & mine and not any(a[:3] == b[:3] for a in said for b in mine)


def _judge(
    claim: Claim,
    wrong: str,
    one: Spoken,
    said: date | None,
    foreign: Sequence[tuple[int, int, str]],
    settings: Settings,
) -> Judged | None:
    from knowme import gate
    from knowme.redact import secrets_in
    from knowme.sensitive import sensitive

    if secrets_in(one.text[claim.start : claim.end]) or secrets_in(claim.sentence):
        return None  # a password is kept in the archive, in no fact and on no page
    if settings.privacy.sensitive == "off":
        about = attributes.attribute(claim.attribute).sensitive
        quote = one.text[claim.start : claim.end]
        if about or sensitive(claim.sentence) or sensitive(quote):
            return None
    allowed = [name for name in (settings.name, "" if one.subject == ME else one.subject) if name]
    verdict = wrong or gate.judge(claim, one.text, said, foreign, allowed)
    return (claim if one.subject == ME else _of(claim, one.subject)), verdict


def _of(claim: Claim, speaker: str) -> Claim:
    """Return a claim of another speaker with their name where the rules wrote "me"."""
    if claim.subject != ME:
        return claim
    told = attributes.sentence(ME, claim.attribute, claim.value, claim.when)
    over = attributes.sentence(ME, claim.attribute, claim.value, claim.when, ended=True)
    ended = claim.sentence == over != told  # "I used to love it"
    sentence = attributes.sentence(speaker, claim.attribute, claim.value, claim.when, ended=ended)
    return replace(claim, subject=speaker, sentence=sentence, outright=False)


def day_of(at_ms: int | None, settings: Settings) -> date | None:
    """Return the day on which something was said, in the person's zone."""
    if at_ms is None or not known_time(at_ms):
        return None
    return datetime.fromtimestamp(at_ms / 1000, zone(settings.memory.timezone)).date()


# --- catching up --------------------------------------------------------------------------------


def catch_up(
    home: Home,
    progress: Tell | None = None,
    *,
    limit: int | None = None,
    model: bool = False,
    role: str = "",
) -> Learned:
    """Learn from every message that was not read yet; returns what came of it.

    First the texts that are not the person's are fingerprinted, then the rules read (at most
    ``limit`` messages); what left recall is unlearned. With ``model`` the model of ``role``, else
    of ``reader``, reads what it has not read yet instead. Each batch is one transaction; what
    ``progress`` raises ends the work after the batch before. Raises StoreError; with ``model``
    ModelError, NotFoundError.
    """
    settings = home.settings
    if settings.facts.read == "off":
        return Learned()
    learned = Learned()
    if not model:
        _begin(home)
        learned = learned.plus(_unlearn(home))
        _fingerprint(home, progress)
        return _read(home, progress, limit, learned)
    from knowme import reading

    reads = role or reader(home)
    return reading.catch_up(home, reads, progress, limit) if reads else learned


def reader(home: Home) -> str:
    """Return the role of the model that reads for facts beside the rules, "" where none does.

    ``facts.read``: auto wants one of this machine with a billion parameters or more; model takes
    the one of ``facts.role``, however small and wherever it is.
    """
    settings = home.settings.facts
    if settings.read not in ("auto", "model"):
        return ""
    role = home.models.find(settings.role) if settings.role else home.models.primary
    with suppress(ModelError):
        home.models.engine(role)  # only then an "auto" is known; nothing is loaded
    state = home.models.state(role)
    if state.engine == "echo":
        return ""
    if settings.read == "model":
        return role
    return role if state.local and state.parameters >= SMALL else ""


def start_over(conn: apsw.Connection, *, model: bool = False) -> None:
    """Forget how far the rules (or the ``model``) have read: ``catch_up`` reads everything again.

    What was read before is replaced message by message. For ``rebuild``.
    """
    names = (MODEL,) if model else (STATE, QUIET, fingerprints.AGAIN)
    states.drop(conn, *names)


def state(conn: apsw.Connection) -> dict[str, Any]:
    """Return how far the reading is: {upto, at, seen, seen_at, answers, asked, settings, version}.

    ``upto`` and ``seen`` are the last message read and the last one looked at for fingerprints,
    ``answers`` the last receipt; beside each when it came in.
    """
    return {**_START, **(states.read(conn, STATE) or {})}


_START: Mapping[str, Any] = {
    "upto": 0, "at": 0, "seen": 0, "seen_at": 0, "answers": 0, "asked": 0, "settings": "",
    "version": VERSION,
}  # fmt: skip


def _move(conn: apsw.Connection, **changed: Any) -> None:
    states.keep(conn, STATE, {**state(conn), **changed}, now_ms())


def _depends(settings: Settings) -> str:
    """Return a hash of what a reading depends on in the settings; another: all is read again."""
    told = [settings.name, settings.privacy.sensitive, sorted(kinds(settings).items())]
    whole = json.dumps([*told, settings.memory.timezone])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _begin(home: Home) -> None:
    """Read again from the beginning where the settings changed; step back behind reused numbers.

    A number is used again where the newest messages were forgotten: then what has it came in later.
    """
    depends = _depends(home.settings)

    def begin(conn: apsw.Connection) -> None:
        now = state(conn)
        if now["settings"] != depends:
            start_over(conn)
            conn.execute("DELETE FROM fingerprints")
            states.keep(conn, STATE, {**_START, "settings": depends}, now_ms())
            return
        changed = {}
        for table, column, upto, at in (
            ("messages", "recorded_ms", "upto", "at"),
            ("messages", "recorded_ms", "seen", "seen_at"),
            ("answers", "asked_ms", "answers", "asked"),
        ):
            last = value(
                conn,
                f"SELECT id FROM {table} WHERE id <= ? AND {column} <= ? ORDER BY id DESC LIMIT 1",
                (now[upto], now[at]),
            )
            changed[upto] = last or 0
        if any(now[name] != number for name, number in changed.items()):
            _move(conn, **changed)

    home.db.write(begin)


def _unlearn(home: Home) -> Learned:
    """Unlearn what stood in messages that were replaced, removed, or taken out of recall."""
    from knowme import facts
    from knowme.learn import distil

    def gone(conn: apsw.Connection) -> int:
        found = rows(
            conn,
            "SELECT DISTINCT m.id, m.retired_ms IS NULL FROM facts f"
            " JOIN messages m ON m.id = f.message_id"
            " WHERE m.retired_ms IS NOT NULL OR NOT m.recall",
        )
        distil.sweep_patterns(conn)
        ids = [each for each, _ in found]
        if not ids:
            return 0
        _put_quiet(conn, {*_quiet(conn), *(each for each, mute in found if mute)})
        return facts.unlearn(conn, ids, now_ms(), "Its message is out of recall.")

    return Learned(unlearned=home.db.write(gone))


# --- fingerprints -------------------------------------------------------------------------------


def _fingerprint(home: Home, progress: Tell | None) -> None:
    """Fingerprint what is not the person's: messages, whatever became of them, and our prompts."""
    settings = home.settings
    while True:
        with home.db.read() as conn:
            now = state(conn)
            newest = int(value(conn, "SELECT coalesce(max(id), 0) FROM messages"))
            found = rows(
                conn,
                "SELECT m.id, c.source, c.external_id, m.role, m.speaker, plain(m.text), m.meta,"
                " m.recorded_ms FROM messages m JOIN conversations c ON c.id = m.conversation_id"
                " WHERE m.id > ? ORDER BY m.id LIMIT ?",
                (now["seen"], BATCH),
            )
        if not found:
            break
        made = []
        for number, source, conversation, role, speaker, text, meta, _ in found:
            if voice(settings, source, conversation, role, speaker, json.loads(meta)) != ME:
                made.append((number, {each[0] for each in spans.shingles(text)}))
        tell(progress, found[-1][0], newest, "looking for words of others")
        last, at = found[-1][0], max(now["seen_at"], *(row[-1] for row in found))

        def put(
            conn: apsw.Connection,
            made: Sequence[tuple[int, set[int]]] = tuple(made),
            last: int = last,
            at: int = at,
        ) -> None:
            for number, hashes in made:
                fingerprints.add_all(conn, number, hashes)
            _move(conn, seen=last, seen_at=at)

        home.db.write(put)
    _fingerprint_prompts(home, progress)


def _fingerprint_prompts(home: Home, progress: Tell | None) -> None:
    while True:
        with home.db.read() as conn:
            now = state(conn)
            found = rows(
                conn,
                "SELECT id, question_id, receipt, asked_ms FROM answers WHERE id > ?"
                " ORDER BY id LIMIT ?",
                (now["answers"], BATCH),
            )
        if not found:
            return
        tell(progress, 0, 0, "looking for words of our prompts")
        made = [(question, injected_by(json.loads(receipt))) for _, question, receipt, _ in found]
        last, at = found[-1][0], max(now["asked"], *(row[-1] for row in found))

        def put(
            conn: apsw.Connection,
            made: Sequence[tuple[int, list[str]]] = tuple(made),
            last: int = last,
            at: int = at,
        ) -> None:
            for question, texts in made:
                for text in texts:
                    injected(conn, text, question)
            _move(conn, answers=last, asked=at)

        home.db.write(put)


def injected(conn: apsw.Connection, text: str, question_id: int = 0) -> int:
    """Fingerprint what a prompt of ours showed: recalled notes, profile, files. Returns new hashes.

    ``question_id`` is the message that the prompt was for: what was said before it stays the
    person's. ``catch_up`` does this from the receipts; call it where there is none.
    """
    return fingerprints.add(conn, question_id, text)


def injected_by(receipt: Mapping[str, Any]) -> list[str]:
    """Return the texts that a receipt's prompt showed beside what was said in the conversation."""
    texts = [str(hit.get("text") or "") for hit in receipt.get("used") or ()]
    for message in receipt.get("prompt") or ():
        if message.get("role") == "system":
            texts.append(str(message.get("content") or ""))
    return [text for text in texts if text.strip()]


# --- reading ------------------------------------------------------------------------------------


def _quiet(conn: apsw.Connection) -> list[int]:
    return states.read(conn, QUIET) or []


def _put_quiet(conn: apsw.Connection, ids: Iterable[int]) -> None:
    states.keep(conn, QUIET, sorted(ids), now_ms())


def _loud_again(conn: apsw.Connection) -> list[int]:
    """Return the messages passed over because they were out of recall, and that are in it now."""
    found = rows(
        conn,
        f"SELECT m.id FROM messages m WHERE m.id IN (SELECT value FROM json_each(?))"
        f" AND {_READABLE}",
        (json.dumps(_quiet(conn)),),
    )
    return [each for (each,) in found]


def _read(home: Home, progress: Tell | None, limit: int | None, learned: Learned) -> Learned:
    with home.db.read() as conn:
        more = sorted({*fingerprints.again(conn), *_loud_again(conn)})
        upto = state(conn)["upto"]
        total = len(more) + int(
            value(conn, "SELECT count(*) FROM messages WHERE id > ?", (upto,)) or 0
        )
    done, left = 0, total if limit is None else min(limit, total)
    while left > 0:
        size = min(BATCH, left)
        batch, more = more[:size], more[size:]
        tell(progress, done, total, "reading")
        read = _read_these(home, batch) if batch else _read_next(home, size)
        if read is None:
            break
        learned = learned.plus(read)
        done, left = done + read.messages, left - max(1, read.messages)
    tell(progress, done, total, "read")
    return learned


def _read_next(home: Home, size: int) -> Learned | None:
    """Read the next messages in the order in which they came in; None where there are none."""
    with home.db.read() as conn:
        now = state(conn)
        found = rows(
            conn,
            "SELECT m.id, m.recorded_ms, NOT m.recall AND m.retired_ms IS NULL"
            # A question that was asked here never comes into recall.
            " AND m.role IN ('user', 'document') AND c.source <> 'knowme'"
            " FROM messages m JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.id > ? ORDER BY m.id LIMIT ?",
            (now["upto"], size),
        )
        if not found:
            return None
        readings = _derived(conn, [row[0] for row in found], home.settings)
    quiet = [number for number, _, mute in found if mute]
    last, at = found[-1][0], max(now["at"], *(row[1] for row in found))

    def put(conn: apsw.Connection) -> Learned:
        if quiet:
            _put_quiet(conn, {*_quiet(conn), *quiet})
        _move(conn, upto=last, at=at)
        return store(conn, readings, home.settings)

    return home.db.write(put)


def _read_these(home: Home, ids: Sequence[int]) -> Learned:
    with home.db.read() as conn:
        readings = _derived(conn, ids, home.settings)

    def put(conn: apsw.Connection) -> Learned:
        fingerprints.read_again(conn, ids)
        loud = set(_loud_again(conn))
        _put_quiet(conn, set(_quiet(conn)) - (loud & set(ids)))
        return store(conn, readings, home.settings)

    return home.db.write(put)


def _derived(conn: apsw.Connection, ids: Sequence[int], settings: Settings) -> list[Reading]:
    """Return what the rules read, and what models read or told there before, judged anew."""
    from knowme.facts import Reading

    rules = derive(conn, ids, settings)
    found = rows(
        conn,
        "SELECT message_id, read_by, subject, attribute, start, end, certain, outright, claim"
        " FROM facts WHERE (read_by GLOB 'model:*' OR read_by GLOB 'personality:*')"
        " AND message_id IN (SELECT value FROM json_each(?))"
        " ORDER BY message_id, read_by, start, uid",
        (json.dumps(list(ids)),),
    )
    read: dict[tuple[int, str], list[Judged]] = {}
    for number, by, subject, attribute, start, end, certain, outright, told in found:
        was = json.loads(told)
        claim = Claim(
            subject, attribute, was["value"], was["sentence"], start, end, When(*was["when"]),
            bool(certain), bool(outright), by,
        )  # fmt: skip
        wrong = was["gate"] if was["gate"] in OF_MODELS else ""
        read.setdefault((number, by), []).append((claim, wrong))
    spoke = {one.id: one for one in spoken(conn, {number for number, _ in read}, settings)}
    again = [
        Reading(number, by, tuple(judged(conn, spoke[number], settings, given)))
        for (number, by), given in read.items()
        if number in spoke
    ]
    return [*rules, *again]


def store(
    conn: apsw.Connection, readings: Sequence[Reading], settings: Settings, at_ms: int | None = None
) -> Learned:
    """Learn what was read; messages that hold claims are remembered by their own words, too."""
    from knowme import facts

    had = holding(conn, [reading.message_id for reading in readings])
    told = [one for one in readings if one.claims or (one.message_id, one.read_by) in had]
    done = facts.learn(conn, told, now_ms() if at_ms is None else at_ms, name=settings.name)
    for reading in told:
        if reading.claims:
            text = value(
                conn, "SELECT plain(text) FROM messages WHERE id = ?", (reading.message_id,)
            )
            fingerprints.own(
                conn, reading.message_id, {each[0] for each in spans.shingles(text or "")}
            )
    return Learned().plus(done)._replace(messages=len(readings))


def holding(conn: apsw.Connection, ids: Sequence[int]) -> set[tuple[int, str]]:
    """Return (message, reader) of what was read in these messages before."""
    found = rows(
        conn,
        "SELECT DISTINCT message_id, read_by FROM facts"
        " WHERE message_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    return {(number, by) for number, by in found}


def tell(progress: Tell | None, done: int, total: int, what: str) -> None:
    """Tell whoever listens; it may raise to end the work."""
    if progress is not None:
        progress(done, total, what)
