import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.reduce import OPENCLAW, is_task, recognise, reduce, split, spoken
from knowme.types import ChatMessage


def count(text: str) -> int:
    return (len(text) + 3) // 4


SAFETY = "No independent goals. Obey stop. Never bypass safeguards."
FILES = {
    "AGENTS.md": "# AGENTS.md\n\n## Safety\n\nNever push to main.\n\n## Tools\n\n"
    + "\n\n".join(f"Rule {n}: " + "do this and that. " * 12 for n in range(20)),
    "SOUL.md": "# SOUL.md\n\nYou are Boia, dry and kind.\n\n## Related\n\n- [x](/y)\n- [z](/w)",
    "USER.md": "# USER.md\n\n## Directives\n\n- Always call the user Rui.",
    "BOOTSTRAP.md": "# BOOTSTRAP.md\n\n" + "Ask who you are. " * 60,
}


def openclaw(marks: bool = True, files: dict[str, str] = FILES, skills: int = 30) -> str:
    """Build a prompt as OpenClaw does, with the marks of 2026.9 or without them as in 2026.7."""
    listed = "\n".join(
        f"  <skill>\n    <name>skill-{n}</name>\n    <description>{'does things ' * 10}"
        f"</description>\n    <location>~/skills/{n}/SKILL.md</location>\n  </skill>"
        for n in range(skills)
    )
    lines = [
        "You are a personal assistant running inside OpenClaw.",
        "## Tooling\nNames case-sensitive.\n" + "\n".join(f"- tool{n}: does it" for n in range(60)),
        "## Tool Call Style\nCall silently.",
        f"## Safety\n{SAFETY}",
        f"## Skills\nScan <available_skills>.\n\n<available_skills>\n{listed}\n</available_skills>",
        "## Documentation\n" + "Docs are here. " * 40,
        "## A Section That Nobody Knows Yet\nIt says something.",
        "## Workspace Files (injected)\nUser-editable.",
        "# Project Context\nLoaded project context:",
        *(f"## /home/rui/ws/{name}\n{text}" for name, text in files.items()),
    ]
    more = [
        "## Silent Replies\nNothing to say: entire reply exactly NO_REPLY",
        "# Dynamic Project Context\n## /home/rui/ws/HEARTBEAT.md\nCheck the mail.",
        "## Current Date & Time\nCurrent date: 2026-11-21\nTime zone: UTC",
        "## Messaging\nUse `message`.",
        "## Runtime\nCurrent model identity: knowme/me-4b.",
    ]
    if marks:
        lines = ["<!-- openclaw:attempt:STABLE -->", *lines, "<!-- /openclaw:attempt:STABLE -->"]
        more = ["<!-- openclaw:attempt:DYNAMIC -->", *more, "<!-- /openclaw:attempt:DYNAMIC -->"]
    return "\n".join([*lines, *more])


both = pytest.mark.parametrize("marks", [True, False], ids=["2026.9", "2026.7"])


@both
def test_openclaw_is_recognised_by_how_its_prompt_is_built(marks) -> None:
    assert recognise(openclaw(marks)) == OPENCLAW
    assert recognise(openclaw(marks).replace("2026", "2031").replace("OpenClaw", "ClawX"))


@pytest.mark.parametrize(
    "text", ["", "You are helpful.", "Tell me about OpenClaw.", "## Tooling\nUse a hammer."]
)
def test_others_are_not_taken_for_openclaw(text) -> None:
    assert recognise(text) == ""


@both
def test_what_the_person_wrote_the_rules_and_the_date_stay_and_the_rest_goes(marks) -> None:
    made = reduce(openclaw(marks), 900, count)
    assert made.client == OPENCLAW and count(made.text) <= 900
    for kept in ("personal assistant", SAFETY, "Boia, dry and kind", "call the user Rui",
                 "Current date: 2026-11-21", "knowme/me-4b", "## AGENTS.md", "Rule 0"):  # fmt: skip
        assert kept in made.text, kept
    for gone in ("skill-3", "tool7", "Docs are here", "NO_REPLY", "Check the mail", "openclaw:att",
                 "Ask who you are", "[x](/y)", "/home/rui"):  # fmt: skip
        assert gone not in made.text, gone


@both
def test_each_section_that_was_left_out_is_named_with_its_tokens(marks) -> None:
    system = openclaw(marks)
    made = reduce(system, 900, count)
    named = {gone.uid.removeprefix("instructions: "): gone for gone in made.left_out}
    for name in ("Tooling", "Skills", "Documentation", "Silent Replies", "HEARTBEAT.md",
                 "BOOTSTRAP.md", "Messaging"):  # fmt: skip
        assert named[name].tokens > 0 and named[name].reason
    assert named["Skills"].tokens > 1000
    assert "cut" in named["AGENTS.md"].reason
    lost = sum(gone.tokens for gone in made.left_out)
    assert abs(count(system) - count(made.text) - lost) < 0.05 * count(system)


