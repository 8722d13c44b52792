"""`knowme facts`, `knowme inbox` and `knowme rebuild`, as a person meets them."""

import json
from datetime import UTC, datetime

import pytest

from knowme import facts
from knowme.cli import run
from knowme.db import value
from knowme.facts import Reading
from knowme.home import Home
from knowme.sync import totals
from knowme.times import period as held
from knowme.types import ME, Claim, When

CONFIG = """
embedder: {{kind: hashing}}
engine: {{kind: echo}}
sources:
  - {{kind: markdown, path: {notes}}}
"""
MARCH = "# Journal\n\nI live in Porto. I work at Frioeste. My sister Ana lives in Berlin.\n"
MAY = "# Journal\n\nI live in Gaia now. I'm allergic to penicillin. Galp has called me again.\n"


@pytest.fixture
def knowme(capsys, monkeypatch, tmp_path):
    """Run a command line in this process, in a home that has learned from two journals."""
    monkeypatch.setenv("KNOWME_HOME", str(tmp_path / "home"))

    def call(*args):
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return code, out, err

    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "2026-03-14.md").write_text(MARCH, "utf-8")
    (notes / "2026-05-02.md").write_text(MAY, "utf-8")
    assert call("init", "--no-detect")[0] == 0
    (tmp_path / "home" / "config.yaml").write_text(CONFIG.format(notes=notes), "utf-8")
    return call


@pytest.fixture
def told(knowme):
    assert knowme("sync")[0] == 0
    return knowme


def name_of(knowme, words: str, *options: str) -> str:
    """Return how the list calls the fact with these words."""
    _, out, _ = knowme("facts", *options)
    (line,) = [line for line in out.splitlines() if words in line and "“" not in line]
    return line.split()[0]


def test_the_list_tells_whose_it_is_what_since_when_the_words_and_a_name_to_act_on(told) -> None:
    code, out, err = told("facts")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "you" and "Ana" in lines
    at = next(n for n, line in enumerate(lines) if "I live in Gaia" in line)
    assert "since some day between 2026-03-14 and 2026-05-02" in lines[at]
    assert lines[at + 1].strip() == "“I live in Gaia now”  2026-05-02"
    assert "(health)" in next(line for line in lines if "penicillin" in line)
    assert "I live in Porto." not in out
    name = name_of(told, "I live in Gaia")
    assert len(name) == 6 and told("facts", "why", name)[0] == 0


def test_the_list_narrows_by_words_by_state_and_by_day(told) -> None:
    _, out, _ = told("facts", "--about", "sister berlin")
    assert "Gaia" not in out
    _, out, _ = told("facts", "--about", "berlin")
    assert "Ana lives in Berlin." in out and "Gaia" not in out
    _, out, _ = told("facts", "--all")
    assert "superseded: I live in Porto." in out
    _, out, _ = told("facts", "--state", "superseded")
    assert "Porto" in out and "Gaia" not in out
    _, out, _ = told("facts", "--on", "2026-03-14", "--about", "live")
    assert "I live in Porto." in out and "superseded" not in out
    code, out, err = told("facts", "--about", "zeppelin")
    assert code == 0 and not out and "Nothing is believed about 'zeppelin'." in err
    _, out, _ = told("facts", "--limit", "1")
    assert "more: --limit" in out


def test_as_of_is_what_was_believed_then_and_an_early_day_points_to_on(told) -> None:
    between = datetime.now(UTC).isoformat()
    told("facts", "retire", name_of(told, "I work at Frioeste"))
    assert "Frioeste" not in told("facts")[1]
    _, out, _ = told("facts", "--as-of", between)
    assert "I work at Frioeste." in out and "retired" not in out
    code, out, err = told("facts", "--as-of", "2026-03-20")
    assert code == 0 and not out
    assert f"knowme has known facts since {datetime.now().astimezone():%Y-%m-%d}" in err
    assert "knowme facts --on 2026-03-20" in err
    assert told("facts", "--as-of", "soon")[0] == 1


