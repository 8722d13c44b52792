"""Train, validation and test, so that what is tested was never trained.

Promises: whole conversations go to one side, the newest to the test and those before them to the
validation; a message, a near-duplicate and a run of RUN_WORDS words of the test stand on no other
side; what cannot be kept apart goes nowhere and is counted. ``leaks`` looks for all of that anew,
in what is about to be trained, instructions and notes of memory included. Nothing is drawn by lot.
Refuses to know: what a pair is worth, how a prompt is made.

A place (conversation, section of a document) that holds more than a side's share alone, as the one
chat of a whole life does, is cut where it was quiet for QUIET_MS or longer.

A run of words that stands in PHRASE_PLACES places or more is a phrase of this person, of their
assistant or of the wording of our own questions, and no leak; nor are its last words with what
comes behind them. It is counted in what was said, before any note of memory stands in a prompt, or
a note could make a phrase of what it repeats. More than PHRASE_WORDS words of a tested answer that
stand in a trained answer are a leak, however often they stand.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from knowme.db import rows
from knowme.errors import InputError
from knowme.learn import near
from knowme.types import Pair

if TYPE_CHECKING:
    import apsw

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SIDES = (TRAIN, VALIDATION, TEST)
"""In the order of what gives way: where two sides share something, the one named first loses it."""
RUN_WORDS = 8
PHRASE_PLACES = 3
PHRASE_WORDS = 15
QUIET_MS = 6 * 3_600_000
"""After so long a silence what is said in a place is another conversation."""
NEAR = 0.8
_SAID_THERE = frozenset(("exchange", "style", "collected", "manual"))
"""Kinds that are what was said itself; the others tell of it, perhaps from elsewhere."""

Unit = tuple[str, int]
"""A place, and which of its stretches."""


@dataclass(frozen=True)
class Sides:
    """The three sides of a data set.

    ``dropped`` counts what went nowhere, by reason. ``phrases`` are the hashes of runs that many
    places share (see above); without them every run counts.
    """

    train: tuple[Pair, ...] = ()
    validation: tuple[Pair, ...] = ()
    test: tuple[Pair, ...] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    phrases: frozenset[int] = field(default=frozenset(), repr=False)
    _first: dict[str, dict[int, int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def named(self) -> dict[str, tuple[Pair, ...]]:
        """Return the pairs by the name of their side."""
        return {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}

    @cached_property
    def side_of(self) -> Mapping[str, str]:
        """On which side a pair stands, by its uid."""
        return {pair.uid: name for name, part in self.named().items() for pair in part}

    @cached_property
    def owner_of(self) -> Mapping[int, str]:
        """On which side a message of the archive stands, by its number."""
        return {i: name for name, part in self.named().items() for p in part for i in p.because}


@dataclass(frozen=True, slots=True)
class Leak:
    """What is trained and tells of what is tested. Holds no words.

    ``kind``: message, place, near, run. ``uid`` is the pair that has to go, on ``side``; ``other``
    the one that it tells of.
    """

    kind: str
    uid: str
    side: str
    other: str
    why: str


def split(pairs: Iterable[Pair], *, test_share: float, validation_share: float) -> Sides:
    """Return the sides of these pairs; the shares are of their number, and met about.

    Undated pairs are trained: nobody knows that they are not older than the test. The order in
    which the pairs come makes no difference. Raises InputError for pairs of two purposes, and for
    shares that leave nothing to train.
    """
    if not (0 <= test_share and 0 <= validation_share and test_share + validation_share < 1):
        raise InputError(f"Shares of {test_share} and {validation_share} leave nothing to train.")
    every = sorted({pair.uid: pair for pair in pairs}.values(), key=_by_time)
    if len(purposes := sorted({pair.purpose for pair in every})) > 1:
        raise InputError(
            f"A data set has one purpose, not {' and '.join(purposes)}.",
            "Make one for each: knowme learn dataset --purpose ...",
        )
    dropped: Counter[str] = Counter()
    units = _units(every, test_share)
    side = _assigned(every, units, test_share, validation_share)
    phrases = _phrases(every, units)
    parts: dict[str, list[Pair]] = {name: [] for name in SIDES}
    for pair in every:
        parts[side[pair.uid]].append(pair)
    gone = _straddling(every, units, side)
    parts = _without(parts, gone, "rests on two sides", dropped)
    parts = _without(parts, _doubled(parts), "near-duplicate of another side", dropped)
    parts = _without(parts, _repeating(parts, phrases), "repeats the test", dropped)
    train, validation, test = (tuple(parts[name]) for name in SIDES)
    return Sides(train, validation, test, dropped, phrases)


def _without(
    parts: Mapping[str, Sequence[Pair]], gone: Collection[str], why: str, dropped: Counter[str]
) -> dict[str, list[Pair]]:
    dropped[why] += len(gone)
    return {name: [p for p in part if p.uid not in gone] for name, part in parts.items()}


def _by_time(pair: Pair) -> tuple[bool, int, str]:
    return pair.at_ms is not None, pair.at_ms or 0, pair.uid


# --- places -------------------------------------------------------------------------------------


def _units(every: Sequence[Pair], test_share: float) -> dict[str, Unit]:
    """Return the unit of each pair, by its uid: what must not be parted."""
    placed = defaultdict(list)
    for pair in every:
        placed[pair.place].append(pair)
    most = max(1, ceil(len(every) * test_share))
    found = {}
    for place, pairs in placed.items():
        stretches = _cut(pairs, ceil(most / 2)) if len(pairs) > most else [pairs]
        for number, stretch in enumerate(stretches):
            found.update({pair.uid: (place, number) for pair in stretch})
    return found


def _cut(pairs: Sequence[Pair], enough: int) -> list[list[Pair]]:
    """Cut the pairs of one place, oldest first, at silences, into stretches of about ``enough``."""
    stretches: list[list[Pair]] = [[]]
    last: int | None = None
    for pair in pairs:
        quiet = last is not None and pair.at_ms is not None and pair.at_ms - last >= QUIET_MS
        if quiet and len(stretches[-1]) >= enough:
            stretches.append([])
        stretches[-1].append(pair)
        last = pair.at_ms
    return stretches


def _assigned(
    every: Sequence[Pair], units: Mapping[str, Unit], test_share: float, validation_share: float
) -> dict[str, str]:
    """Return the side of each pair, by its uid: units by their newest pair, the newest first."""
    newest: dict[Unit, int | None] = {}
    size: Counter[Unit] = Counter()
    for pair in every:  # the oldest first, and the undated before them
        newest[units[pair.uid]] = pair.at_ms
        size[units[pair.uid]] += 1
    dated = [unit for unit in newest if newest[unit] is not None]
    dated.sort(key=lambda unit: (newest[unit] or 0, unit), reverse=True)
    chosen: dict[Unit, str] = {}
    for name, share in ((TEST, test_share), (VALIDATION, validation_share)):
        free = [unit for unit in dated if unit not in chosen]
        taken = _newest(free, size, share * len(every))
        if len(chosen) + len(taken) < len(newest):  # something is left to train
            chosen.update(dict.fromkeys(taken, name))
    return {pair.uid: chosen.get(units[pair.uid], TRAIN) for pair in every}


def _newest(free: Sequence[Unit], size: Mapping[Unit, int], wanted: float) -> list[Unit]:
    """Return the first of these units that hold about as many pairs as are wanted."""
    taken: list[Unit] = []
    many = 0
    for unit in free:
        if wanted <= 0 or many + size[unit] / 2 > wanted:
            if taken or wanted <= 0:
                break
            continue  # one that cannot be cut, and would leave little to train
        taken.append(unit)
        many += size[unit]
    return taken or sorted(free, key=lambda unit: size[unit])[: int(wanted > 0)]


def _homes(every: Iterable[Pair], units: Mapping[str, Unit]) -> dict[int, Unit]:
    """Return where each message was said: the unit of most pairs that rest on it.

    Pairs that are what was said are asked first; a fact rests on messages of many places. Of
    equals the last in order, so that the answer is the same each time.
    """
    votes: dict[int, Counter[Unit]] = defaultdict(Counter)
    for pair in every:
        for number in pair.because:
            votes[number][units[pair.uid]] += 1_000 if pair.kind in _SAID_THERE else 1
    return {i: max(told, key=lambda unit: (told[unit], unit)) for i, told in votes.items()}


def _straddling(
    every: Sequence[Pair], units: Mapping[str, Unit], side: Mapping[str, str]
) -> set[str]:
    """Return the uids of pairs that rest on messages of another side than their own."""
    sides = {units[pair.uid]: side[pair.uid] for pair in every}
    homes = _homes(every, units)
    return {
        pair.uid
        for pair in every
        if any(sides[homes[number]] != side[pair.uid] for number in pair.because)
    }


# --- what is said twice -------------------------------------------------------------------------


def _alike(parts: Mapping[str, Sequence[Pair]]) -> Iterator[tuple[Pair, str, Pair, str]]:
    """Yield (pair, side, other, side): near-duplicates across sides, the one to go first.

    A whole pair, or a long answer alone: under another question it is learned all the same.
    """
    every = [(name, pair) for name in SIDES for pair in parts[name]]
    long = [each for each in every if len(near.words(each[1].answer)) >= RUN_WORDS]
    for some, texts in (
        (every, [near.told(pair) for _, pair in every]),
        (long, [pair.answer for _, pair in long]),
    ):
        best: dict[int, tuple[str, Pair]] = {}
        roots = near.clusters(texts, NEAR)
        for root, (name, pair) in zip(roots, some, strict=True):
            best[root] = (name, pair)  # sides come in their order: the last one keeps it
        for root, (name, pair) in zip(roots, some, strict=True):
            if best[root][0] != name:
                yield pair, name, best[root][1], best[root][0]


def _doubled(parts: Mapping[str, Sequence[Pair]]) -> set[str]:
    return {pair.uid for pair, _, _, _ in _alike(parts)}


def _runs(text: str) -> near.Hashes:
    """Return the hashes of all runs of RUN_WORDS words, in order; none of a shorter text."""
    said = near.words(text)
    return near.grams(said, RUN_WORDS) if len(said) >= RUN_WORDS else near.grams((), RUN_WORDS)


def _stands(found: near.Hashes, among: near.Hashes) -> NDArray[np.bool_]:
    """Tell of each run whether it is among the sorted others (np.isin would sort these anew)."""
    if not len(among):
        return np.zeros(len(found), bool)
    at = np.minimum(np.searchsorted(among, found), len(among) - 1)
    return np.asarray(among[at] == found)


def _together(found: Iterable[near.Hashes]) -> near.Hashes:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def _phrases(every: Iterable[Pair], units: Mapping[str, Unit]) -> frozenset[int]:
    """Return the runs that stand in PHRASE_PLACES units or more, instructions left out."""
    said: dict[Unit, list[near.Hashes]] = defaultdict(list)
    for pair in every:
        said[units[pair.uid]] += [_runs(m.content) for m in pair.messages if m.role != "system"]
    each = [_together(found) for found in said.values()]
    found, many = np.unique(np.concatenate([np.zeros(0, np.uint64), *each]), return_counts=True)
    return frozenset(int(run) for run in found[many >= PHRASE_PLACES])


def _fresh(found: near.Hashes, common: near.Hashes) -> near.Hashes:
    """Return the runs of a text no word of which belongs to a phrase there.

    Else the last words of a phrase and the one behind them were a run that few places share.
    """
    if not len(found):
        return found
    at = np.flatnonzero(_stands(found, common))
    after = at[:, None] + np.arange(1 - RUN_WORDS, RUN_WORDS)
    met = np.zeros(len(found), bool)
    met[after[(after >= 0) & (after < len(found))]] = True
    return found[~met]


@dataclass(frozen=True, slots=True)
class _Held:
    """The runs of tested pairs: all but phrases, those that touch none, and those of answers."""

    every: near.Hashes
    fresh: near.Hashes
    answers: near.Hashes

    @classmethod
    def of(cls, tested: Iterable[Pair], common: near.Hashes, texts_of: Mapping[int, str]) -> _Held:
        every, fresh, answers = [], [], []
        for pair in tested:
            texts = [pair.answer, pair.question, *(texts_of.get(i, "") for i in pair.because)]
            found = [_runs(text) for text in texts]
            # What stands in its own instructions is told to the model at the test as well.
            given = _together([_runs(m.content) for m in pair.messages if m.role == "system"])
            every.append(np.setdiff1d(_together(found), given, assume_unique=True))
            some = _together(_fresh(runs, common) for runs in found)
            fresh.append(np.setdiff1d(some, given, assume_unique=True))
            answers.append(found[0])
        rare = np.setdiff1d(_together(every), common, assume_unique=True)
        return cls(rare, _together(fresh), _together(answers))


def _telling(
    parts: Mapping[str, Sequence[Pair]],
    phrases: Collection[int],
    texts_of: Mapping[int, str],
) -> Iterator[tuple[Pair, str, int]]:
    """Yield (pair, side, run): pairs of which a message repeats the test, and the hash of what.

    A run counts where it touches no phrase in one of the two texts.
    """
    common = np.sort(np.fromiter(phrases, np.uint64, len(phrases)))
    held = _Held.of(parts[TEST], common, texts_of)
    for name in (TRAIN, VALIDATION):
        for pair in parts[name]:
            said = [_runs(message.content) for message in pair.messages]
            hits = _long(said[-1], held.answers)
            for found in said:
                fresh = _fresh(found, common)
                both = (found[_stands(found, held.fresh)], fresh[_stands(fresh, held.every)])
                hits = np.concatenate([hits, *both])
            if len(hits):
                yield pair, name, int(hits[0])


def _long(found: near.Hashes, answers: near.Hashes) -> near.Hashes:
    """Return the runs that make up more than PHRASE_WORDS words in one, all of them answers'."""
    in_a_row = 0
    least = PHRASE_WORDS + 1 - RUN_WORDS + 1
    standing = _stands(found, answers)
    if np.count_nonzero(standing) < least:
        return found[:0]
    for at, stands in enumerate(standing):
        in_a_row = in_a_row + 1 if stands else 0
        if in_a_row == least:
            return found[at - least + 1 : at + 1]
    return found[:0]


