"""Vectors from any OpenAI-compatible server: {url}/embeddings, in batches.

Promises: ``dimensions`` is sent where ``embedder.dims`` is set; a server that ignores it is cut to
size only if the model was trained for that. The API key stands in no error.
Refuses to know: what is embedded, and what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from knowme import wire
from knowme.embedders.remote import RemoteEmbedder
from knowme.errors import ConfigError, ModelError, ModelMissingError

if TYPE_CHECKING:
    from knowme.seams import Gate

MEND = "Start it, or mend embedder.url: knowme config set embedder.url URL"


class OpenAIEmbedder(RemoteEmbedder):
    """One embedding model behind one base URL."""

    kind = "openai"

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
        where = wire.address(url, "embedder.url")
        if not model and not wire.is_loopback(where):
            raise ConfigError(
                "embedder.model is empty, and a server elsewhere offers many.",
                "Name one: knowme config set embedder.model NAME",
            )
        server = wire.Server("The embedding server", where, MEND, api_key, timeout_seconds, gate)
        super().__init__(server, model, dims, max_tokens)

    def _missing(self, said: str) -> ModelError:
        return ModelMissingError(
            f"The embedding server at {self._server.url} has no {self.model!r} "
            f"(404: {self._server.hidden(said)}).",
            "Set the right one: knowme config set embedder.model NAME (or embedder.url URL)",
        )

    def _find(self) -> tuple[str, str]:
        """Take the first model of a server on this machine, where the settings name none."""
        if self.model:
            return self.model, ""
        found = self._request("GET", "/models", None, self._missing)
        try:
            return str(found["data"][0]["id"]).rsplit("/", 1)[-1], ""
        except (LookupError, TypeError) as error:
            raise self._server.nonsense(str(found)) from error

    def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        body: dict[str, Any] = {
            "model": self.model,
            "input": list(texts),
            "encoding_format": "float",
        }
        if self._wanted:
            body["dimensions"] = self._wanted
        found = self._request("POST", "/embeddings", body, self._missing)
        try:
            rows = sorted(found["data"], key=lambda entry: int(entry["index"]))
            return [row["embedding"] for row in rows]
        except (LookupError, TypeError, ValueError) as error:
            raise self._server.nonsense(str(found)) from error
