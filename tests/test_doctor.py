"""What `knowme doctor` says of the models by role, and of the rules that name them."""

import socket

import pytest

from knowme import adoptions
from knowme.doctor import examine
from knowme.home import Home


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Write a config.yaml into a home and return what doctor says of it, name -> findings."""
    for name in ("KNOWME_ENGINE_KIND", "KNOWME_EMBEDDER_KIND"):
        monkeypatch.delenv(name, raising=False)
    Home.create(tmp_path / "home")

    def look(yaml):
        text = f"embedder: {{kind: hashing}}\nservice: {{port: {free_port()}}}\n{yaml}"
        (tmp_path / "home" / "config.yaml").write_text(text)
        found = {}
        for each in examine(tmp_path / "home"):
            found.setdefault(each.name, []).append(each)
        return found

    return look


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_each_role_has_a_line_with_its_engine_model_and_place(findings):
    yaml = f"""
offline: true
models:
  primary: {{engine: echo}}
  fast: {{engine: echo}}
  cloud: {{engine: openai, url: 'https://models.example/v1', model: gpt-x}}
  code: {{engine: ollama, url: 'http://127.0.0.1:{free_port()}', model: coder}}
"""
    found = findings(yaml)
    assert found["engine"][0].state == "ok"
    primary, fast, cloud, code = found["roles"]
    assert (primary.state, primary.found) == ("ok", "primary: echo (echo), local")
    assert (fast.state, fast.found) == ("ok", "fast: echo (echo), local")
    assert cloud.state == "warn" and cloud.mend == "knowme config set offline false"
    assert cloud.found.startswith("cloud: gpt-x (openai), remote") and "offline" in cloud.found
    assert code.state == "warn" and code.found.startswith("code: coder (ollama), local")
    assert "knowme config set models.code.url" in code.mend


def test_a_role_that_cannot_be_built_hides_no_other(findings):
    found = findings(
        "models:\n  a: {engine: llamacpp, model: no-such-model}\n  primary: {engine: echo}\n"
    )
    lost, primary = found["roles"]
    assert lost.state == "warn" and lost.found.startswith("a: ")
    assert "no-such-model" in lost.found and lost.mend
    assert (primary.state, primary.found) == ("ok", "primary: echo (echo), local")


def test_a_role_without_its_address_is_told_with_its_own_setting(findings):
    yaml = "models: {primary: {engine: echo}, cloud: {engine: openai, model: x}}\n"
    _, cloud = findings(yaml)["roles"]
    assert "models.cloud.url is empty" in cloud.found and "set models.cloud.url" in cloud.mend


def test_a_home_without_models_or_rules_has_no_lines_about_them(findings):
    assert not {"roles", "rules"} & set(findings("engine: {kind: echo}\n"))


def test_a_primary_that_is_down_is_told_as_the_engine_with_its_own_key(findings):
    yaml = f"models: {{primary: {{engine: ollama, url: 'http://127.0.0.1:{free_port()}'}}}}\n"
    engine = findings(yaml)["engine"][0]
    assert engine.state == "broken" and "config set models.primary.url" in engine.mend


def test_a_rule_that_names_no_model_is_told_with_what_adds_it(findings):
    rules = "engine: {kind: echo}\nrouting: {rules: [{pattern: sql, model: code}]}\n"
    (rule,) = findings(rules)["rules"]
    assert rule.state == "warn" and "'sql' names 'code'" in rule.found
    assert rule.mend == "knowme config set models.code.model NAME"
    (named,) = findings(rules.replace("model: code", "model: 'qwen3:4b'"))["rules"]
    assert "config.yaml" in named.mend
    (good,) = findings(rules + "models: {code: {engine: echo}}\n")["rules"]
    assert good.state == "ok" and good.found.startswith("1,")
    wrong = findings(rules + "models: {fast: {engine: echo}}\n")["config"][0]
    assert wrong.state == "broken" and "no model for this rule called 'code'" in wrong.found


def test_a_bad_pattern_is_told_with_its_position(findings):
    rules = "engine: {kind: echo}\nrouting: {rules: [{pattern: '(', model: x}]}\n"
    (rule,) = findings(rules)["rules"]
    assert rule.state == "broken" and "position" in rule.found


@pytest.mark.parametrize(("url", "warned"), [("https://8.8.8.8", True), ("http://10.0.0.7", False)])
def test_a_model_of_ones_own_at_a_public_address_is_a_warning(findings, url, warned):
    far = f"far: {{engine: openai, model: m, local: true, url: '{url}/v1'}}"
    # Offline, so that doctor asks nobody.
    told = findings(f"offline: true\nmodels: {{primary: {{engine: echo}}, {far}}}\n")["roles"]
    found = next(each.found for each in told if each.found.startswith("far"))
    assert ("public address" in found) is warned


def test_an_adapter_in_use_is_named_with_what_is_wrong_with_it(findings, tmp_path):
    path = tmp_path / "home"
    folder = path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "adapter.gguf").write_bytes(b"made")
    with Home.open(path, {"embedder.kind": "hashing", "engine.kind": "echo"}) as home:
        home.db.write(
            lambda conn: adoptions.put(
                conn, run="one", purpose="assistant-for-me", base="b", at_ms=1,
                adapter="runs/one/adapter.gguf",
                sha256=adoptions.file_sha256(folder / "adapter.gguf"),
            )
        )  # fmt: skip
    assert [each.state for each in findings("")["adapter"]] == ["ok"]
    (folder / "stale.json").write_text('{"why": "rows of its data set were forgotten"}')
    (stale,) = findings("")["adapter"]
    assert stale.state == "warn" and "forgotten" in stale.found
    (folder / "adapter.gguf").write_bytes(b"changed")
    (changed,) = findings("")["adapter"]
    assert changed.state == "broken" and "rollback" in changed.mend
