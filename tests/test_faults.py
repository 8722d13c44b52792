"""What goes wrong between an engine and a real model server, and what the engine makes of it."""

import asyncio
import time
from contextlib import contextmanager
from email.utils import formatdate

import faults
import httpx
import pytest
from contracts import servers

from knowme import plugins, wire
from knowme.errors import KnowmeError, ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Options, Usage

QUESTION = (ChatMessage("user", "Count from one to twenty."),)
SHORT = Options(max_tokens=16, temperature=0.0)

pytestmark = pytest.mark.model


@pytest.fixture(scope="session", autouse=True)
def _stop_servers():
    yield
    servers.stop_all()


@pytest.fixture
def llama_url(models):
    return servers.llama(models["chat"], "chat")


class Outcome:
    """What one question came to."""

    def __init__(self) -> None:
        self.text = ""
        self.usage: Usage | None = None
        self.error: KnowmeError | None = None

    @property
    def how(self) -> tuple[type | None, str]:
        return type(self.error), getattr(self.error, "reached", "")


async def ask(engine, options=SHORT) -> Outcome:
    found = Outcome()
    try:
        async for chunk in engine.stream(QUESTION, options):
            found.text += chunk.text
            found.usage = chunk.usage or found.usage
    except KnowmeError as error:
        found.error = error
    await engine.aclose()
    return found


