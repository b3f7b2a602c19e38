"""The outer step, as an agent lives it: plan, propose, reduce, hold, commit, adopt. `train.py` is the
trainer's page.

`step(state, event) -> effects` is pure: no I/O, no clock, no randomness. The agent's server carries the
effects out in order and feeds back what came of them. Read the handlers from top to bottom: that is the
algorithm (PROTOCOL 3).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from atoll.swarm.messages import (
    Adopt,
    Adopted,
    Attached,
    Committed,
    Evict,
    Fault,
    Finished,
    Held,
    Propose,
    Proposed,
    Ready,
    Records,
    Reduced,
    Refused,
    Rewound,
    Stopped,
    Want,
    Welcome,
    Work,
)
from atoll.swarm.records import Assembled, Attempt, CommitRecord, Message, Plan, Rewind, Term


# ----------------------------------------------------------------------------------------------- what happens
class Stored(msgspec.Struct, frozen=True):
    """A commit record passed its checks and is durable."""

    record: CommitRecord


class Encoded(msgspec.Struct, frozen=True):
    """The payload is on disk."""

    proposal: Propose


class Holding(msgspec.Struct, frozen=True):
    """An update and the table it leads to are durable here."""

    held: Held


class Advanced(msgspec.Struct, frozen=True):
    """The outer state has this version, and this root by its own hashes."""

    version: int
    root: bytes
    table: bytes


class Failed(msgspec.Struct, frozen=True):
    """A piece of work could not be done."""

    work: "Encode | Reduce | Hold | Advance"
    peer: str
    reason: str


Event = Stored | Encoded | Holding | Advanced | Failed | Message


# ------------------------------------------------------------------------------------------------- what to do
class Send(msgspec.Struct, frozen=True):
    """To the coordinator."""

    message: Message


class Tell(msgspec.Struct, frozen=True):
    """To the trainer."""

    message: Message


class Store(msgspec.Struct, frozen=True):
    """Check a commit record and make it durable; then `Stored`."""

    record: CommitRecord


class SawTerm(msgspec.Struct, frozen=True):
    """Remember the highest term durably."""

    term: Term


class Forget(msgspec.Struct, frozen=True):
    """Make rewinds durable; what is here of the steps that they abandon counts no more."""

    rewinds: tuple[Rewind, ...]


class Encode(msgspec.Struct, frozen=True):
    """Turn the trainer's local parameters into a payload; then `Encoded`."""

    proposal: Propose


class Reduce(msgspec.Struct, frozen=True):
    """Do my part of the all-reduce; sends `Reduced` and `Fault` by itself. Replaces an earlier attempt's."""

    attempt: Attempt


class Hold(msgspec.Struct, frozen=True):
    """Complete the update, compute where it leads, make both durable; then `Holding`."""

    attempt: Attempt
    assembled: Assembled


class Advance(msgspec.Struct, frozen=True):
    """Bring the outer state to the log's head; then `Advanced`."""


class Retry(msgspec.Struct, frozen=True):
    """Start `work` again after a pause."""

    work: Advance


Effect = Send | Tell | Store | SawTerm | Forget | Encode | Reduce | Hold | Advance | Retry


@dataclass(kw_only=True)
class OuterStep:
    """What an agent knows. Only `term`, the log and the state's files outlive it."""

    island: str
    relay: bool
    term: Term = field(default_factory=Term)
    head: int = 0  # newest commit stored
    head_root: bytes = b""
    version: int = -1  # of the outer state; -1 until its hashes have been looked at
    root: bytes = b""
    table: bytes = b""
    advancing: bool = False
    attached: bool = False  # a trainer is there
    loaded: bytes = b""  # root over the trainer's own weights; empty while it has not adopted
    plan: Plan | None = None
    proposal: Propose | None = None  # encoded and ready to be sent again
    attempt: Attempt | None = None
    held: Held | None = None  # of that attempt
    finished: bool = False


def step(state: OuterStep, event: Event) -> list[Effect]:
    """What to do about one event."""
    handler = _HANDLERS.get(type(event))
    return handler(state, event) if handler is not None else []


# --------------------------------------------------------------------------------------------------- be ready
def on_welcome(state: OuterStep, welcome: Welcome) -> list[Effect]:
    """The coordinator knows us. Whoever is behind first asks for the records it lacks."""
    if not welcome.term.outranks(state.term):
        return []  # a leader of the past, or a second one with the same number
    effects: list[Effect] = [SawTerm(welcome.term)]
    if welcome.term != state.term:
        state.attempt = state.held = (
            None  # attempts are a leader's decisions: the next one will be named again
        )
    state.term = welcome.term
    if welcome.head > state.head:
        return [*effects, Send(Want(state.head))]
    return effects + catch_up(state)


