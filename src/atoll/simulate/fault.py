"""What a fault is: a value that strikes a world at a moment.

`who` counts agents (the relays first), `place` counts them too with the coordinator as the last; both wrap
around, so that every number names somebody. `at` and durations are seconds of true time.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.simulate.world import World


@dataclass(frozen=True)
class Fault(ABC):
    """Strikes once, at `at`."""

    at: float

    @abstractmethod
    def strike(self, world: "World") -> None: ...
