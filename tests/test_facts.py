import json

import pytest
from claimed import DAY, at, claim, iso, memory_db, read, say, states, table, uid
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme import archive, beliefs, facts, memory
from knowme.db import rows, value
from knowme.errors import InputError, NotFoundError
from knowme.facts import settling
from knowme.types import ME, When

# --- learning -------------------------------------------------------------------------------------


def test_a_fact_carries_its_quote_its_day_and_what_was_read() -> None:
    conn = memory_db()
    number = say(conn, "m", 3, "I live in Lisbon since May.")
    when = When("2023-05-01", "2023-05-31")
    made = facts.learn(conn, [read(number, claim("Lisbon", start=2, end=16, when=when))], 77)
    assert (made.messages, made.new, made.believed) == (1, 1, 1)
    (fact,) = facts.believed(conn)
    assert (fact.quote, fact.said_ms, fact.when) == ("live in Lisbon", at(3), when)
    assert (fact.subject, fact.read_by, fact.recorded_ms) == (ME, "rules", 77)
    assert fact.sentence == "I live in Lisbon." and len(fact.uid) == 16
    assert facts.evidence(conn, fact.uid)[0].quote == "live in Lisbon"


def test_learning_the_same_again_changes_nothing_and_writes_no_event() -> None:
    conn = memory_db()
    ids = [say(conn, name, day) for name, day in (("a", 1), ("b", 2))]
    readings = [read(ids[0], claim("Lisbon")), read(ids[1], claim("Porto"))]
    facts.learn(conn, readings, 10)
    before, events = table(conn), value(conn, "SELECT count(*) FROM events")
    made = facts.learn(conn, readings, 20)
    assert (made.new, made.changed, made.gone) == (0, 0, 0)
    assert table(conn) == before and value(conn, "SELECT count(*) FROM events") == events


def test_what_a_reader_no_longer_reads_goes_and_what_another_read_stays() -> None:
    conn = memory_db()
    number = say(conn, "m", 1)
    facts.learn(conn, [read(number, claim("Lisbon"), claim("jazz", "likes"))], 10)
    facts.learn(conn, [read(number, claim("Lisbon", read_by="x"), read_by="model:m")], 20)
    assert sorted(states(conn)) == ["Lisbon", "jazz"]  # one row of each reader
    assert value(conn, "SELECT count(*) FROM facts WHERE state = 'repeated'") == 1
    facts.learn(conn, [read(number)], 30)
    assert states(conn) == {"Lisbon": "believed"}
    assert facts.believed(conn)[0].read_by == "model:m"
    facts.learn(conn, [read(number, read_by="model:m")], 40)
    assert table(conn) == {}


def test_a_new_version_of_a_message_takes_its_facts_along() -> None:
    conn = memory_db()
    first = say(conn, "m", 1, "I live in Lisbon")
    facts.learn(conn, [read(first, claim("Lisbon"))], 10)
    name = uid(conn, "Lisbon")
    second = say(conn, "m", 1, "I live in Lisbon now")
    facts.learn(conn, [read(second, claim("Lisbon", end=20))], 20)
    assert facts.unlearn(conn, [first], 30, "a new version came") == 0
    (fact,) = facts.believed(conn)
    assert (fact.uid, fact.message_id, fact.quote, fact.recorded_ms) == (
        name, second, "I live in Lisbon now", 10,
    )  # fmt: skip


def test_what_left_is_unlearned_and_what_it_had_ended_holds_again() -> None:
    conn = memory_db()
    ids = [say(conn, name, day) for name, day in (("a", 1), ("b", 2))]
    facts.learn(conn, [read(ids[0], claim("Lisbon")), read(ids[1], claim("Porto"))], 10)
    assert states(conn) == {"Lisbon": "superseded", "Porto": "believed"}
    assert facts.unlearn(conn, [ids[1]], 20, "its message left") == 1
    assert states(conn) == {"Lisbon": "believed"}
    assert facts.believed(conn)[0].when == When()
    (last,) = (e for e in beliefs.since(conn, "fact", 20) if e.action == "unlearned")
    assert (last.actor, last.after) == ("archive", None)
    assert (last.before["value"], last.before["reason"]) == ("Porto", "its message left")


