"""The files that an agent and its trainer both map. A trainer needs no other of its agent's files but the
membership.

The agent writes parameters and momentum, and makes the generation odd while it does; the trainer writes what
it hands over.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from atoll.files import reserve
from atoll.swarm.layout import Layout, digest, root, row

PARAMETERS, MOMENTUM, LOCAL, GENERATION = "parameters.f32", "momentum.f32", "local.f32", "generation.u64"


def loaded_root(layout: Layout, table: bytes, parameters: npt.NDArray[np.float32]) -> bytes:
    """The root of a state whose momentum is as in `table` and whose parameters are really these
    [num_elements].
    """
    rows: list[bytes] = []
    for chunk in range(layout.num_chunks):
        momentum_digest = row(table, 2 * chunk + 1)
        rows.append(digest(as_bytes(parameters[layout.chunk(chunk)])) + momentum_digest)
    return root(b"".join(rows))


def map_file(path: Path, num_elements: int) -> npt.NDArray[np.float32]:
    """A writable mapping of `num_elements` fp32; space is reserved first, since a full disk would kill a
    mapping.
    """
    reserve(path, 4 * num_elements)
    return np.memmap(path, np.float32, "r+", shape=(num_elements,))


def map_generation(directory: Path) -> npt.NDArray[np.uint64]:
    reserve(directory / GENERATION, 8)
    return np.memmap(directory / GENERATION, np.uint64, "r+", shape=(1,))


def as_bytes(values: npt.NDArray[np.float32]) -> memoryview:
    """The bytes of fp32 values, without a copy where they are contiguous."""
    return np.ascontiguousarray(values).view(np.uint8).data
