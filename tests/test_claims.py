"""Claims by rules: what is read, what must never be read, and exact spans."""

import json
from datetime import date

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from knowme.attributes import ATTRIBUTES, attribute
from knowme.claims import READS, read
from knowme.claims.languages import language_of
from knowme.fiction.build import exchanges, facts
from knowme.types import ME, When

DAY = date(2026, 3, 10)


def claimed(text, said=DAY):
    return {(one.subject, one.attribute, one.value) for one in read(text, said=said)}


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("My name is Ana Sousa.", "name", "Ana Sousa"),
        ("Hi, I'm Ana, a nurse.", "name", "Ana"),
        ("I'm 38 years old.", "age", "38"),
        ("I just turned 40!", "age", "40"),
        ("I live in Austin, Texas.", "residence", "Austin, Texas"),
        ("I'm based in Lyon.", "residence", "Lyon"),
        ("I work at a small bakery.", "employer", "a small bakery"),
        ("I'm a nurse.", "occupation", "a nurse"),
        ("I'm married.", "marital status", "married"),
        ("I'm Portuguese, by the way.", "nationality", "Portuguese"),
        ("I'm allergic to peanuts.", "allergy", "peanuts"),
        ("I have a severe peanut allergy.", "condition", "a severe peanut allergy"),
        ("I love hiking, reading and old maps.", "likes", "hiking, reading and old maps"),
        ("I can't stand coriander.", "dislikes", "coriander"),
        ("I don't like crowded, noisy places.", "dislikes", "crowded, noisy places"),
        ("I prefer tea over coffee.", "prefers", "tea over coffee"),
        ("I don't eat meat.", "does not eat", "meat"),
        ("My favorite food is sushi.", "favourite food", "sushi"),
        ("I have a cat named Bartô.", "cat", "Bartô"),
        ("We have two kids.", "has family", "two kids"),
        ("I speak Spanish and German.", "speaks", "Spanish and German"),
        ("I'm learning the cello.", "is learning", "the cello"),
        ("I decided to sell the car.", "decided", "to sell the car"),
        ("I'm planning to visit Japan in June.", "plans to", "visit Japan"),
        ("I'm moving to Lisbon next month.", "moving to", "Lisbon"),
        ("I joined a choir.", "joined", "a choir"),
        ("Went to the dentist this morning.", "went to", "the dentist"),
        ("I teach yoga to beginners.", "teaches", "yoga to beginners"),
        ("I got married last summer.", "event", "got married"),
        ("I was diagnosed with asthma.", "was diagnosed with", "asthma"),
        ("I'm determined to finish the book.", "is determined to", "finish the book"),
        ("My goal is to run a marathon.", "goal", "to run a marathon"),
        ('I\'m reading "The Summer Book".', "reading", '"The Summer Book"'),
        ("I met a man who repairs clocks.", "met", "a man who repairs clocks"),
        ("call me Leo, please", "call me", "Leo"),
        ("Short answers please.", "answer length", "Short"),
        ("Always answer me in English.", "answer language", "English"),
        ("no emojis", "avoid in answers", "emojis"),
        ("Never open with a compliment.", "answers", "Never open with a compliment"),
        ("Chamo-me Ana Sousa.", "name", "Ana Sousa"),
        ("Moro no Porto.", "residence", "Porto"),
        ("Sou alérgica a avelãs.", "allergy", "avelãs"),
        ("Não gosto de coentros.", "dislikes", "coentros"),
        ("Comprei uma bicicleta ontem.", "bought", "uma bicicleta"),
        ("o Tomás é o meu irmão", "brother", "Tomás"),
        ("Me llamo Luis y vivo en Madrid.", "residence", "Madrid"),
        ("Vivo en Gijón.", "residence", "Gijón"),
        ("My bank is Osprey Trust.", "bank", "Osprey Trust"),
        ("Tenho um gato chamado Pistacho.", "cat", "Pistacho"),
        ("Ich bin gegen Haselnüsse allergisch.", "allergy", "Haselnüsse"),
        ("Me gusta mucho el café.", "likes", "el café"),
        ("Soy profesora.", "occupation", "profesora"),
        ("Mi hermana Ana vive lejos.", "sister", "Ana"),
        ("Ich heiße Jürgen.", "name", "Jürgen"),
        ("Ich wohne in Kassel.", "residence", "Kassel"),
        ("Ich mag keine Oliven.", "dislikes", "Oliven"),
        ("Ich habe gestern ein neues Fahrrad gekauft.", "bought", "ein neues Fahrrad"),
    ],
)
def test_plain_statements_are_read(text, attribute, value):
    assert (ME, attribute, value) in claimed(text)


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("Just moved to Porto", "moved to", "Porto"),
        ("called the plumber this morning", "called", "the plumber"),
        ("Been practicing dance routines lately.", "practicing", "dance routines"),
        ("Always been interested in old maps.", "is interested in", "old maps"),
        ("allergic to hazelnuts", "allergy", "hazelnuts"),
        ("vegan since 2015", "diet", "vegan"),
        (
            "going with oak for the hall. cheaper",
            "going with",
            "oak for the hall",
        ),
        ("mudei para o Porto", "moved to", "Porto"),
        ("vivo no porto com a minha irmã", "residence", "porto"),
        ("vendi o meu apartamento", "sold", "o meu apartamento"),
        ("He comprado una bici.", "bought", "una bici"),
        ("wohne jetzt in Kassel", "residence", "Kassel"),
        ("habe gestern ein Fahrrad gekauft", "bought", "ein Fahrrad"),
        ("bin nach Hamburg gezogen", "moved to", "Hamburg"),
    ],
)
def test_a_message_may_leave_its_writer_out(text, attribute, value):
    assert (ME, attribute, value) in claimed(text)


