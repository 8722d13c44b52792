"""Exchanges read from a real archive: the fictional person's life, and small ones made for it."""

import json

import apsw
import pytest
from lived import asking, lived
from served import home_of, model_server

from knowme import receipts, structure, sync
from knowme.db import rows
from knowme.errors import InputError
from knowme.home import Home
from knowme.learn import exchanges
from knowme.learn.exchanges import own_words, states_preference
from knowme.types import Record

HOUR = 3_600_000
START = 1_770_000_000_000
FOR_ME, VOICE = "assistant-for-me", "sound-like-me"


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """The home of the fictional person, read and asked."""
    path = lived(tmp_path_factory.mktemp("life"))
    with Home.open(path) as home:
        yield home


def told(home, *said, conversation="c", source="ingest-chat", gap=60_000, **more):
    """Store a conversation of (who, text[, meta]); who: me, bot, or a name. Returns the ids."""
    records = []
    for number, (who, text, *meta) in enumerate(said):
        other = who not in ("me", "bot")
        records.append(
            Record(
                "message",
                conversation,
                f"{conversation}-{number}",
                "assistant" if who == "bot" else "user",
                speaker=who if other else "",
                text=text,
                at_ms=more.get("start", START) + number * gap,
                seq=number,
                meta={**({"other": True} if other else {}), **(meta[0] if meta else {})},
            )
        )
    sync.store(home, source, [(record, None) for record in records])
    with home.db.read() as conn:
        return [
            number
            for (number,) in rows(
                conn,
                "SELECT m.id FROM messages m JOIN conversations c ON c.id = m.conversation_id"
                " WHERE c.external_id = ? ORDER BY m.seq",
                (conversation,),
            )
        ]


def read(home, purpose=VOICE, **more):
    return list(exchanges.read(home, purpose=purpose, **more))


def texts(pair):
    return [(each.role, each.content) for each in pair.messages]


TALK = (
    ("me", "which tea should I take to the office tomorrow"),
    ("bot", "Rooibos keeps well in a flask and does not turn bitter."),
    ("me", "rooibos then, but never again the vanilla one"),
    ("bot", "Noted: rooibos, and no vanilla in it from now on."),
)


def test_an_assistants_answer_stands_behind_the_turns_before_it(home):
    ids = told(home, *TALK)
    first, second = read(home, FOR_ME, system_prompt="Be brief.")
    assert texts(first) == [
        ("system", "Be brief."), ("user", TALK[0][1]), ("assistant", TALK[1][1])
    ]  # fmt: skip
    assert [role for role, _ in texts(second)] == [
        "system", "user", "assistant", "user", "assistant"
    ]  # fmt: skip
    assert second.answer == TALK[3][1] and second.question == TALK[2][1]
    assert second.because == tuple(ids) and first.because == tuple(ids[:2])
    assert second.place == "ingest-chat/c" and second.at_ms == START + 180_000
    assert second.kind == "exchange" and second.purpose == FOR_ME and second.language == "en"


def test_the_persons_own_message_answers_what_was_said_to_them(home):
    ids = told(home, *TALK)
    (pair,) = read(home)
    assert texts(pair) == [("user", TALK[1][1]), ("assistant", TALK[2][1])]
    assert pair.because == (ids[1], ids[2])


def test_at_most_so_many_turns_stand_before_an_answer_and_the_others_side_begins(home):
    said = [(("me", "bot")[n % 2], f"sentence number {n} of a rather long talk") for n in range(12)]
    told(home, *said)
    assert max(len(pair.messages) for pair in read(home, FOR_ME, max_turns=4)) == 4  # 3 + answer
    for purpose in (FOR_ME, VOICE):
        for pair in read(home, purpose, max_turns=5):
            roles = [each.role for each in pair.messages]
            assert roles[0] == "user" and roles[-1] == "assistant"
            assert all(a != b for a, b in zip(roles, roles[1:], strict=False))


def test_messages_of_one_side_are_one_turn(home):
    ids = told(
        home,
        ("bot", "Which of the two flats did you take in the end?"),
        ("me", "the one in bonfim"),
        ("me", "with the granite walls"),
    )
    (pair,) = read(home)
    assert pair.answer == "the one in bonfim\nwith the granite walls" and pair.because == tuple(ids)


