"""Style distances: the same author is near, another far, and the items add up."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.fiction.build import OWNER, exchanges
from knowme.learn import style
from knowme.learn.style import Ruler, Scale

texts = st.lists(st.text("abc dez,. the and of não 42é\n", max_size=60), max_size=8)


@pytest.fixture(scope="module")
def voices():
    """Give what the fictional person wrote, and how her assistants answered."""
    every = list(exchanges())
    hers = [each.words for each in every if each.author == OWNER and len(each.words) > 60]
    theirs = [answer for each in every for answer in each.answers if len(answer) > 60]
    return hers, theirs


def halves(found, seed=1):
    mixed = random.Random(seed).sample(found, len(found))
    return mixed[::2], mixed[1::2]


def test_one_author_is_nearer_to_herself_than_to_another(voices):
    hers, theirs = voices
    one, two = halves(hers)
    ruler = Ruler([*hers, *theirs])
    assert ruler.distance(one, two) < 0.8 * ruler.distance(one, theirs)
    assert ruler.distance(one, two) < 0.8 * ruler.distance(two, theirs)


def test_the_scale_has_the_author_below_and_the_other_above(voices):
    hers, theirs = voices
    scale = style.scale(hers, theirs)
    assert 0 < scale.own < scale.other
    assert scale == style.scale(hers, theirs)
    assert scale.place(scale.own) == 0 and scale.place(scale.other) == pytest.approx(1)
    assert Scale(0.3, 0.3).place(0.5) == 0


def test_a_mixture_lies_between(voices):
    hers, theirs = voices
    one, two = halves(hers)
    mixed = [*two[: len(two) // 2], *theirs[: len(two) // 2]]
    ruler = Ruler([*hers, *theirs])
    near, between, far = (ruler.distance(each, one) for each in (two, mixed, theirs))
    assert near < between < far


@given(texts, texts)
def test_it_is_symmetric_and_zero_for_the_same_and_never_no_number(a, b):
    ruler = Ruler([*a, *b])
    there = ruler.distance(a, b)
    assert there == pytest.approx(ruler.distance(b, a))
    assert ruler.distance(a, a) == pytest.approx(0, abs=1e-6)
    assert ruler.distance(a[::-1], b) == pytest.approx(there)
    assert np.isfinite(there) and there >= 0


@given(texts, texts)
def test_what_each_text_adds_is_a_number(a, b):
    found = Ruler([*a, *b]).pseudo(a, b)
    assert len(found) == len(a) and all(np.isfinite(found))


def test_the_items_mean_is_the_distance_with_its_bias_taken_off(voices):
    hers, theirs = voices
    ruler = Ruler([*hers, *theirs])
    found, whole = ruler.pseudo(theirs, hers), ruler.distance(theirs, hers)
    assert np.mean(found) == pytest.approx(whole, rel=0.15)
    assert np.std(found) > 0


def test_a_text_like_the_reference_adds_less_than_one_unlike_it(voices):
    hers, theirs = voices
    one, two = halves(hers)
    mixed = [*two[:15], *theirs[:15]]
    found = Ruler([*hers, *theirs]).pseudo(mixed, one)
    assert np.mean(found[:15]) < np.mean(found[15:])


def test_nothing_is_far_from_something_and_near_to_nothing():
    assert style.distance([], ["a text"]) > 0
    assert style.distance([], []) == 0
    assert style.distance([""], ["", " "]) == 0
