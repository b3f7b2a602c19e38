"""Faults of the network between two places, or many. Numbers of places wrap around; the last is the
host's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.simulate.fault import Fault

if TYPE_CHECKING:
    from atoll.simulate.world import World


@dataclass(frozen=True)
class Cut(Fault):
    """An edge is dead, one way or both."""

    left: int
    right: int
    seconds: float = 20.0
    one_way: bool = False

    def strike(self, world: "World") -> None:
        a, b = world.place_name(self.left), world.place_name(self.right)
        edges = [(a, b)] if self.one_way else [(a, b), (b, a)]
        if a != b:
            world.network.cut(edges)
            world.after(self.seconds, world.network.mend, edges)


@dataclass(frozen=True)
class Partition(Fault):
    """The places whose bit is set in `mask` and all others do not reach one another."""

    mask: int
    seconds: float = 20.0

    def strike(self, world: "World") -> None:
        names = world.place_names
        inside = {name for k, name in enumerate(names) if self.mask >> k & 1}
        edges = [(a, b) for a in names for b in names if (a in inside) != (b in inside)]
        world.network.cut(edges)
        world.after(self.seconds, world.network.mend, edges)


@dataclass(frozen=True)
class Congestion(Fault):
    """An edge is slower by `factor`, both ways."""

    left: int
    right: int
    factor: float = 10.0
    seconds: float = 20.0

    def strike(self, world: "World") -> None:
        a, b = world.place_name(self.left), world.place_name(self.right)
        for edge in ((a, b), (b, a)):
            world.network.slow_down(edge, self.factor)
            world.after(self.seconds, world.network.slow_down, edge, 1.0)


@dataclass(frozen=True)
class Reset(Fault):
    """Every connection between two places is lost; with `one_end` only the left one learns of it at once."""

    left: int
    right: int
    one_end: bool = False

    def strike(self, world: "World") -> None:
        a, b = world.place_name(self.left), world.place_name(self.right)
        world.network.reset(a, b, not self.one_end)
        world.after(15.0, world.nothing)  # until the other end has noticed
