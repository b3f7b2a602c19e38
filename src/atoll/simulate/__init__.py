"""The deterministic simulator: production's state machines in virtual time. See docs/simulator.md."""

from collections.abc import Sequence

from atoll.simulate.faults import Fault
from atoll.simulate.schedule import Result, Setting
from atoll.simulate.storm import storm, swarm
from atoll.simulate.tally import Tally
from atoll.simulate.world import World


def run(
    seed: int, faults: Sequence[Fault] = (), setting: Setting | None = None, tell: bool = False
) -> Result:
    """One schedule, from its seed and its faults; with `tell`, its story too."""
    return World(seed, setting or Setting(), faults, tell).run()


def simulate(
    islands: int, outer_steps: int, seed: int = 0, with_faults: bool = True, tell: bool = False
) -> Result:
    """A swarm of that size for that long, under a storm drawn from the seed."""
    setting = Setting(islands=islands, outer_steps=outer_steps)
    return run(seed, storm(seed) if with_faults else (), setting, tell)


__all__ = ["Fault", "Result", "Setting", "Tally", "World", "run", "simulate", "storm", "swarm"]
