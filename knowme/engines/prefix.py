"""What a llama.cpp model has read of a prompt, kept on disk while the model is not loaded.

Promises: one file for each model file, window and adapter with its scale, readable by its owner
alone, whole or not there; the newest stay, within `MOST_BYTES` in all; one of a model file that has
changed is deleted; what was read before something was forgotten is not written any more.
Failing costs time, never an answer: ``save`` and ``restore`` raise nothing and say how many tokens.
Refuses to know: when a model comes and goes (``residency.py``).

The files hold the tokens of the last prompt, so they are as private as memory.db.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from knowme import llama
from knowme.errors import ModelError

MOST_BYTES = 2 << 30
"""All files together. 4,096 tokens of a model of four billion parameters are 600 MB."""
SAVE_SECONDS = 10.0
QUESTION = "Question: "
"""How the last message begins where a model has no template."""
_TEMPLATED = ("tools", "chat_template_kwargs", "reasoning_format")
Adapters = Sequence[Mapping[str, float]] | None
"""The ``lora`` of a request: [{"id": 0, "scale": 1.0}]."""
_LEFT_SECONDS = 3600.0  # a half-written file this old was left by a killed process


def save(worker: llama.Worker, latest: Mapping[str, Any]) -> int:
    """Write down what slot 0 has read; returns how many tokens, 0 where it could not.

    ``latest`` is the body of the last request; its ``lora`` is what the prompt was read under. Of a
    sliding window llama.cpp writes only the last part, so a prompt that leaves what was read
    further back than that would find nothing of use (measured on Gemma 3: 0 of 521 tokens): there
    what the next prompt begins with is read again first, which costs nothing while it is in the
    cache.
    """
    spec = worker.spec
    folder = spec.prefix_folder
    if folder is None or worker.pid is None:
        return 0
    partial = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        if shutil.disk_usage(folder).free < 2 * llama.window_bytes(spec):
            return 0
        if llama.slides(spec) and not _cut_back(worker, latest):
            return 0
        file = _file(folder, spec, latest.get("lora"))
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        tokens = _slot(worker, "save", partial, "n_saved")
        if tokens:
            partial.chmod(0o600)
            partial.replace(file)
            _tidy(folder, file)
        return tokens
    except (OSError, ModelError, LookupError, TypeError):
        return 0
    finally:
        if partial is not None:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def restore(worker: llama.Worker, lora: Adapters = None) -> int:
    """Let a worker that was just started read on where it left off; returns how many tokens.

    ``lora`` is what the next request will ask for. llama.cpp forgets what it read when a request
    names other scales than the one before, so one that reads nothing names them first.
    """
    folder = worker.spec.prefix_folder
    if folder is None:
        return 0
    try:
        file = _file(folder, worker.spec, lora)
        _tidy(folder, file)
        if not file.is_file():
            return 0
        try:
            if lora is not None:
                _ask(worker, {"prompt": " ", "lora": lora})
            return _slot(worker, "restore", file, "n_restored")
        except ModelError:  # of another llama.cpp, or damaged
            file.unlink(missing_ok=True)
    except OSError:
        pass
    return 0


def forgotten_since(worker: llama.Worker, loaded_at: float) -> bool:
    """Tell whether something was forgotten since then: what slot 0 has read may hold it."""
    folder = worker.spec.prefix_folder
    if folder is None:
        return False
    try:
        return (folder / "forgotten").stat().st_mtime >= loaded_at
    except OSError:
        return False


def _cut_back(worker: llama.Worker, latest: Mapping[str, Any]) -> bool:
    """Cut what slot 0 has read to what came before the last message. False: there is nothing."""
    if "prompt" in latest:
        stable = str(latest["prompt"]).rpartition(QUESTION)[0].rstrip()
    else:
        before = list(latest["messages"])[:-1]
        if not before:
            return False
        asked = {name: latest[name] for name in _TEMPLATED if name in latest}
        told = worker.call_running(
            "/apply-template",
            {**asked, "messages": before, "add_generation_prompt": False},
            timeout_seconds=SAVE_SECONDS,
        )
        stable = told["prompt"]
    if not stable:
        return False
    _ask(worker, {"prompt": stable, **({"lora": latest["lora"]} if "lora" in latest else {})})
    return True


def _ask(worker: llama.Worker, asked: Mapping[str, Any]) -> None:
    body = {"n_predict": 0, "cache_prompt": True, "id_slot": 0, **asked}
    worker.call_running("/completion", body, timeout_seconds=SAVE_SECONDS)


def _slot(worker: llama.Worker, action: str, file: Path, key: str) -> int:
    told = worker.call_running(
        f"/slots/0?action={action}", {"filename": file.name}, timeout_seconds=SAVE_SECONDS
    )
    found = told.get(key) if isinstance(told, dict) else None
    return found if isinstance(found, int) else 0


def _file(folder: Path, spec: llama.Spec, lora: Adapters) -> Path:
    what = f"{spec.path.absolute()}\n{spec.context_tokens}\n{spec.slots}"
    if spec.adapters:
        what += f"\n{[str(each.absolute()) for each in spec.adapters]}\n{lora}"
    states = (path.stat() for path in (spec.path, *spec.adapters))
    state = " ".join(f"{each.st_size} {each.st_mtime_ns}" for each in states)
    return folder / f"{_hash(what)}-{_hash(state)}.prefix"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _tidy(folder: Path, current: Path) -> None:
    """Delete what is stale, what was left half-written, and the oldest beyond the bound."""
    same_model = current.name.partition("-")[0]
    room, now = MOST_BYTES, time.time()
    aged = sorted(((file.stat(), file) for file in folder.glob("*.prefix*")), key=_newest_first)
    for about, file in aged:
        if file.suffix != ".prefix":
            stale = now - about.st_mtime > _LEFT_SECONDS
        else:
            room -= about.st_size
            stale = room < 0 or (file.name.startswith(same_model) and file != current)
        if stale:
            file.unlink(missing_ok=True)


def _newest_first(row: tuple[os.stat_result, Path]) -> float:
    return -row[0].st_mtime