def test_nothing_is_learned_from_a_message_that_is_retired_or_unknown() -> None:
    conn = memory_db()
    number = say(conn, "m", 1)
    where = value(conn, "SELECT id FROM conversations")
    archive.retire(conn, where, "m", 5)
    made = facts.learn(conn, [read(number, claim("Lisbon")), read(999, claim("Rome"))], 10)
    assert made.new == 0 and table(conn) == {}


def test_another_speaker_is_the_subject_of_what_they_say_of_themselves() -> None:
    conn = memory_db()
    theirs = say(conn, "a", 1, speaker="Bob", source="ingest")
    mine = say(conn, "b", 2, speaker="Alex Roe", source="ingest")
    of_me = claim("Rome", subject="Alex Roe")
    readings = [read(theirs, claim("Lisbon"), of_me), read(mine, claim("Porto"))]
    facts.learn(conn, readings, 10, name="alex roe")
    assert [f.sentence for f in facts.believed(conn, subject="Bob")] == ["Bob lives in Lisbon."]
    found = {row["value"]: (row["subject"], row["state"]) for row in table(conn).values()}
    assert found == {
        "Lisbon": ("Bob", "believed"), "Porto": (ME, "believed"), "Rome": (ME, "doubtful"),
    }  # fmt: skip


def test_sensitive_facts_are_marked() -> None:
    conn = memory_db()
    number = say(conn, "m", 1, "I am allergic to nuts")
    facts.learn(conn, [read(number, claim("nuts", "allergy"), claim("Lisbon"))], 10)
    found = {row["value"]: row["sensitive"] for row in table(conn).values()}
    assert "health" in found["nuts"] and found["Lisbon"] == ""


def test_believed_facts_are_keys_to_their_messages() -> None:
    conn = memory_db()
    ids = [say(conn, name, day) for name, day in (("a", 1), ("b", 2))]

    def keys() -> dict[str, str]:
        return dict(rows(conn, "SELECT uid, text FROM items WHERE kind = 'fact'"))

    facts.learn(conn, [read(ids[0], claim("Lisbon"), (claim("Rome"), "not covered"))], 10)
    assert keys() == {uid(conn, "Lisbon"): "I live in Lisbon."}
    facts.learn(conn, [read(ids[1], claim("Porto"))], 20)
    assert keys() == {uid(conn, "Porto"): "I live in Porto."}
    facts.decide(conn, "edit", uid(conn, "Porto"), at(9), "Gaia")
    assert list(keys().values()) == ["I live in Gaia."]
    facts.unlearn(conn, ids, 30, "")
    assert keys() == {} and memory.count(conn) == 2


def test_strange_texts_are_learned_and_kept_whole() -> None:
    conn = memory_db()
    number = say(conn, "m", 1)
    facts.learn(conn, [read(number, claim("half \ud83d and \0", "likes", start=-4, end=10**9))], 10)
    (fact,) = facts.believed(conn)
    assert fact.value == "half \ufffd and \ufffd" and fact.quote == "Words of m."
    assert facts.decide(conn, "retire", fact.uid, at(5)).state == "retired"
    assert beliefs.replay(conn, "fact") == table(conn)


def test_ten_thousand_claims_touch_each_row_a_few_times_only() -> None:
    """Work in proportion, counted in rows that are read and written, in batches as extract does."""
    conn = memory_db()
    ids = [say(conn, f"m{n}", n % 700, conversation=f"c{n % 50}") for n in range(1_000)]
    names = ("likes", "residence", "event", "owns", "went to")

    def batch(start: int) -> list:
        return [
            read(number, *(claim(f"thing {number} {k}", names[k % 4 + k % 2],
                                 subject=f"S{number % 97}") for k in range(10)))
            for number in ids[start : start + 200]
        ]  # fmt: skip

    work = []
    real = settling.as_read
    try:
        settling.as_read = lambda row: work.append(row["uid"]) or real(row)
        facts.learn(conn, batch(0), 1)
        first = len(work)
        for start in (200, 400, 600, 800):
            facts.learn(conn, batch(start), 1)
    finally:
        settling.as_read = real
    assert value(conn, "SELECT count(*) FROM facts") == 10_000
    assert len(work) < 8 * first
    plan = " ".join(str(row) for row in rows(
        conn,
        "EXPLAIN QUERY PLAN SELECT 1 FROM facts f JOIN (SELECT value ->> 0 AS s, value ->> 1 AS a,"
        " value ->> 2 AS v FROM json_each('[]')) k ON f.subject = k.s AND f.attribute = k.a"
        " AND f.value_key = k.v",
    ))  # fmt: skip
    assert "facts_key (subject=? AND attribute=? AND value_key=?)" in plan


