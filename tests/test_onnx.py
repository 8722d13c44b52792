import base64
import json
from pathlib import Path

import numpy as np
import pytest

from knowme import modelstore
from knowme.embedders.onnx import OnnxEmbedder
from knowme.errors import ConfigError, ModelError, ModelMissingError
from knowme.home import Home

pytestmark = pytest.mark.model
GOLDEN = json.loads((Path(__file__).parent / "golden" / "minilm.json").read_text("utf-8"))


@pytest.fixture
def embedder(onnx_model):
    embedder = OnnxEmbedder(threads=1)
    yield embedder
    embedder.close()


def test_its_vectors_are_those_of_the_original_model(embedder) -> None:
    texts = [entry["text"] for entry in GOLDEN]
    original = np.stack(
        [np.frombuffer(base64.b64decode(entry["vector"]), "<f4") for entry in GOLDEN]
    )
    cosines = (embedder.embed(texts, "document") * original).sum(axis=1)
    assert cosines.min() > 0.97 and cosines.mean() > 0.98


def test_the_nearest_of_the_original_stays_the_nearest(embedder) -> None:
    texts = [entry["text"] for entry in GOLDEN]
    found = embedder.embed(texts, "document")
    heating = texts.index("The heating costs twice as much as last winter.")
    near = found @ found[heating]
    near[heating] = -1
    assert texts[int(near.argmax())].startswith("I moved the thermostat")


def test_a_text_has_the_same_vector_whatever_it_is_embedded_with(embedder) -> None:
    alone = embedder.embed(["a heat pump"], "document")[0]
    among = embedder.embed(["x" * 3000, "a heat pump", "short"], "document")[1]
    assert (alone == among).all()


def test_a_long_text_is_cut_and_not_refused(embedder) -> None:
    found = embedder.embed(["word " * 200_000, "\U0001f642" * 5000, "a" * 100_000], "document")
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-4)


def test_a_damaged_file_is_named_with_its_mend(tmp_path) -> None:
    bad = tmp_path / "broken.onnx"
    bad.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="broken.onnx cannot be read"):
        OnnxEmbedder(model=str(bad))


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(ModelMissingError, match=r"nowhere\.onnx"):
        OnnxEmbedder(model=str(tmp_path / "nowhere.onnx"))


def test_it_is_not_cut_to_sizes_that_it_was_not_trained_for(onnx_model) -> None:
    with pytest.raises(ConfigError, match="128"):
        OnnxEmbedder(dims=128)


def test_auto_takes_it_where_it_is_here(onnx_model, tmp_path) -> None:
    Home.create(tmp_path / "h")
    with Home.open(tmp_path / "h", {"engine.kind": "echo"}) as home:
        assert home.embedder is not None
        assert home.embedder.fingerprint.startswith(f"onnx:{modelstore.DEFAULT_ONNX}@")


def test_its_name_rests_on_the_official_file_not_on_who_converted_it(embedder) -> None:
    # Another version of onnx may write other bytes; a home must not embed anew for that.
    assert embedder.fingerprint == "onnx:minilm-int8@53aa51172d14:384:none:256"
