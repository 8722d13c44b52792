"""Notes: how they are cut, dated, named and followed."""

import os
from pathlib import Path

import pytest
from contracts.test_sources import drain, kept
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme.sources.markdown import MarkdownSource
from knowme.sources.sections import OVERLAP_CHARS, TARGET_CHARS, cut, date_ms, text_lines

NOON = 43_200_000
DAY = 86_400_000
JANUARY_31 = 20_484 * DAY  # 2026-01-31T00:00Z


def put(root: Path, name: str, text: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(root: Path, cursor: dict | None = None):
    return drain(MarkdownSource(root), {} if cursor is None else cursor)


def texts(records) -> list[str]:
    return [one.text for one in records if one.kind == "section"]


def sentence(number: int) -> str:
    return f"Sentence {number} says a little about the garden and the neighbour. "


# ---- cutting ----------------------------------------------------------------------------------

LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["# A\n", "## B #\n", "```\n", "~~~~\n", "\n", "---\n", "date: 2026-01-31\n"]
        ),
        st.text(st.sampled_from("ab .!?。\té😀#`\r"), max_size=80).map(lambda text: text + "\n"),
        st.text(st.sampled_from("ab ."), min_size=1000, max_size=3000),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(LINES, st.integers(20, 900), st.integers(0, 19))
def test_no_text_is_lost(lines, target, overlap):
    pieces = list(cut(lines, target, overlap))
    assert "".join(piece.text[piece.overlap :] for piece in pieces) == "".join(lines)


@settings(max_examples=200, deadline=None)
@given(LINES)
def test_pieces_are_bounded_and_an_overlap_repeats_the_piece_before(lines):
    before = ""
    for piece in cut(lines):
        if not piece.front:
            assert len(piece.text) <= TARGET_CHARS * 3 // 2 + OVERLAP_CHARS
        assert piece.overlap <= OVERLAP_CHARS
        assert before.endswith(piece.text[: piece.overlap])
        assert piece.lines[0] <= piece.lines[1]
        before = piece.text


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_the_lines_of_a_piece_are_those_it_stands_on(lines):
    whole = "".join(lines).split("\n")
    for piece in cut(lines):
        assert piece.text[piece.overlap :].split("\n")[0] in whole[piece.lines[0] - 1]


def test_sections_end_at_headings_outside_code():
    text = "# A\none\n## B\ntwo\n```\n# no heading\n```\nmore\n#no heading\n# C\nthree\n"
    pieces = list(cut(text.splitlines(True)))
    assert [(piece.headings, piece.lines) for piece in pieces] == [
        (("A",), (1, 2)), (("A", "B"), (3, 9)), (("C",), (10, 11)),
    ]  # fmt: skip


def test_a_heading_with_nothing_below_stays_with_what_follows():
    pieces = list(cut(["# Title\n", "\n", "## First\n", "text\n"]))
    assert [piece.headings for piece in pieces] == [("Title", "First")]


def test_long_sections_are_cut_at_paragraphs_then_sentences():
    paragraphs = "\n\n".join("".join(sentence(n) for n in range(4)) for _ in range(12))
    for piece in list(cut(paragraphs.splitlines(True)))[:-1]:
        assert piece.text.endswith("\n\n")
    run = "".join(sentence(n) for n in range(60))
    pieces = list(cut([run]))
    assert len(pieces) > 3
    for piece in pieces:
        assert piece.text.rstrip().endswith(".")
        assert piece.text[piece.overlap :].startswith("Sentence")
        assert not piece.overlap or piece.text.startswith("Sentence")


def test_a_very_long_line_is_cut_in_reasonable_time():
    pieces = list(cut(["x" * 3_000_000]))
    assert sum(len(piece.text) - piece.overlap for piece in pieces) == 3_000_000


# ---- dates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-01-31", JANUARY_31 + NOON),
        ("on 2026-01-31 08:30 it rained", JANUARY_31 + 30_600_000),
        ("2026-01-31T08:30:05Z", JANUARY_31 + 30_605_000),
        ("2026-01-31T08:30+02:00", JANUARY_31 + 23_400_000),
        ("2026-01-31 08:30 -03:00", JANUARY_31 + 41_400_000),
        ("2026-13-31", None),
        ("12026-01-31", None),
        ("no date", None),
    ],
)
def test_dates_are_understood(text, ms):
    assert date_ms(text) == ms


def test_front_matter_the_name_and_headings_give_dates_and_title(tmp_path):
    put(tmp_path, "a.md", '---\ntitle: "Stairs"\ndate: 2026-01-31\ntags: [x]\n---\n# One\nlight\n')
    put(tmp_path, "2026-02-01 walk.md", "# Walk\nfar\n")
    put(
        tmp_path,
        "b.md",
        "---\ncreated: 2026-01-31T08:30:00Z\n---\n# 2026-02-02\nrain\n# Else\nsun\n",
    )
    put(tmp_path, "c.md", "no date\n")
    found = {one.text: one for one in read(tmp_path)}
    assert found["# One\nlight"].at_ms == JANUARY_31 + NOON
    assert found["# One\nlight"].title == "Stairs"
    assert found["# Walk\nfar"].at_ms == JANUARY_31 + DAY + NOON
    assert found["# 2026-02-02\nrain"].at_ms == JANUARY_31 + 2 * DAY + NOON
    assert found["# Else\nsun"].at_ms == JANUARY_31 + 30_600_000
    assert found["no date"].at_ms is None and found["no date"].title == "c"
    front = next(one for one in found.values() if one.meta.get("front_matter"))
    assert front.recall is False


def test_a_rule_at_the_top_is_no_front_matter(tmp_path):
    put(tmp_path, "a.md", "---\njust a rule and text\n")
    assert texts(read(tmp_path)) == ["---\njust a rule and text"]


# ---- records ----------------------------------------------------------------------------------


def test_a_section_says_where_it_stands(tmp_path):
    put(tmp_path, "deep/garden.md", "# Garden\nintro\n\n## Tomatoes\nred\n")
    one = read(tmp_path)[1]
    assert one.kind == "section" and one.role == "document"
    assert one.conversation == "deep/garden.md" and one.title == "Garden"
    assert one.origin == "deep/garden.md:4"
    assert one.meta == {"path": "deep/garden.md", "lines": [4, 5], "heading": "Garden > Tomatoes"}


def test_a_single_file_is_a_source_too(tmp_path):
    path = put(tmp_path, "garden.md", "# Garden\nred\n")
    put(tmp_path, "other.md", "# Other\n")
    cursor: dict = {}
    assert texts(read(path, cursor)) == ["# Garden\nred"]
    assert read(path, cursor) == []


def test_equal_sections_have_different_names(tmp_path):
    put(tmp_path, "a.md", "# A\nsame\n# A\nsame\n")
    assert len({one.external_id for one in read(tmp_path)}) == 2


# ---- following --------------------------------------------------------------------------------


def test_only_the_section_that_changed_is_touched(tmp_path):
    path = put(tmp_path, "a.md", "# A\none\n# B\ntwo\n# C\nthree\n")
    cursor: dict = {}
    before = read(tmp_path, cursor)
    path.write_text("# new\nzero\n\n# A\none\n# B\nTWO\n# C\nthree\n")
    later = read(tmp_path, cursor)
    assert sorted(texts(later)) == ["# B\nTWO", "# new\nzero"]
    gone = [one.external_id for one in later if one.kind == "removed"]
    assert gone == [before[1].external_id]
    assert kept(before + later).keys() == kept(read(tmp_path)).keys()


def test_a_removed_file_leaves_whole(tmp_path):
    path = put(tmp_path, "a.md", "# A\none\n")
    cursor: dict = {}
    read(tmp_path, cursor)
    path.unlink()
    (gone,) = read(tmp_path, cursor)
    assert (gone.kind, gone.conversation, gone.external_id) == ("removed", "a.md", "")
    assert cursor == {}
    put(tmp_path, "a.md", "# A\none\n")
    assert texts(read(tmp_path, cursor)) == ["# A\none"]


def test_a_file_that_changes_while_it_is_half_read_leaves_nothing_behind(tmp_path):
    path = put(tmp_path, "a.md", "".join(f"# H{n}\ntext {n}\n" for n in range(9)))
    cursor: dict = {}
    taken = []
    steps = MarkdownSource(tmp_path).read({})
    for _ in range(5):
        record, mark = next(steps)
        taken += [record] if record else []
        if mark:
            cursor[mark.unit] = mark.state
    steps.close()
    path.write_text("# Other\nall new\n")
    taken += read(tmp_path, cursor)
    assert kept(taken) == kept(read(tmp_path))


def test_a_file_that_was_only_touched_yields_nothing(tmp_path):
    path = put(tmp_path, "a.md", "# A\none\n")
    cursor: dict = {}
    read(tmp_path, cursor)
    os.utime(path, (1, 1))
    assert read(tmp_path, cursor) == []


# ---- what is passed over, and odd files -------------------------------------------------------


def test_what_holds_no_notes_is_passed_over_and_named_once(tmp_path):
    put(tmp_path, ".git/x.md", "POISON")
    put(tmp_path, ".obsidian/x.md", "POISON")
    put(tmp_path, "node_modules/p/README.md", "POISON")
    put(tmp_path, ".hidden.md", "POISON")
    put(tmp_path, "scan.md", b"%PDF\0\1")
    put(tmp_path, "photo.jpg", "POISON")
    put(tmp_path, "a.md", "# A\none\n")
    outside = put(tmp_path.parent, "outside.md", "POISON")
    (tmp_path / "link.md").symlink_to(outside)
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.md")
    cursor: dict = {}
    records = read(tmp_path, cursor)
    assert texts(records) == ["# A\none"]
    assert {one.origin: one.text for one in records if one.kind == "skipped"} == {
        ".git": "a folder that holds no notes",
        ".obsidian": "a folder that holds no notes",
        "node_modules": "a folder that holds no notes",
        "scan.md": "not text",
        "link.md": "a link that leads outside the folder",
        "loop": "a link to a folder that is read itself",
        "pipe.md": "not a plain file",
    }
    assert read(tmp_path, cursor) == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("# Ä\ncafé\n".encode(), "# Ä\ncafé"),
        ("\ufeff# Ä\ncafé\n".encode(), "# Ä\ncafé"),
        ("# Ä\r\ncafé\r\n".encode(), "# Ä\r\ncafé"),
        ("# Ä\ncafé\n".encode("utf-16"), "# Ä\ncafé"),
        ("# Ä\ncafé €\n".encode("cp1252"), "# Ä\ncafé €"),
        (b"caf\xe9 \x81\n", "café \x81"),
    ],
)
def test_every_encoding_gives_its_words(tmp_path, data, text):
    put(tmp_path, "a.md", data)
    assert texts(read(tmp_path)) == [text]


def test_a_file_in_another_encoding_is_named(tmp_path):
    put(tmp_path, "a.md", b"caf\xe9\n")
    note = next(one for one in read(tmp_path) if one.kind == "skipped")
    assert (note.origin, note.text) == ("a.md", "not UTF-8: read as Windows-1252")


def test_a_long_line_is_not_torn_inside_a_character(tmp_path):
    text = "é😀" * 60_000
    path = put(tmp_path, "a.txt", text)
    noted: list[str] = []
    with path.open("rb") as handle:
        assert "".join(text_lines(handle, noted)) == text
    assert noted == []


def test_an_empty_folder_and_an_empty_file_give_nothing(tmp_path):
    put(tmp_path, "empty.md", "")
    put(tmp_path, "blank.md", "\n\n  \n")
    assert read(tmp_path) == []
