"""The command line as a person meets it: what it prints, how it fails, what it leaves alone."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from knowme import config, configfile, console, jobs
from knowme.cli import run
from knowme.commands.begin import guess_kind
from knowme.commands.recall import when
from knowme.errors import InputError
from knowme.home import Home
from knowme.settings import SourceSettings
from knowme.types import Counts

ROOT = Path(__file__).resolve().parent.parent
Told = namedtuple("Told", "code out err")
OTHERS = (
    "Henrik wants the report on Thursday.",
    "The bindery opens at nine; Oksana keeps the press warm.",
    "Two espressos, then barley coffee.",
    "The tide tables came as a spreadsheet again.",
    "Mother's new knee works better than the old one.",
    "Rain all day, the terrace leaks at the north corner.",
)
HEATING = "On 3 March we decided to replace the gas boiler with a heat pump from Nordwind."


@pytest.fixture
def knowme(capsys, monkeypatch, tmp_path):
    """Run a command line in this process: no model, a home of its own."""
    monkeypatch.setenv("KNOWME_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KNOWME_ENGINE_KIND", "echo")
    monkeypatch.setenv("KNOWME_EMBEDDER_KIND", "hashing")

    def call(*args):
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        return Told(code, *capsys.readouterr())

    return call


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "heating.md").write_text(f"# Heating\n\n{HEATING}\n", "utf-8")
    (folder / "cat.md").write_text("# The cat\n\nBartô is eleven and ginger.\n", "utf-8")
    for number, words in enumerate(OTHERS):
        (folder / f"day-{number}.md").write_text(f"# Day {number}\n\n{words}\n", "utf-8")
    return folder


@pytest.fixture
def filled(knowme, notes):
    """A home with two notes read."""
    assert knowme("init", "--no-detect").code == 0
    assert knowme("config", "add", "markdown", notes).code == 0
    told = knowme("sync")
    assert told.code == 0, told
    return knowme


# --- init -----------------------------------------------------------------------------------------


def test_init_makes_a_home_for_its_owner_only_and_twice_is_once(knowme, tmp_path):
    told = knowme("init")
    assert told.code == 0 and str(tmp_path / "home") in told.out and "knowme sync" in told.out
    home = tmp_path / "home"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {"config.yaml", "memory.db", "archive", "runs", "backups"} <= set(os.listdir(home))
    assert stat.S_IMODE((home / "memory.db").stat().st_mode) == 0o600
    before = (home / "config.yaml").read_text()
    assert knowme("init").code == 0
    assert (home / "config.yaml").read_text() == before


def test_init_writes_what_it_finds_into_the_settings_once(knowme, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".openclaw").mkdir()
    assert "found ~/.openclaw" in knowme("init").out
    knowme("init")
    sources = config.load(tmp_path / "home").settings.sources
    assert [(s.kind, s.path) for s in sources] == [("openclaw", str(tmp_path / ".openclaw"))]


def test_init_leaves_openclaw_alone_when_told_to(knowme, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".openclaw").mkdir()
    knowme("init", "--no-detect", "--name", "Ana")
    settings = config.load(tmp_path / "home").settings
    assert settings.sources == () and settings.name == "Ana"


def test_init_refuses_a_folder_that_holds_something_else(knowme, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    told = knowme("init")
    assert told.code == 1 and "mend:" in told.err
    assert os.listdir(tmp_path / "home") == ["thesis.tex"]


def test_without_a_home_every_command_says_how_to_make_one(knowme):
    for args in (
        ["search", "x"],
        ["ask", "x"],
        ["stats"],
        ["sync"],
        ["config", "set", "name", "A"],
    ):
        told = knowme(*args)
        assert told.code == 1 and "knowme init" in told.err, args
        assert "Traceback" not in told.err


def test_home_and_verbose_are_understood_before_and_after_a_command(knowme, tmp_path):
    other = tmp_path / "other"
    assert knowme("--home", other, "init").code == 0
    assert str(other) in knowme("config", "path", "--home", other).out
    assert "Traceback" in knowme("search", "x", "--verbose").err


# --- sync and import ------------------------------------------------------------------------------


def test_sync_without_a_source_says_exactly_what_to_add(knowme, tmp_path, monkeypatch):
    knowme("init", "--no-detect")
    told = knowme("sync")
    assert told.code == 1 and "knowme config add markdown ~/notes" in told.err
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".openclaw").mkdir()
    told = knowme("sync")
    assert told.code == 1 and "knowme config add openclaw ~/.openclaw" in told.err


def test_sync_ends_with_counts_and_a_second_one_finds_nothing_new(filled):
    assert "nothing new" in filled("sync").out
    told = json.loads(filled("sync", "--json").out)
    assert told["sources"]["markdown"]["new"] == 0
    assert filled("stats").out.count("markdown") >= 1


def test_sync_names_an_unknown_source_and_the_known_ones(filled):
    told = filled("sync", "markdwon")
    assert told.code == 1 and "markdwon" in told.err and "markdown" in told.err


def test_counts_name_ten_problems_and_say_how_many_more_there_are(capsys):
    problems = tuple(f"a.jsonl:{n}: not JSON" for n in range(25))
    console.print_counts("x", Counts(read=1234, new=3, skipped={"bad line": 25}, problems=problems))
    out = capsys.readouterr().out
    assert "read 1,234, 3 new, 25 skipped" in out and "skipped 25: bad line" in out
    assert out.count("not JSON") == 10 and "and 15 more" in out


def test_what_was_passed_over_is_named_once_and_nothing_new_is_said_so(capsys):
    counts = Counts(read=2, new=2, skipped={"not text": 1}, problems=("a.md: not text",))
    console.print_counts("x", counts)
    assert capsys.readouterr().out.count("not text") == 1
    console.print_counts("x", Counts())
    assert capsys.readouterr().out == "x: nothing new\n"
    console.print_counts("x", Counts(skipped={"source": 1}, problems=("It is gone.",)))
    assert capsys.readouterr().out == "x: could not be read\n  It is gone.\n"


def test_a_session_file_alone_is_told_where_to_stand(knowme, tmp_path):
    knowme("init", "--no-detect")
    line = {"type": "message", "id": "1", "message": {"role": "user", "content": "The cat naps."}}
    (tmp_path / "sessions").mkdir()
    session = tmp_path / "sessions" / "0a1b2c3d.jsonl"
    session.write_text(json.dumps({"type": "session", "id": "0a1b2c3d"}) + "\n")
    with session.open("a") as file:
        file.write(json.dumps(line) + "\n")
    told = knowme("import-file", session)
    assert told.code == 1 and "DIR/sessions" in told.err
    assert "1 new" in knowme("import-file", tmp_path).out


def test_a_folder_is_imported_once_and_found(knowme, notes):
    knowme("init", "--no-detect")
    told = knowme("import-file", notes)
    assert told.code == 0 and "(markdown)" in told.out and "8 new" in told.out
    assert json.loads(knowme("import-file", notes, "--json").out)["new"] == 0
    assert "Nordwind" in knowme("search", "heat pump").out


def test_an_export_is_read_back_into_another_home(filled, tmp_path):
    told = filled("export", tmp_path / "out")
    assert told.code == 0 and "messages" in told.out
    assert filled("export", tmp_path / "out").code == 1  # never into what is there
    filled("--home", tmp_path / "second", "init", "--no-detect")
    told = filled("--home", tmp_path / "second", "import-file", tmp_path / "out")
    assert "(knowme)" in told.out, told
    assert "Nordwind" in filled("--home", tmp_path / "second", "search", "heat pump").out


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (["agents/main/x"], "openclaw"),
        (["openclaw.json"], "openclaw"),
        (["messages.jsonl"], "knowme"),
        (["a.md", "b.jsonl"], "markdown"),
        (["0a1b.jsonl"], "openclaw"),
        ([], "markdown"),
    ],
)
def test_what_a_folder_holds_is_told_by_its_layout(tmp_path, made, kind):
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert guess_kind(tmp_path) == kind


# --- recall ---------------------------------------------------------------------------------------


def test_search_prints_the_words_their_source_and_why(filled):
    out = filled("search", "which", "heat", "pump").out
    assert "Nordwind" in out and "markdown" in out and "why:" in out and "Heating" in out


def test_search_prints_one_json_document(filled):
    told = json.loads(filled("search", "heat pump", "--json", "-k", 1).out)
    assert told["count"] == len(told["results"]) == 1
    assert "Nordwind" in told["results"][0]["text"] and told["results"][0]["why"]


def test_search_says_when_there_is_nothing(filled, knowme, tmp_path):
    told = filled("search", "heat", "--speaker", "nobody")
    assert told.code == 0 and told.out == "" and "within these filters" in told.err
    knowme("--home", tmp_path / "empty", "init", "--no-detect")
    assert "knowme sync" in knowme("--home", tmp_path / "empty", "search", "x").err


def test_a_source_that_is_not_there_is_named_with_those_that_are(filled):
    told = filled("search", "cat", "--source", "markdwon")
    assert told.code == 1 and "'markdwon'" in told.err and "markdown" in told.err
    assert filled("search", "cat", "--source", "markdown").out


def test_a_streamed_word_that_reaches_the_edge_is_taken_to_the_next_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    flow = console.Flow()
    for piece in (
        "The heat pump is from the man called ",
        "Fri",
        "oeste",
        ".\n",
        "日本" * 10,
        " end",
    ):
        flow.tell(piece)
    flow.end()
    # "Fri" stood at the edge: it is taken back, and the whole word begins the next line.
    first = "The heat pump is from the man called Fri\r\x1b[37C\x1b[K\nFrioeste.\n"
    assert capsys.readouterr().out == first + "日本" * 10 + "\nend\n"


def test_a_wrapped_text_is_wrapped_again_without_short_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = "one two three four five six seven eight\nnine ten\n\n- a\n- b"
    assert console.wrap(text, "  ") == (
        "  one two three four five six seven\n  eight nine ten\n\n  - a\n  - b"
    )


def test_nothing_that_was_recalled_can_drive_the_terminal(filled, notes):
    evil = "Mallory \x1b]0;owned\x07 says \x1b[2J\x9b31m hello \u202etxt.exe about zebras"
    (notes / "evil.md").write_text(f"# Zebra\n\n{evil}\n", "utf-8")
    filled("sync")
    for args in (["search", "zebras"], ["ask", "what about zebras?"], ["why"]):
        out = filled(*args).out
        assert "zebras" in out
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out), args


def test_ask_prints_the_answer_what_it_rests_on_and_who_answered(filled):
    told = filled("ask", "What did we decide about the heating?")
    assert told.code == 0
    assert "Nordwind" in told.out and "From:" in told.out and "markdown" in told.out
    assert "\necho, " in told.out and "knowme why last" in told.out
    assert "No model answered" not in told.err, "the echo was asked for"


def test_where_no_model_answers_the_one_that_is_wanted_is_named(filled, monkeypatch, tmp_path):
    monkeypatch.setenv("KNOWME_ENGINE_KIND", "auto")
    monkeypatch.setenv("KNOWME_ENGINE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "none"))
    assert "knowme models pull" in filled("ask", "heating?").err
    monkeypatch.setenv("KNOWME_ENGINE_MODEL", "qwen3:4b")
    assert "no model 'qwen3:4b'" in filled("ask", "heating?").err
    assert "config set engine.model" in findings(filled("doctor", "--json"))["engine"]["mend"]


def test_ask_reads_stdin_and_prints_json(filled, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("What did we decide about the heating?\n"))
    told = json.loads(filled("ask", "-", "--json").out)
    assert "Nordwind" in told["answer"] and told["engine"] == "echo" and told["known"]
    assert told["sources"][0]["text"] and told["receipt_id"] == 1


def test_one_note_is_enough_to_answer_from(knowme, tmp_path):
    (tmp_path / "one.md").write_text(f"# Heating\n\n{HEATING}\n", "utf-8")
    knowme("init", "--no-detect")
    knowme("import-file", tmp_path / "one.md")
    assert "Nordwind" in knowme("ask", "What did we decide about the heating?").out
    (tmp_path / "two.md").write_text("# The cat\n\nBartô is eleven and ginger.\n", "utf-8")
    knowme("import-file", tmp_path / "two.md")
    assert "Nordwind" in knowme("ask", "What did we decide about the heating?").out


def test_an_empty_question_is_an_error_with_a_mend(filled):
    told = filled("ask", " ")
    assert told.code == 1 and "empty" in told.err and "mend:" in told.err


def test_why_prints_what_went_in(filled):
    assert "knowme ask" in filled("why").err
    filled("ask", "What did we decide about the heating?")
    out = filled("why").out
    assert "Nordwind" in out and "heating.md" in out and "tokens:" in out and "why:" in out
    assert "system:" in filled("why", "1", "--prompt").out
    assert json.loads(filled("why", "--json").out)["receipt_id"] == 1
    assert filled("why", "999").code == 1


@pytest.mark.parametrize(
    ("text", "end", "iso"),
    [
        ("2026-03-01", False, "2026-03-01T00:00:00+00:00"),
        ("2026-03-01", True, "2026-03-01T23:59:59+00:00"),
        ("2026-03-01T18:00", True, "2026-03-01T18:00:00+00:00"),
        ("2026-03-01T18:00+02:00", False, "2026-03-01T16:00:00+00:00"),
    ],
)
def test_a_date_means_its_whole_day_in_the_persons_zone(text, end, iso):
    from datetime import UTC

    from knowme import times

    assert times.iso(when(text, UTC, end=end)) == iso


def test_a_time_can_be_told_as_so_long_ago_and_nonsense_is_refused():
    assert abs(when("2w", None) - (time.time() - 14 * 86_400) * 1000) < 60_000
    assert when("", None) is None
    with pytest.raises(InputError, match="'soon'"):
        when("soon", None)


# --- chat -----------------------------------------------------------------------------------------


def test_chat_works_without_a_terminal(filled, monkeypatch):
    import io

    lines = ["What did we decide about the heating?", "/why", "/search cat", "/sources", "/new",
             "/model", "/help", "/nonsense", "/search", "", "/quit", "never asked"]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    told = filled("chat")
    assert told.code == 0, told
    assert told.out.count("Nordwind") >= 3 and "Bartô" in told.out and "\necho\n" in told.out
    assert "/sources" in told.out and "There is no /nonsense" in told.err
    assert "a new conversation" in told.err and "error:" in told.err  # the empty /search
    assert "never asked" not in told.out
    assert "knowme chat --continue chat-" in told.err


def test_chat_lists_the_conversations_and_another_name_is_refused_with_how_to_see_them(
    filled, monkeypatch
):
    import io

    told = filled("context", "compress")
    assert told.code == 1 and "No conversation was held" in told.err and "knowme chat" in told.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("/list\nWhich cat is ginger?\n/list\n/quit\n"))
    told = filled("chat")
    assert "None was held yet." in told.err
    assert "Which cat is ginger?  2 turns" in told.out and "  chat-" in told.out
    told = filled("context", "show", "x", "--conversation", "nobody")
    assert told.code == 1 and "'nobody'" in told.err and "/list" in told.err


class SlowOllama(BaseHTTPRequestHandler):
    """Speaks Ollama's wire format, a word every 50 ms, for ever."""

    def log_message(self, *_):
        pass

    def reply(self, told):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply({"models": [{"name": "slow:7b"}], "version": "0.9.0"})

    def do_POST(self):
        size = int(self.headers.get("content-length", 0))
        self.rfile.read(size)
        if not self.path.endswith("/chat"):
            self.reply({"model_info": {}, "capabilities": ["completion"]})
            return
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.end_headers()
        try:
            while True:
                word = {"model": "slow:7b", "message": {"role": "assistant", "content": "word "}}
                self.wfile.write(json.dumps({**word, "done": False}).encode() + b"\n")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass


