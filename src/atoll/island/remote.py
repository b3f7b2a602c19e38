"""Inner checkpoints beyond this machine: copies in a folder of any file system that fsspec knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.errors import UserError
from atoll.files import atomic_dir


class Remote:
    """Copies in a folder, each a directory whose name begins with `prefix`; of one island alone.

    A copy is there once its file `marker` is, which is written last: there is no renaming in an object store.
    """

    def __init__(self, url: str, prefix: str, marker: str, say: Callable[[str], None]) -> None:
        """Raises UserError for a URL that fsspec cannot open. `say` is told of copies that failed."""
        import fsspec

        try:
            found: tuple[Any, str] = fsspec.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            raise UserError(f"island.checkpoint_to: {url} cannot be opened: {error}") from error
        self._files, self._root = found
        self._url, self._prefix, self._marker, self._say = url, prefix, marker, say

    def put(self, path: Path, keep: int) -> None:
        """Copy the directory `path`; of the others, only the `keep` - 1 before it in the alphabet stay.

        What fails is told, and left to the next copy: training does not depend on this.
        """
        try:
            whole = [name for name in self._names() if name < path.name]
            self._remove([name for name in self._names(whole=False) if name not in whole])
            target = f"{self._root}/{path.name}"
            self._files.makedirs(target, exist_ok=True)
            for file in sorted(path.iterdir(), key=lambda file: file.name == self._marker):
                self._files.put_file(str(file), f"{target}/{file.name}")
            self._remove([*whole, path.name][:-keep])
        except Exception as error:  # each file system has its own
            self._say(
                f"{self._url}: {path.name} could not be copied there ({error}); it is here, and the "
                "next one will be tried"
            )

    def fetch_newest(self, directory: Path) -> None:
        """Copy the last whole one in the alphabet into `directory`, if there is any. Raises UserError if that
        fails.
        """
        try:
            for name in self._names()[-1:]:
                with atomic_dir(directory / name) as temporary:
                    for file in self._files.ls(f"{self._root}/{name}", detail=False):
                        self._files.get_file(file, str(temporary / Path(file).name))
        except Exception as error:
            raise UserError(f"island.checkpoint_to: {self._url} could not be read: {error}") from error

    def _names(self, whole: bool = True) -> list[str]:
        self._files.invalidate_cache()
        if not self._files.exists(self._root):
            return []
        names = sorted(Path(path).name for path in self._files.ls(self._root, detail=False))
        names = [name for name in names if name.startswith(self._prefix)]  # others may keep other things here
        return [
            name for name in names if not whole or self._files.exists(f"{self._root}/{name}/{self._marker}")
        ]

    def _remove(self, names: list[str]) -> None:
        for name in names:
            marker = f"{self._root}/{name}/{self._marker}"
            if self._files.exists(marker):
                self._files.rm_file(marker)  # first: what is half removed is not whole
            self._files.rm(f"{self._root}/{name}", recursive=True)
