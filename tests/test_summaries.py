"""Summaries made ahead of need, the turns that come back, and a conversation that never ends."""

import asyncio
import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme import archive, ask, details, memory, prompting, receipts, sessions, steering, summaries
from knowme.cli import run
from knowme.compress import Summary
from knowme.context import Budgets, Turn, exchanges
from knowme.db import rows, value
from knowme.errors import NotFoundError
from knowme.home import Home
from knowme.settings import Settings
from knowme.sync import open_space
from knowme.types import ChatMessage, Hit, Query, Record
from knowme.wire import estimate_tokens

AT = 1_795_000_000_000
MINUTE = 60_000
LARGE_MODEL = {"embedder.kind": "hashing", "engine.kind": "echo", "ask.quote_first": "never"}


@pytest.fixture
def large(tmp_path):
    """Give a home whose echo engine is treated as a model that reads earlier turns."""
    Home.create(tmp_path / "home")
    with Home.open(tmp_path / "home", LARGE_MODEL) as opened:
        open_space(opened)
        yield opened


def say(conn, n: int, role: str, text: str, name: str = "c", **meta) -> int:
    told = {"sent": False} if role == "user" else {"local": True, "rests_on": []}
    record = Record("message", name, f"m{n}", role, text=text, at_ms=AT + n * MINUTE, seq=n,
                    recall=role == "user", meta={**told, **meta})  # fmt: skip
    number = archive.put_conversation(conn, "knowme", record, AT)
    return archive.put(conn, number, record, AT)[0]


def talk(home, texts, start: int = 0, name: str = "c") -> list[int]:
    """Store turns, the person's and the assistant's by turns; returns their numbers."""

    def write(conn):
        made = [say(conn, start + n, ("user", "assistant")[n % 2], text, name)
                for n, text in enumerate(texts)]  # fmt: skip
        memory.add_items(conn, made[::2])
        return made

    return home.db.write(write)


def chatter(first: int, last: int) -> list[str]:
    """Give so many exchanges about nothing that anybody asks for."""
    return [
        text
        for n in range(first, last)
        for text in (
            f"On day {n} I read page {n * 3} of the novel about ships, and then I slept well.",
            f"Page {n * 3} is a fine page. Sleep does you good, and the ships will wait for you.",
        )
    ]


def composed(home, question: str, name: str = "c") -> "steering.Turn":
    """Compose the window of a question as `ask` does; no model is asked."""
    turn = steering.steer(home, ask.Asked(question, name, surface="chat"), name)
    engine = home.models.engine("primary")
    turn.role, turn.engine, turn.model = "primary", engine.name, engine.model
    prompting.compose_for(home, turn, engine)
    return turn


def move(home, made) -> None:
    """Keep where the window begins, as storing the turn does."""
    home.db.write(
        lambda conn: sessions.moved(conn, 1, anchor_seq=made.anchor, summary=made.summary, at_ms=AT)
    )


def come_back(home, question: str, name: str = "c", **more) -> list[Hit]:
    vector, space = home.embed(question)
    meaning = None if vector is None or space is None else (vector, space)
    with home.db.read() as conn:
        session = sessions.load(conn, name)
        return details.detail(conn, session, question, 1500, meaning, **more)


def kept(home) -> list[tuple]:
    with home.db.read() as conn:
        return rows(conn, "SELECT from_seq, upto_seq, text, rolling, because, model FROM summaries"
                          " ORDER BY conversation_id, upto_seq")  # fmt: skip


def items(home) -> list[tuple]:
    with home.db.read() as conn:
        return rows(conn, "SELECT uid, text FROM items WHERE kind = 'summary' ORDER BY uid")


# --- blocks -------------------------------------------------------------------------------------


def turn(number: int, role: str, text: str) -> Turn:
    return Turn(ChatMessage(role, text), "history", (), number, number + 100)


SIZES = summaries.Sizes(block=60, after=120, rolling=80)
lengths = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 400)), min_size=1, max_size=40)


@given(lengths)
def test_blocks_made_one_by_one_are_those_that_are_made_at_once(asked) -> None:
    said: list[Turn] = []
    made: list[summaries.Block] = []
    for n, (question, answer) in enumerate(asked):
        said.append(turn(2 * n, "user", "a" * question))
        if answer:
            said.append(turn(2 * n + 1, "assistant", "b" * answer))
        upto = made[-1].upto if made else -1
        made += summaries.blocks([t for t in said if t.seq > upto], SIZES, upto, -1)
    assert made == summaries.blocks(said, SIZES, -1, -1)
    told = [each for block in made for each in block.turns]
    assert told == said[: len(told)]  # nothing is left out, nothing twice
    assert all(block.turns[0].role == "user" for block in made)
    left = sum(estimate_tokens(t.text) + 8 for t in said[len(told) :])
    assert not made or left >= SIZES.after


