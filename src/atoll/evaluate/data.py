"""Where the data of tasks is: a folder that is laid out like the hub, or the hub itself.

A data set `REPO/NAME` lies in such a folder as `REPO/NAME/`: a README.md whose metadata name the files, and
the files. lm-eval's tasks find it there unedited, because `datasets` prefers a local folder of that name.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from atoll.errors import UserError
from atoll.files import digest_file
from atoll.given import named

HUB = "hub"  # in place of a digest
READERS = {
    "json",
    "csv",
    "parquet",
    "text",
    "arrow",
    "webdataset",
}  # formats of `datasets`, which are no sets


class DataSets:
    """The data sets of a folder, or those of the hub."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder the hub is asked for what does not lie in the current one.

        With one nothing is asked for over the network from now on. Raises UserError where it does not exist.
        """
        self._only_here = folder is not None
        if folder is not None:
            if not folder.is_dir():
                raise UserError(f"--data {named(folder)}: no such folder")
            os.environ["HF_HUB_OFFLINE"] = "1"  # both are read when `datasets` is imported
            os.environ["HF_DATASETS_OFFLINE"] = "1"
        self.folder = (folder or Path.cwd()).absolute()
        self._digests: dict[str, str] = {}

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of the data sets that are known to be nowhere, sorted; what the hub has is not known."""
        if not self._only_here:
            return []
        return sorted(name for name in names if name not in READERS and not (self.folder / name).is_dir())

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """By name: the BLAKE3, in hex, over names and bytes of all files of a data set; "hub" for others."""
        return {name: self._digest(name) for name in sorted(names)}

    def _digest(self, name: str) -> str:
        folder = self.folder / name
        if not folder.is_dir():
            return HUB
        if name not in self._digests:
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            lines = (f"{path.relative_to(folder)} {digest_file(path)}\n" for path in paths)
            self._digests[name] = blake3("".join(lines).encode()).hexdigest()
        return self._digests[name]
