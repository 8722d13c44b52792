"""Lines of the profile: what makes one, who has the last word, what the page holds."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import beliefs, profile
from knowme.attributes import sentence
from knowme.db import rows
from knowme.errors import InputError, NotFoundError
from knowme.profile import Decision
from knowme.sync import store
from knowme.types import ME, Fact, Line, Record, When
from knowme.wire import estimate_tokens

TODAY = "2026-04-12"
DAY = 86_400_000
SAID = 1_775_000_000_000  # 2026-03-31


def fact(attribute="residence", value="Porto", **more) -> Fact:
    message = more.pop("message_id", 1)
    subject = more.pop("subject", ME)
    given = {
        "uid": f"{subject}{attribute}{value}{message}", "subject": subject, "attribute": attribute,
        "value": value, "sentence": sentence(subject, attribute, value), "message_id": message,
        "start": 0, "end": len(value), "quote": value, "said_ms": SAID, "when": When(),
        "read_by": "rules", "certain": True, "outright": True, "sensitive": (),
        "state": "believed", "reason": "", "other": "", "pinned": False, "recorded_ms": 1,
        "retired_ms": None,
    }  # fmt: skip
    return Fact(**{**given, **more})


def lines(*facts, decisions=(), places=None, **more) -> list[Line]:
    where = places or {one.message_id: str(one.message_id) for one in facts}
    return profile.lines_from(facts, (), decisions, today=TODAY, places=where, **more)


def texts(*facts, **more) -> list[str]:
    return [line.text for line in lines(*facts, **more) if line.state == "current"]


# --- what makes a line ----------------------------------------------------------------------------


def test_a_fact_said_outright_is_a_short_plain_line() -> None:
    assert texts(fact()) == ["Lives in Porto"]
    assert texts(fact("name", "Leonor")) == ["Name: Leonor"]
    assert texts(fact("favourite tea", "oolong")) == ["Favourite tea: oolong"]


def test_what_was_not_said_outright_needs_two_independent_places() -> None:
    heard = [fact(outright=False, message_id=n) for n in (1, 2)]
    assert [line.state for line in lines(heard[0])] == ["thin"]
    assert texts(*heard, places={1: "a 2026-01-01", 2: "a 2026-01-01"}) == []
    assert texts(*heard, places={1: "a 2026-01-01", 2: "a 2026-01-02"}) == ["Lives in Porto"]


def test_more_places_make_surer_and_a_hedge_less_sure() -> None:
    def sure(*facts: Fact) -> float:
        return lines(*facts)[0].confidence

    assert sure(fact(), fact(message_id=2)) > sure(fact()) > sure(fact(outright=False))
    assert sure(fact(outright=False)) > sure(fact(outright=False, certain=False))
    assert sure(fact(pinned=True)) == 1.0


@pytest.mark.parametrize(
    "one",
    [
        fact("went to", "the support group", when=When(*["2026-03-30"] * 4)),
        fact("event", "saw a play", when=When(*["2026-03-30"] * 4)),
        fact(when=When("", "", "2026-02-07", "2026-02-07")),
        fact(state="superseded"),
        fact(state="doubtful"),
        fact(state="quarantined"),
        fact("plans to", "buy a bike", said_ms=SAID - 300 * DAY),
    ],
)
def test_what_is_over_what_happened_once_and_what_is_not_believed_is_no_line(one) -> None:
    assert texts(one) == []


def test_a_time_that_was_told_stands_behind_the_line() -> None:
    since = When("2019-01-01", "2019-12-31")
    assert texts(fact("diet", "vegetarian", when=since)) == ["Is vegetarian (since 2019)"]
    until = When("", "", "2026-04-30", "2026-04-30")
    assert texts(fact("employer", "Maresia", when=until)) == ["Works at Maresia (until 2026-04-30)"]
    today = When("2026-03-31", "2026-03-31")
    assert texts(fact(when=today)) == ["Lives in Porto"]


def test_an_age_told_long_ago_says_when() -> None:
    assert texts(fact("age", "38")) == ["Is 38 years old"]
    assert texts(fact("age", "38", said_ms=SAID - 700 * DAY)) == ["Is 38 years old (in 2024)"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("has", "peas"), ("likes", "something special"), ("is thankful for", "the chance"),
     ("wants to", "sleep"), ("uses", "linen and the spine then swells like bread"),
     ("mentor", "a girl just like me"), ("carrying on", "the work")],
)  # fmt: skip
def test_peas_in_the_kitchen_are_no_line_when_they_are_mentioned_once(name, what) -> None:
    assert texts(fact(name, what)) == []


@pytest.mark.parametrize(
    ("name", "what", "line"),
    [("read", "tide tables", "Reads tide tables"), ("residence", "porto", "Lives in Porto"),
     ("name", "leonor da silva", "Name: Leonor da Silva"), ("likes", "tea", "Likes tea"),
     ("is part of", "the choir", "Is part of the choir"), ("play", "clarinet", "Plays clarinet")],
)  # fmt: skip
def test_a_line_reads_as_a_person_would_put_it(name, what, line) -> None:
    assert texts(fact(name, what)) == [line]


def test_an_appointment_stands_until_its_day_is_over() -> None:
    told = fact("date of meeting", "26 february")
    assert texts(replace(told, said_ms=1_769_000_000_000)) == []  # said on 2026-01-21
    assert texts(told) == ["The meeting is 26 february"]  # said in March: it may be the next one
    after = TODAY[:4] + "-12-30"
    assert texts(fact("date of meeting", after)) == [f"The meeting is {after}"]
    assert texts(fact("date of standup", "mondays 9:30")) == ["The standup is mondays 9:30"]


def test_what_one_was_at_an_earlier_place_is_not_who_one_is() -> None:
    before = fact("occupation", "a data analyst at Sonae")
    then = replace(fact("employer", "Feedzai"), said_ms=SAID + 86_400_000)
    assert texts(before, then) == ["Works at Feedzai"]
    assert len(texts(before, replace(then, value="Sonae"))) == 2
    assert len(texts(before, replace(then, said_ms=SAID - 86_400_000))) == 2
    assert len(texts(replace(before, pinned=True), then)) == 2


def test_a_rule_is_told_as_it_was_laid_down() -> None:
    assert texts(fact("rule", "never mock our own classes")) == ["Rule: never mock our own classes"]


def test_a_tie_that_is_said_both_ways_stands_once() -> None:
    both = [fact("manager", "Tomás"), fact("occupation", "My manager", subject="Tomás")]
    assert texts(*both) == ["Tomás (manager)"]


def test_a_person_is_one_line_with_what_is_known_of_them() -> None:
    known = [
        fact("brother", "Tomás"),
        fact("residence", "Bremen", subject="Tomás", message_id=2),
        fact("occupation", "a nurse", subject="Tomás", message_id=3),
        fact("went to", "the fair", subject="Tomás", message_id=4),
    ]
    assert texts(*known) == ["Tomás (brother): lives in Bremen; is a nurse"]
    (line,) = lines(*known)
    assert {one.message_id for one in line.evidence} == {1, 2, 3}


def test_a_sensitive_line_says_so_and_is_never_made_where_it_shall_not_be() -> None:
    allergy = fact("allergy", "hazelnuts")
    (line,) = lines(allergy)
    assert line.section == "health" and "health" in line.sensitive
    assert lines(allergy, keep_sensitive=False) == []


def test_without_the_sensitive_a_line_does_not_rest_on_a_sensitive_quote() -> None:
    told = fact(quote="I live in Porto because of my diabetes", message_id=1)
    again = fact(quote="I live in Porto", state="repeated", message_id=2)
    assert lines(told, keep_sensitive=False) == []
    (line,) = lines(told, again, keep_sensitive=False)
    assert [one.quote for one in line.evidence] == ["I live in Porto"]
    assert len(lines(told)) == 1


def test_what_one_person_says_of_another_is_not_said_of_the_person() -> None:
    (line,) = lines(fact("residence", "Berlin", subject="Ana"), fact("sister", "Ana", message_id=2))
    assert line.section == "people" and line.text == "Ana (sister): lives in Berlin"


VALUES = {
    "residence": ["Porto", "Kassel"], "likes": ["tea", "rain", "long walks"],
    "employer": ["Maresia"], "sister": ["Ana"], "allergy": ["hazelnuts"], "went to": ["the fair"],
    "answer length": ["short"], "plans to": ["buy a bike"],
}  # fmt: skip


@st.composite
def facts(draw) -> Fact:
    name = draw(st.sampled_from(sorted(VALUES)))
    number = draw(st.integers(1, 40))
    return fact(
        name,
        draw(st.sampled_from(VALUES[name])),
        subject=draw(st.sampled_from([ME, ME, "Ana", "Ben"])),
        message_id=number,
        said_ms=SAID - number * DAY,
        outright=draw(st.booleans()),
        certain=draw(st.booleans()),
        state=draw(st.sampled_from(["believed", "repeated", "superseded"])),
        when=draw(st.sampled_from([When(), When("2019-01-01", "2019-12-31"), When(*[TODAY] * 4)])),
    )


MANY = st.lists(facts(), max_size=25, unique_by=lambda one: one.uid)
UIDS = sorted({line.uid for name in VALUES for v in VALUES[name] for line in lines(fact(name, v))})


@st.composite
def decided(draw) -> list[Decision]:
    made = []
    for number in range(draw(st.integers(0, 8))):
        action = draw(st.sampled_from(profile.ACTIONS))
        words = draw(st.sampled_from(["Lives by the sea", "Tea only", "x" * 90, "Mine [private]"]))
        section = draw(st.sampled_from(["identity", "preferences", "garden"]))
        uid = profile.line_uid("write", section, words) if action == "write" else None
        made.append(
            Decision(
                number + 1, number, uid or draw(st.sampled_from(UIDS)), action,
                section if action in ("write", "edit") else "",
                words if action in ("write", "edit") else "",
            )
        )  # fmt: skip
    return made


@given(MANY, decided(), st.randoms(use_true_random=False))
def test_lines_do_not_mind_the_order_in_which_facts_come(known, said, random) -> None:
    shuffled, again = list(known), list(said)
    random.shuffle(shuffled)
    random.shuffle(again)
    places = {one.message_id: str(one.message_id % 5) for one in known}
    assert lines(*shuffled, decisions=again, places=places or {0: ""}) == lines(
        *known, decisions=said, places=places or {0: ""}
    )


@given(MANY, MANY, decided())
def test_the_persons_word_stands_whatever_is_learned(before, after, said) -> None:
    for known in (before, [*before, *after], after):
        made = {line.uid: line for line in lines(*known, decisions=said)}
        for uid in {one.uid for one in said}:
            own = [one for one in said if one.uid == uid]
            worded = [one for one in own if one.action in ("write", "edit", "strike")]
            if not worded:
                continue
            last = worded[-1]
            if last.action == "strike":
                assert uid not in made or made[uid].state == "struck"
            else:
                line = made[uid]
                assert line.text == last.text.removesuffix(" [private]")
                assert line.section == last.key and line.written_by == "person"
                assert line.state in ("current", "replaced")  # said twice: it stands once
                assert any(
                    profile.normal(each.text) == profile.normal(line.text)
                    for each in made.values() if each.state == "current"
                )  # fmt: skip


@given(MANY, decided(), st.integers(0, 400), st.sampled_from(["", "Leonor"]))
def test_a_page_never_exceeds_its_budget_and_holds_whole_lines(known, said, budget, name) -> None:
    made = lines(*known, decisions=said)
    page = profile.render(made, budget, estimate_tokens, name)
    assert estimate_tokens(page.text) <= budget
    for line in page.shown:
        assert line.text in page.text
    current = {line.uid for line in made if line.state == "current"}
    assert {line.uid for line in (*page.shown, *page.left_out)} == current
    assert page == profile.render(list(reversed(made)), budget, estimate_tokens, name)


@given(MANY, decided())
def test_a_page_is_read_back_as_it_was_written(known, said) -> None:
    page = profile.render(lines(*known, decisions=said), 4000, estimate_tokens)
    read = [one for one in profile.read_page(page.text) if one.section != profile.TITLE]
    assert [(one.section, one.text, one.private) for one in read] == [
        (line.section, line.text, bool(line.sensitive)) for line in page.shown
    ]


def test_what_the_person_wrote_or_pinned_outlasts_a_small_budget() -> None:
    many = [fact("likes", f"thing number {n}", message_id=n) for n in range(1, 60)]
    pinned = next(line.uid for line in lines(*many) if "number 59" in line.text)
    own = Decision(2, 1, "w" * 16, "write", "garden", "Grows leeks")
    page = profile.render(
        lines(*many, decisions=[Decision(1, 1, pinned, "pin", "", ""), own]), 80, estimate_tokens
    )
    assert "Grows leeks" in page.text and "number 59" in page.text and page.left_out


def test_no_section_crowds_out_the_others() -> None:
    many = [fact("likes", f"thing number {n}", message_id=n) for n in range(1, 60)]
    known = [*many, fact(), fact("answer length", "short"), fact("sister", "Ana")]
    page = profile.render(lines(*known), 200, estimate_tokens)
    for expected in ("Lives in Porto", "Wants answers to be short", "Ana (sister)", "Likes thing"):
        assert expected in page.text


# --- halves ---------------------------------------------------------------------------------------


@given(MANY, decided())
def test_no_private_line_stands_in_the_plain_half(known, said) -> None:
    page = profile.render(lines(*known, decisions=said), 4000, estimate_tokens)
    plain, private = profile.split(page.text)
    for line in page.shown:
        if line.sensitive:
            assert f"- {line.text}" in private.split("\n")
            assert f"- {line.text}" not in plain.split("\n")
    shown = len([line for line in page.shown if line.section != profile.TITLE])
    assert plain.count("\n- ") + private.count("\n- ") == shown
    assert "<!--" not in plain + private and "[private]" not in plain + private


def test_a_heading_marked_by_hand_keeps_all_that_stands_under_it() -> None:
    plain, private = profile.split("# Me\n## Garden [private]\n- leeks\n## Tea\n- oolong\n")
    assert "leeks" in private and "leeks" not in plain and "oolong" in plain
    assert profile.split("# Me\n") == ("", "")


# --- stored ---------------------------------------------------------------------------------------


@pytest.fixture
def archive(home):
    """Give a home with forty messages, numbered from 1."""
    store(
        home,
        "openclaw",
        [
            (Record("message", "s", str(n), "user", "", f"message {n}", None, n * DAY, n), None)
            for n in range(1, 41)
        ],
    )
    return home


def keep(home, made, at_ms=1000) -> int:
    return home.db.write(lambda conn: profile.store(conn, made, at_ms))


def do(home, action, ref="", text="", section="", at_ms=2000) -> Line:
    return home.db.write(lambda conn: profile.decide(conn, action, ref, at_ms, text, section))


def kept(home) -> list[Line]:
    with home.db.read() as conn:
        return profile.lines(conn)


def said(home) -> list[Decision]:
    with home.db.read() as conn:
        return profile.decisions(conn)


def bare(made) -> list[Line]:
    return [replace(line, recorded_ms=0, evidence=()) for line in made]


def replayed(home) -> tuple[dict, dict]:
    """Return the table, and what playing the events gives."""
    with home.db.read() as conn:
        names = [name for (name,) in rows(conn, "SELECT name FROM pragma_table_info('lines')")]
        table = {
            row[1]: dict(zip(names, row, strict=True)) for row in rows(conn, "SELECT * FROM lines")
        }
        played = beliefs.replay(conn, "line")
    drop = ("id", "because")
    return tuple(
        {uid: {k: v for k, v in row.items() if k not in drop} for uid, row in state.items()}
        for state in (table, played)
    )


def test_storing_the_same_again_changes_nothing(archive) -> None:
    made = lines(fact(), fact("likes", "tea"))
    assert keep(archive, made) == 2
    assert keep(archive, made, 5000) == 0
    assert bare(kept(archive)) == bare(made)
    assert {line.recorded_ms for line in kept(archive)} == {1000}


def test_a_line_that_is_no_longer_derived_goes_and_its_history_stays(archive) -> None:
    keep(archive, lines(fact()))
    keep(archive, [], 3000)
    assert kept(archive) == []
    with archive.db.read() as conn:
        assert [e.action for e in profile.history(conn)] == ["learned", "unlearned"]
        assert [line.text for line in profile.as_of(conn, 2999)] == ["Lives in Porto"]
        assert profile.as_of(conn, 3000) == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_table_is_what_its_events_lead_to_and_a_rebuild_gives_the_same(archive, data) -> None:
    archive.db.write(lambda conn: [conn.execute(f"DELETE FROM {t}") for t in
                                   ("lines", "events", "decisions", "states")])  # fmt: skip
    known: list[Fact] = []
    stamps = []
    for step in range(1, 6):
        at_ms = step * 1000
        if data.draw(st.booleans()):
            known = data.draw(MANY)
        keep(archive, lines(*known, decisions=said(archive)), at_ms)
        there = kept(archive)
        action = data.draw(st.sampled_from(profile.ACTIONS))
        if action == "write":
            do(archive, "write", "", data.draw(st.sampled_from(["Tea", "Rain"])), "garden", at_ms)
        elif there:
            line = data.draw(st.sampled_from(there))
            do(archive, action, line.uid, "Changed" if action == "edit" else "", "", at_ms)
        keep(archive, lines(*known, decisions=said(archive)), at_ms)
        table, played = replayed(archive)
        assert table == played
        stamps.append((at_ms, {line.uid: line.text for line in kept(archive)}))
    for at_ms, was in stamps:
        with archive.db.read() as conn:
            assert {line.uid: line.text for line in profile.as_of(conn, at_ms)} == was
    before = bare(kept(archive))
    archive.db.write(lambda conn: conn.execute("DELETE FROM lines"))
    keep(archive, lines(*known, decisions=said(archive)), 9000)
    assert bare(kept(archive)) == before


def test_a_decision_shows_at_once_as_the_next_build_would_have_it(archive) -> None:
    known = [fact(), fact("likes", "tea"), fact("likes", "rain", outright=False)]
    keep(archive, lines(*known))
    do(archive, "edit", "lives in", "Lives in Bonfim, Porto")
    do(archive, "strike", "likes tea")
    do(archive, "pin", "likes rain")
    do(archive, "write", "", "Grows leeks", "garden")
    before = bare(kept(archive))
    assert keep(archive, lines(*known, decisions=said(archive)), 5000) == 0
    assert bare(kept(archive)) == before
    assert {line.text: line.state for line in kept(archive)} == {
        "Lives in Bonfim, Porto": "current", "Likes tea": "struck", "Likes rain": "current",
        "Grows leeks": "current",
    }  # fmt: skip


def test_what_was_struck_does_not_come_back_in_other_words_of_the_same(archive) -> None:
    keep(archive, lines(fact("likes", "tea")))
    do(archive, "strike", "likes tea")
    again = [fact("likes", "Tea", message_id=n) for n in range(2, 9)]
    assert [x.text for x in lines(*again, decisions=said(archive)) if x.state == "current"] == []


def test_undo_takes_back_one_change_after_the_other(archive) -> None:
    keep(archive, lines(fact()))
    do(archive, "edit", "lives in", "Lives in Bonfim")
    do(archive, "strike", "lives in")
    do(archive, "write", "", "Tea", "garden")

    def undo(ref=""):
        return archive.db.write(lambda conn: profile.undo(conn, 3000, ref))

    assert undo().after is None
    assert undo("lives in").after.state == "current"
    assert undo().after.text == "Lives in Porto"
    assert said(archive) == []
    assert bare(kept(archive)) == bare(lines(fact()))
    assert undo().after.state == "struck"  # what was derived is answered by a decision
    table, played = replayed(archive)
    assert table == played


def test_undoing_what_changed_by_itself_keeps_the_line_as_it_was(archive) -> None:
    keep(archive, lines(fact("diet", "vegetarian")))
    since = When("2019-01-01", "2019-12-31")
    keep(archive, lines(fact("diet", "vegetarian", when=since)), 2000)
    change = archive.db.write(lambda conn: profile.undo(conn, 3000))
    assert change.after.text == "Is vegetarian"
    keep(archive, lines(fact("diet", "vegetarian", when=since), decisions=said(archive)), 4000)
    assert [line.text for line in kept(archive)] == ["Is vegetarian"]


def test_nothing_to_undo_is_said(archive) -> None:
    with pytest.raises(NotFoundError, match="nothing to undo"):
        archive.db.write(lambda conn: profile.undo(conn, 1))


def test_a_line_is_found_by_its_id_its_beginning_or_its_words(archive) -> None:
    keep(archive, lines(fact(), fact("likes", "tea"), fact("likes", "rain")))
    with archive.db.read() as conn:
        line = profile.find(conn, "lives in porto")
        assert profile.find(conn, line.uid) == profile.find(conn, line.uid[:8]) == line
        with pytest.raises(NotFoundError, match="2 lines match"):
            profile.find(conn, "likes")
        with pytest.raises(NotFoundError, match="No line of the profile is 'moon'"):
            profile.find(conn, "moon")


def test_why_shows_the_words_and_their_dates(archive) -> None:
    keep(archive, lines(fact(message_id=3), fact(message_id=7)))
    with archive.db.read() as conn:
        line, quotes = profile.why(conn, "lives in")
    assert [(one.message_id, at) for one, at in quotes] == [(3, 3 * DAY), (7, 7 * DAY)]
    assert line.evidence == tuple(one for one, _ in quotes)


def test_diff_shows_what_a_reader_would_find_changed(archive) -> None:
    keep(archive, lines(fact(), fact("likes", "tea")), 1000)
    keep(archive, lines(fact(), fact("likes", "rain")), 2000)
    with archive.db.read() as conn:
        changed = profile.diff(conn, 1500)
        assert profile.diff(conn, 2000) == []
    assert {(c.before and c.before.text, c.after and c.after.text) for c in changed} == {
        ("Likes tea", None), (None, "Likes rain"),
    }  # fmt: skip


def test_a_decision_that_makes_no_sense_is_refused(archive) -> None:
    with pytest.raises(InputError, match="needs words"):
        do(archive, "write", "", "  [private]  ", "garden")
    with pytest.raises(InputError, match="nothing to do to a line"):
        do(archive, "burn", "x")


# --- forgetting -----------------------------------------------------------------------------------


def test_forgetting_takes_lines_quotes_history_and_what_was_written_of_them(archive) -> None:
    keep(archive, lines(fact("likes", "absinthe", message_id=4), fact(message_id=5)))
    do(archive, "edit", "likes absinthe", "Likes absinthe on Sundays")
    keep(archive, lines(fact(message_id=5), decisions=said(archive)), 3000)
    gone = archive.db.write(lambda conn: profile.erase(conn, [4], (), 4000))
    assert len(gone) == 1
    with archive.db.read() as conn:
        for table in ("lines", "line_evidence", "events", "decisions", "states"):
            assert "absinthe" not in str(rows(conn, f"SELECT * FROM {table}")), table
        assert [line.text for line in profile.lines(conn)] == ["Lives in Porto"]


def test_forgetting_reaches_a_line_that_was_unlearned_before(archive) -> None:
    keep(archive, lines(fact("likes", "absinthe", message_id=4)))
    keep(archive, [], 3000)
    archive.db.write(lambda conn: profile.erase(conn, [4]))
    with archive.db.read() as conn:
        assert rows(conn, "SELECT * FROM events") == []


def test_a_strike_outlasts_forgetting_without_its_words(archive) -> None:
    absinthe = fact("likes", "absinthe", message_id=4)
    keep(archive, lines(absinthe))
    do(archive, "strike", "likes absinthe")
    archive.db.write(lambda conn: profile.erase(conn, [4]))
    assert [(one.action, one.text, one.key) for one in said(archive)] == [("strike", "", "")]
    (line,) = lines(absinthe, decisions=said(archive))
    assert line.state == "struck"


def test_forgetting_a_text_reaches_what_the_person_wrote_themselves(archive) -> None:
    do(archive, "write", "", "Drinks absinthe", "garden")
    do(archive, "write", "", "Grows leeks", "garden")
    archive.db.write(lambda conn: profile.erase(conn, [], texts=["Absinthe"]))
    assert [line.text for line in kept(archive)] == ["Grows leeks"]
    with archive.db.read() as conn:
        assert "absinthe" not in str(rows(conn, "SELECT * FROM events")).casefold()
        assert "absinthe" not in str(rows(conn, "SELECT * FROM decisions")).casefold()


# --- the baseline ---------------------------------------------------------------------------------


def test_the_baseline_counts_words_and_knows_no_facts() -> None:
    said = ["I like tea with Ana", "today I like tea, and met Ana", "the boiler, the boiler"]
    made = [line.text for line in profile.baseline(said)]
    assert "Names: Ana (2)" in made and any(text.startswith("Topics: ") for text in made)
    assert profile.baseline(reversed(said)) == profile.baseline(said)
    assert profile.baseline([]) == []
