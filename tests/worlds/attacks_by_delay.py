"""Attacks of a member "x" that keeps to all deadlines, or nearly: everybody waits for it, step by step."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from worlds.attack import Attack
from worlds.swarm import Swarm

from atoll.agent import link
from atoll.agent.reduce import Reduction
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.records import Attempt

SEND_PIECES, SERVE = Reduction._send_pieces, Reduction.serve


def on_attempt(swarm: Swarm, name: str, do: Callable[[Attempt], object]) -> None:
    """Call `do` as soon as `name` hears of an attempt that counts on it."""

    def watch(sender: str, receiver: str, message: Any) -> None:
        if receiver == name and isinstance(message, Attempt) and name in message.involved:
            asyncio.get_running_loop().call_soon(do, message)

    swarm.network.watches.append(watch)


class Dawdles(Attack):
    """What it has to say of one kind it says as late as is just waited for."""

    def __init__(self, kind: type, seconds: float, *, is_left_out: bool) -> None:
        self._kind, self._seconds = kind, seconds
        self.is_left_out, self.lost_seconds = is_left_out, 2.0 + 2 * seconds

    async def begin(self, swarm: Swarm) -> None:
        line = swarm.agents["x"]._link
        send, loop = line.send, asyncio.get_running_loop()

        def late(message: Any) -> None:
            if isinstance(message, self._kind):
                loop.call_later(self._seconds, send, message)
            else:
                send(message)

        line.send = late


class NeverHolds(Attack):
    """It never says that it holds an update, and beats as if it got a piece of it each second."""

    lost_seconds = 7.0

    async def begin(self, swarm: Swarm) -> None:
        line = swarm.agents["x"]._link
        send, protocol, began_at = line.send, swarm.coordinator.protocol, 0.0
        loop = asyncio.get_running_loop()

        def change(message: Any) -> None:
            nonlocal began_at
            if isinstance(message, m.Held):
                began_at = loop.time()
                return
            if isinstance(message, m.Beat) and protocol.attempt is not None:
                number, pieces = protocol.attempt.record.number, int(loop.time() - began_at)
                message = msgspec.structs.replace(message, attempt=number, num_pieces=pieces)
            send(message)

        line.send = change


class FallsSilent(Attack):
    """As soon as an attempt counts on it, it sends nothing, until it is called frozen."""

    lost_seconds = 7.0

    async def begin(self, swarm: Swarm) -> None:
        line, loop = swarm.agents["x"]._link, asyncio.get_running_loop()
        send, silent_until = line.send, 0.0

        def fall_silent(attempt: Attempt) -> None:
            nonlocal silent_until
            silent_until = loop.time() + swarm.rules.frozen_seconds + 0.1

        def change(message: Any) -> None:
            if loop.time() >= silent_until:
                send(message)

        async def never(reduction: Reduction, *given: Any) -> None:
            await (asyncio.sleep(1e6) if reduction.me == "x" else SEND_PIECES(reduction, *given))

        line.send = change
        on_attempt(swarm, "x", fall_silent)
        Reduction._send_pieces = never

    async def end(self) -> None:
        Reduction._send_pieces = SEND_PIECES


class Leaves(Attack):
    """It leaves each attempt that counts on it, and is back at once."""

    async def begin(self, swarm: Swarm) -> None:
        loop, network = asyncio.get_running_loop(), swarm.network
        self._pause_seconds, link.FIRST_PAUSE_SECONDS = link.FIRST_PAUSE_SECONDS, 0.001

        def leave(attempt: Attempt) -> None:
            network.cut_edge("x", COORDINATOR)
            loop.call_later(0.01, network.mend_edge, "x", COORDINATOR)

        on_attempt(swarm, "x", leave)

    async def end(self) -> None:
        link.FIRST_PAUSE_SECONDS = self._pause_seconds


class Says(Attack):
    """It says something at each attempt that counts on it."""

    def __init__(self, say: Callable[[Attempt], Any]) -> None:
        self._say = say

    async def begin(self, swarm: Swarm) -> None:
        def say(attempt: Attempt) -> None:
            if (message := self._say(attempt)) is not None:
                swarm.agents["x"]._link.send(message)

        on_attempt(swarm, "x", say)


def lost(attempt: Attempt) -> m.Fault:
    return m.Fault(step=attempt.step, number=attempt.number, peer="", kind="lost", text="gone")


def another_each_step(attempt: Attempt) -> m.Fault | None:
    """Only once in a step, so that no step sees it accuse many."""
    owners = sorted({part.owner for part in attempt.slices} - {"x"})
    if attempt.number > 1 or not owners:
        return None
    peer = owners[attempt.step % len(owners)]
    return m.Fault(step=attempt.step, number=1, peer=peer, kind="unreachable", text="no")


class SendsNothingToOne(Attack):
    """It sends nothing to one owner, and to another one in the next step."""

    lost_seconds = 9.0

    async def begin(self, swarm: Swarm) -> None:
        async def but_one(reduction: Reduction, stream: Any, *given: Any) -> None:
            owners = sorted({part.owner for part in reduction.attempt.slices} - {"x"})
            is_chosen = reduction.me == "x" and reduction.attempt.number == 1
            if is_chosen and stream.peer == owners[reduction.attempt.step % len(owners)]:
                await asyncio.sleep(1e6)
            await SEND_PIECES(reduction, stream, *given)

        Reduction._send_pieces = but_one

    async def end(self) -> None:
        Reduction._send_pieces = SEND_PIECES


class ServesNobody(Attack):
    """As an owner it answers nobody, and after each step it has a new line to the coordinator."""

    # Deadlines of 3 and 6 s, and one of 3 s after its first new line; a second one gives it nothing back.
    is_left_out, lost_seconds = False, 13.0

    async def begin(self, swarm: Swarm) -> None:
        async def never(reduction: Reduction, *given: Any) -> None:
            await (asyncio.sleep(1e6) if reduction.me == "x" else SERVE(reduction, *given))

        def redial() -> None:
            swarm.network.cut_edge("x", COORDINATOR)
            swarm.network.mend_edge("x", COORDINATOR)

        def watch(sender: str, receiver: str, message: Any) -> None:
            if receiver == "x" and isinstance(message, m.Committed):
                asyncio.get_running_loop().call_soon(redial)

        swarm.network.watches.append(watch)
        Reduction.serve = never

    async def end(self) -> None:
        Reduction.serve = SERVE
