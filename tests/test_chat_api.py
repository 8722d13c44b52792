"""Our own chat over HTTP: sessions, streaming, cancel, routing, ratings, what it cost."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served import home_of, model_server, until
from served import served as serving

from knowme.db import rows
from knowme.web.chat_shapes import ChatShape, ClassifyShape, picture
from knowme.web.problems import FieldError

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 16).decode()
NOTE = "I decided to replace the old heating with a heat pump in October."


class Client(httpx.Client):
    def ok(self, method, path, **body):
        reply = self.request(method, path, **({"json": body} if body else {}))
        assert reply.status_code == 200, reply.text
        return reply.json()

    def chat(self, message, **more):
        return self.ok("POST", "/api/chat", message=message, **more)

    def stream(self, message, **more):
        """Return [(event, data)] of a streamed answer."""
        body = {"message": message, "stream": True, **more}
        return events(self.post("/api/chat", json=body).text)


def events(text):
    pieces = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
    return [(p[0].removeprefix("event: "), json.loads(p[1].removeprefix("data: "))) for p in pieces]


def client_of(server):
    return Client(base_url=server.url, timeout=30, trust_env=False)


@pytest.fixture
def server(home):
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server):
    with client_of(server) as opened:
        opened.ok("POST", "/ingest", documents=[NOTE], ids=["note"])
        yield opened


@pytest.fixture
def scripted(tmp_path):
    """Give a function that serves a home with a scripted model: (client, the model)."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(*scripts, **settings):
            model = stack.enter_context(model_server(*scripts))
            engine = {"kind": "openai", "url": model.url, "model": "big-7b"}
            home = stack.enter_context(home_of(tmp_path / "home", engine=engine, **settings))
            server = stack.enter_context(serving(home))
            return stack.enter_context(client_of(server)), model

        yield start


# --- chat -----------------------------------------------------------------------------------------


def test_an_answer_tells_its_session_model_route_and_receipt(client):
    told = client.chat("What did I decide about the heating?")
    ChatShape.model_validate(told, strict=True)
    assert set(told) == set(ChatShape.model_fields), "what /docs says is what comes"
    assert "heat pump" in told["answer"] and told["known"] and not told["cancelled"]
    assert told["model"] == told["engine"] == "echo" and told["role"] == "primary"
    assert told["route"]["model"] == "primary" and told["route"]["reason"]
    assert any(NOTE == source["text"] for source in told["sources"])
    receipt = client.ok("GET", f"/why/{told['receipt_id']}")
    assert receipt["answer"] == told["answer"] and receipt["conversation"] == told["session_id"]


def test_a_streamed_answer_starts_with_its_route_and_ends_with_the_whole(client):
    told = client.stream("What did I decide about the heating?", session_id="kitchen")
    names = [name for name, _ in told]
    assert names[0] == "start" and names[-1] == "done" and set(names[1:-1]) == {"delta"}
    start, done = told[0][1], told[-1][1]
    assert start["session_id"] == done["session_id"] == "kitchen" and start["route"]["reason"]
    assert "".join(data["text"] for name, data in told if name == "delta") == done["answer"]
    ChatShape.model_validate(done, strict=True)


def test_what_is_told_in_a_session_is_its_history_and_is_recalled_elsewhere(scripted):
    client, model = scripted(["Noted."])
    client.chat("The bicycle is called Rosinante.", session_id="one")
    client.chat("Where should I ride her?", session_id="one")
    said = [m["content"] for m in model.asked[-1]["messages"]]
    assert "The bicycle is called Rosinante." in said and "Noted." in said
    told = client.chat("What is the bicycle called?", session_id="two")
    assert any("Rosinante" in source["text"] for source in told["sources"])


def test_a_model_may_be_named_and_knowme_means_the_router(client):
    for name in ("primary", "echo", "knowme"):
        assert client.chat("Hello", model=name)["role"] == "primary"
    reply = client.post("/api/chat", json={"message": "Hello", "model": "gpt-4o"})
    assert reply.status_code == 404 and "gpt-4o" in reply.json()["error"]


def test_temperature_length_instructions_and_pictures_reach_the_model(scripted):
    models = {"primary": {"images": True}}
    client, model = scripted(["Green."], models=models)
    client.chat(
        "What colour is it?", temperature=0.9, max_tokens=77, system_prompt="Answer in one word.",
        images=[PNG],
    )  # fmt: skip
    asked = model.asked[-1]
    assert asked["temperature"] == 0.9
    assert 77 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))
    assert asked["messages"][0]["content"].startswith("Answer in one word.")
    assert f"data:image/png;base64,{PNG}" in json.dumps(asked["messages"][-1])


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("message", {}),
        ("message", {"message": " "}),
        ("images[0]", {"message": "x", "images": ["https://example.org/x.png"]}),
        ("max_tokens", {"message": "x", "max_tokens": 0}),
        ("'sesion_id'", {"message": "x", "sesion_id": "y"}),
    ],
)
def test_a_field_that_is_wrong_is_named(client, field, body):
    reply = client.post("/api/chat", json=body)
    assert reply.status_code == 422 and field in reply.json()["error"].replace('"', "'")


