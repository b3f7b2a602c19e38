"""What an agent orders of its trainer, and what the trainer owes it in return, without I/O.

`AgentLine` (agent/line.py) carries the messages over a socket to an agent's process. The simulator and the
tests' worlds carry them through queues, in virtual time. The rules are the same, and stand here alone.
"""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from atoll.errors import UserError
from atoll.metrics import Metrics
from atoll.swarm.messages import (
    Adopt,
    Adopted,
    Attached,
    DataAt,
    Progress,
    Proposed,
    Pulse,
    Stopped,
    WantData,
    Work,
    trainer,
)
from atoll.swarm.records import Plan

MIN_SECONDS = 1e-9  # of inner steps: a rate is finite however coarse the clock


class Orders:
    """The trainer's side: it hears the agent, gives the trainer one order at a time, and answers the agent.

    A trainer calls `attach`, then `next` again and again until the run is finished. After an `Adopt` it
    loads the outer state and says so with `adopted`. After a `Plan` it does inner steps, with `progress`
    after each, and ends with `propose`, unless the swarm has `moved_on`. What the agent says goes to `hear`.
    """

    def __init__(self, say: Callable[[trainer.ToAgent], None], clock: Callable[[], float]) -> None:
        """`say` sends a message to the agent, or loses it when the agent is dead; `clock` gives seconds."""
        self.wanted: WantData | None = None  # asked for and not answered yet
        self.data_dir: Path | None = None  # the answer
        self._num_wanted = 0
        self._say = say
        self._clock = clock
        self._waiting: deque[Adopt | Work | Stopped] = deque()  # heard, and not given to the trainer yet
        self._attached = False
        self._loaded = b""  # root of the state that the trainer's weights began from; empty: of none
        self._plan: Plan | None = None  # worked on since the last adoption
        self._proposed: Proposed | None = None  # what came of it
        self._training = False  # on the plan, now
        self._inner_steps = 0  # done of the plan
        self._time_over = False  # the swarm will not wait for more of them
        self._metrics = Metrics()  # the newest figures of all plans
        # Of the plan, of the last time that it was told, and of its newest inner step, by the clock.
        self._began = self._told_at = self._last_step = 0.0

    # ------------------------------------------------------------------------------------ what the agent says
    def attach(self) -> None:
        """Tell the agent that the trainer is here, and from which state its weights began."""
        self._attached = True
        self._say(Attached(self._loaded))

    def hear(self, message: trainer.ToTrainer) -> None:
        """Take in a message of the agent: an order waits for `next`, an answer ends the wait for data.

        A sign of life changes nothing. The plan that is worked on, told again, says how much time is left.
        """
        if isinstance(message, DataAt):
            if self.wanted is not None and message.number == self.wanted.number:
                self.wanted, self.data_dir = None, Path(message.path)
        elif isinstance(message, Work) and self._is_under_way(message.plan):
            self._plan, self._told_at = message.plan, self._clock()
        elif not isinstance(message, Pulse):
            self._waiting.append(message)
            self.wanted = None  # an order ends the wait: its blocks were for a step that is over

    def agent_replaced(self) -> None:
        """Introduce the trainer to an agent in a dead one's place, which knows only what is in its files."""
        self._waiting.clear()  # the new one orders again what still counts
        if self._attached:
            self.attach()
        if self.wanted is not None:
            self._say(self.wanted)

    # --------------------------------------------------------------------------------- what the trainer does
    def next(self) -> Adopt | Plan | Stopped | None:
        """The next order; None when none waits. `Stopped` means that the run is finished.

        Raises UserError, with the agent's reason, when this island may not go on.
        """
        self._training = False
        while self._waiting:
            order = self._waiting.popleft()
            match order:
                case Adopt():
                    return order
                case Work() if self._plan is None:
                    self._begin(order.plan)
                    return order.plan
                case Work() if self._proposed is not None and self._planned.is_same_work(order.plan):
                    self._say(self._proposed)  # a new agent has not heard it
                case Work():
                    self._loaded = b""  # trained on: no longer the weights from which this plan begins
                    self.attach()
                case Stopped() if order.reason:
                    raise UserError(order.reason)
                case Stopped():
                    return order
        return None

    def adopted(self, order: Adopt, loaded: bytes) -> None:
        """Say that the trainer holds the ordered state; `loaded` is the root over what it really holds."""
        self._plan = self._proposed = None
        self._loaded = loaded
        self._say(Adopted(order.step, order.root, loaded))

    def measured(self, **figures: float | None) -> None:
        """Note figures, by their names in `Metrics`; they go out with the next progress or proposal."""
        self._metrics = msgspec.structs.replace(self._metrics, **figures)

    def progress(self, loss: float | None, tokens: int, inner_steps: int = 1) -> bool:
        """Report `inner_steps` more inner steps, their tokens and the last one's loss; whether to go on.

        False when the plan's time has no room for as many again: propose what is done. False, too, when the
        swarm has `moved_on`.
        """
        plan, now = self._planned, self._clock()
        rate = tokens / max(now - self._last_step, MIN_SECONDS)
        self._inner_steps += inner_steps
        self._last_step = now
        self.measured(loss=loss, tokens_per_second=rate)
        self._say(Progress(plan.step, self._inner_steps, self._metrics))
        more = min(inner_steps, plan.inner_steps - self._inner_steps)
        self._time_over = not plan.has_time(self._inner_steps, more, now - self._began, now - self._told_at)
        return not (self._time_over or self.moved_on)

    def propose(self, tokens: int, loss: float | None, count: int | None = None) -> None:
        """Say that the parameters after the inner steps lie in the mapping, with their tokens and mean loss.

        `count`: what the loss is a mean over, by which the proposal is weighed; None: its tokens.

        A trainer that does not ask `progress` whether there is time has done all of the plan.
        """
        plan, now = self._planned, self._clock()
        self._training = False
        self._proposed = Proposed(
            step=plan.step,
            tokens=tokens,
            inner_steps=self._inner_steps if self._time_over else plan.inner_steps,
            loss=loss,
            count=count,
            compute_seconds=now - self._began,
            handover_seconds=now - self._last_step,
            metrics=self._metrics,
        )
        self._say(self._proposed)

    @property
    def moved_on(self) -> bool:
        """Whether an order waits. While a plan is worked on: the swarm has decided its step without us."""
        return bool(self._waiting)

    def want(self, blocks: Mapping[str, tuple[int, ...]]) -> None:
        """Ask for blocks, by file, of the prepared data; `wanted` is not None until the wait is over.

        Then they are in `data_dir`; or it is None, because an order has come first.
        """
        self.data_dir = None
        if not self.moved_on:
            self._num_wanted += 1
            self.wanted = WantData(self._num_wanted, dict(blocks))
            self._say(self.wanted)

    # ------------------------------------------------------------------------------------------- the plan
    @property
    def _planned(self) -> Plan:
        assert self._plan is not None, "no plan has been given since the last adoption"
        return self._plan

    def _is_under_way(self, plan: Plan) -> bool:
        """Whether a plan is the work that the trainer is doing now."""
        return self._training and self._planned.is_same_work(plan)

    def _begin(self, plan: Plan) -> None:
        self._plan, self._training = plan, True
        self._inner_steps, self._time_over = 0, False
        self._began = self._told_at = self._last_step = self._clock()
