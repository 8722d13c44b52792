"""The way of a question through several models: who answers, what they see, what is kept."""

import asyncio
import json
import threading
from contextlib import ExitStack, contextmanager

import pytest
from served import home_of, model_server

from knowme import egress, feedback, intents, net, sessions, shadow
from knowme.ask import Asked, Delta, Done, Started, Switched, ask, preview, why
from knowme.db import rows, value
from knowme.errors import InputError, ModelError, NotFoundError
from knowme.prompting import MayNotLeaveError, keep_from_leaving
from knowme.receipts import rate
from knowme.sync import store
from knowme.types import ChatMessage, Options, Record

PUMP = "What did I decide about the heat pump?"
KNOTS = "Explain in detail how the Alexander polynomial of a knot is computed, with one example."
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def remote(server, **more):
    return {"engine": "openai", "model": "big", "url": server.url, "local": "false",
            "context_tokens": 8192, "price_in": 1.0, "price_out": 5.0, **more}  # fmt: skip


def near(server, **more):
    return {"engine": "openai", "model": "near-7b", "url": server.url, "local": "true",
            "context_tokens": 8192, **more}  # fmt: skip


@pytest.fixture
def two(tmp_path):
    """A home with a model of its own and one in the cloud; gives (home, near, cloud)."""
    with (
        model_server(["From home."], model="near-7b") as own,
        model_server(["From the cloud."]) as cloud,
        home_of(
            tmp_path / "home", name="Leonor",
            models={"primary": near(own), "cloud": remote(cloud)},
        ) as home,
    ):  # fmt: skip
        lived(home)
        yield home, own, cloud


def lived(home):
    said = [
        ("user", "It is cold. I decided to order a heat pump for 8,400 euros from Borges."),
        ("assistant", "Good, the heat pump is ordered then. Anything else?"),
        ("user", "My dog Pixel ate the invoice for the pump."),
    ]
    records = [
        (Record("message", "c", str(n), role, text=text, at_ms=1_772_000_000_000 + n, seq=n), None)
        for n, (role, text) in enumerate(said)
    ]
    store(home, "openclaw", records)


def run(home, question, **more):
    async def collect():
        return [event async for event in ask(home, Asked(question, **more))]

    events = asyncio.run(collect())
    assert isinstance(events[0], Started) and isinstance(events[-1], Done)
    shown = ""
    for event in events:
        if isinstance(event, Switched) and event.restart:
            shown = ""
        shown += event.text if isinstance(event, Delta) else ""
    assert shown == events[-1].answer
    return events


def words_sent(server):
    return json.dumps([body["messages"] for body in server.asked], ensure_ascii=False)


# --- who answers --------------------------------------------------------------------------------


def test_a_question_that_memory_answers_stays_at_home(two):
    home, own, cloud = two
    done = run(home, PUMP)[-1]
    assert (done.role, done.answer, done.cost) == ("primary", "From home.", 0.0)
    assert "8,400" in words_sent(own) and not cloud.asked


def test_the_person_may_name_the_model_and_the_directive_is_not_sent(two):
    home, _, cloud = two
    started, *_, done = run(home, f"/cloud {KNOTS}")
    assert (started.role, done.role) == ("cloud", "cloud")
    assert cloud.asked[0]["messages"][-1]["content"] == KNOTS
    assert run(home, KNOTS, model="near-7b")[-1].role == "primary"
    with pytest.raises(NotFoundError, match="gpt-9"):
        run(home, KNOTS, model="gpt-9")


def test_what_is_recalled_never_leaves_unless_it_is_allowed(two):
    home, _, cloud = two
    done = run(home, f"@cloud {PUMP}")[-1]
    assert done.role == "cloud"
    sent = words_sent(cloud)
    assert "8,400" not in sent and "Borges" not in sent and "Leonor" not in sent
    receipt = why(home)
    assert not receipt["used"] and receipt["classes"] == ["question"]
    assert any("privacy.recalled" in gone["reason"] for gone in receipt["dropped"])


def test_an_answer_that_rests_on_memory_does_not_leave_as_history_either(two):
    home, own, cloud = two
    own.scripts = [["You ordered a heat pump for 8,400 euros from Borges."]]
    run(home, PUMP, conversation="s")
    run(home, f"/cloud {KNOTS}", conversation="s")
    assert "8,400" not in words_sent(cloud) and "heat pump" not in words_sent(cloud)


