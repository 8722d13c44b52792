import numpy as np
import pytest
from facts_rows import put_fact

from knowme import memory, rebuild, structure
from knowme.db import rows, value
from knowme.errors import InputError
from knowme.home import Home
from knowme.rebuild import Belief, compare
from knowme.sync import ingest, reindex, store
from knowme.types import Query, Record

TABLES = (
    "SELECT uid, kind, message_id, start, end, text, conversation_id, seq, source, role, speaker,"
    " at_ms, words FROM items ORDER BY uid",
    "SELECT i.uid, b.uid, a.uid FROM items i LEFT JOIN items b ON b.id = i.before_id"
    " LEFT JOIN items a ON a.id = i.after_id ORDER BY i.uid",
    "SELECT i.uid, v.embedder_id, v.vector FROM vectors v JOIN items i ON i.id = v.item_id"
    " ORDER BY 1, 2",
    "SELECT i.uid, b.message_id FROM because b JOIN items i ON i.id = b.item_id ORDER BY 1, 2",
)


def derived(home) -> list[list[tuple]]:
    with home.db.read() as conn:
        return [rows(conn, sql) for sql in TABLES]


def found(home, *queries: str) -> list[list[tuple]]:
    return [
        [(hit.uid, round(hit.score, 4), hit.why.get("fact")) for hit in home.search(Query(query))]
        for query in queries
    ]


@pytest.fixture
def lived(home):
    """Give a home with talks, a long document, versions, removals, facts and a summary."""
    for name, texts in {
        "a": ["we ordered the heat pump from Frioeste", "Noted.", "it cost 9,400 euros"],
        "b": ["the cat drinks a lot", "the vet said kidneys"],
        "c": ["gone tomorrow"],
    }.items():
        told = [
            (Record("message", name, f"{name}{n}", "assistant" if text == "Noted." else "user",
                    text=text, seq=n, at_ms=1_772_500_000_000 + n), None)
            for n, text in enumerate(texts)
        ]  # fmt: skip
        store(home, "openclaw", told)
    store(home, "openclaw", [(Record("removed", "c", "c0"), None)])
    changed = Record("message", "b", "b0", text="the cat drinks very much", seq=0)
    store(home, "openclaw", [(changed, None)])
    document = "\n\n".join(f"Part {n} on tides. " + "More of it. " * 60 for n in range(5))
    ingest(home, [document], None, ["long"])

    def learn(conn):
        ids = dict(rows(conn, "SELECT text, id FROM messages"))
        facts = [
            put_fact(conn, ids["we ordered the heat pump from Frioeste"], "The supplier of warmth"),
            put_fact(conn, ids["the vet said kidneys"], "The cat is ill", state="doubtful"),
            put_fact(conn, ids[document], "The person likes tides", start=1700, end=1750),
        ]
        memory.put_fact_items(conn, facts)
        memory.put_summary_item(conn, "s1", "pump and price", [1, 3], 1, 3, None, "openclaw")

    home.db.write(learn)
    reindex(home)
    return home


QUERIES = ("heat pump", "supplier of warmth", "tides", "kidneys of the cat", "pump and price")


@pytest.mark.parametrize("what", ["items", "index"])
def test_what_is_made_again_is_what_was_there(lived, what) -> None:
    before, hits = derived(lived), found(lived, *QUERIES)
    assert rebuild.rebuild(lived, what)[what]["embedded"] == 0
    assert derived(lived) == before and found(lived, *QUERIES) == hits
    rebuild.rebuild(lived, what)
    assert derived(lived) == before


def test_items_that_were_lost_or_are_nobodys_are_made_again_from_the_archive(lived) -> None:
    before, hits = derived(lived), found(lived, *QUERIES)

    def damage(conn):
        spoken = "SELECT id FROM items WHERE kind <> 'summary'"
        conn.execute(f"DELETE FROM vectors WHERE item_id IN ({spoken})")
        for table, column in (("item_fts", "rowid"), ("item_tri", "rowid")):
            conn.execute(f"DELETE FROM {table} WHERE {column} < 6")
        conn.execute("DELETE FROM items WHERE id < 4 AND kind <> 'summary'")
        conn.execute("UPDATE items SET before_id = NULL, words = 1 WHERE kind <> 'summary'")
        conn.execute("INSERT INTO item_fts(rowid, self, ctx) VALUES(9999, 'pump', '')")

    lived.db.write(damage)
    assert derived(lived) != before
    made = rebuild.rebuild(lived, "items")["items"]
    assert made["swept"] >= 1 and made["embedded"] == made["items"]
    assert [table for n, table in enumerate(derived(lived)) if n != 2] == [
        table for n, table in enumerate(before) if n != 2
    ]
    assert found(lived, *QUERIES) == hits


