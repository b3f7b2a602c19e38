"""What the kernel has counted on this process's TCP connections to other machines.

These are the bytes that really crossed the link: those that the other end has acknowledged, and those that
have come. What an agent has handed to gRPC may still lie in a buffer. Only Linux is asked; elsewhere nothing
is known, and this agent's link is taken to be as slow as the slowest.
"""

import ctypes
import os
import socket
import stat
import struct
import sys
from typing import NamedTuple

_TCP_INFO = getattr(socket, "TCP_INFO", 11)
_ACKED_AND_RECEIVED = struct.Struct("<QQ")  # in the kernel's struct tcp_info, which only ever grows
_ACKED_OFFSET = 120
_INFO_BYTES = 256
_LIBC = ctypes.CDLL(None)


class Crossed(NamedTuple):
    """Bytes of payload of one connection, since it was opened."""

    sent: int
    received: int


class Connections:
    """The TCP connections that this process has to other machines, and what has crossed them."""

    def __init__(self) -> None:
        # By handle and inode: whether it is one of them. What an agent asks of hundreds of handles, several
        # times a second, has to cost little.
        self._known: dict[tuple[int, int], bool] = {}

    def crossed(self) -> dict[int, Crossed]:
        """By a connection's inode, of all that are open."""
        if not sys.platform.startswith("linux"):
            return {}
        found: dict[int, Crossed] = {}
        known, self._known = self._known, {}
        for handle in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 (numbers, not paths)
            try:
                now = os.fstat(handle)
                key = handle, now.st_ino
                if key not in known:
                    known[key] = stat.S_ISSOCK(now.st_mode) and _leaves_this_machine(handle)
            except OSError:
                continue  # closed meanwhile, or not connected yet
            self._known[key] = known[key]
            if known[key] and (counts := _counts(handle)) is not None:
                found[now.st_ino] = counts
        return found


def _leaves_this_machine(handle: int) -> bool:
    """Whether a socket is a TCP connection to another machine. Raises OSError while it is not connected."""
    looked_at = socket.socket(fileno=handle)
    try:
        if looked_at.family not in (socket.AF_INET, socket.AF_INET6) or looked_at.type != socket.SOCK_STREAM:
            return False
        return looked_at.getpeername()[0] != looked_at.getsockname()[0]
    finally:
        looked_at.detach()  # it stays its owner's


def _counts(handle: int) -> Crossed | None:
    """Of one TCP connection; None where the kernel does not say.

    By libc itself: a socket object for each question would cost four times as much.
    """
    info, size = ctypes.create_string_buffer(_INFO_BYTES), ctypes.c_uint32(_INFO_BYTES)
    failed = _LIBC.getsockopt(handle, socket.IPPROTO_TCP, _TCP_INFO, info, ctypes.byref(size))
    if failed or size.value < _ACKED_OFFSET + _ACKED_AND_RECEIVED.size:
        return None
    return Crossed(*_ACKED_AND_RECEIVED.unpack_from(info, _ACKED_OFFSET))
