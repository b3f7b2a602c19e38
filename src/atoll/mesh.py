"""ElasticDeviceMesh: the two sides of an island. `local` is fixed ranks; `swarm` is whoever is there.

Under torchrun every rank calls everything here, in the same order. Rank 0 talks to the island's agent and
tells the others; each moves its own rows between its parameters and the agent's mapped files.

Bring your own module and loop (`examples/own_loop.py`), or read `train.py`, which is one.
"""

import contextlib
import select
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from atoll.agent import membership
from atoll.agent.mapped import LOCAL, MOMENTUM, PARAMETERS, loaded_root, map_file, map_generation
from atoll.agent.settings import Settings, command
from atoll.agent.trainer import frame, read_frame
from atoll.errors import UserError
from atoll.island.parallelize import device as device_named
from atoll.island.ranks import Ranks, own_rows
from atoll.run.processes import Child
from atoll.swarm import messages as m
from atoll.swarm.layout import Layout
from atoll.swarm.records import Message, Plan
from atoll.swarm.transport import TransportError

SILENT_SECONDS = (
    60.0  # an agent pulses every few seconds; one silent for so long is frozen, and started afresh
)
ENROL_SECONDS = 120.0
MAX_RESTARTS = 5  # of an agent without a word from it in between
__all__ = ["Adopt", "ElasticDeviceMesh", "Plan", "Swarm"]


@dataclass(frozen=True)
class Adopt:
    """An order: an update is committed, for all of us; load the outer state."""

    step: int
    message: m.Adopt


