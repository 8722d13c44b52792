"""The teacher: what it is shown, what it may cost, and that nothing unsupported is kept."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import messages_api
import pytest
import served
from messages_api import KEY

from knowme import egress, forget, sync
from knowme.db import rows
from knowme.errors import HomeError, InputError, ModelDownError, ModelError, OfflineError
from knowme.learn import batches, evidence, lessons, paraphrase, submitted, teacher
from knowme.lock import Lock
from knowme.types import PURPOSES, ChatMessage, Record, Usage

FOR_ME, VOICE = PURPOSES
TOLD = (
    "I prefer Rust over Go because of its type system.",
    "I never deploy on Fridays. My sister hates coffee in the morning.",
    "I want you to answer in short sentences.",
    "My colleague Hannelore keeps the wiki, and I write the tests first.",
)
GOOD = (
    ("technical", TOLD[0], "What do I prefer over Go, and why?",
     "You prefer Rust over Go because of its type system."),
    ("style", "I never deploy on Fridays", "When do I never deploy?",
     "You never deploy on Fridays."),
    ("communication", TOLD[2], "How do I want you to answer?",
     "You want me to answer in short sentences."),
)  # fmt: skip
LIES = (
    ("technical", TOLD[0], "What do I prefer?",
     "You prefer Go over Rust because of its type system."),
    ("technical", TOLD[0], "What do I prefer over Go?", "You prefer Haskell over Go."),
    ("style", "I deploy on Fridays", "When do I deploy?", "You deploy on Fridays."),
    ("style", "I never deploy on Fridays", "When do I deploy?", "You deploy on Fridays."),
    ("style", "My sister hates coffee in the morning", "What do I hate in the morning?",
     "You hate coffee in the morning."),
    ("project", "Our new office in Lisbon opens in May", "Where does our office open?",
     "Your new office in Lisbon opens in May."),
    ("decision", TOLD[0], "Why did I leave my wife?",
     "You prefer Rust over Go because of its type system."),
    ("communication", "Sure, I will keep my answers short", "What will I keep short?",
     "You will keep your answers short."),
)  # fmt: skip


def pair(theme, quote, question, answer):
    return {"theme": theme, "quote": quote, "question": question, "answer": answer}


def answer(*found):
    return {"pairs": [pair(*each) for each in found]}


def tell(home, texts=TOLD, source="chats", conversation="one", **meta):
    """Store what the person said, an assistant answering each; returns the ids of theirs."""
    records = []
    for number, text in enumerate(texts):
        at_ms = 1_750_000_000_000 + number * 60_000
        records.append(Record("message", conversation, f"{number}q", "user", text=text, at_ms=at_ms,
                              seq=2 * number, meta=meta))  # fmt: skip
        reply = "Sure, I will keep my answers short."
        records.append(Record("message", conversation, f"{number}a", "assistant", text=reply,
                              at_ms=at_ms + 9, seq=2 * number + 1))  # fmt: skip
    sync.store(home, source, [(record, None) for record in records])
    with home.db.read() as conn:
        sql = (
            "SELECT m.id FROM messages m JOIN conversations c ON c.id = m.conversation_id"
            " WHERE m.role = 'user' AND c.external_id = ? ORDER BY m.seq"
        )
        return [each for (each,) in rows(conn, sql, (conversation,))]


def teach(home, purpose=FOR_ME, confirm=lambda told: True, **more):
    return asyncio.run(
        teacher.teach(home, purpose=purpose, confirm=confirm, poll_seconds=0.01, **more)
    )


def big(server, **more):
    """Settings with a scripted model of OpenAI's wire as the teacher."""
    role = {"engine": "openai", "model": "big", "url": server.url, **more}
    return {"models": {"primary": {"engine": "echo"}, "big": role}, "learn": {"teacher": "big"}}


