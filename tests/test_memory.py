import tempfile
from pathlib import Path

import numpy as np
from facts_rows import put_fact
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme import memory
from knowme.db import rows, value
from knowme.home import Home
from knowme.sync import store
from knowme.types import Record

WORDS_ONLY = {"embedder.kind": "none", "engine.kind": "echo"}
ROLES = ("user", "assistant", "tool", "document")


def texts(number: int, size: int) -> str:
    return " ".join(f"w{number}x{n}" for n in range(size))


messages = st.builds(
    lambda conversation, name, number, size, role, seq, recall: Record(
        "message", conversation, name, role, text=texts(number, size), seq=seq, recall=recall
    ),
    st.sampled_from("ab"),
    st.sampled_from("12345678"),
    st.integers(0, 5),
    st.sampled_from([1, 3, 40, 300]),  # 300 words of a document are two sections
    st.sampled_from(ROLES),
    st.integers(0, 8),  # few enough that some share a place
    st.integers(0, 9).map(bool),
)
removals = st.builds(
    lambda conversation, name: Record("removed", conversation, name),
    st.sampled_from("ab"),
    st.sampled_from(["1", "2", "3", "4", ""]),
)
batches = st.lists(st.lists(messages | messages | removals, min_size=1, max_size=6), max_size=6)


def from_scratch(conn) -> dict[int, tuple]:
    """Work out for every item who should stand beside it, and the words of its context."""
    lined: dict[int, list[tuple]] = {}
    for row in rows(
        conn,
        "SELECT i.conversation_id, i.id, m.text, i.start, i.end FROM items i"
        " JOIN messages m ON m.id = i.message_id WHERE i.kind IN ('message', 'section')"
        " ORDER BY i.conversation_id, i.seq, i.start, i.id",
    ):
        lined.setdefault(row[0], []).append((row[1], row[2][row[3] : row[4]]))
    found = {}
    for line in lined.values():
        for at, (item, _) in enumerate(line):
            nearest = [text.split() for _, text in line[max(0, at - memory.CONTEXT_ITEMS) : at]]
            context = [word for said in reversed(nearest) for word in said]
            before = line[at - 1][0] if at else None
            after = line[at + 1][0] if at + 1 < len(line) else None
            found[item] = (before, after, frozenset(context[: memory.CONTEXT_WORDS]))
    return found


def as_kept(conn) -> dict[int, tuple]:
    """Read the same from the tables and from the index of words."""
    context: dict[int, set[str]] = {}
    for number in range(6):
        for place in range(300):
            term = f"w{number}x{place}"
            for (item,) in rows(
                conn, "SELECT rowid FROM item_fts WHERE item_fts MATCH ?", (f'ctx: "{term}"',)
            ):
                context.setdefault(item, set()).add(term)
    linked = rows(conn, "SELECT id, before_id, after_id FROM items")
    assert {row[0] for row in linked} == {
        row[0] for row in rows(conn, "SELECT rowid FROM item_fts")
    }
    assert set(context) <= {row[0] for row in linked}
    return {item: (b, a, frozenset(context.get(item, ()))) for item, b, a in linked}


def learn_something(conn) -> None:
    """Believe something of the newest messages, and summarise each conversation."""
    told = rows(conn, "SELECT id, text FROM messages ORDER BY id DESC LIMIT 3")
    facts = [put_fact(conn, message, f"Read: {text[:40]}") for message, text in told]
    memory.put_fact_items(conn, facts)
    for talk in rows(conn, "SELECT conversation_id, max(seq) FROM messages GROUP BY 1"):
        ids = [row[0] for row in rows(conn, "SELECT id FROM messages LIMIT 5")]
        memory.put_summary_item(conn, f"sum{talk[0]}", "w0x0 and so on", ids, *talk, None, "s")


def named(conn) -> set[tuple]:
    return set(rows(conn, "SELECT uid, start, end, kind FROM items"))


