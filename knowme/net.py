"""Whether anything may leave this machine, and the wall that holds when it may not.

Promises: while ``forbid(True)`` stands, this process opens no connection, sends no datagram and
looks up no name beyond its own loopback addresses and Unix sockets: the interpreter's own audit
events refuse it, whatever library tried. What is refused is an OfflineError and an OSError at
once, so that a library which can live without a network does. Nothing is installed, and nothing
costs, before the first ``forbid(True)``.
Refuses to know: models, prompts, the ledger. ``check`` is for whoever is about to send: it says
the same thing earlier and better.

What the wall cannot see: other processes (`knowme models pull` starts pip, so it asks ``check``
first; a child of ours that reads the same home, or has KNOWME_OFFLINE=1, raises a wall of its own),
libraries in C that open sockets of their own, connections that stood before, and a proxy on this
machine that passes on what it is given.
"""

from __future__ import annotations

import errno
import ipaddress
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knowme.errors import OfflineError

if TYPE_CHECKING:
    import socket

MEND = "Allow it: knowme config set offline false"
_FORBIDDEN = "lies beyond this machine, and offline is set."
_LOOKUPS = frozenset(
    {
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",  # asks a name server even for a number
        "socket.getnameinfo",
    }
)
_SENDING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_WATCHED = _LOOKUPS | _SENDING | {"socket.__new__", "import"}
_NAMED_METHODS = {"connect": 0, "connect_ex": 0, "bind": 0, "sendto": -1, "sendmsg": 3}
"""Methods that look a name up themselves, and which argument is the address."""

_lock = threading.Lock()
_homes = 0
_hooked = False


class WallError(OfflineError, OSError):
    """What the wall throws: ours, and what a library takes for a network that is not there."""

    def __init__(self, tried: str) -> None:
        super().__init__(f"{tried} {_FORBIDDEN}", MEND)
        self.errno = errno.ENETUNREACH


def is_loopback(url_or_host: str) -> bool:
    """Tell whether an address is this machine's own: a URL, "host", "host:port", "[::1]:80".

    Only ``localhost`` and numeric addresses are; ``x.localhost`` is a question to a name server
    on many machines, and other spellings of numbers (127.1) are read differently by each library.
    """
    return _own(_host(url_or_host))


def _host(text: str) -> str:
    """Return the host of a URL or of "host:port"; "" where libraries might disagree on it."""
    if any(char <= " " or char in "\\\x7f" for char in text):
        return ""
    try:
        ipaddress.ip_address(text)
        return text
    except ValueError:
        pass
    try:
        return urlsplit(text if "://" in text else f"//{text}").hostname or ""
    except ValueError:
        return ""


def _own(host: str) -> bool:
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    inside = getattr(found, "ipv4_mapped", None)
    return found.is_loopback or (inside is not None and inside.is_loopback)


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def offline() -> bool:
    """Tell whether anything beyond this machine is forbidden now."""
    return _homes > 0


def forbid(on: bool) -> None:
    """Raise the wall, or take one raising of it back. Each True wants its False; process-wide."""
    global _homes
    with _lock:
        if on:
            _install()
            _homes += 1
        else:
            _homes = max(0, _homes - 1)


@contextmanager
def walled(on: bool) -> Iterator[None]:
    """Forbid within, where ``on``: for what opens no home, such as `knowme models pull`."""
    if not on:
        yield
        return
    forbid(True)
    try:
        yield
    finally:
        forbid(False)


def check(url: str) -> None:
    """Raise OfflineError when ``url`` lies beyond this machine and nothing may leave it."""
    if _homes and not is_loopback(url):
        raise OfflineError(f"{_shown(url)} {_FORBIDDEN}", MEND)


def refused(error: BaseException) -> OfflineError | None:
    """Return the OfflineError that lies behind another library's error, or None.

    ``httpx.ConnectError`` and its like keep it as their cause.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, OfflineError):
            return one
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
    return None


def _shown(url: str) -> str:
    """Return a URL without its query and its user, which may hold what is nobody's business."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "that address"
    if not parts.netloc:
        return url.partition("?")[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# --- the wall -------------------------------------------------------------------------------------


def _install() -> None:
    """Hook into the interpreter, once; a hook cannot be taken out again, it only goes quiet."""
    global _hooked, _local_families, _web_families
    import socket

    if not _hooked:
        _hooked = True
        _local_families = _families(socket, "AF_UNIX", "AF_NETLINK")
        _web_families = _families(socket, "AF_INET", "AF_INET6")
        sys.addaudithook(_hook)
    for name, place in _NAMED_METHODS.items():
        now = getattr(socket.socket, name)
        if not hasattr(now, "_knowme_wall"):
            setattr(socket.socket, name, _guarded(now, place))


_local_families: frozenset[int] = frozenset()
_web_families: frozenset[int] = frozenset()


def _families(module: Any, *names: str) -> frozenset[int]:
    return frozenset(int(getattr(module, name)) for name in names if hasattr(module, name))


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _homes or event not in _WATCHED:  # every opened file passes here: be quick
        return
    if event in _SENDING:
        _check_sending(args[0], args[1])
    elif event in _LOOKUPS:
        where = args[0][0] if event == "socket.getnameinfo" else args[0]
        _check_lookup(where, addresses=event in ("socket.getaddrinfo", "socket.gethostbyname"))
    elif event == "socket.__new__":
        # Others send without saying where to: whole frames, virtual machines, radio.
        # -1: found out from the descriptor.
        if args[1] not in _local_families | _web_families | {-1}:
            raise WallError(f"A socket of family {int(args[1])}")
    elif args[0] == "uvloop":
        # Its loop connects in C, past every hook. uvicorn takes asyncio's where it is not there.
        raise ImportError("uvloop's connections cannot be watched, and offline is set")


def _check_sending(sock: socket.socket, to: Any) -> None:
    if to is None or sock.family in _local_families:  # connected before, or to this kernel
        return
    inside = isinstance(to, tuple) and to and _own(_text(to[0]))
    if sock.family not in _web_families or not inside:
        raise WallError(_address(to))


def _check_lookup(host: Any, *, addresses: bool) -> None:
    """Refuse a question to a name server; a number is none when its address is asked for."""
    name = _text(host)
    if name and not _own(name) and not (addresses and _numeric(name)):
        raise WallError(f"The name {name!r}")


def _guarded(real: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Stop a name before the socket looks it up.

    ``connect(("example.org", 80))`` asks the name server first and raises its audit event after.
    """
    from functools import wraps

    @wraps(real)
    def method(self: socket.socket, *args: Any) -> Any:
        if _homes:
            to = args[place] if -len(args) <= place < len(args) else None
            if isinstance(to, tuple) and to and isinstance(to[0], str | bytes | bytearray):
                if to[0] not in ("<broadcast>", b"<broadcast>"):  # which no name server is asked
                    _check_lookup(to[0], addresses=True)
        return real(self, *args)

    method._knowme_wall = True  # type: ignore[attr-defined]
    return method


def _text(host: Any) -> str:
    if isinstance(host, bytes | bytearray):
        return host.decode("ascii", "backslashreplace")
    return str(host or "")


def _address(to: Any) -> str:
    if isinstance(to, tuple) and len(to) > 1:
        host = _text(to[0])
        return f"[{host}]:{to[1]}" if ":" in host else f"{host}:{to[1]}"
    return repr(to)
