import asyncio
import threading

import pytest

from atoll.agent.unbroken import unbroken


def test_who_is_cancelled_waits_for_the_thread_and_no_longer_holds_the_lock() -> None:
    async def main() -> None:
        started, may_end, lock = threading.Event(), threading.Event(), asyncio.Lock()

        def work() -> None:
            started.set()
            assert may_end.wait(timeout=30)

        async def locked() -> None:
            async with lock:
                await unbroken(asyncio.to_thread(work))

        task = asyncio.create_task(locked())
        assert await asyncio.to_thread(started.wait, 30)
        task.cancel()
        await asyncio.sleep(0)  # the task has seen it
        assert not task.done() and lock.locked()
        may_end.set()
        async with lock:
            pass
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_results_and_failures_are_those_of_the_work() -> None:
    async def fail() -> None:
        raise ValueError("why")

    assert asyncio.run(unbroken(asyncio.sleep(0, 5))) == 5
    with pytest.raises(ValueError, match="why"):
        asyncio.run(unbroken(fail()))
