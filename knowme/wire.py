"""The wire to a model server: addresses, lines of a stream, and errors that a person can act on.

Promises: whatever httpx throws becomes ModelDownError or ModelMissingError with the address and
the mend, how far the request came and how long to wait; an API key stands in no error and in no
log; a server on this machine is reached without a proxy; nothing is followed to another host; all
that goes to a server passes the border (`border.py`).
Refuses to know: Ollama's or OpenAI's messages. Engines and embedders do.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knowme import net
from knowme.errors import ConfigError, ModelDownError, ModelError
from knowme.net import is_loopback as is_loopback

if TYPE_CHECKING:
    import asyncio

    import httpx

    from knowme.seams import Gate

CONNECT_SECONDS = 5.0
LONGEST_WAIT = 3600.0
"""What a server may ask us to wait, in seconds; more is cut to this."""
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
    """One server: what to call it, where it is, how to mend it when it does not answer.

    ``local`` is "true" (a machine of one's own: what goes there does not count as leaving),
    "false" (it counts), or "auto": only this machine's own address is local.
    """

    name: str
    url: str
    mend: str
    key: str = ""
    timeout_seconds: float = 120.0
    gate: Gate | None = None
    local: str = "auto"

    @property
    def is_local(self) -> bool:
        """Tell whether what goes there stays with the person."""
        return is_loopback(self.url) if self.local == "auto" else self.local == "true"

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments for an httpx client of this server, of either kind.

        What is sent with it passes the border: it raises OfflineError and StoreError too.
        """
        import httpx

        from knowme.border import Border

        wait = self.timeout_seconds
        return {
            "headers": {"Authorization": f"Bearer {self.key}"} if self.key else {},
            "timeout": httpx.Timeout(wait, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
            "transport": Border(self.url, gate=self.gate, local=self.local),
            "trust_env": False,  # the border looks at the environment's proxies
            "follow_redirects": False,
        }

    def hidden(self, text: str) -> str:
        """Return the text without the key, short enough for a message."""
        clean = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return clean if len(clean) <= 300 else clean[:297] + "..."

    def down(self, error: httpx.HTTPError | httpx.InvalidURL) -> ModelError:
        """Say why nothing, or nothing more, came: OfflineError where we forbade it ourselves.

        ``reached`` is "no" or "maybe": whoever saw the answer begin knows better.
        """
        import httpx

        if forbidden := net.refused(error):
            return forbidden
        where = f"{self.name} at {self.url}"
        if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
            what = f"{where} did not take the connection within {CONNECT_SECONDS:g} seconds."
        elif isinstance(error, httpx.ConnectError):
            unknown = re.search(r"name|getaddrinfo|resolution", str(error), re.IGNORECASE)
            told = "is not found: there is no such host" if unknown else "refused the connection"
            what = f"{where} {told}."
        elif isinstance(error, httpx.TimeoutException):
            what = f"{where} sent nothing for {self.timeout_seconds:g} seconds."
            hint = "Ask again, or raise timeout_seconds: a model may load."
            return ModelDownError(what, hint, reached="maybe")
        else:
            what = f"{where} broke off: {self.hidden(str(error)) or type(error).__name__}."
            return ModelDownError(what, self.mend, reached="maybe")
        return ModelDownError(what, self.mend)

    def refused(self, status: int, body: str, retry_after: str = "") -> ModelError:
        """Say what an answer with an error status means, other than a missing model.

        ``reached`` is "maybe" for a failure within the server, but "no" where it says that it
        took nothing on (503, 429 and the rest of 4xx).
        """
        said = said_in(body)
        said = f" It said: {self.hidden(said).rstrip('. ')}." if said else ""
        where = f"{self.name} at {self.url}"
        wait = seconds_of(retry_after)
        if status in (401, 403):
            return ModelDownError(
                f"{where} refused the key ({status}).{said}",
                "Put the right one into .env: KNOWME_ENGINE_API_KEY, KNOWME_EMBEDDER_API_KEY or "
                "KNOWME_MODELS_ROLE_API_KEY",
            )
        if status == 429:
            pause = "Wait a little" if wait is None else f"Wait {wait:.0f} seconds"
            return ModelDownError(
                f"{where} has too much to do, or the quota is used up (429).{said}",
                f"{pause} and ask again.",
                retry_after=wait,
            )
        if status >= 500:
            return ModelDownError(
                f"{where} failed ({status}).{said}",
                self.mend,
                reached="no" if status == 503 else "maybe",
                retry_after=wait,
            )
        if 300 <= status < 400:
            return ModelDownError(f"{where} points elsewhere ({status}).", "Mend the url.")
        return ModelError(f"{where} refused the request ({status}).{said}", "Check the settings.")

    def nonsense(self, what: str) -> ModelDownError:
        """Say that the server sent something that is not of its protocol."""
        return ModelDownError(
            f"{self.name} at {self.url} sent something unexpected: {self.hidden(what)!r}",
            self.mend,
            reached="maybe",
        )

    def cut(self) -> ModelDownError:
        """Say that a stream ended before its end."""
        return ModelDownError(
            f"{self.name} at {self.url} broke off in the middle of the answer.",
            self.mend,
            reached="maybe",
        )


def seconds_of(retry_after: str) -> float | None:
    """Return what a Retry-After asks for, in seconds: a number or an HTTP date; None: nothing.

    Never below zero, never above LONGEST_WAIT.
    """
    import time
    from email.utils import parsedate_to_datetime

    text = retry_after.strip()
    if not text:
        return None
    try:
        wait = float(text)
    except ValueError:
        try:
            wait = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait, 0.0), LONGEST_WAIT) if wait == wait else None


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


def sendable(body: Any) -> dict[str, Any]:
    """Return what an httpx request needs to send this as JSON, whatever its texts hold.

    Half a surrogate pair, which UTF-8 cannot say, becomes a question mark.
    """
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return {"content": data, "headers": {"Content-Type": "application/json"}}


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


async def drain(rest: AsyncIterator[str]) -> None:
    """Read on in an answer whose end was seen: only a read one leaves its connection usable.

    A server that keeps it open longer than a moment loses the connection; nothing is raised.
    """
    import asyncio

    import httpx

    try:
        async with asyncio.timeout(0.2):
            async for _ in rest:
                pass
    except (TimeoutError, ValueError, httpx.HTTPError):
        pass


class Clients:
    """The connections to a server: a client for each event loop, and one for blocking calls.

    A client cannot outlive its loop, so those of loops that are gone are dropped with them.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._awaiting: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._blocking: httpx.Client | None = None

    def get(self) -> httpx.AsyncClient:
        """Return the client of the running loop; made when it is first needed."""
        import asyncio

        import httpx

        loop = asyncio.get_running_loop()
        client = self._awaiting.get(loop)
        if client is None:
            for gone in [other for other in list(self._awaiting) if other.is_closed()]:
                self._awaiting.pop(gone, None)
            client = self._awaiting[loop] = httpx.AsyncClient(**self._server.settings())
        return client

    def blocking(self) -> httpx.Client:
        """Return the client for calls that wait; thread-safe; made when it is first needed."""
        import httpx

        if self._blocking is None:
            self._blocking = httpx.Client(**self._server.settings())
        return self._blocking

    async def aclose(self) -> None:
        """Close the running loop's client and the blocking one."""
        import asyncio

        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking.close()
        if client := self._awaiting.pop(asyncio.get_running_loop(), None):
            await client.aclose()