# --- looking ------------------------------------------------------------------------------------


def three(conn) -> list[int]:
    """Lisbon, then Porto from day 40; jazz."""
    ids = [say(conn, name, day) for name, day in (("a", 1), ("b", 50), ("c", 60))]
    since = When(iso(40), iso(40))
    facts.learn(
        conn,
        [read(ids[0], claim("Lisbon")), read(ids[1], claim("Porto", when=since)),
         read(ids[2], claim("jazz music", "likes"), claim("Berlin", subject="Ana"))],
        10,
    )  # fmt: skip
    return ids


def test_a_fact_is_found_by_the_beginning_of_its_name() -> None:
    conn = memory_db()
    three(conn)
    name = uid(conn, "Porto")
    assert facts.find(conn, name[:9]).uid == facts.find(conn, f" {name.upper()} ").uid == name
    for wrong in ("", "zzz", "g", "%", name + "0"):
        with pytest.raises(NotFoundError) as told:
            facts.find(conn, wrong)
        assert "knowme facts" in told.value.hint
    ids = [say(conn, f"n{n}", n) for n in range(20)]
    facts.learn(conn, [read(number, claim(f"v{number}", "likes")) for number in ids], 20)
    twice = next(c for c in "0123456789abcdef" if sum(u.startswith(c) for u in table(conn)) > 1)
    with pytest.raises(NotFoundError, match="may be any of"):
        facts.find(conn, twice)


def test_what_was_so_on_a_day_is_told_also_where_it_is_over() -> None:
    conn = memory_db()
    three(conn)

    def on(day: int) -> set[str]:
        return {fact.value for fact in facts.believed(conn, on=iso(day), subject=ME)}

    assert {f.value for f in facts.believed(conn, subject=ME)} == {"Porto", "jazz music"}
    assert on(20) == {"Lisbon", "jazz music"} and on(70) == {"Porto", "jazz music"}


def test_facts_are_looked_up_by_words_and_by_subject() -> None:
    conn = memory_db()
    three(conn)
    assert [f.value for f in facts.believed(conn, about="Musics jazz")] == ["jazz music"]
    assert [f.value for f in facts.believed(conn, about="living")] == ["Porto", "Berlin"]
    assert [f.value for f in facts.believed(conn, subject="ana")] == ["Berlin"]
    assert facts.believed(conn, about="jazz Berlin") == []
    assert len(facts.believed(conn, limit=1)) == 1
    every = facts.believed(conn, states=facts.STATES)
    assert {f.state for f in every} == {"believed", "superseded"}
    assert facts.counts(conn)["believed"] == 3 and facts.counts(conn)["retired"] == 0


def test_evidence_is_what_a_fact_says_and_what_repeats_it() -> None:
    conn = memory_db()
    ids = [say(conn, f"m{n}", n, f"Said on {n}.") for n in (3, 1, 2)]
    facts.learn(conn, [read(number, claim("Lisbon", end=9)) for number in ids], 10)
    (fact,) = facts.believed(conn)
    told = facts.evidence(conn, fact.uid)
    assert [each.quote for each in told] == ["Said on 1", "Said on 2", "Said on 3"]
    assert told[0].fact_uid == fact.uid and len({each.fact_uid for each in told}) == 3


# --- the person's word ----------------------------------------------------------------------------


def test_an_edit_names_the_value_anew_and_survives_relearning() -> None:
    conn = memory_db()
    ids = three(conn)
    name = uid(conn, "Porto")
    fact = facts.decide(conn, "edit", name, at(70), "  Vila Nova\n de Gaia ")
    assert (fact.value, fact.sentence) == ("Vila Nova de Gaia", "I live in Vila Nova de Gaia.")
    facts.learn(conn, [read(ids[1])], 20)
    since = When(iso(40), iso(40))
    facts.learn(conn, [read(ids[1], claim("Porto", when=since))], 30)
    assert facts.find(conn, name).value == "Vila Nova de Gaia"
    late = say(conn, "late", 55)
    facts.learn(conn, [read(late, claim("Rome"))], 40)
    assert states(conn)["Rome"] == "doubtful"