@settings(max_examples=25)
@given(batches)
def test_neighbours_and_context_are_those_of_a_rebuild_whatever_happened(steps) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Home.create(Path(folder) / "h")
        with Home.open(Path(folder) / "h", WORDS_ONLY) as home:
            for step in steps:
                store(home, "s", [(record, None) for record in step])
                home.db.write(learn_something)
            with home.db.read() as conn:
                derived = {row[0] for row in rows(conn, "SELECT id FROM items WHERE text NOTNULL")}
                kept = as_kept(conn)
                assert {kept.pop(item) for item in derived} <= {(None, None, frozenset())}
                assert kept == from_scratch(conn)
                before = named(conn)

            def again(conn):
                ids = [row[0] for row in rows(conn, "SELECT id FROM messages")]
                memory.drop_items(conn, ids)
                memory.add_items(conn, ids)
                return named(conn)

            assert home.db.write(again) == before


def test_a_message_that_comes_into_recall_is_found_and_one_that_leaves_is_not(home) -> None:
    def take(recall: bool) -> list[str]:
        store(home, "s", [(Record("message", "c", "a", text="zebra stripes", recall=recall), None)])
        with home.db.read() as conn:
            return rows(conn, "SELECT rowid FROM item_fts WHERE item_fts MATCH 'zebra'")

    assert [len(take(recall)) for recall in (False, True, False, True)] == [0, 1, 0, 1]
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM messages") == 1
        space = memory.serving(conn)
        assert space is not None and memory.count_missing(conn, space.id) == 0


