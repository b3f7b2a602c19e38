"""The log: a chain that only the run can lengthen, and files that count as absent when they are damaged."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from worlds.swarm import LAYOUT

from atoll.agent import checkpoint, fetch
from atoll.agent.assembly import Assembly
from atoll.agent.codecs import CODECS
from atoll.agent.donor import Donor
from atoll.agent.exponents import restore, shrink
from atoll.agent.fetch import Donors, NobodyHas
from atoll.agent.log import UpdateLog
from atoll.agent.pieces import check_piece, piece_row
from atoll.agent.recovery import Recovery
from atoll.agent.state import UNKNOWN, OuterState
from atoll.errors import UserError
from atoll.swarm.address import Address
from atoll.swarm.identity import RunKeys
from atoll.swarm.layout import root
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.messages import FetchChunk, FetchPieces
from atoll.swarm.records import (
    Assembled,
    Attempt,
    CommitRecord,
    Message,
    Rewind,
    Share,
    Slice,
    Term,
    UpdateHeader,
    header,
)
from atoll.swarm.services import FETCH

TERM = Term(1, "nonce")
SHARES = (Share(island="a", payload=b"p" * 32, tokens=8, weight=1.0),)
PARAMETERS = np.random.default_rng(0).standard_normal(LAYOUT.num_elements).astype(np.float32)
GENESIS = checkpoint.flat_root(LAYOUT, PARAMETERS)


class History:
    """A run of one island, made with the real assembly, state and log."""

    def __init__(self, directory: Path, steps: int = 0) -> None:
        self.directory = directory
        self.keys = RunKeys(directory / "keys", "test")
        self.log = UpdateLog(directory / "log", LAYOUT, self.keys.record_key)
        self.state = OuterState(directory / "state", LAYOUT)
        for chunk in range(LAYOUT.num_chunks):
            values = PARAMETERS[LAYOUT.chunk(chunk)]
            self.state.write(chunk, 0, values.tobytes() + np.zeros_like(values).tobytes())
        for _ in range(steps):
            self.commit(self.hold())

    def hold(self, seed: int = 0) -> UpdateHeader:
        """A new update for the next step, held; what it leads to lies in its entry."""
        step = self.log.head
        part = Slice("a", 0, LAYOUT.num_pieces)
        attempt = Attempt(
            term=TERM,
            step=step,
            number=1,
            parent=self.log.root(step, GENESIS),
            codec="int8",
            lr=0.7,
            momentum=0.9,
            participants=SHARES,
            slices=(part,),
            addresses={},
        )
        assembly = Assembly(self.log.directory, LAYOUT, attempt)
        values = (
            np.random.default_rng(100 * step + seed).standard_normal(LAYOUT.num_elements).astype(np.float32)
        )
        for index in range(LAYOUT.num_pieces):
            piece = values[LAYOUT.piece(index)]
            out = np.empty(CODECS["int8"].max_bytes(len(piece)), np.uint8)
            asyncio.run(assembly.put(index, out[: CODECS["int8"].encode(piece, out)].data))
        made = header(
            attempt, Assembled(term=TERM, step=step, number=1, digests=(root(assembly.slice_table(part)),))
        )
        assembly.finish(self.log, made, self.state.next_table(made, assembly.pieces))
        return made

    def record(self, made: UpdateHeader, **changes: object) -> CommitRecord:
        """The signed record that commits a held update."""
        update = self.log.update(made.step, made.digest())
        assert update is not None
        previous = self.log.records[-1].digest() if self.log.records else b""
        record = CommitRecord(
            term=TERM,
            branch=0,
            step=made.step,
            number=1,
            parent=made.parent,
            update=made.digest(),
            next_root=root(update.next_table),
            participants=SHARES,
            leases=(),
            previous=previous,
        )
        record = msgspec.structs.replace(record, **changes)
        return msgspec.structs.replace(record, signature=self.keys.sign(record.unsigned()))

    def commit(self, made: UpdateHeader) -> None:
        update = self.log.update(made.step, made.digest())
        assert update is not None
        self.log.append(self.record(made))
        for chunk in range(LAYOUT.num_chunks):
            row = update.next_table[64 * chunk : 64 * chunk + 64]
            assert self.state.apply(made, update.pieces, chunk, row)

    def reopened(self) -> UpdateLog:
        return UpdateLog(self.directory / "log", LAYOUT, self.keys.record_key)

    def files(self, pattern: str) -> list[Path]:
        return sorted((self.directory / "log").glob(pattern))


def flip(path: Path, at: int) -> None:
    """Damage one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# -------------------------------------------------------------------------------------------------- the chain