def test_in_a_group_others_speak_under_their_names(home):
    told(
        home,
        ("Oksana", "the glue is too wet as well"),
        ("bot", "Thin glue soaks the folds and swells them further."),
        ("me", "it is the paper, I have said so since monday"),
        ("bot", "It may be the paper, fold one sheet each way."),
    )
    (pair,) = read(home)
    assert texts(pair)[0] == (
        "user",
        "Oksana: the glue is too wet as well\nThin glue soaks the folds and swells them further.",
    )
    (answer,) = read(home, FOR_ME)
    assert answer.question == "it is the paper, I have said so since monday"
    assert "Oksana: the glue is too wet as well" in answer.messages[0].content


def test_an_answer_to_somebody_else_is_no_answer_for_the_person(home):
    told(home, ("Oksana", "what is the grain of this paper?"), ("bot", "It runs along the spine."))
    assert read(home, FOR_ME) == []


def test_after_a_long_silence_a_message_answers_nothing(home):
    said = (("bot", "The boiler starts on Monday at eight."), ("me", "the cat has eaten the fish"))
    told(home, *said, gap=20 * HOUR)
    assert read(home) == []
    told(home, *said, conversation="d", gap=2 * HOUR)  # another subject, two hours later
    assert read(home) == []
    told(
        home,
        said[0],
        ("me", "monday is fine by me, the boiler too"),
        conversation="e",
        gap=2 * HOUR,
    )
    assert [pair.place for pair in read(home)] == ["ingest-chat/e"]


@pytest.mark.parametrize(
    "said",
    [
        "good morning, thank you very much!",
        "/new start a new session please",
        "short",
        "```python\nfor each in range(10):\n    print(each)\n```",
        "On Monday Ana wrote:\nDear all, the meeting is moved to Friday.\nBest, Ana",
        "> the flue needs the consent of all owners\n> and a plan of the installer",
        "Traceback (most recent call last):\n  File \"a.py\", line 3\nValueError: no",
        "translate this:\n\nO rato roeu a rolha da garrafa do rei da Rússia e depois fugiu.",
    ],
)  # fmt: skip
def test_greetings_commands_and_pasted_texts_are_no_answers_of_the_persons(home, said):
    told(home, ("bot", "What would you like to do with the letter today?"), ("me", said))
    assert read(home) == []


def test_what_the_assistant_said_before_is_not_the_persons_when_they_paste_it(home):
    said = "The flue leaves the building through the façade, so the condominium has to agree first."
    told(home, ("me", "what about the flue of that boiler"), ("bot", said))
    told(
        home,
        ("bot", "Tell me what the installer answered you about it."),
        ("me", said),
        conversation="d",
        start=START + HOUR,
    )
    structure.catch_up(home)
    assert [pair.place for pair in read(home)] == []


def test_of_a_message_with_a_quotation_the_own_words_stay(home):
    told(
        home,
        ("bot", "Henrik proposes Thursday for the review."),
        ("me", "> Henrik proposes Thursday\n\nthursday is taken, tell him friday after lunch"),
    )
    (pair,) = read(home)
    assert pair.answer == "thursday is taken, tell him friday after lunch"


def test_sub_agents_programs_and_forwarded_texts_teach_nothing(home):
    told(home, ("me", "read the three manuals and report the page"),
         ("bot", "Page 47 says that the high byte is first."),
         conversation="sub", source="openclaw")  # fmt: skip
    spawned = "UPDATE conversations SET kind = 'subagent' WHERE external_id = 'sub'"
    home.db.write(lambda conn: conn.execute(spawned))
    told(
        home,
        ("me", "remind me of the standup at nine every day"),
        ("me", "Read HEARTBEAT.md and follow it strictly.", {"automated": "heartbeat"}),
        ("bot", "Nothing needs your attention this morning."),
        ("me", "open the windows twice a day, love, your architect", {"forwarded_from": "Ana"}),
        ("bot", "Your friend says: open the windows twice a day."),
        conversation="main",
    )
    assert read(home, FOR_ME) == [] and read(home) == []


def test_retired_and_unrecalled_messages_are_not_learned_from(home):
    ids = told(home, *TALK)
    home.db.write(
        lambda conn: conn.execute("UPDATE messages SET retired_ms = 1 WHERE id = ?", (ids[3],))
    )
    assert [pair.answer for pair in read(home, FOR_ME)] == [TALK[1][1]]
    home.db.write(
        lambda conn: conn.execute("UPDATE messages SET recall = 0 WHERE id = ?", (ids[0],))
    )
    assert read(home, FOR_ME) == []  # what it answers is out of recall: it answers nothing


