"""What bench/gpu.py measures: one function a row, each run in a process of its own.

All of them take the device, the shape of the model, and at least how many seconds to repeat what is timed.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import torch
from torch import Tensor

from atoll.agent.codecs import codec_named
from atoll.agent.mapped import PARAMETERS, Floats, OuterMapping, map_file
from atoll.island.parallelize import device as device_named
from atoll.island.ranks import Ranks
from atoll.mesh import own_elements
from atoll.model.presets import PRESETS
from atoll.swarm.layout import Layout, TensorSpec
from harness.flops import PEAK_FLOPS, step_flops, whole_window_flops
from harness.sides import Shape, Step, our_island, our_step, some_batch

NUM_WARMUPS = 2  # steps that are not timed: the first also makes the moments, and compiles
MIN_STEPS = 3
MIN_SECONDS = 4.0
GIB = 1 << 30

# As many tokens a step as fit beside the model, so that the optimizer's share is about what it is in a run.
SHAPES = {
    "150m": Shape(config=PRESETS["150m"], num_windows=4, context_length=8192, num_micro_batches=2),
    "1b": Shape(config=PRESETS["1b"], num_windows=1, context_length=8192, num_micro_batches=4),
    "3b": Shape(
        config=PRESETS["3b"],
        num_windows=1,
        context_length=8192,
        num_micro_batches=4,
        activation_checkpointing=True,
    ),
    "intellect-1, 12 layers": Shape(
        config=msgspec.structs.replace(PRESETS["intellect-1"], num_hidden_layers=12),
        num_windows=1,
        context_length=8192,
        num_micro_batches=4,
        activation_checkpointing=True,
    ),
}


def device_name() -> dict[str, Any]:
    """The name of the accelerator that an island would use here; empty where it would use the CPU."""
    device = device_named("auto")
    if device.type == "cpu":
        return {"name": ""}
    return {"name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}


def measure(what: dict[str, Any], tiny: bool) -> dict[str, Any]:
    """The figures of the row that `what` names; of a rehearsal where it is `tiny`."""
    kinds: dict[str, Callable[..., dict[str, Any]]] = {
        "training step": training_step,
        "hand-over": hand_over,
        "adopt": adopt,
    }
    options = {key: value for key, value in what.items() if key not in ("row", "model")}
    shape = SHAPES[what["model"]]
    with rehearsal() if tiny else contextlib.nullcontext():
        return kinds[what["row"]](
            device_named("auto"), shrunk(shape) if tiny else shape, 0.0 if tiny else MIN_SECONDS, **options
        )


def shrunk(shape: Shape) -> Shape:
    """The same shape, so small that a CPU takes a step in milliseconds."""
    config = msgspec.structs.replace(
        shape.config,
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    return replace(shape, config=config, num_windows=1, context_length=256)


def rehearsal() -> contextlib.AbstractContextManager[object]:
    """Makes a measurement quick: one thread, and torch.compile traces, which is where graphs break, but does
    not generate code, which takes half a minute on a CPU.
    """
    torch.set_num_threads(1)
    return mock.patch("torch._inductor.compile_fx.compile_fx", lambda graph, *_, **__: graph)


def training_step(
    device: torch.device,
    shape: Shape,
    seconds: float,
    *,
    side: str,
    packed: bool,
    compiled: bool = False,
    float8: bool = False,
) -> dict[str, Any]:
    """Tokens a second, model FLOPs utilisation and peak memory of a training step, by either side."""
    batch = some_batch(shape, packed)
    ranks = Ranks.of_torchrun()
    mesh = ranks.device_mesh(device)
    step: Step
    if side == "atoll":
        step = our_step(shape, batch, our_island(shape, mesh, compiled=compiled, float8=float8))
    else:
        from harness.peer import their_step

        step = their_step(shape, batch, packed, device)
    taken = timed(step, seconds)
    figures: dict[str, Any] = {
        "parameters": shape.config.num_parameters,
        "tokens_per_step": shape.tokens_per_step,
        "activation_checkpointing": shape.activation_checkpointing,
        "tokens_per_second": round(shape.tokens_per_step / taken, 1),
        "tflops": round(step_flops(shape, batch.documents) / taken / 1e12, 4),
    }
    if device.type == "cuda":
        figures["peak_gib"] = round(torch.cuda.max_memory_allocated(device) / GIB, 2)
        if peak := PEAK_FLOPS.get(torch.cuda.get_device_name(device)):
            figures["mfu"] = round(step_flops(shape, batch.documents) / taken / peak, 4)
            if not packed:
                figures["mfu_whole_window"] = round(whole_window_flops(shape) / taken / peak, 4)
    if compiled:
        figures |= graphs()
    ranks.close()
    return figures


def timed(step: Step, seconds: float) -> float:
    """The median of a step's seconds, over at least so many seconds and MIN_STEPS steps."""
    for _ in range(NUM_WARMUPS):
        step()
    taken: list[float] = []
    while len(taken) < MIN_STEPS or sum(taken) < seconds:
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def graphs() -> dict[str, Any]:
    """How torch.compile cut this process's code, from its own counters: the fewer breaks, the better."""
    from torch._dynamo.utils import counters

    breaks = counters["graph_break"]
    found: dict[str, Any] = {"graph_breaks": sum(breaks.values())}
    found["graphs"] = counters["stats"]["unique_graphs"]
    if breaks:
        found["why"] = max(breaks, key=breaks.__getitem__).splitlines()[0]
    return found


