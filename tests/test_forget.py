"""Forgetting: what is erased is looked for with plain means, byte by byte; the rest is compared."""

import json
import os
import random
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lived import (
    alive,
    asking,
    copied,
    everything,
    forgotten,
    index_words,
    lived,
    message,
    put,
    stands,
    tables,
)

from knowme import backup, forget, memory, sync
from knowme.db import rows, value
from knowme.errors import HomeError, InputError, NotFoundError, StoreError
from knowme.forget import What, erasure, plan, whole
from knowme.home import Home
from knowme.types import Mark, Query, Record

SECRET = "Qzwhyx the heron nests behind the abandoned quarry near Xylophonia"
INDEXES = ("numpy", "sqlite_vec", "chroma")


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Path:
    """Give a home that was lived in: copy it."""
    return lived(tmp_path_factory.mktemp("life"))


@pytest.fixture
def own_life(life, tmp_path):
    with Home.open(copied(life, tmp_path / "life")) as home:
        yield home


# --- what is chosen -----------------------------------------------------------------------------


def test_exact_words_choose_the_messages_that_hold_them_as_words_in_any_case(home) -> None:
    ids = put(home, "I met Ana  Maria\ntoday", "Banana Maria is no name", "ANA MARIA called", "Ana")
    found = plan(home, What("text", text="ana maria"))
    assert found.messages == (ids[0], ids[2]) and found.counts["messages"] == 2
    assert {sample.text for sample in found.samples} == {
        "I met Ana  Maria\ntoday",
        "ANA MARIA called",
    }
    assert plan(home, What("text", text="nobody said this")).messages == ()
    with pytest.raises(InputError, match="holds no word"):
        plan(home, What("text", text=" !? "))


def test_a_person_is_chosen_as_speaker_and_where_they_are_named(home) -> None:
    mine = put(home, "Bruna sent a postcard", "the weather is fine", session="a")
    hers = put(home, "hello, I am in Porto", session="b", speaker="Bruna")
    found = plan(home, What("person", text="bruna"))
    assert found.messages == (mine[0], *hers)


def test_words_within_the_json_of_an_original_are_found_however_it_writes_them(home) -> None:
    record = Record(
        "message", "c", "1", text="a summary of it", seq=0, raw=json.dumps({"from": "João\nÇelik"})
    )
    sync.store(home, "telegram", [(record, None)])
    assert plan(home, What("person", text="Çelik")).messages
    assert plan(home, What("person", text="João Çelik")).messages
    assert not plan(home, What("person", text="elik")).messages


def test_a_date_chooses_what_was_said_before_it_and_nothing_that_has_none(home) -> None:
    ids = put(home, "one day", "two days", "three days")
    sync.ingest(home, ["a page without a date"])
    with home.db.read() as conn:
        second = value(conn, "SELECT at_ms FROM messages WHERE id = ?", (ids[1],))
    assert plan(home, What("before", before_ms=second)).messages == (ids[0],)


def test_a_message_is_named_by_its_number_its_uid_or_its_own_name(home) -> None:
    (number,) = put(home, "the attic is full of books")
    with home.db.read() as conn:
        uid, name = rows(
            conn,
            "SELECT i.uid, m.external_id FROM items i JOIN messages m ON m.id = i.message_id"
            " WHERE m.id = ?",
            (number,),
        )[0]
    for ref in (str(number), uid, name):
        assert plan(home, What("message", messages=(ref,))).messages == (number,)
    with pytest.raises(NotFoundError, match="no message 'nobody'"):
        plan(home, What("message", messages=("nobody",)))
    with pytest.raises(NotFoundError, match="no conversation"):
        plan(home, What("conversation", conversation="nowhere"))


