"""Hugging Face datasets, from a local folder or streamed from the hub. Only this file imports `datasets`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atoll.data.rows import JSONL, Item, Origin, to_item
from atoll.errors import UserError
from atoll.recipe import Source

SUFFIXES = (*JSONL, ".parquet")
SPLITS = {"train", "test", "validation", "valid", "dev", "eval"}


def local_files(folder: Path, source: Source) -> list[Path]:
    """The files of the source's split in a local folder, sorted by path; empty where none fits.

    A file belongs to a split whose name is a word of its path, as in `main/train-00000.parquet`. Where no
    file names any split, all belong to `train`. Raises UserError where `data_files` is not a pattern of
    relative paths.
    """
    if source.data_files is not None:
        try:
            return sorted(path for path in folder.glob(source.data_files) if path.name.endswith(SUFFIXES))
        except (ValueError, NotImplementedError) as error:
            raise UserError(
                f"{folder}: data_files = {source.data_files!r} is not a pattern of paths in it: {error}"
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
    """Yield the rows of a dataset on the hub, streamed, after the first `skip`.

    `name` is the source's name in the recipe. Raises UserError where there is no revision or reading fails.
    """
    if source.revision is None:
        raise UserError(
            f"sources.{name}: there is no folder {source.dataset}; to read it from the hub, give a revision "
            "(a commit, so that every machine reads the same)"
        )
    import datasets  # not at the top, because importing it takes seconds

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
            yield to_item(row, source, Origin(f"{source.dataset}@{source.revision}", number))
    except UserError:
        raise
    except Exception as error:  # its own types, those of several network libraries, and ValueError
        raise UserError(
            f"sources.{name}: {source.dataset}@{source.revision}: {type(error).__name__}: {error}"
        ) from error
