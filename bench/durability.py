"""What an acknowledged write costs: memory.db, durability full and normal, beside plain sqlite3.

    python bench/durability.py [--rows 400] [--rounds 3] [--folder DIR]

Each contender writes the same rows of about 200 characters into the same table, one transaction a
row ("one") and one a 256 rows ("batch"). The rounds of all contenders alternate and the median of
each counts. The last line is one JSON object; the ratios are the result, the times belong to the
machine. ``fsync_us`` is the disk's own price of one synced 4 KB write, the floor of "full".
"""

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from knowme.db import Database  # noqa: E402

BATCH = 256
TEXT = "The heat pump comes in May, and the old boiler goes to the neighbour's barn. " * 3
INSERT = "INSERT INTO marks(source, unit, state, updated_ms) VALUES('bench', ?, ?, 1)"


class Ours:
    """memory.db as the house opens it."""

    def __init__(self, folder, durability):
        self.store = Database(folder / "memory.db", durability=durability)

    def write(self, rows):
        self.store.write(lambda conn: conn.executemany(INSERT, rows))

    def close(self):
        self.store.close()


class Plain:
    """The standard library's sqlite3, in the same journal mode or in its own default."""

    def __init__(self, folder, journal, synchronous):
        self.conn = sqlite3.connect(folder / "plain.db", isolation_level=None)
        self.conn.execute(f"PRAGMA journal_mode={journal}")
        self.conn.execute(f"PRAGMA synchronous={synchronous}")
        self.conn.execute(
            "CREATE TABLE marks(source TEXT NOT NULL, unit TEXT NOT NULL, state TEXT NOT NULL,"
            " updated_ms INTEGER NOT NULL, PRIMARY KEY(source, unit)) WITHOUT ROWID"
        )

    def write(self, rows):
        self.conn.execute("BEGIN IMMEDIATE")
        self.conn.executemany(INSERT, rows)
        self.conn.execute("COMMIT")

    def close(self):
        self.conn.close()


CONTENDERS = {
    "knowme_full": lambda folder: Ours(folder, "full"),
    "knowme_normal": lambda folder: Ours(folder, "normal"),
    "sqlite3_wal_full": lambda folder: Plain(folder, "WAL", "FULL"),
    "sqlite3_wal_normal": lambda folder: Plain(folder, "WAL", "NORMAL"),
    "sqlite3_default": lambda folder: Plain(folder, "DELETE", "FULL"),
}


def one_round(make, folder, count):
    """Return (microseconds a row alone, microseconds a row in a batch)."""
    folder.mkdir()
    store = make(folder)
    try:
        began = time.perf_counter()
        for number in range(count):
            store.write([(f"a{number}", TEXT)])
        alone = (time.perf_counter() - began) / count
        batches = max(4, count // 64)
        rows = [[(f"b{b}-{n}", TEXT) for n in range(BATCH)] for b in range(batches)]
        began = time.perf_counter()
        for batch in rows:
            store.write(batch)
        together = (time.perf_counter() - began) / (batches * BATCH)
    finally:
        store.close()
    return alone * 1e6, together * 1e6


def fsync_floor(folder, count):
    """Return the median microseconds of a 4 KB write that is synced."""
    times = []
    with (folder / "floor").open("wb", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def measure(folder, count, rounds):
    found = {name: ([], []) for name in CONTENDERS}
    floor = []
    for number in range(rounds):
        floor.append(fsync_floor(folder, 50))
        for name, make in CONTENDERS.items():
            alone, together = one_round(make, folder / f"{name}-{number}", count)
            found[name][0].append(alone)
            found[name][1].append(together)
    one = {name: statistics.median(times[0]) for name, times in found.items()}
    batch = {name: statistics.median(times[1]) for name, times in found.items()}
    return {
        "bench": "durability",
        "rows": count,
        "rounds": rounds,
        "fsync_us": round(statistics.median(floor)),
        "one_us": {name: round(time) for name, time in one.items()},
        "batch256_us_a_row": {name: round(time, 1) for name, time in batch.items()},
        "ratios": {
            "one_full_to_normal": ratio(one, "knowme_full", "knowme_normal"),
            "batch_full_to_normal": ratio(batch, "knowme_full", "knowme_normal"),
            "one_full_to_batch_full": round(one["knowme_full"] / batch["knowme_full"], 2),
            "one_full_to_sqlite3_wal_full": ratio(one, "knowme_full", "sqlite3_wal_full"),
            "one_normal_to_sqlite3_wal_normal": ratio(one, "knowme_normal", "sqlite3_wal_normal"),
            "one_full_to_sqlite3_default": ratio(one, "knowme_full", "sqlite3_default"),
            "batch_full_to_sqlite3_wal_full": ratio(batch, "knowme_full", "sqlite3_wal_full"),
        },
    }


def ratio(times, ours, peer):
    return round(times[ours] / times[peer], 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="On the disk to measure; default: temporary")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        print(json.dumps(measure(Path(folder), given.rows, given.rounds)))


if __name__ == "__main__":
    main()
