"""The peers' plane: what members ask of an agent at its own address. It is pinged, reduces, and gives bytes.

Each of the three is a service of its own, with its own doors (`swarm/services.py`).
"""

from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message


# ------------------------------------------------------------------------------------------------------- ping
class Ping(Message, frozen=True):
    """The coordinator, or a member that it has asked to, finds out whether an agent can be reached."""


class Pong(Message, frozen=True):
    """An agent's answer to `Ping`: it can be reached."""


# ----------------------------------------------------------------------------------------------------- reduce
class ReduceOpen(Message, frozen=True):
    """A participant tells an owner that pieces of its payload for one slice follow, in ascending order.

    Several streams, the lanes, share a slice's pieces. The bulk of this frame on lane 0 is the table of all
    its payload's pieces: the digest and the size of each. Its root is what was proposed.
    """

    step: int
    number: int  # of the attempt
    slice: int  # index among the attempt's slices
    lane: int = 0


class Piece(Message, frozen=True):
    """One piece, whose bytes are the frame's bulk: a participant's own to the owner, a reduced one back."""

    index: int  # among all pieces of the flat space


class NoMorePieces(Message, frozen=True):
    """The sender has no more pieces for this lane: the other lanes have taken the rest."""


# ------------------------------------------------------------------------------------------------------ fetch
FRAME_BYTES = 128 << 10  # of an answer: what a slow link must carry within fetch.ANSWER_SECONDS


class FetchHeader(Message, frozen=True):
    """An agent asks a donor for the header of an update that is committed or held."""

    step: int
    update: bytes  # digest of the header


class FetchSliceTable(Message, frozen=True):
    """An agent asks a donor for the table of an update's slice."""

    step: int
    slice_root: bytes


class FetchPieces(Message, frozen=True):
    """An agent asks a donor for pieces of an update's slice that follow one another."""

    step: int
    slice_root: bytes
    first_piece: int  # counted within the slice
    num_pieces: int


class FetchTable(Message, frozen=True):
    """An agent asks a donor for the table of state `step`."""

    step: int


class FetchChunk(Message, frozen=True):
    """An agent asks a donor for a chunk of the outer state, at whatever version the donor has.

    What comes is its parameters, then its momentum, shrunk (`agent/exponents.py`).
    """

    index: int


class FetchManifest(Message, frozen=True):
    """An agent asks a donor for the manifest of the prepared data."""


class FetchBlock(Message, frozen=True):
    """An agent asks a donor for one block of one file of the prepared data."""

    file: str
    index: int


class Found(Message, frozen=True):
    """A donor's answer: the bytes are in the bulk of this and of further frames that begin with the same
    message.

    Every frame but the last carries FRAME_BYTES.
    """

    num_bytes: int  # of the whole answer
    step: int = -1  # version of a chunk; -1 for what has none


class Missing(Message, frozen=True):
    """A donor's answer: it has not got what was asked for, which is no offence."""

    reason: str


# ------------------------------------------------------------------------------------------------------ doors
ToDonor = FetchHeader | FetchSliceTable | FetchPieces | FetchTable | FetchChunk | FetchManifest | FetchBlock
ToFetcher = Found | Missing
ToOwner = ReduceOpen | Piece | NoMorePieces
ToParticipant = Piece | NoMorePieces
PINGED_DOOR: Door[Ping] = Door("an agent", "who pings it", Ping)
PINGING_DOOR: Door[Pong] = Door("who pings an agent", "that agent", Pong)
OWNER_DOOR: Door[ToOwner] = Door("an owner", "a participant", ToOwner)
PARTICIPANT_DOOR: Door[ToParticipant] = Door("a participant", "an owner", ToParticipant)
DONOR_DOOR: Door[ToDonor] = Door("a donor", "who fetches", ToDonor)
FETCHER_DOOR: Door[ToFetcher] = Door("who fetches", "a donor", ToFetcher)
