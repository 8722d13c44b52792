"""A model file made smaller, with an adapter merged in: GGUF in, GGUF out, tensor by tensor.

    base.gguf (+ adapter.gguf) -> f16 | q8_0 | q4_k_m

Promises: works in a process of its own, whose crash is a `TrainError`; holds a few rows of one
tensor in memory, not the model; what says how the model is used (tokenizer, chat template, window)
is copied as it is; the file is written beside its place and renamed into it. The numbers are packed
by ggml itself, out of the library of xllamacpp; `mixture` decides which tensor gets how many bits,
as llama.cpp's own quantizer does.
Refuses to know: runs, whether the result answers well (``export.py``, ``fidelity.py``).

A merge of a LoRA (Hu et al. 2021) adds alpha / rank * B A to the weights. Rules of the mixtures:
llama.cpp, src/llama-quant.cpp (MIT), of 2026; no line of it is copied.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from knowme.errors import TrainError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("f16", "q8_0", "q4_k_m")
_FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15}
_CHUNK = 16 << 20  # numbers worked on at once: 64 MB as float32
_BLOCKS = {"Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "Q8_0": 32, "Q5_0": 32, "Q5_1": 32}
_SMALLER = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_ATTENTION_V = ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight")
# Small, or sensitive, or no matrix of a layer at all: they stay as they are.
_KEPT = (
    "_norm.weight ffn_gate_inp.weight ffn_gate_tid2eid.weight altup laurel per_layer_model_proj "
    "ssm_conv1d shortconv.conv.weight indexer.k_proj.weight indexer.q_proj.weight "
    "time_mix_first.weight time_mix_w0.weight time_mix_w1.weight time_mix_w2.weight "
    "time_mix_v0.weight time_mix_v1.weight time_mix_v2.weight time_mix_a0.weight "
    "time_mix_a1.weight time_mix_a2.weight time_mix_g1.weight time_mix_g2.weight "
    "time_mix_decay_w1.weight time_mix_decay_w2.weight time_mix_lerp_fused.weight "
    "attn_rel_b.weight .position_embd sam.pos_embd sam.neck. sam.net_ .rel_pos .patch_embd "
    ".patch_merger a.rvq.codebook mm.a.code_embd"
).split()
_KEPT_WHOLE = ("position_embd.weight", "token_types.weight")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the mixture must know of a model."""

    architecture: str
    layers: int
    experts: int = 0
    heads: int = 0
    heads_kv: int = 0

    @property
    def is_70b(self) -> bool:
        """Tell whether it is one of the 70B, whose values are shared by eight heads."""
        shared = self.heads != self.heads_kv
        return self.layers == 80 and self.architecture in ("llama", "qwen2") and shared


def shrinks(name: str, rank: int) -> bool:
    """Tell whether a tensor of this name and so many dimensions is packed at all."""
    if rank < 2 or not name.endswith("weight") or name in _KEPT_WHOLE:
        return False
    return not any(part in name for part in _KEPT)


def mixture(tensors: Mapping[str, Sequence[int]], model: Shape, kind: str) -> dict[str, str]:
    """Return how each tensor that is packed is packed: name -> F16, Q8_0, Q4_K, Q5_0, Q6_K ...

    ``tensors`` maps a name to its dimensions, the row's length first, as ggml orders them.
    q4_k_m is 4 bits in blocks of 256, with 6 for the output and for half of ``attn_v`` and
    ``ffn_down``; a row that is no multiple of 256 takes the type of 32 next above.
    """
    packed = [name for name in sorted(tensors, key=_place) if shrinks(name, len(tensors[name]))]
    if kind == "f16":
        return dict.fromkeys(packed, "F16")
    if kind == "q8_0":
        return {name: _fitting("Q8_0", tensors[name][0]) for name in packed}
    rule = _Rule(model, "output.weight" not in tensors, sum(map(_is_value, tensors)))
    return {name: _fitting(rule.type(name, tensors[name][0]), tensors[name][0]) for name in packed}


