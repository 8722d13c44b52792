"""What every embedder keeps to. A backend is one subclass."""

import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from knowme import plugins
from knowme.embedders.known import NONE, known
from knowme.errors import ConfigError, KnowmeError, ModelDownError, ModelError, ModelMissingError

from . import servers

TEXTS = [
    "The heat pump in the cottage makes a noise.",
    "My sister Ana lives in Porto and works as a nurse.",
    "I prefer short answers without bullet points.",
    "The plumber comes on Tuesday to look at the heat pump.",
]


class EmbedderContract:
    """Subclass it with a fixture ``embedder``."""

    kind: str
    dims: int
    many = 150  # more than one batch
    stable = 1e-3  # how far two batches may differ: kernels sum in another order

    @pytest.fixture
    def embedder(self):
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _close(self, embedder):
        yield
        embedder.close()

    def test_vectors_are_float32_unit_rows(self, embedder):
        found = embedder.embed(TEXTS, "document")
        assert found.shape == (4, embedder.dims) == (4, self.dims)
        assert found.dtype == np.float32
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-4)

    def test_an_empty_text_is_a_zero_row_in_its_place(self, embedder):
        found = embedder.embed(["", TEXTS[0], " \n\t "], "document")
        assert not found[0].any() and not found[2].any()
        assert found[1] == pytest.approx(embedder.embed(TEXTS[:1], "document")[0], abs=self.stable)
        assert embedder.embed([""], "query").shape == (1, self.dims)

    def test_no_texts_give_no_rows(self, embedder):
        assert embedder.embed([], "document").shape == (0, self.dims)

    def test_the_same_text_has_the_same_vector_whatever_stands_beside_it(self, embedder):
        alone = embedder.embed([TEXTS[1]], "document")[0]
        beside = embedder.embed([*TEXTS, TEXTS[1]], "document")
        assert beside[1] == pytest.approx(alone, abs=self.stable)
        assert beside[4] == pytest.approx(alone, abs=self.stable)

    def test_a_question_is_nearest_to_the_text_that_answers_it(self, embedder):
        documents = embedder.embed(TEXTS, "document")
        queries = embedder.embed(["Where does my sister live?", "a noisy heat pump"], "query")
        assert (queries @ documents.T).argmax(axis=1).tolist() == [1, 0]

    def test_order_is_kept_beyond_one_batch(self, embedder):
        texts = [f"Note {number}: item {number * 7} of the list" for number in range(self.many)]
        found = embedder.embed(texts, "document")
        for at in (0, 63, 64, self.many - 1):
            one = embedder.embed([texts[at]], "document")[0]
            assert float(found[at] @ one) > 0.999

    def test_any_script_and_any_length_goes_in(self, embedder):
        texts = ["你好,世界", "مرحبا", "👋🏽", "a\u2028b\0c", "word " * 20_000, "x" * 30_000]
        found = embedder.embed(texts, "document")
        assert np.isfinite(found).all() and found.shape == (6, self.dims)
        assert np.linalg.norm(found[[0, 4]], axis=1) == pytest.approx(np.ones(2), abs=1e-4)

    def test_the_fingerprint_names_kind_model_size_and_prefixes(self, embedder):
        kind, _, rest = embedder.fingerprint.partition(":")
        model, _, rest = rest.partition("@")
        revision, dims, scheme, *_ = rest.split(":")
        assert kind == self.kind and model and scheme and int(dims) == self.dims
        assert revision or kind == "openai"  # that protocol tells no version

    def test_threads_may_share_it(self, embedder):
        alone = embedder.embed(TEXTS, "document")
        wrong = []

        def work() -> None:
            for _ in range(5):
                if np.abs(embedder.embed(TEXTS, "document") - alone).max() > self.stable:
                    wrong.append(1)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_closing_twice_is_fine(self, embedder):
        embedder.embed(TEXTS[:1], "query")
        embedder.close()
        embedder.close()


