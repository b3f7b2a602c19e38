"""A trainer without torch: what its inner steps make is noise of its own, and the rest is production's.

It is a process of its own. `Orders` decides what it does, as in an island; it maps the same files as its
agent, and starts another agent in the place of one that died.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from atoll.agent.arrays import Floats
from atoll.agent.mapped import OuterMapping
from atoll.agent.orders import Orders
from atoll.errors import UserError
from atoll.samples import num_samples
from atoll.simulate.process import Process
from atoll.swarm import messages as m
from atoll.swarm.messages.trainer import ToAgent, ToTrainer
from atoll.swarm.records import Plan
from atoll.swarm.transport import TransportError

if TYPE_CHECKING:
    from atoll.simulate.site import Site

CONTEXT_LENGTH = 8
SILENT_SECONDS, FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 60.0, 0.4, 5.0  # as in agent/line.py
NOISE = np.float32(0.01)


class Socket:
    """The pair of sockets between a trainer and one agent. What is sent arrives at once, in order."""

    def __init__(self, trainer: "Trainer") -> None:
        self.closed = False
        self._trainer = trainer
        self._said: deque[ToAgent] = deque()
        self._told: deque[ToTrainer] = deque()
        self._news: list[asyncio.Future[None]] = []

    def tell(self, message: ToTrainer) -> None:
        """An agent's `Trainer.tell`."""
        if not self.closed:
            site = self._trainer.site
            if site.agent_process is not None:
                site.world.network.watch(site.agent_process, self._trainer.process.name, message)
            self._told.append(message)
            self._wake()

    async def hear(self) -> ToAgent:
        """An agent's `Trainer.hear`."""
        while not self._said:
            if self.closed:
                raise TransportError("the trainer is gone")
            await self._change()
        return self._said.popleft()

    def say(self, message: ToAgent) -> None:
        """The trainer's side of the same."""
        if not self.closed:
            self._trainer.site.world.network.watch(self._trainer.process, self._trainer.site.name, message)
            self._said.append(message)
            self._wake()

    async def told(self) -> ToTrainer:
        while not self._told:
            if self.closed:
                raise TransportError("the agent is gone")
            await self._change()
        return self._told.popleft()

    def told_already(self) -> ToTrainer | None:
        return self._told.popleft() if self._told else None

    def close(self) -> None:
        """One of the two is dead: the other reads the end."""
        self.closed = True
        self._wake()

    async def _change(self) -> None:
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.append(news)
        await news

    def _wake(self) -> None:
        for news in self._news:
            if not news.done():
                news.set_result(None)
        self._news.clear()


class Trainer:
    """One life of an island's trainer."""

    def __init__(self, site: "Site", process: Process) -> None:
        self.site = site
        self.process = process
        self.slowness = 1.0
        self.stopped: str | None = None  # why its island may not go on; "" for a finished run
        self.socket = Socket(self)
        self.parameters: Floats | None = None
        self._orders = Orders(self._say, asyncio.get_running_loop().time)
        self._num_young = 0  # agents in a row that died soon

    async def live(self) -> None:
        """As `train.py`, until the run is finished."""
        self._start_agent()
        self._orders.attach()
        try:
            while True:
                match self._orders.next():
                    case m.Adopt() as order:
                        await self._adopt(order)
                    case Plan() as plan:
                        await self._train(plan)
                    case m.Stopped():
                        self.stopped = ""
                        return
                    case None:
                        await self._hear()
        except UserError as error:
            self.stopped = str(error)

    def _start_agent(self) -> None:
        self.socket = Socket(self)
        self.site.start_agent(self.socket)
        self._mapping = OuterMapping(self.site.directory, self.site.world.layout)
        self._began_at = asyncio.get_running_loop().time()

    def _say(self, message: ToAgent) -> None:
        self.socket.say(message)

    async def _hear(self) -> None:
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                message = await self.socket.told()
        except TimeoutError:
            self.site.kill_agent()
        except TransportError:
            await self._replace_agent()
        else:
            self._orders.hear(message)

    async def _replace_agent(self) -> None:
        loop = asyncio.get_running_loop()
        self._num_young = self._num_young + 1 if loop.time() - self._began_at < 20.0 else 0
        pause = min(FIRST_PAUSE_SECONDS * 2**self._num_young, LAST_PAUSE_SECONDS)
        if reason := self.site.agent_stopped:
            raise UserError(reason)
        await asyncio.sleep(pause)
        self._start_agent()
        self._orders.agent_replaced()

    # ----------------------------------------------------------------------------------------- what it does
    async def _adopt(self, order: m.Adopt) -> None:
        await asyncio.sleep(0.001)
        taken = np.empty(self.site.world.layout.num_elements, np.float32)

        def copy(outer: Floats) -> None:
            taken[:] = outer

        self._mapping.read(copy, lambda: not self.socket.closed)
        self._mapping.local[:] = taken
        loaded = self._mapping.proof(order.table)
        self.parameters = taken
        self.site.world.invariants.loaded(self.site, order, loaded, taken)
        self._orders.adopted(order, loaded)

    async def _train(self, plan: Plan) -> None:
        assert self.parameters is not None, "a plan before any state was adopted"
        done, has_time = 0, True
        while has_time and done < plan.inner_steps:
            await asyncio.sleep(self.site.step_seconds * self.slowness)
            await asyncio.sleep(max(0.0, self.site.stalled_seconds))
            done += 1
            while (message := self.socket.told_already()) is not None:
                self._orders.hear(message)
            has_time = self._orders.progress(1.0, self._tokens(plan, done) - self._tokens(plan, done - 1))
        if self._orders.moved_on:
            return
        lease = plan.used_lease(done)
        random = np.random.default_rng(self.site.random.getrandbits(64))
        noise = random.standard_normal(len(self.parameters)).astype(np.float32)
        local = np.asarray(self.parameters + NOISE * noise, np.float32)
        self._mapping.local[:] = local
        self.site.world.invariants.trained(self.site, plan, lease, local)
        self._orders.propose(self._tokens(plan, done), 1.0)

    def _tokens(self, plan: Plan, num_inner_steps: int) -> int:
        return CONTEXT_LENGTH * num_samples(plan.used_lease(num_inner_steps)) if num_inner_steps else 0
