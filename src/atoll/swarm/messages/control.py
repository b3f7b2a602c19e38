"""The control plane: what an agent and its coordinator say to each other on the agent's control line.

The agent dials, says `Hello` and keeps the line open; from then on either end speaks when it has something
to say. `Plan`, `Attempt` and `Assembled` travel here as well. They are defined in `records.py`, because the
coordinator keeps them.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from atoll.metrics import Exchange, Metrics, Rates
from atoll.status import Overview
from atoll.swarm.address import Addresses
from atoll.swarm.bounds import (
    MAX_PARTICIPANTS,
    Count,
    Digest,
    Given,
    Label,
    Lease,
    Measures,
    Number,
    Partitions,
    Root,
    Signed,
    Square,
)
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Message, Plan, Rewind, Term, encode
from atoll.words import Line, Name

VERSION = 5  # of this protocol: raise it with every change that an agent of before would misread
RECORDS_AT_ONCE, RECORDS_BYTES = 64, 1 << 20  # in a message: so many, or fewer where they are large


# ------------------------------------------------------------------------------------------------ membership
class Hello(Message, frozen=True, kw_only=True):
    """An agent's first message on every control line: who it is, and what it holds."""

    session: Label  # new at every start of the agent's process
    version: Number  # VERSION of its code
    recipe_digest: Label
    self_test: Root  # digest of what its kernels make of a fixed input; other arithmetic is refused
    contributor: Name  # whom its committed tokens are credited to
    relay: bool  # it has no trainer
    port: Number  # where it listens for peers; 0 if it only dials out
    addresses: Given  # where it says that peers reach it; the coordinator also tries the host that it sees
    head: Number  # how many commit records it has stored
    head_root: Root  # of the state that they lead to
    term: Term  # the highest that it has seen; believed if the run has signed it
    num_rewinds: Number = 0  # that it knows
    # The newest of these records and rewinds: they prove, by the run's signature, what it says that it knows.
    newest_record: CommitRecord | None = None
    newest_rewind: Rewind | None = None
    metered: bool = False  # it is no donor: what it sends costs
    # Number by name, SOURCE/NAME, of what it holds of private sources.
    partitions: Partitions = msgspec.field(default_factory=dict[str, int])


class Refused(Message, frozen=True):
    """The coordinator does not take this agent in. The agent ends, and gives people the reason."""

    reason: str


class Evicted(Message, frozen=True):
    """The operator has removed this island from the run. Its agent ends, and gives people the reason."""

    reason: str


class Revoked(Message, frozen=True):
    """The coordinator tells an agent who was evicted: it speaks with them no more.

    This replaces what was told before.
    """

    islands: tuple[str, ...]


class Welcome(Message, frozen=True):
    """The coordinator takes an agent in, or tells all of them anew where the run is after that has changed.

    An agent that knows fewer commits asks for their records before it says `Ready`.
    """

    term: Term
    head: int  # how many outer steps are committed
    head_root: bytes  # of the state that they lead to


class Coordinators(Message, frozen=True):
    """The coordinator tells an agent where this run's coordinators answer: itself, and those that stand by.

    The agent keeps the list on disk and dials the next address when a line breaks.
    """

    addresses: Addresses


class Donors(Message, frozen=True):
    """The coordinator tells an agent who can give state, updates and data; this replaces the list before."""

    addresses: dict[str, Addresses]  # by island: ready agents that can be reached


class TryToReach(Message, frozen=True):
    """The coordinator asks an agent of another machine to ping one that is on its own.

    From there it cannot see itself whether a firewall or a router lets others through.
    """

    island: str
    addresses: Addresses


class Tried(Message, frozen=True):
    """The answer to `TryToReach`."""

    island: Label
    reason: Line  # why it could not be reached; "" if it answered


class Rewound(Message, frozen=True):
    """The coordinator tells an agent the rewinds that it does not know, in order. A `Welcome` follows."""

    rewinds: Annotated[tuple[Rewind, ...], Meta(min_length=1)]


class WantRecords(Message, frozen=True):
    """An agent asks for commit records that it lacks; a coordinator whose database is an old backup, too."""

    since: Number  # the first outer step asked for


class Records(Message, frozen=True):
    """The answer to `WantRecords`: the next commit records that the sender has, in order.

    It has no more once an answer is empty.
    """

    records: Annotated[tuple[CommitRecord, ...], Meta(max_length=RECORDS_AT_ONCE)]

    @staticmethod
    def first_of(records: Sequence[CommitRecord]) -> "Records":
        """The first of `records`: as many as are sent at once, and at least one of those that there are.

        A record grows with its participants, and a message must fit a frame.
        """
        sizes = accumulate(len(encode(record)) for record in records[:RECORDS_AT_ONCE])
        count = sum(size <= RECORDS_BYTES for size in sizes)
        return Records(tuple(records[: max(1, count)]))


class Ready(Message, frozen=True):
    """An agent holds state `step`, and so does its trainer. Both roots are of bytes that were just hashed."""

    step: Number
    root: Root  # of the state on the agent's disk
    loaded: Root  # root over the weights that the trainer really holds; empty for a relay


