"""OpenClaw's sessions: trees, messages, every kind of file, bad input, and reading on."""

import json
import os

import pytest
from contracts.test_sources import kept, photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from openclaw_home import (
    SESSION,
    TALK,
    add,
    answer,
    header,
    jsonl,
    put,
    read,
    said,
    sessions,
    skips,
    user,
    words,
)

from knowme.fiction.build import POISON, build, exchanges
from knowme.fiction.screenplay import OWNER
from knowme.sources.openclaw_tree import Tree

CHECKPOINT = "e51d264e-cbaa-428e-a04d-88b59d715950"
AT = "2026-02-07 21:06"
FIRST = {
    "message id": f"[Telegram Ana id:76 {AT} GMT-3] %s\n[message_id: 237]",
    "ISO time": "[WebChat 2026-02-07T21:06Z] %s",
}

# ---- the tree ---------------------------------------------------------------------------------


def test_the_conversation_is_the_walk_from_the_leaf(tmp_path):
    put(
        tmp_path,
        f"{SESSION}.jsonl",
        header(),
        user("u1", None, "one", 1),
        answer("a1", "u1", "first", 2),
        user("x2", "a1", "POISON", 3),
        answer("xa", "x2", "POISON", 4),
        user("u2", "a1", "two", 5),
        answer("a2", "u2", "second", 6),
    )
    records = read(tmp_path)
    assert words(records, None) == ["one", "first", "two", "second"]
    assert [one.external_id for one in records] == ["u1", "a1", "u2", "a2"]
    assert {one.conversation for one in records} == {SESSION}


def test_a_leaf_row_moves_the_leaf(tmp_path):
    leaf = {"type": "leaf", "id": "l1", "parentId": "a2", "targetId": "a1"}
    put(tmp_path, f"{SESSION}.jsonl", *TALK, leaf, user("u3", "l1", "three", 5))
    assert words(read(tmp_path)) == ["one", "three"]


def test_a_side_entry_does_not_become_the_leaf(tmp_path):
    side = {**answer("s1", "u1", "aside", 5), "appendMode": "side"}
    put(tmp_path, f"{SESSION}.jsonl", *TALK, side)
    assert words(read(tmp_path), None) == ["one", "first", "two", "second"]


def test_a_lost_line_does_not_cut_the_history(tmp_path):
    put(tmp_path, f"{SESSION}.jsonl", *TALK[:3], b'{"type":"mess\n', user("u3", "lost", "three", 5))
    assert words(read(tmp_path)) == ["one", "three"]


def test_entries_without_parents_or_ids_go_on_from_the_leaf(tmp_path):
    bare = [{k: v for k, v in one.items() if k not in ("id", "parentId")} for one in TALK]
    put(tmp_path, f"{SESSION}.jsonl", TALK[0], *bare[1:])
    records = read(tmp_path)
    assert words(records, None) == ["one", "first", "two", "second"]
    assert len({one.external_id for one in records}) == 4


def test_a_chain_that_bites_its_tail_ends():
    tree = Tree()
    tree.add(user("a", "b", "x"), 0)
    tree.add(user("b", "a", "x"), 1)
    tree.nodes["a"].parent = "b"
    assert [node.id for node in tree.path()] == ["a", "b"]


def test_a_reset_keeps_what_was_said_before_it(tmp_path):
    reset = {"type": "reset", "id": "r", "parentId": "a2", "timestamp": "2026-03-01T11:00:00Z"}
    put(tmp_path, f"{SESSION}.jsonl", *TALK, reset, user("u3", "r", "three", 9))
    assert words(read(tmp_path)) == ["one", "two", "three"]


# ---- messages ---------------------------------------------------------------------------------


