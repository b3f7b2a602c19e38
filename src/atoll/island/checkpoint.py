"""The inner checkpoint: what an island needs, besides the outer state's weights, to go on bit-equal.

That is the optimizers' state and the inner step. The weights are not in it: between outer steps they are the outer
state, which the agent keeps. `DIRECTORY/inner-000000042/` holds torch.distributed.checkpoint's files and a manifest of
their BLAKE3; it appears whole or not at all, so a kill during a save never costs the previous one.
"""

import shutil
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from atoll.errors import UserError
from atoll.files import atomic_dir, digest_file, write_atomic
from atoll.island.step import Island

MANIFEST_NAME = "manifest.json"
PREFIX = "inner-"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: int
    digests: dict[str, str]  # file name -> BLAKE3, as hex


class InnerCheckpoints:
    """Saves an island's inner state under `directory` and keeps the newest `keep`."""

    def __init__(self, island: Island, directory: Path, keep: int) -> None:
        self._island = island
        self._directory = directory
        self._keep = keep

    def save(self, step: int) -> None:
        """Write the state after `step` inner steps. Raises UserError when the disk is full; nothing is left then."""
        path = self._directory / f"{PREFIX}{step:09}"
        for abandoned in (old for old in self._paths() if old.name >= path.name):
            shutil.rmtree(abandoned)  # of a branch that the run has rewound from: never to be restored
        with atomic_dir(path) as temporary, _plain_errors():
            save(self._state(), checkpoint_id=temporary, no_dist=True)
            digests = {file.name: digest_file(file) for file in sorted(temporary.iterdir())}
            write_atomic(temporary / MANIFEST_NAME, msgspec.json.encode(Manifest(step, digests)))
        for old in self._paths()[: -self._keep]:
            shutil.rmtree(old)

    def restore(self) -> int | None:
        """Load the newest checkpoint and return its inner step; None where there is none.

        Raises UserError naming the file if it is damaged.
        """
        paths = self._paths()
        if not paths:
            return None
        manifest = _verified(paths[-1])
        state = self._state()
        with _plain_errors():
            load(state, checkpoint_id=paths[-1], no_dist=True)
        set_optimizer_state_dict(self._island.model, self._island.optimizers, state["optimizers"])
        return manifest.step

    def _state(self) -> dict[str, Any]:
        return {"optimizers": get_optimizer_state_dict(self._island.model, self._island.optimizers)}

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob(f"{PREFIX}*"))


@contextmanager
def _plain_errors() -> Generator[None]:
    """torch.distributed.checkpoint without its warning that one process is one, and with Exceptions.

    Its own CheckpointException is a BaseException that hides the system's error, a full disk for one, in a chain.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except CheckpointException as error:
        cause: BaseException | None = error.failures[min(error.failures)][0]
        first = cause
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        raise cause or RuntimeError(str(first)) from error


def _verified(path: Path) -> Manifest:
    """The manifest of the checkpoint at `path`, every file of which has the digest it names."""
    remedy = f"delete {path} to go on from the checkpoint before it, or with fresh moments"
    try:
        manifest = msgspec.json.decode((path / MANIFEST_NAME).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path / MANIFEST_NAME}: missing or damaged; {remedy}") from error
    for name, digest in manifest.digests.items():
        file = path / name
        if not file.is_file() or digest_file(file) != digest:
            raise UserError(f"{file}: missing or damaged (its checksum is not the manifest's); {remedy}")
    return manifest
