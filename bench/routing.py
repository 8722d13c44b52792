"""Does routing pay? Gain models against baselines, PERSONAL against COMPLEX, and learning online.

    python bench/routing.py [--shared ../shared] [--cache FOLDER] [--seeds 20] [--held FILE]
                            [--quick] [--out FILE]

On ../shared/data/routing. Prints a table to stderr and one JSON line to stdout.

APGR (RouteLLM, Ong et al. 2024): the performance gap recovered, (accuracy of the router - weak) /
(strong - weak), averaged over shares 0, .1 ... 1 of calls to the strong model; CPT50: the share of
calls that recovers half of the gap. Ties count as drawn by lot, in expectation. Each seed draws the
prompts to train on and the held-out ones anew; nothing is tuned on the held-out ones. --held scores
what ships (fitted on labels-dev.jsonl) on a file of labels that it never saw.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fit_priors as priors  # noqa: E402
import online  # noqa: E402

from knowme import questions  # noqa: E402
from knowme.gain import Gain, features  # noqa: E402
from knowme.intents import classify  # noqa: E402

GRID = np.arange(11) / 10
HELD = {"mmlu": 1900, "gsm8k": 332}
MINILM = "onnx:minilm-int8@bench:384:none:256"


# --- measures ------------------------------------------------------------------------------------


def recovered(score: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return (n + 1,) the gap recovered when the k best-scored prompts go to the strong model."""
    _, place = np.unique(-score, return_inverse=True)
    alike = np.bincount(place, gain) / np.bincount(place)
    return np.concatenate([[0.0], np.cumsum(alike[np.sort(place)])]) / gain.sum()


def apgr(score: np.ndarray, gain: np.ndarray) -> float:
    curve = recovered(score, gain)
    return float(np.interp(GRID * len(gain), np.arange(len(curve)), curve).mean())


def cpt(score: np.ndarray, gain: np.ndarray, share: float = 0.5) -> float:
    return float(np.argmax(recovered(score, gain) >= share) / len(gain))


def ece(probability: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error: |said - was|, over bins of what was said."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(probability[place == b].mean() - right[place == b].mean()) * (place == b).mean()
            for b in range(bins)
            if (place == b).any()
        )
    )


# --- baselines -----------------------------------------------------------------------------------

# litellm's complexity router as its documentation tells it: seven weighted signs. What one hit and
# two hits of a list count was asked of the program itself (1.109.1, run over the same prompts: see
# knowme/data/README.md for its own figures beside these); the lists are ours, in their sense.
LITELLM = {
    "code": (0.30, 0.5, 1.0, "function|class|method|api|endpoint|database|sql|query|python|"
             "javascript|typescript|java|rust|code|algorithm|debug|error|exception|import|export|"
             "async|await|return|var|let|const|try|catch|commit|branch|merge|request|response|"
             "react|angular|node|docker|kubernetes|json|regex|implement|refactor|compile"),
    "reasoning": (0.25, 0.7, 1.0, "step by step|think through|reason through|explain why|"
                  "break down|pros and cons|analyze this|compare and contrast|evaluate|conclude|"
                  "infer|logical|let's think|justify|critique|weigh the options|chain of thought"),
    "technical": (0.25, 0.0, 0.5, "architecture|distributed|microservice|scalability|protocol|"
                  "encryption|latency|throughput|concurrency|optimization|machine learning|neural|"
                  "infrastructure|cryptography|authentication|load balancing|caching|pipeline"),
    "simple": (-0.05, 1.0, 1.0, "what is|what's|define|definition of|who is|who was|when is|"
               "when did|where is|how many|how much|hello|hi|hey|thanks|thank you|simple|short|"
               "quick|brief|yes or no"),
}  # fmt: skip
_WORDS = {
    name: [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)") for word in told.split("|")]
    for name, (*_, told) in LITELLM.items()
}
_STEPS = re.compile(r"\bfirst\b.*\bthen\b|\bstep\s*\d|\d+\.\s|[a-z]\)\s", re.DOTALL)


def litellm_like(text: str) -> float:
    """Return a complexity: tokens, code, reasoning, terms, simple openings, steps, questions."""
    low = text.lower()
    tokens = len(text) // 4
    score = 0.10 * (-1.0 if tokens < 15 else 1.0 if tokens > 400 else 0.0)
    for name, (weight, one, more, _) in LITELLM.items():
        found = sum(bool(pattern.search(low)) for pattern in _WORDS[name])
        score += weight * (0.0, one, more)[min(found, 2)]
    return score + 0.03 * 0.5 * bool(_STEPS.search(low)) + 0.02 * 0.5 * (text.count("?") > 3)


