"""What the kernel has counted on this process's TCP connections to other machines.

These are the bytes that really crossed the link: those that the other end has acknowledged, and those that
have come. What an agent has handed to gRPC may still lie in a buffer. Only Linux is asked; elsewhere nothing
is known, and this agent's link is taken to be as slow as the slowest.
"""

import contextlib
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


class Connections:
    """The TCP connections that this process has to other machines, and what has crossed them."""

    def __init__(self) -> None:
        # By handle and what the kernel calls it: whether it is one of them. Handles are many, and to ask the
        # kernel of each again and again took most of an agent's time in a swarm of 32.
        self._known: dict[tuple[int, str], bool] = {}

    def crossed(self) -> dict[int, Crossed]:
        """By a connection's inode, of all that are open."""
        if not sys.platform.startswith("linux"):
            return {}
        found: dict[int, Crossed] = {}
        known, self._known = self._known, {}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (numbers, not paths)
            handle = int(name)
            with contextlib.suppress(OSError):  # closed meanwhile, or not connected yet
                target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
                key = handle, target
                if key not in known:
                    known[key] = target.startswith("socket:[") and _leaves_this_machine(handle)
                self._known[key] = known[key]
                if known[key] and (counts := _counts(handle)) is not None:
                    found[int(target[8:-1])] = counts
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
    """Of one TCP connection; None where the kernel does not say."""
    # The kernel asks nothing of its address family for this question, so any will do.
    looked_at = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=handle)
    try:
        info = looked_at.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_BYTES)
    finally:
        looked_at.detach()
    if len(info) < _ACKED_OFFSET + _ACKED_AND_RECEIVED.size:
        return None
    return Crossed(*_ACKED_AND_RECEIVED.unpack_from(info, _ACKED_OFFSET))