def test_what_has_left_the_window_is_due_however_little_was_said_after_it() -> None:
    said = [turn(n, ("user", "assistant")[n % 2], "word " * 30) for n in range(8)]
    assert summaries.blocks(said, SIZES, -1, -1) != summaries.blocks(said, SIZES, -1, 7)
    assert summaries.blocks(said, SIZES, -1, 7)[-1].upto == 7


def test_the_default_budgets_hold_in_a_window_of_4096() -> None:
    settings = Settings()
    budgets = Budgets(
        4096, system=152, memory=settings.context.memory_tokens,
        recalled=settings.ask.recalled_tokens, question=settings.ask.question_tokens,
        history=settings.ask.history_tokens, summary=settings.context.summary_tokens,
        answer=settings.engine.max_tokens,
    )  # fmt: skip
    assert budgets.fitted() == budgets
    assert (budgets.memory, budgets.history, budgets.recalled, budgets.question) == (
        500, 1500, 1000, 500
    )  # fmt: skip
    assert budgets.rolling == 300  # of the 1,500
    instructions = prompting._instructions(False, "A Person With A Long Name", AT, None)
    assert estimate_tokens(instructions) <= 4096 - 3500 - 4096 // 10


# --- made ahead ---------------------------------------------------------------------------------


def test_a_block_is_summarised_before_it_falls_with_what_each_line_rests_on(large) -> None:
    ids = talk(large, chatter(0, 30))
    made = summaries.ahead(large, "c")
    assert made > 0 and summaries.ahead(large, "c") == 0
    with large.db.read() as conn:
        session = sessions.load(conn, "c")
        assert session.anchor_seq == -1 and session.ready  # nothing has fallen yet
        for _, upto, text, rolling, because, model in kept(large):
            assert model == "extractive" and text
            lines = rolling.splitlines()
            assert len(lines) == len(json.loads(because))
            for line, rests in zip(lines, json.loads(because), strict=True):
                said = archive.messages(conn, rests)
                assert set(rests) <= set(ids) and all(m.seq <= upto for m in said.values())
                words = line.partition(": ")[2].removesuffix(" […]")
                assert any(words in " ".join(m.text.split()) for m in said.values())
    assert len(items(large)) == made


def test_a_summary_is_found_by_its_words_and_leads_to_its_messages(large) -> None:
    talk(large, ["My sister Ana was born in Coimbra on 3 May 1988.", "Noted.", *chatter(0, 30)])
    summaries.ahead(large, "c")
    hits = large.search(Query("When was Ana born in Coimbra?", kinds=("summary",)))
    assert hits and hits[0].kind == "summary" and "Ana was born" in hits[0].text
    assert hits[0].message_ids


def test_when_the_window_moves_the_summary_that_is_ready_takes_its_place(large) -> None:
    talk(large, ["My sister Ana was born in Coimbra on 3 May 1988.", "Noted.", *chatter(0, 45)])
    summaries.ahead(large, "c")
    large.db.write(lambda conn: conn.execute(
        "UPDATE summaries SET rolling = '- the person: READY ' || upto_seq,"
        " because = json_array(json_array(1))"))  # fmt: skip
    before = composed(large, "Hello again, tell me of the ships.")
    assert before.anchor > -1
    uptos = [row[1] for row in kept(large) if row[1] <= before.anchor]
    assert f"READY {uptos[-1]}" in before.context.messages[0].content
    assert f"READY {uptos[-1]}" in before.summary.text and before.summary.because[0] == (1,)


def test_rebuilding_gives_the_same_summaries_and_the_same_items(large) -> None:
    talk(large, chatter(0, 20))
    summaries.ahead(large, "c")
    talk(large, chatter(20, 40), 40)
    talk(large, chatter(0, 25), 0, "other")
    summaries.ahead(large, "c")
    summaries.ahead(large, "other")
    before = kept(large), items(large)
    assert before[0] and before[1]
    assert summaries.rebuild(large)["blocks"] == len(before[0])
    assert (kept(large), items(large)) == before

    def wipe(conn):
        memory.drop_summary_items(conn, [r[0] for r in rows(conn, "SELECT id FROM items")])
        conn.execute("DELETE FROM summaries")

    large.db.write(wipe)
    assert items(large) == []
    summaries.rebuild(large)
    assert (kept(large), items(large)) == before


