"""One case of the fault matrix: a fault in one phase of an outer step, and what must hold after it."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from worlds.swarm import Swarm
from worlds.trainer import TRAINER

from atoll.samples import merge
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
VICTIMS = {
    "participant": {"p"},
    "owner": {"a"},
    "trainer": {"a" + TRAINER},
    "holder": {"r"},
    "relay": {"r"},
    "coordinator": {COORDINATOR},
    "swarm": {"r", "a", "b", "p"},
    "everything": {COORDINATOR, "r", "a", "b", "p"},
    "edge": {"a"},
}
NEEDED = {"relay", "coordinator", "swarm", "everything"}  # no step can be committed before these are back
DOWN_SECONDS = {"kill": 1.0, "freeze": 14.0, "cut": 14.0, "break": 4.0}
STEPS_BEFORE, BEHIND = 3, 10  # a joiner that is BEHIND steps late takes a whole state, not updates
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

    async def play(self, directory: Path) -> float:
        """Strike, see the others go on, lift the fault, see all take part again, and check the whole history.

        Returns the virtual seconds from the fault to the next commit.
        """
        swarm = Swarm(directory, num_outer_steps=1000)
        await swarm.start_coordinator()
        try:
            return await self._play(swarm)
        finally:
            await swarm.stop()

    async def _play(self, swarm: Swarm) -> float:
        everybody = self._start(swarm)
        await swarm.until_step(STEPS_BEFORE, BOUND_SECONDS)
        if self.phase in RECOVERIES:
            everybody |= await self._fall_behind(swarm)
        victims, history = await self._strike(swarm)
        clock = asyncio.get_running_loop().time
        struck = clock()
        if self.role in NEEDED:
            await asyncio.sleep(DOWN_SECONDS[self.fault])
            await self._lift(swarm, victims)
        await swarm.until_step(len(history) + 1, BOUND_SECONDS if self.role in NEEDED else RESUME_SECONDS)
        seconds = clock() - struck
        if self.role not in NEEDED:
            await swarm.until_step(len(history) + 2, BOUND_SECONDS)
            if self.role != "edge":
                await self._lift(swarm, victims)
        back = swarm.head
        await swarm.until(
            lambda: everybody - {"r"} <= taking_part(swarm, back), "all take part again", BOUND_SECONDS
        )
        await swarm.until(lambda: everybody == swarm.ready(), "all are ready", BOUND_SECONDS)
        check(swarm)
        assert swarm.store.commits()[: len(history)] == history, "a committed step changed"
        return seconds

    def _start(self, swarm: Swarm) -> set[str]:
        """Start a relay and three islands; if the relay is the victim, it is the only one that can own."""
        swarm.start("r", relay=True)
        for name in ("a", "b", "p"):
            swarm.start(name, step_seconds=0.25, dial_only=name == "p" or self.role == "relay")
        return {"r", "a", "b", "p"}

    async def _fall_behind(self, swarm: Swarm) -> set[str]:
        """Start a joiner that needs a whole state, or a laggard that needs a few updates."""
        if self.phase == "state":
            await swarm.until_step(BEHIND, BOUND_SECONDS)
            asyncio.get_running_loop().call_soon(lambda: swarm.start("j", step_seconds=0.25))
            return {"j"}
        await swarm.kill("b")
        await swarm.until_step(swarm.head + 3, BOUND_SECONDS)
        asyncio.get_running_loop().call_soon(lambda: swarm.start_again("b"))
        return {"b"}

    async def _strike(self, swarm: Swarm) -> tuple[set[str], list[CommitRecord]]:
        """Wait for the phase's message and strike; return the victims, and what was committed until then."""
        struck: list[tuple[set[str], list[CommitRecord]]] = []
        num_seen = 0

        def watch(sender: str, receiver: str, message: Message) -> None:
            nonlocal num_seen
            if not struck and (victims := self._victims(sender, receiver, message)):
                num_seen += 1
                if num_seen == self.nth:
                    struck.append((victims, swarm.store.commits()))
                    for victim in sorted(victims):
                        self._strike_one(swarm, victim)

        swarm.network.watches.append(watch)
        await swarm.until(lambda: struck, f"the moment of {self}", BOUND_SECONDS)
        swarm.network.watches.remove(watch)
        return struck[0]

    def _victims(self, sender: str, receiver: str, message: Message) -> set[str]:
        """The victims, if this message is one of the phase; else nobody."""
        if kind := RECOVERIES.get(self.phase):
            who = {"joiner": sender, "donor": receiver, "coordinator": COORDINATOR}[self.role]
            return {who} if isinstance(message, kind) else set()
        victims, kind = VICTIMS[self.role], PHASES[self.phase]
        if self.role == "trainer":
            kind = TO_TRAINERS.get(self.phase, kind)
        ends = {sender, receiver} | {sender + TRAINER, receiver + TRAINER}
        if self.role == "edge":
            fits = kind is not m.Piece or ends >= {"a", "p"}
        else:  # a coordinator sees no pieces, a relay no plans: for these roles any agent's message will do
            fits = bool(victims & ends) or self.role in NEEDED | {"holder"}
        return victims if isinstance(message, kind) and fits else set()

    def _strike_one(self, swarm: Swarm, victim: str) -> None:
        if self.fault in ("cut", "break"):
            end_edge = swarm.network.silence if self.fault == "cut" else swarm.network.cut_edge
            for other in {"p"} if self.role == "edge" else self._others(swarm, victim):
                end_edge(victim, other)
        elif self.fault == "freeze":
            swarm.freeze(victim)
        elif victim == COORDINATOR:
            swarm.end_coordinator()
        elif victim.endswith(TRAINER):
            swarm.trainers[victim.removesuffix(TRAINER)].die()
        else:
            swarm.end(victim)

    async def _lift(self, swarm: Swarm, victims: set[str]) -> None:
        """End the fault; what was killed is started again by the same command."""
        for victim in sorted(victims):
            if self.fault in ("cut", "break"):
                for other in self._others(swarm, victim):
                    swarm.network.mend_edge(victim, other)
            elif self.fault == "freeze":
                swarm.thaw(victim)
            elif victim == COORDINATOR:
                await swarm.start_coordinator()
            else:
                name = victim.removesuffix(TRAINER)
                await swarm.kill(name)
                swarm.start_again(name)

    def _others(self, swarm: Swarm, victim: str) -> set[str]:
        return ({COORDINATOR} | set(swarm.agents)) - {victim}