def test_an_empty_memory_says_where_facts_come_from(knowme) -> None:
    for asked in (["facts"], ["facts", "--as-of", "2026-01-01"]):
        code, out, err = knowme(*asked)
        assert code == 0 and not out and "knowme sync" in err
    assert "Nothing waits" in knowme("inbox")[2]
    assert knowme("rebuild", "all")[0] == 0


def test_json_of_the_list_names_everything(told) -> None:
    _, out, _ = told("facts", "--json", "--about", "gaia")
    (one,) = json.loads(out)["facts"]
    assert (one["subject"], one["state"], one["value"]) == (ME, "believed", "Gaia")
    assert one["said"].startswith("2026-05-02") and one["when"]["from_last"] == "2026-05-02"


def test_why_shows_the_words_where_they_stand_and_what_became_of_it(told) -> None:
    _, out, _ = told("facts", "why", name_of(told, "Porto", "--all"))
    assert "“I live in Porto”" in out and "2026-03-14.md" in out
    assert "Superseded by:" in out and "I live in Gaia." in out
    _, out, _ = told("facts", "why", "--json", name_of(told, "I live in Gaia"))
    shown = json.loads(out)
    assert shown["evidence"][0]["quote"] == "I live in Gaia now" and shown["decisions"] == []


@pytest.mark.parametrize("ref", ["zzzz", "", "0" * 16])
def test_a_name_that_is_none_is_refused_with_the_mend(told, ref) -> None:
    code, out, err = told("facts", "why", ref)
    assert code == 1 and not out and "knowme facts" in err


def test_the_person_corrects_pins_retires_and_takes_it_back(told) -> None:
    name = name_of(told, "I work at Frioeste")
    _, out, _ = told("facts", "edit", name, "Galp", "Energia")
    assert "I work at Galp Energia." in out and f"knowme facts undo {name}" in out
    assert "I work at Galp Energia." in told("facts")[1]
    _, out, _ = told("facts", "undo", name)
    assert "Taken back: edit." in out and "I work at Frioeste." in told("facts")[1]
    told("facts", "pin", name)
    assert "pinned" in told("facts", "--about", "frioeste")[1]
    assert "you: pin" in told("facts", "why", name)[1]
    told("facts", "unpin", name)
    assert "pinned" not in told("facts")[1]
    told("facts", "retire", name)
    assert "Frioeste" not in told("facts")[1]
    _, out, _ = told("facts", "undo")
    assert "Taken back: retire." in out and "I work at Frioeste." in told("facts")[1]
    assert told("facts", "edit", name)[0] == 2  # no value


def test_a_day_tells_what_is_known_of_it_from_what_was_told_later(told) -> None:
    _, out, _ = told("facts", "--on", "2026-04-01")
    sure, perhaps = out.split("perhaps so on 2026-04-01")
    assert "I work at Frioeste." in sure and "penicillin" not in sure
    assert "penicillin" in perhaps and "Frioeste" not in perhaps
    _, out, _ = told("facts", "--on", "2026-04-01", "--json")
    marked = {one["value"]: one["perhaps"] for one in json.loads(out)["facts"]}
    assert marked["Frioeste"] is False and marked["penicillin"] is True


def test_who_they_are_stands_before_what_happened(told, tmp_path) -> None:
    (tmp_path / "notes" / "2026-06-01.md").write_text(
        "# Journal\n\nI bought a bike. My name is Rosa Lima. Galp has called.\n", "utf-8"
    )
    assert told("sync")[0] == 0
    lines = [line for line in told("facts")[1].splitlines() if "“" not in line]
    assert "My name is Rosa Lima." in lines[1]
    at = {
        word: next(n for n, line in enumerate(lines) if word in line) for word in ("Gaia", "bike")
    }
    assert at["Gaia"] < at["bike"]


def test_a_corrected_fact_says_that_its_quote_says_something_else(told) -> None:
    name = name_of(told, "I work at Frioeste")
    told("facts", "edit", name, "Galp")
    _, out, _ = told("facts", "--about", "galp")
    assert "corrected by you" in out and "was read in: “I work at Frioeste”" in out
    assert "corrected by you" in told("facts", "why", name)[1]
    told("facts", "undo", name)
    assert "corrected" not in told("facts")[1]


