"""Whether an update is the sum that it must be, by what its holders have measured; if it is not, who lied.

`swarm/audit.py` says what a measure is. A sum that is false by the participants' measures is not committed.
Then either its owner or a participant lies, so the pieces are in dispute: in the next attempt their new owner
tells what the participants' copies measure, which are fixed by digest.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atoll.coordinator.attempts import OpenAttempt
from atoll.swarm import audit
from atoll.swarm.audit import LANES
from atoll.swarm.messages import Held
from atoll.swarm.records import Disputed

MAX_DISPUTES = 4  # at once: so much more an owner measures
FALSE_ALARM = 1e-15  # how likely an honest sum is called false, for each number of a measure, at most
LIMIT = 2 * math.log(2 / FALSE_ALARM)  # times the squared error that is allowed (Hoeffding)
# Of the norms, for each addition: what a sum in fp32 rounds, with some room.
ROUNDING = 2.0**-20

Doubles = npt.NDArray[np.float64]


class Dispute(NamedTuple):
    """A sum that is false, and what was said about it."""

    record: Disputed
    owner: str  # who made the sum
    update: Doubles  # [LANES] its measure, like those below
    claims: dict[str, Doubles]  # of each participant's copy, as it says
    factors: dict[str, float]  # by which the copies are multiplied
    limit: float  # of the squared difference of an honest sum

    def explains(self, copies: Mapping[str, Doubles]) -> bool:
        """Whether the sum is right if the participants' copies measure this."""
        expected = sum(self.factors[island] * copies[island] for island in sorted(self.claims))
        return bool((np.square(self.update - expected) <= self.limit).all())


class Findings(NamedTuple):
    """What comes of the disputes about an attempt."""

    liars: dict[str, str]  # island -> for what, for people
    cleared: set[str]  # owners whose sums were right
    doubtful: list[tuple[str, str]]  # (owner, participant) of whom one lies, and nobody else can tell which


class Audit:
    """One coordinator's view of the sums of the open outer step."""

    def __init__(self, hand: Callable[[str], str], is_relay: Callable[[str], bool]) -> None:
        self._hand, self._is_relay = hand, is_relay
        self._disputes: list[Dispute] = []

    def begin_step(self) -> None:
        """The next outer step."""
        self._disputes = []

    @property
    def disputed(self) -> tuple[Disputed, ...]:
        """What the next attempt's owners are asked about."""
        return tuple(dispute.record for dispute in self._disputes)

    def false_owners(self, attempt: OpenAttempt, held: Held) -> set[str]:
        """The owners whose sums are false; what they summed is in dispute from now on.

        `held`: what the largest group of holders has. Nothing can be said unless all participants have
        measured their payloads.
        """
        record, assembled = attempt.record, attempt.assembled
        if assembled is None or not attempt.participants <= attempt.holders.keys():
            return set()
        groups = audit.groups(record.slices)
        update = _rows(held.measure, len(groups))
        own = {i: _rows(attempt.holders[i].own_measure, len(groups)) for i in sorted(attempt.participants)}
        factors = {share.island: float(np.float32(share.factor)) for share in record.participants}
        expected = sum(factors[island] * rows[:, :LANES] for island, rows in own.items())
        # A sum is no longer than its parts together: a coarse encoding does not allow its owner more.
        noise = np.square(sum(factors[island] * np.sqrt(rows[:, LANES]) for island, rows in own.items()))
        rounding = ROUNDING * (len(own) + 8) * sum(factors[i] * attempt.proposals[i].norm for i in own)
        limits = LIMIT * np.minimum(noise, update[:, LANES]) + rounding**2
        excess = np.square(update[:, :LANES] - expected).max(1) - limits
        false: set[str] = set()
        self._disputes = []
        for part in record.slices:
            inside = [g for g, group in enumerate(groups) if group.start in part.pieces]
            worst = max(inside, key=lambda g: float(excess[g]), default=-1)
            if worst < 0 or not excess[worst] > 0:
                continue
            false.add(part.owner)
            if len(self._disputes) < MAX_DISPUTES:
                pieces = groups[worst]
                self._disputes.append(
                    Dispute(
                        record=Disputed(assembled.seed, pieces.start, len(pieces)),
                        owner=part.owner,
                        update=update[worst, :LANES],
                        claims={island: rows[worst, :LANES] for island, rows in own.items()},
                        factors=factors,
                        limit=float(limits[worst]),
                    )
                )
        return false

    def settle(self, attempt: OpenAttempt) -> Findings:
        """Who lied, by the measures that came with this attempt, which is reduced; its disputes are over."""
        found = Findings({}, set(), [])
        disputes, self._disputes = self._disputes, []
        for dispute in disputes:
            self._settle(dispute, attempt, found)
        return found

    def _settle(self, dispute: Dispute, attempt: OpenAttempt, found: Findings) -> None:
        copies = attempt.measured_copies(dispute.record)
        witnesses = attempt.owners_of(dispute.record.pieces)
        gone = dispute.claims.keys() - copies.keys()
        differing = [
            i for i in sorted(copies.keys() & dispute.claims) if not _same(copies[i], dispute.claims[i])
        ]
        if not gone and not differing:
            found.liars[dispute.owner] = "as an owner it made a false sum"
        elif gone and not differing:
            found.cleared.add(dispute.owner)
            found.liars.update(dict.fromkeys(gone, "it left before what it had measured was looked into"))
        elif dispute.explains(dispute.claims | copies) and self._convince(witnesses | {dispute.owner}):
            found.cleared.add(dispute.owner)
            found.liars.update(dict.fromkeys(differing, "its payload measures otherwise than it said"))
        else:
            found.doubtful.extend((owner, island) for owner in sorted(witnesses) for island in differing)

    def _convince(self, witnesses: set[str]) -> bool:
        """Whether these are of two hands, or one is a relay, whose word decides where nobody else's does."""
        return len({self._hand(island) for island in witnesses}) > 1 or any(map(self._is_relay, witnesses))


def _rows(measure: bytes, num_groups: int) -> Doubles:
    rows = audit.unpacked(measure, num_groups)
    assert rows is not None, "a measure is checked when it comes"
    return rows.astype(np.float64)


def _same(copies: Doubles, claim: Doubles) -> bool:
    """Whether a sum over pieces is the very number that was said, in fp32."""
    return bool((copies.astype(np.float32) == claim.astype(np.float32)).all())
