"""Vectors from Ollama: /api/embed in batches, or /api/embeddings one by one on an old server.

Promises: the model's own prefixes (nomic-embed-text: search_query, search_document); the digest of
the model is part of the fingerprint, so that another version under the same name is noticed.
Refuses to know: what is embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knowme import wire
from knowme.embedders.remote import RemoteEmbedder
from knowme.errors import ModelError, ModelMissingError

if TYPE_CHECKING:
    from knowme.seams import Gate

URL = "http://127.0.0.1:11434"
MEND = "Start it: ollama serve"
DEFAULT = "nomic-embed-text"


class OllamaEmbedder(RemoteEmbedder):
    """One embedding model of one Ollama."""

    kind = "ollama"

    def __init__(
        self,
        *,
        model: str = "",
        url: str = "",
        api_key: str = "",
        dims: int = 0,
        max_tokens: int = 128,
        timeout_seconds: float = 120.0,
        gate: Gate | None = None,
        **_: Any,
    ) -> None:
        where = wire.address(url, "embedder.url", URL)
        server = wire.Server("Ollama", where, MEND, api_key, timeout_seconds, gate)
        super().__init__(server, model or DEFAULT, dims, max_tokens)
        self._batches = True

    def _missing(self, said: str) -> ModelError:
        if "model" in said.lower():
            return ModelMissingError(
                f"Ollama has no model {self.model!r}.", f"Get it: ollama pull {self.model}"
            )
        return ModelError(
            f"What answers at {self._server.url} is not Ollama (404).", "Mend embedder.url."
        )

    def _find(self) -> tuple[str, str]:
        found = self._request("GET", "/api/tags", None, self._missing)
        try:
            digests = {str(m["name"]): str(m.get("digest") or "") for m in found["models"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise self._server.nonsense(str(found)) from error
        for name in (self.model, f"{self.model}:latest"):
            if name in digests:
                return self.model, digests[name].removeprefix("sha256:")[:12]
        raise self._missing("model")

    def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        if self._batches:
            body = {"model": self.model, "input": list(texts), "truncate": True}
            found = self._request("POST", "/api/embed", body, self._missing_or_old)
            if found is not None:
                return self._take(found, "embeddings")
            self._batches = False
        return [
            self._take(
                self._request(
                    "POST", "/api/embeddings", {"model": self.model, "prompt": text}, self._missing
                ),
                "embedding",
            )
            for text in texts
        ]

    def _missing_or_old(self, said: str) -> ModelError | None:
        return self._missing(said) if "model" in said.lower() else None

    def _take(self, found: Any, name: str) -> list[Any]:
        if not isinstance(found, dict) or not isinstance(found.get(name), list):
            raise self._server.nonsense(str(found))
        values: list[Any] = found[name]
        return values