def test_only_what_tells_a_preference_or_corrects_is_kept_when_asked_for(home):
    told(home, ("me", "how far is it from the bonfim to leça by bike"),
         ("bot", "About eleven kilometres, mostly flat by the river."),
         ("me", "shorter answers please, and no emojis"), ("bot", "Understood, short and plain."),
         ("me", "no, I meant by metro, not by bike"),
         ("bot", "Forty-five minutes, one change."))  # fmt: skip
    assert len(read(home, FOR_ME)) == 3
    assert [pair.answer for pair in read(home, FOR_ME, filter_preferences=True)] == [
        "Understood, short and plain.", "Forty-five minutes, one change.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "tells"),
    [
        ("never open with great question", True), ("answer in english", True),
        ("responde na língua em que eu escrevo", True), ("no, that was the other one", True),
        ("I prefer tea", True), ("antworte immer auf deutsch", True), ("too long", True),
        ("what is the capital of peru?", False), ("the cat ate at nine", False),
        ("nobody came to the meeting", False),
    ],
)  # fmt: skip
def test_a_preference_is_told_from_a_question(said, tells):
    assert states_preference(said) is tells


def test_since_and_the_least_length_are_kept_to(home):
    told(home, *TALK)
    assert [p.answer for p in read(home, FOR_ME, since_ms=START + 120_000)] == [TALK[3][1]]
    assert [p.answer for p in read(home, FOR_ME, min_answer_chars=52)] == [TALK[1][1]]


def test_a_purpose_that_there_is_not_is_named(home):
    with pytest.raises(InputError, match="sound-like-you"):
        read(home, "sound-like-you")


def test_examples_that_were_collected_are_not_read_as_talk(home):
    told(home, *TALK, conversation="collect", source="knowme")
    told(home, *TALK, conversation="pairs", source="knowme")
    assert read(home) == [] and read(home, FOR_ME) == []


def test_a_message_beyond_measure_teaches_nothing_and_stands_in_no_prompt(home):
    told(home, ("me", "word " * 6_000), ("bot", "That is a long text, what shall I do with it?"),
         ("me", "make it a list of ten points"),
         ("bot", "Here are the ten points of it."))  # fmt: skip
    (pair,) = read(home, FOR_ME)
    assert sum(len(each.content) for each in pair.messages) < exchanges.PROMPT_CHARS


# --- knowme's own answers -----------------------------------------------------------------------

FIRST = "Take the train at nine, it is the cheapest."
SECOND = "The train at ten has a better connection."


@pytest.fixture
def asked(tmp_path):
    """A home that asks a scripted model over the wire."""
    with model_server([FIRST], [SECOND], ["A third answer about the bus."]) as server:
        engine = {"kind": "openai", "model": "big", "url": server.url, "api_key": "k"}
        with home_of(tmp_path / "home", engine=engine, context={"strategies": ["recent"]}) as home:
            yield home


def ask_one(home, question, **more):
    import asyncio

    from knowme.ask import Asked, ask

    async def run():
        return [each async for each in ask(home, Asked(question, conversation="s", **more))]

    return asyncio.run(run())[-1]


def test_a_rating_goes_with_the_answer_it_was_given_for(asked):
    one = ask_one(asked, "which train should we take to the fair?", surface="chat")
    assert one.answer == FIRST
    (pair,) = read(asked, FOR_ME)
    assert pair.answer == FIRST and pair.rating is None
    for kind, given, stars in (("up", "", 5), ("rating", "3", 3), ("down", "", 1)):
        receipts.rate(asked, str(one.receipt_id), kind, given)
        assert [pair.rating for pair in read(asked, FOR_ME)] == [stars]


def test_what_was_asked_anew_is_rejected_by_what_replaced_it(asked):
    ask_one(asked, "which train should we take to the fair?", surface="chat")
    ask_one(asked, "", again="regenerate", surface="chat")
    (pair,) = read(asked, FOR_ME)
    assert pair.answer == SECOND and pair.rejected == FIRST
    with asked.db.read() as conn:
        every = {number for (number,) in rows(conn, "SELECT id FROM messages")}
    assert set(pair.because) == every  # the rejected words are found when they are forgotten


def test_an_answer_rated_well_below_another_to_the_same_question_is_its_rejected_one(asked):
    first = ask_one(asked, "Which train should we take?", surface="chat")
    second = ask_one(asked, "which train should we take", surface="chat")
    receipts.rate(asked, str(first.receipt_id), "rating", "1")
    receipts.rate(asked, str(second.receipt_id), "rating", "2")
    assert [pair.rejected for pair in read(asked, FOR_ME)] == ["", ""]
    receipts.rate(asked, str(second.receipt_id), "rating", "4")
    low, high = read(asked, FOR_ME)
    assert (low.rating, low.rejected) == (1, "") and (high.rating, high.rejected) == (4, FIRST)
    assert set(low.because) <= set(high.because)


