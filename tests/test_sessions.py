import asyncio
import json
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import archive, memory
from knowme.compress import Summary
from knowme.context import Budgets, Turn, compose
from knowme.db import Database
from knowme.errors import NotFoundError
from knowme.sessions import (
    ANYTHING,
    Locks,
    Session,
    detail,
    listed,
    load,
    moved,
    remember_thread,
    thread_of,
    told,
)
from knowme.types import ChatMessage, Record, ToolCall

AT = 1_795_000_000_000


@pytest.fixture
def db(tmp_path):
    database = Database(tmp_path / "memory.db")
    yield database
    database.close()


def say(conn, name: str, role: str, text: str, at_ms: int = AT, **meta) -> int:
    record = Record("message", name, f"{text[:20]}:{at_ms}:{role}", role, text=text, at_ms=at_ms,
                    seq=-1, meta=meta)  # fmt: skip
    return archive.put(
        conn, archive.put_conversation(conn, "knowme", record, at_ms), record, at_ms
    )[0]


def answered(conn, name, question, answer, at_ms=AT, *, receipt=None, model="m", **meta) -> int:
    """Store a question with its answer as `ask` does. Returns the number of the receipt."""
    of_it = {key: meta[key] for key in ("sent", "images") if key in meta}
    asked = say(conn, name, "user", question, at_ms, **of_it)
    about = {key: meta[key] for key in ("local", "rests_on") if key in meta}
    said = say(conn, name, "assistant", answer, at_ms + 1, **about)
    conversation = archive.find_conversation(conn, "knowme", name)
    conn.execute(
        "INSERT INTO answers(conversation_id, question_id, answer_id, surface, state, model, usage,"
        " receipt, asked_ms, took_ms) VALUES(?,?,?,'chat','done',?,'{}',?,?,12)",
        (conversation, asked, said, model, json.dumps(receipt or {"local": True}), at_ms),
    )
    number = conn.last_insert_rowid()
    moved(conn, conversation, model="primary", surface="chat", at_ms=at_ms)
    return number


def at_home(*sources: str) -> dict:
    return {"local": True, "sent": False, "rests_on": [*sources]}


# --- loading --------------------------------------------------------------------------------


def test_an_unknown_conversation_is_an_empty_one(db) -> None:
    with db.read() as conn:
        assert load(conn, "nobody") == Session("nobody")


def test_turns_come_with_what_they_are_to_a_model_that_is_not_at_home(db) -> None:
    def fill(conn) -> None:
        answered(conn, "c", "q1", "at home", AT, **at_home())
        answered(
            conn, "c", "q2", "of notes", AT + 10, **at_home("recalled:notes", "recalled", "memory")
        )
        answered(conn, "c", "q3", "elsewhere", AT + 20, local=False, sent=True, rests_on=[])
        say(conn, "c", "user", "failed elsewhere", AT + 30, sent=True)

    db.write(fill)
    with db.read() as conn:
        turns = load(conn, "c").turns
    assert [(turn.text, turn.cls, turn.sources) for turn in turns] == [
        ("q1", "history", ()), ("at home", "history", ()),
        ("q2", "history", ()), ("of notes", "recalled", ("notes", "", ":memory")),
        ("q3", "sent", ()), ("elsewhere", "sent", ()),
        ("failed elsewhere", "sent", ()),
    ]  # fmt: skip
    assert [turn.seq for turn in turns] == list(range(7)) and all(t.message_id for t in turns)