def hand_over(device: torch.device, shape: Shape, seconds: float) -> dict[str, Any]:
    """What a proposal costs: the copy to the host in fp32 that `mesh.Swarm.propose` makes, and the agent's
    int8 of it on one core of the CPU, since there is no codec on the device.
    """
    ranks = Ranks.of_torchrun()
    parameters = our_island(shape, ranks.device_mesh(device)).parameters()
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
        mapping = OuterMapping(Path(directory), layout_of(parameters))
        copied = timed(lambda: to_host(parameters, mapping), seconds)
        codec, values = codec_named("int8"), np.array(mapping.local)
        encoded = np.empty(codec.max_bytes(len(values)), np.uint8)
        taken = timed(lambda: codec.encode(values, encoded), seconds)
    ranks.close()
    return {
        "bytes": values.nbytes,
        "copy_seconds": round(copied, 3),
        "copy_gb_per_second": round(values.nbytes / copied / 1e9, 2),
        "int8_on_cpu_seconds": round(taken, 3),
        "int8_on_cpu_gb_per_second": round(values.nbytes / taken / 1e9, 2),
    }


def adopt(device: torch.device, shape: Shape, seconds: float) -> dict[str, Any]:
    """A joiner's last step: `mesh.Swarm.adopt`'s copy from the agent's mapped file to the device.

    What follows it, the copy back and the proof, is the first half of `hand_over` and a hash on the host.
    """
    ranks = Ranks.of_torchrun()
    parameters = our_island(shape, ranks.device_mesh(device)).parameters()
    layout = layout_of(parameters)
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
        mapping = OuterMapping(Path(directory), layout)
        to_host(parameters, mapping)
        map_file(Path(directory) / "state" / PARAMETERS, layout.num_elements)[:] = mapping.local
        taken = timed(lambda: to_device(mapping, parameters), seconds)
    ranks.close()
    size = 4 * layout.num_elements
    return {"bytes": size, "seconds": round(taken, 3), "gb_per_second": round(size / taken / 1e9, 2)}


def layout_of(parameters: Mapping[str, Tensor]) -> Layout:
    """The flat space of a run of this model."""
    return Layout(tuple(TensorSpec(name, tuple(value.shape)) for name, value in parameters.items()))


def to_host(parameters: Mapping[str, Tensor], mapping: OuterMapping) -> None:
    for elements, rows in own_elements(mapping.layout, parameters):
        mapping.local[elements] = rows.float().cpu().numpy().reshape(-1)


def to_device(mapping: OuterMapping, parameters: Mapping[str, Tensor]) -> None:
    """Done, on the device too, when this returns."""

    def copy(outer: Floats) -> None:
        for elements, rows in own_elements(mapping.layout, parameters):
            rows.copy_(torch.from_numpy(np.array(outer[elements])).view(rows.shape))

    mapping.read(copy, lambda: True)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
