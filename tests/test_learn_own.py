"""What the person wrote, believes and decided, from real archives, dated journals among them."""

import json
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lived import lived

from knowme import facts, structure, sync
from knowme.claims.languages import language_of
from knowme.db import rows
from knowme.errors import InputError
from knowme.home import Home
from knowme.learn import own, writing
from knowme.learn.own import decided, to_you
from knowme.learn.writing import chunks, ends, notes

FOR_ME, VOICE = "assistant-for-me", "sound-like-me"


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    path = lived(tmp_path_factory.mktemp("life"))
    with Home.open(path) as home:
        yield home


def noted(folder, files):
    """Give a home that has read a folder of notes: {name: text}."""
    notes_folder = folder / "notes"
    notes_folder.mkdir()
    for name, text in files.items():
        (notes_folder / name).write_text(text, encoding="utf-8")
    Home.create(folder / "home")
    told = {
        "name": "Ana", "embedder": {"kind": "none"}, "engine": {"kind": "echo"},
        "sources": [{"kind": "markdown", "path": str(notes_folder), "name": "diary"}],
    }  # fmt: skip
    (folder / "home" / "config.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    home = Home.open(folder / "home")
    sync.sync(home)
    structure.catch_up(home)
    return home


def said(home, *texts, session="talk", start=1_770_000_000_000):
    """Store messages of the person's, a day apart."""
    metas = [
        {"session": session, "timestamp": (start + n * 86_400_000) / 1000}
        for n in range(len(texts))
    ]
    sync.ingest(home, list(texts), metas)
    structure.catch_up(home)


def sentence(number):
    return f"On walk {number} I met Mr. Calloway by the river and we talked of ships and tides."


# --- style --------------------------------------------------------------------------------------


def test_a_journal_entry_is_asked_for_by_its_day_and_what_it_is_about(tmp_path):
    text = (
        "Rose early. Walked to Greenwich with Mr. Pierce, and saw the yacht of the King at anchor."
    )
    with noted(tmp_path, {"1660-03-04.md": f"# Sunday\n\n{text}\n"}) as home:
        (pair,) = own.style(home, purpose=VOICE)
        with home.db.read() as conn:
            (number,) = rows(conn, "SELECT id FROM messages")[0]
    assert pair.answer == text and pair.kind == "style" and pair.because == (number,)
    assert "4 March 1660" in pair.question
    assert "Greenwich" in pair.question and "Mr. Pierce" in pair.question
    assert pair.labels == ("journal",) and pair.language == "en" and pair.at_ms < 0
    assert pair.place.startswith("diary/1660-03-04.md#")


def test_an_entry_that_the_source_cut_is_put_together_and_cut_where_sentences_end(tmp_path):
    text = " ".join(map(sentence, range(60)))
    with noted(tmp_path, {"2026-02-03.md": f"# Tuesday\n\n{text}\n"}) as home:
        found = list(own.style(home, purpose=VOICE))
        with home.db.read() as conn:
            sections = dict(rows(conn, "SELECT id, text FROM messages"))
    assert len(sections) > 3 and len(found) > 3
    assert " ".join(pair.answer for pair in found) == text  # nothing twice, nothing lost
    assert len({pair.place for pair in found}) == 1 and len({pair.uid for pair in found}) > 3
    for pair in found:
        assert pair.answer.endswith("tides.") and pair.answer.startswith("On walk")
        assert len(pair.answer.split()) <= 200 and "3 February 2026" in pair.question
        first, last = sections[pair.because[0]], sections[pair.because[-1]]
        assert pair.answer[:60] in first or first[-40:] in pair.answer
        assert pair.answer[-60:] in last or last[:40] in pair.answer
    assert {number for pair in found for number in pair.because} == set(sections)


def test_two_entries_of_one_file_are_two_places(tmp_path):
    files = {"2026-02.md": f"# 2026-02-01\n\n{sentence(1)}\n\n# 2026-02-02\n\n{sentence(2)}\n"}
    with noted(tmp_path, files) as home:
        one, two = own.style(home, purpose=VOICE)
    assert one.place != two.place and "1 February 2026" in one.question
    assert "2 February 2026" in two.question


def test_a_note_is_asked_for_by_its_heading_and_in_its_language(tmp_path):
    text = (
        "A bomba de calor faz menos barulho do que eu pensava, e a casa fica quente em meia hora. "
        "O instalador veio de Braga com um ajudante muito novo e não deixou lixo nenhum."
    )
    with noted(tmp_path, {"casa.md": f"# Casa\n\n## Aquecimento\n\n{text}\n"}) as home:
        (pair,) = own.style(home, purpose=VOICE)
    assert pair.language == "pt" and "Aquecimento" in pair.question
    assert language_of(pair.question, 0, len(pair.question)) == "pt" and pair.labels == ("note",)


def test_what_another_hand_wrote_in_a_note_is_left_out(tmp_path):
    mine = " ".join(map(sentence, range(4)))
    mail = (
        "From: Bank <a@b.example>\nTo: Ana\nSubject: your account\n\nDear customer, we write you."
    )
    files = {
        "2026-02-01.md": f"{mine}\n\n```\nfor each in range(3):\n    print(each)\n```\n",
        "2026-02-02.md": mail,
        "AGENTS.md": mine.replace("ships", "boats"),
    }
    with noted(tmp_path, files) as home:
        assert [pair.answer for pair in own.style(home, purpose=VOICE)] == [mine]


def test_messages_that_open_a_talk_are_style_and_replies_are_not(life):
    found = list(own.style(life, purpose=VOICE))
    from knowme.learn import exchanges

    replies = {pair.answer for pair in exchanges.read(life, purpose=VOICE)}
    assert len(found) > 60 and replies.isdisjoint(pair.answer for pair in found)
    assert {"en", "pt"} <= {pair.language for pair in found}
    assert all(len(pair.answer.split()) >= writing.LEAST_WORDS for pair in found)


def test_style_is_nothing_for_an_assistant_and_since_is_kept_to(life):
    assert list(own.style(life, purpose=FOR_ME)) == []
    every = list(own.style(life, purpose=VOICE))
    late = list(own.style(life, purpose=VOICE, since_ms=1_774_000_000_000))
    assert 0 < len(late) < len(every) and min(pair.at_ms for pair in late) >= 1_774_000_000_000
    with pytest.raises(InputError, match="like-her"):
        list(own.style(life, purpose="like-her"))


def test_a_real_journal_gives_whole_entries(tmp_path, shared):
    files = {}
    for line in (shared / "data/pepys-dev/diary-1660-1661.jsonl").open(encoding="utf-8"):
        entry = json.loads(line)
        if entry["day"] and entry["month"] in (6, 7) and entry["year"] == 1660:
            name = f"{entry['year']}-{entry['month']:02}-{entry['day']:02}.md"
            files[name] = f"# {entry['title']}\n\n{entry['text']}\n"
    with noted(tmp_path, files) as home:
        found = list(own.style(home, purpose=VOICE))
    assert len(found) >= len(files) > 50
    whole = [text.split("\n", 2)[2].strip() for text in files.values()]
    for pair in found:
        assert any(pair.answer in text for text in whole)
        assert len(pair.answer.split()) <= 240 and "1660" in pair.question
    assert sum(len(pair.answer.split()) for pair in found) > 0.97 * len(" ".join(whole).split())


# --- cutting ------------------------------------------------------------------------------------


PIECES = ["One two three. ", "Mr. Pierce came, ", "so; ", "wine!\n\n", "a "]


@given(st.lists(st.sampled_from(PIECES)), st.integers(5, 40))
def test_chunks_cover_a_text_in_order_without_overlap(pieces, most):
    text = "".join(pieces)
    found = chunks(text, most)
    assert all(a < b for a, b in found) and all(b <= c for (_, b), (c, _) in pairwise(found))
    assert "".join(text[a:b] for a, b in found).split() == text.split() or "".join(
        "".join(text[a:b].split()) for a, b in found
    ) == "".join(text.split())
    assert all(len(text[a:b].split()) <= most * 1.2 + 1 for a, b in found if ", " not in text)


def test_an_abbreviation_ends_no_sentence_and_a_small_letter_does_where_the_writer_uses_none():
    text = "We met Mr. Pierce at St. Paul's. He had 3 ships, i.e. all of them. So home."
    assert [text[:end].split()[-1] for end in ends(text)] == ["Paul's.", "them.", "home."]
    small = "decided. gas boiler, 4650. why: cheaper. done by 20 feb"
    assert [small[:end].split()[-1] for end in ends(small)] == [
        "decided.",
        "4650.",
        "cheaper.",
        "feb",
    ]


def test_a_sentence_beyond_measure_is_cut_at_its_marks():
    text = "; ".join(f"and so to the house number {n} of the lane" for n in range(60)) + "."
    found = [text[a:b] for a, b in chunks(text, 100)]
    assert len(found) > 4 and all(len(each.split()) <= 120 for each in found)
    assert all(each.endswith((";", ".")) for each in found)


def test_a_text_is_about_its_names_and_its_rarest_words():
    rare = {"walked": 1.0, "whale": 6.0, "stranded": 5.0, "beach": 3.0}
    text = "I walked with Mr. Pierce to the beach at Deal, where a whale lay stranded all day."
    about = notes(text, lambda word: rare.get(word, 4.0), 4)
    assert about == ["Mr. Pierce", "Deal", "whale"]


# --- facts --------------------------------------------------------------------------------------


def answers(home, purpose, **more):
    return {(pair.question, pair.answer) for pair in own.facts(home, purpose=purpose, **more)}


def test_a_fact_is_told_to_the_person_or_by_them(home):
    said(home, "I live in Porto.")
    assert ("Where do I live?", "You live in Porto.") in answers(home, FOR_ME)
    assert ("Where do you live?", "I live in Porto.") in answers(home, VOICE)


def test_a_fact_rests_on_every_message_that_says_it(home):
    said(home, "I live in Porto.")
    said(home, "As you know, I live in Porto.", session="later", start=1_771_000_000_000)
    found = list(own.facts(home, purpose=FOR_ME))
    with home.db.read() as conn:
        every = {number for (number,) in rows(conn, "SELECT id FROM messages")}
    assert found and all(set(pair.because) == every for pair in found)
    assert all(pair.at_ms == 1_771_000_000_000 for pair in found)


def test_how_the_person_wants_to_be_answered_is_asked_most(life):
    found = list(own.facts(life, purpose=FOR_ME))
    about = [pair for pair in found if "communication" in pair.labels]
    assert len(about) > len(found) / 3
    whole = {pair.answer for pair in about if pair.question == "How do I want to be answered?"}
    assert any("short" in answer and "emojis" in answer for answer in whole)
    assert (
        "Como quero que me respondas?",
        "Disseste: “responde na língua em que eu escrevo.”",
    ) in {(pair.question, pair.answer) for pair in found}


def test_what_has_many_values_is_asked_together_and_value_by_value(life):
    told = answers(life, FOR_ME)
    assert ("What do I not eat?", "You do not eat meat. You do not eat coriander.") in told
    assert ("Do I eat coriander?", "You do not eat coriander.") in told


def test_other_people_events_and_dates_are_left_to_memory(life):
    with life.db.read() as conn:
        every = facts.believed(conn)
    assert any(fact.subject == "Henrik" for fact in every)
    assert any(fact.attribute == "brother" for fact in every)
    for purpose in (FOR_ME, VOICE):
        told = " ".join(f"{question} {answer}" for question, answer in answers(life, purpose))
        assert told and not any(
            name in told for name in ("Henrik", "Tomás", "tomás", "fibre", "stand")
        )


def test_what_is_sensitive_is_asked_only_where_it_is_wanted(home):
    said(home, "I am allergic to hazelnuts.", "I work at Maresia.")
    plain, whole = answers(home, FOR_ME), answers(home, FOR_ME, sensitive=True)
    assert plain < whole and not any("hazelnuts" in answer for _, answer in plain)
    assert any("hazelnuts" in answer for _, answer in whole)


def test_a_corrected_fact_is_told_as_it_was_corrected(home):
    said(home, "I live in Porto.")
    with home.db.read() as conn:
        (fact,) = facts.believed(conn)
    home.db.write(lambda conn: facts.decide(conn, "edit", fact.uid, 1_772_000_000_000, "Braga"))
    told = answers(home, VOICE)
    assert told and all("Braga" in answer and "Porto" not in answer for _, answer in told)


def test_a_correction_holds_also_where_the_old_words_hold_it(home):
    said(home, "I live in Portobello.")
    with home.db.read() as conn:
        (fact,) = facts.believed(conn)
    home.db.write(lambda conn: facts.decide(conn, "edit", fact.uid, 1_772_000_000_000, "Porto"))
    assert all("Portobello" not in answer for _, answer in answers(home, VOICE))


def test_what_is_believed_no_more_is_not_asked(home):
    said(home, "I live in Porto.", "I live in Braga now.")
    assert all("Porto" not in answer for _, answer in answers(home, FOR_ME))
    assert any("Braga" in answer for _, answer in answers(home, FOR_ME))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("I live in Porto.", "You live in Porto."),
        ("I'm from Kassel and my cat is, too.", "You're from Kassel and your cat is, too."),
        ("Was I awake? I was.", "Were you awake? You were."),
        ("because I am tired, not I myself", "because you are tired, not you yourself"),
        ("never mock our own classes", "never mock your own classes"),
        ("we said our names", "we said our names"),
        ("It is Ivy's, in miami.", "It is Ivy's, in miami."),
    ],
)
def test_what_the_person_says_of_themselves_is_said_to_them(mine, theirs):
    assert to_you(mine).casefold() == theirs.casefold()


