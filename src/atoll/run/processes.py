"""Child processes on a leash: a socket pair whose end, however it comes, ends the child. Nothing is left
behind.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

LEASH = "ATOLL_LEASH"  # the file descriptor of a child's end, where the child does not use it otherwise


class Child:
    """A process that dies with us, even when we are killed with SIGKILL."""

    def __init__(
        self,
        arguments: list[str],
        *,
        log: Path | None = None,
        leash: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Run `python -m` with `arguments`; "{fd}" in them becomes its end of the pair.

        With `leash` the child watches its end by itself (`watch_leash`); without, the arguments tell it.
        """
        self.socket, theirs = socket.socketpair()
        handle = theirs.fileno()
        extra = {LEASH: str(handle)} if leash else {}
        output = log.open("ab") if log is not None else None
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(a.replace("{fd}", str(handle)) for a in arguments)],
                pass_fds=[handle],
                env={**os.environ, **(environment or {}), **extra},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only us; the child ends by its leash
            )
        finally:
            theirs.close()
            if output is not None:
                output.close()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait(10)
        self.socket.close()

    def stop(self, seconds: float = 10.0) -> int:
        """Let go of the leash and wait; kill what does not end in time. The exit status."""
        self.socket.close()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)


def watch_leash() -> None:
    """In a child: when the parent's end is gone, end as if told by SIGTERM."""
    handle = os.environ.pop(LEASH, "")
    if handle:
        threading.Thread(target=_watch, args=(int(handle),), daemon=True, name="leash").start()


def _watch(handle: int) -> None:
    with socket.socket(fileno=handle) as leash:
        while leash.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
