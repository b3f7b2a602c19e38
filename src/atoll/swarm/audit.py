"""What members measure of an update and of the payloads whose sum it must be, so that a false sum shows.

A measure is a row for each group of pieces: the group's elements, with random signs, added up in LANES lanes
(element i in lane i mod LANES). Signs are a function of a seed that nobody knows before the update is fixed.
Such sums are linear, so those of the payloads, weighted, must give that of the update, as far as encoding
rounds. The last number of a row bounds the squared error of encoding that may lie in one lane.
"""

import numpy as np
import numpy.typing as npt

from atoll.swarm.records import Slice

LANES = 8
ROW_BYTES = 4 * (LANES + 1)
GROUP_PIECES = 16  # of a group at least; a false piece is lost in the rounding of many more
MAX_GROUPS = 1 << 14
SEED_BYTES = 8

Rows = npt.NDArray[np.float32]  # [groups, LANES + 1]


def groups(slices: tuple[Slice, ...]) -> list[range]:
    """The pieces of each group. A group lies in one slice, so that what is false in it has one maker."""
    num_pieces = sum(part.num_pieces for part in slices)
    size = max(GROUP_PIECES, -(-num_pieces // max(1, MAX_GROUPS - len(slices))))
    return [part.pieces[start : start + size] for part in slices for start in range(0, part.num_pieces, size)]


def packed(rows: Rows) -> bytes:
    """A measure as it travels."""
    return rows.astype("<f4").tobytes()


def unpacked(measure: bytes, num_groups: int) -> Rows | None:
    """The rows of a measure; None if it is none of so many groups, or of no numbers."""
    if len(measure) != num_groups * ROW_BYTES:
        return None
    rows = np.frombuffer(measure, "<f4").reshape(num_groups, LANES + 1).astype(np.float32)
    noise = rows[:, LANES]  # infinite for a codec that may leave anything out
    return rows if np.isfinite(rows[:, :LANES]).all() and (noise >= 0).all() else None