def test_an_answer_around_tool_calls_is_one_record_with_everything_in_raw(tmp_path):
    call = [
        {"type": "thinking", "thinking": "SECRET THOUGHT"},
        {"type": "text", "text": "Let me look."},
        {"type": "toolCall", "id": "c", "name": "weather", "arguments": {}},
    ]
    events = (
        user("u1", None, "rain?", 1),
        said("assistant", "a1", "u1", call, 2, model="m"),
        said("toolResult", "t1", "a1", [{"type": "text", "text": "TOOL OUTPUT"}], 3),
        answer("a2", "t1", "It will rain.", 4),
    )
    put(tmp_path, f"{SESSION}.jsonl", header(), *events)
    records = read(tmp_path)
    assert words(records, None) == ["rain?", "Let me look.\n\nIt will rain."]
    one = records[1]
    assert one.external_id == "a1"
    assert one.raw == "\n".join(json.dumps(event) for event in events[1:])
    assert one.meta == {"model": "m", "tools": ["weather"]}
    assert one.at_ms == events[1]["message"]["timestamp"]


def test_tool_results_inside_content_are_no_words(tmp_path):
    content = [{"type": "toolResult", "toolCallId": "c", "output": "OUTPUT"}]
    put(
        tmp_path,
        f"{SESSION}.jsonl",
        header(),
        user("u1", None, "rain?", 1),
        said("assistant", "a1", "u1", [{"type": "toolCall", "id": "c", "name": "w"}, *content], 2),
        user("t", "a1", content, 3),
        answer("a2", "t", "Yes.", 4),
    )
    records = read(tmp_path)
    assert words(records, None) == ["rain?", "Yes."]
    assert "OUTPUT" in records[1].raw


def test_an_answer_much_later_is_another_answer(tmp_path):
    put(tmp_path, f"{SESSION}.jsonl", *TALK, answer("a3", "a2", "By the way", 90_000))
    assert words(read(tmp_path), "assistant") == ["first", "second", "By the way"]


def test_a_mirrored_answer_is_not_said_twice(tmp_path):
    mirror = answer("a3", "a2", "second", 5, model="delivery-mirror")
    put(tmp_path, f"{SESSION}.jsonl", *TALK, mirror)
    assert words(read(tmp_path), "assistant") == ["first", "second"]


def test_machines_words_are_kept_and_never_recalled(tmp_path):
    put(
        tmp_path,
        f"{SESSION}.jsonl",
        header(),
        user("s", None, "System: [2026-03-01] Node up", 1),
        answer("sa", "s", "NO_REPLY", 2),
        user("h", "sa", "Read HEARTBEAT.md if it exists. reply HEARTBEAT_OK.", 3),
        answer("ha", "h", "HEARTBEAT_OK", 4),
        user("u", "ha", "hello", 5),
        answer("a", "u", "hi", 6),
    )
    records = read(tmp_path)
    assert [(one.role, one.recall) for one in records] == [
        ("system", False), ("assistant", False), ("system", False), ("assistant", False),
        ("user", True), ("assistant", True),
    ]  # fmt: skip


def test_raw_is_the_original_line(tmp_path):
    line = user("u1", None, FIRST["message id"] % "hello", 1)
    put(tmp_path, f"{SESSION}.jsonl", header(), line)
    (one,) = read(tmp_path)
    assert one.text == "hello" and one.speaker == "Ana" and one.raw == json.dumps(line)


def test_the_time_is_the_messages_own_then_the_envelopes_then_the_lines(tmp_path):
    put(
        tmp_path,
        f"{SESSION}.jsonl",
        header(),
        user("a", None, FIRST["ISO time"] % "x", 7),
        user("b", "a", FIRST["ISO time"] % "x"),
        user("c", "b", "x"),
        {**user("d", "c", "x"), "timestamp": "nonsense"},
    )
    assert [one.at_ms for one in read(tmp_path)] == [
        1_772_359_207_000, 1_770_498_360_000, 1_772_359_200_000, None,
    ]  # fmt: skip


def test_seq_grows_along_the_conversation_even_when_clocks_do_not(tmp_path):
    late = user("u3", "a2", "three", 1)
    put(tmp_path, f"{SESSION}.jsonl", *TALK, late, {**late, "id": "u4", "parentId": "u3"})
    found = [one.seq for one in read(tmp_path)]
    assert found == sorted(set(found))


