"""Who is in memory: who comes, who goes, who waits, whatever the order."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowme import db as database
from knowme.errors import (
    ModelDownError,
    ModelError,
    ModelMissingError,
)
from knowme.settings import ModelSettings

from . import held_engine
from .work import Clock, ask, held, inside, loaded, swaps, until

# --- who is in memory -----------------------------------------------------------------------------


class TestResidency:
    def test_the_least_recently_used_goes(self, build, memory):
        models = build(held("a"), held("b"), held("c"), max_models=2)

        async def work():
            for role in "abacbc":
                await ask(models, role)

        asyncio.run(work())
        assert memory.events == [
            ("load", "a-100"), ("load", "b-100"), ("unload", "b-100"), ("load", "c-100"),
            ("unload", "a-100"), ("load", "b-100"),
        ]  # fmt: skip
        assert loaded(models) == {"b", "c"}
        assert memory.most == 2

    def test_without_a_limit_all_stay(self, build, memory):
        models = build(*(held(role) for role in "abcd"), max_models=0)

        async def work():
            for role in "abcd":
                await ask(models, role)

        asyncio.run(work())
        assert loaded(models) == set("abcd")

    def test_statistics_are_those_of_the_table(self, build, memory):
        models = build(held("a"), held("b"), held("c"), max_models=2)

        async def work():
            for role in "abcaab":
                await ask(models, role)
            await models.aclose()

        asyncio.run(work())
        told = models.statistics()
        rows = swaps(models)
        assert rows == [
            ("load", "a", "asked"), ("load", "b", "asked"), ("unload", "a", "models"),
            ("load", "c", "asked"), ("unload", "b", "models"), ("load", "a", "asked"),
            ("unload", "c", "models"), ("load", "b", "asked"),
            ("unload", "a", "closed"), ("unload", "b", "closed"),
        ]  # fmt: skip
        assert told["loads"] == sum(kind == "load" for kind, *_ in rows) == 5
        assert told["unloads"] == sum(kind == "unload" for kind, *_ in rows) == 5
        assert (told["uses"], told["hits"], told["hit_rate"]) == (6, 1, round(1 / 6, 4))
        with models._db.read() as conn:
            took = [row[0] for row in conn.execute("SELECT took_ms FROM swaps WHERE kind='load'")]
            held_bytes = database.rows(conn, "SELECT DISTINCT memory_bytes FROM swaps")
        assert told["mean_ms"] == pytest.approx(sum(took) / len(took), abs=0.001)
        assert told["p95_ms"] == pytest.approx(max(took), abs=0.001)
        assert held_bytes == [(100 << 20,)]

    def test_one_with_a_request_in_flight_stays_and_who_needs_its_place_waits(self, build, memory):
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            async with inside(models, memory, "a"):
                second = asyncio.create_task(ask(models, "b"))
                await asyncio.sleep(0.1)
                assert not second.done() and loaded(models) == {"a"}
            await second
            assert loaded(models) == {"b"}

        asyncio.run(work())

    def test_two_roles_at_once_in_one_place_take_turns(self, build, memory):
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            await asyncio.gather(*(ask(models, role) for role in "abab" * 5))

        asyncio.run(work())
        assert memory.most == 1
        assert models.statistics()["uses"] == 20

    def test_many_at_once_load_a_model_once(self, build, memory):
        memory.slow["a-100"] = 0.05
        models = build(held("a"))

        async def work():
            await asyncio.gather(*(ask(models, "a") for _ in range(10)))

        asyncio.run(work())
        assert memory.events == [("load", "a-100")]
        assert models.statistics()["hits"] == 0, "none of them found it loaded"

    def test_threads_with_event_loops_of_their_own_share_the_models(self, build, memory):
        models = build(held("a"), held("b"), held("c"), max_models=2)
        failed = []

        def work(turn):
            async def some():
                for step in range(6):
                    async with inside(models, memory, "abc"[(turn * step + turn) % 3]):
                        await asyncio.sleep(0.001)

            try:
                asyncio.run(some())
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failed and not any(thread.is_alive() for thread in threads)
        assert models.statistics()["uses"] == 48
        assert memory.most <= 2

    def test_a_request_that_is_given_up_while_it_loads_leaves_the_others_their_model(
        self, build, memory
    ):
        memory.slow["a-100"] = 0.2
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            first = asyncio.create_task(ask(models, "a"))
            await asyncio.sleep(0.05)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await ask(models, "b")
            await ask(models, "a")

        asyncio.run(work())
        assert memory.happened("load") == ["a-100", "b-100", "a-100"]

    def test_a_loop_that_ends_while_it_loads_leaves_the_next_one_its_model(self, build, memory):
        memory.slow["a-100"] = 0.2
        models = build(held("a"))

        async def leave():
            task = asyncio.create_task(ask(models, "a"))
            await asyncio.sleep(0.05)
            del task

        asyncio.run(leave())
        asyncio.run(ask(models, "a"))
        assert memory.happened("load") == ["a-100"]

    def test_who_waits_long_is_told_what_is_in_the_way(self, build, memory):
        models = build(held("a"), held("b"), max_models=1, patience_seconds=0.1)

        async def work():
            async with inside(models, memory, "a"):
                await ask(models, "b")

        with pytest.raises(ModelError, match=r"waited 0.1 s.*a \(a-100, answering 1\)") as caught:
            asyncio.run(work())
        assert "residency.max_models" in caught.value.hint
        asyncio.run(ask(models, "b"))

    def test_who_has_waited_long_goes_before_who_came_later(self, build, memory, monkeypatch):
        from knowme import residency

        monkeypatch.setattr(residency, "OVERDUE_SECONDS", 0.02)
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            done = []

            async def one(role):
                await ask(models, role)
                done.append(role)

            async with inside(models, memory, "a"):
                waiting = asyncio.create_task(one("b"))
                await asyncio.sleep(0.05)
                later = asyncio.create_task(one("a"))
                await asyncio.sleep(0.05)
                assert not later.done(), "else b could wait for ever"
            await asyncio.gather(waiting, later)
            return done

        assert asyncio.run(work()) == ["b", "a"]

    def test_a_load_that_fails_is_told_to_all_and_tried_again_by_the_next(self, build, memory):
        memory.slow["a-100"] = 0.05
        memory.broken["a-100"] = ModelDownError("It broke.", "Mend it.")
        models = build(held("a"))

        async def work():
            told = await asyncio.gather(
                *(ask(models, "a") for _ in range(3)), return_exceptions=True
            )
            assert [str(error) for error in told] == ["It broke. Mend it."] * 3
            memory.broken["a-100"] = RuntimeError("bug")
            with pytest.raises(ModelError, match=r"a-100 could not be loaded: RuntimeError\('bug'"):
                await ask(models, "a")
            memory.broken.clear()
            await ask(models, "a")

        asyncio.run(work())
        assert models.statistics()["loads"] == 1

    def test_a_model_that_went_by_itself_is_loaded_again(self, build, memory):
        models = build(held("a"))
        asyncio.run(ask(models, "a"))
        memory.loaded.clear()
        asyncio.run(ask(models, "a"))
        assert memory.happened("load") == ["a-100", "a-100"]

    def test_two_roles_of_one_model_take_one_place(self, build, memory):
        models = build(
            ModelSettings(role="one", engine="held", model="same-100"),
            ModelSettings(role="two", engine="held", model="same-100", think=True),
            held("other"),
            max_models=2,
        )

        async def work():
            for role in ("one", "two", "other", "one", "two"):
                await ask(models, role)

        asyncio.run(work())
        assert memory.events == [("load", "same-100"), ("load", "other-100")]
        assert loaded(models) == {"one", "two", "other"}

    def test_an_engine_that_takes_no_memory_is_handed_out_and_never_counted(self, build, memory):
        models = build(held("a"), ModelSettings(role="echo", engine="echo"), max_models=1)

        async def work():
            async with models.use("a"), models.use("echo") as engine:
                assert engine.name == "echo"

        asyncio.run(work())
        assert models.statistics()["uses"] == 1


class TestMemory:
    def test_models_go_until_the_new_one_fits_into_the_bytes(self, build, memory):
        models = build(held("a", 300), held("b", 200), held("c", 400), max_models=0, memory_mb=650)

        async def work():
            for role in "abc":
                await ask(models, role)

        asyncio.run(work())
        assert memory.happened("unload") == ["a-300"]
        assert swaps(models)[2] == ("unload", "a", "memory")

    def test_what_the_settings_say_of_its_memory_counts(self, build, memory):
        models = build(held("a", 10, memory_mb=500), held("b", 10), max_models=0, memory_mb=505)

        async def work():
            for role in "ab":
                await ask(models, role)

        asyncio.run(work())
        assert memory.happened("unload") == ["a-10"]

    def test_a_model_that_can_never_fit_is_refused_at_once_and_nobody_goes_for_it(
        self, build, memory
    ):
        models = build(held("small", 100), held("huge", 900), memory_mb=500)
        asyncio.run(ask(models, "small"))
        with pytest.raises(ModelError, match=r"huge \(huge-900\) needs about 943,718,400 bytes.*"
                           r"allows 524,288,000.*residency\.memory_mb 901"):  # fmt: skip
            asyncio.run(ask(models, "huge"))
        assert loaded(models) == {"small"}

    def test_what_is_always_there_counts_against_what_can_fit(self, build, memory):
        models = build(held("fixed", 300, residency="always"), held("b", 300), memory_mb=500)
        asyncio.run(models.warm_up())
        with pytest.raises(ModelError, match=r"of which fixed \(always loaded\) take 314,572,800"):
            asyncio.run(ask(models, "b"))

    def test_where_the_machine_has_no_room_models_go_one_by_one(self, build, memory):
        memory.free_bytes = 250 << 20
        models = build(held("a"), held("b"), held("c", 150), held("d", 200), max_models=0)

        async def work():
            await ask(models, "a")
            await ask(models, "b")
            await ask(models, "c")
            assert sorted(memory.loaded) == ["b-100", "c-150"]
            async with inside(models, memory, "b"):
                waiting = asyncio.create_task(ask(models, "d"))
                await until(lambda: "c-150" not in memory.loaded)
                await asyncio.sleep(0.05)
                assert not waiting.done(), "b goes when it is idle"
            await waiting
            assert sorted(memory.loaded) == ["d-200"]

        asyncio.run(work())

    def test_where_nobody_can_go_the_machines_own_error_is_told(self, build, memory):
        memory.free_bytes = 50 << 20
        models = build(held("a"))
        with pytest.raises(ModelError, match="larger than what is free"):
            asyncio.run(ask(models, "a"))
        memory.free_bytes = 150 << 20
        asyncio.run(ask(models, "a"))


class TestAlways:
    def test_it_is_loaded_at_the_start_and_never_goes(self, build, memory):
        clock = Clock()
        models = build(
            held("a", residency="always"), held("b"), held("c"), max_models=2, clock=clock
        )

        async def work():
            await models.warm_up()
            assert loaded(models) == {"a"}
            for role in "bcb":
                await ask(models, role)
            clock.now += 10**6
            await models.tick()

        asyncio.run(work())
        assert loaded(models) == {"a"}
        assert swaps(models)[0] == ("load", "a", "warm-up")
        assert "a-100" not in memory.happened("unload")

    def test_the_setting_keeps_it_from_being_loaded_at_the_start(self, build, memory):
        models = build(held("a", residency="always"), warm_up=False)
        asyncio.run(models.warm_up())
        assert loaded(models) == set()

    def test_all_of_them_come_even_beyond_the_limit_and_another_one_is_told_why_not(
        self, build, memory
    ):
        models = build(
            held("a", residency="always"), held("b", residency="always"), held("c"), max_models=1
        )
        asyncio.run(models.warm_up())
        assert loaded(models) == {"a", "b"}
        with pytest.raises(ModelError, match=r"max_models is 1, and a and b must always.*models 3"):
            asyncio.run(ask(models, "c"))

    def test_one_that_fails_keeps_the_others_from_nothing(self, build, memory):
        memory.broken["a-100"] = ModelMissingError("It is not there.", "Get it.")
        models = build(held("a", residency="always"), held("b", residency="always"))
        asyncio.run(models.warm_up())
        assert loaded(models) == {"b"}
        assert models.states()[0].down == "It is not there. Get it."


class TestIdle:
    @pytest.mark.parametrize(
        ("cache", "more", "seconds"),
        [
            ("ram", {}, 1800),
            ("ssd", {}, 120),
            ("ssd", {"residency": "unload_after", "unload_after": "1h"}, 3600),
            ("ram", {"residency": "unload_after", "unload_after": "30s"}, 30),
        ],
    )
    def test_an_idle_model_goes_when_its_time_is_over(self, build, memory, cache, more, seconds):
        clock = Clock()
        models = build(held("a", **more), cache=cache, clock=clock)

        async def work():
            await ask(models, "a")
            clock.now += seconds - 1
            await models.tick()
            assert loaded(models) == {"a"}
            await ask(models, "a")
            clock.now += seconds - 1
            await models.tick()
            assert loaded(models) == {"a"}, "its time began again"
            clock.now += 1
            await models.tick()
            assert loaded(models) == set()

        asyncio.run(work())
        assert swaps(models)[-1] == ("unload", "a", "idle")

    def test_none_lets_it_go_at_once_but_not_under_another_request(self, build, memory):
        models = build(held("a"), cache="none")

        async def work():
            async with inside(models, memory, "a"):
                await ask(models, "a")
                await asyncio.sleep(0.05)
                assert loaded(models) == {"a"}
            await until(lambda: not memory.loaded)

        asyncio.run(work())

    def test_one_with_a_request_in_flight_is_not_idle(self, build, memory):
        clock = Clock()
        models = build(held("a"), clock=clock)

        async def work():
            async with inside(models, memory, "a"):
                clock.now += 10**6
                await models.tick()
                assert loaded(models) == {"a"}

        asyncio.run(work())

    def test_what_was_loaded_beside_us_is_noticed_and_goes_too(self, build, memory):
        clock = Clock()
        models = build(held("a"), clock=clock)
        memory.loaded[models.engine("a").model] = 1

        async def work():
            await models.tick()
            assert loaded(models) == {"a"}
            clock.now += 1800
            await models.tick()

        asyncio.run(work())
        assert not memory.loaded

    def test_closing_unloads_all_and_tells_who_waits(self, build, memory):
        models = build(held("a"), held("b"), max_models=1)

        async def work():
            async with models.use("a"):
                waiting = asyncio.create_task(ask(models, "b"))
                await asyncio.sleep(0.02)
                await models.aclose()
                with pytest.raises(ModelError, match="closing"):
                    await waiting
            assert not memory.loaded
            await models.aclose()
            await ask(models, "b")  # `knowme chat` closes before its home does

        asyncio.run(work())


# --- whatever the order ---------------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from("abcdp")),
        st.tuples(st.just("close"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([1, 100, 2000])),
    ),
    max_size=14,
)


class TestAnyOrder:
    @settings(max_examples=40)
    @given(steps=STEPS, most=st.integers(1, 3), cache=st.sampled_from(["ram", "none"]))
    def test_never_too_many_and_never_one_in_flight(self, plugin, steps, most, cache):
        # At most `most`, but for p, which is always there; an unload in flight is seen by Memory.
        memory = held_engine.memory = held_engine.Memory()
        clock = Clock()
        models = plugin(most, cache, clock)
        tasks: list[tuple[asyncio.Task, asyncio.Event]] = []

        async def one(role, end):
            async with inside(models, memory, role):
                await end.wait()

        async def work():
            for kind, what in steps:
                if kind == "open":
                    end = asyncio.Event()
                    tasks.append((asyncio.create_task(one(what, end)), end))
                elif kind == "wait":
                    clock.now += what
                    await models.tick()
                elif tasks:
                    task, end = tasks[what % len(tasks)]
                    end.set() if kind == "close" else task.cancel()
                await asyncio.sleep(0.001)
                free = [name for name in list(memory.loaded) if name != "p-100"]
                assert len(free) <= most, steps
            for _, end in tasks:
                end.set()
            ended = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
            wrong = [e for e in ended if e and not isinstance(e, asyncio.CancelledError)]
            # Where p has the only place, the others are told so.
            assert all("must always be loaded" in str(error) for error in wrong), wrong
            await models.aclose()

        asyncio.run(work())
        assert memory.wrong == [] and not memory.loaded
        told = models.statistics()
        assert told["loads"] == told["unloads"] == len(memory.happened("load"))
        kinds = [kind for kind, *_ in swaps(models)]
        assert (kinds.count("load"), kinds.count("unload")) == (told["loads"], told["unloads"])
        models._db.close()
