"""An export read back: versions, retired messages, documents, bad exports."""

import json

import pytest
from contracts.test_sources import drain, kept

from knowme.errors import SourceError
from knowme.sources.knowme import KnowmeSource


def row(name: str, text: str, version: int = 1, **more) -> dict:
    return {
        "source": "openclaw", "conversation": "c1", "external_id": name, "version": version,
        "seq": 7, "role": "user", "speaker": "Rui", "text": text, "raw": '{"x": 1}', "at_ms": 5,
        "origin": "a.jsonl:3", "recall": True, "retired": False, "meta": {"channel": "Telegram"},
        **more,
    }  # fmt: skip


@pytest.fixture
def export(tmp_path):
    def write(*rows, manifest: object = None, books: tuple = ()):
        told = manifest if manifest is not None else {"format": "knowme-export", "version": 1}
        (tmp_path / "manifest.json").write_text(json.dumps(told))
        known = books or (
            {"source": "openclaw", "external_id": "c1", "kind": "chat", "title": "T"},
        )
        (tmp_path / "conversations.jsonl").write_text("".join(json.dumps(b) + "\n" for b in known))
        lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
        (tmp_path / "messages.jsonl").write_text("".join(line + "\n" for line in lines))
        return tmp_path

    return write


def read(path, cursor=None):
    return drain(KnowmeSource(path), {} if cursor is None else cursor)


def test_a_message_comes_back_as_it_was(export):
    (one,) = read(export(row("m1", "hello", recall=False)))
    assert (one.kind, one.conversation, one.external_id) == ("message", "c1", "m1")
    assert (one.role, one.speaker, one.text, one.raw) == ("user", "Rui", "hello", '{"x": 1}')
    assert (one.at_ms, one.seq, one.origin, one.title) == (5, 7, "a.jsonl:3", "T")
    assert one.recall is False
    origin = {"_source": "openclaw", "_kind": "chat", "_version": 1}
    assert one.meta == {"channel": "Telegram", **origin}


def test_a_document_comes_back_as_sections(export):
    book = {"source": "notes", "external_id": "a.md", "kind": "document", "title": "A"}
    path = export(row("s", "# A", source="notes", conversation="a.md"), books=(book,))
    (one,) = read(path)
    assert one.kind == "section" and one.meta["_source"] == "notes"


def test_versions_come_in_order_and_the_last_one_counts(export):
    path = export(row("m1", "old", retired=True), row("m2", "x"), row("m1", "new", 2))
    records = read(path)
    assert [one.kind for one in records] == ["message"] * 3
    assert [fields[2] for fields in kept(records).values()] == ["new", "x"]


def test_what_was_retired_is_retired_again(export):
    path = export(
        row("m1", "old", retired=True), row("m1", "older", 2, retired=True), row("m2", "x")
    )
    records = read(path)
    assert [(one.kind, one.external_id) for one in records] == [
        ("message", "m1"), ("message", "m1"), ("removed", "m1"), ("message", "m2"),
    ]  # fmt: skip
    assert records[2].meta["_source"] == "openclaw"


def test_an_export_is_read_once_and_a_new_one_again(export):
    cursor: dict = {}
    path = export(row("m1", "one"))
    assert len(read(path, cursor)) == 1
    assert read(path, cursor) == []
    assert len(read(export(row("m1", "one"), row("m2", "two")), cursor)) == 2


def test_a_bad_line_is_named_and_the_rest_is_taken(export):
    path = export(row("m1", "one"), "{half", '{"text": "nobody"}', row("m2", "two"))
    records = read(path)
    assert [one.text for one in records if one.kind == "message"] == ["one", "two"]
    assert [one.origin for one in records if one.kind == "skipped"] == [
        "messages.jsonl:2", "messages.jsonl:3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ({"format": "other", "version": 1}, "not an export"),
        ({"format": "knowme-export", "version": 2}, "version 2"),
        ([], "not an export"),
    ],
)
def test_what_is_no_export_of_ours_is_refused(export, manifest, says):
    with pytest.raises(SourceError) as caught:
        read(export(row("m1", "one"), manifest=manifest))
    assert says in caught.value.message and caught.value.hint


def test_an_incomplete_export_is_refused(export):
    path = export(row("m1", "one"))
    (path / "messages.jsonl").unlink()
    with pytest.raises(SourceError, match="not complete"):
        read(path)