def test_the_history_is_there_after_a_restart(tmp_path) -> None:
    history = History(tmp_path, 3)
    log = history.reopened()
    assert log.records == history.log.records
    assert log.root(3, GENESIS) == root(history.state.table())
    assert log.root(0, GENESIS) == GENESIS


def test_a_record_that_another_run_signed_is_refused(tmp_path) -> None:
    history = History(tmp_path / "one")
    record = history.record(history.hold())
    stranger = RunKeys(tmp_path / "other", "test")
    forged = msgspec.structs.replace(record, signature=stranger.sign(record.unsigned()))
    with pytest.raises(ValueError, match="signature"):
        history.log.append(forged)
    assert history.log.head == 0
    assert not history.files("*.commit")


@pytest.mark.parametrize("change", [{"tokens": 9}, {"next_root": b"x" * 32}, {"update": b"x" * 32}])
def test_a_record_that_was_changed_after_signing_is_refused(tmp_path, change) -> None:
    history = History(tmp_path)
    record = history.record(history.hold())
    if "tokens" in change:
        change = {"participants": (msgspec.structs.replace(SHARES[0], tokens=9),)}
    with pytest.raises(ValueError, match="signature"):
        history.log.append(msgspec.structs.replace(record, **change))


def test_a_record_for_another_step_than_the_next_is_refused(tmp_path) -> None:
    history = History(tmp_path, 1)
    with pytest.raises(ValueError, match="for step 0, not 1"):
        history.log.append(history.log.records[0])


def test_a_record_that_does_not_continue_the_chain_is_refused(tmp_path) -> None:
    history = History(tmp_path, 1)
    with pytest.raises(ValueError, match="chain"):
        history.log.append(history.record(history.hold(), previous=b"x" * 32))


def test_the_directory_of_another_run_is_refused(tmp_path) -> None:
    History(tmp_path, 1)
    with pytest.raises(UserError, match="another run"):
        UpdateLog(tmp_path / "log", LAYOUT, RunKeys(tmp_path / "other", "test").record_key)


def rewind(history: History, step: int, signer: RunKeys | None = None) -> Rewind:
    previous = history.log.records[step - 1].digest() if step else b""
    made = Rewind(branch=1, step=step, root=history.log.root(step, GENESIS), previous=previous)
    return msgspec.structs.replace(made, signature=(signer or history.keys).sign(made.unsigned()))


def test_a_rewind_that_another_run_signed_is_refused_and_changes_nothing(tmp_path) -> None:
    history = History(tmp_path, 3)
    with pytest.raises(UserError, match="rewind to state 1 is not of this run"):
        history.log.forget([rewind(history, 1, RunKeys(tmp_path / "other", "test"))])
    assert history.reopened().head == 3
    assert not history.files("*.rewind")


def test_a_damaged_rewind_is_named(tmp_path) -> None:
    history = History(tmp_path, 3)
    history.log.forget([rewind(history, 1)])
    assert history.reopened().head == 1
    (path,) = history.files("*.rewind")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"0001\.rewind: not a record of this run"):
        history.reopened()


# ---------------------------------------------------------------------------------------------- damaged files
def test_a_truncated_commit_counts_as_absent_with_what_follows_it(tmp_path) -> None:
    history = History(tmp_path, 3)
    path = history.files("*.commit")[1]
    path.write_bytes(path.read_bytes()[:-3])
    log = history.reopened()
    assert log.head == 1
    log.append(history.log.records[1])  # asked for again
    assert history.reopened().head == 3


