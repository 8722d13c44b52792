"""USER_PROFILE.md: built from facts and sentences, edited by hand, never overwritten."""

import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import portrait, profile, structure
from knowme.cli import run
from knowme.db import rows
from knowme.errors import HomeError
from knowme.home import Home
from knowme.profile.store import WHOLE
from knowme.sync import ingest, store
from knowme.types import Record
from knowme.wire import estimate_tokens

DAY = 86_400_000
NOW = 1_775_000_000_000
OFFLINE = {"embedder.kind": "hashing", "engine.kind": "echo"}
REMARKS = ("I make lists for everything.", "I always double-check my work.", "I plan everything.")


def say(home, *texts: str, start=1) -> None:
    """Let the person say these, one a day."""
    store(
        home,
        "openclaw",
        [
            (Record("message", "s", str(n), "user", "", text, None, NOW - (99 - n) * DAY, n), None)
            for n, text in enumerate(texts, start)
        ],
    )


def believe(home, *facts: tuple[str, str], message_id=1, sensitive="", state="believed") -> None:
    """Put facts down as believed, said outright in one message."""

    def put(conn) -> None:
        for name, what in facts:
            conn.execute(
                "INSERT INTO facts(uid, subject, attribute, value, sentence, message_id, start,"
                " end, quote, said_ms, read_by, outright, sensitive, state, recorded_ms)"
                " VALUES(?, 'me', ?, ?, '', ?, 0, 2, ?, ?, 'rules', 1, ?, ?, 1)",
                (f"{name}{what}{message_id}", name, what, message_id, what, NOW, sensitive, state),
            )

    home.db.write(put)


def retire(home, name: str) -> None:
    home.db.write(lambda c: c.execute("DELETE FROM facts WHERE attribute = ?", (name,)))


def page(home):
    return home.path / "USER_PROFILE.md"


def shown(home) -> list[str]:
    return [one.text for one in profile.read_page(page(home).read_text("utf-8"))][1:]


def current(home) -> list[str]:
    with home.db.read() as conn:
        return [line.text for line in profile.lines(conn) if line.state == "current"]


def build(home) -> portrait.Built:
    return portrait.build(home, NOW)


@pytest.fixture
def known(home):
    """Give a home in which four things are believed."""
    say(home, "hello there")
    believe(home, ("residence", "Porto"), ("likes", "tea"), ("employer", "Maresia"))
    believe(home, ("allergy", "hazelnuts"), sensitive="health")
    return home


# --- building -------------------------------------------------------------------------------------


def test_the_page_is_written_for_its_owner_alone_and_again_only_where_it_differs(known) -> None:
    built = build(known)
    assert built.changes == 4 and built.written == page(known)
    assert stat.S_IMODE(page(known).stat().st_mode) == 0o600
    before = page(known).stat()
    assert build(known).changes == 0
    assert page(known).stat().st_mtime_ns == before.st_mtime_ns
    assert shown(known) == ["Lives in Porto", "Works at Maresia", "Likes tea",
                            "Is allergic to hazelnuts"]  # fmt: skip
    assert [entry.name for entry in known.path.iterdir() if "partial" in entry.name] == []


def test_where_nothing_is_known_there_is_no_page(home) -> None:
    assert build(home).written is None and not page(home).exists()
    assert home.workspace.parts() == ()


def test_the_title_names_the_person(home, tmp_path) -> None:
    with Home.open(home.path, {**OFFLINE, "name": "Leonor"}) as named:
        say(named, "hello")
        believe(named, ("likes", "tea"))
        build(named)
        assert page(named).read_text("utf-8").startswith("# About Leonor\n")


def test_sentences_make_findings_bit_by_bit_as_at_once(home, tmp_path) -> None:
    for number, text in enumerate((*REMARKS, "If stressed, I default to precision."), 1):
        say(home, text, start=number)
        build(home)
    bit_by_bit = page(home).read_text("utf-8")
    assert "When stressed, defaults to precision" in bit_by_bit
    assert "conscientiousness above average" in bit_by_bit
    home.db.write(lambda c: [c.execute(f"DELETE FROM {t}") for t in ("lines", "states", "events")])
    page(home).unlink()
    build(home)
    assert page(home).read_text("utf-8") == bit_by_bit