def test_of_rows_from_before_the_receipt_tells_and_what_nobody_knows_is_kept_closest(db) -> None:
    def fill(conn) -> None:
        note = say(conn, "notes", "user", "I chose a heat pump.")
        (item,) = memory.add_items(conn, [note])
        (uid,) = conn.execute("SELECT uid FROM items WHERE id = ?", (item,)).fetchone()
        used = {"local": True, "used": [{"uid": uid}, {"uid": "gone"}]}
        answered(conn, "c", "q1", "plain", AT)
        answered(conn, "c", "q2", "a pump", AT + 10, receipt=used)
        answered(conn, "c", "q3", "as I said, a pump", AT + 20)
        answered(conn, "c", "q4", "from the cloud", AT + 30, receipt={"local": False})
        say(conn, "c", "user", "q5", AT + 40)
        say(conn, "c", "assistant", "of no receipt", AT + 50)

    db.write(fill)
    with db.read() as conn:
        classes = {turn.text: (turn.cls, turn.sources) for turn in load(conn, "c").turns}
    assert classes["plain"] == classes["q2"] == ("history", ())
    assert classes["a pump"] == ("recalled", ("", "knowme"))
    assert classes["as I said, a pump"] == ("recalled", ("", "knowme"))
    assert classes["q4"] == classes["from the cloud"] == ("sent", ())
    assert classes["of no receipt"] == ANYTHING


def test_a_question_without_words_is_no_turn_of_its_own(db) -> None:
    def fill(conn) -> None:
        say(conn, "c", "user", "look at x", AT, sent=False)
        answered(conn, "c", "", "It is a pump.", AT + 10, **at_home())

    db.write(fill)
    with db.read() as conn:
        assert [turn.text for turn in load(conn, "c").turns] == ["look at x", "It is a pump."]


def test_what_was_retired_is_no_turn(db) -> None:
    def fill(conn) -> None:
        answered(conn, "c", "q1", "a1", AT, **at_home())
        archive.retire(
            conn, archive.find_conversation(conn, "knowme", "c"), f"a1:{AT + 1}:assistant", AT
        )

    db.write(fill)
    with db.read() as conn:
        assert [turn.text for turn in load(conn, "c").turns] == ["q1"]


# --- anchor and summary ---------------------------------------------------------------------


def number_of(conn, name="c") -> int:
    return archive.find_conversation(conn, "knowme", name)


def test_the_window_begins_behind_the_anchor_and_the_anchor_never_moves_back(db) -> None:
    def fill(conn) -> None:
        for n in range(4):
            answered(conn, "c", f"q{n}", f"a{n}", AT + n * 10, **at_home())
        moved(
            conn,
            number_of(conn),
            anchor_seq=3,
            summary=Summary("- the person: q0", ((1,),)),
            at_ms=AT,
        )
        moved(
            conn, number_of(conn), anchor_seq=-1, summary=Summary("nothing"), model="code", at_ms=AT
        )
        moved(conn, number_of(conn), anchor_seq=3, summary=Summary("cut"), at_ms=AT)

    db.write(fill)
    with db.read() as conn:
        session = load(conn, "c")
    assert session.anchor_seq == 3 and session.summary == "- the person: q0"
    assert [turn.text for turn in session.turns] == ["q2", "a2", "q3", "a3"]
    assert session.model == "code" and session.surface == "chat"


def test_a_summary_without_an_anchor_is_not_kept(db) -> None:
    def fill(conn) -> None:
        say(conn, "c", "user", "q")
        moved(conn, number_of(conn), summary=Summary("of a client's turns", ((),)), at_ms=AT)

    db.write(fill)
    with db.read() as conn:
        assert load(conn, "c").earlier == Summary()


def test_a_summary_knows_the_memory_that_its_lines_repeat(db) -> None:
    def fill(conn) -> None:
        answered(conn, "c", "q", "a pump", AT, **at_home("recalled:notes"))
        answer = conn.execute("SELECT id FROM messages WHERE role = 'assistant'").fetchone()[0]
        moved(conn, number_of(conn), anchor_seq=1, at_ms=AT,
              summary=Summary("- the assistant: a pump", ((answer,),)))  # fmt: skip

    db.write(fill)
    with db.read() as conn:
        part = load(conn, "c").part()
    assert part is not None and part.cls == "summary" and part.sources == ("notes",)


