"""The coordinator's process: carries out what `protocol.py` decides, over streams and a durable store."""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from atoll import __version__
from atoll.coordinator.effects import (
    Doubted,
    Event,
    Joined,
    Left,
    Persist,
    Reached,
    Received,
    Reign,
    Report,
    Send,
    Tick,
    Timer,
)
from atoll.coordinator.protocol import Coordinator
from atoll.coordinator.rules import Rules
from atoll.coordinator.store import Store
from atoll.errors import UserError
from atoll.events import EventLog
from atoll.samples import Ranges
from atoll.swarm import messages as m
from atoll.swarm.identity import OPERATOR, RunKeys, Ticket, common_name, fingerprint, verify_record
from atoll.swarm.records import Message, Rewind, Term
from atoll.swarm.transport import NotUnderstood, Stream, Transport, TransportError, call, expect, together

HELLO_SECONDS = 15.0
REACH_SECONDS = 3.0
REACH_AGAIN_SECONDS = 15.0
QUIET_SECONDS = 60.0  # an agent beats every second; the protocol notices silence much earlier
RECORDS_AT_ONCE = 64
RENEW_SECONDS = 1.0
MAX_FORGOTTEN_TERMS = 10_000  # more, and a Hello is a lie
LEADER_SECONDS = 3.0  # a leader silent for longer, by the database's clock, is replaced

CountSamples = Callable[[Ranges, tuple[int, ...]], Mapping[str, int]]


