"""LoRA and QLoRA by TRL and peft: runs ``script.py`` as a process and passes on what it says.

Promises: the process never outlives this one, however it ends; Ctrl-C, or a report that raises,
saves a checkpoint and stops; the next call with the same spec and data goes on from there and ends
in the same adapter, byte for byte on a CPU. What is done already is not done again.
Refuses to know: how it is trained (``script.py``), where the data came from.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from knowme import llama, modelstore, net
from knowme.errors import TrainError
from knowme.seams import Report
from knowme.trainers import script
from knowme.types import TrainSpec

NEEDS = ("torch", "transformers", "peft", "trl", "safetensors")
MEND = "Run: pip install 'knowme[train]'"
_HUB = "https://huggingface.co"


class PeftTrainer:
    """Trains on this machine's processor or its first CUDA card.

    ``every_steps``: steps between checkpoints and validations (0: an epoch, at most 50);
    ``device``: "" (the card, where there is one) or cpu; ``stop_seconds``: how long a process that
    was asked to stop may take to save.
    """

    name = "peft"

    def __init__(
        self, *, every_steps: int = 0, device: str = "", stop_seconds: float = 300.0
    ) -> None:
        self.every_steps = every_steps
        self.device = device
        self.stop_seconds = stop_seconds

    def missing(self, spec: TrainSpec) -> str:
        """Return "" when it can train this here, else one sentence with the mend."""
        lacking = [each for each in NEEDS if find_spec(each) is None]
        if lacking:
            return f"It needs {', '.join(lacking)}. {MEND}"
        if spec.four_bit:
            if not self.cuda():
                return (
                    "4-bit training needs a CUDA card, and there is none here. "
                    "Train in a notebook (knowme learn export-notebook), or use the preset tiny."
                )
            if find_spec("bitsandbytes") is None:
                return "4-bit training needs bitsandbytes. Run: pip install bitsandbytes"
        return ""

    @staticmethod
    def cuda() -> bool:
        """Tell whether there is a CUDA card that the installed torch can use."""
        with suppress(PackageNotFoundError):
            if version("torch").endswith("+cpu"):
                return False
        return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))

    @staticmethod
    def source() -> str:
        """Return the text of the script: it stands alone, and a notebook carries it."""
        return Path(script.__file__).read_text("utf-8")

    @staticmethod
    def sha256_of(told: Mapping[str, Any]) -> str:
        """Return the hash of a spec.json, without what it says of one machine."""
        return script.spec_sha256(told)

    def told(self, spec: TrainSpec) -> dict[str, Any]:
        """Return what spec.json says: the spec, the run's name, the base by its name."""
        found = {key: value for key, value in asdict(spec).items() if key != "folder"}
        found |= {"trainer": self.name, "run": spec.folder.name, "threads": 0}
        if self.every_steps:
            found["every"] = self.every_steps
        if self.device:
            found["device"] = self.device
        here = Path(spec.base).expanduser()
        if here.exists():
            found |= {"base": here.name, "base_path": str(here.absolute())}
            if here.is_file():
                found["base_digest"] = script.digest(here)
        return found

    def base_folder(self, base: str) -> Path:
        """Return the Hugging Face files of a base: a folder, a .gguf or a hub's name.

        A GGUF is dequantised the first time, into ``bases/<digest>`` beside the models. Raises
        TrainError.
        """
        here = Path(base).expanduser()
        if (here / "config.json").is_file():
            return here
        cache = modelstore.models_dir() / "bases"
        if here.is_file():
            kept = cache / script.digest(here)
            if (kept / "base.json").is_file():
                return kept
        elif base.count("/") == 1 and not base.startswith((".", "/", "~")):
            net.check(os.environ.get("KNOWME_HUB", _HUB))
        else:
            raise TrainError(
                f"There is no model at {base}: neither a folder with a config.json nor a .gguf.",
                "Name another: knowme config set learn.base PATH",
            )
        self._refuse_lacking()
        found: list[str] = []
        order = ["--base" if here.is_file() else "--hub", str(here if here.is_file() else base)]
        self._run([*order, str(cache)], lambda told: found.append(str(told["folder"])), base)
        return Path(found[-1])

    def train(self, spec: TrainSpec, report: Report) -> Path:
        """Train, or go on where it was stopped; returns the folder of the adapter."""
        why = self.missing(spec)
        if why:
            sentence, _, mend = why.partition(". ")
            raise TrainError(f"{sentence}.", mend)
        told = self._kept(
            spec, {**self.told(spec), "base_folder": str(self.base_folder(spec.base))}
        )
        adapter = spec.folder / "adapter"
        if self._is_done(spec, told, report):
            return adapter
        (spec.folder / "result.json").unlink(missing_ok=True)
        script.put(spec.folder / "spec.json", told)
        self._run([str(spec.folder)], report, spec.base)
        if not (spec.folder / "result.json").is_file():
            raise TrainError("The training ended without a result.", "Run it again: it goes on.")
        return adapter

    def _kept(self, spec: TrainSpec, told: dict[str, Any]) -> dict[str, Any]:
        """Add the number of threads: that of the training which goes on, for sums depend on it."""
        told["threads"] = llama.choose_threads(spec.threads)
        with suppress(OSError, ValueError):
            before = json.loads((spec.folder / "spec.json").read_text("utf-8"))
            if script.spec_sha256(before) == script.spec_sha256(told):
                told["threads"] = before["threads"]
            else:  # another training: its log is its own
                (spec.folder / "log.jsonl").unlink(missing_ok=True)
        return told

    def _is_done(self, spec: TrainSpec, told: Mapping[str, Any], report: Report) -> bool:
        with suppress(OSError, ValueError, KeyError):
            result = json.loads((spec.folder / "result.json").read_text("utf-8"))
            same = result["spec_sha256"] == script.spec_sha256(told)
            for kind, folder in (
                ("data", spec.folder / "data"),
                ("adapter", spec.folder / "adapter"),
            ):
                same = same and all(
                    script.sha256(folder / name) == wanted for name, wanted in result[kind].items()
                )
            if same and result["adapter"]:
                report({
                    "event": "done", "steps": result["steps"], "best": result["best"],
                    "seconds": result["seconds"],
                })  # fmt: skip
                return True
        return False

    def _refuse_lacking(self) -> None:
        lacking = [each for each in NEEDS if find_spec(each) is None]
        if lacking:
            raise TrainError(f"It needs {', '.join(lacking)}.", MEND)

    # --- the process -----------------------------------------------------------------------------

    def _environment(self, base: str) -> dict[str, str]:
        env = {
            **os.environ,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # else a card's sums differ from run to run
        }
        if net.offline() or Path(base).expanduser().exists():
            env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        elif "KNOWME_HUB" in os.environ:
            env["HF_ENDPOINT"] = os.environ["KNOWME_HUB"]
        return env

    def _run(self, order: list[str], report: Callable[[dict[str, Any]], None], base: str) -> None:
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                # -P: our own peft.py lies beside the script, and is not the library.
                [sys.executable, "-P", script.__file__, *order, "--child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(base),
                start_new_session=True,  # Ctrl-C in the terminal reaches it through us
            )
            assert process.stdout is not None and process.stdin is not None
            try:
                for line in process.stdout:
                    report(json.loads(line))
                code = process.wait()
            except BaseException:
                self._stop(process)
                raise
            finally:
                for stream in (process.stdin, process.stdout):
                    with suppress(OSError):
                        stream.close()
            if code:
                raise _failed(code, log)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the process to save and stop; end it if it does not, or if we are asked again."""
        try:
            with suppress(OSError):
                process.send_signal(signal.SIGINT)
            # Not communicate(): it closes stdin, by which the process knows that we are gone.
            assert process.stdout is not None
            threading.Thread(target=process.stdout.read, daemon=True).start()
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.stop_seconds)
        finally:
            with suppress(OSError):
                process.kill()
            process.wait()


def _failed(code: int, log: IO[bytes]) -> TrainError:
    log.seek(0)
    told = log.read().decode("utf-8", "replace")
    last: deque[str] = deque((line for line in told.splitlines() if line.strip()), maxlen=1)
    said = last[0].strip()[:400] if last else ""
    if code == script.STOPPED:
        return TrainError("The training was stopped; a checkpoint is kept.", "Run it again.")
    if said.startswith("refused: "):
        return TrainError(said.removeprefix("refused: "), "See: knowme learn --help")
    if code < 0:
        name = signal.Signals(-code).name
        return TrainError(
            f"The training's process was ended by {name}{' (no memory?)' if code == -9 else ''}.",
            "Run it again: it goes on from its newest checkpoint. Take a smaller preset if memory "
            "was short.",
        )
    return TrainError(f"The training failed: {said or f'exit status {code}'}", "Run it again.")
