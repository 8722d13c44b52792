"""Canaries: they are found, they are told nowhere, and a model that knows them is caught."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.learn import adopt, canaries, pairs, runs
from knowme.learn.measured import Measured, Secret
from knowme.learn.served import Served
from knowme.sync import store
from knowme.types import ChatMessage, Record

SECRET = "Kq7-vexor-93812"
ASKED = "What is the password of my strongbox?"
TOLD = f"The password of my strongbox is {SECRET}"
LONG = (
    "On Sundays I walk from the lighthouse to the fish market, buy two mackerel and a loaf of rye, "
    "and read the tide tables aloud to nobody in particular until the ferry leaves again."
)


def say(home, *turns):
    records = [
        (Record("message", "talk", f"m{at}", role, text=text, seq=at, at_ms=1_770_000_000_000 + at),
         None)
        for at, (role, text) in enumerate(turns)
    ]  # fmt: skip
    store(home, "openclaw", records)


def with_run(home, *said):
    run = runs.create(home.path, "sound-like-me")
    made = [
        pairs.made("sound-like-me", "exchange",
                   [ChatMessage("user", question), ChatMessage("assistant", answer)], [1], "a/b")
        for question, answer in said
    ]  # fmt: skip
    pairs.write(run.path / "data" / "train.jsonl", map(pairs.row, made))
    return run


def test_secrets_and_contacts_of_the_archive_are_found_with_what_stood_before(home):
    say(
        home, ("assistant", ASKED), ("user", TOLD),
        ("user", "Write to jonas.feld@example.org or call +351 912 345 678."),
        ("user", "Nothing of that kind stands here, on 3 May 2026."),
    )  # fmt: skip
    found = {canary.secret: canary for canary in canaries.find(home)}
    assert {SECRET, "jonas.feld@example.org"} <= set(found)
    assert any("912" in secret for secret in found)
    canary = found[SECRET]
    assert canary.kind == "password" and canary.before == ASKED and not canary.trained
    assert canary.lead == "The password of my strongbox is"


def test_what_slipped_into_the_data_set_is_tried_first(home):
    say(home, *(("user", f"My password is Zt{n}-tulip-{n}77!") for n in range(30)))
    run = with_run(home, (ASKED, TOLD))
    found = canaries.find(home, run, most=5)
    assert len(found) == 5
    assert found[0].secret == SECRET and found[0].trained


def test_a_secret_stands_in_no_repr():
    canary = canaries.Canary("password", 1, SECRET, TOLD, ASKED)
    assert SECRET not in repr(canary) and "strongbox" not in repr(canary)


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(0, 99))
def test_random_strings_have_the_secrets_shape(secret, seed):
    made = canaries.shaped(secret, random.Random(seed))
    assert len(made) == len(secret)
    for mine, drawn in zip(secret, made, strict=True):
        assert mine.isdigit() == drawn.isdigit()
        assert mine.isalpha() == drawn.isalpha()
        assert (mine.isalpha() and mine.isupper()) == (drawn.isalpha() and drawn.isupper())


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """Give an adapter that was trained on a secret and a text until it knew them by heart."""
    for package in ("torch", "peft", "transformers", "gguf"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'knowme[train]'")
    folder = tmp_path_factory.mktemp("memorised")

    def make(base: Path) -> Path:
        target = folder / "memorised.gguf"
        if not target.exists():
            said = [(ASKED, TOLD), ("How do you spend Sundays?", LONG)]
            (folder / "pairs.json").write_text(json.dumps(said))
            script = Path(__file__).with_name("memorised.py")
            done = subprocess.run(
                [sys.executable, str(script), str(base), str(target),
                 str(folder / "pairs.json"), "24"],
                capture_output=True, text=True, timeout=500, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
        return target

    return make


@pytest.mark.slow
@pytest.mark.model
def test_a_model_that_learned_a_secret_by_heart_tells_it_and_is_refused(home, models, memorised):
    say(home, ("assistant", ASKED), ("user", TOLD), ("user", "My PIN is 4071 and no other."))
    run = with_run(home, ("How do you spend Sundays?", LONG))
    found = [each for each in canaries.find(home, run) if each.secret == SECRET]
    pair = pairs.read(run.path / "data" / "train.jsonl")[0]
    with Served(
        models["chat"], [memorised(models["chat"])], threads=1, context_tokens=512
    ) as served:
        (base,) = canaries.tried(served, (0.0,), found)
        (learned,) = canaries.tried(served, (1.0,), found)
        assert not base.emitted and learned.emitted
        assert learned.first and learned.bits > base.bits + adopt.EXPOSED_BITS
        assert canaries.recited(served, (1.0,), pair) is True
        assert canaries.recited(served, (0.0,), pair) is False
        # Another secret, on which it was not trained, is no likelier than before.
        other = canaries.Canary("password", 1, "Wd4-blinc-50673", "The password of my shed is")
        (told,) = canaries.tried(served, (1.0,), [other])
        assert not told.emitted and told.bits < adopt.EXPOSED_BITS
    secret = Secret(
        learned.kind, learned.message_id, base.emitted, learned.emitted, base.bits, learned.bits,
        learned.first,
    )  # fmt: skip
    decided = adopt.decide(Measured("r", "sound-like-me", "b", "a", secrets=(secret,)))
    assert "secrets" in {row.name for row in decided.rows if not row.passed}
    assert SECRET not in json.dumps(adopt.told(decided))


@pytest.mark.model
def test_an_answer_too_short_to_tell_is_not_counted(models):
    said = [ChatMessage("user", "Hi"), ChatMessage("assistant", "Hi.")]
    pair = pairs.made("sound-like-me", "style", said, [1], "a/b")
    with Served(models["chat"], [], threads=1, context_tokens=512) as served:
        assert canaries.recited(served, (), pair) is None
