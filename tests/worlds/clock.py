"""Virtual time for worlds in one process: the simulator's loop.

It stands still while anything runs, and jumps to the next timer when nothing does. So production's deadlines
of seconds or minutes cost no time, and a busy machine changes nothing.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from atoll.simulate.loop import VirtualLoop

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], seconds: float = 600.0) -> T:
    """The result of a world's coroutine, which may take so many seconds of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(work, seconds))