def test_to_correct_what_was_so_casts_no_doubt_on_what_came_after() -> None:
    conn = memory_db()
    three(conn)
    facts.decide(conn, "edit", uid(conn, "Lisbon"), at(70), "Lisboa")
    assert states(conn)["Lisboa"] == "superseded" and states(conn)["Porto"] == "believed"
    facts.undo(conn, at(71))
    assert states(conn)["Lisbon"] == "superseded"
    assert [one.undone_ms for one in facts.decisions(conn)] == [at(71), at(71)]


def test_a_decision_reaches_at_least_as_far_as_what_it_is_about() -> None:
    """Messages may carry times that are ahead of this machine's clock."""
    conn = memory_db()
    three(conn)
    assert facts.decide(conn, "retire", uid(conn, "Porto"), 5).state == "retired"


@pytest.mark.parametrize(
    ("action", "text"), [("believe", ""), ("edit", "   "), ("", ""), ("drop table", "x")]
)
def test_a_decision_that_makes_no_sense_is_refused_and_nothing_is_kept(action, text) -> None:
    conn = memory_db()
    three(conn)
    with pytest.raises(InputError) as told:
        facts.decide(conn, action, uid(conn, "Porto"), 5, text)
    assert told.value.hint
    assert facts.decisions(conn) == []


def test_undo_takes_the_last_decision_back_and_undoing_that_brings_it_back() -> None:
    conn = memory_db()
    three(conn)
    name = uid(conn, "Porto")
    facts.decide(conn, "reject", name, at(70))
    assert states(conn)["Lisbon"] == "believed"
    done = facts.undo(conn, at(71), name)
    assert (done.action, done.fact.state) == ("reject", "believed")
    assert states(conn)["Lisbon"] == "superseded"
    assert facts.undo(conn, at(72)).action == "undo"
    assert states(conn)["Porto"] == "retired"
    assert [event.action for event in beliefs.history(conn, "fact", name)] == [
        "learned", "reject", "undo", "redo",
    ]  # fmt: skip


def test_what_came_about_by_itself_is_undone_by_a_decision() -> None:
    conn = memory_db()
    three(conn)
    old = uid(conn, "Lisbon")
    # Both came in one batch, so that the older one was superseded as it was learned.
    done = facts.undo(conn, at(70), old)
    assert done.fact.state == "believed" and states(conn)["Porto"] == "retired"
    assert facts.undo(conn, at(71), old).fact.state == "superseded"
    jazz = uid(conn, "jazz music")
    assert facts.undo(conn, at(72), jazz).fact.state == "retired"
    assert facts.undo(conn, at(73), jazz).fact.state == "believed"


def test_what_cannot_be_undone_says_so() -> None:
    conn = memory_db()
    with pytest.raises(InputError, match="decided nothing"):
        facts.undo(conn, 5)
    number = say(conn, "m", 1)
    facts.learn(conn, [read(number, (claim("Lisbon"), "not covered"))], 10)
    with pytest.raises(InputError) as told:
        facts.undo(conn, 5, uid(conn, "Lisbon"))
    assert "knowme facts edit" in told.value.hint


def test_a_value_that_the_person_wrote_meets_what_is_said_of_it_and_parts_from_it_again() -> None:
    conn = memory_db()
    ids = [say(conn, name, day) for name, day in (("a", 1), ("b", 9))]
    facts.learn(conn, [read(ids[0], claim("jazz", "likes"))], 10)
    jazz = uid(conn, "jazz")
    facts.decide(conn, "edit", jazz, at(5), "blues")
    facts.learn(conn, [read(ids[1], claim("The Blues", "likes"))], 20)
    assert states(conn) == {"blues": "believed", "The Blues": "repeated"}
    facts.undo(conn, at(20), jazz)
    assert states(conn) == {"jazz": "believed", "The Blues": "believed"}
    facts.undo(conn, at(21), jazz)
    assert states(conn) == {"blues": "believed", "The Blues": "repeated"}
    facts.erase(conn, [ids[0]], at(22))
    assert states(conn) == {"The Blues": "believed"}


