import json
import math
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme import archive, feedback, route, schema
from knowme.db import connect
from knowme.errors import InputError, NotFoundError
from knowme.feedback import in_use, lambda_of, learn, observed, posterior, put_choice, rate
from knowme.gain import Gain, features
from knowme.types import Record, Route

SPACE = "onnx:minilm-int8@53aa51172d14:384:none:256"
TEXTS = ["Explain how a fridge works.", "hi", "What is 3 + 4?", "Summarise Hamlet, act by act."]


@pytest.fixture
def conn():
    opened = connect(Path(":memory:"))
    schema.migrate(opened)
    yield opened
    opened.close()


def vector(seed: int, dims: int = 384) -> np.ndarray:
    drawn = np.random.RandomState(seed).standard_normal(dims)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def row(seed: int, text: str = TEXTS[0]) -> np.ndarray:
    return np.concatenate([vector(seed), features(text)])


def answer(conn, conversation: str = "c1") -> int:
    """Put an answered question into the archive and return the number of its receipt."""
    question = Record("message", conversation, str(uuid.uuid4()), text="What is it?", seq=-1)
    owner = archive.put_conversation(conn, "knowme", question, 0)
    number, _, _ = archive.put(conn, owner, question, 0)
    conn.execute(
        "INSERT INTO answers(conversation_id, question_id, state, model, usage, receipt, asked_ms)"
        " VALUES(?, ?, 'done', 'echo', '{}', '{}', 0)",
        (owner, number),
    )
    return conn.last_insert_rowid()


def put(conn, *, local=True, answer_id=None, seen=None, price=0.1, propensity=1.0, **more) -> int:
    role = "primary" if local else "cloud"
    return put_choice(
        conn, answer_id=answer_id, local=local, candidates=("primary", "cloud"), fingerprint=SPACE,
        features=row(1) if seen is None else seen,
        route=Route(role, "", 0.5, stage="learned", propensity=propensity, gain=0.1, gain_sd=0.1,
                    cost=0.01, price=price), **more,
    )  # fmt: skip


def say(conn, choice: int, kind: str, value: str = "", at_ms: int = 0) -> None:
    conn.execute(
        "INSERT INTO outcomes(choice_id, at_ms, kind, value) VALUES(?,?,?,?)",
        (choice, at_ms, kind, value),
    )


# --- the log ----


def test_a_choice_is_kept_as_it_was_made(conn) -> None:
    number = put(conn, seen=row(7), price=math.inf, propensity=0.25, at_ms=5)
    found = next(
        conn.execute(
            "SELECT chosen, local, candidates, propensity, price, features, at_ms, answered_by"
            " FROM choices WHERE id = ?", (number,),
        )
    )  # fmt: skip
    assert found[:2] == ("primary", 1) and json.loads(found[2]) == ["primary", "cloud"]
    assert found[3] == 0.25 and found[4] > 1e6 and found[6] == 5 and found[7] == "primary"
    assert (np.frombuffer(found[5], "<f4") == row(7)).all()


def test_feedback_belongs_to_the_answer_it_is_given_for(conn) -> None:
    first, second = answer(conn), answer(conn)
    one, two = put(conn, answer_id=first), put(conn, answer_id=second)
    assert rate(conn, first, "up") == one
    assert rate(conn, "c1", "rating", 2) == two  # the conversation's last answer
    told = list(conn.execute("SELECT choice_id, kind, value FROM outcomes ORDER BY id"))
    assert told == [(one, "up", ""), (two, "rating", "2")]


@pytest.mark.parametrize(
    ("kind", "value"),
    [("rating", 6), ("rating", ""), ("up", "x"), ("better", "both"), ("stars", 3), ("", "")],
)
def test_feedback_of_no_known_kind_is_refused_and_writes_nothing(conn, kind, value) -> None:
    number = answer(conn)
    put(conn, answer_id=number)
    with pytest.raises(InputError):
        rate(conn, number, kind, value)
    assert not list(conn.execute("SELECT 1 FROM outcomes"))


def test_feedback_to_an_answer_that_was_not_routed_is_refused(conn) -> None:
    with pytest.raises(NotFoundError):
        rate(conn, answer(conn), "up")
    with pytest.raises(NotFoundError):
        rate(conn, "no such conversation", "up")


# --- what an outcome says ----


def test_a_bad_local_answer_speaks_for_the_cloud_and_a_bad_cloud_answer_against_it() -> None:
    assert (
        observed("down", "", True, 0.12, 0.7)[0] > 0.3 > 0 > observed("up", "", True, 0.12, 0.7)[0]
    )
    assert observed("up", "", False, 0.12, 0.8)[0] > 0 > observed("down", "", False, 0.12, 0.8)[0]
    assert (
        observed("better", "cloud", True, 0.12, 0.7)[0]
        == 1
        == -observed("better", "local", True, 0.12, 0.7)[0]
    )
    assert observed("better", "same", True, 0.12, 0.7)[0] == 0


