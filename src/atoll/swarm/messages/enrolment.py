"""Enrolment: what a stranger with a ticket and the coordinator say to each other, on a port of their own.

`Enroll` is said once. `Look` may be said before: it tells what the run is, and uses nothing up. So does
`Probe`, which finds out what the line carries (`swarm/probe.py`).
"""

from typing import Annotated

from msgspec import Meta

from atoll.status import Overview
from atoll.swarm.bounds import Count, Label, Port
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message, RunInfo
from atoll.words import Link, Name

MAX_REQUEST_BYTES = 16 << 10
DOOR_BYTES = 2 * MAX_REQUEST_BYTES
FRAME_BYTES = DOOR_BYTES + 4  # a stranger sends no more at once


class Enroll(Message, frozen=True, kw_only=True):
    """A stranger asks to become a member of the run; a member whose certificate is old asks for a new one."""

    secret: Label  # of its ticket
    csr: Annotated[bytes, Meta(max_length=MAX_REQUEST_BYTES)]  # certificate signing request, PEM
    contributor: Name  # whom the island's tokens are credited to
    place: Name = ""  # where it stands, as its contributor says; "": that is not told
    link: Link = ""  # a page about the contributor; "": none
    relay: bool = False  # the certificate is to be a relay's, which never takes part


class Enrolled(Message, frozen=True):
    """The coordinator gives an island its certificate, and all that it must know of the run."""

    certificate: bytes  # PEM
    run: RunInfo


class Look(Message, frozen=True):
    """A stranger asks what the run of its ticket is, before it joins."""

    secret: Label  # of its ticket
    port: Port = 0  # where it listens meanwhile, for the coordinator to try; 0: it does not


class Looked(Message, frozen=True, kw_only=True):
    """What a stranger should know before it joins."""

    run: RunInfo
    version: int  # of the protocol
    release: str  # of atoll
    self_test: bytes  # digest of what the coordinator's kernels make of a fixed input
    time: float  # by the coordinator's clock, in seconds since the epoch
    overview: Overview
    seen_host: str  # the IP address that the stranger comes from
    unreached: str | None  # why it could not be reached at its port; "": it could; None: it gave no port


class Probe(Message, frozen=True):
    """A stranger asks how much its line carries; its own filler follows at once."""

    secret: Label  # of its ticket


class Probing(Message, frozen=True):
    """Filler: the bulk behind it means nothing."""


class Probed(Message, frozen=True, kw_only=True):
    """What came of the filler that the other end sent; the coordinator's own follows at once."""

    num_bytes: Count  # of the second half
    seconds: Annotated[float, Meta(ge=0)]  # that it took


class TicketRefused(Message, frozen=True):
    """The coordinator does not accept a ticket, for this reason."""

    reason: str


ToCoordinator = Enroll | Look | Probe | Probing
ToStranger = Enrolled | Looked | Probed | Probing | TicketRefused
COORDINATOR_DOOR: Door[ToCoordinator] = Door("a coordinator", "who enrols", ToCoordinator, DOOR_BYTES)
STRANGER_DOOR: Door[ToStranger] = Door("who enrols", "a coordinator", ToStranger)