def _repeating(parts: Mapping[str, Sequence[Pair]], phrases: Collection[int]) -> set[str]:
    return {pair.uid for pair, _, _ in _telling(parts, phrases, {})}


# --- the check ----------------------------------------------------------------------------------


def leaks(sides: Sides, texts_of: Mapping[int, str] | None = None) -> list[Leak]:
    """Return everything that is trained, or decides when to stop, and tells of the test.

    Messages, places and near-duplicates are compared between all three sides; runs of words of the
    tested questions and answers, and of the messages that they rest on where ``texts_of`` gives
    those, are looked for in every message of the other two. One pair may be named more than once.
    """
    parts = sides.named()
    found = [*_shared_messages(parts), *_shared_places(parts)]
    for pair, name, other, there in _alike(parts):
        found.append(_leak("near", pair, name, other.uid, there, "is nearly the same as"))
    telling = list(_telling(parts, sides.phrases, texts_of or {}))
    whose: dict[int, str] = {}
    if telling:
        for tested in sides.test:
            held = _Held.of([tested], np.zeros(0, np.uint64), texts_of or {})
            for run in (*held.every, *held.answers):
                whose.setdefault(int(run), tested.uid)
    for pair, name, run in telling:
        told = f"shares a run of {RUN_WORDS} words or more with"
        found.append(_leak("run", pair, name, whose.get(run, ""), TEST, told))
    return found


