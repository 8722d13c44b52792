"""Reading for facts: who speaks, in whatever order it came in, by rules and by a model."""

import json
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import home_of, model_server

from knowme import egress, extract, facts, fingerprints, gate, reading
from knowme.archive import find_conversation, retire
from knowme.db import rows
from knowme.errors import ModelError
from knowme.settings import PrivacySettings, Settings, SourceSettings
from knowme.spans import shingles
from knowme.sync import ingest, store
from knowme.types import ME, Claim, Record

T0 = 1_772_000_000_000
DAY = 86_400_000
AWAY = {"engine": "openai", "model": "big-70b", "local": "false"}


def said(name, text, day=0, role="user", **more):
    return Record(
        more.pop("kind", "message"), more.pop("conversation", "talk"), name, role, text=text,
        at_ms=None if day is None else T0 + day * DAY, seq=more.pop("seq", day or 0),
        recall=more.pop("recall", role in ("user", "document")), **more,
    )  # fmt: skip


def bring(home, *records, source="chats"):
    store(home, source, [(record, None) for record in records])


def known(home, columns="uid, subject, attribute, value, state, reason"):
    with home.db.read() as conn:
        return rows(conn, f"SELECT {columns} FROM facts ORDER BY uid")


def believed(home, column="value"):
    with home.db.read() as conn:
        found = rows(conn, f"SELECT {column} FROM facts WHERE state IN ('believed', 'repeated')")
        return sorted(value for (value,) in found)


# --- who speaks ---------------------------------------------------------------------------------

NOTES = replace(
    Settings(name="Nora Lindqvist"),
    sources=(SourceSettings(kind="markdown", name="diary"), SourceSettings(kind="openclaw")),
)


@pytest.mark.parametrize(
    ("source", "conversation", "role", "speaker", "meta", "whose"),
    [
        ("openclaw", "c", "user", "", {}, ME),
        ("openclaw", "c", "user", "Nora", {}, ME),
        ("openclaw", "c", "user", "Bob", {"other": True}, "Bob"),
        ("openclaw", "c", "user", "", {"other": True}, ""),
        ("openclaw", "c", "user", "Nora", {"other": True}, ""),
        ("openclaw", "c", "user", "nora  lindqvist", {"other": True}, ""),
        ("openclaw", "c", "user", "me", {"other": True}, ""),
        ("openclaw", "c", "user", "Nora", {"other": True, "forwarded_from": "Gil"}, ""),
        ("openclaw", "c", "user", "", {"other": True, "subagent": True}, ""),
        ("openclaw", "c", "user", "", {"automated": "cron"}, ""),
        ("openclaw", "c", "assistant", "", {}, ""),
        ("openclaw", "c", "tool", "", {}, ""),
        ("openclaw", "c", "system", "", {}, ""),
        ("ingest", "c", "user", "", {}, ME),
        ("ingest", "c", "user", "Bob", {}, "Bob"),
        ("ingest", "c", "user", "Nora Lindqvist", {}, ME),
        ("ingest", "document/1", "document", "", {}, ""),
        ("diary", "2026/march.md", "document", "", {}, ME),
        ("diary", "2026/march.md", "document", "Bob", {}, ""),
        ("diary", "2026/march.md", "document", "", {"trust": "untrusted"}, ""),
        ("diary", "agent/MEMORY.md", "document", "", {}, ""),
        ("openclaw", "workspace/memory/2026-03-01.md", "document", "", {}, ""),
        ("openclaw", "memory-index/memory/x.md", "document", "", {}, ""),
        ("import:/home/n/notes", "old/diary.txt", "document", "", {}, ME),
        ("import:/home/n/claw", "workspace/USER.md", "document", "", {}, ""),
        ("feeds", "https://example.org/a", "document", "", {}, ""),
        ("markdown", "notes/a.md", "document", "", {}, ME),
    ],
)
def test_whose_words_a_message_is(source, conversation, role, speaker, meta, whose):
    assert extract.voice(NOTES, source, conversation, role, speaker, meta) == whose


def test_another_speaker_s_first_person_is_theirs(home):
    bring(home, said("a", "I live in Graz.", speaker="Bob", meta={"other": True}))
    extract.catch_up(home)
    assert ("Bob", "residence", "Graz") in [row[1:4] for row in known(home)]
    assert not [row for row in known(home) if row[1] == ME]


# --- catching up ---------------------------------------------------------------------------------


