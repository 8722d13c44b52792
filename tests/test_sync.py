import json
import os
from pathlib import Path

import numpy as np
import pytest

from knowme import archive, memory, structure
from knowme.db import rows, value
from knowme.errors import InputError, ModelDownError, StoreError
from knowme.home import Home
from knowme.sync import import_path, ingest, pending, reindex, store
from knowme.types import Mark, Query, Record


def said(conversation: str, name: str, text: str, seq: int, role="user", **more) -> Record:
    return Record("message", conversation, name, role, text=text, seq=seq, **more)


def put(home, *records: Record, source="openclaw", marks=()):
    pairs = [(record, None) for record in records]
    pairs += [(None, mark) for mark in marks]
    return store(home, source, pairs)


def words_of(home) -> dict[str, tuple[str, str]]:
    """Every current item with who stands beside it, by external id."""
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT m.external_id, b.external_id, a.external_id FROM items i"
            " JOIN messages m ON m.id = i.message_id"
            " LEFT JOIN items ib ON ib.id = i.before_id"
            " LEFT JOIN messages b ON b.id = ib.message_id"
            " LEFT JOIN items ia ON ia.id = i.after_id"
            " LEFT JOIN messages a ON a.id = ia.message_id",
        )
    return {name: (before, after) for name, before, after in found}


def test_storing_the_same_twice_changes_nothing(home) -> None:
    records = [said("c", str(n), f"message number {n}", n) for n in range(5)]
    assert put(home, *records).new == 5
    again = put(home, *records)
    assert (again.new, again.unchanged) == (0, 5)
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM messages") == 5
        assert memory.count(conn) == 5


def test_every_stored_message_has_its_words_and_its_vector_in_the_same_write(home) -> None:
    put(home, said("c", "a", "the heat pump was installed", 1))
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM item_fts WHERE item_fts MATCH 'pump'") == 1
        assert value(conn, "SELECT count(*) FROM vectors") == 1
    assert pending(home) == 0


def test_a_new_text_under_a_known_name_is_a_new_version_and_the_old_one_stays(home) -> None:
    put(home, said("c", "a", "the first words", 1))
    assert put(home, said("c", "a", "the second words", 1)).changed == 1
    with home.db.read() as conn:
        kept = rows(conn, "SELECT version, text, retired_ms IS NULL FROM messages ORDER BY version")
        assert kept == [(1, "the first words", 0), (2, "the second words", 1)]
    assert [hit.text for hit in home.search(Query("words"))] == ["the second words"]


def test_a_stale_copy_does_not_bring_an_old_version_back(home) -> None:
    put(home, said("c", "a", "one", 1))
    put(home, said("c", "a", "one and two", 1))
    assert put(home, said("c", "a", "one", 1)).unchanged == 1


def test_neighbours_are_known_in_whatever_order_messages_arrive(home) -> None:
    put(home, said("c", "third", "three", 3), said("c", "first", "one", 1))
    put(home, said("c", "second", "two", 2))
    assert words_of(home) == {
        "first": (None, "second"),
        "second": ("first", "third"),
        "third": ("second", None),
    }
    with home.db.read() as conn:
        after = rows(conn, "SELECT rowid FROM item_fts WHERE item_fts MATCH 'ctx: two'")
        third = value(conn, "SELECT i.id FROM items i JOIN messages m ON m.id = i.message_id"
                            " WHERE m.external_id = 'third'")  # fmt: skip
        assert after == [(third,)]  # the context is what was said before


def test_a_removed_message_leaves_recall_and_stays_in_the_archive(home) -> None:
    put(home, *(said("c", str(n), f"text number {n}", n) for n in range(3)))
    counts = put(home, Record("removed", "c", "1"))
    assert counts.removed == 1
    assert words_of(home) == {"0": (None, "2"), "2": ("0", None)}
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM messages") == 3
        assert value(conn, "SELECT count(*) FROM vectors") == 2


