"""How others are found: names are resolved, and of several addresses the one that answers first is used.

Every wait has a deadline of a few seconds, and what could not be reached is said address by address.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from atoll.swarm.address import Address
from atoll.swarm.transport import DIAL_SECONDS, TransportError, within

STAGGER_SECONDS = 0.3  # an address that has not answered by then is not waited for before the next is tried

C = TypeVar("C")
R = TypeVar("R")


async def first_to_answer(
    candidates: Sequence[C],
    dial: Callable[[C], Coroutine[Any, Any, R]],
    discard: Callable[[R], Awaitable[None]],
) -> tuple[C, R]:
    """The first candidate that can be dialled, in their order as far as they answer at once; and the result.

    Results that come too late are discarded. Raises TransportError, with every candidate's reason.
    """
    waiting, reasons = list(candidates), list[str]()
    tasks: dict[asyncio.Task[R], C] = {}
    try:
        while tasks or waiting:
            if waiting:
                candidate = waiting.pop(0)
                tasks[asyncio.create_task(dial(candidate))] = candidate
            patience = STAGGER_SECONDS if waiting else None
            done, _ = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in tasks if task in done]:
                try:
                    result = task.result()
                except TransportError as error:
                    reasons.append(str(error))
                    del tasks[task]
                else:
                    return tasks.pop(task), result
        raise TransportError("; ".join(reasons) or "there is no address to dial")
    finally:
        for task in tasks:
            task.cancel()
        for late in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(late, BaseException):
                await discard(late)


async def resolve(host: str) -> list[str]:
    """The IP addresses of a host, in the order in which this machine would try them.

    Raises TransportError if there is none, or no answer within DIAL_SECONDS.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str] | TransportError] = loop.create_future()

    def settle(found: list[str] | TransportError) -> None:
        if not answer.done():  # it may come too late
            answer.set_result(found)

    def look_up() -> None:
        # A thread of its own that nobody waits for: a name service that is down holds it for minutes.
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            found = TransportError(f"{host} cannot be resolved ({reason})")
        else:
            hosts = dict.fromkeys(str(entry[4][0]) for entry in entries)
            found = [host for host in hosts if "%" not in host]  # an address with a zone is of no use here
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, daemon=True, name="resolve").start()
    found = await within(DIAL_SECONDS, answer, f"the name service, asked for {host}")
    if isinstance(found, TransportError):
        raise found
    return found


async def certificate_at(address: Address) -> tuple[Address, bytes]:
    """The certificate (DER) that a TLS server shows, unverified, and at which IP address it answered.

    Raises TransportError.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def fetch(host: str) -> bytes:
        where = Address(host, address.port)
        connecting = asyncio.open_connection(host, address.port, ssl=context)
        try:
            _, writer = await within(DIAL_SECONDS, connecting, str(where))
        except OSError as error:
            raise TransportError(f"{where}: {_reason(error)}") from None
        try:
            return writer.get_extra_info("ssl_object").getpeercert(True)
        finally:
            writer.transport.abort()

    async def forget(_: bytes) -> None: ...

    host, certificate = await first_to_answer(await resolve(address.host), fetch, forget)
    return Address(host, address.port), certificate


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "what answers there speaks no TLS"
    return os.strerror(error.errno).lower() if error.errno else str(error)