def test_each_message_is_read_once_and_a_new_one_the_next_time(home):
    bring(home, said("a", "I live in Graz."), said("b", "Noted.", role="assistant"))
    assert extract.catch_up(home).messages == 2
    assert extract.catch_up(home).messages == 0
    bring(home, said("c", "I work at Kestrel Labs.", 1))
    assert extract.catch_up(home).messages == 1
    assert believed(home) == ["Graz", "Kestrel Labs"]


def test_a_reading_that_is_cut_goes_on_where_it_ended(home, monkeypatch):
    monkeypatch.setattr(extract, "BATCH", 2)
    towns = "Graz Ghent Leeds Porto Turin Basel Bonn".split()
    bring(home, *(said(str(n), f"I was born in {town}.", n) for n, town in enumerate(towns)))

    def stop(done, total, what):
        if what == "reading" and done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract.catch_up(home, stop)
    assert len(known(home)) == 4
    assert extract.catch_up(home, limit=1).messages == 1
    assert extract.catch_up(home).messages == 2
    assert {row[3] for row in known(home)} == set(towns)


def test_what_is_learned_does_not_depend_on_the_order_in_which_it_came_in(tmp_path):
    records = [
        said("a", "I live in Graz.", 0),
        said("b", "I live in Ghent now.", 3),
        said("c", "Sure: I have kept bees on the roof of my house in Antwerp for years.", 1,
             role="assistant"),
        said("d", "I have kept bees on the roof of my house in Antwerp for years.", 2),
        said("e", "I work at Kestrel Labs and I'm allergic to walnuts.", 1, speaker="Bob",
             meta={"other": True}),
    ]  # fmt: skip
    seen = set()
    for number, order in enumerate(list(permutations(records))[::17]):
        with home_of(tmp_path / str(number)) as home:
            for record in order:
                bring(home, record)
                extract.catch_up(home)
            one_by_one = known(home)
            home.db.write(extract.start_over)
            extract.catch_up(home)
            assert known(home) == one_by_one, "reading it all again gives the same"
            seen.add(json.dumps(one_by_one))
    assert len(seen) == 1
    states = {row[3]: row[4] for row in json.loads(seen.pop())}
    assert states["Graz"] == "superseded" and states["Ghent"] == "believed"


def test_an_answer_that_comes_in_late_takes_back_what_was_pasted_from_it(home):
    text = "I work at the harbour office in Dover and I like the sea."
    bring(home, said("q", text, 5))
    extract.catch_up(home)
    assert believed(home) != []
    bring(home, said("a", f"A sample: {text}", 1, role="assistant"))
    extract.catch_up(home)
    assert believed(home) == []
    assert {row[4] for row in known(home)} == {"quarantined"}


def test_an_assistant_that_repeats_the_person_takes_nothing_from_them(home):
    text = "I work at the harbour office in Dover and I like the sea."
    bring(home, said("q", text, 1), said("a", f"Noted: {text}", 2, role="assistant"))
    extract.catch_up(home)
    assert believed(home) != []


def test_what_was_forgotten_is_no_longer_held_against_the_person(home):
    text = "I work at the harbour office in Dover and I like the sea."
    bring(home, said("a", text, 1, role="assistant"), said("q", text, 2))
    extract.catch_up(home)
    assert believed(home) == []

    def forget(conn):
        number = conn.execute("SELECT id FROM messages WHERE external_id = 'a'").fetchone()[0]
        assert fingerprints.drop(conn, [number]) > 0
        conn.execute("DELETE FROM messages WHERE id = ?", (number,))

    home.db.write(forget)
    extract.catch_up(home)
    assert believed(home) != []


def test_a_new_version_and_a_removed_message_are_unlearned(home):
    bring(home, said("a", "I live in Graz."), said("b", "I work at Kestrel Labs."))
    extract.catch_up(home)
    bring(home, said("a", "I live in Ghent."))

    def remove(conn):
        retire(conn, find_conversation(conn, "chats", "talk"), "b", T0)

    home.db.write(remove)
    extract.catch_up(home)
    assert believed(home) == ["Ghent"]


def test_what_leaves_recall_is_unlearned_and_learned_again_when_it_is_back(home):
    bring(home, said("a", "I live in Graz."))
    extract.catch_up(home)
    for recall, expected in ((0, []), (1, ["Graz"]), (0, [])):
        home.db.write(lambda conn, recall=recall: conn.execute(
            "UPDATE messages SET recall = ?", (recall,)))  # fmt: skip
        extract.catch_up(home)
        assert believed(home) == expected