@pytest.mark.parametrize(
    "text",
    [
        "Finished product looks great.",
        "Made in Portugal.",
        "Lost in translation is a good film.",
        "Working on the weekend sucks.",
        "Learning about whales fascinates me.",
        "Afterwards came the mayor.",
        "Set the timer for 10 minutes.",
        "moving date unknown",
        "He lives in Berlin. Bought a house there last year.",
        "Ana started at the council. Left the studio after 9 years.",
        "Trinke mehr Wasser!",
        "nunca vendi a casa",
        "recebi a tua mensagem",
        "Ich trinke Tee, wenn ich krank bin.",
    ],
)
def test_a_verb_at_the_beginning_is_not_always_the_writers(text):
    assert {one for one in claimed(text) if one[0] == ME} == set()


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("Ana started at the council today.", ("Ana", "started at", "the council")),
        ("priya does the data side", ("Priya", "do", "the data side")),
        ("henrik is the cto (danish)", ("Henrik", "occupation", "the cto")),
        ("Duarte is our intern", ("Duarte", "occupation", "intern")),
        ("our CTO is Henrik", ("Henrik", "occupation", "CTO")),
        ("Ana is my sister, 31, a nurse in Bremen.", ("Ana", "occupation", "nurse in Bremen")),
        ("my boss is Ana", (ME, "boss", "Ana")),
        ("my dog is called Rex", (ME, "dog", "Rex")),
        ("Ana ist unsere Chefin.", ("Ana", "occupation", "Chefin")),
        ("A Marta mora em Braga com o Rui.", ("Marta", "residence", "Braga")),
        ("O Duarte tem 22 anos.", ("Duarte", "age", "22")),
        ("my father turned 70", (ME, "father: age", "70")),
    ],
)
def test_those_who_are_named_have_roles_and_lives(text, claim):
    assert claim in claimed(text)