class TestHashingEmbedder(EmbedderContract):
    kind = "hashing"
    dims = 256

    @pytest.fixture
    def embedder(self):
        return plugins.find("embedders", "hashing")(dims=0, threads=1)

    def test_another_process_makes_the_same_vector(self, embedder):
        program = (
            "from knowme.embedders.hashing import HashingEmbedder as E; import sys;"
            "sys.stdout.buffer.write(E().embed([sys.argv[1]], 'query').tobytes())"
        )
        for seed in ("1", "2"):
            seen = subprocess.run(
                [sys.executable, "-c", program, TEXTS[0]],
                capture_output=True,
                check=True,
                env={**os.environ, "PYTHONHASHSEED": seed},
            )
            assert seen.stdout == embedder.embed(TEXTS[:1], "document").tobytes()

    def test_other_forms_of_a_word_stay_near(self, embedder):
        ones = ["heating pumps", "gardener", "Wohnungen", "we travelled", "apartement"]
        others = ["Heated pump", "GARDENING", "Wohnung", "they travel", "apartment"]
        cosines = embedder.embed(ones, "query") @ embedder.embed(others, "document").T
        assert cosines.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]

    def test_any_size_from_16_goes(self):
        made = plugins.find("embedders", "hashing")(dims=64)
        assert made.embed(["a word"], "query").shape == (1, 64) and ":64:" in made.fingerprint
        with pytest.raises(ConfigError, match=r"embedder\.dims is 8"):
            plugins.find("embedders", "hashing")(dims=8)


class TestStaticEmbedder(EmbedderContract):
    kind = "static"
    dims = 256

    @pytest.fixture
    def embedder(self):
        pytest.importorskip("wordllama", reason="needs: pip install 'knowme[local]'")
        return plugins.find("embedders", "static")(max_tokens=512)

    def test_the_vectors_are_wordllamas_own(self, embedder):
        program = (
            "import sys, wordllama, pathlib;"
            "folder = pathlib.Path(wordllama.__file__).parent;"
            "model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True);"
            "sys.stdout.buffer.write(model.embed(sys.argv[1:], norm=True).tobytes())"
        )
        seen = subprocess.run([sys.executable, "-c", program, *TEXTS], capture_output=True)
        theirs = np.frombuffer(seen.stdout, np.float32).reshape(4, 256)
        assert embedder.embed(TEXTS, "document") == pytest.approx(theirs, abs=1e-5)

    def test_it_can_be_cut_to_its_trained_sizes_only(self):
        short = plugins.find("embedders", "static")(dims=64)
        assert short.embed(TEXTS, "query").shape == (4, 64) and ":64:" in short.fingerprint
        for dims in (100, 512):
            with pytest.raises(ConfigError, match="128, 64, 256"):
                plugins.find("embedders", "static")(dims=dims)
        with pytest.raises(ConfigError, match="no static model called 'x'"):
            plugins.find("embedders", "static")(model="x")

    def test_no_part_of_wordllama_runs(self):
        program = (
            "import sys; from knowme.embedders.static import StaticEmbedder as E;"
            "E().embed(['a word'], 'query'); print('wordllama' in sys.modules)"
        )
        seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert seen.stdout.strip() == "False"


@pytest.fixture(scope="module")
def held():
    """Keep one embedded model: its worker process takes a moment to load it."""
    made: list = []
    yield made
    for embedder in made:
        embedder.close()


@pytest.mark.model
class TestLocalEmbedder(EmbedderContract):
    kind = "gguf"  # the file makes the vectors, whatever runs it
    dims = 384
    stable = 0.02

    @pytest.fixture
    def embedder(self, models, held):
        if not held:
            held.append(plugins.find("embedders", "local")(threads=1, max_tokens=128))
        return held[0]

    @pytest.fixture(autouse=True)
    def _close(self, embedder):
        yield


@pytest.mark.model
class TestOnnxEmbedder(EmbedderContract):
    kind = "onnx"
    dims = 384

    @pytest.fixture
    def embedder(self, onnx_model):
        return plugins.find("embedders", "onnx")(threads=1, max_tokens=128)