def _hears_ctrl_c():
    """A test run in the background of a shell ignores SIGINT, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _on_a_terminal():
    _hears_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, *args, env):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "knowme", *args],
            stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=env, start_new_session=True,
            preexec_fn=_on_a_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen, self.at = "", 0

    def type(self, text):
        os.write(self.master, text.encode())

    def until(self, words, seconds=30):
        end = time.monotonic() + seconds
        while (found := self.seen.find(words, self.at)) < 0:
            assert time.monotonic() < end, f"{words!r} did not come: {self.seen[-2000:]}"
            self.read()
        self.at = found + len(words)

    def read(self):
        if select.select([self.master], [], [], 0.2)[0]:
            try:
                text = os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                text = ""
            self.seen += text
            if "\x1b[6n" in text:  # prompt_toolkit asks where the cursor is
                self.type("\x1b[1;1R")

    def close(self):
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        self.process.kill()
        os.close(self.master)
        return self.process.wait()


@pytest.fixture
def slow_model(filled):
    """The environment of a terminal whose model never ends its answer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowOllama)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    filled("config", "set", "engine.url", f"http://127.0.0.1:{server.server_port}")
    filled("config", "set", "engine.model", "slow:7b")
    yield {**os.environ, "KNOWME_ENGINE_KIND": "ollama", "TERM": "xterm", "COLUMNS": "100"}
    server.shutdown()


