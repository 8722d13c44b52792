"""The tables of memory.db and the migrations that lead to them.

Promises: migrations are append-only, named ``mNNN_name``, each atomic with the record of it; a
file of a newer version is refused, never guessed at.
Refuses to know: what the rows mean to anyone (archive, memory, jobs, ask own their tables).

The archive (conversations, messages) is the truth. Everything below it (items, item_fts, vectors)
is derived and can be dropped and rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from knowme.errors import StoreError


def m001_archive(conn: apsw.Connection) -> None:
    """Conversations and their messages: verbatim, hashed, append-only."""
    conn.execute("""
    CREATE TABLE conversations(
      id INTEGER PRIMARY KEY,
      source TEXT NOT NULL,              -- openclaw, markdown, ingest, knowme ...
      external_id TEXT NOT NULL,         -- the source's own name for it
      kind TEXT NOT NULL DEFAULT 'chat', -- chat, document, subagent
      title TEXT NOT NULL DEFAULT '',
      meta TEXT NOT NULL DEFAULT '{}',
      created_ms INTEGER NOT NULL,       -- when we first saw it
      UNIQUE(source, external_id));
    CREATE TABLE messages(
      id INTEGER PRIMARY KEY,
      conversation_id INTEGER NOT NULL REFERENCES conversations(id),
      external_id TEXT NOT NULL,         -- the source's own name for it, unique in a conversation
      version INTEGER NOT NULL DEFAULT 1,
      seq INTEGER NOT NULL,              -- order in the conversation
      role TEXT NOT NULL,
      speaker TEXT NOT NULL DEFAULT '',
      text TEXT NOT NULL,                -- what was said, without envelopes
      raw TEXT,                          -- the verbatim original where it holds more than text
      at_ms INTEGER,                     -- when it was said; null: nobody knows
      hash BLOB NOT NULL,                -- sha256 over role, speaker, text, raw, at_ms
      origin TEXT NOT NULL DEFAULT '',   -- file:line or URI
      meta TEXT NOT NULL DEFAULT '{}',
      recall INTEGER NOT NULL DEFAULT 1, -- 0: kept, never recalled
      recorded_ms INTEGER NOT NULL,
      retired_ms INTEGER,                -- replaced by a newer version, or gone at the source
      UNIQUE(conversation_id, external_id, version));
    CREATE INDEX messages_order ON messages(conversation_id, seq, id);
    CREATE UNIQUE INDEX messages_current ON messages(conversation_id, external_id)
      WHERE retired_ms IS NULL;
    CREATE INDEX messages_external ON messages(external_id) WHERE retired_ms IS NULL;
    CREATE TABLE marks(
      source TEXT NOT NULL, unit TEXT NOT NULL, state TEXT NOT NULL, updated_ms INTEGER NOT NULL,
      PRIMARY KEY(source, unit)) WITHOUT ROWID;
    """)


def m002_items(conn: apsw.Connection) -> None:
    """Retrievable units, their words and their vectors. All derived from messages."""
    conn.execute("""
    CREATE TABLE items(
      id INTEGER PRIMARY KEY AUTOINCREMENT,  -- also the rowid in item_fts and in every vector index
      uid TEXT NOT NULL UNIQUE,          -- stable name: same archive, same uid
      kind TEXT NOT NULL,                -- message, section ... later: summary, journal, fact
      message_id INTEGER REFERENCES messages(id),  -- the message it lies in
      start INTEGER NOT NULL DEFAULT 0,  -- character span of messages.text
      end INTEGER NOT NULL DEFAULT 0,
      text TEXT,                         -- only where the words are not a span of the message
      conversation_id INTEGER NOT NULL REFERENCES conversations(id),
      seq INTEGER NOT NULL,
      before_id INTEGER, after_id INTEGER,  -- the items beside it in its conversation
      source TEXT NOT NULL,
      role TEXT NOT NULL,
      speaker TEXT NOT NULL DEFAULT '',  -- empty: the person, or the assistant
      at_ms INTEGER,
      words INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX items_order ON items(conversation_id, seq, start);
    CREATE INDEX items_message ON items(message_id);
    CREATE INDEX items_time ON items(at_ms) WHERE at_ms IS NOT NULL;
    CREATE TABLE because(               -- what an item rests on, when that is more than message_id
      item_id INTEGER NOT NULL REFERENCES items(id) ON DELETE CASCADE,
      message_id INTEGER NOT NULL REFERENCES messages(id),
      PRIMARY KEY(item_id, message_id)) WITHOUT ROWID;
    CREATE VIRTUAL TABLE item_fts USING fts5(self, ctx,
      tokenize='porter unicode61 remove_diacritics 2', content='', contentless_delete=1);
    CREATE VIRTUAL TABLE item_tri USING fts5(self,
      tokenize='trigram', content='', contentless_delete=1);
    CREATE TABLE embedders(
      id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, dims INTEGER NOT NULL,
      spec TEXT NOT NULL DEFAULT '{}',   -- the settings that make this embedder again; no secret
      state TEXT NOT NULL DEFAULT 'filling', -- serving: searches use it; filling: a reindex runs
      created_ms INTEGER NOT NULL);
    CREATE TABLE vectors(
      item_id INTEGER NOT NULL REFERENCES items(id) ON DELETE CASCADE,
      embedder_id INTEGER NOT NULL REFERENCES embedders(id),
      vector BLOB NOT NULL,              -- float16, little-endian, unit norm, dims * 2 bytes
      UNIQUE(embedder_id, item_id));
    CREATE INDEX vectors_item ON vectors(item_id);
    CREATE TABLE changes(               -- which items changed, in order: vector indexes follow it
      id INTEGER PRIMARY KEY AUTOINCREMENT, item_id INTEGER NOT NULL);
    """)


def m003_jobs(conn: apsw.Connection) -> None:
    """Durable work and its schedule, in one table."""
    conn.execute("""
    CREATE TABLE jobs(
      id INTEGER PRIMARY KEY,
      kind TEXT NOT NULL,
      payload TEXT NOT NULL DEFAULT '{}',
      state TEXT NOT NULL DEFAULT 'queued',  -- queued, running, done, parked, cancelled
      unique_key TEXT,                        -- at most one live job of this key
      run_at_ms INTEGER NOT NULL,
      every TEXT,                             -- cron-like; the next one is queued with the outcome
      attempts INTEGER NOT NULL DEFAULT 0,
      max_attempts INTEGER NOT NULL DEFAULT 5,
      owner TEXT NOT NULL DEFAULT '',         -- which runner has claimed it
      lease_until_ms INTEGER,                 -- a running job whose lease passed is queued again
      cancel INTEGER NOT NULL DEFAULT 0,
      again INTEGER NOT NULL DEFAULT 0,       -- asked for once more while it runs
      progress TEXT NOT NULL DEFAULT '{}',
      error TEXT NOT NULL DEFAULT '',
      created_ms INTEGER NOT NULL, started_ms INTEGER, finished_ms INTEGER);
    CREATE INDEX jobs_due ON jobs(state, run_at_ms);
    CREATE UNIQUE INDEX jobs_unique ON jobs(unique_key)
      WHERE unique_key IS NOT NULL AND state IN ('queued', 'running');
    """)


def m004_answers(conn: apsw.Connection) -> None:
    """One row per question asked: its turns, its usage and its receipt."""
    conn.execute("""
    CREATE TABLE answers(
      id INTEGER PRIMARY KEY,
      conversation_id INTEGER NOT NULL REFERENCES conversations(id),
      question_id INTEGER NOT NULL REFERENCES messages(id),
      answer_id INTEGER REFERENCES messages(id),
      surface TEXT NOT NULL DEFAULT '',       -- cli, http, chat
      state TEXT NOT NULL,                    -- done, cut (the client left), failed
      model TEXT NOT NULL, usage TEXT NOT NULL, receipt TEXT NOT NULL,
      asked_ms INTEGER NOT NULL, took_ms REAL NOT NULL DEFAULT 0);
    CREATE INDEX answers_time ON answers(asked_ms);
    """)


def m005_models(conn: apsw.Connection) -> None:
    """Models at work: calls, swaps, what left the machine, choices and what came of them."""
    conn.execute("""
    CREATE TABLE calls(                 -- one row for each call of a chat model
      id INTEGER PRIMARY KEY,
      answer_id INTEGER REFERENCES answers(id) ON DELETE SET NULL,
      at_ms INTEGER NOT NULL,
      purpose TEXT NOT NULL,            -- answer, check, shadow, classify, passthrough
      role TEXT NOT NULL, model TEXT NOT NULL, engine TEXT NOT NULL,
      local INTEGER NOT NULL,
      stage TEXT NOT NULL DEFAULT '',   -- what chose it: gate, rule, heuristic, learned, fallback
      reason TEXT NOT NULL DEFAULT '',
      state TEXT NOT NULL,              -- done, cut (the asker left), failed, empty
      error TEXT NOT NULL DEFAULT '',
      prompt_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER NOT NULL DEFAULT 0,
      answer_tokens INTEGER NOT NULL DEFAULT 0,
      cost REAL NOT NULL DEFAULT 0,     -- in the money of the model's prices
      first_token_ms REAL NOT NULL DEFAULT 0, total_ms REAL NOT NULL DEFAULT 0);
    CREATE INDEX calls_time ON calls(at_ms);
    CREATE INDEX calls_answer ON calls(answer_id);
    CREATE INDEX answers_conversation ON answers(conversation_id);
    CREATE TABLE swaps(                 -- models that came into memory and left it
      id INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      role TEXT NOT NULL, model TEXT NOT NULL,
      kind TEXT NOT NULL,               -- load, unload
      reason TEXT NOT NULL DEFAULT '',  -- asked, warm-up, idle, models, memory, closed
      took_ms REAL NOT NULL,
      memory_bytes INTEGER NOT NULL DEFAULT 0,
      prefix_tokens INTEGER NOT NULL DEFAULT 0); -- of the prompt, saved or restored
    CREATE INDEX swaps_time ON swaps(at_ms);
    CREATE TABLE egress(                -- everything that left the machine
      id INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      url TEXT NOT NULL,                -- where to, without a query
      purpose TEXT NOT NULL,            -- answer, check, shadow, passthrough, embedding, model list
      model TEXT NOT NULL DEFAULT '',
      classes TEXT NOT NULL DEFAULT '[]', -- of memory, each with the policy that let it go
      sent_bytes INTEGER NOT NULL,
      received_bytes INTEGER NOT NULL DEFAULT 0,
      prompt_tokens INTEGER NOT NULL DEFAULT 0, answer_tokens INTEGER NOT NULL DEFAULT 0,
      cost REAL NOT NULL DEFAULT 0,
      outcome TEXT NOT NULL DEFAULT 'sent', -- sent (not known yet), 200, 429, refused, cut ...
      answer_id INTEGER REFERENCES answers(id) ON DELETE SET NULL,
      body BLOB);                       -- zstandard; null where privacy.keep_bodies is off
    CREATE INDEX egress_time ON egress(at_ms);
    CREATE TABLE policies(              -- versions of the learned router
      id INTEGER PRIMARY KEY,
      fingerprint TEXT NOT NULL,        -- of the embedder whose vectors it reads
      state TEXT NOT NULL,              -- in_use, candidate, rejected, retired
      model BLOB NOT NULL,
      outcomes INTEGER NOT NULL,        -- how many it has learned from
      replay TEXT NOT NULL DEFAULT '{}', -- what replaying the log said of it
      created_ms INTEGER NOT NULL);
    CREATE TABLE choices(               -- one row for each routed message
      id INTEGER PRIMARY KEY,
      answer_id INTEGER REFERENCES answers(id) ON DELETE CASCADE,
      at_ms INTEGER NOT NULL,
      chosen TEXT NOT NULL, local INTEGER NOT NULL,
      candidates TEXT NOT NULL,         -- JSON: the roles that might have answered
      stage TEXT NOT NULL, category TEXT NOT NULL,
      propensity REAL NOT NULL,
      gain REAL, gain_sd REAL, cost REAL, price REAL,
      policy_id INTEGER REFERENCES policies(id),
      fingerprint TEXT NOT NULL DEFAULT '',
      features BLOB,                    -- float32: the message's vector, then its features
      answered_by TEXT NOT NULL DEFAULT ''); -- differs from chosen after a fallback
    CREATE INDEX choices_answer ON choices(answer_id);
    CREATE TABLE outcomes(              -- what the person thought of it
      id INTEGER PRIMARY KEY,
      choice_id INTEGER NOT NULL REFERENCES choices(id) ON DELETE CASCADE,
      at_ms INTEGER NOT NULL,
      kind TEXT NOT NULL,               -- rating, up, down, retry_cloud, regenerate, better
      value TEXT NOT NULL DEFAULT '');  -- 1 to 5; local, cloud or same for better
    CREATE INDEX outcomes_choice ON outcomes(choice_id);
    CREATE TABLE sessions(              -- what a conversation needs beside its messages
      conversation_id INTEGER PRIMARY KEY REFERENCES conversations(id) ON DELETE CASCADE,
      anchor_seq INTEGER NOT NULL DEFAULT -1, -- the window begins after the message of this seq
      summary TEXT NOT NULL DEFAULT '', -- of what lies before it
      summary_because TEXT NOT NULL DEFAULT '[]', -- the ids of those messages
      model TEXT NOT NULL DEFAULT '',   -- the role that answered last
      surface TEXT NOT NULL DEFAULT '',
      updated_ms INTEGER NOT NULL);
    CREATE TABLE threads(               -- a stateless client's messages -> its conversation
      hash BLOB PRIMARY KEY,            -- sha256 over the turns up to an answer of ours
      conversation_id INTEGER NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
      at_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX threads_conversation ON threads(conversation_id, at_ms);
    """)


def m006_structure(conn: apsw.Connection) -> None:
    """What is true, who the person is, what fell out of the window, and what was forgotten."""
    conn.execute("""
    CREATE TABLE facts(                 -- one row a claim: one statement in one message
      id INTEGER PRIMARY KEY,
      uid TEXT NOT NULL UNIQUE,         -- 16 hex digits: same archive, same uid
      subject TEXT NOT NULL,            -- 'me' is the person; else a name as it was said
      attribute TEXT NOT NULL,          -- canonical (attributes.py), or a verb phrase
      value TEXT NOT NULL,
      sentence TEXT NOT NULL,           -- a statement that stands alone
      message_id INTEGER NOT NULL REFERENCES messages(id),
      start INTEGER NOT NULL, end INTEGER NOT NULL, -- character span of messages.text: the quote
      quote TEXT NOT NULL,
      said_ms INTEGER,                  -- when it was said
      from_first TEXT NOT NULL DEFAULT '', from_last TEXT NOT NULL DEFAULT '', -- ISO days: it
      to_first TEXT NOT NULL DEFAULT '', to_last TEXT NOT NULL DEFAULT '', -- began, ended between
      read_by TEXT NOT NULL,            -- rules, model:NAME, person
      certain INTEGER NOT NULL DEFAULT 1, -- 0: hedged ("I think")
      outright INTEGER NOT NULL DEFAULT 0, -- the person says so of themselves in plain words
      sensitive TEXT NOT NULL DEFAULT '', -- '' or kinds: health,politics
      state TEXT NOT NULL,              -- believed, repeated, superseded, doubtful, quarantined,
                                        -- retired
      reason TEXT NOT NULL DEFAULT '',  -- why it is not believed
      other TEXT NOT NULL DEFAULT '',   -- the uid that it repeats, that superseded it, or that it
                                        -- contradicts
      value_key TEXT NOT NULL DEFAULT '', -- attributes.value_key() of the value as it was said
      claim TEXT NOT NULL DEFAULT '{}', -- JSON: what was read (value, sentence, when, gate, told),
                                        -- where the columns above say what is believed of it
      pinned INTEGER NOT NULL DEFAULT 0,
      recorded_ms INTEGER NOT NULL,     -- when we learned it
      retired_ms INTEGER);              -- when we unlearned it
    CREATE INDEX facts_key ON facts(subject, attribute, value_key);
    CREATE INDEX facts_message ON facts(message_id);
    CREATE INDEX facts_state ON facts(state, subject);
    CREATE TABLE lines(                 -- the lines of the profile
      id INTEGER PRIMARY KEY,
      uid TEXT NOT NULL UNIQUE,
      section TEXT NOT NULL, text TEXT NOT NULL,
      confidence REAL NOT NULL,         -- 0 to 1
      state TEXT NOT NULL,              -- current, thin (too little evidence), struck, replaced,
                                        -- gone
      written_by TEXT NOT NULL,         -- rules, model:NAME, person
      sensitive TEXT NOT NULL DEFAULT '',
      place REAL NOT NULL DEFAULT 0,    -- within its section; the first that the budget drops is
                                        -- the last
      pinned INTEGER NOT NULL DEFAULT 0,
      recorded_ms INTEGER NOT NULL, retired_ms INTEGER);
    CREATE TABLE line_evidence(
      line_uid TEXT NOT NULL REFERENCES lines(uid) ON DELETE CASCADE,
      message_id INTEGER NOT NULL REFERENCES messages(id),
      start INTEGER NOT NULL, end INTEGER NOT NULL, quote TEXT NOT NULL,
      fact_uid TEXT NOT NULL DEFAULT '',
      PRIMARY KEY(line_uid, message_id, start)) WITHOUT ROWID;
    CREATE INDEX line_evidence_message ON line_evidence(message_id);
    CREATE TABLE decisions(             -- what the person said of a fact or a line: it wins
      id INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      target TEXT NOT NULL,             -- fact, line
      uid TEXT NOT NULL,
      action TEXT NOT NULL,             -- facts: accept, reject, both, retire, edit, pin, unpin;
                                        -- lines: write, edit, strike, pin, unpin
      key TEXT NOT NULL DEFAULT '',     -- what it is about, however often it is said anew
      text TEXT NOT NULL DEFAULT '',    -- the person's own wording
      undone_ms INTEGER);
    CREATE INDEX decisions_key ON decisions(target, key);
    CREATE TABLE events(                -- every change of a belief, append-only
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      at_ms INTEGER NOT NULL,
      target TEXT NOT NULL,             -- fact, line
      uid TEXT NOT NULL,
      action TEXT NOT NULL,             -- learned, changed, unlearned, and those of decisions
      actor TEXT NOT NULL,              -- rules, model:NAME, person, forget
      before TEXT, after TEXT,          -- the whole row as JSON; null: there was, is none
      decision_id INTEGER);
    CREATE INDEX events_uid ON events(target, uid, id);
    CREATE INDEX events_time ON events(target, at_ms);
    CREATE TABLE summaries(             -- blocks of turns that left the window
      id INTEGER PRIMARY KEY,
      conversation_id INTEGER NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
      from_seq INTEGER NOT NULL, upto_seq INTEGER NOT NULL, -- the messages with from < seq <= upto
      text TEXT NOT NULL,               -- of this block
      rolling TEXT NOT NULL,            -- of everything up to here, as a prompt holds it
      because TEXT NOT NULL,            -- JSON: for each line of rolling, the ids it rests on
      model TEXT NOT NULL,              -- extractive, or the model's name
      made_ms INTEGER NOT NULL,
      embedder TEXT NOT NULL DEFAULT '', -- the fingerprint of whose vectors these are
      vectors BLOB,                     -- of the block's turns: message id (8), float16 (2 * dims)
      UNIQUE(conversation_id, upto_seq));
    CREATE TABLE fingerprints(          -- of texts that are not the person's words, hashed
      hash INTEGER NOT NULL, message_id INTEGER NOT NULL, -- 0: of no message (a prompt of ours)
      PRIMARY KEY(hash, message_id)) WITHOUT ROWID;
    CREATE TABLE erasures(              -- what was forgotten: receipts without the words
      id INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      what TEXT NOT NULL,               -- text, message, conversation, before, person, retention
      state TEXT NOT NULL,              -- planned, erased, wiped, done
      plan TEXT NOT NULL DEFAULT '{}',  -- numbers of rows; emptied when it is done
      counts TEXT NOT NULL DEFAULT '{}',
      unreachable TEXT NOT NULL DEFAULT '[]', -- backups and the like, by name
      probed TEXT NOT NULL DEFAULT '{}',
      done_ms INTEGER);
    CREATE TABLE tombstones(            -- what must not come back, by keyed hash
      hash BLOB PRIMARY KEY, erasure_id INTEGER NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE states(                -- how far each derivation is; a key for tombstones
      name TEXT PRIMARY KEY, value TEXT NOT NULL, updated_ms INTEGER NOT NULL) WITHOUT ROWID;
    """)


def m007_learning(conn: apsw.Connection) -> None:
    """What the person said of examples, and which adapters answer. No words stand in either."""
    conn.execute("""
    CREATE TABLE verdicts(              -- the spot check of data sets (`knowme learn review`)
      uid TEXT PRIMARY KEY,             -- of the pair: a hash of its texts
      verdict TEXT NOT NULL,            -- keep, drop
      at_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE adoptions(             -- adapters that were put into use, each for one base model
      id INTEGER PRIMARY KEY,
      at_ms INTEGER NOT NULL,
      run TEXT NOT NULL,                -- the folder in runs/
      purpose TEXT NOT NULL,            -- assistant-for-me, sound-like-me
      base TEXT NOT NULL,               -- sha256 of the GGUF that it belongs to
      adapter TEXT NOT NULL,            -- its file, relative to the home
      sha256 TEXT NOT NULL,             -- of that file
      served_as TEXT NOT NULL DEFAULT '', -- its name in Ollama, where it was created there
      forced INTEGER NOT NULL DEFAULT 0, -- the gate had refused it
      measured TEXT NOT NULL DEFAULT '{}', -- the gate's table: numbers
      retired_ms INTEGER,               -- rolled back, or replaced
      why TEXT NOT NULL DEFAULT '');    -- of that
    CREATE UNIQUE INDEX adoptions_current ON adoptions(purpose, base) WHERE retired_ms IS NULL;
    """)


MIGRATIONS: tuple[Callable[[apsw.Connection], None], ...] = (
    m001_archive,
    m002_items,
    m003_jobs,
    m004_answers,
    m005_models,
    m006_structure,
    m007_learning,
)
APPLICATION_ID = 0x6B6E6F77  # "know"


def check_version(conn: apsw.Connection) -> int:
    """Return how many migrations the file has. Raises StoreError if it is newer or not ours."""
    version = int(conn.pragma("user_version"))
    ours = int(conn.pragma("application_id")) == APPLICATION_ID
    if not ours and (version or next(iter(conn.execute("SELECT 1 FROM sqlite_schema")), None)):
        raise StoreError("This database belongs to another program.", "Name another home.")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"memory.db has schema {version}; this knowme knows {len(MIGRATIONS)}.",
            "Upgrade knowme, or restore an older backup: knowme restore",
        )
    return version


def migrate(conn: apsw.Connection) -> int:
    """Bring the file to the newest schema; each step is one transaction with its record.

    Returns how many steps ran. Two processes may race: the loser finds nothing left to do.
    """
    steps = 0
    while check_version(conn) < len(MIGRATIONS):
        conn.execute("BEGIN IMMEDIATE")
        try:
            version = check_version(conn)
            if version < len(MIGRATIONS):
                MIGRATIONS[version](conn)
                conn.pragma("application_id", APPLICATION_ID)
                conn.pragma("user_version", version + 1)
                steps += 1
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
    return steps
