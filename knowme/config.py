"""Settings: defaults <- config.yaml <- .env <- environment <- flags, each with its provenance.

Promises: every key is declared once, in ``settings.py``, with its help and its legal values;
anything else is refused, by its line, with the legal ones named. Secrets come from the environment
or .env and are never printed. A loaded Config never changes.
Refuses to know: what a setting does, and how its files are read and written (``configfile.py``).
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

from knowme import plugins, times
from knowme.errors import ConfigError
from knowme.settings import ModelSettings, RuleSettings, Settings, SourceSettings

FILE = "config.yaml"
DOTENV = ".env"


# --- what is declared ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spec:
    """One declared setting: ``key`` is ``engine.kind``; ``type`` bool, float, tuple, dict ..."""

    key: str
    type: Any
    default: Any
    meta: Mapping[str, Any]

    @property
    def env(self) -> str:
        """Return its name in the environment: KNOWME_ENGINE_KIND."""
        return "KNOWME_" + re.sub("[.-]", "_", self.key).upper()

    @property
    def secret(self) -> bool:
        """Say whether its value must never be shown."""
        return bool(self.meta.get("secret"))

    @property
    def legal(self) -> list[str]:
        """Return the legal words, empty where any value of the type will do."""
        if kind := self.meta.get("plugins"):
            return [*self.meta.get("also", ()), *plugins.names(kind)]
        return list(self.meta.get("choices") or self.meta.get("words") or ())


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
    """Return every setting but those in LISTS, by its key, in the order of declaration."""
    return {spec.key: spec for spec in _declared(Settings)}


@cache
def source_specs() -> Mapping[str, Spec]:
    """Return the settings of one source, by name."""
    return {spec.key[1:]: spec for spec in _declared(SourceSettings, ".")}


@cache
def rule_specs() -> Mapping[str, Spec]:
    """Return the settings of one rule of routing, by name."""
    return {spec.key[1:]: spec for spec in _declared(RuleSettings, ".")}


@cache
def model_specs(role: str) -> Mapping[str, Spec]:
    """Return the settings of the model of this role, by name; their keys are models.ROLE.NAME."""
    declared = _declared(ModelSettings, f"models.{role}.")
    found = {spec.key.rpartition(".")[2]: spec for spec in declared}
    return {name: spec for name, spec in found.items() if name != "role"}


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


def _duration(value: str) -> str:
    try:
        times.parse_duration(value)
    except ValueError:
        return "a length of time, such as 30s, 5m or 1h (a bare number is seconds)"
    return ""


def _age(text: str) -> str:
    return "" if re.fullmatch(r"[1-9]\d{0,4}[dwmy]", text) else "an age: 30d, 6w, 3m, 2y"


def _ages(value: Mapping[str, str]) -> str:
    return next((f"{_age(each)} ({name})" for name, each in value.items() if _age(each)), "")


SHAPES: Mapping[str, Any] = {
    "zone": _zone, "clock": _clock, "duration": _duration, "age": _age, "ages": _ages,
}  # fmt: skip
"""Shape -> a check that returns "" or what the value must be. An empty value always passes."""


def _guess(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}? " if near else ""


def unknown(what: str, word: str, known: Sequence[str], origin: str) -> ConfigError:
    """Return the error for a word that is not known, with a guess at what was meant."""
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
        value = _written_mapping(value)
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError
    return {str(name): word for name, word in value.items()}


def _written_mapping(text: str) -> Any:
    """Read ``{notes: allow}`` as YAML does, and ``notes=allow, other=deny``."""
    from knowme import configfile

    if text.strip().startswith("{"):
        return configfile.compose(text, "the value")
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in parts):
        raise ValueError
    return {name.strip(): word.strip() for name, _, word in parts}


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
        found = reader(_tristate(value) if "true" in spec.meta.get("choices", ()) else value)
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError, ConfigError):
        raise _refuse(spec, value, must, origin) from None
    _check(spec, found, origin)
    return found


def _tristate(value: Any) -> Any:
    """Write yes, no and their like as the words of a setting that is auto, true or false."""
    try:
        return "true" if _truth(value) else "false"
    except (KeyError, AttributeError):
        return value


def _check(spec: Spec, value: Any, origin: str) -> None:
    meta, called = spec.meta, f"{spec.key.lstrip('.')} called"
    if kind := meta.get("plugins"):
        # Built-ins first: looking through the installed packages costs 30 ms.
        if value not in plugins.BUILTIN[kind] and value not in spec.legal:
            raise unknown(called, value, spec.legal, origin)
    elif "choices" in meta and value not in meta["choices"]:
        raise unknown(called, value, spec.legal, origin)
    for word in value if "words" in meta else ():
        if word not in meta["words"]:
            raise unknown(called, word, spec.legal, origin)
    for name, word in value.items() if "values" in meta else ():
        if word not in meta["values"]:
            raise unknown(f"{spec.key}.{name} called", word, list(meta["values"]), origin)
    _check_extent(spec, value, origin)


def _check_extent(spec: Spec, value: Any, origin: str) -> None:
    meta = spec.meta
    if "minimum" in meta and value < meta["minimum"]:
        raise _refuse(spec, value, f"at least {meta['minimum']}", origin)
    if "maximum" in meta and value > meta["maximum"]:
        raise _refuse(spec, value, f"at most {meta['maximum']}", origin)
    if value and (shape := meta.get("shape")) and (must := SHAPES[shape](value)):
        raise _refuse(spec, value, must, origin)


# --- the layers ---------------------------------------------------------------------------------

Layer = dict[str, tuple[Any, str]]
"""Key -> (checked value, origin). ``sources`` and ``routing.rules`` hold whole tuples, and
``routing.rules[0]`` a rule's origin; a model is its keys: ``models.ROLE.role``, ``.engine`` ..."""