def test_a_message_that_moves_stands_beside_others_afterwards(home) -> None:
    names = ("a", "b", "c")
    put(home, *(said("c", name, f"text {name}", n) for n, name in enumerate(names)))
    counts = put(home, said("c", "a", "text a", 9))
    assert (counts.unchanged, counts.changed) == (1, 0)
    assert words_of(home) == {"b": (None, "c"), "c": ("b", "a"), "a": ("c", None)}


def test_what_is_not_for_recall_is_kept_and_never_found(home) -> None:
    put(home, said("c", "a", "heartbeat ping", 1, recall=False), said("c", "b", "hello", 2))
    assert [hit.text for hit in home.search(Query("heartbeat ping"))] == ["hello"]
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM messages") == 2


def test_marks_are_stored_with_the_records_before_them(home) -> None:
    put(home, said("c", "a", "x y z", 1), marks=[Mark("file", {"offset": 10})])
    with home.db.read() as conn:
        assert archive.read_marks(conn, "openclaw") == {"file": {"offset": 10}}
    put(home, marks=[Mark("file", None)])
    with home.db.read() as conn:
        assert archive.read_marks(conn, "openclaw") == {}


def test_a_source_that_breaks_loses_nothing_that_it_gave_before(home) -> None:
    def broken():
        yield said("c", "a", "kept words", 1), Mark("f", 1)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        store(home, "openclaw", broken())
    assert [hit.text for hit in home.search(Query("kept"))] == ["kept words"]


def test_skipped_records_are_counted_by_reason_and_named(home) -> None:
    counts = put(home, Record("skipped", text="not JSON", origin="a.jsonl:7"))
    assert counts.skipped == {"not JSON": 1}
    assert counts.problems == ("a.jsonl:7: not JSON",)


def test_half_an_emoji_is_stored_readably(home) -> None:
    assert put(home, said("c", "a", "broken \ud83d emoji", 1, raw='"\ud83d"')).new == 1
    assert home.search(Query("broken emoji"))[0].text == "broken \ufffd emoji"


def test_without_its_embedder_everything_is_stored_and_a_job_waits(home, monkeypatch) -> None:
    embedder = home.embedder

    def down(texts, kind):
        raise ModelDownError("the embedder died")

    monkeypatch.setattr(embedder, "embed", down)
    assert put(home, said("c", "a", "words without a vector", 1)).new == 1
    hits = home.search(Query("vector"))
    assert hits[0].distance is None and "no vector" in str(hits[0].why["note"])
    assert pending(home) == 1
    with home.db.read() as conn:
        assert value(conn, "SELECT kind FROM jobs") == "reindex"
    monkeypatch.undo()
    assert reindex(home) == 1
    assert pending(home) == 0
    assert home.search(Query("vector"))[0].distance is not None


def test_a_changed_embedder_serves_only_when_every_item_has_its_new_vector(tmp_path) -> None:
    from knowme.home import Home

    Home.create(tmp_path / "h")
    old = {"embedder.kind": "hashing", "engine.kind": "echo", "embedder.dims": 256}
    with Home.open(tmp_path / "h", old) as home:
        put(home, *(said("c", str(n), f"some text number {n}", n) for n in range(600)))
        first = home.space()
    new = {**old, "embedder.dims": 128}
    with Home.open(tmp_path / "h", new) as home:
        put(home, said("c", "new", "a late message", 700))
        assert home.space() == first
        assert pending(home) == 601
        assert home.search(Query("late message"))[0].text == "a late message"
        assert reindex(home, lambda done, total: done >= 256) == 256
        assert home.space() == first
        assert reindex(home) == 345
        space = home.space()
        assert space is not None and space.dims == 128
        assert home.search(Query("late message"))[0].distance is not None
        with home.db.read() as conn:
            assert value(conn, "SELECT count(*) FROM embedders") == 1
            assert value(conn, "SELECT count(*) FROM vectors") == 601


