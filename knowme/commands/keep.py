"""stats, config, reindex, export, backup, restore, version: the commands that look after a home."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from knowme import __version__, console
from knowme.commands import State, chapter, cli, command
from knowme.console import bold, dim, note, say


@command(cli, "stats", json=True)
def stats(state: State, as_json: bool) -> None:
    """Show how much is remembered, from where and since when."""
    from knowme.stats import stats as count

    with state.open() as home:
        told = count(home)
    if as_json:
        console.say_json(told)
        return
    say(f"{bold(told['home'])}  {console.size(told['bytes'])}")
    counted = "conversations messages items vectors pending answers facts doubtful lines".split()
    for name in counted:
        say(f"  {name:<14} {told[name]:>10,}")
    say(f"  {'embedder':<14} {told['embedder'] or 'none: words alone are searched'}")
    for name, source in told["sources"].items():
        many, within = source["messages"], source["conversations"]
        said = f"{console.many(many, 'message')} in {console.many(within, 'conversation')}"
        span = f", {source['first'][:10]} to {source['last'][:10]}" if source["first"] else ""
        say(console.wrap(f"{name}: {said}{span}", "  ", "    "))


# --- config ---------------------------------------------------------------------------------------


@chapter("config", first="show")
def config() -> None:
    """The settings: show, set, add (a source), path.

    Alone it shows.
    """


@command(config, "show", json=True)
@click.argument("key", required=False)
@click.option("--changed", is_flag=True, help="Only what is not the default.")
def config_show(state: State, key: str | None, changed: bool, as_json: bool) -> None:
    """Show every value and where it came from.

    KEY narrows it to a section or to one setting: engine, engine.kind, models.cloud.
    """
    from knowme import config as settings
    from knowme.errors import ConfigError

    rows = settings.load(state.path).provenance()
    if key:
        rows = [row for row in rows if row[0] == key or row[0].startswith((f"{key}.", f"{key}["))]
        if not rows:
            settings.known(key, "config show")
            raise ConfigError(f"There is no setting {key!r}.", "See them all: knowme config show")
    rows = [row for row in rows if not changed or row[2] != "default"]
    if as_json:
        found = [{"key": name, "value": value, "origin": origin} for name, value, origin in rows]
        console.say_json({"home": str(state.path), "settings": found})
        return
    shown = [console.short(_shown(value), 60) for _, value, _ in rows]
    wide = max((len(row[0]) for row in rows), default=0)
    room = min(30, max(map(len, shown), default=0))
    for (name, _, origin), value in zip(rows, shown, strict=True):
        line = f"{name:<{wide}}  {value:<{room}}  "
        say(f"{line}{dim(origin)}" if origin == "default" else f"{bold(line)}{origin}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {each}" for name, each in value.items()) or "-"
    return "-" if value == "" else str(value)


@command(config, "set")
@click.argument("key")
@click.argument("value")
def config_set(state: State, key: str, value: str) -> None:
    """Write one value into config.yaml and keep its comments.

    KEY is engine.kind, models.cloud.model (adds the model where there is none), and so on.

    A secret goes into .env; given as "-" it is asked for, and no shell history keeps it.
    """
    from knowme import config as settings

    spec = settings.known(key, "config set")
    if spec.secret and value == "-":
        value = click.prompt(key, hide_input=True, err=True)
    _must_exist(state)
    changed = settings.set_value(state.path, key, value)
    shown = "(secret)" if spec.secret else _shown(value)
    say(f"{key} = {shown}  {dim(str(changed))}")
    rows = settings.load(state.path).provenance()
    origin = next(row[2] for row in rows if key == row[0] or key.startswith(f"{row[0]}."))
    if origin.startswith(("environment", ".env:")) and changed.name == "config.yaml":
        note(console.warn(f"It is not in force: {origin} stands above it."))


def _must_exist(state: State) -> None:
    from knowme.errors import HomeError

    if not (state.path / "config.yaml").exists():
        raise HomeError(f"There is no knowme home at {state.path}.", "Make one: knowme init")


@command(config, "add")
@click.argument("kind")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default="", help="What to call it in answers.")
def config_add(state: State, kind: str, path: Path, name: str) -> None:
    """Add a source that `knowme sync` reads.

    KIND is openclaw, markdown (any folder of notes), knowme (an export), or a plugin's.
    """
    from knowme import config as settings
    from knowme import configfile
    from knowme.errors import ConfigError
    from knowme.settings import SourceSettings

    _must_exist(state)
    whole = path.expanduser().absolute()
    if not whole.exists():
        raise ConfigError(f"There is nothing at {whole}.", "Check the path.")
    for known in settings.load(state.path).settings.sources:
        if known.kind == kind and Path(known.path).resolve() == whole.resolve():
            raise ConfigError(
                f"{whole} is read already, as {known.name!r}.",
                f"Run: knowme sync {known.name}",
            )
    changed = configfile.add_source(state.path, SourceSettings(kind, str(whole), name))
    say(f"{kind}: {whole}  {dim(str(changed))}")
    say(f"Read it: {bold('knowme sync')}")


@command(config, "path")
def config_path(state: State) -> None:
    """Print where config.yaml is."""
    say(str(state.path / "config.yaml"))


# --- the data -------------------------------------------------------------------------------------


@command(cli, "reindex", json=True)
def reindex(state: State, as_json: bool) -> None:
    """Embed what has no vector yet. Safe to interrupt: it goes on from there."""
    from knowme import sync

    with state.open() as home, console.Progress() as line:
        embedder = home.embedder
        done = sync.reindex(home, lambda many, total: line.done("embedded", many, total))
        pending = sync.pending(home)
    name = "" if embedder is None else embedder.fingerprint
    if as_json:
        console.say_json({"embedded": done, "pending": pending, "embedder": name})
    elif not name:
        note("embedder.kind is none: words alone are searched, there is nothing to embed.")
    else:
        say(f"{done:,} items embedded with {name}; {pending:,} pending.")


@command(cli, "export", json=True)
@click.argument("target", type=click.Path(path_type=Path))
def export(state: State, target: Path, as_json: bool) -> None:
    """Write everything as plain JSONL and Markdown files.

    TARGET is a folder that does not exist yet.

    What was said, what is believed of it, and what you decided. `knowme import-file TARGET`
    reads it back; facts and the profile are then learned anew, and your word on them counts.
    """
    from knowme.export import export as write

    with state.open() as home, console.Progress() as line:
        counts = write(home, target, lambda *told: line.tell(f"written: {told[0]:,}"))
    if as_json:
        console.say_json({"target": str(target), **counts})
    else:
        parts = ", ".join(console.many(each, name[:-1]) for name, each in counts.items() if each)
        say(f"{target}: {parts}")


@command(cli, "backup", json=True)
def backup(state: State, as_json: bool) -> None:
    """Copy memory.db, also while it is in use, and check the copy."""
    from knowme import backup as keeper

    with state.open() as home, console.Progress() as line:
        path = keeper.backup(home, lambda done, total: line.done("pages", done, total))
    if as_json:
        console.say_json({"backup": str(path), "bytes": path.stat().st_size})
    else:
        say(f"backup {path}  {console.size(path.stat().st_size)}, checked")


@command(cli, "restore", json=True)
@click.argument("backup", required=False, type=click.Path(path_type=Path))
@click.option("--list", "only_list", is_flag=True, help="List the backups.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(state: State, backup: Path | None, only_list: bool, yes: bool, as_json: bool) -> None:
    """Go back to a backup: the newest, or BACKUP. What was there is kept beside it."""
    from knowme import backup as keeper
    from knowme.errors import InputError, NotFoundError

    known = keeper.backups(state.path)
    if not known:
        _must_exist(state)
    if only_list:
        if as_json:
            console.say_json({"backups": [str(path) for path in known]})
            return
        for path in known:
            say(f"{path}  {console.size(path.stat().st_size)}")
        if not known:
            note(f"There is no backup in {state.path / 'backups'}. Make one: knowme backup")
        return
    if backup is None and not known:
        told = f"There is no backup in {state.path / 'backups'}."
        raise NotFoundError(told, "Make one: knowme backup (what is wrong here: knowme doctor)")
    which = backup or known[0]
    if not yes and not sys.stdin.isatty():
        told = f"Nothing was restored: there is nobody to ask whether {which} shall be put back."
        raise InputError(told, "Run: knowme restore --yes")
    if not yes:
        click.confirm(f"Put {which} in place of {state.path / 'memory.db'}?", abort=True, err=True)
    replaced = (state.path / "memory.db").exists()
    used = keeper.restore(state.path, backup)
    if as_json:
        console.say_json({"restored": str(used)})
    else:
        kept = "; the old memory.db is beside it, as memory.db.before-restore-*" if replaced else ""
        say(f"restored {used}{kept}")


@command(cli, "version", json=True)
def version(state: State, as_json: bool) -> None:
    """Print the versions that a bug report needs."""
    import platform
    from importlib import metadata

    import apsw

    told = {"knowme": __version__, "python": platform.python_version()}
    told |= {"platform": platform.platform(), "sqlite": apsw.sqlite_lib_version()}
    for name in ("xllamacpp", "numpy", "sqlite-vec", "chromadb", "wordllama"):
        try:
            told[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if as_json:
        console.say_json(told)
        return
    for name, value in told.items():
        say(f"{name:<10} {value}")


@command(cli, "demo", hidden=True)
@click.argument("folder", default=".demo", type=click.Path(path_type=Path))
def demo(state: State, folder: Path) -> None:
    """Ask about a fictional person, in a throw-away home.

    FOLDER is where that home is made, .demo by default.
    """
    from knowme.demo import run

    run(folder)


@command(cli, "learn-demo", hidden=True)
@click.argument("folder", default=".demo-learn", type=click.Path(path_type=Path))
def learn_demo(state: State, folder: Path) -> None:
    """Train and measure an adapter on a fictional person.

    FOLDER is where that home is made, .demo-learn by default. Ten minutes on two cores.
    """
    from knowme.demo_learn import run

    run(folder)
