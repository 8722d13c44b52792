"""Looking for erased words among bytes: whichever they are, in one pass over a file.

Promises: a piece of an erased text is found wherever it stands, byte for byte: as it was written,
in lower case, and as JSON writes it. Of a text of 16 bytes or more every run of 23 bytes is found
(of very much text MOST pieces are looked for, evenly drawn). What is kept of the words is 64 bits
of each piece, under a key that is made anew for each erasure: one that was cut can go on looking
when the words themselves are gone.
Refuses to know: what is erased, and what is found where.

The pieces are found by their hashes while a window moves over the bytes (Karp and Rabin 1987,
"Efficient randomized pattern-matching algorithms"), as prefix sums of a random value for each byte
times powers of a random odd number, modulo 2^64.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

Words64 = NDArray[np.uint64]

LONG, SHORT = 16, 8
"""Bytes of a piece; of a text shorter than 16 bytes. A shorter text stands everywhere by chance."""
STEP = 8
MOST = 60_000
"""Pieces that are looked for, evenly drawn where there are more."""
CHUNK = 1 << 20
_LOW = np.uint64((1 << 20) - 1)
_AT_ONCE = 2000


class Needles:
    """Pieces of texts, by their hashes. ``add`` them all, then ``within``; ``without`` some."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = secrets.randbits(63) if seed is None else seed
        chance = np.random.default_rng(self.seed)
        self._letters = chance.integers(0, 2**64, 256, np.uint64)
        self._base = int(chance.integers(0, 2**63, dtype=np.uint64)) * 2 + 1
        self._key = self.seed.to_bytes(8, "little")
        self._hashes: dict[int, Words64] = {}
        self._phrases: dict[int, set[int]] = {}
        self._begins: set[int] = set()  # the first words of phrases
        self._marked: dict[int, NDArray[np.bool_]] = {}
        size = CHUNK + LONG
        self._powers = _powers(self._base, size)
        self._inverse = _powers(pow(self._base, -1, 2**64), size)

    def __len__(self) -> int:
        """Return how many pieces there are."""
        return sum(len(each) for each in self._hashes.values())

    def add(self, texts: Iterable[str]) -> None:
        """Add the pieces of these texts, in every form that they may be kept in."""
        left = iter(texts)
        while some := list(islice(left, _AT_ONCE)):
            pieces: dict[int, set[bytes]] = {LONG: set(), SHORT: set()}
            for text in some:
                for form in forms(text):
                    for piece in _pieces(form):
                        pieces[len(piece)].add(piece)
            self._put({n: self._hashed(n, sorted(found)) for n, found in pieces.items()})

    def add_phrase(self, phrase: str) -> None:
        """Add a phrase of whole words, however short: it is found in texts, not among bytes."""
        if said := _words(phrase):
            self._phrases.setdefault(len(said), set()).add(self._of_words(said))
            self._begins.add(self._of_words(said[:1]))
            self.add([phrase])

    def _of_words(self, said: Sequence[str]) -> int:
        told = "\0".join(said).encode("utf-8", "replace")
        hashed = hashlib.blake2b(told, key=self._key, digest_size=8).digest()
        return int.from_bytes(hashed, "little") >> 1  # as SQLite and JSON hold it without loss

    def add_bytes(self, blobs: Iterable[bytes]) -> None:
        """Add pieces of blobs (vectors); stretches of zeros are nobody's own."""
        found = {
            piece
            for blob in blobs
            for at in range(0, len(blob) - LONG + 1, max(LONG, len(blob) // 8))
            if (piece := blob[at : at + LONG]).count(0) <= LONG // 4
        }
        self._put({LONG: self._hashed(LONG, sorted(found))})

    def _put(self, more: dict[int, Words64]) -> None:
        for length, found in more.items():
            whole = np.union1d(self._hashes.get(length, np.zeros(0, np.uint64)), found)
            # The lowest hashes are an even draw, whatever came in which order (Broder 1997).
            self._set(length, whole[:MOST])

    def _set(self, length: int, hashes: Words64) -> None:
        self._hashes[length] = hashes
        marked = np.zeros(1 << 20, np.bool_)
        marked[hashes & _LOW] = True
        self._marked[length] = marked

    def without(self, found: Iterable[int]) -> None:
        """Leave these pieces out: they stand in what is kept, and prove nothing."""
        gone = np.fromiter(found, np.uint64)
        for length, held in list(self._hashes.items()):
            self._set(length, held[~np.isin(held, gone)])

    def _hashed(self, length: int, pieces: list[bytes]) -> Words64:
        if not pieces:
            return np.zeros(0, np.uint64)
        rows = np.frombuffer(b"".join(pieces), np.uint8).reshape(len(pieces), length)
        hashed: Words64 = (self._letters[rows] * self._powers[:length]).sum(axis=1, dtype=np.uint64)
        return hashed

    def within(self, data: bytes) -> set[int]:
        """Return the pieces (their hashes) that stand in these bytes."""
        return set(self._places(data)[1].tolist())

    def _places(self, data: bytes) -> tuple[NDArray[np.int64], Words64]:
        """Return where pieces stand in these bytes, and which."""
        at: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        which: list[Words64] = [np.zeros(0, np.uint64)]
        whole = np.frombuffer(data, np.uint8)
        for start in range(0, len(whole), CHUNK):
            part = whole[start : start + CHUNK + LONG - 1]
            sums = np.zeros(len(part) + 1, np.uint64)
            np.cumsum(self._letters[part] * self._powers[: len(part)], out=sums[1:])
            for length, hashes in self._hashes.items():
                if len(hashes) and len(part) >= length:
                    places, pieces = self._met(sums, length, hashes)
                    at.append(places + start)
                    which.append(pieces)
        return np.concatenate(at), np.concatenate(which)

    def _met(
        self, sums: Words64, length: int, hashes: Words64
    ) -> tuple[NDArray[np.int64], Words64]:
        here = (sums[length:] - sums[:-length]) * self._inverse[: len(sums) - length]
        places = np.flatnonzero(self._marked[length][here & _LOW])
        likely = here[places]
        found = hashes[np.minimum(np.searchsorted(hashes, likely), len(hashes) - 1)] == likely
        return places[found], likely[found]

    def by_row(self, rows: Sequence[bytes]) -> list[set[int]]:
        """Return what stands in each of these texts: one pass over all of them together."""
        found: list[set[int]] = [set() for _ in rows]
        if self._phrases:
            found = [self.phrases(row.decode("utf-8", "replace")) for row in rows]
        starts = np.cumsum([0, *(len(row) + len(_BETWEEN) for row in rows)])
        places, pieces = self._places(_BETWEEN.join(rows))
        for row, piece in zip(
            (np.searchsorted(starts, places, "right") - 1).tolist(), pieces.tolist(), strict=True
        ):
            found[row].add(piece)
        return found

    def phrases(self, text: str) -> set[int]:
        """Return the phrases that stand in a text."""
        if not self._phrases:
            return set()
        said = _words(_ESCAPED.sub(" ", text))
        begins = {word for word in set(said) if self._of_words([word]) in self._begins}
        return {
            hashed
            for length, known in self._phrases.items()
            for at in range(len(said) - length + 1)
            if said[at] in begins and (hashed := self._of_words(said[at : at + length])) in known
        }

    def seen(self, data: bytes) -> set[int]:
        """Return the pieces and the phrases that stand in the bytes of a text."""
        found = self.within(data)
        if self._phrases:
            found |= self.phrases(data.decode("utf-8", "replace"))
        return found

    def stands(self, *texts: Any) -> bool:
        """Tell whether something of it stands in one of these; None and numbers hold nothing."""
        return any(bool(self.seen(as_bytes(each))) for each in texts)

    def only_phrases(self) -> Needles:
        """Return the phrases alone."""
        made = Needles(self.seed)
        made._phrases, made._begins = self._phrases, self._begins
        return made

    def merge(self, other: Needles) -> None:
        """Take over the pieces of another one that was made with the same seed."""
        assert other.seed == self.seed
        self._put(other._hashes)

    def told(self) -> dict[str, Any]:
        """Return it as JSON: numbers, and no words."""
        return {
            "seed": self.seed,
            "pieces": {str(n): h.tolist() for n, h in self._hashes.items()},
            "phrases": {str(n): sorted(found) for n, found in self._phrases.items()},
            "begins": sorted(self._begins),
        }

    @classmethod
    def read(cls, told: Any) -> Needles:
        """Return what ``told`` told."""
        made = cls(int(told["seed"]))
        for length, hashes in told["pieces"].items():
            made._set(int(length), np.array(hashes, np.uint64))
        made._phrases = {int(n): set(found) for n, found in told["phrases"].items()}
        made._begins = set(told["begins"])
        return made


def _powers(base: int, count: int) -> Words64:
    steps = np.full(count, np.uint64(base), np.uint64)
    steps[0] = 1
    found: Words64 = np.cumprod(steps, dtype=np.uint64)
    return found


_WORD = re.compile(r"\w+")
_ESCAPED = re.compile(r"\\[nrt]")  # as a line's end stands in JSON, it is no letter of a word


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def forms(text: str) -> list[bytes]:
    """Return the bytes that a text may be kept as: plain, in lower case, within JSON."""
    made = []
    for each in dict.fromkeys((text, text.lower())):
        made.append(each.encode("utf-8", "replace"))
        made.append(json.dumps(each, ensure_ascii=False)[1:-1].encode("utf-8", "replace"))
        made.append(json.dumps(each)[1:-1].encode())
    return list(dict.fromkeys(made))


def _pieces(form: bytes) -> Iterator[bytes]:
    if len(form) >= LONG:
        for at in (*range(0, len(form) - LONG, STEP), len(form) - LONG):
            yield form[at : at + LONG]
    elif len(form) >= SHORT:
        yield form[:SHORT]
        yield form[-SHORT:]


def as_bytes(kept: Any) -> bytes:
    """Return the bytes to look into for one value of a table; a compressed text is read."""
    if isinstance(kept, str):
        return kept.encode("utf-8", "replace")
    if not isinstance(kept, bytes):
        return b""
    if kept[:4] == _ZSTD:
        found = unpacked_bytes(kept)
        return kept if found is None else found
    return kept


_ZSTD = b"\x28\xb5\x2f\xfd"


def unpacked_bytes(kept: bytes) -> bytes | None:
    """Return what a zstandard frame holds, or None where it is none."""
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(kept)
    except zstandard.ZstdError:
        return None


_BETWEEN = (
    b"\0"  # what no text holds: with a line's end between them two columns would make a piece
)


# --- the routes ---------------------------------------------------------------------------------


def in_rows(found: Needles, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, set[int]]]:
    """Yield (first column, pieces) of the rows whose other columns hold some."""
    names: list[Any] = []
    held: list[bytes] = []
    size = 0
    for name, *columns in rows:
        data = _BETWEEN.join(as_bytes(each) for each in columns)
        names.append(name)
        held.append(data)
        size += len(data)
        if size >= CHUNK:
            yield from _holding(found, names, held)
            names, held, size = [], [], 0
    yield from _holding(found, names, held)


def _holding(
    found: Needles, names: Sequence[Any], held: Sequence[bytes]
) -> Iterator[tuple[Any, set[int]]]:
    return ((name, has) for name, has in zip(names, found.by_row(held), strict=True) if has)


def in_tables(conn: apsw.Connection, found: Needles) -> dict[str, int]:
    """Return table -> how many rows hold a piece, over every table and column."""
    listed = conn.execute(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type <> 'view'"
        " AND type <> 'virtual' ORDER BY name"
    ).fetchall()
    holding: dict[str, int] = {}
    for name, _ in listed:
        rows = conn.execute(f'SELECT 0, * FROM "{name}"')
        many = sum(1 for _ in in_rows(found, rows))
        if many:
            holding[str(name)] = many
    return holding


def in_file(path: Path, found: Needles) -> set[int]:
    """Return the pieces that stand in the bytes of a file. Raises OSError."""
    pieces: set[int] = set()
    with path.open("rb") as source:
        left = b""
        while block := source.read(8 * CHUNK):
            pieces |= found.within(left + block)
            left = block[-(LONG - 1) :]
    return pieces
