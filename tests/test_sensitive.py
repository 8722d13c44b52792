"""What is sensitive: by words, in four languages, and what only sounds like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.sensitive import KINDS, sensitive

SENSITIVE = {
    "health": [
        "I'm allergic to peanuts",
        "My knee operation is on 18 February",
        "I have a headache",
        "She was diagnosed with ADHD",
        "I take sertraline for my anxiety",
        "Sou alérgica à penicilina",
        "Estou de baixa médica",
        "Tenho enxaquecas",
        "Soy celíaca",
        "Me rompí el brazo esquiando",
        "Mi madre está enferma",
        "Ich bin schwanger",
        "Ich war beim Arzt",
        "Mein Vater hatte einen Schlaganfall",
    ],
    "sexuality": [
        "I'm gay",
        "I came out as bisexual",
        "Sou lésbica",
        "Soy bisexual",
        "Er ist schwul",
    ],
    "politics": [
        "I voted for the Greens",
        "My dad is a socialist",
        "Sou de esquerda",
        "Voté por la oposición",
        "Ich bin in der SPD",
    ],
    "religion": [
        "I go to church on Sundays",
        "I'm an atheist",
        "Sou católica",
        "Soy ateo",
        "Wir sind evangelisch",
        "Ich bin Muslimin",
    ],
    "ethnicity": ["I'm Black", "Sou negra", "Soy gitana", "Meine Hautfarbe"],
    "union": [
        "I joined the union last year",
        "Sou do sindicato",
        "Estamos en huelga",
        "Ich bin in der Gewerkschaft",
    ],
    "biometrics": [
        "my fingerprints are on file",
        "uso a impressão digital",
        "mi huella dactilar",
        "mein Fingerabdruck",
    ],
    "crime": [
        "I was arrested in 2012",
        "Tenho antecedentes criminais",
        "Fue condenado por robo, condenado a dos años",
        "Er ist vorbestraft",
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, ts in SENSITIVE.items() for t in ts])
def test_what_is_sensitive_is_known_in_four_languages(kind: str, text: str) -> None:
    assert kind in sensitive(text)
    assert kind in sensitive(text.upper().replace("ẞ", "SS"))


@pytest.mark.parametrize(
    "text",
    [
        "this bug is such a headache",
        "what a headache of a bug",
        "I'm allergic to meetings",
        "I pinned a political map of Europe",
        "a race condition in the queue",
        "the European Union flag",
        "SELECT a UNION ALL SELECT b",
        "Arrested Development is my favourite show",
        "I follow the style guide religiously",
        "the Church-Turing thesis",
        "a conservative estimate",
        "the browser fingerprint changes",
        "the key fingerprint of the server",
        "I disabled the flag and diagnosed the crash",
        "the Great Depression",
        "my probation period at work ends in May",
        "Black Friday deals",
        "that aids my workflow",
        "I like hiking, jazz and coffee",
        "Trabalho na Maresia como engenheira",
        "Fiquei preso no trânsito",
        "O meu casaco preto",
        "Me gusta el vino blanco",
        "Ich trinke gern Kaffee",
        "Wir haben die Diagnostik im Backend abgeschaltet",
        "vote for the logo you like",
        "a paintbrush stroke of luck",
        "",
    ],
)
def test_what_only_sounds_like_it_is_not(text: str) -> None:
    assert sensitive(text) == ()


def test_a_mask_hides_its_own_words_and_not_the_rest() -> None:
    assert sensitive("This bug is such a headache, and I have asthma") == ("health",)


def test_kinds_come_in_their_order_and_once() -> None:
    assert sensitive("I'm gay, I'm gay, and I have asthma and went to church") == (
        "health",
        "sexuality",
        "religion",
    )


def test_accents_do_not_matter() -> None:
    assert sensitive("sou alergica") == sensitive("sou alérgica") == ("health",)


@given(st.text(max_size=300))
def test_any_text_gives_known_kinds(text: str) -> None:
    found = sensitive(text)
    assert list(found) == [kind for kind in KINDS if kind in found]


def test_a_long_hostile_text_is_read_to_its_end() -> None:
    assert sensitive("a headache of a my fingerprint " * 20_000) == ("biometrics",)
