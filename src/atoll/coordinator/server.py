"""The coordinator's process: carries out what `protocol.py` decides, over streams and a durable store.

What people ask of it is in `requests.py`.
"""

import asyncio
import contextlib
from typing import Any

import msgspec

from atoll import __version__, events
from atoll.coordinator.admission import unproven_claim
from atoll.coordinator.alerts import Alerts
from atoll.coordinator.consumed import CountSamples, count_nothing, sources_of
from atoll.coordinator.effects import (
    Doubted,
    Event,
    Joined,
    Left,
    Persist,
    Received,
    Reign,
    Report,
    Send,
    Tick,
    Timer,
)
from atoll.coordinator.outbox import Outbox
from atoll.coordinator.overview import OverviewBoard
from atoll.coordinator.protocol import Coordinator
from atoll.coordinator.reach import Reach
from atoll.coordinator.rules import Rules
from atoll.coordinator.store import Store
from atoll.errors import UserError
from atoll.events.log import EventLog
from atoll.swarm import messages as m
from atoll.swarm.address import Addresses
from atoll.swarm.identity import RELAY, RunKeys, role_of, verify_record
from atoll.swarm.messages.control import ToAgent, ToCoordinator
from atoll.swarm.records import CommitRecord, Rewind, RunInfo, Term
from atoll.swarm.transport import NotUnderstood, Stream, Transport, TransportError, expect, together

HELLO_SECONDS = 15.0  # for the first message of a stream
QUIET_SECONDS = 60.0  # an agent beats every second; the protocol notices silence much earlier
RENEW_SECONDS = 1.0  # between two signs of life in the database
LEADER_SECONDS = 3.0  # a leader silent for longer, by the database's clock, is replaced
MAX_FORGOTTEN_TERMS = 10_000  # that an old backup can lack; a Hello with a higher term is a lie


