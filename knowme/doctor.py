"""examine(): what is missing or broken, each with the exact command that mends it.

Promises: it always answers, however broken the home is, and changes nothing in it but what opening
it changes; one check cannot hide another.
Refuses to know: how to mend anything itself.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knowme.errors import KnowmeError, ModelError

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.seams import Engine

State = Literal["ok", "warn", "broken"]
LOW_BYTES = 1_000_000_000
EMPTY_BYTES = 100_000_000
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, and the command that mends it ("" when it is well)."""

    name: str
    state: State
    found: str
    mend: str = ""


Check = Callable[[], Iterator[Finding]]


def examine(path: Path) -> list[Finding]:
    """Look at this machine and at the home in ``path``; never raises a KnowmeError."""
    found = [*_run("python", _python)]
    if not (path / "config.yaml").exists() and not (path / "memory.db").exists():
        return [*found, *_run("home", lambda: _no_home(path)), *_run("models", _models)]
    found += _run("home", lambda: _home(path))
    found += _run("disk", lambda: _disk(path))
    found += _run("config", lambda: _config(path))
    found += _run("memory", lambda: _memory(path))
    found += _run("models", _models)
    if not any(each.state == "broken" and each.name in ("config", "memory") for each in found):
        found += _run("home", lambda: _opened(path))
    return found


def _run(name: str, check: Check) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check())
    except KnowmeError as error:
        found.append(Finding(name, "broken", error.message, _command(error.hint)))
    except Exception as error:  # a check of ours that fails is a finding, not the end
        found.append(
            Finding(name, "broken", f"{type(error).__name__}: {error}", "knowme --verbose doctor")
        )
    return found


def _command(hint: str) -> str:
    """Return the command in a hint ("Run: knowme init"), or the hint where it is more than that."""
    match = _HINT.fullmatch(hint)
    return match[1] if match else hint


_HINT = re.compile(r"[A-Z][a-z]+(?: it| one)?: ((?:knowme|ollama|pip) .*)")


def _parted(told: str) -> tuple[str, str]:
    """Part "What is. Start it: ollama serve" into what is wrong and what mends it."""
    match = re.fullmatch(r"(.*?[.!])\s+([A-Z].*: (?:knowme|ollama|pip) .*)", told)
    return (match[1], _command(match[2])) if match else (told, "")


# --- without opening the home ---------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    import apsw

    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version}, SQLite {apsw.sqlite_lib_version()}")


def _no_home(path: Path) -> Iterator[Finding]:
    other = "knowme --home PATH init"
    if path.exists() and not path.is_dir():
        yield Finding("home", "broken", f"{path} is not a folder", other)
    elif path.exists() and any(path.iterdir()):
        yield Finding("home", "broken", f"{path} holds something else, and no home", other)
    else:
        yield Finding("home", "broken", f"there is no home at {path}", "knowme init")


def _home(path: Path) -> Iterator[Finding]:
    writable = os.access(path, os.W_OK | os.X_OK)
    if not writable:
        fixed = os.statvfs(path).f_flag & os.ST_RDONLY
        told = f"{path} cannot be written" + (": its disk is mounted read-only" if fixed else "")
        mend = "mount it for writing" if fixed else f"chmod u+rwx '{path}'"
        yield Finding("home", "broken", told, mend)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        others = f"{path} is open to other users (mode {mode:o})"
        yield Finding("home", "warn", others, f"chmod 700 '{path}'")
    elif writable:
        yield Finding("home", "ok", f"{path}, for its owner only")
    for name in (".env", "memory.db", "config.yaml"):
        file = path / name
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077 and mode & 0o077:
            told = f"{file} can be read by other users"
            yield Finding("home", "warn", told, f"chmod 600 '{file}'")


def _disk(path: Path) -> Iterator[Finding]:
    from knowme.console import size

    free = shutil.disk_usage(path).free
    state: State = "broken" if free < EMPTY_BYTES else "warn" if free < LOW_BYTES else "ok"
    mend = "" if state == "ok" else f"free some space on the disk of {path}"
    yield Finding("disk", state, f"{size(free)} free", mend)


