"""Presets: what is trained and how, what it needs of the machine, and the base's files.

Promises: a training that will not fit is refused before it starts, with what would fit. An estimate
says how it was made and errs on the large side.
Refuses to know: how it is trained (``trainers/``), where the data came from.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowme import llama, modelstore, plugins
from knowme.errors import ModelError, TrainError
from knowme.types import TrainSpec

_MB = 1 << 20
_CHARS_A_TOKEN = 3.5  # of chats in European languages; fewer characters make the estimate larger
_TEMPLATE_TOKENS = 40  # what a chat template adds to an example


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model costs memory: ``parameters``, ``layers``, widths and the vocabulary."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    kv_share: float = 1.0
    """Width of keys and values as a share of ``hidden``."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A model and the numbers to train it with. ``hub``: its weights; ``says``: for whom."""

    name: str
    hub: str
    shape: Shape
    says: str
    numbers: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    each.name: each
    for each in (
        Preset(
            "tiny",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            Shape(134_515_008, 30, 576, 1536, 49152, 1 / 3),
            "the packaged model, on any processor, in minutes; it shows that everything works",
            {
                "rank": 16, "alpha": 32, "learning_rate": 1e-3, "epochs": 2.0, "accumulate": 4,
                "max_tokens": 512,
            },
        ),
        Preset(
            "qwen3-1.7b",
            "Qwen/Qwen3-1.7B",
            Shape(1_720_574_976, 28, 2048, 6144, 151_936, 1 / 2),
            "a card with 8 GB, or a processor with 16 GB and a night",
            {"rank": 16, "alpha": 32, "learning_rate": 2e-4, "max_tokens": 8192},
        ),
        Preset(
            "qwen3-4b",
            "Qwen/Qwen3-4B-Instruct-2507",
            Shape(4_022_468_096, 36, 2560, 9728, 151_936, 2 / 5),
            "a card with 8 GB, such as a free notebook's T4",
            {
                "rank": 32, "alpha": 64, "learning_rate": 2e-4, "four_bit": True,
                "max_tokens": 2048,
            },
        ),
        Preset(
            "llama-3.1-8b",
            "meta-llama/Llama-3.1-8B-Instruct",
            Shape(8_030_261_248, 32, 4096, 14336, 128_256, 1 / 4),
            "a card with 12 GB or more; the hub asks for Meta's licence first",
            {
                "rank": 16, "alpha": 32, "learning_rate": 2e-4, "four_bit": True,
                "targets": "attention", "max_tokens": 2048,
            },
        ),
    )
}  # fmt: skip

_KNOWN = (
    ("qwen3-1.7b", ("qwen3-1.7b", "qwen3:1.7b")),
    ("qwen3-4b", ("qwen3-4b", "qwen3:4b")),
    ("llama-3.1-8b", ("llama-3.1-8b", "llama3.1:8b", "llama-3-1-8b")),
    ("tiny", ("smollm2-135m", "smollm2:135m")),
)


def names() -> list[str]:
    """Return the presets, the smallest first."""
    return list(PRESETS)


def of_model(model: str) -> str:
    """Return the preset for a model by its name, file or tag; "" is the packaged one.

    Raises TrainError for a model that none is made for.
    """
    said = model.lower().replace("_", "-").rpartition("/")[2]
    if not said:
        return "tiny"
    if said in PRESETS:
        return said
    for name, parts in _KNOWN:
        if any(part in said for part in parts):
            return name
    raise TrainError(
        f"There is no preset for the model {model!r}.",
        f"Choose one of {', '.join(PRESETS)}: knowme config set learn.preset NAME; for "
        "other models also set learn.base",
    )


