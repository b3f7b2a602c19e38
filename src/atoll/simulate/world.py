"""The simulated world: builds a swarm, lets time pass, strikes it with faults, and says what became of it."""

import asyncio
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3

from atoll import events
from atoll import recipe as recipes
from atoll.agent import checkpoint, diloco
from atoll.coordinator.effects import Record
from atoll.coordinator.rules import Rules
from atoll.coordinator.store import Deposed
from atoll.events import Event
from atoll.files import Disk
from atoll.simulate.bits import State
from atoll.simulate.fault import ARMED_SECONDS, Fault, Moment
from atoll.simulate.host import FIRST_PORT, NUM_SEATS, Hosts
from atoll.simulate.invariants import Invariants
from atoll.simulate.loop import VirtualLoop
from atoll.simulate.network import Network
from atoll.simulate.process import Clock, Doom, Process
from atoll.simulate.progress import Progress
from atoll.simulate.schedule import Result, Setting
from atoll.simulate.site import Site
from atoll.simulate.trainer import CONTEXT_LENGTH
from atoll.swarm.address import Address
from atoll.swarm.identity import COORDINATOR, RunKeys
from atoll.swarm.layout import BLOCK, Layout, TensorSpec
from atoll.swarm.records import CommitRecord, Message, RunInfo

STUCK_SECONDS = 200.0  # calm for so long without a commit: never
LOST_SECONDS = 150.0  # without a change: a swarm that is not calm by then will not be for long
SETTLE_SECONDS = 110.0  # after the last commit: a restored backup waits 60 s
CATCH_UP_SECONDS = 60.0  # after the last change: time to fetch the last state
LOOK_SECONDS = 0.25
LAYOUT = Layout(
    (TensorSpec("a", (3, BLOCK)), TensorSpec("b", (100,)), TensorSpec("c", (2, BLOCK))), 2 * BLOCK, BLOCK
)


