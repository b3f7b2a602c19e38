"""Members that lie: an honest agent, of which the messages to the coordinator are changed as they leave."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import numpy as np

from atoll.simulate.fault import Fault
from atoll.swarm import messages as m
from atoll.swarm.audit import LANES
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.layout import digest
from atoll.swarm.records import Message

if TYPE_CHECKING:
    from atoll.simulate.world import World

Lie = Literal["root", "slice", "norm", "norms", "measure", "no measure", "accuses", "never holds"]
LIES: tuple[Lie, ...] = get_args(Lie)
FALSE = digest(b"what nobody has")


@dataclass(frozen=True)
class Liar(Fault):
    """An island lies from now on, in one way."""

    who: int
    lie: Lie

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        others = sorted(world.sites.keys() - {site.name})
        chance = random.Random(f"liar {world.seed} {site.name}")
        world.liars.add(site.name)

        def told(receiver: str, message: Message) -> Message | None:
            return lying(self.lie, message, others, chance) if receiver == COORDINATOR else message

        world.network.lie(site.name, told)


def lying(lie: Lie, message: Message, others: list[str], chance: random.Random) -> Message | None:
    """What a liar says in place of a message to its coordinator; None: nothing."""
    changed = msgspec.structs.replace
    match lie, message:
        case "root", m.Held():
            return changed(message, next_root=FALSE)
        case "slice", m.Reduced():
            return changed(message, digest=FALSE)
        case "norm", m.Propose():
            return changed(message, norm=1e9)
        case "norms", m.Reduced():
            return changed(message, squared_norms=(1e30,) * len(message.squared_norms))
        case "measure", m.Held() if message.own_measure:
            rows = np.frombuffer(message.own_measure, "<f4").reshape(-1, LANES + 1).copy()
            rows[:, :LANES] *= -1
            return changed(message, own_measure=rows.tobytes())
        case "no measure", m.Held():
            return changed(message, own_measure=b"")
        case "never holds", m.Held():
            return None
        case "accuses", m.Reduced() if others:
            peer = chance.choice(others)
            return m.Fault(step=message.step, number=message.number, peer=peer, kind="silent", text="a lie")
        case _:
            return message
