"""What a model has already answered, on disk batch by batch, so that a kill costs at most one batch.

The file has one line of JSON for each batch. A line that a kill has cut short counts for nothing, and the
whole batch is asked again: so the batches after it are made up as they would have been without the kill, and
give the same sums to the last bit. It is not synced: after a power cut more may have to be asked again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from atoll.files import disk_error


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The answers to one batch of requests."""

    answers: list[tuple[str, Any]]  # (digest of the request, what lm-eval got for it)
    num_cut: int  # requests of it that were longer than the model reads
    seconds: float  # since the batch before, or since the start


class Answers:
    """The answers to one question, as far as they are known. One process at a time has them open."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises DiskError where the file may not be written."""
        self.path = path
        self.num_cut, self.seconds = 0, 0.0
        self._known: dict[str, Any] = {}
        num_bytes = 0
        for line in self._whole_lines():
            self._count(msgspec.convert(json.loads(line), Batch))
            num_bytes += len(line)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._file.truncate(num_bytes)
        except OSError as error:
            raise disk_error(path, error) from error

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _whole_lines(self) -> Iterator[bytes]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield line

    def _count(self, batch: Batch) -> None:
        self._known |= dict(batch.answers)
        self.num_cut += batch.num_cut
        self.seconds += batch.seconds

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, request: str) -> bool:
        return request in self._known

    def __getitem__(self, request: str) -> Any:
        """The answer to a request, by its digest. Raises KeyError where it is not known."""
        return self._known[request]

    def add(self, batch: Batch) -> None:
        """Keep a batch. Raises DiskError when the disk is full."""
        self._count(batch)
        try:
            # Not msgspec's JSON, which has no word for a log-likelihood of minus infinity.
            self._file.write(json.dumps(msgspec.to_builtins(batch)).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self.path, error) from error

    def discard(self) -> None:
        """Remove the file, once the result is kept."""
        self.path.unlink(missing_ok=True)
