"""The `llm:` section of another installation's config.yaml, told in our own settings.

Promises: every value keeps the line that it stood on; a key that is not in KEYS is refused by its
line, with a guess; where our own settings say the same thing, ours win (``config.parse_yaml``).
Refuses to know: what a legal value is. ``config`` checks each under our own key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from knowme import times
from knowme.config import check_role, pairs, unknown
from knowme.errors import ConfigError

KEYS = {
    "provider": "the engine of every model: ollama, openai (any server with a /v1), llamacpp, echo",
    "base_url": "its address; for ollama with or without /v1 or /api at its end",
    "api_key": "its key; better put KNOWME_MODELS_ROLE_API_KEY into .env",
    "models": "role -> the model's name, or {name, context_length, max_tokens}",
    "cache": "{type: ram | ssd | none, max_models, eviction: lru}",
    "routing": "{rules: [{pattern, model}]}",
    "timeout": "engine.timeout_seconds",
    "temperature": "engine.temperature",
    "max_tokens": "engine.max_tokens",
}
"""What `llm:` may hold, and what becomes of it."""

PROVIDERS = {
    "ollama": "ollama",
    "openai": "openai",
    "openai-compatible": "openai",
    "llamacpp": "llamacpp",
    "llama.cpp": "llamacpp",
    "llama-cpp": "llamacpp",
    "echo": "echo",
}
"""Provider, as others write it -> our engine."""

MODEL = {
    "name": "model",
    "model": "model",
    "context": "context_tokens",
    "context_length": "context_tokens",
    "num_ctx": "context_tokens",
    "max_tokens": "max_tokens",
}
"""A key of one of its models -> ours."""

CACHE = {"type": "residency.cache", "max_models": "residency.max_models", "eviction": ""}
ROUTING = {"rules": "routing.rules"}
ENGINE = {
    "timeout": "engine.timeout_seconds",
    "temperature": "engine.temperature",
    "max_tokens": "engine.max_tokens",
}

Told = Iterator[tuple[str, Any, str]]
"""(our key, the value as it was written, where it stood)."""


def translate(llm: Any, origin: str) -> Told:
    """Yield our settings for what `llm:` holds. Raises ConfigError with the line."""
    given = _given(llm, origin, "llm", KEYS)
    shared = dict(_server(given))
    models, at = _part(given, "models", origin)
    if not models:
        for name, (value, line) in shared.items():
            yield f"engine.{'kind' if name == 'engine' else name}", value, line
    for role, model, line in pairs(models, at, "llm.models"):
        check_role(role, line)
        if model is not None:
            yield from _model(role, model, line, shared)
    for key, (value, line) in _given(*_part(given, "cache", origin), "llm.cache", CACHE).items():
        if key == "eviction":
            _check_eviction(value, line)
        else:
            yield CACHE[key], value, line
    inner = _given(*_part(given, "routing", origin), "llm.routing", ROUTING)
    for key, (value, line) in inner.items():
        yield ROUTING[key], value, line
    for key, ours in ENGINE.items():
        if key in given:
            value, line = given[key]
            yield ours, _seconds(value) if key == "timeout" else value, line


def _given(
    value: Any, origin: str, where: str, legal: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for key, each, at in pairs(value, origin, where):
        if key not in legal:
            raise unknown(f"setting in {where} called", key, list(legal), at)
        if each is not None:
            found[key] = (each, at)
    return found


def _part(given: Mapping[str, tuple[Any, str]], key: str, origin: str) -> tuple[Any, str]:
    return given.get(key, (None, origin))


def _server(given: Mapping[str, tuple[Any, str]]) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Yield what all its models share: engine, url, api_key."""
    provider, at = given.get("provider", ("", ""))
    if provider and str(provider).lower().replace("_", "-") not in PROVIDERS:
        raise unknown("provider", str(provider), list(PROVIDERS), at)
    engine = PROVIDERS.get(str(provider).lower().replace("_", "-"), "")
    url, url_at = given.get("base_url", ("", ""))
    if engine == "llamacpp" and url:
        engine = "openai"  # a llama.cpp that has an address is its server, which speaks /v1
    if engine:
        yield "engine", (engine, at)
    if url:
        yield "url", (_address(url, engine), url_at)
    if "api_key" in given:
        yield "api_key", given["api_key"]


def _address(url: Any, engine: str) -> Any:
    if engine == "ollama" and isinstance(url, str):
        return re.sub(r"(/v1|/api)?/*$", "", url.rstrip("/"))
    return url


def _model(role: str, model: Any, origin: str, shared: Mapping[str, tuple[Any, str]]) -> Told:
    if not isinstance(model, (str, Mapping)):
        raise ConfigError(
            f"{origin}: llm.models.{role} is {model!r}, but it must be a model's name.",
            f"Write: {role}: NAME, or {role}: {{name: NAME, context_length: 8192}}",
        )
    for name, (value, at) in shared.items():
        yield f"models.{role}.{name}", value, at
    if isinstance(model, str):
        yield f"models.{role}.model", model, origin
        return
    for key, (value, at) in _given(model, origin, f"llm.models.{role}", MODEL).items():
        yield f"models.{role}.{MODEL[key]}", value, at


def _check_eviction(value: Any, origin: str) -> None:
    if str(value).lower() != "lru":
        raise ConfigError(
            f"{origin}: llm.cache.eviction is {value!r}, but lru is what there is: the least "
            "recently used model goes first.",
            "Write `eviction: lru`, or remove the line.",
        )


def _seconds(value: Any) -> Any:
    """Read 120s as 120; anything else is left for the check of engine.timeout_seconds."""
    try:
        return times.parse_duration(value)
    except (ValueError, AttributeError):
        return value
