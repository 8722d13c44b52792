"""Distillation: whatever a model claims, only what the person's own words bear out is believed."""

import json

import pytest
from lived import lived, message, put

from knowme import extract, facts, profile, rebuild, structure
from knowme.cli import run as knowme
from knowme.commands import personality  # noqa: F401 (its commands)
from knowme.db import rows, value
from knowme.errors import InputError
from knowme.home import Home
from knowme.learn import borne, distil, interview, runs
from knowme.types import ME, Query

DAY = 86_400_000
SHORT = interview.questions()[16:20]  # of preferences: patterns
SAID = (
    "By the way I drink rooibos every day at home.",
    "For the record, my cat is now called Pixel.",
    "My sister says I live in Bergen, which is nonsense.",
    "If I ever drink coffee, it is decaf.",
    "My partner is allergic to walnuts.",  # shares all words but whose it is
)
LIES = (
    "You are allergic to walnuts.",
    "You live in Bergen.", "You drink coffee.", "You are allergic to rooibos.", "You hate rooibos.",
    "You work at the bank.", "Your sister is called Ottilie.", "Your cat is called Bartok.",
    "You were born in 1912.", "You want answers in German.", "You always eat meat.",
)  # fmt: skip


def interviewed(home, *answers, purpose="assistant-for-me", questions=SHORT):
    """Make a run whose model says all of this to every question, each time it is asked."""
    run = runs.create(home.path, purpose)
    told = " ".join(answers)
    interview.ask(run, lambda messages, **_: told, questions, samples=2)
    return run


def told_by(home, run):
    with home.db.read() as conn:
        found = facts.believed(conn, states=facts.STATES, limit=9999)
    return [fact for fact in found if fact.read_by == distil.reader(run)]


def items(home, kind="pattern"):
    with home.db.read() as conn:
        return rows(conn, "SELECT id, uid, text FROM items WHERE kind = ? ORDER BY id", (kind,))


@pytest.fixture
def said(home):
    """A home in which the person said a few things, read by the rules."""
    ids = put(home, *SAID)
    structure.catch_up(home)
    return ids


@pytest.fixture
def habit(home):
    """The person says on three days that they test before they ship."""
    ids = [
        put(home, text, session=f"day{number}", start=1_700_000_000_000 + number * DAY)[0]
        for number, text in enumerate(
            ("Honestly, I test before I ship.", "I always test before I ship.",
             "It was late, and I still test before I ship.")
        )
    ]  # fmt: skip
    structure.catch_up(home)
    return ids


def told_habit(home):
    return interviewed(home, "You test before you ship.")


# --- the one law --------------------------------------------------------------------------------


def test_of_a_liar_nothing_is_believed_however_often_it_says_so(home, said) -> None:
    with home.db.read() as conn:
        before = facts.counts(conn)
    made = distil.extract(home, run := interviewed(home, *LIES))
    assert made.believed == made.patterns == made.lines == 0 and not told_by(home, run)
    assert made.hearsay >= len(LIES) - 1 and items(home) == []
    with home.db.read() as conn:
        assert facts.counts(conn) == before
    hearsay = [row["text"] for row in distil.listed(run)["hearsay"]]
    assert "I live in Bergen." in hearsay and "I am allergic to rooibos." in hearsay
    assert all(row["why"] for row in distil.listed(run)["hearsay"])


def test_what_the_persons_own_words_bear_out_is_believed_with_their_span(home, said) -> None:
    run = interviewed(home, "You drink rooibos. Your cat is called Pixel.", *LIES)
    made = distil.extract(home, run)
    assert made.believed == 2
    found = {fact.attribute: fact for fact in told_by(home, run)}
    assert {fact.sentence for fact in found.values()} == {"I drink rooibos.", "My cat is Pixel."}
    tea = found["drinks"]
    assert (tea.message_id, tea.subject, tea.state) == (said[0], ME, "believed")
    with home.db.read() as conn:
        text = value(conn, "SELECT plain(text) FROM messages WHERE id = ?", (said[0],))
        (evidence,) = facts.evidence(conn, tea.uid)
    assert text[evidence.start : evidence.end] == evidence.quote == SAID[0]
    hits = home.search(Query("which rooibos do I drink", top_k=3))
    assert hits[0].message_ids == (said[0],) and hits[0].why["fact"] == "I drink rooibos."


def test_one_answer_alone_is_not_believed(home, said) -> None:
    run = runs.create(home.path, "assistant-for-me")
    answers = iter(["You drink rooibos.", "You sing.", "I cannot say.", "Who knows?"])
    interview.ask(run, lambda messages, **_: next(answers), SHORT[:2], samples=2)
    assert distil.extract(home, run).believed == 0
    why = {row["text"]: row["why"] for row in distil.listed(run)["hearsay"]}
    assert why["I drink rooibos."] == distil.ONE_ANSWER


