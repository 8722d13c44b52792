"""What goes over the wire between an engine and a server, and what may go wrong with it."""

import asyncio
import json
import logging
import socket
import threading
import time

import pytest

from knowme import plugins, wire
from knowme.errors import ConfigError, KnowmeError, ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Options, ToolCall

from . import servers
from .test_engines import PICTURE, QUESTION, WEATHER, gather

KEY = "sk-secret-0123456789"


def sse(*events: str) -> str:
    return "".join(f"data: {event}\n\n" for event in events)


def delta(text: str, **more) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return json.dumps({"model": "m", "choices": [choice]}, ensure_ascii=False)


def line(text: str, **more) -> str:
    body = {"model": "m", "message": {"role": "assistant", "content": text}, "done": False, **more}
    return json.dumps(body, ensure_ascii=False) + "\n"


class WireFaults:
    """The same faults for every protocol; a subclass brings the words of its own."""

    name: str
    kind: str  # the content type of a stream
    text: str  # a piece that says "Hello "
    end: str  # the end of a good stream
    wide: str  # a good piece with U+2028 and U+0085 in it
    bad_pieces: tuple[str, ...]
    late_error: str

    def engine(self, url: str, **more):
        return plugins.find("engines", self.name)(
            model="m", url=url, api_key=KEY, **{"timeout_seconds": 1.0, **more}
        )

    def ask(self, serve, caplog=None, **more) -> tuple[str, KnowmeError | None]:
        """Return what arrived and the error that ended it."""

        async def run():
            engine = self.engine(server.url, **more)
            got, error = [], None
            try:
                async for chunk in engine.stream(QUESTION, Options()):
                    got.append(chunk.text)
            except KnowmeError as caught:
                error = caught
            await engine.aclose()
            return "".join(got), error

        with servers.serving(serve) as server:
            text, error = asyncio.run(run())
        assert KEY not in f"{error!r} {error} {getattr(error, '__cause__', '')}"
        return text, error

    def stream(self, *pieces: str, cut: bool = False, stall: float = 0.0):
        def serve(call: servers.Handler) -> None:
            call.start_stream(self.kind)
            for piece in pieces:
                call.piece(piece)
            if stall:
                time.sleep(stall)
            call.cut() if cut else call.end_stream()

        return serve

    def fails(self, status: int, body, headers=None):
        return lambda call: call.reply(status, body, headers)

    def test_a_refused_connection_says_where_and_what_to_start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        engine = self.engine(url)
        with pytest.raises(ModelDownError, match=f"{url} refused the connection") as caught:
            asyncio.run(gather(engine))
        assert "Start it" in caught.value.hint
        assert url in asyncio.run(engine.health())

    def test_a_host_that_does_not_exist_is_down(self):
        with pytest.raises(ModelDownError, match=r"nowhere\.invalid"):
            asyncio.run(gather(self.engine("http://nowhere.invalid:1")))

    def test_silence_between_two_pieces_ends_the_answer(self):
        text, error = self.ask(self.stream(self.text, stall=2.0), timeout_seconds=0.3)
        assert text == "Hello " and isinstance(error, ModelDownError)
        assert "nothing for 0.3 seconds" in error.message

    def test_a_stream_that_is_cut_is_an_error_and_not_a_short_answer(self):
        for cut in (True, False):
            text, error = self.ask(self.stream(self.text, self.text, cut=cut))
            assert text == "Hello Hello " and isinstance(error, ModelDownError)
            assert "broke off" in error.message

    def test_what_is_not_of_the_protocol_is_refused_with_its_words(self):
        for bad in self.bad_pieces:
            text, error = self.ask(self.stream(self.text, bad, self.end))
            assert text == "Hello " and isinstance(error, ModelDownError), bad
            assert "unexpected" in error.message

    def test_bytes_that_are_not_text_are_refused(self):
        def serve(call):
            call.start_stream(self.kind)
            call.piece(b"data: {\xff\xfe\n")
            call.end_stream()

        assert isinstance(self.ask(serve)[1], ModelDownError)

    def test_an_error_in_the_middle_is_told(self):
        text, error = self.ask(self.stream(self.text, self.late_error))
        assert text == "Hello " and isinstance(error, ModelDownError)
        assert "out of memory" in error.message

    def test_an_empty_answer_is_an_answer(self):
        text, error = self.ask(self.stream(self.end))
        assert (text, error) == ("", None)

    def test_line_separators_inside_a_piece_stay_inside(self):
        text, error = self.ask(self.stream(self.wide, self.end))
        assert (text, error) == ("a\u2028b\u0085c", None)

    def test_pieces_may_be_cut_anywhere(self):
        def serve(call):
            call.start_stream(self.kind)
            for byte in (self.wide + self.text + self.end).encode():
                call.piece(bytes([byte]))
            call.end_stream()

        assert self.ask(serve) == ("a\u2028b\u0085cHello ", None)

    def test_a_server_error_carries_its_words(self):
        _, error = self.ask(self.fails(500, {"error": "llama runner has terminated"}))
        assert isinstance(error, ModelDownError)
        assert "(500)" in error.message and "llama runner has terminated" in error.message

    def test_a_page_of_html_is_cut_short(self):
        _, error = self.ask(self.fails(502, "<html>" + "x" * 5000))
        assert isinstance(error, ModelDownError) and len(str(error)) < 600

    def test_too_many_requests_says_how_long_to_wait(self):
        _, error = self.ask(self.fails(429, {"error": "slow down"}, {"Retry-After": "17"}))
        assert isinstance(error, ModelDownError) and "17 seconds" in error.hint

    def test_a_request_that_is_refused_carries_the_reason(self):
        _, error = self.ask(self.fails(400, {"error": "messages are empty"}))
        assert isinstance(error, ModelError) and "messages are empty" in error.message

    def test_a_redirect_is_not_followed(self):
        other = []
        with servers.serving(lambda call: other.append(call.path)) as elsewhere:
            _, error = self.ask(self.fails(307, "", {"Location": elsewhere.url}))
        assert isinstance(error, ModelDownError) and other == []

    def test_no_proxy_stands_between_us_and_this_machine(self, monkeypatch):
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert self.ask(self.stream(self.text, self.end)) == ("Hello ", None)

    def test_leaving_early_closes_the_connection(self):
        gone = threading.Event()

        def serve(call):
            call.start_stream(self.kind)
            try:
                for _ in range(500):
                    call.piece(self.text)
                    time.sleep(0.01)
            except OSError:
                gone.set()
                raise

        async def leave(url):
            stream = self.engine(url).stream(QUESTION, Options())
            await anext(stream)
            await stream.aclose()

        with servers.serving(serve) as server:
            asyncio.run(leave(server.url))
            assert gone.wait(5)

    def test_a_cancelled_task_closes_the_connection(self):
        gone = threading.Event()

        def serve(call):
            call.start_stream(self.kind)
            try:
                for _ in range(500):
                    call.piece(self.text)
                    time.sleep(0.01)
            except OSError:
                gone.set()
                raise

        async def cancel(url):
            task = asyncio.create_task(gather(self.engine(url)))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with servers.serving(serve) as server:
            asyncio.run(cancel(server.url))
            assert gone.wait(5)

    @pytest.mark.parametrize("url", ["localhost:11434", "ftp://x/v1", "http://", "http://u:p@h/v1"])
    def test_an_address_that_cannot_be_one_is_refused_at_once(self, url):
        with pytest.raises(ConfigError, match=r"engine\.url"):
            self.engine(url)

    def test_only_this_machines_own_addresses_are_local(self):
        for url in ("http://127.0.0.1:1", "http://localhost:1/v1", "http://[::1]:1"):
            assert self.engine(url).local is True
        for url in ("https://api.example.com/v1", "http://192.168.1.5:11434", "http://10.0.0.1"):
            assert self.engine(url).local is False


