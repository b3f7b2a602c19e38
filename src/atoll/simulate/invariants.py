"""What must never happen, checked at every durable record and every promise; docs/simulator.md lists it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from atoll.agent.arrays import Bytes, Floats
from atoll.samples import merge
from atoll.simulate.bits import CODEC, LAYOUT, expected, slice_roots, table_of, weights
from atoll.simulate.disk import sign
from atoll.swarm import messages as m
from atoll.swarm.layout import root
from atoll.swarm.records import Attempt, CommitRecord, Plan, UpdateHeader

if TYPE_CHECKING:
    from atoll.simulate.island import Island
    from atoll.simulate.reign import Reign
    from atoll.simulate.world import World


class Invariants:
    """An observer that knows the one true history, and the bits that each state must have."""

    def __init__(self, world: "World", parameters: Floats, momentum: Floats) -> None:
        self.violations: list[str] = []
        self.payloads: dict[bytes, Bytes] = {}  # every payload that any island ever encoded
        self.trained_on: dict[bytes, Any] = {}  # and the samples that it was made from
        self.history: list[CommitRecord] = []
        self._world = world
        self._states = [(parameters, momentum)]  # by step
        self._roots = [root(table_of(parameters, momentum))]
        self._ready_at: dict[str, int] = {}
        self._spent: tuple[tuple[int, int], ...] = ()
        self._headers: dict[tuple[int, int], Attempt] = {}

    def violated(self, text: str) -> None:
        self.violations.append(f"{self._world.timeline.now:.3f} s: {text}")
        self._world.story("violation", text)

    def _must(self, holds: object, text: str) -> None:
        if not holds:
            self.violated(text)

    # ------------------------------------------------------------------------------------------- coordinators
    def persisted(self, reign: "Reign", record: Any, plans: dict[tuple[int, str], Plan]) -> None:
        """A record became durable. `plans` are those that were durable before."""
        match record:
            case Plan():
                self._must(
                    record.parent == self._roots[record.step],
                    f"a plan of step {record.step} from another state",
                )
            case Attempt():
                self._headers[record.step, record.number] = record
                agents = {share.island for share in record.participants} | {
                    s.owner for s in record.slices if s.num_pieces
                }
                behind = sorted(i for i in agents if self._ready_at.get(i) != record.step)
                self._must(
                    not behind,
                    f"attempt {record.number} of step {record.step} counts on {behind}, not at the head",
                )
            case CommitRecord():
                self._committed(reign, record, plans)
            case _:
                pass

    def _committed(self, reign: "Reign", record: CommitRecord, plans: dict[tuple[int, str], Plan]) -> None:
        step = len(self.history)
        if record.step != step:  # a restored backup may be told again what was; but nothing else
            known = record.step < step and self.history[record.step] == record
            self._must(known, f"step {record.step} is committed again, as something else")
            return
        previous = self.history[-1].digest() if self.history else b""
        self._must(record.previous == previous and record.parent == self._roots[-1], "the chain is broken")
        self._must(record.signature == sign(record.unsigned()), "a commit without the run's signature")
        names = [share.island for share in record.participants]
        self._must(names == sorted(set(names)) and names, "participants are not a sorted set")
        self._must(
            [s.weight for s in record.participants] == weights(record.participants),
            "weights are not of the reduced set",
        )
        for island, lease in record.leases:
            plan = plans.get((step, island))
            of_plan = plan and any(
                plan.used_lease(inner_steps + 1) == lease for inner_steps in range(plan.inner_steps)
            )
            self._must(of_plan, f"{island}'s lease is not of the first samples of its plan")
        for share, (_, lease) in zip(record.participants, record.leases, strict=True):
            used = self.trained_on[share.payload]
            self._must(used == lease, f"{share.island} trained on the samples {used}, but {lease} are spent")
        self._must([i for i, _ in record.leases] == names, "leases are not the participants'")
        try:
            self._spent = merge([*self._spent, *(span for _, lease in record.leases for span in lease)])
        except ValueError as error:
            self.violated(f"a lease is spent twice: {error}")
        self._bits_are_right(record)
        self._held_durably(reign, record)
        self.history.append(record)
        self._roots.append(record.next_root)

    def _bits_are_right(self, record: CommitRecord) -> None:
        """The update is the weighted sum of exactly these payloads, and the next state what it leads to."""
        attempt = self._headers[record.step, record.number]
        self._must(attempt.participants == record.participants, "a commit names others than its attempt")
        total = np.zeros(LAYOUT.num_elements, np.float32)
        for share, weight in zip(record.participants, weights(record.participants), strict=True):
            total += np.float32(weight) * self.payloads[share.payload].view(np.float32)
        roots = slice_roots(total.view(np.uint8), [part.pieces for part in attempt.slices])
        slices = tuple(
            (part.first_piece, part.num_pieces, slice_root)
            for part, slice_root in zip(attempt.slices, roots, strict=True)
        )
        header = UpdateHeader(
            step=record.step,
            parent=record.parent,
            codec=CODEC.name,
            lr=attempt.lr,
            momentum=attempt.momentum,
            participants=record.participants,
            slices=slices,
        )
        self._must(
            header.digest() == record.update,
            f"the update of step {record.step} is not the sum of its payloads",
        )
        self._states.append(expected(*self._states[-1], header, self.payloads))
        self._must(
            root(table_of(*self._states[-1])) == record.next_root,
            f"step {record.step} leads to other bits than it must",
        )

    def _held_durably(self, reign: "Reign", record: CommitRecord) -> None:
        holders = {
            agent.name
            for agent in self._world.agents.values()
            if (held := agent.disk.updates.get((record.step, record.update)))
            and root(held.next_table) == record.next_root
        }
        majority = 2 * len(holders & record.islands) > len(record.islands)
        self._must(
            holders and (majority or reign.protocol_was_thin),
            f"step {record.step} is committed, held by {holders}",
        )

    def leases_partition(self, reign: "Reign") -> None:
        """Below the cursor every sample is spent, out or free, once."""
        if len(self._world.database.commits) < len(self.history):
            return  # a restored backup knows less
        leases = reign.protocol.plans.leases
        out = [span for plan in reign.protocol.plans.values() for span in plan.lease]
        try:
            all_of_them = merge([*self._spent, *leases._free, *out])
        except ValueError as error:
            self.violated(f"leases overlap: {error}")
            return
        self._must(
            all_of_them in ((), ((0, leases.first_fresh()),)),
            f"leases have a gap: {all_of_them}, cursor {leases.first_fresh()}",
        )

    def forget_unseen(self) -> None:
        """A database was lost. A commit that no island ever heard of was lost with it: it never happened."""
        agents, kept = self._world.agents.values(), len(self._world.database.commits)
        while len(self.history) > kept and not any(
            self.history[-1] in agent.disk.records for agent in agents
        ):
            for agent in agents:
                agent.never_heard(self.history[-1])
            self.history.pop()
            self._states.pop()
            self._roots.pop()
        self._spent = merge([span for record in self.history for _, lease in record.leases for span in lease])

    # ------------------------------------------------------------------------------------------------ islands
    def island_stored(self, island: "Island", record: CommitRecord) -> None:
        known = record.step < len(self.history) and self.history[record.step] == record
        self._must(known, f"{island.name} stored a record of step {record.step} that is not the history's")

    def island_says(self, island: "Island", message: Any) -> None:
        match message:
            case m.Ready():
                self._ready_at[island.name] = message.step
                right = message.step < len(self._roots) and message.root == self._roots[message.step]
                self._must(
                    right,
                    f"{island.name} is ready at {message.step} with another root than the committed one",
                )
                self._must(
                    message.loaded in (b"", message.root), f"{island.name}'s trainer loaded other bits"
                )
                real = root(island.state.table())
                self._must(
                    real == message.root, f"{island.name} says that it is ready with bits that it has not"
                )
            case m.Held():
                held = island.disk.updates.get((message.step, message.update))
                kept = held is not None and root(held.next_table) == message.next_root
                self._must(
                    kept,
                    f"{island.name} promised to hold an update of step {message.step} that is not on "
                    "its disk",
                )
            case _:
                pass
