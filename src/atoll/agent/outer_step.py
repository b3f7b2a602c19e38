"""The outer step as an agent lives it: plan, propose, reduce, hold, commit, adopt.

`step(state, event)` returns what to do about one event, as a list of effects. It is pure: no I/O, no clock,
no randomness. `agent/server.py` carries the effects out in order and reports what came of them;
`agent/effects.py` lists the events and the effects. The handlers below stand in the order of an outer step:
read from top to bottom, they are the algorithm. The trainer's half of it is `train.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atoll.agent import effects as e
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.words import one_line


@dataclass(kw_only=True)
class OuterStep:
    """What an agent knows. Only what is on disk outlives it: term, records, outer state and payload."""

    island: str
    relay: bool
    term: r.Term = field(default_factory=r.Term)
    head: int = 0  # how many commit records are stored
    head_root: bytes = b""  # of the state that they lead to
    version: int = -1  # of the outer state here; -1 until its bytes have been hashed
    root: bytes = b""
    table: bytes = b""
    advancing: bool = False  # an Advance is under way
    attached: bool = False  # there is a trainer
    loaded: bytes = b""  # root of the weights that the trainer has loaded; empty until it has adopted
    plan: r.Plan | None = None
    encoding: bool = False  # the trainer has handed over what it did of the plan
    proposal: m.Propose | None = None  # encoded, and ready to be sent again
    attempt: r.Attempt | None = None
    assembled: r.Assembled | None = None  # of that attempt: its update is being held, or is held
    held: m.Held | None = None  # of that attempt
    finished: bool = False  # the coordinator has said that the run is over


def step(state: OuterStep, event: e.Event) -> list[e.Effect]:
    """What to do about one event; `state` is updated in place."""
    handler = _HANDLERS.get(type(event))
    return handler(state, event) if handler is not None else []


# -------------------------------------------------------------------------------- 1. join, and reach the head
def on_welcome(state: OuterStep, welcome: m.Welcome) -> list[e.Effect]:
    """The coordinator accepts us. If it knows more commits than we do, ask for their records first."""
    if not welcome.term.may_follow(state.term):
        return []  # a leader of the past, or a second one that took the same number
    effects: list[e.Effect] = []
    if welcome.term != state.term:
        effects.append(e.KeepTerm(welcome.term))
        # Attempts are one leader's decisions: a new leader opens its own.
        state.attempt = state.assembled = state.held = None
    state.term = welcome.term
    if welcome.head > state.head:
        return [*effects, e.Send(m.WantRecords(state.head))]
    return effects + catch_up(state)


def on_records(state: OuterStep, records: m.Records) -> list[e.Effect]:
    """Commit records that we asked for; ask on until an empty answer says that there are no more."""
    if not records.records:
        return catch_up(state)
    stored: list[e.Effect] = [e.Store(record) for record in records.records]
    return [*stored, e.Send(m.WantRecords(records.records[-1].step + 1))]


def on_rewound(state: OuterStep, rewound: m.Rewound) -> list[e.Effect]:
    """The operator has gone back to an older state: so do we. The Welcome that follows names the new head."""
    back = min(rewound.rewinds, key=lambda rewind: rewind.step)
    if state.head > back.step:
        state.head, state.head_root = back.step, back.root
        state.plan = state.proposal = state.attempt = state.assembled = state.held = None
        state.loaded = b""
    return [e.Forget(rewound.rewinds)]


def catch_up(state: OuterStep) -> list[e.Effect]:
    """Bring the agent's state to the head, then the trainer's weights; with both there, say `Ready`."""
    if (state.version, state.root) != (state.head, state.head_root):
        if state.advancing:
            return []
        state.advancing = True
        return [e.Advance()]
    if state.relay:
        return [e.Send(m.Ready(state.version, state.root, b""))]
    if not state.attached:
        return []
    if state.loaded != state.root:
        return [e.Tell(m.Adopt(state.version, state.root, state.table))]
    return [e.Send(m.Ready(state.version, state.root, state.loaded))]


def on_advanced(state: OuterStep, done: e.Advanced) -> list[e.Effect]:
    """The outer state has moved; the head may have moved on meanwhile."""
    state.advancing = False
    state.version, state.root, state.table = done.version, done.root, done.table
    return catch_up(state)


def on_attached(state: OuterStep, attached: m.Attached) -> list[e.Effect]:
    """A trainer is here, and says which state its weights began from.

    It may have been at work for an agent that died. The plan is forgotten here, so that the coordinator's
    repetition of it reaches the trainer, which alone knows how far it is.
    """
    state.attached = True
    state.loaded = attached.loaded
    state.plan, state.encoding = None, False
    return catch_up(state)


def on_adopted(state: OuterStep, adopted: m.Adopted) -> list[e.Effect]:
    """The trainer has proven what it loaded. Wrong weights end this island: its memory cannot be trusted."""
    if state.advancing or (adopted.step, adopted.root) != (state.version, state.root):
        # The state has moved since, perhaps to the same step of another branch, so what was copied may mix
        # two versions: another Adopt follows.
        return []
    state.loaded = adopted.loaded
    effects: list[e.Effect] = [e.Send(m.Ready(state.version, state.root, state.loaded))]
    if state.loaded != state.root:
        reason = "the weights that the trainer loaded are not the swarm's; look at this machine's memory"
        effects.append(e.Tell(m.Stopped(reason)))
    elif state.finished and state.version == state.head:
        effects.append(e.Tell(m.Stopped("")))
    return effects


# -------------------------------------------------------------------------------------- 2. train, and propose
def on_plan(state: OuterStep, plan: r.Plan) -> list[e.Effect]:
    """Train alone on these samples. A plan that we know already asks whether we have proposed yet."""
    if plan.term != state.term or plan.step != state.version or plan.parent != state.root:
        return []
    if state.proposal is not None and _is_of(state.proposal, plan):
        state.plan = plan
        return [e.Send(state.proposal)]
    if state.plan is not None and state.plan.is_same_work(plan):
        state.plan = plan
        return [] if state.encoding else [e.Tell(m.Work(plan))]  # how much time is left may have changed
    if state.plan is not None or state.proposal is not None:
        # Another plan for this step: the coordinator's database was restored from a backup and has forgotten
        # the samples that we trained on. Begin the step anew.
        state.plan = state.proposal = None
        state.loaded = b""
        return catch_up(state)
    state.plan, state.encoding = plan, False
    return [e.Tell(m.Work(plan))]


def on_proposed(state: OuterStep, done: m.Proposed) -> list[e.Effect]:
    """The trainer has handed over its parameters. Encode them, once: all attempts use the same payload."""
    plan = state.plan
    if plan is None or done.step != plan.step or plan.step != state.version:
        return []  # too late: the swarm has moved on
    if state.encoding:
        return []  # said again, to a plan that was told again
    state.encoding = True
    proposal = m.Propose(
        step=plan.step,
        parent=plan.parent,
        lease=plan.used_lease(done.inner_steps),
        payload=b"",
        tokens=done.tokens,
        inner_steps=done.inner_steps,
        loss=done.loss,
        norm=0.0,
        count=done.count,
        compute_seconds=done.compute_seconds - done.handover_seconds,
        handover_seconds=done.handover_seconds,
    )
    return [e.Encode(proposal)]


def on_encoded(state: OuterStep, done: e.Encoded) -> list[e.Effect]:
    """The payload is on disk: from now on we can keep what we propose."""
    if state.plan is None or not _is_of(done.proposal, state.plan):
        return []
    state.proposal = done.proposal
    return [e.Send(done.proposal)]


def _is_of(proposal: m.Propose, plan: r.Plan) -> bool:
    return (proposal.parent, proposal.lease) == (plan.parent, plan.used_lease(proposal.inner_steps))


# ---------------------------------------------------------------------------------------- 3. reduce, and hold
def on_attempt(state: OuterStep, attempt: r.Attempt) -> list[e.Effect]:
    """Reduce the named payloads, in place of an older attempt: nothing was applied, so nothing is undone."""
    if attempt.term != state.term or attempt.step != state.version or attempt.parent != state.root:
        return []
    if state.attempt is not None and attempt.number < state.attempt.number:
        return []
    if attempt == state.attempt:
        return []  # under way; the coordinator repeats it after a broken connection
    state.attempt, state.assembled = attempt, None
    share = attempt.share_of(state.island)
    if share is not None and (state.proposal is None or state.proposal.payload != share.payload):
        lost = m.Fault(
            step=attempt.step,
            number=attempt.number,
            peer=state.island,
            kind="lost",
            text="the payload is no longer here",
        )
        return [e.Send(lost)]
    return [e.Reduce(attempt)]


def on_reported(_: OuterStep, report: m.Reduced | m.Fault | m.Exchanged) -> list[e.Effect]:
    """What our own reduction has to say goes to the coordinator."""
    return [e.Send(report)]


def on_assembled(state: OuterStep, assembled: r.Assembled) -> list[e.Effect]:
    """The update is fixed. Hold it: a promise to keep it until the step's commit record is stored."""
    attempt = state.attempt
    if attempt is None or assembled.term != state.term or not _is_of_attempt(assembled, attempt):
        return []
    if state.held is not None and _is_of_attempt(state.held, attempt):
        return [e.Send(state.held)]
    if state.assembled == assembled:
        return []  # being held; the coordinator repeats it after a broken connection
    state.assembled = assembled
    return [e.Hold(attempt, assembled)]


