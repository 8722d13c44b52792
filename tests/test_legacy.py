"""The `llm:` shape of an existing installation, read as it stands."""

import pytest

from knowme import config, legacy
from knowme.config import load
from knowme.errors import ConfigError
from knowme.settings import ModelSettings, RuleSettings, Settings

EXISTING = """\
llm:
  provider: ollama
  base_url: http://127.0.0.1:11434/v1
  timeout: 90s
  temperature: 0.7
  max_tokens: 1024
  models:
    primary: qwen3:4b
    code:
      name: qwen2.5-coder:7b
      context_length: 8192
    fast: {model: qwen3:0.6b, num_ctx: 2048}
  cache:
    type: ssd
    max_models: 3
    eviction: lru
  routing:
    rules:
      - pattern: 'python|sql'
        model: code
      - {pattern: '^hi', model: qwen3:0.6b}
"""


def written(home, yaml):
    (home / "config.yaml").write_text(yaml, encoding="utf-8")
    return load(home, environ={})


def refused(home, yaml) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        written(home, yaml)
    return caught.value


def test_an_existing_installation_is_read_as_it_stands(tmp_path):
    settings = written(tmp_path, EXISTING).settings
    shared = {"engine": "ollama", "url": "http://127.0.0.1:11434"}
    assert settings.models == (
        ModelSettings("primary", model="qwen3:4b", **shared),
        ModelSettings("code", model="qwen2.5-coder:7b", context_tokens=8192, **shared),
        ModelSettings("fast", model="qwen3:0.6b", context_tokens=2048, **shared),
    )
    assert (settings.residency.cache, settings.residency.max_models) == ("ssd", 3)
    assert settings.routing.rules == (
        RuleSettings("python|sql", "code"),
        RuleSettings("^hi", "qwen3:0.6b"),
    )
    engine = settings.engine
    assert (engine.timeout_seconds, engine.temperature, engine.max_tokens) == (90.0, 0.7, 1024)
    assert (engine.kind, engine.model, engine.url) == ("auto", "", ""), "primary serves for it"


def test_every_value_says_on_which_line_of_llm_it_stands(tmp_path):
    rows = {key: where for key, _, where in written(tmp_path, EXISTING).provenance()}
    assert rows["models.primary.model"] == "config.yaml:8 (llm)"
    assert rows["models.primary.engine"] == "config.yaml:2 (llm)"
    assert rows["models.code.context_tokens"] == "config.yaml:11 (llm)"
    assert rows["models.fast.url"] == "config.yaml:3 (llm)"
    assert rows["residency.cache"] == "config.yaml:14 (llm)"
    assert rows["routing.rules[0].pattern"] == "config.yaml:19 (llm)"
    assert rows["routing.rules[1].model"] == "config.yaml:21 (llm)"
    assert rows["engine.timeout_seconds"] == "config.yaml:4 (llm)"
    assert rows["residency.memory_mb"] == "default"


@pytest.mark.parametrize("first", [True, False])
def test_our_own_settings_win_wherever_they_stand(tmp_path, first):
    ours = (
        "models:\n  primary: {model: mine, residency: always}\n  cloud: {engine: openai}\n"
        "residency: {cache: ram}\nengine: {temperature: 0}\n"
        "routing: {rules: [{pattern: z, model: cloud}]}\n"
    )
    loaded = written(tmp_path, ours + EXISTING if first else EXISTING + ours)
    settings = loaded.settings
    by_role = {model.role: model for model in settings.models}
    assert set(by_role) == {"primary", "code", "fast", "cloud"}
    primary = by_role["primary"]
    assert (primary.engine, primary.model, primary.residency) == ("ollama", "mine", "always")
    assert primary.url == "http://127.0.0.1:11434"
    assert by_role["code"].model == "qwen2.5-coder:7b"
    assert (settings.residency.cache, settings.residency.max_models) == ("ram", 3)
    assert settings.engine.temperature == 0.0 and settings.engine.max_tokens == 1024
    assert settings.routing.rules == (RuleSettings("z", "cloud"),)


def test_a_model_that_we_give_another_engine_does_not_keep_the_server_of_llm(tmp_path):
    settings = written(tmp_path, EXISTING + "models: {primary: {engine: llamacpp}}\n").settings
    assert (settings.models[0].engine, settings.models[0].url) == ("llamacpp", "")
    assert settings.models[0].model == "qwen3:4b"