def test_the_words_of_others_and_of_an_assistant_are_no_evidence(home) -> None:
    put(home, "I drink mate at noon, by the way.", speaker="Oksana", other=True)
    put(home, "By the way I drink mate every day at home.", role="assistant", session="bot")
    put(home, "Ana wrote: “I drink mate every day at home.”", session="quote")
    structure.catch_up(home)
    run = interviewed(home, "You drink mate.")
    made = distil.extract(home, run)
    assert made.believed == made.confirmed == 0 and told_by(home, run) == []


def test_what_is_known_is_confirmed_and_what_was_so_once_is_not_believed_again(home) -> None:
    put(home, "I live in Porto.")
    put(home, "I live in Gaia now.", session="later", start=1_720_000_000_000)
    structure.catch_up(home)
    run = interviewed(home, "You live in Gaia. You live in Porto.")
    made = distil.extract(home, run)
    assert (made.confirmed, made.outdated, made.believed) == (1, 1, 0)
    assert told_by(home, run) == []
    (row,) = distil.listed(run)["hearsay"]
    assert row["why"] == distil.WAS_SO


def test_what_the_person_took_back_stays_so(home, said) -> None:
    run = interviewed(home, "You drink rooibos.")
    distil.extract(home, run)
    (tea,) = told_by(home, run)
    home.db.write(lambda conn: facts.decide(conn, "reject", tea.uid, 1_800_000_000_000))
    distil.extract(home, run)
    with home.db.read() as conn:
        held = [fact.sentence for fact in facts.believed(conn)]
    assert "I drink rooibos." not in held


def test_what_the_store_knows_and_no_answer_told_is_unknown(home) -> None:
    ids = put(home, "I live in Porto.", "I work at Frioeste.")
    structure.catch_up(home)
    run = interviewed(home, "You live in Porto.")
    made = distil.extract(home, run)
    assert (made.known, made.unknown) == (2, 1)
    (row,) = distil.listed(run)["unknown"]
    assert row["sentence"] == "I work at Frioeste." and row["because"] == [ids[1]]


# --- it lasts and goes as other facts do --------------------------------------------------------


def test_extracting_again_changes_nothing_and_asks_nobody(home, said) -> None:
    run = interviewed(home, "You drink rooibos. Your cat is called Pixel.")
    first = distil.extract(home, run)
    with home.db.read() as conn:
        events = value(conn, "SELECT count(*) FROM events")
    again = distil.extract(home, run)
    assert again._replace(lines=0) == first._replace(lines=0) and again.lines == 0
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM events") == events


def test_it_goes_with_its_message_and_the_runs_rows_go_too(home, said) -> None:
    run = interviewed(home, "You drink rooibos. Your cat is called Pixel.")
    distil.extract(home, run)
    message(home, said[0])
    assert [fact.value for fact in told_by(home, run)] == ["Pixel"]
    left = b"".join(path.read_bytes() for path in run.path.iterdir())
    assert b"rooibos" not in left
    assert run.stale
    with pytest.raises(InputError, match="stale"):
        distil.extract(home, run)


def test_it_goes_when_its_message_leaves_recall(home, said) -> None:
    run = interviewed(home, "You drink rooibos.")
    distil.extract(home, run)
    home.db.write(
        lambda conn: conn.execute("UPDATE messages SET retired_ms = 5 WHERE id = ?", (said[0],))
    )
    extract.catch_up(home)
    assert told_by(home, run) == []


def test_reading_all_again_keeps_it_judged_anew(home, said) -> None:
    run = interviewed(home, "You drink rooibos. Your cat is called Pixel.")
    distil.extract(home, run)
    before = {(fact.uid, fact.state, fact.quote) for fact in told_by(home, run)}
    rebuild.rebuild(home, "facts")
    rebuild.rebuild(home, "items")
    assert {(fact.uid, fact.state, fact.quote) for fact in told_by(home, run)} == before
    # A gate that has become stricter is heard: here a quote that is another's words since.
    home.db.write(
        lambda conn: conn.execute(
            "UPDATE facts SET end = end - 12, quote = 'x' WHERE read_by LIKE 'personality:%'"
            " AND attribute = 'cat'"
        )
    )
    rebuild.rebuild(home, "facts")
    states = {fact.attribute: fact.state for fact in told_by(home, run)}
    assert states == {"drinks": "believed", "cat": "quarantined"}


