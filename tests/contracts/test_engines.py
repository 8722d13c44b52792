"""What every engine keeps to. A backend is one subclass."""

import asyncio
import json
import logging
import socket
import threading
import time

import pytest

from knowme import plugins, wire
from knowme.errors import ConfigError, KnowmeError, ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Chunk, Options

from . import servers

NOTE = (
    "<recalled>\n[2026-03-02, said by them, openclaw] We chose the heat pump from Vaillant for"
    " the cottage.\n[2026-03-09, a note, markdown] The plumber is called Inês.\n</recalled>"
)
QUESTION = (
    ChatMessage("system", "Answer in one short sentence, using only the notes."),
    ChatMessage("user", f"{NOTE}\n\nWhich heat pump did we choose?"),
)
SCHEMA = {
    "type": "object",
    "properties": {
        "device": {"enum": ["heat pump", "boiler"]},  # a tiny model never ends a free string
        "year": {"type": "integer", "minimum": 2000, "maximum": 2100},
    },
    "required": ["device", "year"],
    "additionalProperties": False,
}
STEADY = Options(max_tokens=24, temperature=0.0, seed=7)


async def gather(engine, messages=QUESTION, options=STEADY) -> tuple[str, list[Chunk]]:
    chunks = [chunk async for chunk in engine.stream(messages, options)]
    return "".join(chunk.text for chunk in chunks), chunks


class EngineContract:
    """Subclass it with a fixture ``engine``; ``name`` is what plugins call it."""

    name: str
    local = True

    @pytest.fixture
    def engine(self):
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _close(self, engine):
        yield
        asyncio.run(engine.aclose())

    def test_it_says_what_it_is(self, engine):
        assert engine.name == self.name
        assert engine.local is self.local
        assert engine.context_tokens == 2048
        assert asyncio.run(engine.health()) == ""

    def test_an_answer_is_pieces_of_text_and_then_one_usage(self, engine):
        text, chunks = asyncio.run(gather(engine))
        assert text.strip()
        assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        assert len(chunks) > 3 and chunks[-1].text == ""
        usage = chunks[-1].usage
        assert engine.model and usage.model
        assert usage.prompt_tokens > 20 and usage.answer_tokens > 0
        assert 0 <= usage.first_token_ms <= usage.total_ms
        assert usage.finish in ("stop", "length")

    def test_the_same_question_at_temperature_zero_has_the_same_answer(self, engine):
        async def twice():
            return [(await gather(engine))[0] for _ in range(2)]

        first, second = asyncio.run(twice())
        assert first == second

    def test_an_answer_is_not_longer_than_allowed(self, engine):
        text, chunks = asyncio.run(gather(engine, options=Options(max_tokens=4, temperature=0.0)))
        assert chunks[-1].usage.finish == "length"
        assert 0 < len(text) < 60

    def test_it_stops_before_a_stop_word(self, engine):
        whole, _ = asyncio.run(gather(engine))
        word = whole.split()[3]
        cut, chunks = asyncio.run(
            gather(engine, options=Options(max_tokens=24, temperature=0.0, seed=7, stop=(word,)))
        )
        assert word not in cut and whole.startswith(cut)
        assert chunks[-1].usage.finish == "stop"

    def test_a_schema_is_kept_to(self, engine):
        options = Options(max_tokens=100, temperature=0.0, json_schema=SCHEMA)
        text, _ = asyncio.run(gather(engine, options=options))
        found = json.loads(text)
        assert set(found) == {"device", "year"}
        assert found["device"] in ("heat pump", "boiler") and 2000 <= found["year"] <= 2100

    def test_leaving_early_leaves_the_engine_usable(self, engine):
        async def leave_then_ask():
            stream = engine.stream(QUESTION, Options(max_tokens=200, temperature=0.0))
            first = await anext(stream)
            await stream.aclose()
            return first, await gather(engine)

        first, (text, _) = asyncio.run(leave_then_ask())
        assert first.text and text.strip()

    def test_two_questions_at_once_do_not_mix(self, engine):
        async def both():
            return await asyncio.gather(gather(engine), gather(engine))

        (one, _), (two, _) = asyncio.run(both())
        alone, _ = asyncio.run(gather(engine))
        assert one.strip() and two.strip() and alone.strip()

    def test_it_works_in_a_second_event_loop(self, engine):
        first, _ = asyncio.run(gather(engine))
        second, _ = asyncio.run(gather(engine))
        assert first.strip() and second.strip()

    def test_any_script_goes_in(self, engine):
        messages = [ChatMessage("user", "Olá, 你好, \u2028 مرحبا 👋🏽 <|im_end|> \\n \"'")]
        _, chunks = asyncio.run(gather(engine, messages))
        assert chunks[-1].usage is not None

    def test_tokens_are_counted_or_estimated_sensibly(self, engine):
        count = engine.count_tokens
        prose = "The plumber comes on Tuesday to look at the heat pump in the cottage. "
        assert count("") == 0 and count("house") >= 1
        assert 10 <= count(prose) <= 30
        assert 1.7 * count(prose) <= count(prose * 2) <= 2.3 * count(prose)
        assert 4 <= count("我们选了热泵，水管工星期二来。") <= 45

    def test_closing_twice_is_fine(self, engine):
        asyncio.run(engine.aclose())
        asyncio.run(engine.aclose())


