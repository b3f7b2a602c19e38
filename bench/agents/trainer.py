"""A trainer without torch: speaks the agent's local socket as `mesh.Swarm` does, but sleeps where an island
would train.

`python -m agents.trainer OPTIONS` (JSON). Everything that it does goes, with the time, into a journal of JSON
lines that its own death does not tear.
"""

import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from atoll.agent import membership
from atoll.agent.mapped import LOCAL, MOMENTUM, PARAMETERS, loaded_root, map_file, map_generation
from atoll.agent.settings import Settings, command
from atoll.agent.trainer import frame, read_frame
from atoll.run.processes import Child, watch_leash
from atoll.samples import num_samples
from atoll.swarm import messages as m
from atoll.swarm.records import Message, Plan
from atoll.swarm.transport import TransportError

SILENT_SECONDS = 60.0  # as in mesh.py
ENROL_SECONDS = 120.0
TOKENS_PER_SAMPLE = 1024  # swarm.py's context length
STRIDE = 1 << 20  # elements perturbed at once
TARGET = np.float32(3.0)  # where every trainer pulls the parameters


class Options(msgspec.Struct, frozen=True, kw_only=True):
    directory: str
    ticket: str
    genesis: str  # where state 0 lies; "" when it must come from peers
    host: str  # where peers reach this island
    elements: int  # fp32 parameters of its model
    step_seconds: float  # of one inner step
    seed: int


class Trainer:
    """Lives as long as its island is to live; its agents may come and go."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._directory = Path(options.directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(
            self._directory / "journal.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
        self._noise = np.random.default_rng(options.seed).standard_normal(STRIDE).astype(
            np.float32
        ) * np.float32(1e-3)
        self._pending: list[m.AnyMessage] = []
        self._mapped = False
        self._plan: Plan | None = None  # trained on since the last adoption
        self._proposed: m.Proposed | None = None
        self._loaded = b""
        self._note("started")
        self._start_agent()
        self._weights = np.ones(options.elements, np.float32)  # as a model is made: while the agent enrols

    def run(self) -> int:
        """Until the run is finished (0) or this island may not go on (2)."""
        self._tell(m.Attached())
        while True:
            order = self._pending.pop(0) if self._pending else self._receive()
            match order:
                case m.Adopt():
                    self._adopt(order)
                case m.Work() if self._plan is None:
                    self._plan = order.plan
                    self._train(order.plan)
                case m.Work() if self._proposed and self._plan and self._plan.is_same_work(order.plan):
                    self._tell(self._proposed)
                case m.Work():
                    self._tell(m.Attached())
                case m.Stopped():
                    self._note("stopped", reason=order.reason)
                    return 2 if order.reason else 0
                case _:
                    raise RuntimeError(f"the agent sent {type(order).__name__}")

    def _adopt(self, order: m.Adopt) -> None:
        """Copy the outer state into our weights and prove what they hold."""
        self._map()
        layout, torn = self._layout, False
        while True:
            before = int(self._generation[0])
            self._weights[:] = self._outer
            torn = bool(before % 2) or int(self._generation[0]) != before
            if not torn or not self._agent.alive:
                break
            time.sleep(0.001)
        self._local[:] = (
            self._weights
        )  # as the ranks of a real island do: what is proven is what they all hold
        self._plan = self._proposed = None
        self._loaded = loaded_root(layout, order.table, self._local)
        self._note("adopted", step=order.step, root=self._loaded.hex(), torn=torn)
        self._tell(m.Adopted(order.step, self._loaded))

    def _train(self, plan: Plan) -> None:
        self._note("work", step=plan.step, inner_steps=plan.inner_steps)
        began = last = time.monotonic()
        done = 0
        while done < plan.inner_steps and plan.has_time(done, 1, time.monotonic() - began):
            time.sleep(self._options.step_seconds)
            done, last = done + 1, time.monotonic()
            self._tell(m.Progress(plan.step, done, 1.0, 1.0))
            self._note("inner", step=plan.step, inner=done)
            if self._overtaken():
                self._note("overtaken", step=plan.step)
                return
        for start in range(0, len(self._weights), STRIDE):
            part = self._weights[start : start + STRIDE]
            part += np.float32(0.02) * (TARGET - part) + self._noise[: len(part)]
        self._local[:] = self._weights
        tokens = TOKENS_PER_SAMPLE * num_samples(plan.used_lease(done))
        self._note("proposed", step=plan.step, tokens=tokens)
        now = time.monotonic()
        self._proposed = m.Proposed(
            step=plan.step,
            tokens=tokens,
            inner_steps=done,
            loss=1.0,
            compute_seconds=now - began,
            handover=now - last,
        )
        self._tell(self._proposed)

    def _map(self) -> None:
        """The agent's files, once it has enrolled and made them."""
        if self._mapped:
            return
        member = membership.load(self._directory)
        assert member is not None, "an agent that orders has enrolled"
        self._layout, files = member.run.layout, self._directory / "state"
        size = self._layout.num_elements
        self._outer, self._local = map_file(files / PARAMETERS, size), map_file(files / LOCAL, size)
        map_file(files / MOMENTUM, size)
        self._generation = map_generation(files)
        self._mapped = True

    def _overtaken(self) -> bool:
        """Whether an order waits: the step was decided without us."""
        while select.select([self._agent.socket], [], [], 0)[0]:
            try:
                message = read_frame(self._agent.socket)
            except (TransportError, OSError) as error:
                self._restart_agent(str(error))
                continue
            again = isinstance(message, m.Work) and self._plan and self._plan.is_same_work(message.plan)
            if not again and not isinstance(message, m.Pulse):
                self._pending.append(message)
        return bool(self._pending)

    def _receive(self) -> m.AnyMessage:
        while True:
            try:
                message = read_frame(self._agent.socket)
            except (TransportError, OSError) as error:
                self._restart_agent(str(error) or type(error).__name__)
                continue
            if not isinstance(message, m.Pulse):
                return message

    def _start_agent(self) -> None:
        options = self._options
        genesis = (Path(options.genesis),) if options.genesis else ()
        settings = Settings(
            directory=self._directory,
            coordinator="",
            contributor=self._directory.name,
            relay=False,
            host=options.host,
            port=0,
            dial_only=False,
            checkpoint_dirs=genesis,
            data_dirs=(),
        )
        self._agent = Child(command(settings, options.ticket), log=self._directory / "agent.log", leash=False)
        self._agent.socket.settimeout(SILENT_SECONDS)

    def _restart_agent(self, why: str) -> None:
        status = self._agent.stop(1.0)
        self._note("agent", why=why, status=status)
        if status == 2:
            sys.exit(2)
        time.sleep(0.4)  # mesh.py's first pause
        self._start_agent()
        self._pending.clear()
        self._tell(m.Attached(self._loaded))

    def _tell(self, message: Message) -> None:
        try:
            self._agent.socket.sendall(frame(message))
        except OSError as error:
            self._note("deaf", why=str(error))  # a dead agent; noticed where the next order is awaited

    def _note(self, what: str, **facts: Any) -> None:
        os.write(self._journal, msgspec.json.encode({"time": time.time(), "what": what, **facts}) + b"\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    watch_leash()
    sys.exit(Trainer(msgspec.json.decode(sys.argv[1], type=Options)).run())
