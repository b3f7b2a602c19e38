"""A run that is followed for the page: versions of its parts, and who waits for newer ones."""

import asyncio
import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from atoll.dashboard.parts import Part, encoded, pack
from atoll.dashboard.source import Source
from atoll.dashboard.view import NAMES, Name
from atoll.errors import UserError
from atoll.run.operate import ask
from atoll.swarm import messages as m

LOOK_SECONDS = 0.25  # between two looks at the events file
NEWS_SECONDS = 1.0  # between two versions of a part
STATUS_SECONDS = 2.0  # between two questions to the coordinator, while somebody watches
FORGIVEN_SECONDS = 12.0  # without an answer, until it is said that none comes
SILENT_STATUS_SECONDS = 10.0  # the same while it does not answer


class Live:
    """Follows a source in one worker thread, so that the server answers whatever is read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.num_watchers = 0
        self.is_over = False  # nobody is told of anything any more
        self.versions: dict[Name, int] = dict.fromkeys(NAMES, 1)
        self._parts: dict[Name, Part] = {}
        self._locks = {name: asyncio.Lock() for name in NAMES}
        self._news = asyncio.Condition()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="reducer")
        self._asked_at = 0.0
        self._answered_at = -math.inf
        self._told_at = 0.0

    async def follow(self) -> None:
        """Until cancelled: read what comes, ask the coordinator, and tell who waits."""
        is_new = True
        while True:
            is_new = await self._run(self.source.advance) > 0 or is_new
            is_new = await self._ask() or is_new
            now = time.monotonic()
            if is_new and now >= self._told_at + NEWS_SECONDS:
                self._told_at, is_new = now, False
                await self._tell()
            if self.source.reading is None:
                await asyncio.sleep(LOOK_SECONDS)

    async def _run(self, function, *arguments):  # type: ignore[no-untyped-def]
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    async def _tell(self) -> None:
        reducer = self.source.reducer
        touched, reducer.touched = reducer.touched, set()
        for name in touched:
            self.versions[name] += 1
        async with self._news:
            self._news.notify_all()

    async def _ask(self) -> bool:
        """Ask the coordinator how the run is, if it is time and anybody watches; whether there is news."""
        reducer = self.source.reducer
        pause = STATUS_SECONDS if reducer.hosted is not False else SILENT_STATUS_SECONDS
        if time.monotonic() < self._asked_at + pause or (
            not self.num_watchers and reducer.hosted is not None
        ):
            return False
        self._asked_at = time.monotonic()
        try:
            answer = await ask(self.source.run_dir, m.StatusRequest())
            status = answer.status if isinstance(answer, m.StatusReply) else None
        except (UserError, OSError):
            status = None
        if status is not None:
            self._answered_at = time.monotonic()
        elif time.monotonic() < self._answered_at + FORGIVEN_SECONDS:
            return False
        await self._run(reducer.see, status)
        return True

    async def newer(self, than: dict[Name, int], seconds: float) -> dict[Name, int]:
        """The versions of the parts that are newer, once there are some; none after so many seconds."""

        def found() -> dict[Name, int]:
            return {name: number for name, number in self.versions.items() if number > than.get(name, 0)}

        def is_due() -> bool:
            return self.is_over or bool(found())

        async with self._news:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait_for(is_due)
        return found()

    async def part(self, name: Name) -> Part:
        """A part in its newest version, made once for everybody who asks."""
        async with self._locks[name]:
            kept, version = self._parts.get(name), self.versions[name]
            if kept is None or kept.version != version:
                plain, packed = await self._run(self._encoded, name)
                kept = self._parts[name] = Part(version, plain, packed)
        return kept

    def _encoded(self, name: Name) -> tuple[bytes, bytes]:
        plain = encoded(self.source, name)
        return plain, pack(plain)

    async def history(self, island: str) -> bytes | None:
        """One island over time, as JSON; None for one that is not known."""
        found = await self._run(self.source.reducer.history, island)
        return msgspec.json.encode(found) if found is not None else None

    async def close(self) -> None:
        """Let go of everybody who waits."""
        self.is_over = True
        async with self._news:
            self._news.notify_all()
        self._worker.shutdown(wait=False, cancel_futures=True)
