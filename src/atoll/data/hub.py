"""Hugging Face datasets, streamed from the hub. Only this file imports `datasets`."""

from collections.abc import Iterator
from typing import Any

from atoll.data.parquet import keeps
from atoll.data.rows import Item, Origin, to_item
from atoll.data.shapes import Shape
from atoll.errors import UserError
from atoll.recipe import Source


def stream(name: str, source: Source, shape: Shape, skip: int) -> Iterator[Item]:
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
        where = f"{source.dataset}@{source.revision}"
        features = getattr(rows, "features", None)  # None where the dataset does not tell its types
        kept = None
        if features is not None and source.keep.keys() <= features.keys():
            kept = keeps(features.arrow_schema, source, where)
        if skip:
            rows = rows.skip(skip)
        for number, row in enumerate(rows, skip + 1):
            yield to_item(row, source, shape, Origin(where, number), kept)
    except UserError:
        raise
    except Exception as error:  # its own types, those of several network libraries, and ValueError
        raise UserError(
            f"sources.{name}: {source.dataset}@{source.revision}: {type(error).__name__}: {error}"
        ) from error
