"""A control line: one connection between an island and a coordinator, as TCP under gRPC behaves.

In order, nothing lost while it lives; a cut parks what is under way, and what is parked arrives after the
cut, late. Each end learns by itself that the line is dead: told by the other end, or by its keepalive. So for
a while one end may believe in a line that the other has long replaced.
"""

from collections import deque

from atoll.simulate.network import Network
from atoll.simulate.process import Process
from atoll.swarm.records import Message

KEEPALIVE_SECONDS = (10.0, 15.0)  # gRPC pings after 10 s of silence and waits 5 s (grpc_transport.py)
ISLAND, COORDINATOR_END = 0, 1


class Line:
    """`ends[0]` dialled `ends[1]`."""

    def __init__(self, network: Network, island: Process, coordinator: Process) -> None:
        self.ends = (island, coordinator)
        self.edges = ((island.name, coordinator.name), (coordinator.name, island.name))
        self._network = network
        self._timeline = network.timeline
        self._incarnations = (island.incarnation, coordinator.incarnation)
        self._open = [True, True]
        # What is under way from each end: (when it arrives, the message); None is the end of the line.
        self._queues: tuple[deque[tuple[float, Message | None]], ...] = (deque(), deque())
        self._last = [0.0, 0.0]
        self._held_until = [0.0, 0.0]  # retransmissions after a cut take their time
        network.lines[self] = None

    def is_open(self, end: int) -> bool:
        return self._open[end]

    def send(self, end: int, message: Message | None) -> None:
        """From `ends[end]` to the other; dropped where that end is already closed."""
        if self._open[end] or message is None:
            source, target = self.edges[end]
            at = max(
                self._last[end],
                self._timeline.now + self._network.delay(source, target),
                self._held_until[end],
            )
            self._last[end] = at
            self._queues[end].append((at, message))
            self._timeline.at(at, self._pump, end)

    def close(self, end: int) -> None:
        """Close one end; the other is told after what was sent before, if the network lets it."""
        if self._open[end]:
            self._open[end] = False
            self.send(end, None)
            self.watch()
            self._forget()

    def watch(self) -> None:
        """Something may be wrong: if a ping finds no answer, an end gives up."""
        for end in (ISLAND, COORDINATOR_END):
            if self._open[end]:
                self._timeline.after(self._network.random.uniform(*KEEPALIVE_SECONDS), self._check, end)

    def resume(self) -> None:
        """A cut is over: what was parked is sent again."""
        for end in (ISLAND, COORDINATOR_END):
            if self._queues[end]:
                at = self._timeline.now + self._network.random.uniform(0.05, 1.0)
                self._held_until[end] = self._last[end] = max(at, self._last[end])
                self._timeline.at(at, self._pump, end)

    def reset(self, by: str, one_end: bool) -> None:
        """The connection is lost: for both ends, or (as after an address change) only where it is noticed."""
        for end in (ISLAND, COORDINATOR_END):
            if not one_end or self.ends[end].name == by:
                self._queues[1 - end].clear()
                self.ends[end].do(
                    self._incarnations[end], self._break, (end, "the connection was reset", True)
                )
        self.watch()

    def owner_ended(self, process: Process, dark: bool) -> None:
        """A process died. Its kernel sends some of what it was given, then the end; if `dark`, nothing."""
        end = self.ends.index(process)
        if not self._open[end]:
            return
        under_way = self._queues[end]
        for _ in range(len(under_way) if dark else self._network.random.randint(0, len(under_way))):
            under_way.pop()  # had not left the process, or is sent again by nobody
        self._open[end] = False
        if dark:
            self.watch()
        else:
            self.send(end, None)
        self._forget()

    def _pump(self, end: int) -> None:
        """Deliver what has arrived, in order."""
        queue = self._queues[end]
        receiver = 1 - end
        while queue and queue[0][0] <= self._timeline.now and self._network.open(*self.edges[end]):
            _, message = queue.popleft()
            if not self._open[receiver]:
                continue
            process = self.ends[receiver]
            if message is None:
                process.do(
                    self._incarnations[receiver],
                    self._break,
                    (receiver, f"{self.ends[end].name} closed the line"),
                )
            else:
                process.do(self._incarnations[receiver], self._deliver, (receiver, message))

    def _deliver(self, receiver: int, message: Message) -> None:
        if self._open[receiver]:
            self.ends[receiver].hear(self, message)

    def _check(self, end: int) -> None:
        if not self._open[end]:
            return
        mine, other = self.ends[end], self.ends[1 - end]
        if mine.frozen:
            return  # watched again when it thaws
        answers = (
            self._open[1 - end]
            and other.up
            and not other.frozen
            and self._network.both_ways(mine.name, other.name)
        )
        if not answers:
            mine.do(self._incarnations[end], self._break, (end, f"no answer from {other.name}"))

    def _break(self, end: int, reason: str, quietly: bool = False) -> None:
        if self._open[end]:
            if quietly:
                self._open[end] = False
                self._forget()
            else:
                self.close(end)
            self.ends[end].line_broke(self, reason)

    def _forget(self) -> None:
        if self._open == [False, False]:
            self._network.lines.pop(self, None)