def test_a_group_tells_the_owner_from_the_others(tmp_path):
    where = f"[Discord Guild #geral channel id:9 {AT} UTC]"
    put(tmp_path, "aaa.jsonl", header("aaa"), user("d", None, FIRST["message id"] % "direct", 1))
    put(
        tmp_path,
        "bbb.jsonl",
        header("bbb"),
        user("g1", None, f"{where} Ana: mine", 1),
        user("g2", "g1", f"{where} Bo: not mine", 2),
        user("g3", "g2", "flagged", 3, __openclaw={"senderIsOwner": False}),
        user("g4", "g3", f"{where} Bo: owner", 4, __openclaw={"senderIsOwner": True}),
    )
    found = {one.external_id: bool(one.meta.get("other")) for one in read(tmp_path)}
    assert found == {"d": False, "g1": False, "g2": True, "g3": True, "g4": False}


def test_in_a_group_nobody_is_another_while_nothing_says_who_the_owner_is(tmp_path):
    text = f"[Discord Guild #geral channel id:9 {AT} UTC] Bo: hello"
    put(tmp_path, f"{SESSION}.jsonl", header(), user("g", None, text, 1))
    (one,) = read(tmp_path)
    assert one.speaker == "Bo" and "other" not in one.meta


def test_a_sub_agents_session_is_marked(tmp_path):
    put(tmp_path, f"{SESSION}.jsonl", header(parentSession="/x/parent.jsonl"), *TALK[1:])
    records = read(tmp_path)
    assert all(one.meta["subagent"] is True for one in records)
    assert records[0].title == "Sub-agent session"
    assert records[0].meta["other"] is True


def test_the_index_of_sessions_gives_title_channel_and_kind(tmp_path):
    put(tmp_path, f"{SESSION}.jsonl", *TALK)
    book = {
        "agent:main:subagent:x": {
            "sessionId": SESSION,
            "displayName": "Modems",
            "channel": "telegram",
        }
    }
    (sessions(tmp_path) / "sessions.json").write_text(json.dumps(book))
    one = read(tmp_path)[0]
    assert one.title == "Sub-agent: Modems"
    assert one.meta["channel"] == "telegram" and one.meta["subagent"] is True


# ---- names of files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        f"{SESSION}.jsonl",
        f"{SESSION}-topic-12.jsonl",
        f"{SESSION}.jsonl.old",
        f"{SESSION}.jsonl.bak",
        f"{SESSION}.jsonl.reset.2026-01-19T09-02-11.480Z",
        f"{SESSION}.jsonl.deleted.2026-01-19T09-02-11.480Z",
        f"{SESSION}.jsonl.reset.2026-01-19T09-02-11.480Z.zst",
        f"{SESSION}.jsonl.deleted.2026-01-19T09-02-11.480Z.zst",
        f"{SESSION}.jsonl.zst",
        "my-checkpoint-talk.jsonl",
    ],
)
def test_every_kind_of_transcript_is_read(tmp_path, name):
    put(tmp_path, name, *TALK)
    records = read(tmp_path)
    assert words(records, None) == ["one", "first", "two", "second"]
    assert {one.conversation for one in records} == {SESSION}


@pytest.mark.parametrize(
    "name",
    [
        f"{SESSION}.trajectory.jsonl",
        f"{SESSION}.trajectory.jsonl.deleted.2026-01-19T09-02-11.480Z",
        f"{SESSION}.checkpoint.{CHECKPOINT}.jsonl",
        f"{SESSION}.checkpoint.{CHECKPOINT.upper()}.jsonl.bak",
        f"{SESSION}.checkpoint.{CHECKPOINT}.jsonl.reset.2026-01-19T09-02-11.480Z.zst",
        f"{SESSION}.jsonl.lock",
        "sessions.json",
        ".hidden.jsonl",
    ],
)
def test_other_files_are_never_read(tmp_path, name):
    put(tmp_path, name, *TALK)
    assert read(tmp_path) == []


def test_copies_of_a_session_count_once_and_an_abandoned_branch_stays_abandoned(tmp_path):
    put(tmp_path, f"{SESSION}.jsonl.bak.1", *TALK, user("x", "a2", "POISON", 5))
    put(tmp_path, f"{SESSION}.jsonl.old", user("u0", None, "zero"), {**TALK[1], "parentId": "u0"})
    put(
        tmp_path,
        f"{SESSION}.jsonl",
        *TALK,
        user("x", "a2", "POISON", 5),
        user("u3", "a2", "three", 6),
    )
    records = read(tmp_path)
    assert sorted(words(records)) == ["one", "three", "two", "zero"]
    assert len(records) == 6


