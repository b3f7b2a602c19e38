"""The files that an agent and its trainer both map, and the trainer's view of them.

Of its agent's other files a trainer needs only the membership. The agent writes parameters and momentum, and
keeps the generation odd while it does. The trainer writes the local parameters: what its inner steps made.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from atoll.files import DISK, reserve
from atoll.swarm.layout import Layout, digest, root, row

PARAMETERS, MOMENTUM, LOCAL, GENERATION = "parameters.f32", "momentum.f32", "local.f32", "generation.u64"
RETRY_SECONDS = 0.001  # an apply of one chunk takes about as long

Floats = npt.NDArray[np.float32]
T = TypeVar("T")


class First(Protocol):
    """Gives every rank of an island what `compute` gives on the first; other ranks wait for that."""

    def __call__(self, compute: Callable[[], T]) -> T: ...


def alone(compute: Callable[[], T]) -> T:
    """The `First` of an island of one rank."""
    return compute()


class OuterMapping:
    """The files in an island's directory, as its trainer uses them. Arrays are flat, fp32 [num_elements]."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Map the files of the island in `directory`. Raises UserError when the disk is full."""
        state = directory / "state"
        self.layout = layout
        self.local = map_file(state / LOCAL, layout.num_elements)
        self._outer = map_file(state / PARAMETERS, layout.num_elements)
        self._generation = map_generation(state)

    def read(
        self, copy: Callable[[Floats], None], agent_alive: Callable[[], bool], first: First = alone
    ) -> bool:
        """Have `copy` take what it needs of the outer parameters; whether all that it took is of one state.

        It is called again while the agent changes them. False means that the agent died in the middle of a
        change, which then nobody ends. The next agent mends the state, finds that it is not what this trainer
        loaded, and orders the adoption again.

        With several ranks, the first one's readings of the generation count for all (`first`), and `copy`
        must return on no rank before all have copied.
        """
        while True:
            before = first(self._current_generation)
            copy(self._outer)
            whole, over = first(partial(self._verdict, before, agent_alive))
            if over:
                return whole
            time.sleep(RETRY_SECONDS)

    def proof(self, table: bytes) -> bytes:
        """The root of a state whose momentum is as in `table`, and whose parameters are those in `local`."""
        return loaded_root(self.layout, table, self.local)

    def _current_generation(self) -> int:
        return int(self._generation[0])

    def _verdict(self, before: int, agent_alive: Callable[[], bool]) -> tuple[bool, bool]:
        """(whether nothing has changed since generation `before`, whether to leave it at that)."""
        whole = before % 2 == 0 and self._current_generation() == before
        return whole, whole or not agent_alive()


def loaded_root(layout: Layout, table: bytes, parameters: Floats) -> bytes:
    """The root of a state with these `parameters` [num_elements], and with its momentum as in `table`."""
    rows: list[bytes] = []
    for chunk in range(layout.num_chunks):
        momentum_digest = row(table, 2 * chunk + 1)
        rows.append(digest(as_bytes(parameters[layout.chunk(chunk)])) + momentum_digest)
    return root(b"".join(rows))


def map_file(path: Path, num_elements: int) -> Floats:
    """A writable mapping of `num_elements` fp32.

    Its space is reserved first: writing to a mapping on a full disk would kill the process.
    """
    reserve(path, 4 * num_elements)
    return np.memmap(path, np.float32, "r+", shape=(num_elements,))


def sync_mapped(array: np.memmap[tuple[int, ...], np.dtype[Any]]) -> None:
    """Make what was written to a mapped file survive a power cut. The file must still have its name."""
    array.flush()
    assert array.filename is not None
    DISK.get().sync(Path(array.filename))


def map_generation(directory: Path) -> npt.NDArray[np.uint64]:
    """A writable mapping of the generation in `directory`: one number, odd while the parameters change."""
    reserve(directory / GENERATION, 8)
    return np.memmap(directory / GENERATION, np.uint64, "r+", shape=(1,))


def as_bytes(values: npt.NDArray[np.generic]) -> memoryview:
    """The bytes of an array's values, without a copy where they are contiguous."""
    return np.ascontiguousarray(values).view(np.uint8).data
