"""The shape of the house: who may import whom, how large a file may be, what a start costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "knowme"

# ARCHITECTURE.md, section 3: a module imports only from its own line and from those below it.
RANKS = [
    {"cli", "commands", "chat", "demo", "demo_learn", "docs", "doctor", "console", "__main__"},
    {"daemon"},
    {"service", "web", "mcp"},
    {"shadow"},
    {"structure"},
    {"ask", "sync", "export", "backup", "journal", "learn", "evals", "stats"}
    | {"extract", "reading", "portrait", "rebuild", "forget", "retention"},
    {"receipts"},
    {"prompting"},
    {"steering"},
    {"turn"},
    {"jobs", "schedule"},
    {"home"},
    {"sessions", "summaries", "details"},
    {"models", "route", "context", "follow", "fuse", "layout", "lexical", "search", "quotes"},
    {"compress", "workspace", "reduce", "privacy", "rules"} | {"breaker", "feedback", "residency"},
    {"archive", "memory", "facts", "inbox", "profile", "beliefs", "fingerprints", "tombstones"}
    | {"egress", "redact", "states", "adoptions"},
    {"plugins", "config", "configfile", "legacy", "db", "schema", "lock", "modelstore", "convert"},
    {"gain", "intents", "claims", "gate", "psyche"},
    {"settings"},
    {"dates", "times", "words", "questions", "net", "attributes", "sensitive", "spans", "whens"}
    | {"verbs", "shown"},
    {"seams"},
    {"types", "errors", "__init__"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}

# Backends: found by name through plugins.py, they know the seams and nothing of the house. What
# they share among themselves (a runtime, a parser) is beside them.
BACKENDS = {"engines", "embedders", "indexes", "sources", "channels", "senses", "trainers"}
FOUNDATION = {"seams", "types", "errors", "__init__"}
SHARED_BY_BACKENDS = {"border", "gguf", "llama", "modelstore", "net", "times", "wire", "words"}

# The story that ships with the package writes files and reads nothing of ours.
APART = {"fiction"}

# Upward imports that the plan itself asks for, each made inside a function, each with its reason.
ALLOWED = {
    ("home", "search"): "Home.search is the contract of every surface",
    ("search", "home"): "for its type only",
}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def top(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imported(path):
    """Yield (name of the part of knowme, line, whether only for types)."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" if base == "knowme" else base for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "knowme":
                part = parts[1] if len(parts) > 1 else "__init__"
                known = part in RANK or part in BACKENDS | APART | SHARED_BY_BACKENDS
                yield part if known else "__init__", node.lineno, id(node) in typing_only


def test_every_module_has_a_place_in_the_plan():
    known = set(RANK) | BACKENDS | APART | SHARED_BY_BACKENDS
    assert {top(path) for path in modules()} <= known


def test_nothing_imports_from_above_itself():
    wrong = []
    for path in modules():
        me = top(path)
        if me not in RANK:
            continue
        for part, line, typing_only in imported(path):
            above = part in RANK and RANK[part] < RANK[me]
            if above and not typing_only and (me, part) not in ALLOWED:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {part}")
    assert not wrong, "\n".join(wrong)


def test_a_backend_knows_only_the_seams_and_what_backends_share():
    wrong = []
    for path in modules():
        me = top(path)
        if me not in BACKENDS:
            continue
        for part, line, _ in imported(path):
            if part not in FOUNDATION | SHARED_BY_BACKENDS | {me}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {part}")
    assert not wrong, "\n".join(wrong)


def test_the_core_reaches_backends_by_name_only():
    wrong = []
    for path in modules():
        if top(path) in BACKENDS | SHARED_BY_BACKENDS:
            continue
        for part, line, typing_only in imported(path):
            if part in BACKENDS and not typing_only:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {part}")
    assert not wrong, "\n".join(wrong)


def test_only_the_demo_and_the_tests_know_the_story():
    users = {top(p) for p in modules() for part, _, _ in imported(p) if part == "fiction"}
    assert users <= {"demo", "fiction"}


def test_an_exception_to_the_plan_that_is_not_used_is_deleted():
    used = {(top(path), part) for path in modules() for part, _, _ in imported(path)}
    assert set(ALLOWED) <= used | {("search", "home")}


@pytest.mark.parametrize("path", [p for p in modules()], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_has_at_most_800_lines_and_says_what_it_is(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 800
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


def test_help_imports_nothing_heavy():
    heavy = "numpy apsw httpx fastapi uvicorn yaml prompt_toolkit pydantic sqlite3 asyncio".split()
    code = (
        "import sys\nfrom knowme.cli import run\nassert run(['--help']) == 0\n"
        f"sys.stderr.write(' '.join(n for n in {heavy!r} if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_listing_backends_imports_none_of_them():
    code = (
        "import sys\nfrom knowme import plugins\n"
        "print([plugins.names(kind) for kind in plugins.BUILTIN])\n"
        "sys.stderr.write(' '.join(n for n in sys.modules if n.startswith('knowme.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert set(done.stderr.split()) <= {"knowme.plugins", "knowme.errors"}


def test_no_file_names_a_package_registry():
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"))]
    text_files = [ROOT / "Makefile", ROOT / "pyproject.toml", *(ROOT / ".ci").glob("*")]
    text_files += [*modules(), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    for path in text_files:
        text = path.read_text("utf-8")
        assert not [host for host in hosts if host in text], path


def test_a_test_cannot_leave_the_machine():
    import socket

    from conftest import NetworkRefused

    for address in (("192.0.2.1", 80), ("example.org", 443)):
        with socket.socket() as sock, pytest.raises(NetworkRefused, match="stay on this machine"):
            sock.connect(address)
    with pytest.raises(socket.gaierror, match="stay on this machine"):
        socket.create_connection(("example.org", 443))
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
