"""The pages: self-contained HTML, nothing from elsewhere.

Promises: a page needs no request but to this service; its policy allows exactly the script and the
style that stand in it (by hash), so injected ones do not run.
Refuses to know: what the API does; /docs draws it from /openapi.json.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def page(name: str) -> tuple[bytes, str]:
    """Return (the HTML of a page, its Content-Security-Policy)."""
    text = (files(__package__) / f"{name}.html").read_text(encoding="utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, inline in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    policy = (
        "default-src 'self'; img-src 'self' data:; "
        f"script-src {' '.join(hashes['script']) or chr(39) + 'none' + chr(39)}; "
        f"style-src {' '.join(hashes['style']) or chr(39) + 'none' + chr(39)}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy
