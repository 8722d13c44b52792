"""A data set: from the archive to train, validation and test files, with a card.

    archive -> pairs of each kind -> scrub -> verdicts -> labels -> near-duplicates -> platitudes
            -> balance -> split -> instructions and memory -> leaks -> runs/<id>/data/

Promises: one purpose a set; what a set is made of and what was dropped is counted; nothing is in
a file of training that would tell of the test; the same archive makes the same files.
Refuses to know: what a pair of each kind looks like (exchanges, own, teacher, collect), how it is
trained.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import adoptions, archive
from knowme.db import rows
from knowme.errors import InputError, StoreError
from knowme.learn import card, lessons, near, pairs, quality, runs, scrub, split
from knowme.sensitive import sensitive
from knowme.times import iso, now_ms
from knowme.types import PURPOSES, ChatMessage, Pair, Query

if TYPE_CHECKING:
    import apsw

    from knowme.home import Home

Tell = Callable[[int, int, str], None]
"""progress(done, total, what is done); total 0: nobody knows."""

KINDS = {
    "assistant-for-me": (
        "exchange", "fact", "decision", "teacher", "manual", "paraphrase", "collected",
    ),
    "sound-like-me": (
        "exchange", "style", "fact", "decision", "teacher", "manual", "paraphrase", "collected",
    ),
}  # fmt: skip
"""The kinds of pairs that a set of each purpose may hold."""
FILES = ("train", "validation", "test", "rejected")
DISLIKED = 2
"""Rated so or worse, an answer is not trained: it is what to avoid."""
LEAST = 10
"""Under so many pairs there is nothing to split."""
NOTES = 3
"""Notes of memory in a prompt, at most."""
_FACTS = "What you know of me:"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a data set is to hold. ``kinds`` empty: all of its purpose."""

    purpose: str
    kinds: tuple[str, ...] = ()
    since_ms: int | None = None
    filter_preferences: bool = False
    include_memory: bool = False
    min_answer_chars: int = 20
    system_prompt: str = ""

    def checked(self) -> Wanted:
        """Return it with its kinds filled in. Raises InputError."""
        if self.purpose not in PURPOSES:
            raise InputError(
                f"There is no purpose {self.purpose!r}.", f"Use {' or '.join(PURPOSES)}."
            )
        legal = KINDS[self.purpose]
        if foreign := [kind for kind in self.kinds if kind not in legal]:
            raise InputError(
                f"A set for {self.purpose} holds no {foreign[0]!r}.", f"Use: {', '.join(legal)}."
            )
        return replace(self, kinds=self.kinds or legal)


@dataclass(slots=True)
class Gathered:
    """What was found and cleaned, before it is split."""

    pairs: list[Pair]
    rejected: list[Pair] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    reviewed: int = 0


def gather(home: Home, wanted: Wanted, tell: Tell | None = None) -> Gathered:
    """Collect, clean and choose the pairs of a set; nothing is written. Raises InputError."""
    wanted, say = wanted.checked(), tell or (lambda done, total, what: None)
    got = Gathered([])
    for kind in wanted.kinds:
        for pair in _of_kind(home, kind, wanted):
            if wanted.since_ms is not None and (pair.at_ms or 0) < wanted.since_ms:
                continue
            got.pairs.append(pair)
            got.found[kind] += 1
            if len(got.pairs) % 200 == 0:
                say(len(got.pairs), 0, "pairs found")
    say(len(got.pairs), len(got.pairs), "pairs found; cleaning")
    _short(got, wanted.min_answer_chars)
    got.pairs, masked = scrub.clean(home, got.pairs)
    got.masked.update(masked)
    if home.settings.privacy.sensitive == "off":  # "not learned at all"
        _without_sensitive(got)
    _verdicts(home, got)
    got.pairs = [replace(each, labels=_labelled(each)) for each in got.pairs]
    _disliked(got)
    got.pairs, same = near.unique(got.pairs)
    got.dropped["near-duplicate"] += len(same)
    got.pairs, empty = quality.specific(got.pairs)
    got.dropped["platitude"] += len(empty)
    plenty = len(got.pairs) > home.settings.learn.enough_pairs
    got.pairs, uneven = quality.balance(
        got.pairs,
        reasoning_share=home.settings.learn.reasoning_share,
        # A small set loses more by what goes than it wins by the mix: then the card tells it.
        languages=quality.languages(home) if plenty else None,
    )
    got.dropped.update(uneven)
    return got


