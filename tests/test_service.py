"""The HTTP service, on a real socket with a real home."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from knowme import plugins, service
from knowme.errors import ConfigError, ModelDownError
from knowme.settings import SourceSettings
from knowme.types import Chunk, Usage
from knowme.web import page
from knowme.web.forms import OLLAMA_PATHS
from knowme.web.lanes import Lane
from knowme.web.problems import BusyError
from knowme.web.shapes import (
    AnswerShape,
    HealthShape,
    IngestShape,
    SearchShape,
    StatsShape,
    SyncShape,
)

NOTES = [
    "I decided to replace the old heating with a heat pump in October.",
    "The plumber Kofi comes on Friday at nine.",
    "My sister Ines lives in Porto and teaches the violin.",
    "We should repaint the kitchen in a light green.",
]


@pytest.fixture
def server(home):
    running = service.Server(home, "127.0.0.1", 0)
    running.start()
    yield running
    running.stop(5)
    assert not running.alive()


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as opened:
        yield opened


def remember(client, texts=NOTES, session="kitchen", speaker="Ana"):
    metas = [
        {"session": session, "speaker": speaker, "timestamp": f"2026-03-0{n + 1}T10:00", "n": n}
        for n in range(len(texts))
    ]
    ids = [f"{session}-{n}" for n in range(len(texts))]
    reply = client.post("/ingest", json={"documents": texts, "metadatas": metas, "ids": ids})
    assert reply.status_code == 200, reply.text
    return reply.json()


def found(client, query, **more):
    reply = client.post("/search", json={"query": query, **more})
    assert reply.status_code == 200, reply.text
    return reply.json()["results"]


def events(text):
    """Return [(event, data)] of a whole stream of server-sent events."""
    pieces = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
    return [(p[0].removeprefix("event: "), json.loads(p[1].removeprefix("data: "))) for p in pieces]


def until(what, seconds=10):
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return got


class SlowEngine:
    """An engine for tests: says one word at a time until it is closed, or fails on purpose."""

    name, local, model, context_tokens = "slow", True, "slow-7b", 4096
    words, pause, fails_after, word = 10_000, 0.01, None, "word"

    def __init__(self, **_):
        self.said, self.closed = 0, threading.Event()

    async def stream(self, messages, options):
        try:
            for n in range(self.words):
                if n == self.fails_after:
                    raise ModelDownError("The model died.", "Start it: ollama serve")
                await asyncio.sleep(self.pause)
                self.said += 1
                yield Chunk(f"{self.word}{n} ")
            yield Chunk(usage=Usage(self.model, answer_tokens=self.words))
        finally:
            self.closed.set()

    def count_tokens(self, text):
        return len(text.split())

    async def health(self):
        return ""

    async def aclose(self):
        pass


@pytest.fixture
def slow(home, monkeypatch):
    """Let the home's engine be a slow one, as a plugin would be; gives it, changed as wanted."""
    monkeypatch.setitem(plugins.BUILTIN["engines"], "slow", f"{__name__}:SlowEngine")
    object.__setattr__(home.settings.engine, "kind", "slow")

    def engine(**changes):
        for name, value in changes.items():
            setattr(home.engine, name, value)
        return home.engine

    return engine


class GatedEmbedder:
    """The hashing embedder of the home, with a gate that holds up documents or queries."""

    def __init__(self, inner, held):
        self.inner, self.held = inner, held
        self.fingerprint, self.dims = inner.fingerprint, inner.dims
        self.waiting, self.gate = threading.Event(), threading.Event()

    def embed(self, texts, kind):
        if kind == self.held:
            self.waiting.set()
            assert self.gate.wait(30)
        return self.inner.embed(texts, kind)

    def close(self):
        self.gate.set()
        self.inner.close()


# --- ingest and search ----------------------------------------------------------------------------


def test_what_was_ingested_is_found_with_the_callers_id_and_metadata(client):
    told = remember(client)
    IngestShape.model_validate(told, strict=True)
    assert told == {"ingested": 4, "total": 4, "new": 4, "changed": 0, "unchanged": 0}
    reply = client.post("/search", json={"query": "What about the heating?", "top_k": 2})
    told = reply.json()
    SearchShape.model_validate(told, strict=True)
    best = told["results"][0]
    assert told["count"] == len(told["results"]) == 2
    assert best["id"] == "kitchen-0" and best["text"] == NOTES[0]
    assert best["metadata"]["n"] == 0 and best["metadata"]["session"] == "kitchen"
    assert best["speaker"] == "Ana" and best["conversation"] == "kitchen"
    assert best["time"].startswith("2026-03-01T10:00:00")
    assert 0 <= best["distance"] <= 2 and best["why"]


