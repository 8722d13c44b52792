"""The table of recall, from the result files of the retrieval harness.

    python bench/recall.py [NAME=]FOLDER... [--markdown]

Each FOLDER holds {locomo,beam100k,pref-explicit,pref-implicit}.json, as the harness writes them
with --out; "NAME=FOLDER" gives the system in it another name. Prints one JSON line: system, set,
recall@10, with the macro average and the minimum.
"""

import argparse
import json
from pathlib import Path

SETS = ("locomo", "beam100k", "pref-explicit", "pref-implicit")


def read(folders: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    table: dict[str, dict[str, dict[str, float]]] = {}
    for given in folders:
        called, _, path = given.rpartition("=")
        folder = Path(path)
        for name in SETS:
            if not (folder / f"{name}.json").exists():
                continue
            for result in json.loads((folder / f"{name}.json").read_text())["results"]:
                rows = result["rows"]
                table.setdefault(called or result["system"], {})[name] = {
                    f"recall@{k}": round(100 * sum(r[f"recall@{k}"] for r in rows) / len(rows), 1)
                    for k in (5, 10, 20)
                } | {"p50_ms": round(result["p50"], 1), "questions": len(rows)}
    return table


def summary(sets: dict[str, dict[str, float]]) -> dict[str, float]:
    if len(sets) < len(SETS):
        return {}
    values = [sets[name]["recall@10"] for name in SETS]
    return {"macro@10": round(sum(values) / len(values), 1), "min@10": min(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    table = read(options.folders)
    if options.markdown:
        for system, sets in sorted(table.items(), key=lambda entry: -summary(entry[1])["macro@10"]):
            cells = " | ".join(f"{sets[name]['recall@10']:.1f}" for name in SETS)
            print(f"| {system} | {cells} | {summary(sets)['macro@10']:.1f} |")
        return
    print(json.dumps({
        "bench": "recall",
        "systems": {system: {**sets, **summary(sets)} for system, sets in table.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
