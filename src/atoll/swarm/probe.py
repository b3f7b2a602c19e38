"""How much a line carries, as its two ends find out by sending filler for a moment.

A stranger asks for it before it joins, on its line to the host. What comes of it is therefore the slower of
the two links, and no more than one connection carries.
"""

import asyncio
import os
from typing import Any

from atoll.swarm import messages as m
from atoll.swarm.transport import Stream, TransportError, within

FRAME_BYTES = 24 << 10  # a stranger may send no more at once than a request for a certificate takes
NUM_FRAMES = 80  # each way: about 2 MB
SECONDS = 2.0  # each way, where the line is slower than that
FRAME_SECONDS = 5.0  # for the other end to take a frame: who reads none is let go
_FILLER = os.urandom(FRAME_BYTES)  # so that nothing on the way makes it smaller


async def send_filler(stream: Stream[Any]) -> None:
    """Send filler until all has left or the time is over, then say that it ends.

    Raises TransportError, also for who takes no frame within FRAME_SECONDS.
    """
    clock = asyncio.get_running_loop().time
    ends, num_sent = clock() + SECONDS, 0
    while num_sent < NUM_FRAMES and clock() < ends:
        await within(FRAME_SECONDS, stream.send(m.Probing(), _FILLER), "filler")
        num_sent += 1
    await within(FRAME_SECONDS, stream.send(m.Probing()), "the end of the filler")


async def take_filler(stream: Stream[Any]) -> m.Probed:
    """What came of the other end's filler until it has ended or the time is over. Raises TransportError.

    The first half only shows that a connection becomes faster while it is new, so the second one counts. No
    wait is cut short where the time is over, since gRPC ends a call whose reading is given up.
    """
    clock = asyncio.get_running_loop().time
    ends, came = clock() + SECONDS, list[float]()
    while clock() < ends:
        _, filler = await stream.receive(SECONDS)
        if not filler:
            break
        came.append(clock())
    if len(came) < 2:
        raise TransportError("the line is too slow to be measured")
    half = (len(came) - 1) // 2
    return m.Probed(num_bytes=(len(came) - 1 - half) * FRAME_BYTES, seconds=came[-1] - came[half])
