"""The interview: its questions, how it is asked and resumed, what an answer says of the person."""

import json

import pytest

from knowme.attributes import ATTRIBUTES
from knowme.errors import InputError
from knowme.learn import borne, interview, runs
from knowme.learn.interview import Statement, statements

ME, VOICE = "assistant-for-me", "sound-like-me"
FEW = interview.questions()[:4]


class Model:
    """A model that says what it is told to say, and notes how it was asked."""

    def __init__(self, answer="You live in Porto.", fails_at=None):
        self.answer, self.fails_at, self.calls = answer, fails_at, []

    def __call__(self, messages, *, seed, temperature, max_tokens):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append((tuple(messages), seed, temperature))
        said = self.answer(messages[-1].content) if callable(self.answer) else self.answer
        return said


@pytest.fixture
def run(tmp_path):
    return runs.create(tmp_path, ME)


# --- the questions ------------------------------------------------------------------------------


def test_there_are_fifty_to_a_hundred_questions_by_theme_each_worded_for_both_purposes() -> None:
    found = interview.questions()
    assert 50 <= len(found) <= 100
    assert len({one.theme for one in found}) >= 8
    assert all(one.me.endswith("?") and one.you.endswith("?") for one in found)
    assert all(" your" not in f" {one.me.lower()}" or "answers to me" in one.me or "tone" in one.me
               for one in found)  # fmt: skip
    assert {one.about for one in found if one.about} <= ATTRIBUTES.keys()
    assert any(one.patterns for one in found) and not all(one.patterns for one in found)
    assert found[2].asked(ME) == "Where do I live?" and found[2].asked(VOICE) != found[2].asked(ME)


def test_a_file_of_ones_own_questions_is_read_and_a_wrong_one_is_named(tmp_path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        'themes: {tea: {patterns: true, questions: [{me: "Was?", you: "Wie?"}]}}', "utf-8"
    )
    assert interview.questions(mine)[0]._asdict() == {
        "theme": "tea", "me": "Was?", "you": "Wie?", "about": "", "patterns": True,
    }  # fmt: skip
    for number, text in enumerate(
        ("themes: [", "[]", "themes: {a: {questions: [{me: x}]}}", "themes: {}",
         'themes: {a: {questions: [{me: "x?", you: "y?", about: shoe}]}}')
    ):  # fmt: skip
        bad = tmp_path / f"bad{number}.yaml"
        bad.write_text(text, "utf-8")
        with pytest.raises(InputError, match="bad"):
            interview.questions(bad)
    with pytest.raises(InputError, match="shoe"):
        interview.questions(bad)


# --- asking -------------------------------------------------------------------------------------


def test_every_question_is_asked_several_times_the_likeliest_first_with_seeds(run) -> None:
    model = Model()
    done = interview.ask(run, model, FEW, samples=3, system_prompt="Be brief.")
    assert done == (12, 12, 0)
    first = model.calls[:3]
    assert [(seed, temperature > 0) for _, seed, temperature in first] == [
        (interview.SEED, False), (interview.SEED + 1, True), (interview.SEED + 2, True),
    ]  # fmt: skip
    assert [said.role for said in first[0][0]] == ["system", "user"]
    rows = interview.read(run)
    assert len({row["uid"] for row in rows}) == 12
    assert all(row["because"] == [] and row["answer"] == "You live in Porto." for row in rows)


def test_an_interview_that_was_interrupted_goes_on_where_it_was(run) -> None:
    with pytest.raises(KeyboardInterrupt):
        interview.ask(run, Model(fails_at=5), FEW, samples=3)
    assert len(interview.read(run)) == 5
    path = run.path / interview.FILE
    with path.open("a") as file:
        file.write('{"uid": "half wri')
    rest = Model()
    assert interview.ask(run, rest, FEW, samples=3) == (12, 7, 0)
    assert len(rest.calls) == 7
    assert interview.ask(run, rest, FEW, samples=3).new == 0 and len(rest.calls) == 7
    whole = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({row["uid"] for row in whole}) == 12


