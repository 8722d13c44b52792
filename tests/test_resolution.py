import random
from dataclasses import replace

import pytest
from claimed import at, fact, iso
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme.attributes import value_key
from knowme.facts import resolution
from knowme.facts.resolution import Decision, Place, fact_key, resolve
from knowme.types import ME, When


def decided(action: str, about, day: int, text: str = "", number: int = 1) -> Decision:
    return Decision(number, at(day), about.uid, action, fact_key(about), text)


def told(*claims, decisions=(), places=None) -> dict[str, tuple[str, str]]:
    """Return uid -> (state, other)."""
    found = resolve(claims, decisions, places)
    return {uid: (one.state, one.other) for uid, one in found.items()}


# --- what is so, and what came after it ---------------------------------------------------------


def test_a_newer_value_of_a_single_attribute_ends_the_older_one_and_both_stay() -> None:
    old, new = fact("a", "Lisbon", 1), fact("b", "Porto", 50, when=When(iso(40), iso(45)))
    found = resolve([old, new])
    assert found["a"].state == "superseded" and found["a"].other == "b"
    assert (found["a"].when.to_first, found["a"].when.to_last) == (iso(40), iso(45))
    assert found["b"].state == "believed" and found["b"].when == When(iso(40), iso(45))


def test_where_the_newer_does_not_say_since_when_the_older_ended_between_the_two_sayings() -> None:
    claims = [fact("a", "Lisbon", 1), fact("again", "Lisbon", 9), fact("b", "Porto", 50)]
    found = resolve(claims)
    assert found["a"].when == When("", "", iso(9), iso(50))


def test_what_began_after_the_other_was_last_said_began_no_earlier() -> None:
    found = resolve([fact("a", "Lisbon", 1), fact("b", "Porto", 50, when=When("", iso(50)))])
    assert found["b"].when == When(iso(1), iso(50))


def test_the_same_value_again_repeats_the_first() -> None:
    claims = [fact(name, "Lisbon", day) for name, day in (("a", 1), ("b", 2), ("c", 3))]
    assert told(*claims) == {"a": ("believed", ""), "b": ("repeated", "a"), "c": ("repeated", "a")}


def test_a_value_that_returns_is_believed_anew() -> None:
    claims = [fact("a", "Lisbon", 1), fact("b", "Porto", 2), fact("c", "Lisbon", 3)]
    assert told(*claims) == {
        "a": ("superseded", "b"), "b": ("superseded", "c"), "c": ("believed", ""),
    }  # fmt: skip


def test_many_values_live_side_by_side() -> None:
    claims = [fact("a", "jazz", 1, "likes"), fact("b", "tea", 2, "likes")]
    assert told(*claims) == {"a": ("believed", ""), "b": ("believed", "")}


def test_no_longer_ends_what_was_so_and_takes_its_beginning_over() -> None:
    liked = fact("a", "jazz", 1, "likes", when=When(iso(0), iso(0)))
    over = fact("b", "jazz", 9, "likes", when=When("", iso(9), "", iso(9)))
    found = resolve([liked, over])
    assert found["a"].state == "superseded" and found["a"].other == "b"
    assert found["b"].state == "believed"
    assert found["b"].when == found["a"].when == When(iso(0), iso(0), "", iso(9))


def test_what_one_likes_and_what_one_dislikes_end_each_other() -> None:
    claims = [fact("a", "jazz", 1, "likes"), fact("b", "jazz", 9, "dislikes")]
    assert told(*claims) == {"a": ("superseded", "b"), "b": ("believed", "")}


def test_what_is_over_stands_beside_what_is_so() -> None:
    now = fact("a", "Lisbon", 50, when=When(iso(40), iso(40)))
    past = fact("b", "Porto", 60, when=When(iso(1), iso(1), iso(30), iso(30)))
    assert told(now, past) == {"a": ("believed", ""), "b": ("believed", "")}


def test_no_longer_of_another_value_contradicts_nothing() -> None:
    now = fact("a", "Lisbon", 10)
    past = fact("b", "Porto", 60, when=When("", iso(60), "", iso(60)))
    assert told(now, past) == {"a": ("believed", ""), "b": ("believed", "")}