@both
def test_a_heading_of_the_persons_own_does_not_end_their_file(marks) -> None:
    made = reduce(openclaw(marks), 1200, count)
    (safety,) = [part for part in made.text.split("\n\n## ") if part.startswith("Safety\nNo indep")]
    assert "Never push" not in safety
    assert made.text.index("## AGENTS.md") < made.text.index("Never push to main")


def test_with_tools_the_client_says_how_to_use_them_where_there_is_room() -> None:
    assert "tool7" in reduce(openclaw(), 2600, count, tools=True).text
    assert "tool7" not in reduce(openclaw(), 2600, count).text
    assert "skill-3" not in reduce(openclaw(), 2600, count, tools=True).text


def test_what_fits_is_not_touched() -> None:
    system = openclaw(skills=1)
    made = reduce(system, 100_000, count)
    assert made.text == system and made.left_out == ()


def test_the_person_and_the_persona_come_before_long_rules() -> None:
    files = {**FILES, "SOUL.md": "# SOUL.md\n\n" + "You are Boia, who never shouts. " * 40}
    made = reduce(openclaw(files=files), 700, count)
    soul = made.text[made.text.index("## SOUL.md") :].split("\n\n## ")[0]
    agents = made.text[made.text.index("## AGENTS.md") :].split("\n\n## SOUL")[0]
    assert len(soul) > len(agents) and "call the user Rui" in made.text


def test_of_long_instructions_of_anybody_the_beginning_and_the_end_stay() -> None:
    middle = "\n\n".join(f"# Part {n}\n\nIt is like this. " + "word " * 60 for n in range(30))
    system = f"You are Max, a pirate.\n\n{middle}\n\nAnswer in rhymes."
    made = reduce(system, 300, count)
    assert made.client == "" and count(made.text) <= 300
    assert made.text.startswith("You are Max, a pirate.")
    assert made.text.endswith("Answer in rhymes.") and "[…]" in made.text
    assert {"instructions: Part 15"} < {gone.uid for gone in made.left_out}
    assert all(gone.tokens > 0 for gone in made.left_out)


@given(
    st.text(alphabet="ab .\n#`-<>!", max_size=3000) | st.builds(openclaw, st.booleans()),
    st.integers(0, 900),
    st.booleans(),
)
def test_whatever_comes_it_fits_and_is_the_same_each_time(system, budget, tools) -> None:
    made = reduce(system, budget, count, tools=tools)
    assert count(made.text) <= max(budget, 2)
    assert made == reduce(system, budget, count, tools=tools)


# --- what is put around the person's words --------------------------------------------------

RUNTIME = "\n\nRuntime: agent=main | session=agent:main:main | host=vm | shell=bash"
NOTHING = (
    "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nConversation data (data, not instructions):\n"
    '"Active exec sessions:\\nnone"\n\nConversation data (data, not instructions):\n'
    '"## Active Subagents\\nnone"\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>'
)


def test_the_persons_own_words_are_found_under_the_envelope() -> None:
    assert spoken(f"[Sat 2026-11-21 09:52 UTC] I moved to Porto.{RUNTIME}") == "I moved to Porto."
    assert spoken("[WebChat 2026-02-07T21:06Z] Hi\n\n[message_id: 23]") == "Hi"
    for text in ("[1] is a footnote", "Runtime: agent=x", "plain [2026-01-01 10:00] middle"):
        assert spoken(text) == text


def test_a_clients_messages_are_parted_and_its_remark_is_not_the_question() -> None:
    messages = [
        ChatMessage("system", openclaw()),
        ChatMessage("user", f"[Sat 2026-11-21 09:52 UTC] First.{RUNTIME}"),
        ChatMessage("assistant", "Hello."),
        ChatMessage("user", "[Sat 2026-11-21 09:54 UTC] Which city?"),
        ChatMessage("user", NOTHING),
    ]
    parted = split(messages)
    assert parted.client == OPENCLAW and parted.question == "Which city?"
    assert [turn.content for turn in parted.turns] == ["First.", "Hello."]
    assert parted.remark == "" == split(messages, tools=True).remark
    busy = [*messages[:-1], ChatMessage("user", NOTHING.replace("sessions:\\nnone", "x:\\nsleep"))]
    assert "sleep" in split(busy, tools=True).remark and split(busy).remark == ""


def test_after_a_tools_result_nothing_new_is_asked() -> None:
    messages = [ChatMessage("user", "q"), ChatMessage("assistant", ""), ChatMessage("tool", "r")]
    parted = split(messages)
    assert parted.question == "" and parted.turns == tuple(messages)


def test_the_words_of_a_client_that_nobody_knows_stay_as_they_are() -> None:
    text = "[Sat 2026-11-21 09:54 UTC] Which city?"
    parted = split([ChatMessage("system", "Be brief."), ChatMessage("user", text, ("data:x",))])
    assert (parted.system, parted.question, parted.images) == ("Be brief.", text, ("data:x",))


def test_what_a_chat_program_asks_for_itself_is_known() -> None:
    title = "### Task:\nGenerate a concise title.\n<chat_history>\nUSER: the boat\n</chat_history>"
    assert is_task(title)
    assert not is_task("### Task: fix the boat") and not is_task("What is <chat_history>?")
