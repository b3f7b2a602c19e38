"""What can happen to an agent, and what it can want done: the two sides of `outer_step.step`.

Messages from the coordinator and the trainer are events as they are; the other events are the results of the
agent's own work. Which messages can come, and which can be sent to whom, is in `swarm/messages`.
"""

import msgspec

from atoll.swarm.messages import Exchanged, Fault, Held, Propose, Reduced, control, trainer
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Rewind, Term


# ---------------------------------------------------------------------------------------------------- events
class Stored(msgspec.Struct, frozen=True):
    """A commit record has passed its checks and is on disk."""

    record: CommitRecord


class Encoded(msgspec.Struct, frozen=True):
    """The payload is on disk, and this proposal names it."""

    proposal: Propose


class Holding(msgspec.Struct, frozen=True):
    """An update, and the table of the state that it leads to, are on disk."""

    held: Held


class Advanced(msgspec.Struct, frozen=True):
    """The outer state has reached this version; `root` and `table` are from hashes of its own bytes."""

    version: int
    root: bytes
    table: bytes


class Failed(msgspec.Struct, frozen=True):
    """Work could not be done, for this reason; `peer` is the agent at fault, or "" if there is none."""

    work: "Encode | Reduce | Hold | Advance"
    peer: str
    reason: str


# `Reduced`, `Fault` and `Exchanged` are what the agent's own reduction has to report.
OwnResult = Stored | Encoded | Holding | Advanced | Failed | Reduced | Fault | Exchanged
Event = OwnResult | control.ToAgent | trainer.ToAgent


# --------------------------------------------------------------------------------------------------- effects
class Send(msgspec.Struct, frozen=True):
    """Send a message to the coordinator."""

    message: control.ToCoordinator


class Tell(msgspec.Struct, frozen=True):
    """Send a message to the trainer."""

    message: trainer.ToTrainer


class Store(msgspec.Struct, frozen=True):
    """Check a commit record and write it to disk; `Stored` follows, unless the record fails its checks."""

    record: CommitRecord


class KeepTerm(msgspec.Struct, frozen=True):
    """Remember on disk that this term has begun."""

    term: Term


class Forget(msgspec.Struct, frozen=True):
    """Write rewinds to disk, and treat everything that they abandon as unknown."""

    rewinds: tuple[Rewind, ...]


class Encode(msgspec.Struct, frozen=True):
    """Turn the trainer's local parameters into a payload; `Encoded` follows."""

    proposal: Propose


class Reduce(msgspec.Struct, frozen=True):
    """Do this agent's part of the all-reduce, in place of any earlier attempt's.

    The reduction itself reports `Reduced` and `Fault`.
    """

    attempt: Attempt


class Hold(msgspec.Struct, frozen=True):
    """Complete the update, compute the table it leads to, write both to disk; `Holding` follows."""

    attempt: Attempt
    assembled: Assembled


class Advance(msgspec.Struct, frozen=True):
    """Bring the outer state to the head of the log; `Advanced` follows."""


class Retry(msgspec.Struct, frozen=True):
    """Start `work` again after a pause."""

    work: Advance


Effect = Send | Tell | Store | KeepTerm | Forget | Encode | Reduce | Hold | Advance | Retry
