"""What is believed of claims that bear on each other, and on the person's word: a pure function.

Promises: ``resolve`` does not mind the order of what it is given, and neither the order in which
messages came in; what it says of one group depends on nothing outside of it.
Refuses to know: rows, events, how a claim was read.

Claims that can bear on each other make a group: those of one subject and attribute; of an attribute
that has many values only those of the same value. They are taken in the order in which they were
said. The same value while it holds is a repetition; another one of a single attribute ends what was
so before it; where that is not sure (hedged, of somebody else, by dates that do not agree) it is a
doubt for the person. What the person decided holds for what was said up to then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from knowme.attributes import attribute, sentence, value_key
from knowme.times import known_time
from knowme.types import ME, Claim, Fact, When

STATES = ("believed", "repeated", "superseded", "doubtful", "quarantined", "retired")
ACTIONS = ("accept", "reject", "both", "retire", "edit", "pin", "unpin")

HEDGED = "It contradicts what is believed, and was not said for certain."
HEARSAY = "It contradicts what is believed, and somebody else said it."
OF_THE_PERSON = "Somebody else said it of you."
BY_A_MODEL = "It contradicts what a rule read, and a model read it."
BOTH_CANNOT_BE = "By their dates, both cannot be."
PINNED = "It contradicts what you pinned."
EDITED = "It contradicts what you wrote."
REJECTED = "You said that it is not so."
RETIRED = "You retired it."
OVERTAKEN = "What was said later settled it."


class Decision(NamedTuple):
    """What the person said of a fact (``key``: see ``fact_key``).

    It holds for all that was said of this key up to ``at_ms``, unless it was undone.
    """

    id: int
    at_ms: int
    uid: str
    action: str
    key: str
    text: str = ""
    undone_ms: int | None = None


class Place(NamedTuple):
    """Where a claim stands in the archive. ``told``: another speaker's name, "" for the person."""

    source: str = ""
    conversation: str = ""
    seq: int = 0
    message: str = ""
    told: str = ""


class Outcome(NamedTuple):
    """What is believed of one claim; the fields are those of ``Fact``."""

    state: str
    reason: str
    other: str
    value: str
    sentence: str
    when: When
    pinned: bool
    retired_ms: int | None


def fact_key(claim: Claim | Fact) -> str:
    """Return the key that decisions on a claim, as it was read, hold by.

    It is the subject, the attribute and the normalised value, with NULs between. What is over has
    a key of its own: to reject "no longer" must not reject what was so.
    """
    over = "\0over" if claim.when.to_first or claim.when.to_last else ""
    return f"{claim.subject}\0{claim.attribute}\0{value_key(claim.attribute, claim.value)}{over}"


def reworded(claim: Claim | Fact, subject: str, text: str) -> str:
    """Return the sentence of a claim with another subject or value; it keeps its "no longer"."""
    over = sentence(claim.subject, claim.attribute, claim.value, claim.when, ended=True)
    ended = claim.sentence == over
    return sentence(subject, claim.attribute, text, claim.when, ended=ended)


