"""The records that a swarm keeps on disk, and the base of everything that travels.

Messages that nobody keeps are in `messages/`, by plane. Digests and roots are 32 raw bytes. A *step* is an
outer step: update `step` turns state `step` into state `step + 1`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from atoll.samples import Ranges, merge, num_samples, number_of, split
from atoll.swarm.address import Addresses
from atoll.swarm.bounds import (
    MAX_PARTICIPANTS,
    MAX_STAGES,
    Count,
    Index,
    Label,
    Lease,
    Number,
    Root,
    Signature,
)
from atoll.swarm.layout import Layout, digest

_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The base of every message and record. Its encoding begins with the name of its type."""


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of a coordinator's reign; the nonce tells apart two reigns that took the same number.

    The run signs it, so that a coordinator need not believe whoever says that a higher one has begun.
    """

    counter: Number = 0
    nonce: Label = ""
    signature: Signature = b""

    def unsigned(self) -> bytes:
        """The bytes that the signature covers."""
        return _encoder.encode(("term", self.counter, self.nonce))

    def may_follow(self, other: "Term") -> bool:
        """Whether this reign is `other`, or began after it. Two with one number do not follow each other."""
        return self == other or self.counter > other.counter


class RunInfo(Message, frozen=True, kw_only=True):
    """What a run is: all that a stranger needs besides a certificate. Coordinator and islands keep it."""

    run_id: str
    name: str
    recipe: dict[str, Any]  # the run's part of the recipe
    genesis_root: bytes  # of state 0
    layout: Layout
    data_digest: str  # of the prepared data's manifest; empty where a run has none
    record_key: bytes  # Ed25519 public key that signs commit records; the run's certificate names it too
    tokenizer: str = ""  # BLAKE3 of its tokenizer.json, hex; empty where a run has none
    signature: bytes = b""  # by the record key: so whoever has the certificate can believe a copy

    def unsigned(self) -> bytes:
        """The bytes that the signature covers."""
        return encode(msgspec.structs.replace(self, signature=b""))


class Plan(Message, frozen=True, kw_only=True):
    """Coordinator to an island: train alone from state `step` on these samples."""

    term: Term
    step: int
    parent: bytes  # root of state `step`
    island: str
    lease: Ranges
    stage_starts: tuple[int, ...]  # sample index at which each stage of the mixture began
    inner_steps: int
    first_inner_step: int  # the plan's first inner step, counted from the run's beginning as schedules do
    seconds_left: float = math.inf  # from when the plan is told until the island proposes what it has done
    handover_seconds: float = 0.0  # how many of these seconds copying and encoding usually take

    @property
    def num_samples(self) -> int:
        """How many samples the lease holds."""
        return num_samples(self.lease)

    @property
    def samples(self) -> list[int]:
        """The samples in the order in which they are trained on: turns of partitions are spread evenly."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for first, count in self.lease:
            groups[number_of(first)] += range(first, first + count)
        placed = [
            ((place + 0.5) / len(group), number, index)
            for number, group in groups.items()
            for place, index in enumerate(group)
        ]
        return [index for _, _, index in sorted(placed)]

    def is_same_work(self, other: "Plan") -> bool:
        """Whether both plan the same work, though told by different coordinators or at different times."""
        told_alike = msgspec.structs.replace(
            self, term=other.term, seconds_left=other.seconds_left, handover_seconds=other.handover_seconds
        )
        return told_alike == other

    def split_lease(self, inner_steps: int) -> tuple[Ranges, Ranges]:
        """(the samples of the first `inner_steps` inner steps, the samples of the others)."""
        if inner_steps >= self.inner_steps:
            return self.lease, ()
        count = self.num_samples * inner_steps // self.inner_steps
        if len({number_of(first) for first, _ in self.lease}) == 1:  # then no sample need be listed
            return split(self.lease, count)
        ranges = [(sample, 1) for sample in self.samples]
        return merge(ranges[:count]), merge(ranges[count:])

    def used_lease(self, inner_steps: int) -> Ranges:
        """The samples of the first `inner_steps` inner steps."""
        used, _ = self.split_lease(inner_steps)
        return used

    def has_time(
        self, num_done: int, num_more: int, elapsed_seconds: float, since_told_seconds: float
    ) -> bool:
        """Whether more inner steps fit at the average pace of those done; the first always does.

        The time that the plan leaves counts from when it was last told, the pace from its beginning.
        """
        available_seconds = self.seconds_left - self.handover_seconds - since_told_seconds
        return not num_done or elapsed_seconds * num_more <= available_seconds * num_done


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One participant of an update, and its weight."""

    island: Label
    payload: Root  # root of its pieces' digests
    tokens: Count
    weight: float  # normalised over the participants; exactly representable in fp32
    clip: float = 1.0  # its values are multiplied by it as well, if they are unusually large; fp32

    @property
    def factor(self) -> float:
        """By what its values are multiplied in the sum; to be rounded to fp32, once."""
        return self.weight * self.clip


class Slice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pieces that one owner reduces."""

    owner: str
    first_piece: int
    num_pieces: int

    @property
    def pieces(self) -> range:
        """The numbers of its pieces."""
        return range(self.first_piece, self.first_piece + self.num_pieces)


