"""Where does "I don't know that about you" begin? Scores of the best hits, known and not known.

    python bench/threshold.py [--shared ../shared] [--embedder local]

Known: LoCoMo questions put to their own store, and the fictional person's. Not known: LoCoMo
questions put to another store with the speakers' names exchanged, and questions that she never
answered. Prints one JSON line: for each measure the threshold that keeps 95% of the known, and the
share of the unknown that it then refuses.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
from pathlib import Path

from knowme.fiction.build import build, questions
from knowme.home import Home
from knowme.sync import ingest, sync
from knowme.types import Query

UNKNOWN = [
    "What is my blood type?",
    "What was my first school called?",
    "How tall am I?",
    "Which bank do I use?",
    "What is my shoe size?",
    "Who taught me to drive?",
    "What is my brother-in-law's name?",
    "Which football club do I support?",
    "What did I study at university?",
    "When did my grandmother die?",
    "What is my favourite opera?",
    "Do I own a motorbike?",
    "What colour is my front door?",
    "Which dentist do I go to?",
    "What was the name of my first boss?",
    "Am I married?",
    "What did I pay for my television?",
    "Which island did I visit in 2019?",
    "What is my Wi-Fi password?",
    "Do I play the violin?",
    "What is my passport number?",
    "Who won the chess game against me?",
    "Which vaccine did I get last?",
    "What is my zodiac sign?",
    "How many children do I have?",
    "Where did I learn Japanese?",
    "What car do I drive?",
    "Which marathon did I run?",
]


def locomo(shared: Path):
    sys.path.insert(0, str(shared / "bench"))
    import datasets

    return list(datasets.locomo())


def names(case) -> list[str]:
    return list(dict.fromkeys(turn["speaker"] for turn in case.turns))


def put(home: Home, case) -> None:
    for start in range(0, len(case.turns), 256):
        part = case.turns[start : start + 256]
        ingest(
            home,
            [turn["text"] for turn in part],
            [
                {"session": t["session"], "timestamp": t["time"], "speaker": t["speaker"]}
                for t in part
            ],
            [turn["id"] for turn in part],
        )


def measures(home: Home, text: str) -> dict[str, float]:
    hits = home.search(Query(text, top_k=10, neighbours=0))
    if not hits:
        return {"score": 0.0, "cosine": 0.0, "words": 0.0}
    return {
        "score": max(hit.score for hit in hits),
        "cosine": max(1 - (2.0 if hit.distance is None else hit.distance) for hit in hits),
        "words": max(float(hit.why["words"]) for hit in hits),
    }


def auc(known: list[float], unknown: list[float]) -> float:
    better = sum((k > u) + 0.5 * (k == u) for k in known for u in unknown)
    return better / (len(known) * len(unknown))


def report(known: list[dict], unknown: list[dict]) -> dict:
    out = {}
    for name in known[0]:
        a, b = sorted(row[name] for row in known), [row[name] for row in unknown]
        at = a[int(0.05 * len(a))]
        out[name] = {
            "auc": round(auc(a, b), 3),
            "keeps_95": round(at, 3),
            "refuses": round(sum(value < at for value in b) / len(b), 3),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--shared", type=Path, default=Path(os.environ.get("KNOWME_SHARED", "../shared"))
    )
    parser.add_argument("--embedder", default="local")
    parser.add_argument("--questions", type=int, default=60)
    args = parser.parse_args()
    settings = {"embedder.kind": args.embedder, "engine.kind": "echo"}
    result: dict[str, object] = {"bench": "threshold", "embedder": args.embedder}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root / "openclaw")
        Home.create(root / "her")
        (root / "her/config.yaml").write_text(
            f"sources:\n  - kind: openclaw\n    path: {root / 'openclaw'}\n", encoding="utf-8"
        )
        with Home.open(root / "her", settings) as home:
            sync(home)
            asked = [(q.question, q.kind != "unknown") for q in questions()]
            asked += [(text, False) for text in UNKNOWN]
            rows = [(measures(home, text), known) for text, known in asked]
        result["fiction"] = report([r for r, k in rows if k], [r for r, k in rows if not k])
        rnd = random.Random(0)
        known, unknown = [], []
        cases = locomo(args.shared) if (args.shared / "data/locomo").exists() else []
        for number, case in enumerate(cases):
            Home.create(root / f"l{number}")
            other = cases[(number + 1) % len(cases)]
            with Home.open(root / f"l{number}", settings) as home:
                put(home, case)
                for question in rnd.sample(
                    case.questions, min(args.questions, len(case.questions))
                ):
                    known.append(measures(home, question["query"]))
                for question in rnd.sample(
                    other.questions, min(args.questions, len(other.questions))
                ):
                    text = question["query"]
                    for theirs, ours in zip(names(other), names(case), strict=True):
                        text = re.sub(rf"\b{theirs}\b", ours, text)
                    unknown.append(measures(home, text))
            print(f"locomo store {number}", file=sys.stderr)
        if known:
            result["locomo"] = report(known, unknown)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
