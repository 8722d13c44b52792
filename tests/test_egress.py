"""The ledger: nothing leaves without a row, and a row says what left."""

import asyncio
import contextvars
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zoneinfo import ZoneInfo

import pytest

from knowme import egress, net, plugins
from knowme.cli import run
from knowme.db import value
from knowme.egress import Ledger, labelled
from knowme.errors import NotFoundError, OfflineError, StoreError
from knowme.home import Home
from knowme.seams import Gate
from knowme.settings import EngineSettings, ModelSettings, PrivacySettings, Settings
from knowme.types import ChatMessage, Options

KEY = "sk-" + "proj-" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4"
AWAY = "https://api.example.com/v1/chat/completions"


class Elsewhere(ThreadingHTTPServer):
    """Stands for a provider's server: says a sentence, embeds, keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Elsewhere)
        self.bodies, self.headers_seen, self.status = [], [], 200
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.on_post = lambda: None
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Elsewhere(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._reply(json.dumps({"data": [{"id": "big"}]}))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.on_post()
        self.server.bodies.append(body)
        self.server.headers_seen.append(dict(self.headers))
        if self.server.status != 200:
            self._reply('{"error": {"message": "no"}}', self.server.status)
        elif self.path.endswith("/embeddings"):
            texts = json.loads(body)["input"]
            rows = [{"index": at, "embedding": [1.0, 0.0]} for at in range(len(texts))]
            self._reply(json.dumps({"data": rows, "model": "e"}))
        else:
            said = {"delta": {"content": "Hello there."}, "index": 0, "finish_reason": None}
            end = {"delta": {}, "index": 0, "finish_reason": "stop"}
            usage = {"prompt_tokens": 11, "completion_tokens": 3}
            events = [{"choices": [said]}, {"choices": [end]}, {"choices": [], "usage": usage}]
            lines = [f"data: {json.dumps({'model': 'big', **event})}\n\n" for event in events]
            self._reply("".join(lines) + "data: [DONE]\n\n", kind="text/event-stream")

    def _reply(self, text, status=200, kind="application/json"):
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def elsewhere():
    server = Elsewhere()
    yield server
    server.shutdown()
    server.server_close()


def rows(home, limit=100):
    with home.db.read() as conn:
        return egress.listed(conn, limit)


def engine_of(home, elsewhere, **more):
    setting = {"model": "big", "url": elsewhere.url, "api_key": KEY, "local": "false", **more}
    return plugins.find("engines", "openai")(**setting, gate=home.ledger)


def say(engine, text="hello"):
    async def asked():
        try:
            return [chunk async for chunk in engine.stream([ChatMessage("user", text)], Options())]
        finally:
            await engine.aclose()

    return asyncio.run(asked())


# --- the row --------------------------------------------------------------------------------------


def test_the_ledger_is_a_gate(home):
    gate: Gate = home.ledger
    row = gate.leaving(AWAY, b"{}")
    gate.left(row, "200", 5)
    assert rows(home)[0]["received_bytes"] == 5


def test_what_a_real_engine_sends_is_a_row_with_its_label(home, elsewhere):
    with labelled("answer", model="big", classes={"question": "allow"}) as label:
        say(engine_of(home, elsewhere))
    (row,) = rows(home)
    assert label.rows == [row["id"]]
    assert row["purpose"] == "answer" and row["classes"] == {"question": "allow"}
    assert row["url"] == f"{elsewhere.url}/chat/completions" and row["model"] == "big"
    assert row["sent_bytes"] == len(elsewhere.bodies[0]) and row["received_bytes"] > 50
    assert row["outcome"] == "200" and row["kept"]
    with home.db.read() as conn:
        assert egress.body(conn, row["id"]).encode() == elsewhere.bodies[0]


def test_the_row_is_on_disk_before_the_first_byte_goes(home, elsewhere):
    seen = []
    elsewhere.on_post = lambda: seen.append([row["outcome"] for row in rows(home)])
    say(engine_of(home, elsewhere))
    assert seen == [["sent"]]


def test_what_cannot_be_noted_is_not_sent(home, elsewhere):
    home.db.write(lambda conn: conn.execute("ALTER TABLE egress RENAME TO elsewhere"))
    with pytest.raises(StoreError):
        say(engine_of(home, elsewhere))
    assert elsewhere.bodies == []


def test_offline_nothing_is_noted_and_nothing_goes(home):
    net.forbid(True)
    try:
        with pytest.raises(OfflineError):
            home.ledger.leaving(AWAY, b"{}")
    finally:
        net.forbid(False)
    assert rows(home) == []


def test_an_error_of_the_server_is_what_the_row_says(home, elsewhere):
    elsewhere.status = 401
    with pytest.raises(Exception, match="401"):
        say(engine_of(home, elsewhere))
    assert [row["outcome"] for row in rows(home)] == ["401"]


def test_no_key_stands_in_the_ledger(home, elsewhere, tmp_path):
    say(engine_of(home, elsewhere), f"my key is {KEY}, password: hunter2")
    assert f"Bearer {KEY}" in str(elsewhere.headers_seen)  # the wire did carry it
    home.ledger.leaving(f"https://me:{KEY}@api.example.com/v1/x?key={KEY}#{KEY}", KEY.encode())
    home.ledger.leaving(AWAY, json.dumps({"api_key": "0f9a8b7c", "n": 1}).encode())
    with home.db.read() as conn:
        for row in rows(home):
            kept = egress.body(conn, row["id"]) + str(row)
            assert KEY not in kept and "hunter2" not in kept and "0f9a8b7c" not in kept
        assert json.loads(egress.body(conn, 1))["messages"][0]["content"] == (
            "my key is [api key], password: [password]"
        )
        assert [row["url"] for row in rows(home)][1] == "https://api.example.com/v1/x"


def test_a_configured_key_that_looks_like_a_word_is_not_kept_either(home):
    settings = Settings(
        engine=EngineSettings(api_key="plainkey"), models=(ModelSettings(api_key="another key"),)
    )
    row = Ledger(home.db, settings).leaving(AWAY, b'{"a": "plainkey, another key, short"}')
    with home.db.read() as conn:
        assert egress.body(conn, row) == '{"a": "[api key], [api key], short"}'


def test_bodies_are_kept_only_where_that_is_wanted(home):
    ledger = Ledger(home.db, Settings(privacy=PrivacySettings(keep_bodies=False)))
    row = ledger.leaving(AWAY, b'{"model": "big"}')
    empty = home.ledger.leaving("https://api.example.com/v1/models", b"")
    with home.db.read() as conn:
        assert value(conn, "SELECT count(*) FROM egress WHERE body IS NOT NULL") == 0
        for number, why in ((row, "keep_bodies"), (empty, "no body"), (99, "number 99")):
            with pytest.raises(NotFoundError, match=why):
                egress.body(conn, number)
    assert rows(home)[1]["sent_bytes"] == 16 and rows(home)[1]["model"] == "big"


def test_a_body_that_is_no_text_is_kept_too(home):
    odd = [b"\xff\xfe\x00", b"[1, 2", "Grüße".encode(), b'{"a": NaN}', b"3", b'"x"']
    numbers = [home.ledger.leaving(AWAY, body) for body in odd]
    with home.db.read() as conn:
        kept = [egress.body(conn, number) for number in numbers]
    assert kept[1:] == [body.decode() for body in odd[1:]] and kept[0] == "\\xff\\xfe\x00"


def test_pictures_are_kept_as_they_were_sent(home):
    picture = "data:image/png;base64," + "QUJD" * 50_000
    body = json.dumps({"messages": [{"content": [{"image_url": {"url": picture}}]}]}).encode()
    number = home.ledger.leaving(AWAY, body)
    with home.db.read() as conn:
        assert egress.body(conn, number).encode() == body
        assert value(conn, "SELECT length(body) FROM egress") < len(body) / 50


# --- labels ---------------------------------------------------------------------------------------


def test_a_send_that_nobody_labelled_is_a_row_all_the_same(home):
    for url in ("v1/chat/completions", "v1/embeddings", "api/embed", "v1/models", "api/tags", "x"):
        home.ledger.leaving(f"https://api.example.com/{url}", b"")
    told = [(row["purpose"], row["classes"]) for row in reversed(rows(home))]
    embedding, listing = ("embedding", {"documents": "allow"}), ("model list", {})
    unknown = ("unlabelled", egress.UNKNOWN)
    assert told == [unknown, embedding, embedding, listing, listing, unknown]


def test_a_remote_embedder_is_in_the_ledger(home, elsewhere):
    # An address that we do not take for this machine's, and that leads to it all the same.
    url = elsewhere.url.replace("127.0.0.1", "127.1")
    assert not net.is_loopback(url)
    embedder = plugins.find("embedders", "openai")(
        model="e", url=url, api_key=KEY, gate=home.ledger
    )
    vectors = embedder.embed(["one", "two"], "document")
    embedder.close()
    assert vectors.shape == (2, 2)
    told = rows(home)
    assert told and {row["purpose"] for row in told} == {"embedding"}
    assert told[0]["model"] == "e" and told[0]["classes"] == {"documents": "allow"}
    assert len(told) == len(elsewhere.bodies)


def test_what_stays_on_this_machine_is_no_row(home, elsewhere):
    say(engine_of(home, elsewhere, local="auto"))
    assert elsewhere.bodies and rows(home) == []


def test_a_label_reaches_tasks_and_threads_and_no_further(home):
    def send():
        return home.ledger.leaving(AWAY, b"")

    async def both():
        with labelled("shadow", classes={"question": "placeholders"}) as label:
            task = asyncio.create_task(asyncio.to_thread(send))
            await asyncio.gather(task, asyncio.to_thread(send))
            with labelled("check") as inner:
                send()
            send()
        send()
        return label, inner

    async def two_at_once():
        async def one(name):
            with labelled(name):
                await asyncio.sleep(0)
                return await asyncio.to_thread(send)

        return await asyncio.gather(one("a"), one("b"))

    label, inner = asyncio.run(both())
    assert len(label.rows) == 3 and len(inner.rows) == 1
    purposes = [row["purpose"] for row in reversed(rows(home))]
    assert sorted(purposes) == sorted(["shadow"] * 3 + ["check", "unlabelled"])
    first, second = asyncio.run(two_at_once())
    told = {row["id"]: row["purpose"] for row in rows(home)}
    assert told[first] == "a" and told[second] == "b"


def test_a_label_ends_even_where_another_context_ends_it():
    def steps():
        with labelled("answer"):
            yield 1

    generator = steps()
    contextvars.copy_context().run(next, generator)
    generator.close()
    assert egress._label.get() is None


def test_a_list_of_models_within_an_answer_holds_nothing_of_it(home):
    with labelled("answer", model="big", classes={"question": "allow"}) as label:
        listing = home.ledger.leaving("https://api.example.com/v1/models", b"")
        answer = home.ledger.leaving(AWAY, b"{}")
    assert label.rows == [listing, answer]
    told = [(row["purpose"], row["classes"]) for row in rows(home)]
    assert told == [("answer", {"question": "allow"}), ("model list", {})]


@pytest.mark.parametrize("deep", [400, 900, 3_000, 100_000])
def test_a_body_however_deep_is_noted_and_its_secrets_are_masked(home, deep):
    text = '{"a":' * deep + f'"my key is {KEY}"' + "}" * deep
    number = home.ledger.leaving(AWAY, text.encode())
    with home.db.read() as conn:
        assert KEY not in egress.body(conn, number)


# --- money ----------------------------------------------------------------------------------------


def put_call(conn, at_ms, cost, local=0):
    conn.execute(
        "INSERT INTO calls(at_ms, purpose, role, model, engine, local, state, cost)"
        " VALUES(?, 'answer', 'cloud', 'big', 'openai', ?, 'done', ?)",
        (at_ms, local, cost),
    )


def test_the_last_row_of_a_call_bears_its_cost(home):
    numbers = [home.ledger.leaving(AWAY, b"{}") for _ in range(3)]

    def settle(conn):
        egress.settle(
            conn, numbers[:2], answer_id=None, prompt_tokens=10, answer_tokens=2, cost=0.5
        )
        egress.settle(conn, [], answer_id=None, prompt_tokens=1, answer_tokens=1, cost=9.0)

    home.db.write(settle)
    told = [(row["prompt_tokens"], row["answer_tokens"], row["cost"]) for row in rows(home)]
    assert told == [(0, 0, 0.0), (10, 2, 0.5), (0, 0, 0.0)]


def test_what_was_spent_is_the_remote_calls_since_then(home):
    def put(conn):
        put_call(conn, 999, 1.0)
        put_call(conn, 1000, 0.25)
        put_call(conn, 2000, 0.5)
        put_call(conn, 2000, 8.0, local=1)

    with home.db.read() as conn:
        assert egress.spent(conn, 0) == 0.0
    home.db.write(put)
    with home.db.read() as conn:
        assert egress.spent(conn, 1000) == 0.75


def test_a_month_begins_at_midnight_where_the_person_lives():
    at = int(datetime(2026, 3, 31, 22, 30, tzinfo=UTC).timestamp() * 1000)
    lisbon, utc = ZoneInfo("Europe/Lisbon"), ZoneInfo("UTC")
    berlin = ZoneInfo("Europe/Berlin")  # there it is April already
    march = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    april = int(datetime(2026, 3, 31, 22, tzinfo=UTC).timestamp() * 1000)
    assert egress.month_start_ms(at, lisbon) == egress.month_start_ms(at, utc) == march
    assert egress.month_start_ms(at, berlin) == april
    assert egress.month_elapsed(march, utc) == 0.0
    assert 0.99 < egress.month_elapsed(at, utc) < 1.0
    assert 0.0 <= egress.month_elapsed(at, None) < 1.0
    december = int(datetime(2026, 12, 16, 12, tzinfo=UTC).timestamp() * 1000)
    assert egress.month_elapsed(december, utc) == 0.5


def test_sums_by_destination_and_by_day(home):
    def put(conn):
        for at_ms, url, sent, cost in (
            (1_000, "https://a.example/v1", 10, 0.1),
            (2_000, "https://a.example/v1/x", 20, 0.2),
            (90_000_000, "https://a.example/v1", 30, 0.0),
            (90_000_000, "https://b.example:8443/", 1, 0.0),
        ):
            conn.execute(
                "INSERT INTO egress(at_ms, url, purpose, classes, sent_bytes, cost)"
                " VALUES(?, ?, 'answer', '{}', ?, ?)",
                (at_ms, url, sent, cost),
            )

    home.db.write(put)
    with home.db.read() as conn:
        first, second = egress.totals(conn)
        days = egress.by_day(conn, None, ZoneInfo("UTC"))
        assert len(egress.listed(conn, 2)) == 2
        assert [row["id"] for row in egress.listed(conn, 9, since_ms=2_000)] == [4, 3, 2]
    assert (first["to"], first["calls"], first["sent_bytes"]) == ("a.example", 3, 60)
    assert first["cost"] == pytest.approx(0.3) and second["to"] == "b.example:8443"
    assert [(one["day"], one["to"], one["calls"]) for one in days] == [
        ("1970-01-02", "a.example", 1), ("1970-01-02", "b.example:8443", 1),
        ("1970-01-01", "a.example", 2),
    ]  # fmt: skip


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, elsewhere):
    """Give a home whose cloud model is ``elsewhere``."""
    Home.create(tmp_path / "home")
    (tmp_path / "home" / "config.yaml").write_text(
        f"""
