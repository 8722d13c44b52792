"""Settings: the layers, what is refused and how, and edits that keep every comment."""

import dataclasses
import difflib
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme import config, configfile, times
from knowme.cli import run
from knowme.config import load
from knowme.errors import ConfigError
from knowme.settings import (
    POLICIES,
    ModelSettings,
    RuleSettings,
    Settings,
    SourceSettings,
)


def write(home, yaml="", dotenv=""):
    (home / "config.yaml").write_text(yaml, encoding="utf-8")
    (home / ".env").write_text(dotenv, encoding="utf-8")
    return home


def refused(home, environ=None, overrides=None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(home, overrides, environ or {})
    return caught.value


def origin(loaded, key):
    return {row[0]: row[2] for row in loaded.provenance()}[key]


def test_an_empty_home_has_the_defaults(tmp_path):
    loaded = load(tmp_path, environ={})
    assert loaded.settings == Settings()
    assert {row[2] for row in loaded.provenance()} == {"default"}


def test_the_file_that_init_writes_changes_no_default_and_names_every_setting(tmp_path):
    text = config.render_yaml()
    write(tmp_path, text)
    assert load(tmp_path, environ={}).settings == Settings()
    for spec in config.specs().values():
        assert f"# {spec.key.rpartition('.')[2]}" in text
        assert spec.meta["help"].split()[0] in text


def test_every_commented_default_is_legal_and_equal_to_the_default(tmp_path):
    lines = []
    for line in config.render_yaml().splitlines():
        name = line.strip().removeprefix("# ").split(":")[0]
        is_default = line.strip().startswith("# ") and any(
            spec.key.rpartition(".")[2] == name for spec in config.specs().values()
        )
        lines.append(line.replace("# ", "", 1) if is_default and ":" in line else line)
    text = "\n".join(lines)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("  full:"))
    write(tmp_path, text)
    loaded = load(tmp_path, environ={})
    assert loaded.settings == Settings()
    assert origin(loaded, "engine.kind").startswith("config.yaml:")


def test_each_layer_beats_the_one_before_and_says_so(tmp_path):
    write(tmp_path, "name: Ana\nengine:\n  kind: ollama\n")
    env = {"KNOWME_ENGINE_KIND": "llamacpp"}
    assert origin(load(tmp_path, environ={}), "engine.kind") == "config.yaml:3"
    write(tmp_path, "name: Ana\nengine:\n  kind: ollama\n", "\nKNOWME_ENGINE_KIND=openai\n")
    assert load(tmp_path, environ={}).settings.engine.kind == "openai"
    assert origin(load(tmp_path, environ={}), "engine.kind") == ".env:2"
    assert load(tmp_path, environ=env).settings.engine.kind == "llamacpp"
    assert origin(load(tmp_path, environ=env), "engine.kind") == "environment KNOWME_ENGINE_KIND"
    flagged = load(tmp_path, {"engine.kind": "echo", "engine.model": None}, env)
    assert flagged.settings.engine.kind == "echo"
    assert origin(flagged, "engine.kind") == "flag"
    assert origin(flagged, "name") == "config.yaml:1"


def test_a_wrong_key_is_refused_with_the_legal_ones_and_a_guess(tmp_path):
    error = refused(write(tmp_path, "engine:\n  modle: x\n"))
    assert "config.yaml:2" in error.message and "'modle'" in error.message
    assert "Did you mean 'model'?" in error.hint and "temperature" in error.hint


def test_an_unknown_section_is_refused_with_the_legal_ones(tmp_path):
    error = refused(write(tmp_path, "engines:\n  kind: echo\n"))
    assert "'engines'" in error.message
    assert "Did you mean 'engine'?" in error.hint and "embedder" in error.hint
    error = refused(tmp_path / "none", overrides={"engin.kind": "echo"})
    assert "no section 'engin'" in error.message and "'engine'" in error.hint


def test_a_wrong_backend_is_refused_with_the_legal_ones(tmp_path):
    error = refused(write(tmp_path, "engine:\n  kind: olama\n"))
    assert "config.yaml:2" in error.message and "'olama'" in error.message
    assert "Did you mean 'ollama'?" in error.hint
    for legal in ("auto", "echo", "llamacpp", "openai"):
        assert legal in error.hint