def test_a_damaged_index_is_filled_from_the_vectors_that_memory_holds(lived) -> None:
    hits = found(lived, *QUERIES)
    space = lived.space()
    index = lived.index(space)
    index.upsert([1, 2, 3], np.tile(np.eye(1, space.dims, dtype=np.float32), (3, 1)))
    assert found(lived, *QUERIES) != hits
    counts = rebuild.rebuild(lived, "index")["index"]
    assert counts["vectors"] == lived.index(space).count() == counts["words"]
    assert found(lived, *QUERIES) == hits


def test_a_rebuild_that_is_stopped_leaves_what_was_there(lived, monkeypatch) -> None:
    monkeypatch.setattr(rebuild, "STEP", 1)
    before, hits = derived(lived), found(lived, *QUERIES)
    for stop_at in range(1, 5):

        def stop(done: int, total: int, what: str, stop_at: int = stop_at) -> None:
            assert total
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise KeyboardInterrupt

        for what in ("items", "index"):
            calls = 0
            with pytest.raises(KeyboardInterrupt):
                rebuild.rebuild(lived, what, stop)
            assert derived(lived) == before and found(lived, *QUERIES) == hits


def test_where_the_embedder_is_gone_the_vectors_stay_and_a_job_waits(lived) -> None:
    from knowme.errors import ModelDownError

    class Down:
        fingerprint, dims = lived.embedder.fingerprint, lived.embedder.dims

        def embed(self, texts, kind):
            raise ModelDownError("The embedder is down.", "Start it.")

        def close(self) -> None:
            pass

    before = derived(lived)
    lived.db.write(lambda c: c.execute("DELETE FROM vectors WHERE item_id = 1"))
    lived._embedder = Down()
    assert rebuild.rebuild(lived, "items")["items"]["embedded"] == 0
    lost = [row for row in before[2] if row not in derived(lived)[2]]
    assert len(lost) == 1
    with lived.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM jobs WHERE kind = 'reindex'") == 1


def test_only_what_is_derived_can_be_rebuilt(home) -> None:
    with pytest.raises(InputError, match="'archive' cannot be rebuilt"):
        rebuild.rebuild(home, "archive")
    with pytest.raises(InputError, match="no difference"):
        rebuild.difference(home, "items")


def belief(uid: str, state: str, text: str = "x") -> Belief:
    return Belief("fact", uid, text, state, "", "", None, "rules")


def test_a_difference_is_in_the_order_in_which_it_was_said() -> None:
    said = [
        Belief("fact", uid, uid, "believed", "", "", at, "rules")
        for uid, at in (("a", 9), ("b", 3))
    ]
    assert [one.uid for one in compare({}, {one.uid: one for one in said}).learned] == ["b", "a"]


def test_a_difference_names_what_comes_to_count_what_no_longer_does_and_the_rest() -> None:
    now = [belief("a", "believed"), belief("b", "doubtful"), belief("c", "believed"),
           belief("d", "doubtful"), belief("e", "believed")]  # fmt: skip
    then = [belief("b", "believed"), belief("c", "superseded"), belief("d", "quarantined"),
            belief("e", "believed"), belief("f", "believed"), belief("g", "doubtful")]  # fmt: skip
    told = compare({one.uid: one for one in now}, {one.uid: one for one in then})
    assert [one.uid for one in told.learned] == ["b", "f"]
    assert [(one.uid, one.state) for one in told.lost] == [("a", "believed"), ("c", "superseded")]
    assert [(was.uid, is_.state) for was, is_ in told.changed] == [("d", "quarantined")]


# --- facts and the profile, of the fictional person ---------------------------------------------

