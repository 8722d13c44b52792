"""Settings: defaults <- config.yaml <- .env <- environment <- flags, each with its provenance.

Promises: every key is declared once, below, with its help and its legal values; anything else is
refused with the legal ones named. Secrets come from the environment or .env and are never printed.
A loaded Config never changes.
Refuses to know: what a setting does, and how the file is written (``configfile.py`` does).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from knowme import plugins
from knowme.errors import ConfigError
from knowme.settings import ModelSettings, RuleSettings, Settings, SourceSettings

FILE = "config.yaml"
DOTENV = ".env"


# --- what is declared ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spec:
    """One declared setting: ``key`` is ``engine.kind``; ``type`` str, bool, int, float or tuple."""

    key: str
    type: Any
    default: Any
    meta: Mapping[str, Any]

    @property
    def env(self) -> str:
        """Return its name in the environment: KNOWME_ENGINE_KIND."""
        return "KNOWME_" + self.key.replace(".", "_").upper()

    @property
    def secret(self) -> bool:
        """Say whether its value must never be shown."""
        return bool(self.meta.get("secret"))

    @property
    def legal(self) -> list[str]:
        """Return the legal words, empty where any value of the type will do."""
        if kind := self.meta.get("plugins"):
            return [*self.meta.get("also", ()), *plugins.names(kind)]
        return list(self.meta.get("choices", ()))


LISTS = {"sources": SourceSettings, "models": ModelSettings, "routing.rules": RuleSettings}
"""Settings that are lists of mappings: each is read by a function of its own."""


def _kind(hint: Any) -> Any:
    if hint in (str, bool, int, float):
        return hint
    return dict if get_origin(hint) is Mapping else tuple


def _declared(cls: Any, prefix: str = "") -> Iterator[Spec]:
    hints = get_type_hints(cls)
    for each in fields(cls):
        if is_dataclass(hints[each.name]):
            yield from _declared(hints[each.name], f"{each.name}.")
        elif prefix + each.name not in LISTS:
            made = each.default_factory
            default = each.default if made is MISSING else made()
            yield Spec(prefix + each.name, _kind(hints[each.name]), default, each.metadata)


@cache
def specs() -> Mapping[str, Spec]:
    """Return every setting but ``sources``, by its key, in the order of declaration."""
    return {spec.key: spec for spec in _declared(Settings)}


@cache
def source_specs() -> Mapping[str, Spec]:
    """Return the settings of one source, by name."""
    return {spec.key[1:]: spec for spec in _declared(SourceSettings, ".")}


def sections() -> Mapping[str, type]:
    """Return each section's name and its class."""
    hints: Mapping[str, type] = get_type_hints(Settings)
    return {name: cls for name, cls in hints.items() if is_dataclass(cls)}


# --- from what was written to a value -----------------------------------------------------------

RESERVED = {
    "KNOWME_HOME": "which home is used",
    "KNOWME_HUB": "which model hub is asked",
    "KNOWME_MODELS": "where models are kept",
    "KNOWME_SHARED": "where the tests find shared data",
}
"""Names in the environment that are not settings."""

PROVIDERS = {
    "DEEPSEEK_API_KEY": "deepseek.com",
    "GROQ_API_KEY": "groq.com",
    "MISTRAL_API_KEY": "mistral.ai",
    "OPENAI_API_KEY": "openai.com",
    "OPENROUTER_API_KEY": "openrouter.ai",
    "TOGETHER_API_KEY": "together.xyz",
}
"""Well-known keys, each for its own provider's servers only: a key is never sent elsewhere."""

_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def _zone(value: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        return "a time zone that this machine knows, such as Europe/Lisbon"
    return ""


def _clock(value: str) -> str:
    legal = re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value)
    return "" if legal else "a time of day as HH:MM, such as 03:30"


SHAPES = {"zone": _zone, "clock": _clock}
"""Shape -> a check that returns "" or what the value must be. An empty value always passes."""


def _guess(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}? " if near else ""


def _unknown(what: str, word: str, known: Sequence[str], origin: str) -> ConfigError:
    return ConfigError(
        f"{origin}: there is no {what} {word!r}.", f"{_guess(word, known)}Use: {', '.join(known)}."
    )


