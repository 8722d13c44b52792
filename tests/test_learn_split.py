"""The leak test: what is tested stands in nothing that is trained; a broken splitter is caught.

The check of the first half is written without the house: ids in sets, words in lists, all with all.
"""

import random
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme.errors import InputError
from knowme.learn import near, pairs, split
from knowme.types import ChatMessage, Pair

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_767_225_600_000
WORDS = [
    f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("la", "ne", "ri", "to", "ku")
]
PHRASES = (
    "let me know if there is anything else that you would like",
    "i have no idea what you would call this in english but",
)


def text(rng, low, high):
    return " ".join(rng.choices(WORDS, k=rng.randrange(low, high)))


def pair(question, answer, because, place, at_ms, kind="exchange", before=(), **more) -> Pair:
    said = [*before, ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made("assistant-for-me", kind, said, because, place, at_ms=at_ms, **more)


def archive(seed, places=12, cross=10, copies=10, quotes=10, one_chat=False):
    """Return pairs of a life: conversations that overlap in time, and all that makes sets leak.

    Facts that rest on several places, copies of pairs in others, quotations of 8 words and more in
    answers, questions, earlier turns and instructions, phrases that stand everywhere.
    """
    rng = random.Random(seed)
    made, number, said = [], 0, []
    for place in range(places):
        at_ms = START + int(rng.random() * 90) * DAY
        name = "chat/one" if one_chat else f"chat/{place}"
        turns: list[ChatMessage] = []
        ids: list[int] = []
        for _ in range(rng.randrange(1, 9)):
            question, answer = text(rng, 3, 25), text(rng, 3, 40)
            if rng.random() < 0.15:
                answer += " " + PHRASES[0]
            if rng.random() < 0.15:
                question = PHRASES[1] + " " + question
            number += 2
            ids += [number - 1, number]
            at_ms += int(rng.expovariate(1 / HOUR)) + 1
            made.append(pair(question, answer, ids[-6:], name, at_ms, before=tuple(turns[-4:])))
            turns += [ChatMessage("user", question), ChatMessage("assistant", answer)]
            said.append((number, name, at_ms, question, answer))
    rng.shuffle(said)
    for _ in range(cross):
        some = rng.sample(said, min(len(said), rng.randrange(1, 4)))
        newest = max(some, key=lambda each: each[2])
        because = [each[0] for each in some]
        made.append(pair(text(rng, 4, 9), text(rng, 4, 12), because, newest[1], newest[2], "fact"))
    for _ in range(copies):  # the same again, a word or two changed, in another conversation
        first, other = rng.choice(made), rng.choice(said)
        words = first.answer.split()
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        number += 1
        question = first.question if rng.random() < 0.5 else text(rng, 3, 9)
        made.append(pair(question, " ".join(words), [number], other[1], other[2] + number))
    for _ in range(quotes):
        source, other = rng.choice(made), rng.choice(said)
        told = (source.answer if rng.random() < 0.6 else source.question).split()
        start = rng.randrange(max(1, len(told) - 8))
        told = " ".join(told[start : start + rng.randrange(8, 14)])
        told = f"{text(rng, 1, 6)} {told} {text(rng, 1, 6)}"
        number += 1
        where = rng.randrange(4)
        made.append(
            pair(
                told if where == 0 else text(rng, 3, 9),
                told if where == 1 else text(rng, 9, 20),
                [number], other[1], other[2] + number,
                before=[ChatMessage("system" if where == 2 else "user", told)] * (where > 1),
            )
        )  # fmt: skip
    rng.shuffle(made)
    return list({each.uid: each for each in made}.values())


def sides_of(made, test_share=0.2, validation_share=0.15):
    return split.split(made, test_share=test_share, validation_share=validation_share)


# --- the check, without the house -----------------------------------------------------------------


@cache
def runs(said, size):
    words = said.casefold().split()
    return {tuple(words[at : at + size]) for at in range(len(words) - size + 1)}


@cache
def alike(one, other):
    a, b = (runs(each, min(3, len(each.split()) or 1)) for each in (one, other))
    return len(a & b) / len(a | b) if a | b else 0.0


def phrases_of(made, quiet=6 * HOUR):
    """Runs that three places or more share; where a place was silent, another one begins."""
    where = defaultdict(set)
    last: dict[str, tuple[int, int]] = {}
    for each in sorted(made, key=lambda p: (p.at_ms or 0, p.uid)):
        at_ms, part = last.get(each.place, (each.at_ms, 0))
        part += each.at_ms - at_ms >= quiet
        last[each.place] = (each.at_ms, part)
        for message in each.messages:
            if message.role != "system":
                for run in runs(message.content, 8):
                    where[run].add((each.place, part))
    return {run for run, places in where.items() if len(places) >= 3}


def told_twice(sides, made, quiet=6 * HOUR):
    """Return every way in which what is trained tells of what is held out."""
    parts = {"train": sides.train, "validation": sides.validation, "test": sides.test}
    found = []
    for low, high in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for one in parts[low]:
            for other in parts[high]:
                if set(one.because) & set(other.because):
                    found.append(("message", one.uid, other.uid))
                if one.place == other.place and abs(one.at_ms - other.at_ms) < quiet:
                    found.append(("place", one.uid, other.uid))
                whole = [f"{each.question} {each.answer}" for each in (one, other)]
                if alike(*whole) >= 0.8 or (
                    min(len(one.answer.split()), len(other.answer.split())) >= 8
                    and alike(one.answer, other.answer) >= 0.8
                ):
                    found.append(("near", one.uid, other.uid))
    return [*found, *repeated(sides, phrases_of(made))]


def repeated(sides, phrases):
    texts = [
        (one, tuple(message.content for message in one.messages))
        for one in (*sides.train, *sides.validation)
    ]
    trained = [(one, every_run(said), every_run(said, phrases)) for one, said in texts]
    for other in sides.test:
        given = every_run([m.content for m in other.messages if m.role == "system"])
        tested = (other.question, other.answer)
        held, fresh = every_run(tested) - given - phrases, every_run(tested, phrases) - given
        for one, every, rare in trained:
            long = runs(other.answer, 16) & runs(one.answer, 16)
            if long or fresh & every or held & rare:
                yield "run", one.uid, other.uid


def every_run(texts, phrases=frozenset()):
    """Runs of eight words of these texts, phrases cut out of them first."""
    found = set()
    for said in texts:
        words = said.casefold().split()
        ends = [at for at in range(len(words) - 7) if tuple(words[at : at + 8]) in phrases]
        cut = {place for at in ends for place in range(at, at + 8)}
        found |= {
            tuple(words[at : at + 8])
            for at in range(len(words) - 7)
            if cut.isdisjoint(range(at, at + 8))
        }
    return found


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(1, 14), st.booleans(),
    st.sampled_from([0.05, 0.15, 0.3, 0.5]), st.sampled_from([0.0, 0.1, 0.3]),
)  # fmt: skip
def test_nothing_that_is_tested_stands_in_what_is_trained(seed, places, one_chat, test, validation):
    made = archive(seed, places, one_chat=one_chat)
    sides = sides_of(made, test, validation)
    assert told_twice(sides, made) == []
    assert split.leaks(sides) == []
    kept = [*sides.train, *sides.validation, *sides.test]
    assert len({each.uid for each in kept}) == len(kept)
    assert len(kept) + sum(sides.dropped.values()) == len(made)
    if len({each.place for each in made}) > 2:
        assert sides.train, "something is left to train"


