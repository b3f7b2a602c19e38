"""The heap of an island that trains on a CPU: every inner step frees the same large buffers and asks for them again."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_heap() -> None:
    """What is freed stays with this process, since the first touch of fresh pages is dear. Only glibc gives it back at all."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
        libc.mallopt(M_MMAP_MAX, 0)  # nor by unmapping
