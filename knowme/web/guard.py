"""The door: who may ask at all, and how much they may send.

Promises, for every request before any route sees it:

* the Host header names this machine (a loopback name or address, the address we listen on) or
  stands in service.allowed_hosts, else 421: a page cannot reach us by rebinding its own name;
* an Origin, when there is one, is the page's own (the same host and port) or stands in
  service.allowed_origins, else 403: no other page can post to us. Only those in the list get CORS
  headers. A request that a browser marks as cross-site is refused even without an Origin, except
  for opening a page;
* when a token is set, every route but /health wants it (compared in constant time), else 401;
* a body is counted while it comes in; beyond service.max_body_mb it is 413, whatever its
  Content-Length says;
* every response says nosniff, no-referrer, no framing, and is not stored by caches;
* an exception of a route becomes one sentence, never a traceback.

Empty allow-lists allow nothing, and there are no wildcards. The token is never logged.
Refuses to know: the routes (but /health), the form of an error, and anything of the home.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from knowme.errors import KnowmeError
from knowme.web.problems import BodyTooLargeError

Problem = Callable[[str, BaseException, Mapping[str, str] | None], Response]
"""(path, error, further headers) -> the response in the form of whatever API lies there."""

OPEN_PATHS = frozenset({"/health"})
"""What answers without a token: a supervisor must be able to ask whether we live."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type",
    "access-control-max-age": "600",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_EXTRA = re.compile(r"x-[a-z0-9-]{1,60}")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class HostError(KnowmeError):
    """The Host header is not ours."""

    status = 421


class OriginError(KnowmeError):
    """The request comes from another site's page."""

    status = 403


class TokenError(KnowmeError):
    """The bearer token is missing or wrong."""

    status = 401


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine and nothing else."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def split_host(value: str) -> tuple[str, str] | None:
    """Split a Host header into (name in lower case without brackets and final dot, port or "").

    None for what is not exactly that. A pattern and not urllib, which forgives too much.
    """
    match = _HOST.fullmatch(value)
    return None if match is None else (match[1].lower().strip("[]").rstrip("."), match[2] or "")


class Guard:
    """ASGI middleware, outside every route. See the module's docstring."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        listens_on: str,
        token: str,
        allowed_hosts: Iterable[str],
        allowed_origins: Iterable[str],
        max_body_bytes: int,
        problem: Problem,
    ) -> None:
        self.app = app
        self._token = token.strip().encode()
        self._hosts = {host.strip().rstrip(".").lower() for host in allowed_hosts if host.strip()}
        if not _is_wildcard(listens_on):
            self._hosts.add(listens_on.strip("[]").lower())
        self._origins = {origin.strip().rstrip("/").lower() for origin in allowed_origins} - {""}
        self._max_body = max_body_bytes
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        headers = Headers(scope=scope)
        sharing = self._sharing(headers)

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                out = MutableHeaders(scope=message)
                for name, value in (HEADERS | sharing).items():
                    out.setdefault(name, value)
            await send(message)

        try:
            self._check_host(scope, headers)
            self._check_origin(scope, headers)
            if sharing and scope["method"] == "OPTIONS":
                # A preflight carries no token; it only asks what it may send.
                answer = Response(status_code=204, headers=_preflight(headers))
                await answer(scope, receive, guarded_send)
                return
            self._check_token(scope, headers)
            await self.app(scope, self._counted(headers, receive), guarded_send)
        except ClientDisconnect:
            return
        except Exception as error:
            if started:
                raise  # half a response is out: only closing the connection tells the client
            more = {"www-authenticate": "Bearer"} if isinstance(error, TokenError) else None
            await self._problem(scope["path"], error, more)(scope, receive, guarded_send)

    def _sharing(self, headers: Headers) -> dict[str, str]:
        """Return the CORS headers for an origin of the allow-list, else none at all."""
        origin = headers.get("origin", "")
        if origin.lower() not in self._origins:
            return {}
        return {"access-control-allow-origin": origin, "vary": "Origin"}

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        values = headers.getlist("host")
        split = split_host(values[0]) if len(values) == 1 else None
        if split is None:
            raise HostError(
                "The request has no single, valid Host header.", f"Use {_address(scope)}."
            )
        name, port = split
        literal = f"[{name}]" if ":" in name else name
        if not (is_loopback(name) or self._hosts & {name, f"{literal}:{port}"}):
            raise HostError(
                f"This service does not answer to the name {_shown(name)}.",
                f"Use {_address(scope)}, or add the name to service.allowed_hosts in config.yaml.",
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        origins = headers.getlist("origin")
        if origins:
            if len(origins) == 1 and self._own_origin(origins[0], headers["host"]):
                return
            raise OriginError(
                f"Pages of {_shown(origins[0])} may not use this service.",
                "If it is your own page, add its origin to service.allowed_origins in config.yaml.",
            )
        site = headers.get("sec-fetch-site", "none")
        opening = headers.get("sec-fetch-mode") == "navigate" and scope["method"] in ("GET", "HEAD")
        if site not in ("none", "same-origin") and not opening:
            raise OriginError(
                "Pages of other sites may not use this service.",
                "Ask from a program, or from a page in service.allowed_origins.",
            )

    def _own_origin(self, origin: str, host: str) -> bool:
        value = origin.lower()
        if value in self._origins:
            return True
        scheme, _, rest = value.partition("://")
        default = DEFAULT_PORTS.get(scheme)
        theirs, ours = split_host(rest), split_host(host)
        if default is None or theirs is None or ours is None:
            return False
        return (theirs[0], theirs[1] or default) == (ours[0], ours[1] or default)

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        if not self._token:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        scope["knowme.known"] = right = right and scheme.lower() == "bearer"
        if not right and scope["path"] not in OPEN_PATHS:
            what = "is wrong" if given else "is missing"
            raise TokenError(f"The token {what}.", 'Send the header "Authorization: Bearer TOKEN".')

    def _counted(self, headers: Headers, receive: Receive) -> Receive:
        """Return a ``receive`` that refuses what is larger than the limit, while it comes in.

        The refusal does not close the connection: the server reads and forgets the rest, so that
        a client which sends before it listens gets the sentence and not a broken pipe.
        """
        length = headers.get("content-length", "")
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            if length.isdecimal() and int(length[:19]) > self._max_body:
                raise self._too_large()
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._max_body:
                    raise self._too_large()
            return message

        return counted

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"The body is larger than {self._max_body / 2**20:g} MB.",
            "Send it in parts, or raise service.max_body_mb in config.yaml.",
        )


def _preflight(headers: Headers) -> dict[str, str]:
    """Return what a page of the allow-list may send: beside ours, its client's own x- headers."""
    asked = headers.get("access-control-request-headers", "").lower().split(",")
    own = [name for name in map(str.strip, asked) if _EXTRA.fullmatch(name)][:32]
    allowed = ", ".join([PREFLIGHT["access-control-allow-headers"], *own])
    return {**PREFLIGHT, "access-control-allow-headers": allowed}


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return not host


def _address(scope: Scope) -> str:
    """Return where this machine itself reaches us."""
    port = (scope.get("server") or ("", 0))[1]
    return f"http://127.0.0.1:{port}" if port else "http://127.0.0.1"


def _shown(value: str) -> str:
    """Return a header's value as it may stand in a sentence: short, without control characters."""
    clean = "".join(c if c.isprintable() else "?" for c in value[:80])
    return repr(clean)