def test_every_version_of_a_message_goes_with_it_but_a_phrase_takes_the_one_that_holds_it(home):
    for text in ("my door code is 4471 and the cat is well", "the cat is well"):
        sync.ingest(home, [text], [{"session": "s"}], ["m1"])
    (old, new) = sorted(alive(home))
    assert plan(home, What("message", messages=(str(new),))).messages == (old, new)
    assert plan(home, What("text", text="door code is 4471")).messages == (old,)
    _, receipt = forgotten(home, kind="text", text="door code is 4471")
    assert alive(home) == {new} and receipt.counts["messages"] == 1
    assert not stands(everything(home.path), "door code is 4471")
    # the version that stays is not buried with it, the one that went is
    again = sync.ingest(home, ["the cat is very well"], [{"session": "s"}], ["m1"])[0]
    assert again.changed == 1
    again = sync.ingest(
        home, ["my door code is 4471 and the cat is well"], [{"session": "s"}], ["m1"]
    )
    assert again[0].skipped == {"forgotten": 1}


def test_what_stays_and_holds_the_same_words_is_named_beforehand(home) -> None:
    first, second, other = put(
        home,
        "the spare key is under the blue pot",
        "she said: the spare key is under the blue pot, again",
        "nothing of that",
    )
    found, receipt = message(home, first)
    assert found.messages == (first,) and found.also == (second,)
    assert alive(home) == {second, other} and receipt.state == "done"


# --- gone from everywhere -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", INDEXES)
def test_no_byte_of_the_home_holds_the_words_or_their_vector(tmp_path, kind) -> None:
    pytest.importorskip({"sqlite_vec": "sqlite_vec", "chroma": "chromadb"}.get(kind, "numpy"))
    Home.create(tmp_path / "h")
    given = {"embedder.kind": "hashing", "engine.kind": "echo", "index.kind": kind}
    with Home.open(tmp_path / "h", given) as home:
        number, *_ = put(home, SECRET, *(f"an ordinary day, number {n}" for n in range(300)))
        assert home.search(Query("heron quarry"))[0].text == SECRET
        with home.db.read() as conn:
            space = memory.serving(conn)
            item = value(conn, "SELECT id FROM items WHERE message_id = ?", (number,))
            _, vectors = memory.vectors_of(conn, space, [item])
    shapes = [vectors.astype(kind).tobytes() for kind in ("<f2", "<f4")]
    shapes.append(np.rint(vectors * 32_767).astype("<i2").tobytes())
    before = everything(tmp_path / "h")
    assert stands(before, SECRET) and any(shape in before for shape in shapes)
    with Home.open(tmp_path / "h", given) as home:
        _, receipt = message(home, number)
        assert receipt.state == "done" and receipt.probed["search"] == {"asked": 1, "found": 0}
        assert all(hit.text != SECRET for hit in home.search(Query("heron quarry")))
        assert len(home.search(Query("ordinary day", top_k=5))) == 5
    after = everything(tmp_path / "h")
    assert not stands(after, SECRET) and not any(shape in after for shape in shapes)
    for word in ("Qzwhyx", "qzwhyx", "xylophonia"):  # their beginnings stand alone in the index
        assert word.encode() not in after


def test_the_word_index_is_that_of_a_home_which_never_heard_it(own_life) -> None:
    home = own_life
    with home.db.read() as conn:
        listed = rows(conn, "SELECT id FROM messages WHERE recall AND role = 'user'")
    ids = [str(i) for (i,) in random.Random(5).sample(listed, 30)]
    forgotten(home, kind="message", messages=tuple(ids))
    now, made = index_words(home.path)
    assert now == made and now


def test_samples_that_sqlite_keeps_of_columns_are_gone(home) -> None:
    record = Record("message", "c", "Zzyzx-the-name-of-it", text="words of it", seq=0)
    sync.store(home, "x", [(record, None)])
    home.db.maintain(lambda conn: conn.execute("ANALYZE"))
    with home.db.read() as conn:
        if not value(conn, "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat4'"):
            pytest.skip("this SQLite keeps no samples")
        assert any(b"Zzyzx" in bytes(s) for (s,) in rows(conn, "SELECT sample FROM sqlite_stat4"))
    forgotten(home, kind="conversation", conversation="c")
    assert b"Zzyzx" not in everything(home.path)