def _config(path: Path) -> Iterator[Finding]:
    from knowme import config

    rows = config.load(path).provenance()
    changed = sum(origin != "default" and value not in ("", ()) for _, value, origin in rows)
    told = f"{changed} set, the rest as by default" if changed else "all as by default"
    file = path / config.FILE
    if file.exists():
        yield Finding("config", "ok", f"{file}, {told}")
    else:
        yield Finding("config", "warn", f"{file} is missing: {told}", "knowme init")


def _memory(path: Path) -> Iterator[Finding]:
    import apsw

    from knowme import db, schema
    from knowme.console import size

    file = path / "memory.db"
    if not file.exists():
        yield Finding("memory", "broken", f"{file} is missing", _back(path))
        return
    try:
        with closing(db.connect(file, readonly=True)) as conn:
            result = conn.pragma("quick_check")
            version = schema.check_version(conn)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        yield Finding("memory", "broken", f"{file} is damaged: {error}", _back(path))
        return
    except apsw.Error as error:
        raise db.wrap(error, file) from error
    if result != "ok":
        yield Finding("memory", "broken", f"{file} is damaged: {result}", _back(path))
        return
    whole = f"{file}, {size(file.stat().st_size)}, schema {version}, whole"
    yield Finding("memory", "ok", whole)


def _back(path: Path) -> str:
    """Return what brings a memory.db back: the newest backup, else reading everything again."""
    from knowme import backup

    if backup.backups(path):
        return "knowme restore"
    file = path / "memory.db"
    aside = f"mv '{file}' '{file}.damaged' && " if file.exists() else ""
    return f"{aside}knowme init && knowme sync"


def _models() -> Iterator[Finding]:
    from knowme import modelstore

    here = [model for model in modelstore.catalogue() if model.installed]
    kinds = {model.kind for model in here}
    if find_spec("xllamacpp") is None:
        told = "the embedded runtime is not installed (Ollama works without it)"
        yield Finding("models", "warn", told, "pip install 'knowme[local]'")
    elif not {"chat", "embedding"} <= kinds:
        lacking = " and ".join(kind for kind in ("chat", "embedding") if kind not in kinds)
        told = f"no {lacking} model in {modelstore.models_dir()}"
        yield Finding("models", "warn", told, "knowme models pull")
    else:
        yield Finding("models", "ok", ", ".join(model.name for model in here))


# --- with the home open ---------------------------------------------------------------------------


def _opened(path: Path) -> Iterator[Finding]:
    from knowme.home import Home

    with Home.open(path) as home:
        checks: tuple[tuple[str, Callable[[Home], Iterator[Finding]]], ...] = (
            ("engine", _engine),
            ("roles", _roles),
            ("rules", _rules),
            ("embedder", _embedder),
            ("vectors", _vectors),
            ("sources", _sources),
            ("service", _service),
            ("jobs", _jobs),
            ("sync", _last_sync),
            ("backup", _last_backup),
            ("forget", _unfinished),
            ("facts", _facts),
            ("adapter", _adapters),
        )
        for name, check in checks:
            yield from _run(name, lambda check=check: check(home))  # type: ignore[misc]


def _engine(home: Home) -> Iterator[Finding]:
    engine = home.engine
    asked, wanted, url, where = _primary(home)
    name = engine.name + (", detected" if asked == "auto" else "")
    how = f"{engine.model} ({name})" if engine.model else name
    if trouble := _trouble(engine):
        what, mend = _parted(trouble)
        if mend == "ollama serve":
            mend = _start_ollama(url, f"{where}.url")
        mend = mend or f"knowme config show {where}"
        yield Finding("engine", "broken", f"{how}: {what}", mend)
    elif engine.name == "echo" and asked == "auto" and wanted:
        told = f"there is no model {wanted!r} here: an ask gives your own words alone"
        mend = f"knowme models list, then: knowme config set {where}.model NAME"
        yield Finding("engine", "warn", told, mend)
    elif engine.name == "echo" and asked == "auto":
        told = "no model answers: an ask gives your own words alone"
        yield Finding("engine", "warn", told, _runtime())
    else:
        yield Finding("engine", "ok", how)


