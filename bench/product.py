"""The product's own cost, as sections of speed.py: ingest, search, ask.

Texts are those of the fictional person, varied: the lengths and words of a real log, nobody's own.
"""

import argparse
import asyncio
import gc
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from knowme.ask import Asked, Done, Started, ask
from knowme.fiction.build import exchanges, questions
from knowme.home import Home
from knowme.sync import store
from knowme.types import Query, Record

OFFLINE = {"engine.kind": "echo"}


def family_cpu() -> float:
    """CPU seconds of this process and its running children (Linux; elsewhere: ours only)."""
    total = time.process_time()
    try:
        mine = subprocess.run(
            ["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False
        ).stdout.split()
    except OSError:
        return total
    tick = os.sysconf("SC_CLK_TCK")
    for pid in mine:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / tick
        except (OSError, IndexError, ValueError):
            continue
    return total


def texts(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (role, text): the life first, then the life with every third word exchanged."""
    life = []
    for exchange in exchanges():
        life += [("user", exchange.words), ("assistant", "\n\n".join(exchange.answers))]
    words = [word for _, text in life for word in text.split()]
    chance = random.Random(seed)
    for number in range(count):
        role, text = life[number % len(life)]
        if number >= len(life):
            pieces = text.split()
            for _ in range(max(1, len(pieces) // 3)):
                pieces[chance.randrange(len(pieces))] = chance.choice(words)
            text = " ".join(pieces)
        yield role, text


def records(count: int) -> Iterator[tuple[Record, None]]:
    for number, (role, text) in enumerate(texts(count)):
        at_ms = 1_700_000_000_000 + number * 60_000
        yield Record("message", f"s{number // 20}", f"m{number}", role, text=text, at_ms=at_ms,
                     seq=number % 20), None  # fmt: skip


def spread(samples: list[float]) -> dict[str, float]:
    samples = sorted(samples)
    return {
        "p50": round(samples[len(samples) // 2], 2),
        "p95": round(samples[int(0.95 * len(samples))], 2),
    }


def resident_mb() -> float:
    try:
        return round(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6, 1)
    except OSError:
        return 0.0


def ingest_section(options: argparse.Namespace) -> dict[str, object]:
    """1,000 messages: without embeddings, and with each embedder; CPU of the worker included."""
    out: dict[str, object] = {}
    for kind in ("none", "hashing", "static", "local", "onnx"):
        with tempfile.TemporaryDirectory() as folder:
            Home.create(Path(folder) / "h")
            with Home.open(Path(folder) / "h", {**OFFLINE, "embedder.kind": kind}) as home:
                if home.embedder is not None:
                    home.embedder.embed(["warm up"], "document")
                cpu, wall = family_cpu(), time.perf_counter()
                store(home, "bench", records(1000))
                out[kind] = {
                    "cpu_s_per_1000": round(family_cpu() - cpu, 2),
                    "messages_per_s": round(1000 / (time.perf_counter() - wall)),
                }
        print(f"ingest {kind} {out[kind]}", file=sys.stderr)
    return out


def search_section(options: argparse.Namespace) -> dict[str, object]:
    """The whole search beyond the query's embedding (hashing: 0.1 ms), by index and size."""
    sizes = [10_000, 100_000, *([1_000_000] if options.million else [])]
    out: dict[str, object] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            Home.create(Path(folder) / "h")
            with Home.open(Path(folder) / "h", {**OFFLINE, "embedder.kind": "hashing"}) as home:
                store(home, "bench", records(size))
            for kind in options.indexes.split(","):
                if size >= 100_000 and kind == "chroma" and not options.slow_peers:
                    continue  # 70 cpu-s to fill at 100,000
                settings = {**OFFLINE, "embedder.kind": "hashing", "index.kind": kind}
                with Home.open(Path(folder) / "h", settings) as home:
                    out[f"{kind} {size}"] = _searches(home)
                gc.collect()
                print(f"search {kind} {size} {out[f'{kind} {size}']}", file=sys.stderr)
    return out


def _searches(home: Home) -> dict[str, object]:
    began = time.perf_counter()
    home.search(Query("warm up"))
    first = time.perf_counter() - began
    wall, cpu = [], []
    asked = [question.question for question in questions()] * 3
    for text in asked:
        home.search(Query(text))  # the counts of its words are cached, as in a running service
        a, b = time.perf_counter(), time.process_time()
        home.search(Query(text))
        wall.append((time.perf_counter() - a) * 1e3)
        cpu.append((time.process_time() - b) * 1e3)
    return {
        "wall_ms": spread(wall),
        "cpu_ms": spread(cpu),
        "first_s": round(first, 2),
        "rss_mb": resident_mb(),
    }


def ask_section(options: argparse.Namespace) -> dict[str, object]:
    """What one ask costs beyond the model's own time, with the packaged models."""
    out: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        Home.create(Path(folder) / "h")
        base = {"embedder.kind": "auto", "engine.kind": "llamacpp"}
        with Home.open(Path(folder) / "h", {**base, "embedder.threads": 1}) as home:
            store(home, "bench", records(2000))
        for mode in ("never", "always"):
            settings = {**base, "ask.quote_first": mode, "engine.max_tokens": 128}
            with Home.open(Path(folder) / "h", settings) as home:
                out[f"quote_first {mode}"] = asyncio.run(_asks(home))
            print(f"ask {mode} {out[f'quote_first {mode}']}", file=sys.stderr)
    return out


async def _asks(home: Home) -> dict[str, object]:
    own, model, shares = [], [], []
    for number, question in enumerate(questions()[:9]):
        began = time.perf_counter()
        started = done = began
        spent = 0.0
        async for event in ask(home, Asked(question.question, surface="bench")):
            if isinstance(event, Started):
                started = time.perf_counter()
            if isinstance(event, Done):
                done = time.perf_counter()
                spent = event.usage.total_ms / 1e3
        if number == 0 or spent <= 0:
            continue  # the first starts the models; an unknown one asks no model
        own.append((done - began - spent) * 1e3)
        model.append(spent * 1e3)
        shares.append((done - began - spent) / spent)
        del started
    return {
        "asks": len(own),
        "own_ms": round(statistics.median(own), 1),
        "model_ms": round(statistics.median(model), 1),
        "own_share_of_model": round(statistics.median(shares), 4),
    }


SECTIONS = {"ingest": ingest_section, "search": search_section, "ask": ask_section}
