"""Bytes behind the doors: codecs, tables, shrunk chunks, measures; an owner whose participant sends any."""

import asyncio
import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.test_network import values
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unit.test_reduce import Participant, World, floats
from worlds import clock
from worlds.sparse import Sparse
from worlds.swarm import LAYOUT

from atoll.agent.codecs import CODECS
from atoll.agent.exponents import restore
from atoll.agent.measure import measure_piece
from atoll.agent.outer_step import OuterStep, step
from atoll.agent.pieces import PIECE_ROW_BYTES, FalsePieces, check_piece, check_table
from atoll.swarm import audit
from atoll.swarm import messages as m
from atoll.swarm.layout import BLOCK
from atoll.swarm.messages import control, peers
from atoll.swarm.transport import TransportError

SIZES = st.sampled_from([BLOCK, 2 * BLOCK])


@st.composite
def encoded(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """(a codec, elements, bytes that may be theirs): often of the right size, with a few bytes changed."""
    name, count = draw(st.sampled_from(sorted(CODECS))), draw(SIZES)
    size = CODECS[name].max_bytes(count)
    if draw(st.booleans()):
        size = draw(st.integers(0, 2 * size))
    data = np.zeros(size, np.uint8)
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=12)):
        if size:
            data[at % size] = byte
    return name, count, data.tobytes()


@given(encoded())
@example(("int8", BLOCK, b"\xff" * (BLOCK + 4)))
def test_a_codec_decodes_finite_values_or_refuses(given_: tuple[str, int, bytes]) -> None:
    name, count, data = given_
    total = np.zeros(count + 1, np.float32)  # one more, which no kernel may touch
    total[count] = 7.0
    try:
        square = CODECS[name].add_decoded(np.frombuffer(data, np.uint8), np.float32(0.5), total[:count])
    except ValueError:
        return
    finally:
        assert total[count] == 7.0
    assert math.isfinite(square) and np.isfinite(total).all()


@given(encoded(), st.binary(min_size=audit.SEED_BYTES, max_size=audit.SEED_BYTES))
def test_a_piece_is_measured_or_refused(given_: tuple[str, int, bytes], seed: bytes) -> None:
    name, count, data = given_
    with contextlib.suppress(ValueError):
        assert np.isfinite(measure_piece(CODECS[name], data, 0, count, seed)[0]).all()


@given(st.binary(max_size=600), st.sampled_from([0, 4, 64, 400]))
def test_a_shrunk_chunk_becomes_so_many_bytes_or_is_refused(shrunk: bytes, size: int) -> None:
    try:
        assert len(restore(shrunk, size)) == size
    except ValueError as error:
        assert str(error)


@given(st.binary(max_size=3 * audit.ROW_BYTES), st.integers(0, 3))
def test_a_measure_is_numbers_or_none(data: bytes, num_groups: int) -> None:
    rows = audit.unpacked(data, num_groups)
    assert rows is None or np.isfinite(rows[:, : audit.LANES]).all()


@given(st.binary(max_size=LAYOUT.num_pieces * PIECE_ROW_BYTES + 9), st.integers(0, 9), st.binary(max_size=9))
def test_a_table_of_any_bytes_is_checked(table: bytes, index: int, piece: bytes) -> None:
    with contextlib.suppress(FalsePieces):
        check_table(table, LAYOUT, CODECS["int8"], range(LAYOUT.num_pieces))
    if (index + 1) * PIECE_ROW_BYTES <= len(table):
        check_piece(table, index, piece)


@given(st.lists(values(control.ToAgent), max_size=12), st.booleans())
def test_no_message_of_a_coordinator_ends_an_agents_outer_step(said: list[Any], relay: bool) -> None:
    state = OuterStep(island="a", relay=relay, attached=not relay)
    for message in said:
        step(state, message)


class Line:
    """An owner's end of a participant's lane, on which these frames come."""

    peer, peer_host = "other", "host"

    def __init__(self, frames: list[tuple[Any, bytes]]) -> None:
        self._frames = iter(frames)

    async def receive(self, seconds: float) -> tuple[Any, memoryview]:
        for message, data in self._frames:
            return message, memoryview(data)
        raise TransportError("nothing comes any more")

    async def send(self, message: Any, bulk: bytes | memoryview = b"") -> None:
        await asyncio.sleep(0)

    async def close(self) -> None: ...


@pytest.fixture(scope="module", autouse=True)
def sparse() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CODECS, "sparse", Sparse())
        yield


@settings(max_examples=200)
@given(
    opened=st.builds(m.ReduceOpen, st.just(0), st.just(1), st.integers(0, 2), st.integers(0, 3)),
    frames=st.lists(st.tuples(values(peers.ToOwner), st.binary(max_size=50)), max_size=6),
    is_table=st.booleans(),
)
def test_whatever_a_participant_sends_its_owner_goes_on(
    opened: m.ReduceOpen, frames: list[tuple[Any, bytes]], is_table: bool, tmp_path_factory: Any
) -> None:
    async def main() -> None:
        directory: Path = tmp_path_factory.mktemp("owner")
        world = World(directory, Participant("owner", floats(0)), Participant("other", floats(1)))
        owner, other = world.reductions["owner"], world.reductions["other"]
        assert other._payload is not None
        table = bytes(other._payload.pieces.table) if is_table else b"no table"
        with contextlib.suppress(TransportError):
            await owner.serve(Line(frames), opened, table)  # type: ignore[arg-type]
        for said in world.said["owner"]:
            assert isinstance(said, m.Reduced | m.Fault)
        for reduction in world.reductions.values():
            reduction.assembly.discard()

    clock.run(main())
