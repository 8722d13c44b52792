"""The fact exam: its questions, how answers are scored, and that recall is what tells."""

import pytest
from adapters import random_adapter

from knowme import extract
from knowme.learn import ability, exam, pairs, runs
from knowme.learn.exam import Question
from knowme.learn.served import Served
from knowme.sync import store
from knowme.types import ChatMessage, Record

SAID = (
    "I live in Porto.",
    "My sister is Marta.",
    "I don't eat coriander.",
    "I work at Maresia.",
    "I was diagnosed with asthma.",
)


@pytest.fixture
def told(home):
    records = [
        (Record("message", "talk", f"m{at}", "user", text=text, seq=at, at_ms=1_770_000_000_000),
         None)
        for at, text in enumerate(SAID)
    ]  # fmt: skip
    store(home, "openclaw", records)
    extract.catch_up(home)
    return home


def trained(home, *prompts):
    run = runs.create(home.path, "assistant-for-me")
    made = [
        pairs.made("assistant-for-me", "fact",
                   [ChatMessage("user", each), ChatMessage("assistant", "Yes.")], [1], "a/b")
        for each in prompts
    ]  # fmt: skip
    pairs.write(run.path / "data" / "train.jsonl", map(pairs.row, made))
    return run


def test_each_attribute_is_asked_for_once_and_rests_on_its_messages(told):
    found = {min(each.expected[0]): each for each in exam.questions(told) if each.expected}
    assert {"porto", "marta", "coriander", "maresia"} <= set(found)
    home_town = found["porto"]
    assert home_town.text == "Remind me: where do I live?"
    assert "what is the name of my sister?" in found["marta"].text
    assert len(home_town.because) == 1
    assert not any(value in each.text.lower() for value, each in found.items())


def test_what_is_sensitive_is_not_asked(told):
    assert not any("asthma" in min(each.expected[0]) for each in exam.questions(told))


def test_no_question_is_worded_as_a_training_prompt(told):
    first = exam.questions(told)
    run = trained(told, *(each.text.upper() for each in first))
    second = exam.questions(told, run)
    assert {each.uid for each in second} == {each.uid for each in first}
    assert not {each.text for each in second} & {each.text for each in first}


def test_an_attribute_whose_every_wording_was_trained_is_not_asked(told):
    said = [wording.format(asked="where do I live?") for wording in exam._WORDINGS]
    asked = exam.questions(told, trained(told, *said))
    assert asked and not any("do I live" in each.text for each in asked)


def test_an_exam_has_no_more_than_the_most(told):
    assert len(exam.questions(told, most=2)) == 2


def test_an_answer_is_scored_by_the_values_own_words():
    question = Question("u", "Where?", (frozenset({"lisbon", "alfama"}), frozenset({"porto"})), ())
    assert question.score("In Alfama, Lisbon.") == 1.0
    assert question.score("Somewhere in Lisbon") == 0.5
    assert question.score("PORTO!") == 1.0
    assert question.score("I cannot say.") == 0.0


def test_the_prompt_with_recall_holds_the_fenced_words_and_names_their_messages(told):
    (question,) = (each for each in exam.questions(told) if "porto" in each.expected[0])
    prompt = exam.recalled(told, question.text, small=True, window=2048)
    last = prompt.messages[-1]
    assert last.role == "user" and question.text in last.content
    assert "<recalled>" in last.content and "Porto" in last.content
    assert set(question.because) <= set(prompt.shown)


@pytest.mark.model
def test_recall_tells_what_the_weights_do_not_know(told, models, tmp_path):
    pytest.importorskip("gguf")
    zero = random_adapter(tmp_path / "zero.gguf", 0.0)
    asked = exam.questions(told)
    with Served(models["chat"], [zero], threads=1) as served:
        alone = exam.ask(served, asked, (1.0,))
        recalled = exam.ask(served, asked, (1.0,), told)
        assert sum(each.score for each in recalled) > sum(each.score for each in alone)
        assert all(not each.shown for each in alone)
        assert sum(each.nats for each in recalled) < sum(each.nats for each in alone)
        assert recalled == exam.ask(served, asked, (1.0,), told)


def test_the_fixed_set_is_whole():
    items = ability.items()
    assert len(items) >= 40 and len({each.uid for each in items}) == len(items)
    assert {each.language for each in items} == {"en", "pt", "es", "de"}
    for each in items:
        # The beginning is given as it stands: no blank at its end, one where the rest begins.
        assert each.lead and each.lead == each.lead.strip() and each.right and each.expected
        assert any(word.lower() in each.right.lower() for word in each.expected)
        assert not any(word.lower() in each.lead.lower().split() for word in each.expected) or (
            each.kind == "instruction"
        )


@pytest.mark.model
def test_a_model_that_is_damaged_loses_ability(models, tmp_path):
    pytest.importorskip("gguf")
    loud = random_adapter(tmp_path / "loud.gguf", 6.0)
    some = ability.items()[:16]
    with Served(models["chat"], [loud], threads=1, context_tokens=512) as served:
        sound, damaged = (ability.ask(served, (each,), some) for each in (0.0, 1.0))
    assert sum(each.hit for each in sound) >= 8
    assert sum(each.nll for each in damaged) > sum(each.nll for each in sound) + 0.25 * len(some)
