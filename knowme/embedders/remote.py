"""What every embedder behind a server shares: batches, prefixes, retries, cutting, normal rows.

Promises: an empty text is a zero row and is not sent; a try that failed on the way or in the server
is made once more after a moment (embedding is idempotent); a server that changes its mind about
the size of its vectors is refused, never mixed.
Refuses to know: one server's protocol. ``ollama`` and ``openai`` do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from knowme import wire
from knowme.embedders.known import known, normalised
from knowme.errors import ModelError
from knowme.seams import Vectors
from knowme.types import EmbedKind

if TYPE_CHECKING:
    import httpx

BATCH = 64
TRIES = 2
PAUSE_SECONDS = 0.25


class RemoteEmbedder:
    """An embedding model behind a server. Thread-safe. Nothing is asked before it is needed."""

    kind: str

    def __init__(self, server: wire.Server, model: str, dims: int, max_tokens: int) -> None:
        self.model = model
        self._server = server
        self._wanted = dims
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._full = 0
        self._revision: str | None = None

    # --- what one protocol brings ----------------------------------------------------------------

    def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError

    def _find(self) -> tuple[str, str]:
        """Return (model, revision); the model where the settings name none."""
        raise NotImplementedError

    # --- the seam --------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """kind:model@revision:dims:prefixes. Asks the server once; raises as ``embed`` does."""
        self._ready()
        scheme = known(self.model).scheme
        return f"{self.kind}:{self.model}@{self._revision}:{self.dims}:{scheme}"

    @property
    def dims(self) -> int:
        """How many numbers a vector has. Asks the server once; raises as ``embed`` does."""
        if self._wanted:
            return self._wanted
        if not self._full:
            self.embed(["size"], "document")
        return self._full

    def embed(self, texts: Sequence[str], kind: EmbedKind) -> Vectors:
        """Return (len(texts), dims) float32 rows of unit norm, a zero row for an empty text.

        Raises ModelMissingError, ModelDownError, or ConfigError for dims that the model has not.
        """
        self._ready()
        facts = known(self.model)
        full = [at for at, text in enumerate(texts) if text.strip()]
        found: list[Vectors] = []
        for start in range(0, len(full), BATCH):
            part = [facts.prefix(kind) + self._short(texts[at]) for at in full[start:][:BATCH]]
            rows = self._checked(self._ask(part), len(part))
            found.append(normalised(facts.cut(rows, self._wanted, self.model)))
        if not found:
            return np.zeros((len(texts), self.dims), np.float32)
        rows = np.concatenate(found)
        out = np.zeros((len(texts), rows.shape[1]), np.float32)
        out[full] = rows
        return out

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._http is not None:
                self._http.close()
                self._http = None

    # --- inside ----------------------------------------------------------------------------------

    def _short(self, text: str) -> str:
        """Return about the first ``max_tokens`` of the text, cut between words."""
        if len(text) <= self._max_tokens or wire.estimate_tokens(text) <= self._max_tokens:
            return text
        wide = len(text) / wire.estimate_tokens(text)
        head = text[: int(self._max_tokens * wide)]
        return head.rsplit(None, 1)[0] if " " in head[-40:] else head

    def _ready(self) -> None:
        if self._revision is None:
            self.model, self._revision = self._find()

    def _checked(self, rows: Sequence[Sequence[float]], count: int) -> Vectors:
        try:
            found = np.asarray(rows, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise self._server.nonsense("vectors of different lengths") from error
        if found.ndim != 2 or len(found) != count or not found.shape[1]:
            raise self._server.nonsense(f"{len(rows)} vectors for {count} texts")
        if not np.isfinite(found).all():
            raise self._server.nonsense("a vector with a number that is not finite")
        if self._full not in (0, found.shape[1]):
            raise ModelError(
                f"{self.model!r} gave {self._full} numbers a text before, now {found.shape[1]}.",
                "Run: knowme reindex",
            )
        self._full = found.shape[1]
        return found

    def _client(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._http is None:
                self._http = httpx.Client(**self._server.settings())
            return self._http

    def _request(
        self, method: str, path: str, body: Any, missing: Callable[[str], ModelError | None]
    ) -> Any:
        """Return the JSON of one answer. ``missing`` makes the error of a 404, or None: no answer.

        Connection errors and 5xx are tried again. Raises ModelDownError, ModelMissingError.
        """
        import httpx

        sent = {} if body is None else wire.sendable(body)
        for left in range(TRIES - 1, -1, -1):
            try:
                reply = self._client().request(method, self._server.url + path, **sent)
            except httpx.TimeoutException as error:
                raise self._server.down(error) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if not left:
                    raise self._server.down(error) from error
            else:
                if reply.status_code < 500 or not left:
                    return self._answer(reply, missing)
            time.sleep(PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _answer(self, reply: httpx.Response, missing: Callable[[str], ModelError | None]) -> Any:
        if reply.status_code == 404:
            if error := missing(wire.said_in(reply.text)):
                raise error
            return None
        if reply.status_code != 200:
            raise self._server.refused(
                reply.status_code, reply.text, reply.headers.get("retry-after", "")
            )
        try:
            return reply.json()
        except ValueError as error:
            raise self._server.nonsense(reply.text) from error