@pytest.mark.parametrize(
    ("yaml", "must"),
    [
        ("service: {port: eighty}", "a whole number"),
        ("service: {port: 80.5}", "a whole number"),
        ("service: {port: true}", "a whole number"),
        ("service: {port: 70000}", "at most 65535"),
        ("search: {top_k: 0}", "at least 1"),
        ("engine: {think: maybe}", "true or false"),
        ("engine: {think: 2}", "true or false"),
        ("engine: {temperature: warm}", "a number"),
        ("engine: {temperature: .nan}", "a number"),
        ("engine: {temperature: -1}", "at least 0"),
        ("engine: {model: [a]}", "text"),
        ("service: {allowed_hosts: {a: b}}", "a list of words"),
        ("memory: {timezone: Mars/Olympus}", "a time zone"),
        ("jobs: {sync_at: 25:00}", "HH:MM"),
        ("jobs: {sync_at: 3:30}", "HH:MM"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_must_be(tmp_path, yaml, must):
    error = refused(write(tmp_path, yaml))
    assert must in error.message and "config.yaml:1" in error.message


def test_values_are_read_as_written_not_as_yaml_guesses(tmp_path):
    write(tmp_path, "name: no\nengine: {model: 1.50}\njobs: {sync_at: 13:30, backup_at: ''}\n")
    settings = load(tmp_path, environ={}).settings
    assert settings.name == "no"
    assert settings.engine.model == "1.50"
    assert (settings.jobs.sync_at, settings.jobs.backup_at) == ("13:30", "")


@pytest.mark.parametrize("word", ["yes", "on", "true", "True", "1"])
def test_the_usual_words_are_true(tmp_path, word):
    assert load(tmp_path, environ={"KNOWME_ENGINE_THINK": word}).settings.engine.think is True


def test_a_list_comes_from_yaml_or_with_commas_from_the_environment(tmp_path):
    write(tmp_path, "service:\n  allowed_hosts:\n    - a.test\n    - b.test\n")
    assert load(tmp_path, environ={}).settings.service.allowed_hosts == ("a.test", "b.test")
    env = {"KNOWME_SERVICE_ALLOWED_HOSTS": "c.test, d.test"}
    assert load(tmp_path, environ=env).settings.service.allowed_hosts == ("c.test", "d.test")


def test_sources_are_a_list_with_whole_paths_and_distinct_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ana")
    write(
        tmp_path,
        "sources:\n- kind: openclaw\n  path: ~/.openclaw\n- {kind: markdown, path: notes,"
        " name: mine, enabled: no}\n",
    )
    loaded = load(tmp_path, environ={})
    assert loaded.settings.sources == (
        SourceSettings("openclaw", "/home/ana/.openclaw", "openclaw", True),
        SourceSettings("markdown", str(tmp_path / "notes"), "mine", False),
    )
    assert ("sources[1].name", "mine", "config.yaml:1") in loaded.provenance()


@pytest.mark.parametrize(
    ("yaml", "what"),
    [
        ("sources: ~/notes", "must be a list"),
        ("sources:\n- ~/notes", "needs kind: and path:"),
        ("sources:\n- kind: markdown", "config.yaml:2: a source needs path:"),
        ("sources:\n- {kind: markdwon, path: x}", "'markdwon'"),
        ("sources:\n- {kind: markdown, paht: x}", "'paht'"),
        (
            "sources:\n- {kind: markdown, path: x}\n- {kind: markdown, path: y}",
            "two sources are called 'markdown'",
        ),
    ],
)
def test_a_wrong_source_is_refused(tmp_path, yaml, what):
    assert what in refused(write(tmp_path, yaml)).message


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        ("name: Ana\nengine: kind: echo\n", 2),
        ("engine:\n\tkind: echo\n", 2),
        ("name: 'Ana\n", 1),
        ("name: a\nname: b\n", 2),
        ("- a\n", 1),
        ("\nengine: echo\n", 2),
        ("a: b\n---\nc: d\n", 2),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line(tmp_path, yaml, line):
    message = refused(write(tmp_path, yaml)).message
    assert "config.yaml:" in message
    assert int(message.split(":")[1]) in (line, line + 1)


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"name: Jos\xe9\n")
    assert "byte 9 is not UTF-8" in refused(tmp_path).message


@given(st.binary(max_size=200))
def test_no_bytes_at_all_escape_as_anything_but_a_config_error(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("any")
    for name in ("config.yaml", ".env"):
        (home / name).write_bytes(data)
        try:
            load(home, environ={})
        except ConfigError as error:
            assert name in str(error) or "settings" in str(error)
        (home / name).unlink()


# --- .env and secrets ---------------------------------------------------------------------------


def test_dotenv_knows_quotes_comments_and_export():
    text = (
        "\ufeff# mine\r\n\nA=1\nexport B = two words  # why\nC='x # y\\n'\n"
        'D="q\\"\\n" # c\nE=\nF=a#b\nG=""\n'
    )
    found = {name: value for name, (value, _) in configfile.parse_dotenv(text).items()}
    assert found == {
        "A": "1",
        "B": "two words",
        "C": "x # y\\n",
        "D": 'q"\n',
        "E": "",
        "F": "a#b",
        "G": "",
    }


@pytest.mark.parametrize("line", ["secret-value", "A-B=secret-value", "A='secret-value"])
def test_a_bad_line_in_dotenv_is_named_but_never_printed(tmp_path, line):
    error = refused(write(tmp_path, "", f"# one\n{line}\n"))
    assert ".env:2" in error.message and "secret-value" not in str(error)


def test_other_programs_names_in_dotenv_are_left_alone(tmp_path):
    write(tmp_path, "", "PATH=/nowhere\nDATABASE_URL=postgres://x\n")
    assert load(tmp_path, environ={}).settings == Settings()
    assert os.environ["PATH"] != "/nowhere"


def test_a_misspelt_name_of_ours_is_refused(tmp_path):
    error = refused(write(tmp_path, "", "KNOWME_ENGINE_KID=echo\n"))
    assert ".env:1" in error.message and "KNOWME_ENGINE_KIND" in error.hint
    (tmp_path / ".env").unlink()
    error = refused(tmp_path, {"KNOWME_ENGINE_KID": "echo"})
    assert "KNOWME_ENGINE_KIND" in error.hint
    load(tmp_path, environ={"KNOWME_HOME": "/x", "KNOWME_MODELS": "/y", "KNOWME_WEATHER": "fine"})


def test_the_home_cannot_be_named_inside_the_home(tmp_path):
    error = refused(write(tmp_path, "", "KNOWME_HOME=/else\n"))
    assert "KNOWME_HOME" in error.message and "export KNOWME_HOME" in error.hint


def test_no_secret_is_shown_anywhere(tmp_path):
    write(
        tmp_path,
        "engine: {kind: openai, url: 'https://ana:hunter2@host.test/v1'}\n",
        "KNOWME_ENGINE_API_KEY=sk-very-secret\nKNOWME_SERVICE_TOKEN=tok-very-secret\n",
    )
    loaded = load(tmp_path, environ={})
    assert loaded.settings.engine.api_key == "sk-very-secret"
    shown = repr(loaded) + str(loaded.provenance())
    assert "very-secret" not in shown
    assert "hunter2" not in str(loaded.provenance())
    rows = {key: (value, where) for key, value, where in loaded.provenance()}
    assert rows["engine.api_key"] == ("set", ".env:1")
    assert rows["embedder.api_key"] == ("not set", "default")


def test_every_setting_that_sounds_secret_is_declared_secret():
    for spec in config.specs().values():
        name = spec.key.rpartition(".")[2]
        sounds = name.endswith("api_key") or name in ("token", "password", "secret")
        assert spec.secret == sounds, spec.key


def test_a_providers_key_goes_to_that_provider_only(tmp_path):
    env = {"OPENAI_API_KEY": "sk-o", "OPENROUTER_API_KEY": "sk-r"}

    def key(url, kind="openai"):
        write(tmp_path, f"engine: {{kind: {kind}, url: '{url}'}}")
        return load(tmp_path, environ=env).settings.engine.api_key

    assert key("https://api.openai.com/v1") == "sk-o"
    assert key("https://openrouter.ai/api/v1") == "sk-r"
    assert key("http://api.openai.com/v1") == ""  # not in clear text
    assert key("https://api.openai.com.evil.test/v1") == ""
    assert key("https://evilopenai.com/v1") == ""
    assert key("http://127.0.0.1:8080/v1") == ""
    assert key("https://api.openai.com/v1", "ollama") == ""


# --- edits --------------------------------------------------------------------------------------


def test_a_loaded_config_cannot_be_changed(tmp_path):
    loaded = load(tmp_path, environ={})
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.settings.engine.kind = "echo"
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.settings = Settings()


def test_set_changes_one_line_and_keeps_every_other(tmp_path):
    before = config.render_yaml()
    write(tmp_path, before)
    config.set_value(tmp_path, "engine.kind", "ollama")
    after = (tmp_path / "config.yaml").read_text()
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True)]
    assert [new for old, new in changed if old != new] == ["  kind: ollama"]
    assert load(tmp_path, environ={}).settings.engine.kind == "ollama"
    assert load(tmp_path, environ={}).settings.embedder.kind == "auto"
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "yaml",
    [
        "",
        "name: Ana",
        "engine:\n",
        "engine: # mine\n  # keep\n  kind: echo # why\n\n# tail\nname: x\n",
        "engine: {}\nname: x\n",
        "engine: {model: m, # keep\n  think: no}\nservice: {allowed_hosts: [a]} # why\n",
        "engine: ~ # keep\nservice: {}\n",
        "engine:\n    model: m # deep\n    # keep\nname: x",
        "# only comments\n",
        "service:\n  allowed_hosts:\n    - a\n    - b # keep\n# tail\nengine:\n  kind:\n",
    ],
)
def test_set_works_on_whatever_a_person_wrote(tmp_path, yaml):
    write(tmp_path, yaml)
    before = load(tmp_path, environ={}).settings
    comments = [part.split("\n")[0] for part in yaml.split("#")[1:]]
    config.set_value(tmp_path, "engine.kind", "ollama")
    config.set_value(tmp_path, "service.allowed_hosts", "x.test, y.test")
    config.set_value(tmp_path, "name", "Zoë: #1")
    after = load(tmp_path, environ={}).settings
    assert after.engine.kind == "ollama"
    assert after.engine.model == before.engine.model
    assert after.service.allowed_hosts == ("x.test", "y.test")
    assert after.name == "Zoë: #1"
    text = (tmp_path / "config.yaml").read_text()
    assert all(f"#{comment}" in text for comment in comments if comment)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_set_brings_back_any_text(tmp_path_factory, value):
    home = write(tmp_path_factory.mktemp("set"), config.render_yaml())
    config.set_value(home, "name", value)
    config.set_value(home, "engine.model", value)
    settings = load(home, environ={}).settings
    assert (settings.name, settings.engine.model) == (value, value)


