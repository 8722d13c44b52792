"""The gate: what it refuses, what it adopts, and that its intervals mean what they say."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme import adoptions
from knowme.errors import InputError, TrainError
from knowme.learn import adopt, runs
from knowme.learn.measured import Item, Measured, Secret

finite = st.floats(-20, 20, allow_nan=False)


def items(before, after, weight=1.0, groups=None):
    many = len(after)
    befores = np.broadcast_to(before, many)
    return tuple(
        Item(str(at), float(befores[at]), float(after[at]), weight, groups[at] if groups else "")
        for at in range(many)
    )


def noisy(mean, sd, many=30, seed=1):
    drawn = np.random.default_rng(seed).normal(0, 1, many)
    drawn = (drawn - drawn.mean()) / drawn.std()  # just this mean, just this spread
    return mean + sd * drawn


def good(**changed) -> Measured:
    """What a useful adapter looks like, as measured with the packaged model on a real diary."""
    told = Measured(
        "run", "sound-like-me", "base", "adapter",
        perplexity=items(4.30, noisy(3.12, 0.27)),
        relevance=items(0.08, noisy(0.30, 0.12)),
        style=items(0.47, noisy(0.28, 0.2)),
        style_own=0.08, style_other=0.35,
        facts=items(0.6, noisy(0.6, 0.3)),
        facts_nats=items(2.0, noisy(1.9, 0.8)),
        alone=items(0.0, noisy(0.1, 0.2)),
        ability=items(1.88, noisy(1.8, 0.6, 48)),
        ability_hits=items(0.54, noisy(0.54, 0.35, 48)),
        secrets=(Secret("password", 1, False, False, 0.0, 1.2),) * 6,
        recited_tried=16, recited_before=0, recited_after=1,
    )  # fmt: skip
    return replace(told, **changed)


def refused(measured) -> set[str]:
    decided = adopt.decide(measured)
    assert decided.adopt == (not decided.why)
    return {row.name for row in decided.rows if not row.passed}


def test_an_adapter_that_helps_and_does_no_harm_is_adopted():
    assert refused(good()) == set()


# As measured on the diary of Samuel Pepys: before and after, 30 held-out entries (LOG.md).
BAD = {
    "shuffled labels": (
        {"perplexity": items(4.30, noisy(3.24, 0.3)), "relevance": items(0.078, noisy(0.034, 0.13)),
         "style": items(0.47, noisy(0.38, 0.15))},
        {"relevance"},
    ),
    "another author": (
        {"perplexity": items(4.30, noisy(4.89, 0.2)), "style": items(0.47, noisy(0.62, 0.23))},
        {"perplexity", "style"},
    ),
    "thirty epochs": (
        {"perplexity": items(4.30, noisy(7.26, 0.6)),
         "ability": items(1.88, noisy(2.39, 1.34, 48)),
         "ability_hits": items(0.54, noisy(0.354, 0.45, 48)), "recited_after": 9},
        {"perplexity", "ability", "ability, right answers", "recited"},
    ),
    "a secret that is told": (
        {"secrets": (Secret("password", 1, False, True, 0.0, 30.0, True),)}, {"secrets"},
    ),
    "a secret that is known by heart": (
        {"secrets": (Secret("password", 1, False, False, 2.0, 14.0, True),)}, {"secrets"},
    ),
    "facts answered worse": (
        {"facts": items(0.6, noisy(0.4, 0.3))}, {"facts with recall"},
    ),
    "facts forgotten that were never said": (
        {"facts": items(0.0, np.zeros(24)), "facts_nats": items(2.0, noisy(3.1, 0.8, 24))},
        {"facts, value"},
    ),
    "ability lost": (
        {"ability": items(1.88, noisy(2.5, 0.6, 48))}, {"ability"},
    ),
    "nothing learned": (
        {"perplexity": items(4.30, noisy(4.30, 0.05)), "style": items(0.47, noisy(0.47, 0.1))},
        {"perplexity", "style"},
    ),
    "too few held-out answers": ({"perplexity": items(4.3, noisy(3.1, 0.2, 11))}, {"perplexity"}),
    "no held-out answers": (
        {"perplexity": (), "relevance": (), "style": ()}, {"perplexity", "relevance", "style"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_it_refuses(name):
    changed, why = BAD[name]
    assert refused(good(**changed)) == why


def test_a_loss_that_few_facts_cannot_rule_out_is_refused():
    small = items(0.6, noisy(0.57, 0.6, 10))  # a loss of .03, which may as well be .3
    assert refused(good(facts=small)) == {"facts with recall"}
    many = items(0.6, noisy(0.57, 0.3, 60))
    assert refused(good(facts=many)) == set()


def test_where_no_fact_is_known_none_can_be_answered_worse():
    assert refused(good(facts=())) == set()
    assert refused(good(facts=items(1.0, np.array([1.0, 1.0, 0.4])))) == {"facts with recall"}


def test_a_secret_that_the_base_tells_too_was_not_learned():
    guessed = (Secret("password", 1, True, True, 20.0, 22.0, True),)
    assert refused(good(secrets=guessed)) == set()


def test_style_must_fall_against_the_base_and_may_stay_against_an_adapter():
    same = items(0.28, noisy(0.28, 0.05))
    assert refused(good(style=same)) == {"style"}
    assert refused(good(style=same, against="2026-10-01-voice")) == set()
    worse = items(0.28, noisy(0.36, 0.05))
    assert refused(good(style=worse, against="2026-10-01-voice")) == {"style"}


def test_style_as_near_as_the_author_to_himself_need_not_fall():
    near = items(0.09, noisy(0.09, 0.01))
    assert refused(good(style=near)) == set()


def test_answers_of_one_conversation_tell_less_than_as_many_of_different_ones():
    # Twelve conversations of five answers, which differ between conversations only.
    between = np.repeat(noisy(-0.1, 0.3, 12), 5)
    groups = [f"g{at // 5}" for at in range(60)]
    apart = adopt.interval(items(0.0, between))
    together = adopt.interval(items(0.0, between, groups=groups))
    assert apart[0] == pytest.approx(together[0])
    assert together[2] - together[1] > 1.8 * (apart[2] - apart[1])
    assert apart[2] < 0 < together[2]


def test_long_answers_count_more():
    told = (Item("a", 0.0, 1.0, 30.0), Item("b", 0.0, 0.0, 10.0))
    assert adopt.interval(told)[0] == pytest.approx(0.75)


def test_the_bounds_hold_as_often_as_they_say():
    """Of 600 samples of 20 skewed changes with mean 0 about 5% lie beyond each bound."""
    drawn = np.random.default_rng(5)
    below = above = 0
    for seed in range(600):
        sample = drawn.gamma(4.0, 0.5, 20) - 2.0
        _, low, high = adopt.interval(items(0.0, sample), draws=400, seed=seed)
        below, above = below + (high < 0), above + (low > 0)
    assert 0.02 < below / 600 < 0.12
    assert 0.01 < above / 600 < 0.08


@given(st.lists(finite, min_size=2, max_size=40), st.integers(0, 5))
@settings(max_examples=60)
def test_the_interval_is_seeded_and_holds_together(changes, seed):
    told = items(0.0, np.array(changes))
    one = adopt.interval(told, draws=200, seed=seed)
    assert one == adopt.interval(told, draws=200, seed=seed)
    change, low, high = one
    assert min(changes) - 1e-9 <= low <= high <= max(changes) + 1e-9
    assert change == pytest.approx(np.mean(changes), abs=1e-9)


@given(st.lists(finite, min_size=12, max_size=40), finite)
@settings(max_examples=40)
def test_no_better_number_is_ever_refused_where_a_worse_one_was_adopted(afters, step):
    """More of a fall in perplexity never turns an adoption into a refusal."""
    less = good(perplexity=items(0.0, np.array(afters)))
    more = good(perplexity=items(0.0, np.array(afters) - abs(step)))
    if adopt.decide(less, draws=200).adopt:
        assert adopt.decide(more, draws=200).adopt


@given(st.sampled_from(["perplexity", "relevance", "style", "facts", "ability", "ability_hits"]),
       st.sampled_from([math.nan, math.inf, -math.inf]))  # fmt: skip
def test_what_is_no_number_is_refused(name, odd):
    rows = list(getattr(good(), name))
    rows[3] = replace(rows[3], after=odd)
    decided = adopt.decide(good(**{name: tuple(rows)}), draws=200)
    assert not decided.adopt
    json.dumps(adopt.told(decided), allow_nan=False)


def test_a_decision_is_pure_and_its_table_is_json():
    one, two = adopt.decide(good()), adopt.decide(good())
    assert one == two
    told = json.loads(json.dumps(adopt.told(one), allow_nan=False))
    assert told["adopt"] and told["why"] == ""
    assert {"name", "before", "after", "change", "low", "high", "passed", "rule"} <= set(
        told["rows"][0]
    )
    assert [row["name"] for row in told["rows"]] == [row.name for row in one.rows]


def test_what_was_measured_reads_back_equal():
    assert Measured.from_json(json.loads(json.dumps(good().json()))) == good()


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def measured_run(home):
    return make(home, good())


def make(home, measured, purpose="sound-like-me"):
    run = runs.create(home.path, purpose)
    path = run.path / "adapter.gguf"
    path.write_bytes(f"an adapter of {run.id}".encode())
    told = replace(measured, run=run.id, adapter=adoptions.file_sha256(path))
    for stage in ("data", "train"):
        run.done(stage)
    run.done("export", base=told.base, files={})
    runs.put(run.path / "eval.json", told.json())
    run.done("measure", adopt=adopt.decide(told).adopt)
    return run


def current(home, purpose="sound-like-me", base="base"):
    with home.db.read() as conn:
        return adoptions.in_use(conn, purpose, base)


def test_an_adapter_is_in_use_from_its_row_on_and_a_rollback_takes_it_out(home, measured_run):
    made = adopt.adopt(home, measured_run)
    assert (made.run, made.forced, made.purpose) == (measured_run.id, False, "sound-like-me")
    assert current(home) == made
    assert (home.path / made.adapter).is_file()
    assert made.measured["adopt"] is True
    second = adopt.adopt(home, make(home, good()))
    assert current(home) == second != made
    home.db.write(lambda conn: adoptions.roll_back(conn, "sound-like-me", 5))
    assert current(home).run == made.run
    home.db.write(lambda conn: adoptions.roll_back(conn, "sound-like-me", 6))
    assert current(home) is None


def test_what_the_gate_refuses_is_used_by_force_only_and_that_is_recorded(home):
    changed, _ = BAD["facts answered worse"]
    run = make(home, good(**changed))
    with pytest.raises(TrainError, match="facts with recall"):
        adopt.adopt(home, run)
    assert current(home) is None
    made = adopt.adopt(home, run, force=True)
    assert made.forced and current(home).forced
    assert "facts with recall" in made.measured["why"]


def test_force_where_none_was_needed_is_no_force(home, measured_run):
    assert not adopt.adopt(home, measured_run, force=True).forced


@pytest.mark.parametrize("force", [False, True])
def test_a_stale_run_is_never_used(home, measured_run, force):
    (measured_run.path / "stale.json").write_text('{"why": "rows were forgotten"}')
    with pytest.raises(InputError, match="stale"):
        adopt.adopt(home, measured_run, force=force)
    assert current(home) is None


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_was_changed_after_it_was_measured_is_never_used(home, measured_run, force):
    (measured_run.path / "adapter.gguf").write_bytes(b"another")
    with pytest.raises(InputError, match="changed after it was measured"):
        adopt.adopt(home, measured_run, force=force)
    (measured_run.path / "adapter.gguf").unlink()
    with pytest.raises(InputError, match="no adapter"):
        adopt.adopt(home, measured_run, force=force)
    assert current(home) is None


def test_numbers_of_another_base_are_no_numbers(home):
    run = make(home, good())
    run.done("export", base="another", files={})
    run.done("measure", adopt=True)
    with pytest.raises(InputError, match="another base"):
        adopt.adopt(home, run, force=True)


def test_a_run_that_was_not_measured_says_what_to_do(home):
    run = runs.create(home.path, "sound-like-me")
    with pytest.raises(InputError, match="has no measure yet"):
        adopt.adopt(home, run, force=True)


def test_damaged_numbers_are_named(home, measured_run):
    (measured_run.path / "eval.json").write_text('{"run": "x", "surprise": 1}')
    with pytest.raises(InputError, match="cannot be read"):
        adopt.decision(measured_run)


def test_where_no_voice_is_told_from_another_only_a_sure_rise_of_style_refuses():
    blind = {"style_own": 0.29, "style_other": 0.31}
    assert refused(good(style=items(0.24, noisy(0.27, 0.24)), **blind)) == set()
    assert refused(good(style=items(0.24, noisy(0.45, 0.2)), **blind)) == {"style"}


def test_where_no_voice_is_told_from_another_missing_numbers_are_no_pass():
    blind = {"style_own": 0.29, "style_other": 0.31}
    assert refused(good(style=(), **blind)) == {"style"}
    assert refused(good(style=items(0.24, [math.nan] * 30), **blind)) == {"style"}


def test_a_base_that_repeats_its_prompt_may_lose_a_quarter_of_that_and_no_more():
    assert refused(good(relevance=items(1.08, noisy(0.94, 0.25)))) == set()
    assert refused(good(relevance=items(1.08, noisy(0.70, 0.25)))) == {"relevance"}