def test_the_same_event_on_two_days_is_two_events() -> None:
    def on(day: int) -> When:
        return When(*[iso(day)] * 4)

    claims = [fact(n, "the gym", d, "went to", when=on(d)) for n, d in (("a", 1), ("b", 5))]
    again = fact("c", "the gym", 6, "went to", when=on(5))
    assert told(*claims, again) == {
        "a": ("believed", ""), "b": ("believed", ""), "c": ("repeated", "b"),
    }  # fmt: skip


def test_a_better_date_of_the_beginning_is_taken_over() -> None:
    vague = fact("a", "Lisbon", 100, when=When("", iso(100)))
    dated = fact("b", "Lisbon", 120, when=When(iso(10), iso(20)))
    assert resolve([vague, dated])["a"].when == When(iso(10), iso(20))
    # That it is so on some day says nothing of when it began.
    still = fact("c", "Lisbon", 130, when=When("", iso(130)))
    assert resolve([dated, still])["b"].when == dated.when


def test_a_beginning_is_not_put_before_what_it_ended() -> None:
    claims = [fact("a", "Lisbon", 10), fact("b", "Porto", 50, when=When("", iso(50)))]
    again = fact("c", "Porto", 60, when=When(iso(1), iso(5)))
    found = resolve([*claims, again])
    assert found["a"].when == When("", "", iso(10), iso(50))
    assert found["b"].when == When(iso(10), iso(50))


def test_what_is_announced_counts_from_the_day_on_which_it_begins() -> None:
    plan = fact("plan", "Berlin", 10, when=When(iso(90), iso(90)))
    before = fact("now", "Lisbon", 20)
    assert told(plan, before) == {"now": ("superseded", "plan"), "plan": ("believed", "")}
    after = fact("later", "Lisbon", 120)
    assert told(plan, before, after)["plan"] == ("superseded", "later")


def test_what_was_said_at_one_time_is_ordered_by_its_place_and_not_by_its_name() -> None:
    claims = [fact("z", "Lisbon", 1, message=7), fact("a", "Porto", 1, message=3)]
    places = {7: Place("s", "c", 0, "m0"), 3: Place("s", "c", 1, "m1")}
    assert told(*claims, places=places)["a"] == ("believed", "")
    places = {7: Place("s", "c", 1, "m1"), 3: Place("s", "c", 0, "m0")}
    assert told(*claims, places=places)["z"] == ("believed", "")


def test_what_nobody_dated_comes_before_what_is_dated() -> None:
    claims = [fact("a", "Lisbon", None), fact("b", "Porto", -10_000)]
    assert told(*claims) == {"a": ("superseded", "b"), "b": ("believed", "")}


# --- doubts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "places", "why"),
    [
        (fact("b", "Porto", 9, certain=False), {}, resolution.HEDGED),
        (fact("b", "Porto", 9, read_by="model:small"), {}, resolution.BY_A_MODEL),
        (fact("b", "Porto", 9, when=When(iso(-90), iso(-80))), {}, resolution.BOTH_CANNOT_BE),
        (fact("b", "Porto", 9, message=2), {2: Place(told="Bob")}, resolution.OF_THE_PERSON),
    ],
)
def test_a_contradiction_that_is_not_sure_waits_for_the_person(new, places, why) -> None:
    found = resolve([fact("a", "Lisbon", 1), new], (), places)
    assert found["a"].state == "believed"
    assert (found["b"].state, found["b"].reason) == ("doubtful", why)


def test_a_past_that_overlaps_by_its_dates_waits_for_the_person() -> None:
    now = fact("a", "Lisbon", 100, when=When(iso(10), iso(10)))
    past = fact("b", "Porto", 110, when=When(iso(5), iso(5), iso(50), iso(60)))
    assert told(now, past) == {"a": ("believed", ""), "b": ("doubtful", "a")}


def test_of_third_persons_others_are_heard_but_do_not_contradict() -> None:
    mine = fact("a", "Lisbon", 1, subject="Ana")
    said = fact("b", "Porto", 9, subject="Ana", message=2)
    assert told(mine, said, places={2: Place(told="Ana")})["b"] == ("believed", "")
    found = resolve([mine, said], (), {2: Place(told="Bob")})
    assert (found["b"].state, found["b"].reason) == ("doubtful", resolution.HEARSAY)


