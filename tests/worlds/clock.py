"""Virtual time for worlds in one process.

It stands still while anything runs, and jumps to the next timer when nothing does. So production's deadlines
of seconds or minutes cost no time, and a busy machine changes nothing.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

STUCK_SECONDS = 60.0  # of real time; no job in a thread takes so long


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.num_jobs = 0  # that run in threads

    def select(self, timeout: float | None = None) -> Any:
        if self.num_jobs and timeout != 0:
            ready = super().select(STUCK_SECONDS)  # the end of a job wakes the loop
            assert ready, f"a thread has not come back within {STUCK_SECONDS:.0f} s"
            return ready
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing runs, and no timer is set"
            self.now += max(0.0, timeout)
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)
        self._threads = ThreadPoolExecutor(8)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        job = (executor or self._threads).submit(func, *args)
        self._clock.num_jobs += 1
        result = asyncio.wrap_future(job, loop=self)  # it adds its callback first: time waits for the result
        job.add_done_callback(lambda _: self.call_soon_threadsafe(self._job_ended))
        return result

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._threads.shutdown()

    def _job_ended(self) -> None:
        self._clock.num_jobs -= 1


def run(work: Coroutine[Any, Any, T], seconds: float = 600.0) -> T:
    """The result of a world's coroutine, which may take so many seconds of virtual time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(asyncio.wait_for(work, seconds))