@pytest.mark.slow
def test_ctrl_c_during_an_ask_keeps_what_was_said(filled, slow_model):
    terminal = Terminal("ask", "What did we decide about the heating?", env=slow_model)
    terminal.until("word word")
    terminal.type("\x03")
    assert terminal.close() == 130
    assert "Traceback" not in terminal.seen
    receipt = json.loads(filled("why", "--json").out)
    assert receipt["state"] == "cut" and receipt["answer"].startswith("word")


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_not_the_chat(filled, slow_model, tmp_path):
    terminal = Terminal("chat", env=slow_model)
    terminal.until("/help lists the commands")
    terminal.until(">")
    terminal.type("how do zebras sleep?\r")
    terminal.until("word word")
    terminal.type("\x03")
    terminal.until("stopped; what was said so far is kept")
    terminal.type("/model\r")
    terminal.until("slow:7b")
    terminal.until("\x1b[?2004h")  # the prompt is there: before it, Ctrl-D is the terminal's own
    terminal.until(">")
    terminal.type("\x04")
    terminal.until("knowme chat --continue")
    assert terminal.close() == 0
    receipt = json.loads(filled("why", "--json").out)
    assert receipt["state"] == "cut" and receipt["answer"].startswith("word")
    history = tmp_path / "home" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "zebras" in history.read_text()


