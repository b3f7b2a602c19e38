"""What an attack is. `attacks.py` has all of them, by name."""

from worlds.swarm import Swarm


class Attack:
    """One way to harm a run."""

    liars: tuple[str, ...] = ("x",)
    is_left_out = True  # the coordinator can tell who it was
    is_agent = True  # else it has only lines
    lost_seconds = 2.0  # that it costs at most, of steps of 1 s, until it can do no more

    async def prepare(self, swarm: Swarm) -> None:
        """Bring the liars in, as honest members at first."""
        if not self.is_agent:
            return
        for name in self.liars:
            swarm.start(name, step_seconds=0.25)
        await swarm.until(lambda: set(self.liars) <= swarm.ready(), "the liars are ready")

    async def begin(self, swarm: Swarm) -> None:
        raise NotImplementedError

    async def end(self) -> None:
        """Undo what would outlive the swarm."""
