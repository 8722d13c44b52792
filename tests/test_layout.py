from knowme import memory
from knowme.layout import Layout
from knowme.sync import store
from knowme.types import Record


def put(home, *names: str) -> None:
    store(
        home,
        "s",
        [
            (Record("message", "c", name, text=f"text {name}", seq=ord(name), at_ms=0), None)
            for name in names
        ],
    )


def test_what_a_search_holds_does_not_change_under_it(home) -> None:
    layout = Layout()
    put(home, "a", "c")
    with home.db.read() as conn:
        held = layout.caught_up(conn)
        after = held.after.tolist()
    put(home, "b", *map(chr, range(1000, 3000)))
    with home.db.read() as conn:
        newer = layout.caught_up(conn)
    assert (held.total, held.after.tolist()) == (2, after)
    assert held.before.size == held.roles.size == held.days.size
    assert newer.total == 2003 and newer.after[1] == 3


def test_an_older_snapshot_does_not_turn_the_layout_back(home) -> None:
    layout = Layout()
    put(home, "a")
    with home.db.read() as old:
        memory.last_change(old)  # the snapshot begins with its first read
        put(home, "b")
        with home.db.read() as new:
            assert layout.caught_up(new).total == 2
        assert layout.caught_up(old).total == 2


def test_a_layout_that_fell_behind_what_is_remembered_is_read_whole(home) -> None:
    layout = Layout()
    put(home, "a", "b")
    with home.db.read() as conn:
        layout.caught_up(conn)
    store(home, "s", [(Record("removed", "c", "a"), None)])
    put(home, "c", "d")
    home.db.write(lambda conn: memory.prune_changes(conn, keep=1))
    with home.db.read() as conn:
        now, fresh = layout.caught_up(conn), Layout().caught_up(conn)
    assert now.total == fresh.total == 3
    assert now.roles.tolist() == fresh.roles.tolist()
