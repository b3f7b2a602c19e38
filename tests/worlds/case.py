"""One case of the fault matrix: a fault in one phase of an outer step, and what must hold after it."""

from collections.abc import Callable
from dataclasses import dataclass

from atoll.simulate import Fault, Setting, World
from atoll.simulate.process import Process
from atoll.simulate.site import TRAINER
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.records import Assembled, CommitRecord, Message, Plan

# The message of each phase, between agents or with the coordinator. The fault strikes as it leaves.
PHASES: dict[str, type[Message]] = {
    "plan": Plan,
    "inner": m.Progress,
    "propose": m.Propose,
    "reduce": m.Piece,
    "assembled": Assembled,
    "held": m.Held,
    "committed": m.Committed,
    "adopt": m.Adopt,
}
TO_TRAINERS = {"plan": m.Work, "propose": m.Proposed}  # the same phases between an agent and its trainer
RECOVERIES: dict[str, type[Message]] = {"state": m.FetchChunk, "updates": m.FetchPieces}
# A cut edge is silent: nothing arrives, and nobody is told. A broken edge ends its streams at once. Over
# neither can a new stream be opened.
FAULTS = ("kill", "freeze", "cut", "break")
P, A, B, R = "i000", "i001", "i002", "relay0"  # P only dials out
VICTIMS = {
    "participant": {P},
    "owner": {A},
    "trainer": {A + TRAINER},
    "holder": {R},
    "relay": {R},
    "coordinator": {COORDINATOR},
    "swarm": {R, A, B, P},
    "everything": {COORDINATOR, R, A, B, P},
    "edge": {A},
}
NEEDED = {"relay", "coordinator", "swarm", "everything"}  # no step can be committed before these are back
DOWN_SECONDS = {"kill": 1.0, "freeze": 14.0, "cut": 14.0, "break": 4.0}
STEPS_BEFORE, BEHIND = 3, 10  # a joiner that is BEHIND steps late takes a whole state, not updates
AWAY_STEPS = 3  # for which a laggard is away: it takes updates
RESUME_SECONDS = 12.0  # until the next commit without the victim: an owner waits 10 s for a piece
BOUND_SECONDS = 30.0  # for anything else that must happen


@dataclass(frozen=True)
class Case:
    """Who is hit, when, and by what."""

    role: str
    phase: str
    fault: str
    nth: int = 1  # the fault strikes at the nth message of the phase

    def __str__(self) -> str:
        return f"{self.role}-{self.phase}-{self.fault}" + (f"-{self.nth}" if self.nth > 1 else "")

    def play(self) -> float:
        """Strike, see the others go on, lift the fault, and see all take part again.

        Returns the virtual seconds from the fault to the next commit. What may never happen is looked at all
        the while by the world itself.
        """
        # A relay needs a while to hold what it did not take part in: another island gives the head as well.
        num_dial_only = 0 if self.phase in RECOVERIES else 1
        setting = Setting(
            islands=4 if self.phase == "state" else 3,
            relays=1,
            dial_only=3 if self.role == "relay" else num_dial_only,
            late=1 if self.phase == "state" else 0,
            inner_steps=4,
            outer_steps=1000,
            step_seconds=0.25,
        )
        world = _Struck(self, setting)
        result = world.play()
        assert result.wrong == [], result.wrong
        assert world.goal == "", f"not in time: {world.goal}"
        return world.resumed_at - world.struck_at


