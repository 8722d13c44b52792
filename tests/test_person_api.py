"""What is known of the person, over HTTP, and the page that shows it."""

import httpx
import pytest
from served import home_of, served

from knowme import portrait, structure, sync

SAID = [
    ("2026-01-05T09:00", "I live in Porto."),
    ("2026-02-01T09:00", "I prefer short answers."),
    ("2026-02-03T09:00", "I'm allergic to hazelnuts."),
    ("2026-03-01T09:00", "I think I live in Braga now, maybe."),
]


def tell(home, said=SAID):
    metadatas = [{"session": at[:10], "role": "user", "timestamp": at} for at, _ in said]
    sync.ingest(home, [text for _, text in said], metadatas)
    structure.catch_up(home)


@pytest.fixture
def client(tmp_path):
    with home_of(tmp_path / "home", name="Ana") as home:
        tell(home)
        with served(home) as running:
            with httpx.Client(base_url=running.url, trust_env=False, timeout=30) as opened:
                opened.home = home
                yield opened


def get(client, path):
    reply = client.get(path)
    assert reply.status_code == 200, reply.text
    return reply.json()


def post(client, path, **body):
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def fact(client, attribute):
    found = [each for each in get(client, "/api/facts")["facts"] if each["attribute"] == attribute]
    assert found, get(client, "/api/facts?state=all")
    return found[0]


def test_a_fact_stands_with_its_words_its_day_and_its_conversation(client):
    home = fact(client, "residence")
    assert home["value"] == "Porto" and home["quote"] in "I live in Porto."
    assert home["at"].startswith("2026-01-05") and home["conversation"] == "2026-01-05"
    whole = get(client, f"/api/facts/{home['uid']}")
    assert whole["evidence"][0]["quote"] == home["quote"]
    assert whole["history"][0]["action"] == "learned"


def test_facts_are_narrowed_by_words_state_day_and_what_was_believed_then(client):
    assert get(client, "/api/facts?about=hazelnuts")["count"] == 1
    assert get(client, "/api/facts?about=nothing-of-this")["count"] == 0
    assert get(client, "/api/facts?as_of=2020-01-01")["count"] == 0
    assert get(client, "/api/facts?state=doubtful")["count"] == 1
    for wrong in ("state=odd", "on=yesterday", "limit=0", "as_of=once"):
        assert client.get(f"/api/facts?{wrong}").status_code == 422
    assert client.get("/api/facts/zzzz").status_code == 404


def test_a_day_before_it_was_told_is_only_perhaps(client):
    found = get(client, "/api/facts?on=2026-01-10")["facts"]
    perhaps = {each["value"]: each["perhaps"] for each in found}
    assert perhaps["Porto"] is False and perhaps["hazelnuts"] is True
    assert "perhaps" not in fact(client, "residence")


def test_the_total_is_of_the_states_that_were_asked_for(client):
    every = get(client, "/api/facts?state=all")
    assert every["count"] == every["total"] > get(client, "/api/facts")["total"]
    narrowed = get(client, "/api/facts?about=hazelnuts")
    assert narrowed["count"] == 1 < narrowed["total"]


def test_a_corrected_fact_and_a_section_of_ones_own_are_shown_as_such(client):
    uid = fact(client, "residence")["uid"]
    assert fact(client, "residence")["corrected"] is None
    assert post(client, f"/api/facts/{uid}", action="edit", text="Gaia")["corrected"]
    page = client.home.path / "USER_PROFILE.md"
    page.write_text(page.read_text() + "\n## Hobbies\n- Kites\n")
    portrait.build(client.home)
    last = get(client, "/api/profile")["sections"][-1]
    assert (last["name"], last["title"], last["lines"][0]["text"]) == (
        "Hobbies",
        "Hobbies",
        "Kites",
    )


def test_the_person_edits_retires_and_takes_it_back(client):
    uid = fact(client, "residence")["uid"]
    assert post(client, f"/api/facts/{uid}", action="edit", text="Gaia")["value"] == "Gaia"
    assert post(client, f"/api/facts/{uid}", action="undo")["value"] == "Porto"
    assert post(client, f"/api/facts/{uid}", action="retire")["state"] == "retired"
    assert post(client, f"/api/facts/{uid}", action="undo")["state"] == "believed"
    assert client.post(f"/api/facts/{uid}", json={"action": "burn"}).status_code == 422


def test_a_doubt_shows_both_quotes_and_is_settled_by_one_word(client):
    (doubt,) = get(client, "/api/inbox")["doubts"]
    assert "Braga" in doubt["fact"]["quote"] and "Porto" in doubt["against"]["quote"]
    assert post(client, f"/api/inbox/{doubt['fact']['uid']}", choice="old")["state"] == "retired"
    assert get(client, "/api/inbox")["doubts"] == []
    assert fact(client, "residence")["value"] == "Porto"


def test_the_profile_can_be_written_struck_and_read_with_its_evidence(client):
    sections = {each["name"]: each["lines"] for each in get(client, "/api/profile")["sections"]}
    lines = [line for found in sections.values() for line in found]
    allergy = next(line for line in lines if "hazelnuts" in line["text"])
    assert allergy["sensitive"] == ["health"] and allergy["evidence"][0]["quote"]
    written = post(client, "/api/profile/lines", section="preferences", text="Tea, never coffee")
    assert written["written_by"] == "person"
    page = (client.home.path / "USER_PROFILE.md").read_text()
    assert "Tea, never coffee" in page
    post(client, f"/api/profile/lines/{written['uid']}", action="strike")
    assert "Tea, never coffee" not in (client.home.path / "USER_PROFILE.md").read_text()
    refused = client.post("/api/profile/lines", json={"section": "odd", "text": "x"})
    assert refused.status_code == 422 and "preferences" in refused.json()["hint"]


def test_the_page_is_served_with_a_policy_that_allows_its_own_script_alone(client):
    reply = client.get("/you")
    assert reply.status_code == 200 and "What knowme knows of you" in reply.text
    assert "sha256-" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]


def test_a_profile_built_again_changes_nothing(client):
    before = (client.home.path / "USER_PROFILE.md").read_text()
    assert portrait.build(client.home).changes == 0
    assert (client.home.path / "USER_PROFILE.md").read_text() == before
