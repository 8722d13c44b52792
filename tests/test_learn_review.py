"""The spot check: which pairs are shown, and what becomes of the verdicts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed import typed

from knowme import sync
from knowme.db import rows
from knowme.errors import InputError
from knowme.learn import collect, pairs, review
from knowme.types import ChatMessage, Record


def pair(number, kind="exchange", because=(), purpose="sound-like-me", **more):
    said = (
        ChatMessage("user", f"Question {number}?"),
        ChatMessage("assistant", f"It is {number}."),
    )
    return pairs.made(purpose, kind, said, because, "a/b", **more)


def reviewing(home, some, *lines, **more):
    said = []
    return review.ask(home, some, read=typed(*lines), say=said.append, **more), said


def verdicts(home):
    with home.db.read() as conn:
        return review.verdicts(conn)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["exchange", "teacher", "fact"]))),
    st.floats(0.01, 1.0),
    st.integers(0, 5),
)
def test_the_share_of_each_kind_is_drawn_once_and_the_same_each_time(made, share, seed):
    some = [pair(number, kind) for number, kind in made]
    drawn = review.sample(some, {}, share, seed)
    assert drawn == review.sample(some[::-1], {}, share, seed)
    assert len({each.uid for each in drawn}) == len(drawn)
    shown_as = {}  # texts of two kinds are of the one that is shown first
    for each in some:
        kinds = {each.kind, shown_as.get(each.uid, each.kind)}
        shown_as[each.uid] = "teacher" if "teacher" in kinds else min(kinds)
    assert all(shown_as[each.uid] == each.kind for each in drawn)
    for kind in set(shown_as.values()):
        many = list(shown_as.values()).count(kind)
        got = sum(each.kind == kind for each in drawn)
        assert max(1, many * share - 1e-3) <= got <= many * share + 1 + 1e-3


def test_what_was_judged_counts_and_is_not_shown_again():
    some = [pair(number) for number in range(100)]
    first = review.sample(some, {}, 0.15)
    assert len(first) == 15
    judged = {each.uid: "keep" for each in first[:10]}
    assert review.sample(some, judged, 0.15) == first[10:]
    assert review.sample(some, {each.uid: "drop" for each in first}, 0.15) == []


def test_what_models_wrote_is_looked_at_first_and_every_kind_once():
    some = [pair(0, "exchange"), pair(1, "style"), pair(2, "teacher")]
    assert [each.kind for each in review.sample(some, {}, 0.1)] == ["teacher", "exchange", "style"]


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(InputError, match="share"):
        review.sample([pair(1)], {}, share)


def test_verdicts_are_kept_at_once_and_the_last_one_counts(home):
    some = [pair(number) for number in range(4)]
    told, said = reviewing(home, some, "k", "what?", "D", "s", "q", share=1.0)
    assert told == {"shown": 3, "keep": 1, "drop": 1, "left": 1}
    assert sorted(verdicts(home).values()) == ["drop", "keep"]
    assert any("'what?' is no answer" in line for line in said)
    kept = next(uid for uid, verdict in verdicts(home).items() if verdict == "keep")
    home.db.write(lambda conn: review.decide(conn, kept, "drop", 5))
    assert set(verdicts(home).values()) == {"drop"}
    with pytest.raises(InputError, match="maybe"):
        home.db.write(lambda conn: review.decide(conn, kept, "maybe", 5))


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_it_can_be_stopped_after_any_pair_and_goes_on_there(home, end):
    some = [pair(number) for number in range(5)]
    reviewing(home, some, "k", "k", end, share=1.0)
    assert len(verdicts(home)) == 2
    told, _ = reviewing(home, some, "d", "d", "d", share=1.0)
    assert told == {"shown": 3, "keep": 0, "drop": 3, "left": 0}


def test_a_pair_is_shown_with_what_it_rests_on(home):
    text = "I prefer Rust over Go because of its type system."
    record = Record("message", "c", "1", "user", text=text, at_ms=1_750_000_000_000)
    sync.store(home, "chats", [(record, None)])
    with home.db.read() as conn:
        ((number,),) = rows(conn, "SELECT id FROM messages")
    lines = review.shown(home, pair(1, "teacher", [number, 99], labels=("technical",)))
    assert lines[0] == "teacher, sound-like-me (technical)"
    assert any(text in line and line.startswith("2025-06-15, user") for line in lines)
    assert "rests on message 99, which is gone" in lines


def test_no_words_of_a_pair_stand_in_the_table(home):
    collect.add(home, "Which hat?", "The feathered one.", "sound-like-me")
    some = list(collect.manual(home, "sound-like-me"))
    reviewing(home, some, "drop", share=1.0)
    with home.db.read() as conn:
        (row,) = rows(conn, "SELECT * FROM verdicts")
    assert row[0] == some[0].uid and "feathered" not in str(row)
