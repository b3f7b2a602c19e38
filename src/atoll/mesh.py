"""ElasticDeviceMesh: the two sides of an island. `local` is fixed ranks; `swarm` is whoever is there.

Bring your own module and loop (`examples/own_loop.py`), or read `train.py`, which is one.
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from atoll.agent import membership
from atoll.agent.__main__ import encode_arguments
from atoll.agent.server import Settings
from atoll.agent.state import LOCAL, MOMENTUM, PARAMETERS, loaded_root, map_file, map_generation
from atoll.agent.trainer import frame, read_frame
from atoll.errors import UserError
from atoll.processes import Child
from atoll.swarm import messages as m
from atoll.swarm.layout import Layout
from atoll.swarm.records import Message, Plan
from atoll.swarm.transport import TransportError

SILENT_SECONDS = 600.0  # an agent that says nothing for so long is started afresh; its files hold all it knows
MAX_RESTARTS = 5  # of an agent without a single order in between
__all__ = ["Adopt", "ElasticDeviceMesh", "Plan", "Swarm"]


@dataclass(frozen=True)
class Adopt:
    """An order: an update is committed, for all of us; load the outer state."""

    step: int
    message: m.Adopt


class Swarm:
    """The elastic side, through this island's agent. Orders come in; progress and proposals go out."""

    def __init__(self, settings: Settings, ticket: str, log: Path | None = None) -> None:
        """Start the agent. `ticket` may be empty once this directory is a member. `log` takes its standard error."""
        self.outer_steps = 0  # adopted by this process
        self._settings = settings
        self._ticket = ticket
        self._log = log
        self._step = -1
        self._inner_step = 0
        self._started = self._step_started = time.monotonic()
        self._restarts = 0
        self._pending: list[m.AnyMessage] = []
        self._layout: Layout | None = None
        self._start_agent()

    # ------------------------------------------------------------------------------------------------ orders
    def orders(self) -> Iterator[Adopt | Plan]:
        """What to do next, until the run is finished. Raises UserError when this island may not go on."""
        self._tell(m.Attached())
        while True:
            message = self._next()
            match message:
                case m.Adopt():
                    self._restarts = 0
                    yield Adopt(message.step, message)
                case m.Work():
                    self._step, self._inner_step = message.plan.step, 0
                    self._started = self._step_started = time.monotonic()
                    yield message.plan
                case m.Stopped() if message.reason:
                    raise UserError(message.reason)
                case m.Stopped():
                    return
                case _:
                    raise RuntimeError(f"the agent sent {type(message).__name__}")

    def adopt(self, order: Adopt, parameters: Mapping[str, Tensor]) -> None:
        """Copy the outer state into these parameters, in place, and prove to the swarm what they now hold.

        Raises UserError unless names and shapes are exactly the run's.
        """
        layout = self._open()
        self._check(parameters)
        outer, generation = self._outer, self._generation
        while True:
            before = int(generation[0])
            with torch.no_grad():
                for tensor, start in zip(layout.tensors, layout.offsets, strict=False):
                    values = np.array(outer[start : start + tensor.num_elements]).reshape(tensor.shape)
                    parameters[tensor.name].copy_(torch.from_numpy(values))
            if before % 2 == 0 and int(generation[0]) == before:
                break
            time.sleep(0.001)  # the agent is applying an update: what was copied may be torn
        self._write_local(parameters)
        self.outer_steps += 1
        self._tell(m.Adopted(order.step, loaded_root(layout, order.message.table, self._local)))

    def progress(self, loss: float, tokens: int) -> bool:
        """Report one inner step of `tokens` tokens; False when the swarm has moved on and the rest is in vain."""
        self._inner_step += 1
        now = time.monotonic()
        rate = tokens / max(now - self._step_started, 1e-9)
        self._step_started = now
        self._tell(m.Progress(self._step, self._inner_step, loss, rate))
        return not self._overtaken()

    def propose(self, parameters: Mapping[str, Tensor], tokens: int, loss: float) -> None:
        """Hand over the parameters after the inner steps, their tokens and mean loss: this island's contribution."""
        self._check(parameters)
        self._write_local(parameters)
        seconds = time.monotonic() - self._started
        self._tell(m.Proposed(self._step, tokens, self._inner_step, loss, seconds))

    def data_dir(self) -> Path:
        """Where the run's prepared data is; fetched from peers first, if need be."""
        self._tell(m.WantData())
        while True:
            message = self._receive()
            if isinstance(message, m.DataAt):
                return Path(message.path)
            if isinstance(message, m.Stopped):
                raise UserError(message.reason or "the run is finished")
            self._pending.append(message)

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
        self._agent.stop()

    # -------------------------------------------------------------------------------------------- the agent
    def _start_agent(self) -> None:
        arguments = ["atoll.agent", encode_arguments(self._settings, self._ticket, "{fd}")]
        self._agent = Child(arguments, log=self._log, leash=False)
        self._agent.socket.settimeout(SILENT_SECONDS)

    def _restart_agent(self, why: str) -> None:
        """A dead agent costs nothing but time: its files hold all it knew."""
        status = self._agent.stop(1.0)
        self._restarts += 1
        if status == 2 or self._restarts > MAX_RESTARTS:
            raise UserError(f"this island's agent cannot go on ({why}); its log: {self._log or 'standard error'}")
        time.sleep(min(5.0, 0.2 * 2**self._restarts))
        self._start_agent()
        self._tell(m.Attached())

    def _next(self) -> m.AnyMessage:
        return self._pending.pop(0) if self._pending else self._receive()

    def _receive(self) -> m.AnyMessage:
        while True:
            try:
                return read_frame(self._agent.socket)
            except (TransportError, OSError) as error:
                self._restart_agent(str(error) or type(error).__name__)

    def _tell(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # a dead agent is noticed, and replaced, where the next order is awaited
            self._agent.socket.sendall(frame(message))

    def _overtaken(self) -> bool:
        """Whether an order waits: while we train, that can only mean that the step was decided without us."""
        if self._pending:
            return True
        self._agent.socket.setblocking(False)
        try:
            return bool(self._agent.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        except OSError:
            return False  # a dead agent: the proposal goes to the next one
        finally:
            self._agent.socket.settimeout(SILENT_SECONDS)

    # ---------------------------------------------------------------------------------------------- mappings
    def _open(self) -> Layout:
        """Map the agent's files, once it has enrolled and made them."""
        if self._layout is None:
            deadline = time.monotonic() + SILENT_SECONDS
            directory = self._settings.directory
            while (member := membership.load(directory)) is None:
                if not self._agent.alive:
                    message = self._receive()  # its last words, or a new agent
                    if isinstance(message, m.Stopped):
                        raise UserError(message.reason)
                    self._pending.append(message)
                if time.monotonic() > deadline:
                    raise UserError(f"{directory}: no membership within {SILENT_SECONDS:.0f} s")
                time.sleep(0.05)
            self._member = member
            self._layout = member.run.layout
            size, files = self._layout.num_elements, directory / "state"
            self._outer, self._local = map_file(files / PARAMETERS, size), map_file(files / LOCAL, size)
            map_file(files / MOMENTUM, size)
            self._generation = map_generation(files)
        return self._layout

    def _check(self, parameters: Mapping[str, Tensor]) -> None:
        ours = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        theirs = {tensor.name: tensor.shape for tensor in self._open().tensors}
        if ours != theirs:
            wrong = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
            raise UserError(f"this model is not the run's: {', '.join(wrong[:5])} differ in name or shape")

    def _write_local(self, parameters: Mapping[str, Tensor]) -> None:
        layout = self._open()
        for tensor, start in zip(layout.tensors, layout.offsets, strict=False):
            values = parameters[tensor.name].detach().float().cpu().numpy().reshape(-1)
            self._local[start : start + tensor.num_elements] = values


class ElasticDeviceMesh:
    """`local`: the ranks of this island, a `torch.distributed` DeviceMesh. `swarm`: the islands of the run."""

    def __init__(self, local: DeviceMesh | None, swarm: Swarm) -> None:
        self.local = local
        self.swarm = swarm

    @staticmethod
    def join(ticket: str, directory: Path, contributor: str = "", *, settings: Settings | None = None,
             log: Path | None = None) -> "ElasticDeviceMesh":  # fmt: skip
        """Become an island of the run that `ticket` names (it may be empty where `directory` already is one)."""
        settings = settings or Settings(directory, "", contributor)
        return ElasticDeviceMesh(None, Swarm(settings, ticket, log))

    def __enter__(self) -> "ElasticDeviceMesh":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.swarm.close()