def test_a_decision_stays_with_its_claim_where_better_rules_date_it() -> None:
    conn = memory_db()
    number = say(conn, "m", 1)
    facts.learn(conn, [read(number, claim("the gym", "went to"))], 10)
    facts.decide(conn, "reject", uid(conn, "the gym"), at(5))
    facts.learn(conn, [read(number, claim("the gym", "went to", when=When(*[iso(1)] * 4)))], 20)
    assert states(conn) == {"the gym": "retired"}


def test_of_one_claim_read_twice_in_a_message_the_plainer_counts() -> None:
    plain, hedged = claim("Lisbon", outright=True), claim("Lisbon", certain=False, end=9)
    for told in ([plain, hedged], [hedged, plain], [(plain, ""), (plain, "no")]):
        conn = memory_db()
        facts.learn(conn, [read(say(conn, "m", 1), *told)], 10)
        (fact,) = facts.believed(conn)
        assert fact.certain and fact.outright and fact.quote == "Words"


# --- forgetting -----------------------------------------------------------------------------------


def everything(conn) -> str:
    """Return all that is kept beside the archive, as one text."""
    tables = ("facts", "events", "decisions", "items")
    return "\n".join(json.dumps(rows(conn, f"SELECT * FROM {name}"), ensure_ascii=False)
                     for name in tables)  # fmt: skip


def test_forgetting_leaves_no_word_and_no_name_and_what_it_had_ended_holds_again() -> None:
    conn = memory_db()
    ids = three(conn)
    name = uid(conn, "Porto")
    facts.decide(conn, "edit", name, at(70), "Gaia")
    facts.decide(conn, "pin", name, at(71))
    done = facts.erase(conn, [ids[1]], at(80))
    assert (done.uids, done.facts, done.decisions) == ((name,), 1, 2)
    assert done.events > 2
    left = everything(conn)
    assert not [word for word in ("Porto", "porto", "Gaia", name) if word in left]
    assert states(conn)["Lisbon"] == "believed"
    assert beliefs.replay(conn, "fact") == table(conn)
    assert facts.erase(conn, [ids[1], 999], at(81)) == ((), 0, 0, 0)


def test_forgetting_reaches_the_history_of_what_was_unlearned_before() -> None:
    conn = memory_db()
    first = say(conn, "m", 1, "I live in Lisbon")
    facts.learn(conn, [read(first, claim("Lisbon"), claim("fado", "likes"))], 10)
    facts.decide(conn, "pin", uid(conn, "fado"), at(5))
    second = say(conn, "m", 1, "I live in Lisbon now")
    facts.learn(conn, [read(second, claim("Lisbon"))], 20)
    facts.unlearn(conn, [first], 30, "")
    facts.erase(conn, [first], 40)
    assert "fado" not in everything(conn)
    assert states(conn) == {"Lisbon": "believed"}
    assert beliefs.replay(conn, "fact") == table(conn)


def test_a_decision_stays_where_another_message_says_the_same() -> None:
    conn = memory_db()
    ids = [say(conn, name, day) for name, day in (("a", 1), ("b", 2))]
    facts.learn(conn, [read(number, claim("Lisbon")) for number in ids], 10)
    gone = uid(conn, "Lisbon")
    facts.decide(conn, "pin", gone, at(5))
    done = facts.erase(conn, [ids[0]], at(6))
    assert done.decisions == 0 and gone not in everything(conn)
    (fact,) = facts.believed(conn)
    assert fact.pinned and facts.decisions(conn)[0].uid == fact.uid


def test_one_switch_forgets_all_that_is_sensitive() -> None:
    conn = memory_db()
    number = say(conn, "m", 1)
    facts.learn(conn, [read(number, claim("nuts", "allergy"), claim("Lisbon"))], 10)
    facts.learn(conn, [read(number, claim("Lisbon"))], 20)
    other = say(conn, "n", 2)
    facts.learn(conn, [read(other, claim("latex", "allergy"))], 30)
    done = facts.erase_sensitive(conn, 40)
    assert len(done.uids) == 2 and done.facts == 1
    left = everything(conn)
    assert "nuts" not in left and "latex" not in left
    assert states(conn) == {"Lisbon": "believed"}