def test_set_refuses_what_load_would_refuse_and_writes_nothing(tmp_path):
    write(tmp_path, "engine:\n  kind: echo\n")
    for key, value in [("engine.kind", "olama"), ("engine.kid", "x"), ("sources", "x")]:
        with pytest.raises(ConfigError):
            config.set_value(tmp_path, key, value)
    for yaml in (
        "engine: {model}\n",
        "engine: &e {model: m}\nsearch: *e\n",
        "{engine: {model: m}}",
    ):
        write(tmp_path, yaml)
        with pytest.raises(ConfigError):
            config.set_value(tmp_path, "engine.model", "other")
        assert (tmp_path / "config.yaml").read_text() == yaml
    write(tmp_path, "engine: &e {kind: echo}\nembedder: {kind: none}\nindex: {}\n...\n")
    with pytest.raises(ConfigError, match="Write this into it yourself: search.top_k: 3"):
        config.set_value(tmp_path, "search.top_k", "3")
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", ".env"}


def test_a_secret_is_written_to_dotenv_not_to_the_settings(tmp_path):
    write(tmp_path, config.render_yaml(), "# mine\nKNOWME_ENGINE_API_KEY=old\nOTHER=1\n")
    changed = config.set_value(tmp_path, "engine.api_key", 'a"b\\c$d')
    assert changed.name == ".env"
    assert (tmp_path / ".env").read_text().startswith("# mine\nKNOWME_ENGINE_API_KEY=")
    assert "OTHER=1" in (tmp_path / ".env").read_text()
    assert load(tmp_path, environ={}).settings.engine.api_key == 'a"b\\c$d'
    assert 'a"b' not in (tmp_path / "config.yaml").read_text()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


