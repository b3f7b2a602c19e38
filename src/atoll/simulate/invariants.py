"""What must never happen, checked at every durable record and every promise; docs/simulator.md lists it.

Nothing here asks the code under test what is right: states, sums and roots are made anew by `bits.py`, and
what an island has is read from its disk.
"""

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from atoll.coordinator.effects import Record
from atoll.samples import Ranges, merge
from atoll.simulate import bits
from atoll.simulate.bits import Floats, State
from atoll.simulate.process import Process
from atoll.simulate.promises import STATE_FILES, Promises
from atoll.swarm import messages as m
from atoll.swarm.identity import verify_record
from atoll.swarm.records import (
    Assembled,
    Attempt,
    CommitRecord,
    Message,
    Plan,
    Rewind,
    Term,
    UpdateHeader,
    encode,
)

if TYPE_CHECKING:
    from atoll.simulate.host import Host
    from atoll.simulate.site import Site
    from atoll.simulate.world import World


class Invariants:
    """An observer that knows the one true history, and the bits that each state must have."""

    def __init__(self, world: "World", genesis: State) -> None:
        self.violations: list[str] = []
        self.history: list[CommitRecord] = []
        self.rewinds: list[Rewind] = []
        self.world = self._world = world
        self._layout, self._codec = world.layout, world.setting.codec
        self._genesis = genesis
        self._genesis_root = genesis.root(self._layout)
        self.states = {self._genesis_root: genesis}  # all that ever were committed, by root
        self.records: set[bytes] = set()  # digests of all records that ever were
        self.payloads: dict[bytes, list[bytes]] = {}  # the pieces of every payload, by root
        self._trained_on: dict[bytes, Ranges] = {}
        self._plans: dict[tuple[int, str], list[Plan]] = {}
        self.attempts: dict[tuple[int, int, bytes], Attempt] = {}  # by step, number, parent
        self._durable: set[bytes] = set()  # encodings of records that the database has
        self.promises = Promises(self, self._layout)

    def violated(self, text: str) -> None:
        """Note a violation."""
        self.violations.append(f"{self._world.loop.now:.3f} s: {text}")
        self._world.story("violation", text)

    def must(self, holds: object, text: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violated(text)

    def root_at(self, step: int) -> bytes:
        """The root of state `step` of the history."""
        return self.history[step - 1].next_root if step else self._genesis_root

    # ------------------------------------------------------------------------------------------- coordinators
    def persisted(self, host: "Host", records: list[Record]) -> None:
        """Records became durable."""
        for record in records:
            match record:
                case Plan():
                    self._durable.add(encode(_untimed(record)))
                    self._plans.setdefault((record.step, record.island), []).append(record)
                    known = record.step <= len(self.history)
                    self.must(
                        known and record.parent == self.root_at(record.step),
                        f"a plan of step {record.step} from another state",
                    )
                case Attempt():
                    self._durable.add(encode(record))
                    self._attempted(record)
                case Assembled():
                    self._durable.add(encode(record))
                case CommitRecord():
                    self._durable.add(encode(record))
                    self._committed(host, record)
                case Rewind():
                    self._rewound(record)
                case _:
                    pass
        if any(isinstance(record, CommitRecord | Rewind) for record in records):
            host.was_thin = False

    def _attempted(self, attempt: Attempt) -> None:
        self.attempts[attempt.step, attempt.number, attempt.parent] = attempt
        behind = sorted(i for i in attempt.involved if self.promises.ready_at.get(i) != attempt.parent)
        self.must(
            not behind,
            f"attempt {attempt.number} of step {attempt.step} counts on {behind}, not at the head",
        )

    def _rewound(self, rewind: Rewind) -> None:
        ours = rewind.branch == len(self.rewinds) + 1 and rewind.step < len(self.history)
        self.must(ours and rewind.root == self.root_at(rewind.step), "a rewind to a state that never was")
        if ours:
            self.rewinds.append(rewind)
            del self.history[rewind.step :]

    def _committed(self, host: "Host", record: CommitRecord) -> None:
        step = len(self.history)
        if record.step != step:  # a restored backup may be told again what was; but nothing else
            known = record.step < step and self.history[record.step] == record
            self.must(known, f"step {record.step} is committed again, as something else")
            return
        imported = record.digest() in self.records
        previous = self.history[-1].digest() if self.history else b""
        chained = record.previous == previous and record.parent == self.root_at(step)
        self.must((chained and record.branch == len(self.rewinds)) or imported, "the chain is broken")
        signed = verify_record(self._world.keys.record_key, record.unsigned(), record.signature)
        self.must(signed, "a commit without the run's signature")
        if not imported:
            self._participants_are_right(record)
            self._bits_are_right(record)
            self._held_durably(host, record)
        self.records.add(record.digest())
        self.history.append(record)
        self._world.committed(record)

    def _participants_are_right(self, record: CommitRecord) -> None:
        names = [share.island for share in record.participants]
        self.must(names == sorted(set(names)) and names, "participants are not a sorted set")
        self.must(
            [s.weight for s in record.participants] == bits.weights(record.participants),
            "weights are not of the reduced set",
        )
        self.must([i for i, _ in record.leases] == names, "leases are not the participants'")
        for share, (island, lease) in zip(record.participants, record.leases, strict=True):
            plans = self._plans.get((record.step, island), [])
            of_plan = any(p.used_lease(n + 1) == lease for p in plans for n in range(p.inner_steps))
            self.must(of_plan, f"{island}'s lease is not of the first samples of its plan")
            used = self._trained_on.get(share.payload)
            self.must(used == lease, f"{share.island} trained on the samples {used}, but {lease} are spent")
        try:
            merge([*self._spent, *(span for _, lease in record.leases for span in lease)])
        except ValueError as error:
            self.violated(f"a lease is spent twice: {error}")

    def _bits_are_right(self, record: CommitRecord) -> None:
        """The update is the weighted sum of exactly these payloads, and the next state what it leads to."""
        attempt = self.attempts.get((record.step, record.number, record.parent))
        if attempt is None or attempt.participants != record.participants:
            self.violated("a commit names others than its attempt")
            return
        unknown = [share.island for share in record.participants if share.payload not in self.payloads]
        if unknown:
            self.violated(f"a payload of {unknown} that its trainer never made is committed")
            return
        both = bits.weights(record.participants), record.participants
        weights = [w * share.clip for w, share in zip(*both, strict=True)]
        parts = [(w, self.payloads[s.payload]) for w, s in zip(weights, record.participants, strict=True)]
        pieces = bits.weighted_sum(self._codec, self._layout, parts)
        slices = tuple(
            (
                part.first_piece,
                part.num_pieces,
                bits.hash_of(bits.piece_table([pieces[i] for i in part.pieces])),
            )
            for part in attempt.slices
        )
        header = UpdateHeader(
            step=record.step,
            parent=record.parent,
            codec=self._codec,
            lr=self._world.rules.lr,
            momentum=self._world.rules.momentum,
            participants=record.participants,
            slices=slices,
        )
        right = header.digest() == record.update
        self.must(right, f"the update of step {record.step} is not the sum of its payloads")
        gradient = bits.decoded(self._codec, self._layout, pieces)
        before = self.states[record.parent]
        state = before.after(gradient, self._world.rules.lr, self._world.rules.momentum)
        leads_to = state.root(self._layout)
        self.states[leads_to] = state
        self.must(leads_to == record.next_root, f"step {record.step} leads to other bits than it must")

    def _held_durably(self, host: "Host", record: CommitRecord) -> None:
        holders = {
            site.name
            for site in self._world.sites.values()
            if self.promises.holds(site, record.step, record.update, record.next_root)
        }
        majority = 2 * len(holders & record.islands) > len(record.islands)
        self.must(
            holders and (majority or host.was_thin),
            f"step {record.step} is committed, held by {sorted(holders)}",
        )

    def leases_partition(self, host: "Host") -> None:
        """Below the cursor every sample is spent, out or free, once."""
        if host.server is None or host.server.protocol.head != len(self.history):
            return  # a restored backup knows less
        leases = host.server.protocol.plans.leases
        out = [span for plan in host.server.protocol.plans.values() for span in plan.lease]
        try:
            places = merge([*self._spent, *leases._free, *out])
        except ValueError as error:
            self.violated(f"leases overlap: {error}")
            return
        self.must(
            places in ((), ((0, leases.first_fresh()),)),
            f"leases have a gap: {places}, cursor {leases.first_fresh()}",
        )

    @property
    def _spent(self) -> Ranges:
        return merge([span for record in self.history for _, lease in record.leases for span in lease])

    def forget_unseen(self) -> None:
        """A database was lost. A commit that no island ever heard of was lost with it: it never happened."""
        kept = len(self._world.commits())
        heard = {
            path.read_bytes()
            for site in self._world.sites.values()
            for path in (site.directory / "log").glob("*.commit")
        }
        while len(self.history) > kept and encode(self.history[-1]) not in heard:
            self._world.story("database", f"commit {self.history[-1].step} was lost with it")
            self.history.pop()

    # ------------------------------------------------------------------------------------------------ islands
    def trained(self, site: "Site", plan: Plan, lease: Ranges, local: Floats) -> None:
        """A trainer hands over what its inner steps made of state `plan.parent`."""
        outer = self.states.get(plan.parent)
        if outer is None:
            self.violated(f"{site.name} was planned from a state that never was")
            return
        pieces = bits.encoded(self._codec, self._layout, outer.parameters - local)
        root = bits.hash_of(bits.piece_table(pieces))
        self.payloads[root], self._trained_on[root] = pieces, lease

    def loaded(self, site: "Site", order: m.Adopt, loaded: bytes, taken: Floats) -> None:
        """A trainer says what it holds."""
        state = self.states.get(order.root)
        if loaded == order.root:
            right = state is not None and np.array_equal(state.parameters, taken)
            self.must(right, f"{site.name}'s trainer takes other bits for state {order.step}")

    def heard(self, sender: Process, receiver: str, message: Message) -> None:
        """A message leaves."""
        site = self._world.sites.get(sender.name)
        if site is not None:
            if site.name not in self._world.liars:  # whose promises nobody can rely on
                self.promises.said(site, message)
            else:
                self.promises.said_by_liar(site, message)
        elif isinstance(message, Plan):
            durable = encode(_untimed(message)) in self._durable
            self.must(durable, f"{receiver} is told a plan that is not durable")
        elif isinstance(message, Attempt | Assembled):
            durable = encode(message) in self._durable
            self.must(durable, f"{receiver} is told what is not durable: {type(message).__name__}")
        elif isinstance(message, m.Committed):
            durable = encode(message.record) in self._durable
            self.must(durable, f"{receiver} is told a commit that is not durable")

    def can_reach_head(self, site: "Site") -> bool:
        """Whether a site has the newest state, or can make it of what is on its disk alone."""
        head, left = len(self.history), set(range(self._layout.num_chunks))
        try:
            files = [(site.directory / "state" / name).read_bytes() for name in STATE_FILES]
        except FileNotFoundError:
            return False
        for step in range(head, max(-1, head - 3), -1):
            state = self.states[self.root_at(step)]
            for chunk in sorted(left):
                part = self._layout.chunk(chunk)
                have = [file[4 * part.start : 4 * part.stop] for file in files]
                if have == [state.parameters[part].tobytes(), state.momentum[part].tobytes()]:
                    left.discard(chunk)
            if not left:
                return True
            if not step:
                return False
            record = self.history[step - 1]
            if not self.promises.holds(site, record.step, record.update, record.next_root):
                return False
        return False


def _untimed(plan: Plan) -> Plan:
    """A plan without what changes with each telling."""
    return msgspec.structs.replace(plan, term=Term(), seconds_left=0.0, handover_seconds=0.0)