# --- properties -----------------------------------------------------------------------------------

VALUES = st.sampled_from(["Lisbon", "Porto", "the porto", "Rome"])
NAMES = st.sampled_from(["residence", "residence", "likes", "dislikes", "went to"])
MESSAGES = 7


@st.composite
def a_claim(draw, names):
    first = draw(st.integers(0, 12))
    last = first + draw(st.integers(0, 4))
    when = draw(
        st.sampled_from(
            [When(), When(), When("", iso(first)), When(iso(first), iso(last)),
             When(*[iso(first)] * 4), When("", "", iso(first), iso(last))]
        )
    )  # fmt: skip
    made = claim(
        draw(VALUES), draw(names), when=when, certain=draw(st.sampled_from([True, True, False])),
        subject=draw(st.sampled_from([ME, ME, "Ana"])), start=draw(st.integers(0, 1)),
    )  # fmt: skip
    return made, draw(st.sampled_from(["", "", "", "not covered"]))


@st.composite
def an_archive(draw):
    """Return (day, speaker) of each message, and what each reader reads in it."""
    told = []
    # Alike, so that claims meet: of one attribute, or of all.
    names = draw(st.sampled_from([NAMES, st.just("likes"), st.just("residence")]))
    for _ in range(MESSAGES):
        day = draw(st.none() | st.integers(0, 12))
        speaker = draw(st.sampled_from(["", "", "", "Bob"]))
        rules = draw(st.lists(a_claim(names), max_size=3))
        model = draw(st.lists(a_claim(names), max_size=1))
        told.append((day, speaker, rules, model))
    return told


def put(conn, told, order) -> dict[int, int]:
    """Put the messages into the archive in this order; returns place -> id."""
    return {
        place: say(conn, f"m{place}", told[place][0], speaker=told[place][1], seq=place,
                   source="ingest" if told[place][1] else "openclaw")
        for place in order
    }  # fmt: skip


def readings_of(told, ids, place):
    _, _, rules, model = told[place]
    return [read(ids[place], *rules), read(ids[place], *model, read_by="model:m")]


def meant(conn) -> dict[str, dict]:
    """Return the rows without what depends on when and in which order things came in."""
    kept = {"message_id": 0, "recorded_ms": 0}
    return {name: row | kept for name, row in table(conn).items()}


def whole(conn) -> None:
    """Check what must be so at any time."""
    assert beliefs.replay(conn, "fact") == table(conn)
    assert settling.settle(conn, list(table(conn).values()), 0, "nobody") == []
    keys = {name for (name,) in rows(conn, "SELECT uid FROM items WHERE kind = 'fact'")}
    assert keys == {name for name, row in table(conn).items() if row["state"] == "believed"}


@settings(max_examples=60)
@given(an_archive(), st.permutations(range(MESSAGES)), st.randoms(use_true_random=False))
def test_one_by_one_in_any_order_gives_what_all_at_once_gives(told, order, chance) -> None:
    at_once, by_one = memory_db(), memory_db()
    ids = put(at_once, told, range(MESSAGES))
    facts.learn(at_once, [r for p in range(MESSAGES) for r in readings_of(told, ids, p)], 5)
    ids = put(by_one, told, order)
    for place in order:
        for reading in chance.sample(readings_of(told, ids, place), 2):
            facts.learn(by_one, [reading], 5 + place)
            whole(by_one)
    assert meant(by_one) == meant(at_once)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["learn", "learn", "learn", "reread", "unlearn", "decide", "decide", "undo",
                         "undo all", "erase"]),
        st.integers(0, MESSAGES - 1),
        st.sampled_from((*facts.ACTIONS, "edit", "edit")),
        st.integers(0, 50),
        VALUES,
        st.integers(0, 14),
    ),
    max_size=14,
)  # fmt: skip


