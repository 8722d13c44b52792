"""Pairs as rows, and the folders of runs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.errors import InputError, NotFoundError
from knowme.learn import pairs, runs
from knowme.types import ChatMessage

ME, VOICE = "assistant-for-me", "sound-like-me"
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def pair(question="q", answer="a", **more):
    said = [ChatMessage("user", question), ChatMessage("assistant", answer)]
    return pairs.made(ME, "exchange", said, (3, 1, 3), "openclaw/c", **more)


@given(words, words, st.integers(1, 5) | st.none(), words, st.lists(words, max_size=3))
def test_a_row_reads_back_equal(question, answer, rating, rejected, labels):
    made = pair(question, answer, rating=rating, rejected=rejected, labels=tuple(labels), at_ms=5)
    told = json.loads(json.dumps(pairs.row(made)))
    assert pairs.from_row(told) == made


def test_the_uid_is_of_the_words_and_the_purpose():
    assert pair().uid == pair(rating=4).uid != pair(answer="b").uid
    said = [ChatMessage("user", "q"), ChatMessage("assistant", "a")]
    assert pairs.made(VOICE, "exchange", said, (), "x").uid != pair().uid


def test_it_rests_on_each_message_once():
    assert pair().because == (1, 3)


def test_a_pair_without_an_answer_is_refused():
    with pytest.raises(InputError):
        pairs.made(ME, "exchange", [ChatMessage("user", "q")], (), "x")


def test_a_cut_row_is_named_by_its_line(tmp_path):
    path = tmp_path / "train.jsonl"
    pairs.write(path, [pairs.row(pair())])
    assert pairs.read(path) == [pair()]
    with path.open("a") as file:
        file.write('{"uid": "x", "mess')
    with pytest.raises(InputError, match=r"train\.jsonl:2"):
        pairs.read(path)


def test_a_foreign_row_is_named_by_its_line(tmp_path):
    path = tmp_path / "train.jsonl"
    pairs.write(path, [{"messages": "hello"}])
    with pytest.raises(InputError, match=r"train\.jsonl:1"):
        pairs.read(path)


def test_a_file_that_cannot_be_finished_is_not_there(tmp_path):
    def broken():
        yield {"a": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        pairs.write(tmp_path / "x.jsonl", broken())
    assert list(tmp_path.iterdir()) == []


def test_no_file_holds_no_pairs(tmp_path):
    assert pairs.read(tmp_path / "none.jsonl") == []


def test_both_forms_say_the_same():
    told = pairs.sharegpt(pair("how?", "so"))
    assert [each["value"] for each in told["conversations"]] == ["how?", "so"]
    assert [each["from"] for each in told["conversations"]] == ["human", "gpt"]


# --- runs ---------------------------------------------------------------------------------------


def test_runs_of_one_day_have_names_of_their_own(tmp_path):
    names = [runs.create(tmp_path, ME, 0).id for _ in range(3)]
    assert names == ["1970-01-01-assistant", "1970-01-01-assistant-2", "1970-01-01-assistant-3"]
    assert runs.create(tmp_path, VOICE, 0).id == "1970-01-01-voice"
    assert runs.find(tmp_path, purpose=ME).id == names[-1]
    assert runs.find(tmp_path, names[0]).id == names[0]


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="no run yet"):
        runs.find(tmp_path)
    runs.create(tmp_path, ME)
    with pytest.raises(NotFoundError, match="'other'"):
        runs.find(tmp_path, "other")


def test_an_unknown_purpose_is_refused(tmp_path):
    with pytest.raises(InputError, match="sound-like-me"):
        runs.create(tmp_path, "world-domination")


def test_a_stage_that_is_done_again_undoes_those_after_it(tmp_path):
    run = runs.create(tmp_path, ME)
    for stage in runs.STAGES:
        run.done(stage, of=stage)
    run.done("train", of="again")
    assert list(run.manifest["stages"]) == ["data", "train"]
    assert run.needs("train")["of"] == "again"
    with pytest.raises(InputError, match="knowme learn export"):
        run.needs("export")


def test_a_damaged_manifest_is_named(tmp_path):
    run = runs.create(tmp_path, ME)
    (run.path / runs.MANIFEST).write_text('{"stages": ')
    with pytest.raises(InputError, match=run.id):
        run.stage("data")


def test_a_run_whose_words_were_forgotten_says_so(tmp_path):
    run = runs.create(tmp_path, ME)
    assert run.stale == ""
    runs.put(run.path / runs.STALE, {"why": "rows of its data set were forgotten"})
    assert "forgotten" in run.stale
