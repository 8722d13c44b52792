"""A home that was lived in: a synced life, questions, facts, a profile; and what stands in it."""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import apsw
import yaml
import zstandard

from knowme import forget, structure, sync
from knowme.ask import Asked, ask
from knowme.db import connect, rows, value
from knowme.fiction.build import build, questions
from knowme.home import Home

QUESTIONS = 10


def lived(folder: Path, **settings) -> Path:
    """Make the home of the fictional person as ``synced`` does, and ask some questions in it."""
    home_path = synced(folder, **settings)
    with Home.open(home_path) as home:
        asking(home, [each.question for each in questions()[:QUESTIONS]])
    return home_path


def synced(folder: Path, **settings) -> Path:
    """Make the home of the fictional person in ``folder``/home, beside what it is read from."""
    source = build(folder / "openclaw")
    home_path = folder / "home"
    Home.create(home_path)
    given = {
        "embedder": {"kind": "hashing"},
        "engine": {"kind": "echo"},
        **settings,
        "sources": [{"kind": "openclaw", "path": str(source)}],
    }
    (home_path / "config.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    with Home.open(home_path) as home:
        sync.sync(home)
        structure.catch_up(home)
    return home_path


def asking(home, questions, conversation=""):
    """Ask one after the other; returns the receipts' numbers."""

    async def one(question):
        events = [event async for event in ask(home, Asked(question, conversation=conversation))]
        return events[-1].receipt_id

    return [asyncio.run(one(each)) for each in questions]


def copied(made: Path, target: Path) -> Path:
    shutil.copytree(made, target)
    return target


def forms(text: str) -> list[bytes]:
    """The bytes that a text may be kept as."""
    made = [text.encode(), json.dumps(text, ensure_ascii=False)[1:-1].encode()]
    return list(dict.fromkeys([*made, json.dumps(text)[1:-1].encode()]))


def everything(path: Path) -> bytes:
    """Return all bytes of a home but its backups, and all that is compressed in it, unpacked.

    Looked for with `in`: nothing of the house's own search has a part in it.
    """
    parts = []
    for file in sorted(path.rglob("*")):
        if file.is_file() and "backups" not in file.parts and ".before-restore-" not in file.name:
            parts.append(file.read_bytes())
    conn = apsw.Connection(str(path / "memory.db"), flags=apsw.SQLITE_OPEN_READONLY)
    for sql in (
        "SELECT body FROM egress WHERE body IS NOT NULL",
        "SELECT text FROM messages WHERE typeof(text) = 'blob'",
    ):
        parts += [zstandard.ZstdDecompressor().decompress(blob) for (blob,) in conn.execute(sql)]
    conn.close()
    return b"\0".join(parts)


def stands(haystack: bytes, text: str) -> bool:
    return any(form in haystack for form in forms(text))


def tables(path: Path, gone=frozenset(), but=()) -> dict[str, list[tuple]]:
    """Return every row that does not belong to the messages ``gone``, by table.

    Left out is what a forgetting notes of itself, and what merely says how far something is.
    """
    conn = connect(path / "memory.db", readonly=True)
    left = {"erasures", "tombstones", "changes", "sqlite_sequence", "states", "embedders", *but}
    found = {}
    for (name,) in rows(
        conn,
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite_%'",
    ):
        if name not in left:
            found[name] = sorted(conn.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
    conn.close()
    return found


def index_words(path: Path) -> tuple[set, set]:
    """Return (item, column, place, word) of the word index, and of one made from the items."""
    from knowme import memory

    with tempfile.TemporaryDirectory() as folder:
        for file in path.glob("memory.db*"):
            shutil.copy(file, folder)
        conn = connect(Path(folder) / "memory.db")
        conn.execute("CREATE VIRTUAL TABLE temp.told USING fts5vocab(main, item_fts, instance)")
        sql = "SELECT doc, col, offset, term FROM temp.told"
        now = set(conn.execute(sql).fetchall())
        with conn:
            conn.execute("INSERT INTO item_fts(item_fts) VALUES('delete-all')")
            memory.write_words(conn, [i for (i,) in rows(conn, "SELECT id FROM items")])
        new = set(conn.execute(sql).fetchall())
        conn.close()
    return now, new


# --- forgetting ---------------------------------------------------------------------------------


def put(home, *texts, session="diary", start=1_700_000_000_000, **more):
    """Store messages of a conversation that somebody sends; returns their numbers, in order."""
    metas = [
        {"session": session, "timestamp": (start + n * 60_000) / 1000, **more}
        for n in range(len(texts))
    ]
    with home.db.read() as conn:
        last = value(conn, "SELECT coalesce(max(id), 0) FROM messages")
    sync.ingest(home, list(texts), metas)
    with home.db.read() as conn:
        return [
            i for (i,) in rows(conn, "SELECT id FROM messages WHERE id > ? ORDER BY id", (last,))
        ]


def forgotten(home, **what):
    found = forget.plan(home, forget.What(**what))
    return found, forget.erase(home, found)


def message(home, number, **more):
    return forgotten(home, kind="message", messages=(str(number),), **more)


def alive(home):
    with home.db.read() as conn:
        return {i for (i,) in rows(conn, "SELECT id FROM messages")}
