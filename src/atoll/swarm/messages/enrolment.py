"""Enrolment: what a stranger with a ticket and the coordinator say to each other, once, on their own port."""

from typing import Annotated

from msgspec import Meta

from atoll.swarm.bounds import Label
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message, RunInfo
from atoll.words import Name

MAX_REQUEST_BYTES = 16 << 10
DOOR_BYTES = 2 * MAX_REQUEST_BYTES
FRAME_BYTES = DOOR_BYTES + 4  # a stranger sends no more at once


class Enroll(Message, frozen=True, kw_only=True):
    """A stranger asks to become a member of the run; a member whose certificate is old asks for a new one."""

    secret: Label  # of its ticket
    csr: Annotated[bytes, Meta(max_length=MAX_REQUEST_BYTES)]  # certificate signing request, PEM
    contributor: Name  # whom the island's tokens are credited to
    place: Name = ""  # where it stands, as its contributor says; "": that is not told
    relay: bool = False  # the certificate is to be a relay's, which never takes part


class Enrolled(Message, frozen=True):
    """The coordinator gives an island its certificate, and all that it must know of the run."""

    certificate: bytes  # PEM
    run: RunInfo


class TicketRefused(Message, frozen=True):
    """The coordinator does not accept a ticket, for this reason."""

    reason: str


ToCoordinator = Enroll
ToStranger = Enrolled | TicketRefused
COORDINATOR_DOOR: Door[ToCoordinator] = Door("a coordinator", "who enrols", ToCoordinator, DOOR_BYTES)
STRANGER_DOOR: Door[ToStranger] = Door("who enrols", "a coordinator", ToStranger)