name: Inês
embedder: {{kind: hashing}}
engine: {{kind: echo}}
models:
  primary: {{engine: echo}}
  cloud: {{engine: openai, model: big, url: "{elsewhere.url}", local: "false", price_in: 1}}
privacy: {{names: [Tomás]}}
"""
    )
    return tmp_path / "home"


def knowme(capsys, folder, *args):
    code = run(["--home", str(folder), *map(str, args)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_where_nothing_left_it_says_so(capsys, folder):
    assert knowme(capsys, folder, "egress") == (0, "Nothing ever left this machine.\n", "")
    code, out, _ = knowme(capsys, folder, "egress", "--json")
    assert json.loads(out) == {"egress": [], "totals": [], "offline": False}
    with Home.open(folder, {"offline": True}):
        assert "Nothing" in knowme(capsys, folder, "egress", "--since", "7d")[1]


def test_offline_is_told(capsys, folder, monkeypatch):
    monkeypatch.setenv("KNOWME_OFFLINE", "true")
    assert "offline is set" in knowme(capsys, folder, "egress")[1]
    assert not net.offline()  # the home is closed again


def test_what_left_is_listed_and_shown(capsys, folder, elsewhere):
    with Home.open(folder) as home:
        with labelled("answer", classes={"question": "allow", "recalled:notes": "placeholders"}):
            say(engine_of(home, elsewhere), f"Is \x1b[2J {KEY} \u202e safe?")
        with labelled("check", model="big"):
            home.ledger.leaving(AWAY, b"not json")
    code, out, err = knowme(capsys, folder, "egress")
    assert code == 0 and err == ""
    assert out.index(AWAY) < out.index(elsewhere.url)  # the newest first
    assert "question (allow), recalled:notes (placeholders)" in out and "big (answer)" in out
    assert "total  api.example.com: 1 send," in out and "200" in out
    code, out, _ = knowme(capsys, folder, "egress", "show", 1)
    assert "user:" in out and "[api key]" in out and "safe?" in out
    assert KEY not in out and "\x1b[2J" not in out and "\u202e" not in out
    assert json.loads(knowme(capsys, folder, "egress", "show", 1, "--json")[1])["body"]["messages"]
    assert json.loads(knowme(capsys, folder, "egress", "show", 1, "--raw")[1])["model"] == "big"
    assert "not json" in knowme(capsys, folder, "egress", "show", 2)[1]
    code, _, err = knowme(capsys, folder, "egress", "show", 77)
    assert code == 1 and "number 77" in err and "knowme --home" in err
    code, out, err = knowme(capsys, folder, "egress", "--limit", 1)
    assert elsewhere.url not in out.partition("total")[0] and "newest 1 are shown" in err
    assert knowme(capsys, folder, "egress", "--by-day")[1].count("api.example.com") == 2
    assert "since then" in knowme(capsys, folder, "egress", "--since", "2999-01-01")[1]


def test_a_dry_run_shows_what_would_leave_and_sends_nothing(capsys, folder, elsewhere):
    text = "Explain step by step how a heat pump works, with the formula of its efficiency."
    code, out, err = knowme(capsys, folder, "egress", "--dry-run", text)
    assert code == 0, err
    assert text in " ".join(out.split()) and elsewhere.url in out
    assert "question (allow)" in out and "May leave this machine: your question." in out
    code, out, err = knowme(capsys, folder, "egress", "--dry-run", text, "--json")
    told = json.loads(out)
    assert told["role"] == "cloud" and told["classes"] == {"question": "allow"}
    assert told["messages"][-1]["content"].endswith(text) and told["bytes"] >= len(text)
    assert elsewhere.bodies == []
    with Home.open(folder) as home:
        assert rows(home) == []


def test_a_dry_run_shows_in_words_what_stays_here(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KNOWME_ASK_THRESHOLD", "0")
    note = tmp_path / "heating.md"
    note.write_text("# Heating\n\nOn 3 March we chose the heat pump of Nordwind.\n", "utf-8")
    assert knowme(capsys, folder, "import-file", str(note))[0] == 0
    asked = "/cloud what did we choose for the heating"
    code, out, err = knowme(capsys, folder, "egress", "--dry-run", asked)
    assert code == 0, err
    stays = out.partition("Stays here (1):")[2]
    assert "privacy.recalled: deny" in stays and "the heat pump of Nordwind" in stays
    code, out, err = knowme(capsys, folder, "route", asked)
    assert code == 0 and "stays here: 1 piece" in out, err


def test_a_dry_run_without_a_remote_model_says_that_nothing_can_leave(capsys, folder):
    (folder / "config.yaml").write_text("embedder: {kind: hashing}\nengine: {kind: echo}\n")
    code, out, _ = knowme(capsys, folder, "egress", "--dry-run", "hello")
    assert code == 0 and out.startswith("Nothing would leave")
