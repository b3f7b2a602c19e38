"""Faults of the network between two places, or many."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.simulate.fault import Fault
from atoll.simulate.network import Edge

if TYPE_CHECKING:
    from atoll.simulate.world import World


@dataclass(frozen=True)
class Cut(Fault):
    """An edge is dead, one way or both; the coordinator may be one of its ends."""

    left: int
    right: int
    seconds: float = 20.0
    one_way: bool = False

    def strike(self, world: "World") -> None:
        a, b = world.place_name(self.left), world.place_name(self.right)
        edges = [(a, b)] if self.one_way else [(a, b), (b, a)]
        if a != b:
            world.network.cut(edges)
            world.after(self.seconds, world.network.heal, edges)


@dataclass(frozen=True)
class Partition(Fault):
    """The places whose bit is set in `mask` and all others do not reach one another."""

    mask: int
    seconds: float = 20.0

    def strike(self, world: "World") -> None:
        names = world.place_names
        inside = {name for k, name in enumerate(names) if self.mask >> k & 1}
        edges: list[Edge] = [(a, b) for a in names for b in names if (a in inside) != (b in inside)]
        world.network.cut(edges)
        world.after(self.seconds, world.network.heal, edges)


@dataclass(frozen=True)
class Congestion(Fault):
    """An edge is slower by `factor`, both ways."""

    left: int
    right: int
    factor: float = 10.0
    seconds: float = 20.0

    def strike(self, world: "World") -> None:
        a, b = world.place_name(self.left), world.place_name(self.right)
        edges = [(a, b), (b, a)]
        world.network.congest(edges, self.factor)
        world.after(self.seconds, world.network.congest, edges, 1.0)


@dataclass(frozen=True)
class Reset(Fault):
    """Every line between two places breaks; with `one_end` only the left one learns of it at once."""

    left: int
    right: int
    one_end: bool = False

    def strike(self, world: "World") -> None:
        world.network.reset(world.place_name(self.left), world.place_name(self.right), self.one_end)