def test_a_linked_settings_file_stays_a_link(tmp_path):
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "k.yaml").write_text("name: Ana\n")
    (tmp_path / "config.yaml").symlink_to(tmp_path / "dotfiles" / "k.yaml")
    config.set_value(tmp_path, "name", "Bo")
    assert (tmp_path / "config.yaml").is_symlink()
    assert (tmp_path / "dotfiles" / "k.yaml").read_text() == "name: Bo\n"


@pytest.mark.parametrize(
    "yaml",
    [
        config.render_yaml(),
        "",
        "sources: []\nname: x\n",
        "name: x\nsources:\n- kind: knowme\n  path: /e # mine\n\n# tail\nengine:\n",
        "sources:\n    - {kind: knowme, path: /e}\n# tail\n",
    ],
)
def test_a_source_is_added_where_the_sources_are(tmp_path, yaml):
    write(tmp_path, yaml)
    before = load(tmp_path, environ={}).settings.sources
    configfile.add_source(tmp_path, SourceSettings("markdown", "/a b: #c"))
    configfile.add_source(tmp_path, SourceSettings("markdown", "/d"))
    assert load(tmp_path, environ={}).settings.sources == (
        *before,
        SourceSettings("markdown", "/a b: #c", "markdown", True),
        SourceSettings("markdown", "/d", "markdown-2", True),
    )
    for word in ("# tail", "# mine", "name: x"):
        assert (word in yaml) == (word in (tmp_path / "config.yaml").read_text())


# --- models, rules, privacy -----------------------------------------------------------------------

MODELS = """\
models:
  primary: {engine: ollama, model: qwen3:4b, residency: always}
  cloud: # paid
    engine: openai
    url: https://api.openai.com/v1
    model: gpt-x
    price_in: 0.25
    price_out: 2
    local: no
routing:
  rules:
    - {pattern: 'python|sql', model: gpt-x}
    - pattern: \\bhi\\b
      model: primary
  fallback: [primary]
privacy:
  sources: {markdown: allow, openclaw: placeholders}
"""


def test_models_are_read_by_role_with_the_line_of_each_value(tmp_path):
    loaded = load(write(tmp_path, MODELS), environ={})
    assert loaded.settings.models == (
        ModelSettings("primary", engine="ollama", model="qwen3:4b", residency="always"),
        ModelSettings(
            "cloud",
            engine="openai",
            url="https://api.openai.com/v1",
            model="gpt-x",
            price_in=0.25,
            price_out=2.0,
            local="false",
        ),
    )
    assert origin(loaded, "models.primary.residency") == "config.yaml:2"
    assert origin(loaded, "models.cloud.price_out") == "config.yaml:8"
    assert origin(loaded, "models.cloud.think") == "default"
    assert loaded.settings.routing.rules == (
        RuleSettings("python|sql", "gpt-x"),
        RuleSettings(r"\bhi\b", "primary"),
    )
    assert origin(loaded, "routing.rules[1].pattern") == "config.yaml:13"
    assert loaded.settings.routing.fallback == ("primary",)
    assert loaded.settings.privacy.sources == {"markdown": "allow", "openclaw": "placeholders"}