class Beat(Message, frozen=True, kw_only=True):
    """An agent's sign of life, every second, with how far it is. Sums are since its process began."""

    step: Signed  # of the newest plan that its trainer has worked on; -1 if there was none
    inner_step: Number  # how many of its inner steps are done
    metrics: Metrics = Metrics()  # the island's newest
    sent_bytes: Count = 0
    note: Line = ""  # what the agent is doing, for people
    # The number of the attempt whose update is being put together here; 0 if there is none.
    attempt: Number = 0
    num_pieces: Number = 0  # of that update that are here already
    rates: Rates = Rates()  # what its link carries


class BeatHeard(Message, frozen=True):
    """The coordinator's answer to every `Beat`: it has heard it, and so is not frozen itself."""

    overview: Overview  # at most a second old


class Finished(Message, frozen=True):
    """The coordinator tells an agent that the run's last outer step is committed."""

    step: int  # number of the last state


# --------------------------------------------------------------------------------------------- one outer step
class Propose(Message, frozen=True, kw_only=True):
    """An agent offers its island's work in an outer step.

    The payload is encoded and on its disk. The root of the payload's pieces fixes it before any is sent.
    """

    step: Number
    parent: Root  # root of the state that it was made from
    lease: Lease  # samples that it was made from, as (first, count)
    payload: Root  # root of the table of its pieces
    tokens: Count
    inner_steps: Number
    loss: float | None  # mean over the inner steps; None where no token had a label
    norm: float  # of what the payload decodes to
    # What the loss is a mean over, by which the proposal is weighed: pairs of answers, or the tokens of
    # chats that are trained on. None: its tokens.
    count: Count | None = None
    compute_seconds: float = 0.0  # that its inner steps took
    handover_seconds: float = 0.0  # from its last inner step until this could be sent: copying, encoding
    metrics: Metrics = Metrics()  # of the island, when it began to encode


class Reduced(Message, frozen=True, kw_only=True):
    """An owner tells the coordinator that its slice of an attempt's update is done, and by which root."""

    step: Number
    number: Number  # of the attempt
    slice: Number  # index among the attempt's slices
    digest: Digest  # root of the table of the slice's reduced pieces
    # Of each participant, in the attempt's order: of what the owner has decoded of it in this slice.
    squared_norms: Annotated[tuple[Square, ...], Meta(max_length=MAX_PARTICIPANTS)]
    # Of each disputed piece of this slice, and of each participant's copy of it: LANES float64.
    measures: Measures = b""


FaultKind = Literal[
    "unreachable",  # a participant: an owner could not be dialled, or its stream broke or stood still
    "silent",  # an owner: a participant's next piece did not come in time
    "refused",  # an owner: a participant's piece is not the one that was proposed
    "failed",  # an agent: it could not complete or write the update
    "lost",  # a participant: its own payload is gone
]


class Fault(Message, frozen=True, kw_only=True):
    """An agent tells the coordinator what went wrong in an attempt, and with whom; this closes the attempt.

    Who is charged, and with what, depends on the kind (`coordinator/standing.py`).
    """

    step: Number
    number: Number  # of the attempt
    peer: Label  # the island at the other end; "" or the sender itself where nobody else is concerned
    kind: FaultKind
    text: Line  # for people


class Exchanged(Message, frozen=True):
    """An agent tells the coordinator what an attempt took of it; its `Held` follows."""

    step: Number
    number: Number  # of the attempt
    exchange: Exchange


class Held(Message, frozen=True, kw_only=True):
    """An agent promises to keep an update, which is on its disk, until a record for its step is stored."""

    step: Number
    number: Number  # of the attempt
    update: Digest  # digest of the update's header
    next_root: Digest  # of the state that it leads to, as this agent has computed it
    # With the seed of `Assembled` (`swarm/audit.py`): of the update, and of this island's own payload in it.
    measure: Measures = b""
    own_measure: Measures = b""


class Committed(Message, frozen=True):
    """The coordinator tells every agent that is connected that an outer step is committed, durably."""

    record: CommitRecord


# ------------------------------------------------------------------------------------------------------ doors
ToCoordinator = (
    Hello | WantRecords | Records | Ready | Beat | Propose | Reduced | Fault | Exchanged | Held | Tried
)
ToAgent = (
    Refused
    | Evicted
    | Revoked
    | Welcome
    | Coordinators
    | Donors
    | TryToReach
    | Rewound
    | WantRecords
    | Records
    | BeatHeard
    | Plan
    | Attempt
    | Assembled
    | Committed
    | Finished
)
# Records are the largest: RECORDS_BYTES, or one that is larger.
COORDINATOR_DOOR: Door[ToCoordinator] = Door("a coordinator", "an agent", ToCoordinator, 2 * RECORDS_BYTES)
AGENT_DOOR: Door[ToAgent] = Door("an agent", "its coordinator", ToAgent)
