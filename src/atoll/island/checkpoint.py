"""The inner checkpoint: what an island needs, besides the outer state's weights, to go on bit-equal.

That is the optimizers' state and the inner step. The weights are not in it: between outer steps they are the
outer state, which the agent keeps. `DIRECTORY/inner-000000042/` holds torch.distributed.checkpoint's files
and a manifest of their BLAKE3; it appears whole or not at all, so a kill during a save never costs the
previous one.

Training waits for a copy in memory; a thread writes it, and copies it on to where `island.checkpoint_to`
says.
"""

import shutil
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from atoll.errors import UserError
from atoll.files import atomic_dir, digest_file, sweep, write_atomic
from atoll.island.ranks import Ranks
from atoll.island.remote import Remote
from atoll.island.step import Island

MANIFEST_NAME = "manifest.json"
PREFIX = "inner-"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: int
    digests: dict[str, str]  # file name -> BLAKE3, as hex


class InnerCheckpoints:
    """Saves an island's inner state under `directory`, which is rank 0's to choose, and keeps the newest
    `keep`.

    A context: leaving it waits for the save under way. All ranks call everything.
    """

    def __init__(
        self,
        island: Island,
        directory: Path,
        keep: int,
        ranks: Ranks,
        to: str = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Copies go to the folder or URL `to`, if any; `say` hears of those that fail. Raises UserError for a
        bad one.
        """
        self._island = island
        self._directory = directory
        self._keep = keep
        self._remote = Remote(to, PREFIX, MANIFEST_NAME, say) if to else None  # rank 0 uses it
        self._ranks = ranks.another()  # the writing thread's
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None
        # The state itself, which steps change in place; taken once, since finding its names costs as much as
        # a copy. The learning rates in it go stale: they are functions of the step, and every step sets them.
        self._live: dict[str, Any] | None = None
        # Copies into the same memory every time: fresh pages would cost three times the copy itself.
        self._stager = BlockingAsyncStager(cache_staged_state_dict=True)

    def __enter__(self) -> "InnerCheckpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()

    def save(self, step: int) -> None:
        """Begin to save the state after `step` inner steps; returns as soon as training may change it again.

        Waits for the save before. Raises UserError when that one found the disk full; it left nothing behind.
        """
        self.wait()
        if self._live is None:
            self._live = self._state()
            if (
                next(self._island.model.parameters()).device.type == "cpu"
            ):  # elsewhere the stager makes its own memory, pinned
                self._stager.state_dict_cache = BlockingAsyncStager().stage(self._live)
        staged = self._stager.stage(self._live)
        self._saving = self._thread.submit(self._write, step, staged)

    def wait(self) -> None:
        """Until the save under way, if any, is durable. Raises UserError when it found the disk full."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def restore(self) -> int | None:
        """Load the newest checkpoint and return its inner step; None where there is none, here nor in the
        remote.

        Sweeps what a kill left half-written. Raises UserError naming the file if it is damaged.
        """
        found = self._ranks.first(self._newest)
        if found is None:
            return None
        path, step = found
        state = self._state()
        with _plain_errors():
            load(state, checkpoint_id=path, process_group=self._ranks.group)
        self._live = None
        set_optimizer_state_dict(self._island.model, self._island.optimizers, state["optimizers"])
        return step

    def _state(self) -> dict[str, Any]:
        return {"optimizers": get_optimizer_state_dict(self._island.model, self._island.optimizers)}

    def _write(self, step: int, state: dict[str, Any]) -> None:
        with self._appearing(self._directory / f"{PREFIX}{step:09}") as temporary, _plain_errors():
            save(state, checkpoint_id=temporary, process_group=self._ranks.group)
            if self._ranks.number == 0:  # and by now all ranks have written
                digests = {file.name: digest_file(file) for file in sorted(temporary.iterdir())}
                write_atomic(temporary / MANIFEST_NAME, msgspec.json.encode(Manifest(step, digests)))
        if self._ranks.number == 0:
            for old in self._paths()[: -self._keep]:
                shutil.rmtree(old)
            if self._remote is not None:
                self._remote.put(self._directory / f"{PREFIX}{step:09}", self._keep)

    @contextmanager
    def _appearing(self, path: Path) -> Generator[Path]:
        """The directory for all ranks to write to; rank 0 makes it appear at `path`."""
        if self._ranks.number > 0:
            yield self._ranks.first(lambda: path)
            return
        for abandoned in (old for old in self._paths() if old.name >= path.name):
            shutil.rmtree(abandoned)  # of a branch that the run has rewound from: never to be restored
        with atomic_dir(path) as temporary:
            yield self._ranks.first(lambda: temporary)

    def _newest(self) -> tuple[Path, int] | None:
        if self._directory.exists():
            sweep(self._directory)
        if self._remote is not None and not self._paths():
            self._remote.fetch_newest(self._directory)
        paths = self._paths()
        return (paths[-1], _verified(paths[-1]).step) if paths else None

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob(f"{PREFIX}*"))


@contextmanager
def _plain_errors() -> Generator[None]:
    """torch.distributed.checkpoint with Exceptions.

    Its own CheckpointException is a BaseException that hides the system's error, a full disk for one, in a
    chain.
    """
    try:
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
