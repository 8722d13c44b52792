from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from knowme.embedders.hashing import HashingEmbedder
from knowme.quotes import SHORT_WORDS, choose_quotes, quote_lead
from knowme.types import Hit

DAY_MS = 86_400_000


def hit(text: str, at_day: int = 0, role: str = "user", uid: str = "", **more) -> Hit:
    return Hit(
        item_id=1, uid=uid or text[:8], kind="message", source="openclaw", conversation="c",
        title=more.pop("title", ""), role=role, speaker=more.pop("speaker", ""), text=text,
        at_ms=at_day * DAY_MS, score=1.0, distance=0.5, why={}, message_ids=(1,),
        external_ids=("e",), **more,
    )  # fmt: skip


def texts(hits, question: str, **more) -> list[str]:
    return [quote["text"] for quote in choose_quotes(None, hits, question, UTC, **more)]


def test_a_short_message_is_quoted_whole() -> None:
    said = "decided. gas boiler. why: cheaper and done by february."
    assert texts([hit(said)], "What did I decide?") == [said]


def test_of_a_long_one_only_the_sentences_that_answer() -> None:
    filler = "The tide tables were late again and nobody in the office minded at all. "
    note = (
        filler * 5 + "We decided to keep the old boiler for another winter in the flat. " + filler
    )
    found = texts([hit(note, role="document")], "What did we decide about the boiler?")
    assert len(found) == 1
    assert "decided to keep the old boiler" in found[0] and len(found[0].split()) < SHORT_WORDS


def test_a_line_end_inside_a_paragraph_does_not_cut_a_sentence() -> None:
    note = (
        "word " * 40
        + ".\n\nThe heating was chosen after eleven days of\nquotes and a vote in March."
    )
    assert "of quotes and a vote" in texts([hit(note, role="document")], "heating chosen")[0]


def test_the_newest_stands_first_unless_what_was_before_is_asked_for() -> None:
    hits = [hit("the heating is a boiler", 3), hit("the heating is a pump", 9)]
    assert texts(hits, "heating") == ["the heating is a pump", "the heating is a boiler"]
    assert texts(hits, "heating before") == ["the heating is a boiler", "the heating is a pump"]


def test_headings_of_a_note_are_quoted_as_words() -> None:
    note = hit("# Heating\n\n## How it went\n\nA pump won.", role="document", title="Heating")
    lead = quote_lead(choose_quotes(None, [note], "heating", UTC))
    assert lead.endswith("“Heating: How it went: A pump won.”")


def test_of_what_changed_the_newest_is_preferred_unless_the_first_is_asked_for() -> None:
    hits = [hit("heating is a boiler now", 3), hit("heating is a pump now", 9)]
    assert texts(hits, "which heating?", limit=1) == ["heating is a pump now"]
    assert texts(hits, "which heating first?", limit=1) == ["heating is a boiler now"]


def test_the_lead_says_when_and_who() -> None:
    hits = [
        hit("we ordered the heat pump", 20_000),
        hit("heat pump ordered", 20_001, role="assistant"),
        hit("heat pump: Frioeste", 20_002, role="document", title="Heating"),
        hit("I hate that heat pump", 20_003, speaker="Tomás", metadata={"other": True}),
    ]
    embedder = HashingEmbedder()
    meaning = embedder, embedder.embed(["heat pump"], "query")[0]
    lead = quote_lead(choose_quotes(meaning, hits, "heat pump", UTC, limit=4))
    assert "2024-10-04, you said: “we ordered the heat pump”" in lead
    assert "2024-10-05, the assistant: “heat pump ordered”" in lead
    assert "2024-10-06, a note in Heating: “heat pump: Frioeste”" in lead
    assert "2024-10-07, Tomás: “I hate that heat pump”" in lead


@given(st.lists(st.text(max_size=300), max_size=8), st.text(min_size=1, max_size=60))
def test_every_quotation_was_said(said: list[str], question: str) -> None:
    squeezed = [" ".join(text.split()) for text in said]
    hits = [hit(text, number, uid=str(number)) for number, text in enumerate(said)]
    for quote in choose_quotes(None, hits, question, UTC):
        assert any(" ".join(quote["text"].split()) in text for text in squeezed)


def test_nothing_recalled_quotes_nothing() -> None:
    assert choose_quotes(None, [], "heating", UTC) == []
