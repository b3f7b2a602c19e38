"""The simulator's loop and processes: time jumps, the frozen wait, and the dead do nothing more."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from atoll.files import Disk
from atoll.simulate.loop import VirtualLoop
from atoll.simulate.process import Clock, Doom, Killed, Process


class World:
    """A loop, and processes in it."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.defects: list[BaseException] = []
        self.undone = 0

    def process(self, name: str = "p") -> Process:
        return Process(
            name,
            disk=Disk(),
            random_bytes=bytes,
            clock=Clock(),
            died=lambda process: None,
            defect=lambda process, error: self.defects.append(error),
        )

    def kill(self, process: Process) -> None:
        def undo() -> None:
            self.undone += 1

        process.die(lambda: undo)

    def run(
        self, *work: tuple[Process, Callable[[], Coroutine[Any, Any, None]]], seconds: float = 100
    ) -> None:
        """Let processes work for so long, and time pass."""

        async def main() -> None:
            for process, function in work:
                process.start(function())
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(main())
        for process, _ in work:
            process.abandon()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.close()


def test_hours_pass_at_once(world: World) -> None:
    seen: list[float] = []

    async def work() -> None:
        await asyncio.sleep(3600)
        seen.append(asyncio.get_running_loop().time())

    world.run((world.process(), work), seconds=4000)
    assert seen == [3600] and world.loop.now == 4000


def test_a_dead_process_does_nothing_more_not_even_in_finally(world: World) -> None:
    seen: list[str] = []
    process = world.process()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            if process.alive:
                seen.append("finally")

    world.loop.call_at(5, world.kill, process)
    world.run((process, work))
    assert seen == [] and not process.alive and world.undone == 0


def test_a_death_in_the_middle_of_a_step_undoes_what_comes_after_it(world: World) -> None:
    seen: list[str] = []
    process = world.process()

    async def work() -> None:
        seen.append("before")
        try:
            world.kill(process)
        except Exception:
            seen.append("caught")
        seen.append("after")

    world.run((process, work))
    assert seen == ["before"] and world.undone == 1 and world.defects == []


def test_a_frozen_process_goes_on_where_it_was_and_its_deadlines_are_over(world: World) -> None:
    seen: list[float] = []
    process = world.process()

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(world.loop.now)

    world.loop.call_at(1.5, setattr, process, "frozen", True)
    world.loop.call_at(50, world.loop.thaw, process)
    world.run((process, work))
    assert seen == [1, 50, 51]


def test_a_clock_that_runs_fast_ends_its_waits_early(world: World) -> None:
    seen: list[float] = []
    process = world.process()
    process.clock.set_rate(2.0, 0.0)

    async def work() -> None:
        await asyncio.sleep(10)
        seen.append(world.loop.now)

    world.run((process, work))
    assert seen == [5]


def test_work_of_a_thread_that_was_cancelled_before_it_began_does_not_happen(world: World) -> None:
    seen: list[int] = []

    async def work() -> None:
        cancelled = asyncio.ensure_future(asyncio.to_thread(seen.append, 1))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.to_thread(seen.append, 2)

    world.run((world.process(), work))
    assert seen == [2]


def test_a_doomed_process_dies_after_so_many_steps(world: World) -> None:
    seen: list[int] = []
    process = world.process()
    process.doom = Doom("steps", 3, lambda: world.kill(process))

    async def work() -> None:
        for number in range(10):
            seen.append(number)
            await asyncio.sleep(1)

    world.run((process, work))
    assert seen and len(seen) < 10 and not process.alive


def test_an_exception_that_nobody_foresaw_is_a_defect_of_the_process(world: World) -> None:
    process = world.process()

    def fail() -> None:
        raise RuntimeError("unforeseen")

    world.loop.call_at(0, process.call, fail)
    world.run()
    assert [str(error) for error in world.defects] == ["unforeseen"]


def test_nothing_of_production_can_catch_a_death() -> None:
    assert not issubclass(Killed, Exception)
