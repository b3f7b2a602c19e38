"""The simulated network: who serves where, how long a frame takes, and what cannot pass.

A place is a machine: its processes share its cuts. Edges are pairs of places, with a direction.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from atoll.simulate.loop import VirtualLoop
from atoll.simulate.process import Killed, Process
from atoll.simulate.stream import End, joined
from atoll.swarm.address import Address
from atoll.swarm.limits import Doorkeeper
from atoll.swarm.messages import Piece
from atoll.swarm.messages.peers import Found
from atoll.swarm.records import Message
from atoll.swarm.services import Service
from atoll.swarm.sockets import Crossed
from atoll.swarm.transport import DIAL_SECONDS, Handler, Stream, TransportError

Watch = Callable[[Process, str, Message], None]  # (sender, receiver, message), as it leaves
Lying = Callable[[str, Message], Message | None]  # (receiver, message): what leaves in its place
BYTES_PER_SECOND = 20e6


@dataclass(frozen=True)
class _Served:
    transport: "SimulatedTransport"
    handlers: Mapping[Service[Any, Any], Handler]

    @property
    def process(self) -> Process:
        return self.transport.process


class Network:
    """All machines of a world, and the lines between them."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.random = random.Random(f"network {seed}")
        self.watches: list[Watch] = []
        self.dark: set[str] = set()  # places without power: nobody answers, not even with a refusal
        self._loop = loop
        self._outside = copy_context()  # of no process: what happens there outlives whoever caused it
        self._served: dict[Address, _Served] = {}
        self._num_ports = 0
        self._ends: dict[End, None] = {}
        self._cuts: Counter[tuple[str, str]] = Counter()  # by edge: how many faults close it
        self._slowness: dict[tuple[str, str], float] = {}
        self._latency: dict[tuple[str, str], float] = {}
        self._hosts: dict[str, str] = {}
        self._false_until: dict[str, float] = {}
        self._lies: dict[str, Lying] = {}

    # ----------------------------------------------------------------------------------------- time and space
    @property
    def now(self) -> float:
        return self._loop.now

    def at(self, moment: float, action: Callable[..., None], *arguments: object) -> None:
        """Do something at a moment of the world's time."""
        self._loop.call_at(moment, action, *arguments, context=self._outside)

    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        self.at(self.now + seconds, action, *arguments)

    def host_of(self, place: str) -> str:
        """The IP address of a place: a reserved one, and so none of this machine's own."""
        return self._hosts.setdefault(place, f"192.0.2.{len(self._hosts) + 1}")

    def new_port(self) -> int:
        self._num_ports += 1
        return 1000 + self._num_ports

    def delay(self, source: str, target: str, num_bytes: int) -> float:
        """Seconds until a frame that leaves now has arrived."""
        edge = (source, target)
        latency = self._latency.setdefault(edge, self.random.choice([0.002, 0.02, 0.02, 0.08]))
        jitter = self.random.expovariate(4 / latency)
        return (latency + jitter + num_bytes / BYTES_PER_SECOND) * self._slowness.get(edge, 1.0)

    def retry_seconds(self) -> float:
        """After a cut, until TCP sends again."""
        return self.random.uniform(0.05, 1.0)

    # ---------------------------------------------------------------------------------------- what can happen
    def is_open(self, source: str, target: str) -> bool:
        return not self._cuts[source, target]

    def is_open_both_ways(self, one: str, other: str) -> bool:
        return self.is_open(one, other) and self.is_open(other, one)

    def cut(self, edges: Sequence[tuple[str, str]]) -> None:
        """Nothing passes along these edges any more; nobody is told."""
        self._cuts.update(edges)
        for end in list(self._ends):
            if end.edge in edges or tuple(reversed(end.edge)) in edges:
                end.look_after()

    def mend(self, edges: Sequence[tuple[str, str]]) -> None:
        """Undo one `cut` of these edges."""
        self._cuts.subtract(edges)
        for end in list(self._ends):
            if end.edge in edges and self.is_open(*end.edge):
                end.resume()

    def slow_down(self, edge: tuple[str, str], factor: float) -> None:
        self._slowness[edge] = factor

    def reset(self, one: str, other: str, noticed_by_both: bool) -> None:
        """Connections between two places are lost; perhaps only the first one notices."""
        for end in list(self._ends):
            if {one, other} == set(end.edge) and (noticed_by_both or end.edge[0] == one):
                end.reset()

    def serve_false_bytes(self, place: str, seconds: float) -> None:
        """Bad memory: what a place sends in bulk may have a flipped bit."""
        self._false_until[place] = self.now + seconds

    def lie(self, place: str, told: Lying) -> None:
        """From now on a place says something else."""
        self._lies[place] = told

    def as_told(self, process: Process, receiver: str, message: Message) -> Message | None:
        """What a process says to another; None: nothing."""
        told = self._lies.get(process.name)
        return message if told is None else told(receiver, message)

    def died(self, process: Process, dark: bool) -> None:
        """A process is gone, with its services."""
        self._served = {at: served for at, served in self._served.items() if served.process is not process}
        for end in [end for end in self._ends if end.process is process]:
            end.owner_died(dark)

    # -------------------------------------------------------------------------------------------------- calls
    def watch(self, sender: Process, receiver: str, message: Message) -> None:
        for watch in list(self.watches):
            watch(sender, receiver, message)

    def as_served(self, process: Process, message: Message, frame: bytes) -> bytes:
        """A frame as it leaves: altered, if the sender's memory is bad and it carries bulk."""
        bad = self.now < self._false_until.get(process.name, 0.0)
        if not bad or not isinstance(message, Piece | Found) or self.random.random() < 0.5:
            return frame
        at = self.random.randrange(len(frame) // 2, len(frame))  # of the bulk
        return frame[:at] + bytes([frame[at] ^ 1 << self.random.randrange(8)]) + frame[at + 1 :]

    def forget(self, end: End) -> None:
        self._ends.pop(end, None)
        self._ends.pop(end.other, None)

    def serve(self, address: Address, served: _Served) -> None:
        self._served[address] = served

    async def connect(
        self,
        transport: "SimulatedTransport",
        addresses: Sequence[Address],
        peer: str,
        service: Service[Any, Any],
        seconds: float,
    ) -> End:
        """As a dial over TCP and TLS: it takes a way there and back."""
        caller = transport.process
        if not caller.alive:
            raise Killed
        where = f"{peer} at {', '.join(map(str, addresses))}"
        found = (self._served.get(address) for address in addresses)
        served = next((s for s in found if s is not None and s.process.name == peer), None)
        there_and_back = self.delay(caller.name, peer, 500) + self.delay(peer, caller.name, 500)
        silent = not self.is_open_both_ways(caller.name, peer) or peer in self.dark
        if silent or (served is not None and served.process.frozen) or there_and_back > seconds:
            await asyncio.sleep(seconds)
            raise TransportError(f"{where}: no answer within {seconds:.1f} s")
        await asyncio.sleep(there_and_back)
        if not caller.alive:
            raise Killed
        handler = served.handlers.get(service) if served is not None else None
        if served is None or handler is None or not served.process.alive:
            raise TransportError(f"{where} cannot be reached")
        near = End(self, transport, peer, service.caller_door)
        far = End(self, served.transport, caller.name, service.server_door)
        joined(near, far)
        self._ends[near] = self._ends[far] = None
        served.transport.tasks.append(served.process.start(_serve(handler, far)))
        return near


async def _serve(handler: Handler, stream: End) -> None:
    try:
        await handler(stream)
    except TransportError:
        pass
    except Exception as error:
        stream.process.defect(error)
    finally:
        await stream.close()


class SimulatedTransport:
    """One process's access to the network: production's `Transport`."""

    def __init__(self, network: Network, process: Process) -> None:
        self.sent_bytes = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.process = process
        self._network = network
        self._doorkeeper = Doorkeeper()

    async def connect(
        self,
        addresses: Sequence[Address],
        peer: str,
        service: Service[Any, Any],
        seconds: float = DIAL_SECONDS,
        lane: int = 0,
    ) -> Stream[Any]:
        return await self._network.connect(self, addresses, peer, service, seconds)

    async def serve(self, listen: Address, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        port = listen.port or self._network.new_port()
        address = Address(self._network.host_of(self.process.name), port)
        limited = {service: self._doorkeeper.within_limits(service, h) for service, h in handlers.items()}
        self._network.serve(address, _Served(self, limited))
        return port

    def revoke(self, peers: Iterable[str]) -> None:
        self._doorkeeper.revoke(peers)

    def crossed(self) -> Mapping[int, Crossed]:
        return {}  # no link of a real machine

    async def close(self) -> None:
        if self.process.alive:
            for task in self.tasks:
                task.cancel()
            self._network.died(self.process, dark=False)
