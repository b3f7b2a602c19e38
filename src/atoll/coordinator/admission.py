"""Who may be a member, and which proposals count: what a `Hello` and a `Propose` must satisfy, and how large
a pseudo-gradient may be beside the others' and beside this island's own of before: what is unusual is
clipped, and what is far from usual refused.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple

from atoll.coordinator.rules import Rules
from atoll.samples import HASH_BITS, first_sample, num_samples, private_source, source_of
from atoll.swarm.layout import DIGEST_BYTES
from atoll.swarm.messages import VERSION, Hello, Propose
from atoll.swarm.records import Plan, Term

NOT_FINITE = "that is not finite"  # how the reason ends where a figure is no number or infinite
NUM_REMEMBERED = 64  # norms of one island
MIN_OTHERS, MIN_PAST = 2, 3  # norms that are compared with
MAX_EXCESS, TINY = 1.05, 1e-12  # of a measured norm over the one that its maker said: encoding rounds


def objection_to_hello(rules: Rules, hello: Hello) -> str:
    """Why an agent cannot be a member; empty if it can."""
    if hello.version != VERSION:
        return (
            f"it speaks version {hello.version} of the protocol, the run {VERSION}; "
            "install the host's version of atoll"
        )
    if hello.recipe_digest != rules.recipe_digest:
        return "its recipe is not the run's; join with a ticket of this run in an empty directory"
    if hello.self_test != rules.self_test:
        return (
            "its arithmetic gives other bits than the coordinator's "
            "(another version of the kernels, or a faulty processor)"
        )
    for name, number in hello.partitions.items():
        known = rules.partitioned and 0 < number >> HASH_BITS <= len(rules.partitioned)
        if not known or private_source(first_sample(number), rules.partitioned) != source_of(name):
            return f"its partition {name} is of no partitioned source of this run"
    return ""


def unproven_claim(
    hello: Hello, term: Term, num_commits: int, num_rewinds: int, is_signed: Callable[[bytes, bytes], bool]
) -> str:
    """What an agent says that it knows, this coordinator does not, and the run has not signed; else empty.

    A coordinator that believed it would stop, since its database may be an old backup. `is_signed` tells of
    (bytes, signature) whether the signature is the run's.
    """
    record, rewind = hello.newest_record, hello.newest_rewind
    if not term.may_follow(hello.term) and not is_signed(hello.term.unsigned(), hello.term.signature):
        return f"term {hello.term.counter}"
    if hello.head > num_commits and (
        record is None
        or (record.step + 1, record.next_root) != (hello.head, hello.head_root)
        or not is_signed(record.unsigned(), record.signature)
    ):
        return f"{hello.head} commits"
    if hello.num_rewinds > num_rewinds and (
        rewind is None
        or rewind.branch != hello.num_rewinds
        or not is_signed(rewind.unsigned(), rewind.signature)
    ):
        return f"{hello.num_rewinds} rewinds"
    return ""


def objection_to_proposal(rules: Rules, plan: Plan, proposal: Propose) -> str:
    """Why the proposal of the island that has this plan cannot count; empty if it can."""
    if not 0 < proposal.inner_steps <= plan.inner_steps:
        return f"{proposal.inner_steps} inner steps, where {plan.inner_steps} were planned"
    if proposal.lease != plan.used_lease(proposal.inner_steps):
        return "samples other than the first of its lease"
    if not 0 < proposal.tokens <= num_samples(proposal.lease) * rules.context_length:
        return f"{proposal.tokens} tokens, which its samples cannot hold"
    if proposal.count is not None and not 0 < proposal.count <= proposal.tokens:
        return f"a count of {proposal.count}, where it has {proposal.tokens} tokens"
    if len(proposal.payload) != DIGEST_BYTES:
        return "a payload that is no digest"
    seconds = proposal.compute_seconds, proposal.handover_seconds
    if not all(map(math.isfinite, (proposal.norm, proposal.loss or 0.0, *seconds))):
        return f"a norm, loss or duration {NOT_FINITE}"
    if proposal.norm < 0:
        return "a negative norm"
    if not proposal.metrics.is_finite:
        return f"a measurement {NOT_FINITE}"
    if min(seconds) < 0:
        return "a negative duration"
    return ""


class Past(NamedTuple):
    """What an island has given to one commit."""

    norm: float
    inner_steps: int


class Admission:
    """How large the islands' pseudo-gradients are, as they say at first, and as owners then measure.

    All of it follows from proposals and commits, in no order: whoever decides anew decides the same.
    """

    def __init__(self, clip_ratio: float, max_ratio: float) -> None:
        """A norm is clipped beyond `clip_ratio` times what is usual, and refused beyond `max_ratio` times."""
        self._clip_ratio, self._max_ratio = clip_ratio, max_ratio
        self._past: defaultdict[str, deque[Past]] = defaultdict(lambda: deque(maxlen=NUM_REMEMBERED))

    def objection_to_norm(self, island: str, proposals: Mapping[str, Propose]) -> str:
        """Why a proposal is too large to count among these; empty if it is not."""
        limit, norm = self._limit(self._max_ratio, island, proposals), proposals[island].norm
        if norm <= limit:
            return ""
        usual = limit / self._max_ratio
        return f"a norm of {norm:.3g}, over {self._max_ratio:g} times the {usual:.3g} that is usual"

    def clip(self, island: str, proposals: Mapping[str, Propose]) -> float:
        """What a proposal among these is multiplied by so that its norm is not unusual; 1 for most."""
        limit, norm = self._limit(self._clip_ratio, island, proposals), proposals[island].norm
        return limit / norm if norm > limit else 1.0

    def witnesses(self, proposal: Propose, squares: Mapping[str, float]) -> set[str]:
        """The owners by whose measure a payload is larger than its maker said; empty if it is not.

        `squares`: the squared norm of what each has decoded. These are the fewest who must be wrong if its
        maker is right, the largest measures first.
        """
        limit = (MAX_EXCESS * proposal.norm) ** 2 + TINY
        left, found = sum(squares.values()), set[str]()
        for owner in sorted(squares, key=lambda owner: squares[owner], reverse=True):
            if left <= limit:
                break
            found.add(owner)
            left -= squares[owner]
        return found

    def lopsided(
        self, part: float, squares: Mapping[str, float], proposals: Mapping[str, Propose]
    ) -> set[str]:
        """Whose payload is far larger than the others' in one slice, by its owner's measure.

        `squares`: the squared norm there of each participant; `part`: the slice's share of the space. What a
        norm of usual size has there if it is spread evenly is never too large.
        """
        found = set[str]()
        for island in squares if len(squares) > MIN_OTHERS else ():
            scale = self._max_ratio * _more_steps(island, proposals)
            middle = median(square for other, square in squares.items() if other != island)
            even = part * median(p.norm for other, p in proposals.items() if other != island) ** 2
            if squares[island] > scale**2 * max(middle, even) + TINY:
                found.add(island)
        return found

    def note_committed(self, proposals: Mapping[str, Propose], clips: Mapping[str, float]) -> None:
        """These were of sizes that are to be expected again."""
        for island, proposal in proposals.items():
            self._past[island].append(Past(proposal.norm * clips.get(island, 1.0), proposal.inner_steps))

    def _limit(self, ratio: float, island: str, proposals: Mapping[str, Propose]) -> float:
        """The largest norm within `ratio` times what is usual; infinite while that is not known.

        Usual is the median of the others, where there are two or more. With them an island may grow, but not
        by `ratio` times more than they have since, unless it only comes up to them. Of fewer than three each
        is compared with its own past alone.
        """
        usual, grown = self._own_usual(island, proposals[island]), [1.0]
        others = {other: p for other, p in proposals.items() if other != island}
        if len(others) < MIN_OTHERS:
            return ratio * usual
        theirs = median(p.norm for p in others.values()) * _more_steps(island, proposals) or math.inf
        for other, proposal in others.items():
            if 0 < (before := self._own_usual(other, proposal)) < math.inf:
                grown.append(proposal.norm / before)
        return min(ratio * theirs, max(ratio * usual * max(1.0, median(grown)), theirs))

    def _own_usual(self, island: str, proposal: Propose) -> float:
        """The median of an island's norms before, for as many inner steps; infinite if there were too few.

        A norm grows with the inner steps, at most in proportion.
        """
        past = self._past[island]
        if len(past) < MIN_PAST:
            return math.inf
        usual_steps = median(one.inner_steps for one in past)
        return median(one.norm for one in past) * max(1.0, proposal.inner_steps / usual_steps) or math.inf


def _more_steps(island: str, proposals: Mapping[str, Propose]) -> float:
    """How many times the others' inner steps an island has done; 1 if it has done fewer."""
    usual = median(p.inner_steps for other, p in proposals.items() if other != island)
    return max(1.0, proposals[island].inner_steps / usual)
