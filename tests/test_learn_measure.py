"""A whole measurement with the packaged model: numbers here, words there, and it goes on."""

import json

import pytest
from adapters import random_adapter

from knowme import adoptions, extract
from knowme.errors import InputError
from knowme.learn import ability, adopt, exam, measure, pairs, runs
from knowme.learn.measured import ROWS
from knowme.sync import store
from knowme.types import ChatMessage, Record

pytestmark = [pytest.mark.model, pytest.mark.slow]

DAYS = (
    ("the harbour", "Rain all day; mended the net by the harbour wall and went to bed early."),
    ("bread", "Baked two rye loaves. The second one burned, as ever, on its left side."),
    ("my brother", "My brother came by with mackerel and stayed until the last tram had gone."),
    ("the office", "Nobody at the office until ten. Wrote the tide report and sent it twice."),
    ("the cat", "The cat sat on the barometer again. It now says fair, whatever the sky says."),
    ("a letter", "A letter from Bremen, wet through. Dried it on the stove, read half of it."),
    ("the market", "To the market for lemons; came home with a lamp and no lemons at all."),
    ("a walk", "Walked to the lighthouse against the wind and back with it, in half the time."),
    ("the neighbour", "The neighbour sings before six. I have learned the song and hate it."),
    ("music", "Tried the old waltz on the piano. The low strings have given up entirely."),
    ("the boat", "Painted the boat green. Rain came at four; the quay is now green as well."),
    ("dinner", "Soup for dinner, then soup again, since nobody else came to eat it with me."),
)


FEW = ability.items()[:6]


@pytest.fixture
def written(home, monkeypatch):
    """Give a home and a run whose test side is a small diary, with fewer tokens than usual."""
    for name, many in (("STYLE_TOKENS", 12), ("ANSWER_TOKENS", 12), ("OTHER_TOKENS", 8)):
        monkeypatch.setattr(measure, name, many)
    records = [
        (Record("message", "diary", f"m{at}", "user", text=text, seq=at,
                at_ms=1_770_000_000_000 + at), None)
        for at, (_, text) in enumerate((*DAYS, ("", "I live in Porto. I work at Maresia.")))
    ]  # fmt: skip
    store(home, "markdown", records)
    extract.catch_up(home)
    run = runs.create(home.path, "sound-like-me")
    made = [
        pairs.made(
            "sound-like-me", "style",
            [ChatMessage("user", f"Diary, about {about}."), ChatMessage("assistant", text)],
            [at + 1], f"markdown/day {at}",
        )
        for at, (about, text) in enumerate(DAYS)
    ]  # fmt: skip
    pairs.write(run.path / "data" / "test.jsonl", map(pairs.row, made))
    pairs.write(run.path / "data" / "train.jsonl", map(pairs.row, made[:2]))
    for stage in ("data", "train", "export"):
        run.done(stage)
    return home, run


def test_an_interrupted_measurement_goes_on_and_words_stand_with_what_they_rest_on(written, models):
    home, run = written
    random_adapter(run.path / "adapter.gguf", 1.0)
    seen: list[str] = []

    def stop(done, of, what):
        seen.append(what)
        if what.startswith("ability"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.run(home, run, base=models["chat"], threads=1, neutral=FEW, tell=stop)
    assert run.stage("measure") is None
    assert not (run.path / "eval.json").exists()
    first = json.loads((run.path / "eval.partial.json").read_text())["parts"]
    assert set(first) == {"held-out", "style", "facts"}

    again: list[str] = []
    measured = measure.run(
        home,
        run,
        base=models["chat"],
        threads=1,
        neutral=FEW,
        tell=lambda *told: again.append(told[2]),
    )
    assert not {each for each in again if "held-out" in each or "style" in each}
    assert [item.uid for item in measured.perplexity] == [
        item["uid"] for item in first["held-out"]["perplexity"]
    ]
    assert not (run.path / "eval.partial.json").exists()

    # All was measured, of each item both sides.
    assert all(getattr(measured, name) for name in ROWS)
    assert len(measured.perplexity) == len(DAYS) and len(measured.ability) == len(FEW)
    assert len({item.group for item in measured.perplexity}) == len(DAYS)
    assert any(item.before != item.after for item in measured.perplexity)
    assert measured.against == "" and measured.base == adoptions.base_of(models["chat"])
    stage = run.needs("measure")
    assert stage["sha256"] == adoptions.file_sha256(run.path / "adapter.gguf")
    assert stage["adopt"] == adopt.decision(run).adopt is False  # it is noise

    # No word of the diary stands in a file of numbers; in the rows each has what it rests on.
    numbers = (run.path / "eval.json").read_text() + (run.path / "manifest.json").read_text()
    for about, text in DAYS:
        assert text.split(".")[0] not in numbers and f"about {about}." not in numbers
    rows = [json.loads(each) for each in (run.path / "answers.jsonl").read_text().splitlines()]
    assert {each["part"] for each in rows} == {"style", "facts"}
    assert all(each["because"] for each in rows)
    assert {"recalled_before", "recalled_after", "alone_before", "alone_after"} <= set(rows[-1])

    _a_second_candidate_is_compared_with_what_is_in_use(home, run, models)


def _a_second_candidate_is_compared_with_what_is_in_use(home, first, models):
    used = adopt.adopt(home, first, force=True)
    assert used.forced
    second = runs.create(home.path, "sound-like-me")
    for side in ("train", "test"):
        source = first.path / "data" / f"{side}.jsonl"
        pairs.write(second.path / "data" / f"{side}.jsonl", map(pairs.row, pairs.read(source)))
    for stage in ("data", "train", "export"):
        second.done(stage)
    random_adapter(second.path / "adapter.gguf", 0.0)
    asked = exam.questions(home)[:1]
    now = measure.run(
        home, second, base=models["chat"], threads=1, questions=asked, neutral=FEW, most=4
    )
    before = adopt.measured_of(first)
    assert now.against == first.id and len(now.perplexity) == 4 and len(now.facts) == 1
    # What was the candidate is now what is in use, and an adapter of zeros is the base.
    theirs = {item.uid: item for item in before.perplexity}
    for item in now.perplexity:
        assert item.before == pytest.approx(theirs[item.uid].after, abs=0.05)
        assert item.after == pytest.approx(theirs[item.uid].before, abs=0.05)
    # Ability is compared with the base, not with what is in use.
    assert [i.before for i in now.ability] == pytest.approx(
        [i.before for i in before.ability], abs=0.05
    )
    # What was learned from is forgotten: the stale one is compared with no more.
    (first.path / "stale.json").write_text("{}")
    assert measure._in_use(home, "sound-like-me", now.base, second.path / "adapter.gguf") is None


def test_a_run_without_its_file_says_what_to_do(written, models):
    home, run = written
    with pytest.raises(InputError, match="no adapter as GGUF"):
        measure.run(home, run, base=models["chat"], threads=1)
