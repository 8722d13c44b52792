"""Presets: their numbers, what they need, what is refused with which advice, the base's files."""

import json
import threading

import numpy as np
import pytest
import tiny_base

from knowme import modelstore
from knowme.errors import ModelMissingError, OfflineError, TrainError
from knowme.learn import presets


def test_the_presets_are_those_that_were_promised(tmp_path):
    qwen = presets.spec("qwen3-4b", tmp_path)
    assert (qwen.rank, qwen.targets, qwen.learning_rate, qwen.epochs) == (32, "all", 2e-4, 3.0)
    assert qwen.four_bit and qwen.base.startswith("Qwen/")
    llama = presets.spec("llama-3.1-8b", tmp_path)
    assert (llama.rank, llama.targets) == (16, "attention")
    small = presets.spec("qwen3-1.7b", tmp_path)
    assert (small.rank, small.max_tokens) == (16, 8192)
    assert presets.names()[0] == "tiny"


def test_a_number_can_be_replaced_and_a_wrong_one_is_named(tmp_path):
    made = presets.spec("qwen3-4b", tmp_path, base="/my/model", rank=8, seed=5)
    assert (made.rank, made.seed, made.base) == (8, 5, "/my/model")
    with pytest.raises(TrainError, match="rank is 0"):
        presets.spec("qwen3-4b", tmp_path, rank=0)
    with pytest.raises(TrainError, match="dropout is 1.5"):
        presets.spec("qwen3-4b", tmp_path, dropout=1.5)
    with pytest.raises(TrainError, match="no preset 'huge'") as refused:
        presets.spec("huge", tmp_path)
    assert "tiny" in refused.value.hint


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ("", "tiny"),
        ("smollm2-135m", "tiny"),
        ("/models/smollm2-135m-instruct-q4_1.gguf", "tiny"),
        ("qwen3-4b", "qwen3-4b"),
        ("/x/Qwen_Qwen3-4B-Instruct-2507-Q4_K_M.gguf", "qwen3-4b"),
        ("qwen3:1.7b", "qwen3-1.7b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "llama-3.1-8b"),
    ],
)
def test_the_preset_of_a_model_is_found_by_its_name(model, preset):
    assert presets.of_model(model) == preset


def test_a_model_that_none_is_made_for_is_named():
    with pytest.raises(TrainError, match="no preset for the model 'mistral-7b'") as refused:
        presets.of_model("mistral-7b")
    assert "knowme config set learn.preset" in refused.value.hint


@pytest.mark.model
def test_the_weights_of_an_adapter_are_counted_as_peft_counts_them(models):
    # 4,884,480 is what peft says of SmolLM2 with rank 16 on all seven projections.
    packaged = str(models["chat"])
    assert presets.trainable(presets.PRESETS["tiny"].shape, 16, "all") == 4_884_480
    assert presets.trainable(presets.shape_of(packaged), 16, "all") == 4_884_480
    assert presets.shape_of(packaged).parameters == 134_515_008


def test_the_published_sizes_are_known():
    # Weights of a Qwen3-4B with rank 32 on all projections, as published: 66 million.
    shape = presets.PRESETS["qwen3-4b"].shape
    assert 60e6 < presets.trainable(shape, 32, "all") < 70e6
    assert presets.shape_of("Qwen/Qwen3-4B-Instruct-2507") == shape
    with pytest.raises(TrainError, match="Nobody here knows how large 'a/b' is"):
        presets.shape_of("a/b")


def test_what_fits_a_free_card_and_what_does_not(tmp_path):
    four = presets.memory(presets.spec("qwen3-4b", tmp_path), cuda=True)
    assert 4_000 < four.vram_mb < 15_000  # a T4 has 15 GB
    presets.refuse(four, tmp_path, ram_mb=12_000, vram_mb=15_000, disk_mb=50_000)
    whole = presets.memory(presets.spec("qwen3-4b", tmp_path, four_bit=False), cuda=True)
    assert whole.vram_mb > four.vram_mb + 4_000
    with pytest.raises(TrainError, match="of the card's memory, and 8,000 MB are free") as refused:
        presets.refuse(whole, tmp_path, ram_mb=12_000, vram_mb=8_000, disk_mb=50_000)
    assert "4 bits" in refused.value.hint and "preset qwen3-1.7b" in refused.value.hint
    assert "export-notebook" in refused.value.hint


