from facts_rows import put_fact

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


def test_a_fact_leads_to_the_item_of_its_message_however_that_came_about(home) -> None:
    layout = Layout()
    put(home, "a", "b")

    def leads() -> list[tuple[int, int]]:
        with home.db.read() as conn:
            now, fresh = layout.caught_up(conn), Layout().caught_up(conn)
        assert now.roles.tolist() == fresh.roles.tolist()
        here = now.roles > 0
        assert now.leads[here].tolist() == fresh.leads[here].tolist()
        return [(item, int(now.leads[item])) for item in now.roles.nonzero()[0].tolist()]

    assert leads() == [(1, 0), (2, 0)]

    def learn(conn) -> None:
        memory.put_fact_items(conn, [put_fact(conn, 2, "The person knows b")])

    home.db.write(learn)
    assert leads() == [(1, 0), (2, 0), (3, 2)]

    def again(conn) -> None:
        memory.drop_items(conn, [2])
        memory.add_items(conn, [2])

    home.db.write(again)
    assert leads() == [(1, 0), (4, 0), (5, 4)]
    home.db.write(lambda conn: memory.drop_items(conn, [2]))
    assert leads() == [(1, 0)]