def test_what_went_there_before_may_go_again(two):
    home, _, cloud = two
    run(home, f"/cloud {KNOTS}", conversation="s")
    run(home, "/cloud And for the trefoil knot?", conversation="s")
    assert [m["content"] for m in cloud.asked[1]["messages"][1:]] == [
        KNOTS, "From the cloud.", "And for the trefoil knot?",
    ]  # fmt: skip


def test_the_home_model_sees_the_turns_that_the_cloud_answered(two):
    home, own, _ = two
    run(home, f"/cloud {KNOTS}", conversation="s")
    run(home, "/local Say that in one line.", conversation="s")
    assert "From the cloud." in words_sent(own)


def test_names_go_as_placeholders_and_come_back(tmp_path):
    answer = ["[PER", "SON_1] paid ", "[PERSON_2] 8,400 euros."]
    with (
        model_server(answer) as cloud,
        model_server(["home"], model="near-7b") as own,
        home_of(
            tmp_path / "home", name="Leonor", models={"primary": near(own), "cloud": remote(cloud)},
            privacy={"recalled": "placeholders", "names": ["Borges"]}, ask={"threshold": 0.05},
        ) as home,
    ):  # fmt: skip
        lived(home)
        done = run(home, "/cloud Leonor asks: what did I decide about the heat pump of Borges?")[-1]
    sent = words_sent(cloud)
    assert "Borges" not in sent and "Leonor" not in sent and "8,400" in sent
    assert (
        done.answer == "Borges paid Leonor 8,400 euros."
    )  # he stands in the note, before the question
    assert "[PERSON_2] asks" in cloud.asked[0]["messages"][-1]["content"]


def test_a_secret_is_never_sent_even_if_asked_to(two):
    home, _, cloud = two
    done = run(home, "/cloud Is sk-proj-Zx81LmQp93Vb27Rt56Wy04Ku a good key?")[-1]
    assert done.role == "primary" and not cloud.asked
    assert "secret" in why(home)["route"]["reason"]


def test_the_months_budget_is_a_gate(tmp_path):
    with (
        model_server(["dear"]) as cloud,
        model_server(["home"], model="near-7b") as own,
        home_of(
            tmp_path / "home", routing={"monthly_budget": 0.00005},
            models={"primary": near(own), "cloud": remote(cloud)},
        ) as home,
    ):  # fmt: skip
        done = run(home, f"/cloud {KNOTS}")[-1]
    assert done.role == "primary" and not cloud.asked


def test_a_lone_remote_model_answers_without_the_memory(tmp_path):
    with (
        model_server(["far"]) as cloud,
        home_of(tmp_path / "home", models={"primary": remote(cloud)}) as home,
    ):
        lived(home)
        assert run(home, PUMP)[-1].answer == "far"
        assert "8,400" not in words_sent(cloud)


def test_a_lone_remote_model_that_may_not_be_asked_is_not(tmp_path):
    with (
        model_server(["far"]) as cloud,
        home_of(
            tmp_path / "home", models={"primary": remote(cloud)}, privacy={"question": "deny"}
        ) as home,
    ):
        with pytest.raises(ModelError, match=r"privacy\.question"):
            run(home, KNOTS)
    assert not cloud.asked


# --- what is kept -------------------------------------------------------------------------------


def test_every_call_is_a_row_with_its_cost_and_every_send_is_in_the_ledger(two):
    home, _, cloud = two
    done = run(home, f"/cloud {KNOTS}")[-1]
    with home.db.read() as conn:
        call = rows(conn, "SELECT role, state, local, prompt_tokens, answer_tokens, cost, answer_id"
                          " FROM calls")  # fmt: skip
        assert call == [("cloud", "done", 0, 11, 7, pytest.approx(46e-6), done.receipt_id)]
        sent = egress.listed(conn, 10)
        assert len(sent) == 1 and sent[0]["classes"] == {"question": "allow"}
        assert sent[0]["cost"] == pytest.approx(46e-6) and sent[0]["outcome"] == "200"
        assert KNOTS in egress.body(conn, sent[0]["id"])
        assert egress.spent(conn, 0) == pytest.approx(46e-6)
    assert done.cost == pytest.approx(46e-6)


