"""Backends by name: ``kind -> name -> "module:attribute"``; nothing is imported until it is used.

Promises: listing imports no backend; installed packages add theirs through entry points in the
groups ``knowme.engines``, ``knowme.embedders``, ``knowme.indexes``, ``knowme.sources`` and
``knowme.trainers``.
Refuses to know: what a backend needs. Each attribute is a callable that takes keyword settings.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from knowme.errors import ConfigError

BUILTIN: dict[str, dict[str, str]] = {
    "engines": {
        "echo": "knowme.engines.echo:EchoEngine",
        "llamacpp": "knowme.engines.llamacpp:LlamaCppEngine",
        "ollama": "knowme.engines.ollama:OllamaEngine",
        "openai": "knowme.engines.openai:OpenAIEngine",
    },
    "embedders": {
        "hashing": "knowme.embedders.hashing:HashingEmbedder",
        "local": "knowme.embedders.local:LocalEmbedder",
        "ollama": "knowme.embedders.ollama:OllamaEmbedder",
        "onnx": "knowme.embedders.onnx:OnnxEmbedder",
        "openai": "knowme.embedders.openai:OpenAIEmbedder",
        "static": "knowme.embedders.static:StaticEmbedder",
    },
    "indexes": {
        "chroma": "knowme.indexes.chroma:ChromaIndex",
        "numpy": "knowme.indexes.numpy:NumpyIndex",
        "sqlite_vec": "knowme.indexes.sqlite_vec:SqliteVecIndex",
    },
    "sources": {
        "knowme": "knowme.sources.knowme:KnowmeSource",
        "markdown": "knowme.sources.markdown:MarkdownSource",
        "openclaw": "knowme.sources.openclaw:OpenClawSource",
    },
    "trainers": {
        "peft": "knowme.trainers.peft:PeftTrainer",
        "unsloth": "knowme.trainers.unsloth:UnslothTrainer",
    },
}


def _entry_points(kind: str) -> dict[str, str]:
    from importlib.metadata import entry_points  # 30 ms: only where a plugin is looked up

    return {point.name: point.value for point in entry_points(group=f"knowme.{kind}")}


def names(kind: str) -> list[str]:
    """Return the names of every backend of this kind, built in or installed."""
    return sorted({*BUILTIN[kind], *_entry_points(kind)})


def find(kind: str, name: str) -> Callable[..., Any]:
    """Import and return the backend ``name`` of ``kind``.

    Raises ConfigError for an unknown name, or when the backend's package is not installed.
    """
    target = BUILTIN[kind].get(name) or _entry_points(kind).get(name)
    if target is None:
        raise ConfigError(
            f"There is no {kind[:-1]} called {name!r}.", f"Use one of: {', '.join(names(kind))}."
        )
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    except ImportError as error:
        raise ConfigError(
            f"The {kind[:-1]} {name!r} needs the package {error.name!r}, which is not installed.",
            f"Run: pip install 'knowme[{EXTRA.get(f'{kind}.{name}', 'local')}]'",
        ) from error


EXTRA = {
    "engines.llamacpp": "local",
    "embedders.local": "local",
    "embedders.onnx": "local",
    "embedders.static": "local",
    "indexes.chroma": "chroma",
    "indexes.sqlite_vec": "sqlite-vec",
    "trainers.peft": "train",
    "trainers.unsloth": "train",
}
"""Backend -> the extra that installs what it runs on."""
