from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from knowme.compress import Summary, fair_shares, shorten, summarise
from knowme.fiction.build import exchanges


@dataclass(frozen=True)
class Said:
    role: str
    text: str
    message_id: int = 0


def count(text: str) -> int:
    return len(text.split())


def letters(text: str) -> int:
    return (len(text) + 3) // 4


TALK = [
    Said("user", "Hello! How are you?", 1),
    Said("assistant", "I am fine. How can I help you today?", 2),
    Said("user", "I decided to sell the boat. My sister Ana will take it on 3 May.", 3),
    Said("assistant", "That sounds like a good plan. Shall I remind you?", 4),
    Said("user", "Yes please. What is the weather like?", 5),
    Said("assistant", "It rains in Porto, 14 degrees.", 6),
]


def test_what_the_person_said_of_themselves_is_kept_and_small_talk_is_not() -> None:
    made = summarise(TALK, 30, count)
    assert "- the person: I decided to sell the boat." in made.text
    assert "- the person: My sister Ana will take it on 3 May." in made.text
    assert "Hello" not in made.text and "How can I help" not in made.text


def test_each_line_rests_on_the_message_that_said_it_and_they_stand_in_the_order_of_time() -> None:
    made = summarise(TALK, 60, count)
    lines = made.text.splitlines()
    assert len(lines) == len(made.because)
    assert list(made.because) == sorted(made.because)
    texts = {said.message_id: said.text for said in TALK}
    for line, (message_id,) in zip(lines, made.because, strict=True):
        assert line.partition(": ")[2] in texts[message_id]


def test_nothing_is_worded_anew() -> None:
    whole = " ".join(said.text for said in TALK)
    for line in summarise(TALK, 200, count).text.splitlines():
        assert line.partition(": ")[2] in whole


def test_the_newest_of_two_facts_of_the_same_weight_wins() -> None:
    talk = [Said("user", f"I moved to house number {n}.", n) for n in range(1, 9)]
    assert summarise(talk, 12, count).because == ((8,),)


def test_what_is_said_again_is_kept_once_in_its_newer_words() -> None:
    talk = [
        Said("user", "I always drink my coffee black without sugar.", 1),
        Said("user", "My brother Tiago lives in Braga.", 2),
        Said("user", "I always drink my coffee black, without any sugar.", 3),
    ]
    assert summarise(talk, 100, count).because == ((2,), (3,))


def test_a_summary_goes_on_from_the_one_before_and_keeps_what_it_rests_on() -> None:
    before = summarise(TALK, 40, count)
    more = [
        Said("user", "Nice, ok.", 7),
        Said("assistant", "Anything else?", 8),
        Said("user", "I bought a bicycle for 400 euros from Marta.", 9),
    ]
    after = summarise(more, 40, count, before)
    assert "bicycle" in after.text and "sell the boat" in after.text
    assert after.because[-1] == (9,) and (3,) in after.because


def test_a_summary_whose_messages_nobody_knows_is_taken_as_text() -> None:
    after = summarise([], 40, count, "- the person: I sold the boat.\nrubbish")
    assert after == Summary("- the person: I sold the boat.", ((),))


def test_a_very_long_sentence_takes_a_third_at_most() -> None:
    long = Said("user", "I decided that " + "word " * 500, 1)
    made = summarise([long, Said("user", "My dog is called Bolt.", 2)], 150, count)
    assert made.because == ((1,), (2,)) and "[…]" in made.text and count(made.text) <= 65


said = st.builds(
    Said,
    st.sampled_from(["user", "assistant", "tool"]),
    st.text(alphabet="abc I.?!\n-:5é", max_size=120) | st.sampled_from([t.text for t in TALK]),
    st.integers(1, 99),
)


@given(st.lists(said, max_size=30), st.integers(0, 120), st.sampled_from([count, letters]))
def test_a_summary_never_exceeds_its_budget_and_is_the_same_each_time(
    talk, budget, counted
) -> None:
    made = summarise(talk, budget, counted)
    assert counted(made.text) <= budget
    assert len(made.text.splitlines()) == len(made.because)
    assert made == summarise(talk, budget, counted)


@given(st.lists(st.lists(said, max_size=8), max_size=6), st.integers(0, 90))
def test_going_on_again_and_again_stays_within_the_budget(blocks, budget) -> None:
    made = Summary()
    ids: set[int] = set()
    for block in blocks:
        ids |= {each.message_id for each in block}
        made = summarise(block, budget, count, made)
        assert count(made.text) <= budget
        assert set(made.messages) <= ids
        assert len(made.text.splitlines()) == len(made.because)


def test_of_a_life_told_in_a_chat_more_facts_are_kept_than_of_its_first_or_last_words() -> None:
    """The measure: sentences of the person about themselves with a name or a number in them."""
    talk: list[Said] = []
    for each in exchanges()[:60]:
        for role, texts in (("user", [each.words]), ("assistant", each.answers)):
            talk += [Said(role, text, len(talk) + 1) for text in texts]
    budget = 300

    def telling(text: str) -> int:
        return sum(
            line.startswith("- the person: ") and any(c.isdigit() or c.isupper() for c in line[16:])
            for line in text.splitlines()
        )

    lines = [f"- {'the person' if s.role == 'user' else 'the assistant'}: {s.text}" for s in talk]
    first, last = "\n".join(lines), "\n".join(reversed(lines))
    made = summarise(talk, budget, letters)
    cut = [shorten(text, budget, letters) for text in (first, last)]
    assert telling(made.text) > 1.5 * max(map(telling, cut))


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 200))
def test_shares_are_fair(needs, budget) -> None:
    shares = fair_shares(needs, budget)
    assert sum(shares) <= budget
    assert all(share <= need for share, need in zip(shares, needs, strict=True))
    assert sum(shares) == min(budget, sum(needs)) or sum(shares) >= budget - len(needs)
    for need, share in zip(needs, shares, strict=True):
        if share < need:  # whoever is cut has no less than anybody else, but for a rest of one
            assert share >= max(shares) - 1
