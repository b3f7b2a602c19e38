"""What goes wrong. A fault is a value: drawn from a seed, or by hypothesis, which can shrink a schedule."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.simulate.fault import Fault
from atoll.simulate.faults_of_edges import Congestion, Cut, Partition, Reset

if TYPE_CHECKING:
    from atoll.simulate.process import Process
    from atoll.simulate.world import World

__all__ = [
    "Backup",
    "ClockJump",
    "ClockRate",
    "Congestion",
    "CoordinatorCrash",
    "Crash",
    "Cut",
    "FalseBytes",
    "Fault",
    "Freeze",
    "Leave",
    "Partition",
    "Reset",
    "Slow",
    "Stall",
    "Takeover",
]
ARMED_SECONDS = 3.0  # an armed crash strikes between two effects, or after this at the latest


@dataclass(frozen=True)
class Crash(Fault):
    """An agent dies after so many more effects and comes back; `dark`: its unsynced pages are lost too."""

    who: int
    effects: int = 0
    down: float = 5.0
    dark: bool = False

    def strike(self, world: "World") -> None:
        doom(world, world.agent(self.who), self.effects, self.dark)
        world.after(ARMED_SECONDS + self.down, world.revive, world.agent(self.who))


@dataclass(frozen=True)
class CoordinatorCrash(Fault):
    effects: int = 0
    down: float = 2.0
    dark: bool = False

    def strike(self, world: "World") -> None:
        for reign in world.reigns:
            doom(world, reign, self.effects, self.dark)
        world.after(ARMED_SECONDS + self.down, world.begin_reign_if_none)


@dataclass(frozen=True)
class Takeover(Fault):
    """A standby begins a term while the old leader lives; new lines may reach that for `lag` seconds more."""

    lag: float = 0.0

    def strike(self, world: "World") -> None:
        world.take_over(self.lag)


@dataclass(frozen=True)
class Backup(Fault):
    """The coordinator's machine is lost, and its database restored from a backup that is some commits old."""

    num_commits: int = 1
    down: float = 5.0
    announced: bool = True  # the operator says so (`atoll host --restored`)

    def strike(self, world: "World") -> None:
        for reign in world.reigns:
            reign.die(dark=True)
        world.database.go_back(self.num_commits)
        world.invariants.forget_unseen()
        world.known_backup = self.announced
        world.after(self.down, world.begin_reign_if_none)


@dataclass(frozen=True)
class Freeze(Fault):
    """SIGSTOP, swap, a suspended laptop: the kernel answers, the process does not."""

    place: int
    seconds: float = 8.0

    def strike(self, world: "World") -> None:
        for process in world.place(self.place):
            if process.up and not process.frozen:
                process.freeze()
                world.after(self.seconds, process.thaw)


@dataclass(frozen=True)
class Stall(Fault):
    """A trainer stands still while its agent beats on."""

    who: int
    seconds: float = 30.0

    def strike(self, world: "World") -> None:
        agent = world.agent(self.who)
        agent.stall(world.timeline.now + self.seconds)
        world.after(self.seconds, world.nothing)


@dataclass(frozen=True)
class Slow(Fault):
    """A trainer is slower by `factor` for a while."""

    who: int
    factor: float = 4.0
    seconds: float = 20.0

    def strike(self, world: "World") -> None:
        agent = world.agent(self.who)
        agent.slow_down(self.factor)
        world.after(self.seconds, agent.slow_down, 1.0)


@dataclass(frozen=True)
class ClockJump(Fault):
    """A machine's clock jumps ahead (suspend, a corrected clock); it never runs back."""

    place: int
    seconds: float = 60.0

    def strike(self, world: "World") -> None:
        for process in world.place(self.place):
            process.clock_offset += self.seconds


@dataclass(frozen=True)
class ClockRate(Fault):
    """A machine's clock runs fast or slow from here on."""

    place: int
    rate: float = 1.05

    def strike(self, world: "World") -> None:
        for process in world.place(self.place):
            process.set_clock_rate(self.rate)


@dataclass(frozen=True)
class FalseBytes(Fault):
    """Bad memory: what an agent serves in bulk may have a flipped byte."""

    who: int
    seconds: float = 10.0

    def strike(self, world: "World") -> None:
        world.agent(self.who).false_until = world.timeline.now + self.seconds


@dataclass(frozen=True)
class Leave(Fault):
    """An island goes and does not come back."""

    who: int

    def strike(self, world: "World") -> None:
        agent = world.agent(self.who)
        if not agent.relay:
            agent.stop("left for good")


def doom(world: "World", process: "Process", effects: int, dark: bool) -> None:
    """Let a process die after so many more of its effects, or after ARMED_SECONDS if these do not come."""
    if not process.up or process.doom is not None:
        return
    incarnation = process.incarnation
    process.doom = effects
    process.dies_dark = dark

    def strike_anyway() -> None:
        if process.incarnation == incarnation:
            process.die(dark)

    world.timeline.after(ARMED_SECONDS, strike_anyway)