# --- how it fails ---------------------------------------------------------------------------------


def test_a_wrong_command_line_exits_2_with_a_guess(knowme):
    told = knowme("serach", "x")
    assert told.code == 2 and "Did you mean 'search'?" in told.err
    assert knowme("search", "x", "--nonsense").code == 2
    assert knowme("search").code == 2
    assert knowme("--help").code == 0
    assert knowme("--version").out.startswith("knowme, version")


def test_a_slip_is_told_in_two_lines_too(knowme):
    for args in (("serach",), ("jobs", "lst"), ("search", "x", "--nonsense"), ("ask",)):
        first, second = knowme(*args).err.strip().splitlines()
        assert first.startswith("error:") and second.endswith("--help"), args


@pytest.mark.parametrize("group", ["jobs", "models", "config"])
def test_a_group_alone_does_its_first_thing(knowme, group):
    knowme("init", "--no-detect")
    first = {"config": "show"}.get(group, "list")
    assert json.loads(knowme(group, "--json").out) == json.loads(knowme(group, first, "--json").out)
    assert knowme(group).code == 0
    assert "Commands:" in knowme(group, "--help").out


def test_a_mend_names_the_home_that_was_named(knowme, tmp_path):
    other = tmp_path / "my home"
    told = knowme("--home", other, "stats")
    assert f"knowme --home '{other}' init" in told.err
    assert f"knowme --home '{other}' init" in knowme("doctor", "--home", other).out


