"""Small LoRA adapters as GGUF, made without a trainer: of given or random matrices."""

from pathlib import Path

import numpy as np


def write_adapter(path: Path, layers: dict[str, tuple[np.ndarray, np.ndarray]], alpha=1.0) -> Path:
    """Write ``name of a weight -> (A (rank, in), B (out, rank))`` as llama.cpp reads it."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    for name, (a, b) in layers.items():
        writer.add_tensor(f"{name}.weight.lora_a", np.ascontiguousarray(a, dtype=np.float32))
        writer.add_tensor(f"{name}.weight.lora_b", np.ascontiguousarray(b, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_adapter(path: Path, size: float, *, seed=1, blocks=range(30), width=576) -> Path:
    """Write noise on the outputs of the attention of SmolLM2; size 0 changes nothing."""
    drawn = np.random.default_rng(seed)
    layers = {}
    for block in blocks:
        a = drawn.normal(0, 1 / np.sqrt(width), (2, width))
        b = drawn.normal(0, 1, (width, 2)) * size
        layers[f"blk.{block}.attn_output"] = (a, b)
    return write_adapter(path, layers, alpha=2.0)
