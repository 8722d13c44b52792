"""config.yaml and .env as files: read, written with every key explained, edited in place.

Promises: an edit keeps every comment, changes the lines it must and no others, is checked as a
whole before anything is written, and replaces the file in one step (mode 0600); a symbolic link is
followed. A secret goes to .env.
Refuses to know: what a setting does.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knowme.config import (
    DOTENV,
    FILE,
    Lined,
    Spec,
    check_whole,
    known,
    model_specs,
    parse_yaml,
    read_value,
    roles,
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
MODELS = """\
# Models by role: primary answers by default; code, fast, vision, cloud and any other name are yours
# to give. With none here, the model of `engine` is the primary one.
# `knowme config set models.cloud.model NAME` adds one, or edits it.
"""
MODEL_EXAMPLES = """\
  # primary:
  #   engine: ollama
  #   model: qwen3:4b
  #   residency: always
  # code:
  #   engine: ollama
  #   model: qwen2.5-coder:7b
  #   residency: unload_after
  #   unload_after: 10m
  # cloud:
  #   engine: openai
  #   url: https://api.openai.com/v1
  #   model: gpt-5-mini
  #   context_tokens: 128000
  #   price_in: 0.25
  #   price_out: 2
"""
RULES = """\
  # Rules: a message that the pattern (a regular expression) is found in goes to the model, a role
  # or a model's name. The first that matches wins.
"""
RULE_EXAMPLES = """\
  # rules:
  #   - pattern: '\\b(traceback|def|select .* from)\\b'
  #     model: code
  #   - pattern: 'good (morning|night)'
  #     model: primary
"""
POLICY_EXAMPLES = """\
  # sources:
  #   markdown: allow
  #   openclaw: placeholders
"""
_PLAIN = re.compile(r"-?[A-Za-z0-9_./~][A-Za-z0-9_./~+@-]*(?:[:][A-Za-z0-9_./~+@-]+)*")
_UNPRINTABLE = re.compile(
    "[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_scalar(each) for each in value)}]"
    if isinstance(value, Mapping):
        parts = (f"{_scalar(name)}: {_scalar(each)}" for name, each in value.items())
        return f"{{{', '.join(parts)}}}"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in ("~", "null"):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\U{ord(found[0]):08x}", quoted)


def _explained(spec: Spec, indent: str) -> list[str]:
    name = spec.key.rpartition(".")[2]
    help_text = spec.meta["help"]
    lines = _wrapped(help_text, f"{indent}# ")
    if spec.key == "privacy.sources":
        return [*lines, POLICY_EXAMPLES]
    if spec.secret:
        return [*lines, f"{indent}# {name} is a secret: put {spec.env}=... into .env", ""]
    return [*lines, f"{indent}# {name}: {_scalar(spec.default)}", ""]


def _wrapped(text: str, first: str, rest: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width=96,
        initial_indent=first,
        subsequent_indent=rest or first,
        break_on_hyphens=False,
    )


def _keys_of_a_model() -> list[str]:
    lines = ["  # The keys of a model, with their defaults:"]
    for name, spec in model_specs("role").items():
        default = "" if spec.default == "" else f" ({_scalar(spec.default)})"
        lines += _wrapped(f"{name}{default}: {spec.meta['help']}", "  #   ", "  #     ")
    return [*lines, ""]


def render(sources: Sequence[SourceSettings] = ()) -> str:
    """Return the default config.yaml, with these sources in it."""
    lines = [HEAD]
    for spec in specs().values():
        if "." not in spec.key:
            lines += _explained(spec, "")
    lines.append(f"{SOURCES}sources:\n{EXAMPLES}")
    lines += [f"{MODELS}models:\n{MODEL_EXAMPLES.rstrip()}", *_keys_of_a_model()]
    for section, cls in sections().items():
        lines += [f"# {cls.__doc__}", f"{section}:"]
        if section == "routing":
            lines.append(f"{RULES}{RULE_EXAMPLES}")
        for spec in specs().values():
            if spec.key.startswith(f"{section}."):
                lines += _explained(spec, "  ")
    text = "\n".join(lines)
    for source in sources:
        text = _with_source(text, source)
    return text


# --- reading ------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """Return a settings file's text, "" where there is none. Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8.", "Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.", f"Run: chmod u+r '{path}'"
        ) from error