def test_what_the_system_refuses_is_no_bug_of_ours(knowme, monkeypatch):
    def refuse(path):
        raise OSError(30, "Read-only file system", "/x/y")

    monkeypatch.setattr(Home, "create", refuse)
    told = knowme("init")
    assert told.code == 1 and "/x/y: Read-only file system." in told.err and "bug" not in told.err


def test_an_error_is_two_lines_without_a_traceback(knowme):
    knowme("init", "--no-detect")
    told = knowme("config", "set", "engine.kind", "olama")
    assert told.code == 1 and told.out == ""
    first, second = told.err.strip().splitlines()
    assert first.startswith("error:") and second.startswith("  mend:")


def test_a_bug_of_ours_is_told_as_one(knowme, monkeypatch):
    monkeypatch.setattr(Home, "create", lambda path: 1 / 0)
    told = knowme("init")
    assert told.code == 1 and "ZeroDivisionError" in told.err and "--verbose" in told.err


def test_ctrl_c_exits_130(filled):
    process = subprocess.Popen(
        [sys.executable, "-m", "knowme", "chat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ.copy(), preexec_fn=_hears_ctrl_c,
    )  # fmt: skip
    process.stdin.write("/help\n")
    process.stdin.flush()
    for line in process.stdout:
        if "Ctrl-D leaves" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_only_on_a_terminal_and_not_with_no_color(filled, no_color, coloured):
    assert "\x1b[" not in filled("stats").out
    env = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    terminal = Terminal("stats", env=env)
    terminal.until("embedder")
    assert terminal.close() == 0
    assert ("\x1b[" in terminal.seen) == coloured


# --- settings -------------------------------------------------------------------------------------


def test_config_show_names_where_each_value_came_from(knowme, tmp_path):
    knowme("init", "--no-detect")
    knowme("config", "set", "search.top_k", "7")
    rows = {line.split()[0]: line for line in knowme("config", "show").out.splitlines()}
    assert re.search(r"7 +config\.yaml:\d+", rows["search.top_k"])
    assert "environment KNOWME_ENGINE_KIND" in rows["engine.kind"]
    assert rows["engine.model"].endswith("default")
    told = json.loads(knowme("config", "show", "search", "--json").out)
    assert [row["key"] for row in told["settings"]] == ["search.top_k", "search.neighbours"]
    changed = knowme("config", "show", "--changed").out
    assert "search.top_k" in changed and "engine.model" not in changed
    assert knowme("config", "show", "serach.top_k").code == 1


def test_a_secret_is_never_printed(knowme, tmp_path):
    knowme("init", "--no-detect")
    told = knowme("config", "set", "engine.api_key", "sk-very-secret")
    assert told.code == 0 and ".env" in told.out
    told = knowme("config", "show")
    assert "very-secret" not in told.out and re.search(r"engine\.api_key +set +\.env:1", told.out)
    assert "very-secret" not in (tmp_path / "home" / "config.yaml").read_text()


def test_config_set_says_when_the_environment_stands_above_it(knowme):
    knowme("init", "--no-detect")
    assert "stands above" in knowme("config", "set", "engine.kind", "ollama").err


def test_config_add_refuses_what_is_not_there_and_an_unknown_kind(knowme, tmp_path):
    knowme("init", "--no-detect")
    assert "nothing at" in knowme("config", "add", "markdown", tmp_path / "none").err
    assert "Did you mean 'markdown'" in knowme("config", "add", "markdwn", tmp_path).err
    assert config.load(tmp_path / "home").settings.sources == ()


# --- keeping --------------------------------------------------------------------------------------


def test_a_backup_brings_back_what_was_there(filled, notes):
    told = json.loads(filled("backup", "--json").out)
    assert Path(told["backup"]).exists()
    (notes / "later.md").write_text("# Later\n\nThe zebra is called Zoe.\n", "utf-8")
    filled("sync")
    assert "Zoe" in filled("search", "zebra").out
    assert told["backup"] in filled("restore", "--list").out
    assert filled("restore", "--yes").code == 0
    assert "Zoe" not in filled("search", "zebra").out
    assert "Nordwind" in filled("search", "heat pump").out


def test_restore_asks_or_is_told_yes(filled):
    filled("backup")
    told = filled("restore")
    assert told.code == 1 and "knowme restore --yes" in told.err, "there is no terminal to ask"


def test_a_memory_that_is_gone_is_not_replaced_by_an_empty_one(filled, tmp_path):
    filled("backup")
    (tmp_path / "home" / "memory.db").unlink()
    told = filled("stats")
    assert told.code == 1 and "is gone" in told.err and "knowme restore" in told.err
    assert findings(filled("doctor", "--json"))["memory"]["mend"] == "knowme restore"
    assert "beside it" not in filled("restore", "--yes").out
    assert "Nordwind" in filled("search", "heat pump").out


def test_the_same_folder_is_not_read_twice(filled, notes):
    told = filled("config", "add", "markdown", notes)
    assert told.code == 1 and "is read already" in told.err and "knowme sync markdown" in told.err


def test_restore_without_a_backup_says_how_to_make_one(knowme):
    knowme("init", "--no-detect")
    assert "knowme backup" in knowme("restore").err


def test_reindex_embeds_what_is_pending(filled):
    told = filled("reindex")
    assert told.code == 0 and "0 pending" in told.out
    assert json.loads(filled("stats", "--json").out)["pending"] == 0


def test_jobs_are_listed_shown_retried_and_cancelled(knowme, tmp_path):
    knowme("init", "--no-detect")
    assert "no jobs" in knowme("jobs", "list").err
    with Home.open(tmp_path / "home") as home:
        number = home.db.write(lambda c: jobs.enqueue(c, "sync", {}, run_at_ms=2**41))
    assert "queued" in knowme("jobs", "list").out
    assert json.loads(knowme("jobs", "list", "--json").out)["jobs"][0]["kind"] == "sync"
    assert "sync" in knowme("jobs", "show", number).out
    assert "cancelled" in knowme("jobs", "cancel", number).out
    assert "queued" in knowme("jobs", "retry", number).out
    assert knowme("jobs", "show", 99).code == 1


def test_models_are_listed_without_the_network(knowme, monkeypatch, tmp_path):
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "models"))
    out = knowme("models", "list").out
    assert "smollm2-135m" in out and "minilm" in out and str(tmp_path / "models") in out
    assert not any(
        row["installed"] for row in json.loads(knowme("models", "list", "--json").out)["models"]
    )
    assert "knowme models pull minilm" in knowme("models", "rm", "minilm").err
    assert knowme("models", "pull", "no-such-model").code == 1


