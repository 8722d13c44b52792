"""What is known of embedding models: their prefixes, and the sizes they may be cut to.

Promises: facts from the models' own cards, looked up by name alone.
Refuses to know: where a model runs. A model that is not here gets no prefix and is not cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from knowme.errors import ConfigError
from knowme.seams import Vectors
from knowme.types import EmbedKind

_RETRIEVE = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class Known:
    """One family: the name of its prefix scheme, the prefixes, the sizes it may be cut to.

    ``centred``: the mean of the numbers is taken out before a cut (nomic's card does it so).
    """

    scheme: str = "none"
    query: str = ""
    document: str = ""
    sizes: tuple[int, ...] = ()
    centred: bool = False

    def prefix(self, kind: EmbedKind) -> str:
        """Return what stands in front of a text of this kind."""
        return self.query if kind == "query" else self.document

    def cut(self, vectors: Vectors, dims: int, model: str) -> Vectors:
        """Return the first ``dims`` numbers of (n, full) vectors (Kusupati et al. 2022).

        Not normalised again. Raises ConfigError where the model was not trained for that size.
        """
        full = vectors.shape[1]
        if dims in (0, full):
            return vectors
        if dims > full or dims not in self.sizes:
            sizes = ", ".join(str(size) for size in (*self.sizes, full) if size <= full)
            raise ConfigError(
                f"embedder.dims is {dims}, but {model!r} cannot be cut to that (it has: {sizes}).",
                "Use all of it: knowme config set embedder.dims 0",
            )
        if self.centred:
            vectors = vectors - vectors.mean(axis=1, keepdims=True)
        return vectors[:, :dims]


NONE = Known()
_BY_TWO = (512, 256, 128, 64)
_FAMILIES: tuple[tuple[str, Known], ...] = (
    (
        "nomic-embed-text-v2",
        Known("nomic", "search_query: ", "search_document: ", (256,), centred=True),
    ),
    (
        "nomic-embed-text",
        Known("nomic", "search_query: ", "search_document: ", _BY_TWO, centred=True),
    ),
    (
        "embeddinggemma",
        Known("gemma", "task: search result | query: ", "title: none | text: ", (512, 256, 128)),
    ),
    ("mxbai-embed-large", Known("retrieve", _RETRIEVE, "", _BY_TWO)),
    ("snowflake-arctic-embed2", Known("query", "query: ", "", (256,))),
    ("snowflake-arctic-embed", Known("retrieve", _RETRIEVE)),
    ("bge-m3", NONE),
    ("bge-", Known("retrieve", _RETRIEVE)),
    (
        "qwen3-embedding",
        Known(
            "qwen3",
            "Instruct: Given a web search query, retrieve relevant passages that answer the query"
            "\nQuery:",
            "",
            (2048, 1024, 768, *_BY_TWO, 32),
        ),
    ),
    ("multilingual-e5", Known("e5", "query: ", "passage: ")),
    ("e5-", Known("e5", "query: ", "passage: ")),
    ("text-embedding-3", Known(sizes=(2048, 1536, 1024, 768, *_BY_TWO))),
)


def known(model: str) -> Known:
    """Return what is known of a model, by its name in any of the spellings of servers and files."""
    plain = model.lower().replace("\\", "/").rsplit("/", 1)[-1].replace("_", "-")
    plain = plain.replace("embedding-gemma", "embeddinggemma").replace("embed-l-v2", "embed2")
    return next((facts for family, facts in _FAMILIES if family in plain), NONE)


def normalised(vectors: Vectors) -> Vectors:
    """Return (n, dims) float32 rows of unit norm; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 1e-9, norms, 1)).astype(np.float32)