class Faults:
    """The same faults for both protocols."""

    name: str
    bad_event: str
    late_error: str
    missing: dict

    @contextmanager
    def proxied(self, llama_url):
        raise NotImplementedError

    @pytest.fixture
    def proxy(self, llama_url):
        with self.proxied(llama_url) as proxy:
            yield proxy
            assert proxy.wait_closed()  # whatever happened, nothing is left open

    def engine(self, proxy, **more):
        raise NotImplementedError

    def ask(self, proxy, *script, **more) -> Outcome:
        proxy.script(*script)
        return asyncio.run(ask(self.engine(proxy, **more)))

    def test_without_a_fault_the_proxy_changes_nothing(self, proxy):
        found = self.ask(proxy)
        assert found.error is None and found.text.strip()
        assert found.usage.answer_tokens == 16 and found.usage.finish == "length"
        assert proxy.wait_closed() and [seen.end for seen in proxy.posts] == ["done"]

    def test_a_slow_answer_is_an_answer(self, proxy):
        whole = self.ask(proxy).text
        assert self.ask(proxy, faults.slow(0.02)).text == whole
        assert self.ask(proxy, faults.delay(0.3)).text == whole

    def test_too_many_requests_was_not_taken_on_and_says_how_long_to_wait(self, proxy):
        found = self.ask(proxy, faults.status(429, {"error": "slow down"}, retry_after="7"))
        assert found.how == (ModelDownError, "no") and found.error.retry_after == 7.0
        assert "(429)" in found.error.message and "7 seconds" in found.error.hint

    def test_how_long_to_wait_may_be_a_date(self, proxy):
        date = formatdate(time.time() + 600, usegmt=True)
        found = self.ask(proxy, faults.status(429, retry_after=date))
        assert 0 < found.error.retry_after <= 600

    def test_a_busy_server_has_not_taken_it_on(self, proxy):
        found = self.ask(proxy, faults.status(503, {"error": "overloaded"}, retry_after="2"))
        assert found.how == (ModelDownError, "no") and found.error.retry_after == 2.0
        assert "overloaded" in found.error.message

    @pytest.mark.parametrize("code", [500, 502, 504, 529])
    def test_of_a_failure_within_the_server_nobody_knows_what_it_did(self, proxy, code):
        found = self.ask(proxy, faults.status(code, {"error": "out of memory"}))
        assert found.how == (ModelDownError, "maybe") and found.error.retry_after is None
        assert f"({code})" in found.error.message and "out of memory" in found.error.message

    @pytest.mark.parametrize(
        ("code", "kind"), [(400, ModelError), (401, ModelDownError), (403, ModelDownError)]
    )
    def test_what_is_refused_was_not_taken_on(self, proxy, code, kind):
        found = self.ask(proxy, faults.status(code, {"error": "no, thank you"}))
        assert found.how == (kind, "no") and "no, thank you" in found.error.message

    def test_a_missing_model_was_not_taken_on(self, proxy):
        found = self.ask(proxy, faults.status(404, self.missing))
        assert found.how == (ModelMissingError, "no")

    @pytest.mark.parametrize("fault", [faults.close(), faults.garbage(), faults.cut(events=0)])
    def test_of_a_connection_that_breaks_before_the_answer_nobody_knows(self, proxy, fault):
        found = self.ask(proxy, fault)
        assert found.how == (ModelDownError, "maybe") and found.text == ""
        assert "broke off" in found.error.message

    def test_a_stream_that_is_cut_had_begun(self, proxy):
        whole = self.ask(proxy).text
        for fault in (faults.cut(events=5), faults.cut(bytes=1500)):
            found = self.ask(proxy, fault)
            assert found.how == (ModelDownError, "yes") and found.usage is None
            assert found.text and whole.startswith(found.text) and found.text != whole
            assert "broke off" in found.error.message

    @pytest.mark.parametrize("fault", [faults.delay(60), faults.hang()])
    def test_silence_before_the_answer_ends_it(self, proxy, fault):
        found = self.ask(proxy, fault, timeout_seconds=0.4)
        assert found.how == (ModelDownError, "maybe") and found.text == ""
        assert "nothing for 0.4 seconds" in found.error.message

    def test_silence_within_the_answer_ends_it(self, proxy):
        found = self.ask(proxy, faults.hang(events=5), timeout_seconds=3.0)
        assert found.how == (ModelDownError, "yes") and found.text
        assert "nothing for 3 seconds" in found.error.message

    def test_nonsense_is_told_from_an_answer(self, proxy):
        found = self.ask(proxy, faults.nonsense(self.bad_event))
        assert found.how == (ModelDownError, "maybe") and "unexpected" in found.error.message
        found = self.ask(proxy, faults.nonsense(self.bad_event, events=5))
        assert found.how == (ModelDownError, "yes") and found.text

    def test_an_error_in_the_middle_is_told(self, proxy):
        found = self.ask(proxy, faults.nonsense(self.late_error, events=5))
        assert found.how == (ModelDownError, "yes") and "out of memory" in found.error.message

    def test_a_page_instead_of_a_stream_is_nonsense(self, proxy):
        found = self.ask(proxy, faults.page())
        assert found.how == (ModelDownError, "maybe") and "Please log in" in found.error.message

    def test_an_answer_of_no_tokens_says_that_it_has_none(self, proxy):
        found = self.ask(proxy, faults.empty())
        assert found.error is None and found.text == ""
        assert found.usage.answer_tokens == 0 and found.usage.finish == "stop"

    def test_a_server_that_is_gone_was_never_reached(self, proxy):
        with faults.Proxy("http://127.0.0.1:1") as other:
            gone = other.url
        found = asyncio.run(ask(self.engine(proxy, url=gone)))
        assert found.how == (ModelDownError, "no")
        assert gone in found.error.message and "refused the connection" in found.error.message

    def test_a_server_without_an_address_was_never_reached(self, proxy):
        found = asyncio.run(ask(self.engine(proxy, url="http://nowhere.invalid:1")))
        assert found.how == (ModelDownError, "no")

    def test_no_fault_is_answered_by_asking_again_unasked(self, proxy):
        script = (
            faults.status(429),
            faults.status(500),
            faults.status(503, "busy"),
            faults.close(),
            faults.garbage(),
            faults.cut(events=5),
            faults.empty(),
        )
        for fault in script:
            before = len(proxy.posts)
            self.ask(proxy, fault)
            assert len(proxy.posts) == before + 1, fault

    def test_after_a_fault_the_same_engine_answers_again(self, proxy):
        async def both():
            engine = self.engine(proxy)
            proxy.script(faults.cut(events=4), faults.status(500))
            first = [await ask(engine), await ask(engine)]
            return [found.error is not None for found in first], await ask(engine)

        failed, found = asyncio.run(both())
        assert failed == [True, True] and found.error is None and found.text.strip()

    @pytest.mark.parametrize("way", ["aclose", "cancel"])
    def test_leaving_early_stops_the_generation_in_the_server(self, proxy, llama_url, way):
        async def begin(engine, first):
            stream = engine.stream(QUESTION, Options(max_tokens=1900, temperature=1.0))
            try:
                async for chunk in stream:
                    if chunk.text:
                        first.set()
                        if way == "aclose":
                            break
            finally:
                await stream.aclose()

        async def leave():
            engine, first = self.engine(proxy), asyncio.Event()
            task = asyncio.create_task(begin(engine, first))
            await first.wait()
            if way == "cancel":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await task if way == "aclose" else None
            await engine.aclose()

        proxy.script()
        asyncio.run(leave())
        assert proxy.wait_closed() and proxy.posts[-1].end == "left"
        until = time.monotonic() + 60
        while (slot := self.slot(llama_url))["is_processing"] and time.monotonic() < until:
            time.sleep(0.05)
        assert slot["is_processing"] is False
        assert slot["next_token"][0]["n_decoded"] < 1000

    @staticmethod
    def slot(llama_url) -> dict:
        return httpx.get(f"{llama_url}/slots", trust_env=False).json()[0]


