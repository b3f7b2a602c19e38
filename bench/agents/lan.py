"""A small internet on this machine: a network namespace per site, joined by a bridge; links have rates and
can be cut.

Needs root, `ip` and `tc`. A cut link drops what is sent, as a pulled cable does: nobody is told.
"""

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from agents.spaces import command, inside, leftovers, own_prefix, remove
from atoll.errors import UserError

PREFIX = "at"  # and the process's id: of namespaces, the bridge and its ports
SUBNET = "10.77"
QUEUE_MS = 200  # what a bottleneck's queue holds before it drops, as in a home router
MTU = 1500
# above what TCP hands over at once, so that it is shaped whole (headers of its packets counted), not cut up
BURST = "128k"


class Lan:
    """Sites by name. Use as a context: what a killed run left is removed first, and all of ours at the
    end.
    """

    def __init__(self) -> None:
        self._bridge = own_prefix(PREFIX)
        self.addresses: dict[str, str] = {}
        self._ports: dict[str, str] = {}

    def __enter__(self) -> "Lan":
        if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
            raise UserError(
                "this bench makes networks: run it as root, where `ip` and `tc` (iproute2) are installed"
            )
        for bridge in leftovers(PREFIX):
            _remove(bridge)
        # All sites share the kernel's table of neighbours, which holds 1,024; a real machine has its own.
        for key, count in (("gc_thresh2", 4096), ("gc_thresh3", 8192)):
            Path(f"/proc/sys/net/ipv4/neigh/default/{key}").write_text(str(count))
        command("ip", "link", "add", self._bridge, "type", "bridge")
        command("ip", "link", "set", self._bridge, "up")
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self._bridge)

    def add(self, name: str, mbit_per_second: float = 0.0) -> str:
        """A site; its address. With a rate, its link carries so much each way, headers included."""
        number = len(self.addresses) + 1
        space, port, address = (
            f"{self._bridge}-{name}",
            f"{self._bridge}-{number}",
            f"{SUBNET}.{number // 250}.{number % 250 + 1}",
        )
        command("ip", "netns", "add", space)
        command(
            "ip", "link", "add", port, "mtu", str(MTU), "type", "veth", "peer", "name", "wan", "netns", space
        )
        command("ip", "link", "set", port, "master", self._bridge, "up")
        for words in (f"addr add {address}/16 dev wan", "link set wan up", "link set lo up"):
            command("ip", "-n", space, *words.split())
        self.addresses[name], self._ports[name] = address, port
        if mbit_per_second:
            shape = f"root tbf rate {mbit_per_second}mbit burst {BURST} latency {QUEUE_MS}ms".split()
            command("tc", "-n", space, "qdisc", "add", "dev", "wan", *shape)
            command("tc", "qdisc", "add", "dev", port, *shape)
        return address

    def received(self, name: str) -> int:
        """Bytes that came over a site's link, without most headers of TCP and IP: segments count before they
        are cut up.
        """
        return int(Path(f"/sys/class/net/{self._ports[name]}/statistics/tx_bytes").read_text())

    def cut(self, name: str) -> None:
        command("ip", "link", "set", self._ports[name], "nomaster")

    def heal(self, name: str) -> None:
        command("ip", "link", "set", self._ports[name], "master", self._bridge)

    @contextlib.contextmanager
    def at(self, name: str) -> Generator[None]:
        """Processes that this thread starts inside the block live at that site."""
        with inside(f"{self._bridge}-{name}"):
            yield


def _remove(bridge: str) -> None:
    """A bridge and its sites; what lives there loses its network."""
    for port in Path("/sys/class/net").glob(
        f"{bridge}-*"
    ):  # a namespace takes its own with it, but only some time later
        command("ip", "link", "delete", port.name)
    remove(f"{bridge}-")
    if Path(f"/sys/class/net/{bridge}").exists():
        command("ip", "link", "delete", bridge)