def test_an_average_answer_leaves_what_the_prior_expects() -> None:
    """Else every thumb would draw the belief to the average, whatever the message."""
    for local, right in ((True, 0.684), (False, 0.804), (True, 0.4)):
        for expected in (0.0, 0.12, 0.3):
            up, down = (observed(kind, "", local, expected, right)[0] for kind in ("up", "down"))
            praised = feedback.LAPSE + (1 - 2 * feedback.LAPSE) * right
            assert praised * up + (1 - praised) * down == pytest.approx(expected, abs=1e-9)


def test_more_stars_for_a_local_answer_say_less_gain() -> None:
    gains = [observed("rating", str(stars), True, 0.12, 0.7)[0] for stars in range(1, 6)]
    assert gains == sorted(gains, reverse=True) and len(set(gains)) == 5
    assert (
        gains[0] == observed("down", "", True, 0.12, 0.7)[0]
        and gains[-1] == observed("up", "", True, 0.12, 0.7)[0]
    )


def test_a_comparison_counts_for_more_than_a_thumb_and_a_thumb_for_more_than_a_retry() -> None:
    told = (("better", "cloud"), ("down", ""), ("regenerate", ""))
    scatter = [observed(kind, value, True, 0.12, 0.7)[1] for kind, value in told]
    assert scatter == sorted(scatter) and len(set(scatter)) == 3


def test_one_answer_counts_once_by_the_most_telling_and_newest_thing_said(conn) -> None:
    one = put(conn)
    say(conn, one, "regenerate", at_ms=1)
    say(conn, one, "up", at_ms=2)
    say(conn, one, "rating", "1", at_ms=3)
    (found,) = feedback._logged(conn, SPACE, Gain.shipped(SPACE))
    assert (found.kind, found.value) == ("rating", "1")
    say(conn, one, "better", "local", at_ms=4)
    say(conn, one, "down", at_ms=5)
    (found,) = feedback._logged(conn, SPACE, Gain.shipped(SPACE))
    assert (found.kind, found.value) == ("better", "local")


def test_what_cannot_be_read_is_passed_over(conn) -> None:
    other = put_choice(conn, answer_id=None, route=Route("primary", "", 1.0), local=True,
                       fingerprint="another space", features=row(1))  # fmt: skip
    without = put_choice(conn, answer_id=None, route=Route("primary", "", 1.0), local=True,
                         fingerprint=SPACE)  # fmt: skip
    broken = put(conn, seen=np.zeros(3, np.float32))
    stepped_in = put(conn, answered_by="fast")
    for choice in (other, without, broken, stepped_in):
        say(conn, choice, "up")
    fine = put(conn)
    say(conn, fine, "of a later version")
    assert feedback._logged(conn, SPACE, Gain.shipped(SPACE)) == []
    assert posterior(conn, SPACE).seen == 0


# --- learning ----


def person(conn, count: int, *, wants_cloud: bool, seed: int = 0) -> None:
    """Log a person for whom the stronger model is (not) better at one kind of message."""
    chance = np.random.RandomState(seed)
    for turn in range(count):
        direction = turn % 2
        base = vector(11) if direction else vector(12)
        noisy = base + 0.3 * vector(100 + turn)
        seen = np.concatenate([noisy / np.linalg.norm(noisy), features(TEXTS[turn % 4])])
        gains = wants_cloud and direction == 1
        value = "cloud" if gains else "local"
        if chance.random_sample() < 0.1:
            value = "same"
        say(conn, put(conn, seen=seen.astype(np.float32), at_ms=turn), "better", value, at_ms=turn)


def test_with_little_said_nothing_is_promoted_and_the_report_says_so(conn) -> None:
    person(conn, feedback.LEAST_OUTCOMES - 1, wants_cloud=True)
    report = learn(conn, SPACE)
    assert report.state == "waiting" and str(feedback.LEAST_OUTCOMES) in report.reason
    assert not list(conn.execute("SELECT 1 FROM policies"))
    assert in_use(conn, SPACE)[1] is None


def test_a_belief_that_the_log_proves_better_is_promoted_and_used(conn) -> None:
    person(conn, 300, wants_cloud=True)
    report = learn(conn, SPACE)
    assert report.state == "in_use" and report.low > 0 and report.changed >= feedback.LEAST_CHANGES
    belief, number = in_use(conn, SPACE)
    assert number == report.policy_id and belief.seen == 300
    seen = features(TEXTS[0])
    assert belief.predict(vector(11), seen)[0] > belief.predict(vector(12), seen)[0] + 0.2
    assert belief.predict(vector(11), seen)[0] > Gain.shipped(SPACE).predict(vector(11), seen)[0]
    feedback.roll_back(conn, SPACE)
    assert in_use(conn, SPACE)[1] is None


def test_a_belief_learned_from_noise_is_not_promoted(conn) -> None:
    chance = np.random.RandomState(3)
    for turn in range(300):
        say(conn, put(conn, seen=row(200 + turn), at_ms=turn), "better",
            ("cloud", "local", "same")[chance.randint(3)], at_ms=turn)  # fmt: skip
    report = learn(conn, SPACE)
    assert report.state in ("waiting", "rejected") and in_use(conn, SPACE)[1] is None


