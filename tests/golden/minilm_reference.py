"""all-MiniLM-L6-v2 in numpy, from the official files: what the golden vectors were made with.

    python tests/golden/minilm_reference.py FOLDER_WITH_model.safetensors_AND_vocab.txt

writes minilm.json beside this file. It shares nothing with our converter nor with llama.cpp.
"""

import base64
import json
import math
import re
import sys
import unicodedata
from pathlib import Path

import numpy as np

TEXTS = [
    "I moved the thermostat to 19 degrees because the heating bill doubled.",
    "The heating costs twice as much as last winter.",
    "My sister's cat is called Miso.",
    "Can you recommend a book about the history of Portugal?",
    "ok",
    "We decided in March to replace the gas boiler with a heat pump, and the installer comes on "
    "the 14th; until then the small radiator in the hallway stays off.",
    "Ich habe gestern für dreißig Minuten Klavier geübt, naïve Übungen!",
    "def add(a, b): return a + b  # 2+2=4",
    "Where does she work now?",
    "She left the bakery and works at the university library since May.",
]


def tensors(file):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name, about in json.loads(data[8 : 8 + length]).items():
        if about.get("dtype") == "F32":
            start, end = (8 + length + place for place in about["data_offsets"])
            yield name, np.frombuffer(data[start:end], "<f4").reshape(about["shape"]).astype("f8")


def tokenize(text, vocabulary):
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    tokens = ["[CLS]"]
    for word in re.findall(r"\w+|[^\w\s]", plain):
        start = 0
        while start < len(word):
            end = len(word)
            while ("##" if start else "") + word[start:end] not in vocabulary:
                end -= 1
            tokens.append(("##" if start else "") + word[start:end])
            start = end
    return [vocabulary[token] for token in [*tokens, "[SEP]"]]


def norm(x, w, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * w[name + ".weight"] + w[name + ".bias"]


def dense(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def embed(ids, w):
    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)]
    x = norm(x + w[e + "token_type_embeddings.weight"][0], w, e + "LayerNorm")
    for layer in range(6):
        p = f"encoder.layer.{layer}."
        q, k, v = (
            dense(x, w, f"{p}attention.self.{n}").reshape(-1, 12, 32).swapaxes(0, 1)
            for n in ("query", "key", "value")
        )
        a = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(32))
        a = (a / a.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(-1, 384)
        x = norm(x + dense(a, w, p + "attention.output.dense"), w, p + "attention.output.LayerNorm")
        h = dense(x, w, p + "intermediate.dense")
        h = h * 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        x = norm(x + dense(h, w, p + "output.dense"), w, p + "output.LayerNorm")
    mean = x.mean(0)
    return (mean / np.linalg.norm(mean)).astype("<f4")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {token: number for number, token in enumerate(lines)}
    weights = dict(tensors(folder / "model.safetensors"))
    golden = [
        {"text": text, "vector": base64.b64encode(embed(tokenize(text, vocabulary), weights))}
        for text in TEXTS
    ]
    Path(__file__).with_name("minilm.json").write_text(
        json.dumps(golden, indent=1, ensure_ascii=False, default=bytes.decode) + "\n",
        encoding="utf-8",
    )
