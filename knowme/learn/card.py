"""The data card: what a data set holds, where it is from, what was left out and what it is for.

Promises: numbers only, no word of the person's. The form follows the data statements of Bender and
Friedman (2018) and the data cards of Pushkarna et al. (2022), as far as one person's data has them.
Refuses to know: how pairs are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from knowme.types import Pair

if TYPE_CHECKING:
    from knowme.learn.dataset import Gathered, Wanted

WEEK_MS = 7 * 86_400_000
GROWTH_WEEKS = 8
"""How far back the growth is looked at that tells when there will be enough."""
_PURPOSES = {
    "assistant-for-me": "an assistant that answers as this person likes it",
    "sound-like-me": "a model that writes as this person writes",
}


def of(
    parts: Mapping[str, Sequence[Pair]], got: Gathered, wanted: Wanted, *, enough: int
) -> dict[str, Any]:
    """Return the card of a set as JSON."""
    every = [each for name, part in parts.items() if name != "rejected" for each in part]
    thought, plain = _reasoning(every)
    return {
        "purpose": wanted.purpose,
        "pairs": len(every),
        "enough": enough,
        "parts": {name: len(part) for name, part in parts.items()},
        "kinds": _counted(each.kind for each in every),
        "languages": _counted(each.language or "unknown" for each in every),
        "labels": _counted(label for each in every for label in each.labels),
        "sources": _counted(each.place.split("/", 1)[0] for each in every),
        "places": len({each.place for each in every}),
        "words": _spread([len(each.answer.split()) for each in every]),
        "question_words": _spread([len(each.question.split()) for each in every]),
        "days": _days(parts),
        "ratings": _counted(str(each.rating) for each in every if each.rating is not None),
        "reasoning": {"think": thought, "plain": plain},
        "synthetic": sum(each.kind in ("teacher", "paraphrase") for each in every),
        "reviewed": got.reviewed,
        "found": dict(sorted(got.found.items())),
        "dropped": {name: many for name, many in sorted(got.dropped.items()) if many},
        "masked": {name: many for name, many in sorted(got.masked.items()) if many},
        "options": {
            "kinds": list(wanted.kinds),
            "since_ms": wanted.since_ms,
            "filter_preferences": wanted.filter_preferences,
            "include_memory": wanted.include_memory,
            "min_answer_chars": wanted.min_answer_chars,
            "system_prompt": bool(wanted.system_prompt),
        },
    }


def _reasoning(every: Iterable[Pair]) -> tuple[int, int]:
    decided = [each for each in every if each.kind == "decision"]
    thought = sum("think" in each.labels for each in decided)
    return thought, len(decided) - thought


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _spread(lengths: Sequence[int]) -> dict[str, int]:
    if not lengths:
        return {"least": 0, "median": 0, "p90": 0, "most": 0}
    ordered = sorted(lengths)
    at = [0, len(ordered) // 2, min(len(ordered) - 1, int(len(ordered) * 0.9)), len(ordered) - 1]
    return dict(zip(("least", "median", "p90", "most"), (ordered[i] for i in at), strict=True))


def _days(parts: Mapping[str, Sequence[Pair]]) -> dict[str, list[str]]:
    found = {}
    for name, part in parts.items():
        times = [each.at_ms for each in part if each.at_ms is not None]
        if times:
            found[name] = [_day(min(times)), _day(max(times))]
    return found


def _day(at_ms: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).date().isoformat()


def ready(every: Sequence[Pair], enough: int, at_ms: int) -> dict[str, Any]:
    """Return how many there are of how many, how fast they grow, and the day they are enough.

    The growth is that of the last eight weeks; ``on`` is None where nothing grows.
    """
    since = at_ms - GROWTH_WEEKS * WEEK_MS
    lately = sum(each.at_ms is not None and since < each.at_ms <= at_ms for each in every)
    a_week = lately / GROWTH_WEEKS
    left = max(0, enough - len(every))
    on = None
    if not left:
        on = _day(at_ms)
    elif a_week and left / a_week < 52 * 20:
        on = _day(at_ms + left / a_week * WEEK_MS)
    return {"pairs": len(every), "enough": enough, "a_week": round(a_week, 2), "on": on}


# --- as a page ----------------------------------------------------------------------------------


def page(told: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    dropped, masked = told["dropped"], told["masked"]
    thought, plain = told["reasoning"]["think"], told["reasoning"]["plain"]
    lines = [
        f"# Data card: {told['purpose']}",
        "",
        f"Made for {_PURPOSES[told['purpose']]}. It holds one person's own data and is meant for "
        "that person's own machine: do not publish it, nor an adapter trained on it.",
        "",
        f"- {told['pairs']} examples of {told['places']} conversations or documents "
        f"({told['enough']} are recommended): " + _listed(told["parts"]),
        "- kinds: " + _listed(told["kinds"]),
        "- languages: " + _listed(told["languages"]),
        "- from: " + _listed(told["sources"]),
        "- days: " + "; ".join(f"{name} {a} to {b}" for name, (a, b) in told["days"].items()),
        f"- words in an answer: median {told['words']['median']}, nine in ten up to "
        f"{told['words']['p90']}, most {told['words']['most']}",
        f"- decisions with their reasoning: {_share(thought, thought + plain)}",
        f"- written by a model: {_share(told['synthetic'], told['pairs'])}",
        f"- looked at by the person: {told['reviewed']}",
        "",
        "## Left out",
        "",
        *(_rows(dropped) or ["Nothing."]),
        "",
        "## Masked",
        "",
        *(_rows(masked) or ["Nothing was found that had to be masked."]),
        "",
        "## How it is split",
        "",
        "By conversation and by time: the newest are the test, those before them tell when to "
        "stop. What rests on both sides, or nearly repeats the test, is in neither. No run of "
        "words of the test stands in a prompt, a note or an answer that is trained.",
        "",
        "## Known limits",
        "",
        "Labels are made by rules. What was said in a tone of voice, on paper or to other people "
        "is not here. A small set teaches a manner, not facts: facts belong in memory.",
        "",
    ]
    return "\n".join(lines)


def _rows(counts: Mapping[str, int]) -> list[str]:
    return [f"- {name}: {many}" for name, many in counts.items()]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {many}" for name, many in counts.items()) or "none"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({part / whole:.0%})" if whole else "")