@pytest.mark.model
class TestOpenAIEmbedderOnLlamaCpp(EmbedderContract):
    """The OpenAI wire format against a real llama.cpp server."""

    kind = "openai"
    dims = 384
    stable = 0.02

    @pytest.fixture
    def embedder(self, embedding_url):
        return plugins.find("embedders", "openai")(url=f"{embedding_url}/v1")

    def test_dims_need_a_model_that_was_trained_for_it(self, embedding_url):
        made = plugins.find("embedders", "openai")(url=f"{embedding_url}/v1", dims=128)
        with pytest.raises(ConfigError, match=r"embedder\.dims is 128"):
            made.embed(TEXTS, "document")


@pytest.mark.model
class TestOllamaEmbedderOnTheFixture(EmbedderContract):
    kind = "ollama"
    dims = 384
    stable = 0.02

    @pytest.fixture
    def embedder(self, ollama):
        return plugins.find("embedders", "ollama")(model="all-minilm", url=ollama[0])

    def test_many_texts_go_in_few_requests(self, embedder, ollama):
        embedder.embed([f"text {number}" for number in range(100)], "document")
        assert [path for path, _ in ollama[1].asked] == ["/api/embed"] * 2

    def test_nomics_prefixes_are_sent_and_part_of_the_fingerprint(self, ollama):
        ollama[1].models["nomic-embed-text:latest"] = ollama[1].models["all-minilm:latest"]
        made = plugins.find("embedders", "ollama")(url=ollama[0])
        made.embed(["a", ""], "document")
        made.embed(["b"], "query")
        sent = [body["input"] for path, body in ollama[1].asked if path == "/api/embed"]
        assert sent == [["search_document: a"], ["search_query: b"]]
        assert made.fingerprint.startswith("ollama:nomic-embed-text@")
        assert made.fingerprint.endswith(":384:nomic")

    def test_another_version_of_the_model_has_another_fingerprint(self, ollama, monkeypatch):
        one = plugins.find("embedders", "ollama")(model="all-minilm", url=ollama[0]).fingerprint
        monkeypatch.setattr(servers, "hash_of", lambda name: 12345)
        two = plugins.find("embedders", "ollama")(model="all-minilm", url=ollama[0]).fingerprint
        assert one != two

    def test_matryoshka_sizes_are_cut_and_made_unit_again(self, ollama):
        ollama[1].models["nomic-embed-text:latest"] = ollama[1].models["all-minilm:latest"]
        made = plugins.find("embedders", "ollama")(url=ollama[0], dims=128)
        found = made.embed(TEXTS, "document")
        assert found.shape == (4, 128) and ":128:" in made.fingerprint
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-4)

    def test_a_missing_model_names_the_command_that_gets_it(self, ollama):
        made = plugins.find("embedders", "ollama")(url=ollama[0])
        with pytest.raises(ModelMissingError, match="nomic-embed-text") as caught:
            made.embed(TEXTS, "document")
        assert caught.value.hint == "Get it: ollama pull nomic-embed-text"

    def test_a_model_that_does_not_embed_is_refused_in_a_sentence(self, ollama):
        made = plugins.find("embedders", "ollama")(model="smollm2", url=ollama[0])
        with pytest.raises(ModelDownError, match="does not support embeddings"):
            made.embed(TEXTS, "document")


@pytest.mark.model
class TestOllamaEmbedderOnAnOldServer(EmbedderContract):
    """From before /api/embed: one text a request."""

    kind = "ollama"
    dims = 384
    many = 66
    stable = 0.02

    @pytest.fixture
    def embedder(self, embedding_url):
        self.fixture = servers.OllamaFixture(
            {"all-minilm:latest": ("embedding", embedding_url)}, old=True
        )
        with servers.serving(self.fixture) as server:
            yield plugins.find("embedders", "ollama")(model="all-minilm", url=server.url)

    def test_the_new_road_is_tried_once(self, embedder):
        embedder.embed(TEXTS, "document")
        assert [path for path, _ in self.fixture.asked] == ["/api/embeddings"] * 4


