"""What a client sends, cut to what a small window bears: its system prompt, its envelopes.

An agent such as OpenClaw sends tens of thousands of characters before the first question: how to
call its tools, lists of skills, and among them what the person wrote down for their assistant.

Promises: pure; a client is recognised by how its prompt is built, not by its version; the result
fits its budget; the same prompt is cut in the same way; every section left out is named with its
tokens. What fits is not touched.
Refuses to know: which model will read it, who the client is beyond how it writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from knowme.compress import Count, fair_shares, shorten
from knowme.types import ChatMessage, Dropped

OPENCLAW = "openclaw"
_SIGNS = (
    re.compile(r"^<!-- openclaw:", re.MULTILINE),
    re.compile(r"\brunning inside OpenClaw\b"),
    re.compile(r"^## Tooling\s*$", re.MULTILINE),
    re.compile(r"^# Project Context\s*$", re.MULTILINE),
    re.compile(r"^## Workspace Files \(injected\)\s*$", re.MULTILINE),
    re.compile(r"^<available_skills>\s*$", re.MULTILINE),
    re.compile(r"^## (?:.*[/\\])?(?:AGENTS|SOUL|USER|IDENTITY)\.md\s*$", re.MULTILINE),
)
ENOUGH_SIGNS = 3

_FILES_BEGIN = re.compile(r"^# (?:Dynamic )?Project Context\s*$")
_FILE = re.compile(r"^## (?:.*[/\\])?([\w.-]+\.md)\s*$", re.IGNORECASE)
_MARK = re.compile(r"^<!-- /?openclaw:\S+ -->$")
_STABLE_ENDS = re.compile(r"^<!-- /openclaw:\S*STABLE -->$")
"""Where a prompt has this mark, nothing but files stands between their beginning and it."""
_HEADING = re.compile(r"^(#{1,3}) +(\S.*)$")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_RELATED = re.compile(r"^## Related\s*\n(?:(?!#).*\n?)*", re.MULTILINE)

KEPT = frozenset(
    "safety,temporal context,current date & time,current date,date & time,runtime,group chat"
    " context,subagent context,user identity,authorized senders".split(",")
)
"""Its own sections that any model should read: what it may not do, when and where it is."""
FOR_TOOLS = frozenset(
    "tooling,tool call style,execution bias,tool availability,workspace,memory recall,messaging"
    ",promised work,runtime context".split(",")
)
"""Of use to a model that is given the tools."""
LEFT = frozenset(
    "skills,skill workshop,documentation,openclaw control,openclaw self-update,openclaw cli quick"
    " reference,bootstrap pending,workspace files (injected),assistant output directives,silent"
    " replies,heartbeats,ui presentation,delegation,conversation context,reply tags,voice (tts)"
    ",sandbox,reactions,reasoning format,model aliases".split(",")
)
OWN = KEPT | FOR_TOOLS | LEFT
NOT_READ = frozenset({"heartbeat.md", "bootstrap.md"})
"""Workspace files that are orders to an agent with tools, not instructions to a model."""
FIRST = frozenset({"user.md", "soul.md", "identity.md", "memory.md"})
"""Workspace files about the person and the persona: they get the larger part of the room."""
LEAST = 16
GAP = "[…]"


@dataclass(frozen=True, slots=True)
class Reduced:
    """A system prompt as it fits, and each section that was left out of it or cut."""

    text: str
    left_out: tuple[Dropped, ...] = ()
    client: str = ""


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    text: str
    kind: str  # intro, own, file


def recognise(system: str) -> str:
    """Return who wrote a system prompt: "openclaw", or "" for nobody we know."""
    signs = sum(sign.search(system) is not None for sign in _SIGNS)
    return OPENCLAW if signs >= ENOUGH_SIGNS else ""


def reduce(system: str, budget_tokens: int, count: Count, *, tools: bool = False) -> Reduced:
    """Cut a client's system prompt to ``budget_tokens``; one that fits stays as it is.

    Of a prompt that is recognised stay its first words, the person's workspace files, its rules of
    safety, the date and the line about where it runs; with ``tools``, how to use them, as far as
    there is room. Of any other, the beginning and the end.
    """
    client = recognise(system)
    if count(system) <= budget_tokens:
        return Reduced(system, (), client)
    if client == OPENCLAW:
        text, left_out = _openclaw(_sections(system), budget_tokens, count, tools)
    else:
        text, left_out = _ends(system, budget_tokens, count, "instructions")
    if count(text) > budget_tokens:  # tokens of parts do not always add up
        text = shorten(text, max(0, budget_tokens - 3), count)
    return Reduced(text, tuple(left_out), client)


# --- OpenClaw's ---------------------------------------------------------------------------------


def _sections(system: str) -> list[_Section]:
    """Cut the prompt at its own headings; a workspace file is one section, headings and all."""
    lines = system.splitlines()
    starts = _starts(lines)
    cuts = [*(at for at, _, _ in starts), len(lines)]
    found: list[_Section] = []
    for (at, title, kind), end in zip(starts, cuts[1:], strict=True):
        body = [line for line in lines[at:end] if not _MARK.match(line)]
        text = "\n".join(body if kind == "intro" else body[1:]).strip()
        if kind == "file":
            text = _RELATED.sub("", _FRONT.sub("", f"{text}\n")).strip()
        if text:
            found.append(_Section(title, text, kind))
    return found


def _starts(lines: Sequence[str]) -> list[tuple[int, str, str]]:
    starts = [(0, "beginning", "intro")]
    in_files = False
    for at, line in enumerate(lines):
        heading = _HEADING.match(line)
        file = _FILE.match(line)
        if _FILES_BEGIN.match(line):
            in_files = True
            starts.append((at, "Project Context", "own"))
        elif in_files and file:
            starts.append((at, file[1], "file"))
        elif in_files and _ends_files(lines, at, line):
            in_files = False
            starts.append((at, heading[2].strip() if heading else "", "own"))
        elif not in_files and heading and len(heading[1]) <= 2:
            starts.append((at, heading[2].strip(), "own"))
    return starts


def _ends_files(lines: Sequence[str], at: int, line: str) -> bool:
    """Tell whether the files end here: a file may well have a heading "Safety" of its own."""
    if _MARK.match(line):
        return True
    heading = _HEADING.match(line)
    if heading is None or len(heading[1]) > 2 or heading[2].strip().lower() not in OWN:
        return False
    for later in lines[at + 1 :]:
        if _FILES_BEGIN.match(later):
            return True
        if _FILE.match(later) or _STABLE_ENDS.match(later):
            return False
    return True


def _openclaw(
    sections: Sequence[_Section], budget: int, count: Count, tools: bool
) -> tuple[str, list[Dropped]]:
    ranks = [_rank(section, tools) for section in sections]
    texts: dict[int, str] = {}
    cut: dict[int, list[Dropped]] = {}
    left = budget
    for rank in (0, 1, 2, 1, 3):  # the files of rank 1 once more, with what those of 2 left over
        mine = [i for i, each in enumerate(ranks) if each == rank]
        left += sum(count(texts.pop(i)) + 2 for i in mine if i in texts)
        others = any(ranks[i] == 2 for i in texts)
        room = left * 3 // 4 if rank == 1 and not others else left
        needs = [count(_shown(sections[i], sections[i].text)) + 2 for i in mine]
        if rank == 0:
            needs = [min(need, max(budget // 8, LEAST)) for need in needs]
        for i, share in zip(mine, fair_shares(needs, room), strict=True):
            texts[i], cut[i] = _fit(sections[i], share - 2, count)
            left -= count(texts[i]) + 2 if texts[i] else 0
            if not texts[i]:
                del texts[i]
    left_out: list[Dropped] = []
    for i, section in enumerate(sections):
        if i in texts:
            left_out += cut[i]
        else:
            reason = _reason(section, ranks[i])
            left_out.append(Dropped(_title(section), count(section.text), reason))
    return "\n\n".join(texts[i] for i in sorted(texts)), left_out


def _rank(section: _Section, tools: bool) -> int:
    """Return 0 for what must stay, 1 and 2 for files, 3 for what may, 9 for what goes."""
    name = section.title.lower()
    if section.kind == "intro" or name in KEPT:
        return 0
    if section.kind == "file":
        return 9 if name in NOT_READ else 1 if name in FIRST else 2
    if name in FOR_TOOLS:
        return 3 if tools else 9
    return 9 if name in LEFT or name == "project context" else 3


def _reason(section: _Section, rank: int) -> str:
    if rank != 9:
        return "no room left in the budget of the instructions"
    if section.title.lower() in FOR_TOOLS:
        return "of use only with the client's tools"
    return "not meant for a model of this size"


def _title(section: _Section) -> str:
    return f"instructions: {section.title}"


def _shown(section: _Section, text: str) -> str:
    return text if section.kind == "intro" else f"## {section.title}\n{text}"


def _fit(section: _Section, room: int, count: Count) -> tuple[str, list[Dropped]]:
    whole = _shown(section, section.text)
    if count(whole) <= room:
        return whole, []
    inner = room - count(_shown(section, "")) - 1
    if inner < LEAST:
        return "", []
    text, _ = _ends(section.text, inner, count, section.title)
    lost = max(0, count(section.text) - count(text))
    return _shown(section, text), [
        Dropped(_title(section), lost, "cut to the budget of the instructions")
    ]


# --- any other ----------------------------------------------------------------------------------


def _ends(text: str, budget: int, count: Count, name: str) -> tuple[str, list[Dropped]]:
    """Keep the first and the last paragraphs that fit, in turn; the middle goes."""
    blocks = _blocks(text)
    costs = [count(block) + 1 for block in blocks]
    left = budget - count(GAP) - 2
    first, last = 0, len(blocks)
    while first < last:
        side = first if first <= len(blocks) - last else last - 1
        if costs[side] > left:
            break
        left -= costs[side]
        first, last = (first + 1, last) if side == first else (first, side)
    kept = list(blocks[:first])
    if first < last and left >= LEAST or not first:  # of the next one as many sentences as fit
        kept.append(shorten(blocks[first], max(left - 4, 1), count))
    if first < last and kept[-1] in blocks:
        kept.append(GAP)
    return "\n\n".join([*kept, *blocks[last:]]), _dropped(blocks, costs, first, last, name)


def _blocks(text: str) -> list[str]:
    """Cut at blank lines, but not in a fenced piece of code; a heading stays with what follows."""
    blocks: list[list[str]] = [[]]
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        alone = len(blocks[-1]) == 1 and _HEADING.match(blocks[-1][0])
        if not line.strip() and not fenced and not alone:
            blocks.append([])
        elif line.strip() or fenced:
            if _HEADING.match(line) and not fenced and blocks[-1]:
                blocks.append([])
            blocks[-1].append(line)
    return ["\n".join(block) for block in blocks if block]


def _dropped(
    blocks: Sequence[str], costs: Sequence[int], first: int, last: int, name: str
) -> list[Dropped]:
    """Name what is gone by its headings; under one heading once."""
    found: list[Dropped] = []
    under = name
    for at, block in enumerate(blocks[:last]):
        if heading := _HEADING.match(block.partition("\n")[0]):
            under = f"{name}: {heading[2].strip()}"
        if at < first:
            continue
        if found and found[-1].uid == under:
            found[-1] = replace(found[-1], tokens=found[-1].tokens + costs[at])
        else:
            found.append(Dropped(under, costs[at], "the middle of long instructions"))
    return found


# --- what a client puts around the person's words -----------------------------------------------

_ENVELOPE = re.compile(
    r"\A\[(?:[A-Z][^\[\]\n]{0,80} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?[^\[\]\n]{0,24}\] ?"
)
_TRAILER = re.compile(r"\n\n(?:Runtime: agent=[^\n]*\|[^\n]*|\[message_id: [^\]\n]*\])\s*\Z")
_INTERNAL = re.compile(
    r"<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>.*?(?:<<<END_OPENCLAW_INTERNAL_CONTEXT>>>|\Z)\s*",
    re.DOTALL,
)
_NOTHING = re.compile(r'(?:\\n|[:\n])\s*none"?\s*$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Split:
    """The messages of a client that keeps its conversation itself, by what they are.

    ``question`` is what the person says now, without envelopes. It is "" when the last message is a
    tool's result: then nothing new is asked, and ``turns`` hold all. ``remark`` is what a client
    tells a model beside the question, of its own running work.
    """

    system: str
    client: str
    turns: tuple[ChatMessage, ...]
    question: str
    images: tuple[str, ...] = ()
    remark: str = ""


def split(messages: Sequence[ChatMessage], *, tools: bool = False) -> Split:
    """Part a client's messages: its instructions, the earlier turns, the question, its remark.

    A known client's envelopes are taken off the person's words. Its remark is kept only where the
    model has the ``tools`` for it.
    """
    system = "\n\n".join(each.content for each in messages if each.role == "system")
    client = recognise(system)
    rest = [each for each in messages if each.role != "system"]
    remarks: list[str] = []
    if client == OPENCLAW:
        remarks = [each.content for each in rest if is_internal(each) and _tells(each.content)]
        rest = [replace(each, content=spoken(each.content)) if each.role == "user" else each
                for each in rest if not is_internal(each)]  # fmt: skip
    remark = remarks[-1] if remarks and tools else ""
    if not rest or rest[-1].role != "user":
        return Split(system, client, tuple(rest), "", (), remark)
    return Split(system, client, tuple(rest[:-1]), rest[-1].content, rest[-1].images, remark)


def spoken(text: str) -> str:
    """Return the person's own words of a message that OpenClaw sends."""
    text = _INTERNAL.sub("", text)
    while (cut := _TRAILER.sub("", text)) != text:
        text = cut
    return _ENVELOPE.sub("", text)


_TASK = re.compile(r"\A\s*#{2,4} ?Task:.*<chat_history>", re.DOTALL | re.IGNORECASE)


def is_task(text: str) -> bool:
    """Tell whether a chat program asks for itself (a title, tags), with the chat in its prompt.

    Nobody said that, and it holds the words of the whole conversation: it is neither remembered
    nor sent away.
    """
    return _TASK.match(text) is not None


def is_internal(message: ChatMessage) -> bool:
    """Tell whether a user's message holds nothing of the user: OpenClaw's remark on its work."""
    text = message.content
    return message.role == "user" and bool(text.strip()) and not _INTERNAL.sub("", text).strip()


def _tells(internal: str) -> bool:
    """Tell whether a remark of a client says more than that nothing runs."""
    facts = internal.count("Conversation data")
    return facts == 0 or len(_NOTHING.findall(internal)) < facts
