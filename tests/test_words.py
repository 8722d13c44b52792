from hypothesis import given
from hypothesis import strategies as st

from knowme.words import content_words, sentences, words


@given(st.text(max_size=400))
def test_sentences_joined_give_the_text_back(text: str) -> None:
    assert "".join(sentences(text)) == text


def test_a_text_is_cut_after_sentences_and_lines() -> None:
    text = "First one. Second one!\nA line without an end\n\nLast?"
    assert [piece.strip() for piece in sentences(text)] == [
        "First one.",
        "Second one!",
        "A line without an end",
        "Last?",
    ]


def test_stop_words_leave_the_query_and_repeats_count_once() -> None:
    assert content_words("What did I decide about the heating, the HEATING?") == [
        "decide",
        "heating",
    ]


def test_a_query_of_stop_words_alone_keeps_them() -> None:
    assert content_words("Who am I?") == ["who", "am", "i"]


def test_words_of_other_alphabets_and_typographic_apostrophes_are_words() -> None:
    assert words("Não sei, it’s ok") == ["não", "sei", "it's", "ok"]