def test_a_number_that_is_used_again_is_read_again(home):
    bring(home, said("a", "I live in Graz."), said("b", "I work at Kestrel Labs."))
    extract.catch_up(home)

    def forget(conn):
        number = conn.execute("SELECT max(id) FROM messages").fetchone()[0]
        facts.erase(conn, [number], T0)
        conn.execute("DELETE FROM items WHERE message_id = ?", (number,))
        conn.execute("DELETE FROM messages WHERE id = ?", (number,))
        return number

    number = home.db.write(forget)
    bring(home, said("c", "I'm allergic to walnuts."))
    with home.db.read() as conn:
        assert rows(conn, "SELECT id FROM messages WHERE external_id = 'c'") == [(number,)]
    extract.catch_up(home)
    assert believed(home) == ["Graz", "walnuts"]


def test_with_sensitive_off_nothing_of_the_kind_is_kept_and_with_home_it_is_again(home):
    bring(home, said("a", "I'm allergic to penicillin."), said("b", "I live in Graz."))
    extract.catch_up(home)
    assert believed(home) == ["Graz", "penicillin"]
    home.settings = replace(home.settings, privacy=PrivacySettings(sensitive="off"))
    extract.catch_up(home)
    assert [row[3] for row in known(home)] == ["Graz"]
    home.settings = replace(home.settings, privacy=PrivacySettings())
    extract.catch_up(home)
    assert believed(home) == ["Graz", "penicillin"]


def test_a_secret_is_in_no_fact_whoever_reads_it(home):
    text = "My bank card number is 4111 1111 1111 1111."
    bring(home, said("a", text), said("b", "I live in Graz."))
    extract.catch_up(home)
    assert [row[3] for row in known(home)] == ["Graz"]
    with home.db.read() as conn:
        one = extract.spoken(conn, [1], home.settings)[0]
        told = "My bank card number is 4111 1111 1111 1111."
        claim = Claim(ME, "owns", "4111 1111 1111 1111", told, 0, len(text), read_by="model:m")
        assert extract.judged(conn, one, home.settings, [(claim, "")]) == []


def test_a_message_in_which_somebody_of_another_name_speaks_teaches_nothing(home):
    home.settings = replace(home.settings, name="Nora Lindqvist")
    bring(home, said("a", "My name is Falk. I live in Kleve."), said("b", "My name is Nora."))
    extract.catch_up(home)
    assert believed(home) == ["Nora"]


def test_with_reading_off_nothing_is_read(home):
    bring(home, said("a", "I live in Graz."))
    home.settings = replace(home.settings, facts=replace(home.settings.facts, read="off"))
    assert extract.catch_up(home) == extract.Learned() and known(home) == []


def test_derive_is_the_same_whenever_it_is_asked_and_stores_nothing(home):
    bring(home, said("a", "I live in Graz."), said("b", "You live in Graz.", role="assistant"))
    with home.db.read() as conn:
        ids = [number for (number,) in rows(conn, "SELECT id FROM messages ORDER BY id")]
        first = extract.derive(conn, ids, home.settings)
        assert first == extract.derive(conn, ids, home.settings)
    assert [len(one.claims) for one in first] == [1, 0] and known(home) == []


# --- fingerprints ---------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from([f"w{n}" for n in range(400)]), min_size=8, max_size=30)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run=st.integers(0, 10**9), before=WORDS, after=WORDS, others=WORDS)
def test_any_eight_words_in_a_row_of_a_known_text_are_noticed_and_nothing_else(
    home, run, before, after, others
):
    shared = [f"x{run}n{n}" for n in range(8)]
    home.db.write(lambda conn: fingerprints.add(conn, 0, " ".join([*others, *shared, "end"])))
    text = " ".join([*before, *shared, *after])
    with home.db.read() as conn:
        stretches = fingerprints.spans(conn, text)
        of_mine = fingerprints.spans(conn, " ".join(f"y{run}n{n}" for n in range(40)))
    start = text.index(shared[0])
    middle = start + len(" ".join(shared)) // 2
    assert any(a <= middle < b for a, b, _ in stretches) and of_mine == []


def test_a_stretch_reaches_over_its_edges_but_not_beyond_its_sentence(home):
    page = "the heron of the old mill stands on one leg all day and I live in Graz"
    home.db.write(lambda conn: fingerprints.add(conn, 0, page))
    text = f"I live in Leeds. {page}. I work at Kestrel Labs."
    with home.db.read() as conn:
        ((start, end, why),) = fingerprints.spans(conn, text)
    assert text[start:end] == f"{page}." and why == "words of a prompt of ours"