ROLE = re.compile(r"[a-z0-9][a-z0-9_-]*")
TAKEN = {
    "local": "`/local` in a message means any model of this machine",
    "knowme": "it is what clients call knowme itself",
}
"""Names that no role may have, each with its reason."""

EDIT = {
    "sources": f"Run: knowme config add KIND PATH, or edit {FILE}",
    "models": "Name a role and a key, such as: knowme config set models.cloud.model NAME",
    "routing.rules": f"Write them into {FILE} (where it is: knowme config path), under routing:, "
    "such as: rules: [{pattern: 'python|sql', model: code}]",
}
"""Setting that is more than one value -> how it is edited."""

_EXAMPLES = {
    "source": "Such as: - {kind: markdown, path: ~/notes}. Or run: knowme config add KIND PATH",
    "rule": "Such as: - {pattern: 'python|sql', model: code}",
    "model": "Such as: cloud: {engine: openai, model: NAME, url: 'https://...'}",
}


def known(key: str, origin: str = "config") -> Spec:
    """Return the setting called ``key``: engine.kind, models.ROLE.engine, privacy.sources.NAME.

    Raises ConfigError with the legal names.
    """
    if spec := specs().get(key):
        return spec
    if key.partition("[")[0] in LISTS:
        raise ConfigError(f"{origin}: {key} is not one value.", EDIT[key.partition("[")[0]])
    section, dot, name = key.partition(".")
    if section == "models":
        return _known_of_model(name, origin)
    for spec in specs().values():
        if spec.type is dict and key.startswith(f"{spec.key}."):
            legal = spec.meta.get("values")
            more = {"choices": legal} if legal else {"shape": spec.meta["shape"].removesuffix("s")}
            return Spec(key, str, "", {"help": spec.meta["help"], **more})
    if dot and section in sections():
        names = [
            each.split(".")[1] for each in [*specs(), *LISTS] if each.startswith(f"{section}.")
        ]
        raise unknown(f"setting in {section} called", name, names, origin)
    if section == "llm":
        raise ConfigError(
            f"{origin}: llm is how other programs write their settings: it is read, never written.",
            f"Set our own, which win. {EDIT['models']}",
        )
    if dot:
        raise unknown("section", section, ["sources", "models", *sections()], origin)
    tops = [each for each in specs() if "." not in each]
    raise unknown("setting", key, [*tops, "sources", "models", *sections(), "llm"], origin)


