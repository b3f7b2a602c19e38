"""Events of an outer step, in the order in which they come: ready, attempt, what can go wrong, commit."""

from typing import ClassVar, Literal

import msgspec

from atoll.events.base import Occurrence
from atoll.metrics import Exchange, Metrics, Score, scores_text
from atoll.words import listed

ROOT_DIGITS = 12  # of a root's hex digits: enough for people to tell states apart


class Ready(Occurrence, frozen=True, kw_only=True):
    """A member holds the head, and so does its trainer: it may be planned, own slices, and give state."""

    routine: ClassVar[bool] = True

    trainer: bool  # whether it has one, which has proven what it loaded
    root: str  # of the state that it holds, in hex

    @property
    def text(self) -> str:
        return f"{self.island} holds state {self.step}, root {self.root[:ROOT_DIGITS]}"


class Recovered(Occurrence, frozen=True, kw_only=True):
    """A member is ready for the first time on this line, and there was a head to come to."""

    recovery_seconds: float  # since it joined

    @property
    def text(self) -> str:
        return f"{self.island} is at the head, {self.recovery_seconds:.1f} s after it joined"


class Unequal(Occurrence, frozen=True, kw_only=True):
    """Bits differ that must not: a member's state from the head, or the next roots of an update's holders."""

    num_roots: int = 2  # different ones
    islands: tuple[str, ...] = ()  # that hold another root than most; empty where there is no such most

    @property
    def text(self) -> str:
        if self.island:
            return f"{self.island} holds other bits than the swarm at step {self.step}"
        of = f", another than most by {listed(self.islands)}" if self.islands else ""
        return f"step {self.step}: {self.num_roots} different next roots are held{of}"


class AttemptOpened(Occurrence, frozen=True, kw_only=True, tag="attempt"):
    """Agents begin to reduce the proposals of these participants into one update."""

    routine: ClassVar[bool] = True

    number: int  # of the attempt within its step, from 1
    participants: tuple[str, ...]
    left_out: tuple[str, ...]  # islands that had a plan, and do not take part
    num_owners: int
    planned_seconds: float = 0.0  # how long reducing should take by the links; 0: these are not known

    @property
    def text(self) -> str:
        without = f"; without {listed(self.left_out)}" if self.left_out else ""
        counts = f"{len(self.participants)} participants, {self.num_owners} owners"
        return f"step {self.step}, attempt {self.number}: {counts}{without}"


class Fault(Occurrence, frozen=True, kw_only=True):
    """`island` reports that it could not exchange with `peer` in an attempt. Either may be to blame."""

    peer: str
    fault: str  # its kind, as agents name it
    detail: str  # a sentence of the agent that reports it

    @property
    def text(self) -> str:
        return f"{self.island} about {self.peer}: {self.detail}"


Cause = Literal["term", "left", "stalled", "fault", "refused", "unequal", "false sum", "not held"]
CAUSES: dict[Cause, str] = {
    "term": "a higher term begins",
    "left": "{islands} left before the update was assembled",
    "stalled": "{islands} made no progress with reducing",
    "fault": "{islands} could not exchange",
    "refused": "{islands} sent more than they said",
    "unequal": "the update of {islands} leads to another state",
    "false sum": "the sum of {islands} is not what was measured",
    "not held": "{islands} did not hold the update in time",
}


class AttemptClosed(Occurrence, frozen=True, kw_only=True, tag="attempt closed"):
    """An attempt has failed. Nothing of it was applied anywhere; another attempt follows."""

    number: int
    cause: Cause
    islands: tuple[str, ...]  # on whose account; empty where it was nobody's

    @property
    def text(self) -> str:
        reason = CAUSES[self.cause].format(islands=listed(self.islands) or "the agents")
        return f"step {self.step}, attempt {self.number}: {reason}"


class Clipped(Occurrence, frozen=True, kw_only=True):
    """A participant's pseudo-gradient is unusually large, and counts for less than its weight."""

    norm: float  # as it was proposed
    factor: float  # by which it is multiplied, below 1

    @property
    def text(self) -> str:
        return f"{self.island}: a norm of {self.norm:.3g} is clipped to {self.factor * self.norm:.3g}"


class Excluded(Occurrence, frozen=True, kw_only=True):
    """A participant is left out of this step, and perhaps of some more, on account of what it did."""

    reason: str

    @property
    def text(self) -> str:
        return f"{self.island} is left out of step {self.step}: {self.reason}"


class Stalled(Occurrence, frozen=True, kw_only=True):
    """The run cannot go on by itself."""

    reason: str  # and what people can do about it

    @property
    def text(self) -> str:
        return f"step {self.step} stalls: {self.reason}"


class Resumed(Occurrence, frozen=True, kw_only=True):
    """The run, which had stalled, goes on."""

    @property
    def text(self) -> str:
        return f"step {self.step} goes on"


class Thin(Occurrence, frozen=True, kw_only=True):
    """A step is committed although fewer hold its update than usually must."""

    holders: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"step {self.step} is committed with {len(self.holders)} holders"


class Unaudited(Occurrence, frozen=True, kw_only=True):
    """A step is committed although nobody could check its sums."""

    islands: tuple[str, ...]  # participants that did not tell what their payloads measure

    @property
    def text(self) -> str:
        return f"the sums of step {self.step} are unchecked: {listed(self.islands)} did not measure"


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one participant gave to a commit."""

    tokens: int
    inner_steps: int
    loss: float | None  # mean over these inner steps, in nats per token
    metrics: Metrics  # of the island, when it proposed
    exchange: Exchange = Exchange()  # of the island, when it held the update; zeros if it did not in time
    norm: float | None = None  # of its pseudo-gradient, as it says and owners have measured; None: not known


class Committed(Occurrence, frozen=True, kw_only=True):
    """The outer step is committed: its record is durable, and everybody is told."""

    routine: ClassVar[bool] = True

    tokens: int
    loss: float | None  # mean over its tokens, in nats; None where none had a label
    participants: dict[str, Contribution]  # by island
    holders: tuple[str, ...]  # islands that held the update, sorted
    root: str  # of the state that the step leads to, in hex
    reduce_seconds: float = 0.0  # from the opening of its attempt until all slices were reduced
    hold_seconds: float = 0.0  # from then until enough held the update
    norm: float | None = None  # of the update, as the median of its holders says; None: nobody has told
    # Of the update to the outer momentum that it meets, which is a mean of the updates before it: near 1
    # where they all go one way, near 0 where each goes its own. None: as above, and at the first step.
    cosine: float | None = None
    # Its tokens by source; empty where samples are of no source.
    sources: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    @property
    def text(self) -> str:
        counts = f"{len(self.participants)} islands, {self.tokens:,} tokens"
        loss = "no label" if self.loss is None else f"loss {self.loss:.3f}"
        return f"step {self.step}: {counts}, {loss}, root {self.root[:ROOT_DIGITS]}"


class Evaluated(Occurrence, frozen=True, kw_only=True):
    """A member has measured state `step`. What it says is not proven; the root is the one of that state."""

    root: str  # of the state, in hex
    scores: dict[str, Score]  # by lm-eval's name of the task
    heldout_losses: dict[str, float]  # by source: nats per token of text that is never trained on
    samples: tuple[str, ...] = ()  # texts that the state has written, each on one line

    @property
    def text(self) -> str:
        return f"state {self.step} was evaluated: {scores_text(self.scores, self.heldout_losses)}"


class Finished(Occurrence, frozen=True, kw_only=True):
    """The run's last outer step is committed."""

    num_outer_steps: int

    @property
    def text(self) -> str:
        return f"all {self.num_outer_steps} outer steps are committed"
