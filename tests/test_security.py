"""Who may ask, how much they may send, and what never comes out: the door of the service."""

import json
import logging
import socket

import apsw
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import service
from knowme.db import wrap
from knowme.errors import ConfigError
from knowme.web.guard import is_loopback, split_host
from knowme.web.problems import problem, to_json
from knowme.web.shapes import IngestBody, QueryBody, SearchBody, SyncBody

TOKEN = "a-long-token-that-nobody-guesses-0123456789"


@pytest.fixture
def start(home):
    """Give a function that starts the service with some settings and returns a client."""
    opened = []

    def started(host="127.0.0.1", **settings):
        for name, value in settings.items():
            object.__setattr__(home.settings.service, name, value)
        running = service.Server(home, host, 0)
        running.start()
        client = httpx.Client(base_url=running.url, timeout=30, trust_env=False)
        opened.append((running, client))
        return client

    yield started
    for running, client in opened:
        client.close()
        running.stop(5)


@pytest.fixture
def client(start):
    return start()


def search(client, **headers):
    return client.post("/search", json={"query": "x"}, headers=headers)


# --- Host -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8300",
        "localhost",
        "LOCALHOST:99",
        "localhost.",
        "[::1]:8300",
        "127.9.9.9",
    ],
)
def test_loopback_names_are_answered(start, host):
    assert search(start(), host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8300", "localhost.evil.example", "127.0.0.1.evil.example",
        "192.168.1.5", "0.0.0.0", "[::]", "10.0.0.1:8300", "localhost:evil", "127.0.0.1@evil.net",
        "evil.example/127.0.0.1", "evil.example#localhost", "local host", "", "2130706433", "*",
        "localhost,evil.example", "[::1].evil.example", "169.254.169.254",
    ],
)  # fmt: skip
def test_any_other_name_is_refused_so_that_rebinding_fails(start, host):
    client = start()
    for path in ("/health", "/docs", "/openapi.json"):
        reply = client.get(path, headers={"host": host})
        assert reply.status_code == 421, path
        assert set(reply.json()) == {"error", "hint"}
    assert search(client, host=host).status_code == 421


def test_a_request_without_a_host_or_with_two_is_refused(start):
    client = start()
    address = (client.base_url.host, client.base_url.port)
    for raw, status in (
        (b"GET /health HTTP/1.0\r\n\r\n", b"421"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"4"),
    ):
        with socket.create_connection(address) as sock:
            sock.sendall(raw)
            assert sock.recv(100).split()[1].startswith(status)


def test_a_listed_host_is_answered_and_a_list_has_no_wildcards(start):
    client = start(allowed_hosts=("Home.Example", "boat.example:8443", "*", "*.example"))
    assert search(client, host="home.example:8300").status_code == 200
    assert search(client, host="boat.example:8443").status_code == 200
    assert search(client, host="boat.example:1").status_code == 421
    assert search(client, host="other.example").status_code == 421


def test_hosts_are_split_with_care():
    assert split_host("LocalHost:80") == ("localhost", "80")
    assert split_host("[::1]:8300") == ("::1", "8300")
    assert split_host("localhost.") == ("localhost", "")
    for odd in ("", "a b", "a/b", "u@a", "a:b", "a,b", "a:1:2", " a", "a%00"):
        assert split_host(odd) is None, odd
    assert is_loopback("127.8.8.8") and is_loopback("::1") and not is_loopback("localhost.com")
    assert not is_loopback("") and not is_loopback("0.0.0.0")


# --- Origin ---------------------------------------------------------------------------------------


