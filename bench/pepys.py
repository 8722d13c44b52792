"""A real life, and a gate that must be right: Samuel Pepys' diary of 1660-61 as journals.

    python bench/pepys.py [--shared DIR] [--folder DIR] [--train 260] [--held-out 40] [--out FILE]

The diary is read as a folder of Markdown, a file a month, as a person's own journals would be. The
newest entries are the test, those before them tell when to stop. Four adapters are trained on the
packaged model, each as `knowme learn train` does, and put before the gate:

* good: on the entries as they are, one epoch.
* shuffled: the same, but each entry stands under another entry's notes.
* another author: on as many texts of somebody else (the LoCoMo speaker who said most).
* overfitted: on 8 short pieces, 30 epochs, without a validation set: with one the trainer keeps its
  best step, and what it gives after 30 epochs is no overfitted adapter.

The gate must adopt the first and refuse the others. Perplexity is of held-out entries, style
distance that of what is generated for their notes, beside the distance of the author's own halves
and of the other author. Everything is resumed from --folder. One JSON line; needs the shared data.
"""

import argparse
import json
import math
import os
import random
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from knowme import configfile, sync
from knowme.config import set_value
from knowme.home import Home
from knowme.learn import adopt, dataset, pipeline, runs
from knowme.settings import SourceSettings

PURPOSE = "sound-like-me"
KINDS = ("style",)
EPOCHS = {"good": 1.0, "shuffled": 1.0, "another author": 1.0, "overfitted": 30.0}
OVERFITTED = 8
MONTHS = "January February March April May June July August September October November December"


def say(text):
    print(text, file=sys.stderr, flush=True)


def journal(folder, entries):
    """Write entries ((year, month, day), text) as a file a month with a heading a day."""
    folder.mkdir(parents=True, exist_ok=True)
    months = {}
    for (year, month, day), text in entries:
        months.setdefault((year, month), []).append((day, text))
    for (year, month), days in months.items():
        told = [f"## {year}-{month:02d}-{day:02d}\n\n{text}\n" for day, text in days]
        (folder / f"{year}-{month:02d}.md").write_text("\n".join(told), "utf-8")


def pepys(shared):
    path = shared / "data" / "pepys-dev" / "diary-1660-1661.jsonl"
    for line in path.read_text("utf-8").splitlines():
        told = json.loads(line)
        if told["day"]:
            yield (told["year"], told["month"], told["day"]), told["text"]


