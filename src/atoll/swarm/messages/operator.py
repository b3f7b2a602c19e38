"""The operator's plane: what people ask of a coordinator, one request and its answer on each stream."""

from atoll.status import RunStatus
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message


class StatusRequest(Message, frozen=True):
    """Any member asks the coordinator how the run is."""


class StatusReply(Message, frozen=True):
    """The coordinator's answer to `StatusRequest`."""

    status: RunStatus


class Invite(Message, frozen=True):
    """The operator asks the coordinator for another ticket."""

    num_uses: int  # how many islands may enrol with it
    hours: float  # until it expires


class Invited(Message, frozen=True):
    """The coordinator's answer to `Invite`; it has stored the ticket's hash."""

    ticket: str


class EvictIsland(Message, frozen=True):
    """The operator asks the coordinator to remove an island from the run for good."""

    island: str
    reason: str  # for people


class IslandEvicted(Message, frozen=True):
    """The coordinator's answer to `EvictIsland`: the island is out, and it is in the database that it is."""


class RequestRefused(Message, frozen=True):
    """The coordinator does not do what it was asked, for this reason."""

    reason: str


ToCoordinator = StatusRequest | Invite | EvictIsland
ToOperator = StatusReply | Invited | IslandEvicted | RequestRefused
COORDINATOR_DOOR: Door[ToCoordinator] = Door("a coordinator", "an operator", ToCoordinator)
OPERATOR_DOOR: Door[ToOperator] = Door("an operator", "a coordinator", ToOperator)