@pytest.mark.parametrize(
    ("told", "method", "path", "body"),
    [
        ("days must be a whole number from 1", "GET", "/api/llm/stats?days=-1", None),
        ("limit must be a whole number from 1", "GET", "/egress?limit=x", None),
        ("how must be 'regenerate' or 'retry_cloud'; it was \"x\"", "POST", "/api/chat/again",
         {"session_id": "a", "how": "x"}),
        ("rating is missing", "POST", "/rate", {"session_id": "a"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words_with_its_own_name(client, told, method, path, body):
    reply = client.request(method, path, json=body)
    assert reply.status_code == 422 and reply.json()["error"].startswith(told)


def test_a_picture_is_known_by_its_bytes():
    for raw, kind in (
        (b"\x89PNG\r\n\x1a\n0", "png"),
        (b"\xff\xd8\xff0", "jpeg"),
        (b"GIF890", "gif"),
    ):
        data = base64.b64encode(raw).decode()
        assert picture(data, "x") == f"data:image/{kind};base64,{data}"
        assert picture(f"data:image/png;base64,{data}", "x") == f"data:image/{kind};base64,{data}"
    for wrong in (
        7,
        "",
        "data:text/html;base64,PHA+",
        "not base64!",
        base64.b64encode(b"MZ").decode(),
    ):
        with pytest.raises(FieldError):
            picture(wrong, "images[0]")


# --- one at a time, cancel ------------------------------------------------------------------------


def test_in_a_session_answers_come_one_after_the_other_and_elsewhere_together(scripted):
    gate = threading.Event()
    client, model = scripted(["One", ("wait", gate), " done."])
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.chat, "First?", session_id="a")
        until(lambda: len(model.asked) == 1)
        second = pool.submit(client.chat, "Second?", session_id="a")
        other = pool.submit(client.chat, "Other?", session_id="b")
        until(lambda: len(model.asked) == 2)
        assert "Other?" in model.asked[1]["messages"][-1]["content"]
        assert not second.done()
        gate.set()
        assert first.result()["answer"] == other.result()["answer"] == "One done."
        assert second.result()["session_id"] == "a"
    # The second one knows what the first one was.
    assert "First?" in [m["content"] for m in model.asked[2]["messages"]]


def test_who_waits_for_an_earlier_answer_holds_no_place_of_others(scripted):
    gate = threading.Event()
    client, model = scripted(["One", ("wait", gate), " done."])
    with ThreadPoolExecutor(8) as pool:
        same = [pool.submit(client.chat, f"Question {n}?", session_id="a") for n in range(6)]
        until(lambda: len(model.asked) == 1)
        others = [pool.submit(client.chat, "Other?", session_id=name) for name in "bc"]
        until(lambda: len(model.asked) == 3)
        gate.set()
        assert {each.result()["answer"] for each in [*same, *others]} == {"One done."}
    told = client.ok("GET", "/api/sessions/a")["messages"]
    assert [m["role"] for m in told] == ["user", "assistant"] * 6


def test_an_answer_of_the_older_path_that_is_stopped_says_so(scripted):
    gate = threading.Event()
    client, model = scripted(["One ", ("wait", gate), "two."])
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.post, "/query", json={"query": "Count?", "conversation": "a"})
        until(lambda: len(model.asked) == 1)
        until(lambda: client.ok("POST", "/api/chat/cancel", session_id="a")["cancelled"])
        reply = asking.result(10)
        gate.set()
    assert reply.status_code == 409 and "stopped" in reply.json()["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_cancel_stops_the_model_and_what_was_said_is_kept(scripted, stream):
    gate = threading.Event()
    client, model = scripted(["One ", "two ", ("wait", gate), *["more "] * 5000])
    with ThreadPoolExecutor(1) as pool:
        body = {"message": "Count?", "session_id": "a", "stream": stream}
        asking = pool.submit(client.post, "/api/chat", json=body)
        until(lambda: len(model.asked) == 1)
        until(lambda: client.ok("POST", "/api/chat/cancel", session_id="a")["cancelled"])
        reply = asking.result(10)
        gate.set()
    done = events(reply.text)[-1][1] if stream else reply.json()
    assert done["cancelled"] is True and done["session_id"] == "a"
    receipt = client.ok("GET", f"/why/{done['receipt_id']}")
    assert receipt["state"] == "cut" and receipt["answer"] == done["answer"]
    assert "One two ".startswith(done["answer"])
    assert model.gone.wait(10)
    assert client.ok("POST", "/api/chat/cancel", session_id="a")["cancelled"] is False
    detail = client.ok("GET", "/api/sessions/a")
    assert "Count?" in json.dumps(detail)


def test_another_model_takes_over_and_the_client_is_told(tmp_path):
    with model_server(["The first half", "cut"]) as model:
        models = {
            "primary": {"engine": "openai", "url": model.url, "model": "big-7b"},
            "second": {"engine": "echo"},
        }
        settings = {
            "models": models, "routing": {"fallback": ["second"]},
            "ask": {"quote_first": "never"},
        }  # fmt: skip
        with home_of(tmp_path / "home", **settings) as home, serving(home) as server:
            with client_of(server) as client:
                told = client.stream("Compare the boats of Porto and of Lisbon.")
                switched = [data for name, data in told if name == "switched"][-1]
                assert switched["role"] == "second" and switched["restart"] is True
                done = told[-1][1]
                assert done["role"] == "second" and done["model"] == "echo"
                assert "first half" not in done["answer"]
                stats = client.ok("GET", "/api/llm/stats")
                assert {row["stage"] for row in stats["by_stage"]} >= {"fallback"}


def test_the_last_question_may_be_asked_again(scripted):
    client, model = scripted(["First."], ["Second."])
    first = client.chat("Which boat?", session_id="a")
    again = client.ok("POST", "/api/chat/again", session_id="a")
    assert (first["answer"], again["answer"]) == ("First.", "Second.")
    assert "Which boat?" in model.asked[-1]["messages"][-1]["content"]
    assert "First." not in json.dumps(client.ok("GET", "/api/sessions/a")["messages"])
    reply = client.post("/api/chat/again", json={"session_id": "nowhere"})
    assert reply.status_code == 404


# --- sessions -------------------------------------------------------------------------------------


def test_sessions_are_listed_newest_first_and_shown(client):
    for name in ("a", "b", "c/d"):
        client.chat(f"What about {name}?", session_id=name)
    told = client.ok("GET", "/api/sessions")["sessions"]
    assert [each["id"] for each in told] == ["c/d", "b", "a"]
    assert all(each["turns"] == 2 and each["role"] == "primary" for each in told)
    assert client.ok("GET", "/api/sessions")["next"] is None
    seen, before = [], ""
    while before is not None:
        page = client.ok("GET", f"/api/sessions?limit=1&before={before}")
        seen += [each["id"] for each in page["sessions"]]
        before = page["next"]
    assert seen == ["c/d", "b", "a"]
    assert client.ok("GET", "/api/sessions?before=2020-01-01")["sessions"] == []
    detail = client.ok("GET", "/api/sessions/c/d")
    assert [m["role"] for m in detail["messages"]] == ["user", "assistant"]
    assert detail["messages"][0]["text"] == "What about c/d?"
    assert client.get("/api/sessions/nowhere").status_code == 404
    assert client.get("/api/sessions?limit=0").status_code == 422
    assert client.get("/api/sessions?before=tomorrow").status_code == 422


# --- routing and ratings --------------------------------------------------------------------------


def test_a_route_is_explained_without_asking_any_model(home, client):
    told = client.ok("POST", "/route", message="Write a function that sorts a list.")
    assert told["role"] == told["route"]["model"] == "primary" and told["explained"]
    same = client.get("/route", params={"message": "Write a function that sorts a list."}).json()
    assert same["route"] == told["route"]
    assert client.get("/route").status_code == 422
    with home.db.read() as conn:
        assert rows(conn, "SELECT count(*) FROM calls") == [(0,)]


def test_classify_tells_personal_from_complex(client):
    for message, category in (
        ("Good morning! I prefer tea.", "PERSONAL"),
        ("Derive the closed form of the recurrence and prove by induction that it is correct, "
         "then implement it in C++ with unit tests.", "COMPLEX"),
    ):  # fmt: skip
        told = client.ok("POST", "/classify", message=message)
        ClassifyShape.model_validate(told, strict=True)
        assert told["category"] == category and told["confidence"] in ("high", "low"), message
        assert 0 <= told["probability"] <= 1 and told["reason"]


@pytest.fixture
def two_models(tmp_path):
    """Serve a home with a model here and one elsewhere; gives (home, client, the far model)."""
    with model_server(["From afar."]) as model:
        models = {
            "primary": {"engine": "echo"},
            "cloud": {"engine": "openai", "url": model.url, "model": "big-70b", "local": "false",
                      "price_in": 1.0, "price_out": 2.0},
        }  # fmt: skip
        with home_of(tmp_path / "home", models=models) as home, serving(home) as server:
            with client_of(server) as client:
                yield home, client, model


def test_a_rating_is_kept_with_the_choice_it_is_of(two_models):
    home, client, _ = two_models
    told = client.chat("Which boat is the fastest?", session_id="a")
    alone = client.post("/rate", json={"session_id": "a", "better": "same"})
    assert alone.status_code == 422 and "no second answer" in alone.json()["error"]
    shadow = "UPDATE answers SET receipt = json_set(receipt, '$.shadow', json('{}'))"
    home.db.write(lambda conn: conn.execute(shadow))
    for body in (
        {"receipt_id": told["receipt_id"], "rating": "up"},
        {"session_id": "a", "rating": 2, "better": "cloud"},
        {"session_id": "a", "better": "same"},
    ):
        assert client.ok("POST", "/rate", **body)["receipt_id"] == told["receipt_id"]
    with home.db.read() as conn:
        kept = rows(conn, "SELECT kind, value FROM outcomes ORDER BY id")
    assert kept == [("up", ""), ("better", "cloud"), ("rating", "2"), ("better", "same")]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, {"rating": "up"}),
        (422, {"receipt_id": 1, "session_id": "a", "rating": "up"}),
        (422, {"session_id": "a", "rating": 6}),
        (422, {"session_id": "a"}),
        (422, {"session_id": "a", "rating": "up", "better": "neither"}),
        (404, {"session_id": "nowhere", "rating": "up"}),
        (404, {"receipt_id": 999, "rating": 5}),
    ],
)
def test_a_rating_of_nothing_is_refused(client, status, body):
    assert client.post("/rate", json=body).status_code == status


