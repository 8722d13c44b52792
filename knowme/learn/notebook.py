"""Training elsewhere: a notebook or a folder that carries everything, and the way home.

    export -> NAME.ipynb or NAME.zip -> (a machine with a card) -> result.zip -> take

Promises: only what is trained on leaves, without who said it where; nothing is sent, a file is
written where the person says, never inside the home. What comes home is unpacked by name, one known
file at a time, and becomes the run's adapter only if its hashes are those of the spec and the data
that left, and every tensor is one of a LoRA of that rank.
Refuses to know: how it is trained (the script that it carries). The hashes find a mix-up and
damage; they are no signature.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import stat
import textwrap
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from knowme import adoptions, modelstore, plugins
from knowme.errors import InputError, NotFoundError, TrainError
from knowme.learn import presets, runs
from knowme.learn.runs import Run
from knowme.sensitive import sensitive
from knowme.times import iso, now_ms
from knowme.types import TrainSpec

LEFT = "notebook.json"
"""In the run's folder: the hashes of what left. No words."""
_SIDES = ("train.jsonl", "validation.jsonl")
_INSIDE_BYTES = 8 << 20  # a notebook's data beyond that lies beside it: editors choke on long lines
_MB = 1 << 20
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_MOST = {
    "result.json": _MB,
    "log.jsonl": 64 * _MB,
    "spec.json": _MB,
    "adapter/adapter_config.json": _MB,
    "adapter/adapter_model.safetensors": 4096 * _MB,
}
"""Every file that may be in what comes home, and its largest size in bytes."""
_RATIO = 200  # weights hardly shrink: what unpacks to more is no adapter
_NUMBERS = ("step", "steps", "loss", "best", "seconds", "seconds_left", "rss_mb", "vram_mb",
            "margin", "tokens", "trained", "parameters", "trainable", "examples", "shortened",
            "dropped", "threads")  # fmt: skip
_EVENTS = ("start", "mask", "step", "validation", "stopped", "resumed", "done")


# --- out ------------------------------------------------------------------------------------------


def export(
    run: Run,
    spec: TrainSpec,
    target: Path,
    *,
    form: Literal["notebook", "script"] = "notebook",
    trainer: str = "peft",
) -> list[Path]:
    """Write what trains this run elsewhere; returns the files, the one to open first.

    ``target`` is a folder. ``notebook``: NAME.ipynb (and NAME-data.zip where the data is large);
    ``script``: NAME.zip with script, spec, data and how to run it. Raises InputError, TrainError,
    OSError.
    """
    run.needs("data")
    if run.stale:
        raise InputError(f"Run {run.id} is stale: {run.stale}.", "Run: knowme learn dataset")
    home = run.path.parent.parent.resolve()
    if home == target.resolve() or home in target.resolve().parents:
        raise InputError(
            f"{target} lies inside the home, where no copy of your words may lie about.",
            "Choose a folder beyond it, such as ~/Downloads.",
        )
    made = plugins.find("trainers", trainer)()
    data = {name: _stripped(run.path / "data" / name) for name in _SIDES}
    data = {name: rows for name, rows in data.items() if rows}
    if "train.jsonl" not in data:
        raise InputError(f"Run {run.id} has no example to train on.", "Run: knowme learn dataset")
    away, here = _away(spec)
    told = {**made.told(away), "run": run.id}
    script = made.source()
    left = {
        "spec_sha256": made.sha256_of(told),
        "data": {name: _sha256(rows) for name, rows in data.items()},
        "here": {name: adoptions.file_sha256(run.path / "data" / name) for name in data},
        "script_sha256": _sha256(script.encode()),
        "spec": told,
        "base_path": here,
        "at": iso(now_ms()),
    }
    target.mkdir(parents=True, exist_ok=True)
    if form == "script":
        files = _as_folder(run, target, told, data, script, trainer)
    else:
        files = _as_notebook(run, target, told, data, script, trainer)
    runs.put(run.path / LEFT, left)
    return files


