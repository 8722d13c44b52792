"""Attributes: sections, keys of values, sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.attributes import (
    ATTRIBUTES,
    RELATIONS,
    SECTIONS,
    attribute,
    sentence,
    value_key,
)
from knowme.types import ME
from knowme.verbs import FORMS, form, ing, past, third


def test_every_attribute_stands_in_a_known_section_under_its_own_name():
    assert {one.section for one in ATTRIBUTES.values()} <= set(SECTIONS)
    assert all(name == one.name for name, one in ATTRIBUTES.items())


def test_a_verb_phrase_is_an_event_with_many_values():
    assert attribute("went to") == ("went to", "events", False, (), "")


def test_what_one_has_one_of_is_single_and_what_may_be_many_is_not():
    assert attribute("residence").single and attribute("employer").single
    assert attribute("favourite food").single
    assert not attribute("likes").single and not attribute("allergy").single


def test_a_date_moves_where_there_is_one_of_it_only():
    assert attribute("date of go-live").single and attribute("date of call with Ana").single
    assert not attribute("date of meeting").single
    assert attribute("date of meeting").section == "context"


def test_health_and_faith_are_marked_by_the_attribute_alone():
    assert attribute("allergy").sensitive == ("health",)
    assert attribute("religion").sensitive == ("religion",)
    assert attribute("sister: allergy").sensitive == ("health",)


def test_what_a_sister_is_or_has_is_about_people():
    inner = attribute("sister: residence")
    assert (inner.section, inner.single) == ("people", True)
    assert attribute("sister: went to").section == "events"
    assert {"sister", "cat"} <= RELATIONS


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("residence", "Porto", "porto."),
        ("likes", "the sea", "sea"),
        ("likes", "my  garden", "My garden"),
        ("gosta", "o mar", "Mar"),
        ("age", "38 years", "38"),
        ("age", "twelve", "12"),
        ("has", "Two cats", "2 cats"),
    ],
)
def test_two_wordings_of_one_value_have_one_key(name, one, other):
    assert value_key(name, one) == value_key(name, other)


def test_two_values_have_two_keys():
    assert value_key("likes", "tea") != value_key("likes", "coffee")
    assert value_key("name", "The") == "the"  # an article alone stays


@given(st.text(), st.text())
def test_a_key_and_a_sentence_can_be_made_of_anything(name, value):
    assert value_key(name, value) == value_key(name, value)
    assert value_key(name, value_key(name, value)) == value_key(name, value) or value
    assert sentence(ME, name, value)


@pytest.mark.parametrize(
    ("subject", "name", "value", "told"),
    [
        (ME, "residence", "Porto", "I live in Porto."),
        ("Ana", "residence", "Porto", "Ana lives in Porto."),
        (ME, "age", "38", "I am 38 years old."),
        (ME, "name", "Ana", "My name is Ana."),
        ("Ana", "favourite food", "sushi", "Ana's favourite food is sushi."),
        (ME, "went to", "a fair with my kids", "I went to a fair with my kids."),
        ("Ana", "went to", "a fair with my kids", "Ana went to a fair with their kids."),
        ("Ana", "training for", "a marathon", "Ana is training for a marathon."),
        ("Ana", "teach", "yoga", "Ana teaches yoga."),
        ("Ana", "is proud of", "my son", "Ana is proud of their son."),
        (ME, "sister: residence", "Berlin", "My sister lives in Berlin."),
        ("Ana", "sister: went to", "Rome", "Ana's sister went to Rome."),
        (ME, "event", "got married", "I got married."),
        ("Ana", "does not eat", "meat", "Ana does not eat meat."),
        (ME, "call me", "Leo", "I want to be called Leo."),
        ("Ana", "reads", "tide tables", "Ana reads tide tables."),
        ("Ana", "read", "a book", "Ana read a book."),
        (ME, "date of go-live", "16 march", "The go-live is 16 march."),
        (ME, "units", "metric", "I want units to be metric."),
        (ME, "decision", "the blue tiles", "My decision is the blue tiles."),
        ("Ana", "occupation", "the cto", "Ana is the cto."),
    ],
)
def test_a_claim_is_one_sentence_that_stands_alone(subject, name, value, told):
    assert sentence(subject, name, value) == told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("residence", "Porto", "I used to live in Porto."),
        ("drinks", "coffee", "I used to drink coffee."),
        ("training for", "a marathon", "I was training for a marathon."),
        ("favourite food", "sushi", "My favourite food was sushi."),
        ("is into", "chess", "I used to be into chess."),
    ],
)
def test_what_is_over_is_told_as_over(name, value, told):
    assert sentence(ME, name, value, ended=True) == told


def test_verbs_know_their_forms():
    assert form("went").lemma == "go" and form("left").lemma == "leave"
    assert form("stopped").lemma == "stop" and form("running").lemma == "run"
    assert (third("try"), third("go"), third("watch")) == ("tries", "goes", "watches")
    assert (ing("make"), ing("swim"), ing("lie")) == ("making", "swimming", "lying")
    assert (past("buy"), past("carry"), past("frobnicate")) == ("bought", "carried", "frobnicated")
    assert form("table") is None
    assert len(FORMS) > 1500