def build(home: Home, wanted: Wanted, tell: Tell | None = None) -> runs.Run:
    """Make a data set in a new run and return it. Raises InputError where there is too little."""
    wanted = wanted.checked()
    got = gather(home, wanted, tell)
    if len(got.pairs) < LEAST:
        raise InputError(
            f"There are {len(got.pairs)} examples for {wanted.purpose}; {LEAST} is the least.",
            "Read more in (knowme sync), be interviewed (knowme learn collect), or write some "
            "(knowme learn add).",
        )
    settings = home.settings.learn
    sides = split.split(
        got.pairs, test_share=settings.test_share, validation_share=settings.validation_share
    )
    got.dropped.update(sides.dropped)
    sides = _told(home, sides, wanted, tell)
    sides = _without_leaks(home, sides, got.dropped)
    run = runs.create(home.path, wanted.purpose)
    named = {
        "train": sorted(sides.train, key=_best_first),
        "validation": sides.validation,
        "test": sides.test,
        "rejected": _beside(got.rejected, sides),
    }
    made = write(run, named)
    told = card.of(named, got, wanted, enough=settings.enough_pairs)
    runs.put(run.path / "data" / "card.json", told)
    (run.path / "data" / "card.md").write_text(card.page(told), "utf-8")
    _undisturbed(home, run, named)
    run.done("data", **made, newest_ms=_newest(got.pairs))
    return run


def write(run: runs.Run, parts: Mapping[str, Iterable[Pair]]) -> dict[str, dict[str, Any]]:
    """Write the sets of a run; returns what its manifest says of them: counts and sha256 by name.

    A set that is not given is empty. Raises OSError.
    """
    made: dict[str, dict[str, Any]] = {"counts": {}, "sha256": {}}
    for name in FILES:
        path = run.path / "data" / f"{name}.jsonl"
        made["counts"][name] = pairs.write(path, (pairs.row(each) for each in parts.get(name, ())))
        made["sha256"][name] = adoptions.file_sha256(path)
    return made


def _undisturbed(home: Home, run: runs.Run, named: Mapping[str, Iterable[Pair]]) -> None:
    """Take the run back where something of it was forgotten while it was made.

    The erasure looked through the files before these were there; what begins now finds them.
    Raises StoreError.
    """

    def look(conn: apsw.Connection) -> None:
        lessons.none_forgets(conn)
        if lessons.fallen(conn, (i for part in named.values() for p in part for i in p.because)):
            raise StoreError(
                "Something that the data set rests on was forgotten while it was made.",
                "Make it again: knowme learn dataset",
            )

    try:
        home.db.write(look)
    except StoreError:
        shutil.rmtree(run.path)
        raise


def _of_kind(home: Home, kind: str, wanted: Wanted) -> Iterator[Pair]:
    from knowme.learn import collect, exchanges, lessons, own, writing

    purpose = wanted.purpose
    if kind == "exchange":
        return exchanges.read(
            home,
            purpose=purpose,
            since_ms=wanted.since_ms,
            filter_preferences=wanted.filter_preferences,
            min_answer_chars=wanted.min_answer_chars,
        )
    if kind == "style":
        return writing.style(home, purpose=purpose)
    if kind == "fact":
        return own.facts(home, purpose=purpose)
    if kind == "decision":
        return own.decisions(home, purpose=purpose)
    if kind == "collected":
        return collect.pairs(home, purpose)
    if kind == "manual":
        return collect.manual(home, purpose)
    return (each for each in lessons.taught(home, purpose) if each.kind == kind)