def test_a_conversation_goes_on_over_the_store_as_it_does_in_memory(db) -> None:
    def count(text: str) -> int:
        return len(text.split())

    # Once something has left, the summary takes its 80 tokens from those of the turns.
    budgets = Budgets(4096, history=280, summary=80)
    jumps, before = 0, ""
    for n in range(30):
        with db.read() as conn:
            session = load(conn, "c")
        made = compose("s", (), session.turns, [], f"question {n}?", budgets, count,
                       anchor=session.anchor_seq, earlier=session.earlier)  # fmt: skip
        begins = "".join(message.content for message in made.context.messages[:-1])
        jumps += not begins.startswith(before)
        assert begins.startswith(before) or made.anchor > session.anchor_seq
        before = begins

        def store(conn, n=n, made=made) -> None:
            text = f"My number {n} is {n * 7}. " + "and so on " * 6
            answered(conn, "c", f"question {n}?", text, AT + n * 10, **at_home())
            moved(conn, number_of(conn), anchor_seq=made.anchor, summary=made.summary, at_ms=AT)

        db.write(store)
    assert 2 <= jumps <= 10
    with db.read() as conn:
        session = load(conn, "c")
        assert session.summary and all(archive.messages(conn, session.earlier.messages))


# --- clients that keep the conversation themselves ------------------------------------------


def u(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def a(text: str, *calls: ToolCall) -> ChatMessage:
    return ChatMessage("assistant", text, tool_calls=calls)


def remember(db, messages, name, at_ms=AT) -> None:
    def write(conn) -> None:
        say(conn, name, "user", "x", at_ms)
        remember_thread(conn, messages, name, at_ms)

    db.write(write)


def found(db, *messages) -> str | None:
    with db.read() as conn:
        return thread_of(conn, messages)


def test_a_chat_is_found_again_by_our_last_answer_however_a_client_spaces_it(db) -> None:
    remember(db, [u("Olá"), a("Sim.\n\nClaro, caf\u00e9.")], "one")
    assert found(db, u("Olá "), a("Sim. Claro, cafe\u0301."), u("more")) == "one"
    assert found(db, u("Olá"), a("Not what we said."), u("more")) is None
    assert found(db, u("Olá")) is None


def test_a_chat_is_found_at_every_turn_and_through_its_tools(db) -> None:
    call = ToolCall("id1", "look", '{"b": 1, "a": 2}')
    again = ToolCall("other-id", "look", '{"a":2,"b":1}')
    remember(db, [u("q"), a("", call)], "one", AT)
    result = ChatMessage("tool", "result", tool_call_id="id1")
    assert found(db, u("q"), a("", again), result) == "one"
    remember(db, [u("q"), a("", call), result, a("done")], "one", AT + 5)
    assert found(db, u("q"), a("", again), a("done"), u("next")) == "one"


def test_two_chats_that_begin_alike_stay_apart(db) -> None:
    remember(db, [u("hi"), a("Hello!")], "one", AT)
    remember(db, [u("hi"), a("Hello!"), u("about ships"), a("Ships.")], "one", AT + 10)
    assert found(db, u("hi"), a("Hello!"), u("about bread")) is None
    remember(db, [u("hi"), a("Hello!")], "two", AT + 20)
    assert found(db, u("hi"), a("Hello!"), u("about bread")) == "two"
    remember(db, [u("hi"), a("Hello!"), u("about bread"), a("Bread.")], "two", AT + 30)
    assert found(db, u("hi"), a("Hello!"), u("about ships"), a("Ships."), u("more")) == "one"
    assert found(db, u("hi"), a("Hello!"), u("about bread"), a("Bread."), u("more")) == "two"


def test_asking_again_or_asking_something_else_there_finds_the_conversation(db) -> None:
    chat = [u("hi"), a("Hello!"), u("ships?"), a("Ships."), u("and boats?"), a("Boats.")]
    for many in (2, 4, 6):
        remember(db, chat[:many], "one", AT + many)
    assert found(db, *chat[:5]) == "one"  # the last answer dropped
    assert found(db, *chat[:3]) == "one"  # two of them
    assert found(db, *chat[:4], u("and rafts?")) == "one"  # the last question edited
    assert found(db, *chat[:5], a("An edited answer."), u("next")) == "one"
    assert found(db, u("hi"), a("Hello!"), u("ships?"), a("Edited."), u("next")) == "one"


def test_what_a_client_adds_to_a_message_does_not_lose_the_chat(db) -> None:
    runtime = "\n\nRuntime: agent=main | host=vm"
    internal = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nx\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>"
    remember(db, [u(f"[Sat 2026-11-21 09:52 UTC] q{runtime}"), u(internal), a("yes")], "one")
    assert found(db, u(f"[Sat 2026-11-21 09:52 UTC] q{runtime}"), a("yes"), u("next")) == "one"


chats = st.lists(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=1, max_size=4),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chats, st.randoms(use_true_random=False))
def test_chats_in_any_order_never_mix_what_was_said(tmp_path_factory, many, random) -> None:
    """Each conversation that we keep is one chat that a client could have had, word for word."""
    database = Database(tmp_path_factory.mktemp("threads") / "memory.db")
    kept: dict[str, list[str]] = {}
    at = [0] * len(many)
    clock = AT
    try:
        while left := [n for n, chat in enumerate(many) if at[n] < len(chat)]:
            n = random.choice(left)
            pairs = many[n][: at[n] + 1]
            said = [message for q, r in pairs for message in (u(q), a(r))]
            name = found(database, *said[:-1]) or f"s{len(kept)}"
            clock += 1
            remember(database, said, name, clock)
            texts = [message.content for message in said]
            before = kept.get(name, [])
            # What was kept under this name is how this chat began; if it went on in another way,
            # they have more than one exchange in common: the next question, too.
            common = 0
            for x, y in zip(before, texts, strict=False):
                if x != y:
                    break
                common += 1
            assert common == len(before) or common >= 3
            kept[name] = texts
            at[n] += 1
    finally:
        database.close()