def test_what_is_sensitive_is_not_learned_where_that_is_off(tmp_path) -> None:
    Home.create(tmp_path / "home")
    given = {"embedder.kind": "hashing", "engine.kind": "echo", "privacy.sensitive": "off"}
    with Home.open(tmp_path / "home", given) as home:
        put(home, "By the way I am allergic to penicillin every day at home.")
        run = interviewed(home, "You are allergic to penicillin.")
        assert distil.extract(home, run).believed == 0
        assert not told_by(home, run)


def test_a_line_of_the_profile_comes_of_two_places(home) -> None:
    first = put(home, "By the way I drink rooibos every day at home.")
    second = put(home, "By the way I drink rooibos every night at home.", session="other",
                 start=1_710_000_000_000)  # fmt: skip
    structure.catch_up(home)
    run = interviewed(home, "You drink rooibos.")
    assert distil.extract(home, run).lines == 1
    with home.db.read() as conn:
        (line,) = [one for one in profile.lines(conn) if one.state == "current"]
    assert line.text == "Drinks rooibos" and line.written_by == distil.reader(run)
    assert {each.message_id for each in line.evidence} == {*first, *second}
    assert "Drinks rooibos" in (home.path / "USER_PROFILE.md").read_text("utf-8")


def test_withdrawing_takes_facts_patterns_and_lines_back(home, said, habit) -> None:
    run = interviewed(home, "You drink rooibos. You test before you ship.")
    distil.extract(home, run)
    assert told_by(home, run) and items(home)
    assert distil.withdraw(home, run) == (1, 1)
    assert not told_by(home, run) and not items(home)
    assert any("withdrawn" in why for why in distil.status(home)[0].stale)
    assert distil.extract(home, run).believed == 1
    assert distil.status(home)[0].stale == ()


# --- patterns -----------------------------------------------------------------------------------


def test_what_three_messages_of_two_days_say_is_a_pattern_that_search_finds(home, habit) -> None:
    made = distil.extract(home, told_habit(home))
    assert made.patterns == 1
    ((item, uid, text),) = items(home)
    assert text == "I test before I ship."
    hit = next(
        hit for hit in home.search(Query("test before ship", top_k=9)) if hit.kind == "pattern"
    )
    assert (hit.item_id, hit.uid, set(hit.message_ids)) == (item, uid, set(habit))
    assert hit.metadata == {"tags": ["personality", "auto-extracted"], "sources": ["ingest"]}
    assert hit.neighbours == ()
    only = home.search(Query("test before ship", kinds=("pattern",)))
    assert [each.uid for each in only] == [uid]


def test_twice_is_no_pattern_and_neither_is_thrice_on_one_day(home) -> None:
    put(home, "I test before I ship.", "I always test before I ship.",
        "Honestly, I test before I ship.")  # fmt: skip
    assert distil.extract(home, run := told_habit(home)).patterns == 0
    (row,) = distil.listed(run)["hearsay"]
    assert row["why"] == distil.TOO_SELDOM


def test_a_known_fact_that_was_said_three_times_is_a_pattern_too(home) -> None:
    for number in range(3):
        put(home, "I prefer short answers.", session=f"c{number}",
            start=1_700_000_000_000 + number * DAY)  # fmt: skip
    structure.catch_up(home)
    made = distil.extract(home, interviewed(home, "You prefer short answers."))
    assert made.confirmed >= 1 and made.patterns >= 1
    assert "I prefer short answers." in [text for _, _, text in items(home)]


@pytest.mark.parametrize("way", ["forget", "retire"])
def test_a_pattern_goes_with_any_of_its_messages(home, habit, way) -> None:
    distil.extract(home, told_habit(home))
    if way == "forget":
        message(home, habit[1])
    else:
        sql = "UPDATE messages SET retired_ms = 5 WHERE id = ?"
        home.db.write(lambda conn: conn.execute(sql, (habit[1],)))
        extract.catch_up(home)
    assert items(home) == []
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM because") == 0


def test_a_pattern_survives_rebuilding_with_its_words_and_its_vector(home, habit) -> None:
    distil.extract(home, told_habit(home))
    before = items(home)
    rebuild.rebuild(home)
    assert items(home) == before
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM vectors WHERE item_id = ?", (before[0][0],)) == 1
    assert home.search(Query("test before ship", kinds=("pattern",)))


