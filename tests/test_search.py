import numpy as np
import pytest
from facts_rows import put_fact

from knowme import memory
from knowme.errors import InputError
from knowme.home import Home
from knowme.layout import Layout
from knowme.sync import ingest, reindex, store
from knowme.types import Query, Record


def talk(
    home, conversation: str, *turns: tuple[str, str], at_ms: int | None = None, **meta
) -> None:
    records = [
        (
            Record(
                "message",
                conversation,
                f"{conversation}{n}",
                role,
                text=text,
                seq=n,
                at_ms=at_ms,
                meta=meta,
            ),
            None,
        )  # fmt: skip
        for n, (role, text) in enumerate(turns)
    ]
    store(home, "openclaw", records)


@pytest.fixture
def lived(home):
    talk(home, "a", ("user", "we ordered the heat pump from Frioeste"), ("assistant", "Noted."),
         at_ms=1_772_500_000_000)  # fmt: skip
    talk(home, "b", ("user", "the cat drinks a lot"), ("user", "the vet said kidneys"),
         at_ms=1_770_000_000_000)  # fmt: skip
    ingest(home, ["Bread: 500 g flour, water, salt"], [{"kind": "recipe"}], ["bread"])
    return home


def texts(hits) -> list[str]:
    return [hit.text for hit in hits]


def test_every_hit_says_why_it_was_found(lived) -> None:
    hit = lived.search(Query("heat pump"))[0]
    assert hit.text == "we ordered the heat pump from Frioeste"
    assert hit.why["words"] > 0 and hit.why["meaning"] > 0
    assert hit.neighbours[0].text == "Noted." and hit.neighbours[0].offset == 1


def test_what_was_said_beside_a_match_is_found_too(lived) -> None:
    found = texts(lived.search(Query("what is wrong with the cat's kidneys?", top_k=2)))
    assert set(found) == {"the cat drinks a lot", "the vet said kidneys"}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"sources": ("ingest",)}, {"Bread: 500 g flour, water, salt"}),
        ({"kinds": ("section",)}, {"Bread: 500 g flour, water, salt"}),
        ({"conversations": ("b",)}, {"the cat drinks a lot", "the vet said kidneys"}),
        ({"until_ms": 1_771_000_000_000}, {"the cat drinks a lot", "the vet said kidneys"}),
        ({"since_ms": 1_772_000_000_000}, {"we ordered the heat pump from Frioeste", "Noted."}),
        ({"sources": ("nobody",)}, set()),
    ],
)
def test_filters_let_only_what_they_name_through(lived, filters, expected) -> None:
    assert (
        set(texts(lived.search(Query("bread cat heat pump noted kidneys", **filters)))) <= expected
    )
    assert (not expected) == (not lived.search(Query("bread cat heat pump kidneys", **filters)))


