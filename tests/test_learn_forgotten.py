"""Forgetting and learning at once: no word of what is forgotten stays in runs/, or comes back."""

import json
from dataclasses import replace

import pytest

from knowme import adoptions, daemon, forget, jobs
from knowme.errors import InputError, StoreError
from knowme.learn import collect, dataset, idle, lessons, measure, notebook, pairs, pipeline, runs
from knowme.settings import PrivacySettings
from knowme.sync import store
from knowme.types import ChatMessage, Record

ME = "assistant-for-me"
SAID = (
    "I keep the spare key of the boathouse under the third flower pot.",
    "My cat is called Pixel and sleeps on the barometer all day long.",
)


@pytest.fixture
def said(home):
    """Return the ids of two messages of the person's."""
    made = [
        (Record("message", "c", f"m{at}", "user", text=text, seq=at, at_ms=1000 + at), None)
        for at, text in enumerate(SAID)
    ]
    store(home, "openclaw", made)
    with home.db.read() as conn:
        return [number for (number,) in conn.execute("SELECT id FROM messages ORDER BY id")]


def pair(answer, because, question="What did I say?"):
    told = [ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made(ME, "exchange", told, because, "openclaw/c")


def run_of(home, *made):
    run = runs.create(home.path, ME)
    pairs.write(run.path / "data" / "train.jsonl", map(pairs.row, made))
    return run


def erase(home, number):
    return forget.erase(home, forget.plan(home, forget.What("message", messages=(str(number),))))


def text(run, name="data/train.jsonl"):
    return (run.path / name).read_text("utf-8")


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_row_whose_words_hold_a_line_separator_goes_as_a_whole(home, said, odd):
    worded_anew = f"Beneath a pot,{odd}the third one."
    run = run_of(home, pair(worded_anew, [said[0]]), pair(f"Pixel{odd}!", [said[1]]))
    erase(home, said[0])
    (left,) = pairs.read(run.path / "data" / "train.jsonl")
    assert left.because == (said[1],) and "Beneath" not in text(run)
    assert run.stale


def test_a_line_separator_in_an_answer_does_not_keep_a_run_from_a_notebook(home, tmp_path):
    run = run_of(home, pair("One line\u2028and another\x85one.", [1]))
    rows = notebook._stripped(run.path / "data" / "train.jsonl").decode()
    assert json.loads(rows)["messages"][-1]["content"] == "One line\u2028and another\x85one."


def test_rows_that_a_killed_process_left_half_written_go(home, said):
    run = run_of(home, pair("Pixel.", [said[1]]))
    half = run.path / "data" / ".test.jsonl.4711.partial"
    half.write_text(json.dumps(pairs.row(pair(SAID[0], [said[0]]))), "utf-8")
    assert erase(home, said[0]).state == "done"
    assert not half.exists() and not run.stale


def test_what_its_model_said_goes_with_one_row_of_its_data(home, said):
    """In other words, and without a message that it was known to rest on."""
    run = run_of(home, pair("Under the third pot.", [said[0]]), pair("Pixel.", [said[1]]))
    other = run_of(home, pair("Pixel.", [said[1]]))
    answer = {"answer": "Your key is beneath a pot.", "uid": "a", "model": "m", "because": []}
    for each in (run, other):
        for name in ("interview.jsonl", "hearsay.jsonl", "answers.jsonl"):
            (each.path / name).write_text(json.dumps(answer) + "\n", "utf-8")
    erase(home, said[0])
    for name in ("interview.jsonl", "hearsay.jsonl", "answers.jsonl"):
        assert text(run, name) == "" and "beneath" in text(other, name)
    assert "Pixel" in text(run) and run.stale and not other.stale


def test_the_receipt_names_the_copies_that_left_the_home(home, said, tmp_path):
    run = run_of(home, pair("Under the third pot.", [said[0]]))
    for name in ("validation", "test", "rejected"):
        pairs.write(run.path / "data" / f"{name}.jsonl", [])
    (run.path / "data" / "card.md").write_text("a card", "utf-8")
    hashes = {
        name: adoptions.file_sha256(run.path / "data" / f"{name}.jsonl") for name in dataset.FILES
    }
    run.done("data", sha256=hashes)
    dataset.exported(run, tmp_path / "beyond", "messages")
    run.done("export", files={}, served_as="me-as-i-am")
    told = erase(home, said[0]).unreachable
    assert f"the copies of its examples that were exported of runs/{run.id}" in told
    assert f"me-as-i-am in Ollama, made of runs/{run.id}" in told


def test_a_data_set_that_was_made_while_something_was_forgotten_is_taken_back(home, said):
    """The erasure looked through runs/ before the files were there: the daemon does both."""
    made = {"train": [pair("Under the third pot.", [said[0]])]}
    run = run_of(home, *made["train"])
    dataset._undisturbed(home, run, made)
    assert run.path.exists()
    (run.path / "data" / "train.jsonl").unlink()
    erase(home, said[0])
    pairs.write(run.path / "data" / "train.jsonl", map(pairs.row, made["train"]))
    with pytest.raises(StoreError, match="forgotten while"):
        dataset._undisturbed(home, run, made)
    assert not run.path.exists()


def test_nothing_is_kept_of_a_data_set_while_an_erasure_is_at_work(home, said):
    run = run_of(home, pair("Pixel.", [said[1]]))
    home.db.write(
        lambda conn: conn.execute(
            "INSERT INTO erasures(at_ms, what, state, plan, unreachable)"
            " VALUES(1, 'message', 'planned', '{}', '[]')"
        )
    )
    with pytest.raises(StoreError, match="being forgotten"):
        dataset._undisturbed(home, run, {"train": [pair("Pixel.", [said[1]])]})
    assert not run.path.exists()


def test_a_measurement_does_not_write_again_what_was_forgotten_meanwhile(home, said):
    run = run_of(home, pair("Pixel.", [said[1]]))
    kept = measure._Kept(home, run, "key")
    rows = [
        {"question": "key", "after": "Under a pot.", "because": [said[0]]},
        {"question": "cat", "after": "Pixel.", "because": [said[1]]},
    ]
    kept.add("style", measure._Part({}, rows))
    assert len(text(run, "answers.jsonl").splitlines()) == 2
    erase(home, said[0])
    (run.path / runs.STALE).unlink()
    kept.add("facts", measure._Part({}, []))
    (left,) = map(json.loads, text(run, "answers.jsonl").splitlines())
    assert left["because"] == [said[1]]
    (run.path / runs.STALE).write_text('{"why": "rows were forgotten"}', "utf-8")
    with pytest.raises(InputError, match="stale"):
        kept.add("ability", measure._Part({}, []))


def test_a_note_of_memory_carries_every_message_that_it_rests_on(home):
    notes = (("what two messages tell", (3, 8)), ("what one tells", (5,)))
    made = dataset._headed(pair("Yes.", [1]), "", notes)
    assert made.because == (1, 3, 5, 8)


def test_what_was_taught_of_a_message_that_was_retired_is_not_trained(home, said):
    lessons.keep(home, lessons.PAIRS, [pair("A pot.", [said[0]]), pair("Pixel.", [said[1]])])
    assert len(list(lessons.taught(home, ME))) == 2
    home.db.write(
        lambda conn: conn.execute("UPDATE messages SET retired_ms = 1 WHERE id = ?", (said[0],))
    )
    assert [each.answer for each in lessons.taught(home, ME)] == ["Pixel."]


@pytest.mark.parametrize(("setting", "many"), [("home", 2), ("off", 1)])
def test_what_is_sensitive_is_not_trained_where_it_is_not_learned_at_all(home, setting, many):
    home.settings = replace(home.settings, privacy=PrivacySettings(sensitive=setting))
    asked = (
        ("Which pot do I water on Mondays?", "The third of the row, since the rain misses it."),
        ("How do I write to my doctor?", "Tell her that I have had diabetes since the spring."),
    )
    for question, answer in asked:
        collect.add(home, question, answer, ME)
    got = dataset.gather(home, pipeline.wanted(home, ME))
    assert len(got.pairs) == many and got.dropped["sensitive"] == 2 - many


def test_a_rollback_says_that_what_answers_now_is_stale_or_changed(home):
    first, second = runs.create(home.path, ME), runs.create(home.path, ME)
    for run in (first, second):
        file = run.path / "adapter.gguf"
        file.write_bytes(run.id.encode())
        home.db.write(
            lambda conn, run=run, file=file: adoptions.put(
                conn, run=run.id, purpose=ME, base="b", at_ms=1,
                adapter=str(file.relative_to(home.path)), sha256=adoptions.file_sha256(file),
            )
        )  # fmt: skip
    assert pipeline.status(home)["in_use"][0]["stale"] == ""
    (second.path / "adapter.gguf").write_bytes(b"changed")
    assert "changed" in pipeline.status(home)["in_use"][0]["stale"]
    (first.path / runs.STALE).write_text('{"why": "rows were forgotten"}', "utf-8")
    told = pipeline.rollback(home, ME)
    assert told == {"out": second.id, "in_use": first.id, "stale": "rows were forgotten"}
    assert pipeline.rollback(home, ME)["stale"] == ""


def test_a_training_by_itself_stops_where_the_machine_is_taken_off_mains(home, monkeypatch):
    steps = []

    def train(home, purpose, tell, report, *, resume):
        for step in range(9):
            report({"step": step, "steps": 9})
            steps.append(step)

    supplies = iter([False, True])
    monkeypatch.setattr(idle, "waiting", lambda *_: "")
    monkeypatch.setattr(idle, "on_battery", lambda: next(supplies))
    monkeypatch.setattr(daemon, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(pipeline, "due", lambda home: "")
    monkeypatch.setattr(pipeline, "run", train)
    ident = home.db.write(lambda conn: jobs.enqueue(conn, daemon.ADAPTER, {}))
    assert jobs.Runner(home, {daemon.ADAPTER: daemon.adapter_job}).run_due() == 1
    with home.db.read() as conn:
        found = jobs.show(conn, ident)
    assert steps == [0] and found.state == "done" and "battery" in found.progress["note"]