GREETINGS = "hi hello hey good morning good evening thanks thank you bye olá bom dia hola hallo"
PERSONAL_WORDS = (
    "i like|i love|i hate|i prefer|my favorite|my favourite|i enjoy|i usually|every day|my routine|"
    "every morning|i always|remind me|my name|remember|my wife|my husband|my birthday|my schedule"
)
COMPLEX_WORDS = "explain|analyze|compare|write|code|function|prove|translate|summarize|why|how does"


def plan_heuristic(text: str) -> tuple[bool, float]:
    """Return (personal, probability said): keywords, then under 100 characters and no code."""
    low = " ".join(re.findall(r"[\w']+", text.lower()))
    code = questions.is_code(text) or "```" in text
    greets = any(low == word or low.startswith(f"{word} ") for word in GREETINGS.split())
    if not code and (greets or any(word in low for word in PERSONAL_WORDS.split("|"))):
        return True, 0.9
    if code or any(f" {word} " in f" {low} " for word in COMPLEX_WORDS.split("|")):
        return False, 0.9
    return (True, 0.7) if len(text) < 100 else (False, 0.7)


def rules_score(text: str, vector: np.ndarray) -> float:
    """Return 0 where knowme's heuristics keep a message home, 1 where they leave it open."""
    if questions.is_code(text):
        return 1.0
    return float(classify(text, vector).category == "COMPLEX" and len(text) >= 100)


# --- the gain ------------------------------------------------------------------------------------


def trained(data, calm, drawn, pool, with_vectors=True):
    shape = priors.make_shape(data, pool, with_vectors)
    vectors = data.vectors if with_vectors else None
    return priors.fit(
        shape, None if vectors is None else vectors[drawn], data.seen[drawn], data.gain[drawn], calm
    )


