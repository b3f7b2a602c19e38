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
    Term,
    UpdateHeader,
)

# ------------------------------------------------------------------------------------------------ one outer step


class Propose(Message):
    """An island's finished work. `payload` is the root of its encoded pseudo-gradient's pieces, fixed before sending."""

    step: int
    parent: bytes
    payload: bytes
    tokens: int
    inner_steps: int
    loss: float
    norm: float  # of the pseudo-gradient


class Reduced(Message):
    """Owner to coordinator: my slice is done; `digest` is the root of its reduced pieces."""

    step: int
    number: int
    slice: int
    digest: bytes


class Held(Message):
    """A promise: I hold this update durably until a commit record for its step is stored."""

    step: int
    number: int
    update: bytes
    next_root: bytes


class Committed(Message):
    record: CommitRecord


class Fault(Message):
    """Something went wrong with a peer in an attempt; charged to both ends of the edge."""

    step: int
    number: int
    peer: str
    kind: str
    text: str


# ------------------------------------------------------------------------------------------------ membership


class RunInfo(Message):
    """What a run is: all that a stranger needs besides a certificate."""

    run_id: str
    name: str
    recipe: dict[str, Any]  # the run's part of the recipe
    genesis_root: bytes
    layout: Layout
    data_digest: str  # of the prepared data's manifest
    record_key: bytes  # Ed25519 public key that signs commit records


class Enroll(Message):
    """A ticket against a certificate; idempotent for the same public key."""

    secret: str
    csr: bytes
    contributor: str


class Enrolled(Message):
    certificate: bytes
    run: RunInfo


class Hello(Message):
    """First on every control stream."""

    session: str  # new at every start of the agent
    recipe_digest: str
    self_test: bytes  # digest of what the kernels make of a fixed input: different arithmetic stays out
    contributor: str
    relay: bool
    port: int  # where peers reach this agent; 0: it only dials out
    head: int  # newest commit stored
    head_root: bytes
    term: Term  # highest seen


class Welcome(Message):
    term: Term
    head: int
    head_root: bytes


class Refused(Message):
    reason: str


class View(Message):
    """Who can give state, updates and data: ready agents that can be reached."""

    donors: dict[str, str]  # island -> address


class Want(Message):
    """Commit records from `since` on, please."""

    since: int


class Records(Message):
    records: tuple[CommitRecord, ...]


class Ready(Message):
    """My state is `step` with this root; `loaded` is the root over the weights that the trainer really holds."""

    step: int
    root: bytes
    loaded: bytes  # empty for a relay


class Beat(Message):
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


class Finished(Message):
    """The run's last update is committed."""

    step: int


class Evict(Message):
    reason: str


# ------------------------------------------------------------------------------------------------ operator


class Status(Message):
    pass


class StatusReply(Message):
    status: dict[str, Any]


class Invite(Message):
    uses: int
    hours: float


class Invited(Message):
    ticket: str


class EvictIsland(Message):
    island: str
    reason: str


class Done(Message):
    pass


# ------------------------------------------------------------------------------------------------ between agents


class Ping(Message):
    """Can I reach you? Answered by Done."""


class ReduceOpen(Message):
    """Participant to owner: my payload's pieces for your slice follow; the bulk of this frame is its piece table."""

    step: int
    number: int
    slice: int


class Piece(Message):
    """One piece, both ways: encoded payload up, reduced update down. The bulk of the frame is its bytes."""

    index: int


class FetchHeader(Message):
    """The header of a committed or held update."""

    step: int
    update: bytes


class FetchPieces(Message):
    """Pieces of an update's slice, by the slice's root. `first` counts within the slice."""

    step: int
    slice_root: bytes
    first: int
    count: int


class FetchSliceTable(Message):
    step: int
    slice_root: bytes


class FetchTable(Message):
    """Table of state `step`."""

    step: int


class FetchChunk(Message):
    """A chunk of the outer state (parameters, then momentum), at whatever logged version the donor has."""

    index: int


class FetchManifest(Message):
    """The manifest of the prepared data."""


class FetchBlock(Message):
    """A block of a file of the prepared data."""

    file: str
    index: int


class Found(Message):
    """The answer to a Fetch: `size` bytes follow in the bulk of this and further frames."""

    size: int
    step: int = -1  # version of a chunk


class Missing(Message):
    reason: str


# ------------------------------------------------------------------------------------------------ agent and trainer


class Attached(Message):
    """Trainer to agent: I am here, and hold nothing yet."""


class WantData(Message):
    """Trainer to agent: where is the prepared data? Fetched from peers first, if need be."""


class DataAt(Message):
    path: str


class Work(Message):
    plan: Plan


class Progress(Message):
    step: int
    inner_step: int
    loss: float
    tokens_per_second: float


class Proposed(Message):
    """My local parameters lie in the mapping."""

    step: int
    tokens: int
    inner_steps: int
    loss: float
    compute_seconds: float


class Adopt(Message):
    """Load state `step` from the mapping; the table lets the trainer prove what it loaded."""

    step: int
    root: bytes
    table: bytes


class Adopted(Message):
    step: int
    loaded: bytes  # root with the trainer's own digests in place of the parameters'


class Stopped(Message):
    """Agent to trainer: no more work, and why (empty: the run is finished)."""

    reason: str


AnyMessage = (
    Plan | Propose | Attempt | Reduced | Assembled | UpdateHeader | Held | CommitRecord | Committed | Fault
    | RunInfo | Enroll | Enrolled | Hello | Welcome | Refused | View | Want | Records | Ready | Beat | Finished | Evict
    | Status | StatusReply | Invite | Invited | EvictIsland | Done
    | Ping | ReduceOpen | Piece | FetchHeader | FetchPieces | FetchSliceTable | FetchTable | FetchChunk
    | FetchManifest | FetchBlock | Found | Missing
    | Attached | WantData | DataAt | Work | Progress | Proposed | Adopt | Adopted | Stopped
)  # fmt: skip

_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def decode(data: bytes | memoryview) -> AnyMessage:
    """Raises ValueError for anything that is not exactly one known message."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not a message of this protocol: {error}") from error