def test_what_was_forgotten_while_a_summary_was_made_is_in_none(large, monkeypatch) -> None:
    talk(large, [*TOLD, *chatter(0, 30)])
    derive = summaries._derive

    def slowly(*given):
        for made in derive(*given):
            large.db.write(lambda conn: archive.retire(conn, 1, "m0", AT))
            yield made

    monkeypatch.setattr(summaries, "_derive", slowly)
    assert summaries.ahead(large, "c") == 0 and kept(large) == []
    monkeypatch.setattr(summaries, "_derive", derive)
    assert summaries.ahead(large, "c") > 0
    assert not any("green boiler" in row[2] for row in kept(large))


def test_blocks_of_another_embedder_are_embedded_anew(large) -> None:
    talk(large, chatter(0, 30))
    summaries.ahead(large, "c")

    def of_whom():
        with large.db.read() as conn:
            return set(rows(conn, "SELECT embedder, length(vectors) > 0 FROM summaries"))

    before = of_whom()
    assert len(before) == 1 and before == {(large.serving()[0].fingerprint, 1)}
    large.db.write(lambda conn: conn.execute("UPDATE summaries SET embedder='old', vectors=NULL"))
    assert summaries.ahead(large, "c") == 0 and of_whom() == before


def test_a_short_look_tells_whether_a_summary_may_be_due(large) -> None:
    found = summaries.sizes(large.settings, 4096)
    assert found is not None

    def due():
        with large.db.read() as conn:
            number = archive.find_conversation(conn, "knowme", "c")
            return summaries.due(conn, number, found)

    talk(large, chatter(0, 4))
    assert not due()
    talk(large, chatter(4, 30), 8)
    assert due()
    summaries.ahead(large, "c")
    assert not due()


def test_without_turns_or_summaries_in_the_prompt_none_is_made(tmp_path) -> None:
    Home.create(tmp_path / "home")
    without = {**LARGE_MODEL, "context.strategies": ["recent", "recall"]}
    with Home.open(tmp_path / "home", without) as home:
        talk(home, chatter(0, 30))
        assert summaries.ahead(home, "c") == 0 and kept(home) == []
        with home.db.read() as conn:
            assert not summaries.due(conn, 1, summaries.sizes(home.settings, 4096))


# --- what a model words -------------------------------------------------------------------------


SAID = [
    turn(0, "user", "I will move to Porto on 3 May with my sister Ana."),
    turn(1, "assistant", "Then book the lorry of Silva for 400 euros."),
]


def lines(*told) -> str:
    return json.dumps({"lines": [{"turns": list(turns), "text": text} for turns, text in told]})


def test_a_line_of_a_model_stays_where_its_turns_bear_it_out() -> None:
    made = summaries.borne_out(
        lines(([1], "The person will move to Porto on 3 May with Ana."),
              ([2], "Book the lorry of Silva for 400 euros.")),
        SAID, {},
    )  # fmt: skip
    assert made.text.splitlines() == [
        "- the person: The person will move to Porto on 3 May with Ana.",
        "- the assistant: Book the lorry of Silva for 400 euros.",
    ]
    assert made.because == ((100,), (101,))


@pytest.mark.parametrize(
    "told",
    [
        lines(([1], "The person will move to Lisbon on 3 May.")),
        lines(([1], "The person will move to Porto on 5 May.")),
        lines(([2], "Book the lorry of Silva for 4000 euros.")),
        lines(([2], "The person will move to Porto on 3 May.")),  # of another turn
        lines(([1], "The weather is lovely and everybody feels happy today.")),
        lines(([7], "The person will move to Porto.")),
        lines(([], "The person will move to Porto.")),
        lines(([1], "The person")),
        '{"lines": [{"turns": [1]',
        "[]",
        "",
        '{"lines": 3}',
    ],
)
def test_a_line_that_its_turns_do_not_bear_out_is_left_out(told) -> None:
    assert summaries.borne_out(told, SAID, {100: date(2026, 5, 1)}) == Summary()


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_words_only_what_its_turns_hold(models, tmp_path) -> None:
    from knowme.gate import uncovered

    Home.create(tmp_path / "home")
    with_model = {"embedder.kind": "hashing", "engine.kind": "llamacpp",
                  "engine.model": str(models["chat"]), "context.summaries": "model"}  # fmt: skip
    told = ["My sister Ana lives in Berlin and works for a bank since March 2024.",
            "Berlin is a large city. Does she like it there?",
            "She does, but she will move to Porto on 3 May because of Rui.",
            "Porto is smaller, and it is close to the sea."]  # fmt: skip
    with Home.open(tmp_path / "home", with_model) as home:
        talk(home, told * 4 + chatter(0, 14))
        assert summaries.ahead(home, "c") > 0
        with home.db.read() as conn:
            for text, because, model in rows(
                conn, "SELECT rolling, because, model FROM summaries ORDER BY upto_seq LIMIT 1"
            ):
                assert text and model
                lines = text.splitlines()
                for line, rests in zip(lines, json.loads(because), strict=True):
                    said = archive.messages(conn, rests).values()
                    quote = "\n".join(each.text for each in said)
                    assert not uncovered(line.partition(": ")[2], quote, None, ("the person",))