class TestOpenAI(Faults):
    name = "openai"
    bad_event = "data: {not json}\n\n"
    late_error = 'data: {"error": {"code": 500, "message": "out of memory"}}\n\n'
    missing = {"error": {"message": "The model `m` does not exist"}}

    @contextmanager
    def proxied(self, llama_url):
        with faults.Proxy(llama_url) as proxy:
            yield proxy

    def engine(self, proxy, *, url="", **more):
        return plugins.find("engines", "openai")(
            model="m", url=f"{url or proxy.url}/v1", **{"timeout_seconds": 30.0, **more}
        )

    def test_a_missing_model_names_what_the_server_offers(self, proxy):
        for fault in (
            faults.status(404, self.missing),
            faults.status(400, {"error": {"message": "model 'm' not found"}}),
        ):
            found = self.ask(proxy, fault)
            assert found.how == (ModelMissingError, "no")
            assert "It offers: smollm2-135m-instruct-q4_1." in found.error.message

    def test_a_server_that_is_loading_its_model_is_waited_for(self, proxy):
        loading = faults.status(503, {"error": {"message": "Loading model", "code": 503}})
        found = self.ask(proxy, loading, loading, loading)
        assert found.error is None and found.text.strip()
        assert [seen.fault.name for seen in proxy.posts] == ["status"] * 3 + ["pass"]

    def test_a_server_that_never_ends_loading_is_not_waited_for_for_ever(self, proxy):
        proxy.always(faults.status(503, {"error": {"message": "Loading model"}}))
        found = asyncio.run(ask(self.engine(proxy, timeout_seconds=0.7)))
        assert found.how == (ModelDownError, "no") and "still loading" in found.error.message
        assert len(proxy.posts) > 1

    def test_a_server_elsewhere_is_not_waited_for(self, proxy):
        loading = faults.status(503, {"error": {"message": "Loading model"}})
        found = self.ask(proxy, loading, local="false")
        assert found.how == (ModelDownError, "no") and len(proxy.posts) == 1


class TestOllama(Faults):
    name = "ollama"
    bad_event = "{not json}\n"
    late_error = '{"error": "out of memory"}\n'
    missing = {"error": 'model "m" not found, try pulling it first'}

    @contextmanager
    def proxied(self, llama_url):
        fixture = servers.OllamaFixture({"m:latest": ("chat", llama_url)})
        with servers.serving(fixture) as server:
            fixture.server = server
            with faults.Proxy(server.url) as proxy:
                yield proxy

    def engine(self, proxy, *, url="", **more):
        return plugins.find("engines", "ollama")(
            model="m", url=url or proxy.url, **{"timeout_seconds": 30.0, **more}
        )

    def test_a_missing_model_names_the_command_that_gets_it(self, proxy):
        found = self.ask(proxy, faults.status(404, self.missing))
        assert found.error.hint == "Get it: ollama pull m"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", None),
        ("17", 17.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("soon", None),
        ("999999999", wire.LONGEST_WAIT),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 21 Oct 2999 07:28:00 GMT", wire.LONGEST_WAIT),
    ],
)
def test_a_retry_after_is_read_and_capped(said, seconds):
    assert wire.seconds_of(said) == seconds