def test_a_hit_comes_with_its_neighbours_as_many_as_asked(client):
    remember(client)
    best = found(client, "the plumber Kofi", neighbours=1)[0]
    assert [n["id"] for n in best["neighbours"]] == ["kitchen-0", "kitchen-2"]
    assert [n["offset"] for n in best["neighbours"]] == [-1, 1]
    assert found(client, "the plumber Kofi", neighbours=0)[0]["neighbours"] == []


def test_the_same_id_again_replaces_the_old_text(client):
    remember(client)
    told = client.post(
        "/ingest", json={"documents": ["Kofi comes on Monday."], "ids": ["k"]}
    ).json()
    assert told["new"] == 1 and told["total"] == 5
    told = client.post(
        "/ingest", json={"documents": ["Kofi comes on Tuesday."], "ids": ["k"]}
    ).json()
    assert told["changed"] == 1 and told["total"] == 5
    told = client.post(
        "/ingest", json={"documents": ["Kofi comes on Tuesday."], "ids": ["k"]}
    ).json()
    assert told["unchanged"] == 1 and told["ingested"] == 1 and told["total"] == 5
    texts = [hit["text"] for hit in found(client, "When does Kofi come?")]
    assert "Kofi comes on Tuesday." in texts and "Kofi comes on Monday." not in texts


def test_documents_need_neither_ids_nor_metadata(client):
    told = client.post("/ingest", json={"documents": NOTES, "metadatas": None, "ids": None}).json()
    assert told["new"] == 4
    best = found(client, "violin", top_k=1)[0]
    assert best["text"] == NOTES[2] and best["id"] and best["metadata"] == {}


def test_a_missing_metadata_entry_may_be_null(client):
    body = {"documents": ["one thing", "another thing"], "metadatas": [None, {"tag": "x"}]}
    assert client.post("/ingest", json=body).status_code == 200
    assert {"tag": "x"} in [hit["metadata"] for hit in found(client, "thing")]


def test_text_in_every_script_comes_back_as_it_was(client):
    texts = [
        "Ω≈ç√ naïve café",
        "暖房を秋に替えることにした",
        "emoji 👩‍👩‍👧 and tab\tand\nline",
        "نص عربي",
    ]
    client.post("/ingest", json={"documents": texts, "ids": list("abcd")})
    for name, text in zip("abcd", texts, strict=True):
        assert text in [hit["text"] for hit in found(client, text)], name


def test_filters_narrow_the_search(client):
    remember(client)
    remember(client, ["The heating was repaired by Bo."], session="cellar", speaker="Bo")
    query = "heating plumber kitchen sister"
    assert {h["speaker"] for h in found(client, query, speakers=["Bo"])} == {"Bo"}
    assert {h["speaker"] for h in found(client, query, speakers="Bo")} == {"Bo"}
    assert {h["conversation"] for h in found(client, query, conversations=["cellar"])} == {"cellar"}
    assert found(client, query, kinds=["section"]) == []
    assert found(client, query, sources=["nowhere"]) == []
    since = found(client, query, since="2026-03-03", conversations=["kitchen"])
    assert {h["id"] for h in since} == {"kitchen-2", "kitchen-3"}
    day = found(client, query, since="2026-03-02", until="2026-03-02")
    assert {h["id"] for h in day} == {"kitchen-1"}
    at = 1_772_359_200_000  # 2026-03-01T10:00Z, inclusive on both sides
    assert {h["id"] for h in found(client, query, since=at, until=at)} >= {"kitchen-0"}
    assert found(client, query, until=at - 1) == []


def test_a_time_without_a_zone_is_utc(client):
    remember(client)
    for value in ("2026-03-01T10:00:00", "2026-03-01T10:00Z", "2026-03-01T11:00+01:00"):
        ids = {h["id"] for h in found(client, "heating", since=value, until=value)}
        assert ids == {"kitchen-0"}, value