def test_a_commit_with_a_changed_byte_never_counts(tmp_path) -> None:
    history = History(tmp_path, 1)
    path = history.files("*.commit")[0]
    whole = path.read_bytes()
    for at in range(len(whole)):
        flip(path, at)
        try:
            assert history.reopened().head == 0, f"byte {at}"
        except UserError as error:
            assert "not a record of this run" in str(error)
        path.write_bytes(whole)


def test_an_update_is_found_by_its_digest(tmp_path) -> None:
    history = History(tmp_path, 1)
    update = history.log.committed(0)
    assert update is not None
    assert update.header.digest() == history.log.records[0].update
    assert all(check_piece(update.pieces.table, i, update.pieces[i]) for i in range(LAYOUT.num_pieces))
    assert history.log.committed(1) is None
    assert history.log.committed(-1) is None


def test_a_truncated_entry_counts_as_absent(tmp_path) -> None:
    history = History(tmp_path, 1)
    path = history.files("*.entry")[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert history.log.committed(0) is None
    assert history.log.updates_of_step(0) == []


def test_an_update_file_of_another_size_counts_as_absent(tmp_path) -> None:
    history = History(tmp_path, 1)
    path = history.files("*.update")[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert history.log.committed(0) is None


def test_an_entry_with_another_header_counts_as_absent(tmp_path) -> None:
    history = History(tmp_path, 1)
    path = history.files("*.entry")[0]
    flip(path, path.read_bytes().index(b"int8") - 40)  # in the parent's root
    assert history.log.committed(0) is None


def test_an_entry_whose_slice_table_is_damaged_counts_as_absent(tmp_path) -> None:
    history = History(tmp_path, 1)
    path = history.files("*.entry")[0]
    update = history.log.committed(0)
    assert update is not None
    flip(path, path.read_bytes().index(update.pieces.table) + 5)
    assert history.log.committed(0) is None


def test_a_damaged_table_is_not_given_out(tmp_path) -> None:
    history = History(tmp_path, 1)
    update = history.log.committed(0)
    assert update is not None
    path = history.files("*.entry")[0]
    flip(path, path.read_bytes().index(update.next_table) + 5)
    assert history.log.table(1, GENESIS) is None
    history.log.keep_table(1, update.next_table)
    assert history.log.table(1, GENESIS) == update.next_table
    flip(tmp_path / "log" / "00000001.table", 5)
    assert history.log.table(1, GENESIS) is None


def test_no_table_is_known_beyond_the_head(tmp_path) -> None:
    assert History(tmp_path, 1).log.table(2, GENESIS) is None


def test_a_table_of_a_negative_step_is_simply_not_here(tmp_path) -> None:
    assert History(tmp_path, 1).log.table(-5, GENESIS) is None


def test_a_damaged_update_is_not_tried_for_ever(tmp_path) -> None:
    """The state is at 1, the log at 2, a checkpoint at 0, and nobody else is there: it must end by saying
    so.
    """
    history = History(tmp_path, 1)
    checkpoint.save(tmp_path / "outer", LAYOUT, 0, GENESIS, PARAMETERS, None)
    history.log.append(history.record(history.hold()))
    flip(history.log.data_path(1, history.log.records[1].update), 5000)
    recovery = Recovery(history.state, history.log, GENESIS, [tmp_path / "outer"])
    nobody = Donors(MemoryTransport(Network(), "a"), {}, lambda _: None)
    with pytest.raises(NobodyHas):
        asyncio.run(asyncio.wait_for(recovery.advance(nobody), 0.3))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_joiner_fetches_of_an_update_what_its_chunks_need(tmp_path, monkeypatch, ahead) -> None:
    """Whose last chunk came when a commit had moved it on needs that commit for the others only."""
    monkeypatch.setattr(fetch, "BATCH_BYTES", 1)  # one piece a request
    donor, joiner = History(tmp_path / "donor", 1), History(tmp_path / "joiner")
    joiner.log = UpdateLog(tmp_path / "joiner" / "log", LAYOUT, donor.keys.record_key)
    joiner.log.append(donor.log.records[0])
    for chunk in range(LAYOUT.num_chunks - ahead, LAYOUT.num_chunks):
        joiner.state.write(chunk, 1, donor.state.read(chunk)[1])
    asked: list[int] = []

    async def main() -> None:
        network, source = Network(), Donor(donor.state, donor.log, GENESIS, lambda *_: None)
        find = source._find  # pyright: ignore[reportPrivateUsage]

        def counting(request: Message) -> object:
            asked.extend([request.first_piece] if isinstance(request, FetchPieces) else [])
            return find(request)

        monkeypatch.setattr(source, "_find", counting)
        port = await MemoryTransport(network, "donor").serve(Address("memory", 0), {FETCH: source.serve})
        donors = Donors(
            MemoryTransport(network, "joiner"), {"donor": (Address("memory", port),)}, lambda _: None
        )
        assert await Recovery(joiner.state, joiner.log, GENESIS, []).advance(donors) == 1
        await donors.close()

    asyncio.run(main())
    assert sorted(asked) == [
        piece for chunk in range(LAYOUT.num_chunks - ahead) for piece in LAYOUT.pieces_of_chunk(chunk)
    ]
    assert joiner.state.table() == donor.state.table()
    assert bool(joiner.log.committed(0)) == (ahead == 0), "kept where it is whole"


def test_a_commit_while_chunks_come_turns_those_that_are_here_to_the_log(tmp_path, monkeypatch) -> None:
    donor, joiner = History(tmp_path / "donor", 1), OuterState(tmp_path / "joiner" / "state", LAYOUT)
    log = UpdateLog(tmp_path / "joiner" / "log", LAYOUT, donor.keys.record_key)
    log.append(donor.log.records[0])
    chunks: list[int] = []
    pieces: list[int] = []
    one_by_one = threading.Lock()
    monkeypatch.setattr(joiner, "row", lambda _: pytest.fail("hashed a state that no table is known of"))

    async def main() -> None:
        network, source = Network(), Donor(donor.state, donor.log, GENESIS, lambda *_: None)
        find = source._find  # pyright: ignore[reportPrivateUsage]

        def committing(request: Message) -> object:
            with one_by_one:
                if isinstance(request, FetchPieces):
                    pieces.extend(range(request.first_piece, request.first_piece + request.num_pieces))
                if isinstance(request, FetchChunk):
                    monkeypatch.undo()
                    chunks.append(request.index)
                    if len(chunks) == 2:
                        donor.commit(donor.hold())
                        log.append(donor.log.records[1])
                return find(request)

        source._find = committing  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        port = await MemoryTransport(network, "donor").serve(Address("memory", 0), {FETCH: source.serve})
        donors = Donors(
            MemoryTransport(network, "joiner"), {"donor": (Address("memory", port),)}, lambda _: None
        )
        async with asyncio.timeout(20):
            assert await Recovery(joiner, log, GENESIS, []).advance(donors) == 2
        await donors.close()

    asyncio.run(main())
    assert joiner.table() == donor.state.table()
    assert sorted(chunks) == list(range(LAYOUT.num_chunks)), "no chunk came twice"
    assert pieces == list(LAYOUT.pieces_of_chunk(chunks[0])), "the second chunk was read after the commit"


def test_a_donor_gives_a_chunk_shrunk(tmp_path) -> None:
    donor = History(tmp_path, 1)
    shrunk, version = Donor(donor.state, donor.log, GENESIS, lambda *_: None)._find(FetchChunk(0))
    assert version == 1
    chunk = donor.state.read(0)[1]
    assert len(shrunk) < 0.9 * len(chunk)
    assert restore(shrunk, len(chunk)) == chunk


@pytest.mark.parametrize(
    "spoil",
    [
        lambda chunk: chunk[:-1] + bytes([chunk[-1] ^ 1]),
        lambda chunk: shrink(chunk[:-4] + b"evil"),
        lambda chunk: shrink(chunk)[:-1],
        lambda _: b"",
        lambda chunk: chunk + b"more",
    ],
)
def test_a_donor_of_false_chunks_is_dropped_and_named_and_its_chunks_come_from_the_other(
    tmp_path, spoil
) -> None:
    """Also the chunk that it was asked for when the other had given all the rest, and had nothing more to
    do.
    """
    donor, joiner = History(tmp_path / "donor", 1), OuterState(tmp_path / "joiner" / "state", LAYOUT)
    log = UpdateLog(tmp_path / "joiner" / "log", LAYOUT, donor.keys.record_key)
    log.append(donor.log.records[0])
    said: list[str] = []

    class Liar(Donor):
        def _find(self, request: Message) -> Any:
            if not isinstance(request, FetchChunk):
                return super()._find(request)
            step, chunk = donor.state.read(request.index)
            until = time.monotonic() + 5
            while joiner.versions.count(UNKNOWN) > 1 and time.monotonic() < until:
                time.sleep(0.001)
            return spoil(chunk), step

    async def main() -> None:
        network, addresses = Network(), {}
        for name, kind in (("honest", Donor), ("liar", Liar)):
            source = kind(donor.state, donor.log, GENESIS, lambda *_: None)
            port = await MemoryTransport(network, name).serve(Address("memory", 0), {FETCH: source.serve})
            addresses[name] = (Address("memory", port),)
        donors = Donors(MemoryTransport(network, "joiner"), addresses, said.append)
        assert await Recovery(joiner, log, GENESIS, []).advance(donors) == 1
        assert donors.names == ["honest"]
        await donors.close()

    asyncio.run(main())
    assert joiner.table() == donor.state.table()
    assert len(said) == 1
    assert said[0].startswith("liar is dropped as a donor: ")


def test_the_bytes_of_an_update_are_checked_whole_and_a_damaged_one_leaves_its_table(tmp_path) -> None:
    history = History(tmp_path, 1)
    update, name = history.log.committed(0), history.log.records[0].update
    assert update is not None
    assert history.log.check(update)
    path = history.log.data_path(0, name)
    flip(path, path.stat().st_size - 1)
    damaged = history.log.committed(0)
    assert damaged is not None
    assert not history.log.check(damaged)
    history.log.drop(0, name)
    assert history.files("*-*") == []
    assert history.log.table(1, GENESIS) == update.next_table


def test_an_update_that_is_only_held_is_dropped_whole(tmp_path) -> None:
    history = History(tmp_path)
    history.log.drop(0, history.hold().digest())
    assert history.files("*") == []


# ---------------------------------------------------------------------------------------------------- pruning
def test_pruning_drops_bytes_below_and_keeps_their_tables_and_records(tmp_path) -> None:
    history = History(tmp_path, 4)
    tables = [history.log.table(step, GENESIS) for step in range(1, 5)]
    history.log.prune(2)
    assert [path.name[:8] for path in history.files("*.update")] == ["00000002", "00000003"]
    assert [path.name[:8] for path in history.files("*.entry")] == ["00000002", "00000003"]
    log = history.reopened()
    assert log.head == 4
    assert [log.table(step, GENESIS) for step in range(1, 5)] == tables


def test_pruning_drops_what_lost_against_a_commit(tmp_path) -> None:
    history = History(tmp_path)
    lost = history.hold(seed=1)
    history.commit(history.hold(seed=2))
    assert len(history.log.updates_of_step(0)) == 2
    history.log.prune(0)
    assert history.log.update(0, lost.digest()) is None
    assert history.log.committed(0) is not None


def test_pruning_keeps_what_is_held_for_the_open_step(tmp_path) -> None:
    history = History(tmp_path, 1)
    held = [history.hold(seed) for seed in (1, 2)]
    history.log.prune(1)
    assert {update.header.digest() for update in history.log.updates_of_step(1)} == {
        made.digest() for made in held
    }


def test_two_updates_of_a_step_are_both_held(tmp_path) -> None:
    history = History(tmp_path)
    assert len({history.hold(seed).digest() for seed in (1, 2)}) == len(history.log.updates_of_step(0)) == 2


def test_a_piece_is_checked_at_its_own_place_in_the_table() -> None:
    table = piece_row(b"one") + piece_row(b"two")
    assert check_piece(table, 1, b"two")
    assert not check_piece(table, 0, b"two")
    assert not check_piece(table, 2, b"two")