def _refuse(spec: Spec, value: Any, must: str, origin: str) -> ConfigError:
    shown = "(secret)" if spec.secret else repr(value)
    return ConfigError(
        f"{origin}: {spec.key.lstrip('.')} is {shown}, but it must be {must}.",
        "`knowme config show` lists every setting.",
    )


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return _WORDS[value.strip().lower()]


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not re.fullmatch(r"[+-]?\d+(_\d+)*", value.strip()):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _words(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
        raise ValueError
    return tuple(part for part in value if part)


def _mapping(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.strip("{} ").split(",") if part.strip()]
        value = {name.strip(): word.strip() for name, _, word in pairs}
    if not isinstance(value, Mapping):
        raise ValueError
    return {str(name): str(word) for name, word in value.items() if name != _LINE}


_READERS: Mapping[Any, tuple[Any, str]] = {
    bool: (_truth, "true or false"),
    int: (_whole, "a whole number"),
    float: (_number, "a number"),
    str: (_text, "text"),
    tuple: (_words, "a list of words"),
    dict: (_mapping, "a mapping of words, such as {notes: allow}"),
}


def read_value(spec: Spec, value: Any, origin: str) -> Any:
    """Return ``value`` (text, or already of the type) as the setting's type, checked.

    Raises ConfigError that names the origin, the value and what is legal.
    """
    reader, must = _READERS[spec.type]
    try:
        found = reader(value)
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
        raise _refuse(spec, value, must, origin) from None
    _check(spec, found, origin)
    return found


def _check(spec: Spec, value: Any, origin: str) -> None:
    meta = spec.meta
    if kind := meta.get("plugins"):
        # Built-ins first: looking through the installed packages costs 30 ms.
        if value not in plugins.BUILTIN[kind] and value not in spec.legal:
            raise _unknown(f"{spec.key.lstrip('.')} called", value, spec.legal, origin)
    elif "choices" in meta and value not in meta["choices"]:
        raise _unknown(f"{spec.key} called", value, spec.legal, origin)
    if "minimum" in meta and value < meta["minimum"]:
        raise _refuse(spec, value, f"at least {meta['minimum']}", origin)
    if "maximum" in meta and value > meta["maximum"]:
        raise _refuse(spec, value, f"at most {meta['maximum']}", origin)
    if value and (shape := meta.get("shape")) and (must := SHAPES[shape](value)):
        raise _refuse(spec, value, must, origin)


# --- the layers ---------------------------------------------------------------------------------

Layer = dict[str, tuple[Any, str]]
"""Key -> (checked value, origin); ``sources`` -> a tuple of SourceSettings."""


def _known(key: str, origin: str) -> Spec:
    if spec := specs().get(key):
        return spec
    section, dot, name = key.partition(".")
    if dot and section in sections():
        names = [each.split(".")[1] for each in specs() if each.startswith(f"{section}.")]
        raise _unknown(f"setting in {section} called", name, names, origin)
    if dot:
        raise _unknown("section", section, list(sections()), origin)
    tops = [each for each in specs() if "." not in each]
    raise _unknown("setting", key, [*tops, "sources", *sections()], origin)


def known(key: str, origin: str = "config") -> Spec:
    """Return the setting called ``key``. Raises ConfigError with the legal names."""
    return _known(key, origin)


def parse_yaml(text: str, name: str = FILE) -> Layer:
    """Read the text of a config.yaml. Raises ConfigError with the line."""
    import yaml  # 15 ms

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ConfigError(
            f"{name}{line}: this is not valid YAML: {what}.",
            "Mind the indentation, and put values with ': ' or '#' in quotes.",
        ) from error
    layer: Layer = {}
    for key, node, number in _pairs(root, name, "the file"):
        origin = f"{name}:{number}"
        if key == "sources":
            layer[key] = (_sources(_plain(node), name), origin)
        elif key in sections():
            for inner, child, at in _pairs(node, name, key):
                _put(layer, f"{key}.{inner}", _plain(child), f"{name}:{at}")
        else:
            _put(layer, key, _plain(node), origin)
    return layer


def _put(layer: Layer, key: str, value: Any, origin: str) -> None:
    spec = _known(key, origin)
    if value is not None:  # `key:` with nothing after it leaves the default
        layer[key] = (read_value(spec, value, origin), origin)


def _pairs(node: Any, name: str, where: str) -> Iterator[tuple[str, Any, int]]:
    if node is None or node.tag.endswith(":null"):
        return
    if node.id != "mapping":
        raise ConfigError(
            f"{name}:{node.start_mark.line + 1}: {where} must hold `key: value` lines, "
            f"not {_plain(node)!r}.",
            "`knowme config show` lists every setting.",
        )
    seen: set[str] = set()
    for key, value in node.value:
        at = key.start_mark.line + 1
        if key.value in seen:
            raise ConfigError(f"{name}:{at}: {key.value} is there twice.", "Keep one of the two.")
        seen.add(key.value)
        yield str(key.value), value, at


def _plain(node: Any) -> Any:
    """Return a node as text, lists and mappings of text.

    YAML's own guesses are not used: it reads 13:30 as the number 810 and `no` as false.
    """
    if node.id == "scalar":
        return None if node.tag.endswith(":null") else node.value
    if node.id == "sequence":
        return [_plain(child) for child in node.value]
    found: dict[str, Any] = {key.value: _plain(value) for key, value in node.value}
    found[_LINE] = node.start_mark.line + 1
    return found


_LINE = "\0line"


def _sources(value: Any, origin: str) -> tuple[SourceSettings, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise ConfigError(
            f"{origin}: sources is {value!r}, but it must be a list.",
            "Run: knowme config add KIND PATH",
        )
    found: list[SourceSettings] = []
    for index, each in enumerate(value):
        source = _source(each, f"{origin}, sources[{index}]")
        if source.name in {other.name for other in found}:
            raise ConfigError(
                f"{origin}: two sources are called {source.name!r}.",
                "Give one of them a `name:` of its own.",
            )
        found.append(source)
    return tuple(found)


def _source(value: Any, origin: str) -> SourceSettings:
    if isinstance(value, SourceSettings):
        value = {each: getattr(value, each) for each in source_specs()}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{origin}: a source needs kind: and path:, not {value!r}.", _SOURCE_HINT)
    origin = f"{origin.partition(',')[0]}:{value[_LINE]}" if _LINE in value else origin
    given: dict[str, Any] = {}
    for key, raw in value.items():
        if key == _LINE:
            continue
        if key not in source_specs():
            raise _unknown("setting of a source called", key, list(source_specs()), origin)
        if raw is not None:
            given[key] = read_value(source_specs()[key], raw, origin)
    for key in ("kind", "path"):
        if not given.get(key):
            raise ConfigError(f"{origin}: a source needs {key}:.", _SOURCE_HINT)
    source = SourceSettings(**given)
    return replace(source, name=source.name or source.kind)


_SOURCE_HINT = "Such as: - {kind: markdown, path: ~/notes}. Or run: knowme config add KIND PATH"


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


def _environment(given: Mapping[str, tuple[str, str]], dotenv: bool) -> Layer:
    """Read the KNOWME_* names; every other name is none of our business."""
    by_env = {spec.env: spec for spec in specs().values()}
    layer: Layer = {}
    for name, (value, origin) in given.items():
        if not name.startswith("KNOWME_"):
            continue
        if spec := by_env.get(name):
            layer[spec.key] = (read_value(spec, value, origin), origin)
        elif name in RESERVED and dotenv:
            raise ConfigError(
                f"{origin}: {name} ({RESERVED[name]}) is read before this file is.",
                f"Set it in the environment instead: export {name}=...",
            )
        elif name not in RESERVED and (dotenv or _meant(name, by_env)):
            raise _unknown("setting called", name, _nearest(name, by_env), origin)
    return layer


def _meant(name: str, known: Mapping[str, Spec]) -> bool:
    """Say whether a stray KNOWME_* name in the process's environment was meant as a setting."""
    section = name.split("_")[1].lower()
    return section in sections() or bool(get_close_matches(name, list(known), n=1, cutoff=0.85))


def _nearest(name: str, known: Mapping[str, Spec]) -> list[str]:
    return get_close_matches(name, list(known), n=6, cutoff=0.5) or sorted(known)


def _flags(overrides: Mapping[str, Any], prefix: str = "") -> Layer:
    layer: Layer = {}
    for key, value in overrides.items():
        if not prefix and key == "sources":
            layer[key] = (_sources(value, "flag"), "flag")
        elif not prefix and isinstance(value, Mapping):
            layer |= _flags(value, f"{key}.")
        elif value is not None:
            spec = _known(prefix + key, "flag")
            layer[spec.key] = (read_value(spec, value, "flag"), "flag")
    return layer


# --- the whole ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one home and where each came from. Immutable."""

    home: Path
    settings: Settings
    origins: Mapping[str, str]

    def provenance(self) -> list[tuple[str, Any, str]]:
        """Return (key, value as it may be shown, origin) of every setting, in order.

        Secrets are shown as "set" or "not set", and a URL without the password in it.
        """
        rows: list[tuple[str, Any, str]] = []
        for key, spec in specs().items():
            section, _, name = key.rpartition(".")
            owner = getattr(self.settings, section) if section else self.settings
            value = getattr(owner, name)
            if spec.secret:
                value = "set" if value else "not set"
            elif spec.type is str:
                value = re.sub(r"(://)[^/@\s]+@", r"\1***@", value)
            rows.append((key, value, self.origins.get(key, "default")))
        origin = self.origins.get("sources", "default")
        sources: list[tuple[str, Any, str]] = [
            (f"sources[{index}].{name}", getattr(source, name), origin)
            for index, source in enumerate(self.settings.sources)
            for name in source_specs()
        ]
        return [*rows[:1], *(sources or [("sources", (), origin)]), *rows[1:]]


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


def load(
    home: Path,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Merge default <- config.yaml <- .env <- environment <- flags, each value checked.

    ``overrides`` maps keys (``engine.kind``, or nested mappings) to values, ``None`` meaning not
    given. Raises ConfigError naming the origin, the value and the legal ones.
    """
    environ = os.environ if environ is None else environ
    dotenv = parse_dotenv(read_text(home / DOTENV))
    outer = {name: (value, f"environment {name}") for name, value in environ.items()}
    layer = parse_yaml(read_text(home / FILE))
    layer |= _environment(dotenv, dotenv=True)
    layer |= _environment(outer, dotenv=False)
    layer |= _flags(overrides or {})
    _provider_keys(layer, {**dotenv, **outer})
    return Config(home, _build(layer, home), {key: origin for key, (_, origin) in layer.items()})


def _provider_keys(layer: Layer, given: Mapping[str, tuple[str, str]]) -> None:
    """Let a provider's well-known key stand in, for that provider's own servers only."""
    from urllib.parse import urlsplit

    for section in ("engine", "embedder"):
        kind = layer.get(f"{section}.kind", ("", ""))[0]
        if kind != "openai" or layer.get(f"{section}.api_key", ("", ""))[0]:
            continue
        url = urlsplit(layer.get(f"{section}.url", ("", ""))[0])
        for name, domain in PROVIDERS.items():
            host = url.hostname or ""
            ours = url.scheme == "https" and (host == domain or host.endswith(f".{domain}"))
            if ours and given.get(name, ("", ""))[0]:
                layer[f"{section}.api_key"] = given[name]


def _absolute(path: str, home: Path) -> str:
    try:
        return str(home / Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"sources: {path!r}: {error}", "Write the path in full.") from error


def _build(layer: Layer, home: Path) -> Settings:
    parts: dict[str, dict[str, Any]] = {"": {}}
    for key, (value, _) in layer.items():
        section, _, name = key.rpartition(".")
        parts.setdefault(section, {})[name] = value
    top = parts.pop("")
    top["sources"] = tuple(
        replace(each, path=_absolute(each.path, home)) for each in top.get("sources", ())
    )
    built = {name: cls(**parts.get(name, {})) for name, cls in sections().items()}
    return Settings(**top, **built)


def render_yaml(sources: Sequence[SourceSettings] = ()) -> str:
    """Return the default config.yaml: every key explained, every default commented out."""
    from knowme import configfile

    return configfile.render(sources)


def set_value(home: Path, key: str, value: str) -> Path:
    """Write one setting into config.yaml (a secret: into .env), keeping every comment.

    Returns the file that changed. Raises ConfigError, with nothing written.
    """
    from knowme import configfile

    return configfile.set_value(home, key, value)
