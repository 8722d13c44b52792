"""Training elsewhere: what leaves, what it does there, what may come home."""

import hashlib
import io
import json
import re
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny_base

from knowme import plugins
from knowme.errors import InputError, KnowmeError, NotFoundError, TrainError
from knowme.learn import notebook, presets, runs
from knowme.types import TrainSpec

HUB = presets.PRESETS["tiny"].hub


@pytest.fixture
def run(tmp_path):
    """Give a run with data, in a home."""
    made = runs.create(tmp_path / "home", "assistant-for-me")
    data = made.path / "data"
    data.mkdir()
    for name, rows in (("train", tiny_base.ROWS), ("validation", tiny_base.ROWS[:2])):
        told = [
            {"uid": f"u{at}", "because": [at], "place": "telegram/anna", "kind": "exchange",
             "messages": tiny_base.messages(row)}
            for at, row in enumerate(rows)
        ]  # fmt: skip
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    (data / "test.jsonl").write_text('{"messages": "SECRETTEST"}\n')
    made.done("data", pairs=6)
    return made


def spec_of(run, **over):
    told = {"rank": 4, "alpha": 8, "learning_rate": 5e-3, "epochs": 1.0, "accumulate": 1,
            "max_tokens": 128, "dtype": "float32"}  # fmt: skip
    return TrainSpec(run.path, HUB, **{**told, **over})


def cells(book: Path) -> list[str]:
    told = json.loads(book.read_text("utf-8"))
    return ["".join(each["source"]) for each in told["cells"] if each["cell_type"] == "code"]


