"""The agent: carries out what `outer_step.py` decides, and reports what came of it.

One event after the other goes through the state machine; what takes time is in `work.py`.
"""

import asyncio
from collections.abc import Callable

import msgspec

from atoll.agent import diloco, outer_step
from atoll.agent import effects as e
from atoll.agent.accounts import Accounts
from atoll.agent.link import Link
from atoll.agent.outer_step import OuterStep
from atoll.agent.settings import Settings, keep_coordinators, keep_term, load_coordinators, load_term
from atoll.agent.trainer import Trainer
from atoll.agent.work import PROGRESS_SECONDS, BackgroundWork
from atoll.data.partition import partitions
from atoll.recipe import Recipe
from atoll.status import Overview
from atoll.swarm import messages as m
from atoll.swarm.address import Addresses
from atoll.swarm.identity import new_secret
from atoll.swarm.messages import control
from atoll.swarm.messages.trainer import ToTrainer
from atoll.swarm.records import RunInfo
from atoll.swarm.services import FETCH, PING, REDUCE
from atoll.swarm.transport import DIAL_SECONDS, Stream, Transport, TransportError, call
from atoll.words import one_line

PULSE_SECONDS = 1.0
LAST_SECONDS = 60.0  # for the last outer checkpoint, before the trainer hears that the run is finished
REDIAL_SECONDS = 1.5  # until a connection that failed is dialled anew: gRPC waits for up to 1 s
LEAVE_SECONDS = 0.2  # for a last message to leave before its connection is closed


