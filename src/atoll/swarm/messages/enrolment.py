"""Enrolment: what a stranger with a ticket and the coordinator say to each other, once, on their own port."""

from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message, RunInfo
from atoll.words import Name


class Enroll(Message, frozen=True):
    """A stranger asks to become an island of the run. The same key is always given the same certificate."""

    secret: str  # of its ticket
    csr: bytes  # certificate signing request, PEM
    contributor: Name  # whom the island's tokens are credited to
    place: Name = ""  # where it stands, as its contributor says; "": that is not told


class Enrolled(Message, frozen=True):
    """The coordinator gives an island its certificate, and all that it must know of the run."""

    certificate: bytes  # PEM
    run: RunInfo


class TicketRefused(Message, frozen=True):
    """The coordinator does not accept a ticket, for this reason."""

    reason: str


ToCoordinator = Enroll
ToStranger = Enrolled | TicketRefused
COORDINATOR_DOOR: Door[ToCoordinator] = Door("a coordinator", "who enrols", ToCoordinator)
STRANGER_DOOR: Door[ToStranger] = Door("who enrols", "a coordinator", ToStranger)
