"""Where the time and the memory of a few inner steps go.

The trace is for chrome://tracing or ui.perfetto.dev, the memory snapshot for pytorch.org/memory_viz.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import profile, schedule

from atoll.files import atomic_path

Step = TypeVar("Step")
TRACED_STEPS = 3  # after one step in which the profiler itself warms up
MIN_STEPS = 2  # with fewer there is nothing to trace
MAX_MEMORY_EVENTS = 100_000  # of which the newest are kept


def profiled(steps: Generator[Step], path: Path, device: torch.device) -> Generator[Step]:
    """Yield the same steps; what the caller does with the second to fourth is traced to `path`.trace.json.

    No file is written where there are fewer than MIN_STEPS.

    Where torch records the device's memory, all allocations since the first step go to `path`.memory.pickle.
    Closing the generator closes `steps`.
    """
    memory: Any = getattr(torch.get_device_module(device), "memory", None)
    records_memory = hasattr(memory, "_record_memory_history")

    def write(done: profile) -> None:
        with atomic_path(path.with_suffix(".trace.json")) as temporary:
            done.export_chrome_trace(str(temporary))
        if records_memory:
            with atomic_path(path.with_suffix(".memory.pickle")) as temporary:
                memory._dump_snapshot(str(temporary))

    when = schedule(wait=0, warmup=1, active=TRACED_STEPS, repeat=1)
    if records_memory:
        memory._record_memory_history(max_entries=MAX_MEMORY_EVENTS)
    try:
        with profile(
            schedule=when, on_trace_ready=write, profile_memory=True, record_shapes=True, acc_events=True
        ) as traced:
            for step in steps:
                yield step
                traced.step()
    finally:
        if records_memory:
            memory._record_memory_history(enabled=None)
        steps.close()