def test_ingested_documents_are_found_with_the_callers_metadata(home) -> None:
    counts, total = ingest(
        home,
        ["Lisbon is where I live.", "My dog is called Pixel."],
        [{"topic": "home"}, {"topic": "dog"}],
        ["one", "two"],
    )
    assert (counts.new, total) == (2, 2)
    hit = home.search(Query("what is the dog called?"))[0]
    assert hit.external_ids == ("two",)
    assert hit.metadata == {"topic": "dog"}


def test_the_same_id_again_replaces_the_text_even_back_to_an_older_one(home) -> None:
    for text in ("green tea", "black coffee", "green tea"):
        ingest(home, [text], None, ["drink"])
    hits = home.search(Query("tea coffee"))
    assert [hit.text for hit in hits] == ["green tea"]


def test_an_id_that_moves_to_another_session_leaves_the_first(home) -> None:
    ingest(home, ["said here"], [{"session": "a"}], ["m"])
    ingest(home, ["said there"], [{"session": "b"}], ["m"])
    assert [hit.text for hit in home.search(Query("said"))] == ["said there"]


def test_new_metadata_alone_is_a_change(home) -> None:
    ingest(home, ["a text"], [{"n": 1}], ["x"])
    ingest(home, ["a text"], [{"n": 2}], ["x"])
    assert home.search(Query("text"))[0].metadata == {"n": 2}


def test_documents_of_a_session_are_neighbours_in_order(home) -> None:
    texts = ["first thing", "second thing", "third thing"]
    meta = [{"session": "s", "speaker": "Ana", "timestamp": "2026-01-02T10:00:00"}] * 3
    ingest(home, texts, meta, ["1", "2", "3"])
    hit = next(hit for hit in home.search(Query("second")) if hit.text == "second thing")
    assert [near.text for near in hit.neighbours] == ["first thing", "third thing"]
    assert hit.speaker == "Ana"


