"""The trainer of an island: adopts, trains alone for a while, proposes; may be slow, or stand still."""

from collections import deque
from typing import TYPE_CHECKING

from atoll.agent.mapped import loaded_root
from atoll.samples import num_samples
from atoll.simulate.bits import LAYOUT, trained
from atoll.simulate.timeline import Signal, Work
from atoll.swarm import messages as m
from atoll.swarm.records import Message

if TYPE_CHECKING:
    from atoll.simulate.island import Island

ADOPT_SECONDS = 0.05
CONTEXT_LENGTH = 8


class Trainer:
    """Lives and dies with its island's process."""

    def __init__(self, island: "Island", step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self.slowness = 1.0
        self.stalled_until = 0.0  # true seconds
        self._island = island
        self._parameters = island.disk.parameters.copy()
        self._orders: deque[Message] = deque()
        self._ordered = Signal()

    def tell(self, message: Message) -> None:
        self._orders.append(message)
        self._ordered.fire()

    def live(self) -> Work:
        """The loop of `train.py`."""
        say = self._island.put
        yield 0.01
        say(m.Attached())
        while True:
            while not self._orders:
                yield self._ordered
            order = self._orders.popleft()
            if isinstance(order, m.Adopt):
                yield from self._pass(ADOPT_SECONDS)
                self._parameters = self._island.state.parameters.copy()
                say(m.Adopted(order.step, loaded_root(LAYOUT, order.table, self._parameters)))
            elif isinstance(order, m.Work):
                yield from self._train(order)

    def _train(self, work: m.Work) -> Work:
        plan, done, timeline = work.plan, 0, self._island.timeline
        began = timeline.now
        while done < plan.inner_steps and plan.has_time(done, 1, timeline.now - began):
            yield from self._pass(self.step_seconds)
            done += 1
            self._island.progress = m.Progress(plan.step, done, 1.0, 1.0)
            if self._orders:  # the step was decided without us
                return
        lease = plan.used_lease(done)
        self._island.state.local[:] = trained(self._parameters, plan, lease, self._island.name)
        self._island.trained_on = lease
        tokens = CONTEXT_LENGTH * num_samples(lease)
        self._island.put(
            m.Proposed(
                step=plan.step,
                tokens=tokens,
                inner_steps=done,
                loss=1.0,
                compute_seconds=timeline.now - began,
            )
        )

    def _pass(self, seconds: float) -> Work:
        yield seconds * self.slowness
        timeline = self._island.timeline
        while timeline.now < self.stalled_until:
            yield self.stalled_until - timeline.now