def test_a_page_of_the_service_itself_may_ask(start):
    client = start()
    own = str(client.base_url).rstrip("/")
    assert search(client, origin=own).status_code == 200
    assert search(client, host="localhost:8300", origin="http://localhost:8300").status_code == 200
    assert search(client, host="localhost", origin="http://localhost:80").status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "http://localhost:3000", "http://127.0.0.1", "null", "", "file://",
        "http://localhost:8300.evil.example", "http://evil.example:8300", "chrome-extension://abc",
        "http://localhost:8300@evil.example", "http://[::1]:8300",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_may_not(start, origin):
    reply = search(start(), host="localhost:8300", origin=origin)
    assert reply.status_code == 403 and set(reply.json()) == {"error", "hint"}
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_listed_origin_may_ask_and_read_the_answer(start):
    client = start(allowed_origins=("https://my.page/", "*"), token=TOKEN)
    asked = {"origin": "https://my.page", "authorization": f"Bearer {TOKEN}"}
    reply = search(client, **asked)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://my.page"
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers
    preflight = client.options("/search", headers={"origin": "https://my.page"})
    assert preflight.status_code == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert search(client, origin="https://my.page").status_code == 401
    assert search(client, **{**asked, "origin": "https://other.page"}).status_code == 403
    refused = client.options("/search", headers={"origin": "https://other.page"})
    assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_marks_as_from_another_site_is_refused_but_for_opening_a_page(start, site):
    client = start()
    for path in ("/stats", "/why/last", "/openapi.json"):
        assert client.get(path, headers={"sec-fetch-site": site}).status_code == 403
    navigate = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    assert client.get("/docs", headers=navigate).status_code == 200
    assert client.post("/sync", headers=navigate).status_code == 403
    assert client.get("/stats", headers={"sec-fetch-site": "same-origin"}).status_code == 200


# --- the token ------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/stats"),
    ("GET", "/why/last"), ("POST", "/query"), ("POST", "/search"), ("POST", "/ingest"),
    ("POST", "/sync"), ("GET", "/nope"),
]  # fmt: skip


@pytest.mark.parametrize(
    "authorization",
    [
        None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}",
        TOKEN, f"Bearer {TOKEN.upper()}", "Bearer null", b"Bearer \xff\xfe",
    ],
)  # fmt: skip
def test_every_route_but_health_wants_the_token(start, authorization):
    client = start(token=TOKEN)
    headers = {} if authorization is None else {"authorization": authorization}
    for method, path in ROUTES:
        reply = client.request(method, path, headers=headers)
        assert reply.status_code == 401, (method, path)
        assert reply.headers["www-authenticate"] == "Bearer" and TOKEN not in reply.text
    health = client.get("/health", headers=headers)
    assert health.status_code == 200
    assert not any(check["detail"] for check in health.json()["checks"].values())


def test_with_the_token_everything_answers(start):
    client = start(token=f" {TOKEN}\n")
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert search(client, authorization=f"{scheme} {TOKEN}").status_code == 200
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert client.get("/docs", headers=headers).status_code == 200
    assert client.get("/health/", headers={}).status_code == 401
    assert client.get("/health/../stats", headers={}).status_code == 401


def test_the_token_is_asked_before_the_body_is_read(start):
    client = start(token=TOKEN, max_body_mb=1)
    headers = {"content-type": "application/json"}
    assert client.post("/ingest", content=b"x" * 2**21, headers=headers).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "my.machine.example"])
def test_beyond_loopback_it_does_not_start_without_a_token(home, host):
    for token in ("", "  "):
        object.__setattr__(home.settings.service, "token", token)
        with pytest.raises(ConfigError, match="KNOWME_SERVICE_TOKEN"):
            service.make_server(home, host, 0)


def test_on_every_address_the_token_and_the_host_are_asked(start):
    client = start("0.0.0.0", token=TOKEN)
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert search(client).status_code == 401
    assert search(client, **headers).status_code == 200
    assert search(client, host="0.0.0.0", **headers).status_code == 421
    assert search(client, host="192.168.1.5", **headers).status_code == 421