def test_the_probe_finds_what_is_left_and_then_nothing_is_called_done(home, monkeypatch) -> None:
    (number,) = put(home, SECRET)
    monkeypatch.setattr(erasure, "purge", lambda conn: None)
    with pytest.raises(StoreError, match=r"still stands in memory\.db"):
        message(home, number)
    with home.db.read() as conn:
        (left,) = forget.receipts(conn)
    assert left.state == "erased" and left.done_ms is None and left.probed["files"]
    monkeypatch.undo()
    assert [each.state for each in forget.resume(home)] == ["done"]
    assert not stands(everything(home.path), SECRET)


def test_what_stood_in_free_pages_long_before_is_gone_too(home) -> None:
    (number,) = put(home, SECRET)
    fill = "INSERT INTO jobs(kind, payload, run_at_ms, created_ms) VALUES('x', '{}', 1, 1)"
    home.db.write(lambda conn: [conn.execute(fill) for _ in range(50)])
    home.db.write(lambda conn: conn.execute("UPDATE jobs SET error = ?", ((SECRET + " ") * 40,)))
    home.db.write(lambda conn: conn.execute("DELETE FROM jobs"))
    home.db.maintain(erasure.emptied)
    assert (home.path / "memory.db").read_bytes().count(SECRET.encode()) > 1
    _, receipt = message(home, number)
    assert receipt.state == "done" and not stands(everything(home.path), SECRET)


def test_an_answer_that_used_it_goes_and_one_that_saw_it_loses_it(home) -> None:
    (number,) = put(home, SECRET)
    used, after, other = asking(
        home,
        ["where does the heron nest?", "and what is two and two?", "who paints the fence?"],
        "one",
    )
    with home.db.read() as conn:
        told = json.loads(value(conn, "SELECT receipt FROM answers WHERE id = ?", (used,)))
        assert any(hit["text"] == SECRET for hit in told["used"])
    found, _ = message(home, number)
    with home.db.read() as conn:
        left = {
            i: json.loads(receipt) for i, receipt in rows(conn, "SELECT id, receipt FROM answers")
        }
        asked = {text for (text,) in rows(conn, "SELECT text FROM messages WHERE role = 'user'")}
        assert value(conn, "SELECT count(*) FROM choices WHERE answer_id IS NULL") == 0
    assert used not in left and used in found.answers
    assert set(left) <= {after, other}
    assert "where does the heron nest?" in asked  # the person's own question stays
    assert not stands(everything(home.path), SECRET)


def test_a_forgotten_question_takes_its_answer_and_stays_in_no_later_prompt(home) -> None:
    put(home, *(f"an ordinary day, number {n}" for n in range(5)))
    secret = "does my neighbour Xaver know that I sold the violin of our grandfather?"
    first, second = asking(home, [secret, "what is two and two?"], "talk")
    with home.db.read() as conn:
        question = value(conn, "SELECT question_id FROM answers WHERE id = ?", (first,))
        told = json.loads(value(conn, "SELECT receipt FROM answers WHERE id = ?", (second,)))
    told["prompt"].insert(1, {"role": "user", "content": secret})  # as a larger model is given it
    home.db.write(
        lambda conn: conn.execute(
            "UPDATE answers SET receipt = ? WHERE id = ?", (json.dumps(told), second)
        )
    )
    found, receipt = message(home, question)
    assert len(found.follow) >= 1
    with home.db.read() as conn:
        kept = json.loads(value(conn, "SELECT receipt FROM answers WHERE id = ?", (second,)))
        roles = [
            role for (role,) in rows(conn, "SELECT role FROM messages WHERE text LIKE '%two%'")
        ]
    assert any(part["content"] == erasure.GONE for part in kept["prompt"])
    assert kept["engine"] == "echo" and "user" in roles
    assert not stands(everything(home.path), secret)
    assert receipt.state == "done"


def test_what_left_the_machine_loses_its_body_and_stays_in_the_ledger(home) -> None:
    (number,) = put(home, SECRET)
    for text in (SECRET, "a body of something else"):
        body = json.dumps({"messages": [{"role": "user", "content": f"He said: {text}"}]})
        row = home.ledger.leaving("http://127.0.0.1:9/v1/chat/completions", body.encode())
        home.ledger.left(row, "200", 5)
    assert stands(everything(home.path), SECRET)
    _, receipt = message(home, number)
    with home.db.read() as conn:
        left = rows(conn, "SELECT body IS NULL, sent_bytes > 0, outcome FROM egress ORDER BY id")
    assert left == [(1, 1, "200"), (0, 1, "200")]
    assert receipt.counts["bodies"] == 1 and not stands(everything(home.path), SECRET)


