"""Which adapter is in use, and what rolling back leaves."""

import apsw
import pytest

from knowme import adoptions, schema
from knowme.errors import NotFoundError

ME, VOICE = "assistant-for-me", "sound-like-me"


@pytest.fixture
def conn():
    made = apsw.Connection(":memory:")
    schema.migrate(made)
    return made


def put(conn, run, purpose=ME, base="b", **more):
    return adoptions.put(
        conn, run=run, purpose=purpose, base=base, adapter=f"runs/{run}/adapter.gguf",
        sha256="s", at_ms=1, **more,
    )  # fmt: skip


def runs(conn, purpose=ME, base="b"):
    found = adoptions.in_use(conn, purpose, base)
    return None if found is None else found.run


def test_nothing_is_in_use_at_first(conn):
    assert runs(conn) is None and adoptions.listed(conn) == []
    with pytest.raises(NotFoundError):
        adoptions.roll_back(conn, ME, 2)


def test_one_replaces_the_other_and_rolling_back_brings_it_again(conn):
    put(conn, "first", measured={"ppl": 1.5})
    put(conn, "second", forced=True)
    assert runs(conn) == "second" and adoptions.in_use(conn, ME, "b").forced
    out, now = adoptions.roll_back(conn, ME, 5)
    assert (out.run, now.run) == ("second", "first") and runs(conn) == "first"
    assert now.measured == {"ppl": 1.5}
    out, now = adoptions.roll_back(conn, ME, 6)
    assert (out.run, now) == ("first", None) and runs(conn) is None
    assert {each.why for each in adoptions.listed(conn)} == {"rolled back"}


def test_purposes_and_bases_do_not_touch_each_other(conn):
    put(conn, "a")
    put(conn, "b", purpose=VOICE)
    put(conn, "c", base="other")
    adoptions.roll_back(conn, VOICE, 2)
    assert (runs(conn), runs(conn, VOICE), runs(conn, base="other")) == ("a", None, "c")


def test_a_run_that_was_rolled_back_is_not_what_a_later_one_falls_back_to(conn):
    put(conn, "first")
    put(conn, "second")
    adoptions.roll_back(conn, ME, 3)
    put(conn, "third")
    out, now = adoptions.roll_back(conn, ME, 4)
    assert (out.run, now.run) == ("third", "first")


def test_a_run_that_is_adopted_twice_is_not_what_it_falls_back_to(conn):
    put(conn, "first")
    put(conn, "second")
    put(conn, "second", forced=True)
    assert adoptions.in_use(conn, ME, "b").forced and len(adoptions.listed(conn)) == 2
    out, now = adoptions.roll_back(conn, ME, 3)
    assert (out.run, now.run) == ("second", "first")