def test_the_token_is_never_logged(start, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    client = start(token=TOKEN)
    search(client, authorization=f"Bearer {TOKEN}")
    search(client, authorization=f"Bearer {TOKEN}x")
    client.post("/search", content=b"{", headers={"authorization": f"Bearer {TOKEN}"})
    client.get(f"/why/{TOKEN}", headers={"authorization": f"Bearer {TOKEN}"})
    told = "".join(capfd.readouterr())
    ours = [r for r in caplog.records if not r.name.startswith(("httpcore", "httpx"))]
    assert TOKEN not in told + "".join(record.getMessage() for record in ours)
    assert "/search" not in told


# --- headers and protocols ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/nope", "/openapi.json", "/why/x"])
def test_every_response_carries_the_headers_that_protect_it(start, path):
    headers = start().get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers and "access-control-allow-origin" not in headers


def test_a_websocket_is_refused(start):
    client = start()
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    assert client.get("/query", headers=headers).status_code in (403, 404, 405)


def test_what_is_no_http_does_not_stop_the_service(start):
    client = start()
    address = (client.base_url.host, client.base_url.port)
    junk = (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    )
    for raw in junk:
        with socket.create_connection(address) as sock:
            sock.settimeout(5)
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    assert client.get("/health").status_code == 200


# --- what is refused ------------------------------------------------------------------------------

BAD = [
    ("/search", {}, "The field query is missing", "query"),
    ("/search", {"query": ""}, "query must not be empty", ""),
    ("/search", {"query": " \n\t"}, "query must not be empty", ""),
    ("/search", {"query": 5}, "query must be text; it was 5", ""),
    ("/search", {"query": None}, "query must be text; it was null", ""),
    ("/search", {"query": ["a"]}, "query must be text; it was a list of 1", ""),
    ("/search", {"query": "x" * 20_001}, "query must have at most 20000 characters", ""),
    ("/search", {"query": "x", "top_k": 0}, "top_k must be at least 1; it was 0", ""),
    ("/search", {"query": "x", "top_k": 1e9}, "top_k must be", ""),
    ("/search", {"query": "x", "top_k": "5"}, 'top_k must be a whole number; it was "5"', ""),
    ("/search", {"query": "x", "top_k": True}, "top_k must be a whole number", ""),
    ("/search", {"query": "x", "top_k": 2.5}, "top_k must be a whole number; it was 2.5", ""),
    ("/search", {"query": "x", "speaker": "a"}, 'There is no field "speaker"', "speakers"),
    ("/search", {"query": "x", "speakers": [1]}, "speakers[0] must be text", ""),
    ("/search", {"query": "x", "since": "yesterday"}, "since must be a time", ""),
    ("/search", {"query": "x", "now": True}, "now must be a time", ""),
    ("/search", {"query": "x", "until": 1e300}, "until must be a time in the years 1", ""),
    ("/search", {"query": "x", "now": -3 * 10**12}, "now must be a time in the years 1900", ""),
    ("/search", {"query": "x", "since": 20, "until": 10}, "since is later than until", "Swap"),
    ("/search", {"query": "x", "neighbours": -1}, "neighbours must be at least 0", ""),
    ("/query", {"query": "x", "temperature": "hot"}, "temperature must be a number", ""),
    ("/query", {"query": "x", "temperature": -1}, "temperature must be at least 0", ""),
    ("/query", {"query": "x", "stream": "yes"}, "stream must be true or false", ""),
    ("/query", {"question": "x"}, "", "query"),
    ("/ingest", {"documents": []}, "documents must have at least 1 entry", ""),
    ("/ingest", {"documents": "one"}, 'documents must be a list; it was "one"', ""),
    ("/ingest", {"documents": ["a", " "]}, "documents[1] must not be empty", ""),
    ("/ingest", {"documents": ["a", 7]}, "documents[1] must be text; it was 7", ""),
    ("/ingest", {"documents": ["a"], "ids": []}, "1 documents but 0 ids", "ids"),
    ("/ingest", {"documents": ["a"], "ids": [""]}, "ids[0] must not be empty", ""),
    ("/ingest", {"documents": ["a"], "ids": [3]}, "ids[0] must be text", ""),
    ("/ingest", {"documents": ["a"], "metadatas": [{}, {}]}, "1 documents but 2 metadatas", ""),
    ("/ingest", {"documents": ["a"], "metadatas": ["m"]}, "metadatas[0] must be an object", ""),
    (
        "/ingest",
        {"documents": ["a"], "metadatas": [{"timestamp": "soon"}]},
        "metadatas[0].timestamp must be a time",
        "",
    ),
    ("/ingest", {"documents": ["a"], "metadatas": [{"_source": "openclaw"}]}, "_source", "Rename"),
    ("/ingest", {"documents": ["a", "b"], "ids": ["x", "x"]}, "x", ""),
    ("/sync", {"only": 5}, "only must be a list; it was 5", ""),
]


@pytest.mark.parametrize(("path", "body", "says", "hints"), BAD)
def test_a_wrong_field_is_named_in_one_sentence(client, path, body, says, hints):
    reply = client.post(path, json=body)
    told = reply.json()
    assert reply.status_code == 422 and set(told) == {"error", "hint"}
    assert says in told["error"] and hints in told["hint"], told
    assert "\n" not in told["error"] and len(told["error"]) < 300


RAW = [
    (b"", 400, "empty"),
    (b"   ", 400, "empty"),
    (b"{", 400, "not JSON"),
    (b'{"query": "x",}', 400, "not JSON"),
    (b'["x"]', 400, "must be a JSON object; it was a list"),
    (b"null", 400, "it was null"),
    (b'"x"', 400, "it was text"),
    (b'{"query": "x", "temperature": NaN}', 400, "NaN"),
    (b'{"query": "x", "temperature": -Infinity}', 400, "-Infinity"),
    (b'{"query": "x", "temperature": 1e999}', 400, "too large"),
    (b'{"query": "x", "top_k": ' + b"9" * 5000 + b"}", 400, "too many digits"),
    (b'{"query": "\xff\xfe"}', 400, "not UTF-8"),
    (b'{"query": "half \\ud83d"}', 400, "surrogate"),
    (b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deeply"),
]


@pytest.mark.parametrize("path", ["/query", "/search", "/ingest"])
@pytest.mark.parametrize(("raw", "status", "says"), RAW)
def test_a_body_that_is_not_json_is_refused_with_the_place(client, path, raw, status, says):
    reply = client.post(path, content=raw, headers={"content-type": "application/json"})
    assert reply.status_code == status and says in reply.json()["error"], reply.text
    assert reply.json()["hint"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_as_json_is_refused(client, kind):
    headers = {} if kind is None else {"content-type": kind}
    reply = client.post("/search", content=b'{"query": "x"}', headers=headers)
    assert reply.status_code == 415 and "application/json" in reply.json()["hint"]
    for good in ("application/json; charset=utf-8", "Application/JSON", "application/ld+json"):
        reply = client.post("/search", content=b'{"query": "x"}', headers={"content-type": good})
        assert reply.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/search/", 404),
        ("POST", "/%2e%2e/etc/passwd", 404),
        ("GET", "/search", 405),
        ("DELETE", "/ingest", 405),
        ("POST", "/health", 405),
        ("GET", "/why/999999", 404),
        ("GET", "/why/-1", 404),
        ("GET", "/why/99999999999999999999999", 404),
        ("GET", "/why/%C2%B2", 404),
        ("GET", "/why/last", 404),
    ],
)
def test_what_is_not_there_is_said_as_json(client, method, path, status):
    reply = client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "hint"} and reply.json()["hint"]