def test_an_absent_or_empty_now_is_no_error(client):
    remember(client)
    for now in (None, "", "2026-03-05T12:00:00", 1_772_359_200_000):
        assert found(client, "heating", now=now)


def test_a_budget_of_tokens_ends_the_list(client):
    remember(client)
    assert len(found(client, "the heating and the plumber", budget_tokens=20)) < 4


def test_the_benchmark_s_own_client_works_against_us(server, shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / "bench"))
    from systems.knowme_system import KnowmeSystem

    bench = KnowmeSystem()
    bench.base = server.url
    turns = [
        {"id": f"D1:{n}", "session": "S1", "time": when, "speaker": "Ana", "text": text}
        for n, (text, when) in enumerate(
            zip(NOTES, ["2026-03-01T10:00:00", "", "", ""], strict=True)
        )
    ]
    bench.add(turns)
    assert bench.search("the violin in Porto", 3, None)[0] == "D1:2"
    assert bench.search("the heating", 3, "2026-03-05T10:00:00")[0] == "D1:0"
    bench.add([{**turns[0], "text": "The heating stays."}])
    assert bench.search("heating", 1) == ["D1:0"]


# --- ask ------------------------------------------------------------------------------------------


def test_an_answer_names_its_sources_model_and_receipt(client):
    remember(client)
    reply = client.post("/query", json={"query": "What did I decide about the heating?"})
    assert reply.status_code == 200, reply.text
    told = reply.json()
    AnswerShape.model_validate(told, strict=True)
    assert told["engine"] == "echo" and told["model"] and told["known"] is True
    assert any("heat pump" in source["text"] for source in told["sources"])
    receipt = client.get(f"/why/{told['receipt_id']}").json()
    assert receipt == client.get("/why/last").json()
    assert receipt["answer"] == told["answer"] and receipt["state"] == "done"
    assert receipt["surface"] == "http"