def test_the_prompts_of_ours_that_held_forgotten_words_lose_their_hashes(home):
    words = "the heron of the old mill stands on one leg all day long"
    bring(home, said("q", "What does the heron do?", recall=False), source="knowme")

    def put(conn):
        extract.injected(conn, words, 1)
        extract.injected(conn, "something else that has nothing to do with any of these birds", 1)
        count = "SELECT count(*) FROM fingerprints"
        before = rows(conn, count)[0][0]
        return before, fingerprints.drop_prompts(conn, [words]), rows(conn, count)[0][0]

    before, gone, left = home.db.write(put)
    assert 0 < gone < before and left == before - gone
    with home.db.read() as conn:
        assert fingerprints.of(conn, {each[0] for each in shingles(words)}) == set()


# --- a model --------------------------------------------------------------------------------------


def answer(*found):
    return json.dumps({"facts": list(found)})


def fact(n, attribute, value, quote):
    return {"n": n, "attribute": attribute, "value": value, "quote": quote}


def model_home(tmp_path, model, **settings):
    models = {"primary": {**AWAY, "url": model.url, **settings.pop("primary", {})}}
    return home_of(tmp_path / "home", models=models, facts={"read": "model"}, **settings)


OPEN = {"recalled": "allow"}


def test_a_models_facts_pass_the_gate_and_quote_word_for_word(tmp_path):
    text = "These days the place that I call home is Graz, up the hill. I never liked Ghent."
    script = answer(
        fact(1, "residence", "Graz", "the place that I call home is Graz"),
        fact(1, "residence", "Vienna", "the place that I call home is Graz"),
        fact(1, "employer", "Graz", "I work in Graz"),
        fact(2, "likes", "Ghent", "liked Ghent"),
        fact(9, "likes", "Ghent", "liked Ghent"),
    )
    with (
        model_server([script], model="big-70b") as model,
        model_home(tmp_path, model, privacy=OPEN) as home,
    ):
        bring(home, said("a", text))
        assert extract.reader(home) == "primary"
        extract.catch_up(home)
        extract.catch_up(home, model=True)
        extract.catch_up(home, model=True)
        assert len(model.asked) == 1, "what was read is not read again"
        told = {
            (row[2], row[3]): row[4:]
            for row in known(home)
            if ("model:big-70b",) in [tuple(r) for r in by(home, row[0])]
        }
    assert told[("residence", "Graz")][0] in ("believed", "repeated")
    assert told[("residence", "Vienna")] == ("quarantined", extract.NOT_IN_QUOTE)
    assert told[("employer", "Graz")] == ("quarantined", extract.NOT_VERBATIM)
    assert told[("likes", "Ghent")] == ("quarantined", extract.DENIED)


def by(home, uid):
    with home.db.read() as conn:
        return rows(conn, "SELECT read_by FROM facts WHERE uid = ?", (uid,))


def test_a_remote_model_reads_only_what_may_leave_and_the_ledger_says_what(tmp_path):
    with (
        model_server([answer()], model="big-70b") as model,
        model_home(
            tmp_path, model, privacy={"sources": {"chats": "placeholders"}}, name="Nora Lindqvist"
        ) as home,
    ):
        bring(home, said("a", "I told Nora Lindqvist that my flat is small."))
        bring(home, said("b", "My blood pressure and my depression worry me a lot."))
        bring(home, said("c", "My password: hunter2hunter2, I think."))
        bring(home, said("d", "I keep this in my own diary."), source="private")
        extract.catch_up(home)
        extract.catch_up(home, model=True)
        sent = json.dumps(model.asked, ensure_ascii=False)
        assert "my flat is small" in sent and "Nora" not in sent
        assert "depression" not in sent and "hunter2" not in sent and "diary" not in sent
        with home.db.read() as conn:
            left = [row for row in egress.listed(conn, 9) if row["purpose"] == "facts"]
            assert [row["classes"] for row in left] == [{"recalled:chats": "placeholders"}]
            assert rows(conn, "SELECT purpose, state FROM calls") == [("facts", "done")]


def test_by_default_a_remote_model_is_shown_nothing(tmp_path):
    with model_server([answer()], model="big-70b") as model, model_home(tmp_path, model) as home:
        bring(home, said("a", "I live in Graz, and my flat is small."))
        extract.catch_up(home)
        assert extract.catch_up(home, model=True).messages == 1
        assert model.asked == []


def test_a_budget_that_is_spent_ends_the_reading(tmp_path):
    priced = {"primary": {"price_in": 1.0, "price_out": 1.0}}
    with (
        model_server([answer()], model="big-70b") as model,
        model_home(
            tmp_path, model, privacy=OPEN, routing={"monthly_budget": 0.0}, **priced
        ) as home,
    ):
        bring(home, said("a", "I live in Graz, and my flat is small."))
        extract.catch_up(home)
        with pytest.raises(ModelError, match="budget"):
            extract.catch_up(home, model=True)
        assert model.asked == []