def test_without_models_there_are_none_and_every_list_is_shown_as_empty(tmp_path):
    loaded = load(tmp_path, environ={})
    assert loaded.settings.models == ()
    rows = {key: value for key, value, _ in loaded.provenance()}
    assert rows["models"] == rows["routing.rules"] == rows["sources"] == ()
    assert rows["privacy.sources"] == {}


def test_the_model_of_engine_stays_primary_beside_a_cloud_model(tmp_path):
    engine = "engine: {kind: ollama, model: 'qwen3:4b', url: 'http://10.0.0.9:11434'}\n"
    write(tmp_path, engine + "models: {cloud: {engine: openai, model: gpt-x}}\n")
    settings = load(tmp_path, environ={}).settings
    assert [model.role for model in settings.models] == ["primary", "cloud"]
    primary = settings.models[0]
    assert (primary.engine, primary.model, primary.url) == (
        "ollama",
        "qwen3:4b",
        "http://10.0.0.9:11434",
    )
    write(tmp_path, engine + "models: {primary: {residency: always}}\n")
    (primary,) = load(tmp_path, environ={}).settings.models
    assert (primary.model, primary.residency) == ("qwen3:4b", "always")
    write(tmp_path, engine + "models: {primary: {engine: llamacpp}}\n")
    (primary,) = load(tmp_path, environ={}).settings.models
    assert (primary.engine, primary.model, primary.url) == ("llamacpp", "", "")


@pytest.mark.parametrize(
    ("yaml", "message", "hint"),
    [
        ("models: [a]", "config.yaml:1: models must hold", "config show"),
        ("models:\n  a: qwen", "config.yaml:2: models.a must hold", "engine: openai"),
        ("models:\n  a:\n    modle: x", "config.yaml:3", "Did you mean 'model'?"),
        ("models: {a: {role: b}}", "setting of models.a called 'role'", "engine"),
        ("models: {a: {engine: olama}}", "models.a.engine called 'olama'", "'ollama'"),
        ("models: {a: {residency: allways}}", "models.a.residency called", "'always'"),
        ("models: {a: {local: maybe}}", "models.a.local called 'maybe'", "auto, true, false"),
        ("models: {a: {price_in: -1}}", "models.a.price_in is -1.0", ""),
        ("models: {a: {context_tokens: big}}", "a whole number", ""),
        ("models: {a: {images: sometimes}}", "true or false", ""),
        ("models: {a: {unload_after: soon}}", "30s, 5m or 1h", ""),
        ("models: {a: {}, a: {}}", "a is there twice", ""),
        ("models: {Cloud: {}}", "cannot be called 'Cloud'", "small letters"),
        ("models: {a.b: {}}", "cannot be called 'a.b'", "small letters"),
        ("models: {local: {}}", "no role can be called 'local'", "another"),
        ("models: {knowme: {}}", "no role can be called 'knowme'", "another"),
        ("models: {a-b: {}, a_b: {}}", "KNOWME_MODELS_A_B_API_KEY", "Rename"),
        ("routing: {rules: x}", "config.yaml:1: routing.rules is 'x'", "pattern:"),
        ("routing:\n  rules:\n  - x", "routing.rules[0]: a rule needs pattern: and model:", ""),
        ("routing:\n  rules:\n  - pattern: x", "config.yaml:3: a rule needs model:", "pattern:"),
        ("routing: {rules: [{pattern: x, modle: y}]}", "of a rule called 'modle'", "'model'"),
        ("routing: {rule: []}", "setting in routing called 'rule'", "'rules'"),
        (
            "models: {a: {model: m}}\nrouting:\n  rules:\n  - {pattern: x, model: codde}",
            "config.yaml:4: there is no model for this rule called 'codde'",
            "primary, a, m",
        ),
        (
            "models: {a: {model: m}}\nrouting: {fallback: [a, b]}",
            "config.yaml:2: there is no model for routing.fallback called 'b'",
            "primary, a, m",
        ),
        ("privacy: {sources: [a]}", "a mapping of words", ""),
        ("privacy: {sources: {a: alow}}", "privacy.sources.a called 'alow'", "'allow'"),
        ("privacy: {sources: {a: {b: c}}}", "a mapping of words", ""),
        ("privacy: {sources: {a: allow, a: deny}}", "a is there twice", ""),
        ("privacy: {question: ask}", "privacy.question called 'ask'", "allow"),
        ("context: {strategies: [recent, fils]}", "strategies called 'fils'", "'files'"),
        ("residency: {cache: disk}", "residency.cache called 'disk'", "ram, ssd, none"),
        ("routing: {explore: 1.5}", "at most 1.0", ""),
        ("model: {}", "no setting 'model'", "'models'"),
        ("{[a]: b}", "a key must be a word", ""),
        ("name: &x [*x]", "not valid YAML", ""),
    ],
)
def test_what_is_wrong_with_models_rules_and_privacy_is_refused(tmp_path, yaml, message, hint):
    error = refused(write(tmp_path, yaml))
    assert message in error.message and hint in error.hint
    assert "config.yaml" in error.message


