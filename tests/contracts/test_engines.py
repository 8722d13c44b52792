"""What every engine keeps to. A backend is one subclass."""

import asyncio
import json
import time

import pytest

from knowme import plugins
from knowme.errors import ModelError, ModelMissingError
from knowme.types import ChatMessage, Chunk, Options, ToolCall

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
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Lisbon", "Porto"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather now.", "parameters": CITY},
}
WEATHER_QUESTION = (ChatMessage("user", "What is the weather in Lisbon?"),)
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

    def test_any_json_is_json(self, engine):
        options = Options(max_tokens=12, temperature=0.0, json_object=True)
        text, _ = asyncio.run(gather(engine, options=options))
        assert text.lstrip().startswith("{")

    def test_a_tool_that_must_be_called_is_called(self, engine):
        for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
            options = Options(max_tokens=80, temperature=0.0, tools=(WEATHER,), tool_choice=choice)
            text, chunks = asyncio.run(gather(engine, WEATHER_QUESTION, options))
            deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
            assert text == "" and {delta.index for delta in deltas} == {0}
            assert "".join(delta.name for delta in deltas) == "get_weather" and deltas[0].id
            arguments = json.loads("".join(delta.arguments for delta in deltas))
            assert arguments["city"] in ("Lisbon", "Porto")
            usage = chunks[-1].usage
            assert usage.finish == "tool_calls" and usage.answer_tokens > 0

    def test_the_result_of_a_tool_goes_in_and_an_answer_comes_out(self, engine):
        call = ToolCall("call_1", "get_weather", '{"city": "Lisbon"}')
        messages = [
            *WEATHER_QUESTION,
            ChatMessage("assistant", "", tool_calls=(call,)),
            ChatMessage("tool", "18 degrees and sunny", tool_call_id="call_1"),
        ]
        for tools in ((), (WEATHER,)):
            options = Options(max_tokens=40, temperature=0.0, tools=tools)
            text, chunks = asyncio.run(gather(engine, messages, options))
            assert text.strip() and chunks[-1].usage.finish in ("stop", "length")

    def test_a_picture_is_refused_by_a_model_without_eyes(self, engine):
        messages = [ChatMessage("user", "What is this?", images=(PICTURE,))]
        with pytest.raises(ModelError, match="cannot look at pictures") as caught:
            asyncio.run(gather(engine, messages))
        assert caught.value.reached == "no"

    def test_extra_fields_go_along_and_change_nothing_that_we_said(self, engine):
        plain, _ = asyncio.run(gather(engine))
        theirs = {"model": "other", "messages": [], "prompt": "x", "stream": False, "n": 3}
        theirs |= {"temperature": 2.0, "max_tokens": 1, "top_k": 1, "no_such_field": "x"}
        options = Options(max_tokens=24, temperature=0.0, seed=7, extra=theirs)
        text, chunks = asyncio.run(gather(engine, options=options))
        assert text == plain and len(chunks) > 3

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
        strange = "Olá, 你好, \u2028 مرحبا 👋🏽 <|im_end|> \\n \"' \x00 and half an emoji: \ud83d"
        messages = [ChatMessage("user", strange)]
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

    def test_a_picture_is_refused_by_a_model_without_eyes(self, engine):
        """It says that there was one: nothing is lost in silence."""
        messages = [ChatMessage("user", "What is this?", images=(PICTURE,))]
        text, _ = asyncio.run(gather(engine, messages, Options()))
        assert text.endswith("only: What is this? (and 1 picture)")

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

    def test_line_separators_inside_a_piece_stay_inside(self, engine):
        options = Options(max_tokens=20, extra={"grammar": 'root ::= "a\u2028b\u0085c"'})
        text, _ = asyncio.run(gather(engine, options=options))
        assert text == "a\u2028b\u0085c"

    def test_it_calls_tools_in_the_middle_of_a_conversation_of_text(self, engine):
        """The text of an answer is passed on without the JSON that it is wrapped in."""
        options = Options(max_tokens=40, temperature=0.0, tools=(WEATHER,))
        text, chunks = asyncio.run(gather(engine, WEATHER_QUESTION, options))
        called = any(chunk.tool_calls for chunk in chunks)
        assert called or (text.strip() and "response" not in text and len(chunks) > 3)

    def test_a_tool_whose_schema_is_none_is_refused_in_words(self, engine):
        broken = {"type": "object", "properties": {"city": {"type": "no such type"}}}
        tool = {"type": "function", "function": {"name": "f", "parameters": broken}}
        with pytest.raises(ModelError) as caught:
            options = Options(max_tokens=9, tools=(tool,), tool_choice="required")
            asyncio.run(gather(engine, WEATHER_QUESTION, options))
        assert caught.value.reached == "no" and "refused the request" in caught.value.message