def _leak(kind: str, pair: Pair, side: str, other: str, there: str, how: str) -> Leak:
    return Leak(kind, pair.uid, side, other, f"{pair.uid} ({side}) {how} {other} ({there})")


def _shared_messages(parts: Mapping[str, Sequence[Pair]]) -> Iterator[Leak]:
    held: dict[int, tuple[str, Pair]] = {}
    for name in reversed(SIDES):
        for pair in parts[name]:
            for number in pair.because:
                there, other = held.setdefault(number, (name, pair))
                if there != name:
                    how = f"rests on message {number}, and so does"
                    yield _leak("message", pair, name, other.uid, there, how)
                    break


def _shared_places(parts: Mapping[str, Sequence[Pair]]) -> Iterator[Leak]:
    """Yield the older pairs of a place on two sides, unless a silence lies between these."""
    times: dict[str, dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    for name, part in parts.items():
        for pair in part:
            times[pair.place][name].append(pair)
    for there in times.values():
        for at, name in enumerate(SIDES):
            for later in SIDES[at + 1 :]:
                if there.get(name) and there.get(later) and not _apart(there[name], there[later]):
                    how = "was said in one conversation with"
                    for pair in there[name]:
                        yield _leak("place", pair, name, there[later][0].uid, later, how)


def _apart(some: Sequence[Pair], others: Sequence[Pair]) -> bool:
    """Tell whether no two pairs, one of each, lie closer together than QUIET_MS.

    Undated ones count as older than all: that is how they are cut.
    """
    first = sorted(pair.at_ms or 0 for pair in some)
    second = sorted(pair.at_ms or 0 for pair in others)
    places = np.searchsorted(first, second)
    return all(
        abs(first[near_by] - moment) >= QUIET_MS
        for moment, place in zip(second, places, strict=True)
        for near_by in (int(place) - 1, int(place))
        if 0 <= near_by < len(first)
    )


# --- memory in prompts --------------------------------------------------------------------------


def allowed(pair: Pair, sides: Sides, conn: apsw.Connection | None = None) -> Callable[[int], bool]:
    """Return what tells which messages of the archive may stand in the prompt of a pair.

    ``sides`` are those of ``split``, before any memory stands in them. A message that another side
    rests on may not. One that no pair rests on counts as trained: it may stand in prompts of train
    alone. With ``conn`` the archive is asked as well: nothing that was said after the pair or at
    the same time, or at an unknown time, and in a conversation that another side has, nothing from
    its first message there on; without, the caller must see to the time.
    """
    mine = sides.side_of.get(pair.uid, TRAIN)
    first = _first_of_others(sides, mine, conn) if conn is not None else {}

    def may(number: int) -> bool:
        if sides.owner_of.get(number, TRAIN) != mine:
            return False
        return conn is None or _said_before(conn, number, pair, first)

    return may


def _first_of_others(sides: Sides, mine: str, conn: apsw.Connection) -> dict[int, int]:
    """Return conversation -> seq of the first message there that another side holds out."""
    if mine not in sides._first:
        held = [i for i, name in sides.owner_of.items() if SIDES.index(name) > SIDES.index(mine)]
        sides._first[mine] = dict(
            rows(
                conn,
                "SELECT conversation_id, min(seq) FROM messages"
                " WHERE id IN (SELECT value FROM json_each(?)) GROUP BY conversation_id",
                (json.dumps(held),),
            )
        )
    return sides._first[mine]


def _said_before(conn: apsw.Connection, number: int, pair: Pair, first: Mapping[int, int]) -> bool:
    found = rows(conn, "SELECT conversation_id, seq, at_ms FROM messages WHERE id = ?", (number,))
    if not found or pair.at_ms is None:
        return False
    conversation, seq, at_ms = found[0]
    held = first.get(conversation)
    return at_ms is not None and at_ms < pair.at_ms and (held is None or seq < held)