def _primary(home: Home) -> tuple[str, str, str, str]:
    """Return the kind, model and url that are asked for, and the section that asks."""
    engine = home.settings.engine
    for model in home.settings.models:
        if model.role == "primary" and home.config.origins["models.primary.role"] != "engine":
            kind = engine.kind if model.engine == "auto" else model.engine
            return kind, model.model, model.url, "models.primary"
    return engine.kind, engine.model, engine.url, "engine"


def _trouble(engine: Engine) -> str:
    """Return what keeps an engine from answering, "" where nothing does."""

    async def health() -> str:
        try:
            return await asyncio.wait_for(engine.health(), PATIENCE_SECONDS)
        except TimeoutError:
            return f"no sign of life within {PATIENCE_SECONDS:g} s"
        finally:
            await engine.aclose()

    return asyncio.run(health())


def _roles(home: Home) -> Iterator[Finding]:
    for model in home.settings.models:
        yield from _run("roles", lambda role=model.role: _role(home, role))  # type: ignore[misc]


def _role(home: Home, role: str) -> Iterator[Finding]:
    """Look at one role. What is wrong with `primary` itself is told as the engine."""
    try:
        engine = home.models.engine(role)
    except KnowmeError as error:
        state: State = "broken" if role == home.models.primary else "warn"
        what, mend = _of_role(error.message, role), _of_role(error.hint, role)
        yield Finding("roles", state, f"{role}: {what}", _command(mend))
        return
    where = "local" if engine.local else "remote"
    how = f"{role}: {engine.model or 'its usual model'} ({engine.name}), {where}"
    if _is_elsewhere(home, role):
        told = f"{how}: `local: true` on a public address, so nothing is kept from it or noted"
        yield Finding("roles", "warn", told, f"knowme config set models.{role}.local auto")
    elif not engine.local and home.settings.offline:
        told = f"{how}: it is never asked while offline is set"
        yield Finding("roles", "warn", told, "knowme config set offline false")
    elif role != home.models.primary and (trouble := _trouble(engine)):
        what, mend = _parted(_of_role(trouble, role))
        url = next(model.url for model in home.settings.models if model.role == role)
        if mend == "ollama serve":
            mend = _start_ollama(url, f"models.{role}.url")
        mend = mend or f"knowme config show models.{role}"
        yield Finding("roles", "warn", f"{how}: {what}", mend)
    else:
        yield Finding("roles", "ok", how)


def _is_elsewhere(home: Home, role: str) -> bool:
    """Tell whether a model that is declared one's own has an address that the world can reach."""
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    model = home.models.setting(role)
    host = urlsplit(model.url).hostname or ""
    if model.local != "true" or not host:
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        own = host.endswith((".local", ".lan", ".home", ".internal", ".home.arpa", ".localhost"))
        return "." in host and not own


def _of_role(told: str, role: str) -> str:
    """Return what an engine says of its settings, with the names that they have for a role."""
    named = told.replace("engine.url", f"models.{role}.url")
    named = named.replace("engine.model", f"models.{role}.model")
    keys = "KNOWME_ENGINE_API_KEY, KNOWME_EMBEDDER_API_KEY or KNOWME_MODELS_ROLE_API_KEY"
    return named.replace(keys, f"KNOWME_MODELS_{role.upper().replace('-', '_')}_API_KEY")


