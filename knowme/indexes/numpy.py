"""The default index: numpy alone, exact while it is small, two steps when it is large.

Promises:

* up to ``EXACT_ROWS`` vectors every score is computed: one matrix-vector product in float32;
* beyond that a coarse pass picks candidates and exact scores order them. The coarse pass compares
  sign codes: two random rotations of the centred vector, one bit a number (2 * dims bits), Hamming
  distance (Charikar 2002, sign random projections; Ji et al. 2012, orthogonal blocks). Measured
  recall@100 against brute force, see LOG.md: MiniLM .999 and static vectors .996 at 100,000 rows;
* memory stays bounded: the large part is one file, memory-mapped: 2 bytes a number (int16, an
  error of a score under 1e-4) and 2 bits a number of codes. Only the newest rows are in RAM;
* the file is written whole beside the old one and renamed, so that other processes and a killed
  process always see a complete one; a damaged one is discarded and the index starts empty;
* readers never wait for writers: a search sees one consistent view.

Refuses to know: items, memory.db. Whoever fills it keeps the place in a change log with ``flush``.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from knowme.indexes import Ids, best, direction, distinct, rows
from knowme.seams import Vectors

EXACT_ROWS = 32_768
"""So many float32 rows are scored one by one (384-d: 50 MB, 2 ms) before codes are worth it."""
TAIL_ROWS = 131_072
"""The most rows that wait in RAM to be merged into the file."""
CANDIDATES = 4_096
"""Rows that the coarse pass hands on, and one more for every 200 in the file."""
BLOCK = 16_384
"""Rows a step: its scratch space stays in the processor's cache."""
SCALE = np.float32(32_767)
MAGIC = b"KNOWVEC1"
HEADER = 4_096
FAR = np.uint16(65_535)

Codes = NDArray[np.uint64]
Small = NDArray[np.int16]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _File:
    """The rows in the file, sorted by id. Nothing of it changes."""

    ids: Ids
    vectors: Small
    codes: Codes  # (words, rows): one word of every row lies together
    mean: Vectors
    rotation: Vectors
    alive: Flags
    dead: int = 0


@dataclass(frozen=True, slots=True)
class _Tail:
    """The newest rows, in RAM. Rows below ``used`` never change; rows above are not there yet."""

    ids: Ids
    vectors: Vectors
    alive: Flags
    rows: dict[int, int]
    used: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    """What one search sees."""

    file: _File | None
    tail: _Tail


def _empty_tail(dims: int, room: int = 256) -> _Tail:
    return _Tail(
        np.zeros(room, np.int64), np.zeros((room, dims), np.float32), np.zeros(room, np.bool_), {}
    )


def _small(vectors: Vectors) -> Small:
    small: Small = np.rint(vectors * SCALE).astype(np.int16)
    return small