@pytest.mark.parametrize(
    ("decided", "again"), [("retire", "retire"), ("pin", "pin"), ("", "unpin")]
)
def test_a_decision_that_holds_already_is_not_kept_twice(told, decided, again) -> None:
    name = name_of(told, "I work at Frioeste")
    if decided:
        told("facts", decided, name)
    before = told("facts", "history", "--json", name)[1]
    code, _, err = told("facts", again, name)
    assert code == 0 and "It is so already" in err
    assert told("facts", "history", "--json", name)[1] == before


def test_undoing_twice_says_that_it_holds_again(told) -> None:
    told("facts", "retire", name_of(told, "I work at Frioeste"))
    assert "Taken back: retire." in told("facts", "undo")[1]
    assert "It holds again." in told("facts", "undo")[1]
    assert "Frioeste" not in told("facts")[1]


def test_a_correction_is_found_by_its_words_and_stands_in_the_profile(told, tmp_path) -> None:
    page = tmp_path / "home" / "USER_PROFILE.md"
    assert "Frioeste" in page.read_text("utf-8")
    told("facts", "edit", name_of(told, "I work at Frioeste"), "Nordwind")
    assert "Nordwind" in page.read_text("utf-8") and "Frioeste" not in page.read_text("utf-8")
    with Home.open(tmp_path / "home") as home, home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM items WHERE text LIKE '%Nordwind%'") == 1
        assert totals(home)["pending"] == 0


def test_history_tells_every_change_and_blame_who_made_each_part(told) -> None:
    name = name_of(told, "I work at Frioeste")
    told("facts", "edit", name, "Galp")
    _, out, _ = told("facts", "history", name)
    assert "learned by rules" in out and "edit by person" in out
    assert "value: Frioeste → Galp" in out
    _, out, _ = told("facts", "history", "--json", name)
    assert [event["action"] for event in json.loads(out)] == ["learned", "edit"]
    _, out, _ = told("facts", "blame", "--json", name)
    parts = json.loads(out)
    assert (parts["value"]["by"], parts["value"]["is"]) == ("person", "Galp")
    assert parts["quote"]["by"] == "rules"
    assert "edit by person" in told("facts", "blame", name)[1]


def doubt(home_path) -> None:
    """Let a hedged claim contradict what is believed: it waits for the person."""
    with Home.open(home_path) as home:

        def write(conn) -> None:
            found = "SELECT id FROM messages WHERE text LIKE '%Galp%'"
            message = value(conn, found)
            text = value(conn, "SELECT text FROM messages WHERE id = ?", (message,))
            start = text.index("Galp")
            claim = Claim(
                ME, "employer", "Galp", "I work at Galp.", start, start + 20,
                When("2026-05-02", "2026-05-02"), certain=False, read_by="model:m",
            )  # fmt: skip
            facts.learn(conn, [Reading(message, "model:m", [(claim, "")])], 1)

        home.db.write(write)


@pytest.mark.parametrize(
    ("choice", "believed"),
    [("new", {"Galp"}), ("old", {"Frioeste"}), ("both", {"Galp", "Frioeste"}), ("neither", set())],
)
def test_a_doubt_is_shown_with_both_quotes_and_settled_by_one_word(
    told, tmp_path, choice, believed
) -> None:
    doubt(tmp_path / "home")
    assert "1 doubt for you to settle: knowme inbox" in told("facts")[1]
    _, out, _ = told("inbox")
    assert "new: I work at Galp." in out and "old: I work at Frioeste." in out
    assert "“I work at Frioeste”  2026-03-14" in out and "“Galp has called me" in out
    name = out.split()[0]
    assert f"knowme inbox answer {name} new|old|both|neither" in out
    _, out, _ = told("inbox", "--json")
    assert json.loads(out)["doubts"][0]["against"]["value"] == "Frioeste"
    code, _, err = told("inbox", "answer", name, choice)
    assert code == 0, err
    _, out, _ = told("facts", "--json")
    work = {one["value"] for one in json.loads(out)["facts"] if one["attribute"] == "employer"}
    assert work == believed
    assert "Nothing waits" in told("inbox")[2]
    assert told("inbox", "answer", name, "maybe")[0] == 2