# --- decisions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I chose the heat pump because the flue is dead.", "the flue is dead."),
        ("decided. gas boiler. why: cheaper, and done in may", "cheaper, and done in may"),
        ("Because it rained all day, I took the bus instead of the bike.", "it rained all day"),
        ("Vou com o comboio porque não quero guiar à noite.", "não quero guiar à noite."),
        ("Ich nehme den Zug, weil ich nachts nicht fahren will.", "ich nachts nicht fahren will."),
        ("We are leaving obsidian. I only ever grep, since my notes are plain text.",
         "my notes are plain text."),
    ],
)  # fmt: skip
def test_a_choice_is_found_with_its_reason(text, reason):
    (found,) = decided(text)
    assert text[slice(*found.reason)].strip() == reason


@pytest.mark.parametrize(
    "text",
    [
        "He decided against it because it was too far away.",
        "My wife has resolved to kill them because they are lame.",
        "I was glad because the salary came at last.",
        "Since Monday I have lived in the new flat, and it is cold.",
        "Did I choose it because of the price, or because of the colour?",
        "The king refused the crown because the crown was made of tin.",
        "I have lived in the new flat since my birthday, going with the flow.",
        "I chose the heat pump.",
        "I paid all that remained due to my Lord upon the balance.",
    ],
)
def test_what_others_chose_or_has_no_reason_is_no_decision(text):
    assert decided(text) == []


