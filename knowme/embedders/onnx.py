"""Text to vectors by an ONNX model in this process: the cheapest way to run MiniLM on a CPU.

Promises: one text at a time, so that a text has the same vector whatever it is embedded with (8-bit
models scale by what they see at once); a text longer than ``max_tokens`` is cut, never refused.
Refuses to know: where models come from (``modelstore.py``), how they were made (``convert.py``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knowme import llama, modelstore
from knowme.embedders.known import known, normalised
from knowme.errors import ConfigError, ModelError
from knowme.seams import Vectors
from knowme.types import EmbedKind


class OnnxEmbedder:
    """An ONNX embedding model. Thread-safe; it is loaded with the first text.

    ``model`` is a packaged model's name or the path of an .onnx file, "" the default. The file
    takes ``ids`` and ``mask`` and gives one vector a text; its tokenizer stands in its metadata
    under ``tokenizer``, or beside it as tokenizer.json.

    Raises ModelMissingError when the model is not there, ConfigError when its vectors cannot be cut
    to ``dims``, ModelError when onnxruntime cannot read it.
    """

    def __init__(
        self,
        *,
        model: str = "",
        dims: int = 0,
        max_tokens: int = 256,
        threads: int = 0,
        model_path: Path | None = None,
        **_: Any,
    ) -> None:
        self._path = model_path or modelstore.find(model or modelstore.DEFAULT_ONNX, "embedding")
        manifest = modelstore.manifest(self._path)
        self._name = str(manifest.get("name") or self._path.stem)
        self._known = known(self._name)
        self._threads = threads
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        made_from = manifest.get("source_sha256") or manifest.get("sha256")
        digest = str(made_from or modelstore.digest(self._path))[:12]
        self._whole = int(manifest.get("dims") or 0) or self._width()
        self.dims = dims or self._whole
        self._known.cut(np.zeros((1, self._whole), np.float32), self.dims, self._name)  # or raise
        self.max_tokens = max_tokens
        self.fingerprint = (
            f"onnx:{self._name}@{digest}:{self.dims}:{self._known.scheme}:{max_tokens}"
        )

    def _width(self) -> int:
        session, _ = self._parts()
        width = session.get_outputs()[0].shape[-1]
        if not isinstance(width, int):
            raise ConfigError(
                f"{self._path.name} does not say how long its vectors are.",
                f"Set embedder.model to {modelstore.DEFAULT_ONNX}.",
            )
        return width

    def _parts(self) -> tuple[Any, Any]:
        """Return the session and the tokenizer; load them once."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> tuple[Any, Any]:
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(
                f"The embedder onnx needs the package {error.name}, which is not installed.",
                "Run: pip install 'knowme[local]'",
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads or llama.choose_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )
            about = session.get_modelmeta().custom_metadata_map
            beside = self._path.with_name("tokenizer.json")
            told = about.get("tokenizer") or json.dumps(json.loads(beside.read_text("utf-8")))
            tokenizer = Tokenizer.from_str(told)
        except Exception as error:  # onnxruntime and tokenizers raise types of their own
            raise ModelError(
                f"{self._path.name} cannot be read: {str(error).splitlines()[0][:200]}",
                f"Pull it again: knowme models rm {self._name}; knowme models pull {self._name}",
            ) from error
        tokenizer.no_padding()
        return session, tokenizer

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """Return (len(texts), dims) float32, unit norm, a zero row for an empty text.

        Raises ModelError.
        """
        session, tokenizer = self._parts()
        prefix = self._known.prefix(kind)
        vectors = np.zeros((len(texts), self._whole), np.float32)
        for row, text in enumerate(texts):
            clean = text.strip().encode("utf-8", "replace").decode()
            if not clean:
                continue
            # A word is five letters or so: what lies far behind need not be tokenized at all.
            found = tokenizer.encode(prefix + clean[: self.max_tokens * 100]).ids
            if len(found) > self.max_tokens:
                found = [*found[: self.max_tokens - 1], found[-1]]
            ids = np.array([found], np.int64)
            (vectors[row],) = session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0]
        return normalised(self._known.cut(vectors, self.dims, self._name))

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            self._loaded = None
