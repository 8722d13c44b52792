"""What can be set: every key once, with its default, its help and its legal values.

Promises: a key that is not declared here does not exist; values are frozen once built.
Refuses to know: where a value comes from (``config.py``), what a setting does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knowme.types import PURPOSES


def setting(default: Any, help: str, **more: Any) -> Any:
    """Declare one setting: its default, its help, and what is legal.

    Optional: ``choices=`` (the legal words), ``words=`` (the legal words of a list), ``values=``
    (the legal values of a mapping), ``minimum=``, ``maximum=``, ``plugins=`` (a kind of
    backend whose names are legal, beside the words in ``also=``), ``shape=`` (a name in SHAPES),
    ``secret=True`` (never printed, not even by repr).
    """
    meta = {"help": help, **more}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta, repr=not more.get("secret"))


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One thing that `knowme sync` reads."""

    kind: str = setting(
        "", "openclaw, markdown, knowme (an export), or a plugin's name", plugins="sources"
    )
    path: str = setting(
        "",
        "Where it is: ~/.openclaw, a folder of notes, an export; a relative path starts at the "
        "home",
    )
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
        "", "Zone for dates in answers, such as Europe/Lisbon; empty: this machine's", shape="zone"
    )


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """What turns text into vectors."""

    kind: str = setting(
        "auto",
        "auto (the first that is here of onnx, local, static, hashing), onnx, local (llama.cpp), "
        "static, ollama, openai, hashing, none, or a plugin's name",
        plugins="embedders",
        also=("auto", "none"),
    )
    model: str = setting(
        "", "A packaged model's name, a .onnx or .gguf path, or the server's model name"
    )
    url: str = setting("", "The server, for ollama and openai")
    api_key: str = setting(
        "", "For openai; better set KNOWME_EMBEDDER_API_KEY in .env", secret=True
    )
    dims: int = setting(
        0, "Truncate to this many dimensions (Matryoshka models); 0: all", minimum=0
    )
    max_tokens: int = setting(256, "Tokens of a text that are embedded", minimum=16)
    threads: int = setting(0, "Threads; 0: chosen by the machine's load", minimum=0)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where nearest neighbours are looked up."""

    kind: str = setting(
        "numpy", "numpy (exact), sqlite_vec, chroma, or a plugin's name", plugins="indexes"
    )


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
        plugins="engines",
        also=("auto",),
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
class ModelSettings:
    """One model, under the name of its role: primary, code, fast, vision, cloud, any name."""

    role: str = setting("", "What the model is for; `primary` answers by default")
    engine: str = setting(
        "auto", "llamacpp, ollama, openai, echo, auto, or a plugin's name; auto: as engine.kind",
        plugins="engines", also=("auto",),
    )  # fmt: skip
    model: str = setting("", "A packaged model's name, a .gguf path, or the server's model name")
    url: str = setting("", "The server, where it is not the engine's usual one")
    api_key: str = setting(
        "", "Better set KNOWME_MODELS_ROLE_API_KEY in .env (KNOWME_MODELS_CLOUD_API_KEY)",
        secret=True,
    )  # fmt: skip
    context_tokens: int = setting(0, "Its window as we use it; 0: engine.context_tokens", minimum=0)
    max_tokens: int = setting(0, "Its longest answer; 0: engine.max_tokens", minimum=0)
    price_in: float = setting(0.0, "Price of a million prompt tokens", minimum=0.0)
    price_out: float = setting(0.0, "Price of a million answer tokens", minimum=0.0)
    local: str = setting(
        "auto",
        "true: a machine of your own, nothing that goes there counts as leaving; false: it counts; "
        "auto: only this machine's own address is local",
        choices=("auto", "true", "false"),
    )
    residency: str = setting(
        "on_demand",
        "always: loaded at the start and never evicted; on_demand: loaded when asked for, kept as "
        "residency.cache says; unload_after: kept for unload_after",
        choices=("always", "on_demand", "unload_after"),
    )
    unload_after: str = setting(
        "5m", "How long it stays loaded without a question: 30s, 5m, 1h", shape="duration"
    )
    memory_mb: int = setting(
        0, "What it takes when it is loaded, where we cannot know; 0: we look", minimum=0
    )
    images: bool = setting(False, "It can look at pictures")
    tools: str = setting(
        "auto", "It can call tools: true, false, auto (not under a billion parameters)",
        choices=("auto", "true", "false"),
    )  # fmt: skip
    think: bool = setting(False, "Let a thinking model think")


@dataclass(frozen=True, slots=True)
class ResidencySettings:
    """Which models of this machine stay in its memory."""

    cache: str = setting(
        "ram",
        "How long an idle model stays loaded: ram 30 minutes, ssd 2 minutes (loading it again is "
        "cheap), none not at all",
        choices=("ram", "ssd", "none"),
    )
    max_models: int = setting(2, "Loaded at once; the least recently used goes; 0: any", minimum=0)
    memory_mb: int = setting(0, "Memory of all loaded models together; 0: no limit", minimum=0)
    warm_up: bool = setting(True, "Load the models that are `always` there as the service starts")
    keep_prefix: bool = setting(
        True,
        "Save what a model has read of a prompt as it is unloaded, and restore it (llamacpp)",
    )


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """One rule of routing: a message that the pattern is found in goes to the model."""

    pattern: str = setting("", "A regular expression; case does not matter")
    model: str = setting("", "The role, or the model's name")


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """Which model answers a message."""

    rules: tuple[RuleSettings, ...] = setting((), "Rules: the first that matches wins")
    heuristics: bool = setting(True, "Send code to `code`, short and personal messages home")
    learned: bool = setting(True, "Weigh what the stronger model would gain against what it costs")
    uncertain: str = setting(
        "local",
        "Where gain and cost are about equal: local answers, or check (local answers, looks at its "
        "answer again, and passes the question on if that is not good)",
        choices=("local", "check"),
    )
    monthly_budget: float = setting(
        5.0, "What remote models may cost a month, in the money of their prices", minimum=0.0
    )
    worth: float = setting(
        0.05,
        "What an answer that is right instead of wrong is worth to you, in the money of the prices",
        minimum=0.0,
    )
    fallback: tuple[str, ...] = setting(
        (), "Roles to try when a model fails, in this order; where none may: the other local ones"
    )
    short_chars: int = setting(100, "A message shorter than this is short", minimum=0)
    explore: float = setting(
        0.0, "Share of near ties that are decided by lot, so that the router learns more",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    shadow: float = setting(
        0.0,
        "Share of local answers that the cloud answers too, for comparison, where privacy allows",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    classifier: str = setting(
        "words",
        "What tells PERSONAL from COMPLEX: words (no model call) or model (asks the fast one)",
        choices=("words", "model"),
    )


POLICIES = ("allow", "placeholders", "deny")


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """What may leave this machine, by what it is: allow, placeholders (names replaced), deny."""

    question: str = setting("allow", "What you ask just now", choices=POLICIES)
    history: str = setting(
        "deny", "Turns of this conversation that were answered at home", choices=POLICIES
    )
    recalled: str = setting("deny", "What is recalled from memory", choices=POLICIES)
    files: str = setting("deny", "Workspace files", choices=POLICIES)
    memory: str = setting("deny", "What is known of you: the profile", choices=POLICIES)
    summary: str = setting("deny", "Summaries of earlier turns", choices=POLICIES)
    sources: Mapping[str, str] = setting(
        dict, "For what is recalled, by source: {markdown: allow, openclaw: placeholders}",
        values=POLICIES,
    )  # fmt: skip
    names: tuple[str, ...] = setting(
        (), "Names that placeholders stand for, beside your own and those of speakers"
    )
    keep_bodies: bool = setting(True, "Keep what was sent, for `knowme egress show`")
    sensitive: str = setting(
        "home",
        "Facts on health, sexuality, politics, religion and the like: home (kept, and in no prompt "
        "that leaves this machine, whatever else is allowed) or off (not learned at all)",
        choices=("home", "off"),
    )


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """What a prompt is made of, beside the question."""

    strategies: tuple[str, ...] = setting(
        ("files", "memory", "summary", "recent", "recall"),
        "Any of: files (workspace files), memory (USER_PROFILE.md), summary (of turns that left "
        "the window), recent (the last turns), recall (what is found for the question)",
        words=("files", "memory", "summary", "recent", "recall"),
    )
    recent_turns: int = setting(40, "Earlier messages of the conversation, at most", minimum=0)
    workspace: str = setting(
        "", "Folder of the workspace files; a relative path starts at the home"
    )
    files: tuple[str, ...] = setting(
        ("AGENTS.md", "SOUL.md", "TOOLS.md", "USER.md"), "Workspace files, read again when changed"
    )
    files_tokens: int = setting(600, "Budget of the workspace files", minimum=0)
    memory_tokens: int = setting(500, "Budget of what is known of you", minimum=0)
    summary_tokens: int = setting(
        300, "Budget of the summary; once there is one it takes its room from the turns", minimum=0
    )
    summaries: str = setting(
        "auto",
        "Who words summaries: auto (a local model of a billion parameters or more, else "
        "extractive), extractive (sentences as they were said), model (the local model, however "
        "small)",
        choices=("auto", "extractive", "model"),
    )


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How a question is put to the model."""

    system_tokens: int = setting(200, "Budget of the instructions", minimum=50)
    recalled_tokens: int = setting(1000, "Budget of what is recalled", minimum=0)
    question_tokens: int = setting(500, "Budget of the question", minimum=50)
    history_tokens: int = setting(1500, "Budget of the last turns in a chat", minimum=0)
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
class FactsSettings:
    """What is learned from what was said."""

    read: str = setting(
        "auto",
        "Who reads for facts: auto (rules, then a local model of a billion parameters or more), "
        "rules, model (rules, then the model of facts.role, however small), off",
        choices=("auto", "rules", "model", "off"),
    )
    role: str = setting(
        "",
        "The model that reads, by role; empty: the primary one. A remote one reads only what "
        "privacy.recalled and privacy.sources let leave",
    )
    question_at: str = setting(
        "18:00", "One question a day about what is doubtful, from then on; empty: never",
        shape="clock",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """What is known of the person, as USER_PROFILE.md."""

    build: bool = setting(True, "Build it after each sync")
    psychology: bool = setting(
        True, "Also personality, attachment, values, habits under stress, with their uncertainty"
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """What is given up as it grows old. All of it is off by default; days, 0: never."""

    vectors_days: int = setting(
        0, "Drop the vectors of entries older than this: they are found by words alone", minimum=0
    )
    compress_days: int = setting(
        0, "Compress the text of entries older than this, without loss", minimum=0
    )
    kinds: tuple[str, ...] = setting(
        (), "Only these kinds, for both: message, section; none: all", words=("message", "section")
    )
    forget_after: Mapping[str, str] = setting(
        dict, "Forget what is older, by source: {telegram: 365d}; 30d, 6m, 2y", shape="ages"
    )


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """How data sets and adapters are made of what was said."""

    purpose: str = setting(
        "assistant-for-me",
        "assistant-for-me (answers as you like them) or sound-like-me (your own messages are the "
        "answers)",
        choices=PURPOSES,
    )
    preset: str = setting(
        "auto",
        "What is trained and how: tiny, qwen3-1.7b, qwen3-4b, llama-3.1-8b, or auto (the one of "
        "the primary model)",
        choices=("auto", "tiny", "qwen3-1.7b", "qwen3-4b", "llama-3.1-8b"),
    )
    base: str = setting(
        "",
        "The model to train, where it is not the preset's: a folder of Hugging Face files, a "
        ".gguf, or a hub's name",
    )
    trainer: str = setting(
        "auto",
        "auto (unsloth on a CUDA card where it is installed, else peft), peft, unsloth, or a "
        "plugin's name",
        plugins="trainers", also=("auto",),
    )  # fmt: skip
    system_prompt: str = setting("", "Instructions at the beginning of each example")
    min_answer_chars: int = setting(20, "An answer shorter than this teaches nothing", minimum=1)
    enough_pairs: int = setting(500, "Examples that are recommended before training", minimum=1)
    reasoning_share: float = setting(
        0.5, "Share of decisions whose answer begins with its reasoning (<think>)",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    test_share: float = setting(
        0.15,
        "Share of the newest conversations that is kept for testing",
        minimum=0.05,
        maximum=0.5,
    )
    validation_share: float = setting(
        0.1, "Share, before those, that tells when to stop", minimum=0.0, maximum=0.3
    )
    teacher: str = setting(
        "",
        "Who writes questions about you from transcripts: a model by role, or anthropic; empty: "
        "the primary model, where it has a billion parameters or more",
    )
    teacher_model: str = setting("claude-sonnet-4-5", "The model's name at Anthropic")
    teacher_url: str = setting("https://api.anthropic.com", "Anthropic's address")
    teacher_api_key: str = setting(
        "", "Key for Anthropic; better set KNOWME_LEARN_TEACHER_API_KEY in .env", secret=True
    )
    teacher_price_in: float = setting(
        1.5, "Price of a million prompt tokens in a batch", minimum=0.0
    )
    teacher_price_out: float = setting(
        7.5, "Price of a million answer tokens in a batch", minimum=0.0
    )
    every: str = setting(
        "month",
        "When an adapter is made by itself, once there are learn.enough_pairs and the machine is "
        "idle and on mains power: month (or after learn.new_pairs new ones), never",
        choices=("month", "never"),
    )
    new_pairs: int = setting(200, "New examples that are worth a new adapter", minimum=1)
    threads: int = setting(0, "Threads of the training; 0: chosen by the machine", minimum=0)


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The HTTP service."""

    host: str = setting("127.0.0.1", "Where it listens; anything beyond loopback needs a token")
    port: int = setting(8300, "Its port; 0: any free one", minimum=0, maximum=65535)
    token: str = setting("", "Bearer token; better set KNOWME_SERVICE_TOKEN in .env", secret=True)
    allowed_hosts: tuple[str, ...] = setting((), "Host headers accepted beside loopback names")
    allowed_origins: tuple[str, ...] = setting((), "Origins accepted beside its own pages")
    max_body_mb: int = setting(64, "Largest request body", minimum=1)


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Work in the background (`knowme daemon`)."""

    sync_at: str = setting("03:30", "Daily sync, HH:MM local time; empty: never", shape="clock")
    backup_at: str = setting("04:00", "Daily backup, HH:MM local time; empty: never", shape="clock")
    backup_keep: int = setting(7, "Daily backups kept", minimum=1)
    retention_at: str = setting(
        "04:30", "When `retention` is seen to, HH:MM local time, where it is set", shape="clock"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them."""

    name: str = setting("", "Your name, as the answers should say it")
    offline: bool = setting(False, "Make every connection beyond this machine impossible")
    sources: tuple[SourceSettings, ...] = setting((), "What `knowme sync` reads")
    models: tuple[ModelSettings, ...] = setting(
        (), "Models by role; with none, `engine` is the primary one"
    )
    memory: MemorySettings = setting(MemorySettings, "How memory.db is kept")
    embedder: EmbedderSettings = setting(EmbedderSettings, "What turns text into vectors")
    index: IndexSettings = setting(IndexSettings, "Where nearest neighbours are looked up")
    search: SearchSettings = setting(SearchSettings, "Recall")
    engine: EngineSettings = setting(EngineSettings, "The model that answers")
    residency: ResidencySettings = setting(
        ResidencySettings, "Which models of this machine stay in its memory"
    )
    routing: RoutingSettings = setting(RoutingSettings, "Which model answers a message")
    privacy: PrivacySettings = setting(PrivacySettings, "What may leave this machine")
    context: ContextSettings = setting(ContextSettings, "What a prompt is made of")
    ask: AskSettings = setting(AskSettings, "How a question is put to the model")
    facts: FactsSettings = setting(FactsSettings, "What is learned from what was said")
    profile: ProfileSettings = setting(ProfileSettings, "What is known of you, as a page")
    retention: RetentionSettings = setting(RetentionSettings, "What is given up as it grows old")
    learn: LearnSettings = setting(LearnSettings, "Data sets and adapters")
    service: ServiceSettings = setting(ServiceSettings, "The HTTP service")
    jobs: JobSettings = setting(JobSettings, "Work in the background")
