"""Settings: defaults <- config.yaml <- environment and .env <- flags, each with its provenance.

Promises: every key is declared once, below, with its help and its legal values; anything else is
refused with the legal ones named. Secrets come from the environment or .env and are never printed.
Refuses to know: what a setting does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def setting(default: Any, help: str, **more: Any) -> Any:
    """Declare one setting: its default, its help, and optionally choices=, minimum=, secret=."""
    meta = {"help": help, **more}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One thing that `knowme sync` reads."""

    kind: str = setting("", "openclaw, markdown, knowme (an export), or a plugin's name")
    path: str = setting("", "Where it is: ~/.openclaw, a folder of notes, an export")
    name: str = setting("", "What to call it in answers; the kind when empty")
    enabled: bool = setting(True, "Read it at each sync")


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How memory.db is kept."""

    durability: str = setting(
        "full",
        "full: a power cut loses nothing that was acknowledged; normal: faster writes, a power cut "
        "may cost the last moments (a killed process still loses nothing)",
        choices=("full", "normal"),
    )
    timezone: str = setting(
        "", "Zone for dates in answers, such as Europe/Lisbon; empty: this machine's"
    )


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """What turns text into vectors."""

    kind: str = setting(
        "auto",
        "auto (local if its model is here, else static, else hashing), local, static, ollama, "
        "openai, hashing, none, or a plugin's name",
    )
    model: str = setting("", "A packaged model's name, a .gguf path, or the server's model name")
    url: str = setting("", "The server, for ollama and openai")
    api_key: str = setting(
        "", "For openai; better set KNOWME_EMBEDDER_API_KEY in .env", secret=True
    )
    dims: int = setting(
        0, "Truncate to this many dimensions (Matryoshka models); 0: all", minimum=0
    )
    max_tokens: int = setting(128, "Tokens of a text that are embedded", minimum=16)
    threads: int = setting(0, "Threads; 0: chosen by the machine's load", minimum=0)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where nearest neighbours are looked up."""

    kind: str = setting("numpy", "numpy (exact), sqlite_vec, chroma, or a plugin's name")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Recall."""

    top_k: int = setting(10, "Results by default", minimum=1)
    neighbours: int = setting(1, "Messages shown on each side of a result", minimum=0)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The model that answers."""

    kind: str = setting(
        "auto",
        "auto (a running Ollama, else the embedded model, else echo), llamacpp, ollama, openai, "
        "echo, or a plugin's name",
    )
    model: str = setting("", "A packaged model's name, a .gguf path, or the server's model name")
    url: str = setting(
        "", "The server: http://127.0.0.1:11434 for ollama, a /v1 base URL for openai"
    )
    api_key: str = setting("", "For openai; better set KNOWME_ENGINE_API_KEY in .env", secret=True)
    context_tokens: int = setting(4096, "The model's window as we use it", minimum=512)
    max_tokens: int = setting(512, "The longest answer", minimum=1)
    temperature: float = setting(0.2, "0: always the likeliest word", minimum=0.0)
    threads: int = setting(
        0, "Threads of the embedded model; 0: chosen by the machine's load", minimum=0
    )
    memory_mb: int = setting(
        0, "Refuse an embedded model larger than this; 0: what is free", minimum=0
    )
    keep_alive: str = setting("30m", "How long Ollama keeps the model loaded")
    think: bool = setting(False, "Let a thinking model think (ollama)")
    timeout_seconds: float = setting(
        120.0, "Longest wait for the next piece of an answer", minimum=1.0
    )


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How a question is put to the model."""

    system_tokens: int = setting(200, "Budget of the instructions", minimum=50)
    recalled_tokens: int = setting(1000, "Budget of what is recalled", minimum=0)
    question_tokens: int = setting(500, "Budget of the question", minimum=50)
    history_tokens: int = setting(800, "Budget of the last turns in a chat", minimum=0)
    threshold: float = setting(
        -1.0, "Below this relevance nothing counts as known; -1: the embedder's measured value"
    )
    quote_first: str = setting(
        "auto",
        "Lead the answer with the quoted words and their date: always, never, or auto (models "
        "under a billion parameters)",
        choices=("auto", "always", "never"),
    )


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The HTTP service."""

    host: str = setting("127.0.0.1", "Where it listens; anything beyond loopback needs a token")
    port: int = setting(8300, "Its port", minimum=0)
    token: str = setting("", "Bearer token; better set KNOWME_SERVICE_TOKEN in .env", secret=True)
    allowed_hosts: tuple[str, ...] = setting((), "Host headers accepted beside loopback names")
    allowed_origins: tuple[str, ...] = setting((), "Origins accepted beside its own pages")
    max_body_mb: int = setting(64, "Largest request body", minimum=1)


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Work in the background (`knowme daemon`)."""

    sync_at: str = setting("03:30", "Daily sync, HH:MM local time; empty: never")
    backup_at: str = setting("04:00", "Daily backup, HH:MM local time; empty: never")
    backup_keep: int = setting(7, "Daily backups kept", minimum=1)


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them."""

    name: str = setting("", "Your name, as the answers should say it")
    sources: tuple[SourceSettings, ...] = setting((), "What `knowme sync` reads")
    memory: MemorySettings = setting(MemorySettings, "How memory.db is kept")
    embedder: EmbedderSettings = setting(EmbedderSettings, "What turns text into vectors")
    index: IndexSettings = setting(IndexSettings, "Where nearest neighbours are looked up")
    search: SearchSettings = setting(SearchSettings, "Recall")
    engine: EngineSettings = setting(EngineSettings, "The model that answers")
    ask: AskSettings = setting(AskSettings, "How a question is put to the model")
    service: ServiceSettings = setting(ServiceSettings, "The HTTP service")
    jobs: JobSettings = setting(JobSettings, "Work in the background")