def test_a_bad_line_is_counted_once_though_the_backup_repeats_it(tmp_path):
    for name in (f"{SESSION}.jsonl", f"{SESSION}.jsonl.bak"):
        put(tmp_path, name, *TALK[:3], b"{bad\n", *TALK[3:])
    assert skips(read(tmp_path)) == [
        (
            f"agents/main/sessions/{SESSION}.jsonl:4",
            "not JSON: Expecting property name enclosed in double quotes",
        )
    ]


# ---- bad input --------------------------------------------------------------------------------


def test_bad_lines_are_named_and_the_rest_is_taken(tmp_path):
    deep = b"[" * 100_000 + b"\n"
    put(tmp_path, f"{SESSION}.jsonl", TALK[0], b"{bad\n", b"[1]\n", b"\n", deep, *TALK[1:])
    records = read(tmp_path)
    assert words(records) == ["one", "two"]
    assert [origin.rpartition(":")[2] for origin, _ in skips(records)] == ["2", "3", "5"]
    assert "not a JSON object" in skips(records)[1][1]


def test_a_line_in_another_encoding_is_taken_and_named(tmp_path):
    line = json.dumps(user("u1", None, "café €", 1), ensure_ascii=False).encode("cp1252") + b"\n"
    put(tmp_path, f"{SESSION}.jsonl", header(), line)
    records = read(tmp_path)
    assert words(records) == ["café €"]
    assert skips(records)[0][1] == "not UTF-8: read as Windows-1252"


def test_a_half_surrogate_can_be_stored(tmp_path):
    line = b'{"type":"message","id":"u","parentId":null,"message":{"role":"user","content":"a \\ud83d b \\ud83d\\ude00"}}\n'  # noqa: E501
    put(tmp_path, f"{SESSION}.jsonl", line)
    (one,) = read(tmp_path)
    one.text.encode()
    assert one.text.endswith("😀")