def test_what_others_say_or_what_is_quoted_makes_no_finding(home) -> None:
    ingest(home, ["If stressed, I default to panic."], [{"speaker": "Ana"}], ["1"])
    store(home, "openclaw", [
        (Record("message", "s", "1", "assistant", "", "If stressed, I default to haste.",
                None, NOW - DAY, 1), None),
        (Record("message", "s", "2", "user", "Ben", "I'm an introvert.", None, NOW - DAY, 2,
                meta={"other": True}), None),
        (Record("message", "s", "3", "user", "", "> If stressed, I default to rage.", None,
                NOW - DAY, 3), None),
    ])  # fmt: skip
    build(home)
    assert current(home) == []


def test_a_retired_message_says_nothing_any_more(home) -> None:
    say(home, "If stressed, I default to precision.")
    build(home)
    assert len(current(home)) == 1
    store(home, "openclaw", [(Record("removed", "s", "1"), None)])
    build(home)
    assert current(home) == []


def test_one_switch_takes_psychology_away_and_one_what_is_sensitive(known) -> None:
    say(known, "If stressed, I default to precision.", start=2)
    build(known)
    assert len(current(known)) == 5
    with Home.open(known.path, {**OFFLINE, "profile.psychology": False}) as plain:
        build(plain)
        assert "defaults to precision" not in page(plain).read_text("utf-8")
    with Home.open(known.path, {**OFFLINE, "privacy.sensitive": "off"}) as healthy:
        build(healthy)
        told = page(healthy).read_text("utf-8")
        assert "hazelnuts" not in told and "defaults to precision" in told
        assert not [t for t in current(healthy) if "hazelnuts" in t]


def test_the_switch_takes_the_history_of_what_is_sensitive_too_but_no_word_of_the_person(
    known,
) -> None:
    say(known, "If stressed, I default to precision.", start=2)
    build(known)
    known.db.write(lambda conn: profile.decide(conn, "write", "", 1, "Has a bad knee", "health"))
    build(known)
    with known.db.read() as conn:
        assert any("hazelnuts" in str(event) for event in profile.history(conn))
    with Home.open(known.path, {**OFFLINE, "privacy.sensitive": "off"}) as healthy:
        structure.catch_up(healthy)
        with healthy.db.read() as conn:
            assert not [event for event in profile.history(conn) if "hazelnuts" in str(event)]
            told = {line.text for line in profile.lines(conn)}
        assert {"Has a bad knee", "When stressed, defaults to precision"} <= told


def test_the_page_keeps_to_its_budget_and_says_what_it_left_out(known) -> None:
    with Home.open(known.path, {**OFFLINE, "context.memory_tokens": 60}) as small:
        built = build(small)
        assert estimate_tokens(page(small).read_text("utf-8")) <= 60 and built.left_out
        assert build(small).absorbed == 0  # what was left out was not struck
        assert len(portrait.left_out(small)) == built.left_out
    build(known)
    assert len(shown(known)) == 4


# --- edited by hand -------------------------------------------------------------------------------


def hand(home, *changes: tuple[str, str]) -> None:
    text = page(home).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    page(home).write_text(text, "utf-8")


def test_a_changed_a_new_and_a_missing_line_are_the_persons_word_for_ever(known) -> None:
    build(known)
    hand(known, ("- Lives in Porto\n", "- Lives in Bonfim, Porto\n"), ("- Likes tea\n", ""),
         ("- Works at Maresia\n", "- Works at Maresia\n- Was raised by sailors\n"))  # fmt: skip
    built = build(known)
    assert built.absorbed == 3
    assert shown(known)[:3] == ["Lives in Bonfim, Porto", "Works at Maresia",
                                "Was raised by sailors"]  # fmt: skip
    believe(known, ("likes", "Tea"), ("residence", "porto"), message_id=1)
    known.db.write(lambda c: c.execute("DELETE FROM lines"))
    build(known)
    assert "Likes tea" not in page(known).read_text("utf-8")
    assert "Lives in Bonfim, Porto" in shown(known) and "Lives in Porto" not in shown(known)
    retire(known, "residence")
    build(known)
    assert "Lives in Bonfim, Porto" in shown(known) and "Was raised by sailors" in shown(known)