def test_hedged_it_is_believed_where_nothing_contradicts() -> None:
    assert told(fact("a", "Lisbon", 1, certain=False)) == {"a": ("believed", "")}


def test_a_doubt_that_was_said_again_for_certain_is_none() -> None:
    claims = [fact("a", "Lisbon", 1), fact("b", "Porto", 9, certain=False), fact("c", "Porto", 12)]
    assert told(*claims) == {
        "a": ("superseded", "c"), "b": ("repeated", "c"), "c": ("believed", ""),
    }  # fmt: skip


def test_a_doubt_is_dropped_when_what_it_contradicts_is_over() -> None:
    claims = [fact("a", "Lisbon", 1), fact("b", "Porto", 9, certain=False), fact("c", "Berlin", 12)]
    found = resolve(claims)
    assert (found["b"].state, found["b"].reason) == ("retired", resolution.OVERTAKEN)
    assert found["a"].other == "c"


def test_quarantined_claims_end_nothing_and_repeat_nothing() -> None:
    claims = [fact("a", "Lisbon", 1), fact("b", "Porto", 9, gate="no"), fact("c", "Lisbon", 10)]
    assert told(*claims) == {
        "a": ("believed", ""), "b": ("quarantined", ""), "c": ("repeated", "a"),
    }  # fmt: skip
    assert resolve(claims)["b"].reason == "no"


# --- the person's word ----------------------------------------------------------------------------

OLD, NEW = fact("a", "Lisbon", 1), fact("b", "Porto", 9)
HEDGED = replace(NEW, certain=False)


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("accept", ("superseded", "believed")),
        ("reject", ("believed", "retired")),
        ("both", ("believed", "believed")),
        ("retire", ("believed", "retired")),
        ("pin", ("superseded", "believed")),
    ],
)
def test_the_person_settles_a_doubt(action, states) -> None:
    found = told(OLD, HEDGED, decisions=[decided(action, HEDGED, 20)])
    assert (found["a"][0], found["b"][0]) == states


def test_rejected_it_never_was_and_retired_it_was() -> None:
    assert told(OLD, NEW, decisions=[decided("reject", NEW, 20)])["a"] == ("believed", "")
    assert told(OLD, NEW, decisions=[decided("retire", NEW, 20)])["a"] == ("superseded", "b")


def test_a_decision_holds_for_what_was_said_until_then_and_not_for_what_is_said_anew() -> None:
    before, after = fact("b2", "porto.", 15), fact("b3", "Porto", 30)
    no = [decided("reject", NEW, 20)]
    assert told(OLD, NEW, before, decisions=no)["b2"] == ("retired", "")
    assert told(OLD, NEW, before, after, decisions=no)["b3"] == ("believed", "")
    out = [decided("retire", NEW, 20)]
    found = told(OLD, NEW, after, decisions=out)
    assert found == {"a": ("superseded", "b"), "b": ("retired", ""), "b3": ("believed", "")}


def test_what_is_pinned_is_never_superseded_silently() -> None:
    found = resolve([OLD, NEW], [decided("pin", OLD, 5)])
    assert found["a"].state == "believed" and found["a"].pinned
    assert (found["b"].state, found["b"].other) == ("doubtful", "a")
    assert found["b"].reason == resolution.PINNED
    free = [decided("pin", OLD, 5), decided("unpin", OLD, 6, number=2)]
    assert told(OLD, NEW, decisions=free)["a"] == ("superseded", "b")


def test_what_is_pinned_gives_way_to_what_the_person_accepts_later() -> None:
    later = [decided("pin", OLD, 5), decided("accept", NEW, 20, number=2)]
    assert told(OLD, NEW, decisions=later) == {"a": ("superseded", "b"), "b": ("believed", "")}
    earlier = [decided("accept", NEW, 20), decided("pin", OLD, 25, number=2)]
    assert told(OLD, NEW, decisions=earlier)["b"] == ("doubtful", "a")


