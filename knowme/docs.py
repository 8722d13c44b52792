"""The reference pages under docs/, made from the code: `python -m knowme.docs [--check]`.

Promises: every command, setting, table, route and seam is on a page, because the pages are made
from them; --check changes nothing and fails when a page is stale.
Refuses to know: anything that the code does not say. What is written by hand is in the README.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from knowme import plugins

FOLDER = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Made by `make docs` from the code. Do not edit. -->\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _doc(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").strip()


# --- docs/cli.md ----------------------------------------------------------------------------------


def cli_page() -> Iterator[str]:
    """Every command of `knowme`, from click."""
    import knowme.cli  # noqa: F401  (the commands add themselves)
    from knowme.commands import CHAPTERS, cli

    yield "# Commands\n"
    yield (
        "`--home PATH` and `--verbose` may stand before or after any command. Exit codes: 0; 1 for "
        "an error (two lines on stderr: what happened, and what mends it); 2 for a wrong command "
        "line; 130 for Ctrl-C. Results go to stdout, progress and errors to stderr. Colour only on "
        "a terminal, and not when NO_COLOR is set. Completion for bash (zsh and fish alike): "
        '`eval "$(_KNOWME_COMPLETE=bash_source knowme)"`.\n'
    )
    yield from _options(cli)
    for chapter, names in CHAPTERS.items():
        yield f"## {chapter}\n"
        for name in names:
            yield from _command(cli.commands[name], f"knowme {name}")
    hidden = [name for name, each in cli.commands.items() if each.hidden]
    if hidden:
        yield "## Others\n"
        for name in hidden:
            yield from _command(cli.commands[name], f"knowme {name}")


def _command(command: click.Command, path: str) -> Iterator[str]:
    arguments = " ".join(_argument(each) for each in command.params if _is_argument(each))
    tail = " COMMAND" if isinstance(command, click.Group) else ""
    yield f"### `{' '.join(f'{path} {arguments}'.split())}{tail}`\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield from _options(command)
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _command(child, f"{path} {name}")


def _is_argument(param: click.Parameter) -> bool:
    return isinstance(param, click.Argument)


def _argument(param: click.Parameter) -> str:
    name = (param.name or "").upper() + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def _options(command: click.Command) -> Iterator[str]:
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    for option in shown:
        names = ", ".join(sorted(option.opts, key=len))
        value = "" if option.is_flag else f" {_metavar(option)}"
        more = " May be given several times." if option.multiple else ""
        default = option.default if option.show_default else None
        more += f" Default: {default}." if default is not None else ""
        yield f"- `{names}{value}`: {option.help or ''}{more}"
    if shown:
        yield ""


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    kinds = {"integer": "N", "integer range": "N", "float range": "X", "float": "X"}
    return kinds.get(option.type.name, "TEXT")


# --- docs/settings.md -----------------------------------------------------------------------------


def settings_page() -> Iterator[str]:
    """Every setting, from the dataclasses of settings.py."""
    from knowme import config

    yield "# Settings\n"
    yield (
        "Each value comes from, the later the stronger: the default; `config.yaml` in the home; "
        "`.env` in the home; the environment; a flag. `knowme config show` says which one it was. "
        "`knowme config set KEY VALUE` writes config.yaml and keeps its comments; a secret goes "
        "into .env. A wrong key or value is refused with the legal ones.\n"
    )
    yield from _settings([spec for key, spec in config.specs().items() if "." not in key])
    for section, cls in config.sections().items():
        yield f"## {section}\n"
        yield f"{_doc(cls)}\n"
        chosen = [s for key, s in config.specs().items() if key.startswith(f"{section}.")]
        yield from _settings(chosen)
    yield from _settings_lists()
    yield "## Other names in the environment\n"
    names = [(f"`{name}`", text) for name, text in config.RESERVED.items()]
    names += [
        (f"`{name}`", f"the key for {domain}, sent there only, when no api_key is set")
        for name, domain in config.PROVIDERS.items()
    ]
    yield from _table(("Name", "What it says"), names)


def _settings_lists() -> Iterator[str]:
    """The settings that are lists and mappings of several values, and `llm:`."""
    from knowme import config, legacy

    yield "## sources\n"
    yield "A list of what `knowme sync` reads. `knowme config add KIND PATH` adds one.\n"
    yield from _keys(config.source_specs())
    yield "## models\n"
    yield (
        "A mapping: role -> a model. A role is a name of your own in small letters, digits, - and "
        "_; `primary` answers by default, and "
        + " and ".join(f"`{name}` is taken ({why})" for name, why in config.TAKEN.items())
        + ". Where no model is `primary`, the section `engine` is. `knowme config set "
        "models.cloud.model NAME` adds a model or edits it. In the environment ROLE is written in "
        "capitals, with - as _: `KNOWME_MODELS_CLOUD_API_KEY`.\n"
    )
    yield "```yaml\nmodels:\n  primary: {engine: ollama, model: 'qwen3:4b', residency: always}"
    yield "  cloud: {engine: openai, url: 'https://api.openai.com/v1', model: NAME, price_in: 0.25}"
    yield "```\n"
    yield from _settings(list(config.model_specs("ROLE").values()))
    yield "## routing.rules\n"
    yield "A list of rules, read before anything else is weighed: the first that matches wins.\n"
    yield "```yaml\nrouting:\n  rules:\n    - {pattern: 'python|sql', model: code}\n```\n"
    yield from _keys(config.rule_specs())
    yield "## llm\n"
    yield (
        "The shape of another installation's settings is read as it stands, and never written. "
        "Where a setting of our own says the same thing, ours wins.\n"
    )
    yield "```yaml\nllm:\n  provider: ollama\n  base_url: http://127.0.0.1:11434/v1"
    yield "  models: {primary: 'qwen3:4b', code: {name: 'qwen2.5-coder:7b', context_length: 8192}}"
    yield "  cache: {type: ssd, max_models: 2, eviction: lru}"
    yield "  routing: {rules: [{pattern: 'python|sql', model: code}]}\n```\n"
    yield from _table(
        ("Key", "What it says"), [(f"`{key}`", text) for key, text in legacy.KEYS.items()]
    )


def _keys(specs: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (f"`{name}`", _shown(spec.default), f"{spec.meta['help']}{_extent(spec)}")
        for name, spec in specs.items()
    ]
    yield from _table(("Key", "Default", "Meaning"), rows)


def _shown(value: Any) -> str:
    if value in ("", (), {}):
        return ""
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _settings(specs: list[Any]) -> Iterator[str]:
    rows = []
    for spec in specs:
        told = f"{spec.meta['help']}{_extent(spec)}"
        rows.append((f"`{spec.key}`", _shown(spec.default), f"`{spec.env}`", told))
    yield from _table(("Key", "Default", "Environment", "Meaning"), rows)


def _extent(spec: Any) -> str:
    legal = [f"from {spec.meta['minimum']}"] if "minimum" in spec.meta else []
    legal += [f"to {spec.meta['maximum']}"] if "maximum" in spec.meta else []
    return (f" ({' '.join(legal)})" if legal else "") + (" **Secret.**" if spec.secret else "")


# --- docs/schema.md -------------------------------------------------------------------------------


def schema_page() -> Iterator[str]:
    """Every table of memory.db, from the migrations."""
    import apsw

    from knowme import schema

    yield "# The tables of memory.db\n"
    yield (
        "The archive (conversations, messages) is the truth. Everything derived from it (items, "
        "item_fts, item_tri, vectors) can be dropped and made again. Times are milliseconds since "
        f"the epoch, UTC. The file's `application_id` is {schema.APPLICATION_ID:#x}.\n"
    )
    conn = apsw.Connection(":memory:")
    known: dict[str, str] = {}
    for step, migration in enumerate(schema.MIGRATIONS, 1):
        migration(conn)
        yield f"## {step}. {migration.__name__}\n"
        yield f"{_doc(migration)}\n"
        found = conn.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        made = {str(name): str(sql) for name, sql in found}
        new = {
            name: sql for name, sql in made.items() if made_by_us(name) and known.get(name) != sql
        }
        known = made
        if new:
            yield "```sql"
            for sql in new.values():
                head, _, body = sql.partition("\n")
                yield f"{head}\n{textwrap.indent(textwrap.dedent(body), '  ')}".rstrip() + ";"
            yield "```\n"


def made_by_us(table: str) -> bool:
    """Say whether a name in sqlite_schema is ours, and not a shadow table of FTS5."""
    shadows = ("_data", "_idx", "_content", "_docsize", "_config")
    return not (table.startswith(("item_fts_", "item_tri_")) and table.endswith(shadows))


# --- docs/http.md ---------------------------------------------------------------------------------


def http_page() -> Iterator[str]:
    """Every route, from the service's OpenAPI."""
    from knowme.service import openapi

    told = openapi()
    yield "# HTTP\n"
    yield f"{inspect.cleandoc(told['info'].get('description') or '')}\n"
    yield (
        "The service listens on `service.host`:`service.port` (127.0.0.1:8300). Every error is "
        "JSON with a sentence that says what to do. The pages at `/docs` try each route.\n"
    )
    schemas = told.get("components", {}).get("schemas", {})
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            yield f"## `{method.upper()} {path}`\n"
            yield f"{route.get('summary', '')}. {route.get('description', '')}\n"
            yield from _body(route, schemas)
            yield from _replies(route, schemas)


