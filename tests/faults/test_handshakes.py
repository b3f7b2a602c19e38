"""Many members dial an agent at once while its certificate is renewed: it lives.

gRPC 1.85 crashed (SIGSEGV, or an abort) when each handshake was given a configuration of its own; it is given
one only when the certificate is new.
"""

import asyncio
import multiprocessing as mp
import time
from pathlib import Path
from typing import Any

import pytest

from atoll.swarm.address import Address
from atoll.swarm.grpc_transport import GrpcTransport
from atoll.swarm.identity import COORDINATOR, Credentials, RunKeys, island_key
from atoll.swarm.messages import Ping
from atoll.swarm.services import PING
from atoll.swarm.transport import TransportError

NUM_DIALLING, NUM_AT_ONCE, NUM_ROUNDS = 4, 12, 8
RENEW_SECONDS = 0.3
SECONDS = 120.0


def serve(directory: Path, port: Any, end: Any) -> None:
    async def main() -> None:
        keys = RunKeys(directory, "test")
        transport = GrpcTransport(keys.new_credentials(COORDINATOR))

        async def answer(stream: Any) -> None:
            await stream.receive(SECONDS)

        port.value = await transport.serve(Address("127.0.0.1", 0), {PING: answer})
        while not end.is_set():
            await asyncio.sleep(RENEW_SECONDS)
            transport.renew(keys.new_credentials(COORDINATOR))
        await transport.close()

    asyncio.run(main())


def dial(own: Credentials, port: int) -> None:
    async def one() -> None:
        transport = GrpcTransport(own)
        try:
            stream = await transport.connect((Address("127.0.0.1", port),), COORDINATOR, PING, 10.0)
            await stream.send(Ping())
        except TransportError:
            pass  # it is within its rights to turn so many of one member away
        finally:
            await transport.close()

    async def main() -> None:
        for _ in range(NUM_ROUNDS):
            await asyncio.gather(*(one() for _ in range(NUM_AT_ONCE)))

    asyncio.run(main())


@pytest.mark.slow
def test_handshakes_that_come_at_once_do_not_end_an_agent(tmp_path) -> None:
    keys = RunKeys(tmp_path, "test")
    _, key, request = island_key(tmp_path)
    own = Credentials(key, keys.issue(request), keys.authority)
    context = mp.get_context("spawn")
    port, end = context.Value("i", 0), context.Event()
    server = context.Process(target=serve, args=(tmp_path, port, end))
    server.start()
    deadline = time.monotonic() + SECONDS
    while not port.value and time.monotonic() < deadline:
        time.sleep(0.05)
    dialling = [context.Process(target=dial, args=(own, port.value)) for _ in range(NUM_DIALLING)]
    for each in dialling:
        each.start()
    for each in dialling:
        each.join(SECONDS)
    end.set()
    server.join(SECONDS)
    assert server.exitcode == 0