def test_a_preview_asks_nobody_and_writes_nothing(two):
    home, own, cloud = two
    seen = preview(home, Asked(PUMP), remote=True)
    assert seen.role == "cloud" and seen.route.model == "primary"
    assert [m.content for m in seen.messages][-1] == PUMP and seen.url == cloud.url
    assert any("privacy.recalled" in gone.reason for gone in seen.withheld)
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM answers") == 0
    assert not own.asked and not cloud.asked


def test_an_answer_asked_again_replaces_the_last_one_and_is_an_outcome(two):
    home, own, cloud = two
    run(home, KNOTS, conversation="s")
    done = run(home, "", conversation="s", again="retry_cloud")[-1]
    assert done.role == "cloud" and cloud.asked[0]["messages"][-1]["content"] == KNOTS
    with home.db.read() as conn:
        assert rows(conn, "SELECT kind FROM outcomes") == [("retry_cloud",)]
    assert shown_of(home, "s") == [KNOTS, "From the cloud."]
    run(home, "/local Go on.", conversation="s")
    assert "From home." not in words_sent(own).partition("Go on.")[0].rpartition(KNOTS)[2]


def test_a_rating_is_kept_for_the_answer_it_is_about(two):
    home, *_ = two
    number = run(home, KNOTS)[-1].receipt_id
    assert rate(home, "last", "rating", "2") == number
    with home.db.read() as conn:
        found = rows(
            conn,
            "SELECT c.answer_id, o.kind, o.value FROM outcomes o JOIN choices c"
            " ON c.id = o.choice_id",
        )
    assert found == [(number, "rating", "2")]
    with pytest.raises(InputError, match="9"):
        rate(home, "last", "rating", "9")


def test_a_shadow_answer_is_kept_for_comparison_only_where_it_may_leave(tmp_path):
    with (
        model_server(["home"], model="near-7b") as own,
        model_server(["far"]) as cloud,
        home_of(
            tmp_path / "home", models={"primary": near(own), "cloud": remote(cloud)},
            routing={"shadow": 1.0, "learned": False},
        ) as home,
    ):  # fmt: skip
        lived(home)
        number = run(home, KNOTS)[-1].receipt_id
        with home.db.read() as conn:
            assert rows(conn, "SELECT kind FROM jobs") == [("shadow",)]
        assert shadow.answer(home, number) == "cloud"
        assert why(home, str(number))["shadow"]["answer"] == "far"
        private = run(home, PUMP)[-1].receipt_id
        assert shadow.answer(home, private) == ""
    assert len(cloud.asked) == 1


# --- when a model fails -------------------------------------------------------------------------


def test_when_the_cloud_is_too_busy_home_answers_and_says_so(two):
    home, _, cloud = two
    cloud.scripts = [[("status", 429, {"retry-after": "30"})]]
    started, *_, done = run(home, f"/cloud {KNOTS}")
    assert done.role == "primary" and done.answer == "From home."
    switched = [event for event in _ if isinstance(event, Switched)]
    assert "429" in (started.note + "".join(event.reason for event in switched))
    assert run(home, f"/cloud {KNOTS}")[-1].role == "primary"
    assert len(cloud.asked) == 1, "its breaker is open: it is left alone for a while"


def test_an_answer_that_breaks_off_begins_anew_elsewhere_and_is_not_paid_twice(two):
    home, _, cloud = two
    cloud.scripts = [["The Alexander ", "cut"]]
    events = run(home, f"/cloud {KNOTS}")
    switched = next(event for event in events if isinstance(event, Switched))
    assert switched.restart and switched.role == "primary"
    assert events[-1].answer == "From home." and len(cloud.asked) == 1
    receipt = why(home)
    assert [(call["role"], call["state"]) for call in receipt["calls"]] == [
        ("cloud", "failed"), ("primary", "done"),
    ]  # fmt: skip


def test_a_send_of_unknown_fate_is_never_repeated_where_it_costs(tmp_path):
    with (
        model_server([("status", 500, {})]) as cloud,
        model_server(["second"]) as other,
        home_of(
            tmp_path / "home", models={"primary": remote(cloud), "spare": remote(other)},
            routing={"fallback": ["spare", "primary"]},
        ) as home,
    ):  # fmt: skip
        with pytest.raises(ModelError, match="500"):
            run(home, f"@primary {KNOTS}")
        with home.db.read() as conn:
            assert value(conn, "SELECT state FROM answers") == "failed"
    assert len(cloud.asked) == 1 and not other.asked