def another(shared):
    """Yield what the LoCoMo speaker with the most words said, a session a day."""
    files = sorted((shared / "data" / "locomo").rglob("*.json*"))
    said = {}
    for path in files:
        text = path.read_text("utf-8")
        for told in (
            [json.loads(text)] if path.suffix == ".json" else map(json.loads, text.splitlines())
        ):
            for one in told if isinstance(told, list) else [told]:
                talk = one.get("conversation", {}) if isinstance(one, dict) else {}
                for name, turns in talk.items():
                    if not isinstance(turns, list):
                        continue
                    for turn in turns:
                        said.setdefault(turn.get("speaker"), {}).setdefault(name, []).append(
                            turn.get("text", "")
                        )
    best = max(said.values(), key=lambda each: sum(len(" ".join(t)) for t in each.values()))
    for number, turns in enumerate(best.values()):
        yield (2001 + number // 336, 1 + number // 28 % 12, 1 + number % 28), " ".join(turns)


def made(folder, name, entries):
    """Return the home of a journal, read in; made once."""
    path = folder / name
    if not (path / "memory.db").exists():
        journal(folder / f"{name}-notes", entries)
        Home.create(path)
        configfile.add_source(path, SourceSettings("markdown", str(folder / f"{name}-notes")))
        set_value(path, "embedder.kind", "hashing")
        set_value(path, "engine.kind", "llamacpp")
        set_value(path, "name", "Samuel" if name == "pepys" else "Somebody")
        with Home.open(path) as home:
            sync.sync(home)
    return Home.open(path)


def spread(found, many):
    return [found[at * len(found) // many] for at in range(many)] if len(found) > many else found


def put(run, **parts):
    """Make these the sets of a run."""
    run.done("data", **dataset.write(run, parts), newest_ms=None)


def variants(home, other, many, seed=3):
    """Return the four runs, their data written; those that are there are left alone."""
    there = {run.manifest.get("variant"): run for run in runs.listed(home.path)}
    if set(EPOCHS) <= set(there):
        return {name: there[name] for name in EPOCHS}
    whole = there.get(None) or dataset.build(
        home, pipeline.wanted(home, PURPOSE, kinds=KINDS), lambda *told: None
    )
    train = spread(dataset.read(whole, "train"), many)
    held = {name: dataset.read(whole, name) for name in ("validation", "test")}
    held["validation"] = spread(held["validation"], 24)
    got = dataset.gather(other, pipeline.wanted(other, PURPOSE, kinds=KINDS))
    answers = [each.messages[-1] for each in train]
    random.Random(seed).shuffle(answers)
    data = {
        "good": train,
        "shuffled": [
            replace(each, messages=(*each.messages[:-1], answer))
            for each, answer in zip(train, answers, strict=True)
        ],
        "another author": spread(got.pairs, many),
        "overfitted": sorted(train, key=lambda each: abs(len(each.answer.split()) - 60))[
            :OVERFITTED
        ],
    }
    found = {}
    for name, trained in data.items():
        run = there.get(name)
        if run is None:
            run = runs.create(home.path, PURPOSE)
            put(
                run, train=trained, **({**held, "validation": []} if name == "overfitted" else held)
            )
            runs.put(run.path / runs.MANIFEST, {**run.manifest, "variant": name})
        found[name] = run
    return found


def train(home, run, name):
    shown = [0.0]

    def report(event):
        if event["event"] in ("step", "validation") and time.monotonic() - shown[0] > 30:
            shown[0] = time.monotonic()
            say(f"  {name}: {dict(event)}")

    return pipeline.train(home, run, report, preset="tiny", epochs=EPOCHS[name])


def cpu():
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main():
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parse.add_argument("--folder", type=Path)
    parse.add_argument("--train", type=int, default=260)
    parse.add_argument("--held-out", type=int, default=40)
    parse.add_argument("--only", nargs="*", default=list(EPOCHS))
    parse.add_argument("--out", type=Path)
    asked = parse.parse_args()
    if not (asked.shared / "data" / "pepys-dev").is_dir():
        sys.exit(f"{asked.shared} has no data/pepys-dev: name it with --shared")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="pepys-"))
    began, used = time.monotonic(), cpu()
    told = {"bench": "pepys", "train": asked.train, "adapters": {}}
    with (
        made(folder, "pepys", pepys(asked.shared)) as home,
        made(folder, "other", another(asked.shared)) as other,
    ):
        found = variants(home, other, asked.train)
        for name in asked.only:
            run, at = found[name], cpu()
            if run.stage("train") is None:
                train(home, run, name)
            if run.stage("export") is None:
                pipeline.export(home, run, check=name == "good")
            if run.stage("measure") is None:
                measured(home, run, asked.held_out)
            told["adapters"][name] = {
                **row(run), "cpu_minutes": round((cpu() - at) / 60, 1),
            }  # fmt: skip
            say(f"{name}: {json.dumps(told['adapters'][name])}")
    told |= {
        "right": all(each["adopt"] == (name == "good") for name, each in told["adapters"].items()),
        "cpu_minutes": round((cpu() - used) / 60, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "cores": os.cpu_count(),
    }
    text = json.dumps(told)
    if asked.out:
        asked.out.write_text(text + "\n")
    print(text)


def measured(home, run, many):
    from knowme.learn import export, measure

    last = [0.0]

    def tell(done, total, what):
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            say(f"  {what} {done} of {total}")

    measure.run(home, run, base=export.base_gguf(run), most=many, threads=1, tell=tell)


def row(run):
    decided = adopt.decision(run)
    measured = adopt.measured_of(run)
    rows = {each.name: each for each in decided.rows}
    trained = run.stage("train")
    return {
        "adopt": decided.adopt,
        "why": decided.why,
        "perplexity": [
            round(math.exp(rows["perplexity"].before), 2),
            round(math.exp(rows["perplexity"].after), 2),
        ],
        "relevance": [round(rows["relevance"].before, 3), round(rows["relevance"].after, 3)],
        "style": [round(rows["style"].before, 3), round(rows["style"].after, 3)],
        "style_own": round(measured.style_own, 3),
        "style_other": round(measured.style_other, 3),
        "rules": {each.name: each.passed for each in decided.rows},
        "steps": trained["steps"],
        "tokens": trained["tokens"],
        "train_seconds": trained["seconds"],
    }


if __name__ == "__main__":
    main()
