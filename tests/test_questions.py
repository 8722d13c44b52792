"""What kind of utterance a text is, by words alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme import questions
from knowme.questions import (
    about_the_person,
    asks,
    follows_on,
    is_code,
    is_greeting,
    is_question,
    is_small_talk,
    speaks_of_memory,
    speaks_of_routine,
    tells_preference,
)

GREETINGS = {
    "en": ["Hi", "Hello there!", "Good morning, Ana!", "hey knowme", "Hi! How are you?"],
    "pt": ["Olá", "Olá, tudo bem?", "Bom dia!", "oi", "Boa noite, meu amigo", "ola"],
    "es": ["Hola", "¡Buenos días!", "Buenas tardes", "Hola, ¿qué tal?", "buenos dias"],
    "de": ["Hallo", "Guten Morgen, Anna!", "Moin", "Grüß dich", "Servus!", "Guten Tag"],
    "fr": ["Bonjour", "Salut, ça va ?", "Bonsoir", "coucou", "Bonjour à tous"],
    "it": ["Ciao", "Buongiorno!", "Ciao, come stai?", "Buona sera", "salve"],
    "nl": ["Hoi", "Goedemorgen!", "Hallo, hoe gaat het?", "Dag!", "goedenavond"],
    "others": ["Hej", "Привет!", "こんにちは", "안녕하세요", "مرحبا", "Cześć", "שלום"],
}


@pytest.mark.parametrize("text", [text for each in GREETINGS.values() for text in each])
def test_a_greeting_is_known_in_several_languages_with_accents_or_without(text) -> None:
    assert is_greeting(text)
    assert is_small_talk(text)
    assert not is_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "Hello, can you explain monads?",
        "Hi, what is 2+2",
        "hello world program in C",
        "History of Rome",
        "Oil prices",
        "Good grief, explain inflation",
        "",
        "   ",
        "?",
        "highlight the verbs",
    ],
)
def test_what_only_begins_like_a_greeting_is_none(text) -> None:
    assert not is_greeting(text)


@pytest.mark.parametrize(
    "text",
    ["Thanks!", "obrigada", "ok", "vielen dank", "Merci beaucoup", "how are you?", "see ya!"],
)
def test_small_talk_wants_no_thought(text) -> None:
    assert is_small_talk(text)


@pytest.mark.parametrize("text", ["Thanks, and what is the capital of Peru?", "No idea", "Okinawa"])
def test_small_talk_that_goes_on_is_none(text) -> None:
    assert not is_small_talk(text)


@pytest.mark.parametrize(
    "text",
    [
        "I prefer tea to coffee", "Call me Sam", "my favourite colour is green", "I don't eat meat",
        "I'm allergic to nuts", "Prefiro chá", "Me gusta el vino tinto", "Ich mag keinen Kaffee",
        "Je préfère le thé", "J'aime le vin", "Mi piace il mare", "Ik hou van kaas",
        "Mein Lieblingsbuch ist Momo", "o meu prato preferido é bacalhau", "Nenn mich Sam",
    ],
)  # fmt: skip
def test_a_preference_is_known(text) -> None:
    assert tells_preference(text)


@pytest.mark.parametrize("text", ["What would you like?", "Explain likelihood", "glove sizes"])
def test_a_word_that_holds_a_preference_is_none(text) -> None:
    assert not tells_preference(text)


@pytest.mark.parametrize(
    "text",
    [
        "Remind me to call the dentist", "I run every morning", "put milk on my shopping list",
        "wake me at six", "Lembra-me de ligar à mãe", "Recuérdame comprar pan",
        "Erinnere mich an den Termin", "Rappelle-moi d'acheter du pain", "Ricordami la riunione",
        "Herinner me aan de tandarts", "Wat staat er in mijn agenda?", "ich laufe jeden Morgen",
    ],
)  # fmt: skip
def test_a_routine_is_known(text) -> None:
    assert speaks_of_routine(text)


def test_every_day_is_nobodys_routine_without_a_person() -> None:
    assert not speaks_of_routine("How many people are born every day?")


@pytest.mark.parametrize(
    "text",
    [
        "What did we decide about the heating?", "Did I pay the plumber?", "do you remember Anna?",
        "As I mentioned, the pump is loud", "Lembras-te do Pedro?", "¿Te acuerdas de mi perro?",
        "Weißt du noch, was ich sagte?", "Tu te souviens de Marie ?", "Ti ricordi di Luca?",
        "Weet je nog wat ik zei?", "what was our last conversation about",
    ],
)  # fmt: skip
def test_a_question_to_memory_is_known(text) -> None:
    assert speaks_of_memory(text)


@pytest.mark.parametrize("text", ["Explain entropy", "Why is the sky blue?", "candid Iago"])
def test_a_question_to_the_world_is_not_one_to_memory(text) -> None:
    assert not speaks_of_memory(text)


def test_a_message_that_leans_on_the_last_one_is_known() -> None:
    assert follows_on("and why?") and follows_on("Shorter, please") and follows_on("Explain that")
    assert not follows_on("Name the capital of Peru")
    assert not follows_on("and " + "so on " * 30)


CODE = [
    "```\nx\n```",
    'Traceback (most recent call last):\n  File "a", line 3\nKeyError: 1',
    "Exception in thread main\n\tat com.acme.Main.run(Main.java:12)",
    "def f(x): return x",
    "const x = 5",
    "for (const [a, b] of m) { console.log(a) }",
    "#include <stdio.h>",
    "SELECT name FROM users WHERE id = 3",
    "x => { return 1 }",
    "why does main.py crash",
    "what is in src/app/index.tsx",
    "git push is rejected",
    "pip install numpy fails",
    "sudo apt-get install gcc",
    "docker compose up hangs",
    "Write a Python function that reverses a list",
    "escreve uma função em python",
    "refactor this please",
    "explain this stack trace",
    "@Override\npublic void run() {}",
    'from os import path\nprint(path)',
    "std::vector<int> v;",
    '{"name": "x", "age": 3}',
    "<div>hi</div>",
    "$ ls",
]  # fmt: skip
PROSE = [
    "let me know",
    "Let me know if the class at nine is cancelled, for sure.",
    "Let us import goods from China while we can; return what is broken.",
    "What should I return to the shop?",
    "Please select one from the list where you live",
    "try to catch the bus, else walk",
    "if you break it, continue without it",
    "the dress code, the zip code and the code of conduct",
    "public transport and private class",
    "my address is anna.py@example.org",
    "look at https://example.org/a/main.py",
    "The function f(x)=x^2 is even",
    "Let x = 5. What is 2x?",
    "e.g. this, i.e. that, 50 m.p.h.",
    "ask @anna about lunch",
    "import duties on steel",
    "Find 5.7(8) and |G||H|",
    "He would do this or that; she would not.",
    "# Heading\n\n- one\n- two",
    "outlet, decode, letter, variety, constant, definition",
]


@pytest.mark.parametrize("text", CODE)
def test_code_is_known_by_its_signs(text) -> None:
    assert is_code(text)


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_not_code_whatever_words_it_uses(text) -> None:
    assert not is_code(text)


def test_asking_and_telling_are_told_apart() -> None:
    assert asks("Tell me about Rome") and asks("what now") and asks("You know?")
    assert not asks("The pump is loud.")
    assert is_question("Is it? Was it?") and not is_question("It is. Was it?")
    assert about_the_person("what is my dog called") and not about_the_person("tell me about dogs")


@given(st.text(max_size=300))
def test_every_text_is_of_some_kind_and_none_fails(text) -> None:
    for kind in (
        is_code, is_greeting, is_small_talk, tells_preference, speaks_of_routine, speaks_of_memory,
        follows_on, asks, is_question, about_the_person,
    ):  # fmt: skip
        assert kind(text) in (True, False)


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    far = "word " * questions.READS
    assert is_code("def f(x): pass\n" + far) and not is_code(far + "def f(x): pass")


def test_a_plain_command_tells_nothing_but_what_speaks_of_the_person_or_says_more_does() -> None:
    asks = ("Explain how the Alexander polynomial is computed.", "Erkläre die Kreiszahl.")
    tells = ("Explain to Borges that I will be late.", "List: milk, eggs.", "The pump comes.",
             "Explain knots. The pump comes in May.", "Remind me of the pump.")  # fmt: skip
    assert all(map(questions.is_question, asks)) and not any(map(questions.is_question, tells))