def test_version_tells_what_a_bug_report_needs(knowme):
    assert {"knowme", "python", "sqlite", "platform"} <= set(
        json.loads(knowme("version", "--json").out)
    )


# --- doctor ---------------------------------------------------------------------------------------


def findings(told):
    return {each["name"]: each for each in json.loads(told.out)["findings"]}


def test_doctor_is_content_with_a_home_in_use(filled, monkeypatch):
    monkeypatch.setenv("KNOWME_SERVICE_PORT", str(free_port()))
    filled("backup")
    told = filled("doctor", "--json")
    assert told.code == 0 and json.loads(told.out)["healthy"]
    found = findings(told)
    states = {name: each["state"] for name, each in found.items() if name != "models"}
    assert set(states.values()) == {"ok"}, found
    expected = "python home disk config memory engine embedder vectors sources service jobs sync"
    assert set(expected.split()) <= set(states)
    assert "mend:" not in filled("doctor").out.split("models")[0]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_doctor_names_a_missing_home(knowme):
    told = knowme("doctor")
    assert told.code == 1 and "knowme init" in told.out


def test_doctor_does_not_send_anyone_into_a_folder_that_is_not_ours(knowme, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    found = findings(knowme("doctor", "--json"))["home"]
    assert "something else" in found["found"] and found["mend"] == "knowme --home PATH init"
    assert knowme("init").code == 1


def test_doctor_says_that_a_home_cannot_be_written(filled, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "home")
    found = json.loads(filled("doctor", "--json").out)["findings"]
    told = [each for each in found if each["name"] == "home" and each["state"] == "broken"]
    assert "cannot be written" in told[0]["found"] and told[0]["mend"]


def test_doctor_counts_what_is_set(knowme):
    knowme("init", "--no-detect")
    assert "all as by default" not in findings(knowme("doctor", "--json"))["config"]["found"]
    # The two that this test's environment sets.
    assert "2 set" in findings(knowme("doctor", "--json"))["config"]["found"]


def test_doctor_names_a_damaged_memory_and_how_to_go_back(filled, tmp_path):
    path = tmp_path / "home" / "memory.db"
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 6] = b"\xff" * 4096 * 5
    path.write_bytes(data)
    told = filled("doctor", "--json")
    assert told.code == 1 and findings(told)["memory"]["state"] == "broken"
    mend = findings(told)["memory"]["mend"]
    assert "knowme init && knowme sync" in mend, "there is no backup to restore"
    (tmp_path / "home" / "backups" / "memory-20260301-040000.db").touch()
    assert findings(filled("doctor", "--json"))["memory"]["mend"] == "knowme restore"


