"""What comes in: from sources, from callers, from a changed embedder.

Promises: each batch is one transaction that holds its messages, their items and words, their
vectors and the marks of the source, so that a kill at any point loses nothing acknowledged and
repeats nothing. Embedding happens before the transaction. When the embedder is down, everything
but the vectors is stored, and a job brings them later.
Refuses to know: any source's format, how search ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from knowme import archive, facts, jobs, memory, plugins, tombstones
from knowme.db import value
from knowme.errors import ConfigError, InputError, KnowmeError, ModelError
from knowme.home import Home
from knowme.redact import secrets_in
from knowme.seams import Embedder, Vectors
from knowme.sensitive import sensitive
from knowme.settings import SourceSettings
from knowme.times import now_ms, parse_time
from knowme.types import Counts, Mark, Record, Role

BATCH_RECORDS = 256
BATCH_CHARS = 1_000_000
PROBLEMS_KEPT = 100
Progress = Callable[[Counts], None]


@dataclass(slots=True)
class Tally:
    """Counts while they grow."""

    by: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def skip(self, record: Record) -> None:
        """Count a record that could not be taken, and name it; only name one that was."""
        if not record.meta.get("taken"):
            self.skipped[record.text] += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(
                f"{record.origin}: {record.text}" if record.origin else record.text
            )

    def counts(self) -> Counts:
        """Return them as a frozen value."""
        names = ("read", "new", "changed", "unchanged", "removed")
        numbers = {name: self.by[name] for name in names}
        return Counts(**numbers, skipped=dict(self.skipped), problems=tuple(self.problems))


# --- storing ------------------------------------------------------------------------------------


def store(
    home: Home,
    source: str,
    records: Iterable[tuple[Record | None, Mark | None]],
    progress: Progress | None = None,
) -> Counts:
    """Store what a source yields, in batches; returns what happened.

    ``progress`` is called after each committed batch with the counts so far. Raises what the
    source raises, after everything it yielded before is stored.
    """
    tally = Tally()
    writer = _Writer(home, source)
    batch: list[Record] = []
    marks: dict[str, Any] = {}
    chars = 0

    def flush() -> None:
        nonlocal batch, marks, chars
        full, reached = batch, marks
        batch, marks, chars = [], {}, 0
        if full or reached:
            writer.write(full, reached, tally)
            if progress:
                progress(tally.counts())

    try:
        for record, mark in records:
            if record is not None and record.kind == "skipped":
                tally.skip(record)
            elif record is not None:
                tally.by["read"] += 1
                batch.append(archive.storable(record))
                chars += len(record.text) + len(record.raw or "")
            if mark is not None:
                marks[mark.unit] = mark.state
            if len(batch) >= BATCH_RECORDS or chars >= BATCH_CHARS or len(marks) >= BATCH_RECORDS:
                flush()
    finally:
        flush()
    if writer.problem:
        tally.problems.append(f"No vectors yet, words only: {writer.problem}")
    return tally.counts()


class _Writer:
    """Writes batches of one source: embed first, then one transaction."""

    def __init__(self, home: Home, source: str) -> None:
        self.home = home
        self.source = source
        self.problem = ""
        self._open()

    def _open(self) -> None:
        try:
            self.space, self.embedder = open_space(self.home)
        except ConfigError as error:  # a package is missing: words can be stored all the same
            self.space, self.embedder, self.problem = None, None, str(error)

    def write(self, batch: Sequence[Record], marks: Mapping[str, Any], tally: Tally) -> None:
        with self.home.db.read() as conn:
            taken_over = self.space is not None and not memory.holds(conn, self.space)
        if taken_over:  # another process has let another embedder serve
            self._open()
        vectors = self._embed(self._fresh_texts(batch))
        outcomes = self.home.db.write(lambda conn: self._store(conn, batch, marks, vectors))
        if forgotten := outcomes.pop("forgotten", 0):
            tally.skipped["forgotten"] += forgotten
        tally.by.update(outcomes)

    def _fresh_texts(self, batch: Sequence[Record]) -> list[str]:
        """Return the texts of the batch that are not in memory yet, each once."""
        texts: dict[str, None] = {}
        with self.home.db.read() as conn:
            for record in batch:
                if record.kind == "removed" or not record.recall:
                    continue
                if tombstones.buried(conn, self._source(record), record):
                    continue  # what was forgotten is not even embedded
                if record.role in memory.PASSAGE_WORDS and not self._known(conn, record):
                    speaker = memory.named(
                        self._source(record), record.role, record.speaker, record.meta
                    )
                    for span in memory.spans(record.text, record.role):
                        piece = record.text[span.start : span.end]
                        texts[memory.passage(record.role, speaker, piece)] = None
        return list(texts)

    def _known(self, conn: apsw.Connection, record: Record) -> bool:
        conversation = archive.find_conversation(conn, self._source(record), record.conversation)
        if conversation is None:
            return False
        now = archive.current(conn, conversation, record.external_id)
        if now is not None and not now.recall:
            return False
        return archive.compare(conn, conversation, record, now) == "unchanged"

    def _source(self, record: Record) -> str:
        return str(record.meta.get("_source") or self.source)

    def _embed(self, texts: Sequence[str]) -> dict[str, Vectors]:
        if self.embedder is None or not texts:
            return {}
        try:
            shown = may_embed(self.home, texts)
            return dict(zip(texts, self.embedder.embed(shown, "document"), strict=True))
        except ModelError as error:  # stored without vectors; the reindex job brings them
            self.problem = str(error)
            return {}

    def _store(
        self,
        conn: apsw.Connection,
        batch: Sequence[Record],
        marks: Mapping[str, Any],
        vectors: Mapping[str, Vectors],
    ) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        fresh: list[int] = []
        moved: list[int] = []
        stamp = now_ms()
        for record in batch:
            outcomes.update(self._store_one(conn, record, stamp, fresh, moved))
        if moved:
            memory.move_items(conn, moved)
            facts.settle(conn, moved, stamp)  # what was said at one time follows the place
        made = memory.add_items(conn, fresh)
        if made and self.space is not None:
            have = {item: vectors[text] for item, text in made.items() if text in vectors}
            stored = bool(have) and memory.put_vectors(
                conn, self.space, list(have), _stack(list(have.values()))
            )
            if not stored or len(have) < len(made):
                jobs.enqueue(conn, "reindex", {}, unique_key="reindex")
        if fresh and self.source == "ingest":  # whoever syncs learns from it when all is read
            jobs.learn_soon(conn)
        archive.put_marks(conn, self.source, marks, stamp)
        memory.prune_changes(conn)
        return outcomes

    def _store_one(
        self,
        conn: apsw.Connection,
        record: Record,
        stamp: int,
        fresh: list[int],
        moved: list[int],
    ) -> Counter[str]:
        source = self._source(record)
        if record.kind == "removed":
            conversation = archive.find_conversation(conn, source, record.conversation)
            if conversation is None:
                return Counter()
            gone = archive.retire(conn, conversation, record.external_id, stamp)
            memory.drop_items(conn, gone)
            return Counter(removed=len(gone))
        if tombstones.buried(conn, source, record):
            return Counter(forgotten=1)
        record = tombstones.without_title(conn, source, record)
        if record.meta.get("_upsert"):
            _leave_other_conversations(conn, source, record, stamp)
        conversation = archive.put_conversation(conn, source, record, stamp)
        message, outcome, replaced = archive.put(conn, conversation, record, stamp)
        if replaced is not None:
            memory.drop_items(conn, [replaced])
        if outcome == "moved":
            moved.append(message)
        if outcome != "unchanged":
            fresh.append(message)  # also what moved: it may have come into recall
        return Counter({"unchanged" if outcome == "moved" else outcome: 1})


def _stack(vectors: list[Vectors]) -> Vectors:
    import numpy as np

    return np.stack(vectors)


def _leave_other_conversations(
    conn: apsw.Connection, source: str, record: Record, stamp: int
) -> None:
    """An upsert under a known id may name another conversation: the old place is given up."""
    rows = conn.execute(
        # CROSS JOIN: by the message's name, never through every conversation of the source.
        "SELECT m.id FROM messages m CROSS JOIN conversations c ON c.id = m.conversation_id"
        " WHERE m.external_id = ? AND m.retired_ms IS NULL AND c.source = ?"
        " AND c.external_id <> ?",
        (record.external_id, source, record.conversation),
    ).fetchall()
    for (message,) in rows:
        conn.execute("UPDATE messages SET retired_ms = ? WHERE id = ?", (stamp, message))
        memory.drop_items(conn, [int(str(message))])


# --- sources ------------------------------------------------------------------------------------


def sync(
    home: Home, only: Sequence[str] = (), progress: Callable[[str, Counts], None] | None = None
) -> dict[str, Counts]:
    """Read every configured source (or those named in ``only``); returns name -> counts.

    Raises ConfigError when nothing is configured or a name is unknown. A source that cannot be
    read is counted as skipped with its reason; the others are read all the same.
    """
    chosen = _chosen(home, only)
    done: dict[str, Counts] = {}
    for name, settings in chosen.items():

        def tell(counts: Counts, name: str = name) -> None:
            if progress:
                progress(name, counts)

        try:
            done[name] = store(home, name, _read(home, name, settings), tell)
        except KnowmeError as error:
            if len(chosen) == 1:
                raise
            done[name] = Counts(skipped={"source": 1}, problems=(str(error),))
    return done


def _chosen(home: Home, only: Sequence[str]) -> dict[str, SourceSettings]:
    configured = source_names(home.settings.sources)
    unknown = sorted(set(only) - set(configured))
    if unknown:
        raise ConfigError(
            f"There is no source called {unknown[0]!r}.",
            f"Configured: {', '.join(configured) or 'none'}.",
        )
    chosen = {
        name: source
        for name, source in configured.items()
        if (name in only if only else source.enabled)
    }
    if not chosen:
        raise ConfigError("No source is configured.", "Add one to config.yaml, or: knowme init")
    return chosen


def source_names(sources: Sequence[SourceSettings]) -> dict[str, SourceSettings]:
    """Return name -> settings; a nameless source is called by its kind, a second one kind-2."""
    named: dict[str, SourceSettings] = {}
    for source in sources:
        base = name = source.name or source.kind
        number = 2
        while name in named:
            name, number = f"{base}-{number}", number + 1
        named[name] = source
    return named


def _read(
    home: Home, name: str, settings: SourceSettings
) -> Iterator[tuple[Record | None, Mark | None]]:
    path = Path(settings.path).expanduser()
    reader = plugins.find("sources", settings.kind)(path=path, name=name)
    with home.db.read() as conn:
        cursor = archive.read_marks(conn, name)
    yield from reader.read(cursor)


def import_path(home: Home, path: Path, kind: str, progress: Progress | None = None) -> Counts:
    """Read a file or folder once, as the source ``kind``. Raises SourceError, ConfigError."""
    name = archive.whole(f"import:{path.absolute()}")
    return store(home, name, _read(home, name, SourceSettings(kind=kind, path=str(path))), progress)


# --- callers ------------------------------------------------------------------------------------

_ROLES: dict[str, Role] = {
    "user": "user", "human": "user", "me": "user",
    "assistant": "assistant", "ai": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip


def ingest(
    home: Home,
    documents: Sequence[str],
    metadatas: Sequence[Mapping[str, Any]] | None = None,
    ids: Sequence[str] | None = None,
) -> tuple[Counts, int]:
    """Store documents that a caller sends; returns (counts, items in memory).

    A document whose metadata carry ``session`` or ``conversation`` is a message of it, in the order
    given; ``speaker``, ``role`` and ``timestamp`` say who said it and when. Any other is a document
    by itself. The same id again replaces the old text. Raises InputError.
    """
    for what, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(documents):
            raise InputError(
                f"There are {len(documents)} documents and {len(given)} {what}.",
                f"Send one of the {what} for each document, or none at all.",
            )
    seen: set[str] = set()
    records = []
    for number, text in enumerate(documents):
        meta = metadatas[number] if metadatas is not None else {}
        record = _document(number, text, meta, ids[number] if ids is not None else None)
        if record.external_id in seen and ids is not None:
            raise InputError(f"The id {record.external_id!r} stands twice in one request.")
        seen.add(record.external_id)
        records.append((record, None))
    counts = store(home, "ingest", records)
    with home.db.read() as conn:
        return counts, memory.count(conn)


def _document(number: int, text: str, meta: Mapping[str, Any], id: str | None) -> Record:
    if not text.strip():
        raise InputError(f"Document {number} is empty.", "Leave it out.")
    if own := next((key for key in meta if str(key).startswith("_")), None):
        raise InputError(f"metadatas[{number}] has the key {own!r}.", "Begin it with a letter.")
    try:
        json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadatas[{number}] is not JSON: {error}.") from error
    if id is not None and not id:
        raise InputError(f"The id of document {number} is empty.", "Leave it out, or name it.")
    session = str(meta.get("session") or meta.get("conversation") or "")
    at_ms = parse_time(meta.get("timestamp"), f"metadatas[{number}].timestamp")
    speaker = str(meta.get("speaker") or "")
    said = f"{session}\0{speaker}\0{at_ms}\0{text}"
    name = id or hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:24]
    shared: dict[str, Any] = {
        "external_id": name, "text": text, "at_ms": at_ms, "seq": -1,
        "meta": {**meta, "_upsert": True},
    }  # fmt: skip
    if not session:
        title = str(meta.get("title") or "")
        return Record("section", conversation=f"document/{name}", role="document", title=title,
                      speaker=speaker, **shared)  # fmt: skip
    role = _ROLES.get(str(meta.get("role") or speaker).lower(), "user")
    plain = speaker.lower() in _ROLES
    return Record("message", conversation=session, role=role, speaker="" if plain else speaker,
                  **shared)  # fmt: skip


# --- embeddings ---------------------------------------------------------------------------------


def open_space(home: Home) -> tuple[memory.Space | None, Embedder | None]:
    """Register the configured embedder if it is new, and return what serves (Home.serving)."""
    try:
        embedder = home.embedder
        name = None if embedder is None else (embedder.fingerprint, embedder.dims)
    except ModelError:
        name = None
    if name is not None:
        fingerprint, dims = name
        serving = home.space()
        if serving is None or serving.fingerprint != fingerprint:
            spec = home.embedder_spec()
            home.db.write(lambda c: memory.put_space(c, fingerprint, dims, spec, now_ms()))
    return home.serving()


def pending(home: Home) -> int:
    """Return how many items the configured embedder has yet to embed."""
    with home.db.read() as conn:
        waiting = [memory.count_missing(conn, space.id) for space in memory.spaces(conn)]
        return max(waiting, default=0)


def reindex(home: Home, progress: Callable[[int, int], bool | None] | None = None) -> int:
    """Embed every item that has no vector of the configured embedder; returns how many.

    Resumable: what is done stays done. The old embedder's vectors serve until the last item has
    its new one; then they are dropped. ``progress(done, total)`` may return True to stop.
    Raises ModelError when the embedder cannot work.
    """
    embedder = home.embedder
    if embedder is None:
        return 0
    fingerprint, dims, spec = embedder.fingerprint, embedder.dims, home.embedder_spec()
    if not home.settings.retention.vectors_days:
        home.db.write(lambda conn: memory.leave_bare(conn, None, (), now_ms()))
    done = 0
    while True:  # each time around: another process may have let another embedder take over
        space = home.db.write(lambda c: memory.put_space(c, fingerprint, dims, spec, now_ms()))
        step, stopped = _embed_missing(home, embedder, space, done, progress)
        done += step
        if stopped:
            return done
        if step == 0 and home.db.write(partial(memory.promote, space=space)):
            return done


def _embed_missing(
    home: Home,
    embedder: Embedder,
    space: memory.Space,
    done: int,
    progress: Callable[[int, int], bool | None] | None,
) -> tuple[int, bool]:
    """Go once through the items, newest first; returns (how many were embedded, stopped)."""
    with home.db.read() as conn:
        total = done + memory.count_missing(conn, space.id)
    below, step = 2**62, 0
    while True:
        with home.db.read() as conn:
            ids = memory.missing(conn, space.id, BATCH_RECORDS, below)
            texts = memory.passages(conn, ids)
        if not ids:
            return step, False
        vectors = embedder.embed(may_embed(home, texts), "document")
        put = partial(memory.put_vectors, space=space, item_ids=ids, vectors=vectors)
        if not home.db.write(put):
            return step, False
        below, step = ids[-1], step + len(ids)
        if progress and progress(done + step, max(total, done + step)):
            return step, True


def may_embed(home: Home, texts: Sequence[str]) -> list[str]:
    """Return the texts as the embedder may see them: one elsewhere sees nothing private.

    What is sensitive (health, faith ...) or holds a secret is empty there: that is not sent, gets
    a row of zeros, and is found by its words alone.
    """
    if not home.embeds_away():
        return list(texts)
    return ["" if sensitive(text) or secrets_in(text) else text for text in texts]


def totals(home: Home) -> dict[str, int]:
    """Return how much there is: conversations, messages, items, vectors pending."""
    with home.db.read() as conn:
        return {
            "conversations": int(value(conn, "SELECT count(*) FROM conversations")),
            "messages": int(value(conn, "SELECT count(*) FROM messages")),
            "items": memory.count(conn),
            "pending": max(
                (memory.count_missing(conn, space.id) for space in memory.spaces(conn)), default=0
            ),
        }
