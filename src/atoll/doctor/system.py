"""Disk, memory and file handles of this machine."""

import os
import shutil
import sys
from pathlib import Path

import msgspec

from atoll.doctor.finding import Finding
from atoll.doctor.needs import Needs, gb

SLOW_DISK = 50e6  # bytes a second, written and synced
GOOD_HANDLES, MIN_HANDLES = 1024, 256  # open files of a process


class System(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has."""

    num_cores: int
    memory_bytes: int  # that this process may have; 0: not known
    available_bytes: int  # of it, now
    disk_path: str  # where a run would lie
    disk_bytes: int  # free there, to this user
    write_speed: float | None = None  # bytes a second; None: not measured
    why_not_written: str = ""  # there
    num_handles: int = 0  # that a process may open; 0: as many as it likes, or not known


def system(where: Path, is_measured: bool) -> System:
    """Of this machine; the disk is that of `where`, which need not exist. `is_measured`: write to it."""
    existing = next(path for path in (where, *where.absolute().parents) if path.is_dir())
    speed, why_not = None, ""
    if is_measured:
        from atoll.simulate.plan_machine import disk_speed

        try:
            speed = disk_speed(existing)
        except OSError as error:
            why_not = (error.strerror or str(error)).lower()
    memory, available = _memory()
    return System(
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=memory,
        available_bytes=available,
        disk_path=str(existing),
        disk_bytes=shutil.disk_usage(existing).free,
        write_speed=speed,
        why_not_written=why_not,
        num_handles=_num_handles(),
    )


def judge_disk(found: System, needs: Needs | None) -> Finding:
    """Whether a run fits on the disk, and how fast it is written."""
    has = f"{gb(found.disk_bytes)} free at {found.disk_path}"
    if found.write_speed is not None:
        has += f", written and synced at {found.write_speed / 1e6:.0f} MB/s"
    if found.why_not_written:
        return Finding(
            about="disk",
            grade="wrong",
            found=f"{found.disk_path} cannot be written to: {found.why_not_written}",
            do="free some of it, or choose another disk with --dir",
        )
    if needs is not None and found.disk_bytes < needs.disk_left:
        return Finding(
            about="disk",
            grade="wrong",
            found=f"{has}; this run needs {gb(needs.disk_left)} more",
            do="free some, or choose another disk with --dir",
        )
    if found.write_speed is not None and found.write_speed < SLOW_DISK:
        return Finding(
            about="disk",
            grade="note",
            found=f"{has}: each update is written before it is committed",
            do="put the run on a faster disk, with --dir",
        )
    return Finding(
        about="disk", grade="right", found=has + (f"; this run needs {gb(needs.disk_left)}" if needs else "")
    )


def judge_memory(found: System, needs: Needs | None, trains_here: bool) -> Finding:
    """Whether a run fits into memory. `trains_here`: the trainer's tensors lie in it, not on a device."""
    if not found.memory_bytes:
        return Finding(about="memory", grade="unknown", found="this system does not say how much there is")
    has = f"{gb(found.memory_bytes)}, of which {gb(found.available_bytes)} are free"
    if needs is None:
        return Finding(about="memory", grade="right", found=has)
    trainer = needs.trainer if trains_here else 0.0
    if found.memory_bytes < trainer:
        return Finding(
            about="memory",
            grade="wrong",
            found=f"{has}; weights, gradients and moments of this run take {gb(trainer)}",
            do="join with a larger machine, or relay (--relay)",
        )
    takes = trainer + needs.mapped
    if found.available_bytes < takes:
        return Finding(
            about="memory",
            grade="note",
            found=f"{has}; this run is best with {gb(takes)}, activations aside",
            do="close what else runs here; what is mapped from files is then read from disk again and again",
        )
    return Finding(about="memory", grade="right", found=f"{has}; this run takes {gb(takes)}")


def judge_handles(found: System) -> Finding:
    """Whether a process may open enough files and connections."""
    about, count = "open files", found.num_handles
    advice = f"raise the limit: ulimit -n {4 * GOOD_HANDLES}"
    if not count or count >= GOOD_HANDLES:
        said = f"a process may open {count}" if count else "a process may open as many as it likes"
        return Finding(about=about, grade="right", found=said)
    grade = "wrong" if count < MIN_HANDLES else "note"
    return Finding(
        about=about,
        grade=grade,
        found=f"a process may open {count}; each peer takes up to five",
        do=advice,
    )


def _num_handles() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else soft


def _memory() -> tuple[int, int]:
    """(bytes that this process may have, of which are free); a container's limit counts."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        figures = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith("kB")}
        total, available = figures["MemTotal"], figures["MemAvailable"]
    except (OSError, KeyError, ValueError):
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return 0, 0
        return total, total
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit
        return total, available
    return min(total, limit), max(0, min(available, limit - used))