def test_a_rule_may_name_anything_until_there_are_models(tmp_path):
    write(tmp_path, "routing: {rules: [{pattern: x, model: later}], fallback: [cloud]}")
    assert load(tmp_path, environ={}).settings.routing.rules == (RuleSettings("x", "later"),)


def test_an_empty_role_or_list_leaves_the_default(tmp_path):
    write(tmp_path, "models:\n  cloud:\nrouting:\n  rules:\nprivacy:\n  sources:\n")
    assert load(tmp_path, environ={}).settings == Settings()


def test_models_come_as_an_override_too_and_win_key_by_key(tmp_path):
    write(tmp_path, MODELS)
    over = {
        "models": {"cloud": {"model": "gpt-y"}, "fast": ModelSettings("fast", engine="echo")},
        "models.primary.engine": "echo",
        "routing": {"rules": [{"pattern": "z", "model": "fast"}]},
        "privacy.sources.markdown": "deny",
    }
    loaded = load(tmp_path, over, {})
    by_role = {model.role: model for model in loaded.settings.models}
    assert list(by_role) == ["primary", "cloud", "fast"]
    assert by_role["cloud"].model == "gpt-y" and by_role["cloud"].price_in == 0.25
    assert by_role["primary"].engine == by_role["fast"].engine == "echo"
    assert loaded.settings.routing.rules == (RuleSettings("z", "fast"),)
    assert origin(loaded, "routing.rules[0].model") == "flag, routing.rules[0]"
    assert loaded.settings.privacy.sources == {"markdown": "deny", "openclaw": "placeholders"}
    given = load(tmp_path / "none", {"models": (ModelSettings("fast", engine="echo"),)}, {})
    assert given.settings.models[-1] == ModelSettings("fast", engine="echo")
    assert "flag" in refused(tmp_path, overrides={"models": {"a": {"modle": "x"}}}).message


def test_a_mapping_is_written_in_one_line_as_yaml_or_with_equals_signs(tmp_path):
    for text in ("{a: allow, b: deny}", "a=allow, b=deny", "{a: allow, 'b': deny,}"):
        loaded = load(tmp_path, environ={"KNOWME_PRIVACY_SOURCES": text})
        assert loaded.settings.privacy.sources == {"a": "allow", "b": "deny"}
    for text in ("allow", "{a: allow", "{a: alow}", "{a: [b]}", "{a}"):
        assert "privacy.sources" in refused(tmp_path, {"KNOWME_PRIVACY_SOURCES": text}).message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("90", 90), ("1h30m", 5400), ("500ms", 0.5), ("0", 0)],
)
def test_a_length_of_time_is_read_in_seconds(text, seconds):
    assert times.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 minutes", "m", "1e3", "9" * 30, "5m later"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(ValueError):
        times.parse_duration(text)


# --- the keys of models ---------------------------------------------------------------------------


def test_a_models_key_comes_from_dotenv_or_the_environment_and_is_never_shown(tmp_path):
    yaml = "models:\n  cloud: {engine: openai, model: m}\n  big-one: {engine: openai}\n"
    write(tmp_path, yaml, "KNOWME_MODELS_CLOUD_API_KEY=sk-very-secret\n")
    env = {"KNOWME_MODELS_BIG_ONE_API_KEY": "sk-too-very-secret", "KNOWME_MODELS": "/folder"}
    loaded = load(tmp_path, environ=env)
    keys = {model.role: model.api_key for model in loaded.settings.models}
    assert keys == {"primary": "", "cloud": "sk-very-secret", "big-one": "sk-too-very-secret"}
    assert "very-secret" not in repr(loaded) + str(loaded.provenance())
    rows = {key: (value, where) for key, value, where in loaded.provenance()}
    assert rows["models.cloud.api_key"] == ("set", ".env:1")
    assert rows["models.big-one.api_key"][1] == "environment KNOWME_MODELS_BIG_ONE_API_KEY"
    assert rows["models.primary.api_key"] == ("not set", "default")


def test_the_key_of_a_model_that_is_not_here_is_refused_in_dotenv_alone(tmp_path):
    write(tmp_path, "models: {cloud: {}}", "KNOWME_MODELS_CLOD_API_KEY=sk-secret\n")
    error = refused(tmp_path)
    assert ".env:1" in error.message and "cloud" in error.message
    assert "config set models" in error.hint and "sk-secret" not in str(error)
    (tmp_path / ".env").unlink()
    load(tmp_path, environ={"KNOWME_MODELS_CLOD_API_KEY": "another home's"})
    error = refused(tmp_path, {"KNOWME_MODELS_CLOUD_APIKEY": "x"})
    assert "KNOWME_MODELS_CLOUD_API_KEY" in error.hint


def test_a_providers_key_goes_to_a_model_at_that_provider_only(tmp_path):
    env = {"OPENAI_API_KEY": "sk-o", "OPENROUTER_API_KEY": "sk-r"}

    def key(url, engine="openai"):
        write(tmp_path, f"models: {{cloud: {{engine: {engine}, url: '{url}'}}}}")
        return load(tmp_path, environ=env).settings.models[-1].api_key

    assert key("https://api.openai.com/v1") == key("https://api.openai.com/v1", "auto") == "sk-o"
    assert key("https://openrouter.ai/api/v1") == "sk-r"
    assert key("http://api.openai.com/v1") == ""
    assert key("https://api.openai.com.evil.test/v1") == ""
    assert key("https://api.openai.com/v1", "ollama") == ""
    env["KNOWME_MODELS_CLOUD_API_KEY"] = "mine"
    assert key("https://api.openai.com/v1") == "mine"