@pytest.mark.model
class TestOllamaEmbedderOnARealOne(EmbedderContract):
    kind = "ollama"
    dims = 768

    @pytest.fixture
    def embedder(self):
        made = plugins.find("embedders", "ollama")()
        try:
            made.embed(["a"], "query")
        except ModelError as error:
            pytest.skip(f"needs a running Ollama with nomic-embed-text: {error}")
        return made


# --- what goes wrong on the wire -----------------------------------------------------------------

KEY = "sk-secret-0123456789"


class WireFaults:
    """The same faults for both protocols."""

    name: str

    def good(self, vectors) -> object:
        raise NotImplementedError

    def made(self, url: str, **more):
        return plugins.find("embedders", self.name)(
            model="m", url=url, api_key=KEY, **{"timeout_seconds": 1.0, **more}
        )

    def embed(self, serve, **more):
        """Return (vectors or None, error or None, requests for vectors)."""
        asked = []

        def counted(call):
            if call.path == "/api/tags":
                return call.reply(200, {"models": [{"name": "m", "digest": "d"}]})
            asked.append(call.path)
            serve(call, len(asked))

        with servers.serving(counted) as server:
            made = self.made(server.url, **more)
            try:
                return made.embed(["one", "two"], "document"), None, len(asked)
            except KnowmeError as error:
                assert KEY not in f"{error!r} {error} {error.__cause__}"
                return None, error, len(asked)
            finally:
                made.close()

    def test_a_refused_connection_is_tried_twice_and_says_what_to_start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ModelDownError, match="refused the connection") as caught:
            self.made(url).embed(["one"], "document")
        assert "Start it" in caught.value.hint

    def test_a_passing_failure_is_survived(self):
        def serve(call, time):
            if time == 1:
                return call.reply(503, {"error": "loading"})
            call.reply(200, self.good([[3.0, 4.0], [0.0, 2.0]]))

        found, error, asked = self.embed(serve)
        assert error is None and asked == 2
        assert found == pytest.approx(np.array([[0.6, 0.8], [0, 1]]), abs=1e-6)

    def test_a_connection_that_breaks_once_is_survived(self):
        def serve(call, time):
            if time == 1:
                return call.cut()
            call.reply(200, self.good([[1.0, 0.0], [0.0, 1.0]]))

        assert self.embed(serve)[1:] == (None, 2)

    def test_a_lasting_failure_is_told_after_two_tries(self):
        _, error, asked = self.embed(lambda call, _: call.reply(500, {"error": "out of memory"}))
        assert isinstance(error, ModelDownError) and "out of memory" in error.message
        assert asked == 2

    def test_silence_is_not_waited_for_twice(self):
        import time

        def serve(call, _):
            time.sleep(1.0)

        _, error, asked = self.embed(serve, timeout_seconds=0.2)
        assert isinstance(error, ModelDownError) and "sent nothing" in error.message
        assert asked == 1

    def test_a_refusal_is_not_repeated(self):
        for status, kind in ((400, ModelError), (401, ModelDownError), (429, ModelDownError)):
            body = {"error": f"no {KEY}"}
            _, error, asked = self.embed(
                lambda call, _, status=status, body=body: call.reply(status, body)
            )
            assert isinstance(error, kind) and asked == 1

    def test_what_is_not_of_the_protocol_is_refused(self):
        for body in (
            "not json",
            [],
            {},
            {"x": 1},
            self.good([]),
            self.good([[1.0]]),
            self.good([[1.0], [1.0, 2.0]]),
            self.good([["a"], ["b"]]),
            self.good([[None], [None]]),
            self.good([[], []]),
        ):
            _, error, _ = self.embed(lambda call, _, body=body: call.reply(200, body))
            assert isinstance(error, ModelDownError), body

    def test_vectors_of_another_size_are_never_mixed(self):
        sizes = iter([2, 3])

        def serve(call):
            if call.path == "/api/tags":
                return call.reply(200, {"models": [{"name": "m", "digest": "d"}]})
            call.reply(200, self.good([[1.0] * next(sizes)]))

        with servers.serving(serve) as server:
            made = self.made(server.url)
            made.embed(["one"], "document")
            with pytest.raises(ModelError, match="gave 2 numbers a text before, now 3") as caught:
                made.embed(["two"], "document")
        assert caught.value.hint == "Run: knowme reindex"

    def test_a_long_text_is_cut_to_about_max_tokens_between_words(self):
        sent = []

        def serve(call, _):
            sent.extend(call.json["input"])
            call.reply(200, self.good([[1.0, 0.0]] * len(call.json["input"])))

        with servers.serving(
            lambda call: (
                call.reply(200, {"models": [{"name": "m", "digest": "d"}]})
                if call.path == "/api/tags"
                else serve(call, 0)
            )
        ) as server:
            made = self.made(server.url, max_tokens=20)
            made.embed(["word " * 100, "热" * 100, "short"], "document")
        assert sent[0].startswith("word") and sent[0].endswith("word") and len(sent[0]) <= 72
        assert sent[1] == "热" * 20 and sent[2] == "short"