def test_a_body_beyond_the_limit_is_refused_while_it_comes_in(home, monkeypatch):
    object.__setattr__(home.settings.service, "max_body_mb", 1)
    running = service.Server(home, "127.0.0.1", 0)
    running.start()
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(48):
            sent += 65536
            yield b"x" * 65536

    try:
        with httpx.Client(base_url=running.url, timeout=20, trust_env=False) as client:
            headers = {"content-type": "application/json"}
            whole = client.post("/ingest", content=b"x" * (3 * 2**20), headers=headers)
            assert whole.status_code == 413 and "max_body_mb" in whole.json()["hint"]
            streamed = client.post("/ingest", content=chunks(), headers=headers)
            assert streamed.status_code == 413
            assert "larger than 1 MB" in streamed.json()["error"]
            fits = json.dumps({"documents": ["y" * 900_000]}).encode()
            assert client.post("/ingest", content=fits, headers=headers).status_code == 200
    finally:
        running.stop(5)


def test_an_error_of_ours_tells_no_inside(home, client, caplog):
    def broken(query):
        raise RuntimeError("the secret is hunter2")

    home.search = broken
    reply = client.post("/search", json={"query": "x"})
    assert reply.status_code == 500
    assert "hunter2" not in reply.text and "Traceback" not in reply.text
    number = reply.json()["hint"].split()[2]
    assert number in reply.json()["error"] and number in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [(apsw.FullError, 507), (apsw.BusyError, 503), (apsw.CorruptError, 503), (apsw.IOError, 503)],
)
def test_a_full_disk_is_507_and_other_trouble_with_the_file_503(home, client, error, status):
    def broken(query):
        raise wrap(error("oh"), home.db.path)

    home.search = broken
    reply = client.post("/search", json={"query": "x"})
    assert reply.status_code == status and reply.json()["hint"]
    assert ("retry-after" in reply.headers) == (status == 503)


def test_what_is_no_number_becomes_null():
    assert to_json({"a": float("nan"), "b": [float("inf"), 1.5]}) == '{"a":null,"b":[null,1.5]}'
    assert problem(ValueError("x")).status_code == 500


