"""The way of a question through several models: who answers, what they see, what is kept."""

import asyncio
import json

import pytest
from served import home_of, model_server

from knowme import egress, feedback, net, shadow
from knowme.ask import Asked, Delta, Done, Started, Switched, ask, preview, why
from knowme.db import rows, value
from knowme.errors import InputError, ModelError, NotFoundError
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
        assert value(conn, "SELECT count(*) FROM messages WHERE retired_ms IS NULL"
                           " AND conversation_id IN (SELECT conversation_id FROM answers)") == 2  # fmt: skip
    run(home, "/local Go on.", conversation="s")
    assert "From home." not in words_sent(own).partition("Go on.")[0].rpartition(KNOTS)[2]


def test_a_rating_is_kept_for_the_answer_it_is_about(two):
    home, *_ = two
    number = run(home, KNOTS)[-1].receipt_id
    assert rate(home, "last", "rating", "2") == number
    with home.db.read() as conn:
        assert rows(conn, "SELECT c.answer_id, o.kind, o.value FROM outcomes o"
                          " JOIN choices c ON c.id = o.choice_id") == [(number, "rating", "2")]  # fmt: skip
    with pytest.raises(InputError, match="9"):
        rate(home, "last", "rating", "9")


def test_a_shadow_answer_is_kept_for_comparison_only_where_it_may_leave(tmp_path):
    with (
        model_server(["home"], model="near-7b") as own,
        model_server(["far"]) as cloud,
        home_of(
            tmp_path / "home", models={"primary": near(own), "cloud": remote(cloud)},
            routing={"shadow": 1.0},
        ) as home,
    ):  # fmt: skip
        lived(home)
        number = run(home, f"/local {KNOTS}")[-1].receipt_id
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
