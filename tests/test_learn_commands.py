"""`knowme learn` and `knowme personality`, as a person meets them; nothing is trained here."""

import io
import json

import pytest

from knowme.cli import run
from knowme.commands import learn
from knowme.learn import dataset, pairs, runs
from knowme.types import ChatMessage

CONFIG = "embedder: {kind: hashing}\nengine: {kind: echo}\n"
ASSISTANT = "assistant-for-me"


@pytest.fixture
def knowme(capsys, monkeypatch, tmp_path):
    """Run a command line in this process, in an empty home."""
    monkeypatch.setenv("KNOWME_HOME", str(tmp_path / "home"))

    def call(*args, typed=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    assert call("init", "--no-detect")[0] == 0
    (tmp_path / "home" / "config.yaml").write_text(CONFIG, "utf-8")
    return call


@pytest.fixture
def made(knowme, tmp_path):
    """A home with one data set of ten examples, and the run."""
    found = runs.create(tmp_path / "home", ASSISTANT)
    told = [
        pairs.made(
            ASSISTANT, "manual",
            (ChatMessage("user", f"What is {n}?"), ChatMessage("assistant", f"It is a {n}.")),
            [], f"manual/{n}",
        )
        for n in range(10)
    ]  # fmt: skip
    found.done("data", **dataset.write(found, {"train": told}))
    return knowme, found


def test_with_json_a_review_leaves_stdout_to_the_document(made) -> None:
    knowme, found = made
    code, out, err = knowme("learn", "review", "--json", "--share", "0.5", typed="k\nd\n")
    assert code == 0, err
    told = json.loads(out)
    assert (told["run"], told["keep"], told["drop"]) == (found.id, 1, 1)
    assert "What is" in err and "keep, drop" in err


def test_what_was_looked_at_before_is_not_nothing(made) -> None:
    knowme, _ = made
    assert knowme("learn", "review", "--share", "0.2", typed="k\n" * 10)[0] == 0
    assert "--share 1" in knowme("learn", "review", "--share", "0.2")[2]


def test_dpo_without_disliked_answers_is_refused_before_a_model_is_loaded(made) -> None:
    knowme, found = made
    code, _, err = knowme("learn", "train", "--method", "dpo")
    assert code == 1 and "no answers that you disliked" in err and "knowme rate" in err
    assert not (found.path / "spec.json").exists()


def test_an_estimate_says_what_would_be_refused_here(made, monkeypatch) -> None:
    knowme, _ = made
    monkeypatch.setattr("knowme.learn.presets.free_vram_mb", lambda: None)
    code, out, _ = knowme("learn", "train", "--estimate", "--preset", "qwen3-4b")
    assert code == 0 and "It would be refused here:" in out


def test_a_folder_that_is_there_is_refused_before_a_run_is_made(knowme, tmp_path) -> None:
    code, _, err = knowme("learn", "dataset", "--out", tmp_path)
    assert code == 1 and "is there already" in err
    assert runs.listed(tmp_path / "home") == []


def test_an_empty_home_has_no_card_of_noughts(knowme) -> None:
    code, out, _ = knowme("learn", "dataset", "--stats-only")
    assert code == 0 and "knowme learn collect" in out and "0 words" not in out


def test_nothing_extracted_is_nothing_to_take_back(made) -> None:
    knowme, _ = made
    code, out, _ = knowme("personality", "undo")
    assert code == 0 and "nothing to take back" in out


def test_the_next_step_of_a_personality_is_a_command(made) -> None:
    knowme, found = made
    assert f"knowme personality train {found.id}" in knowme("personality")[1]
    runs.put(found.path / runs.STALE, {"why": "rows were forgotten"})
    assert "next: knowme personality run" in knowme("personality")[1]


def test_a_notebook_needs_a_folder_and_not_a_file(made, tmp_path) -> None:
    knowme, _ = made
    (tmp_path / "file").touch()
    code, _, err = knowme("learn", "export-notebook", tmp_path / "file", "--yes")
    assert code == 2 and "is a file" in err


def test_a_stale_run_is_not_trained_and_not_offered(made) -> None:
    knowme, found = made
    runs.put(found.path / runs.STALE, {"why": "rows were forgotten"})
    code, _, err = knowme("personality", "train")
    assert code == 1 and "is stale" in err and "knowme personality run" in err
    assert "may be adopted" not in knowme("learn")[1]


@pytest.mark.parametrize("chapter", ["learn", "personality"])
def test_without_the_packages_no_data_set_is_made_in_vain(chapter, knowme, monkeypatch) -> None:
    monkeypatch.setattr("knowme.learn.pipeline.find_spec", lambda name: None)
    code, _, err = knowme(chapter, "run")
    assert code == 1 and "knowme[train]" in err


@pytest.mark.parametrize(("columns", "lines"), [("80", 2), ("200", 1)])
def test_a_rule_of_the_gate_that_does_not_fit_has_a_line_of_its_own(
    columns, lines, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    row = {"name": "style", "before": 1.0, "after": 2.0, "change": 1.0, "low": 0.0, "high": 2.0,
           "passed": False, "rule": "must not rise by more than a little"}  # fmt: skip
    learn.print_table({"rows": [row], "facts_alone": [0, 0], "against": "x", "adopt": True})
    told = capsys.readouterr().out.splitlines()
    assert len(told) == lines + 3 and all(len(line) < int(columns) for line in told[: lines + 1])


def test_a_teacher_with_nothing_to_read_says_so(knowme, tmp_path) -> None:
    with (tmp_path / "home" / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("learn: {teacher: anthropic}\n")
    assert "Nothing was read" in knowme("learn", "teach")[1]
