"""What every source keeps to. A backend is one subclass."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import plugins
from knowme.errors import SourceError
from knowme.fiction.build import build
from knowme.types import Mark, Record

Step = tuple[Record | None, Mark | None]


def apply(cursor: dict, mark: Mark | None) -> None:
    if mark is not None:
        stored = json.loads(json.dumps(mark.state))
        if stored is None:
            cursor.pop(mark.unit, None)
        else:
            cursor[mark.unit] = stored


def drain(source, cursor: dict) -> list[Record]:
    """Read to the end, storing the marks as the archive does; return the records."""
    out = []
    for record, mark in source.read(dict(cursor)):
        if record is not None:
            out.append(record)
        apply(cursor, mark)
    return out


def kept(records: list[Record]) -> dict:
    """Return what an archive would hold: the current records by conversation and name."""
    held: dict = {}
    for one in records:
        key = (str(one.meta.get("_source", "")), one.conversation, one.external_id)
        if one.kind in ("message", "section"):
            held[key] = (one.role, one.speaker, one.text, one.raw, one.at_ms, one.seq, one.recall)
        elif one.kind == "removed":
            for name in [k for k in held if k[:2] == key[:2] and one.external_id in ("", k[2])]:
                del held[name]
    return held


def photograph(folder: Path) -> dict:
    """Return what lies in a folder: names, contents, times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (data, path.lstat().st_mtime_ns)
    return found


@pytest.fixture(scope="class")
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "held"
    request.cls().fill(folder)
    return folder


class SourceContract:
    """Subclass it with ``fill(folder)``, which puts something to be read into a new folder."""

    kind = ""
    versions = False  # whether one read may give several versions of a message

    def fill(self, folder: Path) -> None:
        raise NotImplementedError

    def source(self, path: Path):
        return plugins.find("sources", self.kind)(path=path, name="one", future_setting=1)

    def test_it_reads_something_under_its_name(self, folder):
        source = self.source(folder)
        assert source.name == "one"
        records = drain(source, {})
        assert [one for one in records if one.kind in ("message", "section")]

    def test_every_record_is_well_formed(self, folder):
        for one in drain(self.source(folder), {}):
            if one.kind == "skipped":
                assert one.text and one.origin
                continue
            assert one.conversation
            json.dumps(dict(one.meta))
            one.text.encode()
            (one.raw or "").encode()
            assert one.kind == "removed" or (one.external_id and one.origin)

    def test_names_are_unique_in_a_conversation(self, folder):
        names = [
            (one.meta.get("_source"), one.conversation, one.external_id)
            for one in drain(self.source(folder), {})
            if one.kind in ("message", "section")
        ]
        assert self.versions or len(names) == len(set(names))

    def test_a_second_read_yields_nothing(self, folder):
        cursor: dict = {}
        drain(self.source(folder), cursor)
        assert drain(self.source(folder), cursor) == []

    def test_two_first_reads_are_the_same(self, folder):
        assert drain(self.source(folder), {}) == drain(self.source(folder), {})

    def test_marks_survive_json(self, folder):
        for _, mark in self.source(folder).read({}):
            if mark is not None:
                assert json.loads(json.dumps(mark.state)) == mark.state

    def test_a_stop_anywhere_loses_nothing(self, folder):
        whole = list(self.source(folder).read({}))
        want = kept([record for record, _ in whole if record is not None])

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, len(whole)), min_size=1, max_size=4))
        def stopped(cuts):
            cursor: dict = {}
            taken: list[Record] = []
            for cut in [*cuts, None]:
                taken += self._until(folder, cursor, cut)
            assert kept(taken) == want
            assert drain(self.source(folder), cursor) == []

        stopped()

    def _until(self, folder: Path, cursor: dict, cut: int | None) -> Iterator[Record]:
        steps = self.source(folder).read(dict(cursor))
        out = []
        for number, (record, mark) in enumerate(steps):
            if number == cut:
                break
            if record is not None:
                out.append(record)
            apply(cursor, mark)
        steps.close()
        return out

    def test_nothing_is_written_to_it(self, folder):
        before = photograph(folder)
        drain(self.source(folder), {})
        assert photograph(folder) == before

    def test_a_missing_path_is_an_error_that_says_what_to_do(self, tmp_path):
        with pytest.raises(SourceError) as caught:
            list(self.source(tmp_path / "nowhere").read({}))
        assert "nowhere" in caught.value.message
        assert caught.value.hint

    def test_marks_of_another_kind_of_state_do_not_break_it(self, folder):
        cursor: dict = {}
        first = drain(self.source(folder), cursor)
        odd = {unit: ["not", "ours"] for unit in cursor}
        again = drain(self.source(folder), odd)
        assert kept(again).keys() >= kept(first).keys()


class TestOpenClaw(SourceContract):
    kind = "openclaw"

    def fill(self, folder: Path) -> None:
        build(folder)


class TestMarkdown(SourceContract):
    kind = "markdown"

    def fill(self, folder: Path) -> None:
        (folder / "deep" / ".hidden").mkdir(parents=True)
        (folder / "deep/.hidden/secret.md").write_text("# no\n")
        long = "\n\n".join(f"Paragraph {n}. " + "Words about the garden. " * 9 for n in range(40))
        (folder / "garden.md").write_text(f"# Garden\n\n{long}\n\n## Tomatoes\n\nred\n")
        (folder / "deep/2026-01-31 café.txt").write_bytes("café\n".encode("latin-1"))
        (folder / "deep/picture.md").write_bytes(b"\x89PNG\0\0")
        (folder / "twice.md").write_text("# A\nsame\n# A\nsame\n# A\nsame\n")


class TestKnowme(SourceContract):
    kind = "knowme"
    versions = True

    def fill(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "manifest.json").write_text('{"format": "knowme-export", "version": 1}')
        book = {"source": "openclaw", "external_id": "c1", "kind": "chat", "title": "Pixel"}
        note = {"source": "notes", "external_id": "a.md", "kind": "document", "title": "A"}
        (folder / "conversations.jsonl").write_text(f"{json.dumps(book)}\n{json.dumps(note)}\n")
        rows = [
            _row("m1", 1, "my dog is Pixle", retired=True),
            _row("m2", 1, "gone", retired=True),
            _row("m1", 2, "my dog is Pixel"),
            {**_row("s1", 1, "# A"), "source": "notes", "conversation": "a.md"},
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "messages.jsonl").write_text(text + "{half\n")


def _row(name: str, version: int, text: str, retired: bool = False) -> dict:
    return {
        "source": "openclaw", "conversation": "c1", "external_id": name, "version": version,
        "seq": 3, "role": "user", "speaker": "Rui", "text": text, "raw": None, "at_ms": 1,
        "origin": "x:1", "recall": True, "retired": retired, "meta": {"channel": "Telegram"},
    }  # fmt: skip
