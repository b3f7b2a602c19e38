"""Every message of a swarm, each defined once: for the wire, the log and the simulator."""

from typing import Any

import msgspec

from atoll.swarm.layout import Layout
from atoll.swarm.records import (
    Assembled,
    Attempt,
    CommitRecord,
    Message,
    Plan,
    Rewind,
    Term,
    UpdateHeader,
)

VERSION = 2  # of this protocol: raise it with every change that an agent of before would misread

# --------------------------------------------------------------------------------------------- one outer step


class Propose(Message, frozen=True, kw_only=True):
    """An island's finished work. `payload` is the root of its encoded pseudo-gradient's pieces, fixed before
    sending.
    """

    step: int
    parent: bytes
    lease: tuple[tuple[int, int], ...]  # the samples that it was made from
    payload: bytes
    tokens: int
    inner_steps: int
    loss: float
    norm: float  # of the pseudo-gradient
    handover_seconds: float = 0.0  # from its last inner step until this could be sent: copying, encoding


class Reduced(Message, frozen=True):
    """Owner to coordinator: my slice is done; `digest` is the root of its reduced pieces."""

    step: int
    number: int
    slice: int
    digest: bytes


class Held(Message, frozen=True):
    """A promise: I hold this update durably until a commit record for its step is stored."""

    step: int
    number: int
    update: bytes
    next_root: bytes


class Committed(Message, frozen=True):
    record: CommitRecord


class Fault(Message, frozen=True, kw_only=True):
    """Something went wrong with a peer in an attempt; charged to both ends of the edge."""

    step: int
    number: int
    peer: str
    kind: str
    text: str


# ------------------------------------------------------------------------------------------------ membership


class RunInfo(Message, frozen=True, kw_only=True):
    """What a run is: all that a stranger needs besides a certificate."""

    run_id: str
    name: str
    recipe: dict[str, Any]  # the run's part of the recipe
    genesis_root: bytes
    layout: Layout
    data_digest: str  # of the prepared data's manifest
    record_key: bytes  # Ed25519 public key that signs commit records


class Enroll(Message, frozen=True):
    """A ticket against a certificate; idempotent for the same public key."""

    secret: str
    csr: bytes
    contributor: str


class Enrolled(Message, frozen=True):
    certificate: bytes
    run: RunInfo


class Hello(Message, frozen=True, kw_only=True):
    """First on every control stream."""

    session: str  # new at every start of the agent
    version: int  # VERSION of its code
    recipe_digest: str
    self_test: bytes  # digest of what the kernels make of a fixed input: different arithmetic stays out
    contributor: str
    relay: bool
    port: int  # where peers reach this agent; 0: it only dials out
    head: int  # newest commit stored
    head_root: bytes
    term: Term  # highest seen
    branch: int = 0  # how many rewinds it knows
    # Number by name, SOURCE/NAME, of what it holds of private sources.
    partitions: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class Welcome(Message, frozen=True):
    term: Term
    head: int
    head_root: bytes


class Refused(Message, frozen=True):
    reason: str


class View(Message, frozen=True):
    """Who can give state, updates and data: ready agents that can be reached."""

    donors: dict[str, str]  # island -> address


class Coordinators(Message, frozen=True):
    """Where coordinators of this run are, the leader and those standing by; islands keep it."""

    addresses: tuple[str, ...]


class Rewound(Message, frozen=True):
    """Coordinator to an island that does not know of them: rewinds, in order."""

    rewinds: tuple[Rewind, ...]


class Want(Message, frozen=True):
    """Commit records from `since` on, please."""

    since: int


class Records(Message, frozen=True):
    records: tuple[CommitRecord, ...]


class Ready(Message, frozen=True):
    """My state is `step` with this root; `loaded` is the root over the weights that the trainer really
    holds.
    """

    step: int
    root: bytes
    loaded: bytes  # empty for a relay


class Beat(Message, frozen=True, kw_only=True):
    """Every BEAT_SECONDS: alive, and how far."""

    step: int
    inner_step: int
    loss: float
    tokens_per_second: float
    sent_bytes: int
    compute_seconds: float
    communicate_seconds: float
    wait_seconds: float
    note: str = ""  # what the agent is doing, for people
    attempt: int = 0  # whose update is being put together here
    pieces: int = 0  # of that update that are here already


class Finished(Message, frozen=True):
    """The run's last update is committed."""

    step: int


class Evict(Message, frozen=True):
    reason: str


# ------------------------------------------------------------------------------------------------ operator


class Status(Message, frozen=True):
    pass


class StatusReply(Message, frozen=True):
    status: dict[str, Any]


class Invite(Message, frozen=True):
    uses: int
    hours: float


