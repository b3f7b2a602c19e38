"""Copies of inner checkpoints beyond this machine, in a folder of any file system that fsspec knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.errors import UserError
from atoll.files import atomic_dir


class RemoteCopies:
    """The copies of one island's checkpoints in a folder: directories whose names begin with `prefix`.

    An object store cannot rename, so a copy counts as complete once it holds the file `marker`, which is
    written last and removed first.
    """

    def __init__(self, url: str, prefix: str, marker: str, say: Callable[[str], None]) -> None:
        """Open the folder `url`; `say` hears of failed copies. Raises UserError if fsspec cannot open it."""
        import fsspec

        try:
            found: tuple[Any, str] = fsspec.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            raise UserError(f"island.checkpoint_to: {url} cannot be opened: {error}") from error
        self._files, self._root = found
        self._url, self._prefix, self._marker, self._say = url, prefix, marker, say

    def put(self, path: Path, keep: int) -> None:
        """Copy the directory `path`; keep beside it only the `keep` - 1 complete copies before it, by name.

        Never raises: a failure is told through `say`, and the next copy tries again, since training does not
        depend on the copies.
        """
        try:
            earlier = [name for name in self._complete() if name < path.name]
            self._remove([name for name in self._all() if name not in earlier])
            target = f"{self._root}/{path.name}"
            self._files.makedirs(target, exist_ok=True)
            for file in sorted(path.iterdir(), key=lambda file: file.name == self._marker):
                self._files.put_file(str(file), f"{target}/{file.name}")
            self._remove([*earlier, path.name][:-keep])
        except Exception as error:  # each file system raises its own
            self._say(
                f"{self._url}: {path.name} could not be copied there ({error}); it is kept on this machine, "
                "and the next one will be tried"
            )

    def fetch_newest(self, directory: Path) -> None:
        """Copy the complete copy whose name comes last into `directory`; does nothing if there is none.

        Raises UserError if that fails.
        """
        try:
            for name in self._complete()[-1:]:
                with atomic_dir(directory / name) as temporary:
                    for file in self._files.ls(f"{self._root}/{name}", detail=False):
                        self._files.get_file(file, str(temporary / Path(file).name))
        except Exception as error:
            raise UserError(f"island.checkpoint_to: {self._url} could not be read: {error}") from error

    def _complete(self) -> list[str]:
        return [name for name in self._all() if self._files.exists(f"{self._root}/{name}/{self._marker}")]

    def _all(self) -> list[str]:
        """The names of all copies, sorted; whatever else lies in the folder is left alone."""
        self._files.invalidate_cache()
        if not self._files.exists(self._root):
            return []
        names = sorted(Path(path).name for path in self._files.ls(self._root, detail=False))
        return [name for name in names if name.startswith(self._prefix)]

    def _remove(self, names: list[str]) -> None:
        for name in names:
            marker = f"{self._root}/{name}/{self._marker}"
            if self._files.exists(marker):
                self._files.rm_file(marker)  # first, so that a copy half removed does not count as complete
            self._files.rm(f"{self._root}/{name}", recursive=True)
