"""Outer checkpoints: the outer state as one safetensors file, whole or absent. State 0 is one too, made by `prepare`."""

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType]

from atoll.agent.codec import Floats
from atoll.agent.state import as_bytes
from atoll.errors import UserError
from atoll.files import atomic_path
from atoll.swarm.layout import Layout, digest, root


class OuterCheckpoint:
    """A state on disk, mapped. `momentum` is None for a state 0, where it is all zeros."""

    def __init__(self, path: Path) -> None:
        """Raises UserError when the file is truncated or not an outer checkpoint; `verify` checks its bytes."""
        try:
            with cast(Any, safe_open(str(path), framework="numpy")) as file:
                facts: dict[str, str] = file.metadata() or {}
                self.step = int(facts["step"])
                self.root = bytes.fromhex(facts["root"])
                self.layout = msgspec.convert(json.loads(facts["layout"]), Layout)
                self.parameters: Floats = file.get_tensor("parameters")
                self.momentum: Floats | None = file.get_tensor("momentum") if "momentum" in file.keys() else None  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: a damaged outer checkpoint ({error}); delete it, an older one or a peer will do"
            ) from error
        self.path = path

    def chunk(self, index: int) -> bytes:
        """Parameters, then momentum, of one chunk."""
        elements = self.layout.chunk(index)
        parameters = self.parameters[elements]
        momentum = np.zeros_like(parameters) if self.momentum is None else self.momentum[elements]
        return parameters.tobytes() + momentum.tobytes()

    def table(self) -> bytes:
        rows: list[bytes] = []
        for index in range(self.layout.num_chunks):
            data = memoryview(self.chunk(index))
            half = len(data) // 2
            rows.append(digest(data[:half]) + digest(data[half:]))
        return b"".join(rows)

    def verify(self) -> None:
        """Raises UserError when the bytes are not those of the root that the file names."""
        if root(self.table()) != self.root:
            raise UserError(f"{self.path}: checksum failed, the file is damaged; delete it, an older one or a peer will do")


def save(directory: Path, layout: Layout, step: int, state_root: bytes, parameters: Floats, momentum: Floats | None) -> Path:
    """Write the checkpoint of one state, durably. Raises UserError when the disk is full."""
    path = directory / f"{step:08d}.safetensors"
    tensors = {"parameters": parameters} | ({} if momentum is None else {"momentum": momentum})
    facts = {"step": str(step), "root": state_root.hex(), "layout": msgspec.json.encode(layout).decode()}
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), facts)
    return path


def flat_root(layout: Layout, parameters: Floats) -> bytes:
    """The root of a state 0 with these parameters [num_elements]."""
    rows: list[bytes] = []
    for index in range(layout.num_chunks):
        values = parameters[layout.chunk(index)]
        rows.append(digest(as_bytes(values)) + digest(as_bytes(np.zeros_like(values))))
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


def keep_newest(directory: Path, count: int) -> int:
    """Delete all but the newest `count`; the step of the oldest that is left."""
    paths = sorted(directory.glob("*.safetensors"))
    for path in paths[:-count]:
        path.unlink()
    return int(paths[-count:][0].stem) if paths else 0
