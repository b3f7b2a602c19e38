"""Attacks of one enrolled member, "x", or of several identities of one ticket, on a swarm of honest islands.

Each is prepared while the swarm is calm, and begun with `begin`. An agent that attacks is an honest one in
which one thing is changed; lines that do what no agent does are a `Hostile`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from worlds.hostile import Hostile
from worlds.swarm import LAYOUT, Swarm

from atoll.agent import effects as e
from atoll.agent.reduce import Reduction
from atoll.swarm import messages as m
from atoll.swarm.audit import LANES
from atoll.swarm.layout import BLOCK, digest, root
from atoll.swarm.records import Attempt, Term

ONE_TICKET = ("v", "w", "x", "y", "z")
SEND_PIECES, OWN = Reduction._send_pieces, Reduction._own
FALSE_ROOT = digest(b"another state")


class Attack:
    """One way to harm a run."""

    liars: tuple[str, ...] = ("x",)
    is_left_out = True  # the coordinator can tell who it was
    is_agent = True  # else it has only lines

    async def prepare(self, swarm: Swarm) -> None:
        """Bring the liars in, as honest members at first."""
        if not self.is_agent:
            return
        for name in self.liars:
            swarm.start(name, step_seconds=0.25)
        await swarm.until(lambda: set(self.liars) <= swarm.ready(), "the liars are ready")

    async def begin(self, swarm: Swarm) -> None:
        raise NotImplementedError

    async def end(self) -> None:
        """Undo what would outlive the swarm."""


class Spoilt(Attack):
    """Each encoded piece is changed before it is named, so that proposals are of these bytes."""

    def __init__(self, spoil: Callable[[Any], int]) -> None:
        """`spoil` changes a piece's slot in place, and returns the size that it has then."""
        self._spoil = spoil

    async def begin(self, swarm: Swarm) -> None:
        work = swarm.agents["x"].work
        report = work._report

        def spoilt(event: Any) -> None:
            if isinstance(event, e.Encoded):
                assert work.payload is not None
                pieces = work.payload.pieces
                pieces.table = bytearray(pieces.table)
                for index in range(LAYOUT.num_pieces):
                    pieces.seal(index, self._spoil(pieces.slot(index)))
                proposal = msgspec.structs.replace(event.proposal, payload=root(bytes(pieces.table)))
                event = e.Encoded(proposal)
            report(event)

        work._report = spoilt


def scales(value: float) -> Spoilt:
    """The first scale of each piece is this."""

    def spoil(slot: Any) -> int:
        slot[:4].view("<f4")[:] = value
        return len(slot)

    return Spoilt(spoil)


class Says(Attack):
    """What x tells the coordinator is changed."""

    def __init__(self, change: Callable[[Any], Any], liars: tuple[str, ...] = ("x",)) -> None:
        self._change = change
        self.liars = liars

    async def prepare(self, swarm: Swarm) -> None:
        if self.liars == ONE_TICKET:
            swarm.store.ticket_of = lambda island: b"one" if island in ONE_TICKET else island.encode()
        await super().prepare(swarm)

    async def begin(self, swarm: Swarm) -> None:
        for name in self.liars:
            link = swarm.agents[name]._link
            link.send = lambda message, send=link.send: send(self._change(message))


def false_root(message: Any) -> Any:
    return msgspec.structs.replace(message, next_root=FALSE_ROOT) if isinstance(message, m.Held) else message


def false_slice(message: Any) -> Any:
    unknown = digest(b"a slice that nobody has")
    return msgspec.structs.replace(message, digest=unknown) if isinstance(message, m.Reduced) else message


def huge_norm(message: Any) -> Any:
    return msgspec.structs.replace(message, norm=1e9) if isinstance(message, m.Propose) else message


class Accuses(Attack):
    """At each attempt, somebody else."""

    async def begin(self, swarm: Swarm) -> None:
        accused = iter("abcdr" * 10_000)

        def accuse(sender: str, receiver: str, message: Any) -> None:
            if receiver == "x" and isinstance(message, Attempt):
                owners = {part.owner for part in message.slices}
                peer = next(name for name in accused if name in owners)
                fault = m.Fault(
                    step=message.step, number=message.number, peer=peer, kind="unreachable", text="no"
                )
                asyncio.get_running_loop().call_soon(swarm.agents["x"]._link.send, fault)

        swarm.network.watches.append(accuse)


class NeverSends(Attack):
    """It proposes at each step, and sends none of it."""

    async def begin(self, swarm: Swarm) -> None:
        async def never(reduction: Reduction, *given: Any) -> None:
            await (asyncio.sleep(1e6) if reduction.me == "x" else SEND_PIECES(reduction, *given))

        Reduction._send_pieces = never

    async def end(self) -> None:
        Reduction._send_pieces = SEND_PIECES