def gain_table(data, calm, seeds: int) -> dict:
    """Return system -> {bench: [(apgr, cpt) a seed]}; every system on the same held-out prompts."""
    of = {name: np.flatnonzero(data.bench == name) for name in HELD}
    length = np.array([len(prompt) for prompt in data.prompts], float)
    heuristic = np.array([litellm_like(prompt) for prompt in data.prompts])
    rules = np.array([rules_score(p, v) for p, v in zip(data.prompts, data.vectors, strict=True)])
    out: dict = {}
    slopes = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = {name: rng.permutation(rows) for name, rows in of.items()}
        held = {name: order[name][-HELD[name] :] for name in of}
        free = {name: order[name][: -HELD[name]] for name in of}
        pool = np.concatenate(list(free.values()))
        scores = {
            "random": rng.random(len(length)), "length": length, "rules only": rules,
            "litellm-like": heuristic, "oracle": data.gain,
        }  # fmt: skip
        for count in (200, 1000, 5000):
            math_part = min(len(free["gsm8k"]), count // 5)  # nearer to their numbers than halves
            both = np.concatenate([free["gsm8k"][:math_part], free["mmlu"][: count - math_part]])
            model = trained(data, calm, both, pool)
            scores[f"gain, {count} labels"] = model.means(data.vectors, data.seen)
            if count == 1000:
                looks = trained(data, calm, both, pool, with_vectors=False)
                scores["gain, 1000 labels, looks only"] = looks.means(None, data.seen)
                slopes.append(calibration(scores[f"gain, {count} labels"], data, held))
            for name in of:
                alone = free[name][:count]
                if len(alone) < count and count == 5000:
                    continue
                model = trained(data, calm, alone, pool)
                row = out.setdefault(f"gain, {count} labels of the same set", {})
                put(row, name, model.means(data.vectors, data.seen), data, held, len(alone))
        for system, score in scores.items():
            row = out.setdefault(system, {})
            for name in of:
                put(row, name, score, data, held)
        print(f"seed {seed}", file=sys.stderr)
    table = {
        system: {name: summed(rows) for name, rows in row.items()} for system, row in out.items()
    }
    table["gain, 1000 labels"]["calibration"] = {
        "slope": round(float(np.mean([s for s, _ in slopes])), 2),
        "error": round(float(np.mean([e for _, e in slopes])), 3),
    }
    return table


def put(row, name, score, data, held, labels=None) -> None:
    at = held[name]
    row.setdefault(name, []).append((apgr(score[at], data.gain[at]), cpt(score[at], data.gain[at]),
                                     labels))  # fmt: skip


def calibration(score, data, held) -> tuple[float, float]:
    """Return (slope of gain on prediction, mean |said - was| over ten equal bins), held out."""
    at = np.concatenate(list(held.values()))
    slope = float(np.polyfit(score[at], data.gain[at], 1)[0])
    parts = np.array_split(at[np.argsort(score[at])], 10)
    error = np.mean([abs(score[part].mean() - data.gain[part].mean()) for part in parts])
    return slope, float(error)


def summed(rows: list[tuple]) -> dict:
    a, c = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    out = {"apgr": round(float(a.mean()), 3), "sd": round(float(a.std()), 3),
           "cpt50": round(float(c.mean()), 3)}  # fmt: skip
    if rows[0][2] is not None:
        out["labels"] = rows[0][2]
    return out


def shipped_on(path: Path, cache: Path | None) -> dict:
    """Return what ships, on labels that it never saw."""
    data = priors.labels(path, cache)
    out = {}
    for label, fingerprint, vectors in (
        ("shipped", MINILM, data.vectors),
        ("shipped, looks only", "other@x:768", None),
    ):
        score = Gain.shipped(fingerprint).means(vectors, data.seen)
        for name in np.unique(data.bench):
            at = data.bench == name
            out.setdefault(label, {})[str(name)] = {
                "apgr": round(apgr(score[at], data.gain[at]), 3),
                "cpt50": round(cpt(score[at], data.gain[at]), 3),
            }
    return out


def decision_times(data, count: int = 1000) -> dict:
    """Return ms of one decision beyond the embedding: features, prediction, classification."""
    gain = Gain.shipped(MINILM)
    times = []
    for prompt, vector in list(zip(data.prompts, data.vectors, strict=True))[: count + 50]:
        began = time.perf_counter()
        gain.predict(vector, features(prompt))
        classify(prompt, vector, relevance=0.4, threshold=0.3, known=True)
        times.append((time.perf_counter() - began) * 1e3)
    times = sorted(times[50:])
    return {"p50_ms": round(times[len(times) // 2], 3),
            "p95_ms": round(times[int(len(times) * 0.95)], 3)}  # fmt: skip


# --- personal against complex --------------------------------------------------------------------


def judged(personal_probability, personal) -> dict:
    """Return accuracy, F1 of PERSONAL, ECE of the probability of what was said, and high ones."""
    p, y = np.asarray(personal_probability, float), np.asarray(personal, bool)
    right = (p >= 0.5) == y
    sure = np.maximum(p, 1 - p)
    both = ((p >= 0.5) & y).sum()
    return {
        "n": len(y),
        "accuracy": round(float(right.mean()), 3),
        "f1": round(float(2 * both / max(1, (p >= 0.5).sum() + y.sum())), 3),
        "ece": round(ece(sure, right), 3),
        "high": round(float((sure >= 0.8).mean()), 2),
        "high_right": round(float(right[sure >= 0.8].mean()), 3) if (sure >= 0.8).any() else None,
    }


def said_of(texts, vectors) -> np.ndarray:
    out = []
    for place, text in enumerate(texts):
        found = classify(text, None if vectors is None else vectors[place])
        sure = found.probability
        out.append(sure if found.category == "PERSONAL" else 1 - sure)
    return np.array(out)


def plan_of(texts) -> np.ndarray:
    told = [plan_heuristic(text) for text in texts]
    return np.array([sure if personal else 1 - sure for personal, sure in told])


def intent_table(folder: Path, cache: Path | None, intents: Path) -> dict:
    rows = priors.read_jsonl(folder / "personal-or-complex-dev.jsonl")
    texts = [row["text"] for row in rows]
    label = np.array([row["label"] for row in rows])
    vectors = priors.embed(texts, cache)
    systems = {
        "classify": said_of(texts, vectors),
        "classify, no vector": said_of(texts, None),
        "plan's keywords": plan_of(texts),
    }
    groups = {
        "dev: personal, complex": (np.isin(label, ["personal", "complex"]), label == "personal"),
        "dev: also implicit, general": (
            label != "simple", np.isin(label, ["personal", "personal_implicit"])
        ),
    }  # fmt: skip
    out: dict = {
        group: {name: judged(p[keep], personal[keep]) for name, p in systems.items()}
        for group, (keep, personal) in groups.items()
    }
    source = np.array([row["source"] for row in rows])
    out["share PERSONAL by source"] = {
        str(one): {name: round(float((p[source == one] >= 0.5).mean()), 3)
                   for name, p in systems.items()}
        for one in np.unique(source)
    }  # fmt: skip
    held = {" ".join(text.split()) for text in texts}
    data = priors.said(folder, intents, cache, held)
    clinc = ~np.array([g.startswith(("own ", "mmlu_", "gsm8k")) for g in data.group])
    out |= held_out_clinc(data, clinc)
    return out


def held_out_clinc(data, clinc) -> dict:
    """Return figures on CLINC that the weights did not see: other utterances; other intents."""
    rng = np.random.default_rng(0)
    half = clinc & (rng.random(len(clinc)) < 0.5)
    names = np.unique(data.group[clinc])
    fold = dict(zip(names, rng.permutation(len(names)) % 5, strict=True))
    of = np.array([fold.get(group, -1) for group in data.group])
    out: dict = {}
    for title, folds in (
        ("CLINC: other utterances", [half]),
        ("CLINC: other intents", [of == number for number in range(5)]),
    ):
        for name, with_vectors in (("classify", True), ("classify, no vector", False)):
            p = np.full(len(clinc), np.nan)
            for away in folds:
                p[away] = 1 / (1 + np.exp(-refitted(data, ~away, away, with_vectors)))
            keep = ~np.isnan(p)
            out.setdefault(title, {})[name] = judged(p[keep], data.personal[keep])
        plan = plan_of([data.texts[at] for at in np.flatnonzero(keep)])
        out[title]["plan's keywords"] = judged(plan, data.personal[keep])
    return out


def refitted(data, kept, away, with_vectors) -> np.ndarray:
    """Return calibrated log-odds of ``away``: weights and Platt's line from ``kept`` alone."""
    fitted, other = data.only(kept), data.only(away)
    strength = (30.0, 1.0) if with_vectors else (3.0, 1.0)
    odds = priors.by_groups(fitted, with_vectors, strength)
    line = priors.logistic(
        np.stack([np.ones(len(odds)), odds], 1), fitted.personal, fitted.weight, np.full(2, 1e-6)
    )
    rows, *_ = priors.intent_rows(other, fitted, with_vectors)
    return line[0] + line[1] * (rows @ priors.intent_fit(fitted, with_vectors, strength))


# --- the table -----------------------------------------------------------------------------------


def show(result: dict) -> None:
    def line(*cells):
        print("| " + " | ".join(str(cell) for cell in cells) + " |", file=sys.stderr)

    line("held-out prompts", "MMLU APGR", "CPT50", "GSM8K APGR", "CPT50")
    line(*["---"] * 5)
    for system, row in result["gain"].items():
        cells = []
        for name in ("mmlu", "gsm8k"):
            cell = row.get(name)
            cells += (
                [f"{cell['apgr']:.3f} ± {cell['sd']:.3f}", cell["cpt50"]] if cell else ["-"] * 2
            )
        line(system, *cells)
    print(f"\none decision: {result['decision']}\n", file=sys.stderr)
    line("messages", "by", "n", "accuracy", "F1", "ECE", "high", "of them right")
    line(*["---"] * 8)
    for group, systems in result["intents"].items():
        if group.startswith("share"):
            continue
        for name, cell in systems.items():
            line(group, name, *cell.values())
    print(file=sys.stderr)
    line("3,000 turns", "stream", "reward", "sd", "accuracy", "asked away")
    line(*["---"] * 6)
    for stream, systems in result["online"].items():
        for name, cell in systems.items():
            line(name, stream, cell["reward"], cell["sd"], cell["accuracy"], cell["away"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--shared", type=Path, default=Path(os.environ.get("KNOWME_SHARED", "../shared"))
    )
    parser.add_argument("--cache", type=Path, help="Folder that keeps the vectors between runs")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--held", type=Path, help="Labels that were not fitted on, to score what ships"
    )
    parser.add_argument("--quick", action="store_true", help="Two seeds, to see that it runs")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = options.shared / "data" / "routing"
    data = priors.labels(folder / "labels-dev.jsonl", options.cache)
    calm = priors.plain(folder, options.cache)
    seeds = 2 if options.quick else options.seeds
    intents = Path(__file__).resolve().parent / "intents.json"
    result = {
        "bench": "routing",
        "seeds": seeds,
        "held_out": HELD,
        "gain": gain_table(data, calm, seeds),
        "decision": decision_times(data),
        "intents": intent_table(folder, options.cache, intents),
        "online": online.simulate(data, calm, min(seeds, 8)),
    }
    if options.held:
        result["held"] = shipped_on(options.held, options.cache)
    show(result)
    line = json.dumps(result)
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