def test_a_decision_is_told_with_its_reasons_first_and_plainly(life):
    found = list(own.decisions(life, purpose=VOICE))
    think = [pair for pair in found if pair.labels == ("think",)]
    plain = [pair for pair in found if pair.labels == ("plain",)]
    assert len(think) == len(plain) >= 5
    with life.db.read() as conn:
        texts = dict(rows(conn, "SELECT id, plain(text) FROM messages"))
    for one, two in zip(think, plain, strict=True):
        assert one.question == two.question and one.because == two.because
        reason, _, choice = one.answer.removeprefix("<think>\n").partition("\n</think>\n\n")
        source = " ".join(texts[number] for number in one.because)
        assert reason and choice and reason in source and two.answer in source
    assert any(
        "heat pump, frioeste" in pair.answer and "flue is dead" in pair.answer for pair in think
    )


def test_a_decision_is_said_to_the_person_as_theirs(home):
    said(home, "I chose the night train to Bremen because I hate airports and my back hates them.")
    (think, plain) = own.decisions(home, purpose=FOR_ME)
    assert think.answer == (
        "<think>\nyou hate airports and your back hates them.\n</think>\n\n"
        "You chose the night train to Bremen"
    )
    assert "did I" in plain.question or "my choice" in plain.question
    assert plain.answer.startswith("You chose the night train to Bremen because you hate")