def compose(text: str, name: str) -> Any:
    """Return YAML as text, lists and mappings of text. Raises ConfigError with the line."""
    import yaml  # 15 ms

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if root is None else _plain(root, name)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigError(
            f"{name}{line}: this is not valid YAML: {what}.",
            "Mind the indentation, and put values with ': ' or '#' in quotes.",
        ) from error


def _plain(node: Any, name: str, tail: str = "") -> Any:
    """Return a node as text, lists and mappings of text.

    YAML's own guesses are not used: it reads 13:30 as the number 810 and `no` as false.
    """
    if node.id == "scalar":
        return None if node.tag.endswith(":null") else node.value
    if node.id == "sequence":
        return [_plain(child, name, tail) for child in node.value]
    found = Lined(f"{name}:{node.start_mark.line + 1}{tail}")
    for key, child in node.value:
        at = f"{name}:{key.start_mark.line + 1}{tail}"
        if key.id != "scalar":
            raise ConfigError(f"{at}: a key must be a word.", "Write: key: value")
        if key.value in found:
            raise ConfigError(f"{at}: {key.value} is there twice.", "Keep one of the two.")
        found[key.value] = _plain(child, name, " (llm)" if key.value == "llm" else tail)
        found.lines[key.value] = at
    return found


_ASSIGN = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_dotenv(text: str, name: str = DOTENV) -> dict[str, tuple[str, str]]:
    """Return name -> (value, "name:line"). KEY=value, quotes, # comments, export; nothing else.

    Raises ConfigError with the line, never with the value.
    """
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _ASSIGN.fullmatch(line)
        if not match:
            raise ConfigError(f"{name}:{number}: this line is not KEY=value.", "Mend that line.")
        key, raw = match.groups()
        if raw[:1] in ("'", '"'):
            quoted = _QUOTED.fullmatch(raw)
            if not quoted:
                raise ConfigError(
                    f"{name}:{number}: the quotes of {key} do not close.", "Mend that line."
                )
            single, double = quoted.groups()
            value = single if double is None else _unescape(double)
        else:
            value = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].rstrip()
        found[key] = (value, f"{name}:{number}")
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text)


# --- editing ------------------------------------------------------------------------------------


def set_value(home: Path, key: str, value: str) -> Path:
    """Write one setting; return the file that changed. Raises ConfigError, nothing written."""
    spec = known(key, "config set")
    checked = read_value(spec, value, "config set")
    path, text = home / FILE, read_text(home / FILE)
    if spec.secret:
        _check_owner(spec, text)
        path = home / DOTENV
        text = _with_secret(read_text(path), spec.env, value)
        parse_dotenv(text)
    else:
        changed = _with_value(text, _steps(key), checked)
        _check_edit(text, changed, key, checked)
        text = changed
    _replace(path, text)
    return path


def _steps(key: str) -> tuple[str, ...]:
    """Part models.cloud.model and privacy.sources.NAME: the last may have dots of its own."""
    if key.startswith("models."):
        return tuple(key.split(".", 2))
    for spec in specs().values():
        if spec.type is dict and key.startswith(f"{spec.key}."):
            return (*spec.key.split("."), key.removeprefix(f"{spec.key}."))
    return tuple(key.split("."))


def _check_owner(spec: Spec, text: str) -> None:
    """Refuse the key of a model that is not there: its name in .env would be nobody's."""
    section, _, rest = spec.key.partition(".")
    role = rest.partition(".")[0]
    if section == "models" and role not in roles(parse_yaml(text)):
        raise ConfigError(
            f"There is no model for the role {role!r} yet.",
            f"Name it first: knowme config set models.{role}.model NAME",
        )


def _check_edit(before: str, after: str, key: str, value: Any) -> None:
    """Raise ConfigError unless the new text says what the old one said, and this besides."""
    try:
        old, new = parse_yaml(before), parse_yaml(after)
    except ConfigError as error:
        raise _by_hand(f"{key}: {_scalar(value)}") from error
    *parents, name = _steps(key)
    if (whole := ".".join(parents)) in specs():
        old[whole] = ({**old.get(whole, ({}, ""))[0], name: value}, "")
    else:
        old[key] = (value, "")
    if parents[:1] == ["models"]:
        old[f"{whole}.role"] = (parents[1], "")
        if name == "engine" and f"{whole}.url" not in new:
            old.pop(f"{whole}.url", None)  # the server was that of the engine before: `llm:`
    said = [{each: found for each, (found, _) in layer.items()} for layer in (old, new)]
    if said[0] != said[1]:
        raise _by_hand(f"{key}: {_scalar(value)}")
    check_whole(new)


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


