"""What every vector index keeps to. A backend is one subclass."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowme import plugins
from knowme.errors import InputError

DIMS = 32


def unit(count: int, dims: int = DIMS, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def clustered(count: int, dims: int, seed: int = 0) -> np.ndarray:
    """Make vectors as language models do: anisotropic, in clusters, with near copies."""
    chance = np.random.default_rng(seed)
    spread = np.linspace(2, 0.2, dims)
    centres = chance.standard_normal((max(count // 40, 1), dims)) * spread + 0.3
    found = centres[chance.integers(0, len(centres), count)]
    found = (found + 0.8 * chance.standard_normal((count, dims)) * spread).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def brute(held: dict[int, np.ndarray], question: np.ndarray, k: int) -> list[tuple[int, float]]:
    scores = ((float(row @ question), key) for key, row in held.items())
    return [(key, score) for score, key in sorted(scores, key=lambda p: (-p[0], p[1]))[:k]]


class IndexContract:
    """Subclass it with ``name``; ``recall`` is the share of true neighbours it must find."""

    name: str
    recall = 1.0
    tolerance = 2e-4

    def make(self, folder: Path, dims: int = DIMS, fingerprint: str = "a"):
        return plugins.find("indexes", self.name)(folder=folder, dims=dims, fingerprint=fingerprint)

    @pytest.fixture
    def index(self, tmp_path):
        made = self.make(tmp_path / "index")
        yield made
        made.close()

    def same(self, found, true) -> None:
        assert len(found) == len(true)
        assert [s for _, s in found] == pytest.approx([s for _, s in true], abs=self.tolerance)
        assert len({key for key, _ in found} & {key for key, _ in true}) >= self.recall * len(true)

    def test_a_new_index_is_empty(self, index):
        assert index.count() == 0 and index.position() == 0
        assert index.search(unit(1)[0], 5) == []
        assert np.isnan(index.scores(unit(1)[0], [1, 2])).all()
        index.delete([1, 2, 3])
        assert index.scores(unit(1)[0], []).shape == (0,)

    def test_the_nearest_come_first_with_their_cosines(self, index):
        vectors = unit(200)
        index.upsert(list(range(10, 210)), vectors)
        held = {10 + i: row for i, row in enumerate(vectors)}
        for question in unit(5, seed=1):
            self.same(index.search(question, 10), brute(held, question, 10))
        assert index.count() == 200

    def test_a_stored_vector_finds_itself(self, index):
        vectors = unit(50)
        index.upsert(list(range(50)), vectors)
        for key in (0, 17, 49):
            (found, score), *_ = index.search(vectors[key], 1)
            assert found == key and score == pytest.approx(1, abs=self.tolerance)

    def test_more_neighbours_than_there_are_gives_all_of_them(self, index):
        index.upsert([3, 1, 2], unit(3))
        assert sorted(key for key, _ in index.search(unit(1)[0], 5000)) == [1, 2, 3]
        assert index.search(unit(1)[0], 0) == []

    def test_an_upsert_replaces(self, index):
        old, new = unit(2)
        index.upsert([7], old[None])
        index.upsert([7], new[None])
        assert index.count() == 1
        assert index.search(new, 3) == [(7, pytest.approx(1, abs=self.tolerance))]

    def test_the_later_row_of_one_batch_counts(self, index):
        old, new = unit(2)
        index.upsert([7, 7], np.stack([old, new]))
        assert index.count() == 1
        assert index.scores(new, [7]) == pytest.approx([1], abs=self.tolerance)

    def test_what_is_deleted_is_never_found_again(self, index):
        vectors = unit(30)
        index.upsert(list(range(30)), vectors)
        index.delete([4, 5, 5, 999])
        assert index.count() == 28
        assert not {4, 5} & {key for key, _ in index.search(vectors[4], 30)}
        index.upsert([4], vectors[4:5])
        assert index.search(vectors[4], 1)[0][0] == 4

    def test_only_allowed_ids_are_found(self, index):
        vectors = unit(300)
        index.upsert(list(range(300)), vectors)
        held = dict(enumerate(vectors))
        for allowed in ([5, 3, 3, 77777], list(range(0, 300, 2)), []):
            some = {key: held[key] for key in allowed if key in held}
            found = index.search(vectors[0], 10, np.array(allowed, dtype=np.int64))
            self.same(found, brute(some, vectors[0], 10))

    def test_scores_are_cosines_and_nan_for_the_unknown(self, index):
        vectors = unit(40)
        index.upsert(list(range(40)), vectors)
        index.delete([2])
        found = index.scores(vectors[0], [39, 2, 1000, 0, 0, -5])
        assert found.dtype == np.float32
        assert np.isnan(found).tolist() == [False, True, True, False, False, True]
        assert found[[0, 3, 4]] == pytest.approx(
            [vectors[39] @ vectors[0], 1, 1], abs=self.tolerance
        )

    def test_a_zero_vector_is_forgotten(self, index):
        index.upsert([1, 2], np.stack([unit(1)[0], np.zeros(DIMS, np.float32)]))
        assert index.count() == 1
        index.upsert([1], np.zeros((1, DIMS), np.float32))
        assert index.count() == 0
        index.upsert([1], unit(1))
        assert index.search(np.zeros(DIMS, np.float32), 3) == []
        assert np.isnan(index.scores(np.zeros(DIMS, np.float32), [1])).all()

    def test_a_wrong_shape_or_a_broken_number_is_refused_and_nothing_stored(self, index):
        with pytest.raises(InputError, match="32 numbers"):
            index.upsert([1], unit(1, dims=8))
        with pytest.raises(InputError, match="32 numbers"):
            index.upsert([1, 2], unit(1))
        with pytest.raises(InputError, match="item 6 .* not finite"):
            index.upsert([5, 6], np.stack([unit(1)[0], np.full(DIMS, np.nan, np.float32)]))
        with pytest.raises(InputError, match="32 numbers"):
            index.search(np.ones(5, np.float32), 3)
        assert index.count() == 0

    def test_an_empty_batch_changes_nothing(self, index):
        index.upsert([], np.zeros((0, DIMS), np.float32))
        index.delete([])
        assert index.count() == 0

    def test_clear_forgets_everything_and_the_index_goes_on(self, index):
        index.upsert([1, 2], unit(2))
        index.flush(9)
        index.clear()
        assert index.count() == 0 and index.position() == 0
        index.upsert([3], unit(1))
        assert index.search(unit(1)[0], 2)[0][0] == 3

    def test_it_is_there_again_after_close(self, tmp_path):
        vectors = unit(100)
        first = self.make(tmp_path)
        first.upsert(list(range(100)), vectors)
        first.delete([99])
        before = first.search(vectors[3], 5)
        first.close()
        second = self.make(tmp_path)
        assert second.count() == 99
        self.same(second.search(vectors[3], 5), before)
        second.close()

    def test_position_never_runs_ahead_of_what_is_on_disk(self, tmp_path):
        first = self.make(tmp_path)
        first.upsert(list(range(50)), unit(50))
        first.flush(1234)
        first.close()
        second = self.make(tmp_path)
        assert second.position() in (0, 1234)
        assert second.count() == 50 or second.position() == 0
        second.close()

    def test_vectors_of_another_embedder_are_never_mixed(self, tmp_path):
        first = self.make(tmp_path)
        first.upsert([1, 2], unit(2))
        first.flush(5)
        first.close()
        other = self.make(tmp_path, fingerprint="b")
        assert other.count() == 0 and other.position() == 0
        other.close()
        narrow = self.make(tmp_path, dims=16, fingerprint="b")
        narrow.upsert([1], unit(1, dims=16))
        assert narrow.count() == 1
        narrow.close()

    @pytest.mark.parametrize("damage", ["cut", "noise", "zeros", "gone"])
    def test_a_damaged_index_starts_empty_and_can_be_refilled(self, tmp_path, damage):
        first = self.make(tmp_path)
        first.upsert(list(range(300)), unit(300))
        first.close()
        chance = np.random.default_rng(3)
        for path in [found for found in tmp_path.rglob("*") if found.is_file()]:
            whole = path.read_bytes()
            if damage == "gone":
                path.unlink()
            elif damage == "cut":
                path.write_bytes(whole[: len(whole) // 2])
            elif damage == "noise":
                path.write_bytes(chance.bytes(len(whole)))
            else:
                path.write_bytes(bytes(len(whole)))
        second = self.make(tmp_path)
        assert second.count() == 0 and second.position() == 0
        second.upsert(list(range(300)), unit(300))
        assert second.search(unit(300)[5], 1)[0][0] == 5
        second.close()

    def test_searches_run_while_rows_arrive(self, index):
        vectors = unit(600)
        index.upsert(list(range(100)), vectors[:100])
        wrong, stop = [], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                for key in (0, 50, 99):  # replaced all the time, always by the same vector
                    found = index.search(vectors[key], 1)
                    if not found or found[0][0] != key or len(set(found)) != len(found):
                        wrong.append((key, found))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for start in range(100, 600, 50):
            index.upsert(list(range(start, start + 50)), vectors[start : start + 50])
            index.upsert([0, 50, 99], vectors[[0, 50, 99]])
            index.delete(list(range(start, start + 25)))
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert index.count() == 100 + 250

    def test_any_sequence_of_writes_leaves_what_a_dictionary_would_hold(self, tmp_path_factory):
        pool = unit(12, seed=9)
        key, row = st.integers(0, 15), st.integers(0, 11)
        step = st.one_of(
            st.tuples(st.just("upsert"), st.lists(st.tuples(key, row), max_size=6)),
            st.tuples(st.just("delete"), st.lists(key, max_size=4)),
            st.tuples(st.sampled_from(["reopen", "clear"]), st.none()),
        )

        @settings(
            max_examples=self.examples,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(st.lists(step, max_size=12))
        def check(steps):
            folder = tmp_path_factory.mktemp("index")
            index, held = self.make(folder), {}
            for verb, what in steps:
                if verb == "upsert":
                    index.upsert([k for k, _ in what], pool[[r for _, r in what]])
                    held.update({k: pool[r] for k, r in what})
                elif verb == "delete":
                    index.delete(what)
                    held = {k: v for k, v in held.items() if k not in what}
                elif verb == "clear":
                    index.clear()
                    held = {}
                else:
                    index.close()
                    index = self.make(folder)
                assert index.count() == len(held)
            scores = index.scores(pool[0], list(range(16)))
            for k in range(16):
                if k in held:
                    assert scores[k] == pytest.approx(held[k] @ pool[0], abs=self.tolerance)
                else:
                    assert np.isnan(scores[k])
            found, true = index.search(pool[0], 20), brute(held, pool[0], 20)
            assert {k for k, _ in found} == set(held)
            assert [s for _, s in found] == pytest.approx([s for _, s in true], abs=self.tolerance)
            index.close()

        check()

    examples = 40


class TestNumpyIndex(IndexContract):
    name = "numpy"
    examples = 150


class TestNumpyIndexOnDisk(IndexContract):
    """The same contract where everything beyond a handful of rows lies in the mapped file."""

    name = "numpy"
    examples = 150

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        module = sys.modules[plugins.find("indexes", "numpy").__module__]
        monkeypatch.setattr(module, "EXACT_ROWS", 4)

    @pytest.fixture
    def index(self, tmp_path):
        made = self.make(tmp_path / "index")
        yield made
        made.close()


class TestSqliteVecIndex(IndexContract):
    name = "sqlite_vec"

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("sqlite_vec", reason="needs: pip install 'knowme[sqlite-vec]'")


class TestChromaIndex(IndexContract):
    name = "chroma"
    recall = 0.9
    examples = 12

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("chromadb", reason="needs: pip install 'knowme[chroma]'")


def make_numpy(folder: Path, dims: int = DIMS):
    return plugins.find("indexes", "numpy")(folder=folder, dims=dims, fingerprint="a")


@pytest.mark.slow
@pytest.mark.parametrize("dims", [256, 384])
def test_the_coarse_pass_finds_nearly_every_true_neighbour(tmp_path, dims):
    """Fails when the codes or the number of candidates no longer suffice."""
    count = 60_000
    vectors = clustered(count, dims)
    index = make_numpy(tmp_path, dims)
    for start in range(0, count, 10_000):
        index.upsert(list(range(start, start + 10_000)), vectors[start : start + 10_000])
    assert index._view.file is not None
    hits = 0
    for question in clustered(40, dims, seed=0):
        true = set(np.argpartition(-(vectors @ question), 100)[:100].tolist())
        hits += len(true & {key for key, _ in index.search(question, 100)})
    index.close()
    assert hits / 4000 >= 0.995


@pytest.mark.slow
def test_a_filter_holds_in_the_file_whether_wide_or_narrow(tmp_path):
    count, dims = 50_000, 64
    vectors = clustered(count, dims)
    index = make_numpy(tmp_path, dims)
    index.upsert(list(range(count)), vectors)
    for step in (2, 3, 1000):
        allowed = np.arange(0, count, step)
        scores = vectors[allowed] @ vectors[1]
        true = allowed[np.argsort(-scores)[:50]]
        found = [key for key, _ in index.search(vectors[1], 50, allowed)]
        assert all(key % step == 0 for key in found) and len(found) == 50
        assert len(set(found) & set(true.tolist())) >= 49
    index.close()


def test_a_second_process_sees_a_whole_index_while_the_first_one_writes(tmp_path, monkeypatch):
    first = make_numpy(tmp_path)
    first.upsert(list(range(5000)), unit(5000))
    first.flush(5000)
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from knowme.indexes.numpy import NumpyIndex\n"
        "index = NumpyIndex(folder=Path(sys.argv[1]), dims=32, fingerprint='a')\n"
        "print(index.position(), index.count())\n"
        "index.upsert([9000], np.ones((1, 32), np.float32))\n"
        "index.close()\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert seen.stdout.split() == ["5000", "5000"]
    first.upsert(list(range(5000, 9000)), unit(4000, seed=2))
    first.flush(9000)
    assert first.count() == 9000 and first.position() == 9000
    first.close()
    third = make_numpy(tmp_path)
    assert (third.count(), third.position()) == (9000, 9000)
    third.close()
    assert not list(tmp_path.glob("*.partial"))


def test_a_few_changes_are_not_worth_a_new_file_once_positions_are_kept(tmp_path):
    first = make_numpy(tmp_path)
    first.upsert(list(range(5000)), unit(5000))
    first.flush(5000)
    written = (tmp_path / "vectors.knv").stat().st_mtime_ns
    first.upsert([1, 7000], unit(2))
    first.flush(5002)
    first.close()
    assert (tmp_path / "vectors.knv").stat().st_mtime_ns == written
    second = make_numpy(tmp_path)
    assert (second.position(), second.count()) == (5000, 5000)
    second.close()


def test_a_full_disk_costs_the_file_and_not_the_answers(tmp_path, monkeypatch):
    module = sys.modules[plugins.find("indexes", "numpy").__module__]
    monkeypatch.setattr(module, "EXACT_ROWS", 100)
    index = make_numpy(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        vectors = unit(1000)
        index.upsert(list(range(1000)), vectors)
        assert index.count() == 1000 and index.search(vectors[5], 1)[0][0] == 5
        assert not list(tmp_path.iterdir())
    index.close()
    again = make_numpy(tmp_path)
    assert again.count() == 1000
    again.close()


@pytest.mark.kill
def test_a_process_killed_while_it_writes_leaves_a_whole_index(tmp_path):
    """Each row of the index is known by its id, so a torn one would show."""
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from knowme.indexes import numpy as module\n"
        "module.EXACT_ROWS = 500\n"
        "index = module.NumpyIndex(folder=Path(sys.argv[1]), dims=32, fingerprint='a')\n"
        "at = index.position()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    ids = list(range(at, at + 1100))\n"
        "    rows = np.stack([np.random.default_rng(i).standard_normal(32) for i in ids])\n"
        "    index.upsert(ids, rows)\n"
        "    at += 1100\n"
        "    index.flush(at)\n"
    )
    chance = np.random.default_rng(5)
    seen = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.4))
        process.kill()
        process.wait()
        index = make_numpy(tmp_path)
        position = index.position()
        assert position >= seen and index.count() >= position
        for key in chance.integers(0, position, 20).tolist() if position else []:
            row = np.random.default_rng(key).standard_normal(32).astype(np.float32)
            assert index.scores(row, [key]) == pytest.approx([1], abs=2e-4)
        seen = position
        index._unsaved = 0  # look, and write nothing
        index.close()
    assert seen > 0
    assert not list(tmp_path.glob("*.partial"))


def test_no_index_is_imported_by_listing_them():
    program = "import sys, json; from knowme import plugins; plugins.names('indexes');"
    program += "print(json.dumps(sorted(m for m in sys.modules if m.startswith('knowme.'))))"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not any("indexes" in name for name in json.loads(seen.stdout))
