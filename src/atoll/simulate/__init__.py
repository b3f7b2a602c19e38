"""The deterministic simulator: the program itself in virtual time, under faults. See docs/simulator.md."""

from collections.abc import Sequence

from atoll.simulate.fault import Fault, Moment
from atoll.simulate.schedule import Result, Setting
from atoll.simulate.shrink import shrink
from atoll.simulate.storm import storm, swarm
from atoll.simulate.tally import Tally
from atoll.simulate.world import World


def run(
    seed: int, faults: Sequence[Fault] = (), setting: Setting | None = None, tell: bool = False
) -> Result:
    """One schedule, from its seed and its faults; with `tell`, its story too."""
    return World(seed, setting or Setting(), faults, tell).play()


def shortest(seed: int, faults: Sequence[Fault], setting: Setting) -> list[Fault]:
    """The fewest of these faults with which the schedule of that seed still goes wrong."""
    return shrink(faults, lambda fewer: bool(run(seed, fewer, setting).wrong))


__all__ = ["Fault", "Moment", "Result", "Setting", "Tally", "World", "run", "shortest", "storm", "swarm"]