# --- the turns that come back -------------------------------------------------------------------


TOLD = ["The key of the cellar hangs behind the green boiler.", "I shall remember that."]
ANSWERED = ["What shall I cook for Marta?", "Cook the cataplana with 800 grams of clams."]


def long_talk(home) -> None:
    talk(home, [*TOLD, *ANSWERED, *chatter(0, 60)])
    move(home, composed(home, "hello"))
    summaries.ahead(home, "c")


def test_a_turn_that_left_the_window_comes_back_whoever_said_it(large) -> None:
    long_talk(large)
    assert come_back(large, "Where does the key of the cellar hang?")[0].text == TOLD[0]
    found = come_back(large, "How many grams of clams for the cataplana?")
    assert found[0].text == ANSWERED[1] and found[0].role == "assistant"
    assert "800 grams of clams" in composed(
        large, "How many grams of clams did you say?"
    ).context.messages[-1].content  # fmt: skip


def test_a_reply_comes_back_with_the_question_that_it_replies_to(large) -> None:
    talk(large, ["Which wine goes with the fish of Sunday?", "Alvarinho.", *chatter(0, 60)])
    found = come_back(large, "Which wine goes with the fish?")
    assert "Alvarinho." in [hit.text for hit in found[:4]]


def test_nothing_comes_back_while_everything_is_in_the_window(large) -> None:
    talk(large, [*TOLD, *ANSWERED])
    assert come_back(large, "Where does the key of the cellar hang?") == []


def test_the_same_question_asked_before_does_not_come_back(large) -> None:
    question = "Where does the key of the cellar hang?"
    talk(large, [question, "I do not know.", *TOLD, *chatter(0, 60)])
    found = [hit.text for hit in come_back(large, question)]
    assert TOLD[0] in found and question not in found


def test_a_dated_question_prefers_the_turns_of_that_day(large) -> None:
    def write(conn):
        for n in range(100):
            record = Record("message", "c", f"d{n}", "user", text="I went to swim in the lake.",
                            at_ms=AT + n * 86_400_000, seq=n, meta={"sent": False})  # fmt: skip
            number = archive.put_conversation(conn, "knowme", record, AT)
            archive.put(conn, number, record, AT)

    large.db.write(write)
    found = come_back(large, "Did I swim on 28 November 2026?", at_ms=AT + 10**10)
    assert found[0].at_ms == AT + 10 * 86_400_000  # AT is the 18th


def test_scripts_without_spaces_come_back_too(large) -> None:
    talk(large, ["地下室の鍵は緑のボイラーの後ろにあります。", "わかりました。", *chatter(0, 60)])
    assert "ボイラー" in come_back(large, "地下室の鍵はどこ?")[0].text


def test_a_turn_that_comes_back_keeps_its_class(large) -> None:
    """An answer that rests on memory that may not leave does not leave as a quotation either."""

    def write(conn):
        say(conn, 0, "user", "Which pump did I choose?")
        say(conn, 1, "assistant", "The Vaillant pump of 8,400 euros.", rests_on=["recalled:notes"])
        say(conn, 2, "user", "And what is the capital of Peru?", sent=True)
        say(conn, 3, "assistant", "Lima is the capital of Peru.", local=False)

    large.db.write(write)
    talk(large, chatter(0, 60), 4)
    session_at = {"Vaillant": ("recalled", ["notes"]), "Lima": ("sent", [])}
    found = come_back(large, "The Vaillant pump and Lima, the capital of Peru?")
    for word, (cls, sources) in session_at.items():
        hit = next(hit for hit in found if word in hit.text)
        assert (hit.metadata["turn"], hit.metadata["rests_on"]) == (cls, sources)

    def shown(*allowed):
        from knowme.context import compose

        made = compose("s", (), (), found, "q", Budgets(4096), estimate_tokens,
                       may=lambda cls: cls in ("question", *allowed))  # fmt: skip
        return made.context

    assert "Vaillant" not in shown("history").messages[-1].content
    assert "Vaillant" not in shown("recalled:notes").messages[-1].content
    both = shown("history", "recalled:notes")
    assert "Vaillant" in both.messages[-1].content and "recalled:notes" in both.classes
    assert "Lima is" in shown("sent").messages[-1].content
    assert "recalled:knowme" not in both.classes


