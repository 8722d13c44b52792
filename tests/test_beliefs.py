from claimed import memory_db
from hypothesis import given
from hypothesis import strategies as st

from knowme import beliefs
from knowme.db import rows, value


def test_a_change_is_kept_whole_and_told_oldest_first() -> None:
    conn = memory_db()
    row = {"uid": "a", "value": "Lisbon ñ", "pinned": 0, "retired_ms": None}
    first = beliefs.note(conn, "fact", "a", "learned", "rules", None, row, 10)
    beliefs.note(conn, "fact", "a", "pin", "person", row, row | {"pinned": 1}, 20, decision_id=7)
    beliefs.note(conn, "line", "a", "write", "person", None, {"uid": "a"}, 20)
    beliefs.note(conn, "fact", "b", "learned", "model:m", None, {"uid": "b"}, 30)
    learned, pinned = beliefs.history(conn, "fact", "a")
    assert (learned.id, learned.at_ms, learned.actor) == (first, 10, "rules")
    assert learned.before is None and learned.after == row
    assert (pinned.action, pinned.before, pinned.decision_id) == ("pin", row, 7)
    assert [e.uid for e in beliefs.since(conn, "fact", 20)] == ["b", "a"]
    assert beliefs.history(conn, "fact", "nobody") == []


def test_what_was_taken_away_stands_no_more_and_stood_before() -> None:
    conn = memory_db()
    beliefs.note(conn, "fact", "a", "learned", "rules", None, {"uid": "a"}, 10)
    beliefs.note(conn, "fact", "a", "unlearned", "rules", {"uid": "a"}, None, 20)
    stood = [len(beliefs.as_of(conn, "fact", at_ms)) for at_ms in (9, 10, 19, 20, 21)]
    assert stood == [0, 1, 1, 0, 0]
    assert beliefs.replay(conn, "fact") == beliefs.last(conn, "fact", ["a"]) == {}


def test_where_the_clock_was_set_back_the_change_written_last_counts() -> None:
    conn = memory_db()
    beliefs.note(conn, "fact", "a", "learned", "rules", None, {"n": 1}, 100)
    beliefs.note(conn, "fact", "a", "changed", "rules", {"n": 1}, {"n": 2}, 50)
    assert beliefs.as_of(conn, "fact", 100) == [{"n": 2}] == beliefs.as_of(conn, "fact", 50)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["fact", "line"]), st.sampled_from("abc"),
        st.none() | st.dictionaries(st.sampled_from("xy"), st.integers() | st.text(max_size=3)),
        st.integers(0, 3), st.sampled_from([None, 1, 2]),
    ),
    max_size=25,
)  # fmt: skip


@given(CHANGES)
def test_the_history_replays_to_any_moment(changes) -> None:
    conn = memory_db()
    now: dict[tuple[str, str], dict] = {}
    at_ms, moments = 0, []
    for target, uid, row, later, message in changes:
        at_ms += later + 1
        before = now.get((target, uid))
        after = None if row is None else row | {"uid": uid, "message_id": message}
        beliefs.note(conn, target, uid, "changed", "rules", before, after, at_ms)
        now.pop((target, uid), None)
        if after is not None:
            now[target, uid] = after
        moments.append((at_ms, dict(now)))
    for target in ("fact", "line"):
        for at, stood in [(0, {}), *moments]:
            told = {row["uid"]: row for row in beliefs.as_of(conn, target, at)}
            assert told == {uid: row for (t, uid), row in stood.items() if t == target}
        expected = {uid: row for (t, uid), row in now.items() if t == target}
        assert beliefs.replay(conn, target) == expected
        assert beliefs.last(conn, target, "abc") == expected


@given(CHANGES)
def test_forgetting_takes_out_what_rested_on_a_message_and_nothing_else(changes) -> None:
    conn = memory_db()
    for at_ms, (target, uid, row, _, message) in enumerate(changes):
        after = None if row is None else row | {"uid": uid, "message_id": message}
        beliefs.note(conn, target, uid, "changed", "rules", None, after, at_ms)
    kept = rows(
        conn,
        "SELECT id FROM events WHERE target = 'line'"
        " OR json_extract(after, '$.message_id') IS NOT 1 AND after IS NOT NULL",
    )
    touched, gone = beliefs.erase_messages(conn, [1])
    assert touched == {
        uid for t, uid, row, _, m in changes if t == "fact" and row is not None and m == 1
    }
    assert gone >= len(touched)
    left = {number for (number,) in rows(conn, "SELECT id FROM events")}
    assert {number for (number,) in kept} <= left
    assert "'message_id': 1" not in str(list(beliefs.replay(conn, "fact").values()))


def test_a_row_that_went_over_to_another_message_keeps_that_side() -> None:
    conn = memory_db()
    one, two = {"message_id": 1, "words": "old"}, {"message_id": 2, "words": "new"}
    beliefs.note(conn, "fact", "a", "learned", "rules", None, one, 1)
    beliefs.note(conn, "fact", "a", "changed", "rules", one, two, 2)
    beliefs.note(conn, "fact", "a", "changed", "rules", two, two, 3)
    assert beliefs.erase_messages(conn, [1]) == ({"a"}, 1)
    assert [(e.before, e.after) for e in beliefs.history(conn, "fact", "a")] == [
        (None, two), (two, two),
    ]  # fmt: skip
    assert value(conn, "SELECT count(*) FROM events WHERE before LIKE '%old%'") == 0
    assert beliefs.erase(conn, "fact", ["a"]) == 2 and beliefs.replay(conn, "fact") == {}
