"""Whether a converted model is still the model that was trained.

The original (torch, the base's weights with the adapter, in float32) and the copy (llama.cpp, what
is served) read the same tokens of the same held-out answers; at each position of an answer both say
which token is the likeliest, and how likely the one that stands there is.

Promises: the tokens are llama.cpp's, given to both, and it is told how often the original's own
tokenizer cuts a prompt in the same way; torch works in a process of its own; nothing that was said
is written anywhere. A copy beyond `LIMITS` is a TrainError.
Refuses to know: whether the model is good.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowme.errors import InputError, TooLongError, TrainError
from knowme.learn import export, quantize
from knowme.learn.runs import Run
from knowme.learn.served import Scales, Served
from knowme.types import Pair

LIMITS: Mapping[str, tuple[float, float]] = {
    "adapter": (0.95, 0.02),
    "f16": (0.95, 0.02),
    "q8_0": (0.95, 0.02),
    "q4_k_m": (0.80, 0.15),
}
"""By kind: the least share of positions with the same likeliest token (refused where it is surely
less), and by what share the perplexity may rise or fall. Four bits lose by design: there the limit
finds what is broken."""

POSITIONS = 400
"""How many positions are read, at most: about 20 ms each with the packaged model."""
_ANSWER, _PROMPT = 64, 1024  # tokens of one answer, of one prompt
_END = -1  # what `Served.top` says where the likeliest is to say no more

Row = tuple[tuple[int, ...], int]
"""The tokens of a prompt with its answer, and where the answer begins."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near the copy is, over ``positions`` tokens of ``rows`` answers.

    ``same_top`` is a share; the perplexities are of the answers' tokens; ``same_tokens`` is the
    share of prompts and answers that the original's tokenizer cuts in the same way.
    """

    kind: str
    rows: int
    positions: int
    same_top: float
    perplexity_original: float
    perplexity_converted: float
    same_tokens: float

    @property
    def perplexity_ratio(self) -> float:
        """The copy's perplexity by the original's: 1.02 is 2% worse."""
        return self.perplexity_converted / self.perplexity_original

    @property
    def same_at_most(self) -> float:
        """What the share may be with 95% certainty, by its sample (E. Wilson, 1927).

        In 8-bit arithmetic near ties flip: of a small model so many that the share of some hundred
        positions lies now above, now below the limit. A broken copy is far below.
        """
        z, n, p = 1.645, self.positions, self.same_top
        middle = p + z * z / (2 * n)
        return (middle + z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)

    @property
    def why(self) -> str:
        """Return what is wrong with the copy, "" where nothing is."""
        least, most = LIMITS[self.kind]
        if not self.same_at_most >= least:
            return (
                f"it finds the same token likeliest at {self.same_top:.1%} of {self.positions} "
                f"positions, and {least:.0%} are needed"
            )
        if not abs(self.perplexity_ratio - 1.0) <= most:
            return (
                f"its perplexity is {self.perplexity_converted:.4g} and the original's "
                f"{self.perplexity_original:.4g}, and {most:.0%} more or less is allowed"
            )
        return ""


def check(
    run: Run, pairs: Sequence[Pair], kind: str = "adapter", *, most: int = POSITIONS
) -> Fidelity:
    """Compare what was exported of a run with what was trained, on held-out ``pairs``.

    ``kind``: adapter (on the base's GGUF), f16, q8_0 or q4_k_m. Raises TrainError where the copy is
    not the same model, InputError where there is nothing to compare on, ModelMissingError.
    """
    found = compared(run, pairs, kind, most=most)
    if found.why:
        raise TrainError(
            f"The {kind} of run {run.id} is not the model that was trained: {found.why}.",
            "Export it again: knowme learn export",
        )
    return found


def compared(
    run: Run, pairs: Sequence[Pair], kind: str = "adapter", *, most: int = POSITIONS
) -> Fidelity:
    """As `check`, without judging."""
    if kind not in LIMITS:
        raise InputError(f"There is no kind {kind!r} of export.", f"Use {', '.join(LIMITS)}.")
    model, adapters = run.path / f"merged-{kind}.gguf", list[Path]()
    if kind == "adapter":
        model, adapters = export.base_gguf(run), [run.path / export.ADAPTER]
    scales = (1.0,) * len(adapters)
    with Served(model, adapters) as served:
        rows, chosen = _rows(served, pairs, most)
        if not rows:
            raise InputError(
                "There is no held-out answer to compare the export on.",
                "Make a larger data set: knowme learn dataset",
            )
        tops, converted = _copy(served, chosen, rows, scales)
    original = _original(run, rows, chosen)
    many = sum(len(tokens) - start for tokens, start in rows)
    same = sum(
        _agree(a, b, original["ends"])
        for mine, theirs in zip(original["tops"], tops, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    return Fidelity(
        kind=kind,
        rows=len(rows),
        positions=many,
        same_top=same / many,
        perplexity_original=_perplexity(original["nll"]),
        perplexity_converted=_perplexity(converted),
        same_tokens=original["same_tokens"],
    )


def _agree(original: int, copy: int, ends: Sequence[int]) -> bool:
    return original == copy or (copy == _END and original in ends)


def _perplexity(nll: Sequence[Sequence[float]]) -> float:
    """Return exp of the mean; infinity for a model that says what is no number."""
    flat = [each for row in nll for each in row]
    mean = math.fsum(flat) / len(flat) if all(map(math.isfinite, flat)) else math.inf
    return math.exp(min(mean, 700.0))


# --- the copy -------------------------------------------------------------------------------------


def _rows(
    served: Served, pairs: Sequence[Pair], most: int
) -> tuple[tuple[Row, ...], tuple[Pair, ...]]:
    """Return the rows to read with their pairs: as many as ``most`` positions allow."""
    rows: list[Row] = []
    chosen: list[Pair] = []
    left = most
    for pair in pairs:
        think = pair.answer.lstrip().startswith("<think>")
        with suppress(TooLongError):
            prompt = served.prompt(pair.messages[:-1], think=think)
            answer = served.tokens(pair.answer)[: min(_ANSWER, left)]
            if answer and len(prompt) <= _PROMPT:
                rows.append(((*prompt, *answer), len(prompt)))
                chosen.append(pair)
                left -= len(answer)
        if left <= 0:
            break
    return tuple(rows), tuple(chosen)


def _copy(
    served: Served, pairs: Sequence[Pair], rows: Sequence[Row], scales: Scales
) -> tuple[list[list[int]], list[list[float]]]:
    tops, nll = [], []
    for pair, (tokens, start) in zip(pairs, rows, strict=True):
        asked = (pair.messages[:-1], pair.answer, scales)
        tops.append(served.top(*asked, most=len(tokens) - start))
        nll.append(served.nll(*asked, most=len(tokens) - start))
    return tops, nll


# --- the original ---------------------------------------------------------------------------------


def _original(run: Run, rows: tuple[Row, ...], pairs: Sequence[Pair]) -> Mapping[str, Any]:
    weights = run.path / "adapter" / "adapter_model.safetensors"
    try:
        about = weights.stat()
    except OSError as error:
        raise TrainError(
            f"There is no {weights}, so there is nothing to compare with.",
            "Train it again: knowme learn train",
        ) from error
    texts = tuple(
        json.dumps([[each.role, each.content] for each in pair.messages]) for pair in pairs
    )
    state = (about.st_size, about.st_mtime_ns)
    return _read_original(export.base_folder(run), weights.parent, state, rows, texts)


@lru_cache(maxsize=1)  # several kinds of one run are checked one after the other
def _read_original(
    base: Path,
    adapter: Path,
    state: tuple[int, int],
    rows: tuple[Row, ...],
    texts: tuple[str, ...],
) -> Mapping[str, Any]:
    del state
    order = {
        "base": str(base),
        "adapter": str(adapter),
        "rows": rows,
        "texts": [json.loads(each) for each in texts],
    }
    command = [sys.executable, "-P", "-m", "knowme.learn.fidelity"]
    said = quantize.ran(command, "Reading the original", stdin=json.dumps(order), ours=True)
    try:
        told: Mapping[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise TrainError(f"The original said nothing: {error}") from error
    return told


def _serve() -> None:
    """Run the process: read the order from stdin, say what the original says, end."""
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    order = json.loads(sys.stdin.read())
    try:
        told = _read(order)
    except (ImportError, OSError, ValueError, RuntimeError, KeyError) as error:
        quantize.stop(f"{type(error).__name__}: {error}")
    reply.write(json.dumps(told) + "\n")
    reply.flush()


def _read(order: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(order["base"])
    base: Any = AutoModelForCausalLM.from_pretrained(order["base"], dtype=torch.float32)
    model: Any = PeftModel.from_pretrained(base, order["adapter"]).eval()
    found: dict[str, Any] = {"tops": [], "nll": [], "ends": _ends(tokenizer, base)}
    same = 0
    with torch.inference_mode():
        for (tokens, start), said in zip(order["rows"], order["texts"], strict=True):
            logits = model(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1].float()
            wanted = torch.tensor(tokens[start:])
            found["tops"].append(logits.argmax(-1).tolist())
            losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
            found["nll"].append(losses.tolist())
            same += _own_tokens(tokenizer, said)[: len(tokens)] == tokens
    found["same_tokens"] = same / len(order["rows"])
    return found


def _own_tokens(tokenizer: Any, said: Sequence[Sequence[str]]) -> list[int]:
    """Return what the original's tokenizer makes of a prompt with its answer."""
    messages = [{"role": role, "content": content} for role, content in said]
    think = messages[-1]["content"].lstrip().startswith("<think>")
    text = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True, enable_thinking=think
    )
    answer = messages[-1]["content"]
    own = [tokenizer(each, add_special_tokens=False).input_ids for each in (text, answer)]
    return [*own[0], *own[1]]


def _ends(tokenizer: Any, model: Any) -> list[int]:
    """Return the tokens that end an answer, or begin another's message."""
    named = model.generation_config.eos_token_id
    found = {*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id}
    return sorted(each for each in found if each is not None)


if __name__ == "__main__":
    _serve()