def test_rebuild_says_what_it_made_and_a_difference_changes_nothing(told, tmp_path) -> None:
    before = told("facts")[1]
    for what in ("items", "index", "facts", "summaries", "profile"):
        code, out, err = told("rebuild", what)
        assert code == 0 and out.startswith(f"{what}: "), err
    assert told("facts")[1] == before
    assert told("rebuild", "all", "--diff")[1] == "Nothing would change.\n"
    with Home.open(tmp_path / "home") as home:
        home.db.write(lambda c: c.execute("DELETE FROM facts WHERE attribute = 'employer'"))
    _, out, _ = told("rebuild", "facts", "--diff")
    assert "Would be learned (1):" in out and "I work at Frioeste." in out
    assert "Frioeste" not in told("facts")[1]
    _, out, _ = told("rebuild", "facts", "--diff", "--json")
    assert json.loads(out)["learned"][0]["quote"] == "I work at Frioeste"
    assert list(json.loads(told("rebuild", "facts", "--json")[1])) == ["facts"]
    assert told("facts")[1] == before


def test_what_cannot_be_rebuilt_is_refused_with_what_can(told) -> None:
    code, _, err = told("rebuild", "archive")
    assert code == 2 and "items" in err and "profile" in err
    code, _, err = told("rebuild", "items", "--diff")
    assert code == 1 and "facts, profile" in err
    code, _, err = told("rebuild", "facts", "--model", "nobody")
    assert code == 1 and "nobody" in err


def test_reading_now_says_that_there_is_nothing_new(told, tmp_path) -> None:
    assert "nothing new" in told("facts", "read")[1]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (When(), ""),
        (When("2026-03-01", "2026-03-31"), "since March 2026"),
        (When("2019-01-01", "2019-12-31"), "since 2019"),
        (When("1990-01-01", "1999-12-31"), "since 1990 to 1999"),
        (When("2026-03-14", "2026-03-14"), "since 2026-03-14"),
        (When("2026-03-14", "2026-05-02"), "since some day between 2026-03-14 and 2026-05-02"),
        (When("", "2026-03-14"), "by 2026-03-14"),
        (When("2026-03-14", ""), "after 2026-03-14"),
        (When(to_first="2026-02-01", to_last="2026-02-28"), "until February 2026"),
        (When(to_last="2026-02-28"), "over by 2026-02-28"),
        (When(*["2026-03-14"] * 4), "on 2026-03-14"),
        (When(*["2026-03-01", "2026-03-31"] * 2), "in March 2026"),
        (When(*["2024-02-01", "2024-02-29"] * 2), "in February 2024"),
        (When(*["2026-12-01", "2026-12-31"] * 2), "in December 2026"),
        (When(*["2026-03-14", "2026-03-20"] * 2), "between 2026-03-14 and 2026-03-20"),
        (When(*["", "2026-03-14"] * 2), "by 2026-03-14"),
        (When("2018-01-01", "2018-12-31", "2021-03-01", "2021-03-31"), "2018 to March 2021"),
        (When("", "2026-03-14", "2026-05-02", "2026-05-02"), "by 2026-03-14, until 2026-05-02"),
        (When("9999-12-01", "9999-12-31"), "since December 9999"),
    ],
)
def test_when_something_was_so_reads_as_a_person_says_it(when, expected) -> None:
    assert held(when) == expected


def test_a_decision_is_kept_where_the_embedder_is_down_and_its_vector_waits(told, tmp_path) -> None:
    config = tmp_path / "home" / "config.yaml"
    down = 'embedder: {kind: ollama, model: x, url: "http://127.0.0.1:9"}'
    config.write_text(config.read_text("utf-8").replace("embedder: {kind: hashing}", down), "utf-8")
    code, out, err = told("facts", "edit", name_of(told, "I work at Frioeste"), "Nordwind")
    assert code == 0 and "I work at Nordwind." in out, err
    with Home.open(tmp_path / "home") as home, home.db.read() as conn:
        queued = "SELECT count(*) FROM jobs WHERE kind = 'reindex' AND state = 'queued'"
        assert value(conn, queued) == 1
