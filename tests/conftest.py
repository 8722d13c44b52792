"""What every test may use: a home of its own, the shared data, the packaged models, no network."""

import os
import socket
import sys
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Read once, before a fixture clears them: where this machine keeps models and shared data.
SHARED = Path(os.environ.get("KNOWME_SHARED") or ROOT.parent / "shared")
MODELS = os.environ.get("KNOWME_MODELS", "")


# No deadline: a shared machine pauses, and a test says what is true, not how fast.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


class NetworkRefused(RuntimeError):
    """A test tried to leave the machine."""


def _loopback(address) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    return host in ("", "localhost", "0.0.0.0", "::", "::1") or host.startswith("127.")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to connect beyond loopback, unless the test is marked `network`."""
    if request.node.get_closest_marker("network"):
        return

    def guarded(real):
        def connect(self: socket.socket, address, *rest):
            if not _loopback(address):
                raise NetworkRefused(
                    f"This test tried to connect to {address!r}. Tests stay on this machine; "
                    "mark one with @pytest.mark.network if it must leave it."
                )
            return real(self, address, *rest)

        return connect

    lookup = socket.getaddrinfo

    def guarded_lookup(host, *rest, **more):
        name = host.decode() if isinstance(host, bytes) else host or ""
        if not (_loopback((name,)) or name.replace(".", "").isdigit() or ":" in name):
            raise socket.gaierror(f"{name}: tests stay on this machine and look no name up")
        return lookup(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    """Hide the settings, the home and the OpenClaw of whoever runs the tests."""
    models = MODELS or str(_default_models())
    for name in list(os.environ):
        if name.startswith(("KNOWME_", "OPENCLAW_")) or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    away = tmp_path_factory.getbasetemp() / "nobody"
    away.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(away))
    monkeypatch.setenv("KNOWME_MODELS", models)
    monkeypatch.setenv("KNOWME_SHARED", str(SHARED))


def _default_models() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "knowme" / "models"


@pytest.fixture
def home(tmp_path: Path):
    """Give an open home with the hashing embedder and the echo engine: nothing to install."""
    from knowme.home import Home

    Home.create(tmp_path / "home")
    settings = {"embedder.kind": "hashing", "engine.kind": "echo"}
    with Home.open(tmp_path / "home", settings) as opened:
        yield opened


@pytest.fixture
def shared() -> Path:
    """Give the folder of data that lies beside the checkout; skip by name where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared data: KNOWME_SHARED, or ../shared beside the checkout")
    return SHARED


@pytest.fixture
def models() -> dict[str, Path]:
    """Give the packaged models: "chat" and "embedding" -> file. Skip by name where one lacks."""
    pytest.importorskip("xllamacpp", reason="needs xllamacpp: pip install 'knowme[local]'")
    from knowme import modelstore
    from knowme.errors import ModelMissingError

    found = {}
    names = {"chat": modelstore.DEFAULT_CHAT, "embedding": modelstore.DEFAULT_EMBEDDING}
    for kind, name in names.items():
        try:
            found[kind] = modelstore.path(name)
        except ModelMissingError:
            pytest.skip(f"needs the packaged model {name}: knowme models pull {name}")
    return found


@pytest.fixture
def onnx_model() -> Path:
    """Give the packaged ONNX embedding model. Skip by name where it lacks."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'knowme[local]'")
    from knowme import modelstore
    from knowme.errors import ModelMissingError

    try:
        return modelstore.path(modelstore.DEFAULT_ONNX)
    except ModelMissingError:
        name = modelstore.DEFAULT_ONNX
        pytest.skip(f"needs the packaged model {name}: knowme models pull {name}")


@pytest.fixture
def knowme_process():
    """Give a function that runs `knowme ARGS` as a process and returns the CompletedProcess."""
    import subprocess

    def run(*args, input: str | None = None, env: dict[str, str] | None = None, timeout=120):
        return subprocess.run(
            [sys.executable, "-m", "knowme", *map(str, args)],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            cwd=ROOT,
        )

    return run