class TestExport:
    def test_a_notebook_is_one_by_its_format(self, run, tmp_path):
        (book,) = notebook.export(run, spec_of(run), tmp_path / "out")
        told = json.loads(book.read_text("utf-8"))
        assert (told["nbformat"], told["nbformat_minor"]) == (4, 5)
        assert told["metadata"]["kernelspec"]["name"] == "python3"
        ids = [each["id"] for each in told["cells"]]
        assert len(set(ids)) == len(ids) and all(
            re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", i) for i in ids
        )
        for each in told["cells"]:
            keys = {"cell_type", "id", "metadata", "source"}
            if each["cell_type"] == "code":
                keys |= {"outputs", "execution_count"}
            assert each.keys() == keys and all(isinstance(line, str) for line in each["source"])
        assert stat.S_IMODE(book.stat().st_mode) == 0o600

    def test_it_carries_the_script_word_for_word_and_what_to_install(self, run, tmp_path):
        (book,) = notebook.export(
            run, spec_of(run, four_bit=True), tmp_path / "out", trainer="unsloth"
        )
        found = cells(book)
        source = plugins.find("trainers", "peft").source()
        assert any(each == f"%%writefile script.py\n{source}" for each in found)
        assert "trl" in found[0] and "bitsandbytes" in found[0] and "unsloth" in found[0]
        assert f"!python script.py {run.id}" in found

    def test_only_what_is_trained_on_leaves(self, run, tmp_path):
        (book,) = notebook.export(run, spec_of(run), tmp_path / "out", form="script")
        with zipfile.ZipFile(book) as packed:
            names = set(packed.namelist())
            whole = b"".join(packed.read(name) for name in names)
            rows = packed.read(f"{run.id}/data/train.jsonl").decode().splitlines()
        assert {f"{run.id}/data/train.jsonl", f"{run.id}/spec.json", "script.py"} <= names
        assert all(json.loads(row).keys() == {"messages"} for row in rows)
        assert b"telegram" not in whole and b"SECRETTEST" not in whole
        assert str(run.path).encode() not in whole
        left = (run.path / notebook.LEFT).read_text()
        assert not any(word in left for word in tiny_base.WORDS)

    def test_large_data_lie_beside_the_notebook(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(notebook, "_INSIDE_BYTES", 100)
        book, beside = notebook.export(run, spec_of(run), tmp_path / "out")
        assert any(beside.name in each for each in cells(book))
        with zipfile.ZipFile(beside) as packed:
            assert "data/train.jsonl" in packed.namelist()

    def test_no_copy_of_the_words_is_written_into_the_home(self, run, tmp_path):
        for target in (tmp_path / "home", run.path, run.path / "x"):
            with pytest.raises(InputError, match="inside the home"):
                notebook.export(run, spec_of(run), target)

    def test_a_base_on_this_machine_is_refused_unless_a_hub_has_it(self, run, tmp_path, models):
        mine = tmp_path / "mine"
        mine.mkdir()
        (mine / "config.json").write_text(
            json.dumps({"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8,
                        "vocab_size": 9, "num_attention_heads": 1})
        )  # fmt: skip
        with pytest.raises(TrainError, match="fetches its base from a hub"):
            notebook.export(run, spec_of(run, epochs=1.0).__class__(run.path, str(mine)), tmp_path)
        packaged = TrainSpec(run.path, str(models["chat"]), rank=4)
        notebook.export(run, packaged, tmp_path / "out", form="script")
        left = json.loads((run.path / notebook.LEFT).read_text())
        assert left["spec"]["base"] == HUB and left["base_path"] == str(models["chat"])

    def test_a_run_without_data_or_a_stale_one_is_refused(self, run, tmp_path):
        empty = runs.create(tmp_path / "home", "sound-like-me")
        with pytest.raises(InputError, match="has no data yet"):
            notebook.export(empty, spec_of(empty), tmp_path / "out")
        (run.path / runs.STALE).write_text('{"why": "12 rows were forgotten"}')
        with pytest.raises(InputError, match="12 rows were forgotten"):
            notebook.export(run, spec_of(run), tmp_path / "out")


# --- home -----------------------------------------------------------------------------------------


def tensors(rank=4, name="base_model.model.layers.0.q_proj.lora_{}.weight", dtype="F32") -> bytes:
    """Return a safetensors file with one LoRA pair, 8 wide."""
    header, at = {}, 0
    for letter, shape in (("A", [rank, 8]), ("B", [8, rank])):
        size = rank * 8 * 4
        header[name.format(letter)] = {
            "dtype": dtype, "shape": shape, "data_offsets": [at, at + size]
        }  # fmt: skip
        at += size
    told = json.dumps(header).encode()
    return (
        struct.pack("<Q", len(told))
        + told
        + bytes(range(256))[: at % 256]
        + b"\1" * (at - at % 256)
    )


WEIGHTS = "adapter/adapter_model.safetensors"
LARGER = b'{"peft_type": "LORA", "r": 64, "lora_alpha": 8}'
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def finished(run, /, **over) -> dict[str, bytes]:
    """Return the files of a result that fits what left."""
    left = json.loads((run.path / notebook.LEFT).read_text())
    files = {
        "adapter/adapter_config.json": json.dumps(CONFIG).encode(),
        "adapter/adapter_model.safetensors": tensors(),
        "log.jsonl": b'{"event": "step", "loss": 2.5, "words": "LEAK"}\n{"event": "hack"}\n',
    } | over.pop("files", {})
    adapter = {
        name.split("/")[1]: hashlib.sha256(what).hexdigest()
        for name, what in files.items()
        if name.startswith("adapter/")
    }
    result = {
        "run": run.id, "spec_sha256": left["spec_sha256"], "data": left["data"],
        "adapter": adapter, "steps": 6, "best": 1.5, "seconds": 9.0, "device": "cuda",
        "dtype": "float16", "tokens": 100, "examples": 6, "trainer": "LEAK", **over,
    }  # fmt: skip
    return {**files, "result.json": json.dumps(result).encode()}


def zipped(path: Path, files, extra=()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, what in files.items():
            packed.writestr(name, what)
        for entry, what in extra:
            packed.writestr(entry, what)
    return path


@pytest.fixture
def left(run, tmp_path):
    notebook.export(run, spec_of(run), tmp_path / "out", form="script")
    return run


def nothing_changed(run) -> None:
    assert run.stage("train") is None and not (run.path / "adapter").exists()
    assert not (run.path / "result.json").exists()
    assert not (run.path / ".adapter.partial").exists()


def test_a_finished_training_becomes_the_adapter_of_its_run(left, tmp_path):
    archive = zipped(tmp_path / "result.zip", finished(left))
    taken = notebook.take(tmp_path / "home", archive)
    assert taken == left
    told = left.needs("train")
    assert told["imported"] and told["steps"] == 6 and told["device"] == "cuda"
    weights = (left.path / "adapter" / "adapter_model.safetensors").read_bytes()
    assert told["sha256"] == hashlib.sha256(weights).hexdigest()
    assert json.loads((left.path / "spec.json").read_text())["base"] == HUB
    kept = "".join(
        each.read_text("utf-8", "replace") for each in left.path.iterdir() if each.is_file()
    )
    assert "LEAK" not in kept and '"loss": 2.5' in kept
    assert notebook.outcome(left)["sha256"] == told["sha256"]
    (left.path / "adapter" / "adapter_model.safetensors").write_bytes(weights[:-1] + b"\2")
    with pytest.raises(TrainError, match="adapter_model.safetensors of .* is not what"):
        notebook.outcome(left)


def other_weights(files):
    return {**files, "adapter/adapter_model.safetensors": tensors()[:-1] + b"\7"}


def other_config(files):
    config = json.dumps({**CONFIG, "lora_alpha": 9}).encode()
    return {**files, "adapter/adapter_config.json": config}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_weights, "adapter/adapter_model.safetensors is not the file"),
        (other_config, "adapter/adapter_config.json is not the file"),
    ],
)
def test_a_file_that_was_changed_on_its_way_is_named(left, tmp_path, change, named):
    archive = zipped(tmp_path / "result.zip", change(finished(left)))
    with pytest.raises(TrainError, match=named):
        notebook.take(tmp_path / "home", archive)
    nothing_changed(left)


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"spec_sha256": "0" * 64}, "another spec.json"),
        ({"data": {}}, "another data/train.jsonl"),
        ({"data": None}, "another data/train.jsonl"),
        ({"adapter": None}, "adapter/adapter_config.json is not"),
        ({"files": {WEIGHTS: tensors(rank=8)}}, "none of a LoRA of rank 4"),
        ({"files": {WEIGHTS: tensors(name="lm_head.{}")}}, "none of a LoRA"),
        ({"files": {WEIGHTS: tensors()[:-4]}}, "its size is not"),
        ({"files": {WEIGHTS: b"\x80\x02pickle"}}, "no safetensors file"),
        ({"files": {WEIGHTS: tensors(dtype="I64")}}, "none of a LoRA"),
        ({"files": {"adapter/adapter_config.json": LARGER}}, "no LoRA of rank 4"),
        ({"files": {"adapter/adapter_config.json": b"[1"}}, "adapter_config.json is none"),
    ],
)  # fmt: skip
def test_a_result_of_something_else_is_refused_by_name(left, tmp_path, over, named):
    archive = zipped(tmp_path / "result.zip", finished(left, **over))
    with pytest.raises(TrainError, match=named):
        notebook.take(tmp_path / "home", archive)
    nothing_changed(left)


