from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from knowme.fuse import Candidates, Weights, fuse

WEIGHTS = Weights()


def table(rows: list[tuple[float, float, float, int, bool]]) -> Candidates:
    """A conversation in order: (bm25, cosine, dated, words, answer) a row."""
    n = len(rows)
    column = list(zip(*rows, strict=True))
    around = np.full((2 * WEIGHTS.reach, n), -1, np.int64)
    between = np.zeros((2 * WEIGHTS.reach, n), np.float32)
    for at in range(n):
        for hop in range(1, WEIGHTS.reach + 1):
            for side, other in ((0, at - hop), (WEIGHTS.reach, at + hop)):
                if 0 <= other < n:
                    low, high = sorted((at, other))
                    around[side + hop - 1, at] = other
                    between[side + hop - 1, at] = sum(column[3][low + 1 : high])
    return Candidates(
        ids=np.arange(1, n + 1, dtype=np.int64),
        bm25=np.array(column[0], np.float32),
        cosine=np.array(column[1], np.float32),
        dated=np.array(column[2], np.float32),
        answers=np.array(column[4], bool),
        around=around,
        between=between,
    )


unit = st.floats(0, 1, width=32)
rows = st.lists(
    st.tuples(unit, st.floats(-1, 1, width=32), unit, st.integers(0, 400), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(rows, st.data(), unit, st.sampled_from(["bm25", "cosine", "dated"]), unit)
def test_a_better_match_lowers_nobody(drawn, data, more, which, mean) -> None:
    at = data.draw(st.integers(0, len(drawn) - 1))
    before, after = table(drawn), table(drawn)
    getattr(after, which)[at] += more
    gained = fuse(after, WEIGHTS, mean).total - fuse(before, WEIGHTS, mean).total
    assert (gained >= -1e-5).all()


@given(rows)
def test_fusing_changes_nothing_in_the_table(drawn) -> None:
    candidates = table(drawn)
    first = fuse(candidates, WEIGHTS).total.copy()
    assert (fuse(candidates, WEIGHTS).total == first).all()


def test_an_item_without_a_vector_is_scored_by_its_words() -> None:
    candidates = table([(0.5, np.nan, 0, 10, False), (0.0, np.nan, 0, 10, False)])
    total = fuse(candidates, replace(WEIGHTS, near=0, far=0), 0.1).total
    assert total[0] > total[1] and not np.isnan(total).any()


def test_what_stands_nearer_to_a_match_scores_higher() -> None:
    hit, plain = (1.0, 0.0, 0.0, 10, False), (0.0, 0.0, 0.0, 10, False)
    total = fuse(table([hit, *[plain] * 6]), WEIGHTS).total
    assert total[0] > total[1] > total[2] > total[3] > total[4]
    assert total[5] == total[6]  # beyond reach


def test_the_assistants_words_rank_below_the_same_words_of_the_person() -> None:
    total = fuse(table([(0.5, 0.5, 0, 10, False), (0.5, 0.5, 0, 10, True)]), WEIGHTS).total
    assert total[0] > total[1]


@given(rows, st.data(), unit, unit)
def test_a_fact_only_adds_and_the_better_it_matches_the_more(drawn, data, mean, mean_key) -> None:
    at = data.draw(st.integers(0, len(drawn) - 1))
    low, more = data.draw(unit), data.draw(unit)
    scored = [fuse(table(drawn), WEIGHTS, mean).total]
    for bm25 in (low, low + more):
        keyed = replace(
            table(drawn),
            keys=np.array([at], np.int64),
            key_bm25=np.array([bm25], np.float32),
            key_cosine=np.array([data.draw(st.just(np.nan) | unit)], np.float32),
        )
        scored.append(fuse(keyed, WEIGHTS, mean, True, mean_key).total)
        keyed.key_cosine[:] = np.nan
        scored.append(fuse(keyed, WEIGHTS, mean, True, mean_key).total)
    assert (scored[1] >= scored[0] - 1e-5).all() and (scored[3] >= scored[0] - 1e-5).all()
    assert (scored[4] >= scored[2] - 1e-5).all()


def test_of_several_facts_the_best_counts_once_and_is_named() -> None:
    plain = table([(0.0, 0.0, 0.0, 9, False), (0.9, 0.0, 0.0, 9, False)])
    facts = {"keys": np.array([0, 0, 1], np.int64), "key_cosine": np.full(3, np.nan, np.float32)}
    keyed = replace(plain, key_bm25=np.array([0.3, 0.8, 0.1], np.float32), **facts)
    alone = replace(
        plain,
        keys=np.array([0], np.int64),
        key_bm25=np.array([0.8], np.float32),
        key_cosine=np.full(1, np.nan, np.float32),
    )
    found = fuse(keyed, WEIGHTS)
    assert found.key.tolist() == [1, -1]
    assert np.allclose(found.total, fuse(alone, WEIGHTS).total)
