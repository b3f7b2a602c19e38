"""What the kernel has counted on this process's TCP connections to other machines.

These are the bytes that really crossed the link: those that the other end has acknowledged, and those that
have come. What an agent has handed to gRPC may still lie in a buffer. Only Linux is asked; elsewhere nothing
is known, and this agent's link is taken to be as slow as the slowest.
"""

import os
import socket
import struct
import sys
from typing import NamedTuple

_TCP_INFO = getattr(socket, "TCP_INFO", 11)
_ACKED_AND_RECEIVED = struct.Struct("<QQ")  # in the kernel's struct tcp_info, which only ever grows
_ACKED_OFFSET = 120
_INFO_BYTES = 256


class Crossed(NamedTuple):
    """Bytes of payload of one connection, since it was opened."""

    sent: int
    received: int


def crossed() -> dict[int, Crossed]:
    """By a connection's inode, of all open TCP connections that leave this machine."""
    if not sys.platform.startswith("linux"):
        return {}
    found: dict[int, Crossed] = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (numbers, not paths)
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
            if target.startswith("socket:[") and (counts := _counts(int(name))) is not None:
                found[int(target[8:-1])] = counts
        except OSError:
            continue  # closed meanwhile, or not connected
    return found


def _counts(handle: int) -> Crossed | None:
    """Of one socket, which stays its owner's; None where it is no TCP connection to another machine."""
    looked_at = socket.socket(fileno=handle)
    try:
        if looked_at.family not in (socket.AF_INET, socket.AF_INET6) or looked_at.type != socket.SOCK_STREAM:
            return None
        if looked_at.getpeername()[0] == looked_at.getsockname()[0]:
            return None
        info = looked_at.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
    finally:
        looked_at.detach()
    if len(info) < _ACKED_OFFSET + _ACKED_AND_RECEIVED.size:
        return None
    return Crossed(*_ACKED_AND_RECEIVED.unpack_from(info, _ACKED_OFFSET))
