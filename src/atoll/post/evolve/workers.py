"""Work that waits for others, several pieces at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


async def workers(count: int, items: Iterable[Item], work: Callable[[Item], Awaitable[bool]]) -> None:
    """Do `work` on the items, `count` at once, in their order, until one of them returns False.

    What is under way then is finished. The first exception ends all of it, and is raised.
    """
    remaining = iter(items)
    goes_on = True

    async def worker() -> None:
        nonlocal goes_on
        for item in remaining:
            if not goes_on:
                return
            goes_on = await work(item) and goes_on

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(worker())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