def _rules(home: Home) -> Iterator[Finding]:
    """Look at the rules. With models, `config.load` has refused those that name none of them."""
    routing, engine = home.settings.routing, home.settings.engine
    if not routing.rules and not routing.fallback:
        return
    from knowme.config import ROLE

    _ = home.rules  # a bad pattern raises, with its position
    named = {rule.model: f"the rule {rule.pattern!r}" for rule in routing.rules}
    named |= {role: "routing.fallback" for role in routing.fallback}
    lost = {role: who for role, who in named.items() if role not in ("primary", engine.model)}
    if home.settings.models or not lost:
        yield Finding("rules", "ok", f"{len(routing.rules)}, each names a model that is here")
        return
    for role, who in lost.items():
        mend = f"knowme config set models.{role}.model NAME"
        if not ROLE.fullmatch(role):
            mend = f"correct it in {home.path / 'config.yaml'}"
        yield Finding("rules", "warn", f"{who} names {role!r}, and there is no such model", mend)


def _start_ollama(url: str, key: str) -> str:
    default = "http://127.0.0.1:11434"
    if url.rstrip("/") in ("", default):
        return "ollama serve"
    return f"start Ollama there, or name another address: knowme config set {key} {default}"


def _runtime() -> str:
    return "knowme models pull" if find_spec("xllamacpp") else "pip install 'knowme[local]'"


def _embedder(home: Home) -> Iterator[Finding]:
    embedder = home.embedder
    if embedder is None:
        yield Finding("embedder", "ok", "none: words alone are searched")
        return
    try:
        embedder.embed(["Are you there?"], "query")
    except ModelError as error:
        mend = _command(error.hint)
        if mend == "ollama serve":
            mend = _start_ollama(home.settings.embedder.url, "embedder.url")
        yield Finding("embedder", "broken", f"{error.message} Words alone are searched", mend)
        return
    told = f"{embedder.fingerprint}, {embedder.dims} dimensions"
    kind = home.embedder_spec()["kind"]
    if kind == "hashing" and home.settings.embedder.kind == "auto":
        yield Finding("embedder", "warn", f"{told}: no model, meaning is not searched", _runtime())
    else:
        yield Finding("embedder", "ok", told)


def _vectors(home: Home) -> Iterator[Finding]:
    from knowme import sync

    total = sync.totals(home)
    space, embedder = home.space(), home.embedder
    try:
        changed = None not in (space, embedder) and space.fingerprint != embedder.fingerprint  # type: ignore[union-attr]
    except ModelError:
        return  # a server that is down cannot say what it makes; that is told above
    if space is not None and changed:
        told = f"those of {space.fingerprint} serve, not those of the configured embedder"
        if home.embedder_for(space) is None:
            told = f"{space.fingerprint} made them and is not here: words alone are searched"
        yield Finding("vectors", "warn", told, "knowme reindex")
    elif total["pending"]:
        told = f"{total['pending']:,} of {total['items']:,} items have none yet"
        yield Finding("vectors", "warn", told, "knowme reindex")
    else:
        yield Finding("vectors", "ok", f"{total['items']:,} items, none waits for its vector")


def _sources(home: Home) -> Iterator[Finding]:
    sources = home.settings.sources
    if not sources:
        openclaw = Path("~/.openclaw").expanduser()
        mend = f"knowme config add openclaw {openclaw}" if openclaw.is_dir() else ""
        mend = mend or "knowme config add markdown ~/notes"
        yield Finding("sources", "warn", "none is configured", mend)
    for source in sources:
        path = Path(source.path)
        if not source.enabled:
            yield Finding("sources", "ok", f"{source.name}: off")
        elif not path.exists():
            told = f"{source.name}: there is nothing at {path}"
            mend = f"correct its path in {home.path / 'config.yaml'}"
            yield Finding("sources", "broken", told, mend)
        elif not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            told = f"{source.name}: {path} cannot be read"
            yield Finding("sources", "broken", told, f"chmod u+rX '{path}'")
        else:
            yield Finding("sources", "ok", f"{source.name}: {path}")