def test_what_was_refused_before_any_work_may_be_asked_elsewhere(tmp_path):
    with (
        model_server([("status", 429, {})]) as cloud,
        model_server(["second"]) as other,
        home_of(
            tmp_path / "home", models={"primary": remote(cloud), "spare": remote(other)},
            routing={"fallback": ["spare"]},
        ) as home,
    ):  # fmt: skip
        assert run(home, f"@primary {KNOTS}")[-1].role == "spare"


def test_an_answer_without_a_word_is_a_failure(two):
    home, own, _ = two
    own.scripts = [[""], ["At last."]]
    done = run(home, f"/local {KNOTS}")[-1]
    assert done.answer == "At last."


def test_when_nobody_can_answer_the_question_is_kept_and_the_error_says_why(tmp_path):
    with (
        model_server(["never"], model="near-7b") as gone,
        home_of(
            tmp_path / "home", models={"primary": near(gone, url="http://127.0.0.1:9/v1")}
        ) as home,
    ):
        with pytest.raises(ModelError, match="refused"):
            run(home, KNOTS)
        with home.db.read() as conn:
            assert rows(conn, "SELECT a.state, q.text FROM answers a JOIN messages q"
                              " ON q.id = a.question_id") == [("failed", KNOTS)]  # fmt: skip


def test_a_model_that_is_not_sure_of_its_answer_passes_the_question_on(tmp_path):
    with (
        model_server(["Hm."], ['{"good": false}'], model="near-7b") as own,
        model_server(["Surely."]) as cloud,
    ):
        models = {"primary": near(own), "cloud": remote(cloud)}
        with home_of(tmp_path / "first", models=models) as home:
            seen = preview(home, Asked(KNOTS)).route
        assert seen.gain is not None and seen.cost is not None and seen.gain > 0
        tie = {"uncertain": "check", "worth": seen.cost / seen.gain}  # the price is the gain
        with home_of(tmp_path / "home", models=models, routing=tie) as home:
            done = run(home, KNOTS)[-1]
            calls = [(call["purpose"], call["role"]) for call in why(home)["calls"]]
    assert done.role == "cloud" and done.answer == "Surely."
    assert calls == [("answer", "primary"), ("check", "primary"), ("answer", "cloud")]


def test_a_model_that_stands_by_its_answer_is_believed(tmp_path):
    with (
        model_server(["Thus."], ['{"good": true}'], model="near-7b") as own,
        model_server(["Surely."]) as cloud,
    ):
        models = {"primary": near(own), "cloud": remote(cloud)}
        with home_of(tmp_path / "first", models=models) as home:
            seen = preview(home, Asked(KNOTS)).route
        tie = {"uncertain": "check", "worth": seen.cost / seen.gain}
        with home_of(tmp_path / "home", models=models, routing=tie) as home:
            assert run(home, KNOTS)[-1].answer == "Thus."
    assert not cloud.asked


# --- programs that drive it ---------------------------------------------------------------------


def test_tools_are_passed_on_and_their_calls_come_back(two):
    home, own, _ = two
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"at":1}'}}
    own.scripts = [[{"tool_calls": [call]}]]
    done = run(home, "Look it up.", options=Options(tools=(TOOL,)), model="primary")[-1]
    assert own.asked[0]["tools"] == [TOOL]
    assert [(c.id, c.name, c.arguments) for c in done.tool_calls] == [("c1", "look", '{"at":1}')]


def test_a_client_that_keeps_its_turns_has_them_in_the_prompt(two):
    home, own, _ = two
    turns = (ChatMessage("user", "Call it Rex."), ChatMessage("assistant", "I will."))
    run(home, "What shall you call it?", turns=turns, model="primary")
    assert [m["content"] for m in own.asked[0]["messages"][1:3]] == ["Call it Rex.", "I will."]


def test_a_clients_system_prompt_is_cut_and_what_was_left_out_is_in_the_receipt(two):
    home, own, _ = two
    system = "You are Rex.\n\n" + "\n\n".join(f"## Rule {n}\nDo {n} things." for n in range(4000))
    run(home, KNOTS, client_system=system, model="primary")
    assert len(own.asked[0]["messages"][0]["content"]) < 12_000
    assert why(home)["dropped"]


# --- offline ------------------------------------------------------------------------------------