def other_measure(message: Any) -> Any:
    """What its payload measures, with the other sign."""
    if not isinstance(message, m.Held):
        return message
    rows = np.frombuffer(message.own_measure, "<f4").reshape(-1, LANES + 1).copy()
    rows[:, :LANES] *= -1
    return msgspec.structs.replace(message, own_measure=rows.tobytes())


def no_measure(message: Any) -> Any:
    return msgspec.structs.replace(message, own_measure=b"") if isinstance(message, m.Held) else message


class FalseSum(Attack):
    """What it owns it sums wrongly: of each of these pieces of its slice, and no others, the negative."""

    def __init__(self, pieces: slice) -> None:
        self._pieces = pieces

    async def begin(self, swarm: Swarm) -> None:
        async def false(reduction: Reduction, number: int, part: Any) -> None:
            if reduction.me == "x":
                put = reduction.assembly.put

                async def put_false(index: int, data: Any) -> None:
                    if index in part.pieces[self._pieces]:
                        elements = LAYOUT.piece(index)
                        scales = 4 * ((elements.stop - elements.start) // BLOCK)
                        values = np.frombuffer(data, np.int8)[scales:]
                        data = bytes(data[:scales]) + (-values).tobytes()
                    await put(index, data)

                reduction.assembly.put = put_false
            await OWN(reduction, number, part)

        Reduction._own = false

    async def end(self) -> None:
        Reduction._own = OWN


class ProposesAtOnce(Attack):
    """It trains on nothing, and says that it was that fast."""

    is_left_out = False  # it may be true

    async def begin(self, swarm: Swarm) -> None:
        swarm.trainers["x"]._step_seconds = 1e-4


class Grows(Attack):
    """It goes further than its training does: what it proposes is so many times as long."""

    is_left_out = False

    def __init__(self, times: float) -> None:
        self._times = np.float32(times)

    async def begin(self, swarm: Swarm) -> None:
        trainer = swarm.trainers["x"]
        propose = trainer._orders.propose

        def grown(*given: Any) -> None:
            state = trainer._state
            state.local[:] = state.parameters + self._times * (state.local - state.parameters)
            propose(*given)

        trainer._orders.propose = grown


class Claims(Attack):
    """It says again and again that it knows what the coordinator does not."""

    is_agent = is_left_out = False

    def __init__(self, **claims: Any) -> None:
        self._claims = claims

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "x")
        for _ in range(20):
            await self._liar.enter(**self._claims)

    async def end(self) -> None:
        await self._liar.leave()


class Floods(Attack):
    """It sends as fast as it is read, and reads nothing."""

    is_agent = is_left_out = False

    def __init__(self, *messages: Any) -> None:
        self._messages = messages
        self.num_sent = 0

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "x")
        stream = await self._liar.enter(reads=False)

        async def flood() -> None:
            while True:
                for message in self._messages:
                    await stream.send(message)
                    self.num_sent += 1

        self._flooding = asyncio.create_task(flood())

    async def end(self) -> None:
        self._flooding.cancel()
        await asyncio.gather(self._flooding, return_exceptions=True)
        await self._liar.leave()


ATTACKS: dict[str, Callable[[], Attack]] = {
    "infinite scales": lambda: scales(float("inf")),
    "NaN scales": lambda: scales(float("nan")),
    "huge values, a small norm claimed": lambda: scales(1e28),
    "pieces of scales only": lambda: Spoilt(lambda slot: 4),
    "pieces of three bytes": lambda: Spoilt(lambda slot: 3),
    "a norm far over what is usual": lambda: Says(huge_norm),
    "a slice that it gives to nobody": lambda: Says(false_slice),
    "a false root": lambda: Says(false_root),
    "a false root, of five identities": lambda: Says(false_root, ONE_TICKET),
    "false sums": lambda: FalseSum(slice(None)),
    "a false sum of one piece": lambda: FalseSum(slice(1)),
    "says that its payload measures otherwise": lambda: Says(other_measure),
    "does not say what its payload measures": lambda: Says(no_measure),
    "goes five times as far": lambda: Grows(5.0),
    "accuses everybody": Accuses,
    "proposes at once": ProposesAtOnce,
    "proposes and never sends": NeverSends,
    "claims commits": lambda: Claims(head=10**9, head_root=FALSE_ROOT),
    "claims a rival term": lambda: Claims(term=Term(1, "mine")),
    "asks for records, and does not read": lambda: Floods(m.WantRecords(0)),
    "records that nobody asked for": lambda: Floods(m.Records(())),
}
