"""Network namespaces: machines of their own on this machine. Needs root and `ip`."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Protocol

from atoll.errors import UserError

SPACES = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


class Sites(Protocol):
    """A network of sites on this machine, by name."""

    @property
    def addresses(self) -> Mapping[str, str]: ...

    def at(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Processes that this thread starts inside the block live at that site."""
        ...


def command(*words: str, text: str = "") -> None:
    """Run a command, with `text` as its input. Raises UserError, with what it said, if it fails."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise UserError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def inside(space: str) -> Generator[None]:
    """Processes that this thread starts inside the block live in that namespace."""
    with Path("/proc/thread-self/ns/net").open() as home, (SPACES / space).open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def remove(prefix: str) -> None:
    """Remove all namespaces whose names begin with `prefix`; what lives there loses its network."""
    for space in SPACES.glob(f"{prefix}*"):
        command("ip", "netns", "delete", space.name)


def leftovers(prefix: str) -> set[str]:
    """Which prefixes, `prefix` and the number of a process that is gone, are left over from it."""
    names = {space.name.partition("-")[0] for space in SPACES.glob(f"{prefix}*-*")}
    return {name for name in names if not Path(f"/proc/{name.removeprefix(prefix)}").exists()}


def own_prefix(prefix: str) -> str:
    """The beginning of the names of this process's namespaces."""
    return f"{prefix}{os.getpid()}"


def _enter(handle: int) -> None:
    if _libc.setns(handle, 0x40000000):  # CLONE_NEWNET: of the calling thread
        raise OSError(ctypes.get_errno(), "setns")