class _Said:
    """A claim while its group is resolved."""

    def __init__(self, fact: Fact, place: Place, decisions: Mapping[str, list[Decision]]) -> None:
        self.fact, self.when, self.told = fact, fact.when, place.told
        self.day = _day(fact.said_ms)
        self.order = _order(fact, place)
        self.state, self.reason, self.other, self.value = "believed", "", "", fact.value
        self.strong = self.protected = 0  # the decision that speaks for it, that guards it
        self.pinned = self.edited = False
        self.is_open = True
        self.removed_ms: int | None = None  # the person: it is not so
        self.masked_ms: int | None = None  # the person: leave it out
        self.both_ms: int | None = None  # the person: it contradicts nothing said until then
        self.ended_by: _Said | None = None
        self.ended: list[_Said] = []
        self.affirmed = self.day  # the last day on which it was said to be so
        spoken = {*decisions.get(fact_key(fact), ()), *decisions.get(fact.uid, ())}
        for one in sorted(spoken):
            if (fact.said_ms or one.at_ms) <= one.at_ms:
                self._decide(one)
        self.key = value_key(fact.attribute, self.value)
        self.by_rule = bool(self.strong) or not fact.read_by.startswith("model:")
        if fact.state == "quarantined" and not self.strong:
            self.state, self.reason = "quarantined", fact.reason

    def _decide(self, one: Decision) -> None:
        """Apply one decision; a later one goes over an earlier one. Pins are a matter apart."""
        if one.action in ("pin", "unpin"):
            self.pinned = one.action == "pin"
        if one.action == "unpin":
            return
        self.removed_ms = one.at_ms if one.action == "reject" else None
        self.masked_ms = one.at_ms if one.action == "retire" else None
        self.both_ms = one.at_ms if one.action == "both" else None
        self.strong = one.id if one.action not in ("reject", "retire") else 0
        if one.action == "edit":
            self.value, self.edited = one.text, True
        if one.action in ("edit", "pin"):
            self.protected = one.id

    @property
    def names(self) -> tuple[str, str]:
        """Return what it says: the attribute and the value."""
        return self.fact.attribute, self.key

    @property
    def guarded(self) -> str:
        """Say why nothing may supersede it silently, "" where that may be."""
        if self.pinned:
            return PINNED
        return EDITED if self.edited else ""

    @property
    def ends(self) -> bool:
        """Tell whether it says when something ended."""
        return bool(self.when.to_first or self.when.to_last)

    @property
    def over(self) -> bool:
        """Tell whether something says that it ended, be it at an unknown time."""
        return self.ends or self.ended_by is not None

    def open_on(self, day: str) -> bool:
        """Tell whether it still holds on a day, as far as one can know."""
        return not self.ends or bool(day and self.when.to_last > day)

    @property
    def low(self) -> str:
        """Return the first day on which it surely was so, "" where that is unknown."""
        if not self.ends:
            return self.when.from_last or self.day
        return (self.when.from_last or self.when.to_first) if self.when.to_first else ""

    @property
    def high(self) -> str:
        """Return the last day on which it surely was so; only where ``low`` is known."""
        return self.when.to_first if self.ends else _FOREVER

    def end(self, by: _Said) -> None:
        """Let ``by`` say when this ended."""
        now = by.when
        if by.names == self.names:
            to = (now.to_first, now.to_last)
        else:
            last = now.from_last or by.day
            first = now.from_first or (self.affirmed if self.affirmed <= last else "")
            to = (first, last)
        if to[1] and to[1] < self.when.from_first:  # the dates do not agree: nobody knows
            to = ("", "")
        self.when = When(self.when.from_first, self.when.from_last, *to)
        self.state, self.other, self.ended_by = "superseded", by.fact.uid, by

    def begin(self) -> None:
        """Where only a last day is known of its beginning: it was not before what it ended."""
        others = [each for each in self.ended if each.names != self.names]
        first = max((each.affirmed for each in others), default="")
        if first and not self.when.from_first and first <= self.when.from_last:
            self.when = replace(self.when, from_first=first)

    def outcome(self) -> Outcome:
        """Return what is believed of it in the end."""
        state, reason, other, retired = self.state, self.reason, self.other, None
        if self.removed_ms is not None:
            state, reason, other, retired = "retired", REJECTED, "", self.removed_ms
        elif self.masked_ms is not None and state != "quarantined":
            state, reason, retired = "retired", RETIRED, self.masked_ms
        fact, said = self.fact, self.fact.sentence
        if self.value != fact.value:
            said = reworded(fact, fact.subject, self.value)
        pinned = self.pinned and state != "repeated"
        return Outcome(state, reason, other, self.value, said, self.when, pinned, retired)


_FOREVER = "9999-12-31"
_OPPOSITES = {
    "dislikes": "likes",
    "does not eat": "eats",
    "does not drink": "drinks",
    "does not use": "uses",
}
"""Of one value only one of the two holds at a time: the newer one ends the other."""
_FAMILY = {**{name: name for name in _OPPOSITES.values()}, **_OPPOSITES}
_NOWHERE = Place()


def kin(name: str) -> tuple[str, ...]:
    """Return the attributes that are resolved together with this one."""
    family = _FAMILY.get(name)
    return (name,) if family is None else tuple(n for n, f in _FAMILY.items() if f == family)