class _Rule:
    """Q4_K_M, tensor after tensor in the order of the layers: it counts as it goes."""

    def __init__(self, model: Shape, tied: bool, values: int) -> None:
        self.model = model
        self.tied = tied
        self.values = values
        self.value = self.down = 0

    def type(self, name: str, row: int) -> str:
        falcon, eight = self.model.architecture == "falcon", self.model.experts == 8
        if name == "output.weight" or (self.tied and _is_embedding(name)):
            return "Q8_0" if falcon or row % 256 else "Q6_K"
        if _is_value(name):
            return self._value()
        if "attn_k.weight" in name and eight:
            return "Q8_0"
        if "attn_output.weight" in name and eight and not falcon:
            return "Q5_K"
        if "ffn_down" in name:
            return self._down(name)
        return "Q4_K"

    def _value(self) -> str:
        found = "Q6_K" if _more_bits(self.value, self.values) else "Q4_K"
        self.value += 1
        if self.model.is_70b and found == "Q4_K":
            found = "Q5_K"
        return "Q8_0" if self.model.experts == 8 else found

    def _down(self, name: str) -> str:
        layer, layers = self.down, self.model.layers
        self.down += 1
        if self.model.experts > 1:  # the tensors of experts are several a layer
            layer = _layer(name)
        if self.model.architecture == "falcon":
            return (
                "Q6_K" if layer < layers // 16 else "Q5_K" if _more_bits(layer, layers) else "Q4_K"
            )
        return "Q6_K" if _more_bits(layer, layers) else "Q4_K"


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(wanted: str, row: int) -> str:
    """Return the type, or one of smaller blocks where the row's length is no multiple of them."""
    for kind in (wanted, _SMALLER.get(wanted, "F16")):
        if row % _BLOCKS.get(kind, 1) == 0:
            return kind
    return "F16"


def _is_value(name: str) -> bool:
    return any(part in name for part in _ATTENTION_V)


def _is_embedding(name: str) -> bool:
    return name in ("token_embd.weight", "per_layer_token_embd.weight")


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _place(name: str) -> tuple[int, str]:
    return _layer(name), name


# --- the parent's side ----------------------------------------------------------------------------


def make(base: Path, target: Path, kind: str, adapter: Path | None = None) -> dict[str, int]:
    """Write ``target``; returns how many tensors have which type, {"Q4_K": 90, "F32": 61 ...}.

    Raises TrainError: files that do not belong together, weights that are no numbers, a full disk,
    a library without a quantizer.
    """
    if kind not in KINDS:
        raise TrainError(f"There is no kind {kind!r} of model file.", f"Use {', '.join(KINDS)}.")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    order = {"base": str(base), "target": str(partial), "kind": kind}
    order["adapter"] = "" if adapter is None else str(adapter)
    try:
        said = ran(
            [sys.executable, "-P", "-m", "knowme.learn.quantize"],
            f"Making {target.name}",
            stdin=json.dumps(order),
            ours=True,
        )
        told: dict[str, int] = json.loads(said.splitlines()[-1])
        partial.replace(target)
    except (OSError, ValueError, IndexError) as error:
        raise TrainError(f"{target} could not be written: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return told


def ran(
    command: Sequence[str],
    what: str,
    *,
    stdin: str = "",
    folder: Path | None = None,
    ours: bool = False,
    more: Mapping[str, str] | None = None,
) -> str:
    """Run a program of the conversion and return what it printed.

    It sees an environment of its own (``more`` is added), works in an empty folder or in
    ``folder``, asks no hub for anything, and ends with us. Raises TrainError with the last line
    that it said.
    """
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder or empty,
                env={**_environment(ours), **(more or {})},
                start_new_session=True,  # Ctrl-C in the terminal is for us
            )
        except OSError as error:
            raise TrainError(f"{what}: {command[0]} cannot be started: {error}") from error
        try:
            out, _ = process.communicate(stdin.encode())
        except BaseException:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode:
            log.seek(0)
            raise _failed(what, process.returncode, log.read() + b"\n" + out)
    return out.decode("utf-8", "replace")