def test_logs_jobs_marks_titles_typed_lines_and_data_sets_lose_it(home) -> None:
    number, kept = put(home, SECRET, "the fence is green")
    path = home.path

    def fill(conn):
        conn.execute("UPDATE conversations SET title = ?", (SECRET[:40] + " …",))
        conn.execute(
            "INSERT INTO calls(at_ms, purpose, role, model, engine, local, state, error, reason)"
            " VALUES(1, 'answer', 'r', 'm', 'e', 0, 'failed', ?, 'why')",
            (f"cannot read {SECRET!r}",),
        )
        for state in ("done", "queued"):
            conn.execute(
                "INSERT INTO jobs(kind, payload, state, run_at_ms, error, created_ms)"
                " VALUES('x', ?, ?, 1, ?, 1)",
                (json.dumps({"said": SECRET}), state, SECRET),
            )
        for unit, told in (("a", SECRET), ("b", "nothing")):
            conn.execute(
                "INSERT INTO marks VALUES('s', ?, ?, 1)", (unit, json.dumps({"tail": told}))
            )
        conn.execute("INSERT INTO states VALUES('inbox', ?, 1)", (json.dumps({"asked": SECRET}),))

    home.db.write(fill)
    typed = (
        f"\n# 2026-01-01 10:00:00\n+tell me of {SECRET}\n\n# 2026-01-01 10:01:00\n+hello\n+there\n"
    )
    (path / "chat_history").write_text(typed, "utf-8")
    for name, lines in {"one": [SECRET, "other"], "two": ["other"]}.items():
        (path / "runs" / name).mkdir()
        data = "".join(json.dumps({"text": line}) + "\n" for line in lines)
        (path / "runs" / name / "dataset.jsonl").write_text(data, "utf-8")
        (path / "runs" / name / "adapter.gguf").write_bytes(b"weights")
    by_number = json.dumps({"text": "worded anew", "message_ids": [number]}) + "\n"
    (path / "runs" / "two" / "eval.jsonl").write_text(by_number, "utf-8")
    (path / "index" / "prefix").mkdir(parents=True)
    (path / "index" / "prefix" / "a.prefix").write_bytes(SECRET.encode())
    (path / "notes.txt").write_text(f"by hand: {SECRET}", "utf-8")
    _, receipt = message(home, number)
    assert receipt.unreachable == (
        "notes.txt",
        "runs/one (trained on it; marked stale)",
        "runs/two (trained on it; marked stale)",
    )
    (path / "notes.txt").unlink()
    assert not stands(everything(path), SECRET) and not stands(everything(path), SECRET[:30])
    with home.db.read() as conn:
        assert rows(conn, "SELECT title FROM conversations") == [("",)]
        assert rows(conn, "SELECT reason, error, state FROM calls") == [("", "", "failed")]
        jobs = rows(conn, "SELECT state, payload, error FROM jobs WHERE kind = 'x'")
        assert jobs == [("queued", json.dumps({"said": erasure.GONE}), "")]
        assert rows(conn, "SELECT unit FROM marks WHERE source = 's'") == [("b",)]
        assert rows(conn, "SELECT id FROM messages") == [(kept,)]
    assert (path / "chat_history").read_text("utf-8") == "\n# 2026-01-01 10:01:00\n+hello\n+there\n"
    assert (path / "runs" / "one" / "dataset.jsonl").read_text("utf-8") == '{"text": "other"}\n'
    assert (path / "runs" / "two" / "eval.jsonl").read_text("utf-8") == ""
    assert json.loads((path / "runs" / "two" / "stale.json").read_text("utf-8"))["erasures"] == [1]


