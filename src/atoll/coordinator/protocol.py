"""The coordinator's decisions: who trains on what, who reduces, what is committed (PROTOCOL 2 and 3).

`Coordinator.step(event, now)` is pure apart from its own state: no I/O, no clock, no randomness. Effects are
carried out in order, a `Send` only after the `Persist` before it. A restart is `restore`: a fold over the
records.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from atoll.coordinator import effects as e
from atoll.coordinator.attempts import OpenAttempt, make_attempt
from atoll.coordinator.deadlines import Deadline
from atoll.coordinator.doubt import Doubt
from atoll.coordinator.holders import enough
from atoll.coordinator.members import Member, Members
from atoll.coordinator.plans import Plans
from atoll.coordinator.rules import Rules
from atoll.coordinator.standing import Standing
from atoll.swarm import messages as m
from atoll.swarm import records as r


class Coordinator:
    """One reign over one run."""

    def __init__(self, rules: Rules, term: r.Term, sign: Callable[[bytes], bytes]) -> None:
        self.rules = rules
        self.term = term
        self.members = Members()
        self.head, self.head_root, self.head_digest = 0, rules.genesis_root, b""
        self.ledger: Counter[str] = Counter()  # committed tokens per island
        self.holdings = Deadline(rules.hold_seconds)  # from an assembly to a Held
        self._sign = sign
        self._handlers: dict[type, Callable[[Member, Any, float], bool]] = {
            m.Records: self._import,
            m.Ready: self._ready,
            m.Propose: self._propose,
            m.Reduced: self._reduced,
            m.Fault: self._fault,
            m.Held: self._held,
        }
        self._do = e.Effects()
        self.plans, self.doubt, self.standing = Plans(rules), Doubt(), Standing()
        self.newest: r.CommitRecord | None = None
        self.rewinds: tuple[r.Rewind, ...] = ()
        self.grace_until, self.finish_by = 0.0, math.inf
        self.number = 0  # of the last attempt of the open step
        self._new_step()

    def _new_step(self) -> None:
        self.proposals: dict[str, m.Propose] = {}
        self.attempt: OpenAttempt | None = None
        self.standing = self.standing.next_step()
        self.reopen_at, self.hold_misses = 0.0, 0

    def restore(self, commits: list[r.CommitRecord], known: e.OpenStep, now: float) -> None:
        """Fold the records of earlier reigns: the chain, and what is known of the open step."""
        for record in commits:
            self._fold(record)
        still_open = [
            plan for plan in known.plans if plan.step == self.head and plan.parent == self.head_root
        ]
        self.plans.restore(still_open, commits, known.stage_starts, now)
        self.number, self.rewinds = known.last_number, known.rewinds
        self.grace_until = now + self.rules.grace_seconds if self.plans else 0.0
        if known.doubted:
            self._doubt(now)

    def _doubt(self, now: float) -> None:
        """Nothing begins until those that this database knows last have spoken, and the others had time
        to.
        """
        awaited = self.plans.keys() | (self.newest.islands if self.newest else set[str]())
        self.doubt.begin(self.members.unconnected(awaited), now + self.rules.doubt_seconds)

    def _fold(self, record: r.CommitRecord) -> None:
        """A committed step becomes history."""
        self.head, self.head_root, self.head_digest = record.step + 1, record.next_root, record.digest()
        for share in record.participants:
            self.ledger[share.island] += share.tokens
        self.newest = record

    @property
    def finished(self) -> bool:
        return self.head >= self.rules.num_outer_steps

    def step(self, event: e.Event, now: float) -> list[e.Effect]:
        """What to do about one event."""
        self._do = e.Effects(self.head)
        match event:
            case e.Joined():
                self._joined(event, now)
            case e.Reached():
                self.members.reached(event.island, event.session, event.address)
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
        if self.members.choose_donors(self.head):
            self._do.send_all(self.members.here, m.View(self.members.donors))
        return self._do

    # -------------------------------------------------------------------------------------------- membership
    def _joined(self, event: e.Joined, now: float) -> None:
        hello, island = event.hello, event.island
        if reason := self.rules.objection(hello):
            self._do.report("refused", f"{island} was refused: {reason}", island)
            self._do.send(island, m.Refused(reason))
            return
        member = self.members.admit(island, hello, now)
        self.doubt.awaited.discard(island)
        self.standing.forgive(island)
        if hello.branch < len(self.rewinds):
            self._do.send(island, m.Rewound(self.rewinds[hello.branch :]))
        elif hello.branch > len(self.rewinds) or hello.head > self.head:
            self._learn_from(member, now)
        self._do.send(island, m.Welcome(self.term, self.head, self.head_root))
        self._do.send(island, m.View(self.members.donors))
        self._do.report(
            "joined",
            f"{island} joined as {'a relay' if hello.relay else 'an island'}",
            island,
            contributor=hello.contributor,
            relay=hello.relay,
        )

    def _reign(self, term: r.Term, now: float) -> None:
        """Rule under a higher term; what the last one opened is void, what it committed stands."""
        self.term = term
        if self.attempt is not None:
            self._close("a higher term begins", now)
        self._do.send_all(self.members.here, m.Welcome(term, self.head, self.head_root))

    def _learn_from(self, member: Member, now: float) -> None:
        """An island knows what this database does not: a restored backup. Ask, and decide nothing
        meanwhile.
        """
        if not self.doubt.is_open:
            self._doubt(now)
            self._do.append(e.Persist(e.Doubted(True)))
        self.doubt.awaited.add(member.island)
        more = f"{member.hello.head} commits, it only {self.head}; importing"
        if member.hello.branch > len(self.rewinds):
            more = "a rewind that it does not: host it with that --rewind again"
        else:
            self._do.send(member.island, m.Want(self.head))
        self._do.report(
            "behind", f"this database is an old backup: {member.island} knows {more}", member.island
        )

    def _import(self, member: Member, told: m.Records, now: float) -> bool:
        """Records from an island, verified by the server as the run's and as a chain: history, whatever the
        term.
        """
        for record in told.records:
            if (record.step, record.previous) == (self.head, self.head_digest) and r.is_valid_after(
                record, self.rewinds
            ):
                self._do.append(e.Persist(record))
                self.plans.learn(record, self.members, now)
                self._fold(record)
                self._new_step()
                self.doubt.awaited |= self.members.unconnected(record.islands)
        if told.records and self.head == told.records[-1].step + 1:
            self._do.send(member.island, m.Want(self.head))  # there may be more
            return False
        self.doubt.awaited.discard(member.island)
        self._do.send_all(self.members.here, m.Welcome(self.term, self.head, self.head_root))
        self._do.report("imported", f"the database knows {self.head} commits now", member.island)
        return True

    def _left(self, event: e.Left) -> None:
        member = self.members.get(event.island)
        if member is None or member.hello.session != event.session or not member.connected:
            return
        member.leave(planned=event.island in self.plans and event.island not in self.proposals)
        self._do.report("left", f"{event.island} is gone: {event.reason}", event.island)

    def _notice_frozen(self, now: float) -> None:
        silent, at = self.members.fall_silent(now, self.rules.frozen_seconds)
        self._do.append(e.Timer(at))
        for member in silent:
            text = f"{member.island} is silent for {now - member.last_heard:.1f} s; going on without it"
            self._do.report("frozen", text, member.island)

    def _received(self, island: str, message: r.Message, now: float) -> bool:
        """Whether anything may be due now: what comes often, and from everybody, must cost little."""
        member = self.members.get(island)
        if member is None or not member.connected:
            return False
        if thawed := member.heard(now):
            self._do.report("thawed", f"{island} is heard again", island)
        if isinstance(message, m.Beat) and 0 <= message.inner_step <= self.rules.inner_steps:
            member.beat = message
            if self.attempt is not None:
                self.attempt.heard(island, message, now)
        elif handler := self._handlers.get(type(message)):
            return handler(member, message, now) or thawed
        return thawed

    # ---------------------------------------------------------------------------------------- plan, propose
    def _ready(self, member: Member, ready: m.Ready, now: float) -> bool:
        if ready.step != self.head:
            return False  # the records it lacks are on their way
        if ready.root != self.head_root or ready.loaded not in (b"", self.head_root):
            self._do.report(
                "unequal",
                f"{member.island} holds other bits than the swarm at step {ready.step}",
                member.island,
            )
            return False
        if member.ready_step != ready.step:
            self._do.report_ready(member, ready, now)
            member.ready_step = ready.step
        if self.attempt is not None:  # its line was down: it may have missed these
            self._do.send(member.island, self.attempt.record)
            if self.attempt.assembled is not None:
                self._do.send(member.island, self.attempt.assembled)
        if not self.finished and not member.relay:
            self._plan(member, now)
        return self.finished or bool(member.address)  # one more that can give state

    def _plan(self, member: Member, now: float) -> None:
        """Train from the head; one plan per island and step, sent again to whoever lost it."""
        plan = self.plans.get(member.island)
        if plan is not None:
            seconds = self.plans.seconds_left(member.island, self.members, now)
            plan = msgspec.structs.replace(plan, term=self.term, seconds=seconds)
        else:
            if self.attempt is not None or self.doubt.is_open:
                return  # too late for this step, or too early: history is still being told
            plan = self.plans.make(self.term, self.head, self.head_root, member, self.members, now)
            self._do.append(e.Persist(plan))
        self._do.send(member.island, plan)

    def _propose(self, member: Member, proposal: m.Propose, now: float) -> bool:
        plan = self.plans.get(member.island)
        if plan is None or (proposal.step, proposal.parent) != (self.head, self.head_root):
            return False  # too late; it keeps nothing of it and goes on from the head
        if not self.plans.allows(member.island, proposal):
            text = (
                f"{member.island} proposed other samples or more tokens than its lease, or what is not finite"
            )
            self._do.report("refused", text, member.island)
            return False
        if member.island not in self.proposals:
            self.plans.observe(member, proposal, now)
        self.proposals[member.island] = proposal  # an open attempt has named what it counts
        return not any(self._awaits(island, now) for island in self.plans.missing)

    def _awaits(self, island: str, now: float) -> bool:
        """Whether the step waits for the proposal of an island that has a plan."""
        return island not in self.standing.out and self.members.waited_for(
            island, returning=now < self.grace_until
        )

    # ------------------------------------------------------------------------------------ attempt, assembled
    def _decide(self, now: float) -> None:
        """Whatever is due: a new attempt, or a commit."""
        if self.doubt.ends(now):
            self._do.append(e.Persist(e.Doubted(False)))
        if self.doubt.is_open:
            self._do.append(e.Timer(max(self.doubt.until, now + 1.0)))
            return
        if self.finished:
            self._finish(now)
            return
        if self.attempt is not None and self.attempt.assembled is None:
            self._watch(self.attempt, now)
        elif self.attempt is not None:
            self._maybe_commit(self.attempt, now)
        if self.attempt is None:
            for member in self.members.ready(self.head):
                if not member.relay and member.island not in self.plans:
                    self._plan(member, now)  # it came too late for a step that has since lost those under way
            self._maybe_open(now)

    def _finish(self, now: float) -> None:
        """An island ends when it is told: not before all who are here hold the last state, or had time to."""
        self.finish_by = min(self.finish_by, now + self.rules.last_seconds)
        if now < self.finish_by and any(m.present and not m.ready(self.head) for m in self.members.values()):
            self._do.append(e.Timer(self.finish_by))
            return
        for member in self.members.ready(self.head):
            if not member.told_finished:
                member.told_finished = True
                self._do.send(member.island, m.Finished(self.head))

    def _watch(self, attempt: OpenAttempt, now: float) -> None:
        """Close an attempt that somebody has left, or whose owners stand still."""
        stalled = attempt.stalled_since()
        due = min(stalled.values()) + self.rules.stall_seconds
        if gone := [i for i in attempt.record.involved if not self.members.at(i, self.head)]:
            self._close(f"{', '.join(gone)} left before the update was assembled", now)
        elif now >= due:
            late = {owner for owner, since in stalled.items() if now >= since + self.rules.stall_seconds}
            self.standing.late(late)
            self._close(
                f"{', '.join(sorted(late))} brought nothing on for {self.rules.stall_seconds:.0f} s", now
            )
        else:
            self._do.append(e.Timer(due))

    def _maybe_open(self, now: float) -> None:
        """All that are expected have proposed, or the deadline has passed with enough of them."""
        if now < self.reopen_at:
            self._do.append(e.Timer(self.reopen_at))
            return
        able = {
            i: p
            for i, p in self.proposals.items()
            if i not in self.standing.out and self.members.at(i, self.head)
        }
        if not able or len(able) < self.rules.min_participants:
            if self.standing.out and not able:
                self.standing = Standing()  # nobody is left: everybody gets another chance
                self.reopen_at = now + 2.0
                self._do.append(e.Timer(self.reopen_at))
            return
        missing = any(island not in able and self._awaits(island, now) for island in self.plans)
        due = max(self.plans.began + self.plans.arrivals.seconds(), self.grace_until) if missing else now
        if now >= due:
            self._open(able, now)
        elif due < math.inf:
            self._do.append(e.Timer(due))

    def _open(self, able: dict[str, m.Propose], now: float) -> None:
        others = [m.island for m in self.members.ready(self.head) if m.island not in able]
        relays = [i for i in others if self.members[i].relay]
        reachable = {i for i in [*able, *others] if self.members[i].address}
        owners = self.standing.owners([sorted(able), relays, others], reachable)
        if not owners:
            worst = self.standing.exclude_worst(sorted(able))
            why = f"{worst} is left out of step {self.head}: no owner can reach it"
            self._do.report(
                "excluded" if worst else "stuck",
                why if worst else "no agent can be reached by the others: start a relay",
                worst,
            )
            self.reopen_at = now + self.rules.stuck_seconds
            return
        self.number += 1
        addresses = {owner: self.members[owner].address for owner in owners}
        attempt = make_attempt(self.term, self.head, self.number, self.head_root, able, addresses, self.rules)
        self.attempt = OpenAttempt(attempt, able, now)
        self._do.append(e.Persist(attempt))
        self._do.send_all(self.members.ready(self.head), attempt)
        left_out = sorted(set(self.plans) - set(able))
        names = f"; without {', '.join(left_out)}" if left_out else ""
        self._do.report(
            "attempt",
            f"step {self.head}, attempt {self.number}: {len(able)} participants, "
            f"{len(attempt.addresses)} owners{names}",
            "",
            participants=sorted(able),
            left_out=left_out,
        )

    def _reduced(self, member: Member, reduced: m.Reduced, now: float) -> bool:
        attempt = self.attempt
        if not (
            attempt
            and attempt.is_of(reduced)
            and attempt.reduced(member.island, reduced, now)
            and attempt.assembled
        ):
            return False
        self._do.append(e.Persist(attempt.assembled))
        self._do.send_all(self.members.ready(self.head), attempt.assembled)
        return True

    def _fault(self, member: Member, fault: m.Fault, now: float) -> bool:
        """Charged to both ends of the edge: ownership is dropped first, participation last."""
        if self.attempt is None or not self.attempt.is_of(fault):
            return False
        accuser, peer = member.island, fault.peer or member.island
        self.standing.charge(accuser, peer, fault.kind, self.attempt.record)
        self._do.report(
            "fault", f"{accuser} about {peer}: {fault.text}", accuser, peer=peer, fault=fault.kind
        )
        self._close(f"{accuser} and {peer} could not exchange", now)
        return True

    def _close(self, reason: str, now: float) -> None:
        """This attempt is over; nothing was applied, so nothing is rolled back."""
        self._do.report("attempt closed", f"step {self.head}, attempt {self.number}: {reason}")
        self.attempt = None
        self.reopen_at = now + self.rules.fault_seconds

    # ------------------------------------------------------------------------------------------ held, commit
    def _held(self, member: Member, held: m.Held, now: float) -> bool:
        attempt = self.attempt
        if not (attempt and attempt.is_of(held) and attempt.is_held(member.island, held)):
            return False
        self.holdings.observe(now - attempt.assembled_at)
        return not any(self.members.at(island, self.head) for island in attempt.missing)

    def _maybe_commit(self, attempt: OpenAttempt, now: float) -> None:
        """All participants hold the same; or, once nothing more can be hoped for, enough of them."""
        ready = {member.island for member in self.members.ready(self.head)}
        awaited = attempt.awaited(ready, self.members)
        due = attempt.assembled_at + self.holdings.patience(self.number)
        if awaited and now < due:
            self._do.append(e.Timer(due))
            return
        update, holders = attempt.holders.best(self.members)
        if len(attempt.holders.groups()) > 1:
            self._do.report(
                "unequal",
                f"step {self.head}: different next roots are held",
                groups=len(attempt.holders.groups()),
            )
        many = enough(holders, attempt.participants, len(ready))
        if update is not None and self.members.can_reach_any(holders) and (many or self.hold_misses):
            if not many:
                self._do.report(
                    "thin",
                    f"step {self.head} is committed with {len(holders)} holders",
                    holders=sorted(holders),
                )
            self._commit(attempt, update, holders, now)
        else:
            self.hold_misses += 1
            self.holdings.observe(now - attempt.assembled_at)  # it takes longer than that
            self.standing.late(set(awaited))
            self._close(f"{', '.join(awaited) or 'nobody'} did not hold the update in time", now)

    def _commit(self, attempt: OpenAttempt, held: m.Held, holders: set[str], now: float) -> None:
        names, shares = sorted(attempt.participants), attempt.record.participants
        proposals = attempt.proposals
        leases = tuple((island, proposals[island].lease) for island in names)
        record = r.CommitRecord(
            term=self.term,
            branch=len(self.rewinds),
            step=self.head,
            number=self.number,
            parent=self.head_root,
            update=held.update,
            next_root=held.next_root,
            participants=shares,
            leases=leases,
            previous=self.head_digest,
            stage_starts=self.plans.stage_starts,
        )
        record = msgspec.structs.replace(record, signature=self._sign(record.unsigned()))
        self._do.append(e.Persist(record))
        loss = sum(proposals[share.island].loss * share.weight for share in shares)
        self._fold(record)
        self.members.completed(names)
        self.plans.settle({island: proposals[island].inner_steps for island in names}, self.members, now)
        self.number = 0
        self._new_step()
        self._do.send_all(self.members.here, m.Committed(record))
        self._do.report(
            "committed",
            f"step {record.step}: {len(names)} islands, {record.tokens:,} tokens, "
            f"loss {loss:.3f}, root {record.next_root[:6].hex()}",
            "",
            tokens=record.tokens,
            loss=loss,
            participants=names,
            holders=sorted(holders),
            root=record.next_root.hex(),
        )
        if self.finished:
            self._do.report("finished", f"all {self.head} outer steps are committed")
