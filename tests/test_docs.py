"""The pages under docs/ are made from the code, and nothing is missing from them."""

import re
from pathlib import Path

import click
import pytest

import knowme.cli  # noqa: F401
from knowme import config, docs, legacy, plugins, schema, seams
from knowme.commands import CHAPTERS, cli

ROOT = Path(__file__).resolve().parent.parent


def page(name):
    return (ROOT / "docs" / name).read_text("utf-8")


def commands(group=cli, path="knowme"):
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def test_no_page_is_stale():
    assert docs.stale() == [], "make docs"


def test_a_changed_page_is_stale(tmp_path):
    for name in docs.PAGES:
        (tmp_path / name).write_text(docs.render(name), "utf-8")
    assert docs.stale(tmp_path) == []
    (tmp_path / "cli.md").write_text("old", "utf-8")
    (tmp_path / "schema.md").unlink()
    assert docs.stale(tmp_path) == ["cli.md", "schema.md"]


@pytest.mark.parametrize(("path", "command"), [pytest.param(*c, id=c[0]) for c in commands()])
def test_every_command_and_option_is_explained_and_on_the_page(path, command):
    text = page("cli.md")
    assert f"### `{path}" in text
    assert command.help and command.help.strip()
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.opts
            assert max(option.opts, key=len) in text


def test_every_command_has_a_chapter_in_the_help():
    shown = [name for names in CHAPTERS.values() for name in names]
    assert sorted(shown) == sorted(n for n, each in cli.commands.items() if not each.hidden)
    assert len(shown) == len(set(shown))


def test_every_first_sentence_fits_the_help():
    for path, command in commands():
        assert not command.get_short_help_str(62).endswith("..."), path


def test_every_setting_is_on_the_page_and_in_the_file_that_init_writes():
    text, written = page("settings.md"), config.render_yaml()
    for spec in config.specs().values():
        assert f"`{spec.key}`" in text and f"`{spec.env}`" in text
        assert len(spec.meta["help"]) > 5
        assert f"# {spec.key.rpartition('.')[2]}" in written
    for name in (*config.source_specs(), *config.rule_specs()):
        assert f"| `{name}` |" in text
    for name, spec in config.model_specs("ROLE").items():
        assert f"| `{spec.key}` |" in text and f"`{spec.env}`" in text
        assert f"  #   {name}" in written
    for name in (*legacy.KEYS, *config.LISTS):
        assert f"| `{name}` |" in text or f"## {name}\n" in text


def test_every_name_in_the_environment_that_the_code_reads_is_on_the_page():
    text = page("settings.md")
    code = [p.read_text("utf-8") for p in (ROOT / "knowme").rglob("*.py")]
    for name in sorted(set(re.findall(r'"(KNOWME_[A-Z_]+[A-Z])"', "\n".join(code)))):
        assert f"`{name}`" in text, name


def test_every_seam_and_backend_is_on_the_page():
    text = page("plugins.md")
    protocols = [n for n, v in vars(seams).items() if getattr(v, "_is_protocol", False)]
    for name in protocols:
        if name != "Protocol":
            assert f": `{name}`" in text
    for names in plugins.BUILTIN.values():
        for name in names:
            assert f"`{name}`" in text


def test_every_table_is_on_the_page():
    import apsw

    conn = apsw.Connection(":memory:")
    for migration in schema.MIGRATIONS:
        migration(conn)
    text = page("schema.md")
    for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        if docs.made_by_us(name) and not name.startswith("sqlite_"):
            assert re.search(rf"CREATE (VIRTUAL )?TABLE {name}\b", text), name


def test_every_route_is_on_the_page():
    from knowme.service import openapi

    text = page("http.md")
    for path, methods in openapi()["paths"].items():
        for method in methods:
            assert f"## `{method.upper()} {path}`" in text
