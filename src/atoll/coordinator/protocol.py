"""The coordinator's decisions: who trains on what, who reduces, and what is committed.

`Coordinator.step(event, now)` returns what to do about one event, as a list of effects. It is pure apart from
its own state: no I/O, no clock, no randomness. Effects are carried out in order, and a `Send` only once every
`Persist` before it is durable. After a restart `restore` folds the durable records into the same state.

The methods stand in the order of an outer step: membership, plan and propose, attempt, commit. Rooms of their
own: admission (what a message must satisfy to count), plans and leases, owners and slices, the open attempt,
how long it waits until it is held, evidence and standing (who lost a right, and by what), deadlines, history
(what is committed), and doubt (whether this database may be an old backup).
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from atoll import events
from atoll.coordinator import effects as e
from atoll.coordinator.admission import objection_to_hello, objection_to_proposal
from atoll.coordinator.attempts import OpenAttempt, make_attempt, secret
from atoll.coordinator.deadlines import doubled
from atoll.coordinator.doubt import Doubt
from atoll.coordinator.evidence import Evidence
from atoll.coordinator.finish import Finish
from atoll.coordinator.history import History
from atoll.coordinator.holding import Holding
from atoll.coordinator.links import Links
from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.coordinator.rules import Rules
from atoll.coordinator.stall import Stall
from atoll.coordinator.start import Start
from atoll.events.step import Cause
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.messages import control


class Coordinator:
    """One reign over one run."""

    def __init__(self, rules: Rules, term: r.Term, sign: Callable[[bytes], bytes]) -> None:
        """`sign` signs commit records with the run's key."""
        self.rules = rules
        self.term = term
        self.history = History(rules.genesis_root)
        self.members = Members()
        self.plans = Plans(rules)
        self.evidence = Evidence(rules, self.members, self.plans)
        self.standing = self.evidence.standing
        self.doubt = Doubt(self.history, self.plans, self.members, rules.doubt_seconds)
        self.holding = Holding(rules, self.members, lambda: self.plans.length_seconds)
        self.start, self.stall = Start(self.members, rules.num_awaited), Stall(self.members, self.doubt)
        self.links = Links(rules, self.members)
        self.finish = Finish(self.members, rules.last_seconds)
        self.number = 0  # of the open step's last attempt
        self._sign = sign
        self._grace_until = 0.0  # after a restart: islands with a plan may still come back
        self._do = e.Effects()
        self._handlers: dict[type, Callable[[Member, Any, float], bool]] = {
            m.Records: self._import,
            m.Ready: self._ready,
            m.Propose: self._propose,
            m.Reduced: self._reduced,
            m.Fault: self._fault,
            m.Exchanged: self._exchanged,
            m.Held: self._held,
        }
        self._begin_step()

    def _begin_step(self) -> None:
        self.proposals: dict[str, m.Propose] = {}
        self.attempt: OpenAttempt | None = None
        self._closed = self.attempt  # until the next opens: its faults are still evidence
        self.evidence.begin_step()
        self._reopen_at = 0.0
        self.holding.begin_step()

    def restore(self, commits: list[r.CommitRecord], known: e.OpenStep, now: float) -> None:
        """Go on from the records of earlier reigns: what is committed, and what is known of the open step."""
        for record in commits:
            self.history.add(record)
        still_open = [p for p in known.plans if (p.step, p.parent) == (self.head, self.head_root)]
        self.plans.restore(still_open, commits, known.stage_starts, now)
        self.number, self.history.rewinds = known.last_number, known.rewinds
        self.start.has_been = bool(self.plans)
        self._grace_until = now + self.rules.grace_seconds if self.plans else 0.0
        if known.doubted:
            self.doubt.begin(now)

    @property
    def head(self) -> int:
        """The open outer step: how many are committed."""
        return self.history.head

    @property
    def head_root(self) -> bytes:
        """The root of the state that the open step begins from."""
        return self.history.head_root

    @property
    def finished(self) -> bool:
        """Whether every outer step of the run is committed."""
        return self.head >= self.rules.num_outer_steps

    def step(self, event: e.Event, now: float) -> list[e.Effect]:
        """What to do about one event."""
        self._do = e.Effects(self.head, now)
        match event:
            case e.Joined():
                self._joined(event, now)
            case e.Reached():
                self.members.set_addresses(event.island, event.session, event.addresses)
            case e.Left():
                self._left(event)
            case e.Received():
                if not self._received(event.island, event.message, now):
                    return self._do
            case e.Reign():
                self._reign(event.term, now)
            case e.Tick():
                self._notice_frozen(now)
        self._decide(now)
        self.stall.follow(self.head, now, self._do)
        if self.members.update_donors(self.head):
            self._do.send_all(self.members.connected, m.Donors(self.members.donors))
        return self._do

    # -------------------------------------------------------------------------------------------- membership
    def _joined(self, event: e.Joined, now: float) -> None:
        """An agent dialled in. It hears what it lacks of the run's rewinds, then where the run is."""
        hello, island = event.hello, event.island
        if reason := objection_to_hello(self.rules, hello):
            self._do.report(events.Refused(island=island, what="island", reason=reason))
            self._do.send(island, m.Refused(reason))
            return
        member = self.members.add(island, hello, now, event.ticket)
        self.doubt.awaited.discard(island)
        self.standing.restore_ownership(island)
        self.links.edges.restore(island)
        rewinds = self.history.rewinds
        if hello.num_rewinds < len(rewinds):
            self._do.send(island, m.Rewound(rewinds[hello.num_rewinds :]))
        elif hello.num_rewinds > len(rewinds) or hello.head > self.head:
            self.doubt.ask(member, now, self._do)
        self._do.send(island, m.Welcome(self.term, self.head, self.head_root))
        self._do.send(island, m.Donors(self.members.donors))
        self._do.report(events.Joined(island=island, contributor=hello.contributor, relay=hello.relay))

    def _left(self, event: e.Left) -> None:
        member = self.members.get(event.island)
        if member is None or member.hello.session != event.session or not member.connected:
            return
        member.leave(owes_proposal=event.island in self.plans and event.island not in self.proposals)
        self._do.report(events.Left(island=event.island, reason=event.reason))

    def _notice_frozen(self, now: float) -> None:
        """Who has been silent for too long is not waited for any more."""
        silent, at = self.members.mark_frozen(now, self.rules.frozen_seconds)
        self._do.append(e.Timer(at))
        for member in silent:
            self._do.report(events.Frozen(island=member.island, silent_seconds=now - member.last_heard_at))

    def _received(self, island: str, message: control.ToCoordinator, now: float) -> bool:
        """Whether a decision may be due now. Most messages are many islands' beats: they must cost little."""
        member = self.members.get(island)
        if member is None or not member.connected:
            return False
        if thawed := member.note_heard(now):
            self._do.report(events.Thawed(island=island))
        if isinstance(message, m.Beat) and 0 <= message.inner_step <= self.rules.inner_steps:
            member.note_beat(message, now)
            if self.attempt is not None:
                self.attempt.note_beat(island, message, now)
            elif self.plans.note_beat(member, now):
                return True
        elif handler := self._handlers.get(type(message)):
            return handler(member, message, now) or thawed
        return thawed

    def _reign(self, term: r.Term, now: float) -> None:
        """Go on under a higher term. What the last one opened is void; what it committed stands."""
        self.term = term
        if self.attempt is not None:
            self._close("term", (), now)
        self._do.send_all(self.members.connected, m.Welcome(term, self.head, self.head_root))

    # ----------------------------------------------------------------------------------------- plan, propose
    def _ready(self, member: Member, ready: m.Ready, now: float) -> bool:
        """A member holds the head, and so does its trainer: it may be planned, own, and give state."""
        if ready.step != self.head:
            return False  # the records that it lacks are on their way
        if ready.root != self.head_root or ready.loaded not in (b"", self.head_root):
            self._do.report(events.Unequal(island=member.island))
            return False
        if member.ready_step != ready.step:
            self._do.report_ready(member, ready, now)
            member.ready_step = ready.step
        for record in self.attempt.records if self.attempt is not None else ():
            self._do.send(member.island, record)  # its line may have broken before it heard of this
        had_begun = self.start.has_been
        if not self.finished and not member.relay:
            self._plan(member, now)
        # There may be one more who can give state, or others may begin now as well.
        return self.finished or bool(member.addresses) or self.start.has_been != had_begun

    def _plan(self, member: Member, now: float) -> None:
        """Give a member its plan: one for each island and step, repeated to an island that lost it."""
        plan = self.plans.get(member.island)
        if plan is not None:
            seconds = self.plans.seconds_left(member.island, self.members, now)
            plan = msgspec.structs.replace(plan, term=self.term, seconds_left=seconds)
        elif self.attempt is not None or self.doubt.is_open or not self.start.may_begin(self.head):
            return  # too late for this step, or too early: what is committed, or who comes, is not known yet
        else:
            plan = self.plans.add(self.term, self.head, self.head_root, member, self.members, now)
            self._do.append(e.Persist(plan))
        self._do.send(member.island, plan)

    def _propose(self, member: Member, proposal: m.Propose, now: float) -> bool:
        """An island has trained, and names its payload. An open attempt has already named what it counts."""
        plan = self.plans.get(member.island)
        if plan is None or (proposal.step, proposal.parent) != (self.head, self.head_root):
            return False  # too late: the island drops it and goes on from the head
        if reason := objection_to_proposal(self.rules, plan, proposal):
            self._do.report(
                events.Refused(island=member.island, what="proposal", reason=f"it names {reason}")
            )
            return False
        is_first = member.island not in self.proposals
        self.proposals[member.island] = proposal
        half_done = is_first and self.plans.observe_proposal(member, proposal, now)
        return half_done or not any(self._awaits(island, now) for island in self.plans.not_proposed)

    def _awaits(self, island: str, now: float) -> bool:
        """Whether the step waits for the proposal of an island that has a plan."""
        returning = now < self._grace_until
        is_out = self.standing.is_out(island)
        return not is_out and self.members.is_waited_for(island, returning, now)

    # ----------------------------------------------------------------------------------- attempt, assembled
    def _decide(self, now: float) -> None:
        """Do whatever is due: close, open or commit an attempt, or end the run."""
        if self.doubt.persists(now, self._do):
            return
        if self.finished:
            self.finish.tell(self.head, now, self._do)
            return
        if self.attempt is not None and self.attempt.assembled is None:
            self._watch(self.attempt, now)
        elif self.attempt is not None:
            self._maybe_commit(self.attempt, now)
        if self.attempt is None:
            for member in self.members.ready(self.head):
                if not member.relay and member.island not in self.plans:
                    self._plan(member, now)  # it came during an attempt, which has since been closed
            is_due = not self._do.too_early(self.plans.meant_end, now)
            if is_due and self.plans.half_are_done(self.members, now):
                for member in self.plans.called(self.members, now):
                    self._plan(member, now)  # which tells them how much time is left to them
            self._maybe_open(now)

    def _maybe_open(self, now: float) -> None:
        """Open an attempt once all that are waited for have proposed, or enough of them at the deadline."""
        if self._do.too_early(self._reopen_at, now):
            return
        out, ready = self.standing.excluded, {member.island for member in self.members.ready(self.head)}
        able = {island: p for island, p in self.proposals.items() if island in ready and island not in out}
        if not able or len(able) < self.rules.min_participants:
            if out & self.proposals.keys() and not able and not any(self._awaits(i, now) for i in self.plans):
                self.standing.forgive()  # nobody else is left: everybody gets another chance
                self._reopen_at = now + self.rules.forgive_seconds
                self._do.append(e.Timer(self._reopen_at))
            return
        missing = any(island not in able and self._awaits(island, now) for island in self.plans)
        due = max(self.plans.late_at, self._grace_until) if missing else now
        if not self._do.too_early(due, now):
            self._open(able, now)

    def _open(self, able: dict[str, m.Propose], now: float) -> None:
        """Open an attempt with these proposals, if there is anybody to reduce them."""
        if len(self.evidence.admitted(able, self._do)) < len(able):
            self._maybe_open(now)  # without whom that leaves out
            return
        links = self.links.plan(list(able), self.head, self.standing)
        if links is None:
            if not self.evidence.exclude_worst(sorted(able), self._do):
                self.stall.note_no_owner()
            self._reopen_at = now + self.rules.stuck_seconds
            return
        self.number += 1
        at, told = (self.term, self.head, self.number, self.head_root), self.evidence.told(able, self._do)
        patience_seconds = self.plans.patience_seconds(self.number)
        attempt = make_attempt(*at, able, links, self.members, self.rules, *told, patience_seconds)
        self.attempt, self._closed = OpenAttempt(attempt, able, now, secret(attempt, self._sign)), None
        self._do.append(e.Persist(attempt))
        self._do.send_all(self.members.ready(self.head), attempt)
        self._do.report(self.attempt.opened_event(self.plans))

    def _watch(self, attempt: OpenAttempt, now: float) -> None:
        """Close an attempt that somebody has left, or whose owners make no progress."""
        late, due = attempt.late_owners(self.rules.stall_seconds, self.plans.reductions.median_seconds, now)
        if gone := [i for i in attempt.record.involved if not self.members.is_ready(i, self.head)]:
            self.evidence.charge_gone(attempt, gone, self._do)
            self._close("left", gone, now)
        elif not self._do.too_early(due, now):
            self.evidence.charge_late(late, now)
            self._close("stalled", late, now)

    def _reduced(self, member: Member, reduced: m.Reduced, now: float) -> bool:
        """An owner's slice is done. With the last one the update is fixed, and everybody is told."""
        attempt = self.attempt
        if attempt is None or not (
            attempt.is_about(reduced) and attempt.note_reduced(member.island, reduced, now)
        ):
            return False
        assert attempt.assembled is not None
        cause, islands = self.evidence.weigh_reduced(attempt, self._do)
        if cause is not None:
            self._close(cause, islands, now)
            return True
        self._do.append(e.Persist(attempt.assembled))
        self._do.send_all(self.members.ready(self.head), attempt.assembled)
        return True

    def _fault(self, member: Member, fault: m.Fault, now: float) -> bool:
        """Two agents could not exchange, or one could not hold the update, and is not waited for."""
        attempt = self.attempt or self._closed
        if attempt is None or not attempt.is_about(fault):
            return False
        if not self.evidence.hear(member.island, fault, attempt, self._do):
            return False
        self.links.note_fault(member.island, fault)
        if fault.kind != "failed" and attempt is self.attempt:
            self._close("fault", (member.island, fault.peer or member.island), now)
        return True

    def _close(self, cause: Cause, islands: Iterable[str], now: float) -> None:
        """End this attempt. Nothing was applied, so nothing is rolled back."""
        names = tuple(sorted(set(islands)))
        self._do.report(events.AttemptClosed(number=self.number, cause=cause, islands=names))
        if self.attempt is not None:
            self.links.learn(self.attempt, now)
        self.attempt, self._closed = None, self.attempt
        self._reopen_at = now + doubled(self.rules.fault_seconds, self.number)

    # ------------------------------------------------------------------------------------------ held, commit
    def _exchanged(self, member: Member, told: m.Exchanged, now: float) -> bool:
        """For people: what reducing took of a member. It decides nothing."""
        if self.attempt is not None and self.attempt.is_about(told):
            self.attempt.exchanges[member.island] = told.exchange
        return False

    def _held(self, member: Member, held: m.Held, now: float) -> bool:
        """A member has the assembled update on disk."""
        attempt = self.attempt
        if attempt is None or not attempt.is_about(held) or self.standing.is_out(member.island):
            return False
        if not attempt.note_held(member.island, held):
            return False
        self.holding.observe(attempt, member.island, now)
        return not any(self.members.is_ready(island, self.head) for island in attempt.not_holding)

    def _maybe_commit(self, attempt: OpenAttempt, now: float) -> None:
        """Commit once all participants hold the same update, or enough of them when no more is to come."""
        verdict = self.holding.verdict(attempt, self.head, now, self._do)
        cause, islands = self.evidence.weigh_held(attempt, verdict, self._do) if verdict else (None, ())
        if cause is not None:
            self._close(cause, islands, now)
        elif verdict is not None and verdict.held is not None:
            self._commit(attempt, verdict.held, verdict.islands, now)

    def _commit(self, attempt: OpenAttempt, held: m.Held, holders: set[str], now: float) -> None:
        """The one decision about this step: durable, then told to everybody."""
        record = self.history.next_record(self.term, attempt, held, self.plans.stage_starts, self._sign)
        self._do.append(e.Persist(record))
        self.history.add(record)
        self.members.shorten_probation(record.islands)
        self.evidence.note_committed(attempt, self._do)
        self.links.note_committed(attempt, now)
        self.plans.reductions.observe(now - attempt.opened_at)
        self.plans.close_step(attempt.inner_steps, self.members, now)
        self.number = 0
        self._begin_step()
        self._do.send_all(self.members.connected, m.Committed(record))
        self._do.report(attempt.committed_event(record, holders, now))
        if self.finished:
            self._do.report(events.Finished(num_outer_steps=self.head))

    # ------------------------------------------------------------------------------- a database from a backup
    def _import(self, member: Member, told: m.Records, now: float) -> bool:
        """Records that a member was asked for, whose signatures the server has checked."""
        head, is_all = self.head, self.doubt.take_in(member, told, now, self._do)
        if self.head > head:
            self._begin_step()
        if is_all:
            self._do.send_all(self.members.connected, m.Welcome(self.term, self.head, self.head_root))
            self._do.report(events.Imported(island=member.island, num_commits=self.head))
        return is_all