def test_the_turns_of_a_client_are_known_again_by_their_words(db) -> None:
    def fill(conn) -> None:
        answered(conn, "c", "what heating?", "A pump.", AT, **at_home("recalled:notes"))
        answered(conn, "c", "away?", "Away.", AT + 10, local=False, sent=True)

    db.write(fill)
    messages = [u("what  heating?"), a("A pump. "), u("away?"), a("Away."), u("new"), a("edited")]
    with db.read() as conn:
        turns = told(conn, "c", messages)
        strange = told(conn, "", messages)
    assert [turn.message for turn in turns] == messages
    assert [(turn.cls, turn.sources) for turn in turns] == [
        ("history", ()), ("recalled", ("notes",)), ("sent", ()), ("sent", ()),
        ("history", ()), ANYTHING,
    ]  # fmt: skip
    assert turns[0].message_id and not turns[4].message_id
    assert [turn.cls for turn in strange] == ["history", "recalled"] * 3
    assert isinstance(strange[0], Turn)


def test_a_picture_did_not_go_where_only_its_question_went(db) -> None:
    def fill(conn) -> None:
        answered(conn, "c", "What is this?", "A knot.", local=False, sent=True)
        answered(conn, "d", "What is this?", "A cat.", local=False, sent=True, images=1)

    db.write(fill)
    seen = ChatMessage("user", "What is this?", ("data:image/png;base64,QUJD",))
    with db.read() as conn:
        assert [turn.cls for turn in told(conn, "c", [u("What is this?"), seen])] == [
            "sent", "history",
        ]  # fmt: skip
        assert [turn.cls for turn in told(conn, "d", [seen])] == ["sent"]