def test_a_streamed_answer_starts_with_its_sources_and_ends_with_the_whole(client):
    remember(client)
    body = {"query": "What did I decide about the heating?", "stream": True}
    reply = client.post("/query", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    told = events(reply.text)
    names = [name for name, _ in told]
    assert names[0] == "start" and names[-1] == "done" and set(names[1:-1]) == {"delta"}
    assert told[0][1]["sources"]
    assert "".join(data["text"] for name, data in told if name == "delta") == told[-1][1]["answer"]
    assert client.get(f"/why/{told[-1][1]['receipt_id']}").json()["answer"] == told[-1][1]["answer"]


def test_a_model_that_is_down_is_a_503_that_says_what_to_do(slow, client):
    slow(fails_after=0)
    reply = client.post("/query", json={"query": "How tall is the moon?"})
    assert reply.status_code == 503 and reply.headers["retry-after"]
    assert reply.json() == {"error": "The model died.", "hint": "Start it: ollama serve"}


def test_a_model_that_dies_in_the_middle_ends_the_stream_with_an_error(slow, client):
    slow(fails_after=3)
    told = events(client.post("/query", json={"query": "How tall?", "stream": True}).text)
    # A model of this machine that fails at once is asked once more, from the beginning.
    once = ["delta"] * 3
    assert [name for name, _ in told] == ["start", *once, "switched", *once, "error"]
    assert told[4][1]["restart"] is True and "died" in told[4][1]["reason"]
    assert told[-1][1]["status"] == 503 and "ollama serve" in told[-1][1]["hint"]
    assert client.get("/why/last").json()["state"] == "failed"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_in_the_middle_stops_the_model_and_the_turn_is_kept(
    slow, server, stream
):
    engine = slow()
    body = json.dumps({"query": "How tall is the moon?", "stream": stream}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        until(lambda: engine.said > 3)
    assert engine.closed.wait(5)
    said = engine.said
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        receipt = until(lambda: (r := client.get("/why/last")).status_code == 200 and r.json())
        assert receipt["state"] == "cut" and receipt["answer"].startswith("word0 word1 ")
        time.sleep(0.1)
        assert engine.said == said
        assert client.get("/health").status_code == 200


def test_a_client_that_stops_reading_does_not_hold_its_place_for_ever(slow, server, monkeypatch):
    from knowme.web import stream

    monkeypatch.setattr(stream, "STALLED_SECONDS", 0.3)
    engine = slow(words=2000, pause=0, word="x" * 100_000)
    body = json.dumps({"query": "How tall is the moon?", "stream": True}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            b"POST /query HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        assert engine.closed.wait(10)
    assert 0 < engine.said < 2000


def test_too_many_questions_at_once_are_told_to_come_back(slow, client, server, monkeypatch):
    from knowme.web import work

    monkeypatch.setattr(work, "ASKS_WAITING", 1)
    engine = slow()
    body = {"query": "How tall?", "stream": True}
    with ThreadPoolExecutor(8) as pool:
        stop = threading.Event()

        def ask():
            with httpx.stream("POST", server.url + "/query", json=body, timeout=30) as reply:
                if reply.status_code == 503:
                    reply.read()
                    return reply
                for _ in reply.iter_bytes():
                    if stop.is_set():
                        return None

        replies = [pool.submit(ask) for _ in range(8)]
        until(lambda: sum(r.done() for r in replies) == 8 - work.ASKS_AT_ONCE - 1)
        refused = [r.result() for r in replies if r.done()]
        stop.set()
        assert all(r.status_code == 503 and r.headers["retry-after"] for r in refused)
        assert "waiting" in refused[0].json()["error"]
    assert engine.closed.wait(5)


# --- concurrency ----------------------------------------------------------------------------------


def test_32_clients_search_while_an_ingest_embeds_and_none_waits_for_it(home, server, client):
    remember(client)
    gated = home._embedder = GatedEmbedder(home.embedder, "document")
    texts = [f"Fact {n} of the long import." for n in range(300)]
    with ThreadPoolExecutor(33) as pool:
        ingest = pool.submit(client.post, "/ingest", json={"documents": texts})
        assert gated.waiting.wait(10)

        def search(n):
            with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as own:
                return [own.post("/search", json={"query": f"heating {n} {m}"}) for m in range(4)]

        for replies in pool.map(search, range(32)):
            assert {reply.status_code for reply in replies} == {200}
            assert all(reply.json()["count"] for reply in replies)
        assert not ingest.done()
        gated.gate.set()
        assert ingest.result().json()["new"] == 300
    assert found(client, "long import")[0]["text"].endswith("of the long import.")


def test_writers_and_readers_together_lose_nothing(server, client):
    def write(n):
        body = {"documents": [f"Thing {n} lies in drawer {n}."], "ids": [f"t{n}"]}
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as own:
            return own.post("/ingest", json=body), own.post(
                "/search", json={"query": f"drawer {n}"}
            )

    with ThreadPoolExecutor(12) as pool:
        for ingest, search in pool.map(write, range(36)):
            assert ingest.status_code == 200 and search.status_code == 200
            # searchable on return, for whoever ingested it
            assert ingest.json()["new"] == 1
    assert client.get("/stats").json()["items"] == 36


def test_a_full_lane_refuses_and_frees_its_place_again():
    lane, gate = Lane("things", 1, 1), threading.Event()
    first, second = lane.submit(gate.wait), lane.submit(gate.wait)
    with pytest.raises(BusyError, match="2 things are waiting"):
        lane.submit(gate.wait)
    gate.set()
    assert first.result() and second.result()
    assert until(lambda: lane.submit(lambda: 5).result()) == 5
    lane.close()


# --- health ---------------------------------------------------------------------------------------


def test_health_answers_at_once_while_the_models_load(home):
    gated = home._embedder = GatedEmbedder(home.embedder, "query")
    running = service.Server(home, "127.0.0.1", 0)
    running.start()
    try:
        with httpx.Client(base_url=running.url, timeout=5, trust_env=False) as client:
            told = client.get("/health").json()
            assert told["warming"] is True and told["status"] == "ok"
            assert told["checks"]["embedder"]["state"] == "warming"
            assert gated.waiting.wait(5)
            assert client.get("/health").json()["warming"] is True
            gated.gate.set()
            told = until(lambda: not (h := client.get("/health").json())["warming"] and h)
            HealthShape.model_validate(told, strict=True)
            assert told["checks"]["embedder"]["state"] == "ok"
            assert told["checks"]["engine"]["detail"].startswith("echo")
    finally:
        gated.gate.set()
        running.stop(5)


def test_health_names_what_is_down_and_search_goes_on(home):
    class Gone:
        fingerprint, dims = "gone", 8

        def embed(self, texts, kind):
            raise ModelDownError("The embedder does not answer.", "Start it: ollama serve")

        def close(self):
            pass

    home._embedder = Gone()
    running = service.Server(home, "127.0.0.1", 0)
    running.start()
    try:
        with httpx.Client(base_url=running.url, timeout=5, trust_env=False) as client:
            told = until(lambda: (h := client.get("/health").json())["status"] == "degraded" and h)
            assert "ollama serve" in told["checks"]["embedder"]["detail"]
            assert client.get("/health").status_code == 200
            remember(client)
            assert found(client, "heating")[0]["distance"] is None
    finally:
        running.stop(5)


def test_a_home_without_an_embedder_is_well(home, server):
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        head = client.head("/health")
        assert head.status_code == 200 and head.content == b""


# --- sync -----------------------------------------------------------------------------------------


@pytest.fixture
def notes(home, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "house.md").write_text("# Heating\n\nThe heat pump comes in October.\n")
    (folder / "family.md").write_text("# Ines\n\nShe teaches the violin in Porto.\n")
    source = SourceSettings(kind="markdown", path=str(folder), name="notes")
    object.__setattr__(home.settings, "sources", (source,))
    return folder


def test_sync_reads_the_configured_sources_and_counts(client, notes):
    reply = client.post("/sync")
    assert reply.status_code == 200, reply.text
    told = reply.json()
    SyncShape.model_validate(told, strict=True)
    assert told["synced"] == told["total"] == told["sources"]["notes"]["new"] > 0
    assert found(client, "heat pump", sources=["notes"])
    again = client.post("/sync", json={"only": ["notes"]}).json()
    assert again["synced"] == 0 and again["total"] == told["total"]


def test_sync_tells_how_far_it_is_when_streamed(client, notes):
    told = events(client.post("/sync", json={"stream": True}).text)
    assert told[0] == ("start", {"sources": ["notes"]})
    assert told[-1][0] == "done" and told[-1][1]["synced"] > 0
    assert [name for name, _ in told[1:-1]] == ["progress"] * (len(told) - 2)
    assert told[1][1]["source"] == "notes"


def test_one_sync_at_a_time(home, client, notes):
    gated = home._embedder = GatedEmbedder(home.embedder, "document")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/sync")
        assert gated.waiting.wait(10)
        second = client.post("/sync")
        assert second.status_code == 409 and "already running" in second.json()["error"]
        gated.gate.set()
        assert first.result().status_code == 200
    assert client.post("/sync").status_code == 200


def test_sync_names_an_unknown_source_and_says_when_there_is_none(client, home, notes):
    reply = client.post("/sync", json={"only": ["diary"]})
    assert reply.status_code == 404
    assert "diary" in reply.json()["error"] and "notes" in reply.json()["hint"]
    object.__setattr__(home.settings, "sources", ())
    reply = client.post("/sync")
    assert reply.status_code == 409 and "config.yaml" in reply.json()["hint"]


# --- pages, description, stats --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs", "/you"])
def test_a_page_needs_nothing_from_elsewhere(client, path):
    reply = client.get(path)
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/html")
    assert "http://" not in reply.text and "https://" not in reply.text
    assert " src=" not in reply.text and "@import" not in reply.text
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert policy.count("'sha256-") == 2 and policy == page(path.strip("/") or "start")[1]


def test_openapi_describes_every_route_with_its_errors(client):
    api = client.get("/openapi.json").json()
    assert api == service.openapi()
    assert set(api["paths"]) == {
        "/query", "/search", "/ingest", "/sync", "/stats", "/health", "/why/{which}",
        "/api/chat", "/api/chat/again", "/api/chat/cancel", "/api/sessions",
        "/api/sessions/{session_id}", "/api/llm/stats", "/route", "/classify", "/rate",
        "/egress", "/egress/{row}",
        "/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/{name}",
        "/api/tags", "/api/generate", "/api/embed", "/api/embeddings", "/api/show", "/api/ps",
        "/api/version", "/api/facts", "/api/facts/{uid}", "/api/inbox", "/api/inbox/{uid}",
        "/api/profile", "/api/profile/lines", "/api/profile/lines/{uid}",
    }  # fmt: skip
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            assert about["summary"] and about["description"], path
            if method == "post":
                body = about["requestBody"]["content"]["application/json"]
                assert all(f.get("description") for f in body["schema"]["properties"].values())
                others = path.startswith("/v1/") or path in OLLAMA_PATHS
                wanted = {"400", "404", "413", "503"} if others else {"400", "413", "422", "503"}
                assert wanted <= set(about["responses"]), path
                assert set(body["example"]) <= set(body["schema"]["properties"])
            assert "HTTPValidationError" not in json.dumps(about) or path == "/why/{which}", path


def test_every_example_of_the_description_works(client, notes):
    api = service.openapi()
    for path, methods in api["paths"].items():
        body = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if body and path != "/sync" and "{uid}" not in path:  # there is no such fact yet
            reply = client.post(path, json=body["application/json"]["example"])
            assert reply.status_code == 200, (path, reply.text)


def test_stats_count_what_there_is(client):
    remember(client)
    client.post("/query", json={"query": "heating?"})
    told = client.get("/stats").json()
    assert told["items"] == 4 and told["answers"] == 1
    ingested = told["sources"]["ingest"]
    assert ingested["conversations"] == 1 and ingested["messages"] == 4 and ingested["first"]
    assert told["bytes"] > 0 and "engine" in told["parts"]
    assert set(told) == set(StatsShape.model_fields), "what /docs says is what comes"


def test_a_slip_in_a_field_and_in_a_method_are_told_with_the_right_one(client):
    told = client.post("/search", json={"quer": "heating"})
    assert told.status_code == 422 and "'quer'" in told.text.replace('\\"', "'")
    assert "Did you mean query?" in told.json()["hint"]
    assert "Use POST." in client.get("/search").json()["hint"]


# --- start and stop -------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_named_before_anything_starts(home, server):
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*--port {port + 1}"):
        service.make_server(home, "127.0.0.1", port)
    with pytest.raises(ConfigError, match="Cannot listen on no.such.host.invalid"):
        service.bind("no.such.host.invalid", 0)


def test_a_stop_cuts_open_answers_within_its_time_and_keeps_them(home, slow):
    engine = slow()
    running = service.Server(home, "127.0.0.1", 0)
    running.start()
    got = []

    def ask():
        body = {"query": "How tall?", "stream": True}
        with httpx.stream("POST", running.url + "/query", json=body, timeout=30) as reply:
            got.append(reply.read().decode())

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: engine.said > 2)
    running.stop(2)
    assert not running.alive()
    asking.join(5)
    told = events(got[0])
    assert told[-1][0] == "error" and "stopping" in told[-1][1]["error"]
    assert engine.closed.is_set()
    with home.db.read() as conn:
        assert conn.execute("SELECT state FROM answers").fetchall() == [("cut",)]


def test_the_app_can_be_served_by_anything_that_speaks_asgi(home):
    from starlette.testclient import TestClient

    with TestClient(service.create_app(home), base_url="http://127.0.0.1:8300") as client:
        assert client.post("/ingest", json={"documents": NOTES}).status_code == 200
        assert client.post("/search", json={"query": "violin"}).json()["count"]
        told = events(client.post("/query", json={"query": "violin?", "stream": True}).text)
        assert told[-1][0] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_knowme_serve_starts_serves_and_stops_on_a_signal(tmp_path, number):
    env = {
        **os.environ,
        "KNOWME_HOME": str(tmp_path / "home"),
        "KNOWME_EMBEDDER_KIND": "hashing",
        "KNOWME_ENGINE_KIND": "echo",
        "PYTHONUNBUFFERED": "1",
    }
    knowme = [sys.executable, "-m", "knowme"]
    subprocess.run([*knowme, "init"], env=env, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*knowme, "serve", "--port", str(port)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and f":{port}" in process.stdout.readline()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/health").json()["checks"]["db"]
            remember(client)
        process.send_signal(number)
        out, errors = process.communicate(timeout=15)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_vectors_are_what_the_home_says(home):
    # The doubles above lean on this: a zero row for empty text, unit norm for the rest.
    rows = home.embedder.embed(["", "heating"], "document")
    assert np.allclose(np.linalg.norm(rows, axis=1), [0, 1], atol=1e-3)
