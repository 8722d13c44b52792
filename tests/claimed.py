"""Claims, and an archive that they stand in, for tests of what is believed."""

from pathlib import Path

from knowme import archive, memory, schema
from knowme.attributes import sentence
from knowme.db import connect, value
from knowme.facts import Reading, settling
from knowme.types import ME, Claim, Fact, Record, When

DAY = 86_400_000
START = 19_723  # 2024-01-01, in days since the epoch


def at(day: int) -> int:
    """Return the noon of a day, counted from 2024-01-01, in ms."""
    return (START + day) * DAY + DAY // 2


def iso(day: int) -> str:
    from datetime import date, timedelta

    return (date(2024, 1, 1) + timedelta(days=day)).isoformat()


def memory_db():
    """Return an empty memory.db in RAM."""
    conn = connect(Path(":memory:"))
    schema.migrate(conn)
    return conn


def say(conn, name: str, day: int | None, text: str = "", *, speaker: str = "", seq: int = 0,
        conversation: str = "c", source: str = "openclaw") -> int:  # fmt: skip
    """Put one message of a user into the archive and into memory; returns its id."""
    record = Record("message", conversation, name, "user", speaker, text or f"Words of {name}.",
                    at_ms=None if day is None else at(day), seq=seq)  # fmt: skip
    where = archive.put_conversation(conn, source, record, 1)
    number, _, before = archive.put(conn, where, record, 1)
    memory.drop_items(conn, [before] if before else [])
    memory.add_items(conn, [number])
    return number


def claim(value_: str, attribute: str = "residence", *, subject: str = ME, when: When | None = None,
          **more) -> Claim:  # fmt: skip
    """Return a claim; its quote is the first five characters."""
    told = sentence(subject, attribute, value_)
    fields = {"start": 0, "end": 5, **more}
    return Claim(subject, attribute, value_, told, when=when or When(), **fields)


def read(message: int, *claims: Claim | tuple[Claim, str], read_by: str = "rules") -> Reading:
    """Return a reading; a claim alone passes the gate."""
    told = [each if isinstance(each, tuple) else (each, "") for each in claims]
    return Reading(message, read_by, told)


def table(conn) -> dict[str, dict]:
    """Return every row of facts, by uid."""
    return {row["uid"]: row for row in settling.read(conn, "")}


def states(conn, *, attribute: str = "") -> dict[str, str]:
    """Return value -> state; for tests in which no value stands twice."""
    rows = table(conn).values()
    return {r["value"]: r["state"] for r in rows if attribute in ("", r["attribute"])}


def uid(conn, value_: str) -> str:
    """Return the uid of the earliest fact of this value."""
    return value(conn, "SELECT uid FROM facts WHERE value = ? ORDER BY said_ms, uid", (value_,))


def fact(name: str, value_: str, day: int | None, attribute: str = "residence", *,
         when: When | None = None, gate: str = "", message: int = 1, subject: str = ME,
         read_by: str = "rules", certain: bool = True) -> Fact:  # fmt: skip
    """Return a fact as it is given to ``resolve``."""
    return Fact(
        name, subject, attribute, value_, sentence(subject, attribute, value_), message, 0, 5,
        "Words", None if day is None else at(day), when or When(), read_by, certain, True, (),
        "quarantined" if gate else "believed", gate, "", False, 1, None,
    )  # fmt: skip