def test_a_model_that_fails_loses_nothing_and_reads_on_later(tmp_path):
    scripts = [[("status", 500, {})], [answer(fact(1, "residence", "Graz", "home is Graz"))]]
    with (
        model_server(*scripts, model="big-70b") as model,
        model_home(tmp_path, model, privacy=OPEN) as home,
    ):
        bring(home, said("a", "As ever my home is Graz, up the hill."))
        extract.catch_up(home)
        with pytest.raises(ModelError):
            extract.catch_up(home, model=True)
        extract.catch_up(home, model=True)
        assert "Graz" in believed(home)


def test_another_model_replaces_what_the_first_one_read(tmp_path):
    one, two = (answer(fact(1, name, "Graz", "home is Graz")) for name in ("residence", "likes"))
    with (
        model_server([one], [two], model="big-70b") as model,
        home_of(
            tmp_path / "home",
            models={
                "primary": {**AWAY, "url": model.url},
                "second": {**AWAY, "url": model.url, "model": "other-70b"},
            },
            privacy=OPEN,
            facts={"read": "model"},
        ) as home,
    ):
        bring(home, said("a", "As ever my home is Graz, up the hill."))
        extract.catch_up(home)
        extract.catch_up(home, model=True)
        extract.catch_up(home, model=True, role="second")
        read = known(home, "read_by, attribute")
        assert [row for row in read if row[0].startswith("model")] == [("model:other-70b", "likes")]


def test_what_a_model_read_is_judged_anew_when_words_turn_out_to_be_somebody_elses(tmp_path):
    text = "As ever the place that I call my home is Graz, up the hill."
    script = answer(fact(1, "residence", "Graz", "my home is Graz"))
    with (
        model_server([script], model="big-70b") as model,
        model_home(tmp_path, model, privacy=OPEN) as home,
    ):
        bring(home, said("a", text, 3))
        extract.catch_up(home)
        extract.catch_up(home, model=True)
        assert "Graz" in believed(home)
        bring(home, said("b", text, 1, role="assistant"))
        extract.catch_up(home)
        assert believed(home) == [] and len(model.asked) == 1


def test_of_an_answer_that_was_cut_off_what_is_whole_counts():
    whole = answer(fact(1, "likes", "tea", "I like tea"), fact(2, "likes", "rye", "I like rye"))
    assert len(reading._parsed(whole)) == 2
    assert [one["value"] for one in reading._parsed(whole[:-8])] == ["tea"]
    for broken in ("", "{", "[]", "null", '{"facts": [1, null, {"n": "x"}]}'):
        assert reading._parsed(broken) == []


@pytest.mark.model
@pytest.mark.slow
def test_the_packaged_model_reads_in_the_given_form_and_nothing_unsupported_is_believed(
    tmp_path, models
):
    engine = {"kind": "llamacpp", "context_tokens": 2048, "threads": 1}
    with home_of(tmp_path / "home", engine=engine) as home:
        assert extract.reader(home) == "", "too small to read unless it is told to"
        home.settings = replace(home.settings, facts=replace(home.settings.facts, read="model"))
        bring(
            home,
            said("a", "I live in Graz with my sister Ana. My favourite colour is dark green."),
            said("b", "I started to work at Kestrel Labs in March. I never liked Ghent."),
        )
        extract.catch_up(home)
        assert extract.catch_up(home, model=True).messages == 2
        with home.db.read() as conn:
            calls = rows(conn, "SELECT purpose, state, local FROM calls")
            found = rows(
                conn,
                "SELECT f.value, f.quote, f.sentence, f.state, f.start, f.end, m.text, f.subject"
                " FROM facts f JOIN messages m ON m.id = f.message_id WHERE f.read_by <> 'rules'",
            )
        assert ("facts", "done", 1) in calls
        for value, quote, sentence, state, start, end, text, subject in found:
            assert text[start:end] == quote and subject == ME
            if state == "believed":
                assert value.casefold() in " ".join(quote.split()).casefold()
                assert gate.uncovered(sentence, quote, None) == ()
        again = reading.schema(3)["properties"]["facts"]["items"]["properties"]["n"]["enum"]
        assert again == [1, 2, 3]


def test_what_another_speaker_used_to_do_is_told_as_over(home) -> None:
    said = {"session": "s", "speaker": "Ana", "timestamp": "2026-01-05T09:00"}
    ingest(home, ["I used to love skating."], [said])
    extract.catch_up(home)
    with home.db.read() as conn:
        (fact,) = facts.believed(conn, subject="Ana")
    assert "used to" in fact.sentence and fact.when.to_last