# Each breaks one thing that the splitter does. The check must see it: else it is no check.


def _by_lot(every, units, test_share, validation_share):
    rng = random.Random(7)
    return {each.uid: rng.choices(split.SIDES, (0.65, 0.15, 0.2))[0] for each in every}


NOTHING = {"_straddling": lambda *_: set()}
MUTATIONS = {
    "pairs are dealt by lot": ({"_assigned": _by_lot, **NOTHING}, {"message", "place"}),
    "each pair is a place of its own": (
        {"_units": lambda every, share: {p.uid: (p.uid, 0) for p in every}},
        {"place"},
    ),
    "a conversation is cut wherever it suits": ({"QUIET_MS": 1}, {"place"}),
    "what rests on two sides stays": (NOTHING, {"message"}),
    "near-duplicates stay": ({"_doubled": lambda parts: set()}, {"near"}),
    "only whole pairs are compared": (
        {"_alike": lambda parts: _whole_pairs_only(parts)},
        {"near"},
    ),
    "near means the same to the letter": ({"NEAR": 1.0}, {"near"}),
    "runs of words stay": ({"_repeating": lambda *_: set()}, {"run"}),
    "runs are looked for in answers alone": (
        {"_repeating": lambda parts, phrases: _in_answers(parts, phrases)},
        {"run"},
    ),
    "runs are longer than promised": ({"RUN_WORDS": 11}, {"run"}),
    "every run is a phrase": ({"PHRASE_PLACES": 1}, {"run"}),
    # Another rule, and no leak: the check must not cry at what is right either.
    "a message is at home with its last pair": (
        {"_homes": lambda every, units: {i: units[p.uid] for p in every for i in p.because}},
        set(),
    ),
}
_ALIKE, _REPEATING = split._alike, split._repeating