def test_a_picture_that_only_it_names_goes_and_a_shared_one_stays(home) -> None:
    media = home.path / "archive"
    for name in ("own.jpg", "shared.jpg", "other.jpg"):
        (media / name).write_bytes(b"picture " + name.encode())
    said = [
        Record(
            "message",
            "c",
            "1",
            text="look at these",
            seq=0,
            meta={"media": ["archive/own.jpg", "archive/shared.jpg"]},
        ),
        Record(
            "message",
            "c",
            "2",
            text="this one again",
            seq=1,
            meta={"media": ["archive/shared.jpg"]},
        ),
    ]
    sync.store(home, "telegram", [(each, None) for each in said])
    message(home, min(alive(home)))
    assert sorted(file.name for file in media.iterdir()) == ["other.jpg", "shared.jpg"]


def test_summaries_and_threads_of_a_conversation_go_from_there_on(home) -> None:
    put(home, "an ordinary day")
    asking(home, [f"question number {n} about the violin of Xaver" for n in range(6)], "talk")
    with home.db.read() as conn:
        said = rows(
            conn,
            "SELECT m.id, m.seq FROM messages m JOIN conversations c ON"
            " c.id = m.conversation_id WHERE c.external_id = 'talk' ORDER BY m.seq",
        )
        talk = value(conn, "SELECT id FROM conversations WHERE external_id = 'talk'")

    def fill(conn):
        for after, upto in ((-1, 3), (3, 7)):
            conn.execute(
                "INSERT INTO summaries(conversation_id, from_seq, upto_seq, text, rolling, because,"
                " model, made_ms) VALUES(?, ?, ?, 'a block', 'all so far', '[]', 'm', 1)",
                (talk, after, upto),
            )
            memory.put_summary_item(
                conn,
                f"summary{upto}",
                f"a block up to {upto}",
                [said[upto][0]],
                talk,
                upto,
                1,
                "knowme",
            )
        conn.execute("UPDATE sessions SET summary = 'earlier', anchor_seq = 3")
        conn.execute("INSERT INTO threads VALUES(x'00', ?, 1)", (talk,))
        conn.execute("INSERT INTO threads VALUES(x'01', ?, ?)", (talk, 2**50))

    home.db.write(fill)
    message(home, next(i for i, seq in said if seq == 4))
    with home.db.read() as conn:
        assert rows(conn, "SELECT upto_seq FROM summaries") == [(3,)]
        assert rows(conn, "SELECT uid FROM items WHERE kind = 'summary'") == [("summary3",)]
        assert rows(conn, "SELECT summary, anchor_seq FROM sessions") == [("earlier", 3)]
        assert rows(conn, "SELECT hash FROM threads") == [(b"\0",)]


def test_facts_lines_and_what_was_decided_of_them_go_with_their_message(own_life) -> None:
    home = own_life
    with home.db.read() as conn:
        facts = rows(conn, "SELECT uid, message_id, sentence FROM facts ORDER BY id")
        lines = rows(conn, "SELECT DISTINCT line_uid, message_id FROM line_evidence")
    assert facts and lines
    chosen = {str(lines[0][1]), str(facts[-1][1])}
    found, receipt = forgotten(home, kind="message", messages=tuple(chosen))
    with home.db.read() as conn:
        gone = json.dumps(found.messages)
        among = "IN (SELECT value FROM json_each(?))"
        assert value(conn, f"SELECT count(*) FROM facts WHERE message_id {among}", (gone,)) == 0
        assert (
            value(conn, f"SELECT count(*) FROM line_evidence WHERE message_id {among}", (gone,))
            == 0
        )
        uids = json.dumps([uid for uid, owner, _ in facts if owner in found.messages])
        for table in ("events", "decisions"):
            assert value(conn, f"SELECT count(*) FROM {table} WHERE uid {among}", (uids,)) == 0
        assert (
            value(conn, f"SELECT count(*) FROM fingerprints WHERE message_id {among}", (gone,)) == 0
        )
        left = rows(conn, "SELECT uid FROM facts ORDER BY id")
    assert [uid for (uid,) in left] == [
        uid for uid, owner, _ in facts if owner not in found.messages
    ]
    assert receipt.counts["facts"] >= 1 and receipt.state == "done"


