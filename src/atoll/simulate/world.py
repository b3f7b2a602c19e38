"""The simulated world: builds a swarm, lets time pass, strikes it with faults, and says what became of it."""

from collections.abc import Callable, Sequence

from blake3 import blake3

from atoll.coordinator.rules import Rules
from atoll.events import Event
from atoll.simulate import bits
from atoll.simulate.database import Database, Record
from atoll.simulate.disk import Disk
from atoll.simulate.faults import Fault
from atoll.simulate.invariants import Invariants
from atoll.simulate.island import Island
from atoll.simulate.network import COORDINATOR, Network
from atoll.simulate.process import Process
from atoll.simulate.progress import Progress
from atoll.simulate.reign import Reign
from atoll.simulate.schedule import Result, Setting
from atoll.simulate.timeline import Timeline
from atoll.simulate.trainer import CONTEXT_LENGTH
from atoll.swarm.layout import root
from atoll.swarm.records import CommitRecord, Plan, encode

STUCK_SECONDS = 1_500.0  # calm for so long without a commit: never
LOST_SECONDS = 200.0  # after the last fault: a swarm that is not calm by then will not be
SETTLE_SECONDS = 20.0  # after the last commit: time to store it


class World:
    """One swarm in virtual time."""

    def __init__(self, seed: int, setting: Setting, faults: Sequence[Fault], tell: bool = False) -> None:
        self.seed, self.setting = seed, setting
        self.timeline = Timeline()
        self.network = Network(self.timeline, seed)
        self.database = Database()
        parameters, momentum = bits.genesis(seed)
        self.genesis_root = root(bits.table_of(parameters, momentum))
        num_inner_steps = setting.inner_steps * setting.outer_steps
        stage_ends = tuple(
            num_inner_steps * (number + 1) // setting.stages for number in range(setting.stages)
        )
        self.rules = Rules(
            recipe_digest="recipe",
            self_test=b"self-test",
            genesis_root=self.genesis_root,
            num_outer_steps=setting.outer_steps,
            inner_steps=setting.inner_steps,
            windows_per_step=2,
            context_length=CONTEXT_LENGTH,
            stage_ends=stage_ends,
            codec=bits.CODEC.name,
            lr=0.7,
            momentum=0.9,
            min_participants=1,
            num_pieces=bits.LAYOUT.num_pieces,
        )
        self.invariants = Invariants(self, parameters, momentum)
        self.progress = Progress(self)
        self.result = Result(seed=seed)
        self.reigns: list[Reign] = []
        self._lagging_until = 0.0
        self._most_commits = 0  # that the database ever had
        self.known_backup = False  # it was restored, and its operator will say so to the next coordinator
        self._last_fault = 0.0
        self._tell = tell
        self._fingerprint = blake3()
        self.agents: dict[str, Island] = {}
        for number in range(setting.relays):
            self._settle_in(f"relay{number}", with_state=True, relay=True)
        for number in range(setting.islands):
            late, dial_only = number >= setting.islands - setting.late, number < setting.dial_only
            self._settle_in(
                f"i{number:03}",
                with_state=not late,
                dial_only=dial_only,
                at=8.0 + 3 * number if late else 0.0,
            )
        self.islands = [agent for agent in self.agents.values() if not agent.relay]
        self.relays = [agent for agent in self.agents.values() if agent.relay]
        self.place_names = [*self.agents, COORDINATOR]
        self.begin_reign()
        for fault in faults:
            self.timeline.at(fault.at, self._strike, fault)

    def run(self) -> Result:
        """Let time pass until all steps are committed, something is violated, or nothing moves any more."""
        while self.timeline.advance():
            if self.invariants.violations or len(self.database.commits) >= self.setting.outer_steps:
                break
            if self._is_lost():
                break
            if self.progress.gap() > STUCK_SECONDS:
                head = len(self.database.commits)
                self.result.stalls.append(
                    f"step {head}: no commit within {STUCK_SECONDS:.0f} s although nothing stood in the way"
                )
                break
        end = self.timeline.now + SETTLE_SECONDS
        while (
            not self.invariants.violations
            and not self.result.stalls
            and self.timeline.now < end
            and self.timeline.advance()
        ):
            pass
        result = self.result
        result.commits, result.violations = len(self.database.commits), self.invariants.violations
        result.laggards = [
            a.name for a in self.agents.values() if a.up and not a.frozen and a.disk.reached < result.commits
        ]
        result.virtual_seconds, result.events = self.timeline.now, self.timeline.num_events
        result.worst_gap_seconds = self.progress.worst_gap
        result.fingerprint = self._fingerprint.hexdigest()[:16]
        return result

    def _is_lost(self) -> bool:
        """Whether nothing more can be expected: all islands left, or what is needed is gone for good."""
        gone = all(island.stopped is not None for island in self.islands)
        return gone or (self.timeline.now > self._last_fault + LOST_SECONDS and not self.progress.is_calm)

    # ------------------------------------------------------------------------------------------------- agents
    def _settle_in(
        self, name: str, with_state: bool, relay: bool = False, dial_only: bool = False, at: float = 0.0
    ) -> None:
        parameters, momentum = bits.genesis(self.seed)
        disk = Disk(parameters=parameters, momentum=momentum, genesis_root=self.genesis_root)
        if with_state:
            disk.checkpoints[0] = (parameters.copy(), momentum.copy())
            disk.tables[0] = bits.table_of(parameters, momentum)
            disk.reached = 0
        else:
            parameters[:] = 0
        island = Island(self, name, disk, relay, dial_only)
        island.step_seconds = self.setting.step_seconds * island.random.uniform(0.7, 1.4)
        self.agents[name] = island
        self.timeline.at(at, self.revive, island)

    def agent(self, who: int) -> Island:
        return list(self.agents.values())[who % len(self.agents)]

    def place_name(self, place: int) -> str:
        return self.place_names[place % len(self.place_names)]

    def place(self, place: int) -> Sequence[Process]:
        name = self.place_name(place)
        return self.reigns if name == COORDINATOR else [self.agents[name]]

    def revive(self, agent: Island) -> None:
        if not agent.up and agent.stopped is None:
            agent.begun = True
            agent.start()
            self.progress.disturbed()
            self.story(agent.name, f"starts, head {agent.disk.head}")

    # ------------------------------------------------------------------------------------------- coordinators
    def begin_reign(self, restored: bool = False) -> None:
        reign = Reign(self)
        self.reigns.append(reign)
        restored, self.known_backup = restored or self.known_backup, False
        reign.begin(restored)

    def begin_reign_if_none(self) -> None:
        if not any(reign.up for reign in self.reigns):
            self.begin_reign()

    def take_over(self, lag: float) -> None:
        """By a standby: it has watched the database, and knows where that went back."""
        self._lagging_until = self.timeline.now + lag
        self.begin_reign(restored=len(self.database.commits) < self._most_commits)

    @property
    def leader(self) -> Reign | None:
        """The living coordinator that holds the database's term."""
        return next(
            (r for r in reversed(self.reigns) if r.up and r.protocol.term == self.database.term), None
        )

    def route(self, island: str) -> Reign:
        """The coordinator that a new line reaches: the newest, or just after a takeover perhaps the last."""
        up = [reign for reign in self.reigns if reign.up]
        if (
            len(up) > 1
            and self.timeline.now < self._lagging_until
            and self.agents[island].random.random() < 0.5
        ):
            return up[-2]
        return up[-1] if up else self.reigns[-1]

    # ------------------------------------------------------------------------------------------- what happens
    def after(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """The end of a fault."""

        def end() -> None:
            action(*arguments)
            self.progress.disturbed()

        self.timeline.after(seconds, end)

    def nothing(self) -> None:
        """The end of a fault that ends by itself."""

    def _strike(self, fault: Fault) -> None:
        self.result.faults[type(fault).__name__] += 1
        self._last_fault = self.timeline.now
        self.story("fault", str(fault))
        fault.strike(self)
        self.progress.disturbed()

    def process_died(self, process: Process) -> None:
        self.story(process.name, "dies")
        self.progress.disturbed()

    def persisted(self, reign: Reign, record: Record, plans: dict[tuple[int, str], Plan]) -> None:
        self._fingerprint.update(
            f"{self.timeline.now!r} {self.timeline.num_events}".encode() + encode(record)
        )
        self.invariants.persisted(reign, record, plans)
        if isinstance(record, CommitRecord):
            self._most_commits = max(self._most_commits, len(self.database.commits))
            self.progress.committed()
            self.result.participations += len(record.participants)

    def reported(self, reign: Reign, event: Event) -> None:
        self.result.reports[event.kind] += 1
        self.story(f"term {reign.protocol.term.counter}", f"{event.kind}: {event.text}")

    def story(self, who: str, text: str) -> None:
        if self._tell:
            self.result.story.append(f"{self.timeline.now:9.3f}  {who:<10} {text}")