def test_however_a_page_was_left_every_line_of_it_is_kept(known) -> None:
    build(known)
    hand(known, ("# About you", "# Me, myself"), ("## Preferences", "## Garden\n\nGrows *leeks*\n"
         "1. and kale\n   - with love\n\n## Preferences"))  # fmt: skip
    build(known)
    told = page(known).read_text("utf-8")
    assert told.startswith("# Me, myself\n")
    assert "## Garden\n- Grows *leeks*\n- and kale\n- with love\n" in told
    assert build(known).absorbed == 0


def test_a_page_that_was_there_before_the_first_build_is_kept(known) -> None:
    page(known).write_text("I am Leonor.\n\nI like *short* answers.\n", "utf-8")
    built = build(known)
    assert built.absorbed == 2
    assert {"I am Leonor.", "I like *short* answers.", "Lives in Porto"} <= {
        *shown(known), *(one.text for one in profile.read_page(page(known).read_text("utf-8")))
    }  # fmt: skip


def test_a_line_moved_to_another_heading_stays_there(known) -> None:
    build(known)
    hand(known, ("- Likes tea\n", ""), ("- Lives in Porto\n", "- Lives in Porto\n- Likes tea\n"))
    build(known)
    assert shown(known)[:2] == ["Lives in Porto", "Likes tea"] or shown(known).index(
        "Likes tea"
    ) < shown(known).index("Is allergic to hazelnuts")
    with known.db.read() as conn:
        assert profile.find(conn, "likes tea").section == "identity"


def test_a_private_mark_is_the_persons_to_set_but_not_to_take_from_what_is_sensitive(known) -> None:
    build(known)
    hand(known, ("- Likes tea", "- Likes tea [private]"), ("## Health [private]", "## Health"))
    build(known)
    plain, private = profile.split(page(known).read_text("utf-8"))
    assert "tea" in private and "hazelnuts" in private
    assert "tea" not in plain and "hazelnuts" not in plain
    hand(known, ("## Preferences [private]", "## Preferences"))
    build(known)
    assert "tea" in profile.split(page(known).read_text("utf-8"))[0]


def test_a_page_that_is_gone_or_empty_is_written_anew_and_strikes_nothing(known) -> None:
    build(known)
    before = page(known).read_text("utf-8")
    page(known).unlink()
    assert build(known).absorbed == 0 and page(known).read_text("utf-8") == before
    page(known).write_text("\n", "utf-8")
    assert build(known).absorbed == 0 and page(known).read_text("utf-8") == before


def test_what_was_written_over_a_page_strikes_nothing_and_is_kept(known) -> None:
    build(known)
    before = shown(known)
    assert len(before) >= WHOLE
    page(known).write_text("remember the milk\n", "utf-8")
    build(known)
    assert {*before, "remember the milk"} <= {*shown(known)}
    with known.db.read() as conn:
        assert not [line for line in profile.lines(conn) if line.state == "struck"]


def test_a_page_that_could_not_be_written_is_not_taken_for_edited(known, monkeypatch) -> None:
    build(known)
    believe(known, ("likes", "rain"), ("likes", "wind"))
    with monkeypatch.context() as full:
        full.setattr(portrait, "_replace", _full_disk)
        with pytest.raises(HomeError, match="cannot be written"):
            build(known)
        with pytest.raises(HomeError, match="cannot be written"):
            build(known)
    hand(known, ("- Likes tea", "- Likes green tea"))
    assert build(known).absorbed == 1
    assert {"Likes rain", "Likes wind", "Likes green tea"} <= set(shown(known))


def _full_disk(path, text) -> None:
    raise OSError(28, "No space left on device")


def test_a_page_put_back_to_what_it_was_before_is_an_edit(known) -> None:
    build(known)
    before = page(known).read_text("utf-8")
    hand(known, ("- Likes tea", "- Likes tea\n- Likes rain"))
    build(known)
    page(known).write_text(before, "utf-8")
    assert build(known).absorbed == 1 and "Likes rain" not in shown(known)


