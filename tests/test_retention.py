"""Retention: what is given up as it grows old, and what must read as before."""

import ast
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lived import asking, copied, everything, lived, stands

from knowme import archive, export, forget, jobs, memory, retention, sync
from knowme.db import packed, rows, unpacked, value
from knowme.errors import ConfigError, StoreError
from knowme.home import Home
from knowme.settings import RetentionSettings
from knowme.times import now_ms
from knowme.types import Query, Record

DAY = 86_400_000
LONG = "The harvest was late that year, and the cider press stood idle until the frost. " * 8


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Path:
    return lived(tmp_path_factory.mktemp("life"))


def keeping(home, **told):
    """Set what is kept, as config.yaml would."""
    home.settings = replace(home.settings, retention=RetentionSettings(**told))
    return home


def said(home, *ages, source="telegram", text="on day {}: " + LONG, role="user"):
    """Store one message for each age in days."""
    records = [
        Record(
            "message",
            "c",
            f"{source}{age}",
            role,
            text=text.format(age),
            seq=-age,
            at_ms=now_ms() - age * DAY,
        )
        for age in ages
    ]
    sync.store(home, source, [(replace(each, seq=n), None) for n, each in enumerate(records)])


def bare(home):
    with home.db.read() as conn:
        return value(
            conn,
            "SELECT count(*) FROM items i WHERE NOT EXISTS"
            " (SELECT 1 FROM vectors v WHERE v.item_id = i.id)",
        )


def test_by_default_nothing_is_given_up(home) -> None:
    said(home, 4000)
    before = everything(home.path)
    assert set(retention.run(home).values()) == {0}
    assert (
        bare(home) == 0 and stands(before, LONG[:60]) and stands(everything(home.path), LONG[:60])
    )


def test_old_vectors_go_and_are_not_made_again_but_words_still_find_it(home) -> None:
    said(home, 100, 95, 10, text="the heron on day {} stood in the reeds")
    keeping(home, vectors_days=90)
    assert retention.run(home)["without vectors"] == 2 and bare(home) == 2
    assert sync.pending(home) == 0 and sync.reindex(home) == 0 and bare(home) == 2
    found = {hit.text for hit in home.search(Query("heron on day 100", top_k=3))}
    assert "the heron on day 100 stood in the reeds" in found
    with home.db.read() as conn:
        index = home.index(memory.serving(conn))
    assert index.count() == 1
    assert retention.run(home)["without vectors"] == 0
    keeping(home, vectors_days=0)
    assert sync.reindex(home) == 2 and bare(home) == 0


def test_only_the_kinds_that_are_named_lose_their_vectors_or_are_compressed(home) -> None:
    said(home, 100)
    said(home, 100, source="notes", role="document", text="page {} " + LONG)
    keeping(home, vectors_days=90, compress_days=90, kinds=("section",))
    assert retention.run(home) == {"forgotten": 0, "without vectors": 1, "compressed": 1}
    with home.db.read() as conn:
        kinds = rows(conn, "SELECT role, typeof(text) FROM messages ORDER BY role")
    assert kinds == [("document", "blob"), ("user", "text")]


