"""A trainer without torch: each inner step moves its parameters towards TARGET, with noise of its own."""

import asyncio

import numpy as np
from worlds.network import FaultyNetwork

from atoll.agent.mapped import loaded_root
from atoll.agent.state import OuterState
from atoll.samples import num_samples
from atoll.swarm import messages as m
from atoll.swarm.records import Message
from atoll.swarm.transport import TransportError

TARGET = np.float32(3.0)  # the value that every parameter approaches
TRAINER = "'s trainer"  # after an island's name: the name of its trainer on the network


class NumpyTrainer:
    """The trainer of one island. `roots` is what it loaded, by the number of the state."""

    def __init__(
        self, name: str, state: OuterState, network: FaultyNetwork, seed: int, step_seconds: float
    ) -> None:
        self.roots: dict[int, bytes] = {}
        self.stopped: str | None = None
        self.name = name + TRAINER
        self.dead = False
        self._island = name
        self._state = state
        self._network = network
        self._random = np.random.default_rng(seed)
        self._step_seconds = step_seconds
        self._said: asyncio.Queue[m.AnyMessage] = asyncio.Queue()
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._said.put_nowait(m.Attached())
        self._parameters = np.zeros(state.layout.num_elements, np.float32)
        self._training: asyncio.Task[None] | None = None
        self._living = asyncio.create_task(self._live())

    def tell(self, message: Message) -> None:
        self._network.watch(self._island, self.name, message)
        self._told.put_nowait(message)

    async def hear(self) -> m.AnyMessage:
        message = await self._said.get()
        await self._network.until_moving(self._island)
        if self.dead:
            raise TransportError("the trainer is gone")
        return message

    def die(self) -> None:
        """End it as `kill -9` would: the agent reads the end of the socket."""
        self.dead = True
        self._living.cancel()
        if self._training is not None:
            self._training.cancel()
        self._said.put_nowait(m.Attached())  # wakes `hear`

    async def _say(self, message: m.AnyMessage) -> None:
        self._network.watch(self.name, self._island, message)
        await self._network.until_moving(self.name)
        self._said.put_nowait(message)

    async def _live(self) -> None:
        while True:
            message = await self._told.get()
            await self._network.until_moving(self.name)
            match message:
                case m.Adopt():
                    if self._training is not None:  # the swarm has decided the step without it
                        self._training.cancel()
                    self._parameters = np.array(self._state.parameters)
                    loaded = loaded_root(self._state.layout, message.table, self._parameters)
                    # A state that has moved on does not count; it is ordered again.
                    if self._state.version == message.step:
                        self.roots[message.step] = loaded
                    await self._say(m.Adopted(message.step, loaded))
                case m.Work():
                    self._training = asyncio.create_task(self._train(message))
                case m.Pulse():
                    pass
                case m.Stopped():
                    self.stopped = message.reason
                case _:
                    raise AssertionError(f"unexpected {message}")

    async def _train(self, work: m.Work) -> None:
        plan, done, clock = work.plan, 0, asyncio.get_running_loop().time
        began = clock()
        while done < plan.inner_steps and plan.has_time(done, 1, clock() - began):
            await asyncio.sleep(self._step_seconds)
            await self._network.until_moving(self.name)
            noise = self._random.standard_normal(len(self._parameters)).astype(np.float32)
            self._parameters += np.float32(0.05) * (TARGET - self._parameters) + np.float32(0.001) * noise
            done += 1
            await self._say(m.Progress(plan.step, done, 1.0, 1.0))
        self._state.local[:] = self._parameters
        tokens = 8 * num_samples(plan.used_lease(done))
        await self._say(
            m.Proposed(step=plan.step, tokens=tokens, inner_steps=done, loss=1.0, compute_seconds=0.1)
        )
