"""Time for worlds in one process: it stands still while anything works, and jumps to what is due when nothing
does.

So a world waits out every deadline of production, of seconds or minutes, in no time, and a busy machine
changes nothing.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

STUCK_SECONDS = 60.0  # of real time: no piece of work in a thread takes so long


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.working = 0  # pieces of work in threads

    def select(self, timeout: float | None = None) -> Any:
        if self.working and timeout != 0:
            ready = super().select(STUCK_SECONDS)  # the end of the work wakes us
            assert ready, f"a thread has not come back within {STUCK_SECONDS:.0f} s"
            return ready
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is going on, and nothing will"
            self.now += max(0.0, timeout)
        return ready


class Loop(asyncio.SelectorEventLoop):
    """An event loop in such a time."""

    def __init__(self) -> None:
        self._world = _Selector()
        super().__init__(self._world)
        self._threads = ThreadPoolExecutor(8)

    def time(self) -> float:
        return self._world.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        job = (executor or self._threads).submit(func, *args)
        self._world.working += 1
        result = asyncio.wrap_future(job, loop=self)
        job.add_done_callback(
            lambda _: self.call_soon_threadsafe(self._worked)
        )  # after the result, which it adds first
        return result

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._threads.shutdown()

    def _worked(self) -> None:
        self._world.working -= 1


def run(work: Coroutine[Any, Any, T], seconds: float = 600.0) -> T:
    """Run a world's story, which may take so many seconds of its own time; what it returns."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(asyncio.wait_for(work, seconds))