def test_thousands_of_sections_of_one_document_cost_no_more_each(home) -> None:
    """In steps of the SQLite machine: ten times the sections, about ten times the work."""

    def steps(name: str, sections: int) -> int:
        text = "A sentence of some words. " * (sections * memory.PASSAGE_CHARS // 26)
        taken = 0

        def count() -> bool:
            nonlocal taken
            taken += 1
            return False

        def write(conn):
            from knowme import archive

            record = Record("section", name, name, "document", text=text)
            conversation = archive.put_conversation(conn, "s", record, 1)
            message, _, _ = archive.put(conn, conversation, record, 1)
            conn.set_progress_handler(count, 100)
            made = memory.add_items(conn, [message])
            conn.set_progress_handler(None)
            return len(made)

        assert home.db.write(write) >= sections
        return taken

    assert steps("large", 1000) < 20 * steps("small", 100)


def test_vectors_of_an_embedder_that_is_no_longer_registered_are_not_stored(home) -> None:
    store(home, "s", [(Record("message", "c", "a", text="zebra"), None)])
    gone = home.space()

    def replace(conn):
        conn.execute("DELETE FROM vectors")
        conn.execute("DELETE FROM embedders")
        return memory.put_space(conn, "another", 4, {}, 1)

    other = home.db.write(replace)
    assert gone is not None and other.id == gone.id  # the number is used again
    ids = [1]
    vectors = np.ones((1, gone.dims), np.float32)
    assert not home.db.write(lambda conn: memory.put_vectors(conn, gone, ids, vectors))
    assert not home.db.write(lambda conn: memory.promote(conn, gone))
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM vectors") == 0
        assert memory.spaces(conn) == [other]


def spoken(home, *texts: str) -> list[int]:
    told = [
        (Record("message", "c", str(n), text=text, seq=n), None) for n, text in enumerate(texts)
    ]
    store(home, "s", told)
    with home.db.read() as conn:
        return [row[0] for row in rows(conn, "SELECT id FROM messages ORDER BY id")]


def keys(home) -> set[str]:
    with home.db.read() as conn:
        return {row[0] for row in rows(conn, "SELECT text FROM items WHERE kind = 'fact'")}


def test_a_fact_is_a_key_while_it_is_believed_and_its_message_is_recalled(home) -> None:
    first, second = spoken(home, "I moved to Porto", "I have a dog")

    def believe(state: str):
        def write(conn):
            facts = [
                put_fact(conn, first, "The person lives in Porto", state=state),
                put_fact(conn, second, "The person has a dog"),
            ]
            return memory.put_fact_items(conn, facts)

        return home.db.write(write)

    made = believe("believed")
    assert list(made.values()) == ["The person lives in Porto", "The person has a dog"]
    assert believe("believed") == {}  # nothing new to write or to embed
    believe("superseded")
    assert keys(home) == {"The person has a dog"}
    believe("believed")
    store(home, "s", [(Record("removed", "c", "0"), None)])
    assert keys(home) == {"The person has a dog"}
    assert believe("believed") == {} and keys(home) == {"The person has a dog"}


def test_a_message_that_comes_back_into_recall_has_its_keys_again(home) -> None:
    def take(recall: bool) -> None:
        store(home, "s", [(Record("message", "c", "a", text="I like tea", recall=recall), None)])

    take(True)
    home.db.write(lambda c: memory.put_fact_items(c, [put_fact(c, 1, "The person likes tea")]))
    take(False)
    assert keys(home) == set()
    take(True)
    assert keys(home) == {"The person likes tea"}


def test_an_edited_sentence_loses_the_words_and_the_vector_of_the_old_one(home) -> None:
    (message,) = spoken(home, "I moved to Porto")

    def say(sentence: str):
        return lambda c: memory.put_fact_items(c, [put_fact(c, message, sentence, uid="f1")])

    (item,) = home.db.write(say("The person lives in Porto"))
    space = home.space()
    vector = np.ones((1, space.dims), np.float32)
    home.db.write(lambda c: memory.put_vectors(c, space, [item], vector))
    assert list(home.db.write(say("The person lives in Gaia"))) == [item]
    with home.db.read() as conn:
        assert memory.missing(conn, space.id, 9) == [item]
        found = rows(conn, "SELECT rowid FROM item_fts WHERE item_fts MATCH 'lives AND gaia'")
        assert found == [(item,)]
        assert not rows(conn, "SELECT 1 FROM item_fts WHERE item_fts MATCH 'lives AND porto'")


def test_what_is_derived_from_a_message_goes_with_it_and_nothing_else_does(home) -> None:
    first, second, third = spoken(home, "I moved to Porto", "I have a dog", "it rains")

    def write(conn):
        facts = [put_fact(conn, n, f"fact of {n}") for n in (first, second)]
        memory.put_fact_items(conn, facts)
        memory.put_summary_item(conn, "s1", "Porto, dog", [first, second], 1, 1, None, "s")
        memory.put_summary_item(conn, "s2", "rain", [third], 1, 2, None, "s")
        before = memory.last_change(conn)
        dropped = memory.drop_derived(conn, [first])
        return dropped, len(memory.changed_since(conn, before))

    assert home.db.write(write) == (2, 2)
    with home.db.read() as conn:
        left = rows(conn, "SELECT kind, uid FROM items WHERE text NOTNULL ORDER BY kind")
        assert [kind for kind, _ in left] == ["fact", "summary"] and left[1][1] == "s2"
        assert rows(conn, "SELECT message_id FROM because") == [(third,)]
        ids = {row[0] for row in rows(conn, "SELECT id FROM items")}
        assert ids == {row[0] for row in rows(conn, "SELECT rowid FROM item_fts")}
    assert home.db.write(lambda c: memory.drop_fact_items(c, [left[0][1], "unknown"])) == 1


def test_a_renewed_summary_is_the_same_item_with_other_words(home) -> None:
    ids = spoken(home, "I moved to Porto", "I have a dog")

    def put(text: str, of: list[int]):
        return home.db.write(lambda c: memory.put_summary_item(c, "s1", text, of, 1, 1, 5, "s"))

    item = put("a move", ids[:1])
    assert put("a move and a dog", ids) == item
    with home.db.read() as conn:
        assert rows(conn, "SELECT text, kind, message_id FROM items WHERE id = ?", (item,)) == [
            ("a move and a dog", "summary", None)
        ]
        assert value(conn, "SELECT count(*) FROM because WHERE item_id = ?", (item,)) == 2
        found = rows(conn, "SELECT rowid FROM item_fts WHERE item_fts MATCH 'self: move AND dog'")
        assert (item,) in found
