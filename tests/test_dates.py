from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.dates import days_of

TODAY = date(2026, 4, 15)  # a Wednesday


def days(query: str, today: date | None = TODAY) -> list[tuple[str, str]]:
    epoch = date(1970, 1, 1).toordinal()
    return [
        (date.fromordinal(epoch + first).isoformat(), date.fromordinal(epoch + last).isoformat())
        for first, last in days_of(query, today)
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("what happened on 2026-03-03?", ("2026-03-03", "2026-03-03")),
        ("on 3 March 2026", ("2026-03-03", "2026-03-03")),
        ("March 3rd, 2026", ("2026-03-03", "2026-03-03")),
        ("in March 2025", ("2025-03-01", "2025-03-31")),
        ("December 2025", ("2025-12-01", "2025-12-31")),
        ("a 3 de março de 2026", ("2026-03-03", "2026-03-03")),
        ("yesterday", ("2026-04-14", "2026-04-14")),
        ("last monday", ("2026-04-13", "2026-04-13")),
        ("this month", ("2026-04-01", "2026-04-15")),
        ("two weeks ago", ("2026-03-29", "2026-04-04")),
        ("a couple of days ago", ("2026-04-13", "2026-04-13")),
        ("past week", ("2026-04-08", "2026-04-15")),
    ],
)
def test_a_phrase_names_its_days(query: str, expected: tuple[str, str]) -> None:
    assert expected in days(query)


@pytest.mark.parametrize("query", ["I may go", "they march on", "31 February 2026", "2026-13-40"])
def test_what_is_no_date_names_no_day(query: str) -> None:
    assert days(query) == []


def test_without_a_today_relative_phrases_name_nothing() -> None:
    assert days("last week, 3 days ago, in March", None) == []


@given(st.text(max_size=200), st.dates())
def test_any_text_is_read_without_failing(text: str, today: date) -> None:
    for first, last in days_of(text, today):
        assert first <= last