def _content(part: Mapping[str, Any]) -> Mapping[str, Any]:
    content = part.get("content", {})
    found: Mapping[str, Any] = content.get("application/json", {}).get("schema", {})
    return found


def _named(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    ref = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = schemas.get(ref, schema)
    return found


def _body(route: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    body = _named(_content(route.get("requestBody", {})), schemas)
    rows = []
    for name, field in body.get("properties", {}).items():
        must = "yes" if name in body.get("required", ()) else ""
        rows.append(
            (f"`{name}`", _type(field), must, " ".join(field.get("description", "").split()))
        )
    if rows:
        yield from _table(("Field", "Type", "Needed", "Meaning"), rows)


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if options := field.get("anyOf") or field.get("oneOf"):
        kinds = [_type(option) for option in options]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null")) or "null"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("type", "any"))


def _replies(route: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    for status, reply in route.get("responses", {}).items():
        shape = _named(_content(reply), schemas)
        fields = ", ".join(f"`{name}`" for name in shape.get("properties", {}))
        said = reply.get("description", "").rstrip(".")
        yield f"- **{status}**: {said}{f': {fields}' if fields else ''}"
    yield ""


# --- docs/plugins.md ------------------------------------------------------------------------------

HOW = """\
Every part that can be exchanged stands behind a seam: a protocol in `knowme/seams.py`. A backend is
found by its name, and nothing is imported until it is used. The built-in ones take the same road.

## Add one of your own

1. Write one class that keeps the protocol. Take what you need as keyword arguments, and `**_` for
   the rest: new settings may come.
2. Name it in your package's `pyproject.toml`:

   ```toml
   [project.entry-points."knowme.engines"]
   mine = "my_package.engine:MyEngine"
   ```

3. Subclass the seam's contract test in `tests/contracts/`: it says what a backend must keep.
4. `knowme config set engine.kind mine`.

A built-in one is the same, with a line in `plugins.BUILTIN` in place of the entry point, and a line
in the change log. A backend imports `seams`, `types` and `errors` from knowme and nothing else; it
raises the errors of `knowme/errors.py` and lets no other through.
"""

SEAMS = {
    "engines": "Engine",
    "embedders": "Embedder",
    "indexes": "VectorIndex",
    "sources": "Source",
    "trainers": "Trainer",
}
BESIDE = {
    "an engine that takes memory": "Resident",
    "an engine that can answer with an adapter": "Adaptable",
    "what a backend's requests pass": "Gate",
}
ARGUMENTS = {
    "engines": "every key of the section `engine` (docs/settings.md), `local`, `gate`",
    "embedders": "every key of the section `embedder` (docs/settings.md), `gate`",
    "indexes": "`folder` (for derived files), `dims`, `fingerprint`",
    "sources": "`path`, `name`",
    "trainers": "none; `learn.trainer` names one",
}


def plugins_page() -> Iterator[str]:
    """Every seam and its backends, from seams.py and plugins.py."""
    from knowme import seams

    yield "# Seams and plugins\n"
    yield HOW
    for kind, builtin in plugins.BUILTIN.items():
        seam = getattr(seams, SEAMS[kind])
        yield f"## {kind}: `{SEAMS[kind]}`\n"
        yield f"{_doc(seam)}\n"
        yield f"Entry points: `knowme.{kind}`. Keyword arguments: {ARGUMENTS[kind]}.\n"
        rows = [
            (f"`{name}`", f"`{target}`", _extra(kind, name)) for name, target in builtin.items()
        ]
        yield from _table(("Built in", "Where", "Extra"), rows)
        yield from _members(seam)
    for beside, name in BESIDE.items():
        yield f"## {beside}: `{name}`\n"
        yield f"{_doc(getattr(seams, name))}\n"
        yield from _members(getattr(seams, name))


def _members(seam: Any) -> Iterator[str]:
    for name, hint in getattr(seam, "__annotations__", {}).items():
        yield f"- `{name}: {hint}`"
    for name, method in vars(seam).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            yield f"- `{_signature(name, method)}`"
            yield textwrap.indent(_doc(method), "  ")
    yield ""


def _extra(kind: str, name: str) -> str:
    extra = plugins.EXTRA.get(f"{kind}.{name}")
    return f"`knowme[{extra}]`" if extra else ""


def _signature(name: str, method: Callable[..., Any]) -> str:
    signature = inspect.signature(method)
    kept = [each for each in signature.parameters.values() if each.name != "self"]
    parts = [f"{each.name}: {each.annotation}" for each in kept]
    made_async = "async " if inspect.iscoroutinefunction(method) else ""
    return f"{made_async}{name}({', '.join(parts)}) -> {signature.return_annotation}"


# --- all of them ----------------------------------------------------------------------------------

PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "cli.md": cli_page,
    "settings.md": settings_page,
    "http.md": http_page,
    "schema.md": schema_page,
    "plugins.md": plugins_page,
}


def render(name: str) -> str:
    """Return the text of one page."""
    body = "\n".join(PAGES[name]())
    lines = [line.rstrip() for line in body.split("\n")]
    return f"{NOTE}\n" + "\n".join(lines).strip().replace("\n\n\n", "\n\n") + "\n"


def stale(folder: Path = FOLDER) -> list[str]:
    """Return the names of the pages that are not what the code says."""
    return [
        name
        for name in PAGES
        if not (folder / name).exists() or (folder / name).read_text("utf-8") != render(name)
    ]


def main(args: list[str]) -> int:
    """Write the pages, or with --check say which are stale. Returns the exit code."""
    if not (FOLDER.parent / "pyproject.toml").exists():
        click.echo("error: the pages are made in a checkout of knowme, not from a wheel.", err=True)
        return 1
    old = stale()
    if args == ["--check"]:
        for name in old:
            click.echo(f"error: docs/{name} is stale.\n  mend: make docs", err=True)
        return 1 if old else 0
    FOLDER.mkdir(exist_ok=True)
    for name in old:
        (FOLDER / name).write_text(render(name), "utf-8")
        click.echo(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
