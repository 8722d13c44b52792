"""What a person's own sentences say of them, and when they say too little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme import psyche
from knowme.psyche import Said


def kinds(text: str) -> set[tuple[str, str, int]]:
    return {(mark.kind, mark.key, mark.sign) for mark in psyche.read(text)}


def found(*texts: str, place=str) -> list[psyche.Finding]:
    said = [Said(n, place(n), text) for n, text in enumerate(texts, 1)]
    return psyche.findings([(one, psyche.read(one.text)) for one in said])


def lines(*texts: str, place=str) -> list[str]:
    return [one.text for one in found(*texts, place=place)]


@pytest.mark.parametrize(
    ("text", "trait", "sign"),
    [
        ("I'm an introvert.", "extraversion", -1),
        ("I'm not very organised.", "conscientiousness", -1),
        ("honestly I’m a bit of a perfectionist", "conscientiousness", 1),
        ("Sou muito tímida.", "extraversion", -1),
        ("Soy muy despistada.", "conscientiousness", -1),
        ("Ich bin sehr ordentlich.", "conscientiousness", 1),
        ("I am always late.", "conscientiousness", -1),
        ("I'm an anxious person", "neuroticism", 1),
    ],
)
def test_what_one_calls_oneself_bears_on_a_trait(text, trait, sign) -> None:
    assert ("self", trait, sign) in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm anxious about the exam tomorrow.",
        "I'm nervous.",
        "Am I an introvert?",
        "If I were an introvert, I would stay.",
        "She is an introvert.",
        "When I'm shy people notice.",
        '"I\'m an introvert," she wrote.',
        "I was always late.",
        "Write a story: I'm an introvert.",
        "I'm always still thinking about Max.",
        "Pretend I'm very organised.",
    ],
)
def test_a_mood_a_question_a_supposition_or_somebody_elses_word_does_not(text) -> None:
    assert not [mark for mark in psyche.read(text) if mark.kind in ("self", "trait")]


def test_a_foreign_span_says_nothing_of_its_reader() -> None:
    text = "> I'm an introvert.\nok"
    assert psyche.read(text)[:1] == [] or psyche.read(text, [(0, 19, "a block quote")]) == []
    assert psyche.read("I'm an introvert.", [(0, 17, "a paste")]) == []


def test_a_mark_is_the_sentence_that_says_it() -> None:
    text = "Hello there. I make lists for everything. Bye."
    (mark,) = psyche.read(text)
    assert text[mark.start : mark.end] == "I make lists for everything."


REMARKS = ("I make lists for everything.", "I always double-check my work.", "I plan everything.")


def test_a_trait_is_told_with_how_sure_it_is_and_what_it_rests_on() -> None:
    (one,) = found(*REMARKS)
    assert one.section == "personality" and one.about == ("trait", "conscientiousness")
    assert "conscientiousness above average" in one.text
    assert "±" in one.text and "fairly sure" in one.text and "3 remarks" in one.text
    assert any(quote.rstrip(".") in one.text for quote in REMARKS)
    assert {e.quote for e in one.evidence} == set(REMARKS)
    assert 0.8 <= one.confidence < 0.97 and one.kinds == (psyche.MIND,)


def test_too_little_and_too_mixed_say_nothing() -> None:
    assert lines(*REMARKS[:2]) == []
    assert lines(*REMARKS, place=lambda n: "one day") == []
    assert lines(REMARKS[0], REMARKS[0], REMARKS[0], place=lambda n: "one day") == []
    against = ("I always procrastinate.", "I'm always late.", "I never finish anything.")
    assert not [one for one in found(*REMARKS, *against) if one.about[0] == "trait"]


def test_one_word_for_oneself_is_quoted_and_no_trait_is_made_of_it() -> None:
    assert lines("I'm an introvert.") == ["Says: “I'm an introvert”"]
    assert lines("I'm an introvert.", "I'm very outgoing.") == []


def test_the_posterior_is_the_conjugate_one() -> None:
    assert psyche.posterior([], []) == (0.0, 1.0)
    mean, sd = psyche.posterior([1, 1], [1, 1])
    precision = 1 + 2 / psyche.NOISE_SD**2
    assert mean == pytest.approx(2 / psyche.NOISE_SD**2 / precision)
    assert sd == pytest.approx(precision**-0.5)


def test_what_is_said_again_makes_surer_but_less_each_time() -> None:
    def sd(times: int) -> float:
        marks = [(Said(n, str(n), t), psyche.read(t)) for n, t in enumerate(REMARKS * times)]
        (one,) = psyche.findings(marks)
        return float(one.text.split("± ")[1].split(" ")[0])

    assert 1 > sd(1) > sd(2) >= sd(3)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("I value accuracy over maintainability.", [("accuracy", "maintainability")]),
        ("accuracy > maintainability > speed > UX",
         [("accuracy", "maintainability"), ("maintainability", "speed"), ("speed", "UX")]),
        ("For me, family is more important than work.", [("family", "career")]),
        ("I care more about correctness than speed.", [("accuracy", "speed")]),
        ("prefiro qualidade a rapidez", [("quality", "speed")]),
        ("Para mí la familia es más importante que el trabajo", [("family", "career")]),
        ("Lieber Qualität als Geschwindigkeit.", [("quality", "speed")]),
        ("My boss puts speed over quality.", []),
        ("I don't put speed over quality.", []),
        ("I prefer tea over coffee.", []),
        ("Should I value speed over quality?", []),
        ("The team chose simplicity over features.", []),
    ],
)  # fmt: skip
def test_a_comparison_of_ones_own_orders_values(text, order) -> None:
    keys = {f"{more}>{less}" for more, less in order}
    assert {key for kind, key, _ in kinds(text) if kind == "order"} == keys


def test_values_are_told_in_order() -> None:
    (one,) = found("accuracy > maintainability > speed > UX", "I value accuracy over UX.")
    assert "accuracy > maintainability > speed > UX" in one.text
    assert one.outright and one.section == "values"


def test_contradicting_comparisons_leave_values_equal() -> None:
    (one,) = found("I value quality over speed.", "I value speed over quality.")
    assert "quality = speed" in one.text and "a guess" in one.text


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")).filter(lambda p: p[0] != p[1]),
        st.integers(1, 5), min_size=1,
    )
)  # fmt: skip
def test_strengths_are_finite_and_a_lone_winner_leads(wins) -> None:
    strength = psyche.bradley_terry(wins)
    assert all(0 < value < 1e6 for value in strength.values())
    if len(wins) == 1:
        ((more, less),) = wins
        assert strength[more] > strength[less]


def test_what_matters_is_told_in_the_persons_words() -> None:
    assert lines("Honesty is very important to me.") == ["Matters to them: honesty"]
    assert lines("Helping those in need is important to me too.") == [
        "Matters to them: helping those in need"
    ]
    for empty in (
        "Your support means a lot to me.",
        "It means a lot to me.",
        "That matters to me.",
    ):
        assert lines(empty) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("If stressed, I default to precision.", "When stressed, defaults to precision"),
        ("when I'm stressed, I default to precision", "When stressed, defaults to precision"),
        ("When I'm stressed I make lists.", "When stressed, makes lists"),
        ("I clean the whole kitchen when I'm upset.", "When upset, cleans the whole kitchen"),
        ("Whenever I'm stuck, I always go for a walk.", "When stuck, always goes for a walk"),
        ("when I'm nervous, I check my notes and my bag twice",
         "When nervous, checks their notes and their bag twice"),
        ("quando estou stressada, arrumo a cozinha", "“quando estou stressada, arrumo a cozinha”"),
        ("Wenn ich gestresst bin, räume ich auf.", "“Wenn ich gestresst bin, räume ich auf”"),
    ],
)  # fmt: skip
def test_a_habit_is_retold(text, line) -> None:
    assert lines(text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "If I remember correctly, I paid on Friday.",
        "When I get home, I call you.",
        "When I was stressed, I went for a walk.",
        "If I'm stressed tomorrow, I leave.",
        "When I'm done, I want the keys.",
        "When I'm done I make lists.",
        "If you are stressed, I can help.",
        "When the installer comes, I pay him.",
        "When I'm stressed, I do it.",
    ],
)
def test_a_plan_or_what_happened_once_is_no_habit(text) -> None:
    assert not [mark for mark in psyche.read(text) if mark.kind == "ifthen"]


def test_triggers_and_what_calms() -> None:
    assert lines("Loud offices stress me out.") == ["Trigger: “Loud offices stress me out”"]
    assert lines("I get anxious when people interrupt me.")[0].startswith("Trigger: ")
    assert lines("Running helps me calm down.") == ["Calms down: “Running helps me calm down”"]
    assert lines("Blue calms me, so I painted the wall.") == ["Calms down: “Blue calms me”"]
    for once in (
        "The meeting today stressed me out.",
        "This stresses me out.",
        "It helps me relax.",
    ):
        assert lines(once) == []


def test_attachment_needs_several_remarks() -> None:
    said = (
        "I don't like to depend on others.",
        "I find it hard to open up.",
        "I tend to push people away.",
        "I struggle to trust people.",
    )
    assert not [one for one in found(*said[:1]) if one.about == ("attachment",)]
    (one,) = [one for one in found(*said) if one.about == ("attachment",)]
    assert "leans avoidant" in one.text and "±" in one.text and "sure" in one.text
    assert one.kinds == (psyche.MIND,)


SENTENCES = st.lists(
    st.sampled_from(
        [*REMARKS, "I'm an introvert.", "accuracy > speed > UX", "I value speed over quality.",
         "When I'm stressed, I bake.", "Running helps me relax.", "Honesty is important to me.",
         "I need a lot of reassurance.", "I tend to overthink.", "What time is it?"]
    ),
    max_size=14,
)  # fmt: skip


@given(SENTENCES, st.randoms(use_true_random=False))
def test_findings_do_not_mind_the_order(texts, random) -> None:
    said = [Said(n, f"day {n % 4}", text) for n, text in enumerate(texts, 1)]
    marked = [(one, psyche.read(one.text)) for one in said]
    shuffled = list(marked)
    random.shuffle(shuffled)
    assert psyche.findings(shuffled) == psyche.findings(marked)


@given(SENTENCES)
def test_every_finding_rests_on_words_of_its_messages(texts) -> None:
    said = {n: Said(n, str(n), text) for n, text in enumerate(texts, 1)}
    for one in psyche.findings([(s, psyche.read(s.text)) for s in said.values()]):
        assert one.evidence and 0.5 <= one.confidence <= 1
        for each in one.evidence:
            assert said[each.message_id].text[each.start : each.end] == each.quote


@given(st.text(max_size=200))
def test_any_text_can_be_read(text) -> None:
    for mark in psyche.read(text):
        assert 0 <= mark.start < mark.end <= len(text)
