"""Every reply that was paid for, in a file: whoever runs the same command again is not charged again.

Evolving is a function of the seeds and the replies. So this file is all there is to resume from.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import msgspec
from blake3 import blake3

from atoll.errors import UserError
from atoll.files import disk_error
from atoll.given import named
from atoll.post.evolve.server import Message, Reply

SYNC_SECONDS = 1.0  # a power cut costs at most what was paid for in this time; kill -9 costs nothing


class Line(msgspec.Struct, frozen=True):
    """One reply, under the digest of its request."""

    key: str
    reply: Reply


class Paid:
    """The replies in a file. A context manager around the open file."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file is not of this kind, DiskError where it cannot be written."""
        self._replies: dict[str, Reply] = {}
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise disk_error(path, error) from error
        # In a thread: a disk takes tens of milliseconds, in which no request could be sent and no reply read.
        self._thread = ThreadPoolExecutor(1)
        self._syncing: Future[None] = Future()
        self._syncing.set_result(None)
        self._synced = time.monotonic()
        try:
            self._read()
        except UserError:
            self._file.close()
            raise

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.read()
        end = data.rfind(b"\n") + 1  # a process that was killed may have left a part of a line
        decoder = msgspec.json.Decoder(Line)
        for number, text in enumerate(data[:end].splitlines(), start=1):
            try:
                line = decoder.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{named(self._path)}: line {number} is damaged; remove that line") from error
            self._replies[line.key] = line.reply
        self._file.truncate(end)

    @staticmethod
    def key(model: str, messages: Sequence[Message], temperature: float, max_tokens: int, again: int) -> str:
        """The digest of a request; `again` tells apart requests that are alike."""
        request = [model, list(messages), temperature, max_tokens, again]
        return blake3(msgspec.json.encode(request)).hexdigest(16)

    def get(self, key: str) -> Reply | None:
        """The reply to a request, if there is one."""
        return self._replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply. Raises DiskError for a full disk."""
        self._replies[key] = reply
        try:
            self._file.write(msgspec.json.encode(Line(key, reply)) + b"\n")
            if self._syncing.done() and time.monotonic() - self._synced > SYNC_SECONDS:
                self._syncing.result()  # the one before may have failed
                self._synced = time.monotonic()
                self._syncing = self._thread.submit(os.fsync, self._file.fileno())
        except OSError as error:
            raise disk_error(self._path, error) from error

    def __enter__(self) -> "Paid":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        try:
            self._syncing.result()
            os.fsync(self._file.fileno())
        except OSError as failure:
            raise disk_error(self._path, failure) from error
        finally:
            self._file.close()