def test_offline_nothing_remote_is_asked_and_the_wall_stands_as_long_as_the_home_is_open(tmp_path):
    with (
        model_server(["home"], model="near-7b") as own,
        home_of(
            tmp_path / "home", offline=True,
            models={
                "primary": near(own),
                "cloud": {"engine": "openai", "model": "m", "url": "https://192.0.2.1/v1"},
            },
        ) as home,
    ):  # fmt: skip
        assert net.offline()
        assert run(home, f"/cloud {KNOTS}")[-1].role == "primary"
    assert not net.offline()


def test_feedback_names_are_the_ones_that_asking_again_uses():
    assert {"regenerate", "retry_cloud"} <= set(feedback.KINDS)


# --- what was found by looking for trouble --------------------------------------------------------


def calls_of(home):
    with home.db.read() as conn:
        return rows(conn, "SELECT role, state, stage, reason FROM calls ORDER BY id")


def shown_of(home, conversation):
    with home.db.read() as conn:
        return [turn.text for turn in sessions.load(conn, conversation).turns]


def test_the_call_of_a_model_that_stepped_in_says_why_it_did(two):
    home, _, cloud = two
    cloud.scripts = [["The Alexander ", "cut"]]
    run(home, f"/cloud {KNOTS}")
    (_, _, asked, _), (role, _, stage, reason) = calls_of(home)
    assert (asked, role, stage) == ("gate", "primary", "fallback")
    assert "cloud" in reason and "broke off" in reason


def test_a_model_that_is_asked_once_more_did_not_step_in_for_another(two):
    home, own, _ = two
    own.scripts = [["Half", "cut"], ["Whole."]]
    assert run(home, f"/local {KNOTS}")[-1].answer == "Whole."
    assert [(state, stage) for _, state, stage, _ in calls_of(home)] == [
        ("failed", "gate"), ("done", "gate"),
    ]  # fmt: skip


def test_an_answer_begins_once_even_where_no_model_says_the_end_of_it(tmp_path):
    with (
        model_server(["Half", "cut"]) as cloud,
        home_of(
            tmp_path / "home",
            models={"primary": {"engine": "echo", "model": "tiny-100m"}, "cloud": remote(cloud)},
        ) as home,
    ):
        events = run(home, "/cloud Which opera do I like best?")
    assert [type(event) for event in events].count(Started) == 1
    assert events[-1].usage.prompt_tokens == 0 and events[-1].cost > 0, "who broke off is paid"
    assert "don't know" in events[-1].answer


def test_a_cut_answer_is_paid_for_as_far_as_anyone_can_tell(two):
    home, _, cloud = two
    held = threading.Event()
    cloud.scripts = [["The Alexander polynomial ", ("wait", held), "is long."]]

    async def leave():
        stream = ask(home, Asked(f"/cloud {KNOTS}", conversation="s"))
        async for event in stream:
            if isinstance(event, Delta):
                break
        await stream.aclose()

    asyncio.run(leave())
    held.set()
    with home.db.read() as conn:
        ((state, cost, prompt, answer),) = rows(
            conn, "SELECT state, cost, prompt_tokens, answer_tokens FROM calls"
        )
        assert state == "cut" and prompt > 10 and answer > 1
        assert egress.spent(conn, 0) == pytest.approx(cost) and cost > 0
        assert egress.listed(conn, 1)[0]["cost"] == pytest.approx(cost)
        assert value(conn, "SELECT model FROM answers") == "big"


def test_who_was_answering_when_the_asker_left_is_told_truly(two):
    home, own, cloud = two
    held = threading.Event()
    cloud.scripts = [["Half", "cut"]]
    own.scripts = [["At home", ("wait", held), " again."]]

    async def leave():
        stream = ask(home, Asked(f"/cloud {KNOTS}"))
        switched = False
        async for event in stream:
            if switched and isinstance(event, Delta):
                break
            switched = switched or isinstance(event, Switched)
        await stream.aclose()

    asyncio.run(leave())
    held.set()
    assert (why(home)["role"], why(home)["model"]) == ("primary", "near-7b")


def test_what_was_refused_costs_nothing(two):
    home, _, cloud = two
    cloud.scripts = [[("status", 429, {})]]
    run(home, f"/cloud {KNOTS}")
    with home.db.read() as conn:
        assert egress.spent(conn, 0) == 0


