import json

import pytest

from knowme import archive
from knowme.db import rows, value
from knowme.types import Mark, Record

SURROGATE = "half \ud83d an emoji"


def put(home, record: Record) -> tuple[int, str, int | None]:
    def write(conn):
        conversation = archive.put_conversation(conn, "s", record, 1)
        return archive.put(conn, conversation, record, 2)

    return home.db.write(write)


def said(text: str, **more) -> Record:
    return Record("message", **{"conversation": "c", "external_id": "a", "text": text, **more})


def kept(home, columns: str) -> list[tuple]:
    with home.db.read() as conn:
        return rows(conn, f"SELECT {columns} FROM messages ORDER BY id")


@pytest.mark.parametrize("name", ["conversation", "external_id", "speaker", "text", "raw", "origin",
                                  "title"])  # fmt: skip
@pytest.mark.parametrize("strange", [SURROGATE, "a NUL \0 inside"])
def test_every_text_can_be_stored_and_is_the_same_the_second_time(home, name, strange) -> None:
    record = said("plain", **({} if name == "text" else {name: strange}))
    record = said(strange) if name == "text" else record
    assert put(home, record)[1] == "new"
    assert put(home, record)[1] == "unchanged"
    with home.db.read() as conn:
        whole = archive.whole(strange)
        assert "\ufffd" in whole and not {"\0", "\ud83d"} & set(whole)
        stored = rows(conn, "SELECT c.external_id, c.title, m.external_id, m.speaker, m.text,"
                            " m.raw, m.origin FROM messages m JOIN conversations c"
                            " ON c.id = m.conversation_id")[0]  # fmt: skip
        assert whole in stored


def test_metadata_that_is_not_json_is_kept_readably(home) -> None:
    put(home, said("x", meta={"when": {1}, "half": "\ud83d", "_upsert": True}))
    assert [json.loads(meta) for (meta,) in kept(home, "meta")] == [
        {"when": "{1}", "half": "\ufffd"}
    ]


@pytest.mark.parametrize("at_ms", [10**18, -(10**18), 10**30])
def test_a_time_that_no_calendar_has_is_unknown(home, at_ms) -> None:
    put(home, said("x", at_ms=at_ms, seq=10**30, meta={"_version": 10**30}))
    assert kept(home, "at_ms") == [(None,)]


def test_a_unit_of_a_source_may_have_any_name(home) -> None:
    mark = Mark("caf\udce9.md", {"at": 1})
    home.db.write(lambda conn: archive.put_marks(conn, "s", {mark.unit: mark.state}, 1))
    with home.db.read() as conn:
        assert archive.read_marks(conn, "s") == {"caf\ufffd.md": {"at": 1}}


def test_a_copy_that_tells_more_is_a_new_version_and_what_was_known_stays(home) -> None:
    put(home, said("hello"))
    assert put(home, said("hello", at_ms=5, speaker="Ana"))[1] == "changed"
    assert put(home, said("hello", raw='{"more": 1}'))[1] == "changed"
    assert kept(home, "at_ms, speaker, raw, retired_ms IS NULL") == [
        (None, "", None, 0), (5, "Ana", None, 0), (5, "Ana", '{"more": 1}', 1),
    ]  # fmt: skip
    for copy in (said("hello"), said("hello", at_ms=5, speaker="Ana"), said("hello", at_ms=6),
                 said("hello", raw='{"more": 1}')):  # fmt: skip
        assert put(home, copy)[1] == "unchanged"


def test_recall_follows_the_latest_reading_and_makes_no_version(home) -> None:
    put(home, said("hello", recall=False))
    assert put(home, said("hello"))[1] == "moved"
    assert kept(home, "version, recall") == [(1, 1)]


def test_a_stale_copy_tells_neither_place_nor_recall(home) -> None:
    put(home, said("one", seq=1))
    put(home, said("two", seq=5))
    assert put(home, said("one", seq=1, recall=False))[1] == "unchanged"
    assert kept(home, "text, seq, recall") == [("one", 1, 1), ("two", 5, 1)]


def test_what_was_removed_and_comes_back_is_current_again(home) -> None:
    put(home, said("a section"))
    with home.db.read() as conn:
        conversation = archive.find_conversation(conn, "s", "c")
    assert len(home.db.write(lambda conn: archive.retire(conn, conversation, "a", 3))) == 1
    assert home.db.write(lambda conn: archive.retire(conn, conversation, "a", 3)) == []
    assert put(home, said("a section"))[1] == "new"
    assert kept(home, "version, retired_ms IS NULL") == [(1, 0), (2, 1)]


def test_an_upsert_with_its_keys_in_another_order_is_unchanged(home) -> None:
    put(home, said("x", meta={"a": 1, "b": 2, "_upsert": True}))
    assert put(home, said("x", meta={"b": 2, "a": 1, "_upsert": True}))[1] == "unchanged"


def test_a_message_is_looked_up_by_its_name_not_through_its_conversation(home) -> None:
    put(home, said("x"))
    with home.db.read() as conn:
        plan = []
        conn.exec_trace = lambda _, sql, bindings: plan.append((sql, bindings)) or True
        archive.current(conn, 1, "a")
        conn.exec_trace = None
        sql, bindings = plan[-1]
        told = rows(conn, f"EXPLAIN QUERY PLAN {sql}", bindings)
        assert "conversation_id=? AND external_id=?" in told[0][3]
        assert value(conn, "SELECT count(*) FROM messages") == 1