def _environment(ours: bool) -> dict[str, str]:
    """Return what such a program sees. ``ours`` must find this package."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    found |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    found["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, _cores() // 2))
    if ours:
        found["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent.parent)
    return found


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _failed(what: str, code: int, log: bytes) -> TrainError:
    lines = [line.strip() for line in re.split(r"[\r\n]+", log.decode("utf-8", "replace"))]
    said = next((line for line in reversed(lines) if line and "%|" not in line), "")
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    hint = ""
    if "No module named" in said or "ImportError" in said:
        hint = "Run: pip install 'knowme[train]'"
    elif "No space left" in said:
        hint = "Free some space, and export again: knowme learn export"
    return TrainError(f"{what} failed ({how}): {said[:300] or 'it said nothing'}", hint)


# --- the process ----------------------------------------------------------------------------------


class _Ggml:
    """ggml's quantizers, reached in the library of xllamacpp."""

    def __init__(self) -> None:
        import xllamacpp

        package = Path(xllamacpp.__file__ or "").parent
        found = sorted(each for end in ("*.so", "*.pyd", "*.dylib") for each in package.glob(end))
        if not found:
            stop(f"there is no library in {package}")
        library = ctypes.CDLL(str(found[0]))
        try:
            self._quantize = library.ggml_quantize_chunk
            self._row_size = library.ggml_row_size
            self._valid = library.ggml_validate_row_data
        except AttributeError as error:
            stop(f"this xllamacpp has no quantizer ({error}); put llama-quantize on the PATH")
        self._quantize.restype = self._row_size.restype = ctypes.c_size_t
        whole, at = ctypes.c_int64, ctypes.c_void_p
        self._quantize.argtypes = [ctypes.c_int, at, at, whole, whole, whole, at]
        self._row_size.argtypes = [ctypes.c_int, whole]
        self._valid.restype = ctypes.c_bool
        self._valid.argtypes = [ctypes.c_int, at, ctypes.c_size_t]

    def row_bytes(self, kind: int, length: int) -> int:
        return int(self._row_size(kind, length))

    def packed(self, kind: int, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Pack rows (n, length); returns (n, bytes of a row)."""
        import numpy as np

        rows = np.ascontiguousarray(rows, dtype=np.float32)
        many, length = rows.shape
        made = np.empty((many, self.row_bytes(kind, length)), dtype=np.uint8)
        wrote = self._quantize(kind, rows.ctypes.data, made.ctypes.data, 0, many, length, None)
        if wrote != made.nbytes or not self._valid(kind, made.ctypes.data, made.nbytes):
            stop(f"ggml packed {many} rows of {length} wrongly")
        return made


class _Merge:
    """The deltas of an adapter: for a tensor's name, what is added to its rows."""

    def __init__(self, reader: Any) -> None:
        self._alpha = float(_value(reader, "adapter.lora.alpha") or 0.0)
        found = {tensor.name: tensor for tensor in reader.tensors}
        names = {name.removesuffix(".lora_a") for name in found if name.endswith(".lora_a")}
        odd = sorted(set(found) - {f"{name}.lora_{end}" for name in names for end in "ab"})
        if odd or not names:
            stop(f"the adapter holds {odd[0] if odd else 'nothing'}, which cannot be merged")
        self._halves = {
            name: (_floats(found[f"{name}.lora_a"]), _floats(found[f"{name}.lora_b"]))
            for name in names
        }
        self.unused = set(names)

    def rows(self, name: str, first: int, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return rows [first, first + n) of a tensor with the adapter in them."""
        if name not in self._halves:
            return rows
        self.unused.discard(name)
        a, b = self._halves[name]
        if a.ndim != 2 or a.shape[1] != rows.shape[1] or b.shape[1] != a.shape[0]:
            stop(f"{name} of the adapter, {b.shape} by {a.shape}, does not fit the base's rows")
        scale = self._alpha / a.shape[0] if self._alpha else 1.0
        return rows + scale * (b[first : first + len(rows)] @ a)

    def fits(self, name: str, rows: int) -> None:
        """Refuse an adapter whose tensor has another number of rows than the base's."""
        if name in self._halves and len(self._halves[name][1]) != rows:
            stop(f"{name} of the adapter has {len(self._halves[name][1])} rows, the base {rows}")


def stop(why: str) -> NoReturn:
    """End this process; its parent says why."""
    sys.stderr.write(f"{why}\n")
    raise SystemExit(1)


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _floats(tensor: Any) -> NDArray[np.float32]:
    from gguf import quants

    found: NDArray[np.float32] = quants.dequantize(tensor.data, tensor.tensor_type)
    return found


def _shape(reader: Any) -> Shape:
    architecture = str(_value(reader, "general.architecture"))

    def number(key: str) -> int:
        found = _value(reader, f"{architecture}.{key}")
        return max(found) if isinstance(found, list) else int(found or 0)

    heads = number("attention.head_count")
    layers = number("block_count")
    kv = number("attention.head_count_kv") or heads
    return Shape(architecture, layers, number("expert_count"), heads, kv)


def _work(order: Mapping[str, str]) -> dict[str, int]:
    from gguf import GGUFReader

    base = GGUFReader(order["base"])
    merge = None
    if order["adapter"]:
        adapter = GGUFReader(order["adapter"])
        theirs, ours = (_value(each, "general.architecture") for each in (adapter, base))
        if theirs != ours:
            stop(f"the adapter is for {theirs}, and the base is {ours}")
        merge = _Merge(adapter)
    dimensions = {each.name: [int(n) for n in each.shape] for each in base.tensors}
    types = mixture(dimensions, _shape(base), order["kind"])
    counts = _write(base, Path(order["target"]), order["kind"], types, merge)
    if merge is not None and merge.unused:
        stop(f"the base has no {sorted(merge.unused)[0]}, which the adapter changes")
    return counts


def _write(
    base: Any, target: Path, kind: str, types: Mapping[str, str], merge: _Merge | None
) -> dict[str, int]:
    from gguf import GGMLQuantizationType, GGUFWriter

    ggml = _Ggml() if kind != "f16" else None
    writer: Any = GGUFWriter(target, str(_value(base, "general.architecture")))
    _copy_values(base, writer, kind)
    counts: dict[str, int] = {}
    for tensor in base.tensors:
        name = types.get(tensor.name, "") or tensor.tensor_type.name
        counts[name] = counts.get(name, 0) + 1
        kept = tensor.name not in types
        made = tensor.tensor_type if kept else GGMLQuantizationType[name]
        size = tensor.n_bytes if kept else _bytes(tensor, made)
        dims = [int(each) for each in reversed(tensor.shape)]
        _announce(writer, tensor.name, dims, size, made)
    writer.write_header_to_file(path=target)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = writer.fout[0]
    for tensor in base.tensors:
        writer.write_padding(out, out.tell())
        for piece in _pieces(tensor, types.get(tensor.name), merge, ggml):
            out.write(piece)
        writer.write_padding(out, out.tell())
    out.flush()
    os.fsync(out.fileno())
    writer.close()
    return dict(sorted(counts.items()))


def _bytes(tensor: Any, made: Any) -> int:
    from gguf.constants import GGML_QUANT_SIZES

    block, wide = GGML_QUANT_SIZES[made]
    return int(tensor.n_elements) // block * wide


def _announce(writer: Any, name: str, dims: list[int], size: int, made: Any) -> None:
    """Say what comes. A packed tensor is announced by its bytes, which the writer reads back."""
    import numpy as np
    from gguf.constants import GGML_QUANT_SIZES

    block, wide = GGML_QUANT_SIZES[made]
    packed = block > 1
    shape = [*dims[:-1], dims[-1] // block * wide] if packed else dims
    plain = np.float16 if made.name == "F16" else np.float32
    writer.add_tensor_info(name, shape, np.dtype(np.uint8 if packed else plain), size, made)


def _copy_values(base: Any, writer: Any, kind: str) -> None:
    from gguf import GGUFValueType

    said = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in base.fields.items():
        if name in said or name.startswith(("GGUF.", "split.")):
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(2)


def _pieces(
    tensor: Any, made: str | None, merge: _Merge | None, ggml: _Ggml | None
) -> Iterator[bytes]:
    """Yield a tensor's bytes, some rows at a time."""
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    if made is None:
        yield tensor.data.tobytes()
        return
    length = int(tensor.shape[0])
    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    if merge is not None:
        merge.fits(tensor.name, len(rows))
    step = max(1, _CHUNK // length)
    for first in range(0, len(rows), step):
        some = quants.dequantize(rows[first : first + step], tensor.tensor_type)
        if merge is not None:
            some = merge.rows(tensor.name, first, some)
        if not np.isfinite(some).all():
            stop(f"{tensor.name} holds a weight that is no number")
        if made == "F16":
            half = some.astype(np.float16)
            if not np.isfinite(half).all():
                stop(f"{tensor.name} holds a weight that 16 bits cannot say")
            yield half.tobytes()
        else:
            assert ggml is not None
            yield ggml.packed(GGMLQuantizationType[made].value, some).tobytes()


def _serve() -> None:
    os.umask(0o077)
    order = json.loads(sys.stdin.read())
    try:
        counts = _work(order)
    except (OSError, ValueError, KeyError, IndexError, TypeError, ImportError) as error:
        stop(f"{type(error).__name__}: {error}")
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    _serve()
