"""The trainer's plane: what a trainer and its agent say to each other, on a socket of one machine.

What is large does not travel: parameters lie in files that both map (`agent/mapped.py`).
"""

from atoll.metrics import Metrics
from atoll.status import Overview
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message, Plan
from atoll.words import Line


# ------------------------------------------------------------------------------------------ a trainer's words
class Attached(Message, frozen=True):
    """A trainer is here, and says from which state its weights began.

    It says so at its start, and to each agent that takes a dead one's place: so it can go on with its plan.
    """

    loaded: bytes = b""  # as in Adopted; empty if its weights are of no state, or no longer


class WantData(Message, frozen=True):
    """A trainer needs these blocks of the prepared data. An earlier request is void, and not answered."""

    number: int  # of the request
    blocks: dict[str, tuple[int, ...]]  # by file; manifest and tokenizer come without being named


class Progress(Message, frozen=True):
    """A trainer has done inner steps."""

    step: int  # of the plan
    inner_step: int  # how many of the plan's inner steps are done
    metrics: Metrics = Metrics()  # the trainer's part of them


class Proposed(Message, frozen=True, kw_only=True):
    """A trainer has done what it had time for, and its parameters lie in the mapping."""

    step: int  # of the plan
    tokens: int
    inner_steps: int
    loss: float | None  # mean over the inner steps; None where no token had a label
    compute_seconds: float  # since it was given the plan
    handover_seconds: float = 0.0  # since the last inner step
    count: int | None = None  # as in Propose
    metrics: Metrics = Metrics()  # the trainer's part of them


class Adopted(Message, frozen=True):
    """A trainer has loaded a state, and proves it by a root over what its own tensors hold."""

    step: int
    root: bytes  # of the state that it was ordered to load
    loaded: bytes  # root of the state's table with the trainer's own digests in place of the parameters'


# ------------------------------------------------------------------------------------------- an agent's words
class Adopt(Message, frozen=True):
    """An agent orders its trainer to load state `step` from the mapping, and to prove what it has loaded."""

    step: int
    root: bytes
    table: bytes  # of the state; its root is `root`


class Work(Message, frozen=True):
    """An agent hands its trainer a plan, whose samples are to be trained on from the state loaded last."""

    plan: Plan


class DataAt(Message, frozen=True):
    """An agent's answer to `WantData`: all that was asked for is in this directory."""

    number: int  # of the request
    path: str


class Pulse(Message, frozen=True, kw_only=True):
    """An agent shows its trainer every second that it is not frozen, and says what people want to know."""

    lost: Line = ""  # why there is no line to the coordinator; "" while there is one, or it is dialled
    note: Line = ""  # what the agent is doing, or waits for
    overview: Overview | None = None  # the newest; None until the coordinator has told one


class Stopped(Message, frozen=True):
    """An agent has no more work for its trainer."""

    reason: str  # empty if the run is finished


# ------------------------------------------------------------------------------------------------------ doors
ToAgent = Attached | WantData | Progress | Proposed | Adopted
ToTrainer = Adopt | Work | DataAt | Pulse | Stopped
AGENT_DOOR: Door[ToAgent] = Door("an agent", "its trainer", ToAgent)
TRAINER_DOOR: Door[ToTrainer] = Door("a trainer", "its agent", ToTrainer)
