"""config.yaml and .env as files: written with every key explained, edited with every comment kept.

Promises: an edit changes the lines it must and no others, is checked as a whole before anything is
written, and replaces the file in one step (mode 0600); a symbolic link is followed. A secret goes
to .env.
Refuses to know: what a setting does.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from knowme.config import (
    DOTENV,
    FILE,
    Spec,
    known,
    parse_dotenv,
    parse_yaml,
    read_text,
    read_value,
    sections,
    source_specs,
    specs,
)
from knowme.errors import ConfigError
from knowme.settings import SourceSettings

HEAD = """\
# The settings of this home. Every key is here, explained, with its default commented out: remove
# the `# ` to change one, or run `knowme config set KEY VALUE`, which keeps these comments.
# `knowme config show` prints what is in force and where each value came from.
# Each can also be set in the environment or in .env beside this file: KNOWME_ENGINE_KIND=ollama.
# Secrets belong into .env.
"""
SOURCES = """\
# What `knowme sync` reads: kind is openclaw, markdown (any folder of notes or text) or knowme (an
# export). `knowme config add KIND PATH` adds one here.
"""
EXAMPLES = """\
  # - kind: openclaw
  #   path: ~/.openclaw
  # - kind: markdown
  #   path: ~/notes
  #   name: notes