def _known_of_model(name: str, origin: str) -> Spec:
    role, dot, key = name.partition(".")
    check_role(role, origin)
    if not dot:
        raise ConfigError(f"{origin}: models.{role} is not one value.", EDIT["models"])
    legal = model_specs(role)
    if key not in legal:
        raise unknown(f"setting of models.{role} called", key, list(legal), origin)
    return legal[key]


def check_role(role: str, origin: str) -> None:
    """Raise ConfigError where a model cannot have this role's name."""
    if role in TAKEN:
        raise ConfigError(
            f"{origin}: no role can be called {role!r}: {TAKEN[role]}.", "Choose another name."
        )
    if not ROLE.fullmatch(role):
        raise ConfigError(
            f"{origin}: a role cannot be called {role!r}.",
            "Use small letters, digits, - and _, such as: primary, code, fast, vision, cloud.",
        )


class Lined(dict[str, Any]):
    """A mapping of the file that knows where it stands, and where each of its keys does."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.lines: dict[str, str] = {}


def pairs(value: Any, origin: str, where: str) -> Iterator[tuple[str, Any, str]]:
    """Yield (key, value, origin) of a mapping; nothing for None. Raises ConfigError."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{origin}: {where} must hold `key: value` lines, not {value!r}.",
            "`knowme config show` lists every setting.",
        )
    for key, each in value.items():
        yield str(key), each, value.lines[key] if isinstance(value, Lined) else origin


def parse_yaml(text: str, name: str = FILE) -> Layer:
    """Read the text of a config.yaml. Raises ConfigError with the line."""
    from knowme import configfile

    layer: Layer = {}
    tree = list(pairs(configfile.compose(text, name), f"{name}:1", "the file"))
    for key, value, origin in tree:
        if key == "llm":
            _take_llm(layer, value, origin)
    ours: Layer = {}
    for key, value, origin in tree:
        if key != "llm":
            _take(ours, key, value, origin)
    for key in ours:
        if re.fullmatch(
            r"models\..*\.engine", key
        ):  # the server of another engine is no server of this one
            layer.pop(f"{key.removesuffix('.engine')}.url", None)
    return layer | ours


def _take_llm(layer: Layer, value: Any, origin: str) -> None:
    from knowme import legacy

    for key, raw, at in legacy.translate(value, origin):
        _take(layer, key, raw, at)


def _take(layer: Layer, key: str, value: Any, origin: str) -> None:
    """Check one setting, or all of a section, and lay it down. None leaves what is there."""
    if reader := _LIST_READERS.get(key):
        reader(layer, value, origin)
    elif key in sections():
        for name, each, at in pairs(value, origin, key):
            _take(layer, f"{key}.{name}", each, at)
    else:
        spec = known(key, origin)
        if value is None:
            return
        found = read_value(spec, value, origin)
        if spec.key.startswith("models."):
            role = spec.key.split(".")[1]
            layer.setdefault(f"models.{role}.role", (role, origin))
        elif spec.key not in specs():  # one name of a mapping
            parent = max((each for each in specs() if key.startswith(f"{each}.")), key=len)
            found = {**layer.get(parent, ({}, ""))[0], key.removeprefix(f"{parent}."): found}
            key = parent
        layer[key] = (found, origin)


def _take_sources(layer: Layer, value: Any, origin: str) -> None:
    found: list[SourceSettings] = []
    for at, each in _members("sources", value, origin):
        source = SourceSettings(**_member("source", source_specs(), ("kind", "path"), each, at))
        source = replace(source, name=source.name or source.kind)
        if source.name in {other.name for other in found}:
            raise ConfigError(
                f"{at}: two sources are called {source.name!r}.",
                "Give one of them a `name:` of its own.",
            )
        found.append(source)
    layer["sources"] = (tuple(found), origin)