def test_what_is_compressed_reads_as_before_wherever_it_is_read(
    life, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(retention, "LEAST_CHARS", 20)
    with Home.open(copied(life, tmp_path / "home")) as home:

        def look(name):
            with home.db.read() as conn:
                ids = [i for (i,) in rows(conn, "SELECT id FROM messages ORDER BY id")]
                conversations = rows(conn, "SELECT id FROM conversations")
                told = {
                    "messages": archive.messages(conn, ids),
                    "last": [archive.last_messages(conn, c, 50) for (c,) in conversations],
                    "texts": memory.text_of(
                        conn, [i for (i,) in rows(conn, "SELECT id FROM items")]
                    ),
                }
            asked = [text for text in list(told["texts"].values())[::17]]
            told["hits"] = [home.search(Query(text[:200], top_k=5)) for text in asked]
            export.export(home, tmp_path / name)
            told["export"] = {
                str(file.relative_to(tmp_path / name)): file.read_bytes()
                for file in sorted((tmp_path / name).rglob("*"))
                if file.is_file() and file.name != "manifest.json"
            }
            return told

        before = look("one")
        keeping(home, compress_days=1)
        many = retention.run(home)["compressed"]
        assert many > 100 and retention.run(home)["compressed"] == 0
        assert look("two") == before
        home.db.write(lambda conn: conn.execute("DELETE FROM marks"))
        counts = sync.sync(home)["openclaw"]
        assert (counts.new, counts.changed) == (0, 0)  # it is known again
        asking(home, ["what did I decide about the heating?"])
        with home.db.read() as conn:
            (number,) = rows(conn, "SELECT id FROM messages WHERE typeof(text) = 'blob' LIMIT 1")[0]
            text = archive.messages(conn, [number])[number].text
        assert stands(everything(home.path), text)
        found = forget.plan(home, forget.What("message", messages=(str(number),)))
        assert forget.erase(home, found).state == "done"
        assert found.samples[0].text == text and not stands(everything(home.path), text)


def sql_in(path):
    """Yield every text of a module, those that are put together from pieces as one."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value for part in node.values if isinstance(part, ast.Constant))
            yield " ".join(map(str, parts))


def bare_texts(sql):
    """Return where a statement on messages takes their text as it lies in the table."""
    if not re.search(r"\b(?:FROM|JOIN) messages\b", sql):
        return []
    aliases = set(re.findall(r"\bmessages (?:AS )?([a-z]\w?)\b", sql))
    plain = re.sub(r"plain\((?:\w+\.)?text\)", "", sql)
    found = re.findall(r"(?:\b(\w+)\.)?\btext\b", plain)
    return [alias for alias in found if alias in aliases or (not alias and not aliases)]


def test_no_reader_of_messages_takes_their_text_as_it_lies_in_the_table() -> None:
    """One that forgets ``plain(...)`` would be handed bytes one day."""
    assert bare_texts("SELECT m.text FROM messages m") and bare_texts("SELECT text FROM messages")
    assert not bare_texts("SELECT plain(m.text), i.text FROM items i JOIN messages m")
    root = Path(retention.__file__).parent
    wrong = {
        (path.name, sql)
        for path in sorted(root.rglob("*.py"))
        if path.name not in ("schema.py", "retention.py")
        for sql in sql_in(path)
        if bare_texts(sql) and not sql.startswith("INSERT INTO messages(")
    }
    assert not wrong


def test_a_damaged_compressed_text_is_told_with_the_mend(home) -> None:
    said(home, 1)
    home.db.write(lambda conn: conn.execute("UPDATE messages SET text = x'28b52ffd00'"))
    with home.db.read() as conn, pytest.raises(StoreError, match="damaged"):
        archive.messages(conn, [1])
    assert unpacked(packed(LONG)) == LONG and unpacked(None) is None and unpacked("x") == "x"


def test_what_is_older_than_its_source_may_be_is_forgotten_for_good(home) -> None:
    said(home, 400, 300)
    said(home, 400, source="letters", text="a letter of {} days ago")
    keeping(home, forget_after={"telegram": "1y"})
    assert retention.run(home)["forgotten"] == 1
    with home.db.read() as conn:
        left = rows(conn, "SELECT external_id FROM messages ORDER BY external_id")
        (receipt,) = forget.receipts(conn)
    assert left == [("letters400",), ("telegram300",)]
    assert receipt.what == "retention" and receipt.state == "done"
    whole = everything(home.path)
    assert not stands(whole, "on day 400") and stands(whole, "on day 300")
    said(home, 400)  # and a sync that reads it again leaves it away
    assert retention.run(home)["forgotten"] == 0
    with pytest.raises(ConfigError, match="no age"):
        retention.age_ms("soon")


def test_a_stop_in_the_middle_is_taken_up_by_the_next_run(home) -> None:
    said(home, *range(400, 420), text="the heron on day {} stood in the reeds of the pond")
    keeping(home, forget_after={"telegram": "1y"})

    def stop(done, total, note):
        raise jobs.Cancelled

    with pytest.raises(jobs.Cancelled):
        retention.run(home, stop)
    with home.db.read() as conn:
        assert [each.state for each in forget.receipts(conn)] != ["done"]
    retention.run(home)
    with home.db.read() as conn:
        assert [each.state for each in forget.receipts(conn)] == ["done"]
        assert value(conn, "SELECT count(*) FROM messages") == 0


def test_it_forgets_while_this_process_goes_on_to_search_and_store(home) -> None:
    said(home, *range(400, 430), text="the heron on day {} stood in the reeds of the pond")
    said(home, *range(1, 40), source="letters", text="a letter of {} days ago from the valley")
    keeping(home, forget_after={"telegram": "1y"})
    stop, errors, asked = threading.Event(), [], []

    def use(number):
        turn = 0
        while not stop.is_set():
            turn += 1
            try:
                asked.append(len(home.search(Query("a letter from the valley"))))
                sync.ingest(home, [f"note {turn} of {number}"], [{"session": f"n{number}"}])
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    while len(asked) < 6:
        time.sleep(0.01)
    try:
        assert retention.run(home)["forgotten"] == 30
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors and all(asked)
    assert not stands(everything(home.path), "stood in the reeds of the pond")
