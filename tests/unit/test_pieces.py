"""Encoded pieces: slots that nothing leaves, and a table that fixes the digest and the size of each."""

import numpy as np
import pytest
from worlds.sparse import Sparse

from atoll.agent.codecs import CODECS, Codec
from atoll.agent.pieces import (
    PIECE_ROW_BYTES,
    FalsePieces,
    Pieces,
    check_piece,
    check_table,
    piece_row,
    piece_rows,
    piece_sizes,
    slots_bytes,
)
from atoll.swarm.layout import BLOCK, Layout, TensorSpec

# Two pieces: 4 blocks, then 2.
LAYOUT = Layout((TensorSpec("a", (5, BLOCK)), TensorSpec("b", (7,))), 4 * BLOCK, 4 * BLOCK)
SPARSE = Sparse()
ALL = range(LAYOUT.num_pieces)


def pieces_of(codec: Codec) -> Pieces:
    """Encoded pieces of which the first has three values that are not zero, and the second none."""
    pieces = Pieces(LAYOUT, codec, np.zeros(slots_bytes(LAYOUT, codec), np.uint8))
    values = np.zeros(LAYOUT.num_elements, np.float32)
    values[[1, 5, 4000]] = 7
    for index in ALL:
        pieces.seal(index, codec.encode(values[LAYOUT.piece(index)], pieces.slot(index)))
    return pieces


@pytest.mark.parametrize("codec", [*CODECS.values(), SPARSE])
def test_slots_fill_a_file_without_gap_or_overlap_and_hold_the_largest_piece(codec) -> None:
    slots = np.zeros(slots_bytes(LAYOUT, codec), np.uint8)
    pieces = Pieces(LAYOUT, codec, slots)
    for index in ALL:
        where = LAYOUT.piece(index)
        assert len(pieces.slot(index)) == codec.max_bytes(where.stop - where.start)
        pieces.slot(index)[:] += 1
    assert (slots == 1).all()


def test_pieces_of_one_update_have_different_sizes() -> None:
    pieces = pieces_of(SPARSE)
    assert piece_sizes(pieces.table).tolist() == [24, 0]
    assert [len(pieces[index]) for index in ALL] == [24, 0]
    assert SPARSE.decode(np.frombuffer(pieces[0], np.uint8), 4 * BLOCK)[4000] == 7


def test_a_slice_has_the_rows_of_its_pieces() -> None:
    pieces = pieces_of(SPARSE)
    assert piece_rows(pieces.table, range(1, 2)) == piece_row(b"")
    assert piece_rows(pieces.table, ALL) == piece_row(pieces[0]) + piece_row(b"")


@pytest.mark.parametrize(
    "change", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: p[:-1] + b"x", lambda _: b""]
)
def test_a_piece_that_is_shorter_longer_or_other_than_its_row_says_is_refused(change) -> None:
    pieces = pieces_of(SPARSE)
    assert check_piece(pieces.table, 0, pieces[0])
    assert not check_piece(pieces.table, 0, change(bytes(pieces[0])))


def test_a_row_with_the_right_digest_and_a_wrong_size_names_no_piece() -> None:
    pieces = pieces_of(SPARSE)
    pieces.table[PIECE_ROW_BYTES - 4] += 1
    assert not check_piece(pieces.table, 0, bytes(pieces[0]))
    assert not check_piece(pieces.table, 0, bytes(pieces[0]) + b"\0")


def table(*sizes: int) -> bytes:
    return b"".join(bytes(32) + size.to_bytes(4, "little") for size in sizes)


def test_a_table_of_sizes_that_the_codec_can_give_is_taken() -> None:
    check_table(table(8 * 4 * BLOCK, 8 * 2 * BLOCK), LAYOUT, SPARSE, ALL)
    check_table(table(0), LAYOUT, SPARSE, range(1, 2))
    check_table(b"", LAYOUT, SPARSE, range(2, 2))
    for codec in CODECS.values():
        check_table(bytes(pieces_of(codec).table), LAYOUT, codec, ALL)


@pytest.mark.parametrize(
    ("false", "index", "codec"),
    [
        (table(8 * 4 * BLOCK + 1, 0), 0, SPARSE),
        (table(0, 8 * 2 * BLOCK + 1), 1, SPARSE),  # the last piece is smaller, and so is its bound
        (table(2**32 - 1, 0), 0, SPARSE),
        (table(4 * BLOCK + 16, 4 * BLOCK + 16), 1, CODECS["int8"]),
        (table(4 * BLOCK, 2 * BLOCK + 8), 0, CODECS["int8"]),
    ],
)
def test_a_table_with_a_size_that_the_codec_cannot_give_is_refused(false, index, codec) -> None:
    with pytest.raises(FalsePieces, match=f"piece {index} cannot be decoded: .* bytes, where") as refused:
        check_table(false, LAYOUT, codec, ALL)
    assert refused.value.index == index


@pytest.mark.parametrize("false", [b"", table(0), table(0, 0, 0), table(0, 0)[:-1]])
def test_a_table_of_another_length_is_refused(false) -> None:
    with pytest.raises(FalsePieces, match="its table has"):
        check_table(false, LAYOUT, SPARSE, ALL)
