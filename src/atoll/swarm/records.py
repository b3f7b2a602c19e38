"""The durable records of a swarm, and the base of everything that travels or is kept.

Messages that nobody keeps are in `messages/`, by plane. Digests and roots are 32 raw bytes. A *step* is an
outer step: update `step` turns state `step` into state `step + 1`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from atoll.samples import Ranges, merge, num_samples, number_of, split
from atoll.swarm.layout import Layout, digest

_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of everything that travels or is kept."""


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of a coordinator's reign; the nonce tells two that took the same number apart."""

    counter: int = 0
    nonce: str = ""

    def outranks(self, other: "Term") -> bool:
        """Whether this reign is the same as `other`, or began after it; of two with one number neither
        does.
        """
        return self == other or self.counter > other.counter


class RunInfo(Message, frozen=True, kw_only=True):
    """What a run is: all that a stranger needs besides a certificate. Coordinator and islands keep it."""

    run_id: str
    name: str
    recipe: dict[str, Any]  # the run's part of the recipe
    genesis_root: bytes  # of state 0
    layout: Layout
    data_digest: str  # of the prepared data's manifest; empty where a run has none
    record_key: bytes  # Ed25519 public key that signs commit records


class Plan(Message, frozen=True, kw_only=True):
    """Coordinator to an island: train alone from state `step` on these samples."""

    term: Term
    step: int
    parent: bytes  # root of state `step`
    island: str
    lease: Ranges
    stage_starts: tuple[int, ...]  # sample index at which each stage of the mixture began
    inner_steps: int
    first_inner_step: int  # position on the schedules
    seconds_left: float = math.inf  # from when it is told; when they are over, what is done is proposed
    handover_seconds: float = 0.0  # the part of them that copying and encoding usually take

    @property
    def num_samples(self) -> int:
        return num_samples(self.lease)

    @property
    def samples(self) -> list[int]:
        """Their indices, in the order in which they are trained on: turns of partitions are spread evenly."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for first, count in self.lease:
            groups[number_of(first)] += range(first, first + count)
        placed = [
            ((place + 0.5) / len(group), number, index)
            for number, group in groups.items()
            for place, index in enumerate(group)
        ]
        return [index for _, _, index in sorted(placed)]

    def is_again(self, other: "Plan") -> bool:
        """Whether `other` asks for the same work: perhaps of another term, and with other time left."""
        same = msgspec.structs.replace(
            self, term=other.term, seconds_left=other.seconds_left, handover_seconds=other.handover_seconds
        )
        return same == other

    def split_lease(self, inner_steps: int) -> tuple[Ranges, Ranges]:
        """(the samples of the first `inner_steps` inner steps, the samples of the rest)."""
        if inner_steps >= self.inner_steps:
            return self.lease, ()
        count = self.num_samples * inner_steps // self.inner_steps
        if len({number_of(first) for first, _ in self.lease}) == 1:  # else `samples` lists them all
            return split(self.lease, count)
        samples = self.samples
        used, unused = (merge((sample, 1) for sample in part) for part in (samples[:count], samples[count:]))
        return used, unused

    def used(self, inner_steps: int) -> Ranges:
        """The samples of the first `inner_steps` inner steps."""
        return self.split_lease(inner_steps)[0]

    def has_time(self, done: int, more: int, elapsed_seconds: float) -> bool:
        """Whether `more` inner steps fit as well, at the pace of the `done` ones, which took
        `elapsed_seconds`.
        """
        available_seconds = self.seconds_left - self.handover_seconds
        return not done or elapsed_seconds * (done + more) <= available_seconds * done


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One participant of an update."""

    island: str
    payload: bytes
    tokens: int
    weight: float  # normalised over the participants; exactly representable in fp32