def on_holding(state: OuterStep, done: e.Holding) -> list[e.Effect]:
    """The update is on disk: promise it."""
    if state.attempt is None or not _is_of_attempt(done.held, state.attempt):
        return []
    state.held = done.held
    return [e.Send(done.held)]


def _is_of_attempt(message: r.Assembled | m.Held | r.Attempt, attempt: r.Attempt) -> bool:
    return (message.step, message.number) == (attempt.step, attempt.number)


# --------------------------------------------------------------------------------------- 4. commit, and apply
def on_committed(state: OuterStep, committed: m.Committed) -> list[e.Effect]:
    """Decided for the whole swarm. A gap before this record means that we missed some: ask for them."""
    if committed.record.step > state.head:
        return [e.Send(m.WantRecords(state.head))]
    return [e.Store(committed.record)] if committed.record.step == state.head else []


def on_stored(state: OuterStep, stored: e.Stored) -> list[e.Effect]:
    """The step is settled: what we had planned, proposed or held for it is dropped.

    `catch_up` orders an `Advance`, which applies the update; then the trainer adopts the new state.
    """
    record = stored.record
    state.head, state.head_root = record.step + 1, record.next_root
    state.plan = state.proposal = state.attempt = state.assembled = state.held = None
    return catch_up(state)