def test_a_half_written_last_line_waits_for_the_next_time(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    whole = jsonl(user("u3", "a2", "three", 5))
    with path.open("ab") as handle:
        handle.write(whole[:40])
    cursor: dict = {}
    records = read(tmp_path, cursor)
    assert words(records) == ["one", "two"] and not skips(records)
    with path.open("ab") as handle:
        handle.write(whole[40:])
    records = read(tmp_path, cursor)
    assert words(records, None) == ["three"] and not skips(records)


def test_a_last_line_without_a_newline_is_taken_when_it_is_whole(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    cursor: dict = {}
    assert words(read(tmp_path, cursor), None) == ["one", "first", "two", "second"]
    add(path, b"\n", user("u3", "a2", "three", 5))
    assert words(read(tmp_path, cursor), None) == ["three"]


def test_a_line_too_long_is_passed_over(tmp_path, monkeypatch):
    from knowme.sources import files

    monkeypatch.setattr(files.lines, "__defaults__", (5000,))
    put(tmp_path, f"{SESSION}.jsonl", *TALK[:3], user("big", "a1", "x" * 9000, 3), *TALK[3:])
    records = read(tmp_path)
    assert words(records) == ["one", "two"]
    assert "longer than" in skips(records)[0][1]


def test_a_damaged_archive_is_named_and_what_came_before_is_taken(tmp_path):
    name = f"{SESSION}.jsonl.reset.2026-01-19T09-02-11.480Z.zst"
    path = put(tmp_path, name, *TALK)
    path.write_bytes(path.read_bytes() + b"garbage")
    records = read(tmp_path)
    assert words(records) == ["one", "two"]
    assert "damaged zstd" in skips(records)[0][1]


def test_a_decompression_bomb_is_cut_off(tmp_path, monkeypatch):
    from knowme.sources import openclaw_transcripts

    monkeypatch.setattr(openclaw_transcripts, "MIN_INFLATED_BYTES", 2**20)
    monkeypatch.setattr(openclaw_transcripts, "MAX_RATIO", 2)
    put(tmp_path, f"{SESSION}.jsonl.zst", *TALK, b" " * (8 * 2**20))
    records = read(tmp_path)
    assert "inflates to more than" in skips(records)[0][1]


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    put(outside, f"{SESSION}.jsonl", *TALK)
    root = tmp_path / "home"
    sessions(root)
    (sessions(root) / f"{SESSION}.jsonl").symlink_to(sessions(outside) / f"{SESSION}.jsonl")
    (root / "agents/evil").symlink_to(outside / "agents/main")
    (root / "workspace").mkdir()
    (outside / "notes").mkdir()
    (outside / "notes/x.md").write_text("POISON")
    (root / "workspace/memory").symlink_to(outside / "notes")
    cursor: dict = {}
    records = read(root, cursor)
    assert not words(records, None) and {one.kind for one in records} == {"skipped"}
    assert all("leads outside" in reason for _, reason in skips(records))
    assert len(skips(records)) == 3
    assert read(root, cursor) == []


def test_hostile_names_and_pipes_do_no_harm(tmp_path):
    put(tmp_path, "evil\x1b[2J\n\u202e.jsonl", header("\x1bid"), *TALK[1:])
    os.mkfifo(sessions(tmp_path) / "pipe.jsonl")
    (sessions(tmp_path) / "folder.jsonl").mkdir()
    cursor: dict = {}
    records = read(tmp_path, cursor)
    assert words(records) == ["one", "two"]
    for one in records:
        assert one.origin.isprintable()
    assert all(unit.isprintable() for unit in cursor)
    assert [reason for _, reason in skips(records)] == ["not a plain file"]
    assert read(tmp_path, cursor) == []


def test_a_name_that_is_no_text_can_be_stored(tmp_path):
    folder = os.fsencode(sessions(tmp_path))
    with open(folder + b"/\xff.jsonl", "wb") as handle:
        handle.write(jsonl({"type": "session"}, *TALK[1:]))
    for one in read(tmp_path):
        (one.origin + one.conversation).encode()


# ---- reading on -------------------------------------------------------------------------------


def test_an_append_yields_only_what_is_new(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    before = read(tmp_path, cursor)
    add(path, user("u3", "a2", "three", 5), answer("a3", "u3", "third", 6))
    later = read(tmp_path, cursor)
    assert words(later, None) == ["three", "third"]
    assert later[0].seq > before[-1].seq
    assert later[0].origin.endswith(":6")
    assert kept(before + later) == kept(read(tmp_path))


def test_an_answer_that_goes_on_is_given_again_whole(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    before = read(tmp_path, cursor)
    add(path, said("toolResult", "t", "a2", "ok", 5), answer("a3", "t", "more", 6))
    later = read(tmp_path, cursor)
    assert [(one.external_id, one.text) for one in later] == [("a2", "second\n\nmore")]
    assert kept(before + later) == kept(read(tmp_path))


def test_a_moved_leaf_removes_what_was_given(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    before = read(tmp_path, cursor)
    add(path, user("u3", "a1", "rather three", 5), answer("a3", "u3", "third", 6))
    later = read(tmp_path, cursor)
    gone = {(one.conversation, one.external_id) for one in later if one.kind == "removed"}
    assert gone == {(SESSION, "u2"), (SESSION, "a2")}
    assert kept(before + later) == kept(read(tmp_path))
    assert read(tmp_path, cursor) == []


def test_a_leaf_that_moves_back_brings_its_branch_back(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    taken = read(tmp_path, cursor)
    add(path, user("u3", "a1", "rather three", 5))
    taken += read(tmp_path, cursor)
    add(path, {"type": "leaf", "id": "l", "parentId": "u3", "targetId": "a2"})
    taken += read(tmp_path, cursor)
    assert kept(taken) == kept(read(tmp_path))
    assert "u2" in {name for _, _, name in kept(taken)}


def test_a_rewritten_file_is_read_again(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    taken = read(tmp_path, cursor)
    path.write_bytes(jsonl(*TALK[:3], user("n2", "a1", "new two " * 30, 5)))
    taken += read(tmp_path, cursor)
    assert kept(taken) == kept(read(tmp_path))


def test_a_touched_file_yields_nothing(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    read(tmp_path, cursor)
    os.utime(path, (1, 1))
    assert read(tmp_path, cursor) == []


def test_what_openclaw_deletes_stays_remembered(tmp_path):
    path = put(tmp_path, f"{SESSION}.jsonl", *TALK)
    cursor: dict = {}
    read(tmp_path, cursor)
    path.rename(path.with_name(path.name + ".reset.2026-03-02T00-00-00.000Z"))
    assert not [one for one in read(tmp_path, cursor) if one.kind == "removed"]
    path.with_name(path.name + ".reset.2026-03-02T00-00-00.000Z").unlink()
    assert read(tmp_path, cursor) == []


EVENTS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "tool", "other"]), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=120, deadline=None)
@given(EVENTS, st.lists(st.integers(1, 12), max_size=4))
def test_reading_in_steps_gives_what_reading_at_once_gives(tmp_path_factory, shape, stops):
    root = tmp_path_factory.mktemp("steps")
    events = [header()]
    names: list[str | None] = [None]
    for number, (role, back) in enumerate(shape):
        parent = names[max(0, len(names) - 1 - (back if back == 3 else 0))]
        name = f"n{number}"
        if role == "other":
            events.append({"type": "model_change", "id": name, "parentId": parent})
        else:
            role = "toolResult" if role == "tool" else role
            events.append(said(role, name, parent, f"text {number}", number + 1))
        names.append(name)
    cursor: dict = {}
    taken = []
    path = put(root, f"{SESSION}.jsonl", events[0])
    done = 1
    for stop in [*sorted(set(stops)), len(events)]:
        add(path, *events[done:stop])
        done = max(done, stop)
        taken += read(root, cursor)
    assert kept(taken) == kept(read(root))
    assert read(root, cursor) == []


# ---- what the real program wrote, and the fictional person ------------------------------------


def test_the_fixtures_of_the_real_program_are_read(tmp_path, shared):
    fixtures = shared / "fixtures"
    if not (fixtures / "openclaw-2026.9.6").is_dir():
        pytest.skip("the fixtures of OpenClaw are not here")
    agent = tmp_path / "agents/main/agent"
    agent.mkdir(parents=True)
    database = fixtures / "openclaw-2026.9.6/openclaw-agent.sqlite"
    (agent / database.name).write_bytes(database.read_bytes())
    for path in (fixtures / "openclaw-2026.7.1").iterdir():
        (sessions(tmp_path) / path.name).write_bytes(path.read_bytes())
    before = photograph(tmp_path)
    records = read(tmp_path)
    assert photograph(tmp_path) == before
    assert not skips(records)
    assert words(records)[:2] == [
        "I live in Lisbon and my dog is called Pixel. Remember that.",
        "where do I live?",
    ]
    assert words(records)[2].startswith("I keep a very long note about my garden")
    assert words(records)[3] == "I moved to Porto last week. Call me Rui."
    assert words(records, "assistant") == ["Hello from fake"] * 4


@pytest.fixture(scope="module")
def fiction(tmp_path_factory):
    root = tmp_path_factory.mktemp("fiction") / "openclaw"
    build(root)
    return read(root)


def test_the_fictional_person_is_read_word_for_word(fiction):
    found = {(one.conversation, one.external_id): one for one in fiction if one.kind == "message"}
    follows = {}
    for one in sorted(found.values(), key=lambda one: (one.conversation, one.seq)):
        follows.setdefault(one.conversation, []).append(one)
    for truth in exchanges():
        one = found.get((truth.session_id, truth.event_id))
        if not truth.recalled:
            assert one is None
            continue
        assert one is not None and one.text == truth.words and one.role == "user"
        assert abs(one.at_ms - truth.at.timestamp() * 1000) < 1000
        assert bool(one.meta.get("other")) == (truth.author != OWNER)
        talk = follows[truth.session_id]
        reply = talk[talk.index(one) + 1]
        assert reply.text == "\n\n".join(text.strip() for text in truth.answers)


def test_nothing_poisonous_is_read_from_the_fictional_person(fiction):
    for one in fiction:
        for poison in POISON:
            assert poison not in one.text