def test_a_rejected_version_stays_on_the_shelf_with_its_figures(conn, monkeypatch) -> None:
    monkeypatch.setattr(feedback, "LEAST_CHANGES", 0)
    chance = np.random.RandomState(3)
    for turn in range(100):
        say(conn, put(conn, seen=row(200 + turn), price=0.9, at_ms=turn), "better",
            ("cloud", "local", "same")[chance.randint(3)], at_ms=turn)  # fmt: skip
    report = learn(conn, SPACE)
    assert report.state == "rejected"
    ((state, outcomes, figures),) = conn.execute("SELECT state, outcomes, replay FROM policies")
    assert (state, outcomes) == ("rejected", 100)
    assert json.loads(figures)["low"] <= 0
    learn(conn, SPACE)  # nothing new was said: no second row
    assert len(list(conn.execute("SELECT 1 FROM policies"))) == 1


def test_a_second_promotion_retires_the_first(conn) -> None:
    person(conn, 300, wants_cloud=True)
    first = learn(conn, SPACE)
    conn.execute("DELETE FROM outcomes")
    person(conn, 400, wants_cloud=False, seed=1)
    second = learn(conn, SPACE)
    assert (first.state, second.state) == ("in_use", "in_use")
    states = [state for (state,) in conn.execute("SELECT state FROM policies ORDER BY id")]
    assert states == ["retired", "in_use"]


def test_the_belief_can_be_made_again_from_the_log(conn) -> None:
    person(conn, 300, wants_cloud=True)
    report = learn(conn, SPACE, at_ms=10_000)
    stored, number = in_use(conn, SPACE)
    assert posterior(conn, SPACE).predict(vector(5), features("x")) == pytest.approx(
        stored.predict(vector(5), features("x")), abs=1e-6
    )
    conn.execute("UPDATE policies SET model = ?", (b"of another release",))
    say(conn, put(conn, at_ms=20_000), "better", "local", at_ms=20_000)  # said after it was made
    again, same = in_use(conn, SPACE)
    assert same == number == report.policy_id and again.seen == 300
    assert again.predict(vector(5), features("x")) == pytest.approx(
        stored.predict(vector(5), features("x")), abs=1e-6
    )


def test_an_unlikely_choice_weighs_more_in_the_replay() -> None:
    one = feedback._Logged(1, True, 1.0, 0.1, "down", "", 0.7, None)
    rare = feedback._Logged(1, True, 0.25, 0.1, "down", "", 0.7, None)
    prior = np.array([0.1])
    assert feedback._told([rare], prior) - prior == pytest.approx(
        4 * (feedback._told([one], prior) - prior)
    )
    up = feedback._Logged(1, False, 1.0, 0.1, "up", "", 0.8, None)
    assert feedback._told([up], prior) > prior


def test_the_replay_decides_as_the_router_does() -> None:
    assert feedback.NEAR_TIE == route.BAND
    expected = np.array([[0.3, 0.1], [0.12, 0.1], [0.05, 0.1]])
    assert feedback._away(expected, np.full(3, 0.1)).tolist() == [True, False, False]


# --- money ----

money = st.floats(0, 100, allow_nan=False)


@given(money, money, st.floats(0.01, 100), st.floats(0, 1), st.floats(0.001, 10))
def test_spending_never_makes_money_cheaper(one, other, budget, elapsed, worth) -> None:
    less, more = sorted((one, other))
    cheap, dear = (lambda_of(spent, budget, elapsed, worth) for spent in (less, more))
    assert dear >= cheap >= 1 / worth - 1e-9


@given(money, st.floats(0.01, 100), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 10))
def test_the_same_money_later_in_the_month_is_never_dearer(
    spent, budget, one, other, worth
) -> None:
    early, late = sorted((one, other))
    assert lambda_of(spent, budget, late, worth) <= lambda_of(spent, budget, early, worth) + 1e-9


def test_the_price_of_money_follows_the_formula() -> None:
    assert lambda_of(0.0, 5.0, 0.0, 0.02) == pytest.approx(50)
    assert lambda_of(2.5, 5.0, 0.5, 0.02) == pytest.approx(50)  # half of it by the middle: in step
    assert lambda_of(3.75, 5.0, 0.5, 0.02) == pytest.approx(100)  # half of the daily money is left
    assert lambda_of(1.0, 5.0, 0.9, 0.02) == pytest.approx(50)  # a full purse buys nothing dearer
    assert lambda_of(4.99, 5.0, 1.0, 0.02) == pytest.approx(50)


@pytest.mark.parametrize(
    ("spent", "budget", "worth"), [(5, 5, 1), (6, 5, 1), (0, 0, 1), (0, 5, 0), (math.nan, 5, 1)]
)
def test_without_money_or_worth_nothing_is_cheap_enough(spent, budget, worth) -> None:
    assert lambda_of(spent, budget, 0.5, worth) == math.inf