class Swarm:
    """The elastic side, through this island's agent. Orders come in; progress and proposals go out."""

    def __init__(self, settings: Settings, ticket: str, ranks: Ranks, log: Path | None = None) -> None:
        """Start the agent. `ticket` may be empty once this directory is a member. `log` takes its standard
        error.

        All three are rank 0's to give.
        """
        self.outer_steps = 0  # adopted by this process
        self.moved_on = False  # the swarm has decided the step under way without us
        self._ranks = ranks
        self._settings = ranks.first(lambda: settings)
        self._ticket = ticket
        self._log = log
        self._plan: Plan | None = None  # trained on since the last adoption, with how much of it is done
        self._inner_step = 0
        self._time_over = False
        self._proposed: m.Proposed | None = None
        self._loaded = b""  # at the last adoption
        self._started = self._step_started = time.monotonic()
        self._restarts = 0
        self._attached = False  # this and what is wanted must a new agent be told again
        self._wanted: m.WantData | None = None
        self._num_wanted = 0
        self._pending: list[m.AnyMessage] = []
        self._layout: Layout | None = None
        self._agent: Child | None = None  # rank 0 has it
        if ranks.number == 0:
            self._start_agent()

    # ------------------------------------------------------------------------------------------------ orders
    def orders(self) -> Iterator[Adopt | Plan]:
        """What to do next, until the run is finished. Raises UserError when this island may not go on."""
        self._attached = True
        self._tell(m.Attached())
        while True:
            message = self._ranks.first(self._next)
            match message:
                case m.Adopt():
                    yield Adopt(message.step, message)
                case m.Work() if self._plan is None:
                    self._plan, self._inner_step, self._time_over, self.moved_on = (
                        message.plan,
                        0,
                        False,
                        False,
                    )
                    self._started = self._step_started = time.monotonic()
                    yield message.plan
                case m.Work() if self._proposed and self._planned.is_same_work(message.plan):
                    self._tell(self._proposed)  # to the agent in the place of a dead one
                case m.Work():
                    self._tell(m.Attached())  # our weights are no more those where it begins: adopt first
                case m.Stopped() if message.reason:
                    raise UserError(message.reason)
                case m.Stopped():
                    return
                case _:
                    raise RuntimeError(f"the agent sent {type(message).__name__}")

    def adopt(self, order: Adopt, parameters: Mapping[str, Tensor]) -> None:
        """Copy the outer state into these parameters, in place, and prove to the swarm what they now hold.

        DTensors get their own rows; all ranks are done when rank 0 proves it.
        Raises UserError unless names and shapes are exactly the run's.
        """
        layout = self._open()
        self._check(parameters)
        outer, generation = self._outer, self._generation
        while True:
            before = int(generation[0])
            with torch.no_grad():
                for tensor, start in zip(layout.tensors, layout.offsets, strict=False):
                    before_ours, ours = own_rows(parameters[tensor.name])
                    values = np.array(outer[start + before_ours : start + before_ours + ours.numel()])
                    ours.copy_(torch.from_numpy(values).view(ours.shape))
            if before % 2 == 0 and int(generation[0]) == before:
                break
            if self._agent is not None and not self._agent.alive:
                # it died while applying; the next one mends the state, asks for no proof of this, and orders
                # again
                break
            time.sleep(0.001)  # the agent is applying an update: what was copied may be torn
        self._write_local(parameters)
        self.outer_steps += 1
        self._plan = self._proposed = None
        if self._ranks.number == 0:
            self._loaded = loaded_root(layout, order.message.table, self._local)
            self._tell(m.Adopted(order.step, self._loaded))

    def progress(self, loss: float, tokens: int, inner_steps: int = 1) -> bool:
        """Report inner steps, their tokens and the last one's loss; whether there is time for as many more.

        False: propose what is done; or, where the swarm has `moved_on`, go on to the next order.
        """
        plan = self._planned
        self._inner_step += inner_steps
        now = time.monotonic()
        rate = tokens / max(now - self._step_started, 1e-9)
        self._step_started = now
        self._tell(m.Progress(plan.step, self._inner_step, loss, rate))
        more = min(inner_steps, plan.inner_steps - self._inner_step)
        has_time = plan.has_time(self._inner_step, more, now - self._started)
        self.moved_on, self._time_over = self._ranks.first(lambda: (self._overtaken(), not has_time))
        return not (self.moved_on or self._time_over)

    def propose(self, parameters: Mapping[str, Tensor], tokens: int, loss: float) -> None:
        """Hand over the parameters after the inner steps, their tokens and mean loss: this island's
        contribution.

        All the plan's inner steps are taken for done unless `progress` has said that there is no time for
        more.
        """
        plan = self._planned
        self._check(parameters)
        self._write_local(parameters)
        inner_steps = self._inner_step if self._time_over else plan.inner_steps
        now = time.monotonic()
        self._proposed = m.Proposed(
            step=plan.step,
            tokens=tokens,
            inner_steps=inner_steps,
            loss=loss,
            compute_seconds=now - self._started,
            handover=now - self._step_started,
        )
        self._tell(self._proposed)

    def data_dir(self) -> Path:
        """Where the run's prepared data is: manifest and tokenizer, fetched if need be, and what `provide`
        brings.

        Before `orders`. Raises UserError when this island may not go on.
        """
        return self._ranks.first(self._find_data)

    def provide(self, needed: Callable[[], dict[str, tuple[int, ...]]]) -> bool:
        """Have blocks (by file) of the prepared data here; False when the swarm has moved on without us
        meanwhile.

        `needed` runs on rank 0. All of a lease at once, before it is trained on: the socket to the agent is
        for one thread.
        """
        self.moved_on = self._ranks.first(lambda: self._want(needed()) is None)
        return not self.moved_on

    @property
    def private_dir(self) -> Path:
        """Where this island's parts of partitioned sources lie; they stay there."""
        return self._settings.private_dir

    @property
    def run(self) -> m.RunInfo:
        """What the run is; waits for this island's enrolment."""
        self._open()
        return self._member.run

    @property
    def island(self) -> str:
        self._open()
        return self._member.island

    def close(self) -> None:
        """Let the agent end; it leaves the swarm and keeps its files."""
        if self._agent is not None:
            self._agent.stop()

    # -------------------------------------------------------------------------------------------- the agent
    def _start_agent(self) -> None:
        arguments = command(self._settings, self._ticket)
        self._agent = Child(arguments, log=self._log, leash=False)
        self._agent.socket.settimeout(SILENT_SECONDS)

    @property
    def _planned(self) -> Plan:
        assert self._plan is not None, "orders() has given no plan yet"
        return self._plan

    @property
    def _its_agent(self) -> Child:
        assert self._agent is not None, "rank 0 alone talks to the agent"
        return self._agent

    def _restart_agent(self, why: str) -> None:
        """A dead agent costs nothing but time: its files hold all it knew, and we what we work on."""
        status = self._its_agent.stop(1.0)
        self._restarts += 1
        if status == 2 or self._restarts > MAX_RESTARTS:
            raise UserError(
                f"this island's agent cannot go on ({why}); its log: {self._log or 'standard error'}"
            )
        time.sleep(min(5.0, 0.2 * 2**self._restarts))
        self._start_agent()
        self._pending.clear()  # orders of the dead one
        if self._attached:
            self._tell(m.Attached(self._loaded))
        if self._wanted:
            self._tell(self._wanted)

    def _find_data(self) -> Path:
        path = self._want({})
        if path is None:
            last = self._pending[0]
            raise UserError((isinstance(last, m.Stopped) and last.reason) or "the run is finished")
        return path

    def _want(self, blocks: dict[str, tuple[int, ...]]) -> Path | None:
        """Where the data is, with these blocks; None when an order comes first."""
        self._num_wanted += 1
        self._wanted = m.WantData(self._num_wanted, blocks)
        self._tell(self._wanted)
        path = None
        while path is None and not self._pending:
            message = self._receive()
            if isinstance(message, m.DataAt):
                path = Path(message.path)
            else:
                self._pending.append(message)
        self._wanted = None
        return path

    def _next(self) -> m.AnyMessage:
        return self._pending.pop(0) if self._pending else self._receive()

    def _receive(self) -> m.AnyMessage:
        while True:
            try:
                message = read_frame(self._its_agent.socket)
                self._restarts = 0
                if self._is_news(message):
                    return message
            except (TransportError, OSError) as error:
                self._restart_agent(str(error) or type(error).__name__)

    def _tell(self, message: Message) -> None:
        if self._agent is not None:
            with contextlib.suppress(
                OSError
            ):  # a dead agent is noticed, and replaced, where the next order is awaited
                self._agent.socket.sendall(frame(message))

    def _overtaken(self) -> bool:
        """Whether an order waits: while we train, that can only mean that the step was decided without us."""
        while select.select([self._its_agent.socket], [], [], 0)[0]:
            try:
                message = read_frame(self._its_agent.socket)
            except (TransportError, OSError) as error:
                self._restart_agent(str(error))
                continue
            self._restarts = 0
            if self._is_news(message) and not (
                isinstance(message, m.Work) and self._planned.is_same_work(message.plan)
            ):
                self._pending.append(message)
        return bool(self._pending)

    def _is_news(self, message: m.AnyMessage) -> bool:
        """Neither a sign of life nor the answer to a question that was given up."""
        if isinstance(message, m.DataAt):
            return self._wanted is not None and message.number == self._wanted.number
        return not isinstance(message, m.Pulse)

    # ---------------------------------------------------------------------------------------------- mappings
    def _open(self) -> Layout:
        """Map the agent's files, once it has enrolled and made them."""
        if self._layout is None:
            self._member = self._ranks.first(self._wait_for_membership)
            self._layout = self._member.run.layout
            size, files = self._layout.num_elements, self._settings.directory / "state"
            self._outer, self._local = map_file(files / PARAMETERS, size), map_file(files / LOCAL, size)
            map_file(files / MOMENTUM, size)
            self._generation = map_generation(files)
        return self._layout

    def _wait_for_membership(self) -> membership.Membership:
        deadline = time.monotonic() + ENROL_SECONDS
        directory = self._settings.directory
        while (member := membership.load(directory)) is None:
            if not self._its_agent.alive:
                message = self._receive()  # its last words, or a new agent
                if isinstance(message, m.Stopped):
                    raise UserError(message.reason)
                self._pending.append(message)
            if time.monotonic() > deadline:
                raise UserError(f"{directory}: no membership within {ENROL_SECONDS:.0f} s")
            time.sleep(0.05)
        return member

    def _check(self, parameters: Mapping[str, Tensor]) -> None:
        ours = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        theirs = {tensor.name: tensor.shape for tensor in self._open().tensors}
        if ours != theirs:
            wrong = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
            raise UserError(f"this model is not the run's: {', '.join(wrong[:5])} differ in name or shape")

    def _write_local(self, parameters: Mapping[str, Tensor]) -> None:
        """Every rank its own rows, and all of them when this returns."""
        layout = self._open()
        for tensor, start in zip(layout.tensors, layout.offsets, strict=False):
            before_ours, ours = own_rows(parameters[tensor.name])
            values = ours.detach().float().cpu().numpy().reshape(-1)
            self._local[start + before_ours : start + before_ours + len(values)] = values
        self._ranks.wait()