@pytest.mark.parametrize(
    "text",
    [
        "Music is my therapist.",
        "My brother is Republican.",
        "John is not my brother.",
        "Maria is my teacher's sister.",
        "Tom will be the manager.",
        "Maria thinks Tom is the best candidate.",
        "If Ana is the boss, I quit.",
        "Priya, can you send the file",
    ],
)
def test_a_name_beside_a_role_is_not_always_somebody_with_it(text):
    assert claimed(text) == set()


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("decision: the blue tiles", "decision", "the blue tiles"),
        ("go-live is 16 march, says nobody else", "date of go-live", "16 march"),
        ("go-live slips from 16 to 30 march", "date of go-live", "30 march"),
        ("standup is mon wed fri 9:30", "date of standup", "mon wed fri 9:30"),
        ("the interview moved to Thursday", "date of interview", "Thursday"),
        ("the interview is tomorrow", "date of interview", "2026-03-11"),
        ("a reunião é 26 de fevereiro", "date of reunião", "26 de fevereiro"),
        ("Der Termin ist am 12. Mai.", "date of termin", "12. Mai"),
        ("no meat since 2019", "does not eat", "meat"),
        ("down to two coffees a day", "drinks", "two coffees a day"),
        ("hazelnut allergy confirmed", "allergy", "hazelnut"),
        ("the album is for my father's 70th, 28 march", "father: birthday", "28 march"),
    ],
)
def test_a_label_or_a_date_is_read_in_few_words(text, attribute, value):
    assert (ME, attribute, value) in claimed(text)


@pytest.mark.parametrize(
    "text",
    [
        "decision: pending",
        "The court's decision: guilty",
        "The meeting on Monday was long.",
        "Is the flight on 12 May?",
        "If the launch is on Friday we are late.",
        "the deadline is not Friday",
        "the interview is tomorrow",  # of which day, nobody knows: said on no day
        "no fish ever bites here",
        "he's down to two beers a day",
        "His nut allergy confirmed",
        "WW2 started on 1 September 1939.",
    ],
)
def test_few_words_that_say_nothing_of_the_writer_claim_nothing(text):
    assert read(text, said=None) == []


@pytest.mark.parametrize(
    ("older", "newer", "attribute"),
    [
        ("always answer me in English", "responde na língua em que eu escrevo", "answer language"),
        ("Only answer in German.", "Respóndeme siempre en español.", "answer language"),
        ("Antworte mir immer auf Deutsch.", "answers in French from now on", "answer language"),
        ("Short answers please", "respostas longas, por favor", "answer length"),
        ("Keep your answers brief.", "ausführliche Antworten bitte", "answer length"),
        ("metric please", "Always use imperial units.", "units"),
    ],
)
def test_a_newer_order_is_of_the_same_attribute_as_the_older(older, newer, attribute):
    assert {one for _, one, _ in claimed(older)} == {attribute}
    assert {one for _, one, _ in claimed(newer)} == {attribute}
    assert ATTRIBUTES[attribute].single


def test_rules_after_a_heading_are_read_one_by_one():
    text = "coding rules for anything you write: type hints, lines up to 100; tests first"
    assert {value for _, _, value in claimed(text)} == {
        "type hints", "lines up to 100", "tests first",
    }  # fmt: skip
    assert claimed("House rules: no smoking, no pets.") == set()
    assert claimed("short answers for this quiz") == set()


@pytest.mark.parametrize(
    "text",
    [
        "I have peas.",
        "I have 45500.",
        "I love spending time with you.",
        'I\'ve been taking regular "me-time" walks.',
        "I want to build a safe, inclusive.",
        "I'm looking for advice on this.",
        "I came across the fact that it rains.",
        "I had to share something cool with you.",
        "I'm having trouble figuring out how to bake bread.",
        "I want to dive deeper into how it works.",
        "Last week, someone read a post I made about a hard moment.",
    ],
)
def test_what_is_cut_short_or_at_hand_is_no_fact(text):
    assert claimed(text) == set()


def test_only_stays_with_what_it_limits():
    assert (ME, "uses", "only vegan soap") in claimed("I only use vegan soap.")
    assert "love theme" not in {value for _, _, value in claimed("I like the war and love theme.")}


def test_reading_is_a_habit_or_was_once():
    assert (ME, "reads", "tide tables") in claimed("I read tide tables.")
    assert (ME, "read", "a long book") in claimed("I read a long book last week.")