@pytest.mark.parametrize(
    ("documents", "metadatas", "ids", "message"),
    [
        (["a"], [{}, {}], None, "1 documents and 2 metadatas"),
        (["a", "b"], None, ["x"], "2 documents and 1 ids"),
        (["  "], None, None, "empty"),
        (["a", "b"], None, ["x", "x"], "twice"),
        (["a"], [{"timestamp": "soon"}], None, "'soon', not a time"),
        (["a"], None, [""], "id of document 0 is empty"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_reason(
    home, documents, metadatas, ids, message
) -> None:
    with pytest.raises(InputError, match=message):
        ingest(home, documents, metadatas, ids)
    assert home.search(Query("a")) == []


def test_a_long_document_is_cut_and_no_text_is_lost() -> None:
    text = "\n\n".join(f"Paragraph {n}. " + "Words that fill it. " * 20 for n in range(30))
    spans = memory.spans(text, "document")
    assert len(spans) > 5
    covered = 0
    for span in spans:
        assert span.start <= covered < span.end
        covered = span.end
    assert covered == len(text)


def test_an_index_of_another_process_follows(home) -> None:
    put(home, said("c", "a", "alpha beta", 1))
    assert len(home.search(Query("alpha"))) == 1
    script = (
        "import sys; from pathlib import Path; from knowme.home import Home;"
        "from knowme.sync import ingest;"
        "h = Home.open(Path(sys.argv[1]), {'embedder.kind': 'hashing', 'engine.kind': 'echo'});"
        "ingest(h, ['gamma delta'], None, ['g']); h.close()"
    )
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", script, str(home.path)], check=True)
    assert {hit.text for hit in home.search(Query("delta"))} >= {"gamma delta"}
    assert home.search(Query("delta"))[0].distance is not None


def test_rebuilding_items_from_the_archive_gives_the_same_names(home) -> None:
    put(home, *(said("c", str(n), f"text number {n}", n) for n in range(5)))

    def names(conn):
        return sorted(rows(conn, "SELECT uid, start, end, kind FROM items"))

    with home.db.read() as conn:
        before = names(conn)

    def again(conn):
        ids = [row[0] for row in rows(conn, "SELECT id FROM messages")]
        memory.drop_items(conn, ids)
        assert memory.count(conn) == 0
        memory.add_items(conn, ids)
        return names(conn)

    assert home.db.write(again) == before
    assert json.dumps(before)


def replace_embedder(conn) -> None:
    """What another process does that has another embedder, and fills it first."""
    conn.execute("DELETE FROM vectors")
    conn.execute("DELETE FROM embedders")
    other = memory.put_space(conn, "another", 4, {"kind": "hashing", "dims": 64}, 1)
    ids = [row[0] for row in rows(conn, "SELECT id FROM items")]
    memory.put_vectors(conn, other, ids, np.ones((len(ids), 4), np.float32))


@pytest.mark.parametrize("when", ["between batches", "while a batch is embedded"])
def test_an_embedder_that_takes_over_during_a_sync_costs_no_message(
    home, monkeypatch, when
) -> None:
    put(home, said("c", "a", "the first words", 1))
    embed = home.embedder.embed

    def embed_late(texts, kind):
        monkeypatch.undo()
        home.db.write(replace_embedder)
        return embed(texts, kind)

    def records():
        yield said("c", "b", "zebra stripes", 2), None
        if when == "between batches":
            yield from ((None, Mark(str(n), n)) for n in range(300))
            home.db.write(replace_embedder)
        else:
            monkeypatch.setattr(home.embedder, "embed", embed_late)
        yield said("c", "d", "lion manes", 3), None

    assert store(home, "openclaw", records()).new == 2
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM items") == 3
        fit = "SELECT count(*) FROM vectors v JOIN embedders e ON e.id = v.embedder_id"
        wrong = f"{fit} WHERE length(v.vector) <> 2 * e.dims"
        assert value(conn, wrong) == 0  # never one embedder's vectors under another's name
        assert value(conn, "SELECT count(*) FROM jobs WHERE kind = 'reindex'") == 1
    reindex(home)
    assert pending(home) == 0
    assert home.search(Query("lion manes"))[0].distance is not None


def test_a_reindex_whose_embedder_was_dropped_begins_again(home, monkeypatch) -> None:
    put(home, *(said("c", str(n), f"text number {n}", n) for n in range(5)))
    home.db.write(replace_embedder)
    embed = home.embedder.embed
    took_over = []

    def once(texts, kind):
        if not took_over:
            took_over.append(home.db.write(replace_embedder))
        return embed(texts, kind)

    monkeypatch.setattr(home.embedder, "embed", once)
    assert reindex(home) == 5
    space = home.space()
    assert space is not None and space.fingerprint == home.embedder.fingerprint
    assert pending(home) == 0


def test_a_message_that_comes_into_recall_has_its_vector_at_once(home) -> None:
    put(home, said("c", "a", "heartbeat ping", 1, recall=False))
    put(home, said("c", "a", "heartbeat ping", 1))
    assert home.search(Query("heartbeat"))[0].distance is not None
    assert pending(home) == 0


def test_a_full_disk_stores_nothing_by_half_and_says_what_to_do(home) -> None:
    put(home, said("c", "a", "kept words", 1))

    def narrow(conn):
        return conn.pragma("max_page_count", conn.pragma("page_count") + 20)

    widest = 2**30
    home.db.write(narrow)
    many = [said("c", f"n{n}", f"unkept {n} " * 50, n, raw="x" * 5000) for n in range(200)]
    with pytest.raises(StoreError, match=r"full.*Free some space"):
        put(home, *many, marks=[Mark("file", 1)])
    home.db.write(lambda conn: conn.pragma("max_page_count", widest))
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM messages") == 1
        assert archive.read_marks(conn, "openclaw") == {}
        assert conn.pragma("integrity_check") == "ok"
    assert put(home, *many).new == 200


def test_ten_megabytes_in_one_message_are_one_item(home) -> None:
    put(home, said("c", "a", "needle " + "straw " * 1_700_000, 1), said("c", "b", "next", 2))
    with home.db.read() as conn:
        assert memory.count(conn) == 2
        assert value(conn, "SELECT count(*) FROM item_fts WHERE item_fts MATCH 'self: needle'") == 1


def test_an_upsert_is_looked_up_by_its_name_not_through_every_conversation(home) -> None:
    ingest(home, ["a text"], None, ["x"])
    plans = []

    def watch(conn):
        def seen(_, sql, bindings):
            if "CROSS JOIN" in sql:
                plans.append((sql, bindings))
            return True

        conn.exec_trace = seen

    home.db.write(watch)
    ingest(home, ["another text"], None, ["x"])
    with home.db.read() as conn:
        told = [row[3] for row in rows(conn, f"EXPLAIN QUERY PLAN {plans[0][0]}", plans[0][1])]
    assert told[0].startswith("SEARCH m USING INDEX messages_external")
    assert told[1].startswith("SEARCH c USING INTEGER PRIMARY KEY")


@pytest.mark.parametrize(
    ("document", "meta", "id"),
    [("half \ud83d emoji", {}, None), ("x", {"session": "\ud83d", "speaker": "\udcff"}, "\ud83d")],
)
def test_half_an_emoji_in_a_document_is_stored_readably(home, document, meta, id) -> None:
    ids = None if id is None else [id]
    for again in (False, True):
        counts, total = ingest(home, [document], [meta], ids)
        assert (counts.new, counts.unchanged, total) == (not again, again, 1)


@pytest.mark.parametrize("meta", [{"x": float("nan")}, {"x": {1}}, {"timestamp": 1e18}])
def test_metadata_that_cannot_be_kept_is_refused_by_its_number(home, meta) -> None:
    with pytest.raises(InputError, match=r"metadatas\[0\]"):
        ingest(home, ["a"], [meta])


def test_a_note_whose_name_is_not_unicode_is_read(home, tmp_path) -> None:
    note = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.md"))
    try:
        note.write_text("# A\nzebra stripes", encoding="utf-8")
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    assert import_path(home, note, "markdown").new == 1
    assert import_path(home, note, "markdown").new == 0
    assert import_path(home, tmp_path, "markdown").new == 1


def test_an_embedder_elsewhere_is_sent_nothing_sensitive_and_no_secret(tmp_path) -> None:
    """Whatever is allowed: neither as it comes in nor by reindex, and not as a fact's sentence."""
    Home.create(tmp_path / "home")
    own = {"embedder.kind": "hashing", "engine.kind": "echo"}
    away = {**own, "embedder.url": "http://192.0.2.1/v1"}
    every = ("question", "history", "recalled", "files", "memory", "summary")
    away.update({f"privacy.{name}": "allow" for name in every})
    with Home.open(tmp_path / "home", away) as home:
        sent: list[str] = []
        real = home.embedder.embed
        home.embedder.embed = lambda texts, kind: (sent.extend(texts), real(texts, kind))[1]
        put(home, said("c", "a", "I have diabetes.", 1), said("c", "b", "I live in Graz.", 2),
            said("c", "d", "My password is hunter2x9 by the way.", 3))  # fmt: skip
        structure.catch_up(home)
        with home.db.read() as conn:
            told = [text for (text,) in rows(conn, "SELECT sentence FROM facts")]
            assert "I have diabetes." in told and pending(home) == 0
        assert "I live in Graz." in sent
        assert [text for text in sent if "diabetes" in text or "hunter2" in text] == []
        assert home.search(Query("diabetes", top_k=1))[0].text == "I have diabetes."