def _with_value(text: str, steps: tuple[str, ...], value: Any) -> str:
    """Return the text with this value under these nested keys."""
    node, key, span = _root(text), None, (0, len(text.splitlines()))
    for depth, name in enumerate(steps):
        entry = _entry(node, name)
        if entry is None:
            return _added(text, (node, key, span), (steps, depth), value)
        key, child = entry
        start, end = child.start_mark.index, child.end_mark.index
        if start < key.end_mark.index:  # an alias: the value stands elsewhere, and serves others
            raise _by_hand(f"{'.'.join(steps)}: {_scalar(value)}")
        if depth == len(steps) - 1:
            gap = "" if text[start - 1 : start].isspace() else " "
            return f"{text[:start]}{gap}{_scalar(value)}{text[_end_index(child) :]}"
        if not child.value or child.id != "mapping":  # `{}`, `~`, or nothing at all
            if end > start:
                return _with_value(text[:start].rstrip(" ") + text[end:], steps, value)
        first = key.start_mark.line + 1
        later = [each.start_mark.line for each, _ in node.value if each.start_mark.line >= first]
        node, span = child, (first, min(later, default=span[1]))
    raise AssertionError("a setting has a name")


Block = tuple[Any, Any, tuple[int, int]]
"""A mapping: its node, the node of its key (None: the file itself), its first line and the last."""


def _added(text: str, block: Block, where: tuple[tuple[str, ...], int], value: Any) -> str:
    """Add what is missing of the nested keys: in place of the commented default, else a line."""
    (node, key, span), (steps, depth) = block, where
    if getattr(node, "flow_style", False) and node.id == "mapping":
        at = node.value[-1][1].end_mark.index
        inner = _scalar(value)
        for name in reversed(steps[depth:]):
            inner = f"{_scalar(name)}: {inner}"
            inner = inner if name is steps[depth] else f"{{{inner}}}"
        return f"{text[:at]}, {inner}{text[at:]}"
    column = 0 if key is None else key.start_mark.column + 2
    if key is not None and node.id == "mapping":
        column = node.value[0][0].start_mark.column
    new = "".join(
        f"{' ' * (column + 2 * level)}{_scalar(name)}:"
        + (f" {_scalar(value)}\n" if depth + level == len(steps) - 1 else "\n")
        for level, name in enumerate(steps[depth:])
    )
    lines = text.splitlines(keepends=True)
    if ".".join(steps[: depth + 1]) in specs():
        commented = re.compile(rf"{' ' * column}#\s?{re.escape(steps[depth])}:(\s|$)")
        for number in range(*span):
            if commented.match(lines[number]):
                lines[number] = new
                return "".join(lines)
    if key is None and len(steps) == 1:
        return new + text
    at = len(lines) if key is None else span[0]
    if depth == 1 and steps[0] == "models":
        at = _after_models(lines, node, span[0])
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    return "".join([*lines[:at], new, *lines[at:]])


def _after_models(lines: list[str], node: Any, first: int) -> int:
    """Return the line where another model goes: below the last, or below the examples."""
    if node.id == "mapping":
        return _end(lines, node)
    while first < len(lines) and re.match(r"\s+#", lines[first]):
        first += 1
    return first


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
        at = _end(lines, node.value[-1])
        return "".join([*lines[:at], *_item(body, node.start_mark.column), *lines[at:]])
    lines[key.start_mark.line] = "sources:\n"  # it was `sources: []`, or empty
    at = key.start_mark.line + 1
    while at < len(lines) and re.match(r"\s+#", lines[at]):
        at += 1  # the commented examples stay above
    return "".join([*lines[:at], *_item(body, 2), *lines[at:]])


def _end_index(node: Any) -> int:
    """Return where a node's last word ends: a block's own end lies beyond its comments."""
    if node.id == "mapping" and node.value and not node.flow_style:
        return _end_index(node.value[-1][1])
    if node.id == "sequence" and node.value and not node.flow_style:
        return _end_index(node.value[-1])
    return int(node.end_mark.index)


def _end(lines: Sequence[str], node: Any) -> int:
    """Return the number of the line after a node's last word."""
    return len("".join(lines)[: _end_index(node)].rstrip().splitlines())


def _item(body: Sequence[str], column: int) -> list[str]:
    pad = " " * column
    return [f"{pad}{'- ' if number == 0 else '  '}{line}\n" for number, line in enumerate(body)]