class World:
    """One swarm in virtual time, in a directory of its own."""

    def __init__(self, seed: int, setting: Setting, faults: Sequence[Fault] = (), tell: bool = False) -> None:
        self.seed, self.setting, self.layout = seed, setting, LAYOUT
        self.result = Result(seed=seed)
        self._tell = tell
        self._faults = faults
        self._fingerprint = blake3()
        self._num_processes = 0
        self._last_change = 0.0  # when a fault last began or ended
        self.loop = VirtualLoop(seed)
        self.loop.begin()
        self.directory = Path(tempfile.mkdtemp(prefix="atoll-world-", dir=_memory_dir()))
        self.database_dir = self.directory / "coordinator"
        self.genesis_dir = self.directory / "genesis"
        self.network = Network(self.loop, seed)
        self.keys = run_keys()
        numbers = np.random.default_rng(seed).standard_normal(LAYOUT.num_elements).astype(np.float32)
        genesis = State(0, numbers, np.zeros_like(numbers))
        genesis_root = genesis.root(LAYOUT)
        checkpoint.save(self.genesis_dir, LAYOUT, 0, genesis_root, numbers, None)
        self.recipe = _recipe(setting)
        self.run = RunInfo(
            run_id="simulated-1",
            name="simulated",
            recipe=self.recipe.shared(),
            genesis_root=genesis_root,
            layout=LAYOUT,
            data_digest="",
            record_key=self.keys.record_key,
        )
        self.rules = Rules.of(self.recipe, diloco.self_test(), genesis_root, LAYOUT.num_pieces)
        self.invariants = Invariants(self, genesis)
        self.progress = Progress(self)
        self.network.watches.append(self.invariants.heard)
        self.hosts = Hosts(self)
        self.liars: set[str] = set()  # by the name of their sites
        self.sites: dict[str, Site] = {}
        for number in range(setting.relays):
            self._settle(f"relay{number}", relay=True, dial_only=False, late=False, at=0.0)
        for number in range(setting.islands):
            late, dial_only = number >= setting.islands - setting.late, number < setting.dial_only
            self._settle(
                f"i{number:03}", relay=False, dial_only=dial_only, late=late, at=4.0 + number if late else 0.0
            )
        self.islands = [site for site in self.sites.values() if not site.relay]
        self.relays = [site for site in self.sites.values() if site.relay]
        self.place_names = [*self.sites, COORDINATOR]
        self.coordinator_addresses = tuple(
            Address(self.network.host_of(COORDINATOR), FIRST_PORT + seat) for seat in range(NUM_SEATS)
        )

    def _settle(self, name: str, *, relay: bool, dial_only: bool, late: bool, at: float) -> None:
        site = self.sites[name] = Site(self, name, relay=relay, dial_only=dial_only, has_state=not late)
        self.network.at(at, site.start)

    # -------------------------------------------------------------------------------------------- time passes
    def play(self) -> Result:
        """Let time pass until all steps are committed, something is violated, or nothing moves any more."""
        self.hosts.start(0)
        self.hosts.keeps_backups = any(type(fault).__name__ == "Backup" for fault in self._faults)
        for fault in self._faults:
            self.network.at(fault.at, self._strike, fault)
        try:
            self.loop.end()
            with warnings.catch_warnings():  # coroutines that a dead process made and never began
                warnings.simplefilter("ignore", RuntimeWarning)
                self.loop.run_until_complete(self._live())
            return self._summary()
        finally:
            self.close()

    async def _live(self) -> None:
        done_at = float("inf")
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.invariants.violations or self.has_ended():
                return
            self.progress.look()
            head = len(self.invariants.history)
            if head < self.setting.outer_steps:
                done_at = float("inf")
                if self.progress.gap() > STUCK_SECONDS:
                    self.result.stalls.append(
                        f"step {head}: no commit within {STUCK_SECONDS:.0f} s though nothing was in the way"
                    )
                    return
                if self._is_lost():
                    return
                continue
            done_at = min(done_at, self.loop.now)
            over = all(self.is_over(site) for site in self.sites.values())
            if over or self.loop.now > done_at + SETTLE_SECONDS:
                return

    def has_ended(self) -> bool:
        """Whether a world has been seen enough of; for those that are played for something else."""
        return False

    def is_over(self, site: Site) -> bool:
        """Whether a machine has nothing more to do: an island has ended, a relay holds the last state."""
        agent = site.agent
        return site.stopped is not None or (
            site.relay and agent is not None and agent.machine.version == self.setting.outer_steps
        )

    def _is_lost(self) -> bool:
        """Whether nothing more can be expected: all islands left, or what is needed is gone for good."""
        gone = all(site.stopped is not None for site in self.islands)
        return gone or (self.loop.now > self._last_change + LOST_SECONDS and not self.progress.is_calm)

    def _summary(self) -> Result:
        result = self.result
        result.commits, result.violations = len(self.invariants.history), self.invariants.violations
        had_time = self.loop.now > self._last_change + CATCH_UP_SECONDS
        if result.commits == self.setting.outer_steps and had_time and not result.wrong:
            result.stalls += self.progress.left_behind()
        result.virtual_seconds, result.num_steps = self.loop.now, self.loop.num_steps
        result.worst_gap_seconds = self.progress.worst_gap
        self._fingerprint.update(f"{self.loop.now!r} {self.loop.num_steps}".encode())
        result.fingerprint = self._fingerprint.hexdigest()[:16]
        return result

    def close(self) -> None:
        """End all that lives, without a trace."""
        processes = [p for site in self.sites.values() for p in site.lives]
        processes += [host.process for host in self.hosts.all]
        for process in processes:
            process.alive = False
        for host in self.hosts.all:
            host.close()
        for process in processes:
            process.abandon()
        self.loop.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------------------------------------- who is where
    def site(self, who: int) -> Site:
        return list(self.sites.values())[who % len(self.sites)]

    def place_name(self, place: int) -> str:
        return self.place_names[place % len(self.place_names)]

    def processes_at(self, place: int) -> list[Process]:
        """Those that live at a place; of a host, its leader's first."""
        name = self.place_name(place)
        if name == COORDINATOR:
            leader = self.hosts.leader
            return [leader.process] if leader is not None else []
        return self.sites[name].processes

    def new_process(self, name: str, disk: Disk | None, clock: Clock) -> Process:
        self._num_processes += 1
        chance = random.Random(f"secrets {self.seed} {name} {self._num_processes}")
        return Process(
            name,
            disk=disk or Disk(),
            random_bytes=chance.randbytes,
            clock=clock,
            died=self._process_died,
            defect=self._defect,
        )

    def has_others_with_state(self, site: Site) -> bool:
        """Whether the state of the history, or of its last step, is left when a site is gone for good."""
        others = [other for other in self.sites.values() if other is not site and other.stopped is None]
        return any(self.invariants.can_reach_head(other) and not other.dial_only for other in others)

    def commits(self) -> list[CommitRecord]:
        """The records in the database, or those of the history while nobody leads."""
        host = next((host for host in self.hosts.living if host.store is not None), None)
        if host is None or host.store is None:
            return self.hosts.read_commits()
        return host.store.commits()

    # ------------------------------------------------------------------------------------------- what happens
    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """The end of a fault."""

        def end() -> None:
            self._last_change = self.loop.now
            action(*arguments)
            self.progress.disturbed()

        self.network.after(seconds, end)

    def nothing(self) -> None:
        """The end of a fault that ends by itself."""

    def arm(self, moment: Moment, victim: Process | None, place: str, act: Callable[[], None]) -> None:
        """Let `act` do its harm to a process at a moment, once."""
        if victim is None or not victim.alive or moment.kind == "now":
            act()
            return
        is_over = False

        def once() -> None:
            nonlocal is_over
            if not is_over and victim.alive:
                is_over = True
                act()

        if moment.kind in ("steps", "lines", "syncs"):
            victim.doom = Doom(moment.kind, moment.count, once)
        else:
            self._aim(moment, victim, place, once)
        self.network.after(ARMED_SECONDS, once)

    def _aim(self, moment: Moment, victim: Process, place: str, act: Callable[[], None]) -> None:
        """Strike as the message of that kind leaves the victim, or another for it."""
        left = moment.count

        def watch(sender: Process, receiver: str, message: Message) -> None:
            nonlocal left
            if type(message).__name__ != moment.kind or not (sender is victim or receiver == place):
                return
            left -= 1
            if left < 0:
                self.network.watches.remove(watch)
                act()

        self.network.watches.append(watch)

    def kill(self, process: Process, dark: bool) -> None:
        """A process dies as by `kill -9`, or with its machine; in the middle of its own step this raises."""
        site = self._site_of(process)
        process.dies_dark = dark
        process.die((lambda: lambda: None) if site is None else site.disk.note)

    def thaw(self, process: Process) -> None:
        if process.alive:
            self.loop.thaw(process)

    def _site_of(self, process: Process) -> Site | None:
        return next((s for s in self.sites.values() if process in (s.agent_process, s.trainer_process)), None)

    def _process_died(self, process: Process) -> None:
        self.story(process.name, "dies" if process.dies_dark else "ends")
        self.network.died(process, process.dies_dark)
        if (site := self._site_of(process)) is not None:
            site.process_died(process)
        self.hosts.process_died(process)

    def _defect(self, process: Process, error: BaseException) -> None:
        if not isinstance(error, Deposed):
            import traceback

            traceback.print_exception(error)
            self.invariants.violated(f"{process.name} crashed: {type(error).__name__}: {error}")

    def stopped(self, site: Site, reason: str) -> None:
        """An island may not go on, and says why."""
        if "no space left" not in reason and reason != "the trainer is gone":
            self.invariants.violated(f"{site.name} was stopped: {reason}")

    def _strike(self, fault: Fault) -> None:
        self.result.faults[type(fault).__name__] += 1
        self._last_change = self.loop.now
        self.story("fault", str(fault))
        fault.strike(self)
        self.progress.disturbed()

    def persisted(self, host: Any, records: list[Record]) -> None:
        """A coordinator has made records durable."""
        for record in records:
            self._fingerprint.update(f"{self.loop.now!r} {type(record).__name__}".encode())
        self.hosts.committed(records)
        self.invariants.persisted(host, records)

    def committed(self, record: CommitRecord) -> None:
        self.result.participations += len(record.participants)
        self._fingerprint.update(record.next_root)
        self.progress.disturbed()

    def reported(self, who: str, event: Event) -> None:
        self.result.reports[event.kind] += 1
        if isinstance(event, events.Excluded):
            self.result.excluded[event.island] += 1
        self.story(who, f"{event.kind}: {event.text}")

    def story(self, who: str, text: str) -> None:
        if self._tell:
            text = text.replace(f"{self.directory}/", "")  # which is another one each time
            self.result.story.append(f"{self.loop.now:9.3f}  {who:<10} {text}")


def _recipe(setting: Setting) -> recipes.Recipe:
    num_inner_steps = setting.inner_steps * setting.outer_steps
    ends = [num_inner_steps * (number + 1) // setting.stages for number in range(setting.stages)]
    recipe = recipes.parse(
        {
            "name": "simulated",
            "model": {"own": True},
            "stage": [{"until": end} for end in ends],
            "inner": {"context_length": CONTEXT_LENGTH, "tokens_per_step": 2 * CONTEXT_LENGTH},
            "outer": {"inner_steps": setting.inner_steps, "checkpoint_every": setting.checkpoint_every},
        },
        "the simulator's recipe",
    )
    return msgspec.structs.replace(recipe, outer=msgspec.structs.replace(recipe.outer, codec=setting.codec))


@cache
def run_keys() -> RunKeys:
    """The keys of all simulated runs of this process. Nothing that happens depends on their bits."""
    with tempfile.TemporaryDirectory() as directory:
        return RunKeys(Path(directory), "simulated")


def _memory_dir() -> str | None:
    """Where files are kept in memory, if this machine has such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
