"""The services of a swarm: who serves what, and through which door each end of such a stream reads."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from atoll.swarm.messages import control, enrolment, operator, peers
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message

S = TypeVar("S", bound=Message, covariant=True)
C = TypeVar("C", bound=Message, covariant=True)


@dataclass(frozen=True)
class Limit:
    """What one member may ask of the server of a service; `limits.py` sees to it."""

    num_streams: int  # open at once
    messages_per_second: float = 0.0  # in the long run; 0: as many as the line carries
    burst: int = 0  # that may come at once


@dataclass(frozen=True)
class Service(Generic[S, C]):
    """A kind of stream. Its server receives messages of type S, and its caller those of type C."""

    name: str  # on the wire
    server_door: Door[S]
    caller_door: Door[C]
    limit: Limit


# ------------------------------------------------------------------------------------------ at a coordinator
# An agent's line, kept open: one, and the one before it, which may not have ended yet.
CONTROL = Service("Control", control.COORDINATOR_DOOR, control.AGENT_DOOR, Limit(2, 100.0, 400))
OPERATE = Service("Operate", operator.COORDINATOR_DOOR, operator.OPERATOR_DOOR, Limit(8, 10.0, 100))
# On a port of its own; strangers count by their address.
ENROLL = Service("Enroll", enrolment.COORDINATOR_DOOR, enrolment.STRANGER_DOOR, Limit(64, 20.0, 200))

# ----------------------------------------------------------------------------------------------- at an agent
# Reductions have up to 16 lanes of a member, and those of the attempt before may not have ended yet.
PING = Service("Ping", peers.PINGED_DOOR, peers.PINGING_DOOR, Limit(32, 10.0, 100))
REDUCE = Service("Reduce", peers.OWNER_DOOR, peers.PARTICIPANT_DOOR, Limit(32))
FETCH = Service("Fetch", peers.DONOR_DOOR, peers.FETCHER_DOOR, Limit(16))

SERVICES: tuple[Service[Any, Any], ...] = (CONTROL, OPERATE, ENROLL, PING, REDUCE, FETCH)