class Slice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pieces that one owner reduces."""

    owner: str
    first_piece: int
    num_pieces: int

    @property
    def pieces(self) -> range:
        return range(self.first_piece, self.first_piece + self.num_pieces)


class Attempt(Message, frozen=True, kw_only=True):
    """Coordinator to all ready agents: reduce these payloads, by these owners."""

    term: Term
    step: int
    number: int
    parent: bytes
    codec: str
    lr: float
    momentum: float
    participants: tuple[Share, ...]  # sorted by island
    slices: tuple[Slice, ...]
    addresses: dict[str, str]  # of the owners

    @property
    def involved(self) -> list[str]:
        """Participants and owners, sorted."""
        return sorted({s.island for s in self.participants} | {s.owner for s in self.slices if s.num_pieces})

    def owner_of(self, island: str) -> bool:
        return any(s.owner == island and s.num_pieces for s in self.slices)

    def share_of(self, island: str) -> Share | None:
        return next((s for s in self.participants if s.island == island), None)


class Assembled(Message, frozen=True):
    """Coordinator to all ready agents: the update is now fixed; here is the root of each slice."""

    term: Term
    step: int
    number: int
    digests: tuple[bytes, ...]


class UpdateHeader(Message, frozen=True, kw_only=True):
    """What an update is, apart from its bytes. Its digest names the update."""

    step: int
    parent: bytes
    codec: str
    lr: float
    momentum: float
    participants: tuple[Share, ...]
    slices: tuple[tuple[int, int, bytes], ...]  # (first piece, number of pieces, root of their table)

    def digest(self) -> bytes:
        return digest(encode(self))


def header(attempt: Attempt, assembled: Assembled) -> UpdateHeader:
    """The header of the update that `attempt` assembled into."""
    slices = tuple(
        (s.first_piece, s.num_pieces, d) for s, d in zip(attempt.slices, assembled.digests, strict=True)
    )
    return UpdateHeader(
        step=attempt.step,
        parent=attempt.parent,
        codec=attempt.codec,
        lr=attempt.lr,
        momentum=attempt.momentum,
        participants=attempt.participants,
        slices=slices,
    )


class CommitRecord(Message, frozen=True, kw_only=True):
    """The one decision about a step: a chain (by `previous`), signed with the run's key, valid whatever the
    term.
    """

    term: Term
    branch: int
    step: int
    number: int
    parent: bytes
    update: bytes
    next_root: bytes
    participants: tuple[Share, ...]
    leases: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]  # spent by this commit, per participant
    previous: bytes  # digest of the record before
    stage_starts: tuple[
        int, ...
    ] = ()  # of the mixture, so that who knows the records knows what each sample was
    signature: bytes = b""

    @property
    def islands(self) -> set[str]:
        """Who took part."""
        return {share.island for share in self.participants}

    @property
    def tokens(self) -> int:
        return sum(share.tokens for share in self.participants)

    def unsigned(self) -> bytes:
        """The bytes that the signature covers."""
        return encode(msgspec.structs.replace(self, signature=b""))

    def digest(self) -> bytes:
        return digest(encode(self))


class Rewind(Message, frozen=True, kw_only=True):
    """The operator's decision to go on from an older state: what was committed from `step` on is
    abandoned.
    """

    branch: int  # that it opens; a run begins on branch 0
    step: int
    root: bytes  # of state `step`
    previous: bytes  # digest of the record of step - 1
    signature: bytes = b""

    def unsigned(self) -> bytes:
        return encode(msgspec.structs.replace(self, signature=b""))


def is_valid_after(record: CommitRecord, rewinds: Sequence[Rewind]) -> bool:
    """Whether a record is history still. `rewinds`: all there were, in order."""
    return record.branch <= len(rewinds) and all(
        record.step < rewind.step for rewind in rewinds[record.branch :]
    )


def encode(message: Message) -> bytes:
    """msgpack; equal messages give equal bytes, so a digest of them names the message."""
    return _encoder.encode(message)


K = TypeVar("K", bound=Message)


def decode(data: bytes | memoryview, kind: type[K]) -> K:
    """The record of this very kind that `data` is. Raises ValueError for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