def test_a_named_relation_is_somebody_and_lives_somewhere():
    assert claimed("My sister Ana lives in Berlin.") == {
        (ME, "sister", "Ana"),
        ("Ana", "residence", "Berlin"),
    }
    assert claimed("My sister lives in Berlin.") == {(ME, "sister: residence", "Berlin")}
    assert claimed("My dog Max is 5 years old.") == {(ME, "dog", "Max"), ("Max", "age", "5")}
    assert claimed("My daughter Sara's birthday was fun.") == set()


def test_what_somebody_does_never_takes_the_name_of_somebody_they_have():
    (one,) = read("I mentor a shy teenager.", said=DAY)
    assert (one.attribute, one.sentence) == ("mentoring", "I am mentoring a shy teenager.")


def test_verbs_that_share_a_subject_are_two_claims():
    assert claimed("I went to the market and bought three melons.") == {
        (ME, "went to", "the market"),
        (ME, "bought", "three melons"),
    }


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("Maybe I hate mornings.", False),
        ("I live in Cascais, I think.", False),
        ("I work at Doctolib, perhaps.", False),
        ("Vivo en Madrid, creo.", False),
        ("I love tea, maybe too much.", True),
        ("I think about work a lot. I live in Rome.", True),
    ],
)
def test_a_doubt_before_or_behind_a_statement_counts_and_one_elsewhere_does_not(text, certain):
    (claim,) = read(text, said=None)
    assert claim.certain is certain


def test_a_hedge_makes_a_claim_uncertain():
    (one,) = read("I think I'm allergic to cats.", said=DAY)
    assert not one.certain
    (one,) = read("I probably prefer tea.", said=DAY)
    assert not one.certain
    (one,) = read("I'm allergic to cats.", said=DAY)
    assert one.certain and one.outright


# --- what is never read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Do I live in Porto?",
        "Moras em Lisboa?",
        "If I lived in Rome I would eat pasta every day.",
        "I would love a dog.",
        "I wish I had a garden.",
        "Imagine I'm a pirate with a wooden leg.",
        "She said I love cats.",
        'My mother always says "I live in a madhouse".',
        "You live in Porto.",
        "I bought it yesterday.",
        "I love that.",
        "I told him about them.",
        "I have a question.",
        "I had a blast.",
        "I don't know.",
        "I want you to be brief.",
        "I'm not a doctor.",
        "I never went to Paris.",
        "I didn't buy the car.",
        "Rewrite this: I went to Paris and I bought a hat.",
        "Translate to German:\nI live in Madrid.",
        "```\nI live in Madrid.\n```",
        "> I live in Madrid.",
        "I almost bought a boat.",
        "Se eu morasse em Lisboa, ia a pé.",
        "Wenn ich in Berlin wohne, fahre ich Rad.",
        "Si vivo en Madrid, ¿cuánto pago?",
        "We have each other's backs.",
        "make sure I'm using the right key",
        "look at this <div>I live in Oslo.</div> nice",
        "can you summarise this?\n\nAbout the author\nI live in Cork.",
        "resume isto:\n\nMoro em Beja e sou veterinária.",
        "Working with children makes me happy.",
        "We did alright and I stayed positive.",
        "",
        "   \n\n",
    ],
)
def test_questions_wishes_reports_and_empty_phrases_claim_nothing(text):
    assert claimed(text) == set()


def test_only_what_a_person_wrote_claims_anything():
    assert read("I live in Porto.", said=DAY, role="assistant") == []
    assert read("I live in Porto.", said=DAY, role="tool") == []
    assert read("I live in Porto.", said=DAY, role="document")