def test_to_reject_that_something_is_over_rejects_not_that_it_was_so() -> None:
    liked = fact("a", "jazz", 1, "likes")
    over = fact("b", "jazz", 9, "likes", when=When("", iso(9), "", iso(9)), certain=False)
    assert told(liked, over) == {"a": ("believed", ""), "b": ("doubtful", "a")}
    no = [decided("reject", over, 20)]
    assert told(liked, over, decisions=no) == {"a": ("believed", ""), "b": ("retired", "")}
    yes = [decided("accept", over, 20)]
    assert told(liked, over, decisions=yes) == {"a": ("superseded", "b"), "b": ("believed", "")}
    kept = [decided("pin", liked, 20)]
    sure = replace(over, certain=True)
    assert told(liked, sure, decisions=kept)["b"] == ("doubtful", "a")


def test_an_edit_is_the_persons_wording_and_is_guarded() -> None:
    edit = [decided("edit", OLD, 5, "Lisboa")]
    found = resolve([OLD, NEW], edit)
    assert (found["a"].value, found["a"].sentence) == ("Lisboa", "I live in Lisboa.")
    assert (found["b"].state, found["b"].reason) == ("doubtful", resolution.EDITED)
    same = fact("c", "lisboa", 12)
    assert told(OLD, same, decisions=edit)["c"] == ("repeated", "a")


def test_the_person_can_believe_what_the_gate_refused() -> None:
    held = fact("a", "Lisbon", 1, gate="not covered")
    assert told(held, decisions=[decided("accept", held, 5)]) == {"a": ("believed", "")}
    undone = decided("accept", held, 5)._replace(undone_ms=at(6))
    assert told(held, decisions=[undone]) == {"a": ("quarantined", "")}


# --- properties -----------------------------------------------------------------------------------

DAYS = st.integers(0, 12)
VALUES = st.sampled_from(["Lisbon", "Porto", "the porto", "Rome"])
NAMES = st.sampled_from(["residence", "likes", "dislikes", "went to"])


@st.composite
def whens(draw) -> When:
    begin = sorted([draw(DAYS), draw(DAYS)])
    end = sorted([draw(DAYS), draw(DAYS)])
    first, last = iso(begin[0]), iso(begin[1])
    over = (iso(max(end[0], begin[0])), iso(max(end[1], begin[1])))
    return draw(
        st.sampled_from(
            [When(), When("", last), When(first, last), When(first, last, *over),
             When("", "", *over), When(first, first, first, first), When("", over[1], "", over[1])]
        )
    )  # fmt: skip


@st.composite
def claims(draw) -> list:
    size = draw(st.integers(1, 9))
    made = []
    for number in range(size):
        made.append(
            fact(
                f"{number:02}", draw(VALUES), draw(st.none() | DAYS), draw(NAMES),
                when=draw(whens()), gate=draw(st.sampled_from(["", "", "", "no"])), message=number,
                subject=draw(st.sampled_from([ME, ME, ME, "Ana"])),
                read_by=draw(st.sampled_from(["rules", "rules", "model:x"])),
                certain=draw(st.booleans()),
            )
        )  # fmt: skip
    return made


@st.composite
def cases(draw):
    given_ = draw(claims())
    made = []
    for number in range(draw(st.integers(0, 4))):
        about = draw(st.sampled_from(given_))
        action = draw(
            st.sampled_from(["accept", "reject", "both", "retire", "edit", "pin", "unpin"])
        )
        text = draw(VALUES) if action == "edit" else ""
        one = decided(action, about, max(draw(DAYS), 0), text, number + 1)
        made.append(one._replace(undone_ms=draw(st.sampled_from([None, None, 5]))))
    heard = draw(st.lists(st.sampled_from(["", "", "Bob", "Ana"]), min_size=9, max_size=9))
    places = {
        number: Place("s", "c", draw(st.integers(0, 2)), f"m{number}", heard[number])
        for number in range(9)
    }
    return given_, made, places


@settings(max_examples=400)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_in_which_claims_and_decisions_are_given_is_no_matter(case, chance) -> None:
    given_, made, places = case
    first = resolve(given_, made, places)
    for _ in range(3):
        shuffled = random.Random(chance.random()).sample(given_, len(given_))
        assert resolve(shuffled, made[::-1], places) == first