def taking_part(swarm: Swarm, since: int) -> set[str]:
    """The participants of all commits from step `since` on."""
    return {share.island for record in swarm.store.commits(since) for share in record.participants}


def check(swarm: Swarm) -> None:
    """Check that there is one history, that all agents hold it to the bit, and that no sample is lost."""
    records, protocol = swarm.store.commits(), swarm.coordinator.protocol
    leases = protocol.plans.leases
    roots = [swarm.genesis_root, *(record.next_root for record in records)]
    for step, record in enumerate(records):
        assert (record.step, record.parent) == (step, roots[step])
        assert abs(sum(share.weight for share in record.participants) - 1) < 1e-6
    assert all(right.previous == left.digest() for left, right in pairwise(records))
    for name, agent in swarm.agents.items():
        assert agent.work.log.records == records[: agent.work.log.head], f"{name} has another history"
    for name, ready in swarm.claims:
        assert ready.root == roots[ready.step], f"{name} held other bits at {ready.step}"
        assert ready.loaded in (b"", roots[ready.step]), f"{name}'s trainer loaded other bits at {ready.step}"
    swarm.assert_equal_roots()
    assert not [e.text for e in swarm.events() if e.kind in ("unequal", "refused")]
    tokens = Counter[str]()
    for record in records:
        spent_by = dict(record.leases)
        for share in record.participants:
            tokens[share.island] += share.tokens
            assert share.tokens == 8 * sum(count for _, count in spent_by[share.island])
            assert share.weight > 0
    assert protocol.history.tokens == tokens
    spent = [span for record in records for _, lease in record.leases for span in lease]
    leased = [span for plan in protocol.plans.values() for span in plan.lease]
    places = merge([*spent, *leased, *leases._free])
    assert places == ((0, leases.first_fresh()),), "a sample is in no place, or in two"
