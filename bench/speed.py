"""How fast is it, and at what cost: python bench/speed.py [--sections index,...] [--million].

Progress goes to stderr; the last line of stdout is one JSON object. Everything is compared within
one run, on one thread, against named peers (brute force, sqlite-vec, Chroma), because machines and
their other tenants differ: trust the ratios, and read the milliseconds as this machine's today.
Times are medians of the wall clock, with the CPU time of the process beside them.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

for name in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402 (the number of threads comes first)
import product  # noqa: E402

DIMS = 384
SIZES = {"10k": 10_000, "100k": 100_000, "1M": 1_000_000}
QUERIES = 60
BATCH = 5_000


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB."""
    # Linux counts in KB, macOS in bytes.
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (1 << 20 if sys.platform == "darwin" else 1024), 1)


def resident_mb() -> dict[str, float]:
    """Return resident memory now: all of it, and the part that is not a mapped file."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        kb = {name: int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon")}
        return {"all": round(kb["VmRSS"] / 1024, 1), "own": round(kb["RssAnon"] / 1024, 1)}
    except (OSError, KeyError, ValueError):
        return {"all": peak_mb(), "own": peak_mb()}


def disk_mb(folder: Path) -> float:
    """Return what the files of a folder take, in MB."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / (1 << 20), 1)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return (wall seconds, CPU seconds of the process) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def spread(samples: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return p50 and p95 of the wall clock and the median CPU time, in ms."""
    wall, cpu = np.array(samples).T * 1000
    return {
        "p50_ms": round(float(np.percentile(wall, 50)), 3),
        "p95_ms": round(float(np.percentile(wall, 95)), 3),
        "cpu_ms": round(float(np.percentile(cpu, 50)), 3),
    }