def on_finished(state: OuterStep, finished: m.Finished) -> list[e.Effect]:
    """The last update is committed; the trainer ends once it has adopted it."""
    state.finished = True
    if state.head == finished.step and state.loaded and state.loaded == state.root:
        return [e.Tell(m.Stopped(""))]
    return []


# ------------------------------------------------------------------------------------------ what can go wrong
def on_failed(state: OuterStep, failed: e.Failed) -> list[e.Effect]:
    """Report failed work with its reason. Only the way to the head is tried again, for ever."""
    work = failed.work
    if isinstance(work, e.Advance):
        return [e.Retry(work)]
    if isinstance(work, e.Encode):
        return [e.Tell(m.Stopped(failed.reason))]
    if state.attempt is None or not _is_of_attempt(work.attempt, state.attempt):
        return []
    if isinstance(work, e.Hold):
        state.assembled = None  # so that it is tried again when the coordinator repeats it
    fault = m.Fault(
        step=work.attempt.step,
        number=work.attempt.number,
        peer=failed.peer,
        kind="failed",
        text=one_line(failed.reason),
    )
    return [e.Send(fault)]


def on_refused(_: OuterStep, refused: m.Refused | m.Evicted) -> list[e.Effect]:
    """The coordinator wants no more of us."""
    return [e.Tell(m.Stopped(refused.reason))]


_HANDLERS: dict[type, Callable[[OuterStep, Any], list[e.Effect]]] = {
    m.Welcome: on_welcome,
    m.Records: on_records,
    m.Rewound: on_rewound,
    e.Advanced: on_advanced,
    m.Attached: on_attached,
    m.Adopted: on_adopted,
    r.Plan: on_plan,
    m.Proposed: on_proposed,
    e.Encoded: on_encoded,
    r.Attempt: on_attempt,
    m.Reduced: on_reported,
    m.Fault: on_reported,
    m.Exchanged: on_reported,
    r.Assembled: on_assembled,
    e.Holding: on_holding,
    m.Committed: on_committed,
    e.Stored: on_stored,
    m.Finished: on_finished,
    e.Failed: on_failed,
    m.Refused: on_refused,
    m.Evicted: on_refused,
}
