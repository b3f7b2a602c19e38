"""The tensors of an export as they lie in its safetensors files, mapped; found as `transformers` finds them.

Neither torch nor the safetensors library is needed: a proof must be checked on the bytes, and by anybody.
"""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from atoll.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 << 20
BYTES_OF = {"F32": 4, "BF16": 2}


class StoredTensor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tensor lies."""

    path: Path
    dtype: str  # in the words of safetensors: F32, BF16, ...
    shape: tuple[int, ...]
    first: int  # byte in the file
    end: int

    def bits(self) -> npt.NDArray[Any]:
        """The values' bits, flat: uint32 of F32, uint16 of BF16."""
        return np.memmap(self.path, f"<u{BYTES_OF[self.dtype]}", "r", self.first, (math.prod(self.shape),))


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """The tensors in the files that `from_pretrained` loads from a directory, by name.

    Raises UserError where there are none, or a file is damaged.
    """
    if (directory / WEIGHTS).exists():
        return _tensors_of(directory / WEIGHTS)
    index = directory / INDEX
    try:
        places = msgspec.json.decode(index.read_bytes(), type=dict[str, Any])["weight_map"]
        places = msgspec.convert(places, dict[str, str])
    except FileNotFoundError as error:
        raise UserError(f"{directory}: no {WEIGHTS} here, so no exported model") from error
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{index}: damaged; copy the export again") from error
    if wrong := [name for name in places.values() if Path(name).name != name]:
        raise UserError(f"{index}: names {wrong[0]!r}, which is not in this directory")
    files = {name: _tensors_of(directory / name) for name in sorted(set(places.values()))}
    found = {name: files[file].get(name) for name, file in places.items()}
    if missing := [name for name, tensor in found.items() if tensor is None]:
        raise UserError(f"{directory / places[missing[0]]}: has no {missing[0]}, which {INDEX} says it has")
    return {name: tensor for name, tensor in found.items() if tensor is not None}


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _tensors_of(path: Path) -> dict[str, StoredTensor]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = msgspec.json.decode(file.read(size), type=dict[str, Any])
        header.pop("__metadata__", None)
        entries = msgspec.convert(header, dict[str, _Entry])
        room = path.stat().st_size - 8 - size
        for name, entry in entries.items():
            first, end = entry.data_offsets
            num_bytes = math.prod(entry.shape) * BYTES_OF.get(entry.dtype, 0)
            if min(entry.shape, default=0) < 0 or not 0 <= first <= end <= room:
                raise ValueError(f"{name} lies outside of it")
            if entry.dtype in BYTES_OF and end - first != num_bytes:
                raise ValueError(f"{name} has {end - first} bytes, where its shape needs {num_bytes}")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; copy the export again") from error
    except (ValueError, OverflowError) as error:  # msgspec's errors are ValueErrors
        raise UserError(f"{path}: damaged ({error}); copy the export again") from error
    return {
        name: StoredTensor(
            path=path,
            dtype=entry.dtype,
            shape=entry.shape,
            first=8 + size + entry.data_offsets[0],
            end=8 + size + entry.data_offsets[1],
        )
        for name, entry in entries.items()
    }
