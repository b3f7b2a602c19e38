"""Tokens per second and peak memory of a training step, beside transformers' LlamaForCausalLM, on a CPU.

    python bench/island.py [--threads 2] [--seconds 4]

A process for each side, steps taken in turns, medians. `packed` windows hold documents of 128 tokens on
average; transformers gets what it offers for them: position ids that start anew. Peak memory is the kernel's
(VmHWM), model and moments included, the making of the weights not. About three minutes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import msgspec
import torch
from harness.machine import forget_peak, process_bytes
from harness.peer import their_step
from harness.report import Report, arguments
from harness.sides import Shape, our_island, our_step, some_batch

from atoll.island.ranks import Ranks
from atoll.model.presets import PRESETS, LlamaConfig

KEYS = ("shape", "packed", "threads")


def scaled(hidden_size: int, num_layers: int, vocab_size: int) -> LlamaConfig:
    return msgspec.structs.replace(
        PRESETS["demo"],
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        tie_word_embeddings=True,
    )


SHAPES = {
    "demo": Shape(config=PRESETS["demo"], num_windows=8, context_length=256),
    "1M": Shape(config=scaled(128, 4, 2048), num_windows=2, context_length=1024),
    "10M": Shape(config=scaled(256, 6, 16_384), num_windows=2, context_length=1024),
    "50M": Shape(config=scaled(512, 10, 32_768), num_windows=1, context_length=1024),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="as many as the figures' machine has cores")
    parser.add_argument("--seconds", type=float, default=4.0, help="at least this long for each row")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--side", choices=["ours", "peer"], help=argparse.SUPPRESS)  # one process of a row
    parser.add_argument("--packed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.side:
        work(options.side, SHAPES[options.shapes[0]], options.packed)
        return
    report = Report("island", options, keys=KEYS, packages=("torch", "transformers"))
    for name in options.shapes:
        for packed in (False, True):
            report.add(row(name, packed, options.seconds, options.threads))


def row(name: str, packed: bool, seconds: float, threads: int) -> dict[str, object]:
    """One shape: both sides' tokens per second, and bytes at their peaks."""
    shape = SHAPES[name]
    with Side("ours", name, packed, threads) as ours, Side("peer", name, packed, threads) as peer:
        for side in (ours, peer):
            side.step()  # the first one also makes the moments
        began = time.perf_counter()
        while time.perf_counter() - began < seconds or len(ours.seconds) < 4:
            for side in (ours, peer):
                side.step()
        rates = [shape.tokens_per_step / statistics.median(side.seconds[1:]) for side in (ours, peer)]
        peaks = [side.end() for side in (ours, peer)]
    return {
        "shape": name,
        "packed": packed,
        "parameters": shape.config.num_parameters,
        "windows": shape.num_windows,
        "context_length": shape.context_length,
        "threads": threads,
        "ours": round(rates[0]),
        "peer": round(rates[1]),
        "unit": "tokens/s",
        "ratio": round(rates[0] / rates[1], 3),
        "ours_peak_mib": peaks[0] >> 20,
        "peer_peak_mib": peaks[1] >> 20,
        "memory_ratio": round(peaks[0] / peaks[1], 3),
    }


class Side:
    """A process that takes a step whenever it is told to."""

    def __init__(self, side: str, name: str, packed: bool, threads: int) -> None:
        command = [sys.executable, __file__, "--threads", str(threads), "--shapes", name, "--side", side]
        self._process = subprocess.Popen(
            [*command, *(["--packed"] if packed else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        self.seconds: list[float] = []

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def step(self) -> None:
        print(file=self._process.stdin, flush=True)
        self.seconds.append(float(self._answer()))

    def end(self) -> int:
        """The bytes that its steps needed beyond what the process held before there was a model."""
        assert self._process.stdin
        self._process.stdin.close()
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()


def work(side: str, shape: Shape, packed: bool) -> None:
    """The process of a `Side`."""
    batch = some_batch(shape, packed)
    # One thread is timed by the CPU seconds it got, which other processes on the machine disturb less.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    cpu = torch.device("cpu")
    ranks = Ranks.of_torchrun()
    mesh = ranks.device_mesh(cpu)
    before = process_bytes("VmRSS")
    if side == "ours":
        step = our_step(shape, batch, our_island(shape, mesh))
    else:
        step = their_step(shape, batch, packed, cpu)
    forget_peak()  # the making of the weights is not a step
    for _ in sys.stdin:
        start = clock()
        step()
        print(clock() - start, flush=True)
    print(process_bytes("VmHWM") - before, flush=True)
    ranks.close()


if __name__ == "__main__":
    main()
