"""OpenClaw's transcript as a tree, and the walk from the current leaf to the root.

Promises: the rules are the program's own (versions 2026.7 to 2026.9): every canonical entry moves
the leaf to itself; a ``leaf`` row moves it elsewhere; an entry whose parent is unknown, or that has
none, goes on from the leaf, so a lost line does not cut the history; after a ``reset`` nothing
before it becomes the leaf again. Only ids, parents and places are held, never an entry.
Refuses to know: where events are stored, what a message says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CANONICAL = frozenset(
    {
        "message", "thinking_level_change", "model_change", "compaction", "reset",
        "branch_summary", "custom", "custom_message", "label", "session_info",
    }
)  # fmt: skip
Kind = Literal["user", "assistant", "tool", ""]
_ROLES: Mapping[str, Kind] = {"user": "user", "assistant": "assistant", "toolResult": "tool"}
_TOOL_BLOCKS = frozenset({"toolResult", "tool_result"})


@dataclass(slots=True)
class Node:
    """One entry: where it stands, what hangs above it, which part of a conversation it is."""

    id: str
    parent: str | None
    place: int
    kind: Kind
    at_ms: int | None
    control: bool = False


def text_id(value: Any) -> str | None:
    """Return an id: text that is not blank."""
    return value if isinstance(value, str) and value.strip() else None


def entry_id(event: Mapping[str, Any]) -> str | None:
    """Return the id of an event; where the oldest form has none, one made of its content."""
    if (found := text_id(event.get("id"))) is not None or event.get("type") != "message":
        return found
    whole = repr((event.get("timestamp"), event.get("message")))
    return "x" + hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:15]


def kind_of(event: Mapping[str, Any]) -> Kind:
    """Return which part of a conversation an event is; "" for none."""
    message = event.get("message")
    if event.get("type") != "message" or not isinstance(message, dict):
        return ""
    kind = _ROLES.get(str(message.get("role")), "")
    if kind == "user" and _only_tool_results(message.get("content")):
        return "tool"
    return kind


def _only_tool_results(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(one, dict) and one.get("type") in _TOOL_BLOCKS for one in content)
    )


@dataclass(slots=True)
class Tree:
    """Fed with events in file order; then ``path`` is the conversation."""

    nodes: dict[str, Node] = field(default_factory=dict)
    leaf: str | None = None
    linear: bool = True  # every entry went on from the leaf before it
    _cursor: str | None = None
    _invalid: set[str] = field(default_factory=set)
    _after_reset: set[str] | None = None
    _seeded: bool = False

    @classmethod
    def after(cls, leaf: str | None) -> Tree:
        """Return a tree that goes on from a leaf known from before; all else is unknown to it.

        While ``linear`` stays True, what is added is what a whole tree would hold behind that leaf.
        """
        tree = cls(leaf=leaf, _cursor=leaf, _seeded=True)
        if leaf is not None:
            tree.nodes[leaf] = Node(leaf, None, -1, "", None)
        return tree

    def add(self, event: Mapping[str, Any], place: int, at_ms: int | None = None) -> None:
        """Take one event at its place (an offset, a row number)."""
        kind = event.get("type")
        if kind == "leaf":
            self._add_control(event, place)
            return
        identity = entry_id(event)
        if kind == "session" or identity is None:
            return
        canonical = kind in CANONICAL
        if not canonical and "parentId" not in event:
            return
        side = event.get("appendMode") == "side"
        parent = self._parent(event, canonical, side)
        if canonical and not side and parent != self.leaf:
            self.linear = False
        self.nodes[identity] = Node(identity, parent, place, kind_of(event), at_ms)
        if kind == "reset":
            self._after_reset = {identity}
        elif self._after_reset is not None and parent in self._after_reset:
            self._after_reset.add(identity)
        self._cursor = identity
        if canonical and not side:
            self.leaf = identity

    def _parent(self, event: Mapping[str, Any], canonical: bool, side: bool) -> str | None:
        parent = text_id(event.get("parentId"))
        if not canonical:
            return parent
        if "parentId" not in event:
            parent = self.leaf
        elif not side and self._goes_on(parent):
            parent = self.leaf
        return self._past_controls(parent)

    def _goes_on(self, parent: str | None) -> bool:
        """Tell whether an entry with this parent continues from the leaf all the same."""
        if self._after_reset is not None and parent not in self._after_reset:
            return True
        stale = parent is not None and parent not in self.nodes and self.leaf is not None
        if stale and not self._seeded:
            return True
        return parent == self._cursor and self.leaf != self._cursor

    def _past_controls(self, parent: str | None) -> str | None:
        seen: set[str] = set()
        while parent is not None and parent not in seen:
            node = self.nodes.get(parent)
            if node is None:
                return parent
            if not node.control:
                return node.id  # the string that is held already, not another copy of it
            seen.add(parent)
            parent = node.parent
        return parent

    def _add_control(self, event: Mapping[str, Any], place: int) -> None:
        identity = text_id(event.get("id"))
        if identity is None or "targetId" not in event or "parentId" not in event:
            return
        self.linear = False
        target = text_id(event["targetId"])
        below_reset = self._after_reset is None or target in self._after_reset
        if not below_reset and self.leaf is not None:
            target = self.leaf
        onward = text_id(event["appendParentId"]) if "appendParentId" in event else target
        if not (self._known(target) and self._known(onward)):
            self._invalid.add(identity)
            parent = text_id(event["parentId"])
            self.nodes[identity] = Node(identity, parent, place, "", None, control=True)
            return
        self.nodes[identity] = Node(identity, target, place, "", None, control=True)
        self._cursor = onward
        self.leaf = target

    def _known(self, identity: str | None) -> bool:
        return identity is None or (identity in self.nodes and identity not in self._invalid)

    def path(self, leaf: str | None = None) -> list[Node]:
        """Return the entries from the root to the leaf (or another one), controls left out.

        Where an ancestor is missing, or the chain bites its tail, the reachable end is returned.
        """
        out: list[Node] = []
        seen: set[str] = set()
        here = leaf if leaf in self.nodes else self.leaf
        while here is not None and here not in seen:
            seen.add(here)
            node = self.nodes.get(here)
            if node is None:
                break
            if not node.control:
                out.append(node)
            here = node.parent
        out.reverse()
        return out
