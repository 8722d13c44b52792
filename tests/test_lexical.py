from knowme.db import rows
from knowme.lexical import COMMON, Lexical
from knowme.sync import store
from knowme.types import Query, Record


def put(home, conversation: str, *texts: str) -> None:
    store(
        home,
        "s",
        [
            (Record("message", conversation, str(n), text=text, seq=n), None)
            for n, text in enumerate(texts)
        ],
    )


def test_a_word_that_nobody_had_said_is_found_as_soon_as_somebody_says_it(home) -> None:
    put(home, "long", *(f"message number {n}" for n in range(200)))
    assert all(hit.why["words"] == 0.0 for hit in home.search(Query("zanzibar")))
    put(home, "new", "we fly to zanzibar")  # memory grows by less than 2%
    best = home.search(Query("zanzibar"))[0]
    assert best.text == "we fly to zanzibar" and float(best.why["words"]) > 0


def test_a_memory_that_shrinks_is_searched_as_before(home) -> None:
    put(home, "long", *(f"message number {n}" for n in range(COMMON + 10)))
    assert home.search(Query("message"))
    store(home, "s", [(Record("removed", "long", str(n)), None) for n in range(5)])
    assert home.search(Query("message 77"))[0].text == "message number 77"


def test_only_common_words_are_remembered_by_their_count(home) -> None:
    put(home, "long", *(f"message number {n}" for n in range(COMMON)))
    lexical, asked = Lexical(), []
    with home.db.read() as conn:
        total = len(rows(conn, "SELECT id FROM items"))
        conn.exec_trace = lambda _, sql, bindings: asked.append(bindings) or True
        for _ in range(2):
            lexical.find(conn, "message 77", total)
        conn.exec_trace = None
    assert asked.count(('"message"',)) == 1
    assert asked.count(('"77"',)) == 2


def test_a_word_that_most_of_memory_has_finds_it_all_the_same(home) -> None:
    put(home, "letters", *(f"a letter about the weather, page {n}" for n in range(60)))
    put(home, "other", *(f"note number {n}" for n in range(20)))
    hits = home.search(Query("a letter"))
    assert len(hits) == 10 and all("letter" in hit.text for hit in hits)
    assert all(float(hit.why["words"]) > 0 for hit in hits)
