"""Sites on this machine, each with a link of its own, and a wide-area network between them.

Needs root, `ip` and `gcc`. What links do to packets is done by `wan.c`, over one TUN device a site. It is not
done by `tc`: netem, which knows delay and loss, is missing in some kernels.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from agents.spaces import command, inside, leftovers, own_prefix, remove

from atoll.errors import UserError

PREFIX = "aw"  # and the process's id: of the namespaces
SUBNET = "10.78.0"
QUEUE_MS = 200.0  # what the queue of a link holds before it drops, as in a home router
DEVICE = "wan0"
CONTROLS = Path("/proc/sys/net/ipv4")


class Count(NamedTuple):
    """What has happened to a site's packets so far."""

    sent: int  # bytes that have left by its uplink, headers included
    received: int
    up_drops: int  # packets that found its uplink's queue full
    down_drops: int


class Wan:
    """Sites by name. Use as a context: what a killed run left goes first, and all of ours at the end."""

    def __init__(self, mtu: int = 1500, congestion: str = "cubic") -> None:
        """`congestion` is the kernel's name of the congestion control that every site's TCP uses."""
        self.addresses: dict[str, str] = {}
        self._mtu, self._congestion = mtu, congestion
        self._prefix = own_prefix(PREFIX)
        self._numbers: dict[str, int] = {}
        self._emulator: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()  # one order at a time

    def __enter__(self) -> "Wan":
        if os.geteuid() or not all(map(shutil.which, ("ip", "gcc"))) or not Path("/dev/net/tun").exists():
            raise UserError(
                "this bench makes networks: run it as root, where `ip` (iproute2), `gcc` and /dev/net/tun are"
            )
        known = (CONTROLS / "tcp_available_congestion_control").read_text().split()
        if self._congestion not in known:
            raise UserError(f"this kernel has no congestion control {self._congestion}, only {known}")
        for prefix in leftovers(PREFIX):
            remove(f"{prefix}-")
        with tempfile.TemporaryDirectory(prefix="atoll-wan-") as directory:
            program = Path(directory) / "wan"
            command("gcc", "-O2", "-o", str(program), str(Path(__file__).with_name("wan.c")))
            self._emulator = subprocess.Popen(
                [str(program), str(QUEUE_MS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._emulator is not None:
            self._emulator.kill()
            self._emulator.wait()
        remove(f"{self._prefix}-")

    def add(self, name: str, up_mbit: float, down_mbit: float) -> str:
        """A site whose link carries so many Mbit/s, headers included; its address."""
        number = self._numbers[name] = len(self._numbers)
        space, address = f"{self._prefix}-{name}", f"{SUBNET}.{number + 1}"
        with _default_congestion(
            self._congestion
        ):  # which a new namespace inherits, and may not choose itself
            command("ip", "netns", "add", space)
        self._order(f"site {space} {address} {up_mbit} {down_mbit}")
        for words in (
            "link set lo up",
            f"link set {DEVICE} mtu {self._mtu} txqueuelen 10000 up",
            f"addr add {address}/24 dev {DEVICE}",
        ):
            command("ip", "-n", space, *words.split())
        self.addresses[name] = address
        return address

    def set_rate(self, name: str, up_mbit: float, down_mbit: float) -> None:
        """A site's link carries so much from now on."""
        self._order(f"rate {self._numbers[name]} {up_mbit} {down_mbit}")

    def set_edge(
        self, one: str, other: str, round_trip_ms: float, loss: float = 0.0, jitter_ms: float = 0.0
    ) -> None:
        """What lies between two sites. A loss is a probability of each packet; 1: nothing comes through."""
        edge = f"{self._numbers[one]} {self._numbers[other]} {round_trip_ms / 2} {jitter_ms} {loss}"
        self._order(f"edge {edge}")

    def set_edges(self, round_trip_ms: float, loss: float = 0.0, jitter_ms: float = 0.0) -> None:
        """The same between all sites that are there."""
        names = list(self._numbers)
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                self.set_edge(one, other, round_trip_ms, loss, jitter_ms)

    def count(self) -> tuple[float, dict[str, Count]]:
        """(Unix time, counts of each site)."""
        time, *numbers = self._ask("count").split()
        rows = [Count(*map(int, numbers[first : first + 4])) for first in range(0, len(numbers), 4)]
        return float(time), dict(zip(self._numbers, rows, strict=True))

    @contextlib.contextmanager
    def at(self, name: str) -> Generator[None]:
        """Processes that this thread starts inside the block live at that site."""
        with inside(f"{self._prefix}-{name}"):
            yield

    def _order(self, line: str) -> None:
        if (answer := self._ask(line)) != "ok":
            raise UserError(f"the emulator of links did not understand {line!r}: {answer}")

    def _ask(self, line: str) -> str:
        emulator = self._emulator
        assert emulator is not None and emulator.stdin is not None and emulator.stdout is not None
        with self._lock:
            emulator.stdin.write(line + "\n")
            emulator.stdin.flush()
            if not (answer := emulator.stdout.readline().strip()):
                raise UserError("the emulator of links has ended")
            return answer


@contextlib.contextmanager
def _default_congestion(name: str) -> Generator[None]:
    """This machine's own default is another one inside the block."""
    default = CONTROLS / "tcp_congestion_control"
    before = default.read_text()
    default.write_text(name)
    try:
        yield
    finally:
        default.write_text(before)
