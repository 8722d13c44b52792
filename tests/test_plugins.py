"""Backends by name: the built-in ones and those of an installed package take the same road."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from knowme import plugins
from knowme.errors import ConfigError
from knowme.types import ChatMessage, Options

EXAMPLE = Path(__file__).with_name("example_plugin")


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """Install the example plugin with pip into a folder of its own, and give that folder."""
    target = tmp_path_factory.mktemp("plugins")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    done = subprocess.run([*command, str(EXAMPLE)], capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("needs hatchling: pip install 'knowme[dev]'")
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def example(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    yield
    sys.modules.pop("knowme_example", None)


def test_an_installed_plugin_is_listed_beside_the_built_in_ones(example):
    assert plugins.names("engines") == ["echo", "llamacpp", "ollama", "openai", "shout"]
    assert "letters" in plugins.names("embedders") and "letters" not in plugins.names("engines")
    assert "knowme_example" not in sys.modules  # listing imports none


def test_an_installed_engine_answers(example):
    engine = plugins.find("engines", "shout")(context_tokens=512, url="", kind="shout")

    async def ask():
        messages = [ChatMessage("user", "keep it short")]
        return [chunk async for chunk in engine.stream(messages, Options())]

    *pieces, last = asyncio.run(ask())
    assert "".join(piece.text for piece in pieces) == "KEEP IT SHORT "
    assert last.usage is not None and last.usage.model == "shout-1"


def test_an_installed_embedder_is_built_from_the_settings(example):
    embedder = plugins.find("embedders", "letters")(model="", dims=0, threads=1)
    one, other = embedder.embed(["listen", "silent"], "query")
    assert float(one @ other) == pytest.approx(1)


def test_a_whole_home_runs_on_an_installed_plugin(installed, tmp_path):
    home = tmp_path / "home"
    environ = {**os.environ, "PYTHONPATH": str(installed), "KNOWME_HOME": str(home)}
    program = (
        "import json\n"
        "from knowme.home import Home, home_path\n"
        "Home.create(home_path())\n"
        "kinds = {'engine.kind': 'shout', 'embedder.kind': 'letters'}\n"
        "with Home.open(None, kinds) as home:\n"
        "    print(json.dumps([home.engine.name, home.embedder.fingerprint]))\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environ,
        cwd=EXAMPLE.parent.parent,
    )
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout) == ["shout", "letters:latin@1:26:none"]


def test_a_name_that_nobody_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no engine called 'gpt'") as caught:
        plugins.find("engines", "gpt")
    assert "echo, llamacpp, ollama, openai" in caught.value.hint


def test_a_backend_whose_package_is_absent_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlite_vec", None)
    monkeypatch.delitem(sys.modules, "knowme.indexes.sqlite_vec", raising=False)
    with pytest.raises(ConfigError, match="sqlite_vec") as caught:
        plugins.find("indexes", "sqlite_vec")
    assert caught.value.hint == "Run: pip install 'knowme[sqlite-vec]'"


@pytest.mark.parametrize("kind", sorted(plugins.BUILTIN))
def test_every_built_in_name_leads_to_something(kind):
    for name in plugins.BUILTIN[kind]:
        try:
            assert callable(plugins.find(kind, name))
        except ConfigError as error:
            assert "not installed" in error.message
