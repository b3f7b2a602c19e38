"""The agent: carries out what `outer_step.py` decides, and feeds back what came of it."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable

from atoll.agent import checkpoint, diloco, outer_step, payload
from atoll.agent.assembly import Assembly
from atoll.agent.dataset import Fetching
from atoll.agent.donor import Donor
from atoll.agent.fetch import Donors, NobodyHas, fetch_slice
from atoll.agent.link import Link
from atoll.agent.log import UpdateLog
from atoll.agent.outer_step import Advance, Effect, Encode, Hold, OuterStep, Reduce
from atoll.agent.recovery import Recovery
from atoll.agent.reduce import Reduction
from atoll.agent.settings import Settings, keep_coordinators, keep_term, load_coordinators, load_term
from atoll.agent.state import OuterState
from atoll.agent.tasks import Tasks
from atoll.agent.trainer import Trainer
from atoll.agent.unbroken import unbroken
from atoll.data.partial import PartialData
from atoll.data.partition import partition_numbers
from atoll.errors import UserError
from atoll.swarm import messages as m
from atoll.swarm.layout import root
from atoll.swarm.records import Attempt, header
from atoll.swarm.transport import Service, Stream, Transport, TransportError, expect, within

PROGRESS_SECONDS = 10.0  # an owner waits so long for a participant's next piece
RETRY_SECONDS = 0.5
PULSE_SECONDS = 5.0
LAST_SECONDS = 60.0  # for the last outer checkpoint, before the trainer hears that the run is finished
RECORDS_AT_ONCE = 64


class Agent:
    """One island's agent, or a relay."""

    def __init__(
        self,
        settings: Settings,
        island: str,
        run: m.RunInfo,
        recipe_digest: str,
        transport: Transport,
        trainer: Trainer | None,
    ) -> None:
        self.settings = settings
        self.run_info = run
        self.state = OuterState(settings.directory / "state", run.layout)
        self.log = UpdateLog(settings.directory / "log", run.layout, run.record_key)
        own_checkpoints = settings.directory / "outer"
        self.recovery = Recovery(
            self.state, self.log, run.genesis_root, [own_checkpoints, *settings.checkpoint_dirs]
        )
        self.data = PartialData(run.data_digest, settings.data_dirs)
        self.donor = Donor(self.state, self.log, run.genesis_root, self.data.block)
        self._partitions = {} if settings.relay else partition_numbers(settings.private_dir, run.recipe)
        self.machine = OuterStep(
            island=island, relay=settings.relay, term=load_term(settings.directory), head=self.log.head
        )
        self.machine.head_root = self.log.root(self.log.head, run.genesis_root)
        self.payload = payload.load(settings.directory, run.layout)
        if self.payload is not None and self.payload.proposal.step == self.log.head:
            self.machine.proposal = self.payload.proposal
        self.donors: dict[str, str] = {}
        self.coordinators = [settings.coordinator, *load_coordinators(settings.directory)]
        self.note = "starting"
        self._recipe_digest = recipe_digest
        self._transport = transport
        self._trainer = trainer
        self._checkpoints = own_checkpoints
        self._events: asyncio.Queue[outer_step.Event] = asyncio.Queue()
        self._work = Tasks()
        self._news = asyncio.Event()  # donors or a record came: what could not be done may be possible now
        self._state_lock = asyncio.Lock()  # encode, hold and advance exclude one another
        self._reduction: Reduction | None = None
        self._reduction_changed = asyncio.Condition()
        self._progress = m.Progress(-1, 0, 0.0, 0.0)
        self._seconds = {"compute": 0.0, "communicate": 0.0, "wait": 0.0}
        self._proposed_at = 0.0
        self._session = secrets.token_hex(8)
        self._port = 0
        self._self_test = b""
        self._link = Link(
            transport, lambda: self.coordinators, self._hello, self._beat, self._received, self._link_changed
        )

    async def run(self) -> str:
        """Take part until the trainer or the coordinator ends it; returns why ("" when the run is
        finished).
        """
        self._self_test = await asyncio.to_thread(diloco.self_test)  # compile before joining
        services: dict[str, Service] = {
            "Ping": _pong,
            "Reduce": self._serve_reduce,
            "Fetch": self.donor.serve,
        }
        if not self.settings.dial_only:
            self._port = await self._transport.serve(self.settings.host, self.settings.port, services)
        self._work.start("advance", self._advance)  # look at what is here; state 0 or an old one
        self.machine.advancing = True
        parts = (self._link.run(), self._listen_to_trainer(), self._pulse(), self._loop())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait([*tasks, self._work.crash], return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result() or ""
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._work.stop()
            self._discard_assembly()
            await self._transport.close()

    async def _loop(self) -> str:
        while True:
            event = await self._events.get()
            for effect in outer_step.step(self.machine, event):
                if isinstance(effect, outer_step.Tell) and isinstance(effect.message, m.Stopped):
                    await self._last_words(effect.message)
                    return effect.message.reason
                await self._carry_out(effect)

    async def _carry_out(self, effect: Effect) -> None:
        match effect:
            case outer_step.Send():
                self._link.send(effect.message)
            case outer_step.Tell():
                if self._trainer is not None:
                    self._trainer.tell(effect.message)
            case outer_step.Store():
                try:
                    await asyncio.to_thread(self.log.append, effect.record)
                except ValueError as error:
                    self.note = f"refused a commit record: {error}"
                    return
                self._settle_times()
                self._news.set()
                await self._work.stop("reduce", "hold")
                self._events.put_nowait(outer_step.Stored(effect.record))
            case outer_step.SawTerm():
                keep_term(self.settings.directory, effect.term)
            case outer_step.Forget():
                await self._work.stop("reduce", "hold")
                async with self._state_lock:  # what is being applied ends first
                    await asyncio.to_thread(self.recovery.forget, effect.rewinds)
            case Encode():
                self._work.start("encode", self._encode, effect)
            case Reduce():
                await self._work.stop("hold")
                self._work.start("reduce", self._reduce, effect)
            case Hold():
                self._work.start("hold", self._hold, effect)
            case Advance():
                self._work.start("advance", self._advance)
            case outer_step.Retry():
                self._work.start("advance", self._advance, RETRY_SECONDS)

    # ------------------------------------------------------------------------------------------------- work
    async def _encode(self, work: Encode) -> None:
        self.note = "encoding"
        started = time.monotonic()
        try:
            async with self._state_lock:
                codec = self.run_info.recipe["outer"]["codec"]
                own = await unbroken(
                    asyncio.to_thread(payload.make, self.settings.directory, self.state, codec, work.proposal)
                )
        except (ValueError, UserError) as error:
            self._events.put_nowait(outer_step.Failed(work, "", str(error)))
            return
        self.payload = own
        self._communicated(started)
        self.note = "waiting for the others"
        self._events.put_nowait(outer_step.Encoded(own.proposal))

    async def _reduce(self, work: Reduce) -> None:
        attempt = work.attempt
        self.note = f"reducing step {attempt.step}"
        self._discard_assembly()
        assembly = Assembly(self.log.directory, self.run_info.layout, attempt)
        self.donor.assembly = (attempt, assembly)
        mine = self.payload if attempt.share_of(self.machine.island) else None

        async def report(message: m.Reduced | m.Fault) -> None:
            self._events.put_nowait(message)

        reduction = Reduction(self.machine.island, attempt, assembly, mine, PROGRESS_SECONDS, report)
        async with self._reduction_changed:
            self._reduction = reduction
            self._reduction_changed.notify_all()
        started = time.monotonic()
        await reduction.run(self._transport)
        self._communicated(started)

    async def _hold(self, work: Hold) -> None:
        """Complete the update from whoever has its slices, compute the next table, keep both."""
        attempt = work.attempt
        head = header(attempt, work.assembled)
        try:
            reduction = await within(
                PROGRESS_SECONDS, self._reduction_of(lambda a: a == attempt), "this attempt"
            )
        except TransportError as error:
            self._events.put_nowait(outer_step.Failed(work, "", str(error)))
            return
        assembly = reduction.assembly
        donors = self._others({**self.donors, **attempt.addresses})
        try:
            await self._work.ended("reduce")  # its own waits have deadlines
            for part, slice_root in zip(attempt.slices, work.assembled.digests, strict=True):
                if not assembly.whole(part, slice_root):
                    size = assembly.full_piece_bytes
                    await fetch_slice(donors, attempt.step, part, slice_root, size, assembly.put, part.pieces)
            async with self._state_lock:
                self.note = f"holding step {attempt.step}"
                table = await unbroken(
                    asyncio.to_thread(assembly.apply_and_finish, self.state, self.log, head)
                )
        except (NobodyHas, UserError) as error:
            self._events.put_nowait(outer_step.Failed(work, "", str(error)))
            return
        finally:
            await donors.close()
        held = m.Held(attempt.step, attempt.number, head.digest(), root(table))
        self._events.put_nowait(outer_step.Holding(held))

    async def _advance(self, pause: float = 0.0) -> None:
        """To the log's head; then an outer checkpoint, where one is due. `pause`: seconds until then, unless
        there is news.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._news.wait()
        self._news.clear()
        before = self.state.version
        donors = self._others(self.donors)
        try:
            async with self._state_lock:
                if before != self.log.head:
                    self.note = f"moving from state {before if before >= 0 else '?'} to {self.log.head}"
                version = await self.recovery.advance(donors)
                table = await asyncio.to_thread(self.recovery.table, version)
                self._events.put_nowait(outer_step.Advanced(version, root(table), table))
                self.note = f"at state {version}"
                if version and version != before:
                    await unbroken(asyncio.to_thread(self._checkpoint, version, root(table)))
        except (NobodyHas, UserError) as error:
            self._say(str(error))
            self._events.put_nowait(outer_step.Failed(Advance(), "", str(error)))
        finally:
            await donors.close()

    async def _provide_data(self, wanted: m.WantData) -> None:
        """Tell the trainer where the data is, once what it wants of it is here."""
        path = None
        while path is None:
            donors = self._others(self.donors)
            try:
                url = self.run_info.recipe.get("data_url") or ""
                path = await Fetching(self.data, url.rstrip("/"), donors, self._say).provide(wanted.blocks)
            except (NobodyHas, UserError) as error:
                self._say(str(error))
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await donors.close()
        if self._trainer is not None:
            self._trainer.tell(m.DataAt(wanted.number, str(path)))

    def _checkpoint(self, version: int, state_root: bytes) -> None:
        every = self.run_info.recipe["outer"]["checkpoint_every"]
        if version % every and version != self._last_step:
            return
        checkpoint.save(
            self._checkpoints,
            self.state.layout,
            version,
            state_root,
            self.state.parameters,
            self.state.momentum,
        )
        # Two intervals of updates stay, so that a laggard and a repair find them.
        self.log.prune(min(checkpoint.keep_newest(self._checkpoints, 2), version - 2 * every))

    @property
    def _last_step(self) -> int:
        stages, outer = self.run_info.recipe["stage"], self.run_info.recipe["outer"]
        return -(-stages[-1]["until"] // outer["inner_steps"])

    # ---------------------------------------------------------------------------------------------- services
    async def _serve_reduce(self, stream: Stream) -> None:
        message, table = await stream.receive(PROGRESS_SECONDS)
        opened = expect(message, m.ReduceOpen)
        named = (opened.step, opened.number)
        ours = self._reduction_of(lambda attempt: (attempt.step, attempt.number) == named)
        reduction = await within(PROGRESS_SECONDS, ours, "this attempt")
        await reduction.serve(stream, opened, bytes(table))

    async def _reduction_of(self, matches: Callable[[Attempt], bool]) -> Reduction:
        """The reduction of an attempt; a participant, or our own Hold, may come before it has begun here."""
        async with self._reduction_changed:
            await self._reduction_changed.wait_for(
                lambda: self._reduction and matches(self._reduction.attempt)
            )
        assert self._reduction is not None
        return self._reduction

    # ----------------------------------------------------------------------------------- coordinator, trainer
    def _hello(self) -> m.Hello:
        machine = self.machine
        return m.Hello(
            session=self._session,
            version=m.VERSION,
            recipe_digest=self._recipe_digest,
            self_test=self._self_test,
            contributor=self.settings.contributor,
            relay=self.settings.relay,
            port=self._port,
            head=machine.head,
            head_root=machine.head_root,
            term=machine.term,
            branch=len(self.log.rewinds),
            partitions=self._partitions,
        )

    def _beat(self) -> m.Beat:
        p, s = self._progress, self._seconds
        attempt, pieces = self.donor.progress
        return m.Beat(
            step=p.step,
            inner_step=p.inner_step,
            loss=p.loss,
            tokens_per_second=p.tokens_per_second,
            sent_bytes=self._transport.sent_bytes,
            compute_seconds=s["compute"],
            communicate_seconds=s["communicate"],
            wait_seconds=s["wait"],
            note=self.note,
            attempt=attempt,
            pieces=pieces,
        )

    def _received(self, message: m.AnyMessage) -> None:
        if isinstance(message, m.View):
            self.donors = message.donors
            self._news.set()
        elif isinstance(message, m.Coordinators):
            others = [a for a in message.addresses if a != self.settings.coordinator]
            self.coordinators = [self.settings.coordinator, *others]
            keep_coordinators(self.settings.directory, others)
        elif isinstance(message, m.Want):  # a coordinator with an old backup asks what we know
            since = max(0, message.since)
            self._link.send(m.Records(tuple(self.log.records[since : since + RECORDS_AT_ONCE])))
        else:
            self._events.put_nowait(message)

    def _link_changed(self, reason: str) -> None:
        self._say(reason or "linked to the coordinator")

    async def _listen_to_trainer(self) -> str:
        """Until the trainer is gone; a relay has none and waits for ever."""
        if self._trainer is None:
            await asyncio.Event().wait()
            return ""
        while True:
            try:
                message = await self._trainer.hear()
            except TransportError as error:
                return str(error)
            match message:
                case m.Progress():
                    self._progress = message
                    self.note = "training"
                case m.WantData():
                    self._work.start("data", self._provide_data, message)
                case m.Proposed():
                    self._seconds["compute"] += message.compute_seconds
                    self._proposed_at = time.monotonic()
                    self._events.put_nowait(message)
                case _:
                    self._events.put_nowait(message)

    async def _pulse(self) -> str:
        """Tell the trainer that we live."""
        while self._trainer is not None:
            self._trainer.tell(m.Pulse())
            await asyncio.sleep(PULSE_SECONDS)
        await asyncio.Event().wait()
        return ""

    async def _last_words(self, stopped: m.Stopped) -> None:
        """Let the checkpoint end and the last Ready leave before the trainer hears that it is over."""
        await self._work.ended("advance", LAST_SECONDS)
        self._link.send(self._beat())
        await asyncio.sleep(0.2)
        if self._trainer is not None:
            self._trainer.tell(stopped)
            await asyncio.sleep(0.2)

    # ------------------------------------------------------------------------------------------- small things
    def _others(self, addresses: dict[str, str]) -> Donors:
        """Agents to ask, never ourselves."""
        others = {island: address for island, address in addresses.items() if island != self.machine.island}
        return Donors(self._transport, others, self._say)

    def _say(self, text: str) -> None:
        self.note = text

    def _communicated(self, since: float) -> None:
        """Seconds of encoding and reducing; what else passes between a proposal and its commit is waiting."""
        self._seconds["communicate"] += time.monotonic() - since
        self._seconds["wait"] -= time.monotonic() - since

    def _settle_times(self) -> None:
        if self._proposed_at:
            self._seconds["wait"] += time.monotonic() - self._proposed_at
            self._proposed_at = 0.0

    def _discard_assembly(self) -> None:
        if self.donor.assembly is not None:
            self.donor.assembly[1].discard()
            self.donor.assembly = None


async def _pong(stream: Stream) -> None:
    await stream.receive(PROGRESS_SECONDS)
    await stream.send(m.Done())
