"""The one composition root: opens a home folder and wires the parts together.

Promises: parts are built when they are first used, from the settings, and say why they cannot be.
Every backend gets the ledger as its gate; with ``offline`` this process reaches nothing beyond it.
``search`` uses the vectors that serve now; a changed embedder never mixes with the old one's.
Refuses to know: how a part works.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from knowme import config as config_module
from knowme import net, plugins
from knowme.attributes import attribute
from knowme.config import Config
from knowme.db import Database, rows, value
from knowme.errors import ConfigError, HomeError, KnowmeError, ModelError
from knowme.settings import EngineSettings, Settings
from knowme.types import ME, EmbedKind, Hit, Query

if TYPE_CHECKING:
    import apsw

    from knowme.egress import Ledger
    from knowme.follow import Follower
    from knowme.gain import Gain
    from knowme.memory import Space
    from knowme.models import Models
    from knowme.rules import Rules
    from knowme.seams import Embedder, Engine, VectorIndex, Vectors
    from knowme.search import Searcher
    from knowme.sessions import Locks
    from knowme.workspace import Workspace

log = logging.getLogger("knowme.home")

FOLDERS = ("archive", "runs", "backups", "index")


def home_path(flag: str | None = None) -> Path:
    """Return the home folder: the flag, else KNOWME_HOME, else ~/.knowme."""
    return Path(flag or os.environ.get("KNOWME_HOME") or "~/.knowme").expanduser().absolute()


class Home:
    """An opened home. Thread-safe. A context manager; close it when done."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self.settings: Settings = config.settings
        self.db = Database(path / "memory.db", durability=self.settings.memory.durability)  # type: ignore[arg-type]
        self._lock = threading.RLock()
        self._offline = self.settings.offline
        if self._offline:
            net.forbid(True)

    @classmethod
    def create(cls, path: Path) -> None:
        """Make the home at ``path``, mode 0700. On a home it mends what is missing.

        Raises HomeError when the folder holds something else, or cannot be written.
        """
        ours = (path / "config.yaml").exists() or (path / "memory.db").exists()
        if path.exists() and not path.is_dir():
            raise HomeError(f"{path} is not a folder.", "Name another: --home PATH")
        if path.exists() and not ours and _foreign(path):
            raise HomeError(f"{path} holds something else.", "Name an empty folder: --home PATH")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            for name in FOLDERS:
                (path / name).mkdir(mode=0o700, exist_ok=True)
            settings = path / "config.yaml"
            if not settings.exists():
                partial = path / f".config.yaml.{os.getpid()}.partial"
                partial.write_text(config_module.render_yaml(), encoding="utf-8")
                partial.chmod(0o600)
                partial.replace(settings)
        except OSError as error:
            raise HomeError(
                f"{path} cannot be made: {error.strerror}.", "Name another: --home PATH"
            ) from error
        Database(path / "memory.db").close()
        (path / "memory.db").chmod(0o600)

    @classmethod
    def open(cls, path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Home:
        """Open the home. Raises HomeError when there is none, ConfigError, StoreError."""
        where = path or home_path()
        if not (where / "config.yaml").exists() and not (where / "memory.db").exists():
            raise HomeError(f"There is no knowme home at {where}.", "Make one: knowme init")
        return cls(where, config_module.load(where, overrides))

    # --- parts -----------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """What everything that leaves this machine passes."""
        from knowme.egress import Ledger

        return Ledger(self.db, self.settings)

    @cached_property
    def models(self) -> Models:
        """The models by role, and which of them are in memory."""
        from knowme.models import Models

        folder = self.path / "index" / "prefix"
        return Models(
            self.settings,
            self.db,
            gate=self.ledger,
            folder=folder,
            detect=_detect_engine,
            adapter_of=self.adapter_of,
        )

    def adapter_of(self, gguf: Path) -> Path | None:
        """Return the adapter that is in use with a model's file.

        None: none is, or it was changed, or what it learned from was forgotten since.
        """
        from knowme import adoptions

        with self.db.read() as conn:
            used = adoptions.current(conn, self.settings.learn.purpose)
        if not used:
            return None
        with suppress(OSError):
            stat = gguf.stat()
            key = (gguf, stat.st_size, stat.st_mtime_ns)
            if key not in self._bases:
                self._bases[key] = adoptions.base_of(gguf)
            found = used.get(self._bases[key])
            if found is None:
                return None
            if (self.path / "runs" / found.run / adoptions.STALE).exists():
                return None  # doctor and `learn status` say so
            path = self.path / found.adapter
            stat = path.stat()
            seen = (path, stat.st_size, stat.st_mtime_ns)
            if seen not in self._bases:
                self._bases[seen] = adoptions.file_sha256(path)
            if self._bases[seen] == found.sha256:
                return path
            log.warning("The adapter %s was changed since it was adopted; it is not used.", path)
        return None

    @cached_property
    def _bases(self) -> dict[tuple[Path, int, int], str]:
        return {}

    @property
    def engine(self) -> Engine:
        """The model that answers by default."""
        return self.models.engine(self.models.primary)

    @cached_property
    def locks(self) -> Locks:
        """One lock a conversation: its questions are answered one after the other."""
        from knowme.sessions import Locks

        return Locks()

    @cached_property
    def rules(self) -> Rules:
        """The person's own rules of routing. Raises ConfigError for a bad pattern."""
        from knowme.rules import compile_rules

        models = {state.role: state.model for state in self.models.states()}
        known = models if self.settings.models else None  # with one model the router says so
        return compile_rules(self.settings.routing.rules, known)

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace files, read again when they change."""
        from knowme.workspace import Workspace

        return Workspace(self.path, self.settings.context)

    def gain(self) -> tuple[Gain, int | None, str]:
        """Return the learned router in use, its version (None: as shipped), and its embedder."""
        from knowme import feedback, memory

        with self._lock, self.db.read() as conn:
            space = memory.serving(conn)
            fingerprint = "" if space is None else space.fingerprint
            promoted = feedback.promoted(conn, fingerprint)  # perhaps by another process
            if self._gain is None or self._gain[1:] != (promoted, fingerprint):
                self._gain = (*feedback.in_use(conn, fingerprint), fingerprint)
            return self._gain

    _gain: tuple[Gain, int | None, str] | None = None

    def learned(self) -> None:
        """Note that the person said what they think: the next question may be routed by it."""
        self._gain = None

    def embed(self, text: str, kind: EmbedKind = "query") -> tuple[Vectors | None, Space | None]:
        """Return the vector (dims,) of what is asked or told now. See search.Searcher.embed."""
        return self._searcher.embed(text, kind)

    @property
    def embedder(self) -> Embedder | None:
        """The configured embedder, or None."""
        with self._lock:
            if self._embedder is None:
                spec = self.embedder_spec()
                if spec["kind"] != "none":
                    self._embedder = self._build_embedder(spec)
            return self._embedder

    _embedder: Embedder | None = None

    def embedder_spec(self) -> dict[str, Any]:
        """Return the settings that make the configured embedder, without secrets."""
        spec = asdict(self.settings.embedder)
        del spec["api_key"], spec["threads"]
        if spec["kind"] == "auto":
            spec["kind"] = _detect_embedder(spec["model"])
        return spec

    def _build_embedder(self, spec: Mapping[str, Any]) -> Embedder:
        settings = self.settings.embedder
        more = {"api_key": settings.api_key, "threads": settings.threads, "gate": self.ledger}
        return plugins.find("embedders", spec["kind"])(**{**spec, **more})  # type: ignore[no-any-return]

    def space(self) -> Space | None:
        """Return the embedder's space whose vectors serve, or None."""
        from knowme import memory

        with self.db.read() as conn:
            return memory.serving(conn)

    def embedder_for(self, space: Space) -> Embedder | None:
        """Return the embedder that made these vectors: the configured one, or the old one rebuilt.

        None when it cannot be made any more: then only words are searched.
        """
        with self._lock:
            configured = self.embedder
            if _is(configured, space.fingerprint):
                return configured
            if not _is(self._old_embedder, space.fingerprint):
                try:
                    self._old_embedder = self._build_embedder(space.spec)
                except KnowmeError:
                    return None
            return self._old_embedder if _is(self._old_embedder, space.fingerprint) else None

    _old_embedder: Embedder | None = None

    def serving(self) -> tuple[Space | None, Embedder | None]:
        """Return the space whose vectors serve, and the embedder that makes them.

        Either is None where there is no embedder; the embedder alone where its model is gone.
        """
        space = self.space()
        return space, None if space is None else self.embedder_for(space)

    def index(self, space: Space) -> VectorIndex:
        """Return the vector index of this space, filled and up to date with memory.db."""
        from knowme.follow import Follower

        with self._lock:
            if self._follower is None or self._follower.space.fingerprint != space.fingerprint:
                if self._follower is not None:
                    self._follower.close()
                kind = self.settings.index.kind
                self._follower = Follower(self.db, self.path / "index", kind, space)
            follower = self._follower
        return follower.caught_up()

    _follower: Follower | None = None

    @cached_property
    def _searcher(self) -> Searcher:
        from knowme.search import Searcher

        return Searcher(self)

    def search(self, query: Query) -> list[Hit]:
        """Recall. See search.Searcher.search."""
        return self._searcher.search(query)

    def threshold(self) -> float:
        """Return the relevance under which nothing counts as known, measured for the embedder."""
        return self._searcher.threshold()

    def embeds_away(self) -> bool:
        """Tell whether what is embedded leaves this machine."""
        url = self.settings.embedder.url
        return bool(url) and not net.is_loopback(url)

    def reads_minilm(self) -> bool:
        """Tell whether queries are embedded by MiniLM, which shipped weights are made for."""
        from knowme.gain import is_minilm

        space = self.space()
        return space is not None and is_minilm(space.fingerprint)

    def speakers(self) -> tuple[str, ...]:
        """Return the names of everyone who ever said something, or of whom something is known."""
        with self._lock, self.db.read() as conn:
            last, names = self._speakers
            newest = value(conn, "SELECT coalesce(max(id), 0) FROM messages")
            found = rows(conn, "SELECT DISTINCT speaker FROM messages WHERE id > ?", (last,))
            self._speakers = (newest, names | {name for (name,) in found if name})
            return tuple(sorted(self._speakers[1] | _people(conn)))

    _speakers: tuple[int, frozenset[str]] = (0, frozenset())

    def forget_caches(self) -> None:
        """Delete what ``index/`` derives from memory.db, and what this process remembers of it.

        The vector index is made again when it is next asked for. A model that is in memory now
        finds ``index/prefix/forgotten`` and will not write down what it has read.
        """
        folder = self.path / "index"
        with self._lock:
            if self._follower is not None:
                self._follower.close()
                self._follower = None
            self.__dict__.pop("_searcher", None)
            self._speakers = (0, frozenset())
            for path in folder.glob("*"):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            (folder / "prefix").mkdir(mode=0o700, parents=True)
            (folder / "prefix" / "forgotten").touch(mode=0o600)

    def close(self) -> None:
        """Free every part that was built. Idempotent."""
        for embedder in (self._embedder, self._old_embedder):
            if embedder is not None:
                with suppress(ModelError):
                    embedder.close()
        self._embedder = self._old_embedder = None
        if "models" in self.__dict__:
            _finish(self.models)
            del self.__dict__["models"]
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        self.db.close()
        if self._offline:
            self._offline = False
            net.forbid(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _foreign(path: Path) -> bool:
    """Tell whether a folder holds what no `init`, not even one that runs right now, puts there."""
    begun = ("memory.db", "config.yaml", ".config.yaml.")
    return any(
        entry.name not in FOLDERS and not entry.name.startswith(begun) for entry in path.iterdir()
    )


def _is(embedder: Embedder | None, fingerprint: str) -> bool:
    """Tell whether this embedder makes these vectors; a server that is down cannot say so."""
    try:
        return embedder is not None and embedder.fingerprint == fingerprint
    except ModelError:
        return False


def _finish(models: Models) -> None:
    """Close the engines from wherever we are: engines are asynchronous, homes are not."""
    import asyncio
    import threading

    def run() -> None:
        with suppress(ModelError, OSError, RuntimeError):
            asyncio.run(models.aclose())

    closing = threading.Thread(target=run, name="knowme-close")
    closing.start()
    closing.join(timeout=10)


def _detect_engine(settings: EngineSettings) -> str:
    """Say which engine an ``auto`` means: a running Ollama, the embedded model, or none."""
    if settings.kind != "auto":
        return settings.kind
    if _ollama_has_models(settings.url or "http://127.0.0.1:11434", settings.model):
        return "ollama"
    return "llamacpp" if _packaged("chat", settings.model) else "echo"


def _packaged(kind: Literal["chat", "embedding"], model: str) -> bool:
    """Tell whether llama.cpp and the model are on this machine."""
    from importlib.util import find_spec

    return find_spec("xllamacpp") is not None and _here(model, kind)


def _here(model: str, kind: Literal["chat", "embedding"]) -> bool:
    from knowme import modelstore

    try:
        modelstore.find(model, kind)
    except KnowmeError:
        return False
    return True


def _detect_embedder(model: str) -> str:
    """Choose the cheapest that is here: ONNX, llama.cpp, static vectors, hashing."""
    from importlib.util import find_spec

    from knowme import modelstore

    onnx = model or modelstore.DEFAULT_ONNX
    if onnx.endswith((".onnx", modelstore.DEFAULT_ONNX)) and _here(onnx, "embedding"):
        if find_spec("onnxruntime") is not None and find_spec("tokenizers") is not None:
            return "onnx"
    if _packaged("embedding", model):
        return "local"
    return "static" if find_spec("wordllama") is not None else "hashing"


def _ollama_has_models(url: str, model: str) -> bool:
    """Ask a server on this machine, briefly, whether it is an Ollama with a chat model to use."""
    import httpx

    if not net.is_loopback(url):  # it would leave, and nobody asked for that yet
        return False
    try:
        reply = httpx.get(f"{url.rstrip('/')}/api/tags", timeout=0.3, trust_env=False)
        names = [entry["name"] for entry in reply.json()["models"]]
    except (httpx.HTTPError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return False
    if model:
        return any(name == model or name.split(":")[0] == model for name in names)
    return any("embed" not in name for name in names)


def _people(conn: apsw.Connection) -> set[str]:
    """Return the names of the people that facts speak of: "my sister is Ana", "Ana lives ..."."""
    found = rows(conn, "SELECT DISTINCT subject, attribute, value FROM facts")
    named = {subject for subject, _, _ in found if subject != ME}
    named |= {told for _, name, told in found if attribute(name).section == "people"}
    return {name for name in named if name[:1].isupper() and len(name.split()) <= 3}


__all__ = ["ConfigError", "Home", "home_path"]
