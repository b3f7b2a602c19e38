"""Texts to tokens on all cores, by child processes (`python -m atoll.data.encode`) that hold the tokenizer.

`multiprocessing` would import the caller's script again, and leave children behind when it is killed.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from atoll.data.heldout import is_heldout
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError

FEW_BATCHES = 16  # so few are not worth starting processes for: the library's threads are as fast
BATCHES_AHEAD = 2  # read ahead for each process


class Encoded(NamedTuple):
    """The documents of a batch: one entry per document in each list."""

    tokens: list[np.ndarray]  # [num_tokens] uint32 each, BOS first
    num_bytes: list[int]  # of the UTF-8 text
    heldout: list[bool]  # by its hash
    special: list[str]  # a special token that the text turned into; "" for none, as it should be


class HasTexts(Protocol):
    @property
    def texts(self) -> list[str]: ...


Batch = TypeVar("Batch", bound=HasTexts)


def encode(tokenizer: Tokenizer, fraction: float, texts: list[str]) -> Encoded:
    """The tokens, size and split of each text."""
    raw = [text.encode() for text in texts]
    heldout = [is_heldout(text, fraction) for text in raw]
    tokens = tokenizer.encode_documents(texts)
    special = [tokenizer.special_within(document) for document in tokens]
    return Encoded(tokens, [len(text) for text in raw], heldout, special)


class Encoders:
    """Up to `num_processes` tokenizing processes, each started when there is work for it.

    A context manager: leaving it ends the processes.
    """

    def __init__(self, tokenizer_dir: Path, fraction: float, num_processes: int) -> None:
        self._tokenizer_dir, self._fraction, self._num_processes = tokenizer_dir, fraction, num_processes
        self._threads = ThreadPoolExecutor(num_processes)  # each waits for one process
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()
        for _ in range(num_processes):
            self._idle.put(None)

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Encoded]]:
        """Yield each batch with its tokens, in order; a few batches are read ahead.

        Raises UserError when a process dies.
        """
        remaining = iter(batches)
        few = list(islice(remaining, FEW_BATCHES + 1))
        if len(few) <= FEW_BATCHES:
            tokenizer = Tokenizer.load(self._tokenizer_dir)
            for batch in few:
                yield batch, encode(tokenizer, self._fraction, batch.texts)
            return
        pending: deque[tuple[Batch, Future[Encoded]]] = deque()
        for batch in chain(few, remaining):
            pending.append((batch, self._threads.submit(self._ask, batch.texts)))
            if len(pending) > BATCHES_AHEAD * self._num_processes:
                yield pending[0][0], pending.popleft()[1].result()
        while pending:
            yield pending[0][0], pending.popleft()[1].result()

    def _ask(self, texts: list[str]) -> Encoded:
        process = self._idle.get()
        if process is None:
            process = _Process(self._tokenizer_dir, self._fraction)
            self._processes.append(process)
        try:
            return process.ask(texts)
        finally:
            self._idle.put(process)

    def __enter__(self) -> "Encoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.end()
        self._threads.shutdown()


class _Process:
    """A child that reads lists of texts from a pipe and writes `Encoded` documents to another.

    It ends when its input does, so also when this process dies.
    """

    def __init__(self, tokenizer_dir: Path, fraction: float) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "atoll.data.encode", str(tokenizer_dir), str(fraction)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},  # there is a process for each core already
            start_new_session=True,  # Ctrl-C reaches only the parent
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input, self._output = self._child.stdin, self._child.stdout

    def ask(self, texts: list[str]) -> Encoded:
        """The encoded texts. Raises UserError when the child dies, or cannot encode one."""
        try:
            pickle.dump(texts, self._input, pickle.HIGHEST_PROTOCOL)
            self._input.flush()
            answer = pickle.load(self._output)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            status = self._child.wait()
            raise UserError(
                f"a tokenizing process ended with status {status} (was memory short?); run the command again "
                "to continue after what is done"
            ) from error
        if isinstance(answer, str):
            raise UserError(answer)
        return Encoded(*answer)

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):  # closing flushes, and the reader may be dead
                pipe.close()


def _serve(tokenizer_dir: str, fraction: str) -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to standard error, not between the answers
    tokenizer = Tokenizer.load(Path(tokenizer_dir))
    while True:
        try:
            texts: Any = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = tuple(encode(tokenizer, float(fraction), texts))
        except UserError as error:
            answer = str(error)
        pickle.dump(answer, output, pickle.HIGHEST_PROTOCOL)
        output.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