def test_the_largest_presets_are_refused_without_a_card(tmp_path):
    for name in ("qwen3-4b", "llama-3.1-8b"):
        needs = presets.memory(presets.spec(name, tmp_path), cuda=False)
        with pytest.raises(TrainError, match="needs a CUDA card") as refused:
            presets.refuse(needs, tmp_path, ram_mb=64_000, disk_mb=500_000)
        assert "export-notebook" in refused.value.hint and "tiny" in refused.value.hint


def test_a_small_machine_is_refused_with_what_would_fit(tmp_path):
    needs = presets.memory(presets.spec("qwen3-1.7b", tmp_path), cuda=False)
    with pytest.raises(TrainError, match=r"about [\d,]+ MB of memory, and 2,000") as refused:
        presets.refuse(needs, tmp_path, ram_mb=2_000, disk_mb=500_000)
    assert "--max-tokens 4096" in refused.value.hint and "preset tiny" in refused.value.hint
    with pytest.raises(TrainError, match="of disk, and 10 are free|of disk, and 10 MB are free"):
        presets.refuse(needs, tmp_path, ram_mb=200_000, disk_mb=10)


@pytest.mark.model
def test_an_estimate_grows_with_what_costs(models, tmp_path):
    def ram(**over):
        spec = presets.spec("tiny", tmp_path, base=str(models["chat"]), **over)
        return presets.memory(spec, cuda=False).ram_mb

    plain = ram(dtype="bfloat16")
    assert ram(dtype="float32") > plain
    assert ram(dtype="bfloat16", max_tokens=2048) > plain
    assert ram(dtype="bfloat16", batch=4) > plain
    assert ram(dtype="bfloat16", method="dpo") > plain
    assert ram(dtype="bfloat16", rank=64) > plain


@pytest.mark.model
def test_short_examples_need_less_and_the_time_follows_the_data(models, tmp_path):
    base = str(models["chat"])
    empty = presets.memory(presets.spec("tiny", tmp_path / "none", base=base), cuda=False)
    folder = tiny_base.filled(tmp_path / "run")
    short = presets.memory(presets.spec("tiny", folder, base=base), cuda=False)
    assert short.ram_mb < empty.ram_mb and short.max_tokens < empty.max_tokens
    longer = presets.memory(presets.spec("tiny", folder, base=base, epochs=200), cuda=False)
    assert longer.seconds > short.seconds and longer.tokens == pytest.approx(
        short.tokens * 100, 0.02
    )
    told = presets.memory(presets.spec("tiny", folder, base=base), cuda=False, tokens=10**6)
    assert told.tokens == 2 * 10**6


def test_the_spec_of_the_tiny_preset_is_the_packaged_model(models, tmp_path):
    assert presets.spec("tiny", tmp_path).base == str(models["chat"])