def test_a_result_of_another_validation_set_is_refused(left, tmp_path):
    told = json.loads((left.path / notebook.LEFT).read_text())["data"]
    archive = zipped(
        tmp_path / "r.zip", finished(left, data={**told, "validation.jsonl": "0" * 64})
    )
    with pytest.raises(TrainError, match="another data/validation.jsonl"):
        notebook.take(tmp_path / "home", archive)


def test_what_was_forgotten_meanwhile_does_not_come_back(left, tmp_path):
    archive = zipped(tmp_path / "result.zip", finished(left))
    file = left.path / "data" / "train.jsonl"
    kept = file.read_text()
    file.write_text("".join(kept.splitlines(keepends=True)[1:]))
    with pytest.raises(TrainError, match="has changed since it was exported"):
        notebook.take(tmp_path / "home", archive)
    file.write_text(kept)
    (left.path / runs.STALE).write_text('{"why": "1 row was forgotten"}')
    with pytest.raises(TrainError, match="1 row was forgotten"):
        notebook.take(tmp_path / "home", archive)
    nothing_changed(left)


def test_a_run_that_is_not_here_or_never_left_is_named(left, tmp_path):
    archive = zipped(tmp_path / "a.zip", finished(left, run="2020-01-01-voice"))
    with pytest.raises(NotFoundError, match="2020-01-01-voice"):
        notebook.take(tmp_path / "home", archive)
    for odd in ("../../etc", "", 5, None):
        archive = zipped(tmp_path / "b.zip", finished(left, run=odd))
        with pytest.raises((NotFoundError, InputError)):
            notebook.take(tmp_path / "home", archive)
    archive = zipped(tmp_path / "c.zip", finished(left))
    (left.path / notebook.LEFT).unlink()
    with pytest.raises(TrainError, match="never exported"):
        notebook.take(tmp_path / "home", archive)


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (("../../evil.py", b"x"), "should not be in it"),
        (("/etc/passwd", b"x"), "should not be in it"),
        (("C:\\evil.exe", b"x"), "should not be in it"),
        (("adapter/adapter_model.bin", b"pickle"), "should not be in it"),
        (("adapter/../result.json", b"x"), "should not be in it"),
        ((link("spec.json"), b"/etc/passwd"), "no plain file"),
        (("spec.json", b" " * (2 << 20)), "1 are allowed"),
        (("result.json", b"{}"), "is in it twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_archive_is_refused_and_nothing_is_written(left, tmp_path, extra, why):
    archive = zipped(tmp_path / "evil.zip", finished(left), [extra])
    before = sorted(str(each) for each in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=why):
        notebook.take(tmp_path / "home", archive)
    assert sorted(str(each) for each in tmp_path.rglob("*")) == before
    nothing_changed(left)


def test_a_bomb_is_refused_by_what_it_would_unpack_to(left, tmp_path):
    files = finished(left, files={"adapter/adapter_model.safetensors": bytes(64 << 20)})
    archive = zipped(tmp_path / "bomb.zip", files)
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="would unpack to 64 MB of nearly nothing"):
        notebook.take(tmp_path / "home", archive)
    nothing_changed(left)


