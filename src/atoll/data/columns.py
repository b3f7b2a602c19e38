"""Columns of a shard: what is known of its tokens or documents beside the tokens, each in a file of its own.

Which columns there are stands in the manifest, and their files are hashed by blocks like the tokens. A column
by token has an entry for every token of the shard, which is about *that* token: whether it is trained on, or
how a teacher predicted it. A column by document has one for every document, padding included.

`write_column` makes the file of one shard, whole or not at all, so that work that is interrupted goes on at
the first shard without one (`missing`). `add_columns` puts columns into the manifest once all files are
there; it gives the data another digest, so it must be done before a run is hosted.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from atoll.data.blocks import hash_blocks
from atoll.data.manifest import Column, Manifest, Shard
from atoll.errors import UserError
from atoll.files import atomic_path

Append = Callable[[np.ndarray], None]
TRAINED = Column(name="trained", per="token", dtype="|u1")


def shards(manifest: Manifest) -> Iterator[Shard]:
    """Yield every shard of the prepared data."""
    for source in manifest.sources.values():
        yield from (*source.train, *source.heldout)


def missing(data_dir: Path, manifest: Manifest, column: Column) -> list[Shard]:
    """The shards that have no file of the column, or one of another size."""

    def has(shard: Shard) -> bool:
        path = data_dir / shard.column(column.name)
        return path.exists() and path.stat().st_size == column.num_bytes(shard)

    return [shard for shard in shards(manifest) if not has(shard)]


@contextmanager
def write_column(data_dir: Path, shard: Shard, column: Column) -> Generator[Append]:
    """Around the writing of a column's file of one shard, which appears when the block is left.

    The block is given a function that adds the entries of the next tokens or documents: [n], or [n, width]
    where the width is not 1. An error in the block leaves nothing behind. Raises ValueError for entries of
    another shape or number, and UserError for a full disk.
    """
    path, entry = data_dir / shard.column(column.name), (column.width,) * (column.width > 1)
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:

            def append(values: np.ndarray) -> None:
                if values.shape[1:] != entry:
                    raise ValueError(f"{path}: entries of shape {values.shape[1:]}, not {entry}")
                file.write(np.ascontiguousarray(values, column.dtype).data)

            yield append
        if (num_bytes := temporary.stat().st_size) != column.num_bytes(shard):
            raise ValueError(f"{path}: {num_bytes} bytes were given, not {column.num_bytes(shard)}")


def add_columns(data_dir: Path, manifest: Manifest, added: Iterable[Column]) -> Manifest:
    """Put columns whose files are all there into the manifest on the disk; returns the new manifest.

    Columns of the same name are replaced. Raises UserError, naming the first file, where one is missing.
    """
    added = list(added)
    files = dict(manifest.files)
    for column in added:
        if lacking := missing(data_dir, manifest, column):
            raise UserError(
                f"{data_dir / lacking[0].column(column.name)}: missing, or of another size: the column "
                f"{column.name!r} is not complete"
            )
        for shard in shards(manifest):
            files[shard.column(column.name)] = hash_blocks(data_dir / shard.column(column.name))
    names = {column.name for column in added}
    kept = [column for column in manifest.columns if column.name not in names]
    changed = msgspec.structs.replace(manifest, columns=kept + added, files=files)
    changed.save(data_dir)
    return changed
