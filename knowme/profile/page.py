"""The page: lines as text within a budget, and text read back as lines. Pure.

Promises: a page is never longer than its budget; however a person leaves it, every line of it is
read back; what is private never stands in the plain half.
Refuses to know: where the page is a file, which prompt it is in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from knowme.profile.derive import COMMENT, HEADING, PRIVATE, SECTIONS, TITLE, in_order, untagged
from knowme.sensitive import sensitive as kinds_of
from knowme.types import Line

_QUOTA = {"identity": 8, "people": 6, "preferences": 6, "work": 5, "context": 5,
          "communication": 6, "health": 4, "personality": 5, "values": 2, "habits": 4}  # fmt: skip


class Page(NamedTuple):
    """A rendered page, the lines that stand on it in their order, and those it had no room for."""

    text: str
    shown: tuple[Line, ...]
    left_out: tuple[Line, ...]


# --- the page -------------------------------------------------------------------------------------


def render(
    lines: Iterable[Line], budget_tokens: int, count: Callable[[str], int], name: str = ""
) -> Page:
    """Return the page of the current lines, at most ``budget_tokens`` long by ``count``.

    What the person wrote or pinned goes before all else; then the sections take turns, each with
    its first lines. Where not even the title fits, the text is empty.
    """
    current = [line for line in in_order(lines) if line.state == "current"]
    titles = [line for line in current if line.section == TITLE]
    title = titles[-1].text if titles else f"About {name}" if name else "About you"
    wanted = _by_need([line for line in current if line.section != TITLE])
    room = budget_tokens - count(_page(title, ())) - 1
    taken: list[Line] = []
    headed: set[str] = set()
    for line in wanted:
        heading = (
            0 if line.section in headed else count(f"\n## {_heading(line.section)} {PRIVATE}\n")
        )
        cost = heading + count(f"- {line.text} {PRIVATE}\n")
        if cost <= room:
            room -= cost
            taken.append(line)
            headed.add(line.section)
    while True:
        chosen = {line.uid for line in taken}
        shown = tuple(line for line in current if line.uid in chosen)
        text = _page(title, shown)
        if count(text) <= budget_tokens:
            break
        if not taken:
            return Page("", (), tuple(wanted))
        taken.pop()
    left = tuple(line for line in wanted if line.uid not in chosen)
    return Page(text, (*titles[-1:], *shown), left)


def _by_need(lines: Sequence[Line]) -> list[Line]:
    """Order lines as a short page would have them: the person's, then each section's first few."""
    seen: Counter[str] = Counter()
    ranked = []
    for number, line in enumerate(lines):
        own = line.pinned or line.written_by == "person"
        turn = 0 if own else 1 + seen[line.section] // _QUOTA.get(line.section, 4)
        seen[line.section] += not own
        ranked.append((turn, number, line))
    return [line for _, _, line in sorted(ranked, key=lambda each: each[:2])]


def _heading(section: str) -> str:
    return SECTIONS.get(section, section)


def _page(title: str, lines: Iterable[Line]) -> str:
    sections: dict[str, list[Line]] = {}
    for line in lines:
        if line.section != TITLE:
            sections.setdefault(line.section, []).append(line)
    parts = [f"# {title}\n{COMMENT}\n"]
    for section, own in sections.items():
        every = all(line.sensitive for line in own)
        parts.append(f"\n## {_heading(section)}{' ' + PRIVATE if every else ''}\n")
        parts += [
            f"- {line.text}{' ' + PRIVATE if line.sensitive and not every else ''}\n"
            for line in own
        ]
    return "".join(parts)


class Read(NamedTuple):
    """A line of a page as it is read back. ``section`` is "title" for its first heading."""

    section: str
    text: str
    private: bool


def read_page(text: str) -> list[Read]:
    """Return the lines of a page, however a person left it: no bullet, other headings, no title."""
    known = {heading.casefold(): section for section, heading in SECTIONS.items()}
    section, private = "notes", False
    found: list[Read] = []
    for raw in text.lstrip("\ufeff").splitlines():
        if not raw.strip() or raw.strip() == COMMENT:
            continue
        heading = HEADING.match(raw)
        told, tagged = untagged(heading[2] if heading else raw)
        if heading and len(heading[1]) == 1 and not found and section == "notes":
            found.append(Read(TITLE, told, False))
        elif heading:
            section, private = known.get(told.casefold(), told or "notes"), tagged
        elif told:
            found.append(Read(section, told, private or tagged))
    return found


def split(text: str) -> tuple[str, str]:
    """Return a page for prompts as (what may be in any, what must stay on this machine).

    Lines marked private, those under a heading so marked, and whatever the words give away as
    sensitive make the second half. Comments and marks are gone from both; "" where a half is empty.
    """
    halves: tuple[list[str], list[str]] = ([], [])
    heads = ["", ""]
    titles = ""
    for section, line, private in read_page(text):
        if section == TITLE:
            titles = f"{line}\n"
            continue
        which = int(private or bool(kinds_of(line)))
        if heads[which] != section:
            heads[which] = section
            halves[which].append(f"{_heading(section)}:")
        halves[which].append(f"- {line}")
    plain, hidden = ("\n".join(half) for half in halves)
    return (titles + plain if plain else ""), hidden
