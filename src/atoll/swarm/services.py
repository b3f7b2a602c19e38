"""The services of a swarm: who serves what, who may call it, and through which door each end reads.

A caller's role stands in its certificate; the transport that has seen it holds the two together.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from atoll.swarm.identity import COORDINATOR, ISLAND, OPERATOR, RELAY
from atoll.swarm.messages import control, enrolment, operator, peers
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message

MEMBERS = frozenset({ISLAND, RELAY})
S = TypeVar("S", bound=Message, covariant=True)
C = TypeVar("C", bound=Message, covariant=True)


@dataclass(frozen=True)
class Limit:
    """What one member may ask of the server of a service; `limits.py` sees to it."""

    num_streams: int  # open at once
    messages_per_second: float = 0.0  # in the long run; 0: as many as the line carries
    burst: int = 0  # that may come at once


@dataclass(frozen=True, kw_only=True)
class Service(Generic[S, C]):
    """A kind of stream. Its server receives messages of type S, and its caller those of type C."""

    name: str  # on the wire
    server_door: Door[S]
    caller_door: Door[C]
    callers: frozenset[str]  # the roles that may call it; "" is a stranger's
    limit: Limit

    def objection(self, role: str) -> str:
        """Why one of this role may not call it; empty if it may."""
        return "" if role in self.callers else f"{role or 'one without a role'} may not call {self.name}"


# ------------------------------------------------------------------------------------------ at a coordinator
# An agent's line, kept open: one, and the one before it, which may not have ended yet.
CONTROL = Service(
    name="Control",
    server_door=control.COORDINATOR_DOOR,
    caller_door=control.AGENT_DOOR,
    callers=MEMBERS,
    limit=Limit(2, 100.0, 400),
)
OPERATE = Service(
    name="Operate",
    server_door=operator.COORDINATOR_DOOR,
    caller_door=operator.OPERATOR_DOOR,
    callers=MEMBERS | {OPERATOR},
    limit=Limit(8, 10.0, 100),
)
# On a port of its own; strangers count by their address.
ENROLL = Service(
    name="Enroll",
    server_door=enrolment.COORDINATOR_DOOR,
    caller_door=enrolment.STRANGER_DOOR,
    callers=frozenset({""}),
    limit=Limit(64, 20.0, 200),
)

# ----------------------------------------------------------------------------------------------- at an agent
PING = Service(
    name="Ping",
    server_door=peers.PINGED_DOOR,
    caller_door=peers.PINGING_DOOR,
    callers=MEMBERS | {COORDINATOR},
    limit=Limit(32, 10.0, 100),
)
# A relay has nothing to be reduced. A reduction has up to 16 lanes of a member, and those of the attempt
# before may not have ended yet.
REDUCE = Service(
    name="Reduce",
    server_door=peers.OWNER_DOOR,
    caller_door=peers.PARTICIPANT_DOOR,
    callers=frozenset({ISLAND}),
    limit=Limit(32),
)
FETCH = Service(
    name="Fetch",
    server_door=peers.DONOR_DOOR,
    caller_door=peers.FETCHER_DOOR,
    callers=MEMBERS,
    limit=Limit(16),
)

SERVICES: tuple[Service[Any, Any], ...] = (CONTROL, OPERATE, ENROLL, PING, REDUCE, FETCH)