def _day(at_ms: int | None) -> str:
    if at_ms is None or not known_time(at_ms):
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def _order(fact: Fact, place: Place) -> tuple[Any, ...]:
    """Return what puts claims in the order in which they count: undated ones first.

    What was said of the future counts from the day on which it begins. No number of a row takes
    part: it tells the order in which messages came in.
    """
    at_ms = fact.said_ms if fact.said_ms is not None else -(1 << 62)
    if fact.said_ms is not None and fact.when.from_first > _day(fact.said_ms):
        begins = datetime.combine(date.fromisoformat(fact.when.from_first), datetime.min.time())
        at_ms = max(at_ms, int(begins.replace(tzinfo=UTC).timestamp() * 1000))
    model = fact.read_by.startswith("model:")
    where = (place.source, place.conversation, place.seq, place.message)
    return (at_ms, *where, fact.start, model, fact.uid)


def resolve(
    claims: Iterable[Fact],
    decisions: Iterable[Decision] = (),
    places: Mapping[int, Place] | None = None,
) -> dict[str, Outcome]:
    """Return what is believed of each claim, by uid. Pure; the order of what is given is no matter.

    Of a claim counts what was read: value, sentence, When, and the gate's verdict (``state``
    "quarantined" with its ``reason``); any other state is passed over. ``claims`` must hold whole
    groups. ``places`` says by message id where it stands: it orders what was said at one time.
    """
    held: dict[str, list[Decision]] = {}
    for one in sorted(decisions):
        if one.undone_ms is None:
            held.setdefault(one.key, []).append(one)
            held.setdefault(one.uid, []).append(one)
    places = places or {}
    groups: dict[tuple[str, str, str], list[_Said]] = {}
    for fact in claims:
        said = _Said(fact, places.get(fact.message_id, _NOWHERE), held)
        name = fact.attribute
        key = "" if attribute(name).single else said.key
        groups.setdefault((fact.subject, _FAMILY.get(name, name), key), []).append(said)
    found: dict[str, Outcome] = {}
    for group in groups.values():
        _Group().fold(group)
        found |= {said.fact.uid: said.outcome() for said in group}
    return found


class _Group:
    """The claims that bear on each other, taken one after the other as they were said."""

    def __init__(self) -> None:
        self.by_value: dict[tuple[str, str], list[_Said]] = {}
        self.open: list[_Said] = []
        self.over: list[_Said] = []
        self.last_end = ""
        self.doubted: list[tuple[_Said, _Said | None]] = []

    def fold(self, group: list[_Said]) -> None:
        """Say of each claim what is believed of it."""
        for said in sorted(group, key=lambda said: said.order):
            if said.removed_ms is None and said.state != "quarantined":
                self._take(said)
        for said, against in self.doubted:
            self._settle(said, against)
        for said in group:
            if said.ended_by is not None:  # whose beginning may be better known by now
                said.end(said.ended_by)
        for said in group:
            said.begin()

    def _take(self, said: _Said) -> None:
        twin = self._twin(said)
        if twin is not None and (twin.over or not said.ends):
            _repeat(twin, said)
            return
        if said.told and said.fact.subject == ME and not said.strong:
            self._doubt(said, OF_THE_PERSON, twin)
            return
        if twin is not None:
            self._close(twin, said)
            return
        ended = []
        for other in self._rivals(said):
            why = _clash(other, said)
            if why not in ("", _ENDS):
                self._doubt(said, why, other)
                return
            if why == _ENDS:
                ended.append(other)
        for other in ended:
            self._end(other, said)
        self._put(said)

    def _close(self, twin: _Said, said: _Said) -> None:
        """Take "no longer", or "until", against what was so."""
        why = _why_doubtful(twin, said)
        if why:
            self._doubt(said, why, twin)
            return
        begun, over = twin.when, said.when
        vague = not over.from_first and over.from_last in ("", over.to_last)
        if vague and begun.from_last <= over.to_last:
            said.when = When(begun.from_first, begun.from_last, over.to_first, over.to_last)
        self._end(twin, said)
        self._put(said)

    def _doubt(self, said: _Said, why: str, against: _Said | None) -> None:
        said.state, said.reason = "doubtful", why
        said.other = against.fact.uid if against else ""
        self.doubted.append((said, against))

    def _put(self, said: _Said) -> None:
        self.by_value.setdefault(said.names, []).append(said)
        if said.open_on(said.day):
            self.open.append(said)
        else:
            self._past(said)

    def _end(self, said: _Said, by: _Said) -> None:
        by.ended.append(said)
        said.end(by)
        self.open.remove(said)
        self._past(said)

    def _past(self, said: _Said) -> None:
        said.is_open = False
        self.over.append(said)
        self.last_end = max(self.last_end, said.high)

    def _twin(self, said: _Said) -> _Said | None:
        """Return what says the same of the same time."""
        for other in reversed(self.by_value.get(said.names, ())):
            if (other.masked_ms is None or said.masked_ms is not None) and _meets(other, said):
                return other
        return None

    def _rivals(self, said: _Said) -> Iterator[_Said]:
        """Yield what holds another value (or the opposite) and may not hold at the same time."""
        past = self.over
        if said.open_on(said.day) and said.low >= self.last_end:
            past = []  # most claims: nothing that is over can reach them
        for other in (*reversed(self.open), *reversed(past)):
            if other.names != said.names and other.masked_ms is None:
                yield other

    def _settle(self, said: _Said, against: _Said | None) -> None:
        """Let a doubt go that was settled by what was said later."""
        for other in self.by_value.get(said.names, ()):
            if other.order > said.order and other.masked_ms is None:
                said.state, said.reason, said.other = "repeated", "", other.fact.uid
                return
        by = against.ended_by if against else None
        if by is not None and by.order > said.order:
            said.state, said.reason = "retired", OVERTAKEN