"""
_PLAIN = re.compile(r"-?[A-Za-z0-9_./~][A-Za-z0-9_./~+@-]*(?:[:][A-Za-z0-9_./~+@-]+)*")


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_scalar(each) for each in value)}]"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in ("~", "null"):
        return text
    return json.dumps(text, ensure_ascii=False)


def _explained(spec: Spec, indent: str) -> list[str]:
    name = spec.key.rpartition(".")[2]
    help_text = spec.meta["help"]
    lines = textwrap.wrap(
        help_text,
        width=96,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_on_hyphens=False,
    )
    if spec.secret:
        return [*lines, f"{indent}# {name} is a secret: put {spec.env}=... into .env", ""]
    return [*lines, f"{indent}# {name}: {_scalar(spec.default)}", ""]


def render(sources: Sequence[SourceSettings] = ()) -> str:
    """Return the default config.yaml, with these sources in it."""
    lines = [HEAD]
    for spec in specs().values():
        if "." not in spec.key:
            lines += _explained(spec, "")
    lines.append(f"{SOURCES}sources:\n{EXAMPLES}")
    for section, cls in sections().items():
        lines += [f"# {cls.__doc__}", f"{section}:"]
        for spec in specs().values():
            if spec.key.startswith(f"{section}."):
                lines += _explained(spec, "  ")
    text = "\n".join(lines)
    for source in sources:
        text = _with_source(text, source)
    return text


# --- editing ------------------------------------------------------------------------------------


def set_value(home: Path, key: str, value: str) -> Path:
    """Write one setting; return the file that changed. Raises ConfigError, nothing written."""
    if key == "sources" or key.startswith("sources["):
        raise ConfigError(
            f"{key} is a list, not one value.",
            f"Run: knowme config add KIND PATH, or edit {home / FILE}",
        )
    spec = known(key)
    checked = read_value(spec, value, "config set")
    if spec.secret:
        path = home / DOTENV
        text = _with_secret(read_text(path), spec.env, value)
        parse_dotenv(text)
    else:
        path = home / FILE
        text = _with_value(read_text(path), spec, checked)
        written = parse_yaml(text).get(key, (spec.default, ""))[0]
        if written != checked:
            raise _by_hand(f"{key}: {_scalar(checked)}")
    _replace(path, text)
    return path


def add_source(home: Path, source: SourceSettings) -> Path:
    """Add a source to config.yaml; return the file. Raises ConfigError, nothing written.

    The name is made unique where it is taken: ``markdown``, ``markdown-2``.
    """
    path = home / FILE
    text = _with_source(read_text(path), source)
    parse_yaml(text)
    _replace(path, text)
    return path


def _by_hand(what: str) -> ConfigError:
    return ConfigError(
        f"{FILE} is written in a way that cannot be edited without losing something.",
        f"Write this into it yourself: {what}",
    )


def _replace(path: Path, text: str) -> None:
    path = path.resolve()
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}.", "Run: knowme doctor"
        ) from error


def _with_secret(text: str, name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    line = f'{name}="{escaped}"'
    lines = text.splitlines()
    found = [i for i, each in enumerate(lines) if re.match(rf"\s*(export\s+)?{name}\s*=", each)]
    for index in found:
        lines[index] = line
    return "\n".join(lines if found else [*lines, line]) + "\n"


def _root(text: str) -> Any:
    import yaml

    parse_yaml(text)  # refuses what is wrong, by its line
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and getattr(root, "flow_style", False):
        raise _by_hand("one key a line")
    return root


def _entry(node: Any, name: str) -> tuple[Any, Any] | None:
    if node is None or node.id != "mapping":
        return None
    return next(((key, value) for key, value in node.value if key.value == name), None)


def _with_value(text: str, spec: Spec, value: Any) -> str:
    section, _, name = spec.key.rpartition(".")
    root = _root(text)
    if not section:
        return _in_block(text, root, (0, len(text.splitlines())), "", name, value)
    entry = _entry(root, section)
    if entry is None:
        gap = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{gap}{section}:\n  {name}: {_scalar(value)}\n"
    key, node = entry
    if node.id == "mapping" and node.flow_style:
        if node.value:
            raise _by_hand(f"{spec.key}: {_scalar(value)}")
        start, end = node.start_mark.index, node.end_mark.index
        return _with_value(text[:start].rstrip(" ") + text[end:], spec, value)
    first = key.start_mark.line + 1
    later = [each.start_mark.line for each, _ in root.value if each.start_mark.line >= first]
    span = (first, min(later, default=len(text.splitlines())))
    indent = "  "
    if node.id == "mapping":
        indent = " " * node.value[0][0].start_mark.column
    return _in_block(text, node, span, indent, name, value)


def _in_block(
    text: str, node: Any, span: tuple[int, int], indent: str, name: str, value: Any
) -> str:
    """Replace the value in this block, else its commented default, else add a line to the block."""
    new = _scalar(value)
    if (entry := _entry(node, name)) is not None:
        child = entry[1]
        start, end = child.start_mark.index, child.end_mark.index
        if child.id == "sequence" and not child.flow_style:
            end = child.value[-1].end_mark.index  # the end of the block lies beyond the comments
        gap = "" if text[start - 1 : start].isspace() else " "
        return f"{text[:start]}{gap}{new}{text[end:]}"
    lines = text.splitlines(keepends=True)
    commented = re.compile(rf"{indent or ''}#\s?{re.escape(name)}:(\s|$)")
    for number in range(*span):
        if commented.match(lines[number]):
            lines[number] = f"{indent}{name}: {new}\n"
            return "".join(lines)
    if not indent:
        return f"{name}: {new}\n{text}"
    if not lines[span[0] - 1].endswith("\n"):
        lines[span[0] - 1] += "\n"
    lines.insert(span[0], f"{indent}{name}: {new}\n")
    return "".join(lines)


def _body(text: str, source: SourceSettings) -> list[str]:
    """Return the lines of one source, checked, under a name that is still free."""
    there: tuple[SourceSettings, ...] = parse_yaml(text).get("sources", ((), ""))[0]
    taken = {each.name for each in there}
    name = wanted = source.name or source.kind
    number = 2
    while name in taken:
        name, number = f"{wanted}-{number}", number + 1
    given: dict[str, Any] = {"kind": source.kind, "path": source.path}
    if name != source.kind:
        given["name"] = name
    if not source.enabled:
        given["enabled"] = False
    for key, each in given.items():
        read_value(source_specs()[key], each, "config add")
    return [f"{key}: {_scalar(each)}" for key, each in given.items()]


def _with_source(text: str, source: SourceSettings) -> str:
    entry = _entry(_root(text), "sources")
    body = _body(text, source)
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if entry is None:
        return "".join([*lines, "sources:\n", *_item(body, 2)])
    key, node = entry
    if node.id == "sequence" and node.value:
        if node.flow_style:
            raise _by_hand("sources: one `- kind: ...` a line")
        at = _end(node.value[-1])
        return "".join([*lines[:at], *_item(body, node.start_mark.column), *lines[at:]])
    lines[key.start_mark.line] = "sources:\n"  # it was `sources: []`, or empty
    at = key.start_mark.line + 1
    while at < len(lines) and re.match(r"\s+#", lines[at]):
        at += 1  # the commented examples stay above
    return "".join([*lines[:at], *_item(body, 2), *lines[at:]])


def _end(node: Any) -> int:
    """Return the line after a node's last word: a block's own end lies beyond its comments."""
    if node.id == "mapping" and not node.flow_style:
        return _end(node.value[-1][1])
    return int(node.end_mark.line) + 1


def _item(body: Sequence[str], column: int) -> list[str]:
    pad = " " * column
    return [f"{pad}{'- ' if number == 0 else '  '}{line}\n" for number, line in enumerate(body)]
