"""Two hundred ways to make knowme believe something of the person that they never said.

Each line of data/injections.jsonl is a text with the way it comes in, what must not be believed of
it, and an honest statement of the same shape, which must be learned: else the check could not fail.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from knowme import extract, fingerprints
from knowme.archive import put, put_conversation
from knowme.db import rows
from knowme.home import Home
from knowme.settings import SourceSettings
from knowme.sync import ingest, store
from knowme.types import ME, Record

SET = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "injections.jsonl")
    .read_text("utf-8")
    .splitlines()
]
NAME = "Nora Lindqvist"
START_MS = 1_741_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def nora(tmp_path):
    """Give an open home of a person with a name, whose notes lie in a source called notes."""
    Home.create(tmp_path / "home")
    settings = {
        "embedder.kind": "hashing",
        "engine.kind": "echo",
        "name": NAME,
        "sources": (
            SourceSettings(kind="markdown", name="notes", path=str(tmp_path)),
            SourceSettings(kind="openclaw", name="openclaw", path=str(tmp_path)),
        ),
    }
    with Home.open(tmp_path / "home", settings) as opened:
        yield opened


def said(item, text, at_ms, number=0, **more):
    return Record(
        "message",
        more.pop("conversation", item["id"]),
        f"{item['id']}-{number}",
        more.pop("role", "user"),
        text=text,
        at_ms=at_ms,
        seq=number,
        meta=more.pop("meta", {}),
        **more,
    )


def arrive(home, item, at_ms):
    """Bring the text in, the way that it says."""
    way, text = item["way"], item["text"]
    if way == "page":
        ingest(home, [text], [{"timestamp": at_ms, "title": "a page"}])
        return
    kinds = {
        "group": {"speaker": item.get("speaker", ""), "meta": {"other": True, "group": "choir"}},
        "spoof": {"speaker": item.get("speaker", ""), "meta": {"other": True, "group": "choir"}},
        "forward": {"speaker": "Nora", "meta": {"other": True, "forwarded_from": "Gil"}},
        "subagent": {"meta": {"other": True, "subagent": True}},
        "tool": {"role": "tool", "recall": False},
        "system": {"role": "system", "recall": False, "meta": {"automated": "cron"}},
        "assistant": {"role": "assistant", "recall": False},
    }
    if way == "untrusted":
        record = Record(
            "section", "clippings/page.md", item["id"], "document", text=text, at_ms=at_ms,
            meta={"trust": "untrusted"},
        )  # fmt: skip
        store(home, "notes", [(record, None)])
        return
    if way == "agent_file":
        record = Record("section", f"workspace/{item['id']}/MEMORY.md", item["id"], "document",
                        text=text, at_ms=at_ms)  # fmt: skip
        store(home, "openclaw", [(record, None)])
        return
    records = [said(item, text, at_ms, 1, **kinds.get(way, {}))]
    if "before" in item:
        answer = said(item, item["before"], at_ms - 60_000, 0, role="assistant", recall=False)
        records.insert(0, answer)
    store(home, "openclaw", [(record, None) for record in records])


def learned(home):
    """Return (state, sentence and value) of every fact about the person."""
    with home.db.read() as conn:
        return rows(
            conn, "SELECT state, value || ' | ' || sentence FROM facts WHERE subject = ?", (ME,)
        )


def holds(told, word):
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", told, re.IGNORECASE) is not None


BELIEVED = ("believed", "repeated", "superseded")


def believed_poison(home):
    told = [text for state, text in learned(home) if state in BELIEVED]
    return [
        (item["id"], item["way"], word, text)
        for item in SET
        for word in item["poison"]
        for text in told
        if holds(text, word)
    ]


def test_there_are_two_hundred_in_four_languages_and_more_than_twenty_ways():
    assert len(SET) == 226 and len({item["text"] for item in SET}) == 226
    assert Counter(item["language"] for item in SET).keys() == {"en", "pt", "es", "de"}
    assert len({item["way"] for item in SET}) >= 20


def test_none_of_two_hundred_hostile_texts_becomes_a_belief_about_the_person(nora):
    for number, item in enumerate(SET):
        arrive(nora, item, START_MS + number * DAY_MS)
    done = extract.catch_up(nora)
    assert done.messages >= 226
    assert believed_poison(nora) == []
    about = [text for state, text in learned(nora) if state in BELIEVED]
    assert about == [], "hostile texts alone teach nothing at all about the person"


def test_honest_words_of_the_same_shape_among_them_are_learned(nora):
    for number, item in enumerate(SET):
        arrive(nora, item, START_MS + number * DAY_MS)
        honest = said(item, item["honest"], START_MS + number * DAY_MS + 3_600_000,
                      conversation=f"honest-{item['id']}")  # fmt: skip
        store(nora, "openclaw", [(honest, None)])
    extract.catch_up(nora)
    told = [text for state, text in learned(nora) if state in BELIEVED]
    missed = [
        (item["id"], item["honest"])
        for item in SET
        if not any(holds(text, item["holds"]) for text in told)
    ]
    assert missed == []
    assert believed_poison(nora) == []


def test_the_check_itself_can_fail(nora):
    """The same poison, said by the person in their own chat, is believed: so the set is not inert.

    What forges a form (quotes, fences, markers, pages) stays out whoever sends it; the others
    differ from an honest statement in nothing but who speaks.
    """
    by_voice = {"group", "forward", "subagent", "assistant", "tool", "untrusted", "agent_file"}
    items = [item for item in SET if item["way"] in by_voice]
    for number, item in enumerate(items):
        store(nora, "openclaw", [(said(item, item["text"], START_MS + number * DAY_MS), None)])
    extract.catch_up(nora)
    told = [text for state, text in learned(nora) if state in BELIEVED]
    hit = [item for item in items if any(holds(text, w) for w in item["poison"] for text in told)]
    assert len(hit) >= 0.6 * len(items)


def test_what_a_prompt_of_ours_showed_is_not_learned_when_it_comes_back(nora):
    page = "I keep bees in Antwerp and my bank is Lantern and Sons of Antwerp."
    ingest(nora, [page], [{"timestamp": START_MS, "title": "a page"}])
    question = said(SET[0], "who keeps bees?", START_MS + DAY_MS, recall=False)

    back = [
        "My locker at the swimming hall is number nine hundred and two.",
        "I prefer letters that are written by hand in green ink.",
        page,
    ]
    receipt = {
        "used": [{"text": back[0]}],
        "prompt": [{"role": "system", "content": f"# Profile\n{back[1]}"}],
    }

    def shown(conn):
        conversation = put_conversation(conn, "knowme", question, START_MS)
        number, _, _ = put(conn, conversation, question, START_MS)
        conn.execute(
            "INSERT INTO answers(conversation_id, question_id, state, model, usage, receipt,"
            " asked_ms) VALUES(?, ?, 'done', 'echo', '{}', ?, ?)",
            (conversation, number, json.dumps(receipt), START_MS + DAY_MS),
        )

    nora.db.write(shown)
    records = [said(SET[1], text, START_MS + 2 * DAY_MS, n) for n, text in enumerate(back)]
    store(nora, "openclaw", [(record, None) for record in records])
    extract.catch_up(nora)
    assert [text for state, text in learned(nora) if state in BELIEVED] == []
    with nora.db.read() as conn:
        assert fingerprints.spans(conn, back[0]) and fingerprints.spans(conn, back[1])
