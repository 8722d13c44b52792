"""Three models, room for two: one conversation goes through all of them and loses nothing."""

import asyncio
import os

import pytest
from served import home_of

from knowme.ask import Asked, Done, ask
from knowme.db import rows, value
from knowme.stats import llm_stats

pytestmark = [pytest.mark.slow, pytest.mark.model]


def test_a_conversation_goes_through_three_models_with_room_for_two(tmp_path, models):
    files = {}
    for role in ("red", "green", "blue"):
        files[role] = tmp_path / f"{role}-135m.gguf"
        os.symlink(models["chat"], files[role])
    settings = {
        "models": {role: {"engine": "llamacpp", "model": str(file), "context_tokens": 1024,
                          "max_tokens": 12} for role, file in files.items()},
        "residency": {"max_models": 2},
        "ask": {"quote_first": "never"},
    }  # fmt: skip
    asked = ["red", "green", "red", "blue", "green", "red"]
    words = [f"The {n}. word of the game is w{n}x." for n in range(len(asked))]

    async def talk(home):
        done = []
        for role, text in zip(asked, words, strict=True):
            question = Asked(text, conversation="game", surface="api", model=role)
            async for event in ask(home, question):
                if isinstance(event, Done):
                    done.append(event)
        return done

    with home_of(tmp_path / "home", **settings) as home:
        done = asyncio.run(talk(home))
        assert [each.role for each in done] == asked
        with home.db.read() as conn:
            swaps = rows(conn, "SELECT kind, role FROM swaps ORDER BY id")
            said = rows(conn, "SELECT m.text FROM messages m JOIN conversations c"
                              " ON c.id = m.conversation_id WHERE c.external_id = 'game'"
                              " AND m.role = 'user' ORDER BY m.seq")  # fmt: skip
            prompt = value(conn, "SELECT receipt FROM answers ORDER BY id DESC LIMIT 1")
            calls = value(conn, "SELECT count(*) FROM calls WHERE state = 'done'")
        told = llm_stats(home)
    # The least recently used goes: green for blue, then red for green, then blue for red.
    assert swaps == [
        ("load", "red"), ("load", "green"),
        ("unload", "green"), ("load", "blue"),
        ("unload", "red"), ("load", "green"),
        ("unload", "blue"), ("load", "red"),
    ]  # fmt: skip
    assert [text for (text,) in said] == words
    assert all(f"w{n}x" in prompt for n in range(len(words))), "the last model saw every turn"
    assert calls == len(asked) == told["calls"]["calls"]
    assert told["swaps"]["loads"] == 5 and told["swaps"]["unloads"] == 3
    assert sum(each["calls"] for each in told["by_model"]) == len(asked)
