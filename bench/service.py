"""What HTTP costs: /search beside the same search in process, and who waits during an ingest.

    python bench/service.py [--items 10000] [--queries 300] [--embedder hashing]

A real `knowme serve` in a process of its own, over a fresh home; each query is asked in process and
over HTTP in turn (kept connection, new connection), so that both see the same machine. The last
line is one JSON object: `http_ratio` is the median of HTTP over the median in process,
`http_cpu_ratio` the same for the CPU time that the server and the process used; `waiting`
compares /health and /search while an ingest embeds with the same at rest. Limits: the overhead
should stay under 3 ms of CPU, /health under 50 ms.
"""

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from knowme.home import Home
from knowme.types import Query

VOCABULARY = 20_000


def sentence(rnd: random.Random, words: int = 18) -> str:
    """Return words that are as unevenly common as those of a language (Zipf)."""
    ranks = (int(VOCABULARY ** rnd.random()) for _ in range(words))
    return " ".join(f"{WORDS[rank % len(WORDS)]}{rank}" for rank in ranks)


WORDS = ("hou", "ren", "tal", "mir", "sop", "dek", "lun", "var", "gim", "pol", "ast", "ber")


def documents(start: int, count: int) -> dict:
    rnd = random.Random(start)
    metas = [{"session": f"s{n // 20}", "speaker": "Ana"} for n in range(start, start + count)]
    ids = [f"d{n}" for n in range(start, start + count)]
    return {"documents": [sentence(rnd) for _ in ids], "ids": ids, "metadatas": metas}


class Client:
    def __init__(self, port: int) -> None:
        self.port, self.kept = port, http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, method: str, path: str, body: dict | None = None, fresh: bool = False) -> dict:
        conn = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=600) if fresh else self.kept
        )
        raw = None if body is None else json.dumps(body).encode()
        conn.request(method, path, raw, {"content-type": "application/json"})
        reply = conn.getresponse()
        told = json.loads(reply.read())
        assert reply.status == 200, told
        if fresh:
            conn.close()
        return told


def timed(work, *args, **more) -> float:
    began = time.perf_counter()
    work(*args, **more)
    return (time.perf_counter() - began) * 1000


def p(values: list[float], percent: int) -> float:
    return round(sorted(values)[min(len(values) - 1, percent * len(values) // 100)], 3)


def cpu_ms(pid: int) -> float | None:
    """Return the CPU time that a process has used, all its threads; None where /proc is absent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def cpu_per_query(pid: int, work, queries: list[str]) -> float | None:
    before = cpu_ms(pid)
    for text in queries:
        work(text)
    after = cpu_ms(pid)
    return None if before is None or after is None else round((after - before) / len(queries), 3)


def while_ingesting(client: Client, queries: list[str], start: int, count: int) -> dict:
    """Ask /health and /search again and again while one big ingest runs."""
    own = Client(client.port)
    ingest = threading.Thread(target=own.ask, args=("POST", "/ingest", documents(start, count)))
    rest = [timed(client.ask, "POST", "/search", {"query": q}) for q in queries[:50]]
    began = time.perf_counter()
    ingest.start()
    health, search = [], []
    while ingest.is_alive():
        health.append(timed(client.ask, "GET", "/health"))
        query = queries[len(search) % len(queries)]
        search.append(timed(client.ask, "POST", "/search", {"query": query}))
        time.sleep(0.005)
    return {
        "ingest_ms": round((time.perf_counter() - began) * 1000),
        "asked": len(search),
        "health_p50_ms": p(health, 50),
        "health_p95_ms": p(health, 95),
        "health_max_ms": p(health, 100),
        "search_p50_ms": p(search, 50),
        "search_p95_ms": p(search, 95),
        "search_max_ms": p(search, 100),
        "search_p50_ratio": round(statistics.median(search) / statistics.median(rest), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--embedder", default="hashing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(args, Path(folder) / "home")))


def run(args: argparse.Namespace, path: Path) -> dict:
    settings = {"embedder.kind": args.embedder, "engine.kind": "echo"}
    Home.create(path)
    env = {
        **os.environ,
        "KNOWME_HOME": str(path),
        "KNOWME_EMBEDDER_KIND": args.embedder,
        "KNOWME_ENGINE_KIND": "echo",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    }
    command = [sys.executable, "-m", "knowme", "serve", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        start_ms = (time.perf_counter() - began) * 1000
        client = Client(int(url.rsplit(":", 1)[1]))
        first_health = timed(client.ask, "GET", "/health")
        for start in range(0, args.items, 500):
            client.ask("POST", "/ingest", documents(start, min(500, args.items - start)))
        rnd = random.Random(7)
        queries = [f"what about {sentence(rnd, 4)}" for _ in range(args.queries)]
        direct, kept, fresh = [], [], []
        with Home.open(path, settings) as home:
            home.search(Query(queries[0]))
            for n, text in enumerate(queries):
                legs = [
                    lambda t=text: direct.append(timed(home.search, Query(t))),
                    lambda t=text: kept.append(timed(client.ask, "POST", "/search", {"query": t})),
                    lambda t=text: fresh.append(
                        timed(client.ask, "POST", "/search", {"query": t}, fresh=True)
                    ),
                ]
                for leg in legs[n % 3 :] + legs[: n % 3]:
                    leg()
            # Wall time tells little on a busy machine; CPU time tells what HTTP itself costs.
            direct_cpu = cpu_per_query(os.getpid(), lambda t: home.search(Query(t)), queries)
            http_cpu = cpu_per_query(
                process.pid, lambda t: client.ask("POST", "/search", {"query": t}), queries
            )
        waiting = while_ingesting(client, queries, args.items, 3000)
    finally:
        process.terminate()
        process.wait(20)
    middle = statistics.median(direct)
    return {
        "bench": "service",
        "items": args.items,
        "queries": args.queries,
        "embedder": args.embedder,
        "direct_p50_ms": round(middle, 3),
        "direct_p95_ms": p(direct, 95),
        "http_p50_ms": p(kept, 50),
        "http_p95_ms": p(kept, 95),
        "http_new_connection_p50_ms": p(fresh, 50),
        "http_ratio": round(statistics.median(kept) / middle, 3),
        "http_new_connection_ratio": round(statistics.median(fresh) / middle, 3),
        "overhead_p50_ms": round(statistics.median(kept) - middle, 3),
        "direct_cpu_ms": direct_cpu,
        "http_server_cpu_ms": http_cpu,
        "http_cpu_ratio": http_cpu and direct_cpu and round(http_cpu / direct_cpu, 3),
        "overhead_cpu_ms": http_cpu and direct_cpu and round(http_cpu - direct_cpu, 3),
        "overhead_cpu_limit_ms": 3,
        "start_ms": round(start_ms),
        "first_health_ms": round(first_health, 2),
        "health_limit_ms": 50,
        "waiting": waiting,
        "loadavg": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
