"""Where the time and the memory of a few inner steps go: a trace for chrome://tracing or ui.perfetto.dev, a
snapshot.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import profile, schedule

from atoll.files import atomic_path

Step = TypeVar("Step")
TRACED_STEPS = 3  # after one for the profiler itself to get warm
MEMORY_EVENTS = 100_000  # the newest are kept


def profiled(steps: Generator[Step], path: Path, device: torch.device) -> Generator[Step]:
    """The same steps; what is done with the second to the fourth is written to `path`.trace.json.

    Where torch records the device's memory, every allocation since the first is in `path`.memory.pickle, for
    pytorch.org/memory_viz. Closing it closes `steps`.
    """
    memory: Any = getattr(torch.get_device_module(device), "memory", None)
    records = hasattr(memory, "_record_memory_history")

    def write(done: profile) -> None:
        with atomic_path(path.with_suffix(".trace.json")) as temporary:
            done.export_chrome_trace(str(temporary))
        if records:
            with atomic_path(path.with_suffix(".memory.pickle")) as temporary:
                memory._dump_snapshot(str(temporary))

    when = schedule(wait=0, warmup=1, active=TRACED_STEPS, repeat=1)
    if records:
        memory._record_memory_history(max_entries=MEMORY_EVENTS)
    try:
        with profile(
            schedule=when, on_trace_ready=write, profile_memory=True, record_shapes=True, acc_events=True
        ) as traced:
            for step in steps:
                yield step
                traced.step()
    finally:
        if records:
            memory._record_memory_history(enabled=None)
        steps.close()
