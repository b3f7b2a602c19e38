"""The modelled internet: delays, rates, cuts one way or both, and who notices what, when.

A name is a place on the network: an agent's, or "coordinator". What TCP and TLS rule out does not happen
here: within a connection nothing is lost, doubled, reordered or altered; a connection delays, or breaks.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.simulate.line import Line
    from atoll.simulate.process import Process
    from atoll.simulate.timeline import Timeline

COORDINATOR = "coordinator"
Edge = tuple[str, str]  # from, to


class Network:
    """Every pair of places has an edge each way."""

    def __init__(self, timeline: "Timeline", seed: int, bytes_per_second: float = 4e6) -> None:
        self.timeline = timeline
        self.random = random.Random(f"network {seed}")
        self.lines: dict[Line, None] = {}  # an ordered set
        self._seed = seed
        self._bytes_per_second = bytes_per_second
        self._base_delay: dict[Edge, float] = {}
        self._cuts: Counter[Edge] = Counter()
        self._congestion: dict[Edge, float] = {}

    # ------------------------------------------------------------------------------------------------ quality
    def delay(self, source: str, target: str) -> float:
        """One way, with jitter, seconds."""
        edge = (source, target)
        base = self._base_delay.get(edge)
        if base is None:
            pair = random.Random(f"{self._seed} {min(edge)} {max(edge)}")
            base = 0.003 * 50 ** pair.random()  # 3 to 150 ms, log-uniform, the same both ways
            self._base_delay[edge] = base
        return base * (1.0 + 0.5 * self.random.random() ** 4) * self._congestion.get(edge, 1.0)

    def seconds(self, source: str, target: str, num_bytes: float) -> float:
        """To bring bytes across, propagation included."""
        rate = self._bytes_per_second / self._congestion.get((source, target), 1.0)
        return self.delay(source, target) + num_bytes / rate

    def open(self, source: str, target: str) -> bool:
        return not self._cuts or not self._cuts.get((source, target))

    def both_ways(self, left: str, right: str) -> bool:
        return self.open(left, right) and self.open(right, left)

    # ------------------------------------------------------------------------------------------------- faults
    def cut(self, edges: Iterable[Edge]) -> None:
        """Nothing passes any more; connections learn of it by their keepalive only."""
        edges = list(edges)
        for edge in edges:
            self._cuts[edge] += 1
        for line in self._over(edges):
            line.watch()

    def heal(self, edges: Iterable[Edge]) -> None:
        edges = list(edges)
        for edge in edges:
            self._cuts[edge] -= 1
            if self._cuts[edge] <= 0:
                del self._cuts[edge]
        for line in self._over(edges):
            line.resume()

    def congest(self, edges: Iterable[Edge], factor: float) -> None:
        """Slower by `factor`, in delay and in rate; 1 ends it."""
        for edge in edges:
            self._congestion[edge] = factor

    def reset(self, left: str, right: str, one_end: bool) -> None:
        """Break the connections between two places; with `one_end` only `left` learns of it at once."""
        for line in self._over([(left, right), (right, left)]):
            line.reset(left, one_end)

    def _over(self, edges: list[Edge]) -> list["Line"]:
        touched = set(edges)
        return [line for line in self.lines if not touched.isdisjoint(line.edges)]

    # --------------------------------------------------------------------------------------- processes' fates
    def process_ended(self, process: "Process", dark: bool) -> None:
        for line in [line for line in self.lines if process in line.ends]:
            line.owner_ended(process, dark)

    def process_frozen(self, process: "Process") -> None:
        for line in self.lines:
            if process in line.ends:
                line.watch()
