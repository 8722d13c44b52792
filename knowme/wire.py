"""The wire to a model server: addresses, lines of a stream, and errors that a person can act on.

Promises: whatever httpx throws becomes ModelDownError or ModelMissingError with the address and
the mend; an API key stands in no error and in no log; a server on this machine is reached without
a proxy; nothing is followed to another host.
Refuses to know: Ollama's or OpenAI's messages. Engines and embedders do.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knowme.errors import ConfigError, ModelDownError, ModelError

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 5.0
LONGEST_LINE = 16 << 20
_WIDE = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef]"
    "|[\U0001f300-\U0001faff\U00020000-\U0003ffff]"
)


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a text has, for a model whose tokenizer is not at hand.

    3.6 characters a token, one token for each character of Chinese, Japanese, Korean and emoji:
    a little more than common tokenizers count in English prose (4.2), about right in other Latin
    scripts and in code, so that what is planned with it fits.
    """
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) * 10 // 36) if text else 0


def is_loopback(url: str) -> bool:
    """Tell whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(url: str, key: str, otherwise: str = "") -> str:
    """Return the server's URL without a slash at its end. Raises ConfigError naming ``key``."""
    found = (url or otherwise).strip().rstrip("/")
    if not found:
        raise ConfigError(
            f"{key} is empty, so there is no server to ask.",
            f"Name it: knowme config set {key} http://127.0.0.1:8080/v1",
        )
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{key} is {found!r}, which is not an http or https address.",
            f"Such as: knowme config set {key} http://127.0.0.1:11434",
        )
    if parts.username or parts.password:
        raise ConfigError(
            f"{key} holds a user name or password.", "Put the key into .env instead (see api_key)."
        )
    return found


@dataclass(frozen=True, slots=True)
class Server:
    """One server: what to call it, where it is, how to mend it when it does not answer."""

    name: str
    url: str
    mend: str
    key: str = ""
    timeout_seconds: float = 120.0

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments for an httpx client of this server."""
        import httpx

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        wait = self.timeout_seconds
        return {
            "headers": headers,
            "timeout": httpx.Timeout(wait, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            "trust_env": not is_loopback(self.url),  # a proxy cannot reach this machine's loopback
            # Loading the certificate store takes 20 ms, which plain http has no use for.
            "verify": self.url.startswith("https"),
            "follow_redirects": False,
        }

    def hidden(self, text: str) -> str:
        """Return the text without the key, short enough for a message."""
        clean = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return clean if len(clean) <= 300 else clean[:297] + "..."

    def down(self, error: httpx.HTTPError | httpx.InvalidURL) -> ModelDownError:
        """Say why nothing, or nothing more, came."""
        import httpx

        where = f"{self.name} at {self.url}"
        if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
            what = f"{where} did not take the connection within {CONNECT_SECONDS:g} seconds."
        elif isinstance(error, httpx.ConnectError):
            what = f"{where} refused the connection."
        elif isinstance(error, httpx.TimeoutException):
            what = f"{where} sent nothing for {self.timeout_seconds:g} seconds."
            return ModelDownError(what, "Ask again, or raise timeout_seconds: a model may load.")
        else:
            what = f"{where} broke off: {self.hidden(str(error)) or type(error).__name__}."
        return ModelDownError(what, self.mend)

    def refused(self, status: int, body: str, retry_after: str = "") -> ModelError:
        """Say what an answer with an error status means, other than a missing model."""
        said = said_in(body)
        said = f" It said: {self.hidden(said)}" if said else ""
        where = f"{self.name} at {self.url}"
        if status in (401, 403):
            return ModelDownError(
                f"{where} refused the key ({status}).{said}",
                "Put the right one into .env: KNOWME_ENGINE_API_KEY or KNOWME_EMBEDDER_API_KEY",
            )
        if status == 429:
            wait = f"Wait {retry_after} seconds" if retry_after.isdigit() else "Wait a little"
            return ModelDownError(
                f"{where} has too much to do, or the quota is used up (429).{said}",
                f"{wait} and ask again.",
            )
        if status >= 500:
            return ModelDownError(f"{where} failed ({status}).{said}", self.mend)
        if 300 <= status < 400:
            return ModelDownError(f"{where} points elsewhere ({status}).", "Mend the url.")
        return ModelError(f"{where} refused the request ({status}).{said}", "Check the settings.")

    def nonsense(self, what: str) -> ModelDownError:
        """Say that the server sent something that is not of its protocol."""
        return ModelDownError(
            f"{self.name} at {self.url} sent something unexpected: {self.hidden(what)!r}", self.mend
        )

    def cut(self) -> ModelDownError:
        """Say that a stream ended before its end."""
        return ModelDownError(
            f"{self.name} at {self.url} broke off in the middle of the answer.", self.mend
        )


def said_in(body: str) -> str:
    """Return the message in the body of an error: {"error": text or {"message": text}}."""
    try:
        found = json.loads(body)
    except ValueError:
        return body[:500]
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("detail") or ""
    return error if isinstance(error, str) else json.dumps(error)


async def lines(reply: httpx.Response) -> AsyncIterator[str]:
    r"""Yield the lines of a stream, cut at \n alone, without their end.

    httpx's own ``aiter_lines`` also cuts at U+2028 and its like, which JSON may hold unescaped.
    Raises ValueError for bytes that are not UTF-8 and for a line beyond 16 MB.
    """
    held = bytearray()
    async for piece in reply.aiter_bytes():
        held += piece
        *whole, rest = held.split(b"\n")
        for line in whole:
            yield line.decode().removesuffix("\r")
        held = rest
        if len(held) > LONGEST_LINE:
            raise ValueError("a line without an end")
    if held:
        yield held.decode().removesuffix("\r")


class Clients:
    """One httpx.AsyncClient for the event loop that asks: a client cannot outlive its loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop: Any = None
        self._client: httpx.AsyncClient | None = None

    def get(self) -> httpx.AsyncClient:
        """Return the client of the running loop; made when it is first needed."""
        import asyncio

        import httpx

        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = httpx.AsyncClient(**self._server.settings()), loop
        return self._client

    async def aclose(self) -> None:
        """Close the running loop's client."""
        import asyncio

        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()
