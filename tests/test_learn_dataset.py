"""Data sets from the archive: what they hold, and that nothing in them tells of the test."""

import json
import re
import shutil

import pytest
from lived import synced

from knowme import forget, sync
from knowme.errors import InputError, StoreError
from knowme.home import Home
from knowme.learn import dataset, pipeline, review, runs
from knowme.times import now_ms
from knowme.types import Record

ME, VOICE = "assistant-for-me", "sound-like-me"
FLAGS = {"embedder.kind": "hashing", "engine.kind": "echo", "name": "Leonor"}


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    return synced(tmp_path_factory.mktemp("life"))


@pytest.fixture
def home(life, tmp_path):
    shutil.copytree(life, tmp_path / "home")
    with Home.open(tmp_path / "home", FLAGS) as opened:
        yield opened


def wanted(home, purpose=ME, **more):
    return pipeline.wanted(home, purpose, **more)


def rows(run, name):
    path = run.path / "data" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def runs_of_words(text, size=8):
    said = re.findall(r"\w+", text.lower())
    return {tuple(said[at : at + size]) for at in range(len(said) - size + 1)}


@pytest.mark.parametrize("purpose", [ME, VOICE])
@pytest.mark.parametrize("include_memory", [False, True])
def test_nothing_that_is_trained_tells_of_the_test(home, purpose, include_memory):
    run = dataset.build(home, wanted(home, purpose, include_memory=include_memory))
    train = [*rows(run, "train"), *rows(run, "validation"), *rows(run, "rejected")]
    test = rows(run, "test")
    assert len(train) > 80 and len(test) > 15
    # By the messages of the archive: none stands on both sides, in an answer or in a note.
    trained = {number for told in train for number in told["because"]}
    tested = {number for told in test for number in told["because"]}
    own = {number for told in test for number in told["because"] if not include_memory}
    assert not trained & own
    # By the words, however they came there: what was asked and answered in the test stands in no
    # prompt and no answer of training, but for runs that stand in several places anyway.
    seen = {}
    for told in train:
        for said in told["messages"]:
            for each in runs_of_words(said["content"]):
                seen.setdefault(each, set()).add(told["place"])
    leaked = [
        " ".join(each)
        for told in test
        for said in told["messages"][-2:]
        for each in runs_of_words(said["content"])
        if each in seen and len(seen[each]) < 3
    ]
    assert not leaked, leaked[:3]
    assert tested


def test_memory_in_prompts_is_of_the_train_side_and_of_before(home):
    run = dataset.build(home, wanted(home, include_memory=True))
    noted = [told for told in rows(run, "train") if "What you know of me" in str(told["messages"])]
    assert len(noted) > 20
    answers = {number for told in rows(run, "test") for number in told["because"]}
    plain = dataset.build(home, wanted(home))
    tested = {number for told in rows(plain, "test") for number in told["because"]}
    assert tested <= answers | tested
    assert not {number for told in noted for number in told["because"]} & tested


def test_the_same_archive_makes_the_same_files(home):
    first, second = (dataset.build(home, wanted(home, VOICE)) for _ in range(2))
    assert first.id != second.id
    assert first.needs("data")["sha256"] == second.needs("data")["sha256"]


def test_the_two_purposes_are_never_mixed(home):
    for purpose in (ME, VOICE):
        run = dataset.build(home, wanted(home, purpose))
        assert {told["purpose"] for name in dataset.FILES for told in rows(run, name)} == {purpose}
    with pytest.raises(InputError, match="'style'"):
        dataset.build(home, wanted(home, ME, kinds=("style",)))


def test_the_card_counts_what_the_files_hold_and_says_no_word(home):
    run = dataset.build(home, wanted(home))
    card = json.loads((run.path / "data" / "card.json").read_text("utf-8"))
    found = [told for name in ("train", "validation", "test") for told in rows(run, name)]
    assert card["pairs"] == len(found) and card["parts"]["train"] == len(rows(run, "train"))
    kinds = {told["kind"] for told in found}
    assert card["kinds"] == {k: sum(t["kind"] == k for t in found) for k in card["kinds"]}
    assert set(card["kinds"]) == kinds
    page = (run.path / "data" / "card.md").read_text("utf-8") + json.dumps(card)
    page_runs = runs_of_words(page, 5)
    assert not [
        told for told in found if runs_of_words(told["messages"][-1]["content"], 5) & page_runs
    ]