def _away(spec: TrainSpec) -> tuple[TrainSpec, str]:
    """Return the spec as another machine can follow it, and where its base lies on this one."""
    here = Path(spec.base).expanduser()
    if not here.exists():
        return replace(spec, threads=0), ""
    hubs = {preset.shape: preset.hub for preset in presets.PRESETS.values()}
    packaged = modelstore.models_dir() / here.name
    hub = presets.PRESETS["tiny"].hub if here == packaged and "smollm2" in here.name else ""
    hub = hub or hubs.get(presets.shape_of(spec.base), "")
    if not hub:
        raise TrainError(
            f"{spec.base} lies on this machine, and a notebook fetches its base from a hub.",
            "Name the hub's one: knowme config set learn.base OWNER/NAME",
        )
    return replace(spec, base=hub, threads=0), str(here.absolute())


def _stripped(path: Path) -> bytes:
    """Return the rows of a side with nothing but the texts; what is sensitive stays at home."""
    rows = []
    try:
        for line in path.read_text("utf-8").split("\n"):  # splitlines() cuts at U+2028, too
            if not line.strip():
                continue
            told = json.loads(line)
            kept = {name: told[name] for name in ("messages", "rejected") if told.get(name)}
            texts = [*(each["content"] for each in told["messages"]), told.get("rejected", "")]
            if any(sensitive(text) for text in texts):
                continue
            rows.append(json.dumps(kept, ensure_ascii=False) + "\n")
    except FileNotFoundError:
        return b""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told_error = f"{path} is no data set: {error}"
        raise InputError(told_error, "Run: knowme learn dataset") from error
    return "".join(rows).encode("utf-8", "replace")


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files; the same files give the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _contents(told: Mapping[str, Any], data: Mapping[str, bytes]) -> dict[str, bytes]:
    spec = json.dumps(told, indent=1, sort_keys=True).encode() + b"\n"
    return {"spec.json": spec, **{f"data/{name}": rows for name, rows in data.items()}}


def _as_folder(
    run: Run,
    target: Path,
    told: Mapping[str, Any],
    data: Mapping[str, bytes],
    script: str,
    trainer: str,
) -> list[Path]:
    files = {f"{run.id}/{name}": what for name, what in _contents(told, data).items()}
    files["script.py"] = script.encode()
    files["finish.py"] = _FINISH.format(run=run.id).encode()
    files["README.txt"] = textwrap.dedent(f"""\
        Trains the adapter of {run.id}. Your words are in {run.id}/data: keep this to yourself.

          {" && ".join(_pip(told, trainer))}
          python script.py {run.id}      # again after a stop: it goes on
          python finish.py               # writes {run.id}-result.zip

        Then, at home: knowme learn import-run {run.id}-result.zip
        """).encode()
    file = target / f"{run.id}.zip"
    _write(file, _packed(files))
    return [file]


