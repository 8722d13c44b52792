"""Static word vectors: the wordllama table from its wheel, 256-d, averaged over a text's tokens.

Promises: no network and no model server; loaded when first used (0.2 s, 30 MB), then 20,000
sentences a second on one core. Quality between hashing and a real embedding model: see LOG.md.
Refuses to know: word order, and meaning in context.

The table and the tokenizer are read straight from the wheel's files. wordllama's own code is left
alone: importing it sets up the root logger and brings an HTTP client, and it pads a batch to its
longest text. The vectors are the same (a test compares them).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from knowme.embedders.known import Known, normalised
from knowme.errors import ConfigError, ModelMissingError
from knowme.seams import Vectors
from knowme.types import EmbedKind

NAMES = ("", "wordllama", "l2_supercat")
SIZES = Known(sizes=(128, 64))  # trained with Matryoshka sizes: its card
FULL = 256
BATCH = 256


class StaticEmbedder:
    """Average of static token vectors. Thread-safe."""

    def __init__(self, *, model: str = "", dims: int = 0, max_tokens: int = 128, **_: Any) -> None:
        if model not in NAMES:
            raise ConfigError(
                f"There is no static model called {model!r}.",
                "Use the one there is: knowme config set embedder.model wordllama",
            )
        spec = find_spec("wordllama")  # finds the folder, runs nothing
        folder = Path(spec.origin).parent if spec and spec.origin else Path()
        self._weights = folder / "weights" / "l2_supercat_256.safetensors"
        self._tokenizer = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        if not (self._weights.is_file() and self._tokenizer.is_file()):
            raise ModelMissingError(
                "The static vectors (wordllama) are not installed.",
                "Run: pip install 'knowme[local]'",
            )
        SIZES.cut(np.zeros((0, FULL), np.float32), dims, "wordllama")  # refuses a wrong size now
        self.dims = dims or FULL
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Vectors] | None = None
        self.fingerprint = f"static:wordllama@{_revision(self._weights)}:{self.dims}:none"

    def _load(self) -> tuple[Any, Vectors]:
        with self._lock:
            if self._loaded is None:
                from safetensors import safe_open
                from tokenizers import Tokenizer

                tokenizer = Tokenizer.from_file(str(self._tokenizer))
                tokenizer.no_padding()
                tokenizer.enable_truncation(self._max_tokens)
                with safe_open(str(self._weights), framework="np") as file:
                    table = file.get_tensor("embedding.weight")
                self._loaded = tokenizer, np.ascontiguousarray(table[:, : self.dims])
            return self._loaded

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """Return (len(texts), dims) float32 rows of unit norm, a zero row for an empty text.

        Queries and documents are treated alike.
        """
        tokenizer, table = self._load()
        out = np.zeros((len(texts), self.dims), np.float32)
        full = [at for at, text in enumerate(texts) if text.strip()]
        for start in range(0, len(full), BATCH):
            part = full[start : start + BATCH]
            # One by one: a batch would start a thread for each core of the machine.
            ids = [tokenizer.encode(texts[at], add_special_tokens=False).ids for at in part]
            part, ids = _filled(part, ids)
            if not part:
                continue
            every = np.minimum(np.concatenate([np.asarray(one) for one in ids]), len(table) - 1)
            starts = np.cumsum([0, *(len(one) for one in ids[:-1])])
            out[part] = np.add.reduceat(table[every].astype(np.float32), starts, axis=0)
        return normalised(out)  # a mean and a sum point the same way

    def close(self) -> None:
        """Free the table."""
        with self._lock:
            self._loaded = None


def _filled(at: list[int], ids: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    keep = [place for place, one in enumerate(ids) if one]
    return [at[place] for place in keep], [ids[place] for place in keep]


def _revision(path: Path) -> str:
    """Return a short name of the table: its size and both of its ends, hashed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(65_536)
        file.seek(max(0, size - 65_536))
        return hashlib.sha256(size.to_bytes(8, "little") + head + file.read()).hexdigest()[:12]
