"""Nothing is trained that redact would keep from leaving; others are initials, and stay so."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lived import put

from knowme import redact
from knowme.learn import pairs, scrub
from knowme.learn.scrub import Found, People, Scrubber
from knowme.types import ChatMessage

ME = People(("Leonor Brandt Vilaça", "Leonor"), "Leonor", ("Henrik", "Anna Meier", "Will", "田中"))
KEY = "sk-proj-" + "a1B2" * 8
IBAN = "DE89 3704 0044 0532 0130 00"
CARD = "4111 1111 1111 1111"


def cleaned(text, known=ME, texts=()):
    return Scrubber(known, texts).clean(text)[0]


def pair(question, answer, **more):
    said = [ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made("assistant-for-me", "exchange", said, [1], "chat/a", **more)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Henrik says no", "H. says no"),
        ("ask henrik, HENRIK or Henrik's boss", "ask H., H. or H.'s boss"),
        ("I told Henrik.", "I told H."),
        ("I told Henrik... and left", "I told H... and left"),
        ("Anna Meier and Anna", "A. and A."),
        ("Das ist Annas Hund", "Das ist A.s Hund"),
        ("mail from ANNA_MEIER", "mail from A."),
        ("田中 came", "田. came"),
        ("my cousin Tomás Brito came", "my cousin T. came"),
        ("Wiebke and Oksana cook", "W. and O. cook"),
        ("met Bianca and Victor, in May", "met B. and V., in May"),
        ("will you ask Will on Monday", "will you ask W. on Monday"),
        ("ask Catarina Monday", "ask C. Monday"),
        ("I am Leonor Brandt Vilaça", "I am Leonor"),
        ("Leonor, are you there", "Leonor, are you there"),
        ("the Vilaça flat", "the V. flat"),
    ],
)
def test_other_people_become_initials_and_the_person_keeps_the_first_name(text, expected):
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "grace and mark the page, will you",
        "May I hope for a Rose? Will it be in June",
        "Mark the date. Grace is a word; so is hope",
        "Sofia is a city and Paris is one too",
        "I moved to Porto and read Python at Trindade",
        "Gestern war das anders, und die Rosa Blume stand im Wolf seiner Heide",
        "elif name == 'x': pass",
        "Claude and Alexa answered; Django did not",
        "the tide is at 09:42 on 2026-03-31, 41 of 41, 3.880 € each",
        "see https://example.org/a/b and run make test-all",
    ],
)
def test_ordinary_words_stay(text):
    assert cleaned(text) == text


def test_whom_a_sentence_introduces_is_known_in_all_of_them():
    said = ["my neighbour Ludovica has a drill", "Zenaide, my boss, called", "Dr Quitéria is late"]
    scrubber = Scrubber(ME, said)
    told = "ludovica asked Zenaide about quitéria"
    assert cleaned(told) == told
    assert scrubber.clean(told)[0] == "L. asked Z. about Q."


def test_who_writes_all_small_is_understood_by_whoever_does_not():
    assert cleaned("wiebke said no") == "wiebke said no"
    assert cleaned("wiebke said no", texts=["Noted: Wiebke said no."]) == "W. said no"
    assert cleaned("helena is on leave", texts=["dr helena is on leave"]) == "H. is on leave"


def test_pets_stay_and_those_of_whom_facts_speak_go(home):
    from knowme import structure

    put(home, "My cat is called Bartolomeu.", "My sister Ludovica lives in Braga.", session="d")
    structure.catch_up(home)
    known = scrub.people(home)
    assert "Ludovica" in [name.title() for name in known.others]
    said = "Bartolomeu bit Ludovica"
    assert Scrubber(known).clean(said)[0] == "Bartolomeu bit L."


# --- contacts, addresses, secrets -----------------------------------------------------------------

PRIVATE = {
    "e-mail": ["leonor.b@example.org", "a+b@mail.example.co.uk"],
    "phone": ["+351 912 345 678", "(030) 1234567", "(555) 123-4567"],
    "number": ["123456789012", "078-05-1120", "123.456.789-09"],
    "address": [
        "12 Baker Street", "221B Baker Street NW1 6XE", "Rua de Santa Catarina 112, 3.º esq",
        "rua do bonfim, n.º 7", "Calle Mayor 5", "Lindenstraße 5a, 34117 Kassel",
        "Königsplatz 61", "14 rue Daguerre", "4300-123 Porto", "41.14961, -8.61099",
    ],
    "api key": [KEY],
    "bank card": [CARD],
    "bank account": [IBAN],
}  # fmt: skip


@pytest.mark.parametrize("kind", PRIVATE)
def test_contacts_addresses_and_secrets_become_what_they_are(kind):
    for words in PRIVATE[kind]:
        text, gone = Scrubber(ME).clean(f"it is {words} they said")
        assert text == f"it is [{kind}] they said", words
        assert gone == [Found(kind, words)]


def test_a_password_goes_where_it_is_called_one():
    assert cleaned("the password: hunter2xyz!") == "the password: [password]"


@settings(max_examples=150)
@given(st.lists(st.one_of(
    st.sampled_from([w for some in PRIVATE.values() for w in some]),
    st.sampled_from([*ME.others, *ME.own, "Tomás", "[PERSON_1]", "[e-mail]", ".", ",", "\n", "'s"]),
    st.text("ab C.@+0159-[]_\n'", max_size=12),
), max_size=10), st.sampled_from(["", " "]))  # fmt: skip
def test_what_was_cleaned_is_clean_for_redact_as_well(pieces, between):
    counts = Counter()
    made = pair("q", "a fine answer " + between.join(pieces), rejected=between.join(pieces[::-1]))
    done, why = scrub.cleaned_pair(Scrubber(ME), made, counts)
    if done is None:
        assert why in ("secret in the answer", "not clean", "nothing left of the answer")
        return
    for text in (done.answer, done.rejected):
        assert redact.secrets_in(text) == ()
        outside = redact.Placeholders([*ME.others, "Leonor Brandt Vilaça"])
        outside.redact(text)
        left = {w for w in outside.used.values() if w.casefold() != "leonor"}
        assert all(w.islower() or w.startswith("[") for w in left), left
        assert "\ue000" not in text


def test_cleaning_is_the_same_on_any_day_and_done_once():
    text = "Henrik wrote to anna.meier@example.org from 12 Baker Street"
    scrubber = Scrubber(ME)
    first = scrubber.clean(text)[0]
    for _ in range(2 * scrub._RENEWED):
        scrubber.clean("Anna Meier called +351 912 345 678")
    assert scrubber.clean(text)[0] == first == cleaned(text)
    assert scrubber.clean(first) == (first, [])


# --- pairs ----------------------------------------------------------------------------------------


def test_every_text_of_a_pair_is_cleaned_and_its_name_stays():
    said = [
        ChatMessage("system", "You help Henrik."),
        ChatMessage("user", f"my card is {CARD}"),
        ChatMessage("assistant", "Noted for Henrik."),
        ChatMessage("user", "and mine is a@example.org"),
        ChatMessage("assistant", "Fine, Henrik."),
    ]
    made = pairs.made("assistant-for-me", "exchange", said, [1], "c/a", rejected="No, Henrik.")
    counts = Counter()
    done, _ = scrub.cleaned_pair(Scrubber(ME), made, counts)
    assert [each.content for each in done.messages] == [
        "You help H.", "my card is [bank card]", "Noted for H.", "and mine is [e-mail]", "Fine, H.",
    ]  # fmt: skip
    assert done.rejected == "No, H." and done.uid == made.uid and done.because == made.because
    assert counts == Counter({"name": 4, "bank card": 1, "e-mail": 1})


def test_an_answer_that_told_a_secret_is_not_trained_at_all(home):
    telling = pair("what is my key", f"It is {KEY}")
    asking = pair(f"is {KEY} a good key", "No, and you should not have shown it.")
    bare = pair("her mail?", "a@example.org")
    kept, counts = scrub.clean(home, [telling, asking, bare])
    assert [each.question for each in kept] == ["is [api key] a good key"]
    assert counts["pair: secret in the answer"] == counts["pair: nothing left of the answer"] == 1
    assert counts["api key"] == 2 and counts["e-mail"] == 1


def test_what_is_clean_already_is_returned_as_it_was(home):
    made = pair("how late is it", "Past nine, and you are tired.")
    assert scrub.clean(home, [made]) == ([made], Counter())


def test_no_name_of_the_fictional_life_is_left(tmp_path):
    """The names are the story's own list of who is in it; two mentions are known to be missed."""
    import lived

    from knowme.home import Home

    people = """tomás wiebke marlene albano catarina amélia henrik priya duarte sofia oksana marek
    filipa helena vilaça brandt""".split()
    with Home.open(lived.lived(tmp_path)) as home:
        made = list(exchanges(home))
        kept, counts = scrub.clean(home, made)
    told = "\n".join(m.content for each in made for m in each.messages).casefold()
    left = "\n".join(m.content for each in kept for m in each.messages).casefold()
    assert len(made) > 150 and len(kept) == len(made)
    before = {name: len(re.findall(rf"\b{name}\b", told)) for name in people}
    assert sum(before.values()) > 90 and counts["name"] > 90
    assert {n: len(re.findall(rf"\b{n}\b", left)) for n in people} == dict.fromkeys(people, 0)
    assert len(re.findall(r"\bgraça\b", left)) <= 2, "nobody introduces her, and it is a word"
    for word in ("porto", "boia", "maresia", "bartô", "leonor"):
        many = [len(re.findall(rf"\b{word}\b", text)) for text in (told, left)]
        assert many[0] == many[1] > 0, f"{word} is no other person"


