"""One attempt at the open step's update, as its coordinator sees it: who reduces, what is assembled, who
holds it.
"""

from collections.abc import Iterable

import numpy as np

from atoll import events
from atoll.coordinator.holders import Holders
from atoll.coordinator.members import Members
from atoll.coordinator.owners import equal_slices
from atoll.coordinator.rules import Rules
from atoll.events.step import Contribution
from atoll.swarm import messages as m
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Share, Term, header


class OpenAttempt:
    """From its record to the commit, or until it is closed."""

    def __init__(self, record: Attempt, proposals: dict[str, m.Propose], now: float) -> None:
        self.record = record
        self.proposals = proposals  # a participant's newer one counts in another attempt
        self.opened_at = now
        self.assembled: Assembled | None = None
        self.assembled_at = 0.0
        self.holders = Holders()
        self.missing = dict.fromkeys(
            share.island for share in record.participants
        )  # who does not hold it yet
        self._digests: dict[int, bytes] = {}  # by slice
        self._progress: dict[
            str, tuple[int, float]
        ] = {}  # island -> (pieces of the update there, since when)

    @property
    def records(self) -> list[Attempt | Assembled]:
        """What there is to know of it so far, in the order in which it came to be."""
        return [self.record] if self.assembled is None else [self.record, self.assembled]

    @property
    def participants(self) -> set[str]:
        return {share.island for share in self.record.participants}

    @property
    def inner_steps(self) -> dict[str, int]:
        """How many each participant has done."""
        return {island: self.proposals[island].inner_steps for island in sorted(self.participants)}

    @property
    def mean_loss(self) -> float:
        """Of the participants' inner steps, over their tokens."""
        return sum(self.proposals[s.island].loss * s.weight for s in self.record.participants)

    def opened_event(self, planned: Iterable[str]) -> events.AttemptOpened:
        """That it has begun; `planned` are all islands that had a plan for its step."""
        return events.AttemptOpened(
            number=self.record.number,
            participants=tuple(sorted(self.participants)),
            left_out=tuple(sorted(set(planned) - self.participants)),
            num_owners=len(self.record.addresses),
        )

    def committed_event(self, record: CommitRecord, holders: set[str]) -> events.Committed:
        """That its step is committed by this record, and what each participant gave to it."""
        return events.Committed(
            tokens=record.tokens,
            loss=self.mean_loss,
            participants={island: contribution(self.proposals[island]) for island in sorted(record.islands)},
            holders=tuple(sorted(holders)),
            root=record.next_root.hex(),
        )

    def is_of(self, message: m.Reduced | m.Held | m.Fault) -> bool:
        return (message.step, message.number) == (self.record.step, self.record.number)

    def reduced(self, island: str, message: m.Reduced, now: float) -> bool:
        """Note a slice that its owner has reduced; whether that was the last one, and so the update is
        assembled.
        """
        slices = self.record.slices
        if self.assembled or not 0 <= message.slice < len(slices) or slices[message.slice].owner != island:
            return False
        self._digests[message.slice] = message.digest
        if len(self._digests) < len(slices):
            return False
        digests = tuple(self._digests[number] for number in range(len(slices)))
        self.assembled = Assembled(self.record.term, self.record.step, self.record.number, digests)
        self.assembled_at = now
        return True

    def heard(self, island: str, beat: m.Beat, now: float) -> None:
        """Note how far an island's copy of the update is."""
        if beat.attempt == self.record.number and beat.num_pieces != self._progress.get(island, (0, now))[0]:
            self._progress[island] = (beat.num_pieces, now)

    def late_owners(self, limit_seconds: float, now: float) -> tuple[set[str], float]:
        """(owners that have not brought their slices on for so long, when the first of all is late)."""
        at_work = {
            part.owner
            for number, part in enumerate(self.record.slices)
            if part.num_pieces and number not in self._digests
        }
        due = {i: self._progress.get(i, (0, self.opened_at))[1] + limit_seconds for i in at_work}
        return {owner for owner, at in due.items() if now >= at}, min(due.values())

    def is_held(self, island: str, held: m.Held) -> bool:
        """Note that an island holds the assembled update; False when what it holds is another one."""
        if self.assembled is None or held.update != header(self.record, self.assembled).digest():
            return False
        self.holders[island] = held
        self.missing.pop(island, None)
        return True

    def awaited(self, ready: set[str], members: Members) -> list[str]:
        """Whose `Held` is waited for: that of participants; of anybody while one alone holds, or none that
        can be dialled.
        """
        few = len(self.holders) < 2 or not members.can_reach_any(self.holders)
        return sorted((ready if few else ready & self.participants) - self.holders.keys())


def contribution(proposal: m.Propose) -> Contribution:
    """What a participant gave, as the events file tells it."""
    return Contribution(
        tokens=proposal.tokens,
        inner_steps=proposal.inner_steps,
        loss=proposal.loss,
        metrics=proposal.metrics,
    )


def make_attempt(
    term: Term,
    step: int,
    number: int,
    parent: bytes,
    proposals: dict[str, m.Propose],
    addresses: dict[str, str],
    rules: Rules,
) -> Attempt:
    """Reduce these proposals, weighted by their tokens, at the owners that `addresses` names, in its
    order.
    """
    total = sum(proposal.tokens for proposal in proposals.values())
    shares = tuple(
        Share(island, p.payload, p.tokens, float(np.float32(p.tokens / total)))
        for island, p in sorted(proposals.items())
    )
    slices = equal_slices(list(addresses), rules.num_pieces)
    owners = {part.owner: addresses[part.owner] for part in slices}
    return Attempt(
        term=term,
        step=step,
        number=number,
        parent=parent,
        codec=rules.codec,
        lr=rules.lr,
        momentum=rules.momentum,
        participants=shares,
        slices=slices,
        addresses=owners,
    )