def spec(name: str, folder: Path, base: str = "", **over: Any) -> TrainSpec:
    """Return what a preset trains of the run in ``folder``.

    ``base`` replaces the preset's model; ``over`` any number of it. Raises TrainError for an
    unknown preset, ModelMissingError where the packaged model is not here.
    """
    preset = _preset(name)
    if not base:
        base = preset.hub if name != "tiny" else str(modelstore.path(modelstore.DEFAULT_CHAT))
    made = TrainSpec(folder, base, **{**preset.numbers, **over})
    _check(made)
    return made


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise TrainError(f"There is no preset {name!r}.", f"Use one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def _check(made: TrainSpec) -> None:
    for name in ("rank", "alpha", "batch", "accumulate", "max_tokens", "epochs", "learning_rate"):
        if not getattr(made, name) > 0:
            raise TrainError(f"{name} is {getattr(made, name)}, and must be more than 0.")
    if not 0 <= made.dropout < 1:
        raise TrainError(f"dropout is {made.dropout}, and must be in [0, 1).")


# --- the base -------------------------------------------------------------------------------------


def base_folder(base: str) -> Path:
    """Return the Hugging Face files of a base; "" is the packaged chat model.

    ``base`` is such a folder already, a .gguf (dequantised once, into ``bases/<digest>`` beside the
    models: float16, whole or not at all), a name of `knowme models`, or a hub's name. Raises
    TrainError, ModelMissingError, OfflineError.
    """
    here = Path(base).expanduser() if base else modelstore.path(modelstore.DEFAULT_CHAT)
    if base and not here.exists() and base in {each.name for each in modelstore.catalogue()}:
        here = modelstore.path(base)
    found: Path = _peft().base_folder(str(here) if here.exists() else base)
    return found


def base_of(run: Path) -> Path:
    """Return the Hugging Face files of the base that a run was trained on, from its spec.json.

    Raises TrainError where there is none, or the .gguf that it was made of is another now.
    """
    try:
        told = json.loads((run / "spec.json").read_text("utf-8"))
        base = str(told.get("base_path") or told["base"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(
            f"{run / 'spec.json'} does not say what was trained.", "Run: knowme learn train"
        ) from error
    kept = Path(str(told.get("base_folder", "")))
    if told.get("base_folder") and (kept / "config.json").is_file():
        return kept
    found = base_folder(base)
    if told.get("base_digest") and found.name != told["base_digest"]:
        raise TrainError(
            f"{base} is not the file any more that {run.name} was trained on.",
            "Train it again: knowme learn train",
        )
    return found


def _peft() -> Any:
    return plugins.find("trainers", "peft")()


# --- what it needs --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training needs: MB of memory, of a card's, of disk; seconds, very roughly.

    ``cuda`` tells where it would run, ``tokens`` how many are read in all epochs;
    ``max_tokens`` is the longest example that it was made for.
    """

    ram_mb: int
    vram_mb: int
    disk_mb: int
    seconds: int
    cuda: bool
    tokens: int
    parameters: int
    four_bit: bool
    max_tokens: int


def shape_of(base: str) -> Shape:
    """Return the shape of a base: by its config.json, its GGUF header, or the presets' table.

    Raises TrainError where nobody can say.
    """
    for preset in PRESETS.values():
        if base in (preset.hub, preset.name):
            return preset.shape
    here = Path(base).expanduser()
    try:
        if here.is_dir():
            return _shape_of_folder(here)
        if here.is_file():
            return _shape_of_gguf(here)
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise TrainError(f"{base} does not say how large it is: {error}") from error
    raise TrainError(
        f"Nobody here knows how large {base!r} is.",
        "Fetch it first and name its folder: knowme config set learn.base FOLDER",
    )


def _shape_of_folder(folder: Path) -> Shape:
    told = json.loads((folder / "config.json").read_text("utf-8"))
    told = {**told, **told.get("text_config", {})}
    hidden, layers = int(told["hidden_size"]), int(told["num_hidden_layers"])
    wide, vocabulary = int(told["intermediate_size"]), int(told["vocab_size"])
    heads = int(told["num_attention_heads"])
    share = int(told.get("num_key_value_heads") or heads) / heads
    tied = 1 if told.get("tie_word_embeddings") else 2
    parameters = layers * int(hidden * hidden * (2 + 2 * share) + 3 * hidden * wide)
    return Shape(parameters + tied * vocabulary * hidden, layers, hidden, wide, vocabulary, share)


def _shape_of_gguf(file: Path) -> Shape:
    header = llama.read_header(file)
    hidden = header.number("embedding_length")
    heads = header.number("attention.head_count")
    if not hidden or not heads:
        raise ValueError("it is no language model")
    share = (header.number("attention.head_count_kv") or heads) / heads
    vocabulary = header.number("vocab_size") or 150_000
    wide = header.number("feed_forward_length")
    return Shape(
        header.parameters, header.number("block_count"), hidden, wide, vocabulary, share
    )  # fmt: skip


def trainable(shape: Shape, rank: int, targets: str) -> int:
    """Return how many weights a LoRA of this rank has: rank (in + out) for each layer that it has.

    Hu et al. 2021, arXiv:2106.09685, section 4.
    """
    kv = int(shape.hidden * shape.kv_share)
    pairs = [(shape.hidden, shape.hidden)] * 2 + [(shape.hidden, kv)] * 2
    if targets == "all":
        pairs += [(shape.hidden, shape.intermediate)] * 3
    return shape.layers * rank * sum(a + b for a, b in pairs)


def memory(
    spec: TrainSpec, parameters: int = 0, *, cuda: bool | None = None, tokens: int = 0
) -> Estimate:
    """Estimate what a training needs.

    Weights; the LoRA's with their gradients and Adam's two moments (16 bytes each); what the
    longest example leaves behind in each layer (or at its ends, where it is computed again: from
    a billion parameters on), and its scores over the vocabulary. Calibrated on the packaged model.
    ``tokens``: of one epoch; 0: from the data's size. Raises TrainError.
    """
    shape = shape_of(spec.base)
    many = parameters or shape.parameters
    card = _peft().cuda() if cuda is None else cuda
    longest, read = _lengths(spec.folder, spec.max_tokens)
    longest, read = (spec.max_tokens, tokens) if tokens else (longest, read)
    bytes_each = 0.65 if spec.four_bit else 4.0 if _float32(spec, card) else 2.0
    weights = many * bytes_each
    if spec.four_bit:  # embeddings and norms stay as they are
        weights += shape.vocabulary * shape.hidden * 2
    adapter = trainable(shape, spec.rank, spec.targets) * 16
    at_once = longest * spec.batch * (2 if spec.method == "dpo" else 1)
    number = 4 if _float32(spec, card) else 2
    layer = shape.hidden * 16 + shape.intermediate * 5
    depth = shape.layers if many < 1_000_000_000 else 2 + shape.layers / 16
    lora = (4 * shape.hidden * 4 * 7) if many < 1_000_000_000 else 0  # kept in float32
    activations = at_once * depth * (layer * number + lora)
    scores = at_once * shape.vocabulary * (4 * 3 + number)
    work = int((weights + adapter + activations + scores) * 1.1)
    runtime = 700 * _MB
    disk = many * (2 if not Path(spec.base).is_dir() else 0) + adapter * 3
    rate = (60_000 if card else 110) * 135_000_000 / many  # tokens a second
    epochs = read * spec.epochs
    return Estimate(
        # Without a card: what examples of other lengths freed is not given back (seen: 4.1 GB).
        ram_mb=(2500 * _MB + work // 4 if card else runtime + work * 3 // 2) // _MB,
        vram_mb=(500 * _MB + work) // _MB if card else 0,
        disk_mb=int(disk) // _MB,
        seconds=int(epochs / min(rate, 20_000)) + 20,
        cuda=card,
        tokens=int(epochs),
        parameters=many,
        four_bit=spec.four_bit,
        max_tokens=longest,
    )


def _float32(spec: TrainSpec, card: bool) -> bool:
    if spec.dtype == "auto":
        flags = ""
        with suppress(OSError):
            flags = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        return not card and not ("avx512_bf16" in flags or "amx_bf16" in flags)
    return spec.dtype == "float32"


def _lengths(folder: Path, most: int) -> tuple[int, int]:
    """Return the tokens of the longest example and of all of them, from their characters."""
    longest = total = 0
    with suppress(OSError), open(folder / "data" / "train.jsonl", encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                said = json.loads(line)["messages"]
                chars = sum(len(each["content"]) for each in said)
                length = min(most, int(chars / _CHARS_A_TOKEN) + _TEMPLATE_TOKENS)
                longest, total = max(longest, length), total + length
    return (longest or most, total)


def free_vram_mb() -> int | None:
    """Return the free memory of the first card, in MB; None where nobody can say."""
    order = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", "0"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(order, capture_output=True, text=True, timeout=20, check=True)
        return int(done.stdout.split()[0])
    return None


def refuse(
    estimate: Estimate,
    folder: Path,
    *,
    ram_mb: int | None = None,
    vram_mb: int | None = None,
    disk_mb: int | None = None,
) -> None:
    """Raise TrainError, with advice, where a training will not fit this machine.

    ``ram_mb``, ``vram_mb`` and ``disk_mb`` are what is free; None: measured.
    """
    if ram_mb is None:
        ram_mb = llama.available_mb()
    if disk_mb is None:
        at = next(each for each in (folder, *folder.parents) if each.exists())
        disk_mb = shutil.disk_usage(at).free // _MB
    if estimate.cuda and vram_mb is None:
        vram_mb = free_vram_mb()
    if estimate.four_bit and not estimate.cuda:
        raise TrainError(
            "4-bit training needs a CUDA card, and there is none here.",
            "Train in a free notebook: knowme learn export-notebook; or take the preset tiny: "
            "knowme config set learn.preset tiny",
        )
    short = [
        (kind, need, free)
        for kind, need, free in (
            ("the card's memory", estimate.vram_mb, vram_mb),
            ("memory", estimate.ram_mb, ram_mb),
            ("disk", estimate.disk_mb, disk_mb),
        )
        if free is not None and need > free
    ]
    if short:
        kind, need, free = short[0]
        raise TrainError(
            f"The training needs about {need:,} MB of {kind}, and {free:,} MB are free.",
            _advice(estimate, kind),
        )


def _advice(estimate: Estimate, kind: str) -> str:
    if kind == "disk":
        return "Free some space, or set KNOWME_MODELS to a folder on a larger disk."
    said = []
    smaller = [
        name for name, each in PRESETS.items() if each.shape.parameters < estimate.parameters * 0.9
    ]
    if estimate.cuda and not estimate.four_bit:
        said.append("load it in 4 bits (--four-bit)")
    if estimate.max_tokens > 1024:
        said.append(f"shorten the examples (--max-tokens {estimate.max_tokens // 2})")
    if smaller:
        said.append(f"take a smaller preset: knowme config set learn.preset {smaller[-1]}")
    said.append("train in a free notebook: knowme learn export-notebook")
    told = "; or ".join(said)
    return told[0].upper() + told[1:]