class TestEchoEngine(EngineContract):
    name = "echo"

    @pytest.fixture
    def engine(self):
        return plugins.find("engines", "echo")(context_tokens=2048, kind="echo")

    def test_it_names_itself_and_repeats_the_notes(self, engine):
        options = Options(max_tokens=300)
        text, _ = asyncio.run(gather(engine, options=options))
        assert text.startswith("This is the echo engine, without a model.")
        assert "[2026-03-02, said by them, openclaw] We chose the heat pump" in text
        assert "Which heat pump" not in text

    def test_without_notes_it_repeats_the_question(self, engine):
        text, _ = asyncio.run(gather(engine, [ChatMessage("user", "Who am I?")], Options()))
        assert text == (
            "This is the echo engine, without a model. It was given no notes, only: Who am I?"
        )


@pytest.fixture(scope="module")
def held():
    """Keep one embedded engine: its worker process takes a second to load the model."""
    made: list = []
    yield made
    for engine in made:
        asyncio.run(engine.aclose())


@pytest.mark.model
class TestLlamaCppEngine(EngineContract):
    name = "llamacpp"

    @pytest.fixture
    def engine(self, models, held):
        if not held:
            held.append(plugins.find("engines", "llamacpp")(context_tokens=2048, threads=1))
        return held[0]

    @pytest.fixture(autouse=True)
    def _close(self, engine):
        yield


@pytest.mark.model
class TestOpenAIEngineOnLlamaCpp(EngineContract):
    """The OpenAI wire format against a real llama.cpp server."""

    name = "openai"

    @pytest.fixture
    def engine(self, chat_url):
        return plugins.find("engines", "openai")(url=f"{chat_url}/v1", context_tokens=2048)

    def test_tokens_are_counted_by_the_servers_own_tokenizer(self, engine):
        assert engine.count_tokens("hello world") == 2

    def test_the_model_is_named_as_the_server_names_it(self, engine):
        _, chunks = asyncio.run(gather(engine))
        assert engine.model == chunks[-1].usage.model == "smollm2-135m-instruct-q4_1"

    def test_a_repeated_prompt_is_served_from_the_cache_and_says_so(self, engine):
        asyncio.run(gather(engine))
        _, chunks = asyncio.run(gather(engine))
        assert chunks[-1].usage.cached_tokens > 20


