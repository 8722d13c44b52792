"""`knowme forget`: what it shows, asks and prints, and that it never does half."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lived import everything, stands

from knowme import forget, sync
from knowme.cli import run
from knowme.db import rows, value
from knowme.forget import whole
from knowme.home import Home
from knowme.types import ChatMessage, Options

SECRET = "the heron nests behind the abandoned quarry"
OTHER = "the fence is painted green"


@pytest.fixture
def path(tmp_path) -> Path:
    Home.create(tmp_path / "h")
    given = {"embedder": {"kind": "hashing"}, "engine": {"kind": "echo"}, "service": {"port": 0}}
    (tmp_path / "h" / "config.yaml").write_text(yaml.safe_dump(given), "utf-8")
    with Home.open(tmp_path / "h") as home:
        metas = [{"session": "s", "timestamp": 1_700_000_000 + n * 100_000} for n in range(3)]
        sync.ingest(home, [SECRET, OTHER, "Ana was here"], metas)
    return tmp_path / "h"


def knowme(path, *args):
    return run(["--home", str(path), *args])


def left(path):
    with Home.open(path) as home, home.db.read() as conn:
        return [text for (text,) in rows(conn, "SELECT text FROM messages ORDER BY id")]


def test_it_shows_what_would_go_and_without_somebody_to_ask_nothing_does(path, capsys) -> None:
    assert knowme(path, "forget", "abandoned", "quarry") == 1
    told = capsys.readouterr()
    assert "Would go: 1 message, 1 item, 1 vector" in told.out and SECRET in told.out
    assert "nobody to ask" in told.err and "--yes" in told.err
    assert len(left(path)) == 3


@pytest.mark.parametrize(
    ("given", "stays"),
    [
        (("abandoned quarry",), [OTHER, "Ana was here"]),
        (("--message", "2"), [SECRET, "Ana was here"]),
        (("--message", "1", "--message", "3"), [OTHER]),
        (("--conversation", "s"), []),
        (("--before", "2023-11-15"), [OTHER, "Ana was here"]),
        (("--person", "ana"), [SECRET, OTHER]),
    ],
)
def test_each_way_to_name_it_erases_that_and_prints_a_receipt(path, capsys, given, stays) -> None:
    assert knowme(path, "forget", *given, "--yes") == 0
    told = capsys.readouterr().out
    assert "Forgotten. Receipt 1" in told and "nothing is left" in told
    assert left(path) == stays
    whole = everything(path)
    for text in {SECRET, OTHER, "Ana was here"} - set(stays):
        assert not stands(whole, text)


def test_json_alone_is_the_plan_and_with_yes_the_receipt(path, capsys) -> None:
    assert knowme(path, "forget", SECRET, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["counts"]["messages"] == 1 and plan["samples"][0]["text"] == SECRET
    assert len(left(path)) == 3
    assert knowme(path, "forget", SECRET, "--json", "--yes") == 0
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["state"] == "done" and receipt["counts"]["messages"] == 1
    assert "heron" not in json.dumps(receipt)
    assert knowme(path, "forget", "--list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["receipts"] == [receipt]


def test_words_that_stand_nowhere_are_searched_and_nothing_goes_unchosen(path, capsys) -> None:
    assert knowme(path, "forget", "herons", "of", "that", "quarry", "--yes") == 1
    told = capsys.readouterr().err
    assert "No message holds exactly these words" in told
    assert "1  2023-11-14" in told and "the heron nests" in told  # its number, and what it says
    assert "--message 1" not in told  # a mend to paste must not erase what was only near
    assert len(left(path)) == 3


def test_a_list_of_no_receipts_says_so(path, capsys) -> None:
    assert knowme(path, "forget", "--list") == 0
    assert "Nothing was forgotten yet." in capsys.readouterr().err


def test_naming_nothing_or_two_things_is_refused_with_what_there_is(path, capsys) -> None:
    assert knowme(path, "forget") == 1
    assert "Nothing is named" in capsys.readouterr().err
    assert knowme(path, "forget", "x", "--person", "y") == 1
    assert "More than one thing is named" in capsys.readouterr().err
    assert knowme(path, "forget", "--person", "Nobody", "--yes") == 0
    assert "nothing to forget" in capsys.readouterr().out


def test_a_cut_erasure_is_listed_and_resumed(path, capsys) -> None:
    assert knowme(path, "forget", "--resume") == 0
    assert "nothing to resume" in capsys.readouterr().err
    with Home.open(path) as home:
        found = forget.plan(home, forget.What("text", text=SECRET))
        home.db.write(lambda conn: whole._begin(conn, found))
    assert knowme(path, "forget", "--list") == 0
    assert "planned: knowme forget --resume" in capsys.readouterr().out
    assert knowme(path, "forget", "--resume") == 0
    assert "done" in capsys.readouterr().out and left(path) == [OTHER, "Ana was here"]


@pytest.mark.slow
def test_while_it_is_served_it_is_refused_with_the_pid_and_works_once_that_is_stopped(path, capsys):
    served = subprocess.Popen(
        [sys.executable, "-m", "knowme", "--home", str(path), "serve"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert "listens" in served.stdout.readline()
        assert knowme(path, "forget", SECRET, "--yes") == 1
        told = capsys.readouterr().err
        assert "in use by another knowme process" in told
        if sys.platform == "linux":
            assert f"kill {served.pid}" in told
    finally:
        served.send_signal(signal.SIGTERM)
        served.wait(30)
        served.stdout.close()
    assert len(left(path)) == 3
    assert knowme(path, "forget", SECRET, "--yes") == 0 and left(path) == [OTHER, "Ana was here"]


@pytest.mark.model
@pytest.mark.slow
def test_a_model_in_memory_does_not_write_down_what_it_read_before(models, tmp_path) -> None:
    Home.create(tmp_path / "h")
    given = {
        "embedder.kind": "hashing",
        "engine.kind": "llamacpp",
        "engine.context_tokens": 512,
        "engine.threads": 1,
    }
    prefix = tmp_path / "h" / "index" / "prefix"

    async def one(home, text):
        async with home.models.use("primary") as engine:
            async for _ in engine.stream([ChatMessage("user", text)], Options(max_tokens=4)):
                pass

    with Home.open(tmp_path / "h", given) as home:
        asyncio.run(one(home, "What is two and two?"))
    assert list(prefix.glob("*.prefix"))  # as it is without forgetting
    with Home.open(tmp_path / "h", given) as home:
        sync.ingest(home, [SECRET])
        asyncio.run(one(home, SECRET))
        found = forget.plan(home, forget.What("text", text=SECRET))
        assert forget.erase(home, found).state == "done" and not list(prefix.glob("*.prefix"))
    assert not list(prefix.glob("*.prefix"))
    with Home.open(tmp_path / "h", given) as home:
        asyncio.run(one(home, "What is two and two?"))
        with home.db.read() as conn:
            assert value(conn, "SELECT count(*) FROM messages") == 0
    assert list(prefix.glob("*.prefix"))  # and afterwards again
