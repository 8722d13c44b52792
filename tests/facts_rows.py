"""Rows of the table facts for tests of what is made of them, without reading them from words."""

import hashlib

from knowme.db import rows
from knowme.types import Fact, When


def put_fact(conn, message_id: int, sentence: str, *, uid: str = "", state: str = "believed",
             start: int = 0, end: int = 5, attribute: str = "note") -> Fact:  # fmt: skip
    """Write one fact about the person (replacing that of the same name) and return it."""
    name = uid or hashlib.sha256(f"{message_id} {sentence}".encode()).hexdigest()[:16]
    ((text, at_ms),) = rows(conn, "SELECT text, at_ms FROM messages WHERE id = ?", (message_id,))
    fact = Fact(
        name, "me", attribute, sentence, sentence, message_id, start, end, text[start:end], at_ms,
        When(), "rules", True, True, (), state, "", "", False, 1, None,
    )  # fmt: skip
    conn.execute("DELETE FROM facts WHERE uid = ?", (name,))
    conn.execute(
        "INSERT INTO facts(uid, subject, attribute, value, sentence, message_id, start, end, quote,"
        " said_ms, read_by, state, recorded_ms) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            name, "me", attribute, sentence, sentence, message_id, start, end, fact.quote, at_ms,
            "rules", state, 1,
        ),
    )  # fmt: skip
    return fact