# --- index ---------------------------------------------------------------------------------------


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Make (count, DIMS) unit vectors as sentence models do: clusters in a narrow cone.

    The spectrum falls as that of MiniLM over conversations; --vectors FILE.npy brings real ones.
    """
    chance = np.random.default_rng(seed)
    scale = (np.arange(1, DIMS + 1, dtype=np.float32) ** -0.35)[None]
    centres = chance.standard_normal((2_000, DIMS), dtype=np.float32) * scale
    out = np.empty((count, DIMS), np.float32)
    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        noise = chance.standard_normal((size, DIMS), dtype=np.float32) * scale
        out[start : start + size] = centres[chance.integers(0, 2_000, size)] + noise
    return unit(out + 0.05)


def unit(found: np.ndarray) -> np.ndarray:
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def real(path: Path, count: int) -> np.ndarray:
    """Return ``count`` vectors from a file and QUERIES others of it as questions, at the end.

    Where the file has fewer, near copies are added: a step between two others, 0.2 to 0.7 long.
    """
    given = np.load(path).astype(np.float32)
    chance = np.random.default_rng(1)
    given = given[chance.permutation(len(given))]
    questions, given = given[:QUERIES], given[QUERIES : QUERIES + count]
    out = np.empty((count + QUERIES, given.shape[1]), np.float32)
    out[: len(given)] = given
    for start in range(len(given), count, 50_000):
        size = min(50_000, count - start)
        one, two, three = given[chance.integers(0, len(given), (3, size))]
        step = two - three
        step /= np.linalg.norm(step, axis=1, keepdims=True) + 1e-9
        out[start : start + size] = one + chance.uniform(0.2, 0.7, (size, 1)) * step
    out[count:] = questions
    return unit(out)


class Brute:
    """The limit: one float32 matrix in memory, one product a query."""

    def __init__(self, **_: object) -> None:
        self.rows: list[np.ndarray] = []

    def upsert(self, ids: Sequence[int], found: np.ndarray) -> None:
        self.rows.append(found)

    def search(self, vector: np.ndarray, k: int, allowed=None) -> list[tuple[int, float]]:
        if len(self.rows) > 1:
            self.rows = [np.concatenate(self.rows)]
        scores = self.rows[0] @ vector
        top = np.argpartition(-scores, k)[:k]
        return [(int(at), float(scores[at])) for at in top[np.argsort(-scores[top])]]

    def close(self) -> None:
        pass


def one_index(kind: str, size: int, source: str) -> dict[str, object]:
    """Fill one index and search it, alone in this process; ``brute`` is the limit."""
    from knowme import plugins

    made = real(Path(source), size) if source else vectors(size + QUERIES)
    rows, questions = made[:size], made[size:]
    dims = rows.shape[1]
    base = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        find = Brute if kind == "brute" else plugins.find("indexes", kind)
        index = find(folder=Path(folder), dims=dims, fingerprint="bench")

        def fill() -> None:
            for start in range(0, size, BATCH):
                part = slice(start, min(start + BATCH, size))
                index.upsert(range(part.start, part.stop), rows[part])
            if kind != "brute":
                index.flush(size)

        insert = timed(fill)
        say(f"  {kind} {size:,}: filled in {insert[0]:.1f} s")
        reopened = None
        if kind != "brute":
            index.close()
            opened = timed(
                lambda: find(folder=Path(folder), dims=dims, fingerprint="bench").close()
            )
            reopened = round(opened[0] * 1000, 1)
            index = find(folder=Path(folder), dims=dims, fingerprint="bench")
            missed = index.position()  # what it had not written yet, as memory.db would replay it
            index.upsert(range(missed, size), rows[missed:])
        index.search(questions[0], 10)
        memory = resident_mb()
        ten = [timed(lambda q=q: index.search(q, 10)) for q in questions]
        hundred = [timed(lambda q=q: index.search(q, 100)) for q in questions]
        found = [{key for key, _ in index.search(q, 100)} for q in questions]
        after = resident_mb()
        result: dict[str, object] = {
            "insert_s": round(insert[0], 2),
            "insert_cpu_s": round(insert[1], 2),
            "k10": spread(ten),
            "k100": spread(hundred),
            "recall_at_100": recall(rows, questions, found),
            "disk_mb": disk_mb(Path(folder)),
            "rss_added_mb": round(max(memory["all"], after["all"]) - base["all"], 1),
            "own_added_mb": round(max(memory["own"], after["own"]) - base["own"], 1),
        }
        if reopened is not None:
            some = np.arange(0, size, 7)
            result["open_ms"] = reopened
            result["filtered_k10"] = spread(
                [timed(lambda q=q: index.search(q, 10, some)) for q in questions[:20]]
            )
            few = list(range(0, size, max(1, size // 300)))
            result["scores_of_300"] = spread(
                [timed(lambda q=q: index.scores(q, few)) for q in questions]
            )
        index.close()
    return result


def recall(rows: np.ndarray, questions: np.ndarray, found: Sequence[set[int]]) -> float:
    """Return the share of the 100 true nearest that were found."""
    hits = 0
    for question, got in zip(questions, found, strict=True):
        hits += len(got & set(np.argpartition(-(rows @ question), 100)[:100].tolist()))
    return round(hits / (100 * len(found)), 4)


def index_section(options: argparse.Namespace) -> dict[str, object]:
    """Every index at every size, each in a process of its own so that memory can be told apart."""
    sizes = ["10k", "100k", *(["1M"] if options.million else [])]
    out: dict[str, object] = {"dims": DIMS, "vectors": "real" if options.vectors else "synthetic"}
    for size in sizes:
        table: dict[str, dict[str, object]] = {}
        for kind in ("brute", *options.indexes.split(",")):
            if size == "1M" and kind == "chroma" and not options.slow_peers:
                say("  chroma at 1M takes an hour to fill: only with --slow-peers")
                continue
            say(f"index: {kind} at {size}")
            command = [sys.executable, __file__, "--one-index", kind, str(SIZES[size])]
            done = subprocess.run(
                [*command, "--vectors", options.vectors or ""], stdout=subprocess.PIPE, text=True
            )
            if done.returncode:
                say(f"  {kind} at {size} is left out: it failed")
                continue
            table[kind] = json.loads(done.stdout.splitlines()[-1])
        out[size] = {**table, "peers_cost_of_numpys": ratios(table)}
    return out


def ratios(table: dict[str, dict[str, object]]) -> dict[str, dict[str, float]]:
    """Return how many times longer each peer searches than the default index (k = 10, medians)."""
    if "numpy" not in table:
        return {}
    ours = table["numpy"]["k10"]
    return {
        kind: {
            "wall": round(row["k10"]["p50_ms"] / ours["p50_ms"], 2),
            "cpu": round(row["k10"]["cpu_ms"] / ours["cpu_ms"], 2),
            "insert_cpu": round(row["insert_cpu_s"] / max(table["numpy"]["insert_cpu_s"], 0.01), 2),
        }
        for kind, row in table.items()
        if kind != "numpy"
    }


# --- the run -------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "index": index_section,
    **product.SECTIONS,
}
"""Name -> a function of the options that returns what goes into the JSON under that name."""


def machine() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--indexes", default="numpy,sqlite_vec,chroma")
    parser.add_argument("--million", action="store_true", help="1M items too: minutes, 4 GB")
    parser.add_argument("--slow-peers", action="store_true", help="peers that need an hour too")
    parser.add_argument("--vectors", default="", help="a .npy of real vectors (n, dims)")
    parser.add_argument("--one-index", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_index:
        kind, size = options.one_index
        print(json.dumps(one_index(kind, int(size), options.vectors)))
        return
    wanted = options.sections.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    result: dict[str, object] = {"bench": "speed", "machine": machine()}
    for name in wanted:
        result[name] = SECTIONS[name](options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
