"""Child processes that end with their parent, however it ends.

Parent and child hold the two ends of a socket pair, the leash. The kernel closes the parent's end when the
parent dies; the child sees that and ends.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

LEASH = "ATOLL_LEASH"  # environment variable: the file descriptor of the child's end


class Child:
    """A child process that ends when this process does, even by SIGKILL."""

    def __init__(
        self,
        arguments: list[str],
        *,
        log: Path | None = None,
        output: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start `python -m` with `arguments`, its output appended to the file `log`.

        With `output`, standard output goes there instead, and the file is replaced.

        The child learns the number of its end of the socket pair from LEASH. It watches that end
        (`watch_leash`), or uses the socket for more, as an agent does.
        """
        self.log = log
        self.socket, childs_end = socket.socketpair()
        handle = childs_end.fileno()
        messages = log.open("ab") if log is not None else None
        printed = output.open("wb") if output is not None else messages
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                pass_fds=[handle],
                env={**os.environ, **(environment or {}), LEASH: str(handle)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=messages,
                start_new_session=True,  # Ctrl-C reaches only the parent, which then ends the child
            )
        finally:
            childs_end.close()
            for file in (messages, printed):
                if file is not None:
                    file.close()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL, so that it cannot clean up."""
        self.process.kill()
        self.process.wait(10)
        self.socket.close()

    def stop(self, seconds: float = 10.0) -> int:
        """Close the leash and wait; SIGKILL the child if it does not end in time. Returns its exit status."""
        self.socket.close()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(10)


def last_words(child: Child) -> str:
    """What the last line of a child's log says, for people."""
    assert child.log is not None
    try:
        lines = child.log.read_text("utf-8", "replace").split("\n")
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"its last words in {child.log}: {last}" if last else f"{child.log} is empty: is the disk full?"


def watch_leash() -> None:
    """In a child: once the parent's end is closed, send SIGTERM to this process."""
    handle = os.environ.pop(LEASH, "")
    if handle:
        threading.Thread(target=_watch, args=(int(handle),), daemon=True, name="leash").start()


def _watch(handle: int) -> None:
    with socket.socket(fileno=handle) as leash:
        while leash.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
