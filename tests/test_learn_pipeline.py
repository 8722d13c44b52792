"""From the archive to an adapter that answers: every stage for real, on the packaged model."""

import json
import shutil
from dataclasses import replace

import pytest
from lived import synced

from knowme import daemon, jobs, modelstore
from knowme.errors import HomeError, InputError, KnowmeError, ModelMissingError, TrainError
from knowme.home import Home
from knowme.learn import ability, dataset, exam, pairs, pipeline, runs
from knowme.learn import adopt as gate
from knowme.lock import Lock
from knowme.settings import LearnSettings

ME, VOICE = "assistant-for-me", "sound-like-me"
FLAGS = {"embedder.kind": "hashing", "engine.kind": "llamacpp", "engine.threads": 1}
needs_training = [pytest.mark.slow, pytest.mark.model]


def few(run, many=12):
    """Keep only some short examples of each side, so that training takes seconds."""
    kept = {
        name: sorted(dataset.read(run, name), key=lambda pair: len(str(pairs.row(pair))))[:many]
        for name in dataset.FILES
    }
    run.done("data", **dataset.write(run, kept), newest_ms=1)


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    return synced(tmp_path_factory.mktemp("life"))


@pytest.fixture
def home(life, tmp_path):
    shutil.copytree(life, tmp_path / "home")
    with Home.open(tmp_path / "home", FLAGS) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(life, tmp_path_factory):
    """A home with one run, trained on a dozen examples, exported and measured."""
    try:
        modelstore.path("smollm2-135m")
    except ModelMissingError:
        pytest.skip("needs the packaged model smollm2-135m: knowme models pull")
    for package in ("torch", "peft", "trl"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'knowme[train]'")
    path = tmp_path_factory.mktemp("trained") / "home"
    shutil.copytree(life, path)
    events, stages = [], []
    with Home.open(path, FLAGS) as home:
        run = dataset.build(home, pipeline.wanted(home, ME))
        few(run)
        pipeline.train(home, run, lambda event: events.append(dict(event)), epochs=1, preset="tiny")
        pipeline.export(home, run, lambda done, total, what: stages.append(what))
        # Enough to go the whole way; too little for the gate to let anything through.
        told = pipeline.measure(
            home, run, most=3, questions=exam.questions(home, run)[:2], neutral=ability.items()[:3]
        )
    return path, run.id, events, told


@pytest.fixture
def after(trained, tmp_path):
    path, name, events, told = trained
    shutil.copytree(path, tmp_path / "trained")
    with Home.open(tmp_path / "trained", FLAGS) as opened:
        yield opened, runs.find(opened.path, name), events, told


class TestTheWholeWay:
    pytestmark = needs_training

    def test_each_stage_leaves_what_the_next_one_needs(self, after):
        home, run, events, told = after
        assert [event["event"] for event in events][:2] == ["start", "mask"]
        mask = events[1]
        assert 0 < mask["trained"] < mask["tokens"]
        assert events[-1]["event"] == "done"
        exported = run.needs("export")["files"]["adapter"]
        assert exported["fidelity"]["same_top"] >= 0.93
        names = {row["name"] for row in told["rows"]}
        assert {"perplexity", "relevance", "style", "facts with recall"} <= names
        assert {"ability", "secrets", "recited"} <= names
        assert told == {**pipeline.verdict(run)}

    def test_a_refused_adapter_is_not_used_and_force_is_recorded(self, after):
        home, run, _, told = after
        if not told["adopt"]:
            assert pipeline.adopt(home, run)["adopted"] is False
            assert home.adapter_of(pipeline_base(run)) is None
            assert pipeline.adopt(home, run, force=True)["forced"] is True
        else:
            assert pipeline.adopt(home, run)["adopted"] is True
        assert home.adapter_of(pipeline_base(run)) == run.path / "adapter.gguf"
        (used,) = pipeline.status(home)["in_use"]
        assert used["run"] == run.id and used["forced"] is not told["adopt"]
        assert pipeline.rollback(home, ME) == {"out": run.id, "in_use": "", "stale": ""}
        assert home.adapter_of(pipeline_base(run)) is None

    def test_what_was_forgotten_marks_the_adapter_in_use_stale(self, after):
        from knowme import forget

        home, run, _, _ = after
        pipeline.adopt(home, run, force=True)
        number = dataset.read(run, "train")[0].because[0]
        forget.erase(home, forget.plan(home, forget.What("message", messages=(str(number),))))
        (used,) = pipeline.status(home)["in_use"]
        assert "forgotten" in used["stale"]
        assert home.adapter_of(pipeline_base(run)) is None  # it might tell what was forgotten
        with pytest.raises(InputError, match="stale"):
            pipeline.use(home, run.id, force=True)

    def test_an_adapter_that_was_changed_is_never_adopted(self, after):
        home, run, _, _ = after
        with (run.path / "adapter.gguf").open("ab") as file:
            file.write(b"\0")
        with pytest.raises(KnowmeError, match="changed"):
            pipeline.adopt(home, run, force=True)

    def test_going_on_does_nothing_twice(self, after):
        home, run, _, told = after
        events = []
        again = pipeline.run(home, ME, report=events.append, resume=True)
        assert again == told and events == [] and len(runs.listed(home.path)) == 1

    def test_no_word_stands_beside_the_rows(self, after):
        home, run, _, _ = after
        texts = [each.answer for each in dataset.read(run, "train") if len(each.answer) > 30]
        for path in run.path.rglob("*"):
            if path.is_file() and path.suffix != ".jsonl":
                held = path.read_bytes()
                assert not [text for text in texts if text.encode() in held], path
        log = (run.path / "log.jsonl").read_text("utf-8")
        assert not [text for text in texts if text in log]


def pipeline_base(run):
    from knowme.learn import export

    return export.base_gguf(run)


# --- what needs no training ---------------------------------------------------------------------


def test_a_stage_that_is_missing_is_named_with_its_command(home):
    run = dataset.build(home, pipeline.wanted(home, ME))
    for stage, mend in (
        (pipeline.export, "knowme learn train"),
        (pipeline.measure, "knowme learn export"),
    ):
        with pytest.raises(InputError, match=mend):
            stage(home, run)
    with pytest.raises(InputError, match="knowme learn measure"):
        gate.decision(run)


def test_a_training_that_does_not_fit_is_refused_with_advice(home):
    run = dataset.build(home, pipeline.wanted(home, ME))
    with pytest.raises(TrainError, match="export-notebook|smaller|4-bit|four"):
        pipeline.train(home, run, preset="llama-3.1-8b", base="")


@pytest.mark.model
def test_two_processes_do_not_train_one_run(home):
    for package in ("torch", "peft", "trl"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'knowme[train]'")
    run = dataset.build(home, pipeline.wanted(home, ME))
    with Lock(run.path / "train.lock"), pytest.raises(HomeError, match="in use by another"):
        pipeline.train(home, run, preset="tiny")
    assert run.stage("train") is None and not (run.path / "spec.json").exists()


def test_by_itself_it_waits_for_enough_and_says_for_what(home):
    pytest.importorskip("torch", reason="needs torch: pip install 'knowme[train]'")
    assert "of 500 examples" in pipeline.due(home)
    home.settings = replace(home.settings, learn=LearnSettings(every="never"))
    assert "never" in pipeline.due(home)
    home.settings = replace(home.settings, learn=LearnSettings(enough_pairs=50))
    assert pipeline.due(home) == ""


def test_within_a_month_it_waits_for_new_examples_and_not_for_messages(home):
    pytest.importorskip("torch", reason="needs torch: pip install 'knowme[train]'")
    made = dataset.gather(home, pipeline.wanted(home, ME)).pairs
    times = sorted(each.at_ms for each in made if each.at_ms is not None)
    since = times[len(times) // 2]
    new = sum(at_ms > since for at_ms in times)
    with home.db.read() as conn:
        asked = "SELECT count(*) FROM messages WHERE at_ms > ?"
        assert conn.execute(asked, (since,)).fetchone()[0] > new
    run = runs.create(home.path, ME)
    run.done("data", newest_ms=since)
    run.done("train")
    told = LearnSettings(enough_pairs=50, new_pairs=new + 1)
    home.settings = replace(home.settings, learn=told)
    assert pipeline.due(home) == f"{new} of {new + 1} new examples"
    home.settings = replace(home.settings, learn=replace(told, new_pairs=new))
    assert pipeline.due(home) == ""


def test_by_itself_it_waits_for_an_idle_machine(home, monkeypatch):
    from knowme.learn import idle

    monkeypatch.setattr(idle, "waiting", lambda *_: "this machine runs on its battery")
    ident = home.db.write(lambda conn: jobs.enqueue(conn, daemon.ADAPTER, {}))
    assert jobs.Runner(home, {daemon.ADAPTER: daemon.adapter_job}).run_due() == 1
    with home.db.read() as conn:
        found = jobs.show(conn, ident)
    assert found.state == "done" and "battery" in found.progress["note"]
    assert runs.listed(home.path) == []


def test_a_run_is_deleted_with_all_that_it_holds(home):
    run, other = (dataset.build(home, pipeline.wanted(home, ME)) for _ in range(2))
    assert pipeline.delete(home, run.id) == {"run": run.id, "was_in_use": False}
    assert not run.path.exists() and [each.id for each in runs.listed(home.path)] == [other.id]


def test_status_says_what_comes_next(home):
    told = pipeline.status(home)
    assert told["in_use"] == [] and "knowme learn dataset" in told["next"]
    run = dataset.build(home, pipeline.wanted(home, ME))
    told = pipeline.status(home)
    assert told["runs"][0]["id"] == run.id and "knowme learn train" in told["next"]
    assert json.dumps(told)
