"""The log of committed updates: records for ever, tables for ever, update bytes until an outer checkpoint is
past them.

    00000012.commit              the record of step 12
    00000012-<update>.entry      header and tables of an update that is held (committed or not)
    00000012-<update>.update     its pieces, each in its slot (`pieces.py`)
    00000013.table               table of state 13, where the update itself was never here
    0001.rewind                  the record that opened branch 1
    00000012-0.abandoned         a record of branch 0 that a rewind has made void

Everything is checked against a digest when read, so a damaged file counts as absent.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from atoll.agent.arrays import Bytes
from atoll.agent.codecs import codec_named
from atoll.agent.pieces import PIECE_ROW_BYTES, Pieces, check_piece, piece_rows, slots_bytes
from atoll.errors import UserError
from atoll.files import write_atomic, write_unsynced
from atoll.swarm.chain import objection
from atoll.swarm.identity import verify_record
from atoll.swarm.layout import Layout, root
from atoll.swarm.records import CommitRecord, Message, Rewind, UpdateHeader, decode, encode, is_valid_after

K = TypeVar("K", bound=Message)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies beside an update's bytes.

    The digest of the header fixes all of it but `next_table`, which a commit record fixes.
    """

    header: UpdateHeader
    piece_table: bytes  # of all pieces, slice after slice
    next_table: bytes  # of the state that the update leads to


class Update:
    """One update that is held: its header, its pieces, and the table of the state that it leads to."""

    def __init__(self, entry: Entry, slots: Bytes, layout: Layout) -> None:
        self.header = entry.header
        self.pieces = Pieces(layout, codec_named(entry.header.codec), slots, entry.piece_table)
        self.next_table = entry.next_table


