"""Virtual time: an event loop whose clock jumps to the next timer when nothing is left to do.

Everything of a world runs in it, in one order that its seed decides. Each step (a callback, or a task up to
its next wait) belongs to the process in whose context it was begun; steps of dead processes are dropped, and
those of frozen ones are kept for later. Work for threads runs here too, at a moment of its own.
"""

import asyncio
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from atoll.simulate.process import PROCESS, Killed, Process

LONG_JOBS, LONG_SECONDS, SHORT_SECONDS = 0.04, 0.25, 0.002  # of work in threads: share, and mean times


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time."""

    def __init__(self, seed: object = 0) -> None:
        super().__init__()
        self.now = 0.0  # seconds since the world began
        self.num_steps = 0
        self.failure: Exception | None = None  # of the world's own callbacks
        self.random = random.Random(f"threads {seed}")
        self._steps: deque[tuple[asyncio.Handle, Process | None]] = deque()
        self._timers: list[tuple[float, int, asyncio.Handle, Process | None]] = []
        self._num_timers = 0
        self.set_exception_handler(_note_defect)
        self.set_task_factory(_kept_task)

    # ---------------------------------------------------------------------------- what asyncio asks of a loop
    def time(self) -> float:
        """Seconds by the clock of the process that asks."""
        process = PROCESS.get()
        return self.now if process is None else process.clock.at(self.now)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._steps.append((handle, _process_of(context)))
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        process = _process_of(context)
        moment = when if process is None else process.clock.when(when)
        self._num_timers += 1
        heapq.heappush(self._timers, (max(self.now, moment), self._num_timers, handle, process))
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Work for a thread: it takes effect at one moment, some time from now.

        A cancellation prevents what has not begun by then, as in a thread.
        """
        future: asyncio.Future[Any] = self.create_future()
        process = PROCESS.get()
        slowness = 1.0 if process is None else process.disk_slowness
        mean = LONG_SECONDS if self.random.random() < LONG_JOBS else SHORT_SECONDS
        begins = self.random.random() * SHORT_SECONDS
        ends = begins + self.random.expovariate(1 / mean) * slowness
        begun = False

        def begin() -> None:
            nonlocal begun
            begun = not future.cancelled()

        def end() -> None:
            if not begun:
                return
            try:
                result = func(*args)
            except Killed:
                raise
            except BaseException as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.call_later(begins, begin)
        self.call_later(ends, end)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """There are no threads."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes."""

    # ------------------------------------------------------------------------------------------- time passes
    def _run_once(self) -> None:
        """One step, and before it, if none is due, time."""
        if self.failure is not None:
            raise self.failure
        if self._steps:
            handle, process = self._steps.popleft()
        else:
            assert self._timers, "nothing runs, and no timer is set"
            moment, _, handle, process = heapq.heappop(self._timers)
            if handle.cancelled():
                return
            self.now = max(self.now, moment)
        if handle.cancelled():
            return
        self.num_steps += 1
        if process is None:
            handle._run()
        else:
            process.run(handle)

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on: what was to happen meanwhile happens now."""
        process.frozen = False
        self._steps.extend((handle, process) for handle in process.parked)
        process.parked.clear()

    def begin(self) -> None:
        """Make this the running loop, for whoever sets up a world before time passes."""
        events._set_running_loop(self)

    def end(self) -> None:
        events._set_running_loop(None)


def _kept_task(
    loop: asyncio.AbstractEventLoop, work: Any, context: Context | None = None, **options: Any
) -> "asyncio.Task[Any]":
    """A task that its process keeps: one that nobody else knows is not collected at a moment of chance."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **options)
    if process := _process_of(context):
        process.keep(task)
    return task


def _process_of(context: Context | None) -> Process | None:
    return PROCESS.get() if context is None else context.get(PROCESS)


def _note_defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A callback has failed; what is collected unfinished, at whatever moment, is nobody's fault."""
    error, handle = context.get("exception"), context.get("handle")
    if handle is None or not isinstance(error, Exception):
        return
    process = handle._context.get(PROCESS)
    if process is not None:
        process.defect(error)
    elif isinstance(loop, VirtualLoop):
        loop.failure = error