@pytest.mark.parametrize(
    ("provider", "given", "engine", "url"),
    [
        ("ollama", "http://h:1", "ollama", "http://h:1"),
        ("ollama", "http://h:1/", "ollama", "http://h:1"),
        ("ollama", "http://h:1/v1/", "ollama", "http://h:1"),
        ("Ollama", "http://h:1/api", "ollama", "http://h:1"),
        ("ollama", "http://h:1/proxy/v1", "ollama", "http://h:1/proxy"),
        ("openai", "https://h/v1", "openai", "https://h/v1"),
        ("openai_compatible", "http://h:1/v1", "openai", "http://h:1/v1"),
        ("llamacpp", "", "llamacpp", ""),
        ("llama.cpp", "http://h:1/v1", "openai", "http://h:1/v1"),
        ("echo", "", "echo", ""),
    ],
)
def test_provider_and_address_become_engine_and_url(tmp_path, provider, given, engine, url):
    base = f"  base_url: {given}\n" if given else ""
    settings = written(
        tmp_path, f"llm:\n  provider: {provider}\n{base}  models: {{primary: m}}\n"
    ).settings
    assert [(model.engine, model.url) for model in settings.models] == [(engine, url)]


def test_a_key_of_llm_is_a_secret_of_every_model(tmp_path):
    yaml = "llm: {provider: openai, api_key: sk-very-secret, models: {primary: a, fast: b}}"
    loaded = written(tmp_path, yaml)
    assert [model.api_key for model in loaded.settings.models] == ["sk-very-secret"] * 2
    assert "very-secret" not in repr(loaded) + str(loaded.provenance())


def test_without_models_the_server_is_that_of_engine(tmp_path):
    settings = written(tmp_path, "llm: {provider: ollama, base_url: 'http://h:1/v1'}").settings
    assert settings.models == ()
    assert (settings.engine.kind, settings.engine.url) == ("ollama", "http://h:1")


@pytest.mark.parametrize("yaml", ["llm:", "llm: {}", "llm:\n  models:\n  cache:\n  routing:\n"])
def test_an_empty_llm_changes_nothing(tmp_path, yaml):
    assert written(tmp_path, yaml).settings == Settings()


@pytest.mark.parametrize(
    ("yaml", "message", "hint"),
    [
        ("llm: x", "config.yaml:1: llm must hold", ""),
        ("llm:\n  provider: olama", "config.yaml:2 (llm): there is no provider 'olama'", "ollama"),
        ("llm:\n  modles: {}", "config.yaml:2 (llm): there is no setting in llm", "'models'"),
        ("llm: {models: [a]}", "llm.models must hold", ""),
        ("llm: {models: {primary: [a]}}", "llm.models.primary is ['a']", "context_length"),
        ("llm: {models: {local: a}}", "no role can be called 'local'", "another"),
        ("llm: {models: {a: {nmae: b}}}", "in llm.models.a called 'nmae'", "'name'"),
        ("llm: {models: {a: {name: b, context: much}}}", "a whole number", ""),
        ("llm: {cache: {type: disk}}", "residency.cache called 'disk'", "ram, ssd, none"),
        ("llm: {cache: {max_models: -1}}", "at least 0", ""),
        ("llm:\n  cache:\n    eviction: fifo", "config.yaml:3 (llm): llm.cache.eviction", "lru"),
        ("llm: {cache: {evict: lru}}", "in llm.cache called 'evict'", "'eviction'"),
        ("llm: {routing: {rule: []}}", "in llm.routing called 'rule'", "'rules'"),
        ("llm: {routing: {rules: x}}", "routing.rules is 'x'", "pattern"),
        ("llm: {routing: {rules: [{pattern: x}]}}", "a rule needs model:", "pattern"),
        (
            "llm:\n  models: {primary: m}\n  routing:\n    rules:\n    - {pattern: x, model: cod}",
            "config.yaml:5 (llm): there is no model for this rule called 'cod'",
            "primary, m",
        ),
        ("llm: {timeout: soon}", "engine.timeout_seconds is 'soon'", ""),
        ("llm: {temperature: warm}", "a number", ""),
    ],
)
def test_what_is_wrong_in_llm_is_refused_by_its_line(tmp_path, yaml, message, hint):
    error = refused(tmp_path, yaml)
    assert message in error.message and hint in error.hint
    assert error.message.startswith("config.yaml:")


def test_setting_a_key_of_ours_leaves_llm_as_it_is_and_wins(tmp_path):
    (tmp_path / "config.yaml").write_text(EXISTING)
    config.set_value(tmp_path, "models.code.model", "mine")
    config.set_value(tmp_path, "residency.max_models", "1")
    assert (tmp_path / "config.yaml").read_text().startswith(EXISTING)
    settings = load(tmp_path, environ={}).settings
    assert {model.role: model.model for model in settings.models}["code"] == "mine"
    assert settings.residency.max_models == 1


def test_every_key_that_becomes_a_setting_becomes_one_that_exists():
    for key in (*legacy.ENGINE.values(), *legacy.CACHE.values()):
        assert key in config.specs() or not key
    assert set(legacy.MODEL.values()) <= set(config.model_specs("x"))
    assert set(legacy.ROUTING.values()) <= set(config.LISTS)