def _as_notebook(
    run: Run,
    target: Path,
    told: Mapping[str, Any],
    data: Mapping[str, bytes],
    script: str,
    trainer: str,
) -> list[Path]:
    packed = _packed(_contents(told, data))
    beside = target / f"{run.id}-data.zip"
    inside = len(packed) <= _INSIDE_BYTES
    if inside:
        lines = textwrap.wrap(base64.b64encode(packed).decode(), 120)
        source = "base64.b64decode('''\n" + "\n".join(lines) + "\n''')"
    else:
        source = f"open({beside.name!r}, 'rb').read()  # upload it beside this notebook first"
    cells = [
        _text(
            f"# The adapter of {run.id}\n\nOn Colab: Runtime, Change runtime type, T4 GPU; then "
            "Run all. Your words are in this file: keep it to yourself, and delete it afterwards.\n"
            f"\nThen, at home: `knowme learn import-run {run.id}-result.zip`"
        ),
        _code("\n".join(f"%{line}" for line in _pip(told, trainer))),
        _code(
            "# The spec and the data; what is here already (a training that stopped) stays.\n"
            "import base64, io, zipfile\n"
            f"packed = {source}\n"
            f"zipfile.ZipFile(io.BytesIO(packed)).extractall({run.id!r})"
        ),
        _code(f"%%writefile script.py\n{script}"),
        _code(f"!python script.py {run.id}"),
        _code(_FINISH.format(run=run.id)),
        _code(
            "try:\n    from google.colab import files\n"
            f"    files.download({run.id + '-result.zip'!r})\n"
            "except ImportError:\n    pass  # it lies beside this notebook"
        ),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    book = {
        "cells": cells,
        "metadata": {
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    file = target / f"{run.id}.ipynb"
    _write(file, json.dumps(book, ensure_ascii=False, indent=1).encode() + b"\n")
    if inside:
        return [file]
    _write(beside, packed)
    return [file, beside]


_FINISH = """\
import os, zipfile
run = {run!r}
if not os.path.exists(run + "/result.json"):
    raise SystemExit("There is no result yet: run the training again, it goes on.")
with zipfile.ZipFile(run + "-result.zip", "w", zipfile.ZIP_DEFLATED) as packed:
    for name in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "log.jsonl",
                 "spec.json", "result.json"):
        packed.write(run + "/" + name, name)
print(run + "-result.zip")
"""


def _pip(told: Mapping[str, Any], trainer: str) -> list[str]:
    lines = ['pip install -q "transformers>=5.0" "peft>=0.17" "trl>=1.0" datasets accelerate']
    if told.get("four_bit"):
        lines.append("pip install -q bitsandbytes")
    if trainer == "unsloth":
        lines.append("pip install -q --no-deps unsloth unsloth_zoo")
    return lines


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


def _write(path: Path, what: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch(mode=0o600)
        partial.write_bytes(what)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# --- home -----------------------------------------------------------------------------------------


def take(home: Path, archive: Path) -> Run:
    """Make a finished training from elsewhere the adapter of its run, and return the run.

    Raises InputError for an archive that is none or holds what it should not, NotFoundError for a
    run that is not here, TrainError where it is not what left: the file is named. Nothing of the
    run is changed then.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = _entries(packed, archive)
            result = _document(packed, entries["result.json"], archive)
            run = _run_of(home, result, archive)
            left = _left(run, archive)
            _compare(run, left, result)
            partial = run.path / ".adapter.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            try:
                for name in _ADAPTER:
                    _copy(packed, entries[f"adapter/{name}"], partial / name, archive)
                _check_adapter(partial, result, left["spec"], archive)
                log = _numbers(packed, entries.get("log.jsonl"))
                _settle(run, left, result, log, partial)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {archive}.", "Name the result.zip.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive} is no whole zip: {error}", _AGAIN) from error
    run.done("train", **outcome(run))
    return run


_AGAIN = "Fetch it again, or run the last cells of the notebook again."


def _entries(packed: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's files by name. Raises InputError for any that should not be there."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        name = entry.filename
        if name == "adapter/":
            continue
        mode = entry.external_attr >> 16
        if name not in _MOST:
            why = "should not be in it"
        elif name in found:
            why = "is in it twice"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            why = "is no plain file"
        elif entry.flag_bits & 1:
            why = "is encrypted"
        elif entry.file_size > _MOST[name]:
            why = f"has {entry.file_size >> 20:,} MB, and {_MOST[name] >> 20:,} are allowed"
        elif entry.file_size > _MB and entry.file_size > _RATIO * entry.compress_size:
            why = f"would unpack to {entry.file_size >> 20:,} MB of nearly nothing"
        else:
            found[name] = entry
            continue
        raise InputError(f"{archive}: {name[:80]!r} {why}.", "It was not made by the notebook.")
    lacking = {"result.json", *(f"adapter/{name}" for name in _ADAPTER)} - found.keys()
    if lacking:
        raise InputError(f"{archive} lacks {', '.join(sorted(lacking))}.", _AGAIN)
    return found


def _document(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, archive: Path) -> dict[str, Any]:
    try:
        told = json.loads(packed.read(entry))
        if isinstance(told, dict):
            return told
    except (ValueError, RecursionError):
        pass
    raise InputError(f"{archive}: {entry.filename} is no JSON document.", _AGAIN)


def _run_of(home: Path, result: Mapping[str, Any], archive: Path) -> Run:
    name = result.get("run")
    if not isinstance(name, str) or not name:
        raise InputError(f"{archive} does not say which run it is of.", _AGAIN)
    try:
        run = runs.find(home, name)
    except NotFoundError as error:
        raise NotFoundError(
            f"{archive} is of the run {name[:80]!r}, which is not here.",
            "Import it into the home that it was exported from.",
        ) from error
    if run.stale:
        raise TrainError(
            f"Run {run.id} is stale: {run.stale}.", "Make it anew: knowme learn dataset"
        )
    return run


def _left(run: Run, archive: Path) -> dict[str, Any]:
    try:
        told = json.loads((run.path / LEFT).read_text("utf-8"))
        if isinstance(told["spec"], dict) and isinstance(told["data"], dict):
            return dict(told)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TrainError(
        f"Run {run.id} was never exported, so {archive} cannot be its result.",
        "Run: knowme learn export-notebook",
    )


def _compare(run: Run, left: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Raise TrainError where the result was not made of what left, or that has changed since."""
    if result.get("spec_sha256") != left["spec_sha256"]:
        raise TrainError(
            f"The result was trained by another spec.json than that of {run.id}.",
            "Run the notebook that was exported last, or export it again.",
        )
    told = result.get("data")
    for name, wanted in left["data"].items():
        if not isinstance(told, dict) or told.get(name) != wanted:
            raise TrainError(
                f"The result was trained on another data/{name} than that of {run.id}.",
                "Run the notebook that was exported last, or export it again.",
            )
        if adoptions.file_sha256(run.path / "data" / name) != left["here"][name]:
            raise TrainError(
                f"data/{name} of {run.id} has changed since it was exported.",
                "Export it again: knowme learn export-notebook",
            )


def _copy(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, archive: Path) -> None:
    left = entry.file_size
    free = shutil.disk_usage(target.parent).free
    if left > free:
        raise TrainError(
            f"{entry.filename} has {left >> 20:,} MB, and {free >> 20:,} MB are free.",
            "Free some space and run it again.",
        )
    with packed.open(entry) as source, open(target, "xb") as file:
        while part := source.read(_MB):
            left -= len(part)
            if left < 0:
                raise InputError(f"{archive}: {entry.filename} is longer than it says.", _AGAIN)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _check_adapter(
    folder: Path, result: Mapping[str, Any], spec: Mapping[str, Any], archive: Path
) -> None:
    """Raise TrainError, with the file's name, where an adapter is not what the result says."""
    told = result.get("adapter")
    for name in _ADAPTER:
        if not isinstance(told, dict) or told.get(name) != adoptions.file_sha256(folder / name):
            raise TrainError(
                f"{archive}: adapter/{name} is not the file that the training wrote: its hash "
                "differs.",
                _AGAIN,
            )
    try:
        config = json.loads((folder / _ADAPTER[0]).read_text("utf-8"))
        same = config["peft_type"] == "LORA" and config["r"] == spec["rank"]
        same = same and config["lora_alpha"] == spec["alpha"] and not config.get("auto_mapping")
    except (ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{archive}: adapter/{_ADAPTER[0]} is none: {error!r}.", _AGAIN) from error
    if not same:
        raise TrainError(
            f"{archive}: adapter/{_ADAPTER[0]} is no LoRA of rank {spec['rank']}.", _AGAIN
        )
    try:
        _check_tensors(folder / _ADAPTER[1], int(spec["rank"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainError(f"{archive}: adapter/{_ADAPTER[1]}: {error}", _AGAIN) from error


def _check_tensors(file: Path, rank: int) -> None:
    """Raise ValueError where a safetensors file holds anything but a LoRA of this rank."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, 16 * _MB):
            raise ValueError("it is no safetensors file")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    if not header:
        raise ValueError("it holds no tensor")
    end = 0
    for name, tensor in sorted(header.items(), key=lambda each: each[1]["data_offsets"]):
        begin, stop = tensor["data_offsets"]
        width = {"F32": 4, "F16": 2, "BF16": 2}.get(tensor["dtype"], 0)
        one, other = tensor["shape"]
        lora = ".lora_A." in name or ".lora_B." in name
        if not (lora and width and rank == (one if ".lora_A." in name else other)):
            raise ValueError(f"the tensor {name[:80]!r} is none of a LoRA of rank {rank}")
        if begin != end or stop - begin != one * other * width:
            raise ValueError(f"the tensor {name[:80]!r} is not where it says")
        end = stop
    if end != size - 8 - length:
        raise ValueError("its size is not that of its tensors")


def _numbers(packed: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> list[dict[str, Any]]:
    """Return the events of a log with nothing but numbers in them."""
    found = []
    if entry is not None:
        for line in packed.read(entry).splitlines():
            try:
                told = json.loads(line)
                if told["event"] in _EVENTS:
                    kept = {
                        name: told[name]
                        for name in _NUMBERS
                        if isinstance(told.get(name), int | float | bool)
                    }
                    found.append({"event": told["event"], **kept})
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    return found


def _settle(
    run: Run,
    left: Mapping[str, Any],
    result: Mapping[str, Any],
    log: list[dict[str, Any]],
    partial: Path,
) -> None:
    spec = dict(left["spec"])
    if left.get("base_path"):
        spec["base_path"] = left["base_path"]
    kept: dict[str, Any] = {
        "spec_sha256": left["spec_sha256"],
        "data": left["data"],
        "adapter": {name: adoptions.file_sha256(partial / name) for name in _ADAPTER},
        "run": run.id,
        "base": spec["base"],
        "trainer": spec["trainer"],
        "imported": True,
    }
    for name in ("steps", "best", "seconds", "tokens", "examples"):
        value = result.get(name)
        kept[name] = value if isinstance(value, int | float) else None
    for name in ("device", "dtype"):
        known = ("cpu", "cuda", "float32", "bfloat16", "float16")
        kept[name] = result.get(name) if result.get(name) in known else ""
    (run.path / "result.json").unlink(missing_ok=True)
    adapter = run.path / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    partial.rename(adapter)
    runs.put(run.path / "spec.json", spec)
    with open(run.path / "log.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in log)
    runs.put(run.path / "result.json", kept)


def outcome(run: Run) -> dict[str, Any]:
    """Return what the stage `train` says of a run, from its result.json, its files looked at.

    base, trainer, device, dtype, steps, best (validation loss, nats a token), seconds, tokens,
    examples, imported, sha256 (of adapter_model.safetensors). Raises TrainError.
    """
    try:
        told = json.loads((run.path / "result.json").read_text("utf-8"))
        wanted = dict(told["adapter"])
        names = ("base", "trainer", "device", "dtype", "steps", "best", "seconds", "tokens")
        found = {name: told.get(name) for name in (*names, "examples")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f"Run {run.id} has no result.", "Run: knowme learn train") from error
    for name in _ADAPTER:
        if (
            not wanted.get(name)
            or adoptions.file_sha256(run.path / "adapter" / name) != wanted[name]
        ):
            raise TrainError(
                f"adapter/{name} of {run.id} is not what the training wrote.",
                "Train it again: knowme learn train",
            )
    return {**found, "imported": bool(told.get("imported")), "sha256": wanted[_ADAPTER[1]]}


def _sha256(what: bytes) -> str:
    return hashlib.sha256(what).hexdigest()
