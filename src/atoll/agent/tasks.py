"""An agent's work in the background: of each kind one task at a time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """Starts, replaces and ends tasks. `crash` gets the first defect: an agent must not go on half."""

    def __init__(self) -> None:
        self.crash: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks: dict[
            str, list[asyncio.Task[None]]
        ] = {}  # of a kind: the newest, after those that are still ending

    def start(self, kind: str, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """Begin work of a kind once what is under way of it, cancelled now, has ended."""
        before = self._cancel(kind)

        async def after_those() -> None:
            if before:
                # Of all of them: one that is replaced before it began has not waited. Not `await task`: that
                # would hand our own cancellation on to a task that is ending, and not tell it from the
                # task's.
                await asyncio.wait(before)
                # A cancelled task keeps its frames, and what these have mapped. Ours would keep the task.
                before.clear()
            try:
                await work(*arguments)
            except Exception as error:  # a defect, not a failure of a peer
                if not self.crash.done():
                    self.crash.set_exception(error)

        self._tasks[kind] = [*before, asyncio.create_task(after_those(), name=kind)]

    async def stop(self, *kinds: str) -> None:
        """Cancel work of these kinds (none named: of all), all at once, and wait until it has ended."""
        if ending := [task for kind in kinds or self._tasks for task in self._cancel(kind)]:
            await asyncio.wait(ending)

    async def ended(self, kind: str, seconds: float | None = None) -> None:
        """Wait until nothing of a kind is under way, or `seconds` are over."""
        if tasks := self._tasks.get(kind):
            await asyncio.wait(tasks, timeout=seconds)

    def _cancel(self, kind: str) -> list[asyncio.Task[None]]:
        """What has not ended of a kind; the newest of it is cancelled, the others are already."""
        tasks = [task for task in self._tasks.get(kind, []) if not task.done()]
        if tasks and not tasks[-1].cancelling():  # a second cancellation would tear it out of its own ending
            tasks[-1].cancel()
        return tasks
