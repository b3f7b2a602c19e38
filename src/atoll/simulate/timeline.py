"""Virtual time: a heap of what happens next, and tasks that wait in it; the order follows from the seed."""

import heapq
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll.simulate.process import Process


class Timeline:
    """Everything that is going to happen, in order of time, then of scheduling."""

    def __init__(self) -> None:
        self.now = 0.0  # true seconds; processes have clocks of their own
        self.num_events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0

    def at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        self._scheduled += 1
        heapq.heappush(self._heap, (max(when, self.now), self._scheduled, action, arguments))

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        self.at(self.now + seconds, action, *arguments)

    def advance(self) -> bool:
        """Let the next thing happen; False when nothing is left."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heapq.heappop(self._heap)
        self.num_events += 1
        action(*arguments)
        return True


class Signal:
    """Something that tasks wait for; each firing wakes all that wait at that moment."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Task, int]] = []

    def add(self, task: "Task", turn: int) -> None:
        self._waiting.append((task, turn))

    def fire(self) -> None:
        waiting, self._waiting = self._waiting, []
        for task, turn in waiting:
            task.wake(turn, True)


Wait = float | Signal | tuple[Signal, float]  # seconds; a signal; a signal, but so many seconds at most
Work = Generator[Wait, Any, Any]


class Task:
    """A generator in a process: it yields what it waits for, and is told whether a signal came in time."""

    def __init__(self, process: "Process", work: Work) -> None:
        self.ended = Signal()
        self.over = False
        self._process = process
        self._work = work
        self._incarnation = process.incarnation
        self._turn = 0
        self.wake(0, None)

    def wake(self, turn: int, value: object) -> None:
        # A dead incarnation's generators are closed whenever Python collects them: what they then fire must
        # not count.
        if self._process.incarnation == self._incarnation:
            self._process.later(0.0, self._resume, turn, value)

    def cancel(self) -> None:
        if not self.over:
            self._end()
            self._work.close()

    def _resume(self, turn: int, value: object) -> None:
        if self.over or turn != self._turn:
            return  # woken by what it no longer waits for
        self._turn += 1
        try:
            wait = self._work.send(value)
        except StopIteration:
            self._end()
            return
        if isinstance(wait, Signal):
            wait.add(self, self._turn)
        elif isinstance(wait, tuple):
            wait[0].add(self, self._turn)
            self._process.later(wait[1], self._resume, self._turn, False)
        else:
            self._process.later(wait, self._resume, self._turn, None)

    def _end(self) -> None:
        self.over = True
        self.ended.fire()


class Lock:
    """One holder at a time, in order of asking; as `asyncio.Lock`."""

    def __init__(self) -> None:
        self._held = False
        self._freed = Signal()

    def acquire(self) -> Work:
        while self._held:
            yield self._freed
        self._held = True

    def release(self) -> None:
        self._held = False
        self._freed.fire()
