"""Texts -> tokens on all cores, by child processes that each hold the tokenizer: `python -m
atoll.data.encode`.

Own processes, not `multiprocessing`: that imports the caller's script again, and leaves children behind when
it is killed.
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
from blake3 import blake3

from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError

SMALL = 16  # batches: too few to be worth starting processes for; the library's threads do as well
AHEAD = 2  # batches read ahead for each process


class Encoded(NamedTuple):
    """Documents of a batch."""

    tokens: list[np.ndarray]  # of each document: [num_tokens] uint32, BOS first
    num_bytes: list[int]  # of its UTF-8 text
    heldout: list[bool]


class HasTexts(Protocol):
    @property
    def texts(self) -> list[str]: ...


Batch = TypeVar("Batch", bound=HasTexts)


def is_heldout(text: bytes, fraction: float) -> bool:
    """Whether a document belongs to the held-out split: decided by its hash, so alike on every machine."""
    return int.from_bytes(blake3(text).digest(8), "big") < fraction * 2**64


def encode(tokenizer: Tokenizer, fraction: float, texts: list[str]) -> Encoded:
    """Tokens, size and split of each text."""
    raw = [text.encode() for text in texts]
    heldout = [is_heldout(text, fraction) for text in raw]
    return Encoded(tokenizer.encode_documents(texts), [len(text) for text in raw], heldout)


class Encoders:
    """As many processes as asked for, started when there is work for them. To be used in a `with` block."""

    def __init__(self, tokenizer_dir: Path, fraction: float, num_processes: int) -> None:
        self._tokenizer_dir, self._fraction, self._num_processes = tokenizer_dir, fraction, num_processes
        self._threads = ThreadPoolExecutor(num_processes)  # each waits for one process
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()
        for _ in range(num_processes):
            self._idle.put(None)

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Encoded]]:
        """Each batch with its tokens, in order; a few batches are read ahead. Raises UserError when a process
        dies.
        """
        remaining = iter(batches)
        few = list(islice(remaining, SMALL + 1))
        if len(few) <= SMALL:
            tokenizer = Tokenizer.load(self._tokenizer_dir)
            for batch in few:
                yield batch, encode(tokenizer, self._fraction, batch.texts)
            return
        ahead: deque[tuple[Batch, Future[Encoded]]] = deque()
        for batch in chain(few, remaining):
            ahead.append((batch, self._threads.submit(self._ask, batch.texts)))
            if len(ahead) > AHEAD * self._num_processes:
                yield ahead[0][0], ahead.popleft()[1].result()
        while ahead:
            yield ahead[0][0], ahead.popleft()[1].result()

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
    """A child that reads lists of texts and writes what they became; it ends when its input does, so also
    with us.
    """

    def __init__(self, tokenizer_dir: Path, fraction: float) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "atoll.data.encode", str(tokenizer_dir), str(fraction)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},  # there are as many of us as cores
            start_new_session=True,  # Ctrl-C reaches only the parent
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input, self._output = self._child.stdin, self._child.stdout

    def ask(self, texts: list[str]) -> Encoded:
        try:
            pickle.dump(texts, self._input, pickle.HIGHEST_PROTOCOL)
            self._input.flush()
            return Encoded(*pickle.load(self._output))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            status = self._child.wait()
            raise UserError(
                f"a tokenizing process ended with status {status} (is memory short?); prepare again, "
                "what is done is kept"
            ) from error

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):  # what was left in the pipe has nobody to go to
                pipe.close()


def _serve(tokenizer_dir: str, fraction: str) -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    tokenizer = Tokenizer.load(Path(tokenizer_dir))
    while True:
        try:
            texts: Any = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(tuple(encode(tokenizer, float(fraction), texts)), output, pickle.HIGHEST_PROTOCOL)
        output.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
