"""Measurements in processes of their own: each may fail, run out of memory or hang, and the next one runs."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from atoll.errors import UserError

Figures = dict[str, Any]
# Imported once, by the process that all children are forked from, which saves each of them seconds. Importing
# these touches no device. What is not installed is left out.
PRELOADED = [
    "torch._inductor.compile_fx",
    "transformers.models.llama.modeling_llama",
    "atoll.mesh",
    "atoll.agent.codecs",
]
SHARES = 3.0  # of the time that is left for each: one that hangs must not take what the others need
LEAST_SECONDS = 5.0  # with less time left nothing is begun
END_SECONDS = 10.0  # for a process that has said what it measured


def one_by_one(
    call: Callable[..., Figures], many: Sequence[tuple[Any, ...]], budget_seconds: float
) -> Iterator[Figures]:
    """What `call` gives for each of the tuples of arguments, within a budget of time for all of them.

    Where it gives nothing, the figures are one sentence: `not_measured` where something is missing here
    (time, memory, a library), `failed` where something is wrong.
    """
    until = time.monotonic() + budget_seconds
    for number, arguments in enumerate(many):
        left = until - time.monotonic()
        if left < LEAST_SECONDS:
            yield {"not_measured": "not run: no time left"}
        else:
            yield in_child(call, arguments, min(left, SHARES * left / (len(many) - number)))


def in_child(call: Callable[..., Figures], arguments: tuple[Any, ...], limit_seconds: float) -> Figures:
    """What `call` gives in a fresh process, or why it gives nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, call, arguments))
    process.start()
    there.close()
    try:
        if here.poll(limit_seconds):
            figures = here.recv()
            process.join(END_SECONDS)
            return figures
        return {"not_measured": f"stopped after {limit_seconds:.0f} s, its share of the time"}
    except EOFError:
        process.join()
        return {"failed": f"its process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        here.close()


def _child(there: Connection, call: Callable[..., Figures], arguments: tuple[Any, ...]) -> None:
    try:
        figures = call(*arguments)
    except Exception as error:
        figures = _sentence(error)
    there.send(figures)


def _sentence(error: Exception) -> Figures:
    """What stands in the place of figures."""
    if isinstance(error, UserError):
        return {"not_measured": str(error)}
    if isinstance(error, ModuleNotFoundError):
        return {"not_measured": f"{error.name} is not installed here"}
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for this
        return {"not_measured": "it does not fit into the device's memory"}
    return {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
