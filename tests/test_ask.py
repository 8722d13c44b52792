import asyncio

import pytest

from knowme.ask import Asked, Delta, Done, Started, ask, why
from knowme.db import rows, value
from knowme.errors import InputError, NotFoundError
from knowme.quotes import supported
from knowme.sync import pending, store
from knowme.types import Query, Record


@pytest.fixture
def lived(home):
    """A home that knows a little about heating and a dog."""
    said = [
        ("user", "It is cold. I decided to order a heat pump for 8,400 euros.", 1_772_000_000_000),
        ("assistant", "Good, the heat pump is ordered then. Anything else?", 1_772_000_010_000),
        ("user", "My dog Pixel ate the invoice for the pump.", 1_772_100_000_000),
    ]  # fmt: skip
    records = [
        (Record("message", "c", str(n), role, text=text, at_ms=at, seq=n), None)
        for n, (role, text, at) in enumerate(said)
    ]
    store(home, "openclaw", records)
    return home


def run(home, asked: Asked, stop_after: int | None = None):
    async def collect():
        events = []
        stream = ask(home, asked)
        async for event in stream:
            events.append(event)
            if stop_after is not None and len(events) == stop_after:
                await stream.aclose()
        return events

    return asyncio.run(collect())


def test_an_answer_starts_streams_and_ends_with_its_receipt(lived) -> None:
    events = run(lived, Asked("What did I decide about the heat pump?"))
    assert isinstance(events[0], Started) and events[0].known
    assert isinstance(events[-1], Done)
    deltas = "".join(event.text for event in events if isinstance(event, Delta))
    assert events[-1].answer == deltas


def test_without_a_large_model_the_answer_leads_with_the_quoted_words_and_their_date(lived) -> None:
    answer = run(lived, Asked("What did I decide about the heat pump?"))[-1].answer
    first = answer.splitlines()[0]
    assert "2026-02-2" in first
    assert "I decided to order a heat pump for 8,400 euros." in answer


def test_what_is_not_known_about_the_person_is_not_made_up(lived) -> None:
    events = run(lived, Asked("What is my favourite opera by Verdi?"))
    assert not events[0].known
    assert "don't know that about you" in events[-1].answer
    with lived.db.read() as conn:
        assert value(conn, "SELECT state FROM answers") == "done"


def test_the_receipt_tells_what_went_in_and_why(lived) -> None:
    done = run(lived, Asked("What did I decide about the heat pump?"))[-1]
    receipt = why(lived)
    assert receipt["receipt_id"] == done.receipt_id
    assert receipt["question"] == "What did I decide about the heat pump?"
    assert any("8,400" in used["text"] for used in receipt["used"])
    assert receipt["tokens"]["recalled"] > 0
    assert receipt == why(lived, str(done.receipt_id))


def test_a_receipt_that_does_not_exist_is_named(lived) -> None:
    with pytest.raises(NotFoundError):
        why(lived)
    with pytest.raises(NotFoundError, match="77"):
        why(lived, "77")
    with pytest.raises(InputError, match="'soon'"):
        why(lived, "soon")


def test_an_asker_who_leaves_in_the_middle_leaves_a_cut_turn(lived) -> None:
    run(lived, Asked("What did I decide about the heat pump?"), stop_after=2)
    with lived.db.read() as conn:
        assert value(conn, "SELECT state FROM answers") == "cut"
        assert value(conn, "SELECT count(*) FROM messages m JOIN answers a ON m.id IN"
                           " (a.question_id, a.answer_id)") == 2  # fmt: skip


def test_questions_and_answers_are_kept_and_never_recalled(lived) -> None:
    run(lived, Asked("What did I decide about the heat pump?"))
    hits = lived.search(Query("What did I decide about the heat pump?"))
    assert {hit.source for hit in hits} == {"openclaw"}


def test_what_is_told_in_a_chat_is_recalled_later(lived) -> None:
    run(lived, Asked("I moved to Porto last week.", conversation="chat-1", surface="chat"))
    assert "Porto" in lived.search(Query("Where did I move?"))[0].text


def test_what_is_told_in_a_chat_has_its_vector_at_once(lived) -> None:
    run(lived, Asked("I moved to Porto last week.", conversation="chat-1", surface="chat"))
    assert pending(lived) == 0
    answer = run(lived, Asked("Where did I move?", conversation="chat-1", surface="chat"))[-1]
    assert "I moved to Porto last week." in answer.answer


def test_a_chat_keeps_its_turns(lived) -> None:
    for text in ("My bike is red.", "And my car is blue."):
        run(lived, Asked(text, conversation="chat-2", surface="chat"))
    with lived.db.read() as conn:
        roles = rows(
            conn,
            "SELECT m.role FROM messages m JOIN conversations c ON c.id = m.conversation_id"
            " WHERE c.external_id = 'chat-2' ORDER BY m.seq",
        )
    assert [role for (role,) in roles] == ["user", "assistant"] * 2


def test_an_empty_question_is_refused(home) -> None:
    with pytest.raises(InputError, match="empty"):
        run(home, Asked("  "))


GROUND = "On 3 March I decided to buy the heat pump from Borges for 8,400 euros."


@pytest.mark.parametrize(
    ("sentence", "is_supported"),
    [
        ("You decided to buy the heat pump.", True),
        ("You decided to buy the heat pump from Borges for 8,400 euros.", True),
        ("You decided to buy it for 9,000 euros.", False),
        ("You decided to buy the heat pump from Siemens.", False),
        ("The weather forecast promises sunshine tomorrow morning.", False),
        ("Borges decided to buy 8,400 heat euros from the pump.", False),
    ],
)
def test_a_small_models_sentence_stands_only_on_the_notes(
    sentence: str, is_supported: bool
) -> None:
    assert supported(sentence, ["The cat is ginger.", GROUND]) is is_supported
