"""Edges that do not work: pairs of agents of which one could not exchange with the other."""

from collections import Counter
from collections.abc import Iterable

FIRST_STEPS, MAX_STEPS = 5, 320  # for which an edge is planned around: doubled each time that it fails again


class DeadEdges:
    """What was found out about edges; kept over outer steps, so that it is not found out in each of them."""

    def __init__(self) -> None:
        self._steps_left: dict[frozenset[str], int] = {}
        self._num_failures: Counter[frozenset[str]] = Counter()

    def note(self, one: str, other: str) -> None:
        """An exchange between these two has failed. Either of them would fail as the other's owner."""
        edge = frozenset((one, other))
        self._steps_left[edge] = min(FIRST_STEPS << min(self._num_failures[edge], 8), MAX_STEPS)
        self._num_failures[edge] += 1

    def next_step(self) -> None:
        """An outer step is over: an edge whose time has come is tried again."""
        self._steps_left = {edge: left - 1 for edge, left in self._steps_left.items() if left > 1}

    def restore(self, island: str) -> None:
        """Forget what failed with an island: it has a new connection, and perhaps another way."""
        for known in (self._steps_left, self._num_failures):
            for edge in [edge for edge in known if island in edge]:
                del known[edge]

    def serve(self, owner: str, participants: Iterable[str]) -> bool:
        """Whether all participants can exchange with an owner, as far as is known."""
        return not any(frozenset((owner, island)) in self._steps_left for island in participants)
