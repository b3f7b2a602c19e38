import asyncio
import threading

import pytest

from atoll.agent.unbroken import unbroken


def test_who_is_cancelled_waits_for_the_thread_and_no_longer_holds_the_lock() -> None:
    ended = threading.Event()

    async def main() -> None:
        started, lock = threading.Event(), asyncio.Lock()

        def work() -> None:
            started.set()
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()  # the loop has run, with the cancellation
            ended.set()

        async def locked() -> None:
            async with lock:
                await unbroken(asyncio.to_thread(work))

        loop = asyncio.get_running_loop()
        task = asyncio.create_task(locked())
        await asyncio.to_thread(started.wait)
        task.cancel()
        async with lock:
            assert ended.is_set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_results_and_failures_are_those_of_the_work() -> None:
    async def fail() -> None:
        raise ValueError("why")

    assert asyncio.run(unbroken(asyncio.sleep(0, 5))) == 5
    with pytest.raises(ValueError, match="why"):
        asyncio.run(unbroken(fail()))
