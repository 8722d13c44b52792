"""The embedded runtime: the worker's life, the engine and the embedder on real models."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from knowme import llama
from knowme.embedders.local import LocalEmbedder, _known
from knowme.engines.llamacpp import LlamaCppEngine, plain_prompt
from knowme.errors import ConfigError, ModelDownError, ModelError, ModelMissingError
from knowme.types import ChatMessage, Options

GOLDEN = Path(__file__).parent / "golden" / "minilm.json"
LONG = [ChatMessage("user", "Tell me a very long story about a fox. Do not stop.")]


def answer(engine, messages, options=None):
    """Return (text, usage) of a whole answer."""

    async def run():
        text, usages = "", []
        async for chunk in engine.stream(messages, options or Options(temperature=0)):
            text += chunk.text
            if chunk.usage:
                usages.append(chunk.usage)
        assert len(usages) == 1, "exactly one usage, at the end"
        return text, usages[0]

    return asyncio.run(run())


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends (or is a zombie) within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
        if not done.stdout.strip() or done.stdout.strip().startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def slots(engine) -> list[dict]:
    import urllib.request

    base, key = engine.worker.address()
    request = urllib.request.Request(base + "/slots", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


@pytest.fixture
def engine(models):
    made = LlamaCppEngine(model_path=models["chat"], context_tokens=1024, threads=1)
    yield made
    asyncio.run(made.aclose())


@pytest.fixture
def embedder(models):
    made = LocalEmbedder(model_path=models["embedding"], threads=1)
    yield made
    made.close()


# --- the engine -----------------------------------------------------------------------------------


@pytest.mark.model
class TestEngine:
    def test_an_answer_streams_in_pieces_and_ends_with_its_usage(self, engine):
        assert engine.worker.pid is None, "nothing is loaded before the first question"
        text, usage = answer(
            engine,
            [ChatMessage("system", "Answer briefly."), ChatMessage("user", "Say hello.")],
            Options(max_tokens=12, temperature=0),
        )
        assert text.strip()
        assert usage.model == "smollm2-135m"
        assert usage.prompt_tokens > 5
        assert 0 < usage.answer_tokens <= 12
        assert 0 < usage.first_token_ms <= usage.total_ms
        assert usage.finish in ("stop", "length")

    def test_the_second_question_reuses_the_tokens_of_the_first(self, engine):
        first = [ChatMessage("system", "You are kind. " * 30), ChatMessage("user", "One?")]
        second = [*first[:1], ChatMessage("user", "Two?")]
        answer(engine, first, Options(max_tokens=1, temperature=0))
        _, usage = answer(engine, second, Options(max_tokens=1, temperature=0))
        assert usage.cached_tokens > usage.prompt_tokens * 0.8

    def test_the_same_seed_gives_the_same_answer(self, engine):
        messages = [ChatMessage("user", "Invent a name for a boat.")]
        warm = Options(max_tokens=12, temperature=1.0, seed=7, top_p=0.9)
        assert answer(engine, messages, warm)[0] == answer(engine, messages, warm)[0]

    def test_an_answer_ends_at_its_stop_word_and_at_its_length(self, engine):
        counting = [ChatMessage("user", "Count: one, two, three, four, five, six, seven.")]
        free, _ = answer(engine, counting, Options(max_tokens=24, temperature=0))
        stop = free.split()[2]
        text, usage = answer(engine, counting, Options(max_tokens=24, temperature=0, stop=(stop,)))
        assert stop not in text
        assert usage.finish == "stop"
        _, usage = answer(engine, LONG, Options(max_tokens=3, temperature=0))
        assert (usage.finish, usage.answer_tokens) == ("length", 3)

    def test_a_json_schema_is_obeyed(self, engine):
        schema = {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        }
        text, _ = answer(
            engine,
            [ChatMessage("user", "Invent a person.")],
            Options(max_tokens=80, temperature=0, json_schema=schema),
        )
        made = json.loads(text)
        assert set(made) == {"name", "age"}
        assert isinstance(made["age"], int)

    def test_a_schema_that_is_none_and_a_prompt_too_long_are_refused_with_the_mend(self, engine):
        hello = [ChatMessage("user", "hello")]
        with pytest.raises(ModelError, match="wat"):
            answer(engine, hello, Options(json_schema={"type": "wat"}))
        with pytest.raises(ModelError, match=r"1024.*raise context_tokens"):
            answer(engine, [ChatMessage("user", "word " * 3000)])
        assert answer(engine, hello, Options(max_tokens=2))[1].answer_tokens <= 2

    def test_closing_the_stream_stops_the_generation(self, engine):
        async def leave():
            stream = engine.stream(LONG, Options(max_tokens=900, temperature=0))
            async for _ in stream:
                break
            await stream.aclose()

        asyncio.run(leave())
        until = time.monotonic() + 5
        while any(slot["is_processing"] for slot in slots(engine)):
            assert time.monotonic() < until, "it went on generating for nobody"
            time.sleep(0.02)

    def test_a_worker_killed_in_the_middle_is_an_error_and_the_next_question_works(self, engine):
        async def kill():
            async for _ in engine.stream(LONG, Options(max_tokens=900, temperature=0)):
                if engine.worker.pid:
                    os.kill(engine.worker.pid, signal.SIGKILL)

        with pytest.raises(ModelDownError, match="signal 9") as caught:
            asyncio.run(kill())
        assert "Ask again" in caught.value.hint
        text, _ = answer(engine, [ChatMessage("user", "Hi")], Options(max_tokens=4))
        assert text

    def test_a_model_that_falls_silent_is_an_error_that_names_the_time(self, models):
        engine = LlamaCppEngine(model_path=models["chat"], context_tokens=1024, timeout_seconds=1.0)
        answer(engine, [ChatMessage("user", "Hi")], Options(max_tokens=1))
        os.kill(engine.worker.pid, signal.SIGSTOP)
        with pytest.raises(ModelDownError, match="said nothing for 1 s"):
            answer(engine, [ChatMessage("user", "Hi")], Options(max_tokens=1))
        assert answer(engine, [ChatMessage("user", "Hi")], Options(max_tokens=1))[1]
        asyncio.run(engine.aclose())

    def test_tokens_are_counted_by_the_models_own_tokenizer(self, engine):
        assert engine.count_tokens("") == 0
        assert engine.count_tokens("hello world") == 2
        assert engine.count_tokens("\ud800") >= 1

    def test_a_model_asleep_wakes_for_the_next_question(self, models):
        engine = LlamaCppEngine(model_path=models["chat"], context_tokens=512, keep_alive="1s")
        hello = [ChatMessage("user", "Hi")]
        answer(engine, hello, Options(max_tokens=1))
        pid = engine.worker.pid
        time.sleep(2.5)
        assert engine.count_tokens("hello world") == 2
        assert answer(engine, hello, Options(max_tokens=2))[1].answer_tokens
        assert engine.worker.pid == pid
        asyncio.run(engine.aclose())

    def test_the_window_is_never_larger_than_what_the_model_was_trained_with(self, models):
        assert (
            LlamaCppEngine(model_path=models["chat"], context_tokens=10**6).context_tokens == 8192
        )

    def test_a_model_larger_than_allowed_is_refused_with_advice(self, models):
        engine = LlamaCppEngine(model_path=models["chat"], memory_mb=50)
        assert "engine.memory_mb allows 50" in asyncio.run(engine.health())
        with pytest.raises(ModelError, match="smaller model"):
            answer(engine, [ChatMessage("user", "Hi")])

    def test_an_embedding_model_cannot_answer(self, models):
        with pytest.raises(ModelError, match="embedding model"):
            LlamaCppEngine(model_path=models["embedding"])

    def test_health_is_silent_when_all_is_well(self, engine):
        assert asyncio.run(engine.health()) == ""
        assert engine.worker.pid is None, "health starts nothing"

    def test_a_base_model_gets_a_plain_dialogue(self, models, tmp_path):
        base = tmp_path / "base.gguf"
        data = models["chat"].read_bytes()
        key = b"tokenizer.chat_template"
        assert data.count(key) == 1
        base.write_bytes(data.replace(key, b"tokenizer.chat_templatx"))
        engine = LlamaCppEngine(model_path=base, context_tokens=512, threads=1)
        text, usage = answer(
            engine,
            [ChatMessage("user", "What is the capital of France?")],
            Options(max_tokens=8, temperature=0, stop=("\n",)),
        )
        assert "Paris" in text
        assert usage.prompt_tokens > 5
        assert usage.answer_tokens > 0
        asyncio.run(engine.aclose())


def test_the_plain_dialogue_ends_where_the_answer_begins():
    messages = [ChatMessage("system", "Be brief."), ChatMessage("user", "Why? ")]
    assert plain_prompt(messages) == "Be brief.\n\nQuestion: Why?\n\nAnswer:"


# --- the embedder ---------------------------------------------------------------------------------


@pytest.mark.model
class TestEmbedder:
    def test_vectors_are_those_of_the_original_model(self, embedder):
        golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
        texts = [row["text"] for row in golden]
        wanted = np.stack([np.frombuffer(base64.b64decode(r["vector"]), "<f4") for r in golden])
        cosines = (embedder.embed(texts, "document") * wanted).sum(axis=1)
        words = np.array([len(text.split()) for text in texts])
        assert cosines[words > 1].min() >= 0.999
        assert cosines.min() >= 0.998  # a single word is all rounding and no mean

    def test_the_converted_model_is_the_same_on_every_machine(self, models):
        # Its checksum is in every vector's fingerprint: a change means that all are made anew.
        digest = hashlib.sha256(models["embedding"].read_bytes()).hexdigest()
        assert digest == "29fd2022e321f871768fd2d23feff83c3df3033cfe10e689a34eb32695e88a5f"

    def test_vectors_are_unit_deterministic_and_in_order(self, embedder):
        texts = [f"sentence {n} " + "about a fox " * (n % 13) for n in range(150)]
        first = embedder.embed(texts, "document")
        assert first.shape == (150, embedder.dims)
        assert first.dtype == np.float32
        assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
        assert np.array_equal(first, embedder.embed(texts, "document"))
        one_by_one = np.vstack([embedder.embed([text], "document") for text in texts[::17]])
        assert (one_by_one * first[::17]).sum(axis=1).min() > 0.999

    def test_a_long_text_is_cut_at_its_tokens(self, models):
        with_cut = LocalEmbedder(model_path=models["embedding"], max_tokens=16)
        head = " ".join(["fox"] * 14)  # with [CLS] and [SEP] that is sixteen
        vectors = with_cut.embed([head, head + " dog" * 5000, head[:-3] + "dog"], "document")
        assert vectors[0] @ vectors[1] > 0.999
        assert vectors[0] @ vectors[2] < 0.999
        assert with_cut.fingerprint.endswith(":384:none:16")
        with_cut.close()

    def test_words_behind_a_long_gap_still_count(self, embedder):
        vectors = embedder.embed(["the fox", "the" + " " * 9000 + "fox"], "document")
        assert vectors[0] @ vectors[1] > 0.999

    @pytest.mark.parametrize(
        "text",
        [
            "世界 مرحبا 한국어 🎉🏳️‍🌈",
            "a" * 200_000,
            "🎉" * 5_000,
            "\ud800 half a pair",
            "nul \x00 byte",
            "[SEP] [CLS] <|im_end|>",
            "\u200b",
            "x" * 500 + " y" * 90_000,
        ],
        ids=["scripts", "one-word", "emoji", "surrogate", "nul", "specials", "zero-width", "huge"],
    )
    def test_any_text_has_a_vector(self, embedder, text):
        vectors = embedder.embed(["before", text, "after"], "document")
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert np.allclose(
            vectors[[0, 2]], embedder.embed(["before", "after"], "document"), atol=0.01
        )

    def test_an_empty_text_is_a_zero_row(self, embedder):
        vectors = embedder.embed(["", "fox", " \n\t"], "query")
        assert np.linalg.norm(vectors, axis=1).round(3).tolist() == [0, 1, 0]
        assert embedder.embed([], "query").shape == (0, 384)

    def test_many_threads_may_ask_at_once(self, embedder):
        texts = [f"thread {n} has its own words {n * n}" for n in range(12)]
        wanted = embedder.embed(texts, "document")
        found: list = [None] * 12

        def ask(n):
            found[n] = embedder.embed([texts[n]], "document")[0]

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (np.stack(found) * wanted).sum(axis=1).min() > 0.999

    def test_a_killed_worker_comes_back_for_the_same_call(self, embedder):
        before = embedder.embed(["fox"], "document")
        os.kill(embedder.worker.pid, signal.SIGKILL)
        assert (before * embedder.embed(["fox"], "document")).sum() > 0.999

    def test_a_worker_killed_under_load_loses_nothing(self, embedder):
        texts = [f"sentence {n} about foxes and the weather" for n in range(400)]
        wanted = embedder.embed(texts, "document")
        first = embedder.worker.pid
        threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
        found = embedder.embed(texts, "document")
        assert embedder.worker.pid != first
        assert (found * wanted).sum(axis=1).min() > 0.999

    def test_two_embedders_of_one_model_share_a_process(self, models, embedder):
        other = LocalEmbedder(model_path=models["embedding"], threads=1)
        embedder.embed(["fox"], "query")
        other.embed(["fox"], "query")
        assert other.worker.pid == embedder.worker.pid
        other.close()
        assert embedder.worker.pid is not None
        pid = embedder.worker.pid
        embedder.close()
        assert gone(pid)

    def test_a_model_that_cannot_be_cut_or_pools_nothing_is_refused(self, models):
        with pytest.raises(ConfigError, match=r"dims is 100.*it has: 384"):
            LocalEmbedder(model_path=models["embedding"], dims=100)
        with pytest.raises(ConfigError, match="not an embedding model"):
            LocalEmbedder(model_path=models["chat"])


def header(**values) -> llama.Header:
    return llama.Header({"general.architecture": "bert", **values}, 0)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("Nomic Embed Text v1.5", "nomic"),
        ("Embeddinggemma 300M Qat", "gemma"),
        ("multilingual-e5-small", "e5"),
        ("all-MiniLM-L6-v2", "none"),
    ],
)
def test_a_models_task_prefixes_are_known_by_any_name_it_carries(name, scheme):
    assert _known(header(**{"general.name": name}), Path("model.gguf")).scheme == scheme
    file = name.lower().replace(" ", "-") + "-q8_0.gguf"
    assert _known(header(**{"general.name": "Model"}), Path(file)).scheme == scheme


@pytest.mark.model
def test_prefixes_and_cutting_are_those_of_the_models_family(models, tmp_path):
    data = models["embedding"].read_bytes()
    (tmp_path / "embeddinggemma-like.gguf").write_bytes(data)
    whole = LocalEmbedder(model_path=tmp_path / "embeddinggemma-like.gguf")
    cut = LocalEmbedder(model_path=tmp_path / "embeddinggemma-like.gguf", dims=128)
    plain = LocalEmbedder(model_path=models["embedding"])
    prefixed = plain.embed(["task: search result | query: fox", "title: none | text: fox"], "query")
    vectors = [whole.embed(["fox"], "query")[0], whole.embed(["fox"], "document")[0]]
    assert (prefixed * np.stack(vectors)).sum(axis=1).min() > 0.999
    assert ":128:gemma:" in cut.fingerprint
    head = vectors[0][:128] / np.linalg.norm(vectors[0][:128])
    assert cut.embed(["fox"], "query")[0] @ head > 0.999
    assert len({whole.fingerprint, cut.fingerprint, plain.fingerprint}) == 3
    for embedder in (whole, cut, plain):
        embedder.close()


# --- the worker -----------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.kill
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_worker_does_not_outlive_its_parent(models, how):
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from knowme.embedders.local import LocalEmbedder\n"
        "e = LocalEmbedder(model_path=Path(sys.argv[1]))\ne.embed(['x'], 'query')\n"
        "print(e.worker.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(models["embedding"])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(llama.__file__).parent.parent)},
    )
    worker = int(parent.stdout.readline())
    assert not gone(worker, 0.2)
    parent.send_signal(how)
    parent.wait()
    assert gone(worker)
    parent.stdout.close()


@pytest.mark.model
def test_the_worker_does_not_outlive_its_parent_even_if_the_pipe_stays_open(models):
    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from knowme.embedders.local import LocalEmbedder\n"
        "e = LocalEmbedder(model_path=Path(sys.argv[1]))\ne.embed(['x'], 'query')\n"
        "child = os.fork()\n"
        "if child == 0:\n    os.close(1)\n    time.sleep(20)\n    os._exit(0)\n"
        "print(e.worker.pid, child, flush=True)\nos._exit(1)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(models["embedding"])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(llama.__file__).parent.parent)},
    )
    worker, child = map(int, parent.stdout.split())
    try:
        assert gone(worker)
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.model
def test_nothing_of_llama_cpp_reaches_the_terminal(models, capfd):
    embedder = LocalEmbedder(model_path=models["embedding"])
    embedder.embed(["fox"], "query")
    embedder.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.model
def test_the_worker_refuses_who_does_not_know_its_key(models):
    import urllib.error
    import urllib.request

    embedder = LocalEmbedder(model_path=models["embedding"])
    base, key = embedder.worker.address()
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(base + "/tokenize", b'{"content": "x"}', headers)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=5)
    done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(embedder.worker.pid)],
                          capture_output=True, text=True)  # fmt: skip
    assert key not in done.stdout, "a key among the arguments is everybody's"
    embedder.close()


@pytest.mark.model
def test_a_damaged_model_is_an_error_and_not_a_hang(models, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    data = models["embedding"].read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    embedder = LocalEmbedder(model_path=damaged)
    with pytest.raises(ModelError, match=r"damaged\.gguf"):
        embedder.embed(["fox"], "query")
    embedder.close()


@pytest.mark.model
def test_a_worker_that_dies_twice_is_left_alone_for_a_while(models, monkeypatch):
    embedder = LocalEmbedder(model_path=models["embedding"])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")  # a worker that ends at once
        with pytest.raises(ModelDownError, match=r"died 2 times: exit status 1.*tried again after"):
            embedder.embed(["fox"], "query")
    with pytest.raises(ModelDownError, match="tried again after"):
        embedder.embed(["fox"], "query")
    time.sleep(1.1)
    assert embedder.embed(["fox"], "query").any()
    embedder.close()


def test_without_xllamacpp_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no', name='xllamacpp')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    worker = llama.Worker(llama.Spec(path=model))
    with pytest.raises(ModelError, match=r"pip install 'knowme\[local\]'"):
        worker.address()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"nonsense" * 10, b"GGUF" + b"\xff" * 60])
def test_what_is_no_gguf_is_refused_by_name(tmp_path, content):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.gguf is not a whole GGUF"):
        llama.read_header(file)


def test_a_model_that_is_not_there_says_so():
    with pytest.raises(ModelMissingError, match=r"/nowhere/model\.gguf"):
        LlamaCppEngine(model="/nowhere/model.gguf")
    with pytest.raises(ModelError, match="No such file"):
        llama.read_header(Path("/nowhere/model.gguf"))


def test_threads_are_what_is_free(monkeypatch):
    assert llama.choose_threads(3) == 3
    for cores, load, wanted in [(2, 0.0, 1), (1, 0.0, 1), (8, 0.0, 7), (8, 5.0, 3), (8, 40.0, 1)]:
        monkeypatch.setattr(llama, "_physical_cores", lambda cores=cores: cores)
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert llama.choose_threads() == wanted


def test_models_that_are_loaded_together_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    for cores, wanted in [(2, 1), (4, 2), (8, 4), (16, 8)]:
        monkeypatch.setattr(llama, "_physical_cores", lambda cores=cores: cores)
        assert llama.choose_threads(beside=1) == wanted
    assert llama.choose_threads(3, beside=2) == 3


def test_a_worker_that_still_loads_can_be_ended(tmp_path, monkeypatch):
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")  # a model that takes a minute to load
    slow.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(slow))
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    worker = llama.Worker(llama.Spec(path=model))
    told = []

    def load():
        try:
            worker.address()
        except ModelDownError as error:
            told.append(str(error))

    loading = threading.Thread(target=load)
    loading.start()
    until = time.monotonic() + 10
    while worker.pid is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    worker.close()
    loading.join(10)
    assert not loading.is_alive() and worker.pid is None
    assert told == ["The model tiny.gguf was unloaded while it was loading. Ask again."]


def test_a_model_larger_than_what_is_free_is_refused(tmp_path, monkeypatch):
    model = tmp_path / "large.gguf"
    model.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    monkeypatch.setattr(llama, "available_mb", lambda: 10)
    with pytest.raises(ModelError, match="10 MB are free"):
        llama.check_memory(llama.Spec(path=model))
    monkeypatch.undo()
    free = llama.available_mb()
    assert free is None or free > 0
