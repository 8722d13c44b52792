"""Facts: how many are read, how many of the believed ones are right, what hostile texts achieve.

    python bench/facts.py [--shared DIR] [--model ENGINE:MODEL,... --messages N] [--out FILE]
    python bench/facts.py --sample 200 --seed 7 --to FILE      facts to be judged by hand

* LoCoMo: share of its `observation` entries whose evidence turn gives at least one believed claim
  about the right speaker (`found`), and one that holds half of the entry's words (`told`). The
  entries are incomplete: they say nothing about precision.
* The fictional person: share of the facts labelled by hand that are believed from the right
  message, and of those the validity: right, wide (it holds the true day), too sure, wrong.
* BEAM: how many are believed of user turns; no labels.
* Dates: bench/dates.jsonl, 128 sentences in four languages.
* Hostile texts: tests/data/injections.jsonl, 226 texts and their honest twins.
* Precision: bench/facts_judged.jsonl, verdicts by hand on a random sample; of texts that may not be
  copied only the name of the fact and the verdict. A verdict counts while its fact is believed.
* Unsupported: believed facts with a number or a name in value or sentence that their quote lacks,
  looked for here by other means than the gate's.

With --model the model reads the first N messages of the fictional person after the rules. Prints
one JSON line. Needs the shared data for LoCoMo and BEAM; says so where it lacks.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

from knowme import attributes, extract, reading, whens
from knowme.db import rows
from knowme.fiction.build import POISON, UNTRUSTED, build, facts
from knowme.home import Home
from knowme.settings import SourceSettings
from knowme.sync import store, sync
from knowme.types import ME, Record, When
from knowme.words import stems

ROOT = Path(__file__).resolve().parent.parent
JUDGED = ROOT / "bench" / "facts_judged.jsonl"
COUNTED = ("believed", "repeated", "superseded")
SHARES = {"locomo": 80, "beam": 60, "fiction": 60}


@contextmanager
def new_home(**settings) -> Iterator[Home]:
    with tempfile.TemporaryDirectory() as folder:
        Home.create(Path(folder) / "home")
        given = {"embedder.kind": "none", "engine.kind": "echo", "memory.timezone": "UTC"}
        with Home.open(Path(folder) / "home", {**given, **settings}) as home:
            yield home


def ms(when: str, form: str) -> int | None:
    try:
        return int(datetime.strptime(when.strip(), form).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None


def known(home: Home, where: str = "1") -> list[dict]:
    """Return every fact with the text of its message."""
    with home.db.read() as conn:
        names = ("uid", "subject", "attribute", "value", "sentence", "quote", "state", "reason",
                 "from_first", "from_last", "to_first", "to_last", "read_by", "external_id",
                 "conversation", "text", "at_ms", "certain", "speaker")  # fmt: skip
        found = rows(
            conn,
            "SELECT f.uid, f.subject, f.attribute, f.value, f.sentence, f.quote, f.state, f.reason,"
            " f.from_first, f.from_last, f.to_first, f.to_last, f.read_by, m.external_id,"
            " c.external_id, m.text, m.at_ms, f.certain, m.speaker FROM facts f"
            " JOIN messages m ON m.id = f.message_id"
            f" JOIN conversations c ON c.id = m.conversation_id WHERE {where}"
            " ORDER BY f.message_id, f.start, f.uid",
        )
    return [dict(zip(names, row, strict=True)) for row in found]


# --- the sets ------------------------------------------------------------------------------------


def locomo(folder: Path) -> Iterator[tuple[dict, list[dict]]]:
    """Yield each conversation with the facts read in it."""
    for talk in json.loads((folder / "locomo" / "locomo10.json").read_text("utf-8")):
        said, records = talk["conversation"], []
        number = 1
        while f"session_{number}_date_time" in said:
            at = ms(said[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y")
            for turn in said.get(f"session_{number}", []):
                records.append(
                    Record(
                        "message",
                        f"{talk['sample_id']}/{number}",
                        turn["dia_id"],
                        "user",
                        speaker=turn["speaker"],
                        text=turn["text"],
                        at_ms=at,
                        seq=len(records),
                        meta={"other": True},
                    )  # fmt: skip
                )
            number += 1
        with new_home() as home:
            store(home, "locomo", [(record, None) for record in records])
            extract.catch_up(home)
            yield talk, known(home)


def beam(folder: Path) -> Iterator[list[dict]]:
    for path in sorted(folder.glob("beam/100K/*/chat.json"), key=lambda p: int(p.parent.name)):
        at, records = None, []
        for batch in json.loads(path.read_text("utf-8")):
            for turns in batch["turns"]:
                for turn in turns:
                    at = ms(turn.get("time_anchor") or "", "%B-%d-%Y") or at
                    text = re.sub(r"\s*->->\s*[\d,N/A ]*\s*$", "", turn["content"])
                    mine = turn["role"] == "user"
                    records.append(
                        Record("message", f"beam-{path.parent.name}", str(turn["id"]),
                               turn["role"], text=text, at_ms=at, seq=len(records), recall=mine)
                    )  # fmt: skip
        with new_home() as home:
            store(home, "beam", [(record, None) for record in records])
            extract.catch_up(home)
            yield known(home)


@contextmanager
def fiction(**settings) -> Iterator[Home]:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "openclaw"
        build(where)
        sources = (SourceSettings("openclaw", str(where)),)
        with new_home(name="Leonor", sources=sources, **settings) as home:
            sync(home)
            yield home


# --- what is measured ----------------------------------------------------------------------------


def observed(talks: list[tuple[dict, list[dict]]]) -> dict:
    entries = found = told = 0
    for talk, read in talks:
        turns: dict[str, list[dict]] = {}
        for fact in read:
            if fact["state"] in COUNTED:
                turns.setdefault(fact["external_id"], []).append(fact)
        for session in talk["observation"].values():
            for speaker, lines in session.items():
                for line in lines:
                    ids = line[1] if isinstance(line[1], list) else [line[1]]
                    evidence = [one for name in ids for one in re.findall(r"D\d+:\d+", str(name))]
                    if not evidence:
                        continue
                    entries += 1
                    about = [
                        fact for one in evidence for fact in turns.get(one, ())
                        if fact["subject"] == speaker or fact["sentence"].startswith(speaker)
                    ]  # fmt: skip
                    found += bool(about)
                    wanted = stems(line[0]) - stems(speaker)
                    said = {w for fact in about for w in stems(fact["sentence"])}
                    told += bool(wanted) and len(wanted & said) * 2 >= len(wanted)
    return {"entries": entries, "found": share(found, entries), "told": share(told, entries)}


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def lived(read: list[dict]) -> dict:
    """Compare with the facts labelled by hand."""
    by_message: dict[str, list[dict]] = {}
    for fact in read:
        if fact["state"] in COUNTED:
            by_message.setdefault(fact["external_id"], []).append(fact)
    labelled, found, validity, missed = 0, 0, Counter(), Counter()
    for label in facts():
        labelled += 1
        wanted = stems(label.value)
        subject = ME if label.subject.startswith("Leonor") else label.subject
        mine = [
            fact for fact in by_message.get(label.evidence[1], ())
            if holds(wanted, fact) and speaks_of(fact, subject)
        ]  # fmt: skip
        if not mine:
            missed[label.attribute] += 1
            continue
        found += 1
        best = max(mine, key=lambda f: len(wanted & stems(f["value"])))
        validity["from " + placed(label.valid_from, best["from_first"], best["from_last"])] += 1
        if label.valid_to:
            validity["to " + placed(label.valid_to, best["to_first"], best["to_last"])] += 1
        elif best["to_last"] and best["from_first"] != best["to_first"]:
            validity["to too sure"] += 1
    return {"labelled": labelled, "recall": share(found, labelled), "validity": dict(validity)}


def holds(wanted: set[str], fact: dict) -> bool:
    have = stems(f"{fact['value']} {fact['attribute']} {fact['sentence']}")
    return bool(wanted) and len(wanted & have) * 2 >= len(wanted)


def speaks_of(fact: dict, subject: str) -> bool:
    if fact["subject"] == subject or subject in fact["sentence"]:
        return True
    return fact["subject"] == ME and fact["value"].startswith(subject)


def placed(true: str, first: str, last: str) -> str:
    if not (first or last):
        return "open"
    if first == last == true:
        return "right"
    return "wide" if first <= true <= (last or "9999") else "wrong"


def unsupported(read: list[dict]) -> list[str]:
    """Return believed facts with a number or a name that does not stand in their quote."""
    found = []
    for fact in read:
        if fact["state"] not in COUNTED:
            continue
        quote = fact["quote"].casefold()
        numbers = re.findall(r"\d+", fact["value"])
        names = re.findall(r"(?<!^)(?<![.!?] )\b[A-Z][\w'’-]+", fact["value"])
        theirs = fact["subject"].split() if fact["subject"] not in (ME, fact["speaker"]) else []
        lacks = [word for word in (*numbers, *names, *theirs) if word.casefold() not in quote]
        if lacks:
            found.append(f"{fact['uid']} {lacks}")
    return found


def dated() -> dict:
    counts: Counter[str] = Counter()
    by_language: dict[str, Counter[str]] = {}
    bad = []
    for line in (ROOT / "bench" / "dates.jsonl").read_text("utf-8").splitlines():
        item = json.loads(line)
        verdict = dated_one(item)
        counts[verdict] += 1
        by_language.setdefault(item["language"], Counter())[verdict] += 1
        if verdict in ("wrong", "too sure"):
            bad.append(f"{item['id']} {verdict}")
    return {
        "phrases": sum(counts.values()), **counts, "bad": bad,
        "by_language": {name: dict(held) for name, held in by_language.items()},
    }  # fmt: skip


def dated_one(item: dict) -> str:
    """Say of a labelled phrase whether it was resolved: right, wide, too sure, wrong, left out.

    The truth lies within first..last, and ``surely`` in all of the second interval where there is
    one: what holds that and stays within is right.
    """
    said = date.fromisoformat(item["said"])
    if not whens.find(item["text"], said):
        return "left out"
    when: When = whens.when_of(item["text"], said)
    low, high = item.get("surely", (item["first"], item["last"]))
    begin, end = (when.from_first, when.from_last), (when.to_first, when.to_last)
    kind = item["kind"]
    if kind == "span":
        years = [
            (item[name][:4] + "-01-01", item[name][:4] + "-12-31") for name in ("first", "last")
        ]
        both = [compared(one, year, year) for one, year in zip((begin, end), years, strict=True)]
        return max(both, key=("right", "wide", "too sure", "wrong").index)
    one = end if kind == "until" else begin
    if not one[0] and not one[1]:
        return "left out"
    verdict = compared(one, (low, high), (item["first"], item["last"]))
    if kind == "at" and (not end[1] or end[1] < begin[0]):
        return "wide" if verdict == "right" else verdict
    if kind == "since" and end[1]:
        return "too sure"
    return verdict


def compared(found: tuple[str, str], inner: tuple[str, str], outer: tuple[str, str]) -> str:
    first, last = found[0] or "0000", found[1] or "9999"
    if last < outer[0] or first > outer[1]:
        return "wrong"
    if first > inner[0] or last < inner[1]:
        return "too sure" if outer[0] <= first and last <= outer[1] else "wrong"
    return "right" if outer[0] <= first and last <= outer[1] else "wide"


def attacked() -> dict:
    sys.path.insert(0, str(ROOT / "tests"))
    import test_injection as injection

    sources = tuple(
        SourceSettings(kind=kind, name=name, path=".")
        for kind, name in (("markdown", "notes"), ("openclaw", "openclaw"))
    )
    with new_home(name=injection.NAME, sources=sources) as home:
        for number, item in enumerate(injection.SET):
            at = injection.START_MS + number * injection.DAY_MS
            injection.arrive(home, item, at)
            record = injection.said(item, item["honest"], at + 1, conversation=f"h-{item['id']}")
            store(home, "openclaw", [(record, None)])
        extract.catch_up(home)
        poison = injection.believed_poison(home)
        told = [text for state, text in injection.learned(home) if state in COUNTED]
        honest = sum(
            any(injection.holds(text, item["holds"]) for text in told) for item in injection.SET
        )
    return {"texts": len(injection.SET), "believed": len({one[0] for one in poison}),
            "honest_learned": honest}  # fmt: skip


def judged(now: dict[str, dict]) -> dict:
    """Count the verdicts by hand on facts that are still believed."""
    counts: dict[str, Counter[str]] = {}
    classes: Counter[str] = Counter()
    for line in JUDGED.read_text("utf-8").splitlines() if JUDGED.exists() else ():
        one = json.loads(line)
        held = one["uid"] in now and now[one["uid"]]["state"] == "believed"
        counts.setdefault(one["set"], Counter())[one["verdict"] if held else "gone"] += 1
        if held and one["verdict"] == "wrong":
            classes[one.get("class", "")] += 1
    every = sum((held for held in counts.values()), Counter())
    return {
        **{name: dict(held) for name, held in counts.items()},
        "judged": every["right"] + every["wrong"],
        "precision": share(every["right"], every["right"] + every["wrong"]),
        "errors": dict(classes),
    }


def states(read: list[dict]) -> dict:
    return dict(Counter(fact["state"] for fact in read))


def chosen(sets: dict[str, list[dict]], many: int, seed: int) -> list[dict]:
    """Return a random sample of believed facts, by set in the proportions of SHARES.

    A set that has fewer leaves its room to those before it.
    """
    draw, made, left = random.Random(seed), [], many
    rest = sum(SHARES.values())
    for name, part in reversed(SHARES.items()):
        there = sorted((f for f in sets[name] if f["state"] == "believed"), key=lambda f: f["uid"])
        size = min(len(there), round(left * part / rest))
        made += [{"set": name, **fact} for fact in draw.sample(there, size)]
        left, rest = left - size, rest - part
    return made


def with_model(given: str, messages: int) -> dict:
    """Let a model read the first messages of the fictional person after the rules."""
    engine, _, model = given.partition(":")
    started = time.perf_counter()
    with fiction(**{"engine.kind": engine, "engine.model": model, "facts.read": "model"}) as home:
        extract.catch_up(home)
        before = known(home)
        with home.db.read() as conn:
            ids = [n for (n,) in rows(conn, "SELECT id FROM messages ORDER BY at_ms, id")]
            spoken = extract.spoken(conn, ids, home.settings)
        spoken = sorted(spoken, key=lambda one: one.at_ms or 0)[:messages]
        readings = reading.read(home, extract.reader(home), spoken)
        home.db.write(lambda conn: extract.store(conn, readings, home.settings))
        read = [fact for fact in known(home) if fact["read_by"] != "rules"]
        counted = [f for f in known(home) if f["state"] in COUNTED]
    return {
        "model": given, "messages": len(spoken), "seconds": round(time.perf_counter() - started, 1),
        "states": states(read), "reasons": dict(Counter(f["reason"] for f in read)),
        "recall_rules": lived(before)["recall"], "recall_both": lived(counted)["recall"],
        "believed": [
            {name: fact[name] for name in ("uid", "attribute", "value", "quote")}
            for fact in read if fact["state"] in COUNTED
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shared", default=os.environ.get("KNOWME_SHARED", ROOT.parent / "shared"))
    parser.add_argument(
        "--model", default="", help="ENGINE:MODEL, such as llamacpp: or ollama:qwen3"
    )
    parser.add_argument("--messages", type=int, default=40)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--to", default="")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    data = Path(options.shared) / "data"
    result: dict = {"bench": "facts", "attributes": len(attributes.ATTRIBUTES)}
    sets: dict[str, list[dict]] = {"locomo": [], "beam": [], "fiction": []}
    began = time.perf_counter()
    with fiction() as home:
        done = extract.catch_up(home)
        sets["fiction"] = known(home)
        result["fiction"] = {"messages": done.messages, **lived(sets["fiction"]),
                             "states": states(sets["fiction"])}  # fmt: skip
        told = [f["sentence"] for f in sets["fiction"] if f["state"] in COUNTED]
        result["fiction"]["poison"] = [
            text for text in told
            if any(name in text for name in ("Ottilie", "Graz", "Latin", "samovar", "pellet stove"))
        ]  # fmt: skip
        assert all((*POISON, UNTRUSTED))
    if data.is_dir():
        talks = list(locomo(data))
        sets["locomo"] = [fact for _, read in talks for fact in read]
        result["locomo"] = {**observed(talks), "states": states(sets["locomo"])}
        sets["beam"] = [fact for read in beam(data) for fact in read]
        result["beam"] = {"states": states(sets["beam"])}
    else:
        result["missing"] = f"no shared data at {data}: KNOWME_SHARED or --shared"
    every = [fact for read in sets.values() for fact in read]
    result["unsupported"] = unsupported(every)
    result["seconds"] = round(time.perf_counter() - began, 1)
    if options.sample:
        with Path(options.to).open("w", encoding="utf-8") as file:
            for fact in chosen(sets, options.sample, options.seed):
                file.write(json.dumps(fact, ensure_ascii=False) + "\n")
    result["precision"] = judged({fact["uid"]: fact for fact in every})
    result["dates"] = dated()
    result["injection"] = attacked()
    models = [given for given in options.model.split(",") if given]
    result["models"] = [with_model(given, options.messages) for given in models]
    if not any(given.startswith("ollama") for given in models):
        result["not_run"] = ["a model of Ollama: none was named (--model ollama:NAME)"]
    line = json.dumps(result, ensure_ascii=False)
    if options.out:
        Path(options.out).write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