def test_what_the_person_wrote_by_hand_into_the_profile_goes_by_the_words(own_life) -> None:
    home = own_life
    page = home.path / "USER_PROFILE.md"
    text = page.read_text("utf-8")
    heading = next(line for line in text.splitlines() if line.startswith("## "))
    page.write_text(
        text.replace(heading, f"{heading}\n\n- Plays the sackbut with Xenia.", 1), "utf-8"
    )
    put(home, "Xenia lent me her sackbut for the winter")
    forgotten(home, kind="person", text="Xenia")
    assert "Xenia" not in page.read_text("utf-8")
    assert b"Xenia" not in everything(home.path)
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM decisions WHERE text LIKE '%Xenia%'") == 0


def test_a_short_name_is_gone_from_every_table_and_text(home) -> None:
    ids = put(home, "Bo is my cousin", "the book is about a robot", "we saw Bo's boat", "a boat")
    asking(home, ["who is Bo?"], "talk")
    _, receipt = forgotten(home, kind="person", text="Bo")
    assert receipt.state == "done"
    with home.db.read() as conn:
        texts = {text for (text,) in rows(conn, "SELECT text FROM messages")}
        receipts = " ".join(text for (text,) in rows(conn, "SELECT receipt FROM answers"))
    assert texts == {"the book is about a robot", "a boat"} and " Bo" not in receipts
    assert {ids[1], ids[3]} <= alive(home)


def test_names_of_files_and_conversations_that_stay_are_told_and_not_changed(home) -> None:
    kept = Record(
        "message",
        "letters/Xenia.md",
        "Xenia-1",
        text="a page about bees",
        seq=0,
        origin="letters/Xenia.md:1",
    )
    gone = replace(kept, external_id="Xenia-2", text="Xenia keeps bees", seq=1)
    sync.store(home, "notes", [(kept, None), (gone, Mark("letters/Xenia.md", {"stamp": 1}))])
    _, receipt = forgotten(home, kind="person", text="Xenia")
    assert receipt.state == "done"
    assert any("names of conversations and files" in each for each in receipt.unreachable)
    with home.db.read() as conn:
        left = rows(conn, "SELECT external_id, origin, text FROM messages")
    assert left == [("Xenia-1", "letters/Xenia.md:1", "a page about bees")]


# --- and nothing else ---------------------------------------------------------------------------

FOLLOWS = {"items": (6, 7, 8)}
"""Columns that follow from the others: who stands beside an item."""


def rest(path, gone):
    """Every row that is not of these messages."""
    found = tables(path)
    home = {"messages": 0, "facts": 6}
    for name, at in home.items():
        found[name] = [row for row in found[name] if row[at] not in gone]
    items = {row[0] for row in found["items"] if row[3] in gone}
    found["items"] = [(*row[:9], *row[11:]) for row in found["items"] if row[0] not in items]
    found["vectors"] = [row for row in found["vectors"] if row[0] not in items]
    found["fingerprints"] = [row for row in found["fingerprints"] if abs(row[1]) not in gone]
    return found


def test_everything_else_is_as_it_was(own_life) -> None:
    home = own_life
    with home.db.read() as conn:
        listed = rows(
            conn,
            "SELECT m.id FROM messages m WHERE m.role = 'user' AND NOT EXISTS (SELECT 1 FROM facts"
            " WHERE message_id = m.id) AND NOT EXISTS (SELECT 1 FROM line_evidence"
            " WHERE message_id = m.id) AND NOT EXISTS (SELECT 1 FROM answers"
            " WHERE question_id = m.id)",
        )
    for number in random.Random(11).sample([i for (i,) in listed], 12):
        found = plan(home, What("message", messages=(str(number),)))
        before = rest(home.path, set(found.messages))
        forget.erase(home, found)
        after = rest(home.path, set())
        for name in before:
            if name in ("answers", "choices", "calls", "egress", "conversations"):
                continue  # receipts that used or saw it are another test's
            was, now = set(before[name]), set(after[name])
            lost, more = sorted(was - now, key=repr), sorted(now - was, key=repr)
            if name in ("fingerprints",):  # of our own prompts, which quoted it
                lost = [row for row in lost if row[1] != 0]
            assert (lost, more) == ([], []), (name, number)


