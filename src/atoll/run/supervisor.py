"""Keeps an island going without a terminal: `python -m atoll.run.supervisor DIRECTORY COMMAND...`.

It starts `python -m COMMAND...`, and again whenever that dies; not when it has finished (exit status 0), nor
after a mistake that only a person can mend (2). SIGTERM ends both. It holds a lock while it lives, by which
others see that it does, also after its number has been given to another process.
"""

import signal
import sys
import threading
import time
from pathlib import Path

from atoll.files import DirectoryLock
from atoll.run.processes import Child

LOG = "background.log"
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0  # before it is started again, where it dies young
YOUNG_SECONDS = 60.0
STOP_SECONDS = 20.0
FINISHED, MISTAKE = 0, 2


def lock_of(directory: Path) -> DirectoryLock:
    """The lock that the supervisor of an island holds."""
    return DirectoryLock(directory / "background")


def supervise(directory: Path, command: list[str]) -> int:
    """Keep the command going until it has finished or SIGTERM comes; its exit status, 0 after SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    pause = FIRST_PAUSE_SECONDS
    while True:
        started = time.monotonic()
        child = Child(command, log=directory / LOG)
        while child.alive and not ended.wait(0.2):
            pass
        if ended.is_set():
            child.stop(STOP_SECONDS)
            return 0
        status = child.stop(0.1)
        if status in (FINISHED, MISTAKE):
            return status
        is_young = time.monotonic() - started < YOUNG_SECONDS
        pause = min(2 * pause, MAX_PAUSE_SECONDS) if is_young else FIRST_PAUSE_SECONDS
        print(
            f"atoll: it has ended with status {status}; again in {pause:.0f} s", file=sys.stderr, flush=True
        )
        if ended.wait(pause):
            return 0


def main() -> int:
    directory = Path(sys.argv[1])
    with lock_of(directory) as lock:
        if not lock.acquire():
            print(f"atoll: {directory}: another supervisor works here", file=sys.stderr)
            return MISTAKE
        return supervise(directory, sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
