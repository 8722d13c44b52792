"""What a model wrote is kept only where the person's words bear it out, word for word."""

import pytest

from knowme.learn import evidence
from knowme.learn.evidence import BEYOND, NOT_COVERED, NOT_FOUND, NOT_MEANT, SECRET, SENSITIVE, Said

RUST = "I prefer Rust over Go because of its type system"
BILLING = "We picked Postgres for the billing service because I know it well"


def judged(quote, question, answer, text="", mine=False, foreign=()):
    said = [Said(1, text or quote, None, foreign)]
    return evidence.borne_out(quote, question, answer, said, mine=mine)[1]


@pytest.mark.parametrize(
    ("quote", "question", "answer", "mine"),
    [
        (RUST, "What do I prefer over Go, and why?", "You prefer Rust over Go because of its type"
         " system.", False),
        ("I'm happiest when tests run in under a minute", "When am I happiest with tests?",
         "You are happiest when tests run in under a minute.", False),
        (BILLING, "Which database did I pick for the billing service?",
         "You picked Postgres for the billing service because you know it well.", False),
        ("Eu prefiro café sem açúcar", "Como prefiro o café?", "Você prefere café sem açúcar.",
         False),
        ("Ich trinke am liebsten Tee aus Assam", "Welchen Tee trinke ich am liebsten?",
         "Du trinkst am liebsten Tee aus Assam.", False),
        ("I want you to answer in short sentences", "How do I want you to answer?",
         "You want me to answer in short sentences.", False),
        ("Please answer in short sentences", "How should you answer in short?",
         "I should answer in short sentences.", False),
        ("I really don't deploy on Fridays", "When don't I deploy?",
         "You do not deploy on Fridays.",
         False),
        ("I prefer Rust over Go", "What do you prefer over Go?", "I prefer Rust over Go.", True),
    ],
)  # fmt: skip
def test_the_persons_own_words_pass_with_the_person_changed(quote, question, answer, mine):
    assert judged(quote, question, answer, mine=mine) == ""


@pytest.mark.parametrize(
    ("quote", "question", "answer", "why"),
    [
        (RUST, "What do I prefer?", "You prefer Go over Rust because of its type system.",
         NOT_COVERED),
        ("I prefer Rust over Go", "What do I prefer?", "You prefer Rust over Java.", NOT_COVERED),
        ("I prefer tea with milk", "What do I prefer with tea?",
         "You prefer tea with milk and biscuits.", NOT_COVERED),
        ("My sister hates coffee in bed", "What do I hate in bed?", "You hate coffee in bed.",
         NOT_COVERED),
        ("I know Anna hates coffee a lot", "What do I hate?", "You hate coffee a lot.",
         NOT_COVERED),
        ("Anna thinks I hate coffee a lot", "What do I hate?", "You hate coffee a lot.", NOT_MEANT),
        ("I guess I hate coffee a lot", "What do I hate?", "You hate coffee a lot.", NOT_COVERED),
        ("Anna told me to hate coffee", "What do I hate?", "You hate coffee.", NOT_COVERED),
        ("I hate tea but love coffee", "What do I hate?", "You hate coffee.", NOT_COVERED),
        ("I do not like tea at night", "What do I like?", "You like tea at night.", NOT_COVERED),
        ("I like tea but not coffee", "What do I like?", "You like tea.", NOT_COVERED),
        ("I like tea but not coffee", "What do I like?", "You like coffee but not tea.",
         NOT_COVERED),
        ("I moved from Ghent to Bruges", "Where did I move?", "You moved to Ghent.", NOT_COVERED),
        ("I used to hate coffee in bed", "What do I hate?", "You hate coffee in bed.", NOT_COVERED),
        ("The editor of my sister is Neovim", "Which editor do I use?", "The editor is Neovim.",
         NOT_COVERED),
        ("I drink tea at noon", "Why don't I drink tea at noon?", "You drink tea at noon.",
         NOT_COVERED),
        ("If I lived in Ghent, I drink tea", "What do I drink?", "You drink tea.", NOT_MEANT),
        ("I drink tea at noon, just kidding", "What do I drink?", "You drink tea at noon.",
         NOT_MEANT),
        ("Do you think I drink tea at noon?", "What do I drink?", "You drink tea at noon.",
         NOT_MEANT),
        ("I dreamt that I drink tea at noon", "What do I drink?", "You drink tea at noon.",
         NOT_MEANT),
        ("I prefer tea at noon", "Why did I leave my wife?", "You prefer tea at noon.", BEYOND),
        ("I prefer tea at noon", "Which tea did Karl prefer?", "You prefer tea at noon.",
         NOT_COVERED),
        ("I have diabetes and prefer tea", "What do I have?", "You have diabetes and prefer tea.",
         SENSITIVE),
        ("My password: hunter2xY9z! is old", "What is my password?",
         "Your password: hunter2xY9z! is old.", SECRET),
    ],
)  # fmt: skip
def test_what_was_made_up_or_turned_round_does_not(quote, question, answer, why):
    assert judged(quote, question, answer) == why


def test_a_quote_is_found_in_any_case_over_any_space_and_widened_to_its_sentence():
    text = "Well. If it rains\n I take   the tram, and I don’t mind. Else not."
    one, proof = evidence.find("i take the tram, and I don't mind", [Said(7, text)])
    assert (one.id, proof.message_id) == (7, 7)
    assert proof.quote == text[proof.start : proof.end]
    assert "If it rains" in evidence.find("If it rains I take", [Said(1, text)])[1].quote


@pytest.mark.parametrize("quote", ["", "tea", "I take", "take the bus today", "x " * 400, "((((["])
def test_a_quote_that_is_none_is_not_found(quote):
    assert evidence.find(quote, [Said(1, "Today I take the tram.")]) is None
    assert judged(quote, "What do I take?", "You take the tram.", "I take the tram.") == NOT_FOUND


def test_words_of_somebody_else_are_no_evidence():
    text = "I drink tea at noon every day."
    assert judged(text, "What do I drink?", "You drink tea at noon every day.") == ""
    told = judged(
        text, "What do I drink?", "You drink tea at noon every day.", foreign=((0, 20, "pasted"),)
    )
    assert told == NOT_MEANT