class UpdateLog:
    """The island's copy of the run's history."""

    def __init__(self, directory: Path, layout: Layout, record_key: bytes) -> None:
        """Open `directory`, and verify its records as a chain.

        Raises UserError for a record that the run did not sign.
        """
        self.directory = directory
        self.layout = layout
        self.record_key = record_key
        self.records: list[CommitRecord] = []
        self.rewinds: list[Rewind] = []
        directory.mkdir(parents=True, exist_ok=True)
        while (path := self._rewind_path(len(self.rewinds) + 1)).exists():
            rewind = _read(path, Rewind)
            if rewind is None or not verify_record(record_key, rewind.unsigned(), rewind.signature):
                raise UserError(
                    f"{path}: not a record of this run; this directory belongs to another run, or is damaged"
                )
            self.rewinds.append(rewind)
        while (path := self._commit_path(len(self.records))).exists():
            record = _read(path, CommitRecord)
            if record is None:
                break  # damaged: it and what follows will be asked for again
            if not is_valid_after(record, self.rewinds):
                break  # abandoned, in a moment when this agent died
            if self.objection(record):
                raise UserError(
                    f"{path}: not a record of this run; this directory belongs to another run, or else this "
                    "file is damaged: then delete it, it will be asked for again"
                )
            self.records.append(record)

    @property
    def head(self) -> int:
        """How many updates are committed, as far as this island knows."""
        return len(self.records)

    def root(self, step: int, genesis_root: bytes) -> bytes:
        """The root of state `step`."""
        return self.records[step - 1].next_root if step else genesis_root

    def objection(self, record: CommitRecord) -> str:
        """Why a record cannot be the next one; empty if it can."""
        return objection(record, self.records, self.rewinds, self.record_key)

    def append(self, record: CommitRecord) -> None:
        """Store the next record durably; raises ValueError with the objection to it."""
        if objection := self.objection(record):
            raise ValueError(objection)
        write_atomic(self._commit_path(record.step), encode(record))
        self.records.append(record)

    def forget(self, rewinds: Sequence[Rewind]) -> None:
        """Go back: records of the steps that these rewinds abandon are history no more.

        Raises UserError for a rewind that is not of this run.
        """
        for rewind in rewinds:
            known = (
                not 0 < rewind.step <= self.head or self.records[rewind.step - 1].digest() == rewind.previous
            )
            signed = verify_record(self.record_key, rewind.unsigned(), rewind.signature)
            if not (known and signed and rewind.branch == len(self.rewinds) + 1):
                raise UserError(
                    f"the coordinator's rewind to state {rewind.step} is not of this run; "
                    "look at which coordinator this island has a ticket of"
                )
            write_atomic(self._rewind_path(rewind.branch), encode(rewind))
            self.rewinds.append(rewind)
            for record in reversed(self.records[rewind.step :]):
                path = self._commit_path(record.step)
                path.rename(path.with_name(f"{record.step:08d}-{record.branch}.abandoned"))
            del self.records[rewind.step :]

    def hold(self, entry: Entry) -> None:
        """Keep an entry whose bytes already lie, fsynced, at `data_path`."""
        write_atomic(
            self._path(entry.header.step, entry.header.digest(), "entry"), msgspec.msgpack.encode(entry)
        )

    def data_path(self, step: int, update: bytes) -> Path:
        return self._path(step, update, "update")

    def update(self, step: int, update: bytes) -> Update | None:
        """The held update of that digest, or None. Its bytes are checked where used, or by `check`."""
        try:
            entry = msgspec.msgpack.decode(self._path(step, update, "entry").read_bytes(), type=Entry)
            if entry.header.digest() != update or not _has_whole_table(entry, self.layout):
                return None
            path = self.data_path(step, update)
            if path.stat().st_size != slots_bytes(self.layout, codec_named(entry.header.codec)):
                return None
            return Update(entry, np.memmap(path, np.uint8, "r"), self.layout)
        except (OSError, msgspec.DecodeError):
            return None

    def check(self, update: Update) -> bool:
        """Whether an update's pieces are those of its table; reads them all."""
        pieces = update.pieces
        return all(check_piece(pieces.table, index, pieces[index]) for index in range(self.layout.num_pieces))

    def drop(self, step: int, update: bytes) -> None:
        """Remove an update's bytes and entry. Of a committed one, the table of the state after it stays."""
        if step < self.head and self.records[step].update == update:
            table = self.table(step + 1, b"")  # the root of state 0 is not asked for
            if table is not None:
                self.keep_table(step + 1, table)
        self._remove(self.data_path(step, update))

    def committed(self, step: int) -> Update | None:
        """The committed update of a step, if its bytes are here."""
        return self.update(step, self.records[step].update) if 0 <= step < self.head else None

    def updates_of_step(self, step: int) -> list[Update]:
        """All updates held for a step, committed or not."""
        found: list[Update] = []
        for path in sorted(self.directory.glob(f"{step:08d}-*.entry")):
            try:
                entry = msgspec.msgpack.decode(path.read_bytes(), type=Entry)
            except (OSError, msgspec.DecodeError):
                continue
            if update := self.update(step, entry.header.digest()):
                found.append(update)
        return found

    def table(self, step: int, genesis_root: bytes) -> bytes | None:
        """The table of state `step`, checked against the state's root; None if it is not here."""
        if not 0 <= step <= self.head:
            return None
        expected = self.root(step, genesis_root)
        if step and (update := self.committed(step - 1)) and root(update.next_table) == expected:
            return update.next_table
        path = self.directory / f"{step:08d}.table"
        if path.exists() and root(data := path.read_bytes()) == expected:
            return data
        return None

    def keep_table(self, step: int, table: bytes) -> None:
        """Not synced: a recovery waits for its tables while gigabytes of chunks are still to be written."""
        write_unsynced(self.directory / f"{step:08d}.table", table)

    def prune(self, below: int) -> None:
        """Drop the bytes of updates of steps under `below`, and of those that a commit has passed over."""
        for path in self.directory.glob("*-*.update"):
            step = int(path.name[:8])
            committed = self.records[step].update if step < self.head else b""
            if committed and path == self.data_path(step, committed):
                if step < below:
                    self.drop(step, committed)
            elif committed or step < below:
                self._remove(path)

    def _remove(self, data_path: Path) -> None:
        """The entry goes first: bytes without one count as absent, and pruning finds them."""
        data_path.with_suffix(".entry").unlink(missing_ok=True)
        data_path.unlink(missing_ok=True)

    def _commit_path(self, step: int) -> Path:
        return self.directory / f"{step:08d}.commit"

    def _rewind_path(self, branch: int) -> Path:
        return self.directory / f"{branch:04d}.rewind"

    def _path(self, step: int, update: bytes, suffix: str) -> Path:
        return self.directory / f"{step:08d}-{update[:8].hex()}.{suffix}"


def _read(path: Path, kind: type[K]) -> K | None:
    """The record of that kind in a file; None where the file is damaged."""
    try:
        return decode(path.read_bytes(), kind)
    except ValueError:
        return None


def _has_whole_table(entry: Entry, layout: Layout) -> bool:
    """Whether a table of pieces is exactly the slices' tables that the header fixes by their roots."""
    end = 0
    for first, count, slice_root in entry.header.slices:
        if first != end or root(piece_rows(entry.piece_table, range(first, first + count))) != slice_root:
            return False
        end += count
    return end == layout.num_pieces and len(entry.piece_table) == layout.num_pieces * PIECE_ROW_BYTES