def exchanges(home):
    from knowme.db import rows

    with home.db.read() as conn:
        said = rows(
            conn,
            "SELECT id, conversation_id, role, plain(text) FROM messages WHERE retired_ms IS NULL"
            " AND role IN ('user', 'assistant') ORDER BY conversation_id, seq",
        )
    for one, other in zip(said, said[1:], strict=False):
        if one[1] == other[1] and (one[2], other[2]) == ("user", "assistant"):
            texts = [ChatMessage("user", one[3]), ChatMessage("assistant", other[3])]
            yield pairs.made(
                "assistant-for-me", "exchange", texts, [one[0], other[0]], f"c/{one[1]}"
            )


def test_rows_of_a_cleaned_pair_hold_nothing_that_was_taken_out(home):
    made = pair("call Henrik at +351 912 345 678", "Calling Henrik.", rejected="No.")
    made = replace(made, because=(7, 9))
    (kept,), _ = scrub.clean(home, [replace(made, messages=made.messages)])
    told = json.dumps(pairs.row(kept), ensure_ascii=False)
    assert "912" not in told and pairs.from_row(json.loads(told)) == kept


def test_a_password_far_from_its_name_is_taken_out(home):
    scrubber = scrub.of(home)
    for told in (
        "The password of my strongbox is Kq7-vexor42, do not tell.",
        "We changed the alarm code of the cabin to 77HX-19.",
        "A senha do router lá de casa é m4re51a-azul.",
    ):
        clean, gone = scrubber.clean(told)
        assert [each.kind for each in gone] == ["password"], told
        assert gone[0].words not in clean
    for plain in (
        "The code of the parser is in lexer2.py and parser3.py.",
        "The password is optional in version 2026.",
        "The meeting code review was moved to 2026-03-01.",
    ):
        assert scrubber.clean(plain)[1] == [], plain
