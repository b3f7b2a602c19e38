"""What is committed: the chain of commit records, and how many tokens each island gave."""

from collections import Counter
from collections.abc import Callable

import msgspec

from atoll.coordinator.attempts import OpenAttempt
from atoll.swarm import messages as m
from atoll.swarm import records as r


class History:
    """Grows by one record a committed step. `head` is how many there are, and so the step that comes next."""

    def __init__(self, genesis_root: bytes) -> None:
        self.head = 0
        self.head_root = genesis_root  # of the state that the records lead to
        self.head_digest = b""  # of the last record
        self.newest_islands: set[str] = set()  # the participants of the last record
        self.tokens: Counter[str] = Counter()  # committed, by island
        self.rewinds: tuple[r.Rewind, ...] = ()  # all there were, in order

    def add(self, record: r.CommitRecord) -> None:
        """A committed step becomes history."""
        self.head, self.head_root, self.head_digest = record.step + 1, record.next_root, record.digest()
        for share in record.participants:
            self.tokens[share.island] += share.tokens
        self.newest_islands = record.islands

    def is_next(self, record: r.CommitRecord) -> bool:
        """Whether a record continues this chain."""
        follows = (record.step, record.previous) == (self.head, self.head_digest)
        return follows and r.is_valid_after(record, self.rewinds)

    def next_record(
        self,
        term: r.Term,
        attempt: OpenAttempt,
        held: m.Held,
        stage_starts: tuple[int, ...],
        sign: Callable[[bytes], bytes],
    ) -> r.CommitRecord:
        """The record, signed, that commits what an attempt has made and its holders hold."""
        record = r.CommitRecord(
            term=term,
            branch=len(self.rewinds),
            step=self.head,
            number=attempt.record.number,
            parent=self.head_root,
            update=held.update,
            next_root=held.next_root,
            participants=attempt.record.participants,
            leases=tuple(
                (island, attempt.proposals[island].lease) for island in sorted(attempt.participants)
            ),
            previous=self.head_digest,
            stage_starts=stage_starts,
        )
        return msgspec.structs.replace(record, signature=sign(record.unsigned()))
