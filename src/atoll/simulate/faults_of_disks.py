"""Faults of what keeps bytes: disks that are full, slow or rotten, memory that gives other bytes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.simulate.fault import NOW, Fault, Moment

if TYPE_CHECKING:
    from atoll.simulate.world import World


@dataclass(frozen=True)
class FalseBytes(Fault):
    """Bad memory: what an agent serves in bulk may have a flipped bit."""

    who: int
    seconds: float = 10.0

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        world.network.serve_false_bytes(site.name, self.seconds)
        world.after(self.seconds, world.nothing)


@dataclass(frozen=True)
class Rot(Fault):
    """A bit flips in a file of an island, whose bytes are checked when they are read.

    `state`: it is in the outer state, while the machine is off for a moment.
    """

    who: int
    state: bool = False
    moment: Moment = NOW

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        if self.state:
            site.kill_trainer()
            site.kill_agent()
            world.story(site.name, f"a bit flips in {site.disk.rot_state()}")
            world.after(1.0, site.start)
        else:
            world.arm(self.moment, site.agent_process, site.name, lambda: self._flip(world))

    def _flip(self, world: "World") -> None:
        site = world.site(self.who)
        world.story(site.name, f"a bit flips in {site.disk.rot()}")


@dataclass(frozen=True)
class FullDisk(Fault):
    """Nothing can be written at an island for a while; what stops for that is started again after."""

    who: int
    seconds: float = 5.0

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        site.disk.full = True
        world.after(self.seconds, site.free_disk)


@dataclass(frozen=True)
class FullDatabase(Fault):
    """No transaction succeeds for a while; the coordinator that meets that ends, and is hosted again."""

    seconds: float = 3.0

    def strike(self, world: "World") -> None:
        world.hosts.database_full = True
        world.after(self.seconds, world.hosts.free_database)


@dataclass(frozen=True)
class SlowDisk(Fault):
    """What threads do at an island takes 200 times as long."""

    who: int
    seconds: float = 10.0

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        site.slow_disk(world.loop.now + self.seconds, 200.0)
        world.after(self.seconds, site.slow_disk, 0.0, 1.0)