class TestOllamaEmbedderFaults(WireFaults):
    name = "ollama"

    def good(self, vectors):
        return {"embeddings": vectors}

    def test_a_server_that_is_not_ollama_is_told(self):
        with servers.serving(lambda call: call.reply(404, "not found")) as server:
            with pytest.raises(ModelError, match="not Ollama"):
                self.made(server.url).embed(["one"], "document")


class TestOpenAIEmbedderFaults(WireFaults):
    name = "openai"

    def good(self, vectors):
        rows = [{"index": at, "embedding": row} for at, row in enumerate(vectors)]
        return {"data": rows[::-1]}  # the order is the index, not the place

    def test_a_missing_model_is_told_with_the_setting(self):
        body = {"error": {"message": "The model `m` does not exist"}}
        _, error, _ = self.embed(lambda call, _: call.reply(404, body))
        assert isinstance(error, ModelMissingError) and "embedder.model" in error.hint

    def test_dimensions_are_sent_and_a_server_that_ignores_them_is_cut(self):
        seen = []

        def serve(call, _):
            seen.append(call.json.get("dimensions"))
            call.reply(200, self.good([[1.0] * 128, [2.0] * 128]))

        with servers.serving(lambda call: serve(call, 0)) as server:
            made = plugins.find("embedders", "openai")(
                model="text-embedding-3-small", url=server.url, dims=64
            )
            assert made.embed(["a", "b"], "query").shape == (2, 64)
        assert seen == [64]

    def test_a_server_elsewhere_needs_a_models_name(self):
        with pytest.raises(ConfigError, match=r"embedder\.model is empty"):
            plugins.find("embedders", "openai")(url="https://api.example.com/v1")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("nomic-embed-text:v1.5", "nomic"),
        ("hf.co/nomic-ai/nomic-embed-text-v1.5-GGUF:Q8_0", "nomic"),
        ("embeddinggemma:300m", "gemma"),
        ("/models/embeddinggemma-300m-qat-Q8_0.gguf", "gemma"),
        ("mxbai-embed-large", "retrieve"),
        ("snowflake-arctic-embed2", "query"),
        ("snowflake-arctic-embed:s", "retrieve"),
        ("bge-m3", "none"),
        ("BAAI/bge-large-en-v1.5", "retrieve"),
        ("qwen3-embedding:0.6b", "qwen3"),
        ("intfloat/multilingual-e5-small", "e5"),
        ("all-minilm", "none"),
        ("text-embedding-3-large", "none"),
    ],
)
def test_a_models_prefixes_are_known_by_its_name_in_any_spelling(name, scheme):
    assert known(name).scheme == scheme


def test_an_unknown_model_gets_no_prefix_and_is_never_cut():
    assert known("something-new") == NONE
    vectors = np.ones((1, 8), np.float32)
    assert NONE.cut(vectors, 8, "m") is vectors and NONE.cut(vectors, 0, "m") is vectors
    with pytest.raises(ConfigError, match=r"it has: 8"):
        NONE.cut(vectors, 4, "m")