def _short(got: Gathered, least: int) -> None:
    kept = [each for each in got.pairs if len(each.answer) >= least or each.kind != "exchange"]
    got.dropped["short"] += len(got.pairs) - len(kept)
    got.pairs = kept


def _without_sensitive(got: Gathered) -> None:
    kept = [
        pair
        for pair in got.pairs
        if not any(sensitive(text) for text in (*(m.content for m in pair.messages), pair.rejected))
    ]
    got.dropped["sensitive"] += len(got.pairs) - len(kept)
    got.pairs = kept


def _verdicts(home: Home, got: Gathered) -> None:
    with home.db.read() as conn:
        said = dict(rows(conn, "SELECT uid, verdict FROM verdicts"))
    kept = [each for each in got.pairs if said.get(each.uid) != "drop"]
    got.reviewed = sum(each.uid in said for each in got.pairs)
    got.dropped["reviewed"] += len(got.pairs) - len(kept)
    got.pairs = kept


def _labelled(pair: Pair) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*pair.labels, *quality.labels(pair))))


def _disliked(got: Gathered) -> None:
    """Put aside what the person did not like, and what a liked answer was better than."""
    liked = []
    for pair in got.pairs:
        if pair.rejected:
            got.rejected.append(pair)
        if pair.rating is not None and pair.rating <= DISLIKED:
            got.dropped["disliked"] += 1
        else:
            liked.append(pair)
    got.pairs = liked


def _beside(rejected: Iterable[Pair], sides: split.Sides) -> list[Pair]:
    """Return the pairs with a rejected answer that are trained: none of the test."""
    trained = {each.uid for each in sides.train}
    return [each for each in rejected if each.uid in trained]


def _best_first(pair: Pair) -> int:
    return -(3 if pair.rating is None else pair.rating)


def _newest(found: Iterable[Pair]) -> int | None:
    return max((each.at_ms for each in found if each.at_ms is not None), default=None)


# --- instructions and memory --------------------------------------------------------------------


def _told(home: Home, sides: split.Sides, wanted: Wanted, tell: Tell | None) -> split.Sides:
    """Put the instructions, and where it is wanted what memory holds, before each prompt."""
    if not (wanted.system_prompt or wanted.include_memory):
        return sides
    total = len(sides.train) + len(sides.validation) + len(sides.test)
    done = 0

    def part(found: Sequence[Pair]) -> tuple[Pair, ...]:
        nonlocal done
        made = []
        for pair in found:
            notes = _notes(home, pair, sides) if wanted.include_memory else ()
            made.append(_headed(pair, wanted.system_prompt, notes))
            done += 1
            if tell:
                tell(done, total, "prompts made")
        return tuple(made)

    return replace(
        sides,
        train=part(sides.train),
        validation=part(sides.validation),
        test=part(sides.test),
    )