def on_records(state: OuterStep, records: Records) -> list[Effect]:
    if not records.records:
        return catch_up(state)
    stored: list[Effect] = [Store(record) for record in records.records]
    return [*stored, Send(Want(records.records[-1].step + 1))]


def on_rewound(state: OuterStep, rewound: Rewound) -> list[Effect]:
    """The operator went back: so do we, where we know more; the Welcome that follows says how far the new
    branch is.
    """
    back = min(rewound.rewinds, key=lambda rewind: rewind.step)
    if state.head > back.step:
        state.head, state.head_root = back.step, back.root
        state.plan = state.proposal = state.attempt = state.held = None
        state.loaded = b""
    return [Forget(rewound.rewinds)]


def catch_up(state: OuterStep) -> list[Effect]:
    """Advance to the head, then let the trainer adopt it, then say so."""
    if (state.version, state.root) != (state.head, state.head_root):
        if state.advancing:
            return []
        state.advancing = True
        return [Advance()]
    if state.relay:
        return [Send(Ready(state.version, state.root, b""))]
    if not state.attached:
        return []
    if state.loaded != state.root:
        return [Tell(Adopt(state.version, state.root, state.table))]
    return [Send(Ready(state.version, state.root, state.loaded))]


def on_advanced(state: OuterStep, done: Advanced) -> list[Effect]:
    state.advancing = False
    state.version, state.root, state.table = done.version, done.root, done.table
    return catch_up(state)


def on_attached(state: OuterStep, attached: Attached) -> list[Effect]:
    """A trainer is here. What plan it is at, or has done, the coordinator says again; only the trainer knows
    how far it is.
    """
    state.attached = True
    state.loaded = attached.loaded
    state.plan = None
    return catch_up(state)


def on_adopted(state: OuterStep, adopted: Adopted) -> list[Effect]:
    if state.advancing or adopted.step != state.version:
        # the state moves, or has moved, on: what was copied may be of two versions; another Adopt follows
        return []
    state.loaded = adopted.loaded
    effects: list[Effect] = [Send(Ready(state.version, state.root, state.loaded))]
    if state.loaded != state.root:
        effects.append(
            Tell(
                Stopped(
                    "the weights that the trainer loaded are not the swarm's; look at this machine's memory"
                )
            )
        )
    elif state.finished and state.version == state.head:
        effects.append(Tell(Stopped("")))
    return effects


# --------------------------------------------------------------------------------------- inner steps, propose
def on_plan(state: OuterStep, plan: Plan) -> list[Effect]:
    """Train alone on these samples. The same plan again (a new link, a new leader) means: have you
    proposed?
    """
    if plan.term != state.term or plan.step != state.version or plan.parent != state.root:
        return []
    if state.proposal is not None and _is_of(state.proposal, plan):
        state.plan = plan
        return [Send(state.proposal)]
    if state.plan is not None and state.plan.is_again(plan):
        return []  # the trainer is at it
    if state.plan is not None or state.proposal is not None:
        # A restored backup knows nothing of the samples that we trained on: anew, from the step's own state.
        state.plan = state.proposal = None
        state.loaded = b""
        return catch_up(state)
    state.plan = plan
    return [Tell(Work(plan))]


def on_proposed(state: OuterStep, done: Proposed) -> list[Effect]:
    """The trainer's local parameters lie in the mapping: encode them once, for this step, whoever leads."""
    plan = state.plan
    if plan is None or done.step != plan.step or plan.step != state.version:
        return []  # too late: the swarm has moved on
    lease = plan.used(done.inner_steps)
    proposal = Propose(
        step=plan.step,
        parent=plan.parent,
        lease=lease,
        payload=b"",
        tokens=done.tokens,
        inner_steps=done.inner_steps,
        loss=done.loss,
        norm=0.0,
        handover=done.handover,
    )
    return [Encode(proposal)]


def on_encoded(state: OuterStep, done: Encoded) -> list[Effect]:
    if state.plan is None or not _is_of(done.proposal, state.plan):
        return []
    state.proposal = done.proposal
    return [Send(done.proposal)]