def test_an_answer_asked_again_in_vain_keeps_the_one_there_was(two):
    home, own, _ = two
    run(home, KNOTS, conversation="s", model="primary")
    own.scripts = [[("status", 400, {})]]
    for _ in range(2):
        with pytest.raises(ModelError, match="400"):
            run(home, "", conversation="s", again="regenerate", model="primary")
        assert shown_of(home, "s") == [KNOTS, "From home."]
    own.scripts = [["Better."]]
    assert run(home, "", conversation="s", again="regenerate", model="primary")[-1].answer
    assert shown_of(home, "s") == [KNOTS, "Better."]
    assert "From home." not in words_sent(own)


def test_a_model_that_did_not_answer_is_not_the_one_that_answered_last(two):
    home, own, _ = two
    own.scripts = [[("status", 400, {})]]
    with pytest.raises(ModelError, match="400"):
        run(home, KNOTS, conversation="s", model="primary")
    with home.db.read() as conn:
        assert sessions.load(conn, "s").model == ""


def test_a_fallback_that_costs_only_for_its_prompt_costs(tmp_path):
    with (
        model_server([("status", 500, {})]) as cloud,
        model_server(["second"]) as other,
        home_of(
            tmp_path / "home", routing={"fallback": ["spare", "primary"]},
            models={"primary": remote(cloud), "spare": remote(other, price_out=0.0)},
        ) as home,
    ):  # fmt: skip
        with pytest.raises(ModelError, match="500"):
            run(home, f"@primary {KNOTS}")
    assert not other.asked


@pytest.fixture
def tied(tmp_path):
    """Give a function that opens a home whose gain and price are equal, with check set."""

    @contextmanager
    def opened(own, cloud):
        models = {"primary": near(own), "cloud": remote(cloud)}
        with home_of(tmp_path / "first", models=models) as home:
            seen = preview(home, Asked(KNOTS)).route
        tie = {"uncertain": "check", "worth": seen.cost / seen.gain}
        with home_of(tmp_path / "home", models=models, routing=tie) as home:
            yield home

    return opened


def test_a_doubtful_answer_is_better_than_none(tied):
    with (
        model_server(["Hm."], ['{"good": false}'], ["Hm, still."], model="near-7b") as own,
        model_server([("status", 500, {})]) as cloud,
        tied(own, cloud) as home,
    ):
        assert run(home, KNOTS)[-1].answer == "Hm, still."
        assert len(cloud.asked) == 1


def test_a_call_of_a_tool_is_not_looked_at_as_if_it_were_an_answer(tied):
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}
    with (
        model_server([{"tool_calls": [call]}], ['{"good": false}'], model="near-7b") as own,
        model_server(["Surely."]) as cloud,
        tied(own, cloud) as home,
    ):
        assert run(home, KNOTS, options=Options(tools=(TOOL,)))[-1].tool_calls
        assert not cloud.asked


def test_who_asked_for_this_machine_is_not_shadowed_by_the_cloud(tmp_path):
    with (
        model_server(["home"], model="near-7b") as own,
        model_server(["far"]) as cloud,
        home_of(
            tmp_path / "home", models={"primary": near(own), "cloud": remote(cloud)},
            routing={"shadow": 1.0},
        ) as home,
    ):  # fmt: skip
        numbers = [
            run(home, f"/local {KNOTS}")[-1].receipt_id,
            run(home, KNOTS, model="primary")[-1].receipt_id,
        ]
        with home.db.read() as conn:
            assert not rows(conn, "SELECT kind FROM jobs")
        assert shadow.answer(home, numbers[0]) == ""
    assert not cloud.asked


def test_a_shadow_is_asked_what_the_local_model_was_asked_and_no_more(shadowed):
    home, _, cloud = shadowed(history="allow")
    run(home, "My knot is a trefoil.", conversation="s")  # told, not asked: no "I don't know"
    number = run(home, KNOTS, conversation="s")[-1].receipt_id
    run(home, "And now something else.", conversation="s")
    assert shadow.answer(home, number) == "cloud"
    assert [m["content"] for m in cloud.asked[0]["messages"][1:]] == [
        "My knot is a trefoil.", "home", KNOTS,
    ]  # fmt: skip


def test_a_shadow_whose_fate_is_unknown_is_noted_and_not_asked_again(shadowed):
    home, _, cloud = shadowed()
    cloud.scripts = [["Half", "cut"]]
    number = run(home, KNOTS)[-1].receipt_id
    assert shadow.answer(home, number) == ""
    with home.db.read() as conn:
        ((state, cost),) = rows(conn, "SELECT state, cost FROM calls WHERE purpose = 'shadow'")
        assert state == "failed" and cost > 0 and egress.spent(conn, 0) == pytest.approx(cost)
    cloud.scripts = [[("status", 429, {})]]
    with pytest.raises(ModelError, match="429"):  # nothing was taken on: the job tries later
        shadow.answer(home, number)