def test_doctor_names_a_wrong_setting_with_its_line(knowme, tmp_path):
    knowme("init", "--no-detect")
    (tmp_path / "home" / "config.yaml").write_text("\nengin:\n  kind: echo\n")
    told = knowme("doctor", "--json")
    assert told.code == 1
    assert "config.yaml:2" in findings(told)["config"]["found"]
    assert "'engine'" in findings(told)["config"]["mend"]


def test_doctor_names_what_else_is_missing_each_with_its_command(knowme, tmp_path, monkeypatch):
    knowme("init", "--no-detect")
    home = tmp_path / "home"
    home.chmod(0o755)
    configfile.add_source(home, SourceSettings("markdown", str(tmp_path / "gone")))
    with Home.open(home) as opened:
        opened.db.write(lambda c: jobs.enqueue(c, "sync", {}))
        opened.db.write(lambda c: c.execute("UPDATE jobs SET state='parked', error='no disk'"))
    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "models"))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        monkeypatch.setenv("KNOWME_SERVICE_PORT", str(sock.getsockname()[1]))
        told = knowme("doctor", "--json")
    found = findings(told)
    assert told.code == 1  # the source is gone
    assert found["home"]["mend"] == f"chmod 700 '{home}'"
    assert "gone" in found["sources"]["found"] and found["sources"]["state"] == "broken"
    assert found["jobs"]["mend"] == "knowme jobs retry 1" and "no disk" in found["jobs"]["found"]
    assert found["service"]["mend"].startswith("knowme config set service.port")
    assert found["backup"]["mend"].startswith("knowme backup")
    assert found["sync"]["mend"] == "knowme sync"
    assert found["models"]["mend"] in ("knowme models pull", "pip install 'knowme[local]'")


