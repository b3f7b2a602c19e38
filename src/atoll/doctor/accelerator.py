"""What this machine can train on: the accelerators that the system has, and those that torch can use."""

from pathlib import Path

import msgspec

from atoll.doctor.finding import Finding

GPU_ADVICE = (
    "install a torch that can use it: pip install --force-reinstall torch, with the index that "
    "https://pytorch.org/get-started/locally names for its driver"
)


class Torch(msgspec.Struct, frozen=True, kw_only=True):
    """What torch says."""

    version: str
    device: str  # that it would train on: cuda, mps, cpu
    names: tuple[str, ...] = ()  # of its accelerators
    memory_bytes: int = 0  # of all of them together; 0: not known
    build: str = ""  # what it was built for: CUDA 13.0, ROCm 6.2; "": the CPU alone


class Accelerators(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to train on."""

    num_nvidia: int = 0  # devices that the NVIDIA driver shows
    has_amd: bool = False
    torch: Torch | None = None
    failure: str = ""  # why torch cannot be imported; "" beside None: it is not installed


def accelerators(root: Path = Path("/")) -> Accelerators:
    """Of this machine; imports torch, which takes seconds."""
    nvidia = [path for path in (root / "dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()]
    torch, failure = _torch()
    return Accelerators(
        num_nvidia=len(nvidia), has_amd=(root / "dev/kfd").exists(), torch=torch, failure=failure
    )


def _torch() -> tuple[Torch | None, str]:
    try:
        import torch
    except ModuleNotFoundError as error:
        return None, "" if error.name == "torch" else str(error)
    except (ImportError, OSError) as error:
        return None, str(error).splitlines()[0]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else ""
    build = f"ROCm {torch.version.hip}" if torch.version.hip else build
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return Torch(
            version=str(torch.__version__),
            device="cuda",
            names=tuple(each.name for each in found),
            memory_bytes=sum(each.total_memory for each in found),
            build=build,
        ), ""
    device = "mps" if torch.backends.mps.is_available() else "cpu"
    names = ("Apple's GPU",) if device == "mps" else ()
    return Torch(version=str(torch.__version__), device=device, names=names, build=build), ""


def judge(found: Accelerators) -> Finding:
    """Whether torch is here, and uses what there is."""
    torch = found.torch
    if torch is None and found.failure:
        return Finding(
            about="torch",
            grade="wrong",
            found=f"is installed but cannot be imported: {found.failure}",
            do="install it anew: pip install --force-reinstall torch",
        )
    if torch is None:
        return Finding(
            about="torch",
            grade="wrong",
            found="is not installed: this machine can host and relay, and not train",
            do="pip install 'atoll[train]', or join with --relay",
        )
    said = f"torch {torch.version}" + (f" for {torch.build}" if torch.build else " for the CPU")
    unused = "an NVIDIA GPU" if found.num_nvidia else "an AMD GPU" if found.has_amd else ""
    if torch.device == "cpu" and unused:
        why = "was not built for it" if not torch.build else "finds none: its driver may be too old"
        return Finding(
            about="torch", grade="note", found=f"this machine has {unused}, and {said} {why}", do=GPU_ADVICE
        )
    if torch.device == "cpu":
        return Finding(about="torch", grade="right", found=f"{said}; no accelerator was found here")
    return Finding(about="torch", grade="right", found=f"{said}; it trains on {device_of(torch)}")


def device_of(torch: Torch) -> str:
    """The device, in words."""
    if not torch.names:
        return "the CPU"
    names = " and ".join(
        f"{torch.names.count(name)} x {name}" if torch.names.count(name) > 1 else name
        for name in dict.fromkeys(torch.names)
    )
    return f"{names} ({torch.memory_bytes / 1e9:.0f} GB)" if torch.memory_bytes else names
