"""The peers' plane: what members ask of an agent at its own address. It is pinged, reduces, and gives bytes.

Each of the three is a service of its own, with its own doors (`swarm/services.py`).
"""

from atoll.swarm.bounds import Count, Digest, Number, Path, Signed
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.words import Line


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

    step: Number
    number: Number  # of the attempt
    slice: Number  # index among the attempt's slices
    lane: Number = 0


class Piece(Message, frozen=True):
    """One piece, whose bytes are the frame's bulk: a participant's own to the owner, a reduced one back."""

    index: Number  # among all pieces of the flat space


class NoMorePieces(Message, frozen=True):
    """The sender has no more pieces for this lane: the other lanes have taken the rest."""


# ------------------------------------------------------------------------------------------------------ fetch
DOOR_BYTES = 4096  # of a message on this plane, without the bulk behind it
FRAME_BYTES = 128 << 10  # of an answer: what a slow link must carry within fetch.ANSWER_SECONDS


class FetchHeader(Message, frozen=True):
    """An agent asks a donor for the header of an update that is committed or held."""

    step: Number
    update: Digest  # digest of the header


class FetchSliceTable(Message, frozen=True):
    """An agent asks a donor for the table of an update's slice."""

    step: Number
    slice_root: Digest


class FetchPieces(Message, frozen=True):
    """An agent asks a donor for pieces of an update's slice that follow one another."""

    step: Number
    slice_root: Digest
    first_piece: Number  # counted within the slice
    num_pieces: Number


class FetchTable(Message, frozen=True):
    """An agent asks a donor for the table of state `step`."""

    step: Number


class FetchChunk(Message, frozen=True):
    """An agent asks a donor for a chunk of the outer state, at whatever version the donor has.

    What comes is its parameters, then its momentum, shrunk (`agent/exponents.py`).
    """

    index: Number


class FetchManifest(Message, frozen=True):
    """An agent asks a donor for the manifest of the prepared data."""


class FetchBlock(Message, frozen=True):
    """An agent asks a donor for one block of one file of the prepared data."""

    file: Path
    index: Number


class Found(Message, frozen=True):
    """A donor's answer: the bytes are in the bulk of this and of further frames that begin with the same
    message.

    Every frame but the last carries FRAME_BYTES.
    """

    num_bytes: Count  # of the whole answer
    step: Signed = -1  # version of a chunk; -1 for what has none


class Missing(Message, frozen=True):
    """A donor's answer: it has not got what was asked for, which is no offence."""

    reason: Line


# ------------------------------------------------------------------------------------------------------ doors
ToDonor = FetchHeader | FetchSliceTable | FetchPieces | FetchTable | FetchChunk | FetchManifest | FetchBlock
ToFetcher = Found | Missing
ToOwner = ReduceOpen | Piece | NoMorePieces
ToParticipant = Piece | NoMorePieces
PINGED_DOOR: Door[Ping] = Door("an agent", "who pings it", Ping, DOOR_BYTES)
PINGING_DOOR: Door[Pong] = Door("who pings an agent", "that agent", Pong, DOOR_BYTES)
OWNER_DOOR: Door[ToOwner] = Door("an owner", "a participant", ToOwner, DOOR_BYTES)
PARTICIPANT_DOOR: Door[ToParticipant] = Door("a participant", "an owner", ToParticipant, DOOR_BYTES)
DONOR_DOOR: Door[ToDonor] = Door("a donor", "who fetches", ToDonor, DOOR_BYTES)
FETCHER_DOOR: Door[ToFetcher] = Door("who fetches", "a donor", ToFetcher, DOOR_BYTES)
