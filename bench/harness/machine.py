"""What a figure was measured on."""

import os
from pathlib import Path

import msgspec


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A computer, as a reader needs to know it."""

    cores: int
    processor: str
    memory: str  # with its unit: "24 GiB"
    accelerator: str = ""  # the one that the bench used, by its driver's name; empty where it used none

    def __str__(self) -> str:
        parts = [f"{self.cores} cores ({self.processor})", self.memory, self.accelerator]
        return ", ".join(part for part in parts if part)


def present(accelerator: str = "") -> Machine:
    """This machine; `accelerator` is what the bench uses of it besides the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cores=os.cpu_count() or 1,
        processor=name,
        memory=f"{memory_bytes / (1 << 30):.0f} GiB",
        accelerator=accelerator,
    )


def process_bytes(name: str) -> int:
    """A quantity of this process's memory from the kernel: `VmRSS` is what it has now, `VmHWM` its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def forget_peak() -> None:
    """From now on `VmHWM` is the peak since this call."""
    Path("/proc/self/clear_refs").write_text("5")
