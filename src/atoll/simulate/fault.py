"""What all faults are, and the moments at which an armed one strikes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.simulate.world import World

ARMED_SECONDS = 4.0  # an armed fault strikes at its moment, or after this at the latest


@dataclass(frozen=True)
class Moment:
    """When an armed fault strikes.

    `kind` is "now"; "steps", "lines" or "syncs": after `count` more steps of the victim's process, lines of
    production's code in it, or halves of effects on its disk; or the name of a message: as the `count`-th of
    that kind, from 0, leaves it or is sent to it.
    """

    kind: str = "now"
    count: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "now" else f"{self.count} {self.kind}"


NOW = Moment()


@dataclass(frozen=True)
class Fault(ABC):
    """Something that goes wrong at a moment of a world: a value, drawn from a seed or by hypothesis."""

    at: float  # seconds since the world began

    @abstractmethod
    def strike(self, world: "World") -> None: ...
