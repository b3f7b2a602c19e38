"""A process of the simulated world: what lives, freezes, and dies between any two of its steps or effects."""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from types import FrameType
from typing import Any

from atoll.files import DISK, Disk
from atoll.swarm.identity import RANDOM_BYTES

PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)
TRACED = ("/atoll/agent/", "/atoll/coordinator/", "/atoll/swarm/", "/atoll/files.py")


class Killed(BaseException):
    """Raised where a process dies in the middle of a step: nothing that it would do after counts."""


@dataclass(kw_only=True)
class Clock:
    """A process's clock: it may run fast or slow. `rate`: its seconds in a second of the world."""

    rate: float = 1.0
    offset: float = 0.0

    def at(self, now: float) -> float:
        """What it shows at a moment of the world."""
        return now if self.rate == 1.0 and not self.offset else now * self.rate + self.offset

    def when(self, shown: float) -> float:
        """At which moment of the world it shows that."""
        return shown if self.rate == 1.0 and not self.offset else (shown - self.offset) / self.rate

    def set_rate(self, rate: float, now: float) -> None:
        """Run at another rate from now on; what it shows now stays."""
        shown = self.at(now)
        self.rate, self.offset = rate, shown - now * rate


class Process:
    """One life of a process. A process that starts again is another `Process` of the same name."""

    def __init__(
        self,
        name: str,
        *,
        disk: Disk,
        random_bytes: Callable[[int], bytes],
        clock: Clock,
        died: Callable[["Process"], None],
        defect: Callable[["Process", BaseException], None],
    ) -> None:
        """`died` hears of its death, before it takes effect; `defect` of an exception that nobody foresaw."""
        self.name = name
        self.clock = clock
        self.disk_slowness = 1.0
        self.alive = True
        self.frozen = False
        self.dies_dark = False  # with its machine: nobody is told
        self.parked: deque[asyncio.Handle] = deque()  # steps that wait for its thaw
        self.doom: Doom | None = None
        self._died, self._defect = died, defect
        self._running = False
        self._undo: Callable[[], None] | None = None  # what it did after its death
        self._afterwards: Callable[[], None] | None = None
        self.tasks: list[asyncio.Task[Any]] = []  # kept, so that what it left unfinished is not finished
        self._num_kept = 64
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self.context.run(DISK.set, disk)
        self.context.run(RANDOM_BYTES.set, random_bytes)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine in this process."""
        return asyncio.get_running_loop().create_task(work, context=self._own_context())

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function in this process, as soon as it moves."""
        asyncio.get_running_loop().call_soon(function, *arguments, context=self._own_context())

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """A task that this process has begun."""
        self.tasks.append(task)
        if len(self.tasks) > self._num_kept:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._num_kept = 64 + 2 * len(self.tasks)

    def _own_context(self) -> Context:
        return self.context.run(copy_context)

    def run(self, handle: asyncio.Handle) -> None:
        """One step."""
        if not self.alive:
            return
        if self.frozen:
            self.parked.append(handle)
            return
        self._running = True
        try:
            if self.doom is None:
                handle._run()
            else:
                self.doom.watch(handle._run)
        finally:
            self._running = False
            for action in (self._undo, self._afterwards):
                if action is not None:
                    action()
            self._undo = self._afterwards = None

    def die(self, undo: Callable[[], Callable[[], None]]) -> None:
        """Die now. `undo` notes how things stand, and gives what restores that.

        In the middle of a step of its own this raises `Killed`, and what `finally` blocks do on the way is
        undone.
        """
        if not self.alive:
            return
        if inside := self.is_running:
            self._undo = undo()
        self._died(self)
        self.alive, self.doom = False, None
        if inside:
            raise Killed

    @property
    def is_running(self) -> bool:
        """Whether this is said in a step of its own."""
        return self._running and PROCESS.get() is self

    def then(self, action: Callable[[], None]) -> None:
        """Do something once its last step, in which it dies, is over and undone."""
        self._afterwards = action

    def exit(self) -> None:
        """End by itself: its last step is done."""
        if self.alive:
            self._died(self)
            self.alive, self.doom = False, None

    def abandon(self) -> None:
        """Let go of what it left unfinished; the world is over."""
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
                with contextlib.suppress(BaseException):
                    task.get_coro().close()  # pyright: ignore[reportOptionalMemberAccess]
        self.tasks.clear()
        self.parked.clear()

    def defect(self, error: BaseException) -> None:
        """An exception that nobody foresaw."""
        if self.alive:
            self._defect(self, error)


class Doom:
    """A death that comes after so many steps, lines of production's code, or effects on the disk."""

    def __init__(self, kind: str, count: int, strike: Callable[[], None]) -> None:
        """`kind`: "steps", "lines" or "syncs"; `strike` kills the process."""
        self.kind, self.count = kind, count
        self._strike = strike

    def watch(self, step: Callable[[], None]) -> None:
        """Do a step of the process."""
        if self.kind == "steps":
            self._count()
        if self.kind != "lines":
            step()
            return
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            step()
        finally:
            sys.settrace(before)

    def synced(self) -> None:
        """It is about to make something durable, or has just done so."""
        if self.kind == "syncs":
            self._count()

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        ours = any(part in frame.f_code.co_filename for part in TRACED)
        return self._line if ours else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._count()
        return self._line

    def _count(self) -> None:
        self.count -= 1
        if self.count < 0:
            sys.settrace(None)
            self._strike()
