"""What goes wrong with processes and machines. `who` and `other` are numbers of places, modulo their
count."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from atoll.simulate.fault import NOW, Fault, Moment
from atoll.swarm.identity import COORDINATOR

if TYPE_CHECKING:
    from atoll.simulate.world import World

Part = Literal["agent", "trainer", "both", "power"]


@dataclass(frozen=True)
class Crash(Fault):
    """An island's agent, its trainer or both die, or its machine loses power; later it is started again."""

    who: int
    part: Part = "both"
    moment: Moment = NOW
    down_seconds: float = 3.0

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        victim = site.agent_process

        def die() -> None:
            if site.agent_process is not victim:
                return
            world.after(self.down_seconds, site.start)
            if self.part == "power":
                site.lose_power()
            if self.part in ("trainer", "both"):
                site.kill_trainer()
            if self.part in ("agent", "both"):
                site.kill_agent()

        world.arm(self.moment, victim, site.name, die)


@dataclass(frozen=True)
class CoordinatorCrash(Fault):
    """All coordinators die; later the run is hosted again. `dark`: with their machines, so nobody is told."""

    moment: Moment = NOW
    down_seconds: float = 1.0
    dark: bool = False

    def strike(self, world: "World") -> None:
        leader = world.hosts.leader
        victim = leader.process if leader is not None else None

        def die() -> None:
            world.after(self.down_seconds, world.hosts.start_if_none)
            for host in list(world.hosts.living):
                if host.process is not victim:
                    world.kill(host.process, self.dark)
            if victim is not None and victim.alive:
                world.kill(victim, self.dark)

        world.arm(self.moment, victim, COORDINATOR, die)


@dataclass(frozen=True)
class Takeover(Fault):
    """The run is hosted on another machine while the leader lives."""

    standby: bool = True  # it waits until the leader is silent

    def strike(self, world: "World") -> None:
        seats = {host.seat for host in world.hosts.living}
        world.hosts.start(min({0, 1} - seats, default=0), standby=self.standby)


@dataclass(frozen=True)
class Backup(Fault):
    """The database is lost, and a backup is put in its place. `told`: by an operator who says so."""

    commits_back: int = 1
    down_seconds: float = 1.0
    told: bool = True

    def strike(self, world: "World") -> None:
        world.hosts.kill_all(dark=True)
        world.hosts.restore(self.commits_back)
        world.hosts.known_backup = self.told
        world.after(self.down_seconds, world.hosts.start_if_none)


@dataclass(frozen=True)
class GoBack(Fault):
    """The operator rewinds the run by so many commits."""

    commits_back: int = 1

    def strike(self, world: "World") -> None:
        num_commits = len(world.commits())
        if num_commits and not world.hosts.is_restored:
            world.hosts.kill_all(dark=False)
            step = max(0, num_commits - self.commits_back)
            world.after(0.5, world.hosts.start_if_none, step)


@dataclass(frozen=True)
class Freeze(Fault):
    """A process stands still, as under SIGSTOP."""

    who: int
    seconds: float = 8.0

    def strike(self, world: "World") -> None:
        for process in world.processes_at(self.who)[:1]:
            if not process.frozen:
                process.frozen = True
                world.after(self.seconds, world.thaw, process)


@dataclass(frozen=True)
class Stall(Fault):
    """A trainer computes nothing for a while."""

    who: int
    seconds: float = 20.0

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        site.stalled_until = max(site.stalled_until, world.loop.now + self.seconds)
        world.after(self.seconds, world.nothing)


@dataclass(frozen=True)
class Slow(Fault):
    """A trainer needs many times as long for an inner step."""

    who: int
    factor: float = 4.0
    seconds: float = 30.0

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        if site.trainer is not None:
            site.trainer.slowness = self.factor
            world.after(self.seconds, setattr, site.trainer, "slowness", 1.0)


@dataclass(frozen=True)
class ClockRate(Fault):
    """A machine's clock runs fast or slow from now on."""

    who: int
    rate: float = 1.01

    def strike(self, world: "World") -> None:
        world.site(self.who).clock.set_rate(self.rate, world.loop.now)


@dataclass(frozen=True)
class Leave(Fault):
    """An island goes and does not come back; never the last that has the state."""

    who: int

    def strike(self, world: "World") -> None:
        site = world.site(self.who)
        if not site.relay and world.has_others_with_state(site):
            site.stopped = "left for good"
            site.kill_trainer()
            site.kill_agent()
