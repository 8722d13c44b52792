"""Anthropic's Message Batches: the wire, its errors, and what is kept of what was submitted."""

import asyncio
import json

import messages_api
import pytest
from messages_api import KEY

from knowme.errors import InputError, ModelDownError, ModelError, OfflineError
from knowme.learn import batches
from knowme.times import now_ms


@pytest.fixture
def api():
    with messages_api.serving() as server:
        yield server


def request(name="r-1", **more):
    said = [{"role": "user", "content": "Hello"}]
    tools = [{"name": "note", "input_schema": {"type": "object"}}]
    given = {"model": "m", "max_tokens": 9, "messages": said, "tools": tools, **more}
    return {"custom_id": name, "params": given}


def with_service(url, work, key=KEY, gate=None, seconds=5.0):
    async def run():
        service = batches.Service(url, key, gate=gate, model="m", seconds=seconds)
        try:
            return await work(service)
        finally:
            await service.aclose()

    return asyncio.run(run())


async def read(service, batch):
    return [each async for each in service.results(batch)]


def entry(**more):
    given = {"nonce": "n", "purpose": "sound-like-me", "model": "m", "url": "u", "at_ms": now_ms(),
             "before": "", "requests": {"r-1": [1, 2]}, **more}  # fmt: skip
    return batches.Entry(**given)


def test_a_batch_goes_from_submission_to_its_results(api):
    api.answers = lambda params: {"pairs": [{"a": 1}]}

    async def work(service):
        made = await service.create([request(), request("r-2")])
        assert (made.status, made.total, made.ended) == ("in_progress", 2, False)
        api.end()
        seen = await service.get(made.id)
        assert seen.ended and seen.counts["succeeded"] == 2
        return await read(service, seen)

    found = with_service(api.url, work)
    assert {each.custom_id for each in found} == {"r-1", "r-2"}
    assert all(
        each.outcome == "succeeded" and each.given == {"pairs": [{"a": 1}]} for each in found
    )
    assert (found[0].prompt_tokens, found[0].answer_tokens) == (1000, 200)


@pytest.mark.parametrize("outcome", ["errored", "canceled", "expired"])
def test_what_became_of_a_request_is_told(api, outcome):
    api.answers = lambda params: outcome

    async def work(service):
        made = await service.create([request()])
        api.end()
        return await read(service, await service.get(made.id))

    (found,) = with_service(api.url, work)
    assert found.outcome == outcome and found.given is None
    assert ("too long" in found.error) == (outcome == "errored")


def test_results_elsewhere_are_not_fetched_there(api):
    """The fixture's results_url names another host; the key goes to ours alone."""

    async def work(service):
        made = await service.create([request()])
        api.end()
        seen = await service.get(made.id)
        assert seen.results_url.startswith("https://api.anthropic.com/")
        return await read(service, seen)

    assert len(with_service(api.url, work)) == 1
    assert api.gets[-1].endswith("/results")


@pytest.mark.parametrize(
    ("status", "headers", "reached", "said"),
    [
        (401, {}, "no", "KNOWME_LEARN_TEACHER_API_KEY"),
        (429, {"retry-after": "7"}, "no", "7 seconds"),
        (500, {}, "maybe", "failed (500)"),
        (503, {}, "no", "failed (503)"),
        (529, {}, "maybe", "failed (529)"),
        (413, {}, "no", "--since"),
    ],
)
def test_an_error_says_how_far_a_submission_came(api, status, headers, reached, said):
    api.faults["POST", "create"] = [("status", status, headers)]
    with pytest.raises(ModelError) as caught:
        with_service(api.url, lambda service: service.create([request()]))
    assert caught.value.reached == reached
    assert said in str(caught.value) and KEY not in str(caught.value)
    assert not api.created


@pytest.mark.parametrize("fault", ["cut", "late", "html"])
def test_a_submission_whose_answer_was_not_read_may_have_arrived(api, fault):
    api.faults["POST", "create"] = [fault]
    with pytest.raises(ModelDownError) as caught:
        with_service(api.url, lambda service: service.create([request()]))
    assert caught.value.reached == "maybe" and KEY not in str(caught.value)
    assert len(api.created) == (fault == "late")


def test_a_wrong_key_is_told_and_not_shown(api):
    with pytest.raises(ModelDownError) as caught:
        with_service(api.url, lambda service: service.newest(), key="sk-ant-wrong-key-123")
    assert "refused the key" in str(caught.value) and "wrong-key" not in str(caught.value)
    with pytest.raises(InputError, match="no key"):
        batches.Service(api.url, "", gate=None)


@pytest.mark.parametrize(
    "names", [["a b"], ["x" * 65], ["a", "a"], []], ids=["space", "long", "twice", "none"]
)
def test_names_that_the_api_refuses_are_refused_before_they_are_sent(api, names):
    with pytest.raises(InputError):
        with_service(api.url, lambda service: service.create([request(name) for name in names]))
    assert not api.created