def test_a_changed_file_is_refused(home):
    run = dataset.build(home, wanted(home))
    path = run.path / "data" / "train.jsonl"
    path.write_text(path.read_text("utf-8").replace("a", "b", 1), "utf-8")
    with pytest.raises(InputError, match=r"train\.jsonl was changed"):
        dataset.read(run, "train")
    assert dataset.read(run, "test")


def test_a_verdict_holds_for_the_next_data_set(home):
    run = dataset.build(home, wanted(home))
    gone = rows(run, "train")[0]["uid"]
    home.db.write(lambda conn: review.decide(conn, gone, "drop", now_ms()))
    again = dataset.build(home, wanted(home))
    uids = {told["uid"] for name in dataset.FILES for told in rows(again, name)}
    assert gone not in uids
    card = json.loads((again.path / "data" / "card.json").read_text("utf-8"))
    assert card["dropped"]["reviewed"] == 1


def test_forgetting_scrubs_the_rows_and_marks_the_run_stale(home):
    run = dataset.build(home, wanted(home, VOICE))
    other = runs.create(home.path, ME)
    told = next(each for each in rows(run, "train") if each["kind"] == "exchange")
    with home.db.read() as conn:
        (text,) = conn.execute(
            "SELECT plain(text) FROM messages WHERE id = ?", (told["because"][-1],)
        ).fetchone()
    plan = forget.plan(home, forget.What("message", messages=(str(told["because"][-1]),)))
    forget.erase(home, plan)
    assert "forgotten" in run.stale and other.stale == ""
    left = (run.path / "data" / "train.jsonl").read_text("utf-8")
    assert told["uid"] not in left and text not in left
    with pytest.raises(InputError, match="stale"):
        pipeline.train(home, run)
    assert pipeline.status(home)["runs"][1]["stale"] or pipeline.status(home)["runs"][0]["stale"]


def test_what_is_forgotten_while_a_set_is_made_is_in_no_file_of_it(home):
    first = dataset.build(home, wanted(home, VOICE))
    told = next(each for each in rows(first, "train") if each["kind"] == "exchange")
    number = told["because"][-1]

    def erase(done, total, what):
        if what.endswith("cleaning"):  # all is read, and nothing is written yet
            forget.erase(home, forget.plan(home, forget.What("message", messages=(str(number),))))

    with pytest.raises(StoreError, match="forgotten while"):
        dataset.build(home, wanted(home, VOICE), erase)
    assert [run.id for run in runs.listed(home.path)] == [first.id] and first.stale
    for path in (home.path / "runs").rglob("*.jsonl"):
        for line in path.read_text("utf-8").split("\n"):
            assert not line or number not in json.loads(line)["because"]


def test_too_little_is_refused_with_what_brings_more(tmp_path):
    Home.create(tmp_path / "home")
    with Home.open(tmp_path / "home", FLAGS) as home:
        said = [
            Record("message", "c", str(n), text=f"I like tea number {n}.", seq=n) for n in range(3)
        ]
        sync.store(home, "s", [(each, None) for each in said])
        with pytest.raises(InputError, match="knowme learn collect"):
            dataset.build(home, wanted(home))
        assert not (home.path / "runs").exists() or not runs.listed(home.path)


def test_statistics_write_nothing_and_say_when_there_is_enough(home):
    told = dataset.statistics(home, wanted(home))
    assert told["ready"]["pairs"] == told["pairs"] > 100 and told["ready"]["enough"] == 500
    assert runs.listed(home.path) == [] and told["new_since_last"] is None
    dataset.build(home, wanted(home))
    assert dataset.statistics(home, wanted(home))["new_since_last"] == 0


def test_plain_files_are_written_in_both_forms(home, tmp_path):
    run = dataset.build(home, wanted(home))
    for form, key in (("messages", "messages"), ("sharegpt", "conversations")):
        made = dataset.exported(run, tmp_path / form, form)
        lines = (tmp_path / form / "train.jsonl").read_text("utf-8").splitlines()
        assert len(lines) == made["train"] and key in json.loads(lines[0])
    with pytest.raises(InputError, match="is there already"):
        dataset.exported(run, tmp_path / "messages", "messages")


def test_the_instructions_stand_before_each_example(home):
    from dataclasses import replace

    run = dataset.build(home, replace(wanted(home), system_prompt="Answer in one line."))
    for told in rows(run, "train"):
        assert told["messages"][0]["role"] == "system"
        assert told["messages"][0]["content"].startswith("Answer in one line.")
