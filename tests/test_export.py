import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import facts, portrait, structure
from knowme.ask import Asked, ask
from knowme.cli import run
from knowme.db import rows
from knowme.errors import HomeError, InputError
from knowme.export import export, take_decisions
from knowme.home import Home
from knowme.sync import import_path, ingest, store
from knowme.times import now_ms
from knowme.types import Query, Record

OFFLINE = {"embedder.kind": "hashing", "engine.kind": "echo"}


def kept(home) -> list[tuple]:
    """All of the archive, without our own numbers and clocks."""
    with home.db.read() as conn:
        return sorted(
            rows(
                conn,
                "SELECT c.source, c.external_id, c.kind, c.title, m.external_id, m.version, m.seq,"
                " m.role, m.speaker, m.text, coalesce(m.raw, ''), coalesce(m.at_ms, -1), m.origin,"
                " m.meta, m.recall, m.retired_ms IS NULL FROM messages m"
                " JOIN conversations c ON c.id = m.conversation_id",
            )
        )


def fresh(folder) -> Home:
    Home.create(folder)
    return Home.open(folder, OFFLINE)


def test_an_export_read_back_is_the_same_archive(home, tmp_path) -> None:
    ingest(home, ["Lisbon, rua da Rosa", "a second text"], [{"topic": "home"}, {}], ["1", "2"])
    ingest(home, ["Lisbon no more: Porto"], None, ["1"])
    store(home, "openclaw", [
        (Record("message", "s", "a", "user", "Ana", "olá", '{"raw": 1}', 1000, 1, "f:1"), None),
        (Record("message", "s", "b", "assistant", "", "hello", None, None, 2, title="T"), None),
        (Record("message", "s", "c", "user", "", "gone", None, 5, 3), None),
        (Record("removed", "s", "c"), None),
        (Record("message", "s", "d", "tool", "", "tool output", recall=False), None),
    ])  # fmt: skip
    asyncio.run(_ask(home))
    counts = export(home, tmp_path / "out")
    with fresh(tmp_path / "copy") as copy:
        import_path(copy, tmp_path / "out", "knowme")
        assert kept(copy) == kept(home)
        found = [hit.text for hit in copy.search(Query("Lisbon Porto"))]
        assert found[0] == "Lisbon no more: Porto"
    assert counts["messages"] == len(kept(home))


def test_every_version_comes_back_even_one_that_says_the_old_words_again(home, tmp_path) -> None:
    for text in ("green tea", "black coffee", "green tea"):
        ingest(home, [text], None, ["drink"])
    for number in (1, 2):
        ingest(home, ["a number"], [{"n": number}], ["meta"])
    say = {"conversation": "s", "external_id": "a", "text": "hello"}
    for more in ({"recall": False}, {"at_ms": 5}, {"raw": "{}", "seq": 7}):
        store(home, "openclaw", [(Record("message", **{**say, **more}), None)])
    store(home, "other", [(Record("message", **say), None)])
    for kind in ("section", "removed", "section"):
        store(home, "notes", [(Record(kind, "d", "1", "document", text="a section"), None)])
    export(home, tmp_path / "out")
    with fresh(tmp_path / "copy") as copy:
        import_path(copy, tmp_path / "out", "knowme")
        assert kept(copy) == kept(home)
        assert copy.search(Query("green tea"))[0].text == "green tea"
        assert copy.search(Query("a number"))[0].metadata == {"n": 2}


def test_a_later_export_brings_only_what_is_new(home, tmp_path) -> None:
    ingest(home, ["green tea", "red wine"], None, ["drink", "wine"])
    store(home, "notes", [(Record("section", "d", "1", "document", text="gone"), None)])
    store(home, "notes", [(Record("removed", "d", "1"), None)])
    with fresh(tmp_path / "copy") as copy:
        for number, text in enumerate(("black coffee", "green tea", "hot chocolate")):
            export(home, tmp_path / str(number))
            import_path(copy, tmp_path / str(number), "knowme")
            assert kept(copy) == kept(home)
            ingest(home, [text], None, ["drink"])


@pytest.mark.parametrize(
    ("conversation", "source"),
    [
        ("𠀀" * 200, "s"),
        ("c", "import:/" + "long/" * 100),
        ("..", ".."),
        ("", "/"),
        ("a\nb", "é" * 200),
    ],
)
def test_a_page_has_a_name_that_every_file_system_takes(
    home, tmp_path, conversation, source
) -> None:
    record = Record("message", conversation, "a", text="hi there", at_ms=-(10**13))
    store(home, source, [(record, None)])
    export(home, tmp_path / "out")
    (page,) = (tmp_path / "out" / "markdown").glob("*/*.md")
    assert "hi there" in page.read_text(encoding="utf-8")


async def _ask(home) -> None:
    async for _ in ask(home, Asked("Where is Lisbon?")):
        pass


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80).filter(str.strip)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(texts, min_size=1, max_size=6))
def test_any_text_survives_export_and_import(tmp_path_factory, some) -> None:
    folder = tmp_path_factory.mktemp("trip")
    with fresh(folder / "a") as first, fresh(folder / "b") as second:
        ingest(first, some, None, [str(n) for n in range(len(some))])
        export(first, folder / "out")
        import_path(second, folder / "out", "knowme")
        assert kept(second) == kept(first)


def test_an_export_has_a_page_for_people(home, tmp_path) -> None:
    store(home, "openclaw", [(Record("message", "s/../../x", "a", "user", "", "hi there"), None)])
    export(home, tmp_path / "out")
    pages = list((tmp_path / "out" / "markdown").rglob("*.md"))
    assert len(pages) == 1 and "hi there" in pages[0].read_text(encoding="utf-8")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format"] == "knowme-export"


def test_an_export_never_overwrites(home, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(HomeError, match="exists already"):
        export(home, tmp_path / "out")


def test_what_is_believed_goes_along_and_the_persons_word_comes_back(tmp_path, capsys) -> None:
    said = {"session": "s", "role": "user", "timestamp": "2026-01-05T09:00"}
    with fresh(tmp_path / "a") as first:
        ingest(first, ["I live in Porto. My cat is called Nero."], [said])
        structure.catch_up(first)
        with first.db.read() as conn:
            home_fact = next(f for f in facts.believed(conn) if f.attribute == "residence")
        first.db.write(lambda conn: facts.decide(conn, "edit", home_fact.uid, now_ms(), "Gaia"))
        portrait.build(first)
        counts = export(first, tmp_path / "out")
        assert counts["decisions"] == 1 and counts["facts"] >= 2
        with first.db.read() as conn:
            before = [(f.uid, f.value, f.state) for f in facts.believed(conn)]
    lines = (tmp_path / "out" / "facts.jsonl").read_text("utf-8").splitlines()
    assert any(json.loads(line)["quote"].startswith("I live in Porto") for line in lines)
    assert "Gaia" in (tmp_path / "out" / "USER_PROFILE.md").read_text("utf-8")
    with fresh(tmp_path / "b"):
        pass
    assert run(["--home", str(tmp_path / "b"), "import-file", str(tmp_path / "out")]) == 0
    with Home.open(tmp_path / "b") as second, second.db.read() as conn:
        assert [(f.uid, f.value, f.state) for f in facts.believed(conn)] == before
    capsys.readouterr()


def test_decisions_that_are_none_are_refused_and_name_their_file(home, tmp_path) -> None:
    (tmp_path / "decisions.jsonl").write_text('{"at_ms": 1}\n')
    with pytest.raises(InputError, match=r"decisions\.jsonl"):
        take_decisions(home, tmp_path)
    assert take_decisions(home, tmp_path / "nowhere") == 0
