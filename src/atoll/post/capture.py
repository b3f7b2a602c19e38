"""`atoll capture`: what another model says of the prepared rows, as a column of the data.

The work is cut into ranges of windows, each of which becomes a file in the run's directory: so it goes on
where it was interrupted, and several processes or machines may share it (`Part`). Once all ranges are there
they become the column, and the manifest names it. What was captured for other rows, or of another model, is
refused.

Shapes: B windows of a range, L context length, D documents of a window, K entries.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from blake3 import blake3

from atoll.data.columns import add_columns, shards, write_column
from atoll.data.loader import NO_LABEL, Batch, Loader
from atoll.data.manifest import Column, Manifest, Shard, Split
from atoll.errors import UserError
from atoll.files import write_atomic
from atoll.run.directory import RunDir

WINDOWS_AT_ONCE = 32  # of a range: what an interruption costs, at most
SPLITS: tuple[Split, ...] = ("train", "heldout")
CLAIM_NAME = "capture.json"

Report = Callable[[int, int], None]  # ranges that are there, and all of this part


class Witness(Protocol):
    """Whoever says something of rows."""

    column: Column  # its `of` names the model, by a digest

    def values(self, batch: Batch) -> np.ndarray:
        """What it says of each label [B, L, K], or each document [B, D]. Raises UserError if it cannot."""
        ...


@dataclass(frozen=True)
class Part:
    """The ranges that one process does: those whose number is `number` - 1 modulo `count`."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """`2/4`: the second of four. Raises UserError for anything else."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(f"--part {text}: write it as 2/4, the second of four parts")
        return cls(int(number), int(count))


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Whose ranges lie in a directory."""

    rows: str  # digest of tokenizer, tokens, and what is trained on
    column: Column


class Range(NamedTuple):
    """Windows [first, stop) of a source's split, all in one shard."""

    shard: Shard
    source: str
    split: Split
    first: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.shard.tokens.replace('/', '-')}-{self.first:09}"


def capture(loader: Loader, run_dir: RunDir, witness: Witness, part: Part, report: Report) -> int:
    """Do the ranges of a part that are not there yet; returns how many ranges of other parts are missing.

    When none is, the column is in the manifest. Raises UserError for a run that is hosted already, and where
    what is there is of other rows or another model.
    """
    if (run_dir.coordinator / "ticket").exists():
        raise UserError(
            f"{run_dir.path}: this run is hosted already, and its data may not change; capture before "
            "that, or for a run in a new --dir"
        )
    directory = run_dir.path / "capture" / witness.column.name
    claim = Claim(rows=rows_digest(loader.manifest), column=witness.column)
    _check(directory, claim)
    every = list(ranges(loader.manifest))
    ours = every[part.number - 1 :: part.count]
    for done, wanted in enumerate(ours):
        report(done, len(ours))
        if not (directory / wanted.name).exists():
            batch = loader.windows(wanted.source, wanted.split, range(wanted.first, wanted.stop))
            values = _of_shard(witness, batch, witness.values(batch))
            # Only now: a teacher that says nothing, as behind a mistyped address, must not keep others out.
            _claim(directory, claim)
            write_atomic(directory / wanted.name, values.tobytes())
    report(len(ours), len(ours))
    missing = [wanted for wanted in every if not (directory / wanted.name).exists()]
    if not missing:
        _finish(run_dir.data, loader.manifest, witness.column, directory, every)
    return len(missing)


def rows_digest(manifest: Manifest) -> str:
    """What names the prepared rows: tokenizer, tokens, and what is trained on, but no captured column."""
    captured = {
        shard.column(column.name) for shard in shards(manifest) for column in manifest.columns if column.of
    }
    files = {path: blocks for path, blocks in sorted(manifest.files.items()) if path not in captured}
    return blake3(msgspec.json.encode(files)).hexdigest()


def ranges(manifest: Manifest) -> Iterator[Range]:
    """All windows of the prepared data, in the order of the shards."""
    assert manifest.window_tokens is not None
    for source, prepared in manifest.sources.items():
        for split in SPLITS:
            start = 0
            for shard in prepared.shards(split):
                end = start + shard.num_tokens // manifest.window_tokens
                for first in range(start, end, WINDOWS_AT_ONCE):
                    yield Range(shard, source, split, first, min(first + WINDOWS_AT_ONCE, end))
                start = end


def _check(directory: Path, claim: Claim) -> bool:
    """Whether the directory is claimed already. Raises UserError where it is so for another capture."""
    path = directory / CLAIM_NAME
    if not path.exists():
        return False
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Claim)
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: damaged ({error}); delete {directory}") from error
    if known != claim:
        what = "of other rows" if known.rows != claim.rows else "of another model, or in another form"
        raise UserError(f"{directory}: what was captured here is {what}; delete it to begin anew")
    return True


def _claim(directory: Path, claim: Claim) -> None:
    """Raises UserError as `_check` does: meanwhile another process may have begun."""
    if not _check(directory, claim):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / CLAIM_NAME, msgspec.json.encode(claim))


def _of_shard(witness: Witness, batch: Batch, values: np.ndarray) -> np.ndarray:
    """A column's entries, as they lie in a shard, of windows; raises UserError where one is NaN."""
    column = witness.column
    if column.per == "document":
        counts = batch.documents[:, -1] + 1
        found = np.concatenate([values[row, :count] for row, count in enumerate(counts)])
        of_labels = np.concatenate(
            [
                np.bincount(batch.documents[row], batch.labels[row] != NO_LABEL, count)
                for row, count in enumerate(counts)
            ]
        )
        if np.isnan(found[of_labels > 0]).any():
            raise UserError(f"a {column.name} is NaN, so the model is broken; nothing was stored")
        return found.astype(column.dtype)
    # An entry is about its own token: what is said of the label at place i is about token i + 1.
    moved = np.zeros_like(values)
    moved[:, 1:] = values[:, :-1]
    return moved.reshape(-1, column.width).astype(column.dtype)


def _finish(data_dir: Path, manifest: Manifest, column: Column, directory: Path, every: list[Range]) -> None:
    for shard in shards(manifest):
        with write_column(data_dir, shard, column) as append:
            for each in every:
                if each.shard == shard:
                    values = np.frombuffer((directory / each.name).read_bytes(), column.dtype)
                    append(values.reshape(-1, column.width) if column.width > 1 else values)
    add_columns(data_dir, manifest, [column])
    shutil.rmtree(directory)
