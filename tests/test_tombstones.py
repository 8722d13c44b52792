"""What was forgotten does not come back; what is said anew does."""

import random
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lived import alive, copied, everything, forgotten, lived, message, put, stands

from knowme import sync, tombstones
from knowme.db import rows
from knowme.home import Home
from knowme.types import Query, Record

SECRET = "Qzwhyx the heron nests behind the abandoned quarry near Xylophonia"


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Path:
    """Give a home that was lived in: copy it."""
    return lived(tmp_path_factory.mktemp("life"))


@pytest.fixture
def own_life(life, tmp_path):
    with Home.open(copied(life, tmp_path / "life")) as home:
        yield home


def test_sync_does_not_bring_it_back_and_says_so(own_life) -> None:
    home = own_life
    with home.db.read() as conn:
        listed = rows(
            conn,
            "SELECT m.id FROM messages m JOIN conversations c ON"
            " c.id = m.conversation_id WHERE c.source = 'openclaw'",
        )
    chosen = tuple(str(i) for (i,) in random.Random(9).sample(listed, 25))
    forgotten(home, kind="message", messages=chosen)
    before = alive(home)
    home.db.write(
        lambda conn: conn.execute("DELETE FROM marks")
    )  # every file is read from the start
    counts = sync.sync(home)["openclaw"]
    assert counts.new == counts.changed == 0 and alive(home) == before
    assert counts.skipped["forgotten"] >= len(chosen)


def notes(home, folder, text):
    (folder / "journal.md").write_text(text, "utf-8")
    return sync.import_path(home, folder, "markdown")


PARTS = (
    "## Monday\n\nThe doctor said that the left knee wants an operation before the summer, and I"
    " have told nobody about it yet.\n\n",
    "## Tuesday\n\nWe planted four apple trees along the wall and drank cider until it was dark.\n",
)


def test_a_forgotten_piece_of_a_note_stays_away_also_when_it_is_mended_or_renamed(home, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    assert notes(home, folder, "".join(PARTS)).new == 2
    forgotten(home, kind="text", text="an operation before the summer")
    for changed in (
        "".join(PARTS).replace("yet.", "yet!!"),
        "".join(PARTS).replace("## Monday", "## A Monday in March"),
        "".join(PARTS).replace("told nobody", "told nobody at all"),
    ):
        assert notes(home, folder, changed).skipped["forgotten"] == 1
        assert not stands(everything(home.path), "left knee wants an operation")
    new = (
        "## Monday\n\nA quiet day with rain, and a long letter from my brother in Lima.\n\n"
        + PARTS[1]
    )
    assert notes(home, folder, new).new == 1  # what is written anew is read
    assert "letter" in home.search(Query("letter from my brother"))[0].text


def test_the_same_words_said_at_another_time_are_not_buried_but_a_copy_of_them_is(home) -> None:
    (number,) = put(home, "thank you so much for everything")
    message(home, number)
    assert put(home, "thank you so much for everything", session="copy") == []  # the same moment
    assert len(put(home, "thank you so much for everything", start=1_800_000_000_000)) == 1


def test_a_phrase_of_four_words_is_buried_wherever_it_stands_and_a_shorter_one_is_not(home) -> None:
    put(home, "I buried the gold coins", "Kowalski came")
    forgotten(home, kind="text", text="buried the gold coins")
    forgotten(home, kind="text", text="Kowalski")
    assert put(home, "once more: we Buried the  gold coins there", session="b") == []
    assert len(put(home, "Kowalski came again, at last", start=1_900_000_000_000)) == 1


def test_a_title_made_of_it_does_not_come_back_with_the_next_message(home) -> None:
    def say(name, text, seq):
        record = Record(
            "message", "c", name, text=text, seq=seq, title="The left knee and the doctor"
        )
        return sync.store(home, "x", [(record, None)])

    say("1", "the left knee and the doctor", 0)
    say("2", "something else entirely", 1)
    message(home, min(alive(home)))
    say("3", "a third thing", 2)
    with home.db.read() as conn:
        assert rows(conn, "SELECT title FROM conversations") == [("",)]


def test_an_export_read_back_does_not_bring_it_back(home, tmp_path) -> None:
    from knowme.export import export

    number, _ = put(home, SECRET, "the fence is green")
    export(home, tmp_path / "export")
    message(home, number)
    counts = sync.import_path(home, tmp_path / "export", "knowme")
    assert counts.skipped == {"forgotten": 1} and not stands(everything(home.path), SECRET)


@given(st.text(min_size=1, max_size=80), st.sampled_from(["user", "document"]))
def test_what_is_buried_is_known_again_and_its_hash_without_the_key_says_nothing(
    text, role
) -> None:
    from knowme import schema

    conn = apsw.Connection(":memory:")
    schema.migrate(conn)
    record = Record("message", "c", "e", role, text=text, at_ms=5)
    assert not tombstones.buried(conn, "s", record)
    tombstones.bury(conn, 1, 1, [tombstones.Dead("s", "c", "e", role, text, 5, 1)])
    assert tombstones.buried(conn, "s", record)
    assert not tombstones.buried(conn, "s", Record("removed", "c", "e", role, text=text))
    hashes = {bytes(h) for (h,) in conn.execute("SELECT hash FROM tombstones")}
    conn.execute("DELETE FROM states")
    tombstones.bury(conn, 2, 1, [tombstones.Dead("s", "c", "e", role, text, 5, 1)])
    again = {bytes(h) for (h,) in conn.execute("SELECT hash FROM tombstones")} - hashes
    assert len(again) == len(hashes)  # another home hashes the same words otherwise
    conn.close()