def _whole_pairs_only(parts):
    for one, name, other, there in _ALIKE(parts):
        if near.jaccard(near.shingles(near.told(one)), near.shingles(near.told(other))) >= 0.8:
            yield one, name, other, there


def _in_answers(parts, phrases):
    bare = {
        name: [replace(p, messages=p.messages[-1:]) if name != "test" else p for p in part]
        for name, part in parts.items()
    }
    return _REPEATING(bare, phrases)


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_broken_splitter_is_caught(what, monkeypatch):
    mutation, kinds = MUTATIONS[what]
    caught, seen = Counter(), Counter()
    for seed in range(8):
        made = archive(seed, one_chat=seed % 5 == 0)
        with monkeypatch.context() as patched:
            for name, broken in mutation.items():
                patched.setattr(split, name, broken)
            sides = sides_of(made)
        caught.update({kind for kind, _, _ in told_twice(sides, made)})
        sides = replace(sides, phrases=sides_of(made).phrases)
        seen.update({leak.kind for leak in split.leaks(sides)})
    assert kinds <= set(caught), f"the check is blind: it saw {dict(caught)}"
    assert kinds <= set(seen), f"leaks() is blind: it saw {dict(seen)}"
    assert bool(caught) == bool(kinds)


# --- what goes where ------------------------------------------------------------------------------


def plain_life(days=20, each=5):
    rng = random.Random(3)
    return [
        pair(
            text(rng, 5, 9), text(rng, 9, 15), [100 * day + n], f"chat/{day}", START + day * DAY + n
        )
        for day in range(days)
        for n in range(each)
    ]


def test_the_newest_conversations_are_tested_and_those_before_them_validate():
    made = plain_life()
    sides = sides_of(made, 0.15, 0.1)
    assert {each.place for each in sides.test} == {"chat/17", "chat/18", "chat/19"}
    assert {each.place for each in sides.validation} == {"chat/15", "chat/16"}
    assert len(sides.train) == 75 and not sum(sides.dropped.values())


@settings(max_examples=12)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_makes_no_difference(rng):
    made = archive(11)
    first = sides_of(made)
    rng.shuffle(made)
    assert sides_of(made) == first


def test_undated_pairs_are_trained():
    made = [replace(each, at_ms=None) if each.place == "chat/3" else each for each in plain_life()]
    assert {each.place for each in made if each.at_ms is None} == {"chat/3"}
    assert sum(each.at_ms is None for each in sides_of(made).train) == 5


def test_one_conversation_of_a_whole_life_is_cut_at_its_silences():
    made = [replace(each, place="chat/one") for each in plain_life()]
    sides = sides_of(made, 0.15, 0.1)
    assert 10 <= len(sides.test) <= 20 and 5 <= len(sides.validation) <= 15
    newest = [max(each.at_ms for each in part) for part in (sides.train, sides.validation)]
    assert newest[0] + split.QUIET_MS <= min(each.at_ms for each in sides.validation)
    assert newest[1] + split.QUIET_MS <= min(each.at_ms for each in sides.test)


def test_a_conversation_without_a_silence_is_not_cut():
    made = [replace(each, place="chat/one", at_ms=START + n) for n, each in enumerate(plain_life())]
    sides = sides_of(made)
    assert len(sides.train) == len(made) and not sides.test


def test_two_purposes_in_one_set_are_refused():
    made = plain_life(2)
    made[0] = replace(made[0], purpose="sound-like-me")
    with pytest.raises(InputError, match="assistant-for-me and sound-like-me"):
        sides_of(made)


@pytest.mark.parametrize("shares", [(0.7, 0.3), (-0.1, 0.1), (1.0, 0.0)])
def test_shares_that_leave_nothing_to_train_are_refused(shares):
    with pytest.raises(InputError, match="nothing to train"):
        sides_of(plain_life(2), *shares)


def test_a_phrase_that_many_places_share_costs_nothing():
    made = [replace_answer(each, f"{each.answer} {PHRASES[0]}") for each in plain_life()]
    assert not sum(sides_of(made).dropped.values())


def test_a_quotation_costs_the_pair_that_repeats_it_and_no_other():
    made = plain_life()
    tested = max(made, key=lambda each: each.at_ms)
    quoting = replace_answer(made[0], f"so be it {tested.answer} and more of that")
    sides = sides_of([quoting, *made[1:]])
    assert quoting.uid not in sides.side_of and tested in sides.test
    assert sides.dropped == Counter({"repeats the test": 1})