def test_a_file_that_is_longer_than_it_says_is_refused(left, tmp_path):
    archive = zipped(tmp_path / "r.zip", finished(left))
    data = bytearray(archive.read_bytes())
    name = b"adapter/adapter_model.safetensors"
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
    data[at + 24 : at + 28] = struct.pack("<I", 40)  # its size, in the directory
    archive.write_bytes(data)
    with pytest.raises(KnowmeError):
        notebook.take(tmp_path / "home", archive)
    nothing_changed(left)


@pytest.mark.parametrize("what", [b"", b"no zip at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_said_to_be_none(left, tmp_path, what):
    archive = tmp_path / "r.zip"
    archive.write_bytes(what)
    with pytest.raises(InputError, match="r.zip"):
        notebook.take(tmp_path / "home", archive)
    with pytest.raises(InputError, match="There is no file"):
        notebook.take(tmp_path / "home", tmp_path / "absent.zip")
    whole = zipped(tmp_path / "w.zip", finished(left)).read_bytes()
    for cut in (len(whole) // 2, len(whole) - 30):
        archive.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            notebook.take(tmp_path / "home", archive)
    nothing_changed(left)


@pytest.mark.slow
@pytest.mark.model
def test_the_notebook_trains_and_its_result_comes_home(run, tmp_path, models, tmp_path_factory):
    base = tiny_base.tiny(models, tmp_path_factory)
    (book,) = notebook.export(run, spec_of(run), tmp_path / "out")
    away = tmp_path / "away"
    away.mkdir()
    pip, unpack, write, train, finish, fetch = cells(book)
    assert pip.startswith("%pip install")
    first, _, source = write.partition("\n")
    assert first == "%%writefile script.py"
    (away / "script.py").write_text(source, "utf-8")

    def python(*args):
        done = subprocess.run(
            [sys.executable, *args], cwd=away, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    python("-c", unpack)
    # No hub is reached from a test: the base is said to lie here, which changes no hash.
    file = away / run.id / "spec.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_folder": str(base)}))
    order = train.removeprefix("!python ").split()
    events = [json.loads(line) for line in python(*order).splitlines()]
    assert events[-1]["event"] == "done"
    python("-c", finish)
    python("-c", fetch)
    archive = away / f"{run.id}-result.zip"
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as packed:
        assert "result.json" in packed.namelist()
    taken = notebook.take(tmp_path / "home", archive)
    told = taken.needs("train")
    assert told["steps"] == 6 and told["best"] == pytest.approx(events[-1]["best"])
    # The same adapter as here, by the trainer of this machine.
    here = tiny_base.filled(tmp_path / run.id)
    spec = TrainSpec(here, str(base), **{**_numbers(spec_of(run)), "threads": 1})
    plugins.find("trainers", "peft")(device="cpu").train(spec, lambda _: None)
    mine = tiny_base.answers(base, tiny_base.ROWS, here / "adapter")
    theirs = tiny_base.answers(base, tiny_base.ROWS, taken.path / "adapter")
    assert theirs == pytest.approx(mine, rel=0.05)


def _numbers(spec):
    names = ("rank", "alpha", "learning_rate", "epochs", "accumulate", "max_tokens", "dtype")
    return {name: getattr(spec, name) for name in names}