def test_a_call_of_a_tool_has_the_class_of_whoever_made_it(db) -> None:
    def call(q: str) -> dict:
        return {"id": "x", "name": "search", "arguments": json.dumps({"q": q})}

    def fill(conn) -> None:
        here = {"local": True, "classes": ["question", "history", "recalled:notes", "files"]}
        answered(conn, "c", "a?", "A.", receipt={**here, "tool_calls": [call("pump"), call("b")]})
        away = {"local": False, "classes": ["question"], "tool_calls": [call("knot"), call("b")]}
        answered(conn, "c", "b?", "B.", AT + 10, receipt=away)

    def said(q: str, text: str = "") -> ChatMessage:
        return a(text, ToolCall("other", "search", f'{{ "q":"{q}" }}'))

    db.write(fill)
    result = ChatMessage("tool", "Found.", tool_call_id="x")
    rests = ("recalled", ("notes", ":files"))
    cases = {said("pump"): rests, said("knot"): ("sent", ()), said("b"): rests,
             said("?"): ANYTHING, said("knot", "edited"): ANYTHING}  # fmt: skip
    for message, expected in cases.items():
        with db.read() as conn:
            turns = told(conn, "c", [u("go"), message, result, result])
        assert (turns[1].cls, turns[1].sources) == expected
        after = "sent" if expected == ("sent", ()) else "history"
        assert [turn.cls for turn in turns[2:]] == [after, after]


def test_an_answer_from_elsewhere_goes_again_while_what_it_rests_on_may(db) -> None:
    def fill(conn) -> None:
        rests = ["recalled:notes", "memory"]
        answered(conn, "c", "a?", "8,400 euros.", local=False, sent=True, rests_on=rests)
        answered(conn, "c", "b?", "Away.", AT + 10, local=False, sent=True)

    db.write(fill)
    with db.read() as conn:
        turns = load(conn, "c").turns
    assert [(turn.cls, turn.sources) for turn in turns[1::2]] == [
        ("sent", ("notes", ":memory")), ("sent", ()),
    ]  # fmt: skip
    for allowed in ({"sent", "recalled:notes", "memory"}, {"sent", "memory"}, {"sent"}):
        budgets = Budgets(4_000)
        made = compose("s", [], turns, [], "q", budgets, len, may=allowed.__contains__).context
        text = "".join(message.content for message in made.messages)
        assert ("8,400" in text) == (len(allowed) == 3) and "Away." in text
        assert ("recalled:notes" in made.classes) == (len(allowed) == 3)


# --- lists ----------------------------------------------------------------------------------


def test_conversations_are_listed_the_last_used_first(db) -> None:
    def fill(conn) -> None:
        long = (
            "Which heating did I choose for the flat in Bonfim, and what did it cost me in the end?"
        )
        answered(conn, "old", long, "a", AT, model="smol")
        answered(conn, "new", "hello", "a", AT + 5_000)
        answered(conn, "old", "again", "b", AT + 2_000, model="big")
        say(conn, "step-1", "user", "before sessions had rows", AT - 9_000)
        imported = Record("message", "x", "1", "user", text="not ours")
        archive.put(conn, archive.put_conversation(conn, "openclaw", imported, AT), imported, AT)

    db.write(fill)
    with db.read() as conn:
        sessions = listed(conn)
        assert [each["id"] for each in listed(conn, 1)] == ["new"]
        assert [each["id"] for each in listed(conn, 9, before_ms=AT + 5_000)] == ["old", "step-1"]
    assert [each["id"] for each in sessions] == ["new", "old", "step-1"]
    old = sessions[1]
    assert old["title"].startswith("Which heating did I choose") and old["title"].endswith(" …")
    assert (old["turns"], old["models"], old["surfaces"]) == (4, ["smol", "big"], ["chat"])
    assert old["first"] < old["last"] and old["role"] == "primary"