class Disputed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pieces of a step whose sum was false in an attempt before, by the measures with this seed.

    Who owns them now tells what each participant's copies measure (`Reduced.measures`).
    """

    seed: bytes
    first_piece: int
    num_pieces: int

    @property
    def pieces(self) -> range:
        """The numbers of its pieces."""
        return range(self.first_piece, self.first_piece + self.num_pieces)


class Attempt(Message, frozen=True, kw_only=True):
    """Coordinator to all ready agents: these participants' payloads are reduced by these owners."""

    term: Term
    step: int
    number: int  # attempts are counted within a step, from 1
    parent: bytes  # root of state `step`
    codec: str
    lr: float
    momentum: float
    participants: tuple[Share, ...]  # sorted by island
    slices: tuple[Slice, ...]
    addresses: dict[str, Addresses]  # of the owners, by island
    seconds: float = 0.0  # how long the reduction should take by what is known of the links; 0: nothing is
    patience_seconds: float = 0.0  # how long an agent waits for another's next piece; 0: as long as it likes
    disputed: tuple[Disputed, ...] = ()

    @property
    def involved(self) -> list[str]:
        """The participants and the owners, sorted."""
        return sorted({s.island for s in self.participants} | {s.owner for s in self.slices if s.num_pieces})

    def has_owner(self, island: str) -> bool:
        """Whether an island reduces at least one piece."""
        return any(s.owner == island and s.num_pieces for s in self.slices)

    def share_of(self, island: str) -> Share | None:
        """An island's share; None if it is no participant."""
        return next((s for s in self.participants if s.island == island), None)


class Assembled(Message, frozen=True, kw_only=True):
    """Coordinator to all ready agents: all slices are reduced, so the update is fixed."""

    term: Term
    step: int
    number: int
    digests: tuple[bytes, ...]  # of each slice: root of its pieces' digests
    seed: bytes = b""  # of what holders measure (`audit.py`); nobody could know it before


class UpdateHeader(Message, frozen=True, kw_only=True):
    """What an update is, apart from its bytes. The digest of the header names the update."""

    step: int
    parent: bytes  # root of state `step`
    codec: str
    lr: float
    momentum: float
    participants: tuple[Share, ...]
    slices: tuple[tuple[int, int, bytes], ...]  # (first piece, number of pieces, root of their table)

    def digest(self) -> bytes:
        """The update's name."""
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
    """The one decision about a step, signed with the run's key; it stays valid in later terms.

    Each record names the digest of the one before, so that they are a chain.
    """

    term: Term
    branch: Number  # how many rewinds came before
    step: Number
    number: Number  # of the attempt that made the update
    parent: Root  # root of state `step`
    update: Root  # digest of the update's header
    next_root: Root  # root of state `step + 1`
    participants: Annotated[tuple[Share, ...], Meta(max_length=MAX_PARTICIPANTS)]
    leases: Annotated[
        tuple[tuple[Label, Lease], ...], Meta(max_length=MAX_PARTICIPANTS)
    ]  # (participant, the samples that it spent)
    previous: Root  # digest of the record before
    # Sample at which each stage of the mixture began: so the records alone say what each sample was.
    stage_starts: Annotated[tuple[Index, ...], Meta(max_length=MAX_STAGES)] = ()
    signature: Signature = b""

    @property
    def islands(self) -> set[str]:
        """The participants' ids."""
        return {share.island for share in self.participants}

    @property
    def tokens(self) -> int:
        """How many tokens all participants together trained on."""
        return sum(share.tokens for share in self.participants)

    def unsigned(self) -> bytes:
        """The bytes that the signature covers."""
        return encode(msgspec.structs.replace(self, signature=b""))

    def digest(self) -> bytes:
        """What the next record names as `previous`; the signature is part of it."""
        return digest(encode(self))


class Rewind(Message, frozen=True, kw_only=True):
    """The operator's decision to go back to state `step`: all commits from `step` on are abandoned."""

    branch: Number  # the branch that begins here; a run begins on branch 0
    step: Number
    root: Root  # of state `step`
    previous: Root  # digest of the commit record of `step - 1`; empty for state 0
    signature: Signature = b""

    def unsigned(self) -> bytes:
        """The bytes that the signature covers."""
        return encode(msgspec.structs.replace(self, signature=b""))


def is_valid_after(record: CommitRecord, rewinds: Sequence[Rewind]) -> bool:
    """Whether none of a run's rewinds, given in order, has abandoned a record."""
    return record.branch <= len(rewinds) and all(
        record.step < rewind.step for rewind in rewinds[record.branch :]
    )


def encode(message: Message) -> bytes:
    """A message as msgpack. Equal messages give equal bytes, so the digest of these names the message."""
    return _encoder.encode(message)


K = TypeVar("K", bound=Message)


def decode(data: bytes | memoryview, kind: type[K]) -> K:
    """The record of this very kind that `data` is. Raises ValueError for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
