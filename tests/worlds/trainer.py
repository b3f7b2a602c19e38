"""A trainer without torch: each inner step moves its parameters towards TARGET, with noise of its own."""

import asyncio

import numpy as np
from worlds.network import FaultyNetwork

from atoll.agent.mapped import loaded_root
from atoll.agent.orders import Orders
from atoll.agent.state import OuterState
from atoll.errors import UserError
from atoll.samples import num_samples
from atoll.swarm import messages as m
from atoll.swarm.messages.trainer import ToAgent, ToTrainer
from atoll.swarm.records import Plan
from atoll.swarm.transport import TransportError

TARGET = np.float32(3.0)  # the value that every parameter approaches
TRAINER = "'s trainer"  # after an island's name: the name of its trainer on the network
LOSS = 1.0
TOKENS_PER_SAMPLE = 8
MEASURED = {"heldout_loss": 2.5, "gradient_norm": 0.5, "learning_rate": 0.01}


class NumpyTrainer:
    """The trainer of one island. `roots` is what it loaded, by the number of the state.

    Messages wait in queues while their receiver is frozen, as in a socket's buffers.
    """

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
        self._said: asyncio.Queue[ToAgent] = asyncio.Queue()
        self._told: asyncio.Queue[ToTrainer] = asyncio.Queue()
        self._orders = Orders(self._say, asyncio.get_running_loop().time)
        self._parameters = np.zeros(state.layout.num_elements, np.float32)
        self._living = asyncio.create_task(self._live())

    # ------------------------------------------------------------------------------------ what its agent uses
    def tell(self, message: ToTrainer) -> None:
        self._network.watch(self._island, self.name, message)
        self._told.put_nowait(message)

    async def hear(self) -> ToAgent:
        message = await self._said.get()
        await self._network.until_moving(self.name)
        await self._network.until_moving(self._island)
        if self.dead:
            raise TransportError("the trainer is gone")
        return message

    def die(self) -> None:
        """End it as `kill -9` would: the agent reads the end of the socket."""
        self.dead = True
        self._living.cancel()
        self._said.put_nowait(m.Attached())  # wakes `hear`

    # ----------------------------------------------------------------------------------------------- its life
    async def _live(self) -> None:
        self._orders.attach()
        try:
            while self.stopped is None:
                match self._orders.next():
                    case m.Adopt() as order:
                        self._adopt(order)
                    case Plan() as plan:
                        await self._train(plan)
                    case m.Stopped():
                        self.stopped = ""
                    case None:
                        message = await self._told.get()
                        await self._network.until_moving(self.name)
                        self._orders.hear(message)
        except UserError as error:
            self.stopped = str(error)

    def _say(self, message: ToAgent) -> None:
        self._network.watch(self.name, self._island, message)
        self._said.put_nowait(message)

    def _adopt(self, order: m.Adopt) -> None:
        self._parameters = np.array(self._state.parameters)
        loaded = loaded_root(self._state.layout, order.table, self._parameters)
        if self._state.version == order.step:  # a state that has moved on does not count, and comes again
            self.roots[order.step] = loaded
        self._orders.adopted(order, loaded)

    async def _train(self, plan: Plan) -> None:
        done, has_time = 0, True
        while has_time and done < plan.inner_steps:
            await asyncio.sleep(self._step_seconds)
            await self._network.until_moving(self.name)
            noise = self._random.standard_normal(len(self._parameters)).astype(np.float32)
            self._parameters += np.float32(0.05) * (TARGET - self._parameters) + np.float32(0.001) * noise
            done += 1
            while not self._told.empty():
                self._orders.hear(self._told.get_nowait())
            self._orders.measured(**MEASURED)
            has_time = self._orders.progress(LOSS, TOKENS_PER_SAMPLE)
            await self._network.until_moving(self.name)
        if not self._orders.moved_on:
            self._state.local[:] = self._parameters
            self._orders.propose(TOKENS_PER_SAMPLE * num_samples(plan.used_lease(done)), LOSS)