def test_doctor_says_when_the_model_is_down(knowme, monkeypatch):
    knowme("init", "--no-detect")
    monkeypatch.setenv("KNOWME_ENGINE_KIND", "ollama")
    knowme("config", "set", "engine.url", f"http://127.0.0.1:{free_port()}")
    knowme("config", "set", "engine.model", "qwen3:4b")
    told = knowme("doctor", "--json")
    assert told.code == 1 and findings(told)["engine"]["state"] == "broken"
    assert "knowme config set engine.url" in findings(told)["engine"]["mend"]


# --- the processes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "daemon"])
def test_a_service_answers_and_ends_cleanly(filled, command):
    process = subprocess.Popen(
        [sys.executable, "-m", "knowme", command, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        import httpx

        told = httpx.post(f"{url}/search", json={"query": "heat pump"}, trust_env=False).json()
        assert "Nordwind" in told["results"][0]["text"]
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=40)
    assert process.returncode == 0, out
    assert "Traceback" not in out


@pytest.mark.slow
@pytest.mark.model
def test_the_demo_names_the_facts_and_their_sources(models, knowme, monkeypatch, tmp_path):
    from knowme.fiction.build import questions

    monkeypatch.delenv("KNOWME_ENGINE_KIND")
    monkeypatch.delenv("KNOWME_EMBEDDER_KIND")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KNOWME_ENGINE_KIND", "llamacpp")  # not an Ollama that happens to run
    told = knowme("demo", ".demo")
    assert told.code == 0, told
    parts = told.out.split("$ knowme ask ")[1:]
    for part, question in zip(parts, questions()[:3], strict=True):
        assert question.question in part and "From:" in part and "openclaw" in part
        for word in question.must_contain:
            assert word.lower() in part.lower(), question.id
    assert "knowme" in told.out and "config add markdown ~/notes" in told.out
    assert knowme("demo", ".demo").code == 0  # it deletes what it made itself
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert knowme("demo", "mine").code == 1 and (tmp_path / "mine" / "thesis.tex").exists()