def _service(home: Home) -> Iterator[Finding]:
    import socket

    settings = home.settings.service
    where = f"{settings.host}:{settings.port}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    try:
        socket.create_connection((host, settings.port), timeout=1).close()
    except OSError:
        yield Finding("service", "ok", f"nothing runs on {where} (knowme daemon)")
        return
    told = _health(f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/health")
    if told is None:
        mend = f"knowme config set service.port {settings.port + 1}"
        yield Finding("service", "warn", f"another program has {where}", mend)
    else:
        yield Finding("service", "ok", f"knowme {told.get('version', '')} runs on {where}")


def _health(url: str) -> dict[str, Any] | None:
    import httpx

    try:
        told = httpx.get(url, timeout=3, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return None
    return told if isinstance(told, dict) and "status" in told else None


def _jobs(home: Home) -> Iterator[Finding]:
    from knowme import jobs
    from knowme.console import short

    with home.db.read() as conn:
        parked = jobs.list_jobs(conn, ("parked",))
        waiting = len(jobs.list_jobs(conn, ("queued", "running"), 1000))
    for job in parked[:5]:
        told = f"{job.kind} {job.id} failed {job.attempts} times: {short(job.error)}"
        yield Finding("jobs", "warn", told, f"knowme jobs retry {job.id}")
    if not parked:
        yield Finding("jobs", "ok", f"none failed, {waiting} wait or run")


def _last_sync(home: Home) -> Iterator[Finding]:
    from knowme.console import ago
    from knowme.db import value

    with home.db.read() as conn:
        read = value(conn, "SELECT max(updated_ms) FROM marks")
        ran = value(conn, "SELECT max(finished_ms) FROM jobs WHERE kind='sync' AND state='done'")
    last = max(filter(None, (read, ran)), default=None)
    if last is None and home.settings.sources:
        yield Finding("sync", "warn", "nothing was read yet", "knowme sync")
    else:
        yield Finding("sync", "ok", f"last read something new: {ago(last)}")


def _last_backup(home: Home) -> Iterator[Finding]:
    from knowme import backup
    from knowme.console import ago, size

    known = backup.backups(home.path)
    made = backup.made_at(known[0]) if known else None
    if made is None:
        told = "there is none (a running daemon makes one a day)"
        yield Finding("backup", "warn", told, "knowme backup")
        return
    at_ms = int(made.timestamp() * 1000)
    told = f"{len(known)} kept, the newest {ago(at_ms)}, {size(known[0].stat().st_size)}"
    yield Finding("backup", "ok", told)


def _unfinished(home: Home) -> Iterator[Finding]:
    """Name an erasure that was cut in the middle."""
    from knowme.db import value

    with home.db.read() as conn:
        many = int(value(conn, "SELECT count(*) FROM erasures WHERE state <> 'done'"))
    if many:
        told = f"{many} erasure{'s' if many > 1 else ''} did not come to the end"
        yield Finding("forget", "broken", told, "knowme forget --resume")


def _facts(home: Home) -> Iterator[Finding]:
    """Tell how much waits for the person."""
    from knowme.db import value

    with home.db.read() as conn:
        many = int(value(conn, "SELECT count(*) FROM facts WHERE state = 'doubtful'"))
    if many:
        yield Finding("facts", "ok", f"{many} doubtful: they wait for your word (knowme inbox)")


def _adapters(home: Home) -> Iterator[Finding]:
    """Name what answers with an adapter, and what is wrong with it."""
    from knowme import adoptions
    from knowme.learn import runs

    with home.db.read() as conn:
        used = adoptions.listed(conn, current=True)
    for each in used:
        stale = runs.Run(each.run, home.path / runs.FOLDER / each.run).stale
        if adoptions.file_sha256(home.path / each.adapter) != each.sha256:
            told = f"{each.run} ({each.purpose}) is gone or was changed: it is not used"
            yield Finding("adapter", "broken", told, "knowme learn rollback")
        elif stale:
            told = f"{each.run} ({each.purpose}) is not used any more: {stale}"
            yield Finding("adapter", "warn", told, "knowme learn run")
        else:
            yield Finding("adapter", "ok", f"{each.run} ({each.purpose}) is in use")