def _take_rules(layer: Layer, value: Any, origin: str) -> None:
    found: list[RuleSettings] = []
    for at, each in _members("routing.rules", value, origin):
        rule = RuleSettings(**_member("rule", rule_specs(), ("pattern", "model"), each, at))
        layer[f"routing.rules[{len(found)}]"] = (None, at)
        found.append(rule)
    layer["routing.rules"] = (tuple(found), origin)


def _take_models(layer: Layer, value: Any, origin: str) -> None:
    if isinstance(value, tuple):
        value = {each.role: each for each in value}
    for role, given, at in pairs(value, origin, "models"):
        check_role(role, at)
        if isinstance(given, ModelSettings):
            given = {name: getattr(given, name) for name in model_specs(role)}
        if given is None:
            continue
        if not isinstance(given, Mapping):
            told = f"{at}: models.{role} must hold `key: value` lines, not {given!r}."
            raise ConfigError(told, _EXAMPLES["model"])
        layer.setdefault(f"models.{role}.role", (role, at))
        for name, each, line in pairs(given, at, f"models.{role}"):
            _take(layer, f"models.{role}.{name}", each, line)


_LIST_READERS = {
    "sources": _take_sources,
    "models": _take_models,
    "routing.rules": _take_rules,
}


def _members(key: str, value: Any, origin: str) -> Iterator[tuple[str, Any]]:
    """Yield (origin, value) of each member of a list of mappings."""
    if value is None:
        return
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{origin}: {key} is {value!r}, but it must be a list.", EDIT[key])
    for index, each in enumerate(value):
        yield each.origin if isinstance(each, Lined) else f"{origin}, {key}[{index}]", each


def _member(
    what: str, legal: Mapping[str, Spec], needed: Sequence[str], value: Any, origin: str
) -> dict[str, Any]:
    """Return the checked settings of one source or one rule."""
    if isinstance(value, (SourceSettings, RuleSettings)):
        value = {name: getattr(value, name) for name in legal}
    if not isinstance(value, Mapping):
        must = " and ".join(f"{name}:" for name in needed)
        raise ConfigError(f"{origin}: a {what} needs {must}, not {value!r}.", _EXAMPLES[what])
    given: dict[str, Any] = {}
    for key, raw, at in pairs(value, origin, f"a {what}"):
        if key not in legal:
            raise unknown(f"setting of a {what} called", key, list(legal), at)
        if raw is not None:
            given[key] = read_value(legal[key], raw, at)
    for key in needed:
        if not given.get(key):
            raise ConfigError(f"{origin}: a {what} needs {key}:.", _EXAMPLES[what])
    return given


def roles(layer: Layer) -> list[str]:
    """Return the roles that have a model in this layer, in order."""
    return [value for key, (value, _) in layer.items() if re.fullmatch(r"models\.[^.]+\.role", key)]


def check_whole(layer: Layer) -> None:
    """Raise ConfigError where settings name models that are not there, or two share a name."""
    here = roles(layer)
    if not here:
        return  # the one model is that of `engine`: what rules say waits for models
    shared: dict[str, str] = {}
    for role in here:
        other = shared.setdefault(role.replace("-", "_"), role)
        if other != role:
            raise ConfigError(
                f"{layer[f'models.{role}.role'][1]}: the roles {other} and {role} have the same "
                f"name in the environment ({model_specs(role)['api_key'].env}).",
                "Rename one of them.",
            )
    called = [layer.get(f"models.{role}.model", ("", ""))[0] for role in here]
    if "primary" not in here:
        here, called = ["primary", *here], [layer.get("engine.model", ("", ""))[0], *called]
    legal = list(dict.fromkeys([*here, *filter(None, called)]))
    for index, rule in enumerate(layer.get("routing.rules", ((), ""))[0]):
        if rule.model not in legal:
            origin = layer[f"routing.rules[{index}]"][1]
            raise unknown("model for this rule called", rule.model, legal, origin)
    fallback, origin = layer.get("routing.fallback", ((), ""))
    for role in fallback:
        if role not in legal:
            raise unknown("model for routing.fallback called", role, legal, origin)


