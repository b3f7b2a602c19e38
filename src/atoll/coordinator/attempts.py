"""One attempt to make the open step's update, as the coordinator sees it."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from atoll import events
from atoll.coordinator.deadlines import doubled
from atoll.coordinator.holders import Holders
from atoll.coordinator.members import Members
from atoll.coordinator.rules import Rules
from atoll.coordinator.split import LinkPlan
from atoll.events.step import Contribution
from atoll.metrics import Exchange
from atoll.swarm import audit
from atoll.swarm import messages as m
from atoll.swarm.layout import digest
from atoll.swarm.messages import FaultKind
from atoll.swarm.records import (
    Assembled,
    Attempt,
    CommitRecord,
    Disputed,
    Share,
    Slice,
    Term,
    encode,
    header,
)

MAX_SLOWNESS = 4.0  # of an owner beside the others
# An update comes in so many parts at most, each of which may take a deadline: who drips is not waited for.
PARTS_OF_PROGRESS = 256


class OpenAttempt:
    """What is known of an attempt from its opening until it is closed or its update committed.

    Times are seconds of the coordinator's clock.
    """

    def __init__(
        self, record: Attempt, proposals: dict[str, m.Propose], now: float, secret: bytes = b""
    ) -> None:
        """`secret`: bytes that no member knows; the seed of what holders measure follows from them."""
        self.record = record
        self._secret = secret
        self._num_groups = len(audit.groups(record.slices))
        self.proposals = proposals  # of the participants; newer ones count in the next attempt only
        self.opened_at = now
        self.assembled: Assembled | None = None
        self.assembled_at = 0.0
        self.holders = Holders()
        self.held_at: dict[str, float] = {}  # by island: when it said so
        self.not_holding = dict.fromkeys(share.island for share in record.participants)  # an ordered set
        self._heard: set[tuple[str, str]] = set()  # (accuser, peer): whoever has told of an edge
        self._squares: dict[int, tuple[float, ...]] = {}  # by number of the slice: of each participant
        # What each participant's copy of a disputed piece measures [participants, LANES], by (piece, seed).
        self._copies: dict[tuple[int, bytes], npt.NDArray[np.float64]] = {}
        self._num_pieces = sum(part.num_pieces for part in record.slices)
        self._unable: set[str] = set()  # they have said that they cannot hold the update
        self._slice_roots: dict[int, bytes] = {}  # by number of the slice
        self.exchanges: dict[str, Exchange] = {}  # by island: what the attempt took of it, as it says
        self.reduced_at: dict[int, float] = {}  # by number of the slice: when its owner had done it
        self._progress: dict[str, tuple[int, float]] = {}  # island -> (pieces it has, since when)

    @property
    def records(self) -> list[Attempt | Assembled]:
        """What an agent that joins now must hear of this attempt, in order."""
        return [self.record] if self.assembled is None else [self.record, self.assembled]

    @property
    def participants(self) -> set[str]:
        """The islands whose payloads are reduced."""
        return {share.island for share in self.record.participants}

    @property
    def inner_steps(self) -> dict[str, int]:
        """How many inner steps each participant has done."""
        return {island: self.proposals[island].inner_steps for island in sorted(self.participants)}

    @property
    def mean_loss(self) -> float | None:
        """The participants' losses, weighted by their tokens; None where nobody has one."""
        weighed = [(self.proposals[s.island].loss, s.weight) for s in self.record.participants]
        known = [(loss, weight) for loss, weight in weighed if loss is not None]
        total = sum(weight for _, weight in known)
        return sum(loss * weight for loss, weight in known) / total if known else None

    def opened_event(self, planned: Iterable[str]) -> events.AttemptOpened:
        """The event that it has begun; `planned` are all islands that have a plan for the step."""
        return events.AttemptOpened(
            number=self.record.number,
            participants=tuple(sorted(self.participants)),
            left_out=tuple(sorted(set(planned) - self.participants)),
            num_owners=len(self.record.addresses),
            planned_seconds=self.record.seconds,
        )

    def committed_event(self, record: CommitRecord, holders: set[str], now: float) -> events.Committed:
        """The event that its step is committed by this record, and what each participant gave to it."""
        return events.Committed(
            tokens=record.tokens,
            loss=self.mean_loss,
            participants={
                island: contribution(self.proposals[island], self.exchanges.get(island, Exchange()))
                for island in sorted(record.islands)
            },
            holders=tuple(sorted(holders)),
            root=record.next_root.hex(),
            reduce_seconds=self.assembled_at - self.opened_at,
            hold_seconds=now - self.assembled_at,
            norm=_median(told.norm for told in self.exchanges.values()),
            cosine=_median(told.cosine for told in self.exchanges.values()),
        )

    def is_about(self, message: m.Reduced | m.Held | m.Fault | m.Exchanged) -> bool:
        """Whether a message is about this attempt."""
        return (message.step, message.number) == (self.record.step, self.record.number)

    def note_reduced(self, island: str, message: m.Reduced, now: float) -> bool:
        """Note that an owner has reduced its slice; return whether the update is assembled by that."""
        slices = self.record.slices
        if self.assembled or not 0 <= message.slice < len(slices) or slices[message.slice].owner != island:
            return False
        if len(message.squared_norms) != len(self.record.participants):
            return False  # as one that has not said what it has decoded, its owner is late
        if not self._note_copies(slices[message.slice], message.measures):
            return False
        self._slice_roots[message.slice] = message.digest
        self._squares[message.slice] = message.squared_norms
        self.reduced_at[message.slice] = now
        if len(self._slice_roots) < len(slices):
            return False
        roots = tuple(self._slice_roots[number] for number in range(len(slices)))
        seed = digest(b"".join((self._secret, *roots)))[: audit.SEED_BYTES]
        self.assembled = Assembled(
            term=self.record.term, step=self.record.step, number=self.record.number, digests=roots, seed=seed
        )
        self.assembled_at = now
        return True

    def note_beat(self, island: str, beat: m.Beat, now: float) -> None:
        """Note how many pieces of the update an island has; a few more of very many are no progress."""
        more = beat.num_pieces - self._progress.get(island, (0, now))[0]
        if beat.attempt == self.record.number and more > self._num_pieces // PARTS_OF_PROGRESS:
            self._progress[island] = (beat.num_pieces, now)

    def progressed_at(self, island: str) -> float:
        """When an island last got on with an assembled update, as far as its beats tell."""
        return max(self.assembled_at, self._progress.get(island, (0, 0.0))[1])

    def has_all_pieces(self, island: str) -> bool:
        """Whether an island has all of the update, as far as its beats tell."""
        return self._progress.get(island, (0, 0.0))[0] >= self._num_pieces

    def late_owners(self, limit_seconds: float, usual_seconds: float, now: float) -> tuple[set[str], float]:
        """(owners that are late with their slices, when the first one is).

        Late is a slice that has not advanced for `limit_seconds`, and one that advances far more slowly than
        others: it takes MAX_SLOWNESS times as long as half of the slices did, or as was planned, or as a
        reduction usually does (`usual_seconds`; 0: not known), and a third of the limit. That doubles with
        each attempt.
        """
        at_work = {
            part.owner
            for number, part in enumerate(self.record.slices)
            if part.num_pieces and number not in self._slice_roots
        }
        done = sorted(self.reduced_at.values())
        half = (len(self.record.slices) + 1) // 2
        others_seconds = self.record.seconds or usual_seconds or math.inf
        if len(done) >= half:
            others_seconds = max(done[half - 1] - self.opened_at, self.record.seconds)
        patience = doubled(MAX_SLOWNESS * others_seconds + limit_seconds / 3, self.record.number)
        last = self.opened_at + patience
        due = {i: min(last, self._progress.get(i, (0, self.opened_at))[1] + limit_seconds) for i in at_work}
        return {owner for owner, at in due.items() if now >= at}, min(due.values())

    def owners_done_at(self) -> dict[str, float]:
        """When each owner has reduced the last of its slices, of those that have."""
        done: dict[str, float] = {}
        for number, at in self.reduced_at.items():
            owner = self.record.slices[number].owner
            done[owner] = max(at, done.get(owner, at))
        return done

    def note_held(self, island: str, held: m.Held) -> bool:
        """Note that an island holds the assembled update; False, and not noted, if it holds another one, or
        has not measured it.
        """
        if self.assembled is None or held.update != header(self.record, self.assembled).digest():
            return False
        measures = [held.measure, held.own_measure][: 1 + (island in self.participants)]
        if any(audit.unpacked(measure, self._num_groups) is None for measure in measures):
            self.note_unable(island)
            return False
        self.holders[island] = held
        self.not_holding.pop(island, None)
        return True

    def last_hold_at(self, limit_seconds: float, progress_seconds: float) -> float:
        """Until when the slowest holder is waited for, whatever it says of its progress: inf until half of
        the participants hold the update.

        It may take MAX_SLOWNESS times as long as these, and as long as the reduction took: what it lacks then
        has no other way to come than what it had.
        """
        held = sorted(at for island, at in self.held_at.items() if island in self.participants)
        half = max(2, (len(self.participants) + 1) // 2)  # of two nobody can tell who is slow
        if len(held) < half:
            return math.inf
        others_seconds = MAX_SLOWNESS * (held[half - 1] - self.assembled_at)
        patience = max(limit_seconds, self.record.patience_seconds or progress_seconds)
        reduce_seconds = self.assembled_at - self.opened_at
        return self.assembled_at + doubled(others_seconds + reduce_seconds + patience, self.record.number)

    def awaited_holders(self, ready: set[str], members: Members) -> list[str]:
        """The ready islands whose `Held` the coordinator waits for, sorted.

        These are participants; but all ready islands while only one holds, or no holder can be reached.
        """
        too_few = len(self.holders) < 2 or not members.any_reachable(self.holders)
        awaited = ready if too_few else ready & self.participants
        return sorted(awaited - self.holders.keys() - self._unable)

    def is_held_by_others(self, holders: set[str], ready: set[str], members: Members) -> bool:
        """Whether more than one owner, or one owner's hand, vouches for the update; or nobody else is there.

        An owner may name a slice that it gives to nobody but itself and its other identities.
        """
        if not any(map(self.record.has_owner, holders)):
            return True
        if len(holders) == 1:
            return ready <= holders
        hands = set(members.hands(holders).values())
        return len(hands) > 1 or set(members.hands(self.participants).values()) <= hands

    def note_unable(self, island: str) -> None:
        """Note that an island could not complete or write the update: it is not waited for as a holder."""
        self._unable.add(island)
        self.not_holding.pop(island, None)

    def is_heard(self, accuser: str, peer: str, kind: FaultKind) -> bool:
        """Whether `accuser` can know of such a fault: it is its own, or of an edge of this attempt.

        An edge is between an owner and a participant; only its two ends are heard about each other, each
        once. Anybody may say that it got an owner's slice from nobody.
        """
        if (accuser, peer) in self._heard:
            return False
        owns, takes_part = self.record.has_owner, self.participants
        if accuser == peer:
            heard = kind == "failed" or accuser in self.record.involved
        elif kind == "failed":
            heard = owns(peer)
        else:
            heard = (owns(accuser) and peer in takes_part) or (owns(peer) and accuser in takes_part)
        if heard:
            self._heard.add((accuser, peer))
        return heard

    def measured(self, island: str) -> dict[str, float]:
        """The squared norm of what each owner has decoded of a participant, by owner."""
        at = next(k for k, share in enumerate(self.record.participants) if share.island == island)
        squares: defaultdict[str, float] = defaultdict(float)
        for number, by_participant in self._squares.items():
            squares[self.record.slices[number].owner] += by_participant[at]
        return dict(squares)

    def _note_copies(self, part: Slice, measures: bytes) -> bool:
        """Note what an owner has measured of disputed pieces; whether it is what it was asked for."""
        count = len(self.record.participants)
        asked = [(piece, d.seed) for piece in part.pieces for d in self.record.disputed if piece in d.pieces]
        if len(measures) != len(asked) * count * 8 * audit.LANES:
            return False
        rows = np.frombuffer(measures, "<f8").astype(np.float64).reshape(len(asked), count, audit.LANES)
        if not np.isfinite(rows).all():
            return False
        self._copies.update(zip(asked, rows, strict=True))
        return True

    def measured_copies(self, disputed: Disputed) -> dict[str, npt.NDArray[np.float64]]:
        """What each participant's copies of disputed pieces measure together, by their owners."""
        names = [share.island for share in self.record.participants]
        total = np.zeros((len(names), audit.LANES))
        for piece in disputed.pieces:
            total = total + self._copies[piece, disputed.seed]
        return dict(zip(names, total, strict=True))

    def owners_of(self, pieces: range) -> set[str]:
        """Who reduces any of these pieces."""
        return {
            s.owner
            for s in self.record.slices
            if s.first_piece < pieces.stop and pieces.start < s.pieces.stop
        }

    def measured_slices(self) -> list[tuple[str, int, dict[str, float]]]:
        """(owner, number of pieces, squared norm of each participant there) of each slice that is reduced."""
        names = [share.island for share in self.record.participants]
        parts = [(self.record.slices[number], squares) for number, squares in sorted(self._squares.items())]
        return [
            (part.owner, part.num_pieces, dict(zip(names, squares, strict=True))) for part, squares in parts
        ]


def _median(told: Iterable[float | None]) -> float | None:
    """What most say, since nobody is trusted alone; None where nobody has told."""
    known = [figure for figure in told if figure is not None]
    return float(np.median(known)) if known else None


def contribution(proposal: m.Propose, exchange: Exchange) -> Contribution:
    """What a participant gave, for the events file."""
    return Contribution(
        tokens=proposal.tokens,
        inner_steps=proposal.inner_steps,
        loss=proposal.loss,
        metrics=proposal.metrics,
        exchange=exchange,
        norm=proposal.norm,
    )


def make_attempt(
    term: Term,
    step: int,
    number: int,
    parent: bytes,
    proposals: dict[str, m.Propose],
    links: LinkPlan,
    members: Members,
    rules: Rules,
    clips: dict[str, float],
    disputed: tuple[Disputed, ...],
    patience_seconds: float = 0.0,
) -> Attempt:
    """The record of an attempt to reduce these proposals, weighted by their counts.

    `links` says which of the members own what, and how long it should take; `clips` by what some are
    multiplied besides, and `disputed` of which pieces copies are to be measured.
    """
    counts = {island: p.tokens if p.count is None else p.count for island, p in proposals.items()}
    total = sum(counts.values())
    shares = tuple(
        Share(
            island=island,
            payload=p.payload,
            tokens=p.tokens,
            weight=float(np.float32(counts[island] / total)),
            clip=clips.get(island, 1.0),
        )
        for island, p in sorted(proposals.items())
    )
    return Attempt(
        term=term,
        step=step,
        number=number,
        parent=parent,
        codec=rules.codec,
        lr=rules.lr,
        momentum=rules.momentum,
        participants=shares,
        slices=links.slices,
        addresses={part.owner: members[part.owner].addresses for part in links.slices},
        seconds=links.seconds,
        patience_seconds=patience_seconds,
        disputed=disputed,
    )


def secret(attempt: Attempt, sign: Callable[[bytes], bytes]) -> bytes:
    """Bytes that belong to an attempt, and that only who has the run's key can know."""
    return sign(b"the secret of " + encode(attempt))
