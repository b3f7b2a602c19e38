"""Attacks of one enrolled member, "x", or of several identities of one ticket, on a swarm of honest islands.

Each is prepared while the swarm is calm, and begun with `begin`. An agent that attacks is an honest one in
which one thing is changed; a member "h" has only lines (`attacks_by_lines.py`). Who only makes the others
wait is in `attacks_by_delay.py`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from worlds import attacks_by_delay as delay
from worlds.attack import Attack
from worlds.attacks_by_lines import Claims, Floods, HasPlans, Hoards, Oversized, StaysAfterEviction
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

    lost_seconds = 4.0

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


class OwnsFalsely(Attack):
    """What it does as an owner is changed, by replacing methods of its reductions."""

    def __init__(
        self, *, is_left_out: bool = True, lost_seconds: float = 2.0, **methods: Callable[..., Any]
    ) -> None:
        self.is_left_out, self.lost_seconds = is_left_out, lost_seconds
        self._methods = methods
        self._before = {name: getattr(Reduction, name) for name in methods}

    async def begin(self, swarm: Swarm) -> None:
        for name, method in self._methods.items():
            before = self._before[name]

            def chosen(reduction: Reduction, *given: Any, method: Any = method, before: Any = before) -> Any:
                return (method if reduction.me == "x" else before)(reduction, *given)

            setattr(Reduction, name, chosen)

    async def end(self) -> None:
        for name, before in self._before.items():
            setattr(Reduction, name, before)


async def gives_each_another(reduction: Reduction, stream: Any, flow: Any) -> None:
    """The slice that it gives to each participant, and to whoever asks later, is not what it reported."""
    for index in flow:
        piece = bytearray(await reduction.assembly.get(index))
        piece[-1] ^= 1 + ord(stream.peer[0]) % 7
        await stream.send(m.Piece(index), bytes(piece))
    await stream.send(m.NoMorePieces())


async def drips(reduction: Reduction, number: int, part: Any) -> None:
    """As owner it lets a piece go every nine seconds."""
    put = reduction.assembly.put

    async def put_late(index: int, data: Any) -> None:
        if index in part.pieces:
            await asyncio.sleep(9.0)
        await put(index, data)

    reduction.assembly.put = put_late
    await OWN(reduction, number, part)


class TwoFaced(OwnsFalsely):
    """It gives each another slice, and false bytes to whoever asks for what it has reported."""

    def __init__(self) -> None:
        super().__init__(_give=gives_each_another)

    async def begin(self, swarm: Swarm) -> None:
        await super().begin(swarm)
        donor = swarm.agents["x"].work.donor
        find = donor._find

        def false(request: Any) -> Any:
            found = find(request)
            return found if isinstance(found, m.Missing) else (bytes(len(found[0])), found[1])

        donor._find = false


class Together(Attack):
    """Several attacks at once, of the same member where they are of agents."""

    def __init__(self, *names: str) -> None:
        self._attacks = [ATTACKS[name]() for name in names]
        self.liars = max(
            (attack.liars for attack in self._attacks if attack.is_agent), key=len, default=("x",)
        )
        self.is_agent = any(attack.is_agent for attack in self._attacks)
        self.is_left_out = any(attack.is_left_out for attack in self._attacks)
        self.lost_seconds = sum(attack.lost_seconds for attack in self._attacks)

    async def prepare(self, swarm: Swarm) -> None:
        if self.is_agent:
            await max(self._attacks, key=lambda attack: len(attack.liars) * attack.is_agent).prepare(swarm)

    async def begin(self, swarm: Swarm) -> None:
        for attack in self._attacks:
            await attack.begin(swarm)

    async def end(self) -> None:
        for attack in reversed(self._attacks):
            await attack.end()


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
    "sends nothing to one owner, another in each step": delay.SendsNothingToOne,
    "proposes as late as is waited for": lambda: delay.Dawdles(m.Propose, 1.9, is_left_out=False),
    "reduces as late as is waited for": lambda: delay.Dawdles(m.Reduced, 2.9, is_left_out=False),
    "holds as late as is waited for": lambda: delay.Dawdles(m.Held, 1.9, is_left_out=True),
    "never holds, and says that pieces come": delay.NeverHolds,
    "falls silent in each attempt": delay.FallsSilent,
    "leaves each attempt, and is back at once": delay.Leaves,
    "owns, and serves nobody": delay.ServesNobody,
    "has plans, and never proposes": HasPlans,
    "says that its payload is lost": lambda: delay.Says(delay.lost),
    "accuses another in each step": lambda: delay.Says(delay.another_each_step),
    "claims commits": lambda: Claims(head=10**9, head_root=FALSE_ROOT),
    "claims a rival term": lambda: Claims(term=Term(1, "mine")),
    "asks for records, and does not read": lambda: Floods(m.WantRecords(0)),
    "records that nobody asked for": lambda: Floods(m.Records(())),
    "owns, and gives each another slice": TwoFaced,
    "owns, and drips": lambda: OwnsFalsely(_own=drips, is_left_out=False, lost_seconds=8.0),
    "opens streams, and reads none": Hoards,
    "sends what no field may be": Oversized,
    "stays after its eviction": StaysAfterEviction,
}
# Of two at once; the bench plays them.
COMBINED: dict[str, Callable[[], Attack]] = {
    " + ".join(names): lambda names=names: Together(*names)
    for names in (
        ("false sums", "says that its payload measures otherwise"),
        ("false sums", "proposes at once"),
        ("a false sum of one piece", "does not say what its payload measures"),
        ("false sums", "accuses everybody"),
        ("goes five times as far", "proposes at once"),
        ("infinite scales", "accuses everybody"),
        ("proposes and never sends", "proposes at once"),
        ("a false root", "records that nobody asked for"),
        ("owns, and drips", "accuses everybody"),
        ("owns, and gives each another slice", "opens streams, and reads none"),
        ("proposes as late as is waited for", "holds as late as is waited for"),
        ("owns, and serves nobody", "leaves each attempt, and is back at once"),
        ("falls silent in each attempt", "accuses another in each step"),
        ("a false root", "has plans, and never proposes"),
    )
}