def _environment(
    layer: Layer, given: Mapping[str, tuple[str, str]], roles: Sequence[str], dotenv: bool
) -> None:
    """Lay down the KNOWME_* names; every other name is none of our business."""
    declared = [*specs().values(), *(spec for role in roles for spec in model_specs(role).values())]
    by_env = {spec.env: spec for spec in declared}
    for name, (value, origin) in given.items():
        if not name.startswith("KNOWME_"):
            continue
        if spec := by_env.get(name):
            _take(layer, spec.key, value, origin)
        elif name in RESERVED and dotenv:
            raise ConfigError(
                f"{origin}: {name} ({RESERVED[name]}) is read before this file is.",
                f"Set it in the environment instead: export {name}=...",
            )
        elif name not in RESERVED and (dotenv or _meant(name, by_env, roles)):
            raise _stray(name, by_env, roles, origin)


def _meant(name: str, known: Mapping[str, Spec], roles: Sequence[str]) -> bool:
    """Say whether a stray KNOWME_* name in the process's environment was meant as a setting.

    The key of a model that this home has not may well be another home's.
    """
    section = name.split("_")[1].lower()
    if section == "models":
        return name.startswith(_of_models(roles))
    return section in sections() or bool(get_close_matches(name, list(known), n=1, cutoff=0.85))


def _stray(name: str, known: Mapping[str, Spec], roles: Sequence[str], origin: str) -> ConfigError:
    owners = _of_models(roles)
    if not name.startswith("KNOWME_MODELS_") or (roles and name.startswith(owners)):
        return unknown("setting called", name, _nearest(name, known), origin)
    return ConfigError(
        f"{origin}: {name} is for a model that is not in {FILE} ({', '.join(roles) or 'none is'}).",
        "Mend its name, or remove the line. A model is added with: "
        "knowme config set models.ROLE.model NAME",
    )


def _of_models(roles: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"KNOWME_MODELS_{role.replace('-', '_').upper()}_" for role in roles)


def _nearest(name: str, known: Mapping[str, Spec]) -> list[str]:
    return get_close_matches(name, list(known), n=6, cutoff=0.5) or sorted(known)


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
        settings, origins = self.settings, self.origins
        lists: dict[str, list[tuple[str, Any, str]]] = {key: [] for key in LISTS}
        for index, source in enumerate(settings.sources):
            where = origins.get("sources", "default")
            for name in source_specs():
                lists["sources"].append((f"sources[{index}].{name}", getattr(source, name), where))
        for model in settings.models:
            for name, spec in model_specs(model.role).items():
                where = origins.get(spec.key, "default")
                lists["models"].append((spec.key, _shown(spec, getattr(model, name)), where))
        for index, rule in enumerate(settings.routing.rules):
            key = f"routing.rules[{index}]"
            where = origins.get(key, "default")
            lists["routing.rules"] += [
                (f"{key}.{name}", getattr(rule, name), where) for name in rule_specs()
            ]
        rows: dict[str, list[tuple[str, Any, str]]] = {}
        for key, spec in specs().items():
            section, _, name = key.rpartition(".")
            value = getattr(getattr(settings, section) if section else settings, name)
            rows.setdefault(section, []).append(
                (key, _shown(spec, value), origins.get(key, "default"))
            )
        for key, found in lists.items():
            section = key.rpartition(".")[0]
            found = found or [(key, (), origins.get(key, "default"))]
            rows[section] = [*rows[section], *found] if not section else [*found, *rows[section]]
        return [row for found in rows.values() for row in found]


def _shown(spec: Spec, value: Any) -> Any:
    if spec.secret:
        return "set" if value else "not set"
    return re.sub(r"(://)[^/@\s]+@", r"\1***@", value) if spec.type is str else value


