"""Ollama's API with the official ollama client, at the root and under /ollama."""

import asyncio
import base64
import json

import httpx
import numpy as np
import ollama
import pytest
from served import ECHO, home_of, model_server
from served import served as serving

from knowme.types import ToolCall
from knowme.web.client_shapes import ollama_chat, ollama_generate
from knowme.web.problems import FieldError

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 16).decode()
HELLO = [{"role": "user", "content": "Hello there"}]
SAID = f"{ECHO} It was given no notes, only: Hello there"


@pytest.fixture
def server(home):
    with serving(home) as running:
        yield running


@pytest.fixture(params=["", "/ollama"])
def client(server, request):
    """Give the client of the root, then that of the prefix: the same must hold for both."""
    return ollama.Client(host=server.url + request.param, trust_env=False)


def test_chat_answers_whole_and_in_lines(client):
    for model in ("echo", "primary", "echo:latest"):
        told = client.chat(model=model, messages=HELLO)
        assert told.message.role == "assistant" and told.message.content == SAID
        assert told.done and told.done_reason == "stop" and told.model == model
        assert told.prompt_eval_count > 0 and told.eval_count > 0 and told.total_duration > 0
    lines = list(client.chat(model="echo", messages=HELLO, stream=True))
    assert "".join(line.message.content for line in lines) == SAID and len(lines) > 5
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]


def test_streaming_is_the_default_on_the_wire(server):
    for path in ("/api/chat", "/ollama/api/chat"):
        body = {"model": "echo", "messages": HELLO}
        reply = httpx.post(server.url + path, json=body, trust_env=False)
        assert reply.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in reply.text.splitlines()]
        assert len(lines) > 5 and lines[-1]["done"] and lines[-1]["total_duration"] > 0
        whole = httpx.post(server.url + path, json={**body, "stream": False}, trust_env=False)
        assert whole.json()["message"]["content"] == SAID


def test_api_chat_at_the_root_is_ollama_s_or_ours_by_its_body(server):
    ours = httpx.post(f"{server.url}/api/chat", json={"message": "Hello there"}, trust_env=False)
    assert ours.status_code == 200 and ours.json()["session_id"]
    theirs = httpx.post(f"{server.url}/api/chat", json={"messages": HELLO}, trust_env=False)
    assert theirs.status_code == 400 and theirs.json() == {"error": "model is required"}


def test_generate_answers_a_prompt(client):
    told = client.generate(model="echo", prompt="Hello there", system="Be brief.")
    assert told.response == SAID and told.done_reason == "stop"
    lines = list(client.generate(model="echo", prompt="Hello there", stream=True))
    assert "".join(line.response for line in lines) == SAID
    assert client.generate(model="echo", prompt="").done_reason == "load"
    assert client.chat(model="knowme", messages=[]).done_reason == "load"


def test_the_model_knowme_answers_from_memory(server, client):
    note = {"documents": ["I decided to replace the heating with a heat pump."], "ids": ["n"]}
    assert httpx.post(f"{server.url}/ingest", json=note, trust_env=False).status_code == 200
    asked = [{"role": "user", "content": "What did I decide about the heating?"}]
    told = client.chat(model="knowme", messages=asked)
    assert "heat pump" in told.message.content
    lines = list(client.chat(model="knowme:latest", messages=asked, stream=True))
    assert "heat pump" in "".join(line.message.content for line in lines)
    assert "heat pump" in client.generate(model="knowme", prompt=asked[0]["content"]).response
    told = httpx.post(
        f"{server.url}/api/chat",
        json={"model": "knowme", "messages": asked, "stream": False},
        trust_env=False,
    ).json()
    assert told["knowme"]["role"] == "primary" and told["knowme"]["receipt_id"]


def test_options_reach_the_model_and_the_window_stays_as_it_is(tmp_path):
    with model_server() as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            told = ollama.Client(host=server.url, trust_env=False).chat(
                model="big", messages=HELLO, keep_alive="5m",
                options={"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 7, "stop": ["END"],
                         "num_predict": 9, "num_ctx": 99, "num_gpu": 1},
            )  # fmt: skip
        asked = model.asked[-1]
        assert told.message.content == "Hello there." and told.prompt_eval_count == 11
        assert told.eval_count == 7
        assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.5, 0.9, 7)
        assert asked["stop"] == ["END"] and asked["top_k"] == 5
        assert 9 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))
        assert not {"num_ctx", "num_gpu", "keep_alive"} & set(asked)


def test_tools_come_back_whole_with_arguments_as_an_object(tmp_path):
    pieces = [
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function",
                         "function": {"name": "weather", "arguments": '{"town":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Porto"}'}}]},
    ]  # fmt: skip
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with model_server(pieces) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big-7b"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            client = ollama.Client(host=server.url, trust_env=False)
            for name in ("big-7b", "knowme"):
                for stream in (False, True):
                    told = client.chat(model=name, messages=HELLO, tools=[tool], stream=stream)
                    replies = list(told) if stream else [told]
                    calls = [call for reply in replies for call in reply.message.tool_calls or ()]
                    assert [c.function.name for c in calls] == ["weather"], (name, stream)
                    assert calls[0].function.arguments == {"town": "Porto"}
                    assert model.asked[-1]["tools"] == [tool]
                said = [*HELLO, {"role": "assistant", "content": "", "tool_calls": calls},
                        {"role": "tool", "tool_name": "weather", "content": "Rain."}]  # fmt: skip
                client.chat(model=name, messages=said, tools=[tool])
                *_, asked, answered = model.asked[-1]["messages"]
                assert asked["tool_calls"][0]["id"] == answered["tool_call_id"] != ""
                assert "Rain." in answered["content"]