# --- compressing now, and showing ---------------------------------------------------------------


def test_compressing_now_leaves_the_last_exchanges_and_deletes_nothing(large) -> None:
    talk(large, ["My sister Ana was born in Coimbra on 3 May 1988.", "Noted.", *chatter(0, 8)])
    done = summaries.compress_now(large)
    assert done.conversation == "c" and done.turns_before == 18 and done.turns_after == 4
    assert done.tokens_after < done.tokens_before and "Coimbra" in done.summary
    with large.db.read() as conn:
        session = sessions.load(conn, "c")
        assert len(session.turns) == 4 and session.summary == done.summary
        assert value(conn, "SELECT count(*) FROM messages WHERE retired_ms IS NULL") == 18
    again = summaries.compress_now(large, "c")
    assert again.turns_before == again.turns_after == 4
    with pytest.raises(NotFoundError):
        summaries.compress_now(large, "nobody")


@pytest.fixture
def knowme(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KNOWME_HOME", str(tmp_path / "home"))

    def call(*args):
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        return code, *capsys.readouterr()

    assert call("init", "--no-detect")[0] == 0
    (tmp_path / "home" / "config.yaml").write_text(
        "embedder: {kind: hashing}\nengine: {kind: echo}\nask: {quote_first: never}\n", "utf-8"
    )
    return call


def test_context_show_prints_the_window_with_its_tokens(knowme, tmp_path) -> None:
    with Home.open(tmp_path / "home") as home:
        talk(home, [*TOLD, *chatter(0, 60)])
    code, out, err = knowme("context", "show", "Where", "is", "the", "cellar", "key?", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["conversation"] == "c" and told["window"] == 4096 and told["role"] == "primary"
    parts = {name: many for name, many in told["tokens"].items() if many}
    assert {"system", "history", "summary", "recalled", "question", "answer"} <= set(parts)
    assert sum(parts.values()) <= 4096
    assert TOLD[0] in told["messages"][-1]["content"] and told["dropped"]
    code, out, err = knowme("context", "--conversation", "c")
    assert code == 0, err
    assert "a window of 4,096 tokens" in out and "summary of earlier turns" in out
    assert "older than the window" in out


def test_context_compress_prints_before_and_after(knowme, tmp_path) -> None:
    with Home.open(tmp_path / "home") as home:
        talk(home, [*TOLD, *chatter(0, 8)])
    code, out, err = knowme("context", "compress")
    assert code == 0, err
    assert "before: 18 turns" in out and "after:  4 turns" in out and "green boiler" in out
    code, _, err = knowme("context", "compress", "nobody")
    assert code != 0 and "nobody" in err


# --- for ever -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_conversation_of_2000_turns_stays_in_the_window_and_forgets_nothing(large) -> None:
    """Every prompt fits; what was said at turn 12 stands in that of turn 1,990 word for word."""
    told = "My boat is called Gaivota and lies at berth 47 in Aveiro."
    only_answered = "The code of the harbour gate that you gave the guard was 7315, as you wished."
    texts = chatter(0, 1000)
    texts[12], texts[31] = told, only_answered

    def add(first, last):
        talk(large, texts[first:last], first)

    engine = large.models.engine("primary")
    most = 0
    for end in range(8, 1992, 8):
        add(end - 8, end)
        made = composed(large, f"What was on page {end}?")
        tokens = made.context.tokens
        spent = sum(engine.count_tokens(m.content) + 8 for m in made.context.messages)
        most = max(most, spent)
        assert spent + tokens["answer"] <= engine.context_tokens
        assert tokens["history"] + tokens["summary"] <= 1500
        move(large, made)
        if end % 40 == 0:
            summaries.ahead(large, "c")
    assert most > 2000  # it was full, all the same

    async def asked(question):
        answer = ""
        async for event in ask.ask(large, ask.Asked(question, "c", surface="chat")):
            if isinstance(event, ask.Done):
                answer = event.answer
        return receipts.why(large)["prompt"][-1]["content"], answer

    prompt, answer = asyncio.run(asked("What is my boat called and where does it lie?"))
    assert told in prompt and told in answer
    prompt, answer = asyncio.run(asked("Which code of the harbour gate did you tell me?"))
    assert only_answered in prompt and only_answered in answer
    with large.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM messages WHERE retired_ms IS NULL") >= 1988
        assert len(exchanges(sessions.load(conn, "c").turns)) < 40