class Invited(Message, frozen=True):
    ticket: str


class EvictIsland(Message, frozen=True):
    island: str
    reason: str


class Done(Message, frozen=True):
    pass


# --------------------------------------------------------------------------------------------- between agents


class Ping(Message, frozen=True):
    """Can I reach you? Answered by Done."""


class ReduceOpen(Message, frozen=True):
    """Participant to owner: my payload's pieces for your slice follow; the bulk of this frame is its piece
    table.
    """

    step: int
    number: int
    slice: int


class Piece(Message, frozen=True):
    """One piece, both ways: encoded payload up, reduced update down. The bulk of the frame is its bytes."""

    index: int


class FetchHeader(Message, frozen=True):
    """The header of a committed or held update."""

    step: int
    update: bytes


class FetchPieces(Message, frozen=True):
    """Pieces of an update's slice, by the slice's root. `first` counts within the slice."""

    step: int
    slice_root: bytes
    first: int
    count: int


class FetchSliceTable(Message, frozen=True):
    step: int
    slice_root: bytes


class FetchTable(Message, frozen=True):
    """Table of state `step`."""

    step: int


class FetchChunk(Message, frozen=True):
    """A chunk of the outer state (parameters, then momentum), shrunk, at whatever logged version the donor
    has.
    """

    index: int


class FetchManifest(Message, frozen=True):
    """The manifest of the prepared data."""


class FetchBlock(Message, frozen=True):
    """A block of a file of the prepared data."""

    file: str
    index: int


FRAME_BYTES = (
    128 << 10
)  # what a slow link must carry within fetch.ANSWER_SECONDS, for each request that shares it


class Found(Message, frozen=True):
    """The answer to a Fetch: `size` bytes follow in the bulk of this and further frames, FRAME_BYTES in all
    but the last.
    """

    size: int
    step: int = -1  # version of a chunk


class Missing(Message, frozen=True):
    reason: str


# ------------------------------------------------------------------------------------------ agent and trainer


class Attached(Message, frozen=True):
    """Trainer to agent: I am here, and began from this state; a new agent in the place of a dead one lets me
    go on.
    """

    loaded: bytes = b""  # as in Adopted; empty: I hold nothing yet, or not that any more


class Pulse(Message, frozen=True):
    """I am not frozen: from a coordinator in answer to every Beat, from an agent to its trainer every few
    seconds.
    """


class WantData(Message, frozen=True):
    """Trainer to agent: have these blocks of the prepared data here. Replaces an earlier one, which is not
    answered then.
    """

    number: int
    blocks: dict[str, tuple[int, ...]]  # by file; manifest and tokenizer come without being named


class DataAt(Message, frozen=True):
    """What `WantData` of that number wants is in this directory."""

    number: int
    path: str


class Work(Message, frozen=True):
    plan: Plan


class Progress(Message, frozen=True):
    step: int
    inner_step: int
    loss: float
    tokens_per_second: float


class Proposed(Message, frozen=True, kw_only=True):
    """My local parameters lie in the mapping."""

    step: int
    tokens: int
    inner_steps: int
    loss: float
    compute_seconds: float
    handover_seconds: float = 0.0  # since the last inner step


class Adopt(Message, frozen=True):
    """Load state `step` from the mapping; the table lets the trainer prove what it loaded."""

    step: int
    root: bytes
    table: bytes


class Adopted(Message, frozen=True):
    step: int
    loaded: bytes  # root with the trainer's own digests in place of the parameters'


class Stopped(Message, frozen=True):
    """Agent to trainer: no more work, and why (empty: the run is finished)."""

    reason: str


AnyMessage = (
    Plan
    | Propose
    | Attempt
    | Reduced
    | Assembled
    | UpdateHeader
    | Held
    | CommitRecord
    | Rewind
    | Committed
    | Fault
    | RunInfo
    | Enroll
    | Enrolled
    | Hello
    | Welcome
    | Refused
    | View
    | Coordinators
    | Rewound
    | Want
    | Records
    | Ready
    | Beat
    | Finished
    | Evict
    | Status
    | StatusReply
    | Invite
    | Invited
    | EvictIsland
    | Done
    | Ping
    | ReduceOpen
    | Piece
    | FetchHeader
    | FetchPieces
    | FetchSliceTable
    | FetchTable
    | FetchChunk
    | FetchManifest
    | FetchBlock
    | Found
    | Missing
    | Attached
    | Pulse
    | WantData
    | DataAt
    | Work
    | Progress
    | Proposed
    | Adopt
    | Adopted
    | Stopped
)

_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def decode(data: bytes | memoryview) -> AnyMessage:
    """Raises ValueError for anything that is not exactly one known message."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a message of this protocol: {error}") from error
