"""Collecting: questions and answers stand in the archive, and come back as pairs."""

from collections import Counter

import pytest
from typed import typed

from knowme import facts, forget
from knowme.db import rows
from knowme.errors import InputError, NotFoundError
from knowme.extract import catch_up
from knowme.learn import collect, lessons, pairs, teacher
from knowme.sync import store
from knowme.types import PURPOSES, ChatMessage, Record

FOR_ME, VOICE = PURPOSES


def asking(home, *lines, purpose=VOICE, **more):
    """Run the terminal's loop with these lines typed, then Ctrl-D; returns (answered, shown)."""
    said = []
    return collect.ask(home, purpose, read=typed(*lines), say=said.append, **more), said


def test_there_are_questions_enough_of_every_theme_for_each_purpose():
    every = collect.listed()
    assert len({one.id for one in every}) == len({one.text for one in every}) == len(every)
    by = Counter((one.purpose, one.theme) for one in every)
    assert set(by) == {(purpose, theme) for purpose in PURPOSES for theme in teacher.THEMES}
    assert sum(by[VOICE, theme] for theme in teacher.THEMES) >= 40
    assert sum(by[FOR_ME, theme] for theme in teacher.THEMES) >= 25


def test_an_answer_is_a_pair_that_rests_on_its_messages(home):
    done, said = asking(home, "I write tests first, then the code.")
    assert done == 1 and len(said) == 2
    (pair,) = collect.pairs(home, VOICE)
    assert (pair.question, pair.answer) == (said[0], "I write tests first, then the code.")
    assert pair.kind == "collected" and pair.place.startswith("knowme/collect/")
    assert len(pair.because) == 2 and pair.labels[0] in teacher.THEMES and pair.language == "en"
    assert not list(collect.pairs(home, FOR_ME))
    assert pairs.from_row(pairs.row(pair)) == pair


def test_what_was_answered_or_skipped_is_not_asked_again_and_what_was_stopped_is(home):
    _, first = asking(home, "An answer of mine.", "", collect.SKIP, collect.STOP)
    assert len(first) == 4
    done, second = asking(home, KeyboardInterrupt)
    assert done == 0 and second[0] not in first[:3]
    assert first[3] in [one.text for one in collect.questions(home, VOICE)]
    assert len(list(collect.pairs(home, VOICE))) == 1


def test_themes_with_few_pairs_come_first_and_each_gets_its_turn(home):
    first = [one.theme for one in collect.questions(home, VOICE)[:5]]
    assert set(first) == set(teacher.THEMES)
    store(home, "a", [(Record("message", "b", "m", "user", text="I do.", seq=0), None)])
    home_folder = lessons.folder(home.path)
    rows_of_others = [
        pairs.row(
            pairs.made(
                VOICE,
                "teacher",
                (ChatMessage("user", f"{theme} {n}?"), ChatMessage("assistant", "I do.")),
                [1],
                "a/b",
                labels=(theme,),
            )  # fmt: skip
        )
        for theme in teacher.THEMES
        if theme != "decision"
        for n in range(4)
    ]
    lessons.append(home_folder / lessons.PAIRS, rows_of_others)
    assert [one.theme for one in collect.questions(home, VOICE)[:4]] == ["decision"] * 4
    assert collect.missing(home, VOICE)["style"] == 4


def test_no_more_is_asked_than_wanted_and_at_the_end_nothing(home):
    done, said = asking(home, *["A word."] * 9, most=2)
    assert (done, len(said)) == (2, 2)
    while one := collect.next_question(home, VOICE):
        collect.answer(home, one.id, "")
    assert collect.questions(home, VOICE) == [] and collect.questions(home, FOR_ME)


def test_what_the_person_tells_becomes_a_fact_and_is_recalled(home):
    one = collect.next_question(home, VOICE)
    collect.answer(home, one.id, "I live in Ghent and I use Neovim for everything.")
    with home.db.read() as conn:
        assert rows(conn, "SELECT count(*) FROM jobs WHERE kind = 'learn'") == [(1,)]
    catch_up(home)
    with home.db.read() as conn:
        found = facts.believed(conn)
    assert any(fact.value == "Ghent" for fact in found)


def test_a_draft_for_an_assistant_is_no_memory(home):
    one = collect.next_question(home, FOR_ME)
    collect.answer(home, one.id, "A hash table keeps keys in buckets. I live in Ghent.")
    with home.db.read() as conn:
        assert rows(conn, "SELECT count(*) FROM items") == [(0,)]
    assert next(collect.pairs(home, FOR_ME)).question == one.text


def test_what_was_collected_can_be_forgotten(home):
    asking(home, "I keep bees in the yard behind the mill.")
    forget.erase(home, forget.plan(home, forget.What("text", text="keep bees")))
    assert not list(collect.pairs(home, VOICE))


def test_a_question_that_does_not_exist_is_named(home):
    with pytest.raises(NotFoundError, match="v-none-1"):
        collect.answer(home, "v-none-1", "Hello.")
    with pytest.raises(InputError, match="both"):
        collect.questions(home, "both")


@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_example_by_hand_is_kept_for_its_purpose_alone_and_out_of_recall(home, purpose):
    collect.add(home, "  What is a mutex? ", "A lock. One holds it.", purpose)
    (pair,) = collect.manual(home, purpose)
    assert (pair.question, pair.answer) == ("What is a mutex?", "A lock. One holds it.")
    assert pair.kind == "manual" and len(pair.because) == 2
    other = next(each for each in PURPOSES if each != purpose)
    assert not list(collect.manual(home, other)) and not list(collect.pairs(home, purpose))
    with home.db.read() as conn:
        assert rows(conn, "SELECT count(*) FROM items") == [(0,)]
    assert not teacher.transcripts(home, purpose=purpose)


def test_two_examples_with_the_same_words_are_two_messages_and_one_text(home):
    for _ in range(2):
        collect.add(home, "Hello?", "Hello yourself.", VOICE)
    found = list(collect.manual(home, VOICE))
    assert len(found) == 2 and len({each.uid for each in found}) == 1
    assert len({each.place for each in found}) == 2


@pytest.mark.parametrize(("prompt", "reply"), [("", "x"), ("x", " \n")])
def test_an_empty_example_is_refused(home, prompt, reply):
    with pytest.raises(InputError, match="empty"):
        collect.add(home, prompt, reply, FOR_ME)


def test_strange_signs_are_kept_as_the_archive_can_hold_them(home):
    collect.add(home, "a\0b \ud83d?", "ça va 👍 \udc00", FOR_ME)
    (pair,) = collect.manual(home, FOR_ME)
    assert pair.answer.startswith("ça va 👍")
