"""Chats: what a stable prompt saves, what passing through costs, and whether streams get crossed.

    python bench/chat.py [--turns 20] [--recalled 400] [--pairs 40] [--clients 32]
                         [--only turns,through,clients]

Three parts, on the packaged chat model in llama.cpp. The last line is one JSON object:

* `turns`: a conversation about the fictional person with knowme's composition (what is stable in
  front, what is recalled beside the question), and the same messages composed the naive way:
  profile and recall, the most relevant first, in front of the history at each turn. Prompt tokens
  that the model had to evaluate (prompt_tokens - cached_tokens) and the time to the first token;
  `evaluated_ratio` is naive over knowme, over all turns after the third. Expected: 3 or more. What
  is recalled is bounded as for any very small model (400 tokens): it is read anew at each turn by
  both, so the ratio falls as it grows.
* `through`: /v1 of `knowme serve` against the llama.cpp server behind it, one client, the same
  requests in turn; `total_overhead` and `first_token_overhead` are the medians of the paired
  ratios, less 1. Expected: under 0.05. `null_*` pairs the bare server with itself.
* `clients`: as many streams at once through knowme. Each must give the very JSON that its own
  schema allows and no other's, end with a finish reason, its usage and [DONE]. Expected: `lost`,
  `crossed` and `broken` are 0.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from knowme import modelstore
from knowme.ask import Asked, Done, ask, why
from knowme.configfile import add_source
from knowme.fiction.build import build, questions
from knowme.home import Home
from knowme.settings import SourceSettings
from knowme.sync import sync
from knowme.types import ChatMessage, Options

ROOT = Path(__file__).resolve().parent.parent
AT_MS = 1_776_070_800_000  # the day after the last word of the story
FENCE = "</recalled>"
ANSWER_TOKENS = 96


# --- turns ----------------------------------------------------------------------------------------


def turns(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "home"
        build(Path(folder) / "openclaw")
        Home.create(path)
        (path / "USER.md").write_text(profile(random.Random(7)), encoding="utf-8")
        add_source(path, SourceSettings("openclaw", str(Path(folder) / "openclaw")))
        settings = {
            "engine.kind": "llamacpp",
            "engine.context_tokens": 8192,
            "engine.temperature": 0.0,
            "ask.quote_first": "never",
            "ask.history_tokens": 4000,
            "ask.recalled_tokens": args.recalled,
            "context.workspace": str(path),
            "context.strategies": ["files", "memory", "recent", "recall"],
        }
        with Home.open(path, settings) as home:
            sync(home)
            return asyncio.run(compared(home, args.turns))


def profile(rnd: random.Random) -> str:
    facts = [f"- Preference {n}: {rnd.choice(LIKES)} {rnd.choice(THINGS)}." for n in range(40)]
    return "# About the person\n\n" + "\n".join(facts) + "\n"


LIKES = ("likes", "avoids", "collects", "dreams of", "has no time for", "writes about")
THINGS = ("old radios", "rye bread", "night trains", "chess problems", "wild swimming", "maps")


async def compared(home: Home, count: int) -> dict:
    asked = [each.question for each in questions() if each.kind != "unknown"][:count]
    composed = []
    for text in asked:
        wanted = Asked(
            text, conversation="bench", surface="bench", now_ms=AT_MS, max_tokens=ANSWER_TOKENS
        )
        events = [event async for event in ask(home, wanted)]
        done = events[-1]
        assert isinstance(done, Done)
        composed.append((done.usage, why(home, str(done.receipt_id))["prompt"]))
    ours = [usage for usage, _ in composed]
    theirs = []
    async with home.models.use(home.models.primary) as engine:
        for n, (_, prompt) in enumerate(composed):
            options = Options(max_tokens=1, temperature=0.0)
            async for chunk in engine.stream(naive(prompt, random.Random(n)), options):
                if chunk.usage is not None:
                    theirs.append(chunk.usage)
    late = slice(3, None)
    return {
        "turns": len(asked),
        "prompt_tokens": [u.prompt_tokens for u in ours],
        "evaluated": [u.prompt_tokens - u.cached_tokens for u in ours],
        "naive_prompt_tokens": [u.prompt_tokens for u in theirs],
        "naive_evaluated": [u.prompt_tokens - u.cached_tokens for u in theirs],
        "evaluated_ratio": ratio(
            [u.prompt_tokens - u.cached_tokens for u in theirs[late]],
            [u.prompt_tokens - u.cached_tokens for u in ours[late]],
        ),
        "first_token_ms": round(statistics.median(u.first_token_ms for u in ours[late]), 1),
        "naive_first_token_ms": round(statistics.median(u.first_token_ms for u in theirs[late]), 1),
        "first_token_ratio": ratio(
            [u.first_token_ms for u in theirs[late]], [u.first_token_ms for u in ours[late]]
        ),
    }


def ratio(above: list[float], below: list[float]) -> float:
    return round(sum(above) / max(1e-9, sum(below)), 2)


def naive(prompt: list[dict], rnd: random.Random) -> list[ChatMessage]:
    """Return the same prompt with profile and recall in front, in another order at each turn."""
    system, *said, last = prompt
    notes, fence, question = last["content"].partition(FENCE)
    instructions, _, facts = system["content"].partition("- Preference")
    lines = f"- Preference{facts}".splitlines() if facts else []
    rnd.shuffle(lines)
    front = "\n".join([instructions, *lines, notes + fence if fence else ""])
    messages = [("system", front), *((m["role"], m["content"]) for m in said)]
    messages.append(("user", question.strip() if fence else last["content"]))
    return [ChatMessage(role, text) for role, text in messages]


# --- servers --------------------------------------------------------------------------------------


@contextmanager
def llama_server() -> Iterator[int]:
    """Give the port of a bare llama.cpp server with the packaged chat model."""
    program = ROOT / "tests" / "contracts" / "llama_server.py"
    model = modelstore.path(modelstore.DEFAULT_CHAT)
    process = subprocess.Popen(
        [sys.executable, str(program), str(model), "chat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        yield int(process.stdout.readline().strip().rsplit(":", 1)[1])
    finally:
        process.stdin.close()
        process.wait(10)


@contextmanager
def knowme_server(folder: Path, behind: int) -> Iterator[int]:
    """Give the port of `knowme serve` in front of a llama.cpp server."""
    Home.create(folder)
    env = {
        **os.environ,
        "KNOWME_HOME": str(folder),
        "KNOWME_EMBEDDER_KIND": "hashing",
        "KNOWME_ENGINE_KIND": "openai",
        "KNOWME_ENGINE_URL": f"http://127.0.0.1:{behind}/v1",
        "KNOWME_ENGINE_MODEL": "chat",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "knowme", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        port = int(url.rsplit(":", 1)[1])
        while json.loads(get(port, "/health"))["warming"]:
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def get(port: int, path: str) -> bytes:
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    conn.request("GET", path)
    return conn.getresponse().read()


def streamed(port: int, body: dict) -> tuple[float, float, list[dict], bool]:
    """Ask; return (ms to the first text, ms to the end, the events, whether [DONE] came)."""
    began, first, events, done = time.perf_counter(), 0.0, [], False
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    data = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}})
    conn.request("POST", "/v1/chat/completions", data, {"content-type": "application/json"})
    reply = conn.getresponse()
    assert reply.status == 200, reply.read()
    for line in reply:
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            done = True
            continue
        if not first and b'"content":"' in line and b'"content":""' not in line:
            first = time.perf_counter()
        events.append(line)
    end = time.perf_counter()
    conn.close()
    told = [json.loads(line[6:]) for line in events]
    return (first - began) * 1000, (end - began) * 1000, told, done


# --- through --------------------------------------------------------------------------------------


def request(n: int) -> dict:
    """Return a request of about 200 tokens that no cache has seen, with an answer of 48."""
    rnd = random.Random(n)
    notes = " ".join(f"{rnd.choice(LIKES)} {rnd.choice(THINGS)}," for _ in range(24))
    text = f"Request {n}. Somebody {notes} and so on. Tell a long story about it."
    message = {"role": "user", "content": text}
    return {"model": "chat", "messages": [message], "max_tokens": 48, "temperature": 0, "seed": 1}


def through(pairs: int, bare: int, knowme: int) -> dict:
    for port in (bare, knowme):
        streamed(port, request(0))
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "knowme": [], "again": []}
    for n in range(pairs):
        legs = [("bare", bare), ("knowme", knowme), ("again", bare)]
        for name, port in legs[n % 3 :] + legs[: n % 3]:
            # Another request in between: whoever comes second must not find the prompt cached.
            body = request(1 + n)
            body["messages"][0]["content"] = f"{name[::-1]} {body['messages'][0]['content']}"
            first, total, _, done = streamed(port, body)
            assert done
            times[name].append((first, total))
    told: dict = {"pairs": pairs}
    for at, what in enumerate(("first_token", "total")):
        plain = [each[at] for each in times["bare"]]
        told[f"bare_{what}_ms"] = round(statistics.median(plain), 2)
        told[f"knowme_{what}_ms"] = round(statistics.median(e[at] for e in times["knowme"]), 2)
        for name, key in (("knowme", f"{what}_overhead"), ("again", f"null_{what}_overhead")):
            ratios = [e[at] / p for e, p in zip(times[name], plain, strict=True)]
            told[key] = round(statistics.median(ratios) - 1, 4)
    return told


# --- clients --------------------------------------------------------------------------------------


def wanted(n: int) -> dict:
    """Return the one object that client n may be given."""
    rnd = random.Random(n)
    return {"client": f"client-{n}", "words": [f"{rnd.choice(THINGS)} {n}-{m}" for m in range(4)]}


def exactly(n: int) -> dict:
    """Return a request whose schema allows that object alone."""
    told = wanted(n)
    fields = {
        "client": {"const": told["client"]},
        **{f"word{m}": {"const": word} for m, word in enumerate(told["words"])},
    }
    schema = {
        "type": "object", "properties": fields, "required": list(fields),
        "additionalProperties": False,
    }  # fmt: skip
    return {
        "model": "chat",
        "messages": [{"role": "user", "content": f"Repeat: {json.dumps(told)}"}],
        "max_tokens": 200,
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    }


def clients(many: int, port: int) -> dict:
    def one(n: int) -> str:
        try:
            _, _, events, done = streamed(port, exactly(n))
        except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
            return f"lost ({type(error).__name__}: {str(error)[:100]})"
        text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
        ended = [c["finish_reason"] for e in events for c in e["choices"] if c["finish_reason"]]
        usage = [e["usage"] for e in events if e.get("usage")]
        whole = (
            done and ended == ["stop"] and len(usage) == 1 and len({e["id"] for e in events}) == 1
        )
        told = wanted(n)
        right = {"client": told["client"], **{f"word{m}": w for m, w in enumerate(told["words"])}}
        try:
            if json.loads(text) == right:
                return "right" if whole else f"broken (ended {ended}, done {done})"
        except ValueError:
            pass
        others = [m for m in range(many) if m != n and f'client-{m}"' in text]
        return f"crossed with {others}" if others else f"broken ({text[:80]!r})"

    began = time.perf_counter()
    with ThreadPoolExecutor(many) as pool:
        found = list(pool.map(one, range(many)))
    wrong = [f"{n}: {each}" for n, each in enumerate(found) if each != "right"]
    return {
        "clients": many,
        "right": found.count("right"),
        **{kind: sum(each.startswith(kind) for each in found)
           for kind in ("lost", "crossed", "broken")},
        "seconds": round(time.perf_counter() - began, 1),
        "wrong": wrong[:5],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--recalled", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--only", default="turns,through,clients")
    args = parser.parse_args()
    parts = args.only.split(",")
    told: dict = {"bench": "chat", "model": modelstore.DEFAULT_CHAT}
    if "turns" in parts:
        told["turns"] = turns(args)
    if {"through", "clients"} & set(parts):
        with tempfile.TemporaryDirectory() as folder, llama_server() as bare:
            with knowme_server(Path(folder) / "home", bare) as port:
                if "through" in parts:
                    told["through"] = through(args.pairs, bare, port)
                if "clients" in parts:
                    told["clients"] = clients(args.clients, port)
    print(json.dumps({**told, "loadavg": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