def test_the_rest_is_found_as_before_by_every_query(own_life) -> None:
    home = own_life
    with home.db.read() as conn:
        said = rows(
            conn,
            "SELECT id, text FROM messages WHERE role = 'user' AND recall AND length(text) > 60",
        )
    chosen = random.Random(2).sample(said, 24)
    message_ids = tuple(str(i) for i, _ in chosen[:12])
    found, _ = forgotten(home, kind="message", messages=message_ids)
    for number, text in chosen[12:]:
        if number not in found.messages:
            hits = home.search(Query(text, top_k=3))
            assert number in {each for hit in hits for each in hit.message_ids}


def test_what_is_believed_afterwards_is_what_the_rest_says_and_its_history_replays(
    own_life,
) -> None:
    from knowme import beliefs, rebuild

    home = own_life
    with home.db.read() as conn:
        listed = rows(conn, "SELECT DISTINCT message_id FROM facts")
    for (number,) in random.Random(8).sample(listed, 4):
        found, _ = message(home, number)
        assert number in found.messages
    with home.db.read() as conn:
        now = {row[0]: row[1:] for row in rows(conn, "SELECT uid, state, message_id FROM facts")}
        told = beliefs.replay(conn, "fact")
        lines = {uid for (uid,) in rows(conn, "SELECT uid FROM lines")}
        assert set(beliefs.replay(conn, "line")) >= lines
    assert {uid: (row["state"], row["message_id"]) for uid, row in told.items()} == now and now
    different = rebuild.difference(home)
    assert (different.learned, different.lost, different.changed) == ((), (), ())


@pytest.mark.slow
def test_a_thousand_random_erasures_leave_no_byte_of_them_and_all_of_the_rest(tmp_path) -> None:
    chance = random.Random(20261121)
    words = [
        ("".join(chance.choices("abcdefghijklmnoprstuvwyzéß", k=chance.randint(3, 9))))
        for _ in range(4000)
    ]

    def sentence():
        return " ".join(
            chance.choices(words, k=chance.randint(3, 30))
        ).capitalize() + chance.choice([".", ' "so" it is.', "\nand on.", " – ok"])

    Home.create(tmp_path / "h")
    given = {"embedder.kind": "hashing", "engine.kind": "echo"}
    with Home.open(tmp_path / "h", given) as home:
        texts = {}
        for session in range(22):
            said = [sentence() for _ in range(64)]
            ids = put(
                home, *said, session=f"s{session}", start=1_600_000_000_000 + session * 86_400_000
            )
            texts |= dict(zip(ids, said, strict=True))
        sync.ingest(home, [f"# A page\n\n{sentence()}\n\n{sentence()}" for _ in range(40)])
        asking(home, [sentence() for _ in range(6)], "talk")
        gone: set[int] = set()
        while len(gone) < 1000:
            left = sorted(alive(home) & texts.keys())
            kind = chance.choice(("message", "message", "text", "conversation", "before"))
            some = chance.sample(left, min(len(left), chance.randint(1, 90)))
            if kind == "message":
                what = What(kind, messages=tuple(map(str, some)))
            elif kind == "text":
                what = What(kind, text=" ".join(texts[some[0]].split()[:3]))
            elif kind == "conversation":
                with home.db.read() as conn:
                    name = value(
                        conn,
                        "SELECT c.external_id FROM messages m JOIN conversations c ON"
                        " c.id = m.conversation_id WHERE m.id = ?",
                        (some[0],),
                    )
                what = What(kind, conversation=name)
            else:
                with home.db.read() as conn:
                    times = rows(
                        conn, "SELECT at_ms FROM messages WHERE at_ms > 0 ORDER BY at_ms LIMIT 60"
                    )
                what = What(kind, before_ms=times[-1][0])
            found = plan(home, what)
            if not found.messages:
                continue
            with home.db.read() as conn:
                kept = rows(
                    conn,
                    "SELECT * FROM messages WHERE id NOT IN"
                    " (SELECT value FROM json_each(?)) ORDER BY id",
                    (json.dumps(found.messages),),
                )
                lost = [
                    t
                    for (t,) in rows(
                        conn,
                        "SELECT text FROM messages WHERE id IN (SELECT value FROM json_each(?))",
                        (json.dumps(found.messages),),
                    )
                ]
            receipt = forget.erase(home, found)
            assert receipt.state == "done"
            gone |= set(found.messages)
            with home.db.read() as conn:
                assert rows(conn, "SELECT * FROM messages ORDER BY id") == kept
            said = "\0".join(row[6] for row in kept)
            whole = everything(home.path)
            for text in lost:
                if text not in said:
                    assert not stands(whole, text), text
        now, made = index_words(home.path)
        assert now == made
        with home.db.read() as conn:
            assert value(conn, "SELECT count(*) FROM vectors") == memory.count(conn)