def test_another_model_is_interviewed_anew_and_a_damaged_line_is_named(run) -> None:
    interview.ask(run, Model(), FEW[:1], samples=2, model_id="one")
    assert interview.missing(run, FEW[:1], 2, "one") == []
    assert interview.ask(run, Model("You sing."), FEW[:1], samples=2, model_id="two").new == 2
    assert {row["answer"] for row in interview.read(run)} == {"You sing."}
    path = run.path / interview.FILE
    path.write_text("no row\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(InputError, match="interview.jsonl:1"):
        interview.read(run)


def test_no_secret_and_no_thought_is_written_down(run) -> None:
    answers = iter(["<think>hm, sk-x</think>You live in Porto.", "<think>I never end",
                    "Your password: hunter2secret!9"])  # fmt: skip
    done = interview.ask(run, Model(lambda _: next(answers)), FEW[:1], samples=3)
    told = (run.path / interview.FILE).read_text("utf-8")
    assert done.secret == 1
    assert "hunter2" not in told and "hm," not in told and "never end" not in told
    assert [row["answer"] for row in interview.read(run)] == ["You live in Porto.", "", ""]


def test_a_stale_run_is_not_asked(run) -> None:
    (run.path / "stale.json").write_text('{"why": "rows were forgotten"}')
    with pytest.raises(InputError, match="rows were forgotten"):
        interview.ask(run, Model(), FEW)


# --- what an answer says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("You drink rooibos, never green.", ["I drink rooibos, never green."]),
        ("Your cat is called Pixel.", ["My cat is called Pixel."]),
        ("As far as I know, you live in Porto. Shall I go on?", ["I live in Porto."]),
        ("- You're a **baker**\n2. You've a sister who loves you", ["I am a baker",
         "I have a sister who loves me"]),
        ("I am an AI and have no body.", []),
        ("Do you live in Porto?", []),
        ("You can keep a diary. You should live in Porto. You'd love it.", []),
        ("The sky is blue.", []),
    ],
)  # fmt: skip
def test_what_an_assistant_says_of_you_is_put_in_the_first_person(answer, said) -> None:
    assert [one.text for one in statements(answer, ME)] == said


def test_a_voice_speaks_for_itself_and_a_bare_answer_is_the_value_of_its_question() -> None:
    assert statements("I live in Porto. And you?", VOICE) == [Statement("I live in Porto.")]
    assert statements("Porto.", VOICE, "residence") == [Statement("I live in Porto.", True)]
    assert statements("Porto.", ME, "residence") == [Statement("I live in Porto.", True)]
    assert statements("You should move to Porto.", VOICE) == []


# --- what bears a statement out -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("I drink rooibos.", "Rain. Honestly, I always drink the rooibos in the morning."),
        ("My cat is called Pixel.", "And my cat is now called Pixel."),
        ("I am a baker", "I'm a baker, by the way"),
        ("I test before I ship.", "We argued. I always test before I ship."),
        ("Ana lives in Berlin.", "Ana still lives in Berlin, near the canal."),
    ],
)
def test_the_same_words_in_a_clause_of_their_own_bear_a_statement_out(statement, text) -> None:
    start, end = borne.out(statement, text, "Ana" if statement[0] == "A" else "me")
    assert text[start:end].strip() == text[start:end]
    assert statement.split()[-1].strip(".") in text[start:end]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("I live in Porto.", "My sister says I live in Porto."),
        ("I live in Porto.", "My sister lives in Porto."),
        ("I live in Porto.", "I live in Porto Alegre."),
        ("I live in Porto.", "I used to live in Porto."),
        ("I live in Porto.", "If I live in Porto, fine."),
        ("I live in Porto.", "I live in Porto? Hardly."),
        ("I work at Sonae.", "I worked at Sonae."),
        ("I am allergic to rooibos.", "I drink rooibos, and am allergic to cats."),
        ("I hate rooibos.", "I drink rooibos."),
        ("I like tea.", "I never like tea."),
        ("I like tea.", "I like tea or coffee."),
        ("I like apple.", "I like apple pie."),
        ("I like cats.", "Ana and I like cats."),
        ("I like cats.", "Ana: I like cats."),
        ("I drink coffee.", "I drink tea instead of coffee."),
        ("I drink rooibos.", "I drink rooibos, or did."),
        ("I drink rooibos.", "I drink rooibos but not any longer."),
        ("I work at Johnson.", "I work at Johnson and Johnson."),
        ("I want tea.", "I want tea to be banned."),
        ("I eat meat.", "I eat meat in my dreams."),
        ("Allergic to slides.", "henrik is the cto (danish, allergic to slides)"),
        ("Left the studio.", "catarina started at the câmara. left the studio."),
        ("Use Postgres.", "Use Postgres."),
        ("I replaced a boiler with a pump.", "I replaced a pump with a boiler."),
    ],
)
def test_shared_words_are_not_enough(statement, text) -> None:
    assert borne.out(statement, text) is None
