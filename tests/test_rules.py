"""Rules of routing: patterns of a person, who may write any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.errors import ConfigError
from knowme.rules import MOST, READS, compile_rules
from knowme.settings import RuleSettings


def rules(*patterns, models=None):
    given = [RuleSettings(pattern, f"m{n}") for n, pattern in enumerate(patterns, 1)]
    return compile_rules(given, models)


def test_the_first_rule_that_matches_wins() -> None:
    two = rules("python|sql", "python")
    assert two.found("my Python script") == (1, RuleSettings("python|sql", "m1"))
    assert two.match("nothing of the kind") is None
    assert rules().match("anything") is None


@pytest.mark.parametrize("text", ["the CODE", "code", "a code, please", "Code!", "unit\n test"])
def test_plain_words_match_whole_words_in_any_case(text) -> None:
    assert rules("code|unit test").match(text)


@pytest.mark.parametrize("text", ["decode it", "codes", "encoder", "unittest", "outlet"])
def test_plain_words_do_not_match_inside_other_words(text) -> None:
    assert rules("code|let|unit test").match(text) is None


def test_plain_words_of_a_script_without_spaces_are_found_between_others() -> None:
    assert rules("代码").match("我的代码坏了")


def test_an_empty_alternative_does_not_match_everything() -> None:
    assert rules("code| |sql|").match("hello") is None


def test_a_pattern_with_signs_is_a_regular_expression() -> None:
    dates = rules(r"\b\d{4}-\d{2}-\d{2}\b")
    assert dates.match("on 2026-03-01") and not dates.match("on 20260301")
    assert rules("^sql:").match("SQL: select") and rules(r"(?-i:SQL)").match("sql") is None


@pytest.mark.parametrize(
    ("pattern", "place"),
    [("(a", 3), ("[a", 3), ("*a", 1), ("x**", 3), ("a)", 2), ("ab\\", 4), ("(?P<n", 6)],
)
def test_a_bad_pattern_is_refused_by_its_number_and_place_with_what_mends_it(
    pattern, place
) -> None:
    with pytest.raises(ConfigError) as caught:
        rules("fine", pattern)
    told = caught.value
    assert "rule 2" in told.message and f"position {place}" in told.message
    _, shown, caret = told.message.split("\n")
    assert shown == f"  {pattern}"
    assert caret.index("^") - 2 <= place - 1 <= len(pattern)
    assert told.hint


def test_the_caret_points_at_the_place_in_a_long_pattern() -> None:
    pattern = "a" * 300 + "(" + "b" * 300
    with pytest.raises(ConfigError) as caught:
        rules(pattern)
    lines = caught.value.message.split("\n")
    assert max(map(len, lines[1:])) <= 82


@pytest.mark.parametrize("pattern", ["", "   ", "x" * 5000])
def test_an_empty_or_endless_pattern_is_refused(pattern) -> None:
    with pytest.raises(ConfigError, match="rule 1"):
        rules(pattern)


@pytest.mark.parametrize(
    "pattern", ["((a{1000}){1000}){1000}", "(?:ab|c){1000000}", "a{99}{99}{99}", "(" * 999]
)
def test_a_pattern_that_would_eat_all_memory_is_refused_before_it_is_compiled(pattern) -> None:
    with pytest.raises(ConfigError, match="rule 1"):
        rules(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"(?:\d{1,3}\.){3}\d{1,3}", r"\{99999\}", "[{99999}]", f"a{{{MOST}}}", "(((a+)+)+)+"],
)
def test_a_pattern_of_usual_size_is_not_refused(pattern) -> None:
    assert len(rules(pattern)) == 1


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+$", "a" * 5000 + "!"),
        ("(.*a){12}$", "a " * 10_000 + "!"),
        (r"(x+x+)+\1y", "x" * 10_000),
        ("(?:a?){50}a{50}b", "a" * 20_000),
    ],
)
def test_a_catastrophic_pattern_is_passed_over_and_noted_once(pattern, text) -> None:
    two = rules(pattern, "!|x|a")
    for _ in range(3):
        assert two.found(text) == (2, RuleSettings("!|x|a", "m2"))
    assert list(two.slow) == [1]
    assert "rule 1" in two.slow[1].lower() and "20 ms" in two.slow[1]


def test_a_pattern_that_is_slow_on_one_message_still_serves_the_next() -> None:
    one = rules("(a+)+$")
    assert one.match("a" * 5000 + "!") is None
    assert one.match("aaa")


def test_only_the_beginning_of_a_message_is_searched() -> None:
    assert rules("needle").match("x " * READS + "needle") is None


def test_a_rule_for_a_model_that_is_not_there_names_those_that_are() -> None:
    models = {"m1": "qwen", "cloud": "gpt"}
    assert rules("a", models=models)
    with pytest.raises(ConfigError, match="Rule 2 .* 'm2'") as caught:
        rules("a", "b", models=models)
    assert "m1 (qwen)" in caught.value.hint and "cloud (gpt)" in caught.value.hint
    assert compile_rules([RuleSettings("a", "gpt")], models).match("a")


@given(st.text(alphabet=st.sampled_from("ab(){}[]|*+?\\^$.,0129:<>=!P-é代 "), max_size=30))
def test_any_pattern_is_compiled_or_refused_with_a_reason(pattern) -> None:
    try:
        made = rules(pattern)
    except ConfigError as error:
        assert "ule 1" in error.message and error.hint
    else:
        made.match("ab (a) {0} 代 é" * 20)