def test_a_token_budget_is_filled_and_not_passed(home) -> None:
    talk(home, "c", *(("user", f"apples and pears number {n} " * 10) for n in range(12)))
    hits = home.search(Query("apples pears", top_k=12, budget_tokens=300))
    assert 1 < len(hits) < 12
    assert sum(len(hit.text) // 4 for hit in hits) <= 300


@pytest.mark.parametrize("text", ["", "   \n"])
def test_an_empty_query_is_refused(home, text) -> None:
    with pytest.raises(InputError, match="empty"):
        home.search(Query(text))


@pytest.mark.parametrize(
    "text", ['"', "a OR", "NEAR(", "self: x", "* ^ -", "' OR 1=1 --", "\x00", "🙂", "()"]
)
def test_no_query_is_taken_for_a_command(lived, text) -> None:
    lived.search(Query(text))


def test_an_empty_memory_finds_nothing(home) -> None:
    assert home.search(Query("anything")) == []


def test_scripts_without_spaces_are_found_by_their_signs(home) -> None:
    talk(home, "j", ("user", "昨日は京都で美味しい寿司を食べました"), ("user", "今日は雨です"))
    assert home.search(Query("京都の寿司"))[0].text.startswith("昨日は京都")
    assert home.search(Query("寿司"))[0].text.startswith("昨日は京都")


def test_a_date_in_the_query_brings_its_day_up(home) -> None:
    talk(home, "x", ("user", "we talked about plans"), at_ms=1_770_000_000_000)  # 2026-02-02
    talk(home, "y", ("user", "we talked about plans"), at_ms=1_772_500_000_000)  # 2026-03-03
    hits = home.search(Query("plans on 3 March 2026"))
    assert hits[0].conversation == "y" and hits[0].why["date"] > hits[1].why["date"]


def test_a_document_is_one_hit_however_many_of_its_pieces_match(home) -> None:
    text = "\n\n".join(
        f"Part {n} about tides and harbours. " + "More of it. " * 40 for n in range(9)
    )
    ingest(home, [text], None, ["long"])
    assert len(home.search(Query("tides harbours"))) == 1


def test_without_an_embedder_the_words_alone_are_searched(tmp_path) -> None:
    Home.create(tmp_path / "h")
    with Home.open(tmp_path / "h", {"embedder.kind": "none", "engine.kind": "echo"}) as home:
        ingest(home, ["the red bicycle", "a blue car"], None, ["1", "2"])
        hits = home.search(Query("bicycle"))
        assert hits[0].text == "the red bicycle" and hits[0].distance is None


def test_the_layout_follows_every_change(home) -> None:
    layout = Layout()

    def rows():
        with home.db.read() as conn:
            now = layout.caught_up(conn)
            ids = np.flatnonzero(now.roles)
            return [(int(i), int(now.before[i]), int(now.after[i])) for i in ids]

    talk(home, "k", ("user", "one"), ("assistant", "two"))
    assert rows() == [(1, 0, 2), (2, 1, 0)]
    store(home, "openclaw", [(Record("message", "k", "k9", "user", text="three", seq=9), None)])
    assert rows() == [(1, 0, 2), (2, 1, 3), (3, 2, 0)]
    store(home, "openclaw", [(Record("removed", "k", "k1"), None)])
    assert rows() == [(1, 0, 3), (3, 1, 0)]


def test_what_may_not_leave_is_not_embedded_where_the_embedder_is_elsewhere(tmp_path) -> None:
    Home.create(tmp_path / "home")
    settings = {"embedder.kind": "hashing", "engine.kind": "echo"}
    away = {**settings, "embedder.url": "http://192.0.2.1/v1"}
    secret = "Is sk-proj-Zx81LmQp93Vb27Rt56Wy04Ku a good key?"
    with Home.open(tmp_path / "home", settings) as home:
        store(home, "notes", [(Record("message", "c", "1", text="The boat is red.", seq=0), None)])
        assert home.embed(secret)[0] is not None and home.embed(secret, "document")[0] is not None
    with Home.open(tmp_path / "home", away) as home:
        space, embedder = home.serving()
        assert space is not None and embedder is not None and home.embeds_away()
        assert home.embed("Where is the boat?")[0] is not None
        assert home.embed(secret) == (None, None) == home.embed(secret, "document")
    with Home.open(tmp_path / "home", {**away, "privacy.question": "deny"}) as home:
        assert home.embed("Where is the boat?") == (None, None)


def learn(home, words: str, sentence: str) -> None:
    """Believe ``sentence`` of the message that holds ``words``, and embed it."""

    def write(conn):
        text = f"%{words}%"
        (message,) = conn.execute("SELECT id FROM messages WHERE text LIKE ?", (text,)).fetchone()
        return memory.put_fact_items(conn, [put_fact(conn, message, sentence)])

    assert home.db.write(write)
    reindex(home)


def test_a_fact_leads_to_the_words_it_was_read_from(home) -> None:
    talk(home, "a", ("user", "finally signed the lease in Gaia"), ("assistant", "Congratulations."))
    talk(home, "b", *(("user", f"the weather was number {n}") for n in range(9)))
    assert "finally signed" not in texts(home.search(Query("residence of the person", top_k=3)))
    learn(home, "lease", "The person's residence is Gaia")
    hit = home.search(Query("residence of the person", top_k=3))[0]
    assert hit.text == "finally signed the lease in Gaia" and hit.kind == "message"
    assert hit.why["fact"] == "The person's residence is Gaia"
    assert len(hit.message_ids) == 1 and hit.neighbours[0].text == "Congratulations."


@pytest.mark.parametrize("kinds", [(), ("message",)])
def test_a_message_and_its_facts_are_one_hit_that_scores_the_better_of_them(home, kinds) -> None:
    talk(home, "a", ("user", "I adopted a grey cat called Mila"), ("user", "and it rains"))
    query = Query("a grey cat called Mila", kinds=kinds)
    alone = home.search(query)
    learn(home, "Mila", "The person is cold")
    learn(home, "Mila", "The person went shopping")
    hits = home.search(query)
    assert texts(hits) == texts(alone)
    assert "fact" not in hits[0].why  # its own words say it better
    learn(home, "Mila", "grey cat called Mila")
    assert texts(home.search(query)) == texts(alone)


def test_a_fact_of_a_long_document_leads_to_the_piece_it_stands_in(home) -> None:
    parts = [f"Part {n} about tides and harbours. " + "More of it. " * 40 for n in range(9)]
    ingest(home, ["\n\n".join(parts)], None, ["long"])
    with home.db.read() as conn:
        (message, text) = conn.execute("SELECT id, text FROM messages").fetchone()
    at = text.index("Part 6")

    def write(conn):
        fact = put_fact(conn, message, "The person owns a zeppelin", start=at, end=at + 20)
        memory.put_fact_items(conn, [fact])

    home.db.write(write)
    reindex(home)
    (hit,) = home.search(Query("zeppelin"))
    assert "Part 6" in hit.text and hit.why["fact"] == "The person owns a zeppelin"


def test_what_left_recall_is_not_found_by_what_was_read_from_it(home) -> None:
    talk(home, "a", ("user", "finally signed the lease"))
    talk(home, "b", ("user", "it rains"))
    learn(home, "lease", "The person's residence is Gaia")
    store(home, "openclaw", [(Record("removed", "a", "a0"), None)])
    assert "finally signed the lease" not in texts(home.search(Query("residence Gaia")))


def test_a_summary_is_a_hit_that_names_everything_it_rests_on(home) -> None:
    talk(home, "a", ("user", "we ordered the heat pump"), ("assistant", "from Frioeste, noted"))
    talk(home, "b", ("user", "it rains"))

    def write(conn):
        found = conn.execute("SELECT id FROM messages ORDER BY id LIMIT 2").fetchall()
        ids = [row[0] for row in found]
        text = "A supplier of warmth was chosen"
        return memory.put_summary_item(conn, "s1", text, ids, 1, 2, None, "openclaw"), ids

    item, ids = home.db.write(write)
    reindex(home)
    hit = home.search(Query("which supplier was chosen"))[0]
    assert (hit.kind, hit.item_id, hit.uid) == ("summary", item, "s1")
    assert hit.message_ids == tuple(ids) and hit.external_ids == ("a0", "a1")
    assert hit.neighbours == () and hit.metadata == {} and hit.at_ms is None
    (only,) = home.search(Query("supplier heat pump rains", kinds=("summary",)))
    assert only.uid == "s1"
    spoken = home.search(Query("which supplier was chosen", kinds=("message",)))
    assert "s1" not in [hit.uid for hit in spoken]


def test_without_vectors_a_fact_leads_by_its_words_alone(tmp_path) -> None:
    Home.create(tmp_path / "h")
    with Home.open(tmp_path / "h", {"embedder.kind": "none", "engine.kind": "echo"}) as home:
        talk(home, "a", ("user", "finally signed the lease"), ("user", "it rains"))
        talk(home, "b", ("user", "昨日は京都で寿司を食べました"), ("user", "今日は雨です"))

        def write(conn):
            facts = [put_fact(conn, 1, "My residence is Gaia"), put_fact(conn, 3, "旅行は京都府")]
            memory.put_fact_items(conn, facts)

        home.db.write(write)
        hit = home.search(Query("residence"))[0]
        assert hit.text == "finally signed the lease" and hit.distance is None
        assert hit.why["fact"] == "My residence is Gaia"
        hit = home.search(Query("旅行は京都府"))[0]
        assert hit.text.startswith("昨日は京都") and hit.why["fact"] == "旅行は京都府"