# --- what it cost, what left ----------------------------------------------------------------------


def test_stats_add_up_by_model_stage_and_day(two_models):
    home, client, _ = two_models
    client.chat("Which boat is the fastest?", model="primary")
    client.chat("/cloud Which boat is the fastest?")
    body = {"model": "big-70b", "messages": [{"role": "user", "content": "Straight."}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    told = client.ok("GET", "/api/llm/stats")
    cloud = next(row for row in told["by_model"] if row["role"] == "cloud")
    assert (cloud["calls"], cloud["prompt_tokens"], cloud["answer_tokens"]) == (2, 22, 14)
    assert cloud["cached_tokens"] == 10 and cloud["local"] is False
    assert cloud["cost"] == pytest.approx(2 * (11 * 1.0 + 7 * 2.0) / 1e6)
    (day,) = told["by_day"]
    assert day["cloud"] == 2 and day["cost"] == pytest.approx(cloud["cost"])
    assert told["calls"]["calls"] == day["local"] + day["cloud"]
    assert told["cache_hit_rate"] == round(10 / told["calls"]["prompt_tokens"], 4)
    assert told["prefix_tokens_reused"] == 10
    assert {row["purpose"] for row in told["by_purpose"]} >= {"answer", "passthrough"}
    assert client.get("/api/llm/stats?days=0").status_code == 422


def test_swaps_are_counted_with_mean_and_p95(home, client):
    def add(conn):
        for n in range(20):
            conn.execute(
                "INSERT INTO swaps(at_ms, role, model, kind, took_ms, prefix_tokens)"
                " VALUES(strftime('%s', 'now') * 1000, 'primary', 'm', 'load', ?, 10)",
                (n + 1,),
            )

    before = client.ok("GET", "/api/llm/stats")
    home.db.write(add)
    told = client.ok("GET", "/api/llm/stats")
    assert told["swaps"]["loads"] == before["swaps"]["loads"] + 20
    assert told["swaps"]["p95_ms"] == 19 and told["swaps"]["mean_ms"] == 10.5
    assert told["prefix_tokens_restored"] == before["prefix_tokens_restored"] + 200


def test_what_left_is_listed_with_its_classes_and_its_words(two_models):
    _, client, model = two_models
    body = {"model": "cloud", "messages": [{"role": "user", "content": "Straight."}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    client.chat("/cloud Which boat is the fastest?")

    def listed():
        found = client.ok("GET", "/egress")["egress"]
        return [each for each in found if each["purpose"] in ("answer", "passthrough")]

    asked, straight = until(lambda: len(found := listed()) == 2 and found)
    assert straight["purpose"] == "passthrough" and straight["classes"] == {"client": "allow"}
    assert asked["purpose"] == "answer" and asked["classes"]["question"] == "allow"
    client.ok("GET", "/api/llm/stats")  # notes are written
    (straight,) = [each for each in listed() if each["purpose"] == "passthrough"]
    assert straight["outcome"] == "200" and straight["prompt_tokens"] == 11
    told = client.ok("GET", f"/egress/{straight['id']}")
    assert json.loads(told["body"])["messages"] == model.asked[0]["messages"]
    assert client.get("/egress/999").status_code == 404