def _notes(home: Home, pair: Pair, sides: split.Sides) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return what memory would have held before this pair was said: (words, message ids)."""
    if not pair.question:
        return ()
    until = None if pair.at_ms is None else pair.at_ms - 1
    hits = home.search(Query(pair.question[:2000], top_k=4 * NOTES, until_ms=until, neighbours=0))
    mine = set(pair.because)
    found = []
    with home.db.read() as conn:
        may = split.allowed(pair, sides, conn)
        for hit in hits:
            ids = set(hit.message_ids)
            if ids and not ids & mine and all(may(each) for each in ids):
                found.append((hit.text, tuple(sorted(ids))))
    return tuple(found[:NOTES])


def _headed(pair: Pair, system: str, notes: Sequence[tuple[str, tuple[int, ...]]]) -> Pair:
    told = "\n".join(f"- {' '.join(text.split())[:300]}" for text, _ in notes)
    head = "\n\n".join(filter(None, (system, f"{_FACTS}\n{told}" if told else "")))
    if not head:
        return pair
    messages = list(pair.messages)
    if messages[0].role == "system":
        messages[0] = ChatMessage("system", f"{head}\n\n{messages[0].content}")
    else:
        messages.insert(0, ChatMessage("system", head))
    because = tuple(sorted({*pair.because, *(number for _, ids in notes for number in ids)}))
    return replace(pair, messages=tuple(messages), because=because)


def _without_leaks(home: Home, sides: split.Sides, dropped: Counter[str]) -> split.Sides:
    """Drop what tells of the test from what is trained. Raises InputError if something stays."""
    texts = _texts(home, {each for pair in sides.test for each in pair.because})
    found = split.leaks(sides, texts)
    if found:
        gone = {leak.uid for leak in found}
        dropped["tells of the test"] += len(gone)
        sides = replace(
            sides,
            train=tuple(each for each in sides.train if each.uid not in gone),
            validation=tuple(each for each in sides.validation if each.uid not in gone),
        )
        found = split.leaks(sides, texts)
    if found:
        raise InputError(
            f"{len(found)} examples of training tell of the test; the first: {found[0].why}.",
            "This is a bug: please report it.",
        )
    return sides


def _texts(home: Home, ids: Iterable[int]) -> dict[int, str]:
    """Return the texts of messages of the archive, cleaned as the pairs are."""
    scrubber = scrub.of(home)
    with home.db.read() as conn:
        found = archive.messages(conn, ids)
    return {number: scrubber.clean(each.text)[0] for number, each in found.items()}


# --- reading it back ----------------------------------------------------------------------------


def read(run: runs.Run, name: str) -> list[Pair]:
    """Return the pairs of one file of a run. Raises InputError where it was changed."""
    told = run.needs("data")
    path = run.path / "data" / f"{name}.jsonl"
    if not run.stale and adoptions.file_sha256(path) != told["sha256"].get(name):
        raise InputError(f"{path} was changed since it was made.", "Run: knowme learn dataset")
    return pairs.read(path)


def statistics(home: Home, wanted: Wanted, tell: Tell | None = None) -> dict[str, Any]:
    """Count what a set would hold, its lengths, and when there will be enough. Writes nothing."""
    got = gather(home, wanted, tell)
    told = card.of({"train": got.pairs}, got, wanted, enough=home.settings.learn.enough_pairs)
    before = [run for run in runs.listed(home.path) if run.purpose == wanted.purpose]
    newest = next((run.stage("data") for run in before if run.stage("data")), None)
    since = None if newest is None else newest.get("newest_ms")
    added = [each for each in got.pairs if since is None or (each.at_ms or 0) > since]
    return {
        **told,
        "new_since_last": len(added) if newest is not None else None,
        "ready": card.ready(got.pairs, home.settings.learn.enough_pairs, now_ms()),
    }


def exported(run: runs.Run, target: Path, form: str) -> Mapping[str, int]:
    """Write a run's sets as plain files for other trainers: ``messages`` or ``sharegpt``.

    Returns how many rows each file has. Raises InputError where ``target`` is there already.
    """
    if form not in ("messages", "sharegpt"):
        raise InputError(f"There is no form {form!r}.", "Use messages or sharegpt.")
    if target.exists():
        raise InputError(f"{target} is there already.", "Name a new folder.")
    made = {}
    for name in ("train", "validation", "test"):
        found = read(run, name)
        told = (
            [pairs.sharegpt(each) for each in found]
            if form == "sharegpt"
            else [{"messages": pairs.row(each)["messages"]} for each in found]
        )
        made[name] = pairs.write(target / f"{name}.jsonl", told)
    (target / "card.md").write_text((run.path / "data" / "card.md").read_text("utf-8"), "utf-8")
    if disliked := read(run, "rejected"):
        rows_ = [_preference(each) for each in disliked]
        made["preference"] = pairs.write(target / "preference.jsonl", rows_)
    runs.put(run.path / "exported.json", {"at": iso(now_ms()), "rows": made})
    return made


def _preference(pair: Pair) -> dict[str, Any]:
    told = pairs.row(pair)["messages"]
    return {
        "prompt": told[:-1],
        "chosen": told[-1:],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }
