import os

import pytest

from knowme.settings import ContextSettings
from knowme.workspace import MAX_BYTES, PROFILE, Workspace


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def workspace(home, **more) -> Workspace:
    return Workspace(home, ContextSettings(**more))


def texts(files: Workspace) -> dict[str, str]:
    return {part.title: part.text for part in files.parts()}


def test_files_come_in_the_order_of_the_setting_and_the_profile_is_memory(tmp_path, folder) -> None:
    (folder / "USER.md").write_text("I am Rui.\n")
    (folder / "AGENTS.md").write_text("Be brief.\n")
    (folder / "OTHER.md").write_text("not named")
    (tmp_path / PROFILE).write_text("Lives in Porto.")
    found = [(part.cls, part.title, part.text) for part in workspace(tmp_path).parts()]
    assert found == [
        ("files", "AGENTS.md", "Be brief."),
        ("files", "USER.md", "I am Rui."),
        ("memory", "What is known of the person", "notes:\n- Lives in Porto."),
    ]


def test_without_a_folder_or_files_there_is_nothing_and_nothing_to_complain_of(tmp_path) -> None:
    files = workspace(tmp_path)
    assert files.parts() == () and files.notes == ()


def test_a_folder_that_was_named_and_is_not_there_is_a_note(tmp_path) -> None:
    files = workspace(tmp_path, workspace="elsewhere")
    assert files.parts() == ()
    assert str(tmp_path / "elsewhere") in files.notes[0]


def test_a_relative_folder_starts_at_the_home_and_an_absolute_one_does_not(tmp_path) -> None:
    for name in ("mine", "away"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "SOUL.md").write_text(name)
    home = tmp_path / "home"
    home.mkdir()
    assert texts(workspace(home, workspace="../mine")) == {"SOUL.md": "mine"}
    assert texts(workspace(home, workspace=str(tmp_path / "away"))) == {"SOUL.md": "away"}


def test_a_strategy_that_is_off_reads_nothing(tmp_path, folder) -> None:
    (folder / "SOUL.md").write_text("Be warm.")
    (tmp_path / PROFILE).write_text("Lives in Porto.")
    assert workspace(tmp_path, strategies=("recent",)).parts() == ()
    assert [p.cls for p in workspace(tmp_path, strategies=("memory",)).parts()] == ["memory"]


def test_a_file_is_read_again_when_it_changed_and_only_then(tmp_path, folder) -> None:
    file = folder / "SOUL.md"
    file.write_text("one")
    files = workspace(tmp_path)
    assert texts(files) == {"SOUL.md": "one"}
    about = file.stat()
    with file.open("r+") as same:  # other words, but the size, the time and the file stay
        same.write("two")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert texts(files) == {"SOUL.md": "one"}
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert texts(files) == {"SOUL.md": "two"}
    file.unlink()
    assert texts(files) == {}


def test_a_link_that_leads_out_is_refused_with_a_note_and_one_that_stays_is_read(
    tmp_path, folder
) -> None:
    (tmp_path / "secret").write_text("SECRET")
    (folder / "SOUL.md").symlink_to(tmp_path / "secret")
    (folder / "real.md").write_text("mine")
    (folder / "USER.md").symlink_to("real.md")
    files = workspace(tmp_path)
    assert texts(files) == {"USER.md": "mine"}
    assert "SOUL.md leads out" in files.notes[0]


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "\0"])
def test_a_name_that_leads_out_is_refused(tmp_path, folder, name) -> None:
    (tmp_path / "secret").write_text("SECRET")
    files = workspace(tmp_path, files=(name,))
    assert files.parts() == ()


def test_loops_folders_and_pipes_are_notes_and_do_not_hang(tmp_path, folder) -> None:
    (folder / "AGENTS.md").symlink_to("AGENTS.md")
    (folder / "SOUL.md").mkdir()
    os.mkfifo(folder / "USER.md")
    files = workspace(tmp_path)
    assert files.parts() == ()
    assert sum("is not a file" in note for note in files.notes) == 2


def test_what_is_not_utf_8_is_replaced_and_what_is_too_long_is_bounded(tmp_path, folder) -> None:
    (folder / "SOUL.md").write_bytes(b"\xef\xbb\xbfcaf\xe9 \0 ok")
    (folder / "USER.md").write_bytes(b"x" * (MAX_BYTES * 3))
    files = workspace(tmp_path)
    found = texts(files)
    assert found["SOUL.md"] == "caf\ufffd \ufffd ok"
    assert len(found["USER.md"]) == MAX_BYTES
    assert "USER.md is longer than 64 KiB" in files.notes[0]


def test_an_empty_file_is_no_section(tmp_path, folder) -> None:
    (folder / "SOUL.md").write_text(" \n")
    assert workspace(tmp_path).parts() == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_a_note(tmp_path, folder) -> None:
    (folder / "SOUL.md").write_text("x")
    (folder / "SOUL.md").chmod(0)
    files = workspace(tmp_path)
    assert files.parts() == () and "SOUL.md cannot be read" in files.notes[0]
