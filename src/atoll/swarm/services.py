"""The services of a swarm: who serves what, and through which door each end of such a stream reads."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from atoll.swarm.messages import control, enrolment, operator, peers
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message

S = TypeVar("S", bound=Message, covariant=True)
C = TypeVar("C", bound=Message, covariant=True)


@dataclass(frozen=True)
class Service(Generic[S, C]):
    """A kind of stream. Its server receives messages of type S, and its caller those of type C."""

    name: str  # on the wire
    server_door: Door[S]
    caller_door: Door[C]


# ------------------------------------------------------------------------------------------ at a coordinator
CONTROL = Service("Control", control.COORDINATOR_DOOR, control.AGENT_DOOR)  # an agent's line, kept open
OPERATE = Service("Operate", operator.COORDINATOR_DOOR, operator.OPERATOR_DOOR)
ENROLL = Service("Enroll", enrolment.COORDINATOR_DOOR, enrolment.STRANGER_DOOR)  # on a port of its own

# ----------------------------------------------------------------------------------------------- at an agent
PING = Service("Ping", peers.PINGED_DOOR, peers.PINGING_DOOR)
REDUCE = Service("Reduce", peers.OWNER_DOOR, peers.PARTICIPANT_DOOR)
FETCH = Service("Fetch", peers.DONOR_DOOR, peers.FETCHER_DOOR)

SERVICES: tuple[Service[Any, Any], ...] = (CONTROL, OPERATE, ENROLL, PING, REDUCE, FETCH)
