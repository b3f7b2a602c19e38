"""Bring the outer state to the head: the outer step, a joiner's recovery, a laggard's catching up and a
repair are this.

Each chunk moves on alone: from whatever logged version it has, by the updates of the log, each step checked
against that state's table. A chunk that no table names is replaced, from an own outer checkpoint or from a
donor.
"""

import asyncio
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from atoll.agent import checkpoint
from atoll.agent.assembly import Assembly
from atoll.agent.exponents import restore
from atoll.agent.fetch import AT_ONCE, Donors, NobodyHas, fetch_slice
from atoll.agent.log import Update, UpdateLog
from atoll.agent.pieces import FalsePieces
from atoll.agent.state import ROW_BYTES, UNKNOWN, OuterState
from atoll.agent.unbroken import unbroken
from atoll.swarm import messages as m
from atoll.swarm import records as r
from atoll.swarm.layout import digest, root, row
from atoll.swarm.transport import TransportError, together

MAX_REPLAY = 8  # updates of 1 byte a parameter cost as much as one fresh chunk of 8
MAX_HEADER_BYTES = 1 << 20
MAX_REPAIRS = 5  # in one advance; more means that something keeps damaging what was just verified


class Recovery:
    """Moves one island's state along the log, fetching what is not here."""

    def __init__(
        self, state: OuterState, log: UpdateLog, genesis_root: bytes, checkpoint_dirs: list[Path]
    ) -> None:
        self.state = state
        self.log = log
        self.genesis_root = genesis_root
        self.checkpoint_dirs = checkpoint_dirs

    async def advance(self, donors: Donors) -> int:
        """Bring every chunk to the log's head; returns the version reached. Raises NobodyHas when something
        is nowhere.

        Fresh chunks come while those that are here follow the log; each commit meanwhile turns the first into
        the second.
        """
        if UNKNOWN in self.state.versions:
            await unbroken(asyncio.to_thread(self._recognise, self.log.head))
        repairs = 0
        while repairs < MAX_REPAIRS:
            target = self.log.head
            stale = [i for i, v in enumerate(self.state.versions) if v == UNKNOWN or target - v > MAX_REPLAY]
            near = sorted(set(range(self.state.layout.num_chunks)).difference(stale))
            await together(self._replace_stale(stale, target, donors), self._follow(near, target, donors))
            if self.state.version == target:
                return target
            repairs += self.log.head == target  # else there is more to do than there was
        raise NobodyHas(
            f"state {self.log.head} could not be reached in {MAX_REPAIRS} repairs; is this machine's "
            "memory sound?"
        )

    async def _follow(self, chunks: list[int], target: int, donors: Donors) -> None:
        """Move chunks that have a version along the log, to `target`.

        A chunk that does not hash to its row afterwards is UNKNOWN.
        """
        versions = self.state.versions
        for step in range(min((versions[chunk] for chunk in chunks), default=target), target):
            behind = [chunk for chunk in chunks if versions[chunk] == step]
            try:
                update = self.log.committed(step) or await self._fetch_update(step, behind, donors)
            except NobodyHas:  # pruned everywhere: what it led to is still to be had, in chunks
                await self._replace(behind, target, donors)
                return
            table = await self._table(step + 1, donors)
            await unbroken(asyncio.to_thread(self._apply, update, table, behind))
            if UNKNOWN in (versions[chunk] for chunk in behind):
                if not await asyncio.to_thread(self.log.check, update):
                    self.log.drop(step, update.header.digest())
                return

    def table(self, version: int) -> bytes:
        """The table of the state that `advance` reached.

        The log has it, against which each chunk was hashed; only that of state 0 may be missing there.
        """
        return self.log.table(version, self.genesis_root) or self.state.table()

    def forget(self, rewinds: Sequence[r.Rewind]) -> None:
        """Go back where the operator did: chunks and checkpoints of what is abandoned count no more."""
        self.log.forget(rewinds)
        head = self.log.head
        self.state.versions = [version if version <= head else UNKNOWN for version in self.state.versions]
        checkpoint.drop_after(self.checkpoint_dirs[0], head)

    def _apply(self, update: Update, table: bytes, chunks: list[int]) -> None:
        for chunk in chunks:
            self.state.apply(update.header, update.pieces, chunk, row(table, chunk, ROW_BYTES))

    def _recognise(self, target: int) -> None:
        """Find out by their hashes which versions the chunks have."""
        steps = range(target, max(-1, target - 3 * MAX_REPLAY), -1)
        tables = {
            step: table for step in steps if (table := self.log.table(step, self.genesis_root)) is not None
        }
        if not tables:
            return  # a joiner: there is no need to hash what is empty
        for chunk, version in enumerate(self.state.versions):
            if version == UNKNOWN:
                own = self.state.row(chunk)
                known = (step for step, table in tables.items() if row(table, chunk, ROW_BYTES) == own)
                self.state.versions[chunk] = next(known, UNKNOWN)

    async def _replace_stale(self, stale: list[int], target: int, donors: Donors) -> None:
        """Replace chunks that are unknown or far behind.

        From an own checkpoint that is recent, else from donors, else from an older own checkpoint.
        """
        near = target - MAX_REPLAY
        if not stale or await unbroken(asyncio.to_thread(self._replace_from_checkpoint, stale, near)):
            return
        try:
            await self._replace(stale, target, donors)
        except NobodyHas:
            # Alone, or all others gone: a long way by our own log is better than none.
            await unbroken(asyncio.to_thread(self._replace_from_checkpoint, stale, 0))
            if UNKNOWN in (self.state.versions[chunk] for chunk in stale):
                raise
            await self._follow(stale, target, donors)

    def _replace_from_checkpoint(self, chunks: list[int], oldest: int) -> bool:
        """Replace chunks from an own outer checkpoint that a record vouches for; whether there was one.

        It must not be older than state `oldest`.
        """
        for saved in checkpoint.newest(self.checkpoint_dirs):
            if saved.layout != self.state.layout or not oldest <= saved.step <= self.log.head:
                continue
            table = saved.table()
            if root(table) != self.log.root(saved.step, self.genesis_root):
                continue  # damaged, or of another branch
            self.log.keep_table(saved.step, table)
            for chunk in chunks:
                if self.state.versions[chunk] < saved.step:
                    self.state.write(chunk, saved.step, saved.chunk(chunk))
            return True
        return False

    async def _replace(self, chunks: list[int], target: int, donors: Donors) -> None:
        """Fresh copies of chunks from donors, several at once, until one more step is committed."""
        waiting, willing = list(chunks), set(donors.names)
        failures: list[str] = []

        async def take_from(donor: str) -> None:
            while waiting and self.log.head == target:
                chunk = waiting.pop()
                try:
                    await self._fetch_chunk(chunk, donor, donors)
                except TransportError as error:
                    waiting.insert(0, chunk)  # not what this donor is asked next
                    willing.discard(donor)
                    failures.append(str(error))
                    return

        while (
            waiting and willing and self.log.head == target
        ):  # again, where one failed when the others had done the rest
            await together(*(take_from(donor) for donor in sorted(willing) * AT_ONCE))
        if waiting and self.log.head == target:
            raise NobodyHas(
                f"{len(waiting)} chunks of state {target}: {'; '.join(failures) or 'there is no donor'}"
            )

    async def _fetch_chunk(self, chunk: int, donor: str, donors: Donors) -> None:
        elements = self.state.layout.chunk(chunk)
        size = 8 * (elements.stop - elements.start)
        data, version = await donors.ask_one(donor, m.FetchChunk(chunk), lambda _, v: v >= 0, size)
        if version > self.log.head:
            raise TransportError(f"{donor} is ahead of us at {version}; its record will come")
        try:
            table = await self._table(version, donors)
        except NobodyHas as error:
            raise TransportError(str(error)) from None
        if not await unbroken(
            asyncio.to_thread(self._place, chunk, version, data, row(table, chunk, ROW_BYTES))
        ):
            await donors.drop(
                donor, f"{donor} is dropped as a donor: its chunk {chunk} is not that of state {version}"
            )
            raise TransportError(f"{donor} gave a false chunk")

    def _place(self, chunk: int, version: int, shrunk: bytes, expected: bytes) -> bool:
        """Write a chunk if its row of the table is the expected one; whether it is."""
        elements = self.state.layout.chunk(chunk)
        half = 4 * (elements.stop - elements.start)
        try:
            values = memoryview(restore(shrunk, 2 * half))
        except ValueError:
            return False
        if digest(values[:half]) + digest(values[half:]) != expected:
            return False
        self.state.write(chunk, version, values)
        return True

    async def _table(self, step: int, donors: Donors) -> bytes:
        """The table of state `step`, from here or from a donor, checked against the state's root."""
        if (table := await asyncio.to_thread(self.log.table, step, self.genesis_root)) is not None:
            return table
        expected = self.log.root(step, self.genesis_root)
        size = ROW_BYTES * self.state.layout.num_chunks
        data, _ = await donors.ask(m.FetchTable(step), lambda d, _: root(d) == expected, size)
        self.log.keep_table(step, data)
        return data

    async def _fetch_update(self, step: int, chunks: list[int], donors: Donors) -> Update:
        """A committed update that this island did not hold: those of its pieces that these chunks need.

        If that is all of them, the update is kept in the log.
        """
        record = self.log.records[step]
        request = m.FetchHeader(step, record.update)
        raw, _ = await donors.ask(request, lambda d, _: digest(d) == record.update, MAX_HEADER_BYTES)
        try:
            header = r.decode(raw, r.UpdateHeader)
        except ValueError as error:
            raise NobodyHas(f"the update of step {step} has no readable header: {error}") from error
        table = await self._table(step + 1, donors)
        layout = self.state.layout
        whom = cycle(donors.names or [""])  # each slice of another donor
        slices = tuple(r.Slice(next(whom), first, count) for first, count, _ in header.slices)
        attempt = r.Attempt(
            term=record.term,
            step=step,
            number=-1,
            parent=header.parent,
            codec=header.codec,
            lr=header.lr,
            momentum=header.momentum,
            participants=header.participants,
            slices=slices,
            addresses={},
        )
        assembly = Assembly(self.log.directory, layout, attempt)
        pieces = {piece for chunk in chunks for piece in layout.pieces_of_chunk(chunk)}
        try:
            await together(
                *(
                    fetch_slice(donors, step, part, slice_root, assembly, pieces)
                    for part, (_, _, slice_root) in zip(slices, header.slices, strict=True)
                    if not pieces.isdisjoint(part.pieces)
                )
            )
            if len(pieces) == layout.num_pieces:
                await unbroken(asyncio.to_thread(assembly.finish, self.log, header, table))
        except FalsePieces as error:
            raise NobodyHas(f"the update of step {step}: {error}") from error
        finally:
            assembly.discard()
        return assembly.update(header, table)
