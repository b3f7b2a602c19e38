"""One call between two processes, as TCP under gRPC behaves.

In order, nothing lost or altered while it lives. A cut holds up what is under way, and it arrives after the
cut, late. Each end learns by itself that the call is dead: it is told by the other end, or by its own
keepalive. So for a while one end may believe in a call that the other has long replaced.
"""

from collections import deque
from typing import TYPE_CHECKING, Any

from atoll.simulate.process import Killed
from atoll.swarm.changes import Changes
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.swarm.transport import MAX_FRAME_BYTES, TransportError, pack, unpack, within

if TYPE_CHECKING:
    from atoll.simulate.network import Network, SimulatedTransport

KEEPALIVE_SECONDS = (10.0, 15.0)  # gRPC pings after 10 s of silence and waits 5 s (grpc_transport.py)
WINDOW_FRAMES = 16  # a sender waits once so many frames are under way or unread
END = b""  # what travels when an end closes; no frame is empty


class End:
    """One end of a call: what production knows as a `Stream`. `other` is set by `joined`."""

    other: "End"

    def __init__(
        self, network: "Network", transport: "SimulatedTransport", peer: str, door: Door[Any]
    ) -> None:
        process = transport.process
        self._transport = transport
        self.peer = peer
        self.peer_host = network.host_of(peer)
        self.process = process
        self.reason = ""  # why it is closed; "" while it is open
        self._network = network
        self._door = door
        self._unread: deque[bytes] = deque()
        self._under_way: deque[tuple[float, bytes]] = deque()  # from here to the other end: (arrival, frame)
        self._last_arrival = 0.0
        self._changes = Changes()

    # ------------------------------------------------------------------------------------- as production does
    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        if (told := self._network.as_told(self.process, self.peer, message)) is None:
            return
        message = told
        self._network.watch(self.process, self.peer, message)
        if not self.process.alive:
            raise Killed
        frame = pack(message, bulk)
        if len(frame) > MAX_FRAME_BYTES:
            raise TransportError(f"a frame of {len(frame)} bytes is over the bound")
        while not self.reason and len(self._under_way) + len(self.other._unread) >= WINDOW_FRAMES:
            await self._changes.next()
        if self.reason:
            raise TransportError(self.reason)
        self._transport.sent_bytes += len(frame)
        self._depart(self._network.as_served(self.process, message, frame))

    async def receive(self, seconds: float) -> tuple[Any, memoryview]:
        return unpack(await within(seconds, self._next(), self.peer), self._door)

    async def close(self) -> None:
        if self.process.alive:
            self.end(f"{self.peer}: this end was closed")

    async def _next(self) -> bytes:
        while not self._unread:
            if self.reason:
                raise TransportError(self.reason)
            await self._changes.next()
        self.other._changes.note()
        return self._unread.popleft()

    # ------------------------------------------------------------------------------------- what happens to it
    @property
    def edge(self) -> tuple[str, str]:
        return self.process.name, self.other.process.name

    def end(self, reason: str) -> None:
        """Close this end; the other is told after what was sent before, if the network lets it."""
        if not self.reason:
            self.fall(reason)
            self._depart(END)
            self.other.look_after()

    def fall(self, reason: str) -> None:
        """This end is closed, and nobody is told."""
        if not self.reason:
            self.reason = reason
            self._changes.note()
            if self.other.reason:
                self._network.forget(self)

    def owner_died(self, dark: bool) -> None:
        """Its process is gone. The kernel sends some of what it was given, then the end; `dark`: nothing."""
        if self.reason:
            return
        left = len(self._under_way)
        for _ in range(left if dark else self._network.random.randint(0, left)):
            self._under_way.pop()
        self.fall(f"{self.process.name} is dead")
        if not dark:
            self._depart(END)
        self.other.look_after()

    def reset(self) -> None:
        """The connection is lost, and this end notices; what was under way to it is lost too."""
        self.other._under_way.clear()
        self.fall(f"{self.peer}: the connection was reset")
        self.other.look_after()

    def look_after(self) -> None:
        """Something may be wrong: if a ping finds no answer, this end gives up."""
        if not self.reason:
            self._network.after(self._network.random.uniform(*KEEPALIVE_SECONDS), self._ping)

    def _ping(self) -> None:
        if self.reason:
            return
        if self.process.frozen:
            self.look_after()  # its own timers do not run
            return
        there, back = self._network.is_open(*self.edge), self._network.is_open(*reversed(self.edge))
        if self.other.reason or not (there and back):
            self.fall(f"{self.peer}: no answer to a ping")
            self.other.look_after()

    def resume(self) -> None:
        """A cut is over: what was held up is sent again."""
        if self._under_way:
            self._last_arrival = max(self._last_arrival, self._network.now + self._network.retry_seconds())
            self._network.at(self._last_arrival, self._arrive)

    def _depart(self, frame: bytes) -> None:
        arrival = self._network.now + self._network.delay(*self.edge, len(frame))
        self._last_arrival = arrival = max(self._last_arrival, arrival)
        self._under_way.append((arrival, frame))
        self._network.at(arrival, self._arrive)

    def _arrive(self) -> None:
        """Deliver to the other end what has arrived by now, in order."""
        while (
            self._under_way
            and max(self._under_way[0][0], 0) <= self._network.now
            and self._network.is_open(*self.edge)
        ):
            _, frame = self._under_way.popleft()
            if self.other.reason:
                continue
            if frame == END:
                self.other.fall(f"{self.process.name}: the other end closed the stream")
            else:
                self.other._unread.append(frame)
                self.other._changes.note()
        self._changes.note()


def joined(near: End, far: End) -> tuple[End, End]:
    """The two ends of one call."""
    near.other, far.other = far, near
    return near, far