class _Struck(World):
    """A world that plays one case, goal after goal."""

    def __init__(self, case: Case, setting: Setting) -> None:
        super().__init__(1, setting, [_Beginning(0.0, case)])
        self.case = case
        self.goal = "the moment of the case"  # what is awaited; "" once all has been seen
        self.struck_at = self.resumed_at = 0.0
        self.num_struck = 0  # commits when it struck
        self._deadline = 4 * BOUND_SECONDS
        self._lifted: Callable[[], None] = lambda: None
        self._taken_part: set[str] = set()

    def committed(self, record: CommitRecord) -> None:
        super().committed(record)
        self._taken_part |= record.islands
        if self.goal == "a commit" and not self.resumed_at:
            self.resumed_at = self.loop.now

    def strike_now(self, victims: set[str]) -> None:
        """The fault strikes; this may be in the middle of a step of a victim's."""
        needed = self.case.role in NEEDED
        self.struck_at, self.num_struck = self.loop.now, len(self.invariants.history)
        self.story("fault", str(self.case))
        self._await("a commit", DOWN_SECONDS[self.case.fault] + BOUND_SECONDS if needed else RESUME_SECONDS)
        if needed:
            self.network.after(DOWN_SECONDS[self.case.fault], self._lift)
        self._hit(victims)

    def has_ended(self) -> bool:
        """Go from goal to goal."""
        head = len(self.invariants.history)
        if self.goal == "a commit" and head > self.num_struck:
            self._await("another commit")
        elif self.goal == "another commit" and head > self.num_struck + 1:
            if self.case.role not in NEEDED | {"edge"}:
                self._lift()
            self._taken_part.clear()
            self._await("all take part again")
        elif self.goal == "all take part again" and self._taken_part >= {site.name for site in self.islands}:
            self._await("all are ready")
        elif self.goal == "all are ready" and self._are_all_ready():
            self.goal = ""
        return self.goal == "" or self.loop.now > self._deadline

    def _await(self, goal: str, seconds: float = BOUND_SECONDS) -> None:
        self.goal, self._deadline = goal, self.loop.now + seconds

    def _are_all_ready(self) -> bool:
        leader = self.hosts.leader
        if leader is None or leader.server is None:
            return False
        protocol = leader.server.protocol
        return {member.island for member in protocol.members.ready(protocol.head)} == set(self.sites)

    # --------------------------------------------------------------------------------------------- the fault
    def _processes(self, victim: str) -> list[Process]:
        if victim == COORDINATOR:
            return [host.process for host in self.hosts.living]
        site = self.sites[victim.removesuffix(TRAINER)]
        if victim.endswith(TRAINER):
            return [site.trainer_process] if site.trainer_process is not None else []
        return [p for p in (site.trainer_process, site.agent_process) if p is not None and p.alive]

    def _edges(self, victims: set[str]) -> list[tuple[str, str]]:
        if self.case.role == "edge":
            return [(A, P), (P, A)]
        pairs = [(v, other) for v in sorted(victims) for other in self.place_names if other != v]
        return [edge for a, b in pairs for edge in ((a, b), (b, a))]

    def _hit(self, victims: set[str]) -> None:
        match self.case.fault:
            case "kill":
                struck = [p for victim in sorted(victims) for p in self._processes(victim)]
                self._lifted = lambda: self._start(victims)
                for process in sorted(
                    struck, key=lambda p: p.is_running
                ):  # the one that this is said in: last
                    self.kill(process, False)
            case "freeze":
                struck = [self._processes(victim)[-1] for victim in sorted(victims)]
                for process in struck:
                    process.frozen = True
                self._lifted = lambda: [self.thaw(process) for process in struck] and None
            case _:
                edges = self._edges(victims)
                self.network.cut(edges)
                self._lifted = lambda: self.network.mend(edges)
                if self.case.fault == "break":
                    for a, b in edges:
                        self.network.reset(a, b, True)

    def _lift(self) -> None:
        self._lifted()

    def _start(self, victims: set[str]) -> None:
        """What was killed is started again by the same command."""
        for victim in sorted(victims):
            if victim == COORDINATOR:
                self.hosts.start_if_none()
            else:
                self.sites[victim.removesuffix(TRAINER)].start()


@dataclass(frozen=True)
class _Beginning(Fault):
    """Begins to watch for the moment of a case, once the swarm has come that far."""

    case: Case

    def strike(self, world: World) -> None:
        assert isinstance(world, _Struck)
        if self.case.phase == "state":
            joiner = world.sites["i003"]
            joiner.stopped = "not yet"  # until the others are far
            joiner.has_state = False
        self._when(world, STEPS_BEFORE, lambda: self._prepare(world))

    def _when(self, world: World, head: int, action: Callable[[], None]) -> None:
        """Do something as soon as so many steps are committed."""
        if len(world.invariants.history) >= head:
            action()
        else:
            world.network.after(0.02, self._when, world, head, action)

    def _prepare(self, world: "_Struck") -> None:
        """Have a joiner that needs a whole state, or a laggard that needs updates, where they are hit."""
        if self.case.phase == "state":
            self._when(world, BEHIND, lambda: self._begin(world, "i003"))
        elif self.case.phase == "updates":
            world.sites[B].kill_trainer()
            world.sites[B].kill_agent()
            head = len(world.invariants.history) + AWAY_STEPS
            self._when(world, head, lambda: self._begin(world, B))
        else:
            self._watch(world)

    def _begin(self, world: "_Struck", name: str) -> None:
        self._watch(world)
        world.sites[name].stopped = None
        world.sites[name].start()

    def _watch(self, world: "_Struck") -> None:
        num_seen = 0

        def watch(sender: Process, receiver: str, message: Message) -> None:
            nonlocal num_seen
            if victims := self._victims(sender.name, receiver, message):
                num_seen += 1
                if num_seen == self.case.nth:
                    world.network.watches.remove(watch)
                    world.strike_now(victims)

        world.network.watches.append(watch)

    def _victims(self, sender: str, receiver: str, message: Message) -> set[str]:
        """The victims, if this message is one of the phase; else nobody."""
        role, phase = self.case.role, self.case.phase
        if kind := RECOVERIES.get(phase):
            who = {"joiner": sender, "donor": receiver, "coordinator": COORDINATOR}[role]
            return {who} if isinstance(message, kind) else set()
        victims, kind = VICTIMS[role], PHASES[phase]
        if role == "trainer":
            kind = TO_TRAINERS.get(phase, kind)
        ends = {sender, receiver} | {sender + TRAINER, receiver + TRAINER}
        if role == "edge":
            fits = kind is not m.Piece or ends >= {A, P}
        else:  # a coordinator sees no pieces, a relay no plans: for these roles any agent's message will do
            fits = bool(victims & ends) or role in NEEDED | {"holder"}
        return victims if isinstance(message, kind) and fits else set()
