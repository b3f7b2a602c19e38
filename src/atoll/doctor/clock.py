"""Whether this machine's clock is right. Only certificates depend on it; logs are easier to read with it."""

import ctypes
import sys

from atoll.doctor.finding import Finding

_STA_UNSYNC = 0x0040  # of the kernel's struct timex: nobody disciplines the clock
_TIMEX_BYTES = 512  # more than any kernel's struct takes
_STATUS_OFFSET = 40  # of `status`: after modes (padded), offset, freq, maxerror and esterror
_TIME_ERROR = 5
FAR_SECONDS = 2.0  # from the host's clock


def is_synchronised() -> bool | None:
    """Whether a service of the network keeps the kernel's clock right; None: that cannot be asked here."""
    if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    answer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: only asks
    state = ask(answer)
    if state < 0:
        return None
    status = int.from_bytes(answer.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], sys.byteorder)
    return state != _TIME_ERROR and not status & _STA_UNSYNC


def judge(synchronised: bool | None, ahead_seconds: float | None) -> Finding:
    """`ahead_seconds`: of the host's clock, as far as one answer tells; None: no host was asked."""
    advice = "turn the time service on: timedatectl set-ntp true"
    if ahead_seconds is not None:
        if abs(ahead_seconds) > FAR_SECONDS:
            which = "ahead of" if ahead_seconds > 0 else "behind"
            return Finding(
                about="clock",
                grade="note",
                found=f"{abs(ahead_seconds):.0f} s {which} the host's; one of the two is wrong",
                do=advice,
            )
        return Finding(about="clock", grade="right", found=f"within {FAR_SECONDS:.0f} s of the host's")
    if synchronised is None:
        return Finding(about="clock", grade="unknown", found="this system does not say whether it is right")
    if not synchronised:
        return Finding(
            about="clock",
            grade="note",
            found="the kernel knows of no time service that keeps it right (a container may hide it)",
            do=advice,
        )
    return Finding(about="clock", grade="right", found="kept right by a time service")