def test_what_cannot_be_turned_round_is_quoted(home):
    said(home, "Vou com o comboio da noite porque não quero guiar com este nevoeiro.")
    (think, plain) = own.decisions(home, purpose=FOR_ME)
    assert plain.answer == (
        "Disseste: “Vou com o comboio da noite porque não quero guiar com este nevoeiro.”"
    )
    assert plain.language == "pt" and think.answer.startswith("<think>")


# --- growth -------------------------------------------------------------------------------------


def test_growth_counts_what_came_by_week(life):
    told = own.growth(life)
    with life.db.read() as conn:
        ((many,),) = rows(
            conn,
            "SELECT count(*) FROM messages m JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.role = 'user' AND c.kind = 'chat' AND m.retired_ms IS NULL"
            " AND (m.recall OR c.source = 'knowme')",
        )
    assert told["messages"] == many == sum(week["messages"] for week in told["weeks"])
    assert told["weeks"][0]["week"] == "2026-01-12" and told["exchanges"] > 150
    late = own.growth(life, 1_774_000_000_000)
    assert 0 < late["messages"] < many and late["since_ms"] == 1_774_000_000_000


def test_growth_of_an_empty_archive_is_none(home):
    told = own.growth(home)
    assert told == {
        "messages": 0, "exchanges": 0, "since_ms": None, "per_week": 0.0, "weeks": []
    }  # fmt: skip
