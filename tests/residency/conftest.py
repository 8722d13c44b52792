"""Models of engines that can be watched, and of real ones, with a memory.db of their own."""

import asyncio
from pathlib import Path

import pytest
from contracts import servers

from knowme import db as database
from knowme.models import Models
from knowme.settings import EngineSettings, ModelSettings, ResidencySettings, Settings

from . import held_engine
from .work import held


def installed(folder: Path) -> str:
    """Put the record of an installed package there, whose engine is `held`; returns the folder."""
    about = folder / "held_engine-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: held-engine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[knowme.engines]\nheld = residency.held_engine:HeldEngine\n"
    )
    return str(folder)


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """Give the machine that the `held` engines load into; the engine is an installed plugin."""
    monkeypatch.syspath_prepend(installed(tmp_path / "plugin"))
    monkeypatch.setattr(held_engine, "memory", held_engine.Memory())
    yield held_engine.memory
    assert held_engine.memory.wrong == []


@pytest.fixture
def build(tmp_path):
    """Give a function that makes Models; they and their memory.db are closed at the end."""
    made = []

    def make(*models: ModelSettings, engine=None, offline=False, **more) -> Models:
        given = {name: more.pop(name) for name in ("clock", "patience_seconds") if name in more}
        told = Settings(
            models=models,
            engine=engine or EngineSettings(threads=1),
            residency=ResidencySettings(**more),
            offline=offline,
        )
        store = database.Database(tmp_path / f"{len(made)}.db")
        found = Models(
            told, store, folder=tmp_path / "prefix", detect=lambda wanted: "echo", **given
        )
        made.append((found, store))
        return found

    yield make
    for found, store in made:
        asyncio.run(found.aclose())
        store.close()


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """Give a function that makes Models of held engines; installed once for all examples."""
    folder = tmp_path_factory.mktemp("plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(installed(folder / "plugin"))
        count = iter(range(10**6))

        def make(most, cache, clock):
            roles = [held(role) for role in "abcd"] + [held("p", residency="always")]
            told = Settings(
                models=tuple(roles),
                residency=ResidencySettings(max_models=most, cache=cache),
            )
            store = database.Database(folder / f"{next(count)}.db", durability="normal")
            return Models(
                told, store, folder=folder, detect=lambda e: "echo", clock=clock,
                patience_seconds=30.0,
            )  # fmt: skip

        yield make


@pytest.fixture(scope="module", autouse=True)
def _stop_servers():
    yield
    servers.stop_all()