def test_the_strict_server_refuses_what_the_api_does_not_know(api):
    with pytest.raises(ModelError, match="Extra inputs"):
        with_service(api.url, lambda service: service.create([request(max_answer=3)]))


def test_the_batches_since_one_are_listed_over_pages(api):
    async def work(service):
        made = [await service.create([request()]) for _ in range(batches._PAGE + 3)]
        assert await service.newest() == made[-1].id
        return made, await service.since(made[0].id), await service.since("")

    made, since, every = with_service(api.url, work)
    assert [each.id for each in since] == [each.id for each in made[:0:-1]]
    assert len(every) == len(made)


def test_requests_are_cut_at_what_one_batch_takes(monkeypatch):
    monkeypatch.setattr(batches, "MOST_REQUESTS", 3)
    assert [len(part) for part in batches.cut([request(f"r-{n}") for n in range(7)])] == [3, 3, 1]
    monkeypatch.setattr(batches, "MOST_BYTES", 400)
    parts = batches.cut([request(f"r-{n}") for n in range(7)])
    assert all(len(json.dumps(part)) < 420 for part in parts) and sum(map(len, parts)) == 7


def test_offline_refuses_before_anything_is_sent(home):
    from knowme import net

    with net.walled(True), pytest.raises(OfflineError):
        with_service("https://192.0.2.1", lambda service: service.newest())


# --- what was submitted ---------------------------------------------------------------------------


def test_an_entry_is_on_disk_before_the_first_byte_and_its_id_behind_it(api, tmp_path):
    path, seen = tmp_path / "batches.json", []
    answers = messages_api.Api._create

    def spying(self, call):
        seen.append([each.state for each in batches.entries(path)])
        return answers(self, call)

    api._create = spying.__get__(api)
    one = entry()
    with_service(api.url, lambda service: batches.submit(service, path, one, [request()], {}))
    assert seen == [["sending"]]
    (kept,) = batches.entries(path)
    assert (kept.state, kept.id) == ("sent", "msgbatch_" + "0" * 24)
    assert "Hello" not in path.read_text() and KEY not in path.read_text()


def test_what_the_server_did_not_take_is_closed(api, tmp_path):
    api.faults["POST", "create"] = [("status", 429, {})]
    with pytest.raises(ModelDownError):
        with_service(
            api.url,
            lambda service: batches.submit(service, tmp_path / "b.json", entry(), [request()], {}),
        )
    assert [each.state for each in batches.entries(tmp_path / "b.json")] == ["refused"]


def test_a_server_that_does_not_answer_at_all_is_sent_nothing(api, tmp_path):
    api.faults["GET", "list"] = [("status", 401, {})]
    with pytest.raises(ModelDownError):
        with_service(
            api.url,
            lambda service: batches.submit(service, tmp_path / "b.json", entry(), [request()], {}),
        )
    assert not api.created and not (tmp_path / "b.json").exists()


def submitted_late(api, path, **more):
    """Submit so that the server takes it on and the answer is lost."""
    api.faults["POST", "create"] = ["late"]
    one = entry(**more)
    with pytest.raises(ModelDownError, match="not known"):
        with_service(api.url, lambda service: batches.submit(service, path, one, [request()], {}))
    return batches.entries(path)[0]


def test_a_lost_answer_is_found_again_by_the_names_of_its_requests(api, tmp_path):
    path = tmp_path / "b.json"
    with_service(api.url, lambda service: service.create([request("before")]))
    one = submitted_late(api, path)
    with_service(api.url, lambda service: service.create([request("other")]))
    assert (one.state, one.before) == ("sending", "msgbatch_" + "0" * 24)
    # Nothing tells them apart before they have ended, and nothing is sent meanwhile.
    with_service(api.url, lambda s: batches.settle(s, path, one, now_ms() + batches.SETTLE_MS))
    assert batches.entries(path)[0].state == "sending"
    api.end()
    with_service(api.url, lambda service: batches.settle(service, path, one, now_ms()))
    (kept,) = batches.entries(path)
    assert (kept.state, kept.id) == ("sent", "msgbatch_" + f"{1:024d}")
    assert len(api.created) == 3


def test_what_never_arrived_is_given_up_after_its_time_and_not_before(api, tmp_path):
    path = tmp_path / "b.json"
    api.faults["POST", "create"] = ["cut"]
    one = entry()
    with pytest.raises(ModelDownError):
        with_service(api.url, lambda service: batches.submit(service, path, one, [request()], {}))
    with_service(api.url, lambda service: batches.settle(service, path, one, one.at_ms + 1000))
    assert batches.entries(path)[0].state == "sending"
    late = one.at_ms + batches.SETTLE_MS + 1
    with_service(api.url, lambda service: batches.settle(service, path, one, late))
    assert batches.entries(path)[0].state == "lost"


def test_a_damaged_file_is_no_reason_to_pay_again(tmp_path):
    (tmp_path / "b.json").write_text('{"batches": [{"nonce"')
    with pytest.raises(InputError, match="what was paid for"):
        batches.entries(tmp_path / "b.json")
