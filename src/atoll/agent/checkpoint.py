"""Outer checkpoints: an outer state as one safetensors file, whole or absent. State 0 is one too."""

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from atoll.agent.arrays import Floats
from atoll.agent.state import chunk_row
from atoll.errors import UserError
from atoll.files import atomic_path, open_to_readers
from atoll.swarm.layout import Layout, root

MAX_HEADER_BYTES = 64 << 20


class _Tensor(msgspec.Struct, frozen=True):
    dtype: Literal["F32"]
    shape: tuple[int]
    data_offsets: tuple[int, int]  # after the header


class _Header(msgspec.Struct, frozen=True):
    """The JSON at the head of a safetensors file. `safetensors` itself would copy the tensors."""

    facts: dict[str, str] = msgspec.field(name="__metadata__")
    parameters: _Tensor
    momentum: _Tensor | None = None


class OuterCheckpoint:
    """A state on disk, mapped. `momentum` is None for a state 0, where it is all zeros."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a file that is truncated or no outer checkpoint; `verify` checks its bytes."""
        try:
            header, start = _read_header(path)
            self.step = int(header.facts["step"])
            self.root = bytes.fromhex(header.facts["root"])
            self.layout = msgspec.json.decode(header.facts["layout"], type=Layout)
            self.parameters = _map(path, header.parameters, start, self.layout)
            self.momentum = (
                _map(path, header.momentum, start, self.layout) if header.momentum is not None else None
            )
        except (OSError, KeyError, ValueError, OverflowError, msgspec.DecodeError) as error:
            raise UserError(
                f"{path}: a damaged outer checkpoint ({error}); delete it, an older one or a peer will do"
            ) from error
        self.path = path

    def chunk(self, index: int) -> bytes:
        """Parameters, then momentum, of one chunk."""
        parameters, momentum = self._values(index)
        return parameters.tobytes() + momentum.tobytes()

    def table(self) -> bytes:
        return b"".join(chunk_row(*self._values(index)) for index in range(self.layout.num_chunks))

    def verify(self) -> None:
        """Raises UserError when the bytes are not those of the root that the file names."""
        if root(self.table()) != self.root:
            raise UserError(
                f"{self.path}: checksum failed, the file is damaged; delete it, an older one or a "
                "peer will do"
            )

    def _values(self, index: int) -> tuple[Floats, Floats]:
        elements = self.layout.chunk(index)
        parameters = self.parameters[elements]
        return parameters, np.zeros_like(parameters) if self.momentum is None else self.momentum[elements]


def _read_header(path: Path) -> tuple[_Header, int]:
    """The header, and where the data begins. Raises ValueError."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return msgspec.json.decode(file.read(size), type=_Header), 8 + size


def _map(path: Path, tensor: _Tensor, start: int, layout: Layout) -> Floats:
    """The tensor where it lies on disk, not read yet. Raises ValueError when the file is too short."""
    first, end = tensor.data_offsets
    if tensor.shape != (layout.num_elements,) or first < 0 or end - first != 4 * layout.num_elements:
        raise ValueError("its tensors are not those of its layout")
    return np.memmap(path, np.float32, "r", start + first, tensor.shape)


def save(
    directory: Path, layout: Layout, step: int, state_root: bytes, parameters: Floats, momentum: Floats | None
) -> Path:
    """Write the checkpoint of one state, durably. Raises UserError when the disk is full."""
    path = directory / f"{step:08d}.safetensors"
    tensors = {"parameters": parameters} | ({} if momentum is None else {"momentum": momentum})
    facts = {"step": str(step), "root": state_root.hex(), "layout": msgspec.json.encode(layout).decode()}
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), facts)
        open_to_readers(temporary)
    return path


def flat_root(layout: Layout, parameters: Floats) -> bytes:
    """The root of a state 0 with these parameters [num_elements]."""
    rows: list[bytes] = []
    for index in range(layout.num_chunks):
        values = parameters[layout.chunk(index)]
        rows.append(chunk_row(values, np.zeros_like(values)))
    return root(b"".join(rows))


def newest(directories: list[Path]) -> list[OuterCheckpoint]:
    """All readable outer checkpoints of some directories, the newest first; damaged ones are passed over."""
    found: list[OuterCheckpoint] = []
    for path in (p for directory in directories for p in directory.glob("*.safetensors")):
        try:
            found.append(OuterCheckpoint(path))
        except UserError:
            continue
    return sorted(found, key=lambda checkpoint: -checkpoint.step)


def drop_after(directory: Path, step: int) -> None:
    """Delete those of later states: a rewind has abandoned them."""
    for path in directory.glob("*.safetensors"):
        if int(path.stem) > step:
            path.unlink()


def keep_newest(directory: Path, count: int) -> int:
    """Delete all but the newest `count`; the step of the oldest that is left."""
    paths = sorted(directory.glob("*.safetensors"))
    for path in paths[:-count]:
        path.unlink()
    return int(paths[-count:][0].stem) if paths else 0
