"""What encoding a payload left over, kept for the next payload; only some codecs need it
(`Codec.num_residuals`).

    residual-00000012-<payload>.f32    what the payload of step 12 left over
    residual.next                      the same of a payload in the making

A residual is a part of its outer step's transaction. It counts only if its payload was committed; if that was
not, the island's contribution is dropped, and what an earlier one left over still counts. The commit records
alone decide: the residual of an island is the file that is named after the newest record in which the island
takes part. So no crash can come between a commit and its residual, and a rewind takes back both. Where that
file is not here (the island began anew in another directory, or encoded the step again while its first
payload was committed), the residual is zero: to add an older one would be to add it twice.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atoll.agent.arrays import Floats
from atoll.agent.codecs import Codec
from atoll.agent.mapped import sync_mapped
from atoll.files import reserve
from atoll.swarm.layout import Layout
from atoll.swarm.records import CommitRecord

_NEXT = "residual.next"


def settled(directory: Path, island: str, records: Sequence[CommitRecord]) -> Path | None:
    """Where the island's residual lies, if it is here; None where no record of the log names the island."""
    for record in reversed(records):
        for share in record.participants:
            if share.island == island:
                return _path(directory, record.step, share.payload)
    return None


class NextResidual:
    """The residual of the payload that is being encoded, piece by piece."""

    def __init__(self, directory: Path, layout: Layout, codec: Codec, settled: Path | None) -> None:
        """Make the file, and delete every other one but `settled`. Raises UserError when the disk is full."""
        shape = (codec.num_residuals, layout.num_elements)
        num_bytes = 4 * shape[0] * shape[1]
        for path in directory.glob("residual-*.f32"):
            if path != settled:
                path.unlink()
        self._directory = directory
        self._settled: Floats | None = None
        if settled is not None and settled.exists() and settled.stat().st_size == num_bytes:
            self._settled = np.memmap(settled, np.float32, "r", shape=shape)
        reserve(directory / _NEXT, num_bytes)
        self._next = np.memmap(directory / _NEXT, np.float32, "r+", shape=shape)

    def piece(self, elements: slice) -> Floats:
        """The settled residual of a piece [num_residuals, n], which the codec changes in place."""
        piece = self._next[:, elements]
        piece[:] = 0 if self._settled is None else self._settled[:, elements]
        return piece

    def keep(self, step: int, payload: bytes) -> None:
        """Name the residual after its payload; keeping the proposal makes the name durable."""
        sync_mapped(self._next)
        (self._directory / _NEXT).replace(_path(self._directory, step, payload))


def _path(directory: Path, step: int, payload: bytes) -> Path:
    return directory / f"residual-{step:08d}-{payload[:8].hex()}.f32"