def test_no_secret_of_a_model_is_in_the_error_about_it(tmp_path):
    write(tmp_path, "models:\n  cloud:\n    api_key: [sk-very-secret]\n")
    assert "sk-very-secret" not in str(refused(tmp_path))


# --- editing models -------------------------------------------------------------------------------

BY_HAND = [
    config.render_yaml(),
    "",
    "name: x",
    "models:\n",
    "models: {}\n# tail\n",
    "models: ~\nname: x\n",
    MODELS.replace("model: gpt-x}", "model: cloud}"),
    "models: {primary: {model: m}, cloud: {model: g, # mine\n  engine: openai}} # all\nname: x\n",
    "models:\n    cloud:\n        model: |\n          g\n        # deep\n    # a\n\n# t\nname: x",
    "llm: {provider: ollama, base_url: 'http://127.0.0.1:1/v1', models: {cloud: g}}\n",
    "models:\r\n  cloud:\r\n    model: g # mine\r\nname: x\r\n",
]


def legal_value(spec):
    if spec.legal:
        return st.sampled_from(spec.legal)
    if spec.type is bool:
        return st.sampled_from(["true", "false"])
    if spec.type is int:
        return st.integers(spec.meta["minimum"], 10**9).map(str)
    if spec.type is float:
        return st.floats(spec.meta["minimum"], 1e9).map(str)
    if spec.meta.get("shape") == "duration":
        return st.integers(0, 10**6).flatmap(
            lambda many: st.sampled_from([f"{many}s", f"{many}m", str(many)])
        )
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@given(
    st.sampled_from(BY_HAND),
    st.sampled_from(["primary", "cloud", "a-1"]),
    st.sampled_from(sorted(set(config.model_specs("x")) - {"api_key"})).flatmap(
        lambda name: st.tuples(st.just(name), legal_value(config.model_specs("x")[name]))
    ),
)
def test_any_legal_value_of_a_model_is_set_and_read_back_and_no_other_line_changes(
    tmp_path_factory, before, role, pair
):
    name, text = pair
    home = tmp_path_factory.mktemp("set")
    (home / "config.yaml").write_bytes(before.encode())
    old = {model.role: model for model in load(home, environ={}).settings.models}
    config.set_value(home, f"models.{role}.{name}", text)
    new = {model.role: model for model in load(home, environ={}).settings.models}
    expected = config.read_value(config.model_specs(role)[name], text, "test")
    assert getattr(new[role], name) == expected
    for other in old.keys() - {role, "primary"}:
        assert new[other] == old[other]
    after = (home / "config.yaml").read_bytes().decode()
    lines = [line.rstrip("\r\n") for line in before.split("\n")]
    kept = difflib.SequenceMatcher(None, lines, [e.rstrip("\r") for e in after.split("\n")], False)
    changed = sum(
        two - one for tag, one, two, *_ in kept.get_opcodes() if tag in ("replace", "delete")
    )
    assert changed <= (3 if "|" in before and name == "model" else 1)
    assert all(f"#{part.split(chr(10))[0]}".rstrip() in after for part in before.split("#")[1:])


@given(
    st.sampled_from(BY_HAND),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    st.sampled_from(POLICIES),
)
def test_the_policy_of_any_source_is_set_and_read_back(tmp_path_factory, before, source, policy):
    home = tmp_path_factory.mktemp("set")
    (home / "config.yaml").write_bytes(before.encode())
    old = dict(load(home, environ={}).settings.privacy.sources)
    config.set_value(home, f"privacy.sources.{source}", policy)
    assert load(home, environ={}).settings.privacy.sources == {**old, source: policy}


def test_setting_models_keeps_the_file_that_init_wrote_line_by_line(tmp_path):
    before = config.render_yaml()
    write(tmp_path, before)
    for key, value in [
        ("models.cloud.model", "gpt-x"),
        ("models.cloud.engine", "openai"),
        ("models.fast.model", "small"),
        ("models.cloud.model", "gpt-y"),
        ("privacy.sources.markdown", "allow"),
    ]:
        config.set_value(tmp_path, key, value)
    after = (tmp_path / "config.yaml").read_text()
    diff = [
        line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"
    ]
    assert diff == [
        "+   cloud:",
        "+     engine: openai",
        "+     model: gpt-y",
        "+   fast:",
        "+     model: small",
        "-   # sources:",
        "+   sources:",
        "+     markdown: allow",
    ]
    roles = [model.role for model in load(tmp_path, environ={}).settings.models]
    assert roles == ["primary", "cloud", "fast"]