def _is_of(proposal: Propose, plan: Plan) -> bool:
    return (proposal.parent, proposal.lease) == (plan.parent, plan.used(proposal.inner_steps))


# ----------------------------------------------------------------------------------------------- reduce, hold
def on_attempt(state: OuterStep, attempt: Attempt) -> list[Effect]:
    """Reduce. A newer attempt replaces an older one; payloads stay the same, nothing was applied."""
    if attempt.term != state.term or attempt.step != state.version or attempt.parent != state.root:
        return []
    if state.attempt is not None and attempt.number < state.attempt.number:
        return []
    if attempt == state.attempt:
        return []  # under way; a link that was down has made the coordinator say it again
    state.attempt = attempt
    share = attempt.share_of(state.island)
    if share is not None and (state.proposal is None or state.proposal.payload != share.payload):
        return [
            Send(
                Fault(
                    step=attempt.step,
                    number=attempt.number,
                    peer=state.island,
                    kind="lost",
                    text="the payload is no longer here",
                )
            )
        ]
    return [Reduce(attempt)]


def on_assembled(state: OuterStep, assembled: Assembled) -> list[Effect]:
    """The update is fixed. Hold it: a promise to keep the bytes until the step's commit record is stored."""
    attempt = state.attempt
    if (
        attempt is None
        or assembled.term != state.term
        or (assembled.step, assembled.number) != (attempt.step, attempt.number)
    ):
        return []
    if state.held is not None and (state.held.step, state.held.number) == (attempt.step, attempt.number):
        return [Send(state.held)]
    return [Hold(attempt, assembled)]


def on_holding(state: OuterStep, done: Holding) -> list[Effect]:
    if (
        state.attempt is None
        or done.held.number != state.attempt.number
        or done.held.step != state.attempt.step
    ):
        return []
    state.held = done.held
    return [Send(done.held)]


# ---------------------------------------------------------------------------------------------- commit, apply
def on_committed(state: OuterStep, committed: Committed) -> list[Effect]:
    """Decided for all of us. A gap means that we missed some: ask."""
    if committed.record.step > state.head:
        return [Send(Want(state.head))]
    return [Store(committed.record)] if committed.record.step == state.head else []


def on_stored(state: OuterStep, stored: Stored) -> list[Effect]:
    """Only now is anything settled: apply, and adopt together. Left out, we drop what we proposed and go
    on.
    """
    record = stored.record
    state.head, state.head_root = record.step + 1, record.next_root
    state.plan = state.proposal = state.attempt = state.held = None
    return catch_up(state)


def on_finished(state: OuterStep, finished: Finished) -> list[Effect]:
    state.finished = True
    if state.head == finished.step and state.loaded and state.loaded == state.root:
        return [Tell(Stopped(""))]
    return []


# -------------------------------------------------------------------------------------------- what goes wrong
def on_failed(state: OuterStep, failed: Failed) -> list[Effect]:
    """Work that failed is reported with its reason; only the way to the head is tried again for ever."""
    work = failed.work
    if isinstance(work, Advance):
        return [Retry(work)]
    if isinstance(work, Encode):
        return [Tell(Stopped(failed.reason))]
    attempt = work.attempt
    if state.attempt is None or attempt.number != state.attempt.number or attempt.step != state.attempt.step:
        return []
    return [
        Send(
            Fault(
                step=attempt.step, number=attempt.number, peer=failed.peer, kind="failed", text=failed.reason
            )
        )
    ]


def on_refused(state: OuterStep, refused: Refused | Evict) -> list[Effect]:
    return [Tell(Stopped(refused.reason))]


def on_reported(_: OuterStep, report: Reduced | Fault) -> list[Effect]:
    """From our own reduction, for the coordinator."""
    return [Send(report)]


_HANDLERS: dict[type, Callable[[OuterStep, Any], list[Effect]]] = {
    Welcome: on_welcome,
    Rewound: on_rewound,
    Records: on_records,
    Advanced: on_advanced,
    Attached: on_attached,
    Adopted: on_adopted,
    Plan: on_plan,
    Proposed: on_proposed,
    Encoded: on_encoded,
    Attempt: on_attempt,
    Assembled: on_assembled,
    Holding: on_holding,
    Committed: on_committed,
    Stored: on_stored,
    Finished: on_finished,
    Failed: on_failed,
    Refused: on_refused,
    Evict: on_refused,
    Reduced: on_reported,
    Fault: on_reported,
}
