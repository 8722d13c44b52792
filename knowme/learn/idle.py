"""Whether this machine has nothing better to do: long work of ours waits for that.

Promises: one sentence says what it waits for; where nobody can tell, it does not wait.
Refuses to know: what waits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")
BUSY_SHARE = 0.5
"""A load average over five minutes above this share of the cores is a busy machine."""
QUIET_MS = 10 * 60_000
"""After the last question the person may ask another."""


def waiting(asked_ms: int | None, at_ms: int, *, supplies: Path = SUPPLIES) -> str:
    """Return "" when long work may begin, else why it waits. ``asked_ms``: the last question."""
    if asked_ms is not None and 0 <= at_ms - asked_ms < QUIET_MS:
        return "a question was asked a moment ago"
    if on_battery(supplies):
        return "this machine runs on its battery"
    load, cores = _load(), os.cpu_count() or 1
    if load is not None and load > BUSY_SHARE * cores:
        return f"this machine is busy: load {load:.1f} on {cores} cores"
    return ""


def on_battery(supplies: Path = SUPPLIES) -> bool:
    """Tell whether it runs on a battery now: one is there, and no mains is on line."""
    if sys.platform == "darwin":
        return "'Battery Power'" in _said(["pmset", "-g", "batt"])
    batteries = mains = False
    for supply in sorted(supplies.glob("*")) if supplies.is_dir() else ():
        kind = _read(supply / "type")
        if kind == "Battery" and _read(supply / "scope") != "Device":  # not that of a mouse
            batteries = batteries or _read(supply / "status") == "Discharging"
        elif kind in ("Mains", "USB", "USB_C"):
            mains = mains or _read(supply / "online") == "1"
    return batteries and not mains


def _load() -> float | None:
    try:
        return os.getloadavg()[1]
    except OSError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
