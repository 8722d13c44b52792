"""Runs: a folder each, from the data set to the adapter and what was measured of it.

    runs/<id>/ data/{train,validation,test,rejected}.jsonl data/card.md -> spec.json log.jsonl
               adapter/ -> adapter.gguf ... -> answers.jsonl -> manifest.json (after each stage)

Promises: a stage is done exactly if the manifest says so, and the manifest is written whole; words
stand in .jsonl rows only, each with the messages that it rests on. What was forgotten since marks a
run stale.
Refuses to know: what a stage does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import knowme
from knowme.adoptions import STALE as STALE
from knowme.errors import InputError, NotFoundError
from knowme.times import iso, now_ms
from knowme.types import PURPOSES

FOLDER = "runs"
MANIFEST = "manifest.json"
STAGES = ("data", "train", "export", "measure")
_SHORT = {"assistant-for-me": "assistant", "sound-like-me": "voice"}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its name and its folder. What it has done is read from the manifest each time."""

    id: str
    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What is known of it: purpose, made, stages. Raises InputError where it is damaged."""
        try:
            told = json.loads((self.path / MANIFEST).read_text("utf-8"))
        except FileNotFoundError:
            return {"id": self.id, "purpose": "", "stages": {}}
        except (OSError, ValueError) as error:
            raise InputError(
                f"The manifest of run {self.id} cannot be read: {error}", f"Delete {self.path}."
            ) from error
        if not isinstance(told, dict) or not isinstance(told.get("stages"), dict):
            raise InputError(f"{self.path / MANIFEST} is no manifest.", f"Delete {self.path}.")
        return told

    @property
    def purpose(self) -> str:
        """What it is trained for."""
        return str(self.manifest.get("purpose", ""))

    def stage(self, name: str) -> Mapping[str, Any] | None:
        """Return what a stage said as it was done, or None."""
        told: Mapping[str, Any] | None = self.manifest["stages"].get(name)
        return told

    def needs(self, name: str) -> Mapping[str, Any]:
        """Return what a stage said. Raises InputError where it is not done."""
        told = self.stage(name)
        if told is None:
            mend = {"data": "dataset"}.get(name, name)
            raise InputError(f"Run {self.id} has no {name} yet.", f"Run: knowme learn {mend}")
        return told

    def done(self, name: str, **told: Any) -> None:
        """Note that a stage is done; the stages after it are to be done anew. Raises OSError."""
        manifest = self.manifest
        later = STAGES[STAGES.index(name) + 1 :]
        stages = {each: kept for each, kept in manifest["stages"].items() if each not in later}
        stages[name] = {**told, "at": iso(now_ms())}
        put(self.path / MANIFEST, {**manifest, "stages": stages})

    @property
    def stale(self) -> str:
        """Why it should not be used any more: what it learned from was forgotten; "" if not."""
        try:
            told = json.loads((self.path / STALE).read_text("utf-8"))
            return str(told.get("why") or "rows of its data set were forgotten")
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, AttributeError):
            return "its mark of staleness cannot be read"


def create(home: Path, purpose: str, at_ms: int | None = None) -> Run:
    """Make the folder of a new run: 2026-11-21-voice, -2, -3 ... Raises InputError, OSError."""
    if purpose not in PURPOSES:
        raise InputError(f"There is no purpose {purpose!r}.", f"Use {' or '.join(PURPOSES)}.")
    day = datetime.fromtimestamp((now_ms() if at_ms is None else at_ms) / 1000).date().isoformat()
    folder = home / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 1
    while True:
        name = f"{day}-{_SHORT[purpose]}" + (f"-{number}" if number > 1 else "")
        try:
            (folder / name).mkdir(mode=0o700)
            break
        except FileExistsError:
            number += 1
    run = Run(name, folder / name)
    told = {"id": name, "purpose": purpose, "made": iso(now_ms()), "version": knowme.__version__}
    put(run.path / MANIFEST, {**told, "stages": {}})
    return run


def listed(home: Path) -> list[Run]:
    """Return every run, the newest first."""
    found = [Run(each.parent.name, each.parent) for each in (home / FOLDER).glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda run: (str(run.manifest.get("made", "")), run.id), reverse=True)


def find(home: Path, name: str = "", purpose: str = "") -> Run:
    """Return the run of this name, or the newest (of a purpose). Raises NotFoundError."""
    found = listed(home)
    if name:
        found = [run for run in found if run.id == name]
    elif purpose:
        found = [run for run in found if run.purpose == purpose]
    if not found:
        if name:
            raise NotFoundError(f"There is no run {name!r}.", "See them: knowme learn runs")
        raise NotFoundError("There is no run yet.", "Begin one: knowme learn dataset")
    return found[0]


def put(path: Path, told: Mapping[str, Any]) -> None:
    """Write one JSON document, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch(mode=0o600)
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