@pytest.mark.slow
@pytest.mark.model
class TestBaseFolder:
    def test_it_holds_what_a_converter_and_a_trainer_ask_for(self, models):
        folder = tiny_base.packaged(models)
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == ["LlamaForCausalLM"]
        assert "quantization_config" not in config
        assert "im_start" in (folder / "chat_template.jinja").read_text()
        assert (folder / "base.json").is_file()
        assert presets.base_folder(str(models["chat"])) == folder
        assert presets.base_folder("") == folder == presets.base_folder("smollm2-135m")
        assert presets.base_folder(str(folder)) == folder

    def test_its_weights_are_those_of_the_gguf(self, models):
        folder = tiny_base.packaged(models)
        from gguf import GGUFReader, dequantize
        from safetensors import safe_open

        names = {
            "token_embd.weight": "model.embed_tokens.weight",
            "blk.3.ffn_down.weight": "model.layers.3.mlp.down_proj.weight",
            "blk.7.attn_v.weight": "model.layers.7.self_attn.v_proj.weight",
            "output_norm.weight": "model.norm.weight",
        }
        tensors = {each.name: each for each in GGUFReader(models["chat"]).tensors}
        with safe_open(folder / "model.safetensors", "np") as file:
            assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - it is no dict
            for theirs, ours in names.items():
                each = tensors[theirs]
                true = dequantize(each.data, each.tensor_type).reshape(file.get_tensor(ours).shape)
                found = file.get_tensor(ours).astype(np.float32)
                assert np.allclose(found, true, rtol=1e-3, atol=1e-6), theirs

    def test_one_that_was_killed_or_runs_twice_leaves_one_whole_folder(
        self, models, tmp_path, monkeypatch, tmp_path_factory
    ):
        tiny_base.packaged(models)
        gguf = tmp_path / "models" / "small.gguf"
        gguf.parent.mkdir()
        write_gguf(gguf, models["chat"])
        monkeypatch.setenv("KNOWME_MODELS", str(gguf.parent))
        from knowme.trainers import script

        half = gguf.parent / "bases" / f".{script.digest(gguf)}.partial"
        half.mkdir(parents=True)
        (half / "model.safetensors").write_bytes(b"half")
        found: list = []
        both = [
            threading.Thread(target=lambda: found.append(presets.base_folder(str(gguf))))
            for _ in range(2)
        ]
        for each in both:
            each.start()
        for each in both:
            each.join()
        assert len(found) == 2 and found[0] == found[1]
        assert [each.name for each in (gguf.parent / "bases").iterdir() if each.is_dir()] == [
            found[0].name
        ]
        assert (found[0] / "config.json").is_file() and not half.exists()


def write_gguf(target, packaged):
    """Write a GGUF with the packaged model's tokenizer and two small random layers."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(packaged)
    writer = GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            value = field.contents()
            if field.types[0] == GGUFValueType.ARRAY:
                writer.add_array(name, value)
            else:
                writer.add_key_value(name, value, field.types[0])
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    chance = np.random.default_rng(3)
    shapes = {"token_embd": (49152, 32), "output_norm": (32,)}
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{name}"] = (32, 32)
        for name in ("ffn_gate", "ffn_up"):
            shapes[f"blk.{layer}.{name}"] = (64, 32)
        shapes[f"blk.{layer}.ffn_down"] = (32, 64)
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{layer}.{name}"] = (32,)
    for name, shape in shapes.items():
        values = chance.standard_normal(shape).astype(np.float32) * 0.1
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_base_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TrainError, match="There is no model at .*none.gguf"):
        presets.base_folder(str(tmp_path / "none.gguf"))


def test_a_hub_is_not_asked_while_nothing_may_leave():
    from knowme import net

    net.forbid(True)
    try:
        with pytest.raises(OfflineError):
            presets.base_folder("owner/model")
    finally:
        net.forbid(False)


def test_the_base_of_a_run_is_found_and_a_changed_one_refused(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(TrainError, match="does not say what was trained"):
        presets.base_of(run)
    (run / "spec.json").write_text(json.dumps({"base": "base", "base_path": str(base)}))
    assert presets.base_of(run) == base
    told = {"base": "x.gguf", "base_path": str(base), "base_digest": "0123"}
    (run / "spec.json").write_text(json.dumps(told))
    with pytest.raises(TrainError, match="not the file any more"):
        presets.base_of(run)


def test_the_packaged_model_is_missed_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "empty"))
    with pytest.raises(ModelMissingError, match="smollm2-135m"):
        presets.spec("tiny", tmp_path)
    with pytest.raises(ModelMissingError):
        presets.base_folder("")
    assert modelstore.models_dir() == tmp_path / "empty"
