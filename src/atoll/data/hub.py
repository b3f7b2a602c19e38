"""Hugging Face datasets: local folders laid out like them, and the hub itself. The one file that imports
`datasets`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atoll.data.rows import JSONL, Item, Origin, item
from atoll.errors import UserError
from atoll.recipe import Source

SUFFIXES = (*JSONL, ".parquet")
SPLITS = {"train", "test", "validation", "valid", "dev", "eval"}


def local_files(folder: Path, source: Source) -> list[Path]:
    """The files of one split in a local folder, by path; none where nothing fits.

    A split's files have its name as a word of their path, as in `main/train-00000.parquet`; where no file
    names any split, all are `train`. Raises UserError where `data_files` is no pattern of relative paths.
    """
    if source.data_files is not None:
        try:
            return sorted(path for path in folder.glob(source.data_files) if path.name.endswith(SUFFIXES))
        except (ValueError, NotImplementedError) as error:
            raise UserError(
                f"{folder}: data_files = {source.data_files!r} is no pattern of paths in this folder: {error}"
            ) from error
    folder = folder / (source.config or "")
    words = {
        path: set(re.findall("[a-z]+", path.relative_to(folder).as_posix().lower()))
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(SUFFIXES)
    }
    if source.split == "train" and not any(SPLITS & found for found in words.values()):
        return list(words)
    return [path for path, found in words.items() if source.split in found]


def stream(name: str, source: Source, skip: int) -> Iterator[Item]:
    """The rows of a dataset of the hub from row `skip` on, read as they come. Raises UserError when that
    fails.
    """
    if source.revision is None:
        raise UserError(
            f"sources.{name}: there is no folder {source.dataset}; to read it from the hub, give a revision "
            "(a commit, so that every machine reads the same)"
        )
    import datasets  # here, as it takes seconds

    try:
        rows: Any = datasets.load_dataset(
            str(source.dataset),
            source.config,
            split=source.split,
            revision=source.revision,
            data_files=source.data_files,
            streaming=True,
        )
        if skip:
            rows = rows.skip(skip)
        for number, row in enumerate(rows, skip + 1):
            yield item(row, source, Origin(f"{source.dataset}@{source.revision}", number))
    except UserError:
        raise
    except Exception as error:  # the library raises its own, those of six network libraries, and ValueError
        raise UserError(
            f"sources.{name}: {source.dataset}@{source.revision}: {type(error).__name__}: {error}"
        ) from error