class CoordinatorServer:
    """One reign: from `begin` until cancelled or deposed."""

    def __init__(
        self,
        rules: Rules,
        run: RunInfo,
        keys: RunKeys,
        store: Store,
        event_log: EventLog,
        transport: Transport,
        count_samples: CountSamples = count_nothing,
    ) -> None:
        """`count_samples`: as in `consumed.Committed`, for the events."""
        self.run = run
        self.keys = keys
        self.store = store
        self.events = event_log
        self.transport = transport
        self.reach = Reach(transport, event_log.write, self.tell, self._step)
        self.protocol = Coordinator(rules, Term(), keys.sign)
        self.alerts = Alerts(event_log.free_bytes)
        self._count_samples = count_samples
        self._overview = OverviewBoard(self.protocol)
        self.deposed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._outboxes: dict[str, Outbox] = {}  # by island: what its line is to send
        self._addresses: Addresses = ()  # of all coordinators: where islands look when this one is gone
        self._wake = asyncio.Event()  # something may be due earlier than was thought
        self._next_tick = 0.0

    def begin(self, restored: bool = False, rewind: int | None = None) -> None:
        """Take the next term, and go on from the durable records.

        `restored`: the operator says that they are from an old backup. `rewind`: the operator goes back to
        that state; raises UserError when the run has none of that number.
        """
        self.protocol.term = self._signed(self.store.begin_term())
        if rewind is not None:
            self._rewind(rewind)
        if restored:
            self.store.append([Doubted(True)])
        commits = self.store.commits()
        self.protocol.restore(commits, self.store.open_step(len(commits)), self._loop.time())
        self._begun = True
        term, head = self.protocol.term.counter, self.protocol.head
        self.events.write(events.ReignBegan(step=head, run_id=self.run.run_id, term=term))

    def _signed(self, term: Term) -> Term:
        return msgspec.structs.replace(term, signature=self.keys.sign(term.unsigned()))

    def _is_signed(self, data: bytes, signature: bytes) -> bool:
        return verify_record(self.run.record_key, data, signature)

    def _rewind(self, step: int) -> None:
        """Open a new branch at an older state, by a signed record that islands follow."""
        commits = self.store.commits()
        if not 0 <= step < len(commits):
            raise UserError(
                f"--rewind {step}: this run has {len(commits)} commits; go back to a state before the last"
            )
        branch = len(self.store.open_step(len(commits)).rewinds) + 1
        record = Rewind(
            branch=branch,
            step=step,
            root=commits[step].parent,
            previous=commits[step - 1].digest() if step else b"",
        )
        self.store.append([msgspec.structs.replace(record, signature=self.keys.sign(record.unsigned()))])
        self.events.write(events.Rewound(step=step, num_abandoned=len(commits) - step, branch=branch))

    async def stand_by(self) -> bool:
        """Wait until the leader is silent for LEADER_SECONDS; return whether a backup was restored meanwhile.

        Silence is judged by the database's clock. An operator who restores a backup says so to the
        coordinator that they host, but a standby may take over earlier: so it watches the database itself.
        """
        restored, before = False, (0, 0)
        while True:
            now = self.store.term_and_num_commits()
            restored, before = restored or now[0] < before[0] or now[1] < before[1], now
            if self.store.silence_seconds() >= LEADER_SECONDS:
                return restored
            self.store.announce(self.reach.hosts[0].for_members)
            await asyncio.sleep(RENEW_SECONDS)

    async def keep_time(self) -> None:
        """Tick whenever a deadline may have passed, and renew this leader's row; until deposed."""
        renew_at = 0.0
        while not self.deposed.done():
            if self.events.failure is not None:
                self._depose(self.events.failure)
                break
            if self._loop.time() >= renew_at:
                self._renew()
                renew_at = self._loop.time() + RENEW_SECONDS
            pause = min(1.0, max(0.01, self._next_tick - self._loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            if self._loop.time() >= self._next_tick:
                self._step(Tick())
            for alert in self.alerts.look(self._loop.time()):
                self.events.write(alert)
        await self.deposed

    def _renew(self) -> None:
        try:
            self.store.renew()
            addresses = self.store.announce(self.reach.hosts[0].for_members)
        except Exception as error:
            self._depose(error)
            return
        if addresses != self._addresses:
            self._addresses = addresses
            for outbox in self._outboxes.values():
                outbox.put(m.Coordinators(addresses))

    def _depose(self, error: Exception) -> None:
        """End this reign; whoever runs us hears why."""
        if not self.deposed.done():
            self.events.write(events.Deposed(reason=str(error)))
            self.deposed.set_exception(error)
            self.deposed.exception()  # whoever runs us may have ended already, and will not ask

    # -------------------------------------------------------------------------------------------- carry out
    def _step(self, event: Event) -> None:
        """One event through the protocol. Records are durable before any message after them is sent."""
        if self.deposed.done():
            return
        now = self._loop.time()
        if isinstance(event, Tick):  # other events leave standing what was due
            self._next_tick = now + 1.0
        records: list[Any] = []
        committed: CommitRecord | None = None
        try:
            effects = self.protocol.step(event, now)
        except Exception as error:
            # Half a decision must not be followed by others: a restart goes on from what is durable.
            self._depose(error)
            raise
        for effect in effects:
            if isinstance(effect, Persist):
                records.append(effect.record)
                committed = effect.record if isinstance(effect.record, CommitRecord) else committed
                continue
            if records and isinstance(effect, Send):
                if not self._persist(records):
                    return
                records = []
            match effect:
                case Send():
                    self.tell(effect.island, effect.message)
                case Timer():
                    self._next_tick = min(self._next_tick, effect.at)
                case Report():
                    self._report(effect.event, committed)
        if records:
            self._persist(records)
        self._wake.set()

    def _report(self, event: events.Event, committed: CommitRecord | None) -> None:
        """Write an event, and the alerts that it begins or ends; `committed`: the record of a commit."""
        if isinstance(event, events.Committed) and committed is not None:
            context_length = self.protocol.rules.context_length
            sources = sources_of(committed, self._count_samples, context_length)
            event = msgspec.structs.replace(event, sources=sources)
        self.events.write(event)
        for alert in self.alerts.hear(event, self._loop.time()):
            self.events.write(alert)

    def tell(self, island: str, message: ToAgent) -> None:
        """Send a message to a member; if its line is down it hears what it needs when it dials again."""
        if (outbox := self._outboxes.get(island)) is None:
            return
        if isinstance(message, m.Refused | m.Evicted):
            outbox.close(message, "it was sent away")
        else:
            outbox.put(message)

    def tell_revoked(self) -> None:
        """Tell all members who is one no more: they, too, end its streams and serve it no others."""
        evicted = self.store.evicted()
        self.transport.revoke(evicted)
        for outbox in self._outboxes.values():
            outbox.put(m.Revoked(evicted))

    def _persist(self, records: list[Any]) -> bool:
        try:
            self.store.append(records)
        except Exception as error:  # deposed, or the database failed: what is not durable was not decided
            self._depose(error)
            return False
        return True

    # --------------------------------------------------------------------------------------- control lines
    async def control(self, stream: Stream[ToCoordinator]) -> None:
        """The service Control: an agent's line. A Hello, then messages both ways until it breaks."""
        island = stream.peer
        try:
            message, _ = await stream.receive(HELLO_SECONDS)
        except NotUnderstood as error:
            reason = f"not understood ({error}); does it run the run's version of atoll, {__version__}?"
            refused = events.Refused(island=island, what="island", reason=reason)
            self.events.write(refused)
            await stream.send(m.Refused(refused.text))
            return
        hello = expect(message, m.Hello)
        if not self._begun:
            raise TransportError("this coordinator does not lead yet")
        if reason := self.store.eviction_reason(island):
            await stream.send(m.Refused(f"{island} was evicted from this run: {reason}"))
            return
        if (role := role_of(self.store.certificate_of(island))) and (role == RELAY) != hello.relay:
            await stream.send(m.Refused(f"{island} enrolled as {role}; join in another directory (--dir)"))
            return
        protocol = self.protocol
        num_rewinds = len(protocol.history.rewinds)
        if claim := unproven_claim(hello, protocol.term, protocol.head, num_rewinds, self._is_signed):
            refused = events.Refused(island=island, what="island", reason=f"it shows no proof of {claim}")
            self.events.write(refused)
            await stream.send(m.Refused(refused.text))
            return
        before = self._outboxes.get(island)
        outbox = self._outboxes[island] = before.replace() if before is not None else Outbox()
        outbox.put(m.Revoked(self.store.evicted()))
        if self._addresses:
            outbox.put(m.Coordinators(self._addresses))
        if not self.protocol.term.may_follow(hello.term):
            # Another coordinator leads, or this database has forgotten a reign that the island remembers.
            self._renew()
            if self.deposed.done() or hello.term.counter > self.protocol.term.counter + MAX_FORGOTTEN_TERMS:
                raise TransportError(f"{island} knows a term that this coordinator cannot outrank")
            self._step(Reign(self._signed(self.store.begin_term(above=hello.term.counter))))
        self._step(Joined(island, hello, self.store.ticket_of(island)))
        reason = "its line closed"
        self.reach.entered(island, stream.peer_host)
        try:
            await together(
                self._read(stream, island, outbox),
                outbox.send(stream),
                self.reach.follow(island, hello, stream.peer_host),
            )
        except TransportError as error:
            reason = str(error).removeprefix(f"{island}: ")
        finally:
            self.reach.left(island)
            if self._outboxes.get(island) is outbox:  # else it has a newer line, and has not left
                del self._outboxes[island]
                self._step(Left(island, hello.session, reason))

    async def _read(self, stream: Stream[ToCoordinator], island: str, outbox: Outbox) -> None:
        while True:
            message, _ = await stream.receive(QUIET_SECONDS)
            if outbox.is_closed:
                return  # what comes after an eviction counts no more
            if isinstance(message, m.WantRecords):
                await outbox.until_read()
                outbox.put(m.Records.first_of(self.store.commits(message.since, m.RECORDS_AT_ONCE)))
            elif isinstance(message, m.Tried):
                self.reach.heard(island, message)
            else:
                if isinstance(message, m.Beat):
                    outbox.put(m.BeatHeard(self._overview.at(self._loop.time())))
                if not isinstance(message, m.Records) or self._vouched(message):
                    self._step(Received(island, message))

    def _vouched(self, records: m.Records) -> bool:
        """Whether every one of them is signed with the run's key."""
        return all(self._is_signed(record.unsigned(), record.signature) for record in records.records)