class Life:
    """A home to which things happen; it knows which messages were read, as extract does."""

    def __init__(self, told) -> None:
        self.told, self.conn = told, memory_db()
        self.ids = put(self.conn, told, range(MESSAGES))
        self.read: dict[int, int] = {}  # message -> how many of its claims were read

    def step(self, kind, place, action, pick, text, at_ms) -> None:
        if kind in ("learn", "reread"):
            self.read[place] = pick % 3 if kind == "reread" else 9
            facts.learn(self.conn, self.readings(place), at_ms)
        elif kind in ("unlearn", "erase"):
            self.read.pop(place, None)
            act = facts.erase if kind == "erase" else facts.unlearn
            act(self.conn, [self.ids[place]], at_ms, *(["left"] if kind == "unlearn" else []))
        elif kind == "undo all":
            self.undo(at_ms, "")
        elif names := sorted(table(self.conn)):
            name = names[pick % len(names)]
            if kind == "undo":
                self.undo(at_ms, name)
            else:
                facts.decide(self.conn, action, name, at_ms, text if action == "edit" else "")

    def undo(self, at_ms, name) -> None:
        try:
            facts.undo(self.conn, at_ms, name)
        except InputError:
            return

    def readings(self, place) -> list:
        cut = self.read[place]
        return [replace_claims(r, cut) for r in readings_of(self.told, self.ids, place)]


def replace_claims(reading, cut):
    return reading._replace(claims=reading.claims[:cut])


@settings(max_examples=120)
@given(an_archive(), STEPS)
def test_history_tells_what_was_believed_at_any_time(told, steps) -> None:
    """Random lives: events replay to the tables, as_of is what stood, rebuilding gives the same."""
    life = Life(told)
    stood: list[tuple[int, dict]] = []
    for number, (kind, place, action, pick, text, day) in enumerate(steps):
        at_ms = number * 20 * DAY + at(day)
        life.step(kind, place, action, pick, text, at_ms)
        whole(life.conn)
        if kind == "erase":
            stood = []  # history was changed, on purpose
        stood.append((at_ms, table(life.conn)))
    for at_ms, then in stood:
        assert {row["uid"]: row for row in beliefs.as_of(life.conn, "fact", at_ms)} == then
        shown = facts.believed(life.conn, as_of=at_ms, states=facts.STATES)
        assert {f.uid for f in shown} == then.keys()
    now = table(life.conn)
    fresh = life.conn.execute("SELECT count(*) FROM events").fetchone()
    facts.learn(life.conn, [r for p in life.read for r in life.readings(p)], 10**15)
    assert table(life.conn) == now
    assert life.conn.execute("SELECT count(*) FROM events").fetchone() == fresh

    life.conn.execute("DELETE FROM items WHERE kind = 'fact'")
    life.conn.execute("DELETE FROM facts")
    facts.learn(life.conn, [r for p in sorted(life.read) for r in life.readings(p)], 10**15)
    assert table(life.conn) == now
    assert life.conn.execute("SELECT count(*) FROM events").fetchone() == fresh


@settings(max_examples=80)
@given(an_archive(), STEPS, st.integers(0, 50))
def test_undoing_an_undo_leaves_everything_as_it_was(told, steps, pick) -> None:
    life = Life(told)
    for number, (kind, place, action, which, text, day) in enumerate(steps):
        life.step(kind, place, action, which, text, number * 20 * DAY + at(day))
    later = (len(steps) + 2) * 20 * DAY + at(14)
    names = ["", *sorted(table(life.conn))]
    name = names[pick % len(names)]
    before = table(life.conn)
    try:
        facts.undo(life.conn, later, name)
    except InputError:
        assert table(life.conn) == before
        return
    facts.undo(life.conn, later + 1, name)
    assert table(life.conn) == before


@settings(max_examples=80)
@given(an_archive(), st.integers(0, MESSAGES - 1), st.integers(0, 50))
def test_forgetting_is_as_if_it_had_never_been(told, place, pick) -> None:
    conn, never = memory_db(), memory_db()
    ids = put(conn, told, range(MESSAGES))
    facts.learn(conn, [r for p in range(MESSAGES) for r in readings_of(told, ids, p)], 5)
    ids_never = put(never, told, range(MESSAGES))
    others = [p for p in range(MESSAGES) if p != place]
    facts.learn(never, [r for p in others for r in readings_of(told, ids_never, p)], 5)
    done = facts.erase(conn, [ids[place]], 9)
    assert table(conn) == table(never)
    left = json.dumps(rows(conn, "SELECT before, after FROM events WHERE target = 'fact'"))
    assert not [name for name in done.uids if name in left]
