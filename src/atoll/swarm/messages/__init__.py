"""Every message of a swarm, each defined once, by the plane that it travels on.

- `control`: an agent and its coordinator, on the agent's control line.
- `enrolment`: a stranger and the coordinator, once.
- `operator`: people and the coordinator.
- `peers`: an agent and whoever dials it, be it to ping, to reduce or to fetch.
- `trainer`: a trainer and its agent, on a socket of one machine.

Each file ends with its doors. A `Door` (`door.py`) is what one end of a line reads through: it decodes the
messages that this end may receive, and refuses all others, those of another plane and those that it would
send itself. Unions and doors are used by their plane's name, as in `control.ToAgent`; messages are offered
here, since their names are theirs alone. Records that somebody keeps are in `swarm/records.py`.
"""

from atoll.swarm.messages.control import (
    VERSION,
    Beat,
    BeatHeard,
    Committed,
    Coordinators,
    Donors,
    Evicted,
    Fault,
    FaultKind,
    Finished,
    Held,
    Hello,
    Propose,
    Ready,
    Records,
    Reduced,
    Refused,
    Rewound,
    WantRecords,
    Welcome,
)
from atoll.swarm.messages.enrolment import (
    Enroll,
    Enrolled,
    TicketRefused,
)
from atoll.swarm.messages.operator import (
    EvictIsland,
    Invite,
    Invited,
    IslandEvicted,
    RequestRefused,
    StatusReply,
    StatusRequest,
)
from atoll.swarm.messages.peers import (
    FRAME_BYTES,
    FetchBlock,
    FetchChunk,
    FetchHeader,
    FetchManifest,
    FetchPieces,
    FetchSliceTable,
    FetchTable,
    Found,
    Missing,
    Piece,
    Ping,
    Pong,
    ReduceOpen,
)
from atoll.swarm.messages.trainer import (
    Adopt,
    Adopted,
    Attached,
    DataAt,
    Progress,
    Proposed,
    Pulse,
    Stopped,
    WantData,
    Work,
)

__all__ = [
    "FRAME_BYTES",
    "VERSION",
    "Adopt",
    "Adopted",
    "Attached",
    "Beat",
    "BeatHeard",
    "Committed",
    "Coordinators",
    "DataAt",
    "Donors",
    "Enroll",
    "Enrolled",
    "EvictIsland",
    "Evicted",
    "Fault",
    "FaultKind",
    "FetchBlock",
    "FetchChunk",
    "FetchHeader",
    "FetchManifest",
    "FetchPieces",
    "FetchSliceTable",
    "FetchTable",
    "Finished",
    "Found",
    "Held",
    "Hello",
    "Invite",
    "Invited",
    "IslandEvicted",
    "Missing",
    "Piece",
    "Ping",
    "Pong",
    "Progress",
    "Propose",
    "Proposed",
    "Pulse",
    "Ready",
    "Records",
    "ReduceOpen",
    "Reduced",
    "Refused",
    "RequestRefused",
    "Rewound",
    "StatusReply",
    "StatusRequest",
    "Stopped",
    "TicketRefused",
    "WantData",
    "WantRecords",
    "Welcome",
    "Work",
]
