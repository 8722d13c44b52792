"""Settings: the layers, what is refused and how, and edits that keep every comment."""

import dataclasses
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme import config, configfile
from knowme.config import load
from knowme.errors import ConfigError
from knowme.settings import Settings, SourceSettings


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
    found = {name: value for name, (value, _) in config.parse_dotenv(text).items()}
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
        assert spec.secret == (name in ("api_key", "token", "password", "secret")), spec.key


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


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=40))
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
    write(tmp_path, "engine: {model: m}\n")
    with pytest.raises(ConfigError, match="Write this into it yourself: engine.kind: echo"):
        config.set_value(tmp_path, "engine.kind", "echo")
    assert (tmp_path / "config.yaml").read_text() == "engine: {model: m}\n"
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