def load(
    home: Path,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Merge default <- config.yaml <- .env <- environment <- flags, each value checked.

    ``overrides`` maps keys (``engine.kind``, or nested mappings) to values, ``None`` meaning not
    given; an empty ``models`` takes all models away. Raises ConfigError naming the origin, the
    value and the legal ones.
    """
    from knowme import configfile

    environ = os.environ if environ is None else environ
    dotenv = configfile.parse_dotenv(configfile.read_text(home / DOTENV))
    outer = {name: (value, f"environment {name}") for name, value in environ.items()}
    layer, flags = parse_yaml(configfile.read_text(home / FILE)), Layer()
    for key, value in (overrides or {}).items():
        _take(flags, key, value, "flag")
    named = list(dict.fromkeys([*roles(layer), *roles(flags)]))
    _environment(layer, dotenv, named, dotenv=True)
    _environment(layer, outer, named, dotenv=False)
    for key, value in (overrides or {}).items():
        _take(layer, key, value, "flag")
    if (overrides or {}).get("models") == {}:
        layer = {key: value for key, value in layer.items() if not key.startswith("models.")}
    check_whole(layer)
    _provider_keys(layer, {**dotenv, **outer})
    _keep_primary(layer)
    return Config(home, _build(layer, home), {key: origin for key, (_, origin) in layer.items()})


def _provider_keys(layer: Layer, given: Mapping[str, tuple[str, str]]) -> None:
    """Let a provider's well-known key stand in, for that provider's own servers only."""
    from urllib.parse import urlsplit

    speaks: dict[str, tuple[str, ...]] = {"engine.kind": ("openai",), "embedder.kind": ("openai",)}
    speaks |= {f"models.{role}.engine": ("openai", "auto") for role in roles(layer)}
    for key, kinds in speaks.items():
        holder = key.rpartition(".")[0]
        if (
            layer.get(key, ("auto", ""))[0] not in kinds
            or layer.get(f"{holder}.api_key", ("", ""))[0]
        ):
            continue
        url = urlsplit(layer.get(f"{holder}.url", ("", ""))[0])
        for variable, domain in PROVIDERS.items():
            host = url.hostname or ""
            ours = url.scheme == "https" and (host == domain or host.endswith(f".{domain}"))
            if ours and given.get(variable, ("", ""))[0]:
                layer[f"{holder}.api_key"] = given[variable]


def _keep_primary(layer: Layer) -> None:
    """Make `engine` the primary model where the models name none, or say nothing of which.

    Else one who adds a cloud model beside the local one would find every message going there, and
    one who sets models.primary.residency would lose the model that is set in `engine`.
    """
    named = ("engine", "model", "url")
    if not roles(layer) or any(f"models.primary.{name}" in layer for name in named):
        return
    kept: Layer = {"models.primary.role": ("primary", "engine")}
    for name, ours in {"engine": "kind", "model": "model", "url": "url", "api_key": "api_key",
                       "think": "think"}.items():  # fmt: skip
        if f"engine.{ours}" in layer:
            kept[f"models.primary.{name}"] = layer[f"engine.{ours}"]
    others = dict(layer)
    layer.clear()
    layer |= kept | others


def _absolute(path: str, home: Path) -> str:
    try:
        return str(home / Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"sources: {path!r}: {error}", "Write the path in full.") from error


def _build(layer: Layer, home: Path) -> Settings:
    parts: dict[str, dict[str, Any]] = {"": {}}
    for key, (value, _) in layer.items():
        section, _, name = key.rpartition(".")
        if not key.endswith("]"):
            parts.setdefault(section, {})[name] = value
    top = parts.pop("")
    top["sources"] = tuple(
        replace(each, path=_absolute(each.path, home)) for each in top.get("sources", ())
    )
    top["models"] = tuple(ModelSettings(**parts[f"models.{role}"]) for role in roles(layer))
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