KNOWN = {
    "facts": "SELECT uid, subject, attribute, value, sentence, message_id, start, end, quote,"
    " said_ms, from_first, from_last, to_first, to_last, read_by, certain, outright, sensitive,"
    " state, reason, other, pinned FROM facts ORDER BY uid",
    "lines": "SELECT uid, section, text, confidence, state, written_by, sensitive, place, pinned"
    " FROM lines ORDER BY uid",
    "evidence": "SELECT * FROM line_evidence ORDER BY 1, 2, 3",
    "fingerprints": "SELECT hash, message_id FROM fingerprints ORDER BY 1, 2",
    "items": TABLES[0],
}
DERIVED = (
    "events", "line_evidence", "lines", "facts", "fingerprints", "states", "vectors", "because",
    "items", "item_fts", "item_tri", "summaries",
)  # fmt: skip
NOTES = """# Journal

I'm allergic to penicillin. My sister Ana lives in Berlin. I live in Porto.
"""


def known(home) -> dict[str, list[tuple]]:
    with home.db.read() as conn:
        return {name: rows(conn, sql) for name, sql in KNOWN.items()}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Give a home that has read the fictional person and a journal, and learned from them."""
    from knowme import configfile, sync
    from knowme.fiction.build import build
    from knowme.settings import SourceSettings

    folder = tmp_path_factory.mktemp("story")
    build(folder / "openclaw")
    (folder / "notes").mkdir()
    (folder / "notes" / "2026-03-14.md").write_text(NOTES, "utf-8")
    Home.create(folder / "home")
    configfile.add_source(folder / "home", SourceSettings("openclaw", str(folder / "openclaw")))
    configfile.add_source(folder / "home", SourceSettings("markdown", str(folder / "notes")))
    with Home.open(folder / "home", SETTINGS) as home:
        sync.sync(home, ())
        structure.catch_up(home)
        reindex(home)
    return folder / "home"


SETTINGS = {"embedder.kind": "hashing", "engine.kind": "echo", "name": "Leonor"}


@pytest.fixture
def person(story, tmp_path):
    import shutil

    shutil.copytree(story, tmp_path / "home")
    with Home.open(tmp_path / "home", SETTINGS) as home:
        yield home


def decide(home) -> None:
    """Pin one fact, correct another, retire a third."""
    from knowme import facts

    def write(conn):
        uids = [fact.uid for fact in facts.believed(conn)]
        facts.decide(conn, "pin", uids[0], 1_800_000_000_000)
        facts.decide(conn, "edit", uids[1], 1_800_000_000_000, "something else")
        facts.decide(conn, "retire", uids[2], 1_800_000_000_000)

    home.db.write(write)
    rebuild.rebuild(home, "profile")
    reindex(home)


def test_everything_derived_comes_back_from_the_archive_and_the_decisions_alone(person) -> None:
    decide(person)
    page = person.path / "USER_PROFILE.md"
    before, told = known(person), page.read_text("utf-8")
    assert all(before.values())
    states = {row[18] for row in before["facts"]}
    assert states >= {"believed", "retired"}

    def drop(conn) -> None:
        for table in DERIVED:
            conn.execute(f"DELETE FROM {table}")

    person.db.write(drop)
    page.unlink()
    made = rebuild.rebuild(person)
    assert list(made) == list(rebuild.LAYERS)
    assert known(person) == before and page.read_text("utf-8") == told
    with person.db.read() as conn:
        events = value(conn, "SELECT count(*) FROM events")
        space = memory.serving(conn)
        assert space is not None and memory.count_missing(conn, space.id) == 0
    rebuild.rebuild(person)
    assert known(person) == before and page.read_text("utf-8") == told
    with person.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM events") == events


def test_reading_again_that_is_stopped_leaves_what_was_believed(person) -> None:
    decide(person)
    before, stopped = known(person), 0
    for stop_at in range(1, 6):
        calls = iter(range(1, 1000))

        def stop(done: int, total: int, what: str, calls=calls, stop_at=stop_at) -> None:
            if next(calls) == stop_at:
                raise KeyboardInterrupt

        try:
            rebuild.rebuild(person, "facts", stop)
        except KeyboardInterrupt:
            stopped += 1
        left = known(person)
        assert {**left, "fingerprints": None} == {**before, "fingerprints": None}
    assert stopped >= 2
    structure.catch_up(person)  # it goes on where it was stopped
    assert known(person) == before


def test_a_difference_shows_what_other_rules_would_change_and_changes_nothing(
    person,
) -> None:
    def older_rules(conn) -> None:
        """Forget one fact that the rules read, and hold one that they do not read any more."""
        conn.execute("DELETE FROM facts WHERE sentence LIKE '%Ana%Berlin%'")
        assert conn.changes()
        (message,) = conn.execute("SELECT message_id FROM facts LIMIT 1").fetchone()
        put_fact(conn, message, "I am a zeppelin pilot.", attribute="occupation")

    person.db.write(older_rules)
    before = known(person)
    with person.db.read() as conn:
        events = value(conn, "SELECT count(*) FROM events")
    page = (person.path / "USER_PROFILE.md").read_text("utf-8")
    told = rebuild.difference(person, "facts")
    assert [one.text for one in told.learned] == ["Ana lives in Berlin."]
    assert told.learned[0].quote and told.learned[0].said_ms
    assert [one.text for one in told.lost] == ["I am a zeppelin pilot."]
    assert known(person) == before
    with person.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM events") == events
    assert (person.path / "USER_PROFILE.md").read_text("utf-8") == page
    assert not (person.path / "index" / rebuild.COPY).exists()
    rebuild.rebuild(person, "facts")
    told = rebuild.difference(person, "facts")
    assert not (told.learned or told.lost or told.changed)


def test_a_difference_shows_what_another_setting_would_take_away(person) -> None:
    with person.db.read() as conn:
        sql = "SELECT uid FROM facts WHERE state = 'believed' AND sensitive <> ''"
        sensitive = {uid for (uid,) in rows(conn, sql)}
    with Home.open(person.path, {**SETTINGS, "privacy.sensitive": "off"}) as home:
        told = rebuild.difference(home, "all")
    assert {one.uid for one in told.lost if one.target == "fact"} == sensitive
    assert [one for one in told.lost if one.target == "line" and "penicillin" in one.text]
    assert not told.learned


def test_only_one_difference_is_tried_at_a_time_and_a_killed_one_leaves_nothing(person) -> None:
    from knowme.errors import HomeError
    from knowme.lock import Lock

    folder = person.path / "index" / rebuild.COPY
    folder.mkdir()
    (folder / "memory.db").write_bytes(b"left by a process that was killed")
    with Lock(person.path / f"{rebuild.COPY}.lock"), pytest.raises(HomeError, match="in use"):
        rebuild.difference(person, "facts")
    rebuild.difference(person, "facts")
    assert not folder.exists()


def believed(found: dict[str, list[tuple]]) -> set[str]:
    return {row[0] for row in found["facts"] if row[18] == "believed"}


@pytest.mark.model
@pytest.mark.slow
def test_the_same_model_reads_the_same_again_and_what_it_would_change_is_shown(
    tmp_path, models
) -> None:
    settings = {
        "embedder.kind": "hashing", "engine.kind": "llamacpp", "engine.model": str(models["chat"]),
        "engine.context_tokens": 2048, "facts.read": "model",
    }  # fmt: skip
    Home.create(tmp_path / "home")
    said = ["I moved from Leiria to Porto because of my job.", "I adopted a cat called Mila."]
    with Home.open(tmp_path / "home", settings) as home:
        store(home, "openclaw", [
            (Record("message", "c", str(n), text=text, seq=n, at_ms=1_772_500_000_000), None)
            for n, text in enumerate(said)
        ])  # fmt: skip
        rebuild.rebuild(home, "facts")
        by_rules = known(home)
        told = rebuild.difference(home, "facts", model=True)
        assert known(home) == by_rules
        rebuild.rebuild(home, "facts", model=True)
        by_model = known(home)
        read = {row[0] for row in by_model["facts"] if row[14].startswith("model:")}
        more = believed(by_model) - believed(by_rules)
        assert {one.uid for one in told.learned} == more
        rebuild.rebuild(home, "facts", model=True)
        assert known(home) == by_model
        rebuild.rebuild(home, "facts")  # the rules alone: what the model read stays
        assert read <= {row[0] for row in known(home)["facts"]}