class ElasticDeviceMesh:
    """`local`: the ranks of this island, a `torch.distributed` DeviceMesh. `swarm`: the islands of the
    run.
    """

    def __init__(self, ranks: Ranks, swarm: Swarm) -> None:
        self.ranks = ranks
        self.swarm = swarm
        self._local: DeviceMesh | None = None

    @staticmethod
    def join(
        ticket: str,
        directory: Path,
        contributor: str = "",
        *,
        settings: Settings | None = None,
        log: Path | None = None,
    ) -> "ElasticDeviceMesh":
        """Become an island of the run that `ticket` names (it may be empty where `directory` already is one).

        Under torchrun all its processes are this one island, and rank 0's arguments count.
        """
        ranks = Ranks.of_torchrun()
        return ElasticDeviceMesh(
            ranks,
            Swarm(
                settings or Settings(directory=directory, coordinator="", contributor=contributor),
                ticket,
                ranks,
                log,
            ),
        )

    @property
    def local(self) -> DeviceMesh:
        """The ranks, on the device that `place` was given, else on the accelerator that torch finds, else on
        the CPU.
        """
        return self._local or self.place("auto")

    def place(self, device: str) -> DeviceMesh:
        """Choose the device of `local`, once, before it is used. Raises UserError where there is no such
        device.
        """
        self._local = self.ranks.device_mesh(device_named(device))
        return self._local

    def __enter__(self) -> "ElasticDeviceMesh":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.swarm.close()
        self.ranks.close()