@pytest.fixture
def taught_by(tmp_path):
    """Give a function that opens a home whose teacher says these answers, one a transcript."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def made(*answers, settings=None, **role):
            said = [[each if isinstance(each, str) else json.dumps(each)] for each in answers]
            server = stack.enter_context(served.model_server(*said))
            given = {**big(server, **role), **(settings or {})}
            home = stack.enter_context(served.home_of(tmp_path / "home", **given))
            return home, server

        yield made


def remote(**more):
    return {"local": "false", "api_key": "sk-test-remote-key-1", **more}


# --- what is kept ---------------------------------------------------------------------------------


def test_what_the_person_said_is_taught_with_its_evidence(taught_by):
    home, server = taught_by(answer(*GOOD))
    ids = tell(home)
    done = teach(home)
    assert (done.transcripts, done.pairs, done.dropped) == (1, 3, {})
    found = list(teacher.taught(home, FOR_ME))
    assert {each.answer for each in found} == {each[3] for each in GOOD}
    assert [each.because for each in found] == [(ids[0],), (ids[1],), (ids[2],)]
    assert all(each.place == "chats/one" and each.kind == "teacher" for each in found)
    assert found[0].labels == ("technical",) and found[0].at_ms == 1_750_000_000_000
    assert not list(teacher.taught(home, VOICE))
    assert server.asked[0]["response_format"]["type"] == "json_schema"


def test_nothing_unsupported_passes(taught_by):
    home, _ = taught_by(answer(*LIES))
    tell(home)
    done = teach(home)
    assert done.pairs == 0 and sum(done.dropped.values()) == len(LIES)
    assert not list(teacher.taught(home, FOR_ME))


def test_in_the_persons_voice_the_answer_is_theirs(taught_by):
    home, server = taught_by(
        answer(
            ("technical", TOLD[0], "What do you prefer over Go?", TOLD[0]),
            ("technical", TOLD[0], "What do you prefer over Go?", GOOD[0][3]),  # "You ..."
        )
    )
    tell(home)
    done = teach(home, VOICE)
    assert done.pairs == 1 and done.dropped[evidence.NOT_COVERED] == 1
    assert [each.answer for each in teacher.taught(home, VOICE)] == [TOLD[0]]
    assert "what the PERSON says, as I" in server.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    "said", ["", "I cannot do that.", "[]", '{"pairs": 3}', '{"pairs": [{"theme": 1}]}', "[" * 9000]
)
def test_an_answer_that_is_none_teaches_nothing_and_is_not_asked_again(taught_by, said):
    home, server = taught_by(said or " ")
    tell(home)
    assert teach(home).pairs == 0
    assert teach(home).confirmed is None and len(server.asked) == 1


def test_of_an_answer_that_was_cut_off_the_whole_pairs_count(taught_by):
    home, _ = taught_by(json.dumps(answer(*GOOD))[:-60])
    tell(home)
    assert teach(home).pairs == 2


def test_other_people_assistants_secrets_and_subagents_are_not_read(taught_by):
    home, server = taught_by(answer())
    tell(home)
    tell(home, ["I am Karl and I like trams very much indeed, every single day of my life"],
         conversation="group", other=True)  # fmt: skip
    tell(home, ["My password: hunter2xY9z! and I like it a lot, I really like it so much, yes"],
         conversation="secret")  # fmt: skip
    tell(home, ["I always do as the main agent says and never ever ask anything back, do I"],
         conversation="sub", subagent=True)  # fmt: skip
    assert teach(home).transcripts == 1
    shown = json.dumps(server.asked)
    assert "Karl" not in shown and "hunter2" not in shown and "main agent" not in shown


def test_a_long_conversation_is_cut_to_the_window_and_all_of_it_is_read(taught_by):
    home, server = taught_by(answer(), context_tokens=2048)
    texts = [f"I keep note number {n} about the garden and the tools in it, as always." for n in
             range(120)]  # fmt: skip
    tell(home, texts)
    done = teach(home)
    assert done.transcripts == len(server.asked) > 2
    said = [each["messages"][-1]["content"] for each in server.asked]
    assert all(len(each) / 3.6 < 2048 for each in said)
    assert all(any(f"number {n} about" in each for each in said) for n in range(120))


def test_only_what_is_new_is_read_the_next_time(taught_by):
    home, server = taught_by(answer(*GOOD))
    tell(home)
    teach(home)
    assert teach(home).confirmed is None
    tell(home, ["I read every error to its end before I change a single line of the code."],
         conversation="two")  # fmt: skip
    assert teach(home).transcripts == 1 and len(server.asked) == 2
    assert "Rust" not in server.asked[1]["messages"][-1]["content"]
    assert teach(home, VOICE).transcripts == 2  # the other purpose has read nothing yet


# --- who teaches ----------------------------------------------------------------------------------


def test_a_small_model_teaches_only_when_it_is_named(home, models):
    from knowme.home import Home

    path = home.path
    with Home.open(path, {"engine.kind": "llamacpp"}) as small:
        with pytest.raises(InputError, match="too small"):
            teacher.chosen(small)
    with Home.open(path, {"engine.kind": "llamacpp", "learn.teacher": "primary"}) as small:
        assert teacher.chosen(small).local


def test_an_echo_is_no_teacher_and_a_theme_that_is_none_is_named(home):
    with pytest.raises(InputError, match="can teach"):
        teacher.chosen(home)
    with pytest.raises(InputError, match="gossip"):
        teach(home, kinds=("gossip",))
    with pytest.raises(InputError, match="purpose"):
        teach(home, "both")


@pytest.mark.model
@pytest.mark.slow
def test_of_what_the_packaged_model_writes_only_what_was_said_is_kept(tmp_path, models):
    settings = {
        "engine": {"kind": "llamacpp", "threads": 1, "context_tokens": 2048},
        "learn": {"teacher": "primary"},
    }
    with served.home_of(tmp_path / "home", **settings) as home:
        tell(home)
        done = teach(home)
        assert done.transcripts == 1
        said = " ".join(TOLD)
        for each in teacher.taught(home, FOR_ME):
            proof, why = evidence.borne_out(
                said, each.question, each.answer, [evidence.Said(1, said)], mine=False
            )
            words = each.answer.lower().replace("you ", "i ").rstrip(".")
            assert words in said.lower() and proof is not None, why
        print("packaged model:", done.pairs, "kept,", dict(done.dropped), "dropped")


# --- what leaves ----------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_estimate_was_confirmed(taught_by):
    home, server = taught_by(answer(*GOOD), **remote(price_in=1.0, price_out=2.0),
                             settings={"privacy": {"recalled": "allow"}})  # fmt: skip
    tell(home)
    seen = []

    def confirm(told):
        assert not server.asked and not sent(home)
        seen.append(told)
        return False

    done = teach(home, confirm=confirm)
    assert done.confirmed is False and not server.asked and not sent(home)
    (told,) = seen
    assert (told.transcripts, told.local, told.where) == (1, False, "the model big")
    assert told.classes == {"recalled:chats": "allow"}
    assert told.cost == pytest.approx((told.prompt_tokens + 2 * told.answer_tokens) / 1e6)
    assert teach(home).pairs == 3  # what was refused was not noted as read


def sent(home):
    with home.db.read() as conn:
        return egress.listed(conn, 100)


def test_what_leaves_stands_in_the_ledger_with_its_classes_and_what_it_cost(taught_by):
    home, server = taught_by(answer(*GOOD), **remote(price_in=1.0, price_out=2.0),
                             settings={"privacy": {"recalled": "allow"}})  # fmt: skip
    tell(home)
    done = teach(home)
    (row,) = sent(home)
    assert row["purpose"] == "teacher" and row["classes"] == {"recalled:chats": "allow"}
    assert row["cost"] == done.cost == pytest.approx((11 + 2 * 7) / 1e6)
    with home.db.read() as conn:
        assert rows(conn, "SELECT purpose, local, state FROM calls") == [("teacher", 0, "done")]


def test_a_source_that_may_not_leave_does_not_and_neither_does_what_is_sensitive(taught_by):
    home, server = taught_by(
        answer(), **remote(),
        settings={"privacy": {"recalled": "allow", "sources": {"diary": "deny"}}},
    )  # fmt: skip
    tell(home)
    tell(home, ["I write my diary by the harbour every evening and I tell nobody about it."],
         source="diary", conversation="d")  # fmt: skip
    tell(home, ["I was diagnosed with diabetes last year and I take insulin twice a day now."],
         conversation="health")  # fmt: skip
    teach(home)
    shown = json.dumps(server.asked)
    assert "Rust" in shown and "harbour" not in shown and "diabetes" not in shown


def test_denied_altogether_nothing_is_even_offered(taught_by):
    home, server = taught_by(answer(), **remote(), settings={"privacy": {"recalled": "deny"}})
    tell(home)
    assert teach(home).confirmed is None and not server.asked


def test_names_go_as_placeholders_and_come_back(taught_by):
    quote = "My colleague [PERSON_1] keeps the wiki, and I write the tests first."
    told = "Your colleague [PERSON_1] keeps the wiki, and you write the tests first."
    home, server = taught_by(
        answer(("project", quote, "Which colleague keeps the wiki?", told)), **remote(),
        settings={"privacy": {"recalled": "placeholders", "names": ["Hannelore"]}},
    )  # fmt: skip
    tell(home)
    teach(home)
    shown = json.dumps(server.asked)
    assert "Hannelore" not in shown and "[PERSON_1]" in shown
    assert [each.answer for each in teacher.taught(home, FOR_ME)] == [
        "Your colleague Hannelore keeps the wiki, and you write the tests first."
    ]


def test_a_conversation_here_leaves_as_history_and_what_it_rests_on_may_keep_it(taught_by):
    home, server = taught_by(
        answer(), **remote(),
        settings={"privacy": {"history": "allow", "recalled": "allow",
                              "sources": {"diary": "deny"}}},
    )  # fmt: skip
    said = [
        Record("message", "t", "q", "user", text=TOLD[0] + " I really mean it, you see.",
               at_ms=1_750_000_000_000, seq=0, meta={"sent": False}),
        Record("message", "t", "a", "assistant", text="You wrote of the harbour.", seq=1,
               at_ms=1_750_000_000_001, recall=False,
               meta={"local": True, "rests_on": ["recalled:diary"]}),
        Record("message", "t", "b", "assistant", text="Noted: Rust it is.", seq=2,
               at_ms=1_750_000_000_002, recall=False, meta={"local": True, "rests_on": []}),
    ]  # fmt: skip
    sync.store(home, "knowme", [(record, None) for record in said])
    seen = []
    teach(home, confirm=lambda told: not seen.append(told))
    assert seen[0].classes == {"history": "allow"} and seen[0].left_out == {
        "recalled:diary: deny": 1
    }
    shown = json.dumps(server.asked)
    assert "Rust it is" in shown and "harbour" not in shown


def test_a_configured_key_in_a_message_is_shown_to_no_model(taught_by):
    home, server = taught_by(answer(), settings={"service": {"token": "plain-words-token"}})
    tell(home, [*TOLD, "I keep plain-words-token in my notes, and I look it up now and then."])
    teach(home)
    assert server.asked and "plain-words-token" not in json.dumps(server.asked)


def test_offline_a_model_elsewhere_is_not_asked(taught_by):
    home, server = taught_by(answer(), **remote(), settings={"offline": True})
    tell(home)
    with pytest.raises(OfflineError):
        teach(home)
    assert not server.asked


def test_a_spent_budget_is_told_before_anything_is_asked(taught_by):
    home, server = taught_by(
        answer(), **remote(price_in=1.0, price_out=100.0),
        settings={"privacy": {"recalled": "allow"}, "routing": {"monthly_budget": 0.001}},
    )  # fmt: skip
    tell(home)
    with pytest.raises(ModelError, match="budget|this month"):
        teach(home, confirm=lambda told: pytest.fail("asked"))
    assert not server.asked


@pytest.mark.parametrize(("fault", "asked"), [(("status", 429, {}), 2), ("cut", 1)])
def test_what_may_have_been_paid_for_is_not_asked_twice(taught_by, fault, asked):
    home, server = taught_by(answer(*GOOD), **remote(price_in=1.0),
                             settings={"privacy": {"recalled": "allow"}})  # fmt: skip
    tell(home)
    whole = server.scripts[0]
    server.scripts = [[fault], whole]
    with pytest.raises(ModelError):
        teach(home)
    assert teach(home).pairs == (3 if asked == 2 else 0)
    assert len(server.asked) == asked
    if asked == 1:
        assert teach(home, again=True).pairs == 3


def test_two_teachers_at_once_are_one_too_many(taught_by):
    home, server = taught_by(answer())
    tell(home)
    with Lock(lessons.folder(home.path) / "lock"), pytest.raises(HomeError):
        teach(home)
    assert not server.asked


# --- forgetting -----------------------------------------------------------------------------------


def test_what_is_forgotten_leaves_what_was_taught_and_stays_read(taught_by):
    home, server = taught_by(answer(*GOOD))
    tell(home)
    teach(home)
    forget_text(home, "prefer Rust")
    left = [each.answer for each in teacher.taught(home, FOR_ME)]
    assert left == [GOOD[1][3], GOOD[2][3]]
    for file in (home.path / "runs").rglob("*"):
        assert not file.is_file() or b"Rust" not in file.read_bytes(), file
    assert teach(home).confirmed is None


def forget_text(home, text):
    assert forget.erase(home, forget.plan(home, forget.What("text", text=text))).state == "done"


def test_nothing_is_kept_of_what_is_being_forgotten(taught_by):
    home, _ = taught_by(answer(*GOOD))
    ids = tell(home)
    made, _ = teacher.borne_out(
        home, FOR_ME, "chats/one", ids, [pair(*each) for each in GOOD], "model:x"
    )
    home.db.write(lambda conn: conn.execute(
        "INSERT INTO erasures(at_ms, what, state) VALUES(1, 'text', 'planned')"))  # fmt: skip
    with pytest.raises(Exception, match="being forgotten"):
        lessons.keep(home, lessons.PAIRS, made)
    home.db.write(lambda conn: conn.execute("DELETE FROM erasures"))
    home.db.write(
        lambda conn: conn.execute("UPDATE messages SET retired_ms = 1 WHERE id = ?", (ids[0],))
    )
    assert lessons.keep(home, lessons.PAIRS, made) == 2


def test_a_line_that_a_kill_has_cut_is_no_row_and_spoils_no_other(tmp_path):
    path = tmp_path / "x.jsonl"
    lessons.append(path, [{"a": 1}])
    with path.open("a") as file:
        file.write('{"a": 2, "te')
    assert [each["a"] for each in lessons.rows_of(path)] == [1]
    lessons.append(path, [{"a": 3}])
    assert [each["a"] for each in lessons.rows_of(path)] == [1, 3]


# --- by batches -----------------------------------------------------------------------------------


def anthropic(api, **privacy):
    return {"learn": {"teacher": "anthropic", "teacher_url": api.url, "teacher_api_key": KEY},
            "privacy": {"recalled": "allow", **privacy}}  # fmt: skip


@pytest.fixture
def api():
    with messages_api.serving(lambda params: answer(*GOOD, *LIES)) as server:
        yield server


@pytest.fixture
def batched(tmp_path, api):
    with served.home_of(tmp_path / "home", **anthropic(api)) as home:
        tell(home)
        yield home


def test_a_batch_is_confirmed_submitted_polled_and_believed(batched, api):
    seen = []
    done = teach(batched, confirm=lambda told: not seen.append(told), wait=False)
    assert (done.confirmed, done.waiting, done.pairs) == (True, 1, 0)
    assert seen[0].where == api.url and seen[0].model == "claude-sonnet-4-5"
    assert teach(batched, confirm=lambda told: pytest.fail("asked"), wait=False).waiting == 1
    api.end()
    done = teach(batched, confirm=lambda told: pytest.fail("asked"))
    assert (done.waiting, done.pairs, done.transcripts) == (0, 3, 1)
    assert sum(done.dropped.values()) == len(LIES)
    assert done.cost == pytest.approx((1000 * 1.5 + 200 * 7.5) / 1e6)
    assert len(api.created) == 1
    assert not list(lessons.rows_of(lessons.folder(batched.path) / lessons.REQUESTS))


def test_what_a_batch_showed_and_cost_stands_in_the_ledger_once(batched, api):
    teach(batched, wait=False)
    api.end()
    teach(batched)
    (entry,) = batches.entries(lessons.folder(batched.path) / lessons.BATCHES)
    told = {row["id"]: row for row in sent(batched)}
    assert entry.state == "read" and set(entry.rows) <= set(told)
    assert told[entry.rows[0]]["classes"] == {"recalled:chats": "allow"}
    assert sum(row["cost"] or 0 for row in told.values()) == pytest.approx(0.003)
    assert all(row["purpose"] == "teacher" for row in told.values())
    assert submitted._note_cost(batched, entry, Usage("m", prompt_tokens=1000)) == 0.0


def test_the_key_stands_nowhere_but_in_its_header(batched, api, caplog):
    caplog.set_level("DEBUG", "knowme")
    teach(batched, wait=False)
    api.end()
    teach(batched)
    batched.close()
    for file in batched.path.rglob("*"):
        if file.is_file() and file.name != "config.yaml":
            assert KEY.encode() not in file.read_bytes(), file
    assert KEY not in caplog.text


def test_a_refused_estimate_sends_nothing_at_all(batched, api):
    assert teach(batched, confirm=lambda told: False).confirmed is False
    assert not api.created and not api.gets and not sent(batched)


def test_a_failed_request_is_free_to_be_asked_again(batched, api):
    api.answers = lambda params: "expired"
    teach(batched, wait=False)
    api.end()
    done = teach(batched, confirm=lambda told: False)
    assert done.failed["expired"] == 1 and done.cost == 0 and done.confirmed is False


def test_a_lost_answer_to_a_submission_is_found_and_not_paid_again(batched, api):
    api.faults["POST", "create"] = ["late"]
    with pytest.raises(ModelDownError, match="not known"):
        teach(batched)
    assert teach(batched, confirm=lambda told: pytest.fail("asked"), wait=False).waiting == 1
    api.end()
    assert teach(batched, confirm=lambda told: pytest.fail("asked")).pairs == 3
    assert len(api.created) == 1


def test_a_batch_whose_budget_is_on_its_way_counts_as_spent(batched, api):
    teach(batched, wait=False)
    (entry,) = batches.entries(lessons.folder(batched.path) / lessons.BATCHES)
    who = teacher.chosen(batched)
    told = teacher.Estimate(1, 1, 1, 5.0 - entry.cost + 0.001, "", "m", False)
    with pytest.raises(ModelError, match="this month"):
        teacher.afford(batched, who, told)


def test_names_come_back_after_a_restart_though_the_settings_have_changed(tmp_path, api):
    from knowme.home import Home

    quote = "My colleague [PERSON_1] keeps the wiki, and I write the tests first."
    told = "Your colleague [PERSON_1] keeps the wiki, and you write the tests first."
    api.answers = lambda params: answer(("project", quote, "Which colleague keeps the wiki?", told))
    given = anthropic(api, recalled="placeholders", names=["Hannelore"])
    with served.home_of(tmp_path / "home", **given) as home:
        tell(home)
        teach(home, wait=False)
    assert "Hannelore" not in json.dumps(api.created)
    api.end()
    with Home.open(tmp_path / "home", {"privacy.names": ["Anna", "Rust"]}) as home:
        teach(home)
        (found,) = teacher.taught(home, FOR_ME)
        assert found.answer.startswith("Your colleague Hannelore keeps")


def test_what_was_forgotten_while_a_batch_was_on_its_way_is_not_believed(batched, api):
    teach(batched, wait=False)
    forget_text(batched, "prefer Rust")
    api.end()
    done = teach(batched, confirm=lambda told: False)
    assert done.pairs == 0 and done.failed[teacher.FORGOTTEN] == 1
    assert not list(teacher.taught(batched, FOR_ME))


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("when", ["during", "behind"])
def test_a_kill_around_the_submission_pays_once(tmp_path, api, when):
    from knowme.home import Home

    with served.home_of(tmp_path / "home", **anthropic(api)) as home:
        tell(home)
    made = api._create
    arrived = []

    def slow(call):
        told = made(call)
        arrived.append(1)
        if when == "during":
            time.sleep(3)
        return told

    api._create = slow
    code = (
        "import asyncio, pathlib\n"
        "from knowme.home import Home\nfrom knowme.learn import teacher\n"
        f"with Home.open(pathlib.Path({str(tmp_path / 'home')!r})) as home:\n"
        f"    asyncio.run(teacher.teach(home, purpose={FOR_ME!r}, confirm=lambda told: True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    path = tmp_path / "home" / "runs" / "teacher" / lessons.BATCHES
    wanted = "sending" if when == "during" else "sent"
    served.until(lambda: arrived and [e.state for e in batches.entries(path)] == [wanted], 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    api._create = made
    api.end()
    with Home.open(tmp_path / "home") as home:
        assert teach(home, confirm=lambda told: pytest.fail("asked")).pairs == 3
    assert len(api.created) == 1


# --- paraphrases ----------------------------------------------------------------------------------


def said(question, reply="You prefer Rust over Go."):
    return ChatMessage("user", question), ChatMessage("assistant", reply)


def test_paraphrases_are_kept_beside_the_teachers_pairs(taught_by):
    versions = {"versions": ["Over Go, what is it that I prefer, and why so?", "You prefer Rust."]}
    home, _ = taught_by(answer(GOOD[0]), versions)
    tell(home)
    teach(home)
    first = list(teacher.taught(home, FOR_ME))
    run = paraphrase.paraphrase(home, purpose=FOR_ME, of=first, confirm=lambda told: True)
    done = asyncio.run(run)
    assert (done.pairs, sum(done.dropped.values())) == (1, 1)
    other = next(each for each in teacher.taught(home, FOR_ME) if each.kind == "paraphrase")
    assert other.answer == first[0].answer and other.because == first[0].because
    again = paraphrase.paraphrase(home, purpose=FOR_ME, of=first, confirm=lambda told: True)
    assert asyncio.run(again).confirmed is None


def test_what_a_paraphrase_rests_on_decides_whether_its_question_may_leave(taught_by):
    home, server = taught_by(
        answer(GOOD[0]), **remote(),
        settings={"privacy": {"recalled": "deny", "sources": {"chats": "allow"}}},
    )  # fmt: skip
    tell(home)
    teach(home)
    (first,) = teacher.taught(home, FOR_ME)
    asked = len(server.asked)
    home.db.write(lambda conn: conn.execute("UPDATE conversations SET source = 'diary'"))
    run = paraphrase.paraphrase(
        home, purpose=FOR_ME, of=[first], confirm=lambda told: pytest.fail("asked")
    )
    assert asyncio.run(run).failed == {"recalled:diary: deny": 1} and len(server.asked) == asked


@pytest.mark.parametrize(
    ("version", "why"),
    [
        ("What do I prefer over Go?", paraphrase.SAME),
        ("Over Java, what do I prefer?", paraphrase.CHANGED),
        ("What do I prefer over that one?", paraphrase.CHANGED),
        ("What do I not prefer over Go?", paraphrase.CHANGED),
        ("You prefer Rust over Go.", paraphrase.CHANGED),
        ("I do prefer something over Go.", paraphrase.NOT_ONE),
        ("Which weather did Go have yesterday?", paraphrase.OTHER),
        ("Over Go, which one do I prefer?", ""),
    ],
)
def test_a_paraphrase_asks_what_the_question_asks(version, why):
    told = paraphrase.wrong("What do I prefer over Go?", version, "You prefer Rust over Go.")
    assert told == why
