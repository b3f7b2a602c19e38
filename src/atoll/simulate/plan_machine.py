"""The constants of this machine that a plan of a swarm needs, measured in a second or two."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from atoll.agent import diloco
from atoll.agent.codecs import codec_named
from atoll.simulate.plan import Machine
from atoll.swarm.layout import digest

NUM_ELEMENTS = 1 << 22
DISK_BYTES = 64 << 20
NUM_ROUNDS = 3


def measure(directory: Path, codec: str = "int8") -> Machine:
    """This machine's constants; `directory` is on the disk in question."""
    coder, random = codec_named(codec), np.random.default_rng(0)
    values = random.standard_normal(NUM_ELEMENTS, np.float32)
    encoded = np.empty(coder.max_bytes(NUM_ELEMENTS), np.uint8)
    total, momentum = np.zeros_like(values), np.zeros_like(values)
    size = coder.encode(values, encoded)

    def apply() -> None:
        diloco.nesterov(values, momentum, total, np.float32(0.7), np.float32(0.9))
        digest(total.view(np.uint8).data)
        digest(momentum.view(np.uint8).data)

    return Machine(
        encode_seconds=_seconds(lambda: coder.encode(values, encoded)) / NUM_ELEMENTS,
        add_seconds=_seconds(lambda: coder.add_decoded(encoded[:size], np.float32(0.5), total))
        / NUM_ELEMENTS,
        apply_seconds=_seconds(apply) / NUM_ELEMENTS,
        copy_seconds=_seconds(lambda: np.copyto(total, values)) / NUM_ELEMENTS,
        disk_bytes_per_second=disk_speed(directory),
    )


def _seconds(work: Callable[[], object]) -> float:
    """The best of a few rounds, after one that compiles."""
    work()
    taken: list[float] = []
    for _ in range(NUM_ROUNDS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def disk_speed(directory: Path) -> float:
    """Bytes a second that the disk of `directory` takes, written and synced. Raises OSError."""
    data = os.urandom(1 << 20) * (DISK_BYTES >> 20)
    with tempfile.TemporaryFile(dir=directory) as file:
        began = time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return DISK_BYTES / (time.perf_counter() - began)