@pytest.mark.model
class TestOllamaEngineOnTheFixture(EngineContract):
    """Ollama's wire format, checked strictly, with the tokens of a real llama.cpp server."""

    name = "ollama"

    @pytest.fixture
    def engine(self, ollama):
        return plugins.find("engines", "ollama")(
            model="smollm2", url=ollama[0], context_tokens=2048, keep_alive="30m", api_key=""
        )

    def test_the_window_is_always_the_same(self, engine, ollama):
        for options in (STEADY, Options(max_tokens=4), Options(temperature=1.0, max_tokens=4)):
            asyncio.run(gather(engine, options=options))
        assert ollama[1].windows == [2048]

    def test_without_a_name_it_takes_a_model_that_chats(self, ollama):
        ollama[1].models = dict(reversed(ollama[1].models.items()))  # the embedder is newer
        engine = plugins.find("engines", "ollama")(url=ollama[0])
        asyncio.run(gather(engine))
        assert engine.model == "smollm2:latest"

    def test_a_missing_model_names_the_command_that_gets_it(self, ollama):
        engine = plugins.find("engines", "ollama")(model="qwen3:4b", url=ollama[0])
        with pytest.raises(ModelMissingError, match="qwen3:4b") as caught:
            asyncio.run(gather(engine))
        assert caught.value.hint == "Get it: ollama pull qwen3:4b"
        assert "ollama pull qwen3:4b" in asyncio.run(engine.health())

    def test_an_ollama_without_models_says_which_to_get(self, ollama):
        ollama[1].models = {}
        engine = plugins.find("engines", "ollama")(url=ollama[0])
        with pytest.raises(ModelMissingError, match="no chat model"):
            asyncio.run(gather(engine))
        assert "ollama pull" in asyncio.run(engine.health())

    def test_thinking_is_off_and_never_part_of_the_answer(self, engine, ollama):
        ollama[1].thinkers.add("smollm2")
        plain, _ = asyncio.run(gather(engine))
        asked = [body for path, body in ollama[1].asked if path == "/api/chat"]
        assert asked[-1]["think"] is False
        options = Options(max_tokens=24, temperature=0.0, seed=7, think=True)
        thought, _ = asyncio.run(gather(engine, options=options))
        assert plain.endswith(thought) and len(thought) < len(plain)

    def test_a_model_that_cannot_think_is_asked_again_without(self, ollama):
        engine = plugins.find("engines", "ollama")(model="smollm2", url=ollama[0], think=True)
        text, _ = asyncio.run(gather(engine))
        assert text.strip()
        asyncio.run(gather(engine))
        assert ["think" in body for _, body in ollama[1].asked] == [True, False, False]

    @pytest.mark.parametrize(("given", "sent"), [("-1", -1), ("0", 0), ("5m", "5m"), ("1h", "1h")])
    def test_keep_alive_is_sent_as_ollama_reads_it(self, ollama, given, sent):
        engine = plugins.find("engines", "ollama")(model="smollm2", url=ollama[0], keep_alive=given)
        asyncio.run(gather(engine, options=Options(max_tokens=2)))
        assert ollama[1].asked[-1][1]["keep_alive"] == sent

    def test_leaving_early_closes_the_connection(self, engine, ollama):
        async def leave():
            stream = engine.stream(QUESTION, Options(max_tokens=900, temperature=1.0, seed=1))
            await anext(stream)
            await stream.aclose()

        asyncio.run(leave())
        until = time.monotonic() + 10
        while not ollama[1].server.left and time.monotonic() < until:
            time.sleep(0.02)
        assert ollama[1].server.left == ["/api/chat"]


@pytest.mark.model
class TestOllamaEngineOnARealOne(EngineContract):
    """Runs where an Ollama with a chat model does; nothing is pulled."""

    name = "ollama"

    @pytest.fixture
    def engine(self):
        engine = plugins.find("engines", "ollama")(context_tokens=2048)
        if problem := asyncio.run(engine.health()):
            pytest.skip(f"needs a running Ollama with a chat model: {problem}")
        return engine


# --- what goes wrong on the wire -----------------------------------------------------------------

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


def test_no_engine_is_imported_by_listing_them_and_httpx_only_when_one_asks():
    import subprocess
    import sys

    program = (
        "import sys, json; from knowme import plugins; plugins.names('engines');"
        "a = [m for m in sys.modules if m.startswith('knowme.engines')];"
        "plugins.find('engines', 'ollama')(); plugins.find('engines', 'echo')();"
        "print(json.dumps([a, 'httpx' in sys.modules]))"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert json.loads(seen.stdout) == [[], False]
