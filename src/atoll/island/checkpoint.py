"""Inner checkpoints: what an island needs, besides the outer state's weights, to continue bit-equal.

That is the optimizers' state and the inner step. The weights are not in it: between outer steps they are the
outer state, which the agent keeps. `DIRECTORY/inner-000000042/` holds torch.distributed.checkpoint's files
and a manifest of their BLAKE3. It appears whole or not at all, so a kill during a save never costs the
previous one.

Training only waits until the state is copied in memory. A thread writes the copy to the disk, and then to
`island.checkpoint_to`.
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
from atoll.files import atomic_dir, digest_file, remove_leftovers, write_atomic
from atoll.island.ranks import Ranks
from atoll.island.remote import RemoteCopies
from atoll.island.step import Island

MANIFEST_NAME = "manifest.json"
PREFIX = "inner-"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a checkpoint's `manifest.json`."""

    step: int  # inner steps done
    digests: dict[str, str]  # file name -> BLAKE3, as hex


class InnerCheckpoints:
    """Saves an island's inner state under rank 0's `directory`, and keeps the newest `keep` checkpoints.

    A context manager: leaving it waits for the save under way. All ranks call every method.
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
        """`to`: a folder or URL for copies, or ""; `say` hears of copies that fail.

        Raises UserError when `to` cannot be opened.
        """
        self._island = island
        self._directory = directory
        self._keep = keep
        self._remote = RemoteCopies(to, PREFIX, MANIFEST_NAME, say) if to else None  # only rank 0 uses it
        self._ranks = ranks.another()  # for the writing thread
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future[None] | None = None
        # The optimizers' own tensors, which every step changes in place. Collected once, since naming them
        # takes as long as copying them. The learning rates in it go stale, which is harmless: every step sets
        # them anew.
        self._live: dict[str, Any] | None = None
        # Copies into the same memory every time: a copy into fresh pages takes three times as long.
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
        """Begin to save the state after `step` inner steps; training may change it as soon as this returns.

        Waits for the save before it. Raises UserError when that one found the disk full; it left no file.
        """
        self.wait()
        if self._live is None:
            self._live = self._state()
            # For other devices the stager allocates its own, pinned memory.
            if next(self._island.model.parameters()).device.type == "cpu":
                self._stager.state_dict_cache = BlockingAsyncStager().stage(self._live)
        staged = self._stager.stage(self._live)
        self._saving = self._thread.submit(self._write, step, staged)

    def wait(self) -> None:
        """Wait until the save under way, if any, is durable. Raises UserError when it found the disk full."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def restore(self) -> int | None:
        """Load the newest checkpoint and return its inner step, or None where there is none.

        Without a checkpoint on this machine it loads the newest remote copy. Removes what a kill left half
        written. Raises UserError, naming the file, when the checkpoint is damaged.
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
            if self._ranks.number == 0:  # all ranks have written their files when `save` returns
                digests = {file.name: digest_file(file) for file in sorted(temporary.iterdir())}
                write_atomic(temporary / MANIFEST_NAME, msgspec.json.encode(Manifest(step, digests)))
        if self._ranks.number == 0:
            for old in self._paths()[: -self._keep]:
                shutil.rmtree(old)
            if self._remote is not None:
                self._remote.put(self._directory / f"{PREFIX}{step:09}", self._keep)

    @contextmanager
    def _appearing(self, path: Path) -> Generator[Path]:
        """Yield a temporary directory that all ranks write to; rank 0 then renames it to `path`."""
        if self._ranks.number > 0:
            yield self._ranks.first(lambda: path)
            return
        # Checkpoints of this step or later are of a branch that a rewind of the run has abandoned.
        for abandoned in (old for old in self._paths() if old.name >= path.name):
            shutil.rmtree(abandoned)
        with atomic_dir(path) as temporary:
            yield self._ranks.first(lambda: temporary)

    def _newest(self) -> tuple[Path, int] | None:
        if self._directory.exists():
            remove_leftovers(self._directory)
        if self._remote is not None and not self._paths():
            self._remote.fetch_newest(self._directory)
        paths = self._paths()
        return (paths[-1], _verified(paths[-1]).step) if paths else None

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob(f"{PREFIX}*"))


@contextmanager
def _plain_errors() -> Generator[None]:
    """Raise the OSError, or else the RuntimeError, behind a CheckpointException of torch.

    A CheckpointException is a BaseException, and hides the system's error, such as a full disk, in a chain.
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
    """The manifest of the checkpoint at `path`, once every file has been found to have its digest.

    Raises UserError, naming the file, when one is missing or damaged.
    """
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
