"""An agent's background work: what is replaced never runs beside, after or in place of what replaces it."""

import asyncio

import pytest

from atoll.agent.tasks import Tasks


class Scene:
    """Work that tells when it begins and ends; `slow` work ends only when it may."""

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.told: list[str] = []
        self.may_end = asyncio.Event()

    async def slow(self, name: str) -> None:
        self.told.append(f"{name} begins")
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()
            self.told.append(f"{name} ends")

    async def quick(self, name: str) -> None:
        self.told.append(name)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("between", [0, 1, 20])
def test_the_newest_of_many_runs_when_the_oldest_has_ended_and_those_between_never(between) -> None:
    """Three attempts within the time that the first one's reduction takes to end: the second must not run
    then.
    """

    async def main() -> list[str]:
        scene = Scene()
        scene.tasks.start("reduce", scene.slow, "1")
        await turns()
        for name in ("2", "3", "4"):
            scene.tasks.start("reduce", scene.quick, name)
            for _ in range(between):  # 0: replaced before its first turn
                await asyncio.sleep(0)
        await turns()
        assert scene.told == ["1 begins"]
        scene.may_end.set()
        await scene.tasks.ended("reduce")
        return scene.told

    assert asyncio.run(main()) == ["1 begins", "1 ends", "4"]


def test_stop_waits_until_all_has_ended_and_what_waited_does_not_begin() -> None:
    async def main() -> list[str]:
        scene = Scene()
        scene.tasks.start("reduce", scene.slow, "1")
        await turns()
        scene.tasks.start("reduce", scene.quick, "2")
        scene.tasks.start("hold", scene.quick, "other")
        stopping = asyncio.create_task(scene.tasks.stop("reduce"))
        await turns()
        assert not stopping.done()
        stopping.cancel()  # whoever stops again waits for the same end, and does not cut it short
        stopping = asyncio.create_task(scene.tasks.stop("reduce"))
        await turns()
        assert not stopping.done()
        scene.may_end.set()
        await stopping
        await turns()
        return scene.told

    assert asyncio.run(main()) == ["1 begins", "other", "1 ends"]


def test_stop_of_everything_and_nothing_to_wait_for() -> None:
    async def main() -> list[str]:
        scene = Scene()
        await scene.tasks.stop()
        await scene.tasks.ended("reduce")
        scene.may_end.set()
        for kind in ("a", "b"):
            scene.tasks.start(kind, scene.slow, kind)
        await turns()
        await scene.tasks.ended("a", 0.0)  # not for ever
        await scene.tasks.stop()
        return scene.told

    assert asyncio.run(main()) == ["a begins", "b begins", "a ends", "b ends"]


def test_all_kinds_are_cancelled_before_any_is_waited_for() -> None:
    """Else one could begin what the other's end lets it: encode, say, under the lock that advance gives
    back.
    """

    async def main() -> list[str]:
        scene, lock = Scene(), asyncio.Lock()

        async def locked(work, name: str) -> None:
            async with lock:
                await work(name)

        scene.tasks.start("advance", locked, scene.slow, "advance")
        scene.tasks.start("encode", locked, scene.quick, "encode")
        await turns()
        scene.may_end.set()
        await scene.tasks.stop()
        return scene.told

    assert asyncio.run(main()) == ["advance begins", "advance ends"]


def test_a_defect_is_told_once() -> None:
    async def main() -> None:
        tasks = Tasks()

        async def fail(text: str) -> None:
            raise ValueError(text)

        tasks.start("a", fail, "first")
        tasks.start("b", fail, "second")
        await tasks.ended("b")
        with pytest.raises(ValueError, match="first"):
            await tasks.crash

    asyncio.run(main())
