from datetime import date, timedelta

import pytest
from claimed import at, claim, iso, memory_db, read, say, states, uid

from knowme import facts, inbox
from knowme.db import rows
from knowme.errors import InputError, NotFoundError
from knowme.types import When


def doubted(conn) -> str:
    """Lisbon, and perhaps Porto; returns the uid of the doubt."""
    ids = [say(conn, "a", 1, "I live in Lisbon."), say(conn, "b", 9, "Perhaps I live in Porto.")]
    unsure = claim("Porto", certain=False, start=8, end=23)
    facts.learn(conn, [read(ids[0], claim("Lisbon", end=16)), read(ids[1], unsure)], 10)
    return uid(conn, "Porto")


def test_a_doubt_shows_both_quotes_with_their_days() -> None:
    conn = memory_db()
    name = doubted(conn)
    (doubt,) = inbox.doubts(conn)
    assert (doubt.fact.uid, doubt.against.value) == (name, "Lisbon")
    assert doubt.why == doubt.fact.reason
    for part in ("“I live in Lisbon” (2024-01-02)", "“I live in Porto” (2024-01-10)", "both"):
        assert part in doubt.question


@pytest.mark.parametrize(
    ("choice", "lisbon", "porto"),
    [
        ("new", "superseded", "believed"),
        ("old", "believed", "retired"),
        ("both", "believed", "believed"),
        ("neither", "retired", "retired"),
    ],
)
def test_an_answer_settles_it_and_can_be_taken_back_as_one(choice, lisbon, porto) -> None:
    conn = memory_db()
    name = doubted(conn)
    assert inbox.answer(conn, name[:8], choice, at(20)).state == porto
    assert states(conn) == {"Lisbon": lisbon, "Porto": porto}
    assert inbox.doubts(conn) == []
    facts.undo(conn, at(21), name)
    assert states(conn) == {"Lisbon": "believed", "Porto": "doubtful"}


def test_where_both_cannot_be_the_new_one_takes_the_place_of_the_old() -> None:
    conn = memory_db()
    ids = [say(conn, "a", 100), say(conn, "b", 110)]
    now = claim("Lisbon", when=When(iso(10), iso(10)))
    past = claim("Porto", when=When(iso(5), iso(5), iso(50), iso(60)))
    facts.learn(conn, [read(ids[0], now), read(ids[1], past)], 10)
    inbox.answer(conn, uid(conn, "Porto"), "new", at(120))
    assert states(conn) == {"Lisbon": "retired", "Porto": "believed"}


def test_what_is_not_in_doubt_or_no_answer_is_refused_with_the_mend() -> None:
    conn = memory_db()
    name = doubted(conn)
    with pytest.raises(InputError) as told:
        inbox.answer(conn, name, "maybe", 5)
    assert "neither" in told.value.hint
    with pytest.raises(InputError) as told:
        inbox.answer(conn, uid(conn, "Lisbon"), "new", 5)
    assert "believed" in told.value.message and told.value.hint
    with pytest.raises(NotFoundError):
        inbox.answer(conn, "ffff", "new", 5)
    assert facts.decisions(conn) == []


def many(conn, names: str) -> None:
    """Doubts about allergies, the home and a third person."""
    said = [say(conn, f"{name}{when}", when) for name in names for when in (1, 9)]
    for place, name in enumerate(names):
        subject = {"h": "me", "a": "Ana", "l": "me"}[name]
        attribute = "likes" if name == "l" else "residence"
        over = When("", iso(9), "", iso(9)) if name == "l" else When()
        first = claim(f"{name} one", attribute, subject=subject)
        second = claim(
            f"{name} one" if name == "l" else f"{name} two", attribute, subject=subject,
            certain=False, when=over,
        )  # fmt: skip
        facts.learn(conn, [read(said[2 * place], first), read(said[2 * place + 1], second)], 10)


def test_the_best_question_comes_first() -> None:
    conn = memory_db()
    many(conn, "alh")
    assert [d.fact.value for d in inbox.doubts(conn)] == ["h two", "l one", "a two"]


def test_one_question_a_day_and_none_twice_within_a_month() -> None:
    conn = memory_db()
    many(conn, "alh")

    def asked(after: int) -> str | None:
        day = (date(2024, 3, 1) + timedelta(days=after)).isoformat()
        doubt = inbox.question_of_the_day(conn, at(60 + after), day=day)
        return doubt and doubt.fact.value

    assert [asked(0), asked(0), asked(1), asked(2), asked(3)] == [
        "h two", None, "l one", "a two", None,
    ]  # fmt: skip
    assert asked(29) is None
    assert asked(30) == "h two"
    told = str(rows(conn, "SELECT value FROM states WHERE name = 'inbox'"))
    assert "two" not in told  # names of facts only, no words


def test_with_nothing_in_doubt_there_is_no_question() -> None:
    conn = memory_db()
    assert inbox.question_of_the_day(conn, 5, day="2024-03-01") is None
    assert inbox.doubts(conn) == []
