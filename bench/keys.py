"""Do facts help recall? The same stores and questions without facts and with them as keys.

    python bench/keys.py [--shared ../shared] [--sets locomo,beam100k] [--key 0.9]

The development stores of the retrieval harness, in this process, with the default embedder: every
store is searched, then read for facts by the rules alone, then searched again. Prints one JSON
line: recall@10 of evidence turns off and on with a paired bootstrap over questions, the share of
the best ten that a fact brought up, and the processor time of a search on over off.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowme import extract, memory, search
from knowme.db import value
from knowme.home import Home
from knowme.sync import ingest, reindex
from knowme.times import parse_time
from knowme.types import Query

SETS = "locomo,beam100k,pref-explicit,pref-implicit"
DRAWS = 4000


def put(home: Home, turns: list[dict[str, Any]]) -> None:
    for start in range(0, len(turns), 256):
        part = turns[start : start + 256]
        told = [
            {
                "id": t["id"],
                "session": t["session"],
                "timestamp": t["time"],
                "speaker": t["speaker"],
            }
            for t in part
        ]
        ingest(home, [t["text"] for t in part], told, [t["id"] for t in part])


def ask(home: Home, questions: list[dict[str, Any]]) -> Iterator[tuple[float, int, float]]:
    """Yield for each question: recall@10, hits of ten that a fact brought up, CPU seconds."""
    home.search(Query("warm up"))
    for question in questions:
        now = parse_time(question["now"], "now") if question.get("now") else None
        began = time.process_time()
        hits = home.search(Query(question["query"], top_k=10, now_ms=now))
        took = time.process_time() - began
        gold = set(question["gold"])
        found = sum(hit.metadata.get("id") in gold for hit in hits)
        yield found / len(gold), sum("fact" in hit.why for hit in hits), took


def report(off: list[tuple[float, int, float]], on: list[tuple[float, int, float]]) -> dict:
    gained = [after[0] - before[0] for before, after in zip(off, on, strict=True)]
    rnd = random.Random(0)
    drawn = sorted(sum(rnd.choices(gained, k=len(gained))) / len(gained) for _ in range(DRAWS))
    low, high = drawn[DRAWS // 40], drawn[-DRAWS // 40]
    return {
        "questions": len(off),
        "off": round(100 * sum(row[0] for row in off) / len(off), 1),
        "on": round(100 * sum(row[0] for row in on) / len(on), 1),
        "gain_95": [round(100 * low, 2), round(100 * high, 2)],
        "better": sum(each > 0 for each in gained),
        "worse": sum(each < 0 for each in gained),
        "by_fact": round(sum(row[1] for row in on) / (10 * len(on)), 3),
        "cpu_ratio": round(sum(row[2] for row in on) / sum(row[2] for row in off), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    shared = Path(os.environ.get("KNOWME_SHARED", "../shared"))
    parser.add_argument("--shared", type=Path, default=shared)
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--key", type=float, default=search.WEIGHTS.key)
    args = parser.parse_args()
    search.WEIGHTS = replace(search.WEIGHTS, key=args.key)
    sys.path.insert(0, str(args.shared / "bench"))
    import datasets

    settings = {"engine.kind": "echo", "embedder.threads": 1}
    result: dict[str, Any] = {"bench": "keys", "key": args.key}
    for name in args.sets.split(","):
        off: list[tuple[float, int, float]] = []
        on: list[tuple[float, int, float]] = []
        facts = turns = 0
        for case in datasets.LOADERS[name]():
            if case.split != "dev":
                continue
            with tempfile.TemporaryDirectory() as folder:
                Home.create(Path(folder) / "home")
                with Home.open(Path(folder) / "home", settings) as home:
                    put(home, case.turns)
                    off += ask(home, case.questions)
                    extract.catch_up(home)
                    reindex(home)
                    on += ask(home, case.questions)
                    with home.db.read() as conn:
                        facts += value(conn, "SELECT count(*) FROM items WHERE kind = 'fact'")
                        turns += memory.count(conn)
            print(f"{name} {case.id}", file=sys.stderr)
        result[name] = {**report(off, on), "facts": facts, "turns": turns - facts}
    for which in ("off", "on"):
        scores = [result[name][which] for name in args.sets.split(",")]
        result[f"macro_{which}"] = round(sum(scores) / len(scores), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
