"""Tokens per second of a training step, ours beside transformers' LlamaForCausalLM, on one CPU.

    python bench/island.py [--threads 2] [--seconds 4]

Prints one JSON line a row: a process for each side, steps taken in turns, medians. `packed` windows hold
documents of 128 tokens on average; transformers gets what it offers for them: position ids that start anew.
Peak memory is the kernel's (VmHWM), model and moments included, the making of the weights not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
import transformers

from atoll import recipe
from atoll.island.feed import place
from atoll.island.step import Island
from atoll.model.llama import Llama
from atoll.model.presets import PRESETS, LlamaConfig


@dataclass(frozen=True)
class Shape:
    config: LlamaConfig
    num_windows: int
    context_length: int


@dataclass(frozen=True)
class Batch:
    tokens: np.ndarray
    labels: np.ndarray
    documents: np.ndarray


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
    "demo": Shape(PRESETS["demo"], num_windows=8, context_length=256),
    "1M": Shape(scaled(128, 4, 2048), num_windows=2, context_length=1024),
    "10M": Shape(scaled(256, 6, 16_384), num_windows=2, context_length=1024),
    "50M": Shape(scaled(512, 10, 32_768), num_windows=1, context_length=1024),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    for name in options.shapes:
        for packed in (False, True):
            print(json.dumps(row(name, packed, options.seconds, options.threads)), flush=True)


def row(name: str, packed: bool, seconds: float, threads: int) -> dict[str, object]:
    shape = SHAPES[name]
    with Side("ours", name, packed, threads) as ours, Side("peer", name, packed, threads) as peer:
        for side in (ours, peer):
            side.step()  # the first one also makes the moments
        began = time.perf_counter()
        while time.perf_counter() - began < seconds or len(ours.seconds) < 4:
            for side in (ours, peer):
                side.step()
        rates = [
            shape.num_windows * shape.context_length / statistics.median(side.seconds[1:])
            for side in (ours, peer)
        ]
        peaks = [side.end() for side in (ours, peer)]
    return {
        "bench": "island",
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
    before = status("VmRSS")
    step = our_step(shape, batch) if side == "ours" else their_step(shape, batch, packed)
    Path("/proc/self/clear_refs").write_text("5")  # the making of the weights is not a step
    for _ in sys.stdin:
        start = clock()
        step()
        print(clock() - start, flush=True)
    print(status("VmHWM") - before, flush=True)


def status(name: str) -> int:
    """A quantity of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def some_batch(shape: Shape, packed: bool) -> Batch:
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, shape.config.vocab_size, (shape.num_windows, shape.context_length + 1))
    starts = generator.random((shape.num_windows, shape.context_length)) < (1 / 128 if packed else 0)
    return Batch(tokens[:, :-1], tokens[:, 1:], starts.cumsum(1).astype(np.int32))


def our_step(shape: Shape, batch: Batch) -> Callable[[], object]:
    model = Llama(shape.config)
    model.init_weights(seed=0)
    island = Island(model, recipe.load("demo"))
    placed = place(batch, island.device)

    def step() -> None:
        island.inner_step([placed], 0)
        island.read()

    return step


def their_step(shape: Shape, batch: Batch, packed: bool) -> Callable[[], object]:
    rope = {"rope_type": "default", "rope_theta": shape.config.rope_theta}
    dimensions = {k: v for k, v in msgspec.structs.asdict(shape.config).items() if not k.startswith("rope")}
    # pyright: ignore[reportCallIssue]
    config = transformers.LlamaConfig(**dimensions, rope_parameters=rope, attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.tensor(batch.tokens)
    arguments = {"input_ids": tokens, "labels": tokens, "use_cache": False}
    if packed:
        starts = np.diff(batch.documents, axis=1, prepend=batch.documents[:, :1] - 1) != 0
        indices = np.arange(shape.context_length)
        arguments["position_ids"] = torch.tensor(
            indices - np.maximum.accumulate(np.where(starts, indices, 0), axis=1)
        )

    def step() -> None:
        model(**arguments).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
