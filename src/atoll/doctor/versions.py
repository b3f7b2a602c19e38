"""What is installed here, and whether it is what a run speaks."""

import platform

import msgspec

from atoll import __version__
from atoll.doctor.finding import Finding
from atoll.swarm.messages import VERSION, Looked


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed here."""

    release: str  # of atoll
    protocol: int
    python: str
    self_test: bytes  # digest of what the kernels here make of a fixed input; empty: not tried


def versions(is_tested: bool) -> Versions:
    """Of this machine. `is_tested`: try the kernels, which compiles them the first time."""
    digest = b""
    if is_tested:
        from atoll.agent import diloco

        digest = diloco.self_test()
    return Versions(release=__version__, protocol=VERSION, python=platform.python_version(), self_test=digest)


def judge(found: Versions, looked: Looked | None) -> Finding:
    """Whether a run would take this atoll in."""
    about, said = "versions", f"atoll {found.release}, protocol {found.protocol}, Python {found.python}"
    if looked is None:
        return Finding(about=about, grade="right", found=said)
    if looked.version != found.protocol:
        return Finding(
            about=about,
            grade="wrong",
            found=f"{said}; the run speaks protocol {looked.version}",
            do=f"install its host's version: pip install atoll=={looked.release}",
        )
    if found.self_test and looked.self_test != found.self_test:
        return Finding(
            about=about,
            grade="wrong",
            found=f"{said}; the arithmetic of this machine gives other bits than the host's",
            do="install the host's versions of atoll, numba and numpy; if that does not help, the processor "
            "is faulty",
        )
    if looked.release != found.release:
        return Finding(
            about=about, grade="note", found=f"{said}; the host has atoll {looked.release}, which fits"
        )
    return Finding(about=about, grade="right", found=f"{said}, as the run's host")
