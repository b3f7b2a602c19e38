"""The operator's plane: what people ask of a coordinator, one request and its answer on each stream."""

from typing import Annotated

from msgspec import Meta

from atoll.metrics import Score
from atoll.status import RunStatus
from atoll.swarm.bounds import Root, Signed
from atoll.swarm.messages.door import Door
from atoll.swarm.messages.enrolment import MAX_REQUEST_BYTES
from atoll.swarm.records import Message
from atoll.words import Line, Name, Sample

MAX_USES = 10_000  # of a ticket
MAX_HOURS = 24.0 * 366
MAX_SAMPLES = 4  # of an evaluation
MAX_FIGURES = 64  # scores, and held-out losses, of an evaluation
DOOR_BYTES = 64 << 10  # so many figures, with their names


class StatusRequest(Message, frozen=True):
    """Any member asks the coordinator how the run is."""


class StatusReply(Message, frozen=True):
    """The coordinator's answer to `StatusRequest`."""

    status: RunStatus


class Invite(Message, frozen=True):
    """The operator asks the coordinator for another ticket."""

    num_uses: Annotated[int, Meta(ge=1, le=MAX_USES)]  # how many islands may enrol with it
    hours: Annotated[float, Meta(gt=0, le=MAX_HOURS)]  # until it expires


class Invited(Message, frozen=True):
    """The coordinator's answer to `Invite`; it has stored the ticket's hash."""

    ticket: str


class EvictIsland(Message, frozen=True):
    """The operator asks the coordinator to remove an island from the run, until it is readmitted."""

    island: Name  # its id, the beginning of it, or its contributor
    reason: Line  # for people


class IslandEvicted(Message, frozen=True):
    """The coordinator's answer to `EvictIsland`: the island is out, and it is in the database that it is.

    So is that the ticket by which it came is good for nobody any more.
    """

    island: str  # its id
    contributor: str
    num_others: int  # islands that came by the same ticket, and stay


class ReadmitIsland(Message, frozen=True):
    """The operator asks the coordinator to take an eviction back."""

    island: Name  # as in `EvictIsland`


class IslandReadmitted(Message, frozen=True):
    """The coordinator's answer to `ReadmitIsland`: the island may join again."""

    island: str  # its id
    contributor: str


class Renew(Message, frozen=True):
    """A member asks for a new certificate of its own key, before the one that it has expires."""

    csr: Annotated[bytes, Meta(max_length=MAX_REQUEST_BYTES)]  # certificate signing request, PEM


class Renewed(Message, frozen=True):
    """The coordinator's answer to `Renew`."""

    certificate: bytes  # PEM


class TellEvaluation(Message, frozen=True, kw_only=True):
    """A member tells what it has measured of a committed state; nobody waits for it."""

    step: Signed  # of the state
    root: Root  # of the state
    scores: Annotated[dict[Name, Score], Meta(max_length=MAX_FIGURES)]  # by lm-eval's name of the task
    heldout_losses: Annotated[dict[Name, float], Meta(max_length=MAX_FIGURES)]  # by source
    samples: Annotated[tuple[Sample, ...], Meta(max_length=MAX_SAMPLES)] = ()  # that the state has written


class EvaluationTold(Message, frozen=True):
    """The coordinator's answer to `TellEvaluation`: it stands in the events file."""


class RequestRefused(Message, frozen=True):
    """The coordinator does not do what it was asked, for this reason."""

    reason: str


ToCoordinator = StatusRequest | TellEvaluation | Renew | Invite | EvictIsland | ReadmitIsland
ToOperator = (
    StatusReply | EvaluationTold | Renewed | Invited | IslandEvicted | IslandReadmitted | RequestRefused
)
COORDINATOR_DOOR: Door[ToCoordinator] = Door("a coordinator", "an operator", ToCoordinator, DOOR_BYTES)
OPERATOR_DOOR: Door[ToOperator] = Door("an operator", "a coordinator", ToOperator)