def test_the_statement_before_a_question_counts():
    assert claimed("I joined a choir, do you sing?") == {(ME, "joined", "a choir")}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("I bought a car from him.", "a car"),
        ("I want to visit places that she likes.", "visit places"),
        ("I worked on the garden and it was fun.", "the garden"),
        ("I have a friend who lives in Rome.", "a friend who lives in Rome"),
        ("I'm reading this amazing book about whales.", "an amazing book about whales"),
        ("I visited countries I want to see again.", "countries"),
        ("I have $1,200 in savings.", "$1,200 in savings"),
        ("I had a tough exam last week that had me doubting myself.",
         "a tough exam that had me doubting myself"),
    ],
)  # fmt: skip
def test_a_value_points_at_nothing_outside_of_it(text, value):
    assert value in {value for _, _, value in claimed(text)}


# --- when -----------------------------------------------------------------------------------------


def when_of(text, said=DAY):
    (one,) = read(text, said=said)
    return one.when


def test_an_event_has_the_day_of_its_phrase_and_its_value_does_not_repeat_it():
    (one,) = read("I went to the support group yesterday.", said=DAY)
    assert one.value == "the support group"
    assert one.when == When("2026-03-09", "2026-03-09", "2026-03-09", "2026-03-09")
    (one,) = read("Yesterday I went to the support group.", said=DAY)
    assert "Yesterday" in "Yesterday I went to the support group."[one.start : one.end]
    assert one.when.from_first == "2026-03-09"


def test_without_a_phrase_an_event_was_by_then_and_a_state_began_by_then():
    assert when_of("I joined a choir.") == When("", "2026-03-10", "", "2026-03-10")
    assert when_of("I live in Porto.") == When("", "2026-03-10")
    assert when_of("I live in Porto.", None) == When()


def test_since_opens_a_state():
    assert when_of("I've been living in Porto since 2019.") == When("2019-01-01", "2019-12-31")


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("I no longer live in Berlin.", "residence", "Berlin"),
        ("I used to live in Berlin.", "residence", "Berlin"),
        ("I stopped drinking coffee last month.", "drinks", "coffee"),
        ("I don't eat meat any more.", "eats", "meat"),
        ("Deixei de beber café em março.", "drinks", "café"),
        ("Ich trinke keinen Kaffee mehr.", "drinks", "Kaffee"),
    ],
)
def test_what_is_over_ends_the_same_attribute(text, attribute, value):
    (one,) = read(text, said=DAY)
    assert (one.attribute, one.value) == (attribute, value)
    assert one.when.to_last and one.sentence.startswith("I used to")


def test_the_end_of_a_habit_is_dated():
    assert when_of("I stopped drinking coffee last month.") == When(
        "", "", "2026-02-01", "2026-02-28"
    )


def test_a_date_inside_a_value_does_not_date_the_claim():
    (one,) = read("I'm worried about the June 20 meeting.", said=DAY)
    assert "June 20" in one.value and one.when == When("", "2026-03-10")
    assert read("I found photos from last summer.", said=DAY) == []  # of when, nobody knows later
    (one,) = read("I use Bootstrap 5.3.0 for styling.", said=DAY)
    assert one.value == "Bootstrap 5.3.0 for styling" and one.when == When("", "2026-03-10")


def test_an_event_is_never_dated_after_it_was_told():
    for one in read("I finished the report on December 24.", said=DAY):
        assert not one.when.from_first or one.when.from_first <= "2026-03-10"


# --- properties -----------------------------------------------------------------------------------

_PIECES = [
    "I", "I'm", "we", "my", "sister", "Ana", "live in", "Porto", "bought", "a car", "because",
    "yesterday", "since 2019", ",", ".", "?", "!", "\n", '"', "`", "(", ")", "and", "that", "who",
    "not", "if", "going to", "used to", "no longer", "have", "been", "38", "years old", "ich",
    "wohne in", "moro em", "vivo en", "he", "it", "the", "of", "to", "call me", "always answer",
    "İ", "ß", "日本", "🙂", "’", "€5", "St.", "- ", "favorite", "is", "goal", "can't", "wait", "up",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=25).map(" ".join))