def test_a_models_key_is_set_in_dotenv_once_the_model_is_there(tmp_path):
    write(tmp_path, "")
    with pytest.raises(ConfigError, match="no model for the role 'cloud' yet") as caught:
        config.set_value(tmp_path, "models.cloud.api_key", "sk-x")
    assert "knowme config set models.cloud.model NAME" in caught.value.hint
    assert (tmp_path / ".env").read_text() == ""
    config.set_value(tmp_path, "models.cloud.model", "gpt-x")
    config.set_value(tmp_path, "models.cloud.api_key", "sk-x")
    assert (tmp_path / ".env").read_text() == 'KNOWME_MODELS_CLOUD_API_KEY="sk-x"\n'
    assert "sk-x" not in (tmp_path / "config.yaml").read_text()
    assert load(tmp_path, environ={}).settings.models[-1].api_key == "sk-x"


@pytest.mark.parametrize(
    ("key", "what", "mend"),
    [
        ("models", "not one value", "config set models.cloud.model NAME"),
        ("models.cloud", "models.cloud is not one value", "config set models.cloud.model NAME"),
        ("models.cloud.modle", "'modle'", "'model'"),
        ("models.Cloud.model", "'Cloud'", "small letters"),
        ("models.local.model", "'local'", "another name"),
        ("routing.rules", "not one value", "config path"),
        ("routing.rules[0].model", "not one value", "config path"),
        ("sources", "not one value", "config add KIND PATH"),
        ("sources[0].path", "not one value", "config add KIND PATH"),
        ("llm.provider", "never written", "config set models"),
        ("routing.fallback", "called 'x'", "primary, cloud"),
        ("privacy.sources.notes", "called 'x'", "allow, placeholders, deny"),
    ],
)
def test_what_cannot_be_set_is_refused_with_how_to_edit_it(tmp_path, key, what, mend):
    write(tmp_path, MODELS)
    with pytest.raises(ConfigError) as caught:
        config.set_value(tmp_path, key, "x")
    assert what in caught.value.message and mend in caught.value.hint
    assert (tmp_path / "config.yaml").read_text() == MODELS


def test_a_model_that_a_rule_names_cannot_be_renamed_from_under_it(tmp_path):
    write(tmp_path, MODELS)
    with pytest.raises(ConfigError, match="config.yaml:12: there is no model for this rule"):
        config.set_value(tmp_path, "models.cloud.model", "gpt-y")
    assert (tmp_path / "config.yaml").read_text() == MODELS


def test_a_value_that_stands_elsewhere_is_not_edited(tmp_path):
    yaml = "models:\n  a: &a {model: m}\n  b: *a\n"
    write(tmp_path, yaml)
    with pytest.raises(ConfigError, match="Write this into it yourself: models.b.model: x"):
        config.set_value(tmp_path, "models.b.model", "x")
    with pytest.raises(ConfigError, match="Write this into it yourself: models.a.model: x"):
        config.set_value(tmp_path, "models.a.model", "x")
    assert (tmp_path / "config.yaml").read_text() == yaml


def test_the_commented_examples_are_legal_once_their_hashes_are_gone(tmp_path):
    text = config.render_yaml()
    for example in (
        configfile.MODEL_EXAMPLES,
        configfile.RULE_EXAMPLES,
        configfile.POLICY_EXAMPLES,
        configfile.EXAMPLES,
    ):
        assert example in text
        text = text.replace(example, example.replace("# ", ""))
    settings = load(write(tmp_path, text), environ={}).settings
    assert [model.role for model in settings.models] == ["primary", "code", "cloud"]
    assert settings.models[1].unload_after == "10m"
    assert [rule.model for rule in settings.routing.rules] == ["code", "primary"]
    assert settings.privacy.sources == {"markdown": "allow", "openclaw": "placeholders"}
    assert [source.name for source in settings.sources] == ["openclaw", "notes"]


def test_the_commands_show_and_set_models_and_hide_their_keys(tmp_path, capsys, monkeypatch):
    for name in list(os.environ):
        if name.startswith("KNOWME_"):
            monkeypatch.delenv(name)
    home = str(tmp_path)
    write(tmp_path, config.render_yaml())
    for key, value in [
        ("models.cloud.model", "gpt-x"),
        ("models.cloud.api_key", "sk-very-secret"),
        ("privacy.sources.my notes", "allow"),
    ]:
        assert run(["--home", home, "config", "set", key, value]) == 0
    assert "very-secret" not in capsys.readouterr().out
    assert run(["--home", home, "config", "show", "models.cloud", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    assert set(rows) == {f"models.cloud.{name}" for name in config.model_specs("cloud")}
    assert rows["models.cloud.api_key"]["value"] == "set"
    assert rows["models.cloud.model"]["origin"].startswith("config.yaml:")
    assert run(["--home", home, "config", "show", "--changed"]) == 0
    shown = capsys.readouterr().out
    assert "my notes: allow" in shown and "gpt-x" in shown and "very-secret" not in shown
    assert run(["--home", home, "config", "set", "routing.rules", "x"]) == 1
    assert "config path" in capsys.readouterr().err
    assert run(["--home", home, "config", "show", "models.none"]) == 1
