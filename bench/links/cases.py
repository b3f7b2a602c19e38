"""The cases of `bench/allreduce.py`: islands behind links, what happens to these, and what is asked."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from links.bound import Link
from links.wan import Wan


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some islands behind links, and how near to the bound they should come."""

    links: tuple[tuple[float, float], ...]  # of the islands: Mbit/s up and down
    round_trip_ms: float
    loss: float = 0.0
    congestion: str = "cubic"
    relay_mbit: float = 0.0  # of a relay beside them; 0: there is none
    num_dial_only: int = 0  # the first ones
    num_learning: int = 2  # steps that are not counted
    num_counted: int = 3
    scale: float = 1.0  # of all rates
    change: Callable[["Case", Wan], None] | None = None  # of the links, after the steps of learning
    num_adapting: int = 0  # steps after it that are not counted either
    first_link: tuple[float, float] | None = None  # of the first island after the change, if it is another
    num_barred: int = 0  # of the first islands, may own nothing after it
    inner_steps: int = 16
    gloo: bool = False  # no agents, but PyTorch's own
    joiner: bool = False  # another island, on a link as the first one's, joins after the steps of learning
    asked: dict[int, float]  # the ratio to reach, by MTU; none: only that no attempt is lost

    @property
    def num_uncounted(self) -> int:
        return self.num_learning + self.num_adapting

    @property
    def num_steps(self) -> int:
        return self.num_uncounted + self.num_counted

    @property
    def last_links(self) -> tuple[tuple[float, float], ...]:
        """Those of the steps that are counted."""
        return (self.first_link, *self.links[1:]) if self.first_link else self.links

    def rates(self, islands: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Bytes per second up and down, of the islands of these names and the relay."""
        links = dict(zip(islands, self.last_links, strict=True))
        if self.relay_mbit:
            links["relay"] = (self.relay_mbit, self.relay_mbit)
        return {site: (125e3 * up, 125e3 * down) for site, (up, down) in links.items()}

    def scaled(self, scale: float) -> "Case":
        """The case on links of so much of its rates."""
        links = tuple((scale * up, scale * down) for up, down in self.links)
        first = (scale * self.first_link[0], scale * self.first_link[1]) if self.first_link else None
        return replace(self, links=links, first_link=first, relay_mbit=scale * self.relay_mbit, scale=scale)

    def sites(self) -> list[Link]:
        """The case's links as the bound sees them."""
        num_barred = max(self.num_dial_only, self.num_barred)
        links = [
            Link(mbit=min(link), owner=number >= num_barred) for number, link in enumerate(self.last_links)
        ]
        if self.relay_mbit:
            links.append(Link(mbit=self.relay_mbit, participant=False))
        return links


def equal(mbit: float, count: int = 4) -> tuple[tuple[float, float], ...]:
    return ((mbit, mbit),) * count


def kill_edge(case: Case, wan: Wan) -> None:
    wan.set_edge("island0", "island1", case.round_trip_ms, 1.0)


def slow_down(case: Case, wan: Wan) -> None:
    assert case.first_link is not None
    wan.set_rate("island0", *case.first_link)


def take_half(case: Case, wan: Wan) -> None:
    """Something else sends at half the first island's rate for 10 s."""
    half = 0.5e6 * case.links[0][0]
    with wan.at("island0"):
        subprocess.Popen([sys.executable, "-c", FLOOD, wan.addresses["host"], str(half), "10"])


FLOOD = """
import socket, sys, time
host, bits, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
out, began, sent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), time.monotonic(), 0
while (past := time.monotonic() - began) < seconds:
    while sent < past * bits / 8:
        sent += out.sendto(bytes(1400), (host, 9))
    time.sleep(0.002)
"""
TENTH = (10.0, 10.0)
NEAR, FAR = {9000: 1.05, 1500: 1.10}, {9000: 1.3, 1500: 1.3}
HOME = ((50.0, 200.0),) * 4
UNEQUAL = ((50.0, 50.0), (100.0, 100.0), (200.0, 200.0), (200.0, 200.0))
far = partial(Case, links=equal(100), round_trip_ms=100, loss=0.0001)  # most of the rows
CASES = {
    **{
        f"4 x {mbit} Mbit/s, RTT {rtt} ms, loss {100 * loss:g} %": Case(
            links=equal(mbit), round_trip_ms=rtt, loss=loss, asked=NEAR
        )
        for mbit, rtt, loss in itertools.product((100, 200), (20, 100), (0.0, 0.0001))
    },
    "4 x 100 Mbit/s, RTT 200 ms, loss 0.1 %": Case(
        links=equal(100), round_trip_ms=200, loss=0.001, asked=FAR
    ),
    "4 x 100 Mbit/s, RTT 200 ms, loss 0.1 %, bbr": Case(
        links=equal(100),
        round_trip_ms=200,
        loss=0.001,
        congestion="bbr",
        asked={9000: 1.10, 1500: 1.10},
    ),
    "Gloo fp32: 4 x 100 Mbit/s, RTT 100 ms, loss 0.01 %": far(gloo=True, asked={}),
    "the first step": far(
        num_learning=0,
        num_counted=1,
        asked={9000: 1.4, 1500: 1.4},
    ),
    "links 50, 100, 200, 200": Case(
        links=UNEQUAL, round_trip_ms=100, loss=0.0001, asked=dict.fromkeys(NEAR, 1.06)
    ),
    "home links 50 up, 200 down": Case(
        links=HOME, round_trip_ms=100, loss=0.0001, asked=dict.fromkeys(NEAR, 1.06)
    ),
    "home links and a relay of 400": Case(
        links=HOME, round_trip_ms=100, loss=0.0001, relay_mbit=400, asked=dict.fromkeys(NEAR, 1.06)
    ),
    "one only dials out": far(num_dial_only=1, asked=dict.fromkeys(NEAR, 1.10)),
    "all only dial out, a relay of 400": far(
        relay_mbit=400,
        num_dial_only=4,
        asked=dict.fromkeys(NEAR, 1.10),
    ),
    "16 x 20 Mbit/s": Case(
        links=equal(20, 16), round_trip_ms=100, loss=0.0001, asked=dict.fromkeys(NEAR, 1.15)
    ),
    "an edge dies": far(
        change=kill_edge,
        num_adapting=2,
        num_barred=2,
        asked=dict.fromkeys(NEAR, 1.10),
    ),
    "a link falls to a tenth": far(
        change=slow_down,
        num_adapting=2,
        first_link=TENTH,
        asked=dict.fromkeys(NEAR, 1.10),
    ),
    "another island recovers meanwhile": far(
        joiner=True,
        num_counted=6,
        asked=dict.fromkeys(NEAR, 1.15),
    ),
    "half of an uplink is taken for 10 s": far(change=take_half, num_counted=4, asked={}),
    "50 steps": far(num_counted=48, inner_steps=4, asked=NEAR),
}