def test_the_answer_of_a_stronger_model_that_was_found_better_is_learned(asked):
    one = ask_one(asked, "which train should we take to the fair?", surface="chat")
    shadow = {"shadow": {"role": "cloud", "model": "x", "answer": SECOND, "cost": 0}}
    asked.db.write(
        lambda conn: conn.execute(
            "UPDATE answers SET receipt = json_patch(receipt, ?)", (json.dumps(shadow),)
        )
    )
    receipts.rate(asked, str(one.receipt_id), "better", "cloud")
    (pair,) = read(asked, FOR_ME)
    assert (pair.answer, pair.rejected) == (SECOND, FIRST)
    receipts.rate(asked, str(one.receipt_id), "better", "local")
    (pair,) = read(asked, FOR_ME)
    assert (pair.answer, pair.rejected) == (FIRST, SECOND)


def test_the_echo_engine_and_sentences_of_the_house_are_nobodys_answers(home):
    asking(home, ["What did I decide about the heating?", "tell me of tides"], conversation="k")
    assert read(home, FOR_ME) == []


def test_an_echo_in_an_archive_that_came_from_elsewhere_is_no_answer_either(home):
    told(
        home,
        ("me", "which tea did I want to buy"),
        ("bot", "You said: rooibos.", {"model": "echo"}),
    )
    assert read(home, FOR_ME, min_answer_chars=1) == []


def test_an_answer_rests_on_the_messages_that_it_repeats(tmp_path):
    said = "Your boiler man is Adalberto and his number hangs on the fridge."
    with model_server([said]) as server:
        engine = {"kind": "openai", "model": "big", "url": server.url, "api_key": "k"}
        with home_of(tmp_path / "home", engine=engine) as home:
            number = told(home, ("me", "the boiler man is Adalberto, his number is on the fridge"))
            ask_one(home, "who is the man for the boiler?")
            (pair,) = read(home, FOR_ME)
            assert pair.answer == said and set(number) < set(pair.because)


# --- the fictional life -------------------------------------------------------------------------


def test_of_the_fictional_life_each_pair_rests_on_messages_that_hold_its_words(life):
    with life.db.read() as conn:
        said = dict(rows(conn, "SELECT id, plain(text) FROM messages"))
        roles = dict(rows(conn, "SELECT id, role FROM messages"))
    for purpose, role in ((FOR_ME, "assistant"), (VOICE, "user")):
        found = read(life, purpose)
        assert len(found) > 40 and len({pair.uid for pair in found}) > 40
        for pair in found:
            words = "\n".join(said[number] for number in pair.because)
            for message in pair.messages:
                for line in message.content.split("\n"):
                    assert line.removeprefix("Oksana: ").strip() in words
            assert roles[max(pair.because, key=lambda n: (n in pair.because, n))] == role


def test_of_the_fictional_life_nothing_poisoned_is_learned(life):
    with life.db.read() as conn:
        hers = {
            text for (text,) in rows(
                conn, "SELECT plain(text) FROM messages m JOIN conversations c ON"
                " c.id = m.conversation_id WHERE c.kind = 'subagent' OR m.role = 'document'"
                " OR json_extract(m.meta, '$.automated') IS NOT NULL",
            )
        }  # fmt: skip
    assert hers
    for pair in (*read(life, FOR_ME), *read(life)):
        assert pair.answer not in hers and "Ottilie" not in pair.answer
        assert "HEARTBEAT" not in pair.answer and "echo engine" not in pair.answer


def test_reading_holds_no_transaction_between_two_pairs(life):
    going = exchanges.read(life, purpose=FOR_ME)
    next(going)
    life.db.write(lambda conn: conn.execute("UPDATE messages SET origin = '' WHERE id = 1"))
    other = apsw.Connection(str(life.path / "memory.db"))
    (busy, _, _), *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    other.close()
    assert not busy  # a reader in the middle of its snapshot would have held the log
    assert sum(1 for _ in going) > 40


def test_a_phrase_of_another_within_a_sentence_leaves_it_the_persons():
    said = 'henrik said "I understand" in a tone that I have known since the spring review'
    assert own_words(said) == said
    pasted = f"he told me {said}"
    assert own_words(pasted, [(11, 60, "words of an assistant's answer")]) == ""
    others = [(0, len(said), "words of an assistant's answer")]
    assert own_words(said, others) == "" and own_words(said, [(12, 26, "x")]) == said