# --- fuzz: whatever comes, never a 500 ------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
ODD = st.sampled_from(
    ["", " ", "\x00", '"', "'; DROP TABLE items; --", "NEAR(a b)", "a AND", "* OR", "self:", "((",
     "\ufffe\uffff", "a" * 3000, "日本語", "{{7*7}}", "../../etc/passwd", "2026-01-01", "0-0-0"]
    + ["yesterday", "last week", "next year", "in 9999 years", "on 31 February", "in May 2023"]
)  # fmt: skip
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 5),
    st.floats(allow_nan=False),
    TEXT,
    ODD,
)
VALUE = st.recursive(
    SCALAR,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT | ODD, v, max_size=4),
    max_leaves=8,
)
META = st.dictionaries(
    st.sampled_from(["session", "conversation", "timestamp", "speaker", "role", "title", "id"])
    | TEXT,
    VALUE,
    max_size=5,
)


def bodies(shape, **likely):
    """Return a strategy of bodies: the right names with likely or any values, and wrong names."""
    names = {name: likely.get(name, VALUE) | VALUE for name in shape.model_fields}
    good = st.fixed_dictionaries({}, optional={name: likely.get(name, VALUE) for name in names})
    return st.one_of(
        good, st.fixed_dictionaries({}, optional=names), st.dictionaries(TEXT, VALUE, max_size=3)
    )


WHEN = st.one_of(
    st.none(),
    st.integers(-(10**15), 10**15),
    st.sampled_from([-62135596800000, -2208988800000, 32503679999999, 253402300799999]),
    st.datetimes().map(str),
    st.floats(allow_nan=False),
)
NAMES = st.none() | TEXT | ODD | st.lists(TEXT | ODD, max_size=3)
FILTERS = {
    "query": TEXT | ODD, "top_k": st.integers(1, 1000), "now": WHEN, "since": WHEN, "until": WHEN,
    "kinds": NAMES, "sources": NAMES, "speakers": NAMES, "conversations": NAMES,
    "neighbours": st.integers(0, 50), "budget_tokens": st.integers(1, 10**6),
    "temperature": st.floats(0, 10), "system_prompt": TEXT | ODD, "conversation": TEXT | ODD,
    "max_tokens": st.integers(1, 10**6), "stream": st.booleans(),
}  # fmt: skip
FUZZ = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(client, path, body):
    headers = {"content-type": "application/json"}  # json= would refuse to send NaN
    reply = client.post(path, content=json.dumps(body), headers=headers)
    assert reply.status_code in (200, 400, 404, 409, 413, 422), (body, reply.text)
    if reply.headers["content-type"] == "application/json":
        told = json.loads(reply.content, parse_constant=lambda name: pytest.fail(name))
        assert reply.status_code == 200 or set(told) == {"error", "hint"}
    else:
        assert "event: error" not in reply.text, (body, reply.text)


@FUZZ
@given(body=bodies(SearchBody, **FILTERS))
def test_no_body_breaks_search(client, body):
    check(client, "/search", body)


@FUZZ
@given(body=bodies(QueryBody, **FILTERS))
def test_no_body_breaks_query(client, body):
    check(client, "/query", body)


@FUZZ
@given(
    body=bodies(
        IngestBody,
        documents=st.lists(TEXT | ODD, min_size=1, max_size=3),
        metadatas=st.none() | st.lists(META, min_size=1, max_size=3),
        ids=st.none() | st.lists(TEXT | ODD, min_size=1, max_size=3),
    )
    | st.lists(st.tuples(TEXT | ODD, META, TEXT), min_size=1, max_size=4).map(
        lambda rows: {
            "documents": [f"x{row[0]}" for row in rows],
            "metadatas": [row[1] for row in rows],
            "ids": [f"{n}{row[2]}" for n, row in enumerate(rows)],
        }
    )
)
def test_no_body_breaks_ingest(client, body):
    check(client, "/ingest", body)


@FUZZ
@given(body=bodies(SyncBody, only=NAMES, stream=st.booleans()))
def test_no_body_breaks_sync(client, body):
    check(client, "/sync", body)


@FUZZ
@given(raw=st.binary(max_size=60), path=st.sampled_from(["/search", "/query", "/ingest", "/sync"]))
def test_no_bytes_break_a_route(client, raw, path):
    reply = client.post(path, content=raw, headers={"content-type": "application/json"})
    assert reply.status_code in (200, 400, 409, 422), (raw, reply.text)


@FUZZ
@given(path=TEXT | ODD)
def test_no_path_breaks_the_service(client, path):
    from urllib.parse import quote

    for prefix in ("/", "/why/"):
        reply = client.get(prefix + quote(path, safe=""))
        assert reply.status_code in (200, 404, 405), (path, reply.text)
