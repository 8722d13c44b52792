import numpy as np

from knowme import memory
from knowme.follow import Follower
from knowme.sync import reindex, store
from knowme.types import Record


def put(home, *names: str) -> None:
    store(home, "s", [(Record("message", "c", name, text=f"text {name}"), None) for name in names])


def follow(home, folder) -> Follower:
    return Follower(home.db, folder, "numpy", home.space())


def same(home, follower: Follower) -> bool:
    """Tell whether the index holds exactly the vectors that memory.db holds."""
    index = follower.caught_up()
    with home.db.read() as conn:
        space = memory.serving(conn)
        count = 0
        for ids, vectors in memory.read_vectors(conn, space):
            count += len(ids)
            for item, vector in zip(ids.tolist(), vectors, strict=True):
                if not np.isclose(index.scores(vector, [item])[0], 1, atol=0.01):
                    return False
    return index.count() == count


def test_an_index_behind_what_is_remembered_is_filled_anew(home, tmp_path) -> None:
    put(home, "a", "b")
    follower = follow(home, tmp_path)
    assert same(home, follower)
    store(home, "s", [(Record("removed", "c", "a"), None)])
    put(home, "c")
    home.db.write(lambda conn: memory.prune_changes(conn, keep=1))
    assert same(home, follower)
    follower.close()


def test_an_index_that_is_ahead_of_the_database_is_filled_anew(home, tmp_path) -> None:
    put(home, "a", "b", "c")
    follower = follow(home, tmp_path)
    assert same(home, follower)
    follower.close()
    home.db.write(lambda conn: memory.drop_items(conn, [3]))
    home.db.write(lambda conn: conn.execute("DELETE FROM changes WHERE id > 3"))
    again = follow(home, tmp_path)
    assert same(home, again)
    again.close()


def test_an_embedder_that_comes_back_under_another_number_is_followed(home, tmp_path) -> None:
    put(home, "a", "b")
    follower = follow(home, tmp_path)
    assert same(home, follower)

    def take_over(conn):
        other = memory.put_space(conn, "another", 4, {}, 1)
        memory.put_vectors(conn, other, [1, 2], np.eye(2, 4, dtype=np.float32))
        assert memory.promote(conn, other)

    home.db.write(take_over)
    held = follower.caught_up().count()
    assert held == 2  # nobody asks it any more; it keeps what it has
    assert reindex(home) == 2
    assert home.space().id != follower.space.id
    assert same(home, follower)
    follower.close()