@example("my favorite")
@example("I have a cat named")
@example("My sister ,")
def test_no_sentence_breaks_it_and_every_span_is_exact(text):
    for one in read(text, said=DAY):
        assert 0 <= one.start < one.end <= len(text)
        quote = text[one.start : one.end]
        for word in one.value.split():
            assert word in quote or word == "was"
        assert one.subject == ME or one.subject.lower() in quote.lower()
        assert one.sentence and one.attribute == one.attribute.lower()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_no_text_breaks_it(text):
    for one in read(text, said=None):
        assert one.value


@given(st.text())
def test_every_text_has_a_language(text):
    assert language_of(text, 0, len(text)) in ("en", "pt", "es", "de")


@pytest.mark.parametrize(
    "piece",
    ["I ", "my sister ", "I have ", "a, ", "I like a, b, ", "(", '"', "I'm ", "and I ", "that who ",
     "1 ", "call me ", "ich ", "moro em ", "\n", ".", "no longer ", "my favorite ", "\u2028", "`"],
)  # fmt: skip
def test_hostile_text_takes_a_step_a_character(piece):
    """Steps are counted, not seconds: twice the text, at most about twice the calls."""
    import sys

    def steps(times):
        count = 0

        def profile(frame, event, arg):
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            read(piece * times, said=DAY)
        finally:
            sys.setprofile(None)
        return count

    steps(10)
    size = min(READS, 16_000) // len(piece)
    assert steps(size) < 3 * steps(size // 2) + 2_000


# --- the fictional person -------------------------------------------------------------------------


def test_what_is_read_of_the_fictional_person_is_in_her_words():
    for said in exchanges():
        for one in read(said.words, said=said.at.date()):
            assert said.words[one.start : one.end].strip()


def test_rules_find_plain_facts_of_the_fictional_person():
    by_event = {said.event_id: said for said in exchanges()}
    found = {}
    for fact in facts():
        said = by_event[fact.evidence[1]]
        for one in read(said.words, said=said.at.date()):
            found.setdefault(one.attribute, set()).add(one.value.lower())
    assert "maresia" in found["employer"]
    assert "four espressos a day" in found["drinks"]
    assert "short" in found["answer length"] and "emojis" in found["avoid in answers"]
    assert "tomás" in found["brother"]
    assert "english" in found["answer language"]


# --- public conversations -------------------------------------------------------------------------


@pytest.mark.slow
def test_rules_read_a_third_of_what_observers_noted(shared):
    """LoCoMo: observations whose evidence turn yields a claim about its speaker."""
    told, found = 0, 0
    for talk in json.loads((shared / "data/locomo/locomo10.json").read_text("utf-8"))[:2]:
        turns = {}
        for name, session in talk["conversation"].items():
            if isinstance(session, list):
                turns |= {turn["dia_id"]: turn for turn in session}
            assert name
        for notes in talk["observation"].values():
            for speaker, rows in notes.items():
                for _, where in rows:
                    for dia_id in [where] if isinstance(where, str) else where:
                        turn = turns.get(dia_id)
                        if turn is not None and turn["speaker"] == speaker:
                            told += 1
                            claims = read(turn["text"], said=date(2023, 5, 8))
                            found += any(one.subject == ME for one in claims)
    assert told > 300
    assert found / told > 0.35


def test_an_attribute_of_a_claim_has_a_section():
    for one in read("I love tea. My sister Ana lives in Berlin. I went to Rome.", said=DAY):
        assert attribute(one.attribute).section


def test_a_day_to_come_is_that_of_what_one_prepares_for():
    (claim,) = read("I'm preparing for my interview on June 5.", said=DAY)
    assert claim.value == "my interview on June 5" and not claim.when.to_last


@pytest.mark.parametrize(
    "text",
    [
        "I had a rash when I was 6.",
        "I've always had a dog.",
        "I prefer using a style that's made for night.",
        "I'm thinking of reaching out to him again.",
    ],
)
def test_what_ends_before_what_makes_it_true_is_not_claimed(text):
    assert read(text, said=DAY) == []


def test_a_second_wish_is_not_part_of_the_first_thing():
    (claim,) = read("I use Python and want to learn Rust.", said=DAY)
    assert claim.value == "Python"
