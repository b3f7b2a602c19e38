"""The trainer of an island: adopts, trains alone for a while, proposes; may be slow, or stand still.

What it makes of its agent's messages is production's (agent/orders.py). What it does in between is modelled.
"""

from typing import TYPE_CHECKING

from atoll.agent.mapped import loaded_root
from atoll.agent.orders import Orders
from atoll.samples import num_samples
from atoll.simulate.bits import LAYOUT, trained
from atoll.simulate.timeline import Signal, Work
from atoll.swarm.messages import Adopt, Progress
from atoll.swarm.messages.trainer import ToAgent, ToTrainer
from atoll.swarm.records import Plan

if TYPE_CHECKING:
    from atoll.simulate.island import Island

START_SECONDS = 0.01
ADOPT_SECONDS = 0.05
CONTEXT_LENGTH = 8
LOSS = 1.0


class Trainer:
    """Lives and dies with its island's process."""

    def __init__(self, island: "Island", step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.slowness = 1.0
        self.stalled_until = 0.0  # true seconds
        self._island = island
        self._parameters = island.disk.parameters.copy()
        self._orders = Orders(self._say, lambda: island.timeline.now)
        self._ordered = Signal()

    def tell(self, message: ToTrainer) -> None:
        self._orders.hear(message)
        self._ordered.fire()

    def live(self) -> Work:
        """The loop of `train.py`, without an end: an island whose agent says `Stopped` dies as a whole."""
        yield START_SECONDS
        self._orders.attach()
        while True:
            match self._orders.next():
                case Adopt() as order:
                    yield from self._adopt(order)
                case Plan() as plan:
                    yield from self._train(plan)
                case _:
                    yield self._ordered

    def _say(self, message: ToAgent) -> None:
        if isinstance(message, Progress):
            self._island.progress = message
        else:
            self._island.put(message)

    def _adopt(self, order: Adopt) -> Work:
        yield from self._pass(ADOPT_SECONDS)
        self._parameters = self._island.state.parameters.copy()
        self._orders.adopted(order, loaded_root(LAYOUT, order.table, self._parameters))

    def _train(self, plan: Plan) -> Work:
        done, has_time = 0, True
        while has_time and done < plan.inner_steps:
            yield from self._pass(self.step_seconds)
            done += 1
            has_time = self._orders.progress(LOSS, CONTEXT_LENGTH)
        if self._orders.moved_on:
            return
        lease = plan.used_lease(done)
        self._island.state.local[:] = trained(self._parameters, plan, lease, self._island.name)
        self._island.trained_on = lease
        self._orders.propose(CONTEXT_LENGTH * num_samples(lease), LOSS)

    def _pass(self, seconds: float) -> Work:
        yield seconds * self.slowness
        timeline = self._island.timeline
        while timeline.now < self.stalled_until:
            yield self.stalled_until - timeline.now