@pytest.fixture
def shadowed(tmp_path):
    """Give a function that opens a home whose local answers are all shadowed."""
    with ExitStack() as stack:

        def opened(**privacy):
            own = stack.enter_context(model_server(["home"], model="near-7b"))
            cloud = stack.enter_context(model_server(["far"]))
            home = stack.enter_context(
                home_of(
                    tmp_path / "home", models={"primary": near(own), "cloud": remote(cloud)},
                    routing={"shadow": 1.0, "learned": False}, privacy=privacy,
                )
            )  # fmt: skip
            return home, own, cloud

        yield opened


def test_asking_the_cloud_again_teaches_the_router_as_a_rating_does(two):
    home, *_ = two
    home.gain()
    run(home, KNOTS, conversation="s", model="primary")
    before = home._gain
    run(home, "", conversation="s", again="retry_cloud")
    assert home._gain is not before, "what was learned is looked for anew"


def test_another_process_that_learned_is_heard(two):
    home, *_ = two
    gain, number, fingerprint = home.gain()
    assert number is None
    home.db.write(
        lambda conn: conn.execute(
            "INSERT INTO policies(fingerprint, state, model, outcomes, created_ms)"
            " VALUES(?, 'in_use', ?, 30, 1)",
            (fingerprint, gain.dumps()),
        )
    )
    assert home.gain()[1] == 1


def test_a_client_with_a_long_conversation_of_its_own_is_not_too_long_for_home(two):
    home, *_ = two
    long = tuple(
        ChatMessage(("user", "assistant")[n % 2], f"{n} " + "many words of no weight " * 200)
        for n in range(40)
    )
    assert not run(home, KNOTS, turns=long)[0].route.refused
    assert run(home, KNOTS, turns=long, model="primary")[-1].answer == "From home."


def test_a_model_tells_personal_from_complex_where_the_settings_say_so(tmp_path):
    kinds = ['{"category": "PERSONAL"}'], ["Not a word of JSON."]
    with (
        model_server(*kinds, model="kind-1b") as fast,
        model_server(["home"], model="near-7b") as own,
        model_server(["far"]) as cloud,
        home_of(
            tmp_path / "home", routing={"classifier": "model"},
            models={"primary": near(own), "fast": near(fast, model="kind-1b"),
                    "cloud": remote(cloud)},
        ) as home,
    ):  # fmt: skip
        by_words = intents.classify(KNOTS, None).category
        started = run(home, KNOTS)[0]
        assert (by_words, started.route.category) == ("COMPLEX", "PERSONAL")
        assert KNOTS in fast.asked[0]["messages"][-1]["content"]
        with home.db.read() as conn:
            purposes = rows(conn, "SELECT purpose, role, answer_id FROM calls ORDER BY id")
        assert purposes[0] == ("classify", "fast", 1)
        assert run(home, KNOTS)[0].route.category == "COMPLEX", "no clear word: by the words"


def test_a_classifier_that_is_down_or_away_is_done_without(tmp_path):
    with (
        model_server(["far"]) as cloud,
        home_of(
            tmp_path / "home", routing={"classifier": "model"}, models={"primary": remote(cloud)}
        ) as home,
    ):
        assert run(home, KNOTS)[-1].answer == "far"
    assert len(cloud.asked) == 1, "what the message is, is nobody's business elsewhere"


def test_a_picture_is_not_kept_so_a_question_with_one_cannot_be_asked_again(tmp_path):
    with (
        model_server(["A cat."], model="near-7b") as own,
        home_of(tmp_path / "home", models={"primary": near(own, images=True)}) as home,
    ):
        picture = "data:image/png;base64,AAAA"
        run(home, "What is this?", conversation="s", images=(picture,))
        with pytest.raises(InputError, match="picture"):
            run(home, "", conversation="s", again="regenerate")
        assert shown_of(home, "s") == ["What is this?", "A cat."]


def test_what_is_told_is_not_answered_as_if_it_were_asked(two):
    home, *_ = two
    assert run(home, "My knot is a trefoil.", surface="chat")[-1].answer == "From home."
    assert "don't know" in run(home, "What is my favourite opera by Verdi?")[-1].answer