def test_a_long_answer_that_many_places_share_is_no_phrase():
    rng = random.Random(5)
    long = text(rng, 40, 41)
    made = [replace_answer(p, f"{text(rng, 60, 61)} {long}") for p in plain_life(each=1)]
    sides = sides_of(made)
    assert sides.test and not sides.train, "the same forty words are in all of them"


def replace_answer(each, answer):
    return pairs.with_messages(each, [*each.messages[:-1], ChatMessage("assistant", answer)])


# --- what comes in after the split ----------------------------------------------------------------


def with_note(each, note, role="system"):
    return replace(each, messages=(ChatMessage(role, f"You know: {note}"), *each.messages))


@pytest.mark.parametrize("role", ["system", "user"])
def test_a_note_of_the_test_in_instructions_is_a_leak_even_where_it_stands_in_all_of_them(role):
    sides = sides_of(plain_life())
    note = sides.test[0].answer
    told = replace(sides, train=tuple(with_note(each, note, role) for each in sides.train))
    found = split.leaks(told)
    assert {leak.uid for leak in found} == {each.uid for each in sides.train}
    assert {(leak.kind, leak.other) for leak in found} == {("run", sides.test[0].uid)}
    assert not any(word in leak.why for leak in found for word in note.split())


def test_instructions_that_the_test_is_given_too_are_no_leak():
    made = plain_life()
    given = "answer in short sentences without any emoji and never begin with a great question"
    newest = max(made, key=lambda each: each.at_ms)
    made[made.index(newest)] = replace_answer(newest, f"Yes: {given}")
    sides = sides_of(made)
    headed = {
        name: tuple(with_note(each, given) for each in part) for name, part in sides.named().items()
    }
    assert split.leaks(replace(sides, **headed)) == []
    assert split.leaks(replace(sides, train=headed["train"]))


def test_a_message_that_the_test_rests_on_may_not_stand_in_a_prompt_of_training():
    sides = sides_of(plain_life())
    rng = random.Random(9)
    said = {number: text(rng, 12, 20) for number in sides.test[0].because}
    told = replace(sides, train=(with_note(sides.train[0], *said.values()), *sides.train[1:]))
    assert split.leaks(told) == []
    assert [leak.uid for leak in split.leaks(told, said)] == [sides.train[0].uid]


def test_a_pair_that_rests_on_a_note_of_the_test_is_a_leak():
    sides = sides_of(plain_life())
    because = (*sides.train[0].because, *sides.test[0].because)
    told = replace(sides, train=(replace(sides.train[0], because=because), *sides.train[1:]))
    assert [(leak.kind, leak.uid) for leak in split.leaks(told)] == [
        ("message", sides.train[0].uid)
    ]


def test_what_another_side_rests_on_may_not_stand_in_a_prompt():
    sides = sides_of(plain_life())
    trained, validating, tested = (part[0] for part in sides.named().values())
    one, two, three = (each.because[0] for each in (trained, validating, tested))
    free = 999_999
    assert [split.allowed(trained, sides)(i) for i in (one, two, three, free)] == [1, 0, 0, 1]
    assert [split.allowed(validating, sides)(i) for i in (one, two, three, free)] == [0, 1, 0, 0]
    assert [split.allowed(tested, sides)(i) for i in (one, two, three, free)] == [0, 0, 1, 0]


def test_the_archive_tells_what_was_said_too_late_for_a_prompt(home):
    from lived import put

    old = put(home, "i moved to porto", "the cat moved too", session="old", start=START)
    new = put(
        home, "a new flat", "the kitchen tap drips", "it drips still", session="new",
        start=START + DAY,
    )  # fmt: skip
    late = put(home, "and now lisbon", session="late", start=START + 9 * DAY)
    train = pair("where", "in porto", [old[0]], "chat/old", START + 2 * DAY)
    test = pair("what drips", "the tap", [new[1]], "chat/new", START + DAY + 60_000)
    sides = split.Sides(train=(train,), test=(test,))
    with home.db.read() as conn:
        may = split.allowed(train, sides, conn)
        assert may(old[1]), "nobody holds it, and it was said before"
        assert not may(new[1]), "it is tested"
        assert may(new[0]) and not may(new[2]), "a tested conversation, before and after that"
        assert not may(late[0]), "it was said after the pair"
        assert not may(10**6), "nobody knows when"
        undated = replace(train, at_ms=None)
        assert not split.allowed(undated, replace(sides, train=(undated,)), conn)(old[1])
    blind = split.allowed(train, sides)
    assert blind(late[0]) and not blind(new[1])
