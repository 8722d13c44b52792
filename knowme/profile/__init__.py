"""The profile: who the person is, in short plain lines, each with what it rests on.

Promises: lines are a pure function of facts, findings and the person's decisions; what the person
wrote, changed, struck or pinned wins over anything derived, for ever and through every rebuild; a
page is never longer than its budget; a sensitive line never stands in the plain half of a page;
every change is an event.
Refuses to know: where the page is a file, how facts and findings come about, which prompt it is in.

A line's uid is a hash of what the line is about (an attribute and its value, a person, a trait), so
that a decision on it holds however often it is derived anew. In ``decisions`` a line's ``key`` is
the section it shall stand in (write, edit), ``text`` the person's wording; " [private]" behind it
keeps it on this machine.
"""

from knowme.profile.baseline import baseline
from knowme.profile.derive import (
    ACTIONS,
    SECTIONS,
    TITLE,
    Decision,
    apply,
    in_order,
    line_uid,
    lines_from,
    normal,
)
from knowme.profile.page import Page, read_page, render, split
from knowme.profile.store import (
    Change,
    absorb,
    as_of,
    confirm_page,
    decide,
    decisions,
    diff,
    erase,
    erase_sensitive,
    find,
    history,
    lines,
    note_page,
    store,
    undo,
    why,
)

__all__ = [
    "ACTIONS",
    "SECTIONS",
    "TITLE",
    "Change",
    "Decision",
    "Page",
    "absorb",
    "apply",
    "as_of",
    "baseline",
    "confirm_page",
    "decide",
    "decisions",
    "diff",
    "erase",
    "erase_sensitive",
    "find",
    "history",
    "in_order",
    "line_uid",
    "lines",
    "lines_from",
    "normal",
    "note_page",
    "read_page",
    "render",
    "split",
    "store",
    "undo",
    "why",
]