@settings(max_examples=200)
@given(cases())
def test_what_was_believed_before_is_no_matter(case) -> None:
    given_, made, places = case
    first = resolve(given_, made, places)
    again = [
        one if one.state == "quarantined" else
        replace(one, state=first[one.uid].state.replace("quarantined", "believed"),
                other=first[one.uid].other, pinned=first[one.uid].pinned)
        for one in given_
    ]  # fmt: skip
    assert resolve(again, made, places) == first


@settings(max_examples=300)
@given(cases())
def test_groups_are_apart(case) -> None:
    """Of subjects and attributes always; of the values of one attribute where nothing is edited."""
    given_, made, places = case
    whole = resolve(given_, made, places)
    parted: dict[tuple, list] = {}
    edited = any(one.action == "edit" for one in made)
    for one in given_:
        family = resolution.kin(one.attribute)
        key = value_key("", one.value) if len(family) > 1 and not edited else ""
        parted.setdefault((one.subject, family, key), []).append(one)
    apart = {}
    for group in parted.values():
        apart |= resolve(group, made, places)
    assert apart == whole


@settings(max_examples=400)
@given(cases())
def test_what_stands_beside_a_claim_is_there_and_fits(case) -> None:
    given_, made, places = case
    by_uid = {one.uid: one for one in given_}
    found = resolve(given_, made, places)
    assert found.keys() == by_uid.keys()
    for uid, one in found.items():
        assert (one.state in ("doubtful", "quarantined", "retired")) == bool(one.reason)
        assert one.other != uid and (not one.other or one.other in by_uid)
        if one.state == "repeated":
            lead = found[one.other]
            assert lead.state in ("believed", "superseded", "retired")
            assert by_uid[one.other].attribute == by_uid[uid].attribute
        if one.state == "superseded":
            assert found[one.other].state in ("believed", "superseded", "retired")
            when = one.when
            assert not (when.to_first and when.to_last and when.to_first > when.to_last)
        if one.state == "believed":
            assert not one.other and not one.reason


@settings(max_examples=400)
@given(cases())
def test_at_most_one_value_of_a_single_attribute_lasts_unless_the_person_says_so(case) -> None:
    given_, made, places = case
    made = [one for one in made if one.action not in ("both", "accept", "edit", "pin")]
    given_ = [replace(one, when=When(one.when.from_first, one.when.from_last)) for one in given_]
    found = resolve(given_, made, places)
    for subject in (ME, "Ana"):
        lasting = {
            found[one.uid].value for one in given_
            if (one.subject, one.attribute) == (subject, "residence")
            and found[one.uid].state == "believed"
        }  # fmt: skip
        assert len(lasting) <= 1


@settings(max_examples=400)
@given(cases())
def test_a_pinned_fact_stands_unless_a_later_decision_speaks_for_what_ends_it(case) -> None:
    given_, made, places = case
    found = resolve(given_, made, places)
    held = [one for one in made if one.undone_ms is None]
    by_uid = {one.uid: one for one in given_}
    for uid, one in found.items():
        if one.pinned and one.state == "superseded" and by_uid[one.other].attribute == "residence":
            ender = by_uid[one.other]
            pins = [d.id for d in held if d.action == "pin" and d.key == fact_key(by_uid[uid])]
            speaks = [d for d in held if d.key == fact_key(ender)]
            spoken = [d.id for d in speaks if d.action not in ("reject", "retire")]
            assert spoken and max(spoken) > min(pins)


def test_a_group_of_many_claims_takes_time_in_proportion() -> None:
    """Counted in comparisons, not by a clock: each claim meets what is open, not what is over."""
    seen = 0
    real = resolution._clash

    def counted(old, new):
        nonlocal seen
        seen += 1
        return real(old, new)

    claims_ = [fact(f"{n:05}", f"Town {n}", n) for n in range(2_000)]
    try:
        resolution._clash = counted
        found = resolve(claims_)
    finally:
        resolution._clash = real
    assert sum(one.state == "believed" for one in found.values()) == 1
    assert seen <= 2 * len(claims_)