class Agent:
    """One island's agent, or a relay."""

    def __init__(
        self,
        settings: Settings,
        island: str,
        run: RunInfo,
        recipe: Recipe,
        transport: Transport,
        trainer: Trainer | None,
        show: Callable[[m.Pulse], None] = lambda pulse: None,
    ) -> None:
        """`recipe` is the run's; a relay has no trainer. `show` is given each sign of life, for people."""
        self.settings = settings
        self.accounts = Accounts()
        self.work = BackgroundWork(settings, island, run, recipe, transport, self.accounts, self._put)
        self.machine = OuterStep(
            island=island,
            relay=settings.relay,
            term=load_term(settings.directory),
            head=self.work.log.head,
            head_root=self.work.log.root(self.work.log.head, run.genesis_root),
        )
        kept = self.work.payload
        if kept is not None and kept.proposal.step == self.machine.head:
            self.machine.proposal = kept.proposal
        self.coordinators = self._known_coordinators(load_coordinators(settings.directory))
        self._partitions = (
            {} if settings.relay else {p.name: p.number for p in partitions(settings.private_dir, recipe)}
        )
        self._recipe_digest = recipe.digest()
        self._transport = transport
        self._trainer = trainer
        self._show = show
        self._lost = ""  # why there is no line to the coordinator; "" while there is one, or it is dialled
        self._overview: Overview | None = None
        self._events: asyncio.Queue[e.Event] = asyncio.Queue()
        self._session = new_secret()
        self._port = 0  # where peers reach this agent; 0: nowhere
        self._self_test = b""
        self._link = Link(
            transport, lambda: self.coordinators, self._hello, self._beat, self._received, self._link_changed
        )

    async def run(self) -> str:
        """Take part until the trainer or the coordinator ends it, and return why: "" for a finished run."""
        # Compiles the kernels: before the coordinator is told that we are here.
        self._self_test = await asyncio.to_thread(diloco.self_test)
        if not self.settings.dial_only:
            handlers = {PING: _pong, REDUCE: self.work.serve_reduce, FETCH: self.work.donor.serve}
            self._port = await self._transport.serve(self.settings.listen, handlers)
        self.work.start(e.Advance())  # to find out what is here: state 0, or what an earlier life has left
        self.machine.advancing = True
        parts = (
            self._link.run(),
            self._listen_to_trainer(),
            self._pulse(),
            self._loop(),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            ends = [*tasks, self.work.tasks.crash]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result() or ""
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.work.stop()
            await self._transport.close()

    # -------------------------------------------------------------------------------------- the state machine
    def _put(self, event: e.Event) -> None:
        self._events.put_nowait(event)

    async def _loop(self) -> str:
        """Events through the state machine, one by one, until it says stop; returns the reason."""
        while True:
            event = await self._events.get()
            for effect in outer_step.step(self.machine, event):
                if isinstance(effect, e.Tell) and isinstance(effect.message, m.Stopped):
                    await self._say_last_words(effect.message)
                    return effect.message.reason
                await self._carry_out(effect)

    async def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case e.Send():
                self._link.send(effect.message)
            case e.Tell():
                self._tell(effect.message)
            case e.Store():
                try:
                    await self.work.store(effect.record)
                except ValueError as error:
                    self.accounts.say(f"refused a commit record: {error}")
                else:
                    self._put(e.Stored(effect.record))
            case e.KeepTerm():
                keep_term(self.settings.directory, effect.term)
            case e.Forget():
                await self.work.forget(effect.rewinds)
            case e.Reduce():
                await self.work.tasks.stop("hold")
                self.work.start(effect)
            case e.Encode() | e.Hold() | e.Advance() | e.Retry():
                self.work.start(effect)

    async def _say_last_words(self, stopped: m.Stopped) -> None:
        """Let the last checkpoint and the last Ready be done before the trainer hears that it is over."""
        await self.work.tasks.ended("advance", LAST_SECONDS)
        self._link.send(self._beat())
        await asyncio.sleep(LEAVE_SECONDS)
        if self._trainer is not None:
            self._trainer.tell(stopped)
            await asyncio.sleep(LEAVE_SECONDS)

    # --------------------------------------------------------------------------------------- the coordinator
    def _hello(self) -> m.Hello:
        machine, log = self.machine, self.work.log
        return m.Hello(
            session=self._session,
            version=m.VERSION,
            recipe_digest=self._recipe_digest,
            self_test=self._self_test,
            contributor=self.settings.contributor,
            relay=self.settings.relay,
            port=self._port,
            addresses=tuple(a if a.port else a.with_port(self._port) for a in self.settings.advertise),
            head=machine.head,
            head_root=machine.head_root,
            term=machine.term,
            num_rewinds=len(log.rewinds),
            newest_record=log.records[-1] if log.records else None,
            newest_rewind=log.rewinds[-1] if log.rewinds else None,
            partitions=self._partitions,
            metered=self.settings.metered,
        )

    def _beat(self) -> m.Beat:
        self.accounts.beat_left()
        beat = self.accounts.beat(self._transport.sent_bytes, *self.work.donor.progress)
        return msgspec.structs.replace(beat, rates=self.work.rates.known)

    def _received(self, message: control.ToAgent) -> None:
        match message:
            case m.BeatHeard():
                self.accounts.beat_answered()
                self._overview = message.overview
                self._show_pulse()
            case m.Donors():
                self.work.told_donors(message.addresses)
            case m.Revoked():
                self._transport.revoke(message.islands)
            case m.Coordinators():
                self.coordinators = self._known_coordinators(message.addresses)
                keep_coordinators(self.settings.directory, message.addresses)
            case m.TryToReach():
                self.work.tasks.start(f"reach {message.island}", self._try_to_reach, message)
            case m.WantRecords():  # a coordinator with an old backup asks what we know
                self._link.send(m.Records.first_of(self.work.log.records[max(0, message.since) :]))
            case _:
                self._put(message)

    def _known_coordinators(self, others: Addresses) -> Addresses:
        """The addresses that this member was given, and then all others."""
        return tuple(dict.fromkeys((*self.settings.coordinators, *others)))

    async def _try_to_reach(self, asked: m.TryToReach) -> None:
        clock = asyncio.get_running_loop().time
        began, reason = clock(), await self._why_not_reached(asked)
        if reason and clock() - began < REDIAL_SECONDS:
            # What failed at once may only tell of a dial of a moment ago, to an agent that was not up yet.
            await asyncio.sleep(REDIAL_SECONDS)
            reason = await self._why_not_reached(asked)
        self._link.send(m.Tried(asked.island, reason))

    async def _why_not_reached(self, asked: m.TryToReach) -> str:
        try:
            await call(self._transport, asked.addresses, asked.island, PING, m.Ping(), DIAL_SECONDS)
        except TransportError as error:
            return one_line(str(error))
        return ""

    def _link_changed(self, reason: str) -> None:
        self._lost = one_line(reason)
        self.accounts.line_changed()
        self.accounts.say(reason or "linked to the coordinator")
        self._show_pulse()

    # ------------------------------------------------------------------------------------------- the trainer
    async def _listen_to_trainer(self) -> str:
        """Until the trainer is gone; returns how. A relay has no trainer, and waits for ever."""
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
                    self.accounts.trained(message)
                case m.WantData():
                    self.work.provide(message, self._tell)
                case m.Proposed():
                    self.accounts.proposed(message)
                    self._put(message)
                case _:
                    self._put(message)

    async def _pulse(self) -> str:
        """Tell the trainer every second that we live, and people how the run is."""
        while True:
            self._show_pulse()
            await asyncio.sleep(PULSE_SECONDS)

    def _show_pulse(self) -> None:
        pulse = m.Pulse(lost=self._lost, note=self.accounts.note, overview=self._overview)
        self._show(pulse)
        self._tell(pulse)

    def _tell(self, message: ToTrainer) -> None:
        if self._trainer is not None:
            self._trainer.tell(message)


async def _pong(stream: Stream[m.Ping]) -> None:
    """The service Ping: an empty answer shows that this agent can be reached."""
    await stream.receive(PROGRESS_SECONDS)
    await stream.send(m.Pong())