@pytest.mark.model
class TestOpenAIEngineOnLlamaCpp(EngineContract):
    """The OpenAI wire format against a real llama.cpp server."""

    name = "openai"

    @pytest.fixture
    def engine(self, chat_url):
        return plugins.find("engines", "openai")(url=f"{chat_url}/v1", context_tokens=2048)

    def test_tokens_are_counted_by_the_servers_own_tokenizer(self, engine):
        assert engine.count_tokens("hello world") == 2

    def test_a_tool_that_must_be_called_is_called(self, engine):
        """This server passes tools over where the model's template knows none; see the wire."""
        options = Options(max_tokens=8, tools=(WEATHER,), tool_choice="required")
        _, chunks = asyncio.run(gather(engine, WEATHER_QUESTION, options))
        assert chunks[-1].usage.finish == "length"

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

    def test_what_it_thinks_comes_as_reasoning(self, engine, ollama):
        ollama[1].thinkers.add("smollm2")
        options = Options(max_tokens=24, temperature=0.0, seed=7, think=True)
        text, chunks = asyncio.run(gather(engine, options=options))
        thought = "".join(chunk.reasoning for chunk in chunks)
        assert thought and thought not in text

    def test_options_of_openai_are_sent_under_ollamas_names(self, engine, ollama):
        extra = {
            "top_k": 5,
            "min_p": 0.1,
            "presence_penalty": 0.5,
            "frequency_penalty": 1,
            "repetition_penalty": 1.1,
            "mirostat": 0,
            "num_ctx": 8192,
            "logit_bias": {"1": 2},
            "typical_p": "wrong",
        }
        asyncio.run(gather(engine, options=Options(max_tokens=4, extra=extra)))
        sent = ollama[1].asked[-1][1]["options"]
        assert sent == {
            "top_k": 5,
            "min_p": 0.1,
            "presence_penalty": 0.5,
            "frequency_penalty": 1,
            "repeat_penalty": 1.1,
            "mirostat": 0,
            "num_ctx": 2048,
            "num_predict": 4,
        }

    def test_pictures_are_sent_without_their_head(self, engine, ollama):
        messages = [ChatMessage("user", "What is this?", images=(PICTURE,))]
        with pytest.raises(ModelError):
            asyncio.run(gather(engine, messages))
        sent = ollama[1].asked[-1][1]["messages"][0]
        assert sent["images"] == [PICTURE.partition(",")[2]]
        for url in ("https://example.org/a.png", "data:image/svg+xml,<svg/>"):
            with pytest.raises(ModelError, match="takes pictures as data"):
                asyncio.run(gather(engine, [ChatMessage("user", "?", images=(url,))]))

    def test_tools_are_left_out_where_none_may_be_called(self, engine, ollama):
        options = Options(max_tokens=4, tools=(WEATHER,), tool_choice="none")
        asyncio.run(gather(engine, WEATHER_QUESTION, options))
        assert "tools" not in ollama[1].asked[-1][1]

    def test_the_result_of_a_tool_names_the_tool(self, engine, ollama):
        self.test_the_result_of_a_tool_goes_in_and_an_answer_comes_out(engine)
        _, called, result = ollama[1].asked[-1][1]["messages"]
        assert called["tool_calls"][0]["function"]["arguments"] == {"city": "Lisbon"}
        assert result["tool_name"] == "get_weather"

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