def test_a_schema_and_plain_json_are_formats(tmp_path, client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    told = client.chat(model="echo", messages=HELLO, format=schema)
    assert json.loads(told.message.content) == {"n": 0}
    with model_server(["{}"]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            ollama.Client(host=server.url, trust_env=False).generate(
                model="big", prompt="x", format="json"
            )
        assert model.asked[-1]["response_format"]["type"] == "json_object"


def test_an_unknown_model_is_not_found_as_with_ollama(client):
    for ask in (
        lambda: client.chat(model="qwen3:4b", messages=HELLO),
        lambda: client.generate(model="qwen3:4b", prompt="x"),
        lambda: client.show("qwen3:4b"),
    ):
        with pytest.raises(ollama.ResponseError) as missing:
            ask()
        assert missing.value.status_code == 404
        assert "model 'qwen3:4b' not found" in missing.value.error
    with pytest.raises(ollama.ResponseError) as wrong:
        client.chat(model="echo", messages=HELLO, options={"temperature": "hot"})
    assert wrong.value.status_code == 400


def test_what_changes_models_is_not_here_and_says_so(client):
    with pytest.raises(ollama.ResponseError) as refused:
        client.delete("echo")
    assert refused.value.status_code == 404 and "There is no" in refused.value.error


def test_a_stream_that_breaks_off_ends_with_an_error(tmp_path):
    with model_server(["One ", "two ", "cut"]) as model:
        engine = {"kind": "openai", "url": model.url, "model": "big"}
        with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
            client, got = ollama.Client(host=server.url, trust_env=False), []
            with pytest.raises(ollama.ResponseError, match="broke off"):
                for line in client.chat(model="big", messages=HELLO, stream=True):
                    got.append(line.message.content)
            assert got == ["One ", "two "]


def test_embeddings_old_and_new_are_those_of_the_embedder(home, client):
    expected = home.embedder.embed(["the heat pump", "Ω 暖房"], "document")
    told = client.embed(model="knowme", input=["the heat pump", "Ω 暖房"])
    assert np.allclose(told.embeddings, expected, atol=1e-6) and told.total_duration > 0
    assert np.allclose(client.embed(model="any", input="the heat pump").embeddings, expected[:1])
    old = client.embeddings(model="any", prompt="the heat pump")
    assert np.allclose(old.embedding, expected[0])
    with pytest.raises(ollama.ResponseError, match="dimensions must be"):
        client.embed(model="knowme", input="x", dimensions=3)


def test_models_are_listed_shown_and_running(client):
    assert [m.model for m in client.list().models] == ["knowme:latest", "echo:latest"]
    assert all(m.digest and m.modified_at for m in client.list().models)
    for name in ("knowme", "knowme:latest", "echo", "primary"):
        told = client.show(name)
        assert "completion" in told.capabilities and told.details.family == "echo"
        assert told.modelinfo["echo.context_length"] == 4096
    assert [m.model for m in client.ps().models] == ["echo:latest"]


def test_the_prefix_says_that_ollama_is_running_and_the_root_is_ours(server):
    for path in ("/ollama", "/ollama/"):
        assert httpx.get(server.url + path, trust_env=False).text == "Ollama is running"
        assert httpx.head(server.url + path, trust_env=False).status_code == 200
    assert "<html" in httpx.get(f"{server.url}/", trust_env=False).text
    # Ollama's own command asks HEAD / before anything else.
    assert httpx.head(f"{server.url}/", trust_env=False).status_code == 200
    told = httpx.get(f"{server.url}/api/version", trust_env=False).json()
    assert told["version"].count(".") == 2 and told["knowme"]


def test_the_asynchronous_client_works(server):
    async def talk():
        client = ollama.AsyncClient(host=server.url, trust_env=False)
        stream = await client.chat(model="echo", messages=HELLO, stream=True)
        return "".join([line.message.content async for line in stream])

    assert asyncio.run(talk()) == SAID


def test_pictures_calls_and_their_answers_are_read():
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    wanted = ollama_chat(
        {"model": "m", "messages": [
            {"role": "user", "content": "U", "images": [PNG]},
            {"role": "assistant", "tool_calls": [call, {"function": {"name": "g"}}]},
            {"role": "tool", "tool_name": "g", "content": "G"},
            {"role": "tool", "content": "F"},
        ]}
    )  # fmt: skip
    user, assistant, second, first = wanted.messages
    assert user.images == (f"data:image/png;base64,{PNG}",) and wanted.stream
    assert assistant.tool_calls == (
        ToolCall("call_1", "f", '{"a": 1}'), ToolCall("call_2", "g", "{}"),
    )  # fmt: skip
    assert (second.tool_call_id, first.tool_call_id) == ("call_2", "call_1")
    for wrong in ({"raw": True}, {"suffix": "x"}, {"images": ["no picture"]}, {"format": "xml"}):
        with pytest.raises(FieldError):
            ollama_generate({"model": "m", "prompt": "x", **wrong})


@pytest.mark.model
def test_the_real_model_answers_through_ollama_s_api(tmp_path, models):
    engine = {"kind": "llamacpp", "context_tokens": 2048, "threads": 1}
    with home_of(tmp_path / "home", engine=engine) as home, serving(home) as server:
        client = ollama.Client(host=server.url, trust_env=False)
        options = {"num_predict": 8, "temperature": 0, "seed": 1}
        name = home.engine.model
        told = client.chat(model=name, messages=HELLO, options=options)
        assert told.message.content and 0 < told.eval_count <= 8
        lines = list(client.chat(model=name, messages=HELLO, options=options, stream=True))
        assert "".join(line.message.content for line in lines) == told.message.content
        assert told.eval_duration > 0 and told.prompt_eval_duration > 0