_ENDS = "ends"


def _meets(old: _Said, new: _Said) -> bool:
    """Tell whether two claims of one value speak of one and the same time."""
    if not old.over:
        return not (new.ends and new.when.to_last and new.when.to_last < old.low)
    if not new.ends:
        return False  # it was over, and it is so again
    apart = old.when.to_last and new.when.from_first > old.when.to_last
    return not (apart or (new.when.to_last and old.when.from_first > new.when.to_last))


def _repeat(first: _Said, again: _Said) -> None:
    """Count a claim for the one that it repeats; a better date of the beginning is taken over."""
    again.state, again.other = "repeated", first.fact.uid
    if not again.ends:
        first.affirmed = max(first.affirmed, again.day)
    first.by_rule = first.by_rule or again.by_rule
    old, new = first.when, again.when
    if not new.from_last or not again.day or new.from_last >= again.day:
        return  # it only says that it is so
    if any(new.from_last < said.low for said in first.ended):
        return
    earlier = not old.from_last or new.from_last < old.from_first
    closer = old.from_first <= new.from_first and new.from_last <= old.from_last
    if earlier or closer:
        first.when = When(new.from_first, new.from_last, old.to_first, old.to_last)


def _clash(old: _Said, new: _Said) -> str:
    """Say what a new claim does to one of another value: "" nothing, _ENDS, or why it is doubtful.

    Only what surely overlaps clashes; what began later ends what was so before.
    """
    for one, other in ((old, new), (new, old)):
        if one.both_ms is not None and (other.fact.said_ms or 0) <= one.both_ms:
            return ""
    if old.is_open and old.open_on(new.day) and new.open_on(new.day):
        why = _why_doubtful(old, new)
        surely_before = bool(old.low and new.low) and new.low < old.low
        return why or (BOTH_CANNOT_BE if surely_before and not new.strong else _ENDS)
    if new.strong or not (old.low and new.low) or new.low > new.high or old.low > old.high:
        return ""
    return BOTH_CANNOT_BE if new.low < old.high and old.low < new.high else ""


def _why_doubtful(old: _Said, new: _Said) -> str:
    """Say why ``new`` may not end ``old`` without the person's word; "" if it may."""
    if old.guarded and new.strong < old.protected:
        return old.guarded
    if new.strong:
        return ""
    if not new.fact.certain:
        return HEDGED
    if new.told and new.told != new.fact.subject:
        return HEARSAY
    return BY_A_MODEL if old.by_rule and not new.by_rule else ""