def _rotation(dims: int) -> Vectors:
    """Return (dims, bits): two random orthogonal blocks, cut to a multiple of 64 bits."""
    chance = np.random.default_rng(384)
    blocks = [np.linalg.qr(chance.standard_normal((dims, dims)))[0] for _ in range(2)]
    while dims * len(blocks) < 64:
        blocks.append(np.linalg.qr(chance.standard_normal((dims, dims)))[0])
    turned = np.concatenate(blocks, axis=1)
    return np.ascontiguousarray(turned[:, : turned.shape[1] // 64 * 64], dtype=np.float32)


def _encode(vectors: Vectors, mean: Vectors, rotation: Vectors) -> Codes:
    """Return the sign codes (words, n) of the vectors."""
    out = np.empty((rotation.shape[1] // 64, len(vectors)), np.uint64)
    for start in range(0, len(vectors), BLOCK):
        signs = (vectors[start : start + BLOCK] - mean) @ rotation > 0
        out[:, start : start + BLOCK] = np.packbits(signs, axis=1).view(np.uint64).T
    return out


def _distances(codes: Codes, code: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Return the Hamming distance of every row to ``code`` (words,)."""
    count = codes.shape[1]
    out = np.zeros(count, np.uint16)
    differ, ones = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint8)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        a, b, c = out[start:stop], differ[: stop - start], ones[: stop - start]
        for word, bits in zip(codes[:, start:stop], code, strict=True):
            np.bitwise_xor(word, bits, out=b)
            np.bitwise_count(b, out=c)
            np.add(a, c, out=a)
    return out


def _exact(vectors: Small, at: NDArray[np.intp], question: Vectors) -> NDArray[np.float32]:
    """Return the cosines of the rows ``at`` to the question."""
    out = np.empty(len(at), np.float32)
    for start in range(0, len(at), BLOCK):
        part = vectors[at[start : start + BLOCK]].astype(np.float32)
        out[start : start + BLOCK] = part @ question
    return out / SCALE


def _places(within: Ids, wanted: Ids) -> tuple[NDArray[np.intp], Flags]:
    """Return where each wanted id lies in the sorted ``within``, and whether it does."""
    at = np.searchsorted(within, wanted)
    at[at == len(within)] = 0
    return at, (within[at] == wanted) if len(within) else np.zeros(len(wanted), np.bool_)


class NumpyIndex:
    """Nearest neighbours with numpy. Thread-safe; many processes may have the folder open."""

    def __init__(self, *, folder: Path, dims: int, fingerprint: str, **_: Any) -> None:
        self._dims = dims
        self._fingerprint = fingerprint
        self._path = folder / "vectors.knv"
        self._writing = threading.RLock()
        self._view = _View(None, _empty_tail(dims))
        self._limit = EXACT_ROWS
        self._unsaved = 0
        self._position = 0
        self._saved_position = 0
        self._follows = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        self._load()

    # --- reading ---------------------------------------------------------------------------------

    def search(
        self, vector: Vectors, k: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[int, float]]:
        """Return up to k (item id, cosine) pairs, best first; only ids in ``allowed`` if given."""
        question = direction(vector, self._dims)
        if question is None or k < 1:
            return []
        view = self._view
        wanted = None if allowed is None else distinct(allowed)
        ids, scores = self._search_tail(view.tail, question, wanted)
        if view.file is not None:
            more_ids, more = self._search_file(view.file, question, k, wanted)
            ids, scores = np.concatenate([ids, more_ids]), np.concatenate([scores, more])
        return best(ids, scores, k)

    @staticmethod
    def _search_tail(
        tail: _Tail, question: Vectors, wanted: Ids | None
    ) -> tuple[Ids, NDArray[np.float32]]:
        ids, keep = tail.ids[: tail.used], tail.alive[: tail.used]
        if wanted is not None:
            keep = keep & np.isin(ids, wanted)
            at = np.flatnonzero(keep)
            if len(at) < tail.used // 8:
                return ids[at], tail.vectors[at] @ question
        scores = tail.vectors[: tail.used] @ question
        if wanted is None and not tail.dead:
            return ids, scores
        return ids[keep], scores[keep]

    @staticmethod
    def _search_file(
        file: _File, question: Vectors, k: int, wanted: Ids | None
    ) -> tuple[Ids, NDArray[np.float32]]:
        enough = max(CANDIDATES + len(file.ids) // 200, 8 * k)
        keep = file.alive
        if wanted is not None:
            at, there = _places(file.ids, wanted)
            at = at[there & file.alive[at]]
            if len(at) <= 2 * enough:
                return file.ids[at], _exact(file.vectors, at, question)
            keep = np.zeros(len(file.ids), np.bool_)
            keep[at] = True
        code = _encode(question[None], file.mean, file.rotation)[:, 0]
        far = _distances(file.codes, code)
        if file.dead or wanted is not None:
            far[~keep] = FAR
        last = np.partition(far, enough)[enough] if enough < len(far) else FAR
        near = np.flatnonzero((far <= last) & (far < FAR))
        return file.ids[near], _exact(file.vectors, near, question)

    def scores(self, vector: Vectors, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the cosine of each id's vector to ``vector`` (n,); NaN where it has none."""
        wanted = np.asarray(ids, dtype=np.int64).reshape(-1)
        out = np.full(len(wanted), np.nan, np.float32)
        question = direction(vector, self._dims)
        view = self._view
        if question is None or not len(wanted):
            return out
        if view.file is not None:
            at, there = _places(view.file.ids, wanted)
            there &= view.file.alive[at]
            out[there] = _exact(view.file.vectors, at[there], question)
        tail = view.tail
        if tail.used:
            found = [tail.rows.get(int(key), -1) for key in wanted]
            row = np.array(found, dtype=np.intp)
            there = (row >= 0) & (row < tail.used)
            there[there] = tail.alive[row[there]]
            out[there] = tail.vectors[row[there]] @ question
        return out

    def count(self) -> int:
        """Return how many vectors it holds."""
        view = self._view
        held = view.tail.used - view.tail.dead
        return held + (len(view.file.ids) - view.file.dead if view.file else 0)

    # --- writing ---------------------------------------------------------------------------------

    def upsert(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Insert or replace the unit vectors (n, dims) of these item ids; a zero one is forgotten.

        Raises InputError for a wrong shape or a number that is not finite.
        """
        keys, found, empty = rows(ids, vectors, self._dims)
        found = _small(found).astype(np.float32) / SCALE  # the same score before and after a merge
        with self._writing:
            for start in range(0, len(keys), EXACT_ROWS):
                part = slice(start, start + EXACT_ROWS)
                self._append(keys[part], found[part])
                self._tidy()
            if len(empty):
                self.delete(empty.tolist())

    def _append(self, keys: Ids, found: Vectors) -> None:
        """Add rows behind the others, and only then bury those they replace: one new view."""
        file, tail = self._view.file, self._view.tail
        used = tail.used + len(keys)
        if used > len(tail.ids):
            tail = self._grown(tail, max(2 * len(tail.ids), used))
        tail.ids[tail.used : used] = keys
        tail.vectors[tail.used : used] = found
        tail.alive[tail.used : used] = True
        file, tail = self._buried(file, tail, keys)
        tail.rows.update(zip(keys.tolist(), range(tail.used, used), strict=True))
        self._unsaved += len(keys)
        self._view = _View(file, replace(tail, used=used))

    def _grown(self, tail: _Tail, room: int) -> _Tail:
        larger = _empty_tail(self._dims, room)
        for new, old in (
            (larger.ids, tail.ids),
            (larger.vectors, tail.vectors),
            (larger.alive, tail.alive),
        ):
            new[: tail.used] = old[: tail.used]
        return replace(larger, rows=tail.rows, used=tail.used, dead=tail.dead)

    @staticmethod
    def _buried(file: _File | None, tail: _Tail, keys: Ids) -> tuple[_File | None, _Tail]:
        """Return both parts without these ids. The flags are copied: older views keep theirs."""
        gone = [row for key in keys.tolist() if (row := tail.rows.pop(key, None)) is not None]
        if gone:
            alive = tail.alive.copy()
            alive[gone] = False
            tail = replace(tail, alive=alive, dead=tail.dead + len(gone))
        if file is not None:
            at, there = _places(file.ids, keys)
            at = at[there & file.alive[at]]
            if len(at):
                alive = file.alive.copy()
                alive[at] = False
                file = replace(file, alive=alive, dead=file.dead + len(at))
        return file, tail

    def _tidy(self) -> None:
        """Make room: drop replaced rows from the tail, or merge the tail into the file."""
        file, tail = self._view.file, self._view.tail
        if tail.dead > max(1_024, tail.used // 2):
            at = np.flatnonzero(tail.alive[: tail.used])
            fresh = _empty_tail(self._dims, max(256, len(at)))
            fresh.ids[: len(at)], fresh.vectors[: len(at)] = tail.ids[at], tail.vectors[at]
            fresh.alive[: len(at)] = True
            fresh.rows.update(zip(tail.ids[at].tolist(), range(len(at)), strict=True))
            self._view = _View(file, replace(fresh, used=len(at)))
        held = len(file.ids) if file else 0
        limit = max(self._limit, min(held // 4, TAIL_ROWS))
        if self._view.tail.used > limit or (file and file.dead > max(BLOCK, held // 4)):
            try:
                self._save()
            except OSError:  # a full disk: go on in RAM, try again later
                self._limit = 2 * max(limit, self._view.tail.used)

    def delete(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are fine."""
        keys = distinct(ids)
        with self._writing:
            before = self.count()
            file, tail = self._buried(self._view.file, self._view.tail, keys)
            self._view = _View(file, tail)
            self._unsaved += before - self.count()
            self._tidy()

    def clear(self) -> None:
        """Forget everything."""
        with self._writing:
            self._view = _View(None, _empty_tail(self._dims))
            self._unsaved = self._position = self._saved_position = 0
            self._limit = EXACT_ROWS
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    # --- the file --------------------------------------------------------------------------------

    def position(self) -> int:
        """Return the ``flush`` position that is on disk; 0 for a new, cleared or damaged index."""
        return self._saved_position

    def flush(self, position: int) -> None:
        """Note that everything up to ``position`` of the caller's change log is in the index.

        Writes only when enough has changed; until then ``position()`` stays behind, and whoever
        opens the index replays the little that is missing.
        """
        with self._writing:
            self._position, self._follows = position, True
            if self._unsaved > min(max(1_024, self.count() // 50), 8_192):
                with suppress(OSError):
                    self._save()

    def close(self) -> None:
        """Write what is not written yet (a caller that never flushed a position: all), and free."""
        with self._writing:
            if self._unsaved and not self._follows:
                with suppress(OSError):
                    self._save()
            elif self._follows:
                self.flush(self._position)
            self._view = _View(None, _empty_tail(self._dims))

    def _save(self) -> None:
        """Write every living row into a new file, sorted by id, and go on from there."""
        view = self._view
        keep = np.flatnonzero(view.tail.alive[: view.tail.used])
        ids, source, old = view.tail.ids[keep], keep, 0
        if view.file is not None:
            old = len(view.file.ids)
            stay = np.flatnonzero(view.file.alive)
            ids = np.concatenate([view.file.ids[stay], ids])
            source = np.concatenate([stay, keep + old])
        order = np.argsort(ids, kind="stable")
        ids, source = ids[order], source[order]
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}-{id(self)}.partial")
        try:
            with partial.open("wb") as out:
                self._write(out, view, ids, source, old)
                out.flush()
                os.fsync(out.fileno())
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)
        self._unsaved, self._limit, self._saved_position = 0, EXACT_ROWS, self._position
        if len(ids) > EXACT_ROWS or view.file is not None:
            self._load()

    def _sweep(self) -> None:
        """Remove what killed processes left half-written."""
        for left in self._path.parent.glob(f"{self._path.name}.*.partial"):
            with suppress(OSError, ValueError):
                writer = int(left.name.split(".")[-2].partition("-")[0])
                try:
                    os.kill(writer, 0)  # only asks whether it lives
                except ProcessLookupError:
                    left.unlink(missing_ok=True)

    def _write(
        self, out: BinaryIO, view: _View, ids: Ids, source: NDArray[np.intp], old: int
    ) -> None:
        """Header, mean, rotation, ids, codes (large files only), vectors; see ``_layout``."""
        large, file = len(ids) > EXACT_ROWS, view.file
        from_file = source < old
        newer = view.tail.vectors[source[~from_file] - old]
        mean, turn = np.zeros(0, np.float32), np.zeros((0, 0), np.float32)
        if large:
            mean, turn = (
                (file.mean, file.rotation)
                if file
                else (newer.mean(axis=0, dtype=np.float32), _rotation(self._dims))
            )
        words = turn.shape[1] // 64
        head = {
            "dims": self._dims,
            "fingerprint": self._fingerprint,
            "rows": len(ids),
            "words": words,
            "position": self._position,
            "ids_crc": zlib.crc32(ids.tobytes()),
        }
        out.write(_sealed(head))
        starts = _layout(len(ids), self._dims, words)
        for start, part in zip(starts, (mean, turn, ids), strict=False):
            out.seek(start)
            out.write(np.ascontiguousarray(part).tobytes())
        out.seek(starts[3])
        if large:
            fresh = _encode(newer, mean, turn)
            for word in range(words):
                line = np.empty(len(ids), np.uint64)
                if file:
                    line[from_file] = file.codes[word][source[from_file]]
                line[~from_file] = fresh[word]
                out.write(line.tobytes())
        out.seek(starts[4])
        for start in range(0, len(ids), BLOCK):
            part, is_old = source[start : start + BLOCK], from_file[start : start + BLOCK]
            block = np.empty((len(part), self._dims), np.int16)
            if file:
                block[is_old] = file.vectors[part[is_old]]
            block[~is_old] = _small(view.tail.vectors[part[~is_old] - old])
            out.write(block.tobytes())

    def _load(self) -> None:
        """Take over the file; start empty where it is missing, damaged or of other vectors."""
        try:
            with self._path.open("rb") as source:
                head = _unsealed(source.read(HEADER))
                size = os.fstat(source.fileno()).st_size
                held = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            if (head["dims"], head["fingerprint"]) != (self._dims, self._fingerprint):
                raise ValueError("vectors of another embedder")
            file = _mapped(held, head, size)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            return
        self._position = self._saved_position = int(head["position"])
        if file.codes.size:
            self._view = _View(file, _empty_tail(self._dims))
            return
        tail = _empty_tail(self._dims, max(256, len(file.ids)))
        count = len(file.ids)
        tail.ids[:count], tail.alive[:count] = file.ids, True
        tail.vectors[:count] = file.vectors.astype(np.float32) / SCALE
        tail.rows.update(zip(file.ids.tolist(), range(count), strict=True))
        self._view = _View(None, replace(tail, used=count))


def _layout(count: int, dims: int, words: int) -> list[int]:
    """Return where mean, rotation, ids, codes and vectors start, and where the file ends."""
    bits = 64 * words
    sizes = [
        4 * dims if words else 0,
        4 * dims * bits,
        8 * count,
        8 * words * count,
        2 * dims * count,
    ]
    starts = [HEADER]
    for size in sizes:
        starts.append(-(-(starts[-1] + size) // 64) * 64)
    return [*starts[:-1], starts[-2] + sizes[-1]]


def _sealed(head: dict[str, Any]) -> bytes:
    body = json.dumps(head).encode()
    seal = MAGIC + zlib.crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return (seal + body).ljust(HEADER, b"\0")


def _unsealed(block: bytes) -> dict[str, Any]:
    body = block[16 : 16 + int.from_bytes(block[12:16], "little")]
    if block[:8] != MAGIC or zlib.crc32(body) != int.from_bytes(block[8:12], "little"):
        raise ValueError("not a header of ours")
    head: dict[str, Any] = json.loads(body)
    return head


def _mapped(held: mmap.mmap, head: dict[str, Any], size: int) -> _File:
    """Return the arrays that lie in the file. Raises ValueError when they are not whole."""
    count, dims, words = int(head["rows"]), int(head["dims"]), int(head["words"])
    starts = _layout(count, dims, words)
    if starts[5] != size:
        raise ValueError("cut off")

    def part(which: int, kind: Any, *shape: int) -> Any:
        length = int(np.prod(shape))
        return np.frombuffer(held, kind, length, starts[which]).reshape(shape)

    mean = part(0, np.float32, dims if words else 0)
    rotation = part(1, np.float32, dims, 64 * words) if words else np.zeros((0, 0), np.float32)
    ids, codes = part(2, np.int64, count), part(3, np.uint64, words, count)
    vectors = part(4, np.int16, count, dims)
    if zlib.crc32(ids) != head["ids_crc"]:
        raise ValueError("the ids are damaged")
    # The rest is too long to sum up at each start: look closely at rows all over it.
    sample = np.unique(np.linspace(0, count - 1, 64).astype(np.int64)) if count else ids
    near = vectors[sample].astype(np.float32) / SCALE
    if count and np.abs(np.linalg.norm(near, axis=1) - 1).max() > 0.01:
        raise ValueError("the vectors are damaged")
    if count and words:
        differ = np.bitwise_count(_encode(near, mean, rotation) ^ codes[:, sample])
        if differ.sum() > 0.02 * 64 * codes[:, sample].size:
            raise ValueError("the codes are damaged")
    return _File(ids, vectors, codes, mean, rotation, np.ones(count, np.bool_))
