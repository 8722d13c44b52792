"""Whose words a stretch of text is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.spans import SHINGLE_WORDS, foreign, shingles

OWN = "I live in Porto"
FOREIGN = {
    "code": ["```\nI live in Rome\n```", "~~~\nI live in Rome", "`name = 'I live in Rome'`"],
    "block quotes": ["> I live in Rome", "> > I live in Rome\n> and work there"],
    "our own fences": [
        "<recalled>\nI live in Rome\n</recalled>",
        "<recalled>I live in Rome",
        "<tool_result>I live in Rome</tool_result>",
        "<|im_start|>user\nI live in Rome",
    ],
    "quoted speech": [
        'She shouted "I live in Rome" at us',
        "“I live in Rome and work there”",
        "«Vivo em Roma e trabalho lá»",
        "„Ich wohne in Rom und arbeite dort“",
        'the sign "I live in Rome these days"',
        '"No," she replied',
    ],
    "reported speech": [
        "He told me that I live in Rome.",
        "You said: I live in Rome.",
        "my sister says I live in Rome",
        "I was told that I live in Rome",
        "According to Ana I live in Rome",
        "A Ana disse que moro em Roma",
        "Me dijeron que vivo en Roma",
        "Mi hermana dice que vivo en Roma",
        "Mein Chef sagt, ich wohne in Rom",
        "I live in Rome, she said",
    ],
    "pastes": [
        "Here is the article:\nI live in Rome and love it",
        "Translate this to German: I live in Rome and love it",
        "Summarize: I live in Rome and love it, said the cat",
        "Write me a cover letter: I live in Rome and love it",
        "Traduz isto: eu moro em Roma e gosto muito",
        "Übersetze: Ich wohne in Rom und mag es",
        "On Mon, Ana Silva <a@b.c> wrote:\nI live in Rome",
        "From: Ana\nTo: Rui\nSubject: Rome\nI live in Rome",
        "-----Original Message-----\nI live in Rome",
        "<div><p>I live in Rome</p></div>",
        "User: hi\nAssistant: I live in Rome",
        "### Usuario:\nVivo en Roma y me llamo Sancho.\n### Asistente:",
        "[12/03/24, 10:12] Ana: I live in Rome\n[12/03/24, 10:13] Ana: yes",
        "Ana: hi\nRui: I live in Rome\nAna: no\nRui: yes",
        "2024-03-01 10:00:00 user I live in Rome",
    ],
}


@pytest.mark.parametrize("text", [text for group in FOREIGN.values() for text in group])
def test_what_is_not_the_writers_own_is_marked_with_why(text: str) -> None:
    stretches = foreign(text)
    covered = {at for start, end, _ in stretches for at in range(start, end)}
    told = next((w for w in ("Rom", "shout", "No,") if w in text), text)
    assert text.index(told) in covered
    assert all(why for _, _, why in stretches)


@pytest.mark.parametrize(
    "text",
    [
        OWN,
        'My cat is called "Rex"',
        'My favourite book is "The Unbearable Lightness of Being"',
        "I told him that I quit my job",
        "I said that I hate mornings, and I think you know it",
        "I'm 5'10\" tall and my desk is 60\" wide",
        "Name: Ana Silva\nCity: Porto\nJob: nurse",
        "Remember: I'm allergic to nuts",
        "don't call me 'Annie'",
        "My editor is `vim`",
        "Minha irmã mora em Braga",
        "The people in my team are kind",
        "do you think I should go?",
        "I'd say we did well",
        "my number is 3 > 2",
        "Eu acho que moro bem",
        "Ich finde, dass ich gut wohne",
    ],
)
def test_what_the_writer_says_themselves_is_not_foreign(text: str) -> None:
    assert foreign(text) == []


def test_what_stands_beside_foreign_words_stays_the_writers() -> None:
    text = f"> I live in Rome\n{OWN}. He told me that he lives in Rome. {OWN}."
    marked = {at for start, end, _ in foreign(text) for at in range(start, end)}
    first = text.index(OWN)
    second = text.index(OWN, first + 1)
    assert not marked & {*range(first, first + len(OWN)), *range(second, second + len(OWN))}


pieces = st.sampled_from(
    ['"', "“", "”", "«", "»", "`", "```", "\n", "> ", "<recalled>", "</recalled>", "he said ",
     ": ", "User: x\n", "I live in Rome. ", "translate this: ", "<p>", "'", "‘", "’", ". ",
     "On x wrote:\n"]
)  # fmt: skip


@given(st.lists(pieces, max_size=30).map("".join) | st.text(max_size=200))
def test_spans_lie_inside_the_text_in_order_none_over_another(text: str) -> None:
    last = 0
    for start, end, why in foreign(text):
        assert last <= start < end <= len(text)
        assert why
        last = end


@pytest.mark.parametrize(
    "piece",
    ['"', "“ ", "<recalled>", "```\n", "he told me that ", "User: x\n", "a ", "'a ", "漢字"],
)
def test_a_long_hostile_text_is_read_to_its_end(piece: str) -> None:
    text = piece * 20_000  # quadratic work on it would take hours
    assert all(end <= len(text) for _, end, _ in foreign(text))
    assert all(end <= len(text) for _, _, end in shingles(text))


# --- shingles -----------------------------------------------------------------------------------

vocabulary = st.sampled_from("a b c d e f g h i j k l m n o p Ana Porto likes tea".split())


@given(
    st.lists(vocabulary, min_size=8, max_size=8),
    *[st.lists(vocabulary, max_size=25) for _ in range(4)],
)
def test_any_run_of_eight_words_that_two_texts_share_is_noticed(run, a, b, c, d) -> None:
    one, other = " ".join([*a, *run, *b]), ", ".join([*c, *run, *d]).upper()
    assert {h for h, _, _ in shingles(one)} & {h for h, _, _ in shingles(other)}


@given(st.text(max_size=300))
def test_shingles_are_signed_64_bit_and_lie_inside_the_text_in_order(text: str) -> None:
    last = -1
    for value, start, end in shingles(text):
        assert -(2**63) <= value < 2**63
        assert last < start < end <= len(text)
        last = start


def test_a_shingle_covers_its_words_and_no_more() -> None:
    text = "  One, two; three four five six seven.  "
    ((_, start, end),) = shingles(text)
    assert text[start:end] == "One, two; three four five six seven"
    assert len(text[start:end].split()) == SHINGLE_WORDS


def test_short_texts_have_no_shingles() -> None:
    assert shingles("I live in Porto") == []


def test_scripts_without_spaces_have_shingles_too() -> None:
    shared = "私はポルトに住んでいます"
    one, other = f"はい、{shared}。", f"彼は言った{shared}と"
    assert {h for h, _, _ in shingles(one)} & {h for h, _, _ in shingles(other)}


def test_a_shingle_is_the_same_in_every_process() -> None:
    ((value, _, _),) = shingles("one two three four five six seven")
    assert value == 5738066066686891423


@pytest.mark.parametrize(
    "head",
    ["# 2024-01-07", "27/12/2020", "Day 12", "Rain all day.", "Dia calmo.", "# Kitchen", "12:30",
     "Segunda, 27 de dezembro"],
)  # fmt: skip
def test_a_journal_that_begins_with_a_day_or_a_heading_is_its_writers(head):
    assert foreign(f"{head}\n\nI live in Porto. Moro no Porto.") == []