class CoordinatorServer:
    """One reign: from `begin` until cancelled or deposed."""

    def __init__(
        self,
        rules: Rules,
        run: m.RunInfo,
        keys: RunKeys,
        store: Store,
        events: EventLog,
        transport: Transport,
    ) -> None:
        self.run = run
        self.store = store
        self.address = ""  # host:port for tickets
        self._keys = keys
        self._events = events
        self._transport = transport
        self._outboxes: dict[str, asyncio.Queue[Message]] = {}
        self._wake = asyncio.Event()
        self._next_tick = 0.0
        self.deposed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.protocol = Coordinator(rules, Term(), keys.sign)
        self._begun = False
        self.count_samples: CountSamples = (
            lambda ranges, stage_starts: {}
        )  # of each source: the host knows the mixture
        self._sources: defaultdict[str, Counter[str]] = defaultdict(Counter)  # committed samples, by island
        self._num_counted = 0  # commits that are in it
        self._addresses: tuple[str, ...] = ()  # of all coordinators: where islands look when this one is gone

    def begin(self, restored: bool = False, rewind: int | None = None) -> None:
        """Take the next term and go on from the records.

        `restored`: the operator says that these are an old backup's. `rewind`: the operator goes back to that
        state; raises UserError where there is none.
        """
        self.protocol.term = self.store.begin_term()
        if rewind is not None:
            self._rewind(rewind)
        if restored:
            self.store.append([Doubted(True)])
        commits = self.store.commits()
        self.protocol.restore(commits, self.store.open_step(len(commits)), time.monotonic())
        self._begun = True
        term, head = self.protocol.term.counter, self.protocol.head
        self._events.write(
            "term", f"coordinator of {self.run.run_id} begins term {term} at step {head}", term=term
        )

    def _rewind(self, step: int) -> None:
        """A new branch, from an older state: a signed record, which islands follow."""
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
        self.store.append([msgspec.structs.replace(record, signature=self._keys.sign(record.unsigned()))])
        text = (
            f"the operator goes back to state {step}: {len(commits) - step} commits are abandoned, branch "
            f"{branch} begins"
        )
        self._events.write("rewound", text, step=step)

    @property
    def services(self) -> dict[str, Any]:
        """For members; `enroll` is for strangers, on a port of its own."""
        return {"Control": self._control, "Operate": self._operate}

    def ticket(self, uses: int, hours: float) -> str:
        """A new ticket, as one line of text."""
        authority = self._keys.authority
        secret = self.store.new_ticket(uses, hours)
        return Ticket(common_name(authority), self.address, fingerprint(authority), secret).text()

    async def stand_by(self) -> bool:
        """Until the leader has been silent for LEADER_SECONDS by the database's clock; whether a backup was
        restored meanwhile.

        Whoever restores one says so to the coordinator that they host, and a standby may be quicker.
        """
        restored, before = False, (0, 0)
        while True:
            now = self.store.reached()
            restored, before = restored or now[0] < before[0] or now[1] < before[1], now
            if self.store.silence_seconds() >= LEADER_SECONDS:
                return restored
            self.store.announce(self.address)
            await asyncio.sleep(RENEW_SECONDS)

    async def keep_time(self) -> None:
        """Tick whenever a deadline may have passed, and show the database that this leader lives; until
        deposed.
        """
        renew_at = 0.0
        while not self.deposed.done():
            if time.monotonic() >= renew_at:
                self._renew()
                renew_at = time.monotonic() + RENEW_SECONDS
            pause = min(1.0, max(0.01, self._next_tick - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            if time.monotonic() >= self._next_tick:
                self._step(Tick())
        await self.deposed

    def _renew(self) -> None:
        try:
            self.store.renew()
            addresses = tuple(self.store.announce(self.address))
        except Exception as error:
            self._depose(error)
            return
        if addresses != self._addresses:
            self._addresses = addresses
            for outbox in self._outboxes.values():
                outbox.put_nowait(m.Coordinators(addresses))

    def _depose(self, error: Exception) -> None:
        """End this reign; whoever runs us hears why."""
        if not self.deposed.done():
            self._events.write("deposed", f"this coordinator stops: {error}")
            self.deposed.set_exception(error)
            self.deposed.exception()  # whoever runs us may have ended already, and will not ask

    # -------------------------------------------------------------------------------------------- carry out
    def _step(self, event: Event) -> None:
        """One event through the protocol. Persists are done, synchronously, before the sends that follow
        them.
        """
        if self.deposed.done():
            return
        now = time.monotonic()
        if isinstance(event, Tick):  # else what was due stays due
            self._next_tick = now + 1.0
        records: list[Any] = []
        try:
            effects = self.protocol.step(event, now)
        except Exception as error:
            self._depose(
                error
            )  # half a decision must not be followed by others: a restart folds what is durable
            raise
        for effect in effects:
            if isinstance(effect, Persist):
                records.append(effect.record)
                continue
            if records and isinstance(effect, Send):
                if not self._persist(records):
                    return
                records = []
            match effect:
                case Send():
                    if (outbox := self._outboxes.get(effect.island)) is not None:
                        outbox.put_nowait(effect.message)
                case Timer():
                    self._next_tick = min(self._next_tick, effect.at)
                case Report():
                    self._events.write(
                        effect.kind, effect.text, island=effect.island, step=effect.step, **effect.facts
                    )
        if records:
            self._persist(records)
        self._wake.set()

    def _persist(self, records: list[Any]) -> bool:
        try:
            self.store.append(records)
        except Exception as error:  # deposed, or the database failed: what is not durable was not decided
            self._depose(error)
            return False
        return True

    # ---------------------------------------------------------------------------------------------- services
    async def enroll(self, stream: Stream) -> None:
        """A ticket against a certificate."""
        message, _ = await stream.receive(HELLO_SECONDS)
        request = expect(message, m.Enroll)
        try:
            certificate = self._keys.issue(request.csr)
            island = common_name(certificate)
            kept = self.store.redeem(request.secret, island, request.contributor[:80], certificate)
        except UserError as error:
            await stream.send(m.Refused(str(error)))
            return
        self._events.write(
            "enrolled", f"{island} enrolled for {request.contributor or 'nobody named'}", island=island
        )
        await stream.send(m.Enrolled(kept, self.run))

    async def _control(self, stream: Stream) -> None:
        """An agent's line: a Hello, then messages both ways until it breaks."""
        island = stream.peer
        try:
            message, _ = await stream.receive(HELLO_SECONDS)
        except NotUnderstood as error:
            text = (
                f"{island} was not understood ({error}); does it run the run's version of atoll, "
                f"{__version__}?"
            )
            self._events.write("refused", text, island=island)
            await stream.send(m.Refused(text))
            return
        hello = expect(message, m.Hello)
        if not self._begun:
            raise TransportError("this coordinator does not lead yet")
        if reason := self.store.revoked(island):
            await stream.send(m.Refused(f"{island} was evicted from this run: {reason}"))
            return
        outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outboxes[island] = outbox
        if self._addresses:
            outbox.put_nowait(m.Coordinators(self._addresses))
        if not self.protocol.term.outranks(
            hello.term
        ):  # this database forgot a reign that the island remembers
            self._renew()  # or it is not ours any more
            if self.deposed.done() or hello.term.counter > self.protocol.term.counter + MAX_FORGOTTEN_TERMS:
                raise TransportError(f"{island} knows a term that this coordinator cannot outrank")
            self._step(Reign(self.store.begin_term(above=hello.term.counter)))
        self._step(Joined(island, hello))
        reason = "its line closed"
        try:
            await together(
                self._read(stream, island, outbox),
                self._write(stream, outbox),
                self._reach(stream, island, hello),
            )
        except TransportError as error:
            reason = str(error)
        finally:
            if self._outboxes.get(island) is outbox:  # else it has a newer line, and has not left
                del self._outboxes[island]
                self._step(Left(island, hello.session, reason))

    async def _reach(self, stream: Stream, island: str, hello: m.Hello) -> None:
        """Ping it back until it answers; an island that only dials out never will, and owns nothing."""
        address = f"{stream.peer_host}:{hello.port}" if hello.port else ""
        told = False
        while address:
            try:
                await call(self._transport, address, island, "Ping", m.Ping(), m.Done, REACH_SECONDS)
            except TransportError:
                if not told:
                    text = f"{island} cannot be reached at {address}: it owns nothing"
                    self._events.write("unreachable", text, island=island)
                told = True
                await asyncio.sleep(REACH_AGAIN_SECONDS)
            else:
                self._step(Reached(island, hello.session, address))
                return

    async def _read(self, stream: Stream, island: str, outbox: "asyncio.Queue[Message]") -> None:
        while True:
            message, _ = await stream.receive(QUIET_SECONDS)
            if isinstance(message, m.Want):
                records = self.store.commits(max(0, message.since), RECORDS_AT_ONCE)
                outbox.put_nowait(m.Records(tuple(records)))
            else:
                if isinstance(message, m.Beat):
                    outbox.put_nowait(m.Pulse())
                if not isinstance(message, m.Records) or self._vouched(message):
                    self._step(Received(island, message))

    def _vouched(self, records: m.Records) -> bool:
        """Whether the run's own key signed every one of them."""
        return all(
            verify_record(self.run.record_key, record.unsigned(), record.signature)
            for record in records.records
        )

    async def _write(self, stream: Stream, outbox: "asyncio.Queue[Message]") -> None:
        while True:
            message = await outbox.get()
            await stream.send(message)
            if isinstance(message, m.Evict | m.Refused):
                raise TransportError("it was sent away")

    async def _operate(self, stream: Stream) -> None:
        """What people ask: status, for any member; invite and evict, for who holds the run's keys."""
        request, _ = await stream.receive(HELLO_SECONDS)
        if isinstance(request, m.Status):
            await stream.send(m.StatusReply(self.status()))
            return
        if stream.peer != OPERATOR:
            await stream.send(
                m.Refused("only the run's operator may do this: use the machine that hosts the run")
            )
            return
        match request:
            case m.Invite():
                await stream.send(m.Invited(self.ticket(request.uses, request.hours)))
            case m.EvictIsland():
                try:
                    self.store.revoke(request.island, request.reason)
                except UserError as error:
                    await stream.send(m.Refused(str(error)))
                    return
                self.protocol.doubt.awaited.discard(
                    request.island
                )  # whoever is lost for good is not waited for
                if (outbox := self._outboxes.get(request.island)) is not None:
                    outbox.put_nowait(m.Evict(request.reason or "evicted by the operator"))
                self._events.write(
                    "evicted", f"{request.island} is evicted: {request.reason}", island=request.island
                )
                await stream.send(m.Done())
            case _:
                await stream.send(m.Refused(f"{type(request).__name__} is nothing to ask of a coordinator"))

    def status(self) -> dict[str, Any]:
        """Who is in, and how far the run is, as plain values."""
        protocol, names = self.protocol, self.store.contributors()
        islands: list[dict[str, Any]] = []
        for record in self.store.commits(self._num_counted):
            self._num_counted += 1
            for island, lease in record.leases:
                self._sources[island].update(self.count_samples(lease, record.stage_starts))
        for island in sorted(protocol.members.keys() | protocol.history.tokens.keys()):
            member = protocol.members.get(island)
            beat = member.beat if member else None
            islands.append(
                {
                    "island": island,
                    "contributor": names.get(island, ""),
                    "relay": bool(member and member.relay),
                    "present": bool(member and member.present),
                    "address": member.address if member else "",
                    "ready": bool(member and member.ready(protocol.head)),
                    "tokens": protocol.history.tokens[island],
                    "sources": {
                        name: n * protocol.rules.context_length for name, n in self._sources[island].items()
                    },
                    "inner_step": beat.inner_step if beat and beat.step == protocol.head else 0,
                    "loss": beat.loss if beat else 0.0,
                    "tokens_per_second": beat.tokens_per_second if beat else 0.0,
                    "sent_bytes": beat.sent_bytes if beat else 0,
                    "compute_seconds": beat.compute_seconds if beat else 0.0,
                    "communicate_seconds": beat.communicate_seconds if beat else 0.0,
                    "wait_seconds": beat.wait_seconds if beat else 0.0,
                    "note": beat.note if beat else "",
                }
            )
        rules = protocol.rules
        return {
            "run": self.run.run_id,
            "name": self.run.name,
            "step": protocol.head,
            "outer_steps": rules.num_outer_steps,
            "inner_steps": rules.inner_steps,
            "finished": protocol.finished,
            "root": protocol.head_root.hex(),
            "term": protocol.term.counter,
            "tokens": sum(protocol.history.tokens.values()),
            "islands": islands,
            "proposed": sorted(protocol.proposals),
            "attempt": protocol.number,
            "sent_bytes": self._transport.sent_bytes,
            "events": [
                {"time": event.time, "kind": event.kind, "text": event.text} for event in self._events.notable
            ],
        }