def test_a_conversation_is_shown_with_who_answered_and_why_and_what_it_cost(db) -> None:
    def fill(conn) -> None:
        number = answered(conn, "c", "q", "a", AT, local=False, sent=True)
        for purpose, cost in (("answer", 0.002), ("check", 0.001)):
            conn.execute(
                "INSERT INTO calls(answer_id, at_ms, purpose, role, model, engine, local, stage,"
                " reason, state, cost) VALUES(?, ?, ?, 'cloud', 'big', 'openai', 0, 'rule',"
                " 'code', 'done', ?)",
                (number, AT, purpose, cost),
            )
        conn.execute(
            "INSERT INTO choices(answer_id, at_ms, chosen, local, candidates, stage, category,"
            " propensity) VALUES(?, ?, 'cloud', 0, '[]', 'rule', 'COMPLEX', 1)",
            (number, AT),
        )
        for kind, value in (("down", ""), ("rating", "4")):
            conn.execute("INSERT INTO outcomes(choice_id, at_ms, kind, value)"
                         " VALUES(last_insert_rowid(), ?, ?, ?)" if kind == "down" else
                         "INSERT INTO outcomes(choice_id, at_ms, kind, value) VALUES("
                         "(SELECT max(id) FROM choices), ?, ?, ?)", (AT, kind, value))  # fmt: skip

    db.write(fill)
    with db.read() as conn:
        shown = detail(conn, "c")
    asked, said = shown["messages"]
    assert (asked["role"], asked["text"]) == ("user", "q") and "receipt_id" not in asked
    assert said["model"] == "m" and said["role_of_model"] == "cloud" and said["local"] is False
    assert (said["stage"], said["reason"]) == ("rule", "code")
    assert said["cost"] == pytest.approx(0.003)
    assert said["rating"] == {"kind": "rating", "value": "4"} and said["receipt_id"] == 1


def test_a_conversation_that_is_not_there_is_said_so(db) -> None:
    with db.read() as conn, pytest.raises(NotFoundError, match="'nobody'"):
        detail(conn, "nobody")


# --- one at a time --------------------------------------------------------------------------


def test_a_conversation_is_held_by_one_and_others_are_free() -> None:
    locks, seen = Locks(), []

    async def one(name: str, word: str) -> None:
        async with locks.of(name):
            seen.append(f"{word} in")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(f"{word} out")

    async def all_of_them() -> None:
        await asyncio.gather(one("c", "first"), one("c", "second"), one("d", "other"))

    asyncio.run(all_of_them())
    assert seen.index("first out") < seen.index("second in")
    assert seen.index("other in") < seen.index("first out")
    assert len(locks) == 0


def test_a_lock_is_let_go_by_whoever_fails_or_is_cancelled() -> None:
    locks = Locks()

    async def run() -> None:
        async def fails() -> None:
            async with locks.of("c"):
                raise ValueError

        async def waits() -> None:
            async with locks.of("c"):
                await asyncio.Event().wait()

        with pytest.raises(ValueError):
            await fails()
        holder, waiter = asyncio.create_task(waits()), asyncio.create_task(waits())
        await asyncio.sleep(0)
        assert len(locks) == 1
        waiter.cancel()
        holder.cancel()
        await asyncio.gather(holder, waiter, return_exceptions=True)
        async with locks.of("c"):
            pass

    asyncio.run(run())
    assert len(locks) == 0


def test_each_event_loop_has_locks_of_its_own() -> None:
    locks, failed = Locks(), []

    async def many() -> None:
        for _ in range(50):
            async with locks.of("c"):
                await asyncio.sleep(0)

    def run() -> None:
        try:
            asyncio.run(many())
        except RuntimeError as error:  # "is bound to a different event loop"
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(locks) == 0


def test_a_session_can_lose_its_last_turns_when_they_are_asked_again(db) -> None:
    db.write(lambda conn: answered(conn, "c", "q", "a", AT, **at_home()))
    with db.read() as conn:
        session = load(conn, "c")
    assert replace(session, turns=session.turns[:-2]).turns == ()
