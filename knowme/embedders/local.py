"""Text to vectors by a GGUF embedding model in a llama.cpp process of ours.

Promises: a text longer than ``max_tokens`` is cut by the model's own tokenizer, never refused;
texts come back in their order; a worker that was killed is started again and the batch repeated.
Task prefixes are those that the model was trained with (``known.py``).
Refuses to know: how the process lives (``llama.py``), where models come from (``modelstore.py``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowme import llama, modelstore
from knowme.embedders.known import NONE, Known, known, normalised
from knowme.errors import ConfigError, ModelError
from knowme.seams import Vectors
from knowme.types import EmbedKind

_BETWEEN = -1  # a token that no vocabulary has: it parts the texts of one tokenizer request
_TEXTS = 64  # in one request
_SLOTS = 8
_BATCH_TOKENS = 288
"""Measured for MiniLM: attention is computed over the whole batch, so larger is not faster."""


class LocalEmbedder:
    """An embedding model on this machine. Thread-safe.

    ``model`` is a packaged model's name or the path of a GGUF, "" the default; ``model_path``
    overrides it. ``dims`` cuts the vectors (0: whole), ``max_tokens`` the texts.

    Raises ModelMissingError when the model is not there, ModelError when the file is no GGUF,
    ConfigError when it is no embedding model or its vectors cannot be cut to ``dims``.
    """

    def __init__(
        self,
        *,
        model: str = "",
        dims: int = 0,
        max_tokens: int = 128,
        threads: int = 0,
        model_path: Path | None = None,
        **_: Any,
    ) -> None:
        path = model_path or modelstore.find(model, "embedding")
        header = llama.read_header(path)
        if not header.pooling:
            raise ConfigError(
                f"{path.name} is not an embedding model: it pools nothing.",
                f"Set embedder.model to one, such as {modelstore.DEFAULT_EMBEDDING}.",
            )
        manifest = modelstore.manifest(path)
        name = str(manifest.get("name") or path.stem)
        self._known = _known(header, path)
        self._whole_dims = header.number("embedding_length_out") or header.number(
            "embedding_length"
        )
        self.dims = dims or self._whole_dims
        self._known.cut(np.zeros((1, self._whole_dims), np.float32), self.dims, name)  # or raise
        self.max_tokens = min(max_tokens, header.number("context_length") or max_tokens)
        digest = str(manifest.get("sha256") or modelstore.digest(path))[:12]
        self.fingerprint = (
            f"gguf:{name}@{digest}:{self.dims}:{self._known.scheme}:{self.max_tokens}"
        )
        self._spec = llama.Spec(
            path=path,
            embedding=True,
            context_tokens=self.max_tokens,
            slots=_SLOTS,
            batch_tokens=max(_BATCH_TOKENS, self.max_tokens),
            threads=threads,
        )
        self._held: llama.Worker | None = None
        self._ends: tuple[list[int], list[int]] | None = None

    @property
    def worker(self) -> llama.Worker:
        """The process that does the work; it starts with the first text."""
        if self._held is None:
            self._held = llama.acquire(self._spec)
        return self._held

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """Return (len(texts), dims) float32, unit norm, a zero row for an empty text.

        Raises ModelDownError when the worker dies twice or does not answer, ModelError.
        """
        prefix = self._known.prefix(kind)
        vectors = np.zeros((len(texts), self.dims), dtype=np.float32)
        # Half a surrogate pair is not UTF-8, and llama.cpp refuses it as JSON.
        clean = [text.strip().encode("utf-8", "replace").decode() for text in texts]
        rows = [row for row, text in enumerate(clean) if text]
        tokens: list[list[int]] = []
        for few in _slices(rows, _TEXTS * 4):
            tokens += self._tokens([prefix + clean[row] for row in few])
        order = sorted(range(len(rows)), key=lambda place: len(tokens[place]))
        for places in _slices(order, _TEXTS):
            found = self._vectors([tokens[place] for place in places])
            found = self._known.cut(found, self.dims, self._spec.path.name)
            vectors[[rows[place] for place in places]] = normalised(found)
        return vectors

    def close(self) -> None:
        """Free the model."""
        held, self._held = self._held, None
        if held is not None:
            llama.release(held)

    # --- the parts -------------------------------------------------------------------------------

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, with the model's own ends, at most ``max_tokens``."""
        start, end = self._model_ends()
        room = self.max_tokens - len(start) - len(end)
        # A word is five letters or so: what lies far behind need not be tokenized at all.
        near, far = self.max_tokens * 12, self.max_tokens * 400
        found = self._tokenize([text[:near] for text in texts])
        short = [
            place
            for place, text in enumerate(texts)
            if len(text) > near and len(found[place]) < room
        ]
        for place, tokens in zip(
            short, self._tokenize([texts[place][:far] for place in short]), strict=True
        ):
            found[place] = tokens
        return [[*start, *tokens[:room], *end] for tokens in found]

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        content: list[str | int] = []
        for text in texts:
            content += [text, _BETWEEN]
        body = {"content": content, "add_special": False, "parse_special": False}
        found: list[list[int]] = [[]]
        for token in self.worker.call("/tokenize", body)["tokens"]:
            if token == _BETWEEN:
                found.append([])
            else:
                found[-1].append(token)
        return found[:-1]

    def _model_ends(self) -> tuple[list[int], list[int]]:
        """Return the tokens that the model wants before and after a text, such as [CLS], [SEP]."""
        if self._ends is None:
            inner = self._tokenize(["a"])[0]
            answer = self.worker.call("/tokenize", {"content": "a", "add_special": True})
            whole = list(answer["tokens"])
            at = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
            self._ends = (whole[:at], whole[at + len(inner) :])
        return self._ends

    def _vectors(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        body = {"input": tokens, "encoding_format": "base64"}
        rows = self.worker.call("/v1/embeddings", body, timeout_seconds=300.0)["data"]
        raw = b"".join(base64.b64decode(row["embedding"]) for row in rows)
        found: NDArray[np.float32] = np.frombuffer(raw, dtype="<f4").reshape(len(tokens), -1)
        if found.shape[1] != self._whole_dims or not np.isfinite(found).all():
            raise ModelError(
                f"{self._spec.path.name} gave vectors of {found.shape[1]} numbers, not "
                f"{self._whole_dims} finite ones.",
                "The file may be damaged: pull it again.",
            )
        return found


def _known(header: llama.Header, path: Path) -> Known:
    """Return what is known of a model by the names it carries: its own, its file's."""
    keys = ("general.name", "general.basename")
    names = [str(header.values.get(key, "")) for key in keys] + [path.stem]
    found = (known(name.replace(" ", "-")) for name in names)
    return next((facts for facts in found if facts is not NONE), NONE)


def _slices(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