class TestOllamaFaults(WireFaults):
    name = "ollama"
    kind = "application/x-ndjson"
    text = line("Hello ")
    end = line("", done=True, done_reason="stop", prompt_eval_count=3, eval_count=1)
    wide = line("a\u2028b\u0085c")
    bad_pieces = ("{not json}\n", "[]\n", '"x"\n', '{"message": "x"}\n')
    late_error = '{"error": "out of memory"}\n'

    def test_a_server_that_is_not_ollama_is_told_apart_from_a_missing_model(self):
        _, error = self.ask(self.fails(404, "404 page not found"))
        assert isinstance(error, ModelDownError) and "not Ollama" in error.message
        _, error = self.ask(self.fails(404, {"error": 'model "m" not found'}))
        assert isinstance(error, ModelMissingError)


class TestOpenAIFaults(WireFaults):
    name = "openai"
    kind = "text/event-stream"
    text = sse(delta("Hello "))
    end = sse(delta("", finish_reason="stop"), "[DONE]")
    wide = ": a comment\n\n" + sse(delta("a\u2028b\u0085c"))
    bad_pieces = (
        sse("{not json}"),
        sse("[]"),
        sse('"x"'),
        sse('{"choices": "x"}'),
        sse('{"choices": [{"delta": "x"}]}'),
    )
    late_error = sse('{"error": {"code": 500, "message": "out of memory"}}')

    def test_llama_cpps_own_form_of_a_late_error_is_read(self):
        late = 'error: {"code": 500, "message": "out of memory"}\n\n'
        _, error = self.ask(self.stream(self.text, late))
        assert isinstance(error, ModelDownError) and "out of memory" in error.message

    def test_a_missing_model_names_what_there_is(self):
        def serve(call):
            if call.path == "/models":
                call.reply(200, {"data": [{"id": "llama"}, {"id": "qwen"}]})
            else:
                call.reply(404, {"error": {"message": "The model `m` does not exist"}})

        _, error = self.ask(serve)
        assert isinstance(error, ModelMissingError)
        assert "does not exist" in error.message and "llama, qwen" in error.message

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key_is_never_shown(self, status, caplog):
        caplog.set_level(logging.DEBUG)
        body = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
        _, error = self.ask(self.fails(status, body))
        assert isinstance(error, ModelDownError) and "KNOWME_ENGINE_API_KEY" in error.hint
        assert "***" in error.message
        assert KEY not in caplog.text

    def test_the_key_is_sent_as_a_bearer_token(self):
        seen = []

        def serve(call):
            seen.append(call.headers.get("authorization"))
            self.stream(self.text, self.end)(call)

        self.ask(serve)
        assert seen == [f"Bearer {KEY}"]

    def test_a_prompt_beyond_the_window_names_the_setting(self):
        body = {"error": {"message": "This model's maximum context length is 4096 tokens"}}
        _, error = self.ask(self.fails(400, body))
        assert isinstance(error, ModelError) and "engine.context_tokens" in error.hint

    def test_parameters_that_a_server_does_not_know_are_renamed_or_left_out_and_remembered(self):
        seen = []

        def serve(call):
            seen.append(call.json)
            for name, instead in (("max_tokens", "max_completion_tokens"), ("temperature", "")):
                if name in call.json:
                    use = f" Use '{instead}' instead." if instead else " Only 1 is supported."
                    said = f"Unsupported parameter: '{name}'.{use}"
                    return call.reply(400, {"error": {"message": said}})
            self.stream(self.text, self.end)(call)

        async def twice(url):
            engine = self.engine(url)
            return [(await gather(engine))[0] for _ in range(2)]

        with servers.serving(serve) as server:
            assert asyncio.run(twice(server.url)) == ["Hello ", "Hello "]
        assert len(seen) == 4
        assert seen[-1]["max_completion_tokens"] == 24
        assert "temperature" not in seen[-1] and seen[-1]["seed"] == 7

    def test_pieces_of_tool_calls_are_passed_on_as_they_come(self):
        def piece(*calls, **more):
            choice = {"index": 0, "delta": {"tool_calls": list(calls)}, **more}
            return json.dumps({"model": "m", "choices": [choice]})

        first = {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}
        events = [
            piece({**first, "type": "function"}),
            piece({"index": 0, "function": {"arguments": '{"x"'}}),
            piece({"index": 0, "function": {"arguments": ": 1}"}}, finish_reason="tool_calls"),
            piece({"id": "b", "index": 1, "function": {"name": "g", "arguments": {"y": 2}}}),
            "[DONE]",
        ]

        async def run(url):
            return await gather(self.engine(url))

        with servers.serving(self.stream(sse(*events))) as server:
            text, chunks = asyncio.run(run(server.url))
        deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
        assert [(d.index, d.id, d.name, d.arguments) for d in deltas] == [
            (0, "a", "f", ""),
            (0, "", "", '{"x"'),
            (0, "", "", ": 1}"),
            (1, "b", "g", '{"y": 2}'),
        ]
        assert text == "" and chunks[-1].usage.finish == "tool_calls"

    def test_what_is_asked_is_sent_in_openais_form(self):
        seen = []

        def serve(call):
            seen.append(call.json)
            self.stream(self.text, self.end)(call)

        call = ToolCall("c", "get_weather", '{"city": "Lisbon"}')
        messages = [
            ChatMessage("user", "Look", images=(PICTURE,)),
            ChatMessage("assistant", "", tool_calls=(call,)),
            ChatMessage("tool", "18", tool_call_id="c"),
        ]
        options = Options(
            tools=(WEATHER,), tool_choice="auto", json_object=True, extra={"logprobs": True}
        )
        with servers.serving(serve) as server:
            asyncio.run(gather(self.engine(server.url), messages, options))
        (body,) = seen
        assert body["messages"] == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'},
                    }
                ],
            },
            {"role": "tool", "content": "18", "tool_call_id": "c"},
        ]
        assert body["tools"] == [WEATHER] and body["tool_choice"] == "auto"
        assert body["response_format"] == {"type": "json_object"} and body["logprobs"] is True
        assert body["chat_template_kwargs"] == {"enable_thinking": False}

    @pytest.mark.parametrize(
        "pieces",
        [
            [{"reasoning_content": "Hm. "}, {"content": "Yes."}],
            [{"reasoning": "Hm. "}, {"content": "Yes."}],
            [{"content": "<think>Hm. </think>\n\nYes."}],
            [{"content": c} for c in "\n<think>Hm. </think>\n\nYes."],
        ],
    )
    def test_what_it_thinks_is_no_part_of_the_answer(self, pieces):
        events = [json.dumps({"choices": [{"delta": delta}]}) for delta in pieces]

        async def run(url):
            return await gather(self.engine(url))

        with servers.serving(self.stream(sse(*events), self.end)) as server:
            text, chunks = asyncio.run(run(server.url))
        assert text == "Yes." and "".join(chunk.reasoning for chunk in chunks) == "Hm. "

    @pytest.mark.parametrize("text", ["<thin", "  <b>x</b>", "a <think>b</think>", " ", "<"])
    def test_what_only_looks_like_thinking_is_the_answer(self, text):
        pieces = [delta(char) for char in text]
        assert self.ask(self.stream(sse(*pieces), self.end)) == (text, None)

    def test_a_server_elsewhere_is_told_nothing_of_templates_and_may_be_called_local(self):
        seen = []

        def serve(call):
            seen.append(call.json)
            self.stream(self.text, self.end)(call)

        for local, sent in (("false", False), ("true", True), ("auto", True)):
            assert self.engine("http://127.0.0.1:1", local=local).local is sent
            self.ask(serve, local=local)
            assert ("chat_template_kwargs" in seen[-1]) is sent
        assert self.engine("http://192.168.1.5:8080", local="true").local is True

    def test_a_server_that_does_not_count_is_counted_for(self):
        async def run(url):
            return (await gather(self.engine(url)))[1][-1].usage

        with servers.serving(self.stream(self.text, self.end)) as server:
            usage = asyncio.run(run(server.url))
        assert usage.prompt_tokens > 20 and usage.answer_tokens == 2

    def test_a_server_elsewhere_needs_a_models_name(self):
        with pytest.raises(ConfigError, match=r"engine\.model is empty"):
            plugins.find("engines", "openai")(url="https://api.example.com/v1")
        with pytest.raises(ConfigError, match=r"engine\.url is empty"):
            plugins.find("engines", "openai")(model="m")


def test_an_estimate_is_never_far_below_the_truth_in_any_script():
    assert wire.estimate_tokens("") == 0
    assert wire.estimate_tokens("a") == 1
    assert wire.estimate_tokens("x" * 36) == 10
    assert wire.estimate_tokens("热泵") == 2
    assert wire.estimate_tokens("👋") == 1
