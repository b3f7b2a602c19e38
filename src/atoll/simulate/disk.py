"""What an island's disk keeps, and what a power cut takes from it."""

import random
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from atoll.agent.arrays import Floats
from atoll.agent.log import Entry, Update
from atoll.agent.payload import Kept, Payload
from atoll.simulate.bits import LAYOUT
from atoll.swarm.layout import root
from atoll.swarm.records import CommitRecord, Term


def sign(data: bytes) -> bytes:
    """The run's signature; a keyed hash, since 100,000 schedules would spend their time in Ed25519."""
    return blake3(data, key=b"the key that signs all records..").digest()


@dataclass(kw_only=True)
class Disk:
    """What outlives an agent's process. Only the outer state, a mapped file, is not synced when written."""

    parameters: Floats
    momentum: Floats
    genesis_root: bytes
    term: Term = field(default_factory=Term)
    records: list[CommitRecord] = field(default_factory=list)
    updates: dict[tuple[int, bytes], Update] = field(default_factory=dict)
    tables: dict[int, bytes] = field(default_factory=dict)
    payload: Payload | None = None
    checkpoints: dict[int, tuple[Floats, Floats]] = field(default_factory=dict)
    reached: int = -1  # the newest version that the outer state ever had
    synced: tuple[Floats, Floats] | None = None  # the outer state as a power cut may leave it

    @property
    def head(self) -> int:
        return len(self.records)

    def root(self, step: int) -> bytes:
        return self.records[step - 1].next_root if step else self.genesis_root

    def objection(self, record: CommitRecord) -> str:
        """As `UpdateLog.objection`."""
        if record.step != self.head:
            return f"it is for step {record.step}, not {self.head}"
        if self.records and record.previous != self.records[-1].digest():
            return "it does not continue the chain of records"
        if record.signature != sign(record.unsigned()):
            return "its signature is not the run's"
        return ""

    def committed(self, step: int) -> Update | None:
        return self.updates.get((step, self.records[step].update)) if 0 <= step < self.head else None

    def updates_of_step(self, step: int) -> list[Update]:
        return [update for (at, _), update in self.updates.items() if at == step]

    def hold(self, entry: Entry, data: bytes) -> None:
        self.updates[entry.header.step, entry.header.digest()] = Update(
            entry, np.frombuffer(data, np.uint8), LAYOUT
        )

    def keep_payload(self, kept: Kept, data: bytes) -> Payload:
        self.payload = Payload(kept, np.frombuffer(data, np.uint8), LAYOUT)
        return self.payload

    def table(self, step: int) -> bytes | None:
        """As `UpdateLog.table`."""
        if step > self.head:
            return None
        if step and (update := self.committed(step - 1)) and root(update.next_table) == self.root(step):
            return update.next_table
        table = self.tables.get(step)
        return table if table is not None and root(table) == self.root(step) else None

    def prune(self, below: int) -> None:
        """As `UpdateLog.prune`."""
        for step, digest in list(self.updates):
            lost = step < self.head and digest != self.records[step].update
            if step < below or lost:
                if step < self.head and not lost:
                    self.tables[step + 1] = self.updates[step, digest].next_table
                del self.updates[step, digest]

    def sync(self) -> None:
        """The kernel wrote the mapped pages back."""
        self.synced = (self.parameters.copy(), self.momentum.copy())

    def lose_power(self, rng: random.Random) -> None:
        """Of the pages written since the last sync, any may be old, new or torn."""
        if self.synced is None:
            return
        for new, old in zip((self.parameters, self.momentum), self.synced, strict=True):
            for index in range(LAYOUT.num_pieces):
                if rng.random() < 0.4:
                    new[LAYOUT.piece(index)] = old[LAYOUT.piece(index)]