def test_a_page_edited_while_it_is_built_is_absorbed_before_it_is_written(
    known, monkeypatch
) -> None:
    build(known)
    believe(known, ("likes", "rain"))
    real, times = portrait.look, []

    def meanwhile(home, at_ms=None):
        if not times:
            hand(known, ("- Likes tea", "- Likes black tea"))
        times.append(1)
        return real(home, at_ms)

    monkeypatch.setattr(portrait, "look", meanwhile)
    build(known)
    assert len(times) == 2 and {"Likes black tea", "Likes rain"} <= set(shown(known))


WORDS = st.sampled_from(["Tea only", "Sails on Sundays", "Lives by the sea", "Ünïcode ✓", "a: b"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_hand_edits_survive_any_rebuild(known, data) -> None:
    known.db.write(lambda c: [c.execute(f"DELETE FROM {t}") for t in
                              ("lines", "events", "decisions", "states")])  # fmt: skip
    page(known).unlink(missing_ok=True)
    build(known)
    wanted: set[str] = set()
    struck: set[str] = set()
    for _ in range(data.draw(st.integers(1, 4))):
        lines = page(known).read_text("utf-8").splitlines()
        at = data.draw(st.integers(2, len(lines)))
        kind = data.draw(st.sampled_from(["add", "drop", "none"]))
        if kind == "add":
            words = data.draw(WORDS)
            lines.insert(max(at, 3), f"- {words}")
            wanted.add(words)
            struck.discard(words)
        elif kind == "drop" and at < len(lines) and lines[at].startswith("- "):
            gone = lines.pop(at)[2:]
            if f"- {gone}" not in lines:
                struck.add(gone)
                wanted.discard(gone)
        page(known).write_text("\n".join(lines) + "\n", "utf-8")
        build(known)
        if data.draw(st.booleans()):
            known.db.write(lambda c: c.execute("DELETE FROM lines"))
        build(known)
        told = set(shown(known))
        assert wanted <= told and not struck & told
        assert estimate_tokens(page(known).read_text("utf-8")) <= 500


def test_a_line_that_had_no_room_stays_where_the_person_writes_it(known) -> None:
    believe(known, *(("likes", f"thing number {n}") for n in range(30)))
    with Home.open(known.path, {**OFFLINE, "context.memory_tokens": 120}) as small:
        build(small)
        gone = portrait.left_out(small)[-1].text
        hand(small, ("- Lives in Porto\n", f"- {gone}\n"))
        build(small)
        assert gone in shown(small) and build(small).absorbed == 0


# --- forgetting -----------------------------------------------------------------------------------


def test_forgetting_leaves_the_page_without_the_words_and_the_rest_as_it_was(known) -> None:
    say(known, "absinthe every night", start=2)
    believe(known, ("likes", "absinthe"), message_id=2)
    build(known)
    hand(known, ("- Works at Maresia\n", "- Works at Maresia\n- Was raised by sailors\n"))
    portrait.settle(known)
    known.db.write(lambda c: (profile.erase(c, [2]), c.execute("DELETE FROM facts WHERE value ="
                              " 'absinthe'")))  # fmt: skip
    build(known)
    assert "absinthe" not in page(known).read_text("utf-8")
    assert "Was raised by sailors" in shown(known) and "Likes tea" in shown(known)
    with known.db.read() as conn:
        for table in ("lines", "line_evidence", "events", "decisions", "states"):
            assert "absinthe" not in str(rows(conn, f"SELECT * FROM {table}")), table


# --- files that are none --------------------------------------------------------------------------


def test_what_is_no_page_of_ours_is_neither_read_nor_written(known, tmp_path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("# Not yours\n- secret\n", "utf-8")
    page(known).symlink_to(outside)
    with pytest.raises(HomeError, match="leads out of the home"):
        build(known)
    assert outside.read_text("utf-8") == "# Not yours\n- secret\n" and known.workspace.parts() == ()
    page(known).unlink()
    page(known).mkdir()
    with pytest.raises(HomeError, match="is no page"):
        build(known)


def test_another_encoding_is_read_all_the_same(known) -> None:
    build(known)
    page(known).write_bytes(page(known).read_bytes() + "\n## Garden\n- Açorda\n".encode("cp1252"))
    build(known)
    assert "Açorda" in shown(known)


# --- for prompts ----------------------------------------------------------------------------------


def test_prompts_get_a_plain_part_and_one_that_stays(known) -> None:
    build(known)
    memory, private = known.workspace.parts()
    assert (memory.cls, private.cls) == ("memory", "sensitive")
    assert "Lives in Porto" in memory.text and "hazelnuts" not in memory.text
    assert "hazelnuts" in private.text and "Porto" not in private.text
    with Home.open(known.path, {**OFFLINE, "context.strategies": ["files"]}) as without:
        assert without.workspace.parts() == ()


def test_a_page_edited_by_hand_counts_in_prompts_at_once(known) -> None:
    build(known)
    hand(known, ("- Likes tea", "- Likes tea\n- Has epilepsy [private]"))
    memory, private = known.workspace.parts()
    assert "epilepsy" in private.text and "epilepsy" not in memory.text


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def cli(known, capsys, monkeypatch):
    """Give a function that runs `knowme profile ARGS` and returns its output."""
    build(known)
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*args: str, code=0) -> str:
        assert run(["--home", str(known.path), "profile", *args]) == code
        done = capsys.readouterr()
        return done.out + done.err

    return call


def test_the_profile_is_shown_explained_and_changed_on_the_command_line(cli, known) -> None:
    assert "Lives in Porto" in cli() and "private" in cli("show")
    assert "“Porto”" in cli("why", "lives in")
    assert "Written" in cli("write", "Working style", "Mornings only")
    assert "Struck" in cli("strike", "likes tea")
    assert "Changed" in cli("edit", "lives in", "Lives in Bonfim")
    assert "Pinned" in cli("pin", "works at")
    told = cli("show")
    assert "Mornings only" in told and "Likes tea" not in told and "pinned" in told
    assert "struck" in cli("show", "--all")
    assert {"Lives in Bonfim", "Mornings only"} <= set(shown(known))
    assert "strike by person" in cli("history", "likes tea")
    assert "+ " in cli("diff", "--since", "2026-01-01")
    for _ in range(4):
        cli("undo")
    assert set(shown(known)) == {"Lives in Porto", "Works at Maresia", "Likes tea",
                                 "Is allergic to hazelnuts"}  # fmt: skip
    assert "Topics" in cli("show", "--baseline") or "known yet" in cli("show", "--baseline")
    assert '"lines"' in cli("show", "--json") and '"changes"' in cli("build", "--json")


def test_an_editor_that_cannot_be_started_is_named_with_the_mend(cli, monkeypatch) -> None:
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    monkeypatch.delenv("VISUAL", raising=False)
    told = cli("edit", code=1)
    assert "/no/such/editor" in told and "USER_PROFILE.md" in told


def test_taking_back_a_pin_shows_what_changed_and_an_early_day_says_so(cli) -> None:
    cli("pin", "Lives in Porto")
    told = cli("undo")
    assert "Taken back" in told and told.count("(pinned)") == 1
    assert "no profile by 2001-01-01" in cli("show", "--as-of", "2001-01-01")


def test_a_line_that_is_none_is_said_with_the_mend(cli) -> None:
    told = cli("strike", "moon", code=1)
    assert "No line of the profile is 'moon'" in told and "profile show --all" in told


def test_a_command_finds_what_was_edited_by_hand_before_it_changes_anything(cli, known) -> None:
    hand(known, ("- Likes tea", "- Likes black tea"))
    cli("write", "garden", "Leeks")
    assert {"Likes black tea", "Leeks"} <= set(shown(known))


def test_several_at_once_lose_no_word_of_the_person(known) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> None:
        words = f"Own line {'abcdefgh'[number]}"
        known.db.write(lambda c: profile.decide(c, "write", "", NOW, words, "garden"))
        build(known)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(8)))
    assert {f"Own line {letter}" for letter in "abcdefgh"} <= set(shown(known))
    with known.db.read() as conn:
        assert {one.action for one in profile.decisions(conn)} == {"write"}
