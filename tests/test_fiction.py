"""The fictional person is consistent, complete and built the same way every time."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from knowme.errors import InputError
from knowme.fiction.build import (
    OWNER,
    POISON,
    UNTRUSTED,
    build,
    exchanges,
    fact_table,
    facts,
    questions,
)
from knowme.fiction.screenplay import read

FICTION = Path(build.__code__.co_filename).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return build(tmp_path_factory.mktemp("fiction") / "openclaw")


@pytest.fixture(scope="module")
def truth():
    return {(row.session_id, row.event_id): row for row in exchanges()}


def sessions_of(home):
    return home / "agents" / "main" / "sessions"


def agent_db(home):
    path = home / "agents" / "main" / "agent" / "openclaw-agent.sqlite"
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def unpacked(data: bytes) -> str:
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 24).decode()


def decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def events_of_files(home):
    """Every parsable line of every transcript that may be read, by file."""
    found = {}
    for path in sorted(sessions_of(home).rglob("*")):
        if ".jsonl" not in path.name or ".trajectory." in path.name or ".checkpoint." in path.name:
            continue
        data = path.read_bytes()
        if path.name.endswith(".zst"):
            data = unpacked(data).encode()
        events = []
        for raw in data.split(b"\n"):
            try:
                events.append(json.loads(decoded(raw)))
            except ValueError:
                continue
        found[path.name] = events
    return found


def stored_words(home):
    """The raw text of every user message on disk, by (session, event)."""
    words = {}
    for events in events_of_files(home).values():
        for event in events:
            if event.get("message", {}).get("role") == "user":
                session = events[0]["id"]
                words[session, event["id"]] = text_of(event)
    db = agent_db(home)
    for session, text, blob in db.execute(
        "select session_id, event_json, event_zstd from transcript_events order by seq"
    ):
        event = json.loads(text or unpacked(blob))
        if event.get("message", {}).get("role") == "user":
            words[session, event["id"]] = text_of(event)
    for session, blob in db.execute(
        "select session_id, archive_blob from session_transcript_archives"
    ):
        for row in unpacked(blob).splitlines():
            event = json.loads(row)
            if event.get("message", {}).get("role") == "user":
                words[session, event["id"]] = text_of(event)
    return words


def text_of(event):
    content = event["message"]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


# ---- the life ---------------------------------------------------------------------------------


def test_there_are_enough_exchanges_in_two_languages_over_three_months(truth):
    hers = [row for row in truth.values() if row.author == OWNER and row.recalled]
    assert len(hers) >= 145
    share = Counter(row.language for row in hers)["pt"] / len(hers)
    assert 0.2 < share < 0.3
    assert f"{min(row.at for row in hers):%F}" == "2026-01-12"
    assert f"{max(row.at for row in hers):%F}" == "2026-04-12"


def test_time_runs_forward_in_every_session():
    for session in read():
        times = [exchange.at for exchange in session.exchanges]
        assert times == sorted(times), session.name


def test_the_assistant_keeps_her_rules(truth):
    for row in truth.values():
        said = "\n".join(row.answers)
        assert "great question" not in said.lower()
        assert not re.search("[\U0001f300-\U0001faff]", said)
        assert not re.search(r"^6\. ", said, re.M)


# ---- questions and facts ----------------------------------------------------------------------


def test_the_questions_are_forty_and_their_evidence_exists(truth):
    rows = questions()
    assert len(rows) == len({row.id for row in rows}) == 40
    assert sum(row.kind == "unknown" for row in rows) == 5
    assert sum(row.language == "pt" for row in rows) >= 8
    kinds = {"fact", "decision", "change", "preference", "temporal", "multi", "unknown"}
    assert {row.kind for row in rows} == kinds
    for row in rows:
        assert bool(row.evidence) == (row.kind != "unknown"), row.id
        for pair in row.evidence:
            said = truth[pair]
            assert said.author == OWNER and said.recalled, row.id
            assert all(string in said.words for string in row.must_contain), row.id


def test_every_fact_is_quoted_verbatim_from_her_own_words(truth):
    rows = facts()
    assert len(rows) >= 150
    for fact in rows:
        said = truth[fact.evidence]
        assert fact.quote in said.words, fact
        assert said.author == OWNER and said.recalled, fact
        assert fact.valid_to is None or fact.valid_from <= fact.valid_to, fact


def test_an_attribute_has_one_value_at_a_time_and_many_change():
    values = defaultdict(list)
    for fact in facts():
        values[fact.subject, fact.attribute].append((fact.valid_from, fact.valid_to or "9999"))
    changing = {key: sorted(spans) for key, spans in values.items() if len(spans) > 1}
    assert len(changing) >= 12
    for key, spans in changing.items():
        assert all(first[1] <= second[0] for first, second in pairwise(spans)), key


def test_the_bible_ends_with_the_table_of_facts():
    assert (FICTION / "BIBLE.md").read_text("utf-8").endswith(fact_table())


# ---- the home ---------------------------------------------------------------------------------


def test_every_message_of_the_truth_is_stored_with_its_words(home, truth):
    stored = stored_words(home)
    for pair, row in truth.items():
        assert row.words in stored[pair], pair


def test_two_builds_are_the_same(home, tmp_path):
    def fingerprint(root):
        found = {}
        for path in sorted(root.rglob("*")):
            if path.suffix == ".sqlite":
                dump = "\n".join(sqlite3.connect(path).iterdump())
                found[path.relative_to(root)] = hashlib.sha256(dump.encode()).hexdigest()
            elif path.is_file():
                found[path.relative_to(root)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    assert fingerprint(build(tmp_path / "again")) == fingerprint(home)


def test_a_target_that_holds_anything_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_target_is_taken(tmp_path):
    assert build(tmp_path) == tmp_path


def test_all_forms_of_files_are_there(home):
    names = [path.name for path in sessions_of(home).rglob("*") if path.is_file()]
    for pattern in (
        r"-topic-4\.jsonl$",
        r"\.jsonl\.old$",
        r"\.jsonl\.reset\.[\dT-]+\.\d{3}Z$",
        r"\.jsonl\.deleted\.[\dT-]+\.\d{3}Z\.zst$",
        r"\.jsonl\.bak$",
        r"\.trajectory\.jsonl$",
        r"\.checkpoint\.[0-9a-f-]{36}\.jsonl$",
        r"^[0-9a-f]{64}\.jsonl\.zst$",
    ):
        assert sum(bool(re.search(pattern, name)) for name in names) == 1, pattern


def test_the_three_generations_have_their_headers(home):
    versions = Counter()
    for name, events in events_of_files(home).items():
        if name.endswith(".bak"):
            continue
        assert events[0]["type"] == "session"
        versions[events[0]["version"]] += 1
    assert versions == {2: 7, 3: 7, 4: 1}
    assert agent_db(home).execute("pragma user_version").fetchone() == (23,)


def test_every_parent_is_an_earlier_event_of_the_same_file(home):
    for name, events in events_of_files(home).items():
        seen = {None}
        for event in events[1:]:
            assert event["parentId"] in seen, (name, event["id"])
            assert event["id"] not in seen, (name, event["id"])
            seen.add(event["id"])


def test_ids_are_eight_hex_digits_in_jsonl_and_uuids_in_sqlite(home):
    for name, events in events_of_files(home).items():
        if not re.match(r"[0-9a-f]{64}\.", name):
            assert all(re.fullmatch("[0-9a-f]{8}", event["id"]) for event in events[1:]), name
    ids = agent_db(home).execute("select event_id from transcript_event_identities")
    assert all(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id_) for (id_,) in ids)


def test_the_oddities_of_envelopes_are_there(home):
    everything = "\n".join(stored_words(home).values())
    for sign in (
        " GMT-3] ",
        " EST] ",
        " UTC] ",
        " GMT] ",
        " GMT+5:30] ",
        "[WebChat 2026-01-15T14:02Z] ",
        "] Leonor: ",
        "] Oksana: ",
        "[Replying to OpenClaw id:",
        "[Quoting Henrik]",
        "[Forwarded from Catarina at ",
        "[Chat messages since your last reply - for context]",
        "[media attached: ",
        "[note to self] ",
        "] [sic] is",
        "[todo 18 april] ",
        "\n[message_id: 210]",
        "System: [2026-01-19 04:00:03 EST]",
        "Read HEARTBEAT.md",
        "Conversation info (untrusted metadata):\n```json\n",
        "Sender (untrusted metadata):",
        "Replied message (untrusted, for context):",
        "Chat history since last reply (untrusted, for context):",
        "`\u200b``2.5 mm grey board",
        "<active_memory_plugin>",
        "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>",
        "[Mon 2026-02-23 10:12 GMT] back from viana",
        "Conversation info: ⟦openclaw:ctx⟧\n```json\n",
    ):
        assert sign in everything, sign


def test_the_oddities_of_events_are_there(home):
    events = [event for rows in events_of_files(home).values() for event in rows]
    kinds = {event["type"] for event in events}
    kinds |= {
        kind
        for (kind,) in agent_db(home).execute("select event_type from transcript_event_identities")
    }
    assert kinds == {
        "session",
        "message",
        "model_change",
        "thinking_level_change",
        "custom",
        "custom_message",
        "compaction",
        "branch_summary",
        "reset",
    }
    by_id = {event["id"]: event for event in events}
    compaction = next(event for event in events if event["type"] == "compaction")
    assert compaction["firstKeptEntryId"] in by_id
    summary = next(event for event in events if event["type"] == "branch_summary")
    assert by_id[summary["fromId"]]["message"]["role"] == "assistant"
    assert sum("parentSession" in event for event in events) == 1
    blocks = Counter(
        part["type"]
        for event in events
        if event["type"] == "message" and isinstance(event["message"]["content"], list)
        for part in event["message"]["content"]
    )
    assert {"text", "thinking", "toolCall", "toolResult", "image"} <= set(blocks)
    assert any(event.get("message", {}).get("stopReason") == "error" for event in events)
    assert any(event.get("message", {}).get("role") == "toolResult" for event in events)


def test_damage_is_there_and_small(home):
    wrong_encoding, broken, half = 0, 0, 0
    for path in sessions_of(home).glob("*.jsonl"):
        data = path.read_bytes()
        half += not data.endswith(b"\n")
        for raw in data.split(b"\n")[:-1]:
            try:
                json.loads(raw)
            except UnicodeDecodeError:
                wrong_encoding += 1
                assert (
                    "não dormi"
                    in json.loads(raw.decode("latin-1"))["message"]["content"][0]["text"]
                )
            except ValueError:
                broken += 1
    assert (wrong_encoding, broken, half) == (1, 1, 1)


def test_poison_stands_only_where_nothing_may_be_learned(home, truth):
    for path in sessions_of(home).glob("*.jsonl*"):
        text = path.read_bytes().decode("latin-1")
        if ".trajectory." in path.name or ".checkpoint." in path.name:
            assert POISON[0] in text
        else:
            assert not any(poison in text for poison in POISON[:2]), path.name
    for row in truth.values():
        assert not any(poison in f"{row.words} {row.answers}" for poison in (*POISON, UNTRUSTED))


def test_a_backup_repeats_ids_and_adds_none(home):
    files = events_of_files(home)
    name = next(name for name in files if name.endswith(".bak"))
    original = {event["id"] for event in files[name.removesuffix(".bak")]}
    assert {event["id"] for event in files[name]} < original


def test_long_events_lie_compressed_with_their_navigation(home):
    rows = (
        agent_db(home)
        .execute(
            "select event_json, event_zstd, event_utf8_bytes, navigation_json"
            " from transcript_events"
        )
        .fetchall()
    )
    packed = [row for row in rows if row[1] is not None]
    assert packed and len(packed) < len(rows)
    for text, blob, size, navigation in rows:
        assert (blob is not None) == (size >= 1024)
        assert len((text or unpacked(blob)).encode()) == size
        assert blob is None or json.loads(navigation)["version"] == 1
    roles = {json.loads(unpacked(row[1]))["message"]["role"] for row in packed}
    assert "user" in roles


def test_cold_and_archived_sessions_match_their_hashes(home):
    db = agent_db(home)
    ((name, sha256, count),) = db.execute(
        "select archive_name, archive_sha256, event_count from session_transcript_cold_archives"
    )
    blob = (sessions_of(home) / "cold" / name).read_bytes()
    assert hashlib.sha256(blob).hexdigest() == sha256
    assert len(unpacked(blob).splitlines()) == count
    ((blob, sha256),) = db.execute(
        "select archive_blob, archive_sha256 from session_transcript_archives"
    )
    assert hashlib.sha256(blob).hexdigest() == sha256
    assert db.execute("pragma foreign_key_check").fetchall() == []


def test_the_workspace_and_both_memory_indexes_are_there(home):
    notes = sorted(path.name for path in (home / "workspace" / "memory").iterdir())
    assert len(notes) == 4
    assert sum(bool(re.fullmatch(r"\d{4}-\d\d-\d\d\.md", name)) for name in notes) == 3
    user = (home / "workspace" / "USER.md").read_text("utf-8")
    assert len(user) < 4000 and "<!-- observed: 2026-02-20 | status: active -->" in user
    old = sqlite3.connect(home / "memory" / "main.sqlite")
    assert old.execute("select count(*) from chunks").fetchone() == (3,)
    rows = (
        agent_db(home)
        .execute(
            "select c.path, c.start_line, c.end_line, c.text, p.origin_class, length(c.embedding)"
            " from memory_index_chunks c join memory_index_chunk_provenance p on p.chunk_id = c.id"
        )
        .fetchall()
    )
    assert {row[4] for row in rows} == {"owner", "agent", "untrusted"}
    for path, start, end, text, origin, width in rows:
        assert width == 64
        if origin != "untrusted":
            lines = (home / "workspace" / path).read_text("utf-8").splitlines()
            assert "\n".join(lines[start - 1 : end]) == text
