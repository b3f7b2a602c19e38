"""What takes an agent time: encode, reduce, hold, advance, and fetching prepared data.

Each kind of work runs in the background, one of a kind at a time (`tasks.py`), and ends with an event for the
state machine (`effects.py`).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from atoll.agent import checkpoint, payload, residual
from atoll.agent import effects as e
from atoll.agent.accounts import Accounts, now
from atoll.agent.assembly import Assembly
from atoll.agent.dataset import Fetching
from atoll.agent.diloco import Direction
from atoll.agent.donor import Donor
from atoll.agent.fetch import Donors, NobodyHas, fetch_slice
from atoll.agent.lanes import Lanes
from atoll.agent.log import UpdateLog
from atoll.agent.measure import measure
from atoll.agent.pieces import FalsePieces
from atoll.agent.rates import LinkRates
from atoll.agent.recovery import Recovery
from atoll.agent.reduce import Reduction
from atoll.agent.settings import Settings
from atoll.agent.state import OuterState
from atoll.agent.tasks import Tasks
from atoll.agent.unbroken import unbroken
from atoll.data.partial import PartialData
from atoll.errors import DiskError, UserError
from atoll.metrics import Exchange
from atoll.recipe import Recipe
from atoll.swarm import audit
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.address import Addresses
from atoll.swarm.layout import root
from atoll.swarm.messages import peers
from atoll.swarm.transport import Stream, Transport, TransportError, expect, within

PROGRESS_SECONDS = 10.0  # an owner waits so long for a participant's next piece
RETRY_SECONDS = 0.5  # until the way to the head, or to missing data, is tried again


class BackgroundWork:
    """The work of one agent, and what it works on: outer state, log, payload, prepared data."""

    def __init__(
        self,
        settings: Settings,
        island: str,
        run: r.RunInfo,
        recipe: Recipe,
        transport: Transport,
        accounts: Accounts,
        report: Callable[[e.OwnResult], None],
    ) -> None:
        """`report` takes the events that work ends with."""
        self.state = OuterState(settings.directory / "state", run.layout)
        self.log = UpdateLog(settings.directory / "log", run.layout, run.record_key)
        self.data = PartialData(run.data_digest, settings.data_dirs)
        self.donor = Donor(self.state, self.log, run.genesis_root, self.data.block, settings.metered)
        self.payload = payload.load(settings.directory, run.layout)
        self.donors: dict[str, Addresses] = {}  # where those are who can give state, updates and data
        self.tasks = Tasks()
        self._checkpoints = settings.directory / "outer"
        checkpoint_dirs = [self._checkpoints, *settings.checkpoint_dirs]
        self.recovery = Recovery(self.state, self.log, run.genesis_root, checkpoint_dirs)
        self._directory = settings.directory
        self._island = island
        self._run = run
        self._recipe = recipe
        self._transport = transport
        self._lanes = Lanes(transport)
        self.rates = LinkRates(settings.directory, transport.crossed, settings.caps)
        self._accounts = accounts
        self._report = report
        self._news = asyncio.Event()  # donors or a record came: what could not be done may be possible now
        self._state_lock = asyncio.Lock()  # encode, hold and advance exclude one another
        self._reduction: Reduction | None = None
        self._reduction_changed = asyncio.Condition()
        self._owners: dict[str, Addresses] = {}  # of the newest attempt
        self._exchange = Exchange()  # of the newest attempt

    # ------------------------------------------------------------------------------------------ begin and end
    def start(self, work: e.Encode | e.Reduce | e.Hold | e.Advance | e.Retry) -> None:
        """Begin work, in place of any earlier work of its kind."""
        match work:
            case e.Encode():
                self.tasks.start("encode", self._encode, work)
            case e.Reduce():
                self.tasks.start("reduce", self._reduce, work)
            case e.Hold():
                self.tasks.start("hold", self._hold, work)
            case e.Advance():
                self.tasks.start("advance", self._advance)
            case e.Retry():
                self.tasks.start("advance", self._advance, RETRY_SECONDS)

    def provide(self, wanted: m.WantData, tell: Callable[[m.DataAt], None]) -> None:
        """Fetch blocks of the prepared data, and `tell` the trainer where they are."""
        self.tasks.start("data", self._provide_data, wanted, tell)

    def told_donors(self, donors: dict[str, Addresses]) -> None:
        """These can give state, updates and data from now on."""
        self.donors = donors
        self._news.set()

    async def store(self, record: r.CommitRecord) -> None:
        """Write a commit record to the log. Raises ValueError when it is not the run's next one."""
        await asyncio.to_thread(self.log.append, record)
        self._accounts.committed()
        self._news.set()
        await self.tasks.stop("reduce", "hold")

    async def forget(self, rewinds: Iterable[r.Rewind]) -> None:
        """Write rewinds to the log; what they abandon becomes unknown. Raises UserError for another run's."""
        await self.tasks.stop("reduce", "hold")
        async with self._state_lock:  # what is being applied ends first
            await asyncio.to_thread(self.recovery.forget, tuple(rewinds))

    async def stop(self) -> None:
        """End all work, and leave no half-made update."""
        await self.tasks.stop()
        self._discard_assembly()

    # ----------------------------------------------------------------------------------------- the outer step
    async def _encode(self, work: e.Encode) -> None:
        """Encode the pseudo-gradient into the payload."""
        self._accounts.say("encoding")
        started = now()
        codec = self._recipe.outer.codec
        proposal = msgspec.structs.replace(work.proposal, metrics=self._accounts.metrics)
        clock = asyncio.get_running_loop().time

        def make() -> payload.Payload:
            settled = residual.settled(self._directory, self._island, self.log.records)
            return payload.make(self._directory, self.state, codec, proposal, settled, clock)

        try:
            async with self._state_lock:
                own = await unbroken(asyncio.to_thread(make))
        except (ValueError, UserError) as error:
            self._report(e.Failed(work, "", str(error)))
            return
        self.payload = own
        self._accounts.communicated(started)
        self._accounts.say("waiting for the others")
        self._report(e.Encoded(own.proposal))
        # Who owned last will most likely own again; before that, anybody may.
        owners = self._others_of(self._owners or self.donors)
        self.tasks.start("warm", self._lanes.warm, owners, self._run.layout.num_pieces)

    async def _reduce(self, work: e.Reduce) -> None:
        """Do this agent's part of an attempt's all-reduce."""
        attempt = work.attempt
        self._accounts.say(f"reducing step {attempt.step}")
        self._discard_assembly()
        assembly = Assembly(self.log.directory, self._run.layout, attempt)
        self.donor.assembly = (attempt, assembly)
        self._owners = attempt.addresses
        mine = self.payload if attempt.share_of(self._island) else None

        async def report(message: m.Reduced | m.Fault) -> None:
            self._report(message)

        def num_lanes(owner: str, bytes_per_second: float, num_pieces: int) -> int:
            return self._lanes.count(owner, len(attempt.addresses), bytes_per_second, num_pieces)

        patience_seconds = attempt.patience_seconds or PROGRESS_SECONDS
        reduction = Reduction(self._island, attempt, assembly, mine, patience_seconds, report, num_lanes)
        async with self._reduction_changed:
            self._reduction = reduction
            self._reduction_changed.notify_all()
        started = now()
        self._accounts.longest_beat_seconds()  # from now on
        self.donor.give_way(reduction.num_bytes > 0)  # where nothing crosses the link, nothing is in the way
        try:
            async with self.rates.reduction(attempt.seconds, reduction.num_bytes):
                before = self.rates.crossed
                await reduction.run(self._transport)
        finally:
            self.donor.give_way(False)
        crossed = self.rates.crossed
        self._exchange = Exchange(
            send_seconds=reduction.sent_at - started,
            own_seconds=max(0.0, reduction.reduced_at - started),
            reduce_seconds=now() - started,
            sent_bytes=crossed.sent - before.sent,
            received_bytes=crossed.received - before.received,
            beat_seconds=self._accounts.longest_beat_seconds(),
        )
        self._accounts.communicated(started)

    async def _hold(self, work: e.Hold) -> None:
        """Complete the update from whoever has its slices, compute the next table, keep both."""
        attempt = work.attempt
        head = r.header(attempt, work.assembled)
        try:
            reduction = await within(
                PROGRESS_SECONDS, self._reduction_of(lambda a: a == attempt), "this attempt"
            )
        except TransportError as error:
            self._report(e.Failed(work, "", str(error)))
            return
        assembly = reduction.assembly
        donors = self._others({**self.donors, **attempt.addresses})
        owner, found = "", Direction()  # of the slice that is asked for; of the update
        try:
            await self.tasks.ended("reduce")  # its own waits have deadlines
            for part, slice_root in zip(attempt.slices, work.assembled.digests, strict=True):
                if not assembly.whole(part, slice_root):
                    owner = part.owner if part.owner != self._island else ""
                    await fetch_slice(donors, attempt.step, part, slice_root, assembly, part.pieces)
            async with self._state_lock:
                self._accounts.say(f"holding step {attempt.step}")
                started = now()
                finished = asyncio.to_thread(assembly.apply_and_finish, self.state, self.log, head, found)
                table = await unbroken(finished)
                measures = await unbroken(self._measures(work, assembly))
        except FalsePieces as error:
            # The bytes are those that the piece's owner announced, so the fault is not ours.
            owner = next((part.owner for part in attempt.slices if error.index in part.pieces), "")
            self._report(e.Failed(work, owner, str(error)))
            return
        except DiskError:
            raise
        except NobodyHas as error:  # the owner has named it, and gave it to nobody who could give it to us
            self._report(e.Failed(work, owner, str(error)))
            return
        except UserError as error:
            self._report(e.Failed(work, "", str(error)))
            return
        finally:
            await donors.close()
        exchange = msgspec.structs.replace(
            self._exchange,
            give_seconds=max(0.0, reduction.given_at - reduction.began_at),
            disk_seconds=now() - started,
            norm=found.norm,
            cosine=found.cosine,
        )
        self._report(m.Exchanged(attempt.step, attempt.number, exchange))
        held = m.Held(
            step=attempt.step,
            number=attempt.number,
            update=head.digest(),
            next_root=root(table),
            measure=measures[0],
            own_measure=measures[1],
        )
        self._report(e.Holding(held))

    async def _measures(self, work: e.Hold, assembly: Assembly) -> tuple[bytes, bytes]:
        """What the update measures, and this island's payload in it; b"" if there is none."""
        seed, groups = work.assembled.seed, audit.groups(work.attempt.slices)
        share, own = work.attempt.share_of(self._island), self.payload
        measured = [asyncio.to_thread(measure, assembly.pieces, groups, seed)]
        if own is not None and share is not None and own.proposal.payload == share.payload:
            measured.append(asyncio.to_thread(measure, own.pieces, groups, seed))
        # Both come to their end, whatever becomes of the other: they read what is mapped.
        found = await asyncio.gather(*measured, return_exceptions=True)
        for at, rows in enumerate(found):
            if at and isinstance(rows, FalsePieces):
                raise UserError(f"this island's own payload is damaged: {rows}") from rows
            if isinstance(rows, BaseException):
                raise rows
        packed = [audit.packed(rows) for rows in found if not isinstance(rows, BaseException)]
        return packed[0], packed[1] if len(packed) > 1 else b""

    async def _advance(self, pause_seconds: float = 0.0) -> None:
        """Bring the state to the log's head, and write an outer checkpoint where one is due.

        It begins after the pause, or as soon as there is news.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_seconds):
                await self._news.wait()
        self._news.clear()
        before = self.state.version
        donors = self._others(self.donors)
        try:
            async with self._state_lock:
                if before != self.log.head:
                    since = before if before >= 0 else "?"
                    self._accounts.say(f"moving from state {since} to {self.log.head}")
                version = await self.recovery.advance(donors)
                table = await asyncio.to_thread(self.recovery.table, version)
                self._report(e.Advanced(version, root(table), table))
                self._accounts.say(f"at state {version}")
                if version and version != before:
                    await unbroken(asyncio.to_thread(self._checkpoint, version, root(table)))
        except DiskError:
            raise
        except (NobodyHas, UserError) as error:
            self._accounts.say(str(error))
            self._report(e.Failed(e.Advance(), "", str(error)))
        finally:
            await donors.close()

    def _checkpoint(self, version: int, state_root: bytes) -> None:
        """Write an outer checkpoint where one is due, and drop what it makes superfluous."""
        every = self._recipe.outer.checkpoint_every
        if version % every and version != self._recipe.num_outer_steps:
            return
        state = self.state
        checkpoint.save(
            self._checkpoints, state.layout, version, state_root, state.parameters, state.momentum
        )
        # Two intervals of updates stay, so that a laggard and a repair find them.
        self.log.prune(min(checkpoint.keep_newest(self._checkpoints, 2), version - 2 * every))

    # ------------------------------------------------------------------------------------------ prepared data
    async def _provide_data(self, wanted: m.WantData, tell: Callable[[m.DataAt], None]) -> None:
        path: Path | None = None
        url = (self._recipe.data_url or "").rstrip("/")
        while path is None:
            donors = self._others(self.donors)
            try:
                path = await Fetching(self.data, url, donors, self._accounts.say).provide(wanted.blocks)
            except DiskError:
                raise
            except (NobodyHas, UserError) as error:
                self._accounts.say(str(error))
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await donors.close()
        tell(m.DataAt(wanted.number, str(path)))

    # ------------------------------------------------------------------------------------------------- peers
    async def serve_reduce(self, stream: Stream[peers.ToOwner]) -> None:
        """A participant's stream, for the slices of the open attempt that this agent owns."""
        message, table = await stream.receive(PROGRESS_SECONDS)
        opened = expect(message, m.ReduceOpen)
        named = (opened.step, opened.number)
        ours = self._reduction_of(lambda attempt: (attempt.step, attempt.number) == named)
        reduction = await within(PROGRESS_SECONDS, ours, "this attempt")
        await reduction.serve(stream, opened, bytes(table))

    async def _reduction_of(self, matches: Callable[[r.Attempt], bool]) -> Reduction:
        """The reduction of an attempt; a participant, or our own Hold, may come before it has begun here."""
        async with self._reduction_changed:
            await self._reduction_changed.wait_for(
                lambda: self._reduction is not None and matches(self._reduction.attempt)
            )
        assert self._reduction is not None
        return self._reduction

    def _others(self, agents: dict[str, Addresses]) -> Donors:
        """Agents to ask, never ourselves."""
        return Donors(self._transport, self._others_of(agents), self._accounts.say)

    def _others_of(self, agents: dict[str, Addresses]) -> dict[str, Addresses]:
        return {island: addresses for island, addresses in agents.items() if island != self._island}

    def _discard_assembly(self) -> None:
        if self.donor.assembly is not None:
            self.donor.assembly[1].discard()
            self.donor.assembly = None