def test_a_prompt_says_what_a_pattern_is_and_which_sources_it_repeats(home, habit) -> None:
    from knowme.context import _hit_sources, who

    distil.extract(home, told_habit(home))
    (hit,) = home.search(Query("test before ship", kinds=("pattern",)))
    assert who(hit) == "what the person said time and again"
    assert _hit_sources(hit) == ("ingest",)


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def call(home, said, habit, capsys):
    run = interviewed(home, "You drink rooibos. You test before you ship.", *LIES)
    distil.extract(home, run)
    path = home.path
    home.close()

    def run_it(*args):
        capsys.readouterr()
        code = knowme(["--home", str(path), *args])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def test_status_says_what_exists_how_old_and_what_is_stale(call) -> None:
    code, out, err = call("personality", "status")
    assert code == 0, err
    assert "holds now: 1 fact, 1 pattern" in out and "0 messages came since" in out
    (told,) = json.loads(call("personality", "status", "--json")[1])["runs"]
    assert told["facts"] == told["patterns"] == 1 and told["stale"] == []


def test_the_lists_are_shown_and_facts_why_tells_where_a_fact_is_from(call) -> None:
    code, out, err = call("personality", "show")
    assert code == 0 and "I drink rooibos." in out, err
    code, out, _ = call("personality", "show", "hearsay")
    assert "I live in Bergen." in out and "bears it out" in out
    assert json.loads(call("personality", "show", "unknown", "--json")[1])["count"] >= 0
    uid = json.loads(call("facts", "--about", "rooibos", "--json")[1])["facts"][0]["uid"]
    code, out, _ = call("facts", "why", uid)
    assert "personality:" in out and "(personality, auto-extracted)" in out
    assert SAID[0] in out
    told = json.loads(call("facts", "why", uid, "--json")[1])
    assert told["tags"] == ["personality", "auto-extracted"] and told["evidence"]


def test_undo_takes_it_back_and_what_is_missing_is_named(call) -> None:
    code, out, err = call("personality", "undo")
    assert code == 0 and "1 fact" in out and "1 pattern" in out, err
    assert json.loads(call("facts", "--about", "rooibos", "--json")[1])["count"] == 0
    code, _, err = call("personality", "extract", "no-such-run")
    assert code == 1 and "no-such-run" in err
    code, _, err = call("personality", "extract", "--samples", "3")
    assert code == 1 and "export" in err  # its third answers are to be asked, and it has no adapter


# --- the real packaged model --------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.slow
def test_nothing_that_the_real_model_makes_up_is_believed(models, tmp_path) -> None:
    from knowme.learn.served import Served

    path = lived(tmp_path)
    with Home.open(path) as home, Served(models["chat"], threads=1) as model:
        with home.db.read() as conn:
            before = {fact.uid for fact in facts.believed(conn, limit=9999)}

        def ask(messages, *, seed, temperature, max_tokens):
            return model.generate(messages, (), max_tokens // 3, temperature, seed)

        for purpose in ("assistant-for-me", "sound-like-me"):
            run = runs.create(path, purpose)
            interview.ask(run, ask, interview.questions()[:60:5], samples=2)
            made = distil.extract(home, run)
            assert made.hearsay > 0, "the model said nothing that can be checked"
            with home.db.read() as conn:
                now = {fact.uid: fact for fact in facts.believed(conn, limit=9999)}
            assert before <= now.keys(), "what it says displaced what is known"
            for uid in now.keys() - before:  # if any, in the person's own words
                fact = now[uid]
                assert borne.out(fact.sentence, fact.quote) and fact.read_by.startswith(distil.BY)


@pytest.mark.model
@pytest.mark.slow
def test_extract_serves_the_runs_adapter_once_and_then_asks_nobody(
    models, tmp_path, capsys
) -> None:
    pytest.importorskip("gguf")
    from adapters import random_adapter

    Home.create(tmp_path / "home")
    (tmp_path / "home" / "config.yaml").write_text(
        "embedder: {kind: hashing}\nengine: {kind: echo}\nlearn: {threads: 1}\n", "utf-8"
    )
    with Home.open(tmp_path / "home") as home:
        put(home, *SAID)
        structure.catch_up(home)
        run = runs.create(home.path, "assistant-for-me")
    adapter = random_adapter(run.path / "adapter.gguf", 0.0)
    run.done("data", counts={})
    run.done("train", base=str(models["chat"]))
    run.done("export", files={"adapter": {"file": adapter.name, "sha256": "5a" * 32}})
    asked = tmp_path / "mine.yaml"
    asked.write_text(
        'themes: {tea: {questions: [{me: "What do I drink?", you: "What do you drink?"}]}}', "utf-8"
    )

    def extract_it():
        capsys.readouterr()
        told = ("personality", "extract", "--samples", "2", "--questions", str(asked), "--json")
        code = knowme(["--home", str(tmp_path / "home"), *told])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    first = extract_it()
    assert first["answers"] == 2 and first["run"] == run.id
    assert all(row["answer"] and row["model"] == "5a" * 8 for row in interview.read(run))
    adapter.unlink()  # nobody is served any more
    assert extract_it() == first
