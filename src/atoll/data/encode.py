"""Texts to tokens on all cores, by child processes (`python -m atoll.data.encode`) that hold the tokenizer.

`multiprocessing` would import the caller's script again, and leave children behind when it is killed.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from atoll.data.chat_encoder import ChatEncoder
from atoll.data.heldout import is_heldout
from atoll.data.markup import BadChat
from atoll.data.shapes import Row
from atoll.data.tokenizer import Tokenizer
from atoll.errors import UserError
from atoll.recipe.objective import Rows

FEW_BATCHES = 16  # so few are not worth starting processes for: the library's threads are as fast
BATCHES_AHEAD = 2  # read ahead for each process


class Encoded(NamedTuple):
    """What a text became: one document, or those of a row, one after the other."""

    tokens: np.ndarray  # [num_tokens] uint32, BOS first in each document
    trained: np.ndarray | None  # [num_tokens] bool: what is trained on; None where all of it is
    lengths: list[int]  # of its documents
    num_bytes: int  # of the UTF-8 text that was encoded
    is_heldout: bool  # by its hash
    fault: tuple[str, str] | None  # why it cannot be used, and the kind of that; None for nothing


class How(msgspec.Struct, frozen=True):
    """What the texts are, and what of them is trained on."""

    fraction: float  # of them that is held out
    rows: Rows = "stream"
    train_on: Literal["all", "last"] = "all"


class HasTexts(Protocol):
    @property
    def texts(self) -> list[str]: ...


Batch = TypeVar("Batch", bound=HasTexts)
Encode = Callable[[list[str]], list[Encoded]]


def encoder(tokenizer: Tokenizer, how: How) -> Encode:
    """The function that encodes texts. Raises UserError for a template that cannot be trained with."""
    if how.rows == "stream":
        return lambda texts: _documents(tokenizer, how, texts)
    chats = ChatEncoder(tokenizer, how.train_on)
    return lambda texts: [_row(chats, how, text) for text in texts]


def _documents(tokenizer: Tokenizer, how: How, texts: list[str]) -> list[Encoded]:
    found: list[Encoded] = []
    for text, tokens in zip(texts, tokenizer.encode_documents(texts), strict=True):
        raw, fault = text.encode(), None
        if special := tokenizer.special_within(tokens):
            reason = f"the tokenizer takes what it spells for its special token {special}"
            fault = reason, f"spelling {special}"
        is_heldout_one = is_heldout(raw, how.fraction)
        found.append(Encoded(tokens, None, [len(tokens)], len(raw), is_heldout_one, fault))
    return found


def _row(chats: ChatEncoder, how: How, text: str) -> Encoded:
    row, is_heldout_one = Row.of(text), is_heldout(text.encode(), how.fraction)
    try:
        given = len(row.prompt)
        encoded = [chats.encode([*row.prompt, *answer], row.tools, given) for answer in row.answers]
        if len(encoded) > 1 and encoded[0].tokens.tolist() == encoded[1].tokens.tolist():
            raise BadChat("both sides of the pair have the same tokens", "pairs of equal sides")
    except BadChat as bad:
        nothing = np.empty(0, np.uint32)
        return Encoded(nothing, nothing.astype(bool), [], 0, is_heldout_one, (str(bad), bad.kind))
    return Encoded(
        np.concatenate([each.tokens for each in encoded]),
        np.concatenate([each.trained for each in encoded]),
        [len(each.tokens) for each in encoded],
        sum(each.num_bytes for each in encoded),
        is_heldout_one,
        None,
    )


class Encoders:
    """Up to `num_processes` tokenizing processes, each started when there is work for it.

    A context manager: leaving it ends the processes.
    """

    def __init__(self, tokenizer_dir: Path, how: How, num_processes: int) -> None:
        self._tokenizer_dir, self._how, self._num_processes = tokenizer_dir, how, num_processes
        self._threads = ThreadPoolExecutor(num_processes)  # each waits for one process
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()
        for _ in range(num_processes):
            self._idle.put(None)

    def map(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[Encoded]]]:
        """Yield each batch with its tokens, in order; a few batches are read ahead.

        Raises UserError when a process dies.
        """
        remaining = iter(batches)
        few = list(islice(remaining, FEW_BATCHES + 1))
        if len(few) <= FEW_BATCHES:
            encode = encoder(Tokenizer.load(self._tokenizer_dir), self._how)
            for batch in few:
                yield batch, encode(batch.texts)
            return
        pending: deque[tuple[Batch, Future[list[Encoded]]]] = deque()
        for batch in chain(few, remaining):
            pending.append((batch, self._threads.submit(self._ask, batch.texts)))
            if len(pending) > BATCHES_AHEAD * self._num_processes:
                yield pending[0][0], pending.popleft()[1].result()
        while pending:
            yield pending[0][0], pending.popleft()[1].result()

    def _ask(self, texts: list[str]) -> list[Encoded]:
        process = self._idle.get()
        if process is None:
            process = _Process(self._tokenizer_dir, self._how)
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
    """A child that reads lists of texts from a pipe and writes what they became to another.

    It ends when its input does, so also when this process dies.
    """

    def __init__(self, tokenizer_dir: Path, how: How) -> None:
        written = msgspec.json.encode(how).decode()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "atoll.data.encode", str(tokenizer_dir), written],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},  # there is a process for each core already
            start_new_session=True,  # Ctrl-C reaches only the parent
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input, self._output = self._child.stdin, self._child.stdout

    def ask(self, texts: list[str]) -> list[Encoded]:
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
        return [Encoded(*each) for each in answer]

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):  # closing flushes, and the reader may be dead
                pipe.close()


def _serve(tokenizer_dir: str, how: str) -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to standard error, not between the answers
    encode = encoder(Tokenizer.load(Path(tokenizer_dir)), msgspec.json.decode(how, type=How))
    while True:
        try:
            texts: Any = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = [tuple(each) for each in encode(texts)]  # plain, since this module has two names
        except UserError as error:
            answer = str(error)
        pickle.dump(answer, output, pickle.HIGHEST_PROTOCOL)
        output.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