# --- what cannot be reached, and the receipt ----------------------------------------------------


def test_backups_that_hold_it_are_named_and_those_from_before_it_are_not(home) -> None:
    old = backup.backup(home)
    aside = home.path / "memory.db.before-restore-20260101-000000"
    aside.write_bytes(b"an older one")
    time.sleep(1.1)  # the names of backups tell seconds
    (number,) = put(home, SECRET)
    home.db.write(lambda conn: conn.execute("UPDATE messages SET recorded_ms = recorded_ms + 5000"))
    new = old.with_name("memory-20991231-000000.db")
    os.link(old, new)
    found, receipt = message(home, number)
    assert f"backups/{new.name}" in found.unreachable and aside.name in receipt.unreachable
    assert f"backups/{old.name}" not in found.unreachable


def test_the_receipt_and_the_tables_of_forgetting_hold_no_word(home) -> None:
    put(home, SECRET, "the fence is green")
    forgotten(home, kind="text", text="the heron nests behind")
    with home.db.read() as conn:
        (receipt,) = forget.receipts(conn)
        told = json.dumps(
            [rows(conn, "SELECT * FROM erasures"), repr(receipt)], default=str
        ).lower()
    for word in SECRET.lower().split():
        if word not in ("the", "near"):
            assert word not in told, word
    assert receipt.what == "text" and receipt.counts["messages"] == 1
    with home.db.read() as conn:
        assert value(conn, "SELECT plan FROM erasures") == "{}"


def test_nothing_chosen_is_refused_and_changes_nothing(home) -> None:
    with pytest.raises(InputError, match="nothing to forget"):
        forget.erase(home, plan(home, What("text", text="nobody said this")))
    with home.db.read() as conn:
        assert forget.receipts(conn) == []


# --- other processes ----------------------------------------------------------------------------

HOLDS = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from knowme.home import Home
    with Home.open(Path(sys.argv[1])) as home:
        print("open", flush=True)
        sys.stdin.readline()
""")


def test_while_another_process_has_the_home_open_it_is_refused_with_its_pid(home) -> None:
    (number,) = put(home, SECRET)
    found = plan(home, What("message", messages=(str(number),)))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(HomeError) as refused:
            forget.erase(home, found)
        if sys.platform == "linux":
            assert f"(pid {other.pid})" in refused.value.message
            assert refused.value.hint == f"Stop it first: kill {other.pid}"
        with home.db.read() as conn:
            assert forget.receipts(conn) == [] and not value(
                conn, "SELECT count(*) FROM tombstones"
            )
    finally:
        other.communicate("\n", timeout=30)
    assert alive(home) == {number}
    assert forget.erase(home, found).state == "done"
    with Home.open(home.path):  # and afterwards others may open it again
        pass


def test_while_it_forgets_no_other_process_may_open_the_home(home, monkeypatch) -> None:
    (number,) = put(home, SECRET)
    refused = []

    def reached(step):
        with pytest.raises(HomeError, match=f"pid {os.getpid()}"):
            Home.open(home.path)
        refused.append(step)

    monkeypatch.setattr(whole, "_reached", reached)
    message(home, number)
    assert refused == ["planned", "files", "batch", "erased", "wiped", "done"]