def test_what_an_answer_rests_on_is_told_of_the_model_that_gave_it(two):
    home, _, cloud = two
    cloud.scripts = [["It ", "cut"]]
    started, *_, done = run(home, f"@cloud {PUMP}")
    assert not started.sources, "they may not leave"
    assert [hit.uid for hit in done.sources] == [hit["uid"] for hit in why(home)["used"]] != []


def test_where_no_model_was_asked_a_thumb_teaches_nothing_of_models(two):
    home, *_ = two
    number = run(home, "What is my favourite opera by Verdi?")[-1].receipt_id
    rate(home, str(number), "down")
    number = run(home, KNOTS)[-1].receipt_id
    rate(home, str(number), "down")
    with home.db.read() as conn:
        seen = rows(conn, "SELECT features IS NOT NULL FROM choices ORDER BY id")
    assert seen == [(0,), (1,)]


def test_a_small_window_that_answers_once_does_not_cut_the_thread_for_the_others(tmp_path):
    told = "It has many crossings, and each of them counts. " * 10
    with (
        model_server([told], model="near-7b") as own,
        model_server([told], model="mid-3b") as mid,
        home_of(
            tmp_path / "home",
            models={"primary": near(own), "mid": near(mid, context_tokens=1024, model="mid-3b")},
        ) as home,
    ):  # fmt: skip
        for n, role in enumerate(("primary", "primary", "primary", "mid", "primary")):
            run(home, f"@{role} Tell of knot {n}.", conversation="s")
    turns = mid.asked[0]["messages"][1:-1]  # what it has no room for may be recalled, as a note
    assert "knot 0" not in json.dumps(turns), "its window is small"
    assert all(f"knot {n}." in json.dumps(own.asked[-1]["messages"][1:]) for n in range(5))


def test_a_directive_that_a_client_repeats_is_known_again_and_not_sent(two):
    home, own, cloud = two
    run(home, f"/cloud {KNOTS}", conversation="s", surface="api", turns=())
    turns = (ChatMessage("user", f"/cloud {KNOTS}"), ChatMessage("assistant", "From the cloud."))
    for server, role in ((own, "primary"), (cloud, "cloud")):
        run(home, "And the trefoil?", conversation="s", surface="api", turns=turns, model=role)
        assert [m["content"] for m in server.asked[-1]["messages"][1:]] == [
            KNOTS, "From the cloud.", "And the trefoil?",
        ]  # fmt: skip


# --- what a client may not send straight --------------------------------------------------------


def test_a_plain_model_name_is_no_way_around_what_may_not_leave(two):
    home, own, _ = two
    own.scripts = [["You ordered a heat pump for 8,400 euros from Borges."]]
    answer = run(home, PUMP, conversation="s")[-1].answer
    said = [ChatMessage("user", PUMP), ChatMessage("assistant", answer)]
    home.db.write(lambda conn: sessions.remember_thread(conn, said, "s", 1_772_000_000_000))
    again = [*said, ChatMessage("user", "And why?")]
    with pytest.raises(MayNotLeaveError, match="recalled"):
        keep_from_leaving(home, "cloud", again, Options())
    keep_from_leaving(home, "cloud", [ChatMessage("user", "And why?")], Options())
    secret = [ChatMessage("user", "Is sk-proj-Zx81LmQp93Vb27Rt56Wy04Ku good?")]
    with pytest.raises(MayNotLeaveError, match="secret"):
        keep_from_leaving(home, "cloud", secret, Options())


def test_a_word_in_a_pasted_text_is_nobodys_order(two):
    home, _, cloud = two
    pasted = "Notes of the meeting:\n- ask the vendor, email us @cloud today\n- bring cake\n"
    run(home, f"{pasted}What did we decide about the heat pump?")
    assert not cloud.asked


def test_what_leans_on_the_last_question_is_looked_up_with_it(two):
    home, own, _ = two
    run(home, PUMP, conversation="s", model="primary")
    run(home, "And why?", conversation="s", model="primary")
    assert "8,400" in json.dumps(own.asked[-1]["messages"][-1], ensure_ascii=False)


def test_a_picture_that_nobody_can_see_is_refused_with_the_mend(two):
    home, own, cloud = two
    with pytest.raises(InputError, match="pictures"):
        run(home, "What is this?", images=("data:image/png;base64,iVBORw0KGgo=",))
    assert not own.asked and not cloud.asked
