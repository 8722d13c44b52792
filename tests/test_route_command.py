"""`knowme route` and `knowme rate`, as a person meets them."""

import json

import pytest

from knowme.cli import run
from knowme.commands import route
from knowme.errors import InputError

CONFIG = """
embedder: {kind: hashing}
models:
  primary: {engine: echo}
  fast: {engine: echo}
  code: {engine: echo}
  cloud: {engine: openai, model: x, url: "https://api.example.org/v1", price_in: 2, price_out: 9}
routing:
  rules:
    - {pattern: "wetter|weather", model: fast}
    - {pattern: "(a+)+$", model: cloud}
"""


@pytest.fixture
def knowme(capsys, monkeypatch, tmp_path):
    """Run a command line in this process, in a home with four models, none of which is asked."""
    monkeypatch.setenv("KNOWME_HOME", str(tmp_path / "home"))

    def call(*args):
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    assert call("init", "--no-detect")[0] == 0
    (tmp_path / "home" / "config.yaml").write_text(CONFIG, "utf-8")
    return call


def test_route_explains_and_asks_nobody(knowme) -> None:
    code, out, err = knowme("route", "def f(x): return x")
    assert code == 0, err
    assert out.startswith("code answers (by what the message looks like")
    assert "If it fails:" in out and "Nothing would leave this machine." in out
    assert "May leave this machine: your question." in out


def test_route_shows_what_would_leave_for_a_remote_model(knowme) -> None:
    code, out, err = knowme("route", "/cloud why is the sky blue")
    assert code == 0, err
    assert out.startswith("cloud answers") and "you asked for cloud" in out.lower()
    assert "https://api.example.org/v1" in out and "question" in out


def test_route_prints_one_json_document(knowme) -> None:
    code, out, _ = knowme("route", "--json", "how is the weather")
    told = json.loads(out)
    assert code == 0 and (told["model"], told["stage"]) == ("fast", "rule")
    assert told["explained"] and told["leaves"]["to"] == ""
    assert told["message"] == "how is the weather"


def test_route_reads_stdin_and_tells_of_a_slow_rule(knowme, monkeypatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("a" * 5000 + "!"))
    code, out, _ = knowme("route", "-")
    assert code == 0 and "Rule 2" in out and "took longer than" in out


def test_a_bad_rule_is_refused_with_its_place(knowme, tmp_path) -> None:
    config = tmp_path / "home" / "config.yaml"
    config.write_text(CONFIG.replace("wetter|weather", "(wetter"), "utf-8")
    code, _, err = knowme("route", "hi")
    assert code == 1 and "rule 1" in err and "position 8" in err and "^" in err


@pytest.mark.parametrize("command", ["serve", "daemon", "chat"])
def test_a_bad_rule_is_refused_before_the_first_question(knowme, tmp_path, command) -> None:
    config = tmp_path / "home" / "config.yaml"
    config.write_text(CONFIG.replace("wetter|weather", "(wetter"), "utf-8")
    code, out, err = knowme(command)
    assert code == 1 and "position 8" in err and "listens" not in out


def test_an_ask_says_why_it_was_not_answered_where_it_was_sent(knowme, monkeypatch) -> None:
    monkeypatch.setenv("KNOWME_OFFLINE", "true")
    code, out, err = knowme("ask", "/cloud why is the sky blue")
    assert code == 0, err
    assert "offline is set" in " ".join(out.split())


def test_another_engine_for_once_takes_the_configured_models_away(knowme) -> None:
    code, out, err = knowme("ask", "--engine", "echo", "/cloud how is the weather")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("echo, ")
    assert json.loads(knowme("ask", "--engine", "echo", "--json", "hi")[1])["role"] == "primary"


def test_a_rating_in_a_chat_is_of_the_answer_that_was_shown_there(
    knowme, monkeypatch, tmp_path
) -> None:
    from knowme import chat
    from knowme.db import rows
    from knowme.home import Home

    def typed(_):
        yield "hello"
        with Home.open(tmp_path / "home") as other:
            ask_elsewhere(other)
        yield from ("/rate nine", "/rate 4")

    monkeypatch.setattr(chat, "_lines", typed)
    code, _, err = knowme("chat")
    assert code == 0 and "'nine' is no rating." in err and "up, down" in err
    with Home.open(tmp_path / "home") as home, home.db.read() as conn:
        assert rows(conn, "SELECT max(id) FROM answers") == [(2,)]
        kept = rows(
            conn,
            "SELECT c.answer_id, o.kind, o.value FROM outcomes o"
            " JOIN choices c ON c.id = o.choice_id",
        )
        assert kept == [(1, "rating", "4")]


def ask_elsewhere(home) -> None:
    """Another program asks the same home; in a loop of its own, as that program would."""
    import asyncio
    import threading

    from knowme.ask import Asked, ask

    async def whole():
        async for _ in ask(home, Asked("how is the weather")):
            pass

    thread = threading.Thread(target=lambda: asyncio.run(whole()))
    thread.start()
    thread.join(20)


def test_rate_is_kept_with_the_answer(knowme) -> None:
    assert knowme("ask", "hello there")[0] == 0
    code, out, err = knowme("rate", "4")
    assert code == 0, err
    assert out.strip() == "Answer 1: 4. Noted."
    assert json.loads(knowme("rate", "1", "down", "--json")[1]) == {
        "answer": 1, "kind": "down", "value": "",
    }  # fmt: skip
    code, _, err = knowme("rate", "--better", "cloud")
    assert code == 1 and "no second answer" in err


def test_rate_without_an_answer_says_what_to_do(knowme) -> None:
    code, _, err = knowme("rate", "up")
    assert code == 1 and "mend:" in err


@pytest.mark.parametrize(
    ("words", "better", "meant"),
    [
        (["4"], None, ("last", "rating", "4")),
        (["12", "5"], None, ("12", "rating", "5")),
        (["last", "UP"], None, ("last", "up", "")),
        (["down"], None, ("last", "down", "")),
        ([], "local", ("last", "better", "local")),
        (["3"], "same", ("3", "better", "same")),
    ],
)
def test_a_rating_may_be_said_in_several_ways(words, better, meant) -> None:
    assert route.meant(words, better) == meant


@pytest.mark.parametrize(
    ("words", "better"), [([], None), (["6"], None), (["good"], None), (["1", "2", "3"], None),
                          (["1", "2"], "cloud")]
)  # fmt: skip
def test_a_rating_that_is_none_is_refused_with_the_legal_ones(words, better) -> None:
    with pytest.raises(InputError) as caught:
        route.meant(words, better)
    assert caught.value.hint
