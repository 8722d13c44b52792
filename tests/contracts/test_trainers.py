"""What every trainer keeps to. A trainer is one subclass; all of it trains for real."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_base

from knowme import plugins
from knowme.errors import TrainError
from knowme.types import TrainSpec

pytestmark = [pytest.mark.slow, pytest.mark.model]

EVERY = 5
STEPS = 24
_kept: dict[str, tuple[Path, list[dict]]] = {}


def adapter_bytes(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted((folder / "adapter").iterdir())}


class TrainerContract:
    """Subclass it with ``name``."""

    name: str

    def make(self, **more):
        return plugins.find("trainers", self.name)(every_steps=EVERY, **more)

    @pytest.fixture
    def base(self, models, tmp_path_factory) -> Path:
        return tiny_base.tiny(models, tmp_path_factory)

    def spec(self, folder: Path, base: Path, **over) -> TrainSpec:
        told = {
            "rank": 4, "alpha": 8, "dropout": 0.1, "learning_rate": 5e-3, "epochs": STEPS / 6,
            "accumulate": 1, "max_tokens": 128, "dtype": "float32", "patience": 0, "threads": 1,
        }  # fmt: skip
        spec = TrainSpec(folder, str(base), **{**told, **over})
        why = self.make().missing(spec)
        if why:
            pytest.skip(why)
        return spec

    @pytest.fixture
    def trained(self, base, tmp_path_factory) -> tuple[Path, list[dict]]:
        """Give one training that nobody disturbed: its folder and its events."""
        if self.name not in _kept:
            folder = tiny_base.filled(tmp_path_factory.mktemp(self.name) / "run")
            events: list[dict] = []
            made = self.make().train(self.spec(folder, base), events.append)
            assert made == folder / "adapter"
            _kept[self.name] = folder, events
        return _kept[self.name]

    def test_it_tells_how_it_goes(self, trained):
        _, events = trained
        names = [each["event"] for each in events]
        assert names[:2] == ["start", "mask"] and names[-1] == "done"
        assert names.count("step") == STEPS and names.count("validation") >= 4
        start, mask = events[:2]
        assert {"device", "dtype", "parameters", "trainable", "tokens", "steps"} <= start.keys()
        assert start["steps"] == STEPS and 0 < start["trainable"] < start["parameters"]
        assert 0 < mask["trained"] < mask["tokens"]
        step = next(each for each in events if each["event"] == "step")
        assert {"step", "steps", "loss", "seconds_left", "rss_mb", "vram_mb"} <= step.keys()
        assert step["rss_mb"] > 50
        losses = [each["loss"] for each in events if each["event"] == "validation"]
        assert events[-1]["best"] == pytest.approx(min(losses), abs=1e-5)
        assert min(losses) < losses[0]

    def test_the_loss_that_it_reports_is_that_of_the_answers_alone(self, trained, base):
        _, events = trained
        first = next(each["loss"] for each in events if each["event"] == "step")
        alone = tiny_base.answers(base, tiny_base.ROWS)
        whole = tiny_base.answers(base, tiny_base.ROWS, whole=True)
        # The adapter changes nothing before the first step, so it is the base's loss on one row.
        assert min(abs(first - each) for each in alone) < 2e-4
        assert min(abs(first - each) for each in whole) > 1e-2

    def test_the_adapter_is_that_of_the_best_validation(self, trained, base):
        folder, events = trained
        losses = tiny_base.answers(base, tiny_base.ROWS[:2], folder / "adapter")
        assert sum(losses) / 2 == pytest.approx(events[-1]["best"], rel=1e-3)

    def test_the_same_spec_and_data_give_the_same_bytes_and_another_seed_others(
        self, trained, base, tmp_path
    ):
        folder, _ = trained
        again = tiny_base.filled(tmp_path / "run")
        self.make().train(self.spec(again, base), lambda _: None)
        assert adapter_bytes(again) == adapter_bytes(folder)
        other = tiny_base.filled(tmp_path / "other")
        spec = self.spec(other, base, seed=2, epochs=0.5)
        self.make().train(spec, lambda _: None)
        assert adapter_bytes(other) != adapter_bytes(folder)

    @pytest.mark.kill
    def test_a_training_that_is_killed_goes_on_and_ends_in_the_same_adapter(
        self, trained, base, tmp_path
    ):
        folder = tiny_base.filled(tmp_path / "run")
        spec = self.spec(folder, base)
        pid = 0

        def killing(event: str, at: int):
            def report(told):
                nonlocal pid
                pid = told.get("pid", pid)
                if told["event"] == event and told["step"] >= at:
                    os.kill(pid, signal.SIGKILL)

            return report

        with pytest.raises(TrainError, match="SIGKILL"):  # between two checkpoints
            self.make().train(spec, killing("step", 8))
        assert not (folder / "result.json").exists() and not (folder / "adapter").exists()
        kept = sorted(each.name for each in (folder / "checkpoints").glob("checkpoint-*"))
        assert kept and "checkpoint-5" in kept
        with pytest.raises(TrainError, match="SIGKILL"):  # as a checkpoint is written
            self.make().train(spec, killing("validation", 15))
        # The newest one is cut, as a kill in the middle of writing leaves it.
        newest = max(
            (folder / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])
        )
        weights = newest / "adapter_model.safetensors"
        if weights.exists() and newest.name != "checkpoint-10":
            weights.write_bytes(weights.read_bytes()[:-100])
        self.no_words(folder)
        # A home may be restored elsewhere; the base stays where it is.
        (tmp_path / "elsewhere").mkdir()
        folder = folder.rename(tmp_path / "elsewhere" / "run")
        spec = replace(spec, folder=folder)
        events: list[dict] = []
        self.make().train(spec, events.append)
        resumed = next(each for each in events if each["event"] == "resumed")
        assert 5 <= resumed["step"] <= 20
        steps = [each["step"] for each in events if each["event"] == "step"]
        assert steps == list(range(resumed["step"] + 1, STEPS + 1))
        assert adapter_bytes(folder) == adapter_bytes(trained[0])
        assert not (folder / "checkpoints").exists()

    def test_a_report_that_raises_saves_and_stops_and_the_next_call_goes_on(
        self, trained, base, tmp_path
    ):
        folder = tiny_base.filled(tmp_path / "run")
        spec = self.spec(folder, base)

        def ctrl_c(told):
            if told["event"] == "step" and told["step"] == 3:  # before the first checkpoint
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.make().train(spec, ctrl_c)
        (kept,) = (folder / "checkpoints").glob("checkpoint-*")
        at = int(kept.name.split("-")[1])
        assert 3 <= at < STEPS and (kept / "whole.json").exists()
        assert not (folder / "result.json").exists()
        events: list[dict] = []
        self.make().train(spec, events.append)
        assert [each["step"] for each in events if each["event"] == "resumed"] == [at]
        assert adapter_bytes(folder) == adapter_bytes(trained[0])

    def test_what_is_done_is_not_done_again_and_other_data_are(self, trained, base, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(trained[0], folder)
        before, events = adapter_bytes(folder), []
        spec = self.spec(folder, base)
        self.make().train(spec, events.append)
        assert [each["event"] for each in events] == ["done"]
        tiny_base.filled(tmp_path / "other", rows=tiny_base.ROWS[:3])
        shutil.copy(tmp_path / "other" / "data" / "train.jsonl", folder / "data" / "train.jsonl")
        events.clear()
        self.make().train(replace(spec, epochs=1.0), events.append)
        assert events[0]["event"] == "start" and events[0]["steps"] == 3
        assert adapter_bytes(folder) != before

    def test_no_word_is_left_on_disk(self, trained):
        self.no_words(trained[0])

    def no_words(self, folder: Path) -> None:
        looked = 0
        for each in folder.rglob("*"):
            if each.is_file() and each.parent.name != "data":
                what = each.read_bytes().lower()
                looked += 1
                assert each.suffix not in (".arrow", ".parquet")
                for word in tiny_base.WORDS:
                    for coding in ("utf-8", "utf-16-le"):
                        assert word.lower().encode(coding) not in what, each
        assert looked >= 4
        caches = [each for each in Path(os.environ["HOME"]).rglob("*.arrow")]
        assert not caches

    @pytest.mark.kill
    def test_the_process_does_not_outlive_us(self, base, tmp_path):
        folder = tiny_base.filled(tmp_path / "run")
        spec = self.spec(folder, base)
        code = (
            "import sys, json\nfrom pathlib import Path\nfrom knowme import plugins\n"
            "from knowme.types import TrainSpec\n"
            "def report(told):\n    print(told.get('pid', 0), flush=True)\n"
            f"spec = TrainSpec(Path({str(folder)!r}), {spec.base!r}, rank=4, epochs=2000.0)\n"
            f"plugins.find('trainers', {self.name!r})().train(spec, report)\n"
        )
        root = Path(__file__).resolve().parents[2]
        parent = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root
        )
        try:
            pid = int(parent.stdout.readline())
            assert Path(f"/proc/{pid}").exists()
        finally:
            parent.kill()
            parent.wait()
            parent.stdout.close()
        until = time.monotonic() + 60
        while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < until:
            if b"script.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                break  # ended, or a zombie that nobody has reaped yet
            time.sleep(0.05)
        else:
            assert time.monotonic() < until, "the training outlived its parent"

    def test_what_it_cannot_train_is_named(self, base, tmp_path):
        folder = tiny_base.filled(tmp_path / "run")
        with pytest.raises(TrainError, match="There is no model at /nowhere"):
            self.make().train(replace(self.spec(folder, base), base="/nowhere/x.gguf"), print)
        mute = tmp_path / "mute"
        shutil.copytree(base, mute)
        (mute / "chat_template.jinja").unlink()
        with pytest.raises(TrainError, match="no chat template"):
            self.make().train(self.spec(folder, mute), lambda _: None)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
class TestPeft(TrainerContract):
    name = "peft"

    @pytest.fixture(autouse=True)
    def _on_the_processor(self, monkeypatch):
        # Byte for byte is promised of a processor.
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def test_four_bits_need_a_card(self, base, tmp_path):
        if self.make().cuda():
            pytest.skip("needs a machine without a CUDA card")
        spec = TrainSpec(tmp_path, str(base), four_bit=True)
        why = self.make().missing(spec)
        assert "CUDA card" in why and "knowme learn export-notebook" in why
        with pytest.raises(TrainError, match="CUDA card"):
            self.make().train(spec, print)


class TestUnsloth(TrainerContract):
    name = "unsloth"

    def test_it_says_what_it_lacks(self, tmp_path):
        why = self.make().missing(TrainSpec(tmp_path, "x"))
        if not why:
            pytest.skip("needs a machine without unsloth")
        assert "CUDA" in why or "pip install" in why


def test_trainers_are_found_by_name():
    assert {"peft", "unsloth"} <= set(plugins.names("trainers"))
    assert json.dumps(plugins.names("trainers"))
